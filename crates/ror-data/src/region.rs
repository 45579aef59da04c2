//! A part of a picture.

use image::imageops::{self, FilterType};
use image::{ImageBuffer, Rgb, RgbImage};

use crate::generator::Generator;
use crate::image::Size;

/// The least and the most that a random region is wide for its height.
const RATIO: [f64; 2] = [3.0 / 4.0, 4.0 / 3.0];
/// How often a region is drawn before the centre is taken.
const TRIES: usize = 10;

/// A rectangle of pixels inside a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Region {
    pub(crate) top: usize,
    pub(crate) left: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
}

impl Region {
    /// The largest centred region of `from` with the proportions of `to`.
    pub(crate) fn centred(from: Size, to: Size) -> Self {
        let [fh, fw, th, tw] = [from.height(), from.width(), to.height(), to.width()];
        // Rounded; never above `limit`, and never zero. Sides are below 2^16.
        let side = |n: usize, d: usize, limit: usize| ((n + d / 2) / d).clamp(1, limit);
        let (height, width) = if fw * th > fh * tw {
            (fh, side(fh * tw, th, fw))
        } else {
            (side(fw * th, tw, fh), fw)
        };
        Self::middle(from, height, width)
    }

    /// A random region of `from`: its area at least the share `least` of the whole, and as likely to
    /// be any up to all of it; the logarithm of its proportions as likely any between 3:4 and 4:3.
    ///
    /// The algorithm of torchvision's `RandomResizedCrop`: what does not fit is drawn again, and
    /// after ten times the largest centred region is taken whose proportions are allowed.
    pub(crate) fn random(from: Size, least: f64, generator: &mut Generator) -> Self {
        let mut between = |low: f64, high: f64| low + (high - low) * generator.unit();
        let (h, w) = (from.height() as f64, from.width() as f64);
        let [low, high] = RATIO.map(libm::log);
        let fitting = (0..TRIES).find_map(|_| {
            let area = h * w * between(least, 1.0);
            let ratio = libm::exp(between(low, high));
            let width = (area * ratio).sqrt().round_ties_even();
            let height = (area / ratio).sqrt().round_ties_even();
            let fits = (1.0..=w).contains(&width) && (1.0..=h).contains(&height);
            fits.then_some((height as usize, width as usize))
        });
        let Some((height, width)) = fitting else {
            let [narrow, wide] = RATIO;
            let (height, width) = if w / h < narrow {
                ((w / narrow).round_ties_even(), w)
            } else if w / h > wide {
                (h, (h * wide).round_ties_even())
            } else {
                (h, w)
            };
            return Self::middle(from, height as usize, width as usize);
        };
        let mut offset = |free: usize| generator.below(free as u64 + 1) as usize;
        Self {
            top: offset(from.height() - height),
            left: offset(from.width() - width),
            height,
            width,
        }
    }

    fn middle(from: Size, height: usize, width: usize) -> Self {
        Self {
            top: (from.height() - height) / 2,
            left: (from.width() - width) / 2,
            height,
            width,
        }
    }

    /// This region of a picture's pixels (H, W, 3), scaled: bilinear, widening when it shrinks.
    pub(crate) fn resized(&self, pixels: &[u8], from: Size, to: Size) -> RgbImage {
        // Sides of a `Size` fit u32.
        let [fh, fw, th, tw] =
            [from.height(), from.width(), to.height(), to.width()].map(|n| n as u32);
        let [top, left, height, width] =
            [self.top, self.left, self.height, self.width].map(|n| n as u32);
        let Some(whole) = ImageBuffer::<Rgb<u8>, &[u8]>::from_raw(fw, fh, pixels) else {
            return RgbImage::new(tw, th);
        };
        let region = imageops::crop_imm(&whole, left, top, width, height);
        imageops::resize(&*region, tw, th, FilterType::Triangle)
    }
}

#[cfg(test)]
mod tests;
