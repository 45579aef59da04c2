//! The way back through a normalisation.

use super::super::blocked::{Block, Dims, LANES, blocks};
use super::super::error::{Result, check_len};
use super::super::simd::{Isa, Kernel, Simd, load, store};
use super::{Affine, RUN, Sums, check_tensor, normalised, widen};

/// `sum dz` and `sum dz (x - mean)` of every channel.
#[derive(Clone, Debug)]
pub struct GradientMoments {
    channels: usize,
    sum: Vec<Sums>,
    product: Vec<Sums>,
}

impl GradientMoments {
    /// Of no values.
    pub fn new(channels: usize) -> Self {
        Self {
            channels,
            sum: vec![[0.0; LANES]; blocks(channels)],
            product: vec![[0.0; LANES]; blocks(channels)],
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.sum.fill([0.0; LANES]);
        self.product.fill([0.0; LANES]);
    }

    /// Takes in the gradient `da` of what the normalisation of `x` gave, rectified if `relu`.
    ///
    /// # Errors
    /// Another number of channels; slices of another length than `dims` calls for.
    pub fn add(
        &mut self,
        isa: Isa,
        dims: Dims,
        x: &[Block],
        da: &[Block],
        affine: &Affine<'_>,
        relu: bool,
    ) -> Result<()> {
        check_len("channels", self.channels, dims.c)?;
        check_tensor("normalisation input", dims, x)?;
        check_tensor("normalisation gradient", dims, da)?;
        affine.check(dims.c)?;
        if x.is_empty() {
            return Ok(());
        }
        // SAFETY: the kernel works on slices.
        unsafe {
            isa.dispatch(Add {
                x,
                da,
                pixels: dims.pixels(),
                affine: *affine,
                relu,
                sum: &mut self.sum,
                product: &mut self.product,
            });
        }
        Ok(())
    }

    /// Both sums of every channel over all parts, in their order.
    ///
    /// # Errors
    /// Parts of different numbers of channels.
    pub fn total(parts: &[&Self]) -> Result<Vec<(f64, f64)>> {
        let channels = parts.first().map_or(0, |p| p.channels);
        for part in parts {
            check_len("channels", channels, part.channels)?;
        }
        let total = |c: usize| {
            let (block, lane) = (c / LANES, c % LANES);
            parts.iter().fold((0.0, 0.0), |(sum, product), part| {
                (
                    sum + part.sum[block][lane],
                    product + part.product[block][lane],
                )
            })
        };
        Ok((0..channels).map(total).collect())
    }
}

struct Add<'a> {
    x: &'a [Block],
    da: &'a [Block],
    pixels: usize,
    affine: Affine<'a>,
    relu: bool,
    sum: &'a mut [Sums],
    product: &'a mut [Sums],
}

impl Kernel for Add<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: passes on the contract.
        unsafe {
            if self.relu {
                self.planes::<S, true>();
            } else {
                self.planes::<S, false>();
            }
        }
    }
}

impl Add<'_> {
    /// # Safety
    /// The processor has `S`.
    #[inline(always)]
    unsafe fn planes<S: Simd, const RELU: bool>(self) {
        let planes = self.x.chunks_exact(self.pixels);
        for (plane, (x, da)) in planes.zip(self.da.chunks_exact(self.pixels)).enumerate() {
            let block = plane % self.sum.len();
            for (x, da) in x.chunks(RUN).zip(da.chunks(RUN)) {
                for lane in (0..LANES).step_by(S::LANES) {
                    // SAFETY: `lane` is a whole number of vectors.
                    unsafe {
                        let zero = S::splat(0.0);
                        let affine = self.affine.lanes::<S>(block, lane);
                        let (mut sum, mut product) = ([zero; 4], [zero; 4]);
                        let mut add = |i: usize, x: &Block, da: &Block| {
                            let (d, z) = normalised::<S>(load::<S>(x, lane), affine);
                            let da = load::<S>(da, lane);
                            let dz = if RELU { S::where_positive(z, da) } else { da };
                            sum[i] = S::add(sum[i], dz);
                            product[i] = S::mul_add(dz, d, product[i]);
                        };
                        let (x4, x1) = x.as_chunks::<4>();
                        let (da4, da1) = da.as_chunks::<4>();
                        for (x, da) in x4.iter().zip(da4) {
                            for i in 0..4 {
                                add(i, &x[i], &da[i]);
                            }
                        }
                        for (x, da) in x1.iter().zip(da1) {
                            add(0, x, da);
                        }
                        let total = |v: [S::V; 4]| S::add(S::add(v[0], v[1]), S::add(v[2], v[3]));
                        widen::<S>(&mut self.sum[block], lane, total(sum));
                        widen::<S>(&mut self.product[block], lane, total(product));
                    }
                }
            }
        }
    }
}

/// `dx = dz * scale + (x - mean) * slope + offset`, per channel.
#[derive(Clone, Copy, Debug)]
pub struct NormGradient<'a> {
    /// What the normalisation did.
    pub affine: Affine<'a>,
    /// Whether a rectifier followed.
    pub relu: bool,
    /// `-scale * (sum dz (x - mean)) / ((variance + epsilon) m)`.
    pub slope: &'a [Block],
    /// `-scale * (sum dz) / m`.
    pub offset: &'a [Block],
}

impl NormGradient<'_> {
    /// Computes the gradient of the input `x` from that of the result, and sets `dx` to it or adds it.
    ///
    /// # Errors
    /// Slices of another length than `dims` calls for.
    pub fn run(
        &self,
        isa: Isa,
        dims: Dims,
        x: &[Block],
        da: &[Block],
        dx: &mut [Block],
        accumulate: bool,
    ) -> Result<()> {
        check_tensor("normalisation input", dims, x)?;
        check_tensor("normalisation gradient", dims, da)?;
        check_tensor("input gradient", dims, dx)?;
        self.affine.check(dims.c)?;
        check_len("normalisation slope", blocks(dims.c), self.slope.len())?;
        check_len("normalisation offset", blocks(dims.c), self.offset.len())?;
        if x.is_empty() {
            return Ok(());
        }
        // SAFETY: the kernel works on slices.
        unsafe {
            isa.dispatch(Apply {
                gradient: *self,
                x,
                da,
                dx,
                pixels: dims.pixels(),
                accumulate,
            });
        }
        Ok(())
    }
}

struct Apply<'a> {
    gradient: NormGradient<'a>,
    x: &'a [Block],
    da: &'a [Block],
    dx: &'a mut [Block],
    pixels: usize,
    accumulate: bool,
}

impl Kernel for Apply<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: passes on the contract.
        unsafe {
            match (self.gradient.relu, self.accumulate) {
                (true, true) => self.planes::<S, true, true>(),
                (true, false) => self.planes::<S, true, false>(),
                (false, true) => self.planes::<S, false, true>(),
                (false, false) => self.planes::<S, false, false>(),
            }
        }
    }
}

impl Apply<'_> {
    /// # Safety
    /// The processor has `S`.
    #[inline(always)]
    unsafe fn planes<S: Simd, const RELU: bool, const ACCUMULATE: bool>(self) {
        let Self {
            gradient, pixels, ..
        } = self;
        let planes = self
            .x
            .chunks_exact(pixels)
            .zip(self.da.chunks_exact(pixels));
        let planes = planes.zip(self.dx.chunks_exact_mut(pixels)).enumerate();
        for (plane, ((x, da), dx)) in planes {
            let block = plane % gradient.slope.len();
            let runs = x.chunks(RUN).zip(da.chunks(RUN)).zip(dx.chunks_mut(RUN));
            for ((x, da), dx) in runs {
                for lane in (0..LANES).step_by(S::LANES) {
                    // SAFETY: `lane` is a whole number of vectors.
                    unsafe {
                        let affine = gradient.affine.lanes::<S>(block, lane);
                        let slope = load::<S>(&gradient.slope[block], lane);
                        let offset = load::<S>(&gradient.offset[block], lane);
                        for ((x, da), dx) in x.iter().zip(da).zip(&mut *dx) {
                            let (d, z) = normalised::<S>(load::<S>(x, lane), affine);
                            let da = load::<S>(da, lane);
                            let dz = if RELU { S::where_positive(z, da) } else { da };
                            let mut v = S::mul_add(dz, affine[1], S::mul_add(d, slope, offset));
                            if ACCUMULATE {
                                v = S::add(load::<S>(dx, lane), v);
                            }
                            store::<S>(dx, lane, v);
                        }
                    }
                }
            }
        }
    }
}
