/* json.h - reads JSON (RFC 8259) into a tree, for the tools. Include it after, or instead of, a plain
   include of tfm.h.

       json_document d;
       if (!json_read(&d, text, size))                     // size bytes and a NUL after them
           cli_fail("%s: line %zu: %s", path, d.line, d.error);
       const json *name = json_get(json_get(d.root, "model"), "type");
       if (json_is(name, "BPE")) ...
       json_free(&d);                                      // and then text, which is the caller's

   The reader is strict: no comments, no trailing commas, no NaN, valid UTF-8 only, no key twice in
   an object, nothing after the value. Strings are decoded where they stand in the text, so that the tree
   costs 56 bytes a value: a vocabulary of 17 MB with 1.5 million values takes 100 MB, its text
   included. Numbers stay as they are written until someone asks for a double or an integer. All
   functions on values take NULL for "not there". */
#ifndef JSON_H
#define JSON_H

#include "tfm.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define JSON_DEPTH 100                  /* arrays and objects inside one another, at most */

typedef enum json_kind { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT } json_kind;

typedef struct json json;
struct json {
    json_kind kind;
    bool truth;                         /* of JSON_BOOL */
    tfm_string key;                     /* in an object; a NUL follows it */
    const json *next;                   /* in the same array or object; NULL: the last */
    union {
        tfm_string text;                /* of a string, decoded, a NUL behind it; of a number as it is written */
        struct {
            const json *first;          /* json_first() asks for the kind, too */
            const json **sorted;        /* an object's members by key */
            size_t count;
        } list;
    } as;
};

typedef struct json_block json_block;
typedef struct json_document {
    const json *root;
    const char *error;                  /* NULL: none */
    size_t line, byte;                  /* of the error: counted from 1, from 0 */
    char *begin, *at, *end;             /* the text, how far it is read */
    json_block *blocks;                 /* memory of the tree */
} json_document;

/* ---- Memory: blocks that are freed together ---- */

struct json_block { json_block *next; size_t used, size; };

static inline void *json__alloc(json_document *d, size_t size) {
    json_block *b = d->blocks;
    if (!b || b->size - b->used < size) {
        size_t room = size > 65536 - sizeof *b ? size : 65536 - sizeof *b;
        b = (json_block *)malloc(sizeof *b + room);
        if (!b) return NULL;
        b->next = d->blocks;
        b->used = 0;
        b->size = room;
        d->blocks = b;
    }
    b->used += size;
    return (char *)(b + 1) + b->used - size;
}
static inline void json_free(json_document *d) {
    for (json_block *b = d->blocks, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    memset(d, 0, sizeof *d);
}

/* ---- Reading. The reader stops at its first error, which json__fail keeps with its place. ---- */

static inline bool json__fail(json_document *d, const char *error) {
    if (d->error) return false;
    d->error = error;
    d->byte = (size_t)(d->at - d->begin);
    return false;
}
static inline bool json__take(json_document *d, char c) {
    if (d->at == d->end || *d->at != c) return false;
    d->at++;
    return true;
}
static inline void json__space(json_document *d) {         /* only here a line can end */
    for (; d->at < d->end && (*d->at == ' ' || *d->at == '\t' || *d->at == '\r' || *d->at == '\n'); d->at++)
        d->line += *d->at == '\n';
}
static inline bool json__word(json_document *d, json *v, const char *word, json_kind kind) {
    size_t n = strlen(word);
    if ((size_t)(d->end - d->at) < n || memcmp(d->at, word, n) != 0) return json__fail(d, "not a JSON value");
    d->at += n;
    v->kind = kind;
    v->truth = word[0] == 't';
    return true;
}

static inline int json__digits(json_document *d) {
    int n = 0;
    for (; d->at < d->end && *d->at >= '0' && *d->at <= '9'; d->at++) n = 1;
    return n;
}
static inline bool json__number(json_document *d, json *v) {
    char *begin = d->at;
    json__take(d, '-');
    bool ok = json__take(d, '0') || json__digits(d);
    if (ok && json__take(d, '.')) ok = json__digits(d);
    if (ok && (json__take(d, 'e') || json__take(d, 'E'))) {
        if (!json__take(d, '+')) json__take(d, '-');
        ok = json__digits(d);
    }
    v->kind = JSON_NUMBER;
    v->as.text.data = begin;
    v->as.text.size = (size_t)(d->at - begin);
    return ok || json__fail(d, "not a JSON value");
}

/* Bytes of the UTF-8 character at s; 0: not one (too long a spelling and surrogates included). */
static inline size_t json__utf8(const char *s, const char *end) {
    const unsigned char *p = (const unsigned char *)s;
    size_t n = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf5 ? 4 : 0;
    if ((size_t)(end - s) < n) return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80) return 0;
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f)) return 0;
    return (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f) ? 0 : n;
}
static inline long json__hex4(json_document *d) {
    static const char digits[] = "0123456789abcdef";
    long code = 0;
    for (int i = 0; i < 4; i++) {
        char c = d->at < d->end ? *d->at : 0;
        const char *found = c ? strchr(digits, c >= 'A' && c <= 'F' ? c - 'A' + 'a' : c) : NULL;
        if (!found) return -1;
        code = code << 4 | (long)(found - digits);
        d->at++;
    }
    return code;
}
/* Writes a character; returns where the next one goes. */
static inline char *json__put(char *out, long code) {
    unsigned lead = code < 0x80 ? 0 : code < 0x800 ? 0xc0 : code < 0x10000 ? 0xe0 : 0xf0;
    int more = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    *out++ = (char)(lead | (unsigned)(code >> 6 * more));
    while (more-- > 0) *out++ = (char)(0x80u | (unsigned)(code >> 6 * more & 0x3f));
    return out;
}
/* What follows a backslash; NULL after an error. No escape is shorter than what it stands for.
   A pair of surrogates is one character, a lone one U+FFFD. */
static inline char *json__escape(json_document *d, char *out) {
    char c = d->at < d->end ? *d->at : 0;
    const char *found = c && c != 'u' && c > 31 ? strchr("\"\"\\\\//b\bf\fn\nr\rt\t", c) : NULL;
    if (found) {
        *out = found[1];
        d->at++;
        return out + 1;
    }
    if (!json__take(d, 'u')) { json__fail(d, "an unknown escape in a string"); return NULL; }
    long code = json__hex4(d);
    if (code >= 0xd800 && code < 0xdc00 && d->end - d->at >= 6 && d->at[0] == '\\' && d->at[1] == 'u') {
        char *before = d->at;
        d->at += 2;
        long low = json__hex4(d);
        if (low >= 0xdc00 && low < 0xe000) code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
        else d->at = before;
    }
    if (code < 0) { json__fail(d, "\\u without four hexadecimal digits"); return NULL; }
    return json__put(out, code >= 0xd800 && code < 0xe000 ? 0xfffd : code);
}
static inline bool json__string(json_document *d, tfm_string *s) {
    if (!json__take(d, '"')) return json__fail(d, "a string is missing");
    char *begin = d->at, *out = begin;
    while (d->at < d->end && *d->at != '"') {
        if ((unsigned char)*d->at < 32) return json__fail(d, "a control character in a string");
        if (json__take(d, '\\')) {
            if (!(out = json__escape(d, out))) return false;
            continue;
        }
        size_t n = json__utf8(d->at, d->end);
        if (n == 0) return json__fail(d, "a string is not UTF-8");
        while (n-- > 0) *out++ = *d->at++;
    }
    if (!json__take(d, '"')) return json__fail(d, "a string without an end");
    *out = 0;
    s->data = begin;
    s->size = (size_t)(out - begin);
    return true;
}

static inline int json__compare(tfm_string a, tfm_string b) {
    int order = memcmp(a.data, b.data, a.size < b.size ? a.size : b.size);
    return order ? order : (a.size > b.size) - (a.size < b.size);
}
static inline int json__by_key(const void *a, const void *b) {
    return json__compare((*(const json *const *)a)->key, (*(const json *const *)b)->key);
}
static inline bool json__sort(json_document *d, json *object) {
    size_t n = object->as.list.count, i = 0;
    const json **sorted = (const json **)json__alloc(d, n * sizeof *sorted);
    if (!sorted) return json__fail(d, "out of memory");
    for (const json *v = object->as.list.first; v; v = v->next) sorted[i++] = v;
    qsort((void *)sorted, n, sizeof *sorted, json__by_key);
    for (i = 1; i < n; i++)
        if (json__by_key(&sorted[i - 1], &sorted[i]) == 0) return json__fail(d, "an object has a key twice");
    object->as.list.sorted = sorted;
    return true;
}

static inline bool json__value(json_document *d, json *v, int depth);

static inline bool json__list(json_document *d, json *list, char close, int depth) {
    const json **link = &list->as.list.first;
    bool object = close == '}';
    list->kind = object ? JSON_OBJECT : JSON_ARRAY;
    d->at++;
    json__space(d);
    if (json__take(d, close)) return true;
    do {
        json *v = (json *)json__alloc(d, sizeof *v);
        if (!v) return json__fail(d, "out of memory");
        memset(v, 0, sizeof *v);
        json__space(d);
        if (object && !json__string(d, &v->key)) return false;
        json__space(d);
        if (object && !json__take(d, ':')) return json__fail(d, "a : is missing");
        if (!json__value(d, v, depth + 1)) return false;
        *link = v;
        link = &v->next;
        list->as.list.count++;
        json__space(d);
    } while (json__take(d, ','));
    if (!json__take(d, close)) return json__fail(d, object ? "a , or } is missing" : "a , or ] is missing");
    return !object || json__sort(d, list);
}
static inline bool json__value(json_document *d, json *v, int depth) {
    json__space(d);
    if (depth > JSON_DEPTH) return json__fail(d, "arrays and objects nest more than 100 deep");
    switch (d->at < d->end ? *d->at : 0) {
        case '"': v->kind = JSON_STRING; return json__string(d, &v->as.text);
        case '{': return json__list(d, v, '}', depth);
        case '[': return json__list(d, v, ']', depth);
        case 't': return json__word(d, v, "true", JSON_BOOL);
        case 'f': return json__word(d, v, "false", JSON_BOOL);
        case 'n': return json__word(d, v, "null", JSON_NULL);
        default: return json__number(d, v);
    }
}

/* Reads `size` bytes, behind which a byte 0 stands; they are changed, and must stay as long as the tree.
   After an error d holds it, and no tree. */
static inline bool json_read(json_document *d, char *text, size_t size) {
    memset(d, 0, sizeof *d);
    d->line = 1;
    d->begin = d->at = text;
    d->end = text + size;
    json *root = (json *)json__alloc(d, sizeof *root);
    if (!root) return json__fail(d, "out of memory");
    memset(root, 0, sizeof *root);
    bool ok = json__value(d, root, 0);
    json__space(d);
    if (ok && d->at < d->end) ok = json__fail(d, "something follows the value");
    if (ok) {
        d->root = root;
        return true;
    }
    json_document failed = *d;
    json_free(d);
    d->error = failed.error;
    d->line = failed.line;
    d->byte = failed.byte;
    return false;
}

/* ---- Values ---- */

/* The first of an array or object; NULL: it is none, or empty. for (v = json_first(a); v; v = v->next) */
static inline const json *json_first(const json *v) {
    return v && (v->kind == JSON_ARRAY || v->kind == JSON_OBJECT) ? v->as.list.first : NULL;
}
static inline size_t json_count(const json *v) {           /* elements or members; 0 of other values */
    return v && (v->kind == JSON_ARRAY || v->kind == JSON_OBJECT) ? v->as.list.count : 0;
}
/* The member of an object; NULL: not there, or v is no object. */
static inline const json *json_get_string(const json *v, tfm_string key) {
    size_t low = 0, high = v && v->kind == JSON_OBJECT ? v->as.list.count : 0;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = json__compare(key, v->as.list.sorted[middle]->key);
        if (order == 0) return v->as.list.sorted[middle];
        if (order < 0) high = middle;
        else low = middle + 1;
    }
    return NULL;
}
static inline const json *json_get(const json *v, const char *key) {
    tfm_string k = { key, strlen(key) };
    return json_get_string(v, k);
}
static inline const json *json_at(const json *v, size_t index) {   /* of an array or object; NULL: past its end */
    const json *e = json_first(v);
    while (e && index-- > 0) e = e->next;
    return e;
}
/* The text of a string, with a NUL after it (it may hold one, too: as.text.size tells); NULL: no string. */
static inline const char *json_text(const json *v) { return v && v->kind == JSON_STRING ? v->as.text.data : NULL; }

static inline bool json_is(const json *v, const char *text) {
    return v && v->kind == JSON_STRING && v->as.text.size == strlen(text) && strcmp(v->as.text.data, text) == 0;
}
static inline bool json_true(const json *v) { return v && v->kind == JSON_BOOL && v->truth; }

/* A number that a double can hold. What follows its digits in the text ends them for strtod. */
static inline bool json_double(const json *v, double *out) {
    if (!v || v->kind != JSON_NUMBER) return false;
    *out = strtod(v->as.text.data, NULL);
    return isfinite(*out);
}
/* A whole number, exactly: digits, or a fraction of zeros or an exponent below 2^53. */
static inline bool json_int(const json *v, int64_t *out) {
    if (!v || v->kind != JSON_NUMBER) return false;
    const char *p = v->as.text.data, *end = p + v->as.text.size;
    bool negative = *p == '-';
    int64_t n = 0;                      /* below zero, where there is one number more */
    for (p += negative; p < end && *p >= '0' && *p <= '9'; p++) {
        if (n < (INT64_MIN + (*p - '0')) / 10) return false;
        n = n * 10 - (*p - '0');
    }
    double d = 0;
    if (p < end) {
        if (!json_double(v, &d) || fabs(d) >= 9007199254740992.0 || floor(d) != d) return false;
        *out = (int64_t)d;
        return true;
    }
    if (n == INT64_MIN && !negative) return false;
    *out = negative ? n : -n;
    return true;
}

#endif
