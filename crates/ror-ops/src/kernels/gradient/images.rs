//! What a convolution of plain images sees: all taps of all channels of a pixel side by side.

use super::super::Geometry;
use super::super::blocked::{Block, Dims, LANES};

/// Gathers from one plain image `[C][H][W]`.
pub(super) struct PlainGather<'a> {
    pub geometry: Geometry,
    pub input: Dims,
    /// Pixels in a row of the output.
    pub width: usize,
    pub x: &'a [f32],
}

impl PlainGather<'_> {
    /// Brings `count` output pixels from `first` on to `[ceil(C kh kw / 16)][count][16]`; zeros outside the image.
    pub(super) fn run(&self, first: usize, count: usize, out: &mut [Block]) {
        let Geometry {
            kernel: (kh, kw),
            stride,
            padding,
            ..
        } = self.geometry;
        let (h, w) = (self.input.h, self.input.w);
        out.fill(Block::ZERO);
        for i in 0..count {
            let (oy, ox) = ((first + i) / self.width, (first + i) % self.width);
            // The columns of the kernel that lie in the image.
            let left = padding.saturating_sub(ox * stride).min(kw);
            let right = (w + padding).saturating_sub(ox * stride).min(kw);
            for ky in 0..kh {
                let y = (oy * stride + ky).wrapping_sub(padding);
                if y >= h || left >= right {
                    continue;
                }
                for c in 0..self.input.c {
                    let row = &self.x[(c * h + y) * w..][..w];
                    let values = &row[ox * stride + left - padding..][..right - left];
                    let k = (c * kh + ky) * kw + left;
                    for (j, &value) in values.iter().enumerate() {
                        out[(k + j) / LANES * count + i].0[(k + j) % LANES] = value;
                    }
                }
            }
        }
    }
}
