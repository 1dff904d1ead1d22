#!/usr/bin/env python3
"""Train the character LSTM that comes with tfm.h (examples/charlstm.c) and write it as GGUF.

    python3 tools/train_charlstm.py shared/corpus/shakespeare.txt --out DIR     # writes DIR/charlstm-f32.gguf
    build/quantize DIR/charlstm-f32.gguf DIR/charlstm.gguf Q8_0
    python3 tools/train_charlstm.py shared/corpus/shakespeare.txt --out DIR --resume --epochs 20
    python3 tools/train_charlstm.py shared/corpus/shakespeare.txt --out DIR --export    # only write the file again

Needs PyTorch 2.4 or newer and numpy, and runs on a CPU; any UTF-8 text will do. Options:
    --epochs N     passes over the training text (default 30); the learning rate falls over the last 40 % of them
    --threads N    CPU threads (default 1)         --seed N    random seed (default 1)

The model: Embedding(characters, 64) -> LSTM(256) -> LSTM(256) -> Linear(characters). The text's last 5 % are for
testing, the 5 % before them for validation, the rest for training. Three things keep it from learning the text by
heart: dropout on what each layer passes up (one mask per row and step), dropout of recurrent weights (Merity et al.,
2017, arXiv 1708.02182), and weights that are a running average (EMA) over the steps. The text is read in `ROWS` rows
side by side, `STEPS` characters at a time, each row's state carried on.
"""
import argparse, math, os, time
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

from gguf_file import write_gguf

EMBED, HIDDEN, LAYERS = 64, 256, 2
ROWS, STEPS = 32, 128
RATE, DECAY, KEEP_EMA = 3e-3, 0.02, 0.998
DROP_OUT, DROP_RECURRENT = 0.25, 0.2


class CharLSTM(nn.Module):
    def __init__(self, characters):
        super().__init__()
        self.embedding = nn.Embedding(characters, EMBED)
        self.lstm = nn.ModuleList(nn.LSTM(HIDDEN if i else EMBED, HIDDEN) for i in range(LAYERS))
        self.dense = nn.Linear(HIDDEN, characters)
        for layer in self.lstm:
            with torch.no_grad():
                layer.bias_hh_l0.zero_()
                layer.bias_ih_l0.zero_()[HIDDEN:2 * HIDDEN] = 1  # the forget gate begins open
            layer.bias_hh_l0.requires_grad_(False)               # one bias is enough

    def drop(self, x):
        if not self.training:
            return x
        keep = torch.rand(1, x.shape[1], x.shape[2]) >= DROP_OUT
        return x * (keep / (1 - DROP_OUT))

    def forward(self, ids, state):
        """ids (steps, rows), state one (h, c) per layer -> logits (steps, rows, characters), the new state"""
        x, after = self.embedding(ids), []
        for layer, s in zip(self.lstm, state):
            x, s = layer(x, s)
            x = self.drop(x)
            after.append(s)
        return self.dense(x), after


def no_state(rows):
    return [(torch.zeros(1, rows, HIDDEN), torch.zeros(1, rows, HIDDEN)) for _ in range(LAYERS)]


@torch.no_grad()
def bits_per_character(model, ids, context):
    """Mean bits of ids[1:], the state begun as zeros before `context` and carried through all of ids."""
    model.eval()
    state, nats = no_state(1), 0.0
    if len(context):
        _, state = model(context[:, None], state)
        ids = torch.cat((context[-1:], ids))
    for at in range(0, len(ids) - 1, 4096):
        x, y = ids[at:at + 4096][:len(ids) - 1 - at], ids[at + 1:at + 4097]
        logits, state = model(x[:, None], state)
        nats += F.cross_entropy(logits[:, 0], y, reduction="sum").item()
    model.train()
    return nats / math.log(2) / (len(ids) - 1)


def read_text(path):
    """(characters in order of code point, ids of train, validation and test text)"""
    with open(path, encoding="utf-8", newline="") as f:
        text = f.read()
    characters = sorted(set(text))
    number = {c: i for i, c in enumerate(characters)}
    ids = torch.tensor([number[c] for c in text])
    cut = [len(ids) * 90 // 100, len(ids) * 95 // 100]
    return characters, ids[:cut[0]], ids[cut[0]:cut[1]], ids[cut[1]:]


def rate_at(part):
    """The learning rate after this part of the run: constant, then falling to a fiftieth over the last 40 %."""
    return RATE * (1 if part < 0.6 else 1 - 0.98 * (part - 0.6) / 0.4)


def train_step(model, optimizer, x, y, state):
    """One step with some recurrent weights left out; returns the loss and the state to carry on."""
    recurrent = [layer.weight_hh_l0 for layer in model.lstm]
    whole = [w.detach().clone() for w in recurrent]
    masks = [(torch.rand_like(w) >= DROP_RECURRENT) / (1 - DROP_RECURRENT) for w in whole]
    with torch.no_grad():
        torch._foreach_mul_(recurrent, masks)
    logits, state = model(x, state)
    loss = F.cross_entropy(logits.flatten(0, 1), y.flatten())
    loss.backward()
    with torch.no_grad():
        for w, before, mask in zip(recurrent, whole, masks):
            w.copy_(before)
            w.grad.mul_(mask)
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return loss.item(), [(h.detach(), c.detach()) for h, c in state]


def train(args, characters, ids, valid):
    path = f"{args.out}/charlstm.pt"
    model, average = CharLSTM(len(characters)), CharLSTM(len(characters))
    average.load_state_dict(model.state_dict())
    pairs = [(a, w) for a, w in zip(average.parameters(), model.parameters()) if w.requires_grad]
    averaged, weights = (list(t) for t in zip(*pairs))
    optimizer = torch.optim.AdamW(weights, lr=RATE, betas=(0.9, 0.99), weight_decay=DECAY)
    epoch, best, spent = 0, math.inf, 0.0
    if args.resume:
        old = torch.load(path, weights_only=True)
        model.load_state_dict(old["model"]), average.load_state_dict(old["average"])
        optimizer.load_state_dict(old["optimizer"])
        epoch, best, spent = old["epoch"], old["best"], old["seconds"]
    print(f"{sum(w.numel() for w in weights)} weights, {len(ids)} characters to train on", flush=True)
    per_epoch = len(ids) // ROWS // STEPS
    while epoch < args.epochs:
        torch.manual_seed(args.seed * 1000 + epoch)
        turned = ids.roll(-int(torch.randint(len(ids), ())))  # rows begin elsewhere in every epoch
        rows = turned[:len(ids) // ROWS * ROWS].view(ROWS, -1).t()
        state, total, clock = no_state(ROWS), 0.0, time.time()
        for i in range(per_epoch):
            optimizer.param_groups[0]["lr"] = rate_at((epoch + i / per_epoch) / args.epochs)
            x, y = rows[i * STEPS:(i + 1) * STEPS], rows[i * STEPS + 1:(i + 1) * STEPS + 1]
            loss, state = train_step(model, optimizer, x[:len(y)], y, state)
            total += loss
            keep = min(KEEP_EMA, (epoch * per_epoch + i + 1) / (epoch * per_epoch + i + 10))
            torch._foreach_lerp_([a.data for a in averaged], [w.data for w in weights], 1 - keep)
        epoch += 1
        spent += time.time() - clock
        bits = bits_per_character(average, valid, ids[-500:])
        best = min(best, bits)
        print(f"epoch {epoch}/{args.epochs}: train {total / per_epoch / math.log(2):.4f}, validation {bits:.4f} bits "
              f"per character, {spent:.0f} s{' *' if bits == best else ''}", flush=True)
        torch.save(dict(model=model.state_dict(), average=average.state_dict(), optimizer=optimizer.state_dict(),
                        epoch=epoch, best=best, seconds=spent), path + ".tmp")
        os.replace(path + ".tmp", path)
        if bits == best:
            torch.save(average.state_dict(), f"{args.out}/charlstm-best.pt")


def export(path, model, characters, name):
    """As architecture "sequential", which tfm_net of tfm.h runs."""
    tensors = {"layers.0.weight": model.embedding.weight, f"layers.{LAYERS + 1}.weight": model.dense.weight,
               f"layers.{LAYERS + 1}.bias": model.dense.bias}
    for i, layer in enumerate(model.lstm, 1):
        tensors |= {f"layers.{i}.weight_ih": layer.weight_ih_l0, f"layers.{i}.weight_hh": layer.weight_hh_l0,
                    f"layers.{i}.bias_ih": layer.bias_ih_l0}
    meta = {"general.architecture": "sequential", "general.name": name,
            "general.description": f"Character LSTM trained on {name}",
            "sequential.input_shape": np.zeros(1, np.int32),  # any length
            "sequential.layer.kind": ["embedding"] + ["lstm"] * LAYERS + ["dense"],
            "sequential.layer.activation": ["linear"] + ["tanh"] * LAYERS + ["linear"],
            "sequential.layer.return_sequences": np.array([False] + [True] * LAYERS + [False]),
            "tokenizer.ggml.model": "char", "tokenizer.ggml.tokens": characters}
    write_gguf(path, meta, {k: t.detach().numpy() for k, t in tensors.items()})


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("text")
    p.add_argument("--out", default=".")
    p.add_argument("--epochs", type=int, default=30)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--resume", action="store_true")
    p.add_argument("--export", action="store_true")
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    os.makedirs(args.out, exist_ok=True)
    characters, ids, valid, test = read_text(args.text)
    if not args.export:
        train(args, characters, ids, valid)
    model = CharLSTM(len(characters))
    model.load_state_dict(torch.load(f"{args.out}/charlstm-best.pt", weights_only=True))
    export(f"{args.out}/charlstm-f32.gguf", model, characters, os.path.basename(args.text))
    print(f"test {bits_per_character(model, test, ids[:0]):.4f} bits per character")


if __name__ == "__main__":
    main()
