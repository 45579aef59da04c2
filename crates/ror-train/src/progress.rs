//! How far a run is, and what it has seen on the way.

use serde::{Deserialize, Serialize};

/// The position in a run and its figures so far: all that a checkpoint needs beside arrays.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Epochs finished, validation included.
    pub(crate) epoch: u64,
    /// Batches of the present epoch that are done.
    pub(crate) batch: u64,
    /// Steps of the whole run.
    pub(crate) step: u64,
    /// Figures of the present epoch.
    pub(crate) tally: Tally,
    /// Time spent on the run, over all its parts.
    pub(crate) seconds: f64,
    /// Finished epochs.
    pub(crate) history: Vec<EpochReport>,
    /// The epoch of the weights that are kept as the best.
    pub(crate) best: Option<u64>,
}

/// Sums over the training images of an epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Tally {
    images: u64,
    right: u64,
    loss: f64,
    seconds: f64,
}

impl Tally {
    pub(crate) fn add(&mut self, images: usize, right: u64, mean_loss: f64, seconds: f64) {
        self.images += images as u64;
        self.right += right;
        self.loss += mean_loss * images as f64;
        self.seconds += seconds;
    }

    pub(crate) fn loss(&self) -> f64 {
        self.loss / self.images.max(1) as f64
    }

    pub(crate) fn top1(&self) -> f64 {
        self.right as f64 / self.images.max(1) as f64
    }

    pub(crate) fn images_per_second(&self) -> f64 {
        self.images as f64 / self.seconds.max(1e-9)
    }
}

/// The figures of one epoch; fractions of 1, losses in nats.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochReport {
    /// The epoch, counted from 1.
    pub epoch: u64,
    /// Steps of the run so far.
    pub step: u64,
    /// The learning rate of the last step.
    pub lr: f64,
    /// Mean loss over the training images, each as the weights were when it came.
    pub train_loss: f64,
    /// Accuracy over the training images, likewise.
    pub train_top1: f64,
    /// The validation, if there was one after this epoch.
    pub validation: Option<Validation>,
    /// Training images per second.
    pub images_per_second: f64,
    /// Time spent on the run so far.
    pub seconds: f64,
}

/// The figures of a validation; fractions of 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// Accuracy.
    pub top1: f64,
    /// The share of images whose class is among the five likeliest.
    pub top5: f64,
    /// Mean cross-entropy in nats.
    pub loss: f64,
}

impl Progress {
    /// The report of the epoch whose weights are kept as the best.
    pub(crate) fn best(&self) -> Option<&EpochReport> {
        let best = self.best?;
        self.history.iter().find(|report| report.epoch == best)
    }

    /// Whether weights with this report are better than the best so far: by accuracy, then by loss.
    /// Without a validation later weights are better.
    pub(crate) fn improves(&self, validation: Option<&Validation>) -> bool {
        let best = self.best().and_then(|report| report.validation.as_ref());
        match (validation, best) {
            (Some(new), Some(old)) => (new.top1, -new.loss) > (old.top1, -old.loss),
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn better_is_more_accurate_then_of_less_loss() {
        let validation = |top1, loss| Validation {
            top1,
            top5: 1.0,
            loss,
        };
        let mut progress = Progress::default();
        assert!(progress.improves(Some(&validation(0.0, 9.0))));
        progress.best = Some(1);
        progress.history.push(EpochReport {
            epoch: 1,
            step: 1,
            lr: 0.1,
            train_loss: 1.0,
            train_top1: 0.5,
            validation: Some(validation(0.5, 1.0)),
            images_per_second: 1.0,
            seconds: 1.0,
        });
        assert!(progress.improves(Some(&validation(0.6, 2.0))));
        assert!(progress.improves(Some(&validation(0.5, 0.9))));
        assert!(!progress.improves(Some(&validation(0.5, 1.0))));
        assert!(!progress.improves(Some(&validation(0.4, 0.1))));
    }

    #[test]
    fn a_tally_is_weighted_by_images() {
        let mut tally = Tally::default();
        tally.add(3, 3, 1.0, 0.5);
        tally.add(1, 0, 5.0, 1.5);
        assert_eq!((tally.loss(), tally.top1()), (2.0, 0.75));
        assert_eq!(tally.images_per_second(), 2.0);
    }

    #[test]
    fn progress_survives_json_to_the_bit() {
        let mut progress = Progress::default();
        progress.tally.add(3, 1, 0.1 + 0.2, 1.0 / 3.0);
        let text = serde_json::to_string(&progress).unwrap();
        let back: Progress = serde_json::from_str(&text).unwrap();
        assert_eq!(back.tally.loss.to_bits(), progress.tally.loss.to_bits());
        assert_eq!(back, progress);
    }
}
