//! A network as a list of operations on values, the form in which a step is planned and run.
//!
//! A [`Value`] is a tensor that is kept from the forward pass to the backward pass. What normalisation, rectifier
//! and dropout make of it is not kept: whoever reads a value says what they do to it first ([`Read`]), and computes
//! it anew where it is needed.

use ror_blocks::Shape3;
use ror_ops::kernels::{Geometry, MaxPool};

pub(super) type ValueId = usize;
pub(super) type ConvId = usize;
pub(super) type NormId = usize;
pub(super) type GateId = usize;
pub(super) type DropoutId = usize;

/// A value as an operation sees it: `dropout(relu(norm(value)))`, each only where given; no rectifier without a
/// normalisation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Read {
    pub value: ValueId,
    pub norm: Option<NormId>,
    pub relu: bool,
    pub dropout: Option<DropoutId>,
}

impl Read {
    pub(super) fn plain(value: ValueId) -> Self {
        Self {
            value,
            norm: None,
            relu: false,
            dropout: None,
        }
    }

    pub(super) fn is_plain(&self) -> bool {
        self.norm.is_none() && !self.relu && self.dropout.is_none()
    }
}

/// A term of a sum.
#[derive(Debug, Clone, Copy)]
pub(super) struct Term {
    pub read: Read,
    /// The stride of a shortcut that is padded with zero channels.
    pub pad: Option<usize>,
    /// The gate that drops the term.
    pub gate: Option<GateId>,
}

/// A convolution.
#[derive(Debug, Clone)]
pub(super) struct Conv {
    pub path: String,
    pub geometry: Geometry,
    pub bias: bool,
    pub gate: Option<GateId>,
}

/// A batch normalisation.
#[derive(Debug, Clone)]
pub(super) struct Norm {
    pub path: String,
    pub channels: usize,
    /// What it normalises.
    pub value: ValueId,
    pub gate: Option<GateId>,
}

/// What an operation computes.
#[derive(Debug, Clone)]
pub(super) enum Op {
    /// A convolution of the images.
    Stem {
        conv: ConvId,
    },
    /// `out = conv(input) + identities`, or `out += ...` if another convolution was first.
    Conv {
        conv: ConvId,
        input: Read,
        accumulate: bool,
        identities: Vec<ValueId>,
    },
    /// `out = relu(sum of terms)`.
    Sum {
        terms: Vec<Term>,
        relu: bool,
    },
    Pool {
        pool: MaxPool,
        input: Read,
    },
    /// Average pool, classifier, loss. Has no output.
    Head {
        input: Read,
    },
}

/// An operation at its place.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub op: Op,
    /// Where the result goes.
    pub out: Option<ValueId>,
    /// The gate that drops it.
    pub gate: Option<GateId>,
}

/// A random number that the forward pass takes, in the order in which a walk over the tree takes them.
#[derive(Debug, Clone, Copy)]
pub(super) enum Draw {
    Gate(GateId),
    Dropout(DropoutId, Option<GateId>),
}

/// A mask of zeros.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dropout {
    pub rate: f64,
    pub shape: Shape3,
}

/// The whole network.
#[derive(Debug, Clone, Default)]
pub(super) struct Graph {
    pub values: Vec<Shape3>,
    pub convs: Vec<Conv>,
    pub norms: Vec<Norm>,
    /// Survival probabilities of blocks under stochastic depth.
    pub gates: Vec<f64>,
    pub dropouts: Vec<Dropout>,
    pub draws: Vec<Draw>,
    pub nodes: Vec<Node>,
    /// Shape before the average pool.
    pub features: usize,
    pub classes: Option<usize>,
}

impl Node {
    /// What the node reads, each with the gate that drops it.
    pub(super) fn reads(&self) -> Vec<(Read, Option<GateId>)> {
        match &self.op {
            Op::Stem { .. } => Vec::new(),
            Op::Conv {
                input, identities, ..
            } => {
                let identities = identities.iter().map(|&v| Read::plain(v));
                std::iter::once(*input)
                    .chain(identities)
                    .map(|read| (read, self.gate))
                    .collect()
            }
            Op::Sum { terms, .. } => terms.iter().map(|t| (t.read, t.gate)).collect(),
            Op::Pool { input, .. } | Op::Head { input } => vec![(*input, self.gate)],
        }
    }

    /// The norms that the node reads through.
    pub(super) fn norms(&self) -> impl Iterator<Item = NormId> {
        self.reads().into_iter().filter_map(|(read, _)| read.norm)
    }
}
