/* gguf_choose.h - which type each tensor of a quantized model gets.

   It follows llama.cpp's llama-quantize (without an importance matrix), its exceptions included: they
   are the tables and gguf_choose() below. Include it after gguf_write.h.

       gguf_chooser c = { .type = TFM_Q4_K, .arch = "llama", .layers = 22, .tied = true, .attention_count = 22 };
       tfm_type type = gguf_choose(&c, "blk.0.ffn_down.weight", tfm_shape2(2048, 5632), TFM_F32);

   Tensors are asked about in the order of their layers: how many came before decides some. */
#ifndef GGUF_CHOOSE_H
#define GGUF_CHOOSE_H

#include "tools/gguf_write.h"

typedef struct gguf_file_type { const char *name; uint32_t number; tfm_type type; } gguf_file_type;
static const gguf_file_type gguf_file_types[] = {          /* number: general.file_type */
    { "F32", 0, TFM_F32 }, { "Q8_0", 7, TFM_Q8_0 }, { "Q4_0", 2, TFM_Q4_0 }, { "Q4_K_M", 15, TFM_Q4_K },
    { "Q6_K", 18, TFM_Q6_K }, { "F16", 1, TFM_F16 }, { "BF16", 32, TFM_BF16 }, { NULL, 0, TFM_TYPE_NONE }
};

/* Names: a part of a tensor's, or with = in front the whole of it. */
typedef enum gguf_role {
    GGUF_OTHER, GGUF_OUTPUT, GGUF_EMBEDDING, GGUF_ATTENTION_V, GGUF_ATTENTION_K, GGUF_ATTENTION_OUT, GGUF_FFN_DOWN
} gguf_role;

static const struct { const char *name; gguf_role role; } gguf__roles[] = {     /* the first that fits */
    { "=output.weight", GGUF_OUTPUT }, { "=token_embd.weight", GGUF_EMBEDDING },
    { "=per_layer_token_embd.weight", GGUF_EMBEDDING }, { "attn_qkv.weight", GGUF_ATTENTION_V },
    { "attn_kv_b.weight", GGUF_ATTENTION_V }, { "attn_v.weight", GGUF_ATTENTION_V },
    { "attn_k.weight", GGUF_ATTENTION_K }, { "attn_q.weight", GGUF_OTHER },
    { "attn_output.weight", GGUF_ATTENTION_OUT }, { "ffn_up", GGUF_OTHER }, { "ffn_gate", GGUF_OTHER },
    { "ffn_down", GGUF_FFN_DOWN }
};

/* Small or sensitive tensors that keep their type; arch NULL: of all architectures. */
static const struct { const char *name, *arch; } gguf__kept[] = {
    { "_norm.weight", NULL }, { "=position_embd.weight", NULL }, { "=token_types.weight", NULL },
    { "ffn_gate_inp.weight", NULL }, { "ffn_gate_tid2eid.weight", NULL }, { "altup", NULL }, { "laurel", NULL },
    { "per_layer_model_proj", NULL }, { "ssm_conv1d", NULL }, { "shortconv.conv.weight", NULL },
    { "indexer.k_proj.weight", NULL }, { "indexer.q_proj.weight", NULL }, { "time_mix_first.weight", NULL },
    { "time_mix_w0.weight", NULL }, { "time_mix_w1.weight", NULL }, { "time_mix_w2.weight", NULL },
    { "time_mix_v0.weight", NULL }, { "time_mix_v1.weight", NULL }, { "time_mix_v2.weight", NULL },
    { "time_mix_a0.weight", NULL }, { "time_mix_a1.weight", NULL }, { "time_mix_a2.weight", NULL },
    { "time_mix_g1.weight", NULL }, { "time_mix_g2.weight", NULL }, { "time_mix_decay_w1.weight", NULL },
    { "time_mix_decay_w2.weight", NULL }, { "time_mix_lerp_fused.weight", NULL }, { "attn_rel_b.weight", NULL },
    { ".position_embd", NULL }, { "sam.pos_embd", NULL }, { "sam.neck.", NULL }, { "sam.net_", NULL },
    { ".rel_pos", NULL }, { ".patch_embd", NULL }, { ".patch_merger", NULL }, { "a.rvq.codebook", NULL },
    { "mm.a.code_embd", NULL }, { "hc_", "glm5-next" }, { "indexer.attn_q_b", "glm5-next" },
    { "indexer.attn_k", "glm5-next" }, { "indexer.proj", "glm5-next" },
    { "indexer_compressor_gate", "glm5-next" }, { "indexer_compressor_ape", "glm5-next" },
    { "ssm_f_a.weight", "glm5-next" }, { "ssm_f_b.weight", "glm5-next" }, { "ssm_g_a.weight", "glm5-next" },
    { "ssm_g_b.weight", "glm5-next" }, { "ssm_beta.weight", "glm5-next" },
    { "attn_kv_a_mqa.weight", "glm5-next" }, { "attn_k_b.weight", "glm5-next" },
    { "attn_v_b.weight", "glm5-next" }
};
/* Of glm5-next, never below Q8_0. */
static const char *const gguf__precise[] = { "attn_q_a", "attn_q_b", "nextn.eh_proj" };

/* Models of the 70B size: few key/value heads, so that better bits for attn_v cost little. */
static const struct { const char *arch; uint64_t layers; bool grouped; } gguf__large[] = {
    { "llama", 80, true }, { "llama-embed", 80, true }, { "qwen2", 80, false }, { "deci", 80, false },
    { "olmo", 80, false }, { "jais2", 68, false }
};

typedef struct gguf_chooser {
    tfm_type type;                      /* of gguf_file_types */
    char arch[64];
    uint64_t layers, experts;
    bool tied, is_large;                /* tied: the embedding is the output matrix too */
    int64_t attention_count;            /* tensors with the role ATTENTION_V */
    int64_t attention_seen, down_seen;  /* so far; 0 at first */
} gguf_chooser;

/* The type of a name; NULL: none. */
static inline const gguf_file_type *gguf_file_type_named(const char *name) {
    for (const gguf_file_type *t = gguf_file_types; t->name; t++)
        if (strcmp(t->name, name) == 0) return t;
    return NULL;
}
static inline bool gguf__matches(const char *name, const char *pattern) {
    return pattern[0] == '=' ? strcmp(name, pattern + 1) == 0 : strstr(name, pattern) != NULL;
}
static inline gguf_role gguf_role_of(const char *name) {
    for (size_t i = 0; i < sizeof gguf__roles / sizeof *gguf__roles; i++)
        if (gguf__matches(name, gguf__roles[i].name)) return gguf__roles[i].role;
    return GGUF_OTHER;
}
/* The N of "blk.N."; -1: none. */
static inline int gguf_layer_of(const char *name) {
    int layer;
    return sscanf(name, "blk.%9d.", &layer) == 1 ? layer : -1;
}
/* Sets is_large of a chooser whose arch and layers are known. */
static inline void gguf_chooser_heads(gguf_chooser *c, uint64_t heads, uint64_t kv_heads) {
    for (size_t i = 0; i < sizeof gguf__large / sizeof *gguf__large; i++)
        if (strcmp(c->arch, gguf__large[i].arch) == 0 && c->layers == gguf__large[i].layers)
            c->is_large = !gguf__large[i].grouped || heads != kv_heads;
}
static inline bool gguf__is_converted(const gguf_chooser *c, const char *name, tfm_shape shape) {
    size_t length = strlen(name);
    bool matrix = false;
    for (int i = 0; i < shape.rank - 1; i++) matrix = matrix || shape.dim[i] > 1;
    bool weight = length >= 6 && strcmp(name + length - 6, "weight") == 0;
    bool recurrent = strstr(name, ".weight_ih") || strstr(name, ".weight_hh");  /* of a net of layers */
    if (!matrix || !(weight || recurrent)) return false;
    for (size_t i = 0; i < sizeof gguf__kept / sizeof *gguf__kept; i++)
        if (gguf__matches(name, gguf__kept[i].name) &&
            (!gguf__kept[i].arch || strcmp(gguf__kept[i].arch, c->arch) == 0))
            return false;
    return true;
}

/* The first and last eighth of the layers, and every third between. */
static inline bool gguf__more_bits(int64_t layer, int64_t layers) {
    return layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2;
}
static inline tfm_type gguf__choose_attention_v(gguf_chooser *c) {
    tfm_type type = c->type;
    if (type == TFM_Q4_K && gguf__more_bits(c->attention_seen, c->attention_count)) type = TFM_Q6_K;
    if (type == TFM_Q4_K && c->is_large) type = TFM_Q5_K;
    c->attention_seen++;
    return c->experts == 8 ? TFM_Q8_0 : type;
}
static inline tfm_type gguf__choose_ffn_down(gguf_chooser *c, const char *name) {
    int64_t layers = (int64_t)c->layers, layer = c->down_seen++;
    if (c->experts > 1 && gguf_layer_of(name) >= 0) layer = gguf_layer_of(name);
    if (c->type != TFM_Q4_K) return c->type;
    if (strcmp(c->arch, "falcon") == 0)
        return layer < layers / 16 ? TFM_Q6_K : gguf__more_bits(layer, layers) ? TFM_Q5_K : TFM_Q4_K;
    return gguf__more_bits(layer, layers) ? TFM_Q6_K : TFM_Q4_K;
}
/* The type for a quantized file, before rows that are no whole blocks are looked at. */
static inline tfm_type gguf__choose_block(gguf_chooser *c, const char *name, int64_t width) {
    tfm_type type = c->type;
    gguf_role part = gguf_role_of(name);
    bool falcon = strcmp(c->arch, "falcon") == 0;
    if (strcmp(c->arch, "glm5-next") == 0)
        for (size_t i = 0; i < sizeof gguf__precise / sizeof *gguf__precise; i++)
            if (strstr(name, gguf__precise[i])) return TFM_Q8_0;
    if (part == GGUF_OUTPUT || (part == GGUF_EMBEDDING && c->tied))
        return type == TFM_Q8_0 || falcon || width % gguf_type_block(type) ? TFM_Q8_0 : TFM_Q6_K;
    switch (part) {
        case GGUF_ATTENTION_V: return gguf__choose_attention_v(c);
        case GGUF_ATTENTION_K: return c->experts == 8 ? TFM_Q8_0 : type;
        case GGUF_FFN_DOWN: return gguf__choose_ffn_down(c, name);
        case GGUF_ATTENTION_OUT: return type == TFM_Q4_K && c->experts == 8 && !falcon ? TFM_Q5_K : type;
        default: return type;
    }
}
/* What takes the place of a type whose blocks do not fill the rows. */
static inline tfm_type gguf__fallback(tfm_type type, int64_t width) {
    if (width % gguf_type_block(type) == 0) return type;
    if (width % 32) return TFM_F16;
    return type == TFM_Q4_K ? TFM_Q5_0 : type == TFM_Q5_K ? TFM_Q5_1 : TFM_Q8_0;
}
/* The type of a tensor that has the type `now`: that one, if it is not to be converted. */
static inline tfm_type gguf_choose(gguf_chooser *c, const char *name, tfm_shape shape, tfm_type now) {
    int64_t width = shape.dim[shape.rank - 1];
    if (!gguf__is_converted(c, name, shape)) return now;
    return gguf_type_block(c->type) > 1 ? gguf__fallback(gguf__choose_block(c, name, width), width) : c->type;
}

#endif
