//! Networks that nobody thought of.

use crate::tape::{network, step};
use proptest::prelude::*;
use proptest::sample::select;
use ror_models::{Description, Dialect, Family, Network, ShortcutKind};

/// One to five levels of any kinds of shortcuts in any family, and the side of its images.
fn descriptions() -> impl Strategy<Value = (Description, usize)> {
    use Dialect::{Keras, Paper, Pytorchcv};
    use Family::{ImageNet, PreRor, Ror, Wrn};
    let families = vec![
        (Paper, Ror),
        (Paper, PreRor),
        (Paper, Wrn),
        (Paper, ImageNet),
        (Keras, Ror),
        (Keras, Wrn),
        (Pytorchcv, Ror),
    ];
    let kind = select(vec![ShortcutKind::A, ShortcutKind::B, ShortcutKind::C]);
    let kinds = prop::collection::vec(kind, 1..=5);
    let survival = prop::option::of(select(vec![0.4, 0.9]));
    let dropout = select(vec![0.0, 0.0, 0.3]);
    (select(families), kinds, 9usize..=13, survival, dropout).prop_filter_map(
        "no such network",
        |((dialect, family), kinds, side, survival, dropout)| {
            let blocks = 1 << kinds.len().saturating_sub(3);
            let (depth, side) = match (dialect, family) {
                (_, ImageNet) => (18, 65),
                (Keras, Ror) => (56, 12),
                (Keras, _) => (6 * blocks + 4, 12),
                (Pytorchcv, _) => (6 * blocks + 8, 12),
                (_, Wrn) => (6 * blocks + 4, side),
                _ if side % 3 == 0 => (9 * blocks + 2, side),
                _ => (6 * blocks + 2, side),
            };
            let mut description = Description::new(dialect, family, depth, 1)
                .ok()?
                .with_shortcuts(&kinds)
                .with_dropout(dropout);
            description.stochastic_depth = survival;
            description.classes = 7;
            description.validate().ok()?;
            Some((description, side))
        },
    )
}

/// Rounding decides signs of rectifiers' values, and is magnified where few values are normalised;
/// what is left out or added twice is a lot more.
fn agrees(network: &Network, n: usize, side: usize, threads: usize) {
    let off = step(network, n, side, threads, 1).unwrap();
    let outputs = off.evaluation < 1e-3 && off.loss < 1e-2 && off.logits < 1e-2;
    let statistics = off.statistics.iter().all(|(_, off)| *off < 1e-2);
    let name = &network.description;
    assert!(outputs && statistics && off.whole < 0.1, "{name}: {off:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_network_agrees_with_the_tape(
        (description, side) in descriptions(),
        n in 2usize..=4,
        threads in 1usize..=5,
    ) {
        agrees(&network(&description), n, side, threads);
    }
}

#[test]
fn a_projection_over_blocks_that_end_with_a_rectifier_is_added_after_them() {
    use ShortcutKind::{B, C};
    for kinds in [&[C, C, C, B][..], &[C, C, B, B], &[C, C, C, C, B]] {
        let description = Description::preset("keras-ror-3-56").unwrap();
        agrees(&network(&description.with_shortcuts(kinds)), 3, 12, 2);
    }
}

#[test]
fn blocks_without_their_shortcut_or_their_residual_agree() {
    let whole = network(&Description::preset("ror-3-14-sd").unwrap());
    for lesion in whole.lesions() {
        agrees(&whole.without(&lesion).unwrap(), 3, 9, 2);
    }
}
