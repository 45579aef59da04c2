//! A small set of generated images, and runs on it.
#![allow(dead_code, clippy::unwrap_used)] // Each test takes what it needs.

use candle_core::{DType, Device};
use ror_data::{Augment, Dataset, Generator, Normalisation, Size};
use ror_models::{Description, Network, Parameters};
use ror_train::{Recipe, Subset, TrainConfig, Trainer, TrainingData, flat};
use std::sync::Arc;

pub(crate) const SIDE: usize = 12;

/// Stripes of random colours, phase and width under noise; the class is their direction.
pub(crate) fn stripes(count: usize, seed: u64) -> Arc<Dataset> {
    let classes = ["across", "down", "rising"].map(str::to_owned).to_vec();
    let mut pixels = Vec::new();
    let mut labels = Vec::new();
    for i in 0..count {
        let mut g = Generator::new(seed, &[i as u64]);
        let label = i % classes.len();
        let phase = g.below(8) as usize;
        let width = 2 + g.below(2) as usize;
        let mut colour = || [0; 3].map(|_| g.below(200) as f64);
        let colours = [colour(), colour()];
        for y in 0..SIDE {
            for x in 0..SIDE {
                let along = [y, x, x + y][label] + phase;
                for value in colours[along / width % 2] {
                    pixels.push((value + 27.0 + g.within(27.0)) as u8);
                }
            }
        }
        labels.push(label as u32);
    }
    let size = Size::new(SIDE, SIDE).unwrap();
    Arc::new(Dataset::from_pixels("stripes", pixels, labels, classes, size).unwrap())
}

pub(crate) fn data(train: usize) -> TrainingData {
    TrainingData {
        train: Subset::all(stripes(train, 1)),
        validation: Some(Subset::all(stripes(48, 2))),
    }
}

pub(crate) fn network() -> Network {
    let mut description = Description::preset("ror-3-wrn-10-1")
        .unwrap()
        .with_classes(3);
    description.image_size = [SIDE, SIDE];
    Network::new(&description).unwrap()
}

pub(crate) fn config() -> TrainConfig {
    TrainConfig {
        epochs: 2,
        batch_size: 8,
        lr: 0.05,
        normalise: Normalisation::cifar10(),
        augment: Augment {
            crop: 1,
            ..Augment::NONE
        },
        ..Recipe::Fast.config()
    }
}

pub(crate) fn trainer(config: TrainConfig, data: TrainingData) -> Trainer {
    let network = network();
    let parameters = Parameters::init(&network, config.seed, DType::F32, &Device::Cpu).unwrap();
    Trainer::new(&network, parameters, config, data).unwrap()
}

pub(crate) fn bits(trainer: &Trainer) -> Vec<(String, Vec<u32>)> {
    let all = trainer.parameters().iter();
    all.map(|(name, _, var)| {
        let bits = flat::read(var, |w| w.iter().map(|v| v.to_bits()).collect()).unwrap();
        (name.to_owned(), bits)
    })
    .collect()
}
