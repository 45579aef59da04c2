//! `list`, `summary`, `graph`.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Shell, json};

#[test]
fn list_filters_as_a_shell_does() {
    let shell = Shell::new();
    let all = shell.ok(&["list"]);
    assert!(all.contains("ror-3-wrn-40-2") && all.contains("pytorchcv-ror-3-56"));
    let keras = shell.ok(&["list", "keras-*"]);
    assert!(keras.lines().skip(1).all(|line| line.starts_with("keras-")));
    let entries = json(&shell.ok(&["list", "pytorchcv-ror-3-5?", "--json"]));
    assert_eq!(entries.as_array().unwrap().len(), 1);
    assert_eq!(entries[0]["name"], "pytorchcv-ror-3-56");
    assert_eq!(entries[0]["parameters"], 762_746);
    assert!(entries[0]["multiply_adds"].as_u64().unwrap() > 100_000_000);
}

#[test]
fn a_name_that_is_not_listed_is_found_by_its_formula() {
    let entries = json(&Shell::new().ok(&["list", "keras-ror-3-wrn-22-3", "--json"]));
    assert_eq!(entries[0]["name"], "keras-ror-3-wrn-22-3");
}

#[test]
fn summary_has_a_line_per_level_and_block() {
    let shell = Shell::new();
    let text = shell.ok(&["summary", "ror-3-20", "--classes", "100"]);
    for part in ["stem", "root", "group1", "group3", "block3", "head"] {
        let line = |line: &&str| line.trim_start().starts_with(part);
        assert!(text.lines().any(|l| line(&l)), "{part} in {text}");
    }
    let tree = json(&shell.ok(&["summary", "ror-3-20", "--json"]));
    let sum: u64 = tree["children"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["parameters"].as_u64().unwrap())
        .sum();
    assert_eq!(tree["parameters"].as_u64(), Some(sum));
}

#[test]
fn levels_and_shortcut_kinds_change_the_model() {
    let shell = Shell::new();
    let parameters = |args: &[&str]| {
        let args = [&["summary", "ror-3-20", "--json"], args].concat();
        json(&shell.ok(&args))["parameters"].as_u64().unwrap()
    };
    let usual = parameters(&[]);
    assert!(parameters(&["--levels", "1"]) < usual);
    assert!(parameters(&["--shortcuts", "C,C,C"]) > usual);
    assert!(parameters(&["--no-top"]) < usual);
}

#[test]
fn graph_writes_the_format_that_the_name_asks_for() {
    let shell = Shell::new();
    shell.ok(&["graph", "ror-3-20", "-o", "a.svg"]);
    shell.ok(&["graph", "ror-3-20", "-o", "a.dot"]);
    let read = |name| std::fs::read_to_string(shell.path(name)).unwrap();
    assert!(read("a.svg").contains("<svg") && read("a.dot").contains("digraph"));
    assert!(shell.ok(&["graph", "ror-3-20", "-o", "-"]).contains("<svg"));
}

#[test]
fn what_does_not_exist_is_refused_with_the_nearest_that_does() {
    let shell = Shell::new();
    let error = shell.fails(&["summary", "ror-3-111"]);
    assert!(error.contains("110") && error.contains("116"), "{error}");
    // A bottleneck's depth, where there are no bottlenecks.
    let error = shell.fails(&["summary", "ror-3-wrn-13-1"]);
    assert!(error.contains("10") && error.contains("16"), "{error}");
    let error = shell.fails(&["summary", "ror-3-wrm-40-2"]);
    assert!(error.contains("ror-3-wrn-40-2"), "{error}");
    let error = shell.fails(&["summary", "ror-6-110"]);
    assert!(error.contains("1 to 5"), "{error}");
    // A number of levels that nothing has room for.
    let error = shell.fails(&["summary", "ror-18446744073709551615-110"]);
    assert!(error.contains("levels is 18446744073709551615"), "{error}");
    let error = shell.fails(&["summary", "ror-3-20", "--levels", "1000000000000"]);
    assert!(error.contains("levels is 1000000000000"), "{error}");
    let error = shell.fails(&["summary", "ror-3-20", "--shortcuts", "A,B"]);
    assert!(error.contains("3 levels"), "{error}");
    shell.ok(&["summary", "ror-3-20", "--levels", "2", "--shortcuts", "A,B"]);
    shell.fails(&["list", "nothing-*"]);
}

#[test]
fn nothing_is_written_where_it_cannot_be() {
    let shell = Shell::new();
    let error = shell.fails(&["graph", "ror-3-20", "-o", "no/such/folder/a.svg"]);
    assert!(error.contains("no/such/folder/a.svg"), "{error}");
    shell.fails(&["graph", "ror-3-20", "-o", "a.jpeg"]);
    shell.fails(&["graph", "nonsense", "-o", "a.svg"]);
    assert!(shell.files().is_empty(), "{:?}", shell.files());
}

#[test]
fn wrong_usage_is_status_two() {
    let shell = Shell::new();
    assert_eq!(shell.run(&["summary"]).code, Some(2));
    assert_eq!(
        shell.run(&["predict", "--batch-size", "0", "x"]).code,
        Some(2)
    );
    assert_eq!(shell.run(&["nonsense"]).code, Some(2));
}

#[test]
fn every_command_has_help_with_an_example() {
    let shell = Shell::new();
    for command in [
        "list",
        "summary",
        "graph",
        "predict",
        "eval",
        "data",
        "lesion",
        "convert",
        "train",
        "ablate",
        "report",
        "bench",
        "completions",
        "man",
    ] {
        let help = shell.ok(&[command, "--help"]);
        assert!(
            help.contains("Example") || help.contains("ror list"),
            "{help}"
        );
    }
}
