//! The ten crops of an image.

use crate::image::Size;

/// The corners and the centre of an image (H, W, 3), each of `size` and each as it is and mirrored
/// (Krizhevsky et al., 2012). A side that is shorter than `size` is taken to be as long: what is
/// outside is black.
///
/// # Panics
///
/// If `image` is smaller than `from` says.
pub fn ten_crops(image: &[u8], from: Size, size: Size) -> [Vec<u8>; 10] {
    let (pixels, _) = image[..from.area() * 3].as_chunks::<3>();
    let free = [
        from.height().saturating_sub(size.height()),
        from.width().saturating_sub(size.width()),
    ];
    let [down, right] = free;
    let middle = free.map(|n| n.div_ceil(2));
    let corners = [[0, 0], [0, right], [down, 0], [down, right], middle];
    std::array::from_fn(|i| {
        let [top, left] = corners[i % 5];
        let mirrored = i >= 5;
        let mut crop = Vec::with_capacity(size.area() * 3);
        for y in top..top + size.height() {
            for x in 0..size.width() {
                let x = left + if mirrored { size.width() - 1 - x } else { x };
                let inside = y < from.height() && x < from.width();
                let pixel = if inside {
                    pixels[y * from.width() + x]
                } else {
                    [0; 3]
                };
                crop.extend_from_slice(&pixel);
            }
        }
        crop
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crops_are_the_corners_and_the_centre_and_their_mirror_images() {
        let size = |h, w| Size::new(h, w).unwrap();
        // Pixel (y, x) is 10 y + x.
        let image: Vec<u8> = (0..20).flat_map(|i| [i / 5 * 10 + i % 5; 3]).collect();
        let crops = ten_crops(&image, size(4, 5), size(2, 3)).map(|crop| {
            let reds: Vec<u8> = crop.iter().step_by(3).copied().collect();
            reds
        });
        for (i, first) in [0, 2, 20, 22, 11].into_iter().enumerate() {
            let row = |y: u8| [0, 1, 2].map(|x| first + 10 * y + x);
            assert_eq!(crops[i], [row(0), row(1)].concat());
            let mirrored = |y| row(y).into_iter().rev().collect::<Vec<_>>();
            assert_eq!(crops[5 + i], [mirrored(0), mirrored(1)].concat());
        }
    }
}
