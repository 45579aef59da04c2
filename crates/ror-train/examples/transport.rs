//! How fast the ranks of an MPI job add up numbers: what `docs/scaling.md` calls latency and bandwidth.
//!
//! ```sh
//! cargo build --release -p ror-train --features mpi --example transport
//! mpirun -n 4 target/release/examples/transport
//! ```

use ror_train::Ranks;
use ror_train::ranks::mpi::Job;
use ror_train::ranks::{Bucket, Sending};
use std::ops::ControlFlow;
use std::time::Instant;

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

fn repeat(times: usize, mut work: impl FnMut()) -> f64 {
    let time = |_| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    };
    median((0..times).map(time).collect())
}

fn main() -> ror_train::Result<()> {
    let (_job, ranks) = Job::join()?;
    let mut rows = Vec::new();
    for len in [1, 128, 1024, 16 * 1024] {
        let mut values = vec![0.5f64; len];
        rows.push(("waits", len * 8, repeat(101, || ranks.sum(&mut values))));
    }
    for len in [1 << 16, 1 << 18, 1 << 20, 1 << 22] {
        let bucket = Bucket {
            own: vec![0.5; len],
            sum: vec![0.0; len],
        };
        let mut buckets = [bucket];
        let mut send = |sending: &mut dyn Sending| {
            sending.send(0);
            ControlFlow::Continue(())
        };
        let seconds = repeat(11, || ranks.sum_while(&mut buckets, &mut send));
        rows.push(("goes on", len * 4, seconds));
    }
    if ranks.rank() == 0 {
        println!(
            "{} ranks\nsum          bytes  microseconds  MB/s",
            ranks.size()
        );
        for (kind, bytes, seconds) in rows {
            let rate = bytes as f64 / seconds / 1e6;
            println!("{kind:7} {bytes:10}  {:12.1}  {rate:4.0}", seconds * 1e6);
        }
    }
    Ok(())
}
