//! Pooling in the blocked layout.

use super::blocked::{Block, Dims, LANES, blocks, shape_error};
use super::error::{Result, check_len, product};
use super::simd::{Isa, Kernel, Simd};

/// A max pool: a square window, the same stride both ways, padding that never wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MaxPool {
    /// Rows and columns of the window.
    pub size: usize,
    /// Pixels from a window to the next.
    pub stride: usize,
    /// Pixels around the image, at most half the window.
    pub padding: usize,
}

impl MaxPool {
    /// The shape of the output; windows that do not fit are dropped.
    ///
    /// # Errors
    /// A window or stride of zero, more padding than half the window, an image smaller than the window.
    pub fn output(&self, input: Dims) -> Result<Dims> {
        let Self {
            size,
            stride,
            padding,
        } = *self;
        if size == 0 || stride == 0 || padding > size / 2 {
            return Err(shape_error("max pool", format!("{self:?} is no window")));
        }
        let side = |pixels: usize| {
            let padded = product("max pool", &[padding, 2])?.saturating_add(pixels);
            match padded.checked_sub(size) {
                Some(rest) if pixels > 0 => Ok(rest / stride + 1),
                _ => Err(shape_error(
                    "max pool",
                    format!("{padded} pixels for a window of {size}"),
                )),
            }
        };
        Ok(Dims {
            h: side(input.h)?,
            w: side(input.w)?,
            ..input
        })
    }

    /// Pools `x` of shape `input` into `out`. NaN wins.
    ///
    /// # Errors
    /// As [`Self::output`]; slices of another length.
    pub fn run(&self, isa: Isa, input: Dims, x: &[Block], out: &mut [Block]) -> Result<()> {
        let output = self.output(input)?;
        check_len(
            "max pool input",
            input.block_len("max pool input")?,
            x.len(),
        )?;
        check_len(
            "max pool output",
            output.block_len("max pool output")?,
            out.len(),
        )?;
        if out.is_empty() {
            return Ok(());
        }
        let planes = x
            .chunks_exact(input.pixels())
            .zip(out.chunks_exact_mut(output.pixels()));
        for (x, out) in planes {
            // SAFETY: one plane each, of the lengths that the shapes call for.
            unsafe {
                isa.dispatch(MaxPlane {
                    pool: *self,
                    input,
                    output,
                    x: x.as_ptr(),
                    out: out.as_mut_ptr(),
                })
            };
        }
        Ok(())
    }
}

/// One block of channels of one image.
struct MaxPlane {
    pool: MaxPool,
    input: Dims,
    output: Dims,
    x: *const Block,
    out: *mut Block,
}

impl Kernel for MaxPlane {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let MaxPool {
            size,
            stride,
            padding,
        } = self.pool;
        let window = |i: usize, pixels: usize| {
            let first = (i * stride).saturating_sub(padding);
            (first, (i * stride + size - padding).min(pixels))
        };
        for oy in 0..self.output.h {
            let (top, bottom) = window(oy, self.input.h);
            for ox in 0..self.output.w {
                let (left, right) = window(ox, self.input.w);
                let mut lane = 0;
                while lane < LANES {
                    // SAFETY: windows are clipped to the image and, padding being at most half, never empty.
                    unsafe {
                        let x = self.x.cast::<f32>().add(lane);
                        let mut max = S::splat(f32::NEG_INFINITY);
                        for y in top..bottom {
                            for column in left..right {
                                max = S::max_nan(
                                    max,
                                    S::load(x.add((y * self.input.w + column) * LANES)),
                                );
                            }
                        }
                        let out = self.out.add(oy * self.output.w + ox).cast::<f32>();
                        S::store(out.add(lane), max);
                    }
                    lane += S::LANES;
                }
            }
        }
    }
}

/// The mean of all pixels: `x` of shape `input` to `out` of `n * blocks(c)` blocks.
///
/// # Errors
/// Slices of another length; images without pixels.
pub fn global_average_pool(isa: Isa, input: Dims, x: &[Block], out: &mut [Block]) -> Result<()> {
    check_len(
        "average pool input",
        input.block_len("average pool input")?,
        x.len(),
    )?;
    check_len(
        "average pool output",
        product("average pool output", &[input.n, blocks(input.c)])?,
        out.len(),
    )?;
    if input.pixels() == 0 {
        return Err(shape_error(
            "average pool",
            "an image without pixels has no mean",
        ));
    }
    for (x, out) in x.chunks_exact(input.pixels()).zip(out) {
        // SAFETY: `x` is a slice of blocks, `out` one block.
        unsafe { isa.dispatch(Mean { x, out }) };
    }
    Ok(())
}

struct Mean<'a> {
    x: &'a [Block],
    out: &'a mut Block,
}

impl Kernel for Mean<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let mut lane = 0;
        while lane < LANES {
            // SAFETY: a block has 16 values.
            unsafe {
                let zero = S::splat(0.0);
                let mut sum = zero;
                for block in self.x {
                    sum = S::add(sum, S::load(block.0.as_ptr().add(lane)));
                }
                let mean = S::mul_add(sum, S::splat(1.0 / self.x.len() as f32), zero);
                S::store(self.out.0.as_mut_ptr().add(lane), mean);
            }
            lane += S::LANES;
        }
    }
}
