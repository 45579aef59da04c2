//! `ror graph`

use crate::model::{ModelOptions, network_of};
use crate::output::{print, target, write_file};
use anyhow::Result;
use std::path::{Path, PathBuf};

/// Draw a model's multilevel shortcuts, as SVG or Graphviz DOT
#[derive(clap::Args)]
#[command(after_help = "Example:\n  ror graph ror-3-110 -o ror-3-110.svg\n  \
    ror graph ror-3-110 -o - > ror-3-110.svg")]
pub(crate) struct Args {
    /// A model's name, or a file of weights
    model: String,
    /// Where to write; the ending .svg or .dot chooses the format, `-` prints SVG
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    options: ModelOptions,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let path = &args.output;
    let network = || network_of(&args.model, &args.options);
    if path == Path::new("-") {
        return print(&network()?.to_svg());
    }
    let file = target(path, &["svg", "dot", "gv"], &[Path::new(&args.model)])?;
    let svg = path
        .extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("svg"));
    let picture = if svg {
        network()?.to_svg()
    } else {
        network()?.to_dot()
    };
    write_file(&file, picture.as_bytes())
}
