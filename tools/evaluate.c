/* evaluate - logits, greedy ids and perplexity of a model, to judge it with.
   cc -O2 -I. tools/evaluate.c -o evaluate -lm */
#define _XOPEN_SOURCE 700
#define TFM_IMPLEMENTATION
#include "tfm.h"
#include "tools/cli.h"
#include "tools/evaluate_net.h"

static struct {
    const char *ids, *text, *file, *input, *logits;
    int64_t greedy, context, batch, threads;
    tfm_type cache;
    tfm_level level;
} o = { .greedy = -1, .batch = 64 };

static const cli_option options[] = {
    { "--ids", CLI_TEXT, &o.ids, 0, 0, "1,2,3", "evaluate these ids as they are" },
    { "-p", CLI_TEXT, &o.text, 0, 0, "TEXT", "evaluate a text, with the BOS and EOS that MODEL asks for" },
    { "-f", CLI_TEXT, &o.file, 0, 0, "FILE", "the same of what FILE holds; - is standard input" },
    { "--input", CLI_TEXT, &o.input, 0, 0, "FILE", "run a net on samples of numbers, little-endian f32" },
    { "--logits", CLI_TEXT, &o.logits, 0, 0, "OUT",
      "write positions x vocabulary as little-endian f32;\nof an encoder its pooled output, of a net its output" },
    { "--greedy", CLI_WHOLE, &o.greedy, 0, CLI_INT, "N", "print the N likeliest ids that follow; end-of-text is none" },
    { "-c", CLI_WHOLE, &o.context, 1, CLI_INT, "CONTEXT", 
      "positions (the smaller of the model's length and the\nlarger of 512 and the tokens needed)" },
    { "-b", CLI_WHOLE, &o.batch, 1, 65536, "BATCH", "evaluate so many positions at once (64)" },
    { "-t", CLI_WHOLE, &o.threads, 1, 256, "THREADS", "threads (the CPUs that the process may use)" },
    { "--kv", CLI_CACHE, &o.cache, 0, 0, "f32|f16", "type of the cache of keys and values (f32)" },
    { "--level", CLI_LEVEL, &o.level, 0, 0, "NAME", "kernels (auto: the best that this CPU has); one of" },
    { NULL, CLI_FLAG, NULL, 0, 0, NULL, NULL }
};
static const cli_program program = {
    "evaluate", "MODEL.gguf", 1, 1,
    "Evaluates ids or a text and writes logits, prints greedy ids, or, with neither --logits nor\n"
    "--greedy, prints the perplexity X of the text with its standard error Y:\n"
    "    perplexity X +- Y (N tokens)\n"
    "X = exp(mean of -ln p) over N scored tokens, Y = X sd(-ln p) / sqrt(N). A text that fits the\n"
    "context is scored from its second token on. A longer one is cut into windows of the context's\n"
    "length, the rest at its end left out; each begins with BOS in place of its first token if the\n"
    "model has a BOS in front of texts, and tokens in its second half are scored.\n"
    "A net of layers (architecture \"sequential\") runs on --ids or --input; --logits writes its output, and\n"
    "without that it is printed, a row on a line.", options
};

static tfm_session *session;

static void on_interrupt(void) { tfm_cancel(session); }

static void evaluate(const int32_t *ids, int64_t n) {
    if (tfm_eval(session, ids, n) == TFM_OK && !cli_interrupted) return;
    cli_check_interrupt();
    cli_fail("%s", tfm_message(tfm_session_context(session)));
}

/* Evaluates ids in batches; gives each position's logits to `row`, which may be NULL. */
static void each_row(const int32_t *ids, int64_t n, int64_t done, int64_t total,
                     void (*row)(void *user, int64_t position, const float *logits), void *user) {
    for (int64_t at = 0; at < n;) {
        int64_t count = n - at < o.batch ? n - at : o.batch;
        evaluate(ids + at, count);
        for (int64_t i = 0; row && i < count; i++) row(user, at + i, tfm_logits_at(session, i));
        at += count;
        cli_progress("evaluated", done + at, total);
    }
}

typedef struct writer { FILE *file; int64_t width; unsigned char *bytes; } writer;

static void write_row(void *user, int64_t position, const float *row) {
    writer *w = user;
    (void)position;
    for (int64_t i = 0; i < w->width; i++) {
        uint32_t bits;
        memcpy(&bits, &row[i], sizeof bits);
        for (int j = 0; j < 4; j++) w->bytes[4 * i + j] = (unsigned char)(bits >> 8 * j);
    }
    if (fwrite(w->bytes, 4, (size_t)w->width, w->file) != (size_t)w->width) cli_commit(w->file);    /* says why */
}

/* Of a decoder the logits of each position, of an encoder what it pooled. */
static void write_output(const int32_t *ids, int64_t n, const tfm_hparams *h) {
    int64_t rows = 0;
    writer w = { cli_create(o.logits), h->encoder ? h->width : h->vocab, NULL };
    w.bytes = cli_alloc((size_t)w.width, 4);
    if (h->encoder) evaluate(ids, n);
    else each_row(ids, n, 0, n, write_row, &w);
    const float *pooled = tfm_pooled(session, &rows);
    for (int64_t i = 0; i < rows; i++) write_row(&w, i, pooled + i * w.width);
    cli_commit(w.file);
    free(w.bytes);
}

static bool print_id(void *user, int32_t id) {
    int64_t *printed = user;
    return printf((*printed)++ ? " %d" : "%d", (int)id) > 0 && !cli_interrupted;
}

static void print_greedy(void) {
    int64_t printed = 0;
    tfm_generate_opts opts = { .max_tokens = o.greedy, .ignore_end = true, .on_token = print_id };
    tfm_finish finish = o.greedy > 0 ? tfm_continue(session, &opts, NULL, &printed) : TFM_FINISH_LENGTH;
    cli_check_interrupt();
    if (finish == TFM_FINISH_ERROR) cli_fail("%s", tfm_message(tfm_session_context(session)));
    putchar('\n');
}

/* Sums of x = -ln p and of its squares, over the tokens that follow positions from `first` on. */
typedef struct score { const int32_t *ids; int64_t n, first, vocab, count; double sum, squares; } score;

static void score_row(void *user, int64_t position, const float *logits) {
    score *s = user;
    if (position < s->first || position + 1 >= s->n) return;
    double largest = (double)logits[0], sum = 0;
    for (int64_t i = 1; i < s->vocab; i++)
        if ((double)logits[i] > largest) largest = (double)logits[i];
    for (int64_t i = 0; i < s->vocab; i++) sum += exp((double)logits[i] - largest);
    double x = log(sum) + largest - (double)logits[s->ids[position + 1]];
    s->count++;
    s->sum += x;
    s->squares += x * x;
}

static void print_perplexity(int32_t *ids, int64_t n, int64_t vocab, int64_t context, int32_t bos) {
    if (n < 2) cli_fail("a perplexity needs 2 tokens, the text has %" PRId64, n);
    int64_t window = n < context ? n : context, windows = n / window;
    score s = { ids, window, n > window ? window / 2 : 0, vocab, 0, 0, 0 };
    for (int64_t i = 0; i < windows; i++) {
        s.ids = ids + i * window;
        if (bos >= 0) ids[i * window] = bos;
        tfm_rewind(session, 0);
        each_row(s.ids, window, i * window, windows * window, score_row, &s);
    }
    if (s.count == 0) cli_fail("a context (-c) of %" PRId64 " scores no token", context);
    double count = (double)s.count, mean = s.sum / count, variance = s.squares / count - mean * mean;
    double error = s.count > 1 && variance > 0 ? sqrt(variance / (count - 1)) : 0;
    printf("perplexity %.4f +- %.4f (%" PRId64 " tokens)\n", exp(mean), exp(mean) * error, s.count);
}

static int32_t *read_ids(const tfm_tokenizer *tokenizer, const char *path, int64_t *n) {
    if (o.ids && (o.text || o.file)) cli_usage("--ids and a text: only one of them");
    if (o.ids) return cli_ids("--ids", o.ids, n);
    size_t size;
    char *text = cli_text(o.text, o.file, &size);
    if (!text) cli_usage("what to evaluate is missing: --ids, -p or -f");
    if (!tokenizer) cli_fail("%s: holds no tokenizer; --ids takes ids", path);
    tfm_error err;
    tfm_context *c = tfm_context_new(NULL, &err);
    if (!c) cli_fail("%s", err.message);
    int32_t *ids = cli_tokenize(c, tokenizer, text, size, &(tfm_tokenize_opts){ .add_special = true }, -1, n);
    tfm_context_free(c);
    free(text);
    return ids;
}

static int32_t *read_net_ids(const tfm_file *file, const char *path, int64_t *n) {
    tfm_tokenizer *tokenizer = o.ids ? NULL : tfm_tokenizer_new(file, NULL, NULL);
    int32_t *ids = read_ids(tokenizer, path, n);
    tfm_tokenizer_free(tokenizer);
    return ids;
}
/* Whether the file is a net of layers, which then was run. */
static bool ran_net(const char *path) {
    tfm_error err;
    tfm_file *file = tfm_file_open(path, NULL, &err);
    bool net = file && is_net(file);
    if (net) {
        int64_t n = 0;
        int32_t *ids = o.ids || o.text || o.file ? read_net_ids(file, path, &n) : NULL;
        evaluate_net_opts opts = { .ids = ids, .count = n, .input = o.input, .output = o.logits,
                                   .context = { .threads = (int)o.threads, .level = o.level } };
        if (o.greedy >= 0) cli_usage("--greedy: %s is a net of layers", path);
        evaluate_net(path, file, &opts);
        free(ids);
    }
    tfm_file_free(file);
    return net;
}

int main(int argc, char **argv) {
    cli_parse(&program, argc, argv);
    if (!o.ids && !o.text && !o.file && !o.input) cli_usage("what to evaluate is missing: --ids, -p, -f or --input");
    const char *path = argv[0];
    if (ran_net(path)) {
        cli_finish();
        return 0;
    }
    if (o.input) cli_fail("%s: is no net of layers; --input is for one", path);
    tfm_error err;
    tfm_model *model = tfm_model_open(path, NULL, &err);
    if (!model) cli_fail_at(path, err.message);
    const tfm_hparams *h = tfm_model_hparams(model);
    const tfm_tokenizer *tokenizer = tfm_model_tokenizer(model);
    int64_t n, more = o.greedy > 0 ? o.greedy : 0, context = o.context;
    int32_t *ids = read_ids(tokenizer, path, &n);
    if (n == 0) cli_fail("there is no token to evaluate");
    if (context == 0) context = n + more > 512 ? n + more : 512;
    if (o.context == 0 && context > h->context) context = h->context;

    bool perplexity = !o.logits && o.greedy < 0;
    if (h->encoder && (perplexity || o.greedy >= 0))
        cli_fail("%s: an encoder has no next token: --logits is needed, --greedy is not possible", path);
    if (!perplexity && n > context)
        cli_fail("the prompt has %" PRId64 " tokens, the context (-c) room for %" PRId64, n, context);
    if (!perplexity && n + more - 1 > context)             /* the last id is not evaluated */
        cli_fail("%" PRId64 " tokens and %" PRId64 " more need a context (-c) of %" PRId64 ", it is %" PRId64, n, more,
                 n + more - 1, context);
    if (o.batch > context) o.batch = context;
    session = tfm_session_new(model, &(tfm_session_opts){ .context = (int)context, .batch = (int)o.batch,
        .threads = (int)o.threads, .cache = o.cache, .level = o.level, .all_logits = perplexity || o.logits }, &err);
    if (!session) cli_fail_at(path, err.message);
    cli_stop = on_interrupt;

    if (o.logits) write_output(ids, n, h);
    else if (!perplexity) each_row(ids, n, 0, n, NULL, NULL);
    if (o.greedy >= 0) print_greedy();
    int32_t bos = tokenizer && tfm_adds_bos(tokenizer) ? tfm_token_bos(tokenizer) : -1;
    if (perplexity) print_perplexity(ids, n, h->vocab, context, bos);
    cli_finish();
    cli_stop = NULL;
    tfm_session_free(session);
    tfm_model_free(model);
    free(ids);
    return 0;
}
