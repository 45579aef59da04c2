//! A bar for work that takes longer than a second, on terminals only.

use crate::output;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Progress of one piece of work; may be told of it from several threads.
pub(crate) struct Progress {
    what: &'static str,
    since: Instant,
    bar: OnceLock<ProgressBar>,
}

impl Progress {
    /// Begins work on `what`, a plural such as "images".
    pub(crate) fn new(what: &'static str) -> Self {
        Self {
            what,
            since: Instant::now(),
            bar: OnceLock::new(),
        }
    }

    /// `done` of `total` are finished.
    pub(crate) fn set(&self, done: usize, total: usize) {
        if output::quiet() || self.since.elapsed() < Duration::from_secs(1) {
            return;
        }
        let bar = self.bar.get_or_init(|| {
            let bar =
                ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template(
                "{wide_bar} {human_pos}/{human_len} {msg}, {per_sec}, {eta} left",
            );
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_message(self.what);
            bar.set_elapsed(self.since.elapsed());
            bar
        });
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.get() {
            bar.finish_and_clear();
        }
    }
}
