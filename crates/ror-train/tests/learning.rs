//! A network is seen to learn.

#![allow(clippy::unwrap_used)]

mod common;

use common::{config, data, trainer};
use ror_train::{Event, Outcome, TrainConfig};
use std::sync::{Arc, Mutex};

#[test]
fn a_tiny_network_learns_generated_images_to_over_95_percent() {
    let config = TrainConfig {
        epochs: 6,
        ema: Some(0.9),
        label_smoothing: 0.05,
        ..config()
    };
    let mut trainer = trainer(config, data(192));
    let events = Arc::new(Mutex::new((0, 0, 0)));
    let seen = events.clone();
    trainer.on_event(move |event| {
        let mut seen = seen.lock().unwrap();
        match event {
            Event::EpochStarted { .. } => seen.0 += 1,
            Event::Step(step) => {
                seen.1 += 1;
                assert_eq!(step.step, seen.1);
            }
            Event::EpochFinished { report, .. } => {
                seen.2 += 1;
                assert_eq!(report.epoch, seen.2);
            }
            _ => {}
        }
    });
    assert_eq!(trainer.run().unwrap(), Outcome::Finished);
    assert_eq!(*events.lock().unwrap(), (6, 6 * 24, 6));
    let first = trainer.history()[0].validation.unwrap();
    let best = trainer.best().unwrap().validation.unwrap();
    assert!(best.top1 > 0.95, "{:?}", trainer.history());
    assert!(best.loss < first.loss);
}

#[test]
fn adam_mixup_and_clipping_learn_too() {
    let mut config = TrainConfig {
        epochs: 4,
        lr: 3e-3,
        mixup: 0.2,
        ..config()
    };
    config.optimizer.kind = ror_train::OptimizerKind::Adamw;
    config.optimizer.clip_norm = Some(1.0);
    let mut trainer = trainer(config, data(96));
    trainer.run().unwrap();
    let losses: Vec<f64> = trainer.history().iter().map(|r| r.train_loss).collect();
    assert!(losses[3] < 0.8 * losses[0], "{losses:?}");
}
