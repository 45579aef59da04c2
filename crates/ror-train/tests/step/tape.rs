//! A step on the kernels beside the same step on candle's tape in float64.

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use ror_models::blocks::{Mode, Noise};
use ror_models::{Description, Network, Parameters, TensorRole};
use ror_train::{Batch, Engine, FlatLayout, Gradients, KernelEngine, flat};
use std::collections::HashMap;
use std::sync::Arc;

/// Repeatable values in -1..1.
fn values(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// Parameters of which none is zero or one.
pub(crate) fn parameters(network: &Network) -> Parameters {
    let parameters = Parameters::init(network, 1, DType::F32, &Device::Cpu).unwrap();
    for (i, (_, role, var)) in parameters.iter().enumerate() {
        let noise = values(var.elem_count(), i as u64);
        flat::update(var, |v| {
            for (v, noise) in v.iter_mut().zip(noise) {
                match role {
                    TensorRole::ConvWeight | TensorRole::DenseWeight => {}
                    TensorRole::RunningVariance => *v = 1.0 + 0.5 * noise,
                    TensorRole::NormScale => *v = 1.0 + 0.3 * noise,
                    _ => *v = 0.2 * noise,
                }
            }
        })
        .unwrap();
    }
    parameters
}

pub(crate) fn in_f64(network: &Network, parameters: &Parameters) -> Parameters {
    let tensors: HashMap<String, Tensor> = parameters
        .iter()
        .map(|(name, _, var)| (name.to_owned(), var.to_dtype(DType::F64).unwrap()))
        .collect();
    let vb = VarBuilder::from_tensors(tensors, DType::F64, &Device::Cpu);
    Parameters::from_tensors(network, &vb).unwrap()
}

pub(crate) fn batch(network: &Network, n: usize, size: usize) -> Batch {
    let channels = network.description.channels;
    let classes = network.head.classes.unwrap_or(network.head.features);
    // Soft targets.
    let mut targets: Vec<f32> = values(n * classes, 8).iter().map(|v| v.abs()).collect();
    for row in targets.chunks_mut(classes) {
        let sum: f32 = row.iter().sum();
        row.iter_mut().for_each(|v| *v /= sum);
    }
    Batch {
        images: values(n * channels * size * size, 7),
        shape: [n, channels, size, size],
        targets,
        labels: vec![0; n],
        whole: n,
    }
}

fn flat64(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// The largest difference, relative to the largest expected value or `floor`.
fn off(found: &[f32], expected: &[f64], floor: f64) -> f64 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(floor, |m, v| m.max(v.abs()));
    let differences = found.iter().zip(expected);
    differences.fold(0.0, |m: f64, (&f, e)| {
        let off = (f64::from(f) - e).abs() / largest;
        // NaN is what nobody wrote.
        m.max(if off.is_nan() { f64::INFINITY } else { off })
    })
}

/// Loss, logits, gradients, running statistics and evaluation of one step.
pub(crate) fn check(
    network: &Network,
    n: usize,
    size: usize,
    threads: usize,
    seed: u64,
) -> Result<()> {
    let off = step(network, n, size, threads, seed)?;
    assert!(off.evaluation < 1e-4, "evaluation: {}", off.evaluation);
    assert!(off.loss < 1e-4, "loss: {}", off.loss);
    assert!(off.logits < 3e-4, "logits: {}", off.logits);
    for (name, off) in off.gradients {
        assert!(off < 1e-3, "{name}: {off}");
    }
    for (name, off) in off.statistics {
        assert!(off < 1e-5, "{name}: {off}");
    }
    Ok(())
}

/// How far a step is from the tape's; tensors as a share of the largest value that is expected.
#[derive(Debug)]
pub(crate) struct Off {
    pub(crate) evaluation: f64,
    pub(crate) loss: f64,
    pub(crate) logits: f64,
    pub(crate) gradients: Vec<(String, f64)>,
    pub(crate) statistics: Vec<(String, f64)>,
    /// The length of all gradients' differences, as a share of the gradients' length.
    pub(crate) whole: f64,
}

/// One step on the kernels and on the tape.
pub(crate) fn step(
    network: &Network,
    n: usize,
    size: usize,
    threads: usize,
    seed: u64,
) -> Result<Off> {
    let (ours, batch) = (parameters(network), batch(network, n, size));
    let reference = in_f64(network, &ours);
    let model = reference.model(network)?;
    let classes = batch.classes();
    let images =
        Tensor::from_slice(&batch.images, &batch.shape, &Device::Cpu)?.to_dtype(DType::F64)?;
    let targets =
        Tensor::from_slice(&batch.targets, (n, classes), &Device::Cpu)?.to_dtype(DType::F64)?;
    let evaluated = model.forward(&images)?;
    let logits = model.forward_in(&images, Mode::Train(&Noise::seeded(seed)))?;
    let loss = candle_nn::ops::log_softmax(&logits, D::Minus1)?;
    let loss = loss
        .mul(&targets)?
        .sum_all()?
        .affine(-1.0 / n as f64, 0.0)?;
    let tape = loss.backward()?;

    let mut engine = KernelEngine::new(network, &ours, threads)?;
    let found = engine.logits(&batch.images, batch.shape)?;
    let evaluation = off(&found, &flat64(&evaluated), 1e-3);

    let mut gradients = Gradients::new(Arc::new(FlatLayout::new(&ours)));
    gradients.as_mut_slice().fill(f32::NAN);
    let output = engine.forward_backward(&batch, &Noise::seeded(seed), &mut gradients)?;
    let loss = loss.to_scalar::<f64>()?;
    let largest = reference
        .trainable()
        .filter_map(|(_, _, var)| tape.get(var))
        .flat_map(flat64)
        .fold(0.0, |m: f64, v| m.max(v.abs()));
    let (mut each, mut difference, mut length) = (Vec::new(), 0.0, 0.0);
    for (name, _, var) in reference.trainable() {
        let expected = match tape.get(var) {
            Some(gradient) => flat64(gradient),
            None => vec![0.0; var.elem_count()],
        };
        // Gradients that are zero in exact arithmetic have no scale of their own.
        let found = gradients.get(name).unwrap();
        for (&found, expected) in found.iter().zip(&expected) {
            difference += (f64::from(found) - expected).powi(2);
            length += expected.powi(2);
        }
        each.push((name.to_owned(), off(found, &expected, 1e-3 * largest)));
    }
    let mut statistics = Vec::new();
    for (name, role, var) in reference.iter() {
        if !role.is_trainable() {
            let found = flat::read(ours.get(name).unwrap(), <[f32]>::to_vec)?;
            statistics.push((name.to_owned(), off(&found, &flat64(var), 1e-3)));
        }
    }
    Ok(Off {
        evaluation,
        loss: (output.loss - loss).abs() / loss.abs(),
        logits: off(&output.logits, &flat64(&logits), 1e-3),
        gradients: each,
        statistics,
        whole: (difference / length).sqrt(),
    })
}

pub(crate) fn network(description: &Description) -> Network {
    Network::new(description).unwrap()
}

pub(crate) fn preset(name: &str) -> Network {
    network(&Description::preset(name).unwrap())
}
