//! The two passes around the products: image to transformed tiles, and products to finished pixels.

use super::super::blocked::LANES;
use super::super::epilogue::Epilogue;
use super::super::simd::{Kernel, Simd};
use super::transform;

/// Transforms one row of tiles of one block of channels.
pub(super) struct InputRow<const T: usize> {
    /// One block of channels of one image: `[h][w][16]`.
    pub image: *const f32,
    pub h: usize,
    pub w: usize,
    /// Index of the row of tiles.
    pub tile_row: usize,
    pub tiles: usize,
    /// `[tiles * (T - 2) + 2][T][16]`, for the vertical pass.
    pub columns: *mut f32,
    /// First tile in plane 0; consecutive tiles are 16 floats apart.
    pub out: *mut f32,
    /// Floats between planes.
    pub plane: usize,
}

static ZERO: [f32; LANES] = [0.0; LANES];

impl<const T: usize> Kernel for InputRow<T> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let mut lane = 0;
        while lane < LANES {
            // SAFETY: passes on the contract; `lane` is a whole number of vectors.
            unsafe {
                self.vertical::<S>(lane);
                self.horizontal::<S>(lane);
            }
            lane += S::LANES;
        }
    }
}

impl<const T: usize> InputRow<T> {
    /// `B^T d` of every column that the row of tiles covers, once: neighbouring tiles share two.
    #[inline(always)]
    unsafe fn vertical<S: Simd>(&self, lane: usize) {
        // SAFETY: rows outside the image read `ZERO`, columns outside are not read.
        unsafe {
            let mut rows = [ZERO.as_ptr().add(lane); T];
            let mut steps = [0; T];
            for i in 0..T {
                // The tile starts one row above, in the padding.
                let y = self.tile_row * (T - 2) + i;
                if y >= 1 && y <= self.h {
                    rows[i] = self.image.add((y - 1) * self.w * LANES + lane);
                    steps[i] = LANES;
                }
            }
            let mut out = self.columns.add(lane);
            for x in 0..self.tiles * (T - 2) + 2 {
                let mut d = [S::splat(0.0); T];
                if x >= 1 && x <= self.w {
                    for i in 0..T {
                        d[i] = S::load(rows[i]);
                        rows[i] = rows[i].add(steps[i]);
                    }
                    d = transform::input::<S, T>(d);
                }
                for v in d {
                    S::store(out, v);
                    out = out.add(LANES);
                }
            }
        }
    }

    /// `(B^T d) B` of every tile.
    #[inline(always)]
    unsafe fn horizontal<S: Simd>(&self, lane: usize) {
        // SAFETY: reads what `vertical` wrote, writes the planes of the row's tiles.
        unsafe {
            for tile in 0..self.tiles {
                let columns = self.columns.add(tile * (T - 2) * T * LANES + lane);
                let out = self.out.add(tile * LANES + lane);
                for i in 0..T {
                    let mut d = [S::splat(0.0); T];
                    for (j, d) in d.iter_mut().enumerate() {
                        *d = S::load(columns.add((j * T + i) * LANES));
                    }
                    for (j, v) in transform::input::<S, T>(d).into_iter().enumerate() {
                        S::store(out.add((i * T + j) * self.plane), v);
                    }
                }
            }
        }
    }
}

/// Transforms the products of one row of tiles of one block of output channels back and finishes them.
pub(super) struct OutputRow<'a, const M: usize, const T: usize> {
    /// First tile in plane 0; consecutive tiles are 16 floats apart.
    pub products: *const f32,
    /// Floats between planes.
    pub plane: usize,
    pub tiles: usize,
    pub epilogue: &'a Epilogue,
    pub image: usize,
    pub block: usize,
    pub tile_row: usize,
    pub h: usize,
    pub w: usize,
}

impl<const M: usize, const T: usize> Kernel for OutputRow<'_, M, T> {
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
                // SAFETY: passes on the contract; `rows` and `cols` are what lies in the image.
                unsafe {
                    if rows == M && cols == M {
                        self.tile::<S, true>(tile, lane, (y, x), (rows, cols));
                    } else {
                        self.tile::<S, false>(tile, lane, (y, x), (rows, cols));
                    }
                }
                lane += S::LANES;
            }
        }
    }
}

impl<const M: usize, const T: usize> OutputRow<'_, M, T> {
    /// `A^T m A` of one tile, finished two rows of pixels at a time.
    #[inline(always)]
    unsafe fn tile<S: Simd, const FULL: bool>(
        &self,
        tile: usize,
        lane: usize,
        (y, x): (usize, usize),
        (rows, cols): (usize, usize),
    ) {
        // SAFETY: reads the planes of the row's tiles; pixels outside the image are not written.
        unsafe {
            let from = self.products.add(tile * LANES + lane);
            let mut half = [[S::splat(0.0); T]; M];
            for j in 0..T {
                let mut m = [S::splat(0.0); T];
                for (i, m) in m.iter_mut().enumerate() {
                    *m = S::load(from.add((i * T + j) * self.plane));
                }
                for (half, v) in half.iter_mut().zip(transform::output::<S, M, T>(m)) {
                    half[j] = v;
                }
            }
            for i in (0..M).step_by(2) {
                if FULL || i < rows {
                    let pair = [
                        transform::output::<S, M, T>(half[i]),
                        transform::output::<S, M, T>(half[i + 1]),
                    ];
                    let (at, size) = ((y + i, x), (rows - i, cols));
                    self.epilogue
                        .finish_pair::<S, M, FULL>(pair, self.image, self.block, lane, at, size);
                }
            }
        }
    }
}
