//! Batch normalisation in training, in passes over tensors that lie in the caches.
//!
//! Forwards: [`Moments`] takes in a tensor as it is computed; [`Affine`] then holds what to do with every channel, and
//! [`sum`](super::sum) applies it with the rectifier. Backwards: [`GradientMoments`] takes in the gradient of the
//! result, and [`NormGradient`] turns that gradient into the input's.
//!
//! With `z = (x - mean) * scale + shift`, `a = relu(z)`, `scale = gamma / sqrt(variance + epsilon)`, and `dz` the gradient
//! of `a` where `z` is positive, zero elsewhere, over the `m` values of a channel:
//!
//! - `d shift = sum dz`, `d gamma = sum dz (x - mean) / sqrt(variance + epsilon)`;
//! - `dx = scale * (dz - sum dz / m) - (x - mean) * scale * (sum dz (x - mean)) / ((variance + epsilon) m)`.
//!
//! Padding channels have `scale = shift = mean = 0`, so that all of them stay zero.

mod gradient;
mod moments;

pub use gradient::{GradientMoments, NormGradient};
pub use moments::Moments;

use super::blocked::{Block, Dims, LANES, blocks};
use super::error::{Result, check_len};
use super::simd::{Simd, load, store};

/// What a normalisation does to every channel: `(x - mean) * scale + shift`.
#[derive(Clone, Copy, Debug)]
pub struct Affine<'a> {
    /// The mean, a block per 16 channels.
    pub mean: &'a [Block],
    /// The factor.
    pub scale: &'a [Block],
    /// The addend.
    pub shift: &'a [Block],
}

impl Affine<'_> {
    pub(super) fn check(&self, channels: usize) -> Result<()> {
        check_len("normalisation mean", blocks(channels), self.mean.len())?;
        check_len("normalisation scale", blocks(channels), self.scale.len())?;
        check_len("normalisation shift", blocks(channels), self.shift.len())
    }

    /// Mean, scale and shift of the channels of a block from `lane` on.
    ///
    /// # Safety
    /// As [`load`].
    #[inline(always)]
    pub(super) unsafe fn lanes<S: Simd>(&self, block: usize, lane: usize) -> [S::V; 3] {
        // SAFETY: passes on the contract.
        [self.mean, self.scale, self.shift].map(|x| unsafe { load::<S>(&x[block], lane) })
    }
}

/// `x - mean` and `z`: the same operations in the same order wherever the sign of `z` matters.
///
/// # Safety
/// The processor has `S`.
#[inline(always)]
pub(super) unsafe fn normalised<S: Simd>(x: S::V, [mean, scale, shift]: [S::V; 3]) -> (S::V, S::V) {
    // SAFETY: passes on the contract.
    unsafe {
        let distance = S::sub(x, mean);
        (distance, S::mul_add(distance, scale, shift))
    }
}

/// Values per channel in `f64`.
type Sums = [f64; LANES];

/// Adds a vector to the sums from `lane` on.
///
/// # Safety
/// As [`load`].
#[inline(always)]
unsafe fn widen<S: Simd>(sums: &mut Sums, lane: usize, v: S::V) {
    let mut values = Block::ZERO;
    // SAFETY: passes on the contract.
    unsafe { store::<S>(&mut values, lane, v) };
    let values = &values.0[lane..lane + S::LANES];
    for (sum, &v) in sums[lane..].iter_mut().zip(values) {
        *sum += f64::from(v);
    }
}

/// Pixels whose sums are held in `f32`: few enough to lose no more than a value's last digit.
const RUN: usize = 128;

fn check_tensor(what: &'static str, dims: Dims, x: &[Block]) -> Result<()> {
    check_len(what, dims.block_len(what)?, x.len())
}
