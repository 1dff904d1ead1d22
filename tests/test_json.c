/* tools/json.h: what it takes, what it refuses and where. */
#include "test.h"
#include "json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Reads a text that need not be kept; *room holds it afterwards. */
static bool reads(json_document *d, char *room, size_t size, const char *text) {
    snprintf(room, size, "%s", text);
    return json_read(d, room, strlen(room));
}

static void values(void) {
    char room[512];
    json_document d;
    int64_t n = 0;
    double x = 0;
    CHECK(reads(&d, room, sizeof room, " {\"a\": [1, -2.5e+3, {\"b\": {}}, null, true, []],\n \"c\": \"\"} "));
    const json *a = json_get(d.root, "a");
    CHECK(json_count(d.root) == 2 && json_count(a) == 6 && json_count(json_at(a, 5)) == 0);
    CHECK(json_int(json_at(a, 0), &n) && n == 1);
    CHECK(json_double(json_at(a, 1), &x) && x == -2500);
    CHECK(json_int(json_at(a, 1), &n) && n == -2500);
    CHECK(json_at(a, 2)->kind == JSON_OBJECT && json_get(json_at(a, 2), "b")->kind == JSON_OBJECT);
    CHECK(json_at(a, 3)->kind == JSON_NULL && json_true(json_at(a, 4)) && !json_at(a, 6));
    CHECK(json_is(json_get(d.root, "c"), "") && !json_get(d.root, "b") && !json_get(a, "a") && !json_get(NULL, "a"));
    CHECK(!json_text(a) && !json_int(a, &n) && !json_double(NULL, &x) && !json_first(NULL));
    json_free(&d);
}

static void numbers(void) {
    static const struct { const char *text; bool whole; int64_t value; } cases[] = {
        { "0", true, 0 }, { "-0", true, 0 }, { "9223372036854775807", true, INT64_MAX },
        { "-9223372036854775808", true, INT64_MIN }, { "9223372036854775808", false, 0 },
        { "-9223372036854775809", false, 0 }, { "10000.0", true, 10000 }, { "1e6", true, 1000000 },
        { "0.5", false, 0 }, { "1e300", false, 0 }, { "1e999", false, 0 }
    };
    char room[64];
    json_document d;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t n = 0;
        CHECK(reads(&d, room, sizeof room, cases[i].text));
        CHECK(json_int(d.root, &n) == cases[i].whole && n == cases[i].value);
        CHECK(d.root->as.text.size == strlen(cases[i].text));
        json_free(&d);
    }
}

static void strings(void) {
    static const char want[] = "\"\\/\b\f\n\r\t \xc3\xa9 \xf0\x9f\x98\x80 \xef\xbf\xbd \xef\xbf\xbd" "A\0z";
    char room[256];
    json_document d;
    CHECK(reads(&d, room, sizeof room,
                "\"\\\"\\\\\\/\\b\\f\\n\\r\\t \\u00e9 \\uD83d\\ude00 \\ud83d \\udc00\\u0041\\u0000z\""));
    CHECK(d.root && d.root->as.text.size == sizeof want - 1);
    CHECK(d.root && memcmp(d.root->as.text.data, want, sizeof want) == 0);
    json_free(&d);
}

static void refused(void) {
    static const struct { const char *text, *error; size_t line, byte; } cases[] = {
        { "", "not a JSON value", 1, 0 }, { "[1,]", "not a JSON value", 1, 3 }, { "[01]", "] is missing", 1, 2 },
        { "[1", "] is missing", 1, 2 }, { "{\"a\" 1}", ": is missing", 1, 5 }, { "{a: 1}", "a string is missing", 1, 1 },
        { "{\"a\":1,\n\"b\":2,\n\"a\":3}", "a key twice", 3, 21 }, { "[\n\"\\n\\n\",\nnul]", "not a JSON value", 3, 10 },
        { "1 2", "something follows", 1, 2 }, { "NaN", "not a JSON value", 1, 0 }, { "\"a", "without an end", 1, 2 },
        { "\"\\x\"", "unknown escape", 1, 2 }, { "\"\\u12g4\"", "four hexadecimal", 1, 5 },
        { "\"\x01\"", "control character", 1, 1 }, { "\"\xff\"", "UTF-8", 1, 1 }, { "\"\xc0\x80\"", "UTF-8", 1, 1 },
        { "\"\xed\xa0\x80\"", "UTF-8", 1, 1 }, { "\"\xf4\x90\x80\x80\"", "UTF-8", 1, 1 }, { "\"\xe2\x82", "UTF-8", 1, 1 },
        { "-", "not a JSON value", 1, 1 }, { "1.", "not a JSON value", 1, 2 }, { "1e", "not a JSON value", 1, 2 }
    };
    char room[256];
    json_document d;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        CHECK(!reads(&d, room, sizeof room, cases[i].text) && !d.root);
        CHECK(d.error && strstr(d.error, cases[i].error) && d.line == cases[i].line && d.byte == cases[i].byte);
    }
    memset(room, '[', sizeof room - 1);
    room[sizeof room - 1] = 0;
    CHECK(!json_read(&d, room, sizeof room - 1) && d.error && strstr(d.error, "nest"));
}

/* Many members, in no order: each is found, a key twice among them is seen. */
static void large(void) {
    enum { COUNT = 20000 };
    size_t size = 0;
    char *text = malloc(COUNT * 24), key[24];
    json_document d;
    if (!text) return;
    for (int i = 0; i < COUNT; i++)
        size += (size_t)snprintf(text + size, 24, "%c\"%d\":%d", i ? ',' : '{', (i * 7919) % COUNT, i);
    memcpy(text + size, "}", 2);
    CHECK(json_read(&d, text, size + 1) && json_count(d.root) == COUNT);
    int found = 0;
    for (int i = 0; i < COUNT; i++) {
        int64_t n;
        snprintf(key, sizeof key, "%d", (i * 7919) % COUNT);
        found += json_int(json_get(d.root, key), &n) && n == i;
    }
    CHECK(found == COUNT);
    json_free(&d);
    free(text);
}

const test_case tests_json[] = {
    { "values", values, QUICK },
    { "numbers", numbers, QUICK },
    { "strings", strings, QUICK },
    { "refused", refused, QUICK },
    { "large", large, QUICK },
    { NULL, NULL, SLOW }
};
