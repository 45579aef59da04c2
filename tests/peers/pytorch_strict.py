"""Exported state dicts in the real pytorchcv and PyTorch, loaded with strict=True.

    python tests/peers/pytorch_strict.py FOLDER

FOLDER holds what `cargo run -p ror-tests --example exported_networks -- FOLDER` wrote:
NAME.pytorchcv.safetensors for networks that pytorchcv has, NAME.levels.safetensors for all.
pytorchcv's own models load the first; modules that nest as the names do, built here from the names
alone, load the second. Needs torch, pytorchcv, safetensors and numpy.
"""

import pathlib
import sys

import numpy as np
import torch
from pytorchcv.models.ror_cifar import get_ror_cifar
from safetensors.torch import load_file
from torch import nn

TOLERANCE = 1e-4


def pytorchcv(path):
    """The largest error of pytorchcv's logits, as a part of the largest logit."""
    name = path.name.removesuffix(".pytorchcv.safetensors")
    state = load_file(path)
    counters = [v for k, v in state.items() if k.endswith("num_batches_tracked")]
    assert counters and all(v.dtype == torch.int64 and v.dim() == 0 for v in counters)
    logits = torch.from_numpy(np.load(path.parent / f"{name}.logits.npy"))
    net = get_ror_cifar(num_classes=logits.shape[1], blocks=int(name.split("-")[3]))
    net.load_state_dict(state, strict=True)
    images = torch.from_numpy(np.load(path.parent / f"{name}.input.npy"))
    with torch.no_grad():
        found = net.eval()(images)
    return ((found - logits).abs().max() / logits.abs().max()).item()


def modules(state):
    """The module whose state dict has exactly these names, as PyTorch's own layers."""
    root, layers = nn.Module(), {key.rpartition(".")[0] for key in state}
    for layer in layers:
        weight, bias = state[f"{layer}.weight"], f"{layer}.bias" in state
        if f"{layer}.running_mean" in state:
            module = nn.BatchNorm2d(len(weight))
        elif weight.dim() == 4:
            module = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2:], bias=bias)
        else:
            module = nn.Linear(weight.shape[1], weight.shape[0], bias=bias)
        *path, name = layer.split(".")
        parent = root
        for part in path:
            if not hasattr(parent, part):
                parent.add_module(part, nn.Module())
            parent = getattr(parent, part)
        parent.add_module(name, module)
    return root


def main(folder):
    worst, count = 0.0, 0
    for path in sorted(folder.glob("*.pytorchcv.safetensors")):
        error = pytorchcv(path)
        # NaN is larger than everything.
        worst, count = max(worst, error if error == error else float("inf")), count + 1
        print(f"{path.name:44} {error:.1e}{'' if error < TOLERANCE else '  WRONG'}")
    for path in sorted(folder.glob("*.levels.safetensors")):
        state = load_file(path)
        modules(state).load_state_dict(state, strict=True)
        print(f"{path.name:44} loads")
    if count == 0 or not worst < TOLERANCE:
        sys.exit(f"{count} networks in pytorchcv, worst error {worst:.1e}")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
