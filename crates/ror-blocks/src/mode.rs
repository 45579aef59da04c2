//! Training or evaluation, and the random numbers that training needs.

use candle_core::{DType, Device, Result, Shape, Tensor};
use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64;
use serde::{Deserialize, Serialize};
use std::sync::{Mutex, MutexGuard, PoisonError};

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
pub struct Noise {
    shared: Mutex<NoiseState>,
    /// Where masks come from, if not from the same sequence.
    masks: Option<Mutex<NoiseState>>,
}

/// Where a [`Noise`] stands, to save and restore.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NoiseState(Pcg64);

impl Noise {
    /// Starts the sequence that belongs to `seed`.
    pub fn seeded(seed: u64) -> Self {
        Self::from_state(NoiseState(Pcg64::seed_from_u64(seed)))
    }

    /// Draws dropout masks from a sequence of their own, that of `seed`. So machines that share a batch drop
    /// the same blocks, but each what it likes within its images.
    #[must_use]
    pub fn with_masks(self, seed: u64) -> Self {
        let masks = NoiseState(Pcg64::seed_from_u64(seed));
        Self {
            masks: Some(Mutex::new(masks)),
            ..self
        }
    }

    /// Goes on where `state` stood.
    pub fn from_state(state: NoiseState) -> Self {
        Self {
            shared: Mutex::new(state),
            masks: None,
        }
    }

    /// The current place in the sequence; not that of [`Noise::with_masks`].
    pub fn state(&self) -> NoiseState {
        lock(&self.shared).clone()
    }

    /// A number in `[0, 1)`.
    pub fn uniform(&self) -> f32 {
        unit(lock(&self.shared).0.next_u32())
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
        let mut state = lock(self.masks.as_ref().unwrap_or(&self.shared));
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

fn lock(state: &Mutex<NoiseState>) -> MutexGuard<'_, NoiseState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn masks_of_their_own_leave_the_draws_as_they_are() -> Result<()> {
        let mask = |noise: &Noise| {
            let mask = noise.dropout_mask(0.5, &Shape::from(64), DType::F32, &Device::Cpu)?;
            mask.to_vec1::<f32>()
        };
        let (one, two) = (
            Noise::seeded(7).with_masks(1),
            Noise::seeded(7).with_masks(2),
        );
        assert_ne!(mask(&one)?, mask(&two)?);
        assert_eq!(one.uniform(), two.uniform());
        assert_eq!(one.uniform(), {
            let plain = Noise::seeded(7);
            plain.uniform();
            plain.uniform()
        });
        Ok(())
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
