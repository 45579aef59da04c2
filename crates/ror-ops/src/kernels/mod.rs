//! Convolution kernels for the CPU on slices, without tensors: the blocked layout and what runs on it.

pub mod blocked;
mod epilogue;
mod error;
mod gemm;
mod simd;
mod winograd;
pub use simd::Isa;
pub use blocked::*;
pub use epilogue::*;
pub use error::*;

#[doc(hidden)]
pub struct Probe<const M: usize, const T: usize>(winograd::Winograd<M, T>, Vec<Block>);
impl<const M: usize, const T: usize> Probe<M, T> {
    pub fn new(isa: Isa, i: usize, o: usize, w: &[f32]) -> Self { Self(winograd::Winograd::new(isa, i, o, w), vec![Block::ZERO; o/16]) }
    pub fn scratch(&self, n: usize, h: usize, w: usize) -> Vec<Block> { let g = self.0.grid(h, w); vec![Block::ZERO; self.0.scratch(g, n * g.rows)] }
    pub fn run(&self, n: usize, h: usize, w: usize, x: &[Block], y: &mut [Block], fused: &Fused, scratch: &mut [Block]) {
        let g = self.0.grid(h, w);
        let e = epilogue::Epilogue::new(Dims::new(n, self.1.len() * 16, h, w), &self.1, fused, &mut Output::raw(y)).unwrap();
        unsafe { self.0.run(g, x.as_ptr(), &e, 0..n * g.rows, 0..self.0.panels().count(), scratch) }
    }
}
