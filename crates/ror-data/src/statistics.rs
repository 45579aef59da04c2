//! What a dataset's images are like, in one pass over them.

use rayon::prelude::*;

use crate::dataset::{Dataset, Progress};
use crate::error::Result;
use crate::image::Size;

/// Images that are looked at between two reports of progress.
const BLOCK: usize = 256;

/// Figures of a dataset's images.
#[derive(Debug, Clone, PartialEq)]
pub struct Statistics {
    /// How many images each class has.
    pub counts: Vec<usize>,
    /// Mean of `pixel / 255`: red, green, blue.
    pub mean: [f64; 3],
    /// Standard deviation of `pixel / 255` over all pixels.
    pub std: [f64; 3],
    /// How many images had another size than the dataset's.
    pub resized: usize,
    /// The least height and width, and the largest, before images were fitted; `None` where that is
    /// not known any more, or there are no images.
    pub originals: Option<[Size; 2]>,
}

/// Sums that are exact, so that their order is nothing to them.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    sum: [u64; 3],
    squares: [u64; 3],
    resized: usize,
    /// Least and largest height, least and largest width.
    sides: Option<[usize; 4]>,
}

impl Statistics {
    /// Looks at every fitted image once, on rayon's threads; images in files are decoded for it and
    /// not kept. `progress` hears of images.
    ///
    /// # Errors
    ///
    /// A file that cannot be decoded.
    pub fn of(data: &Dataset, progress: Progress<'_>) -> Result<Self> {
        let mut sums = Sums::default();
        let mut done = 0;
        while done < data.len() {
            let end = data.len().min(done + BLOCK);
            let block = (done..end)
                .into_par_iter()
                .map(|index| Sums::of(data, index))
                .try_reduce(Sums::default, |a, b| Ok(a.and(b)))?;
            sums = sums.and(block);
            done = end;
            progress(done, data.len());
        }
        let mut counts = vec![0; data.classes().len()];
        for &label in data.labels() {
            counts[label as usize] += 1;
        }
        let n = (data.len().max(1) * data.size().area()) as f64;
        let mean = sums.sum.map(|sum| sum as f64 / n / 255.0);
        let std = [0, 1, 2].map(|c| {
            let square = sums.squares[c] as f64 / n / 255.0 / 255.0;
            (square - mean[c] * mean[c]).max(0.0).sqrt()
        });
        let originals = sums.sides.and_then(|[h, most_h, w, most_w]| {
            Some([Size::new(h, w)?, Size::new(most_h, most_w)?])
        });
        Ok(Self {
            counts,
            mean,
            std,
            resized: if data.is_lazy() {
                sums.resized
            } else {
                data.resized()
            },
            originals: originals.filter(|_| data.is_lazy() || data.resized() == 0),
        })
    }
}

impl Sums {
    fn of(data: &Dataset, index: usize) -> Result<Self> {
        let image = data.picture(index)?;
        let (mut sum, mut squares) = ([0; 3], [0; 3]);
        for pixel in image.pixels().as_chunks::<3>().0 {
            for (c, &value) in pixel.iter().enumerate() {
                let value = u64::from(value);
                sum[c] += value;
                squares[c] += value * value;
            }
        }
        let (h, w) = (image.original().height(), image.original().width());
        Ok(Self {
            sum,
            squares,
            resized: usize::from(image.original() != data.size()),
            sides: Some([h, h, w, w]),
        })
    }

    fn and(self, other: Self) -> Self {
        let add = |a: [u64; 3], b: [u64; 3]| [a[0] + b[0], a[1] + b[1], a[2] + b[2]];
        let sides = match (self.sides, other.sides) {
            (Some(a), Some(b)) => Some([
                a[0].min(b[0]),
                a[1].max(b[1]),
                a[2].min(b[2]),
                a[3].max(b[3]),
            ]),
            (a, b) => a.or(b),
        };
        Self {
            sum: add(self.sum, other.sum),
            squares: add(self.squares, other.squares),
            resized: self.resized + other.resized,
            sides,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_of_the_pixels() {
        let size = Size::new(1, 2).unwrap();
        let pixels = vec![
            0, 10, 255, 255, 10, 255, 51, 10, 0, 51, 10, 0, 0, 10, 0, 0, 10, 255,
        ];
        let classes = ["a", "b", "c"].map(str::to_owned).to_vec();
        let data = Dataset::from_pixels("made", pixels, vec![2, 0, 2], classes, size).unwrap();
        let found = Statistics::of(&data, &|_, _| {}).unwrap();
        assert_eq!(found.counts, [1, 0, 2]);
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
        near(found.mean[0], 1.4 / 6.0);
        near(
            found.std[0],
            (1.08 / 6.0 - (1.4 / 6.0) * (1.4 / 6.0f64)).sqrt(),
        );
        near(found.mean[1], 10.0 / 255.0);
        near(found.std[1], 0.0);
        near(found.mean[2], 0.5);
        near(found.std[2], 0.5);
        assert_eq!((found.resized, found.originals), (0, Some([size, size])));
    }

    #[test]
    fn images_in_files_tell_their_sizes() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("a")).unwrap();
        for (name, w, h) in [("1", 4, 9), ("2", 8, 3), ("3", 4, 4)] {
            let picture = image::RgbImage::from_pixel(w, h, image::Rgb([51, 102, 0]));
            picture
                .save(root.path().join(format!("a/{name}.png")))
                .unwrap();
        }
        let options = crate::Options {
            size: Size::new(4, 4).unwrap(),
            lazy: true,
            ..crate::Options::default()
        };
        let data = Dataset::open(root.path(), crate::Split::Test, &options).unwrap();
        let found = Statistics::of(&data, &|_, _| {}).unwrap();
        let [least, most] = found.originals.unwrap();
        assert_eq!(
            (least, most),
            (Size::new(3, 4).unwrap(), Size::new(9, 8).unwrap())
        );
        assert_eq!(found.resized, 2);
        assert!((found.mean[1] - 0.4).abs() < 1e-12 && found.std[1] < 1e-6);
    }
}
