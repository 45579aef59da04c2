"""Trains a network of the paper's dialect in PyTorch with the recipe of a run of `ror train`, to
compare the two curves.

    python tests/peers/train_torch.py CONFIG.toml [SEED]

CONFIG.toml is the `config.toml` of a run on an image folder with SGD, the one-cycle schedule, crops
and flips. Data order, augmentation and first weights are drawn here by the same distributions, but
not the same numbers. Prints the columns of `metrics.csv`. Needs torch and pillow, Python 3.11.
"""

import math
import pathlib
import sys
import time
import tomllib

import torch
from paper_torch import Network
from PIL import Image
from torch import nn
from torch.nn import functional as F


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


def main(config, seed):
    torch.manual_seed(seed)
    torch.set_num_threads(config["source"]["threads"])
    training, description = config["training"], config["description"]
    optimizer, augment = training["optimizer"], training["augment"]
    assert optimizer["kind"] == "sgd" and training["schedule"]["kind"] == "one-cycle"
    data = pathlib.Path(config["source"]["data"])
    size = description["image-size"]
    x, y = read(data / "train", size)
    vx, vy = read(data / "test", size)
    mean, std = (torch.tensor(training["normalise"][k]).view(1, 3, 1, 1) for k in ("mean", "std"))

    network = Network(description).to(memory_format=torch.channels_last)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
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
    print("epoch,step,lr,train_loss,train_top1,val_loss,val_top1,images_per_second", flush=True)
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
        print(
            f"{epoch + 1},{step},{lr:.4g},{loss_sum / len(x):.6f},{right / len(x):.6f},"
            f"{loss:.6f},{top1:.6f},{speed:.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main(tomllib.loads(pathlib.Path(sys.argv[1]).read_text()), int(sys.argv[2]) if len(sys.argv) > 2 else 1)
