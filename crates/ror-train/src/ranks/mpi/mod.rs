//! Ranks that MPI has started.
//!
//! `mpirun` or a batch system starts as many processes as there are ranks and tells each that it is one; MPI
//! carries what they add up. Large sums go on while the rank computes (`MPI_Iallreduce`, on a thread of their own),
//! small ones wait.

mod carrier;

use super::{Bucket, Computing, Ranks, Sending};
use crate::error::{Result, TrainError};
use carrier::{Carrier, Desk};
use mpi::Threading;
use mpi::collective::SystemOperation;
use mpi::environment::Universe;
use mpi::topology::{Communicator, SimpleCommunicator};
use mpi::traits::CommunicatorCollectives;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a rank that has failed waits for the others to fail too.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long what a rank has said may be on its way to whoever reads it.
const FORWARD: Duration = Duration::from_millis(300);

/// This process's part in the job that MPI has started. Ends it when dropped, which waits for the other ranks.
pub struct Job {
    /// Where ranks that fail meet, apart from whatever the others still add up. Goes before MPI does.
    farewell: SimpleCommunicator,
    carrier: Carrier,
    universe: Universe,
}

/// The ranks of a [`Job`].
#[derive(Debug)]
pub struct MpiRanks {
    rank: usize,
    size: usize,
    desk: Desk,
}

impl Job {
    /// Joins the job. A process that was not started as one of several is a job of one rank.
    ///
    /// # Errors
    /// A process that has joined before; an MPI that several threads must not call at once.
    pub fn join() -> Result<(Self, MpiRanks)> {
        let error = |text: &str| TrainError::Ranks(text.to_owned());
        let (universe, threading) = mpi::initialize_with_threading(Threading::Multiple)
            .ok_or_else(|| error("this process has joined a job before"))?;
        if threading < Threading::Multiple {
            return Err(error(
                "this MPI cannot be called by several threads at once",
            ));
        }
        let world = universe.world();
        let farewell = world.duplicate();
        let (carrier, desk) = Carrier::start()?;
        let ranks = MpiRanks {
            rank: usize::try_from(world.rank()).unwrap_or(0),
            size: usize::try_from(world.size()).unwrap_or(1),
            desk,
        };
        let job = Self {
            farewell,
            carrier,
            universe,
        };
        Ok((job, ranks))
    }

    /// Leaves a job that cannot go on. Returns when all ranks have called this, so that each has had its say;
    /// where one does not, because it waits for this one, the job is ended on all ranks after two seconds.
    pub fn fail(self) {
        let since = Instant::now();
        let mut meeting = self.farewell.immediate_barrier();
        loop {
            match meeting.test() {
                // The first that ends has the rest killed, and what they said last with them.
                Ok(_) => {
                    sleep(FORWARD);
                    // Ranks that left amid a step may have sent different buckets: they would wait for ever.
                    if self.carrier.is_busy() {
                        self.farewell.abort(1)
                    }
                    return;
                }
                Err(waiting) if since.elapsed() < FAREWELL => meeting = waiting,
                Err(_) => self.farewell.abort(1),
            }
            sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // The others would wait for ever.
        if std::thread::panicking() {
            self.universe.world().abort(101)
        }
        self.carrier.end();
    }
}

impl Ranks for MpiRanks {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn sum(&self, values: &mut [f64]) {
        let own = values.to_vec();
        SimpleCommunicator::world().all_reduce_into(&own[..], values, SystemOperation::sum());
    }

    fn sum_while(&self, buckets: &mut [Bucket], compute: &mut Computing<'_>) {
        struct Outbox<'a> {
            desk: &'a Desk,
            buckets: &'a mut [Bucket],
        }
        impl Sending for Outbox<'_> {
            fn own(&mut self, bucket: usize) -> &mut [f32] {
                &mut self.buckets[bucket].own
            }
            fn send(&mut self, bucket: usize) {
                let empty = Bucket {
                    own: Vec::new(),
                    sum: Vec::new(),
                };
                let parcel = std::mem::replace(&mut self.buckets[bucket], empty);
                self.desk.send(parcel);
            }
        }
        self.desk.begin(buckets.len());
        let mut outbox = Outbox {
            desk: &self.desk,
            buckets,
        };
        if compute(&mut outbox).is_continue() {
            self.desk.finish(buckets);
        }
    }
}
