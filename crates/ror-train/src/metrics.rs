//! What an evaluation counts.

use crate::Ranks;
use serde::Serialize;

/// Counts over the images of a data set.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// `[label][predicted]`
    confusion: Vec<Vec<u64>>,
    top5: u64,
    loss: f64,
}

/// The figures of an evaluation; fractions of 1.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evaluation {
    /// The share of images whose likeliest class is theirs.
    pub top1: f64,
    /// The share of images whose class is among the five likeliest.
    pub top5: f64,
    /// Mean cross-entropy in nats.
    pub loss: f64,
    /// How many images were counted.
    pub images: u64,
    /// The figures of each class.
    pub per_class: Vec<PerClass>,
}

/// The figures of one class; fractions of 1.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PerClass {
    /// The class's name.
    pub class: String,
    /// Its position among the classes.
    pub index: usize,
    /// How many images are of this class.
    pub images: u64,
    /// Of the images of this class, those predicted as such.
    pub top1: f64,
    /// Of the images predicted as this class, those that are.
    pub precision: f64,
}

impl Metrics {
    /// No images yet, of so many classes.
    pub fn new(classes: usize) -> Self {
        Self {
            confusion: vec![vec![0; classes]; classes],
            top5: 0,
            loss: 0.0,
        }
    }

    /// Counts one image with as many logits as there are classes.
    ///
    /// # Panics
    /// If there are not, or `label` is no class.
    pub fn add(&mut self, logits: &[f32], label: usize) {
        let own = logits[label];
        // Ties go to the lower index, as with argmax.
        let rank = |of: usize| {
            let better = |(i, &l): (usize, &f32)| l > logits[of] || (l == logits[of] && i < of);
            logits.iter().enumerate().filter(|&at| better(at)).count()
        };
        let predicted = argmax(logits);
        self.confusion[label][predicted] += 1;
        self.top5 += u64::from(rank(label) < 5 && !own.is_nan());
        let largest = f64::from(logits[predicted]);
        let sum: f64 = logits.iter().map(|&l| (f64::from(l) - largest).exp()).sum();
        self.loss += sum.ln() + largest - f64::from(own);
    }

    /// Adds up what all ranks have counted.
    pub fn sum(&mut self, ranks: &dyn Ranks) {
        if ranks.size() == 1 {
            return;
        }
        // Whole numbers below 2^53 stay what they are.
        let counts = self.confusion.iter_mut().flatten().chain([&mut self.top5]);
        let mut counts: Vec<&mut u64> = counts.collect();
        let mut sums: Vec<f64> = counts.iter().map(|count| **count as f64).collect();
        sums.push(self.loss);
        ranks.sum(&mut sums);
        self.loss = sums.pop().unwrap_or(f64::NAN);
        let pairs = counts.iter_mut().zip(sums);
        pairs.for_each(|(count, sum)| **count = sum as u64);
    }

    /// `[label][predicted]`
    pub fn confusion(&self) -> &[Vec<u64>] {
        &self.confusion
    }

    /// The figures, with the classes' names.
    ///
    /// # Panics
    /// If there are not as many names as classes.
    pub fn evaluation(&self, classes: &[String]) -> Evaluation {
        assert_eq!(classes.len(), self.confusion.len(), "names of classes");
        let images: u64 = self.confusion.iter().flatten().sum();
        let share = |part: u64, whole: u64| {
            if whole == 0 {
                0.0
            } else {
                part as f64 / whole as f64
            }
        };
        let right: u64 = (0..classes.len()).map(|i| self.confusion[i][i]).sum();
        let per_class = classes.iter().enumerate().map(|(index, class)| {
            let of_class: u64 = self.confusion[index].iter().sum();
            let as_class: u64 = self.confusion.iter().map(|row| row[index]).sum();
            PerClass {
                class: class.clone(),
                index,
                images: of_class,
                top1: share(self.confusion[index][index], of_class),
                precision: share(self.confusion[index][index], as_class),
            }
        });
        Evaluation {
            top1: share(right, images),
            top5: share(self.top5, images),
            loss: self.loss / (images.max(1)) as f64,
            images,
            per_class: per_class.collect(),
        }
    }
}

/// The index of the largest value, the first of equals; NaN never wins.
pub(crate) fn argmax(values: &[f32]) -> usize {
    let mut best = 0;
    for (i, &v) in values.iter().enumerate() {
        if v > values[best] || (values[best].is_nan() && !v.is_nan()) {
            best = i;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_three_images() {
        let mut metrics = Metrics::new(6);
        metrics.add(&[9.0, 0.0, 0.0, 0.0, 0.0, 0.0], 0);
        metrics.add(&[5.0, 4.0, 3.0, 2.0, 1.0, 0.0], 4);
        metrics.add(&[5.0, 4.0, 3.0, 2.0, 1.0, 0.0], 5);
        let classes: Vec<String> = (0..6).map(|i| i.to_string()).collect();
        let e = metrics.evaluation(&classes);
        assert_eq!((e.images, e.top1, e.top5), (3, 1.0 / 3.0, 2.0 / 3.0));
        assert_eq!(e.per_class[0].precision, 1.0 / 3.0);
        assert_eq!(metrics.confusion()[5][0], 1);
    }

    #[test]
    fn counts_of_ranks_are_those_of_one() {
        let logits = |i: usize| [(i * 7 % 5) as f32, (i * 3 % 4) as f32, 1.5];
        let count = |images: std::ops::Range<usize>| {
            let mut metrics = Metrics::new(3);
            images.for_each(|i| metrics.add(&logits(i), i % 3));
            metrics
        };
        let one = count(0..10);
        let sums = crate::ranks::threads::on_ranks(3, |ranks| {
            let mut metrics = count(crate::ranks::share(&ranks, 10));
            metrics.sum(&ranks);
            metrics
        });
        for sum in sums {
            assert_eq!(sum.confusion(), one.confusion());
            assert_eq!(sum.top5, one.top5);
            assert!((sum.loss - one.loss).abs() < 1e-12);
        }
    }

    #[test]
    fn equal_logits_cost_the_logarithm_of_their_number() {
        let mut metrics = Metrics::new(4);
        metrics.add(&[100.0; 4], 2);
        let classes: Vec<String> = (0..4).map(|i| i.to_string()).collect();
        assert!((metrics.evaluation(&classes).loss - 4f64.ln()).abs() < 1e-12);
    }
}
