//! ONNX files compute in another runtime what the network does here.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use candle_core::{DType, Device, Tensor};
use ror_models::{Description, Network, Parameters, ShortcutKind, TensorRole};
use ror_weights::*;
use rten::Value;

const BATCH: usize = 3;

/// Weights whose batch norms do something.
fn weights(description: Description) -> Weights {
    let network = Network::new(&description).unwrap();
    let parameters = Parameters::init(&network, 5, DType::F32, &Device::Cpu).unwrap();
    let tensors = parameters
        .iter()
        .zip(1..)
        .map(|((name, role, var), seed)| {
            let random = random(var.dims(), seed);
            let tensor = match role {
                TensorRole::NormScale | TensorRole::RunningVariance => {
                    ((random * 0.25).unwrap() + 1.0).unwrap()
                }
                TensorRole::ConvWeight | TensorRole::DenseWeight => var.as_detached_tensor(),
                _ => random,
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

/// Numbers between -1 and 1 from a linear congruential generator.
fn random(shape: &[usize], seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let values: Vec<f32> = (0..shape.iter().product())
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn exported(weights: &Weights, options: OnnxOptions) -> rten::Model {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("network.onnx");
    save_onnx(&path, weights, &options).unwrap();
    rten::Model::load_file(&path).unwrap()
}

/// The largest difference between the runtimes' outputs, as a part of the largest output.
fn difference(weights: &Weights, options: OnnxOptions, output: &str) -> f32 {
    let description = &weights.description;
    let [height, width] = description.image_size;
    let shape = [BATCH, description.channels, height, width];
    let images = random(&shape, 99);
    let model = weights.model(DType::F32, &Device::Cpu).unwrap();
    let mut expected = model.forward(&images).unwrap();
    if options.softmax {
        expected = candle_nn::ops::softmax(&expected, 1).unwrap();
    }
    let onnx = exported(weights, options);
    let input = onnx.node_id("images").unwrap();
    let output = onnx.node_id(output).unwrap();
    let images: Vec<f32> = images.flatten_all().unwrap().to_vec1().unwrap();
    let images = Value::from_shape(&shape, images).unwrap();
    let [found] = onnx
        .run_n([(input, images.into())].into(), [output], None)
        .unwrap();
    let found = found.into_shape_vec::<f32, 2>().unwrap().1;
    let expected: Vec<f32> = expected.flatten_all().unwrap().to_vec1().unwrap();
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0f32, |a, b| a.max(b.abs()));
    let differences = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
    differences.fold(0f32, |a, b| if b > a || b.is_nan() { b } else { a }) / largest
}

#[test]
fn networks_of_every_dialect_compute_the_same_in_rten() {
    use ShortcutKind::{A, B, C};
    let preset = |name: &str| Description::preset(name).unwrap();
    let mut imagenet = preset("imagenet-ror-3-18").with_classes(7);
    imagenet.image_size = [65, 50];
    for description in [
        preset("ror-3-14"),
        preset("ror-1-14"),
        preset("ror-5-26"),
        preset("ror-3-8").with_shortcuts(&[A, A, A]),
        preset("pre-ror-3-bottleneck-11").with_shortcuts(&[A, C, B]),
        preset("ror-3-wrn-10-2-sd").with_dropout(0.25),
        preset("ror-3-8-sd"),
        preset("keras-ror-3-wrn-10-1").with_dropout(0.25),
        preset("keras-ror-3-56"),
        preset("pytorchcv-ror-3-14").with_dropout(0.25),
        imagenet,
    ] {
        let weights = weights(description);
        for fold_norms in [false, true] {
            let options = OnnxOptions {
                fold_norms,
                ..OnnxOptions::default()
            };
            let difference = difference(&weights, options, "logits");
            let name = &weights.description;
            assert!(difference < 1e-4, "{name}, {options:?}: {difference}");
        }
    }
}

#[test]
fn the_output_is_named_for_what_it_is() {
    let softmax = OnnxOptions {
        softmax: true,
        ..OnnxOptions::default()
    };
    let description = Description::preset("ror-3-8").unwrap();
    let classifier = weights(description.clone());
    assert!(difference(&classifier, softmax, "probabilities") < 1e-4);
    let features = weights(description.without_top());
    assert!(difference(&features, OnnxOptions::default(), "features") < 1e-4);
}

#[test]
fn nodes_are_named_as_the_levels_nest() {
    let weights = weights(Description::preset("ror-3-14").unwrap());
    let model = exported(&weights, OnnxOptions::default());
    for name in [
        "stem/norm",
        "root/group2/block2/conv1",
        "root/group2/shortcut/conv",
        "root/group3/block1/relu1",
        "root/add",
        "head/dense/weight",
    ] {
        assert!(model.find_node(name).is_some(), "{name}");
    }
}

#[test]
fn what_onnx_cannot_hold_is_refused_and_nothing_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("network.onnx");
    let description = Description::preset("ror-3-8").unwrap();
    let mut weights = weights(description.without_top());
    let softmax = OnnxOptions {
        softmax: true,
        ..OnnxOptions::default()
    };
    let error = save_onnx(&path, &weights, &softmax).unwrap_err();
    let reason = "cannot be written as ONNX: softmax needs the classifier";
    assert!(error.to_string().contains(reason), "{error}");
    let nan = Tensor::full(f32::NAN, 16, &Device::Cpu).unwrap();
    weights.tensors.insert("stem.norm.weight".into(), nan);
    let error = save_onnx(&path, &weights, &OnnxOptions::default()).unwrap_err();
    let reason = "tensor `stem.norm.weight` holds NaN";
    assert!(error.to_string().contains(reason), "{error}");
    // A variance that only folding takes the root of.
    let ones = Tensor::ones(16, DType::F32, &Device::Cpu).unwrap();
    let negative = Tensor::full(-1f32, 16, &Device::Cpu).unwrap();
    weights.tensors.insert("stem.norm.weight".into(), ones);
    weights
        .tensors
        .insert("stem.norm.running_var".into(), negative);
    let folded = OnnxOptions {
        fold_norms: true,
        ..OnnxOptions::default()
    };
    let error = save_onnx(&path, &weights, &folded).unwrap_err();
    let reason = "tensor `stem/conv/weight` holds NaN";
    assert!(error.to_string().contains(reason), "{error}");
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
}
