//! Memory for weights and activations, in large pages where the system gives them.
//!
//! A network's packed weights are tens of megabytes that every few images walk through. In pages of 4 KiB they are
//! more pages than a processor keeps translations of.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
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
            region: Arc::new(Region::new(len)),
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
        Memory::new(len).zeros(len)
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

#[derive(Debug)]
struct Region {
    start: NonNull<Block>,
    len: usize,
    layout: Layout,
}

// SAFETY: it only owns the memory; who may use which part is `Blocks`' matter.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    fn new(len: usize) -> Self {
        let bytes = len.saturating_mul(size_of::<Block>());
        let large = bytes >= LARGE_PAGE;
        let (size, align) = if large {
            // A partly used page is a whole one.
            (
                bytes.saturating_add(LARGE_PAGE - 1) / LARGE_PAGE * LARGE_PAGE,
                LARGE_PAGE,
            )
        } else {
            (bytes.max(size_of::<Block>()), align_of::<Block>())
        };
        let layout = match Layout::from_size_align(size, align) {
            Ok(layout) => layout,
            // More than the address space holds; as for a vector.
            Err(_) => handle_alloc_error(Layout::new::<Block>()),
        };
        // SAFETY: the size is not zero.
        let Some(start) = NonNull::new(unsafe { alloc(layout) }) else {
            handle_alloc_error(layout)
        };
        if large {
            large_pages(start, size);
        }
        // SAFETY: the allocation has `bytes` bytes.
        unsafe { start.write_bytes(0, bytes) };
        Self {
            start: start.cast(),
            len,
            layout,
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: `alloc` gave it with this layout.
        unsafe { dealloc(self.start.as_ptr().cast(), self.layout) }
    }
}

/// Asks for large pages, before the memory is touched.
#[cfg(target_os = "linux")]
fn large_pages(start: NonNull<u8>, size: usize) {
    use rustix::mm::{Advice, madvise};
    // SAFETY: the advice changes how the range is backed, not what it holds. Refused, pages stay small.
    let _ = unsafe { madvise(start.as_ptr().cast(), size, Advice::LinuxHugepage) };
}

#[cfg(not(target_os = "linux"))]
fn large_pages(_: NonNull<u8>, _: usize) {}

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
