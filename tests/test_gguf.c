/* GGUF files: everything the format allows, then everything that has broken other readers. */
#include "test.h"
#include "hostile.h"

#include <math.h>
#include <time.h>

/* ---- Files by hand, in either byte order ---- */

typedef struct raw {
    uint8_t *data;
    size_t size, capacity;
    bool other;                         /* numbers in the byte order that is not the host's */
} raw;

static void raw_begin(raw *r, bool other) {
    r->data = NULL;
    r->size = r->capacity = 0;
    r->other = other;
}
static void put(raw *r, const void *data, size_t size) {
    if (size > r->capacity - r->size) {
        r->capacity = 2 * (r->size + size);
        r->data = (uint8_t *)realloc(r->data, r->capacity);
        if (!r->data) exit(1);
    }
    if (size) memcpy(r->data + r->size, data, size);
    r->size += size;
}
static void turn_bytes(uint8_t *p, size_t n) {
    for (size_t i = 0; i < n / 2; i++) {
        uint8_t b = p[i];
        p[i] = p[n - 1 - i];
        p[n - 1 - i] = b;
    }
}
static void put_number(raw *r, const void *data, size_t size) {
    put(r, data, size);
    if (r->other) turn_bytes(r->data + r->size - size, size);
}
static void put_u32(raw *r, uint32_t v) { put_number(r, &v, sizeof v); }
static void put_u64(raw *r, uint64_t v) { put_number(r, &v, sizeof v); }
static void put_text(raw *r, const char *s) {
    put_u64(r, strlen(s));
    put(r, s, strlen(s));
}
static void put_head(raw *r, uint32_t version, uint64_t tensors, uint64_t keys) {
    put(r, "GGUF", 4);
    put_u32(r, version);
    put_u64(r, tensors);
    put_u64(r, keys);
}
static void put_tensor(raw *r, const char *name, uint32_t rank, const uint64_t *dims, uint32_t type, uint64_t offset) {
    put_text(r, name);
    put_u32(r, rank);
    for (uint32_t i = 0; i < rank; i++) put_u64(r, dims[i]);
    put_u32(r, type);
    put_u64(r, offset);
}
static void put_zeros(raw *r, size_t count) {
    while (count--) put(r, "", 1);
}
static void put_padding(raw *r, size_t alignment) { put_zeros(r, (alignment - r->size % alignment) % alignment); }
static void raw_free(raw *r) { free(r->data); }

/* Opens and uses the bytes; checks how opening them as a file went, and part of the message. */
static bool expect(const void *data, size_t size, tfm_status status, const char *part, const char *what) {
    hostile h = hostile_use(data, size);
    bool good = CHECK_EQ(h.file.status, status);
    if (part) good = CHECK_CONTAINS(h.file.message, part) && good;
    good = CHECK_STR(hostile_fault ? hostile_fault : "", "") && good;
    if (!good) printf("    %s: %s: %s\n", what, tfm_status_name(h.file.status), h.file.message);
    hostile_fault = NULL;
    return good;
}
static void expect_raw(raw *r, tfm_status status, const char *part, const char *what) {
    expect(r->data, r->size, status, part, what);
    raw_free(r);
}

/* ---- What the format allows ---- */

static void empty_files(void) {
    for (int i = 0; i < 4; i++) {
        raw r;
        tfm_error err;
        raw_begin(&r, i >= 2);
        put_head(&r, i % 2 ? 3 : 2, 0, 0);
        tfm_file *f = tfm_file_from_memory(r.data, r.size, NULL, &err);
        CHECK_STR(err.message, "");
        CHECK_STR(tfm_file_format(f), i % 2 ? "GGUF v3" : "GGUF v2");
        CHECK_EQ(tfm_file_tensor_count(f), 0);
        CHECK_EQ(tfm_file_meta_count(f), 0);
        tfm_file_free(f);
        expect_raw(&r, TFM_OK, NULL, "empty");
    }
}

/* One value of each type, as bytes of the host. */
typedef struct sample { tfm_value_type type; int64_t integer; double real; } sample;
static const sample samples[] = {
    { TFM_VALUE_U8, 200, 0 }, { TFM_VALUE_I8, -5, 0 }, { TFM_VALUE_U16, 60000, 0 }, { TFM_VALUE_I16, -30000, 0 },
    { TFM_VALUE_U32, 4000000000, 0 }, { TFM_VALUE_I32, -2000000000, 0 }, { TFM_VALUE_F32, 0, 1.5 },
    { TFM_VALUE_BOOL, 1, 0 }, { TFM_VALUE_BOOL, 0, 0 }, { TFM_VALUE_U64, INT64_MAX, 0 },
    { TFM_VALUE_I64, INT64_MIN, 0 }, { TFM_VALUE_F64, 0, -2.25 } };
enum { SAMPLES = sizeof samples / sizeof *samples };

static void put_value(raw *r, tfm_value_type type, int64_t integer, double real) {
    uint8_t bytes[8] = { 0 };
    size_t n = gguf_value_bytes(type);
    float f = (float)real;
    uint16_t u16 = (uint16_t)integer;
    uint32_t u32 = (uint32_t)integer;
    if (type == TFM_VALUE_F32) memcpy(bytes, &f, 4);
    else if (type == TFM_VALUE_F64) memcpy(bytes, &real, 8);
    else if (n == 1) bytes[0] = (uint8_t)integer;
    else if (n == 2) memcpy(bytes, &u16, 2);
    else if (n == 4) memcpy(bytes, &u32, 4);
    else memcpy(bytes, &integer, 8);
    put_number(r, bytes, n);
}
static void check_value(const tfm_value *v, const sample *s) {
    bool real = s->type == TFM_VALUE_F32 || s->type == TFM_VALUE_F64, flag = s->type == TFM_VALUE_BOOL, b = !s->integer;
    uint64_t u = 0;
    int64_t i = 0;
    double d = 0;
    tfm_string text;
    CHECK_EQ(v->type, s->type);
    CHECK_EQ(v->count, 1);
    CHECK_EQ(tfm_value_bool(v, &b), flag);
    if (flag) CHECK_EQ(b, s->integer);
    CHECK_EQ(tfm_value_u64(v, &u), !real && !flag && s->integer >= 0);
    if (!real && !flag && s->integer >= 0) CHECK_EQ(u, s->integer);
    CHECK_EQ(tfm_value_i64(v, &i), !real && !flag);
    if (!real && !flag) CHECK_EQ(i, s->integer);
    CHECK_EQ(tfm_value_f64(v, &d), !flag);
    volatile double want = real ? s->real : (double)s->integer;         /* rounded, with x87 too */
    if (!flag) CHECK(d == want);
    CHECK(!tfm_value_string(v, &text));
}
/* Every type alone, and in arrays of none, one and two. */
static void metadata_of_every_type(void) {
    for (int order = 0; order < 2; order++) {
        raw r;
        char name[32];
        raw_begin(&r, order != 0);
        put_head(&r, 3, 0, 4 * SAMPLES);
        for (int s = 0; s < SAMPLES; s++) {
            snprintf(name, sizeof name, "%d", s);
            put_text(&r, name);
            put_u32(&r, samples[s].type);
            put_value(&r, samples[s].type, samples[s].integer, samples[s].real);
            for (uint32_t n = 0; n < 3; n++) {
                snprintf(name, sizeof name, "%d.%u", s, (unsigned)n);
                put_text(&r, name);
                put_u32(&r, TFM_VALUE_ARRAY);
                put_u32(&r, samples[s].type);
                put_u64(&r, n);
                for (uint32_t i = 0; i < n; i++) put_value(&r, samples[s].type, samples[s].integer, samples[s].real);
            }
        }
        tfm_file *f = tfm_file_from_memory(r.data, r.size, NULL, NULL);
        for (int s = 0; CHECK(f != NULL) && s < SAMPLES; s++) {
            tfm_value v, e;
            snprintf(name, sizeof name, "%d", s);
            if (CHECK(tfm_file_meta(f, name, &v))) check_value(&v, &samples[s]);
            for (uint32_t n = 0; n < 3; n++) {
                uint32_t count = 0;
                snprintf(name, sizeof name, "%d.%u", s, (unsigned)n);
                if (!CHECK(tfm_file_meta(f, name, &v) && v.type == TFM_VALUE_ARRAY &&
                           v.element == samples[s].type)) continue;
                CHECK_EQ(v.count, n);
                for (; tfm_value_next(&v, &e); count++) check_value(&e, &samples[s]);
                CHECK_EQ(count, n);
            }
        }
        tfm_file_free(f);
        expect_raw(&r, TFM_OK, NULL, "metadata");
    }
}
static void metadata_strings(void) {
    for (int order = 0; order < 2; order++) {
        raw r;
        tfm_value v, e;
        tfm_string s;
        uint64_t u;
        double d;
        raw_begin(&r, order != 0);
        put_head(&r, 3, 0, 2);
        put_text(&r, "text");
        put_u32(&r, TFM_VALUE_STRING);
        put_text(&r, "caf\xc3\xa9 \xff\n");             /* bytes, not characters */
        put_text(&r, "texts");
        put_u32(&r, TFM_VALUE_ARRAY);
        put_u32(&r, TFM_VALUE_STRING);
        put_u64(&r, 3);
        put_text(&r, "a");
        put_text(&r, "");
        put_text(&r, "bcd");
        tfm_file *f = tfm_file_from_memory(r.data, r.size, NULL, NULL);
        CHECK(tfm_file_meta(f, "text", &v) && tfm_value_string(&v, &s) && s.size == 8 &&
              memcmp(s.data, "caf\xc3\xa9 \xff\n", 8) == 0);
        CHECK(v.count == 8 && !tfm_value_u64(&v, &u) && !tfm_value_f64(&v, &d) && !tfm_value_next(&v, &e));
        CHECK(tfm_file_meta(f, "texts", &v) && !tfm_value_string(&v, &s));
        CHECK(tfm_value_next(&v, &e) && tfm_value_string(&e, &s) && s.size == 1 && s.data[0] == 'a');
        CHECK(tfm_value_next(&v, &e) && tfm_value_string(&e, &s) && s.size == 0);
        CHECK(tfm_value_next(&v, &e) && tfm_value_string(&e, &s) && s.size == 3 && memcmp(s.data, "bcd", 3) == 0);
        CHECK(!tfm_value_next(&v, &e) && v.size == 0);
        tfm_file_free(f);
        expect_raw(&r, TFM_OK, NULL, "strings");
    }
}
/* Names that begin alike, in no order; listing keeps the file's order. */
static void lookups(void) {
    static const char *const names[] = { "b", "ab", "a", "abc", "\xc3\xa9", "abd", "B", "a.b", "ba", "0" };
    enum { N = sizeof names / sizeof *names };
    raw r;
    tfm_value v;
    tfm_string key;
    tfm_tensor_info t;
    uint64_t dim = 1;
    raw_begin(&r, false);
    put_head(&r, 3, N, N);
    for (uint32_t i = 0; i < N; i++) {
        put_text(&r, names[i]);
        put_u32(&r, TFM_VALUE_U32);
        put_u32(&r, i);
    }
    for (uint32_t i = 0; i < N; i++) put_tensor(&r, names[i], 1, &dim, TFM_I8, i);
    put_padding(&r, 32);
    put_zeros(&r, N);
    tfm_file *f = tfm_file_from_memory(r.data, r.size, NULL, NULL);
    CHECK_EQ(tfm_file_meta_count(f), N);
    CHECK_EQ(tfm_file_tensor_count(f), N);
    for (uint32_t i = 0; i < N; i++) {
        uint64_t u = 99;
        CHECK(tfm_file_meta(f, names[i], &v) && tfm_value_u64(&v, &u) && u == i);
        CHECK(tfm_file_meta_at(f, i, &key, &v) && key.size == strlen(names[i]) &&
              memcmp(key.data, names[i], key.size) == 0);
        CHECK(tfm_file_tensor(f, names[i], &t) && t.tensor.data == r.data + r.size - N + i);
        CHECK(tfm_file_tensor_at(f, i, &t) && t.name.size == strlen(names[i]));
    }
    static const char *const absent[] = { "", "ac", "abcd", "c", "A", "\xc3" };
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++)
        CHECK(!tfm_file_meta(f, absent[i], &v) && !tfm_file_tensor(f, absent[i], &t));
    CHECK(!tfm_file_meta(f, NULL, &v) && !tfm_file_tensor(f, NULL, &t));
    CHECK(!tfm_file_meta(NULL, "a", &v) && !tfm_file_tensor(NULL, "a", &t));
    CHECK(!tfm_file_meta_at(NULL, 0, &key, &v) && !tfm_file_tensor_at(NULL, 0, &t));
    CHECK_EQ(tfm_file_meta_count(NULL) + tfm_file_tensor_count(NULL), 0);
    tfm_file_free(f);
    raw_free(&r);
}
/* GGUF has the innermost dimension first, we have it last. */
static void ranks_and_empty_dimensions(void) {
    static const struct { uint32_t rank; uint64_t dims[4]; int64_t count; } rows[] = {
        { 0, { 0 }, 1 }, { 1, { 5 }, 5 }, { 2, { 2, 3 }, 6 }, { 3, { 2, 3, 4 }, 24 }, { 4, { 5, 1, 2, 3 }, 30 },
        { 1, { 0 }, 0 }, { 3, { 5, 0, 7 }, 0 }, { 2, { 0, INT64_MAX }, 0 }, { 2, { INT64_MAX, 0 }, 0 },
        { 4, { INT64_MAX, INT64_MAX, INT64_MAX, 0 }, 0 }, { 3, { 1u << 31, 0, 1u << 31 }, 0 } };
    enum { N = sizeof rows / sizeof *rows };
    for (int order = 0; order < 2; order++) {
        raw r;
        tfm_tensor_info t;
        uint64_t offset = 0;
        char name[8];
        raw_begin(&r, order != 0);
        put_head(&r, 3, N, 0);
        for (int i = 0; i < N; i++) {
            snprintf(name, sizeof name, "%d", i);
            put_tensor(&r, name, rows[i].rank, rows[i].dims, TFM_F32, offset);
            offset += (uint64_t)rows[i].count * 4;
        }
        put_padding(&r, 32);
        size_t data = r.size;
        put_zeros(&r, (size_t)offset);
        tfm_file *f = tfm_file_from_memory(r.data, r.size, NULL, NULL);
        offset = data;
        for (int i = 0; CHECK(f != NULL) && i < N; i++) {
            int rank = rows[i].rank ? (int)rows[i].rank : 1;
            if (!CHECK(tfm_file_tensor_at(f, i, &t))) break;
            CHECK(t.rank == (int)rows[i].rank && t.tensor.rank == rank && t.tensor.type == TFM_F32);
            for (int k = 0; k < rank; k++)
                CHECK_EQ(t.tensor.dim[k], rows[i].rank ? (int64_t)rows[i].dims[rank - 1 - k] : 1);
            CHECK_EQ(t.offset, offset);
            CHECK_EQ(t.bytes, rows[i].count * 4);
            CHECK_EQ(tfm_count(t.tensor), rows[i].count);
            CHECK((t.tensor.data == NULL) == (rows[i].count == 0));
            offset += t.bytes;
        }
        tfm_file_free(f);
        expect_raw(&r, TFM_OK, NULL, "ranks");
    }
}

/* The format's types; 0 bytes: a number without one, or whose type was taken out. */
static const struct { const char *name; uint64_t block, bytes; } types[] = {
    { "F32", 1, 4 }, { "F16", 1, 2 }, { "Q4_0", 32, 18 }, { "Q4_1", 32, 20 }, { 0, 0, 0 }, { 0, 0, 0 },
    { "Q5_0", 32, 22 }, { "Q5_1", 32, 24 }, { "Q8_0", 32, 34 }, { "Q8_1", 32, 36 }, { "Q2_K", 256, 84 },
    { "Q3_K", 256, 110 }, { "Q4_K", 256, 144 }, { "Q5_K", 256, 176 }, { "Q6_K", 256, 210 }, { "Q8_K", 256, 292 },
    { "IQ2_XXS", 256, 66 }, { "IQ2_XS", 256, 74 }, { "IQ3_XXS", 256, 98 }, { "IQ1_S", 256, 50 }, { "IQ4_NL", 32, 18 },
    { "IQ3_S", 256, 110 }, { "IQ2_S", 256, 82 }, { "IQ4_XS", 256, 136 }, { "I8", 1, 1 }, { "I16", 1, 2 },
    { "I32", 1, 4 }, { "I64", 1, 8 }, { "F64", 1, 8 }, { "IQ1_M", 256, 56 }, { "BF16", 1, 2 }, { 0, 0, 0 }, { 0, 0, 0 },
    { 0, 0, 0 }, { "TQ1_0", 256, 54 }, { "TQ2_0", 256, 66 }, { 0, 0, 0 }, { 0, 0, 0 }, { 0, 0, 0 },
    { "MXFP4", 32, 17 } };
enum { TYPES = sizeof types / sizeof *types };

static void put_one_tensor(raw *r, uint32_t rank, const uint64_t *dims, uint32_t type, uint64_t offset, size_t bytes) {
    raw_begin(r, false);
    put_head(r, 3, 1, 0);
    put_tensor(r, "w", rank, dims, type, offset);
    put_padding(r, 32);
    put_zeros(r, bytes);
}
static void tensor_types(void) {
    static const char *const listed[] = { "Q8_1", "Q8_K", "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ3_S", "IQ2_S",
                                          "IQ4_XS", "IQ1_M",
                                          "TQ1_0", "TQ2_0", "MXFP4" };
    uint64_t dims[2] = { 256, 2 };
    for (uint32_t n = 0; n < 260; n++) {
        uint32_t number = n < 256 ? n : n == 256 ? 1u << 31 : n == 257 ? UINT32_MAX : n == 258 ? INT32_MAX : 256;
        raw r;
        tfm_tensor_info t;
        char text[16];
        snprintf(text, sizeof text, "%u", (unsigned)number);
        put_one_tensor(&r, 2, dims, number, 0, 4096);
        tfm_file *f = tfm_file_from_memory(r.data, r.size, NULL, NULL);
        bool known = number < TYPES && types[number].name, named = false;
        CHECK_EQ(f != NULL, known);
        if (known && CHECK(tfm_file_tensor(f, "w", &t))) {
            for (size_t i = 0; i < sizeof listed / sizeof *listed; i++)
                named = named || strcmp(listed[i], types[number].name) == 0;
            CHECK(t.type_name.size == strlen(types[number].name) &&
                  memcmp(t.type_name.data, types[number].name, t.type_name.size) == 0);
            CHECK_EQ(t.bytes, 512 / types[number].block * types[number].bytes);
            CHECK_EQ(t.tensor.type, named ? (int)TFM_TYPE_NONE : (int)number);
        }
        tfm_file_free(f);
        expect_raw(&r, known ? TFM_OK : TFM_UNSUPPORTED, known ? NULL : text, text);
    }
}
static void alignments(void) {
    uint64_t dims[1] = { 3 };
    for (uint32_t a = 1; a <= 1u << 20; a *= a < 4096 ? 2 : 16) {
        raw r;
        tfm_tensor_info t;
        raw_begin(&r, false);
        put_head(&r, 3, 2, 2);
        put_text(&r, "before");
        put_u32(&r, TFM_VALUE_U8);
        put(&r, "x", 1);
        put_text(&r, "general.alignment");
        put_u32(&r, TFM_VALUE_U32);
        put_u32(&r, a);
        put_tensor(&r, "v", 1, dims, TFM_I8, 0);
        put_tensor(&r, "w", 1, dims, TFM_I8, a < 4 ? 4 : a);
        put_padding(&r, a);
        size_t data = r.size;
        put(&r, "123", 3);
        put_zeros(&r, (a < 4 ? 4 : a) - 3);
        put(&r, "456", 3);
        tfm_file *f = tfm_file_from_memory(r.data, r.size, NULL, NULL);
        CHECK(f && tfm_file_tensor(f, "v", &t) && t.offset == data && memcmp(t.tensor.data, "123", 3) == 0);
        CHECK(f && tfm_file_tensor(f, "w", &t) && t.offset == r.size - 3 && memcmp(t.tensor.data, "456", 3) == 0);
        tfm_file_free(f);
        expect_raw(&r, TFM_OK, NULL, "alignment");
    }
}
/* Any order, gaps, offsets that are not aligned, an empty tensor anywhere inside. */
static void tensor_places(void) {
    static const struct { uint64_t dim[4], offset[4]; tfm_status status; } rows[] = {
        { { 8, 8, 8, 0 }, { 32, 0, 64, 10 }, TFM_OK }, { { 1, 1, 1, 0 }, { 95, 94, 0, 96 }, TFM_OK },
        { { 3, 3, 3, 0 }, { 0, 3, 7, 0 }, TFM_OK }, { { 32, 32, 32, 0 }, { 64, 32, 0, 40 }, TFM_OK },
        { { 0, 0, 0, 0 }, { 0, 0, 0, 0 }, TFM_OK }, { { 8, 8, 8, 0 }, { 0, 0, 32, 0 }, TFM_MALFORMED },
        { { 33, 8, 8, 0 }, { 0, 32, 64, 0 }, TFM_MALFORMED }, { { 64, 8, 8, 0 }, { 0, 8, 80, 0 }, TFM_MALFORMED },
        { { 8, 8, 8, 0 }, { 89, 0, 32, 0 }, TFM_TRUNCATED }, { { 8, 8, 97, 0 }, { 0, 8, 0, 0 }, TFM_TRUNCATED },
        { { 8, 8, 8, 0 }, { 0, 8, 16, 97 }, TFM_TRUNCATED } };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        static const char *const names[] = { "a", "b", "c", "nothing" };
        raw r;
        raw_begin(&r, false);
        put_head(&r, 3, 4, 0);
        for (int k = 0; k < 4; k++) put_tensor(&r, names[k], 1, &rows[i].dim[k], TFM_I8, rows[i].offset[k]);
        put_padding(&r, 32);
        put_zeros(&r, 96);
        expect_raw(&r, rows[i].status, rows[i].status == TFM_OK ? NULL : "byte", "places");
    }
}
static void paths(void) {
    static const char path[] = "tests/data/tiny-llama.gguf";
    tfm_error err;
    size_t size;
    unsigned char *bytes = test_read(path, &size);
    tfm_file *a = tfm_file_open(path, NULL, &err), *b = bytes ? tfm_file_from_memory(bytes, size, NULL, &err) : NULL;
    tfm_tensor_info s, t;
    if (CHECK(a && b)) {
        CHECK_EQ(tfm_file_meta_count(a), tfm_file_meta_count(b));
        CHECK_EQ(tfm_file_tensor_count(a), tfm_file_tensor_count(b));
        for (int64_t i = 0; tfm_file_tensor_at(a, i, &s) && CHECK(tfm_file_tensor_at(b, i, &t)); i++)
            CHECK(s.offset == t.offset && s.bytes == t.bytes &&
                  memcmp(s.tensor.data, t.tensor.data, (size_t)s.bytes) == 0);
    }
    tfm_file_free(a);
    tfm_file_free(b);
    free(bytes);
    static const struct { const char *path; tfm_status status; } wrong[] = {
        { "tests/data/README.md", TFM_MALFORMED }, { "tests/data", TFM_IO }, { "tests/data/none.gguf", TFM_IO } };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        CHECK(tfm_file_open(wrong[i].path, NULL, &err) == NULL);
        CHECK_EQ(err.status, wrong[i].status);
        CHECK_CONTAINS(err.message, wrong[i].path);
        CHECK(tfm_file_open(wrong[i].path, NULL, NULL) == NULL);
    }
    CHECK(tfm_file_open(NULL, NULL, &err) == NULL);
    CHECK_EQ(err.status, TFM_ARGUMENT);
    CHECK(tfm_file_from_memory(NULL, 100, NULL, &err) == NULL);
    CHECK_EQ(err.status, TFM_ARGUMENT);
    CHECK_EQ(tfm_file_size(NULL, 100, &err), 0);
    CHECK(tfm_file_in("GGUF", 4, NULL, 0, &err) == NULL);
    tfm_file_free(NULL);
}

/* ---- The other byte order, odd addresses ---- */

/* Where numbers of several bytes lie in a block. */
static void turn_block(tfm_type type, uint8_t *p) {
    switch (type) {
        case TFM_F32: case TFM_I32: turn_bytes(p, 4); break;
        case TFM_F64: case TFM_I64: turn_bytes(p, 8); break;
        case TFM_F16: case TFM_BF16: case TFM_I16: turn_bytes(p, 2); break;
        case TFM_Q4_0: case TFM_Q5_0: case TFM_Q8_0: case TFM_IQ4_NL: turn_bytes(p, 2); break;
        case TFM_Q4_1: case TFM_Q5_1: case TFM_Q4_K: case TFM_Q5_K: turn_bytes(p, 2); turn_bytes(p + 2, 2); break;
        case TFM_Q2_K: turn_bytes(p + 80, 2); turn_bytes(p + 82, 2); break;
        case TFM_Q3_K: turn_bytes(p + 108, 2); break;
        case TFM_Q6_K: turn_bytes(p + 208, 2); break;
        default: break;
    }
}
static uint64_t turn_next(uint8_t **p, size_t n) {       /* reads the number, turns it, goes on */
    uint64_t v = 0;
    uint32_t w;
    if (n == 8) memcpy(&v, *p, 8);
    if (n == 4) { memcpy(&w, *p, 4); v = w; }
    turn_bytes(*p, n);
    *p += n;
    return v;
}
/* A valid file of the host's byte order, turned around; all of its tensors are of types that run. */
static buffer turned(buffer b) {
    buffer out;
    tfm_tensor_info t;
    out.size = b.size;
    out.data = (uint8_t *)malloc(b.size);
    if (!out.data) exit(1);
    memcpy(out.data, b.data, b.size);
    tfm_file *f = tfm_file_from_memory(b.data, b.size, NULL, NULL);
    for (int64_t i = 0; tfm_file_tensor_at(f, i, &t); i++)
        for (uint64_t at = 0; at < t.bytes; at += (uint64_t)tfm_type_bytes(t.tensor.type))
            turn_block(t.tensor.type, out.data + t.offset + at);
    tfm_file_free(f);
    uint8_t *p = out.data + 4;
    turn_next(&p, 4);
    uint64_t tensors = turn_next(&p, 8), keys = turn_next(&p, 8);
    while (keys--) {
        uint64_t n = turn_next(&p, 8), count = 1;
        p += n;
        uint64_t type = turn_next(&p, 4);
        if (type == TFM_VALUE_ARRAY) {
            type = turn_next(&p, 4);
            count = turn_next(&p, 8);
        }
        while (count--) {
            n = type == TFM_VALUE_STRING ? turn_next(&p, 8) : 0;
            if (type == TFM_VALUE_STRING) p += n;
            else turn_next(&p, gguf_value_bytes((tfm_value_type)type));
        }
    }
    while (tensors--) {
        uint64_t n = turn_next(&p, 8);
        p += n;
        uint64_t rank = turn_next(&p, 4);
        while (rank--) turn_next(&p, 8);
        turn_next(&p, 4);
        turn_next(&p, 8);
    }
    return out;
}
/* Tensors of all types, of any bytes, are the same bytes again. */
static void other_order_of_all_types(void) {
    static const tfm_type all[] = { TFM_F32, TFM_F16, TFM_BF16, TFM_F64, TFM_I8, TFM_I16, TFM_I32, TFM_I64, TFM_Q4_0,
                                    TFM_Q4_1,
                                    TFM_Q5_0, TFM_Q5_1, TFM_Q8_0, TFM_Q2_K, TFM_Q3_K, TFM_Q4_K, TFM_Q5_K, TFM_Q6_K,
                                        TFM_IQ4_NL };
    enum { N = sizeof all / sizeof *all };
    gguf_writer w;
    uint64_t state = 5;
    gguf_begin_memory(&w);
    gguf_meta_u32(&w, "one", 1);
    for (int i = 0; i < N; i++) gguf_tensor(&w, tfm_type_name(all[i]), all[i], tfm_shape2(2, 512));
    for (int i = 0; i < N; i++)
        for (int64_t k = 0; k < 1024 / gguf_type_block(all[i]) * gguf_type_bytes(all[i]); k++) {
            uint8_t byte = (uint8_t)(test_random(&state) >> 30);
            gguf_data(&w, &byte, 1);
        }
    if (!CHECK(gguf_finish(&w))) return;
    buffer b = { w.bytes.data, w.bytes.size }, o = turned(b);
    tfm_file *f = tfm_file_from_memory(b.data, b.size, NULL, NULL),
        *g = tfm_file_from_memory(o.data, o.size, NULL, NULL);
    for (int i = 0; i < N; i++) {
        tfm_tensor_info s, t;
        if (!CHECK(tfm_file_tensor_at(f, i, &s) && tfm_file_tensor_at(g, i, &t))) continue;
        CHECK(s.bytes == t.bytes && memcmp(s.tensor.data, t.tensor.data, (size_t)s.bytes) == 0);
        /* the caller's stays */
        if (s.tensor.type != TFM_I8) CHECK(memcmp(o.data + s.offset, b.data + s.offset, (size_t)s.bytes) != 0);
    }
    tfm_error err;
    CHECK_EQ(tfm_file_size(o.data, o.size, &err), 0);
    CHECK_EQ(err.status, TFM_UNSUPPORTED);
    tfm_file_free(f);
    tfm_file_free(g);
    free(b.data);
    free(o.data);
}
enum { VOCAB = 14 };

static bool logits_of(const uint8_t *data, size_t size, float *out) {
    static const int32_t ids[] = { 3, 0, 13, 7, 7 };
    tfm_error err;
    tfm_session_opts o = { .context = 8, .threads = 1 };
    tfm_model *m = tfm_model_from_memory(data, size, NULL, &err);
    tfm_session *s = m ? tfm_session_new(m, &o, &err) : NULL;
    bool good = CHECK_STR(err.message, "") && CHECK_EQ(tfm_eval(s, ids, 5), TFM_OK);
    if (good) memcpy(out, tfm_logits(s), VOCAB * sizeof *out);
    tfm_session_free(s);
    tfm_model_free(m);
    return good;
}
/* Whole models: as they are, at odd addresses, turned around: the same logits. */
static void same_logits(bool gpt2, tfm_type type, int width) {
    plan p = { gpt2, type, width, VOCAB };
    float want[VOCAB], got[VOCAB];
    buffer b = hostile_model(&p), o = turned(b);
    if (logits_of(b.data, b.size, want)) {
        CHECK(want[0] != want[1] && isfinite(want[0]));
        uint8_t *odd = odd_copy(b.data, b.size);
        if (logits_of(odd, b.size, got)) CHECK_SAME(got, want, VOCAB);
        odd_free(odd);
        odd = odd_copy(o.data, o.size);
        if (logits_of(odd, o.size, got)) CHECK_SAME(got, want, VOCAB);
        odd_free(odd);
        b.data[4] = b.data[4] == 3 ? 2 : 0;              /* version 2 has the same layout */
        b.data[7] = b.data[7] == 3 ? 2 : 0;
        if (logits_of(b.data, b.size, got)) CHECK_SAME(got, want, VOCAB);
    }
    free(b.data);
    free(o.data);
}
static void odd_addresses_and_orders(void) {
    static const tfm_type block32[] = { TFM_F32, TFM_F16, TFM_BF16, TFM_Q8_0, TFM_Q4_0, TFM_Q4_1, TFM_Q5_0, TFM_Q5_1 };
    for (int i = 0; i < 8; i++) {
        same_logits(false, block32[i], 64);
        same_logits(true, block32[i], 64);
    }
}
static void odd_addresses_and_orders_of_k_types(void) {
    same_logits(false, TFM_Q4_K, 512);
    same_logits(false, TFM_Q5_K, 512);
    same_logits(true, TFM_Q6_K, 512);
}

/* ---- Damaged headers ---- */

enum { AT_VERSION, AT_TENSORS, AT_KEYS, AT_KEY_SIZE, AT_KEY, AT_NUMBER_TYPE, AT_STRING_TYPE, AT_STRING_SIZE,
       AT_ARRAY_TYPE, AT_ELEMENT, AT_COUNT,
       AT_TEXTS, AT_TEXT_SIZE, AT_NAME_SIZE, AT_NAME, AT_RANK, AT_DIM, AT_TYPE, AT_OFFSET, AT_Q_DIM, AT_Q_OFFSET,
           PLACES };

/* A file with one of each; places get the offsets of its fields. */
static void small_file(raw *r, bool other, size_t *at) {
    uint64_t plain[2] = { 3, 2 }, blocks[2] = { 32, 2 };
    raw_begin(r, other);
    put_head(r, 3, 2, 4);
    at[AT_VERSION] = 4;
    at[AT_TENSORS] = 8;
    at[AT_KEYS] = 16;
    at[AT_KEY_SIZE] = r->size;
    at[AT_KEY] = r->size + 8;
    put_text(r, "number");
    at[AT_NUMBER_TYPE] = r->size;
    put_u32(r, TFM_VALUE_U32);
    put_u32(r, 7);
    put_text(r, "string");
    at[AT_STRING_TYPE] = r->size;
    put_u32(r, TFM_VALUE_STRING);
    at[AT_STRING_SIZE] = r->size;
    put_text(r, "hello");
    put_text(r, "array");
    at[AT_ARRAY_TYPE] = r->size;
    put_u32(r, TFM_VALUE_ARRAY);
    at[AT_ELEMENT] = r->size;
    put_u32(r, TFM_VALUE_U64);
    at[AT_COUNT] = r->size;
    put_u64(r, 2);
    put_u64(r, 1);
    put_u64(r, 2);
    put_text(r, "texts");
    put_u32(r, TFM_VALUE_ARRAY);
    put_u32(r, TFM_VALUE_STRING);
    at[AT_TEXTS] = r->size;
    put_u64(r, 2);
    at[AT_TEXT_SIZE] = r->size;
    put_text(r, "a");
    put_text(r, "bc");
    at[AT_NAME_SIZE] = r->size;
    at[AT_NAME] = r->size + 8;
    at[AT_RANK] = r->size + 9;
    at[AT_DIM] = r->size + 13;
    at[AT_TYPE] = r->size + 29;
    at[AT_OFFSET] = r->size + 33;
    put_tensor(r, "x", 2, plain, TFM_F32, 0);
    at[AT_Q_DIM] = r->size + 13;
    at[AT_Q_OFFSET] = r->size + 33;
    put_tensor(r, "q", 2, blocks, TFM_Q8_0, 32);
    put_padding(r, 32);
    put_zeros(r, 32 + 2 * 34);
}
static void set(raw *r, size_t at, size_t width, uint64_t v) {
    uint32_t w = (uint32_t)v;
    if (width == 8) memcpy(r->data + at, &v, 8);
    else memcpy(r->data + at, &w, 4);
    if (r->other) turn_bytes(r->data + at, width);
}

typedef struct damage { int at, width; uint64_t value; tfm_status status; const char *part; } damage;

#define POW(n) (UINT64_C(1) << (n))
static const damage header_damages[] = {
    { AT_VERSION, 4, 0, TFM_UNSUPPORTED, "version 0" }, { AT_VERSION, 4, 1, TFM_UNSUPPORTED, "version 1" },
    { AT_VERSION, 4, 4, TFM_UNSUPPORTED, "version 4" }, { AT_VERSION, 4, 0x00030000, TFM_UNSUPPORTED, "version" },
    { AT_VERSION, 4, 0x01000000, TFM_UNSUPPORTED, "version 1" },
    { AT_VERSION, 4, UINT32_MAX, TFM_UNSUPPORTED, "version 4294967295" },
    { AT_VERSION, 4, 0x03000000, TFM_TRUNCATED, NULL }, { AT_VERSION, 4, 0x02000000, TFM_TRUNCATED, NULL },
    { AT_TENSORS, 8, POW(60), TFM_TRUNCATED, "tensors" }, { AT_TENSORS, 8, POW(63), TFM_TRUNCATED, "tensors" },
    { AT_TENSORS, 8, UINT64_MAX, TFM_TRUNCATED, "tensors" }, { AT_TENSORS, 8, POW(32) + 2, TFM_TRUNCATED, "tensors" },
    { AT_TENSORS, 8, 3, TFM_MALFORMED, "name" }, { AT_TENSORS, 8, 1, TFM_OK, NULL }, { AT_TENSORS, 8, 0, TFM_OK, NULL },
    { AT_KEYS, 8, POW(60), TFM_TRUNCATED, "keys" }, { AT_KEYS, 8, POW(63), TFM_TRUNCATED, "keys" },
    { AT_KEYS, 8, UINT64_MAX, TFM_TRUNCATED, "keys" }, { AT_KEYS, 8, POW(32) + 4, TFM_TRUNCATED, "keys" },
    { AT_KEY_SIZE, 8, 0, TFM_MALFORMED, "key" }, { AT_KEY_SIZE, 8, UINT64_MAX, TFM_TRUNCATED, "key" },
    { AT_KEY_SIZE, 8, POW(63), TFM_TRUNCATED, "key" }, { AT_KEY_SIZE, 8, POW(31), TFM_TRUNCATED, "key" },
    { AT_KEY_SIZE, 8, POW(32) + 6, TFM_TRUNCATED, "key" }, { AT_KEY_SIZE, 8, UINT64_MAX - 7, TFM_TRUNCATED, "key" },
    { AT_NUMBER_TYPE, 4, 13, TFM_MALFORMED, "type 13" }, { AT_NUMBER_TYPE, 4, 255, TFM_MALFORMED, "type 255" },
    { AT_NUMBER_TYPE, 4, POW(31), TFM_MALFORMED, "type 2147483648" },
    { AT_NUMBER_TYPE, 4, UINT32_MAX, TFM_MALFORMED, "type 4294967295" },
    { AT_STRING_SIZE, 8, UINT64_MAX, TFM_TRUNCATED, "string" }, { AT_STRING_SIZE, 8, POW(63), TFM_TRUNCATED, "string" },
    { AT_STRING_SIZE, 8, POW(31), TFM_TRUNCATED, "string" },
    { AT_STRING_SIZE, 8, POW(32) + 5, TFM_TRUNCATED, "string" },
    { AT_STRING_SIZE, 8, POW(30), TFM_TRUNCATED, "string" },
    { AT_ELEMENT, 4, TFM_VALUE_ARRAY, TFM_MALFORMED, "array of type 9" },
    { AT_ELEMENT, 4, 13, TFM_MALFORMED, "array of type 13" },
    { AT_ELEMENT, 4, UINT32_MAX, TFM_MALFORMED, "array of type 4294967295" },
    { AT_COUNT, 8, POW(61), TFM_TRUNCATED, "array" }, { AT_COUNT, 8, POW(61) + 2, TFM_TRUNCATED, "array" },
    { AT_COUNT, 8, POW(63), TFM_TRUNCATED, "array" }, { AT_COUNT, 8, UINT64_MAX, TFM_TRUNCATED, "array" },
    { AT_TEXTS, 8, POW(60), TFM_TRUNCATED, "array" }, { AT_TEXTS, 8, POW(61), TFM_TRUNCATED, "array" },
    { AT_TEXTS, 8, UINT64_MAX, TFM_TRUNCATED, "array" },
    { AT_TEXT_SIZE, 8, UINT64_MAX, TFM_TRUNCATED, "string in an array" },
    { AT_TEXT_SIZE, 8, UINT64_MAX - 7, TFM_TRUNCATED, "string in an array" },
    { AT_NAME_SIZE, 8, 0, TFM_MALFORMED, "name of 0 bytes" },
    { AT_NAME_SIZE, 8, 64, TFM_MALFORMED, "name of 64 bytes" }, { AT_NAME_SIZE, 8, POW(63), TFM_TRUNCATED, "name" },
    { AT_NAME_SIZE, 8, UINT64_MAX, TFM_TRUNCATED, "name" }, { AT_RANK, 4, 5, TFM_MALFORMED, "x: rank 5" },
    { AT_RANK, 4, 8, TFM_MALFORMED, "x: rank 8" }, { AT_RANK, 4, UINT32_MAX, TFM_MALFORMED, "x: rank 4294967295" },
    { AT_TYPE, 4, 4, TFM_UNSUPPORTED, "x: tensor type 4" }, { AT_TYPE, 4, 31, TFM_UNSUPPORTED, "x: tensor type 31" },
    { AT_TYPE, 4, UINT32_MAX, TFM_UNSUPPORTED, "x: tensor type 4294967295" } };

static const damage tensor_damages[] = {
    { AT_DIM, 8, POW(62) - 1, TFM_MALFORMED, "x: 2x4611686018427387903" },
    { AT_DIM, 8, POW(63), TFM_MALFORMED, "x: dimension 9223372036854775808" },
    { AT_DIM, 8, UINT64_MAX, TFM_MALFORMED, "x: dimension 18446744073709551615" },
    { AT_DIM, 8, POW(61), TFM_MALFORMED, "x: 2x2305843009213693952" },
    { AT_DIM, 8, POW(59), TFM_TRUNCATED, "x: 4611686018427387904 bytes" },
    { AT_DIM, 8, POW(32) + 3, TFM_TRUNCATED, "x: " }, { AT_DIM, 8, POW(30), TFM_TRUNCATED, "x: 8589934592 bytes" },
    { AT_DIM, 8, 0, TFM_OK, NULL }, { AT_OFFSET, 8, 99, TFM_TRUNCATED, "x: 24 bytes at offset 99" },
    { AT_OFFSET, 8, 100, TFM_TRUNCATED, "x: 24 bytes at offset 100" },
    { AT_OFFSET, 8, 101, TFM_TRUNCATED, "x: 24 bytes at offset 101" },
    { AT_OFFSET, 8, POW(63), TFM_TRUNCATED, "x: 24 bytes at offset" },
    { AT_OFFSET, 8, UINT64_MAX - 31, TFM_TRUNCATED, "x: " }, { AT_OFFSET, 8, UINT64_MAX - 23, TFM_TRUNCATED, "x: " },
    { AT_OFFSET, 8, POW(32), TFM_TRUNCATED, "x: " }, { AT_OFFSET, 8, 8, TFM_OK, NULL },
    { AT_OFFSET, 8, 9, TFM_MALFORMED, "q: begins" }, { AT_OFFSET, 8, 32, TFM_MALFORMED, "begins" },
    { AT_Q_OFFSET, 8, 33, TFM_TRUNCATED, "q: 68 bytes at offset 33" },
    { AT_Q_OFFSET, 8, 23, TFM_MALFORMED, "q: begins" }, { AT_Q_OFFSET, 8, 24, TFM_OK, NULL },
    { AT_Q_DIM, 8, 31, TFM_MISMATCH, "q: rows of 31 elements are not whole Q8_0 blocks of 32" },
    { AT_Q_DIM, 8, 33, TFM_MISMATCH, "q: rows of 33" }, { AT_Q_DIM, 8, 0, TFM_OK, NULL },
    { AT_Q_DIM, 8, POW(62), TFM_MALFORMED, "q: " }, { AT_Q_DIM, 8, POW(60), TFM_TRUNCATED, "q: " },
    { AT_Q_DIM, 8, UINT64_MAX / 34 / 32 * 32, TFM_TRUNCATED, "q: " },
    { AT_Q_DIM, 8, (UINT64_MAX / 34 / 32 + 1) * 32, TFM_TRUNCATED, "q: " },
    { AT_Q_DIM, 8, INT64_MAX - 31, TFM_MALFORMED, "q: " } };

/* In both byte orders: the same verdict, for the same reason. */
static void do_damage(const damage *rows, size_t count) {
    for (size_t i = 0; i < 2 * count; i++) {
        const damage *d = &rows[i / 2];
        size_t at[PLACES];
        raw r;
        char what[64];
        small_file(&r, i % 2 != 0, at);
        set(&r, at[d->at], (size_t)d->width, d->value);
        snprintf(what, sizeof what, "row %d, order %d", (int)(i / 2), (int)(i % 2));
        expect_raw(&r, d->status, d->part, what);
    }
}
static void damaged_headers(void) { do_damage(header_damages, sizeof header_damages / sizeof *header_damages); }
static void damaged_tensors(void) { do_damage(tensor_damages, sizeof tensor_damages / sizeof *tensor_damages); }

/* Lengths that end exactly at the end of the file, and one byte later. */
static void lengths_to_the_end(void) {
    for (int other = 0; other < 2; other++) {
        size_t at[PLACES];
        raw r;
        for (uint64_t more = 0; more < 2; more++) {
            small_file(&r, other != 0, at);
            set(&r, at[AT_KEY_SIZE], 8, r.size - at[AT_KEY] + more);
            expect_raw(&r, more ? TFM_TRUNCATED : TFM_MALFORMED, "key", "key");       /* it has NULs in it */
            small_file(&r, other != 0, at);
            set(&r, at[AT_NAME_SIZE], 8, r.size - at[AT_NAME] + more);
            expect_raw(&r, TFM_TRUNCATED, more ? "name" : "rank", "name");
            raw_begin(&r, other != 0);
            put_head(&r, 3, 0, 1);
            put_text(&r, "k");
            put_u32(&r, TFM_VALUE_STRING);
            put_u64(&r, 20 + more);
            put_zeros(&r, 20);
            expect_raw(&r, more ? TFM_TRUNCATED : TFM_OK, more ? "string" : NULL, "string");
            raw_begin(&r, other != 0);
            put_head(&r, 3, 0, 1);
            put_text(&r, "k");
            put_u32(&r, TFM_VALUE_ARRAY);
            put_u32(&r, TFM_VALUE_U64);
            put_u64(&r, 2 + more);
            put_zeros(&r, 16 + 7 * (size_t)more);
            expect_raw(&r, more ? TFM_TRUNCATED : TFM_OK, more ? "array" : NULL, "array");
        }
    }
}
static void names(void) {
    static const struct { size_t size; const char *text; tfm_status status; } rows[] = {
        { 63, NULL, TFM_OK }, { 64, NULL, TFM_MALFORMED }, { 65535, NULL, TFM_MALFORMED }, { 1, "\0", TFM_MALFORMED },
        { 3, "a\0b", TFM_MALFORMED }, { 1, "\xff", TFM_MALFORMED }, { 2, "\xc0\x80", TFM_MALFORMED },
        { 3, "\xed\xa0\x80", TFM_MALFORMED }, { 2, "a\xc3", TFM_MALFORMED }, { 4, "\xf4\x90\x80\x80", TFM_MALFORMED },
        { 1, "\x80", TFM_MALFORMED }, { 2, "\xc3\xa9", TFM_OK }, { 4, "\xf0\x9f\x98\x80", TFM_OK },
        { 3, "a b", TFM_OK }, { 1, "\n", TFM_OK } };
    static char many[65536];
    memset(many, 'n', sizeof many);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int key = 0; key < 2; key++) {
            uint64_t dim = 1;
            raw r;
            raw_begin(&r, false);
            put_head(&r, 3, !key, (uint64_t)key);
            put_u64(&r, rows[i].size);
            put(&r, rows[i].text ? rows[i].text : many, rows[i].size);
            if (key) {
                put_u32(&r, TFM_VALUE_U8);
                put(&r, "x", 1);
            } else {
                put_u32(&r, 1);
                put_u64(&r, dim);
                put_u32(&r, TFM_I8);
                put_u64(&r, 0);
                put_padding(&r, 32);
                put(&r, "x", 1);
            }
            tfm_status status = key && !rows[i].text ? TFM_OK : rows[i].status;         /* keys may be long */
            expect_raw(&r, status, status == TFM_OK ? NULL : key ? "key" : "name", "name");
        }
    raw r;
    raw_begin(&r, false);
    put_head(&r, 3, 0, 1);
    put_u64(&r, sizeof many);
    put(&r, many, sizeof many);
    put_u32(&r, TFM_VALUE_U8);
    put(&r, "x", 1);
    expect_raw(&r, TFM_MALFORMED, "key of 65536 bytes", "key");
}
/* Sizes of tensors, several at once. */
static void large_shapes(void) {
    static const struct { uint32_t rank; uint64_t dims[4]; uint32_t type; tfm_status status; } rows[] = {
        { 2, { POW(32), POW(32) }, TFM_F32, TFM_MALFORMED }, { 2, { POW(31), POW(32) }, TFM_F32, TFM_MALFORMED },
        { 2, { POW(63), 2 }, TFM_F32, TFM_MALFORMED }, { 1, { POW(62) - 1 }, TFM_F32, TFM_MALFORMED },
        { 2, { 1152, POW(42) + 1 }, TFM_F32, TFM_TRUNCATED }, { 2, { POW(31), POW(32) }, TFM_I8, TFM_MALFORMED },
        { 2, { POW(31), POW(31) }, TFM_I8, TFM_TRUNCATED },
        { 4, { POW(16), POW(16), POW(16), POW(16) }, TFM_I8, TFM_MALFORMED },
        { 3, { 4194305, 4194305, UINT64_C(211106198978564) }, TFM_F32, TFM_MALFORMED },
        { 2, { 0, POW(63) }, TFM_F32, TFM_MALFORMED }, { 2, { UINT64_MAX, 0 }, TFM_F32, TFM_MALFORMED },
        { 1, { 0 }, TFM_F32, TFM_OK }, { 3, { 5, 0, 7 }, TFM_F32, TFM_OK }, { 2, { 0, 5 }, TFM_Q4_0, TFM_OK },
        { 2, { 31, 0 }, TFM_Q4_0, TFM_MISMATCH }, { 1, { 31 }, TFM_Q4_0, TFM_MISMATCH },
        { 0, { 0 }, TFM_Q4_0, TFM_MISMATCH }, { 1, { 255 }, TFM_Q4_K, TFM_MISMATCH },
        { 2, { POW(60), 16 }, TFM_Q8_0, TFM_MALFORMED }, { 2, { POW(62), 16 }, TFM_Q2_K, TFM_MALFORMED },
        { 1, { INT64_MAX }, TFM_I8, TFM_TRUNCATED }, { 1, { INT64_MAX / 8 }, TFM_F64, TFM_TRUNCATED },
        { 1, { INT64_MAX / 8 + 1 }, TFM_F64, TFM_MALFORMED } };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        raw r;
        put_one_tensor(&r, rows[i].rank, rows[i].dims, rows[i].type, 0, 64);
        char what[32];
        snprintf(what, sizeof what, "row %d", (int)i);
        expect_raw(&r, rows[i].status, rows[i].status == TFM_OK ? NULL : "w: ", what);
    }
    for (int wrap = 0; wrap < 2; wrap++) {              /* sums of sizes that wrap, or just do not */
        raw r;
        uint64_t dim = wrap ? POW(62) : POW(62) - 32;
        char name[8];
        raw_begin(&r, false);
        put_head(&r, 3, 5, 0);
        for (uint64_t i = 0; i < 5; i++) {
            snprintf(name, sizeof name, "w%d", (int)i);
            put_tensor(&r, name, 1, &dim, TFM_I8, i * dim);
        }
        put_zeros(&r, 64);
        expect_raw(&r, TFM_TRUNCATED, "w0: ", "sum");
    }
}
static void bad_alignments(void) {
    static const struct { uint32_t type; uint64_t value; } rows[] = {
        { TFM_VALUE_U32, 0 }, { TFM_VALUE_U32, 3 }, { TFM_VALUE_U32, 13 }, { TFM_VALUE_U32, 33 },
        { TFM_VALUE_U32, POW(21) }, { TFM_VALUE_U32, POW(30) }, { TFM_VALUE_U32, POW(31) },
        { TFM_VALUE_U32, UINT32_MAX }, { TFM_VALUE_I32, 32 }, { TFM_VALUE_U64, 32 }, { TFM_VALUE_U8, 32 },
        { TFM_VALUE_F32, 0x42000000 }, { TFM_VALUE_BOOL, 1 } };
    uint64_t dim = 3;
    for (size_t i = 0; i <= sizeof rows / sizeof *rows; i++) {
        bool text = i == sizeof rows / sizeof *rows;
        raw r;
        char part[64] = "general.alignment";
        raw_begin(&r, false);
        put_head(&r, 3, 1, 1);
        put_text(&r, "general.alignment");
        put_u32(&r, text ? (uint32_t)TFM_VALUE_STRING : rows[i].type);
        if (text) put_text(&r, "32");
        else put_value(&r, (tfm_value_type)rows[i].type, (int64_t)rows[i].value, 32);
        put_tensor(&r, "w", 1, &dim, TFM_I8, 0);
        put_zeros(&r, 256);
        if (!text && rows[i].type == TFM_VALUE_U32)
            snprintf(part, sizeof part, "general.alignment is %u", (unsigned)rows[i].value);
        expect_raw(&r, TFM_MALFORMED, part, "alignment");
    }
    for (int beyond = 0; beyond < 2; beyond++) {        /* the data would begin after the end */
        raw r;
        raw_begin(&r, false);
        put_head(&r, 3, 1, 1);
        put_text(&r, "general.alignment");
        put_u32(&r, TFM_VALUE_U32);
        put_u32(&r, 1 << 20);
        dim = (uint64_t)beyond;
        put_tensor(&r, "w", 1, &dim, TFM_I8, 0);
        put_zeros(&r, 300);
        expect_raw(&r, beyond ? TFM_TRUNCATED : TFM_OK, beyond ? "w: " : NULL, "beyond");
    }
}
static void odd_bools(void) {
    static const uint8_t values[] = { 0, 1, 2, 0x7f, 0x80, 0xff };
    raw r;
    tfm_value v, e;
    raw_begin(&r, false);
    put_head(&r, 3, 0, 1);
    put_text(&r, "flags");
    put_u32(&r, TFM_VALUE_ARRAY);
    put_u32(&r, TFM_VALUE_BOOL);
    put_u64(&r, sizeof values);
    put(&r, values, sizeof values);
    tfm_file *f = tfm_file_from_memory(r.data, r.size, NULL, NULL);
    CHECK(tfm_file_meta(f, "flags", &v));
    for (size_t i = 0; i < sizeof values; i++) {
        bool b = false;
        CHECK(tfm_value_next(&v, &e) && tfm_value_bool(&e, &b) && b == (values[i] != 0));
    }
    tfm_file_free(f);
    raw_free(&r);
}
static void duplicates(void) {
    uint64_t dim = 1;
    for (int key = 0; key < 2; key++) {
        raw r;
        raw_begin(&r, false);
        put_head(&r, 3, key ? 0 : 3, key ? 3 : 0);
        for (uint32_t i = 0; i < 3; i++) {
            const char *name = i == 1 ? "other" : "same";
            if (!key) { put_tensor(&r, name, 1, &dim, TFM_I8, i); continue; }
            put_text(&r, name);
            put_u32(&r, TFM_VALUE_U32);
            put_u32(&r, i);
        }
        put_zeros(&r, 64);
        expect_raw(&r, TFM_MALFORMED, "same: ", "duplicate");
    }
}
/* Time: names by the 100,000, all alike but for their ends; arrays in arrays; long loops over nothing. */
static void many_names(void) {
    uint32_t n = test_quick ? 1000 : 100000;
    for (int kind = 0; kind < 4; kind++) {              /* tensors and keys; the last one twice, or not */
        bool key = kind % 2 != 0, twice = kind / 2 != 0;
        uint64_t dim = 0;
        raw r;
        char name[32];
        raw_begin(&r, false);
        put_head(&r, 3, key ? 0 : n, key ? n : 0);
        for (uint32_t i = 0; i < n; i++) {
            snprintf(name, sizeof name, "a.long.prefix.%06u", (unsigned)(twice && i == n - 1 ? 0 : (i * 7919) % n));
            if (key) {
                put_text(&r, name);
                put_u32(&r, TFM_VALUE_U8);
                put(&r, "x", 1);
            } else put_tensor(&r, name, 1, &dim, TFM_F32, 0);
        }
        clock_t start = clock();
        expect_raw(&r, twice ? TFM_MALFORMED : TFM_OK, twice ? "a.long.prefix.000000: " : NULL, "many names");
        CHECK((double)(clock() - start) / CLOCKS_PER_SEC < 20);
    }
}
static void long_loops(void) {
    for (int other = 0; other < 2; other++) {
        raw r;
        raw_begin(&r, other != 0);
        put_head(&r, 3, 0, 1);
        put_text(&r, "k");
        for (int i = 0; i < (test_quick ? 1000 : 100000); i++) {
            put_u32(&r, TFM_VALUE_ARRAY);
            put_u32(&r, TFM_VALUE_ARRAY);
            put_u64(&r, 1);
        }
        expect_raw(&r, TFM_MALFORMED, "array of type 9", "nested");
        static const uint64_t counts[] = { POW(63), POW(31), POW(32) + 5, UINT64_MAX, 1 };
        for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
            raw_begin(&r, other != 0);                  /* 49 bytes, an array of bytes that never ends */
            put_head(&r, 3, 0, 1);
            put_text(&r, "k");
            put_u32(&r, TFM_VALUE_ARRAY);
            put_u32(&r, TFM_VALUE_U8);
            put_u64(&r, counts[i]);
            CHECK_EQ(r.size, 49);
            expect_raw(&r, TFM_TRUNCATED, "array", "49 bytes");
        }
        raw_begin(&r, other != 0);
        put_head(&r, 3, 0, 1);                          /* 160 bytes, a string of 1 GiB */
        put_text(&r, "k");
        put_u32(&r, TFM_VALUE_STRING);
        put_u64(&r, POW(30));
        put_zeros(&r, 160 - r.size);
        expect_raw(&r, TFM_TRUNCATED, "string", "1 GiB");
        raw_begin(&r, other != 0);
        put_head(&r, 3, 0, POW(60));
        expect_raw(&r, TFM_TRUNCATED, "keys", "keys");
        raw_begin(&r, other != 0);
        put_head(&r, 3, POW(60), 0);
        expect_raw(&r, TFM_TRUNCATED, "tensors", "tensors");
    }
}
/* Nothing but the beginning of a file, or something else altogether. */
static void short_files(void) {
    static const char *const texts[] = { "", "G", "GGU", "GGUX", "FUGG", "ggml", "PK\3\4", "\x80\2}q", "\x93NUMPY",
                                         "GGUF", "GGUFGGUFGGUFGGUF" };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        hostile h = hostile_use(texts[i], strlen(texts[i]));
        CHECK(h.file.status == TFM_TRUNCATED || h.file.status == TFM_MALFORMED || h.file.status == TFM_UNSUPPORTED);
    }
    for (size_t n = 0; n <= 32; n++)
        for (uint32_t version = 2; version < 4; version++)
            for (int other = 0; other < 2; other++) {
                raw r;
                raw_begin(&r, other != 0);
                put_head(&r, version, 0, 0);
                put_zeros(&r, 8);
                r.size = n;
                expect_raw(&r, n < 24 ? TFM_TRUNCATED : TFM_OK, NULL, "head");
            }
}

/* ---- Models with keys and tensors changed ---- */

typedef struct edit {
    const char *key;                    /* gets this value, or goes if that is NULL; added if absent */
    const tfm_value *value;
    const char *tensor, *name;          /* becomes this, cut or filled with zeros; name NULL: goes; added if absent */
    tfm_type type;
    tfm_shape shape;
} edit;

static void rewrite_tensors(gguf_writer *w, const tfm_file *f, const edit *e, bool data) {
    tfm_tensor_info t;
    for (int64_t i = 0, count = tfm_file_tensor_count(f); i < count + 1; i++) {
        bool last = i == count, edited = last;
        if (!last && !tfm_file_tensor_at(f, i, &t)) return;
        if (last && (!e || !e->tensor || !e->name || tfm_file_tensor(f, e->tensor, &t))) return;
        char *name = last ? NULL : text_of(t.name);
        if (name && e && e->tensor) edited = strcmp(name, e->tensor) == 0;
        tfm_shape shape = tfm_shape4(t.tensor.dim[0], t.tensor.dim[1], t.tensor.dim[2], t.tensor.dim[3]);
        shape.rank = t.tensor.rank;
        if (!edited && !data) gguf_tensor(w, name, t.tensor.type, shape);
        if (!edited && data) gguf_data(w, t.tensor.data, (size_t)t.bytes);
        if (edited && e->name && !data) gguf_tensor(w, e->name, e->type, e->shape);
        if (edited && e->name && data) {
            uint64_t bytes = 0, have = last ? 0 : t.bytes;
            gguf_tensor_bytes(e->type, e->shape, &bytes);
            gguf_data(w, t.tensor.data, (size_t)(have < bytes ? have : bytes));
            for (; have < bytes; have++) gguf_data(w, "", 1);
        }
        free(name);
    }
}
/* The file with these edits. */
static buffer rewrite(buffer b, const edit *edits, int count) {
    gguf_writer w;
    tfm_value v;
    tfm_string key;
    const edit *tensor = NULL;
    tfm_file *f = tfm_file_from_memory(b.data, b.size, NULL, NULL);
    gguf_begin_memory(&w);
    for (int64_t i = 0; tfm_file_meta_at(f, i, &key, &v); i++) {
        const edit *e = NULL;
        for (int k = 0; k < count; k++)
            if (edits[k].key && strlen(edits[k].key) == key.size &&
                memcmp(edits[k].key, key.data, key.size) == 0) e = &edits[k];
        if (!e) gguf_meta_value(&w, key, &v);
        else if (e->value) gguf_meta_value(&w, key, e->value);
    }
    for (int k = 0; k < count; k++) {
        if (edits[k].tensor) tensor = &edits[k];
        if (!edits[k].key || !edits[k].value || tfm_file_meta(f, edits[k].key, &v)) continue;
        key.data = edits[k].key;
        key.size = strlen(edits[k].key);
        gguf_meta_value(&w, key, edits[k].value);
    }
    rewrite_tensors(&w, f, tensor, false);
    rewrite_tensors(&w, f, tensor, true);
    tfm_file_free(f);
    if (!gguf_finish(&w)) CHECK_STR(w.error, "");
    buffer out = { w.bytes.data, w.bytes.size };
    return out;
}
/* A value of this type, at `bytes`. */
static tfm_value number(tfm_value_type type, double x, uint8_t bytes[8]) {
    raw r;
    tfm_value v = { type, type, 1, bytes, gguf_value_bytes(type) };
    raw_begin(&r, false);
    put_value(&r, type, type == TFM_VALUE_F32 || type == TFM_VALUE_F64 ? 0 : x < 9e18 ? (int64_t)x : INT64_MAX, x);
    memcpy(bytes, r.data, v.size);
    raw_free(&r);
    return v;
}
static const plan tiny_llama = { false, TFM_F16, 8, VOCAB }, tiny_gpt2 = { true, TFM_F16, 8, VOCAB };

/* How the model with one edit opens: OK too if it then can be used. */
static tfm_error edited(const plan *p, const edit *e) {
    buffer b = hostile_model(p), c = rewrite(b, e, 1);
    hostile h = hostile_use(c.data, c.size);
    CHECK_STR(hostile_fault ? hostile_fault : "", "");
    hostile_fault = NULL;
    free(b.data);
    free(c.data);
    return h.model;
}
static void edit_number(const plan *p, const char *key, tfm_value_type type, double x, tfm_status status,
                        const char *part) {
    uint8_t bytes[8];
    tfm_value v = number(type, x, bytes);
    edit e = { key, &v, NULL, NULL, TFM_F32, { 0, { 0, 0, 0, 0 } } };
    tfm_error err = edited(p, &e);
    bool good = CHECK_EQ(err.status, status);
    if (part) good = CHECK_CONTAINS(err.message, part) && good;
    if (!good) printf("    %s = %g: %s\n", key, x, err.message);
}
typedef struct setting { const char *key; tfm_value_type type; double x; tfm_status status; const char *part; } setting;

static void hyperparameters(void) {
    static const setting rows[] = {
        { "attention.head_count", TFM_VALUE_U32, 0, TFM_MISMATCH, "attention.head_count is 0" },
        { "attention.head_count", TFM_VALUE_I32, -1, TFM_MISMATCH, "attention.head_count" },
        { "attention.head_count", TFM_VALUE_U32, 4294967295.0, TFM_MISMATCH, "attention.head_count is 4294967295" },
        { "attention.head_count", TFM_VALUE_F32, 2, TFM_MISMATCH, "attention.head_count" },
        { "attention.head_count", TFM_VALUE_U8, 2, TFM_OK, NULL },
        { "attention.head_count", TFM_VALUE_I64, 2, TFM_OK, NULL },
        { "attention.head_count_kv", TFM_VALUE_U32, 0, TFM_MISMATCH, "attention.head_count_kv is 0" },
        { "attention.head_count_kv", TFM_VALUE_U32, 3, TFM_MISMATCH, "2 heads are not a multiple of 3" },
        { "attention.head_count_kv", TFM_VALUE_U32, 2, TFM_MISMATCH, "blk.0.attn_" },
        { "block_count", TFM_VALUE_U32, 0, TFM_MISMATCH, "block_count is 0" },
        { "block_count", TFM_VALUE_U32, 2, TFM_MISMATCH, NULL },
        { "block_count", TFM_VALUE_U32, 512, TFM_MISMATCH, "block_count is 512" },
        { "block_count", TFM_VALUE_U32, 513, TFM_MISMATCH, "513" },
        { "block_count", TFM_VALUE_U32, 1e6, TFM_MISMATCH, "1000000" },
        { "block_count", TFM_VALUE_STRING, 0, TFM_MISMATCH, "block_count" },
        { "embedding_length", TFM_VALUE_U32, 0, TFM_MISMATCH, "embedding_length is 0" },
        { "embedding_length", TFM_VALUE_U32, 16, TFM_MISMATCH, "token_embd.weight: 14x8 in the file, 14x16 needed" },
        { "embedding_length", TFM_VALUE_U32, 2147483648.0, TFM_MISMATCH, "embedding_length is 2147483648" },
        { "feed_forward_length", TFM_VALUE_U32, 0, TFM_MISMATCH, "feed_forward_length is 0" },
        { "feed_forward_length", TFM_VALUE_U32, 9, TFM_MISMATCH, "8x8 in the file, 9x8 needed" },
        { "context_length", TFM_VALUE_U32, 0, TFM_MISMATCH, "context_length is 0" },
        { "context_length", TFM_VALUE_U32, 2147483648.0, TFM_MISMATCH, "context_length is 2147483648" } };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int gpt2 = 0; gpt2 < 2; gpt2++) {
            char key[64];
            tfm_value text = { TFM_VALUE_STRING, TFM_VALUE_STRING, 1, (const uint8_t *)"1", 1 };
            snprintf(key, sizeof key, "%s.%s", gpt2 ? "gpt2" : "llama", rows[i].key);
            edit e = { key, &text, NULL, NULL, TFM_F32, { 0, { 0, 0, 0, 0 } } };
            if (rows[i].type == TFM_VALUE_STRING) CHECK_EQ(edited(gpt2 ? &tiny_gpt2 : &tiny_llama, &e).status,
                                                           rows[i].status);
            else edit_number(gpt2 ? &tiny_gpt2 : &tiny_llama, key, rows[i].type, rows[i].x, rows[i].status,
                             rows[i].part);
        }
}
static void hyperparameters_of_llama(void) {
    static const setting rows[] = {
        { "llama.attention.head_count", TFM_VALUE_U32, 3, TFM_MISMATCH,
          "blk.0.attn_q.weight: 8x8 in the file, 12x8 needed" },
        { "llama.attention.key_length", TFM_VALUE_U32, 0, TFM_MISMATCH, "key_length is 0" },
        { "llama.attention.key_length", TFM_VALUE_U32, 5, TFM_MISMATCH,
          "blk.0.attn_q.weight: 8x8 in the file, 10x8 needed" },
        { "llama.attention.key_length", TFM_VALUE_U32, 4294967295.0, TFM_MISMATCH, "key_length is 4294967295" },
        { "llama.attention.value_length", TFM_VALUE_U32, 3, TFM_MISMATCH,
          "blk.0.attn_v.weight: 4x8 in the file, 3x8 needed" },
        { "llama.rope.dimension_count", TFM_VALUE_U32, 3, TFM_MISMATCH, "rope.dimension_count is 3" },
        { "llama.rope.dimension_count", TFM_VALUE_U32, 6, TFM_MISMATCH,
          "rope.dimension_count is 6, not between 2 and 4" },
        { "llama.rope.dimension_count", TFM_VALUE_U32, 0, TFM_MISMATCH, "rope.dimension_count is 0" },
        { "llama.rope.dimension_count", TFM_VALUE_U32, 2, TFM_OK, NULL },
        { "llama.rope.freq_base", TFM_VALUE_F32, 0, TFM_MISMATCH, "rope.freq_base" },
        { "llama.rope.freq_base", TFM_VALUE_F32, -10000, TFM_MISMATCH, "rope.freq_base" },
        { "llama.rope.freq_base", TFM_VALUE_F32, (double)NAN, TFM_MISMATCH, "rope.freq_base" },
        { "llama.rope.freq_base", TFM_VALUE_F32, (double)INFINITY, TFM_MISMATCH, "rope.freq_base" },
        { "llama.rope.freq_base", TFM_VALUE_F64, 1e300, TFM_MISMATCH, "rope.freq_base" },
        { "llama.rope.freq_base", TFM_VALUE_U32, 10000, TFM_OK, NULL },
        { "llama.rope.freq_base", TFM_VALUE_F32, 1, TFM_OK, NULL },
        { "llama.rope.scaling.factor", TFM_VALUE_F32, 0, TFM_OK, NULL },
        { "llama.rope.scaling.factor", TFM_VALUE_F32, -2, TFM_MISMATCH, "rope.scaling.factor" },
        { "llama.rope.scaling.factor", TFM_VALUE_F32, (double)NAN, TFM_MISMATCH, "rope.scaling.factor" },
        { "llama.rope.scaling.original_context_length", TFM_VALUE_U32, 0, TFM_MISMATCH,
          "original_context_length is 0" },
        { "llama.rope.scaling.original_context_length", TFM_VALUE_U32, 2147483647.0, TFM_OK, NULL },
        { "llama.attention.layer_norm_rms_epsilon", TFM_VALUE_F32, 0, TFM_OK, NULL },
        { "llama.attention.layer_norm_rms_epsilon", TFM_VALUE_F32, -1e-5, TFM_MISMATCH, "layer_norm_rms_epsilon" },
        { "llama.attention.layer_norm_rms_epsilon", TFM_VALUE_F32, (double)NAN, TFM_MISMATCH,
          "layer_norm_rms_epsilon" },
        { "llama.attention.layer_norm_rms_epsilon", TFM_VALUE_F64, (double)INFINITY, TFM_MISMATCH,
          "layer_norm_rms_epsilon" },
        { "llama.attention.sliding_window", TFM_VALUE_I32, -1, TFM_MISMATCH, "sliding_window" },
        { "llama.attention.sliding_window", TFM_VALUE_U32, 1, TFM_OK, NULL },
        { "llama.attention.sliding_window", TFM_VALUE_U32, 2147483647.0, TFM_OK, NULL },
        { "llama.context_length", TFM_VALUE_U32, 2147483647.0, TFM_OK, NULL },
        { "llama.context_length", TFM_VALUE_U32, 1, TFM_OK, NULL },
        { "tokenizer.ggml.bos_token_id", TFM_VALUE_I32, -1, TFM_OK, NULL },
        { "tokenizer.ggml.bos_token_id", TFM_VALUE_U32, VOCAB, TFM_OK, NULL },
        { "tokenizer.ggml.eos_token_id", TFM_VALUE_U32, 4294967295.0, TFM_OK, NULL },
        { "tokenizer.ggml.eos_token_id", TFM_VALUE_F32, 1, TFM_OK, NULL },
        { "tokenizer.ggml.unknown_token_id", TFM_VALUE_I64, -1, TFM_OK, NULL },
        { "tokenizer.ggml.padding_token_id", TFM_VALUE_U64, 9e18, TFM_OK, NULL },
        { "tokenizer.ggml.add_bos_token", TFM_VALUE_U32, 1, TFM_OK, NULL },
        { "llama.expert_count", TFM_VALUE_U32, 0, TFM_OK, NULL } };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        edit_number(&tiny_llama, rows[i].key, rows[i].type, rows[i].x, rows[i].status, rows[i].part);
    edit_number(&tiny_gpt2, "gpt2.attention.head_count", TFM_VALUE_U32, 16, TFM_MISMATCH,
                "width 8 for 16 heads gives heads of 0");
    edit_number(&tiny_gpt2, "gpt2.attention.head_count", TFM_VALUE_U32, 3, TFM_MISMATCH, "blk.0.attn_qkv.weight");
    static const uint32_t heads[] = { 2, 2 };           /* one for each layer, as some files have it */
    tfm_value v = { TFM_VALUE_ARRAY, TFM_VALUE_U32, 2, (const uint8_t *)heads, sizeof heads };
    edit e = { "llama.attention.head_count", &v, NULL, NULL, TFM_F32, { 0, { 0, 0, 0, 0 } } };
    tfm_error err = edited(&tiny_llama, &e);
    CHECK_EQ(err.status, TFM_MISMATCH);
    CHECK_CONTAINS(err.message, "llama.attention.head_count");
}

/* Every key: gone, of every type, of strange values. What is refused is named. */
static bool names_cause(const char *message, const char *key) {
    const char *dot = strrchr(key, '.');
    return strstr(message, dot ? dot + 1 : key) || strstr(message, ".weight") || strstr(message, ".bias") ||
        strstr(message, "architecture") ||
           strstr(message, "heads") || strstr(message, "tokenizer") || strstr(message, "rope.dimension_count");
}
static void try_edit(const plan *p, const edit *e) {
    tfm_error err = edited(p, e);
    const char *key = e->key ? e->key : e->tensor;
    if (err.status == TFM_OK || err.status == TFM_MEMORY) return;
    if (!CHECK(names_cause(err.message, key))) printf("    %s: %s\n", key, err.message);
}
static void sweep_keys(const plan *p) {
    static const double values[] = { 0, 1, -1, 255, 2147483647.0, 4294967295.0, 1e300 };
    buffer b = hostile_model(p);
    tfm_file *f = tfm_file_from_memory(b.data, b.size, NULL, NULL);
    tfm_value v;
    tfm_string k;
    uint8_t bytes[8];
    static const uint8_t zeros[8 * VOCAB] = { 0 };
    for (int64_t i = 0; tfm_file_meta_at(f, i, &k, &v); i++) {
        char *key = text_of(k);
        edit e = { key, NULL, NULL, NULL, TFM_F32, { 0, { 0, 0, 0, 0 } } };
        tfm_value changed;
        e.value = NULL;
        try_edit(p, &e);
        e.value = &changed;
        bool alignment = strcmp(key, "general.alignment") == 0;
        for (int type = test_quick ? (int)(i % 4) : 0; type < TFM_VALUE_TYPES; type += test_quick ? 4 : 1) {
            size_t size = gguf_value_bytes((tfm_value_type)type);
            for (size_t n = 0; size && !alignment && n < sizeof values / sizeof *values; n += test_quick ? 3 : 1) {
                if (values[n] < 0 && (type == TFM_VALUE_U64 || type == TFM_VALUE_BOOL)) continue;
                changed = number((tfm_value_type)type, values[n] > 1e100 && type != TFM_VALUE_F64 ? 1e30 : values[n],
                                 bytes);
                try_edit(p, &e);
            }
            /* an array of them */
            for (size_t n = 0; size && n <= VOCAB; n += test_quick ? VOCAB : VOCAB / 2) {
                tfm_value array = { TFM_VALUE_ARRAY, (tfm_value_type)type, n, zeros, n * size };
                changed = array;
                try_edit(p, &e);
            }
        }
        tfm_value text = { TFM_VALUE_STRING, TFM_VALUE_STRING, 3, (const uint8_t *)"abc", 3 };
        changed = text;
        try_edit(p, &e);
        changed.count = changed.size = 0;
        try_edit(p, &e);
        free(key);
    }
    tfm_file_free(f);
    free(b.data);
}
static void keys_changed(void) {
    sweep_keys(&tiny_llama);
    sweep_keys(&tiny_gpt2);
}
/* Every tensor: gone, turned, shortened, of another type, of another rank. */
static void sweep_tensors(const plan *p) {
    static const tfm_type others[] = { TFM_I32, TFM_F64, TFM_I8, TFM_F16, TFM_BF16, TFM_F32 };
    buffer b = hostile_model(p);
    tfm_file *f = tfm_file_from_memory(b.data, b.size, NULL, NULL);
    tfm_tensor_info t;
    for (int64_t i = 0; tfm_file_tensor_at(f, i, &t); i++) {
        char *name = text_of(t.name);
        int64_t rows = t.tensor.dim[0], columns = t.rank == 2 ? t.tensor.dim[1] : 1;
        edit e = { NULL, NULL, name, NULL, t.tensor.type, { t.rank, { rows, columns, 1, 1 } } };
        tfm_error err = edited(p, &e);
        bool optional = strstr(name, ".bias") || strcmp(name, "output.weight") == 0;
        CHECK_EQ(err.status, optional ? TFM_OK : TFM_MISMATCH);
        /* qkv, or q, k and v */
        if (!optional) CHECK_CONTAINS(err.message, strstr(name, "attn_qkv") ? "blk.0.attn_q" : name);
        e.name = name;
        for (int k = 0; k < 6; k++) {
            bool runs = others[k] == TFM_F16 || others[k] == TFM_BF16 || others[k] == TFM_F32;
            e.type = others[k];
            err = edited(p, &e);
            CHECK_EQ(err.status, runs ? TFM_OK : TFM_UNSUPPORTED);
            if (!runs) CHECK_CONTAINS(err.message, name);
        }
        e.type = t.tensor.type;
        tfm_shape shapes[] = { tfm_shape2(columns, rows), tfm_shape1(rows * columns), tfm_shape3(1, rows, columns),
                               tfm_shape2(rows, columns + 1),
                               tfm_shape2(rows + 1, columns), tfm_shape2(rows - 1, columns), tfm_shape2(rows, 0),
                                   tfm_shape2(0, columns), tfm_shape1(0) };
        for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++) {
            e.shape = shapes[k];
            if (e.shape.rank == t.rank && e.shape.dim[0] == rows &&
                (t.rank == 1 || e.shape.dim[1] == columns)) continue;
            err = edited(p, &e);
            if (strcmp(name, "token_embd.weight") == 0 && e.shape.rank == 2 && e.shape.dim[1] == columns &&
                e.shape.dim[0] > rows) {
                if (err.status == TFM_OK) continue;     /* more rows than the vocabulary: padding */
                CHECK_CONTAINS(err.message, "output.weight");
            } else {
                CHECK_EQ(err.status, TFM_MISMATCH);
                CHECK_CONTAINS(err.message, name);
            }
        }
        e.name = "renamed";
        e.shape.rank = t.rank;
        e.shape.dim[0] = rows;
        e.shape.dim[1] = columns;
        CHECK(edited(p, &e).status != TFM_OK);
        free(name);
    }
    tfm_file_free(f);
    free(b.data);
}
static void tensors_changed(void) {
    sweep_tensors(&tiny_llama);
    sweep_tensors(&tiny_gpt2);
}
/* Tensors that no part of the model uses would mean another result. */
static void tensors_too_many(void) {
    static const struct { const char *name; int64_t size; } llama[] = {
        { "blk.4294967296.attn_q.weight", 8 }, { "blk.-1.attn_q.weight", 8 }, { "blk.00.attn_norm.weight", 8 },
        { "blk.1.attn_norm.weight", 8 }, { "direction.536870912", 8 }, { "blk.0.attn_qkv.bias", 16 },
        { "blk.0.attn_norm.bias", 8 }, { "output_norm.bias", 8 }, { "blk.0.attn_q_norm.weight", 4 },
        { "position_embd.weight", 8 }, { "x", 1 } };
    static const struct { const char *name; int64_t size; } gpt2[] = {
        { "blk.0.ffn_gate.bias", 8 }, { "blk.0.attn_q.bias", 8 }, { "rope_freqs.weight", 2 } };
    for (size_t i = 0; i < sizeof llama / sizeof *llama + sizeof gpt2 / sizeof *gpt2; i++) {
        size_t n = sizeof llama / sizeof *llama;
        const char *name = i < n ? llama[i].name : gpt2[i - n].name;
        edit e = { NULL, NULL, name, name, TFM_F32, tfm_shape1(i < n ? llama[i].size : gpt2[i - n].size) };
        tfm_error err = edited(i < n ? &tiny_llama : &tiny_gpt2, &e);
        if (!CHECK_EQ(err.status, TFM_UNSUPPORTED)) printf("    %s\n", name);
        CHECK_CONTAINS(err.message, "no place");
        CHECK_CONTAINS(err.message, name);
    }
}
/* Weights and divisors of frequencies that are no numbers: no crash, no endless loop, an id. */
static void strange_numbers(void) {
    static const float values[] = { 0.0f, -1.0f, 1e-38f, 3e38f, INFINITY, -INFINITY, NAN };
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        edit e = { NULL, NULL, "rope_freqs.weight", "rope_freqs.weight", TFM_F32, tfm_shape1(2) };
        buffer b = hostile_model(&tiny_llama), c = rewrite(b, &e, 1);
        tfm_tensor_info t;
        tfm_file *f = tfm_file_from_memory(c.data, c.size, NULL, NULL);
        for (int64_t k = 0; tfm_file_tensor_at(f, k, &t); k++) {
            bool factors = t.name.size == 17 && memcmp(t.name.data, "rope_freqs.weight", 17) == 0;
            uint8_t *p = c.data + t.offset;
            if (factors) for (int n = 0; n < 2; n++) memcpy(p + 4 * n, &values[i], 4);
            hostile_use(c.data, c.size);
            uint16_t half = gguf_f32_to_f16(values[i]);
            if (t.tensor.type == TFM_F16) memcpy(p, &half, 2);
            else memcpy(p, &values[i], 4);
            hostile_use(c.data, c.size);
        }
        CHECK_STR(hostile_fault ? hostile_fault : "", "");
        tfm_file_free(f);
        free(b.data);
        free(c.data);
    }
}
static void vocabularies(void) {
    static const char *const keys[] = { "tokenizer.ggml.tokens", "tokenizer.ggml.scores", "tokenizer.ggml.token_type" };
    buffer b = hostile_model(&tiny_llama);
    tfm_file *f = tfm_file_from_memory(b.data, b.size, NULL, NULL);
    uint8_t bytes[16 * VOCAB] = { 0 };
    for (int k = 0; k < 3; k++)
        for (uint64_t n = VOCAB - 1; n <= VOCAB + 1; n++) {
            tfm_value v = { TFM_VALUE_ARRAY, TFM_VALUE_STRING, n, bytes, 0 };
            tfm_value old;
            if (!CHECK(tfm_file_meta(f, keys[k], &old))) continue;
            v.element = old.element;
            v.size = (size_t)n * (k ? 4 : 8);           /* empty tokens */
            edit e = { keys[k], &v, NULL, NULL, TFM_F32, { 0, { 0, 0, 0, 0 } } };
            tfm_error err = edited(&tiny_llama, &e);
            CHECK_EQ(err.status, n == VOCAB ? TFM_OK : TFM_MISMATCH);
            if (n != VOCAB) CHECK_CONTAINS(err.message, "tokenizer.ggml.");
        }
    for (uint64_t n = 0; n <= 8; n++) {                 /* read by other kinds of tokenizers only */
        tfm_value v = { TFM_VALUE_ARRAY, TFM_VALUE_U8, n, bytes, (size_t)n };
        edit e = { "tokenizer.ggml.precompiled_charsmap", &v, NULL, NULL, TFM_F32, { 0, { 0, 0, 0, 0 } } };
        CHECK_EQ(edited(&tiny_llama, &e).status, TFM_OK);
    }
    edit none = { "tokenizer.ggml.scores", NULL, "token_embd.weight", "token_embd.weight", TFM_F16,
                  tfm_shape2(VOCAB - 1, 8) };
    tfm_error err = edited(&tiny_llama, &none);         /* fewer rows than tokens */
    CHECK_EQ(err.status, TFM_MISMATCH);
    CHECK_CONTAINS(err.message, "token_embd.weight: 13 rows for a vocabulary of 14");
    tfm_file_free(f);
    free(b.data);
}
/* Texts whose hashes meet, in a table of 32768 places: refused, since each search would pass them all. */
static void colliding_texts(void) {
    enum { COUNT = 20000 };
    char *text = (char *)malloc(COUNT * 4);
    tfm_string *tokens = (tfm_string *)malloc(COUNT * sizeof *tokens);
    if (!CHECK(text && tokens)) exit(1);
    size_t n = 0;
    for (uint32_t i = 0; n < COUNT; i++) {
        char *s = text + 4 * n;
        uint32_t h = 2166136261u;
        for (int k = 0; k < 4; k++) {
            s[k] = (char)(33 + i / (k == 0 ? 1 : k == 1 ? 80 : k == 2 ? 6400 : 512000) % 80);
            h = (h ^ (uint8_t)s[k]) * 16777619u;
        }
        h = (h ^ h >> 15) * 0x2c1b3c6du;
        if (((h ^ h >> 13) & 32767) >= 64) continue;
        tokens[n].data = s;
        tokens[n++].size = 4;
    }
    for (int kind = 0; kind < 2; kind++) {              /* all that meet; a quarter of them */
        gguf_writer w;
        tfm_error err;
        gguf_begin_memory(&w);
        gguf_meta_string(&w, "tokenizer.ggml.model", "llama");
        gguf_meta_strings(&w, "tokenizer.ggml.tokens", tokens, kind ? COUNT / 4 : COUNT);
        if (!CHECK(gguf_finish(&w))) continue;
        tfm_file *f = tfm_file_from_memory(w.bytes.data, w.bytes.size, NULL, NULL);
        tfm_tokenizer *t = tfm_tokenizer_new(f, NULL, &err);
        CHECK_EQ(t != NULL, kind);
        CHECK_EQ(err.status, kind ? TFM_OK : TFM_UNSUPPORTED);
        if (!kind) CHECK_CONTAINS(err.message, "tokenizer.ggml.tokens");
        for (int32_t id = 0; kind && id < COUNT / 4; id += 97) CHECK_EQ(tfm_token_find(t, tokens[id].data, 4), id);
        tfm_tokenizer_free(t);
        tfm_file_free(f);
        free(w.bytes.data);
    }
    free(tokens);
    free(text);
}
/* A kind of tokenizer that is not here: the model runs by ids, and text is refused by name. */
static void unknown_tokenizers(void) {
    static const struct { const char *key, *text;
                          } rows[] = { { "tokenizer.ggml.model", "rwkv" }, { "tokenizer.ggml.pre", "no-such-pre" } };
    for (int i = 0; i < 2; i++) {
        tfm_value v = { TFM_VALUE_STRING, TFM_VALUE_STRING, strlen(rows[i].text), (const uint8_t *)rows[i].text,
                        strlen(rows[i].text) };
        edit e = { rows[i].key, &v, NULL, NULL, TFM_F32, { 0, { 0, 0, 0, 0 } } };
        buffer b = hostile_model(&tiny_gpt2), c = rewrite(b, &e, 1);
        tfm_error err;
        int32_t ids[] = { 1, 2 };
        tfm_model *m = tfm_model_from_memory(c.data, c.size, NULL, &err);
        tfm_session *s = tfm_session_new(m, NULL, &err);
        CHECK_STR(err.message, "");
        CHECK_EQ(tfm_eval(s, ids, 2), TFM_OK);
        CHECK_EQ(tfm_generate(s, "ab", NULL, NULL, NULL), TFM_FINISH_ERROR);
        CHECK_EQ(tfm_status_of(tfm_session_context(s)), TFM_UNSUPPORTED);
        CHECK_CONTAINS(tfm_message(tfm_session_context(s)), rows[i].text);
        tfm_session_free(s);
        tfm_model_free(m);
        free(b.data);
        free(c.data);
    }
}
/* A context of 2^31 positions is a size that is refused, not one that is too small. */
static void huge_contexts(void) {
    uint8_t bytes[8];
    tfm_value v = number(TFM_VALUE_U32, INT32_MAX, bytes);
    edit e = { "llama.context_length", &v, NULL, NULL, TFM_F32, { 0, { 0, 0, 0, 0 } } };
    buffer b = hostile_model(&tiny_llama), c = rewrite(b, &e, 1);
    budget u;
    tfm_allocator a = budget_of(&u, c.size);
    tfm_error err;
    tfm_model *m = tfm_model_from_memory(c.data, c.size, NULL, &err);
    tfm_session_opts o = { .context = INT32_MAX, .batch = INT32_MAX, .threads = 1, .allocator = &a };
    for (int i = 0; i < 4; i++) {
        o.batch = i & 1 ? INT32_MAX : 8;
        o.all_logits = i / 2 != 0;
        CHECK(tfm_session_new(m, &o, &err) == NULL);
        CHECK_EQ(err.status, TFM_MEMORY);
        size_t size = tfm_session_size(m, &o, NULL, &err);
        CHECK(size == 0 || size > (size_t)INT32_MAX);
    }
    o.context = 8;
    o.prompt_bytes = INT32_MAX;
    CHECK(tfm_session_new(m, &o, &err) == NULL);
    CHECK_EQ(u.live, 0);
    tfm_model_free(m);
    free(b.data);
    free(c.data);
}

/* ---- Calls and sampling ---- */

/* The last call was refused with ARGUMENT; the session goes on. */
static void refused(tfm_session *s) {
    tfm_context *c = tfm_session_context(s);
    CHECK_EQ(tfm_status_of(c), TFM_ARGUMENT);
    CHECK(tfm_message(c)[0] != 0);
    tfm_clear(c);
}
static void strange_calls(void) {
    buffer b = hostile_model(&tiny_llama);
    tfm_model *m = tfm_model_from_memory(b.data, b.size, NULL, NULL);
    tfm_session_opts o = { .context = 4, .threads = 1 };
    tfm_session *s = tfm_session_new(m, &o, NULL);
    tfm_context *c = tfm_session_context(s);
    const tfm_tokenizer *t = tfm_model_tokenizer(m);
    int32_t ids[8] = { 1, 2, 3, 4, 5, 6, 7, 8 }, wrong[] = { -1, VOCAB, INT32_MAX, INT32_MIN };
    if (!CHECK(s != NULL)) return;
    static const int64_t counts[] = { -1, INT64_MIN, INT32_MIN };
    static const int64_t places[] = { -1, 5, INT64_MAX, INT64_MIN };
    for (int i = 0; i < 3; i++) { CHECK_EQ(tfm_eval(s, ids, counts[i]), TFM_ARGUMENT); refused(s); }
    CHECK_EQ(tfm_eval(s, NULL, 1), TFM_ARGUMENT);
    refused(s);
    CHECK_EQ(tfm_eval(s, NULL, 0), TFM_OK);
    CHECK(tfm_logits(s) == NULL && tfm_logits_at(s, 0) == NULL);
    for (int i = 0; i < 4; i++) { CHECK_EQ(tfm_eval(s, &wrong[i], 1), TFM_ARGUMENT); refused(s); }
    CHECK_EQ(tfm_eval(s, ids, 5), TFM_FULL);
    tfm_clear(c);
    CHECK_EQ(tfm_eval(s, ids, 4), TFM_OK);
    for (int i = 0; i < 4; i++) { CHECK_EQ(tfm_rewind(s, places[i]), TFM_ARGUMENT); refused(s); }
    for (int i = 0; i < 4; i++) CHECK(tfm_logits_at(s, places[i]) == NULL);
    CHECK_EQ(tfm_position(s), 4);
    CHECK_EQ(tfm_tokenize(c, t, NULL, 3, NULL, ids, 8), -1);
    refused(s);
    CHECK_EQ(tfm_tokenize(c, t, "a", (size_t)INT32_MAX, NULL, ids, 8), -1);
    refused(s);
    CHECK_EQ(tfm_tokenize(c, t, "a", SIZE_MAX, NULL, ids, 8), -1);
    refused(s);
    CHECK_EQ(tfm_tokenize(c, NULL, "a", 1, NULL, ids, 8), -1);
    refused(s);
    CHECK_EQ(tfm_tokenize(c, t, "abc", 3, NULL, ids, INT64_MIN), tfm_tokenize(c, t, "abc", 3, NULL, ids, 8));
    CHECK_EQ(tfm_tokenize_memory(t, SIZE_MAX), SIZE_MAX);
    for (int i = 0; i < 4; i++) {
        CHECK(tfm_token_text(t, wrong[i]).size == 0 && tfm_token_bytes(t, wrong[i], true, NULL, 0) == 0);
        CHECK(!tfm_token_is_end(t, wrong[i]) && !tfm_token_is_control(t, wrong[i]));
    }
    CHECK_EQ(tfm_eval(NULL, ids, 1), TFM_ARGUMENT);
    CHECK_EQ(tfm_rewind(NULL, 0), TFM_ARGUMENT);
    CHECK_EQ(tfm_generate(NULL, "a", NULL, NULL, NULL), TFM_FINISH_ERROR);
    CHECK_EQ(tfm_continue(NULL, NULL, NULL, NULL), TFM_FINISH_ERROR);
    CHECK(!tfm_logits(NULL) && !tfm_logits_at(NULL, 0) && !tfm_session_context(NULL) && tfm_position(NULL) == 0 &&
          tfm_session_capacity(NULL) == 0);
    CHECK(!tfm_model_hparams(NULL) && !tfm_model_file(NULL) && !tfm_model_tokenizer(NULL) && tfm_vocab_size(NULL) == 0);
    tfm_cancel(NULL);
    tfm_session_free(NULL);
    tfm_model_free(NULL);
    tfm_tokenizer_free(NULL);
    tfm_session_free(s);
    tfm_model_free(m);
    free(b.data);
}
static void strange_generation(void) {
    static const char *const stops[] = { "" }, *const null_stop[] = { NULL };
    static const char *const long_stop[] = { "0123456789012345678901234567890123456789012345678901234567890123" };
    buffer b = hostile_model(&tiny_llama);
    tfm_model *m = tfm_model_from_memory(b.data, b.size, NULL, NULL);
    tfm_session_opts o = { .context = 8, .threads = 1 };
    tfm_session *s = tfm_session_new(m, &o, NULL);
    tfm_generate_opts rows[] = {
        { .max_tokens = -1 }, { .max_tokens = INT64_MIN }, { .stop = stops, .stop_count = 1 },
        { .stop = null_stop, .stop_count = 1 }, { .stop = long_stop, .stop_count = 1 },
        { .stop = NULL, .stop_count = 1 }, { .stop_count = -1 }, { .stop_id_count = 1 }, { .stop_id_count = -1 },
        { .sampling = { .temperature = -1 } }, { .sampling = { .top_k = -1 } } };
    if (!CHECK(s != NULL)) return;
    CHECK_EQ(tfm_continue(s, NULL, NULL, NULL), TFM_FINISH_ERROR);          /* nothing was evaluated */
    refused(s);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        CHECK_EQ(tfm_generate(s, "a", &rows[i], NULL, NULL), TFM_FINISH_ERROR);
        refused(s);
        CHECK_EQ(tfm_rewind(s, 0), TFM_OK);
    }
    tfm_generate_opts g = { .max_tokens = 1, .ignore_end = true };
    CHECK_EQ(tfm_generate(s, "", &g, NULL, NULL), TFM_FINISH_LENGTH);       /* BOS alone */
    CHECK_EQ(tfm_position(s), 2);
    CHECK_EQ(tfm_generate(s, NULL, &g, NULL, NULL), TFM_FINISH_LENGTH);     /* no prompt: goes on */
    CHECK_EQ(tfm_position(s), 3);
    CHECK_EQ(tfm_generate(s, "aaaaaaaaaaaaaaaa", &g, NULL, NULL), TFM_FINISH_ERROR);
    CHECK_CONTAINS(tfm_message(tfm_session_context(s)), "the context has room for 5");
    refused(s);
    CHECK_EQ(tfm_generate(s, "a", NULL, NULL, NULL),
             TFM_FINISH_ERROR + (tfm_position(s) == 8 ? TFM_FINISH_FULL : TFM_FINISH_END));
    tfm_session_free(s);
    tfm_model_free(m);
    free(b.data);
}
static void strange_sampling(void) {
    static const float odd[] = { NAN, -INFINITY, INFINITY, 0, -0.0f, 3e38f, -3e38f, 1e-45f };
    static const float temperatures[] = { 0, 1e-45f, 1e-30f, 0.5f, 1, 3e38f };
    static const int ks[] = { 0, 1, 3, 100, INT32_MAX };
    tfm_context *c = tfm_context_new(NULL, NULL);
    tfm_rng rng = { 7 };
    int32_t recent[] = { 0, 1, -1, 100, INT32_MAX, INT32_MIN, 1 };
    for (int first = 0; first < 8; first++)
        for (int rest = 0; rest < 8; rest++)
            for (int t = 0; t < 6; t++)
                for (int k = 0; k < 5; k++) {
                    float logits[5];
                    tfm_sampling o = { .temperature = temperatures[t], .top_k = ks[k], .top_p = rest % 3 ? 0.9f : 0.0f,
                                       .min_p = first % 2 ? 0.1f : 0.0f, .repeat_penalty = k % 2 ? 1.5f : 0.0f };
                    for (int i = 0; i < 5; i++) logits[i] = i == 2 ? odd[first] : odd[rest];
                    int32_t id = tfm_sample(c, logits, 5, &o, recent, 7, &rng);
                    CHECK(id >= 0 && id < 5);
                    bool plain = o.temperature == 0 && o.repeat_penalty == 0;
                    /* NaN counts as -inf */
                    if (plain && isnan(odd[rest]) && odd[first] > -INFINITY) CHECK_EQ(id, 2);
                }
    tfm_sampling wrong[] = { { .temperature = -1 }, { .temperature = NAN }, { .temperature = INFINITY },
                             { .top_k = -1 }, { .top_p = -0.1f }, { .top_p = 1.1f }, { .top_p = NAN }, { .min_p = -1 },
                             { .min_p = 2 }, { .min_p = NAN }, { .repeat_penalty = -1 }, { .repeat_penalty = NAN },
                             { .repeat_last = -1 } };
    float x[2] = { 0, 1 };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong + 6; i++) {
        size_t at = i - sizeof wrong / sizeof *wrong;
        bool bad_call = i >= sizeof wrong / sizeof *wrong;
        tfm_sampling o = { .temperature = 1 };
        int32_t id = !bad_call ? tfm_sample(c, x, 2, &wrong[i], NULL, 0, &rng)
                   : at == 0 ? tfm_sample(c, NULL, 2, &o, NULL, 0, &rng) : at == 1
                       ? tfm_sample(c, x, 0, &o, NULL, 0, &rng)
                   : at == 2 ? tfm_sample(c, x, -1, &o, NULL, 0, &rng) : at == 3
                       ? tfm_sample(c, x, 2, &o, NULL, 1, &rng)
                   : at == 4 ? tfm_sample(c, x, 2, &o, recent, -1, &rng) : tfm_sample(c, x, 2, &o, NULL, 0, NULL);
        CHECK_EQ(id, -1);
        CHECK_EQ(tfm_status_of(c), TFM_ARGUMENT);
        tfm_clear(c);
    }
    tfm_context_free(c);
}

/* ---- Sweeps ---- */

/* In the directory in small steps, in the data in large ones; with --quick, fewer. */
static size_t sweep_step(size_t at, size_t size) {
    bool data = at > size / 2;
    return test_quick ? (data ? 211 : 29) : data ? 13 : 1;
}
static void sweep_cuts(buffer b) {
    for (size_t n = 0; n < b.size; n += test_quick ? 17 : 1) {
        hostile h = hostile_use(b.data, n);
        if (!CHECK(h.file.status == TFM_TRUNCATED && h.model.status == TFM_TRUNCATED)) printf("    cut to %d: %s\n",
                                                                                              (int)n, h.file.message);
    }
}
static void sweep_bytes(buffer b) {
    static const uint8_t values[] = { 0, 1, 0x7f, 0x80, 0xff };
    for (size_t at = 0; at < b.size; at += sweep_step(at, b.size))
        for (size_t i = test_quick ? at % 5 : 0; i < 5; i += test_quick ? 5 : 1) {
            uint8_t old = b.data[at];
            b.data[at] = values[i];
            hostile_use(b.data, b.size);
            b.data[at] = old;
        }
}
static void sweep_numbers(buffer b, bool other) {
    static const uint64_t values[] = { 0, 1, POW(31), POW(32), POW(62) - 1, POW(63), UINT64_MAX };
    for (size_t at = 4; at + 8 < b.size; at += sweep_step(at, b.size))
        for (size_t i = test_quick ? at % 7 : 0; i < 7; i += test_quick ? 7 : 1) {
            uint8_t old[8];
            memcpy(old, b.data + at, 8);
            memcpy(b.data + at, &values[i], 8);
            if (other) turn_bytes(b.data + at, 8);
            hostile_use(b.data, b.size);
            memcpy(b.data + at, old, 8);
        }
}
static void sweep(const plan *p, bool other) {
    buffer b = hostile_model(p), o = turned(b);
    hostile h = hostile_use(other ? o.data : b.data, b.size);
    CHECK_STR(h.model.message, "");
    sweep_cuts(other ? o : b);
    sweep_bytes(other ? o : b);
    sweep_numbers(other ? o : b, other);
    CHECK_STR(hostile_fault ? hostile_fault : "", "");
    hostile_fault = NULL;
    free(b.data);
    free(o.data);
}
static void sweep_llama(void) { sweep(&tiny_llama, false); }
static void sweep_gpt2(void) { sweep(&tiny_gpt2, false); }
static void sweep_other_order(void) { sweep(&tiny_llama, true); }

const test_case tests_gguf[] = {
    { "empty_files", empty_files, QUICK },
    { "metadata_of_every_type", metadata_of_every_type, QUICK },
    { "metadata_strings", metadata_strings, QUICK },
    { "lookups", lookups, QUICK },
    { "ranks_and_empty_dimensions", ranks_and_empty_dimensions, QUICK },
    { "tensor_types", tensor_types, QUICK },
    { "alignments", alignments, QUICK },
    { "tensor_places", tensor_places, QUICK },
    { "paths", paths, QUICK },
    { "other_order_of_all_types", other_order_of_all_types, QUICK },
    { "odd_addresses_and_orders", odd_addresses_and_orders, QUICK },
    { "odd_addresses_and_orders_of_k_types", odd_addresses_and_orders_of_k_types, SLOW },
    { "damaged_headers", damaged_headers, QUICK },
    { "damaged_tensors", damaged_tensors, QUICK },
    { "lengths_to_the_end", lengths_to_the_end, QUICK },
    { "names", names, QUICK },
    { "large_shapes", large_shapes, QUICK },
    { "bad_alignments", bad_alignments, QUICK },
    { "odd_bools", odd_bools, QUICK },
    { "duplicates", duplicates, QUICK },
    { "many_names", many_names, QUICK },
    { "long_loops", long_loops, QUICK },
    { "short_files", short_files, QUICK },
    { "hyperparameters", hyperparameters, QUICK },
    { "hyperparameters_of_llama", hyperparameters_of_llama, QUICK },
    { "keys_changed", keys_changed, QUICK },
    { "tensors_changed", tensors_changed, QUICK },
    { "tensors_too_many", tensors_too_many, QUICK },
    { "strange_numbers", strange_numbers, QUICK },
    { "vocabularies", vocabularies, QUICK },
    { "colliding_texts", colliding_texts, SLOW },
    { "unknown_tokenizers", unknown_tokenizers, QUICK },
    { "huge_contexts", huge_contexts, QUICK },
    { "strange_calls", strange_calls, QUICK },
    { "strange_generation", strange_generation, QUICK },
    { "strange_sampling", strange_sampling, QUICK },
    { "sweep_llama", sweep_llama, QUICK },
    { "sweep_gpt2", sweep_gpt2, SLOW },
    { "sweep_other_order", sweep_other_order, SLOW },
    { NULL, NULL, SLOW }
};
