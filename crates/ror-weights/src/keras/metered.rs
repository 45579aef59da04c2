//! An HDF5 file in memory, of which only so much is read.

use std::sync::atomic::{AtomicU64, Ordering};

use hdf5::{FormatError, Source};

/// A file's bytes. Attributes refer to strings anywhere in the file, any number of times, and all are
/// copied where one attribute is asked for: what may be read altogether is a few times the file's
/// length.
pub(super) struct Metered {
    bytes: Vec<u8>,
    left: AtomicU64,
}

impl Metered {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        /// For small files, whose headers are read many times over.
        const LEAST: u64 = 64 << 20;
        let most = LEAST.saturating_add(16 * bytes.len() as u64);
        Self::limited(bytes, most)
    }

    fn limited(bytes: Vec<u8>, most: u64) -> Self {
        Self {
            bytes,
            left: AtomicU64::new(most),
        }
    }
}

impl Source for Metered {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), FormatError> {
        let len = into.len() as u64;
        self.left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(len)
            })
            .map_err(|_| FormatError::Source("it refers to itself too often".to_owned()))?;
        let from = usize::try_from(offset).ok().and_then(|start| {
            let end = start.checked_add(into.len())?;
            self.bytes.get(start..end)
        });
        into.copy_from_slice(from.ok_or_else(|| {
            FormatError::Source(format!(
                "{len} bytes at {offset} of {} are wanted",
                self.bytes.len()
            ))
        })?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdf5::{AttrValue, File, FileBuilder};

    #[test]
    fn strings_that_are_read_too_often_are_left_out_and_nothing_outside_is_read() {
        let mut file = FileBuilder::new();
        let long = "x".repeat(10_000);
        file.set_attr("a", AttrValue::VarLenString(long.clone()));
        let bytes = file.finish().unwrap();
        let read = |most| File::from_source(Metered::limited(bytes.clone(), most));
        let attributes = read(1 << 20).unwrap().root().attrs().unwrap();
        assert_eq!(attributes["a"].as_str(), Some(long.as_str()));
        let file = read(9_000).unwrap();
        assert!(file.root().attrs().unwrap().is_empty());
        assert!(read(1).is_err());
        let metered = Metered::new(bytes.clone());
        let end = bytes.len() as u64;
        assert!(metered.read_at(end - 1, &mut [0]).is_ok());
        for offset in [end, u64::MAX] {
            assert!(metered.read_at(offset, &mut [0]).is_err());
        }
    }
}
