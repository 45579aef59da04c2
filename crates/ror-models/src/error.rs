//! Why a description does not make a network.

use crate::family::{Dialect, Family};
use ror_blocks::{BlockKind, ShapeError};

/// A description that contradicts itself or asks for a network that does not exist.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DescriptionError {
    /// A number outside its range.
    #[error("{field} is {value}; allowed: {allowed}")]
    OutOfRange {
        /// Which number.
        field: &'static str,
        /// Its value.
        value: String,
        /// The range.
        allowed: String,
    },
    /// A depth that the family's formula forbids.
    #[error(
        "no {family} network of the {dialect} dialect is {depth} deep (depths are {formula}); \
         {}",
        nearest_depths(nearest)
    )]
    Depth {
        /// The dialect.
        dialect: Dialect,
        /// The family.
        family: Family,
        /// The depth asked for.
        depth: usize,
        /// Which depths exist, as a formula.
        formula: String,
        /// The nearest lower and higher depths.
        nearest: Vec<usize>,
    },
    /// A combination that no known network has.
    #[error("the {dialect} dialect has no {family} networks of {} blocks", block_name(*block))]
    NoSuchFamily {
        /// The dialect.
        dialect: Dialect,
        /// The family.
        family: Family,
        /// The block.
        block: BlockKind,
    },
    /// Not one shortcut kind per level.
    #[error("{levels} levels need {levels} shortcut kinds, found {shortcuts}")]
    ShortcutCount {
        /// Levels.
        levels: usize,
        /// Kinds given.
        shortcuts: usize,
    },
    /// Groups too short to be halved so often.
    #[error("{levels} levels need at least {needed} blocks in every group, found {blocks}")]
    TooFewBlocks {
        /// Levels.
        levels: usize,
        /// Blocks of the shortest group.
        blocks: usize,
        /// Blocks needed.
        needed: usize,
    },
    /// A size that max pools would not halve exactly.
    #[error(
        "{height} x {width} pixels: the {dialect} dialect pools twice by 2, so that rows and \
         columns must be multiples of 4"
    )]
    ImageSize {
        /// The dialect.
        dialect: Dialect,
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
    /// A layer that cannot take what reaches it.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// A name that is no preset.
    #[error("unknown model `{name}`; {}", suggestion(nearest.as_deref()))]
    UnknownPreset {
        /// The name.
        name: String,
        /// The most similar preset.
        nearest: Option<String>,
    },
}

fn nearest_depths(depths: &[usize]) -> String {
    match depths {
        [one] => format!("the nearest is {one}"),
        [lower, higher, ..] => format!("the nearest are {lower} and {higher}"),
        [] => "there are none".to_owned(),
    }
}

fn block_name(block: BlockKind) -> &'static str {
    match block {
        BlockKind::Basic => "basic",
        BlockKind::Bottleneck => "bottleneck",
    }
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map_or_else(
        || "names are like `ror-3-110` or `ror-3-wrn-40-2`".to_owned(),
        |n| format!("did you mean `{n}`?"),
    )
}
