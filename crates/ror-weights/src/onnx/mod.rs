//! ONNX, for every runtime that is not this one.

mod affine;
mod graph;
mod protobuf;
mod schema;

use std::path::Path;

use ror_models::Network;
use serde_json::json;

use crate::error::{ErrorKind, Result, WeightsError};
use crate::metadata;
use crate::save::save_in_stream;
use crate::weights::Weights;

/// Readers of protocol buffers take no message of more than 2 GiB.
const MAX_BYTES: u64 = i32::MAX as u64;

/// What [`save_onnx`] makes of a network beyond its layers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OnnxOptions {
    /// End in softmax: the output is `probabilities` instead of `logits`.
    pub softmax: bool,
    /// Fold a batch normalisation into the convolution right before it. Runtimes do that themselves
    /// when they load a model; kept apart, the weights can still be read back one by one.
    pub fold_norms: bool,
}

/// Writes an ONNX model (operator set 17, which every runtime since 2022 reads) that computes what
/// the network does in evaluation.
///
/// `images` `(batch, C, H, W)`, float32, normalised, of the size that the description names, give
/// `logits` `(batch, classes)`, `probabilities` with [`OnnxOptions::softmax`], or without the
/// classifier `features` `(batch, width)`. Nodes are named as the levels nest,
/// `root/group2/block3/conv1`. The model's metadata holds `class_names` (a JSON list),
/// `normalisation` (JSON, `mean` and `std` per channel of pixels scaled to 0..1) where they are
/// known, and `ror`, the whole description.
///
/// # Errors
/// As [`save_safetensors`](crate::save_safetensors); softmax without classifier; more than 2 GiB.
pub fn save_onnx(
    path: &Path,
    weights: &Weights,
    options: &OnnxOptions,
) -> Result<(), WeightsError> {
    save_in_stream(path, weights, |network, out| {
        let inexpressible = |reason: &str| ErrorKind::Inexpressible {
            model: network.description.to_string(),
            format: "ONNX",
            reason: reason.to_owned(),
        };
        if options.softmax && network.head.classes.is_none() {
            return Err(inexpressible(
                "softmax needs the classifier, which it is without",
            ));
        }
        let graph = graph::graph(network, weights, options);
        let model = schema::model(graph, &metadata(network, weights)?);
        if model.len() > MAX_BYTES {
            return Err(inexpressible("its weights are more than 2 GiB"));
        }
        model.write(out)
    })
}

fn metadata(network: &Network, weights: &Weights) -> Result<Vec<(&'static str, String)>> {
    let mut pairs = Vec::new();
    if let Some(names) = &weights.metadata.class_names {
        pairs.push(("class_names", json!(names).to_string()));
    }
    if let Some(normalisation) = &weights.metadata.normalisation {
        pairs.push(("normalisation", json!(normalisation).to_string()));
    }
    let text = metadata::to_text(&network.description, &weights.metadata)?;
    pairs.push((metadata::KEY, text));
    Ok(pairs)
}
