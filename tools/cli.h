/* cli.h - what the programs share: options, numbers, files, progress, signals.

   A program includes it once, after tfm.h:

       #define _XOPEN_SOURCE 700            // sigaction, realpath ... also under -std=c11
       #define TFM_IMPLEMENTATION
       #include "tfm.h"
       #include "tools/cli.h"

   The rules for all programs: one line on stderr and exit 1 for a failure, 2 for wrong usage,
   130 after ctrl-C; results go to stdout and nothing else does; an output file is complete or
   absent. Functions here end the program when they cannot do what they say. */
#ifndef TFM_CLI_H
#define TFM_CLI_H

#include <errno.h>
#include <float.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined(__unix__) || defined(__APPLE__)
#define CLI_POSIX 1
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#elif defined(_WIN32)
#include <fcntl.h>
#include <io.h>
#include <process.h>
#endif

#if defined(__GNUC__) || defined(__clang__)
#define CLI_PRINTF(at) __attribute__((format(printf, at, at + 1)))
#else
#define CLI_PRINTF(at)
#endif

/* ---- Messages ---- */

static const char *cli_name = "";                          /* the program's, in front of its messages */
static char cli_part[4200];                                /* the unfinished output file, if there is one */

/* "NAME: message" on one line of stderr: control characters of a name or a text become '?'. */
static inline void cli_print_message(const char *format, va_list args) {
    char line[1024];
    vsnprintf(line, sizeof line, format, args);
    for (char *p = line; *p; p++)
        if ((unsigned char)*p < 32 || *p == 127) *p = '?';
    fflush(stdout);                                        /* what was written stays in front of it */
    fprintf(stderr, "%s: %s\n", cli_name, line);
}

CLI_PRINTF(1) _Noreturn static inline void cli_fail(const char *format, ...) {
    va_list args;
    va_start(args, format);
    cli_print_message(format, args);
    va_end(args);
    if (cli_part[0]) remove(cli_part);
    _Exit(1);                                              /* all is written; memory goes with the process */
}

CLI_PRINTF(1) _Noreturn static inline void cli_usage(const char *format, ...) {
    va_list args;
    va_start(args, format);
    cli_print_message(format, args);
    va_end(args);
    _Exit(2);
}

/* A message of tfm.h about a file, named unless the message does so. */
_Noreturn static inline void cli_fail_at(const char *path, const char *message) {
    size_t n = strlen(path);
    if (strncmp(message, path, n) == 0 && message[n] == ':') cli_fail("%s", message);
    cli_fail("%s: %s", path, message);
}

static inline void *cli_alloc(size_t count, size_t size) {
    void *p = calloc(count ? count : 1, size);
    if (!p) cli_fail("out of memory: %zu x %zu bytes", count, size);
    return p;
}

/* ---- Options ---- */

typedef enum cli_kind {
    CLI_FLAG,                           /* bool *: set to true */
    CLI_TEXT,                           /* const char ** */
    CLI_WHOLE,                          /* int64_t *, from min to max */
    CLI_REAL,                           /* float *, from min to max */
    CLI_SEED,                           /* cli_seed *: unsigned 64-bit */
    CLI_LEVEL,                          /* tfm_level *: a name of tfm_level_name */
    CLI_CACHE                           /* tfm_type *: f32 or f16 */
} cli_kind;

typedef struct cli_seed { bool given; uint64_t value; } cli_seed;

typedef struct cli_option {
    const char *name;                   /* "-n" or "--temp"; NULL ends the table */
    cli_kind kind;
    void *value;
    double min, max;                    /* CLI_ABOVE_0 as min: 0 itself is out of range */
    const char *argument, *help;        /* for the page of --help; lines end with \n */
} cli_option;

#define CLI_ABOVE_0 ((double)FLT_MIN)
#define CLI_MANY 9007199254740992.0     /* 2^53: as good as no limit */
#define CLI_INT 2147483647.0

typedef struct cli_program {
    const char *name, *operands;        /* "generate", "[MODEL]" */
    int least, most;                    /* operands */
    const char *about;                  /* lines below the usage */
    const cli_option *options;
} cli_program;

static inline void cli_finish(void);

static inline void cli_help_line(const char *name, const char *argument, const char *help) {
    char left[64];
    snprintf(left, sizeof left, "%s %s", name, argument ? argument : "");
    printf("  %-22s ", left);
    for (; *help; help++)
        if (*help == '\n') printf("\n%25s", "");
        else putchar(*help);
    printf("\n");
}

static inline void cli_help(const cli_program *p) {
    printf("usage: %s [options] %s\n\n%s\n\noptions:\n", p->name, p->operands, p->about);
    for (const cli_option *o = p->options; o->name; o++) {
        cli_help_line(o->name, o->argument, o->help);
        for (int i = 0; o->kind == CLI_LEVEL && i < TFM_LEVEL_COUNT; i++) {
            bool available = tfm_level_available((tfm_level)i);
            printf("%25s%s%s\n", "", tfm_level_name((tfm_level)i), available ? "" : " (not on this CPU)");
        }
    }
    cli_help_line("-h, --help", NULL, "print this page");
    cli_help_line("--", NULL, "what follows is no option");
    cli_finish();
    exit(0);
}

/* The whole text as a decimal number: no spaces, nothing after it, no name of a number. */
static inline bool cli_number(const char *text, const char *allowed, double *out) {
    char *end;
    if (!*text || text[strspn(text, allowed)]) return false;
    *out = strtod(text, &end);
    return !*end && isfinite(*out);
}

static inline void cli_set_number(const cli_option *o, const char *text) {
    bool whole = o->kind == CLI_WHOLE;
    double v;
    if (!cli_number(text, whole ? "-0123456789" : "-+.eE0123456789", &v))
        cli_usage("%s %s: not a %snumber", o->name, text, whole ? "whole " : "");
    if (!whole) v = fabs(v) <= (double)FLT_MAX ? (double)(float)v : v;
    if (v < o->min && o->min == CLI_ABOVE_0) cli_usage("%s %s: must be above 0", o->name, text);
    if (v < o->min) cli_usage("%s %s: must be at least %.0f", o->name, text, o->min);
    if (v > o->max) cli_usage("%s %s: must be at most %.16g", o->name, text, o->max);
    if (whole) *(int64_t *)o->value = (int64_t)v;
    else *(float *)o->value = (float)v;
}

static inline void cli_set_seed(const cli_option *o, const char *text) {
    cli_seed *seed = o->value;
    errno = 0;
    seed->value = strtoull(text, NULL, 10);
    seed->given = true;
    if (!*text || text[strspn(text, "0123456789")] || errno == ERANGE)
        cli_usage("%s %s: must be a whole number from 0 to %" PRIu64, o->name, text, UINT64_MAX);
}

static inline void cli_set_level(const cli_option *o, const char *text) {
    for (int i = 0; i < TFM_LEVEL_COUNT; i++) {
        if (strcmp(text, tfm_level_name((tfm_level)i)) != 0) continue;
        *(tfm_level *)o->value = (tfm_level)i;
        return;
    }
    cli_usage("%s %s: no such level (--help lists them)", o->name, text);
}

static inline void cli_set(const cli_option *o, const char *text) {
    switch (o->kind) {
        case CLI_FLAG: *(bool *)o->value = true; break;
        case CLI_TEXT: *(const char **)o->value = text; break;
        case CLI_WHOLE: case CLI_REAL: cli_set_number(o, text); break;
        case CLI_SEED: cli_set_seed(o, text); break;
        case CLI_LEVEL: cli_set_level(o, text); break;
        case CLI_CACHE:
            if (strcmp(text, "f32") != 0 && strcmp(text, "f16") != 0)
                cli_usage("%s %s: must be f32 or f16", o->name, text);
            *(tfm_type *)o->value = strcmp(text, "f16") == 0 ? TFM_F16 : TFM_F32;
            break;
    }
}

/* The option that arg names, and where its value stands in arg: --temp=1, -n5; NULL if it is the
   next argument. */
static inline const cli_option *cli_find(const cli_option *options, const char *arg, const char **value) {
    for (const cli_option *o = options; o->name; o++) {
        size_t n = strlen(o->name);
        bool is_long = o->name[1] == '-';
        if (strncmp(arg, o->name, n) != 0) continue;
        *value = arg[n] ? arg + n + is_long : NULL;
        if (!arg[n] || (is_long ? arg[n] == '=' : o->kind != CLI_FLAG)) return o;
    }
    return NULL;
}

static inline void cli_start(void);

/* Sets the values of options and moves the operands to the front of argv; returns their number. */
static inline int cli_parse(const cli_program *p, int argc, char **argv) {
    int count = 0;
    bool ended = false;
    cli_name = p->name;
    cli_start();
    for (int i = 1; i < argc; i++) {
        const char *value = NULL, *arg = argv[i];
        if (ended || arg[0] != '-' || !arg[1]) { argv[count++] = argv[i]; continue; }
        if (strcmp(arg, "--") == 0) { ended = true; continue; }
        if (strcmp(arg, "-h") == 0 || strcmp(arg, "--help") == 0) cli_help(p);
        const cli_option *o = cli_find(p->options, arg, &value);
        if (!o) cli_usage("%s: no such option (--help lists them)", arg);
        if (o->kind == CLI_FLAG && value) cli_usage("%s: takes no value", o->name);
        if (o->kind != CLI_FLAG && !value) {
            if (++i == argc) cli_usage("%s: its value is missing", o->name);
            value = argv[i];
        }
        cli_set(o, value);
    }
    const char *wrong = count > p->most ? argv[p->most] : NULL;
    if (wrong) cli_usage("'%s': one operand too many; usage: %s [options] %s", wrong, p->name, p->operands);
    if (count < p->least) cli_usage("an operand is missing; usage: %s [options] %s", p->name, p->operands);
    return count;
}

/* Ids between commas, spaces or newlines, in malloc'd memory. */
static inline int32_t *cli_ids(const char *option, const char *text, int64_t *count) {
    const char *between = ", \n";
    int32_t *ids = cli_alloc(strlen(text) / 2 + 1, sizeof *ids);
    *count = 0;
    for (const char *p = text + strspn(text, between); *p; p += strspn(p, between)) {
        int length = (int)strcspn(p, between), shown = length < 40 ? length : 40;
        int digits = (int)strspn(p, "0123456789");
        double id = strtod(p, NULL);
        if (digits < length) cli_usage("%s: '%.*s' is not an id", option, shown, p);
        if (id > CLI_INT) cli_usage("%s: id %.*s is too large", option, shown, p);
        ids[(*count)++] = (int32_t)id;
        p += length;
    }
    return ids;
}

/* ---- Signals, time, memory ---- */

static volatile sig_atomic_t cli_interrupted;              /* the signal, once one has come */
static void (*volatile cli_stop)(void);                    /* asks the work to end; NULL: end at once */

static inline void cli_signal(int number) {
    cli_interrupted = number;
    if (cli_stop) { cli_stop(); return; }
#ifdef CLI_POSIX
    if (cli_part[0]) unlink(cli_part);
#endif
    _Exit(128 + number);
}

static inline void cli_start(void) {
#ifdef CLI_POSIX
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = cli_signal;
    action.sa_flags = (int)SA_RESETHAND;                   /* a second ctrl-C ends the program at once */
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN);                              /* a closed pipe is a failed write */
#else
    signal(SIGINT, cli_signal);
#ifdef _WIN32
    _setmode(_fileno(stdin), _O_BINARY);
    _setmode(_fileno(stdout), _O_BINARY);
#endif
#endif
}

/* Ends the program with 130 if ctrl-C was pressed. */
static inline void cli_check_interrupt(void) {
    if (!cli_interrupted) return;
    if (cli_part[0]) remove(cli_part);
    fflush(stdout);
    _Exit(128 + cli_interrupted);
}

static inline bool cli_is_terminal(FILE *f) {
#if defined(CLI_POSIX)
    return isatty(fileno(f)) != 0;
#elif defined(_WIN32)
    return _isatty(_fileno(f)) != 0;
#else
    (void)f;
    return false;
#endif
}

static inline double cli_seconds(void) {
    struct timespec t = { 0, 0 };
#ifdef CLI_POSIX
    clock_gettime(CLOCK_MONOTONIC, &t);
#else
    timespec_get(&t, TIME_UTC);
#endif
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static inline uint64_t cli_random_seed(void) {
    uint64_t seed = 0;
    FILE *f = fopen("/dev/urandom", "rb");
    if (!f || fread(&seed, sizeof seed, 1, f) != 1) seed = (uint64_t)time(NULL) ^ (uint64_t)(cli_seconds() * 1e9);
    if (f) fclose(f);
    return seed;
}

/* Bytes of tensors by type, and the type of most of them; all zeros to begin with. */
typedef struct cli_types { uint64_t bytes[64]; tfm_type most; } cli_types;
static inline void cli_count_type(cli_types *t, const tfm_tensor_info *tensor) {
    unsigned type = (unsigned)tensor->tensor.type;
    if (type < 64 && (t->bytes[type] += tensor->bytes) > t->bytes[t->most]) t->most = (tfm_type)type;
}

/* The most memory that the process has had in use, mapped files included; in *own what it holds beside
   them. 0: unknown. */
static inline double cli_peak_memory(double *own) {
    double kib = 0;
    *own = 0;
#ifdef CLI_POSIX
    FILE *f = fopen("/proc/self/status", "r");             /* getrusage would count the parent's, too */
    char line[256];
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, "VmHWM:", 6) == 0) kib = strtod(line + 6, NULL);
        else if (strncmp(line, "RssAnon:", 8) == 0) *own = 1024 * strtod(line + 8, NULL);
    if (f) fclose(f);
    struct rusage usage;
    if (kib == 0 && getrusage(RUSAGE_SELF, &usage) == 0) kib = (double)usage.ru_maxrss;
#ifdef __APPLE__
    kib /= 1024;
#endif
#endif
    return kib * 1024;
}

/* A line "LABEL 42%, 1:05 left" on a terminal, once the work has lasted a second; done == total removes
   it. The time left is counted from the first call on. */
static inline void cli_progress(const char *label, int64_t done, int64_t total) {
    static double began, shown;
    static int64_t first;
    double now = cli_seconds();
    if (began == 0) {
        began = now;
        first = done;
    }
    if (done >= total) {
        if (shown > 0) fputs("\r\033[K", stderr);
        began = shown = 0;
    } else if (now - began > 1 && now - shown > 0.1 && cli_is_terminal(stderr)) {
        double left = done > first ? (now - began) / (double)(done - first) * (double)(total - done) : 0;
        int seconds = left < 1e6 ? (int)left : 1000000;
        fprintf(stderr, "\r%s %d%%, %d:%02d left\033[K", label, (int)(100.0 * (double)done / (double)total),
                seconds / 60, seconds % 60);
        shown = now;
    }
}

/* ---- Files ---- */

/* All bytes of a file, "-" being standard input, with a NUL after them. */
static inline char *cli_read(const char *path, size_t *size) {
    bool standard = strcmp(path, "-") == 0;
    FILE *f = standard ? stdin : fopen(path, "rb");
    if (!f) cli_fail("%s: %s", path, strerror(errno));
    size_t capacity = 1 << 16;
    char *data = NULL;
    *size = 0;
    do {
        char *larger = capacity <= SIZE_MAX / 2 ? realloc(data, capacity *= 2) : NULL;
        if (!larger) cli_fail("%s: out of memory", path);
        data = larger;
        errno = 0;
        *size += fread(data + *size, 1, capacity - 1 - *size, f);
    } while (*size == capacity - 1);
    if (ferror(f)) cli_fail("%s: %s", path, errno ? strerror(errno) : "cannot be read");
    if (!standard) fclose(f);
    data[*size] = 0;
    return data;
}

/* An output file is written as PATH.NUMBER.part and renamed by cli_commit; only one at a time. A
   device or pipe is written as it is. */
static char cli_target[4096];

static inline FILE *cli_create(const char *path) {
    if (strlen(path) >= sizeof cli_target) cli_fail("%s: the name is too long", path);
    strcpy(cli_target, path);
    long number = 0;
    bool beside = true;
#if defined(CLI_POSIX)
    struct stat st;
    char *real = realpath(path, NULL);                     /* a link stays one, its target is replaced */
    if (real && strlen(real) < sizeof cli_target) strcpy(cli_target, real);
    free(real);
    beside = stat(path, &st) != 0 || S_ISREG(st.st_mode);
    number = (long)getpid();
#elif defined(_WIN32)
    number = _getpid();
#endif
    if (beside) snprintf(cli_part, sizeof cli_part, "%s.%ld.part", cli_target, number);
    FILE *f = fopen(beside ? cli_part : path, "wb");
    if (!f) {
        cli_part[0] = 0;
        cli_fail("%s: %s", path, strerror(errno));
    }
    return f;
}

static inline void cli_commit(FILE *f) {
    errno = 0;
    bool failed = ferror(f) != 0;
    if (fclose(f) != 0 || failed) cli_fail("%s: %s", cli_target, errno ? strerror(errno) : "cannot be written");
    if (!cli_part[0]) return;
#ifdef _WIN32
    remove(cli_target);
#endif
    if (rename(cli_part, cli_target) != 0) cli_fail("%s: %s", cli_target, strerror(errno));
    cli_part[0] = 0;
}

/* Little-endian f32 to the file of cli_create. */
static inline void cli_write_floats(FILE *f, const float *x, int64_t n) {
    unsigned char bytes[4096];
    size_t used = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        for (int j = 0; j < 4; j++) bytes[used++] = (unsigned char)(bits >> 8 * j);
        if (used < sizeof bytes && i + 1 < n) continue;
        if (fwrite(bytes, 1, used, f) != used) cli_commit(f);          /* says why */
        used = 0;
    }
}

/* Sees that all of stdout arrived. */
static inline void cli_finish(void) {
    errno = 0;
    bool failed = ferror(stdout) != 0;
    if (fflush(stdout) != 0 || failed || (fclose(stdout) != 0 && errno != EBADF)) {
        cli_check_interrupt();
        cli_fail("standard output: %s", errno ? strerror(errno) : "cannot be written");
    }
}

/* ---- Text ---- */

/* A string as JSON has it: valid UTF-8, U+FFFD for what is not; at most `limit` bytes of it, and then
   how many there are. */
static inline void cli_json_string(FILE *f, tfm_string s, size_t limit) {
    tfm_utf8 utf8 = { { 0 }, 0 };
    char piece[3 * 1 + 12];
    putc('"', f);
    for (size_t i = 0; i <= s.size && i <= limit; i++) {
        bool last = i == s.size || i == limit;
        size_t n = tfm_utf8_feed(&utf8, last ? "" : s.data + i, last ? 0 : 1, true, last, piece);
        for (size_t j = 0; j < n; j++) {
            unsigned char c = (unsigned char)piece[j];
            if (c == '"' || c == '\\') fprintf(f, "\\%c", c);
            else if (c == '\n') fputs("\\n", f);
            else if (c < 32 || c == 127) fprintf(f, "\\u%04x", c);
            else putc(c, f);
        }
    }
    putc('"', f);
    if (s.size > limit) fprintf(f, " ... (%zu bytes)", s.size);
}

/* A name from a file on stdout, with '?' for control characters, filled up to `width`. */
static inline void cli_print_name(tfm_string s, int width) {
    for (size_t i = 0; i < s.size; i++) {
        unsigned char c = (unsigned char)s.data[i];
        putchar(c < 32 || c == 127 ? '?' : c);
    }
    printf("%*s", s.size < (size_t)width ? width - (int)s.size : 0, "");
}

/* The text given as -p or -f; NULL if neither was. */
static inline char *cli_text(const char *text, const char *file, size_t *size) {
    *size = 0;
    if (text && file) cli_usage("-p and -f: only one of them");
    if (file) return cli_read(file, size);
    if (!text) return NULL;
    *size = strlen(text);
    char *copy = cli_alloc(*size + 1, 1);
    memcpy(copy, text, *size);
    return copy;
}

/* The ids of a text in malloc'd memory, behind `first` unless that is -1. */
static inline int32_t *cli_tokenize(tfm_context *c, const tfm_tokenizer *t, const char *text, size_t size,
                                    const tfm_tokenize_opts *opts, int32_t first, int64_t *count) {
    int64_t before = first >= 0, capacity = (int64_t)size + 16;        /* enough unless bytes cost several ids */
    for (;;) {
        int32_t *ids = cli_alloc((size_t)(before + capacity), sizeof *ids);
        if (before) ids[0] = first;
        int64_t n = tfm_tokenize(c, t, text, size, opts, ids + before, capacity);
        if (n < 0) cli_fail("%s", tfm_message(c));
        *count = before + n;
        if (n <= capacity) return ids;
        capacity = n;
        free(ids);
    }
}

/* A file of the repository lies below the current directory or, from build/, beside the program's. */
static inline const char *cli_shipped(const char *self, const char *name, char *path, size_t size) {
    const char *slash = strrchr(self, '/');
    FILE *f = fopen(name, "rb");
    if (f) fclose(f);
    if (f || !slash) return name;
    snprintf(path, size, "%.*s/../%s", (int)(slash - self), self, name);
    return path;
}
#endif
