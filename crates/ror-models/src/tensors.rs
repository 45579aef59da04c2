//! Which tensors a network has: names, shapes, roles.

use crate::walk::{Placed, Visit};
use crate::{DescriptionError, Network};
use ror_blocks::Layer;

/// What a tensor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TensorRole {
    /// Kernel of a convolution, `(O, I, K, K)`.
    ConvWeight,
    /// Bias of a convolution, `(O)`.
    ConvBias,
    /// Gamma of a batch normalisation, `(C)`.
    NormScale,
    /// Beta of a batch normalisation, `(C)`.
    NormShift,
    /// Running mean of a batch normalisation, `(C)`; not trained.
    RunningMean,
    /// Running variance of a batch normalisation, `(C)`; not trained.
    RunningVariance,
    /// Matrix of the classifier, `(classes, features)`.
    DenseWeight,
    /// Bias of the classifier, `(classes)`.
    DenseBias,
}

impl TensorRole {
    /// Whether training changes it by gradients; running statistics it does not.
    pub fn is_trainable(self) -> bool {
        !matches!(self, Self::RunningMean | Self::RunningVariance)
    }
}

/// Name, shape and role of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// The full name, `root.group2.block3.conv1.weight`.
    pub name: String,
    /// The shape.
    pub shape: Vec<usize>,
    /// What it is for.
    pub role: TensorRole,
}

impl Network {
    /// Every tensor in the order of computation, a shortcut's after its body's.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let mut collect = Collect(Vec::new());
        // An expanded network has passed this walk before, so that it cannot fail here.
        let walked: Result<(), DescriptionError> = self.walk(&mut collect);
        debug_assert!(walked.is_ok());
        collect.0
    }
}

struct Collect(Vec<TensorSpec>);

impl Collect {
    fn push(&mut self, path: &str, name: &str, shape: &[usize], role: TensorRole) {
        self.0.push(TensorSpec {
            name: format!("{path}.{name}"),
            shape: shape.to_vec(),
            role,
        });
    }
}

impl Visit for Collect {
    fn layer(&mut self, placed: Placed) {
        let path = placed.path;
        match *placed.layer {
            Layer::Conv {
                in_channels,
                out_channels,
                kernel,
                bias,
                ..
            } => {
                let shape = [out_channels, in_channels, kernel, kernel];
                self.push(path, "weight", &shape, TensorRole::ConvWeight);
                if bias {
                    self.push(path, "bias", &[out_channels], TensorRole::ConvBias);
                }
            }
            Layer::Norm { channels } => {
                let shape = [channels];
                self.push(path, "weight", &shape, TensorRole::NormScale);
                self.push(path, "bias", &shape, TensorRole::NormShift);
                self.push(path, "running_mean", &shape, TensorRole::RunningMean);
                self.push(path, "running_var", &shape, TensorRole::RunningVariance);
            }
            Layer::Relu | Layer::MaxPool { .. } | Layer::Dropout { .. } => {}
        }
    }

    fn dense(&mut self, path: &str, features: usize, classes: usize) {
        self.push(
            path,
            "weight",
            &[classes, features],
            TensorRole::DenseWeight,
        );
        self.push(path, "bias", &[classes], TensorRole::DenseBias);
    }
}
