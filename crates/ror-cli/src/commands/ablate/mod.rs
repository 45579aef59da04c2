//! `ror ablate`

mod grid;
mod jobs;
mod results;

use crate::measure::{Crops, measure};
use crate::output::{note, print, print_json};
use crate::progress::Progress;
use crate::run;
use crate::runner::{EngineOptions, Runner};
use anyhow::{Context, Result, bail};
use grid::{Cell, Grid};
use jobs::{BATCH, Job, Work};
use results::{CellResult, State};
use ror_models::Network;
use ror_train::{Alone, Evaluation, Outcome, RunRecord, StopFlag, Subset, TrainError, Trainer};
use ror_weights::Weights;
use std::fs;
use std::path::{Path, PathBuf};

/// Train a grid of networks and settings, and print the table of their errors
///
/// GRID.toml has settings as `ror train --config` takes them, changes to the model, and a table
/// `axes` with a list of values for each setting that varies. Every combination is a cell: an
/// ordinary run in a folder of DIR, which `ror report` and `ror train --resume` know. A cell that is
/// finished is not repeated, one that is not goes on to the bit. DIR gets the table as results.md,
/// results.csv and results.json. Errors are those of the best weights on the validation images.
#[derive(clap::Args)]
#[command(after_help = "Example of a grid:\n  \
    model = \"ror-3-56\"\n  \
    recipe = \"fast\"                        # or keras, paper\n  \
    source = { data = \"cifar\", holdout = 0.1 }\n  \
    training = { epochs = 15 }\n  \
    columns = \"network.stochastic-depth\"   # an axis to put in columns\n\n  \
    [axes]\n  \
    network = [                            # changes to the model, with a name for the table\n  \
    \x20 { name = \"ResNet\", levels = 1 },\n  \
    \x20 { name = \"RoR-3\", levels = 3 },\n  \
    \x20 { name = \"RoR-3, type A\", shortcuts = [\"A\", \"A\", \"A\"] },\n  \
    ]\n  \
    \"network.stochastic-depth\" = [0, 0.5]  # 0 without\n  \
    \"training.lr\" = [0.1, 0.2]             # any setting of a run's config.toml\n\n\
    With weights = \"w.safetensors\", or an axis of files, nothing is trained: the weights are \
    evaluated in networks that have no tensors beside theirs.\n\n\
    Examples:\n  ror ablate grid.toml --out ablation\n  \
    ror report ablation/*/ -o ablation.html")]
pub(crate) struct Args {
    /// The grid
    #[arg(value_name = "GRID.toml")]
    grid: PathBuf,
    /// Where the runs and the results are kept
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// The data set, in place of the grid's
    #[arg(short, long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// Print the results as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let name = || args.grid.display().to_string();
    let text = fs::read_to_string(&args.grid).with_context(name)?;
    let grid = Grid::parse(&text).with_context(name)?;
    let jobs = jobs::prepare(&grid, &args.out, args.data.as_deref()).with_context(name)?;
    fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let stop = run::interruptible()?;
    let count = jobs.len();
    let mut results: Vec<Option<CellResult>> = Vec::new();
    for (job, cell) in jobs.iter().zip(&grid.cells) {
        results.push(match job.work {
            Work::Done => Some(trained(blank(job, &grid, cell))?),
            _ => None,
        });
    }
    // A folder that cannot be written is known before the work.
    results::write(&args.out, &grid, &results)?;
    for (i, (job, cell)) in jobs.into_iter().zip(&grid.cells).enumerate() {
        note(&format!("cell {} of {count}: {}", i + 1, cell.name));
        if results[i].is_some() {
            continue;
        }
        let result = match stop.is_set() {
            true => None,
            false => work(job, &grid, cell, &stop).with_context(|| cell.name.clone())?,
        };
        let Some(result) = result else {
            bail!(
                "stopped in {}; `ror ablate {} --out {}` goes on from there",
                cell.name,
                args.grid.display(),
                args.out.display()
            );
        };
        results[i] = Some(result);
        results::write(&args.out, &grid, &results)?;
    }
    if args.json {
        print_json(&results::json(&grid, &results))?;
    } else {
        print(&results::text(&grid, &results))?;
    }
    let found = results.iter().flatten();
    match found.filter(|r| r.state == State::Diverged).count() {
        0 => Ok(()),
        n => bail!("{n} of {count} cells diverged"),
    }
}

/// The result of a cell without its figures.
fn blank(job: &Job, grid: &Grid, cell: &Cell) -> CellResult {
    let Job {
        folder, network, ..
    } = job;
    let axes = grid.axes.iter().zip(&cell.at);
    CellResult {
        cell: cell.name.clone(),
        settings: axes
            .map(|(axis, &at)| (axis.path.clone(), axis.labels[at].clone()))
            .collect(),
        state: State::Finished,
        model: network.description.to_string(),
        parameters: network.parameters(),
        error: None,
        top5_error: None,
        loss: None,
        best_epoch: None,
        last_error: None,
        images_per_second: None,
        run: Some(folder.clone()),
    }
}

/// Does a cell; `None` if it was stopped.
fn work(job: Job, grid: &Grid, cell: &Cell, stop: &StopFlag) -> Result<Option<CellResult>> {
    let mut result = blank(&job, grid, cell);
    let Job {
        folder,
        network,
        work,
    } = job;
    match work {
        Work::Done => {}
        Work::Train {
            plan,
            data,
            init,
            begun,
        } => {
            let trainer = match begun {
                true => run::resume(Box::new(Alone), &folder, &plan.source, data)?,
                false => plan.begin(Box::new(Alone), &folder, data, init.as_deref())?,
            };
            match train(trainer.with_stop_flag(stop.clone()), &folder)? {
                Some(state) => result.state = state,
                None => return Ok(None),
            }
        }
        Work::Evaluate { weights, images } => {
            let evaluation = evaluate(&weights, network, &images)?;
            result.state = State::Evaluated;
            result.error = Some(1.0 - evaluation.top1);
            result.top5_error = Some(1.0 - evaluation.top5);
            result.loss = Some(evaluation.loss);
            result.run = None;
            return Ok(Some(result));
        }
    }
    trained(result).map(Some)
}

/// With the figures of the run.
fn trained(mut result: CellResult) -> Result<CellResult> {
    let Some(folder) = &result.run else {
        return Ok(result);
    };
    let record = RunRecord::read(folder)?;
    if let Some(best) = record.best() {
        result.best_epoch = Some(best.epoch);
        result.error = best.validation.map(|v| 1.0 - v.top1);
        result.top5_error = best.validation.map(|v| 1.0 - v.top5);
        result.loss = best.validation.map(|v| v.loss);
    }
    let last = record.history().last();
    result.last_error = last.and_then(|r| r.validation).map(|v| 1.0 - v.top1);
    result.images_per_second = record.images_per_second();
    Ok(result)
}

/// How training ended; `None` if it was stopped.
fn train(mut trainer: Trainer, folder: &Path) -> Result<Option<State>> {
    match run::drive(&mut trainer, folder) {
        Ok(Outcome::Finished) => Ok(Some(State::Finished)),
        Ok(Outcome::Stopped { .. }) => Ok(None),
        Err(error) => match error.downcast_ref() {
            Some(TrainError::NotFinite { .. }) => {
                note(&format!("{error:#}"));
                Ok(Some(State::Diverged))
            }
            _ => Err(error),
        },
    }
}

fn evaluate(weights: &Weights, network: Network, images: &Subset) -> Result<Evaluation> {
    let mut runner = Runner::new(weights.clone(), None, EngineOptions::default(), BATCH)?;
    runner.set_network(network)?;
    let data = images.data();
    let progress = Progress::new("images");
    let metrics = measure(
        &mut runner,
        data,
        images.indices(),
        (Crops::One, BATCH),
        |_, _| (),
        |done| progress.set(done, images.len()),
    )?;
    Ok(metrics.evaluation(data.classes()))
}
