//! The compiled step against candle's tape in float64, for every kind of network.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod any;
mod tape;
mod told;

use candle_core::Result;
use ror_models::blocks::{BlockKind, Noise};
use ror_models::{Description, Dialect, Family, Network, ShortcutKind};
use ror_ops::{BatchNormConfig, Momentum, RunningVariance};
use ror_train::{Batch, Engine, FlatLayout, Gradients, KernelEngine, flat};
use std::sync::Arc;
use tape::{batch, check, in_f64, network, parameters, preset, step};

#[test]
fn wide_pre_activation_networks_of_both_dialects() -> Result<()> {
    check(&preset("keras-ror-3-wrn-16-2"), 5, 16, 2, 1)?;
    check(&preset("keras-ror-3-wrn-10-1"), 3, 12, 3, 1)?;
    check(&preset("ror-3-wrn-16-2"), 4, 16, 2, 1)
}

#[test]
fn more_images_than_a_thread_takes_at_a_time_are_all_in_the_gradients() -> Result<()> {
    for threads in [1, 2] {
        // Among so many values rounding decides whether one of a rectifier's is above zero, which moves
        // gradients by a thousandth; an image that is missing, by about a third.
        let off = step(&preset("keras-ror-3-wrn-16-2"), 7, 32, threads, 1)?;
        assert!(off.whole < 0.02, "{}", off.whole);
    }
    Ok(())
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

#[test]
fn more_than_there_is_memory_for_is_an_error_before_the_first_step() {
    let network = preset("ror-3-wrn-10-1");
    let engine = KernelEngine::new(&network, &parameters(&network), 2).unwrap();
    let mut engine = engine.for_batches_of(1 << 40);
    let error = engine.prepare([3, 32, 32]).unwrap_err().to_string();
    assert!(error.contains("bytes of memory"), "{error}");
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
