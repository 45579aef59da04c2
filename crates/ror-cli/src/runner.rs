//! Weights made ready to run on batches of images.

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use ror_data::{Normalisation, Size};
use ror_models::{Description, Dialect, Family, Model};
use ror_weights::Weights;

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
    model: Model,
    features: usize,
}

impl Runner {
    /// `normalisation` overrides the weights' own.
    pub(crate) fn new(weights: Weights, normalisation: Option<Normalisation>) -> Result<Self> {
        let model = weights.model(DType::F32, &Device::Cpu)?;
        let features = weights.network()?.head.features;
        let Weights {
            description,
            metadata,
            ..
        } = weights;
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
            model,
            features,
        })
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
        &self,
        images: &[f32],
        n: usize,
        (h, w): (usize, usize),
    ) -> Result<Vec<f32>> {
        let x = Tensor::from_slice(images, (n, self.description.channels, h, w), &Device::Cpu)?;
        Ok(self.model.forward(&x)?.flatten_all()?.to_vec1()?)
    }

    /// How many numbers come out per image.
    pub(crate) fn outputs(&self) -> usize {
        if self.description.top {
            self.description.classes
        } else {
            self.features
        }
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
