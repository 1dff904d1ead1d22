/* classify - says what a picture shows, with a vision transformer (ViT, DeiT) from a safetensors file.
   cc -O2 -I. examples/classify.c -o classify -lm

   The model is written here, with the ops of tfm.h, as its paper has it (Dosovitskiy et al. 2021; DeiT: Touvron
   et al. 2021): forward() is all of it. */
#define _XOPEN_SOURCE 700
#define TFM_IMPLEMENTATION
#include "tfm.h"
#include "tools/cli.h"
#include "tools/image.h"
#include "tools/json.h"

static struct {
    const char *labels, *mean, *std, *logits;
    int64_t heads, top, threads;
    tfm_level level;
} o = { .top = 5 };

static const cli_option options[] = {
    { "-n", CLI_WHOLE, &o.top, 1, CLI_INT, "N", "print the N likeliest classes (5)" },
    { "--labels", CLI_TEXT, &o.labels, 0, 0, "FILE", "names of the classes, one a line" },
    { "--heads", CLI_WHOLE, &o.heads, 1, 65536, "N", "heads of attention (of 64 each)" },
    { "--mean", CLI_TEXT, &o.mean, 0, 0, "A[,B,C]", "is subtracted from the pixels (0 to 1), per channel" },
    { "--std", CLI_TEXT, &o.std, 0, 0, "A[,B,C]", "and what is left is divided by this" },
    { "--logits", CLI_TEXT, &o.logits, 0, 0, "OUT", "write images x classes as little-endian f32" },
    { "-t", CLI_WHOLE, &o.threads, 1, 256, "THREADS", "threads (the CPUs that the process may use)" },
    { "--level", CLI_LEVEL, &o.level, 0, 0, "NAME", "kernels (auto: the best that this CPU has); one of" },
    { NULL, CLI_FLAG, NULL, 0, 0, NULL, NULL }
};
static const cli_program program = {
    "classify", "MODEL.safetensors IMAGE...", 2, INT_MAX,
    "Prints the likeliest classes of images (PPM, PGM or BMP) and their probabilities. MODEL has the\n"
    "tensors of Hugging Face's ViT or DeiT or of timm's. Heads, labels, mean and std are an option's; else\n"
    "the file's metadata's (heads, labels with | between them, mean, std); else those of config.json and\n"
    "preprocessor_config.json beside the file; else 64 elements a head, class numbers, mean and std of 0.5\n"
    "(with a distillation token ImageNet's). An image is resized to the model's square, nothing is cut off.", options
};

/* ---- The model: [T, D] is T = 1 + patches (and 1 more with a distillation token) of width D ---- */

typedef struct linear { tfm_tensor w, b; } linear;         /* a norm's weight and bias, too */

typedef struct block { linear norm1, q, k, v, proj, norm2, fc1, fc2; } block;

typedef struct vit {
    int64_t channels, side, patch, width, layers, heads, classes;
    float eps, mean[3], std[3];
    linear patches, norm, head, head_dist;                 /* [D, channels, patch, patch], [D], [classes, D] */
    tfm_tensor cls, dist, positions;                       /* [1, 1, D], the same or none, [1, T, D] */
    block *blocks;
} vit;

static tfm_tensor dense(tfm_context *c, tfm_tensor x, linear l) { return tfm_dense(c, x, l.w, l.b); }
static tfm_tensor norm(tfm_context *c, const vit *m, tfm_tensor x, linear l) {
    return tfm_layernorm(c, x, l.w, l.b, m->eps);
}
static tfm_tensor block_forward(tfm_context *c, const vit *m, const block *b, tfm_tensor x) {
    tfm_tensor h = norm(c, m, x, b->norm1);
    h = tfm_attention(c, dense(c, h, b->q), dense(c, h, b->k), dense(c, h, b->v),
                      &(tfm_attention_opts){ .heads = (int)m->heads });
    x = tfm_add(c, x, dense(c, h, b->proj));
    h = norm(c, m, x, b->norm2);
    return tfm_add(c, x, dense(c, tfm_gelu(c, dense(c, h, b->fc1)), b->fc2));
}
/* pixels [channels, side, side], normalized -> logits [1, classes] */
static tfm_tensor forward(tfm_context *c, const vit *m, tfm_tensor pixels) {
    int patch = (int)m->patch;
    tfm_tensor x = tfm_conv2d(c, pixels, m->patches.w, m->patches.b, &(tfm_conv2d_opts){ .stride = { patch, patch } });
    x = tfm_transpose(c, tfm_reshape(c, x, tfm_shape2(m->width, -1)), 0, 1);
    tfm_tensor parts[3] = { m->cls, m->dist, x };
    int64_t tokens = m->dist.rank ? 2 : 1;
    for (int64_t i = 0; i < tokens; i++) parts[i] = tfm_reshape(c, parts[i], tfm_shape2(1, m->width));
    parts[tokens] = x;
    x = tfm_concat(c, parts, (int)tokens + 1, 0);
    x = tfm_add(c, x, tfm_reshape(c, m->positions, tfm_shape2(-1, m->width)));
    for (int64_t i = 0; i < m->layers && tfm_status_of(c) == TFM_OK; i++) {
        tfm_mark mark = tfm_arena_mark(c);
        tfm_tensor y = block_forward(c, m, &m->blocks[i], x);
        if (y.data) memcpy(x.data, y.data, (size_t)tfm_count(x) * sizeof(float));
        tfm_arena_rewind(c, mark);                         /* what the block made, its result copied */
    }
    x = norm(c, m, tfm_slice(c, x, 0, 0, tokens), m->norm);
    tfm_tensor y = dense(c, tfm_slice(c, x, 0, 0, 1), m->head);
    if (!m->head_dist.w.rank) return y;
    return tfm_scale(c, tfm_add(c, y, dense(c, tfm_slice(c, x, 0, 1, 2), m->head_dist)), 0.5f);
}

/* ---- Its tensors ---- */

enum { PATCHES, CLS, DIST, POSITIONS, NORM1, QKV, Q, K, V, PROJ, NORM2, FC1, FC2, NORM, HEAD, HEAD_DIST, PARTS };

/* Names of the parts; % stands for a block's number. One that is NULL does not occur. */
typedef struct layout { const char *name[PARTS]; float eps; } layout;

#define HUGGING_FACE(model, head, head_dist) { { \
    model ".embeddings.patch_embeddings.projection", model ".embeddings.cls_token", \
    model ".embeddings.distillation_token", model ".embeddings.position_embeddings", \
    model ".encoder.layer.%.layernorm_before", NULL, model ".encoder.layer.%.attention.attention.query", \
    model ".encoder.layer.%.attention.attention.key", model ".encoder.layer.%.attention.attention.value", \
    model ".encoder.layer.%.attention.output.dense", model ".encoder.layer.%.layernorm_after", \
    model ".encoder.layer.%.intermediate.dense", model ".encoder.layer.%.output.dense", model ".layernorm", \
    head, head_dist }, 1e-12f }

static const layout layouts[] = {
    { { "patch_embed.proj", "cls_token", "dist_token", "pos_embed", "blocks.%.norm1", "blocks.%.attn.qkv", NULL, NULL,
        NULL, "blocks.%.attn.proj", "blocks.%.norm2", "blocks.%.mlp.fc1", "blocks.%.mlp.fc2", "norm", "head",
        "head_dist" }, 1e-6f },                            /* timm */
    HUGGING_FACE("vit", "classifier", NULL),
    HUGGING_FACE("deit", "classifier", NULL),
    HUGGING_FACE("deit", "cls_classifier", "distillation_classifier")
};

typedef struct loader {
    const char *path;
    tfm_file *file;
    tfm_context *c;
    const layout *names;
    bool *taken;                                           /* which of the file's tensors have a place */
} loader;

static const char *dimensions(char out[120], const int64_t *dim, int rank) {
    char *p = out;
    for (int d = 0; d < rank; d++, *p++ = 'x') p += dim[d] < 0 ? sprintf(p, "N") : sprintf(p, "%" PRId64, dim[d]);
    p[-1] = 0;
    return out;
}
/* The tensor of a part, of a block or -1, with dimensions as wanted, where -1 is any above 0; rank 0 if the file has
   none and need not. */
static tfm_tensor take(loader *l, int part, int64_t layer, const char *suffix, tfm_shape want, bool optional) {
    char name[160];
    const char *pattern = l->names->name[part], *number = pattern ? strchr(pattern, '%') : NULL;
    if (!pattern) return tfm_none();
    if (number) snprintf(name, sizeof name, "%.*s%" PRId64 "%s%s", (int)(number - pattern), pattern, layer, number + 1,
                         suffix);
    else snprintf(name, sizeof name, "%s%s", pattern, suffix);
    tfm_tensor_info info = { .rank = 0 };
    int64_t i = 0;
    while (tfm_file_tensor_at(l->file, i, &info) &&
           (info.name.size != strlen(name) || memcmp(info.name.data, name, info.name.size) != 0)) i++;
    if (i == tfm_file_tensor_count(l->file)) {
        if (!optional) cli_fail("%s: %s: the tensor is missing", l->path, name);
        return tfm_none();
    }
    tfm_tensor t = info.tensor;
    bool fits = t.rank == want.rank && (t.type == TFM_F32 || t.type == TFM_F16 || t.type == TFM_BF16);
    for (int d = 0; fits && d < want.rank; d++) fits = t.dim[d] == want.dim[d] || (want.dim[d] < 0 && t.dim[d] > 0);
    if (!fits) {
        char have[120], need[120];
        cli_fail("%s: %s: %s %.*s in the file, %s of floats needed", l->path, name, dimensions(have, t.dim, t.rank),
                 (int)info.type_name.size, info.type_name.data, dimensions(need, want.dim, want.rank));
    }
    l->taken[i] = true;
    return t;
}
static linear take_linear(loader *l, int part, int64_t layer, tfm_shape want, bool optional) {
    linear r = { take(l, part, layer, ".weight", want, optional), tfm_none() };
    if (r.w.rank) r.b = take(l, part, layer, ".bias", tfm_shape1(r.w.dim[0]), true);
    return r;
}
static linear rows_of(loader *l, linear from, int64_t begin, int64_t count) {
    from.w = tfm_slice(l->c, from.w, 0, begin, begin + count);
    if (from.b.rank) from.b = tfm_slice(l->c, from.b, 0, begin, begin + count);
    return from;
}
static block take_block(loader *l, const vit *m, int64_t i) {
    tfm_shape vector = tfm_shape1(m->width), square = tfm_shape2(m->width, m->width);
    block b;
    linear qkv = take_linear(l, QKV, i, tfm_shape2(3 * m->width, m->width), false);
    linear *qkv_parts[3] = { &b.q, &b.k, &b.v };
    for (int p = 0; p < 3; p++)
        *qkv_parts[p] = qkv.w.rank ? rows_of(l, qkv, p * m->width, m->width) : take_linear(l, Q + p, i, square, false);
    b.norm1 = take_linear(l, NORM1, i, vector, false);
    b.proj = take_linear(l, PROJ, i, square, false);
    b.norm2 = take_linear(l, NORM2, i, vector, false);
    b.fc1 = take_linear(l, FC1, i, tfm_shape2(-1, m->width), false);
    b.fc2 = take_linear(l, FC2, i, tfm_shape2(m->width, b.fc1.w.dim[0]), false);
    return b;
}
/* The layout whose patches and classifier the file has. */
static const layout *find_layout(const loader *l) {
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++) {
        const int parts[2] = { PATCHES, HEAD };
        int found = 0;
        for (int p = 0; p < 2; p++) {
            char name[160];
            tfm_tensor_info info;
            snprintf(name, sizeof name, "%s.weight", layouts[i].name[parts[p]]);
            found += tfm_file_tensor(l->file, name, &info);
        }
        if (found == 2) return &layouts[i];
    }
    cli_fail("%s: no vision transformer with a classifier under the names of timm or Hugging Face", l->path);
}
/* Sizes come from the tensors themselves. */
static void load(loader *l, vit *m) {
    tfm_tensor_info info;
    l->names = find_layout(l);
    m->eps = l->names->eps;
    m->patches = take_linear(l, PATCHES, -1, tfm_shape4(-1, -1, -1, -1), false);
    const int64_t *dim = m->patches.w.dim;
    m->width = dim[0];
    m->channels = dim[1];
    m->patch = dim[2];
    if ((m->channels != 1 && m->channels != 3) || dim[2] != dim[3] || m->patch > 1024)
        cli_fail("%s: patches of %" PRId64 "x%" PRId64 "x%" PRId64 " are not supported", l->path, dim[1], dim[2],
                 dim[3]);
    m->cls = take(l, CLS, -1, "", tfm_shape3(1, 1, m->width), false);
    m->dist = take(l, DIST, -1, "", tfm_shape3(1, 1, m->width), true);
    m->positions = take(l, POSITIONS, -1, "", tfm_shape3(1, -1, m->width), false);
    int64_t tokens = m->dist.rank ? 2 : 1, patches = m->positions.dim[1] - tokens, grid = 0;
    while (grid < 4096 && (grid + 1) * (grid + 1) <= patches) grid++;
    if (grid < 1 || grid * grid != patches)
        cli_fail("%s: positions of %" PRId64 " patches, which are no square", l->path, patches);
    m->side = grid * m->patch;
    m->norm = take_linear(l, NORM, -1, tfm_shape1(m->width), false);
    m->head = take_linear(l, HEAD, -1, tfm_shape2(-1, m->width), false);
    m->classes = m->head.w.dim[0];
    if (m->dist.rank) m->head_dist = take_linear(l, HEAD_DIST, -1, tfm_shape2(m->classes, m->width), true);
    m->blocks = cli_alloc((size_t)tfm_file_tensor_count(l->file), sizeof *m->blocks);
    do m->blocks[m->layers] = take_block(l, m, m->layers);
    while (take(l, NORM1, ++m->layers, ".weight", tfm_shape1(m->width), true).rank);
    for (int64_t i = 0; tfm_file_tensor_at(l->file, i, &info); i++)
        if (!l->taken[i]) cli_fail("%s: %.*s: the tensor has no place in a ViT or DeiT", l->path, (int)info.name.size,
                                   info.name.data);
}

/* ---- What the tensors do not say ---- */

/* A value of the file's metadata as text in malloc'd memory, or NULL. */
static char *metadata(const tfm_file *f, const char *key) {
    tfm_value v;
    tfm_string s;
    if (!tfm_file_meta(f, key, &v) || !tfm_value_string(&v, &s)) return NULL;
    char *text = cli_alloc(s.size + 1, 1);
    memcpy(text, s.data, s.size);
    return text;
}
/* A JSON file in the model's folder, its text in *text. No root: there is none. */
static json_document read_beside(const char *path, const char *name, char **text) {
    json_document d = { .root = NULL };
    *text = NULL;
    const char *slash = strrchr(path, '/');
    char *beside = cli_alloc(strlen(path) + strlen(name) + 2, 1);
    size_t size;
    sprintf(beside, "%.*s%s", slash ? (int)(slash - path) + 1 : 0, path, name);
    FILE *f = fopen(beside, "rb");
    if (f) {
        fclose(f);
        *text = cli_read(beside, &size);
        if (!json_read(&d, *text, size)) cli_fail("%s: line %zu: %s", beside, d.line, d.error);
    }
    free(beside);
    return d;
}
/* "A" for all channels or "A,B,C". */
static bool read_channels(const char *text, float out[3]) {
    for (int count = 0; count < 3;) {
        char number[32];
        size_t n = strcspn(text, ",");
        double v;
        if (n >= sizeof number) return false;
        memcpy(number, text, n);
        number[n] = 0;
        if (!cli_number(number, "-+.eE0123456789", &v)) return false;
        out[count++] = (float)v;
        if (count == 1) out[1] = out[2] = out[0];
        if (!text[n]) return count != 2;
        text += n + 1;
    }
    return false;
}
/* From an option, else metadata, else a JSON array of one number or three, else as it is. */
static void set_channels(const loader *l, const char *option, const char *text, const char *key, const json *list,
                         float out[3]) {
    char *meta = text ? NULL : metadata(l->file, key);
    if (text && !read_channels(text, out))
        cli_usage("%s %s: must be one number or three, with commas between them", option, text);
    if (meta && !read_channels(meta, out))
        cli_fail("%s: %s \"%s\": must be one number or three, with commas between them", l->path, key, meta);
    for (size_t i = 0; !text && !meta && list && i < 3; i++) {
        double v;
        if (!json_double(json_at(list, json_count(list) == 1 ? 0 : i), &v))
            cli_fail("%s: the configuration beside it: %s is no list of one number or three", l->path, key);
        out[i] = (float)v;
    }
    free(meta);
}
/* A number of at least `least` from metadata or JSON; false: neither has one. */
static bool find_number(const loader *l, const char *key, const json *other, double least, double *out) {
    char *meta = metadata(l->file, key);
    bool found = meta || other;
    if (meta ? !cli_number(meta, "-+.eE0123456789", out) : found && !json_double(other, out)) *out = least - 1;
    if (found && (*out < least || *out > 65536)) cli_fail("%s: %s is not a number in its range", l->path, key);
    free(meta);
    return found;
}
static char *copy(const char *text) {
    char *s = cli_alloc(strlen(text) + 1, 1);
    return strcpy(s, text);
}
/* The pieces of text between separators, as many as there are classes; frees text. */
static char **split_labels(const char *where, char *text, char separator, int64_t classes) {
    char **labels = cli_alloc((size_t)classes, sizeof *labels);
    int64_t count = 0;
    for (char *p = text, *end; p && *p; p = end ? end + 1 : NULL, count++) {
        end = strchr(p, separator);
        if (end) *end = 0;
        p[strcspn(p, "\r")] = 0;
        if (count < classes) labels[count] = copy(p);
    }
    free(text);
    if (count != classes) cli_fail("%s: %" PRId64 " labels for %" PRId64 " classes", where, count, classes);
    return labels;
}
/* A name for each class, or NULL. */
static char **find_labels(const loader *l, const vit *m, const json *id2label) {
    size_t size;
    if (o.labels) return split_labels(o.labels, cli_read(o.labels, &size), '\n', m->classes);
    char *text = metadata(l->file, "labels"), key[24];
    if (text) return split_labels(l->path, text, '|', m->classes);
    char **labels = cli_alloc((size_t)m->classes, sizeof *labels);
    for (int64_t i = 0; i < m->classes; i++) {
        snprintf(key, sizeof key, "%" PRId64, i);
        const char *name = json_text(json_get(id2label, key));
        if (name) labels[i] = copy(name);
    }
    return labels;
}
/* Fills in what load() left open; returns the labels. */
static char **configure(const loader *l, vit *m) {
    static const float half[3] = { 0.5f, 0.5f, 0.5f }, imagenet[2][3] = { { 0.485f, 0.456f, 0.406f },
                                                                          { 0.229f, 0.224f, 0.225f } };
    char *text[2];
    json_document config = read_beside(l->path, "config.json", &text[0]);
    json_document pixels = read_beside(l->path, "preprocessor_config.json", &text[1]);
    const json *act = json_get(config.root, "hidden_act"), *timm = json_get(config.root, "pretrained_cfg");
    if (act && !json_is(act, "gelu")) cli_fail("%s: its config.json asks for another hidden_act than gelu", l->path);
    double heads = (double)o.heads, eps = (double)m->eps;
    if (!o.heads && !find_number(l, "heads", json_get(config.root, "num_attention_heads"), 1, &heads)) {
        if (m->width % 64)
            cli_fail("%s: --heads is needed: a width of %" PRId64 " is no multiple of 64", l->path, m->width);
        heads = (double)(m->width / 64);
    }
    m->heads = (int64_t)heads;
    if ((double)m->heads != heads || m->width % m->heads)
        cli_fail("%s: a width of %" PRId64 " is not a multiple of %g heads", l->path, m->width, heads);
    if (find_number(l, "eps", json_get(config.root, "layer_norm_eps"), 0, &eps)) m->eps = (float)eps;
    memcpy(m->mean, m->dist.rank ? imagenet[0] : half, sizeof m->mean);
    memcpy(m->std, m->dist.rank ? imagenet[1] : half, sizeof m->std);
    const json *mean = json_get(pixels.root, "image_mean"), *std = json_get(pixels.root, "image_std");
    set_channels(l, "--mean", o.mean, "mean", mean ? mean : json_get(timm, "mean"), m->mean);
    set_channels(l, "--std", o.std, "std", std ? std : json_get(timm, "std"), m->std);
    for (int i = 0; i < 3; i++)
        if (!(m->std[i] > 0)) cli_fail("%s: a std of %g, above 0 is needed", l->path, (double)m->std[i]);
    char **labels = find_labels(l, m, json_get(config.root, "id2label"));
    json_free(&config);
    json_free(&pixels);
    free(text[0]);
    free(text[1]);
    return labels;
}

/* ---- Images ---- */

/* Whose pixels are as the model wants them; the caller frees them. */
static image prepare(const char *path, const vit *m) {
    image raw = image_read(path), colour = image_channels(&raw, m->channels);
    image y = image_resize(&colour, m->side, m->side);
    free(raw.pixels);
    free(colour.pixels);
    int64_t n = m->side * m->side;
    for (int64_t i = 0; i < m->channels * n; i++) y.pixels[i] = (y.pixels[i] - m->mean[i / n]) / m->std[i / n];
    return y;
}
static void print_top(tfm_context *c, tfm_tensor logits, char *const *labels) {
    tfm_tensor classes, p = tfm_topk(c, tfm_softmax(c, logits, -1), o.top, &classes);
    for (int64_t i = 0; tfm_status_of(c) == TFM_OK && i < o.top; i++) {
        int class = ((const int32_t *)classes.data)[i];
        printf("%.4f  ", (double)((const float *)p.data)[i]);
        if (labels[class]) printf("%s\n", labels[class]);
        else printf("class %d\n", class);
    }
}

int main(int argc, char **argv) {
    int count = cli_parse(&program, argc, argv);
    tfm_error err;
    vit m = { .layers = 0 };
    loader l = { .path = argv[0], .file = tfm_file_open(argv[0], NULL, &err) };
    if (!l.file) cli_fail_at(argv[0], err.message);
    l.taken = cli_alloc((size_t)tfm_file_tensor_count(l.file), sizeof *l.taken);
    l.c = tfm_context_new(&(tfm_context_opts){ .threads = o.threads ? (int)o.threads : tfm_cpu_count(),
        .level = o.level }, &err);
    if (!l.c) cli_fail("%s", err.message);
    load(&l, &m);
    char **labels = configure(&l, &m);
    if (o.top > m.classes) o.top = m.classes;

    FILE *out = o.logits ? cli_create(o.logits) : NULL;
    tfm_mark mark = tfm_arena_mark(l.c);
    for (int i = 1; i < count; i++) {
        image pixels = prepare(argv[i], &m);
        tfm_tensor x = tfm_wrap(l.c, pixels.pixels, tfm_shape3(m.channels, m.side, m.side));
        tfm_tensor logits = forward(l.c, &m, x);
        if (count > 2) printf("%s:\n", argv[i]);
        print_top(l.c, logits, labels);
        if (tfm_status_of(l.c) != TFM_OK) cli_fail("%s: %s", argv[0], tfm_message(l.c));
        if (out) cli_write_floats(out, logits.data, m.classes);
        tfm_arena_rewind(l.c, mark);
        free(pixels.pixels);
    }
    if (out) cli_commit(out);
    cli_finish();
    for (int64_t i = 0; i < m.classes; i++) free(labels[i]);
    free(labels);
    free(m.blocks);
    free(l.taken);
    tfm_context_free(l.c);
    tfm_file_free(l.file);
    return 0;
}
