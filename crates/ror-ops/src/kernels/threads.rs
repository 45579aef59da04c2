//! A small pool of threads for work that comes in many short pieces, one per layer of a network.
//!
//! A parked thread takes longer to wake than a layer of one image takes to compute, so workers spin for some tens
//! of microseconds after each piece of work and park when none follows. Where there are more threads than
//! processors, they park at once.

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, Thread};

use super::blocked::Block;
use super::error::{Result, check_at_least};

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
}

/// A borrowed closure with its type erased, and who waits for it.
#[derive(Clone)]
struct Job {
    data: *const (),
    call: unsafe fn(*const (), usize),
    caller: Thread,
}

// SAFETY: `job` is written only while no worker looks at it: by the thread that holds `busy`, before it announces
// the job by `epoch` and after `pending` came down to zero. The closure behind `data` is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: as above; nothing in it is tied to a thread.
unsafe impl Send for Shared {}

/// Turns of about 10 ns.
const SPIN: usize = 5_000;

impl Pool {
    /// A pool of `threads` threads (at least one), of which the caller of [`Pool::run`] is one.
    ///
    /// # Errors
    /// The system's, if it refuses to start a thread.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let shared = Arc::new(Shared {
            epoch: AtomicUsize::new(0),
            job: UnsafeCell::new(None),
            pending: AtomicUsize::new(0),
            busy: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            panic: Mutex::new(None),
            spin: if threads <= cores { SPIN } else { 0 },
        });
        let mut pool = Self {
            shared,
            workers: Vec::new(),
        };
        for index in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let worker = std::thread::Builder::new().name(format!("ror-{index}"));
            pool.workers.push(worker.spawn(move || shared.work(index))?);
        }
        Ok(pool)
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

    /// As [`Pool::run`], and hands each call its own `len` blocks of `scratch`.
    ///
    /// # Errors
    /// A `scratch` of fewer than `threads * len` blocks.
    pub fn run_with<F: Fn(usize, &mut [Block]) + Sync>(
        &self,
        scratch: &mut [Block],
        len: usize,
        f: F,
    ) -> Result<()> {
        check_at_least("scratch", len.saturating_mul(self.threads()), scratch.len())?;
        let base = Shareable(scratch.as_mut_ptr());
        self.run(|index| {
            let base = &base;
            // SAFETY: every index comes once, and its share lies within `scratch`, which is borrowed until
            // `run` returns.
            f(index, unsafe {
                std::slice::from_raw_parts_mut(base.0.add(index * len), len)
            });
        });
        Ok(())
    }
}

/// A pointer of which each thread uses its own range.
struct Shareable(*mut Block);
// SAFETY: the ranges are disjoint.
unsafe impl Sync for Shareable {}

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
    /// A worker's life.
    fn work(&self, index: usize) {
        let mut seen = 0;
        loop {
            self.wait(|| self.epoch.load(Ordering::Acquire) != seen);
            seen = seen.wrapping_add(1);
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            // SAFETY: the job stays until `pending` reaches zero, which needs this worker.
            let Some(job) = (unsafe { (*self.job.get()).clone() }) else {
                continue;
            };
            // SAFETY: the closure is borrowed until `pending` reaches zero.
            let done = catch_unwind(AssertUnwindSafe(|| unsafe { (job.call)(job.data, index) }));
            if let Err(payload) = done {
                *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(payload);
            }
            if self.pending.fetch_sub(1, Ordering::AcqRel) == 1 {
                job.caller.unpark();
            }
        }
    }

    /// Spins, then parks until `ready`; whoever makes it ready unparks.
    fn wait(&self, ready: impl Fn() -> bool) {
        for _ in 0..self.spin {
            if ready() {
                return;
            }
            std::hint::spin_loop();
        }
        while !ready() {
            std::thread::park();
        }
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

    #[test]
    fn each_thread_gets_its_own_scratch() {
        let pool = pool(4);
        let mut scratch = vec![Block::ZERO; 11];
        pool.run_with(&mut scratch, 2, |i, mine| mine.fill(Block([i as f32; 16])))
            .unwrap();
        let firsts: Vec<f32> = scratch.iter().map(|b| b.0[0]).collect();
        assert_eq!(
            firsts,
            [0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 0.0, 0.0, 0.0]
        );
        assert!(pool.run_with(&mut scratch, 3, |_, _| ()).is_err());
    }
}
