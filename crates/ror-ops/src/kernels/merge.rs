//! Sums, activations and shortcuts that no convolution could take into its epilogue.

use super::blocked::{Block, Dims, blocks, shape_error};
use super::direct::Finish;
use super::epilogue::{Epilogue, Fused, Output};
use super::error::{Result, check_len};
use super::simd::Isa;

/// Applies `fused` to a tensor as if a convolution had just produced it, with bias `bias`.
///
/// # Errors
/// Slices of another length than `dims` calls for; a pool among the fused operations.
pub fn merge(
    isa: Isa,
    dims: Dims,
    x: &[Block],
    bias: &[Block],
    fused: &Fused<'_>,
    mut output: Output<'_>,
) -> Result<()> {
    check_len("merge input", dims.block_len("merge input")?, x.len())?;
    if fused.pool {
        return Err(shape_error("merge", "cannot pool its output"));
    }
    let epilogue = Epilogue::new(dims, bias, fused, &mut output)?;
    if x.is_empty() {
        return Ok(());
    }
    let pixels = dims.pixels();
    for (plane, x) in x.chunks_exact(pixels).enumerate() {
        // SAFETY: the plane is one block of channels of one image, and the output has the same shape.
        unsafe {
            isa.dispatch(Finish {
                epilogue: &epilogue,
                c: x.as_ptr().cast(),
                c_stride: 0,
                image: plane / blocks(dims.c),
                block: plane % blocks(dims.c),
                width: super::LANES,
                first: 0,
                count: pixels,
            });
        }
    }
    Ok(())
}

/// The identity shortcut where shapes differ: every `stride`-th pixel, missing channels zero.
///
/// `out` has `n` images of `channels` channels and `ceil(h / stride)` by `ceil(w / stride)` pixels.
///
/// # Errors
/// A stride of zero; fewer channels than `input` has; slices of another length.
pub fn pad_shortcut(
    input: Dims,
    stride: usize,
    channels: usize,
    x: &[Block],
    out: &mut [Block],
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
        "shortcut input",
        input.block_len("shortcut input")?,
        x.len(),
    )?;
    check_len(
        "shortcut output",
        output.block_len("shortcut output")?,
        out.len(),
    )?;
    if out.is_empty() {
        return Ok(());
    }
    let (from, to) = (blocks(input.c), blocks(channels));
    for (plane, out) in out.chunks_exact_mut(output.pixels()).enumerate() {
        let (image, block) = (plane / to, plane % to);
        if block >= from {
            out.fill(Block::ZERO);
            continue;
        }
        let x = &x[(image * from + block) * input.pixels()..][..input.pixels()];
        let rows = x.chunks_exact(input.w).step_by(stride);
        for (row, out) in rows.zip(out.chunks_exact_mut(output.w)) {
            for (pixel, out) in row.iter().step_by(stride).zip(out) {
                *out = *pixel;
            }
        }
    }
    Ok(())
}
