/* Writes a GGUF model with weights in another type: quantize IN OUT TYPE.

   Which tensor gets which type, gguf_choose.h says: as llama.cpp's llama-quantize does. Tensors stand
   in the file in its order too. */
#define _XOPEN_SOURCE 700
#define TFM_IMPLEMENTATION
#include "tfm.h"
#include "tools/cli.h"
#include "tools/gguf_choose.h"
#include "tools/gguf_write.h"

#ifndef TFM_NO_THREADS
#include <pthread.h>
#endif

/* ---- The file ---- */

typedef struct plan {                   /* of one tensor */
    char name[64];
    int layer;                          /* of "blk.N."; -1: none */
    tfm_tensor_info info;
    tfm_type type;
} plan;

typedef struct job {
    const char *in, *out;
    const gguf_file_type *to;
    tfm_file *file;
    gguf_chooser chooser;
    plan *plans;
    int64_t count;
} job;

static bool meta_u64(const tfm_file *f, const char *key, uint64_t *out) {
    tfm_value v;
    if (!tfm_file_meta(f, key, &v)) return false;
    if (v.type == TFM_VALUE_ARRAY) {    /* one for each layer */
        tfm_value array = v;
        if (!tfm_value_next(&array, &v)) return false;
    }
    return tfm_value_u64(&v, out);
}
static uint64_t hyperparameter(const job *j, const char *name, uint64_t otherwise) {
    char key[128];
    uint64_t v = otherwise;
    snprintf(key, sizeof key, "%s.%s", j->chooser.arch, name);
    return meta_u64(j->file, key, &v) ? v : otherwise;
}
static void read_metadata(job *j) {
    gguf_chooser *c = &j->chooser;
    tfm_value v;
    tfm_string s;
    uint64_t parts;
    if (tfm_file_meta(j->file, "general.architecture", &v) && tfm_value_string(&v, &s) && s.size < sizeof c->arch)
        memcpy(c->arch, s.data, s.size);
    if (meta_u64(j->file, "split.count", &parts) && parts > 1)
        cli_fail("%s: one of %" PRIu64 " parts of a model; join them first", j->in, parts);
    c->type = j->to->type;
    c->layers = hyperparameter(j, "block_count", 0);
    c->experts = hyperparameter(j, "expert_count", 0);
    uint64_t heads = hyperparameter(j, "attention.head_count", 0);
    gguf_chooser_heads(c, heads, hyperparameter(j, "attention.head_count_kv", heads));
}
/* By layer, then by name. */
static int by_layer(const void *a, const void *b) {
    const plan *p = a, *q = b;
    return p->layer != q->layer ? (p->layer > q->layer) - (p->layer < q->layer) : strcmp(p->name, q->name);
}
static bool is_decoded(tfm_type type) {
    return type == TFM_F32 || type == TFM_F16 || type == TFM_BF16 || gguf_type_block(type) > 1;
}
static tfm_shape shape_of(const plan *p) {
    tfm_shape shape = { p->info.tensor.rank, { 0 } };
    memcpy(shape.dim, p->info.tensor.dim, sizeof shape.dim);
    return shape;
}
static void make_plans(job *j) {
    j->count = tfm_file_tensor_count(j->file);
    j->plans = cli_alloc((size_t)j->count, sizeof *j->plans);
    j->chooser.tied = true;
    for (int64_t i = 0; i < j->count; i++) {
        plan *p = &j->plans[i];
        tfm_file_tensor_at(j->file, i, &p->info);
        snprintf(p->name, sizeof p->name, "%.*s", (int)p->info.name.size, p->info.name.data);
        p->layer = gguf_layer_of(p->name);
        if (gguf_role_of(p->name) == GGUF_OUTPUT) j->chooser.tied = false;
        if (gguf_role_of(p->name) == GGUF_ATTENTION_V) j->chooser.attention_count++;
    }
    qsort(j->plans, (size_t)j->count, sizeof *j->plans, by_layer);
    for (int64_t i = 0; i < j->count; i++) {
        plan *p = &j->plans[i];
        tfm_type now = p->info.tensor.type;
        p->type = gguf_choose(&j->chooser, p->name, shape_of(p), now);
        if (now == TFM_TYPE_NONE || (p->type != now && !is_decoded(now)))
            cli_fail("%s: %s: cannot convert the type %.*s", j->in, p->name, (int)p->info.type_name.size,
                     p->info.type_name.data);
    }
}
static void write_directory(const job *j, gguf_writer *w) {
    static const char *const replaced[] = { "general.quantization_version", "general.file_type", "split.no",
                                            "split.count", "split.tensors.count" };
    tfm_string key;
    tfm_value v;
    for (int64_t i = 0; tfm_file_meta_at(j->file, i, &key, &v); i++) {
        bool copied = true;
        for (size_t k = 0; k < sizeof replaced / sizeof *replaced; k++)
            if (key.size == strlen(replaced[k]) && memcmp(key.data, replaced[k], key.size) == 0) copied = false;
        if (copied) gguf_meta_value(w, key, &v);
    }
    gguf_meta_u32(w, "general.quantization_version", 2);
    gguf_meta_u32(w, "general.file_type", j->to->number);
    for (int64_t i = 0; i < j->count; i++) {
        const plan *p = &j->plans[i];
        gguf_tensor(w, p->name, p->type, shape_of(p));
    }
}

/* ---- The work: rows of one tensor, shared by threads ---- */

typedef struct worker {
    const plan *plan;
    tfm_context *context;
    tfm_tensor rows;                    /* [rows, width] */
    int64_t begin, end;
    uint8_t *out;                       /* for row `begin` */
    bool good;                          /* all values fit the type */
} worker;

static void *work(void *arg) {
    worker *k = arg;
    tfm_mark mark = tfm_arena_mark(k->context);
    int64_t width = k->rows.dim[1], at_once = 65536 / width > 0 ? 65536 / width : 1;
    size_t row_bytes = (size_t)(width / gguf_type_block(k->plan->type) * gguf_type_bytes(k->plan->type));
    k->good = true;
    for (int64_t row = k->begin; row < k->end; row += at_once) {
        int64_t n = k->end - row < at_once ? k->end - row : at_once;
        tfm_tensor f = tfm_to_f32(k->context, tfm_slice(k->context, k->rows, 0, row, row + n));
        if (tfm_status_of(k->context) != TFM_OK) break;
        uint8_t *out = k->out + (size_t)(row - k->begin) * row_bytes;
        if (!gguf_encode(k->plan->type, f.data, out, n * width)) k->good = false;
        tfm_arena_rewind(k->context, mark);
    }
    return NULL;
}
static void run(worker *workers, int count) {
#ifndef TFM_NO_THREADS
    pthread_t threads[256];
    int started = 0;
    while (started < count - 1 && pthread_create(&threads[started], NULL, work, &workers[started + 1]) == 0) started++;
    work(&workers[0]);
    for (int i = 0; i < started; i++) pthread_join(threads[i], NULL);
    for (int i = started + 1; i < count; i++) work(&workers[i]);           /* threads that were refused */
#else
    for (int i = 0; i < count; i++) work(&workers[i]);
#endif
}

/* Converts in pieces of 1 M weights for each thread, so that memory stays small. */
static void convert(const job *j, const plan *p, gguf_writer *w, worker *workers, int threads, int64_t *done,
                    int64_t total) {
    int64_t width = p->info.tensor.dim[p->info.tensor.rank - 1], rows = tfm_count(p->info.tensor) / width;
    int64_t share = (1 << 20) / width > 0 ? (1 << 20) / width : 1;
    size_t row_bytes = (size_t)(width / gguf_type_block(p->type) * gguf_type_bytes(p->type));
    uint8_t *out = cli_alloc((size_t)(rows < share * threads ? rows : share * threads), row_bytes);
    for (int64_t row = 0; row < rows; row += share * threads) {
        int64_t left = rows - row < share * threads ? rows - row : share * threads;
        for (int i = 0; i < threads; i++) {
            worker *k = &workers[i];
            k->plan = p;
            k->rows = tfm_reshape(k->context, p->info.tensor, tfm_shape2(rows, width));
            k->begin = row + left * i / threads;
            k->end = row + left * (i + 1) / threads;
            k->out = out + (size_t)(k->begin - row) * row_bytes;
        }
        run(workers, threads);
        for (int i = 0; i < threads; i++) {
            if (tfm_status_of(workers[i].context) != TFM_OK)
                cli_fail("%s: %s: %s", j->in, p->name, tfm_message(workers[i].context));
            if (!workers[i].good)
                cli_fail("%s: %s: holds NaN, infinity or a number too large for %s", j->in, p->name,
                         tfm_type_name(p->type));
        }
        gguf_data(w, out, (size_t)left * row_bytes);
        *done += left * width;
        if (*done < total) cli_progress(j->out, *done, total);
    }
    free(out);
}
static void convert_all(const job *j, gguf_writer *w, int threads) {
    worker *workers = cli_alloc((size_t)threads, sizeof *workers);
    tfm_error err;
    int64_t done = 0, total = 0;
    for (int i = 0; i < threads; i++)
        if (!(workers[i].context = tfm_context_new(NULL, &err))) cli_fail("%s", err.message);
    for (int64_t i = 0; i < j->count; i++)
        if (j->plans[i].type != j->plans[i].info.tensor.type) total += tfm_count(j->plans[i].info.tensor);
    for (int64_t i = 0; i < j->count && !w->error[0]; i++) {
        const plan *p = &j->plans[i];
        if (p->info.bytes == 0) continue;
        if (p->type == p->info.tensor.type) gguf_data(w, p->info.tensor.data, (size_t)p->info.bytes);
        else convert(j, p, w, workers, threads, &done, total);
    }
    cli_progress(j->out, total, total);
    for (int i = 0; i < threads; i++) tfm_context_free(workers[i].context);
    free(workers);
}

static void check_paths(const char *in, const char *out) {
    bool same = strcmp(in, out) == 0;
#ifdef CLI_POSIX
    struct stat a, b;
    same = same || (stat(in, &a) == 0 && stat(out, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino);
#endif
    if (same) cli_fail("%s: IN and OUT are the same file", out);
}

int main(int argc, char **argv) {
    int64_t threads = tfm_cpu_count();
    const cli_option options[] = { { "-t", CLI_WHOLE, &threads, 1, 256, "THREADS", "default: the CPUs" },
                                   { NULL, CLI_FLAG, NULL, 0, 0, NULL, NULL } };
    const cli_program program = { "quantize", "IN OUT TYPE", 3, 3,
        "Writes the GGUF model IN to OUT with its weights as TYPE: Q8_0, Q4_0, Q4_K_M, Q6_K,\n"
        "F16 or BF16. Small tensors keep their type; those that suffer most get a better one,\n"
        "as llama.cpp chooses.", options };
    tfm_error err;
    job j = { 0 };
    cli_parse(&program, argc, argv);
    j.to = gguf_file_type_named(argv[2]);
    if (!j.to || j.to->type == TFM_F32)
        cli_usage("%s: no such type; Q8_0, Q4_0, Q4_K_M, Q6_K, F16 and BF16 are", argv[2]);
    j.in = argv[0];
    j.out = argv[1];
    check_paths(j.in, j.out);
    j.file = tfm_file_open(j.in, NULL, &err);
    if (!j.file) cli_fail_at(j.in, err.message);
    if (strncmp(tfm_file_format(j.file), "GGUF", 4) != 0)
        cli_fail("%s: is %s, not GGUF", j.in, tfm_file_format(j.file));
    read_metadata(&j);
    make_plans(&j);
    gguf_writer w;
    FILE *f = cli_create(j.out);
    gguf_begin_file(&w, f);
    write_directory(&j, &w);
    convert_all(&j, &w, (int)threads);
    if (!gguf_finish(&w)) cli_fail_at(j.out, w.error);
    cli_commit(f);
    free(j.plans);
    tfm_file_free(j.file);
    return 0;
}
