#!/usr/bin/env python3
"""Makes tests/data/tok-NAME.gguf: a vocabulary and texts with the ids that the reference engine gives.

    python3 tools/vectors/reference_ids.py FOLDER tests/data

FOLDER holds one folder per family with vocab.gguf, cases.inp, cases.out and random.jsonl, as
tests/data/README.md says. Whole vocabularies are too large to keep here, so each is reduced to
what can matter to its texts: tokens and merges whose text occurs in one of them, single bytes and
special tokens. They keep their order and are numbered anew, in the expected ids too. Nothing that
was left out could have matched, so that the ids mean the same.

The files hold, besides tokenizer.ggml.*: test.texts (strings), test.counts and test.ids (i32): the
ids of text i are the next test.counts[i] of test.ids.
"""
import json
import os
import sys
import unicodedata

from gguf_meta import read_meta, write_meta

FAMILIES = ["gpt-2", "pre-smollm", "llama-bpe-16k", "qwen2-16k", "deepseek-llm", "pre-gpt-4o", "llama-spm",
            "spm-no-prefix", "phi-3", "bert-bge"]
RANDOM = 70                             # texts taken from random.jsonl
SPACE = "\u2581"


def read_cases(folder):
    text = open(os.path.join(folder, "cases.inp"), "rb").read()
    texts = text.split(b"\n__ggml_vocab_test__\n")[:-1]
    lines = open(os.path.join(folder, "cases.out"), "rb").read().split(b"\n")
    cases = [(t, [int(i) for i in line.split()]) for t, line in zip(texts, lines)]
    for line in open(os.path.join(folder, "random.jsonl"), encoding="utf8", newline="\n").readlines()[:RANDOM]:
        case = json.loads(line)
        cases.append((case["text"].encode(), case["ids"]))
    return cases


def byte_alphabet():
    """GPT-2's: byte -> character."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in plain]
    return {**{b: chr(b) for b in plain}, **{b: chr(256 + i) for i, b in enumerate(others)}}


def cleaned(text):
    """As WordPiece sees it: bare small letters, neither marks nor control characters."""
    bare = (unicodedata.normalize("NFD", c)[0] for c in text)
    return "".join(c.lower()[0] for c in bare if unicodedata.category(c) not in ("Mn", "Mc", "Me", "Cc", "Cf", "Co"))


def reduce_vocabulary(meta, cases):
    """The smaller metadata, and old id -> new id."""
    bytewise, pieces = (meta["tokenizer.ggml.model"][1] == model for model in (b"gpt2", b"bert"))
    if pieces:
        spelled = "\n".join(cleaned(t.decode()) for t, _ in cases)
    elif bytewise:
        alphabet = byte_alphabet()
        spelled = "\n".join("".join(alphabet[b] for b in t) for t, _ in cases)
    else:
        spelled = "\n".join(SPACE + t.decode().replace(" ", SPACE) for t, _ in cases)
    tokens = [t.decode() for t in meta["tokenizer.ggml.tokens"][1][1]]
    types = meta["tokenizer.ggml.token_type"][1][1]
    keep = [len(s) == 1 and bytewise or kind != 1 or (s.lstrip(SPACE) if pieces else s) in spelled
            for s, kind in zip(tokens, types)]
    merges = []
    for m in meta.get("tokenizer.ggml.merges", (9, (8, [])))[1][1]:
        left, right = m.decode().split(" ")
        if left + right in spelled:
            merges.append(m)
    numbers = {old: new for new, old in enumerate(i for i, k in enumerate(keep) if k)}
    out = {"general.architecture": (8, b"llama")}
    for key, (kind, v) in meta.items():
        if not key.startswith("tokenizer.ggml."):
            continue
        if key == "tokenizer.ggml.merges":
            v = (8, merges)
        elif kind == 9:
            v = (v[0], [x for x, k in zip(v[1], keep) if k])
        elif key.endswith("_token_id"):
            v = numbers[v]
        out[key] = (kind, v)
    return out, numbers


def main():
    source, target = sys.argv[1:3]
    for name in FAMILIES:
        folder = os.path.join(source, name)
        cases = read_cases(folder)
        meta, numbers = reduce_vocabulary(read_meta(os.path.join(folder, "vocab.gguf")), cases)
        meta["test.texts"] = (9, (8, [t for t, _ in cases]))
        meta["test.counts"] = (9, (5, [len(ids) for _, ids in cases]))
        meta["test.ids"] = (9, (5, [numbers[i] for _, ids in cases for i in ids]))
        path = os.path.join(target, "tok-%s.gguf" % name)
        write_meta(path, meta)
        print("%s: %d of the tokens, %d texts, %d bytes" % (path, len(numbers), len(cases), os.path.getsize(path)))


main()
