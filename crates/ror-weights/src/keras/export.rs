//! Writing a whole Keras model in HDF5, in the layout that [`legacy`](super::legacy) reads.

use hdf5::{AttrValue, FileBuilder, GroupBuilder, LibVer};
use ror_models::Network;
use serde_json::{Value, json};

use super::graph::{self, Node};
use super::hdf5_file::damaged;
use crate::array::Array;
use crate::error::Result;
use crate::metadata;

/// Who the file says wrote it: any version of tf.keras 2 reads the others' files.
const BACKEND: &str = "tensorflow";
const KERAS_VERSION: &str = "2.15.0";

/// An attribute may take 64 KiB, and a string in a list 16 bytes of it.
const NAMES_PER_ATTRIBUTE: usize = 4000;

/// The bytes of a file with `network` as a model, its `arrays` as the model's weights, and `text`
/// for ourselves.
pub(crate) fn export(network: &Network, arrays: Vec<Array>, text: String) -> Result<Vec<u8>> {
    let nodes = graph::nodes(network, arrays);
    let mut file = FileBuilder::new();
    file.with_libver_bounds(LibVer::Earliest, LibVer::V18);
    let config = model_config(&nodes, &network.description.to_string()).to_string();
    for (name, value) in [
        ("backend", BACKEND.to_owned()),
        ("keras_version", KERAS_VERSION.to_owned()),
        ("model_config", config),
        (metadata::KEY, text),
    ] {
        file.set_attr(name, AttrValue::VarLenString(value));
    }
    let mut weights = file.create_group("model_weights");
    weights.set_attr("backend", AttrValue::VarLenString(BACKEND.to_owned()));
    weights.set_attr(
        "keras_version",
        AttrValue::VarLenString(KERAS_VERSION.to_owned()),
    );
    set_names(
        &mut weights,
        "layer_names",
        nodes.iter().map(|n| n.name.clone()).collect(),
    );
    for node in nodes {
        let group = layer_group(&mut weights, node);
        weights.add_group(group.finish());
    }
    file.add_group(weights.finish());
    file.finish().map_err(damaged)
}

fn layer_group(parent: &mut GroupBuilder, node: Node) -> GroupBuilder {
    let mut group = parent.create_group(&node.name);
    set_names(
        &mut group,
        "weight_names",
        node.weights.iter().map(|w| w.name.clone()).collect(),
    );
    // Names repeat the layer's: its group holds another of the same name.
    let mut inner = group.create_group(&node.name);
    for weight in node.weights {
        let shape: Vec<u64> = weight.shape.iter().map(|&d| d as u64).collect();
        let name = weight.name.rsplit('/').next().unwrap_or_default();
        inner
            .create_dataset(name)
            .with_f32_data(&weight.data)
            .with_shape(&shape);
    }
    group.add_group(inner.finish());
    group
}

/// Sets a list of names, cut into parts as Keras cuts it where one attribute cannot hold it.
fn set_names(group: &mut GroupBuilder, attribute: &str, names: Vec<String>) {
    if names.is_empty() {
        group.set_attr(attribute, AttrValue::F64Array(Vec::new()));
    } else if names.len() <= NAMES_PER_ATTRIBUTE {
        group.set_attr(attribute, AttrValue::VarLenStringArray(names));
    } else {
        for (i, part) in names.chunks(NAMES_PER_ATTRIBUTE).enumerate() {
            group.set_attr(
                &format!("{attribute}{i}"),
                AttrValue::VarLenStringArray(part.to_vec()),
            );
        }
    }
}

fn model_config(nodes: &[Node], name: &str) -> Value {
    let tensor = |i: usize| json!([nodes[i].name, 0, 0]);
    let layers: Vec<Value> = nodes
        .iter()
        .map(|node| {
            let inputs: Vec<Value> = node
                .inputs
                .iter()
                .map(|&i| json!([nodes[i].name, 0, 0, {}]))
                .collect();
            json!({
                "class_name": node.class,
                "config": node.config,
                "name": node.name,
                "inbound_nodes": if inputs.is_empty() { json!([]) } else { json!([inputs]) },
            })
        })
        .collect();
    json!({
        "class_name": "Functional",
        "config": {
            "name": name.replace('-', "_"),
            "layers": layers,
            "input_layers": [tensor(0)],
            "output_layers": [tensor(nodes.len() - 1)],
        },
    })
}
