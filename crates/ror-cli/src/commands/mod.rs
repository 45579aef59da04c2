//! One module per command.

pub(crate) mod ablate;
pub(crate) mod bench;
pub(crate) mod completions;
pub(crate) mod convert;
pub(crate) mod data;
pub(crate) mod eval;
pub(crate) mod graph;
pub(crate) mod lesion;
pub(crate) mod list;
pub(crate) mod man;
pub(crate) mod predict;
pub(crate) mod report;
pub(crate) mod summary;
pub(crate) mod train;
