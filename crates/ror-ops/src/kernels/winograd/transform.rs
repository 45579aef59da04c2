//! The one-dimensional transforms of F(2,3) and F(4,3), and the pass over a two-dimensional tile.
//!
//! With `B`, `G` and `A` of Lavin & Gray, *Fast Algorithms for Convolutional Neural Networks* (arXiv 1509.09308):
//! `Y = A^T [ (G g G^T) * (B^T d B) ] A`. Interpolation points are 0, 1, -1 (and 2, -2) and infinity.

use super::super::simd::Simd;

/// `B^T d`: `T` inputs of a tile that yields `T - 2` outputs.
///
/// As many additions as multiply-adds, which some processors have different units for.
#[inline(always)]
pub(super) unsafe fn input<S: Simd, const T: usize>(d: [S::V; T]) -> [S::V; T] {
    let mut out = d;
    // SAFETY: the caller's processor has `S`.
    unsafe {
        if T == 4 {
            [out[1], out[2]] = input_middle::<S, 2>([d[1], d[2]]);
            [out[0], out[3]] = input_ends::<S, T>(d);
        } else {
            [out[1], out[2], out[3], out[4]] = input_middle::<S, 4>([d[1], d[2], d[3], d[4]]);
            let (even, odd) = (S::sub(d[4], d[2]), S::sub(d[3], d[1]));
            out[0] = S::mul_add(S::splat(4.0), S::sub(d[0], d[2]), even);
            out[5] = S::mul_add(S::splat(-4.0), odd, S::sub(d[5], d[3]));
        }
    }
    out
}

/// The first and the last of [`input`]'s values.
#[inline(always)]
pub(super) unsafe fn input_ends<S: Simd, const T: usize>(d: [S::V; T]) -> [S::V; 2] {
    // SAFETY: the caller's processor has `S`.
    unsafe {
        if T == 4 {
            [S::sub(d[0], d[2]), S::sub(d[3], d[1])]
        } else {
            let (four, minus5) = (S::splat(4.0), S::splat(-5.0));
            [
                S::mul_add(four, d[0], S::mul_add(minus5, d[2], d[4])),
                S::mul_add(four, d[1], S::mul_add(minus5, d[3], d[5])),
            ]
        }
    }
}

/// The others of [`input`]'s values, which depend on neither the first nor the last of its arguments: `d` is those
/// between.
#[inline(always)]
pub(super) unsafe fn input_middle<S: Simd, const M: usize>(d: [S::V; M]) -> [S::V; M] {
    let mut out = d;
    // SAFETY: the caller's processor has `S`.
    unsafe {
        if M == 2 {
            out[0] = S::add(d[0], d[1]);
            out[1] = S::sub(d[1], d[0]);
        } else {
            let (minus4, two, minus2) = (S::splat(-4.0), S::splat(2.0), S::splat(-2.0));
            let even = S::mul_add(minus4, d[1], d[3]);
            let odd = S::mul_add(minus4, d[0], d[2]);
            out[0] = S::add(even, odd);
            out[1] = S::sub(even, odd);
            let even = S::sub(d[3], d[1]);
            let odd = S::sub(d[2], d[0]);
            out[2] = S::mul_add(two, odd, even);
            out[3] = S::mul_add(minus2, odd, even);
        }
    }
    out
}

/// `A^T m`: `T` products to `M = T - 2` outputs.
#[inline(always)]
pub(super) unsafe fn output<S: Simd, const M: usize, const T: usize>(m: [S::V; T]) -> [S::V; M] {
    // SAFETY: the caller's processor has `S`.
    unsafe {
        let mut out = [m[0]; M];
        let (sum, diff) = (S::add(m[1], m[2]), S::sub(m[1], m[2]));
        if M == 2 {
            out[0] = S::add(m[0], sum);
            out[1] = S::add(diff, m[3]);
        } else {
            let (sum2, diff2) = (S::add(m[3], m[4]), S::sub(m[3], m[4]));
            out[0] = S::add(S::add(m[0], sum), sum2);
            out[1] = S::mul_add(S::splat(2.0), diff2, diff);
            out[2] = S::mul_add(S::splat(4.0), sum2, sum);
            out[3] = S::add(S::mul_add(S::splat(8.0), diff2, diff), m[5]);
        }
        out
    }
}

/// `G g`: three taps of a filter to `T` values.
#[inline(always)]
pub(super) unsafe fn filter<S: Simd, const T: usize>(g: [S::V; 3]) -> [S::V; T] {
    let [a, b, c] = g;
    let mut out = [c; T];
    // SAFETY: the caller's processor has `S`.
    unsafe {
        let zero = S::splat(0.0);
        let times = |x: f32, v| S::mul_add(S::splat(x), v, zero);
        let ends = S::add(a, c);
        if T == 4 {
            out[0] = a;
            out[1] = times(0.5, S::add(ends, b));
            out[2] = times(0.5, S::sub(ends, b));
        } else {
            out[0] = times(0.25, a);
            out[1] = times(-1.0 / 6.0, S::add(ends, b));
            out[2] = times(-1.0 / 6.0, S::sub(ends, b));
            let (even, odd) = (S::mul_add(S::splat(4.0), c, a), S::add(b, b));
            out[3] = times(1.0 / 24.0, S::add(even, odd));
            out[4] = times(1.0 / 24.0, S::sub(even, odd));
        }
    }
    out
}
