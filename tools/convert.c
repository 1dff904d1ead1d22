/* convert - models of other programs as GGUF files.
   cc -O2 -I. tools/convert.c -o convert -lm -pthread

   Each kind of input has a reader, tools/convert_KIND.h, which fills a convert_job: see convert_job.h.
   Input is mapped and output streamed: no more than a piece of a tensor is in memory at a time. */
#define _XOPEN_SOURCE 700
#define TFM_IMPLEMENTATION
#include "tfm.h"
#include "tools/cli.h"
#include "tools/convert_hf.h"
#include "tools/convert_job.h"
#include "tools/convert_llama2.h"
#include "tools/net_write.h"
#include "tools/convert_tfjs.h"

/* ---- A lone .safetensors file: its tensors and metadata under their names ---- */

static tfm_string decoded(tfm_string s) {                  /* what a JSON string between its quotes stands for */
    char *text = convert_keep(s.size + 3);
    snprintf(text, s.size + 3, "\"%.*s\"", (int)s.size, s.data);
    return convert_json_text("__metadata__", text, s.size + 2)->as.text;
}
static void convert_safetensors(convert_job *job) {
    const tfm_file *f = convert_open(job, job->in);
    if (job->tokenizer) cli_fail("%s: a .safetensors file alone takes no --tokenizer", job->in);
    tfm_string key;
    tfm_value v;
    for (int64_t i = 0; tfm_file_meta_at(f, i, &key, &v); i++) {
        tfm_string text = { (const char *)v.data, v.size };
        text = decoded(text);
        v.data = (const uint8_t *)text.data;
        v.size = text.size;
        gguf_meta_value(&job->out, decoded(key), &v);
    }
    tfm_tensor_info t;
    for (int64_t i = 0; tfm_file_tensor_at(f, i, &t); i++) {
        char *name = convert_keep(t.name.size + 1);
        memcpy(name, t.name.data, t.name.size);
        tfm_shape shape = { t.tensor.rank, { 0 } };
        memcpy(shape.dim, t.tensor.dim, sizeof shape.dim);
        if (t.tensor.type == TFM_TYPE_NONE)
            cli_fail("%s: %s: GGUF has no type %.*s", job->in, name, (int)t.type_name.size, t.type_name.data);
        gguf_plan *p = gguf_plan_add(&job->plans, name, t.tensor.type, shape);
        p->data = p->user = t.tensor.data;
        p->rows = convert_rows;
    }
}

/* ---- Which kind it is ---- */

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}
static bool is_folder(const char *path) {
#ifdef CLI_POSIX
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
#else
    char *config = convert_path(path, "config.json");
    return convert_exists(config);
#endif
}
static void read_input(convert_job *job) {
    if (is_folder(job->in)) { convert_hf(job); return; }
    if (ends_with(job->in, ".bin")) { convert_llama2(job); return; }
    if (ends_with(job->in, ".json")) { convert_tfjs(job); return; }
    convert_safetensors(job);
}

/* The type that most weights have, of those that files can be made of. */
static const gguf_file_type *usual_type(const gguf_plans *p) {
    int64_t weights[3] = { 0, 0, 0 };   /* f32, f16, bf16 */
    for (size_t i = 0; i < p->count; i++) {
        const gguf_plan *t = &p->list[i];
        int kind = t->from == TFM_F16 ? 1 : t->from == TFM_BF16 ? 2 : 0;
        if (t->shape.rank > 1) weights[kind] += gguf__plan_rows(t) * gguf__plan_width(t);
    }
    return gguf_file_type_named(weights[1] > weights[0] && weights[1] >= weights[2] ? "F16"
                                : weights[2] > weights[0] ? "BF16" : "F32");
}

int main(int argc, char **argv) {
    int64_t threads = tfm_cpu_count();
    const char *type = NULL;
    static convert_job job;
    const cli_option options[] = {
        { "--type", CLI_TEXT, &type, 0, 0, "TYPE", "F32, F16, BF16, Q8_0, Q4_0, Q4_K_M or Q6_K; default: that of\n"
          "most weights of IN. Which tensor gets which, llama.cpp's\nrules say" },
        { "--tokenizer", CLI_TEXT, &job.tokenizer, 0, 0, "FILE", "tokenizer.json, SentencePiece's tokenizer.model or\n"
          "llama2.c's tokenizer.bin; default: that of the folder. For a\n"
          "model.json a vocabulary as keras2gguf.py takes it" },
        { "-t", CLI_WHOLE, &threads, 1, 256, "THREADS", "default: the CPUs" },
        { NULL, CLI_FLAG, NULL, 0, 0, NULL, NULL }
    };
    const cli_program program = { "convert", "IN OUT.gguf", 2, 2,
        "Writes the model IN as a GGUF file. IN is a Hugging Face folder (config.json, safetensors,\n"
        "tokenizer), a .safetensors file, a .bin checkpoint of llama2.c, a layers model of TensorFlow.js\n"
        "(model.json and its shards) or a char LSTM as ml5.js has it (manifest.json).", options };
    cli_parse(&program, argc, argv);
    const gguf_file_type *to = type ? gguf_file_type_named(type) : NULL;
    if (type && !to) cli_usage("--type %s: no such type; F32, F16, BF16, Q8_0, Q4_0, Q4_K_M and Q6_K are", type);
    job.in = job.plans.in = argv[0];
    FILE *f = cli_create(argv[1]);
    gguf_begin_file(&job.out, f);
    read_input(&job);
    if (!to) to = usual_type(&job.plans);
    job.plans.chooser.type = to->type;
    gguf_plans_arrange(&job.plans);
    gguf_meta_u32(&job.out, "general.quantization_version", 2);
    gguf_meta_u32(&job.out, "general.file_type", to->number);
    gguf_plans_declare(&job.plans, &job.out);
    gguf_plans_write(&job.plans, &job.out, argv[1], (int)threads);
    if (!gguf_finish(&job.out)) cli_fail_at(argv[1], job.out.error);
    tfm_error err;
    if (fflush(f) == 0 && cli_part[0] && job.check && !job.check(cli_part, &err)) {
        const char *message = err.message;
        if (strncmp(message, cli_part, strlen(cli_part)) == 0) message += strlen(cli_part) + 2;
        cli_fail("%s: what was converted cannot be used: %s", job.in, message);
    }
    cli_commit(f);
    for (size_t i = 0; i < job.file_count; i++) tfm_file_free(job.files[i]);
    return 0;
}
