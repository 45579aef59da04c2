//! A network as the layers of a Keras functional model, channels last.

use std::collections::BTreeMap;

use ror_models::blocks::{Block, Layer, NamedLayer, Shortcut};
use ror_models::{Level, Member, Network};
use serde_json::{Value, json};

use super::keras_order::keras_order;
use super::names::{keras_name, padding_name, survival_path};
use crate::array::Array;

/// A layer: what Keras calls its class and configuration, which layers it takes, its weights in
/// Keras's order.
pub(super) struct Node {
    pub(super) name: String,
    pub(super) class: &'static str,
    pub(super) config: Value,
    pub(super) inputs: Vec<usize>,
    /// Keras's names and axis orders.
    pub(super) weights: Vec<Array>,
}

/// The layers of `network` in the order in which Keras itself lists and saves them.
pub(super) fn nodes(network: &Network, arrays: Vec<Array>) -> Vec<Node> {
    let mut builder = Builder {
        nodes: Vec::new(),
        arrays: arrays.into_iter().map(|a| (a.name.clone(), a)).collect(),
        network,
    };
    builder.network();
    keras_order(builder.nodes)
}

struct Builder<'a> {
    nodes: Vec<Node>,
    arrays: BTreeMap<String, Array>,
    network: &'a Network,
}

impl Builder<'_> {
    fn network(&mut self) {
        let network = self.network;
        let [height, width] = network.description.image_size;
        let shape = json!([null, height, width, network.description.channels]);
        let mut x = self.add(
            "input",
            "InputLayer",
            json!({ "batch_input_shape": shape }),
            vec![],
        );
        for layer in &network.stem {
            x = self.layer(layer, "stem", x);
        }
        x = self.level(&network.root, &network.root.name, x);
        for layer in &network.head.layers {
            x = self.layer(layer, "head", x);
        }
        x = self.add(
            "head.pool",
            "GlobalAveragePooling2D",
            json!({ "data_format": "channels_last" }),
            vec![x],
        );
        if let Some(classes) = network.head.classes {
            let config = json!({ "units": classes, "activation": "softmax", "use_bias": true });
            self.add("head.dense", "Dense", config, vec![x]);
            let kernel = self.take("head.dense.weight", "kernel", |mut a| {
                a.data = transposed(&a.data, a.shape[0]);
                a.shape.reverse();
                a
            });
            let bias = self.take("head.dense.bias", "bias", |a| a);
            self.give(kernel.into_iter().chain(bias));
        }
    }

    fn level(&mut self, level: &Level, path: &str, input: usize) -> usize {
        let mut x = input;
        for member in &level.body {
            x = match member {
                Member::Level(inner) => self.level(inner, &format!("{path}.{}", inner.name), x),
                Member::Block(block) => self.block(block, &format!("{path}.{}", block.name), x),
                Member::Layer(layer) => self.layer(layer, path, x),
            };
        }
        self.sum(
            &level.shortcut,
            level.in_channels,
            level.activation,
            path,
            [input, x],
        )
    }

    fn block(&mut self, block: &Block, path: &str, input: usize) -> usize {
        let mut x = input;
        for layer in &block.body {
            x = self.layer(layer, path, x);
        }
        if block.survival < 1.0 {
            x = self.add(
                &survival_path(path),
                "Rescaling",
                json!({ "scale": block.survival, "offset": 0.0 }),
                vec![x],
            );
        }
        self.sum(
            &block.shortcut,
            block.in_channels,
            block.activation,
            path,
            [input, x],
        )
    }

    /// The end of a level or block whose shortcut starts from `input` of `in_channels`.
    fn sum(
        &mut self,
        shortcut: &Shortcut,
        in_channels: usize,
        activation: bool,
        path: &str,
        [input, body]: [usize; 2],
    ) -> usize {
        let path = |name: &str| format!("{path}.{name}");
        let shortcut = match *shortcut {
            Shortcut::None => None,
            Shortcut::Identity => Some(input),
            Shortcut::Pad { stride, channels } => {
                Some(self.padding(&path("shortcut"), stride, [in_channels, channels], input))
            }
            Shortcut::Projection(_) => {
                let layers = shortcut.layers();
                Some(
                    layers
                        .iter()
                        .fold(input, |x, layer| self.layer(layer, &path("shortcut"), x)),
                )
            }
        };
        let mut x = body;
        if let Some(shortcut) = shortcut {
            // The reference adds in this order, and the order of layers in files follows it.
            x = self.add(&path("add"), "Add", json!({}), vec![shortcut, body]);
        }
        if activation {
            x = self.add(
                &path("relu"),
                "Activation",
                json!({ "activation": "relu" }),
                vec![x],
            );
        }
        x
    }

    /// Subsampling, and a 1x1 convolution that copies each channel and fills the others with zeros.
    fn padding(
        &mut self,
        path: &str,
        stride: usize,
        [from, to]: [usize; 2],
        input: usize,
    ) -> usize {
        let mut x = input;
        if stride > 1 {
            let config = json!({
                "pool_size": [1, 1],
                "strides": [stride, stride],
                "padding": "valid",
                "data_format": "channels_last",
            });
            x = self.add(
                &format!("{path}.subsample"),
                "AveragePooling2D",
                config,
                vec![x],
            );
        }
        let mut config = conv_config(to, 1, 1, "valid", false);
        config["trainable"] = json!(false);
        x = self.add_named(padding_name(path), "Conv2D", config, vec![x]);
        let data = (0..from * to)
            .map(|i| f32::from(i / to == i % to))
            .collect();
        self.give([Array {
            name: "kernel".to_owned(),
            shape: vec![1, 1, from, to],
            data,
        }]);
        x
    }

    fn layer(&mut self, named: &NamedLayer, path: &str, input: usize) -> usize {
        let path = format!("{path}.{}", named.name);
        match named.layer {
            Layer::Conv {
                out_channels,
                kernel,
                stride,
                padding,
                bias,
                ..
            } => {
                // Keras's "same" pads strided convolutions on the far side only.
                let same = stride == 1 && padding == kernel / 2;
                let x = if same {
                    input
                } else {
                    self.pad_zeros(&path, padding, input)
                };
                let padding = if same { "same" } else { "valid" };
                let config = conv_config(out_channels, kernel, stride, padding, bias);
                let x = self.add(&path, "Conv2D", config, vec![x]);
                let kernel = self.take(&format!("{path}.weight"), "kernel", to_hwio);
                let bias = self.take(&format!("{path}.bias"), "bias", |a| a);
                self.give(kernel.into_iter().chain(bias));
                x
            }
            Layer::Norm { .. } => {
                let norm = *self.network.norm();
                let config = json!({
                    "axis": 3,
                    "momentum": 1.0 - norm.momentum.new_value_weight(),
                    "epsilon": norm.epsilon,
                    "center": true,
                    "scale": true,
                });
                let x = self.add(&path, "BatchNormalization", config, vec![input]);
                let weights = [
                    ("weight", "gamma"),
                    ("bias", "beta"),
                    ("running_mean", "moving_mean"),
                    ("running_var", "moving_variance"),
                ]
                .map(|(ours, keras)| self.take(&format!("{path}.{ours}"), keras, |a| a));
                self.give(weights.into_iter().flatten());
                x
            }
            Layer::Relu => self.add(
                &path,
                "Activation",
                json!({ "activation": "relu" }),
                vec![input],
            ),
            Layer::MaxPool {
                kernel,
                stride,
                padding,
            } => {
                // Zeros may stand for minus infinity: padded pools come after a rectifier.
                let x = self.pad_zeros(&path, padding, input);
                let config = json!({
                    "pool_size": [kernel, kernel],
                    "strides": [stride, stride],
                    "padding": "valid",
                    "data_format": "channels_last",
                });
                self.add(&path, "MaxPooling2D", config, vec![x])
            }
            Layer::Dropout { rate } => {
                self.add(&path, "Dropout", json!({ "rate": rate }), vec![input])
            }
        }
    }

    fn pad_zeros(&mut self, path: &str, padding: usize, input: usize) -> usize {
        if padding == 0 {
            return input;
        }
        let sides = json!([[padding, padding], [padding, padding]]);
        let config = json!({ "padding": sides, "data_format": "channels_last" });
        self.add(&format!("{path}.pad"), "ZeroPadding2D", config, vec![input])
    }

    fn add(&mut self, path: &str, class: &'static str, config: Value, inputs: Vec<usize>) -> usize {
        self.add_named(keras_name(path), class, config, inputs)
    }

    fn add_named(
        &mut self,
        name: String,
        class: &'static str,
        mut config: Value,
        inputs: Vec<usize>,
    ) -> usize {
        config["name"] = json!(name);
        config["dtype"] = json!("float32");
        self.nodes.push(Node {
            name,
            class,
            config,
            inputs,
            weights: Vec::new(),
        });
        self.nodes.len() - 1
    }

    /// The network's tensor `name`, if it has it, renamed and brought into Keras's form.
    fn take(
        &mut self,
        name: &str,
        keras: &str,
        form: impl FnOnce(Array) -> Array,
    ) -> Option<Array> {
        let array = self.arrays.remove(name)?;
        Some(Array {
            name: keras.to_owned(),
            ..form(array)
        })
    }

    /// Gives the layer added last its weights.
    fn give(&mut self, weights: impl IntoIterator<Item = Array>) {
        if let Some(node) = self.nodes.last_mut() {
            let name = node.name.clone();
            node.weights = weights
                .into_iter()
                .map(|w| Array {
                    name: format!("{name}/{}:0", w.name),
                    ..w
                })
                .collect();
        }
    }
}

fn conv_config(filters: usize, kernel: usize, stride: usize, padding: &str, bias: bool) -> Value {
    json!({
        "filters": filters,
        "kernel_size": [kernel, kernel],
        "strides": [stride, stride],
        "padding": padding,
        "data_format": "channels_last",
        "use_bias": bias,
        "trainable": true,
    })
}

/// A kernel O,I,H,W as H,W,I,O.
fn to_hwio(mut kernel: Array) -> Array {
    if let [outputs, inputs, height, width] = kernel.shape[..] {
        // As matrices: (O, I * H * W) to (I * H * W, O), then (I, H * W, O) to (H * W, I, O).
        let data = transposed(&kernel.data, outputs);
        let pixels = height * width;
        kernel.data = (0..pixels * inputs)
            .flat_map(|i| {
                let row = (i % inputs * pixels + i / inputs) * outputs;
                &data[row..row + outputs]
            })
            .copied()
            .collect();
        kernel.shape = vec![height, width, inputs, outputs];
    }
    kernel
}

/// The transpose of a matrix of `rows` rows.
fn transposed(matrix: &[f32], rows: usize) -> Vec<f32> {
    let columns = matrix.len() / rows.max(1);
    (0..matrix.len())
        .map(|i| matrix[i % rows * columns + i / rows])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_transposed_to_channels_last() {
        let data = (0..5 * 2 * 9).map(|i| i as f32).collect();
        let kernel = to_hwio(Array::new("w".into(), vec![5, 2, 3, 3], data).unwrap());
        assert_eq!(kernel.shape, [3, 3, 2, 5]);
        for (o, i, h, w) in [(0, 0, 0, 0), (4, 1, 2, 0), (3, 0, 1, 2)] {
            let value = kernel.data[((h * 3 + w) * 2 + i) * 5 + o];
            assert_eq!(value, (((o * 2 + i) * 3 + h) * 3 + w) as f32);
        }
    }
}
