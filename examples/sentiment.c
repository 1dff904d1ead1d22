/* sentiment - says what a net of layers (embedding, LSTM, dense ...) makes of a text.
   cc -O2 -I. examples/sentiment.c -o sentiment -lm */
#define _XOPEN_SOURCE 700
#define TFM_IMPLEMENTATION
#include "tfm.h"
#include "tools/cli.h"

#define SHIPPED "examples/models/sentiment.gguf"

static struct { const char *model; bool all; } o;

static const cli_option options[] = {
    { "-m", CLI_TEXT, &o.model, 0, 0, "MODEL.gguf", "a net of layers with a vocabulary (" SHIPPED ")" },
    { "--all", CLI_FLAG, &o.all, 0, 0, NULL, "print every label with its probability, not the likeliest" },
    { NULL, CLI_FLAG, NULL, 0, 0, NULL, NULL }
};
static const cli_program program = {
    "sentiment", "[TEXT]", 0, 1,
    "Prints a label and its probability for TEXT, or for each line of standard input.", options
};

typedef struct classifier {
    tfm_file *file;
    tfm_net *net;
    const tfm_net_info *info;
    tfm_tokenizer *tokenizer;
    tfm_context *c;
    bool pad_left, cut_left;            /* where ids are added, or cut off, to reach the net's length */
    int32_t pad;
    int64_t classes;                    /* a net with one output has two: 0 and 1 */
    tfm_value labels;                   /* what they are called, an array of strings; or without elements */
} classifier;

static bool is_left(const tfm_file *file, const char *key) {
    tfm_value v;
    tfm_string s;
    return tfm_file_meta(file, key, &v) && tfm_value_string(&v, &s) && s.size == 4 && memcmp(s.data, "left", 4) == 0;
}
static void open_classifier(classifier *k, const char *path) {
    tfm_error err;
    tfm_value v;
    uint64_t id;
    k->file = tfm_file_open(path, NULL, &err);
    k->net = k->file ? tfm_net_new(k->file, NULL, &err) : NULL;
    k->tokenizer = k->net ? tfm_tokenizer_new(k->file, NULL, &err) : NULL;
    k->c = k->tokenizer ? tfm_context_new(NULL, &err) : NULL;
    if (!k->c) cli_fail_at(path, err.message);
    k->info = tfm_net_info_of(k->net);
    if (!k->info->vocab || k->info->output.rank != 1)
        cli_fail("%s: the net does not give one vector for a text", path);
    if (tfm_vocab_size(k->tokenizer) > k->info->vocab)
        cli_fail("%s: %" PRId64 " words for a net of %" PRId64 " ids", path, tfm_vocab_size(k->tokenizer),
                 k->info->vocab);
    k->pad_left = is_left(k->file, "sequential.padding");
    k->cut_left = is_left(k->file, "sequential.truncation");
    if (tfm_file_meta(k->file, "tokenizer.ggml.padding_token_id", &v) && tfm_value_u64(&v, &id) &&
        id < (uint64_t)k->info->vocab) k->pad = (int32_t)id;
    k->classes = k->info->output.dim[0] == 1 ? 2 : k->info->output.dim[0];
    if (!tfm_file_meta(k->file, "sequential.labels", &k->labels)) memset(&k->labels, 0, sizeof k->labels);
    if (k->labels.count && (k->labels.element != TFM_VALUE_STRING || k->labels.count != (uint64_t)k->classes))
        cli_fail("%s: sequential.labels are not %" PRId64 " names", path, k->classes);
}
static void close_classifier(classifier *k) {
    tfm_context_free(k->c);
    tfm_tokenizer_free(k->tokenizer);
    tfm_net_free(k->net);
    tfm_file_free(k->file);
}

/* The ids of a text, as many as the net takes: padded or cut. */
static int32_t *text_ids(const classifier *k, const char *text, size_t size, int64_t *length) {
    int64_t n, fixed = k->info->input.dim[0];
    int32_t *all = cli_tokenize(k->c, k->tokenizer, text, size, NULL, -1, &n);
    *length = fixed ? fixed : n ? n : 1;
    int32_t *ids = cli_alloc((size_t)*length, sizeof *ids);
    int64_t kept = n < *length ? n : *length, from = k->cut_left ? n - kept : 0, to = k->pad_left ? *length - kept : 0;
    for (int64_t i = 0; i < *length; i++) ids[i] = k->pad;
    memcpy(ids + to, all + from, (size_t)kept * sizeof *ids);
    free(all);
    return ids;
}
static void print_label(const classifier *k, int64_t class, double probability, char end) {
    tfm_value rest = k->labels, v;
    tfm_string name = { NULL, 0 };
    for (int64_t i = 0; i <= class && tfm_value_next(&rest, &v); i++) tfm_value_string(&v, &name);
    if (name.data) printf("%.*s %.4f%c", (int)name.size, name.data, probability, end);
    else printf("%" PRId64 " %.4f%c", class, probability, end);
}
static void classify(const classifier *k, const char *text, size_t size) {
    tfm_mark mark = tfm_arena_mark(k->c);
    int64_t length, best = 0;
    int32_t *ids = text_ids(k, text, size, &length);
    tfm_tensor x = tfm_wrap_type(k->c, ids, TFM_I32, tfm_shape1(length));
    tfm_tensor y = tfm_net_run(k->c, k->net, x, NULL);
    if (tfm_status_of(k->c) != TFM_OK) cli_fail("%s", tfm_message(k->c));
    const float *p = (const float *)y.data, two[2] = { 1 - p[0], p[0] };
    if (k->info->output.dim[0] == 1) p = two;
    for (int64_t i = 1; i < k->classes; i++) if (p[i] > p[best]) best = i;
    for (int64_t i = 0; i < k->classes && o.all; i++)
        print_label(k, i, (double)p[i], i + 1 < k->classes ? ' ' : '\n');
    if (!o.all) print_label(k, best, (double)p[best], '\n');
    free(ids);
    tfm_arena_rewind(k->c, mark);
}
/* Each line of standard input, as it comes. */
static void classify_lines(const classifier *k) {
    size_t size = 0, capacity = 256;
    char *line = cli_alloc(capacity, 1);
    for (int ch; (ch = getchar()) != EOF || size > 0;) {
        if (ch == '\n' || ch == EOF) {
            classify(k, line, size);
            if (fflush(stdout) != 0) cli_finish();         /* says why */
            size = 0;
            if (ch == EOF) break;
            continue;
        }
        if (size == capacity && !(line = realloc(line, capacity *= 2))) cli_fail("a line is too long");
        line[size++] = (char)ch;
    }
    if (ferror(stdin)) cli_fail("standard input: %s", strerror(errno));
    free(line);
}

int main(int argc, char **argv) {
    char beside[4096];
    const char *path = cli_shipped(argv[0], SHIPPED, beside, sizeof beside);
    int operands = cli_parse(&program, argc, argv);
    classifier k = { 0 };
    open_classifier(&k, o.model ? o.model : path);
    if (operands) classify(&k, argv[0], strlen(argv[0]));
    else classify_lines(&k);
    cli_finish();
    close_classifier(&k);
    return 0;
}
