//! The blocked layout N, C/16, H, W, 16: every pixel's channels in blocks of 16, the last one padded with zeros.
//!
//! A [`Block`] is one pixel's 16 channels, a cache line. A tensor of `n` images, `c` channels, `h` x `w` pixels
//! is a slice of `n * blocks(c) * h * w` of them, and kernels vectorise over channels with no shuffle.

use super::error::{KernelError, Result, check_finite, check_len, product};

/// Channels in a [`Block`].
pub const LANES: usize = 16;

/// 16 consecutive channels of one pixel.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(C, align(64))]
pub struct Block(pub [f32; LANES]);

impl Block {
    /// Sixteen zeros.
    pub const ZERO: Self = Self([0.0; LANES]);
}

/// Blocks that `channels` need: `ceil(channels / 16)`.
pub const fn blocks(channels: usize) -> usize {
    channels.div_ceil(LANES)
}

/// Number of images, channels and pixels of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Dims {
    /// Images (N).
    pub n: usize,
    /// Channels (C).
    pub c: usize,
    /// Rows of pixels (H).
    pub h: usize,
    /// Pixels in a row (W).
    pub w: usize,
}

impl Dims {
    /// `n` images of `c` channels, `h` rows and `w` columns.
    pub fn new(n: usize, c: usize, h: usize, w: usize) -> Self {
        Self { n, c, h, w }
    }

    /// Blocks in the blocked layout.
    ///
    /// # Errors
    /// [`KernelError::Overflow`] if that many could never be addressed.
    pub fn block_len(&self, what: &'static str) -> Result<usize> {
        product(what, &[self.n, blocks(self.c), self.h, self.w])
    }

    /// Elements in the plain layout N, C, H, W.
    ///
    /// # Errors
    /// [`KernelError::Overflow`] if that many could never be addressed.
    pub fn plain_len(&self, what: &'static str) -> Result<usize> {
        product(what, &[self.n, self.c, self.h, self.w])
    }

    pub(super) fn pixels(&self) -> usize {
        self.h * self.w
    }
}

/// Values per channel as blocks, the last padded with zeros: a bias, a scale or a shift.
pub fn channel_blocks(values: &[f32]) -> Vec<Block> {
    values
        .chunks(LANES)
        .map(|chunk| {
            let mut block = Block::ZERO;
            block.0[..chunk.len()].copy_from_slice(chunk);
            block
        })
        .collect()
}

/// Converts N, C, H, W to the blocked layout.
///
/// # Errors
/// A slice whose length is not that of `dims`.
pub fn to_blocked(dims: Dims, src: &[f32], dst: &mut [Block]) -> Result<()> {
    check_len("plain tensor", dims.plain_len("plain tensor")?, src.len())?;
    check_len(
        "blocked tensor",
        dims.block_len("blocked tensor")?,
        dst.len(),
    )?;
    let pixels = dims.pixels();
    if src.is_empty() {
        return Ok(());
    }
    let images = src
        .chunks_exact(dims.c * pixels)
        .zip(dst.chunks_exact_mut(blocks(dims.c) * pixels));
    for (src, dst) in images {
        for (planes, dst) in src.chunks(LANES * pixels).zip(dst.chunks_exact_mut(pixels)) {
            interleave(planes, pixels, dst);
        }
    }
    Ok(())
}

/// One block of channels: up to 16 planes to blocks.
fn interleave(planes: &[f32], pixels: usize, dst: &mut [Block]) {
    // Eight cache lines of each plane at a time stay in the first-level cache while they are transposed.
    const RUN: usize = 128;
    for (run, dst) in dst.chunks_mut(RUN).enumerate() {
        if planes.len() < LANES * pixels {
            dst.fill(Block::ZERO);
        }
        for (lane, plane) in planes.chunks_exact(pixels).enumerate() {
            let plane = &plane[run * RUN..][..dst.len()];
            for (block, &value) in dst.iter_mut().zip(plane) {
                block.0[lane] = value;
            }
        }
    }
}

/// Converts the blocked layout to N, C, H, W.
///
/// # Errors
/// A slice whose length is not that of `dims`.
pub fn from_blocked(dims: Dims, src: &[Block], dst: &mut [f32]) -> Result<()> {
    check_len(
        "blocked tensor",
        dims.block_len("blocked tensor")?,
        src.len(),
    )?;
    check_len("plain tensor", dims.plain_len("plain tensor")?, dst.len())?;
    let pixels = dims.pixels();
    if dst.is_empty() {
        return Ok(());
    }
    let images = dst
        .chunks_exact_mut(dims.c * pixels)
        .zip(src.chunks_exact(blocks(dims.c) * pixels));
    for (dst, src) in images {
        for (planes, src) in dst.chunks_mut(LANES * pixels).zip(src.chunks_exact(pixels)) {
            for (lane, plane) in planes.chunks_exact_mut(pixels).enumerate() {
                for (value, block) in plane.iter_mut().zip(src) {
                    *value = block.0[lane];
                }
            }
        }
    }
    Ok(())
}

/// Checks the scale and shift per channel by which 8-bit pixels become values.
pub(super) fn check_affine(channels: usize, scale: &[f32], shift: &[f32]) -> Result<()> {
    check_len("scale", channels, scale.len())?;
    check_len("shift", channels, shift.len())?;
    check_finite("scale", scale)?;
    check_finite("shift", shift)
}

/// The values of blocks as a plain slice.
pub fn as_flat(blocks: &[Block]) -> &[f32] {
    // SAFETY: `Block` is `repr(C)` of an array of 16 floats, 64 bytes without padding, so the same memory is a
    // valid slice of 16 times as many floats.
    unsafe { std::slice::from_raw_parts(blocks.as_ptr().cast(), blocks.len() * LANES) }
}

/// The values of blocks as a plain slice that can be written.
pub fn as_flat_mut(blocks: &mut [Block]) -> &mut [f32] {
    // SAFETY: as for `as_flat`; the exclusive borrow passes on.
    unsafe { std::slice::from_raw_parts_mut(blocks.as_mut_ptr().cast(), blocks.len() * LANES) }
}

pub(super) fn shape_error(what: &'static str, why: impl Into<String>) -> KernelError {
    KernelError::Shape {
        what,
        why: why.into(),
    }
}
