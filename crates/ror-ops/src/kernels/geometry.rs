//! The shape of a convolution and its weights as they lie in memory.

use super::blocked::{Block, Dims, LANES, blocks, channel_blocks, shape_error};
use super::error::{Result, check_len, product};

/// The shape of a convolution: square strides, equal padding on all sides, no dilation, no groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Geometry {
    /// Input channels.
    pub inputs: usize,
    /// Output channels.
    pub outputs: usize,
    /// Rows and columns of the kernel.
    pub kernel: (usize, usize),
    /// Pixels from an output's input to the next one's.
    pub stride: usize,
    /// Zeros around the image.
    pub padding: usize,
}

impl Geometry {
    /// The shape of the output for an input of shape `input`.
    ///
    /// # Errors
    /// Another number of channels; an image smaller than the kernel; a size that overflows.
    pub fn output(&self, input: Dims) -> Result<Dims> {
        if input.c != self.inputs {
            let why = format!("expected {} channels, found {}", self.inputs, input.c);
            return Err(shape_error("convolution input", why));
        }
        let side = |size: usize, kernel: usize| {
            let padded = product("convolution input", &[self.padding, 2])?.saturating_add(size);
            match padded.checked_sub(kernel) {
                Some(rest) if size > 0 && kernel > 0 && self.stride > 0 => {
                    Ok(rest / self.stride + 1)
                }
                _ => Err(shape_error(
                    "convolution input",
                    format!("{padded} pixels for a kernel of {kernel}"),
                )),
            }
        };
        Ok(Dims {
            c: self.outputs,
            h: side(input.h, self.kernel.0)?,
            w: side(input.w, self.kernel.1)?,
            ..input
        })
    }

    /// Multiply-adds for one image of `h` rows and `w` columns.
    ///
    /// # Errors
    /// An image smaller than the kernel; a size that overflows.
    pub fn multiply_adds(&self, h: usize, w: usize) -> Result<usize> {
        let out = self.output(Dims::new(1, self.inputs, h, w))?;
        product(
            "multiply-adds",
            &[
                out.h,
                out.w,
                self.inputs,
                self.outputs,
                self.kernel.0,
                self.kernel.1,
            ],
        )
    }

    /// Checks weights and bias; returns the bias in blocks.
    pub(super) fn check(&self, weight: &[f32], bias: Option<&[f32]>) -> Result<Vec<Block>> {
        let Self {
            inputs,
            outputs,
            kernel: (kh, kw),
            stride,
            ..
        } = *self;
        if inputs == 0 || outputs == 0 || kh == 0 || kw == 0 || stride == 0 {
            return Err(shape_error(
                "convolution",
                format!("a size of zero in {self:?}"),
            ));
        }
        // The most that any packing takes.
        let padded = product(
            "weight",
            &[blocks(inputs), LANES, blocks(outputs), LANES, kh, kw],
        )?;
        product("weight", &[padded, 4])?;
        check_len("weight", inputs * outputs * kh * kw, weight.len())?;
        Ok(match bias {
            Some(bias) => {
                check_len("bias", outputs, bias.len())?;
                channel_blocks(bias)
            }
            None => vec![Block::ZERO; blocks(outputs)],
        })
    }

    /// Whether it is one that tiles can compute, and of which stride.
    pub(super) fn winograd_stride(&self) -> Option<usize> {
        let fits = self.kernel == (3, 3) && self.padding == 1 && self.stride <= 2;
        fits.then_some(self.stride)
    }
}

/// The weights of a convolution as they lie in memory.
#[derive(Clone, Copy)]
pub(super) struct Filters<'a> {
    pub data: &'a [f32],
    pub inputs: usize,
    pub outputs: usize,
    pub taps: usize,
    /// Whether `data` is that of a convolution whose input gradient this one computes: inputs and outputs have
    /// changed places, and the taps are in reverse.
    pub transposed: bool,
}

impl Filters<'_> {
    #[inline(always)]
    pub(super) fn at(&self, o: usize, c: usize, tap: usize) -> f32 {
        if self.transposed {
            self.data[(c * self.outputs + o) * self.taps + self.taps - 1 - tap]
        } else {
            self.data[(o * self.inputs + c) * self.taps + tap]
        }
    }
}
