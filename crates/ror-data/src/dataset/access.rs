//! Handing out images, from memory or from files.

use std::borrow::Cow;

use rayon::prelude::*;

use super::{Dataset, Store};
use crate::augment::Augment;
use crate::error::{Error, ErrorKind, Result};
use crate::generator::Generator;
use crate::image::Image;
use crate::normalisation::Normalisation;

impl Dataset {
    /// Whether images are decoded each time they are asked for.
    pub fn is_lazy(&self) -> bool {
        matches!(self.store, Store::Files { .. })
    }

    /// The pixels of an image, (H, W, 3).
    ///
    /// # Errors
    ///
    /// A file that cannot be decoded.
    ///
    /// # Panics
    ///
    /// If there is no such image.
    pub fn image(&self, index: usize) -> Result<Cow<'_, [u8]>> {
        match &self.store {
            Store::Memory(images) => Ok(Cow::Borrowed(self.pixels(images, index))),
            Store::Files { .. } => Ok(Cow::Owned(self.picture(index)?.into_pixels())),
        }
    }

    /// An image with the size that it had before it was fitted, where that is still known.
    ///
    /// # Errors
    ///
    /// As [`Dataset::image`].
    ///
    /// # Panics
    ///
    /// If there is no such image.
    pub fn picture(&self, index: usize) -> Result<Image> {
        match &self.store {
            Store::Memory(images) => {
                let pixels = self.pixels(images, index).to_vec();
                let values = pixels.len();
                Image::from_pixels(pixels, self.size).ok_or_else(|| {
                    let shape = vec![self.size.height(), self.size.width(), 3];
                    Error::new(&self.provenance.path, ErrorKind::Shape { shape, values })
                })
            }
            Store::Files { files, centre_crop } => {
                Ok(Image::open(&files[index])?.fit_centre(self.size, *centre_crop))
            }
        }
    }

    /// Changes an image as `augment` says into `out`, (H, W, 3), as [`Augment::apply`].
    ///
    /// A resized crop is cut out of the whole picture where that is in a file, else out of the
    /// fitted image.
    ///
    /// # Errors
    ///
    /// As [`Dataset::image`].
    ///
    /// # Panics
    ///
    /// If there is no such image.
    pub fn augmented(
        &self,
        index: usize,
        augment: &Augment,
        fill: [u8; 3],
        generator: Generator,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        match &self.store {
            Store::Files { files, .. } if augment.resized_crop > 0.0 => {
                let picture = Image::open(&files[index])?;
                augment.apply_from(
                    (picture.pixels(), picture.size()),
                    self.size,
                    fill,
                    generator,
                    out,
                );
            }
            _ => augment.apply(&self.image(index)?, self.size, fill, generator, out),
        }
        Ok(())
    }

    /// Fills `batch` with the normalised pixels of some images, (B, 3, H, W).
    ///
    /// What `batch` held is dropped; its memory is used again. Decoding uses rayon's threads.
    ///
    /// # Errors
    ///
    /// As [`Dataset::image`].
    ///
    /// # Panics
    ///
    /// If an index is not below [`Dataset::len`].
    pub fn batch(
        &self,
        indices: impl IntoIterator<Item = usize>,
        normalisation: &Normalisation,
        batch: &mut Vec<f32>,
    ) -> Result<()> {
        batch.clear();
        let indices: Vec<usize> = indices.into_iter().collect();
        let images: Vec<Cow<'_, [u8]>> = if self.is_lazy() {
            let decoded = indices.par_iter().map(|&index| self.image(index));
            decoded.collect::<Result<_>>()?
        } else {
            let borrowed = indices.iter().map(|&index| self.image(index));
            borrowed.collect::<Result<_>>()?
        };
        normalisation.append(images.iter().map(|image| &**image), batch);
        Ok(())
    }

    /// Bytes that tell an image from others: its pixels, or, where those are not in memory, its path
    /// below the dataset's. A file that was damaged and is whole again is the same image.
    ///
    /// # Panics
    ///
    /// If there is no such image.
    pub fn identity(&self, index: usize) -> &[u8] {
        match &self.store {
            Store::Memory(images) => self.pixels(images, index),
            Store::Files { files, .. } => {
                let file = &files[index];
                let below = file.strip_prefix(&self.provenance.path).unwrap_or(file);
                below.as_os_str().as_encoded_bytes()
            }
        }
    }

    fn pixels<'a>(&self, images: &'a [u8], index: usize) -> &'a [u8] {
        let bytes = self.size.area() * 3;
        &images[index * bytes..][..bytes]
    }
}
