//! What can go wrong, and in which file.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A failure to read or write a file, with the file it happened in.
///
/// Inside an archive the path goes on into it: `cifar-10-binary.tar.gz/test_batch.bin`.
#[derive(Debug)]
pub struct Error {
    path: PathBuf,
    kind: ErrorKind,
}

/// The result of everything in this crate that reads or writes.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kinds of [`Error`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The file system refused.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A folder, device or pipe where a regular file is needed.
    #[error("not a regular file")]
    NotAFile,
    /// A file of no bytes.
    #[error("the file is empty")]
    EmptyFile,
    /// The content is no JPEG and no PNG, whatever the name says.
    #[error("not an image: the content is neither JPEG nor PNG")]
    NotAnImage,
    /// A JPEG without its end-of-image marker.
    #[error("truncated image: the JPEG data stops before its end marker")]
    Truncated,
    /// The decoder gave up.
    #[error("damaged image: {0}")]
    Damaged(String),
    /// An image whose decoding would need an unreasonable amount of memory.
    #[error("the image would take more than {limit} bytes or has a side above {side} pixels")]
    ImageTooLarge {
        /// The most bytes a decoded image may take.
        limit: u64,
        /// The most pixels a side may have.
        side: u32,
    },
    /// A folder in which an image was expected.
    #[error("no JPEG or PNG image in this folder")]
    NoImages,
    /// Nothing here looks like a dataset.
    #[error(
        "not a dataset: expected train/ and test/ or val/ with a folder per class, a folder per class, \
         CIFAR-10/100 (binary or python layout, unpacked or .tar.gz), or SVHN's train_32x32.mat and \
         test_32x32.mat"
    )]
    UnknownLayout,
    /// More than one dataset in one folder.
    #[error("more than one dataset here: {0}; name one of them")]
    Ambiguous(String),
    /// A part of the dataset is not there.
    #[error("missing: {0}")]
    Missing(String),
    /// A class folder whose name cannot be a class name.
    #[error("the folder name is not UTF-8")]
    ClassName,
    /// A list of names that no labels could need.
    #[error("more than {classes} class names, or one of more than {bytes} bytes")]
    ClassNames {
        /// The most names.
        classes: usize,
        /// The most bytes of a name.
        bytes: usize,
    },
    /// A file larger than what it is for could need.
    #[error("the file has {found} bytes, at most {limit} are read")]
    FileTooLarge {
        /// Bytes found.
        found: u64,
        /// The most bytes that are read.
        limit: u64,
    },
    /// Two splits of one folder dataset with different classes.
    #[error(
        "the class folders differ from those of {other}: only here [{here}], only there [{there}]"
    )]
    ClassesDiffer {
        /// The other split's folder.
        other: PathBuf,
        /// Classes of this split that the other lacks.
        here: String,
        /// Classes of the other split that this one lacks.
        there: String,
    },
    /// A CIFAR batch that is no whole number of records.
    #[error("{found} bytes are not a whole number of records of {record} bytes")]
    RecordSize {
        /// Bytes found.
        found: usize,
        /// Bytes of one record.
        record: usize,
    },
    /// A label for which there is no class.
    #[error("image {index} has label {label}, but there are {classes} classes")]
    Label {
        /// Position of the image in its file.
        index: usize,
        /// The label found.
        label: i64,
        /// Number of classes.
        classes: usize,
    },
    /// An archive that unpacks to far more than a dataset would.
    #[error(
        "the archive unpacks to more than {limit} bytes, which no image dataset of its size does"
    )]
    Expands {
        /// The most bytes it may unpack to.
        limit: u64,
    },
    /// A python batch that is not what CIFAR's are.
    #[error("not a CIFAR pickle: {0}")]
    Pickle(String),
    /// A MAT-file that is damaged or is not what SVHN's are.
    #[error("not one of SVHN's MAT-files: {0}")]
    Mat(String),
    /// A dataset that would not fit into the memory it may take.
    #[error("{images} images of {bytes} bytes each exceed the limit of {limit} bytes")]
    DatasetTooLarge {
        /// Number of images.
        images: usize,
        /// Bytes of one image at the requested size.
        bytes: usize,
        /// [`Options::memory_limit`](crate::Options::memory_limit).
        limit: u64,
    },
    /// An array file that is damaged or of a kind that is not read.
    #[error("not a readable .npy array: {0}")]
    Npy(String),
    /// An array to write whose shape does not match its length.
    #[error("shape {shape:?} does not hold {values} values")]
    Shape {
        /// The shape given.
        shape: Vec<usize>,
        /// The number of values given.
        values: usize,
    },
}

impl Error {
    pub(crate) fn new(path: impl AsRef<Path>, kind: impl Into<ErrorKind>) -> Self {
        Self {
            path: path.as_ref().to_owned(),
            kind: kind.into(),
        }
    }

    /// The file or folder concerned.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is wrong with it.
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            // The message already holds the cause, so its cause is next.
            ErrorKind::Io(error) => error.source(),
            _ => None,
        }
    }
}

/// Names the file that a result without one came from.
pub(crate) trait At<T> {
    fn at(self, path: impl AsRef<Path>) -> Result<T>;
}

impl<T, E: Into<ErrorKind>> At<T> for std::result::Result<T, E> {
    fn at(self, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|kind| Error::new(path, kind))
    }
}
