/* generate - writes text with a GPT or Llama model from a GGUF file.
   cc -O2 -I. examples/generate.c -o generate -lm */
#define _XOPEN_SOURCE 700
#define TFM_IMPLEMENTATION
#include "tfm.h"
#include "tools/cli.h"

#define SHIPPED "examples/models/stories-q8_0.gguf"

static struct {
    const char *prompt, *file, *lora;
    int64_t tokens, top_k, threads, context;
    float temperature, top_p, min_p, repeat_penalty, lora_scale;
    cli_seed seed;
    tfm_type cache;
    tfm_level level;
    bool ids, echo, repack;
} o = { .tokens = 256, .top_k = 40, .temperature = 0.8f, .top_p = 0.95f, .min_p = 0.05f, .repeat_penalty = 1,
      .lora_scale = 1 };

static const cli_option options[] = {
    { "-p", CLI_TEXT, &o.prompt, 0, 0, "TEXT", "the prompt; without one the model begins by itself" },
    { "-f", CLI_TEXT, &o.file, 0, 0, "FILE", "the prompt is what FILE holds; - is standard input" },
    { "-n", CLI_WHOLE, &o.tokens, 0, CLI_MANY, "TOKENS", "write at most so many tokens (256)" },
    { "--temp", CLI_REAL, &o.temperature, 0, (double)FLT_MAX, "X", "temperature (0.8); 0 takes the likeliest token" },
    { "--top-k", CLI_WHOLE, &o.top_k, 0, CLI_INT, "K", "draw from the K likeliest (40); 0 is off" },
    { "--top-p", CLI_REAL, &o.top_p, CLI_ABOVE_0, 1, "P", "and of these the fewest that reach P (0.95)" },
    { "--min-p", CLI_REAL, &o.min_p, 0, 1, "P", "and of these those above P times the best (0.05)" },
    { "--repeat-penalty", CLI_REAL, &o.repeat_penalty, CLI_ABOVE_0, (double)FLT_MAX, "X",
      "makes the last 64 tokens less likely (1.0: off)" },
    { "-s", CLI_SEED, &o.seed, 0, 0, "SEED", "the same seed writes the same text (random)" },
    { "-t", CLI_WHOLE, &o.threads, 1, 256, "THREADS", "threads (the CPUs that the process may use)" },
    { "-c", CLI_WHOLE, &o.context, 1, CLI_INT, "CONTEXT", "positions (the smaller of the model's and 2048)" },
    { "--kv", CLI_CACHE, &o.cache, 0, 0, "f32|f16", "type of the cache of keys and values (f32)" },
    { "--lora", CLI_TEXT, &o.lora, 0, 0, "FILE", "an adapter (LoRA in GGUF) that is added to the model's layers" },
    { "--lora-scale", CLI_REAL, &o.lora_scale, -(double)FLT_MAX, (double)FLT_MAX, "X", "times so much (1.0)" },
    { "--ids", CLI_FLAG, &o.ids, 0, 0, NULL, "print the ids of the new tokens instead of their text" },
    { "--echo", CLI_FLAG, &o.echo, 0, 0, NULL, "print the prompt first" },
    { "--repack", CLI_FLAG, &o.repack, 0, 0, NULL, "interleave quantized weights at load: faster, takes memory" },
    { "--level", CLI_LEVEL, &o.level, 0, 0, "NAME", "kernels (auto: the best that this CPU has); one of" },
    { NULL, CLI_FLAG, NULL, 0, 0, NULL, NULL }
};
static const cli_program program = {
    "generate", "[MODEL.gguf]", 0, 1,
    "Writes text that continues a prompt. Without MODEL the shipped one, " SHIPPED ".", options
};

static tfm_session *session;

static void on_interrupt(void) { tfm_cancel(session); }

static bool on_progress(void *user, int64_t done, int64_t total) {
    (void)user;
    cli_progress("prompt", cli_interrupted ? total : done, total);
    return !cli_interrupted;
}
static bool on_text(void *user, const char *text, size_t size) {
    (void)user;
    return fwrite(text, 1, size, stdout) == size && fflush(stdout) == 0 && !cli_interrupted;
}
static bool on_id(void *user, int32_t id) {
    int64_t *printed = user;
    return printf((*printed)++ ? " %d" : "%d", (int)id) > 0 && fflush(stdout) == 0 && !cli_interrupted;
}

/* What loading, the prompt and the new tokens took, on stderr; t: when each of them began, and the end. */
static void print_figures(const char *path, const tfm_model *model, int64_t prompt, int64_t generated,
                          const double t[4]) {
    tfm_string architecture = tfm_model_hparams(model)->architecture;
    tfm_tensor_info info;
    int64_t parameters = 0;
    uint64_t bytes = 0;
    cli_types types = { { 0 }, TFM_F32 };
    for (int64_t i = 0; tfm_file_tensor_at(tfm_model_file(model), i, &info); i++) {
        parameters += tfm_count(info.tensor);
        bytes += info.bytes;
        cli_count_type(&types, &info);
    }
    fprintf(stderr, "model: %s, %.*s, %.2f M parameters, mostly %s, %.2f MiB, loaded in %.3f s\n", path,
            (int)architecture.size, architecture.data, 1e-6 * (double)parameters, tfm_type_name(types.most),
            (double)bytes / 1048576, t[1] - t[0]);
    fprintf(stderr, "prompt: %" PRId64 " tokens, %.1f tokens/s\n", prompt, (double)prompt / (t[2] - t[1] + 1e-9));
    fprintf(stderr, "new: %" PRId64 " tokens, %.1f tokens/s\n", generated, (double)generated / (t[3] - t[2] + 1e-9));
    fprintf(stderr, "first token: %.3f s after the start\n", t[2] - t[0]);
    double own, peak = cli_peak_memory(&own);
    fprintf(stderr, "peak memory: %.2f MiB, beside mapped weights %.2f MiB\n", peak / 1048576, own / 1048576);
}

/* A session, with the adapter if there is one: a file that outlives it. */
static tfm_session *open_session(const tfm_model *model, const char *path, tfm_file **adapter) {
    tfm_error err;
    *adapter = o.lora ? tfm_file_open(o.lora, NULL, &err) : NULL;
    if (o.lora && !*adapter) cli_fail_at(o.lora, err.message);
    const tfm_file *const adapters[] = { *adapter };
    tfm_session *s = tfm_session_new(model, &(tfm_session_opts){ .context = (int)o.context,
        .threads = (int)o.threads, .cache = o.cache, .level = o.level, .progress = on_progress, .adapters = adapters,
        .adapter_scales = &o.lora_scale, .adapter_count = *adapter != NULL }, &err);
    if (!s && o.lora) cli_fail("%s with %s: %s", path, o.lora, err.message);
    if (!s) cli_fail_at(path, err.message);
    return s;
}

int main(int argc, char **argv) {
    char beside[4096];
    const char *path = cli_shipped(argv[0], SHIPPED, beside, sizeof beside);
    if (cli_parse(&program, argc, argv) > 0) path = argv[0];
    size_t size;
    char *text = cli_text(o.prompt, o.file, &size);
    if (!text) text = cli_alloc(1, 1);

    double t[4] = { cli_seconds() };
    tfm_error err;
    tfm_model *model = tfm_model_open(path, &(tfm_model_opts){ .repack = o.repack }, &err);
    if (!model) cli_fail_at(path, err.message);
    const tfm_tokenizer *tokenizer = tfm_model_tokenizer(model);
    if (!tokenizer) cli_fail("%s: holds no tokenizer", path);
    tfm_file *adapter = NULL;
    session = open_session(model, path, &adapter);
    tfm_context *c = tfm_session_context(session);
    t[1] = cli_seconds();

    /* tfm_generate does all that follows in one call, for a prompt without NUL bytes. */
    int32_t bos = size == 0 || tfm_adds_bos(tokenizer) ? tfm_token_bos(tokenizer) : -1;
    int64_t prompt, generated = 0, printed = 0, room = tfm_session_capacity(session);
    int32_t *ids = cli_tokenize(c, tokenizer, text, size, &(tfm_tokenize_opts){ .add_special = false }, bos, &prompt);
    if (prompt == 0) cli_fail("the prompt is empty and %s has no BOS token to begin with", path);
    if (prompt > room)
        cli_fail("the prompt has %" PRId64 " tokens, the context (-c) room for %" PRId64, prompt, room);
    cli_stop = on_interrupt;
    if (tfm_eval(session, ids, prompt) != TFM_OK && !cli_interrupted) cli_fail("%s", tfm_message(c));
    t[2] = cli_seconds();

    for (int64_t i = 0; o.echo && o.ids && i < prompt; i++) on_id(&printed, ids[i]);
    if (o.echo && !o.ids) on_text(NULL, text, size);
    tfm_generate_opts opts = {
        .sampling = { .temperature = o.temperature, .top_k = (int)o.top_k, .top_p = o.top_p, .min_p = o.min_p,
                      .repeat_penalty = o.repeat_penalty, .seed = o.seed.given ? o.seed.value : cli_random_seed() },
        .max_tokens = o.tokens, .raw_bytes = true, .on_token = o.ids ? on_id : NULL, .generated = &generated
    };
    tfm_finish finish = TFM_FINISH_LENGTH;                 /* -n 0: to the API that is no limit */
    if (o.tokens > 0 && !cli_interrupted)
        finish = tfm_continue(session, &opts, o.ids ? NULL : on_text, &printed);
    if (finish == TFM_FINISH_ERROR) cli_fail("%s", tfm_message(c));
    if (o.ids || cli_is_terminal(stdout)) putchar('\n');
    cli_finish();
    t[3] = cli_seconds();

    print_figures(path, model, prompt, generated, t);
    if (!o.seed.given && o.temperature > 0) fprintf(stderr, "seed: %" PRIu64 "\n", opts.sampling.seed);
    if (finish == TFM_FINISH_FULL) fprintf(stderr, "stopped: the context (-c) of %" PRId64 " is full\n", room);
    cli_stop = NULL;
    tfm_session_free(session);
    tfm_file_free(adapter);
    tfm_model_free(model);
    free(ids);
    free(text);
    cli_check_interrupt();
    return 0;
}
