//! The binary layout: records of one label byte (two in CIFAR-100: coarse, then fine) and an image.

use std::borrow::Cow;

use super::{Batch, IMAGE, Labels, MAX_CLASSES, MAX_NAME};
use crate::error::ErrorKind;

pub(super) fn batch(bytes: &[u8], kind: Labels) -> Result<Batch<'_>, ErrorKind> {
    let (record, label) = match kind {
        Labels::Only => (1 + IMAGE, 0),
        Labels::Coarse => (2 + IMAGE, 0),
        Labels::Fine => (2 + IMAGE, 1),
    };
    if !bytes.len().is_multiple_of(record) {
        return Err(ErrorKind::RecordSize {
            found: bytes.len(),
            record,
        });
    }
    Ok(Batch {
        labels: bytes
            .chunks_exact(record)
            .map(|record| record[label].into())
            .collect(),
        records: Cow::Borrowed(bytes),
        record,
    })
}

/// One name a line.
pub(super) fn class_names(bytes: &[u8]) -> Result<Vec<String>, ErrorKind> {
    let text = std::str::from_utf8(bytes).map_err(|_| ErrorKind::ClassName)?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let names: Vec<String> = lines.map(str::to_owned).take(MAX_CLASSES + 1).collect();
    if names.len() > MAX_CLASSES || names.iter().any(|name| name.len() > MAX_NAME) {
        return Err(ErrorKind::ClassNames {
            classes: MAX_CLASSES,
            bytes: MAX_NAME,
        });
    }
    Ok(names)
}
