//! What can go wrong in training.

use std::io;
use std::path::{Path, PathBuf};

/// A failure of a training run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A setting that cannot be.
    #[error("{0}")]
    Config(String),
    /// Data that do not fit the network or the run.
    #[error("{0}")]
    Data(String),
    /// Another rank that cannot go on, or has something else than this one.
    #[error("{0}")]
    Ranks(String),
    /// A number that stopped being one. The checkpoint from before it is kept.
    #[error(
        "the {what} became {value} at step {step} (epoch {epoch}, learning rate {lr:.3e}); \
         a lower learning rate, a warmup or gradient clipping may help"
    )]
    NotFinite {
        /// What is not finite: `loss`, `gradient norm`, `weights`.
        what: &'static str,
        /// Its value.
        value: f64,
        /// The step, counted from 1.
        step: u64,
        /// The epoch, counted from 1.
        epoch: u64,
        /// The learning rate of the step.
        lr: f64,
    },
    /// An image that cannot be decoded.
    #[error(transparent)]
    Image(#[from] ror_data::Error),
    /// A file or folder that cannot be read or written.
    #[error("{}: {cause}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// A file of a run that is not what it should be.
    #[error("{}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        reason: String,
    },
    /// The network could not be computed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// Weights that cannot be written.
    #[error(transparent)]
    Weights(#[from] ror_weights::WeightsError),
    /// The description makes no network.
    #[error(transparent)]
    Description(#[from] ror_models::DescriptionError),
}

/// The result of everything here that may fail.
pub type Result<T, E = TrainError> = std::result::Result<T, E>;

/// Names the file that an error without one came from.
pub(crate) trait At<T> {
    fn at(self, path: &Path) -> Result<T>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, path: &Path) -> Result<T> {
        self.map_err(|cause| TrainError::Io {
            path: path.to_owned(),
            cause,
        })
    }
}

/// A [`TrainError::Damaged`].
pub(crate) fn damaged(path: &Path, reason: impl ToString) -> TrainError {
    TrainError::Damaged {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}
