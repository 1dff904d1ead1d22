#!/usr/bin/env python3
"""Train the small story models that come with tfm.h and write them as GGUF.

    python3 tools/train_stories.py stories --out DIR        # the 2 MiB model
    python3 tools/train_stories.py tiny --out DIR           # the 300 KiB model for firmware
    python3 tools/train_stories.py stories --out DIR --resume      # go on from DIR/stories.pt
    python3 tools/train_stories.py stories --out DIR --export      # only write the files again
    python3 tools/train_stories.py --check DIR/stories-q8_0.gguf   # read a file back: loss and a sample

Needs PyTorch 2.4 or newer and numpy, and runs on a CPU. Options:
    --data DIR        folder with tinystories-train.txt and -valid.txt (default shared/corpus)
    --type T ...      which files to write: F32, Q8_0 or both (default both: NAME-f32.gguf, NAME-q8_0.gguf)
    --set KEY=VALUE   change an entry of the named configuration, e.g. --set steps=2000 dropout=0.2
    --threads N       CPU threads (default 1)         --seed N    random seed (default 1)
    --bf16            train in bfloat16 (autocast; the weights stay float32): faster on CPUs with AMX
    --compile         use torch.compile (needs a C++ compiler)
    --prompt TEXT     beginning of the sample (default "Once upon a time")

What it does: learns a byte-level BPE vocabulary (GPT-2's splitting rule and byte spelling) from the training text,
then a transformer of the `llama` architecture (RMSNorm, rotary positions on neighbouring pairs, SwiGLU, no biases,
output matrix = embedding). Stories are shuffled every epoch, joined by <|endoftext|> and cut into rows of `ctx`
tokens (of half that for the first `halves` of the steps, which is faster). Validation uses the running average (EMA) of the weights, and the files are written from the average that had
the best validation loss so far. Everything random depends on the seed and the step number only, so that a resumed
run sees what an uninterrupted one would have seen.
"""
import argparse, collections, math, os, re, struct, time
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

CONFIGS = {
    "stories": dict(vocab=2048, dim=160, layers=5, heads=5, ffn=416, ctx=512, batch=8, steps=6000, warmup=200,
                    lr=2e-3, decay=0.3, dropout=0.1, ema=0.998, halves=0.7, every=500),
    "tiny":    dict(vocab=1024, dim=64, layers=4, heads=2, ffn=160, ctx=256, batch=16, steps=7000, warmup=200,
                    lr=4e-3, decay=0.2, dropout=0.0, ema=0.998, halves=0.5, every=500),
}
EPS, ROPE_BASE, EOT = 1e-5, 10000.0, "<|endoftext|>"

# ---------------------------------------------------------------- text and vocabulary

# GPT-2's rule, with Python's re: [^\W\d_] is a letter, \d a digit.
SPLIT = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")


def byte_chars():
    """GPT-2's printable character for each of the 256 bytes, and the order of its first 256 tokens."""
    plain = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    table = {b: chr(b) for b in plain}
    others = [b for b in range(256) if b not in table]
    table.update({b: chr(256 + i) for i, b in enumerate(others)})
    return table, plain + others


BYTE_CHAR, BYTE_ORDER = byte_chars()
CHAR_BYTE = {c: b for b, c in BYTE_CHAR.items()}


def spell(word):
    return "".join(BYTE_CHAR[b] for b in word.encode("utf-8"))


def read_stories(path):
    with open(path, encoding="utf-8") as f:
        return [s.strip() for s in f.read().split(EOT) if s.strip()]


def train_bpe(stories, size):
    """Merges, most frequent pair first (ties: the smaller pair), until the vocabulary has `size` tokens."""
    counts = collections.Counter(w for s in stories for w in SPLIT.findall(s))
    words = [(list(spell(w)), n) for w, n in sorted(counts.items())]
    pairs, where = collections.Counter(), collections.defaultdict(set)
    for i, (parts, n) in enumerate(words):
        for p in zip(parts, parts[1:]):
            pairs[p] += n
            where[p].add(i)
    merges = []
    while len(merges) < size - 256 - 1:
        best = min(pairs, key=lambda p: (-pairs[p], p))
        merges.append(best)
        for i in where.pop(best):
            parts, n = words[i]
            for p in zip(parts, parts[1:]):
                pairs[p] -= n
            parts[:] = merge_pair(parts, best)
            for p in zip(parts, parts[1:]):
                pairs[p] += n
                where[p].add(i)
        del pairs[best]
    return merges


def merge_pair(parts, pair):
    out, i = [], 0
    while i < len(parts):
        if i + 1 < len(parts) and parts[i] == pair[0] and parts[i + 1] == pair[1]:
            out.append(parts[i] + parts[i + 1])
            i += 2
        else:
            out.append(parts[i])
            i += 1
    return out


class Tokenizer:
    def __init__(self, merges):
        self.merges = [tuple(m) for m in merges]
        self.tokens = [BYTE_CHAR[b] for b in BYTE_ORDER] + [a + b for a, b in self.merges] + [EOT]
        self.ids = {t: i for i, t in enumerate(self.tokens)}
        self.rank = {m: i for i, m in enumerate(self.merges)}
        self.eot, self.cache = self.ids[EOT], {}

    def word(self, word):
        if word not in self.cache:
            parts = list(spell(word))
            while len(parts) > 1:
                best = min(zip(parts, parts[1:]), key=lambda p: self.rank.get(p, 1 << 30))
                if best not in self.rank:
                    break
                parts = merge_pair(parts, best)
            self.cache[word] = [self.ids[p] for p in parts]
        return self.cache[word]

    def encode(self, text):
        return [i for w in SPLIT.findall(text) for i in self.word(w)]

    def decode(self, ids):
        chars = "".join(self.tokens[i] for i in ids if i != self.eot)
        return bytes(CHAR_BYTE[c] for c in chars).decode("utf-8", "replace")


# ---------------------------------------------------------------- the model (names as in GGUF)

class RowDropout(nn.Module):
    """Dropout with one mask for all positions of a row: as good here, and far fewer random numbers."""
    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, x):
        if not self.training or self.p == 0:
            return x
        keep = torch.rand(x.shape[0], 1, x.shape[2]) >= self.p
        return x * (keep / (1 - self.p)).to(x.dtype)


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, f = c["dim"], c["ffn"]
        self.heads, self.drop = c["heads"], RowDropout(c["dropout"])
        self.attn_norm, self.ffn_norm = nn.RMSNorm(d, EPS), nn.RMSNorm(d, EPS)
        self.attn_q, self.attn_k, self.attn_v, self.attn_output = (nn.Linear(d, d, bias=False) for _ in range(4))
        self.ffn_gate, self.ffn_up = nn.Linear(d, f, bias=False), nn.Linear(d, f, bias=False)
        self.ffn_down = nn.Linear(f, d, bias=False)

    def forward(self, x, cos, sin, mask):
        b, t, d = x.shape

        def rotate(y):  # neighbouring pairs (2i, 2i+1)
            y = y.view(b, t, self.heads, -1, 2)
            even, odd = y[..., 0], y[..., 1]
            return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(3).transpose(1, 2)

        h = self.attn_norm(x)
        v = self.attn_v(h).view(b, t, self.heads, -1).transpose(1, 2)
        q, k = rotate(self.attn_q(h)).to(v.dtype), rotate(self.attn_k(h)).to(v.dtype)
        a = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2) + mask.to(q.dtype)
        a = a.softmax(-1).to(v.dtype) @ v
        x = x + self.drop(self.attn_output(a.transpose(1, 2).reshape(b, t, d)))
        h = self.ffn_norm(x)
        return x + self.drop(self.ffn_down(F.silu(self.ffn_gate(h)) * self.ffn_up(h)))


class Model(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.token_embd = nn.Embedding(c["vocab"], c["dim"])
        self.blk = nn.ModuleList(Block(c) for _ in range(c["layers"]))
        self.output_norm, self.drop = nn.RMSNorm(c["dim"], EPS), RowDropout(c["dropout"])
        half = c["dim"] // c["heads"] // 2
        angle = torch.arange(c["ctx"])[:, None] * ROPE_BASE ** (-torch.arange(half) / half)[None, :]
        self.register_buffer("cos", angle.cos()[:, None, :], persistent=False)  # (position, head, pair)
        self.register_buffer("sin", angle.sin()[:, None, :], persistent=False)
        self.register_buffer("mask", torch.full((c["ctx"], c["ctx"]), -math.inf).triu(1), persistent=False)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                out = "attn_output" in name or "ffn_down" in name
                nn.init.normal_(p, std=0.02 if "token_embd" in name else
                                p.shape[1] ** -0.5 / (math.sqrt(2 * c["layers"]) if out else 1))

    def forward(self, ids, targets=None):
        t = ids.shape[1]
        x = self.drop(self.token_embd(ids))
        for block in self.blk:
            x = block(x, self.cos[:t], self.sin[:t], self.mask[:t, :t])
        logits = F.linear(self.output_norm(x), self.token_embd.weight)
        if targets is None:
            return logits
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="sum")


def stream(stories):
    """Encoded stories -> one array: <|endoftext|> story <|endoftext|> story ... <|endoftext|>"""
    return torch.from_numpy(np.concatenate(stories + [stories[0][:1]]))


@torch.no_grad()
def evaluate(model, data, ctx, bf16=False, rows=1 << 30):
    """(sum of -ln p, tokens) over the stream cut into rows of ctx tokens, without overlap."""
    model.eval()
    pad = -(len(data) - 1) % ctx
    x = F.pad(data[:-1], (0, pad)).view(-1, ctx)[:rows]
    y = F.pad(data[1:], (0, pad), value=-1).view(-1, ctx)[:rows]
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        total = sum(model(x[i:i + 8], y[i:i + 8]).item() for i in range(0, len(x), 8))
    model.train()
    return total, int((y >= 0).sum())


@torch.no_grad()
def sample(model, tok, ctx, prompt="Once upon a time", count=200, temperature=0.7, top_k=40, seed=1):
    model.eval()
    gen, ids = torch.Generator().manual_seed(seed), [tok.eot] + tok.encode(prompt)
    for _ in range(min(count, ctx - len(ids))):
        logits, order = model(torch.tensor([ids]))[0, -1].float().topk(top_k)
        ids.append(order[torch.multinomial((logits / temperature).softmax(-1), 1, generator=gen)].item())
        if ids[-1] == tok.eot:
            break
    model.train()
    return tok.decode(ids)


# ---------------------------------------------------------------- GGUF

def q8_0(rows):
    """ggml's Q8_0: blocks of 32 weights, an f16 scale d = max|x| / 127 and 32 signed bytes round(x / d)."""
    x = rows.astype(np.float32).reshape(-1, 32)
    d = np.abs(x).max(1, keepdims=True) / np.float32(127)
    inverse = np.divide(np.float32(1), d, out=np.zeros_like(d), where=d > 0)
    q = (x * inverse).astype(np.float64)
    q = np.trunc(q + np.copysign(0.5, q)).astype(np.int8)
    return np.concatenate((d.astype("<f2").view(np.int8), q), 1).tobytes()


def write_gguf(path, name, c, tok, state, quantize):
    def string(s):
        return struct.pack("<Q", len(s.encode())) + s.encode()

    u32, f32, boolean, text = (lambda v: struct.pack("<II", 4, v)), (lambda v: struct.pack("<If", 6, v)), \
        (lambda v: struct.pack("<IB", 7, v)), (lambda v: struct.pack("<I", 8) + string(v))

    def array(kind, items):
        return struct.pack("<IIQ", 9, kind, len(items)) + b"".join(items)

    meta = {
        "general.architecture": text("llama"), "general.type": text("model"),
        "general.name": text(f"tfm.h {name}"), "general.license": text("CDLA-Sharing-1.0"),
        "general.description": text("Small story model trained on TinyStories (Eldan and Li, 2023)"),
        "general.alignment": u32(32), "general.file_type": u32(7 if quantize else 0),
        "general.quantization_version": u32(2),
        "llama.context_length": u32(c["ctx"]), "llama.embedding_length": u32(c["dim"]),
        "llama.block_count": u32(c["layers"]), "llama.feed_forward_length": u32(c["ffn"]),
        "llama.attention.head_count": u32(c["heads"]), "llama.attention.head_count_kv": u32(c["heads"]),
        "llama.attention.layer_norm_rms_epsilon": f32(EPS),
        "llama.rope.dimension_count": u32(c["dim"] // c["heads"]), "llama.rope.freq_base": f32(ROPE_BASE),
        "llama.vocab_size": u32(c["vocab"]),
        "tokenizer.ggml.model": text("gpt2"), "tokenizer.ggml.pre": text("gpt-2"),
        "tokenizer.ggml.tokens": array(8, [string(t) for t in tok.tokens]),
        "tokenizer.ggml.token_type": array(5, [struct.pack("<i", 3 if t == EOT else 1) for t in tok.tokens]),
        "tokenizer.ggml.merges": array(8, [string(f"{a} {b}") for a, b in tok.merges]),
        "tokenizer.ggml.bos_token_id": u32(tok.eot), "tokenizer.ggml.eos_token_id": u32(tok.eot),
        "tokenizer.ggml.add_bos_token": boolean(True), "tokenizer.ggml.add_eos_token": boolean(False),
    }
    infos, blobs, offset = b"", [], 0
    for key, tensor in state.items():
        w = tensor.detach().float().numpy()
        as_q8 = quantize and w.ndim == 2
        blob = q8_0(w) if as_q8 else w.astype("<f4").tobytes()
        infos += string(key) + struct.pack("<I", w.ndim) + struct.pack(f"<{w.ndim}Q", *w.shape[::-1])
        infos += struct.pack("<IQ", 8 if as_q8 else 0, offset)
        blobs.append(blob + bytes(-len(blob) % 32))
        offset += len(blobs[-1])
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(state), len(meta))
    head += b"".join(string(k) + v for k, v in meta.items()) + infos
    with open(path + ".tmp", "wb") as f:
        f.write(head + bytes(-len(head) % 32) + b"".join(blobs))
    os.replace(path + ".tmp", path)


def read_gguf(path):
    """(configuration, tokenizer, weights as float32) of a file that write_gguf wrote."""
    raw, at = open(path, "rb").read(), 0

    def take(fmt):
        nonlocal at
        values = struct.unpack_from("<" + fmt, raw, at)
        at += struct.calcsize("<" + fmt)
        return values[0] if len(values) == 1 else values

    def value(kind):
        if kind == 8:
            return take(f"{take('Q')}s").decode()
        if kind == 9:
            item, n = take("IQ")
            return [value(item) for _ in range(n)]
        return take({4: "I", 5: "i", 6: "f", 7: "?"}[kind])

    magic, version, n_tensors, n_meta = take("4sIQQ")
    assert magic == b"GGUF" and version == 3
    meta = {value(8): value(take("I")) for _ in range(n_meta)}
    infos = [(value(8), [take("Q") for _ in range(take("I"))], take("I"), take("Q")) for _ in range(n_tensors)]
    at += -at % 32
    state = {}
    for name, dims, kind, offset in infos:
        n = math.prod(dims)
        if kind == 8:
            blocks = np.frombuffer(raw, np.int8, n // 32 * 34, at + offset).reshape(-1, 34)
            w = blocks[:, :2].copy().view("<f2").astype(np.float32) * blocks[:, 2:]
        else:
            w = np.frombuffer(raw, "<f4", n, at + offset)
        state[name] = torch.from_numpy(np.array(w, np.float32).reshape(dims[::-1]))
    size = lambda key: meta["llama." + key]
    c = dict(vocab=size("vocab_size"), dim=size("embedding_length"), layers=size("block_count"), dropout=0.0,
             heads=size("attention.head_count"), ffn=size("feed_forward_length"), ctx=size("context_length"))
    tok = Tokenizer([m.split(" ") for m in meta["tokenizer.ggml.merges"]])
    assert tok.tokens == meta["tokenizer.ggml.tokens"] and tok.eot == meta["tokenizer.ggml.bos_token_id"]
    return c, tok, state


# ---------------------------------------------------------------- training

def encode_file(tok, path):
    stories = read_stories(path)
    return [np.array([tok.eot] + tok.encode(s), np.int64) for s in stories], sum(len(s.encode()) for s in stories)


def report(label, nats, tokens, text_bytes=None):
    bits = f", {nats / math.log(2) / text_bytes:.4f} bits per byte" if text_bytes else ""
    print(f"{label}: loss {nats / tokens:.4f} per token{bits} ({tokens} tokens)", flush=True)


def check(args):
    c, tok, state = read_gguf(args.check)
    model = Model(c)
    model.load_state_dict(state)
    stories, text_bytes = encode_file(tok, f"{args.data}/tinystories-valid.txt")
    print(f"{args.check}: {os.path.getsize(args.check)} bytes, {sum(w.numel() for w in state.values())} weights, {c}")
    report("validation", *evaluate(model, stream(stories), c["ctx"]), text_bytes)
    print(sample(model, tok, c["ctx"], args.prompt, c["ctx"]))


def train(args):
    c, path = dict(CONFIGS[args.name]), f"{args.out}/{args.name}.pt"
    for item in args.set:
        key, v = item.split("=")
        c[key] = type(c[key])(float(v))
    os.makedirs(args.out, exist_ok=True)
    old = torch.load(path, weights_only=False) if args.resume or args.export else None
    if old and not args.set:
        c = old["config"]
    torch.manual_seed(args.seed)
    merges = old["merges"] if old else train_bpe(read_stories(f"{args.data}/tinystories-train.txt"), c["vocab"])
    tok = Tokenizer(merges)

    def export(weights):
        for kind in args.type:
            write_gguf(f"{args.out}/{args.name}-{kind.lower()}.gguf", args.name, c, tok, weights, kind == "Q8_0")

    if args.export:
        return export(old["best"])
    stories, train_bytes = encode_file(tok, f"{args.data}/tinystories-train.txt")
    valid, valid_bytes = encode_file(tok, f"{args.data}/tinystories-valid.txt")
    valid, ctx, batch = stream(valid), c["ctx"], c["batch"]
    per_epoch = (sum(map(len, stories)) // ctx) // batch  # steps
    model, shadow = Model(c), Model(c).eval()             # shadow holds the average
    shadow.load_state_dict(model.state_dict())
    averaged, weights = list(shadow.parameters()), list(model.parameters())
    groups = [dict(params=[p for p in weights if p.dim() == 2], weight_decay=c["decay"]),
              dict(params=[p for p in weights if p.dim() == 1], weight_decay=0.0)]
    optimizer = torch.optim.AdamW(groups, lr=c["lr"], betas=(0.9, 0.98), fused=True)
    start, best, best_loss, spent = 0, None, math.inf, 0.0
    if old:
        model.load_state_dict(old["model"]), shadow.load_state_dict(old["shadow"])
        optimizer.load_state_dict(old["optimizer"])
        start, best, best_loss, spent = old["step"], old["best"], old["best_loss"], old["seconds"]
    run = torch.compile(model, dynamic=False) if args.compile else model
    print(f"{args.name}: {c}\n{sum(p.numel() for p in weights)} weights, {per_epoch} steps per epoch, "
          f"{train_bytes / sum(map(len, stories)):.3f} bytes per token", flush=True)

    def shuffled(epoch):
        order = np.random.default_rng([args.seed, epoch]).permutation(len(stories))
        return stream([stories[i] for i in order])

    data, running, clock = None, 0.0, time.time()
    for step in range(start, c["steps"]):
        epoch, at = step // per_epoch, step % per_epoch * batch * ctx
        if data is None or at == 0:
            data = shuffled(epoch)
        length = ctx // 2 if step < c["halves"] * c["steps"] else ctx
        x, y = (data[at + k:at + k + batch * ctx].view(-1, length) for k in (0, 1))
        cosine = 0.5 + 0.5 * math.cos(math.pi * max(0, step - c["warmup"]) / (c["steps"] - c["warmup"]))
        for group in optimizer.param_groups:
            group["lr"] = c["lr"] * min(1, (step + 1) / c["warmup"]) * (0.02 + 0.98 * cosine)
        torch.manual_seed(args.seed + step)  # dropout
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            loss = run(x, y) / y.numel()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            keep = min(c["ema"], (1 + step) / (10 + step))
            torch._foreach_lerp_(averaged, weights, 1 - keep)
        running += loss.item()
        done = step + 1
        if done % c["every"] == 0 or done == c["steps"]:
            nats, tokens = evaluate(shadow, valid, ctx, args.bf16)
            spent, clock = spent + time.time() - clock, time.time()
            better = nats / tokens < best_loss
            report(f"step {done} epoch {done / per_epoch:.2f} train {running / ((done - 1) % c['every'] + 1):.4f} "
                   f"{spent:.0f} s{' *' if better else ''} validation", nats, tokens, valid_bytes)
            running = 0.0
            if better:
                best_loss, best = nats / tokens, {k: v.clone() for k, v in shadow.state_dict().items()}
                export(best)
            torch.save(dict(config=c, merges=merges, model=model.state_dict(), shadow=shadow.state_dict(), best=best,
                            optimizer=optimizer.state_dict(), step=done, best_loss=best_loss, seconds=spent), path + ".tmp")
            os.replace(path + ".tmp", path)
    shadow.load_state_dict(best)
    report("best average, float32, validation", *evaluate(shadow, valid, ctx), valid_bytes)
    report("best average, float32, first 600 rows of train", *evaluate(shadow, stream(stories), ctx, rows=600))
    print(sample(shadow, tok, ctx, args.prompt))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("name", nargs="?", choices=sorted(CONFIGS))
    p.add_argument("--out", default=".")
    p.add_argument("--data", default="shared/corpus")
    p.add_argument("--type", nargs="+", default=["F32", "Q8_0"], choices=["F32", "Q8_0"])
    p.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--prompt", default="Once upon a time")
    p.add_argument("--check", metavar="FILE")
    for flag in ("--bf16", "--compile", "--resume", "--export"):
        p.add_argument(flag, action="store_true")
    args = p.parse_args()
    if not args.check and not args.name:
        p.error("name a configuration, or --check FILE")
    torch.set_num_threads(args.threads)
    check(args) if args.check else train(args)


if __name__ == "__main__":
    main()
