//! Rotations, shifts and shears of an image.

use crate::Size;

/// For each pixel of the result, where it comes from:
/// `source = offset + matrix * (row, column)`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Affine {
    matrix: [[f64; 2]; 2],
    offset: [f64; 2],
}

impl Affine {
    /// Rotates by `angle` (radians) after shifting by `rows` and `columns` pixels, as Keras's
    /// `ImageDataGenerator`. The centre is half the size plus a half, as in Keras 1 and 2: one pixel
    /// below and right of the middle.
    pub(super) fn keras(size: Size, angle: f64, rows: f64, columns: f64) -> Self {
        let matrix = rotation(angle);
        let centre = [
            size.height() as f64 / 2.0 + 0.5,
            size.width() as f64 / 2.0 + 0.5,
        ];
        let offset = [0, 1].map(|axis| {
            let [a, b] = matrix[axis];
            a * (rows - centre[0]) + b * (columns - centre[1]) + centre[axis]
        });
        Self { matrix, offset }
    }

    /// Takes each pixel from `matrix * (row, column) + shift`, counted from the middle.
    pub(super) fn about_middle(size: Size, matrix: [[f64; 2]; 2], shift: [f64; 2]) -> Self {
        let middle = [size.height(), size.width()].map(|side| (side as f64 - 1.0) / 2.0);
        let offset = [0, 1].map(|axis| {
            let [a, b] = matrix[axis];
            shift[axis] + middle[axis] - a * middle[0] - b * middle[1]
        });
        Self { matrix, offset }
    }

    /// The pixels of the result in order, each the nearest one of `source` (H, W); outside of it,
    /// `fill` or else the edge's.
    pub(super) fn warp(
        self,
        source: &[[u8; 3]],
        size: Size,
        fill: Option<[u8; 3]>,
    ) -> impl Iterator<Item = [u8; 3]> {
        let (h, w) = (size.height(), size.width());
        let [[a, b], [c, d]] = self.matrix;
        // Sides are at most 2^15, so that the conversions are exact; `as` turns a NaN into 0.
        let inside = |at: f64, side: usize| at.clamp(0.0, (side - 1) as f64);
        (0..h).flat_map(move |y| {
            let (row, column) = (self.offset[0] + a * y as f64, self.offset[1] + c * y as f64);
            (0..w).map(move |x| {
                let nearest_y = (row + b * x as f64 + 0.5).floor();
                let nearest_x = (column + d * x as f64 + 0.5).floor();
                let (from_y, from_x) = (inside(nearest_y, h), inside(nearest_x, w));
                match fill {
                    Some(fill) if (from_y, from_x) != (nearest_y, nearest_x) => fill,
                    _ => source[from_y as usize * w + from_x as usize],
                }
            })
        })
    }
}

/// By an angle in radians.
pub(super) fn rotation(angle: f64) -> [[f64; 2]; 2] {
    let (sin, cos) = (libm::sin(angle), libm::cos(angle));
    [[cos, -sin], [sin, cos]]
}
