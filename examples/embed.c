/* embed - sentence embeddings with a BERT model from a GGUF file: print, compare, search.
   cc -O2 -I. examples/embed.c -o embed -lm */
#define _XOPEN_SOURCE 700
#define TFM_IMPLEMENTATION
#include "tfm.h"
#include "tools/cli.h"

static struct {
    const char *a, *b, *file, *search;
    int64_t nearest, threads, context;
    tfm_level level;
} o = { .nearest = 5 };

static const cli_option options[] = {
    { "-a", CLI_TEXT, &o.a, 0, 0, "TEXT", "print the embedding of a text" },
    { "-b", CLI_TEXT, &o.b, 0, 0, "TEXT", "or the cosine of -a's and this one's" },
    { "-f", CLI_TEXT, &o.file, 0, 0, "FILE", "print the embedding of each line of FILE; - is standard input" },
    { "--search", CLI_TEXT, &o.search, 0, 0, "FILE", "print the lines of FILE that are nearest to QUERY" },
    { "-n", CLI_WHOLE, &o.nearest, 1, 1000000, "LINES", "so many of them (5), each behind its cosine" },
    { "-t", CLI_WHOLE, &o.threads, 1, 256, "THREADS", "threads (the CPUs that the process may use)" },
    { "-c", CLI_WHOLE, &o.context, 1, CLI_INT, "CONTEXT",
      "tokens that are read of a text at most, the end markers\nincluded (what the model was made for)" },
    { "--level", CLI_LEVEL, &o.level, 0, 0, "NAME", "kernels (auto: the best that this CPU has); one of" },
    { NULL, CLI_FLAG, NULL, 0, 0, NULL, NULL }
};
static const cli_program program = {
    "embed", "MODEL.gguf [QUERY]", 1, 2,
    "Turns texts into vectors of length 1 with an encoder; the cosine of two of them says how close the\n"
    "texts are in meaning. An embedding is one line of JSON:\n"
    "    {\"text\": \"...\", \"embedding\": [0.0123, ...]}", options
};

static tfm_model *model;
static tfm_session *session;
static int64_t width;

/* The embedding of a text, divided by its length: out [width]. `line` is for messages; 0: none. */
static void embed(const char *text, size_t size, int64_t line, float *out) {
    tfm_context *c = tfm_session_context(session);
    const tfm_tokenizer *tokenizer = tfm_model_tokenizer(model);
    int64_t n, rows, room = tfm_session_capacity(session);
    int32_t *ids = cli_tokenize(c, tokenizer, text, size, &(tfm_tokenize_opts){ .add_special = true }, -1, &n);
    if (n > room) {
        fprintf(stderr, "%s: ", cli_name);
        if (line) fprintf(stderr, "line %" PRId64 ": ", line);
        fprintf(stderr, "the text has %" PRId64 " tokens, only %" PRId64 " are read\n", n, room);
        if (tfm_adds_eos(tokenizer)) ids[room - 1] = ids[n - 1];
        n = room;
    }
    if (n == 0) cli_fail("a text without tokens has no embedding");
    tfm_rewind(session, 0);                                /* each text by itself */
    if (tfm_eval(session, ids, n) != TFM_OK) {
        cli_check_interrupt();
        cli_fail("%s", tfm_message(c));
    }
    free(ids);
    const float *pooled = tfm_pooled(session, &rows);
    double squares = 0;
    for (int64_t d = 0; d < width; d++) {                  /* a model that does not pool: the mean */
        double sum = 0;
        for (int64_t r = 0; r < rows; r++) sum += (double)pooled[r * width + d];
        out[d] = (float)(sum / (double)rows);
        squares += (double)out[d] * (double)out[d];
    }
    for (int64_t d = 0; d < width && squares > 0; d++) out[d] = (float)((double)out[d] / sqrt(squares));
}
static double cosine(const float *a, const float *b) {
    double sum = 0;
    for (int64_t d = 0; d < width; d++) sum += (double)a[d] * (double)b[d];
    return sum;
}

static void print_embedding(const char *text, size_t size, const float *e) {
    printf("{\"text\": ");
    cli_json_string(stdout, (tfm_string){ text, size }, SIZE_MAX);
    for (int64_t d = 0; d < width; d++) printf("%s%.9g", d ? ", " : ", \"embedding\": [", (double)e[d]);
    printf("]}\n");
}

/* Calls visit with the embedding of each line of a file, without its newline. */
static void each_line(const char *path, void (*visit)(void *user, const char *line, size_t size, const float *e),
                      void *user) {
    size_t size, length;
    char *text = cli_read(path, &size), *end = text + size;
    float *e = cli_alloc((size_t)width, sizeof *e);
    int64_t number = 0;
    for (char *line = text; line < end; line += length + 1) {
        char *newline = memchr(line, '\n', (size_t)(end - line));
        length = (size_t)((newline ? newline : end) - line);
        size_t shown = length && line[length - 1] == '\r' ? length - 1 : length;
        embed(line, shown, ++number, e);
        visit(user, line, shown, e);
        cli_progress("embedded", line + length + 1 - text, (int64_t)size);
        if (ferror(stdout)) break;                         /* cli_finish says why */
    }
    cli_progress("embedded", 1, 1);
    free(e);
    free(text);
}
static void print_line(void *user, const char *line, size_t size, const float *e) {
    (void)user;
    print_embedding(line, size, e);
}

typedef struct hit { double cosine; char *line; size_t size; } hit;
typedef struct search { const float *query; hit *best; int64_t count; } search;     /* best first */

static void rank_line(void *user, const char *line, size_t size, const float *e) {
    search *s = user;
    double c = cosine(s->query, e);
    if (size == 0 || (s->count == o.nearest && c <= s->best[s->count - 1].cosine)) return;
    if (s->count == o.nearest) free(s->best[--s->count].line);
    int64_t at = s->count++;
    for (; at > 0 && c > s->best[at - 1].cosine; at--) s->best[at] = s->best[at - 1];
    s->best[at] = (hit){ c, cli_alloc(size, 1), size };
    memcpy(s->best[at].line, line, size);
}
static void print_nearest(const char *query) {
    float *e = cli_alloc((size_t)width, sizeof *e);
    search s = { e, cli_alloc((size_t)o.nearest, sizeof(hit)), 0 };
    embed(query, strlen(query), 0, e);
    each_line(o.search, rank_line, &s);
    for (int64_t i = 0; i < s.count; i++) {
        printf("%.4f  ", s.best[i].cosine);
        fwrite(s.best[i].line, 1, s.best[i].size, stdout);
        putchar('\n');
        free(s.best[i].line);
    }
    free(s.best);
    free(e);
}

int main(int argc, char **argv) {
    int operands = cli_parse(&program, argc, argv);
    if (o.b && !o.a) cli_usage("-b: compared with which text? -a is missing");
    if ((o.a != NULL) + (o.file != NULL) + (o.search != NULL) != 1) cli_usage("one of -a, -f and --search is needed");
    if (o.search && operands < 2) cli_usage("--search: the query is missing; usage: embed --search FILE MODEL QUERY");
    if (!o.search && operands > 1) cli_usage("'%s': a query is for --search", argv[1]);

    tfm_error err;
    model = tfm_model_open(argv[0], NULL, &err);
    if (!model) cli_fail_at(argv[0], err.message);
    const tfm_hparams *h = tfm_model_hparams(model);
    if (!h->encoder) cli_fail("%s: %.*s is no encoder", argv[0], (int)h->architecture.size, h->architecture.data);
    if (!tfm_model_tokenizer(model)) cli_fail("%s: holds no tokenizer", argv[0]);
    session = tfm_session_new(model, &(tfm_session_opts){ .context = (int)o.context, .threads = (int)o.threads,
        .level = o.level }, &err);
    if (!session) cli_fail_at(argv[0], err.message);
    width = h->width;

    if (o.file) each_line(o.file, print_line, NULL);
    if (o.search) print_nearest(argv[1]);
    if (o.a) {
        float *a = cli_alloc((size_t)width, sizeof *a), *b = cli_alloc((size_t)width, sizeof *b);
        embed(o.a, strlen(o.a), 0, a);
        if (o.b) {
            embed(o.b, strlen(o.b), 0, b);
            printf("%.4f\n", cosine(a, b));
        } else print_embedding(o.a, strlen(o.a), a);
        free(a);
        free(b);
    }
    cli_finish();
    tfm_session_free(session);
    tfm_model_free(model);
    return 0;
}
