//! The Street View House Numbers, cropped digits, as the official MAT-files.
//!
//! Netzer et al., *Reading Digits in Natural Images with Unsupervised Feature Learning*, 2011. A
//! file has the images `X`, uint8 (32, 32, 3, N) with the first index fastest, and the labels `y`,
//! (N, 1), from 1 to 10, where 10 stands for the digit 0.

use std::fs;
use std::path::Path;

use rayon::prelude::*;

use crate::dataset::{Dataset, Format, Options, Progress, Provenance, Split, Store};
use crate::error::{At, Error, ErrorKind, Result};
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
    let whole = files.iter().map(|(_, bytes)| bytes).sum();
    let (mut images, mut labels) = (Vec::new(), Vec::new());
    let mut before = 0;
    for (path, bytes) in files {
        let progress = |done, _| (options.progress)(before + done, whole);
        read(&path, options, &progress, &mut images, &mut labels)?;
        before += bytes;
    }
    Ok(Dataset {
        store: Store::Memory(images),
        resized: if options.resizes_small() {
            labels.len()
        } else {
            0
        },
        labels,
        classes: (0..10).map(|digit| digit.to_string()).collect(),
        size: options.size,
        provenance: Provenance {
            name: match names {
                [_] => "SVHN",
                _ => "SVHN with extra",
            }
            .to_owned(),
            path: folder.to_owned(),
            format: Format::Svhn,
            split: Some(split),
        },
    })
}

/// Appends the images and labels of a file.
fn read(
    path: &Path,
    options: &Options<'_>,
    progress: Progress<'_>,
    images: &mut Vec<u8>,
    labels: &mut Vec<u32>,
) -> Result<()> {
    let (mut x, mut y) = (None, None);
    mat::each_array(path, progress, |array| {
        match array.name.as_str() {
            "X" if x.is_none() => x = Some(read_images(array, labels.len(), options, images)?),
            "y" if y.is_none() => y = Some(read_labels(array, options)?),
            "X" | "y" => {
                let text = format!("`{}` is there twice", array.name);
                return Err(ErrorKind::Mat(text));
            }
            _ => {}
        }
        Ok(())
    })?;
    let missing = |name: &str| Error::new(path, ErrorKind::Mat(format!("no array `{name}`")));
    let (x, y) = (
        x.ok_or_else(|| missing("X"))?,
        y.ok_or_else(|| missing("y"))?,
    );
    if x != y.len() {
        let text = format!("{x} images with {} labels", y.len());
        return Err(Error::new(path, ErrorKind::Mat(text)));
    }
    labels.extend(y);
    Ok(())
}

/// Appends the images of `X` to those `before`; how many there are.
fn read_images(
    array: &mut Array<'_>,
    before: usize,
    options: &Options<'_>,
    images: &mut Vec<u8>,
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
    images.reserve_exact(total - images.len());
    let bytes = options.size.area() * 3;
    let mut block = vec![0; BLOCK.min(count) * IMAGE];
    let mut done = 0;
    while done < count {
        let n = (count - done).min(BLOCK);
        data.bytes(&mut block[..n * IMAGE])?;
        let at = images.len();
        images.resize(at + n * bytes, 0);
        images[at..]
            .par_chunks_exact_mut(bytes)
            .zip(block.par_chunks_exact(IMAGE))
            .for_each(|(out, columns)| {
                options.fit_small(out, |pixels| by_rows(columns, pixels));
            });
        done += n;
    }
    Ok(count)
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

/// From three planes of columns to (32, 32, 3).
fn by_rows(columns: &[u8], out: &mut [u8]) {
    for (at, pixel) in out.as_chunks_mut::<3>().0.iter_mut().enumerate() {
        let from = at % SIDE * SIDE + at / SIDE;
        *pixel = [0, 1, 2].map(|channel| columns[channel * SIDE * SIDE + from]);
    }
}

#[cfg(test)]
mod tests;
