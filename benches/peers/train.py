"""A full training step of `ror` beside PyTorch's, interleaved in one run.

    cargo build --release -p ror-benches --example train_step --example export_network
    python benches/peers/train.py keras-ror-3-wrn-40-2 --batch 64 --threads 2

Prints images per second (of the median step) and peak memory per runtime. PyTorch runs in a process of its own per
memory format, so that peak memory is each one's own; only one process works at a time.

With `--cuda f32` or `--cuda bf16` both compute on the first CUDA device, PyTorch eagerly with cuDNN (bf16 by autocast);
the example is then built with `--features cudnn`, as docs/cuda.md says. Peak memory is still that of the processor.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))


def serve(path, batch, threads, channels_last, cuda):
    """Answers lines on standard input with the seconds of a step, as the example `train_step` does."""
    import torch

    sys.path.insert(0, HERE)
    import torch_network

    torch.set_num_threads(threads)
    net, tree = torch_network.load(path)
    net.train()
    description = tree["description"]
    images = torch.rand(batch, description["channels"], *description["image-size"]) * 2 - 1
    labels = torch.arange(batch) % description["classes"]
    device = "cuda" if cuda else "cpu"
    net, labels = net.to(device), labels.to(device)
    if channels_last:
        net = net.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
    images = images.pin_memory() if cuda else images
    optimizer = torch.optim.SGD(net.parameters(), 1e-3, momentum=0.9, nesterov=True)
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        optimizer.zero_grad()
        # As in training, where every batch is new.
        batch_on_device = images.to(device, non_blocking=True)
        with torch.autocast(device, torch.bfloat16, enabled=cuda == "bf16"):
            loss = torch.nn.functional.cross_entropy(net(batch_on_device), labels)
        loss.backward()
        optimizer.step()
        # The loss is looked at, so that the step is over.
        loss.item()
        if cuda:
            torch.cuda.synchronize()
        print(time.perf_counter() - start, flush=True)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, flush=True)


class Runtime:
    def __init__(self, command, env=None):
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )
        self.seconds = []
        assert self.read() == "ready", command

    def read(self):
        return self.process.stdout.readline().strip()

    def step(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        seconds = float(self.read())
        # OpenMP's threads spin for a while after their work.
        time.sleep(0.02)
        return seconds

    def end(self):
        self.process.stdin.close()
        return int(self.read())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=40)
    parser.add_argument("--cuda", choices=["f32", "bf16"])
    parser.add_argument("--examples", default=os.path.join(HERE, "../../target/release/examples"))
    parser.add_argument("--serve", choices=["channels_last", "default"], help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.serve:
        return serve(a.model, a.batch, a.threads, a.serve == "channels_last", a.cuda)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([f"{a.examples}/export_network", folder, a.model], check=True)
        numbers = ["--batch", str(a.batch), "--threads", str(a.threads)]
        numbers += ["--cuda", a.cuda] if a.cuda else []
        place = a.cuda or str(a.threads)
        torch = [sys.executable, __file__, f"{folder}/{a.model}", *numbers, "--serve"]
        env = dict(os.environ, OMP_NUM_THREADS=str(a.threads))
        runtimes = {
            "ror": Runtime([f"{a.examples}/train_step", a.model, str(a.batch), place]),
            "PyTorch channels_last": Runtime([*torch, "channels_last"], env),
            "PyTorch default": Runtime([*torch, "default"], env),
        }
        for runtime in runtimes.values():
            runtime.step()
        end = time.monotonic() + a.seconds
        while time.monotonic() < end:
            for runtime in runtimes.values():
                runtime.seconds.append(runtime.step())
    best = statistics.median(runtimes["ror"].seconds)
    where = f"CUDA, {a.cuda}" if a.cuda else f"{a.threads} threads"
    print(f"{a.model}, batch {a.batch}, {where}, {len(runtimes['ror'].seconds)} steps each")
    for name, runtime in runtimes.items():
        median = statistics.median(runtime.seconds)
        print(
            f"{name:24}{a.batch / median:8.1f} img/s  ror is {median / best:5.2f} x  "
            f"peak {runtime.end() / 2**20:7.0f} MiB"
        )


if __name__ == "__main__":
    main()
