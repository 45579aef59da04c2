//! `.keras`: a zip archive of `config.json`, `metadata.json` and `model.weights.h5`.

use serde_json::Value;

use super::{KerasFile, read_hdf5};
use crate::archive::Archive;
use crate::error::{Result, damaged};

const FORMAT: &str = ".keras archive";
const WEIGHTS: &str = "model.weights.h5";

/// Whether an archive with entries `names` is a Keras model.
pub(crate) fn is_keras(names: &[String]) -> bool {
    names.iter().any(|n| n == WEIGHTS || n == "config.json")
}

pub(crate) fn read(archive: &mut Archive) -> Result<KerasFile> {
    let config = json(archive, "config.json")?;
    let metadata = json(archive, "metadata.json")?;
    let weights = archive
        .read(WEIGHTS)?
        .ok_or_else(|| damaged(FORMAT, format_args!("no entry `{WEIGHTS}`")))?;
    let keras_version = metadata
        .as_ref()
        .and_then(|m| m.get("keras_version")?.as_str())
        .map(str::to_owned);
    Ok(KerasFile {
        keras_version,
        config,
        ..read_hdf5(weights)?
    })
}

fn json(archive: &mut Archive, name: &str) -> Result<Option<Value>> {
    archive
        .read(name)?
        .map(|text| serde_json::from_slice(&text))
        .transpose()
        .map_err(|e| damaged(FORMAT, format_args!("entry `{name}`: {e}")))
}
