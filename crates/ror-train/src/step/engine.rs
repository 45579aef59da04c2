//! The engine that runs a compiled step.

use super::compiled::Compiled;
use super::flags::Flags;
use super::graph::{Draw, Op};
use super::pass::{Pass, bias_gradient};
use super::state::Worker;
use crate::{Batch, Engine, Gradients, StepOutput, flat};
use candle_core::{CpuStorage, DType, Device, Error, Result, Shape, Storage, Var};
use ror_blocks::{Noise, Shape3};
use ror_models::{Network, Parameters};
use ror_ops::kernels::{Dims, Isa, KernelError, LANES, Linear, Pool, kept};
use std::ops::{Deref, Range};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};

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
    /// Images that the plan has room for at least.
    batch: usize,
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
            batch: 1,
            compiled: None,
        })
    }

    /// Plans for batches of so many images from the beginning. The plan, and with it the last bits, depends on the
    /// largest batch: with this it does not matter which batch comes first.
    #[must_use]
    pub fn for_batches_of(mut self, images: usize) -> Self {
        self.batch = images.max(1);
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
            let capacity = n.max(self.batch);
            let compiled = Compiled::new(self.isa, &self.network, input, capacity, threads)?;
            self.compiled = Some(compiled);
        }
        Ok(())
    }
}

impl Engine for KernelEngine {
    fn forward_backward(
        &mut self,
        batch: &Batch,
        noise: &Noise,
        gradients: &mut Gradients,
    ) -> Result<StepOutput> {
        let [n, c, h, w] = batch.shape;
        let classes = self
            .network
            .head
            .classes
            .unwrap_or(self.network.head.features);
        check_len("images", n * c * h * w, batch.images.len())?;
        check_len("targets", n * classes, batch.targets.len())?;
        if n == 0 {
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
        step.train(batch, &flags, gradients)
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
            _ if self.batch > 1 => n.min(self.batch),
            _ => n.min(128),
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

/// One step in progress.
struct Step<'a> {
    isa: Isa,
    pool: &'a Pool,
    network: &'a Network,
    parameters: &'a Parameters,
    compiled: &'a mut Compiled,
}

impl Step<'_> {
    /// Deals `n` images to the threads.
    fn start(&mut self, n: usize) {
        let threads = self.compiled.workers.len();
        for (i, worker) in self.compiled.workers.iter_mut().enumerate() {
            let worker = worker.get_mut().unwrap_or_else(PoisonError::into_inner);
            worker.start(n * i / threads..n * (i + 1) / threads);
        }
    }

    /// Packs this step's weights, the convolutions dealt to the threads.
    fn pack(&mut self) -> Result<()> {
        let Compiled { graph, convs, .. } = &mut *self.compiled;
        let mut guards = Vec::with_capacity(convs.len());
        for spec in &graph.convs {
            let weight = variable(self.parameters, &format!("{}.weight", spec.path))?;
            let bias = match spec.bias {
                true => Some(variable(self.parameters, &format!("{}.bias", spec.path))?),
                false => None,
            };
            guards.push((values(weight), bias.map(values)));
        }
        let mut jobs = Vec::with_capacity(convs.len());
        for (conv, (weight, bias)) in convs.iter_mut().zip(&guards) {
            let bias = bias.as_ref().map(Values::as_slice).transpose()?;
            jobs.push(Mutex::new((conv, weight.as_slice()?, bias)));
        }
        let failure = Failure::default();
        let (isa, threads) = (self.isa, self.pool.threads());
        self.pool.run(|t| {
            for job in jobs.iter().skip(t).step_by(threads) {
                let (conv, weight, bias) = &mut *job.lock().unwrap_or_else(PoisonError::into_inner);
                failure.note(conv.pack(isa, weight, *bias));
            }
        });
        failure.result()
    }

    /// Takes the step's random numbers, in the order in which the network's modules would.
    fn draw(&mut self, noise: &Noise, n: usize) -> Result<Flags> {
        let Compiled {
            graph, masks, plan, ..
        } = &mut *self.compiled;
        let mut dropped = vec![false; graph.gates.len()];
        for draw in &graph.draws {
            match *draw {
                Draw::Gate(gate) => {
                    dropped[gate] = f64::from(noise.uniform()) >= graph.gates[gate];
                }
                Draw::Dropout(_, Some(gate)) if dropped[gate] => {}
                Draw::Dropout(d, _) => {
                    let shape = graph.dropouts[d].shape;
                    let dims = Dims::new(n, shape.channels, shape.height, shape.width);
                    let tensor = Shape::from((n, dims.c, dims.h, dims.w));
                    let rate = graph.dropouts[d].rate;
                    let mask = noise.dropout_mask(rate, &tensor, DType::F32, &Device::Cpu)?;
                    let mask: Vec<f32> = mask.flatten_all()?.to_vec1()?;
                    let len = dims.block_len("dropout mask").map_err(Error::wrap)?;
                    kept(dims, &mask, &mut masks[d][..len]).map_err(Error::wrap)?;
                }
            }
        }
        Ok(if graph.gates.is_empty() {
            self.compiled.flags.clone()
        } else {
            Flags::new(graph, plan, dropped)
        })
    }

    fn train(
        &mut self,
        batch: &Batch,
        flags: &Flags,
        gradients: &mut Gradients,
    ) -> Result<StepOutput> {
        for stage in 0..self.compiled.plan.forward.len() {
            let nodes = self.compiled.plan.forward[stage].clone();
            self.normalise(&nodes, flags)?;
            self.run(&nodes, flags, &batch.images, Some(batch), false)?;
        }
        // Of what is dropped, no part has a gradient.
        for conv in self
            .compiled
            .graph
            .convs
            .iter()
            .filter(|c| !flags.runs(c.gate))
        {
            gradient(gradients, &format!("{}.weight", conv.path))?.fill(0.0);
            if conv.bias {
                gradient(gradients, &format!("{}.bias", conv.path))?.fill(0.0);
            }
        }
        for norm in self
            .compiled
            .graph
            .norms
            .iter()
            .filter(|n| !flags.runs(n.gate))
        {
            for name in ["weight", "bias"] {
                gradient(gradients, &format!("{}.{name}", norm.path))?.fill(0.0);
            }
        }
        for stage in 0..self.compiled.plan.backward.len() {
            let nodes = self.compiled.plan.backward[stage].clone();
            self.differentiate_norms(&nodes, flags, gradients)?;
            self.run(&nodes, flags, &batch.images, Some(batch), true)?;
            self.finish_convs(&nodes, flags, gradients)?;
        }
        self.finish_head(gradients)?;
        let workers = self.workers();
        let classes = batch.classes();
        let mut logits = Vec::with_capacity(batch.targets.len());
        for worker in &workers {
            logits.extend_from_slice(&worker.head.logits[..worker.images.len() * classes]);
        }
        Ok(StepOutput {
            loss: workers.iter().map(|w| w.head.loss).sum::<f64>() / batch.len() as f64,
            logits,
        })
    }

    fn evaluate(&mut self, images: &[f32], n: usize) -> Result<Vec<f32>> {
        self.start(n);
        let nodes = 0..self.compiled.graph.nodes.len();
        let flags = self.compiled.flags.clone();
        self.run(&nodes, &flags, images, None, false)?;
        let graph = &self.compiled.graph;
        let classes = graph.classes.unwrap_or(graph.features);
        let mut logits = Vec::with_capacity(n * classes);
        for worker in self.workers() {
            logits.extend_from_slice(&worker.head.logits[..worker.images.len() * classes]);
        }
        Ok(logits)
    }

    /// Runs a stage on all threads. Without a batch, in evaluation mode.
    fn run(
        &self,
        nodes: &Range<usize>,
        flags: &Flags,
        images: &[f32],
        batch: Option<&Batch>,
        backwards: bool,
    ) -> Result<()> {
        let c = &*self.compiled;
        let dense = match c.graph.classes {
            Some(_) => Some((
                values(variable(self.parameters, "head.dense.weight")?),
                values(variable(self.parameters, "head.dense.bias")?),
            )),
            None => None,
        };
        let classifier = match &dense {
            Some((weight, bias)) => Some(Linear {
                weight: weight.as_slice()?,
                bias: bias.as_slice()?,
            }),
            None => None,
        };
        let pass = Pass {
            isa: self.isa,
            graph: &c.graph,
            plan: &c.plan,
            convs: &c.convs,
            norms: &c.norms,
            flags,
            masks: &c.masks,
            images,
            targets: batch.map_or(&[], |b| &b.targets),
            batch: batch.map_or(0, Batch::len),
            classifier,
            training: batch.is_some(),
        };
        let step = c.chunk(nodes);
        let failure = Failure::default();
        self.pool.run(|t| {
            let mut worker = c.workers[t].write().unwrap_or_else(PoisonError::into_inner);
            failure.note(if backwards {
                pass.backward(&mut worker, nodes.clone(), step)
            } else {
                pass.forward(&mut worker, nodes.clone(), step)
            });
        });
        failure.result()
    }

    fn workers(&self) -> Vec<RwLockReadGuard<'_, Worker>> {
        let workers = self.compiled.workers.iter();
        workers
            .map(|w| w.read().unwrap_or_else(PoisonError::into_inner))
            .collect()
    }

    /// Sets the norms that a forward stage reads through from the batch's statistics.
    fn normalise(&mut self, nodes: &Range<usize>, flags: &Flags) -> Result<()> {
        let Compiled {
            graph,
            norms,
            workers,
            ..
        } = &mut *self.compiled;
        for k in graph.nodes[nodes.clone()]
            .iter()
            .flat_map(|node| node.norms())
        {
            let spec = &graph.norms[k];
            if !flags.runs(spec.gate) {
                continue;
            }
            let state = &mut norms[k];
            let guards = read_all(workers);
            let parts: Vec<_> = guards.iter().map(|w| &w.moments[k]).collect();
            let named = |name: &str| variable(self.parameters, &format!("{}.{name}", spec.path));
            let (gamma, beta) = (values(named("weight")?), values(named("bias")?));
            let constants = (gamma.as_slice()?, beta.as_slice()?);
            let (mean, variance) = (named("running_mean")?, named("running_var")?);
            let mut done = Ok(());
            let mut nested = Ok(());
            flat::update(mean, |mean| {
                nested = flat::update(variance, |variance| {
                    done = state.train(&parts, constants, self.network.norm(), (mean, variance));
                });
            })?;
            nested?;
            done.map_err(Error::wrap)?;
        }
        Ok(())
    }

    fn use_running_statistics(&mut self) -> Result<()> {
        let Compiled { graph, norms, .. } = &mut *self.compiled;
        let epsilon = self.network.norm().epsilon;
        for (spec, state) in graph.norms.iter().zip(norms) {
            let named = |name: &str| {
                let var = variable(self.parameters, &format!("{}.{name}", spec.path))?;
                Ok::<_, Error>(values(var))
            };
            let (gamma, beta) = (named("weight")?, named("bias")?);
            let (mean, variance) = (named("running_mean")?, named("running_var")?);
            let statistics = mean.as_slice()?.iter().zip(variance.as_slice()?);
            let statistics = statistics.map(|(&m, &v)| (f64::from(m), f64::from(v)));
            state.set(statistics, gamma.as_slice()?, beta.as_slice()?, epsilon);
        }
        Ok(())
    }

    /// Sets what a backward stage needs of norms whose readers have run, and their gradients.
    fn differentiate_norms(
        &mut self,
        nodes: &Range<usize>,
        flags: &Flags,
        gradients: &mut Gradients,
    ) -> Result<()> {
        let Compiled {
            graph,
            plan,
            norms,
            workers,
            ..
        } = &mut *self.compiled;
        for i in nodes.clone() {
            let Some(out) = graph.nodes[i].out.filter(|&v| plan.completed[v] == i) else {
                continue;
            };
            for &k in &plan.norms_of[out] {
                let spec = &graph.norms[k];
                if !flags.runs(spec.gate) {
                    continue;
                }
                let guards = read_all(workers);
                let parts: Vec<_> = guards.iter().map(|w| &w.gradient_moments[k]).collect();
                let mut gamma = vec![0.0; spec.channels];
                let beta = gradient(gradients, &format!("{}.bias", spec.path))?;
                norms[k]
                    .differentiate(&parts, &mut gamma, beta)
                    .map_err(Error::wrap)?;
                gradient(gradients, &format!("{}.weight", spec.path))?.copy_from_slice(&gamma);
            }
        }
        Ok(())
    }

    /// Adds up the weight gradients that a stage has summed.
    fn finish_convs(
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

    fn finish_head(&self, gradients: &mut Gradients) -> Result<()> {
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

fn read_all(workers: &[RwLock<Worker>]) -> Vec<RwLockReadGuard<'_, Worker>> {
    let workers = workers.iter();
    workers
        .map(|w| w.read().unwrap_or_else(PoisonError::into_inner))
        .collect()
}

fn gradient<'g>(gradients: &'g mut Gradients, name: &str) -> Result<&'g mut [f32]> {
    match gradients.get_mut(name) {
        Some(gradient) => Ok(gradient),
        None => candle_core::bail!("no place for the gradient of `{name}`"),
    }
}

fn variable<'p>(parameters: &'p Parameters, name: &str) -> Result<&'p Var> {
    match parameters.get(name) {
        Some(var) => Ok(var),
        None => candle_core::bail!("no variable `{name}`"),
    }
}

fn check_len(what: &str, expected: usize, found: usize) -> Result<()> {
    if expected == found {
        Ok(())
    } else {
        candle_core::bail!("{what}: expected {expected} values, found {found}")
    }
}

/// A variable's values, held as long as they are read.
struct Values<S> {
    storage: S,
    range: Option<(usize, usize)>,
}

fn values(var: &Var) -> Values<impl Deref<Target = Storage>> {
    let (storage, layout) = var.storage_and_layout();
    Values {
        range: layout.contiguous_offsets(),
        storage,
    }
}

impl<S: Deref<Target = Storage>> Values<S> {
    fn as_slice(&self) -> Result<&[f32]> {
        match (&*self.storage, self.range) {
            (Storage::Cpu(CpuStorage::F32(values)), Some((from, to))) => Ok(&values[from..to]),
            _ => candle_core::bail!("expected a contiguous f32 variable on the CPU"),
        }
    }
}

/// The first error that any thread met.
#[derive(Default)]
struct Failure(Mutex<Option<KernelError>>);

impl Failure {
    fn note(&self, result: std::result::Result<(), KernelError>) {
        if let Err(error) = result {
            let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert(error);
        }
    }

    fn result(self) -> Result<()> {
        match self.0.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(Error::wrap(error)),
            None => Ok(()),
        }
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
