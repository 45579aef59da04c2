//! Weights made ready to run on batches of images.

use crate::device::DeviceArg;
use crate::ranks;
use anyhow::{Context, Result, bail};
use candle_core::{DType, Device, Tensor};
use clap::ValueEnum;
use ror_data::{Normalisation, Size};
use ror_infer::{Engine, Input, Options};
use ror_models::{Description, Dialect, Family, Model, Network};
use ror_weights::Weights;
use std::path::Path;

/// How networks are run.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct EngineOptions {
    /// How to run the model: compiled for this processor, or operation by operation on candle, as on other devices
    /// [default: compiled]
    #[arg(long, value_enum, value_name = "ENGINE")]
    engine: Option<EngineKind>,
    /// Where to run it: cpu, cuda or cuda:N
    #[arg(long, default_value_t = DeviceArg::Cpu, value_name = "DEVICE")]
    device: DeviceArg,
    /// Threads of the compiled model [default: one per processor, or this rank's share of them]
    #[arg(long, value_name = "T", value_parser = crate::model::positive)]
    threads: Option<usize>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            engine: None,
            device: DeviceArg::Cpu,
            threads: None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum EngineKind {
    Compiled,
    Candle,
}

/// Options of a compilation for batches of that size.
pub(crate) fn compile_options(threads: Option<usize>, batch_size: usize) -> Options {
    let options = Options::default().batch_size(batch_size);
    options.threads(threads.unwrap_or_else(ranks::threads))
}

/// A model with what its inputs and outputs need.
pub(crate) struct Runner {
    pub(crate) description: Description,
    /// One name per class; the indices where the weights do not know names.
    pub(crate) class_names: Vec<String>,
    /// Whether the names came with the weights.
    pub(crate) named: bool,
    normalisation: Normalisation,
    /// What to say before the normalisation is used, where nothing but custom chose it.
    assumption: Option<String>,
    pub(crate) size: Size,
    /// To build the network again, changed or for images of another size.
    weights: Weights,
    network: Network,
    options: Options,
    backend: Backend,
    mirror: bool,
}

enum Backend {
    Compiled(Box<Engine>),
    Candle(Box<Model>, Device),
}

/// The engine of a network with these weights.
pub(crate) fn compile(network: &Network, weights: &Weights, options: &Options) -> Result<Engine> {
    let tensors = weights.var_builder(DType::F32, &Device::Cpu);
    Engine::compile(network, &tensors, options).context("cannot compile the model")
}

impl Runner {
    /// For batches of about `batch_size` images; `normalisation` overrides the weights' own.
    pub(crate) fn new(
        weights: Weights,
        normalisation: Option<Normalisation>,
        options: EngineOptions,
        batch_size: usize,
    ) -> Result<Self> {
        let network = weights.network()?;
        let (description, metadata) = (weights.description.clone(), weights.metadata.clone());
        let (engine, device) = (options.engine, options.device);
        let options = compile_options(options.threads, batch_size);
        let backend = match engine {
            Some(EngineKind::Compiled) if !device.is_cpu() => {
                bail!("--engine compiled runs on the processor, not on {device}")
            }
            Some(EngineKind::Compiled) | None if device.is_cpu() => {
                Backend::Compiled(Box::new(compile(&network, &weights, &options)?))
            }
            _ => {
                let device = device.open()?;
                Backend::Candle(Box::new(weights.model(DType::F32, &device)?), device)
            }
        };
        let known = match &metadata.normalisation {
            Some(n) => {
                let rgb = |values: &[f32]| -> Result<[f32; 3]> {
                    values
                        .try_into()
                        .context("the weights' normalisation is not for RGB")
                };
                Some(Normalisation {
                    mean: rgb(&n.mean)?,
                    std: rgb(&n.std)?,
                })
            }
            None => None,
        };
        let (normalisation, assumption) = match normalisation.or(known) {
            Some(normalisation) => (normalisation, None),
            None => {
                let (name, normalisation) = customary(&description);
                let note = format!(
                    "note: the weights do not say how images are normalised; taking {name} \
                     (--normalise overrides)"
                );
                (normalisation, Some(note))
            }
        };
        let [height, width] = description.image_size;
        let named = metadata.class_names.is_some();
        let class_names = metadata
            .class_names
            .unwrap_or_else(|| (0..description.classes).map(|i| i.to_string()).collect());
        Ok(Self {
            size: Size::new(height, width).context("the model's image size")?,
            description,
            class_names,
            named,
            normalisation,
            assumption,
            weights,
            network,
            options,
            backend,
            mirror: false,
        })
    }

    /// From now on, classifies each image together with its mirror image.
    pub(crate) fn mirror(&mut self) {
        self.mirror = true;
    }

    /// The network that runs.
    pub(crate) fn network(&self) -> &Network {
        &self.network
    }

    /// Runs another network, whose tensors are among the weights.
    pub(crate) fn set_network(&mut self, network: Network) -> Result<()> {
        match &mut self.backend {
            Backend::Compiled(engine) => {
                **engine = compile(&network, &self.weights, &self.options)?;
            }
            Backend::Candle(model, device) => {
                let tensors = self.weights.var_builder(DType::F32, device);
                **model = Model::new(&network, tensors)?;
            }
        }
        self.network = network;
        Ok(())
    }

    /// Whether the network that runs, with weights from `file`, tells classes apart.
    pub(crate) fn check_has_classes(&self, file: &Path) -> Result<()> {
        if self.network.head.classes.is_none() {
            bail!(
                "{} ends at the average pool and knows no classes",
                file.display()
            );
        }
        Ok(())
    }

    /// Whether inputs are red, green and blue.
    pub(crate) fn check_takes_pictures(&self) -> Result<()> {
        let channels = self.description.channels;
        if channels != 3 {
            bail!("the model takes images of {channels} channels, pictures have 3");
        }
        Ok(())
    }

    /// How pixels become inputs; says so where that is a guess.
    pub(crate) fn normalisation(&mut self) -> Normalisation {
        if let Some(assumption) = self.assumption.take() {
            crate::output::note(&assumption);
        }
        self.normalisation
    }

    /// Logits `(N, classes)` of `n` normalised images `(N, C, H, W)`; features without the top.
    pub(crate) fn logits(
        &mut self,
        images: &[f32],
        n: usize,
        (h, w): (usize, usize),
    ) -> Result<Vec<f32>> {
        let logits = self.forward(images, n, (h, w))?;
        if !self.mirror {
            return Ok(logits);
        }
        let rows = images.chunks_exact(w);
        let mirrored: Vec<f32> = rows.flat_map(|row| row.iter().rev().copied()).collect();
        let mirrored = self.forward(&mirrored, n, (h, w))?;
        let classes = self.outputs();
        let pairs = logits
            .chunks_exact(classes)
            .zip(mirrored.chunks_exact(classes));
        Ok(pairs
            .flat_map(|(image, mirrored)| averaged(&[image, mirrored].concat(), classes))
            .collect())
    }

    fn forward(&mut self, images: &[f32], n: usize, (h, w): (usize, usize)) -> Result<Vec<f32>> {
        match &mut self.backend {
            Backend::Candle(model, device) => {
                let shape = (n, self.description.channels, h, w);
                let x = Tensor::from_slice(images, shape, device)?;
                Ok(model.forward(&x)?.flatten_all()?.to_vec1()?)
            }
            Backend::Compiled(engine) => {
                if engine.image_shape() != (self.description.channels, h, w) {
                    self.options = self.options.clone().image_size(h, w);
                    **engine = compile(&self.network, &self.weights, &self.options)?;
                }
                let mut logits = vec![0.0; n * engine.outputs()];
                engine.run(Input::F32(images), &mut logits)?;
                Ok(logits)
            }
        }
    }

    /// How many numbers come out per image.
    pub(crate) fn outputs(&self) -> usize {
        let head = &self.network.head;
        head.classes.unwrap_or(head.features)
    }
}

/// What networks of this kind are trained on where nothing else is said.
fn customary(description: &Description) -> (&'static str, Normalisation) {
    match (description.dialect, description.family) {
        (Dialect::Keras, _) => ("`unit`, as the reference trains", Normalisation::unit()),
        (Dialect::Pytorchcv, _) => (
            "`pytorchcv-cifar`, as pytorchcv trains",
            Normalisation::pytorchcv_cifar(),
        ),
        (_, Family::ImageNet) => ("`imagenet`", Normalisation::imagenet()),
        _ => ("`cifar10`", Normalisation::cifar10()),
    }
}

/// Probabilities of one image's logits.
pub(crate) fn softmax(logits: &[f32]) -> Vec<f32> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exp: Vec<f64> = logits
        .iter()
        .map(|&l| (f64::from(l) - f64::from(largest)).exp())
        .collect();
    let sum: f64 = exp.iter().sum();
    exp.iter().map(|&e| (e / sum) as f32).collect()
}

/// Logits whose probabilities are the mean of the probabilities of several rows of logits.
pub(crate) fn averaged(rows: &[f32], classes: usize) -> Vec<f32> {
    let log_sum_exp = |values: &mut dyn Iterator<Item = f64>| {
        let values: Vec<f64> = values.collect();
        let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        largest + values.iter().map(|v| (v - largest).exp()).sum::<f64>().ln()
    };
    let rows: Vec<&[f32]> = rows.chunks_exact(classes).collect();
    let totals: Vec<f64> = rows
        .iter()
        .map(|row| log_sum_exp(&mut row.iter().map(|&l| f64::from(l))))
        .collect();
    let count = (rows.len() as f64).ln();
    (0..classes)
        .map(|class| {
            let logs = rows.iter().zip(&totals);
            let mut logs = logs.map(|(row, total)| f64::from(row[class]) - total);
            (log_sum_exp(&mut logs) - count) as f32
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_averaged_not_logits() {
        let rows = [0.8f32, 0.2, 0.4, 0.6].map(f32::ln);
        // A constant on a row's logits changes nothing.
        let shifted = [rows[0] + 90.0, rows[1] + 90.0, rows[2], rows[3]];
        for (found, expected) in averaged(&shifted, 2).iter().zip([0.6f32, 0.4]) {
            assert!((found.exp() - expected).abs() < 1e-5, "{found}");
        }
        // Nor does a class that one row rules out.
        let far = averaged(&[0.0, -2000.0, 0.0, 0.0], 2);
        assert!((far[1].exp() - 0.25).abs() < 1e-6, "{far:?}");
    }
}
