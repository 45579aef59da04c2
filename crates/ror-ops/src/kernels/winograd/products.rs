//! The matrix products between the two transforms.

use super::super::blocked::LANES;
use super::super::gemm::{Product, Walk};
use super::super::simd::{Kernel, Simd};
use super::transform::distinct;

/// The products of all planes with one panel of weights.
pub(super) struct Products {
    /// Planes are T*T.
    pub t: usize,
    /// `[T*T planes][in_blocks][tiles][16]`.
    pub v: *const f32,
    /// Floats between planes of V.
    pub v_plane: usize,
    pub in_blocks: usize,
    /// In all rows together.
    pub tiles: usize,
    /// `[distinct planes][in_blocks * 16][width]`.
    pub weights: *const f32,
    /// Those of the panel that follows, to be fetched meanwhile.
    pub next: *const f32,
    /// Output channels in the panel.
    pub width: usize,
    /// `[T*T planes][width / 16][tiles][16]`.
    pub p: *mut f32,
    /// Floats between planes of P.
    pub p_plane: usize,
}

impl Kernel for Products {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let last = self.t - 1;
        let step = self.in_blocks * LANES * self.width;
        let mut weights = self.weights;
        for i in 0..self.t {
            for j in 0..self.t {
                let (plane, b) = (i * self.t + j, weights);
                weights = match (i, j) {
                    (i, j) if (i, j) == (last, last) => self.next,
                    (i, j) if j < last => self.weights_of(i, j + 1, step),
                    (i, _) => self.weights_of(i + 1, 0, step),
                };
                // SAFETY: V and P have the plane, the caller vouches for the rest.
                unsafe {
                    let product = Product {
                        walk: Walk::<LANES> {
                            a: self.v.add(plane * self.v_plane),
                            stride: self.tiles * LANES,
                            runs: self.in_blocks,
                            depth: LANES,
                        },
                        rows: self.tiles,
                        b,
                        next: weights,
                        width: self.width,
                        c: self.p.add(plane * self.p_plane),
                        c_stride: self.tiles * LANES,
                    };
                    product.run::<S>();
                }
            }
        }
    }
}

impl Products {
    /// The weights of plane `(i, j)`, which lie once where planes have the same.
    #[inline(always)]
    fn weights_of(&self, i: usize, j: usize, step: usize) -> *const f32 {
        let distinct = distinct(self.t);
        let (i, j) = (i.min(distinct - 1), j.min(distinct - 1));
        self.weights.wrapping_add((i * distinct + j) * step)
    }
}
