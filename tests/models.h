/* models.h - random models, made in memory as GGUF files. */
#ifndef MODELS_H
#define MODELS_H

#include "test.h"
#include "gguf_write.h"
#include "tfm.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__GNUC__) || defined(__clang__)
#define MODELS_FN static __attribute__((unused))
#else
#define MODELS_FN static
#endif

typedef struct recipe {
    const char *arch;                   /* NULL: llama */
    tfm_type type;                      /* of the matrices; norms and biases are F32 */
    int layers, width, ff, heads, kv_heads, vocab, context, window, experts;     /* experts: two of them are used */
    bool tied;                          /* no output.weight */
    bool characters;                    /* with a vocabulary of one character per token */
    bool raw;                           /* Q4_K of random bits, whatever the encoders do */
    uint64_t seed;
    const char *without, *turned;       /* a tensor to leave out; one whose dimensions to exchange */
    void (*more)(gguf_writer *w);       /* writes further metadata */
} recipe;

typedef struct models_writer { gguf_writer w; const recipe *r; bool data; uint64_t seed; } models_writer;

/* Blocks with d = 2^-12 and dmin = 7.5 d, so that the mean is near 0. */
static void models_random_bits(models_writer *m, uint8_t *p, int64_t bytes) {
    static const uint8_t scales[4] = { 0x00, 0x0c, 0x80, 0x17 };
    for (int64_t i = 0; i < bytes; i++) p[i] = i % 144 < 4 ? scales[i % 144] : (uint8_t)(test_random(&m->seed) >> 56);
}
/* Declares a tensor, or in the second pass writes it. rows 0: a vector. */
static void models_tensor(models_writer *m, const char *name, int64_t rows, int64_t columns) {
    const recipe *r = m->r;
    tfm_type type = rows ? r->type : TFM_F32;
    bool turn = r->turned && strcmp(name, r->turned) == 0, norm = strstr(name, "norm.weight") != NULL;
    if (r->without && strcmp(name, r->without) == 0) return;
    if (turn) type = TFM_F32;
    if (!m->data) {
        tfm_shape s = { rows ? 2 : 1, { rows ? rows : columns, columns, 0, 0 } };
        if (rows && strstr(name, "_exps.")) s = tfm_shape3(r->experts, rows / r->experts, columns);
        if (turn && rows) s.dim[0] = columns, s.dim[1] = rows;
        else if (turn) s.dim[0]++;
        gguf_tensor(&m->w, name, type, s);
        return;
    }
    int64_t count = (rows ? rows : 1) * columns + (turn && !rows);
    float *x = (float *)malloc((size_t)count * 4), scale = rows ? 2.0f / sqrtf((float)columns) : 0.2f;
    if (strncmp(name, "token", 5) == 0) scale = 1;
    for (int64_t i = 0; x && i < count; i++) {
        volatile float v = test_uniform(&m->seed) * scale;      /* rounded twice with any compiler */
        x[i] = norm ? 1 + v : v;
    }
    int64_t bytes = count / tfm_type_block(type) * tfm_type_bytes(type);
    void *encoded = malloc((size_t)bytes);
    if (x && encoded) {
        if (r->raw && type == TFM_Q4_K) models_random_bits(m, (uint8_t *)encoded, bytes);
        else CHECK(gguf_encode(type, x, encoded, count));
        gguf_data(&m->w, encoded, (size_t)bytes);
    }
    free(encoded);
    free(x);
}
static void models_part(models_writer *m, int layer, const char *part, int64_t rows, int64_t columns, bool bias) {
    char name[64];
    snprintf(name, sizeof name, "blk.%d.%s.weight", layer, part);
    models_tensor(m, name, rows, columns);
    snprintf(name, sizeof name, "blk.%d.%s.bias", layer, part);
    if (bias) models_tensor(m, name, 0, rows ? rows : columns);
}
static void models_tensors(models_writer *m) {
    const recipe *r = m->r;
    int64_t size = r->width / r->heads, kv = size * r->kv_heads;
    bool gpt2 = r->arch && strcmp(r->arch, "gpt2") == 0, gemma3 = r->arch && strcmp(r->arch, "gemma3") == 0;
    bool post = gemma3 || (r->arch && strcmp(r->arch, "gemma2") == 0);
    m->seed = r->seed ? r->seed : 1;
    models_tensor(m, "token_embd.weight", r->vocab, r->width);
    if (gpt2) models_tensor(m, "position_embd.weight", r->context, r->width);
    for (int i = 0; i < r->layers; i++) {
        models_part(m, i, "attn_norm", 0, r->width, gpt2);
        if (gpt2) models_part(m, i, "attn_qkv", r->width + 2 * kv, r->width, true);
        if (!gpt2) models_part(m, i, "attn_q", r->width, r->width, false);
        if (!gpt2) models_part(m, i, "attn_k", kv, r->width, false);
        if (!gpt2) models_part(m, i, "attn_v", kv, r->width, false);
        if (gemma3) models_part(m, i, "attn_q_norm", 0, size, false);
        if (gemma3) models_part(m, i, "attn_k_norm", 0, size, false);
        models_part(m, i, "attn_output", r->width, r->width, gpt2);
        models_part(m, i, "ffn_norm", 0, r->width, gpt2);
        if (post) models_part(m, i, "post_attention_norm", 0, r->width, false);
        if (post) models_part(m, i, "post_ffw_norm", 0, r->width, false);
        if (r->experts) {
            models_part(m, i, "ffn_gate_inp", r->experts, r->width, false);
            models_part(m, i, "ffn_gate_exps", r->experts * r->ff, r->width, false);
            models_part(m, i, "ffn_up_exps", r->experts * r->ff, r->width, false);
            models_part(m, i, "ffn_down_exps", r->experts * r->width, r->ff, false);
            continue;
        }
        if (!gpt2) models_part(m, i, "ffn_gate", r->ff, r->width, false);
        models_part(m, i, "ffn_up", r->ff, r->width, gpt2);
        models_part(m, i, "ffn_down", r->width, r->ff, gpt2);
    }
    models_tensor(m, "output_norm.weight", 0, r->width);
    if (gpt2) models_tensor(m, "output_norm.bias", 0, r->width);
    if (!r->tied) models_tensor(m, "output.weight", r->vocab, r->width);
}
static void models_key(models_writer *m, const char *key, int value) {
    char name[64];
    snprintf(name, sizeof name, "%s.%s", m->r->arch ? m->r->arch : "llama", key);
    gguf_meta_u32(&m->w, name, (uint32_t)value);
}
/* The file, malloc'd; NULL and a failed check if it could not be made. */
MODELS_FN uint8_t *make_model(const recipe *r, size_t *size) {
    models_writer m;
    memset(&m, 0, sizeof m);
    m.r = r;
    gguf_begin_memory(&m.w);
    gguf_meta_string(&m.w, "general.architecture", r->arch ? r->arch : "llama");
    models_key(&m, "block_count", r->layers);
    models_key(&m, "context_length", r->context);
    models_key(&m, "embedding_length", r->width);
    models_key(&m, "feed_forward_length", r->ff);
    models_key(&m, "attention.head_count", r->heads);
    models_key(&m, "attention.head_count_kv", r->kv_heads);
    if (r->window) models_key(&m, "attention.sliding_window", r->window);
    gguf_meta_f32(&m.w, "gpt2.attention.layer_norm_epsilon", 1e-5f);
    gguf_meta_f32(&m.w, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    gguf_meta_f32(&m.w, "gemma2.attention.layer_norm_rms_epsilon", 1e-5f);
    gguf_meta_f32(&m.w, "gemma3.attention.layer_norm_rms_epsilon", 1e-5f);
    if (r->more) r->more(&m.w);
    if (r->experts) models_key(&m, "expert_count", r->experts);
    if (r->experts) models_key(&m, "expert_used_count", 2);
    if (r->characters) {
        char text[96];
        tfm_string tokens[96];
        for (int i = 0; i < 96; i++) {
            text[i] = (char)(i ? 31 + i : '\n');
            tokens[i].data = &text[i];
            tokens[i].size = 1;
        }
        gguf_meta_string(&m.w, "tokenizer.ggml.model", "char");
        gguf_meta_strings(&m.w, "tokenizer.ggml.tokens", tokens, r->vocab < 96 ? (size_t)r->vocab : 96);
    }
    models_tensors(&m);
    m.data = true;
    models_tensors(&m);
    bool good = gguf_finish(&m.w);
    CHECK_STR(m.w.error, "");
    *size = m.w.bytes.size;
    if (good) return m.w.bytes.data;
    free(m.w.bytes.data);
    return NULL;
}

/* Such a model, loaded from the bytes that it keeps. */
typedef struct made { uint8_t *bytes; tfm_model *m; } made;

static inline made make(const recipe *r) {
    made m = { NULL, NULL };
    tfm_error err;
    size_t size;
    m.bytes = make_model(r, &size);
    if (m.bytes) m.m = tfm_model_from_memory(m.bytes, size, NULL, &err);
    if (m.bytes) CHECK_STR(err.message, "");
    return m;
}
static inline void unmake(made *m) {
    tfm_model_free(m->m);
    free(m->bytes);
}

#endif
