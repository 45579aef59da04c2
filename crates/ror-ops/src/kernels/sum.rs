//! Sums of tensors, each scaled, shifted and rectified as it is read, and the rectifier's gradient.

use super::blocked::{Block, Dims, LANES, blocks, shape_error};
use super::error::{Result, check_len};
use super::norm::{Affine, normalised};
use super::simd::{Isa, Kernel, Simd};

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
                    match (i == 0 && !self.accumulate, relu) {
                        (true, true) => add::<true, true>(addend, block, x, out),
                        (true, false) => add::<true, false>(addend, block, x, out),
                        (false, true) => add::<false, true>(addend, block, x, out),
                        (false, false) => add::<false, false>(addend, block, x, out),
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn add<const SET: bool, const RELU: bool>(
    addend: &Addend<'_>,
    block: usize,
    x: &[Block],
    out: &mut [Block],
) {
    let finish = |out: &mut f32, v: f32| {
        let v = if SET { v } else { *out + v };
        // A comparison and not `max`, which would hide a NaN.
        *out = if RELU && v < 0.0 { 0.0 } else { v };
    };
    match addend.affine {
        Some(affine) => {
            let [mean, mut scale, mut shift] = affine.block(block);
            for l in 0..LANES {
                scale[l] *= addend.factor;
                shift[l] *= addend.factor;
            }
            for (x, out) in x.iter().zip(out) {
                for l in 0..LANES {
                    finish(
                        &mut out.0[l],
                        normalised(x.0[l], mean[l], scale[l], shift[l]),
                    );
                }
            }
        }
        None if addend.factor == 1.0 => {
            for (x, out) in x.iter().zip(out) {
                for l in 0..LANES {
                    finish(&mut out.0[l], x.0[l]);
                }
            }
        }
        None => {
            for (x, out) in x.iter().zip(out) {
                for l in 0..LANES {
                    finish(&mut out.0[l], x.0[l] * addend.factor);
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
            for l in 0..LANES {
                gradient.0[l] = if y.0[l] > 0.0 { gradient.0[l] } else { 0.0 };
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
                let mut sum = [[0f32; LANES]; 4];
                for (i, x) in run.iter().enumerate() {
                    for l in 0..LANES {
                        sum[i % 4][l] += x.0[l];
                    }
                }
                for sum in sum {
                    for l in 0..LANES {
                        self.sums[block][l] += f64::from(sum[l]);
                    }
                }
            }
        }
    }
}
