//! The runs of a page.

use super::examine::Examined;
use crate::run::settings;
use anyhow::{Context, Result};
use ror_models::{Network, ShortcutKind};
use ror_train::RunRecord;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Colours that differ also to the colour-blind, on light and on dark.
const COLOURS: [&str; 8] = [
    "#2f7ad6", "#d9641e", "#17a079", "#c75fa0", "#a08014", "#6fa8dc", "#8a63d2", "#8a93a3",
];

/// A run and what is found out about it.
pub(crate) struct Run {
    pub(crate) folder: PathBuf,
    /// What it is called: the folder's name, or its path where names are equal.
    pub(crate) name: String,
    pub(crate) colour: &'static str,
    pub(crate) record: RunRecord,
    pub(crate) network: Network,
    /// Its weights on its validation images, or why not; `None` if that is not wanted.
    pub(crate) examined: Option<Result<Examined>>,
}

pub(crate) fn read(folders: &[PathBuf]) -> Result<Vec<Run>> {
    let mut names: Vec<String> = folders.iter().map(|folder| name(folder)).collect();
    let equal = |name: &String| names.iter().filter(|n| *n == name).count() > 1;
    if names.iter().any(equal) {
        names = folders.iter().map(|f| f.display().to_string()).collect();
    }
    let mut runs = Vec::new();
    for ((folder, name), i) in folders.iter().zip(names).zip(0..) {
        let record = RunRecord::read(folder)
            .with_context(|| format!("{} holds no run", folder.display()))?;
        runs.push(Run {
            folder: folder.clone(),
            name,
            colour: COLOURS[i % COLOURS.len()],
            network: Network::new(&record.config.description)
                .with_context(|| folder.display().to_string())?,
            record,
            examined: None,
        });
    }
    Ok(runs)
}

fn name(folder: &Path) -> String {
    let full = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    match full.file_name() {
        Some(name) => name.to_string_lossy().into_owned(),
        None => folder.display().to_string(),
    }
}

impl Run {
    /// `ror-3-wrn-16-2, shortcuts C C B`
    pub(crate) fn model(&self) -> String {
        let d = &self.record.config.description;
        let kinds: Vec<&str> = d
            .shortcuts
            .iter()
            .map(|kind| match kind {
                ShortcutKind::A => "A",
                ShortcutKind::B => "B",
                ShortcutKind::C => "C",
            })
            .collect();
        format!("{d}, shortcuts {}", kinds.join(" "))
    }

    /// How far it is.
    pub(crate) fn state(&self) -> String {
        let (done, all) = (
            self.record.history().len(),
            self.record.config.training.epochs,
        );
        if self.record.is_finished() {
            done.to_string()
        } else {
            format!("{done} of {all}")
        }
    }
}

/// The settings in which runs differ, each with its value in every run.
pub(crate) fn differences(runs: &[Run]) -> Vec<(String, Vec<String>)> {
    let all: Vec<BTreeMap<String, String>> = runs
        .iter()
        .map(|run| settings(&run.record.config))
        .collect();
    let mut keys: Vec<&String> = all.iter().flat_map(BTreeMap::keys).collect();
    keys.sort();
    keys.dedup();
    keys.into_iter()
        .map(|key| {
            let value = |run: &BTreeMap<String, String>| run.get(key).cloned().unwrap_or_default();
            (key.clone(), all.iter().map(value).collect::<Vec<_>>())
        })
        .filter(|(_, values)| values.windows(2).any(|pair| pair[0] != pair[1]))
        .collect()
}
