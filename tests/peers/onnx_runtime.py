"""Exported ONNX models in the real ONNX Runtime.

    python tests/peers/onnx_runtime.py FOLDER

FOLDER holds what `cargo run -p ror-tests --example exported_networks -- FOLDER` wrote: for each
network NAME.onnx, NAME.folded.onnx (batch norms folded), for small ones NAME.softmax.onnx, and
NAME.input.npy and NAME.logits.npy. Each model passes onnx's full checker, takes any batch, and gives
the same logits.
Needs onnx, onnxruntime and numpy.
"""

import json
import pathlib
import sys

import numpy as np
import onnx
import onnxruntime

TOLERANCE = 1e-4


def session(path):
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names), "two nodes of the same name"
    assert all("/" in name for name in names), names
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]), model


def check_interface(runtime, output, classes):
    (images,), (result,) = runtime.get_inputs(), runtime.get_outputs()
    assert images.name == "images" and images.shape[0] == "batch", images
    assert result.name == output and result.shape == ["batch", classes], result
    metadata = runtime.get_modelmeta().custom_metadata_map
    names = json.loads(metadata["class_names"])
    assert output == "features" or len(names) == classes, len(names)
    normalisation = json.loads(metadata["normalisation"])
    assert len(normalisation["mean"]) == len(normalisation["std"]) == images.shape[1]
    assert "description" in json.loads(metadata["ror"])


def softmax(x):
    e = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def error(found, expected):
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def main(folder):
    worst, count = 0.0, 0
    for path in sorted(folder.glob("*.logits.npy")):
        name = path.name.removesuffix(".logits.npy")
        logits, images = np.load(path), np.load(folder / f"{name}.input.npy")
        assert np.isfinite(logits).all() and np.abs(logits).max() > 0, name
        top = "features" not in name
        errors = []

        runtime, model = session(folder / f"{name}.onnx")
        check_interface(runtime, "logits" if top else "features", logits.shape[1])
        kinds = [node.op_type for node in model.graph.node]
        for batch in (len(images), 1):
            (found,) = runtime.run(None, {"images": images[:batch]})
            errors.append(error(found, logits[:batch]))

        runtime, model = session(folder / f"{name}.folded.onnx")
        check_interface(runtime, "logits" if top else "features", logits.shape[1])
        folded = [node.op_type for node in model.graph.node]
        norms = kinds.count("BatchNormalization"), folded.count("BatchNormalization")
        assert norms[1] < norms[0], norms
        (found,) = runtime.run(None, {"images": images})
        errors.append(error(found, logits))

        path = folder / f"{name}.softmax.onnx"
        if path.exists():
            runtime, model = session(path)
            check_interface(runtime, "probabilities", logits.shape[1])
            (found,) = runtime.run(None, {"images": images})
            errors.append(error(found, softmax(logits)))

        # NaN is larger than everything.
        worst, count = max(worst, *(e if e == e else float("inf") for e in errors)), count + 1
        shown = " ".join(f"{e:.1e}" for e in errors)
        print(f"{name:34} {len(kinds):4} nodes  {shown}{'' if all(e < TOLERANCE for e in errors) else '  WRONG'}")
    if count == 0 or not worst < TOLERANCE:
        sys.exit(f"{count} networks, worst error {worst:.1e}")
    print(f"{count} networks, worst error {worst:.1e}")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
