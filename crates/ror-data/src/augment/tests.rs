use super::*;
use proptest::prelude::*;

/// Every pixel is different.
fn picture(size: Size) -> Vec<u8> {
    (0..size.area() as u32)
        .flat_map(|i| [(i % 251) as u8, (i / 251) as u8, 7])
        .collect()
}

fn apply(augment: &Augment, size: Size, seed: u64) -> Vec<u8> {
    let mut out = vec![1, 2, 3];
    let generator = Generator::new(seed, &[]);
    augment.apply(&picture(size), size, [9, 8, 77], generator, &mut out);
    out
}

#[derive(Deserialize)]
struct Case {
    height: usize,
    width: usize,
    degrees: f64,
    rows: f64,
    columns: f64,
    image: Vec<u8>,
    expected: Vec<u8>,
}

#[test]
fn rotations_and_shifts_equal_those_of_keras() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("keras.json")).unwrap();
    assert_eq!(cases.len(), 4);
    for case in cases {
        let size = Size::new(case.height, case.width).unwrap();
        let affine = Affine::keras(size, case.degrees.to_radians(), case.rows, case.columns);
        let (pixels, _) = case.image.as_chunks::<3>();
        let found: Vec<u8> = affine.warp(pixels, size, None).flatten().collect();
        assert_eq!(found, case.expected, "{} degrees", case.degrees);
    }
}

#[test]
fn nothing_changes_nothing() {
    assert_eq!(apply(&Augment::NONE, Size::CIFAR, 1), picture(Size::CIFAR));
}

#[test]
fn a_flip_mirrors_about_half_of_the_images() {
    let size = Size::new(3, 4).unwrap();
    let augment = Augment {
        flip: true,
        ..Augment::NONE
    };
    let image = picture(size);
    let (pixels, _) = image.as_chunks::<3>();
    let mirrored: Vec<u8> = pixels
        .chunks(4)
        .flat_map(|row| row.iter().rev().flatten().copied())
        .collect();
    let mut flips = 0;
    for seed in 0..1000 {
        let out = apply(&augment, size, seed);
        assert!(out == image || out == mirrored);
        flips += i32::from(out == mirrored);
    }
    // Four standard deviations.
    assert!((flips - 500).abs() < 64, "{flips}");
}

#[test]
fn a_crop_reaches_every_offset_and_fills_what_is_outside() {
    let size = Size::new(5, 5).unwrap();
    let augment = Augment {
        crop: 2,
        ..Augment::NONE
    };
    let image = picture(size);
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..500 {
        let out = apply(&augment, size, seed);
        let offsets = (-2..=2).flat_map(|dy| (-2..=2).map(move |dx| (dy, dx)));
        let fits = offsets.filter(|&(dy, dx)| {
            (0..25).all(|i: isize| {
                let (y, x) = (i / 5 + dy, i % 5 + dx);
                let expected = if (0..5).contains(&y) && (0..5).contains(&x) {
                    &image[(y * 5 + x) as usize * 3..][..3]
                } else {
                    &[9, 8, 77]
                };
                out[i as usize * 3..][..3] == *expected
            })
        });
        let fits: Vec<_> = fits.collect();
        assert_eq!(fits.len(), 1);
        seen.extend(fits);
    }
    assert_eq!(seen.len(), 25);
}

#[test]
fn cutout_blanks_a_square_that_the_edge_may_cut() {
    let size = Size::new(9, 9).unwrap();
    let augment = Augment {
        cutout: 4,
        ..Augment::NONE
    };
    let mut largest = 0;
    for seed in 0..200 {
        let out = apply(&augment, size, seed);
        let (pixels, _) = out.as_chunks::<3>();
        let blanks = pixels.iter().filter(|p| **p == [9, 8, 77]).count();
        assert!((4..=16).contains(&blanks), "{blanks}");
        largest = largest.max(blanks);
    }
    assert_eq!(largest, 16);
}

#[test]
fn a_resized_crop_is_the_region_drawn_scaled_then_the_rest() {
    let (from, size) = (Size::new(40, 30).unwrap(), Size::new(8, 6).unwrap());
    let picture = picture(from);
    let (mut out, mut flips) = (Vec::new(), 0);
    for seed in 0..50 {
        let mut generator = Generator::new(seed, &[]);
        Augment::IMAGENET.apply_from((&picture, from), size, [0; 3], generator.clone(), &mut out);
        let region = Region::random(from, 0.08, &mut generator);
        let cut = region.resized(&picture, from, size);
        let mirrored = image::imageops::flip_horizontal(&cut);
        assert!(out == *cut || out == *mirrored);
        flips += usize::from(out == *mirrored);
    }
    assert!((10..40).contains(&flips), "{flips}");
}

#[test]
fn numbers_out_of_range_are_named() {
    let size = Size::CIFAR;
    for (augment, word) in [
        (
            Augment {
                rotate: f64::NAN,
                ..Augment::NONE
            },
            "rotate",
        ),
        (
            Augment {
                shift: -0.1,
                ..Augment::NONE
            },
            "shift",
        ),
        (
            Augment {
                crop: 33,
                ..Augment::NONE
            },
            "crop",
        ),
        (
            Augment {
                resized_crop: 1.5,
                ..Augment::NONE
            },
            "resized-crop",
        ),
        (
            Augment {
                trivial: 1.5,
                ..Augment::NONE
            },
            "trivial",
        ),
    ] {
        let error = augment.validate(size).unwrap_err();
        assert!(error.contains(word), "{error}");
    }
    assert_eq!(Augment::KERAS.validate(size), Ok(()));
}

proptest! {
    #[test]
    fn the_same_generator_repeats_and_sizes_stay(
        h in 1usize..12, w in 1usize..12, resized_crop in 0.0..1.0, rotate in 0.0..180.0, shift in 0.0..1.0,
        crop in 0usize..12, trivial in 0.0..1.0, cutout in 0usize..24, seed: u64,
    ) {
        let size = Size::new(h, w).unwrap();
        let crop = crop.min(h.max(w));
        let augment = Augment { resized_crop, rotate, shift, crop, flip: true, trivial, cutout };
        let out = apply(&augment, size, seed);
        prop_assert_eq!(out.len(), h * w * 3);
        prop_assert_eq!(out, apply(&augment, size, seed));
    }
}
