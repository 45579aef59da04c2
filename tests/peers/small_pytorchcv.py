"""Writes tests/golden/pytorchcv: pytorchcv's RoR with one block per group, random weights.

    python tests/peers/small_pytorchcv.py tests/golden

pytorchcv's own models (ror3_56 and up) take 3 MB and more; its constructor builds smaller ones.
Every parameter and running statistic is random, so that nothing can be left out unnoticed. Needs
torch, pytorchcv and numpy.
"""

import json
import pathlib
import sys

import numpy as np
import pytorchcv
import torch
from pytorchcv.models.ror_cifar import get_ror_cifar
from torch.nn import functional as F

folder = pathlib.Path(sys.argv[1])
out = folder / "pytorchcv"
out.mkdir(exist_ok=True)
name, seed, blocks, labels = "ror3_14_cifar10", 1410, 14, [0, 1, 2, 3]

torch.manual_seed(seed)
net = get_ror_cifar(num_classes=10, blocks=blocks)
with torch.no_grad():
    for key, value in net.state_dict().items():
        if key.endswith("running_var") or (value.dim() == 1 and key.endswith("bn.weight")):
            value.copy_(0.5 + torch.rand(value.shape))
        elif value.dim() == 1:
            value.copy_(0.2 * torch.randn(value.shape))
        elif value.dim() > 1:
            fan_in = value[0].numel()
            value.copy_(torch.randn(value.shape) * (2 / fan_in) ** 0.5)
        else:
            value.fill_(7)

x = torch.from_numpy(np.load(folder / "x.npy"))
torch.save(net.state_dict(), out / f"{name}.pth")
torch.save(net.state_dict(), out / f"{name}.legacy.pth", _use_new_zipfile_serialization=False)

net.eval()
with torch.no_grad():
    features = net.features(x).flatten(1)
    logits = net(x)
np.save(out / f"{name}.features.npy", features.numpy())
np.save(out / f"{name}.logits.npy", logits.numpy())
np.save(out / f"{name}.probs.npy", logits.softmax(1).numpy())

net.train()
loss = F.cross_entropy(net(x), torch.tensor(labels))
loss.backward()
np.savez(out / f"{name}.grad.npz", **{k: p.grad.numpy() for k, p in net.named_parameters()})
running = {k: b.numpy() for k, b in net.named_buffers() if b.dtype == torch.float32}
np.savez(out / f"{name}.running_after_forward.npz", **running)

trainable = sum(p.numel() for p in net.parameters())
buffers = sum(b.numel() for b in net.buffers() if b.dtype == torch.float32)
about = {
    "name": name,
    "stack": {"torch": torch.__version__, "pytorchcv": pytorchcv.__version__, "numpy": np.__version__},
    "backend": "torch",
    "call": f"pytorchcv.models.ror_cifar.get_ror_cifar(num_classes=10, blocks={blocks})",
    "seed": seed,
    "params": {"trainable": trainable, "non_trainable": buffers, "total": trainable + buffers},
    "train": {"labels": labels, "loss_type": "cross_entropy, mean over the 4 images", "loss": loss.item()},
    "layers": [{"name": k, "shape": list(v.shape)} for k, v in net.state_dict().items()],
}
(out / f"{name}.json").write_text(json.dumps(about, indent=1) + "\n")
