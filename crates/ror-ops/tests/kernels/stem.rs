use proptest::prelude::*;
use ror_ops::kernels::{Dims, Fused, Geometry, Isa, Output, Plain, Pool, Stem};

use crate::reference::{convolve, error, garbage, normalised, plain, values};

fn check(
    isa: Isa,
    geometry: Geometry,
    (n, h, w): (usize, usize, usize),
    threads: usize,
    u8: bool,
) -> f64 {
    let input = Dims::new(n, geometry.inputs, h, w);
    let out = geometry.output(input).unwrap();
    let len = input.plain_len("x").unwrap();
    let pixels: Vec<u8> = values(len, 1)
        .iter()
        .map(|v| (v * 127.0 + 128.0) as u8)
        .collect();
    let (scale, shift) = (values(input.c, 4), values(input.c, 5));
    let x = if u8 {
        normalised(input, &pixels, &scale, &shift)
    } else {
        values(len, 1)
    };
    let weight = values(
        geometry.inputs * geometry.outputs * geometry.kernel.0 * geometry.kernel.1,
        2,
    );
    let bias = values(geometry.outputs, 3);
    let stem = Stem::new(isa, geometry, &weight, Some(&bias)).unwrap();
    let images = if u8 {
        Plain::U8 {
            pixels: &pixels,
            scale: &scale,
            shift: &shift,
        }
    } else {
        Plain::F32(&x)
    };
    let fused = Fused {
        relu: true,
        ..Fused::default()
    };
    let mut y = garbage(out.block_len("y").unwrap());
    let scratch = stem.scratch_len(h, w).unwrap();
    if threads == 0 {
        stem.run(
            (n, h, w),
            images,
            &fused,
            Output::raw(&mut y),
            &mut garbage(scratch),
        )
        .unwrap();
    } else {
        let pool = Pool::new(threads).unwrap();
        let mut scratch = garbage(scratch * threads);
        stem.run_on(
            &pool,
            (n, h, w),
            images,
            &fused,
            Output::raw(&mut y),
            &mut scratch,
        )
        .unwrap();
    }
    let mut expected = convolve(geometry, input, &x, &weight, &bias);
    expected.iter_mut().for_each(|v| *v = v.max(0.0));
    error(&plain(out, &y), &expected)
}

#[test]
fn the_stems_of_the_networks_match_the_twin() {
    for isa in Isa::supported() {
        for (outputs, kernel, stride, padding) in [(16, 3, 1, 1), (64, 7, 2, 3)] {
            let geometry = Geometry {
                inputs: 3,
                outputs,
                kernel: (kernel, kernel),
                stride,
                padding,
            };
            for (n, h, w) in [(2, 32, 32), (1, 33, 17), (0, 32, 32), (5, 7, 3)] {
                let e = check(isa, geometry, (n, h, w), 0, false);
                assert!(e < 3e-6, "{isa:?} {geometry:?} {n}x{h}x{w}: {e:e}");
            }
        }
    }
}

#[test]
fn a_stem_refuses_strides_that_it_has_no_kernel_for() {
    let geometry = Geometry {
        inputs: 1,
        outputs: 1,
        kernel: (1, 1),
        stride: 3,
        padding: 0,
    };
    assert!(Stem::new(Isa::detect(), geometry, &[1.0], None).is_err());
}

#[test]
fn a_stem_refuses_images_that_do_not_fit() {
    let geometry = Geometry {
        inputs: 3,
        outputs: 16,
        kernel: (3, 3),
        stride: 1,
        padding: 1,
    };
    let stem = Stem::new(Isa::detect(), geometry, &[0.5; 16 * 27], None).unwrap();
    let mut y = garbage(16);
    assert!(stem.scratch_len(4, usize::MAX).is_err());
    let mut scratch = garbage(stem.scratch_len(4, 4).unwrap());
    let mut run = |images: Plain<'_>| {
        let output = Output::raw(&mut y);
        let size = (1, 4, 4);
        stem.run(size, images, &Fused::default(), output, &mut scratch)
            .is_ok()
    };
    assert!(run(Plain::F32(&[0.0; 48])));
    assert!(!run(Plain::F32(&[0.0; 47])));
    let mut of_bytes = |pixels: &[u8], scale: &[f32]| {
        let shift = &[0.0; 3];
        run(Plain::U8 {
            pixels,
            scale,
            shift,
        })
    };
    assert!(of_bytes(&[7; 48], &[1.0; 3]));
    assert!(!of_bytes(&[7; 47], &[1.0; 3]));
    assert!(!of_bytes(&[7; 48], &[1.0; 2]));
    assert!(!of_bytes(&[7; 48], &[1.0, f32::NAN, 1.0]));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_stem_matches_the_twin(
        (inputs, outputs) in (1usize..6, 1usize..50),
        kernel in (1usize..8, 1usize..8),
        stride in 1usize..3,
        padding in 0usize..4,
        (n, h, w) in (0usize..4, 1usize..24, 1usize..24),
        threads in 0usize..4,
        u8 in any::<bool>(),
        isa in proptest::sample::select(Isa::supported()),
    ) {
        let geometry = Geometry { inputs, outputs, kernel, stride, padding };
        prop_assume!(h + 2 * padding >= kernel.0 && w + 2 * padding >= kernel.1);
        let e = check(isa, geometry, (n, h, w), threads, u8);
        prop_assert!(e < 3e-6, "{e:e}");
    }
}
