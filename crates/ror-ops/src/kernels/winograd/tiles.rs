//! The two passes around the products: image to transformed tiles, and products to finished pixels.

use std::ops::Range;

use super::super::blocked::LANES;
use super::super::epilogue::{ANY, Epilogue, PLAIN, RESIDUAL};
use super::super::simd::{Kernel, Simd};
use super::transform::{self, STRIDED};
use super::{Grid, stride};

/// Transforms rows of tiles, all their channels.
pub(super) struct Inputs<const M: usize, const T: usize> {
    /// Images: `[in_blocks][h][w][16]` each.
    pub x: *const f32,
    pub in_blocks: usize,
    /// Rows and columns of the images; the grid has those of the output.
    pub h: usize,
    pub w: usize,
    pub grid: Grid,
    /// Rows of tiles, counted through all images.
    pub rows: Range<usize>,
    /// V: `[T*T planes][in_blocks][tiles][16]`.
    pub out: *mut f32,
    /// Floats between planes.
    pub plane: usize,
}

/// Asks for rows of pixels that are about to be written.
pub(super) struct Claim<'a> {
    pub epilogue: &'a Epilogue,
    pub image: usize,
    pub blocks: Range<usize>,
    pub rows: Range<usize>,
}

impl Kernel for Claim<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        self.epilogue.claim::<S>(self.image, self.blocks, self.rows);
    }
}

/// Which columns of a tile lie in the image: all.
const INNER: u8 = 0;
/// All but the first.
const LEFT: u8 = 1;
/// All but the last.
const RIGHT: u8 = 2;
/// Those that a range says.
const OTHER: u8 = 3;

/// Whether column `j` lies in the image: known to the compiler but for [`OTHER`].
#[inline(always)]
fn in_image<const T: usize, const EDGE: u8>(columns: &Range<usize>, j: usize) -> bool {
    match EDGE {
        INNER => true,
        LEFT => j > 0,
        RIGHT => j + 1 < T,
        _ => columns.contains(&j),
    }
}

/// A row of the padding, as long as a tile.
static ZEROS: [f32; STRIDED * LANES] = [0.0; STRIDED * LANES];

impl<const M: usize, const T: usize> Kernel for Inputs<M, T> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Grid { rows, cols, .. } = self.grid;
        let tiles = self.rows.len() * cols;
        for (i, row) in self.rows.clone().enumerate() {
            for c in 0..self.in_blocks {
                let block = row / rows * self.in_blocks + c;
                // SAFETY: passes on the contract: the block of channels lies in the images, its tiles in V.
                unsafe {
                    let image = self.x.add(block * self.h * self.w * LANES);
                    let out = self.out.add((c * tiles + i * cols) * LANES);
                    self.row::<S>(image, row % rows, out);
                }
            }
        }
    }
}

impl<const M: usize, const T: usize> Inputs<M, T> {
    /// A row of tiles of one block of channels.
    #[inline(always)]
    unsafe fn row<S: Simd>(&self, image: *const f32, tile_row: usize, out: *mut f32) {
        for tile in 0..self.grid.cols {
            // Each tile starts one row above and one column left of its outputs, in the padding.
            let step = M * stride(M, T);
            let (y, x) = (tile_row * step, tile * step);
            let mut rows = [ZEROS.as_ptr(); T];
            for (i, row) in rows.iter_mut().enumerate() {
                if (1..=self.h).contains(&(y + i)) {
                    let pixel = ((y + i - 1) * self.w + x).wrapping_sub(1);
                    *row = image.wrapping_add(pixel.wrapping_mul(LANES));
                }
            }
            // Columns of the tile that lie in the image.
            let columns = usize::from(x == 0)..T.min(self.w + 1 - x);
            let mut lane = 0;
            while lane < LANES {
                // SAFETY: passes on the contract; rows outside the image read `ZEROS`, columns outside are not read.
                unsafe {
                    let out = out.add(tile * LANES + lane);
                    match (columns.start, columns.end) {
                        (0, end) if end == T => self.tile::<S, INNER>(&rows, lane, &columns, out),
                        (1, end) if end == T => self.tile::<S, LEFT>(&rows, lane, &columns, out),
                        (0, end) if end + 1 == T => {
                            self.tile::<S, RIGHT>(&rows, lane, &columns, out);
                        }
                        _ => self.tile::<S, OTHER>(&rows, lane, &columns, out),
                    }
                }
                lane += S::LANES;
            }
        }
    }

    /// `(B^T d) B` of one tile: `B^T` for all columns into registers, some of its rows at a time, then `B` row by row.
    ///
    /// Reading pixels twice costs less than storing `B^T d` for neighbours to share.
    #[inline(always)]
    #[allow(clippy::needless_range_loop)]
    unsafe fn tile<S: Simd, const EDGE: u8>(
        &self,
        rows: &[*const f32; T],
        lane: usize,
        columns: &Range<usize>,
        out: *mut f32,
    ) {
        // SAFETY: reads the tile's pixels that lie in the image, or zeros; writes its planes.
        unsafe {
            if T == STRIDED {
                return self.strided::<S, EDGE>(rows, lane, columns, out);
            }
            let mut middle = [[S::splat(0.0); T]; M];
            for j in 0..T {
                if in_image::<T, EDGE>(columns, j) {
                    let mut d = [S::splat(0.0); M];
                    for i in 0..M {
                        d[i] = S::load(rows[i + 1].wrapping_add(j * LANES + lane));
                    }
                    let d = transform::input_middle::<S, M>(d);
                    for i in 0..M {
                        middle[i][j] = d[i];
                    }
                }
            }
            for i in 0..M {
                self.store::<S>(middle[i], out.add((i + 1) * T * self.plane));
            }
            let mut ends = [[S::splat(0.0); T]; 2];
            for j in 0..T {
                if in_image::<T, EDGE>(columns, j) {
                    let mut d = [S::splat(0.0); T];
                    for i in 0..T {
                        d[i] = S::load(rows[i].wrapping_add(j * LANES + lane));
                    }
                    let d = transform::input_ends::<S, T>(d);
                    ends[0][j] = d[0];
                    ends[1][j] = d[1];
                }
            }
            self.store::<S>(ends[0], out);
            self.store::<S>(ends[1], out.add((T - 1) * T * self.plane));
        }
    }

    /// [`Self::tile`] of stride 2, whose `B^T d` is too much for the registers.
    #[inline(always)]
    #[allow(clippy::needless_range_loop)]
    unsafe fn strided<S: Simd, const EDGE: u8>(
        &self,
        rows: &[*const f32; T],
        lane: usize,
        columns: &Range<usize>,
        out: *mut f32,
    ) {
        // SAFETY: as in `tile`.
        unsafe {
            let mut half = [[S::splat(0.0); T]; T];
            for j in 0..T {
                if in_image::<T, EDGE>(columns, j) {
                    let mut d = [S::splat(0.0); T];
                    for i in 0..T {
                        d[i] = S::load(rows[i].wrapping_add(j * LANES + lane));
                    }
                    let d = transform::input::<S, T>(d);
                    for i in 0..T {
                        half[i][j] = d[i];
                    }
                }
            }
            for i in 0..T {
                self.store::<S>(half[i], out.add(i * T * self.plane));
            }
        }
    }

    /// Transforms a row of `B^T d` and stores it in its planes.
    #[inline(always)]
    #[allow(clippy::needless_range_loop)]
    unsafe fn store<S: Simd>(&self, row: [S::V; T], out: *mut f32) {
        // SAFETY: the caller's row of planes exists.
        unsafe {
            let row = transform::input::<S, T>(row);
            for j in 0..T {
                S::store(out.add(j * self.plane), row[j]);
            }
        }
    }
}

/// Transforms the products of rows of tiles back and finishes them.
pub(super) struct Outputs<'a, const M: usize, const T: usize> {
    /// P: `[T*T planes][blocks][tiles][16]`.
    pub products: *const f32,
    /// Floats between planes.
    pub plane: usize,
    pub epilogue: &'a Epilogue,
    /// Blocks of output channels.
    pub blocks: Range<usize>,
    pub grid: Grid,
    /// Rows of tiles, counted through all images.
    pub rows: Range<usize>,
}

impl<const M: usize, const T: usize> Kernel for Outputs<'_, M, T> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: passes on the contract.
        unsafe {
            match self.epilogue.shape() {
                PLAIN => self.blocks::<S, PLAIN>(),
                RESIDUAL => self.blocks::<S, RESIDUAL>(),
                _ => self.blocks::<S, ANY>(),
            }
        }
    }
}

impl<const M: usize, const T: usize> Outputs<'_, M, T> {
    #[inline(always)]
    unsafe fn blocks<S: Simd, const SHAPE: u8>(&self) {
        // A copy, which no store through a pointer can change: its fields stay in registers.
        let epilogue = &{ *self.epilogue };
        let Grid { rows, cols, .. } = self.grid;
        let mut from = self.products;
        for block in self.blocks.clone() {
            for row in self.rows.clone() {
                // SAFETY: passes on the contract: the row's products follow those of the one before.
                unsafe {
                    self.row::<S, SHAPE>(epilogue, from, (row / rows, block), row % rows);
                    from = from.add(cols * LANES);
                }
            }
        }
    }

    /// A row of tiles of one block of channels of one image.
    #[inline(always)]
    unsafe fn row<S: Simd, const SHAPE: u8>(
        &self,
        epilogue: &Epilogue,
        from: *const f32,
        (image, block): (usize, usize),
        tile_row: usize,
    ) {
        let y = tile_row * M;
        let rows = (self.grid.h - y).min(M);
        for tile in 0..self.grid.cols {
            let x = tile * M;
            let cols = (self.grid.w - x).min(M);
            let mut lane = 0;
            while lane < LANES {
                // SAFETY: passes on the contract; `rows` and `cols` are what lies in the image.
                unsafe {
                    let from = from.add(tile * LANES + lane);
                    let plane = (image, block, lane);
                    if rows == M && cols == M {
                        self.tile::<S, SHAPE, true>(epilogue, from, plane, (y, x), (rows, cols));
                    } else {
                        self.tile::<S, SHAPE, false>(epilogue, from, plane, (y, x), (rows, cols));
                    }
                }
                lane += S::LANES;
            }
        }
    }

    /// `A^T m A` of one tile, finished two rows of pixels at a time.
    #[inline(always)]
    #[allow(clippy::needless_range_loop)]
    unsafe fn tile<S: Simd, const SHAPE: u8, const FULL: bool>(
        &self,
        epilogue: &Epilogue,
        from: *const f32,
        (image, block, lane): (usize, usize, usize),
        (y, x): (usize, usize),
        (rows, cols): (usize, usize),
    ) {
        // SAFETY: reads the planes of the tile; pixels outside the image are not written.
        unsafe {
            let mut half = [[S::splat(0.0); T]; M];
            for j in 0..T {
                let mut m = [S::splat(0.0); T];
                for i in 0..T {
                    m[i] = S::load(from.add((i * T + j) * self.plane));
                }
                if j == 1 {
                    // Every output has the second product of the second column once, so that the bias need be added
                    // but here.
                    m[1] = S::add(m[1], epilogue.bias::<S>(block, lane));
                }
                let column = transform::output::<S, M, T>(m);
                for i in 0..M {
                    half[i][j] = column[i];
                }
            }
            // Not `step_by`, which would not be unrolled and `half` not stay in registers.
            for i in 0..M / 2 {
                let i = 2 * i;
                if FULL || i < rows {
                    let pair = [
                        transform::output::<S, M, T>(half[i]),
                        transform::output::<S, M, T>(half[i + 1]),
                    ];
                    let (at, size) = ((y + i, x), (rows - i, cols));
                    let plane = (image, block, lane);
                    epilogue.finish_pair::<S, M, SHAPE, FULL>(pair, plane, at, size);
                }
            }
        }
    }
}
