//! A batch normalisation in evaluation, as what it is: a scale and a shift per channel.

use crate::error::Result;
use crate::weights::Weights;

/// `scale * x + shift` per channel. In float64, so that what is folded rounds once.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Affine {
    pub(super) scale: Vec<f64>,
    pub(super) shift: Vec<f64>,
}

impl Affine {
    /// What the normalisation at `path` computes.
    pub(super) fn of_norm(weights: &Weights, path: &str, epsilon: f64) -> Result<Self> {
        let tensor = |name: &str| weights.values(&format!("{path}.{name}"));
        let (gamma, beta) = (tensor("weight")?, tensor("bias")?);
        let (mean, variance) = (tensor("running_mean")?, tensor("running_var")?);
        let scale: Vec<f64> = gamma
            .iter()
            .zip(&variance)
            .map(|(&g, &v)| f64::from(g) / (f64::from(v) + epsilon).sqrt())
            .collect();
        let shift = (beta.iter().zip(&mean).zip(&scale))
            .map(|((&b, &m), s)| f64::from(b) - f64::from(m) * s)
            .collect();
        Ok(Self { scale, shift })
    }

    /// The kernels `(O, ...)` of a convolution that scales its own result.
    pub(super) fn scaled(&self, mut kernels: Vec<f32>) -> Vec<f32> {
        let per_channel = kernels.len() / self.scale.len().max(1);
        for (kernel, scale) in kernels.chunks_mut(per_channel.max(1)).zip(&self.scale) {
            for weight in kernel {
                *weight = (f64::from(*weight) * scale) as f32;
            }
        }
        kernels
    }

    /// What a bias before becomes after.
    pub(super) fn shifted(&self, bias: Option<&[f32]>) -> Vec<f32> {
        (0..)
            .zip(self.scale.iter().zip(&self.shift))
            .map(|(channel, (scale, shift)): (usize, _)| {
                let before = bias.map_or(0.0, |bias| f64::from(bias[channel]));
                (before * scale + shift) as f32
            })
            .collect()
    }
}
