//! What threads share in a step, and what each has for itself.

use super::graph::{Graph, Op};
use super::norms::Statistics;
use super::plan::{Plan, image_len};
use candle_core::Result;
use ror_ops::BatchNormConfig;
use ror_ops::kernels::{
    Affine, Algorithm, Block, Blocks, Conv2d, Geometry, GradientMoments, InputGradient, Isa,
    KernelError, LANES, Memory, Moments, NormGradient, Stem, WeightGradient, blocks,
};
use std::ops::Range;

/// A convolution, packed for a chunk of images of one size.
pub(super) struct ConvState {
    pub geometry: Geometry,
    pub forward: Forward,
    /// `None` for the stem.
    pub input: Option<InputGradient>,
    pub weight: WeightGradient,
    /// Rows and columns of its input.
    pub size: (usize, usize),
    /// Whether the gradient of its bias is zero, because only batch normalisations read the result.
    pub free_bias: bool,
    /// Which of a stage's sums it uses.
    pub sum: usize,
}

pub(super) enum Forward {
    Stem(Option<Box<Stem>>),
    Blocked(Box<Conv2d>),
}

impl ConvState {
    pub(super) fn new(
        isa: Isa,
        geometry: Geometry,
        images: usize,
        size: (usize, usize),
        stem: bool,
    ) -> std::result::Result<Self, KernelError> {
        let (h, w) = size;
        let (forward, input, weight) = if stem {
            (
                Forward::Stem(None),
                None,
                WeightGradient::of_images(isa, geometry)?,
            )
        } else {
            let zeros =
                vec![
                    0.0;
                    geometry.inputs * geometry.outputs * geometry.kernel.0 * geometry.kernel.1
                ];
            let algorithm = Algorithm::choose(isa, &geometry, images, h, w);
            let bias = vec![0.0; geometry.outputs];
            let conv = Conv2d::new(isa, geometry, algorithm, &zeros, Some(&bias))?;
            (
                Forward::Blocked(Box::new(conv)),
                Some(InputGradient::new(isa, geometry, images, h, w)?),
                WeightGradient::new(isa, geometry)?,
            )
        };
        Ok(Self {
            geometry,
            forward,
            input,
            weight,
            size,
            free_bias: false,
            sum: 0,
        })
    }

    /// Bytes of packed weights, the stem's aside.
    pub(super) fn weight_bytes(&self) -> usize {
        let forward = match &self.forward {
            Forward::Stem(_) => 0,
            Forward::Blocked(conv) => conv.weight_bytes(),
        };
        forward + self.input.as_ref().map_or(0, InputGradient::weight_bytes)
    }

    /// Moves packed weights into `memory`.
    pub(super) fn move_to(&mut self, memory: &mut Memory) {
        if let Forward::Blocked(conv) = &mut self.forward {
            conv.move_to(memory);
        }
        if let Some(input) = &mut self.input {
            input.move_to(memory);
        }
    }

    /// Packs this step's weights.
    pub(super) fn pack(
        &mut self,
        isa: Isa,
        weight: &[f32],
        bias: Option<&[f32]>,
    ) -> std::result::Result<(), KernelError> {
        match &mut self.forward {
            Forward::Stem(stem) => {
                *stem = Some(Box::new(Stem::new(isa, self.geometry, weight, bias)?));
            }
            Forward::Blocked(conv) => conv.repack(weight, bias)?,
        }
        match &mut self.input {
            Some(input) => input.repack(weight),
            None => Ok(()),
        }
    }

    /// Blocks of scratch for a chunk.
    pub(super) fn scratch(&self, images: usize) -> std::result::Result<usize, KernelError> {
        let (h, w) = self.size;
        let mut len = self.weight.scratch_len(images, h, w)?;
        match &self.forward {
            Forward::Blocked(conv) => len = len.max(conv.scratch_len(images, h, w)?),
            // The stem is packed anew in every step: an upper bound of what it asks for.
            Forward::Stem(_) => {
                let g = self.geometry;
                let rows = 8 * g.stride + g.kernel.0;
                len = len.max(rows * g.inputs * (w + 2 * g.padding) / LANES + 2 * w + 2);
            }
        }
        if let Some(input) = &self.input {
            len = len.max(input.scratch_len(images, h, w)?);
        }
        Ok(len)
    }
}

/// A batch normalisation's constants in this step.
pub(super) struct NormState {
    pub mean: Vec<Block>,
    pub scale: Vec<Block>,
    pub shift: Vec<Block>,
    slope: Vec<Block>,
    offset: Vec<Block>,
    /// `1 / sqrt(variance + epsilon)`.
    inverse: Vec<f64>,
    count: f64,
}

impl NormState {
    pub(super) fn new(channels: usize) -> Self {
        let zeros = || vec![Block::ZERO; blocks(channels)];
        Self {
            mean: zeros(),
            scale: zeros(),
            shift: zeros(),
            slope: zeros(),
            offset: zeros(),
            inverse: vec![0.0; channels],
            count: 0.0,
        }
    }

    pub(super) fn affine(&self) -> Affine<'_> {
        Affine {
            mean: &self.mean,
            scale: &self.scale,
            shift: &self.shift,
        }
    }

    pub(super) fn gradient(&self, relu: bool) -> NormGradient<'_> {
        NormGradient {
            affine: self.affine(),
            relu,
            slope: &self.slope,
            offset: &self.offset,
        }
    }

    /// Takes mean and variance of every channel.
    pub(super) fn set(
        &mut self,
        statistics: impl Iterator<Item = (f64, f64)>,
        gamma: &[f32],
        beta: &[f32],
        epsilon: f64,
    ) {
        for (c, (mean, variance)) in statistics.enumerate() {
            let (block, lane) = (c / LANES, c % LANES);
            let inverse = 1.0 / (variance + epsilon).sqrt();
            self.inverse[c] = inverse;
            self.mean[block].0[lane] = mean as f32;
            self.scale[block].0[lane] = (f64::from(gamma[c]) * inverse) as f32;
            self.shift[block].0[lane] = beta[c];
        }
    }

    /// Takes this batch's statistics, which the running ones then follow.
    pub(super) fn train(
        &mut self,
        statistics: Statistics,
        (gamma, beta): (&[f32], &[f32]),
        config: &BatchNormConfig,
        (running_mean, running_variance): (&mut [f32], &mut [f32]),
    ) {
        self.count = statistics.count;
        let weight = config.momentum.new_value_weight();
        let follow = |running: &mut f32, new: f64| {
            *running = (f64::from(*running) * (1.0 - weight) + new * weight) as f32;
        };
        for (c, &(mean, variance)) in statistics.channels.iter().enumerate() {
            follow(&mut running_mean[c], mean);
            let estimate = config
                .running_variance
                .estimate(variance, self.count, config.epsilon);
            follow(&mut running_variance[c], estimate);
        }
        self.set(statistics.channels.into_iter(), gamma, beta, config.epsilon);
    }

    /// Takes the sums over the batch that the way back needs, `sum dz` and `sum dz (x - mean)` of every channel.
    pub(super) fn differentiate(&mut self, sums: &[(f64, f64)]) {
        for (c, &(sum, product)) in sums.iter().enumerate() {
            let (block, lane) = (c / LANES, c % LANES);
            let (inverse, scale) = (self.inverse[c], f64::from(self.scale[block].0[lane]));
            self.slope[block].0[lane] = (-scale * product * inverse * inverse / self.count) as f32;
            self.offset[block].0[lane] = (-scale * sum / self.count) as f32;
        }
    }

    /// Sets the gradient of gamma from such sums.
    pub(super) fn gamma_gradient(&self, sums: &[(f64, f64)], gradient: &mut [f32]) {
        for ((to, &(_, product)), inverse) in gradient.iter_mut().zip(sums).zip(&self.inverse) {
            *to = (product * inverse) as f32;
        }
    }
}

/// What one thread works on: its images' values and gradients, its sums, its scratch. Allocated once.
pub(super) struct Worker {
    /// Images of the batch that are its own.
    pub images: Range<usize>,
    pub values: Vec<Blocks>,
    pub slots: Vec<Blocks>,
    /// A chunk of what a convolution reads.
    pub act: Blocks,
    /// A chunk of the gradient of what it writes.
    pub dy: Blocks,
    pub scratch: Blocks,
    pub moments: Vec<Moments>,
    pub gradient_moments: Vec<GradientMoments>,
    /// Weight gradients of a stage's convolutions.
    pub sums: Vec<Blocks>,
    /// Bias gradients of all convolutions.
    pub biases: Vec<Vec<[f64; LANES]>>,
    pub head: HeadState,
}

/// The end of the network for a thread's images.
#[derive(Default)]
pub(super) struct HeadState {
    pub pooled: Blocks,
    pub features: Vec<f32>,
    pub features_gradient: Vec<f32>,
    pub logits: Vec<f32>,
    pub logits_gradient: Vec<f32>,
    pub weight_gradient: Vec<f32>,
    pub bias_gradient: Vec<f32>,
    pub loss: f64,
}

/// Sizes that a [`Worker`] needs beyond the plan's.
#[derive(Clone, Copy)]
pub(super) struct Room {
    pub images: usize,
    pub act: usize,
    pub dy: usize,
    pub scratch: usize,
}

/// Blocks of the parts of a [`Worker`].
pub(super) struct Sizes {
    values: Vec<usize>,
    slots: Vec<usize>,
    sums: Vec<usize>,
    pooled: usize,
    room: Room,
}

impl Sizes {
    pub(super) fn new(graph: &Graph, plan: &Plan, convs: &[ConvState], room: Room) -> Self {
        let written: Vec<bool> = (0..graph.values.len())
            .map(|v| graph.nodes.iter().any(|n| n.out == Some(v)))
            .collect();
        let value = |v: usize| {
            let len = if written[v] { image_len(graph, v) } else { 0 };
            len.saturating_mul(room.images)
        };
        let slots = plan.memory.iter();
        let mut sums: Vec<usize> = Vec::new();
        for conv in convs {
            sums.resize(sums.len().max(conv.sum + 1), 0);
            sums[conv.sum] = sums[conv.sum].max(conv.weight.sum_len());
        }
        Self {
            values: (0..graph.values.len()).map(value).collect(),
            slots: slots.map(|&l| l.saturating_mul(room.images)).collect(),
            sums,
            pooled: room.images.saturating_mul(blocks(graph.features)),
            room,
        }
    }

    pub(super) fn total(&self) -> usize {
        let single = [self.room.act, self.room.dy, self.room.scratch, self.pooled];
        let parts = self.values.iter().chain(&self.slots).chain(&self.sums);
        parts
            .chain(&single)
            .fold(0, |total, &len| total.saturating_add(len))
    }
}

impl Worker {
    pub(super) fn new(graph: &Graph, plan: &Plan, convs: &[ConvState], room: Room) -> Result<Self> {
        let sizes = Sizes::new(graph, plan, convs, room);
        let mut memory = Memory::new(sizes.total());
        let Sizes {
            values,
            slots,
            sums,
            pooled,
            ..
        } = sizes;
        let classes = graph.classes.unwrap_or(graph.features);
        let (features, logits) = (room.images * graph.features, room.images * classes);
        let weight = graph.classes.map_or(0, |classes| classes * graph.features);
        let mut zeros = |len: usize| memory.zeros(len);
        Ok(Self {
            images: 0..0,
            values: values.into_iter().map(&mut zeros).collect(),
            slots: slots.into_iter().map(&mut zeros).collect(),
            act: zeros(room.act),
            dy: zeros(room.dy),
            scratch: zeros(room.scratch),
            moments: graph
                .norms
                .iter()
                .map(|n| Moments::new(n.channels))
                .collect(),
            gradient_moments: graph
                .norms
                .iter()
                .map(|n| GradientMoments::new(n.channels))
                .collect(),
            sums: sums.into_iter().map(&mut zeros).collect(),
            biases: convs
                .iter()
                .map(|c| vec![[0.0; LANES]; blocks(c.geometry.outputs)])
                .collect(),
            head: HeadState {
                pooled: zeros(pooled),
                features: vec![0.0; features],
                features_gradient: vec![0.0; features],
                logits: vec![0.0; logits],
                logits_gradient: vec![0.0; logits],
                weight_gradient: vec![0.0; weight],
                bias_gradient: vec![0.0; graph.classes.unwrap_or(0)],
                loss: 0.0,
            },
        })
    }

    /// Forgets the sums of the last step and takes other images.
    pub(super) fn start(&mut self, images: Range<usize>) {
        self.images = images;
        self.moments.iter_mut().for_each(Moments::clear);
        self.gradient_moments
            .iter_mut()
            .for_each(GradientMoments::clear);
        self.biases.iter_mut().for_each(|b| b.fill([0.0; LANES]));
        self.head.weight_gradient.fill(0.0);
        self.head.bias_gradient.fill(0.0);
        self.head.loss = 0.0;
    }
}

/// Images of a chunk for a stage: as many as keep its largest tensor in a part of the second-level cache.
pub(super) fn chunk_images(graph: &Graph, nodes: Range<usize>) -> usize {
    /// In blocks.
    const TENSOR: usize = 192 * 1024 / 64;
    let values = graph.nodes[nodes].iter().flat_map(|node| {
        let inputs = match &node.op {
            Op::Conv { input, .. } | Op::Pool { input, .. } | Op::Head { input } => {
                Some(input.value)
            }
            Op::Stem { .. } | Op::Sum { .. } => None,
        };
        inputs.into_iter().chain(node.out)
    });
    let largest = values.map(|v| image_len(graph, v)).max().unwrap_or(1);
    (TENSOR / largest.max(1)).clamp(1, 16)
}
