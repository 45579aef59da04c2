//! Writes networks of the paper's dialect with random weights, an input and its logits, for
//! `tests/peers/paper_torch.py` to compute again.

use candle_core::{DType, Device, Tensor};
use ror_models::{Description, Network, Parameters, ShortcutKind, TensorRole};
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

/// Weights whose batch norms do something: every scale, shift and statistic is random.
fn write(
    folder: &Path,
    name: &str,
    description: &Description,
) -> Result<(), Box<dyn std::error::Error>> {
    let network = Network::new(description)?;
    let parameters = Parameters::init(&network, 1, DType::F32, &Device::Cpu)?;
    for (i, (_, role, var)) in parameters.iter().enumerate() {
        let noise = noise(var.elem_count(), i as u64);
        let noise = Tensor::from_vec(noise, var.shape(), &Device::Cpu)?;
        match role {
            TensorRole::NormScale | TensorRole::RunningVariance => {
                var.set(&((noise * 0.5)? + 0.75)?)?;
            }
            TensorRole::NormShift | TensorRole::RunningMean | TensorRole::DenseBias => {
                var.set(&(noise - 0.5)?)?;
            }
            _ => {}
        }
    }
    let [h, w] = description.image_size;
    let x = Tensor::from_vec(noise(2 * 3 * h * w, 99), (2, 3, h, w), &Device::Cpu)?;
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

/// Numbers in `[0, 1)` from a linear congruential generator.
fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..count)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u32 << 24) as f32
        })
        .collect()
}
