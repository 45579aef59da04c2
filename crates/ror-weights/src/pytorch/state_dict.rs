//! From a pickled state dict and its storages to named arrays.

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

/// Reads the floating-point tensors, in the dictionary's order.
///
/// A checkpoint that keeps its weights under `state_dict` is unwrapped, and the prefix `module.` of
/// `DataParallel` taken off. Counters (`num_batches_tracked`) are no weights and left out.
pub(super) fn read(
    pickle: &Pickle,
    storages: &mut impl Storages,
    budget: &mut Budget,
) -> Result<Vec<Array>> {
    let items = state_dict(pickle)?;
    let mut names = Vec::with_capacity(items.len());
    for &(key, _) in items {
        names.push(pickle.str(key).ok_or_else(|| {
            damaged(format_args!(
                "a key of the state dict is {}",
                pickle.get(key).kind()
            ))
        })?);
    }
    let parallel = !names.is_empty() && names.iter().all(|n| n.starts_with("module."));
    let mut arrays = Vec::with_capacity(names.len());
    for (name, &(_, value)) in names.into_iter().zip(items) {
        let view = View::of(pickle, name, value)?;
        let name = if parallel {
            &name["module.".len()..]
        } else {
            name
        };
        if name.ends_with("num_batches_tracked") {
            continue;
        }
        arrays.push(view.read(name, storages, budget)?);
    }
    Ok(arrays)
}

/// Bytes per element of each storage.
pub(super) fn element_sizes(pickle: &Pickle) -> Result<HashMap<&str, usize>> {
    pickle
        .values()
        .filter_map(|value| match value {
            Value::Persistent(id) => Some(*id),
            _ => None,
        })
        .map(|id| {
            let storage = Storage::of(pickle, id)?;
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

fn state_dict(pickle: &Pickle) -> Result<&[(Id, Id)]> {
    let root = match pickle.root() {
        Value::Dict(items) => items,
        Value::Call { callable, .. } => {
            let class = pickle.global(*callable).unwrap_or("object");
            return Err(ErrorKind::Unrecognised {
                found: format!("a pickled `{class}` (save its state_dict() instead)"),
            });
        }
        other => {
            return Err(ErrorKind::Unrecognised {
                found: format!("a PyTorch file of {}, not of a state dict", other.kind()),
            });
        }
    };
    let wrapped = root
        .iter()
        .find(|(key, _)| pickle.str(*key) == Some("state_dict"))
        .map(|&(_, value)| pickle.get(value));
    match wrapped {
        Some(Value::Dict(items)) => Ok(items),
        Some(other) => Err(damaged(format_args!(
            "its `state_dict` is {}",
            other.kind()
        ))),
        None => Ok(root),
    }
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
struct View<'a> {
    storage: Storage<'a>,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

impl<'a> View<'a> {
    /// Reads the call that would rebuild the tensor or parameter `name`.
    fn of(pickle: &'a Pickle, name: &str, value: Id) -> Result<Self> {
        let not_tensor = |what: &str| ErrorKind::Tensor {
            tensor: name.to_owned(),
            expected: "a tensor".to_owned(),
            found: what.to_owned(),
        };
        let &Value::Call { callable, args } = pickle.get(value) else {
            return Err(not_tensor(pickle.get(value).kind()));
        };
        let args = pickle.tuple(args).unwrap_or_default();
        match (pickle.global(callable), args) {
            // (tensor, requires_grad, hooks[, state]); parameters do not nest.
            (
                Some(
                    "torch._utils._rebuild_parameter"
                    | "torch._utils._rebuild_parameter_with_state",
                ),
                &[inner, ..],
            ) if matches!(pickle.get(inner), Value::Call { callable, .. }
                    if pickle.global(*callable).is_some_and(|c| c.starts_with("torch._utils._rebuild_tensor"))) =>
            {
                Self::of(pickle, name, inner)
            }
            (
                Some("torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor"),
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
            (Some(other), _) => Err(not_tensor(&format!("the result of `{other}`"))),
            (None, _) => Err(not_tensor("an object")),
        }
    }

    /// Collects the view's elements in row-major order.
    fn read(self, name: &str, storages: &mut impl Storages, budget: &mut Budget) -> Result<Array> {
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
            // Gathered as bytes first, so that a small view of a large storage costs what the view does.
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

#[cfg(test)]
mod tests {
    use super::*;

    struct One(Vec<u8>);

    impl Storages for One {
        fn get(&mut self, key: &str) -> Result<Option<&[u8]>> {
            Ok((key == "0").then_some(self.0.as_slice()))
        }
    }

    /// Pickles `_rebuild_tensor_v2(storage 0 of `class`, offset, shape, strides, False, OrderedDict())`.
    fn tensor(class: &str, offset: u8, shape: &[u8], strides: &[u8]) -> Vec<u8> {
        let ints = |items: &[u8]| {
            [
                b"(".to_vec(),
                items.iter().flat_map(|&i| [b'K', i]).collect(),
                b"t".to_vec(),
            ]
            .concat()
        };
        [
            b"ctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\n".to_vec(),
            class.as_bytes().to_vec(),
            b"\nU\x010U\x03cpuK\x10tQK".to_vec(),
            vec![offset],
            ints(shape),
            ints(strides),
            b"\x89ccollections\nOrderedDict\n)RtR".to_vec(),
        ]
        .concat()
    }

    fn dict(items: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = b"}(".to_vec();
        for (key, value) in items {
            bytes.extend([b'U', key.len() as u8]);
            bytes.extend(key.as_bytes());
            bytes.extend(value);
        }
        bytes.push(b'u');
        bytes
    }

    fn read_items(items: &[(&str, Vec<u8>)]) -> Result<Vec<Array>> {
        read_pickle(dict(items))
    }

    fn read_pickle(mut pickle: Vec<u8>) -> Result<Vec<Array>> {
        pickle.push(b'.');
        let pickle = Pickle::parse(&pickle).map_err(damaged)?;
        let storage = (0..16u8).flat_map(|i| f32::from(i).to_le_bytes()).collect();
        read(&pickle, &mut One(storage), &mut Budget::for_file(1000))
    }

    #[test]
    fn views_share_a_storage_at_their_offsets_and_strides() {
        let arrays = read_items(&[
            ("whole", tensor("FloatStorage", 0, &[2, 3], &[3, 1])),
            ("transposed", tensor("FloatStorage", 0, &[3, 2], &[1, 3])),
            ("row", tensor("FloatStorage", 13, &[3], &[1])),
            ("repeated", tensor("FloatStorage", 5, &[3], &[0])),
            ("scalar", tensor("FloatStorage", 7, &[], &[])),
            ("empty", tensor("FloatStorage", 0, &[0, 4], &[4, 1])),
        ])
        .unwrap();
        let data: Vec<&[f32]> = arrays.iter().map(|a| a.data.as_slice()).collect();
        assert_eq!(data[0], [0., 1., 2., 3., 4., 5.]);
        assert_eq!(data[1], [0., 3., 1., 4., 2., 5.]);
        assert_eq!(data[2], [13., 14., 15.]);
        assert_eq!(data[3], [5., 5., 5.]);
        assert_eq!(data[4], [7.]);
        assert_eq!(
            (data[5], arrays[5].shape.as_slice()),
            (&[][..], &[0, 4][..])
        );
    }

    #[test]
    fn a_view_beyond_its_storage_is_named() {
        for view in [
            tensor("FloatStorage", 14, &[3], &[1]),
            tensor("FloatStorage", 0, &[2, 2], &[15, 1]),
            tensor("DoubleStorage", 0, &[9], &[1]),
            tensor("FloatStorage", 0, &[255, 255, 255, 255], &[0, 0, 0, 0]),
        ] {
            match read_items(&[("w", view)]) {
                Err(ErrorKind::Tensor { tensor, .. }) => assert_eq!(tensor, "w"),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn wrappers_and_prefixes_come_off_and_counters_stay_out() {
        let weight = || tensor("FloatStorage", 1, &[1], &[1]);
        let inner = dict(&[
            ("module.a.weight", weight()),
            (
                "module.a.num_batches_tracked",
                tensor("LongStorage", 0, &[], &[]),
            ),
        ]);
        let arrays = read_items(&[("epoch", b"K\x05".to_vec()), ("state_dict", inner)]).unwrap();
        assert_eq!(
            arrays,
            [Array::new("a.weight".into(), vec![1], vec![1.0]).unwrap()]
        );
    }

    #[test]
    fn what_is_no_state_dict_is_named() {
        let error = |pickle: &[u8]| read_pickle(pickle.to_vec()).unwrap_err().to_string();
        assert!(error(b"cmodels\nRoR\n)\x81").contains("a pickled `models.RoR`"));
        assert!(error(b"]").contains("of a list"));
        let error = read_items(&[("epoch", b"K\x05".to_vec())]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "tensor `epoch`: expected a tensor, found an integer"
        );
        let error = read_items(&[("w", tensor("LongStorage", 0, &[1], &[1]))]).unwrap_err();
        assert!(
            error.to_string().contains("found torch.LongStorage"),
            "{error}"
        );
    }
}
