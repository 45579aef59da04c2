//! The compiled step against candle's tape in float64, for every kind of network.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use ror_models::blocks::{BlockKind, Mode, Noise};
use ror_models::{Description, Dialect, Family, Network, Parameters, ShortcutKind, TensorRole};
use ror_ops::{BatchNormConfig, Momentum, RunningVariance};
use ror_train::{Batch, Engine, FlatLayout, Gradients, KernelEngine, TapeEngine, flat};
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
fn parameters(network: &Network) -> Parameters {
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

fn in_f64(network: &Network, parameters: &Parameters) -> Parameters {
    let tensors: HashMap<String, Tensor> = parameters
        .iter()
        .map(|(name, _, var)| (name.to_owned(), var.to_dtype(DType::F64).unwrap()))
        .collect();
    let vb = VarBuilder::from_tensors(tensors, DType::F64, &Device::Cpu);
    Parameters::from_tensors(network, &vb).unwrap()
}

fn batch(network: &Network, n: usize, size: usize) -> Batch {
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
        m.max((f64::from(f) - e).abs() / largest)
    })
}

/// Loss, logits, gradients, running statistics and evaluation of one step.
fn check(network: &Network, n: usize, size: usize, threads: usize, seed: u64) -> Result<()> {
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
    assert!(off(&found, &flat64(&evaluated), 1e-3) < 1e-4, "evaluation");

    let mut gradients = Gradients::new(Arc::new(FlatLayout::new(&ours)));
    gradients.as_mut_slice().fill(f32::NAN);
    let output = engine.forward_backward(&batch, &Noise::seeded(seed), &mut gradients)?;
    let expected = loss.to_scalar::<f64>()?;
    assert!(
        (output.loss - expected).abs() < 1e-4 * expected.abs(),
        "{} {expected}",
        output.loss
    );
    assert!(off(&output.logits, &flat64(&logits), 1e-3) < 3e-4, "logits");
    let largest = reference
        .trainable()
        .filter_map(|(_, _, var)| tape.get(var))
        .flat_map(flat64)
        .fold(0.0, |m: f64, v| m.max(v.abs()));
    for (name, _, var) in reference.trainable() {
        let expected = match tape.get(var) {
            Some(gradient) => flat64(gradient),
            None => vec![0.0; var.elem_count()],
        };
        // Gradients that are zero in exact arithmetic have no scale of their own.
        let off = off(gradients.get(name).unwrap(), &expected, 1e-3 * largest);
        assert!(off < 1e-3, "{name}: {off}");
    }
    for (name, role, var) in reference.iter() {
        if !role.is_trainable() {
            let found = flat::read(ours.get(name).unwrap(), <[f32]>::to_vec)?;
            let off = off(&found, &flat64(var), 1e-3);
            assert!(off < 1e-5, "{name}: {off}");
        }
    }
    Ok(())
}

fn network(description: &Description) -> Network {
    Network::new(description).unwrap()
}

fn preset(name: &str) -> Network {
    network(&Description::preset(name).unwrap())
}

#[test]
fn wide_pre_activation_networks_of_both_dialects() -> Result<()> {
    check(&preset("keras-ror-3-wrn-16-2"), 5, 16, 2, 1)?;
    check(&preset("keras-ror-3-wrn-10-1"), 3, 12, 3, 1)?;
    check(&preset("ror-3-wrn-16-2"), 4, 16, 2, 1)
}

#[test]
fn post_activation_networks_of_every_dialect() -> Result<()> {
    check(&preset("pytorchcv-ror-3-20"), 4, 16, 2, 1)?;
    check(&preset("keras-ror-3-56"), 6, 8, 2, 1)?;
    check(&preset("ror-3-20"), 4, 16, 2, 1)
}

#[test]
fn every_number_of_levels_and_kind_of_shortcut() -> Result<()> {
    use ShortcutKind::{A, B, C};
    for family in [Family::Ror, Family::PreRor] {
        let of = |depth| Description::new(Dialect::Paper, family, depth, 1).unwrap();
        for kinds in [
            &[A][..],
            &[C],
            &[A, A],
            &[B, C],
            &[A, A, A],
            &[A, B, C],
            &[B, B, B],
            &[C, A, A],
            &[A, A, A, A],
            &[C, C, C, B],
            &[A, A, A, A, A],
        ] {
            let depth = if kinds.len() == 5 { 26 } else { 14 };
            check(&network(&of(depth).with_shortcuts(kinds)), 3, 8, 2, 1)?;
        }
    }
    Ok(())
}

#[test]
fn bottlenecks_and_imagenet_stems() -> Result<()> {
    let bottleneck =
        Description::of_block(Dialect::Paper, Family::PreRor, BlockKind::Bottleneck, 20, 1);
    check(&network(&bottleneck.unwrap()), 3, 8, 2, 1)?;
    check(&preset("imagenet-ror-3-18"), 3, 64, 2, 1)
}

#[test]
fn dropout_and_stochastic_depth_follow_the_noise() -> Result<()> {
    for name in ["keras-ror-3-wrn-16-1", "ror-3-20", "pytorchcv-ror-3-20"] {
        let description = Description::preset(name).unwrap();
        for seed in 1..4 {
            let both = description
                .clone()
                .with_dropout(0.3)
                .with_stochastic_depth(0.2);
            check(&network(&both), 3, 8, 2, seed)?;
            let depth = description.clone().with_stochastic_depth(0.4);
            check(&network(&depth), 3, 8, 2, seed)?;
        }
        check(&network(&description.with_dropout(0.5)), 3, 8, 2, 1)?;
    }
    Ok(())
}

#[test]
fn every_convention_of_the_running_variance_and_no_classifier() -> Result<()> {
    for running_variance in [
        RunningVariance::Unbiased,
        RunningVariance::Biased,
        RunningVariance::BiasedPlusEpsilon,
    ] {
        let mut description = Description::preset("ror-3-wrn-10-1").unwrap();
        description.norm = BatchNormConfig {
            epsilon: 1e-2,
            momentum: Momentum::OfOldValue(0.7),
            running_variance,
        };
        check(&network(&description.without_top()), 2, 8, 2, 1)?;
    }
    Ok(())
}

fn bits_of(values: &[f32]) -> Vec<u64> {
    values.iter().map(|v| u64::from(v.to_bits())).collect()
}

/// Bits of loss, logits, gradients and running statistics after two steps.
fn bits(network: &Network, threads: usize) -> Vec<u64> {
    let parameters = parameters(network);
    let mut engine = KernelEngine::new(network, &parameters, threads).unwrap();
    let mut gradients = Gradients::new(Arc::new(FlatLayout::new(&parameters)));
    let noise = Noise::seeded(3);
    let mut bits = Vec::new();
    for n in [7, 5] {
        let batch = batch(network, n, 8);
        let output = engine
            .forward_backward(&batch, &noise, &mut gradients)
            .unwrap();
        bits.push(output.loss.to_bits());
        bits.extend(bits_of(&output.logits));
        bits.extend(bits_of(gradients.as_slice()));
        for (_, _, var) in parameters.iter() {
            bits.extend(flat::read(var, bits_of).unwrap());
        }
    }
    bits
}

#[test]
fn the_same_seed_and_threads_give_the_same_bits() {
    let description = Description::preset("keras-ror-3-wrn-16-2").unwrap();
    let network = network(&description.with_dropout(0.1).with_stochastic_depth(0.5));
    for threads in [1, 2, 3] {
        assert!(
            bits(&network, threads) == bits(&network, threads),
            "{threads} threads"
        );
    }
}

/// Networks that order their operations in different ways.
fn every_order() -> Vec<Network> {
    use ShortcutKind::{A, B, C};
    let kinds = |name, kinds: [ShortcutKind; 3]| {
        network(&Description::preset(name).unwrap().with_shortcuts(&kinds))
    };
    vec![
        preset("ror-3-wrn-10-1"),
        preset("keras-ror-3-wrn-10-1"),
        preset("pytorchcv-ror-3-14"),
        kinds("ror-3-14", [C, C, B]),
        kinds("ror-3-14", [A, A, A]),
        kinds("pre-ror-3-14", [C, C, C]),
        kinds("pre-ror-3-bottleneck-20", [B, A, C]),
        preset("ror-4-14"),
        network(&Description::preset("ror-3-14").unwrap().without_top()),
    ]
}

#[test]
fn each_gradient_is_told_once_when_it_is_final_from_the_last_layer_to_the_first() {
    let is_body = |name: &&String| !name.contains("shortcut");
    for network in every_order() {
        let tensors = network.tensors().into_iter().rev();
        let trained = tensors.filter(|spec| spec.role.is_trainable());
        let expected: Vec<String> = trained.map(|spec| spec.name).collect();
        let parameters = parameters(&network);
        let layout = Arc::new(FlatLayout::new(&parameters));
        let kernels = |threads| KernelEngine::new(&network, &parameters, threads).unwrap();
        let engines: [Box<dyn Engine>; 3] = [
            Box::new(kernels(1)),
            Box::new(kernels(2)),
            Box::new(TapeEngine::new(&network, &parameters).unwrap()),
        ];
        let mut orders = Vec::new();
        for (n, mut engine) in [3, 4, 1].into_iter().zip(engines) {
            let batch = batch(&network, n, 8);
            let mut silent = Gradients::new(layout.clone());
            engine
                .forward_backward(&batch, &Noise::seeded(1), &mut silent)
                .unwrap();
            let mut order = Vec::new();
            let mut gradients = Gradients::new(layout.clone());
            gradients.as_mut_slice().fill(f32::NAN);
            let mut ready = |index: usize, values: &mut [f32]| {
                let name = &layout.entries()[index].name;
                assert!(
                    bits_of(values) == bits_of(silent.get(name).unwrap()),
                    "{name}"
                );
                order.push(name.clone());
            };
            engine
                .forward_backward_telling(&batch, &Noise::seeded(1), &mut gradients, &mut ready)
                .unwrap();
            assert!(bits_of(gradients.as_slice()) == bits_of(silent.as_slice()));
            let body: Vec<_> = order.iter().filter(is_body).collect();
            assert!(body.into_iter().eq(expected.iter().filter(is_body)));
            orders.push(order);
        }
        assert_eq!(orders[0], orders[1]);
        for mut order in orders {
            order.sort();
            let names = layout.entries().iter().map(|entry| &entry.name);
            assert!(order.iter().eq(names), "{}", network.description);
        }
    }
}

#[test]
fn gradients_of_dropped_blocks_are_told_in_their_place_and_changes_to_gradients_stay() {
    let description = Description::preset("ror-3-wrn-16-1").unwrap();
    let network = network(&description.with_stochastic_depth(0.1));
    let parameters = parameters(&network);
    let layout = Arc::new(FlatLayout::new(&parameters));
    let mut engine = KernelEngine::new(&network, &parameters, 2).unwrap();
    let batch = batch(&network, 3, 8);
    let mut gradients = Gradients::new(layout.clone());
    let mut orders = Vec::new();
    let mut dropped = 0;
    for seed in 0..6 {
        let mut order = Vec::new();
        let mut ready = |index: usize, values: &mut [f32]| {
            order.push(index);
            dropped += usize::from(values.iter().all(|&v| v == 0.0));
            values.fill(index as f32);
        };
        engine
            .forward_backward_telling(&batch, &Noise::seeded(seed), &mut gradients, &mut ready)
            .unwrap();
        orders.push(order);
        for (index, entry) in layout.entries().iter().enumerate() {
            let values = &gradients.as_slice()[entry.range.clone()];
            assert!(values.iter().all(|&v| v == index as f32), "{}", entry.name);
        }
    }
    assert!(dropped > 0);
    assert!(orders.iter().all(|order| *order == orders[0]));
}

#[test]
fn what_does_not_fit_is_an_error() {
    let network = preset("ror-3-wrn-10-1");
    let parameters = parameters(&network);
    let mut engine = KernelEngine::new(&network, &parameters, 2).unwrap();
    let mut gradients = Gradients::new(Arc::new(FlatLayout::new(&parameters)));
    let good = batch(&network, 2, 8);
    let mut step =
        |batch: Batch| engine.forward_backward(&batch, &Noise::seeded(1), &mut gradients);
    assert!(
        step(Batch {
            shape: [2, 1, 8, 8],
            ..good.clone()
        })
        .is_err()
    );
    assert!(
        step(Batch {
            shape: [3, 3, 8, 8],
            ..good.clone()
        })
        .is_err()
    );
    assert!(
        step(Batch {
            shape: [0, 3, 8, 8],
            ..good.clone()
        })
        .is_err()
    );
    assert!(
        step(Batch {
            targets: vec![0.0; 3],
            ..good.clone()
        })
        .is_err()
    );
    assert!(step(good).is_ok());
    let other = preset("ror-3-wrn-16-1");
    assert!(KernelEngine::new(&other, &parameters, 1).is_err());
    let double = in_f64(&network, &parameters);
    assert!(KernelEngine::new(&network, &double, 1).is_err());
}
