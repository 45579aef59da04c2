//! Networks and images with random values, the same on every machine.

use candle_core::{DType, Device, Result, Tensor};
use ror_models::{Description, Network, Parameters, TensorRole};

/// Weights whose batch norms do something: every scale, shift and statistic is random. Scales are
/// below one, so that the deepest networks stay in float32's range.
///
/// # Errors
/// None that a valid network can cause.
pub fn parameters(network: &Network) -> Result<Parameters> {
    let parameters = Parameters::init(network, 1, DType::F32, &Device::Cpu)?;
    for (i, (_, role, var)) in parameters.iter().enumerate() {
        let noise = noise(var.dims(), i as u64)?;
        match role {
            TensorRole::NormScale => var.set(&((noise * 0.5)? + 0.25)?)?,
            TensorRole::RunningVariance => var.set(&((noise * 0.5)? + 0.75)?)?,
            TensorRole::NormShift
            | TensorRole::RunningMean
            | TensorRole::ConvBias
            | TensorRole::DenseBias => var.set(&(noise - 0.5)?)?,
            TensorRole::ConvWeight | TensorRole::DenseWeight => {}
        }
    }
    Ok(parameters)
}

/// Images for the network described, `(count, C, H, W)`.
///
/// # Errors
/// None that a valid description can cause.
pub fn images(description: &Description, count: usize) -> Result<Tensor> {
    let [height, width] = description.image_size;
    noise(&[count, description.channels, height, width], 99)
}

/// Numbers in `[0, 1)` from a linear congruential generator.
fn noise(shape: &[usize], seed: u64) -> Result<Tensor> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let values: Vec<f32> = (0..shape.iter().product())
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u32 << 24) as f32
        })
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu)
}
