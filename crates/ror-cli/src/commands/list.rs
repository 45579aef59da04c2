//! `ror list`

use crate::output::{print, print_json, table};
use crate::shipped;
use anyhow::{Result, bail};
use globset::GlobBuilder;
use ror_models::{Description, Network, presets};
use serde::Serialize;

/// List the models that have a name, with their size
#[derive(clap::Args)]
#[command(
    after_help = "Any depth and width that a family's formula allows has a name too:\n  \
    ror list 'keras-*'\n  ror list ror-3-wrn-22-3\n  ror list --json"
)]
pub(crate) struct Args {
    /// Only names that match, with `*` and `?` as in a shell
    pattern: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Entry {
    name: String,
    parameters: u64,
    multiply_adds: u64,
    /// The file of trained weights that ships, if any.
    weights: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let entries = names(args.pattern.as_deref())?
        .into_iter()
        .map(|name| {
            let summary = Network::new(&Description::preset(&name)?)?.summary();
            Ok(Entry {
                parameters: summary.parameters,
                multiply_adds: summary.multiply_adds,
                weights: shipped::for_preset(&name).map(|s| s.file.to_owned()),
                name,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    if args.json {
        return print_json(&entries);
    }
    let rows: Vec<Vec<String>> = entries
        .into_iter()
        .map(|e| {
            vec![
                e.name,
                format!("{:.2} M", e.parameters as f64 / 1e6),
                format!("{:.2} G", e.multiply_adds as f64 / 1e9),
                e.weights.unwrap_or_else(|| "-".to_owned()),
            ]
        })
        .collect();
    let header = ["name", "parameters", "multiply-adds", "weights"];
    print(&table(&header, &rows, &[1, 2]))
}

/// The listed names that match; a pattern that is the name of an unlisted model finds that one.
fn names(pattern: Option<&str>) -> Result<Vec<String>> {
    let Some(pattern) = pattern else {
        return Ok(presets().iter().map(|&name| name.to_owned()).collect());
    };
    let glob = GlobBuilder::new(pattern).build()?.compile_matcher();
    let found: Vec<String> = presets()
        .iter()
        .filter(|name| glob.is_match(name))
        .map(|&name| name.to_owned())
        .collect();
    if !found.is_empty() {
        return Ok(found);
    }
    if pattern.contains(['*', '?', '[', '{']) {
        bail!("no model's name matches `{pattern}`");
    }
    Description::preset(pattern)?;
    Ok(vec![pattern.to_owned()])
}
