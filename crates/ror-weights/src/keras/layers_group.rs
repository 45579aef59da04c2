//! The HDF5 layout of `.weights.h5` and of `model.weights.h5` inside `.keras` (tf.keras 2.12 and
//! later, Keras 3).
//!
//! Weights are datasets `layers/<class>[_k]/vars/<i>`, where `<class>` is the layer's class in
//! snake case and `k` counts the model's layers of that class, whatever their own names. Keras 3
//! adds the own name as the attribute `name` of `vars`. Source: `keras/src/saving/saving_lib.py`.

use hdf5::Group;

use super::hdf5_file::{Attributes, damaged, read_weight};
use super::names::split_number;
use super::{KerasFile, KerasLayer, LayerOrder};
use crate::array::Budget;
use crate::error::Result;

pub(super) fn read(root: &Group, budget: &mut Budget) -> Result<KerasFile> {
    let parent = root.group("layers").map_err(damaged)?;
    let mut groups: Vec<_> = parent
        .iter_groups()
        .map_err(damaged)?
        .map(|(key, group)| (split_number(&key), key, group))
        .collect();
    groups.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(KerasFile {
        layers: groups
            .into_iter()
            .map(|(_, key, group)| read_layer(key, &group, budget))
            .collect::<Result<_>>()?,
        order: LayerOrder::ByClass,
        backend: None,
        keras_version: None,
        config: None,
        text: None,
    })
}

fn read_layer(key: String, group: &Group, budget: &mut Budget) -> Result<KerasLayer> {
    let in_layer = |e: hdf5::Error| damaged(format_args!("layer `{key}`: {e}"));
    let vars = group.group("vars").map_err(in_layer)?;
    let count = vars.datasets().map_err(in_layer)?.len();
    let weights = (0..count)
        .map(|i| {
            let dataset = vars.dataset(&i.to_string()).map_err(in_layer)?;
            read_weight(&dataset, &format!("layers/{key}/vars/{i}"), budget)
        })
        .collect::<Result<_>>()?;
    let own = Attributes::of(&vars)?.string("name")?;
    Ok(KerasLayer {
        named: own.is_some(),
        name: own.unwrap_or(key),
        weights,
    })
}
