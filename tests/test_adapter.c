/* LoRA adapters: against transformers with merged weights, and what must hold for any. */
#include "models.h"

#define REL 1e-5

static tfm_session *session(const tfm_model *m, tfm_session_opts o) {
    tfm_error err;
    if (!o.threads) o.threads = 1;
    tfm_session *s = tfm_session_new(m, &o, &err);
    CHECK_STR(err.message, "");
    return s;
}
static tfm_file *open_file(const char *path) {
    tfm_error err;
    tfm_file *f = tfm_file_open(path, NULL, &err);
    CHECK_STR(err.message, "");
    return f;
}

/* ---- transformers ---- */

enum { PROMPT = 24, VOCAB = 96, LOGITS = PROMPT * VOCAB };

static int64_t numbers(const tfm_file *f, const char *key, float *out, int64_t capacity) {
    tfm_value array, v;
    int64_t n = 0;
    double d = 0;
    if (!tfm_file_meta(f, key, &array)) return 0;
    while (n < capacity && tfm_value_next(&array, &v) && tfm_value_f64(&v, &d)) out[n++] = (float)d;
    return n;
}
typedef struct subject {
    tfm_model *m;
    tfm_file *files[2];
    const tfm_file *adapters[2];
    float scales[2], logits[LOGITS];
    int32_t ids[PROMPT];
    int count;
} subject;

/* The last adapter's file says what is expected of all. */
static bool open_subject(subject *s, const char *model, const char *first, const char *second) {
    float ids[PROMPT];
    memset(s, 0, sizeof *s);
    s->m = tfm_model_open(model, NULL, NULL);
    s->files[s->count++] = open_file(first);
    if (second) s->files[s->count++] = open_file(second);
    const tfm_file *f = s->files[s->count - 1];
    if (!CHECK(s->m && f) || !CHECK_EQ(numbers(f, "test.prompt", ids, PROMPT), PROMPT) ||
        !CHECK_EQ(numbers(f, "test.logits", s->logits, LOGITS), LOGITS)) return false;
    if (!numbers(f, "test.scales", s->scales, 2)) s->scales[0] = 1;
    for (int i = 0; i < PROMPT; i++) s->ids[i] = (int32_t)ids[i];
    for (int i = 0; i < 2; i++) s->adapters[i] = s->files[i];
    return true;
}
static void close_subject(subject *s) {
    tfm_model_free(s->m);
    for (int i = 0; i < 2; i++) tfm_file_free(s->files[i]);
}
static const struct { const char *model, *first, *second; } cases[] = {
    { "tests/data/tiny-llama.gguf", "tests/data/lora-llama.gguf", NULL },
    { "tests/data/tiny-llama.gguf", "tests/data/lora-llama.gguf", "tests/data/lora-llama-2.gguf" },
    { "tests/data/tiny-gpt2.gguf", "tests/data/lora-gpt2.gguf", NULL } };       /* with fused Q, K and V */
enum { CASES = 3 };

/* The same for any threads, batches and levels. */
static void as_merged_by_transformers(void) {
    for (int i = 0; i < CASES; i++) {
        subject s;
        float first[LOGITS];
        bool any = false;
        if (!open_subject(&s, cases[i].model, cases[i].first, cases[i].second)) return;
        for (int level = TFM_LEVEL_EXACT; level < TFM_LEVEL_COUNT; level++) {
            if (!tfm_level_available((tfm_level)level)) continue;
            for (int batch = 1; batch <= PROMPT; batch += 23) {
                float got[LOGITS];
                tfm_session *t = session(s.m, (tfm_session_opts){ .batch = batch, .threads = 1 + level % 3,
                    .level = (tfm_level)level, .all_logits = true, .adapters = s.adapters, .adapter_scales = s.scales,
                    .adapter_count = s.count });
                for (int at = 0; at < PROMPT; at += batch) {
                    CHECK_EQ(tfm_eval(t, s.ids + at, batch), TFM_OK);
                    memcpy(got + at * VOCAB, tfm_logits_at(t, 0), (size_t)batch * VOCAB * sizeof *got);
                }
                CHECK_NEAR(got, s.logits, LOGITS, REL);
                if (any) CHECK_SAME(got, first, LOGITS);
                else memcpy(first, got, sizeof got);
                any = true;
                tfm_session_free(t);
            }
        }
        if (i == 0) test_hash("adapter", first, sizeof first);
        close_subject(&s);
    }
}
/* A scale of 0 is the plain model; scales change what is evaluated from then on. */
static void scales(void) {
    subject s;
    if (!open_subject(&s, cases[1].model, cases[1].first, cases[1].second)) return;
    tfm_session_opts o = { .adapters = s.adapters, .adapter_count = 2 };
    tfm_session *t = session(s.m, o), *plain = session(s.m, (tfm_session_opts){ .context = 0 });
    CHECK_EQ(tfm_adapter_scale(t, 0, 0), TFM_OK);
    CHECK_EQ(tfm_adapter_scale(t, 1, 0), TFM_OK);
    CHECK_EQ(tfm_eval(t, s.ids, PROMPT), TFM_OK);
    CHECK_EQ(tfm_eval(plain, s.ids, PROMPT), TFM_OK);
    CHECK_SAME(tfm_logits(t), tfm_logits(plain), VOCAB);
    CHECK_EQ(tfm_rewind(t, 0), TFM_OK);
    for (int i = 0; i < 2; i++) CHECK_EQ(tfm_adapter_scale(t, i, s.scales[i]), TFM_OK);
    CHECK_EQ(tfm_eval(t, s.ids, PROMPT), TFM_OK);
    CHECK_NEAR(tfm_logits(t), s.logits + LOGITS - VOCAB, VOCAB, REL);
    /* a state belongs to the adapters that made it, and to their scales */
    size_t size = tfm_session_save(t, NULL, 0);
    void *state = malloc(size);
    CHECK_EQ(tfm_session_save(t, state, size), size);
    CHECK_EQ(tfm_session_load(plain, state, size), TFM_MISMATCH);
    CHECK_CONTAINS(tfm_message(tfm_session_context(plain)), "state: its set of adapters (a hash) is ");
    CHECK_EQ(tfm_adapter_scale(t, 1, 1), TFM_OK);
    CHECK_EQ(tfm_session_load(t, state, size), TFM_MISMATCH);
    tfm_clear(tfm_session_context(t));
    CHECK_EQ(tfm_adapter_scale(t, 1, s.scales[1]), TFM_OK);
    CHECK_EQ(tfm_session_load(t, state, size), TFM_OK);
    const struct { int index; float scale; } wrong[] = { { -1, 1 }, { 2, 1 }, { 0, NAN }, { 0, INFINITY } };
    for (int i = 0; i < 4; i++) {
        CHECK_EQ(tfm_adapter_scale(t, wrong[i].index, wrong[i].scale), TFM_ARGUMENT);
        CHECK_CONTAINS(tfm_message(tfm_session_context(t)), "there are 2 adapters");
        tfm_clear(tfm_session_context(t));
    }
    CHECK_EQ(tfm_adapter_scale(NULL, 0, 1), TFM_ARGUMENT);
    free(state);
    tfm_session_free(t);
    tfm_session_free(plain);
    close_subject(&s);
}
/* Exactly the bytes announced suffice, in the caller's memory, for every position. */
static void exact_memory(void) {
    for (int i = 0; i < CASES; i++)
        for (int batch = 1; batch <= 16; batch += 5) {
            subject s;
            tfm_error err;
            if (!open_subject(&s, cases[i].model, cases[i].first, cases[i].second)) return;
            tfm_session_opts o = { .context = 60, .batch = batch, .threads = 2, .prompt_bytes = 1 }, plain = o;
            o.adapters = s.adapters;
            o.adapter_count = s.count;
            size_t need = tfm_session_size(s.m, &o, NULL, &err);
            CHECK(need > tfm_session_size(s.m, &plain, NULL, &err));
            char *mem = (char *)malloc(need + TFM_ALIGN);
            char *at = mem + (TFM_ALIGN - (uintptr_t)mem % TFM_ALIGN);
            CHECK(tfm_session_in(s.m, &o, at, need - 1, &err) == NULL);
            tfm_session *t = tfm_session_in(s.m, &o, at, need, &err);
            CHECK_STR(err.message, "");
            int32_t ids[60] = { 5, 4, 3, 2, 1 };
            CHECK_EQ(tfm_eval(t, ids, 59), TFM_OK);
            CHECK_EQ(tfm_eval(t, ids, 1), TFM_OK);
            CHECK_STR(tfm_message(tfm_session_context(t)), "");
            tfm_session_free(t);
            free(mem);
            close_subject(&s);
        }
}

/* ---- Made here ---- */

typedef struct part { const char *name; tfm_type type; tfm_shape shape; } part;
typedef struct keys { const char *general, *adapter, *architecture; float alpha; bool alora; } keys;

/* An adapter of random numbers, in malloc'd memory; its values in *values, which may be NULL. */
static uint8_t *make_adapter(keys k, const part *parts, int count, size_t *size) {
    gguf_writer w;
    uint64_t seed = 11;
    float alpha = k.alpha;
    gguf_begin_memory(&w);
    if (k.general) gguf_meta_string(&w, "general.type", k.general);
    if (k.adapter) gguf_meta_string(&w, "adapter.type", k.adapter);
    if (k.architecture) gguf_meta_string(&w, "general.architecture", k.architecture);
    gguf_meta_f32(&w, "adapter.lora.alpha", alpha);
    if (k.alora) gguf_meta_u32(&w, "adapter.alora.invocation_tokens", 1);
    for (int i = 0; i < count; i++) gguf_tensor(&w, parts[i].name, parts[i].type, parts[i].shape);
    for (int i = 0; i < count; i++) {
        int64_t n = 1;
        for (int d = 0; d < parts[i].shape.rank; d++) n *= parts[i].shape.dim[d];
        float *x = (float *)malloc((size_t)n * 4);
        for (int64_t j = 0; j < n; j++) x[j] = 0.2f * test_uniform(&seed);
        gguf_data(&w, x, (size_t)(n * tfm_type_bytes(parts[i].type)));
        free(x);
    }
    CHECK(gguf_finish(&w));
    CHECK_STR(w.error, "");
    *size = w.bytes.size;
    return w.bytes.data;
}
static const keys good = { "adapter", "lora", "llama", 6, false },
                  no_adapter = { NULL, "lora", "llama", 1, false },
                  dora = { "adapter", "dora", "llama", 1, false }, gpt2 = { "adapter", "lora", "gpt2", 1, false },
                  no_number = { "adapter", "lora", "llama", NAN, false },
                  alora = { "adapter", "lora", "llama", 1, true };

/* W += alpha / r B A in the bytes of a model. */
static void merge(uint8_t *model, const tfm_file *of, const tfm_file *adapter, const char *name, float alpha) {
    char a_name[96], b_name[96];
    tfm_tensor_info w, a, b;
    snprintf(a_name, sizeof a_name, "%s.lora_a", name);
    snprintf(b_name, sizeof b_name, "%s.lora_b", name);
    if (!CHECK(tfm_file_tensor(of, name, &w) && tfm_file_tensor(adapter, a_name, &a) &&
               tfm_file_tensor(adapter, b_name, &b))) return;
    int rank = w.tensor.rank;
    int64_t experts = rank == 3 ? w.tensor.dim[0] : 1, out = w.tensor.dim[rank - 2], in = w.tensor.dim[rank - 1],
            r = a.tensor.dim[rank - 2];
    const float *x = (const float *)a.tensor.data, *y = (const float *)b.tensor.data;
    for (int64_t i = 0; i < experts * out * in; i++) {
        int64_t e = i / (out * in), row = i / in % out, column = i % in;
        double sum = 0;
        float value;
        for (int64_t k = 0; k < r; k++)
            sum += (double)y[(e * out + row) * r + k] * (double)x[(e * r + k) * in + column];
        memcpy(&value, model + w.offset + 4 * i, 4);
        value = (float)((double)value + sum * (double)alpha / (double)r);
        memcpy(model + w.offset + 4 * i, &value, 4);
    }
}
/* Experts and their router, as the model with merged weights. */
static void experts(void) {
    static const part parts[] = {
        { "blk.0.ffn_gate_exps.weight.lora_a", TFM_F32, { 3, { 5, 3, 64, 0 } } },
        { "blk.0.ffn_gate_exps.weight.lora_b", TFM_F32, { 3, { 5, 96, 3, 0 } } },
        { "blk.1.ffn_down_exps.weight.lora_b", TFM_F32, { 3, { 5, 64, 2, 0 } } },
        { "blk.1.ffn_down_exps.weight.lora_a", TFM_F32, { 3, { 5, 2, 96, 0 } } },
        { "blk.1.ffn_gate_inp.weight.lora_a", TFM_F32, { 2, { 4, 64, 0, 0 } } },
        { "blk.1.ffn_gate_inp.weight.lora_b", TFM_F32, { 2, { 5, 4, 0, 0 } } } };
    recipe r = { .layers = 2, .width = 64, .ff = 96, .heads = 4, .kv_heads = 2, .vocab = 90, .context = 50,
                 .experts = 5 };
    made m = make(&r), merged = { NULL, NULL };
    size_t size, model_size;
    uint8_t *bytes = make_adapter(good, parts, 6, &size), *copy = make_model(&r, &model_size);
    tfm_file *f = tfm_file_from_memory(bytes, size, NULL, NULL);
    const tfm_file *files[] = { f };
    for (int i = 0; i < 6; i += 2) {
        char name[96];
        snprintf(name, sizeof name, "%.*s", (int)strlen(parts[i].name) - 7, parts[i].name);
        merge(copy, tfm_model_file(m.m), f, name, good.alpha);
    }
    merged.m = tfm_model_from_memory(copy, model_size, NULL, NULL);
    tfm_session_opts o = { .context = 40, .all_logits = true };
    tfm_session *b = session(merged.m, o), *plain = session(m.m, o);
    o.adapters = files;
    o.adapter_count = 1;
    tfm_session *a = session(m.m, o);
    int32_t ids[40];
    for (int i = 0; i < 40; i++) ids[i] = (i * 37 + i * i) % 90;
    CHECK(tfm_eval(a, ids, 40) == TFM_OK && tfm_eval(b, ids, 40) == TFM_OK && tfm_eval(plain, ids, 40) == TFM_OK);
    CHECK_NEAR(tfm_logits_at(a, 0), tfm_logits_at(b, 0), 40 * 90, REL);
    CHECK(memcmp(tfm_logits(a), tfm_logits(plain), 90 * sizeof(float)) != 0);
    tfm_session_free(a);
    tfm_session_free(b);
    tfm_session_free(plain);
    tfm_file_free(f);
    free(bytes);
    tfm_model_free(merged.m);
    free(copy);
    unmake(&m);
}
static void wrong_adapters(void) {
#define PAIR(name, a0, a1, b0, b1) { { name ".lora_a", TFM_F32, { 2, { a0, a1, 0, 0 } } }, \
                                     { name ".lora_b", TFM_F32, { 2, { b0, b1, 0, 0 } } } }
    static const struct { const keys *k; part parts[2]; int count; tfm_status status; const char *message; } rows[] = {
        { &no_adapter, PAIR("blk.0.attn_q.weight", 4, 64, 64, 4), 2, TFM_MISMATCH,
          "adapter: general.type is \"\", \"adapter\" needed" },
        { &dora, PAIR("blk.0.attn_q.weight", 4, 64, 64, 4), 2, TFM_MISMATCH,
          "adapter: adapter.type is \"dora\", \"lora\" needed" },
        { &gpt2, PAIR("blk.0.attn_q.weight", 4, 64, 64, 4), 2, TFM_MISMATCH,
          "adapter: general.architecture is \"gpt2\", \"llama\" needed" },
        { &no_number, PAIR("blk.0.attn_q.weight", 4, 64, 64, 4), 2, TFM_MISMATCH,
          "adapter.lora.alpha: not a number in its range" },
        { &alora, PAIR("blk.0.attn_q.weight", 4, 64, 64, 4), 2, TFM_UNSUPPORTED,
          "adapter.alora.invocation_tokens: such adapters are not supported" },
        { &good, PAIR("blk.2.attn_q.weight", 4, 64, 64, 4), 2, TFM_MISMATCH,
          "blk.2.attn_q.weight.lora_a: the model has no tensor blk.2.attn_q.weight" },
        { &good, PAIR("attn", 4, 64, 64, 4), 2, TFM_MISMATCH,
          "attn.lora_a: the model has no tensor attn" },
        { &good, PAIR("token_embd.weight", 4, 64, 90, 4), 2, TFM_UNSUPPORTED,
          "token_embd.weight.lora_a: token_embd.weight is not the weight of a dense layer" },
        { &good, PAIR("blk.0.attn_norm.weight", 4, 64, 64, 4), 2, TFM_UNSUPPORTED,
          "blk.0.attn_norm.weight.lora_a: blk.0.attn_norm.weight is not the weight of a dense layer" },
        { &good, PAIR("blk.0.attn_k.weight", 4, 64, 32, 4), 1, TFM_MISMATCH,
          "blk.0.attn_k.weight.lora_a: the other half of the pair is missing" },
        { &good, PAIR("blk.0.attn_k.weight", 4, 63, 32, 4), 2, TFM_MISMATCH,
          "blk.0.attn_k.weight.lora_a: 4x63 in the file, 4x64 needed" },
        { &good, PAIR("blk.0.attn_k.weight", 4, 64, 64, 4), 2, TFM_MISMATCH,
          "blk.0.attn_k.weight.lora_b: 64x4 in the file, 32x4 needed" },
        { &good, PAIR("blk.0.attn_k.weight", 4, 64, 32, 3), 2, TFM_MISMATCH,
          "blk.0.attn_k.weight.lora_b: 32x3 in the file, 32x4 needed" },
        { &good, PAIR("blk.0.attn_k.weight", 0, 64, 32, 0), 2, TFM_MISMATCH,
          "blk.0.attn_k.weight.lora_a: 0x64 in the file, 1x64 needed" },
        { &good,
          { { "blk.0.attn_k.weight.lora_a", TFM_F32, { 1, { 64, 0, 0, 0 } } },
            { "blk.0.attn_k.weight.lora_b", TFM_F32, { 2, { 32, 1, 0, 0 } } } }, 2, TFM_MISMATCH,
          "blk.0.attn_k.weight.lora_a: 64 in the file, 1x64 needed" },
        { &good,
          { { "blk.0.attn_k.weight.lora_a", TFM_I32, { 2, { 2, 64, 0, 0 } } },
            { "blk.0.attn_k.weight.lora_b", TFM_F32, { 2, { 32, 2, 0, 0 } } } }, 2, TFM_UNSUPPORTED,
          "blk.0.attn_k.weight.lora_a: type I32 is not supported" },
        { &good,
          { { "blk.0.attn_k.weight", TFM_F32, { 2, { 2, 64, 0, 0 } } } }, 1, TFM_UNSUPPORTED,
          "blk.0.attn_k.weight: neither .lora_a nor .lora_b of a weight" },
        { &good, { { ".lora_a", TFM_F32, { 2, { 2, 64, 0, 0 } } } }, 1,
          TFM_UNSUPPORTED, ".lora_a: neither .lora_a nor .lora_b of a weight" } };
#undef PAIR
    recipe r = { .layers = 2, .width = 64, .ff = 96, .heads = 4, .kv_heads = 2, .vocab = 90, .context = 50 };
    made m = make(&r);
    tfm_error err;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        size_t size;
        uint8_t *bytes = make_adapter(*rows[i].k, rows[i].parts, rows[i].count, &size);
        tfm_file *f = tfm_file_from_memory(bytes, size, NULL, &err);
        const tfm_file *files[] = { f };
        tfm_session_opts o = { .threads = 1, .adapters = files, .adapter_count = 1 };
        CHECK(f != NULL);
        CHECK(tfm_session_new(m.m, &o, &err) == NULL);
        CHECK_STR(err.message, rows[i].message);
        CHECK_EQ(err.status, rows[i].status);
        CHECK_EQ(tfm_session_size(m.m, &o, NULL, &err), 0);
        tfm_file_free(f);
        free(bytes);
    }
    unmake(&m);
}
static void wrong_options(void) {
    recipe r = { .layers = 2, .width = 64, .ff = 96, .heads = 4, .kv_heads = 2, .vocab = 90, .context = 50 };
    made m = make(&r);
    tfm_error err;
    const tfm_file *none[] = { NULL }, *model[] = { tfm_model_file(m.m) };
    const float nan[] = { NAN };
    const struct { tfm_session_opts o; const char *message; } wrong[] = {
        { { .adapter_count = 1 }, "session: 1 adapters" },
        { { .adapters = model, .adapter_count = -1 }, "-1 adapters" },
        { { .adapters = none, .adapter_count = 1 }, "adapter 0 is NULL" },
        { { .adapters = model, .adapter_scales = nan, .adapter_count = 1 }, "the scale of adapter 0 is not finite" },
        { { .adapters = model, .adapter_count = 1 }, "adapter: general.type is \"\"" } };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        CHECK(tfm_session_new(m.m, &wrong[i].o, &err) == NULL);
        CHECK_CONTAINS(err.message, wrong[i].message);
    }
    unmake(&m);
}

const test_case tests_adapter[] = {
    { "as_merged_by_transformers", as_merged_by_transformers, QUICK },
    { "scales", scales, QUICK },
    { "exact_memory", exact_memory, QUICK },
    { "experts", experts, QUICK },
    { "wrong_adapters", wrong_adapters, QUICK },
    { "wrong_options", wrong_options, QUICK },
    { NULL, NULL, SLOW } };
