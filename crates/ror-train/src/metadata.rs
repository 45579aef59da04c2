//! What travels with the weights of a run.

use crate::error::{Result, TrainError};
use crate::{EpochReport, RunConfig};
use serde::Serialize;
use std::collections::BTreeMap;

/// Description, classes and normalisation under the names that `ror` reads, and how the weights
/// came to be.
pub(crate) fn of(
    config: &RunConfig,
    classes: &[String],
    data: &str,
    best: Option<&EpochReport>,
) -> Result<BTreeMap<String, String>> {
    fn json(value: &impl Serialize) -> Result<String> {
        serde_json::to_string(value).map_err(|e| TrainError::Config(e.to_string()))
    }
    let mut pairs = BTreeMap::from([
        ("ror.description".to_owned(), json(&config.description)?),
        ("ror.class_names".to_owned(), json(&classes)?),
        (
            "ror.normalisation".to_owned(),
            json(&config.training.normalise)?,
        ),
        ("ror.training".to_owned(), json(&config.training)?),
        ("ror.data".to_owned(), data.to_owned()),
    ]);
    if let Some(best) = best {
        pairs.insert("ror.epoch".to_owned(), json(best)?);
    }
    Ok(pairs)
}
