//! Descriptors, which cuDNN makes and destroys.

use std::ffi::c_int;

use candle_core::cuda_backend::cudarc::cudnn::{CudnnDataType, result, sys};
use candle_core::{Error, Result};

use super::handle::Element;
use crate::pool::Window;

const NCHW: sys::cudnnTensorFormat_t = sys::cudnnTensorFormat_t::CUDNN_TENSOR_NCHW;

/// Sizes as cuDNN takes them.
fn sizes<const N: usize>(dims: [usize; N]) -> Result<[c_int; N]> {
    let mut sizes = [0; N];
    for (size, dim) in sizes.iter_mut().zip(dims) {
        *size = c_int::try_from(dim)
            .map_err(|_| Error::Msg(format!("{dims:?} is too large for cuDNN")).bt())?;
    }
    Ok(sizes)
}

/// A contiguous tensor (N, C, H, W).
pub(super) struct TensorDescriptor(pub(super) sys::cudnnTensorDescriptor_t);

impl TensorDescriptor {
    pub(super) fn new<T: CudnnDataType>(dims: [usize; 4]) -> Result<Self> {
        let sizes = sizes(dims)?;
        let descriptor = Self(result::create_tensor_descriptor()?);
        // SAFETY: the descriptor was just created.
        unsafe { result::set_tensor4d_descriptor(descriptor.0, NCHW, T::DATA_TYPE, sizes) }?;
        Ok(descriptor)
    }
}

impl Drop for TensorDescriptor {
    fn drop(&mut self) {
        // SAFETY: created in `new`, destroyed once.
        let _ = unsafe { result::destroy_tensor_descriptor(self.0) };
    }
}

/// Contiguous kernels (O, C, H, W).
pub(super) struct FilterDescriptor(pub(super) sys::cudnnFilterDescriptor_t);

impl FilterDescriptor {
    pub(super) fn new<T: CudnnDataType>(dims: [usize; 4]) -> Result<Self> {
        let sizes = sizes(dims)?;
        let descriptor = Self(result::create_filter_descriptor()?);
        // SAFETY: the descriptor was just created.
        unsafe { result::set_filter4d_descriptor(descriptor.0, T::DATA_TYPE, NCHW, sizes) }?;
        Ok(descriptor)
    }
}

impl Drop for FilterDescriptor {
    fn drop(&mut self) {
        // SAFETY: created in `new`, destroyed once.
        let _ = unsafe { result::destroy_filter_descriptor(self.0) };
    }
}

/// A cross-correlation of values of the type `T`.
pub(super) struct ConvDescriptor(pub(super) sys::cudnnConvolutionDescriptor_t);

impl ConvDescriptor {
    pub(super) fn new<T: Element>(stride: usize, padding: usize) -> Result<Self> {
        let [stride, padding] = sizes([stride, padding])?;
        let descriptor = Self(result::create_convolution_descriptor()?);
        let mode = sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
        // SAFETY: the descriptor was just created.
        unsafe {
            result::set_convolution2d_descriptor(
                descriptor.0,
                padding,
                padding,
                stride,
                stride,
                1,
                1,
                mode,
                T::Wide::DATA_TYPE,
            )?;
            result::set_convolution_math_type(descriptor.0, T::MATH)?;
        }
        Ok(descriptor)
    }
}

impl Drop for ConvDescriptor {
    fn drop(&mut self) {
        // SAFETY: created in `new`, destroyed once.
        let _ = unsafe { result::destroy_convolution_descriptor(self.0) };
    }
}

/// A rectifier that keeps NaN.
pub(super) struct ReluDescriptor(pub(super) sys::cudnnActivationDescriptor_t);

impl ReluDescriptor {
    pub(super) fn new() -> Result<Self> {
        let descriptor = Self(result::create_activation_descriptor()?);
        let mode = sys::cudnnActivationMode_t::CUDNN_ACTIVATION_RELU;
        let nan = sys::cudnnNanPropagation_t::CUDNN_PROPAGATE_NAN;
        // SAFETY: the descriptor was just created.
        unsafe { result::set_activation_descriptor(descriptor.0, mode, nan, 0.0) }?;
        Ok(descriptor)
    }
}

impl Drop for ReluDescriptor {
    fn drop(&mut self) {
        // SAFETY: created in `new`, destroyed once.
        let _ = unsafe { sys::cudnnDestroyActivationDescriptor(self.0) };
    }
}

/// A maximum pool that keeps NaN and gives the same gradients every time.
pub(super) struct PoolDescriptor(pub(super) sys::cudnnPoolingDescriptor_t);

impl PoolDescriptor {
    pub(super) fn new(window: &Window) -> Result<Self> {
        let kernel = sizes([window.kernel; 2])?;
        let padding = sizes([window.padding; 2])?;
        let stride = sizes([window.stride; 2])?;
        let descriptor = Self(result::create_pooling_descriptor()?);
        let mode = sys::cudnnPoolingMode_t::CUDNN_POOLING_MAX_DETERMINISTIC;
        let nan = sys::cudnnNanPropagation_t::CUDNN_PROPAGATE_NAN;
        // SAFETY: the descriptor was just created; each slice has as many sizes as are announced.
        unsafe {
            result::set_pooling_descriptor(descriptor.0, mode, nan, 2, &kernel, &padding, &stride)
        }?;
        Ok(descriptor)
    }
}

impl Drop for PoolDescriptor {
    fn drop(&mut self) {
        // SAFETY: created in `new`, destroyed once.
        let _ = unsafe { sys::cudnnDestroyPoolingDescriptor(self.0) };
    }
}
