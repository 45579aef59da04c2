//! Residual blocks of multilevel residual networks, and the shortcuts of every level.
//!
//! A residual level is `y = activation(body(x) + shortcut(x))` (RoR paper, section 3). This crate
//! has its last level, the block, whose body is convolutions, and the parts that all levels share:
//! [`Shortcut`], the sum ([`Residual`]), stochastic depth. Descriptions ([`Block`], [`Layer`]) are
//! plain data; modules ([`BlockModule`], [`Sequence`]) are built from them on candle.

#![forbid(unsafe_code)]

mod block;
mod layer;
mod mode;
mod module;
mod residual;

pub use block::{Block, BlockKind, BlockOrder, BlockShape, BlockStyle};
pub use layer::{Layer, NamedLayer, Shape3, ShapeError};
pub use mode::{Mode, Noise, NoiseState};
pub use module::Sequence;
pub use residual::{BlockModule, Projection, Residual, Shortcut, ShortcutModule};
pub use ror_ops::{BatchNormConfig, Momentum, RunningVariance};

/// The example of the README runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
