/* gguf_write.h - writes GGUF v3 files and encodes weights, for the tools and the tests.

   Include it after, or instead of, a plain include of tfm.h; it needs no implementation of it.

       FILE *f = cli_create("out.gguf");
       gguf_writer w;
       gguf_begin_file(&w, f);                             // or gguf_begin_memory(&w)
       gguf_meta_string(&w, "general.architecture", "llama");
       gguf_meta_u32(&w, "llama.block_count", 2);
       gguf_tensor(&w, "token_embd.weight", TFM_F32, tfm_shape2(512, 64));     // all of them first,
       gguf_data(&w, floats, 512 * 64 * sizeof(float));    // then their bytes, in the same order,
       if (!gguf_finish(&w)) cli_fail("%s", w.error);      // in any pieces
       cli_commit(f);                                      // complete now, or absent

   The first error stays in w.error, later calls do nothing, and gguf_finish says how it went.
   gguf_begin writes to any sink. In memory the file is w.bytes.data (w.bytes.size of them), for
   the caller to free; NULL after an error.
   Numbers are in the host's byte order, which GGUF v3 permits and tfm.h reads.                  */
#ifndef GGUF_WRITE_H
#define GGUF_WRITE_H

#include "tfm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Types ---- */

static inline int64_t gguf_type_block(tfm_type type) {     /* elements per block; 0: unknown type */
    switch (type) {
#define TFM__X(name, number, block, bytes) case TFM_##name: return block;
        TFM_TYPES(TFM__X)
#undef TFM__X
        case TFM_TYPE_NONE: break;
    }
    return 0;
}
static inline int64_t gguf_type_bytes(tfm_type type) {     /* bytes per block */
    switch (type) {
#define TFM__X(name, number, block, bytes) case TFM_##name: return bytes;
        TFM_TYPES(TFM__X)
#undef TFM__X
        case TFM_TYPE_NONE: break;
    }
    return 0;
}
/* Bytes of a tensor; false if its rows are no whole blocks or the size is not representable. */
static inline bool gguf_tensor_bytes(tfm_type type, tfm_shape shape, uint64_t *bytes) {
    int64_t block = gguf_type_block(type);
    if (block == 0 || shape.rank < 1 || shape.rank > 4 || shape.dim[shape.rank - 1] % block) return false;
    uint64_t total = (uint64_t)gguf_type_bytes(type);
    bool empty = false;
    for (int i = 0; i < shape.rank; i++) {
        if (shape.dim[i] < 0) return false;
        empty = empty || shape.dim[i] == 0;
    }
    for (int i = 0; i < shape.rank && !empty; i++) {
        uint64_t n = (uint64_t)(i == shape.rank - 1 ? shape.dim[i] / block : shape.dim[i]);
        if (total > INT64_MAX / n) return false;
        total *= n;
    }
    *bytes = empty ? 0 : total;
    return true;
}

/* ---- Writing ---- */

typedef struct gguf_bytes { uint8_t *data; size_t size, capacity; } gguf_bytes;

/* Takes the next bytes of the file; false ends the writing. */
typedef bool (*gguf_sink)(void *user, const void *data, size_t size);

typedef struct gguf_writer {
    char error[256];                    /* empty: none so far */
    gguf_sink sink;
    void *user;
    gguf_bytes bytes;                   /* of gguf_begin_memory */
    gguf_bytes meta, directory, sizes;  /* sizes: a uint64_t for each tensor */
    uint64_t meta_count, tensor_count, alignment;
    uint64_t offset;                    /* of the next tensor's data */
    uint64_t current, written;          /* the tensor being written, and how much of it is */
    bool header_done;
} gguf_writer;

/* Keeps the first error; what: the name that it is about, or NULL. Always false. */
static inline bool gguf_fail(gguf_writer *w, const char *what, const char *why) {
    if (!w->error[0]) snprintf(w->error, sizeof w->error, "%s%s%s", what ? what : "", what ? ": " : "", why);
    return false;
}
static inline bool gguf__append(gguf_writer *w, gguf_bytes *b, const void *data, size_t size) {
    if (w->error[0]) return false;
    if (size > b->capacity - b->size) {
        size_t capacity = b->capacity ? b->capacity : 1024;
        while (capacity - b->size < size && capacity <= SIZE_MAX / 2) capacity *= 2;
        uint8_t *larger = capacity - b->size < size ? NULL : (uint8_t *)realloc(b->data, capacity);
        if (!larger) return gguf_fail(w, NULL, "out of memory");
        b->data = larger;
        b->capacity = capacity;
    }
    if (size) memcpy(b->data + b->size, data, size);
    b->size += size;
    return true;
}
static inline void gguf__u32(gguf_writer *w, gguf_bytes *b, uint32_t v) { gguf__append(w, b, &v, sizeof v); }
static inline void gguf__u64(gguf_writer *w, gguf_bytes *b, uint64_t v) { gguf__append(w, b, &v, sizeof v); }
static inline void gguf__string(gguf_writer *w, gguf_bytes *b, const char *data, size_t size) {
    gguf__u64(w, b, size);
    gguf__append(w, b, data, size);
}

static inline bool gguf__memory_sink(void *user, const void *data, size_t size) {
    gguf_writer *w = (gguf_writer *)user;
    return gguf__append(w, &w->bytes, data, size);
}
static inline bool gguf__file_sink(void *file, const void *data, size_t size) {
    return fwrite(data, 1, size, (FILE *)file) == size;
}

static inline void gguf_begin(gguf_writer *w, gguf_sink sink, void *user) {
    memset(w, 0, sizeof *w);
    w->sink = sink;
    w->user = user;
    w->alignment = 32;
}
static inline void gguf_begin_memory(gguf_writer *w) { gguf_begin(w, gguf__memory_sink, w); }

/* f: open for binary writing; closing it, and looking for errors then, is the caller's. */
static inline void gguf_begin_file(gguf_writer *w, FILE *f) { gguf_begin(w, gguf__file_sink, f); }

/* Metadata. Of a key given twice, both stand in the file: readers refuse that. */
static inline void gguf__key(gguf_writer *w, const char *key, size_t size, tfm_value_type type) {
    if (w->header_done) gguf_fail(w, NULL, "metadata after the data");
    if (size == 0 || size > 65535) gguf_fail(w, NULL, "a key has no name, or one too long");
    gguf__string(w, &w->meta, key, size);
    gguf__u32(w, &w->meta, (uint32_t)type);
    w->meta_count++;
}
static inline size_t gguf_value_bytes(tfm_value_type type) {       /* 0: no fixed size */
    static const uint8_t bytes[TFM_VALUE_TYPES] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };
    return (unsigned)type < TFM_VALUE_TYPES ? bytes[type] : 0;
}
/* Any value as a file holds it: of a string its bytes, of an array its elements one after another
   (a string: its length as uint64_t, its bytes). */
static inline void gguf_meta_value(gguf_writer *w, tfm_string key, const tfm_value *v) {
    gguf__key(w, key.data, key.size, v->type);
    if (v->type == TFM_VALUE_STRING) gguf__u64(w, &w->meta, v->size);
    if (v->type == TFM_VALUE_ARRAY) {
        gguf__u32(w, &w->meta, (uint32_t)v->element);
        gguf__u64(w, &w->meta, v->count);
    }
    gguf__append(w, &w->meta, v->data, v->size);
    if (v->type == TFM_VALUE_U32 && key.size == 17 && memcmp(key.data, "general.alignment", 17) == 0) {
        uint32_t a = 0;
        memcpy(&a, v->data, sizeof a);
        if (a == 0 || (a & (a - 1)) || a > 1 << 20 || w->tensor_count)
            gguf_fail(w, "general.alignment", "no power of two up to 2^20, or after a tensor");
        else w->alignment = a;
    }
}
/* A number or bool: data holds it as its C type (a bool: one byte, 0 or 1). */
static inline void gguf_meta_number(gguf_writer *w, const char *key, tfm_value_type type, const void *data) {
    tfm_string k = { key, strlen(key) };
    tfm_value v = { type, TFM_VALUE_U8, 1, (const uint8_t *)data, gguf_value_bytes(type) };
    gguf_meta_value(w, k, &v);
}
static inline void gguf_meta_u32(gguf_writer *w, const char *key, uint32_t v) {
    gguf_meta_number(w, key, TFM_VALUE_U32, &v);
}
static inline void gguf_meta_f32(gguf_writer *w, const char *key, float v) {
    gguf_meta_number(w, key, TFM_VALUE_F32, &v);
}
static inline void gguf_meta_bool(gguf_writer *w, const char *key, bool v) {
    uint8_t byte = v;
    gguf_meta_number(w, key, TFM_VALUE_BOOL, &byte);
}
static inline void gguf_meta_string(gguf_writer *w, const char *key, const char *text) {
    tfm_string k = { key, strlen(key) };
    tfm_value v = { TFM_VALUE_STRING, TFM_VALUE_U8, strlen(text), (const uint8_t *)text, strlen(text) };
    gguf_meta_value(w, k, &v);
}
static inline void gguf_meta_array(gguf_writer *w, const char *key, tfm_value_type element, const void *data,
                                   size_t count) {
    tfm_string k = { key, strlen(key) };
    tfm_value v = { TFM_VALUE_ARRAY, element, count, (const uint8_t *)data, count * gguf_value_bytes(element) };
    gguf_meta_value(w, k, &v);
}
static inline void gguf_meta_strings(gguf_writer *w, const char *key, const tfm_string *strings, size_t count) {
    gguf__key(w, key, strlen(key), TFM_VALUE_ARRAY);
    gguf__u32(w, &w->meta, TFM_VALUE_STRING);
    gguf__u64(w, &w->meta, count);
    for (size_t i = 0; i < count; i++) gguf__string(w, &w->meta, strings[i].data, strings[i].size);
}

/* Declares the next tensor; shape outermost first. */
static inline void gguf_tensor(gguf_writer *w, const char *name, tfm_type type, tfm_shape shape) {
    uint64_t bytes = 0;
    size_t length = strlen(name);
    if (w->header_done) gguf_fail(w, name, "declared after the data");
    if (length == 0 || length > 63) gguf_fail(w, name, "the name of a tensor has 1 to 63 bytes");
    if (!gguf_tensor_bytes(type, shape, &bytes)) gguf_fail(w, name, "no tensor has this type and shape");
    if (w->offset > INT64_MAX - bytes - w->alignment) gguf_fail(w, name, "the file would be too large");
    if (w->error[0]) return;
    gguf__string(w, &w->directory, name, length);
    gguf__u32(w, &w->directory, (uint32_t)shape.rank);
    for (int i = shape.rank - 1; i >= 0; i--) gguf__u64(w, &w->directory, (uint64_t)shape.dim[i]);
    gguf__u32(w, &w->directory, (uint32_t)type);
    gguf__u64(w, &w->directory, w->offset);
    gguf__u64(w, &w->sizes, bytes);
    w->offset = (w->offset + bytes + w->alignment - 1) / w->alignment * w->alignment;
    w->tensor_count++;
}

static inline bool gguf__emit(gguf_writer *w, const void *data, size_t size) {
    if (w->error[0]) return false;
    errno = 0;
    return size == 0 || w->sink(w->user, data, size) || gguf_fail(w, NULL, errno ? strerror(errno) : "cannot write");
}
static inline void gguf__pad(gguf_writer *w, uint64_t size) {
    static const uint8_t zeros[64];
    for (uint64_t left = (w->alignment - size % w->alignment) % w->alignment; left && !w->error[0];) {
        size_t n = left < sizeof zeros ? (size_t)left : sizeof zeros;
        gguf__emit(w, zeros, n);
        left -= n;
    }
}
static inline void gguf__header(gguf_writer *w) {
    gguf_bytes head = { NULL, 0, 0 };
    gguf__append(w, &head, "GGUF", 4);
    gguf__u32(w, &head, 3);
    gguf__u64(w, &head, w->tensor_count);
    gguf__u64(w, &head, w->meta_count);
    gguf__emit(w, head.data, head.size);
    gguf__emit(w, w->meta.data, w->meta.size);
    gguf__emit(w, w->directory.data, w->directory.size);
    gguf__pad(w, (uint64_t)head.size + w->meta.size + w->directory.size);
    free(head.data);
    w->header_done = true;
}
static inline uint64_t gguf__current_bytes(const gguf_writer *w) {
    uint64_t bytes;
    memcpy(&bytes, w->sizes.data + w->current * sizeof bytes, sizeof bytes);
    return bytes;
}
/* The next bytes of the declared tensors; padding is added between them. */
static inline bool gguf_data(gguf_writer *w, const void *data, size_t size) {
    const uint8_t *p = (const uint8_t *)data;
    if (!w->header_done) gguf__header(w);
    while (!w->error[0] && (size || (w->current < w->tensor_count && gguf__current_bytes(w) == 0))) {
        if (w->current == w->tensor_count) return gguf_fail(w, NULL, "more data than tensors");
        uint64_t left = gguf__current_bytes(w) - w->written;
        size_t n = left < size ? (size_t)left : size;
        if (!gguf__emit(w, p, n)) return false;
        if (n) p += n;
        size -= n;
        w->written += n;
        if (n < left) break;
        gguf__pad(w, w->written);
        w->written = 0;
        w->current++;
    }
    return !w->error[0];
}
/* Ends the file and frees what the writer holds, but for w.bytes. Without an error so far, but with
   data missing, that is the error. */
static inline bool gguf_finish(gguf_writer *w) {
    gguf_data(w, NULL, 0);
    if (w->current < w->tensor_count) gguf_fail(w, NULL, "the data of a tensor is missing");
    if (w->error[0]) {
        free(w->bytes.data);
        memset(&w->bytes, 0, sizeof w->bytes);
    }
    free(w->meta.data);
    free(w->directory.data);
    free(w->sizes.data);
    memset(&w->meta, 0, sizeof w->meta);
    memset(&w->directory, 0, sizeof w->directory);
    memset(&w->sizes, 0, sizeof w->sizes);
    return !w->error[0];
}

/* ---- Encoding ----
   Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, F16 and BF16 give the bytes of llama.cpp's reference quantizers.
   K types search for scales with the smallest squared error.
   What a block cannot hold (NaN, infinity, a scale beyond f16) makes the block NaN.            */

/* No fusing of a*b + c: the bytes may not depend on the compiler's flags. */
#if defined(__clang__)
#pragma float_control(push)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC push_options
#pragma GCC optimize("fp-contract=off")
#endif

static inline uint32_t gguf__bits(float f) { uint32_t u; memcpy(&u, &f, sizeof u); return u; }
static inline float gguf__float(uint32_t u) { float f; memcpy(&f, &u, sizeof f); return f; }
static inline bool gguf__finite(float f) { return (gguf__bits(f) & 0x7f800000u) != 0x7f800000u; }

/* To nearest, ties to even. */
static inline uint16_t gguf_f32_to_f16(float f) {
    uint32_t sign = gguf__bits(f) >> 16 & 0x8000u, a = gguf__bits(f) & 0x7fffffffu;
    if (a > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
    if (a >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u);       /* from 65520 on */
    uint32_t drop = 13;                 /* bits of the fraction that do not fit */
    if (a < 0x38800000u) {              /* subnormal: the leading one becomes explicit */
        uint32_t exponent = a >> 23;
        if (exponent < 102) return (uint16_t)sign;
        drop = 126 - exponent;
        a = (a & 0x7fffffu) | 0x800000u;
    } else a -= 0x38000000u;
    uint32_t half = 1u << (drop - 1), rest = a & (2 * half - 1);
    a >>= drop;
    if (rest > half || (rest == half && (a & 1))) a++;
    return (uint16_t)(sign | a);
}
static inline float gguf_f16_to_f32(uint16_t h) {
    uint32_t sign = (h & 0x8000u) << 16, rest = h & 0x7fffu;
    if (rest >= 0x7c00u) return gguf__float(sign | 0x7f800000u | (rest & 0x3ffu) << 13);
    float f = gguf__float(rest << 13) * 0x1p112f;
    return sign ? -f : f;
}
static inline uint16_t gguf_f32_to_bf16(float f) {
    uint32_t u = gguf__bits(f);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(u >> 16 | 64);
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1)) >> 16);
}

/* Toward zero. What no int holds gives 0: it arises only where 1/d overflows, and such a d is 0 in
   f16, so that any number decodes to 0. */
static inline int gguf__int(float v) { return v > -1e9f && v < 1e9f ? (int)v : 0; }

static inline void gguf__put_half(uint8_t *p, float f) {
    uint16_t h = gguf_f32_to_f16(f);
    memcpy(p, &h, sizeof h);
}
static inline bool gguf__fits_half(float f) { return (gguf_f32_to_f16(f) & 0x7c00u) != 0x7c00u; }
/* Whether all n are numbers not beyond the limit. */
static inline bool gguf__within(const float *x, int n, float limit) {
    bool within = true;
    for (int i = 0; i < n; i++) within &= x[i] <= limit && x[i] >= -limit;
    return within;
}

/* 32 quants of 4 or 5 bits: the low nibbles of 16 bytes hold elements 0..15, the high ones 16..31;
   the fifth bits lie in 4 bytes before, element i in bit i. */
static inline void gguf__pack32(uint8_t *p, const uint8_t *q, int bits) {
    if (bits == 5) {
        memset(p, 0, 4);
        for (int i = 0; i < 32; i++) p[i / 8] = (uint8_t)(p[i / 8] | (q[i] >> 4) << (i % 8));
        p += 4;
    }
    for (int i = 0; i < 16; i++) p[i] = (uint8_t)((q[i] & 15) | (q[i + 16] & 15) << 4);
}
/* Q4_0 and Q5_0: d * (q - 2^(bits-1)); the element of largest magnitude becomes q = 0. */
static inline bool gguf__encode_centered(const float *x, uint8_t *p, int bits) {
    float largest = 0, magnitude = 0;
    for (int i = 0; i < 32; i++) {
        float a = x[i] < 0 ? -x[i] : x[i];
        if (a > magnitude) { magnitude = a; largest = x[i]; }
    }
    float half = (float)(1 << (bits - 1)), d = largest / -half, inverse = d != 0 ? 1 / d : 0;
    uint8_t q[32];
    for (int i = 0; i < 32; i++) {
        int v = gguf__int(x[i] * inverse + (half + 0.5f)), most = (1 << bits) - 1;
        q[i] = (uint8_t)(v < 0 ? 0 : v > most ? most : v);
    }
    gguf__put_half(p, d);
    gguf__pack32(p + 2, q, bits);
    return gguf__fits_half(d);
}
/* Q4_1 and Q5_1: d * q + m, from the smallest to the largest element. */
static inline bool gguf__encode_affine(const float *x, uint8_t *p, int bits) {
    float low = x[0], high = x[0];
    for (int i = 1; i < 32; i++) {
        if (x[i] < low) low = x[i];
        if (x[i] > high) high = x[i];
    }
    int most = (1 << bits) - 1;
    float d = (high - low) / (float)most, inverse = d != 0 ? 1 / d : 0;
    uint8_t q[32];
    for (int i = 0; i < 32; i++) {
        int v = gguf__int((x[i] - low) * inverse + 0.5f);
        q[i] = (uint8_t)(v < 0 ? 0 : v > most ? most : v);
    }
    gguf__put_half(p, d);
    gguf__put_half(p + 2, low);
    gguf__pack32(p + 4, q, bits);
    return gguf__fits_half(d) && gguf__fits_half(low);
}
static inline bool gguf__encode_q4_0(const float *x, uint8_t *p) { return gguf__encode_centered(x, p, 4); }
static inline bool gguf__encode_q5_0(const float *x, uint8_t *p) { return gguf__encode_centered(x, p, 5); }
static inline bool gguf__encode_q4_1(const float *x, uint8_t *p) { return gguf__encode_affine(x, p, 4); }
static inline bool gguf__encode_q5_1(const float *x, uint8_t *p) { return gguf__encode_affine(x, p, 5); }

static inline bool gguf__encode_q8_0(const float *x, uint8_t *p) {
    float magnitude = 0;
    for (int i = 0; i < 32; i++) {
        float a = x[i] < 0 ? -x[i] : x[i];
        if (a > magnitude) magnitude = a;
    }
    float d = magnitude / 127, inverse = d != 0 ? 1 / d : 0;
    for (int i = 0; i < 32; i++) {      /* ties away from zero */
        float v = x[i] * inverse;
        int q = gguf__int(v);
        float rest = v - (float)q;
        if (rest >= 0.5f && rest <= 1) q++;
        if (rest <= -0.5f && rest >= -1) q--;
        p[2 + i] = (uint8_t)(q & 255);
    }
    gguf__put_half(p, d);
    return gguf__fits_half(d);
}

/* ---- K types: 256 elements in sub-blocks, whose integer scales share one or two halves.
   First each sub-block's best real scale: candidates are stretched a little against the range of
   the values; with a minimum, the best scale and minimum for the quants that result have a closed
   form, and give new quants. Then the integer scale, among those next to it, that leaves the
   smallest error with the shared half. Then the shared halves in closed form for the quants found,
   and the integers once more.                                                                  */

static inline int gguf__clamp(int v, int low, int high) { return v < low ? low : v > high ? high : v; }
/* Nearest integer in [low, high]; low >= -128. */
static inline int gguf__nearest(float v, int low, int high) {
    if (!(v > (float)low)) return low;
    return v >= (float)high ? high : (int)(v + 128.5f) - 128;
}

static inline float gguf__sum8(const float *t) {
    return ((t[0] + t[1]) + (t[2] + t[3])) + ((t[4] + t[5]) + (t[6] + t[7]));
}
/* Quants of x (n of them, a multiple of 8) for x = s*q + m; gives their squared error, summed in
   eight lanes so that compilers can vectorize it. */
static inline float gguf__quants(const float *x, int n, float s, float m, int low, int high, int8_t *q) {
    float inverse = s != 0 ? 1 / s : 0, error[8] = { 0 };
    float least = (float)low, most = (float)high, up = 0.5f - least;
    if (!gguf__finite(inverse)) inverse = 0;
    for (int i = 0; i < n; i += 8)
        for (int j = 0; j < 8; j++) {
            float v = (x[i + j] - m) * inverse;
            v = v > least ? v : least;
            v = v < most ? v : most;
            int rounded = (int)(v + up) + low;
            float rest = x[i + j] - m - s * (float)rounded;
            q[i + j] = (int8_t)rounded;
            error[j] += rest * rest;
        }
    return gguf__sum8(error);
}

typedef struct gguf__fit { float s, m, error; } gguf__fit;

/* The best s and m, m <= 0, for quants as they are. False if there is no s > 0. */
static inline bool gguf__solve_min(const float *x, const int8_t *q, int n, gguf__fit *f) {
    int sq = 0, sqq = 0;
    float sx[8] = { 0 }, sxq[8] = { 0 };
    for (int i = 0; i < n; i++) {
        sq += q[i];
        sqq += q[i] * q[i];
    }
    for (int i = 0; i < n; i += 8)
        for (int j = 0; j < 8; j++) {
            sx[j] += x[i + j];
            sxq[j] += x[i + j] * (float)q[i + j];
        }
    int det = n * sqq - sq * sq;        /* at most 32 * 32 * 31^2: no overflow */
    if (det <= 0) return false;
    float tx = gguf__sum8(sx), txq = gguf__sum8(sxq);
    f->s = ((float)n * txq - (float)sq * tx) / (float)det;
    f->m = ((float)sqq * tx - (float)sq * txq) / (float)det;
    if (f->m > 0) {
        f->m = 0;
        f->s = txq / (float)sqq;
    }
    return f->s > 0;
}
/* The real s and m of a sub-block with quants 0..most. */
static inline gguf__fit gguf__fit_min(const float *x, int n, int most) {
    float low = 0, high = x[0];
    int8_t q[32];
    for (int i = 0; i < n; i++) {
        if (x[i] < low) low = x[i];
        if (x[i] > high) high = x[i];
    }
    gguf__fit best = { 0, low, 0 };
    best.error = gguf__quants(x, n, best.s, best.m, 0, most, q);
    for (int step = -3; step <= 3 && high > low; step++) {
        gguf__fit f = { (high - low) / ((float)most + 0.35f * (float)step), low, 0 };
        for (int round = 0; round < 3; round++) {
            f.error = gguf__quants(x, n, f.s, f.m, 0, most, q);
            if (f.error < best.error) best = f;
            if (!gguf__solve_min(x, q, n, &f)) break;
        }
    }
    return best;
}

/* The half nearest to v, but 0 only for 0. */
static inline float gguf__scale_half(float v) {
    uint16_t h = gguf_f32_to_f16(v);
    if ((h & 0x7fff) == 0 && v != 0) h++;
    return gguf_f16_to_f32(h);
}

typedef struct gguf__k4 {               /* Q4_K, Q5_K: x = d*sc[j]*q - dmin*mins[j] */
    float d, dmin, error;
    int sc[8], mins[8];
    int8_t q[256];
} gguf__k4;

/* Given d and dmin, the integers. */
static inline void gguf__k4_choose(const float *x, const gguf__fit *fits, int most, gguf__k4 *k) {
    k->error = 0;
    for (int j = 0; j < 8; j++) {
        int sc = k->d > 0 ? gguf__nearest(fits[j].s / k->d, 0, 63) : 0;
        int min = k->dmin > 0 ? gguf__nearest(-fits[j].m / k->dmin, 0, 63) : 0;
        float best = -1;
        int8_t q[32];
        for (int a = gguf__clamp(sc - 1, 0, 63); a <= gguf__clamp(sc + 1, 0, 63); a++)
            for (int b = gguf__clamp(min - 1, 0, 63); b <= gguf__clamp(min + 1, 0, 63); b++) {
                float error = gguf__quants(x + 32 * j, 32, k->d * (float)a, -k->dmin * (float)b, 0, most, q);
                if (best >= 0 && !(error < best)) continue;
                best = error;
                k->sc[j] = a;
                k->mins[j] = b;
                memcpy(k->q + 32 * j, q, 32);
            }
        k->error += best;
    }
}
/* Given the integers, d and dmin. False if the sums leave them open. */
static inline bool gguf__k4_solve(const float *x, gguf__k4 *k) {
    float aa = 0, ab = 0, bb = 0, xa = 0, xb = 0;
    for (int i = 0; i < 256; i++) {
        float a = (float)(k->sc[i / 32] * k->q[i]), b = -(float)k->mins[i / 32];
        aa += a * a;
        ab += a * b;
        bb += b * b;
        xa += x[i] * a;
        xb += x[i] * b;
    }
    float det = aa * bb - ab * ab;
    float d = det > 0 ? (bb * xa - ab * xb) / det : aa > 0 ? xa / aa : 0;
    float dmin = det > 0 ? (aa * xb - ab * xa) / det : 0;
    if (!(d > 0) || dmin < 0) return false;
    k->d = gguf__scale_half(d);
    k->dmin = gguf__scale_half(dmin);
    return true;
}
static inline void gguf__k4_fit(const float *x, int most, gguf__k4 *best) {
    gguf__fit fits[8];
    float s = 0, m = 0;
    for (int j = 0; j < 8; j++) {
        fits[j] = gguf__fit_min(x + 32 * j, 32, most);
        if (fits[j].s > s) s = fits[j].s;
        if (-fits[j].m > m) m = -fits[j].m;
    }
    gguf__k4 k;
    k.d = gguf__scale_half(s / 63);
    k.dmin = gguf__scale_half(m / 63);
    gguf__k4_choose(x, fits, most, &k);
    *best = k;
    if (!gguf__k4_solve(x, &k)) return;
    gguf__k4_choose(x, fits, most, &k);
    if (k.error < best->error) *best = k;
}
/* d, dmin, 12 bytes of six-bit scales and minimums, (Q5_K: 32 bytes of fifth bits,) 128 of nibbles. */
static inline bool gguf__encode_k4(const float *x, uint8_t *p, int bits) {
    gguf__k4 k;
    int most = (1 << bits) - 1;
    if (!gguf__within(x, 256, 65504.0f * 63 * (float)most)) return false;      /* nor do sums overflow */
    gguf__k4_fit(x, most, &k);
    gguf__put_half(p, k.d);
    gguf__put_half(p + 2, k.dmin);
    for (int j = 0; j < 4; j++) {       /* 4..7: four bits in bytes 8..11, two at the top of 0..7 */
        p[4 + j] = (uint8_t)(k.sc[j] | (k.sc[j + 4] >> 4) << 6);
        p[8 + j] = (uint8_t)(k.mins[j] | (k.mins[j + 4] >> 4) << 6);
        p[12 + j] = (uint8_t)((k.sc[j + 4] & 15) | (k.mins[j + 4] & 15) << 4);
    }
    p += 16;
    if (bits == 5) {                    /* bit j of byte i: element 32 * j + i */
        memset(p, 0, 32);
        for (int i = 0; i < 256; i++) p[i % 32] = (uint8_t)(p[i % 32] | (k.q[i] >> 4) << (i / 32));
        p += 32;
    }
    for (int i = 0; i < 128; i++) {     /* low nibbles: sub-block 0 of a pair, high ones: 1 */
        const int8_t *q = k.q + 64 * (i / 32) + i % 32;
        p[i] = (uint8_t)((q[0] & 15) | (q[32] & 15) << 4);
    }
    return gguf__fits_half(k.d) && gguf__fits_half(k.dmin);
}
static inline bool gguf__encode_q4_k(const float *x, uint8_t *p) { return gguf__encode_k4(x, p, 4); }
static inline bool gguf__encode_q5_k(const float *x, uint8_t *p) { return gguf__encode_k4(x, p, 5); }

typedef struct gguf__k6 {               /* Q6_K: x = d*sc[j]*q, q from -32 to 31 */
    float d, error;
    int sc[16];
    int8_t q[256];
} gguf__k6;

/* The real s of a sub-block of 16; of either sign, since the quants reach further down than up. */
static inline float gguf__fit_scale(const float *x) {
    float largest = 0, magnitude = 0, best = 0, best_error = 0;
    for (int i = 0; i < 16; i++) {
        float a = x[i] < 0 ? -x[i] : x[i];
        if (a > magnitude) { magnitude = a; largest = x[i]; }
        best_error += a * a;
    }
    int8_t q[16];
    for (int step = -2; step <= 2 && magnitude > 0; step++) {
        float s = largest / (-32 + (float)step);
        float error = gguf__quants(x, 16, s, 0, -32, 31, q);
        if (error < best_error) { best_error = error; best = s; }
    }
    return best;
}
static inline void gguf__k6_choose(const float *x, const float *s, gguf__k6 *k) {
    k->error = 0;
    for (int j = 0; j < 16; j++) {
        int sc = k->d != 0 ? gguf__nearest(s[j] / k->d, -128, 127) : 0;
        float best = -1;
        int8_t q[16];
        for (int a = gguf__clamp(sc - 1, -128, 127); a <= gguf__clamp(sc + 1, -128, 127); a++) {
            float error = gguf__quants(x + 16 * j, 16, k->d * (float)a, 0, -32, 31, q);
            if (best >= 0 && !(error < best)) continue;
            best = error;
            k->sc[j] = a;
            memcpy(k->q + 16 * j, q, 16);
        }
        k->error += best;
    }
}
static inline bool gguf__k6_solve(const float *x, gguf__k6 *k) {
    float aa = 0, xa = 0;
    for (int i = 0; i < 256; i++) {
        float a = (float)(k->sc[i / 16] * k->q[i]);
        aa += a * a;
        xa += x[i] * a;
    }
    if (!(aa > 0)) return false;
    k->d = gguf__scale_half(xa / aa);
    return true;
}
static inline void gguf__k6_fit(const float *x, gguf__k6 *best) {
    float s[16], largest = 0, magnitude = 0;
    for (int j = 0; j < 16; j++) {
        s[j] = gguf__fit_scale(x + 16 * j);
        float a = s[j] < 0 ? -s[j] : s[j];
        if (a > magnitude) { magnitude = a; largest = s[j]; }
    }
    gguf__k6 k;
    k.d = gguf__scale_half(largest / -128);
    gguf__k6_choose(x, s, &k);
    *best = k;
    if (!gguf__k6_solve(x, &k)) return;
    gguf__k6_choose(x, s, &k);
    if (k.error < best->error) *best = k;
}
/* 128 bytes of low nibbles, 64 of high pairs, 16 scales, d. */
static inline bool gguf__encode_q6_k(const float *x, uint8_t *p) {
    gguf__k6 k;
    if (!gguf__within(x, 256, 65504.0f * 128 * 32)) return false;
    gguf__k6_fit(x, &k);
    memset(p, 0, 192);
    for (int i = 0; i < 256; i++) {
        int half = i / 128, at = i % 128, q = k.q[i] + 32;
        uint8_t *low = p + 64 * half + at % 64, *high = p + 128 + 32 * half + at % 32;
        *low = (uint8_t)(*low | (q & 15) << 4 * (at / 64));
        *high = (uint8_t)(*high | (q >> 4) << 2 * (at / 32));
    }
    for (int j = 0; j < 16; j++) p[192 + j] = (uint8_t)(k.sc[j] & 255);
    gguf__put_half(p + 208, k.d);
    return gguf__fits_half(k.d);
}

typedef bool (*gguf__encoder)(const float *x, uint8_t *p);

static inline gguf__encoder gguf__encoder_of(tfm_type type) {
    switch (type) {
        case TFM_Q8_0: return gguf__encode_q8_0;
        case TFM_Q4_0: return gguf__encode_q4_0;
        case TFM_Q4_1: return gguf__encode_q4_1;
        case TFM_Q5_0: return gguf__encode_q5_0;
        case TFM_Q5_1: return gguf__encode_q5_1;
        case TFM_Q4_K: return gguf__encode_q4_k;
        case TFM_Q5_K: return gguf__encode_q5_k;
        case TFM_Q6_K: return gguf__encode_q6_k;
        default: return NULL;
    }
}
static inline bool gguf_can_encode(tfm_type type) {
    return type == TFM_F32 || type == TFM_F16 || type == TFM_BF16 || gguf__encoder_of(type);
}
/* Encodes n floats (whole blocks) to dst, at any address. False if some are not finite, or too large
   for the type: F16 and BF16 then hold NaN and infinities, a block of another type is all NaN. */
static inline bool gguf_encode(tfm_type type, const float *src, void *dst, int64_t n) {
    uint8_t *p = (uint8_t *)dst;
    bool good = true;
    if (type == TFM_F32 || type == TFM_F16 || type == TFM_BF16) {
        for (int64_t i = 0; i < n; i++) {
            uint16_t h = type == TFM_F16 ? gguf_f32_to_f16(src[i]) : gguf_f32_to_bf16(src[i]);
            if (type == TFM_F32) memcpy(p + 4 * i, src + i, 4);
            else memcpy(p + 2 * i, &h, 2);
            good &= type == TFM_F16 ? (h & 0x7c00u) != 0x7c00u :
                    type == TFM_BF16 ? (h & 0x7f80u) != 0x7f80u : gguf__finite(src[i]);
        }
        return good;
    }
    gguf__encoder encode = gguf__encoder_of(type);
    if (!encode) return false;
    int block = (int)gguf_type_block(type);
    size_t bytes = (size_t)gguf_type_bytes(type);
    for (int64_t at = 0; at + block <= n; at += block, p += bytes) {
        if (gguf__within(src + at, block, gguf__float(0x7f7fffffu)) && encode(src + at, p)) continue;
        memset(p, 0, bytes);
        gguf__put_half(p + (type == TFM_Q6_K ? 208 : 0), gguf__float(0x7fc00000u));
        good = false;
    }
    return good;
}

#if defined(__clang__)
#pragma float_control(pop)
#elif defined(__GNUC__)
#pragma GCC pop_options
#endif

#endif
