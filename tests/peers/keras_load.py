"""Exported Keras models in the real Keras.

    KERAS_BACKEND=torch python tests/peers/keras_load.py FOLDER
    python tests/peers/keras_load.py FOLDER --with tf_keras

FOLDER holds what `cargo run -p ror-tests --example exported_networks -- FOLDER` wrote: for each
network NAME.h5, NAME.input.npy and NAME.logits.npy. Each file is loaded by `load_model`, in Keras 3
or in Keras 2 (the package tf_keras), and gives the same features, logits and probabilities. Needs
numpy, h5py, and keras with torch, or tf_keras with tensorflow.
"""

import argparse
import importlib
import pathlib
import sys

import numpy as np

TOLERANCE = 1e-4


def error(found, expected):
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def softmax(x):
    e = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def compare(keras, folder, name):
    logits, images = np.load(folder / f"{name}.logits.npy"), np.load(folder / f"{name}.input.npy")
    model = keras.models.load_model(folder / f"{name}.h5", compile=False)
    # N, C, H, W here; Keras has channels last.
    images = images.transpose(0, 2, 3, 1)
    found = model.predict(images, verbose=0)
    dense = model.layers[-1]
    if not isinstance(dense, keras.layers.Dense):
        return [error(found, logits)]
    # Softmax hides a lot: once more up to the classifier, and through it by hand.
    features = keras.Model(model.inputs, dense.input).predict(images, verbose=0)
    kernel, bias = dense.get_weights()
    return [error(features @ kernel + bias, logits), float(np.abs(found - softmax(logits)).max())]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--with", dest="package", choices=["keras", "tf_keras"], default="keras")
    a = parser.parse_args()
    keras = importlib.import_module(a.package)
    worst, count = 0.0, 0
    for path in sorted(a.folder.glob("*.h5")):
        errors = compare(keras, a.folder, path.name.removesuffix(".h5"))
        # NaN is larger than everything.
        worst, count = max(worst, *(e if e == e else float("inf") for e in errors)), count + 1
        shown = " ".join(f"{e:.1e}" for e in errors)
        print(f"{path.stem:34} {shown}{'' if all(e < TOLERANCE for e in errors) else '  WRONG'}", flush=True)
    print(f"{a.package} {keras.__version__}: {count} networks, worst error {worst:.1e}")
    if count == 0 or not worst < TOLERANCE:
        sys.exit(1)


if __name__ == "__main__":
    main()
