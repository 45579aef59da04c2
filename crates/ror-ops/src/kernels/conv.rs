//! A convolution packed for one way of computing it.

mod repack;

use std::ops::Range;

use super::algorithm::Algorithm;
use super::blocked::{Block, Dims, LANES, blocks, shape_error};
use super::direct::Direct;
use super::epilogue::{Epilogue, Fused, Output};
use super::error::{Result, check_at_least, check_finite, check_len};
use super::gemm::Panels;
use super::geometry::{Filters, Geometry};
use super::memory::Memory;
use super::simd::Isa;
use super::split::{Costs, Split};
use super::threads::Pool;
use super::winograd::Winograd;

/// A convolution of tensors in the blocked layout, weights packed for one instruction set and algorithm.
///
/// ```
/// use ror_ops::kernels::{Algorithm, Block, Conv2d, Dims, Fused, Geometry, Isa, Output, to_blocked};
/// # fn main() -> Result<(), ror_ops::kernels::KernelError> {
/// let geometry = Geometry { inputs: 3, outputs: 16, kernel: (3, 3), stride: 1, padding: 1 };
/// let conv = Conv2d::new(Isa::detect(), geometry, Algorithm::Winograd4, &[0.5; 3 * 16 * 9], None)?;
/// let dims = Dims::new(1, 3, 8, 8);
/// let mut x = vec![Block::ZERO; dims.block_len("x")?];
/// to_blocked(dims, &[1.0; 3 * 8 * 8], &mut x)?;
/// let mut y = vec![Block::ZERO; geometry.output(dims)?.block_len("y")?];
/// let mut scratch = vec![Block::ZERO; conv.scratch_len(1, 8, 8)?];
/// conv.run((1, 8, 8), &x, &Fused::default(), Output::raw(&mut y), &mut scratch)?;
/// assert!((y[0].0[0] - 6.0).abs() < 1e-5); // a corner sees 4 of 9 taps of 3 channels
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Conv2d {
    geometry: Geometry,
    bias: Vec<Block>,
    method: Method,
}

#[derive(Clone)]
enum Method {
    Winograd4(Winograd<4, 6>),
    Winograd2(Winograd<2, 4>),
    Strided4(Winograd<4, 9>),
    Direct(Direct),
}

/// One expression for every way by tiles, another for the direct one.
macro_rules! by_method {
    ($method:expr, $tiles:ident => $by_tiles:expr, $direct:ident => $directly:expr) => {
        match $method {
            Method::Winograd4($tiles) => $by_tiles,
            Method::Winograd2($tiles) => $by_tiles,
            Method::Strided4($tiles) => $by_tiles,
            Method::Direct($direct) => $directly,
        }
    };
}
use by_method;

impl Conv2d {
    /// Packs weights `[out][in][kh][kw]` and a bias per output channel.
    ///
    /// # Errors
    /// An algorithm that cannot compute this shape; sizes of zero; slices of another length; values that are not
    /// finite.
    pub fn new(
        isa: Isa,
        geometry: Geometry,
        algorithm: Algorithm,
        weight: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<Self> {
        check_finite("weight", weight)?;
        check_finite("bias", bias.unwrap_or_default())?;
        Self::pack(isa, geometry, algorithm, weight, bias, false, None)
    }

    /// As [`Self::new`], of any values. With `transposed`, `weight` is `[inputs][outputs][kh][kw]`, that of a convolution
    /// with stride 1 and padding `p` whose input gradient this one, with padding `kernel - 1 - p`, computes. On the
    /// threads of a pool, if there is one.
    pub(crate) fn pack(
        isa: Isa,
        geometry: Geometry,
        algorithm: Algorithm,
        weight: &[f32],
        bias: Option<&[f32]>,
        transposed: bool,
        pool: Option<&Pool>,
    ) -> Result<Self> {
        let bias = geometry.check(weight, bias)?;
        if !Algorithm::applicable(&geometry).contains(&algorithm) {
            return Err(shape_error(
                "convolution",
                format!("{algorithm:?} cannot compute {geometry:?}"),
            ));
        }
        let Geometry {
            inputs,
            outputs,
            kernel: (kh, kw),
            ..
        } = geometry;
        let filters = Filters {
            data: weight,
            inputs,
            outputs,
            taps: kh * kw,
            transposed,
        };
        let method = match algorithm {
            Algorithm::Winograd4 if geometry.stride == 2 => {
                Method::Strided4(Winograd::new(isa, filters, pool))
            }
            Algorithm::Winograd4 => Method::Winograd4(Winograd::new(isa, filters, pool)),
            Algorithm::Winograd2 => Method::Winograd2(Winograd::new(isa, filters, pool)),
            Algorithm::Direct => Method::Direct(Direct::new(isa, geometry, filters, pool)),
        };
        Ok(Self {
            geometry,
            bias,
            method,
        })
    }

    /// The shape it was packed for.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The algorithm it was packed for.
    pub fn algorithm(&self) -> Algorithm {
        match self.method {
            Method::Winograd4(_) | Method::Strided4(_) => Algorithm::Winograd4,
            Method::Winograd2(_) => Algorithm::Winograd2,
            Method::Direct(_) => Algorithm::Direct,
        }
    }

    /// Whether [`Fused::pool`] can be fused: where the result comes in tiles.
    pub fn can_pool(&self) -> bool {
        !matches!(self.method, Method::Direct(_))
    }

    /// Memory of the packed weights, in bytes.
    pub fn weight_bytes(&self) -> usize {
        self.panels().bytes()
    }

    /// Moves the packed weights into `memory`, which others may share.
    pub fn move_to(&mut self, memory: &mut Memory) {
        self.panels_mut().move_to(memory);
    }

    /// Blocks of scratch that a thread needs for up to `n` images of `h` rows and `w` columns.
    ///
    /// # Errors
    /// An image smaller than the kernel, or too large to address.
    pub fn scratch_len(&self, n: usize, h: usize, w: usize) -> Result<usize> {
        let input = Dims::new(n, self.geometry.inputs, h, w);
        input.block_len("convolution input")?;
        let out = self.geometry.output(input)?;
        out.block_len("convolution output")?;
        Ok(by_method!(
            &self.method,
            m => m.scratch(m.grid(h, w), n * m.grid(h, w).rows),
            m => m.scratch(out.pixels())
        ))
    }

    /// Convolves `n` images of `h` rows and `w` columns.
    ///
    /// # Errors
    /// Slices of another length than the shapes call for; a pool where [`Self::can_pool`] says no.
    pub fn run(
        &self,
        (n, h, w): (usize, usize, usize),
        x: &[Block],
        fused: &Fused<'_>,
        mut output: Output<'_>,
        scratch: &mut [Block],
    ) -> Result<()> {
        let (input, out, epilogue) = self.check((n, h, w), x, fused, &mut output)?;
        check_at_least("scratch", self.scratch_len(n, h, w)?, scratch.len())?;
        let (units, panels) = (n * self.units(input, out), self.panels().count());
        // SAFETY: `check` found every length right, and this thread has the whole output.
        unsafe { self.part(input, out, x, &epilogue, 0..units, 0..panels, scratch) };
        Ok(())
    }

    /// As [`Self::run`] on all threads of `pool`, each with its equal share of `scratch`: split by images, by rows of
    /// an image or by output channels, whichever is estimated to take the least time.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_on(
        &self,
        pool: &Pool,
        (n, h, w): (usize, usize, usize),
        x: &[Block],
        fused: &Fused<'_>,
        mut output: Output<'_>,
        scratch: &mut [Block],
    ) -> Result<()> {
        let (input, out, epilogue) = self.check((n, h, w), x, fused, &mut output)?;
        let split = self.split(input, out, pool.threads());
        pool.run_with(scratch, self.scratch_len(n, h, w)?, |thread, scratch| {
            let (units, panels) = split.part(thread);
            // SAFETY: `check` found every length right; parts have disjoint rows or channels.
            unsafe { self.part(input, out, x, &epilogue, units, panels, scratch) };
        })
    }

    fn panels(&self) -> &Panels {
        by_method!(&self.method, m => m.panels(), m => m.panels())
    }

    fn panels_mut(&mut self) -> &mut Panels {
        by_method!(&mut self.method, m => m.panels_mut(), m => m.panels_mut())
    }

    /// Pieces that an image can be split into.
    fn units(&self, input: Dims, out: Dims) -> usize {
        by_method!(
            &self.method,
            m => m.grid(input.h, input.w).rows,
            m => m.units(out.pixels())
        )
    }

    fn split(&self, input: Dims, out: Dims, threads: usize) -> Split {
        let (units, panels) = (self.units(input, out), self.panels().count());
        let bytes = self.weight_bytes();
        // Rows of the matrix product in a unit: tiles or pixels.
        let rows = by_method!(
            &self.method,
            m => m.grid(input.h, input.w).cols * m.products(),
            _m => out.pixels().div_ceil(units) * self.geometry.kernel.0 * self.geometry.kernel.1
        );
        let (i, o) = (
            blocks(self.geometry.inputs) * LANES,
            blocks(self.geometry.outputs) * LANES,
        );
        Split::cheapest(
            input.n * units,
            panels,
            threads,
            // Cycles: 3 to transform or gather 16 channels, 32 multiply-adds, 16 bytes of weights.
            Costs {
                input: rows * i / 5,
                product: rows * i * o / 32 / panels,
                weights: bytes / 16 / panels,
            },
        )
    }

    fn check(
        &self,
        (n, h, w): (usize, usize, usize),
        x: &[Block],
        fused: &Fused<'_>,
        output: &mut Output<'_>,
    ) -> Result<(Dims, Dims, Epilogue)> {
        let input = Dims::new(n, self.geometry.inputs, h, w);
        check_len(
            "convolution input",
            input.block_len("convolution input")?,
            x.len(),
        )?;
        let out = self.geometry.output(input)?;
        if fused.pool && !self.can_pool() {
            return Err(shape_error(
                "convolution",
                format!("{:?} cannot pool its output", self.algorithm()),
            ));
        }
        Ok((input, out, Epilogue::new(out, &self.bias, fused, output)?))
    }

    /// Computes the pieces `units` (counted through all images) of the output channels in `panels`.
    ///
    /// # Safety
    /// `x`, the epilogue and `scratch` have the lengths that the shapes call for, and no other thread writes the
    /// same pixels of the same channels.
    #[allow(clippy::too_many_arguments)]
    unsafe fn part(
        &self,
        input: Dims,
        out: Dims,
        x: &[Block],
        epilogue: &Epilogue,
        units: Range<usize>,
        panels: Range<usize>,
        scratch: &mut [Block],
    ) {
        let x = x.as_ptr();
        // SAFETY: passes on the contract.
        unsafe {
            by_method!(
                &self.method,
                m => m.run((input.h, input.w), x, epilogue, units, panels, scratch),
                m => m.run(input, out, x, epilogue, units, panels, scratch)
            )
        }
    }
}

impl std::fmt::Debug for Conv2d {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conv2d")
            .field("geometry", &self.geometry)
            .field("algorithm", &self.algorithm())
            .finish_non_exhaustive()
    }
}
