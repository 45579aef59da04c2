//! Running nodes forwards and backwards on a chunk of images, on one thread.

mod backward;
mod forward;
mod head;

use super::flags::Flags;
use super::graph::{Graph, Node, Op, Read, ValueId};
use super::plan::{Plan, image_len};
use super::state::{ConvState, NormState};
use ror_ops::kernels::{Addend, Block, Blocks, Dims, Isa, Kept, KernelError, Linear, dropout, sum};
use std::ops::Range;

type Result<T> = std::result::Result<T, KernelError>;

/// What all threads see of a step.
pub(super) struct Pass<'a> {
    pub isa: Isa,
    pub graph: &'a Graph,
    pub plan: &'a Plan,
    pub convs: &'a [ConvState],
    pub norms: &'a [NormState],
    pub flags: &'a Flags,
    /// Of each dropout, for the whole batch.
    pub masks: &'a [Vec<Kept>],
    /// N, C, H, W.
    pub images: &'a [f32],
    /// (N, classes); empty in evaluation.
    pub targets: &'a [f32],
    /// Images of the step on all ranks.
    pub whole: usize,
    pub classifier: Option<Linear<'a>>,
    /// Whether normalisations follow the batch, and dropout and stochastic depth are on.
    pub training: bool,
}

/// Images of a chunk, counted within the thread's own.
type Chunk = Range<usize>;

impl Pass<'_> {
    fn dims(&self, v: ValueId, chunk: &Chunk) -> Dims {
        let shape = self.graph.values[v];
        Dims::new(chunk.len(), shape.channels, shape.height, shape.width)
    }

    /// Where a chunk of a value lies, also of its gradient.
    fn range(&self, v: ValueId, chunk: &Chunk) -> Range<usize> {
        let len = image_len(self.graph, v);
        chunk.start * len..chunk.end * len
    }

    /// The bits of a dropout for a chunk of the images from `first` on, and the factor of what it keeps.
    fn mask(&self, d: usize, value: ValueId, first: usize, chunk: &Chunk) -> (&[Kept], f32) {
        let range = self.range(value, &(first + chunk.start..first + chunk.end));
        let factor = 1.0 / (1.0 - self.graph.dropouts[d].rate);
        (&self.masks[d][range], factor as f32)
    }

    /// A chunk as a node reads it; `act` holds it where it is not a value itself.
    fn read<'b>(
        &self,
        values: &'b [Blocks],
        act: &'b mut [Block],
        read: &Read,
        first: usize,
        chunk: &Chunk,
    ) -> Result<&'b [Block]> {
        let x = &values[read.value][self.range(read.value, chunk)];
        let mask = read.dropout.filter(|_| self.training);
        if read.norm.is_none() && mask.is_none() {
            return Ok(x);
        }
        let act = &mut act[..x.len()];
        let addend = Addend {
            affine: read.norm.map(|k| self.norms[k].affine()),
            ..Addend::plain(x)
        };
        let dims = self.dims(read.value, chunk);
        sum(self.isa, dims, &[addend], false, read.relu, act)?;
        if let Some(d) = mask {
            let (kept, factor) = self.mask(d, read.value, first, chunk);
            dropout(self.isa, kept, factor, act)?;
        }
        Ok(act)
    }
}

/// Blocks of scratch beyond a convolution's: a pool whose gradient is added.
pub(super) fn pool_scratch(graph: &Graph, node: &Node, images: usize) -> usize {
    match &node.op {
        Op::Pool { input, .. } => image_len(graph, input.value) * images,
        _ => 0,
    }
}

fn chunks(images: usize, step: usize) -> impl Iterator<Item = Chunk> {
    (0..images)
        .step_by(step)
        .map(move |first| first..images.min(first + step))
}
