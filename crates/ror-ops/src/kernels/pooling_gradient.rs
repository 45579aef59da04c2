//! Gradients of pools and of the parameter-free shortcut.

use super::blocked::{Block, Dims, LANES, blocks, shape_error};
use super::error::{Result, check_len, product};
use super::pooling::MaxPool;
use super::simd::{Isa, Kernel, Simd};

impl MaxPool {
    /// Sets `dx` to the gradient of the pool's input `x`: all of an output's gradient goes to the first of its window's
    /// maxima, row by row; a NaN counts as one.
    ///
    /// # Errors
    /// As [`MaxPool::run`].
    pub fn gradient(
        &self,
        isa: Isa,
        input: Dims,
        x: &[Block],
        dy: &[Block],
        dx: &mut [Block],
    ) -> Result<()> {
        let output = self.output(input)?;
        let len = input.block_len("max pool input")?;
        check_len("max pool input", len, x.len())?;
        check_len("max pool input gradient", len, dx.len())?;
        check_len(
            "max pool output gradient",
            output.block_len("max pool output")?,
            dy.len(),
        )?;
        if x.is_empty() {
            return Ok(());
        }
        // SAFETY: the kernel works on slices.
        unsafe {
            isa.dispatch(MaxGradient {
                pool: *self,
                input,
                output,
                x,
                dy,
                dx,
            });
        }
        Ok(())
    }
}

struct MaxGradient<'a> {
    pool: MaxPool,
    input: Dims,
    output: Dims,
    x: &'a [Block],
    dy: &'a [Block],
    dx: &'a mut [Block],
}

impl Kernel for MaxGradient<'_> {
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
        self.dx.fill(Block::ZERO);
        let width = self.input.w;
        let planes = self
            .x
            .chunks_exact(self.input.pixels())
            .zip(self.dx.chunks_exact_mut(self.input.pixels()))
            .zip(self.dy.chunks_exact(self.output.pixels().max(1)));
        for ((x, dx), dy) in planes {
            for oy in 0..self.output.h {
                let (top, bottom) = window(oy, self.input.h);
                for ox in 0..self.output.w {
                    let (left, right) = window(ox, self.input.w);
                    let mut best = x[top * width + left].0;
                    let mut at = [0u32; LANES];
                    let mut position = 0;
                    for y in top..bottom {
                        for x in &x[y * width + left..y * width + right] {
                            for l in 0..LANES {
                                let (value, old) = (x.0[l], best[l]);
                                let wins = value > old || (value.is_nan() && !old.is_nan());
                                best[l] = if wins { value } else { old };
                                at[l] = if wins { position } else { at[l] };
                            }
                            position += 1;
                        }
                    }
                    let dy = &dy[oy * self.output.w + ox].0;
                    let mut position = 0;
                    for y in top..bottom {
                        for dx in &mut dx[y * width + left..y * width + right] {
                            for l in 0..LANES {
                                dx.0[l] += if at[l] == position { dy[l] } else { 0.0 };
                            }
                            position += 1;
                        }
                    }
                }
            }
        }
    }
}

/// The gradient of the mean over all pixels: every pixel of `dx`, of shape `input`, gets its share of `dy`'s
/// `n * blocks(c)` blocks.
///
/// # Errors
/// Slices of another length.
pub fn global_average_pool_gradient(input: Dims, dy: &[Block], dx: &mut [Block]) -> Result<()> {
    let len = product("average pool gradient", &[input.n, blocks(input.c)])?;
    check_len("average pool output gradient", len, dy.len())?;
    check_len(
        "average pool input gradient",
        input.block_len("average pool input")?,
        dx.len(),
    )?;
    if dx.is_empty() {
        return Ok(());
    }
    let share = 1.0 / input.pixels() as f32;
    for (dx, dy) in dx.chunks_exact_mut(input.pixels()).zip(dy) {
        dx.fill(Block(dy.0.map(|v| v * share)));
    }
    Ok(())
}

/// Adds the gradient of [`pad_shortcut`](super::pad_shortcut)'s input to `dx`, of shape `input`.
///
/// # Errors
/// As [`pad_shortcut`](super::pad_shortcut).
pub fn pad_shortcut_gradient(
    input: Dims,
    stride: usize,
    channels: usize,
    dy: &[Block],
    dx: &mut [Block],
) -> Result<()> {
    if stride == 0 || channels < input.c {
        return Err(shape_error(
            "shortcut",
            format!("stride {stride} and {channels} channels from {}", input.c),
        ));
    }
    let output = Dims {
        c: channels,
        h: input.h.div_ceil(stride),
        w: input.w.div_ceil(stride),
        ..input
    };
    check_len(
        "shortcut gradient",
        output.block_len("shortcut gradient")?,
        dy.len(),
    )?;
    check_len(
        "shortcut gradient",
        input.block_len("shortcut gradient")?,
        dx.len(),
    )?;
    if dx.is_empty() {
        return Ok(());
    }
    let (from, to) = (blocks(input.c), blocks(channels));
    // Channels that share the last block with the input's are the shortcut's zeros.
    let real = |block: usize| (input.c - block * LANES).min(LANES);
    for (plane, dx) in dx.chunks_exact_mut(input.pixels()).enumerate() {
        let (image, block) = (plane / from, plane % from);
        let dy = &dy[(image * to + block) * output.pixels()..][..output.pixels()];
        let rows = dx.chunks_exact_mut(input.w).step_by(stride);
        for (dx, dy) in rows.zip(dy.chunks_exact(output.w)) {
            for (dx, dy) in dx.iter_mut().step_by(stride).zip(dy) {
                for (dx, dy) in dx.0[..real(block)].iter_mut().zip(dy.0) {
                    *dx += dy;
                }
            }
        }
    }
    Ok(())
}
