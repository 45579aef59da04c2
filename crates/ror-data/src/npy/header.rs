//! The header: a Python dictionary literal of exactly three entries.

use std::io::Read;

use crate::error::ErrorKind;

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// The longest header read, as NumPy itself allows when it does not trust a file.
const MAX_HEADER: usize = 10_000;
/// NumPy's own limit.
const MAX_DIMENSIONS: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum DType {
    F16,
    F32,
    F64,
}

impl DType {
    /// Bytes of one value.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Header {
    pub(super) dtype: DType,
    pub(super) fortran_order: bool,
    pub(super) shape: Vec<usize>,
}

impl Header {
    /// The number of values, unless that overflows or the dimensions are more than NumPy has.
    pub(super) fn values(&self) -> Option<usize> {
        if self.shape.len() > MAX_DIMENSIONS {
            return None;
        }
        // Zero anywhere is zero values, however large the rest.
        if self.shape.contains(&0) {
            return Some(0);
        }
        self.shape
            .iter()
            .try_fold(1usize, |product, n| product.checked_mul(*n))
    }

    /// Reads the header, and says how many bytes it took.
    pub(super) fn read(reader: &mut impl Read) -> Result<(Self, u64), ErrorKind> {
        let mut start = [0; 8];
        read_exact(reader, &mut start)?;
        if !start.starts_with(MAGIC) {
            return Err(bad("it does not begin as one"));
        }
        let mut length = [0; 4];
        let length_bytes = match start[6..] {
            [1, 0] => 2,
            [2 | 3, 0] => 4,
            _ => {
                return Err(bad(format!(
                    "format version {}.{} is unknown",
                    start[6], start[7]
                )));
            }
        };
        read_exact(reader, &mut length[..length_bytes])?;
        let length = u32::from_le_bytes(length) as usize;
        if length > MAX_HEADER {
            return Err(bad(format!(
                "a header of {length} bytes, above the limit of {MAX_HEADER}"
            )));
        }
        let mut text = vec![0; length];
        read_exact(reader, &mut text)?;
        let text = std::str::from_utf8(&text).map_err(|_| bad("the header is not text"))?;
        let header = Literal(text).header()?;
        Ok((header, (start.len() + length_bytes + length) as u64))
    }

    /// As NumPy writes it: version 1.0, padded so that the values begin at a multiple of 64.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let descr = match self.dtype {
            DType::F16 => "<f2",
            DType::F32 => "<f4",
            DType::F64 => "<f8",
        };
        let order = if self.fortran_order { "True" } else { "False" };
        let shape = match self.shape.as_slice() {
            [n] => format!("{n},"),
            shape => shape
                .iter()
                .map(usize::to_string)
                .collect::<Vec<_>>()
                .join(", "),
        };
        let mut text =
            format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': ({shape}), }}");
        let start = MAGIC.len() + 4;
        let padding = (start + text.len() + 1).next_multiple_of(64) - (start + text.len() + 1);
        text.extend(std::iter::repeat_n(' ', padding));
        text.push('\n');
        let length = text.len() as u16;
        [
            MAGIC.as_slice(),
            &[1, 0],
            &length.to_le_bytes(),
            text.as_bytes(),
        ]
        .concat()
    }
}

/// What is left to parse of the literal.
struct Literal<'a>(&'a str);

impl<'a> Literal<'a> {
    fn header(mut self) -> Result<Header, ErrorKind> {
        let (mut dtype, mut order, mut shape) = (None, None, None);
        self.expect('{')?;
        while !self.accept('}') {
            let key = self.string()?;
            self.expect(':')?;
            let first = match key {
                "descr" => dtype.replace(self.dtype()?).is_none(),
                "fortran_order" => order.replace(self.boolean()?).is_none(),
                "shape" => shape.replace(self.shape()?).is_none(),
                _ => return Err(bad(format!("unknown header key '{key}'"))),
            };
            if !first {
                return Err(bad(format!("header key '{key}' twice")));
            }
            if !self.accept(',') {
                self.expect('}')?;
                break;
            }
        }
        if !self.0.trim().is_empty() {
            return Err(bad("text after the header's dictionary"));
        }
        match (dtype, order, shape) {
            (Some(dtype), Some(fortran_order), Some(shape)) => Ok(Header {
                dtype,
                fortran_order,
                shape,
            }),
            _ => Err(bad("the header lacks descr, fortran_order or shape")),
        }
    }

    fn dtype(&mut self) -> Result<DType, ErrorKind> {
        if self.0.trim_start().starts_with('[') {
            return Err(bad("a structured array; expected float32"));
        }
        match self.string()? {
            "<f2" => Ok(DType::F16),
            "<f4" => Ok(DType::F32),
            "<f8" => Ok(DType::F64),
            other => Err(bad(format!(
                "values of type '{other}'; expected float32 '<f4', float64 '<f8' or float16 '<f2'"
            ))),
        }
    }

    fn shape(&mut self) -> Result<Vec<usize>, ErrorKind> {
        let mut shape = Vec::new();
        self.expect('(')?;
        while !self.accept(')') {
            shape.push(self.integer()?);
            if !self.accept(',') {
                self.expect(')')?;
                break;
            }
        }
        Ok(shape)
    }

    fn integer(&mut self) -> Result<usize, ErrorKind> {
        let text = self.0.trim_start();
        let end = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let value = text[..end]
            .parse()
            .map_err(|_| bad("a dimension that is no number, or too large"))?;
        // Python 2 marks its long integers.
        self.0 = text[end..].strip_prefix('L').unwrap_or(&text[end..]);
        Ok(value)
    }

    fn boolean(&mut self) -> Result<bool, ErrorKind> {
        let text = self.0.trim_start();
        let (value, rest) = match (text.strip_prefix("True"), text.strip_prefix("False")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => return Err(bad("fortran_order is neither True nor False")),
        };
        self.0 = rest;
        Ok(value)
    }

    /// A string without escapes, which none of the strings here needs.
    fn string(&mut self) -> Result<&'a str, ErrorKind> {
        let text = self.0.trim_start();
        let quoted = ['\'', '"']
            .into_iter()
            .find_map(|quote| text.strip_prefix(quote)?.split_once(quote));
        let (value, rest) = quoted.ok_or_else(|| bad("the header is no dictionary of strings"))?;
        self.0 = rest;
        Ok(value)
    }

    fn accept(&mut self, token: char) -> bool {
        let rest = self.0.trim_start().strip_prefix(token);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn expect(&mut self, token: char) -> Result<(), ErrorKind> {
        if self.accept(token) {
            return Ok(());
        }
        Err(bad(format!("the header lacks a '{token}'")))
    }
}

fn bad(reason: impl Into<String>) -> ErrorKind {
    ErrorKind::Npy(reason.into())
}

fn read_exact(reader: &mut impl Read, bytes: &mut [u8]) -> Result<(), ErrorKind> {
    reader
        .read_exact(bytes)
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => bad("the file ends within its header"),
            _ => error.into(),
        })
}
