//! Parameters that begin as those of trained weights.

use crate::error::{Result, TrainError};
use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use ror_models::blocks::BatchNormConfig;
use ror_models::{Description, Network, Parameters, TensorRole};
use ror_weights::{Weights, first_difference};
use std::collections::HashMap;

/// The variables of `network` with the values of `weights`, for fine-tuning; whether the classifier
/// begins anew from `seed`, because it is for another number of classes.
///
/// # Errors
/// Weights of a network that differs in more than its classes, its dropout, its stochastic depth or
/// the size of its images.
pub fn fine_tuning(network: &Network, weights: &Weights, seed: u64) -> Result<(Parameters, bool)> {
    let (ours, theirs) = (&network.description, &weights.description);
    if comparable(ours) != comparable(theirs) {
        let difference = first_difference(&comparable(theirs), &comparable(ours));
        return Err(TrainError::Config(format!(
            "the weights are those of another network: {theirs}, not {ours} ({})",
            difference.unwrap_or_default()
        )));
    }
    let device = Device::Cpu;
    let fresh = Parameters::init(network, seed, DType::F32, &device)?;
    let mut tensors = HashMap::new();
    let mut replaced = false;
    for (name, role, var) in fresh.iter() {
        let top = matches!(role, TensorRole::DenseWeight | TensorRole::DenseBias);
        let tensor = match weights.tensors.get(name) {
            Some(tensor) if tensor.dims() == var.dims() => tensor.clone(),
            _ if top => {
                replaced = true;
                var.as_detached_tensor()
            }
            found => {
                let found = found.map_or("nothing".to_owned(), |t| format!("{:?}", t.dims()));
                return Err(TrainError::Config(format!(
                    "`{name}`: expected the shape {:?}, found {found}",
                    var.dims()
                )));
            }
        };
        tensors.insert(name.to_owned(), tensor);
    }
    let vb = VarBuilder::from_tensors(tensors, DType::F32, &device);
    Ok((Parameters::from_tensors(network, &vb)?, replaced))
}

/// Without what weights do not depend on, such as how running statistics are updated.
fn comparable(description: &Description) -> Description {
    Description {
        norm: BatchNormConfig {
            epsilon: description.norm.epsilon,
            ..BatchNormConfig::PYTORCH
        },
        classes: 1,
        image_size: [4, 4],
        dropout: 0.0,
        stochastic_depth: None,
        top: true,
        ..description.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flat;
    use ror_weights::{Format, Metadata};

    fn network(preset: &str, classes: usize) -> Network {
        let description = Description::preset(preset).unwrap().with_classes(classes);
        Network::new(&description).unwrap()
    }

    fn weights(network: &Network) -> Weights {
        let parameters = Parameters::init(network, 9, DType::F32, &Device::Cpu).unwrap();
        let tensors = parameters.iter();
        Weights {
            description: network.description.clone(),
            metadata: Metadata::default(),
            tensors: tensors
                .map(|(name, _, var)| (name.to_owned(), var.as_detached_tensor()))
                .collect(),
            notes: Vec::new(),
            format: Format::Memory,
        }
    }

    fn values(parameters: &Parameters, name: &str) -> Vec<f32> {
        flat::read(parameters.get(name).unwrap(), <[f32]>::to_vec).unwrap()
    }

    #[test]
    fn another_number_of_classes_replaces_the_classifier_alone() {
        let weights = weights(&network("ror-3-wrn-10-1", 10));
        for (classes, expected) in [(10, false), (3, true)] {
            let network = network("ror-3-wrn-10-1", classes);
            let (parameters, replaced) = fine_tuning(&network, &weights, 1).unwrap();
            assert_eq!(replaced, expected);
            let stem = weights.tensors["stem.conv.weight"].flatten_all().unwrap();
            assert_eq!(
                values(&parameters, "stem.conv.weight"),
                stem.to_vec1::<f32>().unwrap()
            );
            assert_eq!(values(&parameters, "head.dense.bias").len(), classes);
        }
    }

    #[test]
    fn training_starts_from_copies() {
        let network = network("ror-3-wrn-10-1", 10);
        let weights = weights(&network);
        let (parameters, _) = fine_tuning(&network, &weights, 1).unwrap();
        flat::update(parameters.get("head.dense.bias").unwrap(), |b| b.fill(7.0)).unwrap();
        let kept = weights.tensors["head.dense.bias"].to_vec1::<f32>().unwrap();
        assert!(kept.iter().all(|&b| b != 7.0));
    }

    #[test]
    fn weights_of_another_network_are_refused() {
        let weights = weights(&network("ror-3-wrn-10-1", 10));
        for preset in ["ror-3-wrn-10-2", "ror-3-wrn-16-1", "keras-ror-3-wrn-10-1"] {
            assert!(
                fine_tuning(&network(preset, 10), &weights, 1).is_err(),
                "{preset}"
            );
        }
    }
}
