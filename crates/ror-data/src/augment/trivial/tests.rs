use super::*;
use std::collections::{HashMap, HashSet};
use std::mem::discriminant;

#[derive(Deserialize)]
struct Golden {
    height: usize,
    width: usize,
    changes: Vec<Change>,
}

#[test]
fn changes_equal_those_of_pillow() {
    let golden: Golden = serde_json::from_str(include_str!("pillow.json")).unwrap();
    let size = Size::new(golden.height, golden.width).unwrap();
    let sheet = image::load_from_memory(include_bytes!("pillow.png")).unwrap();
    let sheet = sheet.into_rgb8().into_raw();
    let mut pictures = sheet.chunks_exact(size.area() * 3);
    let picture = pictures.next().unwrap();
    assert_eq!(pictures.len(), golden.changes.len());
    for (change, expected) in golden.changes.iter().zip(pictures) {
        let mut changed = picture.to_vec();
        change.apply(&mut changed, size, [9, 8, 77]);
        let wrong = changed.iter().zip(expected).filter(|(a, b)| a != b).count();
        assert_eq!(wrong, 0, "{change:?}: {wrong} of {}", expected.len());
    }
    let kinds: HashSet<_> = golden.changes.iter().map(discriminant).collect();
    assert_eq!(kinds.len(), 14);
}

#[test]
fn a_flat_picture_stays_as_it_is_where_nothing_can_be_spread() {
    for change in [Change::AutoContrast, Change::Equalise] {
        let mut image = vec![77; 6 * 5 * 3];
        change.apply(&mut image, Size::new(6, 5).unwrap(), [0; 3]);
        assert!(image.iter().all(|&v| v == 77), "{change:?}");
    }
}

#[test]
fn each_change_is_drawn_as_often_and_no_stronger_than_asked() {
    let mut generator = Generator::new(3, &[]);
    let mut kinds = HashMap::new();
    for _ in 0..14_000 {
        let change = Change::random(0.5, Size::CIFAR, &mut generator);
        *kinds.entry(discriminant(&change)).or_insert(0i32) += 1;
        let within = match change {
            Change::Identity | Change::AutoContrast | Change::Equalise => true,
            Change::ShearX(by) | Change::ShearY(by) => by.abs() <= 0.495,
            Change::TranslateX(by) | Change::TranslateY(by) => by.abs() <= 16.0,
            Change::Rotate(degrees) => degrees.abs() <= 67.5,
            Change::Brightness(f)
            | Change::Colour(f)
            | Change::Contrast(f)
            | Change::Sharpness(f) => (f - 1.0).abs() <= 0.495,
            Change::Posterise(bits) => (5..=8).contains(&bits),
            Change::Solarise(threshold) => threshold >= 127,
        };
        assert!(within, "{change:?}");
    }
    assert_eq!(kinds.len(), 14);
    // Four standard deviations of a binomial with n = 14,000, p = 1/14.
    assert!(kinds.values().all(|n| (n - 1000).abs() < 122));
}
