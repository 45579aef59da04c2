//! Named float32 arrays in safetensors files.

use super::folder;
use crate::error::{Result, damaged};
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensorError, SafeTensors};
use std::collections::BTreeMap;
use std::path::Path;

/// A named array.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Array {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

/// Writes flat arrays.
pub(crate) fn write_arrays(path: &Path, arrays: BTreeMap<String, Vec<f32>>) -> Result<()> {
    let bytes: BTreeMap<String, Vec<u8>> = arrays
        .into_iter()
        .map(|(name, values)| (name, values.iter().flat_map(|v| v.to_le_bytes()).collect()))
        .collect();
    let views = bytes.iter().map(|(name, bytes)| {
        let view = TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes)?;
        Ok((name.as_str(), view))
    });
    let file = views
        .collect::<Result<Vec<_>, SafeTensorError>>()
        .and_then(|views| safetensors::serialize(views, None))
        .map_err(|e| damaged(path, e))?;
    folder::write_synced(path, &file)
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
            Ok(Array {
                name: name.to_owned(),
                shape: view.shape().to_vec(),
                values,
            })
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
        let values = [f32::MIN_POSITIVE, -0.0, 1.0 / 3.0, f32::MAX, 1e-42];
        let arrays = BTreeMap::from([
            ("a".to_owned(), values.to_vec()),
            ("b".to_owned(), Vec::new()),
        ]);
        write_arrays(&path, arrays).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let checksum = crc32c::crc32c(&bytes);
        let mut found = read_arrays(&path, checksum).unwrap();
        found.sort_by(|x, y| x.name.cmp(&y.name));
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&found[0].values), bits(&values));
        assert_eq!(
            (found[0].shape.as_slice(), found[1].shape.as_slice()),
            (&[5][..], &[0][..])
        );

        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let error = read_arrays(&path, checksum).unwrap_err();
        assert!(matches!(error, TrainError::Damaged { .. }), "{error}");
    }
}
