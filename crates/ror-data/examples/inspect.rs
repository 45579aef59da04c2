//! Describes a dataset: `cargo run --release --example inspect -- PATH [train|test]`.

use std::time::Instant;

use ror_data::{Dataset, Options, Split};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: inspect PATH [train|test]")?;
    let split = match arguments.next().as_deref() {
        Some("train") => Split::Train,
        None | Some("test") => Split::Test,
        Some(other) => return Err(format!("no split {other}: expected train or test").into()),
    };

    let start = Instant::now();
    let data = Dataset::open(path, split, &Options::default())?;
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{}: {} images of {}",
        data.provenance(),
        data.len(),
        data.size()
    );
    println!("read in {seconds:.2} s, {} resized", data.resized());

    for (label, class) in (0..).zip(data.classes()) {
        let count = data.labels().iter().filter(|l| **l == label).count();
        println!("{count:8} {class}");
    }
    for (channel, name) in ["red", "green", "blue"].iter().enumerate() {
        let pixels = (0..data.len()).flat_map(|i| data.image(i).iter().skip(channel).step_by(3));
        let (sum, squares) = pixels
            .map(|p| f64::from(*p) / 255.0)
            .fold((0.0, 0.0), |(s, q), p| (s + p, q + p * p));
        let n = (data.len() * data.size().area()) as f64;
        let mean = sum / n;
        println!(
            "{name:>8} mean {mean:.4}, deviation {:.4}",
            (squares / n - mean * mean).sqrt()
        );
    }
    Ok(())
}
