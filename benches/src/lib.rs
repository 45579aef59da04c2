//! Benchmarks of `ror`, one file per level.
