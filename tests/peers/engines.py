"""The compiled engine and plain candle see the same in every picture.

    python tests/peers/engines.py --ror target/release/ror --data DATA WEIGHTS...

DATA is an image folder with `test/`, a folder per class. For each file of weights, `ror predict`
computes the logits of all pictures of `test/` with both engines, and `ror eval` the accuracy. The
class with the largest logit must be the same in every picture, but for ties: pictures whose two
largest logits are closer than what the engines differ by anywhere. Needs numpy.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

TOLERANCE = 1e-4
ENGINES = ("compiled", "candle")


def run(*command):
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def compare(ror, weights, data, folder):
    """Whether the engines agree on all pictures; says how far."""
    logits, evaluations = [], []
    for engine in ENGINES:
        output = folder / f"{engine}.npy"
        options = ("--weights", weights, "--engine", engine, "--json")
        pictures = run(ror, "predict", data / "test", "-k", 1, "--logits", "--output", output, *options)
        logits.append(np.load(output))
        assert len(pictures) == len(logits[-1]), (len(pictures), logits[-1].shape)
        evaluations.append(run(ror, "eval", "--data", data, *options))
    ours, plain = logits
    off = np.abs(ours - plain).max()
    scale = np.abs(plain).max()
    ordered = np.sort(plain, 1)
    tied = ordered[:, -1] - ordered[:, -2] <= 2 * off
    different = (ours.argmax(1) != plain.argmax(1)) & ~tied
    top1 = [e["top1"] for e in evaluations]
    allowed = tied.sum() / len(plain)
    good = not different.any() and off <= TOLERANCE * scale and abs(top1[0] - top1[1]) <= allowed
    print(
        f"{weights.name}: {len(plain)} pictures, {different.sum()} seen differently, {tied.sum()} ties; "
        f"largest difference {off:.1e} of {scale:.1f}; top-1 {top1[0]:.4f} and {top1[1]:.4f}"
        f"{'' if good else '  WRONG'}",
        flush=True,
    )
    return good


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ror", default="ror")
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("weights", type=pathlib.Path, nargs="+")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        good = [compare(a.ror, w, a.data, pathlib.Path(folder)) for w in a.weights]
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
