//! Tensor operations of multilevel residual networks, each with its gradient, on candle.
//!
//! Images are `(N, C, H, W)`: batch, channels, rows, columns. Every function works on any candle
//! device; where candle's own operation is wrong or slow on the CPU, a custom one takes its place.
//! Gradients follow PyTorch and TensorFlow at the corner cases (ReLU at zero, ties in a pool on the CPU).

mod batch_norm;
mod conv;
mod conv_op;
#[cfg(feature = "cudnn")]
mod cudnn;
mod elementwise;
pub mod kernels;
mod pool;
mod shortcut;

pub use batch_norm::{
    BatchNormConfig, BatchStatistics, Momentum, RunningVariance, batch_norm, batch_norm_train,
};
pub use conv::conv2d;
pub use elementwise::relu;
pub use pool::{global_average_pool, max_pool2d};
pub use shortcut::pad_shortcut;

/// The example of the README runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
