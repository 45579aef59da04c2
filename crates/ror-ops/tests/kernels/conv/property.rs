//! Random shapes and fusions.

use proptest::prelude::*;
use ror_ops::kernels::{Algorithm, Geometry, Isa};

use super::twin::{Extras, check, tolerance};
use crate::reference::geometry;

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
