//! Runs of several ranks, which are threads here.

use super::*;
use crate::ranks::threads::{Threads, on_ranks};
use crate::{Event, Outcome, Recipe, flat};
use ror_data::{Augment, Dataset, Normalisation, Size};
use std::sync::Mutex;

/// Images of stripes in two classes.
fn images(n: usize) -> Subset {
    let size = Size::new(8, 8).unwrap();
    let pixels = (0..n).flat_map(|i| {
        (0..8 * 8 * 3).map(move |at| {
            let (y, x) = (at / 24, at / 3 % 8);
            let along = if i % 2 == 0 { y } else { x };
            let light = (along + i) / (1 + i % 3) % 2;
            (40 + 150 * light + (i * 37 + at * 11) % 50) as u8
        })
    });
    let labels = (0..n as u32).map(|i| i % 2).collect();
    let classes = ["across", "down"].map(str::to_owned).to_vec();
    let data = Dataset::from_pixels("stripes", pixels.collect(), labels, classes, size);
    Subset::all(Arc::new(data.unwrap()))
}

fn network(change: impl Fn(&mut Description)) -> Network {
    let mut description = Description::preset("ror-3-wrn-10-1")
        .unwrap()
        .with_classes(2);
    description.image_size = [8, 8];
    change(&mut description);
    Network::new(&description).unwrap()
}

fn config() -> TrainConfig {
    TrainConfig {
        epochs: 2,
        batch_size: 8,
        lr: 0.02,
        augment: Augment::NONE,
        normalise: Normalisation::unit(),
        checkpoint_seconds: 0.0,
        ..Recipe::Fast.config()
    }
}

fn trainer(
    ranks: Box<dyn Ranks>,
    network: &Network,
    config: &TrainConfig,
    n: usize,
) -> Result<Trainer> {
    let parameters = Parameters::init(
        network,
        1,
        candle_core::DType::F32,
        &candle_core::Device::Cpu,
    )?;
    let data = TrainingData {
        train: images(n),
        validation: Some(images(7)),
    };
    Trainer::on(ranks, network, parameters, config.clone(), data)
}

fn weights(trainer: &Trainer) -> Vec<f32> {
    let all = trainer.parameters().iter();
    all.flat_map(|(_, _, var)| flat::read(var, <[f32]>::to_vec).unwrap())
        .collect()
}

/// Trains to the end; the loss of every step, and the weights.
fn run(trainer: &mut Trainer) -> (Vec<f64>, Vec<f32>) {
    let losses = Arc::new(Mutex::new(Vec::new()));
    let heard = losses.clone();
    trainer.on_event(move |event| {
        if let Event::Step(report) = event {
            heard.lock().unwrap().push(report.loss);
        }
    });
    assert_eq!(trainer.run().unwrap(), Outcome::Finished);
    let losses = losses.lock().unwrap().clone();
    (losses, weights(trainer))
}

fn boxed(ranks: Threads) -> Box<dyn Ranks> {
    Box::new(ranks)
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn ranks_with_synchronised_normalisation_train_as_one() {
    let network = network(|_| ());
    let config = TrainConfig {
        epochs: 5,
        lr: 0.005,
        sync_batch_norm: true,
        ..config()
    };
    // Twenty steps; the last of an epoch has one image, which leaves ranks without any.
    let (losses, expected) = run(&mut trainer(Box::new(Alone), &network, &config, 25).unwrap());
    assert_eq!(losses.len(), 20);
    let largest = expected.iter().fold(0f32, |most, w| most.max(w.abs()));
    for size in [2, 3] {
        let results = on_ranks(size, |ranks| {
            run(&mut trainer(boxed(ranks), &network, &config, 25).unwrap())
        });
        for (found, weights) in &results {
            assert!((found[0] - losses[0]).abs() < 1e-6);
            for (a, b) in found.iter().zip(&losses) {
                assert!((a - b).abs() < 1e-4, "{a} {b}");
            }
            for (a, b) in weights.iter().zip(&expected) {
                assert!((a - b).abs() < 1e-4 * largest, "{a} {b}");
            }
            assert_eq!(bits(weights), bits(&results[0].1));
        }
    }
}

#[test]
fn ranks_have_the_same_weights_whatever_is_random() {
    let network = network(|d| {
        d.dropout = 0.2;
        d.stochastic_depth = Some(0.5);
    });
    for sync_batch_norm in [false, true] {
        let config = TrainConfig {
            sync_batch_norm,
            mixup: 0.3,
            ema: Some(0.9),
            augment: Augment::PAPER,
            ..config()
        };
        let train = || {
            on_ranks(3, |ranks| {
                let mut trainer = trainer(boxed(ranks), &network, &config, 17).unwrap();
                let (losses, weights) = run(&mut trainer);
                (losses, bits(&weights), trainer.history().to_vec())
            })
        };
        let (results, again) = (train(), train());
        for (losses, weights, history) in &results {
            assert_eq!((losses, weights), (&results[0].0, &results[0].1));
            assert_eq!((losses, weights), (&again[0].0, &again[0].1));
            assert_eq!(history.len(), 2);
            let validation = |history: &[EpochReport]| history[1].validation.unwrap();
            assert_eq!(validation(history), validation(&results[0].2));
        }
    }
}

#[test]
fn a_run_goes_on_with_another_number_of_ranks() {
    let folder = tempfile::tempdir().unwrap();
    let network = network(|_| ());
    let config = TrainConfig {
        sync_batch_norm: true,
        ..config()
    };
    let (_, expected) = run(&mut trainer(Box::new(Alone), &network, &config, 24).unwrap());
    let run_folder = folder.path().join("run");
    let steps = on_ranks(2, |ranks| {
        let first = ranks.rank() == 0;
        let trainer = trainer(boxed(ranks), &network, &config, 24).unwrap();
        let mut trainer = trainer.with_output(&run_folder, Source::default()).unwrap();
        assert_eq!(trainer.output.is_some(), first);
        // Only one rank is asked, and both stop.
        let stop = trainer.stop_flag();
        trainer.on_event(move |event| {
            if matches!(event, Event::Step(report) if first && report.step == 2) {
                stop.stop();
            }
        });
        match trainer.run().unwrap() {
            Outcome::Stopped { step } => step,
            Outcome::Finished => panic!("it was asked to stop"),
        }
    });
    assert_eq!(steps, [3, 3]);
    let data = || TrainingData {
        train: images(24),
        validation: Some(images(7)),
    };
    let results = on_ranks(3, |ranks| {
        let mut trainer = Trainer::resume_on(boxed(ranks), &run_folder, data()).unwrap();
        assert_eq!(trainer.step(), 3);
        run(&mut trainer).1
    });
    for (a, b) in results[2].iter().zip(&expected) {
        assert!((a - b).abs() < 1e-4, "{a} {b}");
    }
    assert_eq!(RunConfig::read(&run_folder).unwrap().training, config);
}

#[test]
fn ranks_that_were_told_different_things_all_say_so() {
    let network = network(|_| ());
    let errors = |settings: fn(usize) -> TrainConfig, images: fn(usize) -> usize| {
        on_ranks(3, |ranks| {
            let (settings, n) = (settings(ranks.rank()), images(ranks.rank()));
            let made = trainer(boxed(ranks), &network, &settings, n);
            made.err().map(|error| error.to_string()).unwrap()
        })
    };
    let lr = |rank| TrainConfig {
        lr: if rank == 2 { 0.1 } else { 0.2 },
        ..config()
    };
    for error in errors(lr, |_| 16) {
        assert!(error.contains("same settings: rank 2's"), "{error}");
    }
    for error in errors(|_| config(), |rank| 16 + rank % 2) {
        assert!(error.contains("same images: rank 1's"), "{error}");
    }
    let few = |_| TrainConfig {
        batch_size: 2,
        ..config()
    };
    for error in errors(few, |_| 16) {
        assert!(
            error.contains("2 images cannot be shared by 3 ranks"),
            "{error}"
        );
    }
}

#[test]
fn a_folder_that_one_rank_cannot_make_ends_all() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "no folder").unwrap();
    let network = network(|_| ());
    let errors = on_ranks(2, |ranks| {
        let trainer = trainer(boxed(ranks), &network, &config(), 16).unwrap();
        let made = trainer.with_output(&file, Source::default());
        made.err().map(|error| error.to_string()).unwrap()
    });
    assert!(errors[0].contains("file"), "{}", errors[0]);
    assert!(errors[1].contains("rank 0 has failed"), "{}", errors[1]);
}
