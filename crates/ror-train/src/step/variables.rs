//! The variables and gradients of the caller, by name.

use crate::Gradients;
use candle_core::{CpuStorage, Result, Storage, Var};
use ror_models::Parameters;
use std::ops::Deref;

pub(super) fn variable<'p>(parameters: &'p Parameters, name: &str) -> Result<&'p Var> {
    match parameters.get(name) {
        Some(var) => Ok(var),
        None => candle_core::bail!("no variable `{name}`"),
    }
}

pub(super) fn gradient<'g>(gradients: &'g mut Gradients, name: &str) -> Result<&'g mut [f32]> {
    match gradients.get_mut(name) {
        Some(gradient) => Ok(gradient),
        None => candle_core::bail!("no place for the gradient of `{name}`"),
    }
}

/// A variable's values, held as long as they are read.
pub(super) struct Values<S> {
    storage: S,
    range: Option<(usize, usize)>,
}

pub(super) fn values(var: &Var) -> Values<impl Deref<Target = Storage>> {
    let (storage, layout) = var.storage_and_layout();
    Values {
        range: layout.contiguous_offsets(),
        storage,
    }
}

impl<S: Deref<Target = Storage>> Values<S> {
    pub(super) fn as_slice(&self) -> Result<&[f32]> {
        match (&*self.storage, self.range) {
            (Storage::Cpu(CpuStorage::F32(values)), Some((from, to))) => Ok(&values[from..to]),
            _ => candle_core::bail!("expected a contiguous f32 variable on the CPU"),
        }
    }
}
