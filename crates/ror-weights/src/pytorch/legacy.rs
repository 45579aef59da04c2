//! The format before torch 1.6: five pickles (a magic number, a version, facts on the machine, the
//! state dict, the storages' keys), then each storage as an int64 count of its elements and their
//! bytes.

use std::collections::{BTreeMap, HashMap};

use super::damaged;
use super::pickle::{Pickle, Value};
use super::state_dict;
use super::view::{self, Storages};
use crate::array::Budget;
use crate::error::Result;
use crate::named::NamedFile;
use crate::weights::Format;

const MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;
const VERSION: i128 = 1001;

/// Whether `bytes` begin as this format does.
pub(crate) fn is_legacy(bytes: &[u8]) -> bool {
    let start = &bytes[..bytes.len().min(32)];
    Pickle::parse(start).is_ok_and(|p| *p.root() == Value::Int(MAGIC))
}

/// Reads the floating-point tensors of the state dict in `bytes`.
pub(crate) fn read(bytes: &[u8]) -> Result<NamedFile> {
    let mut rest = bytes;
    let mut next = || -> Result<Pickle> {
        let pickle = Pickle::parse(rest).map_err(damaged)?;
        rest = &rest[pickle.len()..];
        Ok(pickle)
    };
    let _magic = next()?;
    let version = next()?;
    if *version.root() != Value::Int(VERSION) {
        return Err(damaged(format_args!(
            "protocol version {:?} instead of {VERSION}",
            version.root()
        )));
    }
    let system = next()?;
    if flag(&system, "little_endian") == Some(false) {
        return Err(damaged("its storages are not little-endian"));
    }
    let state = next()?;
    let keys = next()?;
    let Value::List(keys_list) = keys.root() else {
        return Err(damaged(format_args!(
            "the list of storages is {}",
            keys.root().kind()
        )));
    };

    let sizes = view::element_sizes(&state)?;
    let mut storages = HashMap::new();
    for &key in keys_list {
        let key = keys
            .str(key)
            .ok_or_else(|| damaged("a storage's key is no string"))?;
        let size = *sizes
            .get(key)
            .ok_or_else(|| damaged(format_args!("storage {key} belongs to no tensor")))?;
        let (storage, after) = split_storage(rest, size).ok_or_else(|| {
            damaged(format_args!(
                "storage {key} is cut short, {} bytes before the end",
                rest.len()
            ))
        })?;
        storages.insert(key, storage);
        rest = after;
    }
    let mut budget = Budget::for_file(bytes.len());
    Ok(NamedFile {
        tensors: state_dict::read(&state, &mut Slices(storages), &mut budget)?,
        pairs: BTreeMap::new(),
        format: Format::Pytorch { legacy: true },
    })
}

fn flag(pickle: &Pickle, name: &str) -> Option<bool> {
    let Value::Dict(items) = pickle.root() else {
        return None;
    };
    let &(_, value) = items
        .iter()
        .find(|(key, _)| pickle.str(*key) == Some(name))?;
    match pickle.get(value) {
        Value::Bool(flag) => Some(*flag),
        _ => None,
    }
}

/// A count, and as many elements of `size` bytes.
fn split_storage(bytes: &[u8], size: usize) -> Option<(&[u8], &[u8])> {
    let (count, rest) = bytes.split_first_chunk()?;
    let count = usize::try_from(i64::from_le_bytes(*count)).ok()?;
    rest.split_at_checked(count.checked_mul(size)?)
}

struct Slices<'a>(HashMap<&'a str, &'a [u8]>);

impl Storages for Slices<'_> {
    fn get(&mut self, key: &str) -> Result<Option<&[u8]>> {
        Ok(self.0.get(key).copied())
    }
}
