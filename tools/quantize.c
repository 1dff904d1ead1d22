/* Writes a GGUF model with weights in another type: quantize IN OUT TYPE.

   Which tensor gets which type, gguf_choose.h says: as llama.cpp's llama-quantize does. Tensors stand
   in the file in its order too. */
#define _XOPEN_SOURCE 700
#define TFM_IMPLEMENTATION
#include "tfm.h"
#include "tools/cli.h"
#include "tools/gguf_plan.h"

/* ---- The file ---- */

typedef struct job {
    const char *in, *out;
    const gguf_file_type *to;
    tfm_file *file;
    gguf_plans plans;
    tfm_tensor_info *tensors;
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
    snprintf(key, sizeof key, "%s.%s", j->plans.chooser.arch, name);
    return meta_u64(j->file, key, &v) ? v : otherwise;
}
static void read_metadata(job *j) {
    gguf_chooser *c = &j->plans.chooser;
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
static bool is_decoded(tfm_type type) {
    return type == TFM_F32 || type == TFM_F16 || type == TFM_BF16 || gguf_type_block(type) > 1;
}
static tfm_tensor rows_of(tfm_context *c, const gguf_plan *p, int64_t begin, int64_t end) {
    const tfm_tensor_info *t = p->user;
    tfm_tensor rows = tfm_reshape(c, t->tensor, tfm_shape2(-1, t->tensor.dim[t->tensor.rank - 1]));
    return tfm_to_f32(c, tfm_slice(c, rows, 0, begin, end));
}
static void make_plans(job *j) {
    int64_t count = tfm_file_tensor_count(j->file);
    j->tensors = cli_alloc((size_t)count, sizeof *j->tensors);
    j->plans.in = j->in;
    for (int64_t i = 0; i < count; i++) {
        tfm_tensor_info *t = &j->tensors[i];
        char name[64];
        tfm_file_tensor_at(j->file, i, t);
        snprintf(name, sizeof name, "%.*s", (int)t->name.size, t->name.data);
        tfm_shape shape = { t->tensor.rank, { 0 } };
        memcpy(shape.dim, t->tensor.dim, sizeof shape.dim);
        gguf_plan *p = gguf_plan_add(&j->plans, name, t->tensor.type, shape);
        p->data = t->tensor.data;
        p->rows = rows_of;
        p->user = t;
    }
    gguf_plans_arrange(&j->plans);
    for (size_t i = 0; i < j->plans.count; i++) {
        const gguf_plan *p = &j->plans.list[i];
        const tfm_tensor_info *t = p->user;
        if (p->from == TFM_TYPE_NONE || (p->type != p->from && !is_decoded(p->from)))
            cli_fail("%s: %s: cannot convert the type %.*s", j->in, p->name, (int)t->type_name.size, t->type_name.data);
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
    gguf_plans_declare(&j->plans, w);
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
    gguf_plans_write(&j.plans, &w, j.out, (int)threads);
    if (!gguf_finish(&w)) cli_fail_at(j.out, w.error);
    cli_commit(f);
    free(j.plans.list);
    free(j.tensors);
    tfm_file_free(j.file);
    return 0;
}
