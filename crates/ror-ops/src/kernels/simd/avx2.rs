//! AVX2 with FMA: 8 lanes, 16 registers.

use std::arch::x86_64::*;

use super::{Kernel, Simd};

/// The AVX2 instance.
#[derive(Clone, Copy)]
pub(super) struct Avx2;

/// Runs `kernel` compiled for AVX2.
///
/// # Safety
/// The processor has AVX2 and FMA; the pointers in `kernel` are valid.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: this function requires what `Kernel::run` does.
    unsafe { kernel.run::<Avx2>() }
}

// SAFETY (every block): the trait's contract provides the instruction set and valid pointers.
// Asking for a line that is not there does nothing, nor does `prefetchw` on processors without it.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Simd for Avx2 {
    type V = __m256;
    const LANES: usize = 8;
    const MAX_ROWS: usize = 6;

    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: __m256) {
        unsafe { _mm256_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> __m256 {
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn add(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul_add(a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn where_positive(by: __m256, v: __m256) -> __m256 {
        unsafe { _mm256_and_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(by, _mm256_setzero_ps()), v) }
    }
    #[inline(always)]
    unsafe fn max(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_max_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn max_nan(a: __m256, b: __m256) -> __m256 {
        unsafe {
            let unordered = _mm256_cmp_ps::<_CMP_UNORD_Q>(a, a);
            _mm256_blendv_ps(_mm256_max_ps(a, b), a, unordered)
        }
    }
    #[inline(always)]
    fn prefetch(p: *const f32) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
    // The instruction itself: what an intrinsic becomes depends on the features of the build.
    #[inline(always)]
    fn claim(p: *mut f32) {
        unsafe { std::arch::asm!("prefetchw [{}]", in(reg) p, options(nostack, preserves_flags)) }
    }
}
