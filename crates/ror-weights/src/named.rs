//! Files whose tensors are told apart by name: PyTorch state dicts and safetensors.

use std::collections::BTreeMap;

use ror_models::Network;

use crate::array::Array;
use crate::error::{ErrorKind, Result};
use crate::infer;
use crate::load::{Found, LoadOptions, network};
use crate::metadata;
use crate::weights::{Format, Metadata};

/// Tensors by name, and what the file says of itself.
#[derive(Debug)]
pub(crate) struct NamedFile {
    pub(crate) tensors: Vec<Array>,
    pub(crate) pairs: BTreeMap<String, String>,
    pub(crate) format: Format,
}

/// Finds the network and places the tensors in it.
pub(crate) fn import(file: NamedFile, options: &LoadOptions) -> Result<Found> {
    let mut extra = file.pairs;
    let described = extra
        .remove(metadata::KEY)
        .map(|text| metadata::from_text(&text))
        .transpose()?;
    let is_described = described.is_some();
    let (described, mut metadata) =
        described.map_or((None, Metadata::default()), |(d, m)| (Some(d), m));
    metadata.extra.extend(extra);
    let mut tensors = BTreeMap::new();
    for array in file.tensors {
        let name = from_pytorchcv(&array.name).unwrap_or_else(|| array.name.clone());
        let stored = array.name.clone();
        if tensors.insert(name, array).is_some() {
            return Err(ErrorKind::Architecture(format!(
                "tensor `{stored}` is there twice"
            )));
        }
    }
    let mut notes = Vec::new();
    let description = match options.model.clone().or(described) {
        Some(description) => description,
        None => infer::from_names(&tensors, &mut notes)?,
    };
    let tensors = place(&network(&description)?, tensors)?;
    Ok(Found {
        description,
        metadata,
        tensors,
        notes,
        format: match file.format {
            Format::Safetensors { .. } => Format::Safetensors {
                described: is_described,
            },
            format => format,
        },
    })
}

/// Checks that `tensors` are those of `network`, no more and no fewer.
pub(crate) fn place(
    network: &Network,
    mut tensors: BTreeMap<String, Array>,
) -> Result<BTreeMap<String, Array>> {
    let model = || network.description.to_string();
    let mut placed = BTreeMap::new();
    for spec in network.tensors() {
        let Some(array) = tensors.remove(&spec.name) else {
            return Err(ErrorKind::Missing {
                tensor: spec.name,
                shape: spec.shape,
                model: model(),
            });
        };
        if array.shape != spec.shape {
            return Err(ErrorKind::Shape {
                tensor: spec.name,
                stored: array.name,
                expected: spec.shape,
                found: array.shape,
                model: model(),
            });
        }
        placed.insert(spec.name, array);
    }
    match tensors.into_values().next() {
        Some(array) => Err(ErrorKind::Surplus {
            tensor: array.name,
            shape: array.shape,
            model: model(),
        }),
        None => Ok(placed),
    }
}

/// Our name of a tensor that pytorchcv (`ror_cifar.py`) calls `name`; `None` for names of other
/// origin.
fn from_pytorchcv(name: &str) -> Option<String> {
    if let Some(rest) = name.strip_prefix("output.") {
        return Some(format!("head.dense.{rest}"));
    }
    let rest = name.strip_prefix("features.")?;
    let (path, rest) = if let Some(rest) = rest.strip_prefix("init_block.") {
        ("stem.".to_owned(), rest)
    } else if let Some(rest) = rest.strip_prefix("body.shortcut.") {
        ("root.shortcut.".to_owned(), rest)
    } else {
        let (stage, rest) = rest.strip_prefix("body.stages.stage")?.split_once('.')?;
        if let Some(rest) = rest.strip_prefix("shortcut.") {
            (format!("root.group{stage}.shortcut."), rest)
        } else {
            let (unit, rest) = rest.strip_prefix("units.unit")?.split_once('.')?;
            let block = format!("root.group{stage}.block{unit}.");
            if let Some(rest) = rest.strip_prefix("identity_conv.") {
                (format!("{block}shortcut."), rest)
            } else {
                let (conv, rest) = rest.strip_prefix("body.conv")?.split_once('.')?;
                // pytorchcv pairs a convolution with its norm, we number both.
                return match rest.split_once('.')? {
                    ("conv", tensor) => Some(format!("{block}conv{conv}.{tensor}")),
                    ("bn", tensor) => Some(format!("{block}norm{conv}.{tensor}")),
                    _ => None,
                };
            }
        }
    };
    match rest.split_once('.')? {
        ("conv", tensor) => Some(format!("{path}conv.{tensor}")),
        ("bn", tensor) => Some(format!("{path}norm.{tensor}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pytorchcv_names_become_ours() {
        for (theirs, ours) in [
            ("features.init_block.conv.weight", "stem.conv.weight"),
            (
                "features.init_block.bn.running_var",
                "stem.norm.running_var",
            ),
            ("features.body.shortcut.bn.bias", "root.shortcut.norm.bias"),
            (
                "features.body.stages.stage2.shortcut.conv.weight",
                "root.group2.shortcut.conv.weight",
            ),
            (
                "features.body.stages.stage3.units.unit12.body.conv2.bn.weight",
                "root.group3.block12.norm2.weight",
            ),
            (
                "features.body.stages.stage2.units.unit1.identity_conv.conv.weight",
                "root.group2.block1.shortcut.conv.weight",
            ),
            ("output.bias", "head.dense.bias"),
        ] {
            assert_eq!(from_pytorchcv(theirs).as_deref(), Some(ours));
        }
        for other in [
            "stem.conv.weight",
            "features.body.x",
            "features.init_block.activ.weight",
            "layer1.0.bn1.bias",
        ] {
            assert_eq!(from_pytorchcv(other), None);
        }
    }
}
