//! `report` on tiny runs.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Shell, TINY, args};
use std::fs;

/// Class names that would break a page which did not escape them.
#[cfg(unix)]
const NASTY: [&str; 2] = ["<script>alert(1)", "a\"b'&c"];

fn page(shell: &Shell, arguments: &str) -> String {
    shell.ok(&args("report -o page.html", arguments));
    fs::read_to_string(shell.path("page.html")).unwrap()
}

#[cfg(unix)]
/// Where a page's pictures, links and the like come from.
fn addresses(page: &str) -> Vec<&str> {
    let parts = page
        .split("src=\"")
        .skip(1)
        .chain(page.split("href=\"").skip(1));
    parts.map(|part| part.split('"').next().unwrap()).collect()
}

#[cfg(unix)] // Other systems have no such file names.
#[test]
fn a_page_tells_the_run_and_fetches_nothing() {
    let shell = Shell::new();
    shell.stripes("data", NASTY);
    shell.ok(&args(TINY, "--out run --epochs 2 --lr 0.001"));
    let page = page(&shell, "run");
    assert!(page.starts_with("<!DOCTYPE html>"));
    for word in [
        "loss (nats)",
        "learning rate",
        "ror-3-wrn-10-1, shortcuts C C B",
        "8 images of data test",
        "Worst mistakes",
        "batch-size = 6",
        "a&quot;b'&amp;c",
    ] {
        assert!(page.contains(word), "{word} in {page}");
    }
    assert!(!page.contains("<script"), "{page}");
    let addresses = addresses(&page);
    // The levels and the confusions at least.
    assert!(addresses.len() >= 2);
    assert!(
        addresses
            .iter()
            .all(|address| address.starts_with("data:image/")),
        "{addresses:?}"
    );
    assert!(!page.contains("url(") && !page.contains("@import"));
    assert!(page.contains("default-src 'none'"));
}

#[test]
fn several_runs_stand_side_by_side_with_what_differs() {
    let shell = Shell::new();
    shell.stripes("data", ["across", "down"]);
    shell.ok(&args(TINY, "--out a/run --epochs 1"));
    shell.ok(&args(TINY, "--out b/run --epochs 1 --levels 1 --lr 0.03"));
    let page = page(&shell, "a/run b/run");
    for word in [
        "2 runs",
        "a/run",
        "b/run",
        "training.lr",
        "0.03",
        "description.levels",
    ] {
        assert!(page.contains(word), "{word} in {page}");
    }
    assert!(!page.contains("training.momentum"));
}

#[test]
fn a_run_without_its_data_or_weights_is_reported_without_them() {
    let shell = Shell::new();
    shell.stripes("data", ["across", "down"]);
    shell.ok(&args(TINY, "--out run --epochs 1"));
    fs::rename(shell.path("data"), shell.path("moved")).unwrap();
    let without = page(&shell, "run");
    assert!(without.contains("not measured again"), "{without}");
    assert!(!without.contains("Confusions"));
    assert!(page(&shell, "run --data moved").contains("Confusions"));
    fs::write(shell.path("run/best.safetensors"), "cut").unwrap();
    assert!(page(&shell, "run --data moved").contains("best.safetensors"));
}

#[test]
fn what_is_no_run_is_named_and_nothing_is_written() {
    let shell = Shell::new();
    shell.stripes("data", ["across", "down"]);
    shell.ok(&args(TINY, "--out run --epochs 1"));
    for (arguments, word) in [
        ("run data -o page.html", "data holds no run"),
        ("none -o page.html", "none holds no run"),
        ("run -o page.txt", "html"),
        ("run -o none/page.html", "none"),
    ] {
        let error = shell.fails(&args("report", arguments));
        assert!(error.contains(word), "{error}");
    }
    let state = fs::read(shell.path("run/last/state.json")).unwrap();
    fs::write(shell.path("run/last/state.json"), &state[..state.len() / 2]).unwrap();
    let error = shell.fails(&["report", "run", "-o", "page.html"]);
    assert!(error.contains("state.json"), "{error}");
    assert!(!shell.path("page.html").exists());
}
