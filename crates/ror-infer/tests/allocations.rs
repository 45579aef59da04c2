//! A run allocates nothing. Alone in its process, since it counts every thread's allocations.

#![allow(clippy::unwrap_used)]

mod common;

use std::alloc::System;

use common::{noise, weights};
use ror_infer::{Engine, Input, Normalisation, Options};
use ror_models::{Description, Network};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[test]
fn a_run_allocates_nothing() {
    for name in [
        "keras-ror-3-wrn-10-2",
        "ror-5-26",
        "pytorchcv-ror-3-14",
        "imagenet-ror-3-18",
    ] {
        let mut description = Description::preset(name).unwrap();
        description.image_size = [32, 32];
        let network = Network::new(&description).unwrap();
        let weights = weights(&network);
        for (threads, batch) in [(1, 64), (2, 64), (2, 1), (3, 8)] {
            let options = Options::default().threads(threads).batch_size(batch);
            let mut engine = Engine::compile(&network, &weights.var_builder(), &options).unwrap();
            let images = noise(7 * 3072, 1);
            let pixels = vec![9; 7 * 3072];
            let normalisation = Normalisation::new(&[0.5; 3], &[0.5; 3]).unwrap();
            let mut logits = vec![0.0; 7 * engine.outputs()];
            let mut features = vec![0.0; 7 * engine.features()];
            let mut all = || {
                engine.run(Input::F32(&images), &mut logits).unwrap();
                engine
                    .run(Input::U8(&pixels, &normalisation), &mut logits)
                    .unwrap();
                engine
                    .run_features(Input::F32(&images), &mut features)
                    .unwrap();
            };
            // The first time a thread parks, the standard library may take memory for it.
            all();
            let before = ALLOCATOR.stats();
            all();
            assert_eq!(
                ALLOCATOR.stats().allocations,
                before.allocations,
                "{name}, {threads} threads, batch {batch}"
            );
        }
    }
}
