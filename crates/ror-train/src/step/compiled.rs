//! A network compiled for a number of images of one size.

use super::flags::Flags;
use super::graph::{Graph, Op};
use super::lower::lower;
use super::pass::pool_scratch;
use super::plan::{Place, Plan, image_len};
use super::state::{ConvState, NormState, Room, Sizes, Worker, chunk_images};
use candle_core::{Error, Result};
use ror_blocks::Shape3;
use ror_models::Network;
use ror_ops::kernels::{Block, Isa, Kept, Memory};
use std::ops::Range;
use std::sync::RwLock;

/// Everything that is allocated once and used in every step.
pub(super) struct Compiled {
    pub graph: Graph,
    pub plan: Plan,
    pub convs: Vec<ConvState>,
    pub norms: Vec<NormState>,
    pub workers: Vec<RwLock<Worker>>,
    pub masks: Vec<Vec<Kept>>,
    /// Flags of a step that drops nothing.
    pub flags: Flags,
    pub input: Shape3,
    /// Most images of a batch.
    pub capacity: usize,
}

impl Compiled {
    pub(super) fn new(
        isa: Isa,
        network: &Network,
        input: Shape3,
        capacity: usize,
        threads: usize,
    ) -> Result<Self> {
        let graph = lower(network, input).map_err(Error::wrap)?;
        let plan = Plan::new(&graph);
        let images = capacity.div_ceil(threads);
        let mut convs = Vec::with_capacity(graph.convs.len());
        let mut room = Room {
            images,
            act: 0,
            dy: 0,
            scratch: 0,
        };
        let mut inputs = vec![(input.height, input.width, true); graph.convs.len()];
        for node in &graph.nodes {
            if let Op::Conv { conv, input, .. } = &node.op {
                let shape = graph.values[input.value];
                inputs[*conv] = (shape.height, shape.width, false);
            }
        }
        for (spec, &(h, w, stem)) in graph.convs.iter().zip(&inputs) {
            // Images of a chunk as the convolution alone would have them, to choose its algorithm.
            let shape = spec.geometry.inputs.max(spec.geometry.outputs) * h * w;
            let chunk = (64 * 1024 / shape.max(1)).clamp(1, images.max(1));
            let conv = ConvState::new(isa, spec.geometry, chunk, (h, w), stem);
            convs.push(conv.map_err(Error::wrap)?);
        }
        let stages = plan.forward.iter().chain(&plan.backward);
        let evaluation = 0..graph.nodes.len();
        for nodes in stages.chain([&evaluation]) {
            let chunk = chunk_images(&graph, nodes.clone()).min(images);
            for node in &graph.nodes[nodes.clone()] {
                for v in node
                    .reads()
                    .iter()
                    .map(|(read, _)| read.value)
                    .chain(node.out)
                {
                    room.act = room.act.max(image_len(&graph, v) * chunk);
                }
                if let Some(out) = node.out.filter(|&v| plan.gradient[v] == Place::Chunk) {
                    room.dy = room.dy.max(image_len(&graph, out) * chunk);
                }
                room.scratch = room.scratch.max(pool_scratch(&graph, node, chunk));
                if let Op::Conv { conv, .. } | Op::Stem { conv } = node.op {
                    let scratch = convs[conv].scratch(chunk).map_err(Error::wrap)?;
                    room.scratch = room.scratch.max(scratch);
                }
            }
        }
        for nodes in &plan.backward {
            let mut next = 0;
            for node in &graph.nodes[nodes.clone()] {
                if let Op::Conv { conv, .. } | Op::Stem { conv } = node.op {
                    convs[conv].sum = next;
                    next += 1;
                    convs[conv].free_bias = node.out.is_some_and(|out| {
                        let mut reads = graph.nodes.iter().flat_map(|node| node.reads());
                        plan.gradient[out] == Place::Chunk
                            && reads.all(|(read, _)| read.value != out || read.norm.is_some())
                    });
                }
            }
        }
        let bytes: usize = convs.iter().map(ConvState::weight_bytes).sum();
        let mut memory = Memory::new(bytes / size_of::<Block>());
        convs.iter_mut().for_each(|conv| conv.move_to(&mut memory));
        let blocks = Sizes::new(&graph, &plan, &convs, room).total();
        let bytes = blocks
            .saturating_mul(threads)
            .saturating_mul(size_of::<Block>());
        if Vec::<u8>::new().try_reserve_exact(bytes).is_err() {
            candle_core::bail!("a batch of {capacity} images takes {bytes} bytes of memory")
        }
        let worker = |_| Worker::new(&graph, &plan, &convs, room).map(RwLock::new);
        let workers = (0..threads).map(worker).collect::<Result<_>>()?;
        let mask = |d: &super::graph::Dropout| {
            let shape = d.shape;
            vec![0; shape.channels.div_ceil(16) * shape.height * shape.width * capacity]
        };
        Ok(Self {
            masks: graph.dropouts.iter().map(mask).collect(),
            norms: graph
                .norms
                .iter()
                .map(|n| NormState::new(n.channels))
                .collect(),
            flags: Flags::new(&graph, &plan, vec![false; graph.gates.len()]),
            graph,
            plan,
            convs,
            workers,
            input,
            capacity,
        })
    }

    /// Images of a chunk for a stage, at most the threads' own.
    pub(super) fn chunk(&self, nodes: &Range<usize>) -> usize {
        let own = self.capacity.div_ceil(self.workers.len()).max(1);
        chunk_images(&self.graph, nodes.clone()).min(own)
    }
}
