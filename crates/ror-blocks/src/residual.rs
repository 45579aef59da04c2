//! The sum that every level ends with: shortcut, stochastic depth, activation.

use crate::{BatchNormConfig, Block, Layer, Mode, NamedLayer, Sequence};
use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use ror_ops::{pad_shortcut, relu};
use serde::{Deserialize, Serialize};

/// What a level adds to its body's result. Types A, B and C of He et al. choose among these.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "shortcut", rename_all = "kebab-case")]
pub enum Shortcut {
    /// Nothing: the level is its body alone.
    None,
    /// The input.
    Identity,
    /// The input, subsampled, with zero channels appended.
    Pad {
        /// Every how many rows and columns one is kept.
        stride: usize,
        /// Channels of the result.
        channels: usize,
    },
    /// A 1x1 convolution of the input.
    Projection(Projection),
}

/// A 1x1 convolution on a shortcut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Projection {
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the result.
    pub out_channels: usize,
    /// Stride of the convolution.
    pub stride: usize,
    /// Whether a bias is added.
    pub bias: bool,
    /// Whether a batch normalisation follows.
    pub norm: bool,
}

impl Shortcut {
    /// The layers of a projection, with the names they have within `shortcut`; none otherwise.
    pub fn layers(&self) -> Vec<NamedLayer> {
        let Self::Projection(p) = self else {
            return Vec::new();
        };
        let conv = Layer::conv(p.in_channels, p.out_channels, 1, p.stride, p.bias);
        let mut layers = vec![NamedLayer::new("conv", conv)];
        if p.norm {
            let channels = p.out_channels;
            layers.push(NamedLayer::new("norm", Layer::Norm { channels }));
        }
        layers
    }
}

/// A shortcut on candle.
#[derive(Debug, Clone)]
pub struct ShortcutModule(Kind);

#[derive(Debug, Clone)]
enum Kind {
    None,
    Identity,
    Pad { stride: usize, channels: usize },
    Projection(Sequence),
}

impl ShortcutModule {
    /// Builds a shortcut; a projection takes `conv.weight` and so on from `vb`.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub fn new(shortcut: &Shortcut, norm: &BatchNormConfig, vb: &VarBuilder) -> Result<Self> {
        Ok(Self(match *shortcut {
            Shortcut::None => Kind::None,
            Shortcut::Identity => Kind::Identity,
            Shortcut::Pad { stride, channels } => Kind::Pad { stride, channels },
            Shortcut::Projection(_) => {
                Kind::Projection(Sequence::new(&shortcut.layers(), norm, vb)?)
            }
        }))
    }

    /// What to add to the body's result, if anything.
    ///
    /// # Errors
    /// An input of the wrong shape.
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Result<Option<Tensor>> {
        Ok(match &self.0 {
            Kind::None => None,
            Kind::Identity => Some(x.clone()),
            Kind::Pad { stride, channels } => Some(pad_shortcut(x, *stride, *channels)?),
            Kind::Projection(layers) => Some(layers.forward(x, mode)?),
        })
    }
}

/// `activation(body(x) + shortcut(x))` for a body given as a function.
#[derive(Debug, Clone)]
pub struct Residual {
    shortcut: ShortcutModule,
    activation: bool,
    survival: f64,
}

impl Residual {
    /// The sum of a level. `survival` below 1 is stochastic depth (Huang et al., 2016): training
    /// keeps the body with that probability, evaluation scales it by it.
    pub fn new(shortcut: ShortcutModule, activation: bool, survival: f64) -> Self {
        Self {
            shortcut,
            activation,
            survival,
        }
    }

    /// Runs `body` on `x` and adds the shortcut. `tap` sees the body's result and the sum, both
    /// before the activation. A dropped body is not run.
    ///
    /// # Errors
    /// Whatever the body and the shortcut report.
    pub fn forward(
        &self,
        x: &Tensor,
        mode: Mode,
        body: impl FnOnce(&Tensor) -> Result<Tensor>,
        tap: &mut dyn FnMut(&Tensor, &Tensor),
    ) -> Result<Tensor> {
        let shortcut = self.shortcut.forward(x, mode)?;
        let sum = match (mode, shortcut) {
            (Mode::Train(noise), Some(shortcut))
                if self.survival < 1.0 && f64::from(noise.uniform()) >= self.survival =>
            {
                shortcut
            }
            (_, shortcut) => {
                let mut result = body(x)?;
                if matches!(mode, Mode::Eval) && self.survival < 1.0 {
                    result = (result * self.survival)?;
                }
                let sum = match shortcut {
                    Some(shortcut) => result.add(&shortcut)?,
                    None => result.clone(),
                };
                tap(&result, &sum);
                sum
            }
        };
        if self.activation { relu(&sum) } else { Ok(sum) }
    }
}

/// A residual block on candle.
#[derive(Debug, Clone)]
pub struct BlockModule {
    body: Sequence,
    residual: Residual,
}

impl BlockModule {
    /// Builds `block` from the tensors under `vb`.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    ///
    /// # Example
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use candle_nn::VarBuilder;
    /// use ror_blocks::*;
    ///
    /// # fn main() -> candle_core::Result<()> {
    /// let style = BlockStyle {
    ///     kind: BlockKind::Basic,
    ///     order: BlockOrder::PostActivation,
    ///     bias: false,
    ///     dropout: 0.0,
    /// };
    /// let shape = BlockShape { in_channels: 16, out_channels: 16, stride: 1 };
    /// let block = Block::new("block1", &style, shape, Shortcut::Identity, true);
    /// let vb = VarBuilder::zeros(DType::F32, &Device::Cpu);
    /// let module = BlockModule::new(&block, &BatchNormConfig::PYTORCH, &vb)?;
    /// let x = Tensor::ones((2, 16, 8, 8), DType::F32, &Device::Cpu)?;
    /// assert_eq!(module.forward(&x, Mode::Eval, &mut |_, _| ())?.dims(), [2, 16, 8, 8]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn new(block: &Block, norm: &BatchNormConfig, vb: &VarBuilder) -> Result<Self> {
        let shortcut = ShortcutModule::new(&block.shortcut, norm, &vb.pp("shortcut"))?;
        Ok(Self {
            body: Sequence::new(&block.body, norm, vb)?,
            residual: Residual::new(shortcut, block.activation, block.survival),
        })
    }

    /// `(N, in_channels, H, W)` to `(N, out_channels, H', W')`. `tap` as in [`Residual::forward`].
    ///
    /// # Errors
    /// An input of the wrong shape.
    pub fn forward(
        &self,
        x: &Tensor,
        mode: Mode,
        tap: &mut dyn FnMut(&Tensor, &Tensor),
    ) -> Result<Tensor> {
        self.residual
            .forward(x, mode, |x| self.body.forward(x, mode), tap)
    }
}
