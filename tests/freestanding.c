/* freestanding - examples/firmware.c without any C library: what the header needs is below, the
   whole of it. Also: the sizes that the header reports suffice to the byte.
   cc -O2 -I. -ffreestanding -fno-stack-protector -nostdlib -static tests/freestanding.c -lgcc
   Linux on x86-64 or AArch64; stdout is that of firmware.c elsewhere. */
#include <stdbool.h>
#include <stddef.h>
#define FIRMWARE_BOARD
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

static tfm_error err;

static size_t check_model(tfm_model **m) {                 /* the bytes it takes of memory */
    size_t size = tfm_model_size(firmware_model, MODEL_SIZE, &err);
    fill(0);
    *m = tfm_model_in(firmware_model, MODEL_SIZE, memory, size - 1, &err);
    check(!*m && err.status == TFM_MEMORY, "a model in one byte too few");
    check(untouched(0), "a refused model wrote something");
    *m = tfm_model_in(firmware_model, MODEL_SIZE, memory, size, &err);
    check(*m && untouched(size), "a model in its size");
    return size;
}
static void check_session(const tfm_model *m, size_t from) {
    tfm_session_opts so = { .context = 40, .batch = 8, .threads = 1, .prompt_bytes = 32 };
    tfm_generate_opts go = { .max_tokens = 23, .ignore_end = true, .sampling = { .temperature = 1, .top_p = 0.9f } };
    int32_t ids[9] = { 1, 2, 3, 4, 5, 6, 7, 8, 9 };
    size_t size = tfm_session_size(m, &so, NULL, &err);
    tfm_session *s = tfm_session_in(m, &so, memory + from, size - 1, &err);
    check(!s && err.status == TFM_MEMORY, "a session in one byte too few");
    check(untouched(from), "a refused session wrote something");
    s = tfm_session_in(m, &so, memory + from, size, &err);
    check(s && untouched(from + size), "a session in its size");
    tfm_finish finish = tfm_generate(s, "the longest prompt that it takes", &go, NULL, NULL);
    check(finish != TFM_FINISH_ERROR, "the longest prompt");
    while (tfm_position(s) < tfm_session_capacity(s) && good) {        /* to the last position */
        int64_t n = tfm_session_capacity(s) - tfm_position(s);
        check(tfm_eval(s, ids, n < 9 ? n : 9) == TFM_OK, "the whole context");
    }
    check(untouched(from + size), "a session passed its size");
    tfm_session_free(s);
}
static void check_context(void) {
    size_t size = tfm_context_size(NULL);
    fill(0);
    tfm_context *c = tfm_context_in(memory, size - 1, NULL, &err);
    check(!c && err.status == TFM_MEMORY, "a context in one byte too few");
    check(untouched(0), "a refused context wrote something");
    c = tfm_context_in(memory, size + 640, NULL, &err);
    check(c && run_attention(c).data, "an attention in 640 bytes");
    check(tfm_zeros(c, tfm_shape1(144)).data && tfm_status_of(c) == TFM_OK, "the last byte of an arena");
    check(!tfm_zeros(c, tfm_shape1(1)).data && tfm_status_of(c) == TFM_MEMORY, "a byte more");
    check(untouched(size + 640), "a context passed its size");
}

__attribute__((used, noreturn)) void start(void) {
    tfm_model *m;
    size_t size = check_model(&m);
    check_session(m, size);
    check_context();
    int status = main();
    for (;;) system_call(SYSTEM_EXIT, good ? status : 1, 0, 0);
}
