//! The rectifier.

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::cudnn::sys;
use candle_core::{CpuStorage, CudaStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::compute::compute;
use super::descriptors::{ReluDescriptor, TensorDescriptor};
use super::handle::{Element, Handle, Lent, by_dtype, device, tensor, view};

/// `max(x, 0)`, recorded for backward; the gradient at zero is zero.
pub(crate) fn relu(x: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Relu)
}

struct Relu;

fn forward<T: Element>(x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
    let device = device(x);
    let x = view::<T>(x, layout)?;
    let y = if x.is_empty() {
        device.alloc_zeros::<T>(0)?
    } else {
        let handle = Handle::of(&device)?;
        let all = TensorDescriptor::new::<T>([1, 1, 1, x.len()])?;
        let relu = ReluDescriptor::new()?;
        compute(&handle, [&x], (x.len(), 0), |at| {
            let [x] = at.inputs;
            // SAFETY: both have as many values of this type as the descriptor says; all is alive.
            unsafe {
                sys::cudnnActivationForward(
                    handle.raw, relu.0, at.one, all.0, x, at.zero, all.0, at.output,
                )
            }
            .result()
        })?
    };
    Ok((T::wrap_cuda_slice(y, device), layout.shape().clone()))
}

fn backward<T: Element>(x: &Tensor, y: &Tensor, gradient: &Tensor) -> Result<Tensor> {
    let shape = x.shape();
    let (x, y, gradient) = (Lent::new(x), Lent::new(y), Lent::new(gradient));
    let device = x.device()?;
    let (x, y, gradient) = (x.view::<T>()?, y.view::<T>()?, gradient.view::<T>()?);
    let len = x.len();
    if y.len() != len || gradient.len() != len {
        candle_core::bail!("relu: a gradient of another shape")
    }
    let dx = if len == 0 {
        device.alloc_zeros::<T>(0)?
    } else {
        let handle = Handle::of(&device)?;
        let all = TensorDescriptor::new::<T>([1, 1, 1, len])?;
        let relu = ReluDescriptor::new()?;
        compute(&handle, [&x, &y, &gradient], (len, 0), |at| {
            let [x, y, dy] = at.inputs;
            // SAFETY: all have as many values of this type as the descriptor says, and are alive.
            unsafe {
                sys::cudnnActivationBackward(
                    handle.raw, relu.0, at.one, all.0, y, all.0, dy, all.0, x, at.zero, all.0,
                    at.output,
                )
            }
            .result()
        })?
    };
    Ok(tensor(dx, &device, shape))
}

impl CustomOp1 for Relu {
    fn name(&self) -> &'static str {
        "relu-cudnn"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        candle_core::bail!("cuDNN computes on CUDA devices only")
    }

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        by_dtype!(x.dtype(), "relu", forward(x, layout))
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let gradient = &gradient.contiguous()?;
        let dx = by_dtype!(x.dtype(), "relu", backward(x, y, gradient))?;
        Ok(Some(dx))
    }
}
