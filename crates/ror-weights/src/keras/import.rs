//! From a Keras file to a network and its tensors.

use ror_models::Description;

use super::config::Config;
use super::describe::Evidence;
use super::layers::{Axes, Layers};
use super::place::{by_name, in_order};
use super::{KerasFile, LayerOrder};
use crate::difference::as_asked;
use crate::error::Result;
use crate::load::{Found, Kernels, LoadOptions, network};
use crate::metadata;
use crate::named;
use crate::weights::{Format, Metadata};

/// Finds the network and places the file's weights in it.
pub(crate) fn import(file: KerasFile, options: &LoadOptions) -> Result<Found> {
    let mut notes = Vec::new();
    let axes = Layers::axes(&file)?;
    let kernels = kernels(&file, axes, options.kernels, &mut notes);
    let format = format(&file);
    let described = file.text.as_deref().map(metadata::from_text).transpose()?;
    let config = Config::of(file.config.as_ref());
    let layers = Layers::of(file.layers, file.order, axes, kernels)?;
    if let Some((described, metadata)) = described {
        // A file of ours: layers are named after their places.
        let description = as_asked(described, options.model.as_ref(), &mut notes);
        let network = network(&description)?;
        let tensors = named::place(&network, by_name(&network, layers))?;
        return Ok(Found {
            description,
            metadata,
            tensors,
            notes,
            format,
        });
    }
    let evidence = Evidence {
        layers: &layers,
        config: &config,
        theano: kernels == Kernels::Theano,
    };
    let description = match &options.model {
        Some(description) => Description {
            norm: evidence.norm(description.norm, &mut notes)?,
            ..description.clone()
        },
        None => evidence.describe(&mut notes)?,
    };
    let tensors = in_order(&network(&description)?, layers, &config)?;
    Ok(Found {
        description,
        metadata: Metadata::default(),
        tensors,
        notes,
        format,
    })
}

/// Decides whose convention the kernels follow.
///
/// The caller's word counts most, then the file's attribute `backend`. Keras 1 wrote none: its
/// O,I,H,W kernels are taken as Theano's, H,W,I,O as TensorFlow's, each backend's habit. The newer
/// layouts have no Theano behind them.
fn kernels(
    file: &KerasFile,
    axes: Axes,
    wanted: Option<Kernels>,
    notes: &mut Vec<String>,
) -> Kernels {
    let stated = match (&file.backend, file.order) {
        (Some(backend), _) if backend == "theano" => Some(Kernels::Theano),
        (Some(_), _) | (None, LayerOrder::ByClass) => Some(Kernels::TensorFlow),
        (None, LayerOrder::Model) => None,
    };
    match (wanted, stated) {
        (Some(wanted), Some(stated)) if wanted != stated => {
            notes.push(format!(
                "the file says that its kernels are {stated:?}'s; they are taken as {wanted:?}'s, \
                 as asked"
            ));
            wanted
        }
        (Some(kernels), _) | (None, Some(kernels)) => kernels,
        (None, None) => {
            let (layout, taken, other) = match axes {
                Axes::Oihw => ("O,I,H,W", Kernels::Theano, "tensorflow"),
                Axes::Hwio => ("H,W,I,O", Kernels::TensorFlow, "theano"),
            };
            notes.push(format!(
                "the file does not say which backend wrote it; its {layout} kernels are taken as \
                 {taken:?}'s (if predictions are wrong, try `--kernels {other}`)"
            ));
            taken
        }
    }
}

fn format(file: &KerasFile) -> Format {
    // Keras 1 does not state its version beside weights alone, but no other names kernels so.
    let is_keras1 = || {
        file.layers
            .iter()
            .flat_map(|l| &l.weights)
            .any(|w| w.name.ends_with("_W"))
    };
    let version = file
        .keras_version
        .clone()
        .or_else(|| is_keras1().then(|| "1".to_owned()));
    match (file.order, &file.config) {
        (LayerOrder::Model, config) => Format::KerasHdf5 {
            version,
            whole_model: config.is_some(),
        },
        (LayerOrder::ByClass, None) => Format::KerasWeights,
        (LayerOrder::ByClass, Some(_)) => Format::KerasArchive { version },
    }
}

#[cfg(test)]
#[path = "import_tests.rs"]
mod tests;
