/* One answer: the same logits, bit for bit, however the work is shared out. */
#include "hash.h"
#include "models.h"

#include <fenv.h>
#include <pthread.h>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

/* One layer wide enough for every rule: sums of 512 elements, 600 positions of attention. */
static const recipe base = { .layers = 1, .width = 512, .ff = 512, .heads = 8, .kv_heads = 2, .vocab = 64,
                             .context = 1024 };

typedef struct way { int threads, batch; tfm_level level; } way;

static int64_t positions(void) { return test_quick ? 20 : 600; }

/* Logits of all n positions, malloc'd; NULL and a failed check after an error. */
static float *logits_of(const tfm_model *m, int64_t n, tfm_type cache, way w) {
    tfm_error err;
    int64_t vocab = base.vocab;
    tfm_session_opts o = { .context = (int)n, .batch = w.batch ? w.batch : (int)n, .threads = w.threads, .cache = cache,
                           .all_logits = true, .level = w.level };
    tfm_session *s = tfm_session_new(m, &o, &err);
    float *out = (float *)malloc((size_t)(n * vocab) * 4);
    uint64_t seed = 1234;
    CHECK_STR(err.message, "");
    bool good = s && out;
    for (int64_t at = 0; good && at < n; at += o.batch) {
        int32_t ids[1024];
        int64_t piece = at + o.batch < n ? o.batch : n - at;
        for (int64_t i = 0; i < piece; i++) ids[i] = (int32_t)((test_random(&seed) >> 33) % (uint64_t)vocab);
        good = CHECK_EQ(tfm_eval(s, ids, piece), TFM_OK);
        if (good) memcpy(out + at * vocab, tfm_logits_at(s, 0), (size_t)(piece * vocab) * 4);
    }
    tfm_session_free(s);
    if (good) return out;
    free(out);
    return NULL;
}
/* Every way gives the first one's bits. */
static void compare(const recipe *r, int64_t n, tfm_type cache, const way *ways, int count) {
    made m = make(r);
    float *first = m.m ? logits_of(m.m, n, cache, ways[0]) : NULL;
    for (int i = 1; first && i < count; i++) {
        float *other = logits_of(m.m, n, cache, ways[i]);
        if (!other || !CHECK_SAME(other, first, n * base.vocab))
            printf("    %s, cache %s, window %d: %d threads, batches of %d against %d, %d\n", tfm_type_name(r->type),
                   tfm_type_name(cache), r->window, ways[i].threads, ways[i].batch, ways[0].threads, ways[0].batch);
        free(other);
    }
    free(first);
    unmake(&m);
}
/* Four ways with an f32 cache over all positions; three with f16 over fewer. Half of the types
   run with a window. */
static void all_ways(tfm_type type) {
    static const way ways[] = { { 1, 0, TFM_LEVEL_AUTO }, { 2, 32, TFM_LEVEL_AUTO }, { 3, 5, TFM_LEVEL_AUTO },
                                { 7, 1, TFM_LEVEL_AUTO } };
    static const way others[] = { { 7, 0, TFM_LEVEL_AUTO }, { 1, 5, TFM_LEVEL_AUTO }, { 2, 1, TFM_LEVEL_AUTO } };
    bool even = type == TFM_F32 || type == TFM_BF16 || type == TFM_Q8_0 || type == TFM_Q4_K;
    recipe r = base;
    r.type = type;
    r.seed = 100 + (uint64_t)type;
    r.window = even ? 100 : 0;
    compare(&r, positions(), TFM_F32, ways, 4);
    r.window = even ? 0 : 90;
    r.tied = true;
    compare(&r, test_quick ? 10 : 150, TFM_F16, others, 3);
}
static void f32(void) { all_ways(TFM_F32); }
static void f16(void) { all_ways(TFM_F16); }
static void bf16(void) { all_ways(TFM_BF16); }
static void q8_0(void) { all_ways(TFM_Q8_0); }
static void q4_0(void) { all_ways(TFM_Q4_0); }
static void q5_0(void) { all_ways(TFM_Q5_0); }
static void q4_k(void) { all_ways(TFM_Q4_K); }
static void q6_k(void) { all_ways(TFM_Q6_K); }

/* The levels that fuse agree; software is slow, so over few positions. */
static void levels_agree(void) {
    static const tfm_type types[] = { TFM_F32, TFM_Q4_K };
    for (int i = 0; i < 2; i++) {
        way ways[TFM_LEVEL_COUNT];
        int count = 0;
        for (int l = TFM_LEVEL_UNFUSED + 1; l < TFM_LEVEL_COUNT; l++)
            if (tfm_level_available((tfm_level)l)) {
                way w = { 1 + count, 9, (tfm_level)l };
                ways[count++] = w;
            }
        recipe r = base;
        r.type = types[i];
        compare(&r, test_quick ? 5 : 70, TFM_F32, ways, count);
    }
}
/* Rows interleaved at load change nothing, at any level. */
static void repacked(void) {
    static const tfm_type types[] = { TFM_Q4_0, TFM_Q4_1, TFM_Q5_0, TFM_Q5_1, TFM_Q4_K, TFM_Q5_K, TFM_Q6_K, TFM_Q8_0 };
    static const tfm_model_opts opts = { .repack = true };
    for (int i = 0; i < (int)(sizeof types / sizeof *types); i++) {
        recipe r = base;
        tfm_error err;
        size_t size;
        r.type = types[i];
        r.tied = i % 2 == 0;
        r.experts = i % 3 == 0 ? 3 : 0;
        uint8_t *bytes = make_model(&r, &size);
        tfm_model *plain = tfm_model_from_memory(bytes, size, NULL, &err);
        tfm_model *packed = tfm_model_from_memory(bytes, size, &opts, &err);
        int64_t n = test_quick ? 10 : 40;
        way first = { 1, 1, TFM_LEVEL_AUTO };
        float *want = plain ? logits_of(plain, n, TFM_F32, first) : NULL;
        for (int l = TFM_LEVEL_FMA; CHECK(packed != NULL) && want && l < TFM_LEVEL_COUNT; l++) {
            if (!tfm_level_available((tfm_level)l)) continue;
            for (int batch = 1; batch < 20; batch += 16) {
                way w = { 1 + l % 3, batch, (tfm_level)l };
                float *got = logits_of(packed, n, TFM_F32, w);
                if (!got || !CHECK_SAME(got, want, n * base.vocab))
                    printf("    %s repacked, level %s, batches of %d\n", tfm_type_name(types[i]),
                           tfm_level_name((tfm_level)l), batch);
                free(got);
            }
        }
        free(want);
        tfm_model_free(packed);
        tfm_model_free(plain);
        free(bytes);
    }
}
/* The figures that must be the same in every build and on every machine. */
static void known_hash(const char *name, const char *arch, tfm_type type, uint64_t want) {
    recipe r = base;
    r.arch = arch;
    r.type = type;
    r.seed = 7;
    r.raw = true;
    way w = { 2, 32, TFM_LEVEL_AUTO };
    if (!tfm_level_available(TFM_LEVEL_FMA)) w.level = TFM_LEVEL_EXACT;
    if (!tfm_level_available(TFM_LEVEL_FMA) && !tfm_level_available(TFM_LEVEL_EXACT)) return;
    int64_t n = 70;
    made m = make(&r);
    float *y = m.m ? logits_of(m.m, n, TFM_F32, w) : NULL;
    if (y) {
        uint64_t got = hash_floats(HASH_START, y, n * base.vocab);
        test_hash(name, &got, sizeof got);
        if (!CHECK(got == want)) printf("    %s: %016llx\n", name, (unsigned long long)got);
    }
    free(y);
    unmake(&m);
}
static void hashes(void) {
    known_hash("logits of a random llama, Q4_K", "llama", TFM_Q4_K, UINT64_C(0xb856bdab6cea3cfc));
    known_hash("logits of a random gpt2, F32", "gpt2", TFM_F32, UINT64_C(0x2979edd8c519832d));
}
static tfm_tensor random_matrix(tfm_context *c, uint64_t *seed, int64_t rows, int64_t columns) {
    tfm_tensor t = tfm_zeros(c, tfm_shape2(rows, columns));
    for (int64_t i = 0; t.data && i < rows * columns; i++) ((float *)t.data)[i] = test_uniform(seed);
    return t;
}
/* Products shared among threads, and one context after another. */
static void ops_on_threads(void) {
    uint64_t seed = 3;
    tfm_context *c = tfm_context_new(NULL, NULL);
    tfm_tensor x = random_matrix(c, &seed, 33, 512), w = random_matrix(c, &seed, 77, 512);
    tfm_tensor y = tfm_dense(c, x, w, tfm_none()), s = tfm_softmax(c, y, 1);
    for (int threads = 1; threads < 12; threads += 3) {
        tfm_context_opts o = { .threads = threads };
        tfm_context *t = tfm_context_new(&o, NULL);
        for (int i = 0; i < 20; i++) {
            tfm_mark mark = tfm_arena_mark(t);
            tfm_tensor z = tfm_dense(t, x, w, tfm_none());
            if (!CHECK_SAME((const float *)z.data, (const float *)y.data, 33 * 77)) break;
            z = tfm_softmax(t, z, 1);
            if (!CHECK_SAME((const float *)z.data, (const float *)s.data, 33 * 77)) break;
            tfm_arena_rewind(t, mark);
        }
        tfm_context_free(t);
    }
    tfm_context_free(c);
}

/* ---- Sessions at the same time ---- */

typedef struct runner { const tfm_model *m; way w; float *logits; } runner;

static void *run_session(void *arg) {
    runner *r = (runner *)arg;
    tfm_session_opts o = { .context = 12, .batch = r->w.batch, .threads = r->w.threads, .all_logits = true };
    tfm_session *s = tfm_session_new(r->m, &o, NULL);
    int32_t ids[12] = { 3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8 };
    for (int at = 0; s && at < 12; at += r->w.batch)
        if (tfm_eval(s, ids + at, r->w.batch) == TFM_OK)
            memcpy(r->logits + at * base.vocab, tfm_logits_at(s, 0), (size_t)(r->w.batch * base.vocab) * 4);
    tfm_session_free(s);
    return NULL;
}
static void sessions_at_once(void) {
    made m = make(&base);
    enum { N = 3 };
    runner r[N];
    pthread_t thread[N];
    for (int i = 0; i < N; i++) {
        r[i].m = m.m;
        r[i].w.threads = 1 + i;
        r[i].w.batch = i == 0 ? 12 : i == 1 ? 4 : 1;
        r[i].logits = (float *)calloc(12 * 64, 4);
        if (!CHECK(pthread_create(&thread[i], NULL, run_session, &r[i]) == 0)) return;
    }
    for (int i = 0; i < N; i++) pthread_join(thread[i], NULL);
    for (int i = 1; i < N; i++) CHECK_SAME(r[i].logits, r[0].logits, 12 * 64);
    CHECK(r[0].logits[5] != 0);
    for (int i = 0; i < N; i++) free(r[i].logits);
    unmake(&m);
}
/* tfm_cancel from another thread ends a long evaluation. */
static void *cancel_soon(void *arg) {
    tfm_cancel((tfm_session *)arg);
    return NULL;
}
static bool start_cancelling(void *user, int64_t done, int64_t total) {
    pthread_t t;
    (void)done;
    (void)total;
    if (pthread_create(&t, NULL, cancel_soon, *(tfm_session **)user) == 0) pthread_join(t, NULL);
    return true;
}
static void cancel_from_a_thread(void) {
    made m = make(&base);
    tfm_session *s = NULL;
    tfm_session_opts o = { .context = 40, .batch = 4, .threads = 2, .progress = start_cancelling, .progress_user = &s };
    int32_t ids[40] = { 0 };
    s = tfm_session_new(m.m, &o, NULL);
    CHECK_EQ(tfm_eval(s, ids, 40), TFM_CANCELLED);
    CHECK_EQ(tfm_position(s), 4);
    tfm_session_free(s);
    unmake(&m);
}

/* ---- The floating-point environment ---- */

/* A session computes to nearest with subnormals, whatever the caller set, and puts that back. */
static void environment_is_kept(void) {
    recipe r = base;
    r.type = TFM_Q8_0;
    made m = make(&r);
    int64_t n = 12;
    way w = { 2, 5, TFM_LEVEL_AUTO };
    float *want = logits_of(m.m, n, TFM_F32, w);
    int before = fegetround();
#ifdef FE_UPWARD
    if (CHECK(fesetround(FE_UPWARD) == 0)) {
        float *got = logits_of(m.m, n, TFM_F32, w);
        CHECK_EQ(fegetround(), FE_UPWARD);
        fesetround(before);
        CHECK_SAME(got, want, n * base.vocab);
        free(got);
    }
#endif
#if defined(__x86_64__)
    unsigned control = _mm_getcsr();
    _mm_setcsr(control | 0x8040);       /* flush to zero, denormals are zero */
    if ((_mm_getcsr() & 0x8040) == 0x8040) {            /* valgrind does not do that */
        float *got = logits_of(m.m, n, TFM_F32, w);
        CHECK_EQ(_mm_getcsr() & 0x8040, 0x8040);
        _mm_setcsr(control);
        CHECK_SAME(got, want, n * base.vocab);
        free(got);
    }
    _mm_setcsr(control);
#endif
    free(want);
    unmake(&m);
}

const test_case tests_threads[] = {
    { "f32", f32, QUICK },
    { "f16", f16, SLOW },
    { "bf16", bf16, SLOW },
    { "q8_0", q8_0, SLOW },
    { "q4_0", q4_0, SLOW },
    { "q5_0", q5_0, SLOW },
    { "q4_k", q4_k, QUICK },
    { "q6_k", q6_k, SLOW },
    { "levels_agree", levels_agree, QUICK },
    { "repacked", repacked, QUICK },
    { "hashes", hashes, QUICK },
    { "ops_on_threads", ops_on_threads, QUICK },
    { "sessions_at_once", sessions_at_once, QUICK },
    { "cancel_from_a_thread", cancel_from_a_thread, QUICK },
    { "environment_is_kept", environment_is_kept, QUICK },
    { NULL, NULL, SLOW }
};
