//! Reading attributes and datasets of an HDF5 file that may be damaged.

use hdf5::{AttrValue, DType, Dataset, Datatype, DatatypeByteOrder, Group};

use crate::array::{Array, Budget, Element, checked_len};
use crate::error::{self, ErrorKind, Result};

pub(super) const FORMAT: &str = "HDF5 file";

pub(super) fn damaged(reason: impl ToString) -> ErrorKind {
    error::damaged(FORMAT, reason)
}

/// A group's attributes. An attribute that is there but cannot be decoded is an error where it is
/// asked for.
pub(super) struct Attributes {
    values: std::collections::HashMap<String, AttrValue>,
    present: std::collections::HashSet<String>,
}

impl Attributes {
    pub(super) fn of(group: &Group) -> Result<Self> {
        Ok(Self {
            values: group.attrs().map_err(damaged)?,
            present: group
                .attr_datatypes()
                .map_err(damaged)?
                .into_keys()
                .collect(),
        })
    }

    fn get(&self, name: &str) -> Result<Option<&AttrValue>> {
        match self.values.get(name) {
            None if self.present.contains(name) => Err(damaged(format_args!(
                "attribute `{name}` cannot be decoded"
            ))),
            value => Ok(value),
        }
    }

    /// Whether there is an attribute `name`, or its first part `name0`.
    pub(super) fn has_list(&self, name: &str) -> bool {
        self.present.contains(name) || self.present.contains(&format!("{name}0"))
    }

    /// A string attribute.
    pub(super) fn string(&self, name: &str) -> Result<Option<String>> {
        self.get(name)?
            .map(|value| {
                value.as_str().map(str::to_owned).ok_or_else(|| {
                    damaged(format_args!(
                        "attribute `{name}` is {}, not a string",
                        value.type_name()
                    ))
                })
            })
            .transpose()
    }

    /// A list of strings, which Keras cuts into `name0`, `name1`, ... where it is too long for one
    /// attribute.
    ///
    /// An empty list is stored as float64 of shape `[0]`.
    pub(super) fn strings(&self, name: &str) -> Result<Option<Vec<String>>> {
        if let Some(value) = self.get(name)? {
            return strings(name, value).map(Some);
        }
        let mut parts = Vec::new();
        for i in 0.. {
            let part = format!("{name}{i}");
            match self.get(&part)? {
                Some(value) => parts.extend(strings(&part, value)?),
                None if i == 0 => return Ok(None),
                None => break,
            }
        }
        Ok(Some(parts))
    }
}

fn strings(name: &str, value: &AttrValue) -> Result<Vec<String>> {
    match value {
        AttrValue::F64Array(empty) if empty.is_empty() => Ok(Vec::new()),
        value => value.as_strings().map(<[String]>::to_vec).ok_or_else(|| {
            damaged(format_args!(
                "attribute `{name}` is {}, not a list of strings",
                value.type_name()
            ))
        }),
    }
}

/// Reads one weight. Nothing is allocated before its shape has been checked against the file's
/// size.
pub(super) fn read_weight(dataset: &Dataset, name: &str, budget: &mut Budget) -> Result<Array> {
    let in_tensor = |e: hdf5::Error| damaged(format_args!("tensor `{name}`: {e}"));
    let to_usize = |dims: Vec<u64>| -> Result<Vec<usize>> {
        dims.into_iter()
            .map(|d| {
                usize::try_from(d)
                    .map_err(|_| damaged(format_args!("tensor `{name}`: dimension {d}")))
            })
            .collect()
    };
    let element = element(dataset, name)?;
    let shape = to_usize(dataset.shape().map_err(in_tensor)?)?;
    let len = budget.take_tensor(name, &shape)?;
    if let Some(chunk) = dataset.chunk_shape().map_err(in_tensor)? {
        // A chunk is decoded whole, however little of it lies inside the dataset.
        let chunk = to_usize(chunk)?;
        let bytes = checked_len(&chunk).and_then(|n| n.checked_mul(element.size()));
        if bytes.is_none_or(|bytes| bytes > budget.left()) {
            return Err(damaged(format_args!(
                "tensor `{name}`: chunks of shape {chunk:?}"
            )));
        }
    }
    let data = match element {
        Element::F16 | Element::BF16 => dataset.read_raw().map(|bytes| element.decode(&bytes)),
        Element::F32 | Element::F64 => dataset.read_f32(),
    }
    .map_err(in_tensor)?;
    if data.len() != len {
        return Err(damaged(format_args!(
            "tensor `{name}`: {} values for shape {shape:?}",
            data.len()
        )));
    }
    Array::new(name.to_owned(), shape, data)
}

fn element(dataset: &Dataset, name: &str) -> Result<Element> {
    let dtype = dataset
        .dtype()
        .map_err(|e| damaged(format_args!("tensor `{name}`: {e}")))?;
    let element = match &dtype {
        DType::F32 => Some(Element::F32),
        DType::F64 => Some(Element::F64),
        DType::Other(other) => half_precision(other),
        _ => None,
    };
    element.ok_or_else(|| ErrorKind::Tensor {
        tensor: name.to_owned(),
        expected: "floating-point values".to_owned(),
        found: dtype.to_string(),
    })
}

/// The two kinds of 16-bit numbers, which the crate hands out as bytes only.
fn half_precision(datatype: &Datatype) -> Option<Element> {
    match datatype {
        Datatype::FloatingPoint {
            size: 2,
            byte_order: DatatypeByteOrder::LittleEndian,
            layout,
        } => match (layout.exponent_size, layout.mantissa_size) {
            (5, 10) => Some(Element::F16),
            (8, 7) => Some(Element::BF16),
            _ => None,
        },
        _ => None,
    }
}
