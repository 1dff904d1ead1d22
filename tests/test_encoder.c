/* Encoders: transformers' tiny ones, pooling, and texts one after the other. */
#include "test.h"
#include "tfm.h"

#include <stdlib.h>
#include <string.h>

#define REL 1e-5
#define BERT "tests/data/tiny-bert.gguf"
#define NOMIC "tests/data/tiny-nomic-bert.gguf"

enum { WIDTH = 32, MOST = 80 };         /* of the fixtures: width and context */

typedef struct fixture {
    unsigned char *data;
    tfm_model *m;
    int32_t ids[MOST];
    int64_t count;
    float hidden[MOST * WIDTH], pooled[4][WIDTH];           /* pooled by tfm_pooling; none is not used */
} fixture;

static void read_floats(const tfm_file *f, const char *key, float *out, int64_t capacity, int64_t *count) {
    tfm_value array, v;
    double d = 0;
    *count = 0;
    if (!CHECK(tfm_file_meta(f, key, &array))) return;
    while (*count < capacity && tfm_value_next(&array, &v) && tfm_value_f64(&v, &d)) out[(*count)++] = (float)d;
}
/* A copy of the file with its u32 `key` set. */
static unsigned char *with_key(const char *path, const char *key, unsigned value, size_t *size) {
    unsigned char *data = test_read(path, size);
    size_t n = strlen(key);
    bool found = false;
    for (size_t i = 0; data && i + n + 8 <= *size && !found; i++) {
        found = memcmp(data + i, key, n) == 0;
        if (found) for (int b = 0; b < 4; b++) data[i + n + 4 + (size_t)b] = (unsigned char)(value >> 8 * b);
    }
    CHECK(found);
    return data;
}
static bool open_fixture(fixture *x, const char *path, unsigned pooling) {
    tfm_error err;
    size_t size = 0;
    int64_t n;
    float ids[MOST];
    memset(x, 0, sizeof *x);
    x->data = with_key(path, ".pooling_type", pooling, &size);
    x->m = x->data ? tfm_model_from_memory(x->data, size, NULL, &err) : NULL;
    if (!CHECK(x->m != NULL)) { CHECK_STR(err.message, ""); return false; }
    read_floats(tfm_model_file(x->m), "test.prompt", ids, MOST, &x->count);
    for (int64_t i = 0; i < x->count; i++) x->ids[i] = (int32_t)ids[i];
    read_floats(tfm_model_file(x->m), "test.hidden", x->hidden, MOST * WIDTH, &n);
    if (!CHECK_EQ(n, x->count * WIDTH) || !CHECK(x->count > 64)) return false;
    for (int d = 0; d < WIDTH; d++) {
        double sum = 0;
        for (int64_t i = 0; i < x->count; i++) sum += (double)x->hidden[i * WIDTH + d];
        x->pooled[TFM_POOLING_MEAN][d] = (float)(sum / (double)x->count);
        x->pooled[TFM_POOLING_CLS][d] = x->hidden[d];
        x->pooled[TFM_POOLING_LAST][d] = x->hidden[(x->count - 1) * WIDTH + d];
    }
    return true;
}
static void close_fixture(fixture *x) {
    tfm_model_free(x->m);
    free(x->data);
}
static tfm_session *session(const fixture *x, tfm_session_opts o) {
    tfm_error err;
    if (!o.threads) o.threads = 1;
    tfm_session *s = tfm_session_new(x->m, &o, &err);
    CHECK_STR(err.message, "");
    return s;
}

/* Every pooling of both models, from ids and from text. */
static void as_transformers(const char *path) {
    for (unsigned kind = TFM_POOLING_NONE; kind <= TFM_POOLING_LAST; kind++) {
        fixture x;
        int64_t rows = -1;
        if (!open_fixture(&x, path, kind)) { close_fixture(&x); continue; }
        const tfm_hparams *h = tfm_model_hparams(x.m);
        CHECK(h->encoder && h->pooling == (tfm_pooling)kind);
        tfm_session *s = session(&x, (tfm_session_opts){ .threads = 2 });
        CHECK(s && tfm_pooled(s, &rows) == NULL && rows == 0);
        if (!CHECK_EQ(tfm_eval(s, x.ids, x.count), TFM_OK)) CHECK_STR(tfm_message(tfm_session_context(s)), "");
        const float *y = tfm_pooled(s, &rows);
        CHECK_EQ(rows, kind == TFM_POOLING_NONE ? x.count : 1);
        if (CHECK(y != NULL)) CHECK_NEAR(y, kind == TFM_POOLING_NONE ? x.hidden : x.pooled[kind], rows * WIDTH, REL);
        CHECK(tfm_logits(s) == NULL && tfm_logits_at(s, 0) == NULL);
        tfm_session_free(s);
        close_fixture(&x);
    }
}
static void tiny_bert(void) { as_transformers(BERT); }
static void tiny_nomic_bert(void) { as_transformers(NOMIC); }

static void tokenizes_as_transformers(void) {
    fixture x;
    tfm_error err;
    tfm_value v;
    tfm_string text = { "", 0 };
    int32_t ids[MOST];
    if (!open_fixture(&x, BERT, TFM_POOLING_MEAN)) { close_fixture(&x); return; }
    tfm_context *c = tfm_context_new(NULL, &err);
    tfm_tokenize_opts o = { .add_special = true };
    CHECK(tfm_file_meta(tfm_model_file(x.m), "test.text", &v) && tfm_value_string(&v, &text));
    int64_t n = tfm_tokenize(c, tfm_model_tokenizer(x.m), text.data, text.size, &o, ids, MOST);
    if (CHECK_EQ(n, x.count)) CHECK(memcmp(ids, x.ids, (size_t)n * sizeof *ids) == 0);
    tfm_context_free(c);
    close_fixture(&x);
}
/* Texts one after the other on one session; a batch asked for does not cut them. */
static void texts_in_turn(void) {
    fixture x;
    float first[WIDTH];
    if (!open_fixture(&x, BERT, TFM_POOLING_MEAN)) { close_fixture(&x); return; }
    tfm_session *s = session(&x, (tfm_session_opts){ .batch = 7 });
    CHECK_EQ(tfm_eval(s, x.ids, x.count), TFM_OK);
    if (CHECK(tfm_pooled(s, NULL) != NULL)) memcpy(first, tfm_pooled(s, NULL), sizeof first);
    CHECK_NEAR(first, x.pooled[TFM_POOLING_MEAN], WIDTH, REL);
    CHECK_EQ(tfm_eval(s, x.ids, 3), TFM_ARGUMENT);         /* the text before is still there */
    CHECK_CONTAINS(tfm_message(tfm_session_context(s)), "rewind");
    tfm_clear(tfm_session_context(s));
    CHECK_EQ(tfm_rewind(s, 0), TFM_OK);
    CHECK(tfm_pooled(s, NULL) == NULL);
    CHECK_EQ(tfm_eval(s, x.ids, 3), TFM_OK);
    if (CHECK(tfm_pooled(s, NULL) != NULL)) CHECK(memcmp(first, tfm_pooled(s, NULL), sizeof first) != 0);
    CHECK_EQ(tfm_rewind(s, 0), TFM_OK);
    CHECK_EQ(tfm_eval(s, x.ids, x.count), TFM_OK);
    if (CHECK(tfm_pooled(s, NULL) != NULL)) CHECK_SAME(tfm_pooled(s, NULL), first, WIDTH);
    tfm_session_free(s);
    close_fixture(&x);
}
/* Every position sees every other: changing the last id moves the first position's vector, and back. */
static void both_directions(void) {
    static const char *const paths[] = { BERT, NOMIC };
    for (int p = 0; p < 2; p++) {
        fixture x;
        float before[2][WIDTH];
        if (!open_fixture(&x, paths[p], TFM_POOLING_NONE)) { close_fixture(&x); continue; }
        tfm_session *s = session(&x, (tfm_session_opts){ .context = 80 });
        for (int turn = 0; turn < 3; turn++) {             /* as it is; the last changed; the first changed */
            int32_t *id = turn ? &x.ids[turn == 1 ? x.count - 1 : 0] : NULL, old = id ? *id : 0;
            if (id) *id = 20;
            CHECK_EQ(tfm_rewind(s, 0), TFM_OK);
            CHECK_EQ(tfm_eval(s, x.ids, x.count), TFM_OK);
            if (id) *id = old;
            float *y = tfm_pooled(s, NULL), *last = y ? y + (x.count - 1) * WIDTH : NULL;
            if (!CHECK(y != NULL)) break;
            if (turn == 0) memcpy(before[0], y, sizeof before[0]), memcpy(before[1], last, sizeof before[1]);
            if (turn == 1) CHECK(memcmp(before[0], y, sizeof before[0]) != 0);
            if (turn == 2) CHECK(memcmp(before[1], last, sizeof before[1]) != 0);
        }
        tfm_session_free(s);
        close_fixture(&x);
    }
}
/* The same bits for any number of threads, at every level that fuses. */
static void one_answer(void) {
    static const int threads[] = { 1, 2, 3, 7 };
    fixture x;
    float first[WIDTH];
    bool any = false;                   /* a build may lack the first level */
    if (!open_fixture(&x, BERT, TFM_POOLING_MEAN)) { close_fixture(&x); return; }
    for (int level = TFM_LEVEL_EXACT; level < TFM_LEVEL_COUNT; level++)
        for (size_t t = 0; t < sizeof threads / sizeof *threads && tfm_level_available((tfm_level)level); t++) {
            tfm_session_opts o = { .threads = threads[t], .level = (tfm_level)level };
            tfm_session *s = session(&x, o);
            CHECK_EQ(tfm_eval(s, x.ids, x.count), TFM_OK);
            float *y = tfm_pooled(s, NULL);
            if (!CHECK(y != NULL)) break;
            if (!any) memcpy(first, y, sizeof first);
            any = true;
            CHECK_SAME(y, first, WIDTH);
            tfm_session_free(s);
        }
    if (CHECK(any)) test_hash("encoder.bert", first, sizeof first);
    close_fixture(&x);
}
static void exact_memory(void) {
    fixture x;
    tfm_error err;
    if (!open_fixture(&x, BERT, TFM_POOLING_NONE)) { close_fixture(&x); return; }
    tfm_session_opts o = { .threads = 2 };
    tfm_session_parts parts;
    size_t need = tfm_session_size(x.m, &o, &parts, &err);
    char *raw = (char *)malloc(need + TFM_ALIGN), *mem = raw + (TFM_ALIGN - (uintptr_t)raw % TFM_ALIGN);
    CHECK_EQ(parts.cache, 2 * MOST * WIDTH * 4);            /* one layer's, whatever the number of layers */
    CHECK(tfm_session_in(x.m, &o, mem, need - 1, &err) == NULL && err.status == TFM_MEMORY);
    tfm_session *s = tfm_session_in(x.m, &o, mem, need, &err);
    for (int64_t n = 1; s && n <= MOST; n += n == 1 ? x.count - 1 : MOST - x.count) {
        int32_t ids[MOST] = { 2 };
        CHECK_EQ(tfm_rewind(s, 0), TFM_OK);
        CHECK_EQ(tfm_eval(s, ids, n), TFM_OK);
        CHECK_STR(tfm_message(tfm_session_context(s)), "");
        if (n == MOST) break;
    }
    tfm_session_free(s);
    free(raw);
    close_fixture(&x);
}
static void refusals(void) {
    fixture x;
    tfm_error err;
    size_t size;
    int32_t ids[MOST + 1] = { 0 };
    if (!open_fixture(&x, BERT, TFM_POOLING_MEAN)) { close_fixture(&x); return; }
    tfm_session *s = session(&x, (tfm_session_opts){ .context = 200 });
    tfm_context *c = tfm_session_context(s);
    CHECK_EQ(tfm_session_capacity(s), MOST);                /* positions are learned: no more than the model has */
    CHECK_EQ(tfm_eval(s, ids, MOST + 1), TFM_FULL);
    CHECK_CONTAINS(tfm_message(c), "81");
    tfm_clear(c);
    CHECK_EQ(tfm_generate(s, "alice", NULL, NULL, NULL), TFM_FINISH_ERROR);
    CHECK_CONTAINS(tfm_message(c), "bert is an encoder");
    tfm_clear(c);
    CHECK_EQ(tfm_continue(s, NULL, NULL, NULL), TFM_FINISH_ERROR);
    CHECK_EQ(tfm_position(s), 0);
    CHECK(tfm_pooled(NULL, NULL) == NULL);
    tfm_session_free(s);
    close_fixture(&x);

    unsigned char *data = with_key(BERT, ".pooling_type", 4, &size);        /* a reranker's */
    CHECK(tfm_model_from_memory(data, size, NULL, &err) == NULL);
    CHECK_CONTAINS(err.message, "bert.pooling_type is 4, not between 0 and 3");
    free(data);
    data = test_read(BERT, &size);
    for (size_t i = 0; data && i + 30 < size; i++)          /* a truth value: one byte behind its type */
        if (memcmp(data + i, "bert.attention.causal", 21) == 0) data[i + 25] = 1;
    CHECK(tfm_model_from_memory(data, size, NULL, &err) == NULL);
    CHECK_CONTAINS(err.message, "bert.attention.causal: only false is supported");
    free(data);
}

const test_case tests_encoder[] = {
    { "tiny_bert", tiny_bert, QUICK },
    { "tiny_nomic_bert", tiny_nomic_bert, QUICK },
    { "tokenizes_as_transformers", tokenizes_as_transformers, QUICK },
    { "texts_in_turn", texts_in_turn, QUICK },
    { "both_directions", both_directions, QUICK },
    { "one_answer", one_answer, QUICK },
    { "exact_memory", exact_memory, QUICK },
    { "refusals", refusals, QUICK },
    { NULL, NULL, SLOW } };
