//! Tensors as views of storages.

use std::collections::HashMap;

use super::damaged;
use super::pickle::{Id, Pickle, Value};
use crate::array::{Array, Budget, Element};
use crate::error::{ErrorKind, Result};

/// Where the tensors' bytes are.
pub(super) trait Storages {
    /// The bytes of the storage `key`.
    fn get(&mut self, key: &str) -> Result<Option<&[u8]>>;
}

/// Bytes per element of each storage.
pub(super) fn element_sizes(pickle: &Pickle) -> Result<HashMap<&str, usize>> {
    pickle
        .values()
        .filter_map(|value| match value {
            Value::Persistent(id) => Some(*id),
            _ => None,
        })
        // Pickled modules refer to their source code in the same way.
        .filter_map(|id| Storage::of(pickle, id).ok())
        .map(|storage| {
            let size = storage.kind.size().ok_or_else(|| {
                damaged(format_args!(
                    "storage {} is a `{}`",
                    storage.key, storage.class
                ))
            })?;
            Ok((storage.key, size))
        })
        .collect()
}

/// What a storage's elements are.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Float(Element),
    /// Not weights, but bytes that have to be stepped over.
    Other(usize),
    Unknown,
}

impl Kind {
    /// Of a storage class of module `torch`.
    fn of(class: &str) -> Self {
        match class.strip_prefix("torch.").unwrap_or(class) {
            "FloatStorage" => Self::Float(Element::F32),
            "DoubleStorage" => Self::Float(Element::F64),
            "HalfStorage" => Self::Float(Element::F16),
            "BFloat16Storage" => Self::Float(Element::BF16),
            "LongStorage" | "ComplexFloatStorage" => Self::Other(8),
            "IntStorage" => Self::Other(4),
            "ShortStorage" => Self::Other(2),
            "ByteStorage" | "CharStorage" | "BoolStorage" | "storage.UntypedStorage" => {
                Self::Other(1)
            }
            "ComplexDoubleStorage" => Self::Other(16),
            _ => Self::Unknown,
        }
    }

    fn size(self) -> Option<usize> {
        match self {
            Self::Float(element) => Some(element.size()),
            Self::Other(size) => Some(size),
            Self::Unknown => None,
        }
    }
}

/// A reference to a storage: `("storage", class, key, location, count[, view])`.
struct Storage<'a> {
    class: &'a str,
    kind: Kind,
    key: &'a str,
}

impl<'a> Storage<'a> {
    fn of(pickle: &'a Pickle, persistent_id: Id) -> Result<Self> {
        let fields = || {
            let &[tag, class, key, ..] = pickle.tuple(persistent_id)? else {
                return None;
            };
            (pickle.str(tag)? == "storage").then_some(())?;
            Some((pickle.global(class)?, pickle.str(key)?))
        };
        let (class, key) =
            fields().ok_or_else(|| damaged("a reference to something that is no storage"))?;
        Ok(Self {
            class,
            kind: Kind::of(class),
            key,
        })
    }
}

/// A tensor: a strided view of a storage, in elements.
pub(super) struct View<'a> {
    storage: Storage<'a>,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

impl<'a> View<'a> {
    /// Reads the call that would rebuild the tensor or parameter `name`.
    pub(super) fn of(pickle: &'a Pickle, name: &str, value: Id) -> Result<Self> {
        let not_tensor = |what: &str| ErrorKind::Tensor {
            tensor: name.to_owned(),
            expected: "a tensor".to_owned(),
            found: what.to_owned(),
        };
        let (mut callable, mut args) = pickle
            .call(value)
            .ok_or_else(|| not_tensor(pickle.get(value).kind()))?;
        // A parameter is (tensor, requires_grad, hooks[, state]).
        if callable.starts_with("torch._utils._rebuild_parameter")
            && let Some(tensor) = args.first().and_then(|&tensor| pickle.call(tensor))
        {
            (callable, args) = tensor;
        }
        match (callable, args) {
            (
                "torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor",
                &[storage, offset, shape, strides, ..],
            ) => {
                let sizes = |id: Id| -> Option<Vec<usize>> {
                    pickle.tuple(id)?.iter().map(|&d| pickle.usize(d)).collect()
                };
                let fields = || Some((pickle.usize(offset)?, sizes(shape)?, sizes(strides)?));
                let (offset, shape, strides) = fields()
                    .filter(|(_, shape, strides)| shape.len() == strides.len())
                    .ok_or_else(|| damaged(format_args!("tensor `{name}` has no valid shape")))?;
                let &Value::Persistent(id) = pickle.get(storage) else {
                    return Err(damaged(format_args!("tensor `{name}` has no storage")));
                };
                Ok(Self {
                    storage: Storage::of(pickle, id)?,
                    offset,
                    shape,
                    strides,
                })
            }
            _ => Err(not_tensor(&format!("the result of `{callable}`"))),
        }
    }

    /// Collects the view's elements in row-major order.
    pub(super) fn read(
        self,
        name: &str,
        storages: &mut impl Storages,
        budget: &mut Budget,
    ) -> Result<Array> {
        let Kind::Float(element) = self.storage.kind else {
            return Err(ErrorKind::Tensor {
                tensor: name.to_owned(),
                expected: "floating-point values".to_owned(),
                found: self.storage.class.to_owned(),
            });
        };
        let key = self.storage.key;
        let bytes = storages
            .get(key)?
            .ok_or_else(|| damaged(format_args!("tensor `{name}`: storage {key} is missing")))?;
        let len = budget.take_tensor(name, &self.shape)?;
        let stored = bytes.len() / element.size();
        if len > 0 && self.last_element().is_none_or(|last| last >= stored) {
            return Err(ErrorKind::Tensor {
                tensor: name.to_owned(),
                expected: format!(
                    "a storage of at least the elements of shape {:?}",
                    self.shape
                ),
                found: format!("{stored} elements"),
            });
        }
        let data = if len == 0 {
            Vec::new()
        } else if self.is_contiguous() {
            let start = self.offset * element.size();
            element.decode(&bytes[start..start + len * element.size()])
        } else {
            // Gathered as bytes first, so that a small view of a large storage costs what the view
            // does.
            let size = element.size();
            let gathered: Vec<u8> = self
                .offsets(len)
                .flat_map(|at| &bytes[at * size..(at + 1) * size])
                .copied()
                .collect();
            element.decode(&gathered)
        };
        Array::new(name.to_owned(), self.shape, data)
    }

    /// The storage position of the view's last element, in a view that has elements.
    fn last_element(&self) -> Option<usize> {
        self.shape
            .iter()
            .zip(&self.strides)
            .try_fold(self.offset, |at, (&d, &s)| {
                at.checked_add(d.checked_sub(1)?.checked_mul(s)?)
            })
    }

    fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        self.shape.iter().zip(&self.strides).rev().all(|(&d, &s)| {
            let fits = d == 1 || s == expected;
            expected *= d;
            fits
        })
    }

    /// The storage positions of the view's `len` elements, in row-major order.
    fn offsets(&self, len: usize) -> impl Iterator<Item = usize> {
        let mut index = vec![0; self.shape.len()];
        (0..len).map(move |_| {
            let at = self.offset
                + index
                    .iter()
                    .zip(&self.strides)
                    .map(|(i, s)| i * s)
                    .sum::<usize>();
            for (i, &d) in index.iter_mut().zip(&self.shape).rev() {
                *i += 1;
                if *i < d {
                    break;
                }
                *i = 0;
            }
            at
        })
    }
}
