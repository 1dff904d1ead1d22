/* chat - talks with an instruction-tuned model from a GGUF file.
   cc -O2 -I. examples/chat.c -o chat -lm

   The conversation is kept as turns. For each question all of it is written as the model's chat template
   has it, and the session evaluates only what it does not hold already (tfm_eval_from_prefix). When the
   context is full, the oldest question and its answer are forgotten; the system message stays. */
#define _XOPEN_SOURCE 700
#define TFM_IMPLEMENTATION
#include "tfm.h"
#include "tools/cli.h"

static struct {
    const char *system, *template, *load;
    int64_t tokens, top_k, threads, context;
    float temperature, top_p, min_p, repeat_penalty;
    cli_seed seed;
    tfm_type cache;
    tfm_level level;
    bool repack;
} o = { .top_k = 40, .temperature = 0.8f, .top_p = 0.95f, .min_p = 0.05f, .repeat_penalty = 1 };

static const cli_option options[] = {
    { "--system", CLI_TEXT, &o.system, 0, 0, "TEXT", "what the model is told before the conversation" },
    { "--template", CLI_TEXT, &o.template, 0, 0, "NAME", "chat template (the file's own): chatml, llama2, llama3, ...\n"
      "see tfm_chat_init" },
    { "--load", CLI_TEXT, &o.load, 0, 0, "FILE", "go on with a conversation that /save wrote" },
    { "-n", CLI_WHOLE, &o.tokens, 0, CLI_MANY, "TOKENS", "an answer has at most so many tokens (0: no limit)" },
    { "--temp", CLI_REAL, &o.temperature, 0, (double)FLT_MAX, "X", "temperature (0.8); 0 takes the likeliest token" },
    { "--top-k", CLI_WHOLE, &o.top_k, 0, CLI_INT, "K", "draw from the K likeliest (40); 0 is off" },
    { "--top-p", CLI_REAL, &o.top_p, CLI_ABOVE_0, 1, "P", "and of these the fewest that reach P (0.95)" },
    { "--min-p", CLI_REAL, &o.min_p, 0, 1, "P", "and of these those above P times the best (0.05)" },
    { "--repeat-penalty", CLI_REAL, &o.repeat_penalty, CLI_ABOVE_0, (double)FLT_MAX, "X",
      "makes the last 64 tokens less likely (1.0: off)" },
    { "-s", CLI_SEED, &o.seed, 0, 0, "SEED", "the same seed gives the same answers (random)" },
    { "-t", CLI_WHOLE, &o.threads, 1, 256, "THREADS", "threads (the CPUs that the process may use)" },
    { "-c", CLI_WHOLE, &o.context, 1, CLI_INT, "CONTEXT", "positions (the smaller of the model's and 2048)" },
    { "--kv", CLI_CACHE, &o.cache, 0, 0, "f32|f16", "type of the cache of keys and values (f32)" },
    { "--repack", CLI_FLAG, &o.repack, 0, 0, NULL, "interleave quantized weights at load: faster, takes memory" },
    { "--level", CLI_LEVEL, &o.level, 0, 0, "NAME", "kernels (auto: the best that this CPU has); one of" },
    { NULL, CLI_FLAG, NULL, 0, 0, NULL, NULL }
};
static const cli_program program = {
    "chat", "MODEL.gguf", 1, 1,
    "Talks with a model: each line of standard input is a question, answered on standard output. On a\n"
    "terminal ctrl-C stops an answer, and at the prompt the program; /help lists the commands.", options
};
static const char help[] =
    "/reset      forget the conversation, but for the system message\n"
    "/save FILE  write the conversation and the model's state\n"
    "/load FILE  go on with what /save wrote\n"
    "/help       this page\n"
    "/quit       end; so does ctrl-D\n"
    "A line that ends with \\ has more lines behind it. // at its beginning stands for one /.\n";

static const tfm_tokenizer *tokenizer;
static tfm_session *session;
static tfm_context *context;
static tfm_chat chat;
static bool interactive;
static struct { int64_t answers, asked, evaluated, generated; double seconds; } figures;

/* ---- Text that grows, and turns of it ---- */

typedef struct text { char *bytes; size_t size, capacity; } text;      /* NUL stands behind the bytes */

/* NUL bytes are left out: contents are C strings. */
static void text_add(text *t, const char *bytes, size_t size) {
    if (size + 1 > t->capacity - t->size) {
        size_t capacity = 2 * (t->size + size) + 64;
        char *larger = realloc(t->bytes, capacity);
        if (!larger) cli_fail("out of memory: %zu bytes", capacity);
        t->bytes = larger;
        t->capacity = capacity;
    }
    for (size_t i = 0; i < size; i++)
        if (bytes[i]) t->bytes[t->size++] = bytes[i];
    t->bytes[t->size] = 0;
}

static const char *const roles[] = { "system", "user", "assistant" };

typedef struct talk { tfm_turn *turns; int64_t count, capacity; } talk;
static talk now;

/* The talk owns the contents. */
static void talk_add(talk *t, const char *role, const char *content, size_t size) {
    if (t->count == t->capacity) {
        t->capacity = 2 * t->capacity + 16;
        t->turns = realloc(t->turns, (size_t)t->capacity * sizeof *t->turns);
        if (!t->turns) cli_fail("out of memory: %" PRId64 " turns", t->capacity);
    }
    char *copy = cli_alloc(size + 1, 1);
    if (size) memcpy(copy, content, size);
    t->turns[t->count++] = (tfm_turn){ role, copy };
}
static void talk_remove(talk *t, int64_t first, int64_t count) {
    for (int64_t i = first; i < first + count; i++) free((char *)(uintptr_t)t->turns[i].content);
    memmove(t->turns + first, t->turns + first + count, (size_t)(t->count - first - count) * sizeof *t->turns);
    t->count -= count;
}
static int64_t talk_begin(const talk *t) { return t->count > 0 && t->turns[0].role == roles[0]; }
static void talk_free(talk *t) {
    talk_remove(t, 0, t->count);
    free(t->turns);
    memset(t, 0, sizeof *t);
}

/* ---- Messages ---- */

/* What cannot be done ends a script, and is only said in a conversation. */
CLI_PRINTF(1) static void complain(const char *format, ...) {
    va_list args;
    va_start(args, format);
    cli_print_message(format, args);
    va_end(args);
    if (!interactive) exit(1);
}
CLI_PRINTF(1) static void note(const char *format, ...) {
    va_list args;
    va_start(args, format);
    cli_print_message(format, args);
    va_end(args);
}

/* ---- An answer ---- */

static void on_interrupt(void) { tfm_cancel(session); }

static bool on_progress(void *user, int64_t done, int64_t total) {
    (void)user;
    cli_progress("reading", cli_interrupted ? total : done, total);
    return !cli_interrupted;
}
static bool on_text(void *user, const char *bytes, size_t size) {
    text_add(user, bytes, size);
    return fwrite(bytes, 1, size, stdout) == size && fflush(stdout) == 0 && !cli_interrupted;
}

/* The ids of the conversation up to where the answer begins, in malloc'd memory; NULL: complained. */
static int32_t *prompt_ids(int64_t *count) {
    int64_t n = tfm_chat_tokenize(context, tokenizer, &chat, now.turns, now.count, true, NULL, 0);
    int32_t *ids = n < 0 ? NULL : cli_alloc((size_t)n, sizeof *ids);
    if (ids) n = tfm_chat_tokenize(context, tokenizer, &chat, now.turns, now.count, true, ids, n);
    if (n < 0) complain("%s", tfm_message(context));
    if (n < 0) tfm_clear(context);
    *count = n;
    return ids;
}
/* The same, less the oldest turns if not even an eighth of the context would be left for the answer. */
static int32_t *fitting_ids(int64_t *count) {
    int64_t room = tfm_session_capacity(session), most = room - room / 8 - 1, begin = talk_begin(&now);
    bool forgot = false;
    for (;;) {
        int32_t *ids = prompt_ids(count);
        if (!ids || *count <= most) {
            if (forgot) note("the context (-c) of %" PRId64 " positions is full: the oldest turns are forgotten", room);
            return ids;
        }
        free(ids);
        if (now.count - begin < 3) break;
        talk_remove(&now, begin, 2);    /* a question and its answer */
        forgot = true;
    }
    complain("this takes %" PRId64 " of %" PRId64 " positions (-c), at most %" PRId64 " leave room for an answer",
             *count, room, most);
    return NULL;
}
/* A ctrl-C that came when nothing was left to stop is forgotten. */
static tfm_status evaluate(const int32_t *ids, int64_t count) {
    for (;;) {
        tfm_status status = tfm_eval_from_prefix(session, ids, count);
        if (status != TFM_CANCELLED || cli_interrupted) return status;
        tfm_clear(context);
    }
}
static tfm_finish write_answer(text *answer) {
    int64_t generated = 0;
    tfm_generate_opts opts = {
        .sampling = { .temperature = o.temperature, .top_k = (int)o.top_k, .top_p = o.top_p, .min_p = o.min_p,
                      .repeat_penalty = o.repeat_penalty, .seed = o.seed.value + (uint64_t)figures.answers },
        .max_tokens = o.tokens, .raw_bytes = true, .generated = &generated
    };
    double began = cli_seconds();
    tfm_finish finish = tfm_continue(session, &opts, on_text, answer);
    figures.seconds += cli_seconds() - began;
    figures.generated += generated;
    figures.answers++;
    return finish;
}
/* Answers the question, which is the last turn, and keeps the answer as the next. */
static void answer_question(void) {
    int64_t count;
    int32_t *ids = fitting_ids(&count);
    if (!ids) { talk_remove(&now, now.count - 1, 1); return; }
    text answer = { 0 };
    text_add(&answer, "", 0);
    figures.asked += count;
    figures.evaluated += count - tfm_prefix(session, ids, count);
    cli_stop = on_interrupt;
    tfm_status status = evaluate(ids, count);
    tfm_finish finish = status == TFM_OK ? write_answer(&answer) : TFM_FINISH_ERROR;
    cli_stop = NULL;
    free(ids);
    putchar('\n');
    if (fflush(stdout) != 0) cli_finish();                 /* says why, and ends */
    if (status == TFM_CANCELLED) talk_remove(&now, now.count - 1, 1);
    else if (finish == TFM_FINISH_ERROR) cli_fail("%s", tfm_message(context));
    else talk_add(&now, roles[2], answer.bytes, answer.size);
    if (finish == TFM_FINISH_FULL)
        note("stopped: the context (-c) of %" PRId64 " positions is full", tfm_session_capacity(session));
    free(answer.bytes);
    tfm_clear(context);
    if (cli_interrupted && (!interactive || cli_interrupted != SIGINT)) cli_check_interrupt();
    cli_interrupted = 0;
    cli_start();                        /* the next ctrl-C is a first one again */
}

/* ---- /save and /load: a line of numbers, for each turn its role and size before its content, the state ---- */

#define MAGIC "tfm-chat 1 "

static bool write_talk(FILE *f) {
    size_t size = tfm_session_save(session, NULL, 0);
    void *state = size ? malloc(size) : NULL;
    if (!state || !tfm_session_save(session, state, size)) {
        complain("%s", size ? "out of memory" : tfm_message(context));
        tfm_clear(context);
        free(state);
        return false;
    }
    fprintf(f, MAGIC "%" PRId64 " %zu\n", now.count, size);
    for (int64_t i = 0; i < now.count; i++)
        fprintf(f, "%s %zu\n%s\n", now.turns[i].role, strlen(now.turns[i].content), now.turns[i].content);
    fwrite(state, 1, size, f);
    free(state);
    return true;
}
static void save(const char *path) {
    char part[4096];
    if (snprintf(part, sizeof part, "%s.part", path) >= (int)sizeof part) { complain("the name is too long"); return; }
    errno = 0;
    FILE *f = fopen(part, "wb");
    bool written = f && write_talk(f), failed = f && ferror(f);
    if (f) failed = fclose(f) != 0 || failed;
    if (f && !written) { remove(part); return; }
#ifdef _WIN32
    if (f && !failed) remove(path);
#endif
    if (!f || failed || rename(part, path) != 0) {
        complain("%s: %s", path, errno ? strerror(errno) : "cannot be written");
        if (f) remove(part);
    }
}

typedef struct reader { const char *at, *end; } reader;

/* A decimal number of at most 15 digits and the character after it. */
static bool read_number(reader *r, char after, size_t *out) {
    int digits = 0;
    for (*out = 0; r->at < r->end && *r->at >= '0' && *r->at <= '9' && digits < 15; r->at++, digits++)
        *out = *out * 10 + (size_t)(*r->at - '0');
    return digits && r->at < r->end && *r->at++ == after;
}
static bool read_word(reader *r, const char *word) {
    size_t n = strlen(word);
    if ((size_t)(r->end - r->at) < n || memcmp(r->at, word, n) != 0) return false;
    r->at += n;
    return true;
}
static bool read_turn(reader *r, talk *t) {
    size_t size;
    int role = 0;
    while (role < 3 && !read_word(r, roles[role])) role++;
    if (role == 3 || !read_word(r, " ") || !read_number(r, '\n', &size)) return false;
    if (size >= (size_t)(r->end - r->at) || r->at[size] != '\n' || memchr(r->at, 0, size)) return false;
    talk_add(t, roles[role], r->at, size);
    r->at += size + 1;
    return true;
}
static void load_bytes(const char *path, const char *bytes, size_t size) {
    reader r = { bytes, bytes + size };
    talk t = { 0 };
    size_t turns = 0, state = 0;
    bool ok = read_word(&r, MAGIC) && read_number(&r, ' ', &turns) && read_number(&r, '\n', &state);
    while (ok && (size_t)t.count < turns) ok = read_turn(&r, &t);
    if (!ok || (size_t)(r.end - r.at) != state) complain("%s: not a file that /save wrote, or damaged", path);
    else if (t.count && tfm_chat_apply(&chat, t.turns, t.count, false, NULL, 0, NULL, &(tfm_error){ 0 }) < 0)
        complain("%s: this conversation does not suit the chat template %s", path, tfm_chat_name(&chat));
    else if (tfm_session_load(session, r.at, state) != TFM_OK) complain("%s: %s", path, tfm_message(context));
    else {
        talk old = now;
        now = t;
        t = old;
    }
    tfm_clear(context);
    talk_free(&t);
}
static void load(const char *path) {
    FILE *f = fopen(path, "rb");
    char *bytes = NULL;
    size_t size = 0, capacity = 1 << 16;
    errno = 0;
    while (f && size < SIZE_MAX / 4) {
        char *larger = realloc(bytes, capacity *= 2);
        if (!larger) break;
        bytes = larger;
        size += fread(bytes + size, 1, capacity - size, f);
        if (size < capacity) break;
    }
    bool read = f && bytes && size < capacity && !ferror(f);
    if (f) fclose(f);
    if (read) load_bytes(path, bytes, size);
    else complain("%s: %s", path, errno ? strerror(errno) : "cannot be read");
    free(bytes);
}

/* ---- Lines ---- */

/* One line of standard input, or several, each but the last with a \ at its end; false at the end of the input. */
static bool read_line(text *line) {
    line->size = 0;
    text_add(line, "", 0);
    if (interactive) fputs("> ", stderr);
    for (int c; (c = getchar()) != EOF;) {
        char byte = (char)c;
        bool joined = c == '\n' && line->size && line->bytes[line->size - 1] == '\\';
        if (joined) line->bytes[--line->size] = 0;
        if (joined && interactive) fputs("  ", stderr);
        if (c == '\n' && !joined) return true;
        text_add(line, &byte, 1);
    }
    return line->size > 0;
}

/* A command with an argument: the argument, or NULL. */
static const char *argument_of(const char *line, const char *command) {
    size_t n = strlen(command);
    if (strncmp(line, command, n) != 0 || (line[n] && line[n] != ' ')) return NULL;
    return line + n + strspn(line + n, " ");
}
/* False ends the program. */
static bool obey(const char *line) {
    const char *path;
    if (argument_of(line, "/quit")) return false;
    if (argument_of(line, "/help")) fputs(help, interactive ? stderr : stdout);
    else if (argument_of(line, "/reset")) talk_remove(&now, talk_begin(&now), now.count - talk_begin(&now));
    else if ((path = argument_of(line, "/save")) != NULL && *path) save(path);
    else if ((path = argument_of(line, "/load")) != NULL && *path) load(path);
    else complain("%s: no such command, or its file is missing; /help lists them", line);
    return true;
}
static bool blank(const char *s) { return s[strspn(s, " \t\r")] == 0; }

static void talk_in_lines(void) {
    text line = { 0 };
    while (read_line(&line)) {
        if (line.size && line.bytes[line.size - 1] == '\r') line.bytes[--line.size] = 0;
        if (blank(line.bytes)) continue;
        bool escaped = line.bytes[0] == '/' && line.bytes[1] == '/';
        if (line.bytes[0] == '/' && !escaped) {
            if (!obey(line.bytes)) break;
            continue;
        }
        talk_add(&now, roles[1], line.bytes + escaped, line.size - escaped);
        answer_question();
    }
    if (ferror(stdin)) cli_fail("standard input: %s", strerror(errno));
    free(line.bytes);
}

/* The template by its name, or the file's; with the system message it must take a question. */
static void begin_chat(const tfm_file *file, const char *path) {
    static char date[32];
    tfm_string jinja = { o.template, o.template ? strlen(o.template) : 0 };
    tfm_value value;
    tfm_error err;
    time_t seconds = time(NULL);
    if (!o.template && !(tfm_file_meta(file, "tokenizer.chat_template", &value) && tfm_value_string(&value, &jinja)))
        cli_fail("%s: holds no chat template; --template names one", path);
    if (tfm_chat_init(&chat, jinja, tokenizer, &err) != TFM_OK) cli_fail_at(path, err.message);
    if (strftime(date, sizeof date, "%d %b %Y", localtime(&seconds))) chat.date = date;
    if (o.system) talk_add(&now, roles[0], o.system, strlen(o.system));
    talk_add(&now, roles[1], "?", 1);
    if (tfm_chat_apply(&chat, now.turns, now.count, true, NULL, 0, NULL, &err) < 0) cli_fail("%s", err.message);
    talk_remove(&now, now.count - 1, 1);
}

int main(int argc, char **argv) {
    cli_parse(&program, argc, argv);
    interactive = cli_is_terminal(stdin);
    tfm_error err;
    tfm_model *model = tfm_model_open(argv[0], &(tfm_model_opts){ .repack = o.repack }, &err);
    if (!model) cli_fail_at(argv[0], err.message);
    tokenizer = tfm_model_tokenizer(model);
    if (!tokenizer) cli_fail("%s: holds no tokenizer", argv[0]);
    begin_chat(tfm_model_file(model), argv[0]);
    session = tfm_session_new(model, &(tfm_session_opts){ .context = (int)o.context, .threads = (int)o.threads,
        .cache = o.cache, .level = o.level, .progress = on_progress }, &err);
    if (!session) cli_fail_at(argv[0], err.message);
    context = tfm_session_context(session);
    if (!o.seed.given) o.seed.value = cli_random_seed();
    if (o.load) {
        bool was = interactive;
        interactive = false;            /* failing ends the program */
        load(o.load);
        interactive = was;
    }
    if (interactive)
        note("%s, template %s, %" PRId64 " positions; /help lists the commands", argv[0], tfm_chat_name(&chat),
             tfm_session_capacity(session));

    talk_in_lines();
    cli_finish();
    fprintf(stderr, "answers: %" PRId64 ", %" PRId64 " tokens, %.1f tokens/s; of %" PRId64 " tokens of prompts %" PRId64
            " were evaluated\n", figures.answers, figures.generated,
            (double)figures.generated / (figures.seconds + 1e-9), figures.asked, figures.evaluated);
    if (!o.seed.given && o.temperature > 0) fprintf(stderr, "seed: %" PRIu64 "\n", o.seed.value);
    talk_free(&now);
    tfm_session_free(session);
    tfm_model_free(model);
    return 0;
}
