//! Runs that stop and go on.
#![allow(clippy::unwrap_used)]

mod common;

use common::{bits, config, data, trainer};
use ror_train::{
    Event, Outcome, RunConfig, RunRecord, Source, StopFlag, TrainConfig, TrainError, Trainer,
};
use std::fs;
use std::path::Path;

/// Everything that has a memory is switched on.
fn full() -> TrainConfig {
    let mut config = TrainConfig {
        epochs: 3,
        ema: Some(0.95),
        mixup: 0.2,
        label_smoothing: 0.1,
        workers: 2,
        checkpoint_seconds: 0.0,
        ..config()
    };
    config.optimizer.clip_norm = Some(2.0);
    config
}

/// The columns that do not depend on the clock.
fn metrics(run: &Path) -> Vec<String> {
    let text = fs::read_to_string(run.join("metrics.csv")).unwrap();
    let steady = |line: &str| line.split(',').take(8).collect::<Vec<_>>().join(",");
    text.lines().map(steady).collect()
}

#[test]
fn a_run_stopped_after_any_step_goes_on_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let straight = folder.path().join("straight");
    let mut whole = trainer(full(), data(20))
        .with_output(&straight, Source::default())
        .unwrap();
    whole.run().unwrap();
    assert_eq!(whole.step(), 9);

    let stopped = folder.path().join("stopped");
    let mut next = trainer(full(), data(20))
        .with_output(&stopped, Source::default())
        .unwrap();
    let mut parts = 0;
    loop {
        let flag = next.stop_flag();
        // Also in the middle of a validation, which follows the third step of each epoch.
        next.on_event(move |event| match event {
            Event::Step(_) => flag.stop(),
            Event::Validating { .. } if parts % 2 == 0 => flag.stop(),
            _ => {}
        });
        parts += 1;
        match next.run().unwrap() {
            Outcome::Finished => break,
            Outcome::Stopped { .. } => {
                drop(next);
                next = Trainer::resume(&stopped, data(20)).unwrap();
            }
        }
    }
    assert!(parts > 9, "{parts}");
    assert_eq!(bits(&next), bits(&whole));
    let best = |run: &Path| fs::read(run.join("best.safetensors")).unwrap();
    assert!(best(&stopped) == best(&straight), "the best weights differ");
    assert_eq!(metrics(&stopped), metrics(&straight));
    assert_eq!(metrics(&stopped).len(), 4);
}

#[test]
fn one_seed_gives_one_network_and_another_another() {
    let run = |seed| {
        let mut trainer = trainer(TrainConfig { seed, ..full() }, data(20));
        trainer.run().unwrap();
        bits(&trainer)
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

#[test]
fn a_finished_run_has_nothing_left_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path();
    let mut first = trainer(config(), data(16))
        .with_output(run, Source::default())
        .unwrap();
    first.run().unwrap();
    let expected = (bits(&first), first.config().clone());
    drop(first);
    let mut again = Trainer::resume(run, data(16)).unwrap();
    assert_eq!(again.run().unwrap(), Outcome::Finished);
    assert_eq!(bits(&again), expected.0);
    assert_eq!(RunConfig::read(run).unwrap(), expected.1);
    for name in [
        "config.toml",
        "metrics.csv",
        "curves.svg",
        "best.safetensors",
        "last",
    ] {
        assert!(run.join(name).exists(), "{name}");
    }
}

#[test]
fn a_loss_that_is_no_number_names_the_step_and_keeps_the_last_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path();
    let mut diverging = config();
    diverging.lr = 1e30;
    diverging.checkpoint_seconds = 0.0;
    let mut first = trainer(diverging, data(64))
        .with_output(run, Source::default())
        .unwrap();
    let error = first.run().unwrap_err();
    let TrainError::NotFinite { step, .. } = error else {
        panic!("{error}");
    };
    assert!(error.to_string().contains(&format!("step {step}")));
    drop(first);
    let kept = Trainer::resume(run, data(64)).unwrap();
    assert!(kept.step() < step.max(2));
    for (name, bits) in bits(&kept) {
        assert!(
            bits.iter().all(|&b| f32::from_bits(b).is_finite()),
            "{name}"
        );
    }
}

#[test]
fn a_folder_with_a_run_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let start = || trainer(config(), data(16)).with_output(folder.path(), Source::default());
    let first = start().unwrap();
    let resumed = Trainer::resume(folder.path(), data(16)).err().unwrap();
    assert!(resumed.to_string().contains("another process"), "{resumed}");
    drop(first);
    let before = fs::read(folder.path().join("config.toml")).unwrap();
    assert!(matches!(start().err(), Some(TrainError::Damaged { .. })));
    assert_eq!(fs::read(folder.path().join("config.toml")).unwrap(), before);
}

#[test]
fn other_images_damage_and_missing_files_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path();
    trainer(config(), data(16))
        .with_output(run, Source::default())
        .unwrap();
    let error = |data| Trainer::resume(run, data).err().unwrap().to_string();
    assert!(error(data(17)).contains("17 images"), "{}", error(data(17)));

    let weights = run.join("last/weights.safetensors");
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    assert!(error(data(16)).contains("weights.safetensors"));
    fs::remove_file(&weights).unwrap();
    assert!(error(data(16)).contains("weights.safetensors"));
    fs::remove_dir_all(run.join("last")).unwrap();
    assert!(error(data(16)).contains("state.json"));
    fs::write(run.join("config.toml"), "nonsense").unwrap();
    assert!(error(data(16)).contains("config.toml"));
}

#[test]
fn data_that_do_not_fit_the_network_are_errors() {
    let error = |change: fn(&mut ror_models::Description)| {
        let mut description = common::network().description;
        change(&mut description);
        let network = ror_models::Network::new(&description).unwrap();
        let device = candle_core::Device::Cpu;
        let parameters =
            ror_models::Parameters::init(&network, 1, candle_core::DType::F32, &device).unwrap();
        Trainer::new(&network, parameters, config(), data(9))
            .err()
            .unwrap()
            .to_string()
    };
    assert!(error(|d| d.classes = 4).contains("3 classes, the network 4"));
    assert!(error(|d| d.image_size = [16, 16]).contains("16 x 16"));
    assert!(error(|d| d.top = false).contains("no classes"));
}

#[test]
fn a_record_tells_how_far_a_run_is_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path();
    let stop = StopFlag::default();
    let mut trainer = trainer(full(), data(20))
        .with_output(run, Source::default())
        .unwrap()
        .with_stop_flag(stop.clone());
    trainer.on_event(move |event| {
        if matches!(event, Event::EpochStarted { epoch: 2, .. }) {
            stop.stop();
        }
    });
    trainer.run().unwrap();
    let record = RunRecord::read(run).unwrap();
    assert_eq!(record.history(), trainer.history());
    assert_eq!(record.best().map(|report| report.epoch), Some(1));
    assert_eq!(&record.config, trainer.config());
    assert!(record.images_per_second().unwrap() > 0.0);
    assert!(record.weights.is_file() && !record.is_finished());
    // Also at the moment when a checkpoint takes the place of the last.
    let moved = run.join(".last.old");
    fs::rename(run.join("last"), &moved).unwrap();
    assert_eq!(RunRecord::read(run).unwrap().history().len(), 1);
    assert!(moved.exists() && !run.join("last").exists());
    assert!(RunRecord::read(&run.join("none")).is_err());
}
