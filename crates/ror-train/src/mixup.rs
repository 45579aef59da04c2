//! Mixup (Zhang et al., 2018): every image is mixed with another of its batch, and so is its
//! target. The batch has one weight, drawn from Beta(alpha, alpha).

use crate::Batch;
use ror_data::Generator;

/// Mixes a batch in place.
pub(crate) fn mix(batch: &mut Batch, alpha: f64, generator: &mut Generator) {
    // The larger share is the image's own, so that its label is still the likelier one. Beta is
    // symmetric and the partners are in random order: it is the same mixture.
    let share = beta(alpha, generator);
    let share = share.max(1.0 - share) as f32;
    let mut partners: Vec<usize> = (0..batch.len()).collect();
    generator.shuffle(&mut partners);
    let rows = partners.len();
    batch.images = mixed(&batch.images, rows, &partners, share);
    batch.targets = mixed(&batch.targets, rows, &partners, share);
}

fn mixed(values: &[f32], rows: usize, partners: &[usize], share: f32) -> Vec<f32> {
    let length = values.len().checked_div(rows).unwrap_or(0);
    let row = |i: usize| &values[i * length..][..length];
    let mut out = Vec::with_capacity(values.len());
    for (own, &other) in partners.iter().enumerate() {
        let pairs = row(own).iter().zip(row(other));
        out.extend(pairs.map(|(a, b)| share * a + (1.0 - share) * b));
    }
    out
}

/// A number of the distribution Beta(alpha, alpha), by Jöhnk's method, on logarithms because the
/// powers underflow for small alpha.
fn beta(alpha: f64, generator: &mut Generator) -> f64 {
    loop {
        let mut draw = || libm::log(1.0 - generator.unit()) / alpha;
        let (x, y) = (draw(), draw());
        let largest = x.max(y);
        let sum = largest + libm::log(libm::exp(x - largest) + libm::exp(y - largest));
        if sum <= 0.0 {
            return libm::exp(x - sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beta_has_the_moments_of_its_distribution() {
        for alpha in [0.05, 0.4, 1.0, 3.0] {
            let mut generator = Generator::new(11, &[]);
            let n = 20_000;
            let draws: Vec<f64> = (0..n).map(|_| beta(alpha, &mut generator)).collect();
            assert!(draws.iter().all(|d| (0.0..=1.0).contains(d)));
            let mean = draws.iter().sum::<f64>() / f64::from(n);
            let variance = draws.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / f64::from(n);
            let expected = 1.0 / (4.0 * (2.0 * alpha + 1.0));
            // Five standard errors, and as good a bound for the variance's.
            let bound = 5.0 * (expected / f64::from(n)).sqrt();
            assert!((mean - 0.5).abs() < bound, "alpha {alpha}: mean {mean}");
            assert!(
                (variance - expected).abs() < bound,
                "alpha {alpha}: {variance}"
            );
        }
    }

    #[test]
    fn images_and_targets_are_mixed_alike() {
        // Image and target of row i are both i-hot, so that they stay equal.
        let hot: Vec<f32> = (0..4)
            .flat_map(|i| (0..4).map(move |j| f32::from(i == j)))
            .collect();
        let mut batch = Batch {
            images: hot.clone(),
            shape: [4, 1, 2, 2],
            targets: hot,
            labels: vec![0, 1, 2, 3],
            whole: 4,
        };
        mix(&mut batch, 1.0, &mut Generator::new(2, &[]));
        assert_eq!(batch.images, batch.targets);
        for (row, label) in batch.targets.chunks(4).zip([0, 1, 2, 3]) {
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6);
            assert!(row[label] >= 0.5);
        }
        assert!(batch.targets.iter().any(|&t| t > 0.0 && t < 0.5));
    }
}
