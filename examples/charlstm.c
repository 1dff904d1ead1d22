/* charlstm - writes text character by character with an LSTM (embedding, LSTMs, dense) from a GGUF file.
   cc -O2 -I. examples/charlstm.c -o charlstm -lm */
#define _XOPEN_SOURCE 700
#define TFM_IMPLEMENTATION
#include "tfm.h"
#include "tools/cli.h"

#define SHIPPED "examples/models/shakespeare-lstm.gguf"
#define PIECE 256                       /* characters of a prompt or a file that run in one call */

static struct {
    const char *prompt, *bpc;
    int64_t characters, top_k, threads;
    float temperature;
    cli_seed seed;
    tfm_level level;
    bool echo;
} o = { .characters = 500, .temperature = 0.7f };

static const cli_option options[] = {
    { "-p", CLI_TEXT, &o.prompt, 0, 0, "TEXT", "the text to go on from; without one, the beginning of a line" },
    { "-n", CLI_WHOLE, &o.characters, 0, CLI_MANY, "CHARACTERS", "write so many (500)" },
    { "--temp", CLI_REAL, &o.temperature, 0, (double)FLT_MAX, "X", "temperature (0.7); 0 takes the likeliest" },
    { "--top-k", CLI_WHOLE, &o.top_k, 0, CLI_INT, "K", "draw from the K likeliest (0: from all)" },
    { "-s", CLI_SEED, &o.seed, 0, 0, "SEED", "the same seed writes the same text (random)" },
    { "--echo", CLI_FLAG, &o.echo, 0, 0, NULL, "print the prompt first" },
    { "--bpc", CLI_TEXT, &o.bpc, 0, 0, "FILE", "print bits per character on FILE's text instead" },
    { "-t", CLI_WHOLE, &o.threads, 1, 256, "THREADS", "threads (1)" },
    { "--level", CLI_LEVEL, &o.level, 0, 0, "NAME", "kernels (auto: the best that this CPU has); one of" },
    { NULL, CLI_FLAG, NULL, 0, 0, NULL, NULL }
};
static const cli_program program = {
    "charlstm", "[MODEL.gguf]", 0, 1,
    "Writes text that continues a prompt, character by character. Without MODEL the shipped one,\n" SHIPPED ".", options
};

typedef struct writer {
    const tfm_net *net;
    const tfm_tokenizer *tokenizer;
    tfm_context *c;
    int64_t vocab;
    float *state;                       /* of the LSTMs, carried from call to call */
} writer;

/* The scores of what follows each of n characters: [n, vocab], in c's arena. */
static float *run(const writer *w, const int32_t *ids, int64_t n) {
    tfm_tensor x = tfm_wrap_type(w->c, ids, TFM_I32, tfm_shape1(n));
    tfm_tensor y = tfm_net_run(w->c, w->net, x, w->state);
    cli_check_interrupt();
    if (tfm_status_of(w->c) != TFM_OK) cli_fail("%s", tfm_message(w->c));
    return (float *)y.data;
}

/* -log2 of the probability of id. */
static double bits(const float *scores, int64_t vocab, int32_t id) {
    double most = (double)scores[0], sum = 0;
    for (int64_t i = 1; i < vocab; i++) if ((double)scores[i] > most) most = (double)scores[i];
    for (int64_t i = 0; i < vocab; i++) sum += exp((double)scores[i] - most);
    return (log(sum) + most - (double)scores[id]) / log(2.0);
}
static void print_bits(const writer *w, const int32_t *ids, int64_t n) {
    double sum = 0;
    if (n < 2) cli_fail("%s: bits per character need two characters", o.bpc);
    for (int64_t at = 0; at < n - 1; at += PIECE) {
        tfm_mark mark = tfm_arena_mark(w->c);
        int64_t count = n - 1 - at < PIECE ? n - 1 - at : PIECE;
        const float *scores = run(w, ids + at, count);
        for (int64_t i = 0; i < count; i++) sum += bits(scores + i * w->vocab, w->vocab, ids[at + i + 1]);
        tfm_arena_rewind(w->c, mark);
        cli_progress("read", at + count, n - 1);
    }
    printf("%.4f bits per character (%" PRId64 " characters)\n", sum / (double)(n - 1), n - 1);
}

static void print_character(const writer *w, int32_t id) {
    char text[256];
    size_t n = tfm_token_bytes(w->tokenizer, id, false, text, sizeof text);
    if (fwrite(text, 1, n, stdout) != n || fflush(stdout) != 0) cli_finish();           /* says why */
}
static void write_text(const writer *w, const int32_t *prompt, int64_t n) {
    tfm_rng rng = { o.seed.given ? o.seed.value : cli_random_seed() };
    tfm_sampling sampling = { .temperature = o.temperature, .top_k = (int)o.top_k };
    if (!o.seed.given && o.temperature > 0) fprintf(stderr, "seed: %" PRIu64 "\n", rng.state);
    const int32_t *ids = prompt;
    int32_t next;
    for (int64_t done = 0, at = 0, count = n; done < o.characters;) {
        tfm_mark mark = tfm_arena_mark(w->c);
        int64_t piece = count - at < PIECE ? count - at : PIECE;
        float *scores = run(w, ids + at, piece);
        at += piece;
        if (at == count) {                                 /* the last of them: what follows it? */
            next = tfm_sample(w->c, scores + (piece - 1) * w->vocab, w->vocab, &sampling, NULL, 0, &rng);
            if (next < 0) cli_fail("%s", tfm_message(w->c));
            print_character(w, next);
            ids = &next;
            at = 0;
            count = 1;
            done++;
        }
        tfm_arena_rewind(w->c, mark);
    }
    if (cli_is_terminal(stdout)) putchar('\n');
}

static void check_net(const char *path, const tfm_net_info *info, const tfm_tokenizer *t) {
    if (!info->vocab || info->output.rank != 2 || info->output.dim[1] != info->vocab)
        cli_fail("%s: the net does not score the next of its own ids at every step", path);
    if (info->state <= 0 || info->input.dim[0] != 0)
        cli_fail("%s: the net cannot run step by step: %s", path,
                 info->input.dim[0] ? "its number of steps is fixed" : "nothing carries on, or a layer runs backwards");
    if (tfm_vocab_size(t) != info->vocab)
        cli_fail("%s: %" PRId64 " characters for a net of %" PRId64, path, tfm_vocab_size(t), info->vocab);
}

int main(int argc, char **argv) {
    char beside[4096];
    const char *path = cli_shipped(argv[0], SHIPPED, beside, sizeof beside);
    if (cli_parse(&program, argc, argv) > 0) path = argv[0];
    if (o.bpc && o.prompt) cli_usage("-p and --bpc: only one of them");
    size_t size;
    char *text = cli_text(o.prompt, o.bpc, &size);
    tfm_error err;
    tfm_file *file = tfm_file_open(path, NULL, &err);
    if (!file) cli_fail_at(path, err.message);
    tfm_net *net = tfm_net_new(file, NULL, &err);
    tfm_tokenizer *tokenizer = net ? tfm_tokenizer_new(file, NULL, &err) : NULL;
    if (!tokenizer) cli_fail_at(path, err.message);
    const tfm_net_info *info = tfm_net_info_of(net);
    check_net(path, info, tokenizer);
    tfm_context *c = tfm_context_new(&(tfm_context_opts){ .threads = (int)o.threads, .level = o.level }, &err);
    if (!c) cli_fail("%s", err.message);

    int64_t n = 0;
    int32_t begin = tfm_token_find(tokenizer, "\n", 1);
    if (begin < 0) begin = 0;
    if (!text || size == 0) text = text ? text : cli_alloc(1, 1), size = 0;
    int32_t *ids = cli_tokenize(c, tokenizer, text, size, NULL, size || o.bpc ? -1 : begin, &n);
    writer w = { net, tokenizer, c, info->vocab, cli_alloc((size_t)info->state, sizeof(float)) };
    for (int64_t i = 0; o.echo && size && i < n; i++) print_character(&w, ids[i]);
    if (o.bpc) print_bits(&w, ids, n);
    else write_text(&w, ids, n);
    cli_finish();
    free(w.state);
    free(ids);
    free(text);
    tfm_context_free(c);
    tfm_tokenizer_free(tokenizer);
    tfm_net_free(net);
    tfm_file_free(file);
    return 0;
}
