//! What is seen of a run while it goes on: a bar for each epoch, on terminals only, and a line for
//! each that is finished.

use crate::output::{note, percent};
use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use ror_train::{EpochReport, Event};
use std::time::Duration;

/// Shows the events of a run.
pub(crate) struct Show {
    bar: ProgressBar,
    epoch: u64,
    epochs: u64,
    batches: u64,
    images: usize,
}

impl Show {
    /// A run on so many images.
    pub(crate) fn new(images: usize) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{prefix} {wide_bar} {msg}") {
            bar.set_style(style);
        }
        Self {
            bar,
            epoch: 0,
            epochs: 0,
            batches: 0,
            images,
        }
    }

    pub(crate) fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::EpochStarted {
                epoch,
                epochs,
                batch,
                batches,
            } => {
                (self.epoch, self.epochs, self.batches) = (*epoch, *epochs, *batches);
                self.bar.reset();
                self.bar.set_length(*batches);
                self.bar.set_position(*batch);
                self.bar.set_prefix(format!("epoch {epoch}/{epochs}"));
            }
            Event::Step(step) => {
                self.bar.set_position(step.batch);
                let left = self.seconds_left(step.batch, step.images_per_second);
                self.bar.set_message(format!(
                    "{:.0} img/s  loss {:.4}  top-1 {}  lr {:.2e}  {} left",
                    step.images_per_second,
                    step.epoch_loss,
                    percent(step.epoch_top1),
                    step.lr,
                    HumanDuration(left)
                ));
            }
            Event::Validating { done, total } => {
                self.bar.set_length(*total as u64);
                self.bar.set_position(*done as u64);
                self.bar.set_message("validation");
            }
            Event::EpochFinished { report, best } => {
                let line = self.line(report, *best);
                self.bar.suspend(|| note(&line));
            }
            _ => {}
        }
    }

    /// Without the validations, whose speed is not known.
    fn seconds_left(&self, batch: u64, images_per_second: f64) -> Duration {
        let epochs = self.epochs.saturating_sub(self.epoch) as f64;
        let share = 1.0 - batch as f64 / self.batches.max(1) as f64;
        let images = (epochs + share) * self.images as f64;
        Duration::try_from_secs_f64((images / images_per_second).round()).unwrap_or_default()
    }

    fn line(&self, report: &EpochReport, best: bool) -> String {
        let mut line = format!(
            "epoch {:>width$}/{}  loss {:.4}  top-1 {:>7}",
            report.epoch,
            self.epochs,
            report.train_loss,
            percent(report.train_top1),
            width = self.epochs.to_string().len(),
        );
        if let Some(v) = &report.validation {
            line += &format!(
                "  |  validation: loss {:.4}  top-1 {:>7}{}",
                v.loss,
                percent(v.top1),
                if best { " (best)" } else { "" }
            );
        }
        line + &format!(
            "  |  lr {:.2e}  {:.0} img/s",
            report.lr, report.images_per_second
        )
    }
}

impl Drop for Show {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
