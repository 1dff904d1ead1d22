/* Runs the tests: see test.h. tests_list.h, made by the Makefile from the names of the files
   tests/test_*.c, holds one line SUBJECT(name) for each. */
#include "test.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SUBJECT(name) extern const test_case tests_##name[];
#include "tests_list.h"
#undef SUBJECT

static const struct { const char *name; const test_case *tests; } subjects[] = {
#define SUBJECT(name) { #name, tests_##name },
#include "tests_list.h"
#undef SUBJECT
    { NULL, NULL }
};

bool test_quick;
static bool print_hashes;
static int failures;                    /* of the running test */

static bool failed(const char *file, int line) {
    failures++;
    printf("  %s:%d: ", file, line);
    return false;
}

bool test_check(const char *file, int line, bool held, const char *text) {
    if (held) return true;
    failed(file, line);
    printf("%s\n", text);
    return false;
}

bool test_check_eq(const char *file, int line, long long got, long long want, const char *text) {
    if (got == want) return true;
    failed(file, line);
    printf("%s: %lld, not %lld\n", text, got, want);
    return false;
}

bool test_check_str(const char *file, int line, const char *got, const char *want, const char *text) {
    if (got && want && strcmp(got, want) == 0) return true;
    failed(file, line);
    printf("%s: \"%s\", not \"%s\"\n", text, got ? got : "(null)", want ? want : "(null)");
    return false;
}

bool test_check_contains(const char *file, int line, const char *text, const char *part, const char *name) {
    if (text && strstr(text, part)) return true;
    failed(file, line);
    printf("%s: \"%s\" does not contain \"%s\"\n", name, text ? text : "(null)", part);
    return false;
}

/* rel < 0: the same bits, any NaN for any NaN. */
bool test_check_near(const char *file, int line, const float *got, const float *want, size_t n, double rel,
                     const char *text) {
    if (n > 0 && (!got || !want)) return test_check(file, line, false, text);
    double largest = 0, worst = 0;
    size_t at = n, bad = 0;
    for (size_t i = 0; i < n; i++)
        if (isfinite(want[i]) && fabs((double)want[i]) > largest) largest = fabs((double)want[i]);
    for (size_t i = 0; i < n; i++) {
        if (memcmp(&got[i], &want[i], sizeof(float)) == 0 || (isnan(got[i]) && isnan(want[i]))) continue;
        double off = fabs((double)got[i] - (double)want[i]);       /* NaN or infinite if one side is */
        if (rel >= 0 && off <= rel * largest) continue;
        bad++;
        if (at == n || !(off <= worst)) at = i, worst = off;
    }
    if (bad == 0) return true;
    failed(file, line);
    printf("%s: %zu of %zu differ; worst [%zu]: %.9g, not %.9g", text, bad, n, at, (double)got[at], (double)want[at]);
    if (rel >= 0) printf(" (off by %.3g of %.3g, %.3g allowed)", worst, largest, rel * largest);
    printf("\n");
    return false;
}

void test_hash(const char *name, const void *data, size_t size) {
    uint64_t h = 0xcbf29ce484222325u;
    const unsigned char *bytes = data;
    for (size_t i = 0; i < size; i++) h = (h ^ bytes[i]) * 0x100000001b3u;
    if (print_hashes) printf("hash %s %016" PRIx64 "\n", name, h);
}

unsigned char *test_read(const char *path, size_t *size) {
    FILE *f = fopen(path, "rb");
    long length = -1;
    if (f && fseek(f, 0, SEEK_END) == 0) length = ftell(f);
    unsigned char *data = length >= 0 ? malloc((size_t)length + 1) : NULL;
    if (data) {
        rewind(f);
        *size = fread(data, 1, (size_t)length, f);
        data[*size] = 0;
    }
    if (f) fclose(f);
    if (!data) printf("  %s cannot be read\n", path), failures++;
    return data;
}

uint64_t test_random(uint64_t *state) {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1du;
}

float test_uniform(uint64_t *state) {
    return (float)(test_random(state) >> 40) / 8388608.0f - 1.0f;
}

static bool wanted(const char *name, int count, char **parts) {
    bool any = count == 0;
    for (int i = 0; i < count; i++) any = any || strstr(name, parts[i]);
    return any;
}

int main(int argc, char **argv) {
    bool list = false;
    int parts = 0, passed = 0, lost = 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--quick") == 0) test_quick = true;
        else if (strcmp(argv[i], "--hash") == 0) print_hashes = true;
        else if (strcmp(argv[i], "--list") == 0) list = true;
        else if (argv[i][0] == '-') return fprintf(stderr, "tests: unknown option %s\n", argv[i]), 2;
        else argv[parts++] = argv[i];
    }
    for (int s = 0; subjects[s].name; s++) {
        for (const test_case *t = subjects[s].tests; t->name; t++) {
            char name[200];
            snprintf(name, sizeof name, "%s.%s", subjects[s].name, t->name);
            if ((test_quick && t->speed != QUICK) || !wanted(name, parts, argv)) continue;
            if (list) { puts(name); continue; }
            failures = 0;
            t->run();
            printf("%s %s\n", failures ? "FAIL" : "ok", name);
            fflush(stdout);
            if (failures) lost++; else passed++;
        }
    }
    if (!list) printf("%d passed, %d failed\n", passed, lost);
    return lost > 0 || (!list && passed == 0);
}
