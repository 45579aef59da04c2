//! A run that goes on from its last checkpoint.

use super::Trainer;
use crate::checkpoint;
use crate::error::{Result, TrainError};
use crate::output::{self, Output};
use crate::ranks::together;
use crate::{Alone, Ranks, RunConfig, TrainingData};
use ror_models::Network;
use std::fs::File;
use std::path::Path;

impl Trainer {
    /// Goes on with the run in a folder from its last checkpoint.
    ///
    /// # Errors
    /// A folder without a run, a damaged checkpoint, other data than the run began with.
    pub fn resume(folder: &Path, data: TrainingData) -> Result<Self> {
        Self::resume_on(Box::new(Alone), folder, data)
    }

    /// As [`Trainer::resume`], for one rank of several, whose number need not be that which the run began with.
    /// All of them read the folder.
    ///
    /// # Errors
    /// As [`Trainer::resume`] and [`Trainer::on`].
    pub fn resume_on(ranks: Box<dyn Ranks>, folder: &Path, data: TrainingData) -> Result<Self> {
        // The others read when the first has made sure that the checkpoint is whole.
        let lock = match ranks.rank() {
            0 => Self::take(folder).map(Some),
            _ => Ok(None),
        };
        let lock = together(&*ranks, lock)?;
        let restored = Self::restore(folder, data, &*ranks, lock);
        let mut trainer = together(&*ranks, restored)?;
        trainer.ranks = ranks;
        trainer.agree()?;
        Ok(trainer)
    }

    fn take(folder: &Path) -> Result<File> {
        RunConfig::read(folder)?;
        let lock = output::lock(folder)?;
        checkpoint::recover(folder)?;
        Ok(lock)
    }

    /// With a lock, what writes into the folder.
    fn restore(
        folder: &Path,
        data: TrainingData,
        ranks: &dyn Ranks,
        lock: Option<File>,
    ) -> Result<Self> {
        let config = RunConfig::read(folder)?;
        let network = Network::new(&config.description)?;
        let restored = checkpoint::load(&checkpoint::last(folder), &network)?;
        let parameters = restored.parameters;
        let mut trainer = Self::make(&network, parameters, config.training.clone(), data, ranks)?;
        checkpoint::check_data(folder, &restored.data, &trainer.stamp)?;
        trainer.optimizer.restore(restored.optimizer)?;
        match (&mut trainer.ema, restored.ema) {
            (Some(ema), Some((steps, average))) => ema.restore(steps, average)?,
            (None, None) => {}
            _ => {
                let text = "the checkpoint and the configuration disagree about a moving average";
                return Err(TrainError::Config(text.to_owned()));
            }
        }
        let (progress, batches) = (&restored.progress, trainer.loader.batches());
        let steps = progress.epoch.checked_mul(batches);
        let steps = steps.and_then(|steps| steps.checked_add(progress.batch));
        if progress.batch > batches
            || steps != Some(progress.step)
            || progress.history.len() as u64 != progress.epoch
        {
            return Err(TrainError::Config(format!(
                "the checkpoint is at step {} (epoch {}, batch {}), which no run with {batches} batches an epoch \
                 reaches: do the settings stand as the run began with them?",
                progress.step, progress.epoch, progress.batch
            )));
        }
        trainer.progress = restored.progress;
        trainer.config = config;
        if let Some(lock) = lock {
            trainer.output = Some(Output::open(folder, &trainer.progress, lock)?);
        }
        Ok(trainer)
    }
}
