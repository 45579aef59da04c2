//! ror-blocks
