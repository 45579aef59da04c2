//! Any processor: arrays of eight, which the compiler turns into the vectors that the build allows.

use super::Simd;

/// The portable instance.
#[derive(Clone, Copy)]
pub(super) struct Portable;

/// Eight values; aligned so that the compiler may use whole vectors.
#[derive(Clone, Copy)]
#[repr(align(32))]
pub(super) struct Eight([f32; 8]);

#[inline(always)]
fn zip(a: Eight, b: Eight, f: impl Fn(f32, f32) -> f32) -> Eight {
    let mut out = a;
    for (o, b) in out.0.iter_mut().zip(b.0) {
        *o = f(*o, b);
    }
    out
}

// SAFETY (every block): the trait's contract provides valid pointers.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Simd for Portable {
    type V = Eight;
    const LANES: usize = 8;
    const MAX_ROWS: usize = 3;

    #[inline(always)]
    unsafe fn load(p: *const f32) -> Eight {
        Eight(unsafe { p.cast::<[f32; 8]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: Eight) {
        unsafe { p.cast::<[f32; 8]>().write_unaligned(v.0) }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Eight {
        Eight([x; 8])
    }
    #[inline(always)]
    unsafe fn add(a: Eight, b: Eight) -> Eight {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(a: Eight, b: Eight) -> Eight {
        zip(a, b, |a, b| a - b)
    }
    // Two roundings: without a fused instruction `f32::mul_add` would call a library function.
    #[inline(always)]
    unsafe fn mul_add(a: Eight, b: Eight, c: Eight) -> Eight {
        let mut out = c;
        for ((o, a), b) in out.0.iter_mut().zip(a.0).zip(b.0) {
            *o += a * b;
        }
        out
    }
    #[inline(always)]
    unsafe fn where_positive(by: Eight, v: Eight) -> Eight {
        zip(by, v, |by, v| if by > 0.0 { v } else { 0.0 })
    }
    #[inline(always)]
    unsafe fn max(a: Eight, b: Eight) -> Eight {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn max_nan(a: Eight, b: Eight) -> Eight {
        zip(a, b, |a, b| if a > b || a.is_nan() { a } else { b })
    }
}
