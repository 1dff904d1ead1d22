#!/usr/bin/env python3
"""Train the small image classifier that comes with tfm.h (examples/classify.c) and write it as safetensors.

    python3 tools/train_fashion.py shared/corpus --out DIR              # teacher, then model, then file
    python3 tools/train_fashion.py shared/corpus --out DIR --export     # only write the file again and test it

Writes DIR/fashion-vit.safetensors (float16), and the first test image of each class as DIR/fashion-0.pgm to -9.pgm.

Needs PyTorch 2.9 or newer, numpy and safetensors, and runs on a CPU. The folder holds Fashion-MNIST as IDX files
(fashion-train-images.idx3, fashion-train-labels.idx1, and the same with test). Options:
    --epochs N     passes over the training images (default 25)
    --teacher N    passes of the teacher (default 25; 0 = train without one)
    --keep-teacher use the one that an earlier run left in DIR
    --validate N   images at the end of the training set to keep for validation (default 1000; 0 = train on all)
    --threads N    CPU threads (default 1)         --seed N    random seed (default 1)

The model is a vision transformer with timm's names: patches of 7 x 7, width 96, 4 blocks, 3 heads, class token. Ten
thousand images are few for a transformer, so images are shifted, mirrored and partly erased, the weights are a running
average (EMA), and a small convolutional net trained first on the same images gives each augmented image soft labels
beside the true one (distillation; Hinton et al., 2015, arXiv 1503.02531). To learn in few epochs, the first layer
begins by whitening the patches, and the blocks' matrices are trained with Muon (Jordan, 2024).
"""
import argparse, math, os, struct, time
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import save_file

SIDE, PATCH, WIDTH, DEPTH, HEADS, MLP = 28, 7, 96, 4, 3, 384
MEAN, STD = 0.286, 0.353  # of the training pixels, as 0 to 1
CLASSES = ["T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]
BATCH = 100


def read_idx(path):
    """An IDX file of bytes as an array of its shape."""
    with open(path, "rb") as f:
        raw = f.read()
    rank = struct.unpack(">I", raw[:4])[0] - 0x800
    shape = struct.unpack(f">{rank}I", raw[4:4 + 4 * rank])
    return np.frombuffer(raw, np.uint8, math.prod(shape), 4 + 4 * rank).reshape(shape)


def read_images(folder, part):
    """(images n x 1 x 28 x 28 normalised, labels n)"""
    pixels = read_idx(f"{folder}/fashion-{part}-images.idx3").astype(np.float32) / 255
    labels = read_idx(f"{folder}/fashion-{part}-labels.idx1").astype(np.int64)
    return torch.from_numpy((pixels - MEAN) / STD)[:, None], torch.from_numpy(labels)


# ---------------------------------------------------------------- the model (names as in timm) and its teacher

class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, HEADS, d // HEADS).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, d))


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(WIDTH, MLP), nn.Linear(MLP, WIDTH)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH, 1e-6), nn.LayerNorm(WIDTH, 1e-6)
        self.attn, self.mlp = Attention(), Mlp()

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = nn.Conv2d(1, WIDTH, PATCH, PATCH)

    def forward(self, x):
        return self.proj(x).flatten(2).transpose(1, 2)


class ViT(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch_embed = PatchEmbed()
        self.cls_token = nn.Parameter(torch.randn(1, 1, WIDTH) * 0.5)
        self.pos_embed = nn.Parameter(torch.randn(1, (SIDE // PATCH) ** 2 + 1, WIDTH) * 0.5)
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))
        self.norm, self.head = nn.LayerNorm(WIDTH, 1e-6), nn.Linear(WIDTH, len(CLASSES))
        for name, p in self.named_parameters():
            if p.dim() == 2:
                nn.init.trunc_normal_(p, std=0.02 if "head" in name else p.shape[1] ** -0.5)
            elif name.endswith("bias"):
                nn.init.zeros_(p)

    @torch.no_grad()
    def whiten(self, images):
        """Makes the outputs of patch_embed uncorrelated mixtures of the pixels, of variance 1 over these images."""
        patches = F.unfold(images, PATCH, stride=PATCH).transpose(1, 2).reshape(-1, PATCH * PATCH)
        values, vectors = torch.linalg.eigh(torch.cov(patches.T))
        mixture = torch.randn(WIDTH, PATCH * PATCH) / PATCH
        weight = mixture @ ((values + 0.01) ** -0.5 * vectors).T
        self.patch_embed.proj.weight.copy_(weight.view(WIDTH, 1, PATCH, PATCH))
        self.patch_embed.proj.bias.copy_(-weight @ patches.mean(0))

    def forward(self, images):
        x = torch.cat((self.cls_token.expand(len(images), -1, -1), self.patch_embed(images)), 1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


def teacher_net():
    def conv(a, b):
        return [nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]

    layers = conv(1, 24) + conv(24, 24) + [nn.MaxPool2d(2)] + conv(24, 48) + conv(48, 48) + [nn.MaxPool2d(2)]
    layers += conv(48, 128) + [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(128, len(CLASSES))]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


# ---------------------------------------------------------------- training

def augment(images, shift=2):
    """Shifted by up to 2 pixels each way, mirrored half of the time, a rectangle erased now and then."""
    n, black = len(images), -MEAN / STD
    dx, dy = torch.randint(2 * shift + 1, (2, n, 1))
    padded = F.pad(images[:, 0], (shift,) * 4, value=black)
    column = torch.arange(SIDE).expand(n, -1)
    column = torch.where(torch.rand(n, 1) < 0.5, column, SIDE - 1 - column) + dx
    row = torch.arange(SIDE).expand(n, -1) + dy
    out = padded[torch.arange(n)[:, None, None], row[:, :, None], column[:, None, :]]
    size, at = torch.randint(4, 13, (2, n, 1)), torch.randint(SIDE, (2, n, 1))
    inside = [(torch.arange(SIDE) >= a - s // 2) & (torch.arange(SIDE) < a + (s + 1) // 2) for a, s in zip(at, size)]
    erased = inside[0][:, :, None] & inside[1][:, None, :] & (torch.rand(n, 1, 1) < 0.25)
    noise = torch.rand(n, 1, 1) / STD + black
    return torch.where(erased, noise, out)[:, None]


@torch.no_grad()
def accuracy(model, images, labels):
    model.eval()
    right = sum((model(images[i:i + 500]).argmax(1) == labels[i:i + 500]).sum().item()
                for i in range(0, len(images), 500))
    model.train()
    return right / len(labels)


def soft_loss(logits, labels, teaching, temperature=2.0):
    """Cross-entropy with the labels and, if there is a teacher, with its softened answer, half and half."""
    hard = F.cross_entropy(logits, labels, label_smoothing=0.0 if teaching is not None else 0.1)
    if teaching is None:
        return hard
    wanted = (teaching / temperature).softmax(1)
    return 0.5 * hard + 0.5 * temperature ** 2 * F.cross_entropy(logits / temperature, wanted)


def optimizers(model, rate, decay):
    """Muon for the matrices of a transformer's blocks, AdamW for all else."""
    named = list(model.named_parameters())
    matrices = [p for name, p in named if name.startswith("blocks.") and p.dim() == 2]
    kernels = [p for name, p in named if not name.startswith("blocks.") and p.dim() > 1]
    vectors = [p for _, p in named if p.dim() == 1]
    made = [torch.optim.AdamW([dict(params=kernels), dict(params=vectors, weight_decay=0.0)], lr=rate, weight_decay=decay)]
    if matrices:
        made.append(torch.optim.Muon(matrices, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"))
    return made


def fit(name, model, data, epochs, rate, decay, path, teacher=None):
    """Train model on data = (images, labels, validation images, their labels); the averaged weights go into path."""
    images, labels, valid, valid_labels = data
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.99), use_buffers=True)
    rules = optimizers(model, rate, decay)
    steps, clock = len(images) // BATCH, time.time()
    for epoch in range(epochs):
        order, total = torch.randperm(len(images)), 0.0
        for i in range(steps):
            done = epoch * steps + i
            cosine = 0.505 + 0.495 * math.cos(math.pi * done / steps / epochs)
            for group in (g for rule in rules for g in rule.param_groups):
                group["lr"] = rate * min(1, (done + 1) / steps) * cosine  # the first epoch warms up
            pick = order[i * BATCH:(i + 1) * BATCH]
            x = augment(images[pick])
            teaching = None
            if teacher is not None:
                with torch.no_grad():
                    teaching = teacher(x)
            loss = soft_loss(model(x), labels[pick], teaching)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for rule in rules:
                rule.step()
                rule.zero_grad()
            average.update_parameters(model)
            total += loss.item()
        score = f", validation {accuracy(average, valid, valid_labels):.4f}" if len(valid) else ""
        print(f"{name} epoch {epoch + 1}/{epochs}: loss {total / steps:.4f}{score}, {time.time() - clock:.0f} s",
              flush=True)
        torch.save(average.module.state_dict(), path)
    return average.module


def train(args):
    images, labels = read_images(args.folder, "train")
    cut = len(images) - args.validate
    data = images[:cut], labels[:cut], images[cut:], labels[cut:]
    teacher, path = None, f"{args.out}/fashion-teacher.pt"
    if args.teacher:
        teacher = teacher_net()
        if args.keep_teacher:
            teacher.load_state_dict(torch.load(path, weights_only=True))
        else:
            teacher = fit("teacher", teacher, data, args.teacher, 4e-3, 0.02, path)
        teacher.eval().requires_grad_(False)
    model = ViT()
    model.whiten(images[:2000])
    fit("model", model, data, args.epochs, 3e-3, 0.05, f"{args.out}/fashion-vit.pt", teacher)


def export(args):
    """The file with float16 weights and its accuracy on the test images, and some of these as PGM files."""
    weights = torch.load(f"{args.out}/fashion-vit.pt", weights_only=True)
    tensors = {name: t.half().contiguous() for name, t in weights.items()}
    metadata = dict(heads=str(HEADS), labels="|".join(CLASSES), mean=str(MEAN), std=str(STD), eps="1e-6")
    save_file(tensors, f"{args.out}/fashion-vit.safetensors", metadata)
    images, labels = read_images(args.folder, "test")
    model = ViT()
    for kind, state in (("float32", weights), ("float16", {k: t.float() for k, t in tensors.items()})):
        model.load_state_dict(state)
        print(f"test, {kind} weights: {accuracy(model, images, labels):.4f} of {len(labels)} images")
    pixels = read_idx(f"{args.folder}/fashion-test-images.idx3")
    for c in range(len(CLASSES)):
        first = int((labels == c).nonzero()[0])
        with open(f"{args.out}/fashion-{c}.pgm", "wb") as f:
            f.write(b"P5\n%d %d\n255\n" % (SIDE, SIDE) + pixels[first].tobytes())


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder")
    p.add_argument("--out", default=".")
    p.add_argument("--epochs", type=int, default=25)
    p.add_argument("--teacher", type=int, default=25)
    p.add_argument("--validate", type=int, default=1000)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--keep-teacher", action="store_true")
    p.add_argument("--export", action="store_true")
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    os.makedirs(args.out, exist_ok=True)
    if not args.export:
        train(args)
    export(args)


if __name__ == "__main__":
    main()
