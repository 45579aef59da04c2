//! Writes networks of the paper's dialect with random weights, an input and its logits, for
//! `tests/peers/paper_torch.py` to compute again.

use candle_core::Tensor;
use ror_models::{Description, Network, ShortcutKind};
use ror_tests::random;
use std::collections::HashMap;
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args()
        .nth(1)
        .ok_or("usage: random_networks FOLDER")?;
    std::fs::create_dir_all(&folder)?;
    use ShortcutKind::{A, B, C};
    let mut networks = Vec::new();
    for name in [
        "ror-3-20",
        "pre-ror-3-20",
        "ror-3-wrn-16-2",
        "pre-ror-3-bottleneck-20",
    ] {
        for levels in 1..=3 {
            networks.push(Description::preset(name)?.with_levels(levels));
        }
        for kinds in [[A, A, A], [B, B, B], [C, C, C], [A, C, B], [C, A, B]] {
            networks.push(Description::preset(name)?.with_shortcuts(&kinds));
        }
    }
    networks.push(Description::preset("ror-4-20")?);
    networks.push(Description::preset("ror-5-32")?);
    networks.push(Description::preset("ror-5-wrn-28-1")?);
    networks.push(Description::preset("ror-3-wrn-16-2-sd")?);
    networks.push(Description::preset("ror-3-20-sd")?.with_classes(100));
    for depth in [18, 34, 50] {
        let mut d = Description::preset(&format!("imagenet-ror-3-{depth}"))?;
        d.image_size = [65, 50];
        networks.push(d);
    }
    for description in networks {
        let kinds: String = description
            .shortcuts
            .iter()
            .map(|k| format!("{k:?}"))
            .collect();
        write(
            Path::new(&folder),
            &format!("{description}-{kinds}"),
            &description,
        )?;
    }
    Ok(())
}

fn write(
    folder: &Path,
    name: &str,
    description: &Description,
) -> Result<(), Box<dyn std::error::Error>> {
    let network = Network::new(description)?;
    let parameters = random::parameters(&network)?;
    let x = random::images(description, 2)?;
    let mut tensors: HashMap<String, Tensor> = parameters
        .iter()
        .map(|(name, _, var)| (name.to_owned(), var.as_detached_tensor()))
        .collect();
    tensors.insert(
        "logits".to_owned(),
        parameters.model(&network)?.forward(&x)?,
    );
    tensors.insert("input".to_owned(), x);
    candle_core::safetensors::save(&tensors, folder.join(format!("{name}.safetensors")))?;
    std::fs::write(
        folder.join(format!("{name}.json")),
        serde_json::to_string_pretty(description)?,
    )?;
    Ok(())
}
