//! `--device` and `--precision`. What needs a CUDA device says that it was skipped where there is none.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Shell, args};
#[cfg(feature = "cuda")]
use common::{golden, json};

#[test]
fn a_device_that_is_none_is_wrong_usage() {
    let shell = Shell::new();
    for device in ["gpu", "cuda:first", "cpu:1"] {
        let run = shell.run(&["bench", "--device", device]);
        assert_eq!(run.code, Some(2), "{device}");
        assert!(run.stderr.contains("cuda:N"), "{}", run.stderr);
    }
}

#[test]
fn the_processor_trains_in_float32_only() {
    let shell = Shell::new();
    shell.stripes("data", ["across", "down"]);
    let command =
        "train --model ror-3-wrn-10-1 --image-size 12 --data data --out run --precision bf16";
    let error = shell.fails(&args(command, ""));
    assert!(error.contains("--device cuda"), "{error}");
    assert!(!shell.path("run").exists());
    let error = shell.fails(&args("bench --train --precision bf16", ""));
    assert!(error.contains("--device cuda"), "{error}");
}

/// Commands that compute on a device.
fn commands(shell: &Shell) -> [Vec<&'static str>; 4] {
    shell.stripes("data", ["across", "down"]);
    shell.png("red.png", 32, 32, [200, 20, 20]);
    [
        args("predict red.png", ""),
        args("bench --batch-size 1 --seconds 0.01", ""),
        args("bench --train --batch-size 2 --seconds 0.01", ""),
        args(
            "train --model ror-3-wrn-10-1 --image-size 12 --data data --out run --epochs 1",
            "",
        ),
    ]
}

#[cfg(not(feature = "cuda"))]
#[test]
fn without_the_feature_a_cuda_device_is_an_error_that_says_how_to_get_it() {
    let shell = Shell::new();
    for command in commands(&shell) {
        let error = shell.fails(&[&command[..], &["--device", "cuda:1"]].concat());
        for part in ["processors only", "--features cudnn", "cuda:1"] {
            assert!(error.contains(part), "{command:?}: {error}");
        }
    }
    assert!(!shell.path("run").exists());
}

#[test]
fn the_compiled_engine_is_for_the_processor() {
    let shell = Shell::new();
    shell.png("red.png", 32, 32, [200, 20, 20]);
    let command = args("predict red.png --engine compiled --device cuda", "");
    assert!(shell.fails(&command).contains("runs on the processor"));
}

/// Whether there is a CUDA device to compute on.
#[cfg(feature = "cuda")]
fn cuda() -> bool {
    match candle_core::Device::new_cuda(0) {
        Ok(_) => true,
        Err(error) => {
            eprintln!("skipped: no CUDA device ({error})");
            false
        }
    }
}

#[cfg(feature = "cuda")]
#[test]
fn a_device_that_is_not_there_is_an_error_that_names_it() {
    let shell = Shell::new();
    for command in commands(&shell) {
        let error = shell.fails(&[&command[..], &["--device", "cuda:1000"]].concat());
        assert!(
            error.contains("cannot use cuda:1000"),
            "{command:?}: {error}"
        );
    }
    assert!(!shell.path("run").exists());
}

#[cfg(feature = "cuda")]
#[test]
fn a_cuda_device_gives_the_probabilities_of_the_processor() {
    if !cuda() {
        return;
    }
    let shell = Shell::new();
    let command = ["predict", "--json", &golden("../../samples/cat.jpg")].map(str::to_owned);
    let of = |device: &str| {
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        let all = json(&shell.ok(&[&command[..], &["--device", device]].concat()));
        all[0]["top"][0]["probability"].as_f64().unwrap()
    };
    assert!((of("cuda") - of("cpu")).abs() < 5e-3);
}

#[cfg(feature = "cuda")]
#[test]
fn a_cuda_device_trains_to_the_losses_of_the_processor() {
    if !cuda() {
        return;
    }
    let shell = Shell::new();
    shell.stripes("data", ["across", "down"]);
    let loss = |out: &str, more: &str| {
        let command = "train --model ror-3-wrn-10-1 --image-size 12 --data data --batch-size 6 \
                       --lr 0.01 --epochs 2 --threads 2 --out";
        let mut command = args(command, out);
        command.extend(more.split_whitespace());
        shell.ok(&command);
        let text = std::fs::read_to_string(shell.path(out).join("metrics.csv")).unwrap();
        let last = text.lines().last().unwrap().to_owned();
        last.split(',').nth(3).unwrap().parse::<f64>().unwrap()
    };
    let expected = loss("cpu", "");
    assert!((loss("cuda", "--device cuda") / expected - 1.0).abs() < 0.02);
    assert!((loss("bf16", "--device cuda --precision bf16") / expected - 1.0).abs() < 0.1);
    assert_eq!(
        loss("again", "--device cuda"),
        loss("once-more", "--device cuda")
    );
    // A run goes on where it was, on the same device without its name.
    shell.ok(&args("train --resume --out cuda", ""));
}
