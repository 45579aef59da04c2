//! The mean of weights, and of which weights there is none.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use candle_core::{DType, Device};
use ror_models::{Description, Network, Parameters};
use ror_weights::*;

fn weights(name: &str, seed: u64) -> Weights {
    let description = Description::preset(name).unwrap();
    let network = Network::new(&description).unwrap();
    let parameters = Parameters::init(&network, seed, DType::F32, &Device::Cpu).unwrap();
    let tensors = parameters
        .iter()
        .map(|(name, _, var)| (name.to_owned(), var.as_detached_tensor()))
        .collect();
    let mut metadata = Metadata {
        class_names: Some((0..10).map(|i| format!("class {i}")).collect()),
        ..Metadata::default()
    };
    metadata.extra.insert("accuracy".into(), "99 %".into());
    Weights {
        description,
        metadata,
        tensors,
        notes: Vec::new(),
        format: Format::Memory,
    }
}

fn values(weights: &Weights, name: &str) -> Vec<f32> {
    let tensor = weights.tensors[name].flatten_all().unwrap();
    tensor.to_vec1().unwrap()
}

#[test]
fn every_value_is_the_mean_and_the_accuracy_of_one_is_not_carried_on() {
    let all: Vec<_> = (1..4).map(|seed| weights("ror-3-8", seed)).collect();
    let mut mean = Mean::of(&all[0]).unwrap();
    all[1..].iter().for_each(|other| mean.add(other).unwrap());
    let mean = mean.weights().unwrap();
    assert_eq!(mean.tensors.len(), all[0].tensors.len());
    for name in mean.tensors.keys() {
        let [a, b, c] = [0, 1, 2].map(|i| values(&all[i], name));
        let found = values(&mean, name);
        for i in 0..found.len() {
            let expected = (f64::from(a[i]) + f64::from(b[i]) + f64::from(c[i])) / 3.0;
            assert!((f64::from(found[i]) - expected).abs() < 1e-7, "{name}");
        }
    }
    assert_eq!(mean.metadata.class_names, all[0].metadata.class_names);
    assert!(mean.metadata.extra.is_empty());
}

#[test]
fn the_mean_of_the_same_is_the_same() {
    let one = weights("pytorchcv-ror-3-14", 5);
    let mut mean = Mean::of(&one).unwrap();
    mean.add(&one).unwrap();
    let mut other_dropout = one.clone();
    other_dropout.description.dropout = 0.5;
    mean.add(&other_dropout).unwrap();
    let mean = mean.weights().unwrap();
    for name in one.tensors.keys() {
        assert_eq!(values(&mean, name), values(&one, name), "{name}");
    }
}

#[test]
fn different_networks_classes_and_inputs_are_refused_and_change_nothing() {
    let one = weights("ror-3-8", 1);
    let mut mean = Mean::of(&one).unwrap();
    let mut renamed = one.clone();
    renamed.metadata.class_names.as_mut().unwrap()[3] = "zebra".into();
    let mut nameless = one.clone();
    nameless.metadata.class_names = None;
    let mut scaled = one.clone();
    scaled.metadata.normalisation = Some(Normalisation {
        mean: vec![0.5; 3],
        std: vec![0.25; 3],
    });
    let mut larger = one.clone();
    larger.description.image_size = [40, 40];
    let mut incomplete = one.clone();
    incomplete.tensors.pop_last();
    for (other, message) in [
        (
            weights("ror-3-14", 1),
            "`ror-3-14` is another network than `ror-3-8` (depth: 14, 8)",
        ),
        (larger, "(image-size: [40,40], [32,32])"),
        (renamed, "expected `class 3`, found `zebra`"),
        (nameless, "expected `class 0`, found none"),
        (
            scaled,
            "normalisation: expected none, found mean [0.5, 0.5, 0.5]",
        ),
        (incomplete, "has no tensor `stem.norm.weight`"),
    ] {
        let error = mean.add(&other).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    let mean = mean.weights().unwrap();
    for name in one.tensors.keys() {
        assert_eq!(values(&mean, name), values(&one, name), "{name}");
    }
}
