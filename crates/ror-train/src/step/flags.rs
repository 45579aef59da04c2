//! What a step does with each gradient: set it or add to it, which depends on the blocks that it drops.

use super::graph::{GateId, Graph, Op};
use super::plan::Plan;

/// For one step.
#[derive(Debug, Clone, Default)]
pub(super) struct Flags {
    pub dropped: Vec<bool>,
    /// Of each node, whether it adds to the gradient of each of its reads.
    pub accumulate: Vec<Vec<bool>>,
    /// Whether a norm's contribution to its value's gradient is added.
    pub norm_accumulate: Vec<bool>,
    /// Nodes whose output no gradient reaches.
    pub unreached: Vec<bool>,
}

impl Flags {
    pub(super) fn new(graph: &Graph, plan: &Plan, dropped: Vec<bool>) -> Self {
        let mut written = vec![false; graph.values.len()];
        let mut flags = Self {
            accumulate: vec![Vec::new(); graph.nodes.len()],
            norm_accumulate: vec![false; graph.norms.len()],
            unreached: vec![false; graph.nodes.len()],
            dropped,
        };
        for (i, node) in graph.nodes.iter().enumerate().rev() {
            if !flags.runs(node.gate) {
                continue;
            }
            if let Some(out) = node.out.filter(|&v| plan.completed[v] == i) {
                for &k in &plan.norms_of[out] {
                    if flags.runs(graph.norms[k].gate) {
                        flags.norm_accumulate[k] = written[out];
                        written[out] = true;
                    }
                }
                flags.unreached[i] = !written[out];
            }
            let heir = plan.heir[i];
            for (position, (read, gate)) in node.reads().into_iter().enumerate() {
                let contributes = read.norm.is_none() && flags.runs(gate);
                // The input of a convolution is never the heir.
                let input = position == 0 && matches!(node.op, Op::Conv { .. });
                let inherits = !input && heir == Some(read.value) && read.is_plain();
                flags.accumulate[i].push(written[read.value]);
                if contributes || inherits {
                    written[read.value] = true;
                }
            }
        }
        flags
    }

    /// Whether what stands behind a gate runs.
    pub(super) fn runs(&self, gate: Option<GateId>) -> bool {
        gate.is_none_or(|g| !self.dropped[g])
    }
}
