//! The rectifier.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

/// `max(x, 0)`; a NaN stays a NaN, and the gradient at exactly zero is zero.
///
/// candle's own rectifier lets the gradient through at zero, PyTorch's and TensorFlow's do not.
///
/// # Errors
/// On the CPU, a type other than f32, f64, f16 or bf16.
pub fn relu(x: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cudnn")]
    if crate::cudnn::takes(x) {
        return crate::cudnn::relu(x);
    }
    if x.device().is_cpu() {
        x.contiguous()?.apply_op1(Relu)
    } else {
        composed(x)
    }
}

/// The same out of candle's operations.
fn composed(x: &Tensor) -> Result<Tensor> {
    x.detach().le(0f64)?.where_cond(&x.zeros_like()?, x)
}

struct Relu;

/// Rectifies, and keeps a NaN, which `f32::max` would turn to zero.
fn rectify<T: PartialOrd + Default + Copy>(x: &[T]) -> Vec<T> {
    let zero = T::default();
    x.iter().map(|&v| if v < zero { zero } else { v }).collect()
}

impl CustomOp1 for Relu {
    fn name(&self) -> &'static str {
        "ror-relu"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let Some((from, to)) = layout.contiguous_offsets() else {
            candle_core::bail!("ror-relu: the input is not contiguous")
        };
        let y = match storage {
            CpuStorage::F32(x) => CpuStorage::F32(rectify(&x[from..to])),
            CpuStorage::F64(x) => CpuStorage::F64(rectify(&x[from..to])),
            CpuStorage::F16(x) => CpuStorage::F16(rectify(&x[from..to])),
            CpuStorage::BF16(x) => CpuStorage::BF16(rectify(&x[from..to])),
            _ => candle_core::bail!("ror-relu: expected floating-point numbers"),
        };
        Ok((y, layout.shape().clone()))
    }

    fn bwd(&self, _arg: &Tensor, res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let positive = res.detach().gt(0f64)?.to_dtype(grad.dtype())?;
        Ok(Some(grad.mul(&positive)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    #[test]
    fn negatives_become_zero_and_nan_stays() -> Result<()> {
        let x = Tensor::new(
            &[-1f32, -0.0, 2.0, f32::NEG_INFINITY, f32::NAN],
            &Device::Cpu,
        )?;
        for relu in [relu, composed] {
            let y = relu(&x)?.to_vec1::<f32>()?;
            assert_eq!(&y[..4], &[0.0, 0.0, 2.0, 0.0]);
            assert!(y[4].is_nan());
        }
        Ok(())
    }

    #[test]
    fn gradient_at_zero_is_zero() -> Result<()> {
        let x = Var::new(&[-1f64, 0.0, 3.0], &Device::Cpu)?;
        for relu in [relu, composed] {
            let grads = relu(&x)?.sum_all()?.backward()?;
            let g = grads.get(&x).unwrap().to_vec1::<f64>()?;
            assert_eq!(g, [0.0, 0.0, 1.0]);
        }
        Ok(())
    }

    #[test]
    fn a_transposed_view_is_rectified_in_its_own_order() -> Result<()> {
        let x = Tensor::new(&[[1f32, -2.0], [-3.0, 4.0]], &Device::Cpu)?.t()?;
        assert_eq!(relu(&x)?.to_vec2::<f32>()?, [[1.0, 0.0], [0.0, 4.0]]);
        Ok(())
    }
}
