//! A forward and backward pass in training mode against the software's own: loss, every gradient,
//! moving statistics.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use candle_nn::loss::cross_entropy;
use ror_blocks::{Mode, Noise};
use ror_models::{Network, Parameters, TensorRole};
use ror_tests::golden::{Fixture, fixtures, from_keras, keras_name, relative_difference, values};
use ror_train::{Batch, Engine, FlatLayout, Gradients, KernelEngine};

const LOSS: f64 = 1e-5;
const GRADIENT: f32 = 1e-3;
const STATISTIC: f32 = 1e-5;

fn to_f32(tensor: &Tensor) -> Tensor {
    tensor.to_dtype(DType::F32).unwrap()
}

/// What a training-mode pass over a fixture's images gave.
struct Pass {
    network: Network,
    loss: f32,
    gradients: BTreeMap<String, Tensor>,
    parameters: Parameters,
}

/// What computes a pass.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Program {
    Tape(DType),
    Kernels,
}

/// In f64 the formulas show. In f32 the kernels do, where the network is shallow: in a deep one, a
/// rectifier whose input is zero but for rounding falls either way, and moves gradients by percents.
fn programs(fixture: &Fixture) -> &'static [Program] {
    use Program::{Kernels, Tape};
    if fixture.description().depth <= 16 {
        &[Tape(DType::F64), Tape(DType::F32), Kernels]
    } else {
        &[Tape(DType::F64)]
    }
}

fn pass(fixture: &Fixture, suffix: &str, program: Program) -> Pass {
    let weights = fixture.load(suffix);
    let network = weights.network().unwrap();
    let dtype = match program {
        Program::Tape(dtype) => dtype,
        Program::Kernels => DType::F32,
    };
    let vb = weights.var_builder(dtype, &Device::Cpu);
    let parameters = Parameters::from_tensors(&network, &vb).unwrap();
    let labels: Vec<u32> = serde_json::from_value(fixture.json["train"]["labels"].clone()).unwrap();
    let noise = Noise::seeded(0);
    let (loss, gradients) = match program {
        Program::Tape(_) => {
            let model = parameters.model(&network).unwrap();
            let images = fixture.input().to_dtype(dtype).unwrap();
            let logits = model.forward_in(&images, Mode::Train(&noise)).unwrap();
            let labels = Tensor::new(labels, &Device::Cpu).unwrap();
            let loss = cross_entropy(&logits, &labels).unwrap();
            let store = loss.backward().unwrap();
            let gradients = parameters
                .trainable()
                .map(|(name, _, var)| (name.to_owned(), to_f32(store.get(var).unwrap())))
                .collect();
            (to_f32(&loss).to_scalar().unwrap(), gradients)
        }
        Program::Kernels => {
            let batch = batch(fixture, network.description.classes, labels);
            let mut engine = KernelEngine::new(&network, &parameters, 2).unwrap();
            let mut gradients = Gradients::new(Arc::new(FlatLayout::new(&parameters)));
            let output = engine
                .forward_backward(&batch, &noise, &mut gradients)
                .unwrap();
            let tensor = |name: &str, shape| {
                let values = gradients.get(name).unwrap();
                Tensor::from_slice(values, shape, &Device::Cpu).unwrap()
            };
            let gradients = parameters
                .trainable()
                .map(|(name, _, var)| (name.to_owned(), tensor(name, var.shape())))
                .collect();
            (output.loss as f32, gradients)
        }
    };
    Pass {
        network,
        loss,
        gradients,
        parameters,
    }
}

fn batch(fixture: &Fixture, classes: usize, labels: Vec<u32>) -> Batch {
    let images = fixture.input();
    let mut targets = vec![0.0; labels.len() * classes];
    for (row, &label) in targets.chunks_exact_mut(classes).zip(&labels) {
        row[label as usize] = 1.0;
    }
    Batch {
        shape: <[usize; 4]>::try_from(images.dims()).unwrap(),
        images: values(&images),
        targets,
        whole: labels.len(),
        labels,
    }
}

impl Pass {
    fn assert_loss(&self, fixture: &Fixture) {
        let expected = fixture.json["train"]["loss"].as_f64().unwrap();
        let relative = (f64::from(self.loss) / expected - 1.0).abs();
        assert!(
            relative < LOSS,
            "{}: {} instead of {expected}",
            fixture.name(),
            self.loss
        );
    }

    /// Compares every gradient with what `expected` finds for our name and role.
    fn assert_gradients(&self, fixture: &Fixture, expected: impl Fn(&str, TensorRole) -> Tensor) {
        let largest = |t: &Tensor| values(t).into_iter().fold(0.0, |a: f32, b| a.max(b.abs()));
        let mut compared = 0;
        for (name, role, _) in self.parameters.trainable() {
            let (found, expected) = (&self.gradients[name], expected(name, role));
            if before_norm(&self.network, name, role) {
                // Exactly zero in theory, rounding noise in practice.
                assert!(largest(found) < 1e-5 && largest(&expected) < 1e-5, "{name}");
            } else {
                let difference = relative_difference(found, &expected);
                assert!(
                    difference < GRADIENT,
                    "{}: {name}: {difference}",
                    fixture.name()
                );
            }
            compared += 1;
        }
        assert_eq!(compared, self.gradients.len());
    }

    /// Compares every running statistic with what `expected` finds for our name.
    fn assert_statistics(&self, fixture: &Fixture, expected: impl Fn(&str) -> Tensor) {
        let mut compared = 0;
        for (name, role, var) in self.parameters.iter() {
            if !role.is_trainable() {
                let difference = relative_difference(&to_f32(var), &expected(name));
                assert!(
                    difference < STATISTIC,
                    "{}: {name}: {difference}",
                    fixture.name()
                );
                compared += 1;
            }
        }
        assert!(compared > 0);
    }
}

/// Whether `name` is the bias of a convolution whose output reaches the loss through batch norms
/// only, which take any constant out again. In pre-activation networks all are: sums, projections
/// and pools pass constants on to the next batch norm. In post-activation networks the shortcuts'
/// biases meet a rectifier first.
fn before_norm(network: &Network, name: &str, role: TensorRole) -> bool {
    let pre_activation = network.head.layers.iter().any(|l| l.name == "norm");
    role == TensorRole::ConvBias && (pre_activation || !name.contains("shortcut"))
}

#[test]
fn tf_keras_passes_are_repeated() {
    let mut passes = 0;
    for fixture in fixtures() {
        if fixture.json["backend"] != "tensorflow" {
            continue;
        }
        let (Some(gradients), Some(statistics)) = (
            fixture.npz(".grad.npz"),
            fixture.npz(".moving_after_forward.npz"),
        ) else {
            continue;
        };
        for &program in programs(&fixture) {
            let pass = pass(&fixture, ".model.h5", program);
            let layers = fixture.keras_names(&pass.network);
            pass.assert_loss(&fixture);
            pass.assert_gradients(&fixture, |name, role| {
                let (layer, weight) = keras_name(&layers, name, role);
                let gradient = &gradients[&format!("{layer}/{weight}")];
                from_keras(gradient, role)
            });
            pass.assert_statistics(&fixture, |name| {
                let role = if name.ends_with("mean") {
                    TensorRole::RunningMean
                } else {
                    TensorRole::RunningVariance
                };
                let (layer, weight) = keras_name(&layers, name, role);
                statistics[&format!("{layer}/{weight}")].clone()
            });
        }
        passes += 1;
    }
    assert!(passes >= 1);
}

#[test]
fn pytorchcv_passes_are_repeated() {
    let mut passes = 0;
    for fixture in fixtures() {
        let (Some(gradients), Some(statistics)) = (
            fixture.npz(".grad.npz"),
            fixture.npz(".running_after_forward.npz"),
        ) else {
            continue;
        };
        for &program in programs(&fixture) {
            let pass = pass(&fixture, ".pth", program);
            pass.assert_loss(&fixture);
            pass.assert_gradients(&fixture, |name, _| gradients[&pytorchcv_name(name)].clone());
            pass.assert_statistics(&fixture, |name| statistics[&pytorchcv_name(name)].clone());
        }
        passes += 1;
    }
    assert!(passes >= 1);
}

/// Our name of a tensor as pytorchcv's.
fn pytorchcv_name(name: &str) -> String {
    let parts: Vec<&str> = name.split('.').collect();
    let layer = |name: &str| {
        if name.starts_with("conv") {
            "conv"
        } else {
            "bn"
        }
    };
    match parts[..] {
        ["stem", l, w] => format!("features.init_block.{}.{w}", layer(l)),
        ["root", "shortcut", l, w] => format!("features.body.shortcut.{}.{w}", layer(l)),
        ["root", g, "shortcut", l, w] => {
            format!(
                "features.body.stages.stage{}.shortcut.{}.{w}",
                &g[5..],
                layer(l)
            )
        }
        ["root", g, b, "shortcut", l, w] => format!(
            "features.body.stages.stage{}.units.unit{}.identity_conv.{}.{w}",
            &g[5..],
            &b[5..],
            layer(l)
        ),
        ["root", g, b, l, w] => format!(
            "features.body.stages.stage{}.units.unit{}.body.conv{}.{}.{w}",
            &g[5..],
            &b[5..],
            &l[4..],
            layer(l)
        ),
        ["head", "dense", w] => format!("output.{w}"),
        _ => panic!("{name}"),
    }
}

/// Keras 1 on Theano left the gradients of its one step in Adam's first moments: a tenth of each.
#[test]
fn theano_passes_are_repeated() {
    let mut count = 0;
    for fixture in fixtures() {
        let step = fixture.path(".model.h5");
        if fixture.json["backend"] != "theano"
            || fixture.json["train"]["loss"].is_null()
            || !step.exists()
            || !fixture.path(".weights.h5").exists()
            // Theano's own float32 is 2e-3 away from float64 on the deep one.
            || fixture.description().depth > 16
        {
            continue;
        }
        count += 1;
        for &program in programs(&fixture) {
            let pass = pass(&fixture, ".weights.h5", program);
            let layers = fixture.keras_names(&pass.network);
            pass.assert_loss(&fixture);

            let file = hdf5::File::open(&step).unwrap();
            let moments = file.group("optimizer_weights").unwrap();
            let keras1 = |name: &str, role: TensorRole| {
                let (layer, weight) = keras_name(&layers, name, role);
                let weight = match weight {
                    "kernel" => "W",
                    "bias" => "b",
                    other => other,
                };
                format!("{layer}_{weight}")
            };
            let mut names: Vec<String> = pass
                .parameters
                .trainable()
                .map(|(name, role, _)| keras1(name, role))
                .collect();
            names.sort();
            pass.assert_gradients(&fixture, |name, role| {
                let index = names.binary_search(&keras1(name, role)).unwrap();
                let moment = moments.dataset(&format!("param_{}", index + 1)).unwrap();
                let shape: Vec<usize> = moment
                    .shape()
                    .unwrap()
                    .iter()
                    .map(|&d| d as usize)
                    .collect();
                let mut gradient: Vec<f32> = moment.read_f32().unwrap();
                gradient.iter_mut().for_each(|g| *g /= 1.0 - 0.9);
                if let [_, _, h, w] = shape[..] {
                    gradient.chunks_mut(h * w).for_each(<[f32]>::reverse);
                }
                let gradient = Tensor::from_vec(gradient, shape, &Device::Cpu).unwrap();
                if role == TensorRole::DenseWeight {
                    gradient.t().unwrap()
                } else {
                    gradient
                }
            });
            let after = fixture.load(".model.h5");
            pass.assert_statistics(&fixture, |name| after.tensors[name].clone());
        }
    }
    if count == 0 {
        eprintln!("skipped: the larger set of golden files is not at hand");
    }
}
