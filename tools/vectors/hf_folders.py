#!/usr/bin/env python3
"""Writes tiny random models as transformers saves them, for tests/cli.sh: hf-llama (BF16, in shards, with a
byte-level tokenizer and a chat template), hf-gpt2 (F16, one file) and hf-bert (F32, WordPiece, mean pooling).
Beside each model: `ids`, a prompt; `logits.f32`, transformers' logits (BERT: the mean of its rows) for the same
weights in f32; `text.ids`, the ids that tokenizers gives the text in `text`.

usage: python3 tools/vectors/hf_folders.py OUT_DIR        (tests/data); needs torch and transformers
"""
import json
import math
import os
import random
import sys

sys.path.pop(0)             # tokenizers is a package here, not the script beside this one
import tokenizers
import torch
import transformers

TEXT = "Once upon a time, it's 1234 — naïve?\n\n  They'LL see."
SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
CHATML = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + "
          "'<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")
WORDS = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
         r"\s*[\r\n]+|\s+(?!\S)|\s+")


def write(folder, name, data):
    with open(os.path.join(folder, name), "wb") as f:
        f.write(data if isinstance(data, bytes) else data.encode())


def save(out, name, model, dtype, pooled=False, **options):
    """Random weights whose every part shows in the output, rounded to dtype."""
    folder = os.path.join(out, name)
    os.makedirs(folder, exist_ok=True)
    torch.manual_seed(11)
    with torch.no_grad():
        for key, p in model.named_parameters():
            p.copy_(torch.randn(p.shape) * 0.3 + ("norm" in key.lower() or "ln_" in key) if p.dim() == 1 else
                    torch.randn(p.shape) * (0.5 if "emb" in key or "wte" in key or "wpe" in key else
                                            1 / math.sqrt(p.shape[-1])))
    model.to(dtype).save_pretrained(folder, **options)
    model = type(model).from_pretrained(folder, dtype=torch.float32).eval()
    ids = random.Random(name).choices(range(4, model.config.vocab_size), k=12)
    with torch.no_grad():
        result = model(torch.tensor([ids]))
    values = result.last_hidden_state[0].mean(0) if pooled else result.logits[0]
    write(folder, "ids", ",".join(map(str, ids)) + "\n")
    write(folder, "logits.f32", values.contiguous().numpy().astype("<f4").tobytes())
    if os.path.exists(os.path.join(folder, "generation_config.json")):
        os.remove(os.path.join(folder, "generation_config.json"))
    return folder


def add_tokenizer(folder, tokenizer, settings):
    tokenizer.save(os.path.join(folder, "tokenizer.json"), pretty=False)
    write(folder, "tokenizer_config.json", json.dumps(settings, indent=1) + "\n")
    write(folder, "text", TEXT)
    write(folder, "text.ids", " ".join(map(str, tokenizer.encode(TEXT).ids)) + "\n")


def byte_tokenizer():
    pre = tokenizers.pre_tokenizers
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre.Sequence([pre.Split(tokenizers.Regex(WORDS), "isolated"),
                                            pre.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.train_from_iterator([TEXT] * 9, tokenizers.trainers.BpeTrainer(
        vocab_size=280, special_tokens=SPECIAL, show_progress=False, initial_alphabet=pre.ByteLevel.alphabet()))
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 0)])
    return tokenizer


def word_tokenizer():
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator([TEXT] * 9, tokenizers.trainers.WordPieceTrainer(
        vocab_size=60, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], show_progress=False))
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return tokenizer


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__.split("\n\n")[1])
    out, tokenizer = sys.argv[1], byte_tokenizer()
    llama = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64, bos_token_id=0, eos_token_id=1,
        tie_word_embeddings=True, rope_parameters=dict(rope_type="llama3", rope_theta=500000.0, factor=8.0,
                                                       low_freq_factor=1.0, high_freq_factor=4.0,
                                                       original_max_position_embeddings=16)))
    folder = save(out, "hf-llama", llama, torch.bfloat16, max_shard_size="10KB")
    add_tokenizer(folder, tokenizer, {"bos_token": "<s>", "eos_token": {"content": "<|im_end|>"},
                                      "chat_template": CHATML})
    gpt2 = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=40, n_embd=8, n_layer=2, n_head=2,
                                                                n_positions=24, bos_token_id=0, eos_token_id=0))
    save(out, "hf-gpt2", gpt2, torch.float16)
    tokenizer = word_tokenizer()
    bert = transformers.BertModel(transformers.BertConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=8, intermediate_size=16, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=32))
    folder = save(out, "hf-bert", bert, torch.float32, pooled=True)
    add_tokenizer(folder, tokenizer, {"cls_token": "[CLS]", "sep_token": "[SEP]"})
    os.makedirs(os.path.join(folder, "1_Pooling"), exist_ok=True)
    write(folder, "1_Pooling/config.json", json.dumps({"word_embedding_dimension": 8, "pooling_mode_cls_token": False,
                                                       "pooling_mode_mean_tokens": True}, indent=1) + "\n")


main()
