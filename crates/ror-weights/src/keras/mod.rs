//! Keras weight files: what they hold, whichever of Keras's three layouts they use.

mod archive;
mod config;
mod describe;
mod export;
mod graph;
mod hdf5_file;
mod import;
mod keras_order;
mod layers;
mod layers_group;
mod legacy;
mod metered;
mod names;
mod place;

use hdf5::File;
use metered::Metered;
use serde_json::Value;

use crate::array::{Array, Budget};
use crate::error::{ErrorKind, Result};

pub(crate) use archive::{is_keras, read as read_archive};
pub(crate) use export::export;
pub(crate) use import::import;

/// The content of a Keras file, without optimizer state.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct KerasFile {
    pub(crate) layers: Vec<KerasLayer>,
    pub(crate) order: LayerOrder,
    /// `theano`, `tensorflow`, ...: who wrote it, where the file says so (Keras 1 never does).
    pub(crate) backend: Option<String>,
    pub(crate) keras_version: Option<String>,
    /// The model's `config`, in whole-model files.
    pub(crate) config: Option<Value>,
    /// What files of ours say of themselves: the text of [`metadata`](crate::metadata).
    pub(crate) text: Option<String>,
}

/// One layer and its weights, in Keras's order. Layers without weights are kept: their names tell
/// dropout and activations.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct KerasLayer {
    /// The layer's own name; its group's name where the file does not have the own one.
    pub(crate) name: String,
    /// Whether it is its own.
    pub(crate) named: bool,
    pub(crate) weights: Vec<Array>,
}

/// What the order of [`KerasFile::layers`] means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LayerOrder {
    /// The model's own: graph depth.
    Model,
    /// Alphabetic by class, and the model's own within a class.
    ByClass,
}

/// Reads Keras HDF5 of either layout from `bytes`, the content of a file.
pub(crate) fn read_hdf5(bytes: Vec<u8>) -> Result<KerasFile> {
    let mut budget = Budget::for_file(bytes.len());
    let file = File::from_source(Metered::new(bytes)).map_err(hdf5_file::damaged)?;
    let root = file.root();
    let subgroups = root.groups().map_err(hdf5_file::damaged)?;
    let has = |name: &str| subgroups.iter().any(|g| g == name);
    if has("model_weights") {
        legacy::read_whole_model(&root, &mut budget)
    } else if legacy::is_weight_group(&root)? {
        legacy::read_weights(&root, &mut budget)
    } else if has("layers") {
        layers_group::read(&root, &mut budget)
    } else {
        let datasets = root.datasets().map_err(hdf5_file::damaged)?;
        let mut members: Vec<&str> = subgroups
            .iter()
            .chain(&datasets)
            .map(String::as_str)
            .collect();
        members.sort_unstable();
        members.truncate(5);
        Err(ErrorKind::Unrecognised {
            found: format!(
                "an HDF5 file with no Keras weights in it (at its root: {})",
                if members.is_empty() {
                    "nothing".to_owned()
                } else {
                    members.join(", ")
                }
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdf5::{AttrValue, FileBuilder};

    fn no_strings() -> AttrValue {
        AttrValue::F64Array(Vec::new())
    }

    fn strings(items: &[&str]) -> AttrValue {
        AttrValue::AsciiStringArray(items.iter().map(|&s| s.to_owned()).collect())
    }

    /// A weight file of an input layer `x` and a dense layer `d`, whose kernel `build` describes.
    fn weight_file(build: impl FnOnce(&mut hdf5::DatasetBuilder)) -> Vec<u8> {
        let mut file = FileBuilder::new();
        // As Keras splits a list that is too long for one attribute.
        file.set_attr("layer_names0", strings(&["x"]));
        file.set_attr("layer_names1", strings(&["d"]));
        file.set_attr("backend", AttrValue::VarLenString("theano".into()));
        let mut input = file.create_group("x");
        input.set_attr("weight_names", no_strings());
        file.add_group(input.finish());
        let mut dense = file.create_group("d");
        dense.set_attr("weight_names", strings(&["d_W"]));
        build(dense.create_dataset("d_W"));
        file.add_group(dense.finish());
        file.finish().unwrap()
    }

    #[test]
    fn layers_come_in_the_order_of_their_attribute() {
        let bytes = weight_file(|d| {
            d.with_f32_data(&[1.0, 2.0]).with_shape(&[2, 1]);
        });
        let file = read_hdf5(bytes).unwrap();
        let layers: Vec<_> = file
            .layers
            .iter()
            .map(|l| (l.name.as_str(), l.weights.len()))
            .collect();
        assert_eq!(layers, [("x", 0), ("d", 1)]);
        assert_eq!(file.layers[1].weights[0].shape, [2, 1]);
        assert_eq!(file.backend.as_deref(), Some("theano"));
        assert_eq!(file.order, LayerOrder::Model);
    }

    #[test]
    fn a_layer_may_be_called_by_a_path() {
        let mut file = FileBuilder::new();
        file.set_attr("layer_names", strings(&["a/d"]));
        let mut outer = file.create_group("a");
        let mut inner = outer.create_group("d");
        inner.set_attr("weight_names", strings(&["d_W"]));
        inner.create_dataset("d_W").with_f32_data(&[1.0]);
        outer.add_group(inner.finish());
        file.add_group(outer.finish());
        let file = read_hdf5(file.finish().unwrap()).unwrap();
        assert_eq!(file.layers[0].weights[0].data, [1.0]);
    }

    #[test]
    fn compressed_and_float64_weights_are_read() {
        let file = read_hdf5(weight_file(|d| {
            d.with_f64_data(&[0.25; 1000])
                .with_chunks(&[100])
                .with_deflate(6);
        }));
        assert_eq!(file.unwrap().layers[1].weights[0].data, [0.25; 1000]);
    }

    #[test]
    fn integer_and_infinite_weights_are_refused_by_name() {
        let error = read_hdf5(weight_file(|d| {
            d.with_i32_data(&[1]);
        }));
        assert_eq!(
            error.unwrap_err().to_string(),
            "tensor `d_W`: expected floating-point values, found i32"
        );
        let error = read_hdf5(weight_file(|d| {
            d.with_f32_data(&[0.0, f32::INFINITY]);
        }));
        assert_eq!(
            error.unwrap_err().to_string(),
            "tensor `d_W` holds inf at element 1; weights must be finite"
        );
    }

    #[test]
    fn a_shape_beyond_the_file_is_refused_before_it_is_allocated() {
        // Zeros compress a thousandfold.
        let error = read_hdf5(weight_file(|d| {
            d.with_f32_data(&vec![0.0; 4 << 20])
                .with_chunks(&[4 << 20])
                .with_deflate(9);
        }));
        assert_eq!(
            error.unwrap_err().to_string(),
            "tensor `d_W`: expected a shape that the file's bytes can fill, found [4194304]"
        );
    }

    #[test]
    fn other_hdf5_files_are_named_for_what_they_hold() {
        let mut file = FileBuilder::new();
        file.create_dataset("temperature").with_f32_data(&[1.0]);
        let error = read_hdf5(file.finish().unwrap()).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("no Keras weights in it (at its root: temperature)"),
            "{error}"
        );
    }
}
