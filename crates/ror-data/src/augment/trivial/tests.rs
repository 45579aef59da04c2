use super::*;
use serde::Deserialize;
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
fn each_change_is_drawn_as_often_and_as_strong_as_asked_both_ways() {
    let mut generator = Generator::new(3, &[]);
    for most in [0.5, 1.0] {
        // How often, and the weakest and the strongest as shares of the widest.
        let mut kinds = HashMap::new();
        for _ in 0..14_000 {
            let change = Change::random(most, &mut generator);
            let (strength, signed) = match change {
                Change::Identity | Change::AutoContrast | Change::Equalise => (0.0, None),
                Change::ShearX(by) | Change::ShearY(by) => (by / 0.99, Some(true)),
                Change::TranslateX(by) | Change::TranslateY(by) => (by / 32.0, Some(true)),
                Change::Rotate(degrees) => (degrees / 135.0, Some(true)),
                Change::Brightness(f)
                | Change::Colour(f)
                | Change::Contrast(f)
                | Change::Sharpness(f) => ((f - 1.0) / 0.99, Some(true)),
                Change::Posterise(bits) => (f64::from(8 - bits) / 6.0, Some(false)),
                Change::Solarise(from) => (f64::from(255 - from) / 255.0, Some(false)),
            };
            let (_, count, low, high) = kinds
                .entry(discriminant(&change))
                .or_insert((signed, 0i32, 1.0f64, -1.0f64));
            *count += 1;
            (*low, *high) = (low.min(strength), high.max(strength));
        }
        assert_eq!(kinds.len(), 14);
        for (signed, count, low, high) in kinds.into_values() {
            // Four standard deviations of a binomial with n = 14,000, p = 1/14.
            assert!((count - 1000).abs() < 122, "{count}");
            let (low, high) = (low / most, high / most);
            match signed {
                Some(true) => assert!(low > -1.0001 && low < -0.95 && high < 1.0001 && high > 0.95),
                Some(false) => assert!((0.0..0.05).contains(&low) && (0.95..1.01).contains(&high)),
                None => assert!(low == 0.0 && high == 0.0),
            }
        }
    }
}
