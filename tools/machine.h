/* machine.h - what a machine can do at most: plain reads of memory and arithmetic, for bench to
   compare with. Include it after cli.h.

   A plain read takes a buffer in address order, each thread its own share, by vector loads. The
   arithmetic is a loop of independent chains that never leave the registers: multiply-add of f32,
   and products of bytes summed in 32 bits, as the kernels for quantized weights use them. */
#ifndef MACHINE_H
#define MACHINE_H

#include "tools/cli.h"

#ifndef TFM_NO_THREADS
#include <pthread.h>
#endif

#if defined(__x86_64__) && ((defined(__GNUC__) && __GNUC__ >= 11) || (defined(__clang__) && __clang_major__ >= 12))
#define MACHINE_X86 1
#include <cpuid.h>
#include <immintrin.h>
#else
#define MACHINE_X86 0
#endif

/* ---- Threads ---- */

typedef struct machine_worker {
    void (*work)(struct machine_worker *w);
    const uint8_t *data;                /* of a read: a multiple of 256 bytes */
    size_t size;
    uint64_t result;                    /* so that no compiler leaves the work out */
    double begin, end;
} machine_worker;

enum { MACHINE_THREADS = 256 };

static inline void *machine__thread(void *arg) {
    machine_worker *w = arg;
    w->begin = cli_seconds();
    w->work(w);
    w->end = cli_seconds();
    return NULL;
}
/* Seconds from the first begin to the last end. */
static inline double machine__run(machine_worker *workers, int threads) {
#ifndef TFM_NO_THREADS
    pthread_t handles[MACHINE_THREADS];
    for (int i = 1; i < threads; i++)
        if (pthread_create(&handles[i], NULL, machine__thread, &workers[i]) != 0)
            cli_fail("cannot start %d threads", threads);
#endif
    machine__thread(&workers[0]);
    for (int i = 1; i < threads; i++)
#ifndef TFM_NO_THREADS
        pthread_join(handles[i], NULL);
#else
        machine__thread(&workers[i]);
#endif
    double begin = workers[0].begin, end = workers[0].end;
    for (int i = 1; i < threads; i++) {
        if (workers[i].begin < begin) begin = workers[i].begin;
        if (workers[i].end > end) end = workers[i].end;
    }
    return end - begin;
}

/* ---- Levels ---- */

typedef enum machine_level {            /* named as tfm_level_name does, but for the first */
    MACHINE_C, MACHINE_AVX2, MACHINE_AVXVNNI, MACHINE_AVX512, MACHINE_AVX512VNNI, MACHINE_LEVELS
} machine_level;

static const char *const machine_level_names[MACHINE_LEVELS] = { "C", "avx2", "avxvnni", "avx512", "avx512vnni" };

static inline bool machine_has(machine_level level) {
    if (level == MACHINE_C) return true;
#if MACHINE_X86
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return false;
    if (level == MACHINE_AVX2) return true;
    if (level == MACHINE_AVXVNNI) return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1 << 4);
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw")) return false;
    if (level == MACHINE_AVX512) return true;
    return __builtin_cpu_supports("avx512vnni");
#else
    return false;
#endif
}

/* ---- Plain reads ---- */

static inline void machine__read_c(machine_worker *w) {
    const uint64_t *p = (const uint64_t *)(const void *)w->data, *end = p + w->size / 8;
    uint64_t a = 0, b = 0, c = 0, d = 0;
    for (; p < end; p += 8) {
        a |= p[0] | p[4];
        b |= p[1] | p[5];
        c |= p[2] | p[6];
        d |= p[3] | p[7];
    }
    w->result = a | b | c | d;
}
#if MACHINE_X86
__attribute__((target("avx2"))) static inline void machine__read_avx2(machine_worker *w) {
    const __m256i *p = (const __m256i *)(const void *)w->data, *end = p + w->size / 32;
    __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
    for (; p < end; p += 8) {
        a = _mm256_or_si256(a, _mm256_or_si256(_mm256_loadu_si256(p), _mm256_loadu_si256(p + 4)));
        b = _mm256_or_si256(b, _mm256_or_si256(_mm256_loadu_si256(p + 1), _mm256_loadu_si256(p + 5)));
        c = _mm256_or_si256(c, _mm256_or_si256(_mm256_loadu_si256(p + 2), _mm256_loadu_si256(p + 6)));
        d = _mm256_or_si256(d, _mm256_or_si256(_mm256_loadu_si256(p + 3), _mm256_loadu_si256(p + 7)));
    }
    a = _mm256_or_si256(_mm256_or_si256(a, b), _mm256_or_si256(c, d));
    memcpy(&w->result, &a, sizeof w->result);
}
#endif

typedef struct machine_buffer { uint8_t *data; size_t size; } machine_buffer;

/* At most `wanted` bytes, and a quarter of the machine's memory; written, so that it is there. */
static inline machine_buffer machine_buffer_new(double wanted) {
#if defined(CLI_POSIX) && defined(_SC_PHYS_PAGES)
    double memory = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    if (memory > 0 && wanted > memory / 4) wanted = memory / 4;
#endif
    machine_buffer b = { NULL, (size_t)wanted / 65536 * 65536 };
    b.data = malloc(b.size);
    if (!b.data) cli_fail("out of memory: a buffer of %zu bytes to read", b.size);
    memset(b.data, 1, b.size);
    return b;
}
/* Bytes per second of one pass over the buffer. */
static inline double machine_read(machine_buffer b, int threads) {
    machine_worker workers[MACHINE_THREADS];
    size_t share = b.size / (size_t)threads / 256 * 256;
    for (int i = 0; i < threads; i++) {
        workers[i].data = b.data + share * (size_t)i;
        workers[i].size = share;
        workers[i].work = machine__read_c;
#if MACHINE_X86
        if (machine_has(MACHINE_AVX2)) workers[i].work = machine__read_avx2;
#endif
    }
    double seconds = machine__run(workers, threads);
    return (double)share * threads / (seconds > 0 ? seconds : 1e-9);
}
/* Bytes of the largest cache that the system tells of; 0: unknown. */
static inline double machine_cache(void) {
    double largest = 0;
    for (int i = 0; i < 8; i++) {
        char path[80], unit = 0;
        long size = 0;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/size", i);
        FILE *f = fopen(path, "r");
        if (!f) break;
        if (fscanf(f, "%9ld%c", &size, &unit) < 1) size = 0;
        fclose(f);
        double bytes = (double)size * (unit == 'K' ? 1024 : unit == 'M' ? 1048576 : 1);
        if (bytes > largest) largest = bytes;
    }
    return largest;
}

/* ---- Arithmetic ----
   Twelve chains hide the latency of a multiply-add on any CPU so far. The empty asm makes a value new
   to the compiler, which would otherwise merge chains that begin alike, or move a product out of the
   loop. */

enum { MACHINE_ROUNDS = 2000000 };

#define MACHINE_CHAINS(X) X(a) X(b) X(c) X(d) X(e) X(f) X(g) X(h) X(i) X(j) X(k) X(l)

#define MACHINE_C_F32(x) x = x * p + p;
#define MACHINE_C_INT8(x) x += (uint8_t)x * p;
#define MACHINE_C_CHAIN(x) x = unknown,
#define MACHINE_C_SUM(x) p += x;
#define MACHINE_PEAK_C(name, type, start, step)                                                 \
    static inline void machine__##name(machine_worker *w) {                                     \
        volatile type unknown = start;                                                          \
        type p = unknown, MACHINE_CHAINS(MACHINE_C_CHAIN) last = 0;                             \
        for (int n = 0; n < MACHINE_ROUNDS; n++) { MACHINE_CHAINS(step) }                       \
        MACHINE_CHAINS(MACHINE_C_SUM)                                                           \
        w->result = p > last;                                                                   \
    }
MACHINE_PEAK_C(c_f32, float, 0.5f, MACHINE_C_F32)
MACHINE_PEAK_C(c_int8, unsigned, 3, MACHINE_C_INT8)

#if MACHINE_X86
#define MACHINE_USE(x) __asm__ volatile("" : "+v"(x));
#define MACHINE_CHAIN_F32_256(x) __m256 x = p; MACHINE_USE(x)
#define MACHINE_CHAIN_F32_512(x) __m512 x = p; MACHINE_USE(x)
#define MACHINE_CHAIN_256(x) __m256i x = p; MACHINE_USE(x)
#define MACHINE_CHAIN_512(x) __m512i x = p; MACHINE_USE(x)
#define MACHINE_FMA_256(x) x = _mm256_fmadd_ps(x, p, p);
#define MACHINE_FMA_512(x) x = _mm512_fmadd_ps(x, p, p);
#define MACHINE_PAIRS_256(x) MACHINE_USE(p) \
    x = _mm256_add_epi32(x, _mm256_madd_epi16(_mm256_maddubs_epi16(p, p), ones));
#define MACHINE_PAIRS_512(x) MACHINE_USE(p) \
    x = _mm512_add_epi32(x, _mm512_madd_epi16(_mm512_maddubs_epi16(p, p), ones));
#define MACHINE_DOT_256(x) x = _mm256_dpbusd_avx_epi32(x, p, p);
#define MACHINE_DOT_512(x) x = _mm512_dpbusd_epi32(x, p, p);

#define MACHINE_PEAK(name, features, operands, chain, step)                                     \
    __attribute__((target(features))) static inline void machine__##name(machine_worker *w) {   \
        operands                                                                                \
        MACHINE_USE(p)                                                                          \
        MACHINE_CHAINS(chain)                                                                   \
        for (int n = 0; n < MACHINE_ROUNDS; n++) { MACHINE_CHAINS(step) }                       \
        MACHINE_CHAINS(MACHINE_USE)                                                             \
        w->result = 1;                                                                          \
    }
MACHINE_PEAK(avx2_f32, "avx2,fma", __m256 p = _mm256_set1_ps(0.5f);, MACHINE_CHAIN_F32_256, MACHINE_FMA_256)
MACHINE_PEAK(avx512_f32, "avx512f", __m512 p = _mm512_set1_ps(0.5f);, MACHINE_CHAIN_F32_512, MACHINE_FMA_512)
MACHINE_PEAK(avx2_int8, "avx2", __m256i p = _mm256_set1_epi8(3); __m256i ones = _mm256_set1_epi16(1);,
             MACHINE_CHAIN_256, MACHINE_PAIRS_256)
MACHINE_PEAK(avx512_int8, "avx512f,avx512bw", __m512i p = _mm512_set1_epi8(3); __m512i ones = _mm512_set1_epi16(1);,
             MACHINE_CHAIN_512, MACHINE_PAIRS_512)
MACHINE_PEAK(avxvnni_int8, "avx2,avxvnni", __m256i p = _mm256_set1_epi8(3);, MACHINE_CHAIN_256, MACHINE_DOT_256)
MACHINE_PEAK(avx512vnni_int8, "avx512f,avx512vnni", __m512i p = _mm512_set1_epi8(3);, MACHINE_CHAIN_512,
             MACHINE_DOT_512)
#endif

typedef enum machine_kind { MACHINE_F32, MACHINE_INT8 } machine_kind;

typedef struct machine_peak {
    machine_kind kind;
    machine_level level;
    int operations;                     /* of a chain's step: a multiply and an add are two */
    const char *how;
    void (*work)(machine_worker *w);
} machine_peak;

static const machine_peak machine_peaks[] = {              /* of each kind the levels in order */
    { MACHINE_F32, MACHINE_C, 2, "f32, portable C", machine__c_f32 },
#if MACHINE_X86
    { MACHINE_F32, MACHINE_AVX2, 16, "f32 FMA, 256 bits", machine__avx2_f32 },
    { MACHINE_F32, MACHINE_AVX512, 32, "f32 FMA, 512 bits", machine__avx512_f32 },
#endif
    { MACHINE_INT8, MACHINE_C, 2, "int8, portable C", machine__c_int8 },
#if MACHINE_X86
    { MACHINE_INT8, MACHINE_AVX2, 64, "int8 maddubs + madd + add, 256 bits", machine__avx2_int8 },
    { MACHINE_INT8, MACHINE_AVXVNNI, 64, "int8 dpbusd, 256 bits", machine__avxvnni_int8 },
    { MACHINE_INT8, MACHINE_AVX512, 128, "int8 maddubs + madd + add, 512 bits", machine__avx512_int8 },
    { MACHINE_INT8, MACHINE_AVX512VNNI, 128, "int8 dpbusd, 512 bits", machine__avx512vnni_int8 },
#endif
    { MACHINE_F32, MACHINE_LEVELS, 0, NULL, NULL }
};

/* The peak that kernels of a level can come near: its own or the best below it. A name that is not in
   the table ("auto", "fma") stands for the best that the CPU has. */
static inline const machine_peak *machine_peak_for(machine_kind kind, const char *level) {
    int limit = 0;
    const machine_peak *best = NULL;
    while (limit < MACHINE_LEVELS && strcmp(level, machine_level_names[limit]) != 0) limit++;
    for (const machine_peak *p = machine_peaks; p->how; p++)
        if (p->kind == kind && (int)p->level <= limit && machine_has(p->level)) best = p;
    return best;
}
/* Operations per second. */
static inline double machine_arithmetic(const machine_peak *p, int threads) {
    machine_worker workers[MACHINE_THREADS];
    for (int i = 0; i < threads; i++) workers[i].work = p->work;
    double seconds = machine__run(workers, threads);
    return 12.0 * MACHINE_ROUNDS * p->operations * threads / (seconds > 0 ? seconds : 1e-9);
}

#endif
