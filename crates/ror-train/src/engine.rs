//! What computes a network for the trainer.

use crate::{Batch, Gradients};
use ror_blocks::Noise;

/// Told of a gradient that is final: its place in [`FlatLayout::entries`](crate::FlatLayout::entries),
/// and its values, which may be changed.
pub type Ready<'a> = dyn FnMut(usize, &mut [f32]) + 'a;

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
    ) -> candle_core::Result<StepOutput> {
        self.forward_backward_telling(batch, noise, gradients, &mut |_, _| ())
    }

    /// As [`Engine::forward_backward`], and tells `ready` of each gradient as soon as it is final, so
    /// that machines can add up theirs while the rest is still computed.
    ///
    /// Every gradient is told exactly once, those of dropped blocks too, from the last layer of the forward
    /// pass to the first (an engine computes a shortcut before, beside or after the body). The order depends
    /// on network and engine alone, so that machines agree on it whatever their batches and random numbers.
    /// The engine waits while `ready` runs, on the thread of the caller. After an error some may have been
    /// told.
    ///
    /// # Errors
    /// As [`Engine::forward_backward`].
    fn forward_backward_telling(
        &mut self,
        batch: &Batch,
        noise: &Noise,
        gradients: &mut Gradients,
        ready: &mut Ready<'_>,
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
