/* vectors.h - reads tests/data/ops.gguf, which tools/vectors/make_vectors.py makes with PyTorch:
   case N of an op is the tensors "OP.N.NAME", and metadata "cases.OP" counts them. */
#ifndef VECTORS_H
#define VECTORS_H

#include "test.h"
#include "tfm.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__GNUC__) || defined(__clang__)
#define VECTORS_FN static __attribute__((unused))
#else
#define VECTORS_FN static
#endif

typedef struct vectors {
    tfm_context *c;
    tfm_file *file;
    unsigned char *bytes;
    const char *op;                     /* the case at hand */
    int index;
} vectors;

VECTORS_FN void vectors_close(vectors *v) {
    tfm_context_free(v->c);
    tfm_file_free(v->file);
    free(v->bytes);
}
VECTORS_FN bool vectors_open(vectors *v) {
    tfm_error err = { TFM_OK, "" };
    size_t size = 0;
    memset(v, 0, sizeof *v);
    v->bytes = test_read("tests/data/ops.gguf", &size);
    if (!v->bytes) return false;
    v->file = tfm_file_from_memory(v->bytes, size, NULL, &err);
    if (v->file) v->c = tfm_context_new(NULL, &err);
    CHECK_STR(err.message, "");
    if (CHECK(v->c != NULL)) return true;
    vectors_close(v);
    return false;
}
/* How many cases the file has of op: a failed check if none. */
VECTORS_FN int vectors_begin(vectors *v, const char *op) {
    char key[64];
    tfm_value value;
    uint64_t n = 0;
    v->op = op;
    snprintf(key, sizeof key, "cases.%s", op);
    CHECK(tfm_file_meta(v->file, key, &value) && tfm_value_u64(&value, &n));
    if (!CHECK(n > 0 && n < 1000)) return 0;
    return (int)n;
}
/* A tensor of the case at hand; none if the file has no such. */
VECTORS_FN tfm_tensor vectors_get(const vectors *v, const char *name) {
    char full[96];
    tfm_tensor_info info;
    snprintf(full, sizeof full, "%s.%d.%s", v->op, v->index, name);
    return tfm_file_tensor(v->file, full, &info) ? info.tensor : tfm_none();
}
VECTORS_FN tfm_tensor vectors_get_numbered(const vectors *v, const char *name, int number) {
    char full[32];
    snprintf(full, sizeof full, "%s%d", name, number);
    return vectors_get(v, full);
}
VECTORS_FN int vectors_int(const vectors *v, int at) {
    int32_t value = 0;
    tfm_tensor t = vectors_get(v, "i");
    if (CHECK(t.type == TFM_I32 && at < t.dim[0]))
        memcpy(&value, (const char *)t.data + 4 * (size_t)at, sizeof value);
    return value;
}
VECTORS_FN float vectors_float(const vectors *v, int at) {
    float value = 0;
    tfm_tensor t = vectors_get(v, "f");
    if (CHECK(t.type == TFM_F32 && at < t.dim[0]))
        memcpy(&value, (const char *)t.data + 4 * (size_t)at, sizeof value);
    return value;
}
VECTORS_FN const float *floats_of(tfm_tensor t) { return (const float *)t.data; }

/* Is x the tensor NAME of the case: same shape, and within rel of its largest magnitude? */
VECTORS_FN bool vectors_check(vectors *v, tfm_tensor x, const char *name, double rel) {
    bool good = true;
    tfm_tensor want = vectors_get(v, name);
    good &= CHECK_STR(tfm_message(v->c), "");
    good &= CHECK(want.rank > 0);
    good &= CHECK_EQ(x.rank, want.rank);
    for (int i = 0; i < want.rank && i < x.rank; i++) good &= CHECK_EQ(x.dim[i], want.dim[i]);
    x = tfm_contiguous(v->c, x);
    if (good && want.type == TFM_I32) {
        good &= CHECK_EQ(x.type, TFM_I32);
        good = good && CHECK(memcmp(x.data, want.data, (size_t)tfm_count(want) * 4) == 0);
    } else if (good) {
        good &= CHECK_EQ(x.type, TFM_F32);
        good = good && CHECK_NEAR(floats_of(x), floats_of(want), tfm_count(want), rel);
#ifdef VECTORS_REPORT
        double largest = 1e-300, worst = 0;
        for (int64_t i = 0; i < tfm_count(want); i++) {
            double a = (double)floats_of(x)[i], b = (double)floats_of(want)[i];
            if (isfinite(b) && fabs(b) > largest) largest = fabs(b);
            if (isfinite(b) && fabs(a - b) > worst) worst = fabs(a - b);
        }
        printf("error %s %.3g\n", v->op, worst / largest);
#endif
    }
    if (!good) printf("    in case %s.%d.%s\n", v->op, v->index, name);
    return good;
}
/* The same, each element by its own magnitude, but for what is near the smallest float. */
VECTORS_FN void vectors_check_each(vectors *v, tfm_tensor x, const char *name, double rel) {
    tfm_tensor want = vectors_get(v, name);
    if (!vectors_check(v, x, name, rel)) return;
    x = tfm_contiguous(v->c, x);
    for (int64_t i = 0; i < tfm_count(want); i++) {
        double a = (double)floats_of(x)[i], b = (double)floats_of(want)[i];
        if (a == b || fabs(a - b) <= rel * fabs(b) + 1e-36) continue;
        CHECK_NEAR(floats_of(x) + i, floats_of(want) + i, 1, rel);
        printf("    in case %s.%d.%s, element %d\n", v->op, v->index, name, (int)i);
        return;
    }
}

/* The values of t (f32) in other memory of c's arena, with the axes in reverse order there and gaps
   between the elements. */
VECTORS_FN tfm_tensor scattered(tfm_context *c, tfm_tensor t) {
    if (t.rank == 0 || tfm_count(t) == 0) return t;
    tfm_tensor r = tfm_zeros(c, tfm_shape1(2 * tfm_count(t)));
    int64_t step = 8, index[4] = { 0, 0, 0, 0 };
    if (!r.data) return t;
    r.rank = t.rank;
    for (int i = 0; i < t.rank; i++) {
        r.dim[i] = t.dim[i];
        r.stride[i] = step;
        step *= t.dim[i];
    }
    for (int64_t n = tfm_count(t); n > 0; n--) {
        int64_t from = 0, to = 0;
        for (int i = 0; i < t.rank; i++) from += index[i] * t.stride[i], to += index[i] * r.stride[i];
        memcpy((char *)r.data + to, (const char *)t.data + from, 4);
        for (int i = t.rank - 1; i >= 0 && ++index[i] == t.dim[i]; i--) index[i] = 0;
    }
    return r;
}
/* Do a and b (contiguous f32) hold the same shape and bits? */
VECTORS_FN bool same_tensor(tfm_context *c, tfm_tensor a, tfm_tensor b) {
    a = tfm_contiguous(c, a);
    b = tfm_contiguous(c, b);
    bool good = CHECK_STR(tfm_message(c), "") && CHECK_EQ(a.rank, b.rank);
    for (int i = 0; good && i < a.rank; i++) good = CHECK_EQ(a.dim[i], b.dim[i]);
    return good && CHECK_EQ(a.type, b.type) && CHECK_SAME(floats_of(a), floats_of(b), tfm_count(a));
}
/* n numbers in [-scale, scale) in c's arena, shaped. */
VECTORS_FN tfm_tensor random_tensor(tfm_context *c, uint64_t *state, tfm_shape shape, float scale) {
    tfm_tensor t = tfm_zeros(c, shape);
    if (t.data)
        for (int64_t i = 0; i < tfm_count(t); i++) ((float *)t.data)[i] = test_uniform(state) * scale;
    return t;
}

#endif
