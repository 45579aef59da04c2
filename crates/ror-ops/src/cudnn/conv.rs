//! Convolutions.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::cudnn::{result, sys};
use candle_core::{CpuStorage, CudaStorage, CustomOp2, DType, Layout, Result, Shape, Tensor};

use super::compute::compute;
use super::descriptors::{ConvDescriptor, FilterDescriptor, TensorDescriptor};
use super::handle::{Element, Handle, Lent, by_dtype, device, tensor, view};

/// Cross-correlation of `x` `(N, C, H, W)` and `weight` `(O, C, K, K)`, recorded for backward.
pub(crate) fn conv2d(x: &Tensor, weight: &Tensor, stride: usize, padding: usize) -> Result<Tensor> {
    let op = Convolution { stride, padding };
    x.contiguous()?.apply_op2(&weight.contiguous()?, op)
}

#[derive(Clone, Copy)]
struct Convolution {
    stride: usize,
    padding: usize,
}

/// All that a plan depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    dtype: DType,
    x: [usize; 4],
    weight: [usize; 4],
    stride: usize,
    padding: usize,
}

/// Plans of the convolutions that were computed.
#[derive(Default)]
pub(super) struct Plans(RefCell<HashMap<Key, Rc<Plan>>>);

/// Training sees few shapes; what brings very many is no training.
const MOST_PLANS: usize = 4096;

/// An algorithm, and the bytes that it works in.
type Way<A> = OnceCell<(A, usize)>;

/// Descriptors of one convolution, and the ways that were chosen.
struct Plan {
    x: TensorDescriptor,
    weight: FilterDescriptor,
    y: TensorDescriptor,
    conv: ConvDescriptor,
    forward: Way<sys::cudnnConvolutionFwdAlgo_t>,
    input_gradient: Way<sys::cudnnConvolutionBwdDataAlgo_t>,
    weight_gradient: Way<sys::cudnnConvolutionBwdFilterAlgo_t>,
}

impl Key {
    fn new(op: Convolution, dtype: DType, x: &Shape, weight: &Shape) -> Result<Self> {
        let (n, c, h, w) = x.dims4()?;
        let (o, i, kh, kw) = weight.dims4()?;
        let padded = |size: usize| op.padding.checked_mul(2)?.checked_add(size);
        let window = |size: usize, kernel: usize| {
            kernel > 0 && padded(size).is_some_and(|padded| padded >= kernel)
        };
        if c != i || op.stride == 0 || !window(h, kh) || !window(w, kw) {
            candle_core::bail!(
                "conv2d: {x:?} and {weight:?} with stride {}, padding {}",
                op.stride,
                op.padding
            )
        }
        let key = Self {
            dtype,
            x: [n, c, h, w],
            weight: [o, i, kh, kw],
            stride: op.stride,
            padding: op.padding,
        };
        let output = key.output();
        if output
            .iter()
            .try_fold(1, |len: usize, &d| len.checked_mul(d))
            .is_none()
        {
            candle_core::bail!("conv2d: an output of {output:?} is too large")
        }
        Ok(key)
    }

    fn output(&self) -> [usize; 4] {
        let out = |size: usize, kernel: usize| (size + 2 * self.padding - kernel) / self.stride + 1;
        let ([n, _, h, w], [o, _, kh, kw]) = (self.x, self.weight);
        [n, o, out(h, kh), out(w, kw)]
    }
}

impl Plans {
    fn of<T: Element>(&self, key: Key) -> Result<Rc<Plan>> {
        let mut plans = self.0.borrow_mut();
        if let Some(plan) = plans.get(&key) {
            return Ok(plan.clone());
        }
        if plans.len() == MOST_PLANS {
            plans.clear();
        }
        let plan = Rc::new(Plan {
            x: TensorDescriptor::new::<T>(key.x)?,
            weight: FilterDescriptor::new::<T>(key.weight)?,
            y: TensorDescriptor::new::<T>(key.output())?,
            conv: ConvDescriptor::new::<T>(key.stride, key.padding)?,
            forward: OnceCell::new(),
            input_gradient: OnceCell::new(),
            weight_gradient: OnceCell::new(),
        });
        plans.insert(key, plan.clone());
        Ok(plan)
    }
}

/// Bytes that an algorithm may work in, if there is one that does with less: 1 GiB.
const WORKSPACE: usize = 1 << 30;

/// The way that is known already, or else the first of the algorithms that cuDNN proposes, fastest first, that gives the
/// same bits every time in little memory; the first that works where none does. Both functions are asked with the same
/// handle and descriptors.
macro_rules! way {
    ($way:expr, $most:literal, $propose:path, $workspace:path, $($argument:expr),*) => {{
        if let Some(way) = $way.get() {
            return Ok(*way);
        }
        // SAFETY: numbers, and enumerations that each have a zero.
        let mut found = [unsafe { std::mem::zeroed() }; $most];
        let mut count = 0;
        // SAFETY: handle and descriptors are alive, and there is room for so many answers.
        unsafe { $propose($($argument),*, $most, &mut count, found.as_mut_ptr()) }?;
        let count = usize::try_from(count).unwrap_or(0).min($most);
        let works = |i: &usize| found[*i].status == sys::cudnnStatus_t::CUDNN_STATUS_SUCCESS;
        let repeats =
            |i: &usize| found[*i].determinism == sys::cudnnDeterminism_t::CUDNN_DETERMINISTIC;
        let small = |i: &usize| found[*i].memory <= WORKSPACE;
        let best = (0..count).find(|i| works(i) && repeats(i) && small(i));
        let best = best.or_else(|| (0..count).find(|i| works(i) && small(i)));
        let Some(best) = best.or_else(|| (0..count).find(works)) else {
            candle_core::bail!("cuDNN knows no algorithm for this convolution")
        };
        let algorithm = found[best].algo;
        // SAFETY: handle and descriptors are alive.
        let bytes = unsafe { $workspace($($argument),*, algorithm) }?;
        Ok(*$way.get_or_init(|| (algorithm, bytes)))
    }};
}

impl Plan {
    fn forward_way(&self, handle: &Handle) -> Result<(sys::cudnnConvolutionFwdAlgo_t, usize)> {
        way!(
            self.forward,
            8,
            result::get_convolution_forward_algorithm,
            result::get_convolution_forward_workspace_size,
            handle.raw,
            self.x.0,
            self.weight.0,
            self.conv.0,
            self.y.0
        )
    }

    fn input_gradient_way(
        &self,
        handle: &Handle,
    ) -> Result<(sys::cudnnConvolutionBwdDataAlgo_t, usize)> {
        way!(
            self.input_gradient,
            6,
            result::get_convolution_backward_data_algorithm,
            result::get_convolution_backward_data_workspace_size,
            handle.raw,
            self.weight.0,
            self.y.0,
            self.conv.0,
            self.x.0
        )
    }

    fn weight_gradient_way(
        &self,
        handle: &Handle,
    ) -> Result<(sys::cudnnConvolutionBwdFilterAlgo_t, usize)> {
        way!(
            self.weight_gradient,
            7,
            result::get_convolution_backward_filter_algorithm,
            result::get_convolution_backward_filter_workspace_size,
            handle.raw,
            self.x.0,
            self.y.0,
            self.conv.0,
            self.weight.0
        )
    }
}

fn forward<T: Element>(
    op: Convolution,
    (x, x_layout): (&CudaStorage, &Layout),
    (weight, weight_layout): (&CudaStorage, &Layout),
) -> Result<(CudaStorage, Shape)> {
    let device = device(x);
    let key = Key::new(op, x.dtype(), x_layout.shape(), weight_layout.shape())?;
    let (x, weight) = (view::<T>(x, x_layout)?, view::<T>(weight, weight_layout)?);
    let len = key.output().iter().product();
    let y = if len == 0 || x.is_empty() {
        device.alloc_zeros::<T>(len)?
    } else {
        let handle = Handle::of(&device)?;
        let plan = handle.plans.of::<T>(key)?;
        let (algorithm, bytes) = plan.forward_way(&handle)?;
        compute(&handle, [&x, &weight], (len, bytes), |at| {
            // SAFETY: the descriptors are of these shapes and this type, all is contiguous and alive.
            unsafe {
                result::convolution_forward(
                    handle.raw,
                    at.one,
                    plan.x.0,
                    at.inputs[0],
                    plan.weight.0,
                    at.inputs[1],
                    plan.conv.0,
                    algorithm,
                    at.space,
                    bytes,
                    at.zero,
                    plan.y.0,
                    at.output,
                )
            }
        })?
    };
    Ok((T::wrap_cuda_slice(y, device), Shape::from(&key.output())))
}

/// The gradient of `x` from that of the result.
fn input_gradient<T: Element>(
    op: Convolution,
    x: &Tensor,
    weight: &Tensor,
    gradient: &Tensor,
) -> Result<Tensor> {
    let key = Key::new(op, x.dtype(), x.shape(), weight.shape())?;
    let (weight, gradient) = (Lent::new(weight), Lent::new(gradient));
    let device = weight.device()?;
    let (weight, gradient) = (weight.view::<T>()?, gradient.view::<T>()?);
    check_gradient(&key, gradient.len())?;
    let len = key.x.iter().product();
    let dx = if len == 0 || gradient.is_empty() {
        device.alloc_zeros::<T>(len)?
    } else {
        let handle = Handle::of(&device)?;
        let plan = handle.plans.of::<T>(key)?;
        let (algorithm, bytes) = plan.input_gradient_way(&handle)?;
        compute(&handle, [&weight, &gradient], (len, bytes), |at| {
            // SAFETY: the descriptors are of these shapes and this type, all is contiguous and alive.
            unsafe {
                result::convolution_backward_data(
                    handle.raw,
                    at.one,
                    plan.weight.0,
                    at.inputs[0],
                    plan.y.0,
                    at.inputs[1],
                    plan.conv.0,
                    algorithm,
                    at.space,
                    bytes,
                    at.zero,
                    plan.x.0,
                    at.output,
                )
            }
        })?
    };
    Ok(tensor(dx, &device, &key.x))
}

/// The gradient of `weight` from that of the result.
fn weight_gradient<T: Element>(
    op: Convolution,
    x: &Tensor,
    weight: &Tensor,
    gradient: &Tensor,
) -> Result<Tensor> {
    let key = Key::new(op, x.dtype(), x.shape(), weight.shape())?;
    let (x, gradient) = (Lent::new(x), Lent::new(gradient));
    let device = x.device()?;
    let (x, gradient) = (x.view::<T>()?, gradient.view::<T>()?);
    check_gradient(&key, gradient.len())?;
    let len = key.weight.iter().product();
    let dweight = if len == 0 || x.is_empty() || gradient.is_empty() {
        device.alloc_zeros::<T>(len)?
    } else {
        let handle = Handle::of(&device)?;
        let plan = handle.plans.of::<T>(key)?;
        let (algorithm, bytes) = plan.weight_gradient_way(&handle)?;
        compute(&handle, [&x, &gradient], (len, bytes), |at| {
            // SAFETY: the descriptors are of these shapes and this type, all is contiguous and alive.
            unsafe {
                result::convolution_backward_filter(
                    handle.raw,
                    at.one,
                    plan.x.0,
                    at.inputs[0],
                    plan.y.0,
                    at.inputs[1],
                    plan.conv.0,
                    algorithm,
                    at.space,
                    bytes,
                    at.zero,
                    plan.weight.0,
                    at.output,
                )
            }
        })?
    };
    Ok(tensor(dweight, &device, &key.weight))
}

/// Whether a gradient has as many values as the result.
fn check_gradient(key: &Key, len: usize) -> Result<()> {
    let expected: usize = key.output().iter().product();
    if len == expected {
        Ok(())
    } else {
        candle_core::bail!("conv2d: a gradient of {len} values for a result of {expected}")
    }
}

impl CustomOp2 for Convolution {
    fn name(&self) -> &'static str {
        "conv2d-cudnn"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        candle_core::bail!("cuDNN computes on CUDA devices only")
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        weight: &CudaStorage,
        weight_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        by_dtype!(
            x.dtype(),
            "conv2d",
            forward(*self, (x, x_layout), (weight, weight_layout))
        )
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gradient = &gradient.contiguous()?;
        let dtype = x.dtype();
        let dx = if x.track_op() {
            let dx = by_dtype!(dtype, "conv2d", input_gradient(*self, x, weight, gradient))?;
            Some(dx)
        } else {
            None
        };
        let dweight = by_dtype!(dtype, "conv2d", weight_gradient(*self, x, weight, gradient))?;
        Ok((dx, Some(dweight)))
    }
}
