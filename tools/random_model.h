/* random_model.h - models of well-known shapes with random weights, for bench: speed does not depend
   on what the weights are. Include it after tfm.h with its implementation, and after cli.h.

       FILE *f = cli_create("smollm.gguf");
       random_model_write(f, "smollm.gguf", random_shape_named("smollm-135m"), gguf_file_type_named("Q4_0"), 1);
       cli_commit(f);

   The types of the tensors are those that quantize would choose. The vocabulary is made up, but well
   formed, so that other engines load the file: its words count a, b ... z, aa, ab ... */
#ifndef RANDOM_MODEL_H
#define RANDOM_MODEL_H

#include "tools/cli.h"
#include "tools/gguf_choose.h"
#include "tools/gguf_write.h"

typedef struct random_shape {
    const char *name, *arch;
    uint32_t width, feed_forward, layers, heads, kv_heads, head_size, vocab, context;
    bool tied;                          /* the embedding is the output matrix too */
    float rope_base;
} random_shape;

static const random_shape random_shapes[] = {
    { "gpt2-124m",      "gpt2",   768, 3072, 12, 12, 12,  64,  50257,  1024, true,  0 },
    { "smollm-135m",    "llama",  576, 1536, 30,  9,  3,  64,  49152,  2048, true,  10000 },
    { "qwen3-0.6b",     "llama", 1024, 3072, 28, 16,  8, 128, 151936, 40960, true,  1000000 },
    { "tinyllama-1.1b", "llama", 2048, 5632, 22, 32,  4,  64,  32000,  2048, false, 10000 },
    { "stories15m",     "llama",  288,  768,  6,  6,  6,  48,  32000,   256, true,  10000 },
    { NULL, NULL, 0, 0, 0, 0, 0, 0, 0, 0, false, 0 }
};

static inline const random_shape *random_shape_named(const char *name) {
    for (const random_shape *s = random_shapes; s->name; s++)
        if (strcmp(s->name, name) == 0) return s;
    return NULL;
}

/* ---- Vocabulary ---- */

typedef struct random__vocab { tfm_string *tokens; char *text; size_t used; } random__vocab;

static inline void random__token(random__vocab *v, uint32_t id, const char *text, size_t size) {
    v->tokens[id].data = memcpy(v->text + v->used, text, size);
    v->tokens[id].size = size;
    v->used += size;
}
/* The n-th word over a..z, n >= 1; every word without its last letter is an earlier word. */
static inline size_t random__word(uint32_t n, char word[16]) {
    char reversed[16];
    size_t size = 0;
    for (; n; n = (n - 1) / 26) reversed[size++] = (char)('a' + (n - 1) % 26);
    for (size_t i = 0; i < size; i++) word[i] = reversed[size - 1 - i];
    return size;
}
/* SentencePiece: unknown, BOS, EOS, the bytes, a space, and words by falling scores. */
static inline void random__vocab_llama(gguf_writer *w, random__vocab *v, uint32_t count) {
    static const char *const special[3] = { "<unk>", "<s>", "</s>" };
    int32_t *types = cli_alloc(count, sizeof *types);
    float *scores = cli_alloc(count, sizeof *scores);
    char text[16];
    for (uint32_t id = 0; id < count; id++) {
        types[id] = id == 0 ? 2 : id < 3 ? 3 : id < 259 ? 6 : 1;           /* unknown, control, byte, normal */
        scores[id] = id < 259 ? 0 : 259 - (float)id;
        if (id < 3) random__token(v, id, special[id], strlen(special[id]));
        else if (id == 259) random__token(v, id, "\xe2\x96\x81", 3);
        else if (id > 259) random__token(v, id, text, random__word(id - 259, text));
        else random__token(v, id, text, (size_t)snprintf(text, sizeof text, "<0x%02X>", (unsigned)id - 3));
    }
    gguf_meta_string(w, "tokenizer.ggml.model", "llama");
    gguf_meta_string(w, "tokenizer.ggml.pre", "default");
    gguf_meta_strings(w, "tokenizer.ggml.tokens", v->tokens, count);
    gguf_meta_array(w, "tokenizer.ggml.scores", TFM_VALUE_F32, scores, count);
    gguf_meta_array(w, "tokenizer.ggml.token_type", TFM_VALUE_I32, types, count);
    gguf_meta_u32(w, "tokenizer.ggml.bos_token_id", 1);
    gguf_meta_u32(w, "tokenizer.ggml.eos_token_id", 2);
    gguf_meta_u32(w, "tokenizer.ggml.unknown_token_id", 0);
    free(scores);
    free(types);
}
/* A byte in GPT-2's alphabet: printable Latin-1 as it is, the other 68 from U+0100 on. */
static inline size_t random__byte(unsigned byte, char text[2]) {
    unsigned c = byte < 33 ? 256 + byte : byte < 127 ? byte : byte < 161 ? 289 + byte - 127 : byte == 173 ? 323 : byte;
    text[0] = (char)(c < 128 ? c : 0xc0 | c >> 6);
    text[1] = (char)(0x80 | (c & 63));
    return c < 128 ? 1 : 2;
}
/* Byte-level BPE: the bytes, words of two letters and more, each a merge, and the end of text. */
static inline void random__vocab_gpt2(gguf_writer *w, random__vocab *v, uint32_t count) {
    tfm_string *merges = cli_alloc(count, sizeof *merges);
    int32_t *types = cli_alloc(count, sizeof *types);
    char text[16];
    size_t merge_count = 0;
    for (uint32_t id = 0; id < count; id++) {
        types[id] = id + 1 < count ? 1 : 3;
        if (id < 256) random__token(v, id, text, random__byte(id, text));
        else if (id + 1 == count) random__token(v, id, "<|endoftext|>", 13);
        else random__token(v, id, text, random__word(id - 256 + 27, text));
    }
    for (uint32_t id = 256; id + 1 < count; id++) {
        tfm_string *m = &merges[merge_count++];
        m->size = v->tokens[id].size + 1;
        char *p = v->text + v->used;
        v->used += m->size;
        memcpy(p, v->tokens[id].data, m->size - 2);
        p[m->size - 2] = ' ';
        p[m->size - 1] = v->tokens[id].data[m->size - 2];
        m->data = p;
    }
    gguf_meta_string(w, "tokenizer.ggml.model", "gpt2");
    gguf_meta_string(w, "tokenizer.ggml.pre", "gpt-2");
    gguf_meta_strings(w, "tokenizer.ggml.tokens", v->tokens, count);
    gguf_meta_array(w, "tokenizer.ggml.token_type", TFM_VALUE_I32, types, count);
    gguf_meta_strings(w, "tokenizer.ggml.merges", merges, merge_count);
    gguf_meta_u32(w, "tokenizer.ggml.bos_token_id", count - 1);
    gguf_meta_u32(w, "tokenizer.ggml.eos_token_id", count - 1);
    free(types);
    free(merges);
}

/* ---- Tensors ---- */

/* Dimensions: V vocabulary, C context, D width, F feed-forward, Q and K the queries' and the keys'
   width, A both with the values'. rows 0: a vector. In models of arch, NULL being all. The first few
   stand outside of the layers. */
static const struct { const char *name, *arch; char rows, columns; bool untied; } random__parts[] = {
    { "token_embd.weight", NULL, 'V', 'D', false }, { "position_embd.weight", "gpt2", 'C', 'D', false },
    { "output_norm.weight", NULL, 0, 'D', false }, { "output_norm.bias", "gpt2", 0, 'D', false },
    { "output.weight", NULL, 'V', 'D', true },
    { "attn_norm.weight", NULL, 0, 'D', false }, { "attn_norm.bias", "gpt2", 0, 'D', false },
    { "attn_q.weight", "llama", 'Q', 'D', false }, { "attn_k.weight", "llama", 'K', 'D', false },
    { "attn_v.weight", "llama", 'K', 'D', false }, { "attn_qkv.weight", "gpt2", 'A', 'D', false },
    { "attn_qkv.bias", "gpt2", 0, 'A', false }, { "attn_output.weight", NULL, 'D', 'Q', false },
    { "attn_output.bias", "gpt2", 0, 'D', false }, { "ffn_norm.weight", NULL, 0, 'D', false },
    { "ffn_norm.bias", "gpt2", 0, 'D', false }, { "ffn_gate.weight", "llama", 'F', 'D', false },
    { "ffn_up.weight", NULL, 'F', 'D', false }, { "ffn_up.bias", "gpt2", 0, 'F', false },
    { "ffn_down.weight", NULL, 'D', 'F', false }, { "ffn_down.bias", "gpt2", 0, 'D', false }
};
enum { RANDOM_OUTSIDE = 5, RANDOM_PARTS = sizeof random__parts / sizeof *random__parts };

typedef struct random__tensor { char name[64]; tfm_type type; tfm_shape shape; } random__tensor;

static inline int64_t random__dimension(const random_shape *s, char letter) {
    uint32_t q = s->heads * s->head_size, k = s->kv_heads * s->head_size;
    switch (letter) {
        case 'V': return s->vocab;
        case 'C': return s->context;
        case 'D': return s->width;
        case 'F': return s->feed_forward;
        case 'Q': return q;
        case 'K': return k;
        default: return q + 2 * k;
    }
}
/* All tensors of a model, layer by layer; returns how many they are. */
static inline int64_t random__tensors(const random_shape *s, const gguf_file_type *type, random__tensor *out) {
    gguf_chooser c = { .type = type->type, .layers = s->layers, .tied = s->tied, .attention_count = s->layers };
    int64_t count = 0;
    snprintf(c.arch, sizeof c.arch, "%s", s->arch);
    gguf_chooser_heads(&c, s->heads, s->kv_heads);
    for (int layer = -1; layer < (int)s->layers; layer++)                   /* -1: outside */
        for (int i = layer < 0 ? 0 : RANDOM_OUTSIDE; i < (layer < 0 ? RANDOM_OUTSIDE : RANDOM_PARTS); i++) {
            if (random__parts[i].untied && s->tied) continue;
            if (random__parts[i].arch && strcmp(random__parts[i].arch, s->arch) != 0) continue;
            random__tensor *t = &out[count++];
            int64_t rows = random__dimension(s, random__parts[i].rows);
            int64_t columns = random__dimension(s, random__parts[i].columns);
            if (layer < 0) snprintf(t->name, sizeof t->name, "%s", random__parts[i].name);
            else snprintf(t->name, sizeof t->name, "blk.%d.%s", layer, random__parts[i].name);
            t->shape.rank = random__parts[i].rows ? 2 : 1;
            t->shape.dim[0] = random__parts[i].rows ? rows : columns;
            t->shape.dim[1] = columns;
            t->type = gguf_choose(&c, t->name, t->shape, TFM_F32);
        }
    return count;
}

/* ---- Weights: pieces of one pool of normally distributed numbers, encoded once for each type and
   width, so that every sum over a row has about the variance of what goes in. ---- */

enum { RANDOM_POOL = 65536, RANDOM_POOLS = 16 };

typedef struct random__pools {
    float values[RANDOM_POOL], scaled[RANDOM_POOL];
    tfm_rng rng;
    int next;
    struct { tfm_type type; int64_t width; uint8_t *bytes; } pool[RANDOM_POOLS];   /* bytes: twice in a row */
} random__pools;

static inline random__pools *random__pools_new(uint64_t seed) {
    random__pools *p = cli_alloc(1, sizeof *p);
    p->rng.state = seed;
    for (int i = 0; i < RANDOM_POOL; i++) {                /* a sum of four uniform numbers, of variance 1 */
        uint64_t u = tfm_random(&p->rng);
        uint32_t sum = (uint32_t)(u & 0xffff) + (uint32_t)(u >> 16 & 0xffff) + (uint32_t)(u >> 32 & 0xffff) +
                       (uint32_t)(u >> 48);
        p->values[i] = ((float)sum / 65536 - 2) * 1.7320508f;
    }
    return p;
}
static inline const uint8_t *random__pool(random__pools *p, tfm_type type, int64_t width) {
    for (int i = 0; i < RANDOM_POOLS; i++)
        if (p->pool[i].bytes && p->pool[i].type == type && p->pool[i].width == width) return p->pool[i].bytes;
    int at = p->next++ % RANDOM_POOLS;
    size_t size = (size_t)(RANDOM_POOL / gguf_type_block(type) * gguf_type_bytes(type));
    free(p->pool[at].bytes);
    p->pool[at].bytes = cli_alloc(2, size);
    p->pool[at].type = type;
    p->pool[at].width = width;
    for (int i = 0; i < RANDOM_POOL; i++) p->scaled[i] = p->values[i] / sqrtf((float)width);
    gguf_encode(type, p->scaled, p->pool[at].bytes, RANDOM_POOL);
    memcpy(p->pool[at].bytes + size, p->pool[at].bytes, size);
    return p->pool[at].bytes;
}
static inline void random__data(gguf_writer *w, random__pools *p, const random__tensor *t) {
    if (t->shape.rank == 1) {                              /* a norm's weights are 1, biases 0 */
        float *v = cli_alloc((size_t)t->shape.dim[0], sizeof *v);
        bool ones = strstr(t->name, "norm.weight") != NULL;
        for (int64_t i = 0; i < t->shape.dim[0]; i++) v[i] = ones;
        gguf_data(w, v, (size_t)t->shape.dim[0] * sizeof *v);
        free(v);
        return;
    }
    const uint8_t *pool = random__pool(p, t->type, t->shape.dim[1]);
    size_t block = (size_t)gguf_type_bytes(t->type), blocks = (size_t)(RANDOM_POOL / gguf_type_block(t->type));
    uint64_t left = 0;
    gguf_tensor_bytes(t->type, t->shape, &left);
    while (left && !w->error[0]) {
        uint64_t n = left < blocks * block ? left : blocks * block;
        gguf_data(w, pool + tfm_random(&p->rng) % blocks * block, (size_t)n);
        left -= n;
    }
}

/* ---- The file ---- */

static inline void random__metadata(gguf_writer *w, const random_shape *s, const gguf_file_type *type) {
    char name[80];
    bool rotary = strcmp(s->arch, "llama") == 0;
    const struct { const char *key; uint32_t value; bool rotary; } numbers[] = {
        { "context_length", s->context, false }, { "embedding_length", s->width, false },
        { "block_count", s->layers, false }, { "feed_forward_length", s->feed_forward, false },
        { "attention.head_count", s->heads, false }, { "attention.head_count_kv", s->kv_heads, false },
        { "attention.key_length", s->head_size, true }, { "attention.value_length", s->head_size, true },
        { "rope.dimension_count", s->head_size, true }, { "vocab_size", s->vocab, false }
    };
    gguf_meta_string(w, "general.architecture", s->arch);
    snprintf(name, sizeof name, "random %s", s->name);
    gguf_meta_string(w, "general.name", name);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        if (numbers[i].rotary && !rotary) continue;
        snprintf(name, sizeof name, "%s.%s", s->arch, numbers[i].key);
        gguf_meta_u32(w, name, numbers[i].value);
    }
    snprintf(name, sizeof name, "%s.attention.layer_norm_%sepsilon", s->arch, rotary ? "rms_" : "");
    gguf_meta_f32(w, name, 1e-5f);
    if (rotary) gguf_meta_f32(w, "llama.rope.freq_base", s->rope_base);
    gguf_meta_u32(w, "general.quantization_version", 2);
    gguf_meta_u32(w, "general.file_type", type->number);
}
/* Writes the whole file; path is for messages. The same seed gives the same file. */
static inline void random_model_write(FILE *f, const char *path, const random_shape *s, const gguf_file_type *type,
                                      uint64_t seed) {
    gguf_writer w;
    random__tensor *tensors = cli_alloc((size_t)(s->layers + 1) * RANDOM_PARTS, sizeof *tensors);
    random__vocab v = { cli_alloc(s->vocab, sizeof *v.tokens), cli_alloc(s->vocab, 16), 0 };
    random__pools *pools = random__pools_new(seed);
    int64_t count = random__tensors(s, type, tensors);
    gguf_begin_file(&w, f);
    random__metadata(&w, s, type);
    (strcmp(s->arch, "gpt2") == 0 ? random__vocab_gpt2 : random__vocab_llama)(&w, &v, s->vocab);
    for (int64_t i = 0; i < count; i++) gguf_tensor(&w, tensors[i].name, tensors[i].type, tensors[i].shape);
    for (int64_t i = 0; i < count; i++) {
        random__data(&w, pools, &tensors[i]);
        if (i + 1 < count) cli_progress("written", i, count);
    }
    cli_progress("written", count, count);
    if (!gguf_finish(&w)) cli_fail_at(path, w.error);
    for (int i = 0; i < RANDOM_POOLS; i++) free(pools->pool[i].bytes);
    free(pools);
    free(v.text);
    free(v.tokens);
    free(tensors);
}

#endif
