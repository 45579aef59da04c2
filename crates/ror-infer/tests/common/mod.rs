//! Networks with random weights, and what candle computes with them in float64.
#![allow(dead_code, clippy::unwrap_used, reason = "helpers of tests")]

use candle_core::{DType, Device, Tensor};
use ror_infer::{Engine, Input, Options};
use ror_models::{Network, Parameters, TensorRole};

/// Numbers in `[0, 1)` from a linear congruential generator.
pub(crate) fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..count)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u32 << 24) as f32
        })
        .collect()
}

/// Weights whose batch norms and biases do something.
pub(crate) fn weights(network: &Network) -> Parameters {
    let parameters = Parameters::init(network, 1, DType::F32, &Device::Cpu).unwrap();
    for (i, (_, role, var)) in parameters.iter().enumerate() {
        let noise = noise(var.elem_count(), i as u64);
        let noise = Tensor::from_vec(noise, var.shape(), &Device::Cpu).unwrap();
        match role {
            TensorRole::NormScale | TensorRole::RunningVariance => {
                var.set(&((noise * 0.5).unwrap() + 0.75).unwrap()).unwrap();
            }
            TensorRole::NormShift
            | TensorRole::RunningMean
            | TensorRole::DenseBias
            | TensorRole::ConvBias => var.set(&(noise - 0.5).unwrap()).unwrap(),
            TensorRole::ConvWeight | TensorRole::DenseWeight => {}
        }
    }
    parameters
}

/// Logits, or features where `features`, of `n` images in float64.
pub(crate) fn on_candle(
    network: &Network,
    weights: &Parameters,
    images: &[f32],
    (n, h, w): (usize, usize, usize),
    features: bool,
) -> Vec<f64> {
    let tensors = weights
        .iter()
        .map(|(name, _, var)| (name.to_owned(), var.to_dtype(DType::F64).unwrap()))
        .collect();
    let vb = candle_nn::VarBuilder::from_tensors(tensors, DType::F64, &Device::Cpu);
    let model = ror_models::Model::new(network, vb).unwrap();
    let channels = network.description.channels;
    let x = Tensor::from_slice(images, (n, channels, h, w), &Device::Cpu).unwrap();
    let x = x.to_dtype(DType::F64).unwrap();
    let y = if features {
        model.features(&x)
    } else {
        model.forward(&x)
    };
    y.unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Fails unless the engine agrees with candle to within 1e-4 of the largest logit.
pub(crate) fn check(network: &Network, options: &Options, n: usize) {
    let [h, w] = options.image_size.unwrap_or(network.description.image_size);
    let weights = weights(network);
    let images = noise(n * network.description.channels * h * w, 7);
    let expected = on_candle(network, &weights, &images, (n, h, w), false);
    let mut engine = Engine::compile(network, &weights.var_builder(), options).unwrap();
    let mut logits = vec![f32::NAN; n * engine.outputs()];
    engine.run(Input::F32(&images), &mut logits).unwrap();
    assert_close(
        &logits,
        &expected,
        &format!("{} {options:?}", network.description),
    );
}

pub(crate) fn assert_close(found: &[f32], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0, |a: f64, v| a.max(v.abs()));
    for (i, (&f, &e)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(f) - e).abs();
        assert!(
            error <= 1e-4 * largest,
            "{what}: [{i}] {f} for {e}, largest {largest}"
        );
    }
}
