//! The folder of a run.

use crate::checkpoint;
use crate::error::{At, Result, TrainError, damaged};
use crate::log::{CsvLog, EventLog, curves};
use crate::progress::Progress;
use crate::{EpochReport, Precision, StepReport, TrainConfig};
use atomicwrites::{AllowOverwrite, AtomicFile};
use ror_models::Description;
use ror_weights::{Weights, save_safetensors};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

const CONFIG: &str = "config.toml";
/// Bytes: a hundred times what one takes.
const LARGEST_CONFIG: u64 = 1 << 20;
const METRICS: &str = "metrics.csv";
const CURVES: &str = "curves.svg";
pub(crate) const BEST: &str = "best.safetensors";
const LOCK: &str = ".lock";

/// Steps between scalars in the event files.
const EVERY: u64 = 10;

/// All that is needed to repeat a run: `config.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RunConfig {
    /// The version of this crate that began the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Where the run's inputs came from. Only recorded here: whoever begins the run reads them.
    #[serde(default)]
    pub source: Source,
    /// How it trains.
    pub training: TrainConfig,
    /// The network.
    pub description: Description,
}

/// Where a run's inputs came from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Source {
    /// The data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// CIFAR-100's coarse classes.
    pub coarse: bool,
    /// SVHN's extra images.
    pub extra: bool,
    /// Whether the images of a folder were decoded when they were needed.
    pub lazy: bool,
    /// The fraction of the training images that was held back to validate on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holdout: Option<f64>,
    /// The weights that training began with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<PathBuf>,
    /// The number of threads that computed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// The device that computed, if not the processor: `cuda`, `cuda:1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// What it computed in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,
}

impl RunConfig {
    /// Reads the `config.toml` of a run.
    ///
    /// # Errors
    /// A folder without one, or one that does not describe a run.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(CONFIG);
        let metadata = fs::metadata(&path).at(&path)?;
        if !metadata.is_file() || metadata.len() > LARGEST_CONFIG {
            return Err(damaged(&path, "this is no configuration of a run"));
        }
        let text = fs::read_to_string(&path).at(&path)?;
        let config: Self = toml::from_str(&text).map_err(|e| damaged(&path, e))?;
        config.training.validate()?;
        config.description.validate()?;
        Ok(config)
    }

    /// As the text of a `config.toml`.
    ///
    /// # Errors
    /// A seed of 2^63 or more.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|e| TrainError::Config(e.to_string()))
    }

    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        write_atomic(&folder.join(CONFIG), self.to_toml()?.as_bytes())
    }
}

/// Writes a file whole or not at all.
pub(crate) fn write_atomic(path: &Path, content: &[u8]) -> Result<()> {
    AtomicFile::new(path, AllowOverwrite)
        .write(|file| file.write_all(content))
        .map_err(io::Error::from)
        .at(path)
}

/// The folder of a run that is going on.
#[derive(Debug)]
pub(crate) struct Output {
    folder: PathBuf,
    csv: CsvLog,
    events: EventLog,
    /// Ends with the process, however that ends.
    _lock: File,
}

impl Output {
    /// Makes the folder of a run; it must not hold one yet, nor anything that a run would replace.
    pub(crate) fn create(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).at(folder)?;
        let there = |name: &str| {
            let path = folder.join(name);
            fs::symlink_metadata(&path).is_ok()
        };
        if there(CONFIG) {
            return Err(damaged(
                folder,
                "there is a run in this folder already: resume it, or choose another folder",
            ));
        }
        // A run that was killed before it had its configuration has left a lock, and nothing worth keeping.
        let foreign = there(checkpoint::FOLDERS[0]) && !checkpoint::is_one(folder);
        let begun = there(LOCK) && !foreign;
        let kept = [BEST, CURVES].into_iter().chain(
            [METRICS]
                .into_iter()
                .chain(checkpoint::FOLDERS)
                .filter(|_| !begun),
        );
        if let Some(name) = kept.into_iter().find(|name| there(name)) {
            return Err(damaged(
                folder,
                format!("a run would replace the `{name}` in this folder: choose another"),
            ));
        }
        let lock = lock(folder)?;
        if there(CONFIG) {
            return Err(damaged(folder, "another process has begun a run here"));
        }
        Self::open(folder, &Progress::default(), lock)
    }

    /// Goes on with a run.
    pub(crate) fn open(folder: &Path, progress: &Progress, lock: File) -> Result<Self> {
        remove_unfinished(folder)?;
        Ok(Self {
            _lock: lock,
            folder: folder.to_owned(),
            csv: CsvLog::open(&folder.join(METRICS), &progress.history)?,
            events: EventLog::create(folder, progress.step)?,
        })
    }

    pub(crate) fn step(&mut self, report: &StepReport) -> Result<()> {
        if !report.step.is_multiple_of(EVERY) {
            return Ok(());
        }
        let scalars = [
            ("train/loss", report.loss),
            ("train/lr", report.lr),
            ("train/gradient_norm", report.gradient_norm),
        ];
        self.events.scalars(report.step, &scalars)
    }

    pub(crate) fn epoch(&mut self, history: &[EpochReport]) -> Result<()> {
        let Some(report) = history.last() else {
            return Ok(());
        };
        self.csv.append(report)?;
        let mut scalars = vec![
            ("epoch/train_loss", report.train_loss),
            ("epoch/train_top1", report.train_top1),
            ("epoch/images_per_second", report.images_per_second),
        ];
        if let Some(v) = &report.validation {
            scalars.extend([
                ("epoch/val_loss", v.loss),
                ("epoch/val_top1", v.top1),
                ("epoch/val_top5", v.top5),
            ]);
        }
        self.events.scalars(report.step, &scalars)?;
        self.events.flush()?;
        write_atomic(&self.folder.join(CURVES), curves(history).as_bytes())
    }

    /// Keeps these weights as the best.
    pub(crate) fn best(&self, weights: &Weights) -> Result<()> {
        Ok(save_safetensors(&self.folder.join(BEST), weights)?)
    }

    pub(crate) fn checkpoint(&mut self, content: &checkpoint::Content) -> Result<PathBuf> {
        self.events.flush()?;
        checkpoint::save(&self.folder, content)?;
        Ok(checkpoint::last(&self.folder))
    }
}

/// Makes sure that no other process trains in the folder.
pub(crate) fn lock(folder: &Path) -> Result<File> {
    let path = folder.join(LOCK);
    // Whatever it may be a link to keeps its content.
    let open = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path);
    let file = open.at(&path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(damaged(
            folder,
            "another process is training in this folder",
        )),
        Err(TryLockError::Error(error)) if has_no_locks(&error) => Ok(file),
        Err(TryLockError::Error(error)) => Err(error).at(&path),
    }
}

/// Whether the file system has no locks, or nobody who keeps them (NFS).
fn has_no_locks(error: &std::io::Error) -> bool {
    /// ENOLCK; of macOS ENOTSUP too.
    const CODES: &[i32] = match () {
        () if cfg!(target_os = "linux") => &[37],
        () if cfg!(target_os = "macos") => &[77, 45],
        () => &[],
    };
    let known = error
        .raw_os_error()
        .is_some_and(|code| CODES.contains(&code));
    known || error.kind() == ErrorKind::Unsupported
}

/// Removes files that were being written when a process was killed.
fn remove_unfinished(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).at(folder)? {
        let path = entry.at(folder)?.path();
        let name = path.file_name().map(|name| name.to_string_lossy());
        match name {
            Some(name) if name.starts_with(".atomicwrite") => {
                fs::remove_dir_all(&path).at(&path)?
            }
            Some(name) if name.starts_with(".ror-") => fs::remove_file(&path).at(&path)?,
            _ => {}
        }
    }
    Ok(())
}
