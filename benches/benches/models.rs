//! Whole networks, operation by operation and compiled, one image and a batch.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use criterion::{Criterion, criterion_group, criterion_main};
use ror_benches::plain_and_compiled;
use ror_models::{Description, Network};

fn models(c: &mut Criterion) {
    let mut group = c.benchmark_group("model");
    group.sample_size(10);
    for (name, batches) in [
        ("keras-ror-3-wrn-40-2", [1, 64]),
        ("ror-3-wrn-40-2", [1, 64]),
        ("pytorchcv-ror-3-110", [1, 64]),
        ("imagenet-ror-3-34", [1, 8]),
    ] {
        let network = Network::new(&Description::preset(name).unwrap()).unwrap();
        for batch in batches {
            plain_and_compiled(&mut group, &format!("{name}/{batch}"), &network, batch);
        }
    }
    group.finish();
}

criterion_group!(benches, models);
criterion_main!(benches);
