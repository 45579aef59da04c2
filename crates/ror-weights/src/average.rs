//! The mean of several weights of one network.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};
use ror_models::Description;

use crate::difference::first_difference;
use crate::error::{ErrorKind, Result};
use crate::weights::{Format, Metadata, Weights};

/// The mean of weights of one network, which are added one after the other: only the sum is held.
///
/// Weights that one training led to from another often lie where their mean is better than each
/// (Izmailov et al., 2018; *Model soups*, Wortsman et al., 2022). Those from different starts have
/// a mean that computes nothing. Running statistics are averaged too, not measured again.
///
/// ```no_run
/// use ror_weights::{LoadOptions, Mean, load};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut mean = Mean::of(&load("first.safetensors".as_ref(), &LoadOptions::default())?)?;
/// mean.add(&load("second.safetensors".as_ref(), &LoadOptions::default())?)?;
/// let weights = mean.weights()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Mean {
    description: Description,
    metadata: Metadata,
    sum: BTreeMap<String, Tensor>,
    count: u32,
}

impl Mean {
    /// Begins with one network's weights.
    ///
    /// # Errors
    /// Tensors that cannot be read.
    pub fn of(first: &Weights) -> Result<Self> {
        let wide =
            |(name, tensor): (&String, &Tensor)| Ok((name.clone(), tensor.to_dtype(DType::F64)?));
        Ok(Self {
            description: first.description.clone(),
            metadata: Metadata {
                extra: BTreeMap::new(),
                ..first.metadata.clone()
            },
            sum: first.tensors.iter().map(wide).collect::<Result<_>>()?,
            count: 1,
        })
    }

    /// Adds other weights of the network. On an error nothing has changed.
    ///
    /// # Errors
    /// [`ErrorKind::Architecture`] if they are of another network, though its dropout, which
    /// matters in training only, may differ; [`ErrorKind::Metadata`] if they have other class names
    /// or another normalisation.
    pub fn add(&mut self, other: &Weights) -> Result<()> {
        self.check(other)?;
        let add = |(name, sum): (&String, &Tensor)| {
            let tensor = other.tensors.get(name).ok_or_else(|| {
                ErrorKind::Architecture(format!("`{}` has no tensor `{name}`", other.description))
            })?;
            Ok((name.clone(), (sum + tensor.to_dtype(DType::F64)?)?))
        };
        self.sum = self.sum.iter().map(add).collect::<Result<_>>()?;
        self.count += 1;
        Ok(())
    }

    /// The mean of what was added, with the first's class names and normalisation. What else the
    /// metadata said was of one file, and is not kept.
    ///
    /// # Errors
    /// Tensors that cannot be made.
    pub fn weights(self) -> Result<Weights> {
        let share = 1.0 / f64::from(self.count);
        let mean = |(name, sum): (String, Tensor)| Ok((name, (sum * share)?.to_dtype(DType::F32)?));
        Ok(Weights {
            description: self.description,
            metadata: self.metadata,
            tensors: self.sum.into_iter().map(mean).collect::<Result<_>>()?,
            notes: Vec::new(),
            format: Format::Memory,
        })
    }

    fn check(&self, other: &Weights) -> Result<()> {
        let theirs = Description {
            dropout: self.description.dropout,
            ..other.description.clone()
        };
        if theirs != self.description {
            let difference = first_difference(&theirs, &self.description);
            return Err(ErrorKind::Architecture(format!(
                "`{theirs}` is another network than `{}` ({}): their weights have no mean",
                self.description,
                difference.unwrap_or_default()
            )));
        }
        let differ = |what, expected: String, found: String| {
            Err(ErrorKind::Metadata {
                what,
                expected,
                found,
            })
        };
        let (ours, theirs) = (&self.metadata, &other.metadata);
        let names = |metadata: &Metadata| metadata.class_names.clone().unwrap_or_default();
        let (our_names, their_names) = (names(ours), names(theirs));
        if our_names != their_names {
            let at = our_names.iter().zip(&their_names).position(|(a, b)| a != b);
            let of = |names: &[String]| match names.get(at.unwrap_or(0)) {
                Some(name) => format!("`{name}`"),
                None => "none".to_owned(),
            };
            return differ("class names", of(&our_names), of(&their_names));
        }
        if ours.normalisation != theirs.normalisation {
            let of = |metadata: &Metadata| match &metadata.normalisation {
                Some(n) => format!("mean {:?}, deviation {:?}", n.mean, n.std),
                None => "none".to_owned(),
            };
            return differ("normalisation", of(ours), of(theirs));
        }
        Ok(())
    }
}
