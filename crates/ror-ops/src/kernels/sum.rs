//! Sums of tensors, each scaled, shifted and rectified as it is read, and the rectifier's gradient.

use super::blocked::{Block, Dims, LANES, blocks, shape_error};
use super::error::{Result, check_len};
use super::norm::{Affine, normalised};
use super::simd::{Isa, Kernel, Simd, load, store};

/// A tensor that is added.
#[derive(Clone, Copy, Debug)]
pub struct Addend<'a> {
    /// The tensor.
    pub x: &'a [Block],
    /// Its normalisation, if any.
    pub affine: Option<Affine<'a>>,
    /// A factor for the (normalised) tensor.
    pub factor: f32,
}

impl<'a> Addend<'a> {
    /// The tensor as it is.
    pub fn plain(x: &'a [Block]) -> Self {
        Self {
            x,
            affine: None,
            factor: 1.0,
        }
    }
}

/// `out = relu(sum of addends)`, the rectifier only if `relu`; a NaN stays a NaN. With `accumulate` what `out` holds is
/// one more addend.
///
/// # Errors
/// No addend at all; slices of another length than `dims` calls for.
pub fn sum(
    isa: Isa,
    dims: Dims,
    addends: &[Addend<'_>],
    accumulate: bool,
    relu: bool,
    out: &mut [Block],
) -> Result<()> {
    let len = dims.block_len("sum")?;
    check_len("sum", len, out.len())?;
    for addend in addends {
        check_len("addend", len, addend.x.len())?;
        if let Some(affine) = &addend.affine {
            affine.check(dims.c)?;
        }
    }
    if addends.is_empty() && !accumulate {
        return Err(shape_error("sum", "there is nothing to add"));
    }
    if out.is_empty() {
        return Ok(());
    }
    // SAFETY: the kernel works on slices.
    unsafe {
        isa.dispatch(SumPlanes {
            addends,
            accumulate,
            relu,
            out,
            pixels: dims.pixels(),
            blocks: blocks(dims.c),
        });
    }
    Ok(())
}

struct SumPlanes<'a> {
    addends: &'a [Addend<'a>],
    accumulate: bool,
    relu: bool,
    out: &'a mut [Block],
    pixels: usize,
    blocks: usize,
}

/// Pixels that stay in the first-level cache from one addend to the next.
const RUN: usize = 64;

impl Kernel for SumPlanes<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Some(last) = self.addends.len().checked_sub(1) else {
            if self.relu {
                for v in self.out.iter_mut().flat_map(|block| &mut block.0) {
                    *v = if *v < 0.0 { 0.0 } else { *v };
                }
            }
            return;
        };
        for (plane, out) in self.out.chunks_exact_mut(self.pixels).enumerate() {
            let block = plane % self.blocks;
            for (run, out) in out.chunks_mut(RUN).enumerate() {
                let at = plane * self.pixels + run * RUN;
                for (i, addend) in self.addends.iter().enumerate() {
                    let x = &addend.x[at..at + out.len()];
                    let relu = self.relu && i == last;
                    for lane in (0..LANES).step_by(S::LANES) {
                        // SAFETY: `lane` is a whole number of vectors.
                        unsafe {
                            match (i == 0 && !self.accumulate, relu) {
                                (true, true) => add::<S, true, true>(addend, block, lane, x, out),
                                (true, false) => add::<S, true, false>(addend, block, lane, x, out),
                                (false, true) => add::<S, false, true>(addend, block, lane, x, out),
                                (false, false) => {
                                    add::<S, false, false>(addend, block, lane, x, out);
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// # Safety
/// As [`load`].
#[inline(always)]
unsafe fn add<S: Simd, const SET: bool, const RELU: bool>(
    addend: &Addend<'_>,
    block: usize,
    lane: usize,
    x: &[Block],
    out: &mut [Block],
) {
    // SAFETY: passes on the contract.
    unsafe {
        let zero = S::splat(0.0);
        let finish = |out: &mut Block, mut v: S::V| {
            if !SET {
                v = S::add(load::<S>(out, lane), v);
            }
            if RELU {
                v = S::max(zero, v);
            }
            store::<S>(out, lane, v);
        };
        let factor = S::splat(addend.factor);
        match addend.affine {
            Some(affine) => {
                let mut affine = affine.lanes::<S>(block, lane);
                affine[1] = S::mul_add(affine[1], factor, zero);
                affine[2] = S::mul_add(affine[2], factor, zero);
                for (x, out) in x.iter().zip(out) {
                    finish(out, normalised::<S>(load::<S>(x, lane), affine).1);
                }
            }
            None => {
                for (x, out) in x.iter().zip(out) {
                    finish(out, S::mul_add(load::<S>(x, lane), factor, zero));
                }
            }
        }
    }
}

/// Sets `gradient` to zero where the rectifier's result `y` is not positive.
///
/// # Errors
/// Slices of different lengths.
pub fn relu_gradient(isa: Isa, y: &[Block], gradient: &mut [Block]) -> Result<()> {
    check_len("rectifier's gradient", y.len(), gradient.len())?;
    // SAFETY: the kernel works on slices.
    unsafe { isa.dispatch(Rectify { y, gradient }) };
    Ok(())
}

struct Rectify<'a> {
    y: &'a [Block],
    gradient: &'a mut [Block],
}

impl Kernel for Rectify<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for (y, gradient) in self.y.iter().zip(self.gradient) {
            for lane in (0..LANES).step_by(S::LANES) {
                // SAFETY: `lane` is a whole number of vectors.
                unsafe {
                    let v = S::where_positive(load::<S>(y, lane), load::<S>(gradient, lane));
                    store::<S>(gradient, lane, v);
                }
            }
        }
    }
}

/// Adds the values of every channel to `sums`, a block's worth per 16 channels: the gradient of a bias.
///
/// # Errors
/// Slices of another length than `dims` calls for.
pub fn channel_sums(isa: Isa, dims: Dims, x: &[Block], sums: &mut [[f64; LANES]]) -> Result<()> {
    check_len("channel sums", dims.block_len("channel sums")?, x.len())?;
    check_len("channel sums", blocks(dims.c), sums.len())?;
    if x.is_empty() {
        return Ok(());
    }
    // SAFETY: the kernel works on slices.
    unsafe {
        isa.dispatch(ChannelSums {
            x,
            sums,
            pixels: dims.pixels(),
        });
    }
    Ok(())
}

struct ChannelSums<'a> {
    x: &'a [Block],
    sums: &'a mut [[f64; LANES]],
    pixels: usize,
}

impl Kernel for ChannelSums<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for (plane, x) in self.x.chunks_exact(self.pixels).enumerate() {
            let block = plane % self.sums.len();
            for run in x.chunks(RUN) {
                for lane in (0..LANES).step_by(S::LANES) {
                    let mut total = Block::ZERO;
                    // SAFETY: `lane` is a whole number of vectors.
                    unsafe {
                        let mut sum = [S::splat(0.0); 4];
                        let (quads, rest) = run.as_chunks::<4>();
                        for quad in quads {
                            for i in 0..4 {
                                sum[i] = S::add(sum[i], load::<S>(&quad[i], lane));
                            }
                        }
                        for x in rest {
                            sum[0] = S::add(sum[0], load::<S>(x, lane));
                        }
                        let sum = S::add(S::add(sum[0], sum[1]), S::add(sum[2], sum[3]));
                        store::<S>(&mut total, lane, sum);
                    }
                    let total = &total.0[lane..lane + S::LANES];
                    for (sum, &v) in self.sums[block][lane..].iter_mut().zip(total) {
                        *sum += f64::from(v);
                    }
                }
            }
        }
    }
}
