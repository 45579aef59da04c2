//! Forwards.

use super::{Chunk, Pass, Result, chunks};
use crate::step::graph::{Node, Op, Term, ValueId};
use crate::step::state::{Forward, Worker};
use ror_ops::kernels::{
    Addend, Block, Fused, KernelError, MAX_TERMS, Output, Plain, Source, Term as FusedTerm,
    pad_shortcut, sum,
};
use std::mem::take;
use std::ops::Range;

impl Pass<'_> {
    /// Runs a stage forwards on all images of a thread, `step` at a time.
    pub(in crate::step) fn forward(
        &self,
        w: &mut Worker,
        nodes: Range<usize>,
        step: usize,
    ) -> Result<()> {
        for chunk in chunks(w.images.len(), step) {
            for i in nodes.clone() {
                let node = &self.graph.nodes[i];
                if self.flags.runs(node.gate) {
                    self.forward_node(w, i, node, &chunk)?;
                }
            }
        }
        Ok(())
    }

    fn forward_node(&self, w: &mut Worker, i: usize, node: &Node, chunk: &Chunk) -> Result<()> {
        let Some(id) = node.out else {
            return self.forward_head(w, node, chunk);
        };
        // Taken out, so that other values can be read while it is written.
        let mut value = take(&mut w.values[id]);
        let out = &mut value[self.range(id, chunk)];
        let done = self.compute(w, node, id, out, chunk);
        w.values[id] = value;
        done?;
        if self.training && self.plan.completed[id] == i {
            for &k in &self.plan.norms_of[id] {
                if self.flags.runs(self.graph.norms[k].gate) {
                    let x = &w.values[id][self.range(id, chunk)];
                    w.moments[k].add(self.isa, self.dims(id, chunk), x)?;
                }
            }
        }
        Ok(())
    }

    fn compute(
        &self,
        w: &mut Worker,
        node: &Node,
        id: ValueId,
        out: &mut [Block],
        chunk: &Chunk,
    ) -> Result<()> {
        let first = w.images.start;
        match &node.op {
            Op::Stem { conv } => {
                let conv = &self.convs[*conv];
                let Forward::Stem(Some(stem)) = &conv.forward else {
                    return Err(unpacked());
                };
                let (h, width) = conv.size;
                let len = conv.geometry.inputs * h * width;
                let images = &self.images[(first + chunk.start) * len..(first + chunk.end) * len];
                let size = (chunk.len(), h, width);
                let fused = Fused::default();
                stem.run(
                    size,
                    Plain::F32(images),
                    &fused,
                    Output::raw(out),
                    &mut w.scratch,
                )
            }
            Op::Conv {
                conv,
                input,
                accumulate,
                identities,
            } => {
                let conv = &self.convs[*conv];
                let Forward::Blocked(packed) = &conv.forward else {
                    return Err(unpacked());
                };
                let x = self.read(&w.values, &mut w.act, input, first, chunk)?;
                let mut terms = [FusedTerm {
                    source: Source::Output,
                    relu: false,
                }; MAX_TERMS];
                for (term, &v) in terms.iter_mut().zip(identities) {
                    term.source = Source::Tensor(&w.values[v][self.range(v, chunk)]);
                }
                let count = identities.len() + usize::from(*accumulate);
                let fused = Fused {
                    terms: &terms[..count.min(MAX_TERMS)],
                    ..Fused::default()
                };
                let size = (chunk.len(), conv.size.0, conv.size.1);
                packed.run(size, x, &fused, Output::raw(out), &mut w.scratch)
            }
            Op::Sum { terms, relu } => self.forward_sum(w, terms, *relu, id, out, chunk),
            Op::Pool { pool, input } => {
                let x = self.read(&w.values, &mut w.act, input, first, chunk)?;
                pool.run(self.isa, self.dims(input.value, chunk), x, out)
            }
            Op::Head { .. } => Ok(()),
        }
    }

    fn forward_sum(
        &self,
        w: &mut Worker,
        terms: &[Term],
        relu: bool,
        id: ValueId,
        out: &mut [Block],
        chunk: &Chunk,
    ) -> Result<()> {
        let dims = self.dims(id, chunk);
        let first = w.images.start;
        let factor = |term: &Term| match term.gate {
            Some(gate) if !self.training => self.graph.gates[gate] as f32,
            _ => 1.0,
        };
        let mut rest = Vec::with_capacity(terms.len());
        let mut started = false;
        for term in terms.iter().filter(|t| self.flags.runs(t.gate)) {
            let v = term.read.value;
            let x = match term.pad {
                None if term.read.dropout.is_none() => {
                    rest.push(Addend {
                        x: &w.values[v][self.range(v, chunk)],
                        affine: term.read.norm.map(|k| self.norms[k].affine()),
                        factor: factor(term),
                    });
                    continue;
                }
                None => self.read(&w.values, &mut w.act, &term.read, first, chunk)?,
                Some(stride) => {
                    let x = &w.values[v][self.range(v, chunk)];
                    let to = &mut w.act[..out.len()];
                    pad_shortcut(self.dims(v, chunk), stride, dims.c, x, to)?;
                    to
                }
            };
            let addend = Addend {
                factor: factor(term),
                ..Addend::plain(x)
            };
            sum(self.isa, dims, &[addend], started, false, out)?;
            started = true;
        }
        sum(self.isa, dims, &rest, started, relu, out)
    }
}

fn unpacked() -> KernelError {
    KernelError::Shape {
        what: "convolution",
        why: "no weights have been packed".to_owned(),
    }
}
