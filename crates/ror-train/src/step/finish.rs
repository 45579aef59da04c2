//! Gradients at the end of a backward stage: what the threads have summed, added up.

use super::failure::Failure;
use super::flags::Flags;
use super::graph::{Conv, Op};
use super::run::Step;
use super::state::Worker;
use super::variables::gradient;
use crate::Gradients;
use candle_core::Result;
use ror_ops::kernels::LANES;
use std::ops::Range;

impl Step<'_> {
    /// Adds up the weight gradients that a stage has summed.
    pub(super) fn finish_convs(
        &self,
        nodes: &Range<usize>,
        flags: &Flags,
        gradients: &mut Gradients,
    ) -> Result<()> {
        let c = &*self.compiled;
        let guards = self.workers();
        let workers: Vec<&Worker> = guards.iter().map(|w| &**w).collect();
        for node in &c.graph.nodes[nodes.clone()] {
            let (Op::Conv { conv: id, .. } | Op::Stem { conv: id }) = node.op else {
                continue;
            };
            if !flags.runs(node.gate) {
                continue;
            }
            let (spec, conv) = (&c.graph.convs[id], &c.convs[id]);
            let len = conv.weight.sum_len();
            let sums: Vec<_> = workers.iter().map(|w| &w.sums[conv.sum][..len]).collect();
            let weight = gradient(gradients, &format!("{}.weight", spec.path))?;
            let failure = Failure::default();
            let outputs = spec.geometry.outputs;
            if outputs.is_multiple_of(LANES) {
                let unit = weight.len() / outputs * LANES;
                self.pool.run_shares(weight, unit, |range, share| {
                    let range = range.start * LANES..range.end * LANES;
                    failure.note(conv.weight.finish(&sums, range, share));
                });
            } else {
                failure.note(conv.weight.finish(&sums, 0..outputs, weight));
            }
            failure.result()?;
            if spec.bias {
                let bias = gradient(gradients, &format!("{}.bias", spec.path))?;
                // A batch normalisation takes out whatever a bias adds, so that its gradient is zero, exactly.
                if conv.free_bias {
                    bias.fill(0.0);
                } else {
                    bias_gradient(&workers, id, spec, bias);
                }
            }
        }
        Ok(())
    }

    pub(super) fn finish_head(&self, gradients: &mut Gradients) -> Result<()> {
        if self.compiled.graph.classes.is_none() {
            return Ok(());
        }
        let weight = gradient(gradients, "head.dense.weight")?;
        weight.fill(0.0);
        let guards = self.workers();
        for worker in &guards {
            add(weight, &worker.head.weight_gradient);
        }
        let bias = gradient(gradients, "head.dense.bias")?;
        bias.fill(0.0);
        for worker in &guards {
            add(bias, &worker.head.bias_gradient);
        }
        Ok(())
    }
}

fn add(to: &mut [f32], from: &[f32]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
}

/// The sums of a convolution's bias as its gradient.
fn bias_gradient(workers: &[&Worker], conv: usize, spec: &Conv, gradient: &mut [f32]) {
    debug_assert_eq!(spec.geometry.outputs, gradient.len());
    for (c, out) in gradient.iter_mut().enumerate() {
        let sums = workers.iter().map(|w| w.biases[conv][c / LANES][c % LANES]);
        *out = sums.sum::<f64>() as f32;
    }
}
