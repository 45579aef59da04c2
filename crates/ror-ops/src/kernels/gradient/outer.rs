//! The matrix product under every weight gradient: `C[i][o] (+)= sum over k of A[k][i] * B[k][o]`.
//!
//! `i` runs over input channels (and taps), `o` over output channels, `k` over tiles or pixels. A and B lie in
//! blocks of 16 channels, `[block][k][16]`, as the transforms and the blocked layout leave them; C is row by row.

use super::super::blocked::LANES;
use super::super::simd::{Kernel, Simd};

/// One product.
pub(in super::super) struct Outer {
    /// Block 0 of A.
    pub a: *const f32,
    /// Floats from a block to the next.
    pub a_stride: usize,
    pub a_blocks: usize,
    /// Block 0 of B.
    pub b: *const f32,
    pub b_stride: usize,
    pub b_blocks: usize,
    /// How many `k` there are.
    pub depth: usize,
    /// `[a_blocks * 16][b_blocks * 16]`.
    pub c: *mut f32,
    /// Whether C is added to, or set.
    pub accumulate: bool,
}

impl Kernel for Outer {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // Blocks of B that two vectors cover.
        let pair = (2 * S::LANES).div_ceil(LANES);
        let mut b = 0;
        while b < self.b_blocks {
            // SAFETY: passes on the contract; the blocks from `b` on exist.
            unsafe {
                if self.b_blocks - b >= pair {
                    self.column::<S, 2>(b);
                    b += pair;
                } else {
                    self.column::<S, 1>(b);
                    b += 1;
                }
            }
        }
    }
}

impl Outer {
    /// All rows of `NV` vectors of columns.
    #[inline(always)]
    unsafe fn column<S: Simd, const NV: usize>(&self, b: usize) {
        let groups = LANES.div_ceil(S::MAX_ROWS);
        for a in 0..self.a_blocks {
            let mut row = 0;
            for group in 0..groups {
                let rows = (LANES - row).div_ceil(groups - group);
                macro_rules! with_rows {
                    ($($mr:literal)*) => {
                        match rows {
                            // SAFETY: the rows lie in block `a`.
                            $($mr if $mr <= S::MAX_ROWS => unsafe {
                                self.tile::<S, $mr, NV>(a, row, b)
                            },)*
                            _ => {}
                        }
                    };
                }
                with_rows!(1 2 3 4 5 6 7 8 9 10 11 12 13 14);
                row += rows;
            }
        }
    }

    /// The register tile: `MR` rows times `NV` vectors over all of `k`.
    #[inline(always)]
    unsafe fn tile<S: Simd, const MR: usize, const NV: usize>(
        &self,
        a: usize,
        row: usize,
        b: usize,
    ) {
        // SAFETY: rows and columns lie within A, B and C as the fields say.
        unsafe {
            let mut x = self.a.add(a * self.a_stride + row);
            let mut y = self.b.add(b * self.b_stride);
            let width = self.b_blocks * LANES;
            let c = self.c.add((a * LANES + row) * width + b * LANES);
            let mut acc = [[S::splat(0.0); NV]; MR];
            if self.accumulate {
                for (m, acc) in acc.iter_mut().enumerate() {
                    for (j, acc) in acc.iter_mut().enumerate() {
                        *acc = S::load(c.add(m * width + j * S::LANES));
                    }
                }
            }
            for _ in 0..self.depth {
                let mut columns = [S::splat(0.0); NV];
                for (j, column) in columns.iter_mut().enumerate() {
                    let lane = j * S::LANES;
                    *column = S::load(y.add(lane / LANES * self.b_stride + lane % LANES));
                }
                for (m, acc) in acc.iter_mut().enumerate() {
                    let x = S::splat(*x.add(m));
                    for (acc, &column) in acc.iter_mut().zip(&columns) {
                        *acc = S::mul_add(x, column, *acc);
                    }
                }
                // After the last they may lie behind what they point into.
                x = x.wrapping_add(LANES);
                y = y.wrapping_add(LANES);
            }
            for (m, acc) in acc.iter().enumerate() {
                for (j, &acc) in acc.iter().enumerate() {
                    S::store(c.add(m * width + j * S::LANES), acc);
                }
            }
        }
    }
}
