//! Tests across the crates of `ror`.

pub mod golden;
