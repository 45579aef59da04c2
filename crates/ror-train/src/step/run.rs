//! One step in progress: its stages on all threads.

use super::compiled::Compiled;
use super::failure::Failure;
use super::finish::Outlet;
use super::flags::Flags;
use super::graph::Draw;
use super::pass::Pass;
use super::state::Worker;
use super::variables::{Values, values, variable};
use crate::engine::Peers;
use crate::{Batch, Gradients, StepOutput};
use candle_core::{DType, Device, Error, Result, Shape};
use ror_blocks::Noise;
use ror_models::{Network, Parameters};
use ror_ops::kernels::{Dims, Isa, Linear, Pool, kept};
use std::ops::Range;
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};

/// One step in progress.
pub(super) struct Step<'a> {
    pub isa: Isa,
    pub pool: &'a Pool,
    pub network: &'a Network,
    pub parameters: &'a Parameters,
    pub compiled: &'a mut Compiled,
}

impl Step<'_> {
    /// Deals `n` images to the threads.
    pub(super) fn start(&mut self, n: usize) {
        let threads = self.compiled.workers.len();
        for (i, worker) in self.compiled.workers.iter_mut().enumerate() {
            let worker = worker.get_mut().unwrap_or_else(PoisonError::into_inner);
            worker.start(n * i / threads..n * (i + 1) / threads);
        }
    }

    /// Packs this step's weights, the convolutions dealt to the threads.
    pub(super) fn pack(&mut self) -> Result<()> {
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
    pub(super) fn draw(&mut self, noise: &Noise, n: usize) -> Result<Flags> {
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

    pub(super) fn train(
        &mut self,
        batch: &Batch,
        flags: &Flags,
        gradients: &mut Gradients,
        peers: &mut dyn Peers,
    ) -> Result<StepOutput> {
        for stage in 0..self.compiled.plan.forward.len() {
            let nodes = self.compiled.plan.forward[stage].clone();
            self.normalise(&nodes, flags, peers)?;
            self.run(&nodes, flags, &batch.images, Some(batch), false)?;
        }
        let mut outlet = Outlet { gradients, peers };
        for stage in 0..self.compiled.plan.backward.len() {
            let nodes = self.compiled.plan.backward[stage].clone();
            self.differentiate_norms(&nodes, flags, &mut outlet)?;
            self.run(&nodes, flags, &batch.images, Some(batch), true)?;
            self.finish(&nodes, flags, &mut outlet)?;
        }
        let workers = self.workers();
        let classes = batch.classes();
        let mut logits = Vec::with_capacity(batch.targets.len());
        for worker in &workers {
            logits.extend_from_slice(&worker.head.logits[..worker.images.len() * classes]);
        }
        Ok(StepOutput {
            loss: workers.iter().map(|w| w.head.loss).sum::<f64>() / batch.whole as f64,
            logits,
        })
    }

    pub(super) fn evaluate(&mut self, images: &[f32], n: usize) -> Result<Vec<f32>> {
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
            whole: batch.map_or(0, |b| b.whole),
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

    pub(super) fn workers(&self) -> Vec<RwLockReadGuard<'_, Worker>> {
        read_all(&self.compiled.workers)
    }
}

pub(super) fn read_all(workers: &[RwLock<Worker>]) -> Vec<RwLockReadGuard<'_, Worker>> {
    let workers = workers.iter();
    workers
        .map(|w| w.read().unwrap_or_else(PoisonError::into_inner))
        .collect()
}
