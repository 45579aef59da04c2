//! Mean and variance of every channel.

use super::super::blocked::{Block, Dims, LANES, blocks};
use super::super::error::{Result, check_len};
use super::super::simd::{Isa, Kernel, Simd, load};
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
            for run in x.chunks(RUN) {
                for lane in (0..LANES).step_by(S::LANES) {
                    // SAFETY: `lane` is a whole number of vectors.
                    unsafe {
                        let zero = S::splat(0.0);
                        let origin = load::<S>(&self.origin[block], lane);
                        // Four sums side by side, so that additions need not wait for each other.
                        let (mut sum, mut square) = ([zero; 4], [zero; 4]);
                        let (quads, rest) = run.as_chunks::<4>();
                        for quad in quads {
                            for i in 0..4 {
                                let d = S::sub(load::<S>(&quad[i], lane), origin);
                                sum[i] = S::add(sum[i], d);
                                square[i] = S::mul_add(d, d, square[i]);
                            }
                        }
                        for x in rest {
                            let d = S::sub(load::<S>(x, lane), origin);
                            sum[0] = S::add(sum[0], d);
                            square[0] = S::mul_add(d, d, square[0]);
                        }
                        let total = |v: [S::V; 4]| S::add(S::add(v[0], v[1]), S::add(v[2], v[3]));
                        widen::<S>(&mut self.sum[block], lane, total(sum));
                        widen::<S>(&mut self.square[block], lane, total(square));
                    }
                }
            }
        }
    }
}
