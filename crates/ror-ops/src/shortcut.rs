//! The parameter-free shortcut, type A of He et al. and of the RoR paper, section 3.

use candle_core::{Result, Tensor};

/// Keeps every `stride`-th row and column, and appends zero channels up to `channels`.
///
/// # Shapes
/// `x` `(N, C, H, W)`, the result `(N, channels, ceil(H / stride), ceil(W / stride))`.
///
/// # Errors
/// `channels` below `C`, or a stride of zero.
pub fn pad_shortcut(x: &Tensor, stride: usize, channels: usize) -> Result<Tensor> {
    let (_, c, h, w) = x.dims4()?;
    if channels < c || stride == 0 {
        candle_core::bail!(
            "a zero-padded shortcut cannot go from {c} to {channels} channels with stride {stride}"
        )
    }
    let mut y = x.clone();
    if stride > 1 {
        for (dim, size) in [(2, h), (3, w)] {
            let kept: Vec<u32> = (0..size).step_by(stride).map(|i| i as u32).collect();
            let kept = Tensor::new(kept, x.device())?;
            y = y.contiguous()?.index_select(&kept, dim)?;
        }
    }
    if channels > c {
        y = y.pad_with_zeros(1, 0, channels - c)?;
    }
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    #[test]
    fn strides_by_subsampling_and_pads_with_zero_channels() -> Result<()> {
        let x = Tensor::arange(0f32, 15.0, &Device::Cpu)?.reshape((1, 1, 3, 5))?;
        let y = pad_shortcut(&x, 2, 2)?;
        assert_eq!(y.dims(), [1, 2, 2, 3]);
        assert_eq!(
            y.flatten_all()?.to_vec1::<f32>()?,
            [0., 2., 4., 10., 12., 14., 0., 0., 0., 0., 0., 0.]
        );
        Ok(())
    }

    #[test]
    fn gradient_reaches_only_the_kept_pixels() -> Result<()> {
        let x = Var::ones((1, 1, 2, 3), candle_core::DType::F64, &Device::Cpu)?;
        let grads = pad_shortcut(&x, 2, 3)?.sum_all()?.backward()?;
        let g = grads.get(&x).unwrap().flatten_all()?.to_vec1::<f64>()?;
        assert_eq!(g, [1., 0., 1., 0., 0., 0.]);
        Ok(())
    }

    #[test]
    fn fewer_channels_is_an_error() {
        let x = Tensor::zeros((1, 4, 2, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
        assert!(pad_shortcut(&x, 1, 3).is_err());
    }
}
