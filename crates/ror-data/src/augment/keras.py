"""Writes keras.json: images changed by SciPy in the way of Keras 1.2 and 2.1's
`keras.preprocessing.image` (`random_transform`: the matrices of rotation and shift, their centre,
`affine_transform` with `order=0, mode="nearest"`). Needs numpy and scipy.

    python keras.py > keras.json
"""

import json

import numpy as np
from scipy import ndimage


def matrix(h, w, angle, rows, columns):
    rotation = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    shift = np.array([[1, 0, rows], [0, 1, columns], [0, 0, 1]])
    o_x, o_y = h / 2 + 0.5, w / 2 + 0.5
    there = np.array([[1, 0, o_x], [0, 1, o_y], [0, 0, 1]])
    back = np.array([[1, 0, -o_x], [0, 1, -o_y], [0, 0, 1]])
    return there @ (rotation @ shift) @ back


random = np.random.default_rng(7)
cases = []
for h, w, degrees, rows, columns in [
    (8, 6, 0, 1.3, -0.8),
    (8, 6, 15, 0, 0),
    (7, 9, -11.5, 1.1, 0.4),
    (12, 12, 40, -2.7, 3.9),
]:
    image = random.integers(0, 256, (h, w, 3), dtype=np.uint8)
    m = matrix(h, w, np.deg2rad(degrees), rows, columns)
    planes = [
        ndimage.affine_transform(image[..., c], m[:2, :2], m[:2, 2], order=0, mode="nearest")
        for c in range(3)
    ]
    cases.append(
        {
            "height": h,
            "width": w,
            "degrees": degrees,
            "rows": rows,
            "columns": columns,
            "image": image.ravel().tolist(),
            "expected": np.stack(planes, axis=-1).ravel().tolist(),
        }
    )
print(json.dumps(cases))
