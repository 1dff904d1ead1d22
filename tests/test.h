/* test.h - the checks that the tests are written with; tests/main.c runs them.

   A subject is one file, tests/test_SUBJECT.c, that exports one table:

       #include "test.h"
       #include "tfm.h"

       static void slice_keeps_strides(void) {
           CHECK(x.rank == 2);                          // goes on after a failure
           CHECK_EQ(x.dim[0], 3);                       // integers; prints both
           CHECK_STR(err.message, "no such file");      // strings
           CHECK_NEAR(got, want, n, 1e-5);              // floats; of the largest |want|
           CHECK_SAME(got, want, n);                    // floats; every bit (NaN is NaN)
       }
       const test_case tests_SUBJECT[] = {              // QUICK: also with --quick
           { "slice_keeps_strides", slice_keeps_strides, QUICK },
           { "slices_of_every_type", slices_of_every_type, SLOW },
           { NULL, NULL, SLOW } };

   The Makefile finds the file by its name. Tests run in the repository's root, so fixtures are
   "tests/data/NAME"; test_read reads one. The runner: build/tests [--quick] [--hash] [--list]
   [NAME...] where NAME is part of "SUBJECT.test". Under valgrind or qemu --quick must end soon:
   a test may look at test_quick and do less. test_hash gives figures that must be the same in
   every build; `make check` compares them. */
#ifndef TEST_H
#define TEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum test_speed { SLOW, QUICK } test_speed;
typedef struct test_case { const char *name; void (*run)(void); test_speed speed; } test_case;

extern bool test_quick;                 /* --quick was given */

/* These return whether the check held, so that a test can stop where going on makes no sense:
   if (!CHECK(s != NULL)) return; */
#define CHECK(condition) test_check(__FILE__, __LINE__, (condition) ? true : false, #condition)
#define CHECK_EQ(got, want) \
    test_check_eq(__FILE__, __LINE__, (long long)(got), (long long)(want), #got " == " #want)
#define CHECK_STR(got, want) test_check_str(__FILE__, __LINE__, (got), (want), #got)
#define CHECK_CONTAINS(text, part) test_check_contains(__FILE__, __LINE__, (text), (part), #text)
#define CHECK_NEAR(got, want, n, rel) \
    test_check_near(__FILE__, __LINE__, (got), (want), (size_t)(n), (rel), #got)
#define CHECK_SAME(got, want, n) test_check_near(__FILE__, __LINE__, (got), (want), (size_t)(n), -1.0, #got)

bool test_check(const char *file, int line, bool held, const char *text);
bool test_check_eq(const char *file, int line, long long got, long long want, const char *text);
bool test_check_str(const char *file, int line, const char *got, const char *want, const char *text);
bool test_check_contains(const char *file, int line, const char *text, const char *part, const char *name);
bool test_check_near(const char *file, int line, const float *got, const float *want, size_t n, double rel,
                     const char *text);

/* With --hash prints "hash NAME 0123456789abcdef" (FNV-1a of the bytes). */
void test_hash(const char *name, const void *data, size_t size);

/* The whole file in malloc'd memory, with a NUL after its end; a failed check and NULL if it
   cannot be read. */
unsigned char *test_read(const char *path, size_t *size);

/* A repeatable generator (xorshift64*): state is any number but 0. */
uint64_t test_random(uint64_t *state);
float    test_uniform(uint64_t *state);                    /* in [-1, 1) */

#endif
