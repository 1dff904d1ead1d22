/* Sessions: saved states, the common prefix. */
#include "models.h"

static const recipe small = { .layers = 2, .width = 64, .ff = 96, .heads = 4, .kv_heads = 2, .vocab = 90,
                              .context = 200, .window = 40, .characters = true };

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
static const char *message(tfm_session *s) { return tfm_message(tfm_session_context(s)); }

/* A state in malloc'd memory of exactly its size, so that sanitizers see a byte read past it. */
typedef struct state { uint8_t *data; size_t size; } state;

static state save(tfm_session *s) {
    state r = { NULL, tfm_session_save(s, NULL, 0) };
    r.data = (uint8_t *)malloc(r.size);
    CHECK(r.size > 0 && tfm_session_save(s, r.data, r.size) == r.size);
    CHECK_STR(message(s), "");
    return r;
}
/* What follows from here: the logits of 20 more ids. */
static void go_on(tfm_session *s, float *out) {
    int32_t ids[20];
    some_ids(ids, 20, 90, 77);
    for (int i = 0; i < 20; i++) {
        CHECK_EQ(tfm_eval(s, ids + i, 1), TFM_OK);
        if (CHECK(tfm_logits(s) != NULL)) memcpy(out + i * 90, tfm_logits(s), 90 * sizeof *out);
    }
}

/* ---- Saved states ---- */

static void a_state_goes_on_with_the_same_bits(void) {
    static const struct { const char *arch; tfm_type cache; int experts; } rows[] = {
        { "llama", TFM_F32, 0 }, { "llama", TFM_F16, 0 }, { "gpt2", TFM_F32, 0 }, { "gemma3", TFM_F16, 0 },
        { "llama", TFM_F32, 5 } };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int64_t n = 0; n <= 70; n += n < 15 ? 15 : n == 15 ? 1 : 27) {
            recipe r = small;
            r.arch = rows[i].arch;
            r.experts = rows[i].experts;
            made m = make(&r), again = make(&r);        /* loaded twice: the same model */
            int32_t ids[70];
            float want[20 * 90], got[20 * 90], last[90];
            some_ids(ids, 70, 90, 3);
            tfm_session *a = session(m.m, (tfm_session_opts){ .context = 100, .cache = rows[i].cache });
            tfm_session *b = session(again.m, (tfm_session_opts){ .context = 95, .cache = rows[i].cache, .batch = 7,
                                                                  .threads = 2, .all_logits = true });
            CHECK_EQ(tfm_eval(a, ids, n), TFM_OK);
            state s = save(a);
            if (n) memcpy(last, tfm_logits(a), sizeof last);
            go_on(a, want);
            some_ids(ids, 70, 90, 4);                   /* something else before */
            CHECK_EQ(tfm_eval(b, ids, 6), TFM_OK);
            CHECK_EQ(tfm_session_load(b, s.data, s.size), TFM_OK);
            CHECK_STR(message(b), "");
            CHECK_EQ(tfm_position(b), n);
            CHECK((tfm_logits(b) != NULL) == (n > 0));
            if (n) CHECK_SAME(tfm_logits(b), last, 90);
            state same = save(b);
            CHECK(same.size == s.size && memcmp(same.data, s.data, s.size) == 0);
            go_on(b, got);
            CHECK_SAME(got, want, 20 * 90);
            free(s.data);
            free(same.data);
            tfm_session_free(a);
            tfm_session_free(b);
            unmake(&m);
            unmake(&again);
        }
}

const test_case tests_session[] = {
    { "a_state_goes_on_with_the_same_bits", a_state_goes_on_with_the_same_bits, QUICK },
    { NULL, NULL, SLOW } };
