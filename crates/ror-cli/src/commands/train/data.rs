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
    let path = source.data.as_deref().context("--data is missing")?;
    let [height, width] = description.image_size;
    let size = Size::new(height, width).context("the model's image size")?;
    let read = |split| {
        let options = DataOptions {
            coarse: source.coarse,
            extra: source.extra,
            // Resized crops are cut out of whole pictures.
            lazy: source.lazy || (split == Split::Train && augment.resized_crop > 0.0),
        };
        let options = Options {
            size,
            centre_crop: centre_crop(description),
            ..options.options()
        };
        data::open(path, split, &options)
    };
    let train = read(Split::Train)?;
    let split = train.provenance().split.is_some();
    let train = Arc::new(train);
    if let Some(fraction) = source.holdout {
        let (train, held) = Subset::holdout(train, fraction)?;
        return Ok(TrainingData {
            train,
            validation: Some(held),
        });
    }
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
    let validation = match read(Split::Test) {
        Ok(test) => {
            check_classes(path, &train, &test)?;
            note(
                "note: the best weights are chosen by the test images; --holdout 0.1 chooses them by \
                 a tenth of the training images instead",
            );
            Some(Subset::all(Arc::new(test)))
        }
        Err(error) if matches!(error.kind(), ErrorKind::Missing(_)) => {
            note(&format!("note: nothing is validated: {error}"));
            None
        }
        Err(error) => return Err(error.into()),
    };
    Ok(TrainingData { train, validation })
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
