//! Weights of another network that computes the same.

mod rewrite;
mod steps;

use ror_models::{Description, Dialect, Family, Network};

use crate::error::{ErrorKind, Result};
use crate::infer;
use crate::weights::Weights;

impl Weights {
    /// The weights with which the network of `target` computes in evaluation what this one does,
    /// but for rounding. Classes, images and top stay what they are, whatever `target` says.
    ///
    /// That is possible where both have the same layers and sums in the same order, and differ in
    /// - shortcuts: identities and zero-padded ones become projections that copy channels;
    /// - epsilon: the scale of each batch norm makes up for it;
    /// - stochastic depth: the survival of a block is multiplied into its last layer;
    /// - dropout, and what the network is called (`pre-ror-3-20` is `ror-3-wrn-22-1`).
    ///
    /// # Errors
    /// [`ErrorKind::NotEquivalent`] with the first difference that no weights make up for. Between
    /// dialects there always is one: a stride is no max pool, and `keras` rectifies sums that
    /// `pytorchcv` does not.
    ///
    /// # Example
    /// ```no_run
    /// use ror_models::Description;
    /// use ror_weights::{LoadOptions, load};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let trained = load("ror-3-110-sd.safetensors".as_ref(), &LoadOptions::default())?;
    /// let plain = trained.expressed_as(&Description::preset("ror-3-110")?)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn expressed_as(&self, target: &Description) -> Result<Self> {
        let source = &self.description;
        let target = Description {
            classes: source.classes,
            channels: source.channels,
            image_size: source.image_size,
            top: source.top,
            ..target.clone()
        };
        let (from, to) = (self.network()?, Network::new(&target)?);
        let differ = |difference| ErrorKind::NotEquivalent {
            from: source.to_string(),
            to: format!("`{target}`"),
            difference,
        };
        if let Some(difference) = steps::first_difference(&from, &to)? {
            return Err(differ(difference));
        }
        let tensors = rewrite::rewrite(self, &from, &to, |name| {
            differ(format!("there is no place for tensor `{name}`"))
        })?;
        Ok(Self {
            description: target,
            tensors,
            ..self.clone()
        })
    }

    /// Like [`Weights::expressed_as`], for the network of `dialect` that has the same family,
    /// width, blocks, levels and kinds of shortcuts.
    ///
    /// # Errors
    /// As [`Weights::expressed_as`]; a dialect that has no such network.
    pub fn in_dialect(&self, dialect: Dialect) -> Result<Self> {
        let d = &self.description;
        let blocks = d.blocks_per_group()?;
        // Pre-RoR is the WRN of width 1; not every dialect has both names.
        let families = match d.family {
            Family::PreRor => vec![Family::PreRor, Family::Wrn],
            family => vec![family],
        };
        let target = families
            .into_iter()
            .find_map(|family| infer::of_blocks(dialect, family, d.block, d.width, &blocks))
            .ok_or_else(|| ErrorKind::NotEquivalent {
                from: d.to_string(),
                to: format!("a network of the {dialect} dialect"),
                difference: format!(
                    "it has none with {blocks:?} blocks of this kind in its groups"
                ),
            })?;
        self.expressed_as(&target.with_shortcuts(&d.shortcuts))
    }
}
