//! Random changes to training images, on 8-bit pixels (H, W, 3).
//!
//! What is drawn depends on the generator alone, which the caller makes from seed, epoch and image:
//! the same image of the same epoch looks the same whichever thread prepares it.

mod affine;
mod trivial;

use crate::region::Region;
use crate::{Generator, Size};
use affine::Affine;
use serde::{Deserialize, Serialize};
use trivial::Change;

/// Which changes are made, in the order of the fields. Zeros change nothing.
///
/// ```
/// use ror_data::{Augment, Generator, Size};
///
/// let image = vec![200; 32 * 32 * 3];
/// let mut changed = Vec::new();
/// let generator = Generator::new(1, &[0, 0]);
/// Augment::PAPER.apply(&image, Size::CIFAR, [0; 3], generator, &mut changed);
/// assert_eq!(changed.len(), image.len());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Augment {
    /// Cuts out a random region and scales it to the image's size: at least this share of the area,
    /// up to all of it, with proportions from 3:4 to 4:3 (Szegedy et al., 2015; torchvision's
    /// `RandomResizedCrop`).
    pub resized_crop: f64,
    /// Rotation by up to so many degrees either way; the edge's pixels fill what comes in.
    pub rotate: f64,
    /// Shift by up to this fraction of the height and of the width; filled as for `rotate`.
    pub shift: f64,
    /// So many pixels of padding on each side, of which a random window of the old size is cut.
    pub crop: usize,
    /// Mirrors left and right, every other time.
    pub flip: bool,
    /// One change of fourteen to geometry or colours, at any strength up to this share of the
    /// widest (TrivialAugment; Müller and Hutter, 2021). 1 has the changes and strengths of
    /// torchvision's `TrivialAugmentWide`, but shears are about the middle, and what comes in from
    /// outside is the mean colour. Equalised and spread colours have no strength.
    pub trivial: f64,
    /// Blanks a square of this side around a random pixel (DeVries and Taylor, 2017).
    pub cutout: usize,
}

impl Default for Augment {
    fn default() -> Self {
        Self::NONE
    }
}

impl Augment {
    /// Nothing.
    pub const NONE: Self = Self {
        resized_crop: 0.0,
        rotate: 0.0,
        shift: 0.0,
        crop: 0,
        flip: false,
        trivial: 0.0,
        cutout: 0,
    };

    /// As the Keras implementation of RoR: `ImageDataGenerator` with a rotation range of 15 degrees
    /// and shift ranges of 5/32.
    pub const KERAS: Self = Self {
        rotate: 15.0,
        shift: 5.0 / 32.0,
        ..Self::NONE
    };

    /// As the paper (section 4): four pixels of padding, a random crop, a horizontal flip.
    pub const PAPER: Self = Self {
        crop: 4,
        flip: true,
        ..Self::NONE
    };

    /// As networks for ImageNet are usually trained: a resized crop of 8 to 100 % of the area, a
    /// horizontal flip.
    pub const IMAGENET: Self = Self {
        resized_crop: 0.08,
        flip: true,
        ..Self::NONE
    };

    /// Whether every number is one that [`Augment::apply`] can take; the first that is not, with
    /// what is allowed.
    ///
    /// # Errors
    ///
    /// The field and its allowed range.
    pub fn validate(&self, size: Size) -> Result<(), String> {
        let side = size.height().max(size.width());
        if !(0.0..=1.0).contains(&self.resized_crop) {
            return Err(format!(
                "resized-crop is {}; allowed: 0 to 1",
                self.resized_crop
            ));
        }
        if !(0.0..=180.0).contains(&self.rotate) {
            return Err(format!("rotate is {}; allowed: 0 to 180", self.rotate));
        }
        if !(0.0..=1.0).contains(&self.shift) {
            return Err(format!("shift is {}; allowed: 0 to 1", self.shift));
        }
        if !(0.0..=1.0).contains(&self.trivial) {
            return Err(format!("trivial is {}; allowed: 0 to 1", self.trivial));
        }
        if self.crop > side || self.cutout > 2 * side {
            return Err(format!(
                "crop {} and cutout {} are too large for images of {size}",
                self.crop, self.cutout
            ));
        }
        Ok(())
    }

    /// Changes one image (H, W, 3) into `out`, whose old content is dropped. `fill` is the colour of
    /// what comes in from outside and of blanks: the mean, which is zero once normalised.
    ///
    /// # Panics
    ///
    /// If `image` is smaller than `size` says.
    pub fn apply(
        &self,
        image: &[u8],
        size: Size,
        fill: [u8; 3],
        generator: Generator,
        out: &mut Vec<u8>,
    ) {
        self.apply_from((image, size), size, fill, generator, out);
    }

    /// As [`Augment::apply`], of a picture that may have another size than the result where a
    /// resized crop is made of it.
    pub(crate) fn apply_from(
        &self,
        (picture, from): (&[u8], Size),
        size: Size,
        fill: [u8; 3],
        mut generator: Generator,
        out: &mut Vec<u8>,
    ) {
        let resized = (self.resized_crop > 0.0).then(|| {
            let region = Region::random(from, self.resized_crop, &mut generator);
            region.resized(picture, from, size).into_raw()
        });
        let image = resized.as_deref().unwrap_or(picture);
        let image = &image[..size.area() * 3];
        out.clear();
        let warp = |affine: Affine, out: &mut Vec<u8>| {
            let (pixels, _) = image.as_chunks::<3>();
            out.extend(affine.warp(pixels, size, None).flatten());
        };
        let affine = self.draw_affine(size, &mut generator);
        let (dy, dx) = (
            self.draw_crop(&mut generator),
            self.draw_crop(&mut generator),
        );
        let mirror = self.flip && generator.bits() >> 63 == 1;
        match affine {
            // Windows of a warped image need all of it.
            Some(affine) if (dy, dx) != (0, 0) || mirror => {
                let mut warped = Vec::with_capacity(image.len());
                warp(affine, &mut warped);
                window(&warped, size, (dy, dx), mirror, fill, out);
            }
            Some(affine) => warp(affine, out),
            None => window(image, size, (dy, dx), mirror, fill, out),
        }
        if self.trivial > 0.0 {
            Change::random(self.trivial, &mut generator).apply(out, size, fill);
        }
        if self.cutout > 0 {
            blank(out, size, self.cutout, fill, &mut generator);
        }
    }

    /// The order of the draws is Keras's: angle, rows, columns.
    fn draw_affine(&self, size: Size, generator: &mut Generator) -> Option<Affine> {
        if self.rotate == 0.0 && self.shift == 0.0 {
            return None;
        }
        let angle = generator.within(self.rotate).to_radians();
        let rows = generator.within(self.shift) * size.height() as f64;
        let columns = generator.within(self.shift) * size.width() as f64;
        Some(Affine::keras(size, angle, rows, columns))
    }

    fn draw_crop(&self, generator: &mut Generator) -> isize {
        if self.crop == 0 {
            return 0;
        }
        generator.below(2 * self.crop as u64 + 1) as isize - self.crop as isize
    }
}

/// The window that begins at `(dy, dx)`, mirrored or not; `fill` outside the image.
fn window(
    image: &[u8],
    size: Size,
    (dy, dx): (isize, isize),
    mirror: bool,
    fill: [u8; 3],
    out: &mut Vec<u8>,
) {
    let (h, w) = (size.height(), size.width());
    if (dy, dx) == (0, 0) && !mirror {
        out.extend_from_slice(image);
        return;
    }
    let (pixels, _) = image.as_chunks::<3>();
    for y in 0..h {
        let row = y
            .checked_add_signed(dy)
            .filter(|&y| y < h)
            .map(|y| &pixels[y * w..][..w]);
        for x in 0..w {
            let x = if mirror { w - 1 - x } else { x };
            let at = x.checked_add_signed(dx).filter(|&x| x < w);
            let pixel = match (row, at) {
                (Some(row), Some(x)) => row[x],
                _ => fill,
            };
            out.extend_from_slice(&pixel);
        }
    }
}

/// Blanks a square around a random pixel; the part of it beyond the edge is lost.
fn blank(image: &mut [u8], size: Size, side: usize, fill: [u8; 3], generator: &mut Generator) {
    let (h, w) = (size.height(), size.width());
    let mut span = |length: usize| {
        let centre = generator.below(length as u64) as usize;
        let from = centre.saturating_sub(side / 2);
        let to = (centre + side).saturating_sub(side / 2).min(length);
        from..to
    };
    let (rows, columns) = (span(h), span(w));
    let (pixels, _) = image.as_chunks_mut::<3>();
    for y in rows {
        pixels[y * w..][columns.clone()].fill(fill);
    }
}

#[cfg(test)]
mod tests;
