#!/usr/bin/env python3
"""Makes tests/data/minilm.i16: what all-MiniLM-L6-v2 makes of 200 sentences, by transformers.

    python3 tools/vectors/minilm.py MODEL_FOLDER SENTENCES.tsv [OUT]      (pip install torch transformers)

MODEL_FOLDER is a Hugging Face folder of the model; sentences are the last column of the first 200
lines. As in sentence-transformers: the mean of the last hidden states, at most 256 tokens. Each row is
scaled to 16-bit integers of at most 32767, little-endian, which moves its direction by a cosine
distance of less than 1e-8.
"""

import os
import sys

sys.path.append(sys.path.pop(0))        # tokenizers.py beside this file is not the package that transformers needs

import numpy as np
import torch
import transformers

COUNT = 200

if __name__ == "__main__":
    folder, path = sys.argv[1:3]
    here = os.path.dirname(os.path.abspath(__file__))
    out = sys.argv[3] if len(sys.argv) > 3 else os.path.join(here, "..", "..", "tests", "data", "minilm.i16")
    torch.set_num_threads(1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    rows = []
    with open(path, encoding="utf-8") as f, torch.no_grad():
        for line in f.read().split("\n")[:COUNT]:
            inputs = tokenizer(line.split("\t")[-1], return_tensors="pt", truncation=True, max_length=256)
            rows.append(model(**inputs).last_hidden_state[0].mean(0).numpy())
    rows = np.array(rows).astype(np.float64)
    data = np.rint(rows / abs(rows).max(1, keepdims=True) * 32767).astype("<i2")
    similar = (rows * data).sum(1) / np.linalg.norm(rows, axis=1) / np.linalg.norm(data.astype(np.float64), axis=1)
    print(f"{rows.shape[0]} x {rows.shape[1]}, cosine distance by rounding at most {1 - similar.min():.1e}")
    data.tofile(out)
