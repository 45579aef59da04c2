//! The weight gradient of a 3x3 convolution by F(4x4, 3x3).
//!
//! With the forward pass `Y = A^T [ (G g G^T) * (B^T d B) ] A`, the gradient of the filter is
//! `G^T [ sum over tiles of (B^T d B) * (A dY A^T) ] G`: both sides are transformed tile by tile, the sum is one
//! product of matrices per plane whose inner dimension is the tiles, and the result is transformed once at the end.

use std::ops::Range;

use super::super::blocked::{Block, LANES, blocks};
use super::super::gradient::Outer;
use super::super::simd::{Isa, Kernel, Simd};
use super::Grid;
use super::tiles::Inputs;

const M: usize = 4;
const T: usize = 6;
const PLANES: usize = T * T;

/// How much of the second-level cache transformed tiles may take, in blocks of 16 floats.
const CACHE: usize = 640 * 1024 / 64;

/// Sums the weight gradient of a 3x3 convolution with stride 1 and padding 1.
///
/// A sum is `[36 planes][inputs][outputs]`, channels padded to blocks.
#[derive(Clone)]
pub(in super::super) struct WinogradGradient {
    isa: Isa,
    inputs: usize,
    outputs: usize,
}

impl WinogradGradient {
    pub(in super::super) fn new(isa: Isa, inputs: usize, outputs: usize) -> Self {
        Self {
            isa,
            inputs,
            outputs,
        }
    }

    fn most_rows(&self, grid: Grid) -> usize {
        let per_tile = PLANES * (blocks(self.inputs) + blocks(self.outputs));
        let tiles = (CACHE / per_tile).clamp(16, 64);
        (tiles / grid.cols).max(1)
    }

    /// Blocks from a plane of V and of Y to the next.
    fn planes(&self, tiles: usize) -> (usize, usize) {
        (
            (blocks(self.inputs) * tiles) | 1,
            (blocks(self.outputs) * tiles) | 1,
        )
    }

    fn grid(h: usize, w: usize) -> Grid {
        Grid {
            h,
            w,
            rows: h.div_ceil(M),
            cols: w.div_ceil(M),
        }
    }

    /// Blocks of scratch that [`Self::add`] needs for up to `n` images.
    pub(in super::super) fn scratch(&self, n: usize, h: usize, w: usize) -> usize {
        let grid = Self::grid(h, w);
        let (v, y) = self.planes(self.most_rows(grid).min(n * grid.rows) * grid.cols);
        PLANES * (v + y)
    }

    /// Adds `n` images to `sum`, or sets it.
    ///
    /// # Safety
    /// `x` and `dy` hold `n` images of `h` x `w` pixels; `sum` and `scratch` have the lengths that
    /// the type and [`Self::scratch`] say.
    #[allow(clippy::too_many_arguments)]
    pub(in super::super) unsafe fn add(
        &self,
        (n, h, w): (usize, usize, usize),
        x: *const Block,
        dy: *const Block,
        sum: &mut [Block],
        set: bool,
        scratch: &mut [Block],
    ) {
        let grid = Self::grid(h, w);
        let rows = n * grid.rows;
        let step = rows.div_ceil(rows.div_ceil(self.most_rows(grid)));
        let (ib, ob) = (blocks(self.inputs), blocks(self.outputs));
        let (v_plane, y_plane) = self.planes(step * grid.cols);
        let (v, y) = scratch.split_at_mut(PLANES * v_plane);
        let (v, y): (*mut f32, *mut f32) = (v.as_mut_ptr().cast(), y.as_mut_ptr().cast());
        let (v_plane, y_plane) = (v_plane * LANES, y_plane * LANES);
        let plane = ib * LANES * ob * LANES;
        let sum: *mut f32 = sum.as_mut_ptr().cast();

        let mut first = 0;
        while first < rows {
            let block = first..rows.min(first + step);
            let count = block.len() * grid.cols;
            // SAFETY: the rows lie in `x`; V holds `step` rows of tiles per block of channels.
            unsafe {
                self.isa.dispatch(Inputs::<M, T> {
                    x: x.cast(),
                    in_blocks: ib,
                    h,
                    w,
                    grid,
                    rows: block.clone(),
                    out: v,
                    plane: v_plane,
                });
            }
            for (i, row) in block.clone().enumerate() {
                let (image, tile_row) = (row / grid.rows, row % grid.rows);
                // SAFETY: the row lies in `dy`; Y holds `step` rows of tiles per block of channels.
                unsafe {
                    for c in 0..ob {
                        self.isa.dispatch(AdjointRow {
                            image: dy.add((image * ob + c) * h * w).cast(),
                            h,
                            w,
                            tile_row,
                            tiles: grid.cols,
                            out: y.add((c * count + i * grid.cols) * LANES),
                            plane: y_plane,
                        });
                    }
                }
            }
            for p in 0..PLANES {
                // SAFETY: V and Y hold `count` tiles of that plane, `sum` the plane.
                unsafe {
                    self.isa.dispatch(Outer {
                        a: v.add(p * v_plane),
                        a_stride: count * LANES,
                        a_blocks: ib,
                        b: y.add(p * y_plane),
                        b_stride: count * LANES,
                        b_blocks: ob,
                        depth: count,
                        c: sum.add(p * plane),
                        accumulate: !(set && first == 0),
                    });
                }
            }
            first = block.end;
        }
    }

    /// The gradient of the filters of `outputs`, `[outputs][in][3][3]`, from the sums in their order.
    ///
    /// # Safety
    /// Every sum has the length that the type says, `outputs` starts at a block and lies within the channels, and
    /// `gradient` has that many filters.
    pub(in super::super) unsafe fn finish(
        &self,
        sums: &[&[Block]],
        outputs: Range<usize>,
        gradient: &mut [f32],
    ) {
        // SAFETY: passes on the contract.
        unsafe {
            self.isa.dispatch(Finish {
                sums,
                inputs: self.inputs,
                out_blocks: blocks(self.outputs),
                outputs,
                gradient,
            });
        }
    }
}

/// `A dY A^T` of one row of tiles of one block of channels.
struct AdjointRow {
    /// One block of channels of one image: `[h][w][16]`.
    image: *const f32,
    h: usize,
    w: usize,
    tile_row: usize,
    tiles: usize,
    /// First tile in plane 0; consecutive tiles are 16 floats apart.
    out: *mut f32,
    /// Floats between planes.
    plane: usize,
}

impl Kernel for AdjointRow {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let y = self.tile_row * M;
        let rows = (self.h - y).min(M);
        for tile in 0..self.tiles {
            let x = tile * M;
            let cols = (self.w - x).min(M);
            let mut lane = 0;
            while lane < LANES {
                // SAFETY: reads the tile's pixels that lie in the image, writes its planes.
                unsafe {
                    let image = self.image.add((y * self.w + x) * LANES + lane);
                    let out = self.out.add(tile * LANES + lane);
                    if rows == M && cols == M {
                        self.tile::<S, true>(image, rows, cols, out);
                    } else {
                        self.tile::<S, false>(image, rows, cols, out);
                    }
                }
                lane += S::LANES;
            }
        }
    }
}

impl AdjointRow {
    #[inline(always)]
    unsafe fn tile<S: Simd, const FULL: bool>(
        &self,
        image: *const f32,
        rows: usize,
        cols: usize,
        out: *mut f32,
    ) {
        // SAFETY: pixels outside the image are not read.
        unsafe {
            let mut half = [[S::splat(0.0); T]; M];
            for (j, half) in half.iter_mut().enumerate() {
                let mut d = [S::splat(0.0); M];
                for (i, d) in d.iter_mut().enumerate() {
                    if FULL || (i < rows && j < cols) {
                        *d = S::load(image.add((i * self.w + j) * LANES));
                    }
                }
                *half = adjoint::<S>(d);
            }
            for i in 0..T {
                let d = adjoint::<S>(half.map(|column| column[i]));
                for (j, &d) in d.iter().enumerate() {
                    S::store(out.add((i * T + j) * self.plane), d);
                }
            }
        }
    }
}

/// `A d`: the transpose of the output transform.
#[inline(always)]
unsafe fn adjoint<S: Simd>(d: [S::V; M]) -> [S::V; T] {
    // SAFETY: the caller's processor has `S`.
    unsafe {
        let (even, odd) = (S::add(d[0], d[2]), S::add(d[1], d[3]));
        let four = S::splat(4.0);
        let even2 = S::mul_add(four, d[2], d[0]);
        // 2 (d1 + 4 d3)
        let half = S::mul_add(four, d[3], d[1]);
        let odd2 = S::add(half, half);
        [
            d[0],
            S::add(even, odd),
            S::sub(even, odd),
            S::add(even2, odd2),
            S::sub(even2, odd2),
            d[3],
        ]
    }
}

/// The final transform.
struct Finish<'a> {
    sums: &'a [&'a [Block]],
    inputs: usize,
    out_blocks: usize,
    outputs: Range<usize>,
    gradient: &'a mut [f32],
}

type Lanes = [f32; LANES];

impl Kernel for Finish<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let rows = blocks(self.inputs) * LANES;
        let first = self.outputs.start;
        for block in first / LANES..blocks(self.outputs.end) {
            let lanes = (self.outputs.end - block * LANES).min(LANES);
            for c in 0..self.inputs {
                let mut u = [[0f32; LANES]; PLANES];
                for sum in self.sums {
                    for (p, u) in u.iter_mut().enumerate() {
                        let from = &sum[(p * rows + c) * self.out_blocks + block].0;
                        for (u, v) in u.iter_mut().zip(from) {
                            *u += v;
                        }
                    }
                }
                let mut half = [[[0f32; LANES]; T]; 3];
                for j in 0..T {
                    let column = std::array::from_fn(|i| u[i * T + j]);
                    for (i, v) in filter_adjoint(column).into_iter().enumerate() {
                        half[i][j] = v;
                    }
                }
                for (i, half) in half.into_iter().enumerate() {
                    for (j, g) in filter_adjoint(half).into_iter().enumerate() {
                        for (lane, &g) in g[..lanes].iter().enumerate() {
                            let o = block * LANES + lane - first;
                            self.gradient[(o * self.inputs + c) * 9 + i * 3 + j] = g;
                        }
                    }
                }
            }
        }
    }
}

/// `G^T u`.
#[inline(always)]
fn filter_adjoint(u: [Lanes; T]) -> [Lanes; 3] {
    let mut g = [[0f32; LANES]; 3];
    for l in 0..LANES {
        let (sum, difference) = (u[1][l] + u[2][l], u[2][l] - u[1][l]);
        let (sum2, difference2) = (u[3][l] + u[4][l], u[3][l] - u[4][l]);
        g[0][l] = u[0][l] / 4.0 - sum / 6.0 + sum2 / 24.0;
        g[1][l] = difference / 6.0 + difference2 / 12.0;
        g[2][l] = (sum2 - sum) / 6.0 + u[5][l];
    }
    g
}
