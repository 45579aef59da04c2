//! The order in which an engine tells of gradients.

use crate::bits_of;
use crate::tape::{batch, network, parameters, preset};
use ror_models::blocks::Noise;
use ror_models::{Description, Network, ShortcutKind};
use ror_train::{Engine, FlatLayout, Gradients, KernelEngine, TapeEngine};
use std::sync::Arc;

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
