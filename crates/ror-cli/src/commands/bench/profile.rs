//! The time of every operation of a compiled network.

use crate::output::table;
use anyhow::Result;
use ror_infer::{Engine, Input, OperationTime};

/// A table of the mean times of `rounds` batches.
pub(super) fn profile(
    engine: &mut Engine,
    images: &[f32],
    output: &mut [f32],
    rounds: usize,
) -> Result<String> {
    let mut operations = engine.profile(Input::F32(images), output)?;
    for _ in 1..rounds {
        let more = engine.profile(Input::F32(images), output)?;
        for (total, more) in operations.iter_mut().zip(more) {
            total.time += more.time;
        }
    }
    Ok(text(&operations, rounds))
}

fn text(operations: &[OperationTime], rounds: usize) -> String {
    let total: f64 = operations.iter().map(|o| o.time.as_secs_f64()).sum();
    let row = |path: &str, kind: &str, multiply_adds: usize, seconds: f64| {
        let rate = (multiply_adds * rounds) as f64 / seconds.max(1e-12) / 1e9;
        vec![
            path.to_owned(),
            kind.to_owned(),
            format!("{:.3} ms", seconds / rounds as f64 * 1e3),
            format!("{:.1} %", seconds / total.max(1e-12) * 100.0),
            format!("{rate:.1} G/s"),
        ]
    };
    let mut rows: Vec<_> = operations
        .iter()
        .map(|o| row(&o.path, &o.kind, o.multiply_adds, o.time.as_secs_f64()))
        .collect();
    let multiply_adds = operations.iter().map(|o| o.multiply_adds).sum();
    rows.push(row("total", "", multiply_adds, total));
    let header = ["operation", "kind", "time", "share", "multiply-adds"];
    format!("\n{}", table(&header, &rows, &[2, 3, 4]))
}
