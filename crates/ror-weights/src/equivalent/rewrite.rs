//! One network's weights for the layers of another that has the same steps.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use ror_models::{Network, TensorRole, TensorSpec};

use crate::array::Array;
use crate::error::{ErrorKind, Result};
use crate::weights::Weights;

/// Values by tensor; in float64, so that they round once.
type Values = BTreeMap<String, Vec<f64>>;

/// The tensors of `to`, where `weights` are those of `from`. A shortcut that `from` computes
/// without weights gets weights that change nothing; a tensor that `to` has no place for is an
/// error, which `surplus` makes.
pub(super) fn rewrite(
    weights: &Weights,
    from: &Network,
    to: &Network,
    surplus: impl FnOnce(&str) -> ErrorKind,
) -> Result<BTreeMap<String, Tensor>> {
    let mut values: Values = from
        .tensors()
        .into_iter()
        .map(|spec| {
            let values = weights.values(&spec.name)?;
            Ok((spec.name, values.into_iter().map(f64::from).collect()))
        })
        .collect::<Result<_>>()?;
    change_epsilon(&mut values, from, to);
    multiply_survivals(&mut values, from, to);
    let epsilon = to.norm().epsilon;
    let tensors = to
        .tensors()
        .into_iter()
        .map(|spec| {
            let values = values
                .remove(&spec.name)
                .unwrap_or_else(|| neutral(&spec, epsilon));
            let values = values.into_iter().map(|v| v as f32).collect();
            let array = Array::new(spec.name, spec.shape, values)?;
            let tensor = Tensor::from_vec(array.data, array.shape, &Device::Cpu)?;
            Ok((array.name, tensor))
        })
        .collect::<Result<_>>()?;
    match values.keys().next() {
        Some(name) => Err(surplus(name)),
        None => Ok(tensors),
    }
}

/// `gamma / sqrt(variance + epsilon)` stays.
fn change_epsilon(values: &mut Values, from: &Network, to: &Network) {
    let [before, after] = [from, to].map(|network| network.norm().epsilon);
    if before == after {
        return;
    }
    for spec in from.tensors() {
        let Some(norm) = spec.name.strip_suffix(".running_var") else {
            continue;
        };
        let ratios: Vec<f64> = values[&spec.name]
            .iter()
            .map(|variance| ((variance + after) / (variance + before)).sqrt())
            .collect();
        if let Some(gamma) = values.get_mut(&format!("{norm}.weight")) {
            gamma
                .iter_mut()
                .zip(ratios)
                .for_each(|(g, ratio)| *g *= ratio);
        }
    }
}

/// Scales the last layer of every block by what its survival changes.
fn multiply_survivals(values: &mut Values, from: &Network, to: &Network) {
    for ((path, before), (_, after)) in from.blocks().into_iter().zip(to.blocks()) {
        let factor = before.survival / after.survival;
        let Some(last) = before.body.last().filter(|_| factor != 1.0) else {
            continue;
        };
        for tensor in ["weight", "bias"] {
            let name = format!("{path}.{}.{tensor}", last.name);
            if let Some(values) = values.get_mut(&name) {
                values.iter_mut().for_each(|value| *value *= factor);
            }
        }
    }
}

/// The values with which a shortcut's layer passes its input on, with zeros for missing channels.
fn neutral(spec: &TensorSpec, epsilon: f64) -> Vec<f64> {
    let count = spec.shape.iter().product();
    let everywhere = |value| vec![value; count];
    match spec.role {
        TensorRole::ConvWeight => {
            let inputs = spec.shape[1];
            let copies = |i: usize| i / inputs == i % inputs;
            (0..count).map(|i| f64::from(u8::from(copies(i)))).collect()
        }
        TensorRole::NormScale => everywhere((1.0 + epsilon).sqrt()),
        TensorRole::RunningVariance => everywhere(1.0),
        _ => everywhere(0.0),
    }
}
