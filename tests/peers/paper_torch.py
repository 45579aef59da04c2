"""The paper's networks in PyTorch, written from its figures and not from this project's code.

    python tests/peers/paper_torch.py FOLDER

FOLDER holds what `cargo run -p ror-tests --example random_networks -- FOLDER` wrote: for each
network NAME.safetensors (weights, input, logits) and NAME.json (its description). Every network is
built again here, loaded with the same weights, run in float64, and compared. Needs torch and
safetensors.
"""

import json
import pathlib
import sys

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """conv-BN-ReLU order (post) or BN-ReLU-conv (pre); the sum's ReLU is the caller's."""

    def __init__(self, cin, cout, stride, kind, pre, bottleneck, survival):
        super().__init__()
        self.pre, self.survival = pre, survival
        if bottleneck:
            mid = cout // 4
            plan = [(cin, mid, 1, stride), (mid, mid, 3, 1), (mid, cout, 1, 1)]
        else:
            plan = [(cin, cout, 3, stride), (cout, cout, 3, 1)]
        self.count = len(plan)
        for i, (a, b, k, s) in enumerate(plan, 1):
            setattr(self, f"conv{i}", nn.Conv2d(a, b, k, s, k // 2, bias=False))
            setattr(self, f"norm{i}", nn.BatchNorm2d(a if pre else b))
        self.shortcut = Shortcut(cin, cout, stride, kind)

    def forward(self, x):
        y = x
        for i in range(1, self.count + 1):
            conv, norm = getattr(self, f"conv{i}"), getattr(self, f"norm{i}")
            if self.pre:
                y = conv(F.relu(norm(y)))
            else:
                y = norm(conv(y))
                if i < self.count:
                    y = F.relu(y)
        return self.survival * y + self.shortcut(x)


class Shortcut(nn.Module):
    """Types A, B, C of He et al."""

    def __init__(self, cin, cout, stride, kind):
        super().__init__()
        changes = cin != cout or stride != 1
        self.stride, self.missing, self.pads = stride, cout - cin, kind == "A"
        if kind == "C" or (kind == "B" and changes):
            self.conv = nn.Conv2d(cin, cout, 1, stride, bias=False)

    def forward(self, x):
        if hasattr(self, "conv"):
            return self.conv(x)
        if self.pads:
            x = x[:, :, :: self.stride, :: self.stride]
            return F.pad(x, (0, 0, 0, 0, 0, self.missing))
        return x


class Span(nn.Module):
    """A level above the block: names its members as the state dict does."""

    def __init__(self, members, names, shortcut, relu_blocks):
        super().__init__()
        self.names = names
        for name, member in zip(names, members):
            setattr(self, name, member)
        if shortcut is not None:
            self.shortcut = shortcut
        self.relu_blocks = relu_blocks

    def forward(self, x, sum_follows=False):
        """Post-activation: a sum is rectified unless an outer sum follows at once."""
        sums = hasattr(self, "shortcut")
        y = x
        for i, name in enumerate(self.names):
            member = getattr(self, name)
            followed = i + 1 == len(self.names) and (sums or sum_follows)
            y = member(y, followed) if isinstance(member, Span) else member(y)
            if self.relu_blocks and not followed:
                y = F.relu(y)
        return y + self.shortcut(x) if sums else y


class Network(nn.Module):
    def __init__(self, d):
        super().__init__()
        imagenet = d["family"] == "imagenet"
        pre = d["family"] in ("pre-ror", "wrn")
        bottleneck = d["block"] == "bottleneck"
        self.imagenet, self.pre = imagenet, pre
        if imagenet:
            counts = {
                18: [2, 2, 2, 2],
                34: [3, 4, 6, 3],
                50: [3, 4, 6, 3],
                101: [3, 4, 23, 3],
                152: [3, 8, 36, 3],
            }[d["depth"]]
            base = 64
        else:
            per = 9 if bottleneck else 6
            other = 4 if d["family"] == "wrn" else 2
            counts = [(d["depth"] - other) // per] * 3
            base = 16
        kinds, m = d["shortcuts"], d["levels"]
        widths = [base] + [
            base * 2**g * d["width"] * (4 if bottleneck else 1) for g in range(len(counts))
        ]
        p_last, total = d.get("stochastic-depth") or 1.0, sum(counts)
        self.stem = nn.Module()
        kernel, stride = (7, 2) if imagenet else (3, 1)
        self.stem.conv = nn.Conv2d(3, base, kernel, stride, kernel // 2, bias=False)
        if not pre:
            self.stem.norm = nn.BatchNorm2d(base)
        done, groups = 0, []
        for g, count in enumerate(counts):
            blocks, names, cin = [], [], widths[g]
            stride = 2 if g > 0 else 1
            for i in range(count):
                done += 1
                survival = 1 - done / total * (1 - p_last)
                blocks.append(
                    Block(
                        cin, widths[g + 1], stride if i == 0 else 1, kinds[-1], pre, bottleneck, survival
                    )
                )
                names.append(f"block{i + 1}")
                cin = widths[g + 1]
            groups.append(self.span(blocks, names, 1, kinds, m, widths[g], widths[g + 1], stride))
        total_stride = 2 ** (len(counts) - 1)
        shortcut = Shortcut(widths[0], widths[-1], total_stride, kinds[0]) if m >= 2 else None
        self.root = Span(groups, [f"group{g + 1}" for g in range(len(counts))], shortcut, not pre)
        self.head = nn.Module()
        if pre:
            self.head.norm = nn.BatchNorm2d(widths[-1])
        self.head.dense = nn.Linear(widths[-1], d["classes"])

    def span(self, blocks, names, depth, kinds, m, cin, cout, stride):
        """A group, or the half of one at greater depth."""
        shortcut = Shortcut(cin, cout, stride, kinds[depth]) if m >= depth + 2 else None
        if m >= depth + 3:
            cut = (len(blocks) + 1) // 2
            halves = [
                self.span(blocks[:cut], names[:cut], depth + 1, kinds, m, cin, cout, stride),
                self.span(blocks[cut:], names[cut:], depth + 1, kinds, m, cout, cout, 1),
            ]
            return Span(halves, ["half1", "half2"], shortcut, not self.pre)
        return Span(blocks, names, shortcut, not self.pre)

    def forward(self, x):
        x = self.stem.conv(x)
        if not self.pre:
            x = F.relu(self.stem.norm(x))
        if self.imagenet:
            x = F.max_pool2d(x, 3, 2, 1)
        x = self.root(x)
        x = F.relu(self.head.norm(x) if self.pre else x)
        return self.head.dense(x.mean((2, 3)))


def main(folder):
    worst, count = 0.0, 0
    for path in sorted(pathlib.Path(folder).glob("*.json")):
        tensors = load_file(path.with_suffix(".safetensors"))
        x, expected = tensors.pop("input"), tensors.pop("logits")
        network = Network(json.loads(path.read_text())).double().eval()
        missing = network.load_state_dict(tensors, strict=False)
        assert not missing.unexpected_keys, missing.unexpected_keys
        left = [k for k in missing.missing_keys if not k.endswith("num_batches_tracked")]
        assert not left, left
        with torch.no_grad():
            logits = network(x.double())
        error = ((logits - expected).abs().max() / logits.abs().max()).item()
        # NaN is larger than everything.
        worst, count = max(worst, error if error == error else float("inf")), count + 1
        print(f"{path.stem:40} {error:.1e}{'' if error < 1e-4 else '   WRONG'}")
    if count == 0 or worst >= 1e-4:
        sys.exit(f"{count} networks, worst error {worst:.1e}")


if __name__ == "__main__":
    main(sys.argv[1])
