//! Serves training steps to a script that measures them beside other runtimes: `train_step NAME BATCH THREADS`, and
//! with the feature `cudnn` `train_step NAME BATCH f32` or `bf16`, on the first CUDA device.
//!
//! Prints `ready`, then answers every line on standard input with the seconds that a full step (forward,
//! backward, SGD with Nesterov's momentum) took, and at the end of input prints the peak memory in bytes.

use candle_core::{DType, Device};
use ror_models::blocks::Noise;
use ror_models::{Description, Network, Parameters};
use ror_train::{
    Batch, DeviceEngine, Engine, FlatLayout, Gradients, KernelEngine, Optimizer, OptimizerConfig,
    Precision,
};
use std::io::BufRead;
use std::sync::Arc;
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, batch, place] = arguments.as_slice() else {
        return Err("usage: train_step NAME BATCH THREADS|f32|bf16".into());
    };
    let n = batch.parse::<usize>()?;
    let network = Network::new(&Description::preset(name)?)?;
    let parameters = Parameters::init(&network, 1, DType::F32, &Device::Cpu)?;
    let mut engine: Box<dyn Engine> = match place.as_str() {
        "f32" => on_cuda(&network, &parameters, Precision::F32)?,
        "bf16" => on_cuda(&network, &parameters, Precision::Bf16)?,
        threads => Box::new(KernelEngine::new(&network, &parameters, threads.parse()?)?),
    };
    let layout = Arc::new(FlatLayout::new(&parameters));
    let mut gradients = Gradients::new(layout.clone());
    let mut optimizer = Optimizer::new(OptimizerConfig::default(), layout)?;
    let shape = network.input_shape();
    let classes = network.head.classes.unwrap_or(network.head.features);
    let mut targets = vec![0.0; n * classes];
    for (i, row) in targets.chunks_exact_mut(classes).enumerate() {
        row[i % classes] = 1.0;
    }
    // Repeatable noise; the values do not matter to the time.
    let mut state = 1u64;
    let images = (0..n * shape.elements()).map(|_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    });
    let batch = Batch {
        images: images.collect(),
        shape: [n, shape.channels, shape.height, shape.width],
        targets,
        labels: (0..n).map(|i| (i % classes) as u32).collect(),
        whole: n,
    };
    let noise = Noise::seeded(1);
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        line?;
        let start = Instant::now();
        engine.forward_backward(&batch, &noise, &mut gradients)?;
        optimizer.step(&parameters, &gradients, 1e-3)?;
        println!("{}", start.elapsed().as_secs_f64());
    }
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kilobytes: u64 = peak
        .and_then(|p| p.split_whitespace().next())
        .unwrap_or("0")
        .parse()?;
    println!("{}", kilobytes * 1024);
    Ok(())
}

fn on_cuda(
    network: &Network,
    parameters: &Parameters,
    precision: Precision,
) -> candle_core::Result<Box<dyn Engine>> {
    let device = Device::new_cuda(0)?;
    let engine = DeviceEngine::new(network, parameters, &device, precision)?;
    Ok(Box::new(engine))
}
