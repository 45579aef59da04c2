//! Pooling, the dense layer, merges and shortcuts.

use proptest::prelude::*;
use ror_ops::kernels::{
    Block, Dense, Dims, Fused, Isa, MaxPool, Output, Source, Term, blocks, channel_blocks, dropout,
    global_average_pool, kept, merge, pad_shortcut,
};

use crate::reference::{blocked, error, garbage, max_pool, plain, values};

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn max_pooling_matches_the_twin(
        (size, stride) in (1usize..5, 1usize..5),
        padding in 0usize..3,
        (n, c, h, w) in (0usize..3, 1usize..35, 1usize..12, 1usize..12),
        nan in any::<bool>(),
        isa in proptest::sample::select(Isa::supported()),
    ) {
        prop_assume!(padding <= size / 2 && h + 2 * padding >= size && w + 2 * padding >= size);
        let input = Dims::new(n, c, h, w);
        let pool = MaxPool { size, stride, padding };
        let output = pool.output(input).unwrap();
        let mut x = values(input.plain_len("x").unwrap(), 1);
        if nan && !x.is_empty() {
            let middle = x.len() / 2;
            x[middle] = f32::NAN;
        }
        let mut y = garbage(output.block_len("y").unwrap());
        pool.run(isa, input, &blocked(input, &x), &mut y).unwrap();
        let wide: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
        let expected = max_pool(input, size, stride, padding, &wide);
        for (found, expected) in plain(output, &y).iter().zip(expected) {
            prop_assert!(f64::from(*found) == expected || (found.is_nan() && expected.is_nan()));
        }
    }

    #[test]
    fn dropout_keeps_what_its_mask_says_times_a_factor(
        (n, c, h, w) in (0usize..3, 1usize..35, 1usize..6, 1usize..6),
        isa in proptest::sample::select(Isa::supported()),
    ) {
        let dims = Dims::new(n, c, h, w);
        let x = values(dims.plain_len("x").unwrap(), 1);
        let mask: Vec<f32> = values(x.len(), 2).iter().map(|v| f32::from(*v > 0.0)).collect();
        let mut bits = vec![0xffff; dims.block_len("bits").unwrap()];
        kept(dims, &mask, &mut bits).unwrap();
        let mut found = blocked(dims, &x);
        dropout(isa, &bits, 1.25, &mut found).unwrap();
        let expected: Vec<f32> = x.iter().zip(&mask).map(|(x, kept)| x * kept * 1.25).collect();
        prop_assert_eq!(plain(dims, &found), expected);
        prop_assert!(kept(dims, &mask, &mut [0; 1000]).is_err());
        prop_assert!(dropout(isa, &bits, 1.0, &mut garbage(found.len() + 1)).is_err());
    }

    #[test]
    fn a_dense_layer_matches_the_twin(
        (n, inputs, outputs) in (0usize..90, 1usize..50, 1usize..70),
        isa in proptest::sample::select(Isa::supported()),
    ) {
        let x = values(n * inputs, 1);
        let (weight, bias) = (values(inputs * outputs, 2), values(outputs, 3));
        let dense = Dense::new(isa, inputs, outputs, &weight, Some(&bias)).unwrap();
        let mut y = vec![f32::NAN; n * outputs];
        let mut scratch = garbage(dense.scratch_len(n));
        dense.run(n, &blocked(Dims::new(n, inputs, 1, 1), &x), &mut y, &mut scratch).unwrap();
        let expected: Vec<f64> = (0..n * outputs).map(|i| {
            let (row, o) = (i / outputs, i % outputs);
            let products = (0..inputs).map(|c| f64::from(x[row * inputs + c]) * f64::from(weight[o * inputs + c]));
            f64::from(bias[o]) + products.sum::<f64>()
        }).collect();
        prop_assert!(error(&y, &expected) < 3e-6);
    }

    #[test]
    fn the_average_of_all_pixels_matches_the_twin(
        (n, c, h, w) in (0usize..4, 1usize..40, 1usize..34, 1usize..34),
        isa in proptest::sample::select(Isa::supported()),
    ) {
        let input = Dims::new(n, c, h, w);
        let x = values(input.plain_len("x").unwrap(), 1);
        let mut y = garbage(n * blocks(c));
        global_average_pool(isa, input, &blocked(input, &x), &mut y).unwrap();
        let mean = |x: &[f32]| x.iter().map(|&v| f64::from(v)).sum::<f64>() / x.len() as f64;
        let expected: Vec<f64> = x.chunks(h * w).map(mean).collect();
        let found = plain(Dims::new(n, c, 1, 1), &y);
        for (found, expected) in found.iter().zip(expected) {
            prop_assert!((f64::from(*found) - expected).abs() < 1e-5);
        }
    }
}

#[test]
fn a_merge_adds_in_order() {
    let dims = Dims::new(2, 20, 3, 3);
    let x = values(360, 1);
    let (a, b) = (values(360, 2), values(360, 3));
    let (a_blocks, b_blocks) = (blocked(dims, &a), blocked(dims, &b));
    let bias = values(20, 4);
    let terms = [
        Term {
            source: Source::Tensor(&a_blocks),
            relu: true,
        },
        Term {
            source: Source::Tensor(&b_blocks),
            relu: false,
        },
    ];
    for isa in Isa::supported() {
        let mut y = garbage(dims.block_len("y").unwrap());
        let fused = Fused {
            terms: &terms,
            ..Fused::default()
        };
        merge(
            isa,
            dims,
            &blocked(dims, &x),
            &channel_blocks(&bias),
            &fused,
            Output::raw(&mut y),
        )
        .unwrap();
        for (i, found) in plain(dims, &y).iter().enumerate() {
            let expected = ((x[i] + bias[i / 9 % 20]) + a[i]).max(0.0) + b[i];
            assert_eq!(*found, expected);
        }
    }
}

#[test]
fn the_identity_shortcut_subsamples_and_pads_channels() {
    let input = Dims::new(2, 17, 5, 4);
    let x = values(input.plain_len("x").unwrap(), 1);
    let output = Dims::new(2, 40, 3, 2);
    let mut y = garbage(output.block_len("y").unwrap());
    pad_shortcut(input, 2, 40, &blocked(input, &x), &mut y).unwrap();
    for (i, found) in plain(output, &y).iter().enumerate() {
        let (n, c, oy, ox) = (i / 240, i / 6 % 40, i / 2 % 3, i % 2);
        let expected = if c < 17 {
            x[((n * 17 + c) * 5 + 2 * oy) * 4 + 2 * ox]
        } else {
            0.0
        };
        assert_eq!(*found, expected);
    }
    assert!(pad_shortcut(input, 0, 40, &[], &mut y).is_err());
    assert!(pad_shortcut(input, 1, 16, &[], &mut y).is_err());
}

#[test]
fn pools_and_layers_refuse_bad_shapes() {
    let isa = Isa::detect();
    let dims = Dims::new(1, 1, 2, 2);
    let mut y = vec![Block::ZERO; 1];
    for pool in [
        MaxPool {
            size: 0,
            stride: 1,
            padding: 0,
        },
        MaxPool {
            size: 2,
            stride: 0,
            padding: 0,
        },
        MaxPool {
            size: 3,
            stride: 1,
            padding: 2,
        },
        MaxPool {
            size: 3,
            stride: 1,
            padding: 0,
        },
    ] {
        assert!(pool.run(isa, dims, &[Block::ZERO; 4], &mut y).is_err());
    }
    assert!(global_average_pool(isa, Dims::new(1, 1, 0, 2), &[], &mut y).is_err());
    assert!(Dense::new(isa, 2, 2, &[0.0; 3], None).is_err());
    assert!(Dense::new(isa, 2, 2, &[f32::NAN; 4], None).is_err());
    let dense = Dense::new(isa, 2, 2, &[0.0; 4], None).unwrap();
    assert!(
        dense
            .run(1, &[Block::ZERO], &mut [0.0; 2], &mut [])
            .is_err()
    );
}
