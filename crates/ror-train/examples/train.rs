//! Trains a small network on generated images, and hears of every epoch.
//!
//! ```sh
//! cargo run --release -p ror-train --example train            # everything stays in memory
//! cargo run --release -p ror-train --example train -- run     # the run is kept in the folder `run`
//! ```

use candle_core::{DType, Device};
use ror_data::{Augment, Dataset, Generator, Size};
use ror_models::{Description, Network, Parameters};
use ror_train::{Event, Outcome, Recipe, Source, Subset, TrainConfig, Trainer, TrainingData};
use std::error::Error;
use std::path::Path;
use std::sync::Arc;

/// Rows and columns of an image.
const SIDE: usize = 16;

fn main() -> Result<(), Box<dyn Error>> {
    let data = TrainingData {
        train: Subset::all(stripes(512, 1)?),
        validation: Some(Subset::all(stripes(128, 2)?)),
    };

    // The network: a preset, changed where the data ask for it.
    let mut description = Description::preset("ror-3-wrn-10-1")?.with_classes(3);
    description.image_size = [SIDE, SIDE];
    let network = Network::new(&description)?;

    // The settings: a recipe, changed.
    let config = TrainConfig {
        epochs: 4,
        batch_size: 32,
        lr: 0.05,
        augment: Augment {
            crop: 2,
            ..Augment::NONE
        },
        ..Recipe::Fast.config()
    };

    let parameters = Parameters::init(&network, config.seed, DType::F32, &Device::Cpu)?;
    let mut trainer = Trainer::new(&network, parameters, config, data)?;
    if let Some(folder) = std::env::args().nth(1) {
        trainer = trainer.with_output(Path::new(&folder), Source::default())?;
    }

    // A callback hears of steps, validations, epochs and checkpoints, and may stop the run.
    let stop = trainer.stop_flag();
    trainer.on_event(move |event| {
        if let Event::EpochFinished { report, best } = event
            && let Some(validation) = &report.validation
        {
            println!(
                "epoch {}: training loss {:.3}, accuracy {:.1} %{}",
                report.epoch,
                report.train_loss,
                100.0 * validation.top1,
                if *best { ", the best so far" } else { "" }
            );
            if validation.top1 > 0.999 {
                stop.stop();
            }
        }
    });
    match trainer.run()? {
        Outcome::Finished => println!("all epochs are done"),
        Outcome::Stopped { step } => println!("good enough after {step} steps"),
    }

    // The variables are the trained weights: they make a model at once.
    let model = trainer.parameters().model(&network)?;
    let images = candle_core::Tensor::zeros((1, 3, SIDE, SIDE), DType::F32, &Device::Cpu)?;
    println!("logits of a black image: {}", model.forward(&images)?);
    Ok(())
}

/// Stripes across, down and rising, of random colours and phases.
fn stripes(count: usize, seed: u64) -> Result<Arc<Dataset>, Box<dyn Error>> {
    let classes = ["across", "down", "rising"].map(str::to_owned).to_vec();
    let mut pixels = Vec::with_capacity(count * SIDE * SIDE * 3);
    let mut labels = Vec::with_capacity(count);
    for i in 0..count {
        let mut generator = Generator::new(seed, &[i as u64]);
        let label = i % classes.len();
        let phase = generator.below(8) as usize;
        let mut colour = || [0; 3].map(|_| generator.below(256) as u8);
        let colours = [colour(), colour()];
        for y in 0..SIDE {
            for x in 0..SIDE {
                let along = [y, x, x + y][label] + phase;
                pixels.extend(colours[along / 3 % 2]);
            }
        }
        labels.push(label as u32);
    }
    let size = Size::new(SIDE, SIDE).ok_or("an image has pixels")?;
    let data = Dataset::from_pixels("stripes", pixels, labels, classes, size)?;
    Ok(Arc::new(data))
}
