use super::*;
use crate::Normalisation;

/// Three images of 1 x 2 pixels.
fn small() -> Dataset {
    Dataset {
        store: Store::Memory((0..18).collect()),
        labels: vec![0, 1, 0],
        classes: vec!["cat".to_owned(), "dog".to_owned()],
        size: Size::new(1, 2).unwrap(),
        resized: 0,
        provenance: Provenance {
            name: "pets".to_owned(),
            path: PathBuf::from("data/pets"),
            format: Format::Folder,
            split: None,
        },
    }
}

#[test]
fn batches_hold_the_images_asked_for_channel_by_channel() {
    let normalisation = Normalisation {
        mean: [0.0; 3],
        std: [1.0 / 255.0; 3],
    };
    let mut batch = vec![7.0; 50];
    small().batch([2, 0], &normalisation, &mut batch).unwrap();
    let whole: Vec<i32> = batch.iter().map(|x| x.round() as i32).collect();
    assert_eq!(whole, [12, 15, 13, 16, 14, 17, 0, 3, 1, 4, 2, 5]);
    small().batch(0..0, &normalisation, &mut batch).unwrap();
    assert!(batch.is_empty());
}

#[test]
fn provenance_names_the_dataset_and_its_split() {
    let mut provenance = small().provenance;
    assert_eq!(provenance.to_string(), "pets (data/pets)");
    provenance.split = Some(Split::Train);
    assert_eq!(provenance.to_string(), "pets train (data/pets)");
}

#[test]
fn what_is_no_dataset_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("notes.txt");
    let kind = |path: &Path| {
        let error = Dataset::open(path, Split::Test, &Options::default()).unwrap_err();
        assert_eq!(error.path(), path);
        format!("{:?}", error.kind())
    };
    assert_eq!(kind(root.path()), "UnknownLayout");
    fs::write(&file, "").unwrap();
    assert_eq!(kind(&file), "EmptyFile");
    fs::write(&file, "words").unwrap();
    assert_eq!(kind(&file), "UnknownLayout");
    assert!(kind(&root.path().join("missing")).starts_with("Io"));
}

#[test]
fn generated_images_must_fit_their_size_and_classes() {
    let make = |bytes: usize, label: u32| {
        let classes = vec!["only".to_owned()];
        Dataset::from_pixels("made", vec![0; bytes], vec![label], classes, Size::CIFAR)
    };
    assert_eq!(make(3072, 0).unwrap().len(), 1);
    let error = make(3071, 0).unwrap_err();
    assert!(matches!(
        error.kind(),
        ErrorKind::Shape { values: 3071, .. }
    ));
    let error = make(3072, 1).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Label { label: 1, .. }));
}
