//! `ablate`: grids of tiny runs, stopped ones, and grids that cannot be.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Shell, args, golden, json};
use ror_weights::LoadOptions;
use std::fs;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// Levels in rows, stochastic depth in columns.
const GRID: &str = r#"
model = "ror-3-wrn-10-1"
columns = "network.stochastic-depth"
source = { data = "data", threads = 2 }
network = { image-size = 12 }

[training]
epochs = 2
batch-size = 6
lr = 0.02
checkpoint-seconds = 0

[axes.network]
levels = [1, 3]
stochastic-depth = [0, 0.5]
"#;

fn shell() -> Shell {
    let shell = Shell::new();
    shell.stripes("data", ["across", "down"]);
    shell.write("grid.toml", GRID);
    shell
}

#[test]
fn cells_are_ordinary_runs_and_finished_ones_are_not_repeated() {
    let shell = shell();
    let text = shell.ok(&args("ablate grid.toml --out out", ""));
    let header = text.lines().next().unwrap();
    assert!(header.starts_with("levels"), "{text}");
    assert!(header.contains("stochastic-depth 0.5: error (%)"), "{text}");
    assert_eq!(text.lines().count(), 3, "{text}");
    let markdown = fs::read_to_string(shell.path("out/results.md")).unwrap();
    assert_eq!(markdown.lines().count(), 4, "{markdown}");
    let csv = fs::read_to_string(shell.path("out/results.csv")).unwrap();
    assert_eq!(csv.lines().count(), 5, "{csv}");

    // A cell is what `train` makes of the same settings.
    let cell = "levels-3_stochastic-depth-0.5";
    shell.ok(&args(
        "train --model ror-3-wrn-10-1 --image-size 12 --data data --batch-size 6 --epochs 2 \
         --lr 0.02 --threads 2 --checkpoint-seconds 0 --stochastic-depth 0.5",
        "--out alone",
    ));
    let weights = |run: &str| fs::read(shell.path(run).join("last/weights.safetensors")).unwrap();
    assert!(weights(&format!("out/{cell}")) == weights("alone"));

    let results = json(&shell.ok(&args("ablate grid.toml --out out", "--json")));
    let cells = results["cells"].as_array().unwrap();
    assert_eq!(cells.len(), 4);
    assert_eq!(cells[3]["cell"], cell);
    let eval = format!("eval -w out/{cell}/best.safetensors -d data");
    let top1 = json(&shell.ok(&args(&eval, "--json")))["top1"]
        .as_f64()
        .unwrap();
    assert!((cells[3]["error"].as_f64().unwrap() - (1.0 - top1)).abs() < 1e-9);
    let again = shell.run(&args("ablate grid.toml --out out", ""));
    assert_eq!(again.stdout, text);
    assert!(!again.stderr.contains("epoch 1/2"), "{}", again.stderr);

    // Nor are they taken for those of other images,
    shell.stripes("other", ["down", "sideways"]);
    for split in ["train", "test"] {
        let class = |name: &str| shell.path(&format!("other/{split}/{name}"));
        fs::rename(class("sideways"), class("across")).unwrap();
    }
    let error = shell.fails(&args("ablate grid.toml --out out --data other", ""));
    assert!(error.contains("not the images"), "{error}");
    // and their results stay while another cell is at work.
    let first = shell.path("out/levels-1_stochastic-depth-0");
    fs::remove_dir_all(&first).unwrap();
    fs::write(&first, "in the way").unwrap();
    shell.fails(&args("ablate grid.toml --out out", ""));
    let csv = fs::read_to_string(shell.path("out/results.csv")).unwrap();
    assert_eq!(csv.lines().count(), 4, "{csv}");
}

#[cfg(unix)]
#[test]
fn a_stopped_grid_says_how_to_go_on_and_goes_on_to_the_bit() {
    let shell = shell();
    shell.ok(&args("ablate grid.toml --out whole", ""));
    let mut child = Command::new(env!("CARGO_BIN_EXE_ror"))
        .args(["ablate", "grid.toml", "--out", "stopped"])
        .current_dir(shell.path(""))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let second = "levels-1_stochastic-depth-0.5";
    while !shell
        .path("stopped")
        .join(second)
        .join("config.toml")
        .exists()
    {
        assert!(child.try_wait().unwrap().is_none(), "it ended early");
        sleep(Duration::from_millis(5));
    }
    let pid = child.id().to_string();
    let killed = Command::new("kill").args(["-INT", &pid]).status().unwrap();
    assert!(killed.success());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let last = stderr.lines().last().unwrap();
    assert!(
        last.contains("`ror ablate grid.toml --out stopped` goes on"),
        "{stderr}"
    );

    shell.ok(&args("ablate grid.toml --out stopped", ""));
    for cell in [second, "levels-3_stochastic-depth-0"] {
        let weights = |out: &str| {
            let run = shell.path(out).join(cell);
            fs::read(run.join("last/weights.safetensors")).unwrap()
        };
        assert!(weights("whole") == weights("stopped"), "{cell}");
    }
}

#[test]
fn given_weights_are_evaluated_in_networks_that_they_fill() {
    let shell = shell();
    shell.ok(&args(
        "train --model ror-3-wrn-10-1 --image-size 12 --data data --batch-size 6 --epochs 1 \
         --threads 2",
        "--out run",
    ));
    let grid = "weights = \"run/best.safetensors\"\n[source]\ndata = \"data\"\n\
                [axes.network]\nlevels = [1, 2, 3]";
    shell.write("grid.toml", grid);
    let results = json(&shell.ok(&args("ablate grid.toml --out out", "--json")));
    let cells = results["cells"].as_array().unwrap();
    assert_eq!(cells.len(), 3);
    assert!(cells.iter().all(|cell| cell["state"] == "evaluated"));
    let eval = json(&shell.ok(&args("eval -w run/best.safetensors -d data", "--json")));
    assert_eq!(cells[2]["loss"], eval["loss"]);
    assert_ne!(cells[1]["loss"], eval["loss"]);

    shell.write(
        "grid.toml",
        grid.replace(
            "[1, 2, 3]",
            "[3, 2, 1]\ndropout = [0.1]\nshortcuts = [[\"C\", \"C\", \"C\"]]",
        ),
    );
    let error = shell.fails(&args("ablate grid.toml --out out", ""));
    assert!(error.contains("levels"), "{error}");
    shell.write(
        "grid.toml",
        "weights = \"run/best.safetensors\"\n[source]\ndata = \"data\"\n\
                [axes.network]\nshortcuts = [[\"C\", \"C\", \"C\"]]",
    );
    let error = shell.fails(&args("ablate grid.toml --out out", ""));
    assert!(
        error.contains("root.group1.block2.shortcut") || error.contains("shortcut.conv.weight"),
        "{error}"
    );
}

#[test]
fn weights_and_networks_without_a_classifier_are_not_evaluated() {
    let shell = shell();
    let file = golden("keras122_theano/wrn_16_1_th.weights.h5");
    let mut weights = ror_weights::load(file.as_ref(), &LoadOptions::default()).unwrap();
    ror_weights::save_safetensors(&shell.path("w.safetensors"), &weights).unwrap();
    weights.description.top = false;
    weights
        .tensors
        .retain(|name, _| !name.starts_with("head.dense"));
    ror_weights::save_safetensors(&shell.path("f.safetensors"), &weights).unwrap();
    let ablate = |weights: &str, more: &str| {
        let axes = "[axes.network]\nlevels = [3]";
        let source = "[source]\ndata = \"data\"";
        let grid = format!("weights = \"{weights}\"\n{source}\n{more}\n{axes}");
        shell.write("grid.toml", grid);
        shell.fails(&args("ablate grid.toml --out out", ""))
    };
    let error = ablate("w.safetensors", "[network]\nno-top = true");
    assert!(error.contains("knows no classes"), "{error}");
    let error = ablate("f.safetensors", "");
    assert!(error.contains("knows no classes"), "{error}");
}

#[test]
fn what_cannot_be_trained_is_said_before_anything_is() {
    let shell = shell();
    for (from, to, word) in [
        ("epochs", "epoch", "epoch"),
        ("levels", "level", "level"),
        ("lr = 0.02", "lr = -1", "lr"),
        (
            "[1, 3]",
            "[1, 1]",
            "the same as levels-1_stochastic-depth-0",
        ),
        ("[1, 3]", "[1, 9]", "levels-9"),
        ("[0, 0.5]", "[0, 1.5]", "stochastic depth"),
        ("\"data\",", "\"none\",", "none"),
        ("ror-3-wrn-10-1", "ror-3-wrn-11-1", "11"),
        (
            "columns = \"network.stochastic-depth\"",
            "columns = \"lr\"",
            "`lr`",
        ),
        (
            "[training]",
            "[training.augment]\ncrop = 99\n[training]",
            "crop",
        ),
        ("levels =", "\"a.b.c.d.e.f.g.h\" =", "no setting"),
        (
            "image-size = 12",
            "image-size = 12, no-top = true",
            "classes",
        ),
    ] {
        let grid = GRID.replacen(from, to, 1);
        assert_ne!(grid, GRID, "{from}");
        shell.write("grid.toml", grid);
        let error = shell.fails(&args("ablate grid.toml --out out", ""));
        assert!(
            error.contains(word) && error.contains("grid.toml"),
            "{to}: {error}"
        );
    }
    assert!(
        shell
            .fails(&args("ablate none.toml --out out", ""))
            .contains("none.toml")
    );
    assert!(!shell.path("out").exists());
}

#[test]
fn a_folder_with_another_grids_run_is_left_alone() {
    let shell = shell();
    let small = GRID.replace("[1, 3]", "[1]").replace("[0, 0.5]", "[0]");
    shell.write("grid.toml", &small);
    shell.ok(&args("ablate grid.toml --out out", ""));
    shell.write("grid.toml", small.replace("lr = 0.02", "lr = 0.03"));
    let error = shell.fails(&args("ablate grid.toml --out out", ""));
    assert!(
        error.contains("training.lr is `0.02` there, `0.03` in the grid"),
        "{error}"
    );
}

#[test]
fn a_cell_that_diverges_is_in_the_table_and_the_others_go_on() {
    let shell = shell();
    let grid = GRID
        .replace("lr = 0.02\n", "")
        .replace("stochastic-depth", "dropout");
    let grid = grid.replace("levels = [1, 3]\n", "levels = [1]\n");
    shell.write("grid.toml", grid + "\n[axes.training]\nlr = [1e30, 0.02]\n");
    let run = shell.run(&args("ablate grid.toml --out out", ""));
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(
        run.stdout.contains("diverged"),
        "{}{}",
        run.stdout,
        run.stderr
    );
    assert!(
        run.stderr
            .lines()
            .last()
            .unwrap()
            .contains("2 of 4 cells diverged"),
        "{}",
        run.stderr
    );
}
