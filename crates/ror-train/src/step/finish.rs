//! Gradients at the end of a backward stage: what the threads have summed, added up and handed out.

use super::failure::Failure;
use super::flags::Flags;
use super::graph::{ConvId, Op};
use super::run::Step;
use super::state::Worker;
use crate::Gradients;
use crate::engine::Peers;
use candle_core::Result;
use ror_ops::kernels::LANES;
use std::ops::Range;

/// Where gradients go that are final.
pub(super) struct Outlet<'a> {
    pub gradients: &'a mut Gradients,
    pub peers: &'a mut dyn Peers,
}

impl Outlet<'_> {
    /// Sets the gradient of the tensor called `name`, and tells of it.
    fn give(&mut self, name: &str, set: impl FnOnce(&mut [f32]) -> Result<()>) -> Result<()> {
        let Some(index) = self.gradients.layout().index(name) else {
            candle_core::bail!("no place for the gradient of `{name}`")
        };
        let gradient = self.gradients.at_mut(index);
        set(gradient)?;
        self.peers.ready(index, gradient);
        Ok(())
    }

    fn zero(&mut self, name: &str) -> Result<()> {
        self.give(name, |gradient| {
            gradient.fill(0.0);
            Ok(())
        })
    }
}

impl Step<'_> {
    /// Completes the gradients of a backward stage's nodes, the last node first.
    pub(super) fn finish(
        &self,
        nodes: &Range<usize>,
        flags: &Flags,
        outlet: &mut Outlet<'_>,
    ) -> Result<()> {
        let c = &*self.compiled;
        let guards = self.workers();
        let workers: Vec<&Worker> = guards.iter().map(|w| &**w).collect();
        for i in nodes.clone().rev() {
            let node = &c.graph.nodes[i];
            if let Some(out) = node.out.filter(|&v| c.plan.completed[v] == i) {
                for &k in c.plan.norms_of[out].iter().rev() {
                    let norm = &c.graph.norms[k];
                    for name in ["bias", "weight"] {
                        let name = format!("{}.{name}", norm.path);
                        if flags.runs(norm.gate) {
                            // Set before the stage, which needs the same sums.
                            outlet.give(&name, |_| Ok(()))?;
                        } else {
                            outlet.zero(&name)?;
                        }
                    }
                }
            }
            match node.op {
                Op::Conv { conv, .. } | Op::Stem { conv } => {
                    self.finish_conv(conv, &workers, flags, outlet)?;
                }
                Op::Head { .. } if c.graph.classes.is_some() => finish_head(&workers, outlet)?,
                Op::Head { .. } | Op::Sum { .. } | Op::Pool { .. } => {}
            }
        }
        Ok(())
    }

    fn finish_conv(
        &self,
        id: ConvId,
        workers: &[&Worker],
        flags: &Flags,
        outlet: &mut Outlet<'_>,
    ) -> Result<()> {
        let (spec, conv) = (&self.compiled.graph.convs[id], &self.compiled.convs[id]);
        let runs = flags.runs(spec.gate);
        if spec.bias {
            let name = format!("{}.bias", spec.path);
            // A batch normalisation takes out whatever a bias adds, so that its gradient is zero, exactly.
            if conv.free_bias || !runs {
                outlet.zero(&name)?;
            } else {
                outlet.give(&name, |gradient| {
                    for (c, out) in gradient.iter_mut().enumerate() {
                        let sums = workers.iter().map(|w| w.biases[id][c / LANES][c % LANES]);
                        *out = sums.sum::<f64>() as f32;
                    }
                    Ok(())
                })?;
            }
        }
        let name = format!("{}.weight", spec.path);
        if !runs {
            return outlet.zero(&name);
        }
        let len = conv.weight.sum_len();
        let sums: Vec<_> = workers.iter().map(|w| &w.sums[conv.sum][..len]).collect();
        outlet.give(&name, |gradient| {
            let failure = Failure::default();
            let outputs = spec.geometry.outputs;
            if outputs.is_multiple_of(LANES) {
                let unit = gradient.len() / outputs * LANES;
                self.pool.run_shares(gradient, unit, |range, share| {
                    let range = range.start * LANES..range.end * LANES;
                    failure.note(conv.weight.finish(&sums, range, share));
                });
            } else {
                failure.note(conv.weight.finish(&sums, 0..outputs, gradient));
            }
            failure.result()
        })
    }
}

fn finish_head(workers: &[&Worker], outlet: &mut Outlet<'_>) -> Result<()> {
    outlet.give("head.dense.bias", |gradient| {
        add_up(gradient, workers.iter().map(|w| &w.head.bias_gradient[..]));
        Ok(())
    })?;
    outlet.give("head.dense.weight", |gradient| {
        add_up(
            gradient,
            workers.iter().map(|w| &w.head.weight_gradient[..]),
        );
        Ok(())
    })
}

fn add_up<'w>(gradient: &mut [f32], parts: impl Iterator<Item = &'w [f32]>) {
    gradient.fill(0.0);
    for part in parts {
        let pairs = gradient.iter_mut().zip(part);
        pairs.for_each(|(to, from)| *to += from);
    }
}
