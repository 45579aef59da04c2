//! Tensors by name as plain numbers, checked.

use crate::graph::Filters;
use crate::{Error, Result};
use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use ror_ops::kernels::Geometry;

/// A batch normalisation with its statistics: `x * scale + shift` per channel.
#[derive(Debug, Clone)]
pub(crate) struct Affine {
    pub scale: Vec<f32>,
    pub shift: Vec<f32>,
}

/// Where tensors come from.
pub(crate) struct Tensors<'a> {
    vb: &'a VarBuilder<'a>,
    epsilon: f64,
}

impl<'a> Tensors<'a> {
    pub(crate) fn new(vb: &'a VarBuilder<'a>, epsilon: f64) -> Self {
        Self { vb, epsilon }
    }

    /// The values of a tensor of that shape, all finite.
    pub(crate) fn get(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let values = self
            .vb
            .get(shape, name)
            .and_then(|t| t.to_device(&Device::Cpu)?.to_dtype(DType::F32))
            .and_then(|t| t.flatten_all()?.to_vec1())
            .map_err(|source| Error::Tensor {
                name: name.to_owned(),
                source,
            })?;
        check(name, &values, f32::is_finite)?;
        Ok(values)
    }

    pub(crate) fn filters(&self, path: &str, geometry: Geometry, bias: bool) -> Result<Filters> {
        let Geometry {
            inputs,
            outputs,
            kernel: (kh, kw),
            ..
        } = geometry;
        Ok(Filters {
            geometry,
            weight: self.get(&format!("{path}.weight"), &[outputs, inputs, kh, kw])?,
            bias: if bias {
                self.get(&format!("{path}.bias"), &[outputs])?
            } else {
                vec![0.0; outputs]
            },
        })
    }

    pub(crate) fn norm(&self, path: &str, channels: usize) -> Result<Affine> {
        let get = |name: &str| self.get(&format!("{path}.{name}"), &[channels]);
        let (gamma, beta) = (get("weight")?, get("bias")?);
        let (mean, variance) = (get("running_mean")?, get("running_var")?);
        let rooted = |v: f32| f64::from(v) + self.epsilon > 0.0;
        check(&format!("{path}.running_var"), &variance, rooted)?;
        let scale: Vec<f64> = gamma
            .iter()
            .zip(&variance)
            .map(|(&g, &v)| f64::from(g) / (f64::from(v) + self.epsilon).sqrt())
            .collect();
        let shift = beta.iter().zip(&mean).zip(&scale);
        let shift: Vec<f32> = shift
            .map(|((&b, &m), s)| (f64::from(b) - f64::from(m) * s) as f32)
            .collect();
        let scale: Vec<f32> = scale.iter().map(|&s| s as f32).collect();
        check(&format!("{path} (folded)"), &scale, f32::is_finite)?;
        check(&format!("{path} (folded)"), &shift, f32::is_finite)?;
        Ok(Affine { scale, shift })
    }
}

fn check(name: &str, values: &[f32], good: impl Fn(f32) -> bool) -> Result<()> {
    match values.iter().position(|&v| !good(v)) {
        None => Ok(()),
        Some(index) => Err(Error::NotFinite {
            name: name.to_owned(),
            index,
            value: values[index],
        }),
    }
}
