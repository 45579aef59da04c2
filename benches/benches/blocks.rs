//! Blocks of every kind and groups of every size, operation by operation and compiled, each behind a 1x1 convolution
//! of the images that gives them their input.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use criterion::{Criterion, criterion_group, criterion_main};
use ror_benches::plain_and_compiled;
use ror_models::blocks::{Layer, NamedLayer, Shape3};
use ror_models::{Description, Level, Member, Network, Placed, Visit};

const BATCH: usize = 16;

/// The levels and blocks of a network with the shapes that reach them.
struct Parts(Vec<(String, Member, Shape3)>);

impl Visit for Parts {
    fn enter_level(&mut self, path: &str, level: &Level, input: Shape3) {
        if path.starts_with("root.group") {
            self.0
                .push((path.to_owned(), Member::Level(level.clone()), input));
        }
    }

    fn enter_block(&mut self, path: &str, block: &ror_models::blocks::Block, input: Shape3) {
        // The first of a group changes the shape, the second stands for the rest.
        if path.ends_with("block1") || path.ends_with("block2") {
            self.0
                .push((path.to_owned(), Member::Block(block.clone()), input));
        }
    }

    fn layer(&mut self, _: Placed) {}
}

/// A network of that one part.
fn alone(network: &Network, part: Member, input: Shape3) -> Network {
    let mut alone = network.clone();
    alone.description.image_size = [input.height, input.width];
    let conv = Layer::conv(alone.description.channels, input.channels, 1, 1, false);
    alone.stem = vec![NamedLayer::new("conv", conv)];
    alone.root.body = vec![part];
    alone.root.shortcut = ror_models::blocks::Shortcut::None;
    alone.root.activation = false;
    alone.head.layers.clear();
    alone.head.classes = None;
    alone
}

fn blocks(c: &mut Criterion) {
    let mut group = c.benchmark_group("block");
    group.sample_size(10);
    for name in [
        "ror-3-20",
        "ror-3-bottleneck-29",
        "ror-3-wrn-16-2",
        "pre-ror-3-bottleneck-29",
        "keras-ror-3-wrn-16-2",
        "pytorchcv-ror-3-20",
    ] {
        let network = Network::new(&Description::preset(name).unwrap()).unwrap();
        let mut parts = Parts(Vec::new());
        network.walk(&mut parts).unwrap();
        for (path, part, input) in parts.0 {
            let alone = alone(&network, part, input);
            plain_and_compiled(&mut group, &format!("{name}/{path}"), &alone, BATCH);
        }
    }
    group.finish();
}

criterion_group!(benches, blocks);
criterion_main!(benches);
