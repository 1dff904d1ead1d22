/* Tensors, views, the arena, and errors that stay. */
#include "vectors.h"

static tfm_context *context(void) {
    tfm_error err;
    tfm_context *c = tfm_context_new(NULL, &err);
    CHECK_STR(err.message, "");
    return c;
}
/* 0, 1, 2 ... in the arena */
static tfm_tensor counting(tfm_context *c, tfm_shape shape) {
    tfm_tensor t = tfm_zeros(c, shape);
    for (int64_t i = 0; t.data && i < tfm_count(t); i++) ((float *)t.data)[i] = (float)i;
    return t;
}
static bool shape_is(tfm_tensor t, int rank, int64_t a, int64_t b, int64_t c, int64_t d) {
    int64_t want[4] = { a, b, c, d };
    bool good = CHECK_EQ(t.rank, rank);
    for (int i = 0; good && i < rank; i++) good = CHECK_EQ(t.dim[i], want[i]);
    return good;
}
/* The element at an index, through the strides. */
static float at(tfm_tensor t, int64_t a, int64_t b, int64_t c, int64_t d) {
    int64_t index[4] = { a, b, c, d }, offset = 0;
    float f;
    for (int i = 0; i < t.rank; i++) offset += index[i] * t.stride[i];
    memcpy(&f, (const char *)t.data + offset, sizeof f);
    return f;
}

static void shapes(void) {
    CHECK_EQ(tfm_shape1(7).rank, 1);
    CHECK_EQ(tfm_shape2(7, 8).dim[1], 8);
    CHECK_EQ(tfm_shape3(7, 8, 9).dim[2], 9);
    CHECK_EQ(tfm_shape4(7, 8, 9, 10).dim[3], 10);
    CHECK_EQ(tfm_shape4(7, 8, 9, 10).rank, 4);
    tfm_context *c = context();
    CHECK_EQ(tfm_count(tfm_zeros(c, tfm_shape4(2, 3, 4, 5))), 120);
    CHECK_EQ(tfm_count(tfm_zeros(c, tfm_shape2(2, 0))), 0);
    CHECK_EQ(tfm_count(tfm_none()), 0);
    CHECK_EQ(tfm_none().rank, 0);
    tfm_tensor z = tfm_zeros(c, tfm_shape1(100));
    CHECK_EQ((uintptr_t)z.data % TFM_ALIGN, 0);
    CHECK_SAME(floats_of(z), ((float[100]){ 0 }), 100);
    tfm_context_free(c);
}
static void types(void) {
    static const struct { tfm_type type; const char *name; int number, block, bytes; } rows[] = {
#define TFM__X(name, number, block, bytes) { TFM_##name, #name, number, block, bytes },
        TFM_TYPES(TFM__X)
#undef TFM__X
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        CHECK_EQ(rows[i].type, rows[i].number);
        CHECK_STR(tfm_type_name(rows[i].type), rows[i].name);
        CHECK_EQ(tfm_type_block(rows[i].type), rows[i].block);
        CHECK_EQ(tfm_type_bytes(rows[i].type), rows[i].bytes);
    }
    CHECK_STR(tfm_type_name(TFM_TYPE_NONE), "?");
    CHECK_STR(tfm_type_name((tfm_type)77), "?");
    CHECK_EQ(tfm_type_block((tfm_type)77), 0);
    CHECK_EQ(tfm_type_bytes(TFM_TYPE_NONE), 0);
    for (int s = 0; s < TFM_STATUS_COUNT; s++) CHECK(strlen(tfm_status_name((tfm_status)s)) > 1);
    CHECK_STR(tfm_status_name(TFM_MEMORY), "out of memory");
    CHECK_STR(tfm_level_name(TFM_LEVEL_FMA), "fma");
    CHECK(tfm_level_available(TFM_LEVEL_AUTO));
    CHECK(!tfm_level_available(TFM_LEVEL_COUNT));
    CHECK(tfm_cpu_count() >= 1);
}
static void wrapping_copies_nothing(void) {
    tfm_context *c = context();
    float data[6] = { 1, 2, 3, 4, 5, 6 };
    tfm_mark mark = tfm_arena_mark(c);
    tfm_tensor t = tfm_wrap(c, data, tfm_shape2(2, 3));
    CHECK(t.data == (void *)data);
    CHECK_EQ(t.stride[0], 12);
    CHECK_EQ(t.stride[1], 4);
    CHECK(at(t, 1, 0, 0, 0) == 4);
    CHECK_EQ(tfm_arena_mark(c).used, mark.used);
    CHECK_EQ(tfm_wrap(c, NULL, tfm_shape2(2, 3)).rank, 0);
    CHECK_EQ(tfm_status_of(c), TFM_ARGUMENT);
    tfm_clear(c);
    CHECK_EQ(tfm_wrap(c, data, tfm_shape2(2, -3)).rank, 0);
    CHECK_CONTAINS(tfm_message(c), "2x-3");
    tfm_clear(c);
    CHECK_EQ(tfm_wrap_type(c, data, TFM_Q8_0, tfm_shape2(2, 33)).rank, 0);
    CHECK_CONTAINS(tfm_message(c), "Q8_0");
    CHECK_CONTAINS(tfm_message(c), "2x33");
    tfm_clear(c);
    tfm_context_free(c);
}
/* transpose, permute, slice and most reshapes share the data. */
static void views_share_data(void) {
    tfm_context *c = context();
    tfm_tensor t = counting(c, tfm_shape3(2, 3, 4));
    size_t used = tfm_arena_mark(c).used;
    tfm_tensor x = tfm_transpose(c, t, 0, 2);
    CHECK(x.data == t.data && shape_is(x, 3, 4, 3, 2, 0) && at(x, 1, 2, 1, 0) == 21);
    x = tfm_transpose(c, t, -1, -2);
    CHECK(x.data == t.data && shape_is(x, 3, 2, 4, 3, 0) && at(x, 1, 3, 2, 0) == 23);
    x = tfm_permute(c, t, (int[4]){ 2, 0, 1, 0 });
    CHECK(x.data == t.data && shape_is(x, 3, 4, 2, 3, 0) && at(x, 3, 1, 2, 0) == 23 && at(x, 1, 0, 2, 0) == 9);
    x = tfm_permute(c, t, (int[4]){ -1, -2, -3, 0 });
    CHECK(shape_is(x, 3, 4, 3, 2, 0) && at(x, 1, 2, 1, 0) == 21);
    x = tfm_slice(c, t, 1, 1, 3);
    CHECK(shape_is(x, 3, 2, 2, 4, 0) && at(x, 0, 0, 0, 0) == 4 && at(x, 1, 1, 3, 0) == 23);
    x = tfm_slice(c, x, -1, 2, 3);
    CHECK(shape_is(x, 3, 2, 2, 1, 0) && at(x, 1, 0, 0, 0) == 18);
    x = tfm_reshape(c, t, tfm_shape2(6, 4));
    CHECK(x.data == t.data && shape_is(x, 2, 6, 4, 0, 0) && at(x, 5, 1, 0, 0) == 21);
    x = tfm_reshape(c, t, tfm_shape4(2, -1, 2, 2));
    CHECK(x.data == t.data && shape_is(x, 4, 2, 3, 2, 2) && at(x, 1, 0, 1, 1) == 15);
    CHECK(tfm_contiguous(c, t).data == t.data && tfm_to_f32(c, t).data == t.data);
    CHECK_EQ(tfm_arena_mark(c).used, used);
    CHECK_STR(tfm_message(c), "");
    tfm_context_free(c);
}
/* Splitting or joining dimensions whose strides allow it needs no copy. */
static void reshaping_strided_views(void) {
    tfm_context *c = context();
    tfm_tensor t = counting(c, tfm_shape2(4, 6));
    size_t used = tfm_arena_mark(c).used;
    tfm_tensor left = tfm_slice(c, t, 1, 0, 4);
    tfm_tensor split = tfm_reshape(c, left, tfm_shape3(4, 2, 2));
    CHECK(split.data == left.data && at(split, 3, 1, 1, 0) == 21);
    tfm_tensor rows = tfm_reshape(c, tfm_slice(c, t, 0, 1, 3), tfm_shape1(12));
    CHECK(at(rows, 11, 0, 0, 0) == 17);
    tfm_tensor turned = tfm_reshape(c, tfm_transpose(c, t, 0, 1), tfm_shape3(6, 2, 2));
    CHECK(turned.data == t.data && at(turned, 5, 1, 0, 0) == 17);
    tfm_tensor ones = tfm_reshape(c, tfm_transpose(c, t, 0, 1), tfm_shape4(1, 6, 1, 4));
    CHECK(ones.data == t.data && at(ones, 0, 5, 0, 2) == 17);
    CHECK_EQ(tfm_arena_mark(c).used, used);
    /* and these do */
    tfm_tensor flat = tfm_reshape(c, tfm_transpose(c, t, 0, 1), tfm_shape1(24));
    CHECK(flat.data != t.data && at(flat, 1, 0, 0, 0) == 6 && at(flat, 23, 0, 0, 0) == 23 && at(flat, 5, 0, 0, 0) == 7);
    CHECK(at(tfm_reshape(c, left, tfm_shape1(-1)), 5, 0, 0, 0) == 7);
    CHECK_STR(tfm_message(c), "");
    tfm_context_free(c);
}
static void bad_reshapes(void) {
    static const struct { tfm_shape s; const char *text; } rows[] = {
        { { 2, { 5, 5, 0, 0 } }, "5x5" }, { { 2, { -1, 5, 0, 0 } }, "-1x5" }, { { 2, { -1, -1, 0, 0 } }, "-1x-1" },
        { { 2, { -2, -12, 0, 0 } }, "-2x-12" }, { { 2, { -1, 0, 0, 0 } }, "-1x0" },
        { { 3, { INT64_MAX, INT64_MAX, 24, 0 } }, "x24" } };
    tfm_context *c = context();
    tfm_tensor t = counting(c, tfm_shape2(4, 6));
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        CHECK_EQ(tfm_reshape(c, t, rows[i].s).rank, 0);
        CHECK_EQ(tfm_status_of(c), TFM_ARGUMENT);
        CHECK_CONTAINS(tfm_message(c), "4x6");
        CHECK_CONTAINS(tfm_message(c), rows[i].text);
        tfm_clear(c);
    }
    tfm_shape rank5 = { 5, { 1, 2, 3, 4 } }, rank0 = { 0, { 0, 0, 0, 0 } };
    CHECK_EQ(tfm_reshape(c, t, rank5).rank, 0);
    tfm_clear(c);
    CHECK_EQ(tfm_reshape(c, t, rank0).rank, 0);
    CHECK_EQ(tfm_status_of(c), TFM_ARGUMENT);
    tfm_context_free(c);
}
/* Refuses what a sanitizer's malloc would stop the program for. */
static void *modest_alloc(void *user, size_t size) {
    (void)user;
    return size > SIZE_MAX / 1024 ? NULL : malloc(size);
}
static void modest_free(void *user, void *p) {
    (void)user;
    free(p);
}
static const tfm_allocator modest = { NULL, modest_alloc, modest_free };

static void huge_shapes(void) {
    tfm_context_opts o = { .allocator = &modest };
    tfm_context *c = tfm_context_new(&o, NULL);
    CHECK_EQ(tfm_zeros(c, tfm_shape4(INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX)).rank, 0);
    CHECK(tfm_status_of(c) == TFM_ARGUMENT || tfm_status_of(c) == TFM_MEMORY);
    tfm_clear(c);
    CHECK_EQ(tfm_zeros(c, tfm_shape1(INT64_MAX / 8)).rank, 0);
    CHECK(tfm_status_of(c) == TFM_ARGUMENT || tfm_status_of(c) == TFM_MEMORY);
    tfm_clear(c);
    tfm_tensor ok = tfm_zeros(c, tfm_shape4(INT64_MAX, 0, INT64_MAX, INT64_MAX));       /* nothing in it */
    CHECK(ok.rank == 4 && ok.data == NULL);
    CHECK_STR(tfm_message(c), "");
    tfm_context_free(c);
}

/* Quantized rows: 2 x 64 of Q8_0 with scale 1, element = 64 * row + column, modulo 101. */
static void fill_q8(uint8_t *bytes) {
    for (int r = 0; r < 4; r++) {
        bytes[34 * r] = 0x00;
        bytes[34 * r + 1] = 0x3c;       /* 1.0 as f16 */
        for (int i = 0; i < 32; i++) bytes[34 * r + 2 + i] = (uint8_t)((32 * r + i) % 101);
    }
}
static void quantized_views(void) {
    tfm_context *c = context();
    uint8_t bytes[4 * 34 + 1];
    fill_q8(bytes + 1);                 /* at an odd address */
    tfm_tensor t = tfm_wrap_type(c, bytes + 1, TFM_Q8_0, tfm_shape2(2, 64));
    CHECK(t.data == (void *)(bytes + 1));
    tfm_tensor f = tfm_to_f32(c, t);
    CHECK(shape_is(f, 2, 2, 64, 0, 0) && at(f, 0, 63, 0, 0) == 63);
    CHECK(at(f, 1, 0, 0, 0) == 64 && at(f, 1, 63, 0, 0) == 26);
    tfm_tensor s = tfm_slice(c, t, 1, 32, 64);
    f = tfm_to_f32(c, s);
    CHECK(shape_is(f, 2, 2, 32, 0, 0) && at(f, 0, 0, 0, 0) == 32 && at(f, 1, 31, 0, 0) == 26);
    f = tfm_to_f32(c, tfm_transpose(c, s, 0, 1));
    CHECK(shape_is(f, 2, 32, 2, 0, 0) && at(f, 0, 1, 0, 0) == 96 && at(f, 31, 0, 0, 0) == 63);
    f = tfm_to_f32(c, tfm_slice(c, t, 0, 1, 2));
    CHECK(shape_is(f, 2, 1, 64, 0, 0) && at(f, 0, 5, 0, 0) == 69);
    f = tfm_to_f32(c, tfm_slice(c, tfm_transpose(c, t, 0, 1), 0, 32, 64));
    CHECK(shape_is(f, 2, 32, 2, 0, 0) && at(f, 1, 1, 0, 0) == 97);
    f = tfm_to_f32(c, tfm_reshape(c, t, tfm_shape3(1, 2, 64)));
    CHECK(shape_is(f, 3, 1, 2, 64, 0) && at(f, 0, 1, 0, 0) == 64);
    f = tfm_to_f32(c, tfm_contiguous(c, s));
    CHECK(at(f, 0, 1, 0, 0) == 33 && at(f, 1, 0, 0, 0) == 96);
    CHECK_STR(tfm_message(c), "");
    CHECK_EQ(tfm_slice(c, t, 1, 16, 48).rank, 0);
    CHECK_CONTAINS(tfm_message(c), "Q8_0");
    tfm_clear(c);
    CHECK_EQ(tfm_reshape(c, t, tfm_shape1(128)).rank, 0);       /* its last axis stays */
    CHECK_EQ(tfm_status_of(c), TFM_ARGUMENT);
    tfm_context_free(c);
}
/* to_f32 of every plain type, at any address. */
static void decoding_plain_types(void) {
    static const float want[4] = { 1, -2, 96, 0.5f };
    static const uint16_t half[4] = { 0x3c00, 0xc000, 0x5600, 0x3800 }, brain[4] = { 0x3f80, 0xc000, 0x42c0, 0x3f00 };
    static const double wide[4] = { 1, -2, 96, 0.5 };
    static const int8_t i8[4] = { 1, -2, 96, 0 };
    static const int16_t i16[4] = { 1, -2, 96, 0 };
    static const int32_t i32[4] = { 1, -2, 96, 0 };
    static const int64_t i64[4] = { 1, -2, 96, 0 };
    static const struct { tfm_type type; const void *data; size_t size; int exact; } rows[] = {
        { TFM_F32, want, sizeof want, 4 }, { TFM_F16, half, sizeof half, 4 }, { TFM_BF16, brain, sizeof brain, 4 },
        { TFM_F64, wide, sizeof wide, 4 }, { TFM_I8, i8, sizeof i8, 3 }, { TFM_I16, i16, sizeof i16, 3 },
        { TFM_I32, i32, sizeof i32, 3 }, { TFM_I64, i64, sizeof i64, 3 } };
    tfm_context *c = context();
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
        for (int off = 0; off < 2; off++) {
            char bytes[40];
            memcpy(bytes + off, rows[r].data, rows[r].size);
            tfm_tensor t = tfm_to_f32(c, tfm_wrap_type(c, bytes + off, rows[r].type, tfm_shape1(4)));
            if (CHECK(t.type == TFM_F32 && t.data && (uintptr_t)t.data % 4 == 0))
                CHECK_SAME(floats_of(t), want, rows[r].exact);
        }
    CHECK_STR(tfm_message(c), "");
    CHECK_EQ(tfm_to_f32(c, tfm_wrap_type(c, want, (tfm_type)77, tfm_shape1(4))).rank, 0);
    CHECK(tfm_status_of(c) != TFM_OK);
    tfm_context_free(c);
}
/* Ops read operands at odd addresses. */
static void unaligned_operands(void) {
    tfm_context *c = context();
    uint64_t seed = 8;
    tfm_tensor a = random_tensor(c, &seed, tfm_shape2(5, 7), 1), b = random_tensor(c, &seed, tfm_shape2(3, 7), 1);
    char *odd = (char *)tfm_zeros(c, tfm_shape1(60)).data + 1, *odd2 = odd + 5 * 7 * 4 + 2;
    memcpy(odd, a.data, 5 * 7 * 4);
    memcpy(odd2, b.data, 3 * 7 * 4);
    tfm_tensor x = tfm_wrap_type(c, odd, TFM_F32, tfm_shape2(5, 7));
    tfm_tensor w = tfm_wrap_type(c, odd2, TFM_F32, tfm_shape2(3, 7));
    tfm_tensor v = tfm_reshape(c, tfm_slice(c, w, 0, 1, 2), tfm_shape1(7));
    tfm_tensor u = tfm_reshape(c, tfm_slice(c, b, 0, 1, 2), tfm_shape1(7));
    same_tensor(c, tfm_dense(c, x, w, tfm_none()), tfm_dense(c, a, b, tfm_none()));
    same_tensor(c, tfm_matmul(c, x, tfm_transpose(c, w, 0, 1)), tfm_matmul(c, a, tfm_transpose(c, b, 0, 1)));
    same_tensor(c, tfm_add(c, x, v), tfm_add(c, a, u));
    same_tensor(c, tfm_layernorm(c, x, v, v, 1e-5f), tfm_layernorm(c, a, u, u, 1e-5f));
    same_tensor(c, tfm_softmax(c, x, 0), tfm_softmax(c, a, 0));
    same_tensor(c, tfm_tanh(c, x), tfm_tanh(c, a));
    same_tensor(c, tfm_attention(c, x, x, x, NULL), tfm_attention(c, a, a, a, NULL));
    int32_t ids[2] = { 4, 2 };
    same_tensor(c, tfm_embedding(c, x, ids, 2), tfm_embedding(c, a, ids, 2));
    tfm_context_free(c);
}

/* ---- The arena ---- */

static void mark_and_rewind(void) {
    tfm_context_opts opts = { .arena = 4096 };
    tfm_context *c = tfm_context_new(&opts, NULL);
    tfm_tensor first = tfm_zeros(c, tfm_shape1(10));
    tfm_mark mark = tfm_arena_mark(c);
    tfm_tensor a = tfm_zeros(c, tfm_shape1(100));
    size_t peak = tfm_arena_peak(c);
    CHECK(peak >= 440 && peak <= 640);
    tfm_arena_rewind(c, mark);
    tfm_tensor b = tfm_zeros(c, tfm_shape1(100));
    CHECK(a.data == b.data);
    CHECK_EQ(tfm_arena_peak(c), peak);
    tfm_arena_rewind(c, mark);
    for (int i = 0; i < 5; i++) tfm_zeros(c, tfm_shape1(10000));       /* it grows */
    CHECK_STR(tfm_message(c), "");
    CHECK(tfm_arena_peak(c) >= 5 * 40000);
    tfm_arena_rewind(c, mark);
    tfm_tensor d = tfm_zeros(c, tfm_shape1(100));
    CHECK(d.data == a.data);
    ((float *)first.data)[9] = 3;
    CHECK(at(first, 9, 0, 0, 0) == 3);
    tfm_context_free(c);
}
/* Scratch is given back: only results stay. */
static void ops_keep_results_only(void) {
    tfm_context *c = context();
    uint64_t seed = 4;
    tfm_tensor x = tfm_transpose(c, random_tensor(c, &seed, tfm_shape2(32, 64), 1), 0, 1);      /* [64, 32] */
    tfm_tensor w = random_tensor(c, &seed, tfm_shape2(16, 32), 1);
    size_t before = tfm_arena_mark(c).used;
    tfm_dense(c, x, w, tfm_none());
    CHECK_EQ(tfm_arena_mark(c).used, before + 64 * 16 * 4);
    before = tfm_arena_mark(c).used;
    tfm_add(c, x, x);
    CHECK_EQ(tfm_arena_mark(c).used, before + 64 * 32 * 4);
    before = tfm_arena_mark(c).used;
    tfm_matmul(c, x, tfm_transpose(c, w, 0, 1));
    CHECK_EQ(tfm_arena_mark(c).used, before + 64 * 16 * 4);
    before = tfm_arena_mark(c).used;
    tfm_attention(c, x, x, x, NULL);
    CHECK_EQ(tfm_arena_mark(c).used, before + 64 * 32 * 4);
    tfm_context_free(c);
}
/* A measuring context needs no memory for results and reports what a run needs: exactly that much
   then suffices, and one step less does not. */
static tfm_tensor some_work(tfm_context *c, const float *data) {
    tfm_tensor x = tfm_wrap(c, data, tfm_shape2(40, 60)), w = tfm_wrap(c, data, tfm_shape2(30, 60));
    tfm_tensor y = tfm_gelu(c, tfm_dense(c, tfm_transpose(c, tfm_transpose(c, x, 0, 1), 0, 1), w, tfm_none()));
    tfm_rnn_weights lstm = { tfm_wrap(c, data, tfm_shape2(20, 30)), tfm_wrap(c, data, tfm_shape2(20, 5)),
                             tfm_none(), tfm_none() };
    tfm_tensor h = tfm_none();
    tfm_tensor z = tfm_lstm(c, y, &lstm, NULL, &h, NULL);
    tfm_tensor a = tfm_attention(c, tfm_transpose(c, tfm_transpose(c, y, 0, 1), 0, 1), y, y, NULL);
    tfm_tensor filter = tfm_wrap(c, data, tfm_shape4(2, 1, 3, 3));
    tfm_tensor image = tfm_conv2d(c, tfm_reshape(c, a, tfm_shape3(1, 40, 30)), filter, tfm_none(), NULL);
    tfm_topk(c, z, 2, NULL);
    return tfm_softmax(c, tfm_sum(c, image, 0), 0);
}
static void measuring(void) {
    static float data[2400];
    uint64_t seed = 21;
    for (int i = 0; i < 2400; i++) data[i] = test_uniform(&seed);
    tfm_context_opts opts = { .measure = true };
    tfm_context *m = tfm_context_new(&opts, NULL), *c = context();
    tfm_tensor want = some_work(c, data), got = some_work(m, data);
    CHECK_STR(tfm_message(m), "");
    CHECK_EQ(got.rank, want.rank);
    CHECK_EQ(got.dim[1], want.dim[1]);
    CHECK_EQ(tfm_arena_peak(m), tfm_arena_peak(c));
    tfm_add(m, tfm_wrap(m, data, tfm_shape1(3)), tfm_wrap(m, data, tfm_shape1(4)));     /* shapes are checked */
    CHECK_EQ(tfm_status_of(m), TFM_MISMATCH);

    size_t size = tfm_context_size(NULL) + tfm_arena_peak(m);
    for (int less = 0; less < 2; less++) {
        char *mem = (char *)malloc(size + 2 * TFM_ALIGN);
        char *base = mem + (TFM_ALIGN - (uintptr_t)mem % TFM_ALIGN);
        tfm_context *in = tfm_context_in(base, size - (size_t)less, NULL, NULL);
        tfm_tensor y = some_work(in, data);
        if (less) CHECK_EQ(tfm_status_of(in), TFM_MEMORY);
        else same_tensor(c, y, want);
        tfm_context_free(in);
        free(mem);
    }
    tfm_context_free(m);
    tfm_context_free(c);
}

/* ---- Errors ---- */

static void errors_stay(void) {
    tfm_context *c = context();
    tfm_tensor a = counting(c, tfm_shape2(3, 4)), b = counting(c, tfm_shape2(5, 6));
    CHECK_EQ(tfm_add(c, a, b).rank, 0);
    CHECK_EQ(tfm_status_of(c), TFM_MISMATCH);
    char first[TFM_MESSAGE_SIZE];
    snprintf(first, sizeof first, "%s", tfm_message(c));
    CHECK_CONTAINS(first, "add");
    CHECK_CONTAINS(first, "3x4");
    CHECK_CONTAINS(first, "5x6");
    size_t used = tfm_arena_mark(c).used;
    CHECK_EQ(tfm_softmax(c, a, 9).rank, 0);             /* the first error stays */
    CHECK_EQ(tfm_add(c, a, a).rank, 0);                 /* what would work does nothing */
    CHECK_EQ(tfm_matmul(c, tfm_gelu(c, a), tfm_none()).rank, 0);
    CHECK_EQ(tfm_transpose(c, a, 0, 1).rank, 0);
    CHECK_EQ(tfm_wrap(c, floats_of(a), tfm_shape1(3)).rank, 0);
    CHECK_EQ(tfm_zeros(c, tfm_shape1(3)).rank, 0);
    CHECK_EQ(tfm_concat(c, &a, 1, 0).rank, 0);
    CHECK_EQ(tfm_attention(c, a, a, a, NULL).rank, 0);
    CHECK_EQ(tfm_lstm(c, a, NULL, NULL, NULL, NULL).rank, 0);
    CHECK_EQ(tfm_embedding(c, a, NULL, 0).rank, 0);
    CHECK_EQ(tfm_rope(c, a, 0, NULL).rank, 0);
    CHECK_EQ(tfm_conv2d(c, a, a, a, NULL).rank, 0);
    tfm_tensor ids = a;
    CHECK_EQ(tfm_topk(c, a, 1, &ids).rank, 0);
    CHECK_EQ(ids.rank, 0);
    CHECK_STR(tfm_message(c), first);
    CHECK_EQ(tfm_arena_mark(c).used, used);
    tfm_clear(c);
    CHECK_EQ(tfm_status_of(c), TFM_OK);
    CHECK_STR(tfm_message(c), "");
    CHECK(at(tfm_add(c, a, a), 2, 3, 0, 0) == 22);
    tfm_context_free(c);
}
/* Nothing crashes without a context, or without a tensor. */
static void nothing_given(void) {
    tfm_tensor n = tfm_none();
    CHECK_EQ(tfm_status_of(NULL), TFM_ARGUMENT);
    CHECK(strlen(tfm_message(NULL)) > 0);
    tfm_clear(NULL);
    tfm_context_free(NULL);
    tfm_arena_rewind(NULL, tfm_arena_mark(NULL));
    CHECK_EQ(tfm_arena_peak(NULL), 0);
    CHECK_EQ(tfm_zeros(NULL, tfm_shape1(3)).rank, 0);
    CHECK_EQ(tfm_add(NULL, n, n).rank, 0);
    CHECK_EQ(tfm_scale(NULL, n, 1).rank, 0);
    CHECK_EQ(tfm_mean(NULL, n, 0).rank, 0);
    CHECK_EQ(tfm_argmax(NULL, n, 0).rank, 0);
    CHECK_EQ(tfm_attention(NULL, n, n, n, NULL).rank, 0);
    CHECK_EQ(tfm_gru(NULL, n, NULL, NULL, NULL).rank, 0);
    CHECK_EQ(tfm_conv2d(NULL, n, n, n, NULL).rank, 0);
    tfm_context *c = context();
    tfm_tensor t = counting(c, tfm_shape2(2, 2));
    CHECK_EQ(tfm_matmul(c, t, n).rank, 0);
    CHECK_EQ(tfm_status_of(c), TFM_ARGUMENT);
    tfm_clear(c);
    CHECK_EQ(tfm_lstm(c, t, NULL, NULL, NULL, NULL).rank, 0);
    CHECK(tfm_status_of(c) != TFM_OK);
    tfm_clear(c);
    CHECK_EQ(tfm_conv2d(c, t, n, n, NULL).rank, 0);
    CHECK(tfm_status_of(c) != TFM_OK);
    tfm_clear(c);
    CHECK_EQ(tfm_concat(c, NULL, 1, 0).rank, 0);
    CHECK_EQ(tfm_status_of(c), TFM_ARGUMENT);
    tfm_context_free(c);
}
static void bad_options(void) {
    static const tfm_context_opts rows[] = { { .threads = -1 }, { .threads = 257 }, { .level = (tfm_level)99 },
                                             { .arena = SIZE_MAX, .allocator = &modest },
                                             { .arena = SIZE_MAX / 2, .allocator = &modest } };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        tfm_error err;
        CHECK(tfm_context_new(&rows[i], &err) == NULL);
        CHECK(err.status != TFM_OK && strlen(err.message) > 0);
        CHECK(tfm_context_new(&rows[i], NULL) == NULL);
    }
}
/* Results lie in row order along any axis, so that .data can be read as it is. */
static void results_are_contiguous(void) {
    tfm_context *c = context();
    static const float w[16 * 4] = { 0.5f };
    for (int axis = 0; axis < 3; axis++) {
        tfm_tensor x = counting(c, tfm_shape3(2, 3, 4));
        tfm_tensor y[] = { tfm_sum(c, x, axis), tfm_mean(c, x, axis), tfm_max(c, x, axis), tfm_argmax(c, x, axis),
                           tfm_softmax(c, x, axis), tfm_log_softmax(c, x, axis) };
        for (size_t i = 0; i < sizeof y / sizeof *y; i++)
            for (int d = y[i].rank - 1, stride = 4; d >= 0; stride *= (int)y[i].dim[d--])
                CHECK_EQ(y[i].stride[d], stride);
    }
    tfm_tensor gates = tfm_wrap(c, w, tfm_shape2(16, 4));
    tfm_rnn_weights l = { gates, gates, tfm_none(), tfm_none() };
    tfm_rnn_opts o = { .batch_first = true };
    tfm_tensor y = tfm_lstm(c, counting(c, tfm_shape3(2, 3, 4)), &l, &o, NULL, NULL);
    CHECK_EQ(y.stride[0], 3 * 4 * 4);
    CHECK_EQ(y.stride[1], 4 * 4);
    CHECK_STR(tfm_message(c), "");
    tfm_context_free(c);
}
/* No arena at all: each op says so, and touches nothing. */
static void no_memory_at_all(void) {
    static const float numbers[16] = { 1 };
    static _Alignas(TFM_ALIGN) char memory[4096];
    tfm_error err;
    tfm_context *c = tfm_context_in(memory, tfm_context_size(NULL), NULL, &err);
    CHECK_STR(err.message, "");
    tfm_tensor x = tfm_wrap(c, numbers, tfm_shape2(4, 4));
    for (int i = 0; c && i < 6; i++) {
        tfm_tensor y = i == 0 ? tfm_matmul(c, x, x) : i == 1 ? tfm_dense(c, x, x, tfm_none())
                     : i == 2 ? tfm_sum(c, x, 0) : i == 3 ? tfm_attention(c, x, x, x, NULL)
                     : i == 4 ? tfm_argmax(c, x, 0) : tfm_add(c, x, x);
        CHECK_EQ(y.rank, 0);
        CHECK_EQ(tfm_status_of(c), TFM_MEMORY);
        tfm_clear(c);
    }
    CHECK_EQ(tfm_permute(c, x, NULL).rank, 0);
    CHECK_EQ(tfm_status_of(c), TFM_ARGUMENT);
    tfm_context_free(c);
}

const test_case tests_tensor[] = {
    { "shapes", shapes, QUICK },
    { "types", types, QUICK },
    { "wrapping_copies_nothing", wrapping_copies_nothing, QUICK },
    { "views_share_data", views_share_data, QUICK },
    { "reshaping_strided_views", reshaping_strided_views, QUICK },
    { "bad_reshapes", bad_reshapes, QUICK },
    { "huge_shapes", huge_shapes, QUICK },
    { "quantized_views", quantized_views, QUICK },
    { "decoding_plain_types", decoding_plain_types, QUICK },
    { "unaligned_operands", unaligned_operands, QUICK },
    { "mark_and_rewind", mark_and_rewind, QUICK },
    { "ops_keep_results_only", ops_keep_results_only, QUICK },
    { "measuring", measuring, QUICK },
    { "errors_stay", errors_stay, QUICK },
    { "nothing_given", nothing_given, QUICK },
    { "bad_options", bad_options, QUICK },
    { "results_are_contiguous", results_are_contiguous, QUICK },
    { "no_memory_at_all", no_memory_at_all, QUICK },
    { NULL, NULL, SLOW }
};
