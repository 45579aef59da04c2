//! The engine that computes on another device than the one that keeps the variables.

use crate::engine::Peers;
use crate::tape::{STACK, Tape, backwards, refuse_synchronised, tell};
use crate::{Batch, Engine, Gradients, StepOutput, flat};
use candle_core::{DType, Device, Result, Tensor};
use rayon::{ThreadPool, ThreadPoolBuilder};
use ror_blocks::Noise;
use ror_models::{Network, Parameters, TensorRole};
use serde::{Deserialize, Serialize};
use std::thread::{self, JoinHandle};

/// What a [`DeviceEngine`] computes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// float32 everywhere; convolutions in TF32 where the device has it.
    #[default]
    F32,
    /// Activations and convolutions in bfloat16; normalisations, the classifier, the loss and the variables that
    /// are trained in float32. bfloat16 has float32's range, so that no loss needs to be scaled.
    Bf16,
}

impl Precision {
    fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
        }
    }
}

/// Computes on a device, usually a GPU, what float32 variables on the processor say: they go there before a step, and
/// gradients and running statistics come back after it, all in one piece each way.
///
/// So the trainer, its optimisers, averages and checkpoints, and the sums over the ranks of an MPI job are the same
/// wherever networks are computed. Per step that costs eight bytes a parameter over the bus.
#[derive(Debug)]
pub struct DeviceEngine {
    host: Parameters,
    /// On the device, over the variables there.
    tape: Tape,
    device: Device,
    backwards: Vec<String>,
    thread: Worker,
}

/// One thread for all work of a device, with a stack for the tape: each thread has a queue of work of its own on the
/// device, and libraries keep state per thread.
#[derive(Debug)]
struct Worker {
    pool: Option<ThreadPool>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    fn start() -> Result<Self> {
        let mut handle = None;
        let pool = ThreadPoolBuilder::new()
            .num_threads(1)
            .spawn_handler(|worker| {
                let builder = thread::Builder::new().name("ror-device".to_owned());
                let work = move || worker.run();
                handle = Some(builder.stack_size(STACK).spawn(work)?);
                Ok(())
            })
            .build()
            .map_err(candle_core::Error::wrap)?;
        Ok(Self {
            pool: Some(pool),
            thread: handle,
        })
    }

    fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        match &self.pool {
            Some(pool) => pool.install(work),
            None => candle_core::bail!("the thread of the device has ended"),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // The thread gives back what libraries of the device keep for it, which must not meet the end of the process.
        self.pool = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl DeviceEngine {
    /// Computes `network` on `device`.
    ///
    /// # Errors
    /// Variables of another network, that are not float32 on the processor; a device with too little memory.
    pub fn new(
        network: &Network,
        parameters: &Parameters,
        device: &Device,
        precision: Precision,
    ) -> Result<Self> {
        Self::with_dtype(network, parameters, device, precision.dtype())
    }

    fn with_dtype(
        network: &Network,
        parameters: &Parameters,
        device: &Device,
        dtype: DType,
    ) -> Result<Self> {
        for (_, _, var) in parameters.iter() {
            flat::read(var, |_| ())?;
        }
        let thread = Worker::start()?;
        let mirror = thread.run(|| {
            parameters.copied(device, |role| match role {
                TensorRole::ConvWeight | TensorRole::ConvBias => dtype,
                _ => DType::F32,
            })
        })?;
        Ok(Self {
            host: parameters.clone(),
            tape: Tape::new(network, &mirror)?,
            device: device.clone(),
            backwards: backwards(network),
            thread,
        })
    }

    /// Brings the variables to the device.
    fn upload(&self) -> Result<()> {
        let mut values = Vec::new();
        for (_, _, var) in self.host.iter() {
            flat::read(var, |v| values.extend_from_slice(v))?;
        }
        let len = values.len();
        let values = Tensor::from_vec(values, len, &self.device)?;
        let mut at = 0;
        for (_, _, var) in self.tape.parameters.iter() {
            let part = values.narrow(0, at, var.elem_count())?;
            var.set(&part.reshape(var.shape())?.to_dtype(var.dtype())?)?;
            at += var.elem_count();
        }
        Ok(())
    }

    fn step(&self, batch: &Batch, noise: &Noise, gradients: &mut Gradients) -> Result<StepOutput> {
        self.upload()?;
        let step = self.tape.differentiate(batch, noise)?;
        // In the order of the flat layout, which is that of the names; statistics behind the gradients.
        let mut parts = Vec::new();
        for (_, _, var) in self.tape.parameters.trainable() {
            parts.push(match step.gradients.get(var) {
                Some(gradient) => gradient.flatten_all()?.to_dtype(DType::F32)?,
                // Of a block that stochastic depth dropped.
                None => Tensor::zeros(var.elem_count(), DType::F32, &self.device)?,
            });
        }
        for (_, role, var) in self.tape.parameters.iter() {
            if !role.is_trainable() {
                parts.push(var.as_detached_tensor().flatten_all()?);
            }
        }
        let values = Tensor::cat(&parts, 0)?.to_vec1::<f32>()?;
        let all = gradients.as_mut_slice();
        let Some((first, mut rest)) = values.split_at_checked(all.len()) else {
            candle_core::bail!("the gradients are those of another network")
        };
        all.copy_from_slice(first);
        for (name, role, var) in self.host.iter() {
            if !role.is_trainable() {
                let Some((own, others)) = rest.split_at_checked(var.elem_count()) else {
                    candle_core::bail!("`{name}` did not come back from the device")
                };
                flat::update(var, |v| v.copy_from_slice(own))?;
                rest = others;
            }
        }
        step.output()
    }
}

impl Engine for DeviceEngine {
    fn forward_backward_telling(
        &mut self,
        batch: &Batch,
        noise: &Noise,
        gradients: &mut Gradients,
        peers: &mut dyn Peers,
    ) -> Result<StepOutput> {
        refuse_synchronised(peers)?;
        let output = self.thread.run(|| self.step(batch, noise, gradients));
        let output = output.map_err(|e| explained(e, batch.len()))?;
        tell(&self.backwards, gradients, peers);
        Ok(output)
    }

    fn logits(&mut self, images: &[f32], shape: [usize; 4]) -> Result<Vec<f32>> {
        let logits = self.thread.run(|| {
            self.upload()?;
            crate::tape::flat(&self.tape.logits(images, shape)?)
        });
        logits.map_err(|e| explained(e, shape[0]))
    }
}

/// Says what can be done about a device that is full.
fn explained(error: candle_core::Error, images: usize) -> candle_core::Error {
    let text = error.to_string();
    let full = ["OUT_OF_MEMORY", "ALLOC_FAILED", "ALLOCATION_FAILED"];
    if full.iter().any(|name| text.contains(name)) {
        let first = text.lines().next().unwrap_or_default();
        candle_core::Error::Msg(format!(
            "the device has too little memory for a batch of {images} images; a smaller one needs less ({first})"
        ))
    } else {
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FlatLayout, TapeEngine};
    use ror_models::Description;
    use std::sync::Arc;

    /// The largest difference between two sets of numbers, relative to the largest.
    fn difference(found: &[f32], expected: &[f32]) -> f32 {
        assert_eq!(found.len(), expected.len());
        let largest = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
        let pairs = found.iter().zip(expected);
        let off = pairs.map(|(a, b)| (a - b).abs());
        off.fold(0f32, |m, d| {
            m.max(if d.is_nan() { f32::INFINITY } else { d })
        }) / largest
    }

    fn batch(n: usize, side: usize) -> Batch {
        Batch {
            images: (0..n * 3 * side * side)
                .map(|i| (i * 7 % 23) as f32 / 11.0 - 1.0)
                .collect(),
            shape: [n, 3, side, side],
            targets: [0.5, 0.25, 0.25].repeat(n),
            labels: vec![0; n],
            whole: n,
        }
    }

    struct Step {
        output: StepOutput,
        gradients: Gradients,
        statistics: Vec<f32>,
        logits: Vec<f32>,
    }

    fn step(
        preset: &str,
        make: impl FnOnce(&Network, &Parameters) -> Result<Box<dyn Engine>>,
    ) -> Result<Step> {
        let mut description = Description::preset(preset).unwrap().with_classes(3);
        description.image_size = [8, 8];
        description = description.with_stochastic_depth(0.6);
        let network = Network::new(&description).unwrap();
        let parameters = Parameters::init(&network, 1, DType::F32, &Device::Cpu)?;
        let mut engine = make(&network, &parameters)?;
        // What the variables say later counts.
        let dense = parameters.get("head.dense.bias").unwrap();
        flat::update(dense, |v| v.fill(0.5))?;
        let mut gradients = Gradients::new(Arc::new(FlatLayout::new(&parameters)));
        gradients.as_mut_slice().fill(f32::NAN);
        let batch = batch(4, 8);
        let output = engine.forward_backward(&batch, &Noise::seeded(5), &mut gradients)?;
        let mut statistics = Vec::new();
        for (_, role, var) in parameters.iter() {
            if !role.is_trainable() {
                flat::read(var, |v| statistics.extend_from_slice(v))?;
            }
        }
        Ok(Step {
            output,
            gradients,
            statistics,
            logits: engine.logits(&batch.images, batch.shape)?,
        })
    }

    fn compare(preset: &str, dtype: DType, limit: f32) -> Result<()> {
        let expected = step(preset, |network, parameters| {
            Ok(Box::new(TapeEngine::new(network, parameters)?))
        })?;
        let found = step(preset, |network, parameters| {
            let engine = DeviceEngine::with_dtype(network, parameters, &Device::Cpu, dtype)?;
            Ok(Box::new(engine))
        })?;
        let loss = (found.output.loss - expected.output.loss) / expected.output.loss;
        assert!(loss.abs() <= f64::from(limit), "{preset}: loss {loss}");
        for (name, found, expected) in [
            (
                "logits",
                &found.output.logits[..],
                &expected.output.logits[..],
            ),
            (
                "gradients",
                found.gradients.as_slice(),
                expected.gradients.as_slice(),
            ),
            ("statistics", &found.statistics, &expected.statistics),
            ("logits of evaluation", &found.logits, &expected.logits),
        ] {
            let off = difference(found, expected);
            assert!(off <= limit, "{preset}: {name} differ by {off}");
        }
        Ok(())
    }

    #[test]
    fn a_step_on_the_device_is_that_of_the_tape_to_the_bit() -> Result<()> {
        compare("ror-3-wrn-10-1", DType::F32, 0.0)?;
        compare("keras-ror-3-56", DType::F32, 0.0)
    }

    #[test]
    fn a_step_in_mixed_precision_is_that_of_float32_but_for_rounding() -> Result<()> {
        // candle's processor multiplies matrices of float16, not of bfloat16.
        compare("ror-3-wrn-10-1", DType::F16, 0.02)?;
        compare("pytorchcv-ror-3-14", DType::F16, 0.02)
    }

    #[test]
    fn a_full_device_is_told_with_a_way_out() {
        let full =
            candle_core::Error::Msg("CUDNN_STATUS_DEVICE_ALLOCATION_FAILED\n 0: at".to_owned());
        let text = explained(full, 512).to_string();
        assert!(
            text.contains("512 images") && !text.contains("0: at"),
            "{text}"
        );
        let other = explained(candle_core::Error::Msg("no".to_owned()), 512);
        assert_eq!(other.to_string(), "no");
    }

    #[test]
    fn variables_elsewhere_are_refused() -> Result<()> {
        let network = Network::new(&Description::preset("ror-3-wrn-10-1").unwrap()).unwrap();
        let parameters = Parameters::init(&network, 1, DType::F64, &Device::Cpu)?;
        let engine = DeviceEngine::new(&network, &parameters, &Device::Cpu, Precision::F32);
        assert!(engine.is_err());
        Ok(())
    }
}
