//! Gradients of convolutions against plain loops.

use proptest::prelude::*;
use ror_ops::kernels::{
    Block, Dims, Geometry, InputGradient, Isa, KernelError, WeightGradient, as_flat,
};

use crate::reference::{blocked, error, garbage, geometry, plain, values, worse};

/// Gradients of input and weight in `f64`.
fn twin(
    geometry: Geometry,
    input: Dims,
    x: &[f32],
    weight: &[f32],
    dy: &[f32],
) -> (Vec<f64>, Vec<f64>) {
    let out = geometry.output(input).unwrap();
    let (kh, kw) = geometry.kernel;
    let (mut dx, mut dw) = (vec![0.0; x.len()], vec![0.0; weight.len()]);
    for n in 0..out.n {
        for o in 0..out.c {
            for c in 0..input.c {
                for (ky, kx) in (0..kh).flat_map(|y| (0..kw).map(move |x| (y, x))) {
                    let w = ((o * input.c + c) * kh + ky) * kw + kx;
                    for oy in 0..out.h {
                        let iy = (oy * geometry.stride + ky).wrapping_sub(geometry.padding);
                        for ox in 0..out.w {
                            let ix = (ox * geometry.stride + kx).wrapping_sub(geometry.padding);
                            if iy >= input.h || ix >= input.w {
                                continue;
                            }
                            let dy = f64::from(dy[((n * out.c + o) * out.h + oy) * out.w + ox]);
                            let i = ((n * input.c + c) * input.h + iy) * input.w + ix;
                            dx[i] += dy * f64::from(weight[w]);
                            dw[w] += dy * f64::from(x[i]);
                        }
                    }
                }
            }
        }
    }
    (dx, dw)
}

/// The images dealt to two sums, the gradient finished in two shares.
fn weight_gradient(
    gradient: &WeightGradient,
    geometry: Geometry,
    input: Dims,
    dy: &[Block],
    add: impl Fn(Dims, usize, &[Block], &mut [Block], &mut [Block]),
) -> Vec<f32> {
    let out = geometry.output(input).unwrap();
    let dy_image = Dims { n: 1, ..out }.block_len("dy").unwrap();
    let mut scratch = garbage(gradient.scratch_len(input.n, input.h, input.w).unwrap());
    let first = input.n.div_ceil(2);
    let mut sums = [garbage(gradient.sum_len()), garbage(gradient.sum_len())];
    for (sum, range) in sums.iter_mut().zip([0..first, first..input.n]) {
        let part = Dims {
            n: range.len(),
            ..input
        };
        let dy = &dy[range.start * dy_image..range.end * dy_image];
        add(part, range.start, dy, sum, &mut scratch);
    }
    let sums: Vec<&[Block]> = sums.iter().map(Vec::as_slice).collect();
    let per_output = geometry.inputs * geometry.kernel.0 * geometry.kernel.1;
    let split = (geometry.outputs / 2)
        .next_multiple_of(16)
        .min(geometry.outputs);
    let split = if split.is_multiple_of(16) { split } else { 0 };
    let mut found = vec![f32::NAN; geometry.outputs * per_output];
    let (a, b) = found.split_at_mut(split * per_output);
    gradient.finish(&sums, 0..split, a).unwrap();
    gradient.finish(&sums, split..geometry.outputs, b).unwrap();
    found
}

fn check(isa: Isa, geometry: Geometry, (n, h, w): (usize, usize, usize)) -> (f64, f64) {
    let input = Dims::new(n, geometry.inputs, h, w);
    let out = geometry.output(input).unwrap();
    let x = values(input.plain_len("x").unwrap(), 1);
    let weight = values(
        geometry.inputs * geometry.outputs * geometry.kernel.0 * geometry.kernel.1,
        2,
    );
    let dy = values(out.plain_len("dy").unwrap(), 3);
    let (dx, dw) = twin(geometry, input, &x, &weight, &dy);
    let (bx, bdy) = (blocked(input, &x), blocked(out, &dy));

    let mut gradient = InputGradient::new(isa, geometry, n, h, w).unwrap();
    gradient.repack(&vec![7.0; weight.len()]).unwrap();
    gradient.repack(&weight).unwrap();
    let mut scratch = garbage(gradient.scratch_len(n, h, w).unwrap());
    let mut found = garbage(bx.len());
    gradient
        .run((n, h, w), &bdy, &mut found, false, &mut scratch)
        .unwrap();
    assert_padding(input, &found);
    let set = error(&plain(input, &found), &dx);
    gradient
        .run((n, h, w), &bdy, &mut found, true, &mut scratch)
        .unwrap();
    let twice: Vec<f64> = dx.iter().map(|v| 2.0 * v).collect();
    let added = error(&plain(input, &found), &twice);

    let gradient = WeightGradient::new(isa, geometry).unwrap();
    let image = Dims { n: 1, ..input }.block_len("x").unwrap();
    let found = weight_gradient(
        &gradient,
        geometry,
        input,
        &bdy,
        |part, first, dy, sum, scratch| {
            let x = &bx[first * image..(first + part.n) * image];
            gradient
                .add((part.n, h, w), x, dy, sum, true, scratch)
                .unwrap();
            // The same images again, added: everything doubles.
            gradient
                .add((part.n, h, w), x, dy, sum, false, scratch)
                .unwrap();
        },
    );
    let twice: Vec<f64> = dw.iter().map(|v| 2.0 * v).collect();
    let blocked_error = error(&found, &twice);

    let gradient = WeightGradient::of_images(isa, geometry).unwrap();
    let found = weight_gradient(
        &gradient,
        geometry,
        input,
        &bdy,
        |part, first, dy, sum, scratch| {
            let len = input.c * h * w;
            let x = &x[first * len..(first + part.n) * len];
            gradient
                .add_images((part.n, h, w), x, dy, sum, true, scratch)
                .unwrap();
        },
    );
    (worse(set, added), worse(blocked_error, error(&found, &dw)))
}

fn assert_padding(dims: Dims, x: &[Block]) {
    let real = (dims.c - 1) % 16 + 1;
    let per_image = dims.c.div_ceil(16);
    for (plane, blocks) in x.chunks_exact((dims.h * dims.w).max(1)).enumerate() {
        if (plane + 1).is_multiple_of(per_image) {
            assert!(blocks.iter().all(|b| b.0[real..].iter().all(|&v| v == 0.0)));
        }
    }
}

#[test]
fn gradients_of_every_shape_equal_the_twin() {
    for isa in Isa::supported() {
        for (g, size) in [
            (geometry(32, 32, 3, 1, 1), (3, 8, 8)),
            (geometry(16, 48, 3, 1, 1), (2, 5, 7)),
            (geometry(3, 17, 3, 1, 1), (2, 6, 9)),
            (geometry(64, 64, 3, 1, 1), (5, 4, 4)),
            (geometry(20, 33, 1, 1, 0), (2, 5, 3)),
            (geometry(16, 32, 1, 2, 0), (3, 8, 8)),
            (geometry(16, 64, 1, 4, 0), (2, 9, 7)),
            (geometry(16, 32, 3, 2, 1), (2, 8, 8)),
            (geometry(18, 16, 3, 2, 1), (2, 7, 9)),
            (geometry(3, 64, 7, 2, 3), (2, 16, 15)),
            (geometry(5, 6, 5, 3, 0), (1, 11, 8)),
            (geometry(4, 4, 2, 1, 1), (1, 3, 3)),
        ] {
            let (dx, dw) = check(isa, g, size);
            assert!(dx < 3e-5 && dw < 5e-5, "{isa:?} {g:?} {size:?}: {dx} {dw}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn gradients_of_any_shape_equal_the_twin(
        (inputs, outputs) in (1usize..40, 1usize..40),
        (kernel, stride) in (1usize..5, 1usize..4),
        padding in 0usize..4,
        (n, h, w) in (1usize..4, 4usize..11, 4usize..11),
    ) {
        let padding = padding.min(kernel / 2);
        let g = geometry(inputs, outputs, kernel, stride, padding);
        let (dx, dw) = check(Isa::detect(), g, (n, h, w));
        prop_assert!(dx < 3e-5 && dw < 5e-5, "{:?} {} {}", g, dx, dw);
    }
}

#[test]
fn no_images_set_a_sum_to_zero() {
    let gradient = WeightGradient::new(Isa::detect(), geometry(16, 16, 3, 1, 1)).unwrap();
    let mut sum = garbage(gradient.sum_len());
    let mut scratch = garbage(gradient.scratch_len(0, 8, 8).unwrap());
    gradient
        .add((0, 8, 8), &[], &[], &mut sum, true, &mut scratch)
        .unwrap();
    assert!(as_flat(&sum).iter().all(|&v| v == 0.0));
}

#[test]
fn wrong_lengths_and_channels_are_errors() {
    let isa = Isa::detect();
    let g = geometry(16, 32, 3, 1, 1);
    let gradient = WeightGradient::new(isa, g).unwrap();
    let pointwise = WeightGradient::new(isa, geometry(16, 16, 1, 1, 0)).unwrap();
    assert!(pointwise.scratch_len(1, usize::MAX / 2, 16).is_err());
    let sum = garbage(gradient.sum_len());
    let mut out = vec![0.0; 16 * 16 * 9];
    assert!(gradient.finish(&[&sum], 0..16, &mut out).is_ok());
    assert!(gradient.finish(&[&sum], 8..24, &mut out).is_err());
    assert!(gradient.finish(&[&sum], 32..48, &mut out).is_err());
    assert!(matches!(
        gradient.finish(&[&sum[1..]], 0..16, &mut out),
        Err(KernelError::Length { .. })
    ));
    assert!(InputGradient::new(isa, geometry(0, 1, 3, 1, 1), 1, 8, 8).is_err());
    let mut input = InputGradient::new(isa, g, 1, 8, 8).unwrap();
    assert!(input.repack(&[0.0; 3]).is_err());
    let (mut dx, mut scratch) = (garbage(64), garbage(0));
    let dy = garbage(128);
    assert!(
        input
            .run((1, 8, 8), &dy, &mut dx, false, &mut scratch)
            .is_err()
    );
}
