//! The gradient of a convolution's input.
//!
//! With stride 1 it is the convolution of the output's gradient with filters turned by 180 degrees, inputs and
//! outputs exchanged. With stride `s` the input's pixels fall into `s * s` phases by their position modulo `s`; what
//! reaches a phase is a convolution with stride 1 of those taps that meet it, and some phases no tap meets.

use super::super::blocked::{Block, Dims, LANES, blocks};
use super::super::conv::Conv2d;
use super::super::direct::Gather;
use super::super::epilogue::{Fused, Output, Source, Term};
use super::super::error::{Result, check_at_least, check_len, product};
use super::super::gemm::{Panels, Product, Walk};
use super::super::geometry::Filters;
use super::super::memory::Memory;
use super::super::simd::{Isa, Kernel, Simd};
use super::super::{Algorithm, Geometry};

/// Computes input gradients of one convolution, weights packed.
#[derive(Clone)]
pub struct InputGradient {
    geometry: Geometry,
    method: Method,
}

#[derive(Clone)]
enum Method {
    Turned(Box<Conv2d>),
    Phased { isa: Isa, phases: Vec<Phase> },
}

/// The pixels `y % stride == at.0, x % stride == at.1`.
#[derive(Clone)]
struct Phase {
    at: (usize, usize),
    taps: Vec<Tap>,
    panels: Panels,
}

/// A tap of the filter, and the row and column that it reads for pixel 0 of a phase.
#[derive(Clone, Copy)]
struct Tap {
    index: usize,
    offset: (isize, isize),
}

/// Pixels of a phase that are computed together.
const PIXELS: usize = 40;

impl InputGradient {
    /// Prepares for `images` at a time of `h` rows and `w` columns of the convolution's *input*; weights are zeros
    /// until [`Self::repack`].
    ///
    /// # Errors
    /// Sizes of zero, or too large to address; an image smaller than the kernel.
    pub fn new(isa: Isa, geometry: Geometry, images: usize, h: usize, w: usize) -> Result<Self> {
        let Geometry {
            inputs,
            outputs,
            kernel: (kh, kw),
            stride,
            padding,
        } = geometry;
        geometry.output(Dims::new(images, inputs, h, w))?;
        let len = product("weight", &[inputs, outputs, kh, kw])?;
        product("stride", &[stride, stride])?;
        let weight = vec![0.0; len];
        geometry.check(&weight, None)?;
        let method = if stride == 1 && kh == kw && padding < kh {
            let turned = Geometry {
                inputs: outputs,
                outputs: inputs,
                padding: kh - 1 - padding,
                ..geometry
            };
            let algorithm = Algorithm::choose(isa, &turned, images, h, w);
            Method::Turned(Box::new(Conv2d::new(
                isa, turned, algorithm, &weight, None,
            )?))
        } else {
            let phases = (0..stride * stride)
                .map(|i| Phase::new(isa, &geometry, (i / stride, i % stride)))
                .collect();
            Method::Phased { isa, phases }
        };
        Ok(Self { geometry, method })
    }

    /// Packs the convolution's weights `[out][in][kh][kw]`.
    ///
    /// # Errors
    /// A slice of another length.
    pub fn repack(&mut self, weight: &[f32]) -> Result<()> {
        match &mut self.method {
            Method::Turned(conv) => conv.repack_transposed(weight),
            Method::Phased { phases, .. } => {
                let Geometry {
                    inputs,
                    outputs,
                    kernel: (kh, kw),
                    ..
                } = self.geometry;
                check_len("weight", inputs * outputs * kh * kw, weight.len())?;
                let filters = Filters {
                    data: weight,
                    inputs,
                    outputs,
                    taps: kh * kw,
                    transposed: false,
                };
                phases.iter_mut().for_each(|phase| phase.fill(filters));
                Ok(())
            }
        }
    }

    /// Memory of the packed weights, in bytes.
    pub fn weight_bytes(&self) -> usize {
        match &self.method {
            Method::Turned(conv) => conv.weight_bytes(),
            Method::Phased { phases, .. } => phases.iter().map(|p| p.panels.bytes()).sum(),
        }
    }

    /// Moves the packed weights into `memory`, which others may share.
    pub fn move_to(&mut self, memory: &mut Memory) {
        match &mut self.method {
            Method::Turned(conv) => conv.move_to(memory),
            Method::Phased { phases, .. } => {
                phases.iter_mut().for_each(|p| p.panels.move_to(memory));
            }
        }
    }

    /// Blocks of scratch for up to `n` images of `h` rows and `w` columns of the convolution's input.
    ///
    /// # Errors
    /// An image smaller than the kernel, or too large to address.
    pub fn scratch_len(&self, n: usize, h: usize, w: usize) -> Result<usize> {
        let out = self
            .geometry
            .output(Dims::new(n, self.geometry.inputs, h, w))?;
        match &self.method {
            Method::Turned(conv) => conv.scratch_len(n, out.h, out.w),
            Method::Phased { isa, phases } => {
                let taps = phases.iter().map(|p| p.taps.len()).max().unwrap_or(0);
                Ok(PIXELS * (taps * blocks(out.c) + isa.panel() / LANES))
            }
        }
    }

    /// Computes the gradient of `n` input images of `h` rows and `w` columns from that of the output, and sets `dx` to
    /// it or adds it.
    ///
    /// # Errors
    /// Slices of another length than the shapes call for.
    pub fn run(
        &self,
        (n, h, w): (usize, usize, usize),
        dy: &[Block],
        dx: &mut [Block],
        accumulate: bool,
        scratch: &mut [Block],
    ) -> Result<()> {
        let input = Dims::new(n, self.geometry.inputs, h, w);
        let out = self.geometry.output(input)?;
        check_len(
            "output gradient",
            out.block_len("output gradient")?,
            dy.len(),
        )?;
        check_len(
            "input gradient",
            input.block_len("input gradient")?,
            dx.len(),
        )?;
        check_at_least("scratch", self.scratch_len(n, h, w)?, scratch.len())?;
        match &self.method {
            Method::Turned(conv) => {
                let terms = [Term {
                    source: Source::Output,
                    relu: false,
                }];
                let fused = Fused {
                    terms: &terms[..usize::from(accumulate)],
                    ..Fused::default()
                };
                conv.run((n, out.h, out.w), dy, &fused, Output::raw(dx), scratch)
            }
            Method::Phased { isa, phases } => {
                for phase in phases {
                    if phase.at.0 < h && phase.at.1 < w {
                        let stride = self.geometry.stride;
                        // SAFETY: all lengths were checked.
                        unsafe {
                            phase.run(*isa, stride, input, out, dy, dx, accumulate, scratch);
                        }
                    }
                }
                Ok(())
            }
        }
    }
}

impl Phase {
    fn new(isa: Isa, geometry: &Geometry, at: (usize, usize)) -> Self {
        let (kh, kw) = geometry.kernel;
        // Tap `k` of output `o` reads input `o * stride + k - padding`.
        let offset = |at: usize, k: usize| {
            let distance = (at + geometry.padding) as isize - k as isize;
            let stride = geometry.stride as isize;
            (distance.rem_euclid(stride) == 0).then_some(distance.div_euclid(stride))
        };
        let mut taps = Vec::new();
        for ky in 0..kh {
            for kx in 0..kw {
                if let (Some(y), Some(x)) = (offset(at.0, ky), offset(at.1, kx)) {
                    taps.push(Tap {
                        index: ky * kw + kx,
                        offset: (y, x),
                    });
                }
            }
        }
        let k = taps.len() * blocks(geometry.outputs) * LANES;
        Self {
            at,
            panels: Panels::zeroed(isa, 1, k, geometry.inputs),
            taps,
        }
    }

    fn fill(&mut self, filters: Filters<'_>) {
        let per_tap = blocks(filters.outputs) * LANES;
        let taps = &self.taps;
        self.panels.fill(filters.inputs, None, |k, c| {
            let (tap, o) = (k / per_tap, k % per_tap);
            if o < filters.outputs {
                filters.at(o, c, taps[tap].index)
            } else {
                0.0
            }
        });
    }

    /// # Safety
    /// `dy`, `dx` and `scratch` have the lengths that the shapes call for.
    #[allow(clippy::too_many_arguments)]
    unsafe fn run(
        &self,
        isa: Isa,
        stride: usize,
        input: Dims,
        out: Dims,
        dy: &[Block],
        dx: &mut [Block],
        accumulate: bool,
        scratch: &mut [Block],
    ) {
        if self.taps.is_empty() && accumulate {
            return;
        }
        let (rows, cols) = (
            (input.h - self.at.0).div_ceil(stride),
            (input.w - self.at.1).div_ceil(stride),
        );
        let (ib, ob) = (blocks(input.c), blocks(out.c));
        let (c, gathered) = scratch.split_at_mut(PIXELS * isa.panel() / LANES);
        let (c, gathered): (*mut f32, *mut f32) =
            (c.as_mut_ptr().cast(), gathered.as_mut_ptr().cast());
        // Shifts all offsets to where they are not negative.
        let padding = 1usize << (usize::BITS / 2);
        for image in 0..input.n {
            let mut first = 0;
            while first < rows * cols {
                let count = PIXELS.min(rows * cols - first);
                for (i, tap) in self.taps.iter().enumerate() {
                    let at = |offset: isize| padding.wrapping_add_signed(offset);
                    // SAFETY: the image lies in `dy`, the scratch holds `PIXELS` rows of all taps.
                    unsafe {
                        isa.dispatch(Gather {
                            x: dy.as_ptr().add(image * ob * out.pixels()).cast(),
                            input: out,
                            width: cols,
                            blocks: ob,
                            tap: (at(tap.offset.0), at(tap.offset.1)),
                            stride: 1,
                            padding,
                            first,
                            count,
                            out: gathered.add(i * ob * count * LANES),
                        });
                    }
                }
                for panel in 0..self.panels.count() {
                    let (block, width) = self.panels.columns(panel);
                    // SAFETY: A holds `count` rows of all taps, C as many of a panel; the phase's pixels lie in `dx`.
                    unsafe {
                        isa.dispatch(Product {
                            walk: Walk::<LANES> {
                                a: gathered,
                                stride: count * LANES,
                                runs: self.taps.len() * ob,
                                depth: LANES,
                            },
                            rows: count,
                            b: self.panels.panel(panel),
                            next: self.panels.panel(panel),
                            width,
                            c,
                            c_stride: count * LANES,
                        });
                        for b in 0..width / LANES {
                            let plane = (image * ib + block + b) * input.pixels();
                            isa.dispatch(Scatter {
                                c: c.add(b * count * LANES),
                                dx: dx.as_mut_ptr().add(plane).cast(),
                                at: self.at,
                                stride,
                                cols,
                                row: input.w,
                                first,
                                count,
                                accumulate,
                            });
                        }
                    }
                }
                first += count;
            }
        }
    }
}

/// Brings pixels of a phase to their places.
struct Scatter {
    /// `[count][16]`.
    c: *const f32,
    /// One block of channels of one image.
    dx: *mut f32,
    at: (usize, usize),
    stride: usize,
    /// Pixels in a row of the phase, and of the image.
    cols: usize,
    row: usize,
    first: usize,
    count: usize,
    accumulate: bool,
}

impl Kernel for Scatter {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for i in 0..self.count {
            let pixel = self.first + i;
            let y = self.at.0 + pixel / self.cols * self.stride;
            let x = self.at.1 + pixel % self.cols * self.stride;
            let mut lane = 0;
            while lane < LANES {
                // SAFETY: the pixel lies in the image.
                unsafe {
                    let to = self.dx.add((y * self.row + x) * LANES + lane);
                    let mut v = S::load(self.c.add(i * LANES + lane));
                    if self.accumulate {
                        v = S::add(v, S::load(to));
                    }
                    S::store(to, v);
                }
                lane += S::LANES;
            }
        }
    }
}

impl std::fmt::Debug for InputGradient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InputGradient")
            .field("geometry", &self.geometry)
            .finish_non_exhaustive()
    }
}
