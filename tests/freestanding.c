/* freestanding - examples/firmware.c without any C library: what the header needs is below, the
   whole of it. Also: the sizes that the header reports suffice to the byte.
   cc -O2 -I. -ffreestanding -fno-stack-protector -nostdlib -static -DFIRMWARE_BOARD tests/freestanding.c -lgcc
   Linux on x86-64 or AArch64; stdout is that of firmware.c elsewhere. */
#include <stdbool.h>
#include <stddef.h>
static bool board_write(int where, const char *text, size_t size);
#include "examples/firmware.c"

/* ---- What a C library would bring ---- */

#define KEEP __asm__ volatile("" : : : "memory")           /* else the compiler makes the loop a call of itself */

void *memcpy(void *restrict to, const void *restrict from, size_t n) {
    for (size_t i = 0; i < n; i++) { ((char *)to)[i] = ((const char *)from)[i]; KEEP; }
    return to;
}
void *memmove(void *to, const void *from, size_t n) {
    if ((uintptr_t)to <= (uintptr_t)from) return memcpy(to, from, n);
    for (size_t i = n; i-- > 0;) { ((char *)to)[i] = ((const char *)from)[i]; KEEP; }
    return to;
}
void *memset(void *to, int value, size_t n) {
    for (size_t i = 0; i < n; i++) { ((char *)to)[i] = (char)value; KEEP; }
    return to;
}
int memcmp(const void *a, const void *b, size_t n) {
    for (size_t i = 0; i < n; i++) {
        int d = ((const unsigned char *)a)[i] - ((const unsigned char *)b)[i];
        if (d) return d;
    }
    return 0;
}
void *memchr(const void *s, int value, size_t n) {
    const unsigned char *p = (const unsigned char *)s;
    for (size_t i = 0; i < n; i++) if (p[i] == (unsigned char)value) return (void *)(uintptr_t)(p + i);
    return NULL;
}
size_t strlen(const char *s) {
    size_t n = 0;
    for (; s[n]; n++) KEEP;
    return n;
}

#if defined(__x86_64__)
float sqrtf(float y) { __asm__("sqrtss %0, %0" : "+x"(y)); return y; }
double sqrt(double y) { __asm__("sqrtsd %0, %0" : "+x"(y)); return y; }
static long system_call(long number, long a, long b, long c) {
    __asm__ volatile("syscall" : "+a"(number) : "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return number;
}
enum { SYSTEM_WRITE = 1, SYSTEM_EXIT = 60 };
__asm__(".globl _start\n_start: xor %ebp, %ebp\n and $-16, %rsp\n call start\n");
#elif defined(__aarch64__)
float sqrtf(float y) { __asm__("fsqrt %s0, %s0" : "+w"(y)); return y; }
double sqrt(double y) { __asm__("fsqrt %d0, %d0" : "+w"(y)); return y; }
static long system_call(long number, long a, long b, long c) {
    register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
    return x0;
}
enum { SYSTEM_WRITE = 64, SYSTEM_EXIT = 93 };
__asm__(".globl _start\n_start: bl start\n");
#else
#error "freestanding.c: no system calls written for this machine"
#endif

static bool board_write(int where, const char *text, size_t size) {
    return system_call(SYSTEM_WRITE, where, (long)(uintptr_t)text, (long)size) == (long)size;
}

/* ---- Exactly the reported size suffices, one byte fewer is an error, none more is touched ---- */

static bool good = true;

static void check(bool condition, const char *what) {
    if (!condition) put(FIGURES, "freestanding: "), put(FIGURES, what), put(FIGURES, "\n");
    good &= condition;
}
static void fill(size_t from) { memset(memory + from, 0xa5, MEMORY - from); }
static bool untouched(size_t from) {
    while (from < MEMORY && memory[from] == 0xa5) from++;
    return from == MEMORY;
}

static void check_sizes(void) {
    static tfm_error err;
    tfm_session_opts so = { .context = 40, .batch = 8, .threads = 1, .prompt_bytes = 32 };
    tfm_generate_opts go = { .max_tokens = 23, .ignore_end = true, .sampling = { .temperature = 1, .top_p = 0.9f } };
    size_t a = tfm_model_size(firmware_model, MODEL_SIZE, &err);
    fill(0);
    check(!tfm_model_in(firmware_model, MODEL_SIZE, memory, a - 1, &err) && err.status == TFM_MEMORY, "a model in one byte too few");
    check(untouched(0), "a refused model wrote something");
    tfm_model *m = tfm_model_in(firmware_model, MODEL_SIZE, memory, a, &err);
    check(m && untouched(a), "a model in its size");

    size_t b = tfm_session_size(m, &so, NULL, &err);
    check(!tfm_session_in(m, &so, memory + a, b - 1, &err) && err.status == TFM_MEMORY, "a session in one byte too few");
    check(untouched(a), "a refused session wrote something");
    tfm_session *s = tfm_session_in(m, &so, memory + a, b, &err);
    check(s && untouched(a + b), "a session in its size");
    check(tfm_generate(s, "the longest prompt that it takes", &go, NULL, NULL) != TFM_FINISH_ERROR, "the longest prompt");
    while (tfm_position(s) < tfm_session_capacity(s) && good) {        /* to the last position, in batches of all sizes */
        int32_t ids[9] = { 1, 2, 3, 4, 5, 6, 7, 8, 9 };
        int64_t n = tfm_session_capacity(s) - tfm_position(s);
        check(tfm_eval(s, ids, n < 9 ? n : 9) == TFM_OK, "the whole context");
    }
    check(untouched(a + b), "a session passed its size");
    tfm_session_free(s);
    tfm_model_free(m);

    tfm_context_opts o = { .arena = 0 };
    a = tfm_context_size(&o);
    fill(0);
    check(!tfm_context_in(memory, a - 1, &o, &err) && err.status == TFM_MEMORY, "a context in one byte too few");
    check(untouched(0), "a refused context wrote something");
    tfm_context *c = tfm_context_in(memory, a + 256, &o, &err);        /* run_attention takes 64, run_lstm more */
    check(c && run_attention(c).data, "an attention in 256 bytes");
    check(tfm_zeros(c, tfm_shape1(48)).data && !tfm_zeros(c, tfm_shape1(1)).data, "the last byte of an arena, and the next");
    check(untouched(a + 256), "a context passed its size");
}

__attribute__((used, noreturn)) void start(void) {
    check_sizes();
    int status = main();
    for (;;) system_call(SYSTEM_EXIT, good ? status : 1, 0, 0);
}
