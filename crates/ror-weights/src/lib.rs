//! Weight import and export for RoR networks.
//!
//! [`load`](fn@load) reads Keras HDF5 and `.keras` files of any age, PyTorch state dicts and
//! safetensors, told apart by their content, and finds the network that they belong to.
//! [`save_safetensors`] writes weights with their network's description, [`save_keras_h5`] a whole
//! model that Keras loads.

#![forbid(unsafe_code)]

mod archive;
mod array;
mod content;
mod error;
mod infer;
mod keras;
mod load;
mod metadata;
mod named;
mod pytorch;
mod safetensors;
mod save;
mod weights;

pub use error::{ErrorKind, WeightsError};
pub use load::{Kernels, LoadOptions, load};
pub use save::{save_keras_h5, save_safetensors};
pub use weights::{Format, Metadata, Normalisation, Weights};
