/* tokenize - text to ids and back, with the tokenizer of a GGUF file.
   cc -O2 -I. tools/tokenize.c -o tokenize -lm */
#define _XOPEN_SOURCE 700
#define TFM_IMPLEMENTATION
#include "tfm.h"
#include "tools/cli.h"
#include "tools/json.h"

static struct {
    const char *file, *jsonl, *decode;
    bool add_special, special;
} o;

static const cli_option options[] = {
    { "-f", CLI_TEXT, &o.file, 0, 0, "FILE", "the text is every byte of FILE; - is standard input" },
    { "--jsonl", CLI_TEXT, &o.jsonl, 0, 0, "FILE", "for each line {\"text\": \"...\"} one array of ids" },
    { "--decode", CLI_TEXT, &o.decode, 0, 0, "'1 2,3'", "print the bytes of ids" },
    { "--add-special", CLI_FLAG, &o.add_special, 0, 0, NULL, "add what MODEL asks for: BOS, EOS, CLS, SEP" },
    { "--special", CLI_FLAG, &o.special, 0, 0, NULL, "control tokens in the text are tokens; --decode prints them" },
    { NULL, CLI_FLAG, NULL, 0, 0, NULL, NULL }
};
static const cli_program program = {
    "tokenize", "MODEL.gguf [TEXT]", 1, 2,
    "Prints the ids of a text on one line. MODEL may hold no tensors.", options
};

/* ---- The work ---- */

static tfm_context *context;
static tfm_tokenizer *tokenizer;

static void print_ids(const char *text, size_t size, const char *open, const char *between, const char *close) {
    int64_t count;
    tfm_tokenize_opts opts = { .add_special = o.add_special, .parse_special = o.special };
    int32_t *ids = cli_tokenize(context, tokenizer, text, size, &opts, -1, &count);
    fputs(open, stdout);
    for (int64_t i = 0; i < count; i++) printf("%s%d", i ? between : "", (int)ids[i]);
    printf("%s\n", close);
    free(ids);
}

static void print_jsonl(const char *path) {
    size_t size;
    char *data = cli_read(path, &size), *end;
    int64_t line = 1;
    for (char *at = data; at < data + size; at = end + 1, line++) {
        json_document d;
        end = memchr(at, '\n', (size_t)(data + size - at));
        if (!end) end = data + size;
        *end = 0;
        bool good = json_read(&d, at, (size_t)(end - at));
        const json *text = json_get(d.root, "text");
        if (!good) cli_fail("%s: line %" PRId64 ": %s", path, line, d.error);
        if (!json_text(text))
            cli_fail("%s: line %" PRId64 ": %s", path, line, text ? "\"text\" is not a string" : "no \"text\"");
        print_ids(text->as.text.data, text->as.text.size, "[", ", ", "]");
        json_free(&d);
    }
    free(data);
}

static void print_bytes(const char *list) {
    int64_t count;
    int32_t *ids = cli_ids("--decode", list, &count);
    for (int64_t i = 0; i < count; i++)
        if (ids[i] >= tfm_vocab_size(tokenizer))
            cli_fail("id %d is not in the vocabulary of %" PRId64, (int)ids[i], tfm_vocab_size(tokenizer));
    for (int64_t i = 0; i < count; i++) {
        size_t size = tfm_token_bytes(tokenizer, ids[i], o.special, NULL, 0);
        char *bytes = cli_alloc(size, 1);
        tfm_token_bytes(tokenizer, ids[i], o.special, bytes, size);
        fwrite(bytes, 1, size, stdout);
        free(bytes);
    }
    if (cli_is_terminal(stdout)) putchar('\n');
    free(ids);
}

int main(int argc, char **argv) {
    const char *text = cli_parse(&program, argc, argv) > 1 ? argv[1] : NULL;
    int sources = (text != NULL) + (o.file != NULL) + (o.jsonl != NULL) + (o.decode != NULL);
    if (sources != 1) cli_usage("%s of TEXT, -f, --jsonl and --decode, please", sources ? "only one" : "one");
    tfm_error err;
    tfm_file *file = tfm_file_open(argv[0], NULL, &err);
    if (!file) cli_fail_at(argv[0], err.message);
    tokenizer = tfm_tokenizer_new(file, NULL, &err);
    if (!tokenizer) cli_fail_at(argv[0], err.message);
    context = tfm_context_new(NULL, &err);
    if (!context) cli_fail("%s", err.message);

    if (text) print_ids(text, strlen(text), "", " ", "");
    if (o.decode) print_bytes(o.decode);
    if (o.jsonl) print_jsonl(o.jsonl);
    if (o.file) {
        size_t size;
        char *data = cli_read(o.file, &size);
        print_ids(data, size, "", " ", "");
        free(data);
    }
    cli_finish();
    tfm_context_free(context);
    tfm_tokenizer_free(tokenizer);
    tfm_file_free(file);
    return 0;
}
