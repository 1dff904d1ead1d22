#!/usr/bin/env python3
"""Makes tests/data/tok-unigram-NAME.gguf: SentencePiece unigram vocabularies and texts with their ids.

    python3 tools/vectors/unigram.py TEXT tests/data
    python3 tools/vectors/unigram.py TEXT --against BUILD [COUNT]

Needs: pip install sentencepiece protobuf. SentencePiece trains small models on the lines of TEXT and
gives the expected ids. With --against nothing is kept: COUNT (2000) random texts go through
BUILD/tokenize and SentencePiece for each model, and what differs is printed.
"""
import io
import json
import os
import random
import subprocess
import sys
import tempfile

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from gguf_meta import write_meta
from random_text import random_text

U32, I32, F32, BOOL, STRING, ARRAY, U8 = 4, 5, 6, 7, 8, 9, 0
# What is special about each: options of SentencePiece's trainer. KEPT as fixtures; the rest is as large.
MODELS = {
    "nmt": {"normalization_rule_name": "nmt_nfkc", "vocab_size": 700, "user_defined_symbols": ["<x>", "\u2581Alice"]},
    "fold": {"normalization_rule_name": "nfkc_cf", "vocab_size": 400, "remove_extra_whitespaces": False,
             "add_dummy_prefix": False},
    "bytes": {"normalization_rule_name": "identity", "vocab_size": 700, "byte_fallback": True},
    "raw": {"normalization_rule_name": "identity", "vocab_size": 400, "remove_extra_whitespaces": False,
            "add_dummy_prefix": False,
            "user_defined_symbols": ["  ", "<x>"]},
    "tight": {"normalization_rule_name": "nmt_nfkc", "vocab_size": 500, "add_dummy_prefix": False},
}
KEPT = ["nmt", "bytes", "raw"]


def train(lines, options):
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=out, model_type="unigram", character_coverage=0.995,
        num_threads=1, minloglevel=2, unk_id=2, bos_id=-1, eos_id=1, pad_id=0, **options)
    return out.getvalue()


def metadata(proto):
    model = sentencepiece_model_pb2.ModelProto.FromString(proto)
    pieces, norm = model.pieces, model.normalizer_spec
    return {
        "general.architecture": (STRING, b"t5"),
        "tokenizer.ggml.model": (STRING, b"t5"),
        "tokenizer.ggml.pre": (STRING, b"default"),
        "tokenizer.ggml.tokens": (ARRAY, (STRING, [p.piece.encode() for p in pieces])),
        "tokenizer.ggml.scores": (ARRAY, (F32, [p.score for p in pieces])),
        "tokenizer.ggml.token_type": (ARRAY, (I32, [p.type for p in pieces])),
        "tokenizer.ggml.add_space_prefix": (BOOL, norm.add_dummy_prefix),
        "tokenizer.ggml.remove_extra_whitespaces": (BOOL, norm.remove_extra_whitespaces),
        "tokenizer.ggml.precompiled_charsmap": (ARRAY, (U8, list(norm.precompiled_charsmap))),
        "tokenizer.ggml.eos_token_id": (U32, 1),
        "tokenizer.ggml.unknown_token_id": (U32, 2),
        "tokenizer.ggml.padding_token_id": (U32, 0),
    }


def texts(lines, count, seed):
    rng = random.Random(seed)
    fixed = ["", " ", "  ", "a", " a", "a ", "  a  b  ", "<x>", "a<x>b", " <x> <x>  a", "\u2581a\u2581 b\u2581",
             "\u2581",
             "\u00a0a\u3000b", "\ufb01ne \u2460 \ufdfa \u212b \u1e9b\u0323", "\ud55c\uad6d\uc5b4 \u30ab\u3099",
             "Alice  and Alice", "xAlice Alicex", "\u200bAlice\u200b", "a\tb\nc\r\nd", "\u00ad\ufeff",
             "\U0001f600\U0001f600 x",
             "<0x41>", "</s><unk><pad>", "\u4e2d\u6587 \u4e00\u4e8c", "STRASSE stra\u00dfe \u0130"]
    for i in range(count):
        text = random_text(rng) if i % 2 else rng.choice(lines)[rng.randrange(20):][:100]
        if i % 6 == 0:
            text = text.replace(" ", rng.choice(["  ", " \u2581", "<x>", "\u3000 "]), 2)
        fixed.append(text)
    return fixed


def compare(name, meta, processor, cases, build):
    with tempfile.TemporaryDirectory() as folder:
        vocab, path = os.path.join(folder, "vocab.gguf"), os.path.join(folder, "texts.jsonl")
        write_meta(vocab, meta)
        with open(path, "w", encoding="ascii") as f:
            f.writelines(json.dumps({"text": t}) + "\n" for t in cases)
        printed = subprocess.run([os.path.join(build, "tokenize"), vocab, "--jsonl", path], check=True,
                                 capture_output=True).stdout.decode().splitlines()
    wrong = 0
    for text, line in zip(cases, printed, strict=True):
        want = processor.encode(text)
        if json.loads(line) != want:
            wrong += 1
            if wrong <= 3:
                print(name, json.dumps(text), line, "expected", want, processor.id_to_piece(want))
    print("%s: %d of %d texts differ" % (name, wrong, len(cases)))
    return wrong


def main():
    source, target = sys.argv[1:3]
    lines = [line.strip() for line in open(source, encoding="utf8") if len(line) > 30]
    wrong = 0
    for name, options in MODELS.items():
        proto = train(lines, options)
        processor = sentencepiece.SentencePieceProcessor(model_proto=proto)
        meta = metadata(proto)
        if target == "--against":
            count = int(sys.argv[4]) if len(sys.argv) > 4 else 2000
            wrong += compare(name, meta, processor, texts(lines, count, name), sys.argv[3])
            continue
        if name not in KEPT:
            continue
        cases = texts(lines, 150, 1)
        ids = [processor.encode(t) for t in cases]
        meta["test.texts"] = (ARRAY, (STRING, [t.encode() for t in cases]))
        meta["test.counts"] = (ARRAY, (I32, [len(i) for i in ids]))
        meta["test.ids"] = (ARRAY, (I32, [i for some in ids for i in some]))
        path = os.path.join(target, "tok-unigram-%s.gguf" % name)
        write_meta(path, meta)
        print("%s: %d tokens, %d texts, %d bytes" % (path, len(meta["tokenizer.ggml.tokens"][1][1]), len(cases),
                                                     os.path.getsize(path)))
    sys.exit(wrong > 0)


main()
