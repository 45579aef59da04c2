//! State dicts for PyTorch: their names, their counters, what is refused.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use ror_models::{Description, Network, Parameters, ShortcutKind};
use ror_weights::*;

fn weights(description: Description) -> Weights {
    let network = Network::new(&description).unwrap();
    let parameters = Parameters::init(&network, 3, DType::F32, &Device::Cpu).unwrap();
    let tensors = parameters
        .iter()
        .map(|(name, _, var)| (name.to_owned(), var.as_detached_tensor()))
        .collect();
    Weights {
        description,
        metadata: Metadata::default(),
        tensors,
        notes: Vec::new(),
        format: Format::Memory,
    }
}

fn written(path: &Path) -> BTreeMap<String, (DType, Vec<usize>)> {
    let tensors = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    let entry = |t: Tensor| (t.dtype(), t.dims().to_vec());
    tensors
        .into_iter()
        .map(|(name, t)| (name, entry(t)))
        .collect()
}

fn bits(weights: &Weights) -> Vec<(String, Vec<u32>)> {
    let bits = |t: &Tensor| -> Vec<u32> {
        let values: Vec<f32> = t.flatten_all().unwrap().to_vec1().unwrap();
        values.into_iter().map(f32::to_bits).collect()
    };
    let tensors = weights.tensors.iter();
    tensors.map(|(name, t)| (name.clone(), bits(t))).collect()
}

#[test]
fn state_dicts_carry_counters_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    for (model, names, norm) in [
        (
            "pytorchcv-ror-3-14",
            PytorchNames::Pytorchcv,
            "features.body.stages.stage2.units.unit1.identity_conv.bn",
        ),
        (
            "pytorchcv-ror-3-14",
            PytorchNames::Levels,
            "root.group2.block1.shortcut.norm",
        ),
        ("ror-3-wrn-10-2", PytorchNames::Levels, "head.norm"),
        ("keras-ror-3-wrn-10-1", PytorchNames::Levels, "head.norm"),
    ] {
        let weights = weights(Description::preset(model).unwrap());
        save_pytorch(&path, &weights, names).unwrap();
        let tensors = written(&path);
        assert_eq!(
            tensors[&format!("{norm}.num_batches_tracked")],
            (DType::I64, vec![])
        );
        let norms = |ending| tensors.keys().filter(|name| name.ends_with(ending)).count();
        assert_eq!(norms("num_batches_tracked"), norms("running_var"));
        assert_eq!(
            tensors.len(),
            weights.tensors.len() + norms("num_batches_tracked")
        );
        let read = load(&path, &LoadOptions::default()).unwrap();
        assert_eq!(read.description, weights.description);
        assert!(bits(&read) == bits(&weights), "{model}");
    }
}

#[test]
fn pytorchcv_gets_no_network_that_it_computes_otherwise() {
    use ShortcutKind::{B, C};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    let preset = || Description::preset("pytorchcv-ror-3-14").unwrap();
    let mut other_epsilon = preset();
    other_epsilon.norm.epsilon = 1e-3;
    let mut large = preset();
    large.image_size = [64, 32];
    for (description, reason) in [
        (
            Description::preset("ror-3-14").unwrap(),
            "it is of the paper dialect",
        ),
        (preset().without_top(), "it has no classifier"),
        (
            preset().with_levels(2),
            "its shortcuts are [C, B], not [C, C, B]",
        ),
        (
            preset().with_shortcuts(&[C, B, B]),
            "its shortcuts are [C, B, B], not [C, C, B]",
        ),
        (
            preset().with_stochastic_depth(0.5),
            "stochastic depth scales its residuals",
        ),
        (other_epsilon, "its epsilon is 0.001, not 0.00001"),
        (large, "its images are 64 x 32, not 32 x 32"),
    ] {
        let error = save_pytorch(&path, &weights(description), PytorchNames::Pytorchcv);
        let error = error.unwrap_err().to_string();
        let expected = format!("cannot be written as a state dict of pytorchcv: {reason}");
        assert!(error.ends_with(&expected), "{error}");
        assert!(!path.exists());
    }
}
