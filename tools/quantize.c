/* Writes a GGUF model with weights in another type: quantize IN OUT TYPE.

   Which tensor gets which type follows llama.cpp's llama-quantize (without an importance matrix),
   its exceptions included: they are the tables and the function choose() below. Tensors stand in
   the file in its order too. */
#define _XOPEN_SOURCE 700
#define TFM_IMPLEMENTATION
#include "tfm.h"
#include "tools/cli.h"
#include "tools/gguf_write.h"

#ifndef TFM_NO_THREADS
#include <pthread.h>
#endif

/* ---- Which type each tensor gets ---- */

typedef struct file_type { const char *name; uint32_t number; tfm_type type; } file_type;
static const file_type file_types[] = {                    /* number: general.file_type */
    { "Q8_0", 7, TFM_Q8_0 }, { "Q4_0", 2, TFM_Q4_0 }, { "Q4_K_M", 15, TFM_Q4_K }, { "Q6_K", 18, TFM_Q6_K },
    { "F16", 1, TFM_F16 }, { "BF16", 32, TFM_BF16 }, { NULL, 0, TFM_TYPE_NONE } };

typedef enum match { WHOLE, PART } match;
typedef enum role { OTHER, OUTPUT, EMBEDDING, ATTENTION_V, ATTENTION_K, ATTENTION_OUT, FFN_DOWN } role;

static const struct { const char *name; match match; role role; } roles[] = {       /* the first that fits */
    { "output.weight", WHOLE, OUTPUT },
    { "token_embd.weight", WHOLE, EMBEDDING }, { "per_layer_token_embd.weight", WHOLE, EMBEDDING },
    { "attn_qkv.weight", PART, ATTENTION_V }, { "attn_kv_b.weight", PART, ATTENTION_V },
    { "attn_v.weight", PART, ATTENTION_V }, { "attn_k.weight", PART, ATTENTION_K },
    { "attn_q.weight", PART, OTHER }, { "attn_output.weight", PART, ATTENTION_OUT },
    { "ffn_up", PART, OTHER }, { "ffn_gate", PART, OTHER }, { "ffn_down", PART, FFN_DOWN } };

/* Small or sensitive tensors that keep their type; arch NULL: of all architectures. */
static const struct { const char *name; match match; const char *arch; } kept[] = {
    { "_norm.weight", PART, NULL }, { "position_embd.weight", WHOLE, NULL }, { "token_types.weight", WHOLE, NULL },
    { "ffn_gate_inp.weight", PART, NULL }, { "ffn_gate_tid2eid.weight", PART, NULL }, { "altup", PART, NULL },
    { "laurel", PART, NULL }, { "per_layer_model_proj", PART, NULL }, { "ssm_conv1d", PART, NULL },
    { "shortconv.conv.weight", PART, NULL }, { "indexer.k_proj.weight", PART, NULL },
    { "indexer.q_proj.weight", PART, NULL }, { "time_mix_first.weight", PART, NULL },
    { "time_mix_w0.weight", PART, NULL }, { "time_mix_w1.weight", PART, NULL }, { "time_mix_w2.weight", PART, NULL },
    { "time_mix_v0.weight", PART, NULL }, { "time_mix_v1.weight", PART, NULL }, { "time_mix_v2.weight", PART, NULL },
    { "time_mix_a0.weight", PART, NULL }, { "time_mix_a1.weight", PART, NULL }, { "time_mix_a2.weight", PART, NULL },
    { "time_mix_g1.weight", PART, NULL }, { "time_mix_g2.weight", PART, NULL },
    { "time_mix_decay_w1.weight", PART, NULL }, { "time_mix_decay_w2.weight", PART, NULL },
    { "time_mix_lerp_fused.weight", PART, NULL }, { "attn_rel_b.weight", PART, NULL },
    { ".position_embd", PART, NULL }, { "sam.pos_embd", PART, NULL }, { "sam.neck.", PART, NULL },
    { "sam.net_", PART, NULL }, { ".rel_pos", PART, NULL }, { ".patch_embd", PART, NULL },
    { ".patch_merger", PART, NULL }, { "a.rvq.codebook", PART, NULL }, { "mm.a.code_embd", PART, NULL },
    { "hc_", PART, "glm5-next" }, { "indexer.attn_q_b", PART, "glm5-next" }, { "indexer.attn_k", PART, "glm5-next" },
    { "indexer.proj", PART, "glm5-next" }, { "indexer_compressor_gate", PART, "glm5-next" },
    { "indexer_compressor_ape", PART, "glm5-next" }, { "ssm_f_a.weight", PART, "glm5-next" },
    { "ssm_f_b.weight", PART, "glm5-next" }, { "ssm_g_a.weight", PART, "glm5-next" },
    { "ssm_g_b.weight", PART, "glm5-next" }, { "ssm_beta.weight", PART, "glm5-next" },
    { "attn_kv_a_mqa.weight", PART, "glm5-next" }, { "attn_k_b.weight", PART, "glm5-next" },
    { "attn_v_b.weight", PART, "glm5-next" } };
/* Of glm5-next, never below Q8_0. */
static const char *const precise[] = { "attn_q_a", "attn_q_b", "nextn.eh_proj" };

/* Models of the 70B size: few key/value heads, so that better bits for attn_v cost little. */
static const struct { const char *arch; uint64_t layers; bool grouped; } large[] = {
    { "llama", 80, true }, { "llama-embed", 80, true }, { "qwen2", 80, false }, { "deci", 80, false },
    { "olmo", 80, false }, { "jais2", 68, false } };

typedef struct plan {                   /* of one tensor */
    char name[64];
    int layer;                          /* of "blk.N."; -1: none */
    tfm_tensor_info info;
    tfm_type type;
} plan;

typedef struct job {
    const char *in, *out;
    file_type to;
    tfm_file *file;
    char arch[64];
    uint64_t layers, experts;
    bool tied, is_large;                /* tied: the embedding is the output matrix too */
    plan *plans;
    int64_t count, attention_count;     /* attention_count: tensors with the role ATTENTION_V */
    int64_t attention_seen, down_seen;
} job;

static bool matches(const char *name, const char *pattern, match how) {
    return how == WHOLE ? strcmp(name, pattern) == 0 : strstr(name, pattern) != NULL;
}
static role role_of(const char *name) {
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (matches(name, roles[i].name, roles[i].match)) return roles[i].role;
    return OTHER;
}
static bool is_converted(const job *j, const plan *p) {
    size_t length = strlen(p->name);
    bool matrix = false;
    for (int i = 0; i < p->info.tensor.rank - 1; i++) matrix = matrix || p->info.tensor.dim[i] > 1;
    if (!matrix || length < 6 || strcmp(p->name + length - 6, "weight") != 0) return false;
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        if (matches(p->name, kept[i].name, kept[i].match) && (!kept[i].arch || strcmp(kept[i].arch, j->arch) == 0))
            return false;
    return true;
}

/* The first and last eighth of the layers, and every third between. */
static bool more_bits(int64_t layer, int64_t layers) {
    return layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2;
}
static tfm_type choose_attention_v(job *j) {
    tfm_type type = j->to.type;
    if (type == TFM_Q4_K && more_bits(j->attention_seen, j->attention_count)) type = TFM_Q6_K;
    if (type == TFM_Q4_K && j->is_large) type = TFM_Q5_K;
    j->attention_seen++;
    return j->experts == 8 ? TFM_Q8_0 : type;
}
static tfm_type choose_ffn_down(job *j, const plan *p) {
    int64_t layers = (int64_t)j->layers, layer = j->down_seen++;
    if (j->experts > 1 && p->layer >= 0) layer = p->layer;
    if (j->to.type != TFM_Q4_K) return j->to.type;
    if (strcmp(j->arch, "falcon") == 0)
        return layer < layers / 16 ? TFM_Q6_K : more_bits(layer, layers) ? TFM_Q5_K : TFM_Q4_K;
    return more_bits(layer, layers) ? TFM_Q6_K : TFM_Q4_K;
}
/* The type for a quantized file, before rows that are no whole blocks are looked at. */
static tfm_type choose(job *j, const plan *p) {
    tfm_type type = j->to.type;
    int64_t width = p->info.tensor.dim[p->info.tensor.rank - 1];
    role part = role_of(p->name);
    bool falcon = strcmp(j->arch, "falcon") == 0;
    if (strcmp(j->arch, "glm5-next") == 0)
        for (size_t i = 0; i < sizeof precise / sizeof *precise; i++)
            if (strstr(p->name, precise[i])) return TFM_Q8_0;
    if (part == OUTPUT || (part == EMBEDDING && j->tied))
        return type == TFM_Q8_0 || falcon || width % gguf_type_block(type) ? TFM_Q8_0 : TFM_Q6_K;
    switch (part) {
        case ATTENTION_V: return choose_attention_v(j);
        case ATTENTION_K: return j->experts == 8 ? TFM_Q8_0 : type;
        case FFN_DOWN: return choose_ffn_down(j, p);
        case ATTENTION_OUT: return type == TFM_Q4_K && j->experts == 8 && !falcon ? TFM_Q5_K : type;
        default: return type;
    }
}
/* What takes the place of a type whose blocks do not fill the rows. */
static tfm_type fallback(tfm_type type, int64_t width) {
    if (width % gguf_type_block(type) == 0) return type;
    if (width % 32) return TFM_F16;
    return type == TFM_Q4_K ? TFM_Q5_0 : type == TFM_Q5_K ? TFM_Q5_1 : TFM_Q8_0;
}

/* ---- The file ---- */

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
    snprintf(key, sizeof key, "%s.%s", j->arch, name);
    return meta_u64(j->file, key, &v) ? v : otherwise;
}
static void read_metadata(job *j) {
    tfm_value v;
    tfm_string s;
    uint64_t parts;
    if (tfm_file_meta(j->file, "general.architecture", &v) && tfm_value_string(&v, &s) && s.size < sizeof j->arch)
        memcpy(j->arch, s.data, s.size);
    if (meta_u64(j->file, "split.count", &parts) && parts > 1)
        cli_fail("%s: one of %" PRIu64 " parts of a model; join them first", j->in, parts);
    j->layers = hyperparameter(j, "block_count", 0);
    j->experts = hyperparameter(j, "expert_count", 0);
    uint64_t heads = hyperparameter(j, "attention.head_count", 0);
    uint64_t shared = hyperparameter(j, "attention.head_count_kv", heads);
    for (size_t i = 0; i < sizeof large / sizeof *large; i++)
        if (strcmp(j->arch, large[i].arch) == 0 && j->layers == large[i].layers)
            j->is_large = !large[i].grouped || heads != shared;
}
/* By layer, then by name. */
static int by_layer(const void *a, const void *b) {
    const plan *p = a, *q = b;
    return p->layer != q->layer ? (p->layer > q->layer) - (p->layer < q->layer) : strcmp(p->name, q->name);
}
static bool is_decoded(tfm_type type) {
    return type == TFM_F32 || type == TFM_F16 || type == TFM_BF16 || gguf_type_block(type) > 1;
}
static void make_plans(job *j) {
    j->count = tfm_file_tensor_count(j->file);
    j->plans = cli_alloc((size_t)j->count, sizeof *j->plans);
    j->tied = true;
    for (int64_t i = 0; i < j->count; i++) {
        plan *p = &j->plans[i];
        tfm_file_tensor_at(j->file, i, &p->info);
        snprintf(p->name, sizeof p->name, "%.*s", (int)p->info.name.size, p->info.name.data);
        if (sscanf(p->name, "blk.%9d.", &p->layer) != 1) p->layer = -1;
        if (role_of(p->name) == OUTPUT) j->tied = false;
        if (role_of(p->name) == ATTENTION_V) j->attention_count++;
    }
    qsort(j->plans, (size_t)j->count, sizeof *j->plans, by_layer);
    for (int64_t i = 0; i < j->count; i++) {
        plan *p = &j->plans[i];
        tfm_type now = p->info.tensor.type;
        int64_t width = p->info.tensor.dim[p->info.tensor.rank - 1];
        p->type = now;
        if (is_converted(j, p))
            p->type = gguf_type_block(j->to.type) > 1 ? fallback(choose(j, p), width) : j->to.type;
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
    gguf_meta_u32(w, "general.file_type", j->to.number);
    for (int64_t i = 0; i < j->count; i++) {
        const plan *p = &j->plans[i];
        tfm_shape shape = { p->info.tensor.rank, { 0 } };
        memcpy(shape.dim, p->info.tensor.dim, sizeof shape.dim);
        gguf_tensor(w, p->name, p->type, shape);
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
    const file_type *to = file_types;
    while (to->name && strcmp(to->name, argv[2]) != 0) to++;
    if (!to->name) cli_usage("%s: no such type; Q8_0, Q4_0, Q4_K_M, Q6_K, F16 and BF16 are", argv[2]);
    j.in = argv[0];
    j.out = argv[1];
    j.to = *to;
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
