use super::*;
use candle_core::{DType, Device};
use ror_models::{Description, Network};
use std::collections::BTreeMap;

const RATES: [f64; 5] = [0.1, 0.1, 0.05, 0.02, 0.01];
const KERNEL: &str = "head.dense.weight";
const SCALE: &str = "head.norm.weight";

fn parameters() -> Parameters {
    let network = Network::new(&Description::preset("ror-3-wrn-10-1").unwrap()).unwrap();
    let parameters = Parameters::init(&network, 1, DType::F32, &Device::Cpu).unwrap();
    for name in [KERNEL, SCALE] {
        let var = parameters.get(name).unwrap();
        flat::update(var, |p| {
            for (i, p) in p.iter_mut().enumerate() {
                *p = ((37 * i % 101) as f32 - 50.0) / 64.0;
            }
        })
        .unwrap();
    }
    parameters
}

fn set_gradients(gradients: &mut Gradients, step: usize) {
    for name in [KERNEL, SCALE] {
        for (i, g) in gradients.get_mut(name).unwrap().iter_mut().enumerate() {
            *g = (((53 * i + 29 * step) % 97) as f32 - 48.0) / 128.0;
        }
    }
}

fn sampled(parameters: &Parameters, name: &str) -> Vec<f32> {
    let var = parameters.get(name).unwrap();
    flat::read(var, |p| p.iter().step_by(13).copied().collect()).unwrap()
}

fn configs() -> Vec<(&'static str, OptimizerConfig)> {
    let base = OptimizerConfig::default();
    let sgd = |momentum, nesterov, weight_decay| OptimizerConfig {
        momentum,
        nesterov,
        weight_decay,
        ..base
    };
    let adam = |kind, epsilon, weight_decay| OptimizerConfig {
        kind,
        epsilon,
        weight_decay,
        ..base
    };
    vec![
        ("plain", sgd(0.0, false, 0.0)),
        ("momentum", sgd(0.9, false, 0.0)),
        ("nesterov decay", sgd(0.9, true, 0.01)),
        (
            "nesterov decay-all clip",
            OptimizerConfig {
                decay_all: true,
                clip_norm: Some(2.0),
                ..sgd(0.9, true, 0.01)
            },
        ),
        ("adam", adam(OptimizerKind::Adam, 1e-3, 0.0)),
        (
            "adam decay",
            OptimizerConfig {
                betas: [0.8, 0.95],
                ..adam(OptimizerKind::Adam, 1e-8, 0.1)
            },
        ),
        ("adamw decay", adam(OptimizerKind::Adamw, 1e-8, 0.1)),
    ]
}

#[test]
fn five_steps_equal_those_of_pytorch() {
    let fixture = include_str!("../../tests/fixtures/optimizers.json");
    let expected: BTreeMap<String, BTreeMap<String, Vec<f32>>> =
        serde_json::from_str(fixture).unwrap();
    assert_eq!(expected.len(), configs().len());
    for (name, config) in configs() {
        let parameters = parameters();
        let layout = Arc::new(FlatLayout::new(&parameters));
        let mut gradients = Gradients::new(layout.clone());
        let mut optimizer = Optimizer::new(config, layout).unwrap();
        for (step, lr) in RATES.into_iter().enumerate() {
            set_gradients(&mut gradients, step);
            optimizer.step(&parameters, &gradients, lr).unwrap();
        }
        for (tensor, key) in [(KERNEL, "kernel"), (SCALE, "scale")] {
            let found = sampled(&parameters, tensor);
            let expected = &expected[name][key];
            assert_eq!(found.len(), expected.len());
            for (f, e) in found.iter().zip(expected) {
                assert!((f - e).abs() < 2e-6, "{name}, {key}: {f} {e}");
            }
        }
    }
}

#[test]
fn keras_epsilon_follows_the_formula_of_keras() {
    let config = OptimizerConfig {
        kind: OptimizerKind::Adam,
        epsilon: 1e-2,
        keras_epsilon: true,
        ..OptimizerConfig::default()
    };
    let parameters = parameters();
    let layout = Arc::new(FlatLayout::new(&parameters));
    let mut gradients = Gradients::new(layout.clone());
    let mut optimizer = Optimizer::new(config, layout).unwrap();
    let (mut p, mut m, mut v) = ((37f64 - 50.0) / 64.0, 0.0, 0.0);
    for (step, lr) in RATES.into_iter().enumerate() {
        set_gradients(&mut gradients, step);
        optimizer.step(&parameters, &gradients, lr).unwrap();
        let g = f64::from(gradients.get(KERNEL).unwrap()[1]);
        let t = step as i32 + 1;
        let lr = lr * (1.0 - 0.999f64.powi(t)).sqrt() / (1.0 - 0.9f64.powi(t));
        m = 0.9 * m + 0.1 * g;
        v = 0.999 * v + 0.001 * g * g;
        p -= lr * m / (v.sqrt() + 1e-2);
    }
    let var = parameters.get(KERNEL).unwrap();
    let found = f64::from(flat::read(var, |p| p[1]).unwrap());
    assert!((found - p).abs() < 1e-6, "{found} {p}");
}

#[test]
fn a_restored_state_goes_on_to_the_bit() {
    for (name, config) in configs() {
        let (straight, resumed) = (parameters(), parameters());
        let layout = Arc::new(FlatLayout::new(&straight));
        let mut gradients = Gradients::new(layout.clone());
        let mut a = Optimizer::new(config, layout.clone()).unwrap();
        let mut b = a.clone();
        for (step, lr) in RATES.into_iter().enumerate() {
            set_gradients(&mut gradients, step);
            a.step(&straight, &gradients, lr).unwrap();
            b.step(&resumed, &gradients, lr).unwrap();
            let state = b.state();
            b = Optimizer::new(config, layout.clone()).unwrap();
            b.restore(state).unwrap();
        }
        let bits = |p: &Parameters| -> Vec<u32> {
            let values = p.iter().map(|(_, _, var)| flat::read(var, <[f32]>::to_vec));
            values.flat_map(Result::unwrap).map(f32::to_bits).collect()
        };
        assert_eq!(bits(&straight), bits(&resumed), "{name}");
    }
}

#[test]
fn states_and_gradients_of_others_are_refused() {
    let parameters = parameters();
    let layout = Arc::new(FlatLayout::new(&parameters));
    let mut sgd = Optimizer::new(OptimizerConfig::default(), layout.clone()).unwrap();
    let adam = OptimizerConfig {
        kind: OptimizerKind::Adam,
        ..OptimizerConfig::default()
    };
    let adam = Optimizer::new(adam, layout).unwrap();
    assert!(sgd.restore(adam.state()).is_err());

    let network = Network::new(&Description::preset("ror-3-wrn-10-2").unwrap()).unwrap();
    let wider = Parameters::init(&network, 1, DType::F32, &Device::Cpu).unwrap();
    let gradients = Gradients::new(Arc::new(FlatLayout::new(&wider)));
    assert!(sgd.step(&parameters, &gradients, 0.1).is_err());
}

#[test]
fn constants_out_of_range_are_named() {
    let base = OptimizerConfig::default();
    for (config, word) in [
        (
            OptimizerConfig {
                momentum: 1.0,
                ..base
            },
            "momentum",
        ),
        (
            OptimizerConfig {
                betas: [0.9, -0.1],
                ..base
            },
            "second beta",
        ),
        (
            OptimizerConfig {
                epsilon: 0.0,
                ..base
            },
            "epsilon",
        ),
        (
            OptimizerConfig {
                weight_decay: f64::NAN,
                ..base
            },
            "weight-decay",
        ),
        (
            OptimizerConfig {
                clip_norm: Some(0.0),
                ..base
            },
            "clip-norm",
        ),
    ] {
        let error = config.validate().unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}
