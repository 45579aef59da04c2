//! Ranks that are threads of one process, for tests.

use super::{Bucket, Computing, Ranks, Sending};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;

/// Runs `work` on `size` ranks; what each returns, in the order of the ranks.
pub(crate) fn on_ranks<T: Send>(size: usize, work: impl Fn(Threads) -> T + Sync) -> Vec<T> {
    let shared = Arc::new(Shared {
        barrier: Barrier::new(size),
        values: Mutex::new(vec![Vec::new(); size]),
    });
    thread::scope(|scope| {
        let start = |rank| {
            let ranks = Threads {
                rank,
                size,
                shared: shared.clone(),
            };
            let work = &work;
            scope.spawn(move || work(ranks))
        };
        let threads: Vec<_> = (0..size).map(start).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    })
}

#[derive(Clone)]
pub(crate) struct Threads {
    rank: usize,
    size: usize,
    shared: Arc<Shared>,
}

struct Shared {
    barrier: Barrier,
    /// Of each rank.
    values: Mutex<Vec<Vec<f64>>>,
}

impl Ranks for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn sum(&self, values: &mut [f64]) {
        self.shared.values.lock().unwrap()[self.rank] = values.to_vec();
        self.shared.barrier.wait();
        let all = self.shared.values.lock().unwrap().clone();
        for (i, value) in values.iter_mut().enumerate() {
            *value = all.iter().map(|own| own[i]).sum();
        }
        self.shared.barrier.wait();
    }

    fn sum_while(&self, buckets: &mut [Bucket], compute: &mut Computing<'_>) {
        let mut outbox = Outbox { buckets, sent: 0 };
        if compute(&mut outbox).is_break() {
            return;
        }
        assert_eq!(outbox.sent, outbox.buckets.len());
        for bucket in buckets {
            let mut values: Vec<f64> = bucket.own.iter().map(|&v| f64::from(v)).collect();
            self.sum(&mut values);
            for (to, value) in bucket.sum.iter_mut().zip(values) {
                *to = value as f32;
            }
        }
    }
}

struct Outbox<'a> {
    buckets: &'a mut [Bucket],
    sent: usize,
}

impl Sending for Outbox<'_> {
    fn own(&mut self, bucket: usize) -> &mut [f32] {
        assert!(bucket >= self.sent, "it is sent already");
        &mut self.buckets[bucket].own
    }

    fn send(&mut self, bucket: usize) {
        assert_eq!(bucket, self.sent, "buckets go in their order");
        self.sent += 1;
    }
}
