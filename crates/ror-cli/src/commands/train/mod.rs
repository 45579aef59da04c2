//! `ror train`

mod data;
mod settings;
mod show;

use crate::data::DataOptions;
use crate::model::{ModelOptions, WeightsOptions};
use crate::output::{note, print, print_json};
use anyhow::{Context, Result, bail};
use candle_core::{DType, Device};
use clap::ValueEnum;
use ror_data::Normalisation;
use ror_models::{Description, Network, Parameters};
use ror_train::{
    EpochReport, Outcome, Recipe, RunConfig, Source, TrainConfig, Trainer, TrainingData,
    fine_tuning,
};
use ror_weights::Weights;
use serde::{Deserialize, Serialize};
use settings::Settings;
use show::{Show, percent};
use std::fs;
use std::path::{Path, PathBuf};

/// Train a network, or go on training it
///
/// The run lives in the folder OUT: config.toml (all that is needed to repeat it), metrics.csv,
/// TensorBoard's event files, curves.svg, best.safetensors, and last/, from which --resume goes on
/// to the bit. Ctrl-C stops after the present step and saves.
///
/// Settings come from the recipe; --config changes them, and flags change them again.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  ror train --model ror-3-wrn-16-2 --data cifar/ --out run --holdout 0.1\n  \
    ror train --resume --out run\n  \
    ror train --init weights.safetensors --data flowers/ --out tuned --lr 0.01 --epochs 5\n  \
    ror train --config run/config.toml --out again"
)]
pub(crate) struct Args {
    /// Where the run is kept
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// The model; without it that of --config or --init
    #[arg(short, long, value_name = "MODEL")]
    model: Option<String>,
    /// The data set: whatever `ror eval --data` takes
    #[arg(short, long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// Go on with the run in OUT
    #[arg(long, conflicts_with_all = ["model", "config", "recipe", "init", "holdout", "coarse", "extra", "lazy"])]
    resume: bool,
    /// Take settings from a file such as the config.toml of a run
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,
    /// Where settings start from; fast, unless --config has them
    #[arg(long, value_enum)]
    recipe: Option<RecipeArg>,
    /// Start from these weights; another number of classes replaces the classifier
    #[arg(long, value_name = "WEIGHTS")]
    init: Option<PathBuf>,
    /// Validate on this fraction of the training images instead of on the test images
    #[arg(long, value_name = "FRACTION")]
    holdout: Option<f64>,
    #[command(flatten)]
    data_options: DataOptions,
    /// Threads that compute; all cores without it
    #[arg(long, value_name = "N", value_parser = crate::model::positive)]
    threads: Option<usize>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    changes: ModelOptions,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RecipeArg {
    /// The most accuracy in few epochs
    Fast,
    /// As the Keras implementation: Adam, 100 epochs, rotations and shifts
    Keras,
    /// As the paper: SGD, 500 epochs, crops and flips
    Paper,
}

/// What a file of settings may hold: a run's `config.toml`, or parts of it, or a preset's name.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct ConfigFile {
    #[serde(rename = "version")]
    _version: Option<String>,
    model: Option<String>,
    source: Source,
    training: toml::Table,
    description: Option<Description>,
}

/// What is printed at the end.
#[derive(Serialize)]
struct Report<'a> {
    out: &'a Path,
    steps: u64,
    best: Option<&'a EpochReport>,
    last: Option<&'a EpochReport>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut trainer = if args.resume {
        resume(args)?
    } else {
        begin(args)?
    };
    let mut show = Show::new(trainer.images());
    trainer.on_event(move |event| show.event(event));
    let stop = trainer.stop_flag();
    ctrlc::set_handler(move || {
        if stop.is_set() {
            std::process::exit(130);
        }
        note("stopping after this step; once more ends at once, at the last checkpoint");
        stop.stop();
    })
    .context("cannot listen to Ctrl-C")?;
    let outcome = trainer.run().inspect_err(|_| {
        let last = args.out.join("last");
        note(&format!(
            "the checkpoint from before is kept in {}",
            last.display()
        ));
    })?;
    if let Outcome::Stopped { step } = outcome {
        bail!(
            "stopped after step {step}; `ror train --resume --out {}` goes on from there",
            args.out.display()
        );
    }
    let report = Report {
        out: &args.out,
        steps: trainer.step(),
        best: trainer.best(),
        last: trainer.history().last(),
    };
    if args.json {
        print_json(&report)
    } else {
        print(&text(&report))
    }
}

fn begin(args: &Args) -> Result<Trainer> {
    let file = match &args.config {
        Some(path) => read(path)?,
        None => ConfigFile::default(),
    };
    let mut training = training(args, &file)?;
    let said = args.settings.normalises() || file.training.contains_key("normalise");
    let source = source(args, file.source)?;
    let weights = match &source.init {
        Some(path) => Some(WeightsOptions::default().load(path, None)?),
        None => None,
    };
    if let Some(known) = weights.as_ref().and_then(normalisation).filter(|_| !said) {
        training.normalise = known;
    }
    let description = match (&args.model, &file.model, file.description) {
        (Some(name), _, _) => Description::preset(name)?,
        (None, _, Some(description)) => description,
        (None, Some(name), None) => Description::preset(name)?,
        (None, None, None) => match &weights {
            Some(weights) => weights.description.clone(),
            None => bail!("which network? give --model (see `ror list`), --config or --init"),
        },
    };
    let mut description = args.changes.change(description)?;
    set_threads(source.threads)?;
    let data = data::open(&source, &description, &training.augment)?;
    let classes = data.train.data().classes().len();
    if let Some(asked) = args.changes.classes.filter(|&asked| asked != classes) {
        bail!("--classes {asked}, but the data have {classes}");
    }
    description.classes = classes;
    let network = Network::new(&description)?;
    let parameters = match &weights {
        Some(weights) => {
            let (parameters, replaced) = fine_tuning(&network, weights, training.seed)?;
            if replaced {
                note(&format!(
                    "note: the weights are for {} classes, the data have {classes}: the classifier \
                     is replaced and starts anew",
                    weights.description.classes
                ));
            }
            parameters
        }
        None => Parameters::init(&network, training.seed, DType::F32, &Device::Cpu)?,
    };
    describe(&network, &training, &data, &source);
    let trainer = Trainer::new(&network, parameters, training, data)?;
    Ok(trainer.with_output(&args.out, source)?)
}

fn resume(args: &Args) -> Result<Trainer> {
    let config = RunConfig::read(&args.out)
        .with_context(|| format!("{} holds no run to go on with", args.out.display()))?;
    let mut training = config.training.clone();
    args.settings.apply(&mut training);
    let description = args.changes.change(config.description.clone())?;
    if training != config.training || description != config.description {
        bail!(
            "a run goes on with the settings that it began with, in {}; for others begin a new one \
             with --init {}",
            args.out.join("config.toml").display(),
            args.out.join("best.safetensors").display()
        );
    }
    let mut source = config.source.clone();
    if let Some(data) = &args.data {
        source.data = Some(data.clone());
    }
    if let (Some(asked), Some(began)) = (args.threads, source.threads)
        && asked != began
    {
        note(&format!(
            "note: the run began with {began} threads; with {asked} the last bits may differ"
        ));
    }
    set_threads(args.threads.or(source.threads))?;
    let data = data::open(&source, &config.description, &config.training.augment)?;
    let trainer = Trainer::resume(&args.out, data)?;
    note(&format!(
        "going on after step {} ({} of {} epochs)",
        trainer.step(),
        trainer.history().len(),
        config.training.epochs
    ));
    Ok(trainer)
}

fn read(path: &Path) -> Result<ConfigFile> {
    let name = || path.display().to_string();
    let text = fs::read_to_string(path).with_context(name)?;
    toml::from_str(&text).with_context(name)
}

fn training(args: &Args, file: &ConfigFile) -> Result<TrainConfig> {
    let recipe = match args.recipe {
        Some(RecipeArg::Keras) => Recipe::Keras,
        Some(RecipeArg::Paper) => Recipe::Paper,
        Some(RecipeArg::Fast) | None => Recipe::Fast,
    };
    let mut training = recipe.config().with(file.training.clone())?;
    args.settings.apply(&mut training);
    training.validate()?;
    Ok(training)
}

/// How the inputs of weights were normalised, if they say it.
fn normalisation(weights: &Weights) -> Option<Normalisation> {
    let known = weights.metadata.normalisation.as_ref()?;
    Some(Normalisation {
        mean: known.mean.as_slice().try_into().ok()?,
        std: known.std.as_slice().try_into().ok()?,
    })
}

/// Paths become absolute: the run may go on from another folder.
fn source(args: &Args, file: Source) -> Result<Source> {
    let absolute = |path: PathBuf| {
        std::path::absolute(&path).with_context(|| format!("the path {}", path.display()))
    };
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    Ok(Source {
        data: args.data.clone().or(file.data).map(absolute).transpose()?,
        coarse: args.data_options.coarse || file.coarse,
        extra: args.data_options.extra || file.extra,
        lazy: args.data_options.lazy || file.lazy,
        holdout: args.holdout.or(file.holdout),
        init: args.init.clone().or(file.init).map(absolute).transpose()?,
        threads: args.threads.or(file.threads).or_else(|| Some(cores())),
    })
}

fn set_threads(threads: Option<usize>) -> Result<()> {
    if let Some(threads) = threads {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build_global()
            .context("cannot start the threads")?;
    }
    Ok(())
}

fn describe(network: &Network, training: &TrainConfig, data: &TrainingData, source: &Source) {
    note(&format!(
        "{} parameters; {} images to train on, {} to validate on; {} epochs of {} steps of {} \
         images; {} threads",
        network.parameters(),
        data.train.len(),
        data.validation.as_ref().map_or(0, |images| images.len()),
        training.epochs,
        data.train.len().div_ceil(training.batch_size),
        training.batch_size,
        source.threads.unwrap_or(1)
    ));
}

fn text(report: &Report) -> String {
    let best = match report.best {
        Some(EpochReport {
            epoch,
            validation: Some(v),
            ..
        }) => format!(
            "best: epoch {epoch}, top-1 {}, top-5 {}, loss {:.4}",
            percent(v.top1),
            percent(v.top5),
            v.loss
        ),
        Some(EpochReport { epoch, .. }) => format!("kept: epoch {epoch}, not validated"),
        None => "no epoch was finished".to_owned(),
    };
    format!(
        "{best}\n{}\n",
        report.out.join("best.safetensors").display()
    )
}
