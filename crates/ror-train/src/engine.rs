//! What computes a network for the trainer.

use crate::{Batch, Gradients};
use ror_blocks::Noise;

/// What an engine tells while it computes, and what it asks of engines on other ranks.
///
/// A closure `|index: usize, gradient: &mut [f32]|` is one that only listens.
pub trait Peers {
    /// Told of a gradient that is final: its place in [`FlatLayout::entries`](crate::FlatLayout::entries),
    /// and its values, which may be changed.
    fn ready(&mut self, index: usize, gradient: &mut [f32]);

    /// Whether batch normalisations take the statistics of all ranks' images.
    fn synchronised(&self) -> bool {
        false
    }

    /// Replaces `values` by their sums over all ranks, if there are others.
    fn sum(&mut self, values: &mut [f64]) {
        let _ = values;
    }
}

impl<F: FnMut(usize, &mut [f32])> Peers for F {
    fn ready(&mut self, index: usize, gradient: &mut [f32]) {
        self(index, gradient);
    }
}

/// Computes losses, gradients and logits of one network.
///
/// The variables of [`Parameters`](ror_models::Parameters) are the truth: optimisers, averages and
/// checkpoints change them between calls, so that an engine reads them anew in every call.
pub trait Engine: Send {
    /// Takes what steps on images (C, H, W) will need, so that too little memory is known before the
    /// first.
    ///
    /// # Errors
    /// Images that the network cannot take, more than the machine has.
    fn prepare(&mut self, _image: [usize; 3]) -> candle_core::Result<()> {
        Ok(())
    }

    /// Runs the network forwards in training mode and backwards.
    ///
    /// The loss is the sum over the images of the cross-entropy (in nats) between
    /// [`Batch::targets`] and the softmax of the logits, divided by [`Batch::whole`]. Every gradient is
    /// set, whatever `gradients` held before. Running statistics follow the batch. Random numbers
    /// come from `noise` alone.
    ///
    /// # Errors
    /// A batch that the network cannot take.
    fn forward_backward(
        &mut self,
        batch: &Batch,
        noise: &Noise,
        gradients: &mut Gradients,
    ) -> candle_core::Result<StepOutput> {
        self.forward_backward_telling(batch, noise, gradients, &mut |_: usize, _: &mut [f32]| ())
    }

    /// As [`Engine::forward_backward`], and tells `peers` of each gradient as soon as it is final, so
    /// that machines can add up theirs while the rest is still computed. A batch without images is
    /// computed where the peers are synchronised: it takes part in the sums.
    ///
    /// Every gradient is told exactly once, those of dropped blocks too, from the last layer of the forward
    /// pass to the first (an engine computes a shortcut before, beside or after the body). The order depends
    /// on network and engine alone, so that machines agree on it whatever their batches and random numbers.
    /// The engine waits while it tells and asks, on the thread of the caller. After an error some may have
    /// been told.
    ///
    /// # Errors
    /// As [`Engine::forward_backward`]; an engine that cannot synchronise batch normalisations.
    fn forward_backward_telling(
        &mut self,
        batch: &Batch,
        noise: &Noise,
        gradients: &mut Gradients,
        peers: &mut dyn Peers,
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
    /// Cross-entropy in nats: the mean, or this batch's part of the mean over [`Batch::whole`].
    pub loss: f64,
    /// The logits in training mode, (N, classes).
    pub logits: Vec<f32>,
}
