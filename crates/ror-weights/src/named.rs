//! Files whose tensors are told apart by name: PyTorch state dicts and safetensors.

use std::collections::BTreeMap;

use ror_models::Network;

use crate::array::Array;
use crate::difference::as_asked;
use crate::error::{ErrorKind, Result};
use crate::infer;
use crate::load::{Found, LoadOptions, network};
use crate::metadata;
use crate::pytorch::from_pytorchcv;
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
    let asked = options.model.as_ref();
    let description = match (described, asked) {
        (Some(described), _) => as_asked(described, asked, &mut notes),
        (None, Some(asked)) => asked.clone(),
        (None, None) => infer::from_names(&tensors, &mut notes)?,
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
    tensors: BTreeMap<String, Array>,
) -> Result<BTreeMap<String, Array>> {
    let stored = tensors.iter();
    check(
        network,
        stored.map(|(name, a)| (name.as_str(), a.name.as_str(), a.shape.as_slice())),
    )?;
    Ok(tensors)
}

/// Checks that the tensors stored, each by its name in the network, its name in the file and its
/// shape, are those of `network`, no more and no fewer.
pub(crate) fn check<'a>(
    network: &Network,
    stored: impl Iterator<Item = (&'a str, &'a str, &'a [usize])>,
) -> Result<()> {
    let model = || network.description.to_string();
    let mut stored: BTreeMap<_, _> = stored
        .map(|(name, as_, shape)| (name, (as_, shape)))
        .collect();
    for spec in network.tensors() {
        let Some((name, shape)) = stored.remove(spec.name.as_str()) else {
            return Err(ErrorKind::Missing {
                tensor: spec.name,
                shape: spec.shape,
                model: model(),
            });
        };
        if shape != spec.shape {
            return Err(ErrorKind::Shape {
                tensor: spec.name,
                stored: name.to_owned(),
                expected: spec.shape,
                found: shape.to_vec(),
                model: model(),
            });
        }
    }
    match stored.into_values().next() {
        Some((name, shape)) => Err(ErrorKind::Surplus {
            tensor: name.to_owned(),
            shape: shape.to_vec(),
            model: model(),
        }),
        None => Ok(()),
    }
}
