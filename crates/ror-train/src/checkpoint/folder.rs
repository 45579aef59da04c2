//! Replacing a folder so that a complete one is always there.

use crate::error::{At, Result, TrainError};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

pub(crate) const LAST: &str = "last";
const NEW: &str = ".last.new";
const OLD: &str = ".last.old";
/// Folders of a run that come and go.
pub(crate) const FOLDERS: [&str; 3] = [LAST, NEW, OLD];

/// Writes a new `last` in `run` with `fill`, which is given an empty folder, and puts it in the
/// place of the old one. If `fill` fails, the old one stays.
pub(crate) fn replace(run: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    recover(run)?;
    let [last, new, old] = [LAST, NEW, OLD].map(|name| run.join(name));
    fs::create_dir(&new).at(&new)?;
    if let Err(error) = fill(&new).and_then(|()| sync(&new)) {
        // A disk that is full has room again once this is gone.
        let _ = fs::remove_dir_all(&new);
        return Err(error);
    }
    let existed = rename(&last, &old)?;
    fs::rename(&new, &last).at(&new)?;
    sync(run)?;
    if existed {
        fs::remove_dir_all(&old).at(&old)?;
    }
    Ok(())
}

/// The folder that is, or becomes by [`recover`], the last checkpoint.
pub(crate) fn complete(run: &Path) -> Result<PathBuf> {
    let [last, new, old] = [LAST, NEW, OLD].map(|name| run.join(name));
    let there = |path: &Path| fs::exists(path).at(path);
    // The old one is moved away only when the new one is complete.
    Ok(if there(&last)? || !there(&old)? {
        last
    } else if there(&new)? {
        new
    } else {
        old
    })
}

/// Finishes or undoes a replacement that was cut short.
pub(crate) fn recover(run: &Path) -> Result<()> {
    let [last, new, old] = [LAST, NEW, OLD].map(|name| run.join(name));
    let complete = complete(run)?;
    if complete != last {
        fs::rename(&complete, &last).at(&complete)?;
        sync(run)?;
    }
    for rest in [new, old] {
        match fs::remove_dir_all(&rest) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).at(&rest),
            _ => {}
        }
    }
    Ok(())
}

/// Renames a folder that may not be there; whether it was.
fn rename(from: &Path, to: &Path) -> Result<bool> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        result => result.at(from).map(|()| true),
    }
}

/// Writes a file through to the disk.
pub(crate) fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::create_new(path).at(path)?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .at(path)
}

/// Reads a regular file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    if !fs::metadata(path).at(path)?.is_file() {
        return Err(TrainError::Damaged {
            path: path.to_owned(),
            reason: "not a regular file".to_owned(),
        });
    }
    fs::read(path).at(path)
}

/// Makes names in a folder last.
#[cfg(unix)]
fn sync(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|f| f.sync_all()).at(folder)
}

#[cfg(not(unix))]
fn sync(_: &Path) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(run: &Path) -> Option<String> {
        fs::read_to_string(run.join(LAST).join("x")).ok()
    }

    fn write(run: &Path, text: &str) -> Result<()> {
        replace(run, |folder| {
            write_synced(&folder.join("x"), text.as_bytes())
        })
    }

    fn names(run: &Path) -> Vec<String> {
        let entries = fs::read_dir(run).unwrap();
        let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
        names.collect()
    }

    #[test]
    fn the_newest_takes_the_place_and_nothing_else_stays() {
        let run = tempfile::tempdir().unwrap();
        for text in ["a", "b"] {
            write(run.path(), text).unwrap();
            assert_eq!(content(run.path()).as_deref(), Some(text));
            assert_eq!(names(run.path()), [LAST]);
        }
    }

    #[test]
    fn a_failure_leaves_the_old_one() {
        let run = tempfile::tempdir().unwrap();
        write(run.path(), "a").unwrap();
        let failed = replace(run.path(), |folder| {
            write_synced(&folder.join("x"), b"half")?;
            Err(TrainError::Config("no space left".to_owned()))
        });
        assert!(failed.is_err());
        assert_eq!(content(run.path()).as_deref(), Some("a"));
        assert_eq!(names(run.path()), [LAST]);
    }

    /// Every state in which the process may die, and what has to be there afterwards.
    #[test]
    fn a_replacement_cut_short_anywhere_leaves_a_complete_one() {
        type Step = fn(&Path);
        let half: Step = |run| {
            fs::create_dir(run.join(NEW)).unwrap();
            fs::write(run.join(NEW).join("x"), "ne").unwrap();
        };
        let whole: Step = |run| fs::write(run.join(NEW).join("x"), "new").unwrap();
        let away: Step = |run| fs::rename(run.join(LAST), run.join(OLD)).unwrap();
        let placed: Step = |run| fs::rename(run.join(NEW), run.join(LAST)).unwrap();
        let steps = [half, whole, away, placed];
        for (died_after, expected) in ["old", "old", "old", "new", "new"].into_iter().enumerate() {
            let run = tempfile::tempdir().unwrap();
            write(run.path(), "old").unwrap();
            for step in &steps[..died_after] {
                step(run.path());
            }
            let complete = complete(run.path()).unwrap().join("x");
            assert_eq!(fs::read_to_string(complete).unwrap(), expected);
            recover(run.path()).unwrap();
            assert_eq!(
                content(run.path()).as_deref(),
                Some(expected),
                "{died_after}"
            );
            assert_eq!(names(run.path()), [LAST]);
        }
    }

    #[test]
    fn a_first_checkpoint_cut_short_is_not_there() {
        let run = tempfile::tempdir().unwrap();
        fs::create_dir(run.path().join(NEW)).unwrap();
        recover(run.path()).unwrap();
        assert!(names(run.path()).is_empty());
    }
}
