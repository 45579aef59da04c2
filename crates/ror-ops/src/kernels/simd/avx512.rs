//! AVX-512 F: 16 lanes, 32 registers.

use std::arch::x86_64::*;

use super::{Kernel, Simd};

/// The AVX-512 instance.
#[derive(Clone, Copy)]
pub(super) struct Avx512;

/// Runs `kernel` compiled for AVX-512.
///
/// # Safety
/// The processor has AVX-512 F; the pointers in `kernel` are valid.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: this function requires what `Kernel::run` does.
    unsafe { kernel.run::<Avx512>() }
}

/// 32, or half of that on AMD's Zen 4, which does the two halves of a vector one after the other.
pub(super) fn multiply_adds_per_cycle() -> usize {
    let signature = __cpuid(1).eax;
    let family = (signature >> 8 & 0xF) + (signature >> 20 & 0xFF);
    let vendor = __cpuid(0);
    let amd = (vendor.ebx, vendor.edx, vendor.ecx)
        == (
            u32::from_le_bytes(*b"Auth"),
            u32::from_le_bytes(*b"enti"),
            u32::from_le_bytes(*b"cAMD"),
        );
    if amd && family == 0x19 { 16 } else { 32 }
}

// SAFETY (every block): the trait's contract provides the instruction set and valid pointers.
// Asking for a line that is not there does nothing, nor does `prefetchw` on processors without it.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Simd for Avx512 {
    type V = __m512;
    const LANES: usize = 16;
    const MAX_ROWS: usize = 10;

    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: __m512) {
        unsafe { _mm512_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn where_positive(by: __m512, v: __m512) -> __m512 {
        unsafe {
            let positive = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(by, _mm512_setzero_ps());
            _mm512_maskz_mov_ps(positive, v)
        }
    }
    #[inline(always)]
    unsafe fn max(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn max_nan(a: __m512, b: __m512) -> __m512 {
        unsafe {
            let unordered = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, a);
            _mm512_mask_mov_ps(_mm512_max_ps(a, b), unordered, a)
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
