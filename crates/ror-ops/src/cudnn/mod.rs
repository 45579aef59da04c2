//! Convolution, batch normalisation, rectifier and maximum pool by cuDNN, with their gradients, as candle operations on CUDA devices.
//!
//! Types: float32 (products in TF32 where the device has it, as in PyTorch), float64, and bfloat16 with scales, shifts
//! and statistics in float32. Algorithms that give the same bits every time are preferred.

mod compute;
mod conv;
mod descriptors;
mod handle;
mod norm;
mod pool;
mod relu;

pub(crate) use conv::conv2d;
pub(crate) use norm::batch_norm_train;
pub(crate) use pool::max_pool2d;
pub(crate) use relu::relu;

use candle_core::{DType, Tensor};

/// Whether cuDNN computes on such tensors.
pub(crate) fn takes(x: &Tensor) -> bool {
    x.device().is_cuda() && matches!(x.dtype(), DType::F32 | DType::F64 | DType::BF16)
}

/// Whether cuDNN normalises such activations with a scale and a shift of such types.
pub(crate) fn normalises(x: &Tensor, gamma: &Tensor, beta: &Tensor) -> bool {
    let wide = match x.dtype() {
        DType::F64 => DType::F64,
        _ => DType::F32,
    };
    takes(x) && gamma.dtype() == wide && beta.dtype() == wide
}

#[cfg(test)]
mod tests;
