#!/usr/bin/env python3
"""`ror` beside other runtimes, the same weights, interleaved in one run; prints a table in Markdown.

    python3 benches/peers/compare.py
    python3 benches/peers/compare.py --cases keras-ror-3-wrn-40-2:64,imagenet-ror-3-50:8 --threads 1

Without the packages that it needs, it makes a virtual environment for itself in a temporary folder. In every round
each runtime in turn (the first one rotates) waits until the threads of the one before have stopped spinning, runs
once unmeasured, then its measured runs. A figure is the median of the rounds' medians. Before anything is timed, the
logits of all runtimes are compared.
"""

import argparse
import datetime
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import venv

PACKAGES = ["torch", "numpy", "onnx", "onnxscript", "onnxruntime", "openvino", "safetensors"]
ROOT = pathlib.Path(__file__).resolve().parents[2]
CASES = [
    "keras-ror-3-wrn-40-2:64",
    "keras-ror-3-wrn-40-2:1",
    "ror-3-wrn-40-2:64",
    "ror-3-wrn-40-2:1",
    "ror-3-wrn-28-10:64",
    "ror-3-wrn-28-10:1",
    "keras-ror-3-110:64",
    "keras-ror-3-110:1",
    "pytorchcv-ror-3-110:64",
    "pytorchcv-ror-3-110:1",
    "imagenet-ror-3-34:8",
    "imagenet-ror-3-34:1",
    "imagenet-ror-3-50:8",
    "imagenet-ror-3-50:1",
]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cases", default=",".join(CASES), help="MODEL:BATCH,...")
    parser.add_argument("--runtimes", default="onnxruntime,openvino,torch", help="which to compare with")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.25, help="measured per runtime and round, at least one run")
    parser.add_argument("--peer", help="the built `peer` example, instead of building it")
    parser.add_argument("--export", help="the built `export_network` example, instead of building it")
    parser.add_argument("--folder", help="where networks are exported to, and found again")
    parser.add_argument("--memory", action="store_true", help="compare peak memory instead of speed")
    return parser.parse_args()


def have_packages():
    import importlib.util

    return all(importlib.util.find_spec(name) for name in PACKAGES)


def in_venv():
    """Starts this script again in a virtual environment that has the packages."""
    with tempfile.TemporaryDirectory(prefix="ror-peers-") as folder:
        print("installing", *PACKAGES, "in", folder, file=sys.stderr)
        venv.create(folder, with_pip=True)
        python = os.path.join(folder, "bin", "python")
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)
        return subprocess.run([python, *sys.argv]).returncode


def build(example):
    command = ["cargo", "build", "--release", "-p", "ror-benches", "--example", example]
    subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr)
    return str(ROOT / "target" / "release" / "examples" / example)


class Ror:
    """The `peer` example, a round per line."""

    def __init__(self, args, folder, name, batch):
        command = [args.peer, folder, name, str(batch), str(args.threads)]
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.sizes = self.child.stdout.readline()
        if not self.sizes:
            raise RuntimeError(f"`{' '.join(command)}` failed")
        self.path = pathlib.Path(folder) / f"{name}-{batch}.logits"

    def logits(self):
        import numpy

        return numpy.fromfile(self.path, dtype="<f4")

    def run(self, count):
        self.child.stdin.write(f"{count}\n")
        self.child.stdin.flush()
        return [float(t) for t in self.child.stdout.readline().split()]

    def close(self):
        self.child.stdin.close()
        self.child.wait()


class InProcess:
    """A runtime that is a function from images to logits."""

    def __init__(self, call):
        self.call = call

    def logits(self):
        return self.call().reshape(-1)

    def run(self, count):
        times = []
        for _ in range(count):
            start = time.perf_counter()
            self.call()
            times.append(time.perf_counter() - start)
        return times

    def close(self):
        pass


def torch_runtime(args, folder, name, images):
    import torch
    import torch_network

    torch.set_num_threads(args.threads)
    network, _ = torch_network.load(str(pathlib.Path(folder) / name))
    network = network.to(memory_format=torch.channels_last)
    x = torch.from_numpy(images).to(memory_format=torch.channels_last)

    def call():
        with torch.inference_mode():
            return network(x).numpy()

    return InProcess(call)


def onnx_file(folder, name, images):
    """The network as PyTorch exports it, for batches of this size."""
    import torch
    import torch_network

    path = pathlib.Path(folder) / f"{name}-{len(images)}.onnx"
    if not path.exists():
        network, _ = torch_network.load(str(pathlib.Path(folder) / name))
        x = torch.from_numpy(images)
        torch.onnx.export(network, (x,), str(path), input_names=["x"], dynamo=False)
    return str(path)


def onnxruntime_runtime(args, folder, name, images):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    path = onnx_file(folder, name, images)
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return InProcess(lambda: session.run(None, {"x": images})[0])


def openvino_runtime(args, folder, name, images):
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": args.threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    model = core.compile_model(onnx_file(folder, name, images), "CPU", settings)
    request = model.create_infer_request()
    return InProcess(lambda: request.infer({0: images})[model.output(0)])


RUNTIMES = {"onnxruntime": onnxruntime_runtime, "openvino": openvino_runtime, "torch": torch_runtime}


def prepare(args, folder, case):
    """Name, batch and images of a case, exported."""
    import numpy

    name, batch = case.rsplit(":", 1)
    if not (pathlib.Path(folder) / f"{name}.safetensors").exists():
        subprocess.run([args.export, folder, name], check=True)
    side = 224 if name.startswith("imagenet") else 32
    random = numpy.random.default_rng(1)
    images = random.standard_normal((int(batch), 3, side, side), dtype=numpy.float32)
    images.tofile(pathlib.Path(folder) / f"{name}-{batch}.images")
    return name, int(batch), images


def compare(args, folder, case):
    """Median seconds of a batch for `ror` and every runtime."""
    import numpy

    name, batch, images = prepare(args, folder, case)
    runtimes = {"ror": Ror(args, folder, name, batch)}
    for runtime in args.runtimes.split(","):
        runtimes[runtime] = RUNTIMES[runtime](args, folder, name, images)
    expected = runtimes["ror"].logits()
    for runtime, made in runtimes.items():
        error = numpy.abs(made.logits() - expected).max() / numpy.abs(expected).max()
        assert error < 1e-4, f"{case}: {runtime} differs by {error}"

    counts = {r: max(1, int(args.seconds / statistics.median(made.run(3)))) for r, made in runtimes.items()}
    medians = {runtime: [] for runtime in runtimes}
    order = list(runtimes)
    for _ in range(args.rounds):
        order = order[1:] + order[:1]
        for runtime in order:
            time.sleep(0.02)
            runtimes[runtime].run(max(1, counts[runtime] // 8))
            medians[runtime].append(statistics.median(runtimes[runtime].run(counts[runtime])))
    for made in runtimes.values():
        made.close()
    return {runtime: statistics.median(times) for runtime, times in medians.items()}


def processor():
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
        return f"{names[0]}, {len(names)} processors"
    except (OSError, IndexError):
        return platform.processor()


def versions(args):
    from importlib.metadata import version

    return ", ".join(f"{runtime} {version(runtime)}" for runtime in args.runtimes.split(","))


MEMORY = """
import sys, numpy, onnxruntime
def status(key):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key)) / 1024
before = status("VmRSS")
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(sys.argv[2])
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
images = numpy.load(sys.argv[3])
for _ in range(3):
    session.run(None, {"x": images})
print(status("VmHWM"), before)
"""


def memory(args, folder):
    """Peak memory of whole processes, in MiB; ONNX Runtime's without what Python took before."""
    import numpy

    print("| model | batch | ror | ONNX Runtime | of which before the session |\n| --- | --- | --- | --- | --- |")
    for case in args.cases.split(","):
        name, batch, images = prepare(args, folder, case)
        ror = Ror(args, folder, name, batch)
        ror.run(3)
        with open(f"/proc/{ror.child.pid}/status") as file:
            own = next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024
        ror.close()
        saved = str(pathlib.Path(folder) / "images.npy")
        numpy.save(saved, images)
        command = [sys.executable, "-c", MEMORY, onnx_file(folder, name, images), str(args.threads), saved]
        peak, before = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        print(f"| {name} | {batch} | {own:.0f} | {float(peak):.0f} | {float(before):.0f} |", flush=True)


def main():
    args = arguments()
    if not have_packages():
        return in_venv()
    sys.path.insert(0, str(pathlib.Path(__file__).parent))
    args.export = args.export or build("export_network")
    args.peer = args.peer or build("peer")
    with tempfile.TemporaryDirectory(prefix="ror-networks-") as temporary:
        folder = args.folder or temporary
        if args.memory:
            return memory(args, folder)
        runtimes = args.runtimes.split(",")
        print(f"{processor()}; {args.threads} threads; {datetime.date.today()}; {versions(args)}\n")
        print("| model | batch | ror images/s |" + "".join(f" {r} images/s | ratio |" for r in runtimes))
        print("| --- | --- | --- |" + " --- | --- |" * len(runtimes))
        for case in args.cases.split(","):
            seconds = compare(args, folder, case)
            name, batch = case.rsplit(":", 1)
            rate = {runtime: int(batch) / s for runtime, s in seconds.items()}
            cells = "".join(f" {rate[r]:.1f} | {rate['ror'] / rate[r]:.2f} |" for r in runtimes)
            print(f"| {name} | {batch} | {rate['ror']:.1f} |{cells}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
