//! Memory for weights and activations, in large pages where the system gives them.
//!
//! A network's packed weights are tens of megabytes that every few images walk through. In pages of 4 KiB they are
//! more pages than a processor keeps translations of.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use super::blocked::Block;

/// Bytes of a large page.
const LARGE_PAGE: usize = 2 << 20;

/// One allocation, to be handed out piece by piece.
#[derive(Debug)]
pub struct Memory {
    region: Arc<Region>,
    /// Blocks handed out.
    used: usize,
}

impl Memory {
    /// Takes memory for `len` blocks in all.
    ///
    /// ```
    /// use ror_ops::kernels::{Block, Memory};
    ///
    /// let mut memory = Memory::new(100);
    /// let (a, mut b) = (memory.zeros(60), memory.zeros(40));
    /// b[0].0[3] = 1.0;
    /// assert_eq!((a.len(), b.len(), a[59]), (60, 40, Block::ZERO));
    /// ```
    pub fn new(len: usize) -> Self {
        Self {
            region: Arc::new(Region::large(len)),
            used: 0,
        }
    }

    /// The next `len` blocks, all zeros. What was not reckoned with gets memory of its own.
    pub fn zeros(&mut self, len: usize) -> Blocks {
        if len > self.region.len - self.used {
            return Blocks::zeros(len);
        }
        // SAFETY: `used + len` blocks lie in the region, which is zeroed, and nobody else gets them.
        let start = unsafe { self.region.start.add(self.used) };
        self.used += len;
        Blocks {
            start,
            len,
            region: Some(Arc::clone(&self.region)),
        }
    }
}

/// Blocks that are part of a [`Memory`], which lives as long as any of its parts.
pub struct Blocks {
    start: NonNull<Block>,
    len: usize,
    /// Keeps the memory; `None` where there is none.
    region: Option<Arc<Region>>,
}

// SAFETY: no other value has these blocks, and they are plain numbers.
unsafe impl Send for Blocks {}
// SAFETY: as above.
unsafe impl Sync for Blocks {}

impl Blocks {
    /// `len` blocks of zeros in memory of their own.
    pub fn zeros(len: usize) -> Self {
        let region = Region::heap(len);
        Self {
            start: region.start,
            len,
            region: Some(Arc::new(region)),
        }
    }

    /// Moves the values into `memory`.
    pub(super) fn move_to(&mut self, memory: &mut Memory) {
        let mut moved = memory.zeros(self.len);
        moved.copy_from_slice(self);
        *self = moved;
    }
}

impl Deref for Blocks {
    type Target = [Block];

    fn deref(&self) -> &[Block] {
        // SAFETY: the region holds `len` initialised blocks from `start`, or `len` is zero.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Blocks {
    fn deref_mut(&mut self) -> &mut [Block] {
        // SAFETY: as in `deref`, and no other value has these blocks.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Default for Blocks {
    /// None.
    fn default() -> Self {
        Self {
            start: NonNull::dangling(),
            len: 0,
            region: None,
        }
    }
}

impl Clone for Blocks {
    fn clone(&self) -> Self {
        let mut copy = Self::zeros(self.len);
        copy.copy_from_slice(self);
        copy
    }
}

impl std::fmt::Debug for Blocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Blocks")
            .field("len", &self.len)
            .field("shared", &self.region.as_ref().map_or(1, Arc::strong_count))
            .finish()
    }
}

/// Zeroed memory of its own.
#[derive(Debug)]
struct Region {
    start: NonNull<Block>,
    len: usize,
    /// What it was taken as.
    layout: Layout,
    /// Whether it is pages of the system rather than a piece of the heap.
    mapped: bool,
}

// SAFETY: it only owns the memory; who may use which part is `Blocks`' matter.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    fn heap(len: usize) -> Self {
        let bytes = len.saturating_mul(size_of::<Block>());
        let Ok(layout) =
            Layout::from_size_align(bytes.max(size_of::<Block>()), align_of::<Block>())
        else {
            // More than the address space holds; as for a vector.
            handle_alloc_error(Layout::new::<Block>())
        };
        // SAFETY: the size is not zero.
        let Some(start) = NonNull::new(unsafe { alloc_zeroed(layout) }) else {
            handle_alloc_error(layout)
        };
        Self {
            start: start.cast(),
            len,
            layout,
            mapped: false,
        }
    }

    /// In large pages where there is enough to fill one and the system gives them.
    fn large(len: usize) -> Self {
        let bytes = len.saturating_mul(size_of::<Block>());
        let layout = Layout::from_size_align(bytes, LARGE_PAGE)
            .and_then(|layout| Layout::from_size_align(layout.pad_to_align().size(), LARGE_PAGE));
        match layout {
            Ok(layout) if bytes >= LARGE_PAGE => match pages::map(layout) {
                Some(start) => Self {
                    start: start.cast(),
                    len,
                    layout,
                    mapped: true,
                },
                None => Self::heap(len),
            },
            _ => Self::heap(len),
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        let start = self.start.cast::<u8>();
        if self.mapped {
            // SAFETY: `map` gave it for this layout.
            unsafe { pages::unmap(start, self.layout) }
        } else {
            // SAFETY: `alloc_zeroed` gave it for this layout.
            unsafe { dealloc(start.as_ptr(), self.layout) }
        }
    }
}

/// Pages of the system: zeroed, and in memory only once they are touched.
#[cfg(target_os = "linux")]
mod pages {
    use super::{Layout, NonNull};
    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

    /// Pages of the layout's size and alignment, both multiples of a page.
    pub(super) fn map(layout: Layout) -> Option<NonNull<u8>> {
        let (size, align) = (layout.size(), layout.align());
        let whole = size.checked_add(align)?;
        let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: new pages at an address that the system chooses, of which what lies before and behind the aligned
        // part is given back. Refused, the advice leaves pages small.
        unsafe {
            let base = mmap_anonymous(std::ptr::null_mut(), whole, access, flags).ok()?;
            let before = base.cast::<u8>().align_offset(align);
            let start = base.cast::<u8>().add(before);
            if before > 0 {
                let _ = munmap(base, before);
            }
            if before < align {
                let _ = munmap(start.add(size).cast(), align - before);
            }
            let _ = madvise(start.cast(), size, Advice::LinuxHugepage);
            NonNull::new(start)
        }
    }

    /// Gives pages back.
    ///
    /// # Safety
    /// They came from [`map`] with this layout, and nobody uses them.
    pub(super) unsafe fn unmap(start: NonNull<u8>, layout: Layout) {
        // SAFETY: passes on the contract. It cannot fail for pages that are there.
        let _ = unsafe { munmap(start.as_ptr().cast(), layout.size()) };
    }
}

#[cfg(not(target_os = "linux"))]
mod pages {
    use super::{Layout, NonNull};

    pub(super) fn map(_: Layout) -> Option<NonNull<u8>> {
        None
    }

    pub(super) unsafe fn unmap(_: NonNull<u8>, _: Layout) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_zeroed_disjoint_and_outlive_the_memory() {
        for len in [0, 1, 1000, LARGE_PAGE / 64 + 7] {
            let mut memory = Memory::new(3 * len);
            let mut parts: Vec<Blocks> = (0..3).map(|_| memory.zeros(len)).collect();
            drop(memory);
            assert!(parts.iter().all(|p| p.iter().all(|&b| b == Block::ZERO)));
            for (i, part) in parts.iter_mut().enumerate() {
                part.fill(Block([i as f32; 16]));
            }
            for (i, part) in parts.iter().enumerate() {
                assert_eq!(part.len(), len);
                assert!(part.iter().all(|b| b.0 == [i as f32; 16]));
            }
        }
    }

    #[test]
    fn more_than_was_reckoned_with_is_given_all_the_same() {
        let mut memory = Memory::new(2);
        assert_eq!(memory.zeros(3).len(), 3);
        assert_eq!(memory.zeros(2).len(), 2);
    }

    #[test]
    fn moved_blocks_keep_their_values() {
        let mut blocks = Blocks::zeros(5);
        blocks[4].0[1] = 2.0;
        blocks.move_to(&mut Memory::new(9));
        assert_eq!((blocks.len(), blocks[4].0[1]), (5, 2.0));
        assert_eq!(blocks.clone()[4].0[1], 2.0);
    }
}
