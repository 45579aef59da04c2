"""`ror train` and PyTorch learn the same from the same: both curves, side by side.

    cargo run --release -p ror-benches --example export_network -- FOLDER ror-3-20
    python tests/peers/learn.py FOLDER/ror-3-20 --data DATA --ror target/release/ror

DATA is an image folder with `train/` and `test/`, a folder per class. Takes the first images of each
class (`--train`, `--test` in all), trains the exported network on them with the recipe `fast` for
`--epochs` in `ror` and in PyTorch (crops and flips, one-cycle, Nesterov's momentum, weight decay on
kernels alone), from the same weights, and prints loss and accuracy of each epoch. Order and
augmentation are of the same distributions, but not the same numbers, so that the curves come close
but not equal; exits with 1 if the last held-out accuracies differ by more than `--tolerance`. The
folder FOLDER/NAME.learn keeps the run. Needs what train_torch.py needs.
"""

import argparse
import csv
import pathlib
import shutil
import subprocess
import sys
import tomllib

import train_torch
from train_torch import torch_network


def subset(data, to, counts):
    """Copies the first images of each class, so many in all."""
    for split, count in counts.items():
        classes = sorted(p for p in (data / split).iterdir() if p.is_dir())
        for folder in classes:
            (to / split / folder.name).mkdir(parents=True)
            for path in sorted(folder.iterdir())[: count // len(classes)]:
                shutil.copy(path, to / split / folder.name)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("network", type=pathlib.Path, metavar="FOLDER/NAME")
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--ror", default="ror")
    parser.add_argument("--train", type=int, default=10_000)
    parser.add_argument("--test", type=int, default=2_000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--label-smoothing", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tolerance", type=float, default=0.05)
    a = parser.parse_args()
    folder = a.network.with_name(a.network.name + ".learn")
    folder.mkdir()
    subset(a.data, folder / "data", {"train": a.train, "test": a.test})

    command = [a.ror, "train", "--model", a.network.name, "--init", f"{a.network}.safetensors"]
    command += ["--data", folder / "data", "--out", folder / "run", "--recipe", "fast"]
    for name in ("epochs", "threads", "label-smoothing", "seed"):
        command += [f"--{name}", str(getattr(a, name.replace("-", "_")))]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    with open(folder / "run/metrics.csv") as file:
        ours = list(csv.DictReader(file))

    config = tomllib.loads((folder / "run/config.toml").read_text())
    network, _ = torch_network.load(a.network)
    print("epoch         train loss  train top-1  held-out loss  held-out top-1", flush=True)
    last = {}
    for mine, theirs in zip(ours, train_torch.train(config, network, a.seed), strict=True):
        for name, row in (("ror", mine), ("PyTorch", theirs)):
            loss, top1, val_loss, val_top1 = (
                float(row[k]) for k in ("train_loss", "train_top1", "val_loss", "val_top1")
            )
            print(
                f"{row['epoch']:>5} {name:7}{loss:11.4f}{top1:12.2%}{val_loss:15.4f}{val_top1:15.2%}",
                flush=True,
            )
            last[name] = val_top1
    if abs(last["ror"] - last["PyTorch"]) > a.tolerance:
        sys.exit(f"held-out accuracies differ by more than {a.tolerance:.0%}")


if __name__ == "__main__":
    main()
