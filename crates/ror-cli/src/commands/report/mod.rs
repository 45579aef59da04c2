//! `ror report`

mod examine;
mod page;
mod runs;

use crate::output::{note, target, write_file};
use anyhow::Result;
use runs::Run;
use std::path::{Path, PathBuf};

/// Write a page about one run, or several side by side
///
/// One HTML file that needs nothing else: curves, figures, settings, the picture of the levels, and,
/// where the run's data can be opened, the confusion matrix and the worst mistakes of its best
/// weights on the validation images. Runs may be unfinished.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  ror report run -o run.html\n  \
    ror report ablation/*/ -o ablation.html\n  \
    ror report run -o run.html --data /mnt/cifar")]
pub(crate) struct Args {
    /// Folders of runs
    #[arg(required = true, value_name = "DIR")]
    runs: Vec<PathBuf>,
    /// Where to write
    #[arg(short, long, value_name = "FILE.html")]
    output: PathBuf,
    /// Where the data are now, if not where the runs had them
    #[arg(long, value_name = "PATH", conflicts_with = "no_data")]
    data: Option<PathBuf>,
    /// Without the data: no confusion matrix and no mistakes
    #[arg(long)]
    no_data: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let file = target(&args.output, &["html", "htm"], &[])?;
    let mut runs = runs::read(&args.runs)?;
    if !args.no_data {
        for run in &mut runs {
            examine(run, args.data.as_deref());
        }
    }
    write_file(&file, page::page(&runs).as_bytes())
}

/// A run whose data are gone is reported without them.
fn examine(run: &mut Run, data: Option<&Path>) {
    let found = examine::examine(&run.record, data);
    if let Err(error) = &found {
        note(&format!("note: {}: {error:#}", run.folder.display()));
    }
    run.examined = Some(found);
}
