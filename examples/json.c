/* json - writes a JSON object with any GGUF model: the output always parses.
   cc -O2 -I. examples/json.c -o json -lm

   A hook on the logits bans every token whose bytes would leave valid JSON, or after which the object
   could no longer be closed in the tokens that are left. Nothing of it is in the library: a byte-wise
   reader of JSON (first part) and a loop over the vocabulary (second part). */
#define _XOPEN_SOURCE 700
#define TFM_IMPLEMENTATION
#include "tfm.h"
#include "tools/cli.h"

/* ---- A reader of JSON that takes a byte at a time and may be copied at any point ---- */

enum { DEPTH = 16, NAMES = 64, SPACES = 20, FIELDS = 32 };          /* limits; spaces: in a row */

typedef enum state {
    START, FIRST_NAME, NAME, COLON, FIRST_VALUE, VALUE, AFTER, LITERAL, STRING, ESCAPE, HEX, HALF,
    MINUS, ZERO, DIGITS, POINT, FRACTION, EXPONENT, SIGN, POWER, DONE
} state;

typedef struct reader {
    state at;
    bool in_name;                       /* STRING: it is a member's name */
    int depth, spaces, digits;          /* digits: left of \uXXXX */
    char open[DEPTH];                   /* '{' or '[' */
    const char *literal;                /* LITERAL: what must follow */
    int more;                           /* bytes left of a character; the next lies in low..high */
    unsigned char low, high;
    uint32_t name, names[NAMES];        /* hashes: of the name so far, of those in objects that are open */
    int name_count, first_name[DEPTH];
    int field, field_at;                /* --keys: which one is next, bytes of it that were read */
} reader;

typedef struct field { const char *name, *starts, *shortest; int size; } field;
static field fields[FIELDS];            /* --keys: the members of the outermost object, in this order */
static int field_count;

static const uint32_t hash_start = 2166136261u;
static uint32_t hash(uint32_t h, unsigned char c) { return (h ^ c) * 16777619u; }

/* A name twice in one object is legal but useless, and some readers refuse it. (Names whose hashes are equal
   by chance count as equal, too.) */
static bool is_taken(const reader *r, uint32_t name) {
    for (int i = r->first_name[r->depth - 1]; i < r->name_count; i++) if (r->names[i] == name) return true;
    return false;
}
static bool is_field(const reader *r) { return field_count && r->depth == 1 && r->in_name; }

static bool string_byte(reader *r, unsigned char c) {
    if (is_field(r)) {
        const field *f = &fields[r->field];
        if (r->field_at < f->size) return (unsigned char)f->name[r->field_at++] == c;
        if (c != '"') return false;
        r->at = COLON;
        return true;
    }
    if (r->more) {
        if (c < r->low || c > r->high) return false;
        r->more--;
        r->low = 0x80;
        r->high = 0xbf;
    } else if (c == '"') {
        if (r->in_name && is_taken(r, r->name)) return false;
        if (r->in_name) r->names[r->name_count++] = r->name;
        r->at = r->in_name ? COLON : AFTER;
        return true;
    } else if (c == '\\') {
        if (r->in_name) return false;   /* so that equal names have equal bytes */
        r->at = ESCAPE;
        return true;
    } else if (c >= 0x80) {
        if (c < 0xc2 || c > 0xf4) return false;
        r->more = 1 + (c >= 0xe0) + (c >= 0xf0);
        r->low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
        r->high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
    } else if (c < 32) return false;
    r->name = hash(r->name, c);
    return true;
}
static bool open_byte(reader *r, unsigned char c) {
    if (r->depth == DEPTH) return false;
    r->open[r->depth] = (char)c;
    r->first_name[r->depth++] = r->name_count;
    r->at = c == '{' ? FIRST_NAME : FIRST_VALUE;
    return true;
}
static bool close_byte(reader *r, unsigned char c) {
    if (c != (r->open[r->depth - 1] == '{' ? '}' : ']')) return false;
    r->name_count = r->first_name[--r->depth];
    r->at = r->depth ? AFTER : DONE;
    return true;
}
static bool name_byte(reader *r, unsigned char c) {
    if (c != '"' || r->name_count == NAMES) return false;
    r->at = STRING;
    r->in_name = true;
    r->name = hash_start;
    r->field_at = 0;
    return true;
}
static bool value_byte(reader *r, unsigned char c) {
    static const char *const literals[] = { "true", "false", "null" };
    if (field_count && r->depth == 1 && !strchr(fields[r->field].starts, c)) return false;
    if (c == '{' || c == '[') return open_byte(r, c);
    r->at = c == '"' ? STRING : c == '-' ? MINUS : c == '0' ? ZERO : c >= '1' && c <= '9' ? DIGITS : LITERAL;
    r->in_name = false;
    if (r->at != LITERAL) return true;
    for (int i = 0; i < 3; i++) {
        r->literal = literals[i] + 1;
        if (c == literals[i][0]) return true;
    }
    return false;
}
/* After a value: the next one or the end. */
static bool after_byte(reader *r, unsigned char c) {
    bool object = r->open[r->depth - 1] == '{', fixed = field_count && r->depth == 1;
    bool more = fixed ? r->field + 1 < field_count : !object || r->name_count < NAMES;
    if (c != ',') return !(fixed && more) && close_byte(r, c);
    if (!more) return false;
    if (fixed) r->field++;
    r->at = object ? NAME : VALUE;
    return true;
}
static bool number_byte(reader *r, unsigned char c) {
    static const struct { state at, digit, point, exponent, sign; } rules[] = {    /* START: not here */
        { MINUS, DIGITS, START, START, START }, { ZERO, START, POINT, EXPONENT, START },
        { DIGITS, DIGITS, POINT, EXPONENT, START }, { POINT, FRACTION, START, START, START },
        { FRACTION, FRACTION, START, EXPONENT, START }, { EXPONENT, POWER, START, START, SIGN },
        { SIGN, POWER, START, START, START }, { POWER, POWER, START, START, START } };
    state next = START, at = r->at;
    bool ends = at == ZERO || at == DIGITS || at == FRACTION || at == POWER;
    if (c >= '0' && c <= '9') next = at == MINUS && c == '0' ? ZERO : rules[at - MINUS].digit;
    else if (c == '.') next = rules[at - MINUS].point;
    else if (c == 'e' || c == 'E') next = rules[at - MINUS].exponent;
    else if (c == '+' || c == '-') next = rules[at - MINUS].sign;
    if (next != START) { r->at = next; return true; }
    if (!ends) return false;
    r->at = AFTER;
    return c == ' ' || c == '\n' ? ++r->spaces > 0 : after_byte(r, c);
}
/* What follows a backslash. \ud800 to \udfff are halves of pairs: HALF, the digit after a first d, is below 8. */
static bool escape_byte(reader *r, unsigned char c) {
    if (r->at == ESCAPE) {
        r->at = c == 'u' ? HEX : STRING;
        r->digits = 4;
        return c && strchr("\"\\/bfnrtu", c);
    }
    bool digit = c && strchr("0123456789abcdefABCDEF", c), fits = r->at != HALF || c < '8';
    bool half = r->digits-- == 4 && (c == 'd' || c == 'D');
    r->at = half ? HALF : r->digits ? HEX : STRING;
    return digit && fits;
}
/* Takes one more byte; false: no JSON that this program writes begins like that. */
static bool read_byte(reader *r, unsigned char c) {
    bool between = r->at >= FIRST_NAME && r->at <= AFTER;
    if (between && (c == ' ' || c == '\n')) return ++r->spaces <= SPACES;
    r->spaces = 0;
    switch (r->at) {
        case START: return c == '{' && open_byte(r, c);
        case FIRST_NAME: return c == '}' && !(field_count && r->depth == 1) ? close_byte(r, c) : name_byte(r, c);
        case NAME: return name_byte(r, c);
        case COLON: r->at = VALUE; return c == ':';
        case FIRST_VALUE: return c == ']' ? close_byte(r, c) : value_byte(r, c);
        case VALUE: return value_byte(r, c);
        case AFTER: return after_byte(r, c);
        case LITERAL:
            if (c != (unsigned char)*r->literal++) return false;
            if (!*r->literal) r->at = AFTER;
            return true;
        case STRING: return string_byte(r, c);
        case ESCAPE: case HEX: case HALF: return escape_byte(r, c);
        case DONE: return false;
        default: return number_byte(r, c);
    }
}
/* The byte after which the end is nearest. */
static unsigned char toward_end(const reader *r) {
    const field *f = field_count && r->depth == 1 ? &fields[r->field] : NULL;
    switch (r->at) {
        case START: return '{';
        case FIRST_NAME: return f ? '"' : '}';
        case NAME: return '"';
        case COLON: return ':';
        case FIRST_VALUE: return ']';
        case VALUE: return (unsigned char)(f ? f->shortest[0] : '0');
        case LITERAL: return (unsigned char)*r->literal;
        case ESCAPE: return 'n';
        case HEX: case HALF: case MINUS: case POINT: case EXPONENT: case SIGN: return '0';
        case STRING:
            if (is_field(r)) return (unsigned char)(r->field_at < f->size ? f->name[r->field_at] : '"');
            if (r->more) return r->low;
            for (unsigned char c = '0'; r->in_name && is_taken(r, r->name) && c < 127; c++)
                if (c != '\\' && !is_taken(r, hash(r->name, c))) return c;
            return '"';
        default: return f && r->field + 1 < field_count ? ',' : r->open[r->depth - 1] == '{' ? '}' : ']';
    }
}

/* ---- The mask over a vocabulary ---- */

static struct {
    const char *prompt, *file, *keys;
    int64_t tokens, top_k, threads, context;
    float temperature, top_p, min_p;
    cli_seed seed;
} o = { .tokens = 256, .top_k = 40, .temperature = 0.8f, .top_p = 0.95f, .min_p = 0.05f };

static reader text;                     /* what was written so far */
static int64_t bytes_made, bytes_written, tokens_left;
static char *token_bytes;               /* of all tokens, one after the other; token i's end where i + 1's begin */
static size_t *token_begin;
static int64_t token_count;
static bool is_token[256];              /* there is one that is this byte */

static void read_vocabulary(const tfm_tokenizer *t) {
    size_t used = 0;
    token_count = tfm_vocab_size(t);
    token_begin = cli_alloc((size_t)token_count + 1, sizeof *token_begin);
    for (int pass = 0; pass < 2; pass++) {
        for (int32_t i = 0; i < token_count; i++) {
            size_t n = tfm_token_bytes(t, i, false, pass ? token_bytes + token_begin[i] : NULL, pass ? SIZE_MAX : 0);
            token_begin[i + 1] = token_begin[i] + n;
            if (pass && n == 1) is_token[(unsigned char)token_bytes[token_begin[i]]] = true;
        }
        used = token_begin[token_count];
        if (!pass) token_bytes = cli_alloc(used, 1);
    }
}
/* How many tokens of one byte end the text; more than `most` if there are more, or no such tokens. */
static int64_t tokens_to_end(reader r, int64_t most) {
    int64_t n = 0;
    for (; r.at != DONE && n <= most; n++) {
        unsigned char c = toward_end(&r);
        if (!is_token[c] || !read_byte(&r, c)) return most + 1;
    }
    return n;
}
static bool is_allowed(int64_t id, const bool *begins, bool near_end) {
    const char *p = token_bytes + token_begin[id], *end = token_bytes + token_begin[id + 1];
    if (p == end || !begins[(unsigned char)*p]) return false;       /* control tokens have no bytes */
    reader r = text;
    while (p < end) if (!read_byte(&r, (unsigned char)*p++)) return false;
    return !(near_end || r.more) || tokens_to_end(r, tokens_left - 1) < tokens_left;
}
/* The hook: at least one token stays, for the one that toward_end names does. */
static void mask(void *user, float *logits, int64_t vocab) {
    bool begins[256], near_end = tokens_left < 4096;    /* beyond that no text is far from its end */
    (void)user;
    for (int c = 0; c < 256; c++) {
        reader r = text;
        begins[c] = read_byte(&r, (unsigned char)c);
    }
    for (int64_t i = 0; i < vocab; i++)
        if (i >= token_count || !is_allowed(i, begins, near_end)) logits[i] = -INFINITY;
        else if (!isfinite(logits[i])) logits[i] = -1e30f;          /* even of a model that computes nonsense */
}
static bool on_token(void *user, int32_t id) {
    (void)user;
    for (size_t i = token_begin[id]; i < token_begin[id + 1]; i++, bytes_made++)
        read_byte(&text, (unsigned char)token_bytes[i]);
    tokens_left--;
    return !cli_interrupted;
}
static bool on_text(void *user, const char *bytes, size_t size) {
    (void)user;
    bytes_written += (int64_t)size;
    return fwrite(bytes, 1, size, stdout) == size && fflush(stdout) == 0 && !cli_interrupted &&
           (text.at != DONE || bytes_written < bytes_made);
}

/* ---- The program ---- */

static const cli_option options[] = {
    { "-p", CLI_TEXT, &o.prompt, 0, 0, "TEXT", "the prompt; without one the model begins by itself" },
    { "-f", CLI_TEXT, &o.file, 0, 0, "FILE", "the prompt is what FILE holds; - is standard input" },
    { "--keys", CLI_TEXT, &o.keys, 0, 0, "NAME,NAME:TYPE",
      "the object's members, in this order, TYPE being string, number,\nboolean, array or object" },
    { "-n", CLI_WHOLE, &o.tokens, 0, CLI_MANY, "TOKENS", "write at most so many tokens (256)" },
    { "--temp", CLI_REAL, &o.temperature, 0, (double)FLT_MAX, "X", "temperature (0.8); 0 takes the likeliest token" },
    { "--top-k", CLI_WHOLE, &o.top_k, 0, CLI_INT, "K", "draw from the K likeliest (40); 0 is off" },
    { "--top-p", CLI_REAL, &o.top_p, CLI_ABOVE_0, 1, "P", "and of these the fewest that reach P (0.95)" },
    { "--min-p", CLI_REAL, &o.min_p, 0, 1, "P", "and of these those above P times the best (0.05)" },
    { "-s", CLI_SEED, &o.seed, 0, 0, "SEED", "the same seed writes the same text (0)" },
    { "-t", CLI_WHOLE, &o.threads, 1, 256, "THREADS", "threads (the CPUs that the process may use)" },
    { "-c", CLI_WHOLE, &o.context, 1, CLI_INT, "CONTEXT", "positions (the smaller of the model's and 2048)" },
    { NULL, CLI_FLAG, NULL, 0, 0, NULL, NULL }
};
static const cli_program program = {
    "json", "MODEL.gguf", 1, 1, "Writes a JSON object that continues a prompt and always parses.", options
};

/* "name,age:number": writes NULs into the text. */
static void read_keys(char *keys) {
    static const struct { const char *type, *starts, *shortest; } types[] = {
        { "string", "\"", "\"" }, { "number", "-0123456789", "0" }, { "boolean", "tf", "t" }, { "array", "[", "[" },
        { "object", "{", "{" } };
    for (char *p = keys; p; field_count++) {
        char *comma = strchr(p, ','), *type;
        if (comma) *comma = 0;
        if (field_count == FIELDS) cli_usage("--keys: more than %d", FIELDS);
        field *f = &fields[field_count];
        *f = (field){ .name = p, .starts = "\"-0123456789tfn[{", .shortest = "0" };
        if ((type = strchr(p, ':')) != NULL) {
            size_t i = 0;
            *type++ = 0;
            while (i < sizeof types / sizeof *types && strcmp(type, types[i].type) != 0) i++;
            if (i == sizeof types / sizeof *types) cli_usage("--keys: '%s' is no type (--help lists them)", type);
            f->starts = types[i].starts;
            f->shortest = types[i].shortest;
        }
        f->size = (int)strlen(p);
        for (int i = 0; i < field_count; i++)
            if (strcmp(fields[i].name, p) == 0) cli_usage("--keys: '%s' twice", p);
        reader r = { .at = STRING };
        for (int i = 0; i < f->size; i++)
            if (p[i] == '"' || p[i] == '\\' || !read_byte(&r, (unsigned char)p[i]))
                cli_usage("--keys: '%s' holds a quote, a backslash or bytes that are no UTF-8", p);
        if (r.more) cli_usage("--keys: '%s' ends within a character", p);
        p = comma ? comma + 1 : NULL;
    }
}

/* Names the first byte of the shortest text that the vocabulary lacks. */
static void fail_without_byte(const char *path) {
    reader r = text;
    unsigned char c = toward_end(&r);
    while (is_token[c] && read_byte(&r, c)) c = toward_end(&r);
    cli_fail("%s: has no token that is the byte 0x%02x, which the shortest such object needs", path, c);
}

static tfm_session *session;
static void on_interrupt(void) { tfm_cancel(session); }

int main(int argc, char **argv) {
    cli_parse(&program, argc, argv);
    size_t size;
    char *prompt = cli_text(o.prompt, o.file, &size), *keys = NULL;
    if (o.keys) read_keys(keys = strcpy(cli_alloc(strlen(o.keys) + 1, 1), o.keys));

    tfm_error err;
    tfm_model *model = tfm_model_open(argv[0], NULL, &err);
    if (!model) cli_fail_at(argv[0], err.message);
    const tfm_tokenizer *t = tfm_model_tokenizer(model);
    if (!t) cli_fail("%s: holds no tokenizer", argv[0]);
    session = tfm_session_new(model, &(tfm_session_opts){ .context = (int)o.context, .threads = (int)o.threads }, &err);
    if (!session) cli_fail_at(argv[0], err.message);
    tfm_context *c = tfm_session_context(session);

    read_vocabulary(t);
    int32_t bos = size == 0 || tfm_adds_bos(t) ? tfm_token_bos(t) : -1;
    int64_t count, room = tfm_session_capacity(session);
    int32_t *ids = cli_tokenize(c, t, prompt ? prompt : "", size, &(tfm_tokenize_opts){ .add_special = false }, bos,
                                &count);
    if (count == 0) cli_fail("the prompt is empty and %s has no BOS token to begin with", argv[0]);
    tokens_left = room - count < o.tokens ? room - count : o.tokens;
    int64_t least = tokens_to_end(text, 1 << 20);
    if (least > 1 << 20) fail_without_byte(argv[0]);
    if (least > tokens_left)
        cli_fail("at least %" PRId64 " tokens are needed, -n and the context (-c) leave %" PRId64, least, tokens_left);
    cli_stop = on_interrupt;
    if (tfm_eval(session, ids, count) != TFM_OK && !cli_interrupted) cli_fail("%s", tfm_message(c));
    tfm_generate_opts opts = {
        .sampling = { .temperature = o.temperature, .top_k = (int)o.top_k, .top_p = o.top_p, .min_p = o.min_p,
                      .seed = o.seed.value, .hook = mask },
        .max_tokens = tokens_left, .on_token = on_token
    };
    if (!cli_interrupted && tfm_continue(session, &opts, on_text, NULL) == TFM_FINISH_ERROR)
        cli_fail("%s", tfm_message(c));
    putchar('\n');
    cli_finish();
    cli_stop = NULL;
    tfm_session_free(session);
    tfm_model_free(model);
    free(ids);
    free(keys);
    free(prompt);
    free(token_begin);
    free(token_bytes);
    cli_check_interrupt();
    return 0;
}
