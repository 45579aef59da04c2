//! The twins: plain loops in `f64` over N, C, H, W.

use ror_ops::kernels::{Block, Dims, Geometry, from_blocked, to_blocked};

/// A square kernel's geometry.
pub(crate) fn geometry(
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

/// Repeatable values in -1..1.
pub(crate) fn values(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

pub(crate) fn blocked(dims: Dims, x: &[f32]) -> Vec<Block> {
    let mut out = garbage(dims.block_len("test").unwrap());
    to_blocked(dims, x, &mut out).unwrap();
    out
}

pub(crate) fn plain(dims: Dims, x: &[Block]) -> Vec<f32> {
    let mut out = vec![f32::NAN; dims.plain_len("test").unwrap()];
    from_blocked(dims, x, &mut out).unwrap();
    out
}

/// 8-bit images N, H, W, C as N, C, H, W of `value * scale[c] + shift[c]`.
pub(crate) fn normalised(dims: Dims, pixels: &[u8], scale: &[f32], shift: &[f32]) -> Vec<f32> {
    let mut x = Vec::with_capacity(pixels.len());
    for n in 0..dims.n {
        for c in 0..dims.c {
            for i in 0..dims.h * dims.w {
                let pixel = pixels[(n * dims.h * dims.w + i) * dims.c + c];
                x.push(f32::from(pixel) * scale[c] + shift[c]);
            }
        }
    }
    x
}

/// Memory in which a value that nobody wrote shows.
pub(crate) fn garbage(len: usize) -> Vec<Block> {
    vec![Block([f32::NAN; 16]); len]
}

pub(crate) fn convolve(
    geometry: Geometry,
    input: Dims,
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
) -> Vec<f64> {
    let out = geometry.output(input).unwrap();
    let (kh, kw) = geometry.kernel;
    let mut y = Vec::with_capacity(out.n * out.c * out.h * out.w);
    for n in 0..out.n {
        for o in 0..out.c {
            for oy in 0..out.h {
                for ox in 0..out.w {
                    let mut sum = f64::from(bias[o]);
                    for ky in 0..kh {
                        let iy = (oy * geometry.stride + ky).wrapping_sub(geometry.padding);
                        if iy >= input.h {
                            continue;
                        }
                        for kx in 0..kw {
                            let ix = (ox * geometry.stride + kx).wrapping_sub(geometry.padding);
                            if ix >= input.w {
                                continue;
                            }
                            for c in 0..input.c {
                                let x = x[((n * input.c + c) * input.h + iy) * input.w + ix];
                                let w = weight[((o * input.c + c) * kh + ky) * kw + kx];
                                sum += f64::from(x) * f64::from(w);
                            }
                        }
                    }
                    y.push(sum);
                }
            }
        }
    }
    y
}

pub(crate) fn max_pool(
    input: Dims,
    size: usize,
    stride: usize,
    padding: usize,
    x: &[f64],
) -> Vec<f64> {
    let side = |pixels: usize| (pixels + 2 * padding - size) / stride + 1;
    let (h, w) = (side(input.h), side(input.w));
    let mut y = Vec::new();
    for plane in 0..input.n * input.c {
        for oy in 0..h {
            for ox in 0..w {
                let mut max = f64::NEG_INFINITY;
                for ky in 0..size {
                    for kx in 0..size {
                        let iy = (oy * stride + ky).wrapping_sub(padding);
                        let ix = (ox * stride + kx).wrapping_sub(padding);
                        if iy < input.h && ix < input.w {
                            let v = x[(plane * input.h + iy) * input.w + ix];
                            max = if v.is_nan() || max.is_nan() {
                                f64::NAN
                            } else {
                                max.max(v)
                            };
                        }
                    }
                }
                y.push(max);
            }
        }
    }
    y
}

/// The largest difference, relative to the largest expected value.
pub(crate) fn error(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(1e-30, |m: f64, v| m.max(v.abs()));
    let differences = found
        .iter()
        .zip(expected)
        .map(|(&f, e)| (f64::from(f) - e).abs());
    differences.fold(0.0, worse) / largest
}

/// The larger of two errors; NaN, which is what nobody wrote, if either is.
pub(crate) fn worse(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() {
        f64::NAN
    } else {
        a.max(b)
    }
}
