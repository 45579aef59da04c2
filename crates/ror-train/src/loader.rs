//! Training batches, prepared ahead of the step on threads of their own.
//!
//! The order of an epoch follows from (seed, epoch), an image's augmentation from (seed, epoch,
//! image), a batch's mixup from (seed, epoch, batch). A position in the run is therefore two
//! numbers, and the number of threads changes nothing.

use crate::error::{Result, TrainError};
use crate::ranks::{Ranks, share_of};
use crate::{Alone, Batch, Subset, TrainConfig, mixup};
use ror_data::{Augment, Generator, Normalisation};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, JoinHandle};

/// What random numbers are for.
mod purpose {
    pub(super) const ORDER: u64 = 1;
    pub(super) const AUGMENT: u64 = 2;
    pub(super) const MIXUP: u64 = 3;
}

/// Batches that each thread may be ahead.
const AHEAD: usize = 3;

/// Makes training batches of a set of images.
#[derive(Debug, Clone)]
pub struct Loader(Arc<Plan>);

#[derive(Debug)]
struct Plan {
    images: Subset,
    batch_size: usize,
    seed: u64,
    augment: Augment,
    normalise: Normalisation,
    fill: [u8; 3],
    label_smoothing: f64,
    mixup: f64,
    workers: usize,
    rank: usize,
    ranks: usize,
}

impl Loader {
    /// A loader of these images.
    ///
    /// # Errors
    /// No images, or settings out of their ranges.
    pub fn new(images: Subset, config: &TrainConfig) -> Result<Self> {
        Self::on(&Alone, images, config)
    }

    /// A loader of a rank's share of every batch. Together the ranks see the images that one alone would see,
    /// in the same steps, changed in the same way; but mixup mixes images of one rank.
    ///
    /// # Errors
    /// As [`Loader::new`]; batches of fewer images than there are ranks.
    pub fn on(ranks: &dyn Ranks, images: Subset, config: &TrainConfig) -> Result<Self> {
        config.validate_for(images.data().size())?;
        if images.is_empty() {
            return Err(TrainError::Data(
                "there are no images to train on".to_owned(),
            ));
        }
        if config.batch_size < ranks.size() {
            return Err(TrainError::Config(format!(
                "batches of {} images cannot be shared by {} ranks",
                config.batch_size,
                ranks.size()
            )));
        }
        Ok(Self(Arc::new(Plan {
            images,
            batch_size: config.batch_size,
            seed: config.seed,
            augment: config.augment,
            normalise: config.normalise,
            fill: config
                .normalise
                .mean
                .map(|mean| (mean * 255.0).round() as u8),
            label_smoothing: config.label_smoothing,
            mixup: config.mixup,
            workers: config.workers,
            rank: ranks.rank(),
            ranks: ranks.size(),
        })))
    }

    /// How many images an epoch has.
    pub fn images(&self) -> usize {
        self.0.images.len()
    }

    /// How many batches an epoch has; the last may be smaller than the others.
    pub fn batches(&self) -> u64 {
        self.images().div_ceil(self.0.batch_size) as u64
    }

    /// The images that are loaded.
    pub fn subset(&self) -> &Subset {
        &self.0.images
    }

    /// The batches of an epoch from batch `from` on.
    ///
    /// # Errors
    /// Threads that cannot be started.
    pub fn epoch(&self, epoch: u64, from: u64) -> Result<Batches> {
        let order: Arc<[usize]> = self.0.order(epoch).into();
        let workers = self.0.workers as u64;
        let mut threads = Vec::new();
        for worker in 0..workers {
            let (plan, order) = (self.0.clone(), order.clone());
            let mine = (from + worker..self.batches()).step_by(self.0.workers);
            let (sender, receiver) = sync_channel(AHEAD);
            let work = move || {
                for index in mine {
                    // Nobody listens any more when the epoch is given up.
                    if sender.send(plan.batch(&order, epoch, index)).is_err() {
                        return;
                    }
                }
            };
            let thread = thread::Builder::new().name(format!("ror-data-{worker}"));
            let handle = thread.spawn(work).map_err(|cause| TrainError::Io {
                path: "a thread that prepares batches".into(),
                cause,
            })?;
            threads.push(Worker {
                batches: receiver,
                handle: Some(handle),
            });
        }
        Ok(Batches { threads, next: 0 })
    }
}

impl Plan {
    fn order(&self, epoch: u64) -> Vec<usize> {
        let mut order = self.images.indices().to_vec();
        Generator::new(self.seed, &[purpose::ORDER, epoch]).shuffle(&mut order);
        order
    }

    fn batch(&self, order: &[usize], epoch: u64, index: u64) -> Result<Batch> {
        let data = self.images.data();
        let from = index as usize * self.batch_size;
        let batch = &order[from..order.len().min(from + self.batch_size)];
        let indices = &batch[share_of(self.rank, self.ranks, batch.len())];
        let size = data.size();
        let mut changed = Vec::new();
        let mut pixels = Vec::with_capacity(indices.len() * size.area() * 3);
        for &i in indices {
            let place = [purpose::AUGMENT, epoch, i as u64];
            let generator = Generator::new(self.seed, &place);
            data.augmented(i, &self.augment, self.fill, generator, &mut changed)?;
            pixels.extend_from_slice(&changed);
        }
        let mut images = Vec::with_capacity(pixels.len());
        self.normalise
            .append(pixels.chunks_exact(size.area() * 3), &mut images);
        let labels: Vec<u32> = indices.iter().map(|&i| data.labels()[i]).collect();
        let mut batch = Batch {
            images,
            shape: [indices.len(), 3, size.height(), size.width()],
            targets: targets(&labels, data.classes().len(), self.label_smoothing),
            labels,
            whole: batch.len(),
        };
        if self.mixup > 0.0 {
            let place = [purpose::MIXUP, epoch, index, self.rank as u64];
            // The first rank's draws are those of one that is alone.
            let place = &place[..place.len() - usize::from(self.rank == 0)];
            mixup::mix(
                &mut batch,
                self.mixup,
                &mut Generator::new(self.seed, place),
            );
        }
        Ok(batch)
    }
}

/// One row of probabilities per label.
fn targets(labels: &[u32], classes: usize, smoothing: f64) -> Vec<f32> {
    let rest = (smoothing / classes as f64) as f32;
    let own = (1.0 - smoothing + smoothing / classes as f64) as f32;
    let mut targets = vec![rest; labels.len() * classes];
    for (row, &label) in targets.chunks_exact_mut(classes).zip(labels) {
        row[label as usize] = own;
    }
    targets
}

/// The batches of an epoch in order, or why one of them cannot be.
#[derive(Debug)]
pub struct Batches {
    threads: Vec<Worker>,
    next: usize,
}

#[derive(Debug)]
struct Worker {
    batches: Receiver<Result<Batch>>,
    handle: Option<JoinHandle<()>>,
}

impl Iterator for Batches {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Result<Batch>> {
        let at = self.next % self.threads.len();
        self.next += 1;
        let worker = &mut self.threads[at];
        let batch = worker.batches.recv().ok();
        if batch.is_none()
            && let Some(handle) = worker.handle.take()
            && let Err(panic) = handle.join()
        {
            std::panic::resume_unwind(panic);
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Recipe;
    use ror_data::{Dataset, Size};
    use std::collections::BTreeSet;

    /// Image `i` is `i` all over, of class `i % 3`.
    fn images(n: usize) -> Subset {
        let size = Size::new(6, 5).unwrap();
        let pixels = (0..n)
            .flat_map(|i| vec![i as u8; size.area() * 3])
            .collect();
        let labels = (0..n as u32).map(|i| i % 3).collect();
        let classes = ["a", "b", "c"].map(str::to_owned).to_vec();
        let data = Dataset::from_pixels("made", pixels, labels, classes, size).unwrap();
        Subset::all(Arc::new(data))
    }

    fn config(workers: usize) -> TrainConfig {
        TrainConfig {
            batch_size: 4,
            workers,
            normalise: Normalisation::unit(),
            ..Recipe::Fast.config()
        }
    }

    fn plain() -> TrainConfig {
        TrainConfig {
            augment: Augment::NONE,
            ..config(1)
        }
    }

    fn epoch(config: &TrainConfig, epoch: u64, from: u64) -> Vec<Batch> {
        let loader = Loader::new(images(22), config).unwrap();
        loader
            .epoch(epoch, from)
            .unwrap()
            .map(Result::unwrap)
            .collect()
    }

    /// Which image each one is.
    fn identities(batches: &[Batch]) -> Vec<u32> {
        let first = |batch: &Batch| -> Vec<u32> {
            let image = batch.images.len() / batch.len();
            let values = batch.images.iter().step_by(image);
            values.map(|v| (v * 255.0).round() as u32).collect()
        };
        batches.iter().flat_map(first).collect()
    }

    #[test]
    fn every_image_comes_once_an_epoch_with_its_label() {
        let batches = epoch(&plain(), 0, 0);
        let sizes: Vec<usize> = batches.iter().map(Batch::len).collect();
        assert_eq!(sizes, [4, 4, 4, 4, 4, 2]);
        let seen = identities(&batches);
        assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 22);
        let labels = batches.iter().flat_map(|b| b.labels.clone());
        assert!(seen.iter().zip(labels).all(|(i, label)| i % 3 == label));
    }

    #[test]
    fn epochs_differ_and_repeat() {
        assert_eq!(epoch(&config(1), 3, 0), epoch(&config(1), 3, 0));
        let (a, b) = (epoch(&plain(), 3, 0), epoch(&plain(), 4, 0));
        assert_ne!(identities(&a), identities(&b));
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let mut config = config(1);
        config.mixup = 0.4;
        config.label_smoothing = 0.1;
        let one = epoch(&config, 2, 0);
        for workers in [2, 3, 8] {
            config.workers = workers;
            assert_eq!(epoch(&config, 2, 0), one);
        }
    }

    #[test]
    fn an_epoch_goes_on_where_it_was_left() {
        let all = epoch(&config(2), 1, 0);
        for from in 0..=all.len() {
            assert_eq!(epoch(&config(2), 1, from as u64), all[from..]);
        }
    }

    #[test]
    fn ranks_share_every_batch_of_one() {
        let mut config = config(1);
        config.label_smoothing = 0.1;
        let one = epoch(&config, 1, 0);
        let shares = crate::ranks::threads::on_ranks(3, |ranks| {
            let loader = Loader::on(&ranks, images(22), &config).unwrap();
            let batches = loader.epoch(1, 0).unwrap();
            batches.map(Result::unwrap).collect::<Vec<_>>()
        });
        for (i, whole) in one.iter().enumerate() {
            let parts: Vec<&Batch> = shares.iter().map(|batches| &batches[i]).collect();
            let images: Vec<f32> = parts.iter().flat_map(|b| b.images.clone()).collect();
            assert_eq!(images, whole.images);
            let targets: Vec<f32> = parts.iter().flat_map(|b| b.targets.clone()).collect();
            assert_eq!(targets, whole.targets);
            assert!(parts.iter().all(|part| part.whole == whole.len()));
        }
    }

    #[test]
    fn an_epoch_may_be_given_up() {
        let loader = Loader::new(images(22), &config(3)).unwrap();
        assert_eq!(loader.epoch(0, 0).unwrap().take(2).count(), 2);
    }

    #[test]
    fn smoothed_targets_are_probabilities() {
        let rows = targets(&[1, 0], 4, 0.2);
        let expected = [0.05, 0.85, 0.05, 0.05, 0.85, 0.05, 0.05, 0.05];
        for (found, expected) in rows.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-7);
        }
        assert_eq!(targets(&[1], 2, 0.0), [0.0, 1.0]);
    }

    #[test]
    fn no_images_are_an_error() {
        assert!(Loader::new(images(0), &config(1)).is_err());
    }
}
