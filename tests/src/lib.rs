//! Tests across the crates of `ror`, and what they share.

pub mod golden;
pub mod random;
