//! The engine computes what candle computes in float64.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use common::{assert_close, check, noise, on_candle, weights};
use proptest::prelude::*;
use ror_infer::{Engine, Input, Isa, Normalisation, Options};
use ror_models::{Description, Dialect, Family, Network, ShortcutKind};

#[test]
fn every_preset_agrees() {
    for (i, name) in ror_models::presets().iter().enumerate() {
        let mut d = Description::preset(name).unwrap();
        // Small images, since float64 takes minutes for whole ones. Which algorithm a layer gets depends on their size:
        // the kernels are compared at the networks' own shapes beside themselves.
        d.image_size = if d.family == Family::ImageNet {
            [40, 33]
        } else {
            [8, 8]
        };
        d.classes = 10;
        let (threads, n) = [(1, 1), (2, 3), (3, 2)][i % 3];
        check(
            &Network::new(&d).unwrap(),
            &Options::default().threads(threads).batch_size(n),
            n,
        );
    }
}

/// Any description small enough for a float64 reference.
fn descriptions() -> impl Strategy<Value = Description> {
    let family = prop_oneof![
        Just((Dialect::Paper, Family::Ror)),
        Just((Dialect::Paper, Family::PreRor)),
        Just((Dialect::Paper, Family::Wrn)),
        Just((Dialect::Paper, Family::ImageNet)),
        Just((Dialect::Keras, Family::Ror)),
        Just((Dialect::Keras, Family::Wrn)),
        Just((Dialect::Pytorchcv, Family::Ror)),
    ];
    let kinds = prop::collection::vec(
        prop_oneof![
            Just(ShortcutKind::A),
            Just(ShortcutKind::B),
            Just(ShortcutKind::C)
        ],
        1..=5,
    );
    let sizes = (1usize..=20, 1usize..=20);
    let rest = (
        1usize..=3,
        1usize..=40,
        1usize..=5,
        any::<bool>(),
        prop::option::of(0.2f64..0.9),
    );
    (family, kinds, sizes, rest).prop_filter_map(
        "no such network",
        |((dialect, family), kinds, (h, w), (width, classes, channels, top, sd))| {
            let blocks = if kinds.len() > 4 {
                4
            } else if kinds.len() > 3 {
                2
            } else {
                1
            };
            let (depth, width) = match (dialect, family) {
                (_, Family::ImageNet) => ([18, 50][classes % 2], 1),
                (Dialect::Keras, Family::Ror) => (56, 1),
                (Dialect::Pytorchcv, _) => (6 * blocks + 8, 1),
                (_, Family::Wrn) => (6 * blocks + 4, width),
                _ if classes % 3 == 0 => (9 * blocks + 2, 1),
                _ => (6 * blocks + 2, 1),
            };
            let mut d = Description::new(dialect, family, depth, width)
                .ok()?
                .with_shortcuts(&kinds);
            d.classes = classes;
            d.channels = channels;
            d.top = top;
            d.stochastic_depth = sd;
            d.image_size = match (dialect, family) {
                (_, Family::ImageNet) => [2 * h + 1, 2 * w + 1],
                (Dialect::Paper, _) => [h, w],
                _ => [4 * h.div_ceil(4), 4 * w.div_ceil(4)],
            };
            d.validate().ok()?;
            Some(d)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn any_description_agrees(
        description in descriptions(),
        n in 0usize..=5,
        threads in 1usize..=5,
        batch_size in 0usize..=40,
        isa in prop::sample::select(Isa::supported()),
    ) {
        let network = Network::new(&description).unwrap();
        check(&network, &Options::default().threads(threads).batch_size(batch_size).isa(isa), n);
    }
}

fn small() -> Network {
    Network::new(&Description::preset("keras-ror-3-wrn-10-2").unwrap()).unwrap()
}

#[test]
fn threads_and_batches_do_not_change_a_bit() {
    let network = small();
    let (weights, images) = (weights(&network), noise(9 * 3 * 32 * 32, 3));
    let run = |threads, batch_size, n: usize| {
        let options = Options::default().threads(threads).batch_size(batch_size);
        let mut engine = Engine::compile(&network, &weights.var_builder(), &options).unwrap();
        let mut logits = vec![0.0; n * 10];
        engine
            .run(Input::F32(&images[..n * 3072]), &mut logits)
            .unwrap();
        logits
    };
    let alone = run(1, 64, 9);
    for threads in [2, 3, 20] {
        assert_eq!(run(threads, 64, 9), alone);
    }
    assert_eq!(run(2, 64, 1), alone[..10]);
}

#[test]
fn bytes_with_a_normalisation_are_as_good_as_floats() {
    let network = small();
    let weights = weights(&network);
    let n = 5;
    let pixels: Vec<u8> = noise(n * 3072, 5)
        .iter()
        .map(|v| (v * 256.0) as u8)
        .collect();
    let (mean, std) = ([0.49f32, 0.48, 0.45], [0.25f32, 0.24, 0.26]);
    let mut images = vec![0.0; n * 3072];
    for (i, value) in images.iter_mut().enumerate() {
        let (image, c, pixel) = (i / 3072, i / 1024 % 3, i % 1024);
        *value = (f32::from(pixels[(image * 1024 + pixel) * 3 + c]) / 255.0 - mean[c]) / std[c];
    }
    let expected = on_candle(&network, &weights, &images, (n, 32, 32), false);
    let normalisation = Normalisation::new(&mean, &std).unwrap();
    let options = Options::default().threads(2);
    let mut engine = Engine::compile(&network, &weights.var_builder(), &options).unwrap();
    let mut logits = vec![0.0; n * 10];
    engine
        .run(Input::U8(&pixels, &normalisation), &mut logits)
        .unwrap();
    assert_close(&logits, &expected, "8-bit images");
}

#[test]
fn features_are_those_before_the_classifier() {
    let network = small();
    let (weights, images) = (weights(&network), noise(3 * 3072, 3));
    let expected = on_candle(&network, &weights, &images, (3, 32, 32), true);
    for options in [
        Options::default().threads(2),
        Options::default().threads(4).batch_size(1),
    ] {
        let mut engine = Engine::compile(&network, &weights.var_builder(), &options).unwrap();
        let mut features = vec![0.0; 3 * engine.features()];
        engine
            .run_features(Input::F32(&images), &mut features)
            .unwrap();
        assert_close(&features, &expected, "features");
    }
}

#[test]
fn images_of_another_size_than_the_description_says_are_an_option() {
    let network = Network::new(&Description::preset("imagenet-ror-3-18").unwrap()).unwrap();
    for (h, w) in [(32, 32), (47, 65)] {
        check(&network, &Options::default().threads(2).image_size(h, w), 2);
    }
}
