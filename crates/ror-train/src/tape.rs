//! The engine that lets candle's tape differentiate the model.

use crate::engine::Peers;
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
    /// Trainable tensors, the last of the network first.
    backwards: Vec<String>,
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
        let tensors = network.tensors().into_iter().rev();
        let backwards = tensors
            .filter(|spec| spec.role.is_trainable())
            .map(|spec| spec.name)
            .collect();
        Ok(Self {
            model: parameters.model(network)?,
            parameters: parameters.clone(),
            backwards,
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
        let mut loss = cross_entropy(&logits, &targets)?;
        if batch.len() != batch.whole {
            loss = loss.affine(batch.len() as f64 / batch.whole as f64, 0.0)?;
        }
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
    fn forward_backward_telling(
        &mut self,
        batch: &Batch,
        noise: &Noise,
        gradients: &mut Gradients,
        peers: &mut dyn Peers,
    ) -> Result<StepOutput> {
        if peers.synchronised() {
            candle_core::bail!(
                "batch normalisation is synchronised only in float32 on the processor, without the tape"
            )
        }
        let output = thread::scope(|scope| {
            let work = || self.differentiate(batch, noise, gradients);
            let thread = thread::Builder::new()
                .name("ror-tape".to_owned())
                .stack_size(STACK)
                .spawn_scoped(scope, work)?;
            match thread.join() {
                Ok(output) => output,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })?;
        for name in &self.backwards {
            if let Some(index) = gradients.layout().index(name) {
                peers.ready(index, gradients.at_mut(index));
            }
        }
        Ok(output)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FlatLayout;
    use candle_core::DType;
    use ror_models::Description;
    use std::sync::Arc;

    fn engine(description: &Description) -> (TapeEngine, Gradients) {
        let network = Network::new(description).unwrap();
        let parameters = Parameters::init(&network, 1, DType::F32, &Device::Cpu).unwrap();
        let gradients = Gradients::new(Arc::new(FlatLayout::new(&parameters)));
        (TapeEngine::new(&network, &parameters).unwrap(), gradients)
    }

    fn batch(n: usize, side: usize) -> Batch {
        let values = n * 3 * side * side;
        Batch {
            images: (0..values)
                .map(|i| (i * 7 % 23) as f32 / 11.0 - 1.0)
                .collect(),
            shape: [n, 3, side, side],
            targets: [1.0, 0.0, 0.0].repeat(n),
            labels: vec![0; n],
            whole: n,
        }
    }

    fn description(preset: &str, side: usize) -> Description {
        let mut description = Description::preset(preset).unwrap().with_classes(3);
        description.image_size = [side, side];
        description
    }

    #[test]
    fn the_loss_is_the_cross_entropy_with_soft_targets() -> Result<()> {
        let logits = [[0.5f64, -1.0, 2.0], [3.0, 0.0, 0.25]];
        let targets = [[0.7f64, 0.2, 0.1], [0.0, 0.5, 0.5]];
        let mut expected = 0.0;
        for (logits, targets) in logits.iter().zip(&targets) {
            let sum: f64 = logits.iter().map(|l| l.exp()).sum();
            let terms = logits.iter().zip(targets).map(|(l, t)| -t * (l - sum.ln()));
            expected += terms.sum::<f64>() / 2.0;
        }
        let tensor = |values: &[[f64; 3]; 2]| Tensor::new(values, &Device::Cpu);
        let loss = cross_entropy(&tensor(&logits)?, &tensor(&targets)?)?;
        assert!((loss.to_scalar::<f64>()? - expected).abs() < 1e-12);
        Ok(())
    }

    #[test]
    fn a_dropped_block_has_a_gradient_of_zero() {
        let description = description("ror-3-wrn-16-1", 8).with_stochastic_depth(0.01);
        let (mut engine, mut gradients) = engine(&description);
        gradients.as_mut_slice().fill(f32::NAN);
        // The last block survives once in a hundred times.
        let noise = Noise::seeded(2);
        engine
            .forward_backward(&batch(2, 8), &noise, &mut gradients)
            .unwrap();
        let of = |name: &str| gradients.get(name).unwrap();
        assert!(
            of("root.group3.block2.conv1.weight")
                .iter()
                .all(|&g| g == 0.0)
        );
        assert!(of("stem.conv.weight").iter().any(|&g| g != 0.0));
        assert!(gradients.norm().is_finite());
    }

    #[test]
    fn the_deepest_networks_do_not_exhaust_the_stack() {
        let (mut engine, mut gradients) = engine(&description("ror-3-1202", 4));
        let noise = Noise::seeded(1);
        let output = engine
            .forward_backward(&batch(1, 4), &noise, &mut gradients)
            .unwrap();
        assert_eq!(output.logits.len(), 3);
    }
}
