use proptest::prelude::*;

use super::*;

fn size(height: usize, width: usize) -> Size {
    Size::new(height, width).unwrap()
}

fn draws(from: Size, least: f64, n: u64) -> Vec<Region> {
    (0..n)
        .map(|seed| Region::random(from, least, &mut Generator::new(seed, &[])))
        .collect()
}

/// The share of values below each tenth of `from..to`.
fn deciles(values: &[f64], from: f64, to: f64) -> Vec<f64> {
    (1..10)
        .map(|tenth| {
            let limit = from + (to - from) * f64::from(tenth) / 10.0;
            values.iter().filter(|v| **v < limit).count() as f64 / values.len() as f64
        })
        .collect()
}

#[test]
fn areas_and_proportions_are_uniform_where_everything_fits() {
    // Of half the area at most, every region fits into a square.
    let from = size(1000, 1000);
    let drawn: Vec<Region> = draws(from, 0.08, 40_000);
    let area = |r: &Region| (r.height * r.width) as f64 / 1e6;
    let small: Vec<&Region> = drawn.iter().filter(|r| area(r) < 0.5).collect();
    let areas: Vec<f64> = small.iter().map(|r| area(r)).collect();
    let ratios: Vec<f64> = small
        .iter()
        .map(|r| (r.width as f64 / r.height as f64).ln())
        .collect();
    let bound = (4.0f64 / 3.0).ln();
    for found in [deciles(&areas, 0.08, 0.5), deciles(&ratios, -bound, bound)] {
        for (i, share) in found.iter().enumerate() {
            let expected = (i + 1) as f64 / 10.0;
            assert!((share - expected).abs() < 0.015, "{found:?}");
        }
    }
    let least = areas.iter().copied().fold(1.0, f64::min);
    assert!((0.079..0.082).contains(&least), "{least}");
    // Drawn again where it does not fit, as 0.92 x 1 / (1 - p) of the rest.
    assert!(drawn.iter().any(|r| area(r) > 0.97));
}

#[test]
fn places_are_uniform() {
    let from = size(300, 500);
    let drawn = draws(from, 0.08, 20_000);
    let mean = |f: &dyn Fn(&Region) -> f64| drawn.iter().map(f).sum::<f64>() / drawn.len() as f64;
    let free = |n: usize| (n > 0).then_some(n as f64);
    let top = mean(&|r| free(300 - r.height).map_or(0.5, |n| r.top as f64 / n));
    let left = mean(&|r| free(500 - r.width).map_or(0.5, |n| r.left as f64 / n));
    assert!(
        (top - 0.5).abs() < 0.01 && (left - 0.5).abs() < 0.01,
        "{top} {left}"
    );
}

#[test]
fn what_never_fits_gives_the_centre() {
    for (from, expected) in [
        (size(10, 1000), [10, 13, 0, 493]),
        (size(1000, 10), [13, 10, 493, 0]),
    ] {
        let drawn = draws(from, 0.9, 20);
        let shape = |r: &Region| [r.height, r.width, r.top, r.left];
        assert!(drawn.iter().all(|r| shape(r) == expected), "{drawn:?}");
    }
}

#[test]
fn the_whole_of_a_square_is_reached_alone_where_all_of_it_is_asked_for() {
    for region in draws(size(7, 7), 1.0, 50) {
        assert_eq!((region.height, region.width), (7, 7));
    }
}

proptest! {
    #[test]
    fn the_centre_is_inside_and_of_the_right_proportions(
        fh in 1usize..3000, fw in 1usize..3000, th in 1usize..600, tw in 1usize..600,
    ) {
        let Region { height, width, .. } = Region::centred(size(fh, fw), size(th, tw));
        prop_assert!((1..=fw).contains(&width) && (1..=fh).contains(&height));
        prop_assert!(width == fw || height == fh);
        // Within half a pixel of exact, unless there is less than one.
        let exact = height as f64 * tw as f64 / th as f64;
        let exact_height = width as f64 * th as f64 / tw as f64;
        prop_assert!(
            (exact - width as f64).abs() <= 0.5 || (exact_height - height as f64).abs() <= 0.5
                || width == 1 || height == 1
        );
    }

    #[test]
    fn random_regions_are_inside(
        h in 1usize..400, w in 1usize..400, least in 0.001f64..1.0, seed: u64,
    ) {
        let r = Region::random(size(h, w), least, &mut Generator::new(seed, &[]));
        prop_assert!(r.height >= 1 && r.top + r.height <= h);
        prop_assert!(r.width >= 1 && r.left + r.width <= w);
    }
}
