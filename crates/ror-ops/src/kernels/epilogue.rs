//! What follows a convolution, fused into the pass that stores its result.

use std::ops::Range;

use super::blocked::{Block, Dims, LANES, blocks, shape_error};
use super::error::{Result, check_len};
use super::gemm::BiasRelu;
use super::simd::Simd;

/// Most terms that one convolution adds: the shortcuts of a network's levels, from the block's to the root's.
pub const MAX_TERMS: usize = 5;

/// Where an added term comes from.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// A tensor of the convolution's (unpooled) output shape.
    Tensor(&'a [Block]),
    /// What [`Output::raw`] holds before the call, so that a residual stream is updated in place.
    Output,
}

/// A shortcut added to the result.
#[derive(Clone, Copy, Debug)]
pub struct Term<'a> {
    /// What is added.
    pub source: Source<'a>,
    /// Whether a ReLU follows the sum.
    pub relu: bool,
}

/// The operations fused into a convolution; the default fuses none.
///
/// Per output value `v`, in this order:
///
/// 1. `v += bias`, then ReLU if [`Fused::relu`];
/// 2. for each of [`Fused::terms`]: `v += term`, then ReLU if the term says so;
/// 3. 2x2 max pool with stride 2, if [`Fused::pool`];
/// 4. `v` goes to [`Output::raw`], `relu(v * scale + shift)` to [`Output::preact`], where given.
///
/// So one convolution can write a residual stream and the pre-activation of the block that reads it next.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fused<'a> {
    /// ReLU directly after the bias.
    pub relu: bool,
    /// Shortcuts to add, at most [`MAX_TERMS`].
    pub terms: &'a [Term<'a>],
    /// 2x2 max pool with stride 2 after the last sum; odd rows and columns at the end are dropped.
    pub pool: bool,
}

/// The pre-activation of the next block: `relu(v * scale + shift)`.
#[derive(Debug)]
pub struct Preact<'a> {
    /// Where it goes; the shape of the (pooled) output.
    pub out: &'a mut [Block],
    /// A factor per output channel, as [`channel_blocks`](super::blocked::channel_blocks).
    pub scale: &'a [Block],
    /// An addend per output channel.
    pub shift: &'a [Block],
}

/// Where a convolution writes.
#[derive(Debug, Default)]
pub struct Output<'a> {
    /// The result itself.
    pub raw: Option<&'a mut [Block]>,
    /// Its pre-activation.
    pub preact: Option<Preact<'a>>,
}

impl<'a> Output<'a> {
    /// Only the result itself.
    pub fn raw(out: &'a mut [Block]) -> Self {
        Self {
            raw: Some(out),
            preact: None,
        }
    }
}

/// Shapes of an [`Epilogue`]: any at all.
pub(super) const ANY: u8 = 0;
/// No terms; the result goes to the raw output.
pub(super) const PLAIN: u8 = 1;
/// One term; the result goes to the raw output and its pre-activation.
pub(super) const RESIDUAL: u8 = 2;

/// [`Fused`] and [`Output`] with every length checked, as pointers that threads may share: each thread writes
/// only the pixels and channels of its own part.
#[derive(Clone, Copy)]
pub(super) struct Epilogue {
    bias: *const f32,
    relu: bool,
    terms: [(*const f32, bool); MAX_TERMS],
    count: usize,
    pub pool: bool,
    raw: *mut f32,
    preact: *mut f32,
    scale: *const f32,
    shift: *const f32,
    /// Blocks of channels, rows and columns of the unpooled output.
    blocks: usize,
    h: usize,
    w: usize,
}

// SAFETY: the pointers come from slices borrowed for longer than the parallel run that shares them, and parts
// write disjoint elements.
unsafe impl Sync for Epilogue {}

impl Epilogue {
    /// Checks every length against `out`, the unpooled output.
    pub(super) fn new(
        out: Dims,
        bias: &[Block],
        fused: &Fused<'_>,
        output: &mut Output<'_>,
    ) -> Result<Self> {
        let full = out.block_len("output")?;
        let written = if fused.pool {
            Dims {
                h: out.h / 2,
                w: out.w / 2,
                ..out
            }
        } else {
            out
        };
        let len = written.block_len("output")?;
        let channels = blocks(out.c);
        check_len("bias", channels, bias.len())?;

        let raw: *mut f32 = match output.raw.as_deref_mut() {
            Some(raw) => {
                check_len("raw output", len, raw.len())?;
                raw.as_mut_ptr().cast()
            }
            None => std::ptr::null_mut(),
        };
        let mut preact = (std::ptr::null_mut(), std::ptr::null(), std::ptr::null());
        if let Some(p) = &mut output.preact {
            check_len("pre-activation output", len, p.out.len())?;
            check_len("pre-activation scale", channels, p.scale.len())?;
            check_len("pre-activation shift", channels, p.shift.len())?;
            preact = (
                p.out.as_mut_ptr().cast(),
                p.scale.as_ptr().cast(),
                p.shift.as_ptr().cast(),
            );
        }

        if fused.terms.len() > MAX_TERMS {
            return Err(shape_error(
                "terms",
                format!("{} of them, at most {MAX_TERMS}", fused.terms.len()),
            ));
        }
        let mut terms = [(std::ptr::null(), false); MAX_TERMS];
        for (slot, term) in terms.iter_mut().zip(fused.terms) {
            let source = match term.source {
                Source::Tensor(t) => {
                    check_len("term", full, t.len())?;
                    t.as_ptr().cast()
                }
                Source::Output if raw.is_null() => {
                    return Err(shape_error(
                        "term",
                        "adds the raw output, but none is given",
                    ));
                }
                Source::Output if fused.pool => {
                    return Err(shape_error(
                        "term",
                        "adds the raw output, which has the pooled shape",
                    ));
                }
                Source::Output => raw.cast_const(),
            };
            *slot = (source, term.relu);
        }
        Ok(Self {
            bias: bias.as_ptr().cast(),
            relu: fused.relu,
            terms,
            count: fused.terms.len(),
            pool: fused.pool,
            raw,
            preact: preact.0,
            scale: preact.1,
            shift: preact.2,
            blocks: channels,
            h: out.h,
            w: out.w,
        })
    }

    /// Where pixel `first` of a block of channels goes, and what is done to it, if that is no more than bias and
    /// rectifier.
    pub(super) fn bias_relu(
        &self,
        image: usize,
        block: usize,
        first: usize,
    ) -> Option<(*mut f32, BiasRelu)> {
        let raw = (self.shape() == PLAIN).then_some(self.raw)?;
        let pixel = (image * self.blocks + block) * self.h * self.w + first;
        let bias = self.bias.wrapping_add(block * LANES);
        let relu = self.relu;
        Some((raw.wrapping_add(pixel * LANES), BiasRelu { bias, relu }))
    }

    /// Asks for rows of pixels of the (unpooled) output that are about to be written.
    #[inline(always)]
    pub(super) fn claim<S: Simd>(&self, image: usize, blocks: Range<usize>, rows: Range<usize>) {
        let pool = if self.pool { 2 } else { 1 };
        let (h, w) = (self.h / pool, self.w / pool);
        for block in blocks {
            let plane = (image * self.blocks + block) * h;
            for line in (plane + rows.start / pool) * w..(plane + rows.end / pool) * w {
                for out in [self.raw, self.preact].into_iter().filter(|p| !p.is_null()) {
                    S::claim(out.wrapping_add(line * LANES));
                }
            }
        }
    }

    /// Finishes a run of pixels of one block of channels, `len` blocks from `c`, the first being pixel `first`.
    ///
    /// # Safety
    /// The processor has `S`; image, block and pixels lie in the output; `c` holds `len` blocks.
    #[inline(always)]
    pub(super) unsafe fn finish_run<S: Simd>(
        &self,
        c: *const f32,
        image: usize,
        block: usize,
        first: usize,
        len: usize,
    ) {
        // SAFETY: lengths were checked in `new`; the caller keeps image, block and pixels in range.
        unsafe {
            let at = ((image * self.blocks + block) * self.h * self.w + first) * LANES;
            let mut lane = 0;
            while lane < LANES {
                let channel = block * LANES + lane;
                let bias = S::load(self.bias.add(channel));
                let affine = self.affine::<S, ANY>(channel);
                for pixel in 0..len {
                    let offset = at + pixel * LANES + lane;
                    let mut v = [S::add(S::load(c.add(pixel * LANES + lane)), bias)];
                    self.combine::<S, 1, ANY>(&mut v, |_| offset);
                    self.write::<S, ANY>(v[0], affine, offset);
                }
                lane += S::LANES;
            }
        }
    }

    /// Which of the common shapes this has, for which kernels are compiled without its other branches.
    #[inline(always)]
    pub(super) fn shape(&self) -> u8 {
        let raw = !self.raw.is_null() && !self.pool;
        match (self.count, self.preact.is_null()) {
            (0, true) if raw => PLAIN,
            (1, false) if raw && !self.relu => RESIDUAL,
            _ => ANY,
        }
    }

    /// The bias of the channels of a block from `lane` on.
    ///
    /// # Safety
    /// The processor has `S`; the block lies in the output; `lane` is a multiple of `S::LANES` below 16.
    #[inline(always)]
    pub(super) unsafe fn bias<S: Simd>(&self, block: usize, lane: usize) -> S::V {
        // SAFETY: the length was checked in `new`.
        unsafe { S::load(self.bias.add(block * LANES + lane)) }
    }

    /// Finishes two rows of `M` pixels with their bias, of which `rows` x `cols` lie in the image, the first in an even
    /// row and column.
    ///
    /// # Safety
    /// The processor has `S`; image, block and the valid pixels lie in the output; `lane` is a multiple of
    /// `S::LANES` below 16. `rows` is at least 1; with `FULL`, at least 2, and `cols` is `M`. `SHAPE` is [`ANY`] or
    /// [`Self::shape`].
    #[inline(always)]
    pub(super) unsafe fn finish_pair<S: Simd, const M: usize, const SHAPE: u8, const FULL: bool>(
        &self,
        mut pair: [[S::V; M]; 2],
        (image, block, lane): (usize, usize, usize),
        (y, x): (usize, usize),
        (rows, cols): (usize, usize),
    ) {
        // SAFETY: lengths were checked in `new`; rows and columns outside the image are skipped.
        unsafe {
            let affine = self.affine::<S, SHAPE>(block * LANES + lane);
            let plane = image * self.blocks + block;
            let at = (plane * self.h * self.w + y * self.w + x) * LANES + lane;
            let cols = if FULL { M } else { cols };
            let pool = SHAPE == ANY && self.pool;
            for (i, row) in pair.iter_mut().enumerate() {
                if FULL || i < rows {
                    let at = at + i * self.w * LANES;
                    self.combine::<S, M, SHAPE>(row, |j| {
                        at + if FULL || j < cols { j * LANES } else { 0 }
                    });
                    if !pool {
                        for (j, &v) in row.iter().enumerate() {
                            if FULL || j < cols {
                                self.write::<S, SHAPE>(v, affine, at + j * LANES);
                            }
                        }
                    }
                }
            }
            if pool && (FULL || rows > 1) {
                let (h, w) = (self.h / 2, self.w / 2);
                let at = (plane * h * w + y / 2 * w + x / 2) * LANES + lane;
                let [top, bottom] = pair;
                for j in 0..M / 2 {
                    if FULL || 2 * j + 1 < cols {
                        let top = S::max_nan(top[2 * j], top[2 * j + 1]);
                        let bottom = S::max_nan(bottom[2 * j], bottom[2 * j + 1]);
                        self.write::<S, SHAPE>(S::max_nan(top, bottom), affine, at + j * LANES);
                    }
                }
            }
        }
    }

    /// Steps 1 (without bias) and 2 of [`Fused`] for values at the given offsets of the unpooled output.
    #[inline(always)]
    unsafe fn combine<S: Simd, const M: usize, const SHAPE: u8>(
        &self,
        values: &mut [S::V; M],
        offset: impl Fn(usize) -> usize,
    ) {
        // SAFETY: the caller's offsets lie in the unpooled output, which every term has the length of.
        unsafe {
            let zero = S::splat(0.0);
            if SHAPE != RESIDUAL && self.relu {
                for v in values.iter_mut() {
                    *v = S::max(zero, *v);
                }
            }
            let count = match SHAPE {
                PLAIN => 0,
                RESIDUAL => 1,
                _ => self.count,
            };
            for &(term, relu) in &self.terms[..count] {
                for (j, v) in values.iter_mut().enumerate() {
                    *v = S::add(*v, S::load(term.add(offset(j))));
                }
                if relu {
                    for v in values.iter_mut() {
                        *v = S::max(zero, *v);
                    }
                }
            }
        }
    }

    /// The scale and shift of the pre-activation of a vector of channels; any values where there is none.
    #[inline(always)]
    unsafe fn affine<S: Simd, const SHAPE: u8>(&self, channel: usize) -> (S::V, S::V) {
        // SAFETY: the caller's channel exists; the lengths were checked in `new`.
        unsafe {
            if self.preacts::<SHAPE>() {
                let (scale, shift) = (self.scale.add(channel), self.shift.add(channel));
                (S::load(scale), S::load(shift))
            } else {
                (S::splat(0.0), S::splat(0.0))
            }
        }
    }

    #[inline(always)]
    fn preacts<const SHAPE: u8>(&self) -> bool {
        SHAPE == RESIDUAL || (SHAPE == ANY && !self.preact.is_null())
    }

    /// Step 4 of [`Fused`].
    #[inline(always)]
    unsafe fn write<S: Simd, const SHAPE: u8>(
        &self,
        v: S::V,
        (scale, shift): (S::V, S::V),
        offset: usize,
    ) {
        // SAFETY: the caller's offset lies in the output, whose length was checked.
        unsafe {
            if SHAPE != ANY || !self.raw.is_null() {
                S::store(self.raw.add(offset), v);
            }
            if self.preacts::<SHAPE>() {
                let v = S::max(S::splat(0.0), S::mul_add(v, scale, shift));
                S::store(self.preact.add(offset), v);
            }
        }
    }
}
