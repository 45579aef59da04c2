//! ror-weights
