/* hostile.h - small valid files, made in memory, and what it takes to treat damaged ones badly:
   bytes in a block of their own that ends where they do, at an odd address, an allocator that
   refuses what the file's size cannot justify, and functions that use all of whatever loads.
   Needs no test.h, so that tests/fuzz/ can have it too: a fault is told by hostile_fault. */
#ifndef HOSTILE_H
#define HOSTILE_H

#include "tools/gguf_write.h"
#include "tfm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__GNUC__) || defined(__clang__)
#define HOSTILE_FN static __attribute__((unused))
#else
#define HOSTILE_FN static
#endif

/* ---- Memory ---- */

/* A copy whose first byte has an odd address and whose last one is the block's last. */
HOSTILE_FN uint8_t *odd_copy(const void *data, size_t size) {
    uint8_t *p = (uint8_t *)malloc(size + 1);
    if (!p) exit(1);
    if (size) memcpy(p + 1, data, size);
    return p + 1;
}
HOSTILE_FN void odd_free(uint8_t *p) {
    if (p) free(p - 1);
}

typedef struct budget { size_t left, live; } budget;        /* bytes that may still be had; are out */

HOSTILE_FN void *budget_alloc(void *user, size_t size) {
    budget *b = (budget *)user;
    char *p = size <= b->left ? (char *)malloc(size + 16) : NULL;
    if (!p) return NULL;
    memcpy(p, &size, sizeof size);
    b->left -= size;
    b->live += size;
    return p + 16;
}
HOSTILE_FN void budget_free(void *user, void *ptr) {
    budget *b = (budget *)user;
    size_t size;
    if (!ptr) return;
    memcpy(&size, (char *)ptr - 16, sizeof size);
    b->left += size;
    b->live -= size;
    free((char *)ptr - 16);
}
HOSTILE_FN tfm_allocator budget_of(budget *b, size_t file_size) {
    tfm_allocator a = { b, budget_alloc, budget_free };
    b->left = 16 * file_size + 65536;
    b->live = 0;
    return a;
}

/* ---- Using what was loaded ---- */

static const char *hostile_fault;       /* the first thing that contradicted itself, or NULL */
static volatile unsigned hostile_sink;

HOSTILE_FN void fault_unless(bool good, const char *what) {
    if (!good && !hostile_fault) hostile_fault = what;
}
HOSTILE_FN void touch(const void *data, size_t size) {
    const uint8_t *p = (const uint8_t *)data;
    unsigned sum = 0;
    for (size_t i = 0; i < size; i++) sum = sum * 31 + p[i];
    hostile_sink = sum;
}
HOSTILE_FN void use_value(const tfm_value *v) {
    uint64_t u, count = 0;
    int64_t i;
    double d;
    bool b;
    tfm_string s;
    tfm_value array = *v, e;
    bool unsigned_ok = tfm_value_u64(v, &u), signed_ok = tfm_value_i64(v, &i), float_ok = tfm_value_f64(v, &d);
    fault_unless(!unsigned_ok || !signed_ok || (i >= 0 && (uint64_t)i == u), "u64 and i64 differ");
    fault_unless(float_ok || (!unsigned_ok && !signed_ok), "an integer that is no f64");
    fault_unless(!tfm_value_bool(v, &b) || v->type == TFM_VALUE_BOOL, "a bool of another type");
    if (tfm_value_string(v, &s)) touch(s.data, s.size);
    touch(v->data, v->size);
    while (tfm_value_next(&array, &e)) {
        count++;
        touch(e.data, e.size);
        if (!tfm_value_u64(&e, &u)) tfm_value_f64(&e, &d);
    }
    fault_unless(v->type != TFM_VALUE_ARRAY || (count == v->count && array.size == 0), "an array of another length");
}
/* A NUL-terminated copy. */
HOSTILE_FN char *text_of(tfm_string s) {
    char *p = (char *)malloc(s.size + 1);
    if (!p) exit(1);
    if (s.size) memcpy(p, s.data, s.size);
    p[s.size] = 0;
    return p;
}
HOSTILE_FN void use_file(const tfm_file *f) {
    tfm_context_opts o;
    tfm_tensor_info t, found;
    tfm_value v;
    tfm_string key;
    memset(&o, 0, sizeof o);
    o.arena = 256;
    tfm_context *c = tfm_context_new(&o, NULL);
    touch(tfm_file_format(f), strlen(tfm_file_format(f)));
    fault_unless(!tfm_file_tensor_at(f, -1, &t) && !tfm_file_meta_at(f, -1, &key, &v), "an element before the first");
    fault_unless(!tfm_file_tensor_at(f, tfm_file_tensor_count(f), &t), "a tensor after the last");
    for (int64_t i = 0; tfm_file_tensor_at(f, i, &t); i++) {
        char *name = text_of(t.name);
        fault_unless(tfm_file_tensor(f, name, &found) && found.offset == t.offset, "a tensor that is not found");
        free(name);
        touch(t.type_name.data, t.type_name.size);
        touch(t.tensor.data, (size_t)t.bytes);
        fault_unless(t.bytes > 0 || !t.tensor.data, "data of an empty tensor");
        if (t.tensor.type == TFM_TYPE_NONE || t.bytes > 4096) continue;
        tfm_mark mark = tfm_arena_mark(c);
        int64_t count = tfm_count(tfm_to_f32(c, t.tensor));
        fault_unless(!tfm_type_block(t.tensor.type) || tfm_status_of(c) != TFM_OK || count == tfm_count(t.tensor),
                     "elements got lost");
        if (count < 4096) tfm_sum(c, tfm_reshape(c, t.tensor, tfm_shape1(count)), 0);
        tfm_clear(c);
        tfm_arena_rewind(c, mark);
    }
    for (int64_t i = 0; tfm_file_meta_at(f, i, &key, &v); i++) {
        char *name = text_of(key);
        fault_unless(tfm_file_meta(f, name, &v), "a key that is not found");
        free(name);
        use_value(&v);
    }
    tfm_context_free(c);
}
HOSTILE_FN void use_tokenizer(tfm_context *c, const tfm_tokenizer *t) {
    static const char text[] = "ab <s>Ab\n\xff 12 \xe2\x96\x81<0x41>\xc3\xa9 'll  <|endoftext|>";
    int32_t ids[128];
    char out[64];
    if (!t) return;
    for (int flags = 0; flags < 4; flags++) {
        tfm_tokenize_opts o = { .add_special = (flags & 1) != 0, .parse_special = (flags & 2) != 0 };
        int64_t n = tfm_tokenize(c, t, text, sizeof text - 1, &o, ids, 128);
        for (int64_t i = 0; i < n && i < 128; i++)
            fault_unless(ids[i] >= 0 && ids[i] < tfm_vocab_size(t), "an id outside of the vocabulary");
        tfm_clear(c);
        fault_unless(tfm_tokenize(c, t, text, sizeof text - 1, &o, ids, n > 0 ? n - 1 : 0) == n,
                     "a count that depends on room");
        tfm_clear(c);
        fault_unless(tfm_tokenize(c, t, text, sizeof text - 1, &o, NULL, -1) == n, "a count that depends on room");
        tfm_clear(c);
    }
    tfm_tokenize(c, t, "", 0, NULL, ids, 1);
    tfm_clear(c);
    for (int64_t id = -1; id <= tfm_vocab_size(t); id++) {
        tfm_string s = tfm_token_text(t, (int32_t)id);
        int32_t first = tfm_token_find(t, s.data, s.size);
        touch(s.data, s.size);
        fault_unless(first <= id || id < 0, "a later token than the same one");
        for (int special = 0; special < 2; special++) {
            size_t n = tfm_token_bytes(t, (int32_t)id, special != 0, out, sizeof out);
            fault_unless(tfm_token_bytes(t, (int32_t)id, special != 0, NULL, 0) == n, "a size that depends on room");
            touch(out, n < sizeof out ? n : sizeof out);
        }
        hostile_sink = (unsigned)tfm_token_is_end(t, (int32_t)id) + tfm_token_is_control(t, (int32_t)id);
    }
}
HOSTILE_FN bool touch_text(void *user, const char *text, size_t size) {
    (void)user;
    touch(text, size);
    return true;
}
/* Evaluates, generates, rewinds. */
HOSTILE_FN void use_model(const tfm_model *m, const tfm_allocator *a) {
    tfm_session_opts o;
    tfm_generate_opts g;
    tfm_rng rng = { 1 };
    memset(&o, 0, sizeof o);
    memset(&g, 0, sizeof g);
    o.context = 6;
    o.batch = 2;
    o.threads = 1;
    o.prompt_bytes = 16;
    o.allocator = a;
    g.max_tokens = 2;
    g.sampling.temperature = 0.7f;
    g.sampling.top_p = 0.9f;
    tfm_session *s = tfm_session_new(m, &o, NULL);
    if (!s) return;
    tfm_context *c = tfm_session_context(s);
    int32_t vocab = tfm_model_hparams(m)->vocab, ids[3] = { vocab - 1, 0, vocab / 2 };
    if (tfm_eval(s, ids, 3) == TFM_OK) {
        touch(tfm_logits(s), (size_t)vocab * sizeof(float));
        int32_t id = tfm_sample(c, tfm_logits(s), vocab, NULL, ids, 3, &rng);
        fault_unless(id >= 0 && id < vocab, "an id outside of the vocabulary");
        tfm_rewind(s, 1);
        tfm_eval(s, &id, 1);
        tfm_continue(s, &g, touch_text, NULL);
    }
    tfm_clear(c);
    use_tokenizer(c, tfm_model_tokenizer(m));
    tfm_rewind(s, 0);
    tfm_generate(s, "ab", &g, touch_text, NULL);
    tfm_session_free(s);
}

/* ---- Loading and using ---- */

typedef struct hostile {
    tfm_error file, model;              /* how opening went; OK: it was used and freed */
} hostile;

HOSTILE_FN void *exact_buffer(size_t size) {            /* sizes are multiples of TFM_ALIGN */
    void *p = aligned_alloc(TFM_ALIGN, size);
    if (!p) exit(1);
    return p;
}
/* The same in a buffer of the size announced: same verdict, but for the other byte order. */
HOSTILE_FN void use_in_buffers(const uint8_t *p, size_t size, const hostile *h) {
    tfm_error err;
    size_t n = tfm_file_size(p, size, &err);
    bool turned = strstr(err.message, "other byte order") != NULL;
    void *mem = n ? exact_buffer(n) : NULL;
    tfm_file *f = mem ? tfm_file_in(p, size, mem, n, &err) : NULL;
    fault_unless((f != NULL) == (h->file.status == TFM_OK) || turned || h->file.status == TFM_MEMORY,
                 "tfm_file_in differs");
    fault_unless(f || (err.status != TFM_OK && err.message[0]), "tfm_file_in: no reason given");
    if (f) use_file(f);
    free(mem);
    if (h->file.status == TFM_OK && h->model.status == TFM_UNSUPPORTED) return;         /* mostly: no model at all */
    n = tfm_model_size(p, size, &err);
    mem = n ? exact_buffer(n) : NULL;
    tfm_model *m = mem ? tfm_model_in(p, size, mem, n, &err) : NULL;
    fault_unless((m != NULL) == (h->model.status == TFM_OK) || turned || h->model.status == TFM_MEMORY,
                 "tfm_model_in differs");
    fault_unless(m || (err.status != TFM_OK && err.message[0]), "tfm_model_in: no reason given");
    if (m) touch(tfm_model_hparams(m), sizeof *tfm_model_hparams(m));
    free(mem);
}
/* Opens these bytes as a file and as a model, and uses both. */
/* A net, if the file holds one, on zeros, as far as a's memory goes. */
HOSTILE_FN void use_net(const tfm_file *f, const tfm_allocator *a) {
    static const float zeros[4096];
    tfm_error err;
    tfm_context_opts o = { .arena = 4096, .allocator = a };
    tfm_net *n = tfm_net_new(f, a, &err);
    const tfm_net_info *info = tfm_net_info_of(n);
    fault_unless((n != NULL) == (err.status == TFM_OK), "no net, but no error");
    fault_unless((tfm_net_size(f, NULL) > 0) >= (n != NULL), "a net without a size");
    int64_t count = 1;
    for (int i = 0; n && i < info->input.rank; i++) count *= info->input.dim[i] ? info->input.dim[i] : 3;
    tfm_context *c = n && count <= 4096 ? tfm_context_new(&o, NULL) : NULL;
    if (c) {
        tfm_shape s = info->input;
        for (int i = 0; i < s.rank; i++) if (!s.dim[i]) s.dim[i] = 3;
        tfm_tensor y = tfm_net_run(c, n, tfm_wrap_type(c, zeros, info->vocab ? TFM_I32 : TFM_F32, s), NULL);
        fault_unless((y.rank > 0) == (tfm_status_of(c) == TFM_OK), "a net gave nothing, but no error");
        if (y.data) touch(y.data, (size_t)tfm_count(y) * sizeof(float));
    }
    tfm_context_free(c);
    tfm_net_free(n);
}
HOSTILE_FN hostile hostile_use(const void *data, size_t size) {
    hostile h;
    budget b;
    tfm_allocator a = budget_of(&b, size);
    tfm_model_opts o = { .allocator = &a };
    uint8_t *p = odd_copy(data, size);
    tfm_file *f = tfm_file_from_memory(p, size, &a, &h.file);
    fault_unless((f != NULL) == (h.file.status == TFM_OK), "no file, but no error");
    fault_unless(f || h.file.message[0], "no message");
    if (f) use_file(f);
    if (f) use_net(f, &a);
    tfm_file_free(f);
    fault_unless(b.live == 0, "memory left behind by a file");
    tfm_model *m = tfm_model_from_memory(p, size, &o, &h.model);
    fault_unless((m != NULL) == (h.model.status == TFM_OK), "no model, but no error");
    fault_unless(m || h.model.message[0], "no message");
    if (m) {
        b.left += 65536;                /* what a session takes whatever the file */
        use_model(m, &a);
    }
    tfm_model_free(m);
    fault_unless(b.live == 0, "memory left behind by a model");
    use_in_buffers(p, size, &h);
    odd_free(p);
    return h;
}

/* ---- Valid files ---- */

typedef struct buffer { uint8_t *data; size_t size; } buffer;

/* A runnable model of one layer. Key and value heads: one for two query heads. */
typedef struct plan { bool gpt2; tfm_type type; int width, vocab; } plan;

/* in quarters of the width; 0: vocab, or a vector */
typedef struct planned { const char *name; int rows, columns; } planned;

static const planned planned_llama[] = {
    { "token_embd.weight", -1, 4 }, { "blk.0.attn_norm.weight", 0, 4 }, { "blk.0.attn_q.weight", 4, 4 },
    { "blk.0.attn_k.weight", 2, 4 }, { "blk.0.attn_v.weight", 2, 4 }, { "blk.0.attn_output.weight", 4, 4 },
    { "blk.0.ffn_norm.weight", 0, 4 }, { "blk.0.ffn_gate.weight", 4, 4 }, { "blk.0.ffn_up.weight", 4, 4 },
    { "blk.0.ffn_down.weight", 4, 4 }, { "output_norm.weight", 0, 4 }, { NULL, 0, 0 } };
static const planned planned_gpt2[] = {
    { "token_embd.weight", -1, 4 }, { "position_embd.weight", 4, 4 }, { "blk.0.attn_norm.weight", 0, 4 },
    { "blk.0.attn_norm.bias", 0, 4 }, { "blk.0.attn_qkv.weight", 8, 4 }, { "blk.0.attn_qkv.bias", 0, 8 },
    { "blk.0.attn_output.weight", 4, 4 }, { "blk.0.ffn_norm.weight", 0, 4 }, { "blk.0.ffn_up.weight", 4, 4 },
    { "blk.0.ffn_down.weight", 4, 4 }, { "output_norm.weight", 0, 4 }, { "output_norm.bias", 0, 4 },
    { "output.weight", -1, 4 }, { NULL, 0, 0 } };

HOSTILE_FN void plan_tensors(gguf_writer *w, const plan *p, bool data) {
    uint32_t state = 12345;
    for (const planned *t = p->gpt2 ? planned_gpt2 : planned_llama; t->name; t++) {
        int64_t columns = (int64_t)t->columns * p->width / 4;
        int64_t rows = t->rows < 0 ? p->vocab : t->rows ? (int64_t)t->rows * p->width / 4 : 1;
        tfm_type type = t->rows ? p->type : TFM_F32;
        if (!data) {
            gguf_tensor(w, t->name, type, t->rows ? tfm_shape2(rows, columns) : tfm_shape1(columns));
            continue;
        }
        size_t bytes = (size_t)(rows * columns / gguf_type_block(type) * gguf_type_bytes(type));
        float *x = (float *)malloc((size_t)(rows * columns) * sizeof *x);
        void *encoded = malloc(bytes);
        if (!x || !encoded) exit(1);
        for (int64_t i = 0; i < rows * columns; i++) {
            state = state * 1664525u + 1013904223u;
            x[i] = (float)(state >> 8) / 16777216.0f - 0.5f + (t->rows ? 0.0f : 1.0f);
        }
        if (!gguf_encode(type, x, encoded, rows * columns)) exit(1);
        gguf_data(w, encoded, bytes);
        free(encoded);
        free(x);
    }
}
HOSTILE_FN void plan_llama_vocabulary(gguf_writer *w) {
    static const char *const texts[] = { "<unk>", "<s>", "</s>", "<0x41>", "\xe2\x96\x81", "a", "b", "ab",
                                         "\xe2\x96\x81\x61",
                                         "<0x0A>", "c", "abc", "", "\xe2\x96\x81\xe2\x96\x81" };
    static const int32_t types[] = { 2, 3, 3, 6, 1, 1, 1, 1, 1, 6, 4, 1, 5, 1 };
    float scores[14];
    tfm_string tokens[14];
    for (int i = 0; i < 14; i++) {
        tokens[i].data = texts[i];
        tokens[i].size = strlen(texts[i]);
        scores[i] = -(float)i;
    }
    gguf_meta_string(w, "tokenizer.ggml.model", "llama");
    gguf_meta_strings(w, "tokenizer.ggml.tokens", tokens, 14);
    gguf_meta_array(w, "tokenizer.ggml.scores", TFM_VALUE_F32, scores, 14);
    gguf_meta_array(w, "tokenizer.ggml.token_type", TFM_VALUE_I32, types, 14);
    gguf_meta_u32(w, "tokenizer.ggml.bos_token_id", 1);
    gguf_meta_u32(w, "tokenizer.ggml.eos_token_id", 2);
    gguf_meta_u32(w, "tokenizer.ggml.unknown_token_id", 0);
    gguf_meta_bool(w, "tokenizer.ggml.add_bos_token", true);
    gguf_meta_bool(w, "tokenizer.ggml.add_eos_token", false);
    gguf_meta_bool(w, "tokenizer.ggml.add_space_prefix", true);
}
HOSTILE_FN void plan_gpt2_vocabulary(gguf_writer *w) {
    static const char *const texts[] = { "<|endoftext|>", "a", "b", "ab", "\xc4\xa0", "\xc4\xa0\x61", "1", "2", "12",
                                         "\xc3\xa9",
                                         "<s>", "A", "\xc4\x8a", "l" };
    static const char *const pairs[] = { "a b", "\xc4\xa0 a", "1 2" };
    tfm_string tokens[14], merges[3];
    for (int i = 0; i < 14; i++) {
        tokens[i].data = texts[i];
        tokens[i].size = strlen(texts[i]);
    }
    for (int i = 0; i < 3; i++) {
        merges[i].data = pairs[i];
        merges[i].size = strlen(pairs[i]);
    }
    gguf_meta_string(w, "tokenizer.ggml.model", "gpt2");
    gguf_meta_string(w, "tokenizer.ggml.pre", "llama-bpe");
    gguf_meta_strings(w, "tokenizer.ggml.tokens", tokens, 14);
    gguf_meta_strings(w, "tokenizer.ggml.merges", merges, 3);
    gguf_meta_u32(w, "tokenizer.ggml.eos_token_id", 0);
    gguf_meta_u32(w, "tokenizer.ggml.unknown_token_id", 13);
}
HOSTILE_FN void plan_keys(gguf_writer *w, const plan *p) {
    uint32_t width = (uint32_t)p->width;
    gguf_meta_string(w, "general.architecture", p->gpt2 ? "gpt2" : "llama");
    gguf_meta_u32(w, "general.alignment", 32);
    if (p->gpt2) {
        gguf_meta_u32(w, "gpt2.context_length", width);
        gguf_meta_u32(w, "gpt2.embedding_length", width);
        gguf_meta_u32(w, "gpt2.block_count", 1);
        gguf_meta_u32(w, "gpt2.feed_forward_length", width);
        gguf_meta_u32(w, "gpt2.attention.head_count", 2);
        gguf_meta_u32(w, "gpt2.attention.head_count_kv", 1);
        gguf_meta_f32(w, "gpt2.attention.layer_norm_epsilon", 1e-5f);
        plan_gpt2_vocabulary(w);
        return;
    }
    gguf_meta_u32(w, "llama.context_length", 16);
    gguf_meta_u32(w, "llama.embedding_length", width);
    gguf_meta_u32(w, "llama.block_count", 1);
    gguf_meta_u32(w, "llama.feed_forward_length", width);
    gguf_meta_u32(w, "llama.attention.head_count", 2);
    gguf_meta_u32(w, "llama.attention.head_count_kv", 1);
    gguf_meta_u32(w, "llama.attention.key_length", width / 2);
    gguf_meta_u32(w, "llama.attention.value_length", width / 2);
    gguf_meta_u32(w, "llama.attention.sliding_window", 8);
    gguf_meta_f32(w, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    gguf_meta_u32(w, "llama.rope.dimension_count", width / 2);
    gguf_meta_f32(w, "llama.rope.freq_base", 10000.0f);
    gguf_meta_string(w, "llama.rope.scaling.type", "yarn");
    gguf_meta_f32(w, "llama.rope.scaling.factor", 2.0f);
    gguf_meta_u32(w, "llama.rope.scaling.original_context_length", 8);
    plan_llama_vocabulary(w);
}
/* About 3 KB with a width of 8 and F16. The vocabulary has 14 tokens. */
HOSTILE_FN buffer hostile_model(const plan *p) {
    gguf_writer w;
    buffer b;
    gguf_begin_memory(&w);
    plan_keys(&w, p);
    plan_tensors(&w, p, false);
    plan_tensors(&w, p, true);
    if (!gguf_finish(&w)) fprintf(stderr, "%s\n", w.error), exit(1);
    b.data = w.bytes.data;
    b.size = w.bytes.size;
    return b;
}

/* A safetensors file: the header's length, the header, data of that many bytes. */
HOSTILE_FN buffer hostile_safetensors(uint64_t length, const char *header, size_t header_size, size_t data_size) {
    buffer b;
    b.size = 8 + header_size + data_size;
    b.data = (uint8_t *)malloc(b.size);
    if (!b.data) exit(1);
    for (int i = 0; i < 8; i++) b.data[i] = (uint8_t)(length >> (8 * i) & 255);
    memcpy(b.data + 8, header, header_size);
    for (size_t i = 0; i < data_size; i++) b.data[8 + header_size + i] = (uint8_t)i;
    return b;
}

#endif
