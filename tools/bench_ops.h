/* bench_ops.h - single ops for bench: ours, and the same in PyTorch (tools/bench_ops.py in a process
   of its own) and in OpenBLAS (loaded when the program runs), by turns. Include it after cli.h. */
#ifndef BENCH_OPS_H
#define BENCH_OPS_H

#include "tools/cli.h"
#include "tools/table.h"

#ifdef CLI_POSIX
#include <sys/wait.h>
/* Before version 2.34 of glibc dlopen wants a library of its own. */
#if !defined(__GLIBC__) || __GLIBC__ > 2 || (__GLIBC__ == 2 && __GLIBC_MINOR__ >= 34)
#define OPS_DLOPEN 1
#include <dlfcn.h>
#endif
#endif

typedef enum op_kind { OP_MATMUL, OP_ATTENTION, OP_SOFTMAX, OP_LAYERNORM, OP_GELU, OP_SAMPLE, OP_LSTM } op_kind;

static const char *const op_names[] = { "matmul", "attention", "softmax", "layernorm", "gelu", "sample", "lstm" };

typedef struct op {
    op_kind kind;
    int64_t a, b, c;                    /* as the names in title count them */
    const char *title;
} op;

static const op ops[] = {
    { OP_MATMUL, 64, 64, 64, "matmul 64 x 64 x 64" },
    { OP_MATMUL, 256, 256, 256, "matmul 256 x 256 x 256" },
    { OP_MATMUL, 1024, 1024, 1024, "matmul 1024 x 1024 x 1024" },
    { OP_MATMUL, 128, 576, 1536, "matmul 128 x 576 x 1536" },
    { OP_MATMUL, 4096, 4096, 4096, "matmul 4096 x 4096 x 4096" },
    { OP_ATTENTION, 12, 512, 64, "attention, 12 heads x 64, 512 x 512 causal" },
    { OP_SOFTMAX, 512, 2048, 0, "softmax 512 x 2048" },
    { OP_LAYERNORM, 512, 768, 0, "layernorm 512 x 768" },
    { OP_GELU, 512, 3072, 0, "gelu 512 x 3072" },
    { OP_SAMPLE, 150000, 40, 0, "sampling, 150000 entries, top-k 40, top-p 0.95" },
    { OP_LSTM, 50, 1, 32, "LSTM(128), 50 steps of 32, batch 1" },
    { OP_LSTM, 50, 32, 32, "LSTM(128), 50 steps of 32, batch 32" }
};
enum { OPS = sizeof ops / sizeof *ops, OP_HIDDEN = 128 };

/* Multiplications and additions of a call; NaN where counting them says little. */
static inline double op_flop(const op *p) {
    double product = 2.0 * (double)p->a * (double)p->b * (double)p->c;
    switch (p->kind) {
        case OP_MATMUL: return product;
        case OP_ATTENTION: return product * (double)(p->b + 1);            /* two products, half of the keys */
        case OP_LSTM: return 2.0 * (double)(p->a * p->b) * 4 * OP_HIDDEN * (double)(p->c + OP_HIDDEN);
        default: return (double)NAN;
    }
}

/* ---- Ours ---- */

enum { OPS_FLOATS = 4096 * 4096 };

typedef struct ops_ours {
    tfm_context *c;
    tfm_mark mark;
    tfm_rng rng;
    float *x, *y;                       /* operands, OPS_FLOATS of them */
    float *out;                         /* of OpenBLAS */
} ops_ours;

static inline ops_ours ops_ours_new(int threads, tfm_level level) {
    ops_ours s = { NULL, { NULL, 0 }, { 1 }, cli_alloc(OPS_FLOATS, 4), cli_alloc(OPS_FLOATS, 4), NULL };
    tfm_error err;
    s.c = tfm_context_new(&(tfm_context_opts){ .threads = threads, .level = level }, &err);
    if (!s.c) cli_fail("%s", err.message);
    s.mark = tfm_arena_mark(s.c);
    s.out = cli_alloc(OPS_FLOATS, 4);
    for (int i = 0; i < OPS_FLOATS; i++) {
        uint64_t u = tfm_random(&s.rng);
        s.x[i] = (float)(u >> 40) / 16777216 - 0.5f;
        s.y[i] = (float)(u & 0xffffff) / 16777216 - 0.5f;
    }
    return s;
}
static inline void ops_ours_free(ops_ours *s) {
    tfm_context_free(s->c);
    free(s->x);
    free(s->y);
    free(s->out);
}
static inline void ops__lstm(ops_ours *s, const op *p) {
    tfm_context *c = s->c;
    const float *w = s->y;
    tfm_rnn_weights weights = { .w_ih = tfm_wrap(c, w, tfm_shape2(4 * OP_HIDDEN, p->c)) };
    weights.w_hh = tfm_wrap(c, w += 4 * OP_HIDDEN * p->c, tfm_shape2(4 * OP_HIDDEN, OP_HIDDEN));
    weights.b_ih = tfm_wrap(c, w += 4 * OP_HIDDEN * OP_HIDDEN, tfm_shape1(4 * OP_HIDDEN));
    weights.b_hh = tfm_wrap(c, w += 4 * OP_HIDDEN, tfm_shape1(4 * OP_HIDDEN));
    tfm_lstm(c, tfm_wrap(c, s->x, tfm_shape3(p->a, p->b, p->c)), &weights, NULL, NULL, NULL);
}
static inline void ops__call(ops_ours *s, const op *p) {
    tfm_context *c = s->c;
    tfm_tensor x = tfm_wrap(c, s->x, tfm_shape2(p->a, p->b));
    switch (p->kind) {
        case OP_MATMUL: tfm_matmul(c, x, tfm_wrap(c, s->y, tfm_shape2(p->b, p->c))); break;
        case OP_ATTENTION: {
            tfm_shape shape = tfm_shape2(p->b, p->a * p->c);
            tfm_attention(c, tfm_wrap(c, s->x, shape), tfm_wrap(c, s->y, shape),
                          tfm_wrap(c, s->y + OPS_FLOATS / 2, shape),
                          &(tfm_attention_opts){ .heads = (int)p->a, .causal = true });
            break;
        }
        case OP_SOFTMAX: tfm_softmax(c, x, -1); break;
        case OP_LAYERNORM:
            tfm_layernorm(c, x, tfm_wrap(c, s->y, tfm_shape1(p->b)), tfm_wrap(c, s->y, tfm_shape1(p->b)), 1e-5f);
            break;
        case OP_GELU: tfm_gelu(c, x); break;
        case OP_SAMPLE:
            tfm_sample(c, s->x, p->a, &(tfm_sampling){ .temperature = 0.08f, .top_k = (int)p->b, .top_p = 0.95f },
                       NULL, 0, &s->rng);
            break;
        case OP_LSTM: ops__lstm(s, p); break;
    }
    if (tfm_status_of(c) != TFM_OK) cli_fail("%s: %s", p->title, tfm_message(c));
    tfm_arena_rewind(c, s->mark);
}
/* Seconds of a call: the mean of a batch of them that lasts 20 ms. */
static inline double ops_time_ours(ops_ours *s, const op *p) {
    double begin = cli_seconds(), spent = 0;
    int64_t calls = 0;
    do {
        ops__call(s, p);
        calls++;
    } while ((spent = cli_seconds() - begin) < 0.02);
    return spent / (double)calls;
}

/* ---- OpenBLAS ---- */

typedef struct ops_blas {
    void (*sgemm)(int order, int trans_a, int trans_b, int m, int n, int k, float alpha, const float *a, int lda,
                  const float *b, int ldb, float beta, float *c, int ldc);
    void (*set_threads)(int threads);
} ops_blas;

static inline ops_blas ops_blas_new(void) {
    ops_blas s = { NULL, NULL };
#ifdef OPS_DLOPEN
    unsetenv("OPENBLAS_CORETYPE");                         /* it shall choose its best kernels by itself */
    void *library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
    void *sgemm = library ? dlsym(library, "cblas_sgemm") : NULL;
    void *threads = library ? dlsym(library, "openblas_set_num_threads") : NULL;
    if (sgemm && threads) {
        memcpy(&s.sgemm, &sgemm, sizeof sgemm);
        memcpy(&s.set_threads, &threads, sizeof threads);
    }
#endif
    return s;
}
static inline void ops__pause(double seconds) {
    for (double begin = cli_seconds(); cli_seconds() - begin < seconds;) {
#ifdef CLI_POSIX
        nanosleep(&(struct timespec){ .tv_sec = 0, .tv_nsec = 1000000 }, NULL);
#endif
    }
}
static inline double ops_time_blas(const ops_blas *blas, ops_ours *s, const op *p, int threads) {
    enum { ROW_MAJOR = 101, NO_TRANS = 111 };
    int m = (int)p->a, k = (int)p->b, n = (int)p->c, calls = 0;
    double begin = cli_seconds(), spent = 0;
    do {
        blas->sgemm(ROW_MAJOR, NO_TRANS, NO_TRANS, m, n, k, 1, s->x, k, s->y, n, 0, s->out, n);
        calls++;
    } while ((spent = cli_seconds() - begin) < 0.02);
    if (threads > 1) ops__pause(0.05);                     /* its threads go on waiting for work that long */
    return spent / calls;
}

/* ---- PyTorch ---- */

typedef struct ops_torch {
    FILE *to, *from;                    /* NULL: there is none */
    long process;
    char version[64];
} ops_torch;

static inline void ops_torch_free(ops_torch *t) {
    if (t->to) fclose(t->to);
    if (t->from) fclose(t->from);
#ifdef CLI_POSIX
    if (t->process > 0) waitpid((pid_t)t->process, NULL, 0);
#endif
    memset(t, 0, sizeof *t);
}
/* Starts `python script THREADS`, which says its version when PyTorch is there. */
static inline ops_torch ops_torch_new(const char *python, const char *script, int threads) {
    ops_torch t = { NULL, NULL, 0, "" };
#ifdef CLI_POSIX
    int to[2], from[2];
    char count[16];
    snprintf(count, sizeof count, "%d", threads);
    if (pipe(to) != 0 || pipe(from) != 0) cli_fail("a pipe: %s", strerror(errno));
    fflush(stdout);
    t.process = (long)fork();
    if (t.process < 0) cli_fail("%s: %s", python, strerror(errno));
    if (t.process == 0) {
        bool ready = dup2(to[0], 0) == 0 && dup2(from[1], 1) == 1 && freopen("/dev/null", "w", stderr);
        close(to[1]);
        close(from[0]);
        if (ready) execlp(python, python, script, count, (char *)NULL);
        _exit(127);
    }
    close(to[0]);
    close(from[1]);
    t.to = fdopen(to[1], "w");
    t.from = fdopen(from[0], "r");
    if (!t.to || !t.from) cli_fail("a pipe: %s", strerror(errno));
    if (!fgets(t.version, sizeof t.version, t.from)) ops_torch_free(&t);
    t.version[strcspn(t.version, "\n")] = 0;
#else
    (void)python, (void)script, (void)threads;
#endif
    return t;
}
static inline double ops_time_torch(ops_torch *t, const op *p) {
    char line[64];
    fprintf(t->to, "%s %d %d %d\n", op_names[p->kind], (int)p->a, (int)p->b, (int)p->c);
    if (fflush(t->to) != 0 || !fgets(line, sizeof line, t->from)) cli_fail("PyTorch ended at %s", p->title);
    double seconds = strtod(line, NULL);
    return seconds > 0 ? seconds : (double)NAN;
}

#endif
