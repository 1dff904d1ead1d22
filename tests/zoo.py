#!/usr/bin/env python3
"""Compares the programs with reference results of llama.cpp: models and tokenizers.

usage: python3 tests/zoo.py SHARED_DIR BUILD_DIR

SHARED_DIR holds models/zoo, models/stories260K.* and tokenizers.
"""
import array
import glob
import json
import math
import os
import random
import struct
import subprocess
import sys
import tempfile

from cases import case, finish, require

EXACT = 1e-4        # largest difference where only the order of f32 additions differs
ROUNDED_RMS = 0.1   # where activations are rounded to 8 bits, at other places than in the reference
ROUNDED_GAP = 0.35  # how far the reference's choice may then lie below our best
ERF_RMS = 1e-3      # where we compute GELU by erf, as the original model, and the reference by tanh
ERF_GAP = 5e-3
ERF_POOLED = 1e-2   # the same of an encoder's pooled output, largest difference
TIMEOUT = 300
QUANTIZED = {"q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl"}
ERF = {"gptneox", "gptneox-serial", "falcon", "falcon-norm2"}
OTHER = {"bert-bge", "llama-spm", "spm-no-prefix", "phi-3"}       # not byte-level
FAMILIES = ["gpt-2", "mpt", "falcon", "starcoder", "refact", "deepseek-llm", "deepseek-coder", "llama-bpe-16k",
            "qwen2-16k", "pre-smollm", "pre-deepseek-v3", "pre-gpt-4o", "pre-command-r", "pre-tekken", "pre-qwen35",
            "pre-default", *sorted(OTHER)]
LOSSY = {"falcon", "starcoder", "refact"}       # some bytes have no token
REPEATED = {"gpt-2": {"a": 250000, " ": 1000000}, "llama-spm": {"a": 250002, " ": 62501}}  # ids for a million of them

shared = build = scratch = ""


def run(program, *args, timeout=TIMEOUT):
    done = subprocess.run([os.path.join(build, program), *args], stdin=subprocess.DEVNULL,
                          capture_output=True, timeout=timeout)
    message = done.stderr.decode(errors="replace").strip()[-300:]
    require(done.returncode == 0, f"{program}: exit status {done.returncode}: {message}")
    return done.stdout


def load(*path):
    with open(os.path.join(shared, *path), "rb") as f:
        return f.read()


def numbers(text):
    return [int(word) for word in text.split()]


def floats(data):
    values = array.array("f", data)
    if sys.byteorder == "big":
        values.byteswap()
    return values


def same_ids(got, want):
    """Says where two lists of ids part, if they do."""
    for i, (a, b) in enumerate(zip(got, want)):
        require(a == b, f"id {i} is {a}, expected {b}")
    require(len(got) == len(want), f"{len(got)} ids, expected {len(want)}")


# ---- models ----

def logits(model, ids, context):
    out = os.path.join(scratch, "logits.f32")
    if os.path.exists(out):
        os.remove(out)
    run("evaluate", model, "--ids", ",".join(map(str, ids)), "--logits", out, "-c", str(context))
    with open(out, "rb") as f:
        return floats(f.read())


def compare(got, want):
    """Largest and root mean square difference; a NaN gives NaN."""
    require(len(got) == len(want), f"{len(got)} logits, expected {len(want)}")
    apart = [abs(a - b) for a, b in zip(got, want)]
    if any(map(math.isnan, apart)):
        return math.nan, math.nan
    return max(apart), math.sqrt(sum(d * d for d in apart) / len(apart))


def exact_model(model, info, reference):
    largest, _ = compare(logits(model, info["prompt"], info["context"]), floats(reference))
    require(largest <= EXACT, f"largest difference {largest:.2e}, allowed {EXACT:.0e}")
    ids = numbers(run("evaluate", model, "--ids", ",".join(map(str, info["prompt"])),
                      "--greedy", str(len(info["greedy"])), "-c", str(info["context"])))
    same_ids(ids, info["greedy"])
    return f"largest difference {largest:.2e}, {len(ids)} greedy ids"


def rounded_model(model, info, reference, allowed_rms, allowed_gap):
    """The reference's greedy path must be ours, but for near ties."""
    prompt, greedy, width = info["prompt"], info["greedy"], info["vocab_size"]
    largest, rms = compare(logits(model, prompt, info["context"]), floats(reference))
    require(rms <= allowed_rms, f"rms {rms:.4f}, allowed {allowed_rms}")
    path = logits(model, prompt + greedy, info["context"])
    require(len(path) == (len(prompt) + len(greedy)) * width, f"{len(path)} logits for prompt and greedy ids")
    worst = 0.0
    for step, choice in enumerate(greedy):
        at = (len(prompt) - 1 + step) * width
        row = path[at:at + width]
        below = max(row) - row[choice]
        require(below <= allowed_gap, f"greedy id {step} lies {below:.4f} below the best, allowed {allowed_gap}")
        worst = max(worst, below)
    return f"rms {rms:.4f}, largest {largest:.4f}; greedy ids at most {worst:.4f} below the best"


def zoo_model(name):
    kind = name.rpartition("-")[2]
    against = "dequant" if kind in ("f16", "bf16") else "logits"
    given = (os.path.join(shared, "models", "zoo", name + ".gguf"), json.loads(load("models", "zoo", name + ".json")),
             load("models", "zoo", f"{name}.{against}.f32"))
    if kind in QUANTIZED:
        return rounded_model(*given, ROUNDED_RMS, ROUNDED_GAP)
    return rounded_model(*given, ERF_RMS, ERF_GAP) if name in ERF else exact_model(*given)


def encoder(name):
    info = json.loads(load("models", "zoo", name + ".json"))
    got = logits(os.path.join(shared, "models", "zoo", name + ".gguf"), info["prompt"], 256)
    largest, rms = compare(got, floats(load("models", "zoo", name + ".embd.f32")))
    require(largest <= ERF_POOLED, f"largest difference {largest:.2e}, allowed {ERF_POOLED:.0e}")
    return f"pooled by {info['pooling']}: largest difference {largest:.2e}, rms {rms:.2e}"


def long_factors(model):
    """Its original context is 32: one position more takes the long factors, as the reference's 256 do."""
    info = json.loads(load("models", "zoo", "phi3-longrope.json"))
    reference = floats(load("models", "zoo", "phi3-longrope.logits.f32"))
    above, _ = compare(logits(model, info["prompt"], 33), reference)
    below, _ = compare(logits(model, info["prompt"], 32), reference)
    require(above <= EXACT, f"a context of 33: largest difference {above:.2e}, allowed {EXACT:.0e}")
    require(below > 0.1, f"a context of 32: largest difference {below:.2e}, the factors are not the short ones")
    return f"largest difference {above:.2e} with a context of 33, {below:.2f} of 32"


def stories_logits(model):
    info = json.loads(load("models", "stories260K.json"))
    largest, _ = compare(logits(model, info["prompt"], 512), floats(load("models", "stories260K.logits.f32")))
    require(largest <= EXACT, f"largest difference {largest:.2e}, allowed {EXACT:.0e}")
    return f"largest difference {largest:.2e}"


def stories_text(model):
    """stdout is a pipe here, so no newline may follow the text, which has none at its end."""
    got, want = run("generate", model, "-n", "200", "--temp", "0"), load("models", "stories260K.greedy.txt")
    at = next((i for i in range(min(len(got), len(want))) if got[i] != want[i]), min(len(got), len(want)))
    require(got == want, f"byte {at} differs: {got[at:at + 20]!r}, expected {want[at:at + 20]!r}")
    return f"{len(got)} bytes"


def stories_ids(model):
    ids = numbers(run("generate", model, "-n", "200", "--temp", "0", "--ids"))
    same_ids(ids, numbers(load("models", "stories260K.greedy.ids")))
    return f"{len(ids)} ids"


def stories_perplexity(model):
    """llama.cpp v0.5.0: llama-perplexity -m stories260K.gguf -f tinystories-valid.txt, cut to 60,000 bytes,
    -c 128 -b 128 -fa off -ctk f32 -ctv f32."""
    path = os.path.join(scratch, "stories.txt")
    with open(path, "wb") as f:
        f.write(load("corpus", "tinystories-valid.txt")[:60000])
    got, want = run("evaluate", model, "-f", path, "-c", "128").decode(), "perplexity 5.5084 +- 0.1290 (14553 tokens)\n"
    require(got == want, f"{got.strip()}, expected {want.strip()}")
    return got.strip()


def stories_converted():
    """llama2.c's checkpoint and tokenizer must become a model with the same text."""
    out, models = os.path.join(scratch, "stories.gguf"), os.path.join(shared, "models")
    run("convert", os.path.join(models, "stories260K.bin"), out, "--tokenizer", os.path.join(models, "tok512.bin"))
    return f"{stories_logits(out)}, {stories_text(out)}"


def stories_version_1():
    """The same weights as llama2.c's export.py orders them in version 1: norms first, no cosines and sines."""
    old, models = load("models", "stories260K.bin"), os.path.join(shared, "models")
    width, hidden, layers, heads, kv_heads, vocab, context = struct.unpack("<7i", old[:28])
    key = width // heads * kv_heads
    sizes = [vocab * width, layers * width, layers * width * width, layers * key * width, layers * key * width,
             layers * width * width, layers * width, *[layers * hidden * width] * 3, width]
    parts, at = [], 28
    for size in sizes:
        parts.append(old[at:at + 4 * size])
        at += 4 * size
    path, out = os.path.join(scratch, "version1.bin"), os.path.join(scratch, "version1.gguf")
    with open(path, "wb") as f:
        f.write(struct.pack("<2I", 0x616b3432, 1) + old[:28] + b"\1" + bytes(219))
        f.writelines(parts[i] for i in (1, 6, 10, 0, 2, 3, 4, 5, 7, 8, 9))
    run("convert", path, out, "--tokenizer", os.path.join(models, "tok512.bin"))
    return stories_text(out)


# ---- tokenizers ----

def random_lines(family):
    """The texts hold U+2028 and the like: only a newline ends a line."""
    return [json.loads(line) for line in load("tokenizers", family, "random.jsonl").split(b"\n") if line]


def compare_lists(vocab, path, texts, want):
    lines = run("tokenize", vocab, "--jsonl", path).decode("ascii").splitlines()
    require(len(lines) == len(want), f"{len(lines)} lines, expected {len(want)}")
    wrong = [i for i in range(len(want)) if json.loads(lines[i]) != want[i]]
    if wrong:
        i = wrong[0]
        raise ValueError(f"{len(wrong)} of {len(want)} differ, first {json.dumps(texts[i])}: "
                         f"{lines[i]}, expected {want[i]}")
    return f"{len(want)} texts"


def tokenizer_random(vocab, family):
    lines = random_lines(family)
    return compare_lists(vocab, os.path.join(shared, "tokenizers", family, "random.jsonl"),
                         [line["text"] for line in lines], [line["ids"] for line in lines])


def tokenizer_cases(vocab, family):
    texts = load("tokenizers", family, "cases.inp").decode().split("\n__ggml_vocab_test__\n")[:-1]
    want = [numbers(line) for line in load("tokenizers", family, "cases.out").decode().split("\n")[:-1]]
    path = os.path.join(scratch, "cases.jsonl")
    with open(path, "w", encoding="ascii", newline="\n") as f:  # so these test \uXXXX in pairs, too
        f.writelines(json.dumps({"text": text}) + "\n" for text in texts)
    return compare_lists(vocab, path, texts, want)


def tokenizer_decode(vocab, family):
    lines = random.Random(family).sample([line for line in random_lines(family) if line["ids"]], 8)
    for line in lines:
        got, want = run("tokenize", vocab, "--decode", " ".join(map(str, line["ids"]))), line["text"].encode()
        require(got == want, f"{line['ids']} gives {got!r}, expected {want!r}")
    return f"{len(lines)} texts"


def tokenizer_repeated(vocab, character, want):
    """A megabyte of one character is one word: merging it must not take quadratic time."""
    path = os.path.join(scratch, "repeated.txt")
    with open(path, "wb") as f:
        f.write(character.encode() * 1000000)
    ids = numbers(run("tokenize", vocab, "-f", path, timeout=20))
    require(len(ids) == want, f"{len(ids)} ids, expected {want}")
    return f"{len(ids)} ids"


def main():
    global shared, build, scratch
    if len(sys.argv) != 3:
        sys.exit("usage: python3 tests/zoo.py SHARED_DIR BUILD_DIR")
    shared, build = sys.argv[1:]
    zoo = os.path.join(shared, "models", "zoo")
    names = sorted(os.path.basename(path)[:-11] for path in glob.glob(os.path.join(zoo, "*.logits.f32")))
    if not names:
        sys.exit(f"no models in {zoo}")
    with tempfile.TemporaryDirectory() as scratch:
        for name in names:
            case(name, zoo_model, name)
        for path in sorted(glob.glob(os.path.join(zoo, "*.embd.f32"))):
            name = os.path.basename(path)[:-9]
            case(name, encoder, name)
        case("phi3-longrope contexts", long_factors, os.path.join(zoo, "phi3-longrope.gguf"))
        stories = os.path.join(shared, "models", "stories260K.gguf")
        case("stories260K logits", stories_logits, stories)
        case("stories260K text", stories_text, stories)
        case("stories260K ids", stories_ids, stories)
        case("stories260K perplexity", stories_perplexity, stories)
        case("stories260K.bin converted", stories_converted)
        case("stories260K.bin as version 1", stories_version_1)
        for family in FAMILIES:
            vocab = os.path.join(shared, "tokenizers", family, "vocab.gguf")
            case(f"tokenizer {family} random", tokenizer_random, vocab, family)
            case(f"tokenizer {family} cases", tokenizer_cases, vocab, family)
            if family not in OTHER and family not in LOSSY:
                case(f"tokenizer {family} decode", tokenizer_decode, vocab, family)
            for character, want in REPEATED.get(family, {}).items():
                case(f"tokenizer {family} 1 MB of {character!r}", tokenizer_repeated, vocab, character, want)
    finish()


main()
