//! The Street View House Numbers, cropped digits, as the official MAT-files.
//!
//! Netzer et al., *Reading Digits in Natural Images with Unsupervised Feature Learning*, 2011. A
//! file has the images `X`, uint8 (32, 32, 3, N) with the first index fastest, and the labels `y`,
//! (N, 1), from 1 to 10, where 10 stands for the digit 0.

use std::fs;
use std::path::Path;

use rayon::prelude::*;

use crate::dataset::{Dataset, Format, Options, Provenance, Split};
use crate::error::{At, Error, ErrorKind, Result};
use crate::image::{Image, Size};
use crate::mat::{self, Array};

const TRAIN: &str = "train_32x32.mat";
const TEST: &str = "test_32x32.mat";
/// Half a million easier images, which the paper trains on too.
pub(crate) const EXTRA: &str = "extra_32x32.mat";

const SIDE: usize = 32;
/// Bytes of one image.
const IMAGE: usize = 3 * SIDE * SIDE;
/// Images that are read at a time.
const BLOCK: usize = 1024;

/// Whether a folder has one of the files.
pub(crate) fn is_folder(folder: &Path) -> bool {
    [TRAIN, TEST, EXTRA]
        .iter()
        .any(|name| folder.join(name).is_file())
}

pub(crate) fn open(folder: &Path, split: Split, options: &Options<'_>) -> Result<Dataset> {
    let names = match split {
        Split::Train if options.extra => &[TRAIN, EXTRA][..],
        Split::Train => &[TRAIN],
        Split::Test => &[TEST],
    };
    let mut files = Vec::new();
    for name in names {
        let path = folder.join(name);
        if !path.is_file() {
            return Err(Error::new(folder, ErrorKind::Missing((*name).to_owned())));
        }
        let bytes = fs::metadata(&path).at(&path)?.len() as usize;
        files.push((path, bytes));
    }
    let mut dataset = Dataset {
        images: Vec::new(),
        labels: Vec::new(),
        classes: (0..10).map(|digit| digit.to_string()).collect(),
        size: options.size,
        resized: 0,
        provenance: Provenance {
            name: if names.len() == 1 {
                "SVHN"
            } else {
                "SVHN with extra"
            }
            .to_owned(),
            path: folder.to_owned(),
            format: Format::Svhn,
            split: Some(split),
        },
    };
    let whole = files.iter().map(|(_, bytes)| bytes).sum();
    let mut before = 0;
    for (path, bytes) in files {
        let progress = |done, _| (options.progress)(before + done, whole);
        dataset.add_svhn(&path, options, &progress)?;
        before += bytes;
    }
    if options.size != Size::CIFAR {
        dataset.resized = dataset.len();
    }
    Ok(dataset)
}

impl Dataset {
    fn add_svhn(
        &mut self,
        path: &Path,
        options: &Options<'_>,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<()> {
        let before = self.labels.len();
        let (mut images, mut labels) = (None, None);
        mat::each_array(path, progress, |array| {
            match array.name.as_str() {
                "X" if images.is_none() => {
                    images = Some(self.add_images(before, array, options)?);
                }
                "y" if labels.is_none() => labels = Some(read_labels(array, options)?),
                "X" | "y" => {
                    let text = format!("`{}` is there twice", array.name);
                    return Err(ErrorKind::Mat(text));
                }
                _ => {}
            }
            Ok(())
        })?;
        let missing = |name: &str| Error::new(path, ErrorKind::Missing(format!("array `{name}`")));
        let images = images.ok_or_else(|| missing("X"))?;
        let labels = labels.ok_or_else(|| missing("y"))?;
        if images != labels.len() {
            let text = format!("{images} images with {} labels", labels.len());
            return Err(Error::new(path, ErrorKind::Mat(text)));
        }
        self.labels.extend(labels);
        Ok(())
    }

    /// Appends the images of `X`; how many there are.
    fn add_images(
        &mut self,
        before: usize,
        array: &mut Array<'_>,
        options: &Options<'_>,
    ) -> Result<usize, ErrorKind> {
        let count = match (array.class, array.shape.as_slice()) {
            ("uint8", [SIDE, SIDE, 3, n]) => *n,
            // MATLAB drops trailing dimensions of one.
            ("uint8", [SIDE, SIDE, 3]) => 1,
            (class, shape) => {
                return Err(ErrorKind::Mat(format!(
                    "`X`: expected uint8 (32, 32, 3, N), found {class} {shape:?}"
                )));
            }
        };
        let total = options.bytes_of(before + count)?;
        let mut data = array.data()?;
        let start = self.images.len();
        self.images.reserve_exact(total - start);
        let bytes = options.size.area() * 3;
        let mut block = vec![0; BLOCK.min(count) * IMAGE];
        let mut done = 0;
        while done < count {
            let n = (count - done).min(BLOCK);
            data.bytes(&mut block[..n * IMAGE])?;
            let at = self.images.len();
            self.images.resize(at + n * bytes, 0);
            self.images[at..]
                .par_chunks_exact_mut(bytes)
                .zip(block.par_chunks_exact(IMAGE))
                .for_each(|(out, columns)| write_image(columns, options.size, out));
            done += n;
        }
        Ok(count)
    }
}

/// The labels of `y` as digits.
fn read_labels(array: &mut Array<'_>, options: &Options<'_>) -> Result<Vec<u32>, ErrorKind> {
    let ([count, 1] | [1, count]) = *array.shape.as_slice() else {
        return Err(ErrorKind::Mat(format!(
            "`y`: expected (N, 1), found {:?}",
            array.shape
        )));
    };
    options.bytes_of(count)?;
    let labels = array.data()?.whole_numbers()?;
    let digit = |(index, label): (usize, &i64)| match *label {
        10 => Ok(0),
        1..=9 => Ok(*label as u32),
        _ => Err(ErrorKind::Mat(format!(
            "image {index} has label {label}; expected 1 to 10"
        ))),
    };
    labels.iter().enumerate().map(digit).collect()
}

/// From three planes of columns to (H, W, 3).
fn write_image(columns: &[u8], size: Size, out: &mut [u8]) {
    let rows = |out: &mut [u8]| {
        for (at, pixel) in out.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            let from = at % SIDE * SIDE + at / SIDE;
            *pixel = [0, 1, 2].map(|channel| columns[channel * SIDE * SIDE + from]);
        }
    };
    if size == Size::CIFAR {
        return rows(out);
    }
    let mut pixels = vec![0; IMAGE];
    rows(&mut pixels);
    if let Some(image) = Image::from_pixels(pixels, Size::CIFAR) {
        out.copy_from_slice(image.fit(size).pixels());
    }
}

#[cfg(test)]
mod tests;
