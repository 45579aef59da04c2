//! Writes a network's tree (`NAME.json`) and random weights (`NAME.safetensors`) for other
//! runtimes to load: `export_network FOLDER NAME...`

use candle_core::{DType, Device};
use ror_models::{Description, Network, Parameters};
use std::collections::HashMap;
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments
        .next()
        .ok_or("usage: export_network FOLDER NAME...")?;
    std::fs::create_dir_all(&folder)?;
    for name in arguments {
        let network = Network::new(&Description::preset(&name)?)?;
        let parameters = Parameters::init(&network, 1, DType::F32, &Device::Cpu)?;
        let tensors: HashMap<&str, _> = parameters
            .iter()
            .map(|(name, _, var)| (name, var.as_detached_tensor()))
            .collect();
        let path = Path::new(&folder).join(&name);
        candle_core::safetensors::save(&tensors, path.with_extension("safetensors"))?;
        std::fs::write(
            path.with_extension("json"),
            serde_json::to_string(&network)?,
        )?;
    }
    Ok(())
}
