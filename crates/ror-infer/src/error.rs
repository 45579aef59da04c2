//! Why a network cannot be compiled or run.

use ror_models::DescriptionError;
use ror_ops::kernels::KernelError;

/// What is wrong with a network, its weights, or an input. Found before any work is done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor that is missing, has another shape, or cannot be read.
    #[error("tensor `{name}`")]
    Tensor {
        /// Its name.
        name: String,
        /// What is wrong with it.
        source: candle_core::Error,
    },
    /// A weight that is infinite or not a number, or a variance that has no root.
    #[error("tensor `{name}`: element {index} is {value}")]
    NotFinite {
        /// The tensor's name.
        name: String,
        /// Where in it.
        index: usize,
        /// What is there.
        value: f32,
    },
    /// A network that is none, or an image size that one of its layers cannot take.
    #[error(transparent)]
    Network(#[from] DescriptionError),
    /// A tree put together by hand in a way that has no kernels.
    #[error("`{path}`: {why}")]
    Unsupported {
        /// The place in the network.
        path: String,
        /// What about it.
        why: String,
    },
    /// An input or output of the wrong length.
    #[error("{what}: expected {expected} values ({images} x {each}), found {found}")]
    Length {
        /// Which.
        what: &'static str,
        /// Images in the batch.
        images: usize,
        /// Values per image.
        each: usize,
        /// Values that it should have.
        expected: usize,
        /// Values that it has.
        found: usize,
    },
    /// A normalisation that does not fit the network's images.
    #[error(
        "normalisation: expected a mean and a positive deviation for each of {channels} channels"
    )]
    Normalisation {
        /// Channels of the images.
        channels: usize,
    },
    /// More memory than there is.
    #[error("the network takes {bytes} bytes of memory for images of this size")]
    Memory {
        /// Bytes that it would take.
        bytes: usize,
    },
    /// An operation of sizes that its kernel refuses.
    #[error("`{path}`")]
    Kernel {
        /// The place in the network.
        path: String,
        /// What the kernel says.
        source: KernelError,
    },
}

/// The outcome of compiling or running.
pub type Result<T> = std::result::Result<T, Error>;
