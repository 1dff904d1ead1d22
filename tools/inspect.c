/* inspect - shows what a GGUF or safetensors file holds, and the memory that a model takes.
   cc -O2 -I. tools/inspect.c -o inspect -lm */
#define _XOPEN_SOURCE 700
#define TFM_IMPLEMENTATION
#include "tfm.h"
#include "tools/cli.h"

#ifdef CLI_POSIX
#include <sys/mman.h>
#endif

#define SHOWN 8                         /* elements of an array */
#define SHOWN_BYTES 200                 /* of a string in text */

static struct {
    bool json, memory;
    int64_t context, threads;
    tfm_type cache;
    tfm_level level;
} o;

static const cli_option options[] = {
    { "--json", CLI_FLAG, &o.json, 0, 0, NULL, "print JSON" },
    { "--memory", CLI_FLAG, &o.memory, 0, 0, NULL, "print what model and session take, in bytes" },
    { "-c", CLI_WHOLE, &o.context, 1, CLI_INT, "CONTEXT", "positions (the smaller of the model's and 2048)" },
    { "-t", CLI_WHOLE, &o.threads, 1, 256, "THREADS", "threads (the CPUs that the process may use)" },
    { "--kv", CLI_CACHE, &o.cache, 0, 0, "f32|f16", "type of the cache of keys and values (f32)" },
    { "--level", CLI_LEVEL, &o.level, 0, 0, "NAME", "kernels (auto: the best that this CPU has); one of" },
    { NULL, CLI_FLAG, NULL, 0, 0, NULL, NULL }
};
static const cli_program program = {
    "inspect", "FILE", 1, 1,
    "Prints the metadata and the tensors of a GGUF or safetensors file, shapes outermost first. Of an\n"
    "array the first 8 elements are shown, and how many there are.", options
};

static const char *const value_types[TFM_VALUE_TYPES] = {
    "u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64"
};

static const char *value_type(tfm_value_type type) {
    return (unsigned)type < TFM_VALUE_TYPES ? value_types[type] : "?";
}

static void print_real(double v, int digits) {
    if (isfinite(v)) printf("%.*g", digits, v);
    else if (o.json) fputs("null", stdout);                /* JSON has no name for it */
    else fputs(isnan(v) ? "nan" : v < 0 ? "-inf" : "inf", stdout);
}

/* The same in text and in JSON, but for how much is shown. */
static void print_value(const tfm_value *v) {
    uint64_t u;
    int64_t i;
    double real;
    bool b;
    tfm_string s;
    tfm_value rest = *v, element;
    if (tfm_value_string(v, &s)) cli_json_string(stdout, s, o.json ? SIZE_MAX : SHOWN_BYTES);
    else if (tfm_value_bool(v, &b)) fputs(b ? "true" : "false", stdout);
    else if (tfm_value_u64(v, &u)) printf("%" PRIu64, u);
    else if (tfm_value_i64(v, &i)) printf("%" PRId64, i);
    else if (tfm_value_f64(v, &real)) print_real(real, v->type == TFM_VALUE_F32 ? 9 : 17);
    else if (v->type == TFM_VALUE_ARRAY) {
        putchar('[');
        for (int n = 0; n < SHOWN && tfm_value_next(&rest, &element); n++) {
            if (n) fputs(", ", stdout);
            print_value(&element);
        }
        if (v->count > SHOWN && !o.json) printf(", ... %" PRIu64 " in all", v->count);
        putchar(']');
    } else fputs(o.json ? "null" : "?", stdout);
}

static void print_shape(const tfm_tensor_info *t, const char *between) {
    for (int i = 0; i < t->rank; i++) printf("%s%" PRId64, i ? between : "", t->tensor.dim[i]);
}

static void print_text(const tfm_file *f) {
    tfm_string key;
    tfm_value v;
    tfm_tensor_info t;
    int64_t elements = 0;
    uint64_t bytes = 0;
    printf("%s: %" PRId64 " metadata values, %" PRId64 " tensors\n", tfm_file_format(f), tfm_file_meta_count(f),
           tfm_file_tensor_count(f));
    for (int64_t i = 0; tfm_file_meta_at(f, i, &key, &v); i++) {
        char type[48];
        bool array = v.type == TFM_VALUE_ARRAY;
        snprintf(type, sizeof type, array ? "%s[%" PRIu64 "]" : "%s", value_type(array ? v.element : v.type), v.count);
        fputs("  ", stdout);
        cli_print_name(key, 40);
        printf(" %-14s ", type);
        print_value(&v);
        putchar('\n');
    }
    if (tfm_file_tensor_count(f) > 0) puts("tensors: name, type, shape, bytes");
    for (int64_t i = 0; tfm_file_tensor_at(f, i, &t); i++) {
        fputs("  ", stdout);
        cli_print_name(t.name, 32);
        putchar(' ');
        cli_print_name(t.type_name, 6);
        putchar(' ');
        print_shape(&t, "x");
        printf("%s %" PRIu64 "\n", t.rank ? "" : "scalar", t.bytes);
        elements += tfm_count(t.tensor);
        bytes += t.bytes;
    }
    printf("%" PRId64 " elements in %" PRIu64 " bytes\n", elements, bytes);
}

static void print_json(const tfm_file *f) {
    tfm_string key;
    tfm_value v;
    tfm_tensor_info t;
    printf("{\"format\": \"%s\",\n \"metadata\": {", tfm_file_format(f));
    for (int64_t i = 0; tfm_file_meta_at(f, i, &key, &v); i++) {
        printf("%s\n  ", i ? "," : "");
        cli_json_string(stdout, key, SIZE_MAX);
        printf(": {\"type\": \"%s\", ", value_type(v.type));
        if (v.type == TFM_VALUE_ARRAY)
            printf("\"element\": \"%s\", \"count\": %" PRIu64 ", ", value_type(v.element), v.count);
        printf("\"value\": ");
        print_value(&v);
        putchar('}');
    }
    printf("},\n \"tensors\": [");
    for (int64_t i = 0; tfm_file_tensor_at(f, i, &t); i++) {
        printf("%s\n  {\"name\": ", i ? "," : "");
        cli_json_string(stdout, t.name, SIZE_MAX);
        fputs(", \"type\": ", stdout);
        cli_json_string(stdout, t.type_name, SIZE_MAX);
        fputs(", \"shape\": [", stdout);
        print_shape(&t, ", ");
        printf("], \"offset\": %" PRIu64 ", \"bytes\": %" PRIu64 "}", t.offset, t.bytes);
    }
    puts("]}");
}

/* The file's bytes, for the size of a model that would lie in flash. */
static const void *map(const char *path, size_t *size) {
#ifdef CLI_POSIX
    struct stat st;
    FILE *f = fopen(path, "rb");
    if (f && fstat(fileno(f), &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0) {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fileno(f), 0);
        fclose(f);
        *size = (size_t)st.st_size;
        if (p != MAP_FAILED) return p;
    } else if (f) fclose(f);
#endif
    return cli_read(path, size);                           /* given back at the program's end */
}

static void print_memory(const char *path, const tfm_file *file) {
    tfm_error err;
    tfm_session_parts parts;
    tfm_tensor_info t;
    uint64_t weights = 0;
    size_t size;
    const void *data = map(path, &size);
    size_t tables = tfm_model_size(data, size, &err);
    if (!tables) cli_fail_at(path, err.message);
    tfm_model *model = tfm_model_from_memory(data, size, NULL, &err);
    if (!model) cli_fail_at(path, err.message);
    tfm_session_opts opts = { .context = (int)o.context, .threads = (int)o.threads, .cache = o.cache,
                              .level = o.level };
    if (!tfm_session_size(model, &opts, &parts, &err)) cli_fail_at(path, err.message);
    for (int64_t i = 0; tfm_file_tensor_at(file, i, &t); i++) weights += t.bytes;
    printf(o.json ? "{\"weights\": %" PRIu64 ", \"model\": %zu, \"session\": %zu, \"cache\": %zu, \"logits\": %zu, "
                    "\"scratch\": %zu, \"other\": %zu}\n"
                  : "weights   %12" PRIu64 " bytes, where the file lies\n"
                    "model     %12zu bytes, tables over the file\n"
                    "session   %12zu bytes, of which\n"
                    "  cache   %12zu\n"
                    "  logits  %12zu\n"
                    "  scratch %12zu\n"
                    "  other   %12zu\n",
           weights, tables, parts.total, parts.cache, parts.logits, parts.scratch, parts.other);
    tfm_model_free(model);
}

int main(int argc, char **argv) {
    cli_parse(&program, argc, argv);
    if (!o.memory && (o.context || o.threads || o.cache != TFM_F32 || o.level != TFM_LEVEL_AUTO))
        cli_usage("-c, -t, --kv and --level go with --memory");
    tfm_error err;
    tfm_file *file = tfm_file_open(argv[0], NULL, &err);
    if (!file) cli_fail_at(argv[0], err.message);
    if (o.memory) print_memory(argv[0], file);
    else if (o.json) print_json(file);
    else print_text(file);
    cli_finish();
    tfm_file_free(file);
    return 0;
}
