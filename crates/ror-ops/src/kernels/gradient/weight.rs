//! The gradient of a convolution's weights.
//!
//! A sum per thread takes in images as they come ([`WeightGradient::add`]); at the end [`WeightGradient::finish`]
//! adds the sums in their order and gives filters, so that the result depends on how images were dealt to sums and
//! on nothing else.

use std::ops::Range;

use super::super::blocked::{Block, Dims, LANES, blocks};
use super::super::direct::Gather;
use super::super::error::{Result, check_at_least, check_len, product};
use super::super::simd::Isa;
use super::super::winograd::WinogradGradient;
use super::super::{Geometry, KernelError};
use super::Outer;
use super::images::PlainGather;

/// Computes weight gradients of one convolution.
#[derive(Clone)]
pub struct WeightGradient {
    isa: Isa,
    geometry: Geometry,
    method: Method,
}

#[derive(Clone)]
enum Method {
    Winograd(WinogradGradient),
    /// A sum `[taps][inputs][outputs]`, channels padded to blocks.
    Direct,
    /// A sum `[in, kh, kw][outputs]`, padded to blocks: for plain images of few channels.
    Plain,
}

/// Pixels that are gathered together.
const PIXELS: usize = 64;

impl WeightGradient {
    /// For inputs in the blocked layout.
    ///
    /// # Errors
    /// Sizes of zero, or too large to address.
    pub fn new(isa: Isa, geometry: Geometry) -> Result<Self> {
        let method = if geometry.kernel == (3, 3) && geometry.stride == 1 && geometry.padding == 1 {
            Method::Winograd(WinogradGradient::new(
                isa,
                geometry.inputs,
                geometry.outputs,
            ))
        } else {
            Method::Direct
        };
        Self::with(isa, geometry, method)
    }

    /// For plain images N, C, H, W, as the first convolution of a network reads.
    ///
    /// # Errors
    /// Sizes of zero, or too large to address.
    pub fn of_images(isa: Isa, geometry: Geometry) -> Result<Self> {
        Self::with(isa, geometry, Method::Plain)
    }

    fn with(isa: Isa, geometry: Geometry, method: Method) -> Result<Self> {
        let Geometry {
            inputs,
            outputs,
            kernel: (kh, kw),
            stride,
            ..
        } = geometry;
        if inputs == 0 || outputs == 0 || kh == 0 || kw == 0 || stride == 0 {
            return Err(KernelError::Shape {
                what: "convolution",
                why: format!("a size of zero in {geometry:?}"),
            });
        }
        // The most that a sum takes.
        let taps = product("weight gradient", &[kh, kw])?.max(36);
        product(
            "weight gradient",
            &[taps, blocks(inputs) * LANES, blocks(outputs) * LANES],
        )?;
        Ok(Self {
            isa,
            geometry,
            method,
        })
    }

    /// Rows of a sum, in blocks.
    fn rows(&self) -> usize {
        let taps = self.geometry.kernel.0 * self.geometry.kernel.1;
        match self.method {
            Method::Winograd(_) => 36 * blocks(self.geometry.inputs),
            Method::Direct => taps * blocks(self.geometry.inputs),
            Method::Plain => blocks(taps * self.geometry.inputs),
        }
    }

    /// Blocks of a sum.
    pub fn sum_len(&self) -> usize {
        self.rows() * LANES * blocks(self.geometry.outputs)
    }

    /// Blocks of scratch for up to `n` images of `h` rows and `w` columns.
    ///
    /// # Errors
    /// An image smaller than the kernel, or too large to address.
    pub fn scratch_len(&self, n: usize, h: usize, w: usize) -> Result<usize> {
        let input = Dims::new(n, self.geometry.inputs, h, w);
        input.block_len("convolution input")?;
        let out = self.geometry.output(input)?;
        out.block_len("convolution output")?;
        Ok(match &self.method {
            Method::Winograd(m) => m.scratch(n.max(1), h, w),
            Method::Direct | Method::Plain => self.rows() * PIXELS.min(out.pixels()),
        })
    }

    /// Adds what `n` images of `h` rows and `w` columns and the gradient of their outputs give to `sum`, or with `set`
    /// sets it to that.
    ///
    /// # Errors
    /// Slices of another length than the shapes call for; an instance [of plain images](Self::of_images).
    pub fn add(
        &self,
        (n, h, w): (usize, usize, usize),
        x: &[Block],
        dy: &[Block],
        sum: &mut [Block],
        set: bool,
        scratch: &mut [Block],
    ) -> Result<()> {
        let input = Dims::new(n, self.geometry.inputs, h, w);
        let out = self.check(input, dy, sum, scratch)?;
        check_len(
            "convolution input",
            input.block_len("convolution input")?,
            x.len(),
        )?;
        if n == 0 {
            if set {
                sum.fill(Block::ZERO);
            }
            return Ok(());
        }
        match &self.method {
            Method::Winograd(m) => {
                // SAFETY: all lengths were checked.
                unsafe { m.add((n, h, w), x.as_ptr(), dy.as_ptr(), sum, set, scratch) };
                Ok(())
            }
            Method::Direct => {
                self.gathered(
                    out,
                    dy,
                    sum,
                    set,
                    scratch,
                    |image, first, count, gathered| {
                        self.gather(input, out, x, image, first, count, gathered);
                    },
                );
                Ok(())
            }
            Method::Plain => Err(KernelError::Shape {
                what: "convolution input",
                why: "expected plain images, found the blocked layout".to_owned(),
            }),
        }
    }

    /// As [`Self::add`] for plain images N, C, H, W.
    ///
    /// # Errors
    /// Slices of another length than the shapes call for; an instance that is not [of plain images](Self::of_images).
    pub fn add_images(
        &self,
        (n, h, w): (usize, usize, usize),
        x: &[f32],
        dy: &[Block],
        sum: &mut [Block],
        set: bool,
        scratch: &mut [Block],
    ) -> Result<()> {
        let input = Dims::new(n, self.geometry.inputs, h, w);
        let out = self.check(input, dy, sum, scratch)?;
        check_len("images", input.plain_len("images")?, x.len())?;
        if !matches!(self.method, Method::Plain) {
            return Err(KernelError::Shape {
                what: "convolution input",
                why: "expected the blocked layout, found plain images".to_owned(),
            });
        }
        if n == 0 && set {
            sum.fill(Block::ZERO);
        }
        self.gathered(
            out,
            dy,
            sum,
            set,
            scratch,
            |image, first, count, gathered| {
                PlainGather {
                    geometry: self.geometry,
                    input,
                    width: out.w,
                    x: &x[image * input.c * input.pixels()..][..input.c * input.pixels()],
                }
                .run(first, count, gathered);
            },
        );
        Ok(())
    }

    fn check(&self, input: Dims, dy: &[Block], sum: &[Block], scratch: &[Block]) -> Result<Dims> {
        let out = self.geometry.output(input)?;
        check_len(
            "output gradient",
            out.block_len("output gradient")?,
            dy.len(),
        )?;
        check_len("weight gradient sum", self.sum_len(), sum.len())?;
        check_at_least(
            "scratch",
            self.scratch_len(input.n, input.h, input.w)?,
            scratch.len(),
        )?;
        Ok(out)
    }

    /// One product per block of pixels, whose A `gather` brings into scratch as `[rows][count][16]`.
    fn gathered(
        &self,
        out: Dims,
        dy: &[Block],
        sum: &mut [Block],
        set: bool,
        scratch: &mut [Block],
        gather: impl Fn(usize, usize, usize, &mut [Block]),
    ) {
        let (pixels, ob) = (out.pixels(), blocks(out.c));
        let step = pixels.div_ceil(pixels.div_ceil(PIXELS));
        for image in 0..out.n {
            for first in (0..pixels).step_by(step) {
                let count = step.min(pixels - first);
                let gathered = &mut scratch[..self.rows() * count];
                gather(image, first, count, gathered);
                let dy = &dy[image * ob * pixels..][..ob * pixels];
                // SAFETY: A has `rows` blocks of `count` pixels, B `ob` planes with `count` pixels from `first` on, and
                // `sum` has `rows * 16` rows of `ob` blocks.
                unsafe {
                    self.isa.dispatch(Outer {
                        a: gathered.as_ptr().cast(),
                        a_stride: count * LANES,
                        a_blocks: self.rows(),
                        b: dy.as_ptr().add(first).cast(),
                        b_stride: pixels * LANES,
                        b_blocks: ob,
                        depth: count,
                        c: sum.as_mut_ptr().cast(),
                        accumulate: !(set && image == 0 && first == 0),
                    });
                }
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn gather(
        &self,
        input: Dims,
        out: Dims,
        x: &[Block],
        image: usize,
        first: usize,
        count: usize,
        gathered: &mut [Block],
    ) {
        let (kh, kw) = self.geometry.kernel;
        let ib = blocks(input.c);
        let x = &x[image * ib * input.pixels()..][..ib * input.pixels()];
        for (tap, to) in gathered[..kh * kw * ib * count]
            .chunks_exact_mut(ib * count)
            .enumerate()
        {
            // SAFETY: `x` is an image, and `to` has room for `count` pixels of all its channels.
            unsafe {
                self.isa.dispatch(Gather {
                    x: x.as_ptr().cast(),
                    input,
                    width: out.w,
                    blocks: ib,
                    tap: (tap / kw, tap % kw),
                    stride: self.geometry.stride,
                    padding: self.geometry.padding,
                    first,
                    count,
                    out: to.as_mut_ptr().cast(),
                });
            }
        }
    }

    /// The gradient of the filters of some output channels, `[outputs][in][kh][kw]`, from the sums in their order.
    ///
    /// Several threads may each take some channels; a share must start at a multiple of 16.
    ///
    /// # Errors
    /// Slices of another length; channels that do not exist or start within a block.
    pub fn finish(
        &self,
        sums: &[&[Block]],
        outputs: Range<usize>,
        gradient: &mut [f32],
    ) -> Result<()> {
        for sum in sums {
            check_len("weight gradient sum", self.sum_len(), sum.len())?;
        }
        if outputs.start > outputs.end
            || outputs.end > self.geometry.outputs
            || !outputs.start.is_multiple_of(LANES)
        {
            return Err(KernelError::Shape {
                what: "weight gradient",
                why: format!("channels {outputs:?} of {}", self.geometry.outputs),
            });
        }
        let inputs = self.geometry.inputs;
        let taps = self.geometry.kernel.0 * self.geometry.kernel.1;
        check_len(
            "weight gradient",
            outputs.len() * inputs * taps,
            gradient.len(),
        )?;
        if outputs.is_empty() {
            return Ok(());
        }
        // Row of the sum of each input channel and tap.
        let row: &dyn Fn(usize, usize) -> usize = match &self.method {
            Method::Winograd(m) => {
                // SAFETY: all lengths were checked.
                unsafe { m.finish(sums, outputs, gradient) };
                return Ok(());
            }
            Method::Direct => &|c, tap| tap * blocks(inputs) * LANES + c,
            Method::Plain => &|c, tap| c * taps + tap,
        };
        let ob = blocks(self.geometry.outputs);
        for block in outputs.start / LANES..blocks(outputs.end) {
            let lanes = (outputs.end - block * LANES).min(LANES);
            for c in 0..inputs {
                for tap in 0..taps {
                    let mut total = [0f32; LANES];
                    for sum in sums {
                        let from = &sum[row(c, tap) * ob + block].0;
                        total.iter_mut().zip(from).for_each(|(t, v)| *t += v);
                    }
                    for (lane, &v) in total[..lanes].iter().enumerate() {
                        let o = block * LANES + lane - outputs.start;
                        gradient[(o * inputs + c) * taps + tap] = v;
                    }
                }
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for WeightGradient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WeightGradient")
            .field("geometry", &self.geometry)
            .finish_non_exhaustive()
    }
}
