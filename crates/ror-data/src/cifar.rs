//! CIFAR-10 and CIFAR-100 in their official layouts.
//!
//! Krizhevsky, *Learning Multiple Layers of Features from Tiny Images*, 2009. An image is 3,072
//! bytes: 32 x 32 red values row by row, then the green, then the blue.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::dataset::{Dataset, Format, Options, Progress, Provenance, Split, Store};
use crate::error::{At, Error, ErrorKind, Result};
use members::Members;

mod binary;
mod members;
mod pickle;
mod python;

/// Pixels of one channel.
const AREA: usize = 32 * 32;
/// Bytes of one image.
const IMAGE: usize = 3 * AREA;

/// More classes than a label of CIFAR's could name, and longer names than anyone gives.
const MAX_CLASSES: usize = 256;
const MAX_NAME: usize = 256;

/// The four official distributions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    Cifar10Binary,
    Cifar10Python,
    Cifar100Binary,
    Cifar100Python,
}

/// Which of an image's labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Labels {
    /// CIFAR-10's.
    Only,
    /// CIFAR-100's 20 superclasses.
    Coarse,
    /// CIFAR-100's 100 classes.
    Fine,
}

/// The content of one batch file.
struct Batch<'a> {
    labels: Vec<i64>,
    /// For each label a record, which ends with the 3,072 bytes of the image.
    records: Cow<'a, [u8]>,
    /// Bytes of one record.
    record: usize,
}

impl Layout {
    const ALL: [Self; 4] = [
        Self::Cifar10Binary,
        Self::Cifar10Python,
        Self::Cifar100Binary,
        Self::Cifar100Python,
    ];

    /// The folder that the official archive unpacks to.
    fn folder(self) -> &'static str {
        match self {
            Self::Cifar10Binary => "cifar-10-batches-bin",
            Self::Cifar10Python => "cifar-10-batches-py",
            Self::Cifar100Binary => "cifar-100-binary",
            Self::Cifar100Python => "cifar-100-python",
        }
    }

    fn batches(self, split: Split) -> &'static [&'static str] {
        match (self, split) {
            (Self::Cifar10Binary, Split::Train) => &[
                "data_batch_1.bin",
                "data_batch_2.bin",
                "data_batch_3.bin",
                "data_batch_4.bin",
                "data_batch_5.bin",
            ],
            (Self::Cifar10Binary, Split::Test) => &["test_batch.bin"],
            (Self::Cifar10Python, Split::Train) => &[
                "data_batch_1",
                "data_batch_2",
                "data_batch_3",
                "data_batch_4",
                "data_batch_5",
            ],
            (Self::Cifar10Python, Split::Test) => &["test_batch"],
            (Self::Cifar100Binary, Split::Train) => &["train.bin"],
            (Self::Cifar100Binary, Split::Test) => &["test.bin"],
            (Self::Cifar100Python, Split::Train) => &["train"],
            (Self::Cifar100Python, Split::Test) => &["test"],
        }
    }

    /// Files that hold class names.
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Cifar10Binary => &["batches.meta.txt"],
            Self::Cifar10Python => &["batches.meta"],
            Self::Cifar100Binary => &["fine_label_names.txt", "coarse_label_names.txt"],
            Self::Cifar100Python => &["meta"],
        }
    }

    fn needed(self, split: Split) -> impl Iterator<Item = &'static str> {
        self.batches(split).iter().chain(self.names()).copied()
    }

    /// The layout to which a file of this name belongs, and the name.
    fn of_member(name: &str) -> Option<(Self, &'static str)> {
        Self::ALL.into_iter().find_map(|layout| {
            let mut all = layout
                .needed(Split::Train)
                .chain(layout.needed(Split::Test));
            Some((layout, all.find(|member| *member == name)?))
        })
    }

    /// The layout of the files directly inside `folder`.
    pub(crate) fn of_folder(folder: &Path) -> Option<Self> {
        Self::ALL.into_iter().find(|layout| {
            // A folder of images has `train` and `test` too, but as folders.
            let mut all = layout
                .needed(Split::Train)
                .chain(layout.needed(Split::Test));
            all.any(|name| folder.join(name).is_file())
        })
    }

    /// The layout inside `folder` under its official name, and where.
    pub(crate) fn below(folder: &Path) -> Result<Option<(Self, PathBuf)>> {
        let mut found = Self::ALL.into_iter().filter_map(|layout| {
            let inside = folder.join(layout.folder());
            Some((Self::of_folder(&inside)?, inside))
        });
        let Some(first) = found.next() else {
            return Ok(None);
        };
        match found.find(|(layout, _)| layout.is_cifar100() != first.0.is_cifar100()) {
            Some((other, _)) => {
                let both = format!("{} and {}", first.0.folder(), other.folder());
                Err(Error::new(folder, ErrorKind::Ambiguous(both)))
            }
            None => Ok(Some(first)),
        }
    }

    /// The name people know the dataset by.
    fn dataset(self, kind: Labels) -> &'static str {
        match (self.is_cifar100(), kind) {
            (false, _) => "CIFAR-10",
            (true, Labels::Coarse) => "CIFAR-100 (20 superclasses)",
            (true, _) => "CIFAR-100",
        }
    }

    fn is_cifar100(self) -> bool {
        matches!(self, Self::Cifar100Binary | Self::Cifar100Python)
    }

    fn is_python(self) -> bool {
        matches!(self, Self::Cifar10Python | Self::Cifar100Python)
    }
}

/// Reads a split from the folder that holds the layout's files.
pub(crate) fn open_folder(
    folder: &Path,
    layout: Layout,
    split: Split,
    options: &Options<'_>,
) -> Result<Dataset> {
    let members = Members::from_folder(folder, layout, split)?;
    open(members, layout, folder, split, options, options.progress)
}

/// Reads a split from an archive.
pub(crate) fn open_archive(path: &Path, split: Split, options: &Options<'_>) -> Result<Dataset> {
    let (members, layout) = Members::from_archive(path, split, options.progress)?;
    // Reading took the time and has been reported.
    open(members, layout, path, split, options, &|_, _| {})
}

fn open(
    mut members: Members,
    layout: Layout,
    path: &Path,
    split: Split,
    options: &Options<'_>,
    progress: Progress<'_>,
) -> Result<Dataset> {
    let kind = match (layout.is_cifar100(), options.coarse) {
        (false, _) => Labels::Only,
        (true, true) => Labels::Coarse,
        (true, false) => Labels::Fine,
    };
    let classes = class_names(&mut members, layout, kind)?;
    let (mut images, mut labels) = (Vec::new(), Vec::new());
    let names = layout.batches(split);
    for (done, name) in names.iter().enumerate() {
        let (file, bytes) = members.take(name)?;
        let batch = if layout.is_python() {
            python::batch(&bytes, kind)
        } else {
            binary::batch(&bytes, kind)
        };
        batch
            .and_then(|batch| {
                add_labels(&mut labels, &batch.labels, classes.len())?;
                add_images(&mut images, &batch, labels.len(), options)
            })
            .at(file)?;
        progress(done + 1, names.len());
    }
    Ok(Dataset {
        resized: if options.resizes_small() {
            labels.len()
        } else {
            0
        },
        store: Store::Memory(images),
        labels,
        size: options.size,
        provenance: Provenance {
            name: layout.dataset(kind).to_owned(),
            path: path.to_owned(),
            format: if layout.is_python() {
                Format::CifarPython
            } else {
                Format::CifarBinary
            },
            split: Some(split),
        },
        classes,
    })
}

/// The class names for `kind`, in the order of the labels.
fn class_names(members: &mut Members, layout: Layout, kind: Labels) -> Result<Vec<String>> {
    let file = match (layout.names(), kind) {
        ([_, coarse], Labels::Coarse) => coarse,
        (names, _) => names[0],
    };
    let (path, bytes) = members.take(file)?;
    let names = if layout.is_python() {
        python::class_names(&bytes, kind)
    } else {
        binary::class_names(&bytes)
    };
    match names {
        Ok(names) if names.is_empty() => Err(Error::new(
            path,
            ErrorKind::Missing("class names".to_owned()),
        )),
        names => names.at(path),
    }
}

fn add_labels(labels: &mut Vec<u32>, batch: &[i64], classes: usize) -> Result<(), ErrorKind> {
    for (index, label) in batch.iter().enumerate() {
        let known = u32::try_from(*label)
            .ok()
            .filter(|label| (*label as usize) < classes);
        labels.push(known.ok_or(ErrorKind::Label {
            index,
            label: *label,
            classes,
        })?);
    }
    Ok(())
}

/// Appends the images of a batch, after which there are `count`.
fn add_images(
    images: &mut Vec<u8>,
    batch: &Batch<'_>,
    count: usize,
    options: &Options<'_>,
) -> Result<(), ErrorKind> {
    let total = options.bytes_of(count)?;
    let before = images.len();
    images.reserve_exact(total - before);
    images.resize(total, 0);
    images[before..]
        .par_chunks_exact_mut(options.size.area() * 3)
        .zip(batch.records.par_chunks_exact(batch.record))
        .for_each(|(out, record)| {
            let planes = &record[batch.record - IMAGE..];
            options.fit_small(out, |pixels| interleave(planes, pixels));
        });
    Ok(())
}

/// From three planes of 32 x 32 to (32, 32, 3).
fn interleave(planes: &[u8], out: &mut [u8]) {
    for (i, pixel) in out.as_chunks_mut::<3>().0.iter_mut().enumerate() {
        *pixel = [planes[i], planes[AREA + i], planes[2 * AREA + i]];
    }
}

#[cfg(test)]
mod tests;
