//! Weights to transformed, packed panels.

use super::super::blocked::LANES;
use super::super::geometry::Filters;
use super::super::simd::{Kernel, Simd};
use super::transform;

/// Transforms the filters of one panel: `G g G^T`, a vector of output channels at a time.
pub(super) struct PackPanel<'a, const T: usize> {
    pub filters: Filters<'a>,
    pub first: usize,
    /// `[distinct planes][k][width]`, zeros where there is no filter.
    pub out: &'a mut [f32],
    pub width: usize,
    pub k: usize,
}

impl<const T: usize> Kernel for PackPanel<'_, T> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let real = self.width.min(self.filters.outputs - self.first);
        for c in 0..self.filters.inputs {
            for lane in (0..real).step_by(S::LANES) {
                let mut taps = [[0.0; LANES]; 9];
                for o in lane..real.min(lane + S::LANES) {
                    for (tap, row) in taps.iter_mut().enumerate() {
                        row[o - lane] = self.filters.at(self.first + o, c, tap);
                    }
                }
                // SAFETY: `taps` has a vector of values in each row; `c < k` and `lane + S::LANES <= width`, so
                // every store lies in `out`.
                unsafe {
                    let mut half = [[S::splat(0.0); 3]; T];
                    for x in 0..3 {
                        let column = [0, 3, 6].map(|y| S::load(taps[y + x].as_ptr()));
                        for (half, v) in half.iter_mut().zip(transform::filter::<S, T>(column)) {
                            half[x] = v;
                        }
                    }
                    let rows = transform::distinct(T);
                    for (i, half) in half.into_iter().take(rows).enumerate() {
                        let row = transform::filter::<S, T>(half);
                        for (j, v) in row.into_iter().take(rows).enumerate() {
                            let at = ((i * rows + j) * self.k + c) * self.width + lane;
                            debug_assert!(at + S::LANES <= self.out.len());
                            S::store(self.out.as_mut_ptr().add(at), v);
                        }
                    }
                }
            }
        }
    }
}
