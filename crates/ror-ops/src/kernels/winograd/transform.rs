//! The one-dimensional transforms of F(2,3) and F(4,3), and the pass over a two-dimensional tile.
//!
//! With `B`, `G` and `A` of Lavin & Gray, *Fast Algorithms for Convolutional Neural Networks* (arXiv 1509.09308):
//! `Y = A^T [ (G g G^T) * (B^T d B) ] A`. Interpolation points are 0, 1, -1 (and 2, -2) and infinity.

use super::super::simd::Simd;

/// The `T` of stride 2, with four outputs to a tile. Each of its steps is two of stride 1: the outer taps see the odd
/// pixels (counted from the padding's), of which a tile has five, by F(4, 2), the middle tap the four even ones.
pub(super) const STRIDED: usize = 9;

/// Values that the taps of a filter become: the middle tap of stride 2 is the same for all four pixels.
pub(super) const fn distinct(t: usize) -> usize {
    if t == STRIDED { 6 } else { t }
}

/// `B^T d`: the `T` inputs of a tile, transformed.
///
/// As many additions as multiply-adds, which some processors have different units for.
#[inline(always)]
pub(super) unsafe fn input<S: Simd, const T: usize>(d: [S::V; T]) -> [S::V; T] {
    let mut out = d;
    // SAFETY: the caller's processor has `S`.
    unsafe {
        if T == STRIDED {
            let odd = input_odd::<S>([d[0], d[2], d[4], d[6], d[8]]);
            let even = [d[1], d[3], d[5], d[7]];
            out[..5].copy_from_slice(&odd);
            out[5..].copy_from_slice(&even);
        } else if T == 4 {
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

/// [`input`] of stride 2, the half that the filter's outer taps see: F(4, 2) with points 0, 1, -1, 2 and infinity.
#[inline(always)]
unsafe fn input_odd<S: Simd>(d: [S::V; 5]) -> [S::V; 5] {
    // SAFETY: the caller's processor has `S`.
    unsafe {
        let (two, minus2, minus3) = (S::splat(2.0), S::splat(-2.0), S::splat(-3.0));
        let diff = S::sub(d[3], d[1]);
        [
            S::mul_add(two, S::sub(d[0], d[2]), diff),
            S::sub(S::sub(diff, d[1]), d[2]),
            S::mul_add(two, d[1], S::mul_add(minus3, d[2], d[3])),
            diff,
            S::mul_add(minus2, diff, S::sub(d[4], d[2])),
        ]
    }
}

/// The first and the last of [`input`]'s values, where the stride is 1.
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

/// `A^T m`: `T` products to `M` outputs.
#[inline(always)]
pub(super) unsafe fn output<S: Simd, const M: usize, const T: usize>(m: [S::V; T]) -> [S::V; M] {
    // SAFETY: the caller's processor has `S`.
    unsafe {
        let mut out = [m[0]; M];
        let (sum, diff) = (S::add(m[1], m[2]), S::sub(m[1], m[2]));
        if T == STRIDED {
            out[0] = S::add(S::add(m[0], m[3]), S::add(sum, m[5]));
            out[1] = S::mul_add(S::splat(2.0), m[3], S::add(diff, m[6]));
            out[2] = S::mul_add(S::splat(4.0), m[3], S::add(sum, m[7]));
            out[3] = S::mul_add(S::splat(8.0), m[3], S::add(S::add(diff, m[4]), m[8]));
        } else if M == 2 {
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

/// `G g`: three taps of a filter to [`distinct`] values and, up to `T`, the last of them again.
#[inline(always)]
pub(super) unsafe fn filter<S: Simd, const T: usize>(g: [S::V; 3]) -> [S::V; T] {
    let [a, b, c] = g;
    let mut out = [c; T];
    // SAFETY: the caller's processor has `S`.
    unsafe {
        let zero = S::splat(0.0);
        let times = |x: f32, v| S::mul_add(S::splat(x), v, zero);
        let ends = S::add(a, c);
        if T == STRIDED {
            out = [b; T];
            out[0] = times(0.5, a);
            out[1] = times(-0.5, ends);
            out[2] = times(-1.0 / 6.0, S::sub(a, c));
            out[3] = times(1.0 / 6.0, S::mul_add(S::splat(2.0), c, a));
            out[4] = c;
        } else if T == 4 {
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
