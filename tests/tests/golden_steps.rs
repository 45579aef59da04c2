//! Steps of optimisers against the software's own: the weights after them.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use candle_core::Tensor;
use ror_models::{Parameters, TensorRole};
use ror_tests::golden::{Fixture, fixtures, from_keras, keras_name, values, var_builder};
use ror_train::{
    Batch, Engine, FlatLayout, Gradients, KernelEngine, Optimizer, OptimizerConfig, OptimizerKind,
    TapeEngine, flat,
};
use std::sync::Arc;

/// Of each tensor's largest value.
const WEIGHT: f32 = 1e-3;
/// Adam divides by a gradient's size, so that rounding noise becomes full steps: smaller gradients
/// are not compared.
const NOISE: f32 = 1e-6;
const SGD: OptimizerConfig = OptimizerConfig {
    kind: OptimizerKind::Sgd,
    momentum: 0.9,
    nesterov: true,
    betas: [0.9, 0.999],
    epsilon: 1e-7,
    keras_epsilon: true,
    weight_decay: 0.0,
    decay_all: false,
    clip_norm: None,
};
const ADAM: OptimizerConfig = OptimizerConfig {
    kind: OptimizerKind::Adam,
    ..SGD
};

/// A network after some steps on a fixture's images.
struct Trained {
    parameters: Parameters,
    losses: Vec<f64>,
    /// The smallest size that each gradient had in any step.
    smallest: Gradients,
}

fn train(
    fixture: &Fixture,
    suffix: &str,
    config: OptimizerConfig,
    lr: f64,
    steps: usize,
    kernels: bool,
) -> Trained {
    let weights = fixture.load(suffix);
    let network = weights.network().unwrap();
    let parameters = Parameters::from_tensors(&network, &var_builder(&weights)).unwrap();
    let mut engine: Box<dyn Engine> = if kernels {
        Box::new(KernelEngine::new(&network, &parameters, 2).unwrap())
    } else {
        Box::new(TapeEngine::new(&network, &parameters).unwrap())
    };
    let layout = Arc::new(FlatLayout::new(&parameters));
    let mut optimizer = Optimizer::new(config, layout.clone()).unwrap();
    let mut gradients = Gradients::new(layout.clone());
    let mut smallest = Gradients::new(layout);
    smallest.as_mut_slice().fill(f32::INFINITY);
    let batch = batch(fixture, network.description.classes);
    let mut losses = Vec::new();
    for _ in 0..steps {
        let noise = ror_blocks::Noise::seeded(0);
        let output = engine
            .forward_backward(&batch, &noise, &mut gradients)
            .unwrap();
        losses.push(output.loss);
        let sizes = smallest.as_mut_slice().iter_mut().zip(gradients.as_slice());
        sizes.for_each(|(s, g)| *s = s.min(g.abs()));
        optimizer.step(&parameters, &gradients, lr).unwrap();
    }
    Trained {
        parameters,
        losses,
        smallest,
    }
}

fn batch(fixture: &Fixture, classes: usize) -> Batch {
    let images = fixture.input();
    let shape = <[usize; 4]>::try_from(images.dims()).unwrap();
    let labels: Vec<u32> = serde_json::from_value(fixture.json["train"]["labels"].clone()).unwrap();
    let mut targets = vec![0.0; labels.len() * classes];
    for (row, &label) in labels.iter().enumerate() {
        targets[row * classes + label as usize] = 1.0;
    }
    Batch {
        images: values(&images),
        shape,
        whole: labels.len(),
        targets,
        labels,
    }
}

impl Trained {
    /// Compares, in every tensor that is expected, the running statistics and the weights whose
    /// gradient was above `noise`, which must be most of them.
    fn assert_weights(
        &self,
        what: &str,
        noise: Option<f32>,
        expected: impl Fn(&str, TensorRole) -> Option<Tensor>,
    ) {
        let (mut compared, mut all) = (0, 0);
        for (name, role, var) in self.parameters.iter() {
            let Some(expected) = expected(name, role) else {
                continue;
            };
            let expected = values(&expected);
            all += expected.len();
            let found = flat::read(var, <[f32]>::to_vec).unwrap();
            assert_eq!(found.len(), expected.len());
            let largest = expected.iter().fold(0.0, |a: f32, b| a.max(b.abs()));
            let gradients = self.smallest.get(name).unwrap_or(&[]);
            let threshold = noise.unwrap_or(-1.0);
            for i in 0..found.len() {
                if gradients.get(i).is_none_or(|&g| g > threshold) {
                    let difference = (found[i] - expected[i]).abs() / largest;
                    assert!(difference < WEIGHT, "{what}: {name}[{i}]: {difference}");
                    compared += 1;
                }
            }
        }
        assert!(compared > all / 2, "{what}: {compared} of {all}");
    }
}

#[test]
fn steps_equal_those_of_tf_keras() {
    let mut runs = 0;
    for fixture in fixtures() {
        for (optimizer, config, lr, noise) in [
            ("sgd_nesterov", SGD, 0.1, None),
            ("adam", ADAM, 1e-3, Some(NOISE)),
        ] {
            for (steps, suffix, kernels) in [
                (1, "", false),
                (1, "", true),
                (3, "_3steps", false),
                (3, "_3steps", true),
            ] {
                let Some(after) = fixture.npz(&format!(".after_{optimizer}{suffix}.npz")) else {
                    continue;
                };
                let trained = train(&fixture, ".model.h5", config, lr, steps, kernels);
                let losses = &fixture.json["train"]["optimizers"][optimizer]["loss_of_steps_1_2_3"];
                for (step, loss) in trained.losses.iter().enumerate() {
                    let expected = losses[step].as_f64().unwrap();
                    assert!(
                        (loss / expected - 1.0).abs() < 1e-3,
                        "{optimizer} {step}: {loss}"
                    );
                }
                let network = fixture.load(".model.h5").network().unwrap();
                let layers = fixture.keras_names(&network);
                let what = format!("{}, {steps} steps of {optimizer}", fixture.name());
                trained.assert_weights(&what, noise, |name, role| {
                    let (layer, weight) = keras_name(&layers, name, role);
                    let weights = after.get(&format!("{layer}/{weight}"))?;
                    Some(from_keras(weights, role))
                });
                runs += 1;
            }
        }
    }
    assert!(runs >= 2, "{runs}");
}

/// Keras 1.2.2 on Theano, where the larger set is at hand.
#[test]
fn a_step_of_adam_equals_that_of_theano() {
    let mut count = 0;
    for fixture in fixtures() {
        if fixture.json["backend"] != "theano"
            || fixture.json["train"]["loss"].is_null()
            || !fixture.path(".model.h5").exists()
            || !fixture.path(".weights.h5").exists()
            // In deeper networks some rectifier flips between two programs of single precision.
            || fixture.description().depth > 16
        {
            continue;
        }
        count += 1;
        let config = OptimizerConfig {
            epsilon: 1e-8,
            ..ADAM
        };
        for kernels in [false, true] {
            let trained = train(&fixture, ".weights.h5", config, 1e-3, 1, kernels);
            let after = fixture.load(".model.h5");
            trained.assert_weights(&fixture.name(), Some(NOISE), |name, _| {
                after.tensors.get(name).cloned()
            });
        }
    }
    if count == 0 {
        eprintln!("skipped: the larger set of golden files is not at hand");
    }
}
