//! The residual block, as plain data.

use crate::{Layer, NamedLayer, Shortcut};
use serde::{Deserialize, Serialize};

/// How many convolutions a block has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BlockKind {
    /// Two 3x3 convolutions.
    Basic,
    /// 1x1, 3x3, 1x1, the first two a quarter as wide as the block.
    Bottleneck,
}

impl BlockKind {
    /// How much wider the block's output is than its 3x3 convolution.
    pub fn expansion(self) -> usize {
        match self {
            Self::Basic => 1,
            Self::Bottleneck => 4,
        }
    }
}

/// Where normalisation and rectifier stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BlockOrder {
    /// conv-BN-ReLU-conv-BN, ReLU after the sum (RoR paper, figure 2).
    PostActivation,
    /// BN-ReLU-conv-BN-ReLU-conv, nothing after the sum (RoR paper, figure 3).
    PreActivation,
}

/// What all blocks of a network have in common.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BlockStyle {
    /// Which convolutions.
    pub kind: BlockKind,
    /// Where normalisation and rectifier stand.
    pub order: BlockOrder,
    /// Whether convolutions have biases.
    pub bias: bool,
    /// Dropout after the first convolution (and its rectifier, if one follows); 0 for none.
    pub dropout: f64,
}

/// The shapes that a block goes between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockShape {
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Stride of the first convolution.
    pub stride: usize,
}

/// A residual block: the last level, whose body is convolutions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Block {
    /// The name within its level, `block1` for example.
    pub name: String,
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// How much smaller the output's rows and columns are.
    pub stride: usize,
    /// Which convolutions.
    pub kind: BlockKind,
    /// Where normalisation and rectifier stand.
    pub order: BlockOrder,
    /// The body's layers in order.
    pub body: Vec<NamedLayer>,
    /// What is added to the body's result.
    pub shortcut: Shortcut,
    /// Whether a rectifier follows the sum.
    pub activation: bool,
    /// Stochastic depth: the probability that training keeps the body (1 without).
    pub survival: f64,
}

impl Block {
    /// Describes a block; `activation` says whether a rectifier follows the sum.
    pub fn new(
        name: impl Into<String>,
        style: &BlockStyle,
        shape: BlockShape,
        shortcut: Shortcut,
        activation: bool,
    ) -> Self {
        Self {
            name: name.into(),
            in_channels: shape.in_channels,
            out_channels: shape.out_channels,
            stride: shape.stride,
            kind: style.kind,
            order: style.order,
            body: body(style, shape),
            shortcut,
            activation,
            survival: 1.0,
        }
    }
}

fn body(style: &BlockStyle, shape: BlockShape) -> Vec<NamedLayer> {
    let BlockShape {
        in_channels,
        out_channels,
        stride,
    } = shape;
    let inner = out_channels / style.kind.expansion();
    // (input channels, output channels, kernel, stride) of each convolution
    let convs = match style.kind {
        BlockKind::Basic => vec![
            (in_channels, out_channels, 3, stride),
            (out_channels, out_channels, 3, 1),
        ],
        BlockKind::Bottleneck => vec![
            (in_channels, inner, 1, stride),
            (inner, inner, 3, 1),
            (inner, out_channels, 1, 1),
        ],
    };
    let last = convs.len();
    let mut layers = Vec::new();
    for (i, (from, to, kernel, stride)) in (1..).zip(convs) {
        let conv = NamedLayer::new(
            format!("conv{i}"),
            Layer::conv(from, to, kernel, stride, style.bias),
        );
        let norm = |channels| NamedLayer::new(format!("norm{i}"), Layer::Norm { channels });
        let relu = NamedLayer::new(format!("relu{i}"), Layer::Relu);
        match style.order {
            BlockOrder::PostActivation => {
                layers.extend([conv, norm(to)]);
                if i < last {
                    layers.push(relu);
                }
            }
            BlockOrder::PreActivation => layers.extend([norm(from), relu, conv]),
        }
        if i == 1 && style.dropout > 0.0 {
            let rate = style.dropout;
            layers.push(NamedLayer::new("dropout", Layer::Dropout { rate }));
        }
    }
    layers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(kind: BlockKind, order: BlockOrder) -> String {
        let style = BlockStyle {
            kind,
            order,
            bias: false,
            dropout: 0.5,
        };
        let shape = BlockShape {
            in_channels: 16,
            out_channels: 32,
            stride: 2,
        };
        let names: Vec<_> = body(&style, shape).into_iter().map(|l| l.name).collect();
        names.join(" ")
    }

    #[test]
    fn layers_stand_in_the_papers_order() {
        use BlockKind::{Basic, Bottleneck};
        use BlockOrder::{PostActivation, PreActivation};
        assert_eq!(
            names(Basic, PostActivation),
            "conv1 norm1 relu1 dropout conv2 norm2"
        );
        assert_eq!(
            names(Basic, PreActivation),
            "norm1 relu1 conv1 dropout norm2 relu2 conv2"
        );
        assert_eq!(
            names(Bottleneck, PostActivation),
            "conv1 norm1 relu1 dropout conv2 norm2 relu2 conv3 norm3"
        );
        assert_eq!(
            names(Bottleneck, PreActivation),
            "norm1 relu1 conv1 dropout norm2 relu2 conv2 norm3 relu3 conv3"
        );
    }
}
