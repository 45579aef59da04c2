//! Named float32 arrays in safetensors files.

use super::folder;
use crate::error::{Result, damaged};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use std::collections::BTreeMap;
use std::path::Path;

/// A named array.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Array {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

impl Array {
    pub(crate) fn new(name: String, shape: Vec<usize>, values: Vec<f32>) -> Self {
        Self {
            name,
            shape,
            values,
        }
    }
}

/// The bytes of a file with these arrays.
pub(crate) fn encode(
    arrays: &[Array],
    metadata: BTreeMap<String, String>,
) -> Result<Vec<u8>, safetensors::SafeTensorError> {
    let bytes: Vec<Vec<u8>> = arrays
        .iter()
        .map(|a| a.values.iter().flat_map(|v| v.to_le_bytes()).collect())
        .collect();
    let views = arrays
        .iter()
        .zip(&bytes)
        .map(|(a, bytes)| {
            let view = TensorView::new(Dtype::F32, a.shape.clone(), bytes)?;
            Ok((a.name.as_str(), view))
        })
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
    let metadata = (!metadata.is_empty()).then(|| metadata.into_iter().collect());
    safetensors::serialize(views, metadata)
}

/// Writes a file and syncs it; returns its checksum.
pub(crate) fn write_arrays(
    path: &Path,
    arrays: &[Array],
    metadata: BTreeMap<String, String>,
) -> Result<u32> {
    let bytes = encode(arrays, metadata).map_err(|e| damaged(path, e))?;
    folder::write_synced(path, &bytes)?;
    Ok(crc32c::crc32c(&bytes))
}

/// Reads a file whose checksum is known.
pub(crate) fn read_arrays(path: &Path, checksum: u32) -> Result<Vec<Array>> {
    let bytes = folder::read(path)?;
    let found = crc32c::crc32c(&bytes);
    if found != checksum {
        return Err(damaged(
            path,
            format!("the file is damaged: checksum {found:08x}, expected {checksum:08x}"),
        ));
    }
    let file = SafeTensors::deserialize(&bytes).map_err(|e| damaged(path, e))?;
    file.iter()
        .map(|(name, view)| {
            if view.dtype() != Dtype::F32 {
                let found = view.dtype();
                return Err(damaged(
                    path,
                    format!("`{name}` is {found:?}; expected F32"),
                ));
            }
            let (words, _) = view.data().as_chunks::<4>();
            let values = words.iter().map(|w| f32::from_le_bytes(*w)).collect();
            Ok(Array::new(name.to_owned(), view.shape().to_vec(), values))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TrainError;

    #[test]
    fn arrays_come_back_to_the_bit_and_damage_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let values = vec![
            f32::MIN_POSITIVE,
            -0.0,
            1.0 / 3.0,
            f32::MAX,
            f32::NAN,
            1e-42,
        ];
        let arrays = [
            Array::new("a".to_owned(), vec![2, 3], values),
            Array::new("b".to_owned(), vec![0], Vec::new()),
        ];
        let checksum = write_arrays(&path, &arrays, BTreeMap::new()).unwrap();
        let mut found = read_arrays(&path, checksum).unwrap();
        found.sort_by(|x, y| x.name.cmp(&y.name));
        for (found, expected) in found.iter().zip(&arrays) {
            assert_eq!(
                (&found.name, &found.shape),
                (&expected.name, &expected.shape)
            );
            let bits = |a: &Array| a.values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(found), bits(expected));
        }
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let error = read_arrays(&path, checksum).unwrap_err();
        assert!(matches!(error, TrainError::Damaged { .. }), "{error}");
    }
}
