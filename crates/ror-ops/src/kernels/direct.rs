//! Convolution of any kernel size, stride and padding as a matrix product over gathered pixels.
//!
//! A block of output pixels is gathered tap by tap to `[taps][C/16][pixels][16]` in scratch, which also settles
//! stride and padding; a 1x1 convolution with stride 1 reads the image itself. Each panel of output channels is
//! then one [`Product`], finished as it is stored if bias and rectifier are all there is to do, else while it lies in the
//! first-level cache.

use std::ops::Range;

use super::blocked::{Block, Dims, LANES, blocks};
use super::epilogue::Epilogue;
use super::gemm::{Finished, Panels, Product, Walk};
use super::geometry::{Filters, Geometry};
use super::simd::{Isa, Kernel, Simd};
use super::threads::Pool;

/// A packed convolution by gathered pixels.
#[derive(Clone)]
pub(super) struct Direct {
    isa: Isa,
    geometry: Geometry,
    in_blocks: usize,
    panels: Panels,
}

/// Bytes of the second-level cache that gathered pixels may take.
const CACHE: usize = 384 * 1024;

impl Direct {
    /// Packs filters of that geometry, on the threads of a pool if there is one.
    pub(super) fn new(
        isa: Isa,
        geometry: Geometry,
        filters: Filters<'_>,
        pool: Option<&Pool>,
    ) -> Self {
        let in_blocks = blocks(geometry.inputs);
        let panels = Panels::zeroed(isa, 1, filters.taps * in_blocks * LANES, geometry.outputs);
        let mut made = Self {
            isa,
            geometry,
            in_blocks,
            panels,
        };
        made.fill(filters, pool);
        made
    }

    /// Packs other filters of the same shape.
    pub(super) fn fill(&mut self, filters: Filters<'_>, pool: Option<&Pool>) {
        let per_tap = self.in_blocks * LANES;
        self.panels.fill(filters.outputs, pool, |k, o| {
            let (tap, c) = (k / per_tap, k % per_tap);
            if c < filters.inputs {
                filters.at(o, c, tap)
            } else {
                0.0
            }
        });
    }

    pub(super) fn panels_mut(&mut self) -> &mut Panels {
        &mut self.panels
    }

    pub(super) fn panels(&self) -> &Panels {
        &self.panels
    }

    /// Whether the image can be read in place.
    fn in_place(&self) -> bool {
        let Geometry {
            kernel,
            stride,
            padding,
            ..
        } = self.geometry;
        kernel == (1, 1) && stride == 1 && padding == 0
    }

    fn runs(&self) -> usize {
        self.geometry.kernel.0 * self.geometry.kernel.1 * self.in_blocks
    }

    /// Pixels of the output that are computed together.
    fn block_pixels(&self, pixels: usize) -> usize {
        let most = (CACHE / (self.runs() * LANES * size_of::<f32>())).clamp(10, 80);
        pixels.div_ceil(pixels.div_ceil(most).max(1)).max(1)
    }

    /// Blocks of pixels in an output image.
    pub(super) fn units(&self, pixels: usize) -> usize {
        pixels.div_ceil(self.block_pixels(pixels))
    }

    /// Blocks of scratch that [`Self::run`] needs for an output image of that many pixels.
    pub(super) fn scratch(&self, pixels: usize) -> usize {
        let gathered = if self.in_place() { 0 } else { self.runs() };
        self.block_pixels(pixels) * (gathered + self.isa.panel() / LANES)
    }

    /// Convolves blocks of pixels (`units`, counted through all images) into the output channels of `panels`.
    ///
    /// # Safety
    /// `x` holds the images that `units` lie in, `epilogue` fits the output, `scratch` has [`Self::scratch`]
    /// blocks, and no other thread writes these pixels of these panels.
    #[allow(clippy::too_many_arguments)]
    pub(super) unsafe fn run(
        &self,
        input: Dims,
        output: Dims,
        x: *const Block,
        epilogue: &Epilogue,
        units: Range<usize>,
        panels: Range<usize>,
        scratch: &mut [Block],
    ) {
        let pixels = output.pixels();
        let step = self.block_pixels(pixels);
        let per_image = self.units(pixels);
        let (c, gathered) = scratch.split_at_mut(step * self.isa.panel() / LANES);
        let (c, gathered): (*mut f32, *mut f32) =
            (c.as_mut_ptr().cast(), gathered.as_mut_ptr().cast());
        let (kh, kw) = self.geometry.kernel;
        for unit in units {
            let (image, first) = (unit / per_image, unit % per_image * step);
            let count = step.min(pixels - first);
            // SAFETY: the image lies in `x`, its pixels in the epilogue's output; the scratch holds `step` rows of A and of
            // a panel of C.
            unsafe {
                let x = x.add(image * self.in_blocks * input.pixels()).cast::<f32>();
                let walk = if self.in_place() {
                    let stride = input.pixels() * LANES;
                    Walk::<LANES> {
                        a: x.add(first * LANES),
                        stride,
                        runs: self.in_blocks,
                        depth: LANES,
                    }
                } else {
                    for tap in 0..kh * kw {
                        self.isa.dispatch(Gather {
                            x,
                            input,
                            width: output.w,
                            blocks: self.in_blocks,
                            tap: (tap / kw, tap % kw),
                            stride: self.geometry.stride,
                            padding: self.geometry.padding,
                            first,
                            count,
                            out: gathered.add(tap * self.in_blocks * count * LANES),
                        });
                    }
                    Walk::<LANES> {
                        a: gathered,
                        stride: count * LANES,
                        runs: self.runs(),
                        depth: LANES,
                    }
                };
                for panel in panels.clone() {
                    let (block, width) = self.panels.columns(panel);
                    let b = self.panels.panel(panel);
                    let product = |c, c_stride| Product {
                        walk,
                        rows: count,
                        b,
                        next: b,
                        width,
                        c,
                        c_stride,
                    };
                    if let Some((out, finish)) = epilogue.bias_relu(image, block, first) {
                        self.isa.dispatch(Finished {
                            product: product(out, pixels * LANES),
                            finish,
                        });
                    } else {
                        let c_stride = count * LANES;
                        self.isa.dispatch(product(c, c_stride));
                        self.isa.dispatch(Finish {
                            epilogue,
                            c,
                            c_stride,
                            image,
                            block,
                            width,
                            first,
                            count,
                        });
                    }
                }
            }
        }
    }
}

/// Copies what one tap of the filter sees of a block of output pixels, all channels; zeros outside the image.
pub(super) struct Gather {
    pub x: *const f32,
    pub input: Dims,
    /// Pixels in a row of the output.
    pub width: usize,
    pub blocks: usize,
    pub tap: (usize, usize),
    pub stride: usize,
    pub padding: usize,
    pub first: usize,
    pub count: usize,
    /// `[blocks][count][16]`.
    pub out: *mut f32,
}

impl Kernel for Gather {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self {
            input,
            stride,
            padding,
            ..
        } = self;
        let mut done = 0;
        while done < self.count {
            let (oy, ox) = (
                (self.first + done) / self.width,
                (self.first + done) % self.width,
            );
            let run = (self.width - ox).min(self.count - done);
            let y = (oy * stride + self.tap.0).wrapping_sub(padding);
            for block in 0..self.blocks {
                // SAFETY: writes `run` of this block's pixels; reads only pixels whose row and column exist.
                unsafe {
                    let out = self.out.add((block * self.count + done) * LANES);
                    let row = self.x.wrapping_add(
                        (block * input.h)
                            .wrapping_add(y)
                            .wrapping_mul(input.w * LANES),
                    );
                    for i in 0..run {
                        let x = ((ox + i) * stride + self.tap.1).wrapping_sub(padding);
                        let inside = y < input.h && x < input.w;
                        let mut lane = 0;
                        while lane < LANES {
                            let v = if inside {
                                S::load(row.add(x * LANES + lane))
                            } else {
                                S::splat(0.0)
                            };
                            S::store(out.add(i * LANES + lane), v);
                            lane += S::LANES;
                        }
                    }
                }
            }
            done += run;
        }
    }
}

/// The epilogue over the pixels of one panel.
pub(super) struct Finish<'a> {
    pub epilogue: &'a Epilogue,
    /// `[width / 16]` blocks of `[count][16]`, `c_stride` floats apart.
    pub c: *const f32,
    pub c_stride: usize,
    pub image: usize,
    pub block: usize,
    pub width: usize,
    pub first: usize,
    pub count: usize,
}

impl Kernel for Finish<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for b in 0..self.width / LANES {
            // SAFETY: the caller's pixels and channels lie in the output and in `c`.
            unsafe {
                let c = self.c.add(b * self.c_stride);
                self.epilogue.finish_run::<S>(
                    c,
                    self.image,
                    self.block + b,
                    self.first,
                    self.count,
                );
            }
        }
    }
}
