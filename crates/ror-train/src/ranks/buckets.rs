//! Gradients on their way to the other ranks.
//!
//! Tensors travel in a few large buckets, filled in the order in which the way back reaches them. The order follows
//! from the tensors' names, not from the engine, so that all ranks send the same buckets in the same order, whatever
//! they compute on.

use super::{Bucket, Ranks, Sending};
use crate::engine::Peers;
use crate::error::{Result, TrainError};
use crate::{FlatLayout, Gradients};
use ror_models::Network;
use std::ops::ControlFlow;

/// Numbers in a bucket (4 MiB): large enough for a network's bandwidth, small enough that the first are on
/// their way long before the last gradient is there.
const BUCKET: usize = 1 << 20;

/// Where every tensor's gradient travels, and the memory for it.
#[derive(Debug)]
pub(crate) struct Buckets {
    /// Of each tensor of the layout.
    places: Vec<Place>,
    /// Tensors in each bucket.
    tensors: Vec<usize>,
    memory: Vec<Bucket>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Place {
    bucket: usize,
    start: usize,
}

impl Buckets {
    pub(crate) fn new(network: &Network, layout: &FlatLayout) -> Self {
        Self::of(network, layout, BUCKET)
    }

    fn of(network: &Network, layout: &FlatLayout, bucket: usize) -> Self {
        let mut places = vec![Place::default(); layout.entries().len()];
        let (mut tensors, mut lens) = (Vec::new(), Vec::new());
        let mut full = true;
        for name in backwards(network) {
            let Some(index) = layout.index(&name) else {
                continue;
            };
            if full {
                tensors.push(0);
                lens.push(0);
            }
            let last = lens.len() - 1;
            places[index] = Place {
                bucket: last,
                start: lens[last],
            };
            tensors[last] += 1;
            lens[last] += layout.entries()[index].range.len();
            full = lens[last] >= bucket;
        }
        let zeros = |len: usize| Bucket {
            own: vec![0.0; len],
            sum: vec![0.0; len],
        };
        Self {
            places,
            tensors,
            memory: lens.into_iter().map(zeros).collect(),
        }
    }

    /// Has `compute` set gradients, and replaces them by their sums over all ranks. Where it fails they become
    /// NaN on every rank, so that none goes on with some of them missing; but where ranks are synchronised the others
    /// are amid sums that this one knows nothing of: it leaves, and the job has to be ended.
    pub(crate) fn reduce<T>(
        &mut self,
        ranks: &dyn Ranks,
        synchronised: bool,
        gradients: &mut Gradients,
        compute: impl FnOnce(&mut Gradients, &mut dyn Peers) -> Result<T>,
    ) -> Result<T> {
        let (places, tensors) = (&self.places, &self.tensors);
        let mut compute = Some(compute);
        let mut output = None;
        ranks.sum_while(&mut self.memory, &mut |sending| {
            let mut reduction = Reduction {
                ranks,
                synchronised,
                places,
                missing: tensors.clone(),
                next: 0,
                sending,
            };
            if let Some(compute) = compute.take() {
                let result = compute(gradients, &mut reduction);
                let failed = result.is_err();
                output = Some(result);
                if failed && synchronised {
                    return ControlFlow::Break(());
                }
                reduction.rest(if failed { f32::NAN } else { 0.0 });
            }
            ControlFlow::Continue(())
        });
        if synchronised && matches!(output, Some(Err(_))) {
            gradients.as_mut_slice().fill(f32::NAN);
            return output.unwrap_or_else(no_output);
        }
        for (index, place) in self.places.iter().enumerate() {
            let to = gradients.at_mut(index);
            to.copy_from_slice(&self.memory[place.bucket].sum[place.start..][..to.len()]);
        }
        output.unwrap_or_else(no_output)
    }
}

fn no_output<T>() -> Result<T> {
    let text = "the ranks did not wait for the gradients";
    Err(TrainError::Ranks(text.to_owned()))
}

/// Names of tensors from the end of the network to its beginning. What a shortcut leads around lies behind it: its
/// own gradient is there last.
fn backwards(network: &Network) -> Vec<String> {
    let names: Vec<String> = network.tensors().into_iter().map(|t| t.name).collect();
    let place = |(index, name): (usize, &String)| match name.rsplit_once(".shortcut.") {
        Some((level, _)) => {
            let level = format!("{level}.");
            let first = names.iter().position(|name| name.starts_with(&level));
            (first.unwrap_or(index), 0, index)
        }
        None => (index, 1, index),
    };
    let mut places: Vec<_> = names.iter().enumerate().map(place).collect();
    places.sort_unstable();
    let names = places
        .iter()
        .rev()
        .map(|&(_, _, index)| names[index].clone());
    names.collect()
}

/// Buckets that are being filled.
struct Reduction<'a> {
    ranks: &'a dyn Ranks,
    synchronised: bool,
    places: &'a [Place],
    /// Tensors that each bucket waits for.
    missing: Vec<usize>,
    /// The bucket that is sent next.
    next: usize,
    sending: &'a mut dyn Sending,
}

impl Reduction<'_> {
    /// Sends what is left; tensors that nobody told of have this value everywhere.
    fn rest(&mut self, value: f32) {
        for bucket in self.next..self.missing.len() {
            if self.missing[bucket] > 0 {
                self.sending.own(bucket).fill(value);
            }
            self.sending.send(bucket);
        }
        self.next = self.missing.len();
    }
}

impl Peers for Reduction<'_> {
    fn ready(&mut self, index: usize, gradient: &mut [f32]) {
        let Place { bucket, start } = self.places[index];
        self.sending.own(bucket)[start..][..gradient.len()].copy_from_slice(gradient);
        self.missing[bucket] -= 1;
        while self.missing.get(self.next) == Some(&0) {
            self.sending.send(self.next);
            self.next += 1;
        }
    }

    fn synchronised(&self) -> bool {
        self.synchronised
    }

    fn sum(&mut self, values: &mut [f64]) {
        self.ranks.sum(values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ranks::Computing;
    use crate::ranks::threads::on_ranks;
    use candle_core::{DType, Device};
    use ror_models::{Description, Parameters};
    use std::sync::Arc;

    fn network() -> (Network, Arc<FlatLayout>) {
        let network = Network::new(&Description::preset("ror-3-wrn-10-1").unwrap()).unwrap();
        let parameters = Parameters::init(&network, 1, DType::F32, &Device::Cpu).unwrap();
        let layout = Arc::new(FlatLayout::new(&parameters));
        (network, layout)
    }

    #[test]
    fn every_gradient_has_a_place_of_its_own_in_few_buckets() {
        let (network, layout) = network();
        for (size, expected) in [
            (BUCKET, 1..2),
            (10_000, 2..9),
            (1, layout.entries().len()..99),
        ] {
            let buckets = Buckets::of(&network, &layout, size);
            assert!(expected.contains(&buckets.memory.len()), "{size}");
            let mut taken: Vec<_> = buckets
                .memory
                .iter()
                .map(|b| vec![0; b.own.len()])
                .collect();
            for (place, entry) in buckets.places.iter().zip(layout.entries()) {
                taken[place.bucket][place.start..][..entry.range.len()]
                    .iter_mut()
                    .for_each(|t| *t += 1);
            }
            assert!(taken.iter().flatten().all(|&t| t == 1));
            assert_eq!(
                buckets.places[layout.index("head.dense.bias").unwrap()].bucket,
                0
            );
        }
    }

    #[test]
    fn the_order_is_that_in_which_an_engine_has_the_gradients() {
        let network = Network::new(&Description::preset("ror-3-14").unwrap()).unwrap();
        let order = backwards(&network);
        let of = |name: &str| order.iter().position(|n| n == name).unwrap();
        assert!(order[0].starts_with("head.") && order.last().unwrap().starts_with("stem."));
        for (earlier, later) in [
            (
                "root.group3.block1.conv1.weight",
                "root.group3.shortcut.conv.weight",
            ),
            (
                "root.group3.shortcut.conv.weight",
                "root.group2.block2.conv2.weight",
            ),
            (
                "root.group1.block1.conv1.weight",
                "root.shortcut.conv.weight",
            ),
        ] {
            assert!(of(earlier) < of(later), "{earlier} {later}");
        }
    }

    #[test]
    fn gradients_are_added_up_in_whatever_order_they_are_told() {
        let (network, layout) = network();
        let entries = layout.entries().len();
        let results = on_ranks(3, |ranks| {
            let mut gradients = Gradients::new(layout.clone());
            let mut buckets = Buckets::of(&network, &layout, 10_000);
            let factor = (ranks.rank() + 1) as f32;
            let told = buckets.reduce(&ranks, false, &mut gradients, |gradients, peers| {
                for i in 0..entries {
                    // Each rank in an order of its own.
                    let index = (i * 7 + ranks.rank()) % entries;
                    let gradient = gradients.at_mut(index);
                    gradient.fill(factor * index as f32);
                    peers.ready(index, gradient);
                }
                Ok(())
            });
            told.unwrap();
            gradients
        });
        assert_ne!(entries % 7, 0);
        for gradients in results {
            for (index, entry) in layout.entries().iter().enumerate() {
                let found = &gradients.as_slice()[entry.range.clone()];
                assert!(
                    found.iter().all(|&g| g == 6.0 * index as f32),
                    "{}",
                    entry.name
                );
            }
        }
    }

    #[test]
    fn a_rank_without_images_adds_nothing_and_a_failed_one_spoils_all() {
        let (network, layout) = network();
        for fails in [false, true] {
            let results = on_ranks(2, |ranks| {
                let mut gradients = Gradients::new(layout.clone());
                let mut buckets = Buckets::new(&network, &layout);
                let result = buckets.reduce(&ranks, false, &mut gradients, |gradients, peers| {
                    if ranks.rank() == 1 {
                        let error = TrainError::Data("no".to_owned());
                        return if fails { Err(error) } else { Ok(()) };
                    }
                    for index in 0..layout.entries().len() {
                        let gradient = gradients.at_mut(index);
                        gradient.fill(1.0);
                        peers.ready(index, gradient);
                    }
                    Ok(())
                });
                (result.is_ok(), gradients.as_slice()[0])
            });
            if fails {
                assert!(results[0].0 && !results[1].0);
                assert!(results.iter().all(|(_, g)| g.is_nan()));
            } else {
                assert_eq!(results, [(true, 1.0), (true, 1.0)]);
            }
        }
    }

    /// A rank that may meet the others no more.
    struct Lonely;

    impl Ranks for Lonely {
        fn rank(&self) -> usize {
            1
        }

        fn size(&self) -> usize {
            2
        }

        fn sum(&self, _: &mut [f64]) {
            panic!("the others are amid another sum");
        }

        fn sum_while(&self, buckets: &mut [Bucket], compute: &mut Computing<'_>) {
            struct Nowhere<'a>(&'a mut [Bucket]);
            impl Sending for Nowhere<'_> {
                fn own(&mut self, bucket: usize) -> &mut [f32] {
                    &mut self.0[bucket].own
                }
                fn send(&mut self, _: usize) {
                    panic!("nothing more is sent");
                }
            }
            assert!(compute(&mut Nowhere(buckets)).is_break());
        }
    }

    #[test]
    fn a_synchronised_rank_that_fails_leaves_at_once() {
        let (network, layout) = network();
        let mut gradients = Gradients::new(layout.clone());
        let mut buckets = Buckets::new(&network, &layout);
        let result: Result<()> = buckets.reduce(&Lonely, true, &mut gradients, |_, _| {
            Err(TrainError::Data("no".to_owned()))
        });
        assert_eq!(result.unwrap_err().to_string(), "no");
        assert!(gradients.as_slice().iter().all(|g| g.is_nan()));
    }
}
