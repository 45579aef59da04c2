//! Zip archives that may be damaged: entries are read whole, within a budget, whatever size they
//! declare.

use std::io::{Cursor, Read};

use zip::ZipArchive;
use zip::result::ZipError;

use crate::array::Budget;
use crate::error::{Result, damaged};

const FORMAT: &str = "zip archive";

/// An archive in memory.
pub(crate) struct Archive<'a> {
    zip: ZipArchive<Cursor<&'a [u8]>>,
    budget: Budget,
}

impl<'a> Archive<'a> {
    pub(crate) fn open(bytes: &'a [u8]) -> Result<Self> {
        Ok(Self {
            zip: ZipArchive::new(Cursor::new(bytes)).map_err(|e| damaged(FORMAT, e))?,
            budget: Budget::for_file(bytes.len()),
        })
    }

    /// The names of the entries, in the archive's order.
    pub(crate) fn names(&self) -> Result<Vec<String>> {
        self.zip
            .file_names()
            .map(|name| name.map(|n| n.into_owned()).map_err(|e| damaged(FORMAT, e)))
            .collect()
    }

    /// The content of entry `name`, checked against its checksum; `None` where there is no such
    /// entry.
    pub(crate) fn read(&mut self, name: &str) -> Result<Option<Vec<u8>>> {
        let in_entry =
            |e: &dyn std::fmt::Display| damaged(FORMAT, format_args!("entry `{name}`: {e}"));
        let entry = match self.zip.by_name(name) {
            Ok(entry) => entry,
            Err(ZipError::FileNotFound) => return Ok(None),
            Err(e) => return Err(in_entry(&e)),
        };
        let mut content = Vec::new();
        entry
            .take(self.budget.left() as u64 + 1)
            .read_to_end(&mut content)
            .map_err(|e| in_entry(&e))?;
        self.budget
            .take(content.len())
            .ok_or_else(|| in_entry(&"expands to many times the size of the file"))?;
        Ok(Some(content))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io::Write;
    use zip::write::SimpleFileOptions;
    use zip::{CompressionMethod, ZipWriter};

    /// An archive of `entries`.
    pub(crate) fn zip_of(entries: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content) in entries {
            let options = SimpleFileOptions::default().compression_method(method);
            writer.start_file(*name, options).unwrap();
            writer.write_all(content).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    #[test]
    fn stored_and_deflated_entries_read_back() {
        for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
            let bytes = zip_of(&[("a", b"one"), ("b/c", b"two")], method);
            let mut archive = Archive::open(&bytes).unwrap();
            assert_eq!(archive.names().unwrap(), ["a", "b/c"]);
            assert_eq!(archive.read("b/c").unwrap().as_deref(), Some(&b"two"[..]));
            assert_eq!(archive.read("d").unwrap(), None);
        }
    }

    #[test]
    fn an_entry_that_expands_beyond_the_budget_is_refused() {
        let bytes = zip_of(&[("bomb", &vec![0; 64 << 20])], CompressionMethod::Deflated);
        let error = Archive::open(&bytes).unwrap().read("bomb").unwrap_err();
        assert!(error.to_string().contains("many times"), "{error}");
    }
}
