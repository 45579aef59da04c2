//! A file that tells how far it has been read.

use std::fs::File;
use std::io::{self, Read};

use crate::dataset::Progress;

pub(crate) struct Reported<'a> {
    file: File,
    read: u64,
    size: u64,
    progress: Progress<'a>,
}

impl<'a> Reported<'a> {
    /// Tells `progress` of bytes read, and of `size` as the whole.
    pub(crate) fn new(file: File, size: u64, progress: Progress<'a>) -> Self {
        Self {
            file,
            read: 0,
            size,
            progress,
        }
    }
}

impl Read for Reported<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.read += n as u64;
        (self.progress)(self.read as usize, self.size as usize);
        Ok(n)
    }
}
