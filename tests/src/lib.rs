//! Tests across the crates of `ror`.
