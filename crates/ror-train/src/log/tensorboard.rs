//! TensorBoard event files.
//!
//! A file is a sequence of TFRecords (length, its checksum, data, its checksum), the data
//! `tensorflow.Event` messages in protocol buffers' wire format (tensorflow/core/util/event.proto,
//! framework/summary.proto). Only scalars are written.

use crate::error::{At, Result};
use std::fs::File;
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// An event file, open to append to.
#[derive(Debug)]
pub(crate) struct EventLog {
    path: PathBuf,
    file: BufWriter<File>,
}

impl EventLog {
    /// Begins a new event file in `folder`. TensorBoard forgets what older files there say about
    /// steps after `step`.
    pub(crate) fn create(folder: &Path, step: u64) -> Result<Self> {
        let started = now() as u64;
        let (path, file) = (0..)
            .find_map(|n| {
                let path = folder.join(format!("events.out.tfevents.{started:010}.{n:03}.ror"));
                match File::create_new(&path) {
                    Err(error) if error.kind() == ErrorKind::AlreadyExists && n < 999 => None,
                    result => Some(result.at(&path).map(|file| (path, file))),
                }
            })
            .unwrap_or_else(|| Err(std::io::Error::from(ErrorKind::AlreadyExists)).at(folder))?;
        let mut log = Self {
            path,
            file: BufWriter::new(file),
        };
        let mut version = Message::event(0);
        version.text(3, "brain.Event:2");
        log.record(&version)?;
        let mut session = Message::default();
        session.number(1, 1); // START
        let mut event = Message::event(step + 1);
        event.message(7, &session);
        log.record(&event)?;
        log.flush()?;
        Ok(log)
    }

    /// Writes some scalars of a step.
    pub(crate) fn scalars(&mut self, step: u64, scalars: &[(&str, f64)]) -> Result<()> {
        let mut summary = Message::default();
        for &(tag, value) in scalars {
            let mut entry = Message::default();
            entry.text(1, tag);
            entry.float(2, value as f32);
            summary.message(1, &entry);
        }
        let mut event = Message::event(step);
        event.message(5, &summary);
        self.record(&event)
    }

    /// Hands everything to the operating system.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.file.flush().at(&self.path)
    }

    fn record(&mut self, event: &Message) -> Result<()> {
        let data = &event.0;
        let length = (data.len() as u64).to_le_bytes();
        let mut record = Vec::with_capacity(data.len() + 16);
        record.extend(length);
        record.extend(masked_checksum(&length).to_le_bytes());
        record.extend(data);
        record.extend(masked_checksum(data).to_le_bytes());
        self.file.write_all(&record).at(&self.path)
    }
}

/// CRC-32C, rotated and shifted so that checksums of checksums stay good ones (TFRecord).
fn masked_checksum(data: &[u8]) -> u32 {
    crc32c::crc32c(data)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

/// A protocol buffers message.
#[derive(Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    /// An `Event` of now.
    fn event(step: u64) -> Self {
        let mut event = Self::default();
        event.key(1, 1);
        event.0.extend(now().to_le_bytes());
        event.number(2, step);
        event
    }

    /// Field number and wire type: 0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes.
    fn key(&mut self, field: u64, wire: u64) {
        self.varint(field << 3 | wire);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(&mut self, field: u64, value: u64) {
        self.key(field, 0);
        self.varint(value);
    }

    fn float(&mut self, field: u64, value: f32) {
        self.key(field, 5);
        self.0.extend(value.to_le_bytes());
    }

    fn text(&mut self, field: u64, text: &str) {
        self.key(field, 2);
        self.varint(text.len() as u64);
        self.0.extend(text.bytes());
    }

    fn message(&mut self, field: u64, message: &Message) {
        self.key(field, 2);
        self.varint(message.0.len() as u64);
        self.0.extend(&message.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_crc32c_masked() {
        // The check value of CRC-32C, and what TensorFlow's `Mask` makes of it.
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(masked_checksum(b"123456789"), 0xc78a_b0e5);
    }

    #[test]
    fn scalars_are_encoded_as_protocol_buffers_do() {
        let mut entry = Message::default();
        entry.text(1, "ab");
        entry.float(2, 1.0);
        entry.number(3, 300);
        let expected = [
            0x0a, 2, b'a', b'b', 0x15, 0, 0, 0x80, 0x3f, 0x18, 0xac, 0x02,
        ];
        assert_eq!(entry.0, expected);
    }

    #[test]
    fn files_of_one_second_do_not_overwrite_each_other() {
        let folder = tempfile::tempdir().unwrap();
        for step in 0..3 {
            let mut log = EventLog::create(folder.path(), step).unwrap();
            log.scalars(step, &[("a", 1.0), ("b", f64::from(step as u32))])
                .unwrap();
            log.flush().unwrap();
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn records_can_be_walked_to_the_end_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = EventLog::create(folder.path(), 5).unwrap();
        log.scalars(6, &[("loss", 0.5)]).unwrap();
        log.flush().unwrap();
        let bytes = std::fs::read(&log.path).unwrap();
        let (mut at, mut records) = (0, 0);
        while at < bytes.len() {
            let length: [u8; 8] = bytes[at..at + 8].try_into().unwrap();
            let data = &bytes[at + 12..][..u64::from_le_bytes(length) as usize];
            let sum = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
            assert_eq!(sum(at + 8), masked_checksum(&length));
            at += 12 + data.len();
            assert_eq!(sum(at), masked_checksum(data));
            at += 4;
            records += 1;
        }
        assert_eq!(records, 3); // version, session, scalars
    }
}
