//! Weights expressed for another network compute the same; where none can, the difference is named.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use candle_core::{DType, Device, Tensor};
use ror_models::{Description, Dialect, Network, Parameters, ShortcutKind, TensorRole};
use ror_weights::*;

fn preset(name: &str) -> Description {
    Description::preset(name).unwrap()
}

/// Weights whose batch norms do something, variances small enough for epsilon to count.
fn weights(description: Description) -> Weights {
    let network = Network::new(&description).unwrap();
    let parameters = Parameters::init(&network, 3, DType::F32, &Device::Cpu).unwrap();
    let ramp = |var: &Tensor, from: f64, to: f64| -> Tensor {
        let n = var.elem_count();
        let ramp = (0..n).map(|i| (from + (to - from) * (i * 7 % n) as f64 / n as f64) as f32);
        Tensor::from_iter(ramp, &Device::Cpu).unwrap()
    };
    let tensors = parameters
        .iter()
        .map(|(name, role, var)| {
            let tensor = match role {
                TensorRole::NormScale => ramp(var, 0.1, 0.3),
                TensorRole::RunningVariance => ramp(var, 0.01, 0.1),
                TensorRole::ConvWeight | TensorRole::DenseWeight => var.as_detached_tensor(),
                _ => ramp(var, -0.5, 0.5),
            };
            (name.to_owned(), tensor)
        })
        .collect();
    Weights {
        description,
        metadata: Metadata::default(),
        tensors,
        notes: Vec::new(),
        format: Format::Memory,
    }
}

fn logits(weights: &Weights) -> Vec<f32> {
    let shape = (2, weights.description.channels, 32, 32);
    let n = 2 * weights.description.channels * 32 * 32;
    let images = (0..n).map(|i| (i * i % 251) as f32 / 125.0 - 1.0);
    let images = Tensor::from_iter(images, &Device::Cpu).unwrap();
    let model = weights.model(DType::F32, &Device::Cpu).unwrap();
    let logits = model.forward(&images.reshape(shape).unwrap()).unwrap();
    logits.flatten_all().unwrap().to_vec1().unwrap()
}

/// The largest difference of logits as a part of the largest.
fn difference(a: &[f32], b: &[f32]) -> f32 {
    let largest = a.iter().fold(0f32, |max, v| max.max(v.abs()));
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(0f32, |a, b| if b > a || b.is_nan() { b } else { a }) / largest
}

#[test]
fn networks_of_the_same_steps_compute_the_same() {
    use ShortcutKind::{A, B, C};
    let mut keras_epsilon = preset("pytorchcv-ror-3-14").with_classes(7);
    keras_epsilon.norm.epsilon = 1e-3;
    for (from, to) in [
        (preset("pre-ror-3-20"), preset("ror-3-wrn-22-1")),
        (preset("ror-3-14-sd"), preset("ror-3-14")),
        (preset("ror-3-14"), preset("ror-3-14-sd")),
        (
            preset("ror-3-wrn-16-2-sd").with_dropout(0.5),
            preset("ror-3-wrn-16-2"),
        ),
        (keras_epsilon, preset("pytorchcv-ror-3-14")),
        (
            preset("ror-3-14").with_shortcuts(&[A, A, A]),
            preset("ror-3-14").with_shortcuts(&[B, C, C]),
        ),
        (
            preset("pytorchcv-ror-3-14").with_shortcuts(&[A, C, B]),
            preset("pytorchcv-ror-3-14").with_shortcuts(&[C, C, C]),
        ),
        (
            preset("keras-ror-3-wrn-10-1").with_shortcuts(&[C, A, B]),
            preset("keras-ror-3-wrn-10-1").with_shortcuts(&[C, C, C]),
        ),
    ] {
        let written = weights(from);
        let read = written.expressed_as(&to).unwrap();
        assert_eq!(read.description.to_string(), to.to_string());
        assert_eq!(read.description.classes, written.description.classes);
        let (before, after) = (logits(&written), logits(&read));
        let difference = difference(&before, &after);
        assert!(difference < 1e-5, "{to}: {difference}");
    }
}

#[test]
fn the_first_difference_is_named() {
    use ShortcutKind::{B, C};
    let difference = |from: Description, to: Description| {
        let error = weights(from).expressed_as(&to).unwrap_err().to_string();
        error.split_once(": ").unwrap().1.to_owned()
    };
    assert_eq!(
        difference(preset("pytorchcv-ror-3-20"), preset("ror-3-14")),
        "`root.pool1` is a 2 x 2 max pool with stride 2, in its place there is \
         `root.group2.block1.conv1`, a 3 x 3 convolution from 16 to 32 channels with stride 2"
    );
    assert_eq!(
        difference(preset("pytorchcv-ror-3-56"), preset("keras-ror-3-56")),
        "`root.group1.block8` is a sum with a shortcut, not rectified, there it is a sum with a \
         shortcut, rectified"
    );
    assert_eq!(
        difference(preset("ror-3-14"), preset("ror-3-20")),
        "`root.group1.block2` is a sum with a shortcut, not rectified, there it is a sum with a \
         shortcut, rectified"
    );
    assert_eq!(
        difference(
            preset("ror-3-14"),
            preset("ror-3-14").with_shortcuts(&[C, B, B])
        ),
        "there is no place for tensor `root.group1.shortcut.conv.weight`"
    );
}

#[test]
fn no_network_of_a_dialect_is_one_of_another() {
    use Dialect::{Keras, Paper, Pytorchcv};
    for (from, to) in [
        ("keras-ror-3-56", Pytorchcv),
        ("keras-ror-3-56", Paper),
        ("pytorchcv-ror-3-56", Keras),
        ("pytorchcv-ror-3-14", Paper),
        ("pytorchcv-ror-3-14", Keras),
        ("ror-3-14", Pytorchcv),
        ("pre-ror-3-14", Keras),
        ("keras-ror-3-wrn-16-1", Paper),
        ("imagenet-ror-3-18", Pytorchcv),
    ] {
        for levels in 1..=3 {
            let weights = weights(preset(from).with_levels(levels));
            let error = weights.in_dialect(to).unwrap_err();
            assert!(matches!(error, ErrorKind::NotEquivalent { .. }), "{error}");
        }
    }
    let weights = weights(preset("ror-3-14").with_levels(2));
    let same = weights.in_dialect(Paper).unwrap();
    assert_eq!(same.description, weights.description);
}
