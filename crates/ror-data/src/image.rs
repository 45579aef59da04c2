//! One picture: decoded to RGB bytes, and fitted to the size a network takes.

use std::fmt;
use std::fs;
use std::io::Cursor;
use std::path::Path;

use image::imageops;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage};

use crate::error::{At, Error, ErrorKind, Result};
use crate::jpeg;
use crate::region::Region;

/// The most pixels one side of a picture may have.
const MAX_SIDE: u32 = 1 << 15;
/// The most bytes a picture may decode to: 128 million RGB pixels.
const MAX_BYTES: u64 = 384 << 20;

const TOO_LARGE: ErrorKind = ErrorKind::ImageTooLarge {
    limit: MAX_BYTES,
    side: MAX_SIDE,
};

/// Height and width in pixels, neither of them zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Size {
    height: u32,
    width: u32,
}

impl Size {
    /// 32 x 32, the size of CIFAR's and SVHN's images.
    pub const CIFAR: Self = Self {
        height: 32,
        width: 32,
    };

    /// A size, or `None` if a side is zero or above 32,768.
    pub fn new(height: usize, width: usize) -> Option<Self> {
        let side = |n: usize| u32::try_from(n).ok().filter(|n| (1..=MAX_SIDE).contains(n));
        Some(Self {
            height: side(height)?,
            width: side(width)?,
        })
    }

    /// So much larger that this is the given share of it, rounded; the same where `share` is not
    /// between 0 and 1 or the result would be too large.
    pub fn enlarged(self, share: f64) -> Self {
        if !(share > 0.0 && share < 1.0) {
            return self;
        }
        let side = |n: u32| (f64::from(n) / share).round() as usize;
        Self::new(side(self.height), side(self.width)).unwrap_or(self)
    }

    /// Pixels down, H.
    pub fn height(self) -> usize {
        self.height as usize
    }

    /// Pixels across, W.
    pub fn width(self) -> usize {
        self.width as usize
    }

    /// Pixels in all, H x W.
    pub fn area(self) -> usize {
        self.height() * self.width()
    }
}

/// Width first, as pictures are usually described: `640 x 480`.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x {}", self.width, self.height)
    }
}

/// A picture of 8-bit RGB pixels in (H, W, 3) order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    rgb: RgbImage,
    original: Size,
}

impl Image {
    /// Decodes a JPEG or PNG file, told apart by content.
    ///
    /// Grey becomes RGB, an alpha channel is dropped, 16-bit samples are rounded to 8 bits, and the
    /// EXIF orientation is applied. Colour profiles are not.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, is no image, stops early, is damaged, has more than 384 MiB, or
    /// would decode to more or to 32,768 pixels a side.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let metadata = fs::metadata(path).at(path)?;
        if !metadata.is_file() {
            return Err(Error::new(path, ErrorKind::NotAFile));
        }
        if metadata.len() > MAX_BYTES {
            let (found, limit) = (metadata.len(), MAX_BYTES);
            return Err(Error::new(path, ErrorKind::FileTooLarge { found, limit }));
        }
        Self::from_bytes(path, &fs::read(path).at(path)?)
    }

    /// As [`Image::open`], for a file that is in memory already; errors name it as `name`.
    ///
    /// # Errors
    ///
    /// As [`Image::open`].
    pub fn from_bytes(name: impl AsRef<Path>, bytes: &[u8]) -> Result<Self> {
        let (found, limit) = (bytes.len() as u64, MAX_BYTES);
        if found > limit {
            return Err(Error::new(
                name.as_ref(),
                ErrorKind::FileTooLarge { found, limit },
            ));
        }
        Self::decode(bytes).at(name.as_ref())
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, ErrorKind> {
        if bytes.is_empty() {
            return Err(ErrorKind::EmptyFile);
        }
        let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
        match reader.format() {
            // The JPEG decoder fills what is missing with grey and says nothing.
            Some(ImageFormat::Jpeg) if !jpeg::is_complete(bytes) => {
                return Err(ErrorKind::Truncated);
            }
            Some(ImageFormat::Jpeg | ImageFormat::Png) => {}
            _ => return Err(ErrorKind::NotAnImage),
        }
        let mut limits = Limits::default();
        limits.max_image_width = Some(MAX_SIDE);
        limits.max_image_height = Some(MAX_SIDE);
        limits.max_alloc = Some(MAX_BYTES);
        reader.limits(limits);
        let mut decoder = reader.into_decoder().map_err(damaged)?;
        if decoder.total_bytes() > MAX_BYTES {
            return Err(TOO_LARGE);
        }
        let orientation = decoder.orientation().map_err(damaged)?;
        let mut image = DynamicImage::from_decoder(decoder).map_err(damaged)?;
        image.apply_orientation(orientation);
        Self::new(image.into_rgb8())
            .ok_or_else(|| ErrorKind::Damaged("it has no pixels".to_owned()))
    }

    /// From pixels in (H, W, 3) order; `None` if there are not H x W x 3 of them.
    pub fn from_pixels(pixels: Vec<u8>, size: Size) -> Option<Self> {
        let fits = pixels.len() == size.area() * 3;
        let rgb = RgbImage::from_raw(size.width, size.height, pixels).filter(|_| fits)?;
        Self::new(rgb)
    }

    fn new(rgb: RgbImage) -> Option<Self> {
        let original = Size::new(rgb.height() as usize, rgb.width() as usize)?;
        Some(Self { rgb, original })
    }

    /// The picture at `size`: the largest centred region of the same proportions, scaled.
    ///
    /// That is what scaling the shorter side and cutting out the centre gives, for less work.
    /// The filter is bilinear and widens when it shrinks, as Pillow's. A picture that has the size
    /// already is returned as it is; [`Image::original`] tells what it was.
    pub fn fit(self, size: Size) -> Self {
        let from = self.size();
        if from == size {
            return self;
        }
        let region = Region::centred(from, size);
        Self {
            rgb: region.resized(self.pixels(), from, size),
            original: self.original,
        }
    }

    /// The picture at `size`, of which the edges are left out: it is fitted to a size that is larger
    /// by 1 / `share`, and the centre cut out of that.
    ///
    /// With 0.875, or 224 / 256, that is how networks for ImageNet are measured: the shorter side
    /// scaled to 256 pixels, a centre of 224 x 224, here to within half a pixel. A share that is not
    /// between 0 and 1 is taken as 1.
    pub fn fit_centre(self, size: Size, share: f64) -> Self {
        let larger = size.enlarged(share);
        if larger == size {
            return self.fit(size);
        }
        let fitted = self.fit(larger);
        let top = (larger.height - size.height).div_ceil(2);
        let left = (larger.width - size.width).div_ceil(2);
        let centre = imageops::crop_imm(&fitted.rgb, left, top, size.width, size.height);
        Self {
            rgb: centre.to_image(),
            original: fitted.original,
        }
    }

    /// Height and width.
    pub fn size(&self) -> Size {
        Size {
            height: self.rgb.height(),
            width: self.rgb.width(),
        }
    }

    /// Height and width before [`Image::fit`].
    pub fn original(&self) -> Size {
        self.original
    }

    /// The pixels, (H, W, 3).
    pub fn pixels(&self) -> &[u8] {
        &self.rgb
    }

    /// As [`Image::pixels`].
    pub fn into_pixels(self) -> Vec<u8> {
        self.rgb.into_raw()
    }
}

fn damaged(error: ImageError) -> ErrorKind {
    match error {
        ImageError::Limits(_) => TOO_LARGE,
        error => ErrorKind::Damaged(error.to_string().trim_end().to_owned()),
    }
}

#[cfg(test)]
mod tests;
