//! Writing state dicts, as safetensors, for PyTorch to load.

use std::path::Path;

use ror_models::{Description, Dialect, TensorRole};

use super::pytorchcv::to_pytorchcv;
use crate::error::{ErrorKind, Result, WeightsError};
use crate::metadata;
use crate::safetensors::{self, Precision};
use crate::save::save;
use crate::weights::Weights;

/// How [`save_pytorch`] names tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PytorchNames {
    /// As [`Network::tensors`](ror_models::Network::tensors) does, for modules that nest and are called as its levels:
    /// `root.group2.block3.conv1.weight`. Every network has these.
    Levels,
    /// As pytorchcv's `CIFARRoR` does: `features.body.stages.stage2.units.unit3.body.conv1.conv.weight`.
    /// Only networks that it can build have these.
    Pytorchcv,
}

/// Writes safetensors that are a whole PyTorch state dict: kernels `(O, I, H, W)`, matrices
/// `(out, in)`, for every batch norm `weight`, `bias`, `running_mean`, `running_var` and the
/// counter `num_batches_tracked` (int64, zero). `load_state_dict` takes it with `strict=True`.
///
/// The file also carries what [`save_safetensors`](crate::save_safetensors) writes, so that
/// [`load`](fn@crate::load) reads it back exactly.
///
/// # Errors
/// As [`save_safetensors`](crate::save_safetensors); pytorchcv's names for a network that
/// pytorchcv does not have, with the difference.
pub fn save_pytorch(
    path: &Path,
    weights: &Weights,
    names: PytorchNames,
) -> Result<(), WeightsError> {
    save(path, weights, |network, mut arrays, out| {
        if names == PytorchNames::Pytorchcv {
            check_pytorchcv(&network.description)?;
            for array in &mut arrays {
                array.name = to_pytorchcv(&array.name).ok_or_else(|| {
                    let reason = format!("it has no name for `{}`", array.name);
                    refuse(&network.description, reason)
                })?;
            }
        }
        let counters = network
            .tensors()
            .iter()
            .zip(&arrays)
            .filter(|(spec, _)| spec.role == TensorRole::RunningVariance)
            .map(|(_, array)| array.name.replace("running_var", "num_batches_tracked"))
            .collect();
        let text = metadata::to_text(&network.description, &weights.metadata)?;
        Ok(out.write_all(&safetensors::write(
            arrays,
            Precision::Single,
            counters,
            text,
        )?)?)
    })
}

/// Refuses what pytorchcv's `CIFARRoR` would not compute as `described`.
fn check_pytorchcv(described: &Description) -> Result<()> {
    let d = described;
    if d.dialect != Dialect::Pytorchcv {
        return Err(refuse(d, format!("it is of the {} dialect", d.dialect)));
    }
    let theirs = Description::new(d.dialect, d.family, d.depth, d.width)?;
    let reason = if !d.top {
        "it has no classifier".to_owned()
    } else if d.shortcuts != theirs.shortcuts {
        format!(
            "its shortcuts are {:?}, not {:?}",
            d.shortcuts, theirs.shortcuts
        )
    } else if d.stochastic_depth.is_some_and(|p| p < 1.0) {
        "stochastic depth scales its residuals".to_owned()
    } else if d.norm.epsilon != theirs.norm.epsilon {
        format!(
            "its epsilon is {}, not {}",
            d.norm.epsilon, theirs.norm.epsilon
        )
    } else if d.image_size != theirs.image_size {
        let [[h, w], [height, width]] = [d.image_size, theirs.image_size];
        format!("its images are {h} x {w}, not {height} x {width}")
    } else {
        return Ok(());
    };
    Err(refuse(d, reason))
}

fn refuse(description: &Description, reason: String) -> ErrorKind {
    ErrorKind::Inexpressible {
        model: description.to_string(),
        format: "a state dict of pytorchcv",
        reason,
    }
}
