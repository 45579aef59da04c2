//! Image datasets for RoR networks.
//!
//! - [`Dataset`]: labelled images as bytes (N, H, W, 3), in memory or decoded on demand, opened from image folders or
//!   CIFAR-10/100 and SVHN in any official layout, and handed out as normalised float batches (B, 3, H, W).
//! - [`Image`]: one JPEG or PNG, decoded and fitted to a [`Size`]; [`image_files`] finds them.
//! - [`Normalisation`]: from bytes to what a network was trained on.
//! - [`Augment`]: random changes to training images, drawn from a [`Generator`].
//! - [`Statistics`]: what a dataset's images are like; [`ten_crops`] of an image.
//! - [`npy`]: NumPy array files.
//!
//! Files are not trusted: whatever they hold, the outcome is data or an [`Error`] that names the
//! file, in memory bounded by the file's size and stated limits.
#![forbid(unsafe_code)]

pub use augment::Augment;
pub use crops::ten_crops;
pub use dataset::{Dataset, Format, Options, Progress, Provenance, Split};
pub use error::{Error, ErrorKind, Result};
pub use files::{image_files, is_image_name};
pub use generator::Generator;
pub use image::{Image, Size};
pub use normalisation::Normalisation;
pub use statistics::Statistics;

mod augment;
mod cifar;
mod crops;
mod dataset;
mod error;
mod files;
mod folder;
mod generator;
mod image;
mod jpeg;
mod mat;
mod normalisation;
pub mod npy;
mod region;
mod reported;
mod sheet;
mod statistics;
mod svhn;

/// The example of the README runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
