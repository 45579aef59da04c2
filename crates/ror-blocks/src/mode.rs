//! Training or evaluation, and the random numbers that training needs.

use candle_core::{DType, Device, Result, Shape, Tensor};
use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64;
use serde::{Deserialize, Serialize};
use std::sync::{Mutex, PoisonError};

/// How a module runs.
#[derive(Debug, Clone, Copy)]
pub enum Mode<'a> {
    /// Running statistics, nothing dropped.
    Eval,
    /// Batch statistics, which the running ones follow; dropout and stochastic depth draw from
    /// the noise.
    Train(&'a Noise),
}

/// A seeded source of dropout masks and stochastic-depth draws. The same seed gives the same
/// numbers on every machine.
#[derive(Debug)]
pub struct Noise(Mutex<NoiseState>);

/// Where a [`Noise`] stands, to save and restore.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NoiseState(Pcg64);

impl Noise {
    /// Starts the sequence that belongs to `seed`.
    pub fn seeded(seed: u64) -> Self {
        Self(Mutex::new(NoiseState(Pcg64::seed_from_u64(seed))))
    }

    /// Goes on where `state` stood.
    pub fn from_state(state: NoiseState) -> Self {
        Self(Mutex::new(state))
    }

    /// The current place in the sequence.
    pub fn state(&self) -> NoiseState {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// A number in `[0, 1)`.
    pub fn uniform(&self) -> f32 {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        unit(state.0.next_u32())
    }

    /// A mask that is 0 with probability `rate`, and `1 / (1 - rate)` elsewhere.
    ///
    /// # Errors
    /// A device that cannot hold it.
    pub fn dropout_mask(
        &self,
        rate: f64,
        shape: &Shape,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        let kept = (1.0 / (1.0 - rate)) as f32;
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mask: Vec<f32> = (0..shape.elem_count())
            .map(|_| {
                if f64::from(unit(state.0.next_u32())) < rate {
                    0.0
                } else {
                    kept
                }
            })
            .collect();
        Tensor::from_vec(mask, shape, device)?.to_dtype(dtype)
    }
}

/// The top 24 bits as a number in `[0, 1)`, exact in f32.
fn unit(bits: u32) -> f32 {
    (bits >> 8) as f32 / (1u32 << 24) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restored_state_continues_the_sequence() {
        let noise = Noise::seeded(7);
        noise.uniform();
        let other = Noise::from_state(noise.state());
        assert_eq!(noise.uniform(), other.uniform());
    }

    #[test]
    fn dropout_keeps_the_mean() -> Result<()> {
        let shape = Shape::from((100, 100));
        let mask = Noise::seeded(1).dropout_mask(0.3, &shape, DType::F64, &Device::Cpu)?;
        let mean = mask.mean_all()?.to_scalar::<f64>()?;
        assert!((mean - 1.0).abs() < 0.03, "{mean}");
        Ok(())
    }
}
