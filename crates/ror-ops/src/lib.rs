//! ror-ops
