//! The thread that carries buckets to the other ranks while this one computes.
//!
//! MPI moves data on only while it is called. Whoever computes for long leaves the wire idle, and whoever calls
//! MPI all the time leaves the processor no time to compute; this thread calls it now and then.

use crate::error::{Result, TrainError};
use crate::ranks::Bucket;
use mpi::collective::SystemOperation;
use mpi::request::Request;
use mpi::topology::{Communicator, SimpleCommunicator};
use mpi::traits::CommunicatorCollectives;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Between two calls of MPI while the rank computes.
const PAUSE: Duration = Duration::from_micros(100);

/// The thread.
pub(super) struct Carrier {
    orders: Sender<Order>,
    thread: Option<JoinHandle<()>>,
    /// Buckets are under way.
    busy: Arc<AtomicBool>,
}

enum Order {
    /// So many buckets will come.
    Begin(usize),
    Carry(Bucket),
    End,
}

/// Where buckets are handed in and come back.
#[derive(Debug)]
pub(super) struct Desk {
    orders: Sender<Order>,
    back: Receiver<Vec<Bucket>>,
    /// Nothing is computed any more: the rank waits.
    hurry: Arc<AtomicBool>,
}

impl Carrier {
    /// Starts the thread, on all ranks.
    pub(super) fn start() -> Result<(Self, Desk)> {
        let (orders, receiver) = channel();
        let (sender, back) = channel();
        let hurry = Arc::new(AtomicBool::new(false));
        let waits = hurry.clone();
        let busy = Arc::new(AtomicBool::new(false));
        let works = busy.clone();
        let thread = thread::Builder::new().name("ror-mpi".to_owned());
        let (ready, is_ready) = channel();
        let work = move || {
            // A communicator of its own, so that sums of other threads come in no order with its.
            let world = SimpleCommunicator::world().duplicate();
            let _ = ready.send(());
            while let Ok(Order::Begin(count)) = receiver.recv() {
                works.store(true, Ordering::Relaxed);
                let buckets = carry(&world, &receiver, count, &waits);
                works.store(false, Ordering::Relaxed);
                if sender.send(buckets).is_err() {
                    return;
                }
            }
        };
        let thread = thread.spawn(work).map_err(|cause| TrainError::Io {
            path: "a thread that calls MPI".into(),
            cause,
        })?;
        let _ = is_ready.recv();
        let carrier = Self {
            orders: orders.clone(),
            thread: Some(thread),
            busy,
        };
        let desk = Desk {
            orders,
            back,
            hurry,
        };
        Ok((carrier, desk))
    }

    /// Whether it carries buckets that other ranks may never send.
    pub(super) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed)
    }

    /// Ends the thread, before MPI is ended.
    pub(super) fn end(&mut self) {
        let _ = self.orders.send(Order::End);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Desk {
    pub(super) fn begin(&self, count: usize) {
        self.hurry.store(false, Ordering::Relaxed);
        // The carrier listens as long as the job lasts.
        let _ = self.orders.send(Order::Begin(count));
    }

    pub(super) fn send(&self, bucket: Bucket) {
        let _ = self.orders.send(Order::Carry(bucket));
    }

    /// Waits for the buckets that were sent, in their order.
    pub(super) fn finish(&self, buckets: &mut [Bucket]) {
        self.hurry.store(true, Ordering::Relaxed);
        let back = self.back.recv().unwrap_or_default();
        buckets.iter_mut().zip(back).for_each(|(to, b)| *to = b);
    }
}

/// Adds up `count` buckets over all ranks.
fn carry(
    world: &SimpleCommunicator,
    orders: &Receiver<Order>,
    count: usize,
    hurry: &AtomicBool,
) -> Vec<Bucket> {
    let empty = || Bucket {
        own: Vec::new(),
        sum: Vec::new(),
    };
    let mut buckets: Vec<Bucket> = (0..count).map(|_| empty()).collect();
    mpi::request::scope(|scope| {
        let mut free = buckets.iter_mut();
        let mut waiting = Vec::new();
        let mut coming = count;
        while coming > 0 || !waiting.is_empty() {
            let order = match coming {
                0 => Err(TryRecvError::Empty),
                _ if waiting.is_empty() => orders.recv().map_err(|_| TryRecvError::Disconnected),
                _ => orders.try_recv(),
            };
            match (order, free.len()) {
                (Ok(Order::Carry(bucket)), 1..) => {
                    coming -= 1;
                    if let Some(place) = free.next() {
                        *place = bucket;
                        let sum = SystemOperation::sum();
                        let Bucket { own, sum: to } = place;
                        let request =
                            world.immediate_all_reduce_into(scope, &own[..], &mut to[..], sum);
                        waiting.push(request);
                    }
                }
                (Err(TryRecvError::Empty), _) => {}
                _ => coming = 0,
            }
            let asked = waiting
                .into_iter()
                .map(|request: Request<'_, [f32], _>| request.test());
            waiting = asked.filter_map(std::result::Result::err).collect();
            if hurry.load(Ordering::Relaxed) {
                thread::yield_now();
            } else if !waiting.is_empty() {
                thread::sleep(PAUSE);
            }
        }
    });
    buckets
}
