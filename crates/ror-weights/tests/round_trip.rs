//! What is written reads back, and what contradicts itself is neither written nor read.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use ror_models::{Description, Network, Parameters, ShortcutKind};
use ror_weights::*;

type Save = fn(&Path, &Weights) -> Result<(), WeightsError>;
const FORMATS: [(Save, &str); 2] = [(save_safetensors, "w.safetensors"), (save_keras_h5, "w.h5")];

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

fn small() -> Weights {
    let mut weights = weights(Description::preset("ror-3-8").unwrap().with_classes(2));
    weights.metadata = Metadata {
        class_names: Some(vec!["cat".into(), "dog".into()]),
        normalisation: Some(Normalisation {
            mean: vec![0.5, 0.4, 0.3],
            std: vec![0.1, 0.2, 0.3],
        }),
        extra: BTreeMap::from([("accuracy".to_owned(), "0.5".to_owned())]),
    };
    weights
}

fn values(weights: &Weights) -> BTreeMap<&str, (Vec<usize>, Vec<f32>)> {
    let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1().unwrap();
    weights
        .tensors
        .iter()
        .map(|(name, t)| (name.as_str(), (t.dims().to_vec(), values(t))))
        .collect()
}

fn read(path: &Path) -> Result<Weights, WeightsError> {
    load(path, &LoadOptions::default())
}

/// The names in a folder.
fn files(folder: &Path) -> Vec<String> {
    let names = folder.read_dir().unwrap().map(|e| e.unwrap().file_name());
    names.map(|n| n.into_string().unwrap()).collect()
}

#[test]
fn networks_of_every_kind_read_back() {
    use ShortcutKind::{A, B, C};
    let preset = |name: &str| Description::preset(name).unwrap();
    for description in [
        preset("ror-3-8").with_shortcuts(&[A, B, A]).without_top(),
        preset("pre-ror-3-bottleneck-11").with_dropout(0.25),
        preset("ror-3-wrn-10-2-sd").with_shortcuts(&[C, C, C]),
        preset("ror-4-14"),
        preset("keras-ror-3-wrn-10-1"),
        preset("pytorchcv-ror-3-14"),
        preset("imagenet-ror-3-18"),
    ] {
        let written = weights(description);
        let folder = tempfile::tempdir().unwrap();
        for (save, name) in FORMATS {
            let path = folder.path().join(name);
            save(&path, &written).unwrap();
            let read = read(&path).unwrap();
            assert_eq!(read.description, written.description);
            assert!(values(&read) == values(&written));
            assert_eq!(read.notes, [""; 0]);
        }
    }
}

#[test]
fn metadata_travels_with_the_weights() {
    let written = small();
    let folder = tempfile::tempdir().unwrap();
    let formats = FORMATS.map(|(save, name)| {
        let path = folder.path().join(name);
        save(&path, &written).unwrap();
        let read = read(&path).unwrap();
        assert_eq!(read.metadata, written.metadata);
        read.format.to_string()
    });
    assert_eq!(formats, ["safetensors", "Keras 2.15.0 HDF5 model"]);
}

#[test]
fn the_same_weights_give_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    for (save, name) in FORMATS {
        let [a, b] = ["a", "b"].map(|prefix| folder.path().join(format!("{prefix}{name}")));
        save(&a, &small()).unwrap();
        save(&b, &small()).unwrap();
        assert!(std::fs::read(a).unwrap() == std::fs::read(b).unwrap());
    }
}

#[test]
fn weights_that_contradict_themselves_are_not_written() {
    type Change = fn(&mut Weights);
    let changes: [(Change, &str); 6] = [
        (
            |w| drop(w.tensors.remove("root.group2.block1.norm1.bias")),
            "tensor `root.group2.block1.norm1.bias` of shape [32] is missing",
        ),
        (
            |w| {
                let more = Tensor::zeros(1, DType::F32, &Device::Cpu).unwrap();
                w.tensors.insert("more".into(), more);
            },
            "tensor `more` of shape [1] has no place in `ror-3-8`",
        ),
        (
            |w| {
                let bias = Tensor::from_vec(vec![0.0, f32::NAN], 2, &Device::Cpu).unwrap();
                w.tensors.insert("head.dense.bias".into(), bias);
            },
            "tensor `head.dense.bias` holds NaN at element 1",
        ),
        (
            |w| w.description.classes = 3,
            "class names: expected 3, as the network has classes, found 2",
        ),
        (
            |w| w.metadata.class_names = Some(vec![String::new(); 3]),
            "class names: expected 2, as the network has classes, found 3",
        ),
        (
            |w| {
                w.metadata.normalisation = Some(Normalisation {
                    mean: vec![0.0; 3],
                    std: vec![0.0; 3],
                });
            },
            "normalisation: expected a mean and a positive deviation for each of 3 channels",
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (save, name) in FORMATS {
        let path = folder.path().join(name);
        std::fs::write(&path, "before").unwrap();
        for (change, message) in changes {
            let mut weights = small();
            change(&mut weights);
            let error = save(&path, &weights).unwrap_err();
            assert_eq!(error.path(), path);
            assert!(error.kind().to_string().contains(message), "{error}");
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"before");
    }
    let left = files(folder.path());
    assert_eq!(left.len(), FORMATS.len(), "{left:?}");
}

#[test]
fn a_path_that_cannot_be_written_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    for (save, _) in FORMATS {
        for path in [folder.path().join("none/w"), folder.path().to_path_buf()] {
            let error = save(&path, &small()).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Io(_)), "{error}");
        }
    }
    assert!(files(folder.path()).is_empty());
}

#[test]
fn a_network_named_by_the_caller_is_contradicted_by_the_first_tensor() {
    let preset = |name: &str| Description::preset(name).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (save, name) in FORMATS {
        let path = folder.path().join(name);
        save(&path, &small()).unwrap();
        let with_model = |model: Description| {
            let options = LoadOptions {
                model: Some(model),
                kernels: None,
            };
            load(&path, &options)
        };
        let error = with_model(preset("ror-3-8")).unwrap_err().to_string();
        assert!(error.contains("tensor `head.dense.weight`"), "{error}");
        let shapes = "`ror-3-8` expects the shape [10, 64], found [2, 64]";
        assert!(error.contains(shapes), "{error}");
        let error = with_model(preset("ror-3-14").with_classes(2)).unwrap_err();
        let missing = "tensor `root.group1.block2.conv1.weight` of shape [16, 16, 3, 3] is missing";
        assert!(error.to_string().contains(missing), "{error}");
        // What leaves no trace in tensors is the caller's to say.
        let mut dropping = preset("ror-3-8").with_classes(2).with_dropout(0.5);
        dropping.norm.epsilon = 1e-4;
        let read = with_model(dropping.clone()).unwrap();
        assert!(read.notes[0].contains("dropout"), "{:?}", read.notes);
        // But not how the file says that batch norms compute.
        dropping.norm = preset("ror-3-8").norm;
        assert_eq!(read.description, dropping);
    }
}

#[test]
fn bare_safetensors_tell_their_network() {
    let written = small();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bare.safetensors");
    let tensors: std::collections::HashMap<_, _> = written.tensors.clone().into_iter().collect();
    candle_core::safetensors::save(&tensors, &path).unwrap();
    let read = read(&path).unwrap();
    assert_eq!(read.description, written.description);
    assert!(values(&read) == values(&written));
    assert_eq!(read.format.to_string(), "bare safetensors");
}
