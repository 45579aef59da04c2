//! Dialects, families, and the formulas that tie a depth to the number of blocks.

use crate::DescriptionError;
use ror_blocks::{BlockKind, BlockOrder};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The deepest network that a description may ask for.
const MAX_DEPTH: usize = 10_000;

/// Whose conventions a network follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dialect {
    /// The paper's figures 2 and 3: strided blocks and shortcuts, no biases.
    Paper,
    /// The reference implementation in Keras, and keras-contrib's `ResidualOfResidual`: max pools
    /// between groups, biases everywhere.
    Keras,
    /// pytorchcv's `ror3_*`: max pools between groups, a batch norm on every projection.
    Pytorchcv,
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Paper => "paper",
            Self::Keras => "keras",
            Self::Pytorchcv => "pytorchcv",
        })
    }
}

/// A family of networks (RoR paper, sections 3 and 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// Post-activation blocks of 16, 32, 64 channels.
    Ror,
    /// Pre-activation blocks of 16, 32, 64 channels.
    PreRor,
    /// Pre-activation blocks, `width` times wider.
    Wrn,
    /// Post-activation blocks of 64, 128, 256, 512 channels behind ImageNet's stem.
    #[serde(rename = "imagenet")]
    ImageNet,
}

impl Family {
    /// The order of layers within a block.
    pub fn block_order(self) -> BlockOrder {
        match self {
            Self::Ror | Self::ImageNet => BlockOrder::PostActivation,
            Self::PreRor | Self::Wrn => BlockOrder::PreActivation,
        }
    }

    /// Bottlenecks where the depth is possible with them only, or customary (ImageNet from 50).
    pub(crate) fn default_block(self, dialect: Dialect, depth: usize) -> BlockKind {
        let allows = |kind| self.blocks_per_group(dialect, kind, depth).is_ok();
        let exists = self.check(dialect, BlockKind::Bottleneck, 1).is_ok();
        if exists && !allows(BlockKind::Basic) && allows(BlockKind::Bottleneck) {
            BlockKind::Bottleneck
        } else {
            BlockKind::Basic
        }
    }

    /// Checks that the dialect has this family, with this block and width.
    pub(crate) fn check(
        self,
        dialect: Dialect,
        block: BlockKind,
        width: usize,
    ) -> Result<(), DescriptionError> {
        let bottleneck = block == BlockKind::Bottleneck;
        let exists = match (dialect, self) {
            (Dialect::Paper, Self::Wrn) => !bottleneck,
            (Dialect::Paper, _) => true,
            (Dialect::Keras, Self::Ror | Self::Wrn) => !bottleneck,
            (Dialect::Pytorchcv, Self::Ror) => !bottleneck,
            _ => false,
        };
        if !exists {
            return Err(DescriptionError::NoSuchFamily {
                dialect,
                family: self,
                block,
            });
        }
        if width != 1 && self != Self::Wrn {
            return Err(DescriptionError::OutOfRange {
                field: "width",
                value: width.to_string(),
                allowed: format!("1, since the family {self} has no width"),
            });
        }
        Ok(())
    }

    /// Blocks in each group of a network `depth` layers deep.
    pub(crate) fn blocks_per_group(
        self,
        dialect: Dialect,
        block: BlockKind,
        depth: usize,
    ) -> Result<Vec<usize>, DescriptionError> {
        if let Some(blocks) = self.blocks_of(dialect, block, depth) {
            return Ok(blocks);
        }
        let exists = |&d: &usize| {
            // An ImageNet network's depth decides its blocks, so that those of both kinds count.
            let other = self == Self::ImageNet
                && self.blocks_of(dialect, BlockKind::Bottleneck, d).is_some();
            other || self.blocks_of(dialect, block, d).is_some()
        };
        let lower = (1..depth.min(MAX_DEPTH + 1)).rev().find(exists);
        let higher = (depth..=MAX_DEPTH).skip(1).find(exists);
        Err(DescriptionError::Depth {
            dialect,
            family: self,
            depth,
            formula: self.formula(dialect, block),
            nearest: lower.into_iter().chain(higher).collect(),
        })
    }

    fn blocks_of(self, dialect: Dialect, block: BlockKind, depth: usize) -> Option<Vec<usize>> {
        if self == Self::ImageNet {
            let blocks = match (block, depth) {
                (BlockKind::Basic, 18) => [2, 2, 2, 2],
                (BlockKind::Basic, 34) | (BlockKind::Bottleneck, 50) => [3, 4, 6, 3],
                (BlockKind::Bottleneck, 101) => [3, 4, 23, 3],
                (BlockKind::Bottleneck, 152) => [3, 8, 36, 3],
                _ => return None,
            };
            return Some(blocks.to_vec());
        }
        if depth > MAX_DEPTH {
            return None;
        }
        let (per_block, other) = self.linear_formula(dialect, block);
        let blocks = depth.checked_sub(other)?;
        if blocks % per_block != 0 || blocks == 0 {
            return None;
        }
        let n = blocks / per_block;
        // The reference counts its post-activation networks by N, with 9N - 1 blocks per group.
        if dialect == Dialect::Keras && self == Self::Ror && (n + 1) % 9 != 0 {
            return None;
        }
        Some(vec![n; 3])
    }

    /// `(a, b)` of depth `= a n + b`, `n` blocks per group.
    fn linear_formula(self, dialect: Dialect, block: BlockKind) -> (usize, usize) {
        let per_block = match block {
            BlockKind::Basic => 6,
            BlockKind::Bottleneck => 9,
        };
        let other = match (dialect, self) {
            (Dialect::Keras | Dialect::Pytorchcv, Self::Ror) => 8,
            (_, Self::Wrn) => 4,
            _ => 2,
        };
        (per_block, other)
    }

    fn formula(self, dialect: Dialect, block: BlockKind) -> String {
        let (a, b) = self.linear_formula(dialect, block);
        match (dialect, self, block) {
            (_, Self::ImageNet, BlockKind::Basic) => "18, 34, 50, 101 or 152".to_owned(),
            (_, Self::ImageNet, BlockKind::Bottleneck) => "50, 101 or 152".to_owned(),
            (Dialect::Keras, Self::Ror, _) => format!("{a}(9N - 1) + {b}, up to {MAX_DEPTH}"),
            _ => format!("{a}n + {b}, up to {MAX_DEPTH}"),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ror => "ror",
            Self::PreRor => "pre-ror",
            Self::Wrn => "wrn",
            Self::ImageNet => "imagenet",
        })
    }
}
