//! Runs of training: how they are described, begin, go on and end, for `train` and `ablate`.

pub(crate) mod data;
mod show;

use crate::device::{self, DeviceArg};
use crate::output::{self, note};
use crate::ranks;
use anyhow::{Context, Result, anyhow, bail};
use candle_core::{DType, Device};
use ror_data::{Format, Normalisation};
use ror_models::{Description, Network, Parameters};
use ror_train::{
    DeviceEngine, Outcome, Precision, Ranks, RunConfig, Source, StopFlag, TrainConfig, Trainer,
    TrainingData, fine_tuning, ranks::share,
};
use ror_weights::Weights;
use serde::Deserialize;
use show::Show;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What a file of settings may hold: a run's `config.toml`, or parts of it, or a preset's name.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct ConfigFile {
    #[serde(rename = "version")]
    _version: Option<String>,
    pub(crate) model: Option<String>,
    pub(crate) source: Source,
    pub(crate) training: toml::Table,
    pub(crate) description: Option<Description>,
}

impl ConfigFile {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let name = || path.display().to_string();
        let text = fs::read_to_string(path).with_context(name)?;
        toml::from_str(&text).with_context(name)
    }
}

/// A run that has not begun.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    pub(crate) description: Description,
    pub(crate) training: TrainConfig,
    pub(crate) source: Source,
}

impl Plan {
    /// Begins the run in the folder `out`, with these weights if there are some.
    pub(crate) fn begin(
        self,
        ranks: Box<dyn Ranks>,
        out: &Path,
        data: TrainingData,
        weights: Option<&Weights>,
    ) -> Result<Trainer> {
        // Before anything is written.
        let place = Place::open(&self.source)?;
        let network = Network::new(&self.description)?;
        let seed = self.training.seed;
        let parameters = match weights {
            Some(weights) => {
                let (parameters, replaced) = fine_tuning(&network, weights, seed)?;
                if replaced {
                    note(&format!(
                        "note: the weights are for {} classes, the data have {}: the classifier \
                         is replaced and starts anew",
                        weights.description.classes, self.description.classes
                    ));
                }
                parameters
            }
            None => Parameters::init(&network, seed, DType::F32, &Device::Cpu)?,
        };
        self.describe(&*ranks, &network, &data);
        let trainer = Trainer::on(ranks, &network, parameters, self.training, data)?;
        let trainer = place.take(trainer)?;
        Ok(trainer.with_output(out, self.source)?)
    }

    fn describe(&self, ranks: &dyn Ranks, network: &Network, data: &TrainingData) {
        let format = data.train.data().provenance().format;
        if format == Format::Svhn && self.training.augment.flip {
            note(
                "note: digits are mirrored, which changes what they are; --flip false leaves that",
            );
        }
        let threads = self.source.threads.unwrap_or(1);
        let on = match &self.source.device {
            Some(device) => format!(" on {device}"),
            None => String::new(),
        };
        let threads = match (ranks.size(), share(ranks, self.training.batch_size).len()) {
            (1, _) => format!("{threads} threads"),
            (size, own) => {
                format!("{size} ranks of {threads} threads, with {own} of the images each")
            }
        };
        note(&format!(
            "{} parameters; {} images to train on, {} to validate on; {} epochs of {} steps of {} \
             images; {threads}{on}",
            network.parameters(),
            data.train.len(),
            data.validation.as_ref().map_or(0, |images| images.len()),
            self.training.epochs,
            data.train.len().div_ceil(self.training.batch_size),
            self.training.batch_size,
        ));
    }
}

/// Where a run computes, and in what.
pub(crate) struct Place {
    /// None for the processor, with this crate's kernels.
    device: Option<Device>,
    precision: Precision,
}

impl Place {
    /// Makes the device of a run ready.
    pub(crate) fn open(source: &Source) -> Result<Self> {
        let device = match &source.device {
            Some(name) => {
                let device: Result<DeviceArg, String> = name.parse();
                device.map_err(|e| anyhow!("the device `{name}`: {e}"))?
            }
            None => DeviceArg::Cpu,
        };
        let precision = source.precision.unwrap_or_default();
        device::check(device, precision)?;
        let device = match device {
            DeviceArg::Cpu => None,
            device => Some(device.open()?),
        };
        Ok(Self { device, precision })
    }

    /// Whether that is not the processor.
    pub(crate) fn is_device(&self) -> bool {
        self.device.is_some()
    }

    /// Has a run computed there.
    fn take(self, trainer: Trainer) -> Result<Trainer> {
        let Some(device) = self.device else {
            return Ok(trainer);
        };
        check_synchronised(true, &trainer.config().training)?;
        Ok(trainer.with_engine(|network, parameters| {
            let engine = DeviceEngine::new(network, parameters, &device, self.precision)?;
            Ok(Box::new(engine))
        })?)
    }
}

/// Whether a run's normalisations can be had on a device, if there is one.
pub(crate) fn check_synchronised(on_device: bool, training: &TrainConfig) -> Result<()> {
    if on_device && training.sync_batch_norm {
        bail!("--sync-batch-norm is for processors, not for other devices");
    }
    Ok(())
}

/// The network of a run: the one that is named, or described, or that of the weights. `None` if
/// nothing says it.
pub(crate) fn description(
    name: Option<&String>,
    described: Option<Description>,
    weights: Option<&Weights>,
) -> Option<Result<Description>> {
    match (described, name, weights) {
        (Some(description), _, _) => Some(Ok(description)),
        (None, Some(name), _) => Some(Description::preset(name).map_err(Into::into)),
        (None, None, Some(weights)) => Some(Ok(weights.description.clone())),
        (None, None, None) => None,
    }
}

/// Takes over how the inputs of weights were normalised, if they say it.
pub(crate) fn normalise_as(training: &mut TrainConfig, weights: &Weights) {
    if let Some(known) = &weights.metadata.normalisation
        && let (Ok(mean), Ok(std)) = (
            known.mean.as_slice().try_into(),
            known.std.as_slice().try_into(),
        )
    {
        training.normalise = Normalisation { mean, std };
    }
}

/// With absolute paths, because the run may go on from another folder, and a number of threads.
pub(crate) fn absolute(source: Source) -> Result<Source> {
    let absolute = |path: PathBuf| {
        std::path::absolute(&path).with_context(|| format!("the path {}", path.display()))
    };
    Ok(Source {
        data: source.data.map(absolute).transpose()?,
        init: source.init.map(absolute).transpose()?,
        threads: source.threads.or_else(|| Some(ranks::threads())),
        ..source
    })
}

/// Says that a run goes on with another number of threads than it began with.
pub(crate) fn note_threads(began: Option<usize>, now: Option<usize>) {
    if let (Some(began), Some(now)) = (began, now)
        && began != now
    {
        note(&format!(
            "note: the run began with {began} threads; with {now} the last bits may differ"
        ));
    }
}

pub(crate) fn set_threads(threads: Option<usize>) -> Result<()> {
    if let Some(threads) = threads {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build_global()
            .context("cannot start the threads")?;
    }
    Ok(())
}

/// Every setting of a run by its path, `training.optimizer.momentum`.
pub(crate) fn settings(config: &RunConfig) -> BTreeMap<String, String> {
    fn flatten(path: &str, table: toml::Table, into: &mut BTreeMap<String, String>) {
        for (key, value) in table {
            let path = match path {
                "" => key,
                path => format!("{path}.{key}"),
            };
            match value {
                toml::Value::Table(inner) => flatten(&path, inner, into),
                toml::Value::String(text) => {
                    into.insert(path, text);
                }
                value => {
                    into.insert(path, value.to_string());
                }
            }
        }
    }
    let mut settings = BTreeMap::new();
    if let Ok(table) = toml::Table::try_from(config) {
        flatten("", table, &mut settings);
    }
    settings
}

/// Goes on with the run in `out`, on the device that `source` names.
pub(crate) fn resume(
    ranks: Box<dyn Ranks>,
    out: &Path,
    source: &Source,
    data: TrainingData,
) -> Result<Trainer> {
    let place = Place::open(source)?;
    let trainer = place.take(Trainer::resume_on(ranks, out, data)?)?;
    note(&format!(
        "going on after step {} ({} of {} epochs)",
        trainer.step(),
        trainer.history().len(),
        trainer.config().training.epochs
    ));
    Ok(trainer)
}

/// The flag that Ctrl-C sets; a second one ends the process.
pub(crate) fn interruptible() -> Result<StopFlag> {
    let stop = StopFlag::default();
    let flag = stop.clone();
    ctrlc::set_handler(move || {
        if flag.is_set() {
            std::process::exit(130);
        }
        note("stopping after this step; once more ends at once, at the last checkpoint");
        flag.stop();
    })
    .context("cannot listen to Ctrl-C")?;
    Ok(stop)
}

/// Trains to the end, or until it is interrupted, and shows it.
pub(crate) fn drive(trainer: &mut Trainer, out: &Path) -> Result<Outcome> {
    if !output::quiet() {
        let mut show = Show::new(trainer.images());
        trainer.on_event(move |event| show.event(event));
    }
    let outcome = trainer.run().inspect_err(|_| {
        let last = out.join("last");
        note(&format!(
            "the checkpoint from before is kept in {}",
            last.display()
        ));
    })?;
    Ok(outcome)
}
