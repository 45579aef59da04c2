//! NumPy's array files: `.npy`, format versions 1 to 3.
//!
//! Own code, because the crates for it allocate what a header claims before they look whether the
//! file is that long.

use std::fs::{self, File};
use std::io::{BufReader, Read, Write};
use std::path::Path;

use atomicwrites::{AllowOverwrite, AtomicFile};

use crate::error::{At, Error, ErrorKind, Result};
use header::{DType, Header};

mod header;

/// An array of float32 values in C order: the last index runs fastest.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Length of each dimension; empty for a single number.
    pub shape: Vec<usize>,
    /// The values, as many as the product of the shape.
    pub data: Vec<f32>,
}

/// Reads an array of float32, float64 or float16, little-endian, in C or Fortran order.
///
/// The result is float32 in C order whatever the file held.
///
/// # Errors
///
/// A file that cannot be read, is no `.npy` file, holds another type, or is shorter or longer than
/// its header says. No more memory is taken than the file's size calls for.
pub fn read(path: impl AsRef<Path>) -> Result<Array> {
    let path = path.as_ref();
    let metadata = fs::metadata(path).at(path)?;
    if !metadata.is_file() {
        return Err(Error::new(path, ErrorKind::NotAFile));
    }
    let reader = BufReader::new(File::open(path).at(path)?);
    read_from(reader, metadata.len()).at(path)
}

fn read_from(mut reader: impl Read, file_bytes: u64) -> Result<Array, ErrorKind> {
    if file_bytes == 0 {
        return Err(ErrorKind::EmptyFile);
    }
    let (header, header_bytes) = Header::read(&mut reader)?;
    let found = file_bytes.saturating_sub(header_bytes);
    let width = header.dtype.bytes();
    let values = header.values().filter(|n| {
        n.checked_mul(width)
            .is_some_and(|expected| expected as u64 == found)
    });
    let Some(values) = values else {
        return Err(ErrorKind::Npy(format!(
            "shape {:?} of {width}-byte values does not fill the {found} bytes after the header",
            header.shape
        )));
    };
    let mut data = Vec::with_capacity(values);
    match header.dtype {
        DType::F32 => fill(reader, values, &mut data, f32::from_le_bytes)?,
        DType::F64 => fill(reader, values, &mut data, |b| f64::from_le_bytes(b) as f32)?,
        DType::F16 => fill(reader, values, &mut data, |b| {
            half::f16::from_le_bytes(b).to_f32()
        })?,
    }
    if header.fortran_order && !data.is_empty() {
        data = to_c_order(&data, &header.shape);
    }
    Ok(Array {
        shape: header.shape,
        data,
    })
}

fn fill<const B: usize>(
    mut reader: impl Read,
    values: usize,
    data: &mut Vec<f32>,
    convert: impl Fn([u8; B]) -> f32,
) -> Result<(), ErrorKind> {
    let mut block = [[0; B]; 4096];
    while data.len() < values {
        let n = block.len().min(values - data.len());
        reader.read_exact(block[..n].as_flattened_mut())?;
        data.extend(block[..n].iter().map(|bytes| convert(*bytes)));
    }
    Ok(())
}

/// From first index fastest to last index fastest.
fn to_c_order(data: &[f32], shape: &[usize]) -> Vec<f32> {
    let strides: Vec<usize> = shape
        .iter()
        .scan(1, |stride, n| Some(std::mem::replace(stride, *stride * n)))
        .collect();
    let mut index = vec![0; shape.len()];
    let mut at = 0;
    let mut out = Vec::with_capacity(data.len());
    while out.len() < data.len() {
        out.push(data[at]);
        // Counts up as an odometer does, moving `at` along.
        for d in (0..shape.len()).rev() {
            index[d] += 1;
            at += strides[d];
            if index[d] < shape[d] {
                break;
            }
            at -= strides[d] * shape[d];
            index[d] = 0;
        }
    }
    out
}

/// Writes float32 values in C order.
///
/// The file appears under its name only when it is complete; until then a temporary file stands
/// beside it, and whatever had the name before is untouched.
///
/// # Errors
///
/// A shape that does not hold as many values as given, and anything the file system refuses.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let path = folder.path().join("probabilities.npy");
/// ror_data::npy::write(&path, &[2, 2], &[0.5, 0.5, 0.25, 0.75])?;
/// let array = ror_data::npy::read(&path)?;
/// assert_eq!((array.shape, array.data[3]), (vec![2, 2], 0.75));
/// # Ok(())
/// # }
/// ```
pub fn write(path: impl AsRef<Path>, shape: &[usize], data: &[f32]) -> Result<()> {
    let path = path.as_ref();
    let header = Header {
        dtype: DType::F32,
        fortran_order: false,
        shape: shape.to_vec(),
    };
    if header.values() != Some(data.len()) {
        let shape = header.shape;
        return Err(Error::new(
            path,
            ErrorKind::Shape {
                shape,
                values: data.len(),
            },
        ));
    }
    let written = AtomicFile::new(path, AllowOverwrite).write(|file| {
        file.write_all(&header.to_bytes())?;
        for block in data.chunks(4096) {
            let bytes: Vec<u8> = block.iter().flat_map(|value| value.to_le_bytes()).collect();
            file.write_all(&bytes)?;
        }
        Ok(())
    });
    written.map_err(std::io::Error::from).at(path)
}

#[cfg(test)]
mod tests;
