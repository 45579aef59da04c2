//! Tests across the crates of `ror`, and what they share.

pub mod golden;
pub mod random;

/// The example of the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
