/* gguf_plan.h - tensors on their way into a GGUF file: the type of each, encoded by several threads,
   written in pieces, so that memory stays small. Include it after cli.h.

       gguf_plans p = { .chooser = { .type = TFM_Q8_0, .arch = "llama", .layers = 22 } };
       gguf_plan *t = gguf_plan_add(&p, "blk.0.attn_q.weight", TFM_F32, tfm_shape2(64, 64));
       t->rows = my_rows, t->user = my_tensor;              // and so on for each tensor
       gguf_plans_arrange(&p);                              // their order, their types
       gguf_plans_declare(&p, &w);
       gguf_plans_write(&p, &w, "label", threads);          // with progress on a terminal

   Order and types are llama.cpp's: see gguf_choose.h. */
#ifndef GGUF_PLAN_H
#define GGUF_PLAN_H

#include "tools/gguf_choose.h"

#ifndef TFM_NO_THREADS
#include <pthread.h>
#endif

typedef struct gguf_plan gguf_plan;

/* Rows begin..end (a row: along the last dimension) of a tensor as contiguous floats, in c's arena; an
   error stays in c. Called by several threads at once, each with its own context. */
typedef tfm_tensor (*gguf_rows)(tfm_context *c, const gguf_plan *p, int64_t begin, int64_t end);

struct gguf_plan {
    char name[64];
    int layer;                          /* of "blk.N."; -1: none */
    tfm_shape shape;
    tfm_type from, type;                /* of the weights as they are, and as they are written */
    const void *data;                   /* all bytes in the type `from`, copied if that is `type`; may be NULL */
    gguf_rows rows;
    const void *user;                   /* for rows() */
};
typedef struct gguf_plans {
    const char *in;                     /* for messages: what the tensors come from */
    gguf_chooser chooser;               /* type, arch, layers, experts; the rest is found out */
    gguf_plan *list;
    size_t count, capacity;
} gguf_plans;

/* The pointer is good until the next one is added. */
static inline gguf_plan *gguf_plan_add(gguf_plans *p, const char *name, tfm_type from, tfm_shape shape) {
    if (p->count == p->capacity) {
        p->capacity = p->capacity ? 2 * p->capacity : 256;
        gguf_plan *larger = realloc(p->list, p->capacity * sizeof *larger);
        if (!larger) cli_fail("out of memory: %zu x %zu bytes", p->capacity, sizeof *larger);
        p->list = larger;
    }
    gguf_plan *t = &p->list[p->count++];
    memset(t, 0, sizeof *t);
    if (strlen(name) >= sizeof t->name) cli_fail("%s: the name is longer than the 63 bytes of GGUF", name);
    strcpy(t->name, name);
    t->layer = gguf_layer_of(name);
    t->from = t->type = from;
    t->shape = shape;
    return t;
}

/* By layer, then by name. */
static inline int gguf__plan_order(const void *a, const void *b) {
    const gguf_plan *p = a, *q = b;
    return p->layer != q->layer ? (p->layer > q->layer) - (p->layer < q->layer) : strcmp(p->name, q->name);
}
static inline void gguf_plans_arrange(gguf_plans *p) {
    gguf_chooser *c = &p->chooser;
    c->tied = true;
    c->attention_count = 0;
    for (size_t i = 0; i < p->count; i++) {
        if (gguf_role_of(p->list[i].name) == GGUF_OUTPUT) c->tied = false;
        if (gguf_role_of(p->list[i].name) == GGUF_ATTENTION_V) c->attention_count++;
    }
    if (p->count) qsort(p->list, p->count, sizeof *p->list, gguf__plan_order);
    for (size_t i = 0; i < p->count; i++) {
        gguf_plan *t = &p->list[i];
        t->type = gguf_choose(c, t->name, t->shape, t->type);
    }
}
static inline void gguf_plans_declare(const gguf_plans *p, gguf_writer *w) {
    for (size_t i = 0; i < p->count; i++) gguf_tensor(w, p->list[i].name, p->list[i].type, p->list[i].shape);
}

/* ---- Encoding: rows are shared among threads, each with a context of its own ---- */

typedef struct gguf__worker {
    tfm_context *context;
    const gguf_plan *plan;
    int64_t begin, end;                 /* rows */
    uint8_t *out;
    bool good;                          /* all values fit the type */
} gguf__worker;

static inline int64_t gguf__plan_width(const gguf_plan *p) { return p->shape.dim[p->shape.rank - 1]; }
static inline int64_t gguf__plan_rows(const gguf_plan *p) {
    int64_t rows = 1;
    for (int i = 0; i < p->shape.rank - 1; i++) rows *= p->shape.dim[i];
    return rows;
}
static inline size_t gguf__row_bytes(const gguf_plan *p) {
    return (size_t)(gguf__plan_width(p) / gguf_type_block(p->type) * gguf_type_bytes(p->type));
}
static inline void *gguf__work(void *arg) {
    gguf__worker *k = arg;
    tfm_mark mark = tfm_arena_mark(k->context);
    int64_t width = gguf__plan_width(k->plan), at_once = 65536 / width > 0 ? 65536 / width : 1;
    k->good = true;
    for (int64_t row = k->begin; row < k->end; row += at_once) {
        int64_t n = k->end - row < at_once ? k->end - row : at_once;
        tfm_tensor f = k->plan->rows(k->context, k->plan, row, row + n);
        if (tfm_status_of(k->context) != TFM_OK) break;
        uint8_t *out = k->out + (size_t)(row - k->begin) * gguf__row_bytes(k->plan);
        if (!gguf_encode(k->plan->type, f.data, out, n * width)) k->good = false;
        tfm_arena_rewind(k->context, mark);
    }
    return NULL;
}
static inline void gguf__run(gguf__worker *workers, int count) {
#ifndef TFM_NO_THREADS
    pthread_t threads[256];
    int started = 0;
    while (started < count - 1 && pthread_create(&threads[started], NULL, gguf__work, &workers[started + 1]) == 0)
        started++;
    gguf__work(&workers[0]);
    for (int i = 0; i < started; i++) pthread_join(threads[i], NULL);
    for (int i = started + 1; i < count; i++) gguf__work(&workers[i]);     /* threads that were refused */
#else
    for (int i = 0; i < count; i++) gguf__work(&workers[i]);
#endif
}

/* One tensor, in pieces of 1 M weights for each thread. */
static inline void gguf__write_plan(const gguf_plans *all, const gguf_plan *p, gguf_writer *w, const char *label,
                                    gguf__worker *workers, int threads, int64_t *done, int64_t total) {
    int64_t width = gguf__plan_width(p), rows = gguf__plan_rows(p);
    int64_t share = (1 << 20) / width > 0 ? (1 << 20) / width : 1;
    size_t row_bytes = gguf__row_bytes(p);
    uint8_t *out = cli_alloc((size_t)(rows < share * threads ? rows : share * threads), row_bytes);
    for (int64_t row = 0; row < rows; row += share * threads) {
        int64_t left = rows - row < share * threads ? rows - row : share * threads;
        for (int i = 0; i < threads; i++) {
            gguf__worker *k = &workers[i];
            k->plan = p;
            k->begin = row + left * i / threads;
            k->end = row + left * (i + 1) / threads;
            k->out = out + (size_t)(k->begin - row) * row_bytes;
        }
        gguf__run(workers, threads);
        for (int i = 0; i < threads; i++) {
            if (tfm_status_of(workers[i].context) != TFM_OK)
                cli_fail("%s: %s: %s", all->in, p->name, tfm_message(workers[i].context));
            if (!workers[i].good)
                cli_fail("%s: %s: holds NaN, infinity or a number too large for %s", all->in, p->name,
                         tfm_type_name(p->type));
        }
        gguf_data(w, out, (size_t)left * row_bytes);
        *done += left * width;
        if (*done < total) cli_progress(label, *done, total);
    }
    free(out);
}
/* All data. The writer holds the first error of writing. */
static inline void gguf_plans_write(const gguf_plans *p, gguf_writer *w, const char *label, int threads) {
    gguf__worker *workers = cli_alloc((size_t)threads, sizeof *workers);
    tfm_error err;
    int64_t done = 0, total = 0;
    for (int i = 0; i < threads; i++)
        if (!(workers[i].context = tfm_context_new(NULL, &err))) cli_fail("%s", err.message);
    for (size_t i = 0; i < p->count; i++) total += gguf__plan_rows(&p->list[i]) * gguf__plan_width(&p->list[i]);
    for (size_t i = 0; i < p->count && !w->error[0]; i++) {
        const gguf_plan *t = &p->list[i];
        int64_t elements = gguf__plan_rows(t) * gguf__plan_width(t);
        if (elements == 0) continue;
        if (t->type == t->from && t->data) {
            gguf_data(w, t->data, (size_t)gguf__plan_rows(t) * gguf__row_bytes(t));
            if ((done += elements) < total) cli_progress(label, done, total);
        } else gguf__write_plan(p, t, w, label, workers, threads, &done, total);
    }
    cli_progress(label, total, total);
    for (int i = 0; i < threads; i++) tfm_context_free(workers[i].context);
    free(workers);
}

#endif
