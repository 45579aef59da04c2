//! The engine that runs a compiled step.

use super::compiled::Compiled;
use super::run::Step;
use super::variables::variable;
use crate::engine::Peers;
use crate::{Batch, Engine, Gradients, StepOutput, flat};
use candle_core::Result;
use ror_blocks::{Noise, Shape3};
use ror_models::{Network, Parameters};
use ror_ops::kernels::{Isa, Pool};

/// Computes steps of any network with the crate's own kernels, on float32 variables of the processor.
///
/// Loss, logits, gradients and running statistics are those of [`TapeEngine`](crate::TapeEngine) up to rounding, from
/// the same random numbers. Memory is allocated for the largest batch seen and kept. The same batches, random numbers
/// and number of threads give the same bits.
pub struct KernelEngine {
    network: Network,
    parameters: Parameters,
    isa: Isa,
    pool: Pool,
    /// Images that the plan has room for at least, if that was said.
    batch: Option<usize>,
    compiled: Option<Compiled>,
}

impl KernelEngine {
    /// Computes `network` from these variables on `threads` threads (at least one), the caller's among them.
    ///
    /// # Errors
    /// Variables of another network, that are not float32 on the processor, or threads that the system refuses.
    pub fn new(network: &Network, parameters: &Parameters, threads: usize) -> Result<Self> {
        for spec in network.tensors() {
            let var = variable(parameters, &spec.name)?;
            if var.dims() != spec.shape {
                candle_core::bail!(
                    "`{}`: expected the shape {:?}, found {:?}",
                    spec.name,
                    spec.shape,
                    var.dims()
                )
            }
            flat::read(var, |_| ())?;
        }
        Ok(Self {
            network: network.clone(),
            parameters: parameters.clone(),
            isa: Isa::detect(),
            pool: Pool::new(threads)?,
            batch: None,
            compiled: None,
        })
    }

    /// Plans for batches of so many images from the beginning. The plan, and with it the last bits, depends on the
    /// largest batch: with this it does not matter which batch comes first.
    #[must_use]
    pub fn for_batches_of(mut self, images: usize) -> Self {
        self.batch = Some(images.max(1));
        self
    }

    /// Compiles for batches of `n` images of `h` rows and `w` columns, unless that is done already.
    fn compile(&mut self, [n, c, h, w]: [usize; 4]) -> Result<()> {
        let input = Shape3 {
            channels: c,
            height: h,
            width: w,
        };
        let fits = |c: &Compiled| c.input == input && c.capacity >= n;
        if !self.compiled.as_ref().is_some_and(fits) {
            // First the old one's memory goes.
            self.compiled = None;
            let threads = self.pool.threads();
            let capacity = n.max(self.batch.unwrap_or(1));
            let compiled = Compiled::new(self.isa, &self.network, input, capacity, threads)?;
            self.compiled = Some(compiled);
        }
        Ok(())
    }
}

impl Engine for KernelEngine {
    fn prepare(&mut self, [c, h, w]: [usize; 3]) -> Result<()> {
        self.compile([self.batch.unwrap_or(1), c, h, w])
    }

    fn forward_backward_telling(
        &mut self,
        batch: &Batch,
        noise: &Noise,
        gradients: &mut Gradients,
        peers: &mut dyn Peers,
    ) -> Result<StepOutput> {
        let [n, c, h, w] = batch.shape;
        let classes = self
            .network
            .head
            .classes
            .unwrap_or(self.network.head.features);
        check_len("images", n * c * h * w, batch.images.len())?;
        check_len("targets", n * classes, batch.targets.len())?;
        if batch.whole < n.max(1) || (n == 0 && !peers.synchronised()) {
            candle_core::bail!("a batch without images has no loss")
        }
        self.compile(batch.shape)?;
        let Some(compiled) = &mut self.compiled else {
            candle_core::bail!("the network is not compiled")
        };
        let mut step = Step {
            isa: self.isa,
            pool: &self.pool,
            network: &self.network,
            parameters: &self.parameters,
            compiled,
        };
        step.start(n);
        step.pack()?;
        let flags = step.draw(noise, n)?;
        step.train(batch, &flags, gradients, peers)
    }

    fn logits(&mut self, images: &[f32], shape: [usize; 4]) -> Result<Vec<f32>> {
        let [n, c, h, w] = shape;
        let image = c * h * w;
        check_len("images", n * image, images.len())?;
        if n == 0 {
            return Ok(Vec::new());
        }
        // Evaluation may bring more images at a time than training.
        let most = match &self.compiled {
            Some(compiled) if compiled.input.elements() == image => compiled.capacity.min(n),
            _ => n.min(self.batch.unwrap_or(128)),
        };
        self.compile([most, c, h, w])?;
        let Some(compiled) = &mut self.compiled else {
            candle_core::bail!("the network is not compiled")
        };
        let mut step = Step {
            isa: self.isa,
            pool: &self.pool,
            network: &self.network,
            parameters: &self.parameters,
            compiled,
        };
        step.pack()?;
        step.use_running_statistics()?;
        let mut logits = Vec::new();
        for images in images.chunks(most * image.max(1)) {
            logits.extend(step.evaluate(images, images.len() / image.max(1))?);
        }
        Ok(logits)
    }
}

fn check_len(what: &str, expected: usize, found: usize) -> Result<()> {
    if expected == found {
        Ok(())
    } else {
        candle_core::bail!("{what}: expected {expected} values, found {found}")
    }
}

impl std::fmt::Debug for KernelEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KernelEngine")
            .field("isa", &self.isa)
            .field("threads", &self.pool.threads())
            .finish_non_exhaustive()
    }
}
