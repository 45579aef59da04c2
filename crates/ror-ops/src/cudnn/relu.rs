//! The rectifier.

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::cudnn::sys;
use candle_core::cuda_backend::cudarc::driver::{DevicePtr, DevicePtrMut};
use candle_core::{CpuStorage, CudaStorage, CustomOp1, Layout, Result, Shape, Tensor};

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
    let len = x.len();
    if len == 0 {
        let y = T::wrap_cuda_slice(device.alloc_zeros::<T>(0)?, device);
        return Ok((y, layout.shape().clone()));
    }
    let handle = Handle::of(&device)?;
    let descriptor = TensorDescriptor::new::<T>([1, 1, 1, len])?;
    let relu = ReluDescriptor::new()?;
    let (one, zero) = (T::ONE, T::ZERO);
    // SAFETY: every value is written below.
    let mut y = unsafe { device.alloc::<T>(len) }?;
    {
        let (x, _x) = x.device_ptr(&handle.stream);
        let (y, _y) = y.device_ptr_mut(&handle.stream);
        // SAFETY: both have `len` values of this type; all is alive.
        unsafe {
            sys::cudnnActivationForward(
                handle.raw,
                relu.0,
                (&raw const one).cast(),
                descriptor.0,
                x as *const _,
                (&raw const zero).cast(),
                descriptor.0,
                y as *mut _,
            )
        }
        .result()?;
    }
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
    if len == 0 {
        return Ok(tensor(device.alloc_zeros::<T>(0)?, &device, shape));
    }
    let handle = Handle::of(&device)?;
    let descriptor = TensorDescriptor::new::<T>([1, 1, 1, len])?;
    let relu = ReluDescriptor::new()?;
    let (one, zero) = (T::ONE, T::ZERO);
    // SAFETY: every value is written below.
    let mut dx = unsafe { device.alloc::<T>(len) }?;
    {
        let stream = &handle.stream;
        let (x, _x) = x.device_ptr(stream);
        let (y, _y) = y.device_ptr(stream);
        let (gradient, _gradient) = gradient.device_ptr(stream);
        let (dx, _dx) = dx.device_ptr_mut(stream);
        // SAFETY: all have `len` values of this type and are alive.
        unsafe {
            sys::cudnnActivationBackward(
                handle.raw,
                relu.0,
                (&raw const one).cast(),
                descriptor.0,
                y as *const _,
                descriptor.0,
                gradient as *const _,
                descriptor.0,
                x as *const _,
                (&raw const zero).cast(),
                descriptor.0,
                dx as *mut _,
            )
        }
        .result()?;
    }
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
