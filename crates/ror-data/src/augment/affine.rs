//! Rotation and shift, as Keras's `ImageDataGenerator` does them.

use crate::Size;

/// For each pixel of the result, where it comes from:
/// `source = offset + matrix * (row, column)`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Affine {
    matrix: [[f64; 2]; 2],
    offset: [f64; 2],
}

impl Affine {
    /// Rotates by `angle` (radians) after shifting by `rows` and `columns` pixels. The centre is
    /// half the size plus a half, as in Keras 1 and 2: one pixel below and right of the middle.
    pub(super) fn new(size: Size, angle: f64, rows: f64, columns: f64) -> Self {
        let (sin, cos) = (libm::sin(angle), libm::cos(angle));
        let matrix = [[cos, -sin], [sin, cos]];
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

    /// Appends the image, each pixel the nearest one of the source (SciPy's spline of order 0),
    /// the edge's pixels outside.
    pub(super) fn warp(&self, image: &[u8], size: Size, out: &mut Vec<u8>) {
        let (h, w) = (size.height(), size.width());
        let (pixels, _) = image.as_chunks::<3>();
        let [[a, b], [c, d]] = self.matrix;
        // At most 2^15, so that the conversion is exact; `as` turns a NaN into 0.
        let nearest = |at: f64, length: usize| (at.clamp(0.0, (length - 1) as f64) + 0.5) as usize;
        for y in 0..h {
            let (row, column) = (self.offset[0] + a * y as f64, self.offset[1] + c * y as f64);
            for x in 0..w {
                let from_y = nearest(row + b * x as f64, h);
                let from_x = nearest(column + d * x as f64, w);
                out.extend_from_slice(&pixels[from_y * w + from_x]);
            }
        }
    }
}
