//! Running nodes forwards and backwards on a chunk of images, on one thread.

use super::flags::Flags;
use super::graph::{Conv, Graph, Node, Op, Read, Term, ValueId};
use super::plan::{Place, Plan, image_len};
use super::state::{ConvState, Forward, NormState, Worker};
use ror_ops::kernels::{
    Addend, Block, Blocks, Dims, Fused, Isa, Kept, KernelError, LANES, Linear, MAX_TERMS, Output,
    Plain, Source, Term as FusedTerm, as_flat, as_flat_mut, blocks, channel_sums, dropout,
    global_average_pool, global_average_pool_gradient, pad_shortcut, pad_shortcut_gradient,
    relu_gradient, softmax_cross_entropy, sum,
};
use std::mem::take;
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
    pub batch: usize,
    pub classifier: Option<Linear<'a>>,
    /// Whether normalisations follow the batch, and dropout and stochastic depth are on.
    pub training: bool,
}

/// Images of a chunk, counted within the thread's own.
type Chunk = Range<usize>;

impl Pass<'_> {
    /// Runs a stage forwards on all images of a thread, `step` at a time.
    pub(super) fn forward(&self, w: &mut Worker, nodes: Range<usize>, step: usize) -> Result<()> {
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

    /// Runs a stage backwards.
    pub(super) fn backward(&self, w: &mut Worker, nodes: Range<usize>, step: usize) -> Result<()> {
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

    fn forward_head(&self, w: &mut Worker, node: &Node, chunk: &Chunk) -> Result<()> {
        let Op::Head { input } = &node.op else {
            return Ok(());
        };
        let x = self.read(&w.values, &mut w.act, input, w.images.start, chunk)?;
        let dims = self.dims(input.value, chunk);
        let (head, per_image) = (&mut w.head, blocks(dims.c));
        let pooled = &mut head.pooled[chunk.start * per_image..chunk.end * per_image];
        global_average_pool(self.isa, dims, x, pooled)?;
        let features = &mut head.features[chunk.start * dims.c..chunk.end * dims.c];
        for (row, pooled) in features
            .chunks_exact_mut(dims.c)
            .zip(pooled.chunks_exact(per_image))
        {
            row.copy_from_slice(&as_flat(pooled)[..dims.c]);
        }
        let classes = self.graph.classes.unwrap_or(dims.c);
        let logits = &mut head.logits[chunk.start * classes..chunk.end * classes];
        match &self.classifier {
            Some(linear) => linear.run(self.isa, chunk.len(), features, logits),
            None => {
                logits.copy_from_slice(features);
                Ok(())
            }
        }
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
    fn slot(&self, read: &Read) -> usize {
        match (read.norm, self.plan.gradient[read.value]) {
            (Some(k), _) => self.plan.norm_slot[k],
            (None, Place::Slot(slot)) => slot,
            // A value that is read without a norm has a slot.
            (None, Place::Chunk) => usize::MAX,
        }
    }

    fn accumulates(&self, i: usize, position: usize, read: &Read) -> bool {
        read.norm.is_none() && self.flags.accumulate[i][position]
    }

    /// Takes in the gradient of what a norm gave, now that it is computed.
    fn norm_moments(&self, w: &mut Worker, read: &Read, chunk: &Chunk) -> Result<()> {
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

    fn backward_head(&self, w: &mut Worker, i: usize, input: &Read, chunk: &Chunk) -> Result<()> {
        let dims = self.dims(input.value, chunk);
        let classes = self.graph.classes.unwrap_or(dims.c);
        let rows = |width: usize| chunk.start * width..chunk.end * width;
        let head = &mut w.head;
        let first = w.images.start;
        let targets = &self.targets[(first + chunk.start) * classes..(first + chunk.end) * classes];
        let logits_gradient = &mut head.logits_gradient[rows(classes)];
        head.loss += softmax_cross_entropy(
            classes,
            &head.logits[rows(classes)],
            targets,
            1.0 / self.batch as f64,
            logits_gradient,
        )?;
        let gradient = &mut head.features_gradient[rows(dims.c)];
        match &self.classifier {
            Some(linear) => linear.gradient(
                self.isa,
                chunk.len(),
                &head.features[rows(dims.c)],
                logits_gradient,
                gradient,
                &mut head.weight_gradient,
                &mut head.bias_gradient,
            )?,
            None => gradient.copy_from_slice(logits_gradient),
        }
        let per_image = blocks(dims.c);
        let pooled = &mut head.pooled[rows(per_image)];
        for (row, pooled) in gradient
            .chunks_exact(dims.c)
            .zip(pooled.chunks_exact_mut(per_image))
        {
            pooled.fill(Block::ZERO);
            as_flat_mut(pooled)[..dims.c].copy_from_slice(row);
        }
        let dx = &mut w.slots[self.slot(input)][self.range(input.value, chunk)];
        if self.accumulates(i, 0, input) {
            let fresh = &mut w.act[..dx.len()];
            global_average_pool_gradient(dims, pooled, fresh)?;
            sum(self.isa, dims, &[Addend::plain(fresh)], true, false, dx)?;
        } else {
            global_average_pool_gradient(dims, pooled, dx)?;
        }
        self.norm_moments(w, input, chunk)
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

fn unpacked() -> KernelError {
    KernelError::Shape {
        what: "convolution",
        why: "no weights have been packed".to_owned(),
    }
}

/// The sums of a convolution's bias as its gradient.
pub(super) fn bias_gradient(workers: &[&Worker], conv: usize, spec: &Conv, gradient: &mut [f32]) {
    debug_assert_eq!(spec.geometry.outputs, gradient.len());
    for (c, out) in gradient.iter_mut().enumerate() {
        let sums = workers.iter().map(|w| w.biases[conv][c / LANES][c % LANES]);
        *out = sums.sum::<f64>() as f32;
    }
}
