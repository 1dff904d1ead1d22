#!/usr/bin/env python3
"""Fills in what llama.cpp makes of the prompts in a file of tests/data that tests/published.py reads.

usage: python3 tools/vectors/greedy.py MODEL.gguf REFERENCE.json [TOKENS]

Needs llama-cpp-python (pip install llama-cpp-python). For each prompt's "text" it writes "ids", with
BOS where the file adds one, control tokens not parsed; "greedy", up to TOKENS (40) ids, ended early
by an end-of-text token; and "gap", the best less the second-best logit at each of them. One thread,
f32 cache, no flash attention, no repacked weights, the prompt in one batch, then id by id.
"""
import ctypes
import hashlib
import json
import sys

import llama_cpp
import numpy


def open_model(path, context):
    llama_cpp.llama_backend_init()
    m = llama_cpp.llama_model_default_params()
    m.use_extra_bufts = False
    model = llama_cpp.llama_model_load_from_file(path.encode(), m)
    c = llama_cpp.llama_context_default_params()
    c.n_ctx = c.n_batch = c.n_ubatch = context
    c.n_threads = c.n_threads_batch = 1
    c.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    c.type_k = c.type_v = 0                                 # GGML_TYPE_F32
    c.swa_full = True
    return model, llama_cpp.llama_init_from_model(model, c)


def tokenize(vocab, text):
    data = text.encode()
    ids = (llama_cpp.llama_token * (len(data) + 8))()
    count = llama_cpp.llama_tokenize(vocab, data, len(data), ids, len(ids), True, False)
    return list(ids[:count])


def evaluate(context, ids, size):
    array = (llama_cpp.llama_token * len(ids))(*ids)
    if llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(array, len(ids))) != 0:
        sys.exit("llama_decode failed")
    logits = ctypes.cast(llama_cpp.llama_get_logits_ith(context, -1), ctypes.POINTER(ctypes.c_float))
    return numpy.ctypeslib.as_array(logits, (size,)).copy()


def fill(prompt, context, vocab, count):
    size = llama_cpp.llama_vocab_n_tokens(vocab)
    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
    prompt["ids"] = tokenize(vocab, prompt["text"])
    prompt["greedy"], prompt["gap"] = [], []
    ids = prompt["ids"]
    while len(prompt["greedy"]) < count:
        logits = evaluate(context, ids, size)
        best = int(logits.argmax())
        if llama_cpp.llama_vocab_is_eog(vocab, best):
            break
        second, first = numpy.sort(numpy.partition(logits, -2)[-2:])
        prompt["greedy"].append(best)
        prompt["gap"].append(round(float(first - second), 3))
        ids = [best]


def write(path, reference):
    """Indented, but lists of numbers on one line."""
    lists = {}
    for i, prompt in enumerate(reference["prompts"]):
        for key in ("ids", "greedy", "gap"):
            lists[f'"{i} {key}"'] = json.dumps(prompt[key])
            prompt[key] = f"{i} {key}"
    text = json.dumps(reference, indent=2)
    for name, numbers in lists.items():
        text = text.replace(name, numbers)
    with open(path, "w", encoding="ascii") as f:
        f.write(text + "\n")


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit("usage: python3 tools/vectors/greedy.py MODEL.gguf REFERENCE.json [TOKENS]")
    with open(sys.argv[2], encoding="utf-8") as f:
        reference = json.load(f)
    if "convert" not in reference:                          # else it is the sum of the file before that
        with open(sys.argv[1], "rb") as f:
            reference["sha256"] = hashlib.sha256(f.read()).hexdigest()
    model, context = open_model(sys.argv[1], 2048)
    for prompt in reference["prompts"]:
        fill(prompt, context, llama_cpp.llama_model_get_vocab(model), int(sys.argv[3]) if len(sys.argv) > 3 else 40)
    write(sys.argv[2], reference)


main()
