//! Some images of a dataset, and the split that holds some back.

use crate::error::{Result, TrainError};
use crate::ranks::{Ranks, share};
use ror_data::{Dataset, Generator};
use std::sync::Arc;

/// What the order of the split's draws is derived from: never the run's seed, so that all runs
/// hold back the same images and can be compared.
const SEED: u64 = 0x686f_6c64_6f75_7421;

/// Some images of a dataset.
#[derive(Debug, Clone)]
pub struct Subset {
    data: Arc<Dataset>,
    indices: Arc<[usize]>,
}

impl Subset {
    /// All images.
    pub fn all(data: Arc<Dataset>) -> Self {
        let indices = (0..data.len()).collect();
        Self { data, indices }
    }

    /// Splits a dataset in what is trained on and what is held back to measure on: the same
    /// fraction of every class, drawn at random, the same images every time.
    ///
    /// # Errors
    /// A fraction that is not between 0 and 1, or that leaves one side without images.
    pub fn holdout(data: Arc<Dataset>, fraction: f64) -> Result<(Self, Self)> {
        if !(fraction > 0.0 && fraction < 1.0) {
            return Err(TrainError::Config(format!(
                "holdout is {fraction}; it must lie between 0 and 1"
            )));
        }
        let mut classes = vec![Vec::new(); data.classes().len()];
        for (index, &label) in data.labels().iter().enumerate() {
            classes[label as usize].push(index);
        }
        let (mut kept, mut held) = (Vec::new(), Vec::new());
        for (label, mut indices) in (0..).zip(classes) {
            Generator::new(SEED, &[label]).shuffle(&mut indices);
            let count = (indices.len() as f64 * fraction).round() as usize;
            held.extend_from_slice(&indices[..count]);
            kept.extend_from_slice(&indices[count..]);
        }
        if kept.is_empty() || held.is_empty() {
            return Err(TrainError::Data(format!(
                "holding back {fraction} of {} images leaves {} to train on and {} to measure on",
                data.len(),
                kept.len(),
                held.len()
            )));
        }
        kept.sort_unstable();
        held.sort_unstable();
        let of = |indices: Vec<usize>| Self {
            data: data.clone(),
            indices: indices.into(),
        };
        Ok((of(kept), of(held)))
    }

    /// How many images there are.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// The dataset they are from.
    pub fn data(&self) -> &Arc<Dataset> {
        &self.data
    }

    /// Their positions in the dataset.
    pub fn indices(&self) -> &[usize] {
        &self.indices
    }

    /// A rank's share of them.
    pub fn share(&self, ranks: &dyn Ranks) -> Self {
        Self {
            data: self.data.clone(),
            indices: self.indices[share(ranks, self.len())].into(),
        }
    }

    /// A checksum of labels, their order, and what tells the images apart.
    pub(crate) fn checksum(&self) -> u32 {
        self.indices.iter().fold(0, |sum, &index| {
            let label = self.data.labels()[index].to_le_bytes();
            let image = self.data.identity(index);
            crc32c::crc32c_append(crc32c::crc32c_append(sum, &label), image)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ror_data::Size;

    fn data(labels: Vec<u32>) -> Arc<Dataset> {
        let pixels = (0..labels.len()).flat_map(|i| [i as u8; 3]).collect();
        let classes = vec!["a".to_owned(), "b".to_owned()];
        let size = Size::new(1, 1).unwrap();
        Arc::new(Dataset::from_pixels("made", pixels, labels, classes, size).unwrap())
    }

    #[test]
    fn a_holdout_takes_the_same_share_of_every_class_and_no_image_twice() {
        let labels = (0..100).map(|i| u32::from(i >= 80)).collect();
        let (kept, held) = Subset::holdout(data(labels), 0.1).unwrap();
        let ones = |s: &Subset| s.indices().iter().filter(|&&i| i >= 80).count();
        assert_eq!((held.len(), ones(&held)), (10, 2));
        assert_eq!((kept.len(), ones(&kept)), (90, 18));
        let mut all = [kept.indices(), held.indices()].concat();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..100));
    }

    #[test]
    fn a_holdout_that_leaves_nothing_is_an_error() {
        for fraction in [0.0, 1.0, 0.01, f64::NAN] {
            assert!(Subset::holdout(data(vec![0, 1, 0]), fraction).is_err());
        }
    }

    #[test]
    fn the_checksum_sees_pixels_and_labels() {
        let sum = |labels| Subset::all(data(labels)).checksum();
        assert_ne!(sum(vec![0, 1]), sum(vec![1, 0]));
        assert_ne!(sum(vec![0]), sum(vec![0, 0]));
    }
}
