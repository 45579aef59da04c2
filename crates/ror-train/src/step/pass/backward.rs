//! Backwards.

use super::{Chunk, Pass, Result, chunks};
use crate::step::graph::{Node, Op, Read, Term, ValueId};
use crate::step::plan::Place;
use crate::step::state::Worker;
use ror_ops::kernels::{
    Addend, Block, Blocks, channel_sums, dropout, pad_shortcut_gradient, relu_gradient, sum,
};
use std::mem::take;
use std::ops::Range;

impl Pass<'_> {
    /// Runs a stage backwards.
    pub(in crate::step) fn backward(
        &self,
        w: &mut Worker,
        nodes: Range<usize>,
        step: usize,
    ) -> Result<()> {
        if w.images.is_empty() {
            w.sums.iter_mut().for_each(|sum| sum.fill(Block::ZERO));
        }
        for chunk in chunks(w.images.len(), step) {
            for i in nodes.clone().rev() {
                let node = &self.graph.nodes[i];
                if self.flags.runs(node.gate) {
                    self.backward_node(w, i, node, &chunk)?;
                }
            }
        }
        Ok(())
    }

    fn backward_node(&self, w: &mut Worker, i: usize, node: &Node, chunk: &Chunk) -> Result<()> {
        if let Some(id) = node.out.filter(|&v| self.plan.completed[v] == i) {
            self.complete_gradient(w, i, id, chunk)?;
        }
        match (&node.op, node.out) {
            (Op::Head { input }, _) => self.backward_head(w, i, input, chunk),
            (Op::Stem { conv }, Some(id)) => self.backward_stem(w, *conv, id, chunk),
            (
                Op::Conv {
                    conv,
                    input,
                    identities,
                    ..
                },
                Some(id),
            ) => {
                self.backward_conv(w, i, *conv, input, id, chunk)?;
                for (position, &v) in identities.iter().enumerate() {
                    self.pass_on(w, i, position + 1, id, &Read::plain(v), None, chunk)?;
                }
                Ok(())
            }
            (Op::Sum { terms, relu }, Some(id)) => self.backward_sum(w, i, terms, *relu, id, chunk),
            (Op::Pool { pool, input }, Some(id)) => {
                let mut to = take(&mut w.slots[self.slot(input)]);
                let done = (|| {
                    let dims = self.dims(input.value, chunk);
                    let dx = &mut to[self.range(input.value, chunk)];
                    let first = w.images.start;
                    let x = self.read(&w.values, &mut w.act, input, first, chunk)?;
                    let dy = self.output_gradient(&w.slots, &w.dy, id, chunk);
                    if self.accumulates(i, 0, input) {
                        let fresh = &mut w.scratch[..dx.len()];
                        pool.gradient(self.isa, dims, x, dy, fresh)?;
                        sum(self.isa, dims, &[Addend::plain(fresh)], true, false, dx)
                    } else {
                        pool.gradient(self.isa, dims, x, dy, dx)
                    }
                })();
                w.slots[self.slot(input)] = to;
                done?;
                self.norm_moments(w, input, chunk)
            }
            _ => Ok(()),
        }
    }

    /// Adds to the gradient of a value what comes through its norms.
    fn complete_gradient(
        &self,
        w: &mut Worker,
        i: usize,
        id: ValueId,
        chunk: &Chunk,
    ) -> Result<()> {
        let (range, dims) = (self.range(id, chunk), self.dims(id, chunk));
        let mut own = match self.plan.gradient[id] {
            Place::Slot(slot) => take(&mut w.slots[slot]),
            Place::Chunk => take(&mut w.dy),
        };
        let done = (|| {
            let dx = match self.plan.gradient[id] {
                Place::Slot(_) => &mut own[range.clone()],
                Place::Chunk => &mut own[..range.len()],
            };
            if self.flags.unreached[i] {
                dx.fill(Block::ZERO);
            }
            for &k in &self.plan.norms_of[id] {
                if self.flags.runs(self.graph.norms[k].gate) {
                    let x = &w.values[id][range.clone()];
                    let da = &w.slots[self.plan.norm_slot[k]][range.clone()];
                    let gradient = self.norms[k].gradient(self.rectified(k));
                    let accumulate = self.flags.norm_accumulate[k];
                    gradient.run(self.isa, dims, x, da, dx, accumulate)?;
                }
            }
            Ok(())
        })();
        match self.plan.gradient[id] {
            Place::Slot(slot) => w.slots[slot] = own,
            Place::Chunk => w.dy = own,
        }
        done
    }

    /// Whether the reader of a norm rectifies: the sum's own rectifier has done its part before.
    fn rectified(&self, norm: usize) -> bool {
        self.plan.rectified[norm]
    }

    /// A chunk of the gradient of a node's output.
    fn output_gradient<'b>(
        &self,
        slots: &'b [Blocks],
        dy: &'b [Block],
        id: ValueId,
        chunk: &Chunk,
    ) -> &'b [Block] {
        let range = self.range(id, chunk);
        match self.plan.gradient[id] {
            Place::Slot(slot) => &slots[slot][range],
            Place::Chunk => &dy[..range.len()],
        }
    }

    /// The slot that the gradient of a read goes to.
    pub(super) fn slot(&self, read: &Read) -> usize {
        match (read.norm, self.plan.gradient[read.value]) {
            (Some(k), _) => self.plan.norm_slot[k],
            (None, Place::Slot(slot)) => slot,
            // A value that is read without a norm has a slot.
            (None, Place::Chunk) => usize::MAX,
        }
    }

    pub(super) fn accumulates(&self, i: usize, position: usize, read: &Read) -> bool {
        read.norm.is_none() && self.flags.accumulate[i][position]
    }

    /// Takes in the gradient of what a norm gave, now that it is computed.
    pub(super) fn norm_moments(&self, w: &mut Worker, read: &Read, chunk: &Chunk) -> Result<()> {
        let Some(k) = read.norm else {
            return Ok(());
        };
        let (range, dims) = (self.range(read.value, chunk), self.dims(read.value, chunk));
        let x = &w.values[read.value][range.clone()];
        let da = &w.slots[self.plan.norm_slot[k]][range];
        let affine = self.norms[k].affine();
        w.gradient_moments[k].add(self.isa, dims, x, da, &affine, read.relu)
    }

    fn backward_conv(
        &self,
        w: &mut Worker,
        i: usize,
        conv_id: usize,
        input: &Read,
        id: ValueId,
        chunk: &Chunk,
    ) -> Result<()> {
        let conv = &self.convs[conv_id];
        let size = (chunk.len(), conv.size.0, conv.size.1);
        let x = self.read(&w.values, &mut w.act, input, w.images.start, chunk)?;
        let dy = self.output_gradient(&w.slots, &w.dy, id, chunk);
        let sum = &mut w.sums[conv.sum][..conv.weight.sum_len()];
        conv.weight
            .add(size, x, dy, sum, chunk.start == 0, &mut w.scratch)?;
        if self.graph.convs[conv_id].bias && !conv.free_bias {
            channel_sums(self.isa, self.dims(id, chunk), dy, &mut w.biases[conv_id])?;
        }
        let Some(gradient) = &conv.input else {
            return Ok(());
        };
        let mut to = take(&mut w.slots[self.slot(input)]);
        let dy = self.output_gradient(&w.slots, &w.dy, id, chunk);
        let dx = &mut to[self.range(input.value, chunk)];
        let accumulate = self.accumulates(i, 0, input);
        let mut done = gradient.run(size, dy, dx, accumulate, &mut w.scratch);
        if let (Ok(()), Some(d)) = (&done, input.dropout) {
            let (kept, factor) = self.mask(d, input.value, w.images.start, chunk);
            done = dropout(self.isa, kept, factor, dx);
        }
        w.slots[self.slot(input)] = to;
        done?;
        self.norm_moments(w, input, chunk)
    }

    fn backward_stem(
        &self,
        w: &mut Worker,
        conv_id: usize,
        id: ValueId,
        chunk: &Chunk,
    ) -> Result<()> {
        let conv = &self.convs[conv_id];
        let (h, width) = conv.size;
        let len = conv.geometry.inputs * h * width;
        let first = w.images.start;
        let images = &self.images[(first + chunk.start) * len..(first + chunk.end) * len];
        let dy = self.output_gradient(&w.slots, &w.dy, id, chunk);
        if self.graph.convs[conv_id].bias && !conv.free_bias {
            channel_sums(self.isa, self.dims(id, chunk), dy, &mut w.biases[conv_id])?;
        }
        let size = (chunk.len(), h, width);
        let sum = &mut w.sums[conv.sum][..conv.weight.sum_len()];
        conv.weight
            .add_images(size, images, dy, sum, chunk.start == 0, &mut w.scratch)
    }

    fn backward_sum(
        &self,
        w: &mut Worker,
        i: usize,
        terms: &[Term],
        relu: bool,
        id: ValueId,
        chunk: &Chunk,
    ) -> Result<()> {
        if let (true, Place::Slot(slot)) = (relu, self.plan.gradient[id]) {
            let range = self.range(id, chunk);
            relu_gradient(
                self.isa,
                &w.values[id][range.clone()],
                &mut w.slots[slot][range],
            )?;
        }
        for (position, term) in terms.iter().enumerate() {
            if self.flags.runs(term.gate) {
                self.pass_on(w, i, position, id, &term.read, term.pad, chunk)?;
            }
        }
        Ok(())
    }

    /// Passes the gradient of a sum on to one of its terms.
    #[allow(clippy::too_many_arguments)]
    fn pass_on(
        &self,
        w: &mut Worker,
        i: usize,
        position: usize,
        id: ValueId,
        read: &Read,
        pad: Option<usize>,
        chunk: &Chunk,
    ) -> Result<()> {
        if read.norm.is_some() {
            // It lies in the sum's own slot.
            return self.norm_moments(w, read, chunk);
        }
        if self.plan.heir[i] == Some(read.value) && read.is_plain() && pad.is_none() {
            return Ok(());
        }
        let accumulate = self.flags.accumulate[i][position];
        let (range, dims) = (self.range(read.value, chunk), self.dims(read.value, chunk));
        let mut to = take(&mut w.slots[self.slot(read)]);
        let dx = &mut to[range];
        let dz = self.output_gradient(&w.slots, &w.dy, id, chunk);
        let done = match (pad, read.dropout) {
            (Some(stride), _) => {
                if !accumulate {
                    dx.fill(Block::ZERO);
                }
                pad_shortcut_gradient(dims, stride, self.graph.values[id].channels, dz, dx)
            }
            (None, Some(d)) => {
                let (kept, factor) = self.mask(d, read.value, w.images.start, chunk);
                let act = &mut w.act[..dz.len()];
                act.copy_from_slice(dz);
                dropout(self.isa, kept, factor, act).and_then(|()| {
                    sum(self.isa, dims, &[Addend::plain(act)], accumulate, false, dx)
                })
            }
            (None, None) => sum(self.isa, dims, &[Addend::plain(dz)], accumulate, false, dx),
        };
        w.slots[self.slot(read)] = to;
        done
    }
}
