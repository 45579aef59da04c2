//! What the crate is for: a network ready to run.

use crate::input::check_len;
use crate::profile::{OperationTime, times};
use crate::program::{Program, at};
use crate::work::{Batch, Wanted, Worker};
use crate::{Input, Options, Result};
use candle_nn::VarBuilder;
use ror_models::Network;
use ror_ops::kernels::{Block, Blocks, Memory, Pool};
use std::sync::Arc;
use std::time::Duration;

/// A network compiled for inference on the CPU.
///
/// Weights are packed, batch norms folded and all memory taken when it is compiled; a run allocates nothing. A clone
/// shares the weights and the threads and has working memory of its own, so that several can run at once: while one
/// has the threads, another runs on its caller's alone. The results of an image depend neither on whose threads
/// compute it nor on the other images of its batch.
///
/// ```
/// use candle_core::{DType, Device};
/// use ror_infer::{Engine, Input, Options};
/// use ror_models::{Description, Network, Parameters};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let network = Network::new(&Description::preset("ror-3-wrn-10-1")?)?;
/// let weights = Parameters::init(&network, 1, DType::F32, &Device::Cpu)?;
/// let mut engine = Engine::compile(&network, &weights.var_builder(), &Options::default().threads(2))?;
///
/// let images = vec![0.5; 2 * 3 * 32 * 32]; // two images, N, C, H, W
/// let mut logits = vec![0.0; 2 * engine.outputs()];
/// engine.run(Input::F32(&images), &mut logits)?;
/// assert_eq!(engine.outputs(), 10);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Engine {
    program: Arc<Program>,
    pool: Arc<Pool>,
    workers: Vec<Worker>,
    /// Shared by all threads where they work on one image.
    scratch: Blocks,
}

impl Engine {
    /// Compiles `network` with the tensors that [`Network::tensors`] names.
    ///
    /// # Errors
    /// A tensor that is missing, misshapen or not finite; an image size that a layer cannot take; more memory than
    /// there is.
    pub fn compile(network: &Network, weights: &VarBuilder, options: &Options) -> Result<Self> {
        let program = Program::new(network, weights, options)?;
        let pool = Pool::new_or_fewer(program.threads);
        Ok(Self::of(Arc::new(program), Arc::new(pool)))
    }

    fn of(program: Arc<Program>, pool: Arc<Pool>) -> Self {
        let mut memory = Memory::new(program.workspace_bytes() / size_of::<Block>());
        Self {
            workers: (0..program.workers())
                .map(|_| Worker::new(&program, &mut memory))
                .collect(),
            scratch: memory.zeros(program.shared_scratch * program.threads),
            program,
            pool,
        }
    }

    /// The logits of a batch: `output` has [`Self::outputs`] numbers for each image. Without a classifier, its features.
    ///
    /// # Errors
    /// An input that is not a whole number of images, a normalisation of other channels, an output of another length.
    pub fn run(&mut self, input: Input<'_>, output: &mut [f32]) -> Result<()> {
        self.compute(input, Wanted::Logits, output)
    }

    /// The features of a batch after the average pool: `output` has [`Self::features`] numbers for each image.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_features(&mut self, input: Input<'_>, output: &mut [f32]) -> Result<()> {
        self.compute(input, Wanted::Features, output)
    }

    /// As [`Self::run`]; returns how long each operation took, in order.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn profile(&mut self, input: Input<'_>, output: &mut [f32]) -> Result<Vec<OperationTime>> {
        let count = self.program.operations.len() + 1;
        for worker in &mut self.workers {
            worker.times = Some(vec![Duration::ZERO; count]);
        }
        let result = self.run(input, output);
        let spent: Vec<_> = self
            .workers
            .iter_mut()
            .filter_map(|w| w.times.take())
            .collect();
        result?;
        Ok(times(&self.program, &spent, output.len() / self.outputs()))
    }

    /// Numbers that come out for each image: classes, or features without a classifier.
    pub fn outputs(&self) -> usize {
        self.program.width(Wanted::Logits)
    }

    /// Width of the features before the classifier.
    pub fn features(&self) -> usize {
        self.program.width(Wanted::Features)
    }

    /// Channels, rows and columns of an image.
    pub fn image_shape(&self) -> (usize, usize, usize) {
        let image = self.program.image;
        (image.channels, image.height, image.width)
    }

    /// Threads that work on a batch, the caller's among them.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Multiply-adds for one image.
    pub fn multiply_adds(&self) -> usize {
        let operations = self.program.operations.iter().map(|o| o.multiply_adds);
        operations.sum::<usize>() + self.program.head.multiply_adds()
    }

    /// Memory of the packed weights, in bytes, which clones share.
    pub fn weight_bytes(&self) -> usize {
        self.program.weight_bytes()
    }

    /// Memory that this engine works in, in bytes.
    pub fn workspace_bytes(&self) -> usize {
        self.program.workspace_bytes()
    }

    fn compute(&mut self, input: Input<'_>, wanted: Wanted, output: &mut [f32]) -> Result<()> {
        let program = &*self.program;
        let (each, width) = (program.image.elements(), program.width(wanted));
        let n = input.check(each, program.image.channels)?;
        check_len("output", n, width, output.len())?;
        // Equal shares for the threads, and the rest for all of them together.
        let threads = self.pool.threads();
        let shared = if program.together { n } else { n % threads };
        let (own, rest) = output.split_at_mut((n - shared) * width);
        if !own.is_empty() {
            let work = |worker: &mut Worker, images, out: &mut [f32]| {
                let batch = Batch {
                    input,
                    images,
                    wanted,
                };
                worker.alone(program, batch, out);
            };
            self.pool
                .run_shares_with(&mut self.workers, own, width, work)
                .map_err(|e| at("threads", e))?;
            for worker in &mut self.workers {
                let result = std::mem::replace(&mut worker.result, Ok(()));
                result.map_err(|e| at("network", e))?;
            }
        }
        if let [worker, ..] = &mut self.workers[..] {
            let batch = Batch {
                input,
                images: n - shared..n,
                wanted,
            };
            worker.together(program, &self.pool, &mut self.scratch, batch, rest);
            let result = std::mem::replace(&mut worker.result, Ok(()));
            result.map_err(|e| at("network", e))?;
        }
        Ok(())
    }
}

impl Clone for Engine {
    fn clone(&self) -> Self {
        Self::of(Arc::clone(&self.program), Arc::clone(&self.pool))
    }
}
