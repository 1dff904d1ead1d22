/* convert_vocab.h - a vocabulary on its way into tokenizer.ggml.* metadata. Readers fill it:
   convert_vocab_json.h from tokenizer.json, convert_vocab_files.h from the other kinds of file. What they
   do not recognise is refused by name: a guess would give other ids without a word. */
#ifndef CONVERT_VOCAB_H
#define CONVERT_VOCAB_H

#include "tools/convert_job.h"

enum { VOCAB_NORMAL = 1, VOCAB_UNKNOWN, VOCAB_CONTROL, VOCAB_USER, VOCAB_UNUSED, VOCAB_BYTE };      /* GGUF's types */
enum { VOCAB_BOS, VOCAB_EOS, VOCAB_UNK, VOCAB_SEP, VOCAB_PAD, VOCAB_CLS, VOCAB_MASK, VOCAB_SPECIALS };
enum { VOCAB_MOST = 1 << 24 };          /* tokens; an id beyond is a mistake */

/* Names of the special tokens in tokenizer_config.json and config.json, and in GGUF. */
static const struct { const char *text, *id, *gguf; } vocab_specials[VOCAB_SPECIALS] = {
    { "bos_token", "bos_token_id", "tokenizer.ggml.bos_token_id" },
    { "eos_token", "eos_token_id", "tokenizer.ggml.eos_token_id" },
    { "unk_token", "unk_token_id", "tokenizer.ggml.unknown_token_id" },
    { "sep_token", "sep_token_id", "tokenizer.ggml.seperator_token_id" },      /* spelled so in GGUF */
    { "pad_token", "pad_token_id", "tokenizer.ggml.padding_token_id" },
    { "cls_token", "cls_token_id", "tokenizer.ggml.cls_token_id" },
    { "mask_token", "mask_token_id", "tokenizer.ggml.mask_token_id" }
};

typedef struct vocab {
    const char *path;                   /* for messages */
    const char *model, *pre;            /* tokenizer.ggml.model, tokenizer.ggml.pre */
    tfm_string *tokens;                 /* [count]; data NULL: none has this id */
    float *scores;                      /* of SentencePiece's models: `scored` */
    int32_t *types;
    int64_t count, capacity;
    bool scored;
    tfm_string *merges;
    size_t merge_count;
    int64_t special[VOCAB_SPECIALS];    /* ids; -1: none */
    int adds_bos, adds_eos, space_prefix, trims;           /* 0, 1; -1: not known */
    int lower, strip;                   /* WordPiece: lower case; accents removed */
    uint8_t *charsmap;                  /* SentencePiece's normalization */
    size_t charsmap_size;
} vocab;

static void vocab_begin(vocab *v, const char *path) {
    memset(v, 0, sizeof *v);
    v->path = path;
    v->pre = "default";
    v->adds_bos = v->adds_eos = v->space_prefix = v->trims = v->lower = v->strip = -1;
    for (int i = 0; i < VOCAB_SPECIALS; i++) v->special[i] = -1;
}
static void vocab_reserve(vocab *v, int64_t count) {
    if (count > VOCAB_MOST) cli_fail("%s: an id of %" PRId64 " is too large", v->path, count - 1);
    if (count > v->capacity) {
        int64_t capacity = v->capacity ? v->capacity : 1024;
        while (capacity < count) capacity *= 2;
        v->tokens = realloc(v->tokens, (size_t)capacity * sizeof *v->tokens);
        v->scores = realloc(v->scores, (size_t)capacity * sizeof *v->scores);
        v->types = realloc(v->types, (size_t)capacity * sizeof *v->types);
        if (!v->tokens || !v->scores || !v->types) cli_fail("%s: out of memory for %" PRId64 " tokens", v->path, count);
        memset(v->tokens + v->capacity, 0, (size_t)(capacity - v->capacity) * sizeof *v->tokens);
        v->capacity = capacity;
    }
    if (count > v->count) v->count = count;
}
static void vocab_set(vocab *v, int64_t id, tfm_string text, float score, int32_t type) {
    if (id < 0) cli_fail("%s: token \"%s\" has the id %" PRId64, v->path, text.data, id);
    vocab_reserve(v, id + 1);
    v->tokens[id] = text;
    v->scores[id] = score;
    v->types[id] = type;
}
static int64_t vocab_find(const vocab *v, const char *text) {
    size_t n = strlen(text);
    for (int64_t id = 0; id < v->count; id++)
        if (v->tokens[id].data && v->tokens[id].size == n && memcmp(v->tokens[id].data, text, n) == 0) return id;
    return -1;
}
static tfm_string vocab_copy(const char *a, size_t a_size, const char *b, size_t b_size) {     /* a, then b */
    char *text = convert_keep(a_size + b_size + 1);
    memcpy(text, a, a_size);
    memcpy(text + a_size, b, b_size);
    tfm_string s = { text, a_size + b_size };
    return s;
}
/* The text with every `from` replaced. */
static tfm_string vocab_replaced(tfm_string s, const char *from, const char *to) {
    size_t n = strlen(from), m = strlen(to), size = 0;
    char *out = convert_keep(s.size * (m > n ? m : 1) + 1);
    for (size_t i = 0; i < s.size;) {
        bool found = s.size - i >= n && memcmp(s.data + i, from, n) == 0;
        memcpy(out + size, found ? to : s.data + i, found ? m : 1);
        size += found ? m : 1;
        i += found ? n : 1;
    }
    tfm_string r = { out, size };
    return r;
}
static bool vocab_is_byte(tfm_string s) {
    return s.size == 6 && memcmp(s.data, "<0x", 3) == 0 && s.data[5] == '>' &&
           strspn(s.data + 3, "0123456789ABCDEFabcdef") == 2;
}

#define VOCAB_SPACE "\xe2\x96\x81"      /* U+2581, SentencePiece's space */

/* ---- Writing ---- */

static void vocab_write_flag(gguf_writer *w, const char *key, int flag) { if (flag >= 0) gguf_meta_bool(w, key, flag); }

/* rows: of the embedding; ids without a token are filled up to there. */
static void vocab_write(vocab *v, gguf_writer *w, int64_t rows) {
    size_t n = (size_t)(rows > v->count ? rows : v->count);
    if (v->count > rows)
        cli_fail("%s: %" PRId64 " tokens, the model has %" PRId64 " (vocab_size)", v->path, v->count, rows);
    vocab_reserve(v, rows);
    for (int64_t id = 0; id < rows; id++) {
        char text[32];
        if (v->tokens[id].data) continue;
        snprintf(text, sizeof text, "[PAD%" PRId64 "]", id);
        v->tokens[id] = vocab_copy(text, strlen(text), "", 0);
        v->types[id] = VOCAB_UNUSED;
        v->scores[id] = -1000;
    }
    gguf_meta_string(w, "tokenizer.ggml.model", v->model);
    gguf_meta_string(w, "tokenizer.ggml.pre", v->pre);
    gguf_meta_strings(w, "tokenizer.ggml.tokens", v->tokens, n);
    if (v->scored) gguf_meta_array(w, "tokenizer.ggml.scores", TFM_VALUE_F32, v->scores, n);
    gguf_meta_array(w, "tokenizer.ggml.token_type", TFM_VALUE_I32, v->types, n);
    if (v->merge_count) gguf_meta_strings(w, "tokenizer.ggml.merges", v->merges, v->merge_count);
    for (int i = 0; i < VOCAB_SPECIALS; i++)
        if (v->special[i] >= 0 && v->special[i] < v->count)
            gguf_meta_u32(w, vocab_specials[i].gguf, (uint32_t)v->special[i]);
    vocab_write_flag(w, "tokenizer.ggml.add_bos_token", v->adds_bos);
    bool bert = strcmp(v->model, "bert") == 0;
    vocab_write_flag(w, bert ? "tokenizer.ggml.add_sep_token" : "tokenizer.ggml.add_eos_token", v->adds_eos);
    vocab_write_flag(w, "tokenizer.ggml.add_space_prefix", v->space_prefix);
    if (strcmp(v->model, "t5") == 0) {
        vocab_write_flag(w, "tokenizer.ggml.remove_extra_whitespaces", v->trims);
        gguf_meta_array(w, "tokenizer.ggml.precompiled_charsmap", TFM_VALUE_U8, v->charsmap, v->charsmap_size);
    }
    vocab_write_flag(w, "tokenizer.ggml.normalizer.lowercase", v->lower);
    vocab_write_flag(w, "tokenizer.ggml.normalizer.strip_accents", v->strip);
}

#endif
