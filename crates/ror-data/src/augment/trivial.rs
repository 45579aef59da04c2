//! One change of fourteen at a random strength: TrivialAugment (Müller and Hutter, 2021, in its
//! wide space, as torchvision's `TrivialAugmentWide`). What a change does is Pillow's definition, but
//! for a pixel here and there of rotations and shears, which Pillow computes with 16 bits.

use super::affine::{Affine, rotation};
use crate::{Generator, Size};

/// A change to a picture's geometry or colours; the field is its strength.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(test, derive(serde::Deserialize))]
pub(super) enum Change {
    Identity,
    /// Each row moves by this share of its distance from the middle.
    ShearX(f64),
    ShearY(f64),
    /// Pixels to the left.
    TranslateX(f64),
    TranslateY(f64),
    /// Degrees against the clock.
    Rotate(f64),
    /// The next four go from something flat (0) over the picture (1) to its opposite (2).
    Brightness(f64),
    Colour(f64),
    Contrast(f64),
    Sharpness(f64),
    /// Keeps so many bits of every channel.
    Posterise(u32),
    /// Inverts what is at least so bright.
    Solarise(u8),
    AutoContrast,
    Equalise,
}

impl Change {
    /// Any of the fourteen, as likely as the others, at any strength up to the share `most` of the
    /// widest.
    pub(super) fn random(most: f64, generator: &mut Generator) -> Self {
        let which = generator.below(14);
        let strength = generator.unit() * most;
        let signed = if generator.bits() >> 63 == 1 {
            -strength
        } else {
            strength
        };
        match which {
            0 => Self::ShearX(0.99 * signed),
            1 => Self::ShearY(0.99 * signed),
            2 => Self::TranslateX(32.0 * signed),
            3 => Self::TranslateY(32.0 * signed),
            4 => Self::Rotate(135.0 * signed),
            5 => Self::Brightness(1.0 + 0.99 * signed),
            6 => Self::Colour(1.0 + 0.99 * signed),
            7 => Self::Contrast(1.0 + 0.99 * signed),
            8 => Self::Sharpness(1.0 + 0.99 * signed),
            9 => Self::Posterise(8 - (6.0 * strength).round() as u32),
            10 => Self::Solarise((255.0 * (1.0 - strength)) as u8),
            11 => Self::AutoContrast,
            12 => Self::Equalise,
            _ => Self::Identity,
        }
    }

    /// Changes a picture (H, W, 3); `fill` is what comes in from outside.
    pub(super) fn apply(self, image: &mut [u8], size: Size, fill: [u8; 3]) {
        let (pixels, _) = image.as_chunks_mut::<3>();
        let one = [[1.0, 0.0], [0.0, 1.0]];
        let mut warp = |matrix, shift| {
            let affine = Affine::about_middle(size, matrix, shift);
            let source = pixels.to_vec();
            let warped = affine.warp(&source, size, Some(fill));
            pixels
                .iter_mut()
                .zip(warped)
                .for_each(|(to, from)| *to = from);
        };
        match self {
            Self::Identity => {}
            Self::ShearX(by) => warp([[1.0, 0.0], [by, 1.0]], [0.0; 2]),
            Self::ShearY(by) => warp([[1.0, by], [0.0, 1.0]], [0.0; 2]),
            Self::TranslateX(by) => warp(one, [0.0, by]),
            Self::TranslateY(by) => warp(one, [by, 0.0]),
            Self::Rotate(degrees) => warp(rotation(-degrees.to_radians()), [0.0; 2]),
            Self::Brightness(factor) => blend(pixels, factor, |_| [0; 3]),
            Self::Colour(factor) => blend(pixels, factor, |pixel| [grey(pixel); 3]),
            Self::Contrast(factor) => {
                let sum: u64 = pixels.iter().map(|&p| u64::from(grey(p))).sum();
                let mean = sum as f64 / pixels.len().max(1) as f64;
                blend(pixels, factor, |_| [(mean + 0.5) as u8; 3]);
            }
            Self::Sharpness(factor) => sharpen(pixels, size, factor),
            Self::Posterise(bits) => {
                let mask = !(0xff_u16 >> bits.min(8)) as u8;
                map(pixels, |_, value| value & mask);
            }
            Self::Solarise(threshold) => {
                map(pixels, |_, value| {
                    if value < threshold {
                        value
                    } else {
                        255 - value
                    }
                });
            }
            Self::AutoContrast => auto_contrast(pixels),
            Self::Equalise => equalise(pixels),
        }
    }
}

/// From `flat` (factor 0) over the picture itself (1) away from `flat`.
fn blend(pixels: &mut [[u8; 3]], factor: f64, flat: impl Fn([u8; 3]) -> [u8; 3]) {
    for pixel in pixels {
        *pixel = between(flat(*pixel), *pixel, factor);
    }
}

fn between(flat: [u8; 3], pixel: [u8; 3], factor: f64) -> [u8; 3] {
    std::array::from_fn(|c| {
        let flat = f32::from(flat[c]);
        // Rounded down; `as` keeps what is outside of 0..=255 inside.
        (flat + factor as f32 * (f32::from(pixel[c]) - flat)) as u8
    })
}

/// ITU-R 601-2's luma.
fn grey([r, g, b]: [u8; 3]) -> u8 {
    let [r, g, b] = [r, g, b].map(u32::from);
    ((r * 19_595 + g * 38_470 + b * 7_471 + 0x8000) >> 16) as u8
}

/// Away from or towards a mean of nine pixels in which the middle has a weight of 5; the outermost
/// pixels stay.
fn sharpen(pixels: &mut [[u8; 3]], size: Size, factor: f64) {
    let (h, w) = (size.height(), size.width());
    let source = pixels.to_vec();
    for y in 1..h.saturating_sub(1) {
        for x in 1..w.saturating_sub(1) {
            let smooth = std::array::from_fn(|c| {
                let row = |y: usize| -> u32 {
                    let row = &source[y * w + x - 1..][..3];
                    row.iter().map(|p| u32::from(p[c])).sum()
                };
                let sum = row(y - 1) + row(y) + row(y + 1) + 4 * u32::from(source[y * w + x][c]);
                (f64::from(sum) / 13.0 + 0.5) as u8
            });
            pixels[y * w + x] = between(smooth, source[y * w + x], factor);
        }
    }
}

/// Spreads each channel over all of 0..=255.
fn auto_contrast(pixels: &mut [[u8; 3]]) {
    let tables: [[u8; 256]; 3] = std::array::from_fn(|c| {
        let values = || pixels.iter().map(|p| p[c]);
        let (Some(low), Some(high)) = (values().min(), values().max()) else {
            return identity();
        };
        if low == high {
            return identity();
        }
        let scale = 255.0 / f64::from(high - low);
        let offset = -f64::from(low) * scale;
        std::array::from_fn(|v| (v as f64 * scale + offset) as u8)
    });
    map(pixels, |c, value| tables[c][usize::from(value)]);
}

/// Makes all values of each channel as frequent.
fn equalise(pixels: &mut [[u8; 3]]) {
    let tables: [[u8; 256]; 3] = std::array::from_fn(|c| {
        let mut counts = [0usize; 256];
        for pixel in pixels.iter() {
            counts[usize::from(pixel[c])] += 1;
        }
        let last = counts.iter().rev().find(|&&n| n > 0).copied().unwrap_or(0);
        let step = (pixels.len() - last) / 255;
        if step == 0 {
            return identity();
        }
        let mut below = step / 2;
        counts.map(|count| {
            let value = (below / step).min(255) as u8;
            below += count;
            value
        })
    });
    map(pixels, |c, value| tables[c][usize::from(value)]);
}

fn identity() -> [u8; 256] {
    std::array::from_fn(|value| value as u8)
}

fn map(pixels: &mut [[u8; 3]], change: impl Fn(usize, u8) -> u8) {
    for pixel in pixels {
        *pixel = std::array::from_fn(|c| change(c, pixel[c]));
    }
}

#[cfg(test)]
mod tests;
