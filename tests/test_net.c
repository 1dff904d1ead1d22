/* Nets of layers against Keras: tests/data/net-*.gguf, which tools/vectors/nets.py makes; and what must hold
   between ways of running them, and for damaged files. */
#include "hostile.h"
#include "test.h"

#include <math.h>

#define NEAR 1e-5

static const char *const names[] = { "lstm", "stacked", "gru", "both-concat", "both-sum", "both-mul", "both-ave",
    "masked", "masked-sequences", "masked-mean", "open", "pools", "residual", "activations", "cells", "dense" };
enum { NAMES = sizeof names / sizeof *names };

typedef struct fixture {
    uint8_t *bytes;
    tfm_file *file;
    tfm_net *net;
    const tfm_net_info *info;
    tfm_context *c;
    tfm_tensor x;                       /* a batch */
    const float *y;
    int64_t y_count;
} fixture;

static void fixture_close(fixture *f) {
    tfm_context_free(f->c);
    tfm_net_free(f->net);
    tfm_file_free(f->file);
    free(f->bytes);
}
/* A metadata array of four-byte numbers, copied to where they are aligned. */
static void *numbers(const fixture *f, const char *key, int64_t *count) {
    tfm_value v = { TFM_VALUE_U8, TFM_VALUE_U8, 0, NULL, 0 };
    CHECK(tfm_file_meta(f->file, key, &v) && v.type == TFM_VALUE_ARRAY && v.size == 4 * v.count);
    *count = (int64_t)v.count;
    tfm_tensor t = tfm_zeros(f->c, tfm_shape1(*count));
    if (t.data) memcpy(t.data, v.data, v.size);
    return t.data;
}
static bool fixture_open(fixture *f, const char *name) {
    char path[64];
    size_t size = 0;
    tfm_error err = { TFM_OK, "" };
    memset(f, 0, sizeof *f);
    snprintf(path, sizeof path, "tests/data/net-%s.gguf", name);
    f->bytes = test_read(path, &size);
    f->file = f->bytes ? tfm_file_from_memory(f->bytes, size, NULL, &err) : NULL;
    f->net = f->file ? tfm_net_new(f->file, NULL, &err) : NULL;
    f->c = tfm_context_new(NULL, NULL);
    CHECK_STR(err.message, "");
    if (!CHECK(f->net && f->c)) { fixture_close(f); return false; }
    tfm_value v;
    uint64_t batch = 0;
    int64_t count;
    CHECK(tfm_file_meta(f->file, "test.count", &v) && tfm_value_u64(&v, &batch));
    f->info = tfm_net_info_of(f->net);
    const void *x = numbers(f, "test.x", &count);
    f->y = (const float *)numbers(f, "test.y", &f->y_count);
    tfm_shape s = f->info->input;
    for (int i = s.rank++; i > 0; i--) s.dim[i] = s.dim[i - 1];
    s.dim[0] = (int64_t)batch;
    if (s.dim[1] == 0) s.dim[1] = count / s.dim[0];
    f->x = tfm_wrap_type(f->c, x, f->info->vocab ? TFM_I32 : TFM_F32, s);
    return true;
}
static tfm_tensor one_of(tfm_context *c, tfm_tensor batch, int64_t i) {
    tfm_tensor t = tfm_slice(c, batch, 0, i, i + 1);
    tfm_shape s = { t.rank - 1, { t.dim[1], t.rank > 2 ? t.dim[2] : 1, 1, 1 } };
    return tfm_reshape(c, t, s);
}

static void predictions_of_keras(void) {
    for (int i = 0; i < NAMES; i++) {
        fixture f;
        if (!fixture_open(&f, names[i])) continue;
        tfm_tensor y = tfm_net_run(f.c, f.net, f.x, NULL);
        bool good = CHECK_STR(tfm_message(f.c), "") && CHECK_EQ(y.rank, f.info->output.rank + 1) &&
                    CHECK_EQ(tfm_count(y), f.y_count) && CHECK_NEAR((const float *)y.data, f.y, f.y_count, NEAR);
        if (!good) printf("    in net-%s\n", names[i]);
        fixture_close(&f);
    }
}
/* A sample alone gives the bits that it gives in a batch, on any number of threads and every level that fuses. */
static void one_answer(void) {
    for (int i = 0; i < NAMES; i++) {
        fixture f;
        if (!fixture_open(&f, names[i])) continue;
        tfm_tensor want = tfm_net_run(f.c, f.net, f.x, NULL);
        int64_t each = tfm_count(want) / want.dim[0];
        for (int64_t b = 0; b < want.dim[0]; b++) {
            tfm_tensor y = tfm_net_run(f.c, f.net, one_of(f.c, f.x, b), NULL);
            CHECK_EQ(y.rank, want.rank - 1);
            if (!CHECK_SAME((const float *)y.data, (const float *)want.data + b * each, each))
                printf("    in net-%s, sample %d\n", names[i], (int)b);
        }
        for (int level = TFM_LEVEL_EXACT; level < TFM_LEVEL_COUNT; level++) {
            if (!tfm_level_available((tfm_level)level)) continue;
            tfm_context_opts o = { 0 };
            o.level = (tfm_level)level;
            o.threads = level % 3 + 1;
            tfm_context *c = tfm_context_new(&o, NULL);
            tfm_tensor y = tfm_net_run(c, f.net, f.x, NULL);
            if (CHECK_STR(tfm_message(c), "") &&
                !CHECK_SAME((const float *)y.data, (const float *)want.data, f.y_count))
                printf("    in net-%s, level %s\n", names[i], tfm_level_name((tfm_level)level));
            tfm_context_free(c);
        }
        fixture_close(&f);
    }
}
/* With carried state one call on T steps is T calls on one, bit for bit. */
static void steps_carry_on(void) {
    fixture f;
    float whole[8] = { 0 }, state[8] = { 0 };
    if (!fixture_open(&f, "open")) return;
    if (CHECK_EQ(f.info->state, 4)) {
        tfm_tensor x = one_of(f.c, f.x, 0), want = tfm_net_run(f.c, f.net, x, whole);
        int64_t width = want.dim[1];
        for (int64_t t = 0; t < x.dim[0]; t++) {
            tfm_tensor y = tfm_net_run(f.c, f.net, tfm_slice(f.c, x, 0, t, t + 1), state);
            CHECK_SAME((const float *)y.data, (const float *)want.data + t * width, width);
        }
        CHECK_SAME(state, whole, 4);
        tfm_net_run(f.c, f.net, f.x, state);
        CHECK_CONTAINS(tfm_message(f.c), "no state can be carried by a batch");
    }
    fixture_close(&f);
    if (!fixture_open(&f, "both-sum")) return;
    CHECK_EQ(f.info->state, -1);
    tfm_net_run(f.c, f.net, one_of(f.c, f.x, 0), state);
    CHECK_CONTAINS(tfm_message(f.c), "layers that run backwards");
    fixture_close(&f);
}
/* What a measuring context counts suffices to the byte; so does tfm_net_size. */
static void memory_is_known(void) {
    for (int i = 0; i < NAMES; i++) {
        fixture f;
        tfm_error err;
        if (!fixture_open(&f, names[i])) continue;
        size_t size = tfm_net_size(f.file, &err);
        char *memory = (char *)malloc(size + TFM_ALIGN), *at = memory;
        while ((uintptr_t)at % TFM_ALIGN) at++;
        CHECK(!tfm_net_in(f.file, at, size - 1, &err));
        CHECK_EQ(err.status, TFM_MEMORY);
        tfm_net *net = tfm_net_in(f.file, at, size, &err);
        CHECK(net != NULL);
        tfm_context_opts o = { 0 };
        o.measure = true;
        tfm_context *m = tfm_context_new(&o, NULL);
        tfm_net_run(m, net, f.x, NULL);
        CHECK_STR(tfm_message(m), "");
        size_t arena = tfm_arena_peak(m), own = tfm_context_size(NULL);
        tfm_context_free(m);
        char *room = (char *)malloc(own + arena + TFM_ALIGN), *p = room;
        while ((uintptr_t)p % TFM_ALIGN) p++;
        tfm_context *c = tfm_context_in(p, own + arena, NULL, &err);
        tfm_tensor y = tfm_net_run(c, net, f.x, NULL);
        if (!CHECK_STR(tfm_message(c), "") || !CHECK_NEAR((const float *)y.data, f.y, f.y_count, NEAR) ||
            !CHECK_EQ(tfm_arena_peak(c), arena)) printf("    in net-%s\n", names[i]);
        tfm_context_free(c);
        free(room);
        free(memory);
        fixture_close(&f);
    }
}
static void inputs_are_checked(void) {
    fixture f;
    int32_t ids[8] = { 0 };
    if (!fixture_open(&f, "lstm")) return;
    static const struct { int64_t count; tfm_type type; int32_t id; const char *message; } cases[] = {
        { 6, TFM_I32, 1, "6, ids, I32, 7 needed" }, { 7, TFM_F32, 1, "F32 are 7" },
        { 7, TFM_I32, 11, "token id 11 at 3 is not between 0 and 10" }, { 7, TFM_I32, -1, "token id -1" } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ids[3] = cases[i].id;
        tfm_net_run(f.c, f.net, tfm_wrap_type(f.c, ids, cases[i].type, tfm_shape1(cases[i].count)), NULL);
        CHECK_CONTAINS(tfm_message(f.c), cases[i].message);
        tfm_clear(f.c);
    }
    tfm_net_run(f.c, NULL, f.x, NULL);
    CHECK_EQ(tfm_status_of(f.c), TFM_ARGUMENT);
    fixture_close(&f);
    CHECK(tfm_net_info_of(NULL) == NULL);
    CHECK(tfm_net_new(NULL, NULL, NULL) == NULL);
    tfm_net_free(NULL);
}

/* ---- The classic: weights and inputs from a seed, as tools/vectors/nets.py draws them ---- */

/* columns > 0: what numpy holds as [count / columns, columns] goes out transposed, as PyTorch has it. */
static void drawn(gguf_writer *w, uint64_t seed, int64_t count, int64_t columns, float scale) {
    float *in = (float *)malloc((size_t)count * sizeof *in), *out = (float *)malloc((size_t)count * sizeof *out);
    int64_t rows = columns ? count / columns : 1;
    tfm_rng rng = { seed };
    for (int64_t i = 0; i < count; i++) in[i] = ((float)(tfm_random(&rng) >> 40) / 8388608.0f - 1) * scale;
    for (int64_t i = 0; i < count; i++) out[i] = columns ? in[i % rows * columns + i / rows] : in[i];
    gguf_data(w, out, (size_t)count * sizeof *out);
    free(in);
    free(out);
}
static buffer classic(void) {
    const tfm_string kinds[3] = { { "embedding", 9 }, { "lstm", 4 }, { "dense", 5 } };
    const tfm_string activations[3] = { { "linear", 6 }, { "tanh", 4 }, { "sigmoid", 7 } };
    const int32_t length = 50;
    gguf_writer w;
    gguf_begin_memory(&w);
    gguf_meta_string(&w, "general.architecture", "sequential");
    gguf_meta_array(&w, "sequential.input_shape", TFM_VALUE_I32, &length, 1);
    gguf_meta_strings(&w, "sequential.layer.kind", kinds, 3);
    gguf_meta_strings(&w, "sequential.layer.activation", activations, 3);
    gguf_tensor(&w, "layers.0.weight", TFM_F32, tfm_shape2(10000, 32));
    gguf_tensor(&w, "layers.1.weight_ih", TFM_F32, tfm_shape2(512, 32));
    gguf_tensor(&w, "layers.1.weight_hh", TFM_F32, tfm_shape2(512, 128));
    gguf_tensor(&w, "layers.1.bias_ih", TFM_F32, tfm_shape1(512));
    gguf_tensor(&w, "layers.2.weight", TFM_F32, tfm_shape2(1, 128));
    gguf_tensor(&w, "layers.2.bias", TFM_F32, tfm_shape1(1));
    drawn(&w, 1, 10000 * 32, 0, 2);
    drawn(&w, 2, 512 * 32, 512, 0.25f);
    drawn(&w, 3, 512 * 128, 512, 0.25f);
    drawn(&w, 4, 512, 0, 0.25f);
    drawn(&w, 5, 128, 0, 0.25f);
    drawn(&w, 6, 1, 0, 0.25f);
    CHECK(gguf_finish(&w));
    buffer b = { w.bytes.data, w.bytes.size };
    return b;
}
static void the_classic(void) {
    enum { SAMPLES = 100, LENGTH = 50 };
    static int32_t ids[SAMPLES][LENGTH];
    tfm_error err = { TFM_OK, "" };
    tfm_rng rng = { 99 };
    size_t size;
    tfm_value v;
    for (int i = 0; i < SAMPLES * LENGTH; i++)
        ids[i / LENGTH][i % LENGTH] = (int32_t)(((float)(tfm_random(&rng) >> 40) / 8388608.0f - 1 + 1) * 5000);
    uint8_t *expected = test_read("tests/data/net-classic.gguf", &size);
    tfm_file *want = expected ? tfm_file_from_memory(expected, size, NULL, &err) : NULL;
    buffer b = classic();
    tfm_file *file = tfm_file_from_memory(b.data, b.size, NULL, &err);
    tfm_net *net = tfm_net_new(file, NULL, &err);
    tfm_context *c = tfm_context_new(NULL, NULL);
    CHECK_STR(err.message, "");
    tfm_tensor y = tfm_net_run(c, net, tfm_wrap_type(c, ids, TFM_I32, tfm_shape2(SAMPLES, LENGTH)), NULL);
    if (CHECK_STR(tfm_message(c), "") && CHECK(tfm_file_meta(want, "test.y", &v) && v.size == SAMPLES * 4)) {
        float p[SAMPLES];
        memcpy(p, v.data, sizeof p);
        CHECK_NEAR((const float *)y.data, p, SAMPLES, NEAR);
        test_hash("net", y.data, sizeof p);
    }
    tfm_context_free(c);
    tfm_net_free(net);
    tfm_file_free(file);
    tfm_file_free(want);
    free(b.data);
    free(expected);
}

/* ---- Words: ids that Keras's Tokenizer and TextVectorization give ---- */

static void words_of(const char *path) {
    size_t size = 0;
    tfm_error err = { TFM_OK, "" };
    uint8_t *bytes = test_read(path, &size);
    tfm_file *file = bytes ? tfm_file_from_memory(bytes, size, NULL, &err) : NULL;
    tfm_tokenizer *t = file ? tfm_tokenizer_new(file, NULL, &err) : NULL;
    tfm_context *c = tfm_context_new(NULL, NULL);
    tfm_value texts, counts, ids, v;
    CHECK_STR(err.message, "");
    if (CHECK(t && tfm_file_meta(file, "test.texts", &texts) && tfm_file_meta(file, "test.counts", &counts) &&
              tfm_file_meta(file, "test.ids", &ids))) {
        for (int i = 0; tfm_value_next(&texts, &v); i++) {
            tfm_string text;
            int64_t want = 0, id;
            int32_t got[64];
            CHECK(tfm_value_string(&v, &text) && tfm_value_next(&counts, &v) && tfm_value_i64(&v, &want));
            int64_t n = tfm_tokenize(c, t, text.data, text.size, NULL, got, 64);
            bool good = CHECK_STR(tfm_message(c), "") && CHECK_EQ(n, want);
            for (int64_t k = 0; k < want && tfm_value_next(&ids, &v) && tfm_value_i64(&v, &id); k++)
                if (good) good = CHECK_EQ(got[k], id);
            if (!good) printf("    in text %d of %s\n", i, path);
        }
        CHECK_EQ(ids.count, 0);
    }
    tfm_context_free(c);
    tfm_tokenizer_free(t);
    tfm_file_free(file);
    free(bytes);
}
static void words_of_keras(void) {
    words_of("tests/data/words-tokenizer.gguf");
    words_of("tests/data/words-oov.gguf");
    words_of("tests/data/words-vectorization.gguf");
}

/* ---- Files that say something else than their tensors ---- */

/* What is written in place of a dense net's own lists; NULL: leave the key out. */
typedef struct wrong { const char *kind, *activation, *shape; int32_t input, reads, width; const char *message; } wrong;

static void refused(const wrong *k) {
    const tfm_string kinds[2] = { { "dense", 5 }, { k->kind, k->kind ? strlen(k->kind) : 0 } };
    const tfm_string activations[2] = { { "relu", 4 }, { k->activation, strlen(k->activation) } };
    const int32_t counts[2] = { 1, 1 }, reads[2] = { -1, k->reads };
    const float data[64] = { 0 };
    tfm_error err = { TFM_OK, "" };
    gguf_writer w;
    gguf_begin_memory(&w);
    gguf_meta_string(&w, "general.architecture", "sequential");
    if (k->shape) gguf_meta_array(&w, k->shape, TFM_VALUE_I32, &k->input, 1);
    if (k->kind) gguf_meta_strings(&w, "sequential.layer.kind", kinds, 2);
    gguf_meta_strings(&w, "sequential.layer.activation", activations, k->kind ? 2 : 1);
    gguf_meta_array(&w, "sequential.layer.input_counts", TFM_VALUE_I32, counts, 2);
    gguf_meta_array(&w, "sequential.layer.inputs", TFM_VALUE_I32, reads, 2);
    gguf_tensor(&w, "layers.0.weight", TFM_F32, tfm_shape2(3, 4));
    gguf_tensor(&w, "layers.1.weight", TFM_F32, tfm_shape2(2, k->width));
    gguf_data(&w, data, 12 * 4);
    gguf_data(&w, data, 2 * (size_t)k->width * 4);
    CHECK(gguf_finish(&w));
    tfm_file *f = tfm_file_from_memory(w.bytes.data, w.bytes.size, NULL, &err);
    tfm_net *net = f ? tfm_net_new(f, NULL, &err) : NULL;
    CHECK_CONTAINS(err.message, k->message);
    CHECK(!net == (k->message[0] != 0));
    tfm_net_free(net);
    tfm_file_free(f);
    free(w.bytes.data);
}
static void what_does_not_fit_is_refused(void) {
    static const char shape[] = "sequential.input_shape";
    static const wrong cases[] = {
        { "dense", "linear", shape, 4, 0, 3, "" },
        { "conv1d", "linear", shape, 4, 0, 3, "'conv1d' of layer 1 is not supported" },
        { "dense", "mish", shape, 4, 0, 3, "sequential.layer.activation: 'mish' of layer 1 is not supported" },
        { NULL, "linear", shape, 4, 0, 3, "sequential.layer.activation has 1 elements, sequential.layer.kind has 0" },
        { "dense", "linear", NULL, 4, 0, 3, "sequential.input_shape: missing" },
        { "dense", "linear", shape, -1, 0, 3, "sequential.input_shape: missing, or not the shape" },
        { "dense", "linear", shape, 0, 0, 3, "sequential.input_shape: missing, or not the shape" },
        { "dense", "linear", shape, 5, 0, 3, "layers.0.weight: 3x4 in the file, 0x5 needed (0: any)" },
        { "dense", "linear", shape, 4, 0, 5, "layers.1.weight: 2x5 in the file, 0x3 needed (0: any)" },
        { "dense", "linear", shape, 4, 1, 3, "layer 1 reads layer 1, not one above it" },
        { "dense", "linear", shape, 4, -2, 3, "layer 1 reads layer -2" },
        { "lstm", "tanh", shape, 4, 0, 3, "layer 1 (lstm) reads 3, not steps" },
        { "embedding", "linear", shape, 4, 0, 3, "layer 1 (embedding) reads numbers" },
        { "flatten", "linear", shape, 4, 0, 3, "the file has 2 tensors, its layers have places for 1" },
        { "layer_norm", "linear", shape, 4, 0, 3, "layers.1.weight: 2x3 in the file, 3 needed" } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) refused(&cases[i]);
}
/* Any bits of a file may be wrong, and it may end anywhere: an error or a net that runs, nothing worse. */
static void damaged_files_do_no_harm(void) {
    static const char *const paths[] = { "tests/data/net-masked.gguf", "tests/data/net-pools.gguf",
                                         "tests/data/net-cells.gguf", "tests/data/words-tokenizer.gguf" };
    uint64_t seed = 7;
    for (int k = 0; k < 4; k++) {
        size_t size = 0;
        uint8_t *bytes = test_read(paths[k], &size), *copy = bytes ? (uint8_t *)malloc(size) : NULL;
        for (int round = 0; copy && round < (test_quick ? 50 : 1500); round++) {
            size_t n = round % 4 ? size : (size_t)(test_random(&seed) % size), head = n < 2000 ? n : 2000;
            memcpy(copy, bytes, size);
            for (int flips = round % 3; flips >= 0 && n; flips--)           /* where names and numbers stand */
                copy[test_random(&seed) % head] ^= (uint8_t)(1u << test_random(&seed) % 8);
            hostile_use(copy, n);
            if (!CHECK(!hostile_fault)) printf("    %s\n", hostile_fault);
            hostile_fault = NULL;
        }
        free(copy);
        free(bytes);
    }
}
/* An allocator that refuses is an error, not a crash. */
static void memory_may_run_out(void) {
    fixture f;
    tfm_error err;
    budget b = { 0, 0 };
    tfm_allocator a = { &b, budget_alloc, budget_free };
    if (!fixture_open(&f, "pools")) return;
    CHECK(!tfm_net_new(f.file, &a, &err));
    CHECK_EQ(err.status, TFM_MEMORY);
    b.left = 1 << 20;
    tfm_net *net = tfm_net_new(f.file, &a, &err);
    CHECK(net != NULL);
    tfm_net_free(net);
    CHECK_EQ(b.live, 0);
    fixture_close(&f);
}

extern const test_case tests_net[];
const test_case tests_net[] = {
    { "predictions_of_keras", predictions_of_keras, QUICK },
    { "one_answer", one_answer, SLOW },
    { "steps_carry_on", steps_carry_on, QUICK },
    { "memory_is_known", memory_is_known, QUICK },
    { "inputs_are_checked", inputs_are_checked, QUICK },
    { "the_classic", the_classic, SLOW },
    { "words_of_keras", words_of_keras, QUICK },
    { "what_does_not_fit_is_refused", what_does_not_fit_is_refused, QUICK },
    { "damaged_files_do_no_harm", damaged_files_do_no_harm, QUICK },
    { "memory_may_run_out", memory_may_run_out, QUICK },
    { NULL, NULL, SLOW }
};
