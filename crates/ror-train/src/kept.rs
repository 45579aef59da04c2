//! Weights of a run as they are kept in files.

use crate::error::{Result, TrainError};
use crate::{EpochReport, RunConfig};
use candle_core::Tensor;
use ror_weights::{Format, Metadata, Normalisation, Weights};
use serde::Serialize;
use std::collections::BTreeMap;

/// Tensors with description, classes and normalisation, and how they came to be.
pub(crate) fn weights(
    config: &RunConfig,
    classes: &[String],
    data: &str,
    best: Option<&EpochReport>,
    tensors: BTreeMap<String, Tensor>,
) -> Result<Weights> {
    fn json(value: &impl Serialize) -> Result<String> {
        serde_json::to_string(value).map_err(|e| TrainError::Config(e.to_string()))
    }
    let mut extra = BTreeMap::from([
        ("training".to_owned(), json(&config.training)?),
        ("data".to_owned(), data.to_owned()),
    ]);
    if let Some(holdout) = config.source.holdout {
        extra.insert("holdout".to_owned(), holdout.to_string());
    }
    if let Some(EpochReport {
        epoch, validation, ..
    }) = best
    {
        extra.insert("epoch".to_owned(), epoch.to_string());
        if let Some(validation) = validation {
            extra.insert("validation".to_owned(), json(validation)?);
        }
    }
    let normalise = config.training.normalise;
    Ok(Weights {
        description: config.description.clone(),
        metadata: Metadata {
            class_names: Some(classes.to_vec()),
            normalisation: Some(Normalisation {
                mean: normalise.mean.to_vec(),
                std: normalise.std.to_vec(),
            }),
            extra,
        },
        tensors,
        notes: Vec::new(),
        format: Format::Memory,
    })
}
