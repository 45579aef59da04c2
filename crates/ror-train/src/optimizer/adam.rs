//! Adam (Kingma and Ba, 2015) and AdamW (Loshchilov and Hutter, 2019).

/// The numbers of one step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Adam {
    pub(super) beta1: f32,
    pub(super) beta2: f32,
    /// `1 - beta`, rounded once.
    pub(super) rest1: f32,
    pub(super) rest2: f32,
    /// The learning rate, corrected for the moments' bias.
    pub(super) lr: f32,
    /// What the root of the second moment is multiplied by, to correct its bias before epsilon is
    /// added; 1 where epsilon is added to the uncorrected root.
    pub(super) root_scale: f32,
    pub(super) epsilon: f32,
    /// Weight decay, added to the gradient (Adam).
    pub(super) decay: f32,
    /// What weights are multiplied by (AdamW); 1 without decay.
    pub(super) keep: f32,
    /// What gradients are multiplied by first, to clip them.
    pub(super) scale: f32,
}

/// Where epsilon is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EpsilonPlace {
    /// To the root of the second moment after its bias is corrected: the paper's algorithm 1,
    /// PyTorch.
    Corrected,
    /// To the root of the moment as it is: the form below algorithm 1, Keras.
    Uncorrected,
}

/// What does not change between steps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Constants {
    pub(super) betas: [f64; 2],
    pub(super) epsilon: f64,
    pub(super) place: EpsilonPlace,
}

impl Adam {
    /// The numbers of step `t`, counted from 1, without decay.
    pub(super) fn at(constants: &Constants, t: u64, lr: f64, scale: f32) -> Self {
        let [beta1, beta2] = constants.betas;
        let correction = |beta: f64| 1.0 - beta.powi(i32::try_from(t).unwrap_or(i32::MAX));
        let root = correction(beta2).sqrt();
        let (lr, root_scale) = match constants.place {
            EpsilonPlace::Corrected => (lr / correction(beta1), 1.0 / root),
            EpsilonPlace::Uncorrected => (lr * root / correction(beta1), 1.0),
        };
        Self {
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            rest1: (1.0 - beta1) as f32,
            rest2: (1.0 - beta2) as f32,
            lr: lr as f32,
            root_scale: root_scale as f32,
            epsilon: constants.epsilon as f32,
            decay: 0.0,
            keep: 1.0,
            scale,
        }
    }

    pub(super) fn apply(&self, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
        for (((p, &g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
            let g = g * self.scale + self.decay * *p;
            *m = self.beta1 * *m + self.rest1 * g;
            *v = self.beta2 * *v + self.rest2 * g * g;
            *p = *p * self.keep - self.lr * *m / (v.sqrt() * self.root_scale + self.epsilon);
        }
    }
}
