#!/usr/bin/env python3
"""Compares how byte-level text is split into words, and WordPiece, with Hugging Face tokenizers.

    python3 tools/vectors/pretokenizers.py BUILD [COUNT] [--wordpiece VOCAB.gguf]

Needs: pip install tokenizers. BUILD/tokenize and a tokenizer of the same vocabulary, with the
expressions that the models' tokenizer.json have, get COUNT (3000) random texts per row. The vocabulary
holds all bytes and all pairs of bytes, ranked at random, so that almost every place where a word ends
shows in the ids. Prints how many texts differ; exits 1 if any does in a family that must be exact.

Normalizers are left out on both sides: GGUF does not carry them, and neither we nor the reference
engine compose characters (NFC) as qwen2, mpt, olmo and command-r do. APART are the families where the
reference engine's expression is another than the model's own; we follow the reference.
"""
import json
import os
import random
import subprocess
import sys
import tempfile
import unicodedata

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from gguf_meta import read_meta, write_meta
from random_text import random_text

I32, F32, STRING, ARRAY = 5, 6, 8, 9
PIECES = r"|\s+(?!\S)|\s+"
ANY_CASE = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
LEAD = r"[^\r\n\p{L}\p{N}]?"
LLAMA3 = ANY_CASE + "|" + LEAD + r"\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+" + PIECES
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
QWEN35 = QWEN2.replace(r"\p{L}+", r"[\p{L}\p{M}]+").replace(r" ?[^\s\p{L}\p{N}]", r" ?[^\s\p{L}\p{M}\p{N}]")
CAMEL = (f"{LEAD}{UPPER}*{LOWER}+%s|{LEAD}{UPPER}+{LOWER}*%s|%s"
         r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+" + PIECES)
GPT4O = CAMEL % (ANY_CASE + "?", ANY_CASE + "?", r"\p{N}{1,3}")
TEKKEN = CAMEL % ("", "", r"\p{N}")
CODE = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"
DEEPSEEK3 = CODE + r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+" + PIECES
SEED = ANY_CASE + "|" + LEAD + r"\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+" + PIECES
MINICPM5 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}+")

DIGITS = pre_tokenizers.Digits(individual_digits=True)
WORDS = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def split(expression):
    return pre_tokenizers.Split(Regex(expression), "isolated")


FAMILIES = {
    "gpt-2": [WORDS],
    "smollm": [DIGITS, WORDS],
    "starcoder": [DIGITS, WORDS],
    "command-r": [DIGITS, WORDS],
    "llama-bpe": [split(LLAMA3), BYTES],
    "dbrx": [split(LLAMA3), BYTES],
    "qwen2": [split(QWEN2), BYTES],
    "qwen35": [split(QWEN35), BYTES],
    "gpt-4o": [split(GPT4O), BYTES],
    "tekken": [split(TEKKEN), BYTES],
    "deepseek-v3": [split(r"\p{N}{1,3}"), split(r"[一-龥぀-ゟ゠-ヿ]+"), split(DEEPSEEK3), BYTES],
    "deepseek-coder": [split(r"[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), split("[一-龥ࠀ-一가-퟿]+"), DIGITS,
                       BYTES],
    "falcon": [pre_tokenizers.Punctuation("contiguous"), WORDS, pre_tokenizers.Digits(individual_digits=False),
               split("[0-9][0-9][0-9]")],
    "seed-coder": [split(SEED), BYTES],
    "minicpm5": [split(r"\p{N}{1,3}"), split(MINICPM5), BYTES],
}
WHOLE = {"llama-bpe", "tekken", "minicpm5"}      # a word that is a token goes before merges
APART = {
    "gpt-4o": "the reference takes letters beyond ASCII for small and capital at once",
    "tekken": "as gpt-4o",
    "falcon": "the reference does not part digits from the space before them",
    "deepseek-coder": "the reference takes white space beyond ASCII for no part of a range",
}


def byte_alphabet():
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in plain]
    letters = {**{b: chr(b) for b in plain}, **{b: chr(256 + i) for i, b in enumerate(others)}}
    return [letters[b] for b in range(256)]


def all_pairs():
    letters = byte_alphabet()
    pairs = [(a, b) for a in letters for b in letters]
    random.Random(1).shuffle(pairs)
    return letters + [a + b for a, b in pairs], pairs


def assigned(text):
    """Less what Python's Unicode has no character for: newer tables than ours may know some of them."""
    return "".join(c for c in text if unicodedata.category(c) != "Cn")


def common(text):
    """Less that in which the reference's WordPiece differs from BERT's: it drops marks of all kinds and
    not only Mn, keeps the first letter of a Hangul syllable, and takes some control characters for white
    space. And of old characters only: BERT's classes there are those of an older Unicode."""
    return "".join(c for c in text if unicodedata.category(c) not in ("Mc", "Me") and not "\uac00" <= c < "\ud7a4"
                   and c not in "\x0b\x0c\x1c\x1d\x1e\x1f\x85" and unicodedata.ucd_3_2_0.category(c) != "Cn")


def printed(build, meta, texts):
    with tempfile.TemporaryDirectory() as folder:
        vocab, path = os.path.join(folder, "vocab.gguf"), os.path.join(folder, "texts.jsonl")
        write_meta(vocab, meta)
        with open(path, "w", encoding="ascii") as f:
            f.writelines(json.dumps({"text": t}) + "\n" for t in texts)
        done = subprocess.run([os.path.join(build, "tokenize"), vocab, "--jsonl", path], capture_output=True)
        if done.returncode:
            sys.exit(done.stderr.decode())
    return [json.loads(line) for line in done.stdout.decode().splitlines()]


def differing(name, tokenizer, texts, got):
    wrong = [i for i, t in enumerate(texts) if tokenizer.encode(t, add_special_tokens=False).ids != got[i]]
    print("%-15s %d of %d texts differ%s" % (name, len(wrong), len(texts), ": " + APART[name] if name in APART else ""))
    for i in wrong[:0 if name in APART else 3]:
        want = tokenizer.encode(texts[i], add_special_tokens=False)
        print("   ", json.dumps(texts[i]), got[i], "expected", want.ids, want.tokens)
    return 0 if name in APART else len(wrong)


def byte_level(build, texts):
    tokens, pairs = all_pairs()
    meta = {
        "general.architecture": (STRING, b"llama"),
        "tokenizer.ggml.model": (STRING, b"gpt2"),
        "tokenizer.ggml.tokens": (ARRAY, (STRING, [t.encode() for t in tokens])),
        "tokenizer.ggml.token_type": (ARRAY, (I32, [1] * len(tokens))),
        "tokenizer.ggml.merges": (ARRAY, (STRING, [(a + " " + b).encode() for a, b in pairs])),
    }
    wrong = 0
    for name, steps in FAMILIES.items():
        tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=pairs,
                                         ignore_merges=name in WHOLE))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
        meta["tokenizer.ggml.pre"] = (STRING, name.encode())
        wrong += differing(name, tokenizer, texts, printed(build, meta, texts))
    return wrong


def word_pieces(build, path, texts):
    """The vocabulary spelled as BERT has it: ## before what does not begin a word."""
    meta = read_meta(path)
    tokens = [t.decode() for t in meta["tokenizer.ggml.tokens"][1][1]]
    kinds = meta["tokenizer.ggml.token_type"][1][1]
    vocab = {t if kind != 1 else t[1:] if t[0] == "\u2581" else "##" + t: i
             for i, (t, kind) in enumerate(zip(tokens, kinds))}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=1 << 30))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    texts = [common(t) for t in texts]
    return differing("wordpiece", tokenizer, texts, printed(build, meta, texts))


def main():
    arguments = sys.argv[1:]
    bert = None
    if "--wordpiece" in arguments:
        at = arguments.index("--wordpiece")
        bert = arguments[at + 1]
        del arguments[at:at + 2]
    rng = random.Random(2)
    texts = [assigned(random_text(rng)) for _ in range(int(arguments[1]) if len(arguments) > 1 else 3000)]
    wrong = byte_level(arguments[0], texts)
    if bert:
        wrong += word_pieces(arguments[0], bert, texts)
    sys.exit(wrong > 0)


main()
