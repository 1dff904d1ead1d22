#!/usr/bin/env python3
"""Tiny random models of each family, made and saved by transformers, converted by build/convert: their
logits must be transformers' own. Tokenizers, made by tokenizers, must give the ids that tokenizers gives.

usage: python3 tests/convert.py BUILD_DIR [PART_OF_A_NAME]

Needs torch, transformers and tokenizers; without them all is skipped.
"""
import array
import json
import math
import os
import random
import subprocess
import sys
import tempfile

import cases
from cases import finish, require

EXACT = 1e-4                # largest difference of logits, whose standard deviation is near 1
PROMPT = 24
TIMEOUT = 120

build, only, scratch = "", "", ""


def case(name, test, *args):
    if only in name:
        cases.case(name, test, *args)


def run(program, *args, status=0):
    done = subprocess.run([os.path.join(build, program), *args], stdin=subprocess.DEVNULL, capture_output=True,
                          timeout=TIMEOUT)
    message = done.stderr.decode(errors="replace").strip()[-300:]
    require(done.returncode == status, f"{program}: exit status {done.returncode}: {message}")
    return done.stdout if status == 0 else message


def read(path):
    with open(path, "rb") as f:
        return f.read()


# ---- models ----

SMALL = dict(vocab_size=96, hidden_size=64, intermediate_size=96, num_hidden_layers=4, num_attention_heads=4,
             max_position_embeddings=256, bos_token_id=1, eos_token_id=2, pad_token_id=0)
GROUPED = dict(SMALL, num_key_value_heads=2)
WINDOW = dict(GROUPED, sliding_window=5)
GEMMA = dict(WINDOW, head_dim=16)
EXPERTS = dict(GROUPED, num_local_experts=4, num_experts_per_tok=2)
LLAMA3 = dict(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=64)
YARN = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=64)
LONGROPE = dict(rope_type="longrope", rope_theta=10000.0, short_factor=[1 + 0.1 * i for i in range(8)],
                long_factor=[1.0 + i for i in range(8)])
FALCON = dict(vocab_size=96, hidden_size=64, num_hidden_layers=4, num_attention_heads=4, bos_token_id=1,
              eos_token_id=2, alibi=False)

# name: (class, configuration class, what it is made with)
FAMILIES = {
    "llama": ("LlamaForCausalLM", "LlamaConfig", GROUPED),
    "llama-tied": ("LlamaForCausalLM", "LlamaConfig", dict(GROUPED, tie_word_embeddings=True)),
    "llama-bias": ("LlamaForCausalLM", "LlamaConfig", dict(GROUPED, attention_bias=True, mlp_bias=True)),
    "llama-head-size": ("LlamaForCausalLM", "LlamaConfig", dict(GROUPED, head_dim=24)),
    "llama-3": ("LlamaForCausalLM", "LlamaConfig", dict(GROUPED, rope_parameters=LLAMA3)),
    "llama-linear": ("LlamaForCausalLM", "LlamaConfig", dict(GROUPED, rope_parameters=dict(
        rope_type="linear", rope_theta=10000.0, factor=4.0))),
    "llama-yarn": ("LlamaForCausalLM", "LlamaConfig", dict(GROUPED, rope_parameters=YARN)),
    "llama-yarn-factor": ("LlamaForCausalLM", "LlamaConfig", dict(GROUPED, rope_parameters=dict(
        YARN, attention_factor=1.5, beta_fast=16.0, beta_slow=2.0))),
    "mistral": ("MistralForCausalLM", "MistralConfig", WINDOW),
    "mixtral": ("MixtralForCausalLM", "MixtralConfig", EXPERTS),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", GROUPED),
    "qwen2-window": ("Qwen2ForCausalLM", "Qwen2Config", dict(WINDOW, use_sliding_window=True, max_window_layers=2)),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", dict(GROUPED, head_dim=24)),
    "qwen3moe": ("Qwen3MoeForCausalLM", "Qwen3MoeConfig", dict(
        GROUPED, moe_intermediate_size=32, num_experts=4, num_experts_per_tok=2, norm_topk_prob=True)),
    "gemma": ("GemmaForCausalLM", "GemmaConfig", dict(GROUPED, head_dim=16)),
    "gemma2": ("Gemma2ForCausalLM", "Gemma2Config", dict(GEMMA, query_pre_attn_scalar=20)),
    "gemma3": ("Gemma3ForCausalLM", "Gemma3TextConfig", dict(GEMMA, num_hidden_layers=7)),
    "gemma3-pattern": ("Gemma3ForCausalLM", "Gemma3TextConfig", dict(GEMMA, layer_types=[
        "full_attention", "sliding_attention"] * 2)),
    "phi2": ("PhiForCausalLM", "PhiConfig", SMALL),
    "phi3": ("Phi3ForCausalLM", "Phi3Config", GROUPED),
    "phi3-window": ("Phi3ForCausalLM", "Phi3Config", WINDOW),
    "phi3-longrope": ("Phi3ForCausalLM", "Phi3Config", dict(
        GROUPED, original_max_position_embeddings=64, rope_parameters=LONGROPE)),
    "gptneox": ("GPTNeoXForCausalLM", "GPTNeoXConfig", SMALL),
    "gptneox-serial": ("GPTNeoXForCausalLM", "GPTNeoXConfig", dict(SMALL, use_parallel_residual=False)),
    "stablelm": ("StableLmForCausalLM", "StableLmConfig", dict(GROUPED, use_qkv_bias=True)),
    "stablelm-2": ("StableLmForCausalLM", "StableLmConfig", dict(
        GROUPED, qk_layernorm=True, use_parallel_residual=True)),
    "falcon": ("FalconForCausalLM", "FalconConfig", FALCON),
    "falcon-heads": ("FalconForCausalLM", "FalconConfig", dict(FALCON, multi_query=False, bias=True)),
    "falcon-new": ("FalconForCausalLM", "FalconConfig", dict(FALCON, new_decoder_architecture=True, num_kv_heads=2)),
    "starcoder2": ("Starcoder2ForCausalLM", "Starcoder2Config", GROUPED),
    "olmo2": ("Olmo2ForCausalLM", "Olmo2Config", GROUPED),
    "olmoe": ("OlmoeForCausalLM", "OlmoeConfig", dict(GROUPED, num_experts=4, num_experts_per_tok=2)),
    "smollm3": ("SmolLM3ForCausalLM", "SmolLM3Config", dict(GROUPED, num_hidden_layers=5)),
    "granite": ("GraniteForCausalLM", "GraniteConfig", dict(
        GROUPED, embedding_multiplier=6.0, logits_scaling=2.0, residual_multiplier=0.4, attention_multiplier=0.3)),
    "granitemoe": ("GraniteMoeForCausalLM", "GraniteMoeConfig", dict(
        EXPERTS, embedding_multiplier=6.0, logits_scaling=2.0, residual_multiplier=0.4, attention_multiplier=0.3)),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", dict(
        vocab_size=96, n_embd=64, n_layer=3, n_head=4, n_positions=256, bos_token_id=1, eos_token_id=2)),
}


def make_model(kind, name, options):
    """A model whose every weight shows in its output: matrices keep the size of what goes through them, norms and
    biases are far from 1 and 0."""
    torch.manual_seed(sum(map(ord, name)))
    model_class, config_class = kind
    model = getattr(transformers, model_class)(getattr(transformers, config_class)(
        **options, attn_implementation="eager")).eval()
    with torch.no_grad():
        for key, p in model.named_parameters():
            if "norm" in key.lower() or ".ln_" in key or p.dim() == 1:
                p.add_(torch.randn(p.shape) * 0.3)
            elif "embed" in key or "wte" in key or "wpe" in key or "embeddings" in key:
                p.copy_(torch.randn(p.shape) * 0.5)
            else:
                p.copy_(torch.randn(p.shape) / math.sqrt(p.shape[-1]))
    return model


def prompt_of(name, vocab=96):
    return random.Random(name).choices(range(3, vocab), k=PROMPT)


def evaluate(model, ids, context=64):
    out = os.path.join(scratch, "logits.f32")
    run("evaluate", model, "--ids", ",".join(map(str, ids)), "--logits", out, "-c", str(context), "-t", "1")
    values = array.array("f", read(out))
    return torch.tensor(values)


def same_logits(got, want):
    want = want.flatten()
    require(got.shape == want.shape, f"{len(got)} values, expected {len(want)}")
    apart, spread = (got - want).abs().max().item(), want.std().item()
    require(spread > 0.3, f"the values hardly differ: standard deviation {spread:.3f}")
    require(apart <= EXACT, f"largest difference {apart:.2e}, allowed {EXACT:.0e}")
    return f"largest difference {apart:.1e}, standard deviation {spread:.1f}"


def check_family(name, entry):
    model = make_model(entry[:2], name, entry[2])
    folder, out = os.path.join(scratch, name), os.path.join(scratch, name + ".gguf")
    model.save_pretrained(folder)
    run("convert", folder, out)
    ids = prompt_of(name)
    with torch.no_grad():
        want = model(torch.tensor([ids])).logits[0]
    return same_logits(evaluate(out, ids), want)


def long_factors(name, entry):
    """Beyond the original context, longrope's other factors hold."""
    model = make_model(entry[:2], name, entry[2])
    folder, out = os.path.join(scratch, name), os.path.join(scratch, name + ".gguf")
    model.save_pretrained(folder)
    run("convert", folder, out)
    ids = random.Random(name).choices(range(3, 96), k=80)
    with torch.no_grad():
        want = model(torch.tensor([ids])).logits[0]
    return same_logits(evaluate(out, ids, 128), want)


def older_config(name):
    """What transformers before version 5 wrote into config.json must give the same file."""
    folder, out = os.path.join(scratch, name), os.path.join(scratch, name + ".gguf")
    if not os.path.exists(out):
        check_family(name, FAMILIES[name])
    before, path = read(out), os.path.join(folder, "config.json")
    config = json.loads(read(path))
    rope = config.pop("rope_parameters")
    if "full_attention" in rope:        # Gemma 3
        config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
        config.pop("layer_types", None)
        config["sliding_window_pattern"] = 6
    neox = config["model_type"] == "gpt_neox"
    config["rotary_emb_base" if neox else "rope_theta"] = rope.pop("rope_theta")
    if "partial_rotary_factor" in rope:
        config["rotary_pct" if neox else "partial_rotary_factor"] = rope.pop("partial_rotary_factor")
    kind = rope.pop("rope_type")
    config["rope_scaling"] = None if kind == "default" else {
        "type": "su" if kind == "longrope" else kind, **{k: v for k, v in rope.items() if kind != "longrope" or
                                                         k.endswith("factor")}}
    with open(path, "w") as f:
        json.dump(config, f)
    run("convert", folder, out)
    require(read(out) == before, "another file than with the newer config.json")
    return f"the same {len(before)} bytes"


def with_images():
    """Of Gemma 3 with images, the text model: its names and configuration lie one level deeper."""
    name = "gemma3-images"
    text = dict(GEMMA, num_hidden_layers=7)
    vision = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28,
                  patch_size=14)
    model = make_model(("Gemma3ForConditionalGeneration", "Gemma3Config"), name, dict(
        text_config=text, vision_config=vision, mm_tokens_per_image=4))
    folder, out = os.path.join(scratch, name), os.path.join(scratch, name + ".gguf")
    model.save_pretrained(folder)
    run("convert", folder, out)
    ids = prompt_of(name)
    with torch.no_grad():
        want = model(torch.tensor([ids])).logits[0]
    return same_logits(evaluate(out, ids), want)


def without_wrap():
    """The body alone of GPT-2, as the first checkpoints held it: names without transformer. in front."""
    model = make_model(FAMILIES["gpt2"][:2], "gpt2", FAMILIES["gpt2"][2])
    folder, out = os.path.join(scratch, "body"), os.path.join(scratch, "body.gguf")
    model.transformer.save_pretrained(folder)
    run("convert", folder, out)
    ids = prompt_of("gpt2")
    with torch.no_grad():
        want = model(torch.tensor([ids])).logits[0]
    return same_logits(evaluate(out, ids), want)


def encoder(mode):
    """BERT, with the pooling that sentence-transformers would read."""
    name = "bert-" + mode
    model = make_model(("BertModel", "BertConfig"), name, dict(SMALL, num_hidden_layers=3))
    folder, out = os.path.join(scratch, name), os.path.join(scratch, name + ".gguf")
    model.save_pretrained(folder)
    os.makedirs(os.path.join(folder, "1_Pooling"), exist_ok=True)
    with open(os.path.join(folder, "1_Pooling", "config.json"), "w") as f:
        json.dump({"word_embedding_dimension": 64, "pooling_mode_cls_token": mode == "cls",
                   "pooling_mode_mean_tokens": mode == "mean"}, f)
    run("convert", folder, out)
    ids = prompt_of(name)
    with torch.no_grad():
        rows = model(torch.tensor([ids])).last_hidden_state[0]
    return same_logits(evaluate(out, ids), rows[0] if mode == "cls" else rows.mean(0))


def shards_and_types():
    """BF16 in shards: the same as one file of the same weights in F32; and quantized on the way or afterwards."""
    model = make_model(FAMILIES["llama"][:2], "shards", dict(GROUPED, hidden_size=128, intermediate_size=256))
    model = model.to(torch.bfloat16)
    shards, one = os.path.join(scratch, "shards"), os.path.join(scratch, "one")
    model.save_pretrained(shards, max_shard_size="100KB")
    require(os.path.exists(os.path.join(shards, "model.safetensors.index.json")), "transformers made no shards")
    os.rename(shards, os.path.join(scratch, "one-shards"))
    model.float().save_pretrained(one)
    sharded = os.path.join(scratch, "one-shards")
    os.rename(one, os.path.join(scratch, "model"))
    os.rename(sharded, shards)
    one = os.path.join(scratch, "model")
    count = 0
    for kind in ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_K_M", "Q6_K"):
        outs = [os.path.join(scratch, f"{kind}-{i}.gguf") for i in range(3)]
        run("convert", one, outs[0], "--type", kind)
        os.rename(one, one + "-aside")
        os.rename(shards, one)          # general.name is that of the folder
        run("convert", one, outs[1], "--type", kind, "-t", "3")
        os.rename(one, shards)
        os.rename(one + "-aside", one)
        require(read(outs[0]) == read(outs[1]), f"{kind}: shards of BF16 give another file than one of F32")
        if kind != "F32":
            run("quantize", os.path.join(scratch, "F32-0.gguf"), outs[2], kind)
            require(read(outs[0]) == read(outs[2]), f"{kind}: quantized on the way is not quantized afterwards")
        count += 1
    outs = os.path.join(scratch, "own.gguf")
    run("convert", shards, outs)
    require(b"BF16" in run("inspect", outs), "BF16 weights do not stay BF16 without --type")
    return f"{count} types, each twice the same file"


# ---- tokenizers ----

TEXTS = ["", " ", "Hello world", " Hello  world ", "It's they'LL 12345 + 6789", "naïve café 北京 héllo\n\n  x\ty\r\n",
         "def f(x):\n    return x ** 2  # été", "<s>a</s> <|end|> b", "a\u0301e\u0308 🙂👍🏽",
         "CamelCaseHTTPServer 3.14", "don't can't we've I'm he'd", "    indented\n        more", "x" * 300,
         "¿Qué? — “quoted” …", "\u3000全角\u2003em"]
LLAMA3_WORDS = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
                r"\s*[\r\n]+|\s+(?!\S)|\s+")
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
HEAD = r"[^\r\n\p{L}\p{N}]?"
SUFFIX = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"


def split(regex):
    return tokenizers.pre_tokenizers.Split(tokenizers.Regex(regex), "isolated")


def splitters():
    """The steps before byte-level merges, and whether words that are tokens are taken whole."""
    p = tokenizers.pre_tokenizers
    plain, words = p.ByteLevel(add_prefix_space=False, use_regex=False), p.ByteLevel(add_prefix_space=False)
    return {
        "gpt-2": (words, False),
        "smollm": (p.Sequence([p.Digits(individual_digits=True), words]), False),
        "llama-bpe": (p.Sequence([split(LLAMA3_WORDS), plain]), True),
        "dbrx": (p.Sequence([split(LLAMA3_WORDS), plain]), False),
        "qwen2": (p.Sequence([split(LLAMA3_WORDS.replace("{1,3}", "")), plain]), False),
        "qwen35": (p.Sequence([split(LLAMA3_WORDS.replace("{1,3}", "").replace(r"?\p{L}+", r"?[\p{L}\p{M}]+").replace(
            r" ?[^\s\p{L}\p{N}]", r" ?[^\s\p{L}\p{M}\p{N}]")), plain]), False),
        "gpt-4o": (p.Sequence([split(f"{HEAD}{UPPER}*{LOWER}+{SUFFIX}|{HEAD}{UPPER}+{LOWER}*{SUFFIX}|"
                                     r"\p{N}{1,3}" + TAIL), plain]), False),
        "tekken": (p.Sequence([split(f"{HEAD}{UPPER}*{LOWER}+|{HEAD}{UPPER}+{LOWER}*|" r"\p{N}" + TAIL), plain]), True),
        "falcon": (p.Sequence([p.Punctuation("contiguous"), words, p.Digits(individual_digits=False),
                               split("[0-9][0-9][0-9]")]), False),
        "deepseek-v3": (p.Sequence([split(r"\p{N}{1,3}"), split("[一-龥\u3040-ゟ゠-ヿ]+"), split(
            r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"""
            r" ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"), plain]), False),
        "deepseek-coder": (p.Sequence([split(r"[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"),
                                       split("[一-龥ࠀ-一가-\ud7ff]+"), p.Digits(individual_digits=True),
                                       plain]), False),
    }


def corpus():
    with open("LICENSE", encoding="utf-8") as f, open("README.md", encoding="utf-8") as g:
        return f.read().split("\n") + g.read().split("\n") + TEXTS * 3


def holder(tokenizer, name, settings=None):
    """A folder with a model of the tokenizer's size: convert wants one."""
    folder = os.path.join(scratch, "tok-" + name)
    size = max(tokenizer.get_vocab().values()) + 4         # a few ids have no token
    model = make_model(FAMILIES["llama"][:2], name, dict(GROUPED, vocab_size=size, hidden_size=8, intermediate_size=8,
                                                         num_hidden_layers=1, head_dim=2))
    model.save_pretrained(folder)
    tokenizer.save(os.path.join(folder, "tokenizer.json"))
    with open(os.path.join(folder, "tokenizer_config.json"), "w") as f:
        json.dump(settings or {}, f)
    return folder


def same_ids(tokenizer, name, folder=None, settings=None, texts=TEXTS):
    folder, out = folder or holder(tokenizer, name, settings), os.path.join(scratch, name + ".gguf")
    run("convert", folder, out)
    lines = os.path.join(scratch, "texts.jsonl")
    with open(lines, "w", encoding="ascii") as f:
        f.writelines(json.dumps({"text": text}) + "\n" for text in texts)
    for special in (False, True):
        got = [json.loads(line) for line in run("tokenize", out, "--jsonl", lines, *["--special", "--add-special"][
            :2 * special]).decode().splitlines()]
        require(len(got) == len(texts), f"{len(got)} lines for {len(texts)} texts")
        for text, ids in zip(texts, got):
            if not special and "<" in text:
                continue                # tokenizers always finds special tokens in text
            want = tokenizer.encode(text, add_special_tokens=special).ids
            require(ids == want, f"{text[:60]!r}: {ids[:20]}, expected {want[:20]}")
    return f"{len(texts)} texts, {tokenizer.get_vocab_size()} tokens"


def with_template(tokenizer, first="<s>"):
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{first} $A", pair=f"{first} $A {first} $B", special_tokens=[(first, tokenizer.token_to_id(first))])


def byte_level(name):
    pre, whole = splitters()[name]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(ignore_merges=whole))
    tokenizer.pre_tokenizer = pre
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<s>", "</s>", "<|end|>"], show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_tokens([tokenizers.AddedToken("    ", normalized=False)] if name == "gpt-2" else [])
    if whole:
        with_template(tokenizer)
    return same_ids(tokenizer, name, settings={"bos_token": "<s>", "eos_token": {"content": "</s>"}})


def sentencepiece_bpe(prefix):
    """As converters write them: all merges of all pieces, in the order of their scores."""
    trained = tokenizers.Tokenizer(tokenizers.models.BPE())
    trained.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(prepend_scheme="always")
    trained.train_from_iterator(corpus(), tokenizers.trainers.BpeTrainer(vocab_size=500, show_progress=False))
    pieces = ["<unk>", "<s>", "</s>", "<|end|>"] + [f"<0x{b:02X}>" for b in range(256)]
    by_id = [piece for piece, _ in sorted(trained.get_vocab().items(), key=lambda item: item[1])]
    pieces += sorted((piece for piece in by_id if len(piece) > 1), key=by_id.index)
    pieces += [piece for piece in by_id if len(piece) == 1]
    ids = {piece: i for i, piece in enumerate(pieces)}
    merges = [(piece[:i], piece[i:]) for piece in pieces[260:] for i in range(1, len(piece))
              if piece[:i] in ids and piece[i:] in ids]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(ids, merges, unk_token="<unk>", fuse_unk=True,
                                                           byte_fallback=True))
    replace = tokenizers.normalizers.Replace(" ", "▁")
    tokenizer.normalizer = tokenizers.normalizers.Sequence(
        [tokenizers.normalizers.Prepend("▁"), replace]) if prefix else replace
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>", "<|end|>"])
    with_template(tokenizer)
    texts = [text for text in TEXTS if "<" not in text]    # GGUF's readers put no space behind a special token
    return same_ids(tokenizer, f"spm-{prefix}", texts=texts if prefix else TEXTS)


def wordpiece(lower):
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=lower)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(corpus(), tokenizers.trainers.WordPieceTrainer(
        vocab_size=600, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], show_progress=False))
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[
            ("[CLS]", tokenizer.token_to_id("[CLS]")), ("[SEP]", tokenizer.token_to_id("[SEP]"))])
    texts = [text[:90] for text in TEXTS]                  # of longer words, tokenizers makes [UNK]
    return same_ids(tokenizer, f"wordpiece-{lower}", texts=texts)


def refused_splitter():
    """A rule that is not known must be refused, even where it is near one that is."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0, "<s>": 1}, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [split(LLAMA3_WORDS.replace("{1,3}", "{1,4}")), tokenizers.pre_tokenizers.ByteLevel(False, use_regex=False)])
    message = run("convert", holder(tokenizer, "unknown"), os.path.join(scratch, "unknown.gguf"), status=1)
    require("pre_tokenizer" in message and "{1,4}" in message, message)
    require(not os.path.exists(os.path.join(scratch, "unknown.gguf")), "a file was written")
    return message[-60:]


def main():
    global build, only, scratch, torch, transformers, tokenizers
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python3 tests/convert.py BUILD_DIR [PART_OF_A_NAME]")
    build, only = sys.argv[1], (sys.argv + [""])[2]
    try:
        import tokenizers
        import torch
        import transformers
    except ImportError as missing:
        print(f"skipped: {missing}")
        print("0 passed, 0 failed")
        return
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        for name, entry in FAMILIES.items():
            case(name, check_family, name, entry)
        case("phi3-longrope long", long_factors, "phi3-longrope-long", FAMILIES["phi3-longrope"])
        for name in ("llama", "llama-3", "llama-linear", "llama-yarn", "phi2", "phi3-longrope", "gptneox", "stablelm",
                     "gemma3"):
            case("older config.json, " + name, older_config, name)
        case("gemma3 with images", with_images)
        case("gpt2 alone", without_wrap)
        for mode in ("mean", "cls"):
            case("bert " + mode, encoder, mode)
        case("shards and types", shards_and_types)
        for name in splitters():
            case("tokenizer " + name, byte_level, name)
        for prefix in (True, False):
            case(f"tokenizer sentencepiece, {'a' if prefix else 'no'} space in front", sentencepiece_bpe, prefix)
        for lower in (True, False):
            case(f"tokenizer wordpiece, {'lower case' if lower else 'case kept'}", wordpiece, lower)
        case("tokenizer refused", refused_splitter)
    finish()


torch = transformers = tokenizers = None
main()
