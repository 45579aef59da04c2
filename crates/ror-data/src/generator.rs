//! Random numbers that are the same on every machine and in every order of work.

use rand_core::Rng;
use rand_pcg::Pcg64;

/// A generator for one purpose at one place: it is made from what it is for, not from what was
/// drawn before, so that there is no state to save and any thread may make it.
///
/// ```
/// use ror_data::Generator;
///
/// let (seed, epoch, image) = (1, 3, 47_110);
/// let a = Generator::new(seed, &[epoch, image]).unit();
/// assert_eq!(a, Generator::new(seed, &[epoch, image]).unit());
/// assert_ne!(a, Generator::new(seed, &[epoch, image + 1]).unit());
/// ```
#[derive(Debug, Clone)]
pub struct Generator(Pcg64);

impl Generator {
    /// The sequence that belongs to `seed` and `place`.
    pub fn new(seed: u64, place: &[u64]) -> Self {
        let absorb = |start: u64| {
            place
                .iter()
                .fold(mix(start ^ seed), |h, &part| mix(h.rotate_left(17) ^ part))
        };
        let state = u128::from(absorb(1)) << 64 | u128::from(absorb(2));
        let stream = u128::from(absorb(3)) << 64 | u128::from(absorb(4));
        Self(Pcg64::new(state, stream))
    }

    /// A number in `[0, 1)` with 53 random bits.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number in `[-bound, bound)`.
    pub fn within(&mut self, bound: f64) -> f64 {
        (2.0 * self.unit() - 1.0) * bound
    }

    /// A whole number below `n`, each as likely (Lemire, 2019); 0 if `n` is.
    pub fn below(&mut self, n: u64) -> u64 {
        let threshold = n.wrapping_neg().checked_rem(n).unwrap_or(0);
        loop {
            let product = u128::from(self.bits()) * u128::from(n);
            if product as u64 >= threshold {
                return (product >> 64) as u64;
            }
        }
    }

    /// Puts items in a random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, 2014), a bijection without a fixed point at
/// zero.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_numbers_never_change() {
        let mut generator = Generator::new(1, &[2, 3]);
        let found = [generator.bits(), generator.bits()];
        assert_eq!(found, FIRST);
    }

    #[test]
    fn places_differ_by_order_and_length() {
        let first = |place: &[u64]| Generator::new(5, place).bits();
        let all = [first(&[]), first(&[0]), first(&[0, 1]), first(&[1, 0])];
        for (i, a) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|b| a != b));
        }
    }

    #[test]
    fn a_shuffle_is_a_permutation_and_each_item_comes_first_as_often() {
        let mut firsts = [0; 5];
        for seed in 0..5000 {
            let mut items = [0, 1, 2, 3, 4];
            Generator::new(seed, &[]).shuffle(&mut items);
            firsts[items[0]] += 1;
            items.sort_unstable();
            assert_eq!(items, [0, 1, 2, 3, 4]);
        }
        // Four standard deviations of a binomial with n = 5000, p = 0.2.
        assert!(
            firsts.iter().all(|&n: &i32| (n - 1000).abs() < 114),
            "{firsts:?}"
        );
    }

    #[test]
    fn numbers_stay_in_their_ranges() {
        let mut generator = Generator::new(9, &[]);
        for _ in 0..1000 {
            assert!(generator.below(3) < 3);
            assert!((-2.0..2.0).contains(&generator.within(2.0)));
        }
        assert_eq!(generator.below(0), 0);
        assert_eq!(generator.below(1), 0);
    }

    const FIRST: [u64; 2] = [4_555_209_108_691_885_490, 17_897_335_998_703_643_594];
}
