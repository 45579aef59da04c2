//! Batch normalisation in training mode.

use std::sync::{Arc, OnceLock};

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::cudnn::sys;
use candle_core::cuda_backend::cudarc::driver::{DevicePtr, DevicePtrMut};
use candle_core::{CpuStorage, CudaStorage, CustomOp3, Layout, Result, Shape, Tensor};

use super::descriptors::TensorDescriptor;
use super::handle::{Element, Handle, Lent, by_dtype, device, tensor, view};
use crate::BatchStatistics;

const MODE: sys::cudnnBatchNormMode_t = sys::cudnnBatchNormMode_t::CUDNN_BATCHNORM_SPATIAL;

/// Normalises `x` `(N, C, H, W)` by its own statistics, recorded for backward. `gamma` and `beta` `(C)` are float32
/// where `x` is bfloat16, else of its type. At least two values per channel.
pub(crate) fn batch_norm_train(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    epsilon: f64,
) -> Result<(Tensor, BatchStatistics)> {
    let (n, _, h, w) = x.dims4()?;
    let count = n * h * w;
    if count < 2 {
        candle_core::bail!("batch normalisation needs two values per channel, there are {count}")
    }
    let seen = Arc::new(OnceLock::new());
    let op = BatchNorm {
        epsilon,
        seen: seen.clone(),
    };
    let (gamma, beta) = (gamma.contiguous()?, beta.contiguous()?);
    let y = x.contiguous()?.apply_op3(&gamma, &beta, op)?;
    let Some(Seen { mean, unbiased, .. }) = seen.get() else {
        candle_core::bail!("batch normalisation left no statistics")
    };
    let statistics = BatchStatistics {
        mean: mean.clone(),
        variance: (unbiased * ((count - 1) as f64 / count as f64))?,
        count,
    };
    Ok((y, statistics))
}

/// Statistics of a batch, `(C)` each.
struct Seen {
    mean: Tensor,
    /// The variance divided by one less than the number of values.
    unbiased: Tensor,
    inverse_deviation: Tensor,
}

struct BatchNorm {
    epsilon: f64,
    seen: Arc<OnceLock<Seen>>,
}

/// Descriptors of the activations, and of what there is one number of per channel.
fn descriptors<T: Element>(
    x: &Shape,
    gamma: &Shape,
) -> Result<(TensorDescriptor, TensorDescriptor)> {
    let (n, c, h, w) = x.dims4()?;
    if gamma.elem_count() != c {
        candle_core::bail!("batch normalisation: {x:?} has {c} channels, the scale is {gamma:?}")
    }
    let channels = TensorDescriptor::new::<T::Wide>([1, c, 1, 1])?;
    Ok((TensorDescriptor::new::<T>([n, c, h, w])?, channels))
}

fn forward<T: Element>(
    op: &BatchNorm,
    (x, x_layout): (&CudaStorage, &Layout),
    (gamma, gamma_layout): (&CudaStorage, &Layout),
    (beta, beta_layout): (&CudaStorage, &Layout),
) -> Result<(CudaStorage, Shape)> {
    let device = device(x);
    let (activations, channels) = descriptors::<T>(x_layout.shape(), gamma_layout.shape())?;
    let x = view::<T>(x, x_layout)?;
    let gamma = view::<T::Wide>(gamma, gamma_layout)?;
    let beta = view::<T::Wide>(beta, beta_layout)?;
    let c = gamma.len();
    if beta.len() != c {
        candle_core::bail!("batch normalisation: {c} scales and {} shifts", beta.len())
    }
    let handle = Handle::of(&device)?;
    let (one, zero) = (T::ONE, T::ZERO);
    // SAFETY: every value is written below.
    let mut y = unsafe { device.alloc::<T>(x.len()) }?;
    // The running statistics of one batch, of which all is new, are its own; but they are read first.
    let mut mean = device.alloc_zeros::<T::Wide>(c)?;
    let mut unbiased = device.alloc_zeros::<T::Wide>(c)?;
    let mut saved_mean = device.alloc_zeros::<T::Wide>(c)?;
    let mut inverse_deviation = device.alloc_zeros::<T::Wide>(c)?;
    {
        let stream = &handle.stream;
        let (x, _x) = x.device_ptr(stream);
        let (gamma, _gamma) = gamma.device_ptr(stream);
        let (beta, _beta) = beta.device_ptr(stream);
        let (y, _y) = y.device_ptr_mut(stream);
        let (mean, _mean) = mean.device_ptr_mut(stream);
        let (unbiased, _unbiased) = unbiased.device_ptr_mut(stream);
        let (saved_mean, _saved_mean) = saved_mean.device_ptr_mut(stream);
        let (inverse, _inverse) = inverse_deviation.device_ptr_mut(stream);
        // SAFETY: the descriptors are of these shapes and types; all is contiguous and alive.
        unsafe {
            sys::cudnnBatchNormalizationForwardTraining(
                handle.raw,
                MODE,
                (&raw const one).cast(),
                (&raw const zero).cast(),
                activations.0,
                x as *const _,
                activations.0,
                y as *mut _,
                channels.0,
                gamma as *const _,
                beta as *const _,
                1.0,
                mean as *mut _,
                unbiased as *mut _,
                op.epsilon,
                saved_mean as *mut _,
                inverse as *mut _,
            )
        }
        .result()?;
    }
    let seen = Seen {
        mean: tensor(mean, &device, c),
        unbiased: tensor(unbiased, &device, c),
        inverse_deviation: tensor(inverse_deviation, &device, c),
    };
    if op.seen.set(seen).is_err() {
        candle_core::bail!("a batch normalisation runs once")
    }
    Ok((T::wrap_cuda_slice(y, device), x_layout.shape().clone()))
}

/// Gradients of `x`, `gamma` and `beta`.
fn backward<T: Element>(
    op: &BatchNorm,
    x: &Tensor,
    gamma: &Tensor,
    gradient: &Tensor,
) -> Result<[Tensor; 3]> {
    let Some(seen) = op.seen.get() else {
        candle_core::bail!("batch normalisation left no statistics")
    };
    let (activations, channels) = descriptors::<T>(x.shape(), gamma.shape())?;
    if gradient.elem_count() != x.elem_count() {
        candle_core::bail!("batch normalisation: a gradient of another shape")
    }
    let (shape, per_channel) = (x.shape(), gamma.shape());
    let (x, gradient, gamma) = (Lent::new(x), Lent::new(gradient), Lent::new(gamma));
    let (mean, inverse) = (Lent::new(&seen.mean), Lent::new(&seen.inverse_deviation));
    let device = x.device()?;
    let handle = Handle::of(&device)?;
    let (one, zero) = (T::ONE, T::ZERO);
    // SAFETY: every value is written below.
    let mut dx = unsafe { device.alloc::<T>(shape.elem_count()) }?;
    let mut dgamma = device.alloc_zeros::<T::Wide>(per_channel.elem_count())?;
    let mut dbeta = device.alloc_zeros::<T::Wide>(per_channel.elem_count())?;
    {
        let (x, gradient) = (x.view::<T>()?, gradient.view::<T>()?);
        let gamma = gamma.view::<T::Wide>()?;
        let (mean, inverse) = (mean.view::<T::Wide>()?, inverse.view::<T::Wide>()?);
        let stream = &handle.stream;
        let (x, _x) = x.device_ptr(stream);
        let (gradient, _gradient) = gradient.device_ptr(stream);
        let (gamma, _gamma) = gamma.device_ptr(stream);
        let (mean, _mean) = mean.device_ptr(stream);
        let (inverse, _inverse) = inverse.device_ptr(stream);
        let (dx, _dx) = dx.device_ptr_mut(stream);
        let (dgamma, _dgamma) = dgamma.device_ptr_mut(stream);
        let (dbeta, _dbeta) = dbeta.device_ptr_mut(stream);
        // SAFETY: the descriptors are of these shapes and types; all is contiguous and alive.
        unsafe {
            sys::cudnnBatchNormalizationBackward(
                handle.raw,
                MODE,
                (&raw const one).cast(),
                (&raw const zero).cast(),
                (&raw const one).cast(),
                (&raw const zero).cast(),
                activations.0,
                x as *const _,
                activations.0,
                gradient as *const _,
                activations.0,
                dx as *mut _,
                channels.0,
                gamma as *const _,
                dgamma as *mut _,
                dbeta as *mut _,
                op.epsilon,
                mean as *const _,
                inverse as *const _,
            )
        }
        .result()?;
    }
    Ok([
        tensor(dx, &device, shape),
        tensor(dgamma, &device, per_channel),
        tensor(dbeta, &device, per_channel),
    ])
}

impl CustomOp3 for BatchNorm {
    fn name(&self) -> &'static str {
        "batch-norm-cudnn"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
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
        gamma: &CudaStorage,
        gamma_layout: &Layout,
        beta: &CudaStorage,
        beta_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        by_dtype!(
            x.dtype(),
            "batch-norm",
            forward(
                self,
                (x, x_layout),
                (gamma, gamma_layout),
                (beta, beta_layout)
            )
        )
    }

    fn bwd(
        &self,
        x: &Tensor,
        gamma: &Tensor,
        _: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradient = &gradient.contiguous()?;
        let gradients = by_dtype!(x.dtype(), "batch-norm", backward(self, x, gamma, gradient))?;
        let [dx, dgamma, dbeta] = gradients.map(Some);
        Ok((dx, dgamma, dbeta))
    }
}
