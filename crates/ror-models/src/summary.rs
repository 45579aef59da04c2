//! Parameters and multiply-adds, level by level, from the description alone.

use crate::network::Level;
use crate::walk::{Placed, Visit};
use crate::{DescriptionError, Network};
use ror_blocks::{Block, Shape3, Shortcut};
use serde::Serialize;
use std::fmt;

/// A part of a network with its counts: a level, a block, the stem or the head.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// The name within the part above.
    pub name: String,
    /// What it is and how its shortcut goes.
    pub kind: String,
    /// The shape after it; `1 x 1` after the head's average pool.
    pub output: Shape3,
    /// Trained parameters, its own and its children's.
    pub parameters: u64,
    /// Multiply-adds for one image, its own and its children's.
    pub multiply_adds: u64,
    /// The parts that it consists of.
    pub children: Vec<Summary>,
}

impl Network {
    /// The counts of every part, as a tree.
    pub fn summary(&self) -> Summary {
        let mut builder = Builder(vec![part("network", self.input_shape())]);
        let walked: Result<(), DescriptionError> = self.walk(&mut builder);
        debug_assert!(walked.is_ok());
        let mut root = builder.0.swap_remove(0);
        root.name = self.description.to_string();
        root
    }

    /// Trained parameters; running statistics do not count.
    pub fn parameters(&self) -> u64 {
        self.summary().parameters
    }

    /// Multiply-adds for one image, of convolutions and the classifier.
    pub fn multiply_adds(&self) -> u64 {
        self.summary().multiply_adds
    }
}

fn part(name: &str, output: Shape3) -> Summary {
    Summary {
        name: name.rsplit('.').next().unwrap_or(name).to_owned(),
        kind: String::new(),
        output,
        parameters: 0,
        multiply_adds: 0,
        children: Vec::new(),
    }
}

/// The open parts, outermost first; never empty.
struct Builder(Vec<Summary>);

impl Builder {
    fn close(&mut self, kind: String, output: Shape3) {
        let Some(mut closed) = self.0.pop() else {
            return;
        };
        closed.kind = kind;
        closed.output = output;
        if let Some(outer) = self.0.last_mut() {
            outer.output = output;
            outer.parameters = outer.parameters.saturating_add(closed.parameters);
            outer.multiply_adds = outer.multiply_adds.saturating_add(closed.multiply_adds);
            outer.children.push(closed);
        }
    }

    fn add(&mut self, parameters: u64, multiply_adds: u64) {
        if let Some(open) = self.0.last_mut() {
            open.parameters = open.parameters.saturating_add(parameters);
            open.multiply_adds = open.multiply_adds.saturating_add(multiply_adds);
        }
    }
}

impl Visit for Builder {
    fn enter_level(&mut self, path: &str, _level: &Level, input: Shape3) {
        self.0.push(part(path, input));
    }

    fn leave_level(&mut self, _path: &str, level: &Level, output: Shape3) {
        self.close(
            kind("level", &level.shortcut, level.activation, 1.0),
            output,
        );
    }

    fn enter_block(&mut self, path: &str, _block: &Block, input: Shape3) {
        self.0.push(part(path, input));
    }

    fn leave_block(&mut self, _path: &str, block: &Block, output: Shape3) {
        let kind = kind("block", &block.shortcut, block.activation, block.survival);
        self.close(kind, output);
    }

    fn enter_part(&mut self, name: &str, input: Shape3) {
        self.0.push(part(name, input));
    }

    fn leave_part(&mut self, name: &str, output: Shape3) {
        self.close(name.to_owned(), output);
    }

    fn layer(&mut self, placed: Placed) {
        self.add(
            placed.layer.parameters(),
            placed.layer.multiply_adds(placed.output),
        );
    }

    fn dense(&mut self, _path: &str, features: usize, classes: usize) {
        let product = features as u64 * classes as u64;
        self.add(product + classes as u64, product);
    }
}

fn kind(what: &str, shortcut: &Shortcut, activation: bool, survival: f64) -> String {
    let mut text = match *shortcut {
        Shortcut::None => format!("{what}, no shortcut"),
        Shortcut::Identity => format!("{what} + identity"),
        Shortcut::Pad { stride, .. } => format!("{what} + zero-padded{}", strided(stride)),
        Shortcut::Projection(p) => format!(
            "{what} + projection{}{}",
            strided(p.stride),
            if p.norm { "-BN" } else { "" }
        ),
    };
    if activation {
        text.push_str(", ReLU");
    }
    if survival < 1.0 {
        text.push_str(&format!(", survives {survival:.3}"));
    }
    text
}

fn strided(stride: usize) -> String {
    if stride == 1 {
        String::new()
    } else {
        format!(" /{stride}")
    }
}

impl fmt::Display for Summary {
    /// A table with a line per part, indented by nesting.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn rows(part: &Summary, depth: usize, into: &mut Vec<[String; 5]>) {
            into.push([
                format!("{}{}", "  ".repeat(depth), part.name),
                part.kind.clone(),
                part.output.to_string(),
                grouped(part.parameters),
                grouped(part.multiply_adds),
            ]);
            for child in &part.children {
                rows(child, depth + 1, into);
            }
        }
        let header = ["part", "kind", "output", "parameters", "multiply-adds"];
        let mut table = vec![header.map(str::to_owned)];
        rows(self, 0, &mut table);
        let width = |column: usize| table.iter().map(|r| r[column].len()).max().unwrap_or(0);
        let w: Vec<usize> = (0..5).map(width).collect();
        for [name, kind, output, parameters, multiply_adds] in &table {
            writeln!(
                f,
                "{name:<a$}  {kind:<b$}  {output:<c$}  {parameters:>d$}  {multiply_adds:>e$}",
                a = w[0],
                b = w[1],
                c = w[2],
                d = w[3],
                e = w[4]
            )?;
        }
        Ok(())
    }
}

/// Digits in groups of three.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
