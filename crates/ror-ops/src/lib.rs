//! ror-ops
pub mod kernels;
