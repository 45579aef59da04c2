//! A network as the nodes of an ONNX graph, named as the levels nest.

use ror_models::blocks::{Block, Layer, NamedLayer, Shortcut};
use ror_models::{Level, Member, Network};

use super::OnnxOptions;
use super::affine::Affine;
use super::protobuf::{Floats, Message};
use super::schema::{self, Attribute, Graph, batch_of, float_tensor, int_tensor};
use crate::array::Array;
use crate::error::Result;
use crate::weights::Weights;

use Attribute::{Float, Int, Ints};

/// The graph of `network`, whose values are read from `weights` when it is written.
pub(super) fn graph<'a>(
    network: &'a Network,
    weights: &'a Weights,
    options: &OnnxOptions,
) -> Graph<'a> {
    let builder = Builder {
        network,
        weights,
        fold_norms: options.fold_norms,
        nodes: Vec::new(),
        initializers: Vec::new(),
    };
    builder.network(options.softmax)
}

struct Builder<'a> {
    network: &'a Network,
    weights: &'a Weights,
    fold_norms: bool,
    nodes: Vec<Message<'a>>,
    initializers: Vec<Message<'a>>,
}

/// The name of a value; a node's result is named as the node.
type Value = String;

impl<'a> Builder<'a> {
    fn network(mut self, softmax: bool) -> Graph<'a> {
        let network = self.network;
        let x = self.layers(&network.stem, "stem", "images".to_owned());
        let x = self.level(&network.root, &network.root.name, x);
        let x = self.layers(&network.head.layers, "head", x);
        let x = self.node("GlobalAveragePool", "head.pool", &[&x], &[]);
        let (output, size) = self.classifier(&x, softmax);
        let input = network.input_shape();
        Graph {
            name: network.description.to_string(),
            nodes: self.nodes,
            initializers: self.initializers,
            input: batch_of("images", &[input.channels, input.height, input.width]),
            output: batch_of(output, &[size]),
        }
    }

    /// What follows the pool; the name and the width of the graph's output.
    fn classifier(&mut self, pooled: &str, softmax: bool) -> (&'static str, usize) {
        let flat = [("axis", Int(1))];
        let Some(classes) = self.network.head.classes else {
            self.output("Flatten", "head.flatten", &[pooled], "features", &flat);
            return ("features", self.network.head.features);
        };
        let x = self.node("Flatten", "head.flatten", &[pooled], &flat);
        let weight = self.tensor("head.dense.weight", &[classes, self.network.head.features]);
        let bias = self.tensor("head.dense.bias", &[classes]);
        let inputs = [x.as_str(), &weight, &bias];
        let transposed = [("transB", Int(1))];
        if !softmax {
            self.output("Gemm", "head.dense", &inputs, "logits", &transposed);
            return ("logits", classes);
        }
        let x = self.node("Gemm", "head.dense", &inputs, &transposed);
        let axis = [("axis", Int(1))];
        self.output("Softmax", "head.softmax", &[&x], "probabilities", &axis);
        ("probabilities", classes)
    }

    fn level(&mut self, level: &Level, path: &str, input: Value) -> Value {
        let mut x = input.clone();
        for member in &level.body {
            x = match member {
                Member::Level(inner) => self.level(inner, &format!("{path}.{}", inner.name), x),
                Member::Block(block) => self.block(block, &format!("{path}.{}", block.name), x),
                Member::Layer(layer) => self.layers(std::slice::from_ref(layer), path, x),
            };
        }
        let channels = [level.in_channels, level.out_channels];
        let x = self.sum(&level.shortcut, channels, path, input, x);
        self.activation(level.activation, path, x)
    }

    fn block(&mut self, block: &Block, path: &str, input: Value) -> Value {
        let mut x = self.layers(&block.body, path, input.clone());
        if block.survival < 1.0 {
            let survival = block.survival as f32;
            let name = self.floats(&format!("{path}.survival"), &[], move || Ok(vec![survival]));
            x = self.node("Mul", &format!("{path}.scale"), &[&x, &name], &[]);
        }
        let channels = [block.in_channels, block.out_channels];
        let x = self.sum(&block.shortcut, channels, path, input, x);
        self.activation(block.activation, path, x)
    }

    /// `body`, and what the shortcut from `input` adds to it.
    fn sum(
        &mut self,
        shortcut: &Shortcut,
        [from, to]: [usize; 2],
        path: &str,
        input: Value,
        body: Value,
    ) -> Value {
        let at_shortcut = format!("{path}.shortcut");
        let shortcut = match *shortcut {
            Shortcut::None => return body,
            Shortcut::Identity => input,
            Shortcut::Pad { stride, .. } => self.padding(stride, to - from, &at_shortcut, input),
            Shortcut::Projection(_) => self.layers(&shortcut.layers(), &at_shortcut, input),
        };
        self.node("Add", &format!("{path}.add"), &[&body, &shortcut], &[])
    }

    fn activation(&mut self, rectified: bool, path: &str, x: Value) -> Value {
        if rectified {
            self.node("Relu", &format!("{path}.relu"), &[&x], &[])
        } else {
            x
        }
    }

    /// Every `stride`-th row and column, and `missing` channels of zeros.
    fn padding(&mut self, stride: usize, missing: usize, path: &str, input: Value) -> Value {
        let mut x = input;
        if stride > 1 {
            let stride = stride as i64;
            let [starts, ends, axes, steps] = [
                ("starts", [0, 0]),
                ("ends", [i64::MAX; 2]),
                ("axes", [2, 3]),
                ("steps", [stride; 2]),
            ]
            .map(|(name, values)| self.ints(&format!("{path}.{name}"), &values));
            let inputs = [x.as_str(), &starts, &ends, &axes, &steps];
            x = self.node("Slice", &format!("{path}.subsample"), &inputs, &[]);
        }
        if missing > 0 {
            // Before, then after, for each of N, C, H, W.
            let pads = [0, 0, 0, 0, 0, missing as i64, 0, 0];
            let pads = self.ints(&format!("{path}.pads"), &pads);
            x = self.node("Pad", &format!("{path}.pad"), &[&x, &pads], &[]);
        }
        x
    }

    fn layers(&mut self, layers: &[NamedLayer], path: &str, input: Value) -> Value {
        let layers: Vec<_> = layers
            .iter()
            .filter(|l| !matches!(l.layer, Layer::Dropout { .. }))
            .collect();
        let mut x = input;
        let mut rest = layers.as_slice();
        while let [named, tail @ ..] = rest {
            rest = tail;
            let at = |named: &NamedLayer| format!("{path}.{}", named.name);
            let path = at(named);
            x = match named.layer {
                Layer::Conv { .. } => {
                    let mut folded = None;
                    if let [norm, after @ ..] = tail
                        && self.fold_norms
                        && matches!(norm.layer, Layer::Norm { .. })
                    {
                        folded = Some(at(norm));
                        rest = after;
                    }
                    self.conv(&named.layer, &path, folded, &x)
                }
                Layer::Norm { channels } => self.norm(channels, &path, &x),
                Layer::Relu => self.node("Relu", &path, &[&x], &[]),
                Layer::MaxPool {
                    kernel,
                    stride,
                    padding,
                } => self.node("MaxPool", &path, &[&x], &window(kernel, stride, padding)),
                Layer::Dropout { .. } => x,
            };
        }
        x
    }

    /// A convolution, and in it the normalisation at `norm` if there is one.
    fn conv(&mut self, conv: &Layer, path: &str, norm: Option<String>, input: &str) -> Value {
        let Layer::Conv {
            in_channels,
            out_channels,
            kernel,
            stride,
            padding,
            bias,
        } = *conv
        else {
            return input.to_owned();
        };
        let (weights, epsilon) = (self.weights, self.network.norm().epsilon);
        let shape = [out_channels, in_channels, kernel, kernel];
        let [weight, shift] = ["weight", "bias"].map(|name| format!("{path}.{name}"));
        let (weight, bias) = match norm {
            None => (
                self.tensor(&weight, &shape),
                bias.then(|| self.tensor(&shift, &[out_channels])),
            ),
            Some(norm) => {
                let affine = move || Affine::of_norm(weights, &norm, epsilon);
                let (again, plain) = (affine.clone(), bias.then(|| shift.clone()));
                let source = weight.clone();
                (
                    self.floats(&weight, &shape, move || {
                        Ok(affine()?.scaled(weights.values(&source)?))
                    }),
                    Some(self.floats(&shift, &[out_channels], move || {
                        let bias = plain.map(|name| weights.values(&name)).transpose()?;
                        Ok(again()?.shifted(bias.as_deref()))
                    })),
                )
            }
        };
        let mut inputs = vec![input, &weight];
        inputs.extend(bias.as_deref());
        self.node("Conv", path, &inputs, &window(kernel, stride, padding))
    }

    fn norm(&mut self, channels: usize, path: &str, input: &str) -> Value {
        let [scale, shift, mean, variance] = ["weight", "bias", "running_mean", "running_var"]
            .map(|name| self.tensor(&format!("{path}.{name}"), &[channels]));
        let epsilon = [("epsilon", Float(self.network.norm().epsilon as f32))];
        let inputs = [input, &scale, &shift, &mean, &variance];
        self.node("BatchNormalization", path, &inputs, &epsilon)
    }

    /// The network's tensor `name`.
    fn tensor(&mut self, name: &str, shape: &[usize]) -> Value {
        let (weights, source) = (self.weights, name.to_owned());
        self.floats(name, shape, move || weights.values(&source))
    }

    fn floats(
        &mut self,
        path: &str,
        shape: &[usize],
        values: impl FnOnce() -> Result<Vec<f32>> + 'a,
    ) -> Value {
        let name = slashed(path);
        let (checked, whole) = (name.clone(), shape.to_vec());
        // What is folded can overflow, or hold the root of a negative variance.
        let values = move || Ok(Array::new(checked, whole, values()?)?.data);
        let values = Floats::new(shape.iter().product(), values);
        self.initializers.push(float_tensor(&name, shape, values));
        name
    }

    fn ints(&mut self, path: &str, values: &[i64]) -> Value {
        let name = slashed(path);
        self.initializers.push(int_tensor(&name, values));
        name
    }

    fn node(
        &mut self,
        op: &str,
        path: &str,
        inputs: &[&str],
        attributes: &[(&str, Attribute)],
    ) -> Value {
        let name = slashed(path);
        self.output(op, path, inputs, &name, attributes);
        name
    }

    /// A node whose result has a name of its own.
    fn output(
        &mut self,
        op: &str,
        path: &str,
        inputs: &[&str],
        output: &str,
        attributes: &[(&str, Attribute)],
    ) {
        let node = schema::node(op, &slashed(path), inputs, output, attributes);
        self.nodes.push(node);
    }
}

fn window(kernel: usize, stride: usize, padding: usize) -> [(&'static str, Attribute); 3] {
    [
        ("kernel_shape", Ints(vec![kernel as i64; 2])),
        ("strides", Ints(vec![stride as i64; 2])),
        ("pads", Ints(vec![padding as i64; 4])),
    ]
}

/// Viewers nest by slashes.
fn slashed(path: &str) -> String {
    path.replace('.', "/")
}
