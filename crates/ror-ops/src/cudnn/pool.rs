//! The maximum pool.

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::cudnn::sys;
use candle_core::{CpuStorage, CudaStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::compute::compute;
use super::descriptors::{PoolDescriptor, TensorDescriptor};
use super::handle::{Element, Handle, Lent, by_dtype, device, tensor, view};
use crate::pool::Window;

/// The largest value of each window, recorded for backward. Which of equal values gets the gradient is cuDNN's choice,
/// the same every time.
pub(crate) fn max_pool2d(x: &Tensor, window: Window) -> Result<Tensor> {
    x.contiguous()?.apply_op1(MaxPool(window))
}

struct MaxPool(Window);

/// The shapes of input and output.
fn shapes(window: &Window, x: &Shape) -> Result<([usize; 4], [usize; 4])> {
    let (n, c, h, w) = x.dims4()?;
    if (h, w) != window.input {
        candle_core::bail!("max_pool2d: {x:?} where {:?} was planned", window.input)
    }
    let (oh, ow) = window.output;
    Ok(([n, c, h, w], [n, c, oh, ow]))
}

fn forward<T: Element>(
    window: &Window,
    x: &CudaStorage,
    layout: &Layout,
) -> Result<(CudaStorage, Shape)> {
    let device = device(x);
    let (input, output) = shapes(window, layout.shape())?;
    let x = view::<T>(x, layout)?;
    let len: usize = output.iter().product();
    let y = if x.is_empty() {
        device.alloc_zeros::<T>(len)?
    } else {
        let handle = Handle::of(&device)?;
        let pool = PoolDescriptor::new(window)?;
        let x_as = TensorDescriptor::new::<T>(input)?;
        let y_as = TensorDescriptor::new::<T>(output)?;
        compute(&handle, [&x], (len, 0), |at| {
            let [x] = at.inputs;
            // SAFETY: the descriptors are of these shapes and this type; all is contiguous and alive.
            unsafe {
                sys::cudnnPoolingForward(
                    handle.raw, pool.0, at.one, x_as.0, x, at.zero, y_as.0, at.output,
                )
            }
            .result()
        })?
    };
    Ok((T::wrap_cuda_slice(y, device), Shape::from(&output)))
}

fn backward<T: Element>(
    window: &Window,
    x: &Tensor,
    y: &Tensor,
    gradient: &Tensor,
) -> Result<Tensor> {
    let shape = x.shape();
    let (input, output) = shapes(window, shape)?;
    let (x, y, gradient) = (Lent::new(x), Lent::new(y), Lent::new(gradient));
    let device = x.device()?;
    let (x, y, gradient) = (x.view::<T>()?, y.view::<T>()?, gradient.view::<T>()?);
    let len: usize = output.iter().product();
    if y.len() != len || gradient.len() != len {
        candle_core::bail!("max_pool2d: a gradient of another shape")
    }
    let dx = if x.is_empty() {
        device.alloc_zeros::<T>(0)?
    } else {
        let handle = Handle::of(&device)?;
        let pool = PoolDescriptor::new(window)?;
        let x_as = TensorDescriptor::new::<T>(input)?;
        let y_as = TensorDescriptor::new::<T>(output)?;
        compute(&handle, [&x, &y, &gradient], (x.len(), 0), |at| {
            let [x, y, dy] = at.inputs;
            // SAFETY: the descriptors are of these shapes and this type; all is contiguous and alive.
            unsafe {
                sys::cudnnPoolingBackward(
                    handle.raw, pool.0, at.one, y_as.0, y, y_as.0, dy, x_as.0, x, at.zero, x_as.0,
                    at.output,
                )
            }
            .result()
        })?
    };
    Ok(tensor(dx, &device, shape))
}

impl CustomOp1 for MaxPool {
    fn name(&self) -> &'static str {
        "max-pool2d-cudnn"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        candle_core::bail!("cuDNN computes on CUDA devices only")
    }

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        by_dtype!(x.dtype(), "max-pool2d", forward(&self.0, x, layout))
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let (window, gradient) = (&self.0, &gradient.contiguous()?);
        let dx = by_dtype!(x.dtype(), "max-pool2d", backward(window, x, y, gradient))?;
        Ok(Some(dx))
    }
}
