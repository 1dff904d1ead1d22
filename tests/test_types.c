/* Types: what blocks decode to, what rows encode to (tools/gguf_write.h), and GGUF files written
   and read back. The vectors are made by tools/vectors/make_types.py; with the folder TFM_SHARED or
   ../shared, the full set is tested too. */
#include "test.h"
#include "tfm.h"
#include "tools/gguf_write.h"

#include <float.h>
#include <math.h>

enum { WIDTH = 256 };

static const tfm_type quantized[] = { TFM_Q8_0, TFM_Q4_0, TFM_Q4_1, TFM_Q5_0, TFM_Q5_1, TFM_Q2_K, TFM_Q3_K,
                                      TFM_Q4_K, TFM_Q5_K, TFM_Q6_K, TFM_IQ4_NL };
static const tfm_type exact[] = { TFM_F16, TFM_BF16, TFM_Q8_0, TFM_Q4_0, TFM_Q4_1, TFM_Q5_0, TFM_Q5_1 };
static const tfm_type searched[] = { TFM_Q4_K, TFM_Q5_K, TFM_Q6_K };
#define COUNT(a) (sizeof (a) / sizeof *(a))

static size_t bytes_of(tfm_type type, int64_t n) {
    return (size_t)(n / gguf_type_block(type) * gguf_type_bytes(type));
}
static float from_bits(uint32_t u) { float f; memcpy(&f, &u, sizeof f); return f; }

/* Decodes rows of WIDTH elements through the public API, from an address that is odd. */
static bool decode(tfm_type type, const void *data, float *out, int64_t n) {
    size_t size = bytes_of(type, n);
    uint8_t *copy = malloc(size + 1);
    tfm_context *c = tfm_context_new(NULL, NULL);
    bool good = CHECK(copy && c);
    if (good) {
        memcpy(copy + 1, data, size);
        tfm_tensor t = tfm_to_f32(c, tfm_wrap_type(c, copy + 1, type, tfm_shape1(n)));
        good = CHECK_STR(tfm_message(c), "") && CHECK_EQ(t.dim[0], n);
        if (good) memcpy(out, t.data, (size_t)n * sizeof *out);
    }
    tfm_context_free(c);
    free(copy);
    return good;
}

/* ---- The vectors: some rows in the repository, all of them in the shared folder ---- */

typedef struct vectors {
    int64_t rows;
    tfm_file *file;                     /* tests/data/types.gguf, or */
    unsigned char *bytes;
    const char *folder;                 /* the shared one */
} vectors;

static unsigned char *part(const vectors *v, tfm_type type, bool decoded) {
    char path[512], name[16];
    tfm_tensor_info info;
    size_t size = 0;
    snprintf(name, sizeof name, "%s", tfm_type_name(type));
    if (v->file) {
        snprintf(path, sizeof path, "%s%s", name, decoded ? ".f32" : "");
        if (!CHECK(tfm_file_tensor(v->file, type == TFM_F32 ? "rows" : path, &info))) return NULL;
        unsigned char *copy = malloc((size_t)info.bytes);
        if (CHECK(copy != NULL)) memcpy(copy, info.tensor.data, (size_t)info.bytes);
        return copy;
    }
    for (char *p = name; *p; p++) if (*p >= 'A' && *p <= 'Z') *p = (char)(*p - 'A' + 'a');
    snprintf(path, sizeof path, "%s/models/quant/%s", v->folder, name);
    if (type == TFM_F32) snprintf(path, sizeof path, "%s/models/quant/rows.f32", v->folder);
    else strcat(path, decoded ? ".f32" : ".bin");
    return test_read(path, &size);
}
static bool open_fixture(vectors *v) {
    tfm_error err = { TFM_OK, "" };
    size_t size = 0;
    memset(v, 0, sizeof *v);
    v->rows = 12;
    v->bytes = test_read("tests/data/types.gguf", &size);
    v->file = v->bytes ? tfm_file_from_memory(v->bytes, size, NULL, &err) : NULL;
    return CHECK_STR(err.message, "") && CHECK(v->file != NULL);
}
static void close_fixture(vectors *v) {
    tfm_file_free(v->file);
    free(v->bytes);
}
/* False where the shared folder is not. */
static bool open_shared(vectors *v) {
    memset(v, 0, sizeof *v);
    v->rows = 64;
    v->folder = getenv("TFM_SHARED") ? getenv("TFM_SHARED") : "../shared";
    char path[512];
    snprintf(path, sizeof path, "%.400s/models/quant/rows.f32", v->folder);
    FILE *f = fopen(path, "rb");
    if (f) fclose(f);
    return f != NULL;
}

static void check_decoding(const vectors *v) {
    float *got = malloc((size_t)v->rows * WIDTH * sizeof *got);
    for (size_t i = 0; got && i < COUNT(quantized); i++) {
        unsigned char *encoded = part(v, quantized[i], false), *decoded = part(v, quantized[i], true);
        if (encoded && decoded && decode(quantized[i], encoded, got, v->rows * WIDTH))
            if (!CHECK_EQ(memcmp(got, decoded, (size_t)v->rows * WIDTH * sizeof *got), 0))
                CHECK_STR(tfm_type_name(quantized[i]), "decoded to other bits");
        free(encoded);
        free(decoded);
    }
    free(got);
}
static void check_exact_encoding(const vectors *v) {
    unsigned char *rows = part(v, TFM_F32, false);
    for (size_t i = 0; rows && i < COUNT(exact); i++) {
        size_t row_bytes = bytes_of(exact[i], WIDTH);
        unsigned char *want = part(v, exact[i], false), got[1 + 2 * WIDTH];
        for (int64_t r = 0; want && r < v->rows; r++) {
            const float *row = (const float *)(const void *)rows + r * WIDTH;
            CHECK(gguf_encode(exact[i], row, got + 1, WIDTH));
            if (CHECK_EQ(memcmp(got + 1, want + (size_t)r * row_bytes, row_bytes), 0)) continue;
            CHECK_STR(tfm_type_name(exact[i]), "encoded to other bytes");
            CHECK_EQ(r, -1);
        }
        free(want);
    }
    free(rows);
}
static double squares(const float *a, const float *b) {
    double sum = 0;
    for (int i = 0; i < WIDTH; i++) sum += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    return sum;
}
/* Searched scales: the error of a row may not be much larger than the reference's, and is smaller
   on average (of the logarithms of the ratios). */
static void check_searched_encoding(const vectors *v) {
    static const float zeros[WIDTH];
    unsigned char *rows = part(v, TFM_F32, false), got[WIDTH];
    float decoded[WIDTH];
    for (size_t i = 0; rows && i < COUNT(searched); i++) {
        unsigned char *want = part(v, searched[i], true);
        double logarithms = 0;
        for (int64_t r = 0; want && r < v->rows; r++) {
            const float *row = (const float *)(const void *)rows + r * WIDTH;
            const float *reference = (const float *)(const void *)want + r * WIDTH;
            CHECK(gguf_encode(searched[i], row, got, WIDTH));
            test_hash(tfm_type_name(searched[i]), got, bytes_of(searched[i], WIDTH));
            if (!decode(searched[i], got, decoded, WIDTH)) break;
            double ours = squares(row, decoded), theirs = squares(row, reference), scale = squares(row, zeros);
            if (!CHECK(sqrt(ours) <= 1.1 * sqrt(theirs) + 2e-4 * sqrt(scale))) CHECK_EQ(r, -1);
            if (ours > 1e-7 * scale && theirs > 1e-7 * scale) logarithms += log(ours / theirs);
        }
        CHECK(logarithms < 0);
        free(want);
    }
    free(rows);
}

static void decoding(void) {
    vectors v;
    if (open_fixture(&v)) check_decoding(&v);
    close_fixture(&v);
}
static void encoding_exact(void) {
    vectors v;
    if (open_fixture(&v)) check_exact_encoding(&v);
    close_fixture(&v);
}
static void encoding_searched(void) {
    vectors v;
    if (open_fixture(&v)) check_searched_encoding(&v);
    close_fixture(&v);
}
static void shared_vectors(void) {
    vectors v;
    if (!open_shared(&v)) return;
    check_decoding(&v);
    check_exact_encoding(&v);
    check_searched_encoding(&v);
}

/* ---- Halves, against their definition ---- */

static float half_value(uint16_t h, int exponent_bits) {   /* 5: F16, 8: BF16 */
    int fraction_bits = 15 - exponent_bits, bias = (1 << (exponent_bits - 1)) - 1;
    int exponent = h >> fraction_bits & ((1 << exponent_bits) - 1), fraction = h & ((1 << fraction_bits) - 1);
    double v = exponent ? ldexp(1 + ldexp(fraction, -fraction_bits), exponent - bias)
                        : ldexp(fraction, 1 - bias - fraction_bits);
    if (exponent == (1 << exponent_bits) - 1) v = fraction ? (double)NAN : (double)INFINITY;
    return (float)(h & 0x8000 ? -v : v);
}
static void halves(void) {
    static uint16_t all[65536], back[65536];
    static float got[65536], want[65536];
    for (int bits = 5; bits <= 8; bits += 3) {
        tfm_type type = bits == 5 ? TFM_F16 : TFM_BF16;
        for (int i = 0; i < 65536; i++) {
            all[i] = (uint16_t)i;
            want[i] = half_value((uint16_t)i, bits);
        }
        if (!decode(type, all, got, 65536)) return;
        CHECK_SAME(got, want, 65536);
        CHECK(!gguf_encode(type, want, back, 65536));      /* there are infinities among them */
        int wrong = 0;
        for (int i = 0; i < 65536; i++) wrong += isnan(want[i]) ? !isnan(half_value(back[i], bits)) : back[i] != all[i];
        CHECK_EQ(wrong, 0);
    }
}
/* Between two neighbours: the nearer one, of a tie the even one. */
static void halves_round(void) {
    int wrong = 0;
    for (int bits = 5; bits <= 8; bits += 3) {
        tfm_type type = bits == 5 ? TFM_F16 : TFM_BF16;
        uint16_t last = bits == 5 ? 0x7bff : 0x7f7f;
        for (uint16_t h = 0; h < last; h++) {
            float low = half_value(h, bits), high = half_value((uint16_t)(h + 1), bits), x[3];
            uint16_t got[3];
            x[1] = (float)(((double)low + (double)high) / 2);
            x[0] = nextafterf(x[1], 0);
            x[2] = nextafterf(x[1], INFINITY);
            if (bits == 8 && h < 128) continue;            /* a tie there is no float's neighbour */
            wrong += !gguf_encode(type, x, got, 3);
            wrong += got[0] != h || got[1] != h + (h & 1) || got[2] != h + 1;
        }
    }
    CHECK_EQ(wrong, 0);
    CHECK_EQ(gguf_f32_to_f16(65519.996f), 0x7bff);
    CHECK_EQ(gguf_f32_to_f16(65520.0f), 0x7c00);
    CHECK_EQ(gguf_f32_to_f16(-FLT_MAX), 0xfc00);
    CHECK_EQ(gguf_f32_to_f16(0x1p-25f), 0);
    CHECK_EQ(gguf_f32_to_f16(0x1.000002p-25f), 1);
    CHECK_EQ(gguf_f32_to_f16(-0x1p-140f), 0x8000);
    CHECK_EQ(gguf_f32_to_bf16(FLT_MAX), 0x7f80);
    CHECK_EQ(gguf_f32_to_bf16(from_bits(0x7f800001u)) & 0x7fc0, 0x7fc0);
}

/* ---- Encoders on what no model should hold ---- */

static bool can_encode(tfm_type type) { return gguf_type_block(type) > 1 && gguf_can_encode(type); }

static void encoding_error(void) {
    static const struct { tfm_type type; double step; } bounds[] = {       /* of values in -1..1 */
        { TFM_Q8_0, 1.01 / 127 }, { TFM_Q4_0, 2.01 / 8 }, { TFM_Q4_1, 2.01 / 15 }, { TFM_Q5_0, 2.01 / 16 },
        { TFM_Q5_1, 2.01 / 31 }, { TFM_Q4_K, 2.3 / 15 }, { TFM_Q5_K, 2.3 / 31 }, { TFM_Q6_K, 2.1 / 32 } };
    uint64_t seed = 7;
    float x[WIDTH], y[WIDTH];
    uint8_t block[2 * WIDTH];
    for (size_t i = 0; i < COUNT(bounds); i++)
        for (int round = 0; round < 20; round++) {
            double worst = 0;
            for (int k = 0; k < WIDTH; k++) x[k] = test_uniform(&seed);
            CHECK(gguf_encode(bounds[i].type, x, block, WIDTH));
            if (!decode(bounds[i].type, block, y, WIDTH)) return;
            for (int k = 0; k < WIDTH; k++) worst = fmax(worst, fabs((double)x[k] - (double)y[k]));
            if (!CHECK(worst <= bounds[i].step)) CHECK_STR(tfm_type_name(bounds[i].type), "");
        }
}
/* Decoded values encode to themselves where the scale comes from one element. */
static void encoding_again(void) {
    static const tfm_type types[] = { TFM_Q8_0, TFM_Q4_0, TFM_Q5_0 };
    uint64_t seed = 3;
    float x[WIDTH], once[WIDTH], twice[WIDTH];
    uint8_t block[2 * WIDTH];
    for (size_t i = 0; i < COUNT(types); i++) {
        for (int k = 0; k < WIDTH; k++) x[k] = test_uniform(&seed);
        CHECK(gguf_encode(types[i], x, block, WIDTH));
        if (!decode(types[i], block, once, WIDTH)) return;
        CHECK(gguf_encode(types[i], once, block, WIDTH));
        if (decode(types[i], block, twice, WIDTH)) CHECK_SAME(twice, once, WIDTH);
    }
}
static void encoding_special(void) {
    const float bad[] = { NAN, -NAN, INFINITY, -INFINITY, FLT_MAX, -FLT_MAX, 1e30f };
    const float fine[] = { 0, -0.0f, FLT_MIN, -FLT_MIN, FLT_MIN / 8, 0x1p-149f, 1e-30f, 1e-8f, 6e4f };
    float x[WIDTH], y[WIDTH];
    uint8_t block[2 * WIDTH];
    for (size_t i = 0; i < COUNT(quantized); i++) {
        tfm_type type = quantized[i];
        int64_t size = gguf_type_block(type);
        if (!can_encode(type)) continue;
        for (size_t k = 0; k < COUNT(bad); k++) {          /* its block becomes NaN, the others stay */
            for (int n = 0; n < WIDTH; n++) x[n] = (float)(n % 7) - 3;
            x[WIDTH - 2] = bad[k];
            CHECK(!gguf_encode(type, x, block, WIDTH));
            if (!decode(type, block, y, WIDTH)) return;
            int wrong = 0;
            for (int64_t n = 0; n < WIDTH; n++) wrong += (isnan(y[n]) != 0) != (n >= WIDTH - size);
            if (!CHECK_EQ(wrong, 0)) CHECK_STR(tfm_type_name(type), "");
        }
        for (size_t k = 0; k < COUNT(fine); k++) {
            for (int n = 0; n < WIDTH; n++) x[n] = n % 5 ? fine[k] : -fine[k] / 3;
            CHECK(gguf_encode(type, x, block, WIDTH));
            if (!decode(type, block, y, WIDTH)) return;
            double bound = 0.15 * fabs((double)fine[k]) + 6e-8 * 16;       /* scales below f16's are coarse */
            for (int n = 0; n < WIDTH; n++)
                if (!CHECK(fabs((double)x[n] - (double)y[n]) <= bound)) { CHECK_STR(tfm_type_name(type), ""); break; }
        }
    }
    CHECK(!gguf_encode(TFM_Q2_K, x, block, WIDTH));        /* has no encoder */
    CHECK(!gguf_can_encode(TFM_I32) && gguf_can_encode(TFM_F32));
}
/* Any bits: the sanitizers look for undefined behaviour, and a block said to be good is finite. */
static void encoding_any_bits(void) {
    uint64_t seed = 11;
    float x[WIDTH], y[WIDTH];
    uint8_t block[2 * WIDTH];
    for (int round = 0; round < (test_quick ? 20 : 400); round++) {
        uint32_t exponents = (uint32_t)(test_random(&seed) >> 40) & 255, spread = 1u << (round % 9);
        for (int n = 0; n < WIDTH; n++) {
            uint64_t r = test_random(&seed);
            uint32_t exponent = (exponents + (uint32_t)(r >> 40) % spread) & 255;
            x[n] = from_bits((uint32_t)(r & 0x807fffffu) | exponent << 23);
        }
        for (size_t i = 0; i < COUNT(quantized); i++) {
            if (!can_encode(quantized[i])) continue;
            bool good = gguf_encode(quantized[i], x, block, WIDTH), finite = true;
            if (!decode(quantized[i], block, y, WIDTH)) return;
            for (int n = 0; n < WIDTH; n++) finite = finite && isfinite(y[n]);
            CHECK_EQ(good, finite);
        }
    }
}

static void tables_agree(void) {
    static const tfm_type all[] = {
#define TFM__X(name, number, block, bytes) TFM_##name,
        TFM_TYPES(TFM__X)
#undef TFM__X
    };
    for (size_t i = 0; i < COUNT(all); i++) {
        CHECK_EQ(tfm_type_block(all[i]), gguf_type_block(all[i]));
        CHECK_EQ(tfm_type_bytes(all[i]), gguf_type_bytes(all[i]));
    }
    CHECK_STR(tfm_type_name(TFM_Q4_K), "Q4_K");
    CHECK_STR(tfm_type_name((tfm_type)99), "?");
    CHECK_EQ(tfm_type_block(TFM_TYPE_NONE), 0);
    CHECK_EQ(tfm_type_bytes((tfm_type)99), 0);
}

/* ---- Files written and read back ---- */

static const uint8_t number_bytes[8] = { 1, 0, 0x80, 0x7f, 0x33, 0xfe, 0x11, 0x42 };

static void write_metadata(gguf_writer *w) {
    static const tfm_string words[] = { { "one", 3 }, { "", 0 }, { "zw\0lf", 5 } };
    char key[32];
    gguf_meta_string(w, "general.architecture", "test");
    gguf_meta_string(w, "empty", "");
    for (int t = 0; t < TFM_VALUE_TYPES; t++) {
        size_t size = gguf_value_bytes((tfm_value_type)t);
        uint8_t three[24] = { 0 };
        if (!size) continue;
        snprintf(key, sizeof key, "number.%d", t);
        gguf_meta_number(w, key, (tfm_value_type)t, number_bytes);
        snprintf(key, sizeof key, "array.%d", t);
        if (t != TFM_VALUE_BOOL) memcpy(three + size, number_bytes, size);
        gguf_meta_array(w, key, (tfm_value_type)t, three, 3);
    }
    gguf_meta_bool(w, "true", true);
    gguf_meta_u32(w, "u32", 4000000000u);
    gguf_meta_f32(w, "f32", -1.5f);
    gguf_meta_strings(w, "words", words, 3);
    gguf_meta_array(w, "nothing", TFM_VALUE_F64, NULL, 0);
}
static void check_metadata(const tfm_file *f) {
    tfm_value v, e;
    tfm_string s;
    uint64_t u = 0;
    double d = 0;
    bool b = false;
    char key[32];
    CHECK(tfm_file_meta(f, "general.architecture", &v) && tfm_value_string(&v, &s) && s.size == 4);
    CHECK(tfm_file_meta(f, "empty", &v) && tfm_value_string(&v, &s) && s.size == 0);
    for (int t = 0; t < TFM_VALUE_TYPES; t++) {
        size_t size = gguf_value_bytes((tfm_value_type)t);
        if (!size) continue;
        snprintf(key, sizeof key, "number.%d", t);
        if (CHECK(tfm_file_meta(f, key, &v)) && CHECK_EQ(v.type, t) && CHECK_EQ(v.size, size))
            CHECK_EQ(memcmp(v.data, number_bytes, size), 0);
        snprintf(key, sizeof key, "array.%d", t);
        if (!CHECK(tfm_file_meta(f, key, &v)) || !CHECK_EQ(v.type, TFM_VALUE_ARRAY)) continue;
        CHECK_EQ(v.element, t);
        CHECK_EQ(v.count, 3);
        if (CHECK_EQ(v.size, 3 * size) && t != TFM_VALUE_BOOL) CHECK_EQ(memcmp(v.data + size, number_bytes, size), 0);
    }
    CHECK(tfm_file_meta(f, "true", &v) && tfm_value_bool(&v, &b) && b);
    CHECK(tfm_file_meta(f, "u32", &v) && tfm_value_u64(&v, &u) && u == 4000000000u);
    CHECK(tfm_file_meta(f, "f32", &v) && tfm_value_f64(&v, &d) && d == -1.5);
    CHECK(tfm_file_meta(f, "nothing", &v) && v.count == 0 && v.element == TFM_VALUE_F64);
    if (!CHECK(tfm_file_meta(f, "words", &v)) || !CHECK_EQ(v.count, 3)) return;
    CHECK(tfm_value_next(&v, &e) && tfm_value_string(&e, &s) && s.size == 3 && memcmp(s.data, "one", 3) == 0);
    CHECK(tfm_value_next(&v, &e) && tfm_value_string(&e, &s) && s.size == 0);
    CHECK(tfm_value_next(&v, &e) && tfm_value_string(&e, &s) && s.size == 5 && memcmp(s.data, "zw\0lf", 5) == 0);
    CHECK(!tfm_value_next(&v, &e));
}

#define FILE_TYPES 19
static const struct { tfm_type type; int number; } file_types[FILE_TYPES] = {
#define TFM__X(name, number, block, bytes) { TFM_##name, number },
    TFM_TYPES(TFM__X)
#undef TFM__X
};
static tfm_shape shape_of(int i) {      /* every rank; one without elements */
    int64_t row = 2 * gguf_type_block(file_types[i].type) + (gguf_type_block(file_types[i].type) == 1);
    return i == 5 ? tfm_shape3(2, 0, row) : i % 4 == 0 ? tfm_shape1(row) : i % 4 == 1 ? tfm_shape2(3, row) :
           i % 4 == 2 ? tfm_shape3(2, 3, row) : tfm_shape4(2, 1, 3, row);
}
static uint8_t byte_of(int i, size_t at) { return (uint8_t)((unsigned)i * 31 + at * 7); }

/* Tensor data go to the writer in pieces of `piece` bytes, over the borders of tensors. */
static void write_tensors(gguf_writer *w, size_t piece) {
    uint8_t *all = NULL;
    size_t total = 0;
    for (int i = 0; i < FILE_TYPES; i++) {
        uint64_t bytes = 0;
        char name[16];
        snprintf(name, sizeof name, "tensor.%d", i);
        gguf_tensor(w, name, file_types[i].type, shape_of(i));
        CHECK(gguf_tensor_bytes(file_types[i].type, shape_of(i), &bytes));
        uint8_t *larger = realloc(all, total + (size_t)bytes + 1);
        if (!CHECK(larger != NULL)) break;
        all = larger;
        for (size_t k = 0; k < bytes; k++) all[total++] = byte_of(i, k);
    }
    for (size_t at = 0; at < total; at += piece)
        CHECK(gguf_data(w, all + at, total - at < piece ? total - at : piece));
    free(all);
}
static void check_tensors(const tfm_file *f, uint64_t alignment) {
    tfm_tensor_info info;
    CHECK_EQ(tfm_file_tensor_count(f), FILE_TYPES);
    for (int i = 0; i < FILE_TYPES; i++) {
        char name[16];
        tfm_shape shape = shape_of(i);
        uint64_t bytes = 0;
        snprintf(name, sizeof name, "tensor.%d", i);
        if (!CHECK(tfm_file_tensor(f, name, &info))) continue;
        gguf_tensor_bytes(file_types[i].type, shape, &bytes);
        CHECK_EQ(info.tensor.type, file_types[i].number);
        CHECK_EQ(info.rank, shape.rank);
        for (int k = 0; k < shape.rank; k++) CHECK_EQ(info.tensor.dim[k], shape.dim[k]);
        CHECK_EQ(info.offset % alignment, 0);
        if (!CHECK_EQ(info.bytes, bytes)) continue;
        int wrong = 0;
        for (size_t k = 0; k < bytes; k++) wrong += ((const uint8_t *)info.tensor.data)[k] != byte_of(i, k);
        CHECK_EQ(wrong, 0);
    }
}
static void check_file(const uint8_t *data, size_t size, uint64_t alignment) {
    tfm_error err = { TFM_OK, "" };
    tfm_file *f = tfm_file_from_memory(data, size, NULL, &err);
    CHECK_STR(err.message, "");
    if (!CHECK(f != NULL)) return;
    CHECK_STR(tfm_file_format(f), "GGUF v3");
    CHECK_EQ(size % alignment, 0);
    check_metadata(f);
    check_tensors(f, alignment);
    tfm_file_free(f);
}
static void files_round_trip(void) {
    static const size_t pieces[] = { 1, 7, 100, 1 << 20 };
    for (size_t i = 0; i < COUNT(pieces); i++) {
        gguf_writer w;
        uint64_t alignment = i == 1 ? 1 : i == 2 ? 4096 : 32;
        gguf_begin_memory(&w);
        write_metadata(&w);
        if (alignment != 32) gguf_meta_u32(&w, "general.alignment", (uint32_t)alignment);
        write_tensors(&w, pieces[i]);
        CHECK(gguf_finish(&w));
        CHECK_STR(w.error, "");
        if (w.bytes.data) check_file(w.bytes.data, w.bytes.size, alignment);
        free(w.bytes.data);
    }
}
/* The values of a file that was read, written again: the same bytes. */
static void files_copied(void) {
    gguf_writer w, copy;
    tfm_error err;
    tfm_string key;
    tfm_value v;
    gguf_begin_memory(&w);
    write_metadata(&w);
    CHECK(gguf_finish(&w));
    tfm_file *f = tfm_file_from_memory(w.bytes.data, w.bytes.size, NULL, &err);
    if (!CHECK(f != NULL)) return;
    gguf_begin_memory(&copy);
    for (int64_t i = 0; tfm_file_meta_at(f, i, &key, &v); i++) gguf_meta_value(&copy, key, &v);
    CHECK(gguf_finish(&copy));
    if (CHECK_EQ(copy.bytes.size, w.bytes.size)) CHECK_EQ(memcmp(copy.bytes.data, w.bytes.data, w.bytes.size), 0);
    tfm_file_free(f);
    free(copy.bytes.data);
    free(w.bytes.data);
}

static bool failing_sink(void *left, const void *data, size_t size) {
    size_t *n = left;
    (void)data;
    if (size > *n) return false;
    *n -= size;
    return true;
}
static void begin_small(gguf_writer *w) {
    gguf_begin_memory(w);
    gguf_tensor(w, "a", TFM_F32, tfm_shape1(2));
}
static void check_refused(gguf_writer *w, const char *message) {
    CHECK(!gguf_finish(w));
    CHECK_CONTAINS(w->error, message);
    CHECK(w->bytes.data == NULL);
    free(w->bytes.data);
}
static void writer_errors(void) {
    gguf_writer w;
    const float two[4] = { 1, 2, 3, 4 };
    begin_small(&w);
    gguf_data(&w, two, 4);
    check_refused(&w, "missing");
    begin_small(&w);
    CHECK(!gguf_data(&w, two, 12));
    check_refused(&w, "more data");
    begin_small(&w);
    gguf_data(&w, two, 8);
    gguf_tensor(&w, "b", TFM_F32, tfm_shape1(1));
    check_refused(&w, "b: declared after the data");
    begin_small(&w);
    gguf_data(&w, two, 8);
    gguf_meta_u32(&w, "k", 1);
    check_refused(&w, "after the data");
    begin_small(&w);
    gguf_meta_u32(&w, "general.alignment", 64);
    check_refused(&w, "after a tensor");
    gguf_begin_memory(&w);
    gguf_meta_u32(&w, "general.alignment", 24);
    check_refused(&w, "power of two");
    gguf_begin_memory(&w);
    gguf_tensor(&w, "q", TFM_Q4_0, tfm_shape1(33));
    check_refused(&w, "q: no tensor");
    gguf_begin_memory(&w);
    gguf_tensor(&w, "n", TFM_F32, tfm_shape2(-1, 2));
    check_refused(&w, "n: no tensor");
    gguf_begin_memory(&w);
    gguf_tensor(&w, "h", TFM_F32, tfm_shape4(INT64_MAX, 2, INT64_MAX, 4));
    check_refused(&w, "h: no tensor");
    gguf_begin_memory(&w);
    gguf_tensor(&w, "", TFM_F32, tfm_shape1(1));
    check_refused(&w, "1 to 63 bytes");
    gguf_begin_memory(&w);
    gguf_tensor(&w, "0123456789012345678901234567890123456789012345678901234567890123", TFM_F32, tfm_shape1(1));
    check_refused(&w, "1 to 63 bytes");
    gguf_begin_memory(&w);
    gguf_meta_u32(&w, "", 1);
    check_refused(&w, "key");
}
/* The sink stops at every byte of a file: an error each time, until there is room for all. */
static void writer_full(void) {
    size_t room = 0;
    for (bool done = false; !done && room < 4096; room++) {
        gguf_writer w;
        size_t left = room;
        const float two[2] = { 1, 2 };
        gguf_begin(&w, failing_sink, &left);
        gguf_meta_string(&w, "general.name", "full");
        gguf_tensor(&w, "a", TFM_F32, tfm_shape1(2));
        gguf_tensor(&w, "b", TFM_I8, tfm_shape1(0));
        gguf_data(&w, two, 8);
        done = gguf_finish(&w);
        CHECK(done || w.error[0]);
        if (done) CHECK_EQ(left, 0);
    }
    CHECK(room % 32 == 1 && room > 32);                    /* one further than the file's size */
}

const test_case tests_types[] = {
    { "tables_agree", tables_agree, QUICK },
    { "decoding", decoding, QUICK },
    { "encoding_exact", encoding_exact, QUICK },
    { "encoding_searched", encoding_searched, QUICK },
    { "shared_vectors", shared_vectors, SLOW },
    { "halves", halves, QUICK },
    { "halves_round", halves_round, SLOW },
    { "encoding_error", encoding_error, QUICK },
    { "encoding_again", encoding_again, QUICK },
    { "encoding_special", encoding_special, QUICK },
    { "encoding_any_bits", encoding_any_bits, QUICK },
    { "files_round_trip", files_round_trip, QUICK },
    { "files_copied", files_copied, QUICK },
    { "writer_errors", writer_errors, QUICK },
    { "writer_full", writer_full, QUICK },
    { NULL, NULL, SLOW } };
