#!/usr/bin/env python3
"""Makes the fixtures of the tests with PyTorch: tests/data/{ops,tiny-gpt2,tiny-llama}.gguf.

    python3 tools/vectors/make_vectors.py [FOLDER]          (Debian: apt-get install python3-torch)

Inputs are random, seeded, float32. Expected outputs are computed in float64 and rounded once.

ops.gguf: case N of op OP is the tensors `OP.N.NAME`; integers that describe the case are in
`OP.N.i`, floats in `OP.N.f`; metadata `cases.OP` says how many there are. The model files carry
what is expected of them in metadata under `test.`: prompt, logits of every position, the greedy
continuation, and the smallest gap between best and second best logit along it.
"""

import math
import os
import sys

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from gguf_file import write_gguf

torch.set_num_threads(1)
INF = float("inf")


# ---- Cases -----------------------------------------------------------------------------------

rng = np.random.default_rng(20260101)
tensors, counts = {}, {}


def rand(*shape, scale=1.0):
    """float32 normal numbers as a float64 tensor"""
    return torch.from_numpy((rng.standard_normal(shape) * scale).astype(np.float32).astype(np.float64))


def f32(x):
    """the float64 value of x rounded to float32"""
    return float(np.float32(x))


def case(op, ints=(), floats=(), **named):
    n = counts.get(op, 0)
    counts[op] = n + 1
    if len(ints):
        tensors[f"{op}.{n}.i"] = np.array(ints, dtype=np.int32)
    if len(floats):
        tensors[f"{op}.{n}.f"] = np.array(floats, dtype=np.float32)
    for name, t in named.items():
        if t is None:
            continue
        kind = np.int32 if t.dtype in (torch.int32, torch.int64) else np.float32
        tensors[f"{op}.{n}.{name}"] = np.ascontiguousarray(t.detach().numpy().astype(kind))


def matmul():
    # ta, tb: which side the test hands over as a transposed view of what is stored
    shapes = [((3, 5), (5, 4)), ((1, 1), (1, 1)), ((4, 300), (300, 3)), ((2, 257), (257, 3)),
              ((5,), (5,)), ((5,), (5, 3)), ((4, 6), (6,)), ((300,), (300,)), ((2, 3, 6), (6,)), ((6,), (2, 6, 3)),
              ((2, 3, 4), (2, 4, 5)), ((2, 3, 4), (4, 5)), ((3, 4), (2, 4, 5)), ((2, 1, 3, 4), (1, 3, 4, 2)),
              ((3, 1, 4), (2, 1, 4, 5)), ((2, 2, 3, 17), (2, 2, 17, 3))]
    for a, b in shapes:
        x, y = rand(*a), rand(*b)
        case("matmul", a=x, b=y, y=torch.matmul(x, y))


def elementwise():
    ops = [("add", torch.add), ("sub", torch.sub), ("mul", torch.mul), ("div", torch.div)]
    shapes = [((3, 4), (3, 4)), ((3, 4), (4,)), ((4,), (3, 4)), ((3, 1), (1, 5)), ((2, 3, 4), (3, 1)), ((1,), (2, 2)),
              ((2, 1, 3, 1), (4, 1, 5)), ((19,), (19,)), ((2, 3, 4, 5), (2, 3, 4, 5)), ((2, 1, 1, 3), (1, 4, 5, 1))]
    for name, op in ops:
        for a, b in shapes:
            x, y = rand(*a), rand(*b)
            case(name, a=x, b=y, y=op(x, y))
    x = rand(3, 7)
    case("scale", floats=[-2.75], a=x, y=x * -2.75)
    case("scale", floats=[1e-3], a=x[0], y=x[0] * f32(1e-3))


def reductions():
    ops = [("sum", torch.sum), ("mean", torch.mean), ("max", lambda t, axis: torch.max(t, axis)[0])]
    for shape in [(5,), (1,), (3, 4), (2, 3, 4), (2, 3, 4, 5), (2, 261), (259, 2)]:
        for axis in range(len(shape)):
            x = rand(*shape)
            for name, op in ops:
                y = op(x, axis)
                case(name, ints=[axis], a=x, y=y.reshape(1) if y.dim() == 0 else y)
    for shape in [(6,), (3, 7), (2, 3, 5)]:
        x = torch.round(rand(*shape) * 2)           # many ties
        for axis in range(len(shape)):
            m = torch.max(x, axis, keepdim=True)[0]
            length = x.shape[axis]
            index = torch.arange(length).reshape([-1 if d == axis else 1 for d in range(len(shape))])
            first = torch.where(x == m, index, torch.full_like(index, length)).min(axis)[0]
            case("argmax", ints=[axis], a=x, y=first.reshape(1) if first.dim() == 0 else first)
    for shape, k in [((9,), 1), ((9,), 9), ((4, 50), 7), ((2, 3, 20), 20)]:
        x = torch.round(rand(*shape) * 3)
        order = np.argsort(-x.numpy(), axis=-1, kind="stable")[..., :k]     # stable: ties by lower index
        order = torch.from_numpy(np.ascontiguousarray(order))
        case("topk", ints=[k], a=x, values=torch.gather(x, -1, order), indices=order)


def safe_softmax(x, axis, log):
    """rows wholly -inf: zeros, or -inf for the logarithm"""
    m = x.max(axis, keepdim=True)[0]
    m = torch.where(torch.isinf(m), torch.zeros_like(m), m)
    e = torch.exp(x - m)
    s = e.sum(axis, keepdim=True)
    if log:
        return torch.where(s > 0, x - m - torch.log(s), torch.full_like(x, -INF))
    return torch.where(s > 0, e / s, torch.zeros_like(x))


def softmaxes():
    def both(x, axis):
        ok = safe_softmax(x, axis, False)
        if not torch.isinf(x).any():
            assert torch.allclose(ok, torch.softmax(x, axis), rtol=1e-12, atol=0)
            assert torch.allclose(safe_softmax(x, axis, True), torch.log_softmax(x, axis), rtol=1e-12)
        case("softmax", ints=[axis], a=x, y=ok)
        case("log_softmax", ints=[axis], a=x, y=safe_softmax(x, axis, True))

    for shape in [(5,), (1,), (3, 4), (2, 3, 4), (2, 3, 4, 5)]:
        for axis in range(len(shape)):
            both(rand(*shape, scale=3), axis)
    both(rand(2, 280, scale=2), 1)
    both(rand(260, 2, scale=2), 0)
    big = rand(4, 6, scale=3)
    big[0, 2], big[0, 3], big[1] = 1e4, -1e4, 1e4
    big[2, :3], big[2, 3:] = -1e4, 1e4
    big[3, 5] = -1e4
    both(big, 1)
    both(big, 0)
    holes = rand(4, 6, scale=3)
    holes[0, 1:4] = -INF
    holes[1] = -INF                                  # wholly masked
    holes[2, :5] = -INF
    both(holes, 1)
    holes[:, 3] = -INF
    both(holes, 0)


def norms():
    rows = [((5,), 1, 0, 1e-5), ((1,), 1, 0, 1e-5), ((3, 8), 1, 0, 1e-5), ((2, 3, 17), 4, 2, 1e-6),
            ((2, 2, 3, 9), 1, 0, 1e-12), ((2, 300), 3, 0, 1e-5), ((2, 515), 1, 30, 1e-5), ((3, 8), 1e-4, 0, 1e-5)]
    for shape, scale, offset, eps in rows:
        eps = f32(eps)
        x = (rand(*shape, scale=scale) + offset).float().double()
        w, b = rand(shape[-1]), rand(shape[-1])
        d = [shape[-1]]
        some = [(True, False), (False, True)] if shape[-1] == 17 else []
        for use_w, use_b in [(False, False), (True, True)] + some:
            y = F.layer_norm(x, d, w if use_w else None, b if use_b else None, eps)
            if shape[-1] == 1:
                y = b.expand(shape) if use_b else 0 * x         # PyTorch's mean of one number is off by 1e-17
            case("layernorm", floats=[eps], a=x, w=w if use_w else None, b=b if use_b else None, y=y)
        y = x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps)
        case("rmsnorm", floats=[eps], a=x, y=y)
        case("rmsnorm", floats=[eps], a=x, w=w, y=y * w)


def activations():
    def gelu(x):
        return 0.5 * x * torch.special.erfc(-x / math.sqrt(2))      # no cancellation for large -x

    def gelu_tanh(x):
        u = math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)
        return x * torch.sigmoid(2 * u)                             # (1 + tanh u) / 2

    ops = [("relu", torch.relu), ("gelu", gelu), ("gelu_tanh", gelu_tanh), ("silu", F.silu), ("tanh", torch.tanh),
           ("sigmoid", torch.sigmoid)]
    tiny = 10.0 ** torch.linspace(-30, -3, 40, dtype=torch.float64)
    small = torch.linspace(-1, 1, 101, dtype=torch.float64)
    wide = torch.linspace(-20, 20, 161, dtype=torch.float64)
    large = torch.linspace(-100, 100, 81, dtype=torch.float64)
    for name, op in ops:
        for x in [torch.cat([tiny, -tiny]), small, wide, large, rand(2, 3, 5, scale=3)]:
            x = x.float().double()
            y = op(x)
            if name == "gelu":
                assert torch.allclose(y, F.gelu(x), rtol=1e-9, atol=1e-14)
            case(name, a=x, y=y)


def rope_reference(x, first, half, dims, base, factors, scaling, factor, original, attn_factor, fast, slow):
    """x [T, H, d]; the formulas of llama.cpp's ggml_rope_ext in float64"""
    t, _, d = x.shape
    n = dims or d
    i = torch.arange(n // 2, dtype=torch.float64)
    extrapolated = base ** (-2 * i / n)
    if factors is not None:
        extrapolated = extrapolated / factors
    angle, magnitude = extrapolated, attn_factor
    if scaling == 1:
        angle = extrapolated / factor
    elif scaling == 2:
        def turn(rotations):
            return n * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(base))
        low = max(0, math.floor(turn(fast)))
        high = min(n - 1, math.ceil(turn(slow)))
        ramp = 1 - torch.clamp((i - low) / max(0.001, high - low), 0, 1)
        angle = extrapolated / factor * (1 - ramp) + extrapolated * ramp
        magnitude = attn_factor * (1 + 0.1 * math.log(factor))
    position = torch.arange(first, first + t, dtype=torch.float64)
    a = position[:, None, None] * angle                             # [T, 1, n/2]
    cos, sin = torch.cos(a) * magnitude, torch.sin(a) * magnitude
    y = x.clone()
    p, q = (slice(0, n // 2), slice(n // 2, n)) if half else (slice(0, n, 2), slice(1, n, 2))
    y[..., p] = x[..., p] * cos - x[..., q] * sin
    y[..., q] = x[..., p] * sin + x[..., q] * cos
    return y


def rope():
    for half in (0, 1):
        #       T  H   d  first  dims  base    factors scaling factor original attn  fast slow
        rows = [(6, 2, 8, 0, 0, 10000, False, 0, 1, 0, 1, 32, 1),
                (3, 1, 2, 5, 0, 10000, False, 0, 1, 0, 1, 32, 1),
                (4, 3, 20, 77, 12, 10000, False, 0, 1, 0, 1, 32, 1),
                (3, 2, 64, 100000 - 3, 0, 10000, False, 0, 1, 0, 1, 32, 1),
                (3, 1, 128, 99990, 0, 500000, True, 0, 1, 0, 1, 32, 1),
                (4, 2, 16, 1000, 0, 10000, False, 1, 4, 0, 1, 32, 1),
                (4, 2, 32, 300, 0, 10000, False, 2, 4, 64, 1, 32, 1),
                (3, 1, 64, 30000, 0, 1000000, False, 2, 8, 4096, 1.25, 32, 1),
                (3, 2, 64, 5000, 48, 10000, True, 2, 16, 2048, 0.75, 24, 2),
                (3, 1, 32, 20, 0, 10000, False, 2, 4, 7, 1, 32, 1),
                (4, 2, 16, 9, 0, 10000, False, 0, 1, 0, 1.5, 32, 1)]
        for t, h, d, first, dims, base, factors, scaling, factor, original, attn, fast, slow in rows:
            x = rand(t, h, d)
            n = dims or d
            ff = 1 + 7 * torch.rand(n // 2, dtype=torch.float64, generator=generator).float().double()
            ff = ff.float().double() if factors else None
            y = rope_reference(x, first, half, dims, float(base), ff, scaling, factor, original, attn, fast, slow)
            ints, floats = [half, first, dims, scaling, original], [base, factor, attn, fast, slow]
            case("rope", ints=ints, floats=floats, a=x, ff=ff, y=y)


def attention_reference(q, k, v, scale, causal, offset, window, mask):
    """q [B, H, Tq, d], k [B, KV, Tk, d], v [B, KV, Tk, dv]"""
    b, h, tq, d = q.shape
    kv, tk = k.shape[1], k.shape[2]
    k, v = k.repeat_interleave(h // kv, 1), v.repeat_interleave(h // kv, 1)
    s = q @ k.transpose(2, 3) * (scale or 1 / math.sqrt(d))
    if mask is not None:
        s = s + mask
    i, j = torch.arange(tq)[:, None] + offset, torch.arange(tk)[None]
    hidden = torch.zeros(tq, tk, dtype=torch.bool)
    if causal:
        hidden |= j > i
    if window:
        hidden |= j <= i - window
    s = s.masked_fill(hidden, -INF)
    return safe_softmax(s, -1, False) @ v


def attention():
    def one(layout, b, h, kv, tq, tk, d, dv, scale=0.0, causal=0, offset=0, window=0, mask=None, qscale=1.0):
        q, k, v = rand(b, h, tq, d, scale=qscale), rand(b, kv, tk, d), rand(b, kv, tk, dv)
        m = None
        if mask:
            shape = {"2": (tq, tk), "3": (h, tq, tk), "4": (b, h, tq, tk), "4b": (b, 1, tq, tk),
                     "4h": (1, h, tq, tk)}[mask[0]]
            m = rand(*shape)
            if "i" in mask[1]:
                m = torch.where(torch.rand(shape, generator=generator) < 0.3, torch.full_like(m, -INF), m)
            if "r" in mask[1]:
                m[..., tq // 2, :] = -INF                       # a query that sees nothing
        y = attention_reference(q, k, v, f32(scale), causal, offset, window, m)
        pack = {4: lambda t: t, 3: lambda t: t.transpose(1, 2).reshape(t.shape[0], t.shape[2], -1),
                2: lambda t: t[0].transpose(0, 1).reshape(t.shape[2], -1)}[layout]
        case("attention", ints=[layout, h, kv, causal, offset, window], floats=[scale], q=pack(q), k=pack(k),
             v=pack(v), mask=m, y=pack(y))

    one(2, 1, 1, 1, 3, 3, 5, 5)
    one(2, 1, 1, 1, 1, 1, 1, 1)
    one(2, 1, 4, 4, 7, 7, 8, 8, causal=1)
    one(2, 1, 4, 2, 7, 9, 8, 8)
    one(2, 1, 6, 1, 5, 9, 4, 4, causal=1, offset=4)
    one(2, 1, 2, 2, 3, 8, 6, 6, causal=1)                       # keys later than any query
    one(3, 2, 4, 2, 5, 6, 8, 8, causal=1, offset=1)
    one(3, 2, 2, 2, 4, 5, 3, 7)                                 # v's heads are wider
    one(3, 2, 2, 1, 4, 5, 9, 2, scale=0.7)
    one(4, 2, 4, 4, 5, 6, 8, 8)
    one(4, 2, 4, 2, 5, 6, 8, 5, causal=1, offset=1)
    one(4, 1, 2, 2, 6, 6, 4, 4, mask=("2", ""))
    one(4, 2, 2, 2, 6, 7, 4, 4, mask=("2", "i"))
    one(4, 2, 2, 1, 6, 7, 4, 4, mask=("3", "i"))
    one(4, 2, 3, 3, 6, 7, 4, 4, mask=("4", "ir"))
    one(4, 2, 3, 3, 6, 7, 4, 4, mask=("4b", "ir"))
    one(4, 2, 3, 3, 6, 7, 4, 4, mask=("4h", "ir"), causal=1, offset=1)
    one(2, 1, 2, 2, 6, 6, 4, 4, mask=("2", "r"), causal=1)
    one(3, 2, 2, 1, 5, 70, 4, 4, mask=("3", "i"))
    one(2, 1, 2, 2, 20, 20, 4, 4, causal=1, window=5)
    one(2, 1, 2, 1, 9, 150, 8, 8, causal=1, offset=141, window=70)
    one(2, 1, 2, 1, 3, 200, 8, 8, causal=1, offset=197, window=1)
    one(2, 1, 2, 2, 4, 5, 8, 8, qscale=1e4)                     # scores of about 1e4
    one(2, 1, 2, 2, 4, 70, 8, 8, qscale=1e4, causal=1, offset=66)
    one(2, 1, 1, 1, 130, 130, 4, 4, causal=1)
    one(2, 1, 2, 1, 2, 1100, 4, 4)                              # more than one segment of 16 blocks of 64
    one(2, 1, 2, 1, 3, 2080, 4, 4, causal=1, offset=2077)
    one(2, 1, 1, 1, 2, 1400, 4, 4, causal=1, offset=1390, window=1200)
    one(2, 1, 1, 1, 3, 1030, 4, 6, mask=("2", "ir"))


def rnns():
    def rows(layers, both, inputs, hidden, gates):
        dirs = 2 if both else 1
        sets = []
        for layer in range(layers):
            n = inputs if layer == 0 else hidden * dirs
            for _ in range(dirs):
                k = 1 / math.sqrt(hidden)
                shapes = [(gates * hidden, n), (gates * hidden, hidden), (gates * hidden,), (gates * hidden,)]
                sets.append([rand(*s, scale=k) for s in shapes])
        return sets

    #        T   B  in hid layers both first bias state
    table = [(5, 0, 3, 4, 1, 0, 0, 1, 0), (5, 0, 3, 4, 1, 0, 0, 0, 1), (7, 2, 5, 6, 1, 0, 0, 1, 1),
             (7, 2, 5, 6, 2, 0, 1, 1, 0), (6, 3, 4, 5, 1, 1, 0, 1, 1), (6, 3, 4, 5, 2, 1, 1, 1, 1),
             (4, 1, 1, 1, 3, 1, 0, 1, 1), (100, 1, 3, 8, 1, 0, 0, 1, 0)]
    for t, b, inputs, hidden, layers, both, first, bias, state in table:
        dirs = 2 if both else 1
        batch = b or 1
        for name, gates, make in [("lstm", 4, torch.nn.LSTM), ("gru", 3, torch.nn.GRU)]:
            net = make(inputs, hidden, layers, bias=bool(bias), batch_first=bool(first), bidirectional=bool(both))
            net.double()
            sets = rows(layers, both, inputs, hidden, gates)
            for s, set_ in enumerate(sets):
                end = f"_l{s // dirs}" + ("_reverse" if s % dirs else "")
                for kind, value in zip(["weight_ih", "weight_hh", "bias_ih", "bias_hh"][:4 if bias else 2], set_):
                    getattr(net, kind + end).data.copy_(value)
            x = rand(*([t, inputs] if not b else [b, t, inputs] if first else [t, b, inputs]))
            h0 = rand(layers * dirs, batch, hidden) if state else None
            c0 = rand(layers * dirs, batch, hidden) if state and name == "lstm" else None
            squeeze = (lambda s: s) if b else (lambda s: s[:, 0])
            start = None if not state else squeeze(h0) if name == "gru" else (squeeze(h0), squeeze(c0))
            with torch.no_grad():
                y, end = net(x, start)
            h, c = (end, None) if name == "gru" else end
            full = (lambda s: s) if b else (lambda s: s[:, None])
            named = {"x": x, "y": y, "h": full(h), "h0": h0}
            if name == "lstm":
                named.update(c=full(c), c0=c0)
            for s, set_ in enumerate(sets):
                for kind, value in zip(["wi", "wh", "bi", "bh"][:4 if bias else 2], set_):
                    named[f"{kind}{s}"] = value
            case(name, ints=[layers, both, first], **named)


def layers():
    table = rand(11, 7)
    ids = torch.tensor([0, 10, 3, 3, 5])
    case("embedding", ints=ids.tolist(), table=table, y=table[ids])
    for shape, n, bias in [((5,), 3, True), ((4, 6), 5, True), ((2, 3, 6), 5, False), ((2, 2, 3, 9), 4, True),
                           ((3, 300), 7, True), ((1, 1), 1, True)]:
        x, w, b = rand(*shape), rand(n, shape[-1]), rand(n) if bias else None
        case("dense", x=x, w=w, b=b, y=F.linear(x, w, b))
    for shapes, axis in [(((2, 3), (4, 3)), 0), (((2, 3), (2, 1), (2, 2)), 1), (((5,), (1,)), 0),
                         (((2, 1, 3), (2, 4, 3)), 1), (((1, 2, 3, 4), (1, 2, 3, 1)), 3),
                         (((2, 2, 3, 4), (1, 2, 3, 4)), 0)]:
        parts = [rand(*s) for s in shapes]
        named = {f"p{i}": p for i, p in enumerate(parts)}
        case("concat", ints=[axis, len(parts)], y=torch.cat(parts, axis), **named)


def conv():
    #        B  Cin h  w  Cout kh kw stride  padding dilation groups bias
    rows = [(0, 1, 5, 6, 1, 3, 3, (1, 1), (0, 0), (1, 1), 1, True),
            (2, 3, 8, 7, 4, 3, 3, (1, 1), (1, 1), (1, 1), 1, True),
            (1, 2, 9, 9, 3, 3, 2, (2, 3), (1, 0), (1, 1), 1, False),
            (1, 2, 10, 11, 3, 3, 3, (1, 2), (2, 3), (2, 3), 1, True),
            (2, 4, 6, 5, 6, 3, 3, (1, 1), (1, 1), (1, 1), 2, True),
            (1, 4, 7, 7, 4, 3, 3, (2, 2), (1, 1), (1, 1), 4, True),
            (2, 3, 4, 4, 5, 1, 1, (1, 1), (0, 0), (1, 1), 1, True),
            (1, 30, 5, 5, 2, 3, 3, (1, 1), (1, 1), (1, 1), 1, True),
            (1, 1, 3, 3, 1, 3, 3, (1, 1), (0, 0), (1, 1), 1, True),
            (1, 2, 2, 2, 2, 3, 3, (1, 1), (4, 4), (1, 1), 1, True)]
    for b, cin, h, w, cout, kh, kw, stride, padding, dilation, groups, bias in rows:
        x = rand(*([cin, h, w] if not b else [b, cin, h, w]))
        weight, bias = rand(cout, cin // groups, kh, kw), rand(cout) if bias else None
        y = F.conv2d(x, weight, bias, stride, padding, dilation, groups)
        case("conv2d", ints=[*stride, *padding, *dilation, groups], x=x, w=weight, b=bias, y=y)


# ---- Models ----------------------------------------------------------------------------------

CHARACTERS = ["\n"] + [chr(c) for c in range(32, 127)]
PROMPT = "What is the use of a book, thought Alice, without pictures or conversations?\nSo she was c"
GREEDY = 32


def weights(seed, gain, shapes):
    g = np.random.default_rng(seed)
    out = {}
    for name, shape in shapes.items():
        if name.endswith("norm.weight"):
            a = 1 + 0.2 * g.standard_normal(shape)
        elif name.endswith(".bias"):
            a = 0.2 * g.standard_normal(shape)
        elif name in ("token_embd.weight", "position_embd.weight"):
            a = 0.5 * g.standard_normal(shape)
        else:
            a = gain * g.standard_normal(shape) / math.sqrt(shape[1])
        out[name] = a.astype(np.float32)
    return out


def gpt2_logits(w, ids, heads, layers, eps):
    t = len(ids)
    x = w["token_embd.weight"][ids] + w["position_embd.weight"][:t]
    d = x.shape[1]

    def norm(x, name):
        return F.layer_norm(x, [d], w[name + ".weight"], w[name + ".bias"], eps)

    def dense(x, name):
        return x @ w[name + ".weight"].T + w[name + ".bias"]

    def split(t):
        return t.reshape(t.shape[0], heads, -1).transpose(0, 1)[None]

    for i in range(layers):
        b = f"blk.{i}."
        q, k, v = dense(norm(x, b + "attn_norm"), b + "attn_qkv").chunk(3, 1)
        a = attention_reference(split(q), split(k), split(v), 0, True, 0, 0, None)[0].transpose(0, 1).reshape(t, d)
        x = x + dense(a, b + "attn_output")
        u = dense(norm(x, b + "ffn_norm"), b + "ffn_up")
        u = 0.5 * u * (1 + torch.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u ** 3)))
        x = x + dense(u, b + "ffn_down")
    return norm(x, "output_norm") @ w["token_embd.weight"].T


def llama_logits(w, ids, heads, kv_heads, layers, eps, base):
    t = len(ids)
    x = w["token_embd.weight"][ids]
    d = x.shape[1]

    def norm(x, name):
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps) * w[name + ".weight"]

    def turned(x, n):
        y = x.reshape(t, n, -1)
        return rope_reference(y, 0, False, 0, base, None, 0, 1, 0, 1, 32, 1).transpose(0, 1)[None]

    for i in range(layers):
        b = f"blk.{i}."
        h = norm(x, b + "attn_norm")
        q, k = turned(h @ w[b + "attn_q.weight"].T, heads), turned(h @ w[b + "attn_k.weight"].T, kv_heads)
        v = (h @ w[b + "attn_v.weight"].T).reshape(t, kv_heads, -1).transpose(0, 1)[None]
        a = attention_reference(q, k, v, 0, True, 0, 0, None)[0].transpose(0, 1).reshape(t, d)
        x = x + a @ w[b + "attn_output.weight"].T
        h = norm(x, b + "ffn_norm")
        x = x + (F.silu(h @ w[b + "ffn_gate.weight"].T) * (h @ w[b + "ffn_up.weight"].T)) @ w[b + "ffn_down.weight"].T
    return norm(x, "output_norm") @ w.get("output.weight", w["token_embd.weight"]).T


def expected(logits_of):
    """the metadata under `test.`"""
    prompt = [CHARACTERS.index(c) for c in PROMPT]
    ids, gap = list(prompt), INF
    for _ in range(GREEDY):
        top = torch.topk(logits_of(ids)[-1], 2)
        gap = min(gap, float(top[0][0] - top[0][1]))
        ids.append(int(top[1][0]))
    logits = logits_of(prompt)
    new = ids[len(prompt):]
    print(f"  smallest gap {gap:.4f}, logits std {logits.std():.2f}, distinct {len(set(new))}: "
          + repr("".join(CHARACTERS[i] for i in new)))
    return {"test.text": PROMPT, "test.prompt": np.array(prompt, np.int32), "test.greedy": np.array(new, np.int32),
            "test.greedy_text": "".join(CHARACTERS[i] for i in new), "test.min_gap": gap,
            "test.logits": logits.numpy().astype(np.float32).reshape(-1)}


def vocabulary():
    return {"tokenizer.ggml.model": "char", "tokenizer.ggml.tokens": CHARACTERS}


def tiny_gpt2(path):
    v, d, heads, n, ff, context = len(CHARACTERS), 40, 4, 2, 160, 160
    shapes = {"token_embd.weight": (v, d), "position_embd.weight": (context, d)}
    for i in range(n):
        b = f"blk.{i}."
        shapes.update({b + "attn_norm.weight": (d,), b + "attn_norm.bias": (d,), b + "attn_qkv.weight": (3 * d, d),
                       b + "attn_qkv.bias": (3 * d,), b + "attn_output.weight": (d, d), b + "attn_output.bias": (d,),
                       b + "ffn_norm.weight": (d,), b + "ffn_norm.bias": (d,), b + "ffn_up.weight": (ff, d),
                       b + "ffn_up.bias": (ff,), b + "ffn_down.weight": (d, ff), b + "ffn_down.bias": (d,)})
    shapes.update({"output_norm.weight": (d,), "output_norm.bias": (d,)})
    w = weights(6, 3.0, shapes)
    eps = f32(1e-5)
    double = {k: torch.from_numpy(a.astype(np.float64)) for k, a in w.items()}
    meta = {"general.architecture": "gpt2", "general.name": "tiny random gpt2", "gpt2.block_count": n,
            "gpt2.context_length": context, "gpt2.embedding_length": d, "gpt2.feed_forward_length": ff,
            "gpt2.attention.head_count": heads, "gpt2.attention.layer_norm_epsilon": eps, **vocabulary()}
    meta.update(expected(lambda ids: gpt2_logits(double, ids, heads, n, eps)))
    write_gguf(path, meta, w)


def tiny_llama(path):
    v, d, heads, kv, n, ff, context = len(CHARACTERS), 48, 4, 2, 2, 96, 160
    kd = d // heads * kv
    shapes = {"token_embd.weight": (v, d)}
    for i in range(n):
        b = f"blk.{i}."
        shapes.update({b + "attn_norm.weight": (d,), b + "attn_q.weight": (d, d), b + "attn_k.weight": (kd, d),
                       b + "attn_v.weight": (kd, d), b + "attn_output.weight": (d, d), b + "ffn_norm.weight": (d,),
                       b + "ffn_gate.weight": (ff, d), b + "ffn_up.weight": (ff, d), b + "ffn_down.weight": (d, ff)})
    shapes.update({"output_norm.weight": (d,), "output.weight": (v, d)})
    w = weights(6, 1.2, shapes)
    w["output.weight"] = (w["output.weight"] * 3).astype(np.float32)
    eps, base = f32(1e-5), 10000.0
    double = {k: torch.from_numpy(a.astype(np.float64)) for k, a in w.items()}
    meta = {"general.architecture": "llama", "general.name": "tiny random llama", "llama.block_count": n,
            "llama.context_length": context, "llama.embedding_length": d, "llama.feed_forward_length": ff,
            "llama.attention.head_count": heads, "llama.attention.head_count_kv": kv,
            "llama.attention.layer_norm_rms_epsilon": eps, "llama.rope.dimension_count": d // heads,
            "llama.rope.freq_base": base, "llama.vocab_size": v, **vocabulary()}
    meta.update(expected(lambda ids: llama_logits(double, ids, heads, kv, n, eps, base)))
    write_gguf(path, meta, w)


if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "..", "..", "tests", "data")
    generator = torch.Generator().manual_seed(7)
    for make in [matmul, elementwise, reductions, softmaxes, norms, activations, rope, attention, rnns, layers, conv]:
        make()
    write_gguf(os.path.join(folder, "ops.gguf"), {f"cases.{op}": n for op, n in counts.items()}, tensors)
    tiny_gpt2(os.path.join(folder, "tiny-gpt2.gguf"))
    tiny_llama(os.path.join(folder, "tiny-llama.gguf"))
