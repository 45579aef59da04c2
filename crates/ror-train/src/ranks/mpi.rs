//! Ranks that MPI has started.
//!
//! `mpirun` or a batch system starts as many processes as there are ranks and tells each that it is one; MPI
//! carries what they add up. Large sums go on while the rank computes (`MPI_Iallreduce`), small ones wait.

use super::{Bucket, Ranks, Sending};
use crate::error::{Result, TrainError};
use mpi::Threading;
use mpi::collective::SystemOperation;
use mpi::environment::Universe;
use mpi::request::{LocalScope, Request};
use mpi::topology::{Communicator, SimpleCommunicator};
use mpi::traits::CommunicatorCollectives;
use std::cell::Cell;
use std::marker::PhantomData;
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
    universe: Universe,
}

/// The ranks of a [`Job`].
#[derive(Debug)]
pub struct MpiRanks {
    rank: usize,
    size: usize,
    /// MPI is called by one thread at a time.
    not_sync: PhantomData<Cell<()>>,
}

impl Job {
    /// Joins the job. A process that was not started as one of several is a job of one rank.
    ///
    /// # Errors
    /// A process that has joined before; an MPI that threads must not call.
    pub fn join() -> Result<(Self, MpiRanks)> {
        let error = |text: &str| TrainError::Ranks(text.to_owned());
        let (universe, threading) = mpi::initialize_with_threading(Threading::Serialized)
            .ok_or_else(|| error("this process has joined a job before"))?;
        let world = universe.world();
        let ranks = MpiRanks {
            rank: usize::try_from(world.rank()).unwrap_or(0),
            size: usize::try_from(world.size()).unwrap_or(1),
            not_sync: PhantomData,
        };
        if threading < Threading::Serialized {
            return Err(error("this MPI cannot be used by programs with threads"));
        }
        let farewell = world.duplicate();
        Ok((Self { farewell, universe }, ranks))
    }

    /// Leaves a job that cannot go on. Returns when all ranks have called this, so that each has had its say;
    /// where one does not, because it waits for this one, the job is ended on all ranks after two seconds.
    pub fn fail(self) {
        let since = Instant::now();
        let mut meeting = self.farewell.immediate_barrier();
        loop {
            match meeting.test() {
                // The first that ends has the rest killed, and what they said last with them.
                Ok(_) => return sleep(FORWARD),
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

    fn sum_while(&self, buckets: &mut [Bucket], compute: &mut dyn FnMut(&mut dyn Sending)) {
        mpi::request::scope(|scope| {
            let free = buckets.iter_mut();
            let mut transfer = Transfer {
                scope,
                free: free
                    .map(|b| Some((&mut b.own[..], &mut b.sum[..])))
                    .collect(),
                waiting: Vec::new(),
                nothing: [],
            };
            compute(&mut transfer);
            for request in transfer.waiting.drain(..) {
                request.wait_without_status();
            }
        });
    }
}

/// Sums on their way.
struct Transfer<'s, 'b> {
    scope: &'s LocalScope<'b>,
    /// Numbers and place for the sums of buckets that are not sent yet.
    free: Vec<Option<(&'b mut [f32], &'b mut [f32])>>,
    waiting: Vec<Request<'b, [f32], &'s LocalScope<'b>>>,
    nothing: [f32; 0],
}

impl Sending for Transfer<'_, '_> {
    fn own(&mut self, bucket: usize) -> &mut [f32] {
        match &mut self.free[bucket] {
            Some((own, _)) => own,
            None => &mut self.nothing,
        }
    }

    fn send(&mut self, bucket: usize) {
        let Some((own, sum)) = self.free[bucket].take() else {
            return;
        };
        let world = SimpleCommunicator::world();
        let operation = SystemOperation::sum();
        let request = world.immediate_all_reduce_into(self.scope, &*own, sum, operation);
        self.waiting.push(request);
    }

    fn advance(&mut self) {
        // Asking for one moves all of them on.
        if let Some(request) = self.waiting.pop()
            && let Err(request) = request.test()
        {
            self.waiting.push(request);
        }
    }
}
