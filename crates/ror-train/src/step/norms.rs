//! What batch normalisations need of the whole batch, between two stages.

use super::compiled::Compiled;
use super::flags::Flags;
use super::run::{Step, read_all};
use super::variables::{gradient, values, variable};
use crate::{Gradients, flat};
use candle_core::{Error, Result};
use std::ops::Range;

impl Step<'_> {
    /// Sets the norms that a forward stage reads through from the batch's statistics.
    pub(super) fn normalise(&mut self, nodes: &Range<usize>, flags: &Flags) -> Result<()> {
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
}
