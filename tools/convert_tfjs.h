/* convert_tfjs.h - Keras models as TensorFlow.js saves them (model.json and its weight shards) to GGUF, and the
   checkpoints of TensorFlow char LSTMs that ml5.js uses (manifest.json, vocab.json). Include it after net_write.h.

   Takes Sequential models and graphs, topologies of Keras 1 to 3 and of TensorFlow.js itself, weights in float32 or
   quantized to float16, uint16 or uint8. What tfm_net does not run is refused by name. */
#ifndef CONVERT_TFJS_H
#define CONVERT_TFJS_H

typedef enum tfjs_type { TFJS_F32, TFJS_F16, TFJS_U16, TFJS_U8 } tfjs_type;

typedef struct tfjs_weight {
    tfm_string name;
    tfjs_type type;
    double scale, min;                  /* of U16 and U8 */
    tfm_shape shape;
    size_t count;
    const unsigned char *data;
    bool used;
} tfjs_weight;

typedef struct tfjs_model {
    const char *path;
    tfjs_weight *weights;
    size_t weight_count;
    const char *names[256];             /* of layers met so far, those that do nothing too */
    int32_t places[256];                /* which layer of the net gives their output; -1: the input */
    int name_count;
    bool keras_3;                       /* whose hard_sigmoid is another */
    net_builder net;
} tfjs_model;

/* ---- Files ---- */

/* PATH's folder and then NAME. Names that lead out of the folder are refused: a model file is
   nobody's word for what may be read. */
static inline char *tfjs_beside(const char *path, const char *name) {
    const char *slash = strrchr(path, '/');
    size_t folder = slash ? (size_t)(slash - path) + 1 : 0;
    if (!*name || *name == '/' || strstr(name, "..") || strchr(name, '\\'))
        cli_fail("%s: it names a file outside its folder: '%.80s'", path, name);
    char *full = convert_keep(folder + strlen(name) + 1);
    memcpy(full, path, folder);
    strcpy(full + folder, name);
    return full;
}
static inline float tfjs_value(const tfjs_weight *w, size_t i) {
    static const unsigned sizes[4] = { 4, 2, 2, 1 };
    uint32_t bits = 0;
    float f;
    for (unsigned j = 0; j < sizes[w->type]; j++) bits |= (uint32_t)w->data[i * sizes[w->type] + j] << 8 * j;
    memcpy(&f, &bits, sizeof f);
    if (w->type == TFJS_F16) f = gguf_f16_to_f32((uint16_t)bits);
    return w->type == TFJS_F32 || w->type == TFJS_F16 ? f : (float)((double)bits * w->scale + w->min);
}
/* A list of whole numbers up to `most`, null being 0; false: it is none, or longer than 3. */
static inline bool tfjs_shape(const json *list, tfm_shape *s) {
    int64_t n;
    s->rank = 0;
    if (!list || list->kind != JSON_ARRAY || json_count(list) > 3) return false;
    for (const json *v = json_first(list); v; v = v->next) {
        if (v->kind == JSON_NULL) n = 0;
        else if (!json_int(v, &n) || n < 0 || n > NET_WIDTH) return false;
        s->dim[s->rank++] = n;
    }
    return true;
}
/* One entry of weightsManifest; returns the bytes that it takes. */
static inline size_t tfjs_describe(const tfjs_model *m, const json *v, tfjs_weight *w) {
    static const char *const types[4] = { "float32", "float16", "uint16", "uint8" };
    static const size_t sizes[4] = { 4, 2, 2, 1 };
    const json *quantized = json_get(v, "quantization"), *type = json_get(quantized ? quantized : v, "dtype");
    const char *name = json_text(json_get(v, "name"));
    if (!name) cli_fail("%s: a weight has no name", m->path);
    if (!json_is(json_get(v, "dtype"), "float32") || !json_text(type))
        cli_fail("%s: weight %.80s: its dtype is not float32", m->path, name);
    int found = -1;
    for (int i = 0; i < (quantized ? 4 : 1); i++) if (json_is(type, types[i])) found = i;
    if (found < 0) cli_fail("%s: weight %.80s: quantized as '%.20s'", m->path, name, json_text(type));
    w->name = json_get(v, "name")->as.text;
    w->type = (tfjs_type)found;
    if (w->type >= TFJS_U16 && (!json_double(json_get(quantized, "scale"), &w->scale) ||
                              !json_double(json_get(quantized, "min"), &w->min)))
        cli_fail("%s: weight %.80s: its quantization has no scale and min", m->path, name);
    if (!tfjs_shape(json_get(v, "shape"), &w->shape)) cli_fail("%s: weight %.80s: its shape is none", m->path, name);
    w->count = 1;
    for (int i = 0; i < w->shape.rank; i++) w->count *= (size_t)w->shape.dim[i];
    if (w->count < 1 || w->count > INT32_MAX) cli_fail("%s: weight %.80s: %zu elements", m->path, name, w->count);
    return w->count * sizes[found];
}
/* The shards of a group, one after the other; its weights lie in them in their order. */
static inline void tfjs_read_group(tfjs_model *m, const json *group) {
    unsigned char *bytes = NULL;
    size_t size = 0, used = 0;
    for (const json *p = json_first(json_get(group, "paths")); p; p = p->next) {
        if (!json_text(p)) cli_fail("%s: a shard has no name", m->path);
        size_t more;
        char *path = tfjs_beside(m->path, json_text(p)), *part = cli_read(path, &more);
        unsigned char *larger = realloc(bytes, size + more + 1);
        if (!larger) cli_fail("%s: out of memory", path);
        memcpy(larger + size, part, more);
        bytes = larger;
        size += more;
        free(part);
    }
    for (const json *v = json_first(json_get(group, "weights")); v; v = v->next) {
        tfjs_weight *w = &m->weights[m->weight_count++];
        size_t need = tfjs_describe(m, v, w);
        if (need > size - used)
            cli_fail("%s: weight %.80s needs bytes %zu to %zu, the shards have %zu", m->path, w->name.data, used,
                     used + need, size);
        w->data = bytes + used;
        used += need;
    }
    if (used != size || !used) cli_fail("%s: the weights take %zu bytes, the shards have %zu", m->path, used, size);
}
static inline void tfjs_read_weights(tfjs_model *m, const json *manifest) {
    size_t count = 0;
    for (const json *g = json_first(manifest); g; g = g->next) count += json_count(json_get(g, "weights"));
    m->weights = cli_alloc(count, sizeof *m->weights);
    for (const json *g = json_first(manifest); g; g = g->next) tfjs_read_group(m, g);
}

/* ---- Weights of a layer ---- */

/* Is this weight "LAYER/.../NAME", with a part that begins with `direction`? TensorFlow writes ":0" behind names. */
static inline bool tfjs_is(tfm_string weight, const char *layer, const char *direction, const char *name) {
    bool of_layer = false, directed = !*direction;
    const char *p = weight.data, *end = p + weight.size;
    if (weight.size > 2 && memcmp(end - 2, ":0", 2) == 0) end -= 2;
    for (const char *slash; (slash = memchr(p, '/', (size_t)(end - p))) != NULL; p = slash + 1) {
        size_t n = (size_t)(slash - p);
        of_layer |= n == strlen(layer) && memcmp(p, layer, n) == 0;
        directed |= n >= strlen(direction) && memcmp(p, direction, strlen(direction)) == 0;
    }
    return of_layer && directed && (size_t)(end - p) == strlen(name) && memcmp(p, name, strlen(name)) == 0;
}
static inline tfjs_weight *tfjs_find(tfjs_model *m, const char *layer, const char *direction, const char *name,
                                     int rank, bool optional) {
    for (size_t i = 0; i < m->weight_count; i++) {
        tfjs_weight *w = &m->weights[i];
        if (w->used || !tfjs_is(w->name, layer, direction, name)) continue;
        if (rank && w->shape.rank != rank)
            cli_fail("%s: weight %.80s has rank %d, %d needed", m->path, w->name.data, w->shape.rank, rank);
        w->used = true;
        return w;
    }
    if (!optional) cli_fail("%s: layer %s: its weight %s is missing", m->path, layer, name);
    return NULL;
}
/* Rows first..first+rows-1 of a matrix [K, gates * H] (or a vector, or a row of a bias) whose columns hold the gates
   side by side, as [gates * H, K] with the gates in another order: Keras's and TensorFlow's layout as PyTorch's. */
static inline float *tfjs_gates(const tfjs_model *m, const tfjs_weight *w, size_t first, size_t rows, const int *order,
                                int gates) {
    size_t columns = (size_t)w->shape.dim[w->shape.rank - 1], hidden = columns / (size_t)gates;
    if (columns % (size_t)gates)
        cli_fail("%s: weight %.80s has %zu columns, no multiple of %d gates", m->path, w->name.data, columns, gates);
    float *out = cli_alloc(columns, rows * sizeof *out);
    for (size_t c = 0; c < columns; c++)
        for (size_t r = 0; r < rows; r++)
            out[c * rows + r] = tfjs_value(w, (first + r) * columns + (size_t)order[c / hidden] * hidden + c % hidden);
    return out;
}
static const int tfjs_plain[] = { 0 };
static inline void tfjs_matrix(tfjs_model *m, const char *suffix, const tfjs_weight *w, size_t first, size_t rows,
                               const int *order, int gates) {
    tfm_shape s = tfm_shape2(w->shape.dim[w->shape.rank - 1], (int64_t)rows);
    net_tensor(&m->net, suffix, s, tfjs_gates(m, w, first, rows, order, gates));
}
static inline void tfjs_vector(tfjs_model *m, const char *suffix, const tfjs_weight *w, size_t row, const int *order,
                               int gates) {
    net_tensor(&m->net, suffix, tfm_shape1(w->shape.dim[w->shape.rank - 1]), tfjs_gates(m, w, row, 1, order, gates));
}

/* ---- Layers ---- */

static inline const char *tfjs_activation(const tfjs_model *m, const char *layer, const json *config,
                                          const char *key) {
    static const char *const names[] = { "linear", "relu", "gelu", "silu", "tanh", "sigmoid", "softmax", "hard_sigmoid",
                                         "relu6", "elu", "selu", "softplus", "softsign", "exponential" };
    const json *v = json_get(config, key);
    if (v && v->kind == JSON_OBJECT) v = json_get(v, json_text(json_get(v, "config")) ? "config" : "class_name");
    if (!v || v->kind == JSON_NULL) return "linear";
    if (json_is(v, "swish")) return "silu";
    if (json_is(v, "hard_sigmoid") && m->keras_3) return "hard_sigmoid_2";
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (json_is(v, names[i])) return names[i];
    const char *name = json_text(v) ? json_text(v) : "?";
    cli_fail("%s: layer %s: the activation '%.40s' is not supported", m->path, layer, name);
}
static inline void tfjs_refuse(const tfjs_model *m, const char *layer, const json *config, const char *key, bool when) {
    if (when) cli_fail("%s: layer %s: its option %s is not supported", m->path, layer, key);
    if (json_true(json_get(config, key))) tfjs_refuse(m, layer, config, key, true);
}
static inline void tfjs_last_axis(const tfjs_model *m, const char *layer, const json *config) {
    const json *axis = json_get(config, "axis");
    int64_t n = -1;
    if (axis && axis->kind == JSON_ARRAY && json_count(axis) == 1) axis = json_first(axis);
    if (axis && (!json_int(axis, &n) || (n != -1 && n != 2)))
        cli_fail("%s: layer %s: only the last axis (-1) is supported", m->path, layer);
}
static const char *const tfjs_recurrent_kinds[] = { "LSTM", "lstm", "GRU", "gru", "SimpleRNN", "rnn", NULL };

static inline const char *tfjs_recurrent_kind(const json *kind) {
    for (int i = 0; tfjs_recurrent_kinds[i]; i += 2)
        if (json_is(kind, tfjs_recurrent_kinds[i])) return tfjs_recurrent_kinds[i + 1];
    return NULL;
}
static inline void tfjs_recurrent_weights(tfjs_model *m, const char *layer, const char *direction, bool back) {
    static const int lstm[] = { 0, 1, 2, 3 }, gru[] = { 1, 0, 2 };         /* of Keras's i f c o, and z r h */
    net_layer *l = &m->net.layers[m->net.count - 1];
    int gates = strcmp(l->kind, "lstm") == 0 ? 4 : strcmp(l->kind, "gru") == 0 ? 3 : 1;
    const int *order = gates == 3 ? gru : lstm;
    tfjs_weight *w = tfjs_find(m, layer, direction, "kernel", 2, false);
    tfjs_matrix(m, back ? "weight_ih_reverse" : "weight_ih", w, 0, (size_t)w->shape.dim[0], order, gates);
    w = tfjs_find(m, layer, direction, "recurrent_kernel", 2, false);
    tfjs_matrix(m, back ? "weight_hh_reverse" : "weight_hh", w, 0, (size_t)w->shape.dim[0], order, gates);
    w = tfjs_find(m, layer, direction, "bias", 0, true);
    if (!w) return;
    bool two = w->shape.rank == 2 && w->shape.dim[0] == 2 && gates == 3;    /* with reset_after */
    if (w->shape.rank != 1 && !two) cli_fail("%s: weight %.80s: no bias has its shape", m->path, w->name.data);
    tfjs_vector(m, back ? "bias_ih_reverse" : "bias_ih", w, 0, order, gates);
    if (two) tfjs_vector(m, back ? "bias_hh_reverse" : "bias_hh", w, 1, order, gates);
}
static inline void tfjs_recurrent(tfjs_model *m, const char *name, const char *kind, const json *config,
                                  const json *merge) {
    net_layer *l = net_add(&m->net, kind);
    tfjs_refuse(m, name, config, "return_state", false);
    tfjs_refuse(m, name, config, "time_major", false);
    if (!merge) tfjs_refuse(m, name, config, "zero_output_for_mask", false);
    l->activation = tfjs_activation(m, name, config, "activation");
    if (strcmp(kind, "rnn") != 0) l->recurrent_activation = tfjs_activation(m, name, config, "recurrent_activation");
    l->sequences = json_true(json_get(config, "return_sequences"));
    l->backwards = json_true(json_get(config, "go_backwards"));
    l->reset_after = strcmp(kind, "gru") != 0 || json_true(json_get(config, "reset_after"));
    if (merge) l->merge = json_text(merge);
    tfjs_recurrent_weights(m, name, merge ? "forward_" : "", false);
    if (merge) tfjs_recurrent_weights(m, name, "backward_", true);
}
/* A backward layer of its own must differ from the forward one by its direction alone. */
static inline bool tfjs_is_mirror(const tfjs_model *m, const char *name, const json *forward, const json *back) {
    static const char *const names[] = { "activation", "recurrent_activation" };
    const json *f = json_get(forward, "config"), *b = json_get(back, "config");
    const json *class = json_get(forward, "class_name");
    if (!json_text(class) || !json_is(json_get(back, "class_name"), json_text(class))) return false;
    for (int i = 0; i < 2; i++)
        if (strcmp(tfjs_activation(m, name, f, names[i]), tfjs_activation(m, name, b, names[i])) != 0) return false;
    return json_true(json_get(f, "reset_after")) == json_true(json_get(b, "reset_after")) &&
           json_true(json_get(f, "return_sequences")) == json_true(json_get(b, "return_sequences")) &&
           json_true(json_get(f, "go_backwards")) != json_true(json_get(b, "go_backwards"));
}
static inline void tfjs_bidirectional(tfjs_model *m, const char *name, const json *config) {
    const json *inner = json_get(config, "layer"), *merge = json_get(config, "merge_mode");
    const char *kind = tfjs_recurrent_kind(json_get(inner, "class_name"));
    if (!kind || !(json_is(merge, "concat") || json_is(merge, "sum") || json_is(merge, "mul") || json_is(merge, "ave")))
        cli_fail("%s: layer %s: Bidirectional of %.40s, merged by %.20s, is not supported", m->path, name,
                 json_text(json_get(inner, "class_name")) ? json_text(json_get(inner, "class_name")) : "?",
                 json_text(merge) ? json_text(merge) : "nothing");
    const json *back = json_get(config, "backward_layer");
    tfjs_refuse(m, name, config, "backward_layer", json_first(back) && !tfjs_is_mirror(m, name, inner, back));
    tfjs_recurrent(m, name, kind, json_get(inner, "config"), merge);
}
/* Its four vectors as a factor and a summand. */
static inline void tfjs_batch_norm(tfjs_model *m, const char *name, const json *config) {
    tfjs_weight *gamma = tfjs_find(m, name, "", "gamma", 1, true), *beta = tfjs_find(m, name, "", "beta", 1, true);
    tfjs_weight *mean = tfjs_find(m, name, "", "moving_mean", 1, false);
    tfjs_weight *variance = tfjs_find(m, name, "", "moving_variance", 1, false);
    double epsilon;
    size_t n = mean->count;
    if (!json_double(json_get(config, "epsilon"), &epsilon) || variance->count != n || (gamma && gamma->count != n) ||
        (beta && beta->count != n)) cli_fail("%s: layer %s: its weights differ in length", m->path, name);
    net_add(&m->net, "scale");
    float *factor = cli_alloc(n, sizeof *factor), *summand = cli_alloc(n, sizeof *summand);
    for (size_t i = 0; i < n; i++) {
        double f = (gamma ? (double)tfjs_value(gamma, i) : 1) / sqrt((double)tfjs_value(variance, i) + epsilon);
        factor[i] = (float)f;
        summand[i] = (float)((beta ? (double)tfjs_value(beta, i) : 0) - (double)tfjs_value(mean, i) * f);
    }
    net_tensor(&m->net, "weight", tfm_shape1((int64_t)n), factor);
    net_tensor(&m->net, "bias", tfm_shape1((int64_t)n), summand);
}
static inline void tfjs_layer_norm(tfjs_model *m, const char *name, const json *config) {
    double epsilon;
    if (!json_double(json_get(config, "epsilon"), &epsilon)) cli_fail("%s: layer %s: no epsilon", m->path, name);
    net_add(&m->net, "layer_norm")->epsilon = (float)epsilon;
    tfjs_weight *gamma = tfjs_find(m, name, "", "gamma", 1, true), *beta = tfjs_find(m, name, "", "beta", 1, true);
    if (gamma) tfjs_vector(m, "weight", gamma, 0, tfjs_plain, 1);
    if (beta) tfjs_vector(m, "bias", beta, 0, tfjs_plain, 1);
}
static inline void tfjs_dense(tfjs_model *m, const char *name, const json *config) {
    net_add(&m->net, "dense")->activation = tfjs_activation(m, name, config, "activation");
    tfjs_weight *kernel = tfjs_find(m, name, "", "kernel", 2, false), *bias = tfjs_find(m, name, "", "bias", 1, true);
    tfjs_matrix(m, "weight", kernel, 0, (size_t)kernel->shape.dim[0], tfjs_plain, 1);
    if (bias) tfjs_vector(m, "bias", bias, 0, tfjs_plain, 1);
}
static inline void tfjs_embedding(tfjs_model *m, const char *name, const json *config) {
    tfjs_weight *w = tfjs_find(m, name, "", "embeddings", 2, false);
    net_add(&m->net, "embedding")->mask_zero = json_true(json_get(config, "mask_zero"));
    float *data = cli_alloc(w->count, sizeof *data);
    for (size_t i = 0; i < w->count; i++) data[i] = tfjs_value(w, i);
    net_tensor(&m->net, "weight", w->shape, data);
}
/* Layers without weights: their class and kind, and the activation if the class is one. */
static inline bool tfjs_simple(tfjs_model *m, const char *name, const json *kind, const json *config) {
    static const char *const kinds[][3] = {
        { "Activation", "activation", NULL }, { "ReLU", "activation", "relu" }, { "Softmax", "activation", "softmax" },
        { "ELU", "activation", "elu" }, { "Flatten", "flatten", NULL },
        { "GlobalAveragePooling1D", "average_pool", NULL }, { "GlobalMaxPooling1D", "max_pool", NULL },
        { "Concatenate", "concat", NULL }, { "Add", "add", NULL } };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (!json_is(kind, kinds[i][0])) continue;
        double alpha = 1;
        net_layer *l = net_add(&m->net, kinds[i][1]);
        if (kinds[i][2]) l->activation = kinds[i][2];
        else if (i == 0) l->activation = tfjs_activation(m, name, config, "activation");
        tfjs_last_axis(m, name, config);
        tfjs_refuse(m, name, config, "keepdims", false);
        tfjs_refuse(m, name, config, "data_format", json_is(json_get(config, "data_format"), "channels_first"));
        const json *limit = json_get(config, "max_value");
        tfjs_refuse(m, name, config, "max_value", limit && limit->kind != JSON_NULL);
        tfjs_refuse(m, name, config, "alpha", json_double(json_get(config, "alpha"), &alpha) && fabs(alpha - 1) > 0);
        return true;
    }
    return false;
}
/* False: it does nothing at inference. */
static inline bool tfjs_layer(tfjs_model *m, const char *name, const json *kind, const json *config) {
    static const char *const identities[] = { "Dropout", "SpatialDropout1D", "GaussianDropout", "GaussianNoise",
                                              "AlphaDropout", "ActivityRegularization" };
    const char *class_name = json_text(kind) ? json_text(kind) : "?", *recurrent = tfjs_recurrent_kind(kind);
    if (json_is(kind, "TimeDistributed") && json_is(json_get(json_get(config, "layer"), "class_name"), "Dense")) {
        tfjs_dense(m, name, json_get(json_get(config, "layer"), "config"));
        return true;
    }
    for (size_t i = 0; i < sizeof identities / sizeof *identities; i++)
        if (json_is(kind, identities[i])) return false;
    if (recurrent) tfjs_recurrent(m, name, recurrent, config, NULL);
    else if (json_is(kind, "Bidirectional")) tfjs_bidirectional(m, name, config);
    else if (json_is(kind, "Embedding")) tfjs_embedding(m, name, config);
    else if (json_is(kind, "Dense")) tfjs_dense(m, name, config);
    else if (json_is(kind, "BatchNormalization")) tfjs_last_axis(m, name, config), tfjs_batch_norm(m, name, config);
    else if (json_is(kind, "LayerNormalization")) tfjs_last_axis(m, name, config), tfjs_layer_norm(m, name, config);
    else if (!tfjs_simple(m, name, kind, config))
        cli_fail("%s: layer %s: %.40s is not supported", m->path, name, class_name);
    return true;
}

/* ---- The order of layers ---- */

static inline int32_t tfjs_place(const tfjs_model *m, const char *name) {
    for (int i = 0; i < m->name_count; i++)
        if (strcmp(m->names[i], name) == 0) return m->places[i];
    cli_fail("%s: layer %.80s is read before it is there", m->path, name);
}
/* The layers that an inbound_nodes names, as Keras 2 writes it (["name", 0, 0, {}]) or Keras 3 (keras_history). */
static inline void tfjs_reads(const tfjs_model *m, const json *v, int32_t *reads, int32_t *count) {
    if (v && v->kind == JSON_OBJECT && json_is(json_get(v, "class_name"), "__keras_tensor__"))
        v = json_get(json_get(v, "config"), "keras_history");
    const json *first = json_first(v);
    if (json_text(first) && v->kind == JSON_ARRAY && json_count(v) >= 3) {
        if (*count == NET_READS) cli_fail("%s: a layer reads more than %d", m->path, NET_READS);
        reads[(*count)++] = tfjs_place(m, json_text(first));
        return;
    }
    for (const json *e = first; e; e = e->next) tfjs_reads(m, e, reads, count);
}
/* The shape of a sample, without the batch. */
static inline bool tfjs_input(tfjs_model *m, const json *config, bool embeds) {
    static const char *const keys[] = { "batch_input_shape", "batch_shape", "build_input_shape" };
    tfm_shape s;
    int64_t length;
    bool found = false;
    for (int i = 0; i < 3 && !found; i++) found = tfjs_shape(json_get(config, keys[i]), &s) && s.rank >= 2;
    if (!found && embeds) {
        found = json_int(json_get(config, "input_length"), &length) && length > 0 && length <= NET_WIDTH;
        s = tfm_shape2(0, found ? length : 0);
        found = true;
    }
    if (!found) return false;
    m->net.input_rank = s.rank - 1;
    for (int i = 1; i < s.rank; i++) m->net.input[i - 1] = (int32_t)s.dim[i];
    return true;
}
static inline void tfjs_add(tfjs_model *m, const json *layer, const json *topology, bool graph) {
    const json *config = json_get(layer, "config"), *kind = json_get(layer, "class_name"), *nodes;
    const char *name = json_text(json_get(config, "name"));
    if (!name) cli_fail("%s: a layer has no name", m->path);
    if (m->name_count == 256) cli_fail("%s: more than 256 layers", m->path);
    int32_t before = m->name_count ? m->places[m->name_count - 1] : -1, reads[NET_READS] = { before }, count = 1;
    m->names[m->name_count] = name;
    if (json_is(kind, "InputLayer")) {
        if (m->net.input_rank) cli_fail("%s: more than one input; only one is supported", m->path);
        if (!tfjs_input(m, config, false)) cli_fail("%s: layer %s: no shape", m->path, name);
        m->places[m->name_count++] = -1;
        return;
    }
    bool embeds = json_is(kind, "Embedding");
    if (!m->net.input_rank && !tfjs_input(m, json_get(config, "batch_input_shape") ? config : topology, false) &&
        !tfjs_input(m, config, embeds))
        cli_fail("%s: layer %s: the shape of its input is not there", m->path, name);
    nodes = json_get(layer, "inbound_nodes");
    if (graph && json_count(nodes) != 1)
        cli_fail("%s: layer %s: used %zu times; only one use is supported", m->path, name, json_count(nodes));
    if (graph) count = 0, tfjs_reads(m, nodes, reads, &count);
    if (count < 1) cli_fail("%s: layer %s: reads nothing", m->path, name);
    bool kept = tfjs_layer(m, name, kind, config);
    m->places[m->name_count++] = kept ? m->net.count - 1 : reads[0];
    if (!kept) return;
    memcpy(m->net.layers[m->net.count - 1].reads, reads, sizeof reads);
    m->net.layers[m->net.count - 1].read_count = count;
}
static inline void tfjs_topology(tfjs_model *m, const json *root) {
    const json *version = json_get(root, "keras_version"), *model = json_get(root, "model_config");
    if (!model) model = root;
    const json *config = json_get(model, "config"), *layers = json_get(config, "layers");
    if (config && config->kind == JSON_ARRAY) layers = config;             /* Keras 1 */
    bool graph = !json_is(json_get(model, "class_name"), "Sequential");
    m->keras_3 = json_text(version) && json_text(version)[0] == '3';
    if (!json_first(layers)) cli_fail("%s: holds no layers; only layers-format models convert", m->path);
    for (const json *l = json_first(layers); l; l = l->next) tfjs_add(m, l, config, graph);
    int32_t outputs[NET_READS] = { m->net.count - 1 }, count = 1;
    if (graph) count = 0, tfjs_reads(m, json_get(config, "output_layers"), outputs, &count);
    if (count != 1 || outputs[0] != m->net.count - 1 || !m->net.count)
        cli_fail("%s: %d outputs; only one, that of the last layer, is supported", m->path, (int)count);
    for (size_t i = 0; i < m->weight_count; i++)
        if (!m->weights[i].used) cli_fail("%s: weight %.80s belongs to no layer", m->path, m->weights[i].name.data);
}

/* ---- Checkpoints of char LSTMs: {"NAME": {"filename": "...", "shape": [...]}} ---- */

static inline tfjs_weight *tfjs_checkpoint_find(tfjs_model *m, const char *name, int cell, const char *const *suffixes,
                                                int rank) {
    char full[96];
    for (int i = 0; suffixes[i]; i++) {
        if (cell < 0) snprintf(full, sizeof full, "%s%s", name, suffixes[i]);
        else snprintf(full, sizeof full, "%s%d/basic_lstm_cell/%s", name, cell, suffixes[i]);
        for (size_t k = 0; k < m->weight_count; k++) {
            tfjs_weight *w = &m->weights[k];
            if (w->name.size != strlen(full) || memcmp(w->name.data, full, w->name.size) != 0) continue;
            if (w->shape.rank != rank) cli_fail("%s: %s has rank %d, %d needed", m->path, full, w->shape.rank, rank);
            return w;
        }
    }
    if (cell <= 0) cli_fail("%s: %s is missing", m->path, full);
    return NULL;                        /* the cell before was the last */
}
static inline void tfjs_read_checkpoint(tfjs_model *m, const json *manifest) {
    m->weights = cli_alloc(json_count(manifest), sizeof *m->weights);
    for (const json *v = json_first(manifest); v; v = v->next) {
        tfjs_weight *w = &m->weights[m->weight_count];
        const char *file = json_text(json_get(v, "filename"));
        size_t size;
        if (!file || !tfjs_shape(json_get(v, "shape"), &w->shape))
            cli_fail("%s: %.80s has no filename or no shape", m->path, v->key.data);
        if (w->shape.rank == 0) continue;                   /* the optimizer's step */
        w->name = v->key;
        w->count = 1;
        for (int i = 0; i < w->shape.rank; i++) w->count *= (size_t)w->shape.dim[i];
        char *path = tfjs_beside(m->path, file);
        w->data = (unsigned char *)cli_read(path, &size);
        if (size != w->count * 4 || !size) cli_fail("%s: %zu bytes, %zu needed", path, size, w->count * 4);
        m->weight_count++;
    }
}
/* TensorFlow's BasicLSTMCell: [x, h] W + b, gates i j f o, 1 added to f. */
static inline void tfjs_basic_cell(tfjs_model *m, const tfjs_weight *kernel, const tfjs_weight *bias) {
    static const int order[] = { 0, 2, 1, 3 };
    size_t hidden = (size_t)kernel->shape.dim[1] / 4, rows = (size_t)kernel->shape.dim[0];
    if (rows <= hidden || bias->count != 4 * hidden)
        cli_fail("%s: %s: %zu rows for %zu units and a bias of %zu", m->path, kernel->name.data, rows, hidden,
                 bias->count);
    net_layer *l = net_add(&m->net, "lstm");
    l->activation = "tanh";
    l->sequences = true;
    tfjs_matrix(m, "weight_ih", kernel, 0, rows - hidden, order, 4);
    tfjs_matrix(m, "weight_hh", kernel, rows - hidden, hidden, order, 4);
    float *b = tfjs_gates(m, bias, 0, 1, order, 4);
    for (size_t i = hidden; i < 2 * hidden; i++) b[i] += 1;
    net_tensor(&m->net, "bias_ih", tfm_shape1((int64_t)bias->count), b);
}
static inline void tfjs_checkpoint(tfjs_model *m) {
    static const char *const none[] = { "", NULL }, *const kernels[] = { "kernel", "weights", NULL },
                      *const biases[] = { "bias", "biases", NULL };
    static const char cells[] = "rnnlm/multi_rnn_cell/cell_";
    tfjs_weight *w = tfjs_checkpoint_find(m, "embedding", -1, none, 2);
    float *table = cli_alloc(w->count, sizeof *table);
    for (size_t i = 0; i < w->count; i++) table[i] = tfjs_value(w, i);
    net_add(&m->net, "embedding");
    net_tensor(&m->net, "weight", w->shape, table);
    m->net.input_rank = 1;
    for (int i = 0; (w = tfjs_checkpoint_find(m, cells, i, kernels, 2)) != NULL; i++) {
        const tfjs_weight *bias = tfjs_checkpoint_find(m, cells, i, biases, 1);
        if (!bias) cli_fail("%s: cell %d has no bias", m->path, i);
        tfjs_basic_cell(m, w, bias);
    }
    net_add(&m->net, "dense");
    w = tfjs_checkpoint_find(m, "rnnlm/softmax_w", -1, none, 2);
    tfjs_matrix(m, "weight", w, 0, (size_t)w->shape.dim[0], tfjs_plain, 1);
    tfjs_vector(m, "bias", tfjs_checkpoint_find(m, "rnnlm/softmax_b", -1, none, 1), 0, tfjs_plain, 1);
}
/* The characters in the order of their ids: {"a": 4, ...}, each once. */
static inline tfm_string *tfjs_characters(const char *path, const json *list, size_t *count) {
    *count = json_count(list);
    tfm_string *chars = convert_keep(*count * sizeof *chars);
    for (const json *v = json_first(list); v; v = v->next) {
        int64_t id;
        size_t length = 0;              /* in characters */
        for (size_t i = 0; i < v->key.size; i++) length += (v->key.data[i] & 0xc0) != 0x80;
        if (length != 1)
            cli_fail("%s: '%.20s' is not one character; --tokenizer takes another file", path, v->key.data);
        if (!json_int(v, &id) || id < 0 || (size_t)id >= *count || chars[id].data)
            cli_fail("%s: '%.20s' has no id of its own below %zu", path, v->key.data, *count);
        chars[id] = v->key;
    }
    return chars;
}

/* ---- The entry ---- */

/* A model.json or a manifest.json. job->tokenizer: a file of keras2gguf.py's --tokenizer, or NULL; of a checkpoint
   another vocab.json than that beside it. */
static inline void convert_tfjs(convert_job *job) {
    static tfjs_model m;
    const char *path = job->tokenizer;
    const json *root = convert_json(job->in);
    m.path = m.net.in = job->in;
    if (json_is(json_get(root, "format"), "graph-model"))
        cli_fail("%s: a graph model; only layers-format models convert", job->in);
    if (json_get(root, "modelTopology")) {
        tfjs_read_weights(&m, json_get(root, "weightsManifest"));
        tfjs_topology(&m, json_get(root, "modelTopology"));
        net_write(&m.net, job, path ? convert_json(path) : NULL, NULL, 0);
        return;
    }
    if (!json_get(json_get(root, "embedding"), "filename"))
        cli_fail("%s: no model of TensorFlow.js: neither modelTopology nor a checkpoint's embedding", job->in);
    tfjs_read_checkpoint(&m, root);
    tfjs_checkpoint(&m);
    size_t count;
    if (!path) path = tfjs_beside(job->in, "vocab.json");
    tfm_string *chars = tfjs_characters(path, convert_json(path), &count);
    if ((int64_t)count != m.net.tensors[0].shape.dim[0])
        cli_fail("%s: %zu characters, the net has %d", path, count, (int)m.net.tensors[0].shape.dim[0]);
    net_write(&m.net, job, NULL, chars, count);
}

#endif
