//! Everything that a run can be told, as plain data.

use crate::error::{Result, TrainError};
use crate::{OptimizerConfig, OptimizerKind, ScheduleConfig, ScheduleKind};
use ror_data::{Augment, Normalisation, Size};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// How to train. Saved with every run; the same settings, data and number of threads give the same
/// weights.
///
/// ```
/// use ror_train::{Recipe, TrainConfig};
///
/// let config = TrainConfig { epochs: 40, ..Recipe::Paper.config() };
/// let text = config.to_toml()?;
/// assert_eq!(TrainConfig::from_toml(&text)?, config);
/// # Ok::<(), ror_train::TrainError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TrainConfig {
    /// How often every image is seen.
    pub epochs: u64,
    /// Images per step. The last step of an epoch has what is left.
    pub batch_size: usize,
    /// The largest learning rate.
    pub lr: f64,
    /// The share of the target that is spread over all classes (Szegedy et al., 2016).
    pub label_smoothing: f64,
    /// Mixup: the alpha of the Beta distribution of the mixing weight (Zhang et al., 2018); 0
    /// without. At most 8.
    pub mixup: f64,
    /// The decay of the weights' moving average, which is then what is validated and kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ema: Option<f64>,
    /// Validates after every so many epochs, and after the last.
    pub val_every: u64,
    /// Images per step in validation.
    pub val_batch_size: usize,
    /// Saves a checkpoint within an epoch when the last is so many seconds old.
    pub checkpoint_seconds: f64,
    /// Threads that prepare batches. Their number changes nothing but speed.
    pub workers: usize,
    /// What order, augmentation, dropout and initial weights follow from. Below 2^63.
    pub seed: u64,
    /// Whether batch normalisations take the statistics of all ranks' images, not of each rank's own. Changes
    /// nothing on a single rank.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sync_batch_norm: bool,
    /// How weights follow gradients.
    pub optimizer: OptimizerConfig,
    /// How the learning rate changes.
    pub schedule: ScheduleConfig,
    /// How training images are changed.
    pub augment: Augment,
    /// How pixels become inputs.
    pub normalise: Normalisation,
}

impl Default for TrainConfig {
    /// [`Recipe::Fast`].
    fn default() -> Self {
        Recipe::Fast.config()
    }
}

impl TrainConfig {
    /// Reads settings; those that the text leaves out are the defaults.
    ///
    /// # Errors
    /// As [`TrainConfig::with`].
    pub fn from_toml(text: &str) -> Result<Self> {
        let settings = text.parse().map_err(|e: toml::de::Error| invalid(e))?;
        Self::default().with(settings)
    }

    /// These settings, with those of a table in their place.
    ///
    /// # Errors
    /// An unknown key, a value that cannot be.
    pub fn with(&self, settings: toml::Table) -> Result<Self> {
        let mut all = toml::Table::try_from(self).map_err(invalid)?;
        overlay(&mut all, settings);
        let config: Self = all.try_into().map_err(invalid)?;
        config.validate()?;
        Ok(config)
    }

    /// Writes every setting.
    ///
    /// # Errors
    /// A seed of 2^63 or more, for which TOML has no number.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(invalid)
    }

    /// Checks every number.
    ///
    /// # Errors
    /// The first setting that is out of its range.
    pub fn validate(&self) -> Result<()> {
        let error = |text: String| Err(TrainError::Config(text));
        for (name, value) in [
            ("epochs", self.epochs),
            ("batch-size", self.batch_size as u64),
            ("val-every", self.val_every),
            ("val-batch-size", self.val_batch_size as u64),
            ("workers", self.workers as u64),
        ] {
            if value == 0 || value > 1 << 32 {
                return error(format!("{name} is {value}; allowed: 1 to 2^32"));
            }
        }
        if self.workers > 256 {
            return error(format!("workers is {}; allowed: 1 to 256", self.workers));
        }
        if i64::try_from(self.seed).is_err() {
            return error(format!("seed is {}; it must be below 2^63", self.seed));
        }
        if !(self.lr.is_finite() && self.lr > 0.0) {
            return error(format!("lr is {}; it must be above 0", self.lr));
        }
        if !(0.0..1.0).contains(&self.label_smoothing) {
            let found = self.label_smoothing;
            return error(format!("label-smoothing is {found}; allowed: 0 to below 1"));
        }
        if !(0.0..=8.0).contains(&self.mixup) {
            return error(format!("mixup is {}; allowed: 0 to 8", self.mixup));
        }
        if let Some(ema) = self.ema.filter(|ema| !(0.0..1.0).contains(ema)) {
            return error(format!("ema is {ema}; allowed: 0 to below 1"));
        }
        if !(self.checkpoint_seconds.is_finite() && self.checkpoint_seconds >= 0.0) {
            let found = self.checkpoint_seconds;
            return error(format!(
                "checkpoint-seconds is {found}; it must not be negative"
            ));
        }
        self.optimizer.validate()?;
        self.schedule.validate(self.epochs)
    }

    pub(crate) fn validate_for(&self, size: Size) -> Result<()> {
        self.validate()?;
        self.augment.validate(size).map_err(TrainError::Config)
    }
}

fn invalid(error: impl fmt::Display) -> TrainError {
    TrainError::Config(error.to_string().trim_end().to_owned())
}

/// Puts settings over others: a table joins the table that is there, everything else takes the
/// place of what is there.
pub fn overlay(base: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(toml::Value::Table(base)), toml::Value::Table(over)) => overlay(base, over),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// Known ways to train.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Recipe {
    /// As the Keras implementation of RoR: Adam at 1e-3, batches of 64, 100 epochs, rotations and
    /// shifts, pixels scaled to 0..1.
    Keras,
    /// As the paper (section 4): Nesterov's momentum of 0.9, weight decay 1e-4, batches of 128, 500
    /// epochs, a learning rate of 0.1 that is divided by 10 at half and at three quarters; crops
    /// and flips. (For SVHN the paper takes 50 epochs and milestones at 0.6 and 0.7.)
    Paper,
    /// The most accuracy in few epochs: one cycle of Nesterov's momentum.
    Fast,
}

impl Recipe {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Keras, Self::Paper, Self::Fast];

    /// The recipe's settings.
    pub fn config(self) -> TrainConfig {
        let paper = TrainConfig {
            epochs: 500,
            batch_size: 128,
            lr: 0.1,
            label_smoothing: 0.0,
            mixup: 0.0,
            ema: None,
            val_every: 1,
            val_batch_size: 128,
            checkpoint_seconds: 300.0,
            workers: 1,
            seed: 1,
            sync_batch_norm: false,
            optimizer: OptimizerConfig {
                weight_decay: 1e-4,
                ..OptimizerConfig::default()
            },
            schedule: ScheduleConfig {
                kind: ScheduleKind::Step,
                ..ScheduleConfig::default()
            },
            augment: Augment::PAPER,
            normalise: Normalisation::cifar10(),
        };
        match self {
            Self::Paper => paper,
            Self::Keras => TrainConfig {
                epochs: 100,
                batch_size: 64,
                lr: 1e-3,
                optimizer: OptimizerConfig {
                    kind: OptimizerKind::Adam,
                    epsilon: 1e-8,
                    keras_epsilon: true,
                    ..OptimizerConfig::default()
                },
                schedule: ScheduleConfig::default(),
                augment: Augment::KERAS,
                normalise: Normalisation::unit(),
                ..paper
            },
            Self::Fast => TrainConfig {
                epochs: 15,
                lr: 0.2,
                optimizer: OptimizerConfig {
                    weight_decay: 5e-4,
                    ..OptimizerConfig::default()
                },
                schedule: ScheduleConfig {
                    kind: ScheduleKind::OneCycle,
                    ..ScheduleConfig::default()
                },
                ..paper
            },
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Keras => "keras",
            Self::Paper => "paper",
            Self::Fast => "fast",
        }
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Recipe {
    type Err = TrainError;

    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|recipe| recipe.name() == name);
        found.ok_or_else(|| {
            TrainError::Config(format!(
                "no recipe `{name}`; there are keras, paper and fast"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recipe_is_valid_and_survives_toml() {
        for recipe in Recipe::ALL {
            let config = recipe.config();
            config.validate_for(Size::CIFAR).unwrap();
            let text = config.to_toml().unwrap();
            assert_eq!(TrainConfig::from_toml(&text).unwrap(), config);
            assert_eq!(recipe.name().parse::<Recipe>().unwrap(), recipe);
        }
    }

    #[test]
    fn a_misspelt_key_is_named() {
        let error = TrainConfig::from_toml("epoch = 3").unwrap_err().to_string();
        assert!(error.contains("epoch"), "{error}");
    }

    #[test]
    fn settings_left_out_are_the_recipes_also_within_a_table() {
        let settings = "lr = 0.5\n[optimizer]\nmomentum = 0.8".parse().unwrap();
        let config = Recipe::Paper.config().with(settings).unwrap();
        let mut expected = Recipe::Paper.config();
        expected.lr = 0.5;
        expected.optimizer.momentum = 0.8;
        assert_eq!(config, expected);
    }

    #[test]
    fn numbers_out_of_range_are_named() {
        for (text, word) in [
            ("epochs = 0", "epochs"),
            ("lr = -1.0", "lr"),
            ("mixup = nan", "mixup"),
            ("ema = 1.0", "ema"),
            ("label-smoothing = 1.0", "label-smoothing"),
            ("workers = 1000", "workers"),
            ("[schedule]\nmilestones = [250.0]", "milestone"),
            ("[schedule]\nwarmup = 100.0", "warmup"),
            ("[optimizer]\nmomentum = 1.5", "momentum"),
            (
                "[normalise]\nmean = [0, 0, 0]\nstd = [0, 1, 1]",
                "deviations",
            ),
        ] {
            let error = TrainConfig::from_toml(text).unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
