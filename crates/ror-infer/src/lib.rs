//! RoR networks compiled for fast inference on the CPU.
//!
//! [`Engine::compile`] turns a network and its weights into a plan: batch norms folded into the convolutions, weights
//! transformed and packed once, shortcuts of all levels, activations and pools fused into the convolutions that
//! precede them, all memory taken up front. [`Engine::run`] allocates nothing.
//!
//! A compilation goes from the tree to single operations (`graph`), to steps with their epilogues (`fuse`), to places
//! in memory (`place`), to packed kernels (`program`), which `work` runs.

#![forbid(unsafe_code)]

mod engine;
mod error;
mod fuse;
mod graph;
mod input;
mod options;
mod place;
mod profile;
mod program;
mod tensors;
mod work;

pub use engine::Engine;
pub use error::{Error, Result};
pub use input::{Input, Normalisation};
pub use options::Options;
pub use profile::OperationTime;
pub use ror_ops::kernels::Isa;

/// The example of the README runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
