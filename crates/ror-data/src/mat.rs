//! MATLAB's MAT-files of version 5 (MathWorks, *MAT-File Format*), as a stream of arrays.
//!
//! Own code, because the crates for it unpack what is compressed without bound, and hold a file's
//! arrays in memory before one can ask what they are.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;

use flate2::bufread::ZlibDecoder;

use crate::dataset::Progress;
use crate::error::{At, Error, ErrorKind, Result};
use crate::reported::Reported;

/// Bytes before the first array.
const HEADER: usize = 128;
/// The most bytes that a compressed one may stand for: deflate's longest match for its shortest code.
const DEFLATE: u64 = 1032;
/// More than MATLAB allows.
const MAX_DIMENSIONS: u32 = 32;
const MAX_NAME: u32 = 256;

/// Types of data elements.
mod element {
    pub(super) const INT8: u32 = 1;
    pub(super) const INT32: u32 = 5;
    pub(super) const UINT32: u32 = 6;
    pub(super) const MATRIX: u32 = 14;
    pub(super) const COMPRESSED: u32 = 15;
}

/// One array of a file: what it is, and its data, still to be read.
pub(crate) struct Array<'a> {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    /// What MATLAB calls the class of its values.
    pub(crate) class: &'static str,
    rest: &'a mut dyn Read,
    /// The most bytes that `rest` can have, going by the file's size.
    possible: u64,
}

/// The number of values, and bytes, that an array's data are stored as.
pub(crate) struct Data<'a> {
    values: usize,
    stored: Stored,
    reader: Box<dyn Read + 'a>,
}

/// Types that values are stored as, which may be smaller than those of the array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stored {
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    F32,
    F64,
    I64,
    U64,
}

/// Hands out the arrays of a file one after the other. What `visit` leaves of one is passed over.
///
/// # Errors
///
/// A file that cannot be read, is of another version or byte order, is truncated or damaged; what
/// `visit` reports. No memory is taken that depends on what the file says.
pub(crate) fn each_array(
    path: &Path,
    progress: Progress<'_>,
    mut visit: impl FnMut(&mut Array<'_>) -> Result<(), ErrorKind>,
) -> Result<()> {
    let file = File::open(path).at(path)?;
    let metadata = file.metadata().at(path)?;
    if !metadata.is_file() {
        return Err(Error::new(path, ErrorKind::NotAFile));
    }
    let size = metadata.len();
    if size == 0 {
        return Err(Error::new(path, ErrorKind::EmptyFile));
    }
    let mut reader = BufReader::with_capacity(1 << 16, Reported::new(file, size, progress));
    arrays(&mut reader, size, &mut visit)
        .map_err(explained)
        .at(path)
}

fn arrays(
    reader: &mut impl BufRead,
    size: u64,
    visit: &mut dyn FnMut(&mut Array<'_>) -> Result<(), ErrorKind>,
) -> Result<(), ErrorKind> {
    header(reader)?;
    let mut left = size.saturating_sub(HEADER as u64);
    while !reader.fill_buf()?.is_empty() {
        let Tag { kind, bytes, .. } = Tag::read(reader)?;
        left = left.saturating_sub(8);
        let bytes = u64::from(bytes);
        if bytes > left {
            return Err(truncated());
        }
        left -= bytes;
        let mut content = reader.by_ref().take(bytes);
        match kind {
            element::MATRIX => matrix(&mut content, bytes, bytes, visit)?,
            element::COMPRESSED => {
                let mut unpacked = ZlibDecoder::new(&mut content);
                let Tag { kind, bytes, .. } = Tag::read(&mut unpacked)?;
                if kind != element::MATRIX {
                    return Err(unexpected("an array", kind));
                }
                let possible = content_limit(left, size);
                matrix(&mut unpacked, u64::from(bytes), possible, visit)?;
                // To the end, where the checksum is.
                if io::copy(&mut unpacked, &mut io::sink())? > 0 {
                    let text = "bytes follow a compressed array".to_owned();
                    return Err(ErrorKind::Mat(text));
                }
            }
            kind => return Err(unexpected("an array", kind)),
        }
        io::copy(&mut content, &mut io::sink())?;
    }
    Ok(())
}

/// The most bytes that the compressed bytes before the last `left` of a file can stand for.
fn content_limit(left: u64, size: u64) -> u64 {
    size.saturating_sub(left).saturating_mul(DEFLATE)
}

fn header(reader: &mut impl Read) -> Result<(), ErrorKind> {
    let mut header = [0; HEADER];
    reader.read_exact(&mut header)?;
    let other = |text: &str| Err(ErrorKind::Mat(text.to_owned()));
    match header {
        [.., 0, 1, b'I', b'M'] => Ok(()),
        [.., 0, 2, b'I', b'M'] => other("it is of version 7.3; expected version 5 or 7"),
        [.., b'M', b'I'] => other("its numbers are big-endian; expected little-endian"),
        _ => other("it has no header of a MAT-file of version 5"),
    }
}

/// What stands before every element.
struct Tag {
    kind: u32,
    bytes: u32,
    /// Data of at most four bytes, where they are in the tag itself.
    small: Option<[u8; 4]>,
}

impl Tag {
    fn read(reader: &mut (impl Read + ?Sized)) -> Result<Self, ErrorKind> {
        let mut tag = [0; 8];
        reader.read_exact(&mut tag)?;
        let [a, b, c, d, data @ ..] = tag;
        let first = u32::from_le_bytes([a, b, c, d]);
        let (kind, bytes) = (first & 0xFFFF, first >> 16);
        match bytes {
            0 => Ok(Self {
                kind,
                bytes: u32::from_le_bytes(data),
                small: None,
            }),
            1..=4 => Ok(Self {
                kind,
                bytes,
                small: Some(data),
            }),
            _ => Err(ErrorKind::Mat(format!(
                "an element in a tag has {bytes} bytes; expected at most 4"
            ))),
        }
    }

    /// The data of an element that has at most `limit` bytes of the given kind, without padding.
    fn data(
        &self,
        what: &str,
        kind: u32,
        limit: u32,
        reader: &mut dyn Read,
    ) -> Result<Vec<u8>, ErrorKind> {
        let Self { bytes, small, .. } = *self;
        if self.kind != kind || bytes > limit {
            let found = self.kind;
            return Err(ErrorKind::Mat(format!(
                "{what}: expected at most {limit} bytes of type {kind}, found {bytes} of type {found}"
            )));
        }
        if let Some(small) = small {
            return Ok(small[..bytes as usize].to_vec());
        }
        let mut data = vec![0; bytes.next_multiple_of(8) as usize];
        reader.read_exact(&mut data)?;
        data.truncate(bytes as usize);
        Ok(data)
    }
}

/// Reads an array's description, hands it out, and passes over what is left of its `bytes`.
fn matrix(
    reader: &mut dyn Read,
    bytes: u64,
    possible: u64,
    visit: &mut dyn FnMut(&mut Array<'_>) -> Result<(), ErrorKind>,
) -> Result<(), ErrorKind> {
    let mut rest = reader.take(bytes);
    let flags = Tag::read(&mut rest)?.data("flags", element::UINT32, 8, &mut rest)?;
    let class = class(&flags)?;
    // What MATLAB's objects are made of follows no description.
    if class != "opaque" {
        let tag = Tag::read(&mut rest)?;
        let lengths = tag.data("dimensions", element::INT32, 4 * MAX_DIMENSIONS, &mut rest)?;
        let (lengths, odd) = lengths.as_chunks::<4>();
        let length = |bytes: &[u8; 4]| usize::try_from(i32::from_le_bytes(*bytes)).ok();
        let shape: Option<Vec<usize>> = lengths.iter().map(length).collect();
        let shape = shape.filter(|_| odd.is_empty());
        let shape = shape.ok_or_else(|| ErrorKind::Mat("a dimension is negative".to_owned()))?;
        let name = Tag::read(&mut rest)?.data("a name", element::INT8, MAX_NAME, &mut rest)?;
        visit(&mut Array {
            name: String::from_utf8_lossy(&name).into_owned(),
            shape,
            class,
            rest: &mut rest,
            possible,
        })?;
    }
    io::copy(&mut rest, &mut io::sink())?;
    if rest.limit() > 0 {
        return Err(truncated());
    }
    Ok(())
}

fn class(flags: &[u8]) -> Result<&'static str, ErrorKind> {
    const COMPLEX: u8 = 0x08;
    let [class, flags, ..] = *flags else {
        return Err(truncated());
    };
    Ok(match class {
        _ if flags & COMPLEX != 0 => "complex",
        1 => "cell",
        2 => "struct",
        3 => "object",
        4 => "char",
        5 => "sparse",
        6 => "double",
        7 => "single",
        8 => "int8",
        9 => "uint8",
        10 => "int16",
        11 => "uint16",
        12 => "int32",
        13 => "uint32",
        14 => "int64",
        15 => "uint64",
        16 => "function",
        17 => "opaque",
        other => return Err(ErrorKind::Mat(format!("there is no class {other}"))),
    })
}

impl Array<'_> {
    /// The data, as many values as the shape says.
    ///
    /// # Errors
    ///
    /// An array that is not of plain numbers, or whose data have another length, or more than can
    /// come from the file.
    pub(crate) fn data(&mut self) -> Result<Data<'_>, ErrorKind> {
        let name = &self.name;
        let plain = ["double", "single"].contains(&self.class) || self.class.contains("int");
        if !plain {
            let class = self.class;
            return Err(ErrorKind::Mat(format!(
                "`{name}` is of class {class}; expected numbers"
            )));
        }
        let Tag { kind, bytes, small } = Tag::read(self.rest)?;
        let stored = Stored::new(kind).ok_or_else(|| unexpected("numbers", kind))?;
        let values = self.shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        let expected = values.and_then(|n| n.checked_mul(stored.bytes()));
        let Some(values) = values.filter(|_| expected == Some(bytes as usize)) else {
            return Err(ErrorKind::Mat(format!(
                "`{name}` of shape {:?} does not fill {bytes} bytes of {}-byte numbers",
                self.shape,
                stored.bytes()
            )));
        };
        if u64::from(bytes) > self.possible {
            return Err(truncated());
        }
        Ok(Data {
            values,
            stored,
            reader: match small {
                Some(data) => Box::new(Cursor::new(data).take(bytes.into())),
                None => Box::new((&mut *self.rest).take(bytes.into())),
            },
        })
    }
}

impl Data<'_> {
    /// All values, which must be whole numbers.
    pub(crate) fn whole_numbers(mut self) -> Result<Vec<i64>, ErrorKind> {
        let width = self.stored.bytes();
        let mut numbers = Vec::with_capacity(self.values);
        let mut block = vec![0; 4096 * width];
        while numbers.len() < self.values {
            let n = (self.values - numbers.len()).min(4096);
            let block = &mut block[..n * width];
            self.reader.read_exact(block)?;
            for bytes in block.chunks_exact(width) {
                numbers.push(self.stored.whole(bytes).ok_or_else(|| {
                    ErrorKind::Mat(format!("value {} is no whole number", numbers.len()))
                })?);
            }
        }
        Ok(numbers)
    }

    /// Fills `bytes` with the next values; they must be stored as bytes.
    pub(crate) fn bytes(&mut self, bytes: &mut [u8]) -> Result<(), ErrorKind> {
        if self.stored != Stored::U8 {
            let text = format!("bytes are stored as {:?}; expected U8", self.stored);
            return Err(ErrorKind::Mat(text));
        }
        Ok(self.reader.read_exact(bytes)?)
    }
}

impl Stored {
    fn new(kind: u32) -> Option<Self> {
        Some(match kind {
            1 => Self::I8,
            2 => Self::U8,
            3 => Self::I16,
            4 => Self::U16,
            5 => Self::I32,
            6 => Self::U32,
            7 => Self::F32,
            9 => Self::F64,
            12 => Self::I64,
            13 => Self::U64,
            _ => return None,
        })
    }

    fn bytes(self) -> usize {
        match self {
            Self::I8 | Self::U8 => 1,
            Self::I16 | Self::U16 => 2,
            Self::I32 | Self::U32 | Self::F32 => 4,
            Self::F64 | Self::I64 | Self::U64 => 8,
        }
    }

    fn whole(self, bytes: &[u8]) -> Option<i64> {
        let float = |x: f64| (x.fract() == 0.0 && x.abs() < 1e15).then_some(x as i64);
        let mut eight = [0; 8];
        eight.get_mut(..bytes.len())?.copy_from_slice(bytes);
        let [a, b, c, d, ..] = eight;
        match self {
            Self::I8 => Some(i8::from_le_bytes([a]).into()),
            Self::U8 => Some(a.into()),
            Self::I16 => Some(i16::from_le_bytes([a, b]).into()),
            Self::U16 => Some(u16::from_le_bytes([a, b]).into()),
            Self::I32 => Some(i32::from_le_bytes([a, b, c, d]).into()),
            Self::U32 => Some(u32::from_le_bytes([a, b, c, d]).into()),
            Self::F32 => float(f32::from_le_bytes([a, b, c, d]).into()),
            Self::F64 => float(f64::from_le_bytes(eight)),
            Self::I64 => Some(i64::from_le_bytes(eight)),
            Self::U64 => u64::from_le_bytes(eight).try_into().ok(),
        }
    }
}

fn truncated() -> ErrorKind {
    ErrorKind::Mat("it ends early".to_owned())
}

fn unexpected(expected: &str, found: u32) -> ErrorKind {
    ErrorKind::Mat(format!(
        "expected {expected}, found an element of type {found}"
    ))
}

/// What the reader's and the decompressor's errors mean here.
fn explained(kind: ErrorKind) -> ErrorKind {
    match kind {
        ErrorKind::Io(error) => match error.kind() {
            io::ErrorKind::UnexpectedEof => truncated(),
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => {
                ErrorKind::Mat(format!("it is damaged: {error}"))
            }
            _ => ErrorKind::Io(error),
        },
        kind => kind,
    }
}
