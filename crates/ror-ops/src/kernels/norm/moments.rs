//! Mean and variance of every channel.

use super::super::blocked::{Block, Dims, LANES, blocks};
use super::super::error::{Result, check_len};
use super::super::simd::{Isa, Kernel, Simd};
use super::{RUN, Sums, check_tensor, widen};

/// Sums over the values of every channel, relative to the first value seen, so that a mean far from zero costs no
/// digits.
#[derive(Clone, Debug)]
pub struct Moments {
    channels: usize,
    /// How many values of each channel there were.
    count: u64,
    origin: Vec<Block>,
    sum: Vec<Sums>,
    square: Vec<Sums>,
}

impl Moments {
    /// Of no values.
    pub fn new(channels: usize) -> Self {
        let blocks = blocks(channels);
        Self {
            channels,
            count: 0,
            origin: vec![Block::ZERO; blocks],
            sum: vec![[0.0; LANES]; blocks],
            square: vec![[0.0; LANES]; blocks],
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.count = 0;
        self.sum.fill([0.0; LANES]);
        self.square.fill([0.0; LANES]);
    }

    /// Takes in a tensor of the same number of channels.
    ///
    /// # Errors
    /// Another number of channels; a slice of another length than `dims` calls for.
    pub fn add(&mut self, isa: Isa, dims: Dims, x: &[Block]) -> Result<()> {
        check_len("channels", self.channels, dims.c)?;
        check_tensor("normalisation input", dims, x)?;
        if x.is_empty() {
            return Ok(());
        }
        let pixels = dims.pixels();
        if self.count == 0 {
            for (origin, plane) in self.origin.iter_mut().zip(x.chunks_exact(pixels)) {
                *origin = plane[0];
            }
        }
        self.count += (dims.n * pixels) as u64;
        // SAFETY: the kernel works on slices.
        unsafe {
            isa.dispatch(Add {
                x,
                pixels,
                origin: &self.origin,
                sum: &mut self.sum,
                square: &mut self.square,
            });
        }
        Ok(())
    }

    /// Mean and (biased) variance of every channel over all parts, in their order. Of no values both are zero.
    ///
    /// # Errors
    /// Parts of different numbers of channels.
    pub fn total(parts: &[&Self]) -> Result<Vec<(f64, f64)>> {
        let channels = parts.first().map_or(0, |p| p.channels);
        for part in parts {
            check_len("channels", channels, part.channels)?;
        }
        Ok((0..channels).map(|c| total(parts, c)).collect())
    }

    /// How many values each channel has had.
    pub fn count(&self) -> u64 {
        self.count
    }
}

/// Chan, Golub & LeVeque, *Updating formulae and a pairwise algorithm for computing sample variances*.
fn total(parts: &[&Moments], c: usize) -> (f64, f64) {
    let (block, lane) = (c / LANES, c % LANES);
    let (mut count, mut mean, mut squares) = (0.0, 0.0, 0.0);
    for part in parts.iter().filter(|part| part.count > 0) {
        let n = part.count as f64;
        let (sum, square) = (part.sum[block][lane], part.square[block][lane]);
        let (own_mean, own_squares) = (
            f64::from(part.origin[block].0[lane]) + sum / n,
            // A NaN must stay one, which `max` would hide.
            match square - sum * sum / n {
                negative if negative < 0.0 => 0.0,
                squares => squares,
            },
        );
        let both = count + n;
        let distance = own_mean - mean;
        mean += distance * n / both;
        squares += own_squares + distance * distance * count * n / both;
        count = both;
    }
    (mean, if count > 0.0 { squares / count } else { 0.0 })
}

struct Add<'a> {
    x: &'a [Block],
    pixels: usize,
    origin: &'a [Block],
    sum: &'a mut [Sums],
    square: &'a mut [Sums],
}

impl Kernel for Add<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for (plane, x) in self.x.chunks_exact(self.pixels).enumerate() {
            let block = plane % self.origin.len();
            let origin = self.origin[block].0;
            for run in x.chunks(RUN) {
                // Four sums side by side, so that additions need not wait for each other.
                let mut sum = [[0f32; LANES]; 4];
                let mut square = [[0f32; LANES]; 4];
                let mut quads = run.chunks_exact(4);
                for quad in &mut quads {
                    for i in 0..4 {
                        for l in 0..LANES {
                            let d = quad[i].0[l] - origin[l];
                            sum[i][l] += d;
                            square[i][l] += d * d;
                        }
                    }
                }
                for x in quads.remainder() {
                    for l in 0..LANES {
                        let d = x.0[l] - origin[l];
                        sum[0][l] += d;
                        square[0][l] += d * d;
                    }
                }
                for i in 0..4 {
                    widen(&mut self.sum[block], &sum[i]);
                    widen(&mut self.square[block], &square[i]);
                }
            }
        }
    }
}
