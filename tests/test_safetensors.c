/* safetensors files: what the reference writes, then everything that has broken other readers. */
#include "test.h"
#include "hostile.h"

#include <time.h>

/* The format is little-endian, and read on such machines only. */
static bool little_endian(void) {
    uint16_t one = 1;
    uint8_t first;
    memcpy(&first, &one, 1);
    return first == 1;
}
/* Opens and uses a file; checks the verdict and part of the message. */
static void expect_file(const uint8_t *data, size_t size, tfm_status status, const char *part, const char *what) {
    if (!little_endian() && status == TFM_OK) status = TFM_UNSUPPORTED, part = "little-endian";
    hostile h = hostile_use(data, size);
    bool good = !little_endian() || CHECK_EQ(h.file.status, status);
    if (little_endian() && part) good = CHECK_CONTAINS(h.file.message, part) && good;
    good = CHECK(h.file.status == TFM_OK ? h.model.status == TFM_UNSUPPORTED : h.model.status == h.file.status) && good;
    good = CHECK_STR(hostile_fault ? hostile_fault : "", "") && good;
    if (!good) printf("    %.80s: %s: %s\n", what, tfm_status_name(h.file.status), h.file.message);
    hostile_fault = NULL;
}
static void expect(const char *header, size_t data_size, tfm_status status, const char *part) {
    buffer b = hostile_safetensors(strlen(header), header, strlen(header), data_size);
    expect_file(b.data, b.size, status, part, header);
    free(b.data);
}
static tfm_file *open_header(const char *header, size_t data_size, buffer *b) {
    tfm_error err;
    *b = hostile_safetensors(strlen(header), header, strlen(header), data_size);
    tfm_file *f = tfm_file_from_memory(b->data, b->size, NULL, &err);
    CHECK_STR(err.message, "");
    return f;
}

/* ---- What the format allows ---- */

/* Written by the reference (tests/data/README.md). */
static void file_of_the_reference(void) {
    static const struct { const char *name, *type; tfm_type run; int rank; int64_t dim[4]; } rows[] = {
        { "f32", "F32", TFM_F32, 2, { 2, 3 } }, { "f16", "F16", TFM_F16, 1, { 4 } },
        { "f64", "F64", TFM_F64, 3, { 1, 2, 2 } }, { "i64", "I64", TFM_I64, 1, { 2 } },
        { "i32", "I32", TFM_I32, 1, { 3 } }, { "i16", "I16", TFM_I16, 1, { 2 } }, { "i8", "I8", TFM_I8, 1, { 5 } },
        { "u8", "U8", TFM_TYPE_NONE, 1, { 3 } }, { "bool", "BOOL", TFM_TYPE_NONE, 1, { 3 } },
        { "scalar", "F32", TFM_F32, 0, { 1 } }, { "empty", "F32", TFM_F32, 2, { 0, 7 } } };
    enum { N = sizeof rows / sizeof *rows };
    static const char path[] = "tests/data/small.safetensors";
    tfm_error err;
    tfm_tensor_info t;
    tfm_value v;
    tfm_string s;
    if (!little_endian()) return;
    tfm_file *f = tfm_file_open(path, NULL, &err);
    CHECK_STR(err.message, "");
    if (!CHECK(f != NULL)) return;
    CHECK_STR(tfm_file_format(f), "safetensors");
    CHECK_EQ(tfm_file_tensor_count(f), N);
    for (int i = 0; i < N; i++) {
        if (!CHECK(tfm_file_tensor(f, rows[i].name, &t))) continue;
        CHECK(t.type_name.size == strlen(rows[i].type) &&
              memcmp(t.type_name.data, rows[i].type, t.type_name.size) == 0);
        CHECK_EQ(t.tensor.type, rows[i].run);
        CHECK_EQ(t.rank, rows[i].rank);
        CHECK_EQ(t.tensor.rank, rows[i].rank ? rows[i].rank : 1);
        for (int k = 0; k < t.tensor.rank; k++) CHECK_EQ(t.tensor.dim[k], rows[i].dim[k]);
    }
    float want[6] = { -1.5f, 0, 1, 2.25f, 3, 65504 }, got[6] = { 0 };
    if (CHECK(tfm_file_tensor(f, "f32", &t) && t.bytes == 24)) memcpy(got, t.tensor.data, 24);
    CHECK_SAME(got, want, 6);
    CHECK(tfm_file_tensor(f, "i8", &t) && t.bytes == 5 && memcmp(t.tensor.data, "\x80\xff\x00\x01\x7f", 5) == 0);
    CHECK(tfm_file_meta(f, "format", &v) && tfm_value_string(&v, &s) && s.size == 2 && memcmp(s.data, "np", 2) == 0);
    CHECK(tfm_file_meta(f, "quote", &v) && tfm_value_string(&v, &s) && s.size == 6 &&
          memcmp(s.data, "a\\\"b\\n", 6) == 0);
    CHECK_EQ(tfm_file_meta_count(f), 2);
    tfm_file_free(f);
    size_t size;
    uint8_t *bytes = test_read(path, &size);
    if (bytes) expect_file(bytes, size, TFM_OK, NULL, path);
    free(bytes);
}
/* A tensor named w alone, and one of many. */
#define E(name, dtype, shape, offsets) \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"
#define W(dtype, shape, offsets) "{" E("w", dtype, shape, offsets) "}"

static void valid_headers(void) {
    static const struct { const char *header; size_t data; } rows[] = {
        { "{}", 0 }, { "{ }  \n", 0 }, { "{\"__metadata__\":{}}", 0 }, { "{\"__metadata__\":{\"a\":\"b\"}}", 0 },
        { W("F32", "[]", "[0,4]"), 4 }, { W("F32", "[0]", "[0,0]"), 0 }, { W("I8", "[1,1,1,1]", "[0,1]"), 1 },
        { W("F32", "[5,0,9223372036854775807]", "[0,0]"), 0 },
        { W("F32", "[9223372036854775807,9223372036854775807,0]", "[0,0]"), 0 },
        { "{\"x\":{\"data_offsets\":[0,2],\"shape\":[2],\"dtype\":\"I8\"}}", 2 },
        { "{ \"x\" : { \"dtype\" : \"I8\" , \"shape\" : [ 1 , 2 ] ,\r\n\t\"data_offsets\" : [ 0 , 2 ] } }", 2 },
        { "{" E("y", "I8", "[2]", "[1,3]") "," E("x", "I8", "[1]", "[0,1]") "}", 3 },
        { "{" E("y", "I8", "[0]", "[1,1]") "," E("x", "I8", "[1]", "[0,1]") "}", 1 },
        { "{" E("a", "I8", "[0]", "[1,1]") "," E("b", "I8", "[1]", "[0,1]") "," E("c", "I8", "[2]", "[1,3]") "}", 3 },
        { "{" E("\xc3\xa9 {}[],:", "I8", "[1]", "[0,1]") "}", 1 },
        { "{\"__metadata__\":{\"\\u0041\":\"\\\\ \\\" \\/\\b\\f\\n\\r\\t \\u0000 \\uD8fF\",\"\":\"\"}}", 0 } };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) expect(rows[i].header, rows[i].data, TFM_OK, NULL);
}
static void types(void) {
    static const struct { const char *name; int bytes; tfm_type type; } rows[] = {
        { "F32", 4, TFM_F32 }, { "F16", 2, TFM_F16 }, { "BF16", 2, TFM_BF16 }, { "F64", 8, TFM_F64 },
        { "I8", 1, TFM_I8 }, { "I16", 2, TFM_I16 }, { "I32", 4, TFM_I32 }, { "I64", 8, TFM_I64 },
        { "U8", 1, TFM_TYPE_NONE }, { "U16", 2, TFM_TYPE_NONE }, { "U32", 4, TFM_TYPE_NONE },
        { "U64", 8, TFM_TYPE_NONE }, { "BOOL", 1, TFM_TYPE_NONE }, { "F8_E4M3", 1, TFM_TYPE_NONE },
        { "F8_E5M2", 1, TFM_TYPE_NONE }, { "F4", 0, TFM_TYPE_NONE }, { "f32", 0, TFM_TYPE_NONE },
        { "", 0, TFM_TYPE_NONE }, { "F32 ", 0, TFM_TYPE_NONE }, { "Q8_0", 0, TFM_TYPE_NONE },
        { "F", 0, TFM_TYPE_NONE } };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char header[200];
        buffer b;
        tfm_tensor_info t;
        snprintf(header, sizeof header, "{\"w\":{\"dtype\":\"%s\",\"shape\":[3],\"data_offsets\":[0,%d]}}",
                 rows[i].name, 3 * rows[i].bytes);
        if (rows[i].bytes == 0) { expect(header, 0, TFM_UNSUPPORTED, "w: type "); continue; }
        expect(header, 3 * (size_t)rows[i].bytes, TFM_OK, NULL);
        if (!little_endian()) continue;
        tfm_file *f = open_header(header, 3 * (size_t)rows[i].bytes, &b);
        CHECK(tfm_file_tensor(f, "w", &t) && t.tensor.type == rows[i].type && t.tensor.dim[0] == 3);
        CHECK(t.type_name.size == strlen(rows[i].name) && t.offset == 8 + strlen(header) &&
              t.tensor.data == b.data + t.offset);
        tfm_file_free(f);
        free(b.data);
    }
}
static void paths(void) {
    tfm_error err;
    CHECK(tfm_file_open("tests/data/README.md", NULL, &err) == NULL);
    CHECK_CONTAINS(err.message, "tests/data/README.md: ");
    CHECK(tfm_model_open("tests/data/small.safetensors", NULL, &err) == NULL);
    CHECK_EQ(err.status, TFM_UNSUPPORTED);
    CHECK_CONTAINS(err.message, "tests/data/small.safetensors: ");
}

/* ---- Damages ---- */

#define T(name, begin, end) E(name, "I8", "[2]", "[" #begin "," #end "]")
typedef struct damage { const char *header; size_t data; tfm_status status; const char *part; } damage;

static void do_damage(const damage *rows, size_t count) {
    for (size_t i = 0; i < count; i++) expect(rows[i].header, rows[i].data, rows[i].status, rows[i].part);
}
static void damaged_offsets(void) {
    static const damage rows[] = {
        { W("I8", "[2]", "[]"), 2, TFM_MALFORMED, "w: " }, { W("I8", "[2]", "[0]"), 2, TFM_MALFORMED, "w: " },
        { W("I8", "[2]", "[2]"), 2, TFM_MALFORMED, "w: " }, { W("I8", "[2]", "[0,2,2]"), 2, TFM_MALFORMED, "w: " },
        { W("I8", "[2]", "[2,0]"), 2, TFM_MALFORMED, "w: bytes 2 to 0" },
        { W("I8", "[2]", "[-2,0]"), 2, TFM_MALFORMED, "w: " }, { W("I8", "[2]", "[0,-2]"), 2, TFM_MALFORMED, "w: " },
        { W("I8", "[2]", "[18446744073709551614,0]"), 2, TFM_MALFORMED, "w: " },
        { W("I8", "[2]", "[0,3]"), 2, TFM_TRUNCATED, "w: bytes 0 to 3 of 2" },
        { W("I8", "[2]", "[1,3]"), 2, TFM_TRUNCATED, "w: bytes 1 to 3 of 2" },
        { W("I8", "[2]", "[100,102]"), 2, TFM_TRUNCATED, "w: bytes 100 to 102 of 2" },
        { W("I8", "[2]", "[18446744073709551613,18446744073709551615]"), 2, TFM_TRUNCATED, "w: " },
        { W("I8", "[2]", "[0,1]"), 2, TFM_MISMATCH, "w: 2 of I8 are 2 bytes, the offsets span 1" },
        { W("I8", "[3]", "[0,2]"), 2, TFM_MISMATCH, "w: 3 of I8 are 3 bytes, the offsets span 2" },
        { W("F32", "[2]", "[0,2]"), 2, TFM_MISMATCH, "w: 2 of F32 are 8 bytes, the offsets span 2" },
        { W("I8", "[0]", "[0,2]"), 2, TFM_MISMATCH, "w: 0 of I8 are 0 bytes" },
        { W("F32", "[]", "[0,2]"), 2, TFM_MISMATCH, "w: " }, { W("I8", "[2]", "[1,3]"), 3, TFM_MALFORMED, "w: begins" },
        { W("I8", "[2]", "[0,2]"), 3, TFM_MALFORMED, "end at byte" },
        { W("I8", "[0]", "[1,1]"), 1, TFM_MALFORMED, "w: begins" }, { "{}", 1, TFM_MALFORMED, "end at byte" },
        { "{" T("a", 0, 2) "," T("b", 1, 3) "}", 3, TFM_MALFORMED, "b: begins" },
        { "{" T("a", 0, 2) "," T("b", 0, 2) "}", 2, TFM_MALFORMED, ": begins" },
        { "{" T("a", 0, 2) "," T("b", 3, 5) "}", 5, TFM_MALFORMED, "b: begins" },
        { "{" T("a", 0, 2) "," T("b", 2, 4) "}", 5, TFM_MALFORMED, "end at" },
        { "{" T("a", 0, 2) "," T("a", 2, 4) "}", 4, TFM_MALFORMED, "a: two tensors" },
        { "{" T("a", 0, 2) "," T("b", 2, 4) "," T("a", 4, 6) "}", 6, TFM_MALFORMED, "a: two tensors" } };
    do_damage(rows, sizeof rows / sizeof *rows);
}
static void damaged_shapes(void) {
    static const damage rows[] = {
        { W("F32", "[4294967296,4294967296]", "[0,0]"), 0, TFM_MALFORMED, "w: 4294967296x4294967296" },
        { W("F32", "[4294967296,4294967296]", "[0,99999]"), 4, TFM_MALFORMED, "w: " },
        { W("F32", "[4194305,4194305,211106198978564]", "[0,4]"), 4, TFM_MALFORMED,
          "w: 4194305x4194305x211106198978564" },
        { W("F32", "[4194305,4194305,211106198978564]", "[0,16]"), 16, TFM_MALFORMED, "w: " },
        { W("F64", "[2305843009213693952]", "[0,0]"), 0, TFM_MALFORMED, "w: " },
        { W("I8", "[4611686018427387904,4]", "[0,0]"), 0, TFM_MALFORMED, "w: " },
        { W("F32", "[9223372036854775808]", "[0,0]"), 0, TFM_MALFORMED, "w: dimension 9223372036854775808" },
        { W("F32", "[18446744073709551615,0]", "[0,0]"), 0, TFM_MALFORMED, "w: dimension" },
        { W("F32", "[18446744073709551616]", "[0,0]"), 0, TFM_MALFORMED, "w: " },
        { W("F32", "[36893488147419103232,0]", "[0,0]"), 0, TFM_MALFORMED, "w: " },
        { W("I8", "[1e3]", "[0,2]"), 2, TFM_MALFORMED, "w: " }, { W("I8", "[2.0]", "[0,2]"), 2, TFM_MALFORMED, "w: " },
        { W("I8", "[-0]", "[0,0]"), 0, TFM_MALFORMED, "w: " }, { W("I8", "[-2]", "[0,2]"), 2, TFM_MALFORMED, "w: " },
        { W("I8", "[+2]", "[0,2]"), 2, TFM_MALFORMED, "w: " }, { W("I8", "[02]", "[0,2]"), 2, TFM_MALFORMED, "w: " },
        { W("I8", "[00]", "[0,0]"), 0, TFM_MALFORMED, "w: " }, { W("I8", "[0x2]", "[0,2]"), 2, TFM_MALFORMED, "w: " },
        { W("I8", "[\"2\"]", "[0,2]"), 2, TFM_MALFORMED, "w: " },
        { W("I8", "[true]", "[0,1]"), 1, TFM_MALFORMED, "w: " },
        { W("I8", "[null]", "[0,1]"), 1, TFM_MALFORMED, "w: " }, { W("I8", "[[2]]", "[0,2]"), 2, TFM_MALFORMED, "w: " },
        { W("I8", "[2,]", "[0,2]"), 2, TFM_MALFORMED, "w: " }, { W("I8", "[,2]", "[0,2]"), 2, TFM_MALFORMED, "w: " },
        { W("I8", "[2 1]", "[0,2]"), 2, TFM_MALFORMED, "w: " }, { W("I8", "2", "[0,2]"), 2, TFM_MALFORMED, "w: " },
        { W("I8", "{}", "[0,2]"), 2, TFM_MALFORMED, "w: " },
        { W("I8", "[1,1,1,1,2]", "[0,2]"), 2, TFM_UNSUPPORTED, "w: " },
        { W("I8", "[2", "[0,2]"), 2, TFM_MALFORMED, "w: " }, { W("I8", "2]", "[0,2]"), 2, TFM_MALFORMED, "w: " } };
    do_damage(rows, sizeof rows / sizeof *rows);
    char header[600], digits[401];
    memset(digits, '1', 400);
    digits[400] = 0;
    snprintf(header, sizeof header, W("I8", "[%s]", "[0,2]"), digits);
    expect(header, 2, TFM_MALFORMED, "w: ");
    memset(digits, '0', 400);
    snprintf(header, sizeof header, W("I8", "[%s2]", "[0,2]"), digits);
    expect(header, 2, TFM_MALFORMED, "w: ");
}
static void damaged_names(void) {
    static const damage rows[] = {
        { "{\"\":{\"dtype\":\"I8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 2, TFM_MALFORMED, "name of 0 bytes" },
        { "{\"a\\\"b\":{\"dtype\":\"I8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 2, TFM_UNSUPPORTED, "escape" },
        { "{\"\\u0061\":{\"dtype\":\"I8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 2, TFM_UNSUPPORTED, "escape" },
        { "{\"\\u0000\":{\"dtype\":\"I8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 2, TFM_UNSUPPORTED, "escape" },
        { "{\"\\ud800\":{\"dtype\":\"I8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 2, TFM_UNSUPPORTED, "escape" },
        { "{\"a\nb\":{\"dtype\":\"I8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 2, TFM_MALFORMED, "control character" },
        { "{\"\xff\":{\"dtype\":\"I8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 2, TFM_MALFORMED, "UTF-8" },
        { "{\"\xed\xa0\x80\":{\"dtype\":\"I8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 2, TFM_MALFORMED, "UTF-8" },
        { "{\"\xc0\x80\":{\"dtype\":\"I8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 2, TFM_MALFORMED, "UTF-8" },
        { "{\"w", 0, TFM_MALFORMED, "byte" }, { "{\"w\"", 0, TFM_MALFORMED, "byte" },
        { "{\"w\":", 0, TFM_MALFORMED, "byte" }, { "{\"w\":{", 0, TFM_MALFORMED, "byte" },
        { "{\"w\":{\"", 0, TFM_MALFORMED, "byte" }, { "{w:{}}", 0, TFM_MALFORMED, "byte" },
        { "{'w':{}}", 0, TFM_MALFORMED, "byte" }, { "{\"w\\", 0, TFM_MALFORMED, "byte" },
        { "{\"w\xc3", 0, TFM_MALFORMED, "byte" },
        { "{\"w\":{\"dtype\":\"\\u0049\\u0038\",\"shape\":[2],\"data_offsets\":[0,2]}}", 2, TFM_UNSUPPORTED, "w: " },
        { "{\"__metadata__\":{\"a\":\"\\", 0, TFM_MALFORMED, "byte" },
        { "{\"__metadata__\":{\"a\":\"\\q\"}}", 0, TFM_MALFORMED, "byte" },
        { "{\"__metadata__\":{\"a\":\"\\u12\"}}", 0, TFM_MALFORMED, "byte" },
        { "{\"__metadata__\":{\"a\":\"\\u12g4\"}}", 0, TFM_MALFORMED, "byte" },
        { "{\"__metadata__\":{\"a\":\"\\\xff\"}}", 0, TFM_MALFORMED, "byte" },
        { "{\"__metadata__\":{\"a\":\"\\\n\"}}", 0, TFM_MALFORMED, "byte" },
        { "{\"__metadata__\":{\"a\":\"\\\"}}", 0, TFM_MALFORMED, "byte" },
        { "{\"__metadata__\":{\"a\":\"\xff\"}}", 0, TFM_MALFORMED, "UTF-8" } };
    do_damage(rows, sizeof rows / sizeof *rows);
    buffer b = hostile_safetensors(64, "{\"a\0b\":{\"dtype\":\"I8\",\"shape\":[2],\"data_offsets\":[0,2]}}         ",
                                   64, 2);
    expect_file(b.data, b.size, TFM_MALFORMED, "control character", "NUL");
    free(b.data);
}
static void damaged_objects(void) {
    static const damage rows[] = {
        { "[]", 0, TFM_MALFORMED, "neither" }, { " {}", 0, TFM_MALFORMED, "neither" },
        { "null", 0, TFM_MALFORMED, "neither" }, { "\xef\xbb\xbf{}", 0, TFM_MALFORMED, "neither" },
        { "{", 0, TFM_TRUNCATED, "a header of 1 bytes" }, { "{{}}", 0, TFM_MALFORMED, "byte" },
        { "{,}", 0, TFM_MALFORMED, "byte" }, { "{} x", 0, TFM_MALFORMED, "unexpected text at byte 11" },
        { "{}{}", 0, TFM_MALFORMED, "byte 10" }, { "{}\1", 0, TFM_MALFORMED, "byte 10" },
        { "{/**/}", 0, TFM_MALFORMED, "byte" }, { "{\"w\":[]}", 0, TFM_MALFORMED, "w: " },
        { "{\"w\":null}", 0, TFM_MALFORMED, "w: " }, { "{\"w\":{}}", 0, TFM_MALFORMED, "w: " },
        { "{\"w\":\"x\"}", 0, TFM_MALFORMED, "w: " }, { "{\"w\":{\"dtype\":\"I8\"}}", 0, TFM_MALFORMED, "w: " },
        { "{\"w\":{\"dtype\":\"I8\",\"shape\":[2]}}", 2, TFM_MALFORMED, "w: " },
        { "{\"w\":{\"shape\":[2],\"data_offsets\":[0,2]}}", 2, TFM_MALFORMED, "w: " },
        { "{\"w\":{\"dtype\":\"I8\",\"data_offsets\":[0,2]}}", 2, TFM_MALFORMED, "w: " },
        { "{\"w\":{\"dtype\":\"I8\",\"dtype\":\"I8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 2, TFM_MALFORMED,
          "w: unexpected or repeated \"dtype\"" },
        { "{\"w\":{\"dtype\":\"I8\",\"shape\":[2],\"shape\":[2],\"data_offsets\":[0,2]}}", 2, TFM_MALFORMED,
          "w: unexpected or repeated \"shape\"" },
        { "{\"w\":{\"dtype\":\"I8\",\"shape\":[2],\"data_offsets\":[0,2],\"data_offsets\":[0,2]}}", 2, TFM_MALFORMED,
          "w: " },
        { "{\"w\":{\"dtype\":\"I8\",\"shape\":[2],\"data_offsets\":[0,2],\"x\":1}}", 2, TFM_MALFORMED,
          "w: unexpected or repeated \"x\"" },
        { "{\"w\":{\"dtype\":8,\"shape\":[2],\"data_offsets\":[0,2]}}", 2, TFM_MALFORMED, "w: " },
        { "{\"w\":{\"dtype\":\"I8\",\"shape\":[2],\"data_offsets\":[0,2]}", 2, TFM_MALFORMED, "byte" },
        { "{\"w\":{\"dtype\":\"I8\",\"shape\":[2],\"data_offsets\":[0,2]},}", 2, TFM_MALFORMED, "byte" },
        { "{\"w\":{\"dtype\":\"I8\",\"shape\":[2],\"data_offsets\":[0,2],}}", 2, TFM_MALFORMED, "w: " },
        { "{\"w\":{\"dtype\":\"I8\",\"shape\":[2],\"data_offsets\":[0,2]}\"v\":{}}", 2, TFM_MALFORMED, "byte" },
        { "{\"__metadata__\":1}", 0, TFM_MALFORMED, "__metadata__" },
        { "{\"__metadata__\":[]}", 0, TFM_MALFORMED, "__metadata__" },
        { "{\"__metadata__\":null}", 0, TFM_MALFORMED, "__metadata__" },
        { "{\"__metadata__\":{\"a\":1}}", 0, TFM_MALFORMED, "__metadata__" },
        { "{\"__metadata__\":{\"a\":{}}}", 0, TFM_MALFORMED, "__metadata__" },
        { "{\"__metadata__\":{\"a\":null}}", 0, TFM_MALFORMED, "__metadata__" },
        { "{\"__metadata__\":{\"a\":\"b\",}}", 0, TFM_MALFORMED, "__metadata__" },
        { "{\"__metadata__\":{\"a\":\"b\"", 0, TFM_MALFORMED, "__metadata__" },
        { "{\"__metadata__\":{\"a\":\"b\",\"a\":\"c\"}}", 0, TFM_MALFORMED, "a: the key appears twice" },
        { "{\"__metadata__\":{\"a\":\"b\"},\"__metadata__\":{\"c\":\"d\"}}", 0, TFM_MALFORMED, "__metadata__" },
        { "{\"__metadata__\":{},\"__metadata__\":{}}", 0, TFM_MALFORMED, "__metadata__" } };
    do_damage(rows, sizeof rows / sizeof *rows);
}
static void damaged_lengths(void) {
    static const char header[] = "{\"w\":{\"dtype\":\"I8\",\"shape\":[2],\"data_offsets\":[0,2]}}";
    size_t size = strlen(header);
    static const uint64_t lengths[] = { 0, 1, 2, (uint64_t)1 << 31, ((uint64_t)1 << 32) + 55, (uint64_t)1 << 63,
                                        UINT64_MAX, UINT64_MAX - 7, UINT64_MAX - 4,
                                        100000000, 100000001 };
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        buffer b = hostile_safetensors(lengths[i], header, size, 2);
        expect_file(b.data, b.size, lengths[i] > size + 2 ? TFM_TRUNCATED : TFM_MALFORMED,
                    lengths[i] > 2 ? "a header of" : NULL, "length");
        free(b.data);
    }
    for (size_t n = 0; n <= size + 3; n++) {            /* all but the right one */
        buffer b = hostile_safetensors(n, header, size, 2);
        if (n <= size) expect_file(b.data, b.size, n == size ? TFM_OK : TFM_MALFORMED, NULL, "length");
        else expect_file(b.data, b.size, TFM_TRUNCATED, n > size + 2 ? "a header of" : "w: bytes 0 to 2 of", "length");
        free(b.data);
    }
    size_t large = 100000001;                           /* the format's limit; mostly untouched memory */
    uint8_t *p = test_quick ? NULL : (uint8_t *)calloc(1, large + 8);
    if (!p) return;
    for (int i = 0; i < 8; i++) p[i] = (uint8_t)((uint64_t)large >> (8 * i) & 255);
    memcpy(p + 8, "{}", 2);
    tfm_error err;
    CHECK(tfm_file_from_memory(p, large + 8, NULL, &err) == NULL);
    if (little_endian()) CHECK_EQ(err.status, TFM_MALFORMED);
    if (little_endian()) CHECK_CONTAINS(err.message, "100000001");
    free(p);
}

/* ---- Time ---- */

static void many_entries(void) {
    int n = test_quick ? 1000 : 100000;
    char *header = (char *)malloc((size_t)n * 100 + 100);
    if (!header) return;
    for (int kind = 0; kind < 4; kind++) {              /* tensors or metadata; the last one twice, or not */
        bool meta = kind % 2 != 0, twice = kind / 2 != 0;
        char *p = header + sprintf(header, meta ? "{\"__metadata__\":{" : "{");
        for (int i = 0; i < n; i++) {
            int name = twice && i == n - 1 ? 0 : (int)((int64_t)i * 7919 % n);
            if (i) *p++ = ',';
            if (meta) p += sprintf(p, "\"a.long.prefix.%06d\":\"x\"", name);
            else p += sprintf(p, E("a.long.prefix.%06d", "I8", "[1]", "[%d,%d]"), name, i, i + 1);
        }
        strcpy(p, meta ? "}}" : "}");
        clock_t start = clock();
        expect(header, meta ? 0 : (size_t)n, twice ? TFM_MALFORMED : TFM_OK, twice ? "a.long.prefix.000000: " : NULL);
        CHECK((double)(clock() - start) / CLOCKS_PER_SEC < 20);
    }
    free(header);
}
static void deep_nesting(void) {
    static const char *const parts[] = { "{", "[", "{\"a\":", "{\"w\":{\"shape\":[" };
    size_t n = test_quick ? 1000 : 1000000;
    char *header = (char *)malloc(n * 20 + 1);
    for (int i = 0; header && i < 4; i++) {
        size_t size = strlen(parts[i]);
        for (size_t k = 0; k < n; k++) memcpy(header + k * size, parts[i], size);
        header[n * size] = 0;
        expect(header, 0, TFM_MALFORMED, NULL);
        memset(header, '[', n);                         /* deep inside of a tensor */
        memcpy(header, "{\"w\":{\"shape\":", 14);
        header[n] = 0;
        expect(header, 0, TFM_MALFORMED, "w: ");
    }
    free(header);
}

/* ---- Sweeps ---- */

static const char sweep_header[] = "{\"__metadata__\":{\"k\":\"v\\n\"}," E("ab", "F32", "[2,3]", "[0,24]") ","
                                   E("c", "BF16", "[]", "[24,26]") "," E("d", "U8", "[0,1]", "[26,26]") "}  ";

static void sweep_cuts(void) {
    buffer b = hostile_safetensors(strlen(sweep_header), sweep_header, strlen(sweep_header), 26);
    for (size_t n = 0; n <= b.size; n++) {
        hostile h = hostile_use(b.data, n);
        if (little_endian() && n < b.size) CHECK(h.file.status == (n < 8 ? TFM_TRUNCATED : h.file.status) &&
                                                 h.file.status != TFM_OK);
        if (n == b.size && little_endian()) CHECK_STR(h.file.message, "");
    }
    /* the header alone, with its length put right */
    for (size_t n = 0; n < strlen(sweep_header); n++) {
        buffer c = hostile_safetensors(n, sweep_header, n, 26);
        hostile h = hostile_use(c.data, c.size);
        CHECK(h.file.status != TFM_OK || n >= strlen(sweep_header) - 2 || !little_endian());
        free(c.data);
    }
    CHECK_STR(hostile_fault ? hostile_fault : "", "");
    hostile_fault = NULL;
    free(b.data);
}
static void sweep_bytes(void) {
    static const uint8_t values[] = { 0, 1, 0x7f, 0x80, 0xff, '"', '\\', '{', '}', '[', ']', ',', ':', '-', '0', '9',
                                      'e', '.', ' ' };
    static const uint64_t numbers[] = { 0, 1, (uint64_t)1 << 31, (uint64_t)1 << 32, ((uint64_t)1 << 62) - 1,
                                        (uint64_t)1 << 63, UINT64_MAX };
    enum { N = sizeof values };
    buffer b = hostile_safetensors(strlen(sweep_header), sweep_header, strlen(sweep_header), 26);
    for (size_t at = 0; at < b.size; at += test_quick ? 5 : 1)
        for (size_t i = test_quick ? at % 7 : 0; i < N; i += test_quick ? 7 : 1) {
            uint8_t old = b.data[at];
            b.data[at] = values[i];
            hostile_use(b.data, b.size);
            b.data[at] = old;
        }
    for (size_t at = 0; at + 8 <= b.size; at += test_quick ? 11 : 1)
        for (size_t i = test_quick ? at % 7 : 0; i < 7; i += test_quick ? 7 : 1) {
            uint8_t old[8];
            memcpy(old, b.data + at, 8);
            memcpy(b.data + at, &numbers[i], 8);
            hostile_use(b.data, b.size);
            memcpy(b.data + at, old, 8);
        }
    CHECK_STR(hostile_fault ? hostile_fault : "", "");
    hostile_fault = NULL;
    free(b.data);
}
/* Each byte gone, and each twice. */
static void sweep_lengths(void) {
    size_t size = strlen(sweep_header);
    char changed[400];
    for (size_t at = 0; at < size; at += test_quick ? 7 : 1)
        for (int twice = 0; twice < 2; twice++) {
            size_t n = twice ? size + 1 : size - 1;
            memcpy(changed, sweep_header, at);
            if (twice) memcpy(changed + at, sweep_header + at, 1),
                memcpy(changed + at + 1, sweep_header + at, size - at);
            else memcpy(changed + at, sweep_header + at + 1, size - at - 1);
            buffer b = hostile_safetensors(n, changed, n, 26);
            hostile_use(b.data, b.size);
            free(b.data);
        }
    CHECK_STR(hostile_fault ? hostile_fault : "", "");
    hostile_fault = NULL;
}

const test_case tests_safetensors[] = {
    { "file_of_the_reference", file_of_the_reference, QUICK },
    { "valid_headers", valid_headers, QUICK },
    { "types", types, QUICK },
    { "paths", paths, QUICK },
    { "damaged_offsets", damaged_offsets, QUICK },
    { "damaged_shapes", damaged_shapes, QUICK },
    { "damaged_names", damaged_names, QUICK },
    { "damaged_objects", damaged_objects, QUICK },
    { "damaged_lengths", damaged_lengths, QUICK },
    { "many_entries", many_entries, QUICK },
    { "deep_nesting", deep_nesting, QUICK },
    { "sweep_cuts", sweep_cuts, QUICK },
    { "sweep_bytes", sweep_bytes, QUICK },
    { "sweep_lengths", sweep_lengths, QUICK },
    { NULL, NULL, SLOW }
};
