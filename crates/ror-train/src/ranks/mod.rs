//! The processes of one training job.
//!
//! Every rank holds the whole network and computes its share of every batch. What they add up keeps their
//! weights the same to the bit, so that nothing else need be exchanged.

mod agreement;
mod buckets;
#[cfg(feature = "mpi")]
pub mod mpi;
#[cfg(test)]
pub(crate) mod threads;

pub(crate) use agreement::{agree, together};
pub(crate) use buckets::Buckets;

use std::ops::{ControlFlow, Range};

/// What the processes (ranks) of a job do together. All of them call the same methods in the same order, with
/// as many values; each method returns when all ranks have called it.
pub trait Ranks: Send {
    /// Which one this is, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// Replaces `values` by their sums over all ranks: the same bits on every rank and in every run.
    fn sum(&self, values: &mut [f64]);

    /// Runs `compute`, which fills the buckets and sends all of them in their order, and adds up over all ranks
    /// what was sent while it goes on. Afterwards every [`Bucket::sum`] is the same on every rank.
    ///
    /// Where `compute` breaks off, this rank has left the job, which cannot go on: the others wait until it is ended.
    fn sum_while(&self, buckets: &mut [Bucket], compute: &mut Computing<'_>);
}

/// What a rank computes while its buckets travel.
pub type Computing<'a> = dyn FnMut(&mut dyn Sending) -> ControlFlow<()> + 'a;

/// Numbers that are added up over all ranks.
#[derive(Debug, Clone, PartialEq)]
pub struct Bucket {
    /// This rank's.
    pub own: Vec<f32>,
    /// The sums; as many.
    pub sum: Vec<f32>,
}

/// Where [`Ranks::sum_while`] takes buckets from.
pub trait Sending {
    /// The numbers of a bucket that is not sent yet, to be filled.
    fn own(&mut self, bucket: usize) -> &mut [f32];

    /// Begins to add up a bucket, the one after that which was sent before.
    fn send(&mut self, bucket: usize);
}

/// A job of one process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Ranks for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn sum(&self, _: &mut [f64]) {}

    fn sum_while(&self, buckets: &mut [Bucket], compute: &mut Computing<'_>) {
        struct Nowhere<'a>(&'a mut [Bucket]);
        impl Sending for Nowhere<'_> {
            fn own(&mut self, bucket: usize) -> &mut [f32] {
                &mut self.0[bucket].own
            }
            fn send(&mut self, bucket: usize) {
                let Bucket { own, sum } = &mut self.0[bucket];
                sum.copy_from_slice(own);
            }
        }
        let _ = compute(&mut Nowhere(buckets));
    }
}

/// Which of `n` things are a rank's: as many for each as can be, in order, without gap or overlap.
///
/// ```
/// use ror_train::{Alone, ranks::share};
///
/// assert_eq!(share(&Alone, 10), 0..10);
/// ```
pub fn share(ranks: &dyn Ranks, n: usize) -> Range<usize> {
    share_of(ranks.rank(), ranks.size(), n)
}

pub(crate) fn share_of(rank: usize, size: usize, n: usize) -> Range<usize> {
    n * rank / size..n * (rank + 1) / size
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_everything_once_and_differ_by_one_at_most() {
        for (n, size) in [(0, 3), (1, 3), (64, 1), (64, 2), (64, 3), (7, 4), (3, 8)] {
            let shares: Vec<_> = (0..size).map(|rank| share_of(rank, size, n)).collect();
            assert!(shares.iter().cloned().flatten().eq(0..n));
            let lens = || shares.iter().map(Range::len);
            assert!(lens().max().unwrap() - lens().min().unwrap() <= 1);
        }
    }
}
