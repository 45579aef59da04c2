//! The files of a CIFAR distribution, from a folder or from its archive.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

use super::Layout;
use crate::dataset::{Progress, Split};
use crate::error::{At, Error, ErrorKind, Result};
use crate::reported::Reported;

/// Bytes of a file, three times what CIFAR-100's largest has.
const LARGEST: u64 = 512 << 20;

/// The files needed for one split, in memory, and where each came from.
pub(super) struct Members {
    /// The folder or the archive.
    root: PathBuf,
    files: HashMap<&'static str, (PathBuf, Vec<u8>)>,
}

impl Members {
    /// Reads what `layout` needs for `split` from `folder`.
    pub(super) fn from_folder(folder: &Path, layout: Layout, split: Split) -> Result<Self> {
        let mut files = HashMap::new();
        for name in layout.needed(split) {
            let path = folder.join(name);
            if path.is_file() {
                let (found, limit) = (fs::metadata(&path).at(&path)?.len(), LARGEST);
                if found > limit {
                    return Err(Error::new(&path, ErrorKind::FileTooLarge { found, limit }));
                }
                let bytes = fs::read(&path).at(&path)?;
                files.insert(name, (path, bytes));
            }
        }
        Ok(Self {
            root: folder.to_owned(),
            files,
        })
    }

    /// Reads what is needed for `split` from a `.tar.gz`, in one pass and without unpacking it to
    /// the disk, and tells which layout it holds.
    pub(super) fn from_archive(
        path: &Path,
        split: Split,
        progress: Progress<'_>,
    ) -> Result<(Self, Layout)> {
        let file = File::open(path).at(path)?;
        let size = file.metadata().at(path)?.len();
        // Official archives grow by a tenth when unpacked; python batches compress no better.
        let limit = size.saturating_mul(16).saturating_add(64 << 20);
        let reader = BufReader::with_capacity(1 << 16, Reported::new(file, size, progress));
        let mut stream = Limited {
            inner: GzDecoder::new(reader),
            left: limit,
            exceeded: false,
        };
        let result = Self::from_tar(&mut stream, path, split);
        match result {
            Err(_) if stream.exceeded => Err(Error::new(path, ErrorKind::Expands { limit })),
            result => result,
        }
    }

    fn from_tar(stream: &mut impl Read, root: &Path, split: Split) -> Result<(Self, Layout)> {
        let mut files = HashMap::new();
        let mut found = None;
        let mut archive = tar::Archive::new(stream);
        for entry in archive.entries().at(root)? {
            let mut entry = entry.at(root)?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let inside = entry.path().at(root)?.into_owned();
            let Some((layout, name)) = inside
                .file_name()
                .and_then(|name| Layout::of_member(name.to_str()?))
            else {
                continue;
            };
            match found.replace(layout) {
                Some(before) if before != layout => {
                    let both = format!("{} and {}", before.folder(), layout.folder());
                    return Err(Error::new(root, ErrorKind::Ambiguous(both)));
                }
                _ => {}
            }
            if layout.needed(split).any(|needed| needed == name) {
                let path = root.join(inside);
                let expected = entry.size();
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).at(&path)?;
                if bytes.len() as u64 != expected {
                    return Err(Error::new(
                        path,
                        io::Error::from(io::ErrorKind::UnexpectedEof),
                    ));
                }
                files.insert(name, (path, bytes));
            }
        }
        // To the end, where the checksum is.
        io::copy(&mut archive.into_inner(), &mut io::sink()).at(root)?;
        let layout = found.ok_or_else(|| Error::new(root, ErrorKind::UnknownLayout))?;
        let root = root.to_owned();
        Ok((Self { root, files }, layout))
    }

    /// Hands out a file, once.
    pub(super) fn take(&mut self, name: &'static str) -> Result<(PathBuf, Vec<u8>)> {
        match self.files.remove(name) {
            Some((path, bytes)) if bytes.is_empty() => Err(Error::new(path, ErrorKind::EmptyFile)),
            Some(file) => Ok(file),
            None => Err(Error::new(&self.root, ErrorKind::Missing(name.to_owned()))),
        }
    }
}

/// Fails after so many bytes, where `Read::take` would end quietly.
struct Limited<R> {
    inner: R,
    left: u64,
    exceeded: bool,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        match self.left.checked_sub(n as u64) {
            Some(left) => self.left = left,
            None => {
                self.exceeded = true;
                return Err(io::Error::other("too many bytes"));
            }
        }
        Ok(n)
    }
}
