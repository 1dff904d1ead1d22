/* bench - how fast a model runs, in tokens per second and as a share of what the machine can do.
   cc -O2 -I. tools/bench.c -o bench -lm -pthread

   Rates of one CPU vary from second to second, with the clock and with what else runs. So memory and
   arithmetic are timed between the runs that are compared with them, and shares are the medians of
   the shares of single runs. */
#define _XOPEN_SOURCE 700
#define TFM_IMPLEMENTATION
#include "tfm.h"
#include "tools/cli.h"
#include "tools/bench_ops.h"
#include "tools/machine.h"
#include "tools/random_model.h"
#include "tools/table.h"

#define PIECE 0.5                       /* seconds of decoding between two plain reads */

static struct {
    const char *random, *prompts, *threads, *depths, *out, *save, *python;
    int64_t tokens, repetitions, batch, read;
    float limit;
    tfm_type cache;
    tfm_level level;
    bool repack, machine, ops, json, markdown;
} o = { .prompts = "128,512", .depths = "0", .python = "python3", .tokens = 64, .repetitions = 5, .read = 1024 };

static const cli_option options[] = {
    { "--random", CLI_TEXT, &o.random, 0, 0, "SHAPE:TYPE",
      "random weights instead of MODEL, or several with commas between.\n"
      "SHAPE: gpt2-124m, smollm-135m, qwen3-0.6b, tinyllama-1.1b, stories15m\n"
      "TYPE: F32, F16, BF16, Q8_0, Q4_0, Q4_K_M, Q6_K" },
    { "--out", CLI_TEXT, &o.out, 0, 0, "FILE", "keep the model of --random as a GGUF file" },
    { "-p", CLI_TEXT, &o.prompts, 0, 0, "128,512", "lengths of prompts (128,512); 0: none" },
    { "-n", CLI_WHOLE, &o.tokens, 0, 1e6, "TOKENS", "tokens to decode (64); 0: none" },
    { "-t", CLI_TEXT, &o.threads, 0, 0, "1,2", "threads (1 and the CPUs that the process may use)" },
    { "--depth", CLI_TEXT, &o.depths, 0, 0, "0,4096", "positions already in the cache (0); filling them takes time" },
    { "-r", CLI_WHOLE, &o.repetitions, 1, 1000, "RUNS", "runs of each test (5), after one to warm up" },
    { "--limit", CLI_REAL, &o.limit, 0, 1e6, "SECONDS",
      "no further run of a test after that long (0: no limit;\n--ops: 10)" },
    { "-b", CLI_WHOLE, &o.batch, 1, 65536, "BATCH", "positions of a prompt at once (what the library takes)" },
    { "--level", CLI_LEVEL, &o.level, 0, 0, "NAME", "kernels (auto: the best that this CPU has); one of" },
    { "--kv", CLI_CACHE, &o.cache, 0, 0, "f32|f16", "type of the cache of keys and values (f32)" },
    { "--repack", CLI_FLAG, &o.repack, 0, 0, NULL, "interleave quantized weights at load, as generate does" },
    { "--machine", CLI_FLAG, &o.machine, 0, 0, NULL, "time plain reads and arithmetic instead of a model" },
    { "--ops", CLI_FLAG, &o.ops, 0, 0, NULL, "time single ops, also those of PyTorch and OpenBLAS (-t 1)" },
    { "--python", CLI_TEXT, &o.python, 0, 0, "PROGRAM", "where PyTorch is looked for (python3)" },
    { "--read", CLI_WHOLE, &o.read, 0, 1 << 20, "MIB", "bytes of a plain read (1024 MiB); 0: none" },
    { "--json", CLI_FLAG, &o.json, 0, 0, NULL, "print one JSON array" },
    { "--md", CLI_FLAG, &o.markdown, 0, 0, NULL, "print a Markdown table" },
    { "--save", CLI_TEXT, &o.save, 0, 0, "FILE", "write the JSON to FILE, too" },
    { NULL, CLI_FLAG, NULL, 0, 0, NULL, NULL }
};
static const cli_program program = {
    "bench", "[MODEL...]", 0, 64,
    "Times prompts and decoding of GGUF models, or with --machine or --ops something else.\n"
    "  GB/s    bytes of the weights that a token needs, times tokens/s; the token embedding counts\n"
    "          if it is the output matrix too\n"
    "  read    these as % of a plain read with as many threads, timed between the runs\n"
    "  GFLOP/s twice the weights that are multiplied, times tokens/s; of a prompt the last position\n"
    "          alone has logits; attention is not counted\n"
    "  peak    these as % of the CPU's arithmetic: f32 multiply-add, or int8 products for quantized\n"
    "          weights", options
};

/* ---- Options that are lists ---- */

enum { LIST = 64 };
typedef struct list { int64_t value[LIST], largest; int count; } list;

static list parse_list(const char *option, const char *text, double min, double max) {
    list l = { { 0 }, 0, 0 };
    for (const char *p = text;; p++) {
        char item[32];
        size_t n = strcspn(p, ",");
        if (l.count == LIST) cli_usage("%s: more than %d numbers", option, LIST);
        snprintf(item, sizeof item, "%.*s", n < sizeof item ? (int)n : (int)sizeof item - 1, p);
        cli_set(&(cli_option){ option, CLI_WHOLE, &l.value[l.count], min, max, NULL, NULL }, item);
        if (l.value[l.count] > l.largest) l.largest = l.value[l.count];
        l.count++;
        p += n;
        if (!*p) return l;
    }
}
/* -t, or else `first`, 1 and all CPUs; or all powers of two between them. */
static list thread_list(bool powers) {
    if (o.threads) return parse_list("-t", o.threads, 1, 256);
    list l = { { 1 }, tfm_cpu_count(), 1 };
    for (int64_t t = 2; powers && t < l.largest; t *= 2) l.value[l.count++] = t;
    if (l.largest > 1) l.value[l.count++] = l.largest;
    return l;
}

/* ---- What the results begin with ---- */

static const char *cpu_name(void) {
    static char line[256];
    FILE *f = fopen("/proc/cpuinfo", "r");
    char *name = NULL;
    while (f && !name && fgets(line, sizeof line, f))
        if (strncmp(line, "model name", 10) == 0) name = strchr(line, ':');
    if (f) fclose(f);
    if (!name) return "unknown CPU";
    name[strcspn(name, "\n")] = 0;
    return name + 1 + strspn(name + 1, " ");
}
static void print_table(const table *t, const char *caption) {
    if (!o.json && t->count > 0) printf("%s%s\n\n", caption, o.markdown ? "" : ":");
    if (o.json || t->count > 0) table_print(stdout, t, o.json ? TABLE_JSON : o.markdown ? TABLE_MARKDOWN : TABLE_PLAIN);
    free(t->rows);
}
static void save_table(const table *t) {
    if (!o.save) return;
    FILE *f = cli_create(o.save);
    table_print(f, t, TABLE_JSON);
    cli_commit(f);
}

/* ---- The machine ---- */

enum { M_WHAT, M_LEVEL, M_THREADS, M_MEDIAN, M_MAX, M_UNIT, M_CPU };
static const table_column machine_columns[] = {
    { "what", "what", TABLE_TEXT }, { "level", "level", TABLE_TEXT }, { "threads", "threads", 0 },
    { "median", "median", 1 }, { "max", "max", 1 }, { "unit", "unit", TABLE_TEXT }, { "cpu", NULL, TABLE_TEXT },
    { NULL, NULL, 0 }
};

/* One line: of a plain read, if peak is NULL. */
static void time_machine(table *t, machine_buffer buffer, const machine_peak *peak, int threads) {
    double *rate = cli_alloc((size_t)o.repetitions, sizeof *rate), begin = 0;
    int64_t count = 0;
    for (int64_t i = -1; i < o.repetitions; i++) {         /* -1: to warm up */
        double r = 1e-9 * (peak ? machine_arithmetic(peak, threads) : machine_read(buffer, threads));
        if (i < 0) begin = cli_seconds();
        else rate[count++] = r;
        if (count && o.limit > 0 && cli_seconds() - begin > (double)o.limit) break;
    }
    table_cell *row = table_add(t);
    char what[64];
    snprintf(what, sizeof what, "plain read of %zu MiB", buffer.size >> 20);
    table_set(&row[M_WHAT], peak ? peak->how : what);
    table_set(&row[M_LEVEL], peak ? machine_level_names[peak->level] : "");
    table_set(&row[M_UNIT], !peak ? "GB/s" : peak->kind == MACHINE_F32 ? "GFLOP/s" : "Gop/s");
    table_set(&row[M_CPU], cpu_name());
    row[M_THREADS].number = threads;
    row[M_MEDIAN].number = table_median(rate, count);
    row[M_MAX].number = rate[count - 1];
    free(rate);
}
static void bench_machine(void) {
    list threads = thread_list(true);
    table t = { machine_columns, NULL, 0 };
    machine_buffer buffer = { NULL, 0 };
    char caption[400];
    double cache = machine_cache();
    if (o.read > 0) buffer = machine_buffer_new((double)o.read * 1048576);
    for (int i = 0; i < threads.count; i++) {
        if (buffer.data) time_machine(&t, buffer, NULL, (int)threads.value[i]);
        for (const machine_peak *p = machine_peaks; p->how; p++)
            if (machine_has(p->level)) time_machine(&t, buffer, p, (int)threads.value[i]);
    }
    free(buffer.data);
    snprintf(caption, sizeof caption, "%s, largest cache %.0f MiB%s, medians of %d", cpu_name(), cache / 1048576,
             cache > (double)buffer.size / 2 ? " (too large for the buffer: part of it is read from there)" : "",
             (int)o.repetitions);
    save_table(&t);
    print_table(&t, caption);
}

/* ---- Models ---- */

typedef struct weights {                /* that a token needs */
    double bytes, layers, output;       /* layers, output: elements of matrices */
    bool integer;                       /* most are quantized */
    char type[16];                      /* of most bytes */
} weights;

typedef struct model {
    char name[96], type[16];
    tfm_model *m;
    tfm_session *s;
    weights w;
    int32_t *ids;
    int64_t id_count, filled;           /* filled: positions in the cache that hold ids from the first on */
} model;

enum { R_MODEL, R_TYPE, R_THREADS, R_TEST, R_TOKENS, R_DEPTH, R_MEDIAN, R_MIN, R_MAX, R_GBS, R_READ_SHARE, R_GFLOPS,
       R_PEAK_SHARE, R_READ, R_PEAK, R_BYTES, R_RUNS, R_LEVEL, R_CACHE, R_BATCH, R_CPU };
static const table_column model_columns[] = {
    { "model", "model", TABLE_TEXT }, { "type", "type", TABLE_TEXT }, { "threads", "threads", 0 },
    { "test", "test", TABLE_TEXT }, { "tokens", "tokens", 0 }, { "depth", "depth", 0 }, { "tokens_s", "tokens/s", 2 },
    { "min", "min", 2 }, { "max", "max", 2 }, { "gb_s", "GB/s", 2 }, { "read_percent", "read %", 1 },
    { "gflop_s", "GFLOP/s", 2 }, { "peak_percent", "peak %", 1 }, { "read_gb_s", NULL, 2 },
    { "peak_gflop_s", NULL, 2 }, { "bytes_per_token", NULL, 0 }, { "runs", NULL, 0 }, { "level", NULL, TABLE_TEXT },
    { "kv", NULL, TABLE_TEXT }, { "batch", NULL, 0 }, { "cpu", NULL, TABLE_TEXT }, { NULL, NULL, 0 }
};

typedef struct bench {                  /* of models */
    list prompts, threads, depths;
    machine_buffer buffer;
    table table;
    int64_t done, total;                /* tests */
} bench;

static bool name_is(tfm_string name, const char *text) {
    return name.size == strlen(text) && memcmp(name.data, text, name.size) == 0;
}
static weights count_weights(const tfm_model *m) {
    weights w = { 0, 0, 0, false, "" };
    const tfm_file *f = tfm_model_file(m);
    tfm_tensor_info info;
    bool tied = !tfm_file_tensor(f, "output.weight", &info);
    double quantized = 0;
    cli_types types = { { 0 }, TFM_F32 };
    for (int64_t i = 0; tfm_file_tensor_at(f, i, &info); i++) {
        bool embedding = name_is(info.name, "token_embd.weight");
        if ((embedding && !tied) || name_is(info.name, "position_embd.weight")) continue;      /* one row is read */
        bool output = embedding || name_is(info.name, "output.weight");
        double count = info.tensor.rank > 1 ? (double)tfm_count(info.tensor) : 0;
        w.bytes += (double)info.bytes;
        *(output ? &w.output : &w.layers) += count;
        if (tfm_type_block(info.tensor.type) > 1) quantized += count;
        cli_count_type(&types, &info);
    }
    snprintf(w.type, sizeof w.type, "%s", tfm_type_name(types.most));
    w.integer = quantized > (w.layers + w.output) / 2;
    return w;
}

/* One run: tokens/s, and what memory and arithmetic gave around it. */
typedef struct sample { double rate, read, peak; } sample;

static void eval(model *m, const int32_t *ids, int64_t n) {
    if (tfm_eval(m->s, ids, n) != TFM_OK) cli_fail_at(m->name, tfm_message(tfm_session_context(m->s)));
}
static void rewind_to(model *m, int64_t depth) {
    if (tfm_rewind(m->s, depth) != TFM_OK) cli_fail_at(m->name, tfm_message(tfm_session_context(m->s)));
}
static sample time_prompt(model *m, const machine_peak *peak, int threads, int64_t depth, int64_t tokens) {
    sample s = { 0, (double)NAN, machine_arithmetic(peak, threads) };
    rewind_to(m, depth);
    double begin = cli_seconds();
    eval(m, m->ids, tokens);
    s.rate = (double)tokens / (cli_seconds() - begin + 1e-9);
    s.peak = (s.peak + machine_arithmetic(peak, threads)) / 2;
    return s;
}
/* Decodes in pieces, with a plain read before each and after the last. What that drove out of the
   cache comes back with a token that does not count. */
static sample time_decode(model *m, const machine_peak *peak, machine_buffer buffer, int threads, int64_t depth,
                          int64_t tokens) {
    sample s = { 0, (double)NAN, machine_arithmetic(peak, threads) };
    double spent = 0, reading = 0, reads = 0;
    rewind_to(m, depth);
    for (int64_t i = 0; i <= tokens;) {
        if (buffer.data) {
            reading += 1 / machine_read(buffer, threads);
            reads++;
        }
        if (i == tokens) break;
        eval(m, m->ids, 1);
        rewind_to(m, depth + i);
        double begin = cli_seconds(), now = begin;
        while (i < tokens && now - begin < PIECE) {
            eval(m, &m->ids[i++ % m->id_count], 1);
            now = cli_seconds();
        }
        spent += now - begin;
    }
    s.rate = (double)tokens / (spent + 1e-9);
    if (reads > 0) s.read = reads / reading;
    return s;
}

static void fill(model *m, int64_t depth) {
    if (m->filled > depth) m->filled = depth;
    rewind_to(m, m->filled);
    if (depth > m->filled) eval(m, m->ids + m->filled, depth - m->filled);
    m->filled = depth;
}

/* Takes a test's row from its runs. prompt: how many tokens; 0: it decoded. */
static void add_row(bench *b, const model *m, int threads, int64_t depth, int64_t prompt, const sample *runs,
                    int64_t count) {
    double *v = cli_alloc((size_t)count, sizeof *v);
    double flop = 2 * (m->w.layers + m->w.output / (prompt > 0 ? (double)prompt : 1));
    table_cell *row = table_add(&b->table);
    table_set(&row[R_MODEL], m->name);
    table_set(&row[R_TYPE], m->type);
    table_set(&row[R_TEST], prompt ? "prompt" : "decode");
    table_set(&row[R_LEVEL], tfm_level_name(o.level));
    table_set(&row[R_CACHE], o.cache == TFM_F16 ? "f16" : "f32");
    table_set(&row[R_CPU], cpu_name());
    row[R_THREADS].number = threads;
    row[R_TOKENS].number = (double)(prompt ? prompt : o.tokens);
    row[R_DEPTH].number = (double)depth;
    row[R_RUNS].number = (double)count;
    if (o.batch) row[R_BATCH].number = (double)o.batch;
    row[R_BYTES].number = m->w.bytes;
#define MEDIAN(cell, of) for (int64_t i = 0; i < count; i++) v[i] = (of); row[cell].number = table_median(v, count)
    MEDIAN(R_MEDIAN, runs[i].rate);
    row[R_MIN].number = v[0];
    row[R_MAX].number = v[count - 1];
    MEDIAN(R_GFLOPS, 1e-9 * runs[i].rate * flop);
    MEDIAN(R_PEAK, 1e-9 * runs[i].peak);
    MEDIAN(R_PEAK_SHARE, 100 * runs[i].rate * flop / runs[i].peak);
    if (!prompt) { MEDIAN(R_GBS, 1e-9 * runs[i].rate * m->w.bytes); }
    if (!prompt && b->buffer.data) {
        MEDIAN(R_READ, 1e-9 * runs[i].read);
        MEDIAN(R_READ_SHARE, 100 * runs[i].rate * m->w.bytes / runs[i].read);
    }
#undef MEDIAN
    free(v);
}
static void time_test(bench *b, model *m, int threads, int64_t depth, int64_t prompt) {
    const machine_peak *peak = machine_peak_for(m->w.integer ? MACHINE_INT8 : MACHINE_F32, tfm_level_name(o.level));
    sample *runs = cli_alloc((size_t)o.repetitions, sizeof *runs);
    int64_t count = 0, tokens = prompt ? prompt : o.tokens;
    double begin = 0;
    if (depth + tokens > tfm_session_capacity(m->s)) {
        fprintf(stderr, "bench: %s: no position after %" PRId64 ", so no %s of %" PRId64 " at depth %" PRId64 "\n",
                m->name, tfm_session_capacity(m->s), prompt ? "prompt" : "decoding", tokens, depth);
        b->done += 1 + o.repetitions;
        free(runs);
        return;
    }
    for (int64_t i = -1; i < o.repetitions; i++) {         /* -1: to warm up */
        sample s = prompt ? time_prompt(m, peak, threads, depth, tokens)
                          : time_decode(m, peak, b->buffer, threads, depth, i < 0 && tokens > 8 ? 8 : tokens);
        if (i < 0) begin = cli_seconds();
        else runs[count++] = s;
        b->done++;
        cli_progress("timed", b->done < b->total ? b->done : b->total - 1, b->total);
        if (count && o.limit > 0 && cli_seconds() - begin > (double)o.limit) break;
    }
    add_row(b, m, threads, depth, prompt, runs, count);
    free(runs);
}
static void bench_session(bench *b, model *m, int threads, int64_t context) {
    tfm_error err;
    m->s = tfm_session_new(m->m, &(tfm_session_opts){ .context = (int)context, .batch = (int)o.batch,
        .threads = threads, .cache = o.cache, .level = o.level }, &err);
    if (!m->s) cli_fail_at(m->name, err.message);
    m->filled = 0;
    for (int d = 0; d < b->depths.count; d++) {
        int64_t depth = b->depths.value[d];
        if (depth <= tfm_session_capacity(m->s)) fill(m, depth);
        for (int p = 0; p < b->prompts.count; p++)
            if (b->prompts.value[p] > 0) time_test(b, m, threads, depth, b->prompts.value[p]);
        if (o.tokens > 0) time_test(b, m, threads, depth, 0);
    }
    tfm_session_free(m->s);
}
/* type: what to call it; NULL: the one of most bytes. discard: the file goes once it is open. */
static void bench_model(bench *b, const char *path, const char *name, const char *type, bool discard) {
    model m = { .s = NULL };
    tfm_error err;
    int64_t longest = b->prompts.largest > o.tokens ? b->prompts.largest : o.tokens;
    int64_t context = b->depths.largest + (longest > 0 ? longest : 1);
    snprintf(m.name, sizeof m.name, "%s", name);
    m.m = tfm_model_open(path, &(tfm_model_opts){ .repack = o.repack }, &err);
    if (!m.m) cli_fail_at(path, err.message);
    if (discard) {
        remove(path);
        cli_part[0] = 0;
    }
    m.w = count_weights(m.m);
    snprintf(m.type, sizeof m.type, "%s", type ? type : m.w.type);
    m.id_count = context;
    m.ids = cli_alloc((size_t)context, sizeof *m.ids);
    tfm_rng rng = { 1 };
    for (int64_t i = 0; i < context; i++)
        m.ids[i] = (int32_t)(tfm_random(&rng) % (uint64_t)tfm_model_hparams(m.m)->vocab);
    for (int t = 0; t < b->threads.count; t++) bench_session(b, &m, (int)b->threads.value[t], context);
    tfm_model_free(m.m);
    free(m.ids);
}

/* ---- Random models ---- */

typedef struct random_model { const random_shape *shape; const gguf_file_type *type; } random_model;

/* The next SHAPE:TYPE of a list. */
static random_model parse_random(const char **text) {
    random_model r;
    char item[64];
    size_t n = strcspn(*text, ",");
    snprintf(item, sizeof item, "%.*s", n < sizeof item ? (int)n : (int)sizeof item - 1, *text);
    char *colon = strchr(item, ':');
    if (!colon) cli_usage("--random %s: must be SHAPE:TYPE", item);
    *colon = 0;
    r.shape = random_shape_named(item);
    r.type = gguf_file_type_named(colon + 1);
    if (!r.shape) cli_usage("--random %s: no such shape (--help lists them)", item);
    if (!r.type) cli_usage("--random %s: no such type (--help lists them)", colon + 1);
    *text += (*text)[n] ? n + 1 : n;
    return r;
}
/* Without --out the file is temporary: it is removed as soon as it is open, or by a signal before. */
static void bench_random(bench *b, random_model r) {
    char path[sizeof cli_part];
    const char *folder = getenv("TMPDIR");
    snprintf(path, sizeof path, "%s/tfm-bench.gguf", folder && *folder ? folder : "/tmp");
    if (o.out) snprintf(path, sizeof path, "%s", o.out);
    FILE *f = cli_create(path);
    random_model_write(f, path, r.shape, r.type, 1);
    bool discard = !o.out && cli_part[0];
    if (!discard) cli_commit(f);
    else {
        errno = 0;
        if (fclose(f) != 0) cli_fail("%s: %s", path, errno ? strerror(errno) : "cannot be written");
        strcpy(path, cli_part);
    }
    bench_model(b, path, r.shape->name, r.type->name, discard);
}
static void bench_models(char **paths, int count) {
    bench b = { .prompts = parse_list("-p", o.prompts, 0, 1 << 20), .threads = thread_list(false),
                .depths = parse_list("--depth", o.depths, 0, 1 << 24), .table = { model_columns, NULL, 0 } };
    random_model randoms[LIST];
    int random_count = 0, prompts = 0;
    char caption[400];
    for (const char *p = o.random; p && *p && random_count < LIST;) randoms[random_count++] = parse_random(&p);
    if (o.random && random_count == 0) cli_usage("--random: must be SHAPE:TYPE");
    if (o.out && random_count != 1) cli_usage("--out goes with one model of --random");
    for (int i = 0; i < b.prompts.count; i++) prompts += b.prompts.value[i] > 0;
    int64_t tests = (int64_t)b.threads.count * b.depths.count * (prompts + (o.tokens > 0));
    b.total = tests * (count + random_count) * (1 + o.repetitions);
    if (o.read > 0 && o.tokens > 0) b.buffer = machine_buffer_new((double)o.read * 1048576);
    for (int i = 0; i < count; i++) {
        const char *slash = strrchr(paths[i], '/');
        bench_model(&b, paths[i], slash ? slash + 1 : paths[i], NULL, false);
    }
    for (int i = 0; i < random_count; i++) bench_random(&b, randoms[i]);
    cli_progress("timed", b.total, b.total);
    free(b.buffer.data);
    snprintf(caption, sizeof caption, "%s, tfm.h %s, kernels %s, cache %s, medians of %d", cpu_name(), TFM_VERSION,
             tfm_level_name(o.level), o.cache == TFM_F16 ? "f16" : "f32", (int)o.repetitions);
    save_table(&b.table);
    print_table(&b.table, caption);
}

/* ---- Ops ---- */

enum { O_OP, O_THREADS, O_TIME, O_GFLOPS, O_TORCH, O_TORCH_RATIO, O_BLAS, O_BLAS_RATIO, O_LEVEL, O_TORCH_VERSION,
       O_CPU };
static const table_column op_columns[] = {
    { "op", "op", TABLE_TEXT }, { "threads", "threads", 0 }, { "us", "us", 1 }, { "gflop_s", "GFLOP/s", 1 },
    { "pytorch_us", "PyTorch us", 1 }, { "pytorch_ratio", "ratio", 2 }, { "openblas_us", "OpenBLAS us", 1 },
    { "openblas_ratio", "ratio", 2 }, { "level", NULL, TABLE_TEXT }, { "pytorch", NULL, TABLE_TEXT },
    { "cpu", NULL, TABLE_TEXT }, { NULL, NULL, 0 }
};

enum { OURS, TORCH, BLAS, SIDES };

typedef struct op_bench {
    ops_ours ours;
    ops_blas blas;
    ops_torch torch;
    int threads;
    double rate;                        /* of the last matmul, for an estimate of the next */
} op_bench;

static double time_side(op_bench *b, const op *p, int side) {
    if (side == OURS) return ops_time_ours(&b->ours, p);
    if (side == TORCH) return b->torch.to ? ops_time_torch(&b->torch, p) : (double)NAN;
    return b->blas.sgemm && p->kind == OP_MATMUL ? ops_time_blas(&b->blas, &b->ours, p, b->threads) : (double)NAN;
}
/* All sides by turns, up to 10 s of ours. A product of which one would last 5 s is left out. */
static void time_op(op_bench *b, const op *p, table *t) {
    double *seconds[SIDES], spent = 0, median[SIDES];
    int64_t count = 0;
    double limit = o.limit > 0 ? (double)o.limit : 10;
    table_cell *row = table_add(t);
    table_set(&row[O_OP], p->title);
    table_set(&row[O_LEVEL], tfm_level_name(o.level));
    table_set(&row[O_TORCH_VERSION], b->torch.version);
    table_set(&row[O_CPU], cpu_name());
    row[O_THREADS].number = b->threads;
    if (p->kind == OP_MATMUL && b->rate > 0 && op_flop(p) / b->rate > 5) {
        fprintf(stderr, "bench: %s: left out, it would last %.0f s\n", p->title, op_flop(p) / b->rate);
        return;
    }
    for (int side = 0; side < SIDES; side++) {
        seconds[side] = cli_alloc((size_t)o.repetitions, sizeof **seconds);
        time_side(b, p, side);                             /* to warm up */
    }
    while (count < o.repetitions && (count == 0 || spent < limit)) {
        for (int side = 0; side < SIDES; side++) seconds[side][count] = time_side(b, p, side);
        spent += seconds[OURS][count++];
    }
    for (int side = 0; side < SIDES; side++) {
        median[side] = table_median(seconds[side], count);
        free(seconds[side]);
    }
    if (p->kind == OP_MATMUL) b->rate = op_flop(p) / median[OURS];
    row[O_TIME].number = 1e6 * median[OURS];
    row[O_GFLOPS].number = 1e-9 * op_flop(p) / median[OURS];
    row[O_TORCH].number = 1e6 * median[TORCH];
    row[O_TORCH_RATIO].number = median[TORCH] / median[OURS];
    row[O_BLAS].number = 1e6 * median[BLAS];
    row[O_BLAS_RATIO].number = median[BLAS] / median[OURS];
}
static void bench_ops(const char *self) {
    const char *script = "tools/bench_ops.py", *slash = strrchr(self, '/');
    char path[4096], caption[400], torch[64] = "";
    list threads = o.threads ? thread_list(false) : (list){ { 1 }, 1, 1 };
    table t = { op_columns, NULL, 0 };
    op_bench b = { .blas = ops_blas_new() };
    FILE *f = fopen(script, "r");
    if (f) fclose(f);
    else if (slash) {                                      /* from build/, beside the program's folder */
        snprintf(path, sizeof path, "%.*s/../%s", (int)(slash - self), self, script);
        script = path;
    }
    for (int i = 0; i < threads.count; i++) {
        b.threads = (int)threads.value[i];
        b.rate = 0;
        b.ours = ops_ours_new(b.threads, o.level);
        b.torch = ops_torch_new(o.python, script, b.threads);
        if (b.torch.to) snprintf(torch, sizeof torch, "%s", b.torch.version);
        if (b.blas.set_threads) b.blas.set_threads(b.threads);
        for (int k = 0; k < OPS; k++) {
            time_op(&b, &ops[k], &t);
            cli_progress("timed", i * OPS + k, threads.count * OPS);
        }
        cli_progress("timed", OPS, OPS);
        ops_torch_free(&b.torch);
        ops_ours_free(&b.ours);
    }
    snprintf(caption, sizeof caption,
             "%s, tfm.h %s, kernels %s, %s, %s, medians of %d; a ratio above 1: ours is faster", cpu_name(),
             TFM_VERSION, tfm_level_name(o.level), torch[0] ? torch : "no PyTorch",
             b.blas.sgemm ? "OpenBLAS" : "no OpenBLAS", (int)o.repetitions);
    save_table(&t);
    print_table(&t, caption);
}

int main(int argc, char **argv) {
    const char *self = argv[0];
    int count = cli_parse(&program, argc, argv);
    if (o.json && o.markdown) cli_usage("--json and --md: only one of them");
    if (o.machine + o.ops + (count > 0 || o.random) > 1) cli_usage("a model, --machine and --ops: only one of them");
    if (o.out && !o.random) cli_usage("--out goes with one model of --random");
    if (o.machine) bench_machine();
    else if (o.ops) bench_ops(self);
    else if (count > 0 || o.random) bench_models(argv, count);
    else cli_usage("what to time is missing: MODEL, --random, --machine or --ops");
    cli_finish();
    return 0;
}
