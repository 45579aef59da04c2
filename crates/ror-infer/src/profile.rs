//! Where the time goes.

use crate::program::{Head, Kernel, Operation, Program};
use ror_ops::kernels::{Algorithm, Dense};
use std::time::Duration;

/// What one operation took in a run.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct OperationTime {
    /// The place in the network, `root.group2.block3.conv1`.
    pub path: String,
    /// What it is, `3x3 64-64 16x16 winograd4 +shortcut`.
    pub kind: String,
    /// Multiply-adds of the layer for the whole batch, as a direct convolution counts them.
    pub multiply_adds: usize,
    /// Time that the threads spent in it: the sum over threads that had images of their own, the elapsed time where
    /// all worked on one image.
    pub time: Duration,
}

/// Sums the workers' times.
pub(crate) fn times(
    program: &Program,
    spent: &[Vec<Duration>],
    images: usize,
) -> Vec<OperationTime> {
    let total = |i: usize| spent.iter().map(|times| times[i]).sum();
    let operations = program.operations.iter().enumerate();
    let mut times: Vec<_> = operations
        .map(|(i, operation)| OperationTime {
            path: operation.path.clone(),
            kind: kind(operation),
            multiply_adds: operation.multiply_adds * images,
            time: total(i),
        })
        .collect();
    times.push(OperationTime {
        path: "head".to_owned(),
        kind: "average pool, classifier".to_owned(),
        multiply_adds: program.head.multiply_adds() * images,
        time: total(program.operations.len()),
    });
    times
}

impl Head {
    pub(crate) fn multiply_adds(&self) -> usize {
        let dense = self.dense.as_ref();
        dense.map_or(0, |d: &Dense| d.inputs() * d.outputs())
    }
}

fn kind(operation: &Operation) -> String {
    let (from, to) = (operation.from, operation.to);
    let conv = |kernel: (usize, usize), stride: usize, how: &str| {
        let stride = if stride == 1 {
            String::new()
        } else {
            format!("/{stride}")
        };
        let (kh, kw) = kernel;
        format!(
            "{kh}x{kw}{stride} {}-{} {}x{} {how}",
            from.c, to.c, to.h, to.w
        )
    };
    let mut text = match &operation.kernel {
        Kernel::Stem(stem) => {
            let g = stem.0.geometry();
            conv(g.kernel, g.stride, "stem")
        }
        Kernel::Conv(c) => {
            let how = match c.algorithm() {
                Algorithm::Winograd4 => "winograd4",
                Algorithm::Winograd2 => "winograd2",
                Algorithm::Direct => "direct",
            };
            conv(c.geometry().kernel, c.geometry().stride, how)
        }
        Kernel::Merge(_) => format!("sum {} {}x{}", to.c, to.h, to.w),
        Kernel::MaxPool(p) => format!(
            "max pool {0}x{0}/{1} {2} {3}x{4}",
            p.size, p.stride, to.c, to.h, to.w
        ),
        Kernel::Pad { .. } => format!("zero pad {}-{} {}x{}", from.c, to.c, to.h, to.w),
    };
    match operation.terms.len() {
        0 => {}
        1 => text.push_str(" +shortcut"),
        n => text.push_str(&format!(" +{n} shortcuts")),
    }
    if operation.pool {
        text.push_str(" +pool");
    }
    if operation.preact.is_some() {
        text.push_str(" +preact");
    }
    text
}
