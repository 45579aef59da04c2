//! `eval` on image folders.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Shell, golden, json};

const WEIGHTS: &str = "keras122_theano/wrn_16_1_th.weights.h5";
const CLASSES: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];

/// A folder of two images per class.
fn folder(shell: &Shell) {
    for split in ["train", "test"] {
        for (i, class) in CLASSES.iter().enumerate() {
            for j in 0..2u8 {
                let colour = [i as u8 * 25, j * 100, 255 - i as u8 * 25];
                shell.png(&format!("data/{split}/{class}/{j}.png"), 32, 32, colour);
            }
        }
    }
}

#[test]
fn figures_are_those_of_the_predictions() {
    let shell = Shell::new();
    folder(&shell);
    let weights = golden(WEIGHTS);
    let evaluation = json(&shell.ok(&[
        "eval",
        "-w",
        &weights,
        "-d",
        "data",
        "--json",
        "--confusion",
        "c.svg",
    ]));
    let predictions =
        json(&shell.ok(&["predict", "-w", &weights, "data/test", "--json", "-k", "10"]));
    let predictions = predictions.as_array().unwrap();
    assert_eq!(predictions.len(), 20);
    let (mut top1, mut top5, mut loss) = (0, 0, 0.0);
    for prediction in predictions {
        let input = prediction["input"].as_str().unwrap();
        let class = input.rsplit('/').nth(1).unwrap();
        let label = CLASSES.iter().position(|&c| c == class).unwrap() as u64;
        let top = prediction["top"].as_array().unwrap();
        let rank = top.iter().position(|t| t["index"] == label).unwrap();
        top1 += usize::from(rank == 0);
        top5 += usize::from(rank < 5);
        loss -= top[rank]["probability"].as_f64().unwrap().ln() / 20.0;
    }
    assert_eq!(evaluation["images"], 20);
    assert_eq!(evaluation["top1"].as_f64(), Some(top1 as f64 / 20.0));
    assert_eq!(evaluation["top5"].as_f64(), Some(top5 as f64 / 20.0));
    let off = evaluation["loss"].as_f64().unwrap() - loss;
    assert!(off.abs() < 1e-4 * loss, "{off}");
    let per_class = evaluation["per_class"].as_array().unwrap();
    assert_eq!(per_class.len(), 10);
    assert_eq!(per_class[3]["class"], "d");
    let svg = std::fs::read_to_string(shell.path("c.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
}

#[test]
fn splits_and_classes_that_do_not_fit_are_errors() {
    let shell = Shell::new();
    folder(&shell);
    let weights = golden(WEIGHTS);
    let eval = |args: &[&str]| {
        shell.fails(&[&["eval", "-w", &weights, "--confusion", "c.svg"], args].concat())
    };
    assert!(eval(&["-d", "missing"]).contains("missing"));
    assert!(eval(&["-d", "data/test/a/0.png"]).contains("0.png"));
    std::fs::remove_dir_all(shell.path("data/test/j")).unwrap();
    assert!(eval(&["-d", "data"]).contains('j'));
    std::fs::remove_dir_all(shell.path("data/train/j")).unwrap();
    let error = eval(&["-d", "data"]);
    assert!(error.contains("10") && error.contains('9'), "{error}");
    assert_eq!(shell.files(), ["data"]);
}

#[test]
fn class_names_of_weights_and_data_must_agree() {
    let shell = Shell::new();
    folder(&shell);
    let mut names = CLASSES.map(str::to_owned);
    names[4] = "z".to_owned();
    shell.write("names.txt", names.join("\n"));
    shell.ok(&[
        "convert",
        &golden(WEIGHTS),
        "w.safetensors",
        "--class-names",
        "names.txt",
    ]);
    let error = shell.fails(&["eval", "-w", "w.safetensors", "-d", "data"]);
    assert!(error.contains("`z`") && error.contains("`e`"), "{error}");
}

#[test]
fn with_mirror_the_probabilities_of_both_are_averaged() {
    let shell = Shell::new();
    let weights = golden(WEIGHTS);
    std::fs::create_dir_all(shell.path("pictures")).unwrap();
    let picture = image::RgbImage::from_fn(32, 32, |x, y| {
        image::Rgb([(x * 8) as u8, (y * 8) as u8, (x * y) as u8])
    });
    let mirrored = image::imageops::flip_horizontal(&picture);
    for (name, picture) in [("a", &picture), ("b", &mirrored)] {
        picture
            .save(shell.path(&format!("pictures/{name}.png")))
            .unwrap();
    }
    let probabilities = |more: &[&str]| {
        let predict = ["predict", "-w", &weights, "--json", "-k", "10", "pictures"];
        let found = json(&shell.ok(&[&predict[..], more].concat()));
        [0, 1].map(|image: usize| {
            let mut of_classes = [0.0; 10];
            for class in found[image]["top"].as_array().unwrap() {
                let index = class["index"].as_u64().unwrap() as usize;
                of_classes[index] = class["probability"].as_f64().unwrap();
            }
            of_classes
        })
    };
    let [a, b] = probabilities(&[]);
    assert!((a[0] - b[0]).abs() > 1e-3 * a[0], "{} {}", a[0], b[0]);
    for found in probabilities(&["--mirror"]) {
        for class in 0..10 {
            let expected = f64::midpoint(a[class], b[class]);
            assert!((found[class] - expected).abs() < 1e-5, "{class}");
        }
    }
    for class in CLASSES {
        let folder = shell.path(&format!("data/{class}"));
        std::fs::create_dir_all(&folder).unwrap();
        picture.save(folder.join("0.png")).unwrap();
    }
    let eval = ["eval", "-w", &weights, "-d", "data", "--json", "--mirror"];
    let loss: f64 = (0..10)
        .map(|c| -f64::midpoint(a[c], b[c]).ln() / 10.0)
        .sum();
    let off = json(&shell.ok(&eval))["loss"].as_f64().unwrap() - loss;
    assert!(off.abs() < 1e-4 * loss, "{off}");
    let both = shell.run(&[&eval[..], &["--ten-crop"]].concat());
    assert_eq!(both.code, Some(2), "{}", both.stderr);
}

#[test]
fn ten_crops_are_averaged_as_their_probabilities() {
    let shell = Shell::new();
    let weights = golden(WEIGHTS);
    // Of the size that crops are cut from, so that nothing is scaled.
    let picture = |i: u32| {
        image::RgbImage::from_fn(37, 37, |x, y| {
            image::Rgb([(x * 6) as u8, (y * 6) as u8, (x * y * (i + 1)) as u8])
        })
    };
    for (i, class) in (0..).zip(CLASSES) {
        let data = shell.path(&format!("data/{class}"));
        std::fs::create_dir_all(&data).unwrap();
        picture(i).save(data.join("0.png")).unwrap();
        let crops = shell.path(&format!("crops/{class}"));
        std::fs::create_dir_all(&crops).unwrap();
        for (j, (x, y)) in [(0, 0), (5, 0), (0, 5), (5, 5), (3, 3)].iter().enumerate() {
            let crop = image::imageops::crop_imm(&picture(i), *x, *y, 32, 32).to_image();
            crop.save(crops.join(format!("{j}.png"))).unwrap();
            let mirrored = image::imageops::flip_horizontal(&crop);
            mirrored.save(crops.join(format!("{j}m.png"))).unwrap();
        }
    }
    let eval = |more: &[&str]| {
        json(&shell.ok(&[&["eval", "-w", &weights, "-d", "data", "--json"], more].concat()))
    };
    let found = eval(&["--ten-crop"]);
    let predict = ["predict", "-w", &weights, "crops", "--json", "-k", "10"];
    let predictions = json(&shell.ok(&predict));
    let mut loss = 0.0;
    for (label, of_image) in predictions.as_array().unwrap().chunks(10).enumerate() {
        let own = |p: &serde_json::Value| {
            let top = p["top"].as_array().unwrap();
            let own = top.iter().find(|t| t["index"] == label).unwrap();
            own["probability"].as_f64().unwrap()
        };
        loss -= (of_image.iter().map(own).sum::<f64>() / 10.0).ln() / 10.0;
    }
    let off = found["loss"].as_f64().unwrap() - loss;
    assert!(off.abs() < 1e-4 * loss, "{off}");
    assert_ne!(found["loss"], eval(&[])["loss"]);
    for more in [
        &["--ten-crop", "--batch-size", "1"][..],
        &["--ten-crop", "--lazy"],
    ] {
        let off = eval(more)["loss"].as_f64().unwrap() - loss;
        assert!(off.abs() < 1e-4 * loss, "{more:?} {off}");
    }
}
