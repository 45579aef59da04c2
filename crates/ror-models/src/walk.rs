//! One walk over the tree for everything that needs each layer in its place.

use crate::network::{Level, Member};
use crate::{DescriptionError, Network};
use ror_blocks::{Block, NamedLayer, Shape3, ShapeError, Shortcut};

/// A layer at its place in the network.
#[derive(Debug, Clone, Copy)]
pub struct Placed<'a> {
    /// The full name, `root.group2.block3.conv1`.
    pub path: &'a str,
    /// The layer.
    pub layer: &'a ror_blocks::Layer,
    /// The shape that reaches it.
    pub input: Shape3,
    /// The shape that leaves it.
    pub output: Shape3,
}

/// What the walk tells. Members come in the order of computation; a level's or block's shortcut
/// comes after its body.
pub trait Visit {
    /// A level begins.
    fn enter_level(&mut self, _path: &str, _level: &Level, _input: Shape3) {}
    /// A level ends with its sum.
    fn leave_level(&mut self, _path: &str, _level: &Level, _output: Shape3) {}
    /// A block begins.
    fn enter_block(&mut self, _path: &str, _block: &Block, _input: Shape3) {}
    /// A block ends with its sum.
    fn leave_block(&mut self, _path: &str, _block: &Block, _output: Shape3) {}
    /// The stem or the head begins.
    fn enter_part(&mut self, _name: &str, _input: Shape3) {}
    /// The stem or the head ends.
    fn leave_part(&mut self, _name: &str, _output: Shape3) {}
    /// A layer of a body, a projection, the stem or the head.
    fn layer(&mut self, _placed: Placed) {}
    /// The linear classifier, after the global average pool.
    fn dense(&mut self, _path: &str, _features: usize, _classes: usize) {}
}

impl Network {
    /// Walks the network in the order of computation, with the shapes for images of the size that
    /// the description names.
    ///
    /// # Errors
    /// A layer that cannot take the shape that reaches it (never for an expanded description).
    pub fn walk(&self, visitor: &mut dyn Visit) -> Result<(), DescriptionError> {
        self.walk_from(self.input_shape(), visitor)
    }

    /// Like [`Network::walk`], for images of another size.
    ///
    /// # Errors
    /// A size that some layer cannot take.
    pub fn walk_from(
        &self,
        input: Shape3,
        visitor: &mut dyn Visit,
    ) -> Result<(), DescriptionError> {
        visitor.enter_part("stem", input);
        let x = layers(&self.stem, "stem", input, visitor)?;
        visitor.leave_part("stem", x);
        let x = level(&self.root, &self.root.name, x, visitor)?;
        visitor.enter_part("head", x);
        let x = layers(&self.head.layers, "head", x, visitor)?;
        if let Some(classes) = self.head.classes {
            visitor.dense("head.dense", x.channels, classes);
        }
        let pooled = Shape3 {
            channels: self.head.classes.unwrap_or(x.channels),
            height: 1,
            width: 1,
        };
        visitor.leave_part("head", pooled);
        Ok(())
    }

    pub(crate) fn check_shapes(&self) -> Result<(), DescriptionError> {
        struct Nothing;
        impl Visit for Nothing {}
        self.walk(&mut Nothing)
    }
}

fn layers(
    layers: &[NamedLayer],
    path: &str,
    input: Shape3,
    visitor: &mut dyn Visit,
) -> Result<Shape3, ShapeError> {
    let mut x = input;
    for named in layers {
        let output = named.output(x)?;
        visitor.layer(Placed {
            path: &format!("{path}.{}", named.name),
            layer: &named.layer,
            input: x,
            output,
        });
        x = output;
    }
    Ok(x)
}

fn level(
    level: &Level,
    path: &str,
    input: Shape3,
    visitor: &mut dyn Visit,
) -> Result<Shape3, ShapeError> {
    visitor.enter_level(path, level, input);
    let mut x = input;
    for member in &level.body {
        x = match member {
            Member::Level(inner) => {
                self::level(inner, &format!("{path}.{}", inner.name), x, visitor)?
            }
            Member::Block(inner) => block(inner, &format!("{path}.{}", inner.name), x, visitor)?,
            Member::Layer(named) => layers(std::slice::from_ref(named), path, x, visitor)?,
        };
    }
    sum(&level.shortcut, path, input, x, visitor)?;
    visitor.leave_level(path, level, x);
    Ok(x)
}

fn block(
    block: &Block,
    path: &str,
    input: Shape3,
    visitor: &mut dyn Visit,
) -> Result<Shape3, ShapeError> {
    visitor.enter_block(path, block, input);
    let x = layers(&block.body, path, input, visitor)?;
    sum(&block.shortcut, path, input, x, visitor)?;
    visitor.leave_block(path, block, x);
    Ok(x)
}

/// Checks that the shortcut from `input` arrives in the shape of the body's result.
fn sum(
    shortcut: &Shortcut,
    path: &str,
    input: Shape3,
    body: Shape3,
    visitor: &mut dyn Visit,
) -> Result<(), ShapeError> {
    let arrives = match *shortcut {
        Shortcut::None => body,
        Shortcut::Identity => input,
        Shortcut::Pad { stride, channels } => Shape3 {
            channels,
            // A stride of zero is refused where it is computed.
            height: input.height.div_ceil(stride.max(1)),
            width: input.width.div_ceil(stride.max(1)),
        },
        Shortcut::Projection(_) => layers(
            &shortcut.layers(),
            &format!("{path}.shortcut"),
            input,
            visitor,
        )?,
    };
    if arrives == body {
        Ok(())
    } else {
        Err(ShapeError {
            layer: format!("{path}.shortcut"),
            input,
            reason: format!("it arrives as {arrives}, the body's result is {body}"),
        })
    }
}
