//! `ror convert`: the output's name and the options choose the format, mistakes leave nothing.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use candle_core::{DType, Device};
use ror_models::{Description, Network, Parameters};
use ror_weights::{Format, LoadOptions, Metadata, Weights, load, save_safetensors};

/// Runs `ror convert ARGUMENTS` in `folder`.
fn convert(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ror"))
        .arg("convert")
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A folder with `in.safetensors`, weights of the network called `name`.
fn folder_with(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let description = Description::preset(name).unwrap();
    let network = Network::new(&description).unwrap();
    let parameters = Parameters::init(&network, 3, DType::F32, &Device::Cpu).unwrap();
    let tensors = parameters
        .iter()
        .map(|(name, _, var)| (name.to_owned(), var.as_detached_tensor()))
        .collect();
    let weights = Weights {
        description,
        metadata: Metadata::default(),
        tensors,
        notes: Vec::new(),
        format: Format::Memory,
    };
    save_safetensors(&folder.path().join("in.safetensors"), &weights).unwrap();
    folder
}

fn names(folder: &Path) -> Vec<String> {
    let entries = folder.read_dir().unwrap().map(|e| e.unwrap().file_name());
    let mut names: Vec<_> = entries.map(|n| n.into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn an_onnx_model_holds_what_the_options_ask_for() {
    let folder = folder_with("ror-3-8");
    for (options, present, absent) in [
        (&[][..], "logits", "probabilities"),
        (&["--softmax"], "probabilities", "logits"),
        (&["--fold-norms"], "logits", "BatchNormalization"),
    ] {
        let arguments = [
            &["in.safetensors", "out.onnx", "--normalise", "cifar10"],
            options,
        ];
        let output = convert(folder.path(), &arguments.concat());
        assert!(output.status.success(), "{}", stderr(&output));
        let bytes = fs::read(folder.path().join("out.onnx")).unwrap();
        let has = |text: &str| bytes.windows(text.len()).any(|w| w == text.as_bytes());
        assert!(has("root/group2/block1/conv1") && has("normalisation"));
        assert!(has(present) && !has(absent), "{options:?}");
    }
}

#[test]
fn a_state_dict_of_pytorchcv_has_its_names_and_reads_back() {
    let folder = folder_with("pytorchcv-ror-3-14");
    let arguments = ["in.safetensors", "out.safetensors", "--format", "pytorchcv"];
    let output = convert(folder.path(), &arguments);
    assert!(output.status.success(), "{}", stderr(&output));
    let out = folder.path().join("out.safetensors");
    let tensors = candle_core::safetensors::load(&out, &Device::Cpu).unwrap();
    let counter = &tensors["features.init_block.bn.num_batches_tracked"];
    assert_eq!(counter.dtype(), DType::I64);
    let read = load(&out, &LoadOptions::default()).unwrap();
    assert_eq!(read.description.to_string(), "pytorchcv-ror-3-14");
}

#[test]
fn weights_become_those_of_an_equal_model() {
    let folder = folder_with("pre-ror-3-20-sd");
    let arguments = [
        "in.safetensors",
        "out.safetensors",
        "--to",
        "ror-3-wrn-22-1",
    ];
    let output = convert(folder.path(), &arguments);
    assert!(output.status.success(), "{}", stderr(&output));
    let read = load(
        &folder.path().join("out.safetensors"),
        &LoadOptions::default(),
    )
    .unwrap();
    assert_eq!(read.description.to_string(), "ror-3-wrn-22-1");
}

#[test]
fn a_mean_is_of_one_network_and_replaces_none_of_its_parts() {
    let folder = folder_with("ror-3-8");
    let other = folder_with("ror-3-14");
    fs::copy(
        folder.path().join("in.safetensors"),
        folder.path().join("twin.safetensors"),
    )
    .unwrap();
    let mean = |output: &str, other: &str| {
        convert(
            folder.path(),
            &["in.safetensors", output, "--average", other],
        )
    };
    let output = mean("out.safetensors", "twin.safetensors");
    assert!(output.status.success(), "{}", stderr(&output));
    let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
    assert_eq!(read("out.safetensors"), read("in.safetensors"));

    let other = other.path().join("in.safetensors");
    for (output, other, message) in [
        ("new.safetensors", other.to_str().unwrap(), "`ror-3-14`"),
        ("twin.safetensors", "twin.safetensors", "is an input"),
        ("new.safetensors", "none.safetensors", "none.safetensors"),
    ] {
        let output = mean(output, other);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(message), "{}", stderr(&output));
    }
    assert_eq!(
        names(folder.path()),
        ["in.safetensors", "out.safetensors", "twin.safetensors"]
    );
    assert_eq!(read("twin.safetensors"), read("in.safetensors"));
}

#[test]
fn mistakes_are_named_and_leave_nothing() {
    let folder = folder_with("ror-3-14");
    for (arguments, code, message) in [
        (
            &["out.onnx", "--format", "pytorch"][..],
            1,
            "--format and --half for .safetensors",
        ),
        (
            &["out.safetensors", "--softmax"],
            1,
            "--softmax and --fold-norms are for .onnx",
        ),
        (
            &["out.pt"],
            1,
            "must end in .safetensors, .h5, .hdf5, .onnx",
        ),
        (
            &["out.safetensors", "--format", "pytorchcv"],
            1,
            "`ror-3-14` cannot be written as a state dict of pytorchcv: it is of the paper dialect",
        ),
        (
            &["out.safetensors", "--to", "pytorchcv"],
            1,
            "`root.pool1`, a 2 x 2 max pool",
        ),
        (
            &["out.safetensors", "--to", "caffe"],
            2,
            "unknown model `caffe`",
        ),
    ] {
        let output = convert(folder.path(), &[&["in.safetensors"], arguments].concat());
        assert_eq!(output.status.code(), Some(code));
        let stderr = stderr(&output);
        assert!(stderr.contains(message), "{stderr}");
        assert_eq!(names(folder.path()), ["in.safetensors"]);
    }
}

#[test]
fn half_the_size_keeps_every_kernel_to_eleven_bits_and_remarks_stay() {
    let folder = folder_with("ror-3-8");
    let output = convert(
        folder.path(),
        &[
            "in.safetensors",
            "half.safetensors",
            "--half",
            "--remark",
            "data=CIFAR-10, half of it",
        ],
    );
    assert!(output.status.success(), "{}", stderr(&output));
    let file = |name: &str| folder.path().join(name);
    let size = |name: &str| file(name).metadata().unwrap().len();
    assert!(size("half.safetensors") < size("in.safetensors") * 6 / 10);
    let whole = load(&file("in.safetensors"), &LoadOptions::default()).unwrap();
    let half = load(&file("half.safetensors"), &LoadOptions::default()).unwrap();
    assert_eq!(half.description, whole.description);
    assert_eq!(half.metadata.extra["data"], "CIFAR-10, half of it");
    for (name, tensor) in &whole.tensors {
        let values = |t: &candle_core::Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (a, b) in values(tensor).into_iter().zip(values(&half.tensors[name])) {
            assert!((a - b).abs() <= a.abs() / 2048.0 + 1e-7, "{name}: {a} {b}");
        }
    }
    for (wrong, options) in [
        ("half.onnx", &["--half"][..]),
        ("half.safetensors", &["--half", "--format", "pytorch"]),
    ] {
        let output = convert(
            folder.path(),
            &[&["in.safetensors", wrong], options].concat(),
        );
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains("--half"), "{}", stderr(&output));
    }
}
