//! Each level of nesting alone, on what the layers of the reference computed: `.taps.npz` has the
//! mean of every layer's output over batch and space.
//!
//! A 1x1 convolution of stride 1 is linear, so that the mean of its output is its output for the
//! mean of its input: an image of one pixel. A level's sum less its body's result is what its
//! shortcut gave. A wrong shortcut at one level fails that level's test and no other, but for the
//! one of the whole model.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;

use candle_core::Tensor;
use candle_nn::VarBuilder;
use ror_blocks::{BlockModule, Mode, Sequence, Shortcut, ShortcutModule};
use ror_models::{Level, Member, Network, TapPoint};
use ror_tests::golden::{
    Fixture, fixtures, mean_per_channel, pixel, relative_difference, var_builder,
};

const RELATIVE: f32 = 1e-4;

/// A network, its weights, and what its layers gave.
struct Tapped {
    fixture: Fixture,
    network: Network,
    vb: VarBuilder<'static>,
    taps: BTreeMap<String, Tensor>,
    layers: BTreeMap<String, String>,
    sums: BTreeMap<String, String>,
}

fn tapped() -> Vec<Tapped> {
    let mut all = Vec::new();
    for fixture in fixtures() {
        let Some(taps) = fixture.npz(".taps.npz") else {
            continue;
        };
        // The taps belong to the weights before any step of training.
        let suffixes = fixture.weight_files();
        let untrained = [".weights.h5", ".legacy.h5", ".model.h5"];
        let suffix = untrained
            .iter()
            .find(|s| suffixes.iter().any(|have| have == *s))
            .unwrap();
        let weights = fixture.load(suffix);
        let network = weights.network().unwrap();
        all.push(Tapped {
            layers: fixture.keras_names(&network),
            sums: fixture.keras_sums(&network),
            vb: var_builder(&weights),
            fixture,
            network,
            taps,
        });
    }
    assert!(all.len() >= 2);
    all
}

impl Tapped {
    fn at(&self, layer: &str) -> &Tensor {
        &self.taps[layer]
    }

    /// The mean of the sum at the end of a level or block.
    fn sum(&self, path: &str) -> &Tensor {
        self.at(&self.sums[path])
    }

    /// The mean of the output of our layer `path`.
    fn layer(&self, path: &str) -> &Tensor {
        self.at(&self.layers[path])
    }

    fn groups(&self) -> Vec<&Level> {
        let groups = self.network.root.body.iter().filter_map(|m| match m {
            Member::Level(level) => Some(level),
            _ => None,
        });
        groups.collect()
    }

    /// The mean of what enters group `index`: the stem's output, or the pool after the group
    /// before.
    fn group_input(&self, index: usize) -> Tensor {
        if index == 0 {
            return self.layer("stem.conv").clone();
        }
        let mut pools: Vec<&str> = self.fixture.json["layers"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|l| l["class"] == "MaxPooling2D")
            .map(|l| l["name"].as_str().unwrap())
            .collect();
        pools.sort_unstable();
        self.at(pools[index - 1]).clone()
    }

    fn shortcut(&self, shortcut: &Shortcut, path: &str) -> ShortcutModule {
        ShortcutModule::new(
            shortcut,
            self.network.norm(),
            &self.vb.pp(path).pp("shortcut"),
        )
        .unwrap()
    }

    /// What `shortcut` at `path` gives on average, for an input of average `input`.
    fn shortcut_of_mean(&self, shortcut: &Shortcut, path: &str, input: &Tensor) -> Tensor {
        let module = self.shortcut(shortcut, path);
        let y = module.forward(&pixel(input), Mode::Eval).unwrap().unwrap();
        y.flatten_all().unwrap()
    }

    fn assert_close(&self, found: &Tensor, expected: &Tensor, what: &str) {
        let difference = relative_difference(found, expected);
        assert!(
            difference < RELATIVE,
            "{}: {what} differs by {difference}",
            self.fixture.name()
        );
    }

    fn stem_output(&self) -> Tensor {
        let stem =
            Sequence::new(&self.network.stem, self.network.norm(), &self.vb.pp("stem")).unwrap();
        stem.forward(&self.fixture.input(), Mode::Eval).unwrap()
    }
}

#[test]
fn block_level_shortcuts_alone_give_what_sums_add_to_bodies() {
    for t in tapped() {
        for (index, group) in t.groups().into_iter().enumerate() {
            let mut input = t.group_input(index);
            for member in &group.body {
                let Member::Block(block) = member else {
                    panic!("a group of three levels holds blocks");
                };
                let path = format!("root.{}.{}", group.name, block.name);
                let found = t.shortcut_of_mean(&block.shortcut, &path, &input);
                let body = t.layer(&format!("{path}.conv2"));
                t.assert_close(&found, &t.sum(&path).sub(body).unwrap(), &path);
                if block.shortcut != Shortcut::Identity {
                    t.assert_close(&found, t.layer(&format!("{path}.shortcut.conv")), &path);
                }
                input = t.sum(&path).clone();
            }
        }
    }
}

#[test]
fn group_level_shortcuts_alone_give_what_sums_add_to_bodies() {
    for t in tapped() {
        for (index, group) in t.groups().into_iter().enumerate() {
            let path = format!("root.{}", group.name);
            let found = t.shortcut_of_mean(&group.shortcut, &path, &t.group_input(index));
            let Some(Member::Block(last)) = group.body.last() else {
                panic!("a group of three levels ends with a block");
            };
            let body = t.sum(&format!("{path}.{}", last.name));
            t.assert_close(&found, &t.sum(&path).sub(body).unwrap(), &path);
            t.assert_close(&found, t.layer(&format!("{path}.shortcut.conv")), &path);
        }
    }
}

#[test]
fn the_root_shortcut_alone_gives_what_the_last_sum_adds_to_the_body() {
    for t in tapped() {
        // It strides, so that the mean of its input is not enough; the stem gives the input itself.
        let shortcut = t.shortcut(&t.network.root.shortcut, "root");
        let y = shortcut
            .forward(&t.stem_output(), Mode::Eval)
            .unwrap()
            .unwrap();
        let found = mean_per_channel(&y);
        t.assert_close(&found, t.layer("root.shortcut.conv"), "root");
        t.assert_close(
            &found,
            &t.sum("root").sub(t.sum("root.group3")).unwrap(),
            "root",
        );
    }
}

#[test]
fn the_stem_and_the_first_block_alone_give_what_their_layers_gave() {
    for t in tapped() {
        let stem = t.stem_output();
        t.assert_close(&mean_per_channel(&stem), t.layer("stem.conv"), "stem");
        let blocks = t.network.blocks();
        let (path, block) = &blocks[0];
        let mut vb = t.vb.clone();
        for part in path.split('.') {
            vb = vb.pp(part);
        }
        let module = BlockModule::new(block, t.network.norm(), &vb).unwrap();
        let mut seen = None;
        let y = module.forward(&stem, Mode::Eval, &mut |body, sum| {
            seen = Some((mean_per_channel(body), mean_per_channel(sum)));
        });
        let (body, sum) = seen.unwrap();
        t.assert_close(&body, t.layer(&format!("{path}.conv2")), path);
        t.assert_close(&sum, t.sum(path), path);
        t.assert_close(&mean_per_channel(&y.unwrap()), t.sum(path), path);
    }
}

#[test]
fn every_sum_of_the_whole_model_is_the_references() {
    for t in tapped() {
        let model = ror_models::Model::new(&t.network, t.vb.clone()).unwrap();
        let (_, taps) = model.taps(&t.fixture.input()).unwrap();
        let mut compared = 0;
        for tap in taps.iter().filter(|tap| tap.point == TapPoint::Sum) {
            t.assert_close(&mean_per_channel(&tap.tensor), t.sum(&tap.path), &tap.path);
            compared += 1;
        }
        assert_eq!(compared, t.sums.len());
    }
}
