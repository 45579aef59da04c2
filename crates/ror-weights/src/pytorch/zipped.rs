//! The zip format (torch 1.6 and later): `<name>/data.pkl`, and each storage as
//! `<name>/data/<key>`.

use std::collections::{BTreeMap, HashMap};

use super::damaged;
use super::pickle::Pickle;
use super::state_dict;
use super::view::Storages;
use crate::archive::Archive;
use crate::array::Budget;
use crate::error::{ErrorKind, Result};
use crate::named::NamedFile;
use crate::weights::Format;

/// Whether an archive with entries `names` was written by PyTorch.
pub(crate) fn is_pytorch(names: &[String]) -> bool {
    prefix(names).is_some()
}

/// The folder that the archive keeps everything in.
fn prefix(names: &[String]) -> Option<&str> {
    names
        .iter()
        .find_map(|n| n.strip_suffix("data.pkl").filter(|p| p.ends_with('/')))
}

/// Reads the floating-point tensors of the state dict in `archive`, an archive of `len` bytes.
pub(crate) fn read(archive: &mut Archive, len: usize) -> Result<NamedFile> {
    let names = archive.names()?;
    let prefix = prefix(&names).ok_or_else(|| damaged("no entry `data.pkl`"))?;
    if names
        .iter()
        .any(|n| n.strip_prefix(prefix) == Some("constants.pkl"))
    {
        return Err(ErrorKind::Unrecognised {
            found: "a TorchScript archive (save the module's state_dict() instead)".to_owned(),
        });
    }
    let mut entry = |name: &str| archive.read(&format!("{prefix}{name}"));
    if entry("byteorder")?.is_some_and(|order| order != b"little") {
        return Err(damaged("its storages are not little-endian"));
    }
    let pickle = entry("data.pkl")?.ok_or_else(|| damaged("no entry `data.pkl`"))?;
    let pickle = Pickle::parse(&pickle).map_err(damaged)?;
    let mut storages = Entries {
        entry,
        read: HashMap::new(),
    };
    Ok(NamedFile {
        tensors: state_dict::read(&pickle, &mut storages, &mut Budget::for_file(len))?,
        pairs: BTreeMap::new(),
        format: Format::Pytorch { legacy: false },
    })
}

/// The storages, read when first asked for.
struct Entries<F> {
    entry: F,
    read: HashMap<String, Vec<u8>>,
}

impl<F: FnMut(&str) -> Result<Option<Vec<u8>>>> Storages for Entries<F> {
    fn get(&mut self, key: &str) -> Result<Option<&[u8]>> {
        if !self.read.contains_key(key) {
            let Some(bytes) = (self.entry)(&format!("data/{key}"))? else {
                return Ok(None);
            };
            self.read.insert(key.to_owned(), bytes);
        }
        Ok(self.read.get(key).map(Vec::as_slice))
    }
}
