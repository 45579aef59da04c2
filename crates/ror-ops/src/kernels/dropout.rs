//! Dropout with a mask of one bit per value.

use super::blocked::{Block, Dims, LANES, blocks};
use super::error::{Result, check_len};
use super::simd::{Isa, Kernel, Simd};

/// Which values dropout keeps: a bit per lane of a block.
pub type Kept = u16;

/// The mask, in the blocked layout, of values N, C, H, W that are zero where dropout drops.
///
/// # Errors
/// Slices of another length than `dims` calls for.
pub fn kept(dims: Dims, mask: &[f32], out: &mut [Kept]) -> Result<()> {
    check_len("dropout mask", dims.plain_len("dropout mask")?, mask.len())?;
    check_len("dropout bits", dims.block_len("dropout bits")?, out.len())?;
    out.fill(0);
    let pixels = dims.pixels();
    if mask.is_empty() {
        return Ok(());
    }
    for (plane, values) in mask.chunks_exact(pixels).enumerate() {
        let (image, c) = (plane / dims.c, plane % dims.c);
        let at = (image * blocks(dims.c) + c / LANES) * pixels;
        for (bits, &value) in out[at..at + pixels].iter_mut().zip(values) {
            *bits |= Kept::from(value != 0.0) << (c % LANES);
        }
    }
    Ok(())
}

/// Multiplies what is kept by `factor`, and sets the rest to zero.
///
/// # Errors
/// Slices of different lengths.
pub fn dropout(isa: Isa, kept: &[Kept], factor: f32, x: &mut [Block]) -> Result<()> {
    check_len("dropout bits", x.len(), kept.len())?;
    // SAFETY: the kernel works on slices.
    unsafe { isa.dispatch(Apply { kept, factor, x }) };
    Ok(())
}

struct Apply<'a> {
    kept: &'a [Kept],
    factor: f32,
    x: &'a mut [Block],
}

impl Kernel for Apply<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for (x, &kept) in self.x.iter_mut().zip(self.kept) {
            for l in 0..LANES {
                let keep = kept >> l & 1 != 0;
                x.0[l] = if keep { x.0[l] * self.factor } else { 0.0 };
            }
        }
    }
}
