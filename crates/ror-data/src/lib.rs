//! Image datasets for RoR networks.
//!
//! - [`Dataset`]: labelled images in memory as bytes (N, H, W, 3), opened from image folders or
//!   CIFAR-10/100 in any official layout, and handed out as normalised float batches (B, 3, H, W).
//! - [`Image`]: one JPEG or PNG, decoded and fitted to a [`Size`]; [`image_files`] finds them.
//! - [`Normalisation`]: from bytes to what a network was trained on.
//! - [`Augment`]: random changes to training images, drawn from a [`Generator`].
//! - [`npy`]: NumPy array files.
//!
//! Files are not trusted: whatever they hold, the outcome is data or an [`Error`] that names the
//! file, in memory bounded by the file's size and stated limits.
#![forbid(unsafe_code)]

pub use augment::Augment;
pub use dataset::{Dataset, Format, Options, Progress, Provenance, Split};
pub use error::{Error, ErrorKind, Result};
pub use files::image_files;
pub use generator::Generator;
pub use image::{Image, Size};
pub use normalisation::Normalisation;

mod augment;
mod cifar;
mod dataset;
mod error;
mod files;
mod folder;
mod generator;
mod image;
mod jpeg;
mod normalisation;
pub mod npy;

/// The example of the README runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
