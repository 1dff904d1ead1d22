/* net_write.h - puts a net of layers together for a GGUF file of architecture "sequential". Include it after
   convert_job.h.

       net_builder b = { .in = "model.json", .input_rank = 1, .input = { 50 } };
       net_layer *l = net_add(&b, "dense");                // reads the layer before it
       net_tensor(&b, "weight", tfm_shape2(3, 5), floats); // of the layer added last; floats stay
       net_write(&b, job, NULL, NULL, 0); */
#ifndef NET_WRITE_H
#define NET_WRITE_H

enum { NET_LAYERS = 64, NET_READS = 8, NET_TENSORS = 8 * NET_LAYERS, NET_WIDTH = 1 << 24 };

typedef struct net_layer {
    const char *kind, *activation, *recurrent_activation, *merge;
    bool sequences, backwards, reset_after, mask_zero;
    float epsilon;
    int32_t reads[NET_READS], read_count;
} net_layer;

typedef struct net_builder {
    const char *in;                     /* for messages */
    int32_t input[2];
    int input_rank, count, tensor_count;
    net_layer layers[NET_LAYERS];
    struct { char name[48]; tfm_shape shape; float *data; } tensors[NET_TENSORS];
} net_builder;

static inline net_layer *net_add(net_builder *b, const char *kind) {
    if (b->count == NET_LAYERS) cli_fail("%s: more than %d layers", b->in, NET_LAYERS);
    net_layer *l = &b->layers[b->count];
    memset(l, 0, sizeof *l);
    l->kind = kind;
    l->activation = "linear";
    l->recurrent_activation = "sigmoid";
    l->merge = "";
    l->reset_after = true;
    l->reads[0] = b->count++ - 1;
    l->read_count = 1;
    return l;
}
static inline void net_tensor(net_builder *b, const char *suffix, tfm_shape shape, float *data) {
    if (b->tensor_count == NET_TENSORS) cli_fail("%s: more than %d tensors", b->in, NET_TENSORS);
    snprintf(b->tensors[b->tensor_count].name, sizeof b->tensors->name, "layers.%d.%s", b->count - 1, suffix);
    b->tensors[b->tensor_count].shape = shape;
    b->tensors[b->tensor_count++].data = data;
}

/* ---- Text: see tools/keras2gguf.py on what FILE of --tokenizer holds ---- */

#define NET_PUNCTUATION "!\"#$%&()*+,-./:;<=>?@[\\]^_`{|}~"

static inline void net_text_string(gguf_writer *w, const json *text, const char *from, const char *key) {
    const json *v = json_get(text, from);
    if (v && !json_text(v)) cli_fail("--tokenizer: \"%s\" is no string", from);
    if (v) gguf_meta_string(w, key, json_text(v));
}
static inline void net_text_side(gguf_writer *w, const json *text, const char *name, const char *absent) {
    const json *v = json_get(text, name);
    char key[40];
    if (v && !json_is(v, "left") && !json_is(v, "right"))
        cli_fail("--tokenizer: \"%s\" is neither left nor right", name);
    snprintf(key, sizeof key, "sequential.%s", name);
    gguf_meta_string(w, key, v ? json_text(v) : absent);
}
static inline void net_text_list(gguf_writer *w, const json *list, const char *name, const char *key) {
    tfm_string *s = cli_alloc(json_count(list), sizeof *s);
    size_t n = 0;
    for (const json *v = json_first(list); v; v = v->next) {
        if (!json_text(v)) cli_fail("--tokenizer: element %zu of \"%s\" is no string", n, name);
        s[n++] = v->as.text;
    }
    if (!n) cli_fail("--tokenizer: \"%s\" is no list of strings", name);
    if (!s[0].size) s[0] = (tfm_string){ "[PAD]", 5 };     /* TextVectorization's first word is empty */
    gguf_meta_strings(w, key, s, n);
    free(s);
}
/* Word -> id as a list; ids without a word get their number. */
static inline void net_text_mapping(gguf_writer *w, const json *words) {
    int64_t most = -1, id;
    for (const json *v = json_first(words); v; v = v->next) {
        if (!json_int(v, &id) || id < 0 || id >= NET_WIDTH) cli_fail("--tokenizer: \"%s\" has no id", v->key.data);
        if (id > most) most = id;
    }
    if (most < 0) cli_fail("--tokenizer: there are no words");
    tfm_string *s = cli_alloc((size_t)most + 1, sizeof *s);
    char (*names)[16] = cli_alloc((size_t)most + 1, sizeof *names);
    for (const json *v = json_first(words); v; v = v->next)
        if (json_int(v, &id)) s[id] = v->key;
    for (int64_t i = 0; i <= most; i++)
        if (!s[i].data) s[i] = (tfm_string){ names[i], (size_t)snprintf(names[i], 16, "[%d]", (int)i) };
    gguf_meta_strings(w, "tokenizer.ggml.tokens", s, (size_t)most + 1);
    free(names);
    free(s);
}
static inline void net_write_text(gguf_writer *w, const json *text) {
    const json *words = json_get(text, "vocab"), *unknown = json_get(text, "unknown");
    const json *lower = json_get(text, "lowercase");
    if (!words || words->kind == JSON_NUMBER) words = text;
    if (words == text) text = lower = unknown = NULL;
    bool mapped = words->kind == JSON_OBJECT;
    bool rules = json_get(text, "drop") || json_get(text, "split") || json_get(text, "alone") ||
                 json_get(text, "letters");
    int64_t id = 1;
    if (unknown && (!json_int(unknown, &id) || id < 0 || id >= NET_WIDTH))
        cli_fail("--tokenizer: \"unknown\" is no id");
    gguf_meta_string(w, "tokenizer.ggml.model", "word");
    if (mapped) net_text_mapping(w, words);
    else net_text_list(w, words, "vocab", "tokenizer.ggml.tokens");
    if (unknown || (!rules && !mapped)) gguf_meta_u32(w, "tokenizer.ggml.unknown_token_id", (uint32_t)id);
    gguf_meta_bool(w, "tokenizer.word.lowercase", !lower || json_true(lower));
    net_text_string(w, text, "drop", "tokenizer.word.drop");
    net_text_string(w, text, "split", "tokenizer.word.split");
    net_text_string(w, text, "alone", "tokenizer.word.alone");
    net_text_string(w, text, "letters", "tokenizer.word.letters");
    if (!rules) gguf_meta_string(w, mapped ? "tokenizer.word.split" : "tokenizer.word.drop",
                                 mapped ? NET_PUNCTUATION : NET_PUNCTUATION "'");
    net_text_side(w, text, "padding", mapped && !rules ? "left" : "right");
    net_text_side(w, text, "truncation", mapped && !rules ? "left" : "right");
    if (json_get(text, "labels")) net_text_list(w, json_get(text, "labels"), "labels", "sequential.labels");
}

/* ---- Writing ---- */

static inline bool net_check(const char *path, tfm_error *err) {
    tfm_file *f = tfm_file_open(path, NULL, err);
    tfm_net *n = f ? tfm_net_new(f, NULL, err) : NULL;
    bool good = n != NULL;
    tfm_net_free(n);
    tfm_file_free(f);
    return good;
}

static inline void net_write_names(gguf_writer *w, const net_builder *b, const char *key, size_t member,
                                   const char *absent) {
    tfm_string s[NET_LAYERS];
    bool any = false;
    for (int i = 0; i < b->count; i++) {
        memcpy(&s[i].data, (const char *)&b->layers[i] + member, sizeof s[i].data);
        s[i].size = strlen(s[i].data);
        any |= strcmp(s[i].data, absent) != 0;
    }
    if (any) gguf_meta_strings(w, key, s, (size_t)b->count);
}
static inline void net_write_flags(gguf_writer *w, const net_builder *b, const char *key, size_t member, bool absent) {
    uint8_t flags[NET_LAYERS];
    bool any = false;
    for (int i = 0; i < b->count; i++) {
        flags[i] = *((const bool *)((const char *)&b->layers[i] + member));
        any |= flags[i] != absent;
    }
    if (any) gguf_meta_array(w, key, TFM_VALUE_BOOL, flags, (size_t)b->count);
}
static inline void net_write_reads(gguf_writer *w, const net_builder *b) {
    int32_t counts[NET_LAYERS], reads[NET_LAYERS * NET_READS];
    size_t n = 0;
    bool plain = true;
    for (int i = 0; i < b->count; i++) {
        counts[i] = b->layers[i].read_count;
        plain &= counts[i] == 1 && b->layers[i].reads[0] == i - 1;
        for (int32_t k = 0; k < counts[i]; k++) reads[n++] = b->layers[i].reads[k];
    }
    if (plain) return;
    gguf_meta_array(w, "sequential.layer.input_counts", TFM_VALUE_I32, counts, (size_t)b->count);
    gguf_meta_array(w, "sequential.layer.inputs", TFM_VALUE_I32, reads, n);
}
static inline void net_write_layers(gguf_writer *w, const net_builder *b) {
    float epsilon[NET_LAYERS];
    bool norms = false;
    for (int i = 0; i < b->count; i++) {
        epsilon[i] = b->layers[i].epsilon;
        norms |= strcmp(b->layers[i].kind, "layer_norm") == 0;
    }
    gguf_meta_array(w, "sequential.input_shape", TFM_VALUE_I32, b->input, (size_t)b->input_rank);
    net_write_names(w, b, "sequential.layer.kind", offsetof(net_layer, kind), "");
    net_write_names(w, b, "sequential.layer.activation", offsetof(net_layer, activation), "linear");
    net_write_names(w, b, "sequential.layer.recurrent_activation", offsetof(net_layer, recurrent_activation),
                    "sigmoid");
    net_write_names(w, b, "sequential.layer.merge", offsetof(net_layer, merge), "");
    net_write_flags(w, b, "sequential.layer.return_sequences", offsetof(net_layer, sequences), false);
    net_write_flags(w, b, "sequential.layer.go_backwards", offsetof(net_layer, backwards), false);
    net_write_flags(w, b, "sequential.layer.reset_after", offsetof(net_layer, reset_after), true);
    net_write_flags(w, b, "sequential.layer.mask_zero", offsetof(net_layer, mask_zero), false);
    if (norms) gguf_meta_array(w, "sequential.layer.epsilon", TFM_VALUE_F32, epsilon, (size_t)b->count);
    net_write_reads(w, b);
}
/* text: the vocabulary of words, or NULL. chars: the names of the ids of a net of characters, or NULL. */
static inline void net_write(const net_builder *b, convert_job *job, const json *text, const tfm_string *chars,
                             size_t char_count) {
    gguf_writer *w = &job->out;
    gguf_meta_string(w, "general.architecture", "sequential");
    net_write_layers(w, b);
    if (text) net_write_text(w, text);
    if (chars) {
        gguf_meta_string(w, "tokenizer.ggml.model", "char");
        gguf_meta_strings(w, "tokenizer.ggml.tokens", chars, char_count);
    }
    for (int i = 0; i < b->tensor_count; i++) {
        gguf_plan *p = gguf_plan_add(&job->plans, b->tensors[i].name, TFM_F32, b->tensors[i].shape);
        p->data = p->user = b->tensors[i].data;
        p->rows = convert_rows;
    }
    job->check = net_check;
}

#endif
