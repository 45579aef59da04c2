//! Training batch normalisation, sums, pools and the classifier's end, against plain loops.

use ror_ops::kernels::{
    Addend, Affine, Block, Dims, GradientMoments, Isa, Linear, MaxPool, Moments, NormGradient,
    channel_blocks, channel_sums, global_average_pool_gradient, pad_shortcut,
    pad_shortcut_gradient, relu_gradient, softmax_cross_entropy, sum,
};

use crate::reference::{blocked, error, garbage, plain, values};

const SIZES: [Dims; 4] = [
    Dims {
        n: 3,
        c: 20,
        h: 5,
        w: 7,
    },
    Dims {
        n: 1,
        c: 16,
        h: 1,
        w: 3,
    },
    Dims {
        n: 2,
        c: 33,
        h: 16,
        w: 17,
    },
    Dims {
        n: 5,
        c: 3,
        h: 2,
        w: 2,
    },
];

fn channel(dims: Dims, i: usize) -> usize {
    i / (dims.h * dims.w) % dims.c
}

fn moments(dims: Dims, x: &[f32]) -> Vec<(f64, f64)> {
    let m = (dims.n * dims.h * dims.w) as f64;
    let of = |c: usize| {
        x.iter()
            .enumerate()
            .filter(move |&(i, _)| channel(dims, i) == c)
    };
    (0..dims.c)
        .map(|c| {
            let mean = of(c).map(|(_, &v)| f64::from(v)).sum::<f64>() / m;
            let squares = of(c).map(|(_, &v)| (f64::from(v) - mean).powi(2));
            (mean, squares.sum::<f64>() / m)
        })
        .collect()
}

fn f32s(values: impl Iterator<Item = f64>) -> Vec<Block> {
    channel_blocks(&values.map(|v| v as f32).collect::<Vec<_>>())
}

#[test]
fn moments_far_from_zero_keep_their_digits() {
    for isa in Isa::supported() {
        for dims in SIZES {
            let mut x = values(dims.plain_len("x").unwrap(), 1);
            for (i, v) in x.iter_mut().enumerate() {
                // Mean 300 deviations away from zero, another for each channel.
                *v = *v * 0.5 + 100.0 + channel(dims, i) as f32;
            }
            let bx = blocked(dims, &x);
            let image = bx.len() / dims.n;
            let split = dims.n / 2;
            let mut parts = [
                Moments::new(dims.c),
                Moments::new(dims.c),
                Moments::new(dims.c),
            ];
            for (part, range) in parts.iter_mut().zip([0..split, split..dims.n]) {
                for i in range {
                    let one = Dims { n: 1, ..dims };
                    part.add(isa, one, &bx[i * image..(i + 1) * image]).unwrap();
                }
            }
            let found = Moments::total(&parts.iter().collect::<Vec<_>>()).unwrap();
            for ((mean, variance), (m, v)) in found.into_iter().zip(moments(dims, &x)) {
                assert!((mean - m).abs() < 1e-6, "{isa:?} {dims:?}: {mean} {m}");
                assert!((variance - v).abs() < 1e-5 * v + 1e-9, "{variance} {v}");
            }
            parts[0].clear();
            assert_eq!(parts[0].count(), 0);
        }
    }
}

#[test]
fn normalisation_and_its_gradient_equal_the_formulas() {
    for isa in Isa::supported() {
        for (dims, relu) in SIZES.into_iter().flat_map(|d| [(d, false), (d, true)]) {
            let len = dims.plain_len("x").unwrap();
            let (x, da) = (values(len, 1), values(len, 2));
            let (gamma, beta) = (values(dims.c, 3), values(dims.c, 4));
            let statistics = moments(dims, &x);
            let m = (dims.n * dims.h * dims.w) as f64;
            let inverse = |c: usize| 1.0 / (statistics[c].1 + 1e-3).sqrt();
            let scale = |c: usize| f64::from(gamma[c]) * inverse(c);
            let z = |i: usize| {
                let c = channel(dims, i);
                (f64::from(x[i]) - statistics[c].0) * scale(c) + f64::from(beta[c])
            };
            let dz = |i: usize| {
                if relu && z(i) <= 0.0 {
                    0.0
                } else {
                    f64::from(da[i])
                }
            };
            let mut sums = vec![(0.0, 0.0); dims.c];
            for (i, &x) in x.iter().enumerate() {
                let c = channel(dims, i);
                sums[c].0 += dz(i);
                sums[c].1 += dz(i) * (f64::from(x) - statistics[c].0);
            }
            let dx: Vec<f64> = (0..len)
                .map(|i| {
                    let c = channel(dims, i);
                    let hat = (f64::from(x[i]) - statistics[c].0) * inverse(c);
                    scale(c) * (dz(i) - sums[c].0 / m - hat * sums[c].1 * inverse(c) / m)
                })
                .collect();

            let (bx, bda) = (blocked(dims, &x), blocked(dims, &da));
            let mean = f32s(statistics.iter().map(|s| s.0));
            let scales = f32s((0..dims.c).map(scale));
            let shift = channel_blocks(&beta);
            let affine = Affine {
                mean: &mean,
                scale: &scales,
                shift: &shift,
            };
            let addend = Addend {
                x: &bx,
                affine: Some(affine),
                factor: 1.0,
            };
            let mut y = garbage(bx.len());
            sum(isa, dims, &[addend], false, relu, &mut y).unwrap();
            let expected: Vec<f64> = (0..len)
                .map(|i| if relu { z(i).max(0.0) } else { z(i) })
                .collect();
            assert!(error(&plain(dims, &y), &expected) < 1e-6);
            assert!(
                y.iter()
                    .zip(&bx)
                    .all(|(y, x)| y.0.iter().zip(x.0).all(|(y, _)| y.is_finite()))
            );

            let mut parts = [GradientMoments::new(dims.c), GradientMoments::new(dims.c)];
            parts[1].add(isa, dims, &bx, &bda, &affine, relu).unwrap();
            let found = GradientMoments::total(&parts.iter().collect::<Vec<_>>()).unwrap();
            for (found, expected) in found.iter().zip(&sums) {
                assert!((found.0 - expected.0).abs() < 1e-4 && (found.1 - expected.1).abs() < 1e-4);
            }
            let slope = f32s((0..dims.c).map(|c| -scale(c) * found[c].1 * inverse(c).powi(2) / m));
            let offset = f32s((0..dims.c).map(|c| -scale(c) * found[c].0 / m));
            let gradient = NormGradient {
                affine,
                relu,
                slope: &slope,
                offset: &offset,
            };
            let mut out = garbage(bx.len());
            gradient.run(isa, dims, &bx, &bda, &mut out, false).unwrap();
            let off = error(&plain(dims, &out), &dx);
            assert!(off < 1e-5, "{isa:?} {dims:?} {relu}: {off}");
            gradient.run(isa, dims, &bx, &bda, &mut out, true).unwrap();
            let twice: Vec<f64> = dx.iter().map(|v| 2.0 * v).collect();
            assert!(error(&plain(dims, &out), &twice) < 1e-5);
            let real = (dims.c - 1) % 16 + 1;
            let last = &out[out.len() - dims.h * dims.w..];
            assert!(
                last.iter().all(|b| b.0[real..].iter().all(|&v| v == 0.0)),
                "padding"
            );
        }
    }
}

#[test]
fn sums_of_scaled_tensors_and_rectifier_gradients_equal_the_twin() {
    for isa in Isa::supported() {
        for dims in SIZES {
            let len = dims.plain_len("x").unwrap();
            let (a, b) = (values(len, 1), values(len, 2));
            let (ba, bb) = (blocked(dims, &a), blocked(dims, &b));
            let addends = [
                Addend::plain(&ba),
                Addend {
                    factor: 0.25,
                    ..Addend::plain(&bb)
                },
            ];
            let mut y = garbage(ba.len());
            sum(isa, dims, &addends[..1], false, false, &mut y).unwrap();
            sum(isa, dims, &addends[1..], true, true, &mut y).unwrap();
            let expected: Vec<f64> = a
                .iter()
                .zip(&b)
                .map(|(&a, &b)| (f64::from(a) + 0.25 * f64::from(b)).max(0.0))
                .collect();
            assert!(error(&plain(dims, &y), &expected) < 1e-6);

            let mut gradient = bb.clone();
            relu_gradient(isa, &y, &mut gradient).unwrap();
            for (g, (e, &b)) in plain(dims, &gradient)
                .into_iter()
                .zip(expected.iter().zip(&b))
            {
                assert_eq!(g, if *e > 0.0 { b } else { 0.0 });
            }

            let mut sums = vec![[0.0; 16]; dims.c.div_ceil(16)];
            channel_sums(isa, dims, &ba, &mut sums).unwrap();
            for c in 0..dims.c {
                let expected: f64 = (0..len)
                    .filter(|&i| channel(dims, i) == c)
                    .map(|i| f64::from(a[i]))
                    .sum();
                assert!((sums[c / 16][c % 16] - expected).abs() < 1e-4);
            }
        }
    }
}

#[test]
fn max_pool_gradient_goes_to_the_first_maximum() {
    for isa in Isa::supported() {
        for (dims, size, stride, padding) in [
            (Dims::new(2, 20, 8, 8), 2, 2, 0),
            (Dims::new(2, 5, 7, 9), 3, 2, 1),
            (Dims::new(1, 16, 5, 5), 3, 1, 1),
            (Dims::new(1, 16, 5, 6), 2, 2, 0),
        ] {
            let pool = MaxPool {
                size,
                stride,
                padding,
            };
            let out = pool.output(dims).unwrap();
            // Few distinct values, so that many windows have ties.
            let x: Vec<f32> = values(dims.plain_len("x").unwrap(), 1)
                .into_iter()
                .map(|v| (v * 3.0).round())
                .collect();
            let dy = values(out.plain_len("dy").unwrap(), 2);
            let mut dx = vec![0.0; x.len()];
            for plane in 0..dims.n * dims.c {
                for oy in 0..out.h {
                    for ox in 0..out.w {
                        let mut best: Option<usize> = None;
                        for ky in 0..size {
                            for kx in 0..size {
                                let iy = (oy * stride + ky).wrapping_sub(padding);
                                let ix = (ox * stride + kx).wrapping_sub(padding);
                                if iy < dims.h && ix < dims.w {
                                    let i = (plane * dims.h + iy) * dims.w + ix;
                                    if best.is_none_or(|b| x[i] > x[b]) {
                                        best = Some(i);
                                    }
                                }
                            }
                        }
                        dx[best.unwrap()] += f64::from(dy[(plane * out.h + oy) * out.w + ox]);
                    }
                }
            }
            let (bx, bdy) = (blocked(dims, &x), blocked(out, &dy));
            let mut found = garbage(bx.len());
            pool.gradient(isa, dims, &bx, &bdy, &mut found).unwrap();
            assert!(error(&plain(dims, &found), &dx) < 1e-6, "{pool:?}");
        }
    }
}

#[test]
fn shortcut_and_average_gradients_are_the_adjoints_of_their_operations() {
    // <f(x), dy> = <x, f'(dy)>
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(&a, &b)| f64::from(a) * f64::from(b))
            .sum()
    };
    for (input, stride, channels) in [
        (Dims::new(2, 16, 7, 8), 2, 40),
        (Dims::new(1, 20, 5, 5), 4, 33),
        (Dims::new(2, 20, 4, 4), 1, 24),
    ] {
        let out = Dims {
            c: channels,
            h: input.h.div_ceil(stride),
            w: input.w.div_ceil(stride),
            ..input
        };
        let x = values(input.plain_len("x").unwrap(), 1);
        let dy = values(out.plain_len("dy").unwrap(), 2);
        let mut y = garbage(out.block_len("y").unwrap());
        pad_shortcut(input, stride, channels, &blocked(input, &x), &mut y).unwrap();
        let mut dx = vec![Block::ZERO; input.block_len("dx").unwrap()];
        pad_shortcut_gradient(input, stride, channels, &blocked(out, &dy), &mut dx).unwrap();
        assert!((dot(&plain(out, &y), &dy) - dot(&x, &plain(input, &dx))).abs() < 1e-4);
        let real = (input.c - 1) % 16 + 1;
        let last = &dx[dx.len() - input.h * input.w..];
        assert!(
            last.iter().all(|b| b.0[real..].iter().all(|&v| v == 0.0)),
            "padding"
        );
    }
    let dims = Dims::new(2, 20, 3, 4);
    let dy = [
        Block([6.0; 16]),
        Block([12.0; 16]),
        Block([24.0; 16]),
        Block([0.0; 16]),
    ];
    let mut dx = garbage(dims.block_len("dx").unwrap());
    global_average_pool_gradient(dims, &dy, &mut dx).unwrap();
    assert!(dx[..12].iter().all(|b| b.0 == [0.5; 16]) && dx[24].0 == [2.0; 16]);
}

#[test]
fn classifier_and_loss_gradients_equal_finite_differences() {
    let (rows, inputs, outputs) = (3, 37, 5);
    let (x, weight, bias) = (
        values(rows * inputs, 1),
        values(outputs * inputs, 2),
        values(outputs, 3),
    );
    let targets: Vec<f32> = values(rows * outputs, 4)
        .into_iter()
        .map(f32::abs)
        .collect();
    let loss = |x: &[f32], weight: &[f32], bias: &[f32]| -> f64 {
        (0..rows)
            .map(|r| {
                let logits: Vec<f64> = (0..outputs)
                    .map(|o| {
                        let terms = (0..inputs).map(|i| {
                            f64::from(x[r * inputs + i]) * f64::from(weight[o * inputs + i])
                        });
                        f64::from(bias[o]) + terms.sum::<f64>()
                    })
                    .collect();
                let log_sum = logits.iter().map(|v| v.exp()).sum::<f64>().ln();
                let targets = &targets[r * outputs..][..outputs];
                logits
                    .iter()
                    .zip(targets)
                    .map(|(v, &t)| -f64::from(t) * (v - log_sum))
                    .sum::<f64>()
            })
            .sum()
    };
    for isa in Isa::supported() {
        let linear = Linear {
            weight: &weight,
            bias: &bias,
        };
        let mut logits = vec![f32::NAN; rows * outputs];
        linear.run(isa, rows, &x, &mut logits).unwrap();
        let mut dy = vec![f32::NAN; logits.len()];
        let found = softmax_cross_entropy(outputs, &logits, &targets, 1.0, &mut dy).unwrap();
        assert!((found - loss(&x, &weight, &bias)).abs() < 1e-5);
        let mut dx = vec![f32::NAN; x.len()];
        let (mut dw, mut db) = (vec![0.0; weight.len()], vec![0.0; bias.len()]);
        linear
            .gradient(isa, rows, &x, &dy, &mut dx, &mut dw, &mut db)
            .unwrap();
        let difference = |which: usize, i: usize| {
            let moved = |by: f32| {
                let mut all = [x.clone(), weight.clone(), bias.clone()];
                all[which][i] += by;
                (loss(&all[0], &all[1], &all[2]), f64::from(all[which][i]))
            };
            let ((up, high), (down, low)) = (moved(1e-2), moved(-1e-2));
            (up - down) / (high - low)
        };
        for (which, found) in [&dx, &dw, &db].into_iter().enumerate() {
            for (i, &found) in found.iter().enumerate() {
                let expected = difference(which, i);
                assert!(
                    (f64::from(found) - expected).abs() < 1e-3,
                    "{which} {i}: {found} {expected}"
                );
            }
        }
    }
}
