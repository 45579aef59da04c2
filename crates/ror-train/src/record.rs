//! A run, as its folder tells it.

use crate::checkpoint::{DataStamp, Stamp};
use crate::error::Result;
use crate::output::BEST;
use crate::progress::Progress;
use crate::{EpochReport, RunConfig, Subset, TrainingData, checkpoint};
use std::path::{Path, PathBuf};

/// What is known about a run from its folder, finished or not.
#[derive(Debug, Clone)]
pub struct RunRecord {
    /// Its settings.
    pub config: RunConfig,
    /// Where its best weights are, if an epoch was finished.
    pub weights: PathBuf,
    folder: PathBuf,
    progress: Progress,
    data: DataStamp,
}

impl RunRecord {
    /// Reads the configuration and the last checkpoint's figures. Changes nothing; the run may go
    /// on meanwhile.
    ///
    /// # Errors
    /// A folder without a run, a damaged file.
    pub fn read(folder: &Path) -> Result<Self> {
        let (progress, data) = checkpoint::progress(folder)?;
        Ok(Self {
            config: RunConfig::read(folder)?,
            weights: folder.join(BEST),
            folder: folder.to_owned(),
            progress,
            data,
        })
    }

    /// Whether these are the images that the run began with.
    ///
    /// # Errors
    /// Others, or another share of them held out.
    pub fn check_data(&self, data: &TrainingData) -> Result<()> {
        let found = DataStamp::of(&data.train, data.validation.as_ref());
        checkpoint::check_data(&self.folder, &self.data, &found)
    }

    /// Whether these are the images on which the run is validated.
    ///
    /// # Errors
    /// Others, or a run that is validated on none.
    pub fn check_validation(&self, images: &Subset) -> Result<()> {
        let found = DataStamp {
            validation: Some(Stamp::of(images)),
            ..self.data.clone()
        };
        checkpoint::check_data(&self.folder, &self.data, &found)
    }

    /// The epochs that are done.
    pub fn history(&self) -> &[EpochReport] {
        &self.progress.history
    }

    /// The epoch whose weights are kept as the best.
    pub fn best(&self) -> Option<&EpochReport> {
        self.progress.best()
    }

    /// Training images per second over all epochs, if one is done.
    pub fn images_per_second(&self) -> Option<f64> {
        // Every epoch has the same images.
        let seconds: f64 = self
            .history()
            .iter()
            .map(|report| 1.0 / report.images_per_second)
            .sum();
        (seconds > 0.0).then(|| self.history().len() as f64 / seconds)
    }

    /// Whether all epochs are done.
    pub fn is_finished(&self) -> bool {
        self.progress.epoch >= self.config.training.epochs
    }
}
