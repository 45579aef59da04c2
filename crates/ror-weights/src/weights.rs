use std::collections::{BTreeMap, HashMap};
use std::fmt;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use ror_models::{Description, DescriptionError, Model, Network};

use crate::array::Array;
use crate::error::{ErrorKind, Result};

/// A network's weights, complete and of the right shapes, and what is known about them.
#[derive(Debug, Clone)]
pub struct Weights {
    /// The network they belong to.
    pub description: Description,
    /// What travels with them.
    pub metadata: Metadata,
    /// The tensors that [`Network::tensors`] names, float32 on the CPU.
    pub tensors: BTreeMap<String, Tensor>,
    /// What had to be assumed or left out in reading them, in sentences.
    pub notes: Vec<String>,
    /// What they were read from.
    pub format: Format,
}

impl Weights {
    /// The network they belong to.
    ///
    /// # Errors
    /// A description that was changed into one of no network.
    pub fn network(&self) -> Result<Network, DescriptionError> {
        Network::new(&self.description)
    }

    /// The tensors, for [`Model::new`] and [`ror_models::Parameters::from_tensors`].
    pub fn var_builder(&self, dtype: DType, device: &Device) -> VarBuilder<'static> {
        let tensors: HashMap<_, _> = self.tensors.clone().into_iter().collect();
        VarBuilder::from_tensors(tensors, dtype, device)
    }

    /// The model with these weights.
    ///
    /// # Errors
    /// A device that cannot hold it, or a field that was changed so that the others contradict it.
    pub fn model(&self, dtype: DType, device: &Device) -> candle_core::Result<Model> {
        let network = self.network().map_err(candle_core::Error::wrap)?;
        Model::new(&network, self.var_builder(dtype, device))
    }

    /// The values of the tensor `name`, row-major, all finite.
    pub(crate) fn values(&self, name: &str) -> Result<Vec<f32>> {
        let tensor = self.tensors.get(name).ok_or_else(|| {
            ErrorKind::Architecture(format!("`{}` has no tensor `{name}`", self.description))
        })?;
        let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        Ok(Array::new(name.to_owned(), tensor.dims().to_vec(), values)?.data)
    }
}

/// What travels with weights beside the network's description.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata {
    /// The classes' names, in the order of the logits.
    pub class_names: Option<Vec<String>>,
    /// How inputs were normalised in training.
    pub normalisation: Option<Normalisation>,
    /// Anything else that the file says: the training recipe, the accuracy, the data's name.
    pub extra: BTreeMap<String, String>,
}

impl Metadata {
    /// Checks that it fits the network described.
    pub(crate) fn check(&self, description: &Description) -> Result<()> {
        if let Some(names) = &self.class_names
            && names.len() != description.classes
        {
            return Err(ErrorKind::Metadata {
                what: "class names",
                expected: format!("{}, as the network has classes", description.classes),
                found: names.len().to_string(),
            });
        }
        if let Some(Normalisation { mean, std }) = &self.normalisation {
            let channels = description.channels;
            let valid = mean.len() == channels
                && std.len() == channels
                && mean.iter().all(|m| m.is_finite())
                && std.iter().all(|s| s.is_finite() && *s > 0.0);
            if !valid {
                return Err(ErrorKind::Metadata {
                    what: "normalisation",
                    expected: format!(
                        "a mean and a positive deviation for each of {channels} channels"
                    ),
                    found: format!("{mean:?} and {std:?}"),
                });
            }
        }
        Ok(())
    }
}

/// How images become inputs: `(pixel - mean) / std` per channel, of pixels scaled to 0..1.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Normalisation {
    /// Subtracted, one per channel.
    pub mean: Vec<f32>,
    /// Divided by, one per channel.
    pub std: Vec<f32>,
}

/// What kind of file weights came from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// Keras HDF5 in the layout of Keras 1 and 2.
    KerasHdf5 {
        /// The version of Keras, where the file says it.
        version: Option<String>,
        /// Whether it holds the whole model.
        whole_model: bool,
    },
    /// Keras's newer `.weights.h5`.
    KerasWeights,
    /// `.keras`.
    KerasArchive {
        /// The version of Keras.
        version: Option<String>,
    },
    /// A PyTorch state dict.
    Pytorch {
        /// Whether it is in the format before torch 1.6, which is no zip archive.
        legacy: bool,
    },
    /// safetensors.
    Safetensors {
        /// Whether it describes its network, as [`save_safetensors`](crate::save_safetensors) does.
        described: bool,
    },
    /// None: made in this program.
    Memory,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keras = |version: &Option<String>| match version {
            Some(version) => format!("Keras {version}"),
            None => "Keras".to_owned(),
        };
        match self {
            Self::KerasHdf5 {
                version,
                whole_model,
            } => {
                let what = if *whole_model { "model" } else { "weights" };
                write!(f, "{} HDF5 {what}", keras(version))
            }
            Self::KerasWeights => f.write_str("Keras .weights.h5"),
            Self::KerasArchive { version } => write!(f, "{} .keras", keras(version)),
            Self::Pytorch { legacy: false } => f.write_str("PyTorch state dict"),
            Self::Pytorch { legacy: true } => f.write_str("PyTorch state dict (before torch 1.6)"),
            Self::Safetensors { described: true } => f.write_str("safetensors"),
            Self::Safetensors { described: false } => f.write_str("bare safetensors"),
            Self::Memory => f.write_str("memory"),
        }
    }
}
