#!/usr/bin/env python3
"""Makes tests/data/chat.gguf: conversations as transformers renders them with models' chat templates.

    python3 tools/vectors/chat.py FOLDER tests/data

Needs: pip install transformers jinja2. FOLDER holds NAME.jinja for each of SOURCES, the `chat_template`
of that model's tokenizer_config.json. Templates that may be copied (Apache-2.0, MIT) go into the fixture
as they are. Of the others only what they are recognised by does: PARTS, our own words but for that.

The file holds the tokenizer of BOS <s> and EOS </s>; test.names and test.templates; test.turns, how
many messages each conversation has, and these in test.roles and test.contents; test.texts: for every
template and conversation the text with the prompt and the text without, empty where the template
refuses the conversation or we do (REFUSED).
"""
import datetime
import os
import sys

import transformers.utils.chat_template_utils as rendering

from gguf_meta import write_meta

U32, I32, STRING, ARRAY = 4, 5, 8, 9
TODAY = datetime.datetime(2030, 6, 7)               # tests/test_chat.c gives the same
SOURCES = {
    "chatml-openhermes": "teknium/OpenHermes-2.5-Mistral-7B, Apache-2.0",
    "chatml-smollm2": "HuggingFaceTB/SmolLM2-135M-Instruct, Apache-2.0",
    "chatml-qwen2.5": "Qwen/Qwen2.5-7B-Instruct, Apache-2.0",
    "qwen3": "Qwen/Qwen3-0.6B, Apache-2.0",
    "mistral-v0.1": "mistralai/Mistral-7B-Instruct-v0.1, Apache-2.0",
    "mistral-v0": "mistralai/Mistral-7B-Instruct-v0.2 at first, Apache-2.0",
    "mistral-v1": "mistralai/Mistral-7B-Instruct-v0.2, Apache-2.0",
    "mistral-v3": "mistralai/Mistral-Large-Instruct-2407",
    "mistral-v3-tekken": "mistralai/Mistral-Nemo-Instruct-2407, Apache-2.0",
    "mistral-v7": "mistralai/Mistral-Large-Instruct-2411",
    "mistral-v7-tekken": "mistralai/Mistral-Small-3.2-24B-Instruct-2506, Apache-2.0",
    "phi3": "microsoft/Phi-3.5-mini-instruct, MIT",
    "phi3-small": "microsoft/Phi-3-small-8k-instruct, MIT",
    "phi4-first": "microsoft/phi-4 at first, MIT",
    "zephyr": "HuggingFaceH4/zephyr-7b-beta, MIT",
    "llama2": "meta-llama/Llama-2-7b-chat-hf",
    "llama3": "meta-llama/Meta-Llama-3-8B-Instruct at first",
    "llama3.1": "meta-llama/Llama-3.1-8B-Instruct",
    "llama3.2": "meta-llama/Llama-3.2-3B-Instruct",
    "gemma": "google/gemma-2-2b-it",
    "gemma3": "google/gemma-3-1b-it",
}
PARTS = {
    "mistral-v3": "\"[INST] \" + system_message, |trim + eos_token",
    "mistral-v7": "'[SYSTEM_PROMPT] ' and '[INST] '",
    "llama2": "'<<SYS>>', bos_token + '[INST] ' + content.strip()",
    "llama3": "bos_token, '<|start_header_id|>' + message['role'] + '<|end_header_id|>', | trim + '<|eot_id|>'",
    "llama3.1": "<|start_header_id|>, Today Date: , add_generation_prompt",
    "llama3.2": "<|start_header_id|>, Today Date: , strftime_now, add_generation_prompt",
    "gemma": "bos_token, <start_of_turn>, System role not supported, add_generation_prompt",
    "gemma3": "bos_token, <start_of_turn>, first_user_prefix, add_generation_prompt",
}
S, U, A = "system", "user", "assistant"
CONVERSATIONS = [
    [(U, "Hello")],
    [(S, "Be brief."), (U, "Hello")],
    [(U, " Hi \n"), (A, "\n Yes. "), (U, "And\n\nthen?  ")],
    [(S, " You are a helpful assistant\n"), (U, "\u00a0Hello\u3000"), (A, "Hi there"), (U, "Who are you"),
     (A, "   I am an assistant   "), (U, "Another question")],
    [(U, "a"), (A, "<think>\nhm\n</think>\n\nb"), (U, "c")],
    [(U, "a"), (A, "b")],
    [(S, "s"), (U, "   ")],
    [(S, "s"), (U, "a"), (A, "\x1cb\x1f"), (U, "\u2003\u0085c")],
    [(U, "a"), (U, "b")],
    [(U, "a"), (A, "b"), (S, "c"), (U, "d")],
]
NEEDS_SYSTEM = {i for i, c in enumerate(CONVERSATIONS) if c[0][0] != S}
REFUSED = {"qwen3": {5}, "llama3.1": {9}, "llama3.2": {9}, "mistral-v7-tekken": NEEDS_SYSTEM}


class FixedDate(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return TODAY


def render(template, conversation, prompt):
    messages = [{"role": role, "content": content} for role, content in conversation]
    try:
        return rendering.render_jinja_template([messages], chat_template=template, add_generation_prompt=prompt,
                                               bos_token="<s>", eos_token="</s>")[0][0]
    except Exception as error:                       # raise_exception of the template
        if "roles" not in str(error) and "role" not in str(error):
            raise
        return ""


def main():
    rendering.datetime = FixedDate
    folder, target = sys.argv[1:3]
    templates, texts = [], []
    for name in SOURCES:
        with open(os.path.join(folder, name + ".jinja"), encoding="utf8") as f:
            template = f.read()
        templates.append(PARTS.get(name, template))
        for i, conversation in enumerate(CONVERSATIONS):
            refused = i in REFUSED.get(name, ())
            texts += ["" if refused else render(template, conversation, prompt) for prompt in (True, False)]
    turns = [turn for c in CONVERSATIONS for turn in c]

    def strings(values):
        return ARRAY, (STRING, [v.encode() for v in values])

    path = os.path.join(target, "chat.gguf")
    write_meta(path, {
        "general.architecture": (STRING, b"llama"),
        "tokenizer.ggml.model": (STRING, b"llama"),
        "tokenizer.ggml.tokens": strings(["<unk>", "<s>", "</s>"]),
        "tokenizer.ggml.token_type": (ARRAY, (I32, [2, 3, 3])),
        "tokenizer.ggml.bos_token_id": (U32, 1),
        "tokenizer.ggml.eos_token_id": (U32, 2),
        "test.names": strings(SOURCES),
        "test.templates": strings(templates),
        "test.turns": (ARRAY, (I32, [len(c) for c in CONVERSATIONS])),
        "test.roles": strings(role for role, _ in turns),
        "test.contents": strings(content for _, content in turns),
        "test.texts": strings(texts),
    })
    print("%s: %d templates, %d texts, %d of them refused, %d bytes" % (
        path, len(templates), len(texts), texts.count(""), os.path.getsize(path)))


main()
