//! Steps of training on images that mean nothing.

use anyhow::{Context, Result};
use candle_core::{DType, Device};
use ror_models::blocks::Noise;
use ror_models::{Network, Parameters};
use ror_train::{
    Batch, DeviceEngine, Engine, FlatLayout, Gradients, KernelEngine, Optimizer, OptimizerConfig,
    Precision,
};
use ror_weights::Weights;
use std::sync::Arc;

/// Too small for a network to be torn apart by noise, however long it is measured.
const LEARNING_RATE: f64 = 1e-6;

/// What computes.
pub(super) enum Place {
    /// The processor, on so many threads.
    Kernels(usize),
    /// Another device.
    Device(Device, Precision),
}

/// A network in training, with one batch.
pub(super) struct Training {
    parameters: Parameters,
    engine: Box<dyn Engine>,
    optimizer: Optimizer,
    gradients: Gradients,
    batch: Batch,
    noise: Noise,
}

impl Training {
    /// With these weights or random ones, on `images` (N, C, H, W).
    pub(super) fn new(
        network: &Network,
        weights: Option<&Weights>,
        images: Vec<f32>,
        place: Place,
    ) -> Result<Self> {
        let parameters = match weights {
            Some(weights) => {
                let tensors = weights.var_builder(DType::F32, &Device::Cpu);
                Parameters::from_tensors(network, &tensors)?
            }
            None => Parameters::init(network, 1, DType::F32, &Device::Cpu)?,
        };
        let shape = network.input_shape();
        let n = images.len() / shape.elements();
        let classes = network.head.classes.unwrap_or(network.head.features);
        let mut targets = vec![0.0; n * classes];
        for (i, row) in targets.chunks_exact_mut(classes).enumerate() {
            row[i % classes] = 1.0;
        }
        let engine: Box<dyn Engine> = match place {
            Place::Kernels(threads) => {
                let engine = KernelEngine::new(network, &parameters, threads)
                    .context("cannot compile the model for training")?;
                Box::new(engine.for_batches_of(n))
            }
            Place::Device(device, precision) => {
                let engine = DeviceEngine::new(network, &parameters, &device, precision);
                Box::new(engine.context("cannot bring the model to the device")?)
            }
        };
        let layout = Arc::new(FlatLayout::new(&parameters));
        Ok(Self {
            engine,
            optimizer: Optimizer::new(OptimizerConfig::default(), layout.clone())?,
            gradients: Gradients::new(layout),
            batch: Batch {
                images,
                shape: [n, shape.channels, shape.height, shape.width],
                targets,
                labels: (0..n).map(|i| (i % classes) as u32).collect(),
                whole: n,
            },
            noise: Noise::seeded(1),
            parameters,
        })
    }

    /// Forwards, backwards, SGD.
    pub(super) fn step(&mut self) -> Result<()> {
        self.engine
            .forward_backward(&self.batch, &self.noise, &mut self.gradients)?;
        self.optimizer
            .step(&self.parameters, &self.gradients, LEARNING_RATE)?;
        Ok(())
    }
}
