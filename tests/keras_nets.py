#!/usr/bin/env python3
"""Converts Keras models in the three ways in and compares with Keras's predictions on 100 random inputs each.

usage: python3 tests/keras_nets.py BUILD_DIR        (needs keras and a backend: KERAS_BACKEND)

Ways: a .keras file and an .h5 file by tools/keras2gguf.py, and a model.json with one shard, as tensorflowjs_converter
writes it, by convert. The models are those of tools/vectors/nets.py, the classic included.
"""
import json
import os
import subprocess
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import keras
import numpy as np

from cases import case, finish, require

root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
sys.path.insert(0, os.path.join(root, "tools", "vectors"))
import nets
import keras2gguf              # beside what nets imports

SAMPLES = 100
EXACT = 1e-5            # of the largest value, or of 1
build = sys.argv[1]


def run(*command):
    done = subprocess.run(command, capture_output=True, timeout=300)
    if done.returncode:
        raise ValueError(f"{os.path.basename(command[0])}: {done.stderr.decode(errors='replace').strip()[-300:]}")


def save_json(model, folder):
    """The topology as Keras gives it, the weights in their order."""
    with open(os.path.join(folder, "group1-shard1of1.bin"), "wb") as f:
        for v in model.weights:
            f.write(np.asarray(v, dtype="<f4").tobytes())
    weights = [{"name": v.path, "shape": list(v.shape), "dtype": "float32"} for v in model.weights]
    topology = {"keras_version": keras.__version__, "backend": keras.backend.backend(),
                "model_config": json.loads(model.to_json())}
    path = os.path.join(folder, "model.json")
    with open(path, "w", encoding="utf-8") as f:
        json.dump({"format": "layers-model", "modelTopology": topology,
                   "weightsManifest": [{"paths": ["group1-shard1of1.bin"], "weights": weights}]}, f)
    return path


def convert(model, way, folder):
    out = os.path.join(folder, "net.gguf")
    if way == "model.json":
        run(os.path.join(build, "convert"), save_json(model, folder), out)
    else:
        path = os.path.join(folder, "model." + way)
        model.save(path)
        keras2gguf.main([path, out])
    return out


def predict(gguf, model, x, folder):
    """By evaluate; a net without a fixed length takes one sample at a time."""
    out, got = os.path.join(folder, "out.f32"), []
    batches = [x] if model.inputs[0].shape[1] else [x[i:i + 1] for i in range(len(x))]
    for batch in batches:
        given = os.path.join(folder, "in.f32")
        batch.astype("<f4").tofile(given)
        args = ["--ids", ",".join(map(str, batch.ravel()))] if x.dtype == np.int32 else ["--input", given]
        run(os.path.join(build, "evaluate"), gguf, *args, "--logits", out)
        got.append(np.fromfile(out, "<f4"))
    return np.concatenate(got)


def compare(model, x, way):
    with tempfile.TemporaryDirectory() as folder:
        want = np.asarray(model.predict(x, verbose=0, batch_size=len(x))).ravel()
        got = predict(convert(model, way, folder), model, x, folder)
        require(got.shape == want.shape, f"{got.size} values, expected {want.size}")
        largest = np.abs(got - want).max() / max(1.0, np.abs(want).max())
        require(largest <= EXACT, f"largest difference {largest:.1e}, allowed {EXACT:.0e}")
        return f"{len(x)} samples, largest difference {largest:.1e}"


def main():
    for name, model, x in [("classic", *nets.classic_model()), *nets.nets(SAMPLES)]:
        for way in ("keras", "h5", "model.json"):
            case(f"{name} by {way}", compare, model, x, way)
    finish()


main()
