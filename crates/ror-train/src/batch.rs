//! What one step learns from.

/// Normalised images with what the network should say about them.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// The images, (N, C, H, W).
    pub images: Vec<f32>,
    /// N, C, H, W.
    pub shape: [usize; 4],
    /// The probabilities that the network should give, (N, classes); softened by label smoothing
    /// and mixup.
    pub targets: Vec<f32>,
    /// The class of every image, (N); under mixup, of the image that weighs more.
    pub labels: Vec<u32>,
    /// Images of the step on all ranks, over which the loss is averaged; N on a single one.
    pub whole: usize,
}

impl Batch {
    /// How many images there are, N.
    pub fn len(&self) -> usize {
        self.shape[0]
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many classes the targets are for.
    pub fn classes(&self) -> usize {
        self.targets.len().checked_div(self.len()).unwrap_or(0)
    }
}
