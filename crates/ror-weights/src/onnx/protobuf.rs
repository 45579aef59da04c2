//! Protocol buffers, as much as writing needs.
//!
//! Source: <https://protobuf.dev/programming-guides/encoding/>.

use std::io::Write;

use crate::error::Result;

/// A message under construction. Long arrays of floats are only counted, and computed when the
/// message is written: it streams, however large it is.
#[derive(Default)]
pub(super) struct Message<'a> {
    parts: Vec<Part<'a>>,
    len: u64,
}

enum Part<'a> {
    Bytes(Vec<u8>),
    Floats(Floats<'a>),
}

/// Float32 values to be written little-endian.
pub(super) struct Floats<'a> {
    count: usize,
    values: Box<dyn FnOnce() -> Result<Vec<f32>> + 'a>,
}

impl<'a> Floats<'a> {
    /// The `count` values that `values` will give.
    pub(super) fn new(count: usize, values: impl FnOnce() -> Result<Vec<f32>> + 'a) -> Self {
        Self {
            count,
            values: Box::new(values),
        }
    }
}

/// How a field's value is encoded.
#[derive(Clone, Copy)]
enum WireType {
    Varint = 0,
    Length = 2,
    Fixed32 = 5,
}

impl<'a> Message<'a> {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// An `int64`, `int32` or enum.
    pub(super) fn int(mut self, field: u32, value: i64) -> Self {
        self.tag(field, WireType::Varint);
        self.varint(value.cast_unsigned());
        self
    }

    /// A repeated `int64`, unpacked, as the ONNX schema declares it.
    pub(super) fn ints(self, field: u32, values: &[i64]) -> Self {
        values.iter().fold(self, |m, &value| m.int(field, value))
    }

    /// A `float`.
    pub(super) fn float(mut self, field: u32, value: f32) -> Self {
        self.tag(field, WireType::Fixed32);
        self.push(&value.to_le_bytes());
        self
    }

    /// A `string` or `bytes`.
    pub(super) fn bytes(mut self, field: u32, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        self.tag(field, WireType::Length);
        self.varint(value.len() as u64);
        self.push(value);
        self
    }

    /// A `bytes` that holds floats.
    pub(super) fn floats(mut self, field: u32, floats: Floats<'a>) -> Self {
        let len = floats.count as u64 * size_of::<f32>() as u64;
        self.tag(field, WireType::Length);
        self.varint(len);
        self.parts.push(Part::Floats(floats));
        self.len += len;
        self
    }

    /// A message within this one.
    pub(super) fn message(mut self, field: u32, inner: Message<'a>) -> Self {
        self.tag(field, WireType::Length);
        self.varint(inner.len);
        for part in inner.parts {
            match part {
                Part::Bytes(bytes) => self.push(&bytes),
                Part::Floats(floats) => {
                    self.len += floats.count as u64 * size_of::<f32>() as u64;
                    self.parts.push(Part::Floats(floats));
                }
            }
        }
        self
    }

    /// A repeated message.
    pub(super) fn messages(self, field: u32, inner: Vec<Message<'a>>) -> Self {
        inner
            .into_iter()
            .fold(self, |m, inner| m.message(field, inner))
    }

    /// Bytes that it takes.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn write(self, out: &mut dyn Write) -> Result<()> {
        for part in self.parts {
            match part {
                Part::Bytes(bytes) => out.write_all(&bytes)?,
                Part::Floats(Floats { count, values }) => {
                    let values = values()?;
                    debug_assert_eq!(values.len(), count);
                    for value in values {
                        out.write_all(&value.to_le_bytes())?;
                    }
                }
            }
        }
        Ok(())
    }

    fn tag(&mut self, field: u32, wire: WireType) {
        self.varint(u64::from(field) << 3 | wire as u64);
    }

    /// Seven bits a byte, the lowest first.
    fn varint(&mut self, mut value: u64) {
        let mut bytes = Vec::with_capacity(10);
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        self.push(&bytes);
    }

    fn push(&mut self, bytes: &[u8]) {
        self.len += bytes.len() as u64;
        match self.parts.last_mut() {
            Some(Part::Bytes(last)) => last.extend_from_slice(bytes),
            _ => self.parts.push(Part::Bytes(bytes.to_vec())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(message: Message) -> Vec<u8> {
        let len = message.len();
        let mut bytes = Vec::new();
        message.write(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, len);
        bytes
    }

    #[test]
    fn the_encoding_guides_examples_come_out() {
        assert_eq!(encoded(Message::new().int(1, 150)), [0x08, 0x96, 0x01]);
        let text = Message::new().bytes(2, "testing");
        assert_eq!(encoded(text), b"\x12\x07testing");
        let nested = Message::new().message(3, Message::new().int(1, 150));
        assert_eq!(encoded(nested), [0x1a, 0x03, 0x08, 0x96, 0x01]);
        let minus_two = [&[0xfe_u8] as &[u8], &[0xff; 8], &[0x01]].concat();
        assert_eq!(encoded(Message::new().int(1, -2))[1..], minus_two);
        assert_eq!(
            encoded(Message::new().float(2, 1.0)),
            [0x15, 0, 0, 0x80, 0x3f]
        );
        // Two bytes of tag: fields from 16 on.
        assert_eq!(encoded(Message::new().int(20, 7)), [0xa0, 0x01, 0x07]);
    }

    #[test]
    fn floats_are_written_in_their_place() {
        let floats = Floats::new(2, || Ok(vec![1.0, -1.0]));
        let inner = Message::new().int(1, 1).floats(9, floats).int(1, 2);
        let message = Message::new().message(7, inner).int(1, 3);
        let floats = [1f32.to_le_bytes(), (-1f32).to_le_bytes()].concat();
        let expected = [
            &[0x3a, 14, 0x08, 1, 0x4a, 8],
            floats.as_slice(),
            &[0x08, 2, 0x08, 3],
        ];
        assert_eq!(encoded(message), expected.concat());
    }
}
