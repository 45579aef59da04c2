//! The convolution kernels as a candle operation on `f32` tensors of the CPU.

mod packed;

use std::cell::Cell;
use std::sync::{Mutex, OnceLock, PoisonError};

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Error, Layout, Result, Shape, Tensor};

use packed::{Key, Packed, Store};

use crate::kernels::{
    Algorithm, Block, Dims, Fused, Geometry, Isa, KernelError, Output, Plain, Pool, Stem,
    from_blocked, to_blocked,
};

/// Cross-correlation of contiguous `x` `(N, C, H, W)` and `weight` `(O, C, KH, KW)`, both `f32` on the CPU, with a
/// bias per output channel, recorded for backward.
pub(crate) fn conv2d(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    stride: usize,
    padding: usize,
) -> Result<Tensor> {
    let op = Convolution { stride, padding };
    let (x, weight) = (x.contiguous()?, weight.contiguous()?);
    match bias {
        Some(bias) => x.apply_op3(&weight, &bias.contiguous()?, op),
        None => x.apply_op2(&weight, op),
    }
}

/// The forward operation.
struct Convolution {
    stride: usize,
    padding: usize,
}

/// The gradient of its input for stride 1: the convolution of the output's gradient with turned filters.
struct InputGradient {
    padding: usize,
}

impl CustomOp2 for Convolution {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let operands = Operands::new((x, x_layout), (weight, weight_layout))?;
        operands.convolve(operands.geometry(self.stride, self.padding), None, false)
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        self.gradients(
            &x.detach(),
            &weight.detach(),
            &grad.detach().contiguous()?,
            x.track_op(),
        )
    }
}

impl CustomOp3 for Convolution {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let operands = Operands::new((x, x_layout), (weight, weight_layout))?;
        let bias = slice(bias, bias_layout)?;
        operands.convolve(
            operands.geometry(self.stride, self.padding),
            Some(bias),
            false,
        )
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.detach().contiguous()?;
        let (dx, dweight) = self.gradients(&x.detach(), &weight.detach(), &grad, x.track_op())?;
        let dbias = grad.sum((0, 2, 3))?.reshape(bias.shape())?;
        Ok((dx, dweight, Some(dbias)))
    }
}

impl Convolution {
    /// Gradients of input (if asked for) and weight.
    fn gradients(
        &self,
        x: &Tensor,
        weight: &Tensor,
        grad: &Tensor,
        input: bool,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (_, _, kh, kw) = weight.dims4()?;
        let dx = if !input {
            None
        } else if self.stride == 1 && kh == kw && self.padding < kh {
            Some(grad.apply_op2_no_bwd(
                weight,
                &InputGradient {
                    padding: kh - 1 - self.padding,
                },
            )?)
        } else {
            Some(self.strided_input_gradient(x, weight, grad)?)
        };
        let dweight = x
            .transpose(0, 1)?
            .conv2d(&grad.transpose(0, 1)?, self.padding, 1, self.stride, 1)?
            .transpose(0, 1)?
            // Rows and columns that no window reached give the kernel more than its size.
            .narrow(2, 0, kh)?
            .narrow(3, 0, kw)?;
        Ok((dx, Some(dweight)))
    }

    fn strided_input_gradient(&self, x: &Tensor, weight: &Tensor, grad: &Tensor) -> Result<Tensor> {
        let (_, _, h, w) = x.dims4()?;
        let (_, _, kh, kw) = weight.dims4()?;
        let (_, _, oh, ow) = grad.dims4()?;
        // The padded rows and columns that the windows reach; the rest has no gradient.
        let (rows, columns) = ((oh - 1) * self.stride + kh, (ow - 1) * self.stride + kw);
        let padded = grad.conv_transpose2d(weight, 0, 0, self.stride, 1)?;
        let fit = |t: Tensor, dim: usize, reached: usize, size: usize| {
            let t = t.pad_with_zeros(dim, 0, (size + self.padding).saturating_sub(reached))?;
            t.narrow(dim, self.padding, size)
        };
        fit(fit(padded, 2, rows, h)?, 3, columns, w)
    }
}

impl CustomOp2 for InputGradient {
    fn name(&self) -> &'static str {
        "conv2d-input-gradient"
    }

    fn cpu_fwd(
        &self,
        grad: &CpuStorage,
        grad_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let operands = Operands::new((grad, grad_layout), (weight, weight_layout))?;
        let (inputs, outputs, kh, kw) = operands.kernel;
        let geometry = Geometry {
            inputs,
            outputs,
            kernel: (kh, kw),
            stride: 1,
            padding: self.padding,
        };
        operands.convolve(geometry, None, true)
    }
}

/// The values behind a contiguous tensor.
fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<f32>()?[start..end]),
        None => Err(Error::RequiresContiguous { op: "conv2d" }.bt()),
    }
}

struct Operands<'a> {
    dims: (usize, usize, usize, usize),
    x: &'a [f32],
    kernel: (usize, usize, usize, usize),
    weight: &'a [f32],
}

impl<'a> Operands<'a> {
    fn new(x: (&'a CpuStorage, &Layout), weight: (&'a CpuStorage, &Layout)) -> Result<Self> {
        Ok(Self {
            dims: x.1.shape().dims4()?,
            x: slice(x.0, x.1)?,
            kernel: weight.1.shape().dims4()?,
            weight: slice(weight.0, weight.1)?,
        })
    }

    fn geometry(&self, stride: usize, padding: usize) -> Geometry {
        let (outputs, inputs, kh, kw) = self.kernel;
        Geometry {
            inputs,
            outputs,
            kernel: (kh, kw),
            stride,
            padding,
        }
    }

    fn convolve(
        &self,
        geometry: Geometry,
        bias: Option<&[f32]>,
        transposed: bool,
    ) -> Result<(CpuStorage, Shape)> {
        let (n, c, h, w) = self.dims;
        let input = Dims::new(n, c, h, w);
        let output = geometry.output(input).map_err(Error::wrap)?;
        let mut y = vec![
            0.0;
            output
                .plain_len("convolution output")
                .map_err(Error::wrap)?
        ];
        let layer =
            Layer::new(geometry, input, self.weight, bias, transposed).map_err(Error::wrap)?;
        layer.run(self.x, &mut y, output).map_err(Error::wrap)?;
        layer.keep();
        Ok((
            CpuStorage::F32(y),
            Shape::from((n, output.c, output.h, output.w)),
        ))
    }
}

/// A convolution packed for one call on plain tensors.
struct Layer {
    input: Dims,
    kind: Kind,
}

enum Kind {
    Stem(Stem),
    Blocked(Packed),
}

/// What earlier calls have packed.
static KEPT: Store = Store::new();

/// Output pixels of the images that are converted and convolved together, about: enough to use each weight often,
/// few enough to stay in the caches.
const PIXELS: usize = 1024;

impl Layer {
    fn new(
        geometry: Geometry,
        input: Dims,
        weight: &[f32],
        bias: Option<&[f32]>,
        transposed: bool,
    ) -> std::result::Result<Self, KernelError> {
        let isa = Isa::detect();
        let kind = if geometry.inputs <= 4 && geometry.stride <= 2 && !transposed {
            Kind::Stem(Stem::pack(isa, geometry, weight, bias)?)
        } else {
            let algorithm = Algorithm::choose(isa, &geometry, input.n.min(16), input.h, input.w);
            let key = Key {
                geometry,
                algorithm,
                transposed,
            };
            Kind::Blocked(KEPT.take(isa, pool(), key, weight, bias)?)
        };
        Ok(Self { input, kind })
    }

    /// Keeps what was packed for later calls.
    fn keep(self) {
        if let Kind::Blocked(packed) = self.kind {
            KEPT.put(packed);
        }
    }

    /// Convolves all images, each thread its share.
    fn run(&self, x: &[f32], y: &mut [f32], output: Dims) -> std::result::Result<(), KernelError> {
        if y.is_empty() {
            return Ok(());
        }
        let (from, to) = (
            self.input.c * self.input.h * self.input.w,
            output.c * output.h * output.w,
        );
        let pool = pool();
        if self.input.n < pool.threads() {
            return self.chunk(x, y, self.input, output, Some(pool));
        }
        let outcome = Mutex::new(Ok(()));
        pool.run_shares(y, to, |images, y| {
            let most = (PIXELS / (output.h * output.w)).max(1);
            let chunks = x[images.start * from..images.end * from].chunks(most * from);
            for (x, y) in chunks.zip(y.chunks_mut(most * to)) {
                let n = y.len() / to;
                let result = self.chunk(x, y, Dims { n, ..self.input }, Dims { n, ..output }, None);
                if result.is_err() {
                    *outcome.lock().unwrap_or_else(PoisonError::into_inner) = result;
                    return;
                }
            }
        });
        outcome.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Converts some images, convolves them and converts back.
    fn chunk(
        &self,
        x: &[f32],
        y: &mut [f32],
        input: Dims,
        output: Dims,
        pool: Option<&Pool>,
    ) -> std::result::Result<(), KernelError> {
        let none = Fused::default();
        let shape = (input.n, input.h, input.w);
        let threads = pool.map_or(1, Pool::threads);
        let y_len = output.block_len("convolution output")?;
        match &self.kind {
            Kind::Stem(stem) => {
                let scratch_len = threads * stem.scratch_len(input.h, input.w)?;
                with_room(y_len + scratch_len, |room| {
                    let (blocked_y, scratch) = room.split_at_mut(y_len);
                    let out = Output::raw(blocked_y);
                    match pool {
                        Some(pool) => {
                            stem.run_on(pool, shape, Plain::F32(x), &none, out, scratch)?
                        }
                        None => stem.run(shape, Plain::F32(x), &none, out, scratch)?,
                    }
                    from_blocked(output, blocked_y, y)
                })
            }
            Kind::Blocked(packed) => {
                let conv = packed.conv();
                let x_len = input.block_len("convolution input")?;
                let scratch_len = threads * conv.scratch_len(input.n, input.h, input.w)?;
                with_room(y_len + x_len + scratch_len, |room| {
                    let (blocked_y, room) = room.split_at_mut(y_len);
                    let (blocked_x, scratch) = room.split_at_mut(x_len);
                    to_blocked(input, x, blocked_x)?;
                    let out = Output::raw(blocked_y);
                    match pool {
                        Some(pool) => conv.run_on(pool, shape, blocked_x, &none, out, scratch)?,
                        None => conv.run(shape, blocked_x, &none, out, scratch)?,
                    }
                    from_blocked(output, blocked_y, y)
                })
            }
        }
    }
}

/// Lends `len` blocks of any content, which the thread keeps for its next call unless there are very many.
fn with_room<T>(len: usize, work: impl FnOnce(&mut [Block]) -> T) -> T {
    /// 16 MiB.
    const MOST: usize = 256 * 1024;
    thread_local!(static ROOM: Cell<Vec<Block>> = const { Cell::new(Vec::new()) });
    let mut room = ROOM.take();
    if room.len() < len {
        // First the old memory goes.
        room = Vec::new();
        room.resize(len, Block::ZERO);
    }
    let result = work(&mut room[..len]);
    if room.len() <= MOST {
        ROOM.set(room);
    }
    result
}

/// The threads that all such operations share: as many as candle uses.
fn pool() -> &'static Pool {
    static POOL: OnceLock<Pool> = OnceLock::new();
    POOL.get_or_init(|| Pool::new_or_fewer(candle_core::utils::get_num_threads()))
}
