//! What a weight file holds, told from its content alone.

use std::fs;
use std::path::Path;

use crate::archive::Archive;
use crate::error::{ErrorKind, Result};
use crate::keras::{self, KerasFile};
use crate::named::NamedFile;
use crate::{pytorch, safetensors};

/// The content of a weight file, before anything is known of the network it belongs to.
#[derive(Debug)]
pub(crate) enum Content {
    Keras(KerasFile),
    /// PyTorch or safetensors.
    Named(NamedFile),
}

/// Reads the weight file at `path`.
///
/// Memory is bounded by a small multiple of the file's size, whatever the file claims.
pub(crate) fn read(path: &Path) -> Result<Content> {
    parse(read_bytes_of(path)?)
}

fn read_bytes_of(path: &Path) -> Result<Vec<u8>> {
    let kind = fs::metadata(path)?.file_type();
    if kind.is_dir() {
        return Err(unrecognised("a folder"));
    }
    if !kind.is_file() {
        return Err(unrecognised("a device or a pipe"));
    }
    Ok(fs::read(path)?)
}

/// Recognises and reads the content of a file.
pub(crate) fn parse(bytes: Vec<u8>) -> Result<Content> {
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06") {
        parse_zip(&bytes)
    } else if hdf5::is_hdf5_bytes(&bytes) {
        keras::read_hdf5(bytes).map(Content::Keras)
    } else if pytorch::is_legacy(&bytes) {
        pytorch::read_legacy(&bytes).map(Content::Named)
    } else if safetensors::is_safetensors(&bytes) {
        safetensors::read(&bytes).map(Content::Named)
    } else {
        Err(unrecognised(describe(&bytes)))
    }
}

fn parse_zip(bytes: &[u8]) -> Result<Content> {
    let mut archive = Archive::open(bytes)?;
    let names = archive.names()?;
    if pytorch::is_pytorch(&names) {
        pytorch::read_zip(&mut archive, bytes.len()).map(Content::Named)
    } else if keras::is_keras(&names) {
        keras::read_archive(&mut archive).map(Content::Keras)
    } else {
        Err(unrecognised(match names.as_slice() {
            [] => "an empty zip archive".to_owned(),
            [first, ..] if first.ends_with(".npy") => "a NumPy .npz archive".to_owned(),
            [first, ..] => format!("a zip archive of other things (`{first}`, ...)"),
        }))
    }
}

fn unrecognised(found: impl Into<String>) -> ErrorKind {
    ErrorKind::Unrecognised {
        found: found.into(),
    }
}

/// What `bytes` look like, for the error that says they are no weights.
fn describe(bytes: &[u8]) -> String {
    const SIGNATURES: [(&[u8], &str); 9] = [
        (b"\x80\x02", "a Python pickle that torch.save did not write"),
        (b"\x80\x03", "a Python pickle that torch.save did not write"),
        (b"\x80\x04", "a Python pickle that torch.save did not write"),
        (b"\x93NUMPY", "a NumPy .npy array"),
        (b"\x1f\x8b", "a gzip file (unpack it first)"),
        (b"\xff\xd8\xff", "a JPEG image"),
        (b"\x89PNG", "a PNG image"),
        (b"\x89HDF", "the beginning of a damaged HDF5 file"),
        (b"\x7fELF", "a program"),
    ];
    if bytes.is_empty() {
        return "an empty file".to_owned();
    }
    if let Some((_, what)) = SIGNATURES
        .iter()
        .find(|(magic, _)| bytes.starts_with(magic))
    {
        return (*what).to_owned();
    }
    let start = &bytes[..bytes.len().min(64)];
    let utf8 = std::str::from_utf8(start).map_or_else(|e| e.error_len().is_none(), |_| true);
    if utf8
        && !start
            .iter()
            .any(|b| b.is_ascii_control() && !b.is_ascii_whitespace())
    {
        return "a text file".to_owned();
    }
    format!(
        "a file that begins with the bytes {:02x?}",
        &start[..start.len().min(8)]
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::tests::zip_of;
    use zip::CompressionMethod::Stored;

    fn found(bytes: &[u8]) -> String {
        match parse(bytes.to_vec()) {
            Err(ErrorKind::Unrecognised { found }) => found,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn other_files_are_named_for_what_they_are() {
        for (bytes, what) in [
            (&b""[..], "an empty file"),
            (b"hello\n", "a text file"),
            ("{\"a\": \"\u{e9}\"}".as_bytes(), "a text file"),
            (b"\x93NUMPY\x01\0", "a NumPy .npy array"),
            (
                b"\x80\x02}.",
                "a Python pickle that torch.save did not write",
            ),
            (b"\x89HDF\r\n", "the beginning of a damaged HDF5 file"),
            (
                b"\x00\x01\x02",
                "a file that begins with the bytes [00, 01, 02]",
            ),
        ] {
            assert_eq!(found(bytes), what);
        }
        assert_eq!(found(&zip_of(&[], Stored)), "an empty zip archive");
        assert_eq!(
            found(&zip_of(&[("a.npy", b"")], Stored)),
            "a NumPy .npz archive"
        );
        assert_eq!(
            found(&zip_of(&[("a.txt", b"")], Stored)),
            "a zip archive of other things (`a.txt`, ...)"
        );
    }

    #[test]
    fn a_folder_and_a_missing_file_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let error = read(dir.path()).unwrap_err();
        assert!(error.to_string().contains("it is a folder"), "{error}");
        let missing = dir.path().join("none.h5");
        assert!(matches!(read(&missing), Err(ErrorKind::Io(_))));
    }
}
