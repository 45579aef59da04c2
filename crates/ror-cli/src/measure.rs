//! A network measured on labelled images: what `eval`, `lesion` and `report` share.

use crate::data::{self, DataOptions, SplitArg, centre_crop, share};
use crate::model::ChosenWeights;
use crate::normalise::NormaliseOption;
use crate::runner::{EngineOptions, Runner, averaged};
use anyhow::{Result, bail};
use rayon::prelude::*;
use ror_data::{Dataset, Normalisation, Options, Size, ten_crops};
use ror_train::Metrics;
use std::path::{Path, PathBuf};

/// Which weights, on which images.
#[derive(clap::Args)]
pub(crate) struct MeasureOptions {
    #[command(flatten)]
    pub(crate) weights: ChosenWeights,
    /// The data set
    #[arg(short, long, value_name = "PATH")]
    pub(crate) data: PathBuf,
    /// Which part of it
    #[arg(long, value_enum, default_value_t = SplitArg::Test)]
    split: SplitArg,
    #[command(flatten)]
    data_options: DataOptions,
    /// Look at this share of a picture's shorter side, in the centre [default: 0.875, as 224 of 256,
    /// for ImageNet networks, else 1]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    centre_crop: Option<f64>,
    #[command(flatten)]
    normalise: NormaliseOption,
    #[command(flatten)]
    engine: EngineOptions,
    /// Images per step
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = crate::model::positive)]
    pub(crate) batch_size: usize,
}

/// How much of an image a network is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crops {
    /// The image as it was fitted.
    One,
    /// Corners and centre, each also mirrored.
    Ten,
}

/// The share of an image's side that each of ten crops has.
const TEN_CROP_SHARE: f64 = 0.875;

impl MeasureOptions {
    /// Reads the weights and the images, which must be of the same classes.
    pub(crate) fn open(&self, crops: Crops) -> Result<(Runner, Dataset)> {
        let weights = self.weights.load()?;
        let runner = Runner::new(weights, self.normalise.get(), self.engine, self.batch_size)?;
        runner.check_has_classes(self.weights.path())?;
        runner.check_takes_pictures()?;
        let data = self.read(&runner, crops)?;
        check_classes(&runner, self.weights.path(), &data)?;
        Ok((runner, data))
    }

    fn read(&self, runner: &Runner, crops: Crops) -> Result<Dataset> {
        let (size, centre_crop) = match crops {
            Crops::Ten => {
                let share = self.centre_crop.unwrap_or(TEN_CROP_SHARE);
                (runner.size.enlarged(share), 1.0)
            }
            Crops::One => {
                let usual = || centre_crop(&runner.description);
                (runner.size, self.centre_crop.unwrap_or_else(usual))
            }
        };
        let options = Options {
            size,
            centre_crop,
            ..self.data_options.options()
        };
        Ok(data::open(&self.data, self.split.into(), &options)?)
    }
}

/// Whether the images are of the classes that the weights, read from the file `weights`, are for.
pub(crate) fn check_classes(runner: &Runner, weights: &Path, data: &Dataset) -> Result<()> {
    let (ours, theirs) = (&runner.class_names, data.classes());
    let (weights, path) = (weights.display(), data.provenance().path.display());
    if ours.len() != theirs.len() {
        bail!(
            "{weights} is for {} classes, {path} has {}",
            ours.len(),
            theirs.len()
        );
    }
    if runner.named
        && let Some(i) = (0..ours.len()).find(|&i| ours[i] != theirs[i])
    {
        bail!(
            "class {i} is `{}` in {weights}, `{}` in {path}",
            ours[i],
            theirs[i]
        );
    }
    Ok(())
}

/// Counts over the images at `indices`, so many crops of them at a time; `each` hears of every image's
/// logits, and `done` how many images are done.
pub(crate) fn measure(
    runner: &mut Runner,
    data: &Dataset,
    indices: &[usize],
    (crops, batch_size): (Crops, usize),
    mut each: impl FnMut(usize, &[f32]),
    mut done: impl FnMut(usize),
) -> Result<Metrics> {
    let mut metrics = Metrics::new(data.classes().len());
    let size = (runner.size.height(), runner.size.width());
    let normalisation = runner.normalisation();
    let per_image = if crops == Crops::Ten { 10 } else { 1 };
    let mut pixels = Vec::new();
    let mut count = 0;
    for indices in indices.chunks((batch_size / per_image).max(1)) {
        match crops {
            Crops::One => data.batch(indices.iter().copied(), &normalisation, &mut pixels)?,
            Crops::Ten => ten_crops_of(data, indices, runner.size, &normalisation, &mut pixels)?,
        }
        let logits = runner.logits(&pixels, indices.len() * per_image, size)?;
        let outputs = runner.outputs();
        for (logits, &index) in logits.chunks_exact(outputs * per_image).zip(indices) {
            let mean;
            let logits = match crops {
                Crops::One => logits,
                Crops::Ten => {
                    mean = averaged(logits, outputs);
                    &mean
                }
            };
            metrics.add(logits, data.labels()[index] as usize);
            each(index, logits);
        }
        count += indices.len();
        done(count);
    }
    Ok(metrics)
}

/// Fills `batch` with the ten crops of each image, (10 N, 3, H, W).
fn ten_crops_of(
    data: &Dataset,
    indices: &[usize],
    size: Size,
    normalisation: &Normalisation,
    batch: &mut Vec<f32>,
) -> Result<()> {
    let crops = indices.par_iter().map(|&index| {
        let image = data.image(index)?;
        Ok(ten_crops(&image, data.size(), size))
    });
    let crops: Vec<[Vec<u8>; 10]> = crops.collect::<Result<_>>()?;
    batch.clear();
    normalisation.append(crops.as_flattened().iter().map(Vec::as_slice), batch);
    Ok(())
}
