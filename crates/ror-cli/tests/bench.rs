//! `bench`. What it measures is not tested; that it measures is.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Shell, golden, json};

/// A small network, measured as short as can be.
fn bench(shell: &Shell, args: &[&str]) -> String {
    let quick = [
        "--image-size",
        "8",
        "--batch-size",
        "2",
        "--seconds",
        "0.05",
    ];
    let model = ["bench", "--model", "ror-3-14"];
    shell.ok(&[&model[..], &quick, args].concat())
}

#[test]
fn the_table_has_speed_latency_memory_and_size() {
    let text = bench(&Shell::new(), &["--threads", "2"]);
    for name in [
        "model  ",
        "batch size  ",
        "threads  ",
        "images/s  ",
        "latency p50  ",
        "latency p90  ",
        "latency p99  ",
        "packed weights  ",
        "working memory  ",
        "parameters  ",
        "multiply-adds per image  ",
    ] {
        assert!(text.lines().any(|l| l.starts_with(name)), "{name}: {text}");
    }
    assert!(text.lines().next().unwrap().ends_with("inference"));
    #[cfg(target_os = "linux")]
    assert!(text.contains("peak memory"), "{text}");
}

#[test]
fn json_has_the_documented_keys_in_both_modes() {
    let shell = Shell::new();
    let summary = ["summary", "ror-3-14", "--image-size", "8", "--json"];
    let summary = json(&shell.ok(&summary));
    for (mode, flags) in [("inference", &[][..]), ("training", &["--train"])] {
        let args = [flags, &["--json", "--threads", "2"]].concat();
        let report = json(&bench(&shell, &args));
        assert_eq!(report["model"], "ror-3-14");
        assert_eq!(report["batch_size"], 2);
        assert_eq!(report["threads"], 2);
        assert_eq!(report["mode"], mode);
        assert!(report["images_per_second"].as_f64().unwrap() > 0.0);
        let latency = |p: &str| report["latency_ms"][p].as_f64().unwrap();
        assert!(latency("p50") > 0.0);
        assert!(latency("p50") <= latency("p90") && latency("p90") <= latency("p99"));
        assert!(report.get("peak_memory_bytes").is_some());
        #[cfg(target_os = "linux")]
        assert!(report["peak_memory_bytes"].as_u64().unwrap() > 1 << 20);
        assert_eq!(report["parameters"], summary["parameters"]);
        assert_eq!(report["multiply_adds"], summary["multiply_adds"]);
    }
}

#[test]
fn a_profile_has_a_line_per_operation_and_their_sum() {
    let text = bench(&Shell::new(), &["--profile"]);
    let (_, profile) = text.split_once("\n\n").unwrap();
    let lines: Vec<&str> = profile.lines().collect();
    assert!(lines[0].starts_with("operation"), "{profile}");
    for path in ["stem.conv", "root.group3.block2.conv2", "head"] {
        assert!(profile.contains(path), "{path}: {profile}");
    }
    let last = lines.last().unwrap();
    assert!(
        last.starts_with("total") && last.contains("100.0 %"),
        "{last}"
    );
}

#[test]
fn weights_say_what_is_measured() {
    let weights = golden("keras122_theano/wrn_16_1_th.weights.h5");
    for flags in [&[][..], &["--train"]] {
        let args = [
            "bench",
            "--weights",
            &weights,
            "--batch-size",
            "1",
            "--seconds",
            "0.05",
            "--json",
        ];
        let report = json(&Shell::new().ok(&[&args[..], flags].concat()));
        assert_eq!(report["model"], "keras-ror-3-wrn-16-1");
        assert_eq!(report["batch_size"], 1);
    }
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let shell = Shell::new();
    for args in [
        &["--batch-size", "0"][..],
        &["--threads", "0"],
        &["--seconds", "0"],
        &["--seconds", "nan"],
        &["--profile", "--json"],
        &["--profile", "--train"],
        &["ror-3-14"],
    ] {
        let run = shell.run(&[&["bench"], args].concat());
        assert_eq!(run.code, Some(2), "{args:?}: {}", run.stderr);
    }
    let error = shell.fails(&["bench", "--model", "ror-3-111"]);
    assert!(error.contains("110"), "{error}");
    let error = shell.fails(&["bench", "--weights", "nowhere.h5"]);
    assert!(error.contains("nowhere.h5"), "{error}");
    for mode in [&[][..], &["--train"]] {
        let huge = ["--image-size", "32768", "--batch-size", "65536"];
        let error = shell.fails(&[&["bench", "--model", "ror-3-14"], &huge[..], mode].concat());
        assert!(error.contains("memory"), "{error}");
    }
    let weights = golden("keras122_theano/wrn_16_1_th.weights.h5");
    let error = shell.fails(&["bench", "--weights", &weights, "--image-size", "64"]);
    assert!(error.contains("need --model"), "{error}");
    let error = shell.fails(&["bench", "--weights", &weights, "--model", "ror-3-14"]);
    assert!(
        error.contains("ror-3-14") || error.contains("wrn_16_1_th"),
        "{error}"
    );
}
