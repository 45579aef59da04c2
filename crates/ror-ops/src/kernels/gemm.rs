//! The matrix product under every convolution: rows of inputs times a panel of packed weights.
//!
//! `C[row][o] = sum over k of A[row][k] * B[k][o]` for up to [`Isa::panel`](super::Isa) output channels `o`, if wanted
//! with a bias and a rectifier. A is read where it lies, as a [`Walk`] of runs of consecutive `k` with rows a fixed step
//! apart, which covers transformed tiles, blocked pixels and the rows of a plain image. B is packed as [`Panels`].
//!
//! The register tile is `MR` rows by two vectors: with `MR` = 10 and AVX-512 a step of `k` costs 10 cycles of
//! multiply-adds and 6 of loads.

use super::blocked::{Block, LANES, as_flat_mut, blocks};
use super::memory::{Blocks, Memory};
use super::simd::{Isa, Kernel, Simd};
use super::threads::Pool;
use std::ops::Range;

/// How the rows of A lie in memory: `STEP` floats apart, each row in runs of consecutive `k`.
///
/// `STEP` is 16 for pixels or tiles of the blocked layout, and the stride of the convolution for a plain image.
#[derive(Clone, Copy)]
pub(super) struct Walk<const STEP: usize> {
    /// Run 0 of row 0.
    pub a: *const f32,
    /// Floats from a run to the next.
    pub stride: usize,
    pub runs: usize,
    /// Length of a run.
    pub depth: usize,
}

/// A bias to add to sums, and whether the rectifier follows.
#[derive(Clone, Copy)]
pub(super) struct BiasRelu {
    /// As many as the panel has channels.
    pub bias: *const f32,
    pub relu: bool,
}

/// One panel's product.
pub(super) struct Product<const STEP: usize> {
    pub walk: Walk<STEP>,
    pub rows: usize,
    /// `[runs * depth][width]`.
    pub b: *const f32,
    /// The panel that the next product will read, fetched meanwhile: the processor's own prefetching stops at pages.
    pub next: *const f32,
    /// Output channels in the panel: 16, or 32 where a vector has 16 lanes.
    pub width: usize,
    /// `[width / 16]` blocks of channels, each `[rows][16]`, `c_stride` floats apart.
    pub c: *mut f32,
    pub c_stride: usize,
}

/// A product whose sums are finished before they are stored.
pub(super) struct Finished<const STEP: usize> {
    pub product: Product<STEP>,
    pub finish: BiasRelu,
}

impl<const STEP: usize> Kernel for Product<STEP> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: passes on the contract.
        unsafe { self.panel::<S>(None) }
    }
}

impl<const STEP: usize> Kernel for Finished<STEP> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: passes on the contract.
        unsafe { self.product.panel::<S>(Some(self.finish)) }
    }
}

impl<const STEP: usize> Product<STEP> {
    #[inline(always)]
    unsafe fn panel<S: Simd>(&self, finish: Option<BiasRelu>) {
        // SAFETY: passes on the contract.
        unsafe {
            if S::LANES == 16 && self.width == 16 {
                self.vectors::<S, 1>(finish);
            } else {
                self.vectors::<S, 2>(finish);
            }
        }
    }

    /// Splits the rows into groups of nearly equal size.
    #[inline(always)]
    unsafe fn vectors<S: Simd, const NV: usize>(&self, finish: Option<BiasRelu>) {
        let groups = self.rows.div_ceil(S::MAX_ROWS);
        let mut row = 0;
        for group in 0..groups {
            let rows = (self.rows - row).div_ceil(groups - group);
            macro_rules! with_rows {
                ($($mr:literal)*) => {
                    match rows {
                        // SAFETY: `row + rows` is at most `self.rows`.
                        $($mr if $mr <= S::MAX_ROWS => unsafe { self.tile::<S, $mr, NV>(row, finish) },)*
                        _ => {}
                    }
                };
            }
            with_rows!(1 2 3 4 5 6 7 8 9 10 11 12 13 14);
            row += rows;
        }
    }

    /// The register tile: `MR` rows times `NV` vectors over the whole of `k`.
    #[inline(always)]
    #[allow(clippy::needless_range_loop)]
    unsafe fn tile<S: Simd, const MR: usize, const NV: usize>(
        &self,
        row: usize,
        finish: Option<BiasRelu>,
    ) {
        // SAFETY: rows and columns lie within A, B and C as the fields say.
        unsafe {
            let mut acc = [[S::splat(0.0); NV]; MR];
            let mut b = self.b;
            // Once is enough: later rows ask for what they read.
            let mut next = if row == 0 { self.next } else { b };
            // Plain indices: adapters of iterators are left as calls where the optimiser works on small units.
            for run in 0..self.walk.runs {
                let mut a = self.walk.a.add(run * self.walk.stride + row * STEP);
                for _ in 0..self.walk.depth {
                    let mut weights = [S::splat(0.0); NV];
                    for j in 0..NV {
                        weights[j] = S::load(b.add(j * S::LANES));
                    }
                    for m in 0..MR {
                        let x = S::splat(*a.add(m * STEP));
                        for j in 0..NV {
                            acc[m][j] = S::mul_add(x, weights[j], acc[m][j]);
                        }
                    }
                    for line in (0..NV * S::LANES).step_by(LANES) {
                        S::prefetch(next.wrapping_add(line));
                    }
                    a = a.add(1);
                    b = b.add(NV * S::LANES);
                    next = next.wrapping_add(NV * S::LANES);
                }
            }
            if let Some(BiasRelu { bias, relu }) = finish {
                let mut shift = [S::splat(0.0); NV];
                for j in 0..NV {
                    shift[j] = S::load(bias.add(j * S::LANES));
                }
                for m in 0..MR {
                    for j in 0..NV {
                        acc[m][j] = S::add(acc[m][j], shift[j]);
                        if relu {
                            acc[m][j] = S::max(S::splat(0.0), acc[m][j]);
                        }
                    }
                }
            }
            for (m, acc) in acc.iter().enumerate() {
                for (j, &acc) in acc.iter().enumerate() {
                    let lane = j * S::LANES;
                    let c = self
                        .c
                        .add(lane / LANES * self.c_stride + (row + m) * LANES + lane % LANES);
                    S::store(c, acc);
                }
            }
        }
    }
}

/// Weights packed for [`Product`]: panels of output channels, each `[planes][k][width]`.
#[derive(Clone)]
pub(super) struct Panels {
    data: Blocks,
    /// Output channels in a full panel; the last may be narrower.
    panel: usize,
    planes: usize,
    /// Rows of a plane.
    k: usize,
    out_blocks: usize,
}

impl Panels {
    /// All zeros: `planes` matrices of `k` rows and `channels` columns.
    pub(super) fn zeroed(isa: Isa, planes: usize, k: usize, channels: usize) -> Self {
        let out_blocks = blocks(channels);
        Self {
            data: Blocks::zeros(planes * k * out_blocks),
            panel: isa.panel(),
            planes,
            k,
            out_blocks,
        }
    }

    /// Has `fill` write every panel, on the threads of a pool if there is one: it is given the panel's first channel,
    /// its number of channels, and all its planes `[planes][k][width]`.
    pub(super) fn for_each<F>(&mut self, pool: Option<&Pool>, fill: F)
    where
        F: Fn(usize, usize, &mut [f32]) + Sync,
    {
        if self.data.is_empty() {
            return;
        }
        let (panel, column) = (self.panel, self.planes * self.k);
        let unit = column * (panel / LANES);
        let whole = self.data.len() / unit * unit;
        let (full, rest) = self.data.split_at_mut(whole);
        let work = |range: Range<usize>, share: &mut [Block]| {
            for (i, data) in range.zip(share.chunks_exact_mut(unit)) {
                fill(i * panel, panel, as_flat_mut(data));
            }
        };
        match pool {
            Some(pool) => pool.run_shares(full, unit, work),
            None => work(0..whole / unit, full),
        }
        if !rest.is_empty() {
            let width = rest.len() / column * LANES;
            fill(whole / unit * panel, width, as_flat_mut(rest));
        }
    }

    /// Fills a single plane, on the threads of a pool if there is one: row `k`, column `o` is `weight(k, o)`, for the
    /// first `k` rows and `o` columns.
    pub(super) fn fill<F>(&mut self, columns: usize, pool: Option<&Pool>, weight: F)
    where
        F: Fn(usize, usize) -> f32 + Sync,
    {
        self.for_each(pool, |first, width, out| {
            let real = width.min(columns - first);
            for (k, row) in out.chunks_exact_mut(width).enumerate() {
                for (o, slot) in row[..real].iter_mut().enumerate() {
                    *slot = weight(k, first + o);
                }
            }
        });
    }

    /// Number of panels.
    pub(super) fn count(&self) -> usize {
        (self.out_blocks * LANES).div_ceil(self.panel)
    }

    /// First block of output channels and number of channels of panel `i`.
    pub(super) fn columns(&self, i: usize) -> (usize, usize) {
        let first = i * self.panel;
        (
            first / LANES,
            self.panel.min(self.out_blocks * LANES - first),
        )
    }

    /// All planes of panel `i`.
    ///
    /// # Panics
    /// If there is no such panel.
    pub(super) fn panel(&self, i: usize) -> *const f32 {
        let (first, width) = self.columns(i);
        let column = self.planes * self.k;
        self.data[first * column..][..width / LANES * column]
            .as_ptr()
            .cast()
    }

    /// Moves the weights into `memory`.
    pub(super) fn move_to(&mut self, memory: &mut Memory) {
        self.data.move_to(memory);
    }

    /// Memory that the weights take, in bytes.
    pub(super) fn bytes(&self) -> usize {
        std::mem::size_of_val::<[Block]>(&self.data)
    }
}
