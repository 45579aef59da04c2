//! PyTorch state dicts: `torch.save(model.state_dict(), path)`, in the zip format and in the older
//! one.
//!
//! Both hold a pickle whose tensors point at storages outside it. Source: `torch/serialization.py`,
//! `torch/_utils.py`.

mod export;
mod legacy;
mod machine;
mod pickle;
mod pytorchcv;
mod state_dict;
mod view;
mod zipped;

pub use export::{PytorchNames, save_pytorch};
pub(crate) use legacy::{is_legacy, read as read_legacy};
pub(crate) use pytorchcv::from_pytorchcv;
pub(crate) use zipped::{is_pytorch, read as read_zip};

use crate::error::{ErrorKind, damaged as damaged_as};

const FORMAT: &str = "PyTorch file";

fn damaged(reason: impl ToString) -> ErrorKind {
    damaged_as(FORMAT, reason)
}
