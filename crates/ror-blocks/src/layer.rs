//! The layers that bodies and shortcuts consist of, as plain data.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The size of one image's activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape3 {
    /// Channels.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Shape3 {
    /// How many values one image has.
    pub fn elements(&self) -> usize {
        self.channels * self.height * self.width
    }
}

impl fmt::Display for Shape3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x {} x {}", self.channels, self.height, self.width)
    }
}

/// A layer that cannot take the shape it is given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{layer}` cannot take an input of {input}: {reason}")]
pub struct ShapeError {
    /// The layer's name.
    pub layer: String,
    /// The shape that reached it.
    pub input: Shape3,
    /// What it expected.
    pub reason: String,
}

/// One layer. Convolutions pad with zeros, windows are square.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "layer", rename_all = "kebab-case")]
pub enum Layer {
    /// Cross-correlation with a `kernel` x `kernel` window.
    Conv {
        /// Input channels.
        in_channels: usize,
        /// Output channels.
        out_channels: usize,
        /// Rows and columns of the window.
        kernel: usize,
        /// Step of the window.
        stride: usize,
        /// Zero rows and columns added on each side.
        padding: usize,
        /// Whether a bias is added.
        bias: bool,
    },
    /// Batch normalisation; its constants are the network's.
    Norm {
        /// Channels.
        channels: usize,
    },
    /// `max(x, 0)`.
    Relu,
    /// Maximum of each window; padding never wins.
    MaxPool {
        /// Rows and columns of the window.
        kernel: usize,
        /// Step of the window.
        stride: usize,
        /// Rows and columns added on each side.
        padding: usize,
    },
    /// In training, zeroes values with this probability and scales the others up.
    Dropout {
        /// Probability of zeroing, below 1.
        rate: f64,
    },
}

impl Layer {
    /// A convolution that keeps the image's size at stride 1 (odd `kernel`).
    pub fn conv(
        in_channels: usize,
        out_channels: usize,
        kernel: usize,
        stride: usize,
        bias: bool,
    ) -> Self {
        Self::Conv {
            in_channels,
            out_channels,
            kernel,
            stride,
            padding: kernel / 2,
            bias,
        }
    }

    /// The shape after this layer.
    fn output(&self, input: Shape3) -> Result<Shape3, String> {
        let window = |size: usize, kernel: usize, stride: usize, padding: usize| {
            let room = size.saturating_add(padding.saturating_mul(2));
            let room = room.checked_sub(kernel);
            room.and_then(|room| room.checked_div(stride))
                .map(|steps| steps + 1)
                .ok_or_else(|| {
                    format!(
                        "a {kernel} x {kernel} window in steps of {stride} does not fit the image"
                    )
                })
        };
        let channels = |expected: usize| {
            if input.channels == expected {
                Ok(())
            } else {
                Err(format!("expected {expected} channels"))
            }
        };
        match *self {
            Self::Conv {
                in_channels,
                out_channels,
                kernel,
                stride,
                padding,
                ..
            } => {
                channels(in_channels)?;
                Ok(Shape3 {
                    channels: out_channels,
                    height: window(input.height, kernel, stride, padding)?,
                    width: window(input.width, kernel, stride, padding)?,
                })
            }
            Self::MaxPool {
                kernel,
                stride,
                padding,
            } => Ok(Shape3 {
                channels: input.channels,
                height: window(input.height, kernel, stride, padding)?,
                width: window(input.width, kernel, stride, padding)?,
            }),
            Self::Norm { channels: expected } => channels(expected).map(|()| input),
            Self::Relu | Self::Dropout { .. } => Ok(input),
        }
    }

    /// Parameters that training changes.
    pub fn parameters(&self) -> u64 {
        match *self {
            Self::Conv {
                in_channels,
                out_channels,
                kernel,
                bias,
                ..
            } => {
                let kernels = (kernel * kernel) as u64 * in_channels as u64 * out_channels as u64;
                kernels + if bias { out_channels as u64 } else { 0 }
            }
            Self::Norm { channels } => 2 * channels as u64,
            Self::Relu | Self::MaxPool { .. } | Self::Dropout { .. } => 0,
        }
    }

    /// Multiply-adds for one image whose shape after this layer is `output`. Convolutions count,
    /// element-wise work does not.
    pub fn multiply_adds(&self, output: Shape3) -> u64 {
        match *self {
            Self::Conv {
                in_channels,
                kernel,
                ..
            } => (output.elements() as u64).saturating_mul((kernel * kernel * in_channels) as u64),
            _ => 0,
        }
    }
}

/// A layer with its name within its level.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NamedLayer {
    /// The name, `conv1` for example.
    pub name: String,
    /// The layer.
    #[serde(flatten)]
    pub layer: Layer,
}

impl NamedLayer {
    /// Names a layer.
    pub fn new(name: impl Into<String>, layer: Layer) -> Self {
        Self {
            name: name.into(),
            layer,
        }
    }

    /// The shape after this layer.
    ///
    /// # Errors
    /// Channels or an image size that the layer cannot take.
    pub fn output(&self, input: Shape3) -> Result<Shape3, ShapeError> {
        self.layer.output(input).map_err(|reason| ShapeError {
            layer: self.name.clone(),
            input,
            reason,
        })
    }
}
