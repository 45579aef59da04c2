//! Where results and notes go.

use anyhow::{Context, Result, bail};
use atomicwrites::{AllowOverwrite, AtomicFile};
use ror_data::is_image_name;
use serde::Serialize;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

static QUIET: AtomicBool = AtomicBool::new(false);

/// From now on says nothing but errors: another rank of the job speaks.
#[cfg(feature = "mpi")]
pub(crate) fn be_quiet() {
    QUIET.store(true, Ordering::Relaxed);
}

/// Whether another rank of the job speaks.
pub(crate) fn quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// Prints a result. A reader that has closed the pipe (`ror list | head`) is no failure.
pub(crate) fn print(text: &str) -> Result<()> {
    if quiet() {
        return Ok(());
    }
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to the standard output")
        }
        _ => Ok(()),
    }
}

/// Prints a result as JSON.
pub(crate) fn print_json(value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    print(&text)
}

/// Says something beside the result. Nobody to tell it to is no failure.
pub(crate) fn note(text: &str) {
    if !quiet() {
        tell(text);
    }
}

/// Says why the command failed.
pub(crate) fn error(text: &str) {
    tell(&format!("error: {text}"));
}

/// In one piece, since ranks share where it goes.
fn tell(text: &str) {
    let _ = io::stderr()
        .lock()
        .write_all(format!("{text}\n").as_bytes());
}

/// Checks where a result is to go, before the work for it: the ending, the folder, and that nothing
/// but an ordinary file, and none of the `inputs` or pictures in them, would be replaced. Links are
/// followed.
pub(crate) fn target(path: &Path, endings: &[&str], inputs: &[&Path]) -> Result<PathBuf> {
    let shown = path.display();
    let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    if !endings.iter().any(|&e| ending.as_deref() == Some(e)) {
        bail!("{shown}: the name must end in .{}", endings.join(", ."));
    }
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        bail!(
            "cannot write {shown}: there is no folder {}",
            folder.display()
        );
    }
    if fs::symlink_metadata(path).is_err() {
        return Ok(path.to_owned());
    }
    let resolved = fs::canonicalize(path).with_context(|| format!("cannot write {shown}"))?;
    if !resolved.is_file() {
        bail!("cannot write {shown}: it is not an ordinary file");
    }
    let same = |input: &&Path| fs::canonicalize(input).is_ok_and(|input| input == resolved);
    if inputs.iter().any(same) {
        bail!("{shown} is an input; choose another output");
    }
    let around = |input: &&&Path| fs::canonicalize(input).is_ok_and(|i| resolved.starts_with(i));
    if is_image_name(&resolved)
        && let Some(input) = inputs.iter().find(around)
    {
        bail!(
            "{shown} is a picture in {}; choose another output",
            input.display()
        );
    }
    Ok(resolved)
}

/// Writes a file whole or not at all: beside its place first, then renamed. Only the rank that speaks does.
pub(crate) fn write_file(path: &Path, content: &[u8]) -> Result<()> {
    if quiet() {
        return Ok(());
    }
    AtomicFile::new(path, AllowOverwrite)
        .write(|file| file.write_all(content))
        .map_err(io::Error::from)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// A fraction in per cent.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

/// Lines up columns: text to the left, numbers (columns in `right`) to the right.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>], right: &[usize]) -> String {
    let header: Vec<String> = header.iter().map(|&h| h.to_owned()).collect();
    let lines = || std::iter::once(&header).chain(rows);
    let width = |column: usize| {
        let lengths = lines().map(|row| row.get(column).map_or(0, |cell| cell.chars().count()));
        lengths.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut text = String::new();
    for row in lines() {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(i, (cell, &width))| {
                if right.contains(&i) {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:<width$}")
                }
            })
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}
