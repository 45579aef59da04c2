//! A run's state on disk: complete, or not there.
//!
//! `last/` is never changed in place. Its successor is written as `.last.new` and synced; then
//! `last` becomes `.last.old`, `.last.new` becomes `last`, and `.last.old` goes. A process killed
//! between any two of these leaves a complete checkpoint under a name that [`recover`] knows.

mod arrays;
mod folder;

pub(crate) use folder::{FOLDERS, recover};

use arrays::{Array, read_arrays, write_arrays};
use folder::replace;

use crate::error::{Result, TrainError, damaged};
use crate::progress::Progress;
use crate::{Optimizer, OptimizerState, Subset};
use ror_models::{Network, Parameters};
use ror_weights::{Weights, save_safetensors};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

const WEIGHTS: &str = "weights.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const EMA: &str = "ema.safetensors";
const STATE: &str = "state.json";

/// The layout of `state.json`.
const FORMAT: u32 = 1;

/// Whether the `last` in a run's folder is a checkpoint.
pub(crate) fn is_one(run: &Path) -> bool {
    last(run).join(STATE).is_file()
}

/// Which images a run uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DataStamp {
    pub(crate) train: Stamp,
    pub(crate) validation: Option<Stamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    pub(crate) images: usize,
    /// CRC-32C of labels and pixels, or of labels and paths where images stay in files.
    pub(crate) checksum: u32,
}

impl DataStamp {
    pub(crate) fn of(train: &Subset, validation: Option<&Subset>) -> Self {
        Self {
            train: Stamp::of(train),
            validation: validation.map(Stamp::of),
        }
    }
}

impl Stamp {
    pub(crate) fn of(images: &Subset) -> Self {
        Self {
            images: images.len(),
            checksum: images.checksum(),
        }
    }
}

/// Whether the run in `folder`, which had the images `old`, has the same ones now.
pub(crate) fn check_data(folder: &Path, old: &DataStamp, new: &DataStamp) -> Result<()> {
    if old == new {
        return Ok(());
    }
    Err(TrainError::Data(format!(
        "these are not the images that the run in {} began with: it had {old}, there are {new}",
        folder.display(),
    )))
}

impl fmt::Display for DataStamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stamp { images, checksum } = self.train;
        write!(f, "{images} images ({checksum:08x}) to train on")?;
        if let Some(Stamp { images, checksum }) = self.validation {
            write!(f, " and {images} ({checksum:08x}) to validate on")?;
        }
        Ok(())
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct State {
    format: u32,
    progress: Progress,
    optimizer_steps: u64,
    ema_steps: Option<u64>,
    data: DataStamp,
    /// CRC-32C of the other files.
    files: BTreeMap<String, u32>,
}

/// What a checkpoint is made of.
pub(crate) struct Content<'a> {
    pub(crate) weights: &'a Weights,
    pub(crate) optimizer: &'a Optimizer,
    /// The weights' average, and the steps that it followed.
    pub(crate) ema: Option<(&'a Weights, u64)>,
    pub(crate) progress: &'a Progress,
    pub(crate) data: &'a DataStamp,
}

/// Saves a checkpoint as `last` in the folder `run`.
pub(crate) fn save(run: &Path, content: &Content) -> Result<()> {
    replace(run, |folder| {
        let mut files = BTreeMap::new();
        save_safetensors(&folder.join(WEIGHTS), content.weights)?;
        let optimizer = content.optimizer.state();
        write_arrays(&folder.join(OPTIMIZER), optimizer.moments)?;
        if let Some((average, _)) = content.ema {
            save_safetensors(&folder.join(EMA), average)?;
        }
        for name in [WEIGHTS, OPTIMIZER, EMA]
            .into_iter()
            .take(2 + usize::from(content.ema.is_some()))
        {
            let checksum = crc32c::crc32c(&folder::read(&folder.join(name))?);
            files.insert(name.to_owned(), checksum);
        }
        let state = State {
            format: FORMAT,
            progress: content.progress.clone(),
            optimizer_steps: optimizer.steps,
            ema_steps: content.ema.map(|(_, steps)| steps),
            data: content.data.clone(),
            files,
        };
        let path = folder.join(STATE);
        let text = serde_json::to_string_pretty(&state).map_err(|e| damaged(&path, e))?;
        folder::write_synced(&path, text.as_bytes())
    })
}

/// A checkpoint that was read back.
pub(crate) struct Restored {
    pub(crate) parameters: Parameters,
    pub(crate) optimizer: OptimizerState,
    pub(crate) ema: Option<(u64, BTreeMap<String, Vec<f32>>)>,
    pub(crate) progress: Progress,
    pub(crate) data: DataStamp,
}

/// How far the run in a folder was at its last checkpoint, and with which images; changes nothing
/// there.
pub(crate) fn progress(run: &Path) -> Result<(Progress, DataStamp)> {
    let state = state(&folder::complete(run)?)?;
    Ok((state.progress, state.data))
}

fn state(last: &Path) -> Result<State> {
    let path = last.join(STATE);
    let text = folder::read(&path)?;
    let state: State = serde_json::from_slice(&text).map_err(|e| damaged(&path, e))?;
    if state.format != FORMAT {
        let found = state.format;
        return Err(damaged(
            &path,
            format!("format {found}, of another version of ror; expected {FORMAT}"),
        ));
    }
    Ok(state)
}

/// Reads the checkpoint in the folder `last`.
pub(crate) fn load(last: &Path, network: &Network) -> Result<Restored> {
    let state = state(last)?;
    let read = |name: &str| {
        let path = last.join(name);
        match state.files.get(name) {
            Some(&checksum) => read_arrays(&path, checksum),
            None => Err(damaged(
                &last.join(STATE),
                format!("it does not list {name}"),
            )),
        }
    };
    let parameters = parameters(network, read(WEIGHTS)?, &last.join(WEIGHTS))?;
    let moments = read(OPTIMIZER)?;
    let ema = match state.ema_steps {
        Some(steps) => {
            let arrays = read(EMA)?.into_iter();
            Some((steps, arrays.map(|a| (a.name, a.values)).collect()))
        }
        None => None,
    };
    Ok(Restored {
        parameters,
        optimizer: OptimizerState {
            steps: state.optimizer_steps,
            moments: moments.into_iter().map(|a| (a.name, a.values)).collect(),
        },
        ema,
        progress: state.progress,
        data: state.data,
    })
}

fn parameters(network: &Network, arrays: Vec<Array>, path: &Path) -> Result<Parameters> {
    let mut tensors = std::collections::HashMap::new();
    let device = candle_core::Device::Cpu;
    for a in arrays {
        let tensor = candle_core::Tensor::from_vec(a.values, a.shape.as_slice(), &device)?;
        tensors.insert(a.name, tensor);
    }
    let vb = candle_nn::VarBuilder::from_tensors(tensors, candle_core::DType::F32, &device);
    Parameters::from_tensors(network, &vb).map_err(|e| damaged(path, e))
}

/// The folder of the last checkpoint.
pub(crate) fn last(run: &Path) -> PathBuf {
    run.join(folder::LAST)
}
