//! Names of Keras layers: the reference's, and ours in exported files.

use super::layers::WeightedLayer;
use crate::error::{ErrorKind, Result};

/// The name that the layer at `path` has in exported files. Keras takes no `.` for granted in
/// names.
pub(super) fn keras_name(path: &str) -> String {
    path.replace('.', "_")
}

/// The name of the layer that pads the shortcut at `path` with zero channels.
pub(super) fn padding_name(path: &str) -> String {
    keras_name(path) + "_pad"
}

/// The path of the layer that scales the residual of the block at `path` by its survival.
pub(super) fn survival_path(path: &str) -> String {
    format!("{path}.survival")
}

pub(super) fn is_survival(name: &str) -> bool {
    name.ends_with("_survival")
}

pub(super) fn is_padding(name: &str) -> bool {
    name.ends_with("_shortcut_pad")
}

/// Checks layers that are taken in the file's order against what their names say of their places.
#[derive(Default)]
pub(super) struct OrderCheck {
    /// The last name of each kind, cut into prefix and number.
    last: [Option<(String, u64)>; 4],
}

impl OrderCheck {
    /// Checks that `layer` may stand at `path`: numbers, which Keras gives in order of creation,
    /// rise, and the shortcuts that the reference names are where it has them.
    pub(super) fn check(&mut self, layer: &WeightedLayer, path: &str) -> Result<()> {
        let misplaced = |reason: String| {
            ErrorKind::Architecture(format!(
                "layer `{}` stands in the place of `{path}`, {reason}",
                layer.name
            ))
        };
        if let Some(own) = reference_path(&layer.name) {
            if own == path {
                return Ok(());
            }
            return Err(misplaced(format!("but its name is that of `{own}`")));
        }
        let (prefix, number) = split_number(&layer.name);
        let last = &mut self.last[layer.kind as usize];
        if let Some((last_prefix, last_number)) = last
            && *last_prefix == prefix
            && *last_number >= number
        {
            return Err(misplaced(format!(
                "after number {last_number}, which was made later"
            )));
        }
        *last = Some((prefix, number));
        Ok(())
    }
}

/// The place of a shortcut by the reference's name for it: `conv0_level1_shortcut` is the root's,
/// `conv2_level2_shortcut` group 2's.
fn reference_path(name: &str) -> Option<String> {
    if name == "conv0_level1_shortcut" {
        return Some("root.shortcut.conv".to_owned());
    }
    let group = name
        .strip_prefix("conv")?
        .strip_suffix("_level2_shortcut")?;
    Some(format!("root.group{group}.shortcut.conv"))
}

/// `conv2d_12` cut into `conv2d` and 12; the number of `conv2d` is 0.
pub(super) fn split_number(name: &str) -> (String, u64) {
    name.rsplit_once('_')
        .filter(|(_, number)| number.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|(prefix, number)| Some((prefix.to_owned(), number.parse().ok()?)))
        .unwrap_or_else(|| (name.to_owned(), 0))
}

#[cfg(test)]
mod tests {
    use super::super::layers::Kind;
    use super::*;

    fn layer(name: &str) -> WeightedLayer {
        WeightedLayer {
            name: name.to_owned(),
            named: true,
            kind: Kind::Pointwise,
            arrays: Vec::new(),
        }
    }

    #[test]
    fn numbers_sort_as_numbers() {
        let mut names = [
            "conv2d_10",
            "conv2d_2",
            "conv2d",
            "dense",
            "batch_normalization_1",
            "x_",
        ];
        names.sort_by_key(|name| split_number(name));
        assert_eq!(
            names,
            [
                "batch_normalization_1",
                "conv2d",
                "conv2d_2",
                "conv2d_10",
                "dense",
                "x_"
            ]
        );
    }

    #[test]
    fn names_that_contradict_the_order_are_refused() {
        let mut check = OrderCheck::default();
        let mut at =
            |name: &str, path: &str| check.check(&layer(name), path).map_err(|e| e.to_string());
        assert_eq!(at("conv2d_1", "root.group1.block1.shortcut.conv"), Ok(()));
        assert_eq!(
            at("conv1_level2_shortcut", "root.group1.shortcut.conv"),
            Ok(())
        );
        assert_eq!(at("conv2d_6", "root.group2.block1.shortcut.conv"), Ok(()));
        assert_eq!(at("other_2", "root.group3.block1.shortcut.conv"), Ok(()));
        let error = at("conv3_level2_shortcut", "root.shortcut.conv").unwrap_err();
        assert!(
            error.contains("its name is that of `root.group3.shortcut.conv`"),
            "{error}"
        );
        let error = at("other_1", "root.shortcut.conv").unwrap_err();
        assert!(error.contains("after number 2"), "{error}");
    }
}
