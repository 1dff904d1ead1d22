/* tokenize - text to ids and back, with the tokenizer of a GGUF file.
   cc -O2 -I. tools/tokenize.c -o tokenize -lm */
#define _XOPEN_SOURCE 700
#define TFM_IMPLEMENTATION
#include "tfm.h"
#include "tools/cli.h"

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

/* ---- JSON lines: RFC 8259, one object a line. The reader stops at its first error. ---- */

typedef struct json {
    const char *at, *end;
    const char *error;                  /* NULL: none yet */
    char *text;                         /* the string read last, decoded; room for the whole line */
    size_t size;
} json;

static bool json_fail(json *j, const char *error) {
    if (!j->error) j->error = error;
    return false;
}
static bool json_take(json *j, char c) {
    if (j->at == j->end || *j->at != c) return false;
    j->at++;
    return true;
}
static void json_space(json *j) {
    while (j->at < j->end && (*j->at == ' ' || *j->at == '\t' || *j->at == '\r' || *j->at == '\n')) j->at++;
}
static bool json_word(json *j, const char *word) {
    size_t n = strlen(word);
    if ((size_t)(j->end - j->at) < n || memcmp(j->at, word, n) != 0) return json_fail(j, "not a JSON value");
    j->at += n;
    return true;
}
static int json_digits(json *j) {
    int n = 0;
    for (; j->at < j->end && *j->at >= '0' && *j->at <= '9'; j->at++) n++;
    return n;
}
static bool json_number(json *j) {
    json_take(j, '-');
    bool ok = json_take(j, '0') || json_digits(j) > 0;
    if (ok && json_take(j, '.')) ok = json_digits(j) > 0;
    if (ok && (json_take(j, 'e') || json_take(j, 'E'))) {
        if (!json_take(j, '+')) json_take(j, '-');
        ok = json_digits(j) > 0;
    }
    return ok || json_fail(j, "not a JSON value");
}
static long json_hex4(json *j) {
    char digits[5] = "";
    if (j->end - j->at < 4) return -1;
    memcpy(digits, j->at, 4);
    if (digits[strspn(digits, "0123456789abcdefABCDEF")] || strlen(digits) < 4) return -1;
    j->at += 4;
    return strtol(digits, NULL, 16);
}
static void json_put(json *j, long code) {
    unsigned lead = code < 0x80 ? 0 : code < 0x800 ? 0xc0 : code < 0x10000 ? 0xe0 : 0xf0;
    int more = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    j->text[j->size++] = (char)(lead | (unsigned)(code >> 6 * more));
    while (more-- > 0) j->text[j->size++] = (char)(0x80u | (unsigned)(code >> 6 * more & 0x3f));
}
/* After \u: a pair of surrogates is one character, a lone one U+FFFD. */
static bool json_unicode(json *j) {
    long code = json_hex4(j), low = 0;
    if (code >= 0xd800 && code < 0xdc00 && j->end - j->at >= 6 && j->at[0] == '\\' && j->at[1] == 'u') {
        const char *before = j->at;
        j->at += 2;
        low = json_hex4(j);
        if (low >= 0xdc00 && low < 0xe000) code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
        else j->at = before;
    }
    if (code < 0) return json_fail(j, "\\u without four hexadecimal digits");
    json_put(j, code >= 0xd800 && code < 0xe000 ? 0xfffd : code);
    return true;
}
static bool json_string(json *j) {
    j->size = 0;
    if (!json_take(j, '"')) return json_fail(j, "a string is missing");
    while (j->at < j->end && *j->at != '"') {
        char c = *j->at++;
        if ((unsigned char)c < 32) return json_fail(j, "a control character in a string");
        if (c != '\\') { j->text[j->size++] = c; continue; }
        c = j->at < j->end ? *j->at++ : 0;
        const char *found = c ? strchr("\"\"\\\\//b\bf\fn\nr\rt\t", c) : NULL;
        if (c == 'u') { if (!json_unicode(j)) return false; }
        else if (found && c > 31) j->text[j->size++] = found[1];
        else return json_fail(j, "an unknown escape in a string");
    }
    return json_take(j, '"') || json_fail(j, "a string without an end");
}

static bool json_value(json *j, int depth);

static bool json_list(json *j, char close, int depth) {
    j->at++;
    json_space(j);
    if (json_take(j, close)) return true;
    do {
        json_space(j);
        if (close == '}') {
            if (!json_string(j)) return false;
            json_space(j);
            if (!json_take(j, ':')) return json_fail(j, "a : is missing");
        }
        if (!json_value(j, depth + 1)) return false;
        json_space(j);
    } while (json_take(j, ','));
    return json_take(j, close) || json_fail(j, close == '}' ? "a , or } is missing" : "a , or ] is missing");
}
static bool json_value(json *j, int depth) {
    if (depth > 64) return json_fail(j, "nested more than 64 deep");
    json_space(j);
    switch (j->at < j->end ? *j->at : 0) {
        case '"': return json_string(j);
        case '{': return json_list(j, '}', depth);
        case '[': return json_list(j, ']', depth);
        case 't': return json_word(j, "true");
        case 'f': return json_word(j, "false");
        case 'n': return json_word(j, "null");
        default: return json_number(j);
    }
}

/* The decoded "text" of a line into text and *size; false and j->error otherwise. */
static bool json_line(json *j, char *text, size_t *size) {
    bool found = false;
    json_space(j);
    if (!json_take(j, '{')) return json_fail(j, "not an object");
    do {
        json_space(j);
        if (!json_string(j)) return false;
        bool wanted = j->size == 4 && memcmp(j->text, "text", 4) == 0;
        json_space(j);
        if (!json_take(j, ':')) return json_fail(j, "a : is missing");
        json_space(j);
        if (wanted && (j->at == j->end || *j->at != '"')) return json_fail(j, "\"text\" is not a string");
        if (!json_value(j, 0)) return false;
        if (wanted) memcpy(text, j->text, *size = j->size);
        found = found || wanted;
        json_space(j);
    } while (json_take(j, ','));
    if (!json_take(j, '}')) return json_fail(j, "a , or } is missing");
    json_space(j);
    if (j->at < j->end) return json_fail(j, "something follows the object");
    return found || json_fail(j, "no \"text\"");
}

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
    size_t size, text_size = 0;
    char *data = cli_read(path, &size), *text = cli_alloc(size + 1, 1), *scratch = cli_alloc(size + 1, 1);
    int64_t line = 1;
    for (const char *at = data; at < data + size; line++) {
        const char *end = memchr(at, '\n', (size_t)(data + size - at));
        json j = { at, end ? end : data + size, NULL, scratch, 0 };
        if (!json_line(&j, text, &text_size)) cli_fail("%s: line %" PRId64 ": %s", path, line, j.error);
        print_ids(text, text_size, "[", ", ", "]");
        at = j.end + (end != NULL);
    }
    free(data);
    free(text);
    free(scratch);
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
