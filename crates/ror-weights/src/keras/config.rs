//! What a model's `config` says about its layers, in any version of Keras.

use std::collections::HashMap;

use serde_json::Value;

use super::names;

/// The configurations of a functional model's layers, by name.
#[derive(Debug, Default)]
pub(super) struct Config<'a>(HashMap<&'a str, Layer<'a>>);

#[derive(Debug)]
struct Layer<'a> {
    class: &'a str,
    config: &'a Value,
}

impl<'a> Config<'a> {
    /// Of a whole model's configuration; empty for models of another kind.
    pub(super) fn of(model: Option<&'a Value>) -> Self {
        let layers = model.and_then(|m| m.get("config")?.get("layers")?.as_array());
        let entry = |layer: &'a Value| {
            let config = layer.get("config")?;
            let class = layer.get("class_name")?.as_str()?;
            Some((config.get("name")?.as_str()?, Layer { class, config }))
        };
        Self(layers.into_iter().flatten().filter_map(entry).collect())
    }

    /// The values that layers of `class` have for the first of `keys` they know, without
    /// repetition.
    pub(super) fn values(&self, class: &str, keys: &[&str]) -> Vec<f64> {
        let mut values: Vec<f64> = self
            .0
            .values()
            .filter(|l| l.class == class)
            .filter_map(|l| keys.iter().find_map(|k| l.config.get(k)?.as_f64()))
            .collect();
        values.sort_by(f64::total_cmp);
        values.dedup();
        values
    }

    /// By what the residuals of stochastic depth are multiplied in models of ours, which Keras may have
    /// saved again: in rising order, without repetition.
    pub(super) fn survivals(&self) -> Vec<f64> {
        let layers = self.0.iter();
        let mut survivals: Vec<f64> = layers
            .filter(|(name, l)| l.class == "Rescaling" && names::is_survival(name))
            .filter_map(|(_, l)| l.config.get("scale")?.as_f64())
            .collect();
        survivals.sort_by(f64::total_cmp);
        survivals.dedup();
        survivals
    }

    /// Rows and columns of the model's input of so many channels, where it states them.
    pub(super) fn image_size(&self, channels: usize) -> Option<[usize; 2]> {
        let mut inputs = self.0.values().filter(|l| l.class == "InputLayer");
        let (input, None) = (inputs.next()?.config, inputs.next()) else {
            return None;
        };
        let shape = input
            .get("batch_input_shape")
            .or_else(|| input.get("batch_shape"))?
            .as_array()?;
        let size = |value: &Value| usize::try_from(value.as_u64()?).ok();
        match shape.iter().map(size).collect::<Vec<_>>()[..] {
            [_, Some(h), Some(w), c] if c == Some(channels) => Some([h, w]),
            [_, c, Some(h), Some(w)] if c == Some(channels) => Some([h, w]),
            _ => None,
        }
    }

    /// The strides of convolution `name`, where it is known.
    pub(super) fn strides(&self, name: &str) -> Option<[u64; 2]> {
        let config = self.0.get(name)?.config;
        let strides = config
            .get("strides")
            .or_else(|| config.get("subsample"))?
            .as_array()?;
        match strides.as_slice() {
            [h, w] => Some([h.as_u64()?, w.as_u64()?]),
            _ => None,
        }
    }
}
