//! Packed convolutions, kept from call to call.
//!
//! Packing the weights of a wide layer takes longer than convolving a few images with them, and most calls bring
//! the weights of an earlier one. What is kept is found by the weights themselves, so that nobody need say when
//! they change.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::kernels::{Algorithm, Conv2d, Geometry, Isa, KernelError, Pool};

/// Memory that may be kept, in bytes.
const MOST: usize = 64 << 20;

/// What a convolution was packed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    pub geometry: Geometry,
    pub algorithm: Algorithm,
    /// Whether the weights are those of the convolution whose input gradient it computes.
    pub transposed: bool,
}

/// A packed convolution with the weights that it was packed from.
pub(super) struct Packed {
    key: Key,
    weight: Vec<f32>,
    conv: Conv2d,
}

impl Packed {
    pub(super) fn conv(&self) -> &Conv2d {
        &self.conv
    }

    fn bytes(&self) -> usize {
        self.conv.weight_bytes() + size_of_val::<[f32]>(&self.weight)
    }
}

/// Packed convolutions that nobody uses at present, the one that was not used for longest first.
pub(super) struct Store(Mutex<Vec<Packed>>);

impl Store {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// The convolution of these weights and this bias, kept from an earlier call or packed on the threads of `pool`.
    pub(super) fn take(
        &self,
        isa: Isa,
        pool: &Pool,
        key: Key,
        weight: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<Packed, KernelError> {
        let Some((mut packed, same)) = self.find(pool, key, weight) else {
            let Key {
                geometry,
                algorithm,
                transposed,
            } = key;
            let pool = Some(pool);
            let conv = Conv2d::pack(isa, geometry, algorithm, weight, bias, transposed, pool)?;
            let weight = weight.to_vec();
            return Ok(Packed { key, weight, conv });
        };
        if !same {
            packed.conv.repack_on(pool, weight, key.transposed)?;
            packed.weight.copy_from_slice(weight);
        }
        match bias {
            Some(bias) => packed.conv.set_bias(bias)?,
            None => packed.conv.set_bias(&vec![0.0; key.geometry.outputs])?,
        }
        Ok(packed)
    }

    /// Keeps it for later calls.
    pub(super) fn put(&self, packed: Packed) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push(packed);
        let mut bytes: usize = kept.iter().map(Packed::bytes).sum();
        let mut old = 0;
        while bytes > MOST {
            bytes -= kept[old].bytes();
            old += 1;
        }
        kept.drain(..old);
    }

    /// One that was packed from these weights, and true; else, where no more can be kept, one whose memory can be
    /// used again, and false.
    fn find(&self, pool: &Pool, key: Key, weight: &[f32]) -> Option<(Packed, bool)> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |p: &Packed| p.key == key && p.weight.len() == weight.len();
        let equal = |p: &Packed| fits(p) && same(pool, &p.weight, weight);
        if let Some(found) = kept.iter().position(equal) {
            return Some((kept.remove(found), true));
        }
        let oldest = kept.iter().position(fits)?;
        let bytes: usize = kept.iter().map(Packed::bytes).sum();
        let full = bytes + kept[oldest].bytes() > MOST;
        full.then(|| (kept.remove(oldest), false))
    }
}

/// Whether all bits of two slices of one length are equal.
fn same(pool: &Pool, a: &[f32], b: &[f32]) -> bool {
    /// Other weights differ in these already.
    const FIRST: usize = 64;
    let equal = |a: &[f32], b: &[f32]| {
        // Without an early end, which would keep it from working on many at a time.
        let differences = a.iter().zip(b).map(|(a, b)| a.to_bits() ^ b.to_bits());
        differences.fold(0, |all, d| all | d) == 0
    };
    let (first, threads) = (FIRST.min(a.len()), pool.threads());
    if !equal(&a[..first], &b[..first]) {
        return false;
    }
    let all = AtomicBool::new(true);
    pool.run(|t| {
        let share = a.len() * t / threads..a.len() * (t + 1) / threads;
        if !equal(&a[share.clone()], &b[share]) {
            all.store(false, Ordering::Relaxed);
        }
    });
    all.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{Block, Dims, Fused, Output, to_blocked};

    fn key(channels: usize, transposed: bool) -> Key {
        Key {
            geometry: Geometry {
                inputs: channels,
                outputs: channels,
                kernel: (3, 3),
                stride: 1,
                padding: 1,
            },
            algorithm: Algorithm::Winograd4,
            transposed,
        }
    }

    fn weight(channels: usize, seed: usize) -> Vec<f32> {
        let value = |i: usize| ((i * 31 + seed * 17) % 29) as f32 / 29.0 - 0.5;
        (0..channels * channels * 9).map(value).collect()
    }

    fn run(conv: &Conv2d) -> Vec<Block> {
        let dims = Dims::new(1, conv.geometry().inputs, 5, 7);
        let plain: Vec<f32> = (0..dims.c * 35).map(|i| (i % 13) as f32 - 6.0).collect();
        let mut x = vec![Block::ZERO; dims.block_len("x").unwrap()];
        to_blocked(dims, &plain, &mut x).unwrap();
        let mut y = x.clone();
        let mut scratch = vec![Block::ZERO; conv.scratch_len(1, 5, 7).unwrap()];
        let out = Output::raw(&mut y);
        conv.run((1, 5, 7), &x, &Fused::default(), out, &mut scratch)
            .unwrap();
        y
    }

    fn fresh(key: Key, weight: &[f32], bias: Option<&[f32]>) -> Vec<Block> {
        let Key {
            geometry,
            algorithm,
            transposed,
        } = key;
        let isa = Isa::detect();
        run(&Conv2d::pack(isa, geometry, algorithm, weight, bias, transposed, None).unwrap())
    }

    #[test]
    fn what_is_kept_computes_what_is_packed_anew() {
        let (store, pool, isa) = (Store::new(), Pool::new(2).unwrap(), Isa::detect());
        let bias: Vec<f32> = (0..40).map(|i| i as f32).collect();
        for round in 0..3 {
            for (channels, transposed) in [(40, false), (40, true), (17, false)] {
                for seed in 0..2 {
                    let key = key(channels, transposed);
                    let weight = weight(channels, seed);
                    // Without a bias the last call's must be gone.
                    let bias = (round == 1).then_some(&bias[..channels]);
                    let packed = store.take(isa, &pool, key, &weight, bias).unwrap();
                    assert!(run(packed.conv()) == fresh(key, &weight, bias));
                    store.put(packed);
                }
            }
        }
        assert_eq!(store.0.lock().unwrap().len(), 6);
    }

    #[test]
    fn no_more_is_kept_than_may_be_and_memory_is_used_again() {
        let (store, pool, isa) = (Store::new(), Pool::new(2).unwrap(), Isa::detect());
        let key = key(512, false);
        // Each takes 36 + 9 MiB.
        for seed in 0..3 {
            let weight = weight(512, seed);
            let packed = store.take(isa, &pool, key, &weight, None).unwrap();
            assert!(run(packed.conv()) == fresh(key, &weight, None));
            store.put(packed);
            let kept = store.0.lock().unwrap();
            assert_eq!(kept.len(), 1);
            assert!(kept[0].bytes() <= MOST);
            assert!(same(&pool, &kept[0].weight, &weight));
        }
    }
}
