//! Weight import and export for RoR networks.
//!
//! [`load`](fn@load) reads Keras HDF5 and `.keras` files of any age, PyTorch state dicts and
//! safetensors, told apart by their content, and finds the network that they belong to.
//! [`save_safetensors`] writes weights with their network's description, [`save_keras_h5`] a whole
//! model that Keras loads, [`save_onnx`] one for every other runtime, [`save_pytorch`] a state dict.
//! Where two networks compute the same, [`Weights::expressed_as`] gives one the weights of the other;
//! [`Mean`] is the mean of several.

#![forbid(unsafe_code)]

mod archive;
mod array;
mod average;
mod content;
mod difference;
mod equivalent;
mod error;
mod infer;
mod keras;
mod load;
mod metadata;
mod named;
mod onnx;
mod pytorch;
mod safetensors;
mod save;
mod weights;

pub use average::Mean;
pub use difference::first_difference;
pub use error::{ErrorKind, WeightsError};
pub use load::{Kernels, LoadOptions, load, load_bytes};
pub use onnx::{OnnxOptions, save_onnx};
pub use pytorch::{PytorchNames, save_pytorch};
pub use save::{save_keras_h5, save_safetensors, save_safetensors_half};
pub use weights::{Format, Metadata, Normalisation, Weights};

/// The example of the README runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
