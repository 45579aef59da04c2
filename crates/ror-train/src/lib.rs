//! Training of RoR networks.
//!
//! A [`Trainer`] runs epochs of a [`TrainConfig`] over [`TrainingData`], tells [`Event`]s, and keeps
//! a folder from which it goes on to the bit. Its parts stand alone: a [`Loader`] prepares
//! augmented batches ahead, an [`Engine`] computes gradients ([`KernelEngine`] on the processor,
//! [`DeviceEngine`] on a GPU, [`TapeEngine`] wherever candle computes), an
//! [`Optimizer`] applies them at the rate of a [`Schedule`], an [`Ema`] averages the weights. Several
//! processes share a run as [`Ranks`], over MPI with the feature `mpi`.

#![forbid(unsafe_code)]

mod batch;
pub mod chart;
mod checkpoint;
mod config;
mod device;
mod ema;
mod engine;
mod error;
mod event;
pub mod flat;
mod kept;
mod loader;
mod log;
mod metrics;
mod mixup;
mod optimizer;
mod output;
mod progress;
pub mod ranks;
mod record;
mod schedule;
mod start;
mod step;
mod subset;
mod tape;
mod trainer;
mod validate;

pub use batch::Batch;
pub use config::{Recipe, TrainConfig, overlay};
pub use device::{DeviceEngine, Precision};
pub use ema::Ema;
pub use engine::{Engine, Peers, StepOutput};
pub use error::{Result, TrainError};
pub use event::{Event, Outcome, StepReport, StopFlag};
pub use flat::{FlatLayout, Gradients};
pub use loader::{Batches, Loader};
pub use metrics::{Evaluation, Metrics, PerClass};
pub use optimizer::{Optimizer, OptimizerConfig, OptimizerKind, OptimizerState};
pub use output::{RunConfig, Source};
pub use progress::{EpochReport, Validation};
pub use ranks::{Alone, Ranks};
pub use record::RunRecord;
pub use schedule::{Schedule, ScheduleConfig, ScheduleKind};
pub use start::fine_tuning;
pub use step::KernelEngine;
pub use subset::Subset;
pub use tape::TapeEngine;
pub use trainer::{Trainer, TrainingData};

/// The example of the README runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
