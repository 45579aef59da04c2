//! Bad weights and inputs end in an error that says what is wrong.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use candle_core::Tensor;
use common::{noise, weights};
use ror_infer::{Engine, Error, Input, Isa, Normalisation, Options};
use ror_models::{Description, Network};

fn small() -> Network {
    Network::new(&Description::preset("ror-3-wrn-10-1").unwrap()).unwrap()
}

fn engine(options: &Options) -> Engine {
    let network = small();
    Engine::compile(&network, &weights(&network).var_builder(), options).unwrap()
}

#[test]
fn a_weight_that_is_not_finite_is_named() {
    let network = small();
    for (name, value) in [
        ("root.group2.block1.conv2.weight", f32::NAN),
        ("root.group1.block1.norm1.weight", f32::INFINITY),
        ("head.dense.bias", f32::NEG_INFINITY),
        ("head.norm.running_var", -1.0),
    ] {
        let weights = weights(&network);
        let var = weights.get(name).unwrap();
        let mut values: Vec<f32> = var.flatten_all().unwrap().to_vec1().unwrap();
        values[5] = value;
        var.set(&Tensor::from_vec(values, var.shape(), var.device()).unwrap())
            .unwrap();
        let error = Engine::compile(&network, &weights.var_builder(), &Options::default());
        match error {
            Err(Error::NotFinite {
                name: found, index, ..
            }) => assert_eq!((found.as_str(), index), (name, 5)),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn a_missing_tensor_is_named() {
    let other = Network::new(&Description::preset("ror-3-wrn-16-1").unwrap()).unwrap();
    match Engine::compile(
        &other,
        &weights(&small()).var_builder(),
        &Options::default(),
    ) {
        Err(Error::Tensor { name, .. }) => assert!(name.contains("block2"), "{name}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn lengths_that_do_not_fit_are_refused() {
    let mut engine = engine(&Options::default());
    let mut logits = vec![0.0; 10];
    for len in [1, 3071, 3073] {
        let error = engine.run(Input::F32(&vec![0.0; len]), &mut logits);
        assert!(
            matches!(error, Err(Error::Length { what: "images", .. })),
            "{len}: {error:?}"
        );
    }
    for len in [0, 9, 11, 20] {
        let error = engine.run(Input::F32(&[0.0; 3072]), &mut vec![0.0; len]);
        assert!(
            matches!(error, Err(Error::Length { what: "output", .. })),
            "{len}: {error:?}"
        );
    }
    let grey = Normalisation::new(&[0.5], &[0.5]).unwrap();
    let error = engine.run(Input::U8(&[0; 3072], &grey), &mut logits);
    assert!(
        matches!(error, Err(Error::Normalisation { channels: 3 })),
        "{error:?}"
    );
}

#[test]
fn a_normalisation_needs_positive_deviations() {
    for (mean, std) in [
        (&[0.0][..], &[0.0][..]),
        (&[0.0], &[-1.0]),
        (&[0.0], &[f32::NAN]),
        (&[f32::INFINITY], &[1.0]),
        (&[0.0, 0.0], &[1.0]),
    ] {
        assert!(Normalisation::new(mean, std).is_err(), "{mean:?} {std:?}");
    }
}

#[test]
fn images_too_large_for_memory_are_refused_before_any_work() {
    let network = small();
    let weights = weights(&network);
    for size in [0, 1 << 15, 1 << 20, 1 << 31, usize::MAX] {
        let options = Options::default().image_size(size, size);
        let error = Engine::compile(&network, &weights.var_builder(), &options);
        assert!(error.is_err(), "{size}");
    }
}

#[test]
fn an_image_that_a_layer_cannot_take_is_refused() {
    let network = Network::new(&Description::preset("pytorchcv-ror-3-20").unwrap()).unwrap();
    for (h, w) in [(0, 32), (1, 1), (2, 32)] {
        let options = Options::default().image_size(h, w);
        let error = Engine::compile(&network, &weights(&network).var_builder(), &options);
        assert!(error.is_err(), "{h} x {w}");
    }
}

#[test]
fn nan_in_gives_nan_out_and_leaves_other_images_alone() {
    // Strides and projections, padded shortcuts, pools between groups, the stem and pool of ImageNet.
    for (name, size) in [
        ("ror-3-wrn-10-1", 32),
        ("ror-3-14", 32),
        ("pre-ror-3-bottleneck-29", 32),
        ("keras-ror-3-wrn-10-1", 32),
        ("pytorchcv-ror-3-20", 32),
        ("imagenet-ror-3-18", 64),
    ] {
        let mut description = Description::preset(name).unwrap();
        (description.image_size, description.classes) = ([size; 2], 10);
        let network = Network::new(&description).unwrap();
        let weights = weights(&network);
        let each = 3 * size * size;
        for isa in Isa::supported() {
            for batch_size in [1, 64] {
                let options = Options::default().threads(2).batch_size(batch_size);
                let vb = weights.var_builder();
                let mut engine = Engine::compile(&network, &vb, &options.isa(isa)).unwrap();
                let mut images = noise(4 * each, 1);
                let mut clean = vec![0.0; 40];
                engine.run(Input::F32(&images), &mut clean).unwrap();
                images[each + each / 2] = f32::NAN;
                let mut logits = vec![0.0; 40];
                engine.run(Input::F32(&images), &mut logits).unwrap();
                let nan = logits[10..20].iter().all(|v| v.is_nan());
                assert!(nan, "{name} {isa:?}: {:?}", &logits[10..20]);
                assert_eq!(logits[..10], clean[..10], "{name} {isa:?}");
                assert_eq!(logits[20..], clean[20..], "{name} {isa:?}");
            }
        }
    }
}

#[test]
fn an_empty_batch_is_no_error() {
    let mut engine = engine(&Options::default().threads(3));
    engine.run(Input::F32(&[]), &mut []).unwrap();
}

#[test]
fn engines_can_be_sent_to_and_shared_between_threads() {
    fn check<T: Send + Sync + Clone>() {}
    check::<Engine>();
}

#[test]
fn clones_run_at_once() {
    let engine = engine(&Options::default().threads(2));
    let images = noise(3 * 3072, 1);
    let run = |mut engine: Engine| {
        let mut logits = vec![0.0; 30];
        engine.run(Input::F32(&images), &mut logits).unwrap();
        logits
    };
    let expected = run(engine.clone());
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| run(engine.clone())))
            .collect();
        for logits in runs {
            assert_eq!(logits.join().unwrap(), expected);
        }
    });
}
