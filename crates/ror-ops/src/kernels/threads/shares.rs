//! Memory dealt to the threads of a pool: scratch, ranges of one slice, a state each.

use std::ops::Range;

use super::Pool;
use crate::kernels::blocked::Block;
use crate::kernels::error::{Result, check_at_least};

impl Pool {
    /// As [`Pool::run`], and hands each call its own `len` blocks of `scratch`.
    ///
    /// # Errors
    /// A `scratch` of fewer than `threads * len` blocks.
    pub(crate) fn run_with<F: Fn(usize, &mut [Block]) + Sync>(
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

    /// Splits `items` into a share per thread, each a whole number of `unit`s, and calls `f` with the range of units
    /// and the items. What is left over after the last whole unit belongs to nobody.
    ///
    /// # Panics
    /// If `unit` is zero.
    pub fn run_shares<T: Send, F>(&self, items: &mut [T], unit: usize, f: F)
    where
        F: Fn(Range<usize>, &mut [T]) + Sync,
    {
        let (units, threads) = (items.len() / unit, self.threads());
        let base = Shareable(items.as_mut_ptr());
        self.run(|index| {
            let base = &base;
            let range = share(units, index, threads);
            // SAFETY: every index comes once; the ranges of units are disjoint and lie within `items`, which is
            // borrowed until `run` returns.
            let share = unsafe {
                std::slice::from_raw_parts_mut(base.0.add(range.start * unit), range.len() * unit)
            };
            f(range, share);
        });
    }

    /// As [`Pool::run_shares`], and hands each call its own element of `states`.
    ///
    /// # Errors
    /// Fewer states than threads.
    ///
    /// # Panics
    /// If `unit` is zero.
    pub fn run_shares_with<S: Send, T: Send, F>(
        &self,
        states: &mut [S],
        items: &mut [T],
        unit: usize,
        f: F,
    ) -> Result<()>
    where
        F: Fn(&mut S, Range<usize>, &mut [T]) + Sync,
    {
        let (units, threads) = (items.len() / unit, self.threads());
        check_at_least("states", threads, states.len())?;
        let (base, states) = (
            Shareable(items.as_mut_ptr()),
            Shareable(states.as_mut_ptr()),
        );
        self.run(|index| {
            let (base, states) = (&base, &states);
            let range = share(units, index, threads);
            // SAFETY: every index comes once and is below the number of states; the ranges of units are disjoint
            // and lie within `items`; both slices are borrowed until `run` returns.
            let (state, share) = unsafe {
                (
                    &mut *states.0.add(index),
                    std::slice::from_raw_parts_mut(
                        base.0.add(range.start * unit),
                        range.len() * unit,
                    ),
                )
            };
            f(state, range, share);
        });
        Ok(())
    }
}

/// A thread's share of so many units.
fn share(units: usize, index: usize, threads: usize) -> Range<usize> {
    // Slices of nothing may have more elements than there are addresses.
    let bound = |index: usize| (units as u128 * index as u128 / threads as u128) as usize;
    bound(index)..bound(index + 1)
}

/// A pointer of which each thread uses its own range.
struct Shareable<T>(*mut T);
// SAFETY: the ranges are disjoint, so each `T` is used by one thread at a time.
unsafe impl<T: Send> Sync for Shareable<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(threads: usize) -> Pool {
        Pool::new(threads).unwrap()
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

    #[test]
    fn shares_are_whole_units_and_cover_all() {
        let pool = pool(3);
        let mut items = vec![0; 17];
        pool.run_shares(&mut items, 2, |range, share| {
            assert_eq!(share.len(), range.len() * 2);
            for (i, item) in share.iter_mut().enumerate() {
                *item = range.start * 2 + i + 1;
            }
        });
        let expected: Vec<_> = (1..=16).chain([0]).collect();
        assert_eq!(items, expected);
    }

    #[test]
    fn each_share_comes_with_the_state_of_its_thread() {
        let pool = pool(3);
        let (mut states, mut items) = ([0; 3], [0; 8]);
        pool.run_shares_with(&mut states, &mut items, 2, |state, range, share| {
            *state += range.len();
            share.fill(range.start + 1);
        })
        .unwrap();
        assert_eq!((states, items), ([1, 1, 2], [1, 1, 2, 2, 3, 3, 3, 3]));
        assert!(
            pool.run_shares_with(&mut [0; 2], &mut items, 2, |_, _, _| ())
                .is_err()
        );
    }
}
