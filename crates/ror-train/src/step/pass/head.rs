//! The end of the network: average pool, classifier, loss.

use super::{Chunk, Pass, Result};
use crate::step::graph::{Node, Op, Read};
use crate::step::state::Worker;
use ror_ops::kernels::{
    Addend, Block, as_flat, as_flat_mut, blocks, global_average_pool, global_average_pool_gradient,
    softmax_cross_entropy, sum,
};

impl Pass<'_> {
    pub(super) fn forward_head(&self, w: &mut Worker, node: &Node, chunk: &Chunk) -> Result<()> {
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

    pub(super) fn backward_head(
        &self,
        w: &mut Worker,
        i: usize,
        input: &Read,
        chunk: &Chunk,
    ) -> Result<()> {
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
            1.0 / self.whole as f64,
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
