//! Optimisers on flat buffers.
//!
//! Weight decay touches the kernels of convolutions and the classifier's matrix, unless told to
//! touch every trained tensor. An optimiser's whole memory is [`Optimizer::state`].

mod adam;
mod sgd;

use crate::Gradients;
use crate::error::{Result, TrainError};
use crate::flat::{self, FlatLayout};
use adam::{Adam, Constants, EpsilonPlace};
use ror_models::{Parameters, TensorRole};
use serde::{Deserialize, Serialize};
use sgd::Sgd;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Which optimiser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OptimizerKind {
    /// Gradient descent with momentum; weight decay is added to the gradient.
    Sgd,
    /// Adam; weight decay is added to the gradient.
    Adam,
    /// Adam whose weight decay shrinks the weights by `lr * decay` instead (decoupled).
    Adamw,
}

/// An optimiser's constants.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct OptimizerConfig {
    /// Which optimiser.
    pub kind: OptimizerKind,
    /// SGD: the share of the velocity that stays; 0 for none.
    pub momentum: f64,
    /// SGD: Nesterov's momentum.
    pub nesterov: bool,
    /// Adam: the shares of the first and the second moment that stay.
    pub betas: [f64; 2],
    /// Adam: added to the root of the second moment.
    pub epsilon: f64,
    /// Adam: epsilon is added before the moment's bias is corrected, as in Keras, instead of
    /// after, as in PyTorch.
    pub keras_epsilon: bool,
    /// Weight decay.
    pub weight_decay: f64,
    /// Decays biases and batch normalisations too.
    pub decay_all: bool,
    /// Gradients are scaled down to this norm over all of them, where theirs is larger.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f64>,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            kind: OptimizerKind::Sgd,
            momentum: 0.9,
            nesterov: true,
            betas: [0.9, 0.999],
            epsilon: 1e-8,
            keras_epsilon: false,
            weight_decay: 0.0,
            decay_all: false,
            clip_norm: None,
        }
    }
}

impl OptimizerConfig {
    pub(crate) fn validate(&self) -> Result<()> {
        let share = |name: &str, value: f64| match (0.0..1.0).contains(&value) {
            true => Ok(()),
            false => Err(TrainError::Config(format!(
                "{name} is {value}; allowed: 0 to below 1"
            ))),
        };
        share("momentum", self.momentum)?;
        share("the first beta", self.betas[0])?;
        share("the second beta", self.betas[1])?;
        let positive = |value: f64| value.is_finite() && value > 0.0;
        if !positive(self.epsilon) {
            return Err(TrainError::Config(format!(
                "epsilon is {}; it must be above 0",
                self.epsilon
            )));
        }
        if !(self.weight_decay.is_finite() && self.weight_decay >= 0.0) {
            return Err(TrainError::Config(format!(
                "weight-decay is {}; it must not be negative",
                self.weight_decay
            )));
        }
        match self.clip_norm {
            Some(norm) if !positive(norm) => Err(TrainError::Config(format!(
                "clip-norm is {norm}; it must be above 0"
            ))),
            _ => Ok(()),
        }
    }

    fn decays(&self, role: TensorRole) -> bool {
        self.decay_all || matches!(role, TensorRole::ConvWeight | TensorRole::DenseWeight)
    }

    fn moments(&self) -> &'static [&'static str] {
        match self.kind {
            OptimizerKind::Sgd => &["velocity"],
            OptimizerKind::Adam | OptimizerKind::Adamw => &["first_moment", "second_moment"],
        }
    }
}

/// An optimiser with its memory.
///
/// ```
/// use candle_core::{DType, Device};
/// use ror_models::{Description, Network, Parameters};
/// use ror_train::{FlatLayout, Gradients, Optimizer, OptimizerConfig};
/// use std::sync::Arc;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let network = Network::new(&Description::preset("ror-3-wrn-10-1")?)?;
/// let parameters = Parameters::init(&network, 1, DType::F32, &Device::Cpu)?;
/// let layout = Arc::new(FlatLayout::new(&parameters));
/// let mut optimizer = Optimizer::new(OptimizerConfig::default(), layout.clone())?;
/// let gradients = Gradients::new(layout); // an engine fills them
/// optimizer.step(&parameters, &gradients, 0.1)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Optimizer {
    config: OptimizerConfig,
    layout: Arc<FlatLayout>,
    steps: u64,
    moments: Vec<Vec<f32>>,
}

/// The memory of an optimiser between steps.
#[derive(Debug, Clone, PartialEq)]
pub struct OptimizerState {
    /// Steps taken.
    pub steps: u64,
    /// Buffers by name, each in the order of the layout.
    pub moments: BTreeMap<String, Vec<f32>>,
}

impl Optimizer {
    /// An optimiser that has taken no step.
    ///
    /// # Errors
    /// A constant out of its range.
    pub fn new(config: OptimizerConfig, layout: Arc<FlatLayout>) -> Result<Self> {
        config.validate()?;
        let moments = vec![vec![0.0; layout.len()]; config.moments().len()];
        Ok(Self {
            config,
            layout,
            steps: 0,
            moments,
        })
    }

    /// Changes the parameters by one step along the gradients, and returns the gradients' norm from
    /// before clipping. If that is not finite, nothing changes.
    ///
    /// # Errors
    /// Parameters or gradients of another network.
    pub fn step(&mut self, parameters: &Parameters, gradients: &Gradients, lr: f64) -> Result<f64> {
        if gradients.layout() != &*self.layout {
            return Err(TrainError::Config(
                "the gradients are those of another network".to_owned(),
            ));
        }
        let norm = gradients.norm();
        if !norm.is_finite() {
            return Ok(norm);
        }
        let scale = match self.config.clip_norm {
            // As in PyTorch, whose small number keeps the division defined.
            Some(limit) => (limit / (norm + 1e-6)).min(1.0) as f32,
            None => 1.0,
        };
        self.steps += 1;
        for ((name, role, var), entry) in parameters.trainable().zip(self.layout.entries()) {
            let at = entry.range.clone();
            if name != entry.name || var.elem_count() != at.len() {
                return Err(TrainError::Config(format!(
                    "the optimiser expects `{}` where it finds `{name}`",
                    entry.name
                )));
            }
            let decay = if self.config.decays(role) {
                self.config.weight_decay
            } else {
                0.0
            };
            let g = &gradients.as_slice()[at.clone()];
            let rule = Rule::new(&self.config, self.steps, lr, decay, scale);
            let moments = &mut self.moments;
            flat::update(var, |p| rule.apply(p, g, moments, at))?;
        }
        Ok(norm)
    }

    /// The memory, to be saved.
    pub fn state(&self) -> OptimizerState {
        let names = self.config.moments().iter().map(|&name| name.to_owned());
        OptimizerState {
            steps: self.steps,
            moments: names.zip(self.moments.iter().cloned()).collect(),
        }
    }

    /// Goes on from saved memory.
    ///
    /// # Errors
    /// The memory of another optimiser or network.
    pub fn restore(&mut self, mut state: OptimizerState) -> Result<()> {
        let names = self.config.moments().iter();
        let taken = names.map(|&name| {
            let values = state.moments.remove(name);
            values.filter(|values| values.len() == self.layout.len())
        });
        let moments: Option<Vec<_>> = taken.collect();
        match moments {
            Some(moments) if state.moments.is_empty() => {
                self.steps = state.steps;
                self.moments = moments;
                Ok(())
            }
            _ => Err(TrainError::Config(
                "the saved state is that of another optimiser or network".to_owned(),
            )),
        }
    }
}

/// What one step does to one tensor.
enum Rule {
    Sgd(Sgd),
    Adam(Adam),
}

impl Rule {
    fn new(config: &OptimizerConfig, step: u64, lr: f64, decay: f64, scale: f32) -> Self {
        let adam = || {
            let constants = Constants {
                betas: config.betas,
                epsilon: config.epsilon,
                place: if config.keras_epsilon {
                    EpsilonPlace::Uncorrected
                } else {
                    EpsilonPlace::Corrected
                },
            };
            Adam::at(&constants, step, lr, scale)
        };
        match config.kind {
            OptimizerKind::Sgd => Self::Sgd(Sgd {
                lr: lr as f32,
                momentum: config.momentum as f32,
                nesterov: config.nesterov,
                decay: decay as f32,
                scale,
            }),
            OptimizerKind::Adam => Self::Adam(Adam {
                decay: decay as f32,
                ..adam()
            }),
            OptimizerKind::Adamw => Self::Adam(Adam {
                keep: (1.0 - lr * decay) as f32,
                ..adam()
            }),
        }
    }

    fn apply(
        &self,
        p: &mut [f32],
        g: &[f32],
        moments: &mut [Vec<f32>],
        at: std::ops::Range<usize>,
    ) {
        match (self, moments) {
            (Self::Sgd(sgd), [velocity]) => sgd.apply(p, g, &mut velocity[at]),
            (Self::Adam(adam), [first, second]) => {
                adam.apply(p, g, &mut first[at.clone()], &mut second[at]);
            }
            // `Optimizer::new` and `restore` make as many buffers as the kind has.
            _ => debug_assert!(false, "the number of buffers is the kind's"),
        }
    }
}

#[cfg(test)]
mod tests;
