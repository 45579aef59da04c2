//! Benchmarks of operations, blocks and models; what they share is here.

#![allow(missing_docs, clippy::unwrap_used, reason = "helpers of benchmarks")]

use candle_core::{DType, Device, Tensor};
use criterion::{BenchmarkGroup, BenchmarkId, Throughput, measurement::WallTime};
use ror_infer::{Engine, Input, Options};
use ror_models::{Network, Parameters};

/// Images per second of a network, operation by operation and compiled.
pub fn plain_and_compiled(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    network: &Network,
    batch: usize,
) {
    let weights = Parameters::init(network, 1, DType::F32, &Device::Cpu).unwrap();
    let shape = network.input_shape();
    let dims = (batch, shape.channels, shape.height, shape.width);
    let x = Tensor::randn(0f32, 1.0, dims, &Device::Cpu).unwrap();
    group.throughput(Throughput::Elements(batch as u64));
    let model = weights.evaluator(network).unwrap();
    group.bench_function(BenchmarkId::new("plain", name), |b| {
        b.iter(|| model.forward(&x).unwrap());
    });
    let options = Options::default().batch_size(batch);
    let mut engine = Engine::compile(network, &weights.var_builder(), &options).unwrap();
    let x: Vec<f32> = x.flatten_all().unwrap().to_vec1().unwrap();
    let mut y = vec![0.0; batch * engine.outputs()];
    group.bench_function(BenchmarkId::new("compiled", name), |b| {
        b.iter(|| engine.run(Input::F32(&x), &mut y).unwrap());
    });
}
