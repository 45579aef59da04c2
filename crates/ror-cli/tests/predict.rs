//! `predict` on a file that Theano's Keras wrote, and `convert` of it.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Shell, golden, json};
use ror_data::npy;
use std::path::Path;

const WEIGHTS: &str = "keras122_theano/wrn_16_1_th.weights.h5";
const PROBABILITIES: &str = "keras122_theano/wrn_16_1_th.probs.npy";
const LOGITS: &str = "keras122_theano/wrn_16_1_th.logits.npy";

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    assert!(a.iter().chain(b).all(|v| v.is_finite()));
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f32::max)
}

#[test]
fn probabilities_and_logits_are_theanos() {
    let shell = Shell::new();
    let (weights, x) = (golden(WEIGHTS), golden("x.npy"));
    shell.ok(&["predict", "-w", &weights, &x, "-o", "p.npy"]);
    shell.ok(&[
        "predict",
        "-w",
        &weights,
        &x,
        "-o",
        "l.npy",
        "--logits",
        "--batch-size",
        "3",
    ]);
    let p = npy::read(shell.path("p.npy")).unwrap();
    assert_eq!(p.shape, [4, 10]);
    let theirs = npy::read(golden(PROBABILITIES)).unwrap();
    assert!(largest_difference(&p.data, &theirs.data) < 1e-5);
    let (l, theirs) = (
        npy::read(shell.path("l.npy")).unwrap(),
        npy::read(golden(LOGITS)).unwrap(),
    );
    let largest = theirs.data.iter().fold(0f32, |m, v| m.max(v.abs()));
    assert!(largest_difference(&l.data, &theirs.data) < 1e-4 * largest);
}

#[test]
fn json_has_the_keys_that_others_rely_on() {
    let shell = Shell::new();
    let out = shell.ok(&[
        "predict",
        "-w",
        &golden(WEIGHTS),
        &golden("x.npy"),
        "--json",
        "-k",
        "3",
    ]);
    let predictions = json(&out);
    assert_eq!(predictions.as_array().unwrap().len(), 4);
    let first = &predictions[0];
    assert!(first["input"].as_str().unwrap().ends_with("x.npy[0]"));
    let top = first["top"].as_array().unwrap();
    assert_eq!(top.len(), 3);
    let theirs = npy::read(golden(PROBABILITIES)).unwrap();
    let index = top[0]["index"].as_u64().unwrap() as usize;
    let probability = top[0]["probability"].as_f64().unwrap() as f32;
    assert_eq!(top[0]["class"], index.to_string());
    assert!((probability - theirs.data[index]).abs() < 1e-5);
    assert!(theirs.data[..10].iter().all(|&p| p <= theirs.data[index]));
}

#[test]
fn pictures_and_folders_in_one_run_with_a_note_on_resizing() {
    let shell = Shell::new();
    shell.png("a.png", 32, 32, [200, 30, 30]);
    shell.png("folder/deep/b.png", 100, 60, [30, 200, 30]);
    shell.png("folder/c.PNG", 32, 32, [30, 30, 200]);
    let run = shell.run(&[
        "predict",
        "-w",
        &golden(WEIGHTS),
        "a.png",
        "folder",
        "--json",
    ]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let predictions = json(&run.stdout);
    let inputs: Vec<&str> = predictions
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["input"].as_str().unwrap())
        .collect();
    assert_eq!(inputs.len(), 3);
    assert_eq!(inputs[0], "a.png");
    assert!(run.stderr.contains("100 x 60"), "{}", run.stderr);
    assert!(run.stderr.contains("normalised"), "{}", run.stderr);
}

#[test]
fn converted_weights_remember_names_and_normalisation() {
    let shell = Shell::new();
    let names: Vec<String> = (0..10).map(|i| format!("class {i}")).collect();
    shell.write("names.txt", names.join("\n"));
    shell.png("a.png", 32, 32, [10, 20, 30]);
    let weights = golden(WEIGHTS);
    let convert = [
        "convert",
        &weights,
        "w.safetensors",
        "--class-names",
        "names.txt",
    ];
    shell.ok(&[&convert[..], &["--normalise", "0.5,0.5,0.5,0.25,0.25,0.25"]].concat());
    let run = shell.run(&["predict", "-w", "w.safetensors", "a.png", "--json"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!(run.stderr, "");
    let top = &json(&run.stdout)[0]["top"][0];
    assert_eq!(top["class"], format!("class {}", top["index"]));
    let explicit = ["predict", "-w", &weights, "a.png", "--json"];
    let same = [
        &explicit[..],
        &["--normalise", "0.5,0.5,0.5,0.25,0.25,0.25"],
    ]
    .concat();
    let ours = json(&shell.ok(&same));
    assert_eq!(ours[0]["top"][0]["probability"], top["probability"]);
}

#[test]
fn converting_to_keras_and_back_changes_nothing() {
    let shell = Shell::new();
    shell.ok(&["convert", &golden(WEIGHTS), "k.h5"]);
    shell.ok(&["convert", "k.h5", "w.safetensors"]);
    let x = golden("x.npy");
    shell.ok(&["predict", "-w", &golden(WEIGHTS), &x, "-o", "a.npy"]);
    shell.ok(&["predict", "-w", "w.safetensors", &x, "-o", "b.npy"]);
    let read = |name| npy::read(shell.path(name)).unwrap().data;
    assert_eq!(read("a.npy"), read("b.npy"));
}

#[test]
fn bad_input_is_told_and_nothing_is_written() {
    let shell = Shell::new();
    let weights = golden(WEIGHTS);
    let x = golden("x.npy");
    let whole = std::fs::read(&weights).unwrap();
    shell.write("truncated.h5", &whole[..whole.len() / 2]);
    shell.write("text.jpg", "this is no picture");
    shell.write("text.npy", "this is no array");
    shell.write("empty.h5", "");
    std::fs::create_dir(shell.path("empty")).unwrap();
    npy::write(shell.path("flat.npy"), &[2, 3], &[0.0; 6]).unwrap();
    npy::write(shell.path("small.npy"), &[1, 3, 16, 16], &[0.0; 768]).unwrap();
    let before = shell.files();
    let predict = |args: &[&str]| shell.fails(&[&["predict", "-o", "out.npy"], args].concat());
    assert!(predict(&["-w", "truncated.h5", &x]).contains("truncated.h5"));
    assert!(predict(&["-w", "empty.h5", &x]).contains("empty.h5"));
    assert!(predict(&["-w", "missing.h5", &x]).contains("missing.h5"));
    assert!(predict(&["-w", "text.jpg", &x]).contains("text.jpg"));
    assert!(predict(&["-w", &weights, "text.jpg"]).contains("text.jpg"));
    assert!(predict(&["-w", &weights, "text.npy"]).contains("text.npy"));
    assert!(predict(&["-w", &weights, "flat.npy"]).contains("[2, 3]"));
    assert!(predict(&["-w", &weights, "small.npy"]).contains("16"));
    assert!(predict(&["-w", &weights, "empty"]).contains("empty"));
    assert!(predict(&["-w", &weights, "missing.jpg"]).contains("missing.jpg"));
    let error = predict(&["-w", &weights, &x, "--model", "keras-ror-3-wrn-22-1"]);
    assert!(error.contains("expects the shape"), "{error}");
    predict(&["-w", &weights, &x, "--model", "keras-ror-3-wrm-16-1"]);
    shell.fails(&["predict", "-w", &weights, &x, "-o", "no/folder/out.npy"]);
    shell.fails(&["convert", "truncated.h5", "out.safetensors"]);
    shell.fails(&["convert", &weights, "out.txt"]);
    shell.fails(&["convert", "truncated.h5", "truncated.h5"]);
    let error = shell.fails(&[
        "convert",
        &weights,
        "out.safetensors",
        "--model",
        "keras-ror-3-wrn-16-2",
    ]);
    assert!(error.contains("expects the shape"), "{error}");
    assert_eq!(shell.files(), before);
}

#[test]
fn pictures_need_no_weights_because_some_ship() {
    let shell = Shell::new();
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples");
    let samples = samples.canonicalize().unwrap();
    let run = |weights: Option<&str>| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ror"));
        command
            .env_remove("ROR_WEIGHTS")
            .envs(weights.map(|w| ("ROR_WEIGHTS", w)));
        command.args(["predict", "-k", "1", "--json"]).arg(&samples);
        command.current_dir(shell.path("."));
        command.output().unwrap()
    };
    let shipped = run(None);
    let predictions = json(std::str::from_utf8(&shipped.stdout).unwrap());
    let predictions = predictions.as_array().unwrap();
    assert_eq!(predictions.len(), 10);
    let right = predictions.iter().filter(|p| {
        let class = p["top"][0]["class"].as_str().unwrap();
        p["input"]
            .as_str()
            .unwrap()
            .ends_with(&format!("{class}.jpg"))
    });
    assert!(right.count() >= 9, "{predictions:?}");

    let missing = run(Some("nowhere.h5"));
    assert_eq!(missing.status.code(), Some(1));
    assert!(
        String::from_utf8(missing.stderr)
            .unwrap()
            .contains("nowhere.h5")
    );
}
