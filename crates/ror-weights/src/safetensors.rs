//! safetensors: a JSON header, then the tensors' bytes.

use std::borrow::Cow;

use ::safetensors::{Dtype, SafeTensors, View, serialize};

use half::f16;

use crate::array::{Array, Budget, Element};
use crate::error::{ErrorKind, Result, damaged};
use crate::metadata;
use crate::named::NamedFile;
use crate::weights::Format;

const FORMAT: &str = "safetensors file";

/// Whether `bytes` begin as safetensors do: the header's length, then a JSON object.
pub(crate) fn is_safetensors(bytes: &[u8]) -> bool {
    // No header is that long; text, read as a length, is longer.
    const MAX_HEADER: u64 = 100 << 20;
    bytes.split_first_chunk().is_some_and(|(len, rest)| {
        u64::from_le_bytes(*len) <= MAX_HEADER && rest.first() == Some(&b'{')
    })
}

/// Reads the floating-point tensors of `bytes`; counters (`num_batches_tracked`) are left out.
pub(crate) fn read(bytes: &[u8]) -> Result<NamedFile> {
    let in_file = |e| damaged(FORMAT, e);
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(in_file)?;
    let file = SafeTensors::deserialize(bytes).map_err(in_file)?;
    let mut budget = Budget::for_file(bytes.len());
    let mut tensors = Vec::with_capacity(file.len());
    for name in header.offset_keys() {
        if name.ends_with("num_batches_tracked") {
            continue;
        }
        let view = file.tensor(&name).map_err(in_file)?;
        let element = match view.dtype() {
            Dtype::F16 => Element::F16,
            Dtype::BF16 => Element::BF16,
            Dtype::F32 => Element::F32,
            Dtype::F64 => Element::F64,
            other => {
                return Err(ErrorKind::Tensor {
                    tensor: name,
                    expected: "floating-point values".to_owned(),
                    found: format!("{other:?}"),
                });
            }
        };
        budget.take_tensor(&name, view.shape())?;
        tensors.push(Array::new(
            name,
            view.shape().to_vec(),
            element.decode(view.data()),
        )?);
    }
    Ok(NamedFile {
        tensors,
        pairs: header
            .metadata()
            .iter()
            .flatten()
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect(),
        format: Format::Safetensors { described: false },
    })
}

/// The bytes of a file of `arrays`, of `counters` at zero, and of `text` for ourselves.
pub(crate) fn write(
    arrays: Vec<Array>,
    kernels: Precision,
    counters: Vec<String>,
    text: String,
) -> Result<Vec<u8>> {
    let entries: Vec<(String, Entry)> = arrays
        .into_iter()
        .map(|array| Ok((array.name.clone(), Entry::new(array, kernels)?)))
        .collect::<Result<_>>()?;
    let floats = entries.into_iter();
    let counters = counters.into_iter().map(|name| (name, Entry::Counter));
    let pairs = Some([(metadata::KEY.to_owned(), text)].into());
    serialize(floats.chain(counters), pairs).map_err(|e| damaged(FORMAT, e))
}

/// How kernels, the tensors of two and more dimensions, are stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Precision {
    Single,
    Half,
}

/// A tensor to be written; its bytes are made one tensor at a time.
enum Entry {
    Floats(Array),
    /// Stored in 16 bits.
    Halves(Array),
    /// PyTorch's `num_batches_tracked`.
    Counter,
}

impl Entry {
    fn new(array: Array, kernels: Precision) -> Result<Self> {
        if kernels == Precision::Single || array.shape.len() < 2 {
            return Ok(Self::Floats(array));
        }
        match array.data.iter().find(|v| v.abs() > f16::MAX.to_f32()) {
            None => Ok(Self::Halves(array)),
            Some(v) => Err(ErrorKind::Tensor {
                expected: format!("values of 16 bits, at most {}", f16::MAX),
                found: v.to_string(),
                tensor: array.name,
            }),
        }
    }
}

impl View for Entry {
    fn dtype(&self) -> Dtype {
        match self {
            Self::Floats(_) => Dtype::F32,
            Self::Halves(_) => Dtype::F16,
            Self::Counter => Dtype::I64,
        }
    }

    fn shape(&self) -> &[usize] {
        match self {
            Self::Floats(array) | Self::Halves(array) => &array.shape,
            Self::Counter => &[],
        }
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Floats(array) => array.data.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Self::Halves(array) => {
                let halves = array.data.iter().map(|&v| f16::from_f32(v));
                halves.flat_map(f16::to_le_bytes).collect()
            }
            Self::Counter => Cow::Borrowed(&[0; size_of::<i64>()]),
        }
    }

    fn data_len(&self) -> usize {
        match self {
            Self::Floats(array) => size_of_val(array.data.as_slice()),
            Self::Halves(array) => array.data.len() * size_of::<f16>(),
            Self::Counter => size_of::<i64>(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::safetensors::tensor::TensorView;
    use std::collections::HashMap;

    fn file(
        tensors: &[(&str, Dtype, &[usize], &[u8])],
        metadata: Option<HashMap<String, String>>,
    ) -> Vec<u8> {
        let views = tensors.iter().map(|&(name, dtype, shape, data)| {
            (name, TensorView::new(dtype, shape.to_vec(), data).unwrap())
        });
        serialize(views, metadata).unwrap()
    }

    #[test]
    fn tensors_of_every_float_kind_and_metadata_read_back() {
        let single = 0.5f32.to_le_bytes();
        let halves = [f16::ONE, f16::NEG_ONE].map(f16::to_le_bytes).concat();
        let metadata = HashMap::from([("key".to_owned(), "value".to_owned())]);
        let bytes = file(
            &[
                ("a", Dtype::F32, &[], &single),
                ("b", Dtype::F16, &[1, 2], &halves),
                ("bn.num_batches_tracked", Dtype::I64, &[], &[0; 8]),
            ],
            Some(metadata.clone()),
        );
        assert!(is_safetensors(&bytes));
        let file = read(&bytes).unwrap();
        assert_eq!(file.pairs, metadata.into_iter().collect());
        let mut tensors = file.tensors;
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        assert_eq!(
            tensors,
            [
                Array::new("a".into(), vec![], vec![0.5]).unwrap(),
                Array::new("b".into(), vec![1, 2], vec![1.0, -1.0]).unwrap(),
            ]
        );
    }

    #[test]
    fn halved_kernels_keep_eleven_bits_and_the_rest_all() {
        let third = |shape: &[usize]| {
            let data = vec![1.0 / 3.0; shape.iter().product()];
            Array::new(format!("{shape:?}"), shape.to_vec(), data).unwrap()
        };
        let arrays = vec![third(&[4]), third(&[2, 2])];
        let bytes = write(arrays, Precision::Half, Vec::new(), String::new()).unwrap();
        for tensor in read(&bytes).unwrap().tensors {
            let single = tensor.shape.len() == 1;
            for v in tensor.data {
                assert_eq!(v == 1.0 / 3.0, single);
                assert!((v - 1.0 / 3.0).abs() < 1.0 / 8192.0);
            }
        }
        let large = Array::new("w".into(), vec![1, 1], vec![1e5]).unwrap();
        let error = write(vec![large], Precision::Half, Vec::new(), String::new()).unwrap_err();
        assert!(error.to_string().contains("`w`"), "{error}");
    }

    #[test]
    fn integers_are_no_weights() {
        let error = read(&file(&[("w", Dtype::I32, &[1], &[0; 4])], None)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "tensor `w`: expected floating-point values, found I32"
        );
    }

    #[test]
    fn a_truncated_file_is_damaged() {
        let bytes = file(&[("w", Dtype::F32, &[8], &[0; 32])], None);
        for len in [9, 20, bytes.len() - 1] {
            assert!(matches!(
                read(&bytes[..len]),
                Err(ErrorKind::Damaged { .. })
            ));
        }
    }
}
