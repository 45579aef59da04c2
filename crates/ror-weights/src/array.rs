//! The neutral form every reader ends in: named float32 arrays.

use std::fmt;

use half::{bf16, f16};

use crate::error::{ErrorKind, Result};

/// A float32 array as a file holds it: row-major, in the file's own axis order. Every value is
/// finite.
#[derive(Clone, PartialEq)]
pub(crate) struct Array {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Vec<f32>,
}

impl Array {
    /// Takes `data` under `shape`; a length that does not fit or a value that is not finite is an
    /// error.
    pub(crate) fn new(name: String, shape: Vec<usize>, data: Vec<f32>) -> Result<Self> {
        if checked_len(&shape) != Some(data.len()) {
            return Err(ErrorKind::Tensor {
                tensor: name,
                expected: format!("the values of shape {shape:?}"),
                found: format!("{} values", data.len()),
            });
        }
        if let Some(index) = data.iter().position(|v| !v.is_finite()) {
            return Err(ErrorKind::NotFinite {
                tensor: name,
                index,
                value: data[index],
            });
        }
        Ok(Self { name, shape, data })
    }
}

impl fmt::Debug for Array {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.name, self.shape)
    }
}

/// The product of `shape`, unless it overflows.
pub(crate) fn checked_len(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
}

/// How a file stores one weight, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    F16,
    BF16,
    F32,
    F64,
}

impl Element {
    /// Bytes per value.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::F16 | Self::BF16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// The values of `bytes`; a trailing part of a value is left out.
    pub(crate) fn decode(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Self::F16 => decode(bytes, |b| f16::from_le_bytes(b).to_f32()),
            Self::BF16 => decode(bytes, |b| bf16::from_le_bytes(b).to_f32()),
            Self::F32 => decode(bytes, f32::from_le_bytes),
            Self::F64 => decode(bytes, |b| f64::from_le_bytes(b) as f32),
        }
    }
}

fn decode<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks::<N>().0.iter().map(|&b| value(b)).collect()
}

/// Bytes that a tensor takes beside its name, shape and values.
const TENSOR: usize = size_of::<Array>() + 2 * size_of::<usize>();

/// What a file may still expand to in memory.
///
/// Headers can claim any size, and several tensors can name the same bytes. All that is decoded
/// from a file together may be a few times its length (compression, views that repeat a storage),
/// never more.
#[derive(Debug)]
pub(crate) struct Budget {
    left: usize,
}

impl Budget {
    /// The budget of a file of `len` bytes.
    pub(crate) fn for_file(len: usize) -> Self {
        Self {
            left: len.saturating_mul(4).saturating_add(1 << 20),
        }
    }

    /// Bytes that may still be decoded.
    pub(crate) fn left(&self) -> usize {
        self.left
    }

    /// Takes `bytes` out; `None` if they are not there.
    pub(crate) fn take(&mut self, bytes: usize) -> Option<()> {
        self.left = self.left.checked_sub(bytes)?;
        Some(())
    }

    /// Takes out a tensor of float32 values, and returns how many they are. Its name and shape count
    /// too: a few bytes of a file can name one without values again and again.
    pub(crate) fn take_tensor(&mut self, tensor: &str, shape: &[usize]) -> Result<usize> {
        checked_len(shape)
            .filter(|n| {
                let own = TENSOR + tensor.len() + size_of_val(shape);
                n.checked_mul(size_of::<f32>())
                    .and_then(|bytes| self.take(bytes.checked_add(own)?))
                    .is_some()
            })
            .ok_or_else(|| ErrorKind::Tensor {
                tensor: tensor.to_owned(),
                expected: "a shape that the file's bytes can fill".to_owned(),
                found: format!("{shape:?}"),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_kind_decodes_to_float32() {
        for (element, bytes) in [
            (Element::F16, f16::from_f32(-1.5).to_le_bytes().to_vec()),
            (Element::BF16, bf16::from_f32(-1.5).to_le_bytes().to_vec()),
            (Element::F32, (-1.5f32).to_le_bytes().to_vec()),
            (Element::F64, (-1.5f64).to_le_bytes().to_vec()),
        ] {
            assert_eq!(element.size(), bytes.len());
            assert_eq!(element.decode(&bytes), [-1.5]);
        }
    }

    #[test]
    fn a_value_that_is_not_finite_is_named() {
        let data = vec![0.0, f32::NAN, f32::INFINITY];
        match Array::new("w".into(), vec![3], data) {
            Err(ErrorKind::NotFinite {
                tensor, index: 1, ..
            }) => assert_eq!(tensor, "w"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_budget_refuses_shapes_beyond_the_file() {
        let mut budget = Budget::for_file(1000);
        assert_eq!(budget.take_tensor("w", &[10, 10]).unwrap(), 100);
        assert!(budget.take_tensor("w", &[usize::MAX, 2]).is_err());
        assert!(budget.take_tensor("w", &[1 << 30]).is_err());
        assert_eq!(budget.take_tensor("w", &[0, 5]).unwrap(), 0);
        // Nor are there any number of tensors without values.
        let long = vec![0; 1000];
        let left = budget.left();
        assert!((0..left / 8000 + 1).any(|_| budget.take_tensor("w", &long).is_err()));
    }
}
