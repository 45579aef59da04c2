//! The network of the reference implementation that a Keras file holds.

use ror_models::blocks::{BatchNormConfig, BlockKind, BlockOrder};
use ror_models::{Description, Dialect, Family};
use ror_ops::{Momentum, RunningVariance};

use super::LayerOrder;
use super::config::Config;
use super::layers::{Kind, Layers};
use crate::error::{ErrorKind, Result};
use crate::infer;

/// The dropout rate of wide residual networks (Zagoruyko & Komodakis, 2016), where a file has
/// dropout layers but not their rate.
const CUSTOMARY_DROPOUT: f64 = 0.3;

/// What a file tells of its network.
pub(super) struct Evidence<'a> {
    pub(super) layers: &'a Layers,
    pub(super) config: &'a Config<'a>,
    pub(super) theano: bool,
}

impl Evidence<'_> {
    /// Describes the network. Where layers are missing or misshapen the description is the nearest:
    /// placing the layers in its network then names the first that disagrees.
    pub(super) fn describe(&self, notes: &mut Vec<String>) -> Result<Description> {
        let spatial: Vec<_> = self
            .layers
            .of_kind(Kind::Spatial)
            .map(|l| &l.arrays[0].shape)
            .collect();
        let [stem, first, ..] = spatial[..] else {
            return Err(infer::unknown("it has fewer than two 3x3 convolutions"));
        };
        if first[0] % 16 != 0 || first[0] == 0 {
            return Err(infer::unknown(format!(
                "its first block is {} channels wide, not a multiple of 16",
                first[0]
            )));
        }
        let width = first[0] / 16;
        // Three groups of as many blocks, two convolutions each, and the stem; rounded, so that a
        // layer too few or too many is told by its name and not by a description that fits nothing.
        let blocks = ((spatial.len() - 1 + 3) / 6).max(1);
        let order = self.block_order(width, blocks, notes);
        let family = match order {
            BlockOrder::PostActivation => Family::Ror,
            BlockOrder::PreActivation => Family::Wrn,
        };
        let mut description = infer::of_blocks(
            Dialect::Keras,
            family,
            BlockKind::Basic,
            width,
            &[blocks; 3],
        )
        .ok_or_else(|| {
            infer::unknown(format!(
                "no network has {blocks} blocks per group, {width} times 16 wide"
            ))
        })?;
        description.channels = stem[1];
        let dense = self.layers.of_kind(Kind::Dense).next();
        infer::describe_top(&mut description, dense.map(|l| &l.arrays[0]));
        description.dropout = self.dropout(notes);
        description.norm = self.norm(description.norm, notes)?;
        description.stochastic_depth = self.config.survivals().first().copied();
        if let Some(size) = self.config.image_size(description.channels) {
            description.image_size = size;
        }
        Ok(description)
    }

    /// Post-activation networks have 9N - 1 blocks per group, 16 wide; then one with pre-activation
    /// blocks may have the very same shapes, and only the layers' order, or the number of
    /// activations, tells them apart.
    fn block_order(&self, width: usize, blocks: usize, notes: &mut Vec<String>) -> BlockOrder {
        if width != 1 || !(blocks + 1).is_multiple_of(9) {
            return BlockOrder::PreActivation;
        }
        let total = 3 * blocks;
        match self.layers.order {
            LayerOrder::Model => {
                // Pre-activation networks end with a batch normalisation, the others with the
                // root's shortcut.
                let mut body = self
                    .layers
                    .weighted
                    .iter()
                    .rev()
                    .filter(|l| l.kind != Kind::Dense);
                if body.next().is_some_and(|l| l.kind == Kind::Norm) {
                    BlockOrder::PreActivation
                } else {
                    BlockOrder::PostActivation
                }
            }
            // Two per block and one at the end.
            LayerOrder::ByClass if self.layers.activations == 2 * total + 1 => {
                BlockOrder::PreActivation
            }
            // One after the stem, two per block but for one, one after each group.
            LayerOrder::ByClass if self.layers.activations == 2 * total + 3 => {
                BlockOrder::PostActivation
            }
            LayerOrder::ByClass => {
                notes.push(
                    "pre- and post-activation networks with these weights' shapes exist; it is \
                     taken as the latter"
                        .to_owned(),
                );
                BlockOrder::PostActivation
            }
        }
    }

    fn dropout(&self, notes: &mut Vec<String>) -> f64 {
        let rates = self.config.values("Dropout", &["rate", "p"]);
        if let Some(&rate) = rates.last() {
            return rate;
        }
        if self.layers.dropouts == 0 {
            return 0.0;
        }
        notes.push(format!(
            "the file has dropout layers but not their rate; {CUSTOMARY_DROPOUT} is assumed, \
             which only training uses"
        ));
        CUSTOMARY_DROPOUT
    }

    /// `norm` with what the file says of it.
    pub(super) fn norm(
        &self,
        mut norm: BatchNormConfig,
        notes: &mut Vec<String>,
    ) -> Result<BatchNormConfig> {
        if let Some(epsilon) = self.norm_constant("epsilon")? {
            norm.epsilon = epsilon;
        }
        match self.norm_constant("momentum") {
            Ok(Some(momentum)) => norm.momentum = Momentum::OfOldValue(momentum),
            Ok(None) => {}
            Err(error) => notes.push(format!(
                "{error}; {:?} is taken, which only training uses",
                norm.momentum
            )),
        }
        if self.theano {
            norm.running_variance = RunningVariance::BiasedPlusEpsilon;
        }
        Ok(norm)
    }

    fn norm_constant(&self, key: &str) -> Result<Option<f64>> {
        match self.config.values("BatchNormalization", &[key])[..] {
            [] => Ok(None),
            [value] => Ok(Some(value)),
            ref values => Err(ErrorKind::Architecture(format!(
                "its batch normalisations have different values of `{key}`: {values:?}"
            ))),
        }
    }
}
