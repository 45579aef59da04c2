//! Stochastic gradient descent with momentum.

/// The numbers of one step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sgd {
    pub(super) lr: f32,
    pub(super) momentum: f32,
    pub(super) nesterov: bool,
    /// Weight decay, added to the gradient.
    pub(super) decay: f32,
    /// What gradients are multiplied by first, to clip them.
    pub(super) scale: f32,
}

impl Sgd {
    /// `v = momentum v + g`, then `p -= lr v`, or with Nesterov `p -= lr (g + momentum v)`, as in
    /// Torch (Sutskever et al., 2013, with the learning rate outside the velocity).
    pub(super) fn apply(&self, p: &mut [f32], g: &[f32], v: &mut [f32]) {
        for ((p, &g), v) in p.iter_mut().zip(g).zip(v) {
            let g = g * self.scale + self.decay * *p;
            *v = self.momentum * *v + g;
            let direction = if self.nesterov {
                g + self.momentum * *v
            } else {
                *v
            };
            *p -= self.lr * direction;
        }
    }
}
