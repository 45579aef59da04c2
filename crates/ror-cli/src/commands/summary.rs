//! `ror summary`

use crate::model::{ModelOptions, network_of};
use crate::output::{print, print_json};
use anyhow::Result;

/// Print a model's tree: shape, parameters and multiply-adds of every level and block
#[derive(clap::Args)]
#[command(after_help = "Example:\n  ror summary ror-3-wrn-40-2 --classes 100")]
pub(crate) struct Args {
    /// A model's name, or a file of weights
    model: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    options: ModelOptions,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let summary = network_of(&args.model, &args.options)?.summary();
    if args.json {
        print_json(&summary)
    } else {
        print(&summary.to_string())
    }
}
