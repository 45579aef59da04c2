//! Datasets that are not read from files.

use std::path::PathBuf;

use super::{Dataset, Format, Provenance, Store};
use crate::error::{Error, ErrorKind, Result};
use crate::image::Size;

impl Dataset {
    /// A dataset of generated images: pixels (N, H, W, 3) and, for each image, its class as a
    /// position in `classes`.
    ///
    /// # Errors
    ///
    /// Pixels that are not N images of this size, or a label without a class.
    ///
    /// # Examples
    ///
    /// ```
    /// use ror_data::{Dataset, Size};
    ///
    /// let classes = ["dark", "light"].map(String::from).to_vec();
    /// let pixels = [[10; 3072], [240; 3072]].concat();
    /// let data = Dataset::from_pixels("shades", pixels, vec![0, 1], classes, Size::CIFAR)?;
    /// assert_eq!(data.len(), 2);
    /// # Ok::<(), ror_data::Error>(())
    /// ```
    pub fn from_pixels(
        name: impl Into<String>,
        pixels: Vec<u8>,
        labels: Vec<u32>,
        classes: Vec<String>,
        size: Size,
    ) -> Result<Self> {
        let name = name.into();
        let error = |kind| Error::new(PathBuf::from(&name), kind);
        if labels.len().checked_mul(size.area() * 3) != Some(pixels.len()) {
            return Err(error(ErrorKind::Shape {
                shape: vec![labels.len(), size.height(), size.width(), 3],
                values: pixels.len(),
            }));
        }
        if let Some(index) = labels.iter().position(|&l| l as usize >= classes.len()) {
            return Err(error(ErrorKind::Label {
                index,
                label: i64::from(labels[index]),
                classes: classes.len(),
            }));
        }
        Ok(Self {
            store: Store::Memory(pixels),
            labels,
            classes,
            size,
            resized: 0,
            provenance: Provenance {
                path: PathBuf::from(&name),
                name,
                format: Format::Memory,
                split: None,
            },
        })
    }
}
