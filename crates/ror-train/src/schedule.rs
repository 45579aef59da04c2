//! The learning rate of every step.

use crate::error::{Result, TrainError};
use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// How the learning rate goes from its largest value down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScheduleKind {
    /// It stays.
    Constant,
    /// Multiplied by `gamma` at each milestone.
    Step,
    /// Half a cosine down to zero (Loshchilov and Hutter, 2017, without restarts).
    Cosine,
    /// Up from a 25th in the warmup, or in the first 30 % without one, then down to almost nothing,
    /// each along half a cosine (Smith and Topin, 2018; PyTorch's `OneCycleLR`).
    OneCycle,
}

/// A schedule's constants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ScheduleConfig {
    /// Which schedule.
    pub kind: ScheduleKind,
    /// Step: when, as fractions of the run. The paper's 250 and 375 of 500 epochs are 0.5 and 0.75.
    pub milestones: Vec<f64>,
    /// Step: by what.
    pub gamma: f64,
    /// Epochs in which the learning rate rises from almost nothing to its value; may be a fraction.
    pub warmup: f64,
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self {
            kind: ScheduleKind::Constant,
            milestones: vec![0.5, 0.75],
            gamma: 0.1,
            warmup: 0.0,
        }
    }
}

impl ScheduleConfig {
    pub(crate) fn validate(&self, epochs: u64) -> Result<()> {
        let error = |text: String| Err(TrainError::Config(text));
        if let Some(m) = self.milestones.iter().find(|m| !(0.0..=1.0).contains(*m)) {
            return error(format!(
                "a milestone is {m}; milestones are fractions of the run, 0 to 1"
            ));
        }
        if !(self.gamma.is_finite() && self.gamma > 0.0) {
            return error(format!("gamma is {}; it must be above 0", self.gamma));
        }
        if !(0.0..=epochs as f64).contains(&self.warmup) {
            return error(format!(
                "warmup is {} epochs; allowed: 0 to the run's {epochs}",
                self.warmup
            ));
        }
        Ok(())
    }
}

/// A schedule for a run of known length.
///
/// ```
/// use ror_train::{Schedule, ScheduleConfig, ScheduleKind};
///
/// let config = ScheduleConfig { kind: ScheduleKind::Step, ..Default::default() };
/// let schedule = Schedule::new(config, 0.1, 500, 391);
/// assert_eq!(schedule.lr(0), 0.1);
/// assert!((schedule.lr(250 * 391) - 0.01).abs() < 1e-12);
/// ```
#[derive(Debug, Clone)]
pub struct Schedule {
    config: ScheduleConfig,
    lr: f64,
    total: f64,
    warmup: f64,
}

impl Schedule {
    /// The schedule of a run, whose largest learning rate is `lr`.
    pub fn new(config: ScheduleConfig, lr: f64, epochs: u64, steps_per_epoch: u64) -> Self {
        let warmup = (config.warmup * steps_per_epoch as f64).round();
        Self {
            config,
            lr,
            total: epochs as f64 * steps_per_epoch as f64,
            warmup,
        }
    }

    /// The learning rate of a step, counted from 0.
    pub fn lr(&self, step: u64) -> f64 {
        let at = step as f64;
        let warmup = ((at + 1.0) / self.warmup.max(1.0)).min(1.0);
        match self.config.kind {
            ScheduleKind::Constant => self.lr * warmup,
            ScheduleKind::Step => {
                let passed = self.config.milestones.iter();
                let passed = passed.filter(|&m| at >= (m * self.total).round()).count();
                self.lr * warmup * self.config.gamma.powi(passed as i32)
            }
            ScheduleKind::Cosine => {
                let share = (at / self.total.max(1.0)).min(1.0);
                self.lr * warmup * cosine(1.0, 0.0, share)
            }
            ScheduleKind::OneCycle => self.one_cycle(at),
        }
    }

    fn one_cycle(&self, at: f64) -> f64 {
        let first = self.lr / 25.0;
        let last = first / 1e4;
        let rise = if self.warmup > 0.0 {
            self.warmup
        } else {
            0.3 * self.total
        };
        let peak = (rise - 1.0).max(0.0);
        if at <= peak && peak > 0.0 {
            return cosine(first, self.lr, at / peak);
        }
        let share = (at - peak) / (self.total - 1.0 - peak).max(1.0);
        cosine(self.lr, last, share.min(1.0))
    }
}

/// Half a cosine from one value to another.
fn cosine(from: f64, to: f64, share: f64) -> f64 {
    to + (from - to) * 0.5 * (1.0 + libm::cos(PI * share))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn schedule(kind: ScheduleKind, warmup: f64) -> Schedule {
        let config = ScheduleConfig {
            kind,
            warmup,
            ..ScheduleConfig::default()
        };
        Schedule::new(config, 0.4, 4, 5)
    }

    #[test]
    fn rates_equal_those_of_pytorch() {
        let fixture = include_str!("../tests/fixtures/schedules.json");
        let expected: BTreeMap<String, Vec<f64>> = serde_json::from_str(fixture).unwrap();
        for (kind, name) in [
            (ScheduleKind::Step, "step"),
            (ScheduleKind::Cosine, "cosine"),
            (ScheduleKind::OneCycle, "one-cycle"),
        ] {
            let schedule = schedule(kind, 0.0);
            for (step, &expected) in expected[name].iter().enumerate() {
                let found = schedule.lr(step as u64);
                assert!(
                    (found - expected).abs() < 1e-12,
                    "{name}, step {step}: {found} {expected}"
                );
            }
        }
    }

    #[test]
    fn a_warmup_rises_in_equal_steps_to_the_rate() {
        let schedule = schedule(ScheduleKind::Constant, 2.0);
        for step in 0..20 {
            let expected = 0.4 * (f64::from(step + 1) / 10.0).min(1.0);
            assert!((schedule.lr(step as u64) - expected).abs() < 1e-12);
        }
    }

    #[test]
    fn one_cycle_peaks_where_its_warmup_ends() {
        let schedule = schedule(ScheduleKind::OneCycle, 2.0);
        let rates: Vec<f64> = (0..20).map(|step| schedule.lr(step)).collect();
        assert!((rates[9] - 0.4).abs() < 1e-12);
        assert!(rates[..10].is_sorted());
        assert!(rates[9..].iter().rev().is_sorted());
    }

    #[test]
    fn no_step_of_any_length_of_run_is_without_a_rate() {
        for (epochs, steps) in [(0, 0), (1, 1), (1, 2), (3, 1)] {
            for kind in [
                ScheduleKind::Constant,
                ScheduleKind::Step,
                ScheduleKind::Cosine,
                ScheduleKind::OneCycle,
            ] {
                let config = ScheduleConfig {
                    kind,
                    ..ScheduleConfig::default()
                };
                let schedule = Schedule::new(config, 0.1, epochs, steps);
                for step in 0..5 {
                    let lr = schedule.lr(step);
                    assert!((0.0..=0.1).contains(&lr), "{kind:?} {lr}");
                }
            }
        }
    }
}
