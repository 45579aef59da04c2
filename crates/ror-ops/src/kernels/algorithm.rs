//! The ways to compute a convolution, and which to take.

use super::blocked::{LANES, blocks};
use super::geometry::Geometry;
use super::simd::Isa;

/// A way to compute a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// F(4x4, 3x3): a quarter of the multiplications, weights four times as large. With stride 2, 9/16 of the
    /// multiplications.
    Winograd4,
    /// F(2x2, 3x3): 4/9 of the multiplications, weights 16/9 times as large.
    Winograd2,
    /// A matrix product over gathered pixels; any shape.
    Direct,
}

impl Algorithm {
    /// The ways in which a shape can be computed.
    pub fn applicable(geometry: &Geometry) -> &'static [Self] {
        match geometry.winograd_stride() {
            Some(1) => &[Self::Winograd4, Self::Winograd2, Self::Direct],
            Some(2) => &[Self::Winograd4, Self::Direct],
            _ => &[Self::Direct],
        }
    }

    /// The fastest way by estimate, for `images` at a time of `h` rows and `w` columns.
    pub fn choose(isa: Isa, geometry: &Geometry, images: usize, h: usize, w: usize) -> Self {
        let per_cycle = isa.multiply_adds_per_cycle() as f64;
        let cost = |algorithm: &Self| algorithm.cost(per_cycle, geometry, images, h, w);
        let all = Self::applicable(geometry).iter();
        all.min_by(|a, b| cost(a).total_cmp(&cost(b)))
            .copied()
            .unwrap_or(Self::Direct)
    }

    /// Bytes that weights of that shape take once they are transformed and packed; `usize::MAX` if more than can be
    /// counted.
    pub fn packed_bytes(self, geometry: &Geometry) -> usize {
        let planes = match self {
            Self::Winograd4 => 36,
            Self::Winograd2 => 16,
            Self::Direct => geometry.kernel.0.saturating_mul(geometry.kernel.1),
        };
        let block = LANES * LANES * size_of::<f32>();
        [blocks(geometry.inputs), blocks(geometry.outputs), block]
            .into_iter()
            .fold(planes, usize::saturating_mul)
    }

    /// Cycles of one core, roughly: products at so many multiply-adds a cycle, or as long as their weights take to
    /// stream from the last-level cache or memory, and the transforms.
    fn cost(
        self,
        multiply_adds: f64,
        geometry: &Geometry,
        images: usize,
        h: usize,
        w: usize,
    ) -> f64 {
        let (i, o) = (
            blocks(geometry.inputs) as f64 * 16.0,
            blocks(geometry.outputs) as f64 * 16.0,
        );
        let stride = geometry.stride.max(1);
        let (h, w) = (h.div_ceil(stride), w.div_ceil(stride));
        let tiles = |m: usize| (h.div_ceil(m) * w.div_ceil(m) * images) as f64;
        let taps = (geometry.kernel.0 * geometry.kernel.1) as f64;
        let (rows, products, transforms) = match self {
            Self::Winograd4 if stride == 2 => (tiles(4), 81.0, 12.0),
            Self::Winograd4 => (tiles(4), 36.0, 6.0),
            Self::Winograd2 => (tiles(2), 16.0, 2.5),
            Self::Direct => (tiles(1), taps, taps / 16.0),
        };
        let bytes = self.packed_bytes(geometry) as f64;
        let per_cycle = if bytes < 4e6 { 12.0 } else { 8.0 };
        (rows * products * i * o / multiply_adds).max(bytes / per_cycle)
            + rows * (i + o) * transforms
    }
}
