//! The network that a file's tensors belong to, told from their names (ours) and shapes.

use std::collections::BTreeMap;

use ror_models::blocks::BlockKind;
use ror_models::{Description, Dialect, Family, Network, ShortcutKind};

use crate::array::Array;
use crate::error::{ErrorKind, Result};

/// Describes the network with `tensors`. Where some are missing or misshapen the description is the
/// nearest: placing the tensors in its network then names the first that disagrees.
///
/// Zero-padded shortcuts, dropout and stochastic depth leave no trace and are taken as absent, which
/// a note says.
pub(crate) fn from_names(
    tensors: &BTreeMap<String, Array>,
    notes: &mut Vec<String>,
) -> Result<Description> {
    let has = |name: &str| tensors.contains_key(name);
    let blocks = blocks_per_group(tensors);
    if blocks.is_empty() {
        return Err(unknown(match tensors.values().next() {
            Some(first) => format!("no RoR network has a tensor called `{}`", first.name),
            None => "it has no tensors".to_owned(),
        }));
    }
    let imagenet = blocks.len() == 4;
    let dialect = if has("stem.conv.bias") {
        Dialect::Keras
    } else if has("root.shortcut.norm.weight") {
        Dialect::Pytorchcv
    } else {
        Dialect::Paper
    };
    let (block, last_conv) = if first_block(tensors, "conv3").is_some() {
        (BlockKind::Bottleneck, "conv3")
    } else {
        (BlockKind::Basic, "conv2")
    };
    let narrowest = if imagenet { 64 } else { 16 } * block.expansion();
    let width = first_block(tensors, last_conv).map_or(1, |a| a.shape[0] / narrowest);
    let family = match (has("stem.norm.weight"), dialect) {
        (true, _) if imagenet => Family::ImageNet,
        (true, _) => Family::Ror,
        (false, Dialect::Paper) if width <= 1 => Family::PreRor,
        (false, _) => Family::Wrn,
    };
    let mut description =
        of_blocks(dialect, family, block, width.max(1), &blocks).ok_or_else(|| {
            unknown(format!(
                "no {family} network has {blocks:?} blocks in its groups"
            ))
        })?;
    if let Some(stem) = tensors.get("stem.conv.weight") {
        description.channels = stem.shape.get(1).copied().unwrap_or(0);
    }
    describe_top(&mut description, tensors.get("head.dense.weight"));
    describe_shortcuts(&mut description, tensors);
    // pytorchcv's networks have no such choices.
    if dialect != Dialect::Pytorchcv {
        notes.push(format!(
            "the file does not describe its network; by its tensors it is {description} with \
             shortcuts {:?} (zero-padded shortcuts, dropout and stochastic depth leave no tensors: \
             if it has any, `ror convert --model` must write them down)",
            description.shortcuts
        ));
    }
    Ok(description)
}

/// Sets levels and kinds of shortcuts to those that have just the tensors there are, where any
/// have.
fn describe_shortcuts(description: &mut Description, tensors: &BTreeMap<String, Array>) {
    let fitting = shortcut_kinds(description)
        .map(|kinds| description.clone().with_shortcuts(&kinds))
        .find(|candidate| has_same_tensors(candidate, tensors));
    if let Some(fitting) = fitting {
        *description = fitting;
    }
}

/// The description whose depth gives `blocks` per group.
pub(crate) fn of_blocks(
    dialect: Dialect,
    family: Family,
    block: BlockKind,
    width: usize,
    blocks: &[usize],
) -> Option<Description> {
    // No family counts more than nine layers per block of a group, and eight beside.
    let deepest = blocks.iter().max()?.saturating_mul(9).saturating_add(8);
    (1..=deepest.min(10_000)).find_map(|depth| {
        let description = Description::of_block(dialect, family, block, depth, width).ok()?;
        (description.blocks_per_group().ok()? == blocks).then_some(description)
    })
}

/// Sets classes and top from the classifier's weight `(classes, features)`.
pub(crate) fn describe_top(description: &mut Description, dense: Option<&Array>) {
    match dense {
        Some(array) => description.classes = array.shape.first().copied().unwrap_or(0),
        None => description.top = false,
    }
}

pub(crate) fn unknown(reason: impl std::fmt::Display) -> ErrorKind {
    ErrorKind::Architecture(format!(
        "the network cannot be told from the file, name it: {reason}"
    ))
}

/// The weight of a convolution of the very first block, whatever levels it is nested in.
fn first_block<'a>(tensors: &'a BTreeMap<String, Array>, conv: &str) -> Option<&'a Array> {
    let end = format!(".block1.{conv}.weight");
    let mut group = tensors.range("root.group1.".to_owned()..);
    let (name, array) = group.find(|(name, _)| name.ends_with(&end))?;
    (name.starts_with("root.group1.") && array.shape.len() == 4).then_some(array)
}

/// How many blocks there are names of in each group.
fn blocks_per_group(tensors: &BTreeMap<String, Array>) -> Vec<usize> {
    let mut groups: BTreeMap<&str, std::collections::BTreeSet<&str>> = BTreeMap::new();
    for name in tensors.keys() {
        let Some(rest) = name.strip_prefix("root.group") else {
            continue;
        };
        let mut parts = rest.split('.');
        if let (Some(group), Some(block)) = (parts.next(), parts.find(|p| p.starts_with("block"))) {
            groups.entry(group).or_default().insert(block);
        }
    }
    groups.values().map(|blocks| blocks.len()).collect()
}

/// Kinds of shortcuts per level to try: projections on every level, and on blocks everywhere or
/// where the shape changes. Other kinds have no weights where these have some, and would pass for
/// what is a tensor missing.
fn shortcut_kinds(description: &Description) -> impl Iterator<Item = Vec<ShortcutKind>> + use<> {
    let defaults = [3, 2, 1, 4, 5].map(|levels| description.clone().with_levels(levels).shortcuts);
    let all = [3, 2, 1, 4, 5].map(|levels| vec![ShortcutKind::C; levels]);
    defaults.into_iter().chain(all)
}

fn has_same_tensors(candidate: &Description, tensors: &BTreeMap<String, Array>) -> bool {
    Network::new(candidate).is_ok_and(|network| {
        let specs = network.tensors();
        specs.len() == tensors.len() && specs.iter().all(|s| tensors.contains_key(&s.name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ShortcutKind::C;

    fn tensors(description: &Description) -> BTreeMap<String, Array> {
        let network = Network::new(description).unwrap();
        let array = |name: String, shape: Vec<usize>| Array {
            data: vec![0.0; shape.iter().product()],
            name,
            shape,
        };
        network
            .tensors()
            .into_iter()
            .map(|s| (s.name.clone(), array(s.name, s.shape)))
            .collect()
    }

    #[test]
    fn every_kind_of_network_is_told_from_its_tensors() {
        for name in [
            "ror-3-20",
            "pre-ror-3-20",
            "pre-ror-3-bottleneck-29",
            "ror-3-wrn-16-2",
            "keras-ror-3-56",
            "keras-ror-3-wrn-10-1",
            "pytorchcv-ror-3-20",
            "imagenet-ror-3-18",
            "imagenet-ror-3-50",
            "ror-1-20",
            "ror-2-20",
            "ror-4-20",
            "ror-5-26",
        ] {
            let mut notes = Vec::new();
            let description = Description::preset(name).unwrap().with_classes(7);
            assert_eq!(
                from_names(&tensors(&description), &mut notes).unwrap(),
                description,
                "{name}"
            );
        }
    }

    #[test]
    fn channels_top_and_shortcut_kinds_are_told_too() {
        let mut description = Description::preset("ror-3-20").unwrap().without_top();
        description.channels = 1;
        assert_eq!(
            from_names(&tensors(&description), &mut Vec::new()).unwrap(),
            description
        );
        let description = description.with_shortcuts(&[C, C, C]);
        let mut notes = Vec::new();
        assert_eq!(
            from_names(&tensors(&description), &mut notes).unwrap(),
            description
        );
        assert_eq!(notes.len(), 1);
    }

    #[test]
    fn a_missing_tensor_does_not_change_the_description() {
        let description = Description::preset("ror-3-20").unwrap();
        for name in [
            "stem.conv.weight",
            "root.group1.block1.conv2.weight",
            "root.group2.block3.conv2.weight",
            "root.shortcut.conv.weight",
            "head.dense.bias",
        ] {
            let mut tensors = tensors(&description);
            tensors.remove(name).unwrap();
            assert_eq!(from_names(&tensors, &mut Vec::new()).unwrap(), description);
        }
    }

    #[test]
    fn tensors_of_another_network_are_named() {
        let array = Array::new("layer1.0.conv1.weight".into(), vec![1], vec![0.0]).unwrap();
        let error = from_names(
            &BTreeMap::from([(array.name.clone(), array)]),
            &mut Vec::new(),
        )
        .unwrap_err();
        assert!(
            error.to_string().contains("`layer1.0.conv1.weight`"),
            "{error}"
        );
    }
}
