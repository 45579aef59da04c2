"""Writes the small `.after_*_3steps.every16th.npz` of `tests/golden/tfkeras` from the whole files of
the larger set: every 16th value of each array, as flattened by numpy.

    python sample_steps.py shared/golden/dev/tfkeras tests/golden/tfkeras
"""

import sys
from pathlib import Path

import numpy as np

source, target = map(Path, sys.argv[1:])
for path in sorted(source.glob("*.after_*_3steps.npz")):
    arrays = {name: array.ravel()[::16] for name, array in np.load(path).items()}
    np.savez(target / f"{path.stem}.every16th.npz", **arrays)
