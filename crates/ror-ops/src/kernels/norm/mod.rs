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

    /// The constants of one block of channels.
    #[inline(always)]
    pub(super) fn block(&self, i: usize) -> [[f32; LANES]; 3] {
        [self.mean[i].0, self.scale[i].0, self.shift[i].0]
    }
}

/// One value: the same operations in the same order wherever the sign of `z` matters.
#[inline(always)]
pub(super) fn normalised(x: f32, mean: f32, scale: f32, shift: f32) -> f32 {
    (x - mean) * scale + shift
}

/// Values per channel in `f64`.
type Sums = [f64; LANES];

#[inline(always)]
fn widen(sums: &mut Sums, run: &[f32; LANES]) {
    for (sum, &run) in sums.iter_mut().zip(run) {
        *sum += f64::from(run);
    }
}

/// Pixels whose sums are held in `f32`: few enough to lose no more than a value's last digit.
const RUN: usize = 128;

fn check_tensor(what: &'static str, dims: Dims, x: &[Block]) -> Result<()> {
    check_len(what, dims.block_len(what)?, x.len())
}
