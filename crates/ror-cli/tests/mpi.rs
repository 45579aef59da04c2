//! `train` and `eval` by several processes, which the real `mpirun` starts on this machine.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Shell, args, json};
use ror_weights::LoadOptions;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A small network whose batches of 6 two and three ranks can share alike.
const SMALL: &str = "train --model ror-3-wrn-10-1 --image-size 12 --data data --batch-size 6 --lr 0.01 \
                     --threads 1 --checkpoint-seconds 0";

/// `mpirun` with `arguments`, which may ask for more processes than there are cores, as root too.
fn mpirun(shell: &Shell, arguments: &[&str]) -> Command {
    let mut command = Command::new("mpirun");
    command
        .args(arguments)
        .current_dir(shell.path(""))
        .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
        .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
        .env("OMPI_MCA_rmaps_base_oversubscribe", "1")
        .env("OMPI_MCA_hwloc_base_binding_policy", "none")
        .stdin(Stdio::null());
    command
}

/// The command as `n` ranks.
fn ranks<'a>(n: &'a str, command: &[&'a str]) -> Vec<&'a str> {
    let start = ["-n", n, env!("CARGO_BIN_EXE_ror")];
    start.iter().chain(command).copied().collect()
}

fn run(shell: &Shell, n: &str, command: &[&str]) -> Output {
    mpirun(shell, &ranks(n, command)).output().unwrap()
}

fn ok(shell: &Shell, n: &str, command: &[&str]) -> String {
    let output = run(shell, n, command);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{command:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn start(shell: &Shell, n: &str, command: &[&str]) -> Child {
    mpirun(shell, &ranks(n, command))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Training loss, accuracy, validation loss and accuracy of every epoch.
fn metrics(run: &Path) -> Vec<[f64; 4]> {
    let text = fs::read_to_string(run.join("metrics.csv")).unwrap();
    let row = |line: &str| {
        let cells: Vec<f64> = line.split(',').map(|cell| cell.parse().unwrap()).collect();
        [cells[3], cells[4], cells[5], cells[6]]
    };
    text.lines().skip(1).map(row).collect()
}

fn weights(run: &Path) -> Vec<f32> {
    let weights = ror_weights::load(
        &run.join("last/weights.safetensors"),
        &LoadOptions::default(),
    )
    .unwrap();
    let tensors = weights.tensors.into_values();
    tensors
        .flat_map(|t| t.flatten_all().unwrap().to_vec1::<f32>().unwrap())
        .collect()
}

/// The process identifiers of the ranks that `mpirun` has started.
fn children(of: &Child) -> Vec<u32> {
    let pid = of.id();
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let text = text.unwrap_or_default();
    text.split_whitespace()
        .map(|p| p.parse().unwrap())
        .collect()
}

#[test]
fn ranks_with_synchronised_normalisation_train_as_one_process() {
    let shell = Shell::new();
    shell.stripes("data", ["across", "down"]);
    let command = |out: &'static str| args(SMALL, out);
    shell.ok(&command("--epochs 7 --sync-batch-norm --out one"));
    for (n, out) in [
        ("2", "--epochs 7 --sync-batch-norm --out two"),
        ("3", "--epochs 7 --sync-batch-norm --out three"),
    ] {
        ok(&shell, n, &command(out));
    }
    let (expected, weights_of_one) = (metrics(&shell.path("one")), weights(&shell.path("one")));
    assert_eq!(expected.len(), 7);
    let largest = weights_of_one
        .iter()
        .fold(0f32, |most, w| most.max(w.abs()));
    for run in ["two", "three"] {
        let run = shell.path(run);
        for (found, expected) in metrics(&run).iter().zip(&expected) {
            for (a, b) in found.iter().zip(expected) {
                assert!(
                    (a - b).abs() < 1e-4,
                    "{}: {found:?} {expected:?}",
                    run.display()
                );
            }
        }
        for (a, b) in weights(&run).iter().zip(&weights_of_one) {
            assert!((a - b).abs() < 1e-4 * largest, "{}: {a} {b}", run.display());
        }
    }
}

#[test]
fn equal_launches_leave_equal_bytes_and_only_one_rank_speaks() {
    let shell = Shell::new();
    shell.stripes("data", ["across", "down"]);
    let mut checkpoints = Vec::new();
    for out in ["first", "second"] {
        let more = format!("--epochs 2 --dropout 0.1 --mixup 0.2 --ema 0.9 --json --out {out}");
        let report = ok(&shell, "3", &args(SMALL, &more));
        assert_eq!(json(&report)["steps"], 6);
        let file = |name: &str| fs::read(shell.path(out).join("last").join(name)).unwrap();
        checkpoints.push(["weights.safetensors", "optimizer.safetensors"].map(file));
    }
    assert!(checkpoints[0] == checkpoints[1]);
    let output = run(&shell, "3", &args(SMALL, "--epochs 1 --out third"));
    let stderr = String::from_utf8(output.stderr).unwrap();
    let about = "3 ranks of 1 threads, with 2 of the images each";
    assert_eq!(stderr.matches(about).count(), 1, "{stderr}");
}

#[test]
fn a_killed_rank_ends_the_job_and_the_run_goes_on_with_other_ranks() {
    let shell = Shell::new();
    shell.stripes("data", ["across", "down"]);
    let command = args(SMALL, "--epochs 5000 --out run");
    let mut job = start(&shell, "2", &command);
    while !shell.path("run/curves.svg").exists() {
        assert!(job.try_wait().unwrap().is_none(), "it ended early");
        sleep(Duration::from_millis(20));
    }
    let processes = children(&job);
    assert_eq!(processes.len(), 2);
    let victim = processes[1].to_string();
    let killed = Command::new("kill").args(["-9", &victim]).status();
    assert!(killed.unwrap().success());
    let since = Instant::now();
    while job.try_wait().unwrap().is_none() {
        // Far more than it takes, so that a slow machine fails nothing.
        assert!(
            since.elapsed() < Duration::from_secs(60),
            "the other rank waits"
        );
        sleep(Duration::from_millis(20));
    }
    let output = job.wait_with_output().unwrap();
    assert!(!output.status.success());
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("signal 9"), "{stderr}");
    let done = metrics(&shell.path("run")).len();
    // The run's own settings say 5000 epochs; a few more are enough here.
    let mut job = start(&shell, "3", &["train", "--resume", "--out", "run"]);
    while metrics(&shell.path("run")).len() < done + 2 {
        assert!(job.try_wait().unwrap().is_none(), "it did not go on");
        sleep(Duration::from_millis(20));
    }
    job.kill().unwrap();
    job.wait().unwrap();
}

#[test]
fn ranks_evaluate_what_one_process_does() {
    let shell = Shell::new();
    shell.stripes("data", ["across", "down"]);
    shell.ok(&args(SMALL, "--epochs 2 --out run"));
    let eval = ["eval", "-w", "run/best.safetensors", "-d", "data", "--json"];
    let (one, three) = (json(&shell.ok(&eval)), json(&ok(&shell, "3", &eval)));
    for key in ["top1", "top5", "images", "per_class"] {
        assert_eq!(one[key], three[key], "{key}");
    }
    let loss = |report: &serde_json::Value| report["loss"].as_f64().unwrap();
    assert!((loss(&one) - loss(&three)).abs() < 1e-6);
}

#[test]
fn an_image_that_one_rank_cannot_read_ends_all_with_its_name() {
    let shell = Shell::new();
    shell.stripes("data", ["across", "down"]);
    let broken = shell.path("data/train/down/3.png");
    let bytes = fs::read(&broken).unwrap();
    fs::write(&broken, &bytes[..bytes.len() / 2]).unwrap();
    for normalisation in ["", "--sync-batch-norm"] {
        let more = format!("--epochs 2 --lazy --out run{normalisation} {normalisation}");
        let output = run(&shell, "2", &args(SMALL, &more));
        assert!(!output.status.success());
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains("down/3.png"), "{stderr}");
        assert!(stderr.contains("has failed; it says why"), "{stderr}");
    }
}

#[test]
fn ranks_that_do_not_agree_say_so_and_end() {
    let shell = Shell::new();
    shell.stripes("data", ["across", "down"]);
    shell.stripes("other", ["across", "down"]);
    fs::remove_file(shell.path("other/train/down/3.png")).unwrap();
    let ror = env!("CARGO_BIN_EXE_ror");
    for (change, expected) in [
        ("--lr 0.5", "the same settings"),
        ("--data other", "the same images"),
        ("--data missing", "missing"),
        ("--batch-size 1", "1 images cannot be shared by 2 ranks"),
    ] {
        let base = args(SMALL, "--epochs 2 --out run");
        // The later of two equal flags would be refused, so that the first goes.
        let changed: Vec<&str> = change.split_whitespace().collect();
        let at = base.iter().position(|word| *word == changed[0]).unwrap();
        let mut other = base.clone();
        other.splice(at..at + 2, changed);
        let mut arguments = ranks("1", &base);
        arguments.extend([":", "-n", "1", ror]);
        arguments.extend(other);
        let output = mpirun(&shell, &arguments).output().unwrap();
        assert!(!output.status.success(), "{change}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains("error: rank 1: "), "{change}: {stderr}");
        assert!(stderr.contains(expected), "{change}: {stderr}");
        assert!(!shell.path("run").exists(), "{change}");
    }
}
