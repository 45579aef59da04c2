//! Vector instruction sets: one trait, three instances, chosen at run time.
//!
//! A kernel is a struct whose [`Kernel::run`] is generic over [`Simd`]; [`Isa::dispatch`] compiles it once per
//! instruction set and calls the instance of a set that this processor was found to have.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use super::blocked::{Block, LANES};
use portable::Portable;

/// Vectors of `f32` of one instruction set.
///
/// # Safety
/// Callers must run on a processor that has the instruction set, which [`Isa::dispatch`] guarantees to a
/// [`Kernel`]; pointers must be valid for `LANES` elements, with no requirement on alignment.
pub(super) trait Simd: Copy {
    /// `LANES` values.
    type V: Copy;
    /// Values in a vector; divides 16.
    const LANES: usize;
    /// Rows of accumulators of [two](super::gemm) vectors each that fit in the registers.
    const MAX_ROWS: usize;

    unsafe fn load(p: *const f32) -> Self::V;
    unsafe fn store(p: *mut f32, v: Self::V);
    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`.
    unsafe fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `v` where `by` is above zero, else zero.
    unsafe fn where_positive(by: Self::V, v: Self::V) -> Self::V;
    /// The larger of both; NaN where `b` is NaN.
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    /// The larger of both; NaN where either is.
    unsafe fn max_nan(a: Self::V, b: Self::V) -> Self::V;
    /// Asks for the cache line at `p`, which need not be valid.
    #[inline(always)]
    fn prefetch(_p: *const f32) {}
    /// Asks for the cache line at `p`, which need not be valid, to be written: other processors give it up.
    #[inline(always)]
    fn claim(_p: *mut f32) {}
}

/// The values of a block from `lane` on.
///
/// # Safety
/// The processor has `S`; `lane` is a whole number of vectors below 16.
#[inline(always)]
pub(super) unsafe fn load<S: Simd>(block: &Block, lane: usize) -> S::V {
    debug_assert!(lane + S::LANES <= LANES);
    // SAFETY: the vector lies in the block.
    unsafe { S::load(block.0.as_ptr().add(lane)) }
}

/// Sets the values of a block from `lane` on.
///
/// # Safety
/// As [`load`].
#[inline(always)]
pub(super) unsafe fn store<S: Simd>(block: &mut Block, lane: usize, v: S::V) {
    debug_assert!(lane + S::LANES <= LANES);
    // SAFETY: the vector lies in the block.
    unsafe { S::store(block.0.as_mut_ptr().add(lane), v) }
}

/// Work to be compiled for every instruction set.
pub(super) trait Kernel {
    /// What the work returns.
    type Output;
    /// Does the work. Must be `#[inline(always)]`, as must everything it calls with vectors as arguments.
    ///
    /// # Safety
    /// The processor has `S`, and the pointers in `self` are valid as its fields say.
    unsafe fn run<S: Simd>(self) -> Self::Output;
}

/// An instruction set that this processor has.
///
/// Values only come out of a check of the processor, so holding one proves that its kernels may run.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Isa(Kind);

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

impl Isa {
    /// The fastest instruction set of this processor.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                return Self(Kind::Avx512);
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Self(Kind::Avx2);
            }
        }
        Self(Kind::Portable)
    }

    /// Every instruction set of this processor that has kernels, fastest first.
    pub fn supported() -> Vec<Self> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                all.push(Self(Kind::Avx512));
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                all.push(Self(Kind::Avx2));
            }
        }
        all.push(Self(Kind::Portable));
        all
    }

    /// The instruction set of that name, if this processor has it: `avx512`, `avx2` or `portable`.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::supported().into_iter().find(|isa| isa.name() == name)
    }

    /// Its name in lower case.
    pub fn name(self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            Kind::Portable => "portable",
        }
    }

    /// Multiply-adds that a core can do in a cycle, for estimates.
    pub(super) fn multiply_adds_per_cycle(self) -> usize {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => avx512::multiply_adds_per_cycle(),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => 16,
            Kind::Portable => 8,
        }
    }

    /// Output channels that one panel of packed weights holds: two vectors, but no less than a block.
    pub(super) fn panel(self) -> usize {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => 32,
            _ => 16,
        }
    }

    /// Runs the instance of `kernel` for this instruction set.
    ///
    /// # Safety
    /// The pointers in `kernel` are valid as its fields say.
    pub(super) unsafe fn dispatch<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: a value of `Isa` proves that the processor has the set; the caller vouches for the pointers.
        unsafe {
            match self.0 {
                #[cfg(target_arch = "x86_64")]
                Kind::Avx512 => avx512::run(kernel),
                #[cfg(target_arch = "x86_64")]
                Kind::Avx2 => avx2::run(kernel),
                Kind::Portable => kernel.run::<Portable>(),
            }
        }
    }
}

impl std::fmt::Debug for Isa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_detected_set_is_the_first_supported_one() {
        assert_eq!(Isa::supported().first(), Some(&Isa::detect()));
    }

    #[test]
    fn names_lead_back_to_their_set() {
        for isa in Isa::supported() {
            assert_eq!(Isa::by_name(isa.name()), Some(isa));
        }
        assert_eq!(Isa::by_name("sse9"), None);
    }
}
