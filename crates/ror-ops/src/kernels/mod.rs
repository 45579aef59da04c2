//! Kernels for the processor, on slices: convolution and what surrounds it, without tensors or allocation.
//!
//! Activations are in the [blocked layout](Block) between a [`Stem`] and a [`Dense`] layer. Weights are packed once
//! ([`Conv2d::new`]) for an instruction set ([`Isa`]) and an [`Algorithm`]; a call takes its scratch from the caller and
//! fuses what follows the convolution ([`Fused`], [`Output`]). `run` works on the calling thread, `run_on` splits one
//! call over a [`Pool`].
//!
//! All entry points check shapes and lengths and then hand pointers to kernels that check nothing.

mod algorithm;
mod blocked;
mod classifier;
mod conv;
mod dense;
mod direct;
mod dropout;
mod epilogue;
mod error;
mod gemm;
mod geometry;
mod gradient;
mod memory;
mod merge;
mod norm;
mod placement;
mod pooling;
mod pooling_gradient;
mod simd;
mod split;
mod stem;
mod sum;
mod threads;
mod winograd;

pub use algorithm::Algorithm;
pub use blocked::{
    Block, Dims, LANES, as_flat, as_flat_mut, blocks, channel_blocks, from_blocked, to_blocked,
};
pub use classifier::{Linear, softmax_cross_entropy};
pub use conv::Conv2d;
pub use dense::Dense;
pub use dropout::{Kept, dropout, kept};
pub use epilogue::{Fused, MAX_TERMS, Output, Preact, Source, Term};
pub use error::{KernelError, Result};
pub use geometry::Geometry;
pub use gradient::{InputGradient, WeightGradient};
pub use memory::{Blocks, Memory};
pub use merge::{merge, pad_shortcut};
pub use norm::{Affine, GradientMoments, Moments, NormGradient};
pub use pooling::{MaxPool, global_average_pool};
pub use pooling_gradient::{global_average_pool_gradient, pad_shortcut_gradient};
pub use simd::Isa;
pub use stem::{Plain, Stem};
pub use sum::{Addend, channel_sums, relu_gradient, sum};
pub use threads::Pool;
