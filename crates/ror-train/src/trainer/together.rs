//! A step of all ranks.

use super::{Agreed, Trainer};
use crate::error::Result;
use crate::metrics::argmax;
use crate::ranks::together;
use crate::{Batch, StepOutput, flat};
use candle_core::Var;
use ror_blocks::Noise;
use ror_data::Generator;
use ror_models::Parameters;

/// What the noise of a step is derived from, beside the seed and the step.
const NOISE: u64 = 4;

/// What a step gave, on all ranks together.
pub(super) struct Figures {
    pub images: usize,
    /// The mean loss.
    pub loss: f64,
    /// Images that were classified rightly.
    pub right: u64,
}

impl Trainer {
    /// Sets the gradients of the step. `checkpoint` asks for one afterwards.
    pub(super) fn compute(&mut self, batch: Result<Batch>, checkpoint: bool) -> Result<Figures> {
        let noise = self.noise();
        if self.ranks.size() == 1 {
            let batch = batch?;
            let gradients = &mut self.gradients;
            let output = self.engine.forward_backward(&batch, &noise, gradients)?;
            self.agreed.checkpoint = checkpoint;
            return Ok(figures(&batch, &output));
        }
        // Others would wait for the sums of a rank that has no batch.
        let batch = together(&*self.ranks, batch)?;
        let synchronised = self.config.training.sync_batch_norm;
        let (ranks, engine) = (&*self.ranks, &mut self.engine);
        let gradients = &mut self.gradients;
        let result = self
            .buckets
            .reduce(ranks, synchronised, gradients, |gradients, peers| {
                // Normalisations of their own cannot do with no images.
                let output = if batch.is_empty() && !synchronised {
                    StepOutput {
                        loss: 0.0,
                        logits: Vec::new(),
                    }
                } else {
                    engine.forward_backward_telling(&batch, &noise, gradients, peers)?
                };
                Ok((figures(&batch, &output), batch.len()))
            });
        // A failure among synchronised ranks: the others are amid their sums, and whoever started them ends them.
        let result = if synchronised { Ok(result?) } else { result };
        let first = ranks.rank() == 0;
        let (loss, right, share) = match &result {
            Ok((figures, own)) => {
                let share = *own as f64 / figures.images as f64;
                (figures.loss, figures.right as f64, share)
            }
            Err(_) => (f64::NAN, 0.0, 0.0),
        };
        let flag = |set: bool| f64::from(u8::from(set));
        let stop = flag(self.stop.is_set());
        let mut sums = vec![loss, right, stop, flag(checkpoint && first)];
        if !synchronised {
            append_statistics(&self.parameters, share, &mut sums)?;
        }
        ranks.sum(&mut sums);
        let (figures, _) = result?;
        if !synchronised {
            set_statistics(&self.parameters, &sums[4..])?;
        }
        self.agreed = Agreed {
            stop: sums[2] > 0.0,
            checkpoint: sums[3] > 0.0,
        };
        Ok(Figures {
            images: figures.images,
            loss: sums[0],
            right: sums[1] as u64,
        })
    }

    /// Whether the run ends here, on all ranks.
    pub(super) fn asked_to_stop(&self) -> bool {
        match self.ranks.size() {
            1 => self.stop.is_set(),
            _ => self.agreed.stop,
        }
    }

    /// The step's random numbers: the same blocks are dropped everywhere, but not the same values.
    fn noise(&self) -> Noise {
        let (seed, step) = (self.config.training.seed, self.progress.step);
        let noise = Noise::seeded(Generator::new(seed, &[NOISE, step]).bits());
        if self.ranks.size() == 1 {
            return noise;
        }
        let rank = self.ranks.rank() as u64;
        noise.with_masks(Generator::new(seed, &[NOISE, step, rank]).bits())
    }
}

fn figures(batch: &Batch, output: &StepOutput) -> Figures {
    let rows = output.logits.chunks_exact(batch.classes().max(1));
    let right = rows
        .zip(&batch.labels)
        .filter(|&(row, &label)| argmax(row) == label as usize);
    Figures {
        images: batch.whole,
        loss: output.loss,
        right: right.count() as u64,
    }
}

fn statistics(parameters: &Parameters) -> impl Iterator<Item = &Var> {
    let all = parameters.iter();
    all.filter_map(|(_, role, var)| (!role.is_trainable()).then_some(var))
}

/// Appends a share of every running statistic. Each rank's follow its own images; their mean is what all go on with.
fn append_statistics(parameters: &Parameters, share: f64, to: &mut Vec<f64>) -> Result<()> {
    for var in statistics(parameters) {
        flat::read(var, |values| {
            to.extend(values.iter().map(|&v| share * f64::from(v)));
        })?;
    }
    Ok(())
}

fn set_statistics(parameters: &Parameters, mut values: &[f64]) -> Result<()> {
    for var in statistics(parameters) {
        let (own, rest) = values.split_at(var.elem_count().min(values.len()));
        values = rest;
        flat::update(var, |to| {
            to.iter_mut().zip(own).for_each(|(to, &v)| *to = v as f32);
        })?;
    }
    Ok(())
}
