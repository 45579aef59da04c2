//! What a network is, in a dozen plain fields. [`Network`](crate::Network) is its expansion.

use crate::DescriptionError;
use crate::family::{Dialect, Family};
use ror_blocks::{BatchNormConfig, BlockKind};
use serde::{Deserialize, Serialize};

/// How a level's shortcut changes shape: the types of He et al., chosen per level in the paper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ShortcutKind {
    /// Identity; missing channels are zeros, strides subsample.
    A,
    /// A 1x1 projection where the shape changes, identity elsewhere.
    B,
    /// A 1x1 projection everywhere.
    C,
}

/// Levels of shortcuts that a network can have.
const MOST_LEVELS: usize = 5;

/// A network, described by the choices of the paper and of the known implementations.
///
/// Plain data: it travels in the metadata of weights and in the configuration of runs. Every field
/// that [`Description::new`] does not ask for has the dialect's default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Description {
    /// Whose conventions: the paper's or those of a known implementation.
    pub dialect: Dialect,
    /// Which family.
    pub family: Family,
    /// Weighted layers, counted as the family and the dialect count them.
    pub depth: usize,
    /// How many times wider than 16, 32, 64 the groups are (WRN; 1 elsewhere).
    pub width: usize,
    /// Levels of shortcuts, 1 to 5: 1 is the plain residual network, 2 adds the root's shortcut,
    /// 3 the groups', 4 and 5 those of each group's halves and quarters.
    pub levels: usize,
    /// One kind per level, the root's first, the blocks' last.
    pub shortcuts: Vec<ShortcutKind>,
    /// Which convolutions a block has.
    pub block: BlockKind,
    /// Classes that the logits are for.
    pub classes: usize,
    /// Channels of the images.
    pub channels: usize,
    /// Rows and columns of the images. Counts are for this size; ImageNet networks run on others.
    pub image_size: [usize; 2],
    /// Dropout after the first convolution of every block; 0 for none.
    pub dropout: f64,
    /// Stochastic depth: the survival probability of the last block, the others' falls linearly
    /// from 1. `None` without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stochastic_depth: Option<f64>,
    /// Whether the linear classifier follows the average pool.
    pub top: bool,
    /// Constants of batch normalisation.
    pub norm: BatchNormConfig,
}

impl Description {
    /// The description of a family's network with the dialect's defaults: ten classes (1000 for
    /// ImageNet), three levels.
    ///
    /// # Errors
    /// A family that the dialect does not have, or a depth or width that the formula forbids.
    pub fn new(
        dialect: Dialect,
        family: Family,
        depth: usize,
        width: usize,
    ) -> Result<Self, DescriptionError> {
        let block = family.default_block(dialect, depth);
        Self::of_block(dialect, family, block, depth, width)
    }

    /// Like [`Description::new`], with a choice of block where the depth is possible with both.
    ///
    /// # Errors
    /// As [`Description::new`].
    pub fn of_block(
        dialect: Dialect,
        family: Family,
        block: BlockKind,
        depth: usize,
        width: usize,
    ) -> Result<Self, DescriptionError> {
        let imagenet = family == Family::ImageNet;
        let size = if imagenet { 224 } else { 32 };
        let description = Self {
            dialect,
            family,
            depth,
            width,
            levels: 3,
            shortcuts: default_shortcuts(3),
            block,
            classes: if imagenet { 1000 } else { 10 },
            channels: 3,
            image_size: [size, size],
            dropout: 0.0,
            stochastic_depth: None,
            top: true,
            norm: match dialect {
                Dialect::Keras => BatchNormConfig::KERAS,
                Dialect::Paper | Dialect::Pytorchcv => BatchNormConfig::PYTORCH,
            },
        };
        description.validate()?;
        Ok(description)
    }

    /// With `levels` levels of shortcuts, of the default kinds.
    #[must_use]
    pub fn with_levels(mut self, levels: usize) -> Self {
        self.levels = levels;
        self.shortcuts = default_shortcuts(levels);
        self
    }

    /// With one shortcut kind per level, the root's first; this sets the number of levels too.
    #[must_use]
    pub fn with_shortcuts(mut self, kinds: &[ShortcutKind]) -> Self {
        self.levels = kinds.len();
        self.shortcuts = kinds.to_vec();
        self
    }

    /// With another number of classes.
    #[must_use]
    pub fn with_classes(mut self, classes: usize) -> Self {
        self.classes = classes;
        self
    }

    /// With dropout in every block.
    #[must_use]
    pub fn with_dropout(mut self, rate: f64) -> Self {
        self.dropout = rate;
        self
    }

    /// With stochastic depth down to this survival probability (the paper's is 0.5).
    #[must_use]
    pub fn with_stochastic_depth(mut self, last_survival: f64) -> Self {
        self.stochastic_depth = Some(last_survival);
        self
    }

    /// Without the linear classifier.
    #[must_use]
    pub fn without_top(mut self) -> Self {
        self.top = false;
        self
    }

    /// Blocks in each group.
    ///
    /// # Errors
    /// A depth that the family's formula forbids; the error names the nearest two that it allows.
    pub fn blocks_per_group(&self) -> Result<Vec<usize>, DescriptionError> {
        self.family
            .blocks_per_group(self.dialect, self.block, self.depth)
    }

    /// Checks every field; a description that passes expands to a network.
    ///
    /// # Errors
    /// The first field whose value is out of range, or fields that contradict each other.
    pub fn validate(&self) -> Result<(), DescriptionError> {
        let within = |field, value: usize, low: usize, high: usize| {
            if (low..=high).contains(&value) {
                Ok(())
            } else {
                Err(DescriptionError::OutOfRange {
                    field,
                    value: value.to_string(),
                    allowed: format!("{low} to {high}"),
                })
            }
        };
        let fraction = |field, value: f64, allowed: &str, ok: bool| {
            if ok {
                Ok(())
            } else {
                Err(DescriptionError::OutOfRange {
                    field,
                    value: value.to_string(),
                    allowed: allowed.to_owned(),
                })
            }
        };
        within("width", self.width, 1, 1024)?;
        within("levels", self.levels, 1, MOST_LEVELS)?;
        within("classes", self.classes, 1, 1_000_000)?;
        within("channels", self.channels, 1, 1024)?;
        within("image height", self.image_size[0], 1, 1 << 15)?;
        within("image width", self.image_size[1], 1, 1 << 15)?;
        let dropout = self.dropout;
        fraction(
            "dropout",
            dropout,
            "0 to below 1",
            (0.0..1.0).contains(&dropout),
        )?;
        if let Some(p) = self.stochastic_depth {
            fraction(
                "stochastic depth",
                p,
                "above 0, up to 1",
                p > 0.0 && p <= 1.0,
            )?;
        }
        let epsilon = self.norm.epsilon;
        fraction(
            "epsilon",
            epsilon,
            "above 0, up to 1",
            epsilon > 0.0 && epsilon <= 1.0,
        )?;
        let weight = self.norm.momentum.new_value_weight();
        fraction("momentum", weight, "0 to 1", (0.0..=1.0).contains(&weight))?;
        if self.shortcuts.len() != self.levels {
            return Err(DescriptionError::ShortcutCount {
                levels: self.levels,
                shortcuts: self.shortcuts.len(),
            });
        }
        self.family.check(self.dialect, self.block, self.width)?;
        let fewest = self.blocks_per_group()?.into_iter().min().unwrap_or(0);
        let needed = 1 << self.levels.saturating_sub(3);
        if fewest < needed {
            return Err(DescriptionError::TooFewBlocks {
                levels: self.levels,
                blocks: fewest,
                needed,
            });
        }
        let [h, w] = self.image_size;
        if self.pools_between_groups() && (h % 4 != 0 || w % 4 != 0) {
            return Err(DescriptionError::ImageSize {
                dialect: self.dialect,
                height: h,
                width: w,
            });
        }
        Ok(())
    }

    /// Whether groups end with a 2x2 max pool instead of beginning with a stride.
    pub(crate) fn pools_between_groups(&self) -> bool {
        self.dialect != Dialect::Paper
    }
}

/// Projections on every level but the blocks', which project where their shape changes.
fn default_shortcuts(levels: usize) -> Vec<ShortcutKind> {
    // More are refused, but not yet.
    let mut kinds = vec![ShortcutKind::C; levels.min(MOST_LEVELS + 1)];
    if let Some(block) = kinds.last_mut() {
        *block = ShortcutKind::B;
    }
    kinds
}
