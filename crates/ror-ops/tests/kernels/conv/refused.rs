//! Arguments that no convolution can be made or run from.

use ror_ops::kernels::{
    Algorithm, Block, Conv2d, Fused, Geometry, Isa, KernelError, MAX_TERMS, Output, Source, Term,
};

use crate::reference::{garbage, geometry, values};

#[test]
fn bad_arguments_are_refused() {
    let isa = Isa::detect();
    let g = geometry(16, 16, 3, 1, 1);
    let weight = values(16 * 16 * 9, 1);
    let new = |g, algorithm, weight: &[f32], bias: Option<&[f32]>| {
        Conv2d::new(isa, g, algorithm, weight, bias).err()
    };
    let direct = Algorithm::Direct;
    assert!(matches!(
        new(g, direct, &weight[1..], None),
        Some(KernelError::Length { what: "weight", .. })
    ));
    assert!(matches!(
        new(g, direct, &weight, Some(&[0.0])),
        Some(KernelError::Length { what: "bias", .. })
    ));
    assert!(matches!(
        new(Geometry { stride: 0, ..g }, direct, &weight, None),
        Some(KernelError::Shape { .. })
    ));
    for (stride, algorithm) in [(2, Algorithm::Winograd2), (3, Algorithm::Winograd4)] {
        assert!(matches!(
            new(Geometry { stride, ..g }, algorithm, &weight, None),
            Some(KernelError::Shape { .. })
        ));
    }
    let huge = Geometry {
        inputs: usize::MAX / 2,
        outputs: 3,
        ..g
    };
    assert!(matches!(
        new(huge, direct, &weight, None),
        Some(KernelError::Overflow(_))
    ));
    let mut infinite = weight.clone();
    infinite[7] = f32::INFINITY;
    assert!(matches!(
        new(g, direct, &infinite, None),
        Some(KernelError::NotFinite { index: 7, .. })
    ));

    let conv = Conv2d::new(isa, g, Algorithm::Winograd4, &weight, None).unwrap();
    let x = garbage(25);
    let mut y = garbage(25);
    let mut scratch = garbage(conv.scratch_len(1, 5, 5).unwrap());
    let none = Fused::default();
    let run = |dims, y: &mut [Block], fused: &Fused<'_>, scratch: &mut [Block]| {
        conv.run(dims, &x, fused, Output::raw(y), scratch).err()
    };
    assert!(run((1, 5, 4), &mut y[..20], &none, &mut scratch).is_some());
    assert!(run((1, 5, 5), &mut y[..24], &none, &mut scratch).is_some());
    assert!(run((1, 5, 5), &mut y, &none, &mut []).is_some());
    assert!(run((usize::MAX / 8, 5, 5), &mut y, &none, &mut scratch).is_some());
    let short = [Term {
        source: Source::Tensor(&x[1..]),
        relu: false,
    }];
    assert!(
        run(
            (1, 5, 5),
            &mut y,
            &Fused {
                terms: &short,
                ..none
            },
            &mut scratch
        )
        .is_some()
    );
    let many = [Term {
        source: Source::Tensor(&x),
        relu: false,
    }; MAX_TERMS + 1];
    assert!(
        run(
            (1, 5, 5),
            &mut y,
            &Fused {
                terms: &many,
                ..none
            },
            &mut scratch
        )
        .is_some()
    );
    let pooled = [Term {
        source: Source::Output,
        relu: false,
    }];
    let fused = Fused {
        terms: &pooled,
        pool: true,
        ..none
    };
    assert!(run((1, 5, 5), &mut y[..4], &fused, &mut scratch).is_some());
    assert!(conv.scratch_len(1, usize::MAX / 2, 9).is_err());
}
