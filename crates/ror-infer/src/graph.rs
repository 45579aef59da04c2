//! The network as a list of operations, each on the results of earlier ones.
//!
//! What a batch normalisation or stochastic depth does to a convolution of the same body is folded into its weights
//! here. Everything else stands as the tree says it, for [`fuse`](crate::fuse) to put together.

use crate::tensors::{Affine, Tensors};
use crate::{Error, Result};
use candle_nn::VarBuilder;
use ror_models::blocks::{Block, Layer, NamedLayer, Shape3, ShapeError, Shortcut};
use ror_models::{DescriptionError, Level, Member, Network};
use ror_ops::kernels::{Geometry, MaxPool};

/// An operation, whose index in the graph names its result too.
#[derive(Debug)]
pub(crate) struct Node {
    /// Where in the network it comes from.
    pub path: String,
    pub op: Op,
    /// Operations whose results it works on.
    pub inputs: Vec<usize>,
    /// The shape of its result, for one image.
    pub shape: Shape3,
}

#[derive(Debug)]
pub(crate) enum Op {
    /// The images.
    Input,
    Conv(Filters),
    /// A batch normalisation that no convolution could take.
    Norm(Affine),
    Relu,
    MaxPool(MaxPool),
    /// The zero-padded shortcut.
    Pad {
        stride: usize,
    },
    /// The sum of a level: the body's result, then the shortcut's.
    Add,
}

/// A convolution, norm folded.
#[derive(Debug, Clone)]
pub(crate) struct Filters {
    pub geometry: Geometry,
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
}

/// The whole network up to the average pool, and the classifier.
#[derive(Debug)]
pub(crate) struct Graph {
    pub nodes: Vec<Node>,
    /// Width of the pooled features.
    pub features: usize,
    /// The classifier.
    pub dense: Option<DenseWeights>,
}

#[derive(Debug)]
pub(crate) struct DenseWeights {
    pub classes: usize,
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
}

impl Graph {
    /// Reads every tensor and lowers the tree, for images of `size` rows and columns.
    pub(crate) fn new(network: &Network, vb: &VarBuilder, size: [usize; 2]) -> Result<Self> {
        let input = Shape3 {
            height: size[0],
            width: size[1],
            ..network.input_shape()
        };
        let mut lower = Lower {
            nodes: Vec::new(),
            tensors: Tensors::new(vb, network.norm().epsilon),
        };
        let x = lower.push("input", Op::Input, vec![], input);
        let x = lower.layers(&network.stem, "stem", x, 1.0)?;
        let x = lower.level(&network.root, &network.root.name, x)?;
        let x = lower.layers(&network.head.layers, "head", x, 1.0)?;
        let features = lower.nodes[x].shape.channels;
        let dense = match network.head.classes {
            Some(classes) => Some(DenseWeights {
                classes,
                weight: lower
                    .tensors
                    .get("head.dense.weight", &[classes, features])?,
                bias: lower.tensors.get("head.dense.bias", &[classes])?,
            }),
            None => None,
        };
        Ok(Self {
            nodes: lower.nodes,
            features,
            dense,
        })
    }
}

struct Lower<'a> {
    nodes: Vec<Node>,
    tensors: Tensors<'a>,
}

impl Lower<'_> {
    fn push(&mut self, path: &str, op: Op, inputs: Vec<usize>, shape: Shape3) -> usize {
        self.nodes.push(Node {
            path: path.to_owned(),
            op,
            inputs,
            shape,
        });
        self.nodes.len() - 1
    }

    fn level(&mut self, level: &Level, path: &str, input: usize) -> Result<usize> {
        let early = self.early_shortcut(&level.shortcut, path, input)?;
        let mut x = input;
        for member in &level.body {
            x = match member {
                Member::Level(inner) => self.level(inner, &format!("{path}.{}", inner.name), x)?,
                Member::Block(inner) => self.block(inner, &format!("{path}.{}", inner.name), x)?,
                Member::Layer(layer) => self.layers(std::slice::from_ref(layer), path, x, 1.0)?,
            };
        }
        self.sum(&level.shortcut, level.activation, path, input, early, x)
    }

    fn block(&mut self, block: &Block, path: &str, input: usize) -> Result<usize> {
        let early = self.early_shortcut(&block.shortcut, path, input)?;
        let x = self.layers(&block.body, path, input, block.survival)?;
        self.sum(&block.shortcut, block.activation, path, input, early, x)
    }

    /// The shortcut, if it is to be computed before the body: where its result is no larger than its input, which then
    /// need not be kept.
    fn early_shortcut(
        &mut self,
        shortcut: &Shortcut,
        path: &str,
        input: usize,
    ) -> Result<Option<usize>> {
        let from = self.nodes[input].shape;
        let to = match *shortcut {
            Shortcut::None => return Ok(None),
            Shortcut::Identity => return Ok(Some(input)),
            Shortcut::Pad { stride, channels } => strided(from, stride, channels),
            Shortcut::Projection(p) => strided(from, p.stride, p.out_channels),
        };
        if to.elements() <= from.elements() {
            self.shortcut(shortcut, path, input)
        } else {
            Ok(None)
        }
    }

    fn shortcut(&mut self, shortcut: &Shortcut, path: &str, input: usize) -> Result<Option<usize>> {
        let path = format!("{path}.shortcut");
        Ok(match *shortcut {
            Shortcut::None => None,
            Shortcut::Identity => Some(input),
            Shortcut::Pad { stride, channels } => {
                let shape = strided(self.nodes[input].shape, stride, channels);
                Some(self.push(&path, Op::Pad { stride }, vec![input], shape))
            }
            Shortcut::Projection(_) => Some(self.layers(&shortcut.layers(), &path, input, 1.0)?),
        })
    }

    fn sum(
        &mut self,
        shortcut: &Shortcut,
        activation: bool,
        path: &str,
        input: usize,
        early: Option<usize>,
        body: usize,
    ) -> Result<usize> {
        let shortcut = match early {
            Some(shortcut) => Some(shortcut),
            None => self.shortcut(shortcut, path, input)?,
        };
        let shape = self.nodes[body].shape;
        let mut x = body;
        if let Some(shortcut) = shortcut {
            if self.nodes[shortcut].shape != shape {
                return Err(unsupported(path, "the shortcut's shape is not the body's"));
            }
            x = self.push(path, Op::Add, vec![body, shortcut], shape);
        }
        if activation {
            x = self.push(path, Op::Relu, vec![x], shape);
        }
        Ok(x)
    }

    /// A run of layers whose result is multiplied by `survival`.
    fn layers(
        &mut self,
        layers: &[NamedLayer],
        path: &str,
        input: usize,
        survival: f64,
    ) -> Result<usize> {
        let first = self.nodes.len();
        let mut x = input;
        for named in layers {
            let path = format!("{path}.{}", named.name);
            let before = self.nodes[x].shape;
            let shape = named.output(before).map_err(shape_error)?;
            match named.layer {
                Layer::Conv {
                    in_channels,
                    out_channels,
                    kernel,
                    stride,
                    padding,
                    bias,
                } => {
                    let geometry = Geometry {
                        inputs: in_channels,
                        outputs: out_channels,
                        kernel: (kernel, kernel),
                        stride,
                        padding,
                    };
                    let filters = self.tensors.filters(&path, geometry, bias)?;
                    x = self.push(&path, Op::Conv(filters), vec![x], shape);
                }
                Layer::Norm { channels } => {
                    let affine = self.tensors.norm(&path, channels)?;
                    match &mut self.nodes[x].op {
                        Op::Conv(filters) if x >= first => filters.follow(&affine),
                        _ => x = self.push(&path, Op::Norm(affine), vec![x], shape),
                    }
                }
                Layer::Relu => x = self.push(&path, Op::Relu, vec![x], shape),
                Layer::MaxPool {
                    kernel,
                    stride,
                    padding,
                } => {
                    let pool = MaxPool {
                        size: kernel,
                        stride,
                        padding,
                    };
                    x = self.push(&path, Op::MaxPool(pool), vec![x], shape);
                }
                Layer::Dropout { .. } => {}
            }
        }
        if survival != 1.0 {
            match &mut self.nodes[x].op {
                Op::Conv(filters) if x >= first => filters.scale(survival as f32),
                _ => return Err(unsupported(path, "a body that ends in no convolution")),
            }
        }
        Ok(x)
    }
}

impl Filters {
    /// Folds what follows the convolution into it.
    fn follow(&mut self, affine: &Affine) {
        let each = self.weight.len() / self.geometry.outputs;
        for (o, filter) in self.weight.chunks_exact_mut(each).enumerate() {
            filter.iter_mut().for_each(|w| *w *= affine.scale[o]);
            self.bias[o] = self.bias[o] * affine.scale[o] + affine.shift[o];
        }
    }

    fn scale(&mut self, factor: f32) {
        let all = self.weight.iter_mut().chain(&mut self.bias);
        all.for_each(|w| *w *= factor);
    }
}

fn strided(from: Shape3, stride: usize, channels: usize) -> Shape3 {
    let stride = stride.max(1);
    Shape3 {
        channels,
        height: from.height.div_ceil(stride),
        width: from.width.div_ceil(stride),
    }
}

fn shape_error(error: ShapeError) -> Error {
    Error::Network(DescriptionError::Shape(error))
}

pub(crate) fn unsupported(path: &str, why: &str) -> Error {
    Error::Unsupported {
        path: path.to_owned(),
        why: why.to_owned(),
    }
}
