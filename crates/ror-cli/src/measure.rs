//! A network measured on labelled images: what `eval`, `lesion` and `report` share.

use crate::model::WeightsOptions;
use crate::normalise::NormaliseOption;
use crate::output::note;
use crate::progress::Progress;
use crate::runner::{EngineOptions, Runner};
use anyhow::{Result, bail};
use clap::ValueEnum;
use ror_data::{Dataset, Options, Split};
use ror_train::Metrics;
use std::path::{Path, PathBuf};

/// Which weights, on which images.
#[derive(clap::Args)]
pub(crate) struct MeasureOptions {
    /// Weights in any readable format
    #[arg(short, long, value_name = "FILE")]
    pub(crate) weights: PathBuf,
    /// The data set
    #[arg(short, long, value_name = "PATH")]
    pub(crate) data: PathBuf,
    /// Which part of it
    #[arg(long, value_enum, default_value_t = SplitArg::Test)]
    split: SplitArg,
    /// CIFAR-100's 20 coarse classes instead of its 100
    #[arg(long)]
    coarse: bool,
    #[command(flatten)]
    weights_options: WeightsOptions,
    #[command(flatten)]
    normalise: NormaliseOption,
    #[command(flatten)]
    engine: EngineOptions,
    /// Images per step
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = crate::model::positive)]
    pub(crate) batch_size: usize,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SplitArg {
    Train,
    #[value(alias = "val")]
    Test,
}

impl MeasureOptions {
    /// Reads the weights and the images, which must be of the same classes.
    pub(crate) fn open(&self) -> Result<(Runner, Dataset)> {
        let weights = self.weights_options.load(&self.weights, None)?;
        let runner = Runner::new(weights, self.normalise.get(), self.engine, self.batch_size)?;
        if !runner.description.top {
            bail!(
                "{} ends at the average pool and knows no classes",
                self.weights.display()
            );
        }
        runner.check_takes_pictures()?;
        let data = self.read(&runner)?;
        check_classes(&runner, &self.weights, &data)?;
        Ok((runner, data))
    }

    fn read(&self, runner: &Runner) -> Result<Dataset> {
        let split = match self.split {
            SplitArg::Train => Split::Train,
            SplitArg::Test => Split::Test,
        };
        let progress = Progress::new("read");
        let options = Options {
            size: runner.size,
            coarse: self.coarse,
            progress: &|done, total| progress.set(done, total),
            ..Options::default()
        };
        let data = Dataset::open(&self.data, split, &options)?;
        if data.resized() > 0 {
            note(&format!(
                "note: {} images were resized to {}",
                data.resized(),
                runner.size
            ));
        }
        Ok(data)
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

/// Counts over the images at `indices`; `each` hears of every image's logits, and `done` how many
/// images are done.
pub(crate) fn measure(
    runner: &mut Runner,
    data: &Dataset,
    indices: &[usize],
    batch_size: usize,
    mut each: impl FnMut(usize, &[f32]),
    mut done: impl FnMut(usize),
) -> Result<Metrics> {
    let mut metrics = Metrics::new(data.classes().len());
    let size = (data.size().height(), data.size().width());
    let normalisation = runner.normalisation();
    let mut pixels = Vec::new();
    let mut count = 0;
    for indices in indices.chunks(batch_size) {
        data.batch(indices.iter().copied(), &normalisation, &mut pixels);
        let logits = runner.logits(&pixels, indices.len(), size)?;
        for (logits, &index) in logits.chunks_exact(runner.outputs()).zip(indices) {
            metrics.add(logits, data.labels()[index] as usize);
            each(index, logits);
        }
        count += indices.len();
        done(count);
    }
    Ok(metrics)
}
