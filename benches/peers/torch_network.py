"""Any `ror` network in PyTorch, from the tree and the weights that `export_network` writes."""

import json

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F


def layers(specs, norm):
    """Named layers as an nn.Sequential whose keys are the project's names."""
    made = nn.Sequential()
    for spec in specs:
        kind = spec["layer"]
        if kind == "conv":
            layer = nn.Conv2d(
                spec["in_channels"],
                spec["out_channels"],
                spec["kernel"],
                spec["stride"],
                spec["padding"],
                bias=spec["bias"],
            )
        elif kind == "norm":
            momentum = norm["momentum"]
            weight = momentum.get("of-new-value", 1 - momentum.get("of-old-value", 0.0))
            layer = nn.BatchNorm2d(spec["channels"], norm["epsilon"], weight)
        elif kind == "relu":
            layer = nn.ReLU()
        elif kind == "max-pool":
            layer = nn.MaxPool2d(spec["kernel"], spec["stride"], spec["padding"])
        elif kind == "dropout":
            layer = nn.Dropout(spec["rate"])
        else:
            raise ValueError(kind)
        made.add_module(spec["name"], layer)
    return made


class Pad(nn.Module):
    def __init__(self, stride, channels, in_channels):
        super().__init__()
        self.stride, self.missing = stride, channels - in_channels

    def forward(self, x):
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, 0, self.missing))


def shortcut(spec, in_channels, norm):
    kind = spec["shortcut"]
    if kind == "identity":
        return nn.Identity()
    if kind == "pad":
        return Pad(spec["stride"], spec["channels"], in_channels)
    if kind == "projection":
        conv = {
            "name": "conv",
            "layer": "conv",
            "in_channels": spec["in_channels"],
            "out_channels": spec["out_channels"],
            "kernel": 1,
            "stride": spec["stride"],
            "padding": 0,
            "bias": spec["bias"],
        }
        batch_norm = {"name": "norm", "layer": "norm", "channels": spec["out_channels"]}
        return layers([conv] + [batch_norm] * spec["norm"], norm)
    return None


class Residual(nn.Module):
    """A level or a block: activation(survival * body(x) + shortcut(x))."""

    def __init__(self, spec, norm):
        super().__init__()
        body = spec["body"]
        if body and "member" in body[0]:
            self.body = nn.Sequential()
            for member in body:
                made = (
                    layers([member], norm)[0]
                    if member["member"] == "layer"
                    else Residual(member, norm)
                )
                self.body.add_module(member["name"], made)
        else:
            self.body = layers(body, norm)
        self.shortcut = shortcut(spec["shortcut"], spec["in_channels"], norm)
        self.activation, self.survival = spec["activation"], spec.get("survival", 1.0)

    def forward(self, x):
        y = self.body(x)
        if self.survival < 1.0:
            y = self.survival * y
        if self.shortcut is not None:
            y = y + self.shortcut(x)
        return F.relu(y) if self.activation else y


class Network(nn.Module):
    def __init__(self, tree):
        super().__init__()
        norm = tree["description"]["norm"]
        self.stem = layers(tree["stem"], norm)
        self.root = Residual(tree["root"], norm)
        self.head = layers(tree["head"]["layers"], norm)
        head = tree["head"]
        self.dense = nn.Linear(head["features"], head["classes"]) if head["classes"] else nn.Identity()

    def forward(self, x):
        x = self.head(self.root(self.stem(x)))
        return self.dense(x.mean((2, 3)))

    def load(self, tensors):
        """Takes tensors by the project's names, which leave `body` out."""
        renamed = {name.replace("head.dense.", "dense."): t for name, t in tensors.items()}
        own = {
            key: key.replace(".body.", ".")
            for key in self.state_dict()
            if not key.endswith("num_batches_tracked")
        }
        for key in list(own):
            while ".body." in own[key]:
                own[key] = own[key].replace(".body.", ".")
        surplus = set(renamed) - set(own.values())
        assert not surplus, surplus
        self.load_state_dict({key: renamed[name] for key, name in own.items()}, strict=False)
        return self


def load(path):
    """The network of PATH.json with the weights of PATH.safetensors."""
    with open(f"{path}.json") as file:
        tree = json.load(file)
    return Network(tree).load(load_file(f"{path}.safetensors")).eval(), tree
