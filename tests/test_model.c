/* Whole models: PyTorch's tiny ones, and what must hold for any. */
#include "models.h"

#define REL 1e-5

/* ---- PyTorch's models ---- */

typedef struct reference {              /* the metadata under test. */
    tfm_model *m;
    int32_t prompt[256], greedy[256];
    int64_t prompt_count, greedy_count, vocab;
    char text[512], greedy_text[512];
    float *logits;                      /* [prompt_count, vocab] */
} reference;

static int64_t read_ids(const tfm_file *f, const char *key, int32_t *out, int64_t capacity) {
    tfm_value array, v;
    int64_t n = 0, id = 0;
    if (!CHECK(tfm_file_meta(f, key, &array))) return 0;
    while (n < capacity && tfm_value_next(&array, &v) && tfm_value_i64(&v, &id)) out[n++] = (int32_t)id;
    return n;
}
static void read_text(const tfm_file *f, const char *key, char *out, size_t capacity) {
    tfm_value v;
    tfm_string s = { "", 0 };
    CHECK(tfm_file_meta(f, key, &v) && tfm_value_string(&v, &s) && s.size < capacity);
    if (s.size < capacity) memcpy(out, s.data, s.size);
    out[s.size < capacity ? s.size : 0] = 0;
}
static bool read_reference(reference *r, const char *path) {
    tfm_error err;
    tfm_value array, v;
    memset(r, 0, sizeof *r);
    r->m = tfm_model_open(path, NULL, &err);
    CHECK_STR(err.message, "");
    if (!CHECK(r->m != NULL)) return false;
    const tfm_file *f = tfm_model_file(r->m);
    r->vocab = tfm_model_hparams(r->m)->vocab;
    r->prompt_count = read_ids(f, "test.prompt", r->prompt, 256);
    r->greedy_count = read_ids(f, "test.greedy", r->greedy, 256);
    read_text(f, "test.text", r->text, sizeof r->text);
    read_text(f, "test.greedy_text", r->greedy_text, sizeof r->greedy_text);
    int64_t count = r->prompt_count * r->vocab;
    r->logits = (float *)malloc((size_t)count * 4);
    if (!CHECK(tfm_file_meta(f, "test.logits", &array)) || !CHECK_EQ(array.count, count) || !r->logits) return false;
    for (int64_t i = 0; i < count; i++) {
        double d = 0;
        if (!CHECK(tfm_value_next(&array, &v) && tfm_value_f64(&v, &d))) return false;
        r->logits[i] = (float)d;
    }
    return CHECK(r->prompt_count > 64 && r->greedy_count == 32);
}
static void free_reference(reference *r) {
    free(r->logits);
    tfm_model_free(r->m);
}
static int32_t best(const float *logits, int64_t n) {
    int32_t id = 0;
    for (int32_t i = 1; i < n; i++) if (logits[i] > logits[id]) id = i;
    return id;
}
/* Logits of every position of the prompt, then the greedy continuation id by id. */
static void reproduces_pytorch(const char *path, tfm_type cache, double rel) {
    reference r;
    tfm_error err;
    if (!read_reference(&r, path)) { free_reference(&r); return; }
    tfm_session_opts o = { .context = 160, .batch = 128, .threads = 2, .all_logits = true, .cache = cache };
    tfm_session *s = tfm_session_new(r.m, &o, &err);
    CHECK_STR(err.message, "");
    if (CHECK(s != NULL) && CHECK_EQ(tfm_eval(s, r.prompt, r.prompt_count), TFM_OK)) {
        CHECK_NEAR(tfm_logits_at(s, 0), r.logits, r.prompt_count * r.vocab, rel);
        CHECK(tfm_logits(s) == tfm_logits_at(s, r.prompt_count - 1));
        for (int64_t i = 0; i < r.greedy_count; i++) {
            if (!CHECK_EQ(best(tfm_logits(s), r.vocab), r.greedy[i])) break;
            if (!CHECK_EQ(tfm_eval(s, &r.greedy[i], 1), TFM_OK)) break;
        }
    }
    tfm_session_free(s);
    free_reference(&r);
}
static void tiny_gpt2(void) { reproduces_pytorch("tests/data/tiny-gpt2.gguf", TFM_F32, REL); }
static void tiny_llama(void) { reproduces_pytorch("tests/data/tiny-llama.gguf", TFM_F32, REL); }
static void f16_cache(void) {
    reproduces_pytorch("tests/data/tiny-gpt2.gguf", TFM_F16, 1e-2);
    reproduces_pytorch("tests/data/tiny-llama.gguf", TFM_F16, 1e-2);
}

typedef struct text { char data[1024]; size_t size, refuse_after; int pieces; } text;

static bool keep_text(void *user, const char *data, size_t size) {
    text *t = (text *)user;
    if (t->size + size < sizeof t->data) memcpy(t->data + t->size, data, size), t->size += size;
    t->data[t->size] = 0;
    t->pieces++;
    return !t->refuse_after || t->size < t->refuse_after;
}
static void generates_the_reference_text(void) {
    static const char *const paths[] = { "tests/data/tiny-gpt2.gguf", "tests/data/tiny-llama.gguf" };
    for (int i = 0; i < 2; i++) {
        reference r;
        tfm_error err;
        if (!read_reference(&r, paths[i])) { free_reference(&r); continue; }
        tfm_session *s = tfm_session_new(r.m, NULL, &err);
        text got = { "", 0, 0, 0 };
        int64_t generated = 0;
        tfm_generate_opts o = { .max_tokens = 32, .generated = &generated };
        CHECK_EQ(tfm_generate(s, r.text, &o, keep_text, &got), TFM_FINISH_LENGTH);
        CHECK_STR(tfm_message(tfm_session_context(s)), "");
        CHECK_STR(got.data, r.greedy_text);
        CHECK_EQ(generated, 32);
        CHECK_EQ(tfm_position(s), r.prompt_count + 32);
        /* a stop string ends the text before it */
        char stop[4] = { r.greedy_text[5], r.greedy_text[6], r.greedy_text[7], 0 };
        const char *const stops[] = { "\x01never", stop };
        text cut = { "", 0, 0, 0 };
        o.stop = stops;
        o.stop_count = 2;
        CHECK_EQ(tfm_rewind(s, 0), TFM_OK);
        CHECK_EQ(tfm_generate(s, r.text, &o, keep_text, &cut), TFM_FINISH_STOP);
        CHECK(cut.size <= 5 && memcmp(cut.data, r.greedy_text, cut.size) == 0);
        /* a callback that refuses stops the run; the session can go on */
        text refuse = { "", 0, 3, 0 };
        o.stop_count = 0;
        CHECK_EQ(tfm_rewind(s, 0), TFM_OK);
        CHECK_EQ(tfm_generate(s, r.text, &o, keep_text, &refuse), TFM_FINISH_CANCELLED);
        CHECK(refuse.size == 3 && memcmp(refuse.data, r.greedy_text, 3) == 0);
        CHECK_EQ(tfm_status_of(tfm_session_context(s)), TFM_OK);
        /* so does an id */
        int32_t stop_id = r.greedy[4];
        text ended = { "", 0, 0, 0 };
        o.stop_ids = &stop_id;
        o.stop_id_count = 1;
        CHECK_EQ(tfm_rewind(s, 0), TFM_OK);
        CHECK_EQ(tfm_generate(s, r.text, &o, keep_text, &ended), TFM_FINISH_END);
        CHECK(ended.size <= 4 && memcmp(ended.data, r.greedy_text, ended.size) == 0);
        tfm_session_free(s);
        free_reference(&r);
    }
}

/* ---- Any model ---- */

static const recipe small = { .layers = 2, .width = 64, .ff = 96, .heads = 4, .kv_heads = 2, .vocab = 90,
                              .context = 200, .characters = true };
static void some_ids(int32_t *ids, int64_t n, int vocab, uint64_t seed) {
    for (int64_t i = 0; i < n; i++) ids[i] = (int32_t)((test_random(&seed) >> 33) % (uint64_t)vocab);
}
static tfm_session *session(const tfm_model *m, tfm_session_opts o) {
    tfm_error err;
    if (!o.threads) o.threads = 1;
    tfm_session *s = tfm_session_new(m, &o, &err);
    CHECK_STR(err.message, "");
    return s;
}
static void hyperparameters(void) {
    recipe r = small;
    r.window = 33;
    made m = make(&r);
    const tfm_hparams *h = tfm_model_hparams(m.m);
    if (CHECK(h != NULL)) {
        CHECK(h->architecture.size == 5 && memcmp(h->architecture.data, "llama", 5) == 0);
        CHECK(h->context == 200 && h->width == 64 && h->layers == 2 && h->heads == 4 && h->kv_heads == 2);
        CHECK(h->key_size == 16 && h->value_size == 16 && h->feed_forward == 96 && h->vocab == 90);
        CHECK(h->rope_dims == 16 && h->window == 33);
        CHECK(h->eps == 1e-5f);
        CHECK_EQ(tfm_vocab_size(tfm_model_tokenizer(m.m)), 90);
    }
    unmake(&m);
}
/* At once, in pieces, one by one, and again after a rewind: the same bits. */
static void cutting_does_not_matter(void) {
    static const int64_t pieces[] = { 150, 1, 7, 64, 65 };
    static const struct { const char *arch; int window, layers, experts; } rows[] = {
        { "llama", 40, 2, 0 }, { "gpt2", 0, 2, 0 }, { "gemma2", 40, 3, 0 }, { "gemma3", 40, 7, 0 },
        { "llama", 0, 2, 5 } };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        recipe r = small;
        r.arch = rows[i].arch;
        r.window = rows[i].window;
        r.layers = rows[i].layers;
        r.experts = rows[i].experts;
        made m = make(&r);
        int32_t ids[150];
        some_ids(ids, 150, r.vocab, 5);
        tfm_session *s = session(m.m, (tfm_session_opts){ .batch = 150, .all_logits = true });
        float *all = (float *)malloc(150 * 90 * 4);
        if (!CHECK(s && all) || !CHECK_EQ(tfm_eval(s, ids, 150), TFM_OK)) return;
        memcpy(all, tfm_logits_at(s, 0), 150 * 90 * 4);
        for (size_t p = 1; p < sizeof pieces / sizeof *pieces; p++) {
            CHECK_EQ(tfm_rewind(s, 0), TFM_OK);
            for (int64_t at = 0, n; at < 150; at += n) {
                n = at + pieces[p] < 150 ? pieces[p] : 150 - at;
                if (!CHECK_EQ(tfm_eval(s, ids + at, n), TFM_OK)) break;
                if (!CHECK_SAME(tfm_logits_at(s, 0), all + at * 90, n * 90)) break;
            }
        }
        CHECK_EQ(tfm_rewind(s, 77), TFM_OK);
        CHECK_EQ(tfm_position(s), 77);
        CHECK_EQ(tfm_eval(s, ids + 77, 30), TFM_OK);
        CHECK_SAME(tfm_logits(s), all + 106 * 90, 90);
        /* a batch smaller than the call, only the last logits kept */
        tfm_session *t = session(m.m, (tfm_session_opts){ .batch = 13, .context = 150 });
        CHECK_EQ(tfm_eval(t, ids, 150), TFM_OK);
        CHECK_SAME(tfm_logits(t), all + 149 * 90, 90);
        CHECK(tfm_logits_at(t, 1) == NULL);
        tfm_session_free(t);
        tfm_session_free(s);
        free(all);
        unmake(&m);
    }
}
/* A window is attention of its own length: far ids do not reach the last layer's output. */
static void windows_forget(void) {
    recipe r = small;
    r.layers = 1;
    r.window = 10;
    made m = make(&r);
    int32_t ids[40];
    float first[90];
    some_ids(ids, 40, r.vocab, 6);
    tfm_session *s = session(m.m, (tfm_session_opts){ .context = 40 });
    CHECK_EQ(tfm_eval(s, ids, 40), TFM_OK);
    if (CHECK(tfm_logits(s) != NULL)) memcpy(first, tfm_logits(s), sizeof first);
    for (int change = 29; change < 32; change++) {      /* 30 is the first that position 39 sees */
        int32_t old = ids[change];
        ids[change] = (old + 1) % r.vocab;
        CHECK_EQ(tfm_rewind(s, 0), TFM_OK);
        CHECK_EQ(tfm_eval(s, ids, 40), TFM_OK);
        CHECK_EQ(memcmp(first, tfm_logits(s), sizeof first) == 0, change < 30);
        ids[change] = old;
    }
    tfm_session_free(s);
    unmake(&m);
}
/* Logits after the last of 40 ids, of a model of `r` with further metadata. */
static void last_logits(recipe r, void (*more)(gguf_writer *), const int32_t *ids, float *out) {
    r.more = more;
    made m = make(&r);
    tfm_session *s = session(m.m, (tfm_session_opts){ .context = 40 });
    if (CHECK_EQ(tfm_eval(s, ids, 40), TFM_OK)) memcpy(out, tfm_logits(s), (size_t)r.vocab * sizeof *out);
    tfm_session_free(s);
    unmake(&m);
}
static const char pattern_key[] = "llama.attention.sliding_window_pattern";
static void every_second(gguf_writer *w) { gguf_meta_u32(w, pattern_key, 2); }
static void list_of(gguf_writer *w, uint8_t first, uint8_t second, size_t count) {
    const uint8_t list[3] = { first, second, 1 };
    gguf_meta_array(w, pattern_key, TFM_VALUE_BOOL, list, count);
}
static void local_global(gguf_writer *w) { list_of(w, 1, 0, 2); }
static void global_local(gguf_writer *w) { list_of(w, 0, 1, 2); }
static void three_layers(gguf_writer *w) { list_of(w, 1, 0, 3); }
static void list_of_numbers(gguf_writer *w) {
    const uint32_t list[2] = { 1, 0 };
    gguf_meta_array(w, pattern_key, TFM_VALUE_U32, list, 2);
}
static void expect_refused(const recipe *r, tfm_status status, const char *part, const char *other);
/* Which layers have a window: every n-th has none, or a list of truth values says it. */
static void window_patterns(void) {
    recipe r = small;
    int32_t ids[40];
    float number[90], list[90], other[90];
    r.window = 10;
    some_ids(ids, 40, r.vocab, 6);
    last_logits(r, every_second, ids, number);
    last_logits(r, local_global, ids, list);
    last_logits(r, global_local, ids, other);
    CHECK_SAME(list, number, r.vocab);
    CHECK(memcmp(list, other, sizeof list) != 0);
    r.more = three_layers;
    expect_refused(&r, TFM_MISMATCH, "llama.attention.sliding_window_pattern: 3 values for 2 layers", NULL);
    r.more = list_of_numbers;
    expect_refused(&r, TFM_MISMATCH, "llama.attention.sliding_window_pattern: value 0 is neither true nor false", NULL);
}
static void granite(gguf_writer *w) { gguf_meta_f32(w, "granite.attention.layer_norm_rms_epsilon", 1e-5f); }
static void granite_rotated(gguf_writer *w) {
    granite(w);
    gguf_meta_bool(w, "granite.rope.scaling.finetuned", true);
}
static void granite_unrotated(gguf_writer *w) {
    granite(w);
    gguf_meta_bool(w, "granite.rope.scaling.finetuned", false);
}
static void granite_unclear(gguf_writer *w) {
    granite(w);
    gguf_meta_u32(w, "granite.rope.scaling.finetuned", 1);
}
/* Without rotation a single layer does not see in which order the ids before came. */
static void rotation_switch(void) {
    recipe r = small;
    int32_t ids[40], exchanged[40];
    float a[90], b[90];
    r.arch = "granite";
    r.layers = 1;
    some_ids(ids, 40, r.vocab, 6);
    memcpy(exchanged, ids, sizeof ids);
    for (int i = 0; i < 39; i++) exchanged[i] = ids[38 - i];
    last_logits(r, granite_unrotated, ids, a);
    last_logits(r, granite_unrotated, exchanged, b);
    CHECK_NEAR(a, b, r.vocab, 1e-5);
    last_logits(r, granite, ids, a);
    last_logits(r, granite_rotated, ids, b);
    CHECK_SAME(a, b, r.vocab);
    last_logits(r, granite_rotated, exchanged, b);
    double apart = 0;
    for (int i = 0; i < r.vocab; i++) apart = fmax(apart, fabs((double)a[i] - (double)b[i]));
    CHECK(apart > 1e-2);
    r.more = granite_unclear;
    expect_refused(&r, TFM_MISMATCH, "granite.rope.scaling.finetuned: neither true nor false", NULL);
}
static void rewinding(void) {
    made m = make(&small);
    int32_t ids[20];
    some_ids(ids, 20, small.vocab, 7);
    tfm_session *s = session(m.m, (tfm_session_opts){ .context = 20 });
    CHECK(tfm_logits(s) == NULL);
    CHECK_EQ(tfm_position(s), 0);
    CHECK_EQ(tfm_session_capacity(s), 20);
    CHECK_EQ(tfm_eval(s, ids, 20), TFM_OK);
    CHECK_EQ(tfm_rewind(s, 12), TFM_OK);
    CHECK(tfm_logits(s) == NULL);
    CHECK_EQ(tfm_rewind(s, 13), TFM_ARGUMENT);
    CHECK_CONTAINS(tfm_message(tfm_session_context(s)), "13");
    CHECK_CONTAINS(tfm_message(tfm_session_context(s)), "12");
    tfm_clear(tfm_session_context(s));
    CHECK_EQ(tfm_rewind(s, -1), TFM_ARGUMENT);
    tfm_clear(tfm_session_context(s));
    CHECK_EQ(tfm_position(s), 12);
    tfm_session_free(s);
    unmake(&m);
}
static void full_contexts(void) {
    made m = make(&small);
    int32_t ids[20];
    some_ids(ids, 20, small.vocab, 8);
    tfm_session *s = session(m.m, (tfm_session_opts){ .context = 16 });
    CHECK_EQ(tfm_eval(s, ids, 10), TFM_OK);
    CHECK_EQ(tfm_eval(s, ids, 7), TFM_FULL);            /* and nothing was evaluated */
    CHECK_CONTAINS(tfm_message(tfm_session_context(s)), "10");
    CHECK_CONTAINS(tfm_message(tfm_session_context(s)), "16");
    CHECK_EQ(tfm_position(s), 10);
    CHECK_EQ(tfm_eval(s, ids, 1), TFM_FULL);            /* the error stays */
    tfm_clear(tfm_session_context(s));
    CHECK_EQ(tfm_eval(s, ids + 10, 6), TFM_OK);
    CHECK_EQ(tfm_position(s), 16);
    tfm_session_free(s);
    /* generation ends cleanly there */
    int64_t generated = -1;
    tfm_generate_opts o = { .generated = &generated };
    s = session(m.m, (tfm_session_opts){ .context = 16 });
    CHECK_EQ(tfm_eval(s, ids, 10), TFM_OK);
    CHECK_EQ(tfm_continue(s, &o, NULL, NULL), TFM_FINISH_FULL);
    CHECK(generated == 6 || generated == 7);            /* the last id needs no position */
    CHECK_EQ(tfm_status_of(tfm_session_context(s)), TFM_OK);
    CHECK_EQ(tfm_position(s), 16);
    /* a prompt that is too long says so */
    CHECK_EQ(tfm_rewind(s, 0), TFM_OK);
    CHECK_EQ(tfm_generate(s, "a prompt of more than 16 characters", &o, NULL, NULL), TFM_FINISH_ERROR);
    CHECK_CONTAINS(tfm_message(tfm_session_context(s)), "35");
    CHECK_CONTAINS(tfm_message(tfm_session_context(s)), "16");
    tfm_session_free(s);
    /* learned positions end where the model's do */
    recipe r = small;
    r.arch = "gpt2";
    r.context = 12;
    made g = make(&r);
    s = session(g.m, (tfm_session_opts){ .context = 16 });
    CHECK_EQ(tfm_session_capacity(s), 12);
    CHECK_EQ(tfm_eval(s, ids, 13), TFM_FULL);
    tfm_clear(tfm_session_context(s));
    CHECK_EQ(tfm_eval(s, ids, 12), TFM_OK);
    tfm_session_free(s);
    unmake(&g);
    unmake(&m);
}
static void bad_ids(void) {
    made m = make(&small);
    tfm_session *s = session(m.m, (tfm_session_opts){ .context = 16, .batch = 4, .all_logits = true });
    int32_t ids[5] = { 1, 2, 90, 3, 4 };
    CHECK_EQ(tfm_eval(s, ids, 4), TFM_ARGUMENT);
    CHECK_CONTAINS(tfm_message(tfm_session_context(s)), "90");
    CHECK_EQ(tfm_position(s), 0);
    tfm_clear(tfm_session_context(s));
    ids[2] = -1;
    CHECK_EQ(tfm_eval(s, ids, 4), TFM_ARGUMENT);
    tfm_clear(tfm_session_context(s));
    ids[2] = 5;
    CHECK_EQ(tfm_eval(s, ids, 5), TFM_ARGUMENT);        /* more than the batch, with all_logits */
    CHECK_CONTAINS(tfm_message(tfm_session_context(s)), "5");
    CHECK_CONTAINS(tfm_message(tfm_session_context(s)), "4");
    tfm_clear(tfm_session_context(s));
    CHECK_EQ(tfm_eval(s, ids, -1), TFM_ARGUMENT);
    tfm_clear(tfm_session_context(s));
    CHECK_EQ(tfm_eval(s, NULL, 2), TFM_ARGUMENT);
    tfm_clear(tfm_session_context(s));
    CHECK_EQ(tfm_eval(s, NULL, 0), TFM_OK);
    CHECK_EQ(tfm_eval(NULL, ids, 1), TFM_ARGUMENT);
    CHECK_EQ(tfm_rewind(NULL, 0), TFM_ARGUMENT);
    CHECK(tfm_logits(NULL) == NULL && tfm_session_context(NULL) == NULL && tfm_position(NULL) == 0);
    tfm_cancel(NULL);
    tfm_session_free(NULL);
    tfm_model_free(NULL);
    CHECK_EQ(tfm_continue(s, NULL, NULL, NULL), TFM_FINISH_ERROR);      /* nothing was evaluated */
    tfm_session_free(s);
    unmake(&m);
}
static bool stop_at_second(void *user, int64_t done, int64_t total) {
    int *calls = (int *)user;
    CHECK(done > 0 && done <= total);
    return ++*calls < 2;
}
static void cancelling(void) {
    made m = make(&small);
    int32_t ids[40];
    int calls = 0;
    float want[90];
    some_ids(ids, 40, small.vocab, 9);
    tfm_session_opts o = { .context = 64, .batch = 10, .progress = stop_at_second, .progress_user = &calls };
    tfm_session *s = session(m.m, o), *plain = session(m.m, (tfm_session_opts){ .context = 64 });
    CHECK_EQ(tfm_eval(s, ids, 40), TFM_CANCELLED);
    CHECK_EQ(tfm_position(s), 20);
    CHECK_EQ(calls, 2);
    tfm_clear(tfm_session_context(s));
    calls = -100;
    CHECK_EQ(tfm_eval(s, ids + 20, 20), TFM_OK);        /* and goes on as if nothing had been */
    CHECK_EQ(tfm_eval(plain, ids, 40), TFM_OK);
    if (CHECK(tfm_logits(plain) != NULL)) memcpy(want, tfm_logits(plain), sizeof want);
    CHECK_SAME(tfm_logits(s), want, 90);
    tfm_cancel(plain);
    CHECK_EQ(tfm_eval(plain, ids, 10), TFM_CANCELLED);
    tfm_clear(tfm_session_context(plain));
    CHECK_EQ(tfm_eval(plain, ids, 10), TFM_OK);         /* once */
    tfm_cancel(plain);
    CHECK_EQ(tfm_continue(plain, NULL, NULL, NULL), TFM_FINISH_CANCELLED);
    CHECK_EQ(tfm_status_of(tfm_session_context(plain)), TFM_OK);
    tfm_session_free(plain);
    tfm_session_free(s);
    unmake(&m);
}
/* Sessions on one model do not see each other. */
static void sessions_share_a_model(void) {
    made m = make(&small);
    int32_t a[30], b[30];
    float want[90];
    some_ids(a, 30, small.vocab, 10);
    some_ids(b, 30, small.vocab, 11);
    tfm_session_opts o = { .context = 30 };
    tfm_session *s = session(m.m, o), *t = session(m.m, o);
    CHECK_EQ(tfm_eval(s, a, 30), TFM_OK);
    if (CHECK(tfm_logits(s) != NULL)) memcpy(want, tfm_logits(s), sizeof want);
    CHECK_EQ(tfm_rewind(s, 0), TFM_OK);
    for (int i = 0; i < 30; i++) {
        CHECK_EQ(tfm_eval(s, a + i, 1), TFM_OK);
        CHECK_EQ(tfm_eval(t, b + i, 1), TFM_OK);
    }
    CHECK_SAME(tfm_logits(s), want, 90);
    tfm_session_free(t);
    tfm_session_free(s);
    unmake(&m);
}
static void session_options(void) {
    static const struct { tfm_session_opts o; const char *part; } rows[] = {
        { { .context = -1 }, "-1" }, { { .batch = -2 }, "-2" }, { { .threads = -3 }, "-3" },
        { { .threads = 300 }, "300" }, { { .cache = TFM_Q8_0 }, "Q8_0" }, { { .prompt_bytes = -4 }, "-4" },
        { { .level = (tfm_level)50 }, "" } };
    made m = make(&small);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        tfm_error err;
        CHECK(tfm_session_new(m.m, &rows[i].o, &err) == NULL);
        CHECK(err.status == TFM_ARGUMENT || err.status == TFM_UNSUPPORTED);
        CHECK_CONTAINS(err.message, rows[i].part);
        CHECK_EQ(tfm_session_size(m.m, &rows[i].o, NULL, &err), 0);
        CHECK(tfm_session_new(m.m, &rows[i].o, NULL) == NULL);
    }
    CHECK(tfm_session_new(NULL, NULL, NULL) == NULL);
    tfm_session_opts o = { .context = INT32_MAX };
    tfm_error err;
    size_t size = tfm_session_size(m.m, &o, NULL, &err);        /* large, or no size_t: no wrong number */
    CHECK(size == 0 || size > (size_t)INT32_MAX);
    tfm_session_parts parts;
    o.context = 100;
    size = tfm_session_size(m.m, &o, &parts, &err);
    CHECK_EQ(size, parts.total);
    CHECK_EQ(parts.total, parts.cache + parts.logits + parts.scratch + parts.other);
    CHECK(parts.cache >= 2u * 2 * 100 * 32 * 4 && parts.logits >= 90 * 4);
    unmake(&m);
}

/* ---- Models that are wrong ---- */

static void expect_refused(const recipe *r, tfm_status status, const char *part, const char *other) {
    size_t size;
    tfm_error err = { TFM_OK, "" };
    uint8_t *bytes = make_model(r, &size);
    tfm_model *m = bytes ? tfm_model_from_memory(bytes, size, NULL, &err) : NULL;
    CHECK(m == NULL);
    CHECK_EQ(err.status, status);
    CHECK_CONTAINS(err.message, part);
    if (other) CHECK_CONTAINS(err.message, other);
    tfm_model_free(m);
    free(bytes);
}
static void wrong_models(void) {
    static const char *const names[] = { "token_embd.weight", "blk.1.attn_norm.weight", "blk.0.attn_q.weight",
                                         "blk.1.attn_v.weight", "blk.0.attn_output.weight", "blk.1.ffn_gate.weight",
                                         "blk.0.ffn_down.weight", "output_norm.weight" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        recipe r = small;
        r.without = names[i];
        expect_refused(&r, TFM_MISMATCH, names[i], "missing");
    }
    recipe r = small;
    r.turned = "blk.1.attn_k.weight";
    expect_refused(&r, TFM_MISMATCH, "blk.1.attn_k.weight: 64x32 in the file, 32x64 needed", NULL);
    r.turned = "blk.0.ffn_norm.weight";
    expect_refused(&r, TFM_MISMATCH, "blk.0.ffn_norm.weight: 65 in the file, 64 needed", NULL);
    r.turned = "output.weight";
    expect_refused(&r, TFM_MISMATCH, "output.weight: 64x90 in the file, 90x64 needed", NULL);
    r = small;
    r.arch = "mamba";
    expect_refused(&r, TFM_UNSUPPORTED, "mamba", NULL);
    r = small;
    r.kv_heads = 3;
    expect_refused(&r, TFM_MISMATCH, "3", "4");
    r = small;
    r.experts = 5;
    r.without = "blk.1.ffn_up_exps.weight";
    expect_refused(&r, TFM_MISMATCH, "blk.1.ffn_up_exps.weight", "5x96x64 needed");
    r.experts = 1;
    expect_refused(&r, TFM_MISMATCH, "llama.expert_used_count is 2, not between 1 and 1", NULL);
    r = small;
    r.arch = "gemma3";
    r.without = "blk.1.attn_k_norm.weight";
    expect_refused(&r, TFM_MISMATCH, "blk.1.attn_k_norm.weight", "16 needed");
    r = small;
    r.layers = 0;
    expect_refused(&r, TFM_MISMATCH, "llama.block_count", NULL);
    r = small;
    r.arch = "gpt2";
    r.without = "position_embd.weight";
    expect_refused(&r, TFM_MISMATCH, "position_embd.weight", "missing");
    r.without = "blk.1.attn_qkv.bias";                  /* biases are optional to the loader */
    made m = make(&r);
    CHECK(m.m != NULL);
    unmake(&m);
    tfm_error err;
    CHECK(tfm_model_open("tests/data/no-such-file.gguf", NULL, &err) == NULL);
    CHECK_EQ(err.status, TFM_IO);
    CHECK_CONTAINS(err.message, "no-such-file.gguf");
    CHECK(tfm_model_open("tests/data", NULL, &err) == NULL);
    CHECK_EQ(err.status, TFM_IO);
    CHECK(tfm_model_open(NULL, NULL, &err) == NULL);
    CHECK(tfm_model_from_memory("GGUF", 4, NULL, &err) == NULL);
    CHECK_EQ(err.status, TFM_TRUNCATED);
    CHECK(tfm_model_from_memory(NULL, 0, NULL, &err) == NULL);
    CHECK(tfm_model_open("tests/data/ops.gguf", NULL, &err) == NULL);   /* no model */
    CHECK_CONTAINS(err.message, "general.architecture");
}
/* A file cut off anywhere is refused, and never read beyond its end. */
static void truncated_models(void) {
    size_t size;
    uint8_t *bytes = make_model(&small, &size);
    if (!bytes) return;
    for (size_t n = 0; n < size; n += n < 4000 ? 61 : 2999) {
        tfm_error err;
        uint8_t *cut = (uint8_t *)malloc(n ? n : 1);    /* its own block: a sanitizer sees what lies behind */
        if (cut) memcpy(cut, bytes, n);
        tfm_model *m = tfm_model_from_memory(cut, n, NULL, &err);
        if (!CHECK(m == NULL && err.status != TFM_OK && err.message[0])) printf("    cut to %d bytes\n", (int)n);
        tfm_model_free(m);
        free(cut);
    }
    free(bytes);
}

const test_case tests_model[] = {
    { "tiny_gpt2", tiny_gpt2, QUICK },
    { "tiny_llama", tiny_llama, QUICK },
    { "f16_cache", f16_cache, QUICK },
    { "generates_the_reference_text", generates_the_reference_text, QUICK },
    { "hyperparameters", hyperparameters, QUICK },
    { "cutting_does_not_matter", cutting_does_not_matter, QUICK },
    { "windows_forget", windows_forget, QUICK },
    { "window_patterns", window_patterns, QUICK },
    { "rotation_switch", rotation_switch, QUICK },
    { "rewinding", rewinding, QUICK },
    { "full_contexts", full_contexts, QUICK },
    { "bad_ids", bad_ids, QUICK },
    { "cancelling", cancelling, QUICK },
    { "sessions_share_a_model", sessions_share_a_model, QUICK },
    { "session_options", session_options, QUICK },
    { "wrong_models", wrong_models, QUICK },
    { "truncated_models", truncated_models, QUICK },
    { NULL, NULL, SLOW }
};
