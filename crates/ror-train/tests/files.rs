//! Runs on images that stay in their files.
#![allow(clippy::unwrap_used)]

mod common;

use common::{SIDE, bits, config, stripes, trainer};
use image::RgbImage;
use image::imageops::{FilterType, resize};
use ror_data::{Augment, Dataset, Options, Size, Split};
use ror_train::{Event, Outcome, Source, Subset, TrainConfig, TrainError, Trainer, TrainingData};
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// Pictures of several sizes, in a folder per class.
fn folder() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let data = stripes(21, 1);
    for i in 0..data.len() {
        let class = &data.classes()[data.labels()[i] as usize];
        let side = SIDE as u32;
        let picture = RgbImage::from_raw(side, side, data.image(i).unwrap().into_owned()).unwrap();
        let picture = resize(&picture, 20 + i as u32, 30, FilterType::Nearest);
        let path = root.path().join(class).join(format!("{i:02}.png"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        picture.save(path).unwrap();
    }
    root
}

fn open(root: &Path, lazy: bool) -> TrainingData {
    let options = Options {
        size: Size::new(SIDE, SIDE).unwrap(),
        lazy,
        ..Options::default()
    };
    let data = Arc::new(Dataset::open(root, Split::Train, &options).unwrap());
    TrainingData {
        train: Subset::all(data.clone()),
        validation: Some(Subset::all(data)),
    }
}

fn cropping(workers: usize) -> TrainConfig {
    TrainConfig {
        augment: Augment::IMAGENET,
        workers,
        checkpoint_seconds: 0.0,
        ..config()
    }
}

fn finished(config: TrainConfig, data: TrainingData) -> Trainer {
    let mut trainer = trainer(config, data);
    assert_eq!(trainer.run().unwrap(), Outcome::Finished);
    trainer
}

#[test]
fn where_images_are_changes_nothing_but_what_resized_crops_are_cut_from() {
    let root = folder();
    let run = |config, lazy| finished(config, open(root.path(), lazy));
    let (files, memory) = (run(config(), true), run(config(), false));
    assert_eq!(bits(&files), bits(&memory));
    assert_eq!(
        files.history().last().unwrap().validation,
        memory.history().last().unwrap().validation
    );
    assert_ne!(
        bits(&run(cropping(1), true)),
        bits(&run(cropping(1), false))
    );
}

#[test]
fn the_number_of_workers_changes_nothing() {
    let root = folder();
    let run = |workers| bits(&finished(cropping(workers), open(root.path(), true)));
    assert_eq!(run(1), run(3));
}

#[test]
fn a_run_stopped_after_any_step_goes_on_to_the_bit() {
    let root = folder();
    let straight = finished(cropping(2), open(root.path(), true));
    let out = tempfile::tempdir().unwrap();
    let run = out.path().join("run");
    let mut next = trainer(cropping(2), open(root.path(), true))
        .with_output(&run, Source::default())
        .unwrap();
    loop {
        let flag = next.stop_flag();
        next.on_event(move |event| {
            if matches!(event, Event::Step(_)) {
                flag.stop();
            }
        });
        match next.run().unwrap() {
            Outcome::Finished => break,
            Outcome::Stopped { .. } => {
                drop(next);
                next = Trainer::resume(&run, open(root.path(), true)).unwrap();
            }
        }
    }
    assert_eq!(bits(&next), bits(&straight));
}

#[test]
fn a_damaged_image_is_named_and_the_run_goes_on_once_it_is_whole() {
    let root = folder();
    let straight = finished(cropping(2), open(root.path(), true));
    let out = tempfile::tempdir().unwrap();
    let run = out.path().join("run");
    let path = root.path().join("down/10.png");
    let whole = fs::read(&path).unwrap();
    let mut broken = whole.clone();
    let middle = broken.len() / 2;
    broken[middle..].fill(0);

    fs::write(&path, &broken[..middle + 9]).unwrap();
    let mut first = trainer(cropping(2), open(root.path(), true))
        .with_output(&run, Source::default())
        .unwrap();
    match first.run().unwrap_err() {
        TrainError::Image(error) => assert_eq!(error.path(), path),
        other => panic!("{other}"),
    }
    drop(first);
    fs::write(&path, &whole).unwrap();
    let mut next = Trainer::resume(&run, open(root.path(), true)).unwrap();
    assert_eq!(next.run().unwrap(), Outcome::Finished);
    assert_eq!(bits(&next), bits(&straight));
    drop(next);

    fs::rename(&path, path.with_file_name("11.png")).unwrap();
    let Err(error) = Trainer::resume(&run, open(root.path(), true)) else {
        panic!("other images must be refused");
    };
    assert!(error.to_string().contains("not the images"), "{error}");
}
