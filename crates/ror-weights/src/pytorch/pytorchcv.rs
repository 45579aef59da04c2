//! The names of pytorchcv's `ror3_*` networks (`ror_cifar.py`).

/// Our name of a tensor that pytorchcv (`ror_cifar.py`) calls `name`; `None` for names of other
/// origin.
pub(crate) fn from_pytorchcv(name: &str) -> Option<String> {
    if let Some(rest) = name.strip_prefix("output.") {
        return Some(format!("head.dense.{rest}"));
    }
    let rest = name.strip_prefix("features.")?;
    let (path, rest) = if let Some(rest) = rest.strip_prefix("init_block.") {
        ("stem.".to_owned(), rest)
    } else if let Some(rest) = rest.strip_prefix("body.shortcut.") {
        ("root.shortcut.".to_owned(), rest)
    } else {
        let (stage, rest) = rest.strip_prefix("body.stages.stage")?.split_once('.')?;
        if let Some(rest) = rest.strip_prefix("shortcut.") {
            (format!("root.group{stage}.shortcut."), rest)
        } else {
            let (unit, rest) = rest.strip_prefix("units.unit")?.split_once('.')?;
            let block = format!("root.group{stage}.block{unit}.");
            if let Some(rest) = rest.strip_prefix("identity_conv.") {
                (format!("{block}shortcut."), rest)
            } else {
                let (conv, rest) = rest.strip_prefix("body.conv")?.split_once('.')?;
                // pytorchcv pairs a convolution with its norm, we number both.
                return match rest.split_once('.')? {
                    ("conv", tensor) => Some(format!("{block}conv{conv}.{tensor}")),
                    ("bn", tensor) => Some(format!("{block}norm{conv}.{tensor}")),
                    _ => None,
                };
            }
        }
    };
    match rest.split_once('.')? {
        ("conv", tensor) => Some(format!("{path}conv.{tensor}")),
        ("bn", tensor) => Some(format!("{path}norm.{tensor}")),
        _ => None,
    }
}

/// What pytorchcv calls our tensor `name`; `None` for what its networks do not have.
pub(super) fn to_pytorchcv(name: &str) -> Option<String> {
    let parts: Vec<&str> = name.split('.').collect();
    let numbered = |part: &str, stem: &str| part.strip_prefix(stem).map(str::to_owned);
    let unit = |layer: &str| match layer {
        "conv" => Some("conv"),
        "norm" => Some("bn"),
        _ => None,
    };
    let stage = |group: &str| {
        Some(format!(
            "features.body.stages.stage{}",
            numbered(group, "group")?
        ))
    };
    let block_unit = |group: &str, block: &str| {
        Some(format!(
            "{}.units.unit{}",
            stage(group)?,
            numbered(block, "block")?
        ))
    };
    Some(match parts[..] {
        ["head", "dense", tensor] => format!("output.{tensor}"),
        ["stem", layer, tensor] => format!("features.init_block.{}.{tensor}", unit(layer)?),
        ["root", "shortcut", layer, tensor] => {
            format!("features.body.shortcut.{}.{tensor}", unit(layer)?)
        }
        ["root", group, "shortcut", layer, tensor] => {
            format!("{}.shortcut.{}.{tensor}", stage(group)?, unit(layer)?)
        }
        ["root", group, block, "shortcut", layer, tensor] => {
            let block = block_unit(group, block)?;
            format!("{block}.identity_conv.{}.{tensor}", unit(layer)?)
        }
        ["root", group, block, layer, tensor] => {
            let (kind, number) = layer.split_at_checked("conv".len())?;
            let block = block_unit(group, block)?;
            format!("{block}.body.conv{number}.{}.{tensor}", unit(kind)?)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ror_models::{Description, Network};

    #[test]
    fn pytorchcv_names_become_ours() {
        for (theirs, ours) in [
            ("features.init_block.conv.weight", "stem.conv.weight"),
            (
                "features.init_block.bn.running_var",
                "stem.norm.running_var",
            ),
            ("features.body.shortcut.bn.bias", "root.shortcut.norm.bias"),
            (
                "features.body.stages.stage2.shortcut.conv.weight",
                "root.group2.shortcut.conv.weight",
            ),
            (
                "features.body.stages.stage3.units.unit12.body.conv2.bn.weight",
                "root.group3.block12.norm2.weight",
            ),
            (
                "features.body.stages.stage2.units.unit1.identity_conv.conv.weight",
                "root.group2.block1.shortcut.conv.weight",
            ),
            ("output.bias", "head.dense.bias"),
        ] {
            assert_eq!(from_pytorchcv(theirs).as_deref(), Some(ours));
        }
        for other in [
            "stem.conv.weight",
            "features.body.x",
            "features.init_block.activ.weight",
            "layer1.0.bn1.bias",
        ] {
            assert_eq!(from_pytorchcv(other), None);
        }
    }

    #[test]
    fn our_names_become_pytorchcvs_and_ours_again() {
        let description = Description::preset("pytorchcv-ror-3-14").unwrap();
        for spec in Network::new(&description).unwrap().tensors() {
            let theirs = to_pytorchcv(&spec.name).unwrap();
            assert_eq!(from_pytorchcv(&theirs), Some(spec.name));
        }
        for other in ["head.norm.weight", "root.group1.half1.block1.conv1.weight"] {
            assert_eq!(to_pytorchcv(other), None);
        }
    }
}
