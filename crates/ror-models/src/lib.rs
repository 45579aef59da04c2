//! ror-models
