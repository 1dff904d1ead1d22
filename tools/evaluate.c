/* evaluate - logits, greedy ids and perplexity of a model, to judge it with.
   cc -O2 -I. tools/evaluate.c -o evaluate -lm */
#define _XOPEN_SOURCE 700
#define TFM_IMPLEMENTATION
#include "tfm.h"
#include "tools/cli.h"
#include "tools/evaluate_net.h"
#include "tools/tensor_error.h"

static struct {
    const char *ids, *text, *file, *input, *logits, *against;
    int64_t greedy, context, batch, threads, stride;
    tfm_type cache;
    tfm_level level;
    bool json;
} o = { .greedy = -1, .batch = 64 };

static const cli_option options[] = {
    { "--ids", CLI_TEXT, &o.ids, 0, 0, "1,2,3", "evaluate these ids as they are" },
    { "-p", CLI_TEXT, &o.text, 0, 0, "TEXT", "evaluate a text, with the BOS and EOS that MODEL asks for" },
    { "-f", CLI_TEXT, &o.file, 0, 0, "FILE", "the same of what FILE holds; - is standard input" },
    { "--input", CLI_TEXT, &o.input, 0, 0, "FILE", "run a net on samples of numbers, little-endian f32" },
    { "--logits", CLI_TEXT, &o.logits, 0, 0, "OUT",
      "write positions x vocabulary as little-endian f32;\nof an encoder its pooled output, of a net its output" },
    { "--greedy", CLI_WHOLE, &o.greedy, 0, CLI_INT, "N", "print the N likeliest ids that follow; end-of-text is none" },
    { "--against", CLI_TEXT, &o.against, 0, 0, "ORIGINAL", "compare MODEL with the file it was made from" },
    { "--stride", CLI_WHOLE, &o.stride, 1, CLI_INT, "N", "begin a window every N tokens (see above)" },
    { "--json", CLI_FLAG, &o.json, 0, 0, NULL, "print perplexity and comparison as JSON" },
    { "-c", CLI_WHOLE, &o.context, 1, CLI_INT, "CONTEXT",
      "positions (the smaller of the model's length and the\nlarger of 512 and the tokens needed; windows of a text\n"
      "of 1024 tokens or more: 512)" },
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
    "length (-c), the rest at its end left out; each window of a text begins with BOS in place of\n"
    "its first token if the model has a BOS in front of texts, and tokens in its second half are\n"
    "scored: with -c 512 what llama.cpp's llama-perplexity computes. --stride N scores the whole\n"
    "text: windows begin every N tokens, and each scores what no window before it did, but for its\n"
    "own first token.\n"
    "\n"
    "--against ORIGINAL reports for each tensor, each type and all weights how far MODEL's lie from\n"
    "those of the file it was quantized from: the RMS of the errors as a part of the original's\n"
    "RMS, the largest error, the signal-to-noise ratio. With ids or a text it also evaluates both\n"
    "and prints how their outputs differ over the scored tokens: the original's perplexity, the\n"
    "ratio of the two, the KL divergence sum p ln(p/q) of the original's p and MODEL's q, and how\n"
    "often both hold the same token for the likeliest; each with its standard error.\n"
    "\n"
    "A net of layers (architecture \"sequential\") runs on ids, on a text in words or characters, or on\n"
    "--input; --logits writes its output, and without that it is printed, a row on a line.", options
};

static tfm_session *session, *original;          /* of MODEL, and of ORIGINAL if outputs are compared */

static void on_interrupt(void) {
    tfm_cancel(session);
    tfm_cancel(original);
}

static void evaluate(tfm_session *s, const int32_t *ids, int64_t n) {
    if (tfm_eval(s, ids, n) == TFM_OK && !cli_interrupted) return;
    cli_check_interrupt();
    cli_fail("%s", tfm_message(tfm_session_context(s)));
}

/* Part of a longer work, for the line of progress. */
typedef struct progress { const char *label; int64_t done, total; } progress;

typedef void row_fn(void *user, int64_t position, const float *logits, const float *originals);

/* Evaluates ids in batches; gives each position's logits, and the original's or NULL, to `row`, which
   may be NULL. */
static void each_row(const int32_t *ids, int64_t n, progress *p, row_fn *row, void *user) {
    for (int64_t at = 0; at < n;) {
        int64_t count = n - at < o.batch ? n - at : o.batch;
        evaluate(session, ids + at, count);
        if (original) evaluate(original, ids + at, count);
        for (int64_t i = 0; row && i < count; i++)
            row(user, at + i, tfm_logits_at(session, i), tfm_logits_at(original, i));
        at += count;
        p->done += count;
        cli_progress(p->label, p->done, p->total);
    }
}

typedef struct writer { FILE *file; int64_t width; } writer;

static void write_row(void *user, int64_t position, const float *row, const float *originals) {
    const writer *w = user;
    (void)position;
    (void)originals;
    cli_write_floats(w->file, row, w->width);
}

/* Of a decoder the logits of each position, of an encoder what it pooled. */
static void write_output(const int32_t *ids, int64_t n, const tfm_hparams *h) {
    int64_t rows = 0;
    writer w = { cli_create(o.logits), h->encoder ? h->width : h->vocab };
    if (h->encoder) evaluate(session, ids, n);
    else each_row(ids, n, &(progress){ "evaluated", 0, n }, write_row, &w);
    const float *pooled = tfm_pooled(session, &rows);
    cli_write_floats(w.file, pooled, rows * w.width);
    cli_commit(w.file);
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

/* ---- Perplexity ---- */

/* Sums of a quantity over the scored tokens: mean and standard error come from them. */
typedef struct sums { double sum, squares; } sums;

static void add(sums *s, double x) {
    s->sum += x;
    s->squares += x * x;
}
static double mean_of(const sums *s, int64_t count) { return s->sum / (double)count; }
static double error_of(const sums *s, int64_t count) {
    double mean = mean_of(s, count), variance = s->squares / (double)count - mean * mean;
    return count > 1 && variance > 0 ? sqrt(variance / (double)(count - 1)) : 0;
}

typedef struct score {
    int64_t vocab, context, count, same;            /* same: tokens whose likeliest is the original's too */
    sums loss, original, change, divergence;        /* -ln p; the original's; their difference; KL */
    double largest;                                 /* divergence */
} score;

/* ln(sum of exp(x)); in *best the index of the largest. */
static double log_sum_exp(const float *x, int64_t n, int64_t *best) {
    double sum = 0;
    *best = 0;
    for (int64_t i = 1; i < n; i++)
        if (x[i] > x[*best]) *best = i;
    for (int64_t i = 0; i < n; i++) sum += (double)expf(x[i] - x[*best]);
    double y = log(sum) + (double)x[*best];
    if (!isfinite(y)) cli_fail("the model gives logits that are NaN or infinite");
    return y;
}
/* sum p ln(p/q) from the logits of p and of q and the logarithms of their sums. */
static double divergence(const float *p, double p_sum, const float *q, double q_sum, int64_t n) {
    double all = 0, sum = 0;
    for (int64_t i = 0; i < n; i++) {
        double weight = (double)expf((float)((double)p[i] - p_sum));
        all += weight;
        if (weight > 0) sum += weight * ((double)p[i] - (double)q[i]);
    }
    return sum / all - p_sum + q_sum;
}
static void score_token(score *s, const float *logits, const float *originals, int32_t id) {
    int64_t best, original_best;
    double total = log_sum_exp(logits, s->vocab, &best), loss = total - (double)logits[id];
    s->count++;
    add(&s->loss, loss);
    if (!originals) return;
    double original_total = log_sum_exp(originals, s->vocab, &original_best),
           original_loss = original_total - (double)originals[id],
           kl = divergence(originals, original_total, logits, total, s->vocab);
    s->same += best == original_best;
    add(&s->original, original_loss);
    add(&s->change, loss - original_loss);
    add(&s->divergence, kl);
    if (kl > s->largest) s->largest = kl;
}

/* Scores the tokens that follow positions from `first` on. */
typedef struct window { score *score; const int32_t *ids; int64_t n, first; } window;

static void score_row(void *user, int64_t position, const float *logits, const float *originals) {
    const window *w = user;
    if (position >= w->first && position + 1 < w->n) score_token(w->score, logits, originals, w->ids[position + 1]);
}
static void score_text(score *s, int32_t *ids, int64_t n, int32_t bos) {
    int64_t length = n < s->context ? n : s->context, step = o.stride ? o.stride : length;
    int64_t windows = o.stride ? 1 + (n - length + step - 1) / step : n / length;
    char label[64] = "evaluated";
    progress p = { label, 0, 0 };
    for (int64_t i = 0; i < windows; i++) p.total += n - i * step < length ? n - i * step : length;
    for (int64_t i = 0; i < windows; i++) {
        int32_t *begin = ids + i * step, kept = *begin;
        window w = { s, begin, n - i * step < length ? n - i * step : length, 0 };
        if (!o.stride && n > length) w.first = length / 2;
        if (i > 0 && length > step) w.first = length - step - 1;       /* the window before scored up to there */
        if (bos >= 0) *begin = bos;
        tfm_rewind(session, 0);
        if (original) tfm_rewind(original, 0);
        each_row(begin, w.n, &p, score_row, &w);
        *begin = kept;
        if (s->count) snprintf(label, sizeof label, "perplexity %.4f,", exp(mean_of(&s->loss, s->count)));
    }
    if (s->count == 0) cli_fail("a context (-c) of %" PRId64 " scores no token", s->context);
}

static void print_score(const score *s) {
    const int64_t n = s->count;
    const double x = exp(mean_of(&s->loss, n)), same = (double)s->same / (double)n;
    const double y = exp(mean_of(&s->original, n)), ratio = exp(mean_of(&s->change, n));
    const struct { const char *name, *key; int digits; double value, error; } figures[] = {
        { "perplexity", "perplexity", 4, x, x * error_of(&s->loss, n) },
        { "original's perplexity", "original_perplexity", 4, y, y * error_of(&s->original, n) },
        { "ratio", "ratio", 5, ratio, ratio * error_of(&s->change, n) },
        { "KL divergence", "kl_divergence", 6, mean_of(&s->divergence, n), error_of(&s->divergence, n) },
        { "same likeliest token", "same_likeliest", 5, same, n > 1 ? sqrt(same * (1 - same) / (double)(n - 1)) : 0 },
    };
    const size_t count = o.against ? sizeof figures / sizeof *figures : 1;
    if (o.against && !o.json) puts("");
    if (o.json) printf(",\n \"tokens\": %" PRId64 ", \"context\": %" PRId64, n, s->context);
    for (size_t i = 0; i < count; i++) {
        char key[64];
        snprintf(key, sizeof key, "%s_error", figures[i].key);
        if (o.json) {
            tensor_json_number(figures[i].key, figures[i].value);
            tensor_json_number(key, figures[i].error);
            continue;
        }
        printf("%s %.*f +- %.*f", figures[i].name, figures[i].digits, figures[i].value, figures[i].digits,
               figures[i].error);
        if (i == 0) printf(" (%" PRId64 " tokens)\n", n);
        else puts("");
    }
    if (o.against && o.json) tensor_json_number("kl_divergence_largest", s->largest);
    else if (o.against) printf("largest KL divergence %.6f\n", s->largest);
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

/* ---- The program ---- */

static bool scores(void) { return (o.ids || o.text || o.file) && !o.logits && o.greedy < 0; }

static void check_options(void) {
    bool input = o.ids || o.text || o.file || o.input;
    if (!input && !o.against) cli_usage("what to evaluate is missing: --ids, -p, -f or --input");
    if (o.against && (o.logits || o.greedy >= 0)) cli_usage("--against goes with neither --logits nor --greedy");
    if (o.json && !o.against && !scores()) cli_usage("--json goes with a perplexity or --against");
    if (o.stride && !scores()) cli_usage("--stride goes with a perplexity");
}
static tfm_model *open_model(const char *path) {
    tfm_error err;
    tfm_model *model = tfm_model_open(path, NULL, &err);
    if (!model) cli_fail_at(path, err.message);
    return model;
}
static tfm_session *open_session(const tfm_model *model, const char *path, int64_t context) {
    tfm_error err;
    tfm_session *s = tfm_session_new(model, &(tfm_session_opts){ .context = (int)context, .batch = (int)o.batch,
        .threads = (int)o.threads, .cache = o.cache, .level = o.level, .all_logits = scores() || o.logits }, &err);
    if (!s) cli_fail_at(path, err.message);
    return s;
}
/* Both must give probabilities of the same tokens. */
static tfm_model *open_original(const tfm_model *model, const char *path) {
    tfm_model *m = open_model(o.against);
    const tfm_hparams *h = tfm_model_hparams(model), *other = tfm_model_hparams(m);
    if (h->vocab != other->vocab)
        cli_fail("%s has a vocabulary of %d, %s one of %d", path, (int)h->vocab, o.against, (int)other->vocab);
    return m;
}
static int64_t choose_context(int64_t n, int64_t longest) {
    int64_t more = o.greedy > 0 ? o.greedy : 0, context = o.context;
    if (context == 0) {
        context = n + more > 512 ? n + more : 512;
        if (scores() && (n >= 1024 || o.stride)) context = 512;
        if (context > longest) context = longest;
    }
    if (!scores() && n > context)
        cli_fail("the prompt has %" PRId64 " tokens, the context (-c) room for %" PRId64, n, context);
    if (!scores() && n + more - 1 > context)               /* the last id is not evaluated */
        cli_fail("%" PRId64 " tokens and %" PRId64 " more need a context (-c) of %" PRId64 ", it is %" PRId64, n, more,
                 n + more - 1, context);
    if (scores() && n < 2) cli_fail("a perplexity needs 2 tokens, the text has %" PRId64, n);
    if (o.stride > context)
        cli_usage("--stride %" PRId64 ": the windows (-c) have %" PRId64 " tokens", o.stride, context);
    return context;
}

/* Evaluates the input as the options say; a perplexity's figures go to `s`, to be printed later. */
static void evaluate_input(const char *path, score *s) {
    int64_t n;
    tfm_model *model = open_model(path), *other = o.against ? open_original(model, path) : NULL;
    const tfm_hparams *h = tfm_model_hparams(model);
    const tfm_tokenizer *tokenizer = tfm_model_tokenizer(model);
    int32_t *ids = read_ids(tokenizer, path, &n);
    if (n == 0) cli_fail("there is no token to evaluate");
    if (h->encoder && !o.logits)
        cli_fail("%s: an encoder has no next token: --logits is needed", path);
    int64_t context = choose_context(n, h->context);
    if (o.batch > context) o.batch = context;
    session = open_session(model, path, context);
    if (other) original = open_session(other, o.against, context);
    cli_stop = on_interrupt;
    if (scores()) {
        s->vocab = h->vocab;
        s->context = context;
        bool bos = !o.ids && tokenizer && tfm_adds_bos(tokenizer);
        score_text(s, ids, n, bos ? tfm_token_bos(tokenizer) : -1);
    } else if (o.logits) write_output(ids, n, h);
    else each_row(ids, n, &(progress){ "evaluated", 0, n }, NULL, NULL);
    if (o.greedy >= 0) print_greedy();
    cli_stop = NULL;
    tfm_session_free(session);
    tfm_session_free(original);
    tfm_model_free(model);
    tfm_model_free(other);
    free(ids);
}

static int32_t *read_net_ids(const tfm_file *file, const char *path, int64_t *n) {
    tfm_tokenizer *tokenizer = o.ids ? NULL : tfm_tokenizer_new(file, NULL, NULL);
    int32_t *ids = read_ids(tokenizer, path, n);
    tfm_tokenizer_free(tokenizer);
    return ids;
}
/* Whether the file is a net of layers, which then was run. */
static bool ran_net(const char *path) {
    tfm_file *file = tfm_file_open(path, NULL, NULL);
    bool net = file && is_net(file);
    if (net) {
        int64_t n = 0;
        if (o.greedy >= 0 || o.stride || o.json)
            cli_usage("%s is a net of layers: --greedy, --stride and --json are not for it", path);
        int32_t *ids = o.ids || o.text || o.file ? read_net_ids(file, path, &n) : NULL;
        evaluate_net_opts opts = { .ids = ids, .count = n, .input = o.input, .output = o.logits,
                                   .context = { .threads = (int)o.threads, .level = o.level } };
        evaluate_net(path, file, &opts);
        free(ids);
    }
    tfm_file_free(file);
    return net;
}

int main(int argc, char **argv) {
    tensor_report report;
    score s = { 0 };
    cli_parse(&program, argc, argv);
    check_options();
    if (!o.against && ran_net(argv[0])) {
        cli_finish();
        return 0;
    }
    if (o.input) cli_fail("%s: is no net of layers; --input is for one", argv[0]);
    if (o.against) tensor_report_make(&report, argv[0], o.against);
    if (o.ids || o.text || o.file) evaluate_input(argv[0], &s);
    if (o.json) {
        printf("{\"model\": ");
        cli_json_string(stdout, (tfm_string){ argv[0], strlen(argv[0]) }, SIZE_MAX);
    }
    if (o.against) (o.json ? tensor_report_json : tensor_report_print)(&report);
    if (s.count) print_score(&s);
    if (o.json) puts("}");
    cli_finish();
    if (o.against) tensor_report_free(&report);
    return 0;
}
