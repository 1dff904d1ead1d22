#!/usr/bin/env python3
"""Makes tests/data/tiny-bert.gguf and tiny-nomic-bert.gguf: tiny random encoders of transformers.

    python3 tools/vectors/encoders.py [FOLDER]          (pip install torch transformers)

The weights are float32; transformers computes in float64. What is expected stands in metadata:
`test.text`, its ids with [CLS] and [SEP] by transformers' BertTokenizer in `test.prompt`, and the
last hidden states of all of them, [ids, width], in `test.hidden`.
"""

import os
import sys
import tempfile

sys.path.append(sys.path.pop(0))        # tokenizers.py beside this file is not the package that transformers needs

import numpy as np
import torch
import transformers

from make_vectors import write_gguf

WORDS = ["alice", "was", "begin", "##ning", "to", "get", "very", "tired", "of", "sit", "##ting", "by", "her", "sister",
         "on", "the", "bank", ",", "and", "have", "having", "nothing", "do", "once", "or", "twice", "she", "had",
         "peep", "##ed", "in", "##to", "book", "reading", "but", "it", "no", "picture", "##s", "conversations", "."]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TEXT = ("Alice was beginning to get very tired of sitting by her sister on the bank, and of having nothing to do: once "
        "or twice she had peeped into the book her sister was reading, but it had no pictures or conversations in it, "
        "and on the bank there was nothing to begin once or twice.")
QUERY = "Alice was reading a book"
LINES = ["her sister was tired of it", "the picture", "she had no book in the bank", "reading", "Alice", "Alice was tired"]
WIDTH, HEADS, LAYERS, FEED_FORWARD, CONTEXT = 32, 4, 2, 48, 80
PARTS = {       # transformers' name in a layer -> GGUF's
    "bert": {"attention.self.query": "attn_q", "attention.self.key": "attn_k", "attention.self.value": "attn_v",
             "attention.output.dense": "attn_output", "attention.output.LayerNorm": "attn_output_norm",
             "intermediate.dense": "ffn_up", "output.dense": "ffn_down", "output.LayerNorm": "layer_output_norm"},
    "nomic-bert": {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
                   "self_attn.o_proj": "attn_output", "post_attention_layernorm": "attn_output_norm",
                   "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
                   "post_mlp_layernorm": "layer_output_norm"},
}
EMBEDDINGS = {"embeddings.word_embeddings": "token_embd", "embeddings.position_embeddings": "position_embd",
              "embeddings.token_type_embeddings": "token_types", "embeddings.LayerNorm": "token_embd_norm"}


def random_weights(model, seed):
    """Wide enough that every weight moves the result: norms near 1, biases that are not 0."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        x = torch.randn(p.shape, generator=generator)
        if "norm" in name.lower() and name.endswith("weight"):
            x = 1 + 0.2 * x
        elif p.dim() == 1:
            x = 0.3 * x
        elif "embeddings" not in name:
            x = x * 2 / p.shape[1] ** 0.5
        p.data = x.float()


def gguf_name(arch, name):
    part, _, suffix = name.rpartition(".")
    if part in EMBEDDINGS:
        return f"{EMBEDDINGS[part]}.{suffix}"
    layer, _, inner = part.removeprefix("encoder.").removeprefix("layers.").removeprefix("layer.").partition(".")
    return f"blk.{layer}.{PARTS[arch][inner]}.{suffix}"


def tokenize(text):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "vocab.txt")
        with open(path, "w") as f:
            f.write("\n".join(SPECIAL + WORDS) + "\n")
        return transformers.BertTokenizer(path, do_lower_case=True)(text)["input_ids"]


def vocabulary():
    """As GGUF spells pieces: those that begin a word carry a mark, the others nothing."""
    pieces = SPECIAL + [w[2:] if w.startswith("##") else "\u2581" + w for w in WORDS]
    types = np.array([3] * len(SPECIAL) + [1] * len(WORDS), np.int32)
    return {"tokenizer.ggml.model": "bert", "tokenizer.ggml.pre": "bert-bge", "tokenizer.ggml.tokens": pieces,
            "tokenizer.ggml.token_type": types, "tokenizer.ggml.unknown_token_id": 1, "tokenizer.ggml.cls_token_id": 2,
            "tokenizer.ggml.seperator_token_id": 3}


def make(folder, arch, kind, pooling, more, seed, **options):
    config = dict(vocab_size=len(SPECIAL) + len(WORDS), hidden_size=WIDTH, num_hidden_layers=LAYERS,
                  num_attention_heads=HEADS, intermediate_size=FEED_FORWARD, max_position_embeddings=CONTEXT)
    config_class, model_class = kind
    model = model_class(config_class(**config, **options), add_pooling_layer=False).eval()
    random_weights(model, seed)
    weights = {gguf_name(arch, name): p.detach().numpy().copy() for name, p in model.named_parameters()}
    model = model.double()

    def run(text):
        with torch.no_grad():
            return model(torch.tensor([tokenize(text)])).last_hidden_state[0].numpy()

    ids, hidden = tokenize(TEXT), run(TEXT)
    print(f"{arch}: {len(ids)} ids, hidden states of standard deviation {hidden.std():.2f}")
    if pooling == 1:                    # for tests/cli.sh
        query, *rest = [run(text).mean(0) for text in [QUERY, *LINES]]
        for text, e in zip(LINES, rest):
            print(f"  {query @ e / np.linalg.norm(query) / np.linalg.norm(e):.6f}  {text}")
    meta = {"general.architecture": arch, "general.name": f"tiny random {arch}", f"{arch}.block_count": LAYERS,
            f"{arch}.context_length": CONTEXT, f"{arch}.embedding_length": WIDTH,
            f"{arch}.feed_forward_length": FEED_FORWARD, f"{arch}.attention.head_count": HEADS,
            f"{arch}.attention.layer_norm_epsilon": float(model.config.layer_norm_eps),
            f"{arch}.attention.causal": False, f"{arch}.pooling_type": pooling, **more, **vocabulary(),
            "test.text": TEXT, "test.prompt": np.array(ids, np.int32),
            "test.hidden": hidden.astype(np.float32).reshape(-1)}
    write_gguf(os.path.join(folder, f"tiny-{arch}.gguf"), meta, weights)


if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    target = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "..", "..", "tests", "data")
    make(target, "bert", (transformers.BertConfig, transformers.BertModel), 1, {}, 1)
    make(target, "nomic-bert", (transformers.NomicBertConfig, transformers.NomicBertModel), 2,
         {"nomic-bert.rope.freq_base": 1000.0}, 2)
