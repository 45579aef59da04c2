use std::fs;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::*;
use crate::image::{Image, Size};

/// The bytes of an image as stored: no two pixels of a plane alike, and planes unlike each other.
fn planes(seed: u8) -> Vec<u8> {
    (0..IMAGE)
        .map(|i| {
            (i as u8)
                .wrapping_mul(7)
                .wrapping_add((i / AREA) as u8 * 50)
                .wrapping_add(seed)
        })
        .collect()
}

/// What `planes` should become.
fn interleaved(seed: u8) -> Vec<u8> {
    let planes = planes(seed);
    (0..IMAGE)
        .map(|at| planes[at % 3 * AREA + at / 3])
        .collect()
}

fn write(folder: &Path, files: &[(&str, Vec<u8>)]) {
    fs::create_dir_all(folder).unwrap();
    for (name, bytes) in files {
        fs::write(folder.join(name), bytes).unwrap();
    }
}

fn archive(path: &Path, folder: &str, files: &[(&str, Vec<u8>)]) {
    let file = fs::File::create(path).unwrap();
    let mut tar = tar::Builder::new(GzEncoder::new(file, Compression::fast()));
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, format!("{folder}/{name}"), bytes.as_slice())
            .unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap();
}

fn record(labels: &[u8], seed: u8) -> Vec<u8> {
    [labels, &planes(seed)].concat()
}

fn cifar10_binary() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("data_batch_1.bin", record(&[0], 1)),
        (
            "data_batch_2.bin",
            [record(&[1], 2), record(&[2], 3)].concat(),
        ),
        ("batches.meta.txt", b"cat\ndog\nowl\n\n".to_vec()),
        ("data_batch_3.bin", record(&[1], 4)),
        ("data_batch_5.bin", record(&[0], 6)),
        ("data_batch_4.bin", record(&[2], 5)),
        (
            "test_batch.bin",
            [record(&[2], 7), record(&[0], 8)].concat(),
        ),
    ]
}

fn cifar100_binary() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("train.bin", record(&[0, 2], 1)),
        (
            "test.bin",
            [record(&[1, 0], 2), record(&[0, 1], 3)].concat(),
        ),
        ("fine_label_names.txt", b"apple\nbear\nchair".to_vec()),
        ("coarse_label_names.txt", b"life\r\nthings\r\n".to_vec()),
    ]
}

/// Pickles a batch as Python 2's cPickle does with protocol 2.
fn python2(labels: &[(&str, &[u8])], images: &[u8], fortran: bool) -> Vec<u8> {
    let mut out = b"\x80\x02}q\x01(".to_vec();
    for (key, labels) in labels {
        out.extend([b"U".as_slice(), &[key.len() as u8], key.as_bytes(), b"]("].concat());
        out.extend(labels.iter().flat_map(|label| [b'K', *label]));
        out.push(b'e');
    }
    out.extend(b"U\x04dataq\x04cnumpy.core.multiarray\n_reconstruct\nq\x05cnumpy\nndarray\nq\x06K\x00\x85U\x01b\x87R");
    out.extend(
        [
            b"q\x07(K\x01K",
            &[(images.len() / IMAGE) as u8][..],
            b"M\x00\x0c\x86",
        ]
        .concat(),
    );
    out.extend(b"cnumpy\ndtype\nq\x08U\x02u1K\x00K\x01\x87Rq\t(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb");
    out.extend([if fortran { 0x88 } else { 0x89 }, b'T']);
    out.extend((images.len() as u32).to_le_bytes());
    out.extend(images);
    out.extend(b"tbu.");
    out
}

/// Pickles names as Python 3 does with protocol 2.
fn python3_names(key: &str, names: &[&str]) -> Vec<u8> {
    let encoded = |text: &str| {
        let length = (text.len() as u32).to_le_bytes();
        [
            b"c_codecs\nencode\nX",
            &length[..],
            text.as_bytes(),
            b"X\x06\0\0\0latin1\x86R",
        ]
        .concat()
    };
    let names = names.iter().flat_map(|name| encoded(name)).collect();
    [
        b"\x80\x02}(".to_vec(),
        encoded(key),
        b"](".to_vec(),
        names,
        b"eu.".to_vec(),
    ]
    .concat()
}

fn open(path: &Path, split: Split) -> Result<Dataset> {
    Dataset::open(path, split, &Options::default())
}

fn error(path: &Path, split: Split) -> String {
    open(path, split).unwrap_err().to_string()
}

#[test]
fn the_folder_its_parent_and_the_archive_hold_the_same() {
    let root = tempfile::tempdir().unwrap();
    let inside = root.path().join("cifar-10-batches-bin");
    let packed = root.path().join("any name");
    write(&inside, &cifar10_binary());
    archive(&packed, "cifar-10-batches-bin", &cifar10_binary());
    for path in [inside.as_path(), root.path(), &packed] {
        let train = open(path, Split::Train).unwrap();
        assert_eq!(train.labels(), [0, 1, 2, 1, 2, 0]);
        assert_eq!(train.classes(), ["cat", "dog", "owl"]);
        for (i, seed) in (1..=6).enumerate() {
            assert_eq!(train.image(i).unwrap(), interleaved(seed));
        }
        let test = open(path, Split::Test).unwrap();
        assert_eq!(test.labels(), [2, 0]);
        assert_eq!(test.image(1).unwrap(), interleaved(8));
        assert_eq!((test.len(), test.resized()), (2, 0));
        assert_eq!(test.provenance().name, "CIFAR-10");
        assert_eq!(test.provenance().format, Format::CifarBinary);
    }
    let shown = open(&packed, Split::Test).unwrap().provenance().to_string();
    assert_eq!(shown, format!("CIFAR-10 test ({})", packed.display()));
}

#[test]
fn cifar100_has_fine_and_coarse_labels() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), &cifar100_binary());
    let fine = open(root.path(), Split::Test).unwrap();
    assert_eq!(fine.labels(), [0, 1]);
    assert_eq!(fine.classes(), ["apple", "bear", "chair"]);
    assert_eq!(fine.image(0).unwrap(), interleaved(2));
    let options = Options {
        coarse: true,
        ..Options::default()
    };
    let coarse = Dataset::open(root.path(), Split::Test, &options).unwrap();
    assert_eq!(coarse.labels(), [1, 0]);
    assert_eq!(coarse.classes(), ["life", "things"]);
    assert_eq!(coarse.image(0).unwrap(), fine.image(0).unwrap());
}

#[test]
fn python_batches_are_read_in_either_order_of_the_array() {
    let rows = [planes(1), planes(2)].concat();
    let columns: Vec<u8> = (0..rows.len())
        .map(|at| rows[at % 2 * IMAGE + at / 2])
        .collect();
    for (data, fortran) in [(&rows, false), (&columns, true)] {
        let root = tempfile::tempdir().unwrap();
        write(
            root.path(),
            &[
                (
                    "batches.meta",
                    python3_names("label_names", &["cat", "dog"]),
                ),
                ("test_batch", python2(&[("labels", &[1, 0])], data, fortran)),
            ],
        );
        let test = open(root.path(), Split::Test).unwrap();
        assert_eq!(test.classes(), ["cat", "dog"]);
        assert_eq!(test.labels(), [1, 0]);
        assert_eq!(
            [test.image(0).unwrap(), test.image(1).unwrap()],
            [interleaved(1), interleaved(2)]
        );
        assert_eq!(test.provenance().format, Format::CifarPython);
    }
}

#[test]
fn python_cifar100_keeps_its_two_kinds_of_labels_apart() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("cifar-100-python.tar.gz");
    let batch = python2(
        &[("fine_labels", &[2]), ("coarse_labels", &[0])],
        &planes(9),
        false,
    );
    let files = [
        ("meta", python3_names("fine_label_names", &["a", "b", "c"])),
        ("test", batch),
    ];
    archive(&path, "cifar-100-python", &files);
    let test = open(&path, Split::Test).unwrap();
    assert_eq!((test.labels(), test.classes().len()), (&[2][..], 3));
    let options = Options {
        coarse: true,
        ..Options::default()
    };
    let error = Dataset::open(&path, Split::Test, &options)
        .unwrap_err()
        .to_string();
    assert!(
        error.ends_with("meta: not a CIFAR pickle: no list of names under 'coarse_label_names'"),
        "{error}"
    );
}

#[test]
fn another_size_is_fitted_and_counted() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), &cifar10_binary());
    let size = Size::new(8, 16).unwrap();
    let test = Dataset::open(
        root.path(),
        Split::Test,
        &Options {
            size,
            ..Options::default()
        },
    )
    .unwrap();
    assert_eq!(
        (test.len(), test.resized(), test.image(1).unwrap().len()),
        (2, 2, 8 * 16 * 3)
    );
    let expected = Image::from_pixels(interleaved(8), Size::CIFAR)
        .unwrap()
        .fit(size);
    assert_eq!(test.image(1).unwrap(), expected.pixels());
}

#[test]
fn damage_is_an_error_that_names_the_file() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), &cifar10_binary());
    let change = |name: &str, bytes: &[u8]| fs::write(root.path().join(name), bytes).unwrap();

    change("test_batch.bin", &record(&[3], 0));
    let label = error(root.path(), Split::Test);
    assert!(
        label.ends_with("test_batch.bin: image 0 has label 3, but there are 3 classes"),
        "{label}"
    );

    change("test_batch.bin", &record(&[1], 0)[1..]);
    let size = error(root.path(), Split::Test);
    assert!(
        size.ends_with(
            "test_batch.bin: 3072 bytes are not a whole number of records of 3073 bytes"
        ),
        "{size}"
    );

    change("test_batch.bin", b"");
    assert!(error(root.path(), Split::Test).ends_with("test_batch.bin: the file is empty"));

    fs::remove_file(root.path().join("data_batch_3.bin")).unwrap();
    let missing = error(root.path(), Split::Train);
    assert_eq!(
        missing,
        format!("{}: missing: data_batch_3.bin", root.path().display())
    );

    change("batches.meta.txt", "name\n".repeat(257).as_bytes());
    assert!(error(root.path(), Split::Train).contains("more than 256 class names"));
    change("batches.meta.txt", b"\n\n");
    assert!(error(root.path(), Split::Train).ends_with("batches.meta.txt: missing: class names"));
}

#[test]
fn python_batches_must_be_what_they_should() {
    let root = tempfile::tempdir().unwrap();
    write(
        root.path(),
        &[(
            "batches.meta",
            python3_names("label_names", &["cat", "dog"]),
        )],
    );
    let two = [planes(1), planes(2)].concat();
    let good = python2(&[("labels", &[1, 0])], &two, false);
    let swapped = |from: &[u8], to: &[u8]| {
        let at = good
            .windows(from.len())
            .position(|window| window == from)
            .unwrap();
        [&good[..at], to, &good[at + from.len()..]].concat()
    };
    for (batch, expected) in [
        (
            python2(&[("labels", &[1])], &two, false),
            "2 images with 1 labels",
        ),
        (
            python2(&[("fine_labels", &[1, 0])], &two, false),
            "no list of integers under 'labels'",
        ),
        (
            swapped(b"U\x02u1", b"U\x02f4"),
            "no NumPy array (N, 3072) of bytes under 'data'",
        ),
        (
            swapped(b"_reconstruct", b"_reconstruKt"),
            "no NumPy array (N, 3072) of bytes under 'data'",
        ),
        (
            swapped(b"M\x00\x0c", b"M\x01\x0c"),
            "no NumPy array (N, 3072) of bytes under 'data'",
        ),
        (b"hello".to_vec(), "a memo entry is missing at byte 2"),
    ] {
        fs::write(root.path().join("test_batch"), batch).unwrap();
        let error = error(root.path(), Split::Test);
        assert!(
            error.ends_with(&format!("test_batch: not a CIFAR pickle: {expected}")),
            "{error}"
        );
    }
}

#[test]
fn damaged_and_foreign_archives_are_errors() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("data.tar.gz");

    archive(&path, "photos", &[("a.txt", b"hello".to_vec())]);
    assert!(matches!(
        open(&path, Split::Test).unwrap_err().kind(),
        ErrorKind::UnknownLayout
    ));

    archive(
        &path,
        "both",
        &[cifar10_binary(), cifar100_binary()].concat(),
    );
    assert!(matches!(
        open(&path, Split::Test).unwrap_err().kind(),
        ErrorKind::Ambiguous(_)
    ));

    archive(&path, "cifar-10-batches-bin", &cifar10_binary()[..3]);
    assert!(error(&path, Split::Train).ends_with("data.tar.gz: missing: data_batch_3.bin"));

    archive(&path, "cifar-10-batches-bin", &cifar10_binary());
    let whole = fs::read(&path).unwrap();
    for end in (0..whole.len()).step_by(97) {
        fs::write(&path, &whole[..end]).unwrap();
        assert!(
            error(&path, Split::Train).starts_with(path.to_str().unwrap()),
            "{end} bytes"
        );
    }
}

#[test]
fn an_archive_that_unpacks_without_end_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("bomb.tar.gz");
    for name in ["padding", "test_batch.bin"] {
        archive(&path, "cifar-10-batches-bin", &[(name, vec![0; 80 << 20])]);
        assert!(matches!(
            open(&path, Split::Test).unwrap_err().kind(),
            ErrorKind::Expands { .. }
        ));
    }
}

#[test]
fn two_datasets_in_one_folder_are_ambiguous() {
    let root = tempfile::tempdir().unwrap();
    write(&root.path().join("cifar-10-batches-bin"), &cifar10_binary());
    write(&root.path().join("cifar-100-binary"), &cifar100_binary());
    let error = error(root.path(), Split::Test);
    assert!(
        error.contains("cifar-10-batches-bin and cifar-100-binary"),
        "{error}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_damage_to_a_python_batch_makes_the_reader_panic(
        damage in prop::collection::vec((0usize..260, any::<u8>()), 1..4),
    ) {
        let mut bytes = python2(&[("labels", &[1])], &planes(1), false);
        for (at, byte) in damage {
            bytes[at] = byte;
        }
        if let Ok(batch) = python::batch(&bytes, Labels::Only) {
            prop_assert_eq!(batch.records.len(), batch.labels.len() * batch.record);
        }
    }
}
