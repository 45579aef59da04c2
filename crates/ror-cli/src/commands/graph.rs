//! `ror graph`

use crate::model::{ModelOptions, network_of};
use crate::output::{print, write_file};
use anyhow::{Result, bail};
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
    let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    let network = || network_of(&args.model, &args.options);
    if path == Path::new("-") {
        return print(&network()?.to_svg());
    }
    let picture = match ending.as_deref() {
        Some("svg") => network()?.to_svg(),
        Some("dot" | "gv") => network()?.to_dot(),
        _ => bail!("{}: the name must end in .svg or .dot", path.display()),
    };
    write_file(path, picture.as_bytes())
}
