//! Batch normalisation over `(N, H, W)`, per channel.

use candle_core::{D, DType, Result, Tensor};
use serde::{Deserialize, Serialize};

/// How fast a running statistic follows the batches. Keras and PyTorch use the word "momentum"
/// for opposite numbers, so the meaning is part of the value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Momentum {
    /// The weight of the old value (Keras): `running = m * running + (1 - m) * batch`.
    OfOldValue(f64),
    /// The weight of the new value (PyTorch): `running = (1 - m) * running + m * batch`.
    OfNewValue(f64),
}

impl Momentum {
    /// The weight that the batch's statistic gets.
    pub fn new_value_weight(self) -> f64 {
        match self {
            Self::OfOldValue(m) => 1.0 - m,
            Self::OfNewValue(m) => m,
        }
    }
}

/// Which estimate of the batch's variance the running variance follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunningVariance {
    /// Divided by `n - 1`: PyTorch, tf.keras.
    Unbiased,
    /// Divided by `n`.
    Biased,
    /// Divided by `n`, plus epsilon: Keras 1 on Theano.
    BiasedPlusEpsilon,
}

impl RunningVariance {
    /// The estimate from the biased variance of `count` values.
    pub fn estimate(self, variance: f64, count: f64, epsilon: f64) -> f64 {
        match self {
            Self::Unbiased => variance * (count / (count - 1.0).max(1.0)),
            Self::Biased => variance,
            Self::BiasedPlusEpsilon => variance + epsilon,
        }
    }
}

/// The constants of a batch normalisation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BatchNormConfig {
    /// Added to the variance before the square root.
    pub epsilon: f64,
    /// How running statistics follow the batches.
    pub momentum: Momentum,
    /// Which variance estimate is accumulated.
    pub running_variance: RunningVariance,
}

impl BatchNormConfig {
    /// PyTorch's defaults, the paper's too: epsilon 1e-5, a tenth of the new value.
    pub const PYTORCH: Self = Self {
        epsilon: 1e-5,
        momentum: Momentum::OfNewValue(0.1),
        running_variance: RunningVariance::Unbiased,
    };
    /// Keras's defaults: epsilon 1e-3, 0.99 of the old value.
    pub const KERAS: Self = Self {
        epsilon: 1e-3,
        momentum: Momentum::OfOldValue(0.99),
        running_variance: RunningVariance::Unbiased,
    };
}

/// What a training-mode batch normalisation saw in its batch. Not tracked by gradients.
#[derive(Debug, Clone)]
pub struct BatchStatistics {
    /// Mean per channel, `(C)`.
    pub mean: Tensor,
    /// Biased variance per channel, `(C)`.
    pub variance: Tensor,
    /// How many values each channel had: `N * H * W`.
    pub count: usize,
}

impl BatchStatistics {
    /// The running mean and variance after this batch.
    ///
    /// # Errors
    /// Shapes that differ from this batch's.
    pub fn follow(
        &self,
        running_mean: &Tensor,
        running_variance: &Tensor,
        config: &BatchNormConfig,
    ) -> Result<(Tensor, Tensor)> {
        let weight = config.momentum.new_value_weight();
        let dtype = running_mean.dtype();
        let (running_mean, running_variance) = (
            running_mean.to_dtype(self.mean.dtype())?,
            running_variance.to_dtype(self.variance.dtype())?,
        );
        let variance = match config.running_variance {
            RunningVariance::Unbiased => {
                let n = self.count as f64;
                (&self.variance * (n / (n - 1.0).max(1.0)))?
            }
            RunningVariance::Biased => self.variance.clone(),
            RunningVariance::BiasedPlusEpsilon => (&self.variance + config.epsilon)?,
        };
        let mean = ((running_mean * (1.0 - weight))? + (&self.mean * weight)?)?;
        let variance = ((running_variance * (1.0 - weight))? + (variance * weight)?)?;
        Ok((mean.to_dtype(dtype)?, variance.to_dtype(dtype)?))
    }
}

fn per_channel(t: &Tensor) -> Result<Tensor> {
    t.reshape((1, (), 1, 1))
}

/// Normalises by given statistics (evaluation): `(x - mean) / sqrt(variance + epsilon) * gamma + beta`.
///
/// # Shapes and types
/// `x` and the result `(N, C, H, W)`; the others `(C)`. Where `x` has fewer bits than they, it is computed in their type.
///
/// # Errors
/// Shapes that do not fit each other.
pub fn batch_norm(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    mean: &Tensor,
    variance: &Tensor,
    epsilon: f64,
) -> Result<Tensor> {
    let scale = gamma.div(&(variance + epsilon)?.sqrt()?)?;
    let shift = beta.sub(&mean.mul(&scale)?)?;
    x.to_dtype(gamma.dtype())?
        .broadcast_mul(&per_channel(&scale)?)?
        .broadcast_add(&per_channel(&shift)?)?
        .to_dtype(x.dtype())
}

/// Normalises by the batch's own statistics (training), and returns them.
///
/// # Shapes and types
/// `x` and the result `(N, C, H, W)`; `gamma`, `beta` and the statistics `(C)`. Where `x` has fewer bits than `gamma`
/// and `beta`, it is computed in their type, but never in 16 bits: then the statistics are float32.
///
/// # Errors
/// Shapes that do not fit each other.
pub fn batch_norm_train(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    epsilon: f64,
) -> Result<(Tensor, BatchStatistics)> {
    let (n, c, h, w) = x.dims4()?;
    #[cfg(feature = "cudnn")]
    if crate::cudnn::normalises(x, gamma, beta) && n * h * w >= 2 {
        return crate::cudnn::batch_norm_train(x, gamma, beta, epsilon);
    }
    // Sums of many values do not fit into 16 bits.
    let wide = match gamma.dtype() {
        DType::F16 | DType::BF16 => DType::F32,
        other => other,
    };
    let (gamma, beta) = (gamma.to_dtype(wide)?, beta.to_dtype(wide)?);
    // Channels first, so that reductions run over a contiguous last dimension.
    let rows = x.to_dtype(wide)?.transpose(0, 1)?;
    let rows = rows.reshape((c, n * h * w))?;
    let mean = rows.mean_keepdim(D::Minus1)?;
    let centred = rows.broadcast_sub(&mean)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let scale = gamma
        .reshape((c, 1))?
        .div(&(&variance + epsilon)?.sqrt()?)?;
    let y = centred
        .broadcast_mul(&scale)?
        .broadcast_add(&beta.reshape((c, 1))?)?
        .reshape((c, n, h, w))?
        .transpose(0, 1)?
        .contiguous()?
        .to_dtype(x.dtype())?;
    let statistics = BatchStatistics {
        mean: mean.flatten_all()?.detach(),
        variance: variance.flatten_all()?.detach(),
        count: n * h * w,
    };
    Ok((y, statistics))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    fn numbers(count: usize) -> Vec<f64> {
        (0..count)
            .map(|i| ((i * 7919) % 997) as f64 / 300.0 - 1.5)
            .collect()
    }

    fn tensor(values: Vec<f64>, shape: &[usize]) -> Var {
        Var::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    #[test]
    fn each_channel_has_the_shift_as_mean_and_the_scale_as_deviation() -> Result<()> {
        let x = tensor(numbers(2 * 3 * 4 * 5), &[2, 3, 4, 5]);
        let (gamma, beta) = (
            tensor(vec![1., 2., 0.5], &[3]),
            tensor(vec![0., -1., 3.], &[3]),
        );
        let (y, batch) = batch_norm_train(&x, &gamma, &beta, 0.0)?;
        assert_eq!(batch.count, 40);
        let rows = y.transpose(0, 1)?.reshape((3, 40))?;
        let mean = rows.mean_keepdim(1)?;
        let deviation = rows.broadcast_sub(&mean)?.sqr()?.mean(1)?.sqrt()?;
        for c in 0..3 {
            let off = mean.flatten_all()?.get(c)?.to_scalar::<f64>()?
                - beta.get(c)?.to_scalar::<f64>()?;
            assert!(off.abs() < 1e-12);
            let off = deviation.get(c)?.to_scalar::<f64>()? - gamma.get(c)?.to_scalar::<f64>()?;
            assert!(off.abs() < 1e-12);
        }
        // With its own statistics, evaluation gives what training gave.
        let again = batch_norm(&x, &gamma, &beta, &batch.mean, &batch.variance, 0.0)?;
        let off = again.sub(&y)?.abs()?.max_all()?.to_scalar::<f64>()?;
        assert!(off < 1e-12, "{off}");
        Ok(())
    }

    #[test]
    fn sums_of_many_values_of_16_bits_are_sums() -> Result<()> {
        for dtype in [DType::F16, DType::BF16] {
            // Ones and threes: a sum far beyond what such numbers can tell apart.
            let x: Vec<f64> = (0..1 << 15).map(|i| f64::from(i % 2 * 2 + 1)).collect();
            let x = tensor(x, &[8, 1, 64, 64]).to_dtype(dtype)?;
            let one = tensor(vec![1.0], &[1]).to_dtype(dtype)?;
            let (y, batch) = batch_norm_train(&x, &one, &one.zeros_like()?, 0.0)?;
            assert_eq!(batch.mean.to_vec1::<f32>()?, [2.0]);
            assert_eq!(batch.variance.to_vec1::<f32>()?, [1.0]);
            assert_eq!(y.dtype(), dtype);
            let config = BatchNormConfig::KERAS;
            let (mean, variance) = batch.follow(&one, &one, &config)?;
            assert_eq!((mean.dtype(), variance.dtype()), (dtype, dtype));
        }
        Ok(())
    }

    #[test]
    fn gradients_equal_finite_differences() -> Result<()> {
        let shape = [2, 2, 2, 3];
        let weights = tensor(numbers(24).into_iter().rev().collect(), &shape);
        let inputs = [numbers(24), vec![1.5, 0.5], vec![0.25, -1.0]];
        let loss = |inputs: &[Vec<f64>; 3]| -> Result<(Tensor, [Var; 3])> {
            let [x, gamma, beta] = inputs.clone();
            let vars = [tensor(x, &shape), tensor(gamma, &[2]), tensor(beta, &[2])];
            let (y, _) = batch_norm_train(&vars[0], &vars[1], &vars[2], 1e-3)?;
            Ok(((&y.sqr()? * weights.as_tensor())?.sum_all()?, vars))
        };
        let (value, vars) = loss(&inputs)?;
        let store = value.backward()?;
        for (which, var) in vars.iter().enumerate() {
            let gradient = store.get(var).unwrap().flatten_all()?.to_vec1::<f64>()?;
            for (i, &found) in gradient.iter().enumerate() {
                let at = |step: f64| -> Result<f64> {
                    let mut moved = inputs.clone();
                    moved[which][i] += step;
                    loss(&moved)?.0.to_scalar::<f64>()
                };
                let expected = (at(1e-5)? - at(-1e-5)?) / 2e-5;
                assert!(
                    (found - expected).abs() < 1e-5,
                    "{which} {i}: {found} {expected}"
                );
            }
        }
        Ok(())
    }

    #[test]
    fn running_statistics_follow_as_configured() -> Result<()> {
        let batch = BatchStatistics {
            mean: Tensor::new(&[2f64], &Device::Cpu)?,
            variance: Tensor::new(&[3f64], &Device::Cpu)?,
            count: 4,
        };
        let (mean, variance) = (
            Tensor::new(&[1f64], &Device::Cpu)?,
            Tensor::new(&[1f64], &Device::Cpu)?,
        );
        for (momentum, running_variance, expected) in [
            (
                Momentum::OfOldValue(0.75),
                RunningVariance::Biased,
                [1.25, 1.5],
            ),
            (
                Momentum::OfNewValue(0.75),
                RunningVariance::Biased,
                [1.75, 2.5],
            ),
            (
                Momentum::OfNewValue(0.5),
                RunningVariance::Unbiased,
                [1.5, 2.5],
            ),
            (
                Momentum::OfNewValue(0.5),
                RunningVariance::BiasedPlusEpsilon,
                [1.5, 2.25],
            ),
        ] {
            let config = BatchNormConfig {
                epsilon: 0.5,
                momentum,
                running_variance,
            };
            let (m, v) = batch.follow(&mean, &variance, &config)?;
            let found = [m.get(0)?.to_scalar::<f64>()?, v.get(0)?.to_scalar::<f64>()?];
            assert_eq!(found, expected, "{config:?}");
        }
        Ok(())
    }
}
