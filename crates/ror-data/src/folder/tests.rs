use std::fs;
use std::sync::Mutex;

use image::{Rgb, RgbImage};

use super::*;
use crate::image::Size;
use crate::{Augment, Generator, Normalisation};

/// Writes images of one grey each: the path, the grey, the side.
fn folder(files: &[(&str, u8, u32)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (name, grey, side) in files {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        RgbImage::from_pixel(*side, *side, Rgb([*grey; 3]))
            .save(path)
            .unwrap();
    }
    root
}

fn options() -> Options<'static> {
    Options {
        size: Size::new(4, 4).unwrap(),
        ..Options::default()
    }
}

fn error(root: &Path, split: Split) -> Error {
    Dataset::open(root, split, &options()).unwrap_err()
}

fn greys(data: &Dataset) -> Vec<u8> {
    (0..data.len()).map(|i| data.image(i).unwrap()[0]).collect()
}

#[test]
fn classes_and_images_are_in_sorted_order() {
    let root = folder(&[
        ("train/dog/a.png", 1, 4),
        ("train/cat/b.PNG", 2, 4),
        ("train/cat/a/z.png", 3, 9),
        ("test/cat/a.png", 4, 4),
        ("test/dog/a.png", 5, 4),
        ("test/dog/b.jpg", 6, 8),
    ]);
    let train = Dataset::open(root.path(), Split::Train, &options()).unwrap();
    assert_eq!(train.classes(), ["cat", "dog"]);
    assert_eq!(
        (train.labels(), greys(&train)),
        (&[0, 0, 1][..], vec![3, 2, 1])
    );
    assert_eq!(
        (train.resized(), train.image(0).unwrap().len()),
        (1, 4 * 4 * 3)
    );
    assert_eq!(train.provenance().split, Some(Split::Train));

    let test = Dataset::open(root.path(), Split::Test, &options()).unwrap();
    assert_eq!(
        (test.labels(), greys(&test)),
        (&[0, 1, 1][..], vec![4, 5, 6])
    );
}

#[test]
fn val_serves_as_test_only_where_there_is_no_test() {
    let root = folder(&[("train/cat/a.png", 1, 4), ("val/cat/a.png", 2, 4)]);
    let test = || Dataset::open(root.path(), Split::Test, &options()).unwrap();
    assert_eq!(greys(&test()), [2]);
    fs::create_dir_all(root.path().join("test/cat")).unwrap();
    fs::copy(
        root.path().join("train/cat/a.png"),
        root.path().join("test/cat/a.png"),
    )
    .unwrap();
    assert_eq!(greys(&test()), [1]);
}

#[test]
fn a_bare_folder_of_classes_is_any_split() {
    let root = folder(&[("cat/a.png", 1, 4), ("dog/a.png", 2, 4)]);
    for split in [Split::Train, Split::Test] {
        let data = Dataset::open(root.path(), split, &options()).unwrap();
        assert_eq!((greys(&data), data.provenance().split), (vec![1, 2], None));
        assert_eq!(
            Path::new(&data.provenance().name),
            root.path().file_name().unwrap()
        );
    }
}

#[test]
fn splits_with_different_classes_are_an_error_that_names_them() {
    let root = folder(&[
        ("train/cat/a.png", 1, 4),
        ("train/dog/a.png", 1, 4),
        ("test/cat/a.png", 1, 4),
        ("test/owl/a.png", 1, 4),
    ]);
    let message = error(root.path(), Split::Test).to_string();
    assert!(
        message.ends_with("/train: only here [owl], only there [dog]"),
        "{message}"
    );
    let message = error(root.path(), Split::Train).to_string();
    assert!(
        message.ends_with("/test: only here [dog], only there [owl]"),
        "{message}"
    );
}

#[test]
fn what_is_missing_or_damaged_is_named() {
    let root = folder(&[("train/cat/a.png", 1, 4)]);
    let at = |name: &str| root.path().join(name);
    assert!(
        error(root.path(), Split::Test)
            .to_string()
            .ends_with(": missing: test/ or val/")
    );

    fs::create_dir_all(at("test")).unwrap();
    let no_class = error(root.path(), Split::Test);
    assert_eq!(no_class.path(), at("test"));
    assert!(matches!(no_class.kind(), ErrorKind::Missing(_)));

    fs::create_dir_all(at("test/cat")).unwrap();
    let empty = error(root.path(), Split::Test);
    assert_eq!(empty.path(), at("test/cat"));
    assert!(matches!(empty.kind(), ErrorKind::NoImages));

    fs::write(at("test/cat/words.png"), "words").unwrap();
    let damaged = error(root.path(), Split::Test);
    assert_eq!(damaged.path(), at("test/cat/words.png"));
    assert!(matches!(damaged.kind(), ErrorKind::NotAnImage));
}

#[test]
fn more_memory_than_allowed_leaves_the_images_in_their_files() {
    let root = folder(&[
        ("cat/a.png", 1, 4),
        ("cat/b.png", 2, 9),
        ("dog/a.png", 3, 4),
    ]);
    let open = |memory_limit, lazy| {
        let options = Options {
            memory_limit,
            lazy,
            ..options()
        };
        Dataset::open(root.path(), Split::Test, &options).unwrap()
    };
    let (held, small, asked) = (open(144, false), open(143, false), open(144, true));
    assert!(!held.is_lazy() && small.is_lazy());
    assert!(small == asked);
    for i in 0..3 {
        assert_eq!(small.image(i).unwrap(), held.image(i).unwrap());
    }
    assert_eq!(
        small.picture(1).unwrap().original(),
        Size::new(9, 9).unwrap()
    );
    let (mut a, mut b) = (vec![5.0], Vec::new());
    small.batch([2, 0], &Normalisation::unit(), &mut a).unwrap();
    held.batch([2, 0], &Normalisation::unit(), &mut b).unwrap();
    assert_eq!(a, b);
}

#[test]
fn an_image_that_is_damaged_later_is_named_when_it_is_asked_for() {
    let root = folder(&[("cat/a.png", 1, 4), ("cat/b.png", 2, 4)]);
    let options = Options {
        lazy: true,
        ..options()
    };
    let data = Dataset::open(root.path(), Split::Test, &options).unwrap();
    let path = root.path().join("cat/b.png");
    fs::write(&path, "words").unwrap();
    let unit = Normalisation::unit();
    for error in [
        data.image(1).map(drop),
        data.batch([0, 1], &unit, &mut Vec::new()),
        data.augmented(
            1,
            &Augment::IMAGENET,
            [0; 3],
            Generator::new(1, &[]),
            &mut Vec::new(),
        ),
    ] {
        assert_eq!(error.unwrap_err().path(), path);
    }
    let below = |name: &str| {
        Path::new("cat")
            .join(name)
            .into_os_string()
            .into_encoded_bytes()
    };
    assert_eq!(
        [data.identity(0), data.identity(1)],
        [below("a.png"), below("b.png")]
    );
}

#[test]
fn progress_counts_every_image() {
    let root = folder(&[
        ("cat/a.png", 1, 4),
        ("cat/b.png", 1, 4),
        ("dog/a.png", 1, 4),
    ]);
    let seen = Mutex::new(Vec::new());
    let options = Options {
        progress: &|done, total| seen.lock().unwrap().push((done, total)),
        ..options()
    };
    Dataset::open(root.path(), Split::Test, &options).unwrap();
    let mut seen = seen.into_inner().unwrap();
    seen.sort_unstable();
    assert_eq!(seen, [(1, 3), (2, 3), (3, 3)]);
}
