//! The recursive tree that everything else walks: model, counts, pictures, exports, engines.

use crate::expand;
use crate::{Description, DescriptionError};
use ror_blocks::{BatchNormConfig, Block, NamedLayer, Shape3, Shortcut};
use serde::Serialize;

/// A network spelled out: stem, nested residual levels, head.
///
/// ```
/// use ror_models::{Description, Network};
///
/// let network = Network::new(&Description::preset("pytorchcv-ror-3-56")?)?;
/// assert_eq!(network.parameters(), 762_746);
/// # Ok::<(), ror_models::DescriptionError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Network {
    /// Where it came from.
    pub description: Description,
    /// Layers before the root level.
    pub stem: Vec<NamedLayer>,
    /// The root level, which spans the whole trunk.
    pub root: Level,
    /// What follows the root level.
    pub head: Head,
}

/// A residual level above the block: `activation(body(x) + shortcut(x))`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Level {
    /// The name within the level above: `root`, `group1`, `half1`.
    pub name: String,
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Members of the body, in order.
    pub body: Vec<Member>,
    /// What is added to the body's result; `None` for a level that only groups its members.
    pub shortcut: Shortcut,
    /// Whether a rectifier follows the sum.
    pub activation: bool,
}

/// A member of a level's body.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "member", rename_all = "kebab-case")]
pub enum Member {
    /// A residual level again.
    Level(Level),
    /// A residual block, the last level.
    Block(Block),
    /// A plain layer, the max pool between groups.
    Layer(NamedLayer),
}

/// What follows the root level: layers, the global average pool, the classifier.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Head {
    /// BN-ReLU of pre-activation networks, otherwise empty.
    pub layers: Vec<NamedLayer>,
    /// Width of the pooled features.
    pub features: usize,
    /// Classes of the linear classifier, if there is one.
    pub classes: Option<usize>,
}

impl Network {
    /// Expands a description.
    ///
    /// # Errors
    /// A description that [`Description::validate`] refuses.
    pub fn new(description: &Description) -> Result<Self, DescriptionError> {
        expand::network(description)
    }

    /// Constants of every batch normalisation.
    pub fn norm(&self) -> &BatchNormConfig {
        &self.description.norm
    }

    /// The shape of one image.
    pub fn input_shape(&self) -> Shape3 {
        let [height, width] = self.description.image_size;
        Shape3 {
            channels: self.description.channels,
            height,
            width,
        }
    }

    /// All blocks in order, with their paths.
    pub fn blocks(&self) -> Vec<(String, &Block)> {
        fn collect<'a>(level: &'a Level, path: &str, into: &mut Vec<(String, &'a Block)>) {
            for member in &level.body {
                match member {
                    Member::Level(inner) => {
                        collect(inner, &format!("{path}.{}", inner.name), into);
                    }
                    Member::Block(block) => into.push((format!("{path}.{}", block.name), block)),
                    Member::Layer(_) => {}
                }
            }
        }
        let mut blocks = Vec::new();
        collect(&self.root, &self.root.name, &mut blocks);
        blocks
    }
}
