//! `ror bench`

use crate::model::{ModelOptions, WeightsOptions, positive};
use crate::output::{note, print, print_json, table};
use crate::runner::{compile, compile_options};
use anyhow::{Context, Result};
use candle_core::{DType, Device};
use ror_infer::{Engine, Input, OperationTime};
use ror_models::{Network, Parameters};
use serde::Serialize;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Measure how fast a model runs
///
/// Runs batches of random images through the compiled model. Without weights, random ones: speed does not depend on
/// them. Latency is that of a batch.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  ror bench --model ror-3-wrn-40-2 --batch-size 64\n  \
    ror bench --weights w.safetensors --batch-size 1 --profile"
)]
pub(crate) struct Args {
    /// Weights in any readable format, instead of random ones
    #[arg(short, long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// The model [default: keras-ror-3-wrn-40-2]; with weights, the one they are for
    #[command(flatten)]
    weights_options: WeightsOptions,
    #[command(flatten)]
    changes: ModelOptions,
    /// Images per batch
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = positive)]
    batch_size: usize,
    /// Threads [default: one per processor]
    #[arg(long, value_name = "T", value_parser = positive)]
    threads: Option<usize>,
    /// How long to measure
    #[arg(long, default_value_t = 5.0, value_name = "S", value_parser = seconds)]
    seconds: f64,
    /// Print the time of every operation
    #[arg(long, conflicts_with = "json")]
    profile: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The model that is measured where none is named.
const DEFAULT_MODEL: &str = "keras-ror-3-wrn-40-2";

#[derive(Serialize)]
struct Report {
    model: String,
    batch_size: usize,
    threads: usize,
    mode: &'static str,
    images_per_second: f64,
    latency_ms: Latency,
    peak_memory_bytes: u64,
    weight_bytes: usize,
    workspace_bytes: usize,
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
    let (network, mut engine) = engine(args)?;
    let (channels, h, w) = engine.image_shape();
    let images = noise(args.batch_size * channels * h * w);
    let mut output = vec![0.0; args.batch_size * engine.outputs()];
    let mut batch = || -> Result<Duration> {
        let start = Instant::now();
        engine.run(Input::F32(&images), &mut output)?;
        Ok(start.elapsed())
    };
    let limit = Duration::from_secs_f64(args.seconds);
    let warm = Instant::now();
    while warm.elapsed() < limit / 10 {
        batch()?;
    }
    let mut times = vec![batch()?];
    let start = Instant::now();
    while start.elapsed() < limit {
        times.push(batch()?);
    }
    times.sort_unstable();
    let report = report(args, &network, &engine, &times);
    if args.json {
        return print_json(&report);
    }
    print(&text(&report))?;
    if args.profile {
        let rounds = times.len().clamp(1, 20);
        let mut operations = engine.profile(Input::F32(&images), &mut output)?;
        for _ in 1..rounds {
            let more = engine.profile(Input::F32(&images), &mut output)?;
            for (total, more) in operations.iter_mut().zip(more) {
                total.time += more.time;
            }
        }
        print(&profile(&operations, rounds))?;
    }
    Ok(())
}

fn engine(args: &Args) -> Result<(Network, Engine)> {
    let options = compile_options(args.threads, args.batch_size);
    if let Some(path) = &args.weights {
        let weights = args.weights_options.load(path, Some(&args.changes))?;
        let network = weights.network()?;
        let engine = compile(&network, &weights, &options)?;
        return Ok((network, engine));
    }
    let name = args.weights_options.model().unwrap_or(DEFAULT_MODEL);
    let network = args.changes.network(name)?;
    let weights = Parameters::init(&network, 1, DType::F32, &Device::Cpu)?;
    let engine = Engine::compile(&network, &weights.var_builder(), &options);
    Ok((network, engine.context("cannot compile the model")?))
}

fn report(args: &Args, network: &Network, engine: &Engine, sorted: &[Duration]) -> Report {
    let total: f64 = sorted.iter().map(Duration::as_secs_f64).sum();
    // The nearest rank.
    let percentile = |p: usize| {
        let rank = (sorted.len() * p).div_ceil(100).max(1);
        sorted[rank - 1].as_secs_f64() * 1e3
    };
    Report {
        model: network.description.to_string(),
        batch_size: args.batch_size,
        threads: engine.threads(),
        mode: "inference",
        images_per_second: (sorted.len() * args.batch_size) as f64 / total,
        latency_ms: Latency {
            p50: percentile(50),
            p90: percentile(90),
            p99: percentile(99),
        },
        peak_memory_bytes: peak_memory().unwrap_or_else(|| {
            note("note: this system does not tell the peak memory; counting the engine's own");
            (engine.weight_bytes() + engine.workspace_bytes()) as u64
        }),
        weight_bytes: engine.weight_bytes(),
        workspace_bytes: engine.workspace_bytes(),
        parameters: network.parameters(),
        multiply_adds: engine.multiply_adds() as u64,
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
    let mebibytes = |bytes: f64| format!("{:.1} MiB", bytes / 1024.0 / 1024.0);
    let rows: Vec<Vec<String>> = [
        ("model", report.model.clone()),
        ("batch size", report.batch_size.to_string()),
        ("threads", report.threads.to_string()),
        ("images/s", format!("{:.1}", report.images_per_second)),
        ("latency p50", format!("{:.3} ms", report.latency_ms.p50)),
        ("latency p90", format!("{:.3} ms", report.latency_ms.p90)),
        ("latency p99", format!("{:.3} ms", report.latency_ms.p99)),
        ("peak memory", mebibytes(report.peak_memory_bytes as f64)),
        ("packed weights", mebibytes(report.weight_bytes as f64)),
        ("working memory", mebibytes(report.workspace_bytes as f64)),
        ("parameters", report.parameters.to_string()),
        ("multiply-adds per image", report.multiply_adds.to_string()),
    ]
    .into_iter()
    .map(|(name, value)| vec![name.to_owned(), value])
    .collect();
    table(&["", "inference"], &rows, &[1])
}

fn profile(operations: &[OperationTime], rounds: usize) -> String {
    let total: f64 = operations.iter().map(|o| o.time.as_secs_f64()).sum();
    let row = |path: &str, kind: &str, multiply_adds: usize, seconds: f64| {
        let rate = (multiply_adds * rounds) as f64 / seconds.max(1e-12) / 1e9;
        vec![
            path.to_owned(),
            kind.to_owned(),
            format!("{:.3} ms", seconds / rounds as f64 * 1e3),
            format!("{:.1} %", seconds / total.max(1e-12) * 100.0),
            format!("{rate:.1} G/s"),
        ]
    };
    let mut rows: Vec<_> = operations
        .iter()
        .map(|o| row(&o.path, &o.kind, o.multiply_adds, o.time.as_secs_f64()))
        .collect();
    let multiply_adds = operations.iter().map(|o| o.multiply_adds).sum();
    rows.push(row("total", "", multiply_adds, total));
    let header = ["operation", "kind", "time", "share", "multiply-adds"];
    format!("\n{}", table(&header, &rows, &[2, 3, 4]))
}

/// Numbers between -1 and 1.
fn noise(count: usize) -> Vec<f32> {
    let mut state = 1u32;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(s) if s > 0.0 && s <= 86_400.0 => Ok(s),
        _ => Err("expected seconds, above 0 and at most a day".to_owned()),
    }
}
