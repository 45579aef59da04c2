//! When each operation runs, and where each tensor lies.
//!
//! A *stage* is a run of nodes that every thread works through chunk by chunk, a few images at a time, so that what
//! one node writes the next finds in the cache. A stage ends where a batch normalisation needs sums over the whole
//! batch: forwards, where a node reads through a norm whose value the stage computes; backwards, where the gradient
//! of a value needs the sums of a norm whose reader the stage has.
//!
//! Gradients live in *slots*: of a value, or of what a norm makes of it. Slots whose lives do not overlap share
//! memory. The gradient of a value that is only read through one norm has no slot: it is computed chunk by chunk.

use super::graph::{Graph, NormId, Op, ValueId};
use ror_ops::kernels::blocks;
use std::ops::Range;

/// Where the gradient of a value lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Slot(usize),
    /// Computed chunk by chunk from the gradient of its one norm.
    Chunk,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Plan {
    pub forward: Vec<Range<usize>>,
    /// Nodes of a range run in reverse.
    pub backward: Vec<Range<usize>>,
    /// The node after which a value is complete.
    pub completed: Vec<usize>,
    /// Norms of a value.
    pub norms_of: Vec<Vec<NormId>>,
    pub gradient: Vec<Place>,
    /// The slot of the gradient of what a norm gives (after the rectifier).
    pub norm_slot: Vec<usize>,
    /// Whether the reader of a norm rectifies what it reads; a sum's rectifier comes after the sum.
    pub rectified: Vec<bool>,
    /// Blocks per image of each slot's memory.
    pub memory: Vec<usize>,
    /// For a sum or convolution, the identity whose gradient takes over the output's slot.
    pub heir: Vec<Option<ValueId>>,
}

/// Blocks per image.
pub(super) fn image_len(graph: &Graph, v: ValueId) -> usize {
    let shape = graph.values[v];
    blocks(shape.channels) * shape.height * shape.width
}

impl Plan {
    pub(super) fn new(graph: &Graph) -> Self {
        let nodes = &graph.nodes;
        let mut plan = Self {
            completed: vec![0; graph.values.len()],
            norms_of: vec![Vec::new(); graph.values.len()],
            gradient: vec![Place::Chunk; graph.values.len()],
            norm_slot: vec![0; graph.norms.len()],
            rectified: vec![false; graph.norms.len()],
            heir: vec![None; nodes.len()],
            ..Self::default()
        };
        for (i, node) in nodes.iter().enumerate() {
            if let Some(out) = node.out {
                plan.completed[out] = i;
            }
        }
        let mut reader = vec![0; graph.norms.len()];
        for (i, node) in nodes.iter().enumerate() {
            node.norms().for_each(|k| reader[k] = i);
        }
        for (read, _) in nodes.iter().flat_map(|node| node.reads()) {
            if let Some(k) = read.norm {
                plan.rectified[k] = read.relu;
            }
        }
        for (k, norm) in graph.norms.iter().enumerate() {
            plan.norms_of[norm.value].push(k);
        }
        plan.stages(graph, &reader);
        plan.slots(graph, &reader);
        plan
    }

    fn stages(&mut self, graph: &Graph, reader: &[usize]) {
        let count = graph.nodes.len();
        let mut start = 0;
        for (i, node) in graph.nodes.iter().enumerate() {
            let waits = |k: NormId| self.completed[graph.norms[k].value] >= start;
            if node.norms().any(waits) {
                self.forward.push(start..i);
                start = i;
            }
        }
        self.forward.push(start..count);

        let mut end = count;
        for (i, node) in graph.nodes.iter().enumerate().rev() {
            let Some(out) = node.out.filter(|&v| self.completed[v] == i) else {
                continue;
            };
            if self.norms_of[out].iter().any(|&k| reader[k] < end) && end > i + 1 {
                self.backward.push(i + 1..end);
                end = i + 1;
            }
        }
        self.backward.push(0..end);
    }

    fn slots(&mut self, graph: &Graph, reader: &[usize]) {
        let mut slots = Slots::default();
        // Backwards, so that the gradient of a sum has its slot before its terms share it.
        for (i, node) in graph.nodes.iter().enumerate().rev() {
            if let Some(out) = node.out {
                if self.gradient[out] == Place::Chunk && self.is_read_by_several(graph, i, out) {
                    let slot = slots.new_slot(image_len(graph, out), i);
                    self.gradient[out] = Place::Slot(slot);
                }
                if let Place::Slot(slot) = self.gradient[out] {
                    slots.read(slot, i);
                }
            }
            match &node.op {
                Op::Stem { .. } => {}
                Op::Conv {
                    input, identities, ..
                } => {
                    self.read_slot(graph, &mut slots, i, input.value, input.norm);
                    self.inherit(graph, i, identities);
                    for &v in identities {
                        self.identity_slot(graph, &mut slots, i, v);
                    }
                }
                Op::Pool { input, .. } | Op::Head { input } => {
                    self.read_slot(graph, &mut slots, i, input.value, input.norm);
                }
                Op::Sum { terms, .. } => {
                    let identities: Vec<ValueId> = terms
                        .iter()
                        .filter(|t| t.read.is_plain() && t.pad.is_none() && t.gate.is_none())
                        .map(|t| t.read.value)
                        .collect();
                    self.inherit(graph, i, &identities);
                    let own = node.out.map(|v| self.gradient[v]);
                    for term in terms {
                        match (term.read.norm, own) {
                            (Some(k), Some(Place::Slot(slot))) => {
                                self.norm_slot[k] = slot;
                                slots.read(slot, self.completed[graph.norms[k].value]);
                            }
                            _ => self.identity_slot(graph, &mut slots, i, term.read.value),
                        }
                    }
                }
            }
            // A norm's gradient is last read where its value's is computed.
            for k in node.norms() {
                debug_assert_eq!(reader[k], i);
                slots.read(self.norm_slot[k], self.completed[graph.norms[k].value]);
            }
        }
        let (memory, of) = slots.place();
        self.memory = memory;
        for place in &mut self.gradient {
            if let Place::Slot(slot) = place {
                *slot = of[*slot];
            }
        }
        self.norm_slot.iter_mut().for_each(|slot| *slot = of[*slot]);
    }

    /// Whether the gradient of a node's output is needed in other places than the node's own backward pass.
    fn is_read_by_several(&self, graph: &Graph, node: usize, out: ValueId) -> bool {
        let single = match &graph.nodes[node].op {
            Op::Sum { .. } => false,
            Op::Conv { identities, .. } => identities.is_empty(),
            Op::Stem { .. } | Op::Pool { .. } | Op::Head { .. } => true,
        };
        !single || graph.nodes.iter().filter(|n| n.out == Some(out)).count() > 1
    }

    /// The slot that a read's gradient goes to: the norm's own, or the value's.
    fn read_slot(
        &mut self,
        graph: &Graph,
        slots: &mut Slots,
        node: usize,
        value: ValueId,
        norm: Option<NormId>,
    ) {
        match norm {
            Some(k) => {
                self.norm_slot[k] = slots.new_slot(image_len(graph, value), node);
            }
            None => self.identity_slot(graph, slots, node, value),
        }
    }

    fn identity_slot(&mut self, graph: &Graph, slots: &mut Slots, node: usize, value: ValueId) {
        match self.gradient[value] {
            Place::Slot(slot) => slots.read(slot, node),
            Place::Chunk => {
                let slot = match self.heir[node].filter(|&heir| heir == value) {
                    Some(_) => match graph.nodes[node].out.map(|out| self.gradient[out]) {
                        Some(Place::Slot(slot)) => slot,
                        _ => slots.new_slot(image_len(graph, value), node),
                    },
                    None => slots.new_slot(image_len(graph, value), node),
                };
                self.gradient[value] = Place::Slot(slot);
            }
        }
    }

    /// Chooses the identity that takes over the slot of the output's gradient: one that has no gradient yet, and
    /// gets more only after all who read the output's have done so.
    fn inherit(&mut self, graph: &Graph, node: usize, identities: &[ValueId]) {
        let Some(out) = graph.nodes[node].out else {
            return;
        };
        if !matches!(self.gradient[out], Place::Slot(_)) {
            return;
        }
        // Nodes that read the output's gradient: those that compute the output or, of a sum, its other terms.
        let mut last_reader = node;
        for (i, other) in graph.nodes.iter().enumerate() {
            if other.out == Some(out) {
                last_reader = last_reader.min(i);
            }
        }
        if let Op::Sum { terms, .. } = &graph.nodes[node].op {
            for term in terms {
                if !identities.contains(&term.read.value) || term.read.norm.is_some() {
                    last_reader = last_reader.min(self.completed[term.read.value]);
                }
            }
        }
        let mut candidates = identities.iter().copied().rev().filter(|&v| {
            let once = identities.iter().filter(|&&other| other == v).count() == 1;
            let others = graph.nodes[..node].iter().enumerate();
            let next = others
                .filter(|(_, n)| n.reads().iter().any(|(read, _)| read.value == v))
                .map(|(i, _)| i)
                .max();
            once && self.gradient[v] == Place::Chunk && next.is_none_or(|next| next < last_reader)
        });
        self.heir[node] = candidates.next();
    }
}

/// Slots before they have memory: from the node that first writes them down to the one that last reads them.
#[derive(Default)]
struct Slots(Vec<Slot>);

struct Slot {
    len: usize,
    first: usize,
    last: usize,
}

impl Slots {
    fn new_slot(&mut self, len: usize, node: usize) -> usize {
        self.0.push(Slot {
            len,
            first: node,
            last: node,
        });
        self.0.len() - 1
    }

    fn read(&mut self, slot: usize, node: usize) {
        let slot = &mut self.0[slot];
        slot.last = slot.last.min(node);
    }

    /// Gives each slot memory of its own size that no living slot has. Returns the sizes and each slot's memory.
    fn place(&self) -> (Vec<usize>, Vec<usize>) {
        let mut order: Vec<usize> = (0..self.0.len()).collect();
        order.sort_by_key(|&s| std::cmp::Reverse(self.0[s].first));
        // Of each piece of memory, its size and the node that last reads what is in it.
        let mut memory: Vec<(usize, usize)> = Vec::new();
        let mut of = vec![0; self.0.len()];
        for s in order {
            let slot = &self.0[s];
            let free = |&(len, last): &(usize, usize)| len == slot.len && last > slot.first;
            let m = memory.iter().position(free).unwrap_or_else(|| {
                memory.push((slot.len, 0));
                memory.len() - 1
            });
            memory[m].1 = slot.last;
            of[s] = m;
        }
        (memory.into_iter().map(|(len, _)| len).collect(), of)
    }
}
