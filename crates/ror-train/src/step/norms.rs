//! What batch normalisations need of the whole batch, between two stages: the sums of all threads and, where they
//! are synchronised, of all ranks.

use super::compiled::Compiled;
use super::finish::Outlet;
use super::flags::Flags;
use super::run::{Step, read_all};
use super::variables::{gradient, values, variable};
use crate::engine::Peers;
use crate::flat;
use candle_core::{Error, Result};
use ror_ops::kernels::{GradientMoments, Moments};
use std::ops::Range;

impl Step<'_> {
    /// Sets the norms that a forward stage reads through from the batch's statistics.
    pub(super) fn normalise(
        &mut self,
        nodes: &Range<usize>,
        flags: &Flags,
        peers: &mut dyn Peers,
    ) -> Result<()> {
        let Compiled {
            graph,
            norms,
            workers,
            ..
        } = &mut *self.compiled;
        let nodes = graph.nodes[nodes.clone()].iter();
        let running = nodes.flat_map(|node| node.norms());
        let running: Vec<_> = running
            .filter(|&k| flags.runs(graph.norms[k].gate))
            .collect();
        let mut all = Vec::with_capacity(running.len());
        for &k in &running {
            let guards = read_all(workers);
            let parts: Vec<_> = guards.iter().map(|w| &w.moments[k]).collect();
            all.push(Statistics::of(&parts)?);
        }
        if peers.synchronised() {
            pool(&mut all, peers);
        }
        for (k, statistics) in running.into_iter().zip(all) {
            let spec = &graph.norms[k];
            let state = &mut norms[k];
            let named = |name: &str| variable(self.parameters, &format!("{}.{name}", spec.path));
            let (gamma, beta) = (values(named("weight")?), values(named("bias")?));
            let constants = (gamma.as_slice()?, beta.as_slice()?);
            let (mean, variance) = (named("running_mean")?, named("running_var")?);
            let mut nested = Ok(());
            flat::update(mean, |mean| {
                nested = flat::update(variance, |variance| {
                    state.train(statistics, constants, self.network.norm(), (mean, variance));
                });
            })?;
            nested?;
        }
        Ok(())
    }

    pub(super) fn use_running_statistics(&mut self) -> Result<()> {
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
    pub(super) fn differentiate_norms(
        &mut self,
        nodes: &Range<usize>,
        flags: &Flags,
        outlet: &mut Outlet<'_>,
    ) -> Result<()> {
        let Compiled {
            graph,
            plan,
            norms,
            workers,
            ..
        } = &mut *self.compiled;
        let completed = nodes.clone().filter_map(|i| {
            let out = graph.nodes[i].out?;
            (plan.completed[out] == i).then_some(out)
        });
        let running = completed.flat_map(|out| plan.norms_of[out].iter().copied());
        let running: Vec<_> = running
            .filter(|&k| flags.runs(graph.norms[k].gate))
            .collect();
        let mut own = Vec::with_capacity(running.len());
        for &k in &running {
            let guards = read_all(workers);
            let parts: Vec<_> = guards.iter().map(|w| &w.gradient_moments[k]).collect();
            own.push(GradientMoments::total(&parts).map_err(Error::wrap)?);
        }
        let mut all = own.clone();
        if outlet.peers.synchronised() {
            let values = all
                .iter()
                .flatten()
                .flat_map(|&(sum, product)| [sum, product]);
            let mut values: Vec<f64> = values.collect();
            outlet.peers.sum(&mut values);
            let sums = values.as_chunks::<2>().0.iter();
            let places = all.iter_mut().flatten();
            places
                .zip(sums)
                .for_each(|(to, &[sum, product])| *to = (sum, product));
        }
        for ((k, own), all) in running.into_iter().zip(own).zip(all) {
            let path = &graph.norms[k].path;
            norms[k].differentiate(&all);
            // Gradients are added up over the ranks later, like all others.
            let gamma = gradient(outlet.gradients, &format!("{path}.weight"))?;
            norms[k].gamma_gradient(&own, gamma);
            let beta = gradient(outlet.gradients, &format!("{path}.bias"))?;
            beta.iter_mut()
                .zip(&own)
                .for_each(|(to, &(sum, _))| *to = sum as f32);
        }
        Ok(())
    }
}

/// Mean and variance of every channel, of so many values.
pub(super) struct Statistics {
    pub count: f64,
    pub channels: Vec<(f64, f64)>,
}

impl Statistics {
    fn of(parts: &[&Moments]) -> Result<Self> {
        Ok(Self {
            count: parts.iter().map(|part| part.count() as f64).sum(),
            channels: Moments::total(parts).map_err(Error::wrap)?,
        })
    }
}

/// Makes the statistics those of all ranks' values. First the means, then the squares around them, so that a mean
/// far from zero costs no digits.
fn pool(all: &mut [Statistics], peers: &mut dyn Peers) {
    let mut sums = Vec::new();
    for s in &*all {
        sums.push(s.count);
        sums.extend(s.channels.iter().map(|&(mean, _)| s.count * mean));
    }
    peers.sum(&mut sums);
    let mut sums = sums.into_iter();
    let mut next = || sums.next().unwrap_or(f64::NAN);
    let mut squares = Vec::new();
    for s in &mut *all {
        let own = std::mem::replace(&mut s.count, next());
        for (mean, variance) in &mut s.channels {
            let pooled = next() / s.count;
            squares.push(own * (*variance + (*mean - pooled) * (*mean - pooled)));
            *mean = pooled;
        }
    }
    peers.sum(&mut squares);
    let mut squares = squares.into_iter();
    for s in all {
        for (_, variance) in &mut s.channels {
            *variance = squares.next().unwrap_or(f64::NAN) / s.count;
        }
    }
}
