#!/usr/bin/env python3
"""Runs nets that others trained: char LSTMs of ml5, a Keras LSTM of TensorFlow Lite's examples, and nn-sentiment.

usage: python3 tests/nets.py SHARED_DIR BUILD_DIR [NN_SENTIMENT [TFJS]]

SHARED_DIR holds models/real and corpus; NN_SENTIMENT is the unpacked npm package nn-sentiment 1.0.0, TFJS what
tools/vectors/tfjs_nets.js made; without them their tests are skipped.
"""
import array
import json
import os
import re
import subprocess
import sys
import tempfile

from cases import case, finish, require

BITS = {"shakespeare": 1.7353, "charlotte-bronte": 1.8540}     # per character, as models/real says
TEXTS = {"shakespeare": "shakespeare.txt", "charlotte-bronte": "book-jane-eyre.txt"}
EXACT = 1e-5            # of probabilities

shared = build = scratch = ""


def run(program, *args, stdin=b""):
    done = subprocess.run([os.path.join(build, program), *args], input=stdin, capture_output=True, timeout=300)
    message = done.stderr.decode(errors="replace").strip()[-300:]
    require(done.returncode == 0, f"{program}: exit status {done.returncode}: {message}")
    return done.stdout.decode()


def real(*path):
    return os.path.join(shared, "models", "real", *path)


def at(name):
    return os.path.join(scratch, name)


def little_endian(values):
    if sys.byteorder == "big":
        values.byteswap()
    return values


def bits_per_character(name):
    """A text's 4,000 characters from the 200,000th on."""
    folder, model = real("ml5-charrnn-" + name), at("char.gguf")
    vocab = ["--tokenizer", os.path.join(folder, "vocab-repaired.json")] if name == "shakespeare" else []
    run("convert", os.path.join(folder, "manifest.json"), model, *vocab)
    with open(os.path.join(shared, "corpus", TEXTS[name]), encoding="utf-8", newline="") as f:
        text = f.read()[200000:204000]
    with open(at("text.txt"), "w", encoding="utf-8", newline="") as f:
        f.write(text)
    said = run("charlstm", model, "--bpc", at("text.txt"))
    got = float(said.split()[0])
    require(abs(got - BITS[name]) < 6e-5, f"{got} bits per character, expected {BITS[name]}")
    return said.strip()


def char_text(name):
    """A seed writes the same text again, and greedy text holds words."""
    args = [at("char.gguf"), "-p", "I ", "-n", "200", "-s", "5"]
    first = run("charlstm", *args)
    require(first == run("charlstm", *args), "the same seed wrote another text")
    require(len(first) == 200, f"{len(first)} characters, 200 asked for")
    return repr(first[:60])


def mnist():
    """Keras weights in safetensors become a model.json with one shard: 3,000 digits, models/real says 99.2 %."""
    with open(real("tflite-mnist-lstm", "trained_lstm.safetensors"), "rb") as f:
        header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
        shard = f.read()
    header.pop("__metadata__", None)
    weights = [{"name": name.replace(".", "/"), "shape": header[name]["shape"], "dtype": "float32"}
               for name in sorted(header, key=lambda name: header[name]["data_offsets"])]
    lstm = {"name": "lstm", "units": 20, "activation": "tanh", "recurrent_activation": "sigmoid",
            "return_sequences": True, "batch_input_shape": [None, 28, 28]}
    layers = [{"class_name": "LSTM", "config": lstm}, {"class_name": "Flatten", "config": {"name": "flatten"}},
              {"class_name": "Dense", "config": {"name": "output", "units": 10, "activation": "softmax"}}]
    with open(at("model.json"), "w", encoding="utf-8") as f:
        json.dump({"modelTopology": {"class_name": "Sequential", "config": {"layers": layers}},
                   "weightsManifest": [{"paths": ["shard"], "weights": weights}]}, f)
    with open(at("shard"), "wb") as f:
        f.write(shard)
    run("convert", at("model.json"), at("mnist.gguf"))
    right = total = 0
    for part, offset in (("test", 0), ("train", 0)):
        with open(os.path.join(shared, "corpus", f"mnist-{part}-images.idx3"), "rb") as f:
            pixels = f.read()[16:]
        with open(os.path.join(shared, "corpus", f"mnist-{part}-labels.idx1"), "rb") as f:
            labels = f.read()[8:]
        count = min(len(labels), 3000 - total)
        with open(at("images.f32"), "wb") as f:
            little_endian(array.array("f", [p / 255 for p in pixels[:count * 784]])).tofile(f)
        rows = run("evaluate", at("mnist.gguf"), "--input", at("images.f32")).split("\n")[:count]
        for row, label in zip(rows, labels):
            values = [float(v) for v in row.split()]
            right += values.index(max(values)) == label
        total += count
    require(total == 3000 and right >= 0.99 * total, f"{right} of {total} digits are right, 99.2 % expected")
    return f"{right} of {total} digits are right"


def sentiment(package):
    """Its eight texts: the ids that its own words give, and tfjs's probabilities."""
    folder = os.path.join(package, "static", "model")
    with open(os.path.join(folder, "word_index.json"), encoding="utf-8") as f:
        words = json.load(f)
    letters = "".join(c for c in map(chr, range(128)) if re.match(r"[\w']", c))
    with open(at("text.json"), "w", encoding="utf-8") as f:
        json.dump({"vocab": words, "unknown": 0, "alone": ",.?;-()", "letters": letters, "padding": "right",
                   "labels": ["detractor", "neutral", "promoter"]}, f)
    run("convert", os.path.join(folder, "model.json"), at("nn.gguf"), "--tokenizer", at("text.json"))
    with open(real("nn-sentiment", "expected.json"), encoding="utf-8") as f:
        expected = json.load(f)
    worst = 0.0
    for one in expected:
        ids = one["ids"] + [0] * (100 - len(one["ids"]))
        got = [float(v) for v in run("evaluate", at("nn.gguf"), "--ids", ",".join(map(str, ids))).split()]
        worst = max([worst] + [abs(a - b) for a, b in zip(got, one["probs"])])
        require(len(got) == 3 and worst <= EXACT, f"{one['text']!r}: {got}, expected {one['probs']}")
    lines = run("sentiment", "-m", at("nn.gguf"), "--all", stdin="\n".join(o["text"] for o in expected).encode())
    for line, one in zip(lines.split("\n"), expected):
        said = [float(v) for v in line.split()[1::2]]
        require(all(abs(a - b) < 6e-5 for a, b in zip(said, one["probs"])),
                f"sentiment says {line!r} of {one['text']!r}, expected {one['probs']}")
    return f"{len(expected)} texts, largest difference {worst:.1e}"


def tensorflow_js(folder):
    """TensorFlow.js's predictions for all samples of a net."""
    run("convert", os.path.join(folder, "model.json"), at("tfjs.gguf"))
    with open(os.path.join(folder, "ids.txt"), encoding="ascii") as f:
        ids = f.read().split()
    with open(os.path.join(folder, "expected.txt"), encoding="ascii") as f:
        want = [float(v) for v in f.read().split()]
    got = [float(v) for v in run("evaluate", at("tfjs.gguf"), "--ids", ",".join(ids)).split()]
    require(len(got) == len(want), f"{len(got)} values, expected {len(want)}")
    worst = max(abs(a - b) for a, b in zip(got, want))
    require(worst <= EXACT, f"largest difference {worst:.1e}, allowed {EXACT:.0e}")
    return f"{len(ids)} samples, largest difference {worst:.1e}"


def main():
    global shared, build, scratch
    if len(sys.argv) not in (3, 4, 5):
        sys.exit("usage: python3 tests/nets.py SHARED_DIR BUILD_DIR [NN_SENTIMENT [TFJS]]")
    shared, build = sys.argv[1:3]
    with tempfile.TemporaryDirectory() as scratch:
        for name in BITS:
            case(f"char LSTM {name}", bits_per_character, name)
            case(f"char LSTM {name} writes", char_text, name)
        case("Keras LSTM of TensorFlow Lite's MNIST example", mnist)
        if len(sys.argv) > 3:
            case("nn-sentiment", sentiment, sys.argv[3])
        else:
            print("skip nn-sentiment: the package was not given")
        for name in sorted(os.listdir(sys.argv[4])) if len(sys.argv) > 4 else []:
            case(f"TensorFlow.js {name}", tensorflow_js, os.path.join(sys.argv[4], name))
    finish()


main()
