//! The matrix products between the two transforms.

use super::super::blocked::LANES;
use super::super::gemm::{Product, Walk};
use super::super::simd::{Kernel, Simd};
use super::transform::distinct;

/// The products of all planes with one panel of weights.
pub(super) struct Products<const T: usize> {
    /// `[T*T planes][in_blocks][tiles][16]`.
    pub v: *const f32,
    /// Floats between planes of V.
    pub v_plane: usize,
    pub in_blocks: usize,
    pub tiles: usize,
    /// `[distinct planes][in_blocks * 16][width]`.
    pub weights: *const f32,
    /// The panel that follows.
    pub next: *const f32,
    /// Output channels in the panel.
    pub width: usize,
    /// `[T*T planes][width / 16][tiles][16]`.
    pub p: *mut f32,
    /// Floats between planes of P.
    pub p_plane: usize,
}

impl<const T: usize> Kernel for Products<T> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let plane_len = self.in_blocks * LANES * self.width;
        let weights = |plane| self.weights.wrapping_add(weights_of(plane, T) * plane_len);
        for plane in 0..T * T {
            let last = plane + 1 == T * T;
            // SAFETY: passes on the contract.
            unsafe {
                let product = Product {
                    walk: Walk::<LANES> {
                        a: self.v.add(plane * self.v_plane),
                        stride: self.tiles * LANES,
                        runs: self.in_blocks,
                        depth: LANES,
                    },
                    rows: self.tiles,
                    b: weights(plane),
                    next: if last { self.next } else { weights(plane + 1) },
                    finish: None,
                    width: self.width,
                    c: self.p.add(plane * self.p_plane),
                    c_stride: self.tiles * LANES,
                };
                product.run::<S>();
            }
        }
    }
}

/// Where a plane's weights lie among the distinct ones.
const fn weights_of(plane: usize, t: usize) -> usize {
    let last = distinct(t) - 1;
    let (i, j) = (plane / t, plane % t);
    let (i, j) = (
        if i < last { i } else { last },
        if j < last { j } else { last },
    );
    i * (last + 1) + j
}
