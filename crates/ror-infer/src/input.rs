//! Images as the caller has them.

use crate::{Error, Result};
use ror_ops::kernels::Plain;

/// A batch of images.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// Normalised values, N, C, H, W.
    F32(&'a [f32]),
    /// 8-bit pixels, N, H, W, C, and how they become values.
    U8(&'a [u8], &'a Normalisation),
}

/// `(pixel / 255 - mean) / deviation` per channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Normalisation {
    scale: Vec<f32>,
    shift: Vec<f32>,
}

impl Normalisation {
    /// With a mean and a deviation per channel, of pixels scaled to 0..1.
    ///
    /// # Errors
    /// Not as many of both, a mean that is not finite, a deviation that is not positive.
    pub fn new(mean: &[f32], deviation: &[f32]) -> Result<Self> {
        let scale: Vec<f32> = deviation.iter().map(|&d| 1.0 / (255.0 * d)).collect();
        let shift: Vec<f32> = mean.iter().zip(deviation).map(|(&m, &d)| -m / d).collect();
        let sound = mean.len() == deviation.len()
            && deviation.iter().all(|&d| d > 0.0)
            && scale.iter().chain(&shift).all(|v| v.is_finite());
        if sound {
            Ok(Self { scale, shift })
        } else {
            Err(Error::Normalisation {
                channels: mean.len(),
            })
        }
    }
}

impl<'a> Input<'a> {
    /// The number of images of `each` values in `channels` channels.
    pub(crate) fn check(&self, each: usize, channels: usize) -> Result<usize> {
        let found = match self {
            Self::F32(values) => values.len(),
            Self::U8(pixels, normalisation) => {
                if normalisation.scale.len() != channels {
                    return Err(Error::Normalisation { channels });
                }
                pixels.len()
            }
        };
        let n = found / each;
        check_len("images", n, each, found)?;
        Ok(n)
    }

    /// Some of the images, each of that many values.
    pub(crate) fn images(self, range: std::ops::Range<usize>, each: usize) -> Plain<'a> {
        let range = range.start * each..range.end * each;
        match self {
            Self::F32(values) => Plain::F32(&values[range]),
            Self::U8(pixels, normalisation) => Plain::U8 {
                pixels: &pixels[range],
                scale: &normalisation.scale,
                shift: &normalisation.shift,
            },
        }
    }
}

/// Fails unless `found` values make `n` times `each`.
pub(crate) fn check_len(what: &'static str, n: usize, each: usize, found: usize) -> Result<()> {
    let expected = n.saturating_mul(each);
    if found == expected {
        Ok(())
    } else {
        Err(Error::Length {
            what,
            images: n,
            each,
            expected,
            found,
        })
    }
}
