//! `lesion` on an image folder.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Shell, golden, json};

const WEIGHTS: &str = "keras122_theano/wrn_16_1_th.weights.h5";

/// Two plain images for each of ten classes.
fn folder(shell: &Shell) {
    for i in 0..10u8 {
        for j in 0..2u8 {
            let colour = [i * 25, j * 100, 255 - i * 25];
            shell.png(&format!("data/test/{i}/{j}.png"), 32, 32, colour);
            shell.png(&format!("data/train/{i}/{j}.png"), 32, 32, colour);
        }
    }
}

#[test]
fn every_summand_is_removed_once_and_the_whole_is_what_eval_says() {
    let shell = Shell::new();
    folder(&shell);
    let weights = golden(WEIGHTS);
    let on = ["-w", &weights, "-d", "data", "--json"];
    let run = |command: &str, more: &[&str]| json(&shell.ok(&[&[command][..], &on, more].concat()));
    let evaluation = run("eval", &[]);
    let report = run("lesion", &[]);
    assert_eq!(report["images"], 20);
    assert_eq!(report["top1"], evaluation["top1"]);
    assert_eq!(report["loss"], evaluation["loss"]);

    let lesions = report["lesions"].as_array().unwrap();
    // A root, three groups, six blocks with two summands each.
    assert_eq!(lesions.len(), 1 + 3 + 12);
    assert_eq!(lesions[0]["path"], "root");
    assert_eq!(lesions[2]["path"], "root.group1.block1");
    assert_eq!(
        (&lesions[2]["level"], &lesions[2]["summand"]),
        (&3.into(), &"shortcut".into())
    );
    assert_eq!(lesions[3]["summand"], "residual");
    for lesion in lesions {
        let figure = |name: &str| lesion[name].as_f64().unwrap();
        assert_ne!(figure("loss_gained"), 0.0, "{lesion}");
        let lost = report["top1"].as_f64().unwrap() - figure("top1");
        assert_eq!(figure("top1_lost"), lost, "{lesion}");
    }
    let levels = report["levels"].as_array().unwrap();
    let counts: Vec<u64> = levels
        .iter()
        .map(|l| l["count"].as_u64().unwrap())
        .collect();
    assert_eq!(counts, [1, 3, 6, 6]);

    let plain = run("lesion", &["--engine", "candle"]);
    for (ours, theirs) in lesions.iter().zip(plain["lesions"].as_array().unwrap()) {
        let difference = ours["loss"].as_f64().unwrap() - theirs["loss"].as_f64().unwrap();
        assert!(difference.abs() < 1e-4, "{ours} {theirs}");
    }
}

#[test]
fn some_images_are_taken_from_all_classes() {
    let shell = Shell::new();
    folder(&shell);
    let weights = golden(WEIGHTS);
    let text = shell.ok(&["lesion", "-w", &weights, "-d", "data", "--images", "10"]);
    assert!(text.contains("10 of 20 images"), "{text}");
    let indented = |line: &&str| line.starts_with("    block2 residual ");
    assert_eq!(text.lines().filter(indented).count(), 3, "{text}");
}

#[test]
fn what_cannot_be_measured_is_said() {
    let shell = Shell::new();
    folder(&shell);
    let weights = golden(WEIGHTS);
    let on = |weights: &str, data: &str| shell.fails(&["lesion", "-w", weights, "-d", data]);
    assert!(on("none.h5", "data").contains("none.h5"));
    assert!(on(&weights, "none").contains("none"));
    shell.write("w.h5", "no weights");
    assert!(on("w.h5", "data").contains("w.h5"));
    let zero = shell.run(&["lesion", "-w", &weights, "-d", "data", "--images", "0"]);
    assert_eq!(zero.code, Some(2));
}
