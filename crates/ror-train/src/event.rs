//! What a run tells while it goes on, and how it is asked to stop.

use crate::{EpochReport, Metrics, TrainError};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Something that happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// An epoch begins, or goes on after a resume.
    EpochStarted {
        /// The epoch, counted from 1.
        epoch: u64,
        /// Of how many.
        epochs: u64,
        /// Batches that are done already.
        batch: u64,
        /// Batches of an epoch.
        batches: u64,
    },
    /// A step was taken.
    Step(&'a StepReport),
    /// Images were validated.
    Validating {
        /// So many.
        done: usize,
        /// Of so many.
        total: usize,
    },
    /// All validation images are counted.
    Validated {
        /// The counts: accuracy, loss, the confusion of classes.
        metrics: &'a Metrics,
    },
    /// An epoch is finished.
    EpochFinished {
        /// Its figures.
        report: &'a EpochReport,
        /// Whether its weights are the best so far.
        best: bool,
    },
    /// A checkpoint is on the disk.
    CheckpointSaved {
        /// Its folder.
        path: &'a Path,
    },
}

/// The figures of one step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReport {
    /// The epoch, counted from 1.
    pub epoch: u64,
    /// Batches of the epoch that are done.
    pub batch: u64,
    /// Steps of the run that are done.
    pub step: u64,
    /// Images of the batch.
    pub images: usize,
    /// The batch's mean loss, in nats.
    pub loss: f64,
    /// Mean loss over the epoch so far.
    pub epoch_loss: f64,
    /// Accuracy over the epoch so far, a fraction of 1.
    pub epoch_top1: f64,
    /// Images per second over the epoch so far.
    pub images_per_second: f64,
    /// The learning rate.
    pub lr: f64,
    /// The norm of all gradients, before clipping.
    pub gradient_norm: f64,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// All epochs are done.
    Finished,
    /// It was asked to stop, and saved a checkpoint if it has a folder.
    Stopped {
        /// Steps that are done.
        step: u64,
    },
}

/// Asks a run to stop after the present step; may be kept by other threads and signal handlers.
#[derive(Debug, Clone, Default)]
pub struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    /// Asks.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether somebody asked.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

type Callback = Box<dyn FnMut(&Event<'_>) + Send>;

/// Those who listen.
#[derive(Default)]
pub(crate) struct Callbacks(Vec<Callback>);

impl Callbacks {
    pub(crate) fn add(&mut self, callback: Callback) {
        self.0.push(callback);
    }

    pub(crate) fn tell(&mut self, event: &Event<'_>) {
        for callback in &mut self.0 {
            callback(event);
        }
    }
}

impl fmt::Debug for Callbacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} callbacks", self.0.len())
    }
}

/// Refuses a number that is none.
pub(crate) fn finite(
    what: &'static str,
    value: f64,
    (step, epoch, lr): (u64, u64, f64),
) -> Result<(), TrainError> {
    if value.is_finite() {
        return Ok(());
    }
    Err(TrainError::NotFinite {
        what,
        value,
        step,
        epoch,
        lr,
    })
}
