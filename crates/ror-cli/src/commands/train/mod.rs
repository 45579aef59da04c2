//! `ror train`

mod settings;

use crate::data::DataOptions;
use crate::device::{DeviceArg, PrecisionArg};
use crate::model::{ModelOptions, WeightsOptions};
use crate::output::{percent, print, print_json};
use crate::ranks;
use crate::run::{self, ConfigFile, Plan};
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use ror_train::{EpochReport, Outcome, Ranks, Recipe, RunConfig, Source, TrainConfig, Trainer};
use serde::Serialize;
use settings::Settings;
use std::path::{Path, PathBuf};

/// Train a network, or go on training it
///
/// The run lives in the folder OUT: config.toml (all that is needed to repeat it), metrics.csv,
/// TensorBoard's event files, curves.svg, best.safetensors, and last/, from which --resume goes on
/// to the bit. Ctrl-C stops after the present step and saves.
///
/// Settings come from the recipe; --config changes them, and flags change them again.
///
/// Started by mpirun (in a build with the feature mpi), the processes share every batch.
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
    /// Validate on this fraction of the training images instead of on the test images, which 0 stands
    /// for
    #[arg(long, value_name = "FRACTION")]
    holdout: Option<f64>,
    #[command(flatten)]
    data_options: DataOptions,
    /// Threads that compute [default: one per processor, or this rank's share of them; with --resume as before]
    #[arg(long, value_name = "N", value_parser = crate::model::positive)]
    threads: Option<usize>,
    /// Where to compute: cpu, cuda or cuda:N [default: that of --resume or --config, else cpu]
    #[arg(long, value_name = "DEVICE")]
    device: Option<DeviceArg>,
    /// What to compute in [default: that of --resume or --config, else f32]
    #[arg(long, value_enum)]
    precision: Option<PrecisionArg>,
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
    /// The most accuracy in few epochs: 15 of batches of 128, SGD in one cycle up to 0.2, weight decay 5e-4
    Fast,
    /// As the Keras implementation: Adam at 1e-3, 100 epochs of batches of 64, rotations and shifts, pixels of 0..1
    Keras,
    /// As the paper: SGD from 0.1 down, 500 epochs of batches of 128, weight decay 1e-4, crops and flips
    Paper,
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
    ranks::joined(|ranks| train(args, ranks))
}

fn train(args: &Args, ranks: Box<dyn Ranks>) -> Result<()> {
    let mut trainer = if args.resume {
        resume(args, ranks)?
    } else {
        begin(args, ranks)?
    };
    trainer = trainer.with_stop_flag(run::interruptible()?);
    let outcome = run::drive(&mut trainer, &args.out)?;
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

fn begin(args: &Args, ranks: Box<dyn Ranks>) -> Result<Trainer> {
    let file = match &args.config {
        Some(path) => {
            let file = ConfigFile::read(path)?;
            if file.model.is_some() && file.description.is_some() {
                bail!(
                    "{} has both `model` and `description`; remove one",
                    path.display()
                );
            }
            file
        }
        None => ConfigFile::default(),
    };
    let mut training = training(args, &file)?;
    let said = args.settings.normalises() || file.training.contains_key("normalise");
    let source = source(args, file.source)?;
    let weights = match &source.init {
        Some(path) => Some(WeightsOptions::default().load(path, None)?),
        None => None,
    };
    if let Some(known) = weights.as_ref().filter(|_| !said) {
        run::normalise_as(&mut training, known);
    }
    let model = args.model.as_ref().or(file.model.as_ref());
    let described = file.description.filter(|_| args.model.is_none());
    let description = run::description(model, described, weights.as_ref())
        .context("which network? give --model (see `ror list`), --config or --init")??;
    let description = args.changes.change(description)?;
    run::set_threads(source.threads)?;
    let mut plan = Plan {
        description,
        training,
        source,
    };
    let data = run::data::open(&plan.source, &plan.description, &plan.training.augment)?;
    let classes = data.train.data().classes().len();
    if let Some(asked) = args.changes.classes.filter(|&asked| asked != classes) {
        bail!("--classes {asked}, but the data have {classes}");
    }
    plan.description.classes = classes;
    plan.begin(ranks, &args.out, data, weights.as_ref())
}

fn resume(args: &Args, ranks: Box<dyn Ranks>) -> Result<Trainer> {
    let config = RunConfig::read(&args.out)
        .with_context(|| format!("{} holds no run to go on with", args.out.display()))?;
    let mut training = config.training.clone();
    args.settings.apply(&mut training)?;
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
    // More ranks than before may share this machine's processors.
    let before = source.threads.map(|began| match ranks.size() {
        1 => began,
        _ => began.min(crate::ranks::threads()),
    });
    let threads = args.threads.or(before);
    run::note_threads(source.threads, threads);
    run::set_threads(threads)?;
    let chosen = on(args, source.clone());
    if chosen.precision.unwrap_or_default() != source.precision.unwrap_or_default() {
        bail!("a run goes on in the precision that it began in");
    }
    source.device = chosen.device;
    let data = run::data::open(&source, &config.description, &config.training.augment)?;
    run::resume(ranks, &args.out, &source, data)
}

fn training(args: &Args, file: &ConfigFile) -> Result<TrainConfig> {
    let recipe = match args.recipe {
        Some(RecipeArg::Keras) => Recipe::Keras,
        Some(RecipeArg::Paper) => Recipe::Paper,
        Some(RecipeArg::Fast) | None => Recipe::Fast,
    };
    let mut training = recipe.config().with(file.training.clone())?;
    args.settings.apply(&mut training)?;
    training.validate()?;
    Ok(training)
}

fn source(args: &Args, file: Source) -> Result<Source> {
    let chosen = on(args, file.clone());
    run::absolute(Source {
        data: args.data.clone().or(file.data),
        coarse: args.data_options.coarse || file.coarse,
        extra: args.data_options.extra || file.extra,
        lazy: args.data_options.lazy || file.lazy,
        holdout: args.holdout.or(file.holdout).filter(|&f| f != 0.0),
        init: args.init.clone().or(file.init),
        threads: args.threads.or(file.threads),
        ..chosen
    })
}

/// The device and the precision, of the command line or else of a file.
fn on(args: &Args, file: Source) -> Source {
    let device = args.device.map(|device| match device {
        DeviceArg::Cpu => None,
        device => Some(device.to_string()),
    });
    Source {
        device: device.unwrap_or(file.device),
        precision: args.precision.map(Into::into).or(file.precision),
        ..Source::default()
    }
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
