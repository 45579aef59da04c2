//! Which processor a worker runs on.
//!
//! A woken thread should run on an idle processor. The kernel of a virtual machine often takes a halted processor
//! for one that its host has taken away, wakes the thread where its waker runs, and leaves both there for
//! milliseconds: longer than a network takes. So a woken worker moves itself, and is free to be moved again.

/// The processors that this process may use.
#[derive(Clone, Debug)]
pub(super) struct Processors(Vec<usize>);

#[cfg(target_os = "linux")]
mod system {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

    pub(super) fn allowed() -> Vec<usize> {
        let set = sched_getaffinity(None);
        set.map_or_else(
            |_| Vec::new(),
            |set| (0..CpuSet::MAX_CPU).filter(|&i| set.is_set(i)).collect(),
        )
    }

    pub(super) fn current() -> usize {
        sched_getcpu()
    }

    pub(super) fn allow(processors: &[usize]) {
        let mut set = CpuSet::new();
        processors.iter().for_each(|&i| set.set(i));
        // Refused, the thread stays where it is: slower, not wrong.
        let _ = sched_setaffinity(None, &set);
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    pub(super) fn allowed() -> Vec<usize> {
        Vec::new()
    }

    pub(super) fn current() -> usize {
        0
    }

    pub(super) fn allow(_: &[usize]) {}
}

impl Processors {
    /// Those allowed to the calling thread; none where the system does not tell.
    pub(super) fn allowed() -> Self {
        Self(system::allowed())
    }

    /// The one that the calling thread runs on.
    pub(super) fn current() -> usize {
        system::current()
    }

    /// Moves the calling thread, worker `index`, to the processor as many places after that of the `caller`, if it was
    /// just woken or runs on the caller's.
    pub(super) fn settle(&self, index: usize, caller: usize, woken: bool) {
        let here = Self::current();
        let Some(place) = self.0.iter().position(|&i| i == caller) else {
            return;
        };
        let target = self.0[(place + index) % self.0.len()];
        if here != target && (woken || here == caller) {
            system::allow(&[target]);
            system::allow(&self.0);
        }
    }
}
