//! Networks without one of their summands: the lesion study of Veit, Wilber and Belongie (*Residual
//! Networks Behave Like Ensembles of Relatively Shallow Networks*, 2016, section 4.1), on every level.

use crate::Network;
use crate::network::{Level, Member};
use ror_blocks::{Block, Shortcut};
use serde::Serialize;
use std::fmt;

/// One of the two summands of a residual level, `body(x) + shortcut(x)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Summand {
    /// The shortcut, of a level or a block.
    Shortcut,
    /// The body of a block.
    Residual,
}

impl fmt::Display for Summand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shortcut => "shortcut",
            Self::Residual => "residual",
        })
    }
}

/// A summand that a network can be without.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Lesion {
    /// The level or block, `root.group2.block3`.
    pub path: String,
    /// Its nesting: 1 for the root, 2 for the groups, the number of levels for the blocks.
    pub level: usize,
    /// Which of its summands is removed.
    pub summand: Summand,
}

impl fmt::Display for Lesion {
    /// `root.group2.block3 residual`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.path, self.summand)
    }
}

impl Network {
    /// Every summand that can be removed, in the order of the tree: a level's shortcut before its
    /// members, a block's shortcut before its body.
    ///
    /// ```
    /// use ror_models::{Description, Network};
    ///
    /// let network = Network::new(&Description::preset("ror-3-8")?)?;
    /// // A root, three groups, and three blocks of two summands each.
    /// assert_eq!(network.lesions().len(), 1 + 3 + 3 * 2);
    /// # Ok::<(), ror_models::DescriptionError>(())
    /// ```
    pub fn lesions(&self) -> Vec<Lesion> {
        let mut lesions = Vec::new();
        let blocks = self.description.levels;
        list(&self.root, &self.root.name, (1, blocks), &mut lesions);
        lesions
    }

    /// The network without one summand; `None` if it has no such summand.
    ///
    /// A level without its shortcut is its body, rectified as before. A block without its residual
    /// is its shortcut, rectified as before: it survives with probability 0. The tensors of what is
    /// left keep their names, so that the whole network's weights fit.
    pub fn without(&self, lesion: &Lesion) -> Option<Self> {
        let mut network = self.clone();
        let name = network.root.name.clone();
        let removed = remove(&mut network.root, &name, lesion);
        removed.then_some(network)
    }
}

fn list(level: &Level, path: &str, (depth, blocks): (usize, usize), into: &mut Vec<Lesion>) {
    if level.shortcut != Shortcut::None {
        into.push(Lesion {
            path: path.to_owned(),
            level: depth,
            summand: Summand::Shortcut,
        });
    }
    for member in &level.body {
        match member {
            Member::Level(inner) => {
                let path = format!("{path}.{}", inner.name);
                list(inner, &path, (depth + 1, blocks), into);
            }
            Member::Block(block) => {
                let path = format!("{path}.{}", block.name);
                if is_sum(block) {
                    into.extend(
                        [Summand::Shortcut, Summand::Residual].map(|summand| Lesion {
                            path: path.clone(),
                            level: blocks,
                            summand,
                        }),
                    );
                }
            }
            Member::Layer(_) => {}
        }
    }
}

/// Whether a block has two summands, so that something is left without one.
fn is_sum(block: &Block) -> bool {
    block.shortcut != Shortcut::None && block.survival > 0.0
}

/// Whether there was something to remove in `level`, which stands at `path`.
fn remove(level: &mut Level, path: &str, lesion: &Lesion) -> bool {
    if lesion.path == path {
        let there = level.shortcut != Shortcut::None && lesion.summand == Summand::Shortcut;
        if there {
            level.shortcut = Shortcut::None;
        }
        return there;
    }
    level.body.iter_mut().any(|member| match member {
        Member::Level(inner) => {
            let path = format!("{path}.{}", inner.name);
            remove(inner, &path, lesion)
        }
        Member::Block(block) if lesion.path == format!("{path}.{}", block.name) => {
            let there = is_sum(block);
            match lesion.summand {
                _ if !there => {}
                Summand::Shortcut => block.shortcut = Shortcut::None,
                Summand::Residual => block.survival = 0.0,
            }
            there
        }
        Member::Block(_) | Member::Layer(_) => false,
    })
}
