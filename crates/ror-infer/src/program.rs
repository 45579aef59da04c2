//! A network as packed kernels and the places that they read and write.

use crate::fuse::{self, Kind, Step};
use crate::graph::{DenseWeights, Filters, Graph};
use crate::place::{Layout, MOST_IMAGES, Place, Stage};
use crate::tensors::Affine;
use crate::{Error, Options, Result};
use candle_nn::VarBuilder;
use ror_models::Network;
use ror_models::blocks::Shape3;
use ror_ops::kernels::{
    Algorithm, Block, Conv2d, Dense, Dims, Isa, KernelError, MaxPool, Memory, Stem, blocks,
    channel_blocks,
};

/// Everything that a run reads and never writes.
#[derive(Debug)]
pub(crate) struct Program {
    pub isa: Isa,
    pub threads: usize,
    /// Whether all threads work on one image, rather than each on its own.
    pub together: bool,
    /// The shape of one image.
    pub image: Shape3,
    pub operations: Vec<Operation>,
    pub stages: Vec<Stage>,
    /// Images that go through all stages together.
    pub chunk: usize,
    /// Blocks of each slot of a worker.
    pub slots: Vec<usize>,
    /// Blocks of scratch that a worker needs.
    pub scratch: usize,
    /// Blocks of scratch per thread where all work on one image.
    pub shared_scratch: usize,
    pub head: Head,
}

/// One kernel call.
#[derive(Debug)]
pub(crate) struct Operation {
    pub path: String,
    pub kernel: Kernel,
    /// `None`: the images.
    pub input: Option<Place>,
    /// The shape of that, one image.
    pub from: Dims,
    /// The shape of the result before the pool, one image.
    pub to: Dims,
    pub relu: bool,
    /// Tensors to add, `None` for the one that the result replaces, each perhaps with a ReLU.
    pub terms: Vec<(Option<Place>, bool)>,
    pub pool: bool,
    pub raw: Option<Place>,
    pub preact: Option<Preactivation>,
    /// Multiply-adds of one image.
    pub multiply_adds: usize,
}

#[derive(Debug)]
pub(crate) struct Preactivation {
    pub place: Place,
    pub scale: Vec<Block>,
    pub shift: Vec<Block>,
}

#[derive(Debug)]
pub(crate) enum Kernel {
    Stem(StemKernel),
    Conv(Conv2d),
    /// The epilogue alone, with the zeros that are its bias.
    Merge(Vec<Block>),
    MaxPool(MaxPool),
    Pad {
        stride: usize,
        channels: usize,
    },
}

/// [`Stem`], which has no `Debug`.
pub(crate) struct StemKernel(pub Stem);

impl std::fmt::Debug for StemKernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.geometry().fmt(f)
    }
}

/// The average pool and the classifier.
pub(crate) struct Head {
    /// What is pooled.
    pub input: Place,
    /// The shape of that, one image.
    pub from: Dims,
    pub dense: Option<Dense>,
}

impl std::fmt::Debug for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Head")
            .field("from", &self.from)
            .finish_non_exhaustive()
    }
}

impl Head {
    /// Numbers per image.
    pub(crate) fn outputs(&self) -> usize {
        self.dense.as_ref().map_or(self.from.c, Dense::outputs)
    }
}

impl Program {
    pub(crate) fn new(network: &Network, vb: &VarBuilder, options: &Options) -> Result<Self> {
        let size = options.image_size.unwrap_or(network.description.image_size);
        let mut description = network.description.clone();
        description.image_size = size;
        description.validate()?;
        let graph = Graph::new(network, vb, size)?;
        let threads = options.threads.max(1);
        let together = options.batch_size < threads;
        let most = if together {
            1
        } else {
            options.batch_size.div_ceil(threads).clamp(1, MOST_IMAGES)
        };
        let choose = |filters: &Filters, from: Shape3| {
            let images = if together {
                1
            } else {
                images_at_once(filters, from).min(most)
            };
            Algorithm::choose(
                options.isa,
                &filters.geometry,
                images,
                from.height,
                from.width,
            )
        };
        let steps = fuse::fuse(&graph, |filters, from| {
            choose(filters, from) != Algorithm::Direct
        })?;
        let output = fuse::output(&graph)?;
        let layout = Layout::new(&steps, output, most)?;
        let isa = options.isa;

        let image = graph.nodes[0].shape;
        let last = graph.nodes[output].shape;
        let mut program = Self {
            isa,
            threads,
            together,
            image,
            operations: Vec::new(),
            stages: layout.stages.clone(),
            chunk: layout.chunk,
            slots: layout.slots.clone(),
            scratch: 0,
            shared_scratch: 0,
            head: Head {
                input: layout.place(output).ok_or_else(|| Error::Unsupported {
                    path: "head".to_owned(),
                    why: "there is nothing to pool".to_owned(),
                })?,
                from: dims(last),
                dense: graph
                    .dense
                    .as_ref()
                    .map(|d| dense(isa, graph.features, d))
                    .transpose()?,
            },
        };
        let weights = steps
            .iter()
            .map(|step| match &step.kind {
                Kind::Conv(f) => choose(f, step.from).packed_bytes(&f.geometry),
                _ => 0,
            })
            .fold(0, usize::saturating_add);
        program.check_memory(weights)?;
        for step in steps {
            let operation = operation(isa, step, &layout, &choose)?;
            program.operations.push(operation);
        }
        program.gather_weights();
        program.size_scratch()?;
        program.check_memory(0)?;
        Ok(program)
    }

    /// Bytes of the packed weights.
    pub(crate) fn weight_bytes(&self) -> usize {
        let operations = self.operations.iter().map(|o| o.kernel.weight_bytes());
        let dense = self.head.dense.as_ref().map_or(0, Dense::weight_bytes);
        operations.sum::<usize>() + dense
    }

    /// Workers with slots of their own.
    pub(crate) fn workers(&self) -> usize {
        if self.together { 1 } else { self.threads }
    }

    /// Blocks that hold a chunk's pooled features.
    pub(crate) fn pooled(&self) -> usize {
        self.chunk * blocks(self.head.from.c)
    }

    /// Bytes that an engine works in.
    pub(crate) fn workspace_bytes(&self) -> usize {
        let slots = self
            .slots
            .iter()
            .fold(0usize, |sum, &len| sum.saturating_add(len));
        let worker = slots
            .saturating_add(self.scratch)
            .saturating_add(self.pooled());
        let shared = self.shared_scratch.saturating_mul(self.threads);
        worker
            .saturating_mul(self.workers())
            .saturating_add(shared)
            .saturating_mul(size_of::<Block>())
    }

    /// Fails if the system would not give what an engine works in and `more` bytes.
    fn check_memory(&self, more: usize) -> Result<()> {
        let bytes = self.workspace_bytes().saturating_add(more);
        let mut probe: Vec<u8> = Vec::new();
        probe
            .try_reserve_exact(bytes)
            .map_err(|_| Error::Memory { bytes })
    }

    /// Puts the packed weights side by side.
    fn gather_weights(&mut self) {
        let convs = self
            .operations
            .iter_mut()
            .filter_map(|o| match &mut o.kernel {
                Kernel::Conv(conv) => Some(conv),
                _ => None,
            });
        let mut convs: Vec<&mut Conv2d> = convs.collect();
        let bytes: usize = convs.iter().map(|c| c.weight_bytes()).sum();
        let mut memory = Memory::new(bytes / size_of::<Block>());
        for conv in &mut convs {
            conv.move_to(&mut memory);
        }
    }

    fn size_scratch(&mut self) -> Result<()> {
        let (mut scratch, mut shared) = (0, 0);
        for stage in &self.stages {
            for operation in &self.operations[stage.steps.clone()] {
                let len = |n: usize| operation.scratch(n).map_err(|e| at(&operation.path, e));
                scratch = scratch.max(len(stage.images)?);
                shared = shared.max(len(1)?);
            }
        }
        if let Some(dense) = &self.head.dense {
            scratch = scratch.max(dense.scratch_len(self.chunk));
            shared = shared.max(dense.scratch_len(1));
        }
        self.scratch = if self.together { 0 } else { scratch };
        self.shared_scratch = shared;
        Ok(())
    }
}

impl Operation {
    /// Blocks of scratch that a thread needs for `n` images.
    fn scratch(&self, n: usize) -> std::result::Result<usize, KernelError> {
        match &self.kernel {
            Kernel::Stem(stem) => stem.0.scratch_len(self.from.h, self.from.w),
            Kernel::Conv(conv) => conv.scratch_len(n, self.from.h, self.from.w),
            Kernel::Merge(_) | Kernel::MaxPool(_) | Kernel::Pad { .. } => Ok(0),
        }
    }
}

impl Kernel {
    fn weight_bytes(&self) -> usize {
        match self {
            Self::Stem(stem) => stem.0.weight_bytes(),
            Self::Conv(conv) => conv.weight_bytes(),
            Self::Merge(_) | Self::MaxPool(_) | Self::Pad { .. } => 0,
        }
    }
}

/// Images that one call of a convolution will work on: as many as keep its input and output in the cache.
fn images_at_once(filters: &Filters, from: Shape3) -> usize {
    let channels = blocks(filters.geometry.inputs) + 2 * blocks(filters.geometry.outputs);
    let bytes = channels * size_of::<Block>() * from.height * from.width;
    let filling = 1024usize.div_ceil((from.height * from.width).max(1));
    (640 * 1024 / bytes.max(1))
        .max(filling)
        .clamp(1, MOST_IMAGES)
}

fn operation(
    isa: Isa,
    step: Step,
    layout: &Layout,
    choose: &impl Fn(&Filters, Shape3) -> Algorithm,
) -> Result<Operation> {
    let written = step.written();
    let place = |t: usize| {
        layout.place(t).ok_or_else(|| Error::Unsupported {
            path: step.path.clone(),
            why: "it reads images, or what nothing wrote".to_owned(),
        })
    };
    let raw = step.raw.map(place).transpose()?;
    let terms = step
        .terms
        .iter()
        .map(|&(term, relu)| {
            let place = place(term)?;
            let replaced =
                raw.is_some_and(|raw| (raw.slot, raw.whole) == (place.slot, place.whole));
            Ok(((!replaced).then_some(place), relu))
        })
        .collect::<Result<_>>()?;
    let preact = match &step.preact {
        Some((t, Affine { scale, shift })) => Some(Preactivation {
            place: place(*t)?,
            scale: channel_blocks(scale),
            shift: channel_blocks(shift),
        }),
        None => None,
    };
    let (from, to) = (dims(step.from), dims(step.to));
    let conv = |f: &Filters| f.geometry.multiply_adds(from.h, from.w);
    let wrong = |e| at(&step.path, e);
    let (kernel, multiply_adds, images) = match &step.kind {
        Kind::Stem(f) => {
            let stem = Stem::new(isa, f.geometry, &f.weight, Some(&f.bias)).map_err(wrong)?;
            (
                Kernel::Stem(StemKernel(stem)),
                conv(f).map_err(wrong)?,
                true,
            )
        }
        Kind::Conv(f) => {
            let algorithm = choose(f, step.from);
            let conv2d = Conv2d::new(isa, f.geometry, algorithm, &f.weight, Some(&f.bias));
            (
                Kernel::Conv(conv2d.map_err(wrong)?),
                conv(f).map_err(wrong)?,
                false,
            )
        }
        Kind::Merge => (Kernel::Merge(vec![Block::ZERO; blocks(to.c)]), 0, false),
        Kind::MaxPool(pool) => {
            pool.output(from).map_err(wrong)?;
            (Kernel::MaxPool(*pool), 0, false)
        }
        &Kind::Pad { stride } => (
            Kernel::Pad {
                stride,
                channels: written.channels,
            },
            0,
            false,
        ),
    };
    Ok(Operation {
        input: if images {
            None
        } else {
            Some(place(step.input)?)
        },
        kernel,
        from,
        to,
        relu: step.relu,
        terms,
        pool: step.pool,
        raw,
        preact,
        multiply_adds,
        path: step.path,
    })
}

fn dense(isa: Isa, features: usize, d: &DenseWeights) -> Result<Dense> {
    Dense::new(isa, features, d.classes, &d.weight, Some(&d.bias)).map_err(|e| at("head.dense", e))
}

fn dims(shape: Shape3) -> Dims {
    Dims::new(1, shape.channels, shape.height, shape.width)
}

pub(crate) fn at(path: &str, source: KernelError) -> Error {
    Error::Kernel {
        path: path.to_owned(),
        source,
    }
}
