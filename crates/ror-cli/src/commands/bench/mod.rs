//! `ror bench`

mod profile;
mod training;

use crate::device::{self, DeviceArg, PrecisionArg};
use crate::model::{ModelOptions, WeightsOptions, positive};
use crate::output::{print, print_json, table};
use crate::ranks;
use crate::runner::{compile, compile_options};
use anyhow::{Context, Result, bail};
use candle_core::{DType, Device, Tensor};
use ror_infer::{Engine, Input};
use ror_models::{Network, Parameters};
use ror_weights::Weights;
use serde::Serialize;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use training::{Place, Training};

/// Measure how fast a model runs
///
/// Runs batches of random images through the compiled model; with --train, steps of training (forwards, backwards,
/// SGD). Without weights, random ones: speed does not depend on them. Without --model, that of the weights, or
/// keras-ror-3-wrn-40-2. Latency is that of a batch.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  ror bench --model ror-3-wrn-40-2 --batch-size 64\n  \
    ror bench --weights w.safetensors --batch-size 1 --profile\n  \
    ror bench --model ror-3-wrn-40-2 --train --threads 4 --json"
)]
pub(crate) struct Args {
    /// Weights in any readable format, instead of random ones
    #[arg(short, long, value_name = "FILE")]
    weights: Option<PathBuf>,
    #[command(flatten)]
    weights_options: WeightsOptions,
    /// Images per batch
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = positive)]
    batch_size: usize,
    /// Threads [default: one per processor]
    #[arg(long, value_name = "T", value_parser = positive)]
    threads: Option<usize>,
    /// Where to run: cpu, cuda or cuda:N; on other devices than the processor on candle
    #[arg(long, default_value_t = DeviceArg::Cpu, value_name = "DEVICE")]
    device: DeviceArg,
    /// What to train in
    #[arg(long, value_enum, default_value_t = PrecisionArg::F32, requires = "train")]
    precision: PrecisionArg,
    /// Measure training instead of inference
    #[arg(long)]
    train: bool,
    /// How long to measure
    #[arg(long, default_value_t = 5.0, value_name = "S", value_parser = seconds)]
    seconds: f64,
    /// Print the time of every operation: of all threads together where each has images of its own
    #[arg(long, conflicts_with_all = ["json", "train"])]
    profile: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    changes: ModelOptions,
}

/// The model that is measured where none is named.
const DEFAULT_MODEL: &str = "keras-ror-3-wrn-40-2";

#[derive(Serialize)]
struct Report {
    model: String,
    batch_size: usize,
    threads: usize,
    device: String,
    mode: &'static str,
    images_per_second: f64,
    latency_ms: Latency,
    /// None where the system does not tell.
    peak_memory_bytes: Option<u64>,
    /// Of inference: packed weights, and working memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    weight_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workspace_bytes: Option<u64>,
    parameters: u64,
    multiply_adds: u64,
}

#[derive(Serialize)]
struct Latency {
    p50: f64,
    p90: f64,
    p99: f64,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let report = match args.device {
        _ if args.train => train(args)?,
        DeviceArg::Cpu => infer(args)?,
        _ if args.profile => bail!("--profile is for the compiled model, on the processor"),
        _ => infer_on_candle(args)?,
    };
    if args.json {
        print_json(&report.0)
    } else {
        print(&(text(&report.0) + &report.1))
    }
}

/// Measures inference, and the operations where they are asked for.
fn infer(args: &Args) -> Result<(Report, String)> {
    let options = compile_options(args.threads, args.batch_size);
    let (network, mut engine) = match network(args)? {
        (network, Some(weights)) => {
            let engine = compile(&network, &weights, &options)?;
            (network, engine)
        }
        (network, None) => {
            let weights = Parameters::init(&network, 1, DType::F32, &Device::Cpu)?;
            let engine = Engine::compile(&network, &weights.var_builder(), &options);
            (network, engine.context("cannot compile the model")?)
        }
    };
    let images = noise(args.batch_size, network.input_shape().elements())?;
    let mut output = vec![0.0; args.batch_size * engine.outputs()];
    let times = measure(args.seconds, || {
        Ok(engine.run(Input::F32(&images), &mut output)?)
    })?;
    let report = Report {
        weight_bytes: Some(engine.weight_bytes() as u64),
        workspace_bytes: Some(engine.workspace_bytes() as u64),
        multiply_adds: engine.multiply_adds() as u64,
        ..report(args, &network, "inference", engine.threads(), &times)
    };
    let operations = if args.profile {
        let rounds = times.len().clamp(1, 20);
        profile::profile(&mut engine, &images, &mut output, rounds)?
    } else {
        String::new()
    };
    Ok((report, operations))
}

/// Measures inference, operation by operation, on another device than the processor.
fn infer_on_candle(args: &Args) -> Result<(Report, String)> {
    let device = args.device.open()?;
    let (network, weights) = network(args)?;
    let model = match &weights {
        Some(weights) => weights.model(DType::F32, &device)?,
        None => Parameters::init(&network, 1, DType::F32, &device)?.evaluator(&network)?,
    };
    let input = network.input_shape();
    let images = noise(args.batch_size, input.elements())?;
    let shape = (args.batch_size, input.channels, input.height, input.width);
    let times = measure(args.seconds, || {
        let images = Tensor::from_slice(&images, shape, &device)?;
        // Asks for the numbers, so that they are there.
        model.forward(&images)?.flatten_all()?.to_vec1::<f32>()?;
        Ok(())
    })?;
    let report = report(args, &network, "inference", 1, &times);
    Ok((report, String::new()))
}

/// Measures steps of training.
fn train(args: &Args) -> Result<(Report, String)> {
    device::check(args.device, args.precision.into())?;
    let (network, weights) = network(args)?;
    let threads = args.threads.unwrap_or_else(ranks::threads);
    let images = noise(args.batch_size, network.input_shape().elements())?;
    let (place, threads) = match args.device {
        DeviceArg::Cpu => (Place::Kernels(threads), threads),
        device => (Place::Device(device.open()?, args.precision.into()), 1),
    };
    let mut training = Training::new(&network, weights.as_ref(), images, place)?;
    let times = measure(args.seconds, || training.step())?;
    let report = report(args, &network, "training", threads, &times);
    Ok((report, String::new()))
}

/// The network, and its weights where a file of them is given.
fn network(args: &Args) -> Result<(Network, Option<Weights>)> {
    if let Some(path) = &args.weights {
        args.weights_options.check_changes(&args.changes)?;
        let weights = args.weights_options.load(path, Some(&args.changes))?;
        return Ok((weights.network()?, Some(weights)));
    }
    let name = args.weights_options.model().unwrap_or(DEFAULT_MODEL);
    Ok((args.changes.network(name)?, None))
}

/// The times of as many batches as there is time for, at least one, sorted. A tenth of that time goes before.
fn measure(seconds: f64, mut batch: impl FnMut() -> Result<()>) -> Result<Vec<Duration>> {
    let limit = Duration::from_secs_f64(seconds);
    let warm = Instant::now();
    while warm.elapsed() < limit / 10 {
        batch()?;
    }
    let mut times = Vec::new();
    let start = Instant::now();
    while times.is_empty() || start.elapsed() < limit {
        let batch_start = Instant::now();
        batch()?;
        times.push(batch_start.elapsed());
    }
    times.sort_unstable();
    Ok(times)
}

fn report(
    args: &Args,
    network: &Network,
    mode: &'static str,
    threads: usize,
    sorted: &[Duration],
) -> Report {
    let total: f64 = sorted.iter().map(Duration::as_secs_f64).sum();
    // The nearest rank.
    let percentile = |p: usize| {
        let rank = (sorted.len() * p).div_ceil(100).max(1);
        sorted[rank - 1].as_secs_f64() * 1e3
    };
    Report {
        model: network.description.to_string(),
        batch_size: args.batch_size,
        threads,
        device: args.device.to_string(),
        mode,
        images_per_second: (sorted.len() * args.batch_size) as f64 / total,
        latency_ms: Latency {
            p50: percentile(50),
            p90: percentile(90),
            p99: percentile(99),
        },
        peak_memory_bytes: peak_memory(),
        weight_bytes: None,
        workspace_bytes: None,
        parameters: network.parameters(),
        multiply_adds: network.multiply_adds(),
    }
}

/// The most memory that this process has had at once, where the system says it (Linux).
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

fn text(report: &Report) -> String {
    let milliseconds = |time: f64| Some(format!("{time:.3} ms"));
    let mebibytes = |bytes: u64| format!("{:.1} MiB", bytes as f64 / 1024.0 / 1024.0);
    let rows = [
        ("model", Some(report.model.clone())),
        ("batch size", Some(report.batch_size.to_string())),
        ("threads", Some(report.threads.to_string())),
        ("device", Some(report.device.clone())),
        ("images/s", Some(format!("{:.1}", report.images_per_second))),
        ("latency p50", milliseconds(report.latency_ms.p50)),
        ("latency p90", milliseconds(report.latency_ms.p90)),
        ("latency p99", milliseconds(report.latency_ms.p99)),
        ("peak memory", report.peak_memory_bytes.map(mebibytes)),
        ("packed weights", report.weight_bytes.map(mebibytes)),
        ("working memory", report.workspace_bytes.map(mebibytes)),
        ("parameters", Some(report.parameters.to_string())),
        (
            "multiply-adds per image",
            Some(report.multiply_adds.to_string()),
        ),
    ];
    let rows: Vec<_> = rows
        .into_iter()
        .filter_map(|(name, value)| Some(vec![name.to_owned(), value?]))
        .collect();
    table(&["", report.mode], &rows, &[1])
}

/// Numbers between -1 and 1, `each` for every image.
fn noise(images: usize, each: usize) -> Result<Vec<f32>> {
    let count = images.saturating_mul(each);
    let mut values = Vec::new();
    if values.try_reserve_exact(count).is_err() {
        bail!("no memory for {images} images of {each} values");
    }
    let mut state = 1u32;
    values.extend((0..count).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    }));
    Ok(values)
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(s) if s > 0.0 && s <= 86_400.0 => Ok(s),
        _ => Err("expected seconds, above 0 and at most a day".to_owned()),
    }
}
