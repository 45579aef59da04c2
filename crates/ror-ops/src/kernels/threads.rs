//! A small pool of threads for work that comes in many short pieces, one per layer of a network.
//!
//! A parked thread takes longer to wake than a layer of one image takes to compute, so workers spin for some tens
//! of microseconds after each piece of work and park when none follows. Where there are more threads than
//! processors, they park at once.

mod shares;

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, Thread};

use super::placement::Processors;

/// A fixed number of threads, the caller's among them, that run the same closure and wait for each other.
///
/// Parts of one piece of work must not wait for one another: while the pool is busy with another caller's work,
/// or when [`Pool::run`] is called from within, the caller runs all parts itself, in sequence.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    /// Counts pieces of work; a change tells the workers that `job` is new.
    epoch: AtomicUsize,
    job: UnsafeCell<Option<Job>>,
    /// Workers that have not finished the piece of work.
    pending: AtomicUsize,
    busy: AtomicBool,
    stop: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// Turns to spin before parking.
    spin: usize,
    /// Where workers may settle; `None` if there are more of them than processors.
    processors: Option<Processors>,
}

/// A borrowed closure with its type erased, and who waits for it.
#[derive(Clone)]
struct Job {
    data: *const (),
    call: unsafe fn(*const (), usize),
    caller: Thread,
    /// The processor that the caller runs on.
    processor: usize,
}

// SAFETY: `job` is written only while no worker looks at it: by the thread that holds `busy`, before it announces
// the job by `epoch` and after `pending` came down to zero. The closure behind `data` is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: as above; nothing in it is tied to a thread.
unsafe impl Send for Shared {}

/// Turns of about 10 ns.
const SPIN: usize = 5_000;

/// Turns of spinning between offers of the processor to another thread.
const YIELD: usize = 128;

impl Pool {
    /// A pool of `threads` threads (at least one), of which the caller of [`Pool::run`] is one.
    ///
    /// # Errors
    /// The system's, if it refuses to start a thread.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let mut pool = Self {
            shared: Arc::new(Shared::new(threads)),
            workers: Vec::new(),
        };
        pool.start(threads)?;
        Ok(pool)
    }

    /// As [`Self::new`], but makes do with as many threads as the system grants.
    pub fn new_or_fewer(threads: usize) -> Self {
        let mut pool = Self {
            shared: Arc::new(Shared::new(threads)),
            workers: Vec::new(),
        };
        // The error only says that there will be no more.
        let _ = pool.start(threads);
        pool
    }

    fn start(&mut self, threads: usize) -> std::io::Result<()> {
        for index in 1..threads {
            let shared = Arc::clone(&self.shared);
            let worker = std::thread::Builder::new().name(format!("ror-{index}"));
            self.workers.push(worker.spawn(move || shared.work(index))?);
        }
        Ok(())
    }

    /// Number of threads, the caller's included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `f(0)`, ..., `f(threads - 1)`, each once, and returns when all have returned.
    ///
    /// A panic in any of them is passed on after all have ended.
    pub fn run<F: Fn(usize) + Sync>(&self, f: F) {
        let shared = &*self.shared;
        if self.workers.is_empty() || shared.busy.swap(true, Ordering::Acquire) {
            (0..self.threads()).for_each(f);
            return;
        }
        unsafe fn call<F: Fn(usize)>(data: *const (), index: usize) {
            // SAFETY: `data` came from a reference to an `F` that outlives the run.
            unsafe { (*data.cast::<F>())(index) }
        }
        let data = (&raw const f).cast();
        // SAFETY: this thread holds `busy` and no worker looks at `job` before `epoch` changes.
        unsafe {
            *shared.job.get() = Some(Job {
                data,
                call: call::<F>,
                caller: std::thread::current(),
                processor: Processors::current(),
            })
        };
        shared.pending.store(self.workers.len(), Ordering::Relaxed);
        shared.epoch.fetch_add(1, Ordering::Release);
        self.workers
            .iter()
            .for_each(|worker| worker.thread().unpark());

        let own = catch_unwind(AssertUnwindSafe(|| f(0)));
        shared.wait(|| shared.pending.load(Ordering::Acquire) == 0);
        let others = shared
            .panic
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        shared.busy.store(false, Ordering::Release);
        if let Some(payload) = own.err().or(others) {
            resume_unwind(payload);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.epoch.fetch_add(1, Ordering::Release);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // Workers catch panics, so there is none to pass on.
            let _ = worker.join();
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("threads", &self.threads())
            .finish()
    }
}

impl Shared {
    fn new(threads: usize) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            epoch: AtomicUsize::new(0),
            job: UnsafeCell::new(None),
            pending: AtomicUsize::new(0),
            busy: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            panic: Mutex::new(None),
            spin: if threads <= cores { SPIN } else { 0 },
            processors: (threads <= cores).then(Processors::allowed),
        }
    }

    /// A worker's life.
    fn work(&self, index: usize) {
        let mut seen = 0;
        loop {
            let woken = self.wait(|| self.epoch.load(Ordering::Acquire) != seen);
            seen = seen.wrapping_add(1);
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            // SAFETY: the job stays until `pending` reaches zero, which needs this worker.
            let Some(job) = (unsafe { (*self.job.get()).clone() }) else {
                continue;
            };
            if let Some(processors) = &self.processors {
                processors.settle(index, job.processor, woken);
            }
            // SAFETY: the closure is borrowed until `pending` reaches zero.
            let done = catch_unwind(AssertUnwindSafe(|| unsafe { (job.call)(job.data, index) }));
            if let Err(payload) = done {
                let mut first = self.panic.lock().unwrap_or_else(PoisonError::into_inner);
                match &*first {
                    None => *first = Some(payload),
                    // One is told; a payload that panics when it is dropped would end this worker.
                    Some(_) => std::mem::forget(payload),
                }
            }
            if self.pending.fetch_sub(1, Ordering::AcqRel) == 1 {
                job.caller.unpark();
            }
        }
    }

    /// Spins, then parks until `ready`; whoever makes it ready unparks. Returns whether it parked.
    fn wait(&self, ready: impl Fn() -> bool) -> bool {
        for turn in 0..self.spin {
            if ready() {
                return false;
            }
            // Whoever is waited for may have been put on this very processor.
            if turn % YIELD == YIELD - 1 {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
        while !ready() {
            std::thread::park();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(threads: usize) -> Pool {
        Pool::new(threads).unwrap()
    }

    #[test]
    fn every_index_runs_once_per_call() {
        for threads in [1, 2, 3, 9] {
            let pool = pool(threads);
            let counts: Vec<_> = (0..threads).map(|_| AtomicUsize::new(0)).collect();
            for round in 1..=200 {
                pool.run(|i| {
                    counts[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == round));
                if round % 50 == 0 {
                    // Long enough for the workers to park.
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
            }
        }
    }

    #[test]
    fn a_nested_or_concurrent_call_runs_all_its_parts() {
        let pool = pool(3);
        let count = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        pool.run(|_| {
                            pool.run(|_| {
                                count.fetch_add(1, Ordering::Relaxed);
                            });
                        });
                    }
                });
            }
        });
        assert_eq!(count.load(Ordering::Relaxed), 4 * 50 * 9);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_leaves_the_pool_usable() {
        let pool = pool(3);
        for bad in 0..3 {
            let panicked = catch_unwind(AssertUnwindSafe(|| pool.run(|i| assert_ne!(i, bad))));
            assert!(panicked.is_err());
        }
        let count = AtomicUsize::new(0);
        pool.run(|_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.load(Ordering::Relaxed), 3);
    }
}
