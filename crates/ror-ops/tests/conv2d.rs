//! `conv2d` on tensors against plain loops in `f64`.

#![allow(clippy::unwrap_used)] // clippy takes the helpers of a test for no test

use candle_core::{DType, Device, Tensor, Var};
use proptest::prelude::*;
use ror_ops::conv2d;

fn tensor(shape: (usize, usize, usize, usize), seed: u64) -> Tensor {
    let len = shape.0 * shape.1 * shape.2 * shape.3;
    let mut state = seed | 1;
    let values: Vec<f32> = (0..len)
        .map(|_| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn wide(t: &Tensor) -> Tensor {
    t.to_dtype(DType::F64).unwrap()
}

/// The largest difference, relative to the largest expected value.
fn error(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.dims(), expected.dims());
    if found.elem_count() == 0 {
        return 0.0;
    }
    let largest = |t: &Tensor| {
        let larger = |a: f64, b: f64| if b.is_nan() || b > a { b } else { a };
        flat(t).into_iter().map(f64::abs).fold(0.0, larger)
    };
    largest(&(wide(found) - wide(expected)).unwrap()) / largest(&wide(expected)).max(1e-30)
}

fn flat(t: &Tensor) -> Vec<f64> {
    wide(t).flatten_all().unwrap().to_vec1().unwrap()
}

/// Result of the convolution and, for the loss `sum(result * probe)`, the gradients of `x` and `w`: every product
/// that a convolution consists of, visited once.
fn twin(x: &Tensor, w: &Tensor, stride: usize, padding: usize, probe: &Tensor) -> [Tensor; 3] {
    let (_, c, h, wd) = x.dims4().unwrap();
    let (o, _, kh, kw) = w.dims4().unwrap();
    let (_, _, oh, ow) = probe.dims4().unwrap();
    let (xs, ws, ps) = (flat(x), flat(w), flat(probe));
    let (mut y, mut dx, mut dw) = (
        vec![0.0; ps.len()],
        vec![0.0; xs.len()],
        vec![0.0; ws.len()],
    );
    for i in 0..ps.len() {
        let (image, out, oy, ox) = (i / (o * oh * ow), i / (oh * ow) % o, i / ow % oh, i % ow);
        for j in 0..c * kh * kw {
            let (channel, ky, kx) = (j / (kh * kw), j / kw % kh, j % kw);
            let (iy, ix) = (oy * stride + ky, ox * stride + kx);
            if iy < padding || ix < padding || iy >= h + padding || ix >= wd + padding {
                continue;
            }
            let at = ((image * c + channel) * h + iy - padding) * wd + ix - padding;
            let tap = out * c * kh * kw + j;
            y[i] += xs[at] * ws[tap];
            dx[at] += ps[i] * ws[tap];
            dw[tap] += ps[i] * xs[at];
        }
    }
    let tensor = |v, like: &Tensor| Tensor::from_vec(v, like.shape(), &Device::Cpu).unwrap();
    [tensor(y, probe), tensor(dx, x), tensor(dw, w)]
}

#[test]
fn any_layout_gives_the_same_as_a_contiguous_one() {
    let x = tensor((3, 20, 9, 8), 1);
    let w = tensor((7, 20, 3, 3), 2);
    let expected = conv2d(&x, &w, None, 1, 1).unwrap();
    let swapped = x
        .transpose(2, 3)
        .unwrap()
        .contiguous()
        .unwrap()
        .transpose(2, 3)
        .unwrap();
    let last = x
        .transpose(1, 3)
        .unwrap()
        .contiguous()
        .unwrap()
        .transpose(1, 3)
        .unwrap();
    let padded = x.pad_with_zeros(1, 2, 3).unwrap().narrow(1, 2, 20).unwrap();
    let later = Tensor::cat(
        &[&w, &x.narrow(2, 0, 3).unwrap().narrow(3, 0, 3).unwrap()],
        0,
    )
    .unwrap();
    let offset = Tensor::cat(&[&tensor((2, 20, 9, 8), 9), &x], 0)
        .unwrap()
        .narrow(0, 2, 3)
        .unwrap();
    for x in [swapped, last, padded, offset] {
        assert_eq!(error(&conv2d(&x, &w, None, 1, 1).unwrap(), &expected), 0.0);
    }
    let w = later.narrow(0, 0, 7).unwrap();
    assert_eq!(error(&conv2d(&x, &w, None, 1, 1).unwrap(), &expected), 0.0);
    let one = tensor((1, 20, 1, 1), 3);
    let broadcast = one.broadcast_as((2, 20, 5, 5)).unwrap();
    let expected = conv2d(&broadcast.contiguous().unwrap(), &w, None, 1, 1).unwrap();
    assert_eq!(
        error(&conv2d(&broadcast, &w, None, 1, 1).unwrap(), &expected),
        0.0
    );
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let x = tensor((1, 4, 5, 5), 1);
    assert!(conv2d(&x, &tensor((2, 3, 3, 3), 2), None, 1, 1).is_err());
    assert!(conv2d(&x, &tensor((2, 4, 7, 7), 2), None, 1, 0).is_err());
    assert!(conv2d(&x, &tensor((2, 4, 3, 3), 2), None, 0, 1).is_err());
    let x64 = wide(&x);
    for (weight, stride, padding) in [
        ((2, 3, 3, 3), 1, 1),
        ((2, 4, 7, 7), 1, 0),
        ((2, 4, 3, 3), 0, 1),
    ] {
        assert!(conv2d(&x64, &wide(&tensor(weight, 2)), None, stride, padding).is_err());
    }
    let bias = Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap();
    assert!(conv2d(&x, &tensor((2, 4, 3, 3), 2), Some(&bias), 1, 1).is_err());
    assert!(
        conv2d(
            &x.flatten_all().unwrap(),
            &tensor((2, 4, 3, 3), 2),
            None,
            1,
            1
        )
        .is_err()
    );
}

#[test]
fn a_stride_may_leave_more_over_than_there_are_rows() {
    let x = Var::from_tensor(&wide(&tensor((1, 2, 1, 1), 1))).unwrap();
    let weight = Var::from_tensor(&wide(&tensor((3, 2, 1, 1), 2))).unwrap();
    let y = conv2d(&x, &weight, None, 3, 1).unwrap();
    // Only padding is looked at.
    assert_eq!(flat(&y), [0.0; 3]);
    let grads = y.sum_all().unwrap().backward().unwrap();
    assert_eq!(flat(grads.get(&x).unwrap()), [0.0; 2]);
    assert_eq!(flat(grads.get(&weight).unwrap()), [0.0; 6]);
}

#[test]
fn weights_that_are_not_numbers_give_results_that_are_not() {
    let x = tensor((1, 8, 6, 6), 1);
    let w = (tensor((8, 8, 3, 3), 2) * f64::NAN).unwrap();
    let y = conv2d(&x, &w, None, 1, 1)
        .unwrap()
        .flatten_all()
        .unwrap()
        .to_vec1::<f32>()
        .unwrap();
    assert!(y.iter().all(|v| v.is_nan()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 80, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn result_and_gradients_match_the_twin(
        (n, h, w) in (1usize..6, 1usize..14, 1usize..14),
        (inputs, outputs) in (1usize..36, 1usize..36),
        kernel in (1usize..5, 1usize..5),
        stride in 1usize..4,
        padding in 0usize..3,
        with_bias in any::<bool>(),
    ) {
        prop_assume!(h + 2 * padding >= kernel.0 && w + 2 * padding >= kernel.1);
        let x = Var::from_tensor(&tensor((n, inputs, h, w), 1)).unwrap();
        let weight = Var::from_tensor(&tensor((outputs, inputs, kernel.0, kernel.1), 2)).unwrap();
        let bias = Var::from_tensor(&tensor((outputs, 1, 1, 1), 3).flatten_all().unwrap()).unwrap();
        let y = conv2d(&x, &weight, with_bias.then_some(bias.as_tensor()), stride, padding).unwrap();
        let probe = tensor(y.dims4().unwrap(), 4);
        let grads = (&y * &probe).unwrap().sum_all().unwrap().backward().unwrap();

        let [mut expected, dx, dw] = twin(&x, &weight, stride, padding, &probe);
        // Other types take candle's way.
        let (x64, weight64) = (wide(&x), wide(&weight));
        let (x64, weight64) = (Var::from_tensor(&x64).unwrap(), Var::from_tensor(&weight64).unwrap());
        let y64 = conv2d(&x64, &weight64, None, stride, padding).unwrap();
        let grads64 = (&y64 * wide(&probe)).unwrap().sum_all().unwrap().backward().unwrap();
        prop_assert!(error(&y64, &expected) < 1e-12);
        prop_assert!(error(grads64.get(&x64).unwrap(), &dx) < 1e-12);
        prop_assert!(error(grads64.get(&weight64).unwrap(), &dw) < 1e-12);
        if with_bias {
            expected = expected.broadcast_add(&wide(&bias).reshape((1, (), 1, 1)).unwrap()).unwrap();
            let db = wide(&probe).sum((0, 2, 3)).unwrap();
            prop_assert!(error(grads.get(&bias).unwrap(), &db) < 1e-5);
        }
        prop_assert!(error(&y, &expected) < 3e-5);
        let e = error(grads.get(&x).unwrap(), &dx);
        prop_assert!(e < 3e-5, "input gradient off by {e:e}");
        let e = error(grads.get(&weight).unwrap(), &dw);
        prop_assert!(e < 3e-5, "weight gradient off by {e:e}");
    }
}
