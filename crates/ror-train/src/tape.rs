//! The engine that lets candle's tape differentiate the model.

use crate::{Batch, Engine, Gradients, StepOutput};
use candle_core::{D, Device, Result, Tensor};
use ror_blocks::{Mode, Noise};
use ror_models::{Model, Network, Parameters};
use std::thread;

/// The tape is walked and dropped by recursion, which a very deep network takes further than a
/// thread's usual stack. Pages that are not touched cost nothing.
const STACK: usize = 256 << 20;

/// Works for every network and device, at the speed of candle's operations.
#[derive(Debug, Clone)]
pub struct TapeEngine {
    model: Model,
    parameters: Parameters,
    device: Device,
}

impl TapeEngine {
    /// Computes `network` from these variables.
    ///
    /// # Errors
    /// Variables of another network.
    pub fn new(network: &Network, parameters: &Parameters) -> Result<Self> {
        let device = match parameters.iter().next() {
            Some((_, _, var)) => var.device().clone(),
            None => Device::Cpu,
        };
        Ok(Self {
            model: parameters.model(network)?,
            parameters: parameters.clone(),
            device,
        })
    }

    fn differentiate(
        &self,
        batch: &Batch,
        noise: &Noise,
        gradients: &mut Gradients,
    ) -> Result<StepOutput> {
        let images = Tensor::from_slice(&batch.images, &batch.shape, &self.device)?;
        let targets =
            Tensor::from_slice(&batch.targets, (batch.len(), batch.classes()), &self.device)?;
        let logits = self.model.forward_in(&images, Mode::Train(noise))?;
        let loss = cross_entropy(&logits, &targets)?;
        let tape = loss.backward()?;
        for (name, _, var) in self.parameters.trainable() {
            let Some(to) = gradients.get_mut(name) else {
                candle_core::bail!("no place for the gradient of `{name}`")
            };
            // Blocks that stochastic depth dropped have no gradient.
            match tape.get(var) {
                Some(gradient) => to.copy_from_slice(&flat(gradient)?),
                None => to.fill(0.0),
            }
        }
        Ok(StepOutput {
            loss: f64::from(loss.to_scalar::<f32>()?),
            logits: flat(&logits)?,
        })
    }
}

impl Engine for TapeEngine {
    fn forward_backward(
        &mut self,
        batch: &Batch,
        noise: &Noise,
        gradients: &mut Gradients,
    ) -> Result<StepOutput> {
        thread::scope(|scope| {
            let work = || self.differentiate(batch, noise, gradients);
            let thread = thread::Builder::new()
                .name("ror-tape".to_owned())
                .stack_size(STACK)
                .spawn_scoped(scope, work)?;
            match thread.join() {
                Ok(output) => output,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    fn logits(&mut self, images: &[f32], shape: [usize; 4]) -> Result<Vec<f32>> {
        let images = Tensor::from_slice(images, &shape, &self.device)?;
        flat(&self.model.forward(&images)?)
    }
}

/// The mean over the rows of the cross-entropy between `targets` and the softmax of `logits`, both
/// `(N, classes)`.
///
/// # Errors
/// Shapes that differ.
pub(crate) fn cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let n = logits.dim(0)?;
    let log_softmax = candle_nn::ops::log_softmax(logits, D::Minus1)?;
    let sum = log_softmax.mul(targets)?.sum_all()?;
    sum.affine(-1.0 / n as f64, 0.0)
}

fn flat(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.flatten_all()?.to_vec1()
}
