//! `ror man`

use crate::output::{print, target, write_file};
use anyhow::{Context, Result};
use clap::error::ErrorKind;
use clap::{Command, ValueHint};
use clap_mangen::Man;
use std::path::PathBuf;

/// Print or write the manual pages
///
/// Prints the page of a command, or ror(1). With --out, writes the pages of all commands: ror.1, ror-train.1, ...
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  ror man train | man -l -\n  \
    ror man --out /usr/local/share/man/man1")]
pub(crate) struct Args {
    /// The command, such as `train` or `data info`
    #[arg(value_name = "COMMAND", conflicts_with = "out")]
    command: Vec<String>,
    /// Write all pages into this folder, which must exist
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    out: Option<PathBuf>,
}

pub(crate) fn run(args: &Args, ror: Command) -> Result<()> {
    // Its help has no page of its own.
    let mut ror = ror.disable_help_subcommand(true);
    // Gives every command what is propagated, and its full name.
    ror.build();
    if let Some(folder) = &args.out {
        let mut commands = vec![&ror];
        while let Some(command) = commands.pop() {
            let (name, page) = page(command)?;
            let path = target(&folder.join(name), &["1"], &[])?;
            write_file(&path, page.as_bytes())?;
            commands.extend(command.get_subcommands());
        }
        return Ok(());
    }
    let mut names = args.command.iter();
    match names.try_fold(&ror, |command, name| command.find_subcommand(name)) {
        Some(command) => print(&page(command)?.1),
        None => {
            let error = format!("there is no command `{}`", args.command.join(" "));
            ror.error(ErrorKind::InvalidValue, error).exit()
        }
    }
}

/// The file name and the text of a command's page.
fn page(command: &Command) -> Result<(String, String)> {
    let man = Man::new(command.clone()).source(concat!("ror ", env!("CARGO_PKG_VERSION")));
    let mut text = Vec::new();
    man.render(&mut text).context("cannot make the page")?;
    let text = String::from_utf8(text).context("the page is not text")?;
    Ok((man.get_filename(), text))
}
