//! The python layout: a pickled dictionary with a list of labels and a NumPy array (N, 3072) of
//! bytes.

use std::borrow::Cow;

use super::pickle::{Id, Pickle, Value};
use super::{Batch, IMAGE, Labels};
use super::{MAX_CLASSES, MAX_NAME};
use crate::error::ErrorKind;

pub(super) fn batch(bytes: &[u8], kind: Labels) -> Result<Batch<'_>, ErrorKind> {
    let pickle = Pickle::read(bytes).map_err(ErrorKind::Pickle)?;
    let key = match kind {
        Labels::Only => "labels",
        Labels::Coarse => "coarse_labels",
        Labels::Fine => "fine_labels",
    };
    let labels: Option<Vec<i64>> = pickle.get(key).and_then(|list| {
        pickle
            .items(list)?
            .iter()
            .map(|label| pickle.int(*label))
            .collect()
    });
    let labels =
        labels.ok_or_else(|| ErrorKind::Pickle(format!("no list of integers under '{key}'")))?;
    let images = pickle.get("data").and_then(|data| images(&pickle, data));
    let images = images.ok_or_else(|| {
        ErrorKind::Pickle(format!("no NumPy array (N, {IMAGE}) of bytes under 'data'"))
    })?;
    if images.len() != labels.len() * IMAGE {
        let (n, labels) = (images.len() / IMAGE, labels.len());
        return Err(ErrorKind::Pickle(format!(
            "{n} images with {labels} labels"
        )));
    }
    Ok(Batch {
        labels,
        records: Cow::Owned(images),
        record: IMAGE,
    })
}

pub(super) fn class_names(bytes: &[u8], kind: Labels) -> Result<Vec<String>, ErrorKind> {
    let pickle = Pickle::read(bytes).map_err(ErrorKind::Pickle)?;
    let key = match kind {
        Labels::Only => "label_names",
        Labels::Coarse => "coarse_label_names",
        Labels::Fine => "fine_label_names",
    };
    let name = |id: &Id| {
        let name = pickle.bytes(*id).filter(|name| name.len() <= MAX_NAME)?;
        String::from_utf8(name.into_owned()).ok()
    };
    let names = pickle.get(key).and_then(|list| {
        pickle
            .items(list)
            .filter(|names| names.len() <= MAX_CLASSES)?
            .iter()
            .map(name)
            .collect()
    });
    names.ok_or_else(|| ErrorKind::Pickle(format!("no list of names under '{key}'")))
}

/// The rows of a pickled array of bytes, (N, 3072), one after the other.
fn images(pickle: &Pickle<'_>, id: Id) -> Option<Vec<u8>> {
    let state = call(pickle, id, is_reconstruct)?;
    let [_version, shape, dtype, fortran_order, data] = *pickle.items(state)? else {
        return None;
    };
    let [rows, columns] = *pickle.items(shape)? else {
        return None;
    };
    let rows = usize::try_from(pickle.int(rows)?).ok()?;
    let columns = usize::try_from(pickle.int(columns)?).ok()?;
    let data = pickle.bytes(data)?;
    if !is_u8(pickle, dtype)? || columns != IMAGE || rows.checked_mul(IMAGE) != Some(data.len()) {
        return None;
    }
    match pickle.value(fortran_order) {
        Value::Bool(false) | Value::Int(0) => Some(data.into_owned()),
        // Column by column.
        Value::Bool(true) | Value::Int(1) => Some(
            (0..data.len())
                .map(|at| data[at % IMAGE * rows + at / IMAGE])
                .collect(),
        ),
        _ => None,
    }
}

/// The state that a call of the right function was given.
fn call(pickle: &Pickle<'_>, id: Id, is_right: impl Fn(&str, &str) -> bool) -> Option<Id> {
    match pickle.value(id) {
        Value::Call {
            function, state, ..
        } => match pickle.value(*function) {
            Value::Global(module, name) if is_right(module, name) => *state,
            _ => None,
        },
        _ => None,
    }
}

/// NumPy 2 moved the function.
fn is_reconstruct(module: &str, name: &str) -> bool {
    matches!(module, "numpy.core.multiarray" | "numpy._core.multiarray") && name == "_reconstruct"
}

/// Whether a pickled `numpy.dtype(...)` is that of unsigned bytes.
fn is_u8(pickle: &Pickle<'_>, id: Id) -> Option<bool> {
    let Value::Call {
        function,
        arguments,
        ..
    } = pickle.value(id)
    else {
        return None;
    };
    let name = pickle.bytes(*pickle.items(*arguments)?.first()?)?;
    let is_dtype = matches!(pickle.value(*function), Value::Global("numpy", "dtype"));
    Some(is_dtype && matches!(&*name, b"u1" | b"|u1" | b"uint8"))
}
