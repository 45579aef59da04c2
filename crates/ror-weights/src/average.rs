//! The mean of several weights of one network.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};

use crate::error::{ErrorKind, Result};
use crate::weights::{Format, Weights};

impl Weights {
    /// The mean of each tensor over these weights and `others`, running statistics included.
    ///
    /// Weights that one training led to from another, or from the same start, often lie where the
    /// mean of them is better than each (Izmailov et al., 2018; *Model soups*, Wortsman et al.,
    /// 2022). Those from different starts have a mean that computes nothing.
    ///
    /// Class names and normalisation stay; what else the metadata said was of one file, and goes.
    ///
    /// # Errors
    /// [`ErrorKind::Architecture`] if another is of another network, [`ErrorKind::Metadata`] if it
    /// has other class names or another normalisation.
    pub fn average(&self, others: &[Self]) -> Result<Self> {
        for other in others {
            self.agrees_with(other)?;
        }
        let share = 1.0 / (1 + others.len()) as f64;
        let mean = |name: &String| -> Result<Tensor> {
            let mut sum = self.of(name)?;
            for other in others {
                sum = (sum + other.of(name)?)?;
            }
            Ok((sum * share)?.to_dtype(DType::F32)?)
        };
        let tensors = self
            .tensors
            .keys()
            .map(|name| Ok((name.clone(), mean(name)?)))
            .collect::<Result<_>>()?;
        let mut metadata = self.metadata.clone();
        metadata.extra = BTreeMap::new();
        Ok(Self {
            description: self.description.clone(),
            metadata,
            tensors,
            notes: Vec::new(),
            format: Format::Memory,
        })
    }

    fn agrees_with(&self, other: &Self) -> Result<()> {
        if self.description != other.description {
            return Err(ErrorKind::Architecture(format!(
                "`{}` and `{}` differ in their networks: their weights have no mean",
                self.description, other.description
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
        if ours.class_names != theirs.class_names {
            let text = |names: &Option<Vec<String>>| match names {
                Some(names) => names.join(", "),
                None => "none".to_owned(),
            };
            return differ(
                "class names",
                text(&ours.class_names),
                text(&theirs.class_names),
            );
        }
        if ours.normalisation != theirs.normalisation {
            let text = |n: &Option<_>| format!("{n:?}");
            return differ(
                "normalisation",
                text(&ours.normalisation),
                text(&theirs.normalisation),
            );
        }
        Ok(())
    }

    fn of(&self, name: &str) -> Result<Tensor> {
        let tensor = self.tensors.get(name).ok_or_else(|| {
            ErrorKind::Architecture(format!("`{}` has no tensor `{name}`", self.description))
        })?;
        Ok(tensor.to_dtype(DType::F64)?)
    }
}
