//! One module per command.

pub(crate) mod bench;
pub(crate) mod completions;
pub(crate) mod convert;
pub(crate) mod eval;
pub(crate) mod graph;
pub(crate) mod list;
pub(crate) mod man;
pub(crate) mod predict;
pub(crate) mod summary;
pub(crate) mod train;
