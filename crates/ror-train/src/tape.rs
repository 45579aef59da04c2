//! The engine that lets candle's tape differentiate the model.

use crate::engine::Peers;
use crate::{Batch, Engine, Gradients, StepOutput};
use candle_core::backprop::GradStore;
use candle_core::{D, DType, Device, Result, Tensor};
use ror_blocks::{Mode, Noise};
use ror_models::{Model, Network, Parameters, TensorRole};
use std::thread;

/// The tape is walked and dropped by recursion, which a very deep network takes further than a
/// thread's usual stack. Pages that are not touched cost nothing.
pub(crate) const STACK: usize = 256 << 20;

/// Works for every network and device, at the speed of candle's operations.
#[derive(Debug, Clone)]
pub struct TapeEngine {
    tape: Tape,
    /// Trainable tensors, the last of the network first.
    backwards: Vec<String>,
}

impl TapeEngine {
    /// Computes `network` from these variables.
    ///
    /// # Errors
    /// Variables of another network.
    pub fn new(network: &Network, parameters: &Parameters) -> Result<Self> {
        Ok(Self {
            tape: Tape::new(network, parameters)?,
            backwards: backwards(network),
        })
    }

    fn differentiate(
        &self,
        batch: &Batch,
        noise: &Noise,
        gradients: &mut Gradients,
    ) -> Result<StepOutput> {
        let step = self.tape.differentiate(batch, noise)?;
        for (name, _, var) in self.tape.parameters.trainable() {
            let Some(to) = gradients.get_mut(name) else {
                candle_core::bail!("no place for the gradient of `{name}`")
            };
            // Blocks that stochastic depth dropped have no gradient.
            match step.gradients.get(var) {
                Some(gradient) => to.copy_from_slice(&flat(gradient)?),
                None => to.fill(0.0),
            }
        }
        step.output()
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
        refuse_synchronised(peers)?;
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
        tell(&self.backwards, gradients, peers);
        Ok(output)
    }

    fn logits(&mut self, images: &[f32], shape: [usize; 4]) -> Result<Vec<f32>> {
        flat(&self.tape.logits(images, shape)?)
    }
}

/// A network over variables, which candle's tape differentiates.
#[derive(Debug, Clone)]
pub(crate) struct Tape {
    model: Model,
    /// The same, of which nothing is recorded.
    evaluator: Model,
    pub(crate) parameters: Parameters,
    device: Device,
    /// The type of the activations, which is that of the kernels.
    dtype: DType,
}

/// What a step computed, on the device of the variables.
pub(crate) struct Differentiated {
    loss: Tensor,
    logits: Tensor,
    /// Of the variables; none of blocks that were dropped.
    pub(crate) gradients: GradStore,
}

impl Differentiated {
    pub(crate) fn output(&self) -> Result<StepOutput> {
        Ok(StepOutput {
            loss: f64::from(self.loss.to_dtype(DType::F32)?.to_scalar::<f32>()?),
            logits: flat(&self.logits)?,
        })
    }
}

impl Tape {
    pub(crate) fn new(network: &Network, parameters: &Parameters) -> Result<Self> {
        let mut kernels = parameters.iter();
        let kernel = kernels.find(|(_, role, _)| *role == TensorRole::ConvWeight);
        let (device, dtype) = match kernel {
            Some((_, _, var)) => (var.device().clone(), var.dtype()),
            None => (Device::Cpu, DType::F32),
        };
        Ok(Self {
            model: parameters.model(network)?,
            evaluator: parameters.evaluator(network)?,
            parameters: parameters.clone(),
            device,
            dtype,
        })
    }

    pub(crate) fn differentiate(&self, batch: &Batch, noise: &Noise) -> Result<Differentiated> {
        let images = self.images(&batch.images, batch.shape)?;
        let targets = (batch.len(), batch.classes());
        let targets = Tensor::from_slice(&batch.targets, targets, &self.device)?;
        let logits = self.model.forward_in(&images, Mode::Train(noise))?;
        let mut loss = cross_entropy(&logits, &targets.to_dtype(logits.dtype())?)?;
        if batch.len() != batch.whole {
            loss = loss.affine(batch.len() as f64 / batch.whole as f64, 0.0)?;
        }
        Ok(Differentiated {
            gradients: loss.backward()?,
            loss,
            logits,
        })
    }

    pub(crate) fn logits(&self, images: &[f32], shape: [usize; 4]) -> Result<Tensor> {
        self.evaluator.forward(&self.images(images, shape)?)
    }

    fn images(&self, images: &[f32], shape: [usize; 4]) -> Result<Tensor> {
        Tensor::from_slice(images, &shape, &self.device)?.to_dtype(self.dtype)
    }
}

/// The names of the trainable tensors, the last of the network first.
pub(crate) fn backwards(network: &Network) -> Vec<String> {
    let tensors = network.tensors().into_iter().rev();
    let trainable = tensors.filter(|spec| spec.role.is_trainable());
    trainable.map(|spec| spec.name).collect()
}

/// Tells of the gradients of these tensors, all of which are final.
pub(crate) fn tell(names: &[String], gradients: &mut Gradients, peers: &mut dyn Peers) {
    for name in names {
        if let Some(index) = gradients.layout().index(name) {
            peers.ready(index, gradients.at_mut(index));
        }
    }
}

/// The tape normalises each rank's images by themselves.
pub(crate) fn refuse_synchronised(peers: &dyn Peers) -> Result<()> {
    if peers.synchronised() {
        candle_core::bail!(
            "batch normalisation is synchronised only in float32 on the processor, without the tape"
        )
    }
    Ok(())
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

/// The values of a tensor in float32.
pub(crate) fn flat(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.flatten_all()?.to_dtype(DType::F32)?.to_vec1()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FlatLayout;
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
