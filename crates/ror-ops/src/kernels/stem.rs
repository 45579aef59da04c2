//! The first convolution of a network, straight from plain images of few channels.
//!
//! Padding 3 channels to a block would waste 13/16 of the work. Instead rows of all channels are copied, padded,
//! to `[row][C][width]`, where the kernel's rows are runs of consecutive `k` and neighbouring output pixels lie
//! the stride apart, as [`Product`] wants it.

use std::ops::Range;

use super::blocked::{Block, Dims, LANES, as_flat_mut, check_affine, shape_error};
use super::direct::Finish;
use super::epilogue::{Epilogue, Fused, Output};
use super::error::{Result, check_at_least, check_finite, check_len, product};
use super::gemm::{Panels, Product, Walk};
use super::geometry::Geometry;
use super::simd::Isa;
use super::split::Split;
use super::threads::Pool;

/// Images in a layout that a user has them in.
#[derive(Clone, Copy, Debug)]
pub enum Plain<'a> {
    /// N, C, H, W.
    F32(&'a [f32]),
    /// 8-bit images N, H, W, C, taken as `value * scale[c] + shift[c]`.
    U8 {
        /// The images.
        pixels: &'a [u8],
        /// A factor per channel.
        scale: &'a [f32],
        /// An addend per channel.
        shift: &'a [f32],
    },
}

/// A packed convolution of plain images, stride 1 or 2.
#[derive(Clone)]
pub struct Stem {
    isa: Isa,
    geometry: Geometry,
    panels: Panels,
    bias: Vec<Block>,
}

impl std::fmt::Debug for Stem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stem")
            .field("geometry", &self.geometry)
            .finish_non_exhaustive()
    }
}

/// Output rows whose input rows are copied together.
const ROWS: usize = 8;

impl Stem {
    /// Packs weights `[out][in][kh][kw]` and a bias per output channel.
    ///
    /// # Errors
    /// A stride other than 1 and 2; sizes of zero; slices of another length; values that are not finite.
    pub fn new(isa: Isa, geometry: Geometry, weight: &[f32], bias: Option<&[f32]>) -> Result<Self> {
        check_finite("weight", weight)?;
        check_finite("bias", bias.unwrap_or_default())?;
        Self::pack(isa, geometry, weight, bias)
    }

    /// As [`Self::new`], of any values.
    pub(crate) fn pack(
        isa: Isa,
        geometry: Geometry,
        weight: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<Self> {
        let bias = geometry.check(weight, bias)?;
        if !(1..=2).contains(&geometry.stride) {
            return Err(shape_error(
                "stem",
                format!("stride {} is neither 1 nor 2", geometry.stride),
            ));
        }
        let Geometry {
            inputs,
            outputs,
            kernel: (kh, kw),
            ..
        } = geometry;
        let mut panels = Panels::zeroed(isa, 1, kh * inputs * kw, outputs);
        panels.fill(outputs, None, |k, o| {
            let (y, c, x) = (k / kw / inputs, k / kw % inputs, k % kw);
            weight[((o * inputs + c) * kh + y) * kw + x]
        });
        Ok(Self {
            isa,
            geometry,
            panels,
            bias,
        })
    }

    /// The shape it was packed for.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Memory of the packed weights, in bytes.
    pub fn weight_bytes(&self) -> usize {
        self.panels.bytes()
    }

    /// Blocks of scratch that a thread needs for images of `w` columns.
    ///
    /// # Errors
    /// A width smaller than the kernel, or too large to address.
    pub fn scratch_len(&self, h: usize, w: usize) -> Result<usize> {
        let input = Dims::new(1, self.geometry.inputs, h, w);
        input.plain_len("stem input")?;
        let out = self.geometry.output(input)?;
        let padded = product(
            "stem scratch",
            &[self.rows(ROWS), self.geometry.inputs, self.width(w)],
        )?;
        Ok(padded.div_ceil(LANES) + out.w * self.isa.panel() / LANES)
    }

    fn rows(&self, outputs: usize) -> usize {
        (outputs - 1) * self.geometry.stride + self.geometry.kernel.0
    }

    fn width(&self, w: usize) -> usize {
        w + 2 * self.geometry.padding
    }

    /// Convolves `n` images of `h` rows and `w` columns.
    ///
    /// # Errors
    /// Slices of another length than the shapes call for; a pool among the fused operations.
    pub fn run(
        &self,
        (n, h, w): (usize, usize, usize),
        x: Plain<'_>,
        fused: &Fused<'_>,
        mut output: Output<'_>,
        scratch: &mut [Block],
    ) -> Result<()> {
        let (dims, out, epilogue) = self.check((n, h, w), x, fused, &mut output)?;
        check_at_least("scratch", self.scratch_len(h, w)?, scratch.len())?;
        // SAFETY: `check` found every length right, and this thread has the whole output.
        unsafe { self.part(dims, out, x, &epilogue, 0..n * out.h, scratch) };
        Ok(())
    }

    /// As [`Self::run`] on all threads of `pool`, each with its equal share of `scratch`.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_on(
        &self,
        pool: &Pool,
        (n, h, w): (usize, usize, usize),
        x: Plain<'_>,
        fused: &Fused<'_>,
        mut output: Output<'_>,
        scratch: &mut [Block],
    ) -> Result<()> {
        let (dims, out, epilogue) = self.check((n, h, w), x, fused, &mut output)?;
        let split = Split::rows(n * out.h, pool.threads());
        pool.run_with(scratch, self.scratch_len(h, w)?, |thread, scratch| {
            let (rows, _) = split.part(thread);
            // SAFETY: `check` found every length right; parts have disjoint rows.
            unsafe { self.part(dims, out, x, &epilogue, rows, scratch) };
        })
    }

    fn check(
        &self,
        (n, h, w): (usize, usize, usize),
        x: Plain<'_>,
        fused: &Fused<'_>,
        output: &mut Output<'_>,
    ) -> Result<(Dims, Dims, Epilogue)> {
        let dims = Dims::new(n, self.geometry.inputs, h, w);
        let out = self.geometry.output(dims)?;
        let len = dims.plain_len("images")?;
        match x {
            Plain::F32(x) => check_len("images", len, x.len())?,
            Plain::U8 {
                pixels,
                scale,
                shift,
            } => {
                check_len("images", len, pixels.len())?;
                check_affine(dims.c, scale, shift)?;
            }
        }
        if fused.pool {
            return Err(shape_error("stem", "cannot pool its output"));
        }
        Ok((dims, out, Epilogue::new(out, &self.bias, fused, output)?))
    }

    /// Convolves `rows` of the output, counted through all images.
    ///
    /// # Safety
    /// Lengths were checked, and no other thread writes these rows.
    unsafe fn part(
        &self,
        dims: Dims,
        out: Dims,
        x: Plain<'_>,
        epilogue: &Epilogue,
        rows: Range<usize>,
        scratch: &mut [Block],
    ) {
        let Geometry {
            inputs,
            kernel: (kh, kw),
            stride,
            ..
        } = self.geometry;
        let width = self.width(dims.w);
        let (c, padded) = scratch.split_at_mut(out.w * self.isa.panel() / LANES);
        let c: *mut f32 = c.as_mut_ptr().cast();
        let padded = as_flat_mut(padded);
        let mut row = rows.start;
        while row < rows.end {
            let (image, y) = (row / out.h, row % out.h);
            let count = ROWS.min(rows.end - row).min(out.h - y);
            self.pad(
                dims,
                x,
                image,
                y * stride,
                &mut padded[..self.rows(count) * inputs * width],
            );
            for i in 0..count {
                let a = padded[i * stride * inputs * width..].as_ptr();
                for panel in 0..self.panels.count() {
                    let (block, panel_width) = self.panels.columns(panel);
                    let b = self.panels.panel(panel);
                    // SAFETY: `kh * inputs` padded rows follow `a`, each with room for the last pixel's taps;
                    // `c` holds a row of the panel's output, and the row lies in the output.
                    unsafe {
                        let (runs, rows, c_stride) = (kh * inputs, out.w, out.w * LANES);
                        if stride == 1 {
                            let walk = Walk::<1> {
                                a,
                                stride: width,
                                runs,
                                depth: kw,
                            };
                            self.isa.dispatch(Product {
                                walk,
                                rows,
                                b,
                                next: b,
                                width: panel_width,
                                c,
                                c_stride,
                            });
                        } else {
                            let walk = Walk::<2> {
                                a,
                                stride: width,
                                runs,
                                depth: kw,
                            };
                            self.isa.dispatch(Product {
                                walk,
                                rows,
                                b,
                                next: b,
                                width: panel_width,
                                c,
                                c_stride,
                            });
                        }
                        let (first, count) = ((y + i) * out.w, out.w);
                        let width = panel_width;
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
            row += count;
        }
    }

    /// Copies input rows from padded row `first` on to `[row][C][width]`.
    fn pad(&self, dims: Dims, x: Plain<'_>, image: usize, first: usize, out: &mut [f32]) {
        let padding = self.geometry.padding;
        let width = self.width(dims.w);
        for (i, rows) in out.chunks_exact_mut(dims.c * width).enumerate() {
            let y = (first + i).wrapping_sub(padding);
            if y >= dims.h {
                rows.fill(0.0);
                continue;
            }
            for (c, row) in rows.chunks_exact_mut(width).enumerate() {
                let (left, rest) = row.split_at_mut(padding);
                let (middle, right) = rest.split_at_mut(dims.w);
                left.fill(0.0);
                right.fill(0.0);
                match x {
                    Plain::F32(x) => {
                        let from = ((image * dims.c + c) * dims.h + y) * dims.w;
                        middle.copy_from_slice(&x[from..from + dims.w]);
                    }
                    Plain::U8 {
                        pixels,
                        scale,
                        shift,
                    } => {
                        let from = (image * dims.h + y) * dims.w * dims.c;
                        let pixels = &pixels[from..from + dims.w * dims.c];
                        for (out, pixel) in middle.iter_mut().zip(pixels.chunks_exact(dims.c)) {
                            *out = f32::from(pixel[c]) * scale[c] + shift[c];
                        }
                    }
                }
            }
        }
    }
}
