//! The HDF5 layout of Keras 1 and 2, which Keras 3 still writes as "legacy `.h5`".
//!
//! A weight group has an attribute `layer_names`, and a subgroup of each name with an attribute
//! `weight_names`: paths of datasets in that subgroup. `save_weights` makes the root such a group;
//! `save` puts it at `/model_weights`, beside the attributes `model_config` and `training_config`
//! and the group `/optimizer_weights`. Source: `keras/engine/topology.py` (Keras 1 and 2),
//! `keras/src/legacy/saving/legacy_h5_format.py`.

use std::collections::HashMap;

use hdf5::Group;

use super::hdf5_file::{Attributes, damaged, read_weight};
use super::{KerasFile, KerasLayer, LayerOrder};
use crate::array::Budget;
use crate::error::Result;
use crate::metadata;

/// Whether `group` lists layers.
pub(super) fn is_weight_group(group: &Group) -> Result<bool> {
    Ok(Attributes::of(group)?.has_list("layer_names"))
}

/// Reads a file whose root is a weight group.
pub(super) fn read_weights(root: &Group, budget: &mut Budget) -> Result<KerasFile> {
    let attributes = Attributes::of(root)?;
    let layer_names = attributes
        .strings("layer_names")?
        .ok_or_else(|| damaged("a weight group has no attribute `layer_names`"))?;
    // All at once: looking for one reads the names of all. What is not among them is looked for.
    let groups: HashMap<String, Group> = root
        .iter_groups()
        .map(Iterator::collect)
        .unwrap_or_default();
    Ok(KerasFile {
        layers: layer_names
            .into_iter()
            .map(|name| {
                let group = match groups.get(&name) {
                    Some(group) => group.clone(),
                    None => in_layer(&name, root.group(&name))?,
                };
                read_layer(&group, name, budget)
            })
            .collect::<Result<_>>()?,
        order: LayerOrder::Model,
        backend: attributes.string("backend")?,
        keras_version: attributes.string("keras_version")?,
        config: None,
        text: attributes.string(metadata::KEY)?,
    })
}

/// Reads a file that holds a whole model. Keras 1 states its version at the root only, later ones
/// here and there.
pub(super) fn read_whole_model(root: &Group, budget: &mut Budget) -> Result<KerasFile> {
    let attributes = Attributes::of(root)?;
    let file = read_weights(&root.group("model_weights").map_err(damaged)?, budget)?;
    let config = attributes
        .string("model_config")?
        .map(|json| serde_json::from_str(&json))
        .transpose()
        .map_err(|e| damaged(format_args!("attribute `model_config`: {e}")))?;
    Ok(KerasFile {
        backend: attributes.string("backend")?.or(file.backend),
        keras_version: attributes.string("keras_version")?.or(file.keras_version),
        config,
        text: attributes.string(metadata::KEY)?,
        ..file
    })
}

fn in_layer<T>(name: &str, read: Result<T, hdf5::Error>) -> Result<T> {
    read.map_err(|e| damaged(format_args!("layer `{name}`: {e}")))
}

fn read_layer(group: &Group, name: String, budget: &mut Budget) -> Result<KerasLayer> {
    let weight_names = Attributes::of(group)?
        .strings("weight_names")?
        .ok_or_else(|| {
            damaged(format_args!(
                "layer `{name}` has no attribute `weight_names`"
            ))
        })?;
    let weights = weight_names
        .iter()
        .map(|weight| read_weight(&in_layer(&name, group.dataset(weight))?, weight, budget))
        .collect::<Result<_>>()?;
    Ok(KerasLayer {
        name,
        named: true,
        weights,
    })
}
