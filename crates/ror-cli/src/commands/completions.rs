//! `ror completions`

use crate::output::print;
use anyhow::{Context, Result};
use clap::Command;
use clap_complete::Shell;

/// Print the script that completes `ror` in a shell
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  ror completions bash > ~/.local/share/bash-completion/completions/ror\n  \
    ror completions zsh > \"${fpath[1]}/_ror\"\n  \
    ror completions fish > ~/.config/fish/completions/ror.fish"
)]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(args: &Args, mut ror: Command) -> Result<()> {
    // Into memory first: the generator panics where it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut ror, "ror", &mut script);
    print(&String::from_utf8(script).context("the script is not text")?)
}
