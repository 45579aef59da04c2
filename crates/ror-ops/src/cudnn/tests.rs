//! What cuDNN computes, against the processor in float64. Without a device nothing is tested, and the tests say so.

use super::*;
use crate::BatchStatistics;
use candle_core::{Device, Result, Var};

/// The first CUDA device.
fn device() -> Option<Device> {
    match Device::new_cuda(0) {
        Ok(device) => Some(device),
        Err(error) => {
            eprintln!("skipped: no CUDA device ({error})");
            None
        }
    }
}

fn numbers(count: usize, seed: usize) -> Vec<f64> {
    (0..count)
        .map(|i| (((i + seed) * 7919) % 1009) as f64 / 500.0 - 1.0)
        .collect()
}

/// A variable with the same values on any device, rounded to `dtype`.
fn var(shape: &[usize], seed: usize, dtype: DType, device: &Device) -> Result<Var> {
    let count = shape.iter().product();
    let values = Tensor::from_vec(numbers(count, seed), shape, &Device::Cpu)?;
    Var::from_tensor(&values.to_dtype(dtype)?.to_device(device)?)
}

/// The largest difference, relative to the largest value.
fn difference(found: &Tensor, expected: &Tensor) -> Result<f64> {
    let on = |t: &Tensor| t.to_device(&Device::Cpu)?.to_dtype(DType::F64);
    let (found, expected) = (on(found)?, on(expected)?);
    assert_eq!(found.dims(), expected.dims());
    let largest = expected.abs()?.max_all()?.to_scalar::<f64>()?;
    let off = found.sub(&expected)?.abs()?.max_all()?.to_scalar::<f64>()?;
    Ok(off / largest.max(1e-9))
}

/// Types with what they may differ from float64: rounding, TF32 and bfloat16 in sums of hundreds.
const TYPES: [(DType, f64); 3] = [(DType::F64, 1e-11), (DType::F32, 5e-3), (DType::BF16, 5e-2)];

/// The result and the gradients of `vars` under a loss that weighs every value otherwise.
fn run(vars: &[Var], f: impl Fn(&[Var]) -> Result<Tensor>) -> Result<Vec<Tensor>> {
    let y = f(vars)?;
    let weights = var(y.dims(), 3, y.dtype(), y.device())?;
    let store = y.mul(weights.as_tensor())?.sum_all()?.backward()?;
    let mut all = vec![y];
    for var in vars {
        match store.get(var) {
            Some(gradient) => all.push(gradient.clone()),
            None => candle_core::bail!("a variable has no gradient"),
        }
    }
    Ok(all)
}

fn compare(
    name: &str,
    shapes: &[&[usize]],
    wide: &[bool],
    f: impl Fn(&[Var]) -> Result<Tensor>,
) -> Result<()> {
    let Some(cuda) = device() else { return Ok(()) };
    for (dtype, limit) in TYPES {
        let vars = |device: &Device, of: &dyn Fn(DType) -> DType| -> Result<Vec<Var>> {
            let all = shapes.iter().zip(wide).enumerate();
            all.map(|(i, (shape, &wide))| {
                let rounded = if wide && dtype == DType::BF16 {
                    DType::F32
                } else {
                    dtype
                };
                let values = var(shape, i, rounded, &Device::Cpu)?;
                let values = values.to_dtype(of(rounded))?.to_device(device)?;
                Var::from_tensor(&values)
            })
            .collect()
        };
        let expected = run(&vars(&Device::Cpu, &|_| DType::F64)?, &f)?;
        let found = run(&vars(&cuda, &|dtype| dtype)?, &f)?;
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let off = difference(found, expected)?;
            assert!(off < limit, "{name}, {dtype:?}, {i}: {off}");
        }
    }
    Ok(())
}

#[test]
fn convolutions_and_their_gradients_are_those_of_the_processor() -> Result<()> {
    for (n, c, o, size, kernel, stride, padding) in [
        (2, 16, 32, 8, 3, 1, 1),
        (3, 5, 7, 9, 3, 2, 1),
        (2, 8, 16, 7, 1, 2, 0),
        (1, 3, 64, 15, 7, 2, 3),
    ] {
        let shapes: [&[usize]; 2] = [&[n, c, size, size], &[o, c, kernel, kernel]];
        compare("conv2d", &shapes, &[false, false], |v| {
            crate::conv2d(&v[0], &v[1], None, stride, padding)
        })?;
    }
    Ok(())
}

#[test]
fn batch_norms_and_their_gradients_are_those_of_the_processor() -> Result<()> {
    let shapes: [&[usize]; 3] = [&[4, 6, 5, 3], &[6], &[6]];
    compare("batch_norm_train", &shapes, &[false, true, true], |v| {
        Ok(crate::batch_norm_train(&v[0], &v[1], &v[2], 1e-3)?.0)
    })
}

#[test]
fn batch_norms_see_the_statistics_of_the_batch() -> Result<()> {
    let Some(cuda) = device() else { return Ok(()) };
    let statistics = |device: &Device| -> Result<BatchStatistics> {
        let x = var(&[4, 6, 5, 3], 1, DType::F64, device)?;
        let ones = Tensor::ones(6, DType::F64, device)?;
        Ok(crate::batch_norm_train(&x, &ones, &ones, 1e-3)?.1)
    };
    let (found, expected) = (statistics(&cuda)?, statistics(&Device::Cpu)?);
    assert_eq!(found.count, expected.count);
    assert!(difference(&found.mean, &expected.mean)? < 1e-11);
    assert!(difference(&found.variance, &expected.variance)? < 1e-11);
    Ok(())
}

#[test]
fn rectifiers_and_their_gradients_are_those_of_the_processor() -> Result<()> {
    compare("relu", &[&[2, 3, 5, 7]], &[false], |v| crate::relu(&v[0]))
}

#[test]
fn maximum_pools_and_their_gradients_are_those_of_the_processor() -> Result<()> {
    for (size, kernel, stride, padding) in [(8, 2, 2, 0), (9, 3, 2, 1)] {
        // No window has its largest value twice, in bfloat16 neither.
        compare("max_pool2d", &[&[1, 1, size, size]], &[false], |v| {
            crate::max_pool2d(&v[0], kernel, stride, padding)
        })?;
    }
    Ok(())
}

#[test]
fn the_gradient_of_the_rectifier_at_zero_is_zero_and_nan_stays() -> Result<()> {
    let Some(cuda) = device() else { return Ok(()) };
    let x = Var::new(&[-1f32, 0.0, 3.0, f32::NAN], &cuda)?;
    let y = crate::relu(&x)?;
    assert!(y.to_vec1::<f32>()?[3].is_nan());
    let store = y.narrow(0, 0, 3)?.sum_all()?.backward()?;
    let gradient = store.get(&x).map(|g| g.to_vec1::<f32>()).transpose()?;
    assert_eq!(
        gradient.as_deref().map(|g| &g[..3]),
        Some(&[0.0, 0.0, 1.0][..])
    );
    Ok(())
}
