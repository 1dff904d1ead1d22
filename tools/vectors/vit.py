#!/usr/bin/env python3
"""Makes the vision transformers and pictures of tests/data/vit/, and what transformers and timm make of them.

    python3 tools/vectors/vit.py [FOLDER]       (pip install torch torchvision transformers timm pillow)

Per model NAME: weights in NAME/model.safetensors, and logits for picture.ppm in NAME/logits.f32,
computed in float64 from pixels that torch resizes (bilinear, antialias). hf and deit are saved by
transformers, their configuration beside them; timm (grey, its settings in the metadata) and
timm-distilled (F16) have timm's names. The pictures are one in every format; Pillow writes the BMPs.

    python3 tools/vectors/vit.py --full CLASSIFY        compares models of the sizes of ViT-tiny and DeiT-tiny
"""

import json
import os
import subprocess
import sys
import tempfile

sys.path.append(sys.path.pop(0))        # tokenizers.py beside this file is not the package that transformers needs

import numpy as np
import timm.models.deit
import timm.models.vision_transformer
import torch
import torch.nn.functional as F
import transformers
from PIL import Image
from safetensors.torch import save_file

WIDTH, HEIGHT = 21, 13                  # of the picture
TINY = dict(side=16, patch=4, width=24, depth=2, heads=3, hidden=48, classes=7)
FULL = dict(side=224, patch=16, width=192, depth=12, heads=3, hidden=768, classes=1000)
LABELS = ["cat", "dog", "T-shirt/top", "tench, Tinca tinca", "horse", "ship", "tree"]
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def random_weights(model, seed):
    """Wide enough that every weight moves the result: norms near 1, biases that are not 0."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        x = torch.randn(p.shape, generator=generator)
        if "norm" in name and name.endswith("weight"):
            x = 1 + 0.2 * x
        elif p.dim() == 1:
            x = 0.3 * x
        elif "token" in name or "pos" in name:
            x = 0.5 * x
        else:
            x = x * 1.5 / p[0].numel() ** 0.5
        p.data = x.float()


def picture(width, height):
    """Smooth and noisy at once, bytes [height, width, 3]."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    smooth = np.stack([np.sin(7 * x + 3 * y), np.cos(9 * y - 2 * x), np.sin(5 * (x + y) ** 2)], -1)
    return np.clip(128 + 90 * smooth + rng.normal(0, 25, smooth.shape), 0, 255).astype(np.uint8)


def logits_of(model, pixels, side, mean, std, grey=False):
    x = torch.from_numpy(pixels.astype(np.float64) / 255).permute(2, 0, 1)[None]
    if grey:
        x = (x * torch.tensor([0.299, 0.587, 0.114]).double().reshape(1, 3, 1, 1)).sum(1, keepdim=True)
    x = F.interpolate(x, (side, side), mode="bilinear", antialias=True, align_corners=False)
    shape = (1, -1, 1, 1)
    x = (x - torch.tensor(mean).double().reshape(shape)) / torch.tensor(std).double().reshape(shape)
    with torch.no_grad():
        y = model.double().eval()(x)
    return getattr(y, "logits", y)[0].numpy().astype(np.float32)


def hugging_face(folder, size, kind, seed, pixels, mean, std):
    config_class, model_class = kind
    config = config_class(image_size=size["side"], patch_size=size["patch"], hidden_size=size["width"],
                          num_hidden_layers=size["depth"], num_attention_heads=size["heads"],
                          intermediate_size=size["hidden"], num_labels=size["classes"])
    if size is TINY:
        config.id2label = dict(enumerate(LABELS))
        config.label2id = {label: i for i, label in enumerate(LABELS)}
    model = model_class(config)
    random_weights(model, seed)
    model.save_pretrained(folder)
    with open(os.path.join(folder, "preprocessor_config.json"), "w") as f:
        json.dump({"image_mean": mean, "image_std": std, "size": size["side"]}, f, indent=1)
    return logits_of(model, pixels, size["side"], mean, std)


def timm_model(folder, size, model_class, seed, pixels, mean, std, grey, half, metadata):
    model = model_class(img_size=size["side"], patch_size=size["patch"], in_chans=1 if grey else 3,
                        num_classes=size["classes"], embed_dim=size["width"], depth=size["depth"],
                        num_heads=size["heads"], mlp_ratio=size["hidden"] / size["width"])
    random_weights(model, seed)
    if half:
        model = model.half()
    os.makedirs(folder, exist_ok=True)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, os.path.join(folder, "model.safetensors"),
              metadata=metadata)
    return logits_of(model, pixels, size["side"], mean, std, grey)


VIT = (transformers.ViTConfig, transformers.ViTForImageClassification)
DEIT = (transformers.DeiTConfig, transformers.DeiTForImageClassificationWithTeacher)
TIMM = timm.models.vision_transformer.VisionTransformer
DISTILLED = timm.models.deit.VisionTransformerDistilled


def all_models(folder, size, pixels):
    """name -> logits; the models lie in folder/name"""
    mean, std = ((0.286, 0.353)) if size is TINY else (0.5, 0.5)
    settings = {"heads": str(size["heads"]), "mean": str(mean), "std": str(std)}
    if size is TINY:
        settings["labels"] = "|".join(LABELS)
    path = {name: os.path.join(folder, name) for name in ["hf", "deit", "timm", "timm-distilled"]}
    return {
        "hf": hugging_face(path["hf"], size, VIT, 1, pixels, [0.5] * 3, [0.4, 0.5, 0.6]),
        "deit": hugging_face(path["deit"], size, DEIT, 2, pixels, *map(list, IMAGENET)),
        "timm": timm_model(path["timm"], size, TIMM, 3, pixels, [mean], [std], True, False, settings),
        "timm-distilled": timm_model(path["timm-distilled"], size, DISTILLED, 4, pixels, *IMAGENET, False, True,
                                     {"heads": str(size["heads"])}),
    }


def write_pictures(folder, pixels):
    """The formats differ in nothing but bytes; grey and palette are of a picture of few colours."""
    picture_of = Image.fromarray(pixels)
    height, width, _ = pixels.shape
    def path(name):
        return os.path.join(folder, name)
    with open(path("picture.ppm"), "wb") as f:
        f.write(b"P6\n# 8 bits\n%d %d\n255\n" % (width, height) + pixels.tobytes())
    with open(path("picture16.ppm"), "wb") as f:                       # the same values of 65535: x 257
        f.write(b"P6 %d %d 65535\n" % (width, height) + (pixels.astype(np.uint16) * 257).astype(">u2").tobytes())
    with open(path("picture-plain.ppm"), "w") as f:
        rows = "\n".join(" ".join(map(str, row.reshape(-1))) for row in pixels)
        f.write(f"P3\n{width} {height}\n255\n{rows}\n")
    picture_of.save(path("picture24.bmp"))
    picture_of.convert("RGBA").save(path("picture32.bmp"))
    few = picture_of.quantize(40)
    few.save(path("few8.bmp"))
    few.convert("RGB").save(path("few.ppm"))
    grey = picture_of.convert("L")
    grey.save(path("grey.pgm"))
    grey.save(path("grey8.bmp"))
    with open(path("grey-plain.pgm"), "w") as f:
        f.write(f"P2\n{width} {height} # plain\n255\n" + "\n".join(map(str, np.array(grey).reshape(-1))) + "\n")


def full(classify):
    pixels = picture(300, 200)
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(folder, pixels)
        for name, want in all_models(folder, FULL, pixels).items():
            out = os.path.join(folder, "logits.f32")
            subprocess.run([classify, os.path.join(folder, name, "model.safetensors"),
                            os.path.join(folder, "picture.ppm"), "--logits", out, "-n", "1"], check=True)
            got = np.fromfile(out, "<f4")
            print(f"{name}: logits of standard deviation {want.std():.2f}, largest difference "
                  f"{abs(got - want).max():.1e}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["--full"]:
        full(sys.argv[2])
        sys.exit()
    here = os.path.dirname(os.path.abspath(__file__))
    target = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "..", "..", "tests", "data", "vit")
    os.makedirs(target, exist_ok=True)
    image = picture(WIDTH, HEIGHT)
    write_pictures(target, image)
    for model_name, values in all_models(target, TINY, image).items():
        print(f"{model_name}: logits of standard deviation {values.std():.2f}")
        values.astype("<f4").tofile(os.path.join(target, model_name, "logits.f32"))
