//! From a description to the tree (RoR paper, figures 2 and 3; the reference's `ror.py` and
//! `ror_wrn.py`; pytorchcv's `ror_cifar.py`).

use crate::description::ShortcutKind;
use crate::family::{Dialect, Family};
use crate::network::{Head, Level, Member};
use crate::{Description, DescriptionError, Network};
use ror_blocks::{
    Block, BlockOrder, BlockShape, BlockStyle, Layer, NamedLayer, Projection, Shortcut,
};

pub(crate) fn network(description: &Description) -> Result<Network, DescriptionError> {
    description.validate()?;
    let builder = Builder::new(description)?;
    let network = Network {
        description: description.clone(),
        stem: builder.stem(),
        root: builder.root(),
        head: builder.head(),
    };
    network.check_shapes()?;
    Ok(network)
}

/// The shape change of a level: channels before and after, and the stride of its shortcut.
#[derive(Clone, Copy)]
struct Change {
    from: usize,
    to: usize,
    stride: usize,
}

struct Builder<'a> {
    description: &'a Description,
    style: BlockStyle,
    blocks: Vec<usize>,
    /// Channels of the stem, then of each group.
    widths: Vec<usize>,
}

impl<'a> Builder<'a> {
    fn new(d: &'a Description) -> Result<Self, DescriptionError> {
        let blocks = d.blocks_per_group()?;
        let stem = if d.family == Family::ImageNet { 64 } else { 16 };
        let factor = d.width * d.block.expansion();
        let mut widths = vec![stem];
        widths.extend((0..blocks.len()).map(|group| (stem << group) * factor));
        Ok(Self {
            description: d,
            style: BlockStyle {
                kind: d.block,
                order: d.family.block_order(),
                bias: d.dialect == Dialect::Keras,
                dropout: d.dropout,
            },
            blocks,
            widths,
        })
    }

    fn post_activation(&self) -> bool {
        self.style.order == BlockOrder::PostActivation
    }

    fn stem(&self) -> Vec<NamedLayer> {
        let imagenet = self.description.family == Family::ImageNet;
        let width = self.widths[0];
        let (kernel, stride) = if imagenet { (7, 2) } else { (3, 1) };
        let channels = self.description.channels;
        let conv = Layer::conv(channels, width, kernel, stride, self.style.bias);
        let mut layers = vec![NamedLayer::new("conv", conv)];
        if self.post_activation() {
            layers.push(NamedLayer::new("norm", Layer::Norm { channels: width }));
            layers.push(NamedLayer::new("relu", Layer::Relu));
        }
        if imagenet {
            let pool = Layer::MaxPool {
                kernel: 3,
                stride: 2,
                padding: 1,
            };
            layers.push(NamedLayer::new("pool", pool));
        }
        layers
    }

    fn head(&self) -> Head {
        let features = self.widths[self.widths.len() - 1];
        let layers = if self.post_activation() {
            Vec::new()
        } else {
            vec![
                NamedLayer::new("norm", Layer::Norm { channels: features }),
                NamedLayer::new("relu", Layer::Relu),
            ]
        };
        Head {
            layers,
            features,
            classes: self.description.top.then_some(self.description.classes),
        }
    }

    fn root(&self) -> Level {
        let groups = self.blocks.len();
        let has_shortcut = self.description.levels >= 2;
        let mut body = Vec::new();
        let mut first_block = 0;
        for group in 0..groups {
            let last = group + 1 == groups;
            // A rectifier moves outwards: where a sum is followed by the next level's sum at once,
            // the outer one rectifies.
            let activation = self.post_activation() && !(last && has_shortcut);
            body.push(Member::Level(self.group(group, first_block, activation)));
            first_block += self.blocks[group];
            if self.description.pools_between_groups() && !last {
                let pool = Layer::MaxPool {
                    kernel: 2,
                    stride: 2,
                    padding: 0,
                };
                body.push(Member::Layer(NamedLayer::new(
                    format!("pool{}", group + 1),
                    pool,
                )));
            }
        }
        let change = Change {
            from: self.widths[0],
            to: self.widths[groups],
            stride: 1 << (groups - 1),
        };
        Level {
            name: "root".to_owned(),
            in_channels: change.from,
            out_channels: change.to,
            body,
            shortcut: self.level_shortcut(0, has_shortcut, change),
            activation: self.post_activation() && has_shortcut,
        }
    }

    /// `first_block` is the number of blocks before this group, `activation` whether its output
    /// is rectified.
    fn group(&self, group: usize, first_block: usize, activation: bool) -> Level {
        let strided = group > 0 && !self.description.pools_between_groups();
        let change = Change {
            from: self.widths[group],
            to: self.widths[group + 1],
            stride: if strided { 2 } else { 1 },
        };
        let blocks = (0..self.blocks[group])
            .map(|i| {
                let change = if i == 0 {
                    change
                } else {
                    Change {
                        from: change.to,
                        to: change.to,
                        stride: 1,
                    }
                };
                self.block(i, first_block + i, change)
            })
            .collect();
        let mut level = self.level(format!("group{}", group + 1), 1, blocks, change);
        if self.post_activation() {
            self.place_activations(group, &mut level, activation);
        }
        level
    }

    /// The level at nesting `depth` over `blocks`; below the groups, halves.
    fn level(&self, name: String, depth: usize, mut blocks: Vec<Block>, change: Change) -> Level {
        // With m levels, `m - 2` nest between the root and the blocks.
        let has_shortcut = depth + 2 <= self.description.levels;
        let body = if depth + 3 <= self.description.levels {
            let second = blocks.split_off(blocks.len().div_ceil(2));
            let inner = Change {
                from: change.to,
                to: change.to,
                stride: 1,
            };
            vec![
                Member::Level(self.level("half1".to_owned(), depth + 1, blocks, change)),
                Member::Level(self.level("half2".to_owned(), depth + 1, second, inner)),
            ]
        } else {
            blocks.into_iter().map(Member::Block).collect()
        };
        Level {
            name,
            in_channels: change.from,
            out_channels: change.to,
            body,
            shortcut: self.level_shortcut(depth, has_shortcut, change),
            activation: false,
        }
    }

    fn block(&self, index: usize, overall: usize, change: Change) -> Block {
        let kind = self.description.shortcuts[self.description.levels - 1];
        // The reference's very first block projects although no shape changes.
        let always = self.description.dialect == Dialect::Keras && overall == 0;
        let kind = if always && kind == ShortcutKind::B {
            ShortcutKind::C
        } else {
            kind
        };
        let shape = BlockShape {
            in_channels: change.from,
            out_channels: change.to,
            stride: change.stride,
        };
        let mut block = Block::new(
            format!("block{}", index + 1),
            &self.style,
            shape,
            self.shortcut(kind, change),
            false,
        );
        if let Some(last) = self.description.stochastic_depth {
            let total: usize = self.blocks.iter().sum();
            let share = (overall + 1) as f64 / total as f64;
            // Not below the last one, for rounding.
            block.survival = (1.0 - share * (1.0 - last)).max(last);
        }
        block
    }

    fn level_shortcut(&self, depth: usize, exists: bool, change: Change) -> Shortcut {
        if exists {
            self.shortcut(self.description.shortcuts[depth], change)
        } else {
            Shortcut::None
        }
    }

    fn shortcut(&self, kind: ShortcutKind, change: Change) -> Shortcut {
        let Change { from, to, stride } = change;
        let same = from == to && stride == 1;
        match kind {
            ShortcutKind::A | ShortcutKind::B if same => Shortcut::Identity,
            ShortcutKind::A => Shortcut::Pad {
                stride,
                channels: to,
            },
            ShortcutKind::B | ShortcutKind::C => Shortcut::Projection(Projection {
                in_channels: from,
                out_channels: to,
                stride,
                bias: self.style.bias,
                norm: self.description.dialect == Dialect::Pytorchcv,
            }),
        }
    }

    /// Decides which sums of a post-activation group are rectified.
    fn place_activations(&self, group: usize, level: &mut Level, activation: bool) {
        if self.description.dialect != Dialect::Keras {
            rectify_outermost(level, activation);
            return;
        }
        // The reference rectifies every block's sum, and the sums of all groups but the last; in
        // the last group it leaves out block N - 1 (ror.py, `is_last`), not the last one.
        let last_group = group + 1 == self.blocks.len();
        let unrectified = last_group.then(|| self.blocks[group].div_ceil(9) - 1);
        let mut index = 0;
        rectify_blocks(level, &mut |block| {
            block.activation = unrectified != Some(index);
            index += 1;
        });
        level.activation = activation && level.shortcut != Shortcut::None;
    }
}

/// Rectifies the output of `level` if `activation`, and every sum within that is not added to at
/// once by an outer one.
fn rectify_outermost(level: &mut Level, activation: bool) {
    let sums = level.shortcut != Shortcut::None;
    level.activation = activation && sums;
    let count = level.body.len();
    for (i, member) in level.body.iter_mut().enumerate() {
        let last = i + 1 == count;
        let rectified = if last { activation && !sums } else { true };
        match member {
            Member::Level(inner) => rectify_outermost(inner, rectified),
            Member::Block(block) => block.activation = rectified,
            Member::Layer(_) => {}
        }
    }
}

fn rectify_blocks(level: &mut Level, f: &mut dyn FnMut(&mut Block)) {
    for member in &mut level.body {
        match member {
            Member::Level(inner) => rectify_blocks(inner, f),
            Member::Block(block) => f(block),
            Member::Layer(_) => {}
        }
    }
}
