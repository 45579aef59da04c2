//! Residual networks of residual networks (RoR, arXiv 1608.02908): described, counted, built.
//!
//! A [`Description`] is a dozen plain fields, found by preset name (`ror-3-110`,
//! `keras-ror-3-wrn-40-2`, ...). It expands to a [`Network`], the tree of nested residual levels
//! that counts, pictures and exports walk. A [`Model`] is that tree on candle.

#![forbid(unsafe_code)]

mod description;
mod error;
mod expand;
mod family;
mod graph;
mod init;
mod lesion;
mod model;
mod network;
mod preset;
mod summary;
mod tensors;
mod walk;

pub use description::{Description, ShortcutKind};
pub use error::DescriptionError;
pub use family::{Dialect, Family};
pub use init::Parameters;
pub use lesion::{Lesion, Summand};
pub use model::{Model, Tap, TapPoint};
pub use network::{Head, Level, Member, Network};
pub use preset::presets;
pub use ror_blocks as blocks;
pub use summary::Summary;
pub use tensors::{TensorRole, TensorSpec};
pub use walk::{Placed, Visit};

/// The example of the README runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
