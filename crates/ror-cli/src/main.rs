//! The `ror` command: multilevel residual networks from the shell. It parses, calls, prints.

#![forbid(unsafe_code)]

mod commands;
mod confusion;
mod data;
mod device;
mod measure;
mod model;
mod normalise;
mod output;
mod progress;
mod ranks;
mod run;
mod runner;
mod shipped;

use clap::{CommandFactory, Parser, Subcommand};
use std::process::ExitCode;

/// Residual networks of residual networks: inspect, run, evaluate and convert them.
///
/// Exit status: 0 success, 1 failure, 2 a command line that cannot be parsed. Results go to stdout, notes to stderr.
#[derive(Parser)]
#[command(name = "ror", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    List(commands::list::Args),
    Summary(commands::summary::Args),
    Graph(commands::graph::Args),
    Predict(commands::predict::Args),
    Eval(commands::eval::Args),
    Data(commands::data::Args),
    Lesion(commands::lesion::Args),
    Convert(commands::convert::Args),
    Bench(commands::bench::Args),
    Train(Box<commands::train::Args>),
    Ablate(commands::ablate::Args),
    Report(commands::report::Args),
    Completions(commands::completions::Args),
    Man(commands::man::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::List(args) => commands::list::run(&args),
        Command::Summary(args) => commands::summary::run(&args),
        Command::Graph(args) => commands::graph::run(&args),
        Command::Predict(args) => commands::predict::run(&args),
        Command::Eval(args) => commands::eval::run(&args),
        Command::Data(args) => commands::data::run(&args),
        Command::Lesion(args) => commands::lesion::run(&args),
        Command::Convert(args) => commands::convert::run(&args),
        Command::Bench(args) => commands::bench::run(&args),
        Command::Train(args) => commands::train::run(&args),
        Command::Ablate(args) => commands::ablate::run(&args),
        Command::Report(args) => commands::report::run(&args),
        Command::Completions(args) => commands::completions::run(&args, Cli::command()),
        Command::Man(args) => commands::man::run(&args, Cli::command()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
