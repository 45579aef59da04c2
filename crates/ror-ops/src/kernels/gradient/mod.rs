//! Gradients of convolutions.

mod images;
mod input;
mod outer;
mod weight;

pub use input::InputGradient;
pub(super) use outer::Outer;
pub use weight::WeightGradient;
