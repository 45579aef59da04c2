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
mod conv;
mod dense;
mod direct;
mod epilogue;
mod error;
mod gemm;
mod geometry;
mod merge;
mod placement;
mod pooling;
mod simd;
mod split;
mod stem;
mod threads;
mod winograd;

pub use algorithm::Algorithm;
pub use blocked::{
    Block, Dims, LANES, as_flat, as_flat_mut, blocks, channel_blocks, from_blocked, normalise_u8,
    to_blocked, to_blocked_u8,
};
pub use conv::Conv2d;
pub use dense::Dense;
pub use epilogue::{Fused, MAX_TERMS, Output, Preact, Source, Term};
pub use error::{KernelError, Result};
pub use geometry::Geometry;
pub use merge::{merge, pad_shortcut};
pub use pooling::{MaxPool, global_average_pool};
pub use simd::Isa;
pub use stem::{Plain, Stem};
pub use threads::Pool;
