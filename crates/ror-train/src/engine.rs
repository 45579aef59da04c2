//! What computes a network for the trainer.

use crate::{Batch, Gradients};
use ror_blocks::Noise;

/// Computes losses, gradients and logits of one network.
///
/// The variables of [`Parameters`](ror_models::Parameters) are the truth: optimisers, averages and
/// checkpoints change them between calls, so that an engine reads them anew in every call.
pub trait Engine: Send {
    /// Runs the network forwards in training mode and backwards.
    ///
    /// The loss is the mean over the images of the cross-entropy (in nats) between
    /// [`Batch::targets`] and the softmax of the logits. Every gradient is set, whatever
    /// `gradients` held before. Running statistics follow the batch. Random numbers come from
    /// `noise` alone.
    ///
    /// # Errors
    /// A batch that the network cannot take.
    fn forward_backward(
        &mut self,
        batch: &Batch,
        noise: &Noise,
        gradients: &mut Gradients,
    ) -> candle_core::Result<StepOutput>;

    /// The logits (N, classes) of normalised images `(N, C, H, W)` in evaluation mode.
    ///
    /// # Errors
    /// Images that the network cannot take.
    fn logits(&mut self, images: &[f32], shape: [usize; 4]) -> candle_core::Result<Vec<f32>>;
}

/// What a step computed beside the gradients.
#[derive(Debug, Clone, PartialEq)]
pub struct StepOutput {
    /// Mean cross-entropy in nats.
    pub loss: f64,
    /// The logits in training mode, (N, classes).
    pub logits: Vec<f32>,
}
