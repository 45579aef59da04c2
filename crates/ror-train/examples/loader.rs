//! How many augmented images a second one thread prepares.

use ror_data::{Augment, Dataset, Generator, Size};
use ror_train::{Loader, Recipe, Subset, TrainConfig};
use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let count = 20_000;
    let size = Size::CIFAR;
    let mut generator = Generator::new(1, &[]);
    let pixels = (0..count * size.area() * 3)
        .map(|_| generator.bits() as u8)
        .collect();
    let labels = (0..count as u32).map(|i| i % 10).collect();
    let classes = (0..10).map(|i| i.to_string()).collect();
    let data = Arc::new(Dataset::from_pixels(
        "noise", pixels, labels, classes, size,
    )?);
    let all = Augment {
        cutout: 8,
        trivial: 1.0,
        crop: 4,
        flip: true,
        ..Augment::KERAS
    };
    for (name, augment, mixup) in [
        ("none", Augment::NONE, 0.0),
        ("paper", Augment::PAPER, 0.0),
        ("keras", Augment::KERAS, 0.0),
        ("all, mixup", all, 0.2),
    ] {
        let config = TrainConfig {
            augment,
            mixup,
            ..Recipe::Fast.config()
        };
        let loader = Loader::new(Subset::all(data.clone()), &config)?;
        let start = Instant::now();
        let images: usize = loader
            .epoch(0, 0)?
            .map(|batch| batch.map(|batch| batch.len()))
            .sum::<Result<_, _>>()?;
        let speed = images as f64 / start.elapsed().as_secs_f64();
        println!("{name:12} {speed:8.0} images/s");
    }
    Ok(())
}
