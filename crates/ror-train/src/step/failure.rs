//! Errors from threads.

use candle_core::{Error, Result};
use ror_ops::kernels::KernelError;
use std::sync::{Mutex, PoisonError};

/// The first error that any thread met.
#[derive(Default)]
pub(super) struct Failure(Mutex<Option<KernelError>>);

impl Failure {
    pub(super) fn note(&self, result: std::result::Result<(), KernelError>) {
        if let Err(error) = result {
            let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert(error);
        }
    }

    pub(super) fn result(self) -> Result<()> {
        match self.0.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(Error::wrap(error)),
            None => Ok(()),
        }
    }
}
