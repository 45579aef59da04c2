//! The loop of a run.

use super::{Agreed, Trainer};
use crate::checkpoint::Content;
use crate::error::{Result, TrainError};
use crate::event::finite;
use crate::progress::{Progress, Tally};
use crate::ranks::together;
use crate::{
    Batch, Ema, EpochReport, Event, Outcome, StepReport, StopFlag, Validation, flat, kept, validate,
};
use candle_core::{Device, Tensor};
use ror_weights::Weights;
use std::collections::BTreeMap;
use std::time::Instant;

impl Trainer {
    /// Trains until all epochs are done, or until the [stop flag](Trainer::stop_flag) is set.
    ///
    /// # Errors
    /// A loss, a gradient or weights that are not finite; a folder that cannot be written. The
    /// last checkpoint stays. Another rank that has failed.
    pub fn run(&mut self) -> Result<Outcome> {
        self.agreed = Agreed::default();
        let mut clock = Clock::start(&self.progress);
        while self.progress.epoch < self.config.training.epochs {
            if !self.epoch(&mut clock)? || !self.close_epoch(&clock)? {
                self.pause(&mut clock)?;
                return Ok(Outcome::Stopped {
                    step: self.progress.step,
                });
            }
            self.pause(&mut clock)?;
        }
        Ok(Outcome::Finished)
    }

    /// The steps of an epoch; whether all of them were done.
    fn epoch(&mut self, clock: &mut Clock) -> Result<bool> {
        let (epoch, batches) = (self.progress.epoch, self.loader.batches());
        self.callbacks.tell(&Event::EpochStarted {
            epoch: epoch + 1,
            epochs: self.config.training.epochs,
            batch: self.progress.batch,
            batches,
        });
        clock.lap();
        let mut loaded = self.loader.epoch(epoch, self.progress.batch)?;
        while self.progress.batch < batches {
            if self.asked_to_stop() {
                return Ok(false);
            }
            let batch = loaded.next().unwrap_or_else(|| {
                let text = "the threads that prepare batches ended early";
                Err(TrainError::Data(text.to_owned()))
            });
            self.train_on(batch, clock)?;
            if self.agreed.checkpoint {
                self.pause(clock)?;
            }
        }
        Ok(true)
    }

    fn train_on(&mut self, batch: Result<Batch>, clock: &mut Clock) -> Result<()> {
        let old = clock.since_checkpoint.elapsed().as_secs_f64();
        let figures = self.compute(batch, old >= self.config.training.checkpoint_seconds)?;
        let progress = &mut self.progress;
        let lr = self.schedule.lr(progress.step);
        let at = (progress.step + 1, progress.epoch + 1, lr);
        finite("loss", figures.loss, at)?;
        let norm = self.optimizer.step(&self.parameters, &self.gradients, lr)?;
        finite("norm of the gradients", norm, at)?;
        if let Some(ema) = &mut self.ema {
            ema.update(&self.parameters)?;
        }
        progress
            .tally
            .add(figures.images, figures.right, figures.loss, clock.lap());
        progress.step += 1;
        progress.batch += 1;
        let report = StepReport {
            epoch: progress.epoch + 1,
            batch: progress.batch,
            step: progress.step,
            images: figures.images,
            loss: figures.loss,
            epoch_loss: progress.tally.loss(),
            epoch_top1: progress.tally.top1(),
            images_per_second: progress.tally.images_per_second(),
            lr,
            gradient_norm: norm,
        };
        if let Some(output) = &mut self.output {
            output.step(&report)?;
        }
        self.callbacks.tell(&Event::Step(&report));
        Ok(())
    }

    /// Validates, keeps the best weights, writes the logs; whether it was not asked to stop.
    fn close_epoch(&mut self, clock: &Clock) -> Result<bool> {
        let config = &self.config.training;
        let epoch = self.progress.epoch + 1;
        let due = epoch.is_multiple_of(config.val_every) || epoch == config.epochs;
        // What is validated and kept is the average, if there is one.
        if let Some(ema) = &mut self.ema {
            ema.swap(&self.parameters)?;
        }
        let closed = self.measure(due).and_then(|validation| match validation {
            None => Ok(None),
            Some(validation) => self.record(epoch, validation, due, clock).map(Some),
        });
        if let Some(ema) = &mut self.ema {
            ema.swap(&self.parameters)?;
        }
        let Some(best) = closed? else {
            return Ok(false);
        };
        self.progress.epoch = epoch;
        self.progress.batch = 0;
        self.progress.tally = Tally::default();
        if let Some(report) = self.progress.history.last() {
            self.callbacks.tell(&Event::EpochFinished { report, best });
        }
        Ok(true)
    }

    /// The validation, if one is due; nothing at all if it was asked to stop.
    fn measure(&mut self, due: bool) -> Result<Option<Option<Validation>>> {
        let Some(images) = self.validation.as_ref().filter(|_| due) else {
            return Ok(Some(None));
        };
        let images = images.share(&*self.ranks);
        let (config, total) = (&self.config.training, images.len());
        let callbacks = &mut self.callbacks;
        // Ranks stop together, after a step.
        let stop = match self.ranks.size() {
            1 => self.stop.clone(),
            _ => StopFlag::default(),
        };
        let metrics = validate::validate(
            &mut *self.engine,
            &images,
            &config.normalise,
            config.val_batch_size,
            &stop,
            |done| callbacks.tell(&Event::Validating { done, total }),
        );
        let classes = images.data().classes();
        let Some(mut metrics) = together(&*self.ranks, metrics)? else {
            return Ok(None);
        };
        metrics.sum(&*self.ranks);
        let e = metrics.evaluation(classes);
        self.callbacks.tell(&Event::Validated { metrics: &metrics });
        finite("validation loss", e.loss, self.at())?;
        Ok(Some(Some(Validation {
            top1: e.top1,
            top5: e.top5,
            loss: e.loss,
        })))
    }

    /// Writes down what the epoch gave; whether its weights are the best so far.
    fn record(
        &mut self,
        epoch: u64,
        validation: Option<Validation>,
        due: bool,
        clock: &Clock,
    ) -> Result<bool> {
        let best = due && self.progress.improves(validation.as_ref());
        self.progress.history.push(EpochReport {
            epoch,
            step: self.progress.step,
            lr: self.schedule.lr(self.progress.step.saturating_sub(1)),
            train_loss: self.progress.tally.loss(),
            train_top1: self.progress.tally.top1(),
            validation,
            images_per_second: self.progress.tally.images_per_second(),
            seconds: clock.total(),
        });
        if best {
            self.progress.best = Some(epoch);
        }
        let weights = if best && self.output.is_some() {
            self.parameters_are_finite()?;
            Some(self.kept(self.tensors(), self.progress.best())?)
        } else {
            None
        };
        if let Some(output) = &mut self.output {
            if let Some(weights) = &weights {
                output.best(weights)?;
            }
            output.epoch(&self.progress.history)?;
        }
        Ok(best)
    }

    /// Saves a checkpoint; the time that it takes is nobody's step.
    fn pause(&mut self, clock: &mut Clock) -> Result<()> {
        self.progress.seconds = clock.total();
        self.agree_on_weights()?;
        let saved = self.checkpoint();
        together(&*self.ranks, saved)?;
        clock.since_checkpoint = Instant::now();
        clock.lap();
        Ok(())
    }

    pub(super) fn checkpoint(&mut self) -> Result<()> {
        if self.output.is_none() {
            return Ok(());
        }
        self.parameters_are_finite()?;
        // What is known of the best weights is not known of these.
        let weights = self.kept(self.tensors(), None)?;
        let ema = match &self.ema {
            Some(ema) => Some((self.kept(self.averages(ema)?, None)?, ema.steps())),
            None => None,
        };
        if let Some(output) = &mut self.output {
            let path = output.checkpoint(&Content {
                weights: &weights,
                optimizer: &self.optimizer,
                ema: ema.as_ref().map(|(weights, steps)| (weights, *steps)),
                progress: &self.progress,
                data: &self.stamp,
            })?;
            self.callbacks.tell(&Event::CheckpointSaved { path: &path });
        }
        Ok(())
    }

    /// Bad weights never take the place of good ones.
    fn parameters_are_finite(&self) -> Result<()> {
        for (_, _, var) in self.parameters.iter() {
            let bad = flat::read(var, |w| w.iter().copied().find(|w| !w.is_finite()))?;
            if let Some(bad) = bad {
                finite("weights", f64::from(bad), self.at())?;
            }
        }
        Ok(())
    }

    /// Step, epoch and learning rate of the last step.
    fn at(&self) -> (u64, u64, f64) {
        let Progress { step, epoch, .. } = self.progress;
        (step, epoch + 1, self.schedule.lr(step.saturating_sub(1)))
    }

    fn kept(
        &self,
        tensors: BTreeMap<String, Tensor>,
        measured: Option<&EpochReport>,
    ) -> Result<Weights> {
        let data = self.loader.subset().data();
        let name = &data.provenance().name;
        kept::weights(&self.config, data.classes(), name, measured, tensors)
    }

    /// The present weights.
    fn tensors(&self) -> BTreeMap<String, Tensor> {
        let all = self.parameters.iter();
        all.map(|(name, _, var)| (name.to_owned(), var.as_detached_tensor()))
            .collect()
    }

    fn averages(&self, ema: &Ema) -> Result<BTreeMap<String, Tensor>> {
        let all = self.parameters.iter().zip(ema.average());
        all.map(|((_, _, var), (name, values))| {
            let tensor = Tensor::from_slice(values, var.shape(), &Device::Cpu)?;
            Ok((name.clone(), tensor))
        })
        .collect()
    }
}

/// What the clock says beside the time of day.
struct Clock {
    before: f64,
    started: Instant,
    last: Instant,
    since_checkpoint: Instant,
}

impl Clock {
    fn start(progress: &Progress) -> Self {
        let now = Instant::now();
        Self {
            before: progress.seconds,
            started: now,
            last: now,
            since_checkpoint: now,
        }
    }

    /// Seconds since the last lap.
    fn lap(&mut self) -> f64 {
        let last = std::mem::replace(&mut self.last, Instant::now());
        (self.last - last).as_secs_f64()
    }

    /// Seconds of the whole run.
    fn total(&self) -> f64 {
        self.before + self.started.elapsed().as_secs_f64()
    }
}
