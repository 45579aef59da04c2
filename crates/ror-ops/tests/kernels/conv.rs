mod refused;

use proptest::prelude::*;
use ror_ops::kernels::{
    Algorithm, Block, Conv2d, Dims, Fused, Geometry, Isa, Output, Pool, Preact, Source, Term,
    channel_blocks,
};

use crate::reference::{blocked, convolve, error, garbage, max_pool, plain, values};

/// What is fused into the convolution under test.
#[derive(Clone, Copy, Debug, Default)]
struct Extras {
    relu: bool,
    /// Added tensors; whether a ReLU follows each.
    terms: &'static [bool],
    /// Adds the old output, in place.
    in_place: bool,
    pool: bool,
    raw: bool,
    preact: bool,
}

const PLAIN: Extras = Extras {
    relu: false,
    terms: &[],
    in_place: false,
    pool: false,
    raw: true,
    preact: false,
};

/// Runs one convolution on `threads` threads and compares all it writes with the twin.
fn check(
    isa: Isa,
    algorithm: Algorithm,
    geometry: Geometry,
    (n, h, w): (usize, usize, usize),
    extras: Extras,
    threads: usize,
) -> f64 {
    let input = Dims::new(n, geometry.inputs, h, w);
    let out = geometry.output(input).unwrap();
    let (kh, kw) = geometry.kernel;
    let x = values(input.plain_len("x").unwrap(), 1);
    let weight = values(geometry.inputs * geometry.outputs * kh * kw, 2);
    let bias = values(geometry.outputs, 3);
    let conv = Conv2d::new(isa, geometry, algorithm, &weight, Some(&bias)).unwrap();
    assert_eq!(conv.weight_bytes(), algorithm.packed_bytes(&geometry));

    let written = if extras.pool {
        Dims {
            h: out.h / 2,
            w: out.w / 2,
            ..out
        }
    } else {
        out
    };
    let terms: Vec<Vec<f32>> = (0..extras.terms.len() as u64)
        .map(|i| values(out.plain_len("y").unwrap(), 10 + i))
        .collect();
    let old = values(out.plain_len("y").unwrap(), 20);
    let (scale, shift) = (values(out.c, 30), values(out.c, 31));

    let blocks: Vec<_> = terms.iter().map(|t| blocked(out, t)).collect();
    let mut list: Vec<_> = blocks
        .iter()
        .zip(extras.terms)
        .map(|(t, &relu)| Term {
            source: Source::Tensor(t),
            relu,
        })
        .collect();
    let in_place = extras.in_place && extras.raw && !extras.pool;
    if in_place {
        list.push(Term {
            source: Source::Output,
            relu: false,
        });
    }
    let len = written.block_len("y").unwrap();
    let mut raw = if in_place {
        blocked(out, &old)
    } else {
        garbage(len)
    };
    let mut pre = garbage(len);
    let (scale_blocks, shift_blocks) = (channel_blocks(&scale), channel_blocks(&shift));
    let fused = Fused {
        relu: extras.relu,
        terms: &list,
        pool: extras.pool,
    };
    let preact = Preact {
        out: &mut pre,
        scale: &scale_blocks,
        shift: &shift_blocks,
    };
    let output = Output {
        raw: extras.raw.then_some(&mut raw[..]),
        preact: extras.preact.then_some(preact),
    };
    let blocked_x = blocked(input, &x);
    if threads == 0 {
        let mut scratch = garbage(conv.scratch_len(n, h, w).unwrap());
        conv.run((n, h, w), &blocked_x, &fused, output, &mut scratch)
            .unwrap();
    } else {
        let pool = Pool::new(threads).unwrap();
        let mut scratch = garbage(threads * conv.scratch_len(n, h, w).unwrap());
        conv.run_on(&pool, (n, h, w), &blocked_x, &fused, output, &mut scratch)
            .unwrap();
    }

    let mut y = convolve(geometry, input, &x, &weight, &bias);
    let relu = |y: &mut Vec<f64>, on: bool| {
        if on {
            y.iter_mut().for_each(|v| *v = v.max(0.0));
        }
    };
    relu(&mut y, extras.relu);
    for (term, &then) in terms.iter().zip(extras.terms) {
        y.iter_mut()
            .zip(term)
            .for_each(|(y, &t)| *y += f64::from(t));
        relu(&mut y, then);
    }
    if in_place {
        y.iter_mut()
            .zip(&old)
            .for_each(|(y, &t)| *y += f64::from(t));
    }
    if extras.pool {
        y = if written.h * written.w == 0 {
            Vec::new()
        } else {
            max_pool(out, 2, 2, 0, &y)
        };
    }
    let mut worst = 0f64;
    if extras.raw {
        worst = worst.max(error(&plain(written, &raw), &y));
        // What pads the last block must stay zero: the next layer multiplies it by its (zero) weights.
        assert!(padding_is_zero(written, &raw), "padding of the raw output");
    }
    if extras.preact {
        let pixels = written.h * written.w;
        for (i, v) in y.iter_mut().enumerate() {
            let c = i / pixels.max(1) % out.c;
            *v = (*v * f64::from(scale[c]) + f64::from(shift[c])).max(0.0);
        }
        worst = worst.max(error(&plain(written, &pre), &y));
        assert!(
            padding_is_zero(written, &pre),
            "padding of the pre-activation"
        );
    }
    worst
}

fn padding_is_zero(dims: Dims, x: &[Block]) -> bool {
    let (pixels, last) = (dims.h * dims.w, dims.c.div_ceil(16) - 1);
    let used = dims.c - last * 16;
    let mut blocks = x
        .iter()
        .enumerate()
        .filter(|(i, _)| i / pixels % (last + 1) == last);
    blocks.all(|(_, block)| block.0[used..].iter().all(|&v| v == 0.0))
}

fn tolerance(algorithm: Algorithm) -> f64 {
    match algorithm {
        Algorithm::Winograd4 => 5e-5,
        Algorithm::Winograd2 => 5e-6,
        Algorithm::Direct => 3e-6,
    }
}

fn geometry(
    inputs: usize,
    outputs: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
) -> Geometry {
    Geometry {
        inputs,
        outputs,
        kernel: (kernel, kernel),
        stride,
        padding,
    }
}

const SIDES: [usize; 7] = [1, 3, 5, 7, 17, 31, 33];
const CHANNELS: [usize; 7] = [1, 3, 15, 16, 17, 48, 100];

#[test]
fn three_by_three_matches_the_twin_on_awkward_sizes() {
    for isa in Isa::supported() {
        for (algorithm, stride) in [
            (Algorithm::Winograd4, 1),
            (Algorithm::Winograd4, 2),
            (Algorithm::Winograd2, 1),
            (Algorithm::Direct, 1),
            (Algorithm::Direct, 2),
        ] {
            for (i, &h) in SIDES.iter().enumerate() {
                for (j, &inputs) in CHANNELS.iter().enumerate() {
                    // Every side meets every channel count; widths, outputs and batches rotate.
                    let w = SIDES[(i + 3 * j) % SIDES.len()];
                    let outputs = CHANNELS[(2 * i + j) % CHANNELS.len()];
                    let n = [1, 2, 5, 0][(i + 2 * j) % 4];
                    let e = check(
                        isa,
                        algorithm,
                        geometry(inputs, outputs, 3, stride, 1),
                        (n, h, w),
                        PLAIN,
                        0,
                    );
                    assert!(
                        e < tolerance(algorithm),
                        "{isa:?} {algorithm:?} /{stride} {inputs}->{outputs} {n}x{h}x{w}: {e:e}"
                    );
                }
            }
        }
    }
}

#[test]
fn tiles_at_every_edge_match_the_twin() {
    let residual = Extras {
        terms: &[false],
        preact: true,
        ..PLAIN
    };
    let relu = Extras {
        relu: true,
        ..PLAIN
    };
    let sides = [1, 2, 3, 4, 5, 7, 8, 9];
    for isa in Isa::supported() {
        for stride in [1, 2] {
            let geometry = geometry(17, 33, 3, stride, 1);
            for &algorithm in Algorithm::applicable(&geometry) {
                for (i, h) in sides.into_iter().enumerate() {
                    for (j, w) in sides.into_iter().enumerate() {
                        let extras = [PLAIN, relu, residual][(i + j) % 3];
                        let e = check(isa, algorithm, geometry, (1, h, w), extras, 0);
                        assert!(
                            e < tolerance(algorithm),
                            "{isa:?} {algorithm:?} /{stride} {h}x{w} {extras:?}: {e:e}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn networks_own_shapes_match_the_twin() {
    let shapes = [
        (geometry(32, 32, 3, 1, 1), 32),
        (geometry(64, 64, 3, 1, 1), 16),
        (geometry(128, 128, 3, 1, 1), 8),
        (geometry(64, 128, 1, 2, 0), 16),
        (geometry(16, 128, 1, 4, 0), 32),
        (geometry(32, 64, 3, 2, 1), 32),
        (geometry(64, 128, 3, 2, 1), 16),
        (geometry(64, 96, 3, 2, 1), 14),
        (geometry(320, 320, 3, 1, 1), 8),
        (geometry(512, 512, 3, 1, 1), 7),
        (geometry(320, 640, 3, 2, 1), 8),
        (geometry(3, 64, 7, 2, 3), 33),
        (geometry(96, 256, 1, 1, 0), 7),
    ];
    for isa in Isa::supported() {
        for (geometry, side) in shapes {
            for &algorithm in Algorithm::applicable(&geometry) {
                let e = check(isa, algorithm, geometry, (1, side, side), PLAIN, 0);
                assert!(
                    e < tolerance(algorithm),
                    "{isa:?} {algorithm:?} {geometry:?} {side}: {e:e}"
                );
            }
        }
    }
}

#[test]
fn one_call_split_over_any_number_of_threads_gives_the_same() {
    for threads in [1, 2, 3, 8] {
        for (n, side, channels, stride) in [
            (1, 8, 128, 1),
            (1, 33, 17, 1),
            (1, 33, 17, 2),
            (2, 7, 48, 1),
            (2, 16, 48, 2),
            (5, 3, 16, 1),
            (0, 5, 16, 2),
        ] {
            let geometry = geometry(channels, channels, 3, stride, 1);
            for &algorithm in Algorithm::applicable(&geometry) {
                let e = check(
                    Isa::detect(),
                    algorithm,
                    geometry,
                    (n, side, side),
                    PLAIN,
                    threads,
                );
                assert!(
                    e < tolerance(algorithm),
                    "{threads} threads, {algorithm:?} /{stride}, {n}x{side}: {e:e}"
                );
            }
        }
    }
}

#[test]
fn a_convolution_does_not_depend_on_how_it_is_split() {
    for stride in [1, 2] {
        does_not_depend_on_how_it_is_split(geometry(40, 72, 3, stride, 1));
    }
}

fn does_not_depend_on_how_it_is_split(geometry: Geometry) {
    let (n, h, w) = (3, 17, 13);
    let dims = Dims::new(n, 40, h, w);
    let x = blocked(dims, &values(dims.plain_len("x").unwrap(), 1));
    let weight = values(40 * 72 * 9, 2);
    for isa in Isa::supported() {
        for &algorithm in Algorithm::applicable(&geometry) {
            let conv = Conv2d::new(isa, geometry, algorithm, &weight, None).unwrap();
            let len = geometry.output(dims).unwrap().block_len("y").unwrap();
            let mut alone = garbage(len);
            let mut scratch = garbage(conv.scratch_len(n, h, w).unwrap());
            conv.run(
                (n, h, w),
                &x,
                &Fused::default(),
                Output::raw(&mut alone),
                &mut scratch,
            )
            .unwrap();
            for threads in 1..6 {
                let pool = Pool::new(threads).unwrap();
                let mut split = garbage(len);
                let mut scratch = garbage(threads * conv.scratch_len(n, h, w).unwrap());
                let output = Output::raw(&mut split);
                conv.run_on(
                    &pool,
                    (n, h, w),
                    &x,
                    &Fused::default(),
                    output,
                    &mut scratch,
                )
                .unwrap();
                assert_eq!(alone, split, "{isa:?} {algorithm:?} on {threads} threads");
            }
        }
    }
}

#[test]
fn not_a_number_goes_through_and_stays_near() {
    let geometry = geometry(16, 16, 3, 1, 1);
    let dims = Dims::new(1, 16, 12, 12);
    let mut x = blocked(dims, &values(16 * 144, 1));
    x[0].0[3] = f32::NAN;
    for isa in Isa::supported() {
        for &algorithm in Algorithm::applicable(&geometry) {
            let conv =
                Conv2d::new(isa, geometry, algorithm, &values(16 * 16 * 9, 2), None).unwrap();
            let mut y = garbage(144);
            let mut scratch = garbage(conv.scratch_len(1, 12, 12).unwrap());
            let fused = Fused {
                relu: true,
                ..Fused::default()
            };
            conv.run((1, 12, 12), &x, &fused, Output::raw(&mut y), &mut scratch)
                .unwrap();
            assert!(y[0].0[0].is_nan());
            assert!(y[143].0.iter().all(|v| v.is_finite()));
        }
    }
}

const TERMS: [&[bool]; 5] = [&[], &[false], &[true], &[true, false], &[false, true]];

fn extras() -> impl Strategy<Value = Extras> {
    let flags = (
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
    );
    (flags, 0..TERMS.len()).prop_map(|((relu, in_place, pool, raw, preact), terms)| Extras {
        relu,
        terms: TERMS[terms],
        in_place,
        pool,
        raw: raw || !preact,
        preact,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn three_by_three_with_anything_fused_matches_the_twin(
        (inputs, outputs) in (1usize..50, 1usize..70),
        size in (0usize..4, 1usize..20, 1usize..20),
        extras in extras(),
        threads in 0usize..4,
        isa in proptest::sample::select(Isa::supported()),
        stride in 1usize..3,
        algorithm in any::<proptest::sample::Selector>(),
    ) {
        let geometry = geometry(inputs, outputs, 3, stride, 1);
        let algorithm = *algorithm.select(Algorithm::applicable(&geometry));
        let extras = Extras { pool: extras.pool && algorithm != Algorithm::Direct, ..extras };
        let e = check(isa, algorithm, geometry, size, extras, threads);
        prop_assert!(e < tolerance(algorithm), "{e:e}");
    }

    #[test]
    fn any_geometry_matches_the_twin(
        (inputs, outputs) in (1usize..50, 1usize..50),
        kernel in (1usize..6, 1usize..6),
        stride in 1usize..5,
        padding in 0usize..4,
        (n, h, w) in (0usize..4, 1usize..20, 1usize..20),
        extras in extras(),
        threads in 0usize..4,
        isa in proptest::sample::select(Isa::supported()),
    ) {
        let geometry = Geometry { inputs, outputs, kernel, stride, padding };
        prop_assume!(h + 2 * padding >= kernel.0 && w + 2 * padding >= kernel.1);
        let extras = Extras { pool: false, ..extras };
        let e = check(isa, Algorithm::Direct, geometry, (n, h, w), extras, threads);
        prop_assert!(e < tolerance(Algorithm::Direct), "{e:e}");
    }
}
