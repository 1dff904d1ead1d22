/* Every op against PyTorch's results, from contiguous operands and from scattered ones. */
#include "vectors.h"

#define REL 1e-5

typedef tfm_tensor (*unary_fn)(tfm_context *, tfm_tensor);
typedef tfm_tensor (*binary_fn)(tfm_context *, tfm_tensor, tfm_tensor);
typedef tfm_tensor (*axis_fn)(tfm_context *, tfm_tensor, int);

/* Makes all cases of an op by `run`, which is given them once as stored and once scattered: the
   first result is compared with the file's, the second must be the same bits. */
typedef struct operands { bool scatter; const void *fn; } operands;
typedef tfm_tensor (*case_fn)(vectors *v, const operands *o);

static tfm_tensor operand(vectors *v, const operands *o, const char *name) {
    tfm_tensor t = vectors_get(v, name);
    return o->scatter ? scattered(v->c, t) : t;
}
static void run_cases(const char *op, case_fn run, const void *fn, const char *result, bool each) {
    vectors v;
    if (!vectors_open(&v)) return;
    int n = vectors_begin(&v, op);
    for (v.index = 0; v.index < n; v.index++) {
        operands plain = { false, fn }, moved = { true, fn };
        tfm_mark mark = tfm_arena_mark(v.c);
        tfm_tensor a = run(&v, &plain);
        if (each) vectors_check_each(&v, a, result, REL);
        else vectors_check(&v, a, result, REL);
        tfm_tensor b = run(&v, &moved);
        if (a.type == TFM_F32 && !same_tensor(v.c, b, a)) printf("    in case %s.%d scattered\n", op, v.index);
        tfm_arena_rewind(v.c, mark);
    }
    vectors_close(&v);
}

static tfm_tensor unary_case(vectors *v, const operands *o) {
    return (*(const unary_fn *)o->fn)(v->c, operand(v, o, "a"));
}
static tfm_tensor binary_case(vectors *v, const operands *o) {
    return (*(const binary_fn *)o->fn)(v->c, operand(v, o, "a"), operand(v, o, "b"));
}
/* Also checks that the axis may be counted from the end. */
static tfm_tensor axis_case(vectors *v, const operands *o) {
    tfm_tensor a = operand(v, o, "a");
    int axis = vectors_int(v, 0);
    return (*(const axis_fn *)o->fn)(v->c, a, o->scatter ? axis - a.rank : axis);
}
static void unary(const char *op, unary_fn fn, bool each) { run_cases(op, unary_case, &fn, "y", each); }
static void binary(const char *op, binary_fn fn) { run_cases(op, binary_case, &fn, "y", false); }
static void along(const char *op, axis_fn fn) { run_cases(op, axis_case, &fn, "y", false); }

static void matmul(void) { binary("matmul", tfm_matmul); }
static void add(void) { binary("add", tfm_add); }
static void sub(void) { binary("sub", tfm_sub); }
static void mul(void) { binary("mul", tfm_mul); }
static void divide(void) { binary("div", tfm_div); }
static void sum(void) { along("sum", tfm_sum); }
static void mean(void) { along("mean", tfm_mean); }
static void max(void) { along("max", tfm_max); }
static void argmax(void) { along("argmax", tfm_argmax); }
static void softmax(void) { along("softmax", tfm_softmax); }
static void log_softmax(void) { along("log_softmax", tfm_log_softmax); }
static void relu(void) { unary("relu", tfm_relu, true); }
static void gelu(void) { unary("gelu", tfm_gelu, false); }
static void gelu_tanh(void) { unary("gelu_tanh", tfm_gelu_tanh, false); }
static void silu(void) { unary("silu", tfm_silu, true); }
static void hyperbolic_tangent(void) { unary("tanh", tfm_tanh, true); }
static void sigmoid(void) { unary("sigmoid", tfm_sigmoid, true); }

/* Both sides handed over as transposed views, as weights usually are. */
static tfm_tensor matmul_transposed_case(vectors *v, const operands *o) {
    tfm_tensor t[2] = { vectors_get(v, "a"), vectors_get(v, "b") };
    for (int i = 0; i < 2; i++)
        if (t[i].rank > 1 && (i == 1 || o->scatter))
            t[i] = tfm_transpose(v->c, tfm_contiguous(v->c, tfm_transpose(v->c, t[i], -1, -2)), -2, -1);
    return tfm_matmul(v->c, t[0], t[1]);
}
static void matmul_of_transposed_views(void) { run_cases("matmul", matmul_transposed_case, NULL, "y", false); }

static tfm_tensor scale_case(vectors *v, const operands *o) {
    return tfm_scale(v->c, operand(v, o, "a"), vectors_float(v, 0));
}
static void scale(void) { run_cases("scale", scale_case, NULL, "y", true); }

static tfm_tensor topk_case(vectors *v, const operands *o) {
    tfm_tensor indices = tfm_none();
    tfm_tensor values = tfm_topk(v->c, operand(v, o, "a"), vectors_int(v, 0), o->scatter ? NULL : &indices);
    if (!o->scatter) vectors_check(v, indices, "indices", 0);
    return values;
}
static void topk(void) { run_cases("topk", topk_case, NULL, "values", true); }

static tfm_tensor layernorm_case(vectors *v, const operands *o) {
    return tfm_layernorm(v->c, operand(v, o, "a"), operand(v, o, "w"), operand(v, o, "b"), vectors_float(v, 0));
}
static tfm_tensor rmsnorm_case(vectors *v, const operands *o) {
    return tfm_rmsnorm(v->c, operand(v, o, "a"), operand(v, o, "w"), vectors_float(v, 0));
}
static void layernorm(void) { run_cases("layernorm", layernorm_case, NULL, "y", false); }
static void rmsnorm(void) { run_cases("rmsnorm", rmsnorm_case, NULL, "y", false); }

static tfm_tensor rope_case(vectors *v, const operands *o) {
    tfm_rope_opts r = { 0 };
    r.half_split = vectors_int(v, 0) != 0;
    r.dims = vectors_int(v, 2);
    r.scaling = (tfm_rope_scaling)vectors_int(v, 3);
    r.original_context = vectors_int(v, 4);
    r.base = vectors_float(v, 0);
    r.factor = vectors_float(v, 1);
    r.attn_factor = vectors_float(v, 2);
    r.beta_fast = vectors_float(v, 3);
    r.beta_slow = vectors_float(v, 4);
    r.freq_factors = floats_of(vectors_get(v, "ff"));
    return tfm_rope(v->c, operand(v, o, "a"), vectors_int(v, 1), &r);
}
static void rope(void) { run_cases("rope", rope_case, NULL, "y", false); }

static void rope_defaults(void) {
    tfm_context *c = tfm_context_new(NULL, NULL);
    uint64_t seed = 3;
    tfm_tensor x = random_tensor(c, &seed, tfm_shape3(4, 2, 16), 1);
    tfm_rope_opts named = { .base = 10000, .factor = 1, .attn_factor = 1, .dims = 16, .beta_fast = 32, .beta_slow = 1 };
    same_tensor(c, tfm_rope(c, x, 9, NULL), tfm_rope(c, x, 9, &named));
    tfm_tensor all = tfm_rope(c, x, 5, NULL);           /* by position, however it is cut */
    for (int64_t i = 0; i < 4; i++)
        same_tensor(c, tfm_slice(c, all, 0, i, i + 1), tfm_rope(c, tfm_slice(c, x, 0, i, i + 1), 5 + i, NULL));
    tfm_rope_opts odd = { .dims = 7 };
    CHECK_EQ(tfm_rope(c, x, 0, &odd).rank, 0);
    CHECK_EQ(tfm_status_of(c), TFM_ARGUMENT);
    tfm_clear(c);
    tfm_rope_opts wide = { .dims = 18 };
    CHECK_EQ(tfm_rope(c, x, 0, &wide).rank, 0);
    CHECK_EQ(tfm_status_of(c), TFM_ARGUMENT);
    tfm_context_free(c);
}

static tfm_tensor embedding_case(vectors *v, const operands *o) {
    tfm_tensor ids = vectors_get(v, "i");
    return tfm_embedding(v->c, operand(v, o, "table"), (const int32_t *)ids.data, tfm_count(ids));
}
static void embedding(void) { run_cases("embedding", embedding_case, NULL, "y", false); }

static tfm_tensor dense_case(vectors *v, const operands *o) {
    return tfm_dense(v->c, operand(v, o, "x"), operand(v, o, "w"), operand(v, o, "b"));
}
static void dense(void) { run_cases("dense", dense_case, NULL, "y", false); }

static tfm_tensor concat_case(vectors *v, const operands *o) {
    tfm_tensor parts[8];
    int count = vectors_int(v, 1), axis = vectors_int(v, 0);
    for (int i = 0; i < count && i < 8; i++) {
        parts[i] = vectors_get_numbered(v, "p", i);
        if (o->scatter) parts[i] = scattered(v->c, parts[i]);
    }
    return tfm_concat(v->c, parts, count, o->scatter ? axis - parts[0].rank : axis);
}
static void concat(void) { run_cases("concat", concat_case, NULL, "y", false); }

static tfm_tensor conv2d_case(vectors *v, const operands *o) {
    tfm_conv2d_opts opts;
    for (int i = 0; i < 2; i++) {
        opts.stride[i] = vectors_int(v, i);
        opts.padding[i] = vectors_int(v, 2 + i);
        opts.dilation[i] = vectors_int(v, 4 + i);
    }
    opts.groups = vectors_int(v, 6);
    return tfm_conv2d(v->c, operand(v, o, "x"), operand(v, o, "w"), operand(v, o, "b"), &opts);
}
static void conv2d(void) { run_cases("conv2d", conv2d_case, NULL, "y", false); }

/* NaN and infinity ------------------------------------------------------------------------- */

static void nan_goes_through(void) {
    static const unary_fn functions[] = { tfm_relu, tfm_gelu, tfm_gelu_tanh, tfm_silu, tfm_tanh, tfm_sigmoid };
    static const axis_fn rows[] = { tfm_sum, tfm_mean, tfm_max };
    static const axis_fn maps[] = { tfm_softmax, tfm_log_softmax };
    tfm_context *c = tfm_context_new(NULL, NULL);
    float data[6] = { 1, NAN, 2, 3, -4, 5 };
    tfm_tensor x = tfm_wrap(c, data, tfm_shape2(2, 3));
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        const float *y = floats_of(functions[i](c, x));
        CHECK(y && isnan(y[1]) && !isnan(y[0]) && !isnan(y[3]));
    }
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const float *y = floats_of(rows[i](c, x, 1));
        CHECK(y && isnan(y[0]) && !isnan(y[1]));
        y = floats_of(rows[i](c, x, 0));
        CHECK(y && isnan(y[1]) && !isnan(y[0]) && !isnan(y[2]));
    }
    for (size_t i = 0; i < sizeof maps / sizeof *maps; i++) {
        const float *y = floats_of(maps[i](c, x, -1));
        CHECK(y && isnan(y[0]) && isnan(y[2]) && !isnan(y[3]));
    }
    const float *n = floats_of(tfm_layernorm(c, x, tfm_none(), tfm_none(), 1e-5f));
    CHECK(n && isnan(n[0]) && isnan(n[2]) && !isnan(n[3]));
    n = floats_of(tfm_rmsnorm(c, x, tfm_none(), 1e-5f));
    CHECK(n && isnan(n[0]) && isnan(n[2]) && !isnan(n[3]));
    n = floats_of(tfm_matmul(c, x, tfm_transpose(c, x, 0, 1)));
    CHECK(n && isnan(n[0]) && isnan(n[1]) && isnan(n[2]) && !isnan(n[3]));
    CHECK_STR(tfm_message(c), "");
    tfm_context_free(c);
}
static void infinity_has_its_limits(void) {
    tfm_context *c = tfm_context_new(NULL, NULL);
    float data[4] = { -INFINITY, INFINITY, -3e38f, 3e38f };
    tfm_tensor x = tfm_wrap(c, data, tfm_shape1(4));
    CHECK_SAME(floats_of(tfm_tanh(c, x)), ((float[]){ -1, 1, -1, 1 }), 4);
    CHECK_SAME(floats_of(tfm_sigmoid(c, x)), ((float[]){ 0, 1, 0, 1 }), 4);
    CHECK_SAME(floats_of(tfm_relu(c, x)), ((float[]){ 0, INFINITY, 0, 3e38f }), 4);
    const float *g = floats_of(tfm_gelu(c, x)), *t = floats_of(tfm_gelu_tanh(c, x)), *s = floats_of(tfm_silu(c, x));
    CHECK(g && g[2] == 0 && g[3] == 3e38f && g[1] == INFINITY);
    CHECK(t && t[2] == 0 && t[3] == 3e38f && t[1] == INFINITY);
    CHECK(s && s[2] == 0 && s[3] == 3e38f && s[1] == INFINITY);
    CHECK_SAME(floats_of(tfm_max(c, x, 0)), &data[1], 1);
    CHECK_STR(tfm_message(c), "");
    tfm_context_free(c);
}

/* Empty and one-element operands ------------------------------------------------------------ */

static bool has_shape(tfm_tensor t, tfm_shape s) {
    if (t.rank != s.rank) return false;
    for (int i = 0; i < s.rank; i++)
        if (t.dim[i] != s.dim[i]) return false;
    return true;
}
static void empty_tensors(void) {
    static const unary_fn functions[] = { tfm_relu, tfm_gelu, tfm_gelu_tanh, tfm_silu, tfm_tanh, tfm_sigmoid };
    static const axis_fn maps[] = { tfm_softmax, tfm_log_softmax };
    tfm_context *c = tfm_context_new(NULL, NULL);
    tfm_tensor none = tfm_zeros(c, tfm_shape2(3, 0)), flat = tfm_wrap(c, NULL, tfm_shape2(0, 3));
    tfm_tensor w = tfm_zeros(c, tfm_shape2(4, 3));
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        CHECK(has_shape(functions[i](c, none), tfm_shape2(3, 0)));
    for (size_t i = 0; i < sizeof maps / sizeof *maps; i++)
        for (int axis = 0; axis < 2; axis++) CHECK(has_shape(maps[i](c, none, axis), tfm_shape2(3, 0)));
    CHECK(has_shape(tfm_add(c, none, none), tfm_shape2(3, 0)));
    CHECK(has_shape(tfm_mul(c, none, tfm_zeros(c, tfm_shape1(1))), tfm_shape2(3, 0)));
    CHECK(has_shape(tfm_scale(c, none, 2), tfm_shape2(3, 0)));
    CHECK(has_shape(tfm_layernorm(c, none, tfm_none(), tfm_none(), 1e-5f), tfm_shape2(3, 0)));
    CHECK(has_shape(tfm_rmsnorm(c, flat, tfm_none(), 1e-5f), tfm_shape2(0, 3)));
    CHECK(has_shape(tfm_dense(c, flat, w, tfm_none()), tfm_shape2(0, 4)));
    CHECK(has_shape(tfm_embedding(c, w, NULL, 0), tfm_shape2(0, 3)));
    CHECK(has_shape(tfm_slice(c, w, 0, 2, 2), tfm_shape2(0, 3)));
    CHECK(has_shape(tfm_transpose(c, none, 0, 1), tfm_shape2(0, 3)));
    CHECK(has_shape(tfm_reshape(c, none, tfm_shape3(0, 5, 2)), tfm_shape3(0, 5, 2)));
    CHECK(has_shape(tfm_contiguous(c, none), tfm_shape2(3, 0)));
    CHECK(has_shape(tfm_rope(c, tfm_zeros(c, tfm_shape3(0, 2, 4)), 0, NULL), tfm_shape3(0, 2, 4)));
    tfm_tensor both[2] = { flat, w };
    CHECK(has_shape(tfm_concat(c, both, 2, 0), tfm_shape2(4, 3)));
    CHECK_STR(tfm_message(c), "");
    /* sums over nothing are 0, means and largest of nothing NaN */
    float zeros[3] = { 0, 0, 0 };
    tfm_tensor s = tfm_sum(c, none, 1), m = tfm_mean(c, none, 1), x = tfm_max(c, none, 1);
    CHECK(has_shape(s, tfm_shape1(3)) && has_shape(m, tfm_shape1(3)) && has_shape(x, tfm_shape1(3)));
    CHECK_SAME(floats_of(s), zeros, 3);
    CHECK(m.data && isnan(floats_of(m)[0]) && isnan(floats_of(m)[2]));
    CHECK(x.data && isnan(floats_of(x)[0]) && isnan(floats_of(x)[2]));
    CHECK(has_shape(tfm_sum(c, none, 0), tfm_shape1(0)));
    /* an empty inner dimension: sums over nothing */
    tfm_tensor y = tfm_matmul(c, none, tfm_transpose(c, none, 0, 1));
    CHECK(has_shape(y, tfm_shape2(3, 3)));
    CHECK_SAME(floats_of(y), ((float[9]){ 0 }), 9);
    CHECK_STR(tfm_message(c), "");
    tfm_context_free(c);
}

/* Wrong operands ---------------------------------------------------------------------------- */

static void expect(tfm_context *c, tfm_tensor got, tfm_status status, const char *part, const char *other) {
    CHECK_EQ(got.rank, 0);
    CHECK(got.data == NULL);
    CHECK_EQ(tfm_status_of(c), status);
    CHECK_CONTAINS(tfm_message(c), part);
    if (other) CHECK_CONTAINS(tfm_message(c), other);
    tfm_clear(c);
}
static void mismatched_shapes(void) {
    tfm_context *c = tfm_context_new(NULL, NULL);
    tfm_tensor a = tfm_zeros(c, tfm_shape2(3, 4)), b = tfm_zeros(c, tfm_shape2(5, 6)), v = tfm_zeros(c, tfm_shape1(7));
    expect(c, tfm_matmul(c, a, b), TFM_MISMATCH, "3x4", "5x6");
    expect(c, tfm_matmul(c, tfm_zeros(c, tfm_shape3(2, 3, 4)), tfm_zeros(c, tfm_shape3(3, 4, 5))), TFM_MISMATCH, "2",
           "3");
    expect(c, tfm_matmul(c, v, a), TFM_MISMATCH, "7", "3x4");
    expect(c, tfm_add(c, a, b), TFM_MISMATCH, "3x4", "5x6");
    expect(c, tfm_sub(c, a, v), TFM_MISMATCH, "3x4", "7");
    expect(c, tfm_mul(c, v, a), TFM_MISMATCH, "3x4", "7");
    expect(c, tfm_div(c, b, a), TFM_MISMATCH, "5x6", "3x4");
    expect(c, tfm_dense(c, a, b, tfm_none()), TFM_MISMATCH, "3x4", "5x6");
    expect(c, tfm_dense(c, a, tfm_zeros(c, tfm_shape2(5, 4)), v), TFM_MISMATCH, "7", "5");
    expect(c, tfm_layernorm(c, a, v, tfm_none(), 1e-5f), TFM_MISMATCH, "7", "4");
    expect(c, tfm_layernorm(c, a, tfm_none(), v, 1e-5f), TFM_MISMATCH, "7", "4");
    expect(c, tfm_rmsnorm(c, a, v, 1e-5f), TFM_MISMATCH, "7", "4");
    tfm_tensor parts[2] = { a, b };
    expect(c, tfm_concat(c, parts, 2, 0), TFM_MISMATCH, "3x4", "5x6");
    expect(c, tfm_concat(c, parts, 0, 0), TFM_ARGUMENT, "0", NULL);
    int32_t ids[3] = { 0, 2, 3 };
    expect(c, tfm_embedding(c, a, ids, 3), TFM_ARGUMENT, "3", NULL);
    ids[1] = -1;
    expect(c, tfm_embedding(c, a, ids, 2), TFM_ARGUMENT, "-1", NULL);
    expect(c, tfm_topk(c, a, 5, NULL), TFM_ARGUMENT, "5", "4");
    expect(c, tfm_topk(c, a, -1, NULL), TFM_ARGUMENT, "-1", NULL);
    expect(c, tfm_conv2d(c, tfm_zeros(c, tfm_shape3(3, 5, 5)), tfm_zeros(c, tfm_shape4(2, 4, 3, 3)), tfm_none(), NULL),
           TFM_MISMATCH, "3", "4");
    expect(c, tfm_conv2d(c, tfm_zeros(c, tfm_shape3(3, 2, 2)), tfm_zeros(c, tfm_shape4(2, 3, 3, 3)), tfm_none(), NULL),
           TFM_MISMATCH, "2", "3");
    expect(c, tfm_add(c, a, tfm_none()), TFM_ARGUMENT, "add", NULL);
    int32_t whole[4] = { 1, 2, 3, 4 };
    expect(c, tfm_add(c, tfm_wrap_type(c, whole, TFM_I32, tfm_shape1(4)), v), TFM_UNSUPPORTED, "I32", NULL);
    tfm_context_free(c);
}
static void axes_out_of_range(void) {
    static const axis_fn functions[] = { tfm_sum, tfm_mean, tfm_max, tfm_argmax, tfm_softmax, tfm_log_softmax };
    tfm_context *c = tfm_context_new(NULL, NULL);
    tfm_tensor a = tfm_zeros(c, tfm_shape2(3, 4));
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        expect(c, functions[i](c, a, 2), TFM_ARGUMENT, "2", NULL);
        expect(c, functions[i](c, a, -3), TFM_ARGUMENT, "-3", NULL);
    }
    expect(c, tfm_transpose(c, a, 0, 2), TFM_ARGUMENT, "2", NULL);
    expect(c, tfm_slice(c, a, -3, 0, 1), TFM_ARGUMENT, "-3", NULL);
    expect(c, tfm_slice(c, a, 1, 2, 5), TFM_ARGUMENT, "5", "4");
    expect(c, tfm_slice(c, a, 1, -1, 2), TFM_ARGUMENT, "-1", NULL);
    expect(c, tfm_slice(c, a, 1, 3, 2), TFM_ARGUMENT, "3", "2");
    expect(c, tfm_permute(c, a, (int[4]){ 0, 0, 0, 0 }), TFM_ARGUMENT, "0", NULL);
    expect(c, tfm_concat(c, &a, 1, 2), TFM_ARGUMENT, "2", NULL);
    tfm_context_free(c);
}

const test_case tests_ops[] = {
    { "matmul", matmul, QUICK },
    { "matmul_of_transposed_views", matmul_of_transposed_views, QUICK },
    { "add", add, QUICK },
    { "sub", sub, QUICK },
    { "mul", mul, QUICK },
    { "div", divide, QUICK },
    { "scale", scale, QUICK },
    { "sum", sum, QUICK },
    { "mean", mean, QUICK },
    { "max", max, QUICK },
    { "argmax", argmax, QUICK },
    { "topk", topk, QUICK },
    { "softmax", softmax, QUICK },
    { "log_softmax", log_softmax, QUICK },
    { "relu", relu, QUICK },
    { "gelu", gelu, QUICK },
    { "gelu_tanh", gelu_tanh, QUICK },
    { "silu", silu, QUICK },
    { "tanh", hyperbolic_tangent, QUICK },
    { "sigmoid", sigmoid, QUICK },
    { "layernorm", layernorm, QUICK },
    { "rmsnorm", rmsnorm, QUICK },
    { "rope", rope, QUICK },
    { "rope_defaults", rope_defaults, QUICK },
    { "embedding", embedding, QUICK },
    { "dense", dense, QUICK },
    { "concat", concat, QUICK },
    { "conv2d", conv2d, QUICK },
    { "nan_goes_through", nan_goes_through, QUICK },
    { "infinity_has_its_limits", infinity_has_its_limits, QUICK },
    { "empty_tensors", empty_tensors, QUICK },
    { "mismatched_shapes", mismatched_shapes, QUICK },
    { "axes_out_of_range", axes_out_of_range, QUICK },
    { NULL, NULL, SLOW }
};
