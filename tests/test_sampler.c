/* Sampling against a plain reference in double, and generation: stopping, cancelling, going on. */
#include "test.h"
#include "tfm.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static tfm_context *new_context(void) {
    tfm_context *c = tfm_context_new(NULL, NULL);
    if (!c) abort();
    return c;
}
/* Samples from a copy of the logits. */
static int32_t draw(tfm_context *c, const float *logits, int64_t n, const tfm_sampling *o, uint64_t seed) {
    static float copy[4096];
    tfm_rng rng = { seed };
    memcpy(copy, logits, (size_t)n * sizeof *copy);
    return tfm_sample(c, copy, n, o, NULL, 0, &rng);
}

/* ---- The generator ---- */

static void generator(void) {
    static const struct { uint64_t seed, value[4]; } rows[] = {         /* worked out in Python */
        { 0, { 0xe220a8397b1dcdaf, 0x6e789e6aa1b965f4, 0x06c45d188009454f, 0xf88bb8a8724c81ec } },
        { 1, { 0x910a2dec89025cc1, 0xbeeb8da1658eec67, 0xf893a2eefb32555e, 0x71c18690ee42c90b } },
        { 0x0123456789abcdef, { 0x157a3807a48faa9d, 0xd573529b34a1d093, 0x2f90b72e996dccbe, 0xa2d419334c4667ec } },
        { UINT64_MAX, { 0xe4d971771b652c20, 0xe99ff867dbf682c9, 0x382ff84cb27281e9, 0x6d1db36ccba982d2 } } };
    for (int r = 0; r < 4; r++) {
        tfm_rng rng = { rows[r].seed };
        for (int i = 0; i < 4; i++) CHECK(tfm_random(&rng) == rows[r].value[i]);
        CHECK(rng.state == rows[r].seed + 4 * UINT64_C(0x9e3779b97f4a7c15));
    }
    CHECK_EQ(tfm_random(NULL), 0);
}
/* The same once more, written down differently. */
static double reference_u(uint64_t *state) {
    *state += UINT64_C(11400714819323198485);
    uint64_t z = *state;
    z ^= z >> 30, z *= UINT64_C(13787848793156543929);
    z ^= z >> 27, z *= UINT64_C(10723151780598845931);
    z ^= z >> 31;
    return (double)(z >> 40) / 16777216.0;
}

/* ---- Greedy ---- */

static void greedy(void) {
    const float inf = INFINITY, nan = NAN;
    static const tfm_sampling minus_zero = { .temperature = -0.0f, .top_k = 3, .top_p = 0.5f };
    const struct { float logits[5]; int n, want; } rows[] = {
        { { 1, 3, 2, 3, 3 }, 5, 1 }, { { 0, -0.0f, 0 }, 3, 0 }, { { -7 }, 1, 0 }, { { nan, -5, -4 }, 3, 2 },
        { { -5, nan, 8, nan }, 4, 2 }, { { nan, nan, nan }, 3, 0 }, { { -inf, -inf, -inf }, 3, 0 },
        { { -inf, -FLT_MAX }, 2, 1 }, { { nan, -inf }, 2, 0 }, { { -inf, nan }, 2, 0 }, { { 5, inf, inf, 6 }, 4, 1 },
        { { nan, FLT_MAX, inf }, 3, 2 }, { { FLT_MIN / 4, 0, -1, 1e-45f }, 4, 0 }, { { 1e4f, -1e4f, 1e4f }, 3, 0 } };
    tfm_context *c = new_context();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        float copy[5];
        tfm_rng rng = { 9 };
        memcpy(copy, rows[i].logits, sizeof copy);
        bool fine = CHECK_EQ(tfm_sample(c, copy, rows[i].n, NULL, NULL, 0, NULL), rows[i].want);
        if (!fine) printf("    row %d\n", (int)i);
        CHECK_EQ(tfm_sample(c, copy, rows[i].n, &minus_zero, NULL, 0, &rng), rows[i].want);
        CHECK_EQ(rng.state, 9);                         /* nothing was drawn */
        CHECK_SAME(copy, rows[i].logits, rows[i].n);
    }
    tfm_context_free(c);
}
/* With a temperature the infinite ones leave nothing to weigh; NaN and -inf are never drawn. */
static void infinities_and_nan(void) {
    const float inf = INFINITY, nan = NAN;
    tfm_sampling o = { .temperature = 0.7f };
    tfm_context *c = new_context();
    float same[3] = { nan, nan, nan }, low[3] = { -inf, nan, -inf };
    float high[4] = { 3, nan, inf, inf }, mixed[5] = { nan, 1, -inf, 1.5f, nan };
    int seen[5] = { 0, 0, 0, 0, 0 };
    for (uint64_t seed = 0; seed < 200; seed++) {
        o.top_k = seed % 2 ? 0 : 4;
        o.top_p = seed % 3 ? 0.99f : 0;
        o.min_p = seed % 5 ? 0.01f : 0;
        CHECK_EQ(draw(c, same, 3, &o, seed), 0);
        CHECK_EQ(draw(c, low, 3, &o, seed), 0);
        CHECK_EQ(draw(c, high, 4, &o, seed), 2);
        int32_t id = draw(c, mixed, 5, &o, seed);
        if (CHECK(id >= 0 && id < 5)) seen[id]++;
    }
    CHECK(seen[1] > 20 && seen[3] > 20 && seen[0] + seen[2] + seen[4] == 0);
    CHECK_STR(tfm_message(c), "");
    tfm_context_free(c);
}

/* ---- The reference ---- */

enum { REFERENCE_MAX = 1500 };
typedef struct candidate { double l, p; int id; } candidate;

static int by_logit_then_id(const void *a, const void *b) {
    const candidate *x = (const candidate *)a, *y = (const candidate *)b;
    if (x->l > y->l || x->l < y->l) return x->l > y->l ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}
static bool close_to(double a, double b) { return fabs(a - b) <= 2e-5 * (fabs(a) + fabs(b)); }

static void reference_penalty(float *logits, int n, const tfm_sampling *o, const int32_t *recent, int count) {
    int last = o->repeat_last ? o->repeat_last : 64;
    double p = o->repeat_penalty != 0 ? (double)o->repeat_penalty : 1;
    for (int id = 0; id < n; id++) {
        bool found = false;
        for (int k = count < last ? 0 : count - last; k < count; k++) found = found || recent[k] == id;
        if (found) logits[id] = (float)(logits[id] > 0 ? (double)logits[id] / p : (double)logits[id] * p);
    }
}
/* The id by the book; -1 where a sum lies so near a threshold that rounding decides. Logits finite
   at their best. */
static int reference(const float *given, int n, const tfm_sampling *o, const int32_t *recent, int recent_count,
                     uint64_t seed) {
    static candidate c[REFERENCE_MAX];
    static float logits[REFERENCE_MAX];
    double total = 0, sum = 0;
    memcpy(logits, given, (size_t)n * sizeof *logits);
    if (o->hook) o->hook(o->hook_user, logits, n);
    reference_penalty(logits, n, o, recent, recent_count);
    for (int i = 0; i < n; i++) {
        c[i].l = isnan(logits[i]) ? -(double)INFINITY : (double)logits[i] / (double)o->temperature;
        c[i].id = i;
    }
    qsort(c, (size_t)n, sizeof *c, by_logit_then_id);
    int count = o->top_k && o->top_k < n ? o->top_k : n;
    for (int i = 0; i < count; i++) total += c[i].p = exp(c[i].l - c[0].l);
    if (o->top_p > 0 && o->top_p < 1) {
        int kept = 0;
        double enough = (double)o->top_p * total;
        do sum += c[kept++].p; while (kept < count && sum < enough);
        if (close_to(sum, enough) || close_to(sum - c[kept - 1].p, enough)) return -1;
        count = kept;
    }
    int kept = 1;
    for (int i = 1; i < count; i++) {
        if (o->min_p > 0 && c[i].p > 0 && o->min_p < 1 && close_to(c[i].p, (double)o->min_p)) return -1;
        if (c[i].p >= (double)o->min_p) kept = i + 1;
    }
    total = sum = 0;
    for (int i = 0; i < kept; i++) total += c[i].p;
    double u = reference_u(&seed) * total;
    for (int i = 0; i < kept; i++) {
        sum += c[i].p;
        if (fabs(sum - u) < 2e-5 * total) return -1;
        if (sum > u) return c[i].id;
    }
    return c[kept - 1].id;
}
static void hook_for_reference(void *user, float *logits, int64_t n) {
    logits[*(int *)user % n] += 2;
    logits[n - 1] = NAN;
}
static int below(uint64_t *r, int n) { return (int)((test_random(r) >> 33) % (uint64_t)n); }

/* Logits with ties, with NaN and -inf now and then, steep or flat. */
static void some_logits(float *logits, int n, uint64_t *r) {
    float scale = (float)(1 << below(r, 5)), step = below(r, 3) ? 0 : 0.5f;
    for (int i = 0; i < n; i++) {
        float l = test_uniform(r) * scale;
        logits[i] = step > 0 ? floorf(l / step) * step : l;
        if (i && below(r, 60) == 0) logits[i] = below(r, 2) ? -INFINITY : NAN;
    }
}
static void compare_with_reference(bool top_k, bool top_p, bool min_p, bool penalty, bool hook, int trials) {
    static const int sizes[] = { 1, 2, 3, 9, 40, 257, REFERENCE_MAX };
    static const float temperatures[] = { 1, 0.7f, 0.25f, 1.5f, 4 };
    static float logits[REFERENCE_MAX], copy[REFERENCE_MAX];
    tfm_context *c = new_context();
    uint64_t r = (uint64_t)(1 + top_k + 2 * top_p + 4 * min_p + 8 * penalty + 16 * hook);
    int unclear = 0, where = 1;
    for (int t = 0; t < trials; t++) {
        int32_t recent[90];
        int n = sizes[below(&r, 7)], count = penalty ? below(&r, 91) : 0;
        tfm_sampling o = { .temperature = temperatures[below(&r, 5)] };
        some_logits(logits, n, &r);
        for (int i = 0; i < count; i++) recent[i] = below(&r, n + 2) - 1;
        if (top_k) o.top_k = 1 + below(&r, below(&r, 2) ? 5 : n + 5);
        if (top_p) o.top_p = (float)(1 + below(&r, 999)) / 1000;
        if (min_p) o.min_p = (float)below(&r, 1001) / 1000;
        if (penalty) o.repeat_penalty = (float)(50 + below(&r, 150)) / 100;
        if (penalty && below(&r, 3)) o.repeat_last = below(&r, 100);
        if (hook && n > 1) o.hook = hook_for_reference, o.hook_user = &where;
        uint64_t seed = test_random(&r);
        tfm_rng rng = { seed };
        int want = reference(logits, n, &o, recent, count, seed);
        memcpy(copy, logits, sizeof copy);
        int32_t got = tfm_sample(c, copy, n, &o, recent, count, &rng);
        if (want < 0) unclear++;
        else if (!CHECK_EQ(got, want)) {
            printf("    trial %d: %d logits, temperature %g, top_k %d, top_p %g, min_p %g\n", t, n,
                   (double)o.temperature, o.top_k, (double)o.top_p, (double)o.min_p);
            break;
        }
    }
    CHECK(unclear * 20 < trials);
    CHECK_STR(tfm_message(c), "");
    tfm_context_free(c);
}
static void equals_the_reference(void) {
    for (int bits = 0; bits < 32; bits++)               /* every combination */
        compare_with_reference(bits & 1, bits & 2, bits & 4, bits & 8, bits & 16, test_quick ? 30 : 400);
}

/* ---- Each filter by itself, and their order ---- */

/* The ids that any of the seeds draws, as bits. */
static unsigned kept(tfm_context *c, tfm_sampling o) {
    const float logits[] = { logf(0.0625f), logf(0.5f), logf(0.0625f), logf(0.25f), logf(0.125f) };
    unsigned ids = 0;
    if (o.temperature == 0) o.temperature = 1;
    for (uint64_t seed = 0; seed < 300; seed++) {
        int32_t id = draw(c, logits, 5, &o, seed);
        if (CHECK(id >= 0 && id < 5)) ids |= 1u << id;
    }
    return ids;
}
enum { A = 2, AB = A + 8, ABC = AB + 16, ABCD = ABC + 1, ALL = 31 };     /* in order of probability */

static void filters(void) {
    static const struct { tfm_sampling o; unsigned ids; } rows[] = {
        { { .top_k = 0 }, ALL }, { { .top_k = 1 }, A }, { { .top_k = 2 }, AB }, { { .top_k = 4 }, ABCD },
        { { .top_k = 5 }, ALL }, { { .top_k = INT32_MAX }, ALL },
        { { .top_p = 1 }, ALL }, { { .top_p = 1e-30f }, A }, { { .top_p = 0.49f }, A }, { { .top_p = 0.51f }, AB },
        { { .top_p = 0.76f }, ABC }, { { .top_p = 0.88f }, ABCD }, { { .top_p = 0.95f }, ALL },
        { { .min_p = 1 }, A }, { { .min_p = 0.51f }, A }, { { .min_p = 0.4f }, AB }, { { .min_p = 0.2f }, ABC },
        { { .min_p = 0.12f }, ALL }, { { .min_p = 1e-30f }, ALL },
        { { .temperature = 2, .min_p = 0.4f }, ABC },                   /* temperature before min-p: 1 .71 .5 .35 .35 */
        { { .temperature = 0.5f, .min_p = 0.2f }, AB },
        { { .temperature = 2, .top_p = 0.36f }, AB },                   /* and before top-p: .34 .24 .17 .12 .12 */
        { { .top_k = 2, .top_p = 0.6f }, A },                           /* top-k before top-p: 2/3, 1/3 */
        { { .top_p = 0.8f, .min_p = 0.2f }, ABC } };                    /* top-p before min-p: .5 .75 .875 */
    tfm_context *c = new_context();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!CHECK_EQ(kept(c, rows[i].o), rows[i].ids)) printf("    row %d\n", (int)i);
    /* ties of the best are as good as it */
    float ties[4] = { 2, 1, 2, 2 };
    tfm_sampling o = { .temperature = 1, .min_p = 1 };
    int count[4] = { 0, 0, 0, 0 };
    for (uint64_t seed = 0; seed < 300; seed++) count[draw(c, ties, 4, &o, seed) & 3]++;
    CHECK(count[0] > 60 && count[2] > 60 && count[3] > 60 && count[1] == 0);
    o.top_k = 2;                                        /* of ties, the lowest ids */
    for (uint64_t seed = 0; seed < 300; seed++) CHECK(draw(c, ties, 4, &o, seed) % 2 == 0);
    tfm_context_free(c);
}
/* Counts stay within five standard deviations; the seeds are fixed, so this never fails by chance. */
static void check_frequencies(const double *p, int n, const tfm_sampling *o, bool one_stream) {
    float logits[8], copy[8];
    int count[8] = { 0 }, draws = test_quick ? 4000 : 100000;
    tfm_rng rng = { 77 };
    tfm_context *c = new_context();
    for (int i = 0; i < n; i++) logits[i] = (float)log(p[i]);
    for (int k = 0; k < draws; k++) {
        if (!one_stream) rng.state = (uint64_t)k;
        memcpy(copy, logits, sizeof copy);
        int32_t id = tfm_sample(c, copy, n, o, NULL, 0, &rng);
        if (CHECK(id >= 0 && id < n)) count[id]++;
    }
    double total = 0, q[8];
    for (int i = 0; i < n; i++) total += q[i] = pow(p[i], 1 / (double)o->temperature);
    for (int i = 0; i < n; i++) {
        double expected = draws * q[i] / total, deviation = sqrt(expected * (1 - q[i] / total));
        bool fine = CHECK(fabs(count[i] - expected) <= 5 * deviation);
        if (!fine) printf("    %d: %d of %g\n", i, count[i], expected);
    }
    tfm_context_free(c);
}
static void frequencies(void) {
    static const double p[8] = { 0.3, 0.01, 0.2, 0.1, 0.002, 0.25, 0.1, 0.038 }, even[3] = { 1, 1, 1 };
    tfm_sampling o = { .temperature = 1 };
    for (int stream = 0; stream < 2; stream++) {
        o.temperature = 1;
        check_frequencies(p, 8, &o, stream == 1);
        check_frequencies(even, 3, &o, stream == 1);
        o.temperature = 0.5f;
        check_frequencies(p, 8, &o, stream == 1);
        o.temperature = 3;
        check_frequencies(p, 8, &o, stream == 1);
    }
    o.temperature = 3e38f;                              /* as good as even */
    check_frequencies(even, 3, &o, true);
}
/* Many improbable ids together are drawn as often as one that is as probable as all of them. */
static void the_tail_is_drawn(void) {
    static float logits[4000];
    tfm_sampling o = { .temperature = 1 };
    tfm_context *c = new_context();
    int found = 0;
    double tail = 3000 * exp(-11.6) / (1000 + 3000 * exp(-11.6));
    for (int i = 0; i < 4000; i++) logits[i] = i % 4 == 0 ? 0 : -11.6f;
    for (uint64_t seed = 0; seed < 2000000 && found < 5; seed++) {
        uint64_t state = seed;
        if (reference_u(&state) < 1 - 0.9 * tail) continue;
        found++;
        CHECK(draw(c, logits, 4000, &o, seed) % 4 != 0);
    }
    CHECK(found > 1);
    tfm_context_free(c);
}
/* Towards 0 the temperature turns into greedy and does not overflow. */
static void extreme_temperatures(void) {
    static const float small[] = { 1e-3f, 1e-20f, 1e-37f, FLT_MIN, 1e-39f, 1e-45f };
    const float logits[3][4] = { { 1, 2, 4, 3 }, { -1e4f, 1e4f, 0.5e4f, 1e4f }, { -FLT_MAX, -3e38f, FLT_MAX, 0 } };
    tfm_context *c = new_context();
    for (int i = 0; i < 6; i++)
        for (int k = 0; k < 3; k++)
            for (uint64_t seed = 0; seed < 8; seed++) {
                tfm_sampling o = { .temperature = small[i] };
                int32_t id = draw(c, logits[k], 4, &o, seed);
                if (!CHECK(id == (k == 1 ? 1 : 2) || (k == 1 && id == 3))) printf("    %g\n", (double)small[i]);
            }
    tfm_context_free(c);
}

/* ---- Penalty and hook ---- */

static void penalties(void) {
    const float inf = INFINITY;
    static const int32_t recent[] = { 5, 0, 1, 0, -1, 2, 100, 0, INT32_MAX, INT32_MIN, 1 };
    tfm_sampling o = { .repeat_penalty = 2 };
    float l[6] = { 3, -3, 0, 3, -3, inf }, want[6] = { 1.5f, -6, 0, 3, -3, inf };
    tfm_context *c = new_context();
    CHECK_EQ(tfm_sample(c, l, 6, &o, recent, 11, NULL), 5);
    CHECK_SAME(l, want, 6);                             /* by sign, once per id, not where it does not occur */
    float again[6] = { 3, -3, 1, 0.5f, NAN, -inf }, boosted[6] = { 6, -1.5f, 2, 0.5f, NAN, -inf };
    o.repeat_penalty = 0.5f;
    CHECK_EQ(tfm_sample(c, again, 6, &o, recent, 11, NULL), 0);
    CHECK_SAME(again, boosted, 6);
    for (int off = 0; off < 2; off++) {
        float same[3] = { 1, -2, 0.3f }, before[3] = { 1, -2, 0.3f };
        o.repeat_penalty = (float)off;
        CHECK_EQ(tfm_sample(c, same, 3, &o, recent, 11, NULL), 0);
        CHECK_SAME(same, before, 3);
    }
    /* the window: how many of the latest ids count, 64 if not said */
    int32_t many[100];
    for (int i = 0; i < 100; i++) many[i] = i;
    static const int windows[] = { 0, 1, 2, 99, 100, 5000, INT32_MAX };
    for (int w = 0; w < 7; w++) {
        float x[100];
        int first = 100 - (windows[w] ? windows[w] : 64), changed = 0;
        for (int i = 0; i < 100; i++) x[i] = 8;
        o.repeat_penalty = 4;
        o.repeat_last = windows[w];
        CHECK_EQ(tfm_sample(c, x, 100, &o, many, 100, NULL), 0);
        for (int i = 0; i < 100; i++) {
            CHECK(x[i] == (i >= first ? 2.0f : 8.0f));
            changed += x[i] < 8;
        }
        CHECK_EQ(changed, first < 0 ? 100 : 100 - first);
    }
    CHECK_STR(tfm_message(c), "");
    tfm_context_free(c);
}
typedef struct hooked { int calls; int64_t n; float first; int32_t raise; float to; } hooked;

static void hook(void *user, float *logits, int64_t n) {
    hooked *h = (hooked *)user;
    h->calls++;
    h->n = n;
    h->first = logits[0];
    if (h->raise >= 0) logits[h->raise] = h->to;
}
static void hooks(void) {
    static const int32_t recent[] = { 3, 0 };
    tfm_context *c = new_context();
    hooked h = { 0, 0, 0, 3, 10 };
    float logits[4] = { 7, 6, 5, 4 }, again[4] = { 7, 6, 5, 4 };
    tfm_sampling o = { .hook = hook, .hook_user = &h };
    CHECK_EQ(tfm_sample(c, logits, 4, &o, NULL, 0, NULL), 3);
    CHECK(h.calls == 1 && h.n == 4 && h.first == 7);
    CHECK(logits[3] == 10);
    o.repeat_penalty = 2;                               /* comes after the hook: 10 turns into 5, 7 into 3.5 */
    CHECK_EQ(tfm_sample(c, again, 4, &o, recent, 2, NULL), 1);
    CHECK(again[3] == 5 && again[0] == 3.5f && h.first == 7);
    h.to = NAN;
    h.raise = 0;
    o.repeat_penalty = 0;
    o.temperature = 1;
    for (uint64_t seed = 0; seed < 100; seed++) CHECK(draw(c, again, 4, &o, seed) > 0);
    CHECK_EQ(h.calls, 102);
    tfm_context_free(c);
}

static void biases(void) {
    static const int32_t ids[] = { 3, 0, 3 }, recent[] = { 3 };
    static const float bias[] = { 4, -INFINITY, 2 };
    tfm_context *c = new_context();
    hooked h = { 0, 0, 0, 2, 9 };
    float logits[4] = { 7, 6, 5, 4 }, want[4] = { -INFINITY, 6, 9, 5 };
    tfm_sampling o = { .bias_ids = ids, .bias = bias, .bias_count = 3, .hook = hook, .hook_user = &h,
                       .repeat_penalty = 2 };
    CHECK_EQ(tfm_sample(c, logits, 4, &o, recent, 1, NULL), 2);
    CHECK(h.first == 7);                                /* the hook comes first, then 4 + 4 + 2, then its half */
    CHECK_SAME(logits, want, 4);
    o.hook = NULL;
    o.bias_count = 2;
    o.temperature = 1;
    for (uint64_t seed = 0; seed < 100; seed++) CHECK(draw(c, want, 4, &o, seed) > 0);      /* 0 is banned */
    tfm_context_free(c);
}

/* ---- Wrong arguments ---- */

static const int32_t too_large[] = { 1, 100000 }, negative[] = { -1 };
static const float one_bias[] = { 1, 1 }, no_bias[] = { NAN };

static const struct { tfm_sampling o; const char *part; } wrong[] = {
    { { .temperature = NAN }, "temperature" }, { { .temperature = -1 }, "temperature" },
    { { .temperature = -1e-45f }, "temperature" }, { { .temperature = INFINITY }, "temperature" },
    { { .temperature = -INFINITY }, "temperature" },
    { { .temperature = 1, .top_k = -1 }, "top_k" }, { { .top_k = INT32_MIN }, "top_k" },
    { { .top_p = NAN }, "top_p" }, { { .top_p = 1.5f }, "top_p" }, { { .top_p = -0.1f }, "top_p" },
    { { .top_p = INFINITY }, "top_p" },
    { { .min_p = -1 }, "min_p" }, { { .min_p = 1.0001f }, "min_p" }, { { .min_p = NAN }, "min_p" },
    { { .repeat_penalty = -1 }, "repeat_penalty" }, { { .repeat_penalty = NAN }, "repeat_penalty" },
    { { .repeat_penalty = INFINITY }, "repeat_penalty" }, { { .repeat_last = -1 }, "repeat_last" },
    { { .bias_ids = too_large, .bias = one_bias, .bias_count = 2 }, "bias of token id 100000" },
    { { .bias_ids = negative, .bias = one_bias, .bias_count = 1 }, "bias of token id -1" },
    { { .bias_ids = too_large, .bias = no_bias, .bias_count = 1 }, "bias of token id 1 is no number" },
    { { .bias_ids = too_large, .bias_count = 1 }, "bias" }, { { .bias = one_bias, .bias_count = 1 }, "bias" },
    { { .bias_ids = too_large, .bias = one_bias, .bias_count = -1 }, "bias" } };
enum { WRONG = sizeof wrong / sizeof *wrong };

static void refused(tfm_context *c, int32_t id) {
    CHECK_EQ(id, -1);
    CHECK_EQ(tfm_status_of(c), TFM_ARGUMENT);
    CHECK(tfm_message(c)[0] != 0);
    tfm_clear(c);
}
static void wrong_options(void) {
    tfm_context *c = new_context();
    const float before[3] = { 1, -2, 3 };
    float l[3] = { 1, -2, 3 };
    int32_t id = 0;
    tfm_rng rng = { 4 };
    hooked h = { 0, 0, 0, 1, 1 };
    for (int i = 0; i < WRONG; i++) {
        tfm_sampling o = wrong[i].o;
        o.hook = hook;
        o.hook_user = &h;
        CHECK_EQ(tfm_sample(c, l, 3, &o, &id, 1, &rng), -1);
        CHECK_EQ(tfm_status_of(c), TFM_ARGUMENT);
        CHECK_CONTAINS(tfm_message(c), wrong[i].part);
        CHECK_EQ(tfm_sample(c, l, 3, NULL, NULL, 0, &rng), -1);         /* the error stays */
        tfm_clear(c);
    }
    tfm_sampling o = { .temperature = 1 };
    refused(c, tfm_sample(c, NULL, 3, &o, NULL, 0, &rng));
    refused(c, tfm_sample(c, l, 0, &o, NULL, 0, &rng));
    refused(c, tfm_sample(c, l, -1, &o, NULL, 0, &rng));
    refused(c, tfm_sample(c, l, (int64_t)INT32_MAX + 1, &o, NULL, 0, &rng));
    refused(c, tfm_sample(c, l, 3, &o, NULL, 1, &rng));
    refused(c, tfm_sample(c, l, 3, &o, &id, -1, &rng));
    refused(c, tfm_sample(c, l, 3, &o, NULL, 0, NULL));
    CHECK_EQ(tfm_sample(NULL, l, 3, &o, NULL, 0, &rng), -1);
    CHECK_SAME(l, before, 3);
    CHECK(h.calls == 0 && rng.state == 4);
    CHECK(tfm_sample(c, l, 3, &o, NULL, 0, &rng) >= 0);
    tfm_context_free(c);
}
/* Scratch is given back; too little is an error; a measuring context only counts. */
static void scratch(void) {
    static float l[1000];
    static _Alignas(TFM_ALIGN) char memory[64 * 1024];
    static const int32_t recent[] = { 1, 2 };
    tfm_sampling o = { .temperature = 1, .repeat_penalty = 1.5f };
    tfm_rng rng = { 4 };
    tfm_context_opts co = { .measure = true };
    tfm_context *c = tfm_context_new(&co, NULL);
    if (!CHECK(c != NULL)) return;
    CHECK(tfm_sample(c, l, 1000, &o, recent, 2, &rng) >= 0);
    CHECK(rng.state == 4 && l[1] == 0);
    size_t need = tfm_arena_peak(c), own;
    CHECK(need >= 1000 * (sizeof(int32_t) + sizeof(float)));
    tfm_context_free(c);
    co.measure = false;
    own = tfm_context_size(&co);
    for (int short_by = 0; short_by < 2; short_by++) {
        if (!CHECK(own + need <= sizeof memory)) return;
        c = tfm_context_in(memory, own + need - (size_t)short_by * TFM_ALIGN, &co, NULL);
        for (int i = 0; i < 3; i++) CHECK_EQ(tfm_sample(c, l, 1000, &o, recent, 2, &rng) >= 0, short_by == 0);
        CHECK_EQ(tfm_status_of(c), short_by ? TFM_MEMORY : TFM_OK);
        CHECK_EQ(tfm_arena_mark(c).used, 0);
        tfm_context_free(c);
    }
}
/* A figure that all builds must agree on. */
static void same_in_every_build(void) {
    static unsigned char ids[1000];
    float l[200];
    uint64_t r = 3;
    tfm_rng rng = { 5 };
    tfm_context *c = new_context();
    for (int i = 0; i < 1000; i++) {
        tfm_sampling o = { .temperature = 0.5f + (float)(i % 9) / 4, .top_k = i % 4 * 30, .top_p = (float)(i % 5) / 4,
                           .min_p = (float)(i % 3) / 50 };
        for (int k = 0; k < 200; k++) l[k] = test_uniform(&r) * 8;
        ids[i] = (unsigned char)tfm_sample(c, l, 200, &o, NULL, 0, &rng);
    }
    test_hash("sampler", ids, sizeof ids);
    CHECK_STR(tfm_message(c), "");
    tfm_context_free(c);
}

/* ---- Generation: what the callbacks saw, and when they say no ---- */

enum { IDS = 300 };
typedef struct record {
    char text[2000];
    size_t size, before[IDS];           /* bytes passed on before each id */
    int32_t ids[IDS];
    int count, pieces;
    int refuse_id, refuse_piece, cancel_id, cancel_piece;       /* the n-th; 0: none */
    tfm_session *s;
} record;

static bool on_text(void *user, const char *text, size_t size) {
    record *r = (record *)user;
    CHECK(size > 0);
    if (CHECK(r->size + size < sizeof r->text)) memcpy(r->text + r->size, text, size), r->size += size;
    r->text[r->size] = 0;
    r->pieces++;
    if (r->pieces == r->cancel_piece) tfm_cancel(r->s);
    return r->pieces != r->refuse_piece;
}
static bool on_token(void *user, int32_t id) {
    record *r = (record *)user;
    if (!CHECK(r->count < IDS)) return false;
    r->before[r->count] = r->size;
    r->ids[r->count++] = id;
    if (r->count == r->cancel_id) tfm_cancel(r->s);
    return r->count != r->refuse_id;
}

/* ---- Models ---- */

typedef struct subject { const char *path, *prompt; } subject;
static const subject subjects[] = { { "tests/data/tiny-llama.gguf", "What is the use of a book?" },
                                    { "tests/data/tiny-gpt2.gguf", "She was considering" },
                                    { "examples/models/tiny-q8_0.gguf", "Once upon a time" } };
enum { SUBJECTS = 3, CHARACTERS = 0, WORDS = 2 };     /* one character per token; real words */

/* NULL if the file is not there, which only the shipped model may be. */
static tfm_model *open_model(int i) {
    tfm_error err;
    FILE *f = fopen(subjects[i].path, "rb");
    if (!f && i == WORDS) { printf("  skipped: no %s\n", subjects[i].path); return NULL; }
    if (f) fclose(f);
    tfm_model *m = tfm_model_open(subjects[i].path, NULL, &err);
    CHECK_STR(err.message, "");
    return m;
}
static tfm_session *new_session(const tfm_model *m, int context) {
    tfm_error err;
    tfm_session_opts o = { .context = context, .threads = 1 };
    tfm_session *s = tfm_session_new(m, &o, &err);
    CHECK_STR(err.message, "");
    if (!s) abort();
    return s;
}
static void clean(tfm_session *s) { CHECK_STR(tfm_message(tfm_session_context(s)), ""); }

/* From the start of an empty session; generated is compared with what on_token saw. */
static tfm_finish generate(tfm_session *s, const char *prompt, tfm_generate_opts o, record *r) {
    int64_t generated = -1;
    CHECK_EQ(tfm_rewind(s, 0), TFM_OK);
    o.on_token = on_token;
    o.generated = &generated;
    r->s = s;
    tfm_finish f = tfm_generate(s, prompt, &o, on_text, r);
    if (f != TFM_FINISH_ERROR) CHECK_EQ(generated, r->count - (r->count > 0 && r->count == r->refuse_id));
    return f;
}

/* A hook that makes the model say what a script says; its last id again and again. */
typedef struct script { int32_t ids[80]; int count, at; } script;

static void follow(void *user, float *logits, int64_t n) {
    script *s = (script *)user;
    for (int64_t i = 0; i < n; i++) logits[i] = 0;
    logits[s->ids[s->at < s->count ? s->at : s->count - 1]] = 1;
    s->at++;
}
static script script_of(const tfm_model *m, const char *characters) {
    script s;
    memset(&s, 0, sizeof s);
    for (const char *p = characters; *p; p++) s.ids[s.count++] = tfm_token_find(tfm_model_tokenizer(m), p, 1);
    return s;
}
/* What the model of characters passes on for a script with these stop strings. */
static tfm_finish say(tfm_session *s, const tfm_model *m, const char *characters, const char *const *stop, int stops,
                      record *r) {
    script lines = script_of(m, characters);
    tfm_generate_opts o = { .max_tokens = lines.count, .stop = stop, .stop_count = stops,
                            .sampling = { .hook = follow, .hook_user = &lines } };
    memset(r, 0, sizeof *r);
    return generate(s, "x", o, r);
}

/* ---- Generation by hand gives the same ---- */

static const tfm_sampling lively = { .temperature = 0.9f, .top_k = 30, .top_p = 0.95f, .min_p = 0.01f,
                                     .repeat_penalty = 1.1f, .seed = 7 };

/* The ids of a subject's prompt, as tfm_generate evaluates them. */
static int64_t prompt_ids(tfm_session *s, const tfm_model *m, int which, int32_t *ids, int64_t capacity) {
    tfm_tokenize_opts t = { .add_special = true };
    const char *prompt = subjects[which].prompt;
    return tfm_tokenize(tfm_session_context(s), tfm_model_tokenizer(m), prompt, strlen(prompt), &t, ids, capacity);
}

static void same_seed_same_text(void) {
    for (int i = 0; i < SUBJECTS; i++) {
        tfm_model *m = open_model(i);
        if (!m) continue;
        tfm_session *s = new_session(m, 120);
        record a = { .size = 0 }, b = { .size = 0 }, other = { .size = 0 };
        tfm_generate_opts o = { .max_tokens = 50, .sampling = lively, .ignore_end = true };
        CHECK_EQ(generate(s, subjects[i].prompt, o, &a), TFM_FINISH_LENGTH);
        CHECK_EQ(generate(s, subjects[i].prompt, o, &b), TFM_FINISH_LENGTH);
        CHECK(a.size > 0 && a.count == 50);
        CHECK_STR(b.text, a.text);
        o.sampling.seed++;
        CHECK_EQ(generate(s, subjects[i].prompt, o, &other), TFM_FINISH_LENGTH);
        CHECK(strcmp(a.text, other.text) != 0);
        /* the steps one by one: the ids of prompt and answer are what the penalty looks at */
        int32_t ids[120];
        tfm_context *c = tfm_session_context(s);
        int64_t n = prompt_ids(s, m, i, ids, 60);
        tfm_rng rng = { lively.seed };
        CHECK_EQ(tfm_rewind(s, 0), TFM_OK);
        CHECK_EQ(tfm_eval(s, ids, n), TFM_OK);
        for (int k = 0; k < 50; k++, n++) {
            ids[n] = tfm_sample(c, tfm_logits(s), tfm_model_hparams(m)->vocab, &lively, ids, n, &rng);
            if (!CHECK_EQ(ids[n], a.ids[k]) || !CHECK_EQ(tfm_eval(s, &ids[n], 1), TFM_OK)) break;
        }
        tfm_session_free(s);
        tfm_model_free(m);
    }
}
/* Ten ids and ten more are twenty, and the cache holds what was generated. */
static void going_on(void) {
    for (int i = 0; i < SUBJECTS; i++) {
        tfm_model *m = open_model(i);
        if (!m) continue;
        int64_t vocab = tfm_model_hparams(m)->vocab;
        tfm_session *s = new_session(m, 100), *fresh = new_session(m, 100);
        record whole = { .size = 0 }, parts = { .size = 0 };
        tfm_generate_opts o = { .max_tokens = 20, .ignore_end = true };
        CHECK_EQ(generate(s, subjects[i].prompt, o, &whole), TFM_FINISH_LENGTH);
        o.max_tokens = 10;
        CHECK_EQ(generate(s, subjects[i].prompt, o, &parts), TFM_FINISH_LENGTH);
        int64_t prompt = tfm_position(s) - 10, generated = 0;
        o.on_token = on_token;
        o.generated = &generated;
        CHECK_EQ(tfm_continue(s, &o, on_text, &parts), TFM_FINISH_LENGTH);
        CHECK_EQ(generated, 10);
        CHECK_EQ(tfm_position(s), prompt + 20);
        CHECK_EQ(parts.count, 20);
        CHECK_STR(parts.text, whole.text);
        /* tfm_generate with an empty prompt goes on as well */
        CHECK_EQ(tfm_generate(s, "", &o, on_text, &parts), TFM_FINISH_LENGTH);
        CHECK_EQ(tfm_generate(s, NULL, &o, on_text, &parts), TFM_FINISH_LENGTH);
        CHECK_EQ(tfm_position(s), prompt + 40);
        /* evaluating the same ids elsewhere ends in the same logits */
        int32_t ids[100];
        CHECK_EQ(prompt_ids(s, m, i, ids, 60), prompt);
        memcpy(ids + prompt, parts.ids, 40 * sizeof *ids);
        CHECK_EQ(tfm_eval(fresh, ids, prompt + 40), TFM_OK);
        CHECK_EQ(tfm_eval(s, ids, 1), TFM_OK);
        CHECK_EQ(tfm_eval(fresh, ids, 1), TFM_OK);
        if (CHECK(tfm_logits(s) && tfm_logits(fresh))) CHECK_SAME(tfm_logits(s), tfm_logits(fresh), vocab);
        clean(s);
        tfm_session_free(fresh);
        tfm_session_free(s);
        tfm_model_free(m);
    }
}
static void lengths(void) {
    tfm_model *m = open_model(CHARACTERS);
    tfm_session *s = new_session(m, 100);
    for (int n = 1; n < 40; n += 6) {
        record r = { .size = 0 };
        tfm_generate_opts o = { .max_tokens = n };
        CHECK_EQ(generate(s, "abc", o, &r), TFM_FINISH_LENGTH);
        CHECK(r.count == n && r.size == (size_t)n);
        CHECK_EQ(tfm_position(s), 3 + n);
        for (int k = 0; k < n; k++) CHECK_EQ(r.before[k], k);           /* on_token, then its text */
    }
    tfm_session_free(s);
    tfm_model_free(m);
}

/* ---- Stop strings ---- */

/* Every part of a greedy text, as a stop string, ends the text where it first occurs, with the id
   that completes it. */
static void stop_at_every_part(int which) {
    static const size_t lengths[] = { 1, 2, 3, 8, 20, 63 };
    tfm_model *m = open_model(which);
    if (!m) return;
    tfm_session *s = new_session(m, 128);
    record whole = { .size = 0 };
    tfm_generate_opts o = { .max_tokens = 60, .ignore_end = true };
    CHECK_EQ(generate(s, subjects[which].prompt, o, &whole), TFM_FINISH_LENGTH);
    for (int l = 0; l < 6; l++)
        for (size_t at = 0; at + lengths[l] <= whole.size && at < 30; at += test_quick ? 7 : 2) {
            char part[64] = "", want[2000];
            const char *stop = part;
            record r = { .size = 0 };
            memcpy(part, whole.text + at, lengths[l]);
            size_t first = (size_t)(strstr(whole.text, part) - whole.text);
            snprintf(want, sizeof want, "%.*s", (int)first, whole.text);
            o.stop = &stop;
            o.stop_count = 1;
            CHECK_EQ(generate(s, subjects[which].prompt, o, &r), TFM_FINISH_STOP);
            if (!CHECK_STR(r.text, want)) printf("    stop \"%s\"\n", part);
            size_t made = 0, needed = first + lengths[l];
            for (int k = 0; k < r.count; k++) {
                CHECK(made < needed);                   /* no id more than it takes */
                made += tfm_token_bytes(tfm_model_tokenizer(m), r.ids[k], false, NULL, 0);
            }
            CHECK(made >= needed);
            clean(s);
        }
    tfm_session_free(s);
    tfm_model_free(m);
}
static void stop_strings(void) {
    stop_at_every_part(CHARACTERS);
    stop_at_every_part(WORDS);
}
static void stop_strings_by_script(void) {
    static const struct { const char *says, *stop[3], *text; int ids; } rows[] = {
        { "one two three", { "two" }, "one ", 7 }, { "stop here", { "stop" }, "", 4 }, { "x", { "x" }, "", 1 },
        { "hello wor", { "world" }, "hello wor", 9 },                   /* held back, passed on at the end */
        { "hello worlx", { "world" }, "hello worlx", 11 },
        { "aaaab", { "aab" }, "aa", 5 }, { "abababac", { "ababac" }, "ab", 8 }, { "aaaa", { "aaa" }, "", 3 },
        { "abcabd", { "abd", "cab" }, "ab", 5 }, { "abcdx", { "abcdef", "cd" }, "ab", 5 },
        { "abcdef", { "abcdef", "cd" }, "", 6 },
        { "abcd", { "abcdef", "cd" }, "ab", 4 },                        /* the shorter one, found at the end */
        { "say ab and", { "abcdefgh", "ab" }, "say ", 6 }, { "say ab and", { "ab", "abcdefgh" }, "say ", 6 },
        { "user:\n\nuser:", { "\n\nuser:", "\n\nassistant:" }, "user:", 12 },
        { "plain", { "a plain", "plains", "lainx" }, "plain", 5 },
        { "the end", { "the end." }, "the end", 7 } };
    tfm_model *m = open_model(CHARACTERS);
    tfm_session *s = new_session(m, 100);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        record r;
        int stops = rows[i].stop[1] ? rows[i].stop[2] ? 3 : 2 : 1;
        tfm_finish f = say(s, m, rows[i].says, rows[i].stop, stops, &r);
        bool fine = CHECK_STR(r.text, rows[i].text) && CHECK_EQ(r.count, rows[i].ids) &&
                    CHECK_EQ(f, strcmp(rows[i].says, rows[i].text) == 0 ? TFM_FINISH_LENGTH : TFM_FINISH_STOP);
        if (!fine) printf("    row %d: \"%s\"\n", (int)i, rows[i].says);
        CHECK_EQ(tfm_position(s), 1 + r.count);
        clean(s);
    }
    /* only what may begin a stop string is held back, only as long as it may */
    const char *stop = "world";
    record r;
    static const size_t before[] = { 0, 1, 2, 3, 3, 3, 5, 5, 5 };
    say(s, m, "no woworx", &stop, 1, &r);
    for (int k = 0; k < r.count; k++) CHECK_EQ(r.before[k], before[k]);
    CHECK_STR(r.text, "no woworx");
    tfm_session_free(s);
    tfm_model_free(m);
}
/* Scripts and stop strings of two letters, so that everything overlaps. */
static void stop_strings_by_search(void) {
    tfm_model *m = open_model(CHARACTERS);
    tfm_session *s = new_session(m, 64);
    uint64_t r = 11;
    for (int t = 0; t < (test_quick ? 60 : 1000); t++) {
        char says[16] = "", want[16], text[3][8];
        const char *stop[3] = { text[0], text[1], text[2] };
        int length = 1 + below(&r, 14), stops = 1 + below(&r, 3), end = length;
        for (int i = 0; i < length; i++) says[i] = (char)('a' + below(&r, 2));
        for (int i = 0; i < stops; i++) {
            int n = 1 + below(&r, 6);
            for (int k = 0; k < n; k++) text[i][k] = (char)('a' + below(&r, 2));
            text[i][n] = 0;
            const char *found = strstr(says, text[i]);
            if (found && found - says < end) end = (int)(found - says);
        }
        record got;
        snprintf(want, sizeof want, "%.*s", end, says);
        tfm_finish f = say(s, m, says, stop, stops, &got);
        if (!CHECK_STR(got.text, want) || !CHECK_EQ(f, end < length ? TFM_FINISH_STOP : TFM_FINISH_LENGTH)) {
            printf("    \"%s\" with %d: %s\n", says, stops, text[0]);
            break;
        }
    }
    tfm_session_free(s);
    tfm_model_free(m);
}

/* ---- Stop ids ---- */

static void stop_ids(void) {
    tfm_model *m = open_model(CHARACTERS);
    tfm_session *s = new_session(m, 100);
    script lines = script_of(m, "abcdef");
    int32_t stops[] = { -1, 5000, lines.ids[4], lines.ids[3] };
    tfm_generate_opts o = { .max_tokens = 6, .stop_ids = stops, .sampling = { .hook = follow, .hook_user = &lines } };
    for (int count = 0; count < 5; count++) {
        record r = { .size = 0 };
        lines.at = 0;
        o.stop_id_count = count;
        CHECK_EQ(generate(s, "x", o, &r), count < 3 ? TFM_FINISH_LENGTH : TFM_FINISH_END);
        CHECK_STR(r.text, count < 3 ? "abcdef" : count == 3 ? "abcd" : "abc");
        CHECK_EQ(r.count, r.size);                      /* the one that stops is not passed on */
        CHECK_EQ(tfm_position(s), 1 + r.count);         /* nor evaluated */
        clean(s);
    }
    /* text held back for a stop string is passed on first */
    const char *stop = "cde";
    record r = { .size = 0 };
    lines.at = 0;
    o.stop = &stop;
    o.stop_count = 1;
    o.stop_id_count = 3;
    CHECK_EQ(generate(s, "x", o, &r), TFM_FINISH_END);
    CHECK_STR(r.text, "abcd");
    tfm_session_free(s);
    tfm_model_free(m);
}
static void end_tokens(void) {
    tfm_model *m = open_model(WORDS);
    if (!m) return;
    const tfm_tokenizer *t = tfm_model_tokenizer(m);
    tfm_session *s = new_session(m, 100);
    script lines = { { tfm_token_find(t, "a", 1), tfm_token_eos(t), tfm_token_find(t, "b", 1) }, 3, 0 };
    tfm_generate_opts o = { .max_tokens = 3, .sampling = { .hook = follow, .hook_user = &lines } };
    CHECK(tfm_token_is_end(t, lines.ids[1]));
    record r = { .size = 0 }, on = { .size = 0 };
    CHECK_EQ(generate(s, "Once", o, &r), TFM_FINISH_END);
    CHECK_STR(r.text, "a");
    CHECK_EQ(r.count, 1);
    lines.at = 0;
    o.ignore_end = true;
    CHECK_EQ(generate(s, "Once", o, &on), TFM_FINISH_LENGTH);
    CHECK_STR(on.text, "ab");                           /* it has no text of its own */
    CHECK(on.count == 3 && on.ids[1] == lines.ids[1]);
    clean(s);
    tfm_session_free(s);
    tfm_model_free(m);
}
/* The logits that an end was drawn from are still the model's: going on draws as if for the first time. */
static void logits_survive_an_end(void) {
    tfm_model *m = open_model(CHARACTERS);
    tfm_session *s = new_session(m, 100);
    int32_t all[96];
    float before[96];
    hooked h = { 0, 0, 0, 3, 1 };
    for (int i = 0; i < 96; i++) all[i] = i;
    tfm_generate_opts o = { .max_tokens = 4, .sampling = lively };
    record want = { .size = 0 };
    CHECK_EQ(generate(s, "abca", o, &want), TFM_FINISH_LENGTH);
    CHECK_EQ(tfm_rewind(s, 3), TFM_OK);
    CHECK_EQ(tfm_eval(s, (const int32_t[]){ 'a' - 31 }, 1), TFM_OK);
    if (CHECK(tfm_logits(s) != NULL)) memcpy(before, tfm_logits(s), sizeof before);
    o.stop_ids = all;
    o.stop_id_count = 96;
    o.sampling.hook = hook;
    o.sampling.hook_user = &h;
    CHECK_EQ(tfm_continue(s, &o, NULL, NULL), TFM_FINISH_END);
    CHECK_EQ(h.calls, 1);
    if (CHECK(tfm_logits(s) != NULL)) CHECK_SAME(tfm_logits(s), before, 96);
    tfm_generate_opts biased = o;
    biased.sampling = (tfm_sampling){ .bias_ids = all, .bias = before, .bias_count = 96 };
    CHECK_EQ(tfm_continue(s, &biased, NULL, NULL), TFM_FINISH_END);
    CHECK_SAME(tfm_logits(s), before, 96);
    record r = { .size = 0 };
    o.stop_id_count = 0;
    o.sampling.hook = NULL;
    CHECK_EQ(tfm_continue(s, &o, on_text, &r), TFM_FINISH_LENGTH);
    CHECK_STR(r.text, want.text);
    tfm_session_free(s);
    tfm_model_free(m);
}

/* ---- Callbacks that stop, and tfm_cancel ---- */

/* Stops a run at its k-th id or piece in each of four ways, goes on, and gets the text of a run
   that was not stopped. */
static void stopping_loses_nothing(int which, int way, int k) {
    tfm_model *m = open_model(which);
    if (!m) return;
    tfm_session *s = new_session(m, 128);
    record whole = { .size = 0 }, r = { .size = 0 };
    tfm_generate_opts o = { .max_tokens = 30, .ignore_end = true, .on_token = on_token };
    CHECK_EQ(generate(s, subjects[which].prompt, o, &whole), TFM_FINISH_LENGTH);
    int64_t prompt = tfm_position(s) - 30;
    *(way == 0 ? &r.refuse_id : way == 1 ? &r.refuse_piece : way == 2 ? &r.cancel_id : &r.cancel_piece) = k;
    CHECK_EQ(generate(s, subjects[which].prompt, o, &r), TFM_FINISH_CANCELLED);
    clean(s);
    if (way == 1) CHECK_EQ(r.pieces, k);                /* nothing after it */
    if (way == 0) r.count--;                            /* a refused id was not taken */
    CHECK_EQ(tfm_position(s), prompt + r.count);        /* all others are in the cache */
    CHECK(memcmp(r.text, whole.text, r.size) == 0 && r.size < whole.size);
    r.refuse_id = r.refuse_piece = r.cancel_id = r.cancel_piece = 0;
    o.max_tokens = 30 - r.count;
    CHECK_EQ(tfm_continue(s, &o, on_text, &r), TFM_FINISH_LENGTH);
    if (!CHECK_STR(r.text, whole.text) || !CHECK_EQ(r.count, 30)) printf("    way %d, k %d\n", way, k);
    clean(s);
    tfm_session_free(s);
    tfm_model_free(m);
}
static void callbacks_stop(void) {
    for (int which = 0; which < SUBJECTS; which++)
        for (int way = 0; way < 4; way++)
            for (int k = 1; k < 20; k += test_quick ? 13 : 6) stopping_loses_nothing(which, way, k);
}
/* A callback that stops with the last of the text is heard, too, and once. */
static void stopping_at_the_end(void) {
    static const char *const stop[] = { "def!" };
    tfm_model *m = open_model(CHARACTERS);
    tfm_session *s = new_session(m, 100);
    for (int way = 0; way < 4; way++) {
        script lines = script_of(m, "abcdef");
        tfm_generate_opts o = { .max_tokens = 6, .sampling = { .hook = follow, .hook_user = &lines } };
        record r = { .size = 0 }, after = { .size = 0 };
        *(way == 0 ? &r.refuse_id : way == 1 ? &r.refuse_piece : way == 2 ? &r.cancel_id : &r.cancel_piece) = 6;
        CHECK_EQ(generate(s, "x", o, &r), TFM_FINISH_CANCELLED);
        CHECK_STR(r.text, way == 0 ? "abcde" : "abcdef");
        clean(s);
        lines.at = 0;
        CHECK_EQ(generate(s, "x", o, &after), TFM_FINISH_LENGTH);
        CHECK_STR(after.text, "abcdef");
        /* the same for text that was held back: the fourth piece is "def" */
        record held = { .refuse_piece = way < 2 ? 4 : 0, .cancel_piece = way < 2 ? 0 : 4 };
        lines.at = 0;
        o.stop = stop;
        o.stop_count = 1;
        CHECK_EQ(generate(s, "x", o, &held), TFM_FINISH_CANCELLED);
        CHECK_STR(held.text, "abcdef");
        CHECK_EQ(held.pieces, 4);
        clean(s);
    }
    tfm_session_free(s);
    tfm_model_free(m);
}
typedef struct progress { tfm_session *s; int calls, refuse, cancel; int64_t done, total; } progress;

static bool on_progress(void *user, int64_t done, int64_t total) {
    progress *p = (progress *)user;
    p->done = done;
    p->total = total;
    p->calls++;
    if (p->calls == p->cancel) tfm_cancel(p->s);
    return p->calls != p->refuse;
}
/* During the prompt: what was evaluated stays, the session can go on from there or begin anew. */
static void cancelled_prompts(void) {
    tfm_model *m = open_model(CHARACTERS);
    progress p = { .s = NULL };
    tfm_session_opts so = { .context = 100, .batch = 8, .threads = 1, .progress = on_progress, .progress_user = &p };
    tfm_session *s = tfm_session_new(m, &so, NULL);
    const char *prompt = "What is the use of a book, Alice?";       /* 33 ids: 8 8 8 8 1 */
    record whole = { .size = 0 };
    tfm_generate_opts o = { .max_tokens = 12, .on_token = on_token };
    if (!CHECK(s != NULL)) return;
    CHECK_EQ(generate(s, prompt, o, &whole), TFM_FINISH_LENGTH);
    CHECK(p.calls == 5 && p.done == 33 && p.total == 33);           /* none for the ids that follow */
    for (int way = 0; way < 2; way++)
        for (int k = 1; k < 5; k++) {
            record r = { .size = 0 }, again = { .size = 0 };
            int32_t ids[33];
            p = (progress){ .s = s, .refuse = way ? 0 : k, .cancel = way ? k : 0 };
            CHECK_EQ(generate(s, prompt, o, &r), TFM_FINISH_CANCELLED);
            CHECK(r.size == 0 && r.count == 0 && p.calls == k);
            CHECK_EQ(tfm_position(s), 8 * k);
            CHECK(tfm_logits(s) == NULL);
            clean(s);
            for (int i = 0; i < 33; i++) ids[i] = prompt[i] - 31;
            CHECK_EQ(tfm_eval(s, ids + 8 * k, 33 - 8 * k), TFM_OK);
            CHECK_EQ(tfm_continue(s, &o, on_text, &r), TFM_FINISH_LENGTH);
            CHECK_STR(r.text, whole.text);
            CHECK_EQ(generate(s, prompt, o, &again), TFM_FINISH_LENGTH);
            CHECK_STR(again.text, whole.text);
            /* tfm_eval itself leaves the error to be cleared */
            p = (progress){ .s = s, .refuse = way ? 0 : k, .cancel = way ? k : 0 };
            CHECK_EQ(tfm_rewind(s, 0), TFM_OK);
            CHECK_EQ(tfm_eval(s, ids, 33), TFM_CANCELLED);
            CHECK_EQ(tfm_eval(s, ids + 8 * k, 1), TFM_CANCELLED);
            CHECK_EQ(tfm_continue(s, &o, on_text, &r), TFM_FINISH_ERROR);
            tfm_clear(tfm_session_context(s));
            CHECK_EQ(tfm_eval(s, ids + 8 * k, 33 - 8 * k), TFM_OK);
            CHECK_EQ(tfm_position(s), 33);
        }
    tfm_session_free(s);
    tfm_model_free(m);
}

/* ---- The ends of the context ---- */

static void full_context(void) {
    static const char *const stop[] = { "xxx", "efg" };
    tfm_model *m = open_model(CHARACTERS);
    tfm_session *s = new_session(m, 10);
    for (int with_stop = 0; with_stop < 2; with_stop++) {
        script lines = script_of(m, "abcdefgh");
        record r = { .size = 0 };
        tfm_generate_opts o = { .stop = stop, .stop_count = with_stop * 2,
                                .sampling = { .hook = follow, .hook_user = &lines } };
        CHECK_EQ(generate(s, "12345", o, &r), TFM_FINISH_FULL);
        CHECK_STR(r.text, "abcdef");                    /* held back or not; the last id needs no position */
        CHECK_EQ(tfm_position(s), 10);
        clean(s);
        for (int i = 0; i < 2; i++) {                   /* and there is no more */
            int64_t generated = -1;
            o.generated = &generated;
            o.on_token = on_token;
            CHECK_EQ(tfm_continue(s, &o, on_text, &r), TFM_FINISH_FULL);
            CHECK_EQ(generated, 0);
            CHECK_STR(r.text, "abcdef");
            clean(s);
        }
    }
    /* one that ends with the last position is no shorter than was asked for */
    record exact = { .size = 0 }, filled = { .size = 0 };
    tfm_generate_opts o = { .max_tokens = 6 };
    CHECK_EQ(generate(s, "12345", o, &exact), TFM_FINISH_LENGTH);
    CHECK_EQ(exact.count, 6);
    CHECK_EQ(generate(s, "1234567890", o, &filled), TFM_FINISH_FULL);
    CHECK_EQ(filled.count, 1);
    tfm_session_free(s);
    tfm_model_free(m);
}
static void long_prompts(void) {
    tfm_model *m = open_model(CHARACTERS);
    tfm_session *s = new_session(m, 20);
    tfm_context *c = tfm_session_context(s);
    record r = { .size = 0 };
    tfm_generate_opts o = { .max_tokens = 3 };
    CHECK_EQ(generate(s, "twenty-one characters", o, &r), TFM_FINISH_ERROR);
    CHECK_EQ(tfm_status_of(c), TFM_ARGUMENT);
    CHECK_CONTAINS(tfm_message(c), "21");
    CHECK_CONTAINS(tfm_message(c), "20");
    CHECK(r.size == 0 && r.count == 0 && tfm_position(s) == 0);
    tfm_clear(c);
    CHECK_EQ(generate(s, "twelve chars", o, &r), TFM_FINISH_LENGTH);
    CHECK_EQ(tfm_generate(s, "six 45", &o, NULL, NULL), TFM_FINISH_ERROR);      /* 15 are in use */
    CHECK_CONTAINS(tfm_message(c), "6");
    CHECK_CONTAINS(tfm_message(c), "5");
    CHECK_EQ(tfm_position(s), 15);
    tfm_clear(c);
    CHECK_EQ(tfm_generate(s, "five5", &o, NULL, NULL), TFM_FINISH_FULL);
    tfm_session_free(s);
    tfm_model_free(m);
}
static void empty_prompts(void) {
    for (int i = 0; i < SUBJECTS; i++) {
        tfm_model *m = open_model(i);
        if (!m) continue;
        tfm_session *s = new_session(m, 60);
        record empty = { .size = 0 }, null = { .size = 0 }, by_id = { .size = 0 };
        tfm_generate_opts o = { .max_tokens = 20, .ignore_end = true, .on_token = on_token };
        int32_t bos = tfm_token_bos(tfm_model_tokenizer(m));
        tfm_finish want = bos < 0 ? TFM_FINISH_ERROR : TFM_FINISH_LENGTH;
        CHECK_EQ(generate(s, "", o, &empty), want);
        CHECK_EQ(tfm_position(s), bos < 0 ? 0 : 21);
        if (bos < 0) CHECK_CONTAINS(tfm_message(tfm_session_context(s)), "BOS");
        tfm_clear(tfm_session_context(s));
        CHECK_EQ(generate(s, NULL, o, &null), want);
        tfm_clear(tfm_session_context(s));
        if (bos >= 0) {
            CHECK_EQ(tfm_rewind(s, 0), TFM_OK);
            CHECK_EQ(tfm_eval(s, &bos, 1), TFM_OK);
            CHECK_EQ(tfm_continue(s, &o, on_text, &by_id), TFM_FINISH_LENGTH);
            CHECK(empty.size > 0);
        }
        CHECK_STR(empty.text, by_id.text);
        CHECK_STR(null.text, by_id.text);
        tfm_session_free(s);
        tfm_model_free(m);
    }
}

/* ---- Text that is cut inside characters ---- */

static int32_t byte_token(const tfm_tokenizer *t, unsigned char byte) {
    char b[4];
    for (int32_t id = 0; id < tfm_vocab_size(t); id++)
        if (tfm_token_bytes(t, id, false, b, sizeof b) == 1 && (unsigned char)b[0] == byte) return id;
    CHECK_EQ(byte, -1);                                 /* every byte has a token */
    return 0;
}
static void whole_characters(void) {
    static const struct { const char *bytes, *text; int pieces; const char *stop, *stopped; } rows[] = {
        { "\xc3\xa9" "a", "\xc3\xa9" "a", 2, "\xc3\xa9", "" },
        { "a\xf0\x9f\x98\x80", "a\xf0\x9f\x98\x80", 2, "\xf0\x9f\x98\x80!", "a\xf0\x9f\x98\x80" },
        { "\xc3" "ab", "\xef\xbf\xbd" "ab", 2, "b", "\xef\xbf\xbd" "a" },
        { "a\xff" "b", "a\xef\xbf\xbd" "b", 3, "\xef\xbf\xbd", "a" },
        { "ab\xe2\x82", "ab\xef\xbf\xbd", 3, "\xef\xbf\xbd", "ab" },         /* cut off by the end */
        { "\xe2\x82\xe2\x82\xac", "\xef\xbf\xbd\xe2\x82\xac", 2, "\xe2\x82\xac", "\xef\xbf\xbd" } };
    tfm_model *m = open_model(WORDS);
    if (!m) return;
    tfm_session *s = new_session(m, 100);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        script lines = { { 0 }, 0, 0 };
        for (const char *p = rows[i].bytes; *p; p++)
            lines.ids[lines.count++] = byte_token(tfm_model_tokenizer(m), (unsigned char)*p);
        tfm_generate_opts o = { .max_tokens = lines.count, .sampling = { .hook = follow, .hook_user = &lines } };
        record r = { .size = 0 }, raw = { .size = 0 }, cut = { .size = 0 };
        CHECK_EQ(generate(s, "Once", o, &r), TFM_FINISH_LENGTH);
        CHECK_STR(r.text, rows[i].text);
        CHECK_EQ(r.pieces, rows[i].pieces);
        lines.at = 0;
        o.raw_bytes = true;
        CHECK_EQ(generate(s, "Once", o, &raw), TFM_FINISH_LENGTH);
        CHECK_STR(raw.text, rows[i].bytes);
        lines.at = 0;
        o.raw_bytes = false;
        o.stop = &rows[i].stop;
        o.stop_count = 1;
        bool stops = strcmp(rows[i].text, rows[i].stopped) != 0;
        CHECK_EQ(generate(s, "Once", o, &cut), stops ? TFM_FINISH_STOP : TFM_FINISH_LENGTH);
        CHECK_STR(cut.text, rows[i].stopped);
        clean(s);
    }
    tfm_session_free(s);
    tfm_model_free(m);
}

/* ---- Wrong arguments ---- */

static void refuses(tfm_session *s, tfm_generate_opts o, const char *part) {
    tfm_context *c = tfm_session_context(s);
    int64_t generated = 99, position = tfm_position(s);
    record r = { .size = 0 };
    o.generated = &generated;
    o.on_token = on_token;
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(i ? tfm_generate(s, "abc", &o, on_text, &r) : tfm_continue(s, &o, on_text, &r), TFM_FINISH_ERROR);
        CHECK_EQ(tfm_status_of(c), TFM_ARGUMENT);
        CHECK_CONTAINS(tfm_message(c), part);
        CHECK_EQ(tfm_position(s), position);            /* nor is the prompt evaluated */
        CHECK(generated == 0 && r.count == 0 && r.size == 0);
        tfm_clear(c);
    }
}
static void wrong_generation(void) {
    static char long_stop[65];
    static const char *const null_stop[] = { "a", NULL }, *const empty_stop[] = { "" };
    static const char *const too_long[] = { "b", long_stop };
    tfm_model *m = open_model(CHARACTERS);
    tfm_session *s = new_session(m, 60);
    refuses(s, (tfm_generate_opts){ .max_tokens = -1 }, "-1");
    memset(long_stop, 'y', 64);
    CHECK_EQ(tfm_eval(s, (const int32_t[]){ 40, 41 }, 2), TFM_OK);
    for (int i = 0; i < WRONG; i++)
        refuses(s, (tfm_generate_opts){ .max_tokens = 2, .sampling = wrong[i].o }, wrong[i].part);
    refuses(s, (tfm_generate_opts){ .max_tokens = INT64_MIN }, "max_tokens");
    refuses(s, (tfm_generate_opts){ .stop_count = 1 }, "stop");
    refuses(s, (tfm_generate_opts){ .stop = empty_stop, .stop_count = -1 }, "stop");
    refuses(s, (tfm_generate_opts){ .stop_id_count = 2 }, "stop");
    refuses(s, (tfm_generate_opts){ .stop = null_stop, .stop_count = 2 }, "1");
    refuses(s, (tfm_generate_opts){ .stop = empty_stop, .stop_count = 1 }, "0");
    refuses(s, (tfm_generate_opts){ .stop = too_long, .stop_count = 2 }, "63");
    long_stop[63] = 0;                                  /* the longest */
    tfm_generate_opts longest = { .max_tokens = 2, .stop = too_long, .stop_count = 2 };
    CHECK_EQ(tfm_continue(s, &longest, NULL, NULL), TFM_FINISH_LENGTH);
    clean(s);
    tfm_session_free(s);
    tfm_model_free(m);
}
static void null_arguments(void) {
    tfm_model *m = open_model(CHARACTERS);
    tfm_session *s = new_session(m, 12);
    int64_t generated = 7;
    tfm_generate_opts o = { .max_tokens = 2, .generated = &generated };
    CHECK_EQ(tfm_generate(NULL, "a", &o, on_text, NULL), TFM_FINISH_ERROR);
    CHECK_EQ(generated, 0);
    generated = 7;
    CHECK_EQ(tfm_continue(NULL, &o, on_text, NULL), TFM_FINISH_ERROR);
    CHECK_EQ(generated, 0);
    CHECK_EQ(tfm_generate(NULL, NULL, NULL, NULL, NULL), TFM_FINISH_ERROR);
    CHECK_EQ(tfm_continue(NULL, NULL, NULL, NULL), TFM_FINISH_ERROR);
    CHECK_EQ(tfm_continue(s, NULL, NULL, NULL), TFM_FINISH_ERROR);      /* no logits yet */
    CHECK_EQ(tfm_status_of(tfm_session_context(s)), TFM_ARGUMENT);
    CHECK_EQ(tfm_generate(s, "a", NULL, NULL, NULL), TFM_FINISH_ERROR); /* the error stays */
    CHECK_EQ(tfm_position(s), 0);
    tfm_clear(tfm_session_context(s));
    CHECK_EQ(tfm_generate(s, "ab", &o, NULL, NULL), TFM_FINISH_LENGTH);
    CHECK(generated == 2 && tfm_position(s) == 4);
    CHECK_EQ(tfm_continue(s, NULL, NULL, NULL), TFM_FINISH_FULL);       /* no limit but the context's */
    CHECK_EQ(tfm_position(s), 12);
    tfm_cancel(NULL);
    tfm_session_free(s);
    tfm_model_free(m);
}

const test_case tests_sampler[] = {
    { "generator", generator, QUICK },
    { "greedy", greedy, QUICK },
    { "infinities_and_nan", infinities_and_nan, QUICK },
    { "equals_the_reference", equals_the_reference, QUICK },
    { "filters", filters, QUICK },
    { "frequencies", frequencies, QUICK },
    { "the_tail_is_drawn", the_tail_is_drawn, SLOW },
    { "extreme_temperatures", extreme_temperatures, QUICK },
    { "penalties", penalties, QUICK },
    { "hooks", hooks, QUICK },
    { "biases", biases, QUICK },
    { "wrong_options", wrong_options, QUICK },
    { "scratch", scratch, QUICK },
    { "same_in_every_build", same_in_every_build, QUICK },
    { "same_seed_same_text", same_seed_same_text, QUICK },
    { "going_on", going_on, QUICK },
    { "lengths", lengths, QUICK },
    { "stop_strings", stop_strings, QUICK },
    { "stop_strings_by_script", stop_strings_by_script, QUICK },
    { "stop_strings_by_search", stop_strings_by_search, QUICK },
    { "stop_ids", stop_ids, QUICK },
    { "end_tokens", end_tokens, QUICK },
    { "logits_survive_an_end", logits_survive_an_end, QUICK },
    { "callbacks_stop", callbacks_stop, QUICK },
    { "stopping_at_the_end", stopping_at_the_end, QUICK },
    { "cancelled_prompts", cancelled_prompts, QUICK },
    { "full_context", full_context, QUICK },
    { "long_prompts", long_prompts, QUICK },
    { "empty_prompts", empty_prompts, QUICK },
    { "whole_characters", whole_characters, QUICK },
    { "wrong_generation", wrong_generation, QUICK },
    { "null_arguments", null_arguments, QUICK },
    { NULL, NULL, SLOW }
};
