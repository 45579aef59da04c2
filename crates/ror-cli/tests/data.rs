//! `data info` on image folders.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Shell, json};
use std::fs;

fn folder(shell: &Shell) {
    shell.png("data/train/cat/0.png", 4, 4, [51, 0, 255]);
    shell.png("data/train/cat/1.png", 8, 6, [51, 0, 255]);
    shell.png("data/train/owl/0.png", 4, 4, [204, 0, 255]);
    shell.png("data/train/owl/1.png", 2, 3, [204, 0, 255]);
    shell.png("data/val/cat/0.png", 4, 4, [0, 0, 0]);
    shell.png("data/val/owl/0.png", 4, 4, [0, 0, 0]);
}

#[test]
fn figures_and_the_sheet_are_those_of_the_images() {
    let shell = Shell::new();
    folder(&shell);
    let info = [
        "data",
        "info",
        "data",
        "--size",
        "4",
        "--sheet",
        "s.png",
        "--per-class",
        "3",
    ];
    let found = json(&shell.ok(&[&info[..], &["--json"]].concat()));
    assert_eq!(found["format"], "image folder");
    assert_eq!(
        (&found["split"], &found["images"]),
        (&"train".into(), &4.into())
    );
    assert_eq!(
        (&found["size"], &found["resized"]),
        (&json("[4, 4]"), &2.into())
    );
    let originals = json(r#"{"least": [2, 3], "largest": [8, 6]}"#);
    assert_eq!(found["originals"], originals);
    for (channel, mean, std) in [(0, 0.5, 0.3), (1, 0.0, 0.0), (2, 1.0, 0.0)] {
        let near = |key: &str, expected: f64| {
            let value = found[key][channel].as_f64().unwrap();
            assert!((value - expected).abs() < 1e-6, "{key} {channel}: {value}");
        };
        near("mean", mean);
        near("std", std);
    }
    assert_eq!(
        found["classes"][1],
        json(r#"{"class": "owl", "index": 1, "images": 2}"#)
    );
    let sheet = image::open(shell.path("s.png")).unwrap().into_rgb8();
    // Two rows of three places, magnified sixteen times.
    assert_eq!(sheet.dimensions(), (3 * 66 + 2, 2 * 66 + 2));
    assert_eq!(sheet.get_pixel(100, 30).0, [51, 0, 255]);
    assert_eq!(sheet.get_pixel(100, 100).0, [204, 0, 255]);
    assert_eq!(sheet.get_pixel(180, 30).0, [255; 3]);

    let text = shell.ok(&info);
    assert!(
        text.contains("--normalise 0.5000,0.0000,1.0000,0.3000,0.0000,0.0000"),
        "{text}"
    );
    assert!(text.contains("2 to 8 wide, 3 to 6 high"), "{text}");
    let test = json(&shell.ok(&["data", "info", "data", "--split", "test", "--json"]));
    assert_eq!(
        (&test["images"], &test["size"]),
        (&2.into(), &json("[32, 32]"))
    );
}

#[test]
fn what_cannot_be_is_said_and_nothing_is_written() {
    let shell = Shell::new();
    folder(&shell);
    shell.write("data/val/owl/0.png", "words");
    let info = |more: &[&str]| shell.fails(&[&["data", "info"], more].concat());
    assert!(info(&["missing"]).contains("missing"));
    let damaged = info(&["data", "--split", "test", "--sheet", "s.png"]);
    assert!(
        damaged.contains("owl/0.png") && damaged.contains("not an image"),
        "{damaged}"
    );
    assert!(info(&["data", "--sheet", "s.jpg"]).contains(".png"));
    let picture = fs::read(shell.path("data/train/owl/0.png")).unwrap();
    let over = info(&["data", "--sheet", "data/train/owl/0.png"]);
    assert!(over.contains("is a picture in data"), "{over}");
    assert!(fs::read(shell.path("data/train/owl/0.png")).unwrap() == picture);
    assert!(info(&["data", "--sheet", "none/s.png"]).contains("none"));
    assert!(info(&["data", "--extra"]).contains("extra_32x32.mat"));
    assert_eq!(
        shell.run(&["data", "info", "data", "--size", "0"]).code,
        Some(2)
    );
    assert_eq!(shell.run(&["data", "info"]).code, Some(2));
    assert_eq!(shell.files(), ["data"]);
}
