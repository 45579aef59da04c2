//! The end of a network in training: a linear classifier and its loss, for plain rows.

use super::error::{Result, check_len, product};
use super::simd::{Isa, Kernel, Simd};

/// A linear classifier with weights `[outputs][inputs]`, and its gradients.
#[derive(Clone, Copy, Debug)]
pub struct Linear<'a> {
    /// `[outputs][inputs]`.
    pub weight: &'a [f32],
    /// One per output.
    pub bias: &'a [f32],
}

impl Linear<'_> {
    fn check(&self, rows: usize, x: &[f32], y: &[f32]) -> Result<(usize, usize)> {
        let outputs = self.bias.len();
        let inputs = self.weight.len().checked_div(outputs).unwrap_or(0);
        check_len("classifier weight", inputs * outputs, self.weight.len())?;
        check_len("features", product("features", &[rows, inputs])?, x.len())?;
        check_len("logits", product("logits", &[rows, outputs])?, y.len())?;
        Ok((inputs, outputs))
    }

    /// The logits `y` of `rows` of features `x`.
    ///
    /// # Errors
    /// Slices whose lengths do not fit each other.
    pub fn run(&self, isa: Isa, rows: usize, x: &[f32], y: &mut [f32]) -> Result<()> {
        let (inputs, outputs) = self.check(rows, x, y)?;
        if inputs == 0 {
            for y in y.chunks_exact_mut(outputs.max(1)) {
                y.copy_from_slice(self.bias);
            }
            return Ok(());
        }
        if y.is_empty() {
            return Ok(());
        }
        for (x, y) in x.chunks_exact(inputs).zip(y.chunks_exact_mut(outputs)) {
            for ((y, weight), bias) in y
                .iter_mut()
                .zip(self.weight.chunks_exact(inputs))
                .zip(self.bias)
            {
                // SAFETY: the kernel works on slices.
                *y = bias + unsafe { isa.dispatch(Dot(x, weight)) };
            }
        }
        Ok(())
    }

    /// Sets `dx` to the gradient of the features, and adds those of weight and bias to `dweight` and `dbias`.
    ///
    /// # Errors
    /// Slices whose lengths do not fit each other.
    #[allow(clippy::too_many_arguments)]
    pub fn gradient(
        &self,
        isa: Isa,
        rows: usize,
        x: &[f32],
        dy: &[f32],
        dx: &mut [f32],
        dweight: &mut [f32],
        dbias: &mut [f32],
    ) -> Result<()> {
        let (inputs, outputs) = self.check(rows, x, dy)?;
        check_len("features' gradient", x.len(), dx.len())?;
        check_len(
            "classifier weight gradient",
            self.weight.len(),
            dweight.len(),
        )?;
        check_len("classifier bias gradient", self.bias.len(), dbias.len())?;
        dx.fill(0.0);
        if x.is_empty() || dy.is_empty() {
            return Ok(());
        }
        let images = x.chunks_exact(inputs).zip(dx.chunks_exact_mut(inputs));
        for ((x, dx), dy) in images.zip(dy.chunks_exact(outputs)) {
            let weights = self.weight.chunks_exact(inputs);
            for (((&dy, weight), dweight), dbias) in dy
                .iter()
                .zip(weights)
                .zip(dweight.chunks_exact_mut(inputs))
                .zip(&mut *dbias)
            {
                *dbias += dy;
                // SAFETY: the kernels work on slices.
                unsafe {
                    isa.dispatch(Axpy(dy, weight, dx));
                    isa.dispatch(Axpy(dy, x, dweight));
                }
            }
        }
        Ok(())
    }
}

struct Dot<'a>(&'a [f32], &'a [f32]);

impl Kernel for Dot<'_> {
    type Output = f32;
    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> f32 {
        let mut sums = [0f32; 32];
        let (a, a_rest) = self.0.as_chunks::<32>();
        let (b, b_rest) = self.1.as_chunks::<32>();
        for (a, b) in a.iter().zip(b) {
            for i in 0..32 {
                sums[i] += a[i] * b[i];
            }
        }
        let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
        sums.iter().sum::<f32>() + rest
    }
}

struct Axpy<'a>(f32, &'a [f32], &'a mut [f32]);

impl Kernel for Axpy<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for (y, x) in self.2.iter_mut().zip(self.1) {
            *y += self.0 * x;
        }
    }
}

/// The sum over the rows of the cross-entropy (nats) between `targets` and the softmax of `logits`, both
/// `[rows][classes]`; `gradient` is set to its gradient times `factor`. Targets need not sum to one.
///
/// # Errors
/// Slices of different lengths, or not of whole rows.
pub fn softmax_cross_entropy(
    classes: usize,
    logits: &[f32],
    targets: &[f32],
    factor: f64,
    gradient: &mut [f32],
) -> Result<f64> {
    check_len("targets", logits.len(), targets.len())?;
    check_len("logits' gradient", logits.len(), gradient.len())?;
    let rows = logits.len().checked_div(classes).unwrap_or(0);
    check_len("logits", rows * classes, logits.len())?;
    if logits.is_empty() {
        return Ok(0.0);
    }
    let mut loss = 0.0;
    let rows = logits
        .chunks_exact(classes)
        .zip(targets.chunks_exact(classes));
    for ((logits, targets), gradient) in rows.zip(gradient.chunks_exact_mut(classes)) {
        let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let sum: f64 = logits.iter().map(|&v| (f64::from(v) - largest).exp()).sum();
        let log_sum = largest + sum.ln();
        let mass: f64 = targets.iter().map(|&t| f64::from(t)).sum();
        for ((&v, &t), g) in logits.iter().zip(targets).zip(gradient) {
            let log = f64::from(v) - log_sum;
            // 0 * -inf is no contribution.
            if t != 0.0 {
                loss -= f64::from(t) * log;
            }
            *g = ((mass * log.exp() - f64::from(t)) * factor) as f32;
        }
    }
    Ok(loss)
}
