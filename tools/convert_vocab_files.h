/* convert_vocab_files.h - reads a tokenizer of any kind: tokenizer.json, SentencePiece's tokenizer.model,
   llama2.c's tokenizer.bin; and what a Hugging Face folder says of it besides. */
#ifndef CONVERT_VOCAB_FILES_H
#define CONVERT_VOCAB_FILES_H

#include "tools/convert_vocab_json.h"

/* ---- tokenizer.model: SentencePiece's ModelProto, of which a few fields matter ---- */

typedef struct vocab_proto { const uint8_t *at, *end; bool bad; } vocab_proto;
typedef struct vocab_field { uint64_t number, value; vocab_proto bytes; } vocab_field;

static uint64_t vocab_varint(vocab_proto *p) {
    uint64_t v = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        if (p->at == p->end) break;
        v |= (uint64_t)(*p->at & 127) << shift;
        if (*p->at++ < 128) return v;
    }
    p->bad = true;
    return 0;
}
/* The next field; false at the end, or with p->bad. Fixed-size values are in `bytes` too. */
static bool vocab_next(vocab_proto *p, vocab_field *f) {
    if (p->bad || p->at == p->end) return false;
    uint64_t key = vocab_varint(p), size = 0;
    f->number = key >> 3;
    f->value = 0;
    switch (key & 7) {
        case 0: f->value = vocab_varint(p); break;
        case 1: size = 8; break;
        case 2: size = vocab_varint(p); break;
        case 5: size = 4; break;
        default: p->bad = true;
    }
    if (p->bad || size > (uint64_t)(p->end - p->at)) { p->bad = true; return false; }
    f->bytes.at = p->at;
    f->bytes.end = p->at += size;
    f->bytes.bad = false;
    return true;
}
static void vocab_read_piece(vocab *v, vocab_proto p) {
    tfm_string text = { "", 0 };
    float score = 0;
    int32_t type = VOCAB_NORMAL;
    for (vocab_field f; vocab_next(&p, &f);) {
        size_t size = (size_t)(f.bytes.end - f.bytes.at);
        if (f.number == 1) text = vocab_copy((const char *)f.bytes.at, size, "", 0);
        if (f.number == 2 && size == 4) memcpy(&score, f.bytes.at, 4);
        if (f.number == 3) type = (int32_t)f.value;
    }
    if (p.bad || type < VOCAB_NORMAL || type > VOCAB_BYTE)
        cli_fail("%s: piece %" PRId64 " cannot be read", v->path, v->count);
    vocab_set(v, v->count, text, score, type);
}
static void vocab_read_spm(vocab *v, const uint8_t *data, size_t size) {
    vocab_proto p = { data, data + size, false };
    uint64_t kind = 1;
    v->space_prefix = v->trims = 1;
    v->special[VOCAB_UNK] = 0;
    v->special[VOCAB_BOS] = 1;
    v->special[VOCAB_EOS] = 2;
    for (vocab_field f; vocab_next(&p, &f);) {
        if (f.number == 1) vocab_read_piece(v, f.bytes);
        for (vocab_field t; f.number == 2 && vocab_next(&f.bytes, &t);) {
            if (t.number == 3) kind = t.value;
            if (t.number == 40) v->special[VOCAB_UNK] = (int32_t)t.value;
            if (t.number == 41) v->special[VOCAB_BOS] = (int32_t)t.value;
            if (t.number == 42) v->special[VOCAB_EOS] = (int32_t)t.value;
            if (t.number == 43) v->special[VOCAB_PAD] = (int32_t)t.value;
        }
        for (vocab_field t; f.number == 3 && vocab_next(&f.bytes, &t);) {
            if (t.number == 2) {
                v->charsmap_size = (size_t)(t.bytes.end - t.bytes.at);
                v->charsmap = convert_keep(v->charsmap_size);
                memcpy(v->charsmap, t.bytes.at, v->charsmap_size);
            }
            if (t.number == 3) v->space_prefix = t.value != 0;
            if (t.number == 4) v->trims = t.value != 0;
        }
        p.bad = p.bad || f.bytes.bad;
    }
    if (p.bad || v->count == 0) cli_fail("%s: neither JSON nor a SentencePiece model that can be read", v->path);
    if (kind > 2)
        cli_fail("%s: a SentencePiece model of kind %" PRIu64 ", neither unigram (1) nor BPE (2)", v->path, kind);
    v->model = kind == 1 ? "t5" : "llama";
    v->scored = true;
    if (kind == 2 && v->charsmap_size)
        cli_fail("%s: SentencePiece BPE with a normalization of its own is not supported", v->path);
}

/* ---- llama2.c's tokenizer.bin: for each token its score, the length and bytes of its text ---- */

static void vocab_read_llama2(vocab *v, const uint8_t *data, size_t size) {
    size_t at = 4;
    v->model = "llama";
    v->scored = true;
    v->space_prefix = v->adds_bos = 1;
    v->adds_eos = 0;
    while (at < size) {
        float score;
        int32_t length = -1;
        if (size - at >= 8) memcpy(&score, data + at, 4), memcpy(&length, data + at + 4, 4);
        if (length < 0 || (size_t)length > size - at - 8)
            cli_fail("%s: token %" PRId64 " is cut off, or this is no tokenizer of llama2.c", v->path, v->count);
        tfm_string text = { (const char *)data + at + 8, (size_t)length };
        int32_t type = v->count == 0 ? VOCAB_UNKNOWN : v->count < 3 ? VOCAB_CONTROL
                     : vocab_is_byte(text) ? VOCAB_BYTE : VOCAB_NORMAL;
        if (type == VOCAB_CONTROL) text = v->count == 1 ? vocab_copy("<s>", 3, "", 0) : vocab_copy("</s>", 4, "", 0);
        vocab_set(v, v->count, vocab_replaced(text, " ", VOCAB_SPACE), score, type);
        at += 8 + (size_t)length;
    }
    v->special[VOCAB_UNK] = 0;
    v->special[VOCAB_BOS] = 1;
    v->special[VOCAB_EOS] = 2;
}

/* ---- What the folder says besides ---- */

/* A token as "text" or {"content": "text"}. */
static const char *vocab_token_text(const json *v) {
    return json_text(v) ? json_text(v) : json_text(json_get(v, "content"));
}

static void vocab_read_specials(vocab *v, const char *dir, const json *settings, const json *config) {
    const json *map = convert_json_in(dir, "special_tokens_map.json");
    for (int i = 0; i < VOCAB_SPECIALS; i++) {
        const char *text = vocab_token_text(json_get(settings, vocab_specials[i].text));
        const json *id = json_get(config, vocab_specials[i].id);
        if (!text) text = vocab_token_text(json_get(map, vocab_specials[i].text));
        int64_t found = text ? vocab_find(v, text) : -1;
        if (found < 0 && v->special[i] < 0) json_int(json_count(id) ? json_at(id, 0) : id, &found);
        if (found >= 0 && found < v->count) v->special[i] = found;
    }
    const json *bos = json_get(settings, "add_bos_token"), *eos = json_get(settings, "add_eos_token");
    if (bos && bos->kind == JSON_BOOL) v->adds_bos = bos->truth;
    if (eos && eos->kind == JSON_BOOL) v->adds_eos = eos->truth;
}
/* The template of conversations: a file of its own, or in tokenizer_config.json, perhaps one of several. */
static void vocab_write_chat(gguf_writer *w, const char *dir, const json *settings) {
    char *path = convert_path(dir, "chat_template.jinja"), *text = NULL;
    const json *given = json_get(settings, "chat_template"), *first = json_first(given);
    size_t size;
    if (convert_exists(path)) text = cli_read(path, &size);
    for (const json *t = first; t; t = t->next)
        if (t == first || json_is(json_get(t, "name"), "default")) given = json_get(t, "template");
    if (text || json_text(given)) gguf_meta_string(w, "tokenizer.chat_template", text ? text : json_text(given));
    free(text);
}
/* Reads a file of any of the three kinds. */
static void vocab_read(vocab *v, const char *path) {
    size_t size;
    char *data = cli_read(path, &size);
    vocab_begin(v, path);
    size_t space = strspn(data, " \t\r\n");
    int32_t longest = 0;
    if (size >= 4) memcpy(&longest, data, 4);
    if (data[space] == '{') {
        vocab_read_json(v, convert_json_text(path, data, size));
        return;
    }
    if (longest > 0 && longest < 65536) vocab_read_llama2(v, (const uint8_t *)data, size);
    else vocab_read_spm(v, (const uint8_t *)data, size);
    free(data);
}
/* The tokenizer that --tokenizer names, or that of the folder; none is fine: the model runs by ids. */
static void convert_vocab(convert_job *job, const char *dir, const json *config, int64_t rows) {
    static const char *const files[] = { "tokenizer.json", "tokenizer.model" };
    static vocab v;
    const char *path = job->tokenizer;
    for (size_t i = 0; i < 2 && !path; i++) {
        char *candidate = convert_path(dir, files[i]);
        if (convert_exists(candidate)) path = candidate;
    }
    if (!path) return;
    vocab_read(&v, path);
    const json *settings = convert_json_in(dir, "tokenizer_config.json");
    vocab_read_specials(&v, dir, settings, config);
    vocab_write(&v, &job->out, rows);
    vocab_write_chat(&job->out, dir, settings);
}

#endif
