//! A network on candle.

use crate::Network;
use crate::network::{Level, Member};
use candle_core::{Result, Tensor};
use candle_nn::{Linear, Module, VarBuilder};
use ror_blocks::{BatchNormConfig, BlockModule, Mode, Residual, Sequence, ShortcutModule};
use ror_ops::global_average_pool;

/// A RoR network on candle, for any device.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use ror_models::{Description, Network, Parameters};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let network = Network::new(&Description::preset("ror-3-wrn-10-1")?)?;
/// let parameters = Parameters::init(&network, 1, DType::F32, &Device::Cpu)?;
/// let model = parameters.model(&network)?;
/// let images = Tensor::zeros((2, 3, 32, 32), DType::F32, &Device::Cpu)?;
/// assert_eq!(model.forward(&images)?.dims(), [2, 10]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Model {
    stem: Sequence,
    root: LevelModule,
    head: Sequence,
    dense: Option<Linear>,
}

#[derive(Debug, Clone)]
struct LevelModule {
    path: String,
    body: Vec<MemberModule>,
    residual: Residual,
}

#[derive(Debug, Clone)]
enum MemberModule {
    Level(LevelModule),
    Block(String, Box<BlockModule>),
    Layer(Sequence),
}

/// A look into the network: what a part computed.
#[derive(Debug, Clone)]
pub struct Tap {
    /// The part: `stem`, `root.group2`, `root.group2.block1`, `root`.
    pub path: String,
    /// Where in the part.
    pub point: TapPoint,
    /// The activations, `(N, C, H, W)`.
    pub tensor: Tensor,
}

/// Where in a part a [`Tap`] sits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TapPoint {
    /// The result of a level's body, before its shortcut is added.
    Body,
    /// The sum, before its activation.
    Sum,
    /// What the part hands on.
    Output,
}

type Taps<'a> = Option<&'a mut Vec<Tap>>;

impl Model {
    /// Builds the network from the tensors that [`Network::tensors`] names.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub fn new(network: &Network, vb: VarBuilder) -> Result<Self> {
        let norm = network.norm();
        let head = vb.pp("head");
        Ok(Self {
            stem: Sequence::new(&network.stem, norm, &vb.pp("stem"))?,
            root: LevelModule::new(&network.root, norm, network.root.name.clone(), &vb)?,
            head: Sequence::new(&network.head.layers, norm, &head)?,
            dense: network
                .head
                .classes
                .map(|classes| candle_nn::linear(network.head.features, classes, head.pp("dense")))
                .transpose()?,
        })
    }

    /// The logits of `images` `(N, C, H, W)`: `(N, classes)`; without the top, the features.
    ///
    /// # Errors
    /// Images of a shape that the network cannot take.
    pub fn forward(&self, images: &Tensor) -> Result<Tensor> {
        self.forward_in(images, Mode::Eval)
    }

    /// Like [`Model::forward`], in training or evaluation mode.
    ///
    /// # Errors
    /// As [`Model::forward`].
    pub fn forward_in(&self, images: &Tensor, mode: Mode) -> Result<Tensor> {
        let features = self.pooled(images, mode, None)?;
        self.classify(&features)
    }

    /// The features after the global average pool: `(N, features)`.
    ///
    /// # Errors
    /// As [`Model::forward`].
    pub fn features(&self, images: &Tensor) -> Result<Tensor> {
        self.pooled(images, Mode::Eval, None)
    }

    /// The logits that belong to features, which they are without the top.
    ///
    /// # Errors
    /// Features of the wrong width.
    pub fn classify(&self, features: &Tensor) -> Result<Tensor> {
        match &self.dense {
            Some(dense) => dense.forward(&features.to_dtype(dense.weight().dtype())?),
            None => Ok(features.clone()),
        }
    }

    /// The logits, and what every level and block computed on the way, in the order of computation.
    ///
    /// # Errors
    /// As [`Model::forward`].
    pub fn taps(&self, images: &Tensor) -> Result<(Tensor, Vec<Tap>)> {
        let mut taps = Vec::new();
        let features = self.pooled(images, Mode::Eval, Some(&mut taps))?;
        Ok((self.classify(&features)?, taps))
    }

    fn pooled(&self, images: &Tensor, mode: Mode, mut taps: Taps) -> Result<Tensor> {
        let x = self.stem.forward(images, mode)?;
        record(&mut taps, "stem", TapPoint::Output, &x);
        let x = self.root.forward(&x, mode, &mut taps)?;
        let x = self.head.forward(&x, mode)?;
        record(&mut taps, "head", TapPoint::Output, &x);
        global_average_pool(&x)
    }
}

impl LevelModule {
    fn new(level: &Level, norm: &BatchNormConfig, path: String, vb: &VarBuilder) -> Result<Self> {
        let vb = vb.pp(&level.name);
        let below = |name: &str| format!("{path}.{name}");
        let body = level
            .body
            .iter()
            .map(|member| {
                Ok(match member {
                    Member::Level(inner) => {
                        MemberModule::Level(Self::new(inner, norm, below(&inner.name), &vb)?)
                    }
                    Member::Block(block) => {
                        let module = BlockModule::new(block, norm, &vb.pp(&block.name))?;
                        MemberModule::Block(below(&block.name), Box::new(module))
                    }
                    Member::Layer(layer) => {
                        MemberModule::Layer(Sequence::new(std::slice::from_ref(layer), norm, &vb)?)
                    }
                })
            })
            .collect::<Result<_>>()?;
        let shortcut = ShortcutModule::new(&level.shortcut, norm, &vb.pp("shortcut"))?;
        Ok(Self {
            path,
            body,
            residual: Residual::new(shortcut, level.activation, 1.0),
        })
    }

    fn forward(&self, x: &Tensor, mode: Mode, taps: &mut Taps) -> Result<Tensor> {
        let (mut summed, wanted) = (None, taps.is_some());
        let y =
            self.residual
                .forward(x, mode, |x| self.body(x, mode, taps), &mut |body, sum| {
                    summed = wanted.then(|| (body.clone(), sum.clone()))
                })?;
        record_level(taps, &self.path, summed, &y);
        Ok(y)
    }

    fn body(&self, x: &Tensor, mode: Mode, taps: &mut Taps) -> Result<Tensor> {
        let mut x = x.clone();
        for member in &self.body {
            x = match member {
                MemberModule::Level(level) => level.forward(&x, mode, taps)?,
                MemberModule::Block(path, block) => {
                    let (mut summed, wanted) = (None, taps.is_some());
                    let y = block.forward(&x, mode, &mut |body, sum| {
                        summed = wanted.then(|| (body.clone(), sum.clone()));
                    })?;
                    record_level(taps, path, summed, &y);
                    y
                }
                MemberModule::Layer(layer) => layer.forward(&x, mode)?,
            };
        }
        Ok(x)
    }
}

fn record(taps: &mut Taps, path: &str, point: TapPoint, tensor: &Tensor) {
    if let Some(taps) = taps {
        taps.push(Tap {
            path: path.to_owned(),
            point,
            tensor: tensor.clone(),
        });
    }
}

fn record_level(taps: &mut Taps, path: &str, summed: Option<(Tensor, Tensor)>, output: &Tensor) {
    if let Some((body, sum)) = summed {
        record(taps, path, TapPoint::Body, &body);
        record(taps, path, TapPoint::Sum, &sum);
    }
    record(taps, path, TapPoint::Output, output);
}
