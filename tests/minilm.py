#!/usr/bin/env python3
"""Converts all-MiniLM-L6-v2 and compares its embeddings of 200 sentences with transformers'.

usage: python3 tests/minilm.py MODEL_FOLDER SENTENCES.tsv BUILD_DIR

MODEL_FOLDER is the Hugging Face folder. What is expected: tests/data/minilm.i16, by tools/vectors/minilm.py.
"""
import array
import json
import math
import os
import subprocess
import sys
import tempfile

from cases import case, finish

HERE = os.path.dirname(os.path.abspath(__file__))
WIDTH, COUNT = 384, 200
ALLOWED = {"F32": 1e-6, "Q8_0": 5e-3}       # cosine distance


def run(*command):
    done = subprocess.run(command, capture_output=True, timeout=600)
    if done.returncode != 0:
        raise ValueError(f"{os.path.basename(command[0])}: exit status {done.returncode}: "
                         + done.stderr.decode(errors="replace").strip()[-300:])
    return done.stdout.decode()


def distance(a, b):
    dot = sum(x * y for x, y in zip(a, b))
    return 1 - dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def embeddings(build, folder, kind, sentences, scratch, want):
    model = os.path.join(scratch, kind + ".gguf")
    run(os.path.join(build, "convert"), folder, model, "--type", kind)
    lines = run(os.path.join(build, "embed"), model, "-f", sentences).splitlines()
    if len(lines) != COUNT:
        raise ValueError(f"{len(lines)} lines, expected {COUNT}")
    far = [distance(json.loads(line)["embedding"], want[i * WIDTH:(i + 1) * WIDTH]) for i, line in enumerate(lines)]
    worst = max(far)
    if not worst <= ALLOWED[kind]:
        raise ValueError(f"sentence {far.index(worst)}: cosine distance {worst:.1e}, allowed {ALLOWED[kind]:.0e}")
    return f"{COUNT} sentences, cosine distance at most {worst:.1e}"


def main():
    folder, table, build = sys.argv[1:]
    want = array.array("h")
    with open(os.path.join(HERE, "data", "minilm.i16"), "rb") as f:
        want.frombytes(f.read())
    if sys.byteorder == "big":
        want.byteswap()
    with tempfile.TemporaryDirectory() as scratch:
        sentences = os.path.join(scratch, "sentences.txt")
        with open(table, encoding="utf-8") as f, open(sentences, "w", encoding="utf-8", newline="\n") as out:
            out.writelines(line.split("\t")[-1] + "\n" for line in f.read().split("\n")[:COUNT])
        for kind in ALLOWED:
            case(f"all-MiniLM-L6-v2 {kind}", embeddings, build, folder, kind, sentences, scratch, want)
    finish()


main()
