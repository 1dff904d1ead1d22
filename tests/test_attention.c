/* Attention against PyTorch, and what must hold between its ways of being called. */
#include "vectors.h"

#define REL 1e-5

static tfm_attention_opts case_opts(vectors *v) {
    tfm_attention_opts o = { 0 };
    o.heads = vectors_int(v, 1);
    o.kv_heads = vectors_int(v, 2);
    o.causal = vectors_int(v, 3) != 0;
    o.offset = vectors_int(v, 4);
    o.window = vectors_int(v, 5);
    o.scale = vectors_float(v, 0);
    o.mask = vectors_get(v, "mask");
    return o;
}
static void vectors_of_pytorch(void) {
    vectors v;
    if (!vectors_open(&v)) return;
    int n = vectors_begin(&v, "attention");
    for (v.index = 0; v.index < n; v.index++) {
        tfm_mark mark = tfm_arena_mark(v.c);
        tfm_attention_opts o = case_opts(&v);
        tfm_tensor q = vectors_get(&v, "q"), k = vectors_get(&v, "k"), w = vectors_get(&v, "v");
        tfm_tensor y = tfm_attention(v.c, q, k, w, &o);
        vectors_check(&v, y, "y", REL);
        o.mask = scattered(v.c, o.mask);
        if (!same_tensor(v.c, tfm_attention(v.c, scattered(v.c, q), scattered(v.c, k), scattered(v.c, w), &o), y))
            printf("    in case attention.%d scattered\n", v.index);
        tfm_arena_rewind(v.c, mark);
    }
    vectors_close(&v);
}
/* The function on plain arrays gives the bits of the op. */
static void plain_arrays(void) {
    vectors v;
    int plain = 0;
    if (!vectors_open(&v)) return;
    int n = vectors_begin(&v, "attention");
    for (v.index = 0; v.index < n; v.index++) {
        tfm_mark mark = tfm_arena_mark(v.c);
        tfm_attention_opts o = case_opts(&v);
        tfm_tensor q = vectors_get(&v, "q"), k = vectors_get(&v, "k"), w = vectors_get(&v, "v");
        if (q.rank == 2 && w.dim[1] == k.dim[1] && (o.mask.rank == 0 || o.mask.rank == 2)) {
            tfm_tensor out = tfm_zeros(v.c, tfm_shape2(q.dim[0], q.dim[1]));
            q = tfm_to_f32(v.c, q);
            CHECK_EQ(tfm_attention_f32((float *)out.data, floats_of(q), floats_of(k), floats_of(w), q.dim[0], k.dim[0],
                                       q.dim[1] / o.heads, floats_of(o.mask), &o), TFM_OK);
            same_tensor(v.c, out, tfm_attention(v.c, q, k, w, &o));
            plain++;
        }
        tfm_arena_rewind(v.c, mark);
    }
    CHECK(plain >= 10);
    vectors_close(&v);
}

/* What follows uses operands of its own: 4 heads over 2 of keys. */
enum { HEADS = 4, KV = 2, SIZE = 8 };
typedef struct operands { tfm_context *c; tfm_tensor q, k, v; tfm_attention_opts o; } operands;

static operands make(int64_t tq, int64_t tk) {
    operands a;
    uint64_t seed = 77 + (uint64_t)(tq * 1000 + tk);
    memset(&a, 0, sizeof a);
    a.c = tfm_context_new(NULL, NULL);
    a.q = random_tensor(a.c, &seed, tfm_shape2(tq, HEADS * SIZE), 3);
    a.k = random_tensor(a.c, &seed, tfm_shape2(tk, KV * SIZE), 1);
    a.v = random_tensor(a.c, &seed, tfm_shape2(tk, KV * SIZE), 1);
    a.o.heads = HEADS;
    a.o.kv_heads = KV;
    return a;
}
static tfm_tensor attend(operands *a) { return tfm_attention(a->c, a->q, a->k, a->v, &a->o); }

/* Grouped heads are repeated heads; three layouts of one thing. */
static void layouts_agree(void) {
    operands a = make(5, 9);
    tfm_tensor y = attend(&a);
    tfm_tensor k3 = tfm_reshape(a.c, a.k, tfm_shape3(9, KV, SIZE)), v3 = tfm_reshape(a.c, a.v, tfm_shape3(9, KV, SIZE));
    tfm_tensor kr[HEADS], vr[HEADS];
    for (int h = 0; h < HEADS; h++) {
        kr[h] = tfm_slice(a.c, k3, 1, h / 2, h / 2 + 1);
        vr[h] = tfm_slice(a.c, v3, 1, h / 2, h / 2 + 1);
    }
    tfm_attention_opts all = { .heads = HEADS };
    tfm_tensor k = tfm_reshape(a.c, tfm_concat(a.c, kr, HEADS, 1), tfm_shape2(9, HEADS * SIZE));
    tfm_tensor v = tfm_reshape(a.c, tfm_concat(a.c, vr, HEADS, 1), tfm_shape2(9, HEADS * SIZE));
    same_tensor(a.c, tfm_attention(a.c, a.q, k, v, &all), y);

    tfm_tensor q4 = tfm_transpose(a.c, tfm_reshape(a.c, a.q, tfm_shape4(1, 5, HEADS, SIZE)), 1, 2);
    tfm_tensor k4 = tfm_transpose(a.c, tfm_reshape(a.c, a.k, tfm_shape4(1, 9, KV, SIZE)), 1, 2);
    tfm_tensor v4 = tfm_transpose(a.c, tfm_reshape(a.c, a.v, tfm_shape4(1, 9, KV, SIZE)), 1, 2);
    tfm_attention_opts split = { .heads = HEADS, .kv_heads = KV };
    tfm_tensor y4 = tfm_attention(a.c, q4, k4, v4, &split);
    CHECK_EQ(y4.dim[1], HEADS);
    same_tensor(a.c, tfm_reshape(a.c, tfm_transpose(a.c, y4, 1, 2), tfm_shape2(5, HEADS * SIZE)), y);

    tfm_tensor q3 = tfm_reshape(a.c, a.q, tfm_shape3(1, 5, -1));
    k3 = tfm_reshape(a.c, a.k, tfm_shape3(1, 9, -1));
    v3 = tfm_reshape(a.c, a.v, tfm_shape3(1, 9, -1));
    tfm_tensor y3 = tfm_attention(a.c, q3, k3, v3, &a.o);
    same_tensor(a.c, tfm_reshape(a.c, y3, tfm_shape2(5, -1)), y);
    tfm_context_free(a.c);
}
/* A query's result depends on its position alone, not on the queries beside it. */
static void queries_are_independent(void) {
    operands a = make(150, 150);
    a.o.causal = true;
    for (int window = 0; window < 80; window += 70) {
        a.o.window = window;
        a.o.offset = 0;
        tfm_tensor all = attend(&a), q = a.q;
        for (int64_t i = 0; i < 150; i += 7) {
            operands one = a;
            one.q = tfm_slice(a.c, q, 0, i, i + 1);
            one.k = tfm_slice(a.c, a.k, 0, 0, i + 1);
            one.v = tfm_slice(a.c, a.v, 0, 0, i + 1);
            one.o.offset = i;
            same_tensor(a.c, attend(&one), tfm_slice(a.c, all, 0, i, i + 1));
        }
    }
    tfm_context_free(a.c);
}
static tfm_tensor explicit_mask(operands *a, bool causal, int64_t offset, int64_t window) {
    tfm_tensor m = tfm_zeros(a->c, tfm_shape2(a->q.dim[0], a->k.dim[0]));
    for (int64_t i = 0; i < m.dim[0]; i++)
        for (int64_t j = 0; j < m.dim[1]; j++)
            if ((causal && j > i + offset) || (window && j <= i + offset - window))
                ((float *)m.data)[i * m.dim[1] + j] = -INFINITY;
    return m;
}
/* Causal and windowed attention hide keys exactly as a mask does. */
static void windows_equal_masks(void) {
    static const struct { int64_t tq, tk, offset, window; bool causal; } rows[] = {
        { 6, 6, 0, 0, true }, { 6, 6, 0, 3, true }, { 20, 140, 120, 0, true }, { 20, 140, 120, 5, true },
        { 20, 140, 120, 64, true }, { 20, 140, 120, 65, true }, { 9, 30, 4, 6, false }, { 3, 8, 20, 4, true },
        { 2, 1300, 1298, 1100, true }, { 4, 9, 0, 1, true } };
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        operands a = make(rows[r].tq, rows[r].tk), b = a;
        a.o.causal = rows[r].causal;
        a.o.offset = rows[r].offset;
        a.o.window = rows[r].window;
        b.o.mask = explicit_mask(&b, rows[r].causal, rows[r].offset, rows[r].window);
        same_tensor(a.c, attend(&a), attend(&b));
        tfm_context_free(a.c);
    }
}
static void masks_broadcast(void) {
    operands a = make(4, 6);
    uint64_t seed = 5;
    tfm_tensor m = random_tensor(a.c, &seed, tfm_shape2(4, 6), 2);
    ((float *)m.data)[7] = -INFINITY;
    a.o.mask = m;
    tfm_tensor y = attend(&a);
    a.o.mask = tfm_reshape(a.c, m, tfm_shape3(1, 4, 6));
    same_tensor(a.c, attend(&a), y);
    a.o.mask = tfm_reshape(a.c, m, tfm_shape4(1, 1, 4, 6));
    same_tensor(a.c, attend(&a), y);
    tfm_tensor heads[HEADS] = { tfm_reshape(a.c, m, tfm_shape3(1, 4, 6)) };
    for (int i = 1; i < HEADS; i++) heads[i] = heads[0];
    a.o.mask = tfm_concat(a.c, heads, HEADS, 0);
    same_tensor(a.c, attend(&a), y);
    tfm_context_free(a.c);
}
/* Hidden keys count for nothing, whatever they hold. */
static void hidden_keys_are_skipped(void) {
    operands a = make(3, 5);
    a.o.mask = tfm_zeros(a.c, tfm_shape2(3, 5));
    float *m = (float *)a.o.mask.data, *k = (float *)a.k.data, *v = (float *)a.v.data;
    for (int i = 0; i < 3; i++) m[i * 5 + 2] = -INFINITY;
    tfm_tensor before = attend(&a);
    for (int i = 0; i < KV * SIZE; i++) k[2 * KV * SIZE + i] = v[2 * KV * SIZE + i] = NAN;
    tfm_tensor after = attend(&a);
    same_tensor(a.c, after, before);
    for (int j = 0; j < 5; j++) m[5 + j] = -INFINITY;
    float zeros[HEADS * SIZE] = { 0 };
    CHECK_SAME(floats_of(tfm_slice(a.c, attend(&a), 0, 1, 2)), zeros, HEADS * SIZE);
    for (int j = 0; j < 5; j++) m[5 + j] = j == 2 ? 0 : -INFINITY;
    CHECK(isnan(floats_of(attend(&a))[HEADS * SIZE]));
    tfm_context_free(a.c);
}
static void queries_that_see_nothing(void) {
    operands a = make(4, 3);
    float zeros[4 * HEADS * SIZE] = { 0 };
    a.o.causal = true;
    a.o.window = 2;
    a.o.offset = 10;                    /* the keys are all before the window */
    CHECK_SAME(floats_of(attend(&a)), zeros, 4 * HEADS * SIZE);
    a.k = a.v = tfm_zeros(a.c, tfm_shape2(0, KV * SIZE));
    a.o.window = a.o.offset = 0;
    a.o.causal = false;
    tfm_tensor y = attend(&a);
    CHECK_EQ(y.dim[0], 4);
    CHECK_SAME(floats_of(y), zeros, 4 * HEADS * SIZE);
    a.q = tfm_zeros(a.c, tfm_shape2(0, HEADS * SIZE));
    y = attend(&a);
    CHECK(y.rank == 2 && y.dim[0] == 0 && y.dim[1] == HEADS * SIZE);
    CHECK_STR(tfm_message(a.c), "");
    tfm_context_free(a.c);
}
/* Equal large scores share equally; the largest of them wins alone. */
static void large_scores(void) {
    tfm_context *c = tfm_context_new(NULL, NULL);
    float q[2] = { 1e4f, 0 }, k[8] = { 1, 0, 1, 0, -1, 0, 0.5f, 0 }, v[8] = { 1, 2, 3, 4, 5, 6, 7, 8 }, out[2];
    tfm_attention_opts o = { .scale = 1 };
    CHECK_EQ(tfm_attention_f32(out, q, k, v, 1, 4, 2, NULL, &o), TFM_OK);
    CHECK_SAME(out, ((float[]){ 2, 3 }), 2);
    q[0] = -1e4f;
    CHECK_EQ(tfm_attention_f32(out, q, k, v, 1, 4, 2, NULL, &o), TFM_OK);
    CHECK_SAME(out, ((float[]){ 5, 6 }), 2);
    tfm_context_free(c);
}
/* Capped scores are the mask that plain ones of 0 would need. */
static void capped_scores(void) {
    float q[2] = { 3, -2 }, k[6] = { 1, 0, 0.5f, 2, -1, 1 }, v[6] = { 1, 2, 3, 4, 5, 6 }, want[2], mask[3], out[2];
    tfm_attention_opts o = { .scale = 2, .cap = 4 }, none = { .scale = 1 };
    for (int i = 0; i < 3; i++) mask[i] = 4 * tanhf(2 * (q[0] * k[2 * i] + q[1] * k[2 * i + 1]) / 4);
    CHECK_EQ(tfm_attention_f32(out, q, k, v, 1, 3, 2, NULL, &o), TFM_OK);
    float zero[2] = { 0, 0 };
    CHECK_EQ(tfm_attention_f32(want, zero, k, v, 1, 3, 2, mask, &none), TFM_OK);
    CHECK_NEAR(out, want, 2, 1e-6);
}
/* No offset or window is too large: all keys lie before, or all before the window. */
static void huge_offsets(void) {
    operands a = make(3, 5);
    tfm_tensor all = attend(&a);
    float zeros[3 * HEADS * SIZE] = { 0 };
    a.o.causal = true;
    a.o.offset = INT64_MAX;
    same_tensor(a.c, attend(&a), all);
    a.o.window = INT64_MAX;
    a.o.offset = 4;
    same_tensor(a.c, attend(&a), all);
    a.o.window = 5;
    a.o.offset = INT64_MAX - 1;
    CHECK_SAME(floats_of(attend(&a)), zeros, 3 * HEADS * SIZE);
    tfm_context_free(a.c);
}
static void errors(void) {
    operands a = make(3, 5);
    a.o.heads = 3;
    CHECK_EQ(attend(&a).rank, 0);
    CHECK(tfm_status_of(a.c) != TFM_OK);
    tfm_clear(a.c);
    a.o.heads = HEADS;
    a.o.kv_heads = 3;
    CHECK_EQ(attend(&a).rank, 0);
    tfm_clear(a.c);
    a.o.kv_heads = KV;
    a.o.mask = tfm_zeros(a.c, tfm_shape2(3, 4));
    CHECK_EQ(attend(&a).rank, 0);
    CHECK_EQ(tfm_status_of(a.c), TFM_MISMATCH);
    CHECK_CONTAINS(tfm_message(a.c), "3x4");
    tfm_clear(a.c);
    a.o.mask = tfm_none();
    tfm_tensor v = a.v;
    a.v = tfm_slice(a.c, v, 0, 0, 4);
    CHECK_EQ(attend(&a).rank, 0);
    CHECK_EQ(tfm_status_of(a.c), TFM_MISMATCH);
    tfm_clear(a.c);
    a.v = v;
    a.o.window = -1;
    CHECK_EQ(attend(&a).rank, 0);
    CHECK_EQ(tfm_status_of(a.c), TFM_ARGUMENT);
    tfm_context_free(a.c);

    static float x[2048];
    float out[4];
    tfm_attention_opts o = { .heads = 3, .kv_heads = 2 };
    CHECK_EQ(tfm_attention_f32(out, x, x, x, 1, 1, 4, NULL, &o), TFM_ARGUMENT);
    CHECK_EQ(tfm_attention_f32(out, x, x, x, 1, 1, 1025, NULL, NULL), TFM_ARGUMENT);
    CHECK_EQ(tfm_attention_f32(out, x, x, x, -1, 1, 4, NULL, NULL), TFM_ARGUMENT);
    CHECK_EQ(tfm_attention_f32(out, x, x, x, 1, -1, 4, NULL, NULL), TFM_ARGUMENT);
    CHECK_EQ(tfm_attention_f32(out, x, x, x, 1, 1, 0, NULL, NULL), TFM_ARGUMENT);
    CHECK_EQ(tfm_attention_f32(NULL, x, x, x, 1, 1, 4, NULL, NULL), TFM_ARGUMENT);
    CHECK_EQ(tfm_attention_f32(out, x, NULL, x, 1, 1, 4, NULL, NULL), TFM_ARGUMENT);
    CHECK_EQ(tfm_attention_f32(out, x, x, x, 1, 1, 4, NULL, NULL), TFM_OK);
}

const test_case tests_attention[] = {
    { "vectors_of_pytorch", vectors_of_pytorch, QUICK },
    { "plain_arrays", plain_arrays, QUICK },
    { "layouts_agree", layouts_agree, QUICK },
    { "queries_are_independent", queries_are_independent, QUICK },
    { "windows_equal_masks", windows_equal_masks, QUICK },
    { "masks_broadcast", masks_broadcast, QUICK },
    { "hidden_keys_are_skipped", hidden_keys_are_skipped, QUICK },
    { "queries_that_see_nothing", queries_that_see_nothing, QUICK },
    { "large_scores", large_scores, QUICK },
    { "capped_scores", capped_scores, QUICK },
    { "huge_offsets", huge_offsets, QUICK },
    { "errors", errors, QUICK },
    { NULL, NULL, SLOW }
};
