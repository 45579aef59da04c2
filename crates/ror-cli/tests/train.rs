//! `train`: runs, killed runs, and what goes wrong.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Shell, TINY, args, json};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// Begins the command; it must be killed or waited for.
fn spawn(shell: &Shell, arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_ror"))
        .args(arguments)
        .current_dir(shell.path(""))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits until a run has finished its first epoch.
fn wait_for_an_epoch(shell: &Shell, child: &mut Child, run: &str) {
    while !shell.path(run).join("curves.svg").exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended early");
        sleep(Duration::from_millis(20));
    }
}

/// Columns of `metrics.csv` that do not depend on the clock.
fn metrics(run: &Path) -> Vec<String> {
    let text = fs::read_to_string(run.join("metrics.csv")).unwrap();
    let steady = |line: &str| line.split(',').take(8).collect::<Vec<_>>().join(",");
    text.lines().map(steady).collect()
}

#[test]
fn a_run_leaves_everything_and_its_weights_are_evaluated_alike() {
    let shell = Shell::new();
    shell.stripes("data", ["across", "down"]);
    let report = json(&shell.ok(&args(TINY, "--out run --json --epochs 3")));
    assert_eq!(report["steps"], 9);
    for name in [
        "config.toml",
        "metrics.csv",
        "curves.svg",
        "best.safetensors",
        "last/state.json",
    ] {
        assert!(shell.path("run").join(name).is_file(), "{name}");
    }
    assert_eq!(metrics(&shell.path("run")).len(), 4);
    let eval = ["eval", "-w", "run/best.safetensors", "-d", "data", "--json"];
    let evaluation = json(&shell.ok(&eval));
    let kept = &report["best"]["validation"];
    assert_eq!(evaluation["top1"], kept["top1"]);
    let difference = evaluation["loss"].as_f64().unwrap() - kept["loss"].as_f64().unwrap();
    assert!(difference.abs() < 1e-5);

    let config = ["train", "--config", "run/config.toml", "--out", "again"];
    shell.ok(&config);
    let weights = |run: &str| fs::read(shell.path(run).join("last/weights.safetensors")).unwrap();
    assert!(
        weights("run") == weights("again"),
        "the configuration does not repeat the run"
    );
}

#[test]
fn a_run_killed_at_any_moment_goes_on_to_the_bit() {
    let shell = Shell::new();
    shell.stripes("data", ["across", "down"]);
    shell.ok(&args(TINY, "--out whole --epochs 15"));

    // Checkpoints follow every step, so that many of these moments fall into one.
    let mut kills = 0;
    for part in 0..1000 {
        let resume = ["train", "--resume", "--out", "killed"];
        let begun = shell.path("killed/config.toml").exists();
        let arguments = if begun {
            resume.to_vec()
        } else {
            args(TINY, "--out killed --epochs 15")
        };
        let mut child = spawn(&shell, &arguments);
        // Different moments, later and later so that the run comes to an end.
        sleep(Duration::from_millis(20 + part * 37 % 200 + part * 4));
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{status}");
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
    }
    assert!(kills > 0);
    let (whole, killed) = (shell.path("whole"), shell.path("killed"));
    for name in [
        "best.safetensors",
        "last/weights.safetensors",
        "last/ema.safetensors",
    ] {
        let read = |run: &Path| fs::read(run.join(name)).unwrap();
        assert!(read(&whole) == read(&killed), "{name} differs");
    }
    assert_eq!(metrics(&killed), metrics(&whole));
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_saves_and_says_how_to_go_on() {
    let shell = Shell::new();
    shell.stripes("data", ["across", "down"]);
    let long = args(TINY, "--out run --epochs 100000");
    let mut child = spawn(&shell, &long);
    wait_for_an_epoch(&shell, &mut child, "run");
    let pid = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .unwrap()
            .success()
    );
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let last = stderr.lines().last().unwrap();
    assert!(last.contains("ror train --resume --out run"), "{stderr}");
    assert!(shell.path("run/last/state.json").is_file());
}

#[test]
fn weights_for_other_classes_are_fine_tuned() {
    let shell = Shell::new();
    shell.stripes("data", ["across", "down"]);
    let short = args(TINY, "--out first --epochs 1 --normalise unit");
    shell.ok(&short);
    // A third class: what was `test` of the second.
    let third = shell.path("data/train/third");
    fs::create_dir_all(&third).unwrap();
    for i in 0..4 {
        let from = shell.path(&format!("data/test/down/{i}.png"));
        fs::copy(from, third.join(format!("{i}.png"))).unwrap();
    }
    fs::remove_dir_all(shell.path("data/test")).unwrap();
    let tune = "train --init first/best.safetensors --data data --out second --epochs 1 \
                --batch-size 8 --holdout 0.25";
    let run = shell.run(&args(tune, ""));
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(
        run.stderr.contains("the classifier is replaced"),
        "{}",
        run.stderr
    );
    let summary = json(&shell.ok(&["summary", "second/best.safetensors", "--json"]));
    assert_eq!(summary["output"]["channels"], 3);
    // The weights know how their inputs were normalised.
    let config = fs::read_to_string(shell.path("second/config.toml")).unwrap();
    assert!(config.contains("mean = [0.0, 0.0, 0.0]"), "{config}");
}

#[test]
fn a_folder_with_something_that_a_run_would_replace_is_left_alone() {
    for name in [
        "last/notes.txt",
        "metrics.csv",
        "best.safetensors",
        "curves.svg",
    ] {
        let shell = Shell::new();
        shell.stripes("data", ["across", "down"]);
        let path = shell.write(&format!("mine/{name}"), "mine");
        let error = shell.fails(&args(TINY, "--out mine --epochs 1"));
        let first = name.split('/').next().unwrap();
        assert!(error.contains(&format!("`{first}`")), "{error}");
        assert_eq!(fs::read_to_string(path).unwrap(), "mine");
        assert!(!shell.path("mine/config.toml").exists());
    }
    // Nor does another's lock change that.
    let shell = Shell::new();
    shell.stripes("data", ["across", "down"]);
    shell.write("mine/.lock", "");
    let path = shell.write("mine/last/notes.txt", "mine");
    shell.fails(&args(TINY, "--out mine --epochs 1"));
    assert_eq!(fs::read_to_string(path).unwrap(), "mine");
}

#[test]
fn a_checkpoint_goes_on_only_with_the_settings_that_it_began_with() {
    let shell = Shell::new();
    shell.stripes("data", ["across", "down"]);
    shell.ok(&args(TINY, "--out run --epochs 2"));
    let path = shell.path("run/config.toml");
    let config = fs::read_to_string(&path).unwrap();
    fs::write(&path, config.replace("batch-size = 6", "batch-size = 9")).unwrap();
    let error = shell.fails(&args("train --resume --out run", ""));
    assert!(error.contains("batches an epoch"), "{error}");
    fs::write(&path, config).unwrap();
    shell.ok(&args("train --resume --out run", ""));
}

#[test]
fn changes_of_images_are_written_down_and_those_left_out_are_none() {
    let shell = Shell::new();
    shell.stripes("data", ["across", "down"]);
    shell.ok(&args(TINY, "--out changed --epochs 1 --trivial 0.5"));
    let config = fs::read_to_string(shell.path("changed/config.toml")).unwrap();
    assert!(config.contains("\ntrivial = 0.5\n"), "{config}");
    shell.ok(&args(TINY, "--out run --epochs 1"));
    let path = shell.path("run/config.toml");
    let config = fs::read_to_string(&path).unwrap();
    fs::write(&path, config.replace("trivial = 0.0\n", "")).unwrap();
    shell.ok(&args("train --resume --out run", ""));
    let error = shell.fails(&args(TINY, "--out none --trivial 2"));
    assert!(error.contains("trivial is 2; allowed: 0 to 1"), "{error}");
}

#[test]
fn what_cannot_be_done_is_said_and_nothing_is_overwritten() {
    let shell = Shell::new();
    shell.stripes("data", ["across", "down"]);
    shell.ok(&args(TINY, "--out run --epochs 1"));
    // Flags switch off too what a file switches on.
    shell.ok(&args(
        TINY,
        "--out held --epochs 1 --holdout 0.3 --decay-all",
    ));
    let off = "--holdout 0 --decay-all false --no-nesterov --out off";
    shell.ok(&args("train --config held/config.toml", off));
    let config = fs::read_to_string(shell.path("off/config.toml")).unwrap();
    for setting in ["decay-all = false", "nesterov = false"] {
        assert!(config.contains(setting), "{config}");
    }
    assert!(!config.contains("holdout"), "{config}");
    let before = fs::read(shell.path("run/best.safetensors")).unwrap();
    let config = fs::read_to_string(shell.path("run/config.toml")).unwrap();
    shell.write("both.toml", format!("model = \"ror-3-20\"\n{config}"));
    for (arguments, word) in [
        (args(TINY, "--out run --epochs 3"), "already"),
        (args("train --resume --out none", ""), "none"),
        (args("train --resume --out run --lr 3", ""), "config.toml"),
        (args(TINY, "--out new --lr=-1 --epochs 3"), "lr"),
        (args(TINY, "--out new --milestones 0.5"), "--schedule step"),
        (args("train --config both.toml --out new", ""), "remove one"),
        (
            args(TINY, "--out new --classes 5 --epochs 3"),
            "--classes 5",
        ),
        (args("train --data data --out new", ""), "--model"),
        (args("train --model ror-3-20 --out new", ""), "--data"),
        (args(TINY, "--out new --crop 99 --epochs 3"), "crop"),
        (
            args(TINY, "--out data/test/down/0.png/new --epochs 3"),
            "0.png",
        ),
    ] {
        let error = shell.fails(&arguments);
        assert!(error.contains(word), "{arguments:?}: {error}");
    }
    assert!(!shell.path("new").exists());
    assert!(fs::read(shell.path("run/best.safetensors")).unwrap() == before);
}

#[test]
fn a_diverging_run_names_the_step_and_keeps_the_checkpoint() {
    let shell = Shell::new();
    shell.stripes("data", ["across", "down"]);
    let run = shell.run(&args(TINY, "--out run --lr 1e30 --epochs 3"));
    assert_eq!(run.code, Some(1));
    let error = run.stderr.lines().last().unwrap();
    assert!(error.contains("at step"), "{error}");
    assert!(run.stderr.contains("kept in run/last"), "{}", run.stderr);
    assert!(shell.path("run/last/weights.safetensors").is_file());
}

#[test]
fn a_truncated_and_a_missing_image_are_named() {
    let shell = Shell::new();
    shell.stripes("data", ["across", "down"]);
    let path = shell.path("data/train/down/3.png");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let error = shell.fails(&args(TINY, "--out run --epochs 3"));
    assert!(error.contains("3.png"), "{error}");
    fs::remove_file(&path).unwrap();
    shell.ok(&args(TINY, "--out run --epochs 1"));
    fs::remove_file(shell.path("data/train/down/4.png")).unwrap();
    let error = shell.fails(&["train", "--resume", "--out", "run"]);
    assert!(
        error.contains("18 images") || error.contains("17 images"),
        "{error}"
    );
}

/// Files that may not grow beyond a limit stand for a disk that is full.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_said_and_the_last_checkpoint_stays() {
    let shell = Shell::new();
    shell.stripes("data", ["across", "down"]);
    shell.ok(&args(TINY, "--out run --epochs 1"));
    // From a checkpoint in the middle of the run.
    let long = args(TINY, "--out full --epochs 100000");
    let mut child = spawn(&shell, &long);
    wait_for_an_epoch(&shell, &mut child, "full");
    child.kill().unwrap();
    child.wait().unwrap();
    let state = |name: &str| fs::read(shell.path("full/last").join(name)).unwrap();
    let resume = |limit: &str| {
        let script =
            format!("trap '' XFSZ; ulimit -f {limit}; exec \"$0\" train --resume --out full");
        let output = Command::new("bash")
            .args(["-c", &script, env!("CARGO_BIN_EXE_ror")])
            .current_dir(shell.path(""))
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    // The first resume settles a checkpoint that the kill may have cut short.
    let (code, stderr) = resume("100");
    assert_eq!(code, Some(1), "{stderr}");
    let before = state("weights.safetensors");
    let (code, stderr) = resume("100");
    assert_eq!(code, Some(1), "{stderr}");
    let error = stderr.lines().last().unwrap();
    assert!(
        error.starts_with("error: ") && error.contains("full"),
        "{error}"
    );
    assert_eq!(error.matches("too large").count(), 1, "{error}");
    assert!(state("weights.safetensors") == before);
    assert!(!shell.path("full/.last.new").exists());
}
