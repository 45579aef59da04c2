use std::path::{Path, PathBuf};

/// Why a weight file could not be read, matched to a network, or written.
///
/// Displays as `<path>: <kind>`.
#[derive(Debug, thiserror::Error)]
#[error("{}: {kind}", path.display())]
pub struct Error {
    path: PathBuf,
    kind: ErrorKind,
}

impl Error {
    pub(crate) fn new(path: &Path, kind: impl Into<ErrorKind>) -> Self {
        Self {
            path: path.to_path_buf(),
            kind: kind.into(),
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

pub(crate) type Result<T, E = ErrorKind> = std::result::Result<T, E>;

/// Shorthand for [`ErrorKind::Damaged`].
pub(crate) fn damaged(format: &'static str, reason: impl ToString) -> ErrorKind {
    ErrorKind::Damaged {
        format,
        reason: reason.to_string(),
    }
}
