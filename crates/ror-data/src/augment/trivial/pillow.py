"""Writes pillow.json and pillow.png: changes, and one below the other a picture and what Pillow
makes of it, as torchvision's `TrivialAugmentWide` calls it. Shears are about the middle. Needs
numpy and Pillow.

    python pillow.py
"""

import json

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

FILL = (9, 8, 77)


def affine(image, a, b, c, d, dx=0, dy=0):
    """Takes each pixel from where the matrix about the middle and the shift say."""
    x, y = image.width / 2, image.height / 2
    data = (a, b, dx + x - a * x - b * y, c, d, dy + y - c * x - d * y)
    return image.transform(image.size, Image.Transform.AFFINE, data, fillcolor=FILL)


def rotated(image, degrees):
    return image.rotate(degrees, Image.Resampling.NEAREST, fillcolor=FILL)


# A picture with large and small structure, which does not reach 0 or 255 everywhere.
random = np.random.default_rng(7)
height, width = 22, 30
rows, columns = np.mgrid[:height, :width]
smooth = np.stack([20 + 6 * rows, 40 + 5 * columns, 210 - 4 * rows - 3 * columns], axis=-1)
noise = random.integers(-20, 21, (height, width, 3))
image = Image.fromarray(np.clip(smooth + noise, 3, 251).astype(np.uint8))

changes = [("Identity", image), ("AutoContrast", ImageOps.autocontrast(image))]
changes.append(("Equalise", ImageOps.equalize(image)))
for by in [0.31, -0.77]:
    changes.append(({"ShearX": by}, affine(image, 1, by, 0, 1)))
    changes.append(({"ShearY": by}, affine(image, 1, 0, by, 1)))
for by in [3.3, -7.2]:
    changes.append(({"TranslateX": by}, affine(image, 1, 0, 0, 1, dx=by)))
    changes.append(({"TranslateY": by}, affine(image, 1, 0, 0, 1, dy=by)))
for degrees in [17.3, -121.9]:
    changes.append(({"Rotate": degrees}, rotated(image, degrees)))
for factor in [0.01, 0.43, 1.37, 1.99]:
    changes.append(({"Brightness": factor}, ImageEnhance.Brightness(image).enhance(factor)))
    changes.append(({"Colour": factor}, ImageEnhance.Color(image).enhance(factor)))
    changes.append(({"Contrast": factor}, ImageEnhance.Contrast(image).enhance(factor)))
    changes.append(({"Sharpness": factor}, ImageEnhance.Sharpness(image).enhance(factor)))
for bits in [2, 5, 8]:
    changes.append(({"Posterise": bits}, ImageOps.posterize(image, bits)))
for threshold in [0, 100, 255]:
    changes.append(({"Solarise": threshold}, ImageOps.solarize(image, threshold)))

pictures = [np.asarray(picture) for _, picture in [(None, image), *changes]]
Image.fromarray(np.concatenate(pictures)).save("pillow.png", optimize=True)
with open("pillow.json", "w") as file:
    json.dump({"height": height, "width": width, "changes": [change for change, _ in changes]}, file)
    file.write("\n")
