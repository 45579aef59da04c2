//! Placing a Keras file's layers in a network.

use std::collections::{BTreeMap, HashMap};

use ror_models::blocks::{Block, Layer, Shape3};
use ror_models::{Network, Placed, TensorRole, TensorSpec, Visit};

use super::config::Config;
use super::layers::{Kind, Layers, WeightedLayer};
use super::names;
use crate::array::Array;
use crate::error::{ErrorKind, Result};

/// The tensors of a file of ours, by the network's names; layers of other names keep theirs.
pub(super) fn by_name(network: &Network, layers: Layers) -> BTreeMap<String, Array> {
    let mut by_layer: HashMap<String, Vec<Array>> = layers
        .weighted
        .into_iter()
        .map(|l| (l.name, l.arrays))
        .collect();
    let mut tensors = BTreeMap::new();
    for specs in layers_of(&network.tensors()) {
        let arrays = by_layer
            .remove(&names::keras_name(path(&specs[0])))
            .unwrap_or_default();
        for (i, array) in arrays.into_iter().enumerate() {
            let name = specs
                .get(i)
                .map_or_else(|| array.name.clone(), |s| s.name.clone());
            tensors.insert(name, array);
        }
    }
    // Identities that stand for a shortcut's zero padding are no weights.
    by_layer.retain(|name, _| !names::is_padding(name));
    tensors.extend(
        by_layer
            .into_values()
            .flatten()
            .map(|a| (a.name.clone(), a)),
    );
    tensors
}

/// Hands out the layers of each kind in the order of computation, and checks every shape.
pub(super) fn in_order(
    network: &Network,
    layers: Layers,
    config: &Config,
) -> Result<BTreeMap<String, Array>> {
    let model = network.description.to_string();
    let strides = strides(network);
    let mut order = names::OrderCheck::default();
    let mut queues = layers.into_queues();
    let mut tensors = BTreeMap::new();
    for specs in layers_of(&network.tensors()) {
        let path = path(&specs[0]);
        let missing = |spec: &TensorSpec| ErrorKind::Missing {
            tensor: spec.name.clone(),
            shape: spec.shape.clone(),
            model: model.clone(),
        };
        let layer = queues
            .next(kind(&specs[0]))
            .ok_or_else(|| missing(&specs[0]))?;
        order.check(&layer, path)?;
        for (spec, array) in specs.iter().zip(&layer.arrays) {
            if spec.shape != array.shape {
                return Err(ErrorKind::Shape {
                    tensor: spec.name.clone(),
                    stored: array.name.clone(),
                    expected: spec.shape.clone(),
                    found: array.shape.clone(),
                    model,
                });
            }
        }
        if let Some(spec) = specs.get(layer.arrays.len()) {
            return Err(missing(spec));
        }
        if let Some(array) = layer.arrays.get(specs.len()) {
            return Err(surplus(array, &model));
        }
        if layer.named
            && let (Some(&expected), Some(found)) = (strides.get(path), config.strides(&layer.name))
            && found != [expected as u64; 2]
        {
            return Err(ErrorKind::Architecture(format!(
                "layer `{}`, in the place of `{path}`, strides by {found:?}, `{model}` by \
                 {expected}",
                layer.name
            )));
        }
        tensors.extend(specs.iter().map(|s| s.name.clone()).zip(layer.arrays));
    }
    check_survivals(network, config)?;
    match queues.left() {
        Some(WeightedLayer { arrays, .. }) => Err(surplus(&arrays[0], &model)),
        None => Ok(tensors),
    }
}

/// Whether the residuals that the configuration scales are those of blocks that may be dropped.
fn check_survivals(network: &Network, config: &Config) -> Result<()> {
    struct Collect(Vec<f64>);
    impl Visit for Collect {
        fn enter_block(&mut self, _: &str, block: &Block, _: Shape3) {
            if block.survival < 1.0 {
                self.0.push(block.survival);
            }
        }
    }
    let found = config.survivals();
    if found.is_empty() {
        return Ok(());
    }
    let mut collect = Collect(Vec::new());
    // The network was expanded, which includes this walk: it cannot fail.
    let _ = network.walk(&mut collect);
    let mut expected = collect.0;
    expected.sort_by(f64::total_cmp);
    expected.dedup();
    let close = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-6;
    if found.len() != expected.len() || !found.iter().zip(&expected).all(close) {
        return Err(ErrorKind::Architecture(format!(
            "its residuals are scaled by {found:.3?}, those of `{}` by {expected:.3?}",
            network.description
        )));
    }
    Ok(())
}

fn surplus(array: &Array, model: &str) -> ErrorKind {
    ErrorKind::Surplus {
        tensor: array.name.clone(),
        shape: array.shape.clone(),
        model: model.to_owned(),
    }
}

/// Tensors of one layer stand together.
fn layers_of(specs: &[TensorSpec]) -> impl Iterator<Item = &[TensorSpec]> {
    specs.chunk_by(|a, b| path(a) == path(b))
}

/// The layer that a tensor belongs to.
fn path(spec: &TensorSpec) -> &str {
    spec.name.rsplit_once('.').map_or("", |(path, _)| path)
}

fn kind(first: &TensorSpec) -> Kind {
    match first.role {
        TensorRole::DenseWeight | TensorRole::DenseBias => Kind::Dense,
        TensorRole::ConvWeight if first.shape[2..] == [1, 1] => Kind::Pointwise,
        TensorRole::ConvWeight | TensorRole::ConvBias => Kind::Spatial,
        _ => Kind::Norm,
    }
}

/// The stride of each convolution.
fn strides(network: &Network) -> HashMap<String, usize> {
    struct Collect(HashMap<String, usize>);
    impl Visit for Collect {
        fn layer(&mut self, placed: Placed) {
            if let Layer::Conv { stride, .. } = *placed.layer {
                self.0.insert(placed.path.to_owned(), stride);
            }
        }
    }
    let mut collect = Collect(HashMap::new());
    // The network was expanded, which includes this walk: it cannot fail.
    let _ = network.walk(&mut collect);
    collect.0
}
