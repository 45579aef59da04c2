use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use ror_models::{Description, Network};

use crate::array::Array;
use crate::content::{self, Content};
use crate::error::{Result, WeightsError};
use crate::keras;
use crate::named;
use crate::weights::{Format, Metadata, Weights};

/// What the caller of [`load`] knows better than the file.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// The network, in place of the one that the file describes or its tensors tell; what a file says
    /// of its batch norms stays.
    pub model: Option<Description>,
    /// Whose convention a Keras file's kernels follow, in place of what the file says.
    ///
    /// Keras 1 does not say: weights alone carry no backend, whole models no more than the
    /// version. Their kernels are taken as Theano's where they are O,I,H,W, as TensorFlow's where
    /// they are H,W,I,O, with a note. Theano with `dim_ordering="tf"` also wrote H,W,I,O: such
    /// files need [`Kernels::Theano`] here.
    pub kernels: Option<Kernels>,
}

/// Whose convention a Keras file's kernels follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernels {
    /// Convolution: kernels are rotated by 180 degrees when they are read.
    Theano,
    /// Cross-correlation, as every backend but Theano computes.
    TensorFlow,
}

/// What is found in a file of any format.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) description: Description,
    pub(crate) metadata: Metadata,
    /// By the network's names, in its axis order; complete.
    pub(crate) tensors: BTreeMap<String, Array>,
    pub(crate) notes: Vec<String>,
    pub(crate) format: Format,
}

/// Reads a weight file of any format, recognised by its content, into the network that it belongs
/// to.
///
/// Every tensor of the network must be there, once and in its shape, and nothing else. Where the
/// file does not describe its network, it is inferred from names and shapes.
///
/// # Errors
/// A file that cannot be read or is no weight file, and tensors that are missing, surplus,
/// misshapen or not finite; the error names the file and the tensor.
///
/// # Example
/// ```no_run
/// use candle_core::{DType, Device};
/// use ror_weights::{LoadOptions, load};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let weights = load("weights/ror_wrn_40_2.h5".as_ref(), &LoadOptions::default())?;
/// println!("{} from {}", weights.description, weights.format);
/// let model = weights.model(DType::F32, &Device::Cpu)?;
/// # Ok(())
/// # }
/// ```
pub fn load(path: &Path, options: &LoadOptions) -> Result<Weights, WeightsError> {
    place(content::read(path), options).map_err(|kind| WeightsError::new(path, kind))
}

/// As [`load`], from the bytes of a file; `name` is what errors call it.
///
/// # Errors
/// As [`load`].
pub fn load_bytes(
    name: &Path,
    bytes: Vec<u8>,
    options: &LoadOptions,
) -> Result<Weights, WeightsError> {
    place(content::parse(bytes), options).map_err(|kind| WeightsError::new(name, kind))
}

fn place(content: Result<Content>, options: &LoadOptions) -> Result<Weights> {
    finish(match content? {
        Content::Keras(file) => keras::import(file, options)?,
        Content::Named(file) => named::import(file, options)?,
    })
}

fn finish(found: Found) -> Result<Weights> {
    found.metadata.check(&found.description)?;
    let tensors = found
        .tensors
        .into_iter()
        .map(|(name, array)| {
            Ok((
                name,
                Tensor::from_vec(array.data, array.shape, &Device::Cpu)?,
            ))
        })
        .collect::<Result<_>>()?;
    Ok(Weights {
        description: found.description,
        metadata: found.metadata,
        tensors,
        notes: found.notes,
        format: found.format,
    })
}

/// The network of `description`, which tensors are about to be placed in.
pub(crate) fn network(description: &Description) -> Result<Network> {
    Ok(Network::new(description)?)
}
