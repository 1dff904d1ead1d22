/* tensor_error.h - how far the weights of a file lie from those of its original, tensor by tensor.

   Included after tfm.h and cli.h. tensor_report_make compares two files, 1 M weights of a pair of
   tensors in memory at a time; the printers write what it found. */
#ifndef TFM_TENSOR_ERROR_H
#define TFM_TENSOR_ERROR_H

/* Sums over pairs of weights, of one tensor or of many; y is the original's. */
typedef struct tensor_error {
    int64_t tensors, weights;
    uint64_t bytes;
    double errors, squares;             /* sums of (x - y)^2 and of y^2 */
    double largest;                     /* |x - y| */
} tensor_error;

enum { TENSOR_TYPES = 64 };

typedef struct tensor_report {
    const char *path, *original_path;
    tfm_file *file, *original;
    int64_t count;
    tensor_error *each;                 /* [count], in the order of the file */
    tfm_tensor_info *pairs;             /* [count] the original's */
    tensor_error types[TENSOR_TYPES], all;
} tensor_report;

static inline double tensor_relative_error(const tensor_error *e) {
    return e->errors > 0 ? sqrt(e->errors / e->squares) : 0;
}
static inline double tensor_decibels(const tensor_error *e) { return -20 * log10(tensor_relative_error(e)); }

static inline void tensor_error_add(tensor_error *to, const tensor_error *e) {
    to->tensors += e->tensors;
    to->weights += e->weights;
    to->bytes += e->bytes;
    to->errors += e->errors;
    to->squares += e->squares;
    if (e->largest > to->largest) to->largest = e->largest;
}

/* ---- Finding pairs ---- */

/* "576x1536" */
static inline const char *tensor_shape(const tfm_tensor_info *t, const char *between, char *text, size_t size) {
    size_t n = 0;
    text[0] = 0;
    for (int i = 0; i < t->rank && n < size; i++)
        n += (size_t)snprintf(text + n, size - n, "%s%" PRId64, i ? between : "", t->tensor.dim[i]);
    return text;
}
static inline bool tensor_named(const tfm_file *f, tfm_string name, tfm_tensor_info *out) {
    char *text = cli_alloc(name.size + 1, 1);
    memcpy(text, name.data, name.size);
    bool found = tfm_file_tensor(f, text, out);
    free(text);
    return found;
}
/* A model that took a copy of its token embedding as output matrix still has its pair. */
static inline bool tensor_original(const tensor_report *r, tfm_string name, tfm_tensor_info *out) {
    static const char output[] = "output.weight";
    if (tensor_named(r->original, name, out)) return true;
    return name.size == sizeof output - 1 && memcmp(name.data, output, name.size) == 0 &&
           tfm_file_tensor(r->original, "token_embd.weight", out);
}
_Noreturn static inline void tensor_missing(const char *path, tfm_string name, const char *other) {
    cli_fail("%s: no tensor %.*s, which %s has", path, (int)name.size, name.data, other);
}
static inline bool tensor_is_real(const tfm_tensor_info *t) {
    tfm_type type = t->tensor.type;
    return tfm_type_block(type) > 1 || type == TFM_F32 || type == TFM_F16 || type == TFM_BF16;
}
/* Whole numbers can only be the same. */
static inline bool tensor_same_bytes(const tfm_tensor_info *x, const tfm_tensor_info *y) {
    return x->tensor.type == y->tensor.type && x->bytes == y->bytes &&
           (x->bytes == 0 || memcmp(x->tensor.data, y->tensor.data, (size_t)x->bytes) == 0);
}
static inline void tensor_check_pair(const tensor_report *r, const tfm_tensor_info *x, const tfm_tensor_info *y) {
    char have[96], need[96];
    bool same = x->rank == y->rank;
    for (int i = 0; same && i < x->rank; i++) same = x->tensor.dim[i] == y->tensor.dim[i];
    if (!same) cli_fail("%.*s: %s in %s, %s in %s", (int)x->name.size, x->name.data,
                        tensor_shape(x, "x", have, sizeof have), r->path, tensor_shape(y, "x", need, sizeof need),
                        r->original_path);
    for (int i = 0; i < 2; i++) {
        const tfm_tensor_info *t = i ? y : x;
        if (!tensor_is_real(t) && !tensor_same_bytes(x, y))
            cli_fail("%s: %.*s: values of type %.*s cannot be compared", i ? r->original_path : r->path,
                     (int)t->name.size, t->name.data, (int)t->type_name.size, t->type_name.data);
    }
}
static inline void tensor_pairs(tensor_report *r) {
    tfm_tensor_info t, other;
    r->count = tfm_file_tensor_count(r->file);
    if (r->count == 0) cli_fail("%s: holds no tensors", r->path);
    r->each = cli_alloc((size_t)r->count, sizeof *r->each);
    r->pairs = cli_alloc((size_t)r->count, sizeof *r->pairs);
    for (int64_t i = 0; tfm_file_tensor_at(r->file, i, &t); i++) {
        if (!tensor_original(r, t.name, &r->pairs[i])) tensor_missing(r->original_path, t.name, r->path);
        tensor_check_pair(r, &t, &r->pairs[i]);
    }
    for (int64_t i = 0; tfm_file_tensor_at(r->original, i, &t); i++)
        if (!tensor_named(r->file, t.name, &other)) tensor_missing(r->path, t.name, r->original_path);
}

/* ---- Comparing ---- */

static inline void tensor_compare_values(tensor_error *e, const float *x, const float *y, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        double error = (double)x[i] - (double)y[i];
        e->errors += error * error;
        e->squares += (double)y[i] * (double)y[i];
        if (fabs(error) > e->largest) e->largest = fabs(error);
    }
}
static inline void tensor_compare(tensor_report *r, tfm_context *c, int64_t index, int64_t *done, int64_t total) {
    tensor_error *e = &r->each[index];
    tfm_tensor_info t;
    tfm_file_tensor_at(r->file, index, &t);
    e->tensors = 1;
    e->weights = tfm_count(t.tensor);
    e->bytes = t.bytes;
    if (e->weights == 0 || !tensor_is_real(&t)) return;
    int64_t width = t.tensor.dim[t.tensor.rank - 1], rows = e->weights / width;
    int64_t at_once = (1 << 20) / width > 0 ? (1 << 20) / width : 1;
    tfm_mark mark = tfm_arena_mark(c);
    tfm_tensor x = tfm_reshape(c, t.tensor, tfm_shape2(rows, width)),
               y = tfm_reshape(c, r->pairs[index].tensor, tfm_shape2(rows, width));
    for (int64_t row = 0; row < rows; row += at_once) {
        int64_t end = rows - row < at_once ? rows : row + at_once;
        tfm_tensor a = tfm_to_f32(c, tfm_slice(c, x, 0, row, end)), b = tfm_to_f32(c, tfm_slice(c, y, 0, row, end));
        if (tfm_status_of(c) != TFM_OK)
            cli_fail("%s: %.*s: %s", r->path, (int)t.name.size, t.name.data, tfm_message(c));
        tensor_compare_values(e, a.data, b.data, (end - row) * width);
        *done += (end - row) * width;
        tfm_arena_rewind(c, mark);
        cli_progress("compared", *done, total);
    }
    if (!isfinite(e->errors + e->squares))
        cli_fail("%.*s: holds NaN or infinity in %s or in %s", (int)t.name.size, t.name.data, r->path,
                 r->original_path);
}
static inline void tensor_report_make(tensor_report *r, const char *path, const char *original_path) {
    tfm_error err;
    tfm_tensor_info t;
    int64_t done = 0, total = 0;
    memset(r, 0, sizeof *r);
    r->path = path;
    r->original_path = original_path;
    if (!(r->file = tfm_file_open(path, NULL, &err))) cli_fail_at(path, err.message);
    if (!(r->original = tfm_file_open(original_path, NULL, &err))) cli_fail_at(original_path, err.message);
    tfm_context *c = tfm_context_new(NULL, &err);
    if (!c) cli_fail("%s", err.message);
    tensor_pairs(r);
    for (int64_t i = 0; tfm_file_tensor_at(r->file, i, &t); i++) total += tfm_count(t.tensor);
    for (int64_t i = 0; tfm_file_tensor_at(r->file, i, &t); i++) {
        tensor_compare(r, c, i, &done, total);
        if ((unsigned)t.tensor.type < TENSOR_TYPES) tensor_error_add(&r->types[t.tensor.type], &r->each[i]);
        tensor_error_add(&r->all, &r->each[i]);
    }
    tfm_context_free(c);
}
static inline void tensor_report_free(tensor_report *r) {
    free(r->each);
    free(r->pairs);
    tfm_file_free(r->file);
    tfm_file_free(r->original);
}

/* ---- Printing ---- */

static inline void tensor_print_error(const tensor_error *e) {
    printf("%10.4g %10.4g ", tensor_relative_error(e), e->largest);
    if (e->errors > 0) printf("%8.2f\n", tensor_decibels(e));
    else printf("%8s\n", "exact");
}
static inline void tensor_print_sum(const char *name, const tensor_error *e) {
    double bits = e->weights ? 8 * (double)e->bytes / (double)e->weights : 0;
    printf("%-6s %7" PRId64 " %13" PRId64 " %9.3f ", name, e->tensors, e->weights, bits);
    tensor_print_error(e);
}
static inline void tensor_report_print(const tensor_report *r) {
    tfm_tensor_info t;
    char shape[96];
    int widest = 6;
    for (int64_t i = 0; tfm_file_tensor_at(r->file, i, &t); i++)
        if ((int)t.name.size > widest && t.name.size < 64) widest = (int)t.name.size;
    printf("%-*s %-6s %-6s %-14s %10s %10s %8s\n", widest, "tensor", "from", "type", "shape", "rms error", "largest",
           "SNR dB");
    for (int64_t i = 0; tfm_file_tensor_at(r->file, i, &t); i++) {
        cli_print_name(t.name, widest);
        printf(" %-6s %-6s %-14s ", tfm_type_name(r->pairs[i].tensor.type), tfm_type_name(t.tensor.type),
               tensor_shape(&t, "x", shape, sizeof shape));
        tensor_print_error(&r->each[i]);
    }
    printf("\n%-6s %7s %13s %9s %10s %10s %8s\n", "type", "tensors", "weights", "bits each", "rms error", "largest",
           "SNR dB");
    for (int i = 0; i < TENSOR_TYPES; i++)
        if (r->types[i].tensors) tensor_print_sum(tfm_type_name((tfm_type)i), &r->types[i]);
    tensor_print_sum("all", &r->all);
}

/* A number as JSON has it. */
static inline void tensor_json_number(const char *name, double x) {
    if (isfinite(x)) printf(", \"%s\": %.9g", name, x);
    else printf(", \"%s\": null", name);
}
static inline void tensor_json_error(const tensor_error *e) {
    printf(", \"weights\": %" PRId64 ", \"bytes\": %" PRIu64, e->weights, e->bytes);
    tensor_json_number("rms_error", tensor_relative_error(e));
    tensor_json_number("largest_error", e->largest);
    tensor_json_number("snr_db", tensor_decibels(e));
    putchar('}');
}
/* , "original": "...", "tensors": [...], "types": [...], "all": {...} */
static inline void tensor_report_json(const tensor_report *r) {
    tfm_tensor_info t;
    char shape[96];
    const char *comma = "";
    printf(",\n \"original\": ");
    cli_json_string(stdout, (tfm_string){ r->original_path, strlen(r->original_path) }, SIZE_MAX);
    printf(",\n \"tensors\": [");
    for (int64_t i = 0; tfm_file_tensor_at(r->file, i, &t); i++) {
        printf("%s\n  {\"name\": ", i ? "," : "");
        cli_json_string(stdout, t.name, SIZE_MAX);
        printf(", \"original_type\": \"%s\", \"type\": \"%s\", \"shape\": [%s]", tfm_type_name(r->pairs[i].tensor.type),
               tfm_type_name(t.tensor.type), tensor_shape(&t, ", ", shape, sizeof shape));
        tensor_json_error(&r->each[i]);
    }
    printf("],\n \"types\": [");
    for (int i = 0; i < TENSOR_TYPES; i++) {
        if (!r->types[i].tensors) continue;
        printf("%s\n  {\"type\": \"%s\", \"tensors\": %" PRId64, comma, tfm_type_name((tfm_type)i),
               r->types[i].tensors);
        tensor_json_error(&r->types[i]);
        comma = ",";
    }
    printf("],\n \"all\": {\"tensors\": %" PRId64, r->all.tensors);
    tensor_json_error(&r->all);
}

#endif
