//! `metrics.csv`: a row per epoch.

use crate::EpochReport;
use crate::error::{At, Result};
use crate::output::write_atomic;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

const HEADER: &str = "epoch,step,lr,train_loss,train_top1,val_loss,val_top1,val_top5,\
                      images_per_second,seconds\n";

/// The table, open to append to.
#[derive(Debug)]
pub(crate) struct CsvLog {
    path: PathBuf,
    file: File,
}

impl CsvLog {
    /// Begins the table anew with the epochs of `history`: what a run that died wrote after its
    /// last checkpoint goes.
    pub(crate) fn open(path: &Path, history: &[EpochReport]) -> Result<Self> {
        let rows = history.iter().map(row);
        let text: String = std::iter::once(HEADER.to_owned()).chain(rows).collect();
        write_atomic(path, text.as_bytes())?;
        let file = OpenOptions::new().append(true).open(path).at(path)?;
        Ok(Self {
            path: path.to_owned(),
            file,
        })
    }

    pub(crate) fn append(&mut self, report: &EpochReport) -> Result<()> {
        self.file.write_all(row(report).as_bytes()).at(&self.path)
    }
}

fn row(r: &EpochReport) -> String {
    let [loss, top1, top5] = match &r.validation {
        Some(v) => [v.loss, v.top1, v.top5].map(|x| format!("{x:.6}")),
        None => Default::default(),
    };
    format!(
        "{},{},{:e},{:.6},{:.6},{loss},{top1},{top5},{:.1},{:.1}\n",
        r.epoch, r.step, r.lr, r.train_loss, r.train_top1, r.images_per_second, r.seconds
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Validation;

    fn report(epoch: u64, validated: bool) -> EpochReport {
        EpochReport {
            epoch,
            step: epoch * 10,
            lr: 0.025,
            train_loss: 1.5,
            train_top1: 0.25,
            validation: validated.then_some(Validation {
                top1: 0.5,
                top5: 0.75,
                loss: 1.25,
            }),
            images_per_second: 100.0,
            seconds: 12.34,
        }
    }

    #[test]
    fn rows_are_appended_and_a_reopened_table_has_the_history_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.csv");
        let mut log = CsvLog::open(&path, &[]).unwrap();
        log.append(&report(1, true)).unwrap();
        log.append(&report(2, false)).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let rows: Vec<&str> = text.lines().collect();
        assert_eq!(rows.len(), 3);
        assert_eq!(
            rows[1],
            "1,10,2.5e-2,1.500000,0.250000,1.250000,0.500000,0.750000,100.0,12.3"
        );
        assert_eq!(rows[2], "2,20,2.5e-2,1.500000,0.250000,,,,100.0,12.3");

        std::fs::write(&path, format!("{text}3,30,2.5")).unwrap();
        let mut log = CsvLog::open(&path, &[report(1, true)]).unwrap();
        log.append(&report(2, true)).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().nth(1), Some(rows[1]));
        assert_eq!(text.lines().count(), 3);
    }
}
