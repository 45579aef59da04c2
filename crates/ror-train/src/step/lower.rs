//! From the tree of a network to its [`Graph`].

use super::graph::{Conv, Draw, Dropout, GateId, Graph, Node, Norm, Op, Read, Term, ValueId};
use ror_blocks::{Block, Layer, NamedLayer, Shape3, Shortcut};
use ror_models::{DescriptionError, Level, Member, Network};
use ror_ops::kernels::{Geometry, MAX_TERMS, MaxPool};

/// The graph of `network` on images of shape `input`.
///
/// # Errors
/// Images that some layer cannot take.
pub(super) fn lower(network: &Network, input: Shape3) -> Result<Graph, DescriptionError> {
    struct Nothing;
    impl ror_models::Visit for Nothing {}
    network.walk_from(input, &mut Nothing)?;

    let mut lowering = Lowering {
        graph: Graph {
            features: network.head.features,
            classes: network.head.classes,
            ..Graph::default()
        },
        gate: None,
    };
    let stem = lowering.stem(&network.stem, input)?;
    let root = lowering.level(&network.root, &network.root.name, stem)?;
    let root = lowering.resolve(root);
    let head = lowering.layers(&network.head.layers, "head", Read::plain(root))?;
    lowering.push(Op::Head { input: head }, None);
    Ok(lowering.graph)
}

struct Lowering {
    graph: Graph,
    /// The gate of the block whose body is being lowered.
    gate: Option<GateId>,
}

/// A sum that is not computed yet, so that an outer level's terms can join it.
struct Pending {
    terms: Vec<Term>,
    relu: bool,
}

impl Pending {
    fn of(read: Read, gate: Option<GateId>) -> Self {
        let term = Term {
            read,
            pad: None,
            gate,
        };
        Self {
            terms: vec![term],
            relu: false,
        }
    }
}

impl Lowering {
    fn push(&mut self, op: Op, out: Option<ValueId>) {
        let gate = self.gate;
        self.graph.nodes.push(Node { op, out, gate });
    }

    fn value(&mut self, shape: Shape3) -> ValueId {
        self.graph.values.push(shape);
        self.graph.values.len() - 1
    }

    fn conv(&mut self, path: &str, layer: &Layer) -> Option<usize> {
        let Layer::Conv {
            in_channels,
            out_channels,
            kernel,
            stride,
            padding,
            bias,
        } = *layer
        else {
            return None;
        };
        self.graph.convs.push(Conv {
            path: path.to_owned(),
            geometry: Geometry {
                inputs: in_channels,
                outputs: out_channels,
                kernel: (kernel, kernel),
                stride,
                padding,
            },
            bias,
            gate: self.gate,
        });
        Some(self.graph.convs.len() - 1)
    }

    /// The stem's first layer is a convolution of the images.
    fn stem(&mut self, layers: &[NamedLayer], input: Shape3) -> Result<ValueId, DescriptionError> {
        let mut read = None;
        let mut rest = layers;
        if let Some((first, others)) = layers.split_first() {
            let shape = first.output(input)?;
            if let Some(conv) = self.conv(&format!("stem.{}", first.name), &first.layer) {
                let out = self.value(shape);
                self.push(Op::Stem { conv }, Some(out));
                read = Some(Read::plain(out));
                rest = others;
            }
        }
        let read = read.ok_or_else(|| ror_blocks::ShapeError {
            layer: "stem".to_owned(),
            input,
            reason: "the first layer is no convolution".to_owned(),
        })?;
        let read = self.layers(rest, "stem", read)?;
        Ok(self.materialise(read))
    }

    fn layers(
        &mut self,
        layers: &[NamedLayer],
        path: &str,
        mut read: Read,
    ) -> Result<Read, DescriptionError> {
        for named in layers {
            let shape = self.graph.values[read.value];
            let output = named.output(shape)?;
            let path = format!("{path}.{}", named.name);
            read = match named.layer {
                Layer::Conv { .. } => {
                    let out = self.value(output);
                    if let Some(conv) = self.conv(&path, &named.layer) {
                        let op = Op::Conv {
                            conv,
                            input: read,
                            accumulate: false,
                            identities: Vec::new(),
                        };
                        self.push(op, Some(out));
                    }
                    Read::plain(out)
                }
                Layer::Norm { channels } => {
                    let value = self.materialise(read);
                    self.graph.norms.push(Norm {
                        path,
                        channels,
                        value,
                        gate: self.gate,
                    });
                    Read {
                        norm: Some(self.graph.norms.len() - 1),
                        ..Read::plain(value)
                    }
                }
                Layer::Relu if read.norm.is_some() && read.dropout.is_none() => {
                    Read { relu: true, ..read }
                }
                Layer::Relu => Read::plain(self.sum(read, true)),
                Layer::MaxPool {
                    kernel,
                    stride,
                    padding,
                } => {
                    let out = self.value(output);
                    let pool = MaxPool {
                        size: kernel,
                        stride,
                        padding,
                    };
                    self.push(Op::Pool { pool, input: read }, Some(out));
                    Read::plain(out)
                }
                Layer::Dropout { rate } => {
                    let read = if read.dropout.is_some() {
                        Read::plain(self.materialise(read))
                    } else {
                        read
                    };
                    self.graph.dropouts.push(Dropout { rate, shape });
                    let dropout = self.graph.dropouts.len() - 1;
                    self.graph.draws.push(Draw::Dropout(dropout, self.gate));
                    Read {
                        dropout: Some(dropout),
                        ..read
                    }
                }
            };
        }
        Ok(read)
    }

    /// Computes what a read gives, as a value.
    fn materialise(&mut self, read: Read) -> ValueId {
        match read {
            read if read.is_plain() => read.value,
            Read {
                norm: Some(_),
                dropout: Some(dropout),
                ..
            } => {
                let value = self.materialise(Read {
                    dropout: None,
                    ..read
                });
                let read = Read {
                    dropout: Some(dropout),
                    ..Read::plain(value)
                };
                self.sum(read, false)
            }
            Read { relu, .. } => self.sum(
                Read {
                    relu: false,
                    ..read
                },
                relu,
            ),
        }
    }

    /// The read in a form that a sum can have as a term.
    fn summable(&mut self, read: Read) -> Read {
        if read.relu || (read.norm.is_some() && read.dropout.is_some()) {
            Read::plain(self.materialise(read))
        } else {
            read
        }
    }

    fn sum(&mut self, read: Read, relu: bool) -> ValueId {
        let out = self.value(self.graph.values[read.value]);
        let Pending { terms, .. } = Pending::of(read, None);
        self.push(Op::Sum { terms, relu }, Some(out));
        out
    }

    fn level(
        &mut self,
        level: &Level,
        path: &str,
        x: ValueId,
    ) -> Result<Pending, DescriptionError> {
        let shortcut = self.shortcut(&level.shortcut, path, x)?;
        let mut body = Pending::of(Read::plain(x), None);
        for member in &level.body {
            let x = self.resolve(body);
            body = match member {
                Member::Level(inner) => self.level(inner, &format!("{path}.{}", inner.name), x)?,
                Member::Block(inner) => self.block(inner, &format!("{path}.{}", inner.name), x)?,
                Member::Layer(named) => {
                    let layers = std::slice::from_ref(named);
                    let read = self.layers(layers, path, Read::plain(x))?;
                    Pending::of(self.summable(read), None)
                }
            };
        }
        Ok(self.join(body, shortcut, level.activation))
    }

    fn block(
        &mut self,
        block: &Block,
        path: &str,
        x: ValueId,
    ) -> Result<Pending, DescriptionError> {
        let shortcut = self.shortcut(&block.shortcut, path, x)?;
        if block.survival < 1.0 {
            self.graph.gates.push(block.survival);
            let gate = self.graph.gates.len() - 1;
            // A block without a shortcut always survives, but evaluation scales it.
            if shortcut.is_some() {
                self.graph.draws.push(Draw::Gate(gate));
            }
            self.gate = Some(gate);
        }
        let body = self.layers(&block.body, path, Read::plain(x))?;
        let body = self.summable(body);
        let gate = self.gate.take();
        Ok(self.join(Pending::of(body, gate), shortcut, block.activation))
    }

    fn shortcut(
        &mut self,
        shortcut: &Shortcut,
        path: &str,
        x: ValueId,
    ) -> Result<Option<Term>, DescriptionError> {
        let (read, pad) = match *shortcut {
            Shortcut::None => return Ok(None),
            Shortcut::Identity => (Read::plain(x), None),
            Shortcut::Pad { stride, .. } => (Read::plain(x), Some(stride)),
            Shortcut::Projection(_) => {
                let path = format!("{path}.shortcut");
                let read = self.layers(&shortcut.layers(), &path, Read::plain(x))?;
                (self.summable(read), None)
            }
        };
        let gate = None;
        Ok(Some(Term { read, pad, gate }))
    }

    /// The sum of a level, rectified if `relu`.
    fn join(&mut self, mut body: Pending, shortcut: Option<Term>, relu: bool) -> Pending {
        if body.relu && (relu || shortcut.is_some()) {
            body = Pending::of(Read::plain(self.resolve(body)), None);
        }
        body.terms.extend(shortcut);
        body.relu |= relu;
        body
    }

    /// Computes a pending sum, as a value.
    fn resolve(&mut self, pending: Pending) -> ValueId {
        if let ([term], false) = (pending.terms.as_slice(), pending.relu)
            && term.read.is_plain()
            && term.pad.is_none()
            && term.gate.is_none()
        {
            return term.read.value;
        }
        if let Some(value) = self.fuse(&pending) {
            return value;
        }
        let mut shape = self.graph.values[pending.terms[0].read.value];
        for term in &pending.terms {
            // All terms have the sum's shape but those that are padded to it.
            if term.pad.is_none() {
                shape = self.graph.values[term.read.value];
            }
        }
        let out = self.value(shape);
        let Pending { terms, relu } = pending;
        self.push(Op::Sum { terms, relu }, Some(out));
        out
    }

    /// Lets the convolutions among the terms compute the sum, if nothing but identities joins them.
    fn fuse(&mut self, pending: &Pending) -> Option<ValueId> {
        let plain = |t: &Term| t.read.is_plain() && t.pad.is_none() && t.gate.is_none();
        if pending.relu || !pending.terms.iter().all(plain) {
            return None;
        }
        let values: Vec<ValueId> = pending.terms.iter().map(|t| t.read.value).collect();
        let read_elsewhere = |v: ValueId| {
            let mut reads = self.graph.nodes.iter().flat_map(Node::reads);
            reads.any(|(read, _)| read.value == v)
        };
        let convs: Vec<usize> = self
            .graph
            .nodes
            .iter()
            .enumerate()
            .filter(|(_, node)| {
                matches!(&node.op, Op::Conv { accumulate: false, identities, .. } if identities.is_empty())
                    && node.out.is_some_and(|v| values.contains(&v) && !read_elsewhere(v))
            })
            .map(|(i, _)| i)
            .collect();
        let fresh: Vec<ValueId> = convs
            .iter()
            .filter_map(|&i| self.graph.nodes[i].out)
            .collect();
        let rest: Vec<ValueId> = values
            .iter()
            .copied()
            .filter(|v| !fresh.contains(v))
            .collect();
        let (&first, &last) = (convs.first()?, convs.last()?);
        // A projection runs before the body that it is added to, which may end with a sum.
        let mut later = self.graph.nodes[last + 1..].iter();
        if later.any(|node| node.out.is_some_and(|v| rest.contains(&v))) {
            return None;
        }
        if rest.len() + 1 > MAX_TERMS {
            return None;
        }
        let out = self.graph.nodes[last].out?;
        for i in convs {
            let node = &mut self.graph.nodes[i];
            node.out = Some(out);
            if let Op::Conv {
                accumulate,
                identities,
                ..
            } = &mut node.op
            {
                *accumulate = i != first;
                if i == last {
                    identities.clone_from(&rest);
                }
            }
        }
        Some(out)
    }
}
