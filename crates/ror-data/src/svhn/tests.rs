use std::fs;
use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use proptest::prelude::*;

use super::*;
use crate::image::{Image, Size};

const UINT8: u8 = 9;
const DOUBLE: u8 = 6;

/// An element with its tag, padded to eight bytes.
fn element(kind: u32, data: &[u8]) -> Vec<u8> {
    let length = data.len() as u32;
    let mut out = [&kind.to_le_bytes()[..], &length.to_le_bytes(), data].concat();
    out.resize(out.len().next_multiple_of(8), 0);
    out
}

/// An array: its class, its shape, the type that its data are stored as, the data.
fn array(name: &str, class: u8, shape: &[i32], stored: u32, data: &[u8]) -> Vec<u8> {
    let shape: Vec<u8> = shape.iter().flat_map(|d| d.to_le_bytes()).collect();
    let parts = [
        element(6, &[class, 0, 0, 0, 0, 0, 0, 0]),
        element(5, &shape),
        element(1, name.as_bytes()),
        element(stored, data),
    ];
    element(14, &parts.concat())
}

fn compressed(array: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(array).unwrap();
    let data = encoder.finish().unwrap();
    // Not padded.
    [
        &15u32.to_le_bytes()[..],
        &(data.len() as u32).to_le_bytes(),
        &data,
    ]
    .concat()
}

fn file(arrays: &[Vec<u8>]) -> Vec<u8> {
    let mut header = b"MATLAB 5.0 MAT-file".to_vec();
    header.resize(124, b' ');
    header.extend([0, 1, b'I', b'M']);
    [header, arrays.concat()].concat()
}

/// Image `n` as stored: its value at (row, column, channel) is `pixel`.
fn stored(n: usize) -> Vec<u8> {
    (0..IMAGE)
        .map(|at| pixel(n, at % SIDE, at / SIDE % SIDE, at / (SIDE * SIDE)))
        .collect()
}

fn pixel(n: usize, row: usize, column: usize, channel: usize) -> u8 {
    (n * 31 + row * 7 + column * 3 + channel * 101) as u8
}

/// The same as (H, W, 3).
fn rows(n: usize) -> Vec<u8> {
    (0..IMAGE)
        .map(|at| pixel(n, at / (3 * SIDE), at / 3 % SIDE, at % 3))
        .collect()
}

fn images(from: usize, n: usize) -> Vec<u8> {
    let data: Vec<u8> = (from..from + n).flat_map(stored).collect();
    array("X", UINT8, &[32, 32, 3, n as i32], 2, &data)
}

fn labels(labels: &[u8]) -> Vec<u8> {
    array("y", UINT8, &[labels.len() as i32, 1], 2, labels)
}

fn folder(files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(root.path().join(name), bytes).unwrap();
    }
    root
}

fn open(root: &tempfile::TempDir, split: Split) -> Result<Dataset> {
    Dataset::open(root.path(), split, &Options::default())
}

/// What is said of a test file that holds `bytes`, after its name.
fn error(bytes: Vec<u8>) -> String {
    let root = folder(&[(TEST, bytes)]);
    let error = open(&root, Split::Test).unwrap_err();
    assert_eq!(error.path(), root.path().join(TEST));
    error.kind().to_string()
}

#[test]
fn columns_become_rows_and_ten_becomes_zero_packed_or_not() {
    let plain = file(&[images(0, 3), labels(&[10, 1, 9])]);
    let packed = file(&[compressed(&labels(&[10, 1, 9])), compressed(&images(0, 3))]);
    for bytes in [plain, packed] {
        let test = open(&folder(&[(TEST, bytes)]), Split::Test).unwrap();
        assert_eq!(test.labels(), [0, 1, 9]);
        assert_eq!(test.classes()[7], "7");
        for n in 0..3 {
            assert_eq!(test.image(n).unwrap(), rows(n));
        }
        assert_eq!(test.provenance().name, "SVHN");
        assert_eq!(test.provenance().format, Format::Svhn);
    }
}

#[test]
fn extra_joins_training_only_where_asked() {
    let root = folder(&[
        (TRAIN, file(&[compressed(&images(0, 2)), labels(&[1, 2])])),
        (EXTRA, file(&[images(2, 2), compressed(&labels(&[3, 10]))])),
        (TEST, file(&[images(4, 1), labels(&[5])])),
    ]);
    assert_eq!(open(&root, Split::Train).unwrap().labels(), [1, 2]);
    let extra = |split| {
        let options = Options {
            extra: true,
            ..Options::default()
        };
        Dataset::open(root.path(), split, &options)
    };
    let train = extra(Split::Train).unwrap();
    assert_eq!(train.labels(), [1, 2, 3, 0]);
    for n in 0..4 {
        assert_eq!(train.image(n).unwrap(), rows(n));
    }
    assert_eq!(train.provenance().name, "SVHN with extra");
    assert_eq!(extra(Split::Test).unwrap().labels(), [5]);

    fs::remove_file(root.path().join(EXTRA)).unwrap();
    let missing = extra(Split::Train).unwrap_err().to_string();
    assert!(missing.ends_with("missing: extra_32x32.mat"), "{missing}");
    fs::remove_file(root.path().join(TRAIN)).unwrap();
    let missing = open(&root, Split::Train).unwrap_err().to_string();
    assert!(missing.ends_with("missing: train_32x32.mat"), "{missing}");
}

#[test]
fn other_arrays_are_passed_over_and_labels_may_be_of_any_whole_type() {
    let doubles: Vec<u8> = [4.0f64, 10.0]
        .iter()
        .flat_map(|x| x.to_le_bytes())
        .collect();
    let words: Vec<u8> = [4u16, 10].iter().flat_map(|x| x.to_le_bytes()).collect();
    // Up to four bytes may stand in the tag.
    let small = {
        let mut y = labels(&[4, 10]);
        let at = y.len() - 16;
        y.splice(at.., [2, 0, 2, 0, 4, 10, 0, 0]);
        let length = (y.len() - 8) as u32;
        y.splice(4..8, length.to_le_bytes());
        y
    };
    for y in [
        array("y", DOUBLE, &[2, 1], 9, &doubles),
        array("y", DOUBLE, &[1, 2], 2, &[4, 10]),
        array("y", 11, &[2, 1], 4, &words),
        small,
    ] {
        let note = array("note", 4, &[1, 2], 4, b"h\0i\0");
        let object = element(14, &element(6, &[17, 0, 0, 0, 0, 0, 0, 0]));
        let bytes = file(&[note, images(0, 2), object, y]);
        let test = open(&folder(&[(TEST, bytes)]), Split::Test).unwrap();
        assert_eq!(test.labels(), [4, 0]);
    }
}

#[test]
fn a_single_image_has_no_fourth_dimension() {
    let one = array("X", UINT8, &[32, 32, 3], 2, &stored(0));
    let root = folder(&[(TEST, file(&[one, labels(&[6])]))]);
    assert_eq!(open(&root, Split::Test).unwrap().image(0).unwrap(), rows(0));
}

#[test]
fn another_size_is_fitted_and_counted() {
    let root = folder(&[(TEST, file(&[images(0, 2), labels(&[1, 2])]))]);
    let options = Options {
        size: Size::new(8, 8).unwrap(),
        ..Options::default()
    };
    let test = Dataset::open(root.path(), Split::Test, &options).unwrap();
    let fitted = Image::from_pixels(rows(1), Size::CIFAR)
        .unwrap()
        .fit(options.size);
    assert_eq!(test.image(1).unwrap(), fitted.pixels());
    assert_eq!(test.resized(), 2);
}

#[test]
fn what_is_wrong_is_said_with_what_was_expected() {
    let y = labels(&[1, 2]);
    let x = images(0, 2);
    let floats = vec![0; 4 * 2 * IMAGE];
    let halves: Vec<u8> = [0.5f64, 1.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    for (arrays, expected) in [
        (vec![x.clone()], "no array `y`"),
        (vec![y.clone()], "no array `X`"),
        (vec![x.clone(), x.clone(), y.clone()], "`X` is there twice"),
        (vec![x.clone(), labels(&[1])], "2 images with 1 labels"),
        (
            vec![x.clone(), labels(&[1, 11])],
            "image 1 has label 11; expected 1 to 10",
        ),
        (
            vec![x.clone(), labels(&[0, 1])],
            "image 0 has label 0; expected 1 to 10",
        ),
        (
            vec![x.clone(), array("y", DOUBLE, &[2, 1], 9, &halves)],
            "value 0 is no whole number",
        ),
        (
            vec![x.clone(), array("y", 1, &[2, 1], 2, &[1, 2])],
            "`y` is of class cell; expected numbers",
        ),
        (
            vec![x.clone(), array("y", UINT8, &[2, 2], 2, &[1; 4])],
            "`y`: expected (N, 1), found [2, 2]",
        ),
        (
            vec![array("X", 7, &[32, 32, 3, 2], 7, &floats), y.clone()],
            "`X`: expected uint8 (32, 32, 3, N), found single [32, 32, 3, 2]",
        ),
        (
            vec![array("X", UINT8, &[2, 3, 32, 32], 2, &floats[..2 * IMAGE])],
            "`X`: expected uint8 (32, 32, 3, N), found uint8 [2, 3, 32, 32]",
        ),
        (
            vec![array("X", UINT8, &[32, 32, 3, 3], 2, &floats[..2 * IMAGE])],
            "`X` of shape [32, 32, 3, 3] does not fill 6144 bytes of 1-byte numbers",
        ),
        (
            vec![array("X", UINT8, &[32, 32, 3, -1], 2, &[])],
            "a dimension is negative",
        ),
    ] {
        let found = error(file(&arrays));
        assert!(found.ends_with(expected), "{found}, expected {expected}");
    }
}

#[test]
fn other_versions_are_named() {
    let mut bytes = file(&[]);
    bytes[124..].copy_from_slice(&[1, 0, b'M', b'I']);
    assert!(error(bytes.clone()).contains("big-endian"));
    bytes[124..].copy_from_slice(&[0, 2, b'I', b'M']);
    assert!(error(bytes).contains("version 7.3"));
    assert!(error(vec![b' '; 200]).contains("no header of a MAT-file"));
    assert!(error(b"short".to_vec()).contains("ends early"));
    assert_eq!(error(Vec::new()), "the file is empty");
}

#[test]
fn a_claim_of_many_images_takes_no_memory() {
    // As many as the default limit allows, in a file of a few bytes.
    let n = 2_000_000i32;
    let mut x = array("X", UINT8, &[32, 32, 3, n / 2], 2, &[]);
    let end = x.len();
    x.splice(end - 4.., (n as u32 / 2 * IMAGE as u32).to_le_bytes());
    x.splice(4..8, (u32::MAX - 8).to_le_bytes());
    for bytes in [file(&[x.clone()]), file(&[compressed(&x)])] {
        assert!(error(bytes).ends_with("it ends early"));
    }
    let root = folder(&[(TEST, file(&[images(0, 2), labels(&[1, 2])]))]);
    let options = Options {
        memory_limit: 6143,
        ..Options::default()
    };
    let error = Dataset::open(root.path(), Split::Test, &options).unwrap_err();
    assert!(matches!(
        error.kind(),
        ErrorKind::DatasetTooLarge { images: 2, .. }
    ));
}

#[test]
fn every_truncation_and_a_wrong_checksum_are_errors() {
    let first = compressed(&images(0, 1));
    let second = compressed(&labels(&[1]));
    let whole = file(&[first.clone(), second.clone()]);
    for end in (1..whole.len()).step_by(13) {
        error(whole[..end].to_vec());
    }
    let mut damaged = whole.clone();
    let at = 128 + first.len() - 1;
    damaged[at] ^= 1;
    assert!(error(damaged).contains("it is damaged"));
}

#[test]
fn only_svhn_has_extra_images() {
    let root = folder(&[]);
    fs::create_dir(root.path().join("a")).unwrap();
    let options = Options {
        extra: true,
        ..Options::default()
    };
    let error = Dataset::open(root.path(), Split::Train, &options).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("missing: extra_32x32.mat of SVHN")
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_damage_makes_the_reader_panic(
        packed in any::<bool>(),
        damage in prop::collection::vec((128usize..330, any::<u8>()), 1..5),
    ) {
        let arrays = [labels(&[1, 2, 3]), images(0, 1)];
        let mut bytes = file(&arrays.map(|a| if packed { compressed(&a) } else { a }));
        for (at, byte) in damage {
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        let root = folder(&[(TEST, bytes)]);
        let _ = open(&root, Split::Test);
    }
}
