//! A run of layers on candle.

use crate::{BatchNormConfig, Layer, Mode, NamedLayer};
use candle_core::{Result, Tensor, Var};
use candle_nn::VarBuilder;
use ror_ops::{batch_norm, batch_norm_train, conv2d, max_pool2d, relu};

/// Layers applied one after the other.
#[derive(Debug, Clone)]
pub struct Sequence(Vec<Module>);

#[derive(Debug, Clone)]
enum Module {
    Conv {
        weight: Tensor,
        bias: Option<Tensor>,
        stride: usize,
        padding: usize,
    },
    Norm(Norm),
    Relu,
    MaxPool {
        kernel: usize,
        stride: usize,
        padding: usize,
    },
    Dropout(f64),
}

impl Sequence {
    /// Builds `layers`, each with the tensors `NAME.weight`, `NAME.bias`, and for a normalisation
    /// also `NAME.running_mean` and `NAME.running_var`.
    ///
    /// # Errors
    /// A tensor that `vb` does not have, or has in another shape.
    pub fn new(layers: &[NamedLayer], norm: &BatchNormConfig, vb: &VarBuilder) -> Result<Self> {
        layers
            .iter()
            .map(|l| Module::new(&l.layer, norm, vb.pp(&l.name)))
            .collect::<Result<_>>()
            .map(Self)
    }

    /// Applies every layer.
    ///
    /// # Errors
    /// An input shape that the first layer cannot take.
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let mut x = x.clone();
        for module in &self.0 {
            x = module.forward(&x, mode)?;
        }
        Ok(x)
    }
}

impl Module {
    fn new(layer: &Layer, norm: &BatchNormConfig, vb: VarBuilder) -> Result<Self> {
        Ok(match *layer {
            Layer::Conv {
                in_channels,
                out_channels,
                kernel,
                stride,
                padding,
                bias,
            } => Self::Conv {
                weight: vb.get((out_channels, in_channels, kernel, kernel), "weight")?,
                bias: bias.then(|| vb.get(out_channels, "bias")).transpose()?,
                stride,
                padding,
            },
            Layer::Norm { channels } => Self::Norm(Norm {
                gamma: vb.get(channels, "weight")?,
                beta: vb.get(channels, "bias")?,
                running_mean: Var::from_tensor(&vb.get(channels, "running_mean")?)?,
                running_variance: Var::from_tensor(&vb.get(channels, "running_var")?)?,
                config: *norm,
            }),
            Layer::Relu => Self::Relu,
            Layer::MaxPool {
                kernel,
                stride,
                padding,
            } => Self::MaxPool {
                kernel,
                stride,
                padding,
            },
            Layer::Dropout { rate } => Self::Dropout(rate),
        })
    }

    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        match (self, mode) {
            (
                Self::Conv {
                    weight,
                    bias,
                    stride,
                    padding,
                },
                _,
            ) => conv2d(x, weight, bias.as_ref(), *stride, *padding),
            (Self::Norm(norm), Mode::Eval) => norm.evaluate(x),
            (Self::Norm(norm), Mode::Train(_)) => norm.train(x),
            (Self::Relu, _) => relu(x),
            (
                Self::MaxPool {
                    kernel,
                    stride,
                    padding,
                },
                _,
            ) => max_pool2d(x, *kernel, *stride, *padding),
            (Self::Dropout(_), Mode::Eval) => Ok(x.clone()),
            (Self::Dropout(rate), Mode::Train(noise)) => {
                x.mul(&noise.dropout_mask(*rate, x.shape(), x.dtype(), x.device())?)
            }
        }
    }
}

/// Batch normalisation with its running statistics, which are variables only so that training can
/// set them in place: gradients never reach them.
#[derive(Debug, Clone)]
struct Norm {
    gamma: Tensor,
    beta: Tensor,
    running_mean: Var,
    running_variance: Var,
    config: BatchNormConfig,
}

impl Norm {
    fn evaluate(&self, x: &Tensor) -> Result<Tensor> {
        batch_norm(
            x,
            &self.gamma,
            &self.beta,
            &self.running_mean.as_detached_tensor(),
            &self.running_variance.as_detached_tensor(),
            self.config.epsilon,
        )
    }

    fn train(&self, x: &Tensor) -> Result<Tensor> {
        let (y, batch) = batch_norm_train(x, &self.gamma, &self.beta, self.config.epsilon)?;
        let (mean, variance) = batch.follow(
            &self.running_mean.as_detached_tensor(),
            &self.running_variance.as_detached_tensor(),
            &self.config,
        )?;
        self.running_mean.set(&mean)?;
        self.running_variance.set(&variance)?;
        Ok(y)
    }
}
