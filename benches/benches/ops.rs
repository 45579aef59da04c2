//! Convolutions of the networks, of every kind: candle's own, the operation that replaces it, the kernel alone.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use candle_core::{Device, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ror_ops::kernels::{Algorithm, Block, Conv2d, Dims, Fused, Geometry, Isa, Output, Pool};

/// Images, input channels, output channels, kernel, stride, rows and columns.
const SHAPES: &[(usize, usize, usize, usize, usize, usize)] = &[
    (16, 3, 16, 3, 1, 32),
    (16, 16, 16, 3, 1, 32),
    (16, 32, 32, 3, 1, 32),
    (16, 64, 64, 3, 1, 16),
    (16, 128, 128, 3, 1, 8),
    (4, 160, 160, 3, 1, 32),
    (4, 320, 320, 3, 1, 16),
    (4, 640, 640, 3, 1, 8),
    (16, 32, 64, 3, 2, 32),
    (16, 64, 128, 3, 2, 16),
    (16, 16, 32, 1, 1, 32),
    (16, 32, 64, 1, 2, 32),
    (16, 64, 128, 1, 2, 16),
    (16, 16, 128, 1, 4, 32),
    (1, 64, 64, 3, 1, 56),
    (1, 128, 128, 3, 1, 28),
    (1, 256, 256, 3, 1, 14),
    (1, 512, 512, 3, 1, 7),
    (1, 64, 256, 1, 1, 56),
    (1, 256, 64, 1, 1, 56),
    (1, 512, 1024, 1, 2, 28),
    (1, 3, 64, 7, 2, 224),
];

fn convolutions(c: &mut Criterion) {
    let pool = Pool::new_or_fewer(std::thread::available_parallelism().map_or(1, usize::from));
    let mut group = c.benchmark_group("convolution");
    for &(n, inputs, outputs, kernel, stride, size) in SHAPES {
        let geometry = Geometry {
            inputs,
            outputs,
            kernel: (kernel, kernel),
            stride,
            padding: kernel / 2,
        };
        let name = format!("{n}x{inputs}-{outputs}-{kernel}x{kernel}s{stride}-{size}");
        let multiply_adds = n * geometry.multiply_adds(size, size).unwrap();
        group.throughput(Throughput::Elements(multiply_adds as u64));
        let x = Tensor::randn(0f32, 1.0, (n, inputs, size, size), &Device::Cpu).unwrap();
        let w = Tensor::randn(0f32, 1.0, (outputs, inputs, kernel, kernel), &Device::Cpu).unwrap();
        group.bench_function(BenchmarkId::new("candle", &name), |b| {
            b.iter(|| x.conv2d(&w, kernel / 2, stride, 1, 1).unwrap());
        });
        group.bench_function(BenchmarkId::new("ror_ops::conv2d", &name), |b| {
            b.iter(|| ror_ops::conv2d(&x, &w, None, stride, kernel / 2).unwrap());
        });
        let weight: Vec<f32> = w.flatten_all().unwrap().to_vec1().unwrap();
        let input = Dims::new(n, inputs, size, size);
        let x = vec![Block::ZERO; input.block_len("x").unwrap()];
        let mut y = vec![Block::ZERO; geometry.output(input).unwrap().block_len("y").unwrap()];
        for &algorithm in Algorithm::applicable(&geometry) {
            let conv = Conv2d::new(Isa::detect(), geometry, algorithm, &weight, None).unwrap();
            let len = conv.scratch_len(n, size, size).unwrap() * pool.threads();
            let mut scratch = vec![Block::ZERO; len];
            group.bench_function(BenchmarkId::new(format!("{algorithm:?}"), &name), |b| {
                b.iter(|| {
                    let (shape, out) = ((n, size, size), Output::raw(&mut y));
                    conv.run_on(&pool, shape, &x, &Fused::default(), out, &mut scratch)
                        .unwrap();
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, convolutions);
criterion_main!(benches);
