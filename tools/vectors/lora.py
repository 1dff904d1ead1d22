#!/usr/bin/env python3
"""Makes adapters for the tiny models of the tests, with what transformers gives for merged weights.

    python3 tools/vectors/lora.py [FOLDER]          (needs torch, transformers, gguf)

FOLDER (tests/data) holds tiny-llama.gguf and tiny-gpt2.gguf. Written there: lora-NAME.gguf, adapters as
GGUF keeps them (general.type, adapter.type, adapter.lora.alpha, W.lora_a [r, in], W.lora_b [out, r]), and
beside that test.prompt and test.logits: logits of every position of the prompt, from a model in float64
whose weights are W + scale alpha / r B A. lora-llama-2 is expected together with lora-llama, at the
scales in test.scales.
"""

import os
import sys

del sys.path[0]                         # this folder, whose tokenizers.py would hide the package of that name

import gguf
import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

PROMPT = 24


def read(path):
    reader = gguf.GGUFReader(path)
    tensors = {t.name: torch.from_numpy(np.array(t.data).reshape([int(d) for d in t.shape][::-1])).double()
               for t in reader.tensors}
    return {k: v.contents() for k, v in reader.fields.items()}, tensors


def adapter(seed, weights, names, rank, dtype):
    """{name: (A, B)} for these weights, rounded to dtype"""
    g = torch.Generator().manual_seed(seed)
    pairs = {}
    for name in names:
        out, width = weights[name].shape
        a = torch.randn(rank, width, generator=g) / width ** 0.5
        b = torch.randn(out, rank, generator=g) / 4
        pairs[name] = (a.to(dtype), b.to(dtype))
    return pairs


def merged(weights, adapters):
    """adapters: of (pairs, alpha, scale)"""
    w = dict(weights)
    for pairs, alpha, scale in adapters:
        for name, (a, b) in pairs.items():
            w[name] = w[name] + scale * alpha / a.shape[0] * (b.double() @ a.double())
    return w


def unpermuted(w, heads):
    """rows of Q or K from GGUF's neighbouring pairs to halves"""
    return w.reshape(heads, -1, 2, w.shape[1]).swapaxes(1, 2).reshape(w.shape)


def llama_logits(keys, w, ids):
    heads, kv = keys["llama.attention.head_count"], keys["llama.attention.head_count_kv"]
    config = LlamaConfig(vocab_size=w["token_embd.weight"].shape[0], hidden_size=keys["llama.embedding_length"],
                         intermediate_size=keys["llama.feed_forward_length"],
                         num_hidden_layers=keys["llama.block_count"], num_attention_heads=heads,
                         num_key_value_heads=kv, rms_norm_eps=keys["llama.attention.layer_norm_rms_epsilon"],
                         rope_theta=keys["llama.rope.freq_base"], tie_word_embeddings=False,
                         max_position_embeddings=keys["llama.context_length"])
    names = {"attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
             "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
             "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
             "ffn_down": "mlp.down_proj"}
    state = {"model.embed_tokens.weight": w["token_embd.weight"], "model.norm.weight": w["output_norm.weight"],
             "lm_head.weight": w["output.weight"]}
    for i in range(config.num_hidden_layers):
        for ours, theirs in names.items():
            t = w[f"blk.{i}.{ours}.weight"]
            if ours in ("attn_q", "attn_k"):
                t = unpermuted(t, heads if ours == "attn_q" else kv)
            state[f"model.layers.{i}.{theirs}.weight"] = t
    return run(LlamaForCausalLM(config), state, ids)


def gpt2_logits(keys, w, ids):
    config = GPT2Config(vocab_size=w["token_embd.weight"].shape[0], n_positions=keys["gpt2.context_length"],
                        n_embd=keys["gpt2.embedding_length"], n_layer=keys["gpt2.block_count"],
                        n_head=keys["gpt2.attention.head_count"], n_inner=keys["gpt2.feed_forward_length"],
                        layer_norm_epsilon=keys["gpt2.attention.layer_norm_epsilon"], bos_token_id=None,
                        eos_token_id=None)
    names = {"attn_norm": "ln_1", "attn_qkv": "attn.c_attn", "attn_output": "attn.c_proj", "ffn_norm": "ln_2",
             "ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj"}
    state = {"transformer.wte.weight": w["token_embd.weight"], "transformer.wpe.weight": w["position_embd.weight"],
             "transformer.ln_f.weight": w["output_norm.weight"], "transformer.ln_f.bias": w["output_norm.bias"],
             "lm_head.weight": w["token_embd.weight"]}
    for i in range(config.n_layer):
        for ours, theirs in names.items():
            for part in ("weight", "bias"):
                t = w[f"blk.{i}.{ours}.{part}"]
                state[f"transformer.h.{i}.{theirs}.{part}"] = t.T if t.dim() == 2 else t       # Conv1D: [in, out]
    return run(GPT2LMHeadModel(config), state, ids)


def run(model, state, ids):
    model = model.double().eval()
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and not [m for m in missing if not m.endswith("attn.bias")], (missing, unexpected)
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].float().numpy()


def write(path, arch, pairs, alpha, ids, logits, scales=()):
    w = gguf.GGUFWriter(path, arch)
    w.add_type(gguf.GGUFType.ADAPTER)
    w.add_string(gguf.Keys.Adapter.TYPE, "lora")
    if alpha is not None:
        w.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    w.add_array("test.prompt", [int(i) for i in ids])
    w.add_array("test.logits", [float(x) for x in logits.flatten()])
    if scales:
        w.add_array("test.scales", [float(x) for x in scales])
    for name, (a, b) in pairs.items():
        w.add_tensor(name + ".lora_a", a.numpy())
        w.add_tensor(name + ".lora_b", b.numpy())
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "..", "..", "tests", "data")
    keys, w = read(os.path.join(folder, "tiny-llama.gguf"))
    ids = keys["test.prompt"][:PROMPT]
    plain = llama_logits(keys, w, ids)
    known = np.array(keys["test.logits"], dtype=np.float32).reshape(-1, plain.shape[1])[:PROMPT]
    print("tiny-llama: transformers is off by", np.abs(plain - known).max())
    some = [f"blk.{i}.{part}.weight" for i in range(2) for part in ("attn_q", "attn_v", "ffn_down")]
    first = adapter(1, w, some + ["output.weight"], 4, torch.float32)
    logits = llama_logits(keys, merged(w, [(first, 8.0, 1.0)]), ids)
    print("lora-llama: moves logits by up to", np.abs(logits - plain).max())
    write(os.path.join(folder, "lora-llama.gguf"), "llama", first, 8.0, ids, logits)
    every = [n for n in w if n.startswith("blk.1.") and "norm" not in n]
    second = adapter(2, w, every, 3, torch.float16)
    logits = llama_logits(keys, merged(w, [(first, 8.0, 0.75), (second, 3.0, -1.5)]), ids)      # no alpha: alpha = r
    print("lora-llama-2: moves logits by up to", np.abs(logits - plain).max())
    write(os.path.join(folder, "lora-llama-2.gguf"), "llama", second, None, ids, logits, (0.75, -1.5))
    keys, w = read(os.path.join(folder, "tiny-gpt2.gguf"))
    ids = keys["test.prompt"][:PROMPT]
    plain = gpt2_logits(keys, w, ids)
    pairs = adapter(3, w, [n for n in w if n.startswith("blk.") and n.endswith(".weight") and "norm" not in n], 2,
                    torch.float32)
    logits = gpt2_logits(keys, merged(w, [(pairs, 5.0, 1.0)]), ids)
    print("lora-gpt2: moves logits by up to", np.abs(logits - plain).max())
    write(os.path.join(folder, "lora-gpt2.gguf"), "gpt2", pairs, 5.0, ids, logits)


if __name__ == "__main__":
    main()
