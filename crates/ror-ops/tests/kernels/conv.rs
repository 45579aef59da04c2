mod property;
mod refused;
mod twin;

use ror_ops::kernels::{Algorithm, Conv2d, Dims, Fused, Geometry, Isa, Output, Pool};

use crate::reference::{blocked, garbage, geometry, values};
use twin::{Extras, PLAIN, check, tolerance};

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
