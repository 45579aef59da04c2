//! Two-dimensional cross-correlation.

use candle_core::{DType, Result, Tensor};

use crate::conv_op;

/// Cross-correlates `x` with `weight`, and adds `bias` per output channel.
///
/// # Shapes
/// `x` `(N, C, H, W)`, `weight` `(O, C, K, K)`, `bias` `(O)`; the result is `(N, O, H', W')` with
/// `H' = (H + 2 padding - K) / stride + 1`, rounded down.
///
/// For float32 on the CPU the kernels of this crate are used, on as many threads as candle has. They pack the
/// weights; up to 64 MiB of packed weights are kept for later calls with the same ones.
///
/// # Errors
/// Shapes that do not fit each other.
pub fn conv2d(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    stride: usize,
    padding: usize,
) -> Result<Tensor> {
    let fast = |t: &Tensor| t.device().is_cpu() && t.dtype() == DType::F32;
    if fast(x) && fast(weight) && bias.is_none_or(fast) {
        return conv_op::conv2d(x, weight, bias, stride, padding);
    }
    let y = on_device(x, weight, stride, padding)?;
    match bias {
        Some(bias) => y.broadcast_add(&bias.reshape((1, (), 1, 1))?),
        None => Ok(y),
    }
}

/// Where this crate has no kernels of its own: by cuDNN, or by candle.
fn on_device(x: &Tensor, weight: &Tensor, stride: usize, padding: usize) -> Result<Tensor> {
    #[cfg(feature = "cudnn")]
    if crate::cudnn::takes(x) {
        return crate::cudnn::conv2d(x, weight, stride, padding);
    }
    let ([h, w], [kh, kw]) = (sides(x)?, sides(weight)?);
    let left = |side: usize, kernel: usize| {
        let padded = padding.checked_mul(2)?.checked_add(side)?;
        padded.checked_sub(kernel)?.checked_rem(stride)
    };
    let (Some(rows), Some(columns), true) = (left(h, kh), left(w, kw), kh.min(kw) > 0) else {
        candle_core::bail!(
            "conv2d: {:?} and {:?} with stride {stride}, padding {padding}",
            x.shape(),
            weight.shape()
        )
    };
    // candle's gradient has what a stride leaves over of the rows left over of the columns too, and
    // no room for more than there are rows. Where that is not so it is cut off first.
    if rows == columns && rows <= h {
        return x.conv2d(weight, padding, stride, 1, 1);
    }
    x.pad_with_zeros(2, padding, padding)?
        .pad_with_zeros(3, padding, padding)?
        .narrow(2, 0, h + 2 * padding - rows)?
        .narrow(3, 0, w + 2 * padding - columns)?
        .conv2d(weight, 0, stride, 1, 1)
}

/// Rows and columns.
fn sides(t: &Tensor) -> Result<[usize; 2]> {
    let (_, _, h, w) = t.dims4()?;
    Ok([h, w])
}
