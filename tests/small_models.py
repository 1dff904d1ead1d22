#!/usr/bin/env python3
"""Compares what sentiment, charlstm and classify make of whole test sets, with the models shipped in examples/models,
with the figures of the frameworks that trained them (the training scripts in tools/ print these).

usage: python3 tests/small_models.py SHARED_DIR BUILD_DIR

SHARED_DIR holds corpus.
"""
import os
import subprocess
import sys
import tempfile

MODELS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "examples", "models")
SENTIMENT = {"reviews-test.tsv": 338, "sentiment-test.tsv": 721}    # right by Keras with float32 weights
SHAKESPEARE, ROUNDING = 2.2408, 0.002                               # by PyTorch, float32; Q8_0 may differ by this
FASHION = 1773                                                      # right by PyTorch with the file's weights
NEAR = 1                        # lines that may fall to the other side of 0.5, images to another class
TIMEOUT = 300


def run(build, program, *args, text=None):
    done = subprocess.run([os.path.join(build, program), *args], input=text, capture_output=True, timeout=TIMEOUT)
    if done.returncode:
        raise RuntimeError(f"{program}: status {done.returncode}, {done.stderr.decode().strip()}")
    return done.stdout.decode().splitlines()


def check(name, measured, wanted, allowed):
    if abs(measured - wanted) > allowed:
        raise RuntimeError(f"{name}: {measured}, the framework has {wanted}")
    return f"{name}: {measured} ({wanted})"


def sentiment(corpus, build, name):
    with open(f"{corpus}/{name}", "rb") as f:
        rows = [line.split(b"\t", 1) for line in f]
    said = run(build, "sentiment", "-m", f"{MODELS}/sentiment.gguf", text=b"".join(text for _, text in rows))
    if len(said) != len(rows):
        raise RuntimeError(f"{name}: {len(said)} answers for {len(rows)} lines")
    right = sum(line.startswith(("negative", "positive")[int(label)]) for line, (label, _) in zip(said, rows))
    return check(f"{name}, {len(rows)} lines, right", right, SENTIMENT[name], NEAR)


def shakespeare(corpus, build):
    with open(f"{corpus}/shakespeare.txt", "rb") as f:
        text = f.read()
    with tempfile.NamedTemporaryFile() as last:
        last.write(text[len(text) * 95 // 100:])
        last.flush()
        said = run(build, "charlstm", f"{MODELS}/shakespeare-lstm.gguf", "--bpc", last.name)
    return check("shakespeare, bits per character", float(said[0].split()[0]), SHAKESPEARE, ROUNDING)


def idx(path):
    """The header of an IDX file of bytes is 4 bytes and 4 per dimension: fashion-test's images have three."""
    with open(path, "rb") as f:
        data = f.read()
    return data[4 + 4 * data[3]:]


def fashion(corpus, build):
    pixels, labels = (idx(f"{corpus}/fashion-test-{part}") for part in ("images.idx3", "labels.idx1"))
    classes = ["T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]
    with tempfile.TemporaryDirectory() as folder:
        paths = [f"{folder}/{i:04d}.pgm" for i in range(len(labels))]
        for i, path in enumerate(paths):
            with open(path, "wb") as f:
                f.write(b"P5\n28 28\n255\n" + pixels[784 * i:784 * (i + 1)])
        said = run(build, "classify", f"{MODELS}/fashion-vit.safetensors", *paths, "-n", "1")
    said = [line.split(maxsplit=1)[1] for line in said if not line.endswith(".pgm:")]
    if len(said) != len(labels):
        raise RuntimeError(f"fashion: {len(said)} answers for {len(labels)} images")
    right = sum(name == classes[label] for name, label in zip(said, labels))
    return check(f"fashion, {len(labels)} images, right", right, FASHION, NEAR)


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: python3 tests/small_models.py SHARED_DIR BUILD_DIR")
    corpus, build = os.path.join(sys.argv[1], "corpus"), sys.argv[2]
    tests = [(sentiment, name) for name in SENTIMENT] + [(shakespeare,), (fashion,)]
    failed = 0
    for test, *rest in tests:
        try:
            print("ok  ", test(corpus, build, *rest))
        except (RuntimeError, OSError, ValueError, IndexError, subprocess.TimeoutExpired) as error:
            failed += 1
            print("FAIL", error)
    print(f"{len(tests) - failed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
