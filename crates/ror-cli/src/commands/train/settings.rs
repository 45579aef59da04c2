//! Flags that change how a network is trained.

use crate::normalise::NormaliseOption;
use anyhow::{Result, bail};
use clap::ValueEnum;
use ror_data::Augment;
use ror_train::{OptimizerKind, ScheduleKind, TrainConfig};

/// Every flag that is given takes the place of the recipe's or the file's setting.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Training")]
pub(crate) struct Settings {
    /// How often every image is seen
    #[arg(long, value_name = "N")]
    epochs: Option<u64>,
    /// Images per step, on all ranks together
    #[arg(long, value_name = "N")]
    batch_size: Option<usize>,
    /// Take batch normalisation's statistics over all ranks of an MPI job
    #[arg(long, value_name = "YES", num_args = 0..=1, default_missing_value = "true")]
    sync_batch_norm: Option<bool>,
    /// Optimiser
    #[arg(long, value_enum)]
    optimizer: Option<OptimizerArg>,
    /// Largest learning rate
    #[arg(long, value_name = "RATE")]
    lr: Option<f64>,
    /// How the learning rate goes down
    #[arg(long, value_enum)]
    schedule: Option<ScheduleArg>,
    /// When the step schedule divides, as fractions of the run, such as 0.5,0.75
    #[arg(long, value_name = "FRACTIONS", value_delimiter = ',')]
    milestones: Option<Vec<f64>>,
    /// What the step schedule multiplies by
    #[arg(long, value_name = "FACTOR")]
    gamma: Option<f64>,
    /// Epochs in which the learning rate rises to its value
    #[arg(long, value_name = "EPOCHS")]
    warmup: Option<f64>,
    /// Weight decay of kernels
    #[arg(long, value_name = "DECAY")]
    weight_decay: Option<f64>,
    /// Decay biases and batch normalisations too
    #[arg(long, value_name = "YES", num_args = 0..=1, default_missing_value = "true")]
    decay_all: Option<bool>,
    /// SGD's momentum
    #[arg(long, value_name = "SHARE")]
    momentum: Option<f64>,
    /// SGD's plain instead of Nesterov's momentum
    #[arg(long, value_name = "YES", num_args = 0..=1, default_missing_value = "true")]
    no_nesterov: Option<bool>,
    /// Adam's epsilon
    #[arg(long, value_name = "EPSILON")]
    epsilon: Option<f64>,
    /// Share of the target that is spread over all classes
    #[arg(long, value_name = "SHARE")]
    label_smoothing: Option<f64>,
    /// Mixup's alpha; 0 without
    #[arg(long, value_name = "ALPHA")]
    mixup: Option<f64>,
    /// Decay of a moving average of the weights; 0 without
    #[arg(long, value_name = "DECAY")]
    ema: Option<f64>,
    /// Scale gradients down to this norm; 0 without
    #[arg(long, value_name = "NORM")]
    clip_norm: Option<f64>,
    #[command(flatten)]
    augment: AugmentOptions,
    #[command(flatten)]
    normalise: NormaliseOption,
    /// What order, augmentation, dropout and first weights follow from; a run that goes on from
    /// another's weights (--init) sees images anew with another seed
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    /// Validate after every so many epochs
    #[arg(long, value_name = "EPOCHS")]
    val_every: Option<u64>,
    /// Save within an epoch when the last checkpoint is so old
    #[arg(long, value_name = "SECONDS")]
    checkpoint_seconds: Option<f64>,
    /// Threads that prepare batches
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
}

#[derive(Debug, Clone, clap::Args)]
struct AugmentOptions {
    /// Changes to training images; the flags below change single ones
    #[arg(long, value_enum)]
    augment: Option<AugmentArg>,
    /// Cut out a random region of at least this share of the picture, and scale it
    #[arg(long, value_name = "SHARE")]
    resized_crop: Option<f64>,
    /// Rotate by up to so many degrees
    #[arg(long, value_name = "DEGREES")]
    rotate: Option<f64>,
    /// Shift by up to this fraction of the size
    #[arg(long, value_name = "FRACTION")]
    shift: Option<f64>,
    /// Crop from so many pixels of padding
    #[arg(long, value_name = "PIXELS")]
    crop: Option<usize>,
    /// Mirror images, each with probability 1/2
    #[arg(long, value_name = "YES", num_args = 0..=1, default_missing_value = "true")]
    flip: Option<bool>,
    /// One of fourteen changes, at most at this share of TrivialAugment's strengths; 0 without
    #[arg(long, value_name = "SHARE")]
    trivial: Option<f64>,
    /// Blank a square of this side
    #[arg(long, value_name = "PIXELS")]
    cutout: Option<usize>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum AugmentArg {
    /// Nothing
    None,
    /// Rotations of 15 degrees, shifts of 5/32, as the Keras implementation
    Keras,
    /// Crops from 4 pixels of padding, flips, as the paper
    Paper,
    /// Resized crops of 8 to 100 % of the picture, flips
    Imagenet,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum OptimizerArg {
    Sgd,
    Adam,
    Adamw,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ScheduleArg {
    Step,
    Cosine,
    OneCycle,
    Constant,
}

/// Sets `to` where a flag is given.
fn set<T: Clone>(to: &mut T, flag: &Option<T>) {
    if let Some(value) = flag {
        to.clone_from(value);
    }
}

/// Zero switches off what may be absent.
fn set_or_off(to: &mut Option<f64>, flag: Option<f64>) {
    if let Some(value) = flag {
        *to = (value != 0.0).then_some(value);
    }
}

impl Settings {
    /// Whether a flag says how pixels become inputs.
    pub(crate) fn normalises(&self) -> bool {
        self.normalise.get().is_some()
    }

    /// Puts the flags into `config`.
    pub(crate) fn apply(&self, config: &mut TrainConfig) -> Result<()> {
        set(&mut config.epochs, &self.epochs);
        set(&mut config.batch_size, &self.batch_size);
        set(&mut config.sync_batch_norm, &self.sync_batch_norm);
        set(&mut config.lr, &self.lr);
        set(&mut config.label_smoothing, &self.label_smoothing);
        set(&mut config.mixup, &self.mixup);
        set_or_off(&mut config.ema, self.ema);
        set(&mut config.val_every, &self.val_every);
        set(&mut config.checkpoint_seconds, &self.checkpoint_seconds);
        set(&mut config.workers, &self.workers);
        set(&mut config.seed, &self.seed);
        set(&mut config.normalise, &self.normalise.get());

        let optimizer = &mut config.optimizer;
        let kind = self.optimizer.map(|kind| match kind {
            OptimizerArg::Sgd => OptimizerKind::Sgd,
            OptimizerArg::Adam => OptimizerKind::Adam,
            OptimizerArg::Adamw => OptimizerKind::Adamw,
        });
        set(&mut optimizer.kind, &kind);
        set(&mut optimizer.momentum, &self.momentum);
        set(&mut optimizer.epsilon, &self.epsilon);
        set(&mut optimizer.weight_decay, &self.weight_decay);
        set_or_off(&mut optimizer.clip_norm, self.clip_norm);
        set(&mut optimizer.decay_all, &self.decay_all);
        set(&mut optimizer.nesterov, &self.no_nesterov.map(|no| !no));

        let schedule = &mut config.schedule;
        let kind = self.schedule.map(|kind| match kind {
            ScheduleArg::Step => ScheduleKind::Step,
            ScheduleArg::Cosine => ScheduleKind::Cosine,
            ScheduleArg::OneCycle => ScheduleKind::OneCycle,
            ScheduleArg::Constant => ScheduleKind::Constant,
        });
        set(&mut schedule.kind, &kind);
        set(&mut schedule.milestones, &self.milestones);
        set(&mut schedule.gamma, &self.gamma);
        set(&mut schedule.warmup, &self.warmup);
        let steps = self.milestones.is_some() || self.gamma.is_some();
        if steps && schedule.kind != ScheduleKind::Step {
            bail!("--milestones and --gamma are for --schedule step");
        }

        self.augment.apply(&mut config.augment);
        Ok(())
    }
}

impl AugmentOptions {
    fn apply(&self, augment: &mut Augment) {
        let whole = self.augment.map(|augment| match augment {
            AugmentArg::None => Augment::NONE,
            AugmentArg::Keras => Augment::KERAS,
            AugmentArg::Paper => Augment::PAPER,
            AugmentArg::Imagenet => Augment::IMAGENET,
        });
        set(augment, &whole);
        set(&mut augment.resized_crop, &self.resized_crop);
        set(&mut augment.rotate, &self.rotate);
        set(&mut augment.shift, &self.shift);
        set(&mut augment.crop, &self.crop);
        set(&mut augment.flip, &self.flip);
        set(&mut augment.trivial, &self.trivial);
        set(&mut augment.cutout, &self.cutout);
    }
}
