//! Writes networks with random weights as other programs read them, an input and the logits, for
//! `onnx_runtime.py`, `pytorch_strict.py` and `keras_load.py` in `tests/peers` to compute again:
//! `exported_networks FOLDER [PART OF A NAME]`

use candle_core::{DType, Device, Tensor};
use ror_data::npy;
use ror_models::{Description, Dialect, Network, ShortcutKind, presets};
use ror_tests::random;
use ror_weights::{
    Format, Metadata, Normalisation, OnnxOptions, PytorchNames, Weights, save_keras_h5, save_onnx,
    save_pytorch,
};
use std::path::Path;

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: exported_networks FOLDER [PART OF A NAME]";
    let folder = arguments.next().ok_or(usage)?;
    let part = arguments.next().unwrap_or_default();
    std::fs::create_dir_all(&folder)?;
    for (name, description) in networks()? {
        if name.contains(&part) {
            write(Path::new(&folder), &name, description)?;
        }
    }
    Ok(())
}

/// Every preset, and what no preset has.
fn networks() -> Result<Vec<(String, Description)>> {
    use ShortcutKind::{A, B, C};
    let mut networks = Vec::new();
    for &name in presets() {
        networks.push((name.to_owned(), Description::preset(name)?));
    }
    for name in [
        "ror-1-20",
        "ror-2-20",
        "ror-4-20",
        "ror-5-32",
        "ror-5-wrn-28-1",
    ] {
        networks.push((name.to_owned(), Description::preset(name)?));
    }
    for (name, kinds) in [
        ("ror-3-20", [A, A, A]),
        ("pre-ror-3-bottleneck-20", [A, C, B]),
        ("keras-ror-3-wrn-10-1", [C, B, A]),
        ("pytorchcv-ror-3-14", [B, A, C]),
    ] {
        let description = Description::preset(name)?.with_shortcuts(&kinds);
        let kinds = kinds.map(|kind| format!("{kind:?}")).concat();
        networks.push((format!("{name}-{kinds}"), description));
    }
    let dropout = Description::preset("keras-ror-3-wrn-16-2")?.with_dropout(0.3);
    networks.push(("keras-ror-3-wrn-16-2-dropout".to_owned(), dropout));
    let features = Description::preset("ror-3-20")?.without_top();
    networks.push(("ror-3-20-features".to_owned(), features));
    Ok(networks)
}

fn write(folder: &Path, name: &str, description: Description) -> Result<()> {
    let network = Network::new(&description)?;
    let parameters = random::parameters(&network)?;
    let images = random::images(&description, 2)?;
    let weights = Weights {
        metadata: Metadata {
            class_names: Some(
                (0..description.classes)
                    .map(|i| format!("class {i}"))
                    .collect(),
            ),
            normalisation: Some(Normalisation {
                mean: vec![0.5, 0.4, 0.3],
                std: vec![0.25, 0.2, 0.1],
            }),
            ..Metadata::default()
        },
        tensors: parameters
            .iter()
            .map(|(name, _, var)| (name.to_owned(), var.as_detached_tensor()))
            .collect(),
        description,
        notes: Vec::new(),
        format: Format::Memory,
    };
    let path = |ending: &str| folder.join(format!("{name}{ending}"));
    save_onnx(&path(".onnx"), &weights, &OnnxOptions::default())?;
    let folded = OnnxOptions {
        fold_norms: true,
        ..OnnxOptions::default()
    };
    save_onnx(&path(".folded.onnx"), &weights, &folded)?;
    // Deep networks with random weights are too sure of a class to tell anything by.
    if network.head.classes.is_some() && network.parameters() < 200_000 {
        let softmax = OnnxOptions {
            softmax: true,
            ..OnnxOptions::default()
        };
        save_onnx(&path(".softmax.onnx"), &weights, &softmax)?;
    }
    save_keras_h5(&path(".h5"), &weights)?;
    let levels = path(".levels.safetensors");
    save_pytorch(&levels, &weights, PytorchNames::Levels)?;
    let described = &weights.description;
    let theirs = Description::new(
        described.dialect,
        described.family,
        described.depth,
        described.width,
    )?;
    if described.dialect == Dialect::Pytorchcv && *described == theirs {
        let pytorchcv = path(".pytorchcv.safetensors");
        save_pytorch(&pytorchcv, &weights, PytorchNames::Pytorchcv)?;
    }
    let logits = weights.model(DType::F32, &Device::Cpu)?.forward(&images)?;
    write_array(&path(".input.npy"), &images)?;
    write_array(&path(".logits.npy"), &logits)?;
    println!("{name}");
    Ok(())
}

fn write_array(path: &Path, tensor: &Tensor) -> Result<()> {
    let data = tensor.flatten_all()?.to_vec1()?;
    Ok(npy::write(path, tensor.dims(), &data)?)
}
