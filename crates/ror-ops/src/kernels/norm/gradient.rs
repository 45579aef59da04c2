//! The way back through a normalisation.

use super::super::blocked::{Block, Dims, LANES, blocks};
use super::super::error::{Result, check_len};
use super::super::simd::{Isa, Kernel, Simd};
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
        if self.relu {
            self.planes::<true>();
        } else {
            self.planes::<false>();
        }
    }
}

impl Add<'_> {
    #[inline(always)]
    fn planes<const RELU: bool>(self) {
        let planes = self.x.chunks_exact(self.pixels);
        for (plane, (x, da)) in planes.zip(self.da.chunks_exact(self.pixels)).enumerate() {
            let block = plane % self.sum.len();
            let [mean, scale, shift] = self.affine.block(block);
            for (x, da) in x.chunks(RUN).zip(da.chunks(RUN)) {
                let mut sum = [[0f32; LANES]; 4];
                let mut product = [[0f32; LANES]; 4];
                let mut add = |i: usize, x: &Block, da: &Block| {
                    for l in 0..LANES {
                        let d = x.0[l] - mean[l];
                        let positive = !RELU || d * scale[l] + shift[l] > 0.0;
                        let dz = if positive { da.0[l] } else { 0.0 };
                        sum[i][l] += dz;
                        product[i][l] += dz * d;
                    }
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
                for i in 0..4 {
                    widen(&mut self.sum[block], &sum[i]);
                    widen(&mut self.product[block], &product[i]);
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
        match (self.gradient.relu, self.accumulate) {
            (true, true) => self.planes::<true, true>(),
            (true, false) => self.planes::<true, false>(),
            (false, true) => self.planes::<false, true>(),
            (false, false) => self.planes::<false, false>(),
        }
    }
}

impl Apply<'_> {
    #[inline(always)]
    fn planes<const RELU: bool, const ACCUMULATE: bool>(self) {
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
            let [mean, scale, shift] = gradient.affine.block(block);
            let (slope, offset) = (gradient.slope[block].0, gradient.offset[block].0);
            for ((x, da), dx) in x.iter().zip(da).zip(dx) {
                for l in 0..LANES {
                    let z = normalised(x.0[l], mean[l], scale[l], shift[l]);
                    let dz = if !RELU || z > 0.0 { da.0[l] } else { 0.0 };
                    let value = dz * scale[l] + ((x.0[l] - mean[l]) * slope[l] + offset[l]);
                    dx.0[l] = if ACCUMULATE { dx.0[l] + value } else { value };
                }
            }
        }
    }
}
