//! The images of a run.

use crate::data::{self, DataOptions, centre_crop};
use crate::output::note;
use anyhow::{Context, Result, bail};
use ror_data::{Augment, Dataset, ErrorKind, Options, Size, Split};
use ror_models::Description;
use ror_train::{Source, Subset, TrainingData};
use std::path::Path;
use std::sync::Arc;

/// Reads what `source` names at the size that the network takes.
pub(crate) fn open(
    source: &Source,
    description: &Description,
    augment: &Augment,
) -> Result<TrainingData> {
    let lazy = lazy(source, augment);
    let train = read(source, description, Split::Train, lazy)?;
    let split = train.provenance().split.is_some();
    let train = Arc::new(train);
    if let Some(fraction) = source.holdout {
        let (train, held) = Subset::holdout(train, fraction)?;
        return Ok(TrainingData {
            train,
            validation: Some(held),
        });
    }
    let path = path(source)?;
    let train = Subset::all(train);
    if !split {
        note(&format!(
            "note: {} has no test images, so nothing is validated; --holdout 0.1 holds a tenth \
             of the images back",
            path.display()
        ));
        return Ok(TrainingData {
            train,
            validation: None,
        });
    }
    let validation = test(source, description)?;
    match &validation {
        Some(test) => {
            check_classes(path, &train, test.data())?;
            note(
                "note: the best weights are chosen by the test images; --holdout 0.1 chooses them by \
                 a tenth of the training images instead",
            );
        }
        None => note(&format!(
            "note: nothing is validated: {} has no test images",
            path.display()
        )),
    }
    Ok(TrainingData { train, validation })
}

/// The images on which a run with this source is validated.
pub(crate) fn validation(
    source: &Source,
    description: &Description,
    augment: &Augment,
) -> Result<Option<Subset>> {
    match source.holdout {
        Some(fraction) => {
            let lazy = lazy(source, augment);
            let train = Arc::new(read(source, description, Split::Train, lazy)?);
            Ok(Some(Subset::holdout(train, fraction)?.1))
        }
        None => test(source, description),
    }
}

/// The test images, if the data are split and have some.
fn test(source: &Source, description: &Description) -> Result<Option<Subset>> {
    match read(source, description, Split::Test, source.lazy) {
        Ok(test) if test.provenance().split.is_none() => Ok(None),
        Ok(test) => Ok(Some(Subset::all(Arc::new(test)))),
        Err(error) => match error.downcast_ref::<ror_data::Error>().map(|e| e.kind()) {
            Some(ErrorKind::Missing(_)) => Ok(None),
            _ => Err(error),
        },
    }
}

/// Whether images to train on stay in their files: resized crops are cut out of whole pictures.
fn lazy(source: &Source, augment: &Augment) -> bool {
    source.lazy || augment.resized_crop > 0.0
}

fn path(source: &Source) -> Result<&Path> {
    source.data.as_deref().context("--data is missing")
}

fn read(source: &Source, description: &Description, split: Split, lazy: bool) -> Result<Dataset> {
    let [height, width] = description.image_size;
    let options = DataOptions {
        coarse: source.coarse,
        extra: source.extra,
        lazy,
    };
    let options = Options {
        size: Size::new(height, width).context("the model's image size")?,
        centre_crop: centre_crop(description),
        ..options.options()
    };
    Ok(data::open(path(source)?, split, &options)?)
}

fn check_classes(path: &Path, train: &Subset, test: &Dataset) -> Result<()> {
    if train.data().classes() != test.classes() {
        bail!(
            "{}: the training images have other classes than the test images",
            path.display()
        );
    }
    Ok(())
}
