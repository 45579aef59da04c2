//! What a network computes, step by step, to be compared with another.

use ror_models::blocks::{Block, Layer, Shape3, Shortcut};
use ror_models::{Level, Network, Placed, Visit};

use crate::error::Result;

/// Where two networks part, in a sentence; `None` where no step differs. What is on shortcuts and
/// biases do not count.
pub(super) fn first_difference(from: &Network, to: &Network) -> Result<Option<String>> {
    let (from, to) = (steps(from)?, steps(to)?);
    let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    Ok(match (from.get(common), to.get(common)) {
        (None, None) => None,
        (Some(a), None) => Some(format!(
            "`{}` is {}, there is nothing any more",
            a.path, a.what
        )),
        (None, Some(b)) => Some(format!("there follows `{}`, {}", b.path, b.what)),
        (Some(a), Some(b)) if a.path == b.path => Some(format!(
            "`{}` is {}, there it is {}",
            a.path, a.what, b.what
        )),
        (Some(a), Some(b)) => Some(format!(
            "`{}` is {}, in its place there is `{}`, {}",
            a.path, a.what, b.path, b.what
        )),
    })
}

#[derive(PartialEq)]
struct Step {
    path: String,
    what: String,
}

fn steps(network: &Network) -> Result<Vec<Step>> {
    let mut steps = Steps(Vec::new());
    network.walk(&mut steps)?;
    Ok(steps.0)
}

struct Steps(Vec<Step>);

impl Steps {
    fn push(&mut self, path: &str, what: String) {
        let path = path.to_owned();
        self.0.push(Step { path, what });
    }

    fn sum(&mut self, path: &str, shortcut: &Shortcut, activation: bool) {
        if *shortcut != Shortcut::None {
            let rectified = if activation {
                "rectified"
            } else {
                "not rectified"
            };
            self.push(path, format!("a sum with a shortcut, {rectified}"));
        }
    }
}

impl Visit for Steps {
    fn leave_level(&mut self, path: &str, level: &Level, _output: Shape3) {
        self.sum(path, &level.shortcut, level.activation);
    }

    fn leave_block(&mut self, path: &str, block: &Block, _output: Shape3) {
        self.sum(path, &block.shortcut, block.activation);
    }

    fn layer(&mut self, placed: Placed) {
        if placed.path.contains(".shortcut.") {
            return;
        }
        let what = match *placed.layer {
            Layer::Conv {
                in_channels,
                out_channels,
                kernel,
                stride,
                ..
            } => format!(
                "a {kernel} x {kernel} convolution from {in_channels} to {out_channels} channels \
                 with stride {stride}"
            ),
            Layer::Norm { channels } => format!("a batch norm of {channels} channels"),
            Layer::Relu => "a rectifier".to_owned(),
            Layer::MaxPool { kernel, stride, .. } => {
                format!("a {kernel} x {kernel} max pool with stride {stride}")
            }
            Layer::Dropout { .. } => return,
        };
        self.push(placed.path, what);
    }
}
