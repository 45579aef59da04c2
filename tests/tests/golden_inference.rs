//! Every golden weight file, loaded and run, gives what the software that wrote it computed.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use candle_nn::ops::softmax;
use ror_tests::golden::{Fixture, difference, fixtures, model, relative_difference};
use ror_weights::{Format, LoadOptions, load, save_keras_h5, save_safetensors};

const PROBABILITIES: f32 = 1e-5;
const RELATIVE: f32 = 1e-4;

/// Which outputs belong to the weight file that ends in `suffix`: some were written after training
/// steps.
fn outputs(fixture: &Fixture, suffix: &str) -> &'static str {
    if suffix.contains(".adam1.") {
        ".adam1"
    } else if suffix.contains(".model_adam3.") {
        ".model_adam3"
    } else if suffix == ".model.h5" && fixture.path(".after_step.probs.npy").exists() {
        ".after_step"
    } else {
        ""
    }
}

#[test]
fn outputs_equal_those_of_the_software_that_wrote_the_weights() {
    let mut files = 0;
    for fixture in fixtures() {
        for suffix in fixture.weight_files() {
            let name = format!("{}{suffix}", fixture.name());
            let model = model(&fixture.load(&suffix));
            let prefix = outputs(&fixture, &suffix);
            let features = model.features(&fixture.input()).unwrap();
            let logits = model.classify(&features).unwrap();
            let mut compared = 0;
            for (output, found) in [("features", &features), ("logits", &logits)] {
                if let Some(expected) = fixture.npy(&format!("{prefix}.{output}.npy")) {
                    // Without the top, features may keep the pool's rows and columns of one.
                    let expected = expected.reshape(found.dims()).unwrap();
                    let difference = relative_difference(found, &expected);
                    assert!(
                        difference < RELATIVE,
                        "{name}: {output} differ by {difference}"
                    );
                    compared += 1;
                }
            }
            if let Some(expected) = fixture.npy(&format!("{prefix}.probs.npy")) {
                let found = softmax(&logits, 1).unwrap();
                let difference = difference(&found, &expected);
                assert!(
                    difference < PROBABILITIES,
                    "{name}: probabilities differ by {difference}"
                );
                compared += 1;
            }
            assert!(compared > 0, "{name} has no outputs");
            files += 1;
        }
    }
    assert!(files >= 7);
}

#[test]
fn the_architecture_is_inferred() {
    for fixture in fixtures() {
        for suffix in fixture.weight_files() {
            let found = fixture.load(&suffix);
            let name = format!("{}{suffix}", fixture.name());
            let mut expected = fixture.description();
            if !expected.top {
                expected.classes = found.description.classes;
            }
            assert_eq!(found.description, expected, "{name}");
            let parameters = fixture.json["params"]["trainable"].as_u64();
            assert_eq!(
                found.network().unwrap().parameters(),
                parameters.unwrap(),
                "{name}"
            );
        }
    }
}

#[test]
fn a_silent_file_of_keras_1_is_read_by_its_layout_with_a_note() {
    for fixture in fixtures() {
        let is_keras1 = fixture.json["stack"]["keras"]
            .as_str()
            .is_some_and(|v| v.starts_with('1'));
        for suffix in fixture.weight_files() {
            let weights = load(&fixture.path(&suffix), &LoadOptions::default()).unwrap();
            let silent = weights
                .notes
                .iter()
                .any(|n| n.contains("does not say which backend"));
            assert_eq!(silent, is_keras1, "{}{suffix}", fixture.name());
            if is_keras1 {
                // Right by its layout, wrong where Theano wrote TensorFlow's.
                let model = model(&weights);
                let features = model.features(&fixture.input()).unwrap();
                let prefix = outputs(&fixture, &suffix);
                if let Some(expected) = fixture.npy(&format!("{prefix}.features.npy")) {
                    let expected = expected.reshape(features.dims()).unwrap();
                    let right = relative_difference(&features, &expected) < RELATIVE;
                    assert_eq!(
                        right,
                        fixture.json["data_format"] == "th",
                        "{}{suffix}",
                        fixture.name()
                    );
                }
            }
        }
    }
}

#[test]
fn converted_weights_give_the_same_outputs_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    for fixture in fixtures() {
        let Some(suffix) = fixture.weight_files().into_iter().next() else {
            continue;
        };
        let weights = fixture.load(&suffix);
        let logits = model(&weights).forward(&fixture.input()).unwrap();
        for (save, name) in [
            (save_safetensors as fn(&_, &_) -> _, "converted.safetensors"),
            (save_keras_h5, "converted.h5"),
        ] {
            let path = folder.path().join(name);
            save(&path, &weights).unwrap();
            let converted = load(&path, &LoadOptions::default()).unwrap();
            assert_eq!(converted.description, weights.description);
            let again = model(&converted).forward(&fixture.input());
            assert_eq!(
                difference(&again.unwrap(), &logits),
                0.0,
                "{}",
                fixture.name()
            );
        }
    }
}

/// A model built by the reference takes our file with `load_weights`, which goes by order.
#[test]
fn exported_layers_stand_in_the_references_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("exported.h5");
    let mut files = 0;
    for fixture in fixtures() {
        // Whether a layer is listed by depth does not depend on the version; layouts by class list
        // no layers.
        let Some(suffix) = fixture
            .weight_files()
            .into_iter()
            .find(|s| s.ends_with(".h5"))
        else {
            continue;
        };
        let weights = fixture.load(&suffix);
        if !matches!(weights.format, Format::KerasHdf5 { .. }) {
            continue;
        }
        save_keras_h5(&path, &weights).unwrap();
        let file = hdf5::File::open(&path).unwrap();
        let exported = file.group("model_weights").unwrap();
        let attributes = exported.attrs().unwrap();
        let layers = attributes["layer_names"].as_strings().unwrap();
        let mut shapes: Vec<Vec<u64>> = Vec::new();
        for layer in layers {
            let group = exported.group(layer).unwrap();
            let attributes = group.attrs().unwrap();
            let weights = attributes["weight_names"].as_strings().unwrap_or_default();
            shapes.extend(
                weights
                    .iter()
                    .map(|w| group.dataset(w).unwrap().shape().unwrap()),
            );
        }
        let expected: Vec<Vec<u64>> = fixture.json["layers"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|layer| layer["weights"].as_array().unwrap())
            .map(|w| {
                let shape: Vec<u64> = serde_json::from_value(w["shape"].clone()).unwrap();
                match shape[..] {
                    // Keras 1 with "th".
                    [o, i, h, w] if h == w && (o, i) != (h, w) && h <= 3 => vec![h, w, i, o],
                    _ => shape,
                }
            })
            .collect();
        assert_eq!(shapes, expected, "{}", fixture.name());
        files += 1;
    }
    assert!(files >= 3);
}
