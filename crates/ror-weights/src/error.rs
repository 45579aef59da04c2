use std::path::{Path, PathBuf};

use ror_models::DescriptionError;

/// Why a weight file could not be read, matched to a network, or written.
///
/// Displays as `<path>: <kind>`.
#[derive(Debug, thiserror::Error)]
#[error("{}: {kind}", path.display())]
pub struct WeightsError {
    path: PathBuf,
    kind: Box<ErrorKind>,
}

impl WeightsError {
    pub(crate) fn new(path: &Path, kind: impl Into<ErrorKind>) -> Self {
        Self {
            path: path.to_path_buf(),
            kind: Box::new(kind.into()),
        }
    }

    /// The file concerned.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is wrong with it.
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }
}

/// What is wrong with a weight file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The operating system refused.
    #[error("{0}")]
    Io(#[from] std::io::Error),

    /// The content is of no kind that can be read.
    #[error(
        "no weight file: it is {found}; readable are Keras .h5, .weights.h5 and .keras, \
         PyTorch state dicts (.pth) and safetensors"
    )]
    Unrecognised {
        /// What the content is instead, as far as it can be told.
        found: String,
    },

    /// The content is of a known kind, but broken or cut short.
    #[error("damaged {format}: {reason}")]
    Damaged {
        /// The kind of file.
        format: &'static str,
        /// What does not hold.
        reason: String,
    },

    /// The tensors are those of no network that can be described, or the file's layers contradict
    /// the network.
    #[error("{0}")]
    Architecture(String),

    /// The network that the file or the caller describes does not exist.
    #[error(transparent)]
    Description(#[from] DescriptionError),

    /// A tensor of the network is not in the file.
    #[error("tensor `{tensor}` of shape {shape:?} is missing; `{model}` has it")]
    Missing {
        /// The tensor's name in the network.
        tensor: String,
        /// Its shape there.
        shape: Vec<usize>,
        /// The network.
        model: String,
    },

    /// A tensor of the file has no place in the network.
    #[error("tensor `{tensor}` of shape {shape:?} has no place in `{model}`")]
    Surplus {
        /// The tensor's name in the file.
        tensor: String,
        /// Its shape there.
        shape: Vec<usize>,
        /// The network.
        model: String,
    },

    /// A tensor has another shape than the network's. Shapes are in the network's axis order.
    #[error(
        "tensor `{tensor}`{}: `{model}` expects the shape {expected:?}, found {found:?}",
        stored_as(tensor, stored)
    )]
    Shape {
        /// The tensor's name in the network.
        tensor: String,
        /// Its name in the file.
        stored: String,
        /// The shape in the network.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
        /// The network.
        model: String,
    },

    /// Class names, normalisation and network do not belong together.
    #[error("{what}: expected {expected}, found {found}")]
    Metadata {
        /// What does not fit.
        what: &'static str,
        /// What the network, or the weights before, demand.
        expected: String,
        /// What was given.
        found: String,
    },

    /// The other network does not compute the same, whatever its weights.
    #[error("`{from}` cannot be expressed as {to}: {difference}")]
    NotEquivalent {
        /// The network.
        from: String,
        /// The network that it was to become.
        to: String,
        /// Where they part first.
        difference: String,
    },

    /// The format cannot express the network.
    #[error("`{model}` cannot be written as {format}: {reason}")]
    Inexpressible {
        /// The network.
        model: String,
        /// The format.
        format: &'static str,
        /// What it has no place for.
        reason: String,
    },

    /// A tensor could not be made or read.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),

    /// A tensor is stored as something other than what its place demands.
    #[error("tensor `{tensor}`: expected {expected}, found {found}")]
    Tensor {
        /// The tensor's name in the file.
        tensor: String,
        /// What belongs there.
        expected: String,
        /// What is there.
        found: String,
    },

    /// A weight is NaN or infinite.
    #[error("tensor `{tensor}` holds {value} at element {index}; weights must be finite")]
    NotFinite {
        /// The tensor's name in the file.
        tensor: String,
        /// Position of the first such value, in storage order.
        index: usize,
        /// The value.
        value: f32,
    },
}

fn stored_as(tensor: &str, stored: &str) -> String {
    if tensor == stored {
        String::new()
    } else {
        format!(" (stored as `{stored}`)")
    }
}

pub(crate) type Result<T, E = ErrorKind> = std::result::Result<T, E>;

/// Shorthand for [`ErrorKind::Damaged`].
pub(crate) fn damaged(format: &'static str, reason: impl ToString) -> ErrorKind {
    ErrorKind::Damaged {
        format,
        reason: reason.to_string(),
    }
}
