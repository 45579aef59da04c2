//! 3x3 convolution with padding 1 by Winograd's minimal filtering.
//!
//! F(M x M, 3 x 3) computes a tile of M x M outputs from one of T x T inputs (T = M + 2) with T*T products per
//! pair of channels instead of 9*M*M: 2.25 times fewer for M = 2, 4 times for M = 4. With stride 2, odd and even pixels
//! are filtered apart and added up, which takes T = 9 for M = 4: 1.8 times fewer. A block of tile rows goes through the
//! input transform, T*T matrix products and the output transform while it lies in the caches:
//!
//! - V: `[T*T planes][C/16][tiles][16]`, the transformed inputs;
//! - U: per panel of output channels `[planes][C][panel]`, the transformed weights, those of equal planes once;
//! - P: `[T*T planes][panel/16][tiles][16]`, the products of one panel.
//!
//! Planes lie an odd number of cache lines apart, so that the strided passes do not hit one cache set.

mod filters;
mod gradient;
mod products;
mod tiles;
mod transform;

use std::ops::Range;

use super::blocked::{Block, LANES, blocks};
use super::epilogue::Epilogue;
use super::gemm::Panels;
use super::geometry::Filters;
use super::simd::Isa;
use super::threads::Pool;
use filters::PackPanel;
pub(super) use gradient::WinogradGradient;
use products::Products;
use tiles::{Claim, Inputs, Outputs};
use transform::distinct;

/// A packed 3x3 convolution by F(M x M, 3 x 3); `T` is `M + 2`, or 9 with stride 2.
#[derive(Clone)]
pub(super) struct Winograd<const M: usize, const T: usize> {
    isa: Isa,
    in_blocks: usize,
    panels: Panels,
}

/// Pixels from an output's input to the next one's.
const fn stride(m: usize, t: usize) -> usize {
    if t == m + 2 { 1 } else { 2 }
}

/// Rows and columns of an output image, and the tiles that cover it.
#[derive(Clone, Copy)]
pub(super) struct Grid {
    pub h: usize,
    pub w: usize,
    /// Rows of tiles in an image.
    pub rows: usize,
    /// Tiles in a row.
    pub cols: usize,
}

/// How much of the second-level cache a block of tiles may take, in blocks of 16 floats.
const CACHE: usize = 160 * 1024 / 64;

/// Tiles whose pixels are asked for at once: of more, the first would be gone before they are written.
const MOST_CLAIMED: usize = 64;

impl<const M: usize, const T: usize> Winograd<M, T> {
    /// Transforms and packs 3x3 filters, on the threads of a pool if there is one.
    pub(super) fn new(isa: Isa, filters: Filters<'_>, pool: Option<&Pool>) -> Self {
        let in_blocks = blocks(filters.inputs);
        let planes = distinct(T) * distinct(T);
        let panels = Panels::zeroed(isa, planes, in_blocks * LANES, filters.outputs);
        let mut made = Self {
            isa,
            in_blocks,
            panels,
        };
        made.fill(filters, pool);
        made
    }

    /// Packs other filters of the same shape.
    pub(super) fn fill(&mut self, filters: Filters<'_>, pool: Option<&Pool>) {
        let (isa, k) = (self.isa, self.in_blocks * LANES);
        self.panels.for_each(pool, |first, width, out| {
            // SAFETY: the panel's slice has the length that its width calls for.
            unsafe {
                isa.dispatch(PackPanel::<T> {
                    filters,
                    first,
                    out,
                    width,
                    k,
                })
            };
        });
    }

    pub(super) fn panels(&self) -> &Panels {
        &self.panels
    }

    pub(super) fn panels_mut(&mut self) -> &mut Panels {
        &mut self.panels
    }

    /// The grid of inputs of `h` rows and `w` columns.
    pub(super) fn grid(&self, h: usize, w: usize) -> Grid {
        let (h, w) = (h.div_ceil(stride(M, T)), w.div_ceil(stride(M, T)));
        Grid {
            h,
            w,
            rows: h.div_ceil(M),
            cols: w.div_ceil(M),
        }
    }

    /// Products of a tile and a pair of channels.
    pub(super) fn products(&self) -> usize {
        T * T
    }

    /// The most rows of tiles that go through the three passes together: enough tiles to use each weight often, but
    /// within the cache.
    fn most_rows(&self, grid: Grid) -> usize {
        let per_tile = T * T * (self.in_blocks + self.isa.panel() / LANES);
        // More planes take more of the cache, but their weights are used more than once.
        let least = if stride(M, T) == 2 { 16 } else { 24 };
        let tiles = (CACHE / per_tile).clamp(least, 128);
        (tiles / grid.cols).max(1)
    }

    /// Blocks of scratch that [`Self::run`] needs for `rows` rows of tiles, or fewer.
    pub(super) fn scratch(&self, grid: Grid, rows: usize) -> usize {
        let (v, p) = self.planes(self.most_rows(grid).min(rows) * grid.cols);
        T * T * (v + p)
    }

    /// Blocks from a plane of V and of P to the next.
    fn planes(&self, tiles: usize) -> (usize, usize) {
        (
            (self.in_blocks * tiles) | 1,
            (self.isa.panel() / LANES * tiles) | 1,
        )
    }

    /// Asks for the pixels of the output that other threads have read, all of them at once: stores would wait for one
    /// after the other. Where threads share the output by its channels that is all of it, else the rows at its seams.
    fn claim(&self, grid: Grid, epilogue: &Epilogue, rows: &Range<usize>, panels: &Range<usize>) {
        let (first, last) = (rows.start, rows.end - 1);
        let claim = |row: usize, part: Range<usize>| {
            let panel = |i: usize| self.panels.columns(i);
            let (end, width) = panel(panels.end - 1);
            // SAFETY: it reads and writes nothing.
            unsafe {
                self.isa.dispatch(Claim {
                    epilogue,
                    image: row / grid.rows,
                    blocks: panel(panels.start).0..end + width / LANES,
                    rows: part.start..part.end.min(grid.h),
                });
            }
        };
        let top = |row: usize| row % grid.rows * M;
        if panels.len() < self.panels.count() {
            if rows.len() * grid.cols <= MOST_CLAIMED {
                rows.clone()
                    .for_each(|row| claim(row, top(row)..top(row) + M));
            }
            return;
        }
        if first % grid.rows != 0 {
            claim(first, top(first)..top(first) + 2);
        }
        if (last + 1) % grid.rows != 0 {
            claim(last, top(last) + M - 2..top(last) + M);
        }
    }

    /// Convolves `rows` of tiles (counted through all images) into the output channels of `panels`.
    ///
    /// # Safety
    /// `x` holds the images of `h` x `w` pixels that `rows` lie in, `epilogue` fits the output, `scratch` has
    /// [`Self::scratch`] blocks, and no other thread writes these rows of these panels.
    pub(super) unsafe fn run(
        &self,
        (h, w): (usize, usize),
        x: *const Block,
        epilogue: &Epilogue,
        rows: Range<usize>,
        panels: Range<usize>,
        scratch: &mut [Block],
    ) {
        if rows.is_empty() || panels.is_empty() {
            return;
        }
        let grid = self.grid(h, w);
        self.claim(grid, epilogue, &rows, &panels);
        // Blocks of nearly equal size.
        let step = rows
            .len()
            .div_ceil(rows.len().div_ceil(self.most_rows(grid)));
        let (v_plane, p_plane) = self.planes(step * grid.cols);
        let (v, p) = scratch.split_at_mut(T * T * v_plane);
        let (v, p): (*mut f32, *mut f32) = (v.as_mut_ptr().cast(), p.as_mut_ptr().cast());
        let (v_plane, p_plane) = (v_plane * LANES, p_plane * LANES);

        let mut first = rows.start;
        while first < rows.end {
            let block = first..rows.end.min(first + step);
            first = block.end;
            let count = block.len() * grid.cols;
            // SAFETY: the rows lie in `x`; V holds `step` rows of tiles per block of channels.
            unsafe {
                self.isa.dispatch(Inputs::<M, T> {
                    x: x.cast(),
                    in_blocks: self.in_blocks,
                    h,
                    w,
                    grid,
                    rows: block.clone(),
                    out: v,
                    plane: v_plane,
                });
            }
            for panel in panels.clone() {
                let (first_block, width) = self.panels.columns(panel);
                let after = if panel + 1 < panels.end {
                    panel + 1
                } else {
                    panels.start
                };
                // SAFETY: V, U and P hold `count` tiles of every plane; the epilogue's output has their pixels.
                unsafe {
                    self.isa.dispatch(Products {
                        t: T,
                        v,
                        v_plane,
                        in_blocks: self.in_blocks,
                        tiles: count,
                        weights: self.panels.panel(panel),
                        next: self.panels.panel(after),
                        width,
                        p,
                        p_plane,
                    });
                    self.isa.dispatch(Outputs::<M, T> {
                        products: p,
                        plane: p_plane,
                        epilogue,
                        blocks: first_block..first_block + width / LANES,
                        grid,
                        rows: block.clone(),
                    });
                }
            }
        }
    }
}
