//! A labelled set of images.

use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::cifar::{self, Layout};
use crate::error::{At, Error, ErrorKind, Result};
use crate::folder;
use crate::image::{Image, Size};
use crate::svhn;

/// Which part of a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    /// What a network learns from.
    Train,
    /// What it is measured on; a folder called `val` where there is none called `test`.
    Test,
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Train => "train",
            Self::Test => "test",
        })
    }
}

/// Called with the work done so far and the whole of it, possibly from several threads at once.
///
/// The units are images of a folder, bytes of an archive or of SVHN's files, or files of an unpacked
/// archive.
pub type Progress<'a> = &'a (dyn Fn(usize, usize) + Sync);

/// How to open a [`Dataset`].
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// The size to which images are fitted. Default: [`Size::CIFAR`].
    pub size: Size,
    /// CIFAR-100's 20 superclasses instead of its 100 classes. Default: no.
    pub coarse: bool,
    /// SVHN's extra images beside its training images, as the paper trains. Default: no. Other
    /// datasets have none, which is an error.
    pub extra: bool,
    /// The share of a picture's shorter side that the largest centred region has, as in
    /// [`Image::fit_centre`]; above 0, at most 1. Default: 1.
    pub centre_crop: f64,
    /// The images of a folder are decoded each time they are asked for, not once on opening.
    /// Default: only where they would exceed `memory_limit`.
    pub lazy: bool,
    /// The most bytes that decoded images may take. Default: 8 GiB.
    pub memory_limit: u64,
    /// Told how far it is. Default: nobody.
    pub progress: Progress<'a>,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self {
            size: Size::CIFAR,
            coarse: false,
            extra: false,
            centre_crop: 1.0,
            lazy: false,
            memory_limit: 8 << 30,
            progress: &|_, _| {},
        }
    }
}

impl fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("size", &self.size)
            .field("coarse", &self.coarse)
            .field("extra", &self.extra)
            .field("centre_crop", &self.centre_crop)
            .field("lazy", &self.lazy)
            .field("memory_limit", &self.memory_limit)
            .finish_non_exhaustive()
    }
}

impl Options<'_> {
    /// Writes an image of CIFAR's size, whose pixels `write` puts into (32, 32, 3) bytes, to (H, W, 3).
    pub(crate) fn fit_small(&self, out: &mut [u8], write: impl Fn(&mut [u8])) {
        if !self.resizes_small() {
            return write(out);
        }
        let mut pixels = vec![0; 3 * Size::CIFAR.area()];
        write(&mut pixels);
        if let Some(image) = Image::from_pixels(pixels, Size::CIFAR) {
            out.copy_from_slice(image.fit_centre(self.size, self.centre_crop).pixels());
        }
    }

    /// Whether images of CIFAR's size do not stay as they are.
    pub(crate) fn resizes_small(&self) -> bool {
        self.size != Size::CIFAR || self.centre_crop < 1.0
    }

    /// The bytes that so many images take, if they may.
    pub(crate) fn bytes_of(&self, images: usize) -> Result<usize, ErrorKind> {
        let bytes = self.size.area() * 3;
        let limit = self.memory_limit;
        let total = images
            .checked_mul(bytes)
            .filter(|total| *total as u64 <= limit);
        total.ok_or(ErrorKind::DatasetTooLarge {
            images,
            bytes,
            limit,
        })
    }
}

/// How a dataset was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// A folder of images for each class.
    Folder,
    /// CIFAR's binary layout.
    CifarBinary,
    /// CIFAR's python layout.
    CifarPython,
    /// SVHN's MAT-files.
    Svhn,
    /// Not at all: the images were made in memory.
    Memory,
}

/// In words.
impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Folder => "image folder",
            Self::CifarBinary => "CIFAR binary",
            Self::CifarPython => "CIFAR python",
            Self::Svhn => "SVHN MAT-files",
            Self::Memory => "memory",
        })
    }
}

/// Where a dataset came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provenance {
    /// `CIFAR-10`, or the folder's name.
    pub name: String,
    /// The folder or archive.
    pub path: PathBuf,
    /// How it was stored.
    pub format: Format,
    /// The split, or `None` for a folder that is not split: it is then all of it.
    pub split: Option<Split>,
}

/// `CIFAR-10 test (cifar-10-binary.tar.gz)`
impl fmt::Display for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(split) = self.split {
            write!(f, " {split}")?;
        }
        write!(f, " ({})", self.path.display())
    }
}

/// Labelled images of one size: bytes in memory, or files that are decoded when asked for.
///
/// # Examples
///
/// ```
/// use ror_data::{Dataset, Normalisation, Options, Split};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path();
/// # std::fs::write(path.join("batches.meta.txt"), "cat\ndog\n")?;
/// # std::fs::write(path.join("test_batch.bin"), [&[1][..], &[255; 3072]].concat())?;
/// let test = Dataset::open(path, Split::Test, &Options::default())?;
/// assert_eq!(test.classes(), ["cat", "dog"]);
///
/// let mut batch = Vec::new();
/// test.batch(0..test.len(), &Normalisation::unit(), &mut batch)?;
/// assert_eq!(batch, [1.0; 3 * 32 * 32]); // (1, 3, 32, 32), and a white image
/// assert_eq!(test.labels(), [1]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq)]
pub struct Dataset {
    pub(crate) store: Store,
    /// (N), each below the number of classes.
    pub(crate) labels: Vec<u32>,
    pub(crate) classes: Vec<String>,
    pub(crate) size: Size,
    pub(crate) resized: usize,
    pub(crate) provenance: Provenance,
}

/// Where the pixels are.
#[derive(Clone, PartialEq)]
pub(crate) enum Store {
    /// (N, H, W, 3)
    Memory(Vec<u8>),
    /// In files, which are fitted by [`Image::fit_centre`] when they are decoded.
    Files {
        files: Vec<PathBuf>,
        centre_crop: f64,
    },
}

/// Without the pixels.
impl fmt::Debug for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dataset")
            .field("provenance", &self.provenance)
            .field("size", &self.size)
            .field("images", &self.len())
            .field("classes", &self.classes)
            .finish_non_exhaustive()
    }
}

impl Dataset {
    /// Opens one split of a dataset, which may be
    ///
    /// - a folder with `train/` and `test/` or `val/`, in each a folder per class with JPEG or PNG
    ///   images at any depth; both splits must have the same classes;
    /// - a folder with a folder per class, which then is any split that is asked for;
    /// - CIFAR-10 or CIFAR-100 in the official binary or python layout: the folder with its files,
    ///   the folder above under the official name, or the official `.tar.gz`, which is read as a
    ///   stream and not unpacked to the disk;
    /// - SVHN's cropped digits: a folder with the official `train_32x32.mat` and `test_32x32.mat`,
    ///   and `extra_32x32.mat` where [`Options::extra`] asks for it.
    ///
    /// The content decides which it is. Images of another size are fitted as by
    /// [`Image::fit_centre`]. Images are in the order of their files and, in folders, of
    /// the sorted classes; classes are in the order of the labels. Decoding uses rayon's threads.
    ///
    /// # Errors
    ///
    /// Anything that is missing, damaged or unequal, with the file and what was expected; images of
    /// CIFAR or SVHN that would take more memory than [`Options::memory_limit`]. Damaged images of a
    /// folder that is not decoded on opening are found when they are asked for.
    pub fn open(path: impl AsRef<Path>, split: Split, options: &Options<'_>) -> Result<Self> {
        let path = path.as_ref();
        let metadata = fs::metadata(path).at(path)?;
        if metadata.is_dir() && svhn::is_folder(path) {
            return svhn::open(path, split, options);
        }
        if options.extra {
            let file = format!("{} of SVHN", svhn::EXTRA);
            return Err(Error::new(path, ErrorKind::Missing(file)));
        }
        if metadata.is_dir() {
            if let Some(layout) = Layout::of_folder(path) {
                return cifar::open_folder(path, layout, split, options);
            }
            if let Some((layout, below)) = Layout::below(path)? {
                return cifar::open_folder(&below, layout, split, options);
            }
            return folder::open(path, split, options);
        }
        if metadata.is_file() {
            let mut start = Vec::new();
            File::open(path)
                .and_then(|file| file.take(2).read_to_end(&mut start))
                .at(path)?;
            if start.is_empty() {
                return Err(Error::new(path, ErrorKind::EmptyFile));
            }
            if start == [0x1F, 0x8B] {
                return cifar::open_archive(path, split, options);
            }
        }
        Err(Error::new(path, ErrorKind::UnknownLayout))
    }

    /// The number of images, N.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The size of every image.
    pub fn size(&self) -> Size {
        self.size
    }

    /// The class of every image, (N), as a position in [`Dataset::classes`].
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// The names of the classes.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// How many images had another size and were fitted on opening.
    pub fn resized(&self) -> usize {
        self.resized
    }

    /// Where it came from.
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }
}

mod access;
mod memory;
#[cfg(test)]
mod tests;
