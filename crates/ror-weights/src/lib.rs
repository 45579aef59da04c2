//! Weight import and export for RoR networks.
#![forbid(unsafe_code)]

mod archive;
mod array;
mod content;
mod error;
mod keras;
mod pytorch;
mod safetensors;

pub use error::{Error, ErrorKind};
