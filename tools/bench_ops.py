#!/usr/bin/env python3
"""Times ops of PyTorch for tools/bench.c, which starts it and compares with its own.

usage: python3 tools/bench_ops.py THREADS

Prints "PyTorch VERSION" when it is ready. Then each line of standard input, "OP A B C", is answered
by one line: the seconds that a call takes, the mean of a batch of calls, or "none".
"""
import sys
import time

import torch
from torch.nn import functional

BATCH = 0.02        # seconds that a batch of calls lasts at least
threads = int(sys.argv[1])


def rand(*shape):
    return torch.rand(*shape) - 0.5


def matmul(m, k, n):
    a, b = rand(m, k), rand(k, n)
    return lambda: torch.matmul(a, b)


def attention(heads, length, size):
    q, k, v = (rand(1, heads, length, size) for _ in range(3))
    return lambda: functional.scaled_dot_product_attention(q, k, v, is_causal=True)


def softmax(rows, width, _):
    x = rand(rows, width)
    return lambda: torch.softmax(x, -1)


def layernorm(rows, width, _):
    x, w, b = rand(rows, width), rand(width), rand(width)
    return lambda: functional.layer_norm(x, (width,), w, b)


def gelu(rows, width, _):
    x = rand(rows, width)
    return lambda: functional.gelu(x)


def sample(vocab, top_k, _):
    """Temperature 0.8, the top_k likeliest, of these the fewest that reach 0.95, a draw."""
    logits = rand(vocab) * 10

    def draw():
        values, ids = torch.topk(logits / 0.8, top_k)
        p = torch.softmax(values, -1)
        p = torch.where(torch.cumsum(p, -1) - p < 0.95, p, torch.zeros(()))
        return ids[torch.multinomial(p, 1)]
    return draw


def lstm(steps, batch, inputs):
    net, x = torch.nn.LSTM(inputs, 128), rand(steps, batch, inputs)
    return lambda: net(x)


OPS = {f.__name__: f for f in (matmul, attention, softmax, layernorm, gelu, sample, lstm)}
made = {}


def seconds(line):
    name, *sizes = line.split()
    if line not in made:
        made.clear()
        made[line] = OPS[name](*map(int, sizes))
        made[line]()
    calls, spent = 0, 0.0
    begin = time.perf_counter()
    while spent < BATCH:
        made[line]()
        calls += 1
        spent = time.perf_counter() - begin
    return spent / calls


torch.set_num_threads(threads)
print("PyTorch", torch.__version__, flush=True)
with torch.inference_mode():
    for line in sys.stdin:
        answer = f"{seconds(line):.9f}" if line.split()[0] in OPS else "none"
        time.sleep(0.02 if threads > 1 else 0)      # until its threads no longer wait for work
        print(answer, flush=True)
