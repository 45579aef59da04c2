//! A training step on the processor, without a tape.
//!
//! The network's tree is lowered to a list of operations (`graph`, `lower`), planned for the caches (`plan`), and run
//! forwards and backwards by kernels on the blocked layout (`pass`). Each thread has its own images with all their
//! values and gradients (`state`); threads meet only where a batch normalisation needs sums over the batch, and what
//! they add up is added in the order of the threads. So the same seed and number of threads give the same bits.

mod compiled;
mod engine;
mod failure;
mod finish;
mod flags;
mod graph;
mod lower;
mod norms;
mod pass;
mod plan;
mod run;
mod state;
mod variables;

pub use engine::KernelEngine;
