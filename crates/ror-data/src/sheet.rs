//! A contact sheet: some images of every class in one picture.

use std::io::Cursor;

use image::imageops::{self, FilterType};
use image::{ImageFormat, Rgb, RgbImage};
use rayon::prelude::*;

use crate::dataset::Dataset;
use crate::error::{Error, ErrorKind, Result};
use crate::image::Size;

/// Pixels between images, and between columns of classes.
const GAP: u32 = 2;
const COLUMN_GAP: u32 = 14;
/// Classes below each other; the next ones begin a new column.
const ROWS: usize = 50;
/// The longest side of an image on the sheet, and what small ones are magnified towards.
const SIDE: usize = 64;
/// The most pixels of a sheet.
const MAX_PIXELS: u64 = 100_000_000;

/// How a sheet is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    classes: usize,
    per_class: usize,
    /// Of one image.
    width: u32,
    height: u32,
}

impl Dataset {
    /// Some images of every class as a PNG picture: a row per class, in the order of the classes, the
    /// first 50 in one column, the next beside them. A row has up to `per_class` images, spread evenly
    /// over those of the class.
    ///
    /// # Errors
    ///
    /// A file that cannot be decoded; a picture of more than 100 million pixels.
    pub fn contact_sheet(&self, per_class: usize) -> Result<Vec<u8>> {
        let layout = Layout::new(self.classes().len(), per_class, self.size());
        let error = |kind| Error::new(&self.provenance().path, kind);
        let (width, height) = layout.size();
        if u64::from(width) * u64::from(height) > MAX_PIXELS {
            let text = format!("a contact sheet of {width} x {height} pixels is too large");
            return Err(error(ErrorKind::Io(std::io::Error::other(text))));
        }
        let mut sheet = RgbImage::from_pixel(width, height, Rgb([255; 3]));
        let mut of_class = vec![Vec::new(); self.classes().len()];
        for (index, &label) in self.labels().iter().enumerate() {
            of_class[label as usize].push(index);
        }
        for (class, indices) in of_class.iter().enumerate() {
            let chosen = spread(indices, per_class);
            let images = chosen.par_iter().map(|&index| self.picture(index));
            for (at, image) in images.collect::<Result<Vec<_>>>()?.into_iter().enumerate() {
                let (x, y) = layout.place(class, at);
                let pixels = RgbImage::from_raw(
                    image.size().width() as u32,
                    image.size().height() as u32,
                    image.into_pixels(),
                );
                if let Some(pixels) = pixels {
                    let tile = layout.tile(&pixels);
                    imageops::replace(&mut sheet, &tile, x.into(), y.into());
                }
            }
        }
        let mut png = Cursor::new(Vec::new());
        sheet
            .write_to(&mut png, ImageFormat::Png)
            .map_err(|e| error(ErrorKind::Io(std::io::Error::other(e))))?;
        Ok(png.into_inner())
    }
}

impl Layout {
    fn new(classes: usize, per_class: usize, size: Size) -> Self {
        let longest = size.height().max(size.width());
        let side = |n: usize| {
            let scaled = if longest > SIDE {
                n * SIDE / longest
            } else {
                // Whole pixels.
                n * (SIDE / longest)
            };
            scaled.max(1) as u32
        };
        Self {
            classes,
            per_class,
            width: side(size.width()),
            height: side(size.height()),
        }
    }

    /// Width and height of the sheet.
    fn size(&self) -> (u32, u32) {
        let columns = self.classes.div_ceil(ROWS).max(1) as u32;
        let rows = self.classes.clamp(1, ROWS) as u32;
        let column = self.column();
        (
            (columns.saturating_mul(column + COLUMN_GAP) - COLUMN_GAP).saturating_add(GAP),
            rows * (self.height + GAP) + GAP,
        )
    }

    fn column(&self) -> u32 {
        (self.per_class.min(10_000) as u32).max(1) * (self.width + GAP)
    }

    /// Where an image of a class is.
    fn place(&self, class: usize, at: usize) -> (u32, u32) {
        let (column, row) = ((class / ROWS) as u32, (class % ROWS) as u32);
        (
            GAP + column * (self.column() + COLUMN_GAP) + at as u32 * (self.width + GAP),
            GAP + row * (self.height + GAP),
        )
    }

    fn tile(&self, image: &RgbImage) -> RgbImage {
        let filter = if self.width >= image.width() {
            FilterType::Nearest
        } else {
            FilterType::Triangle
        };
        imageops::resize(image, self.width, self.height, filter)
    }
}

/// Up to `n` items, spread evenly.
fn spread(items: &[usize], n: usize) -> Vec<usize> {
    let n = n.min(items.len());
    (0..n).map(|i| items[i * items.len() / n]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_classes_and_images_are_spread_over_them() {
        let size = Size::new(32, 32).unwrap();
        // Image i is of grey i; class 0 has 20 images, class 1 one, class 2 none.
        let pixels = (0..21).flat_map(|i| vec![i * 10; 3072]).collect();
        let labels = (0..21).map(|i| u32::from(i == 20)).collect();
        let classes = ["a", "b", "c"].map(str::to_owned).to_vec();
        let data = Dataset::from_pixels("made", pixels, labels, classes, size).unwrap();
        let png = data.contact_sheet(4).unwrap();
        let sheet = image::load_from_memory(&png).unwrap().into_rgb8();
        assert_eq!(sheet.dimensions(), (4 * 66 + 2, 3 * 66 + 2));
        let grey =
            |column: u32, row: u32| sheet.get_pixel(2 + column * 66 + 30, 2 + row * 66 + 30)[0];
        assert_eq!([0, 1, 2, 3].map(|i| grey(i, 0)), [0, 50, 100, 150]);
        assert_eq!([grey(0, 1), grey(1, 1), grey(0, 2)], [200, 255, 255]);
        assert_eq!(sheet.get_pixel(2 + 64, 10).0, [255; 3]);
    }

    #[test]
    fn many_classes_stand_in_columns_and_large_images_shrink() {
        let layout = Layout::new(120, 5, Size::new(224, 448).unwrap());
        assert_eq!((layout.width, layout.height), (64, 32));
        assert_eq!(layout.size(), (3 * (5 * 66 + 14) - 14 + 2, 50 * 34 + 2));
        assert_eq!(layout.place(51, 2), (2 + 5 * 66 + 14 + 2 * 66, 2 + 34));
    }

    #[test]
    fn a_sheet_of_unreasonable_size_is_refused() {
        let data = Dataset::from_pixels(
            "made",
            Vec::new(),
            Vec::new(),
            vec!["a".to_owned(); 5000],
            Size::CIFAR,
        );
        let error = data.unwrap().contact_sheet(1000).unwrap_err();
        assert!(error.to_string().contains("too large"), "{error}");
    }
}
