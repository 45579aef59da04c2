//! ror-data
