//! Networks without one summand: the engine and candle compute the same, and what is left is what it
//! should be.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use candle_core::{Device, Tensor};
use common::{assert_close, noise, on_candle, weights};
use ror_infer::{Engine, Input, Options};
use ror_models::{Description, Lesion, Model, Network, ShortcutKind, Summand, TapPoint};

/// One network per family and dialect, some with every kind of shortcut.
fn networks() -> Vec<Network> {
    use ShortcutKind::{A, B, C};
    let small = |name: &str| {
        let mut d = Description::preset(name).unwrap();
        let imagenet = name.starts_with("imagenet");
        d.image_size = if imagenet { [40, 33] } else { [8, 8] };
        d.classes = 10;
        d
    };
    [
        small("ror-3-14"),
        small("ror-3-14-sd").with_shortcuts(&[A, A, A]),
        small("ror-1-14"),
        small("ror-4-14").with_shortcuts(&[C, A, B, C]),
        small("pre-ror-3-14-sd"),
        small("ror-3-wrn-10-1").with_shortcuts(&[B, C, A]),
        small("keras-ror-3-56"),
        small("keras-ror-3-wrn-16-1"),
        small("pytorchcv-ror-3-20"),
        small("imagenet-ror-3-18"),
    ]
    .map(|d| Network::new(&d).unwrap())
    .into()
}

#[test]
fn the_engine_agrees_with_candle_on_every_lesion() {
    for whole in networks() {
        let [h, w] = whole.description.image_size;
        let weights = weights(&whole);
        let images = noise(2 * 3 * h * w, 5);
        let logits = |network: &Network| on_candle(network, &weights, &images, (2, h, w), false);
        let unharmed = logits(&whole);
        let lesions = whole.lesions();
        // All of them in small networks, one of each kind and a few more in larger ones.
        let step = lesions.len().div_ceil(16);
        for lesion in lesions.iter().step_by(step).chain(&lesions[..4]) {
            let network = whole.without(lesion).unwrap();
            let expected = logits(&network);
            let what = format!("{} without {lesion}", whole.description);
            assert_ne!(expected, unharmed, "{what}");
            let options = Options::default().threads(2).batch_size(2);
            let mut engine = Engine::compile(&network, &weights.var_builder(), &options).unwrap();
            let mut found = vec![f32::NAN; 2 * 10];
            engine.run(Input::F32(&images), &mut found).unwrap();
            assert_close(&found, &expected, &what);
        }
    }
}

#[test]
fn without_the_shortcut_the_sum_is_the_body_and_without_the_residual_the_shortcut() {
    let same = |a: &Tensor, b: &Tensor| {
        let difference = (a - b).unwrap().abs().unwrap().flatten_all().unwrap();
        difference.max(0).unwrap().to_scalar::<f32>().unwrap() < 1e-4
    };
    for name in ["ror-3-14-sd", "pre-ror-3-14", "pytorchcv-ror-3-14"] {
        let mut description = Description::preset(name).unwrap();
        description.image_size = [8, 8];
        let whole = Network::new(&description).unwrap();
        for lesion in whole.lesions() {
            let weights = weights(&whole);
            let taken = |network: &Network, point| {
                let [h, w] = network.description.image_size;
                let images = noise(3 * h * w, 5);
                let images = Tensor::from_vec(images, (1, 3, h, w), &Device::Cpu).unwrap();
                let model = Model::new(network, weights.var_builder()).unwrap();
                let (_, taps) = model.taps(&images).unwrap();
                let mut found = taps.into_iter();
                let tap = found.find(|tap| tap.path == lesion.path && tap.point == point);
                tap.unwrap().tensor
            };
            let (body, sum) = (taken(&whole, TapPoint::Body), taken(&whole, TapPoint::Sum));
            let expected = match lesion.summand {
                Summand::Shortcut => body,
                Summand::Residual => (sum - body).unwrap(),
            };
            let network = whole.without(&lesion).unwrap();
            let found = taken(&network, TapPoint::Sum);
            assert!(same(&found, &expected), "{name} without {lesion}");
        }
    }
}

#[test]
fn what_is_not_there_cannot_be_removed() {
    let network = Network::new(&Description::preset("ror-2-14").unwrap()).unwrap();
    let lesion = |path: &str, summand| Lesion {
        path: path.to_owned(),
        level: 1,
        summand,
    };
    for lesion in [
        lesion("root.group1", Summand::Shortcut),
        lesion("root", Summand::Residual),
        lesion("root.group1.block9", Summand::Residual),
        lesion("", Summand::Shortcut),
    ] {
        assert!(network.without(&lesion).is_none(), "{lesion}");
    }
    let block = lesion("root.group1.block1", Summand::Residual);
    let without = network.without(&block).unwrap();
    assert!(without.without(&block).is_none());
    assert_eq!(without.lesions().len(), network.lesions().len() - 2);
}
