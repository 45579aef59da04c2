//! `ror` as a process that another program times: `peer FOLDER NAME BATCH THREADS`.
//!
//! Reads the network that `export_network` wrote and the images in `NAME-BATCH.images` (raw little-endian float32),
//! writes their logits to `NAME-BATCH.logits`, then answers each line `N` on its input with the seconds that each of
//! `N` runs took.

use candle_core::{DType, Device, safetensors};
use candle_nn::VarBuilder;
use ror_infer::{Engine, Input, Options};
use ror_models::{Description, Network};
use std::io::Write;
use std::path::Path;
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, name, batch, threads] = arguments.as_slice() else {
        return Err("usage: peer FOLDER NAME BATCH THREADS".into());
    };
    let path = Path::new(folder).join(name);
    let tree: serde_json::Value =
        serde_json::from_slice(&std::fs::read(path.with_extension("json"))?)?;
    let description: Description = serde_json::from_value(tree["description"].clone())?;
    let network = Network::new(&description)?;
    let tensors = safetensors::load(path.with_extension("safetensors"), &Device::Cpu)?;
    let weights = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
    let options = Options::default()
        .threads(threads.parse()?)
        .batch_size(batch.parse()?);
    let mut engine = Engine::compile(&network, &weights, &options)?;
    drop(weights);

    let file = |ending: &str| Path::new(folder).join(format!("{name}-{batch}.{ending}"));
    let bytes = std::fs::read(file("images"))?;
    let (values, _) = bytes.as_chunks::<4>();
    let images: Vec<f32> = values.iter().map(|&b| f32::from_le_bytes(b)).collect();
    let mut logits = vec![0.0; batch.parse::<usize>()? * engine.outputs()];
    engine.run(Input::F32(&images), &mut logits)?;
    let bytes: Vec<u8> = logits.iter().flat_map(|v| v.to_le_bytes()).collect();
    std::fs::write(file("logits"), bytes)?;
    let mut stdout = std::io::stdout().lock();
    writeln!(
        stdout,
        "{} {}",
        engine.weight_bytes(),
        engine.workspace_bytes()
    )?;

    for line in std::io::stdin().lines() {
        let mut answer = String::new();
        for _ in 0..line?.trim().parse::<usize>()? {
            let start = Instant::now();
            engine.run(Input::F32(&images), &mut logits)?;
            answer.push_str(&format!("{} ", start.elapsed().as_secs_f64()));
        }
        writeln!(stdout, "{answer}")?;
        stdout.flush()?;
    }
    Ok(())
}
