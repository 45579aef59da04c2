"""Trains a network in PyTorch with the recipe of a run of `ror train`, to compare the two curves.

    python tests/peers/train_torch.py CONFIG.toml [--seed N] [--init FOLDER/NAME]

CONFIG.toml is the `config.toml` of a run on an image folder with SGD, the one-cycle schedule, crops
and flips. Data order and augmentation are drawn here by the same distributions, but not the same
numbers. With --init, FOLDER holds what the example `export_network` wrote, and training starts from
those weights; without, it starts from weights of the same distribution, for networks of the paper's
dialect. Prints the columns of `metrics.csv`. Needs torch, safetensors and pillow, Python 3.11.
"""

import argparse
import math
import pathlib
import sys
import time
import tomllib

import paper_torch
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

sys.path.append(str(pathlib.Path(__file__).parents[2] / "benches/peers"))
import torch_network  # noqa: E402


def read(folder, size):
    classes = sorted(p.name for p in folder.iterdir() if p.is_dir())
    images, labels = [], []
    for label, name in enumerate(classes):
        for path in sorted((folder / name).iterdir()):
            image = Image.open(path).convert("RGB")
            assert image.size == (size[1], size[0]), path
            images.append(torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8))
            labels.append(label)
    images = torch.stack(images).view(-1, *size, 3).permute(0, 3, 1, 2).contiguous()
    return images, torch.tensor(labels)


def one_cycle(step, total, peak, warmup):
    first, last = peak / 25, peak / 25 / 1e4
    top = (warmup or 0.3 * total) - 1
    a, b, share = (first, peak, step / top) if step <= top else (peak, last, (step - top) / (total - 1 - top))
    return b + (a - b) / 2 * (1 + math.cos(math.pi * share))


def initial(description):
    """A network of the paper's dialect with weights as `ror` draws them."""
    network = paper_torch.Network(description)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    return network


def train(config, network, seed):
    """Yields the rows of `metrics.csv` as dicts, an epoch after the other."""
    torch.manual_seed(seed)
    torch.set_num_threads(config["source"]["threads"])
    training, description = config["training"], config["description"]
    optimizer, augment = training["optimizer"], training["augment"]
    assert not (augment["cutout"] or augment["trivial"] or augment["rotate"] or training["mixup"])
    assert optimizer["kind"] == "sgd" and training["schedule"]["kind"] == "one-cycle"
    data = pathlib.Path(config["source"]["data"])
    size = description["image-size"]
    x, y = read(data / "train", size)
    vx, vy = read(data / "test", size)
    mean, std = (torch.tensor(training["normalise"][k]).view(1, 3, 1, 1) for k in ("mean", "std"))

    network = network.to(memory_format=torch.channels_last)
    kernels = [p for p in network.parameters() if p.dim() > 1]
    others = [p for p in network.parameters() if p.dim() <= 1]
    sgd = torch.optim.SGD(
        [{"params": kernels, "weight_decay": optimizer["weight-decay"]}, {"params": others}],
        lr=training["lr"],
        momentum=optimizer["momentum"],
        nesterov=optimizer["nesterov"],
    )
    batch, crop = training["batch-size"], augment["crop"]
    steps = math.ceil(len(x) / batch)
    total = steps * training["epochs"]
    step = 0
    for epoch in range(training["epochs"]):
        network.train()
        order = torch.randperm(len(x))
        loss_sum = right = 0
        began = time.time()
        for indices in order.split(batch):
            images = F.pad((x[indices] / 255 - mean) / std, (crop,) * 4)
            rows, columns = torch.randint(0, 2 * crop + 1, (2, len(indices))).tolist()
            images = torch.stack(
                [i[:, r : r + size[0], c : c + size[1]] for i, r, c in zip(images, rows, columns)]
            )
            if augment["flip"]:
                mirror = torch.rand(len(images)) < 0.5
                images[mirror] = images[mirror].flip(3)
            lr = one_cycle(step, total, training["lr"], training["schedule"]["warmup"] * steps)
            for group in sgd.param_groups:
                group["lr"] = lr
            logits = network(images.to(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits, y[indices], label_smoothing=training["label-smoothing"])
            sgd.zero_grad()
            loss.backward()
            sgd.step()
            loss_sum += loss.item() * len(indices)
            right += (logits.argmax(1) == y[indices]).sum().item()
            step += 1
        speed = len(x) / (time.time() - began)
        network.eval()
        with torch.no_grad():
            logits = torch.cat([network((v / 255 - mean) / std) for v in vx.split(500)])
        loss, top1 = F.cross_entropy(logits, vy).item(), (logits.argmax(1) == vy).float().mean().item()
        yield {
            "epoch": epoch + 1,
            "step": step,
            "lr": f"{lr:.4g}",
            "train_loss": loss_sum / len(x),
            "train_top1": right / len(x),
            "val_loss": loss,
            "val_top1": top1,
            "images_per_second": round(speed, 1),
        }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--init", metavar="FOLDER/NAME")
    a = parser.parse_args()
    config = tomllib.loads(a.config.read_text())
    torch.manual_seed(a.seed)
    network = torch_network.load(a.init)[0] if a.init else initial(config["description"])
    for i, row in enumerate(train(config, network, a.seed)):
        if i == 0:
            print(",".join(row), flush=True)
        print(",".join(f"{v:.6f}" if isinstance(v, float) else str(v) for v in row.values()), flush=True)


if __name__ == "__main__":
    main()
