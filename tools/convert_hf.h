/* convert_hf.h - reads a Hugging Face folder: config.json, the weights in one .safetensors file or in
   shards with an index, the tokenizer. What the families have in common is here, what each has for its
   own in the tables of convert_families.h. */
#ifndef CONVERT_HF_H
#define CONVERT_HF_H

#include "tools/convert_families.h"
#include "tools/convert_job.h"
#include "tools/convert_vocab_files.h"

typedef struct hf_tensor {              /* of the folder */
    const char *name;
    tfm_tensor tensor;
} hf_tensor;

typedef struct hf_output {              /* what one tensor of the GGUF file is made from */
    char name[64];
    hf_change change;
    tfm_tensor *parts;                  /* one, or one for each # */
    int64_t count;
    int64_t heads, groups, size;        /* of HF_ROTATED, HF_GROUPED: query heads, K and V heads, their size */
    float add;
} hf_output;

typedef struct hf_folder {
    convert_job *job;
    const char *dir;
    const json *config, *defaults;      /* config: that of the text model */
    const hf_family *family;
    hf_tensor *tensors;
    size_t tensor_count;
    hf_output **outputs;
    size_t output_count;
    int64_t width, layers, heads, kv_heads, head_size;
} hf_folder;

/* ---- config.json ---- */

/* A value by its path a.b.c; null counts as missing. */
static const json *hf_path(const json *v, const char *path) {
    while (v && *path) {
        tfm_string key = { path, strcspn(path, ".") };
        v = json_get_string(v, key);
        path += key.size + (path[key.size] == '.');
    }
    return v && v->kind != JSON_NULL ? v : NULL;
}
/* The first value that is there, of paths with a space between two: of config.json, then of what the
   family takes for granted. */
static const json *hf_config(const hf_folder *h, const char *paths) {
    const json *sources[2] = { h->config, h->defaults };
    for (int s = 0; s < 2; s++)
        for (const char *p = paths; *p; p += strspn(p, " ")) {
            char path[96];
            size_t n = strcspn(p, " ");
            snprintf(path, sizeof path, "%.*s", (int)n, p);
            const json *v = hf_path(sources[s], path);
            if (v) return v;
            p += n;
        }
    return NULL;
}
static const char *hf_text(const hf_folder *h, const char *paths, const char *missing) {
    const json *v = hf_config(h, paths);
    return json_text(v) ? json_text(v) : missing;
}
static bool hf_true(const hf_folder *h, const char *paths) { return json_true(hf_config(h, paths)); }
static double hf_real(const hf_folder *h, const char *paths, double missing) {
    const json *v = hf_config(h, paths);
    double d;
    if (!v) return missing;
    if (!json_double(v, &d)) cli_fail("%s/config.json: %s is not a number", h->dir, paths);
    return d;
}
/* A count, from 1 to 2^31 - 1; missing 0: it is needed. */
static int64_t hf_whole(const hf_folder *h, const char *paths, int64_t missing) {
    const json *v = hf_config(h, paths);
    int64_t n = missing;
    if (!v && !missing) cli_fail("%s/config.json: %s is missing", h->dir, paths);
    if (v && (!json_int(v, &n) || n < 1 || n > INT32_MAX))
        cli_fail("%s/config.json: %s is not a whole number from 1 to 2147483647", h->dir, paths);
    return n;
}

static void hf_find_family(hf_folder *h) {
    char *path = convert_path(h->dir, "config.json");
    const json *root = convert_json(path), *type = json_get(root, "model_type");
    const json *text = json_get(root, "text_config");
    if (!json_text(type)) cli_fail("%s: \"model_type\" is missing", path);
    h->config = text && text->kind == JSON_OBJECT ? text : root;
    for (size_t i = 0; i < sizeof hf_families / sizeof *hf_families; i++)
        if (convert_listed(json_text(type), hf_families[i].type)) h->family = &hf_families[i];
    const char *made_by = json_text(json_at(json_get(root, "architectures"), 0));
    if (!h->family) cli_fail("%s: the architecture %s (model_type \"%s\") is not supported", path,
                             made_by ? made_by : "of this model", json_text(type));
    if (hf_path(root, "quantization_config"))
        cli_fail("%s: the weights are quantized (%s); only F32, F16 and BF16 are read", path,
                 json_text(hf_path(root, "quantization_config.quant_method")) ?
                 json_text(hf_path(root, "quantization_config.quant_method")) : "quantization_config");
}
/* JSON that stands in our tables. */
static const json *hf_constant(const char *text) {
    size_t n = strlen(text);
    char *copy = convert_keep(n + 1);
    memcpy(copy, text, n);
    return convert_json_text(text, copy, n);
}
static bool hf_equal(const json *a, const json *b) {
    double x, y;
    if (json_double(a, &x) && json_double(b, &y)) return !(x < y) && !(x > y);
    if (a->kind != b->kind) return false;
    if (a->kind == JSON_STRING) return json_is(a, json_text(b));
    return a->kind == JSON_BOOL ? a->truth == b->truth : json_count(a) == 0 && json_count(b) == 0;
}
/* Another activation, another kind of position ... is another computation than GGUF's architecture does. */
static void hf_check_needs(const hf_folder *h) {
    for (const json *need = json_first(hf_constant(h->family->needs)); need; need = need->next) {
        const json *v = hf_config(h, need->key.data), *allowed = json_first(need);
        while (v && allowed && !hf_equal(v, allowed)) allowed = allowed->next;
        if (!v || allowed) continue;
        cli_fail("%s/config.json: \"%s\" is %.*s, which architecture %s does not support", h->dir, need->key.data,
                 v->kind == JSON_STRING || v->kind == JSON_NUMBER ? (int)v->as.text.size : 40,
                 v->kind == JSON_STRING || v->kind == JSON_NUMBER ? v->as.text.data
                 : v->kind == JSON_BOOL ? (v->truth ? "true" : "false") : "a list or object", h->family->arch);
    }
}

/* A list with 1 for each layer that rotates: all but every fourth, as SmolLM3's architecture has it. */
static void hf_check_rotated(const hf_folder *h) {
    int64_t layer = 0, rotates;
    for (const json *v = json_first(hf_config(h, "no_rope_layers")); v; v = v->next, layer++)
        if (!json_int(v, &rotates) || rotates != ((layer + 1) % 4 != 0))
            cli_fail("%s/config.json: no_rope_layers is not 0 for every fourth layer alone (number %" PRId64 ")",
                     h->dir, layer);
}

/* ---- Metadata ---- */

static const char *hf_key(const hf_folder *h, const char *name) {
    static char key[128];
    snprintf(key, sizeof key, "%s.%s", h->family->arch, name);
    return key;
}
static void hf_meta_u32(const hf_folder *h, const char *name, int64_t v) {
    gguf_meta_u32(&h->job->out, hf_key(h, name), (uint32_t)v);
}
static void hf_meta_f32(const hf_folder *h, const char *name, double v) {
    gguf_meta_f32(&h->job->out, hf_key(h, name), (float)v);
}

static void hf_write_keys(hf_folder *h) {
    for (size_t i = 0; i < sizeof hf_keys / sizeof *hf_keys; i++) {
        const hf_key_rule *k = &hf_keys[i];
        const json *v = hf_config(h, k->from);
        if (!v && k->needed) cli_fail("%s/config.json: %s is missing", h->dir, k->from);
        if (!v) continue;
        if (k->kind == HF_WHOLE) hf_meta_u32(h, k->to, hf_whole(h, k->from, 0));
        else if (k->kind == HF_REAL) hf_meta_f32(h, k->to, hf_real(h, k->from, 0));
        else gguf_meta_bool(&h->job->out, hf_key(h, k->to), json_true(v));
    }
    h->width = hf_whole(h, "hidden_size n_embd", 0);
    h->layers = hf_whole(h, "num_hidden_layers n_layer", 0);
    h->heads = hf_whole(h, "num_attention_heads n_head", 0);
    h->kv_heads = hf_whole(h, "num_key_value_heads num_kv_heads n_head_kv", h->heads);
    if (hf_true(h, "multi_query") && !hf_true(h, "new_decoder_architecture")) h->kv_heads = 1;
    h->head_size = hf_whole(h, "head_dim", h->width / h->heads > 0 ? h->width / h->heads : 1);
    hf_meta_u32(h, "attention.head_count_kv", h->kv_heads);
    hf_meta_u32(h, "feed_forward_length", hf_whole(h, "intermediate_size n_inner ffn_hidden_size", 4 * h->width));
    if (h->family->is & HF_ENCODER) gguf_meta_bool(&h->job->out, hf_key(h, "attention.causal"), false);
    /* Gemma's scale of scores, where it is not the usual one. */
    double scalar = hf_real(h, "query_pre_attn_scalar", (double)h->head_size);
    if (fabs(scalar - (double)h->head_size) > 1e-6) hf_meta_f32(h, "attention.scale", 1 / sqrt(scalar));
}

/* Which layers have a window: a key alone where that is what the architecture does, else one truth
   value per layer. */
static void hf_write_windows(const hf_folder *h) {
    const json *types = hf_config(h, "layer_types"), *window = hf_config(h, "sliding_window");
    const json *optional = hf_path(h->config, "use_sliding_window");
    if (!window || (optional && !json_true(optional))) return;
    int64_t first = 0, every = h->family->global_every;
    if (optional) json_int(hf_config(h, "max_window_layers"), &first);
    if (types && json_count(types) != (size_t)h->layers)
        cli_fail("%s/config.json: layer_types has %zu elements for %" PRId64 " layers", h->dir, json_count(types),
                 h->layers);
    uint8_t *local = convert_keep((size_t)h->layers);
    const json *type = json_first(types);
    bool any = false, usual = true;
    for (int64_t i = 0; i < h->layers; i++, type = type ? type->next : NULL) {
        bool implied = !every || i % every < every - 1;
        local[i] = types ? json_is(type, "sliding_attention") : every ? implied : i >= first;
        any = any || local[i];
        usual = usual && local[i] == implied;
    }
    if (any) {
        hf_meta_u32(h, "attention.sliding_window", hf_whole(h, "sliding_window", 0));
        if (!usual) gguf_meta_array(&h->job->out, hf_key(h, "attention.sliding_window_pattern"), TFM_VALUE_BOOL, local,
                                    (size_t)h->layers);
    }
}

/* What stands in rope_parameters (rope_scaling in older files); what comes last is not supported. */
enum { HF_FACTOR, HF_LOW, HF_HIGH, HF_ORIGINAL, HF_ATTENTION, HF_FAST, HF_SLOW, HF_ROPE_TYPE, HF_TYPE, HF_MSCALE,
       HF_MSCALE_ALL, HF_MROPE, HF_ROPE_PATHS };
static const char *const hf_rope_keys[HF_ROPE_PATHS] = {
    "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings", "attention_factor",
    "beta_fast", "beta_slow", "rope_type", "type", "mscale", "mscale_all_dim", "mrope_section"
};

/* A tensor that config.json holds as numbers, or that follows from some. */
static void hf_add_factors(const hf_folder *h, const char *name, float *values, int64_t count) {
    gguf_plan *p = gguf_plan_add(&h->job->plans, name, TFM_F32, tfm_shape1(count));
    p->data = values;
}
static void hf_long_factors(const hf_folder *h, const char *name, const char *key, int64_t dims) {
    const json *list = hf_config(h, key);
    if (json_count(list) != (size_t)dims / 2)
        cli_fail("%s/config.json: %s has %zu numbers, %" PRId64 " needed", h->dir, key, json_count(list), dims / 2);
    float *values = convert_keep((size_t)dims / 2 * sizeof *values);
    const json *v = json_first(list);
    for (int64_t i = 0; v; i++, v = v->next) {
        double d;
        if (!json_double(v, &d)) cli_fail("%s/config.json: %s holds something that is no number", h->dir, key);
        values[i] = (float)d;
    }
    hf_add_factors(h, name, values, dims / 2);
}
/* Llama 3: frequencies that turn less than low_freq_factor times over the original context are divided by
   `factor`, those that turn more than high_freq_factor times stay, and what lies between is blended. */
static void hf_llama3_factors(const hf_folder *h, const char *const *at, double base, int64_t dims) {
    double factor = hf_real(h, at[HF_FACTOR], 0), low = hf_real(h, at[HF_LOW], 0), high = hf_real(h, at[HF_HIGH], 0);
    double context = hf_real(h, at[HF_ORIGINAL], 0);
    if (factor <= 0 || context <= 0 || low <= 0 || high <= low)
        cli_fail("%s/config.json: the rotation of type llama3 needs factor, original_max_position_embeddings and "
                 "low_freq_factor below high_freq_factor, all above 0", h->dir);
    float *values = convert_keep((size_t)dims / 2 * sizeof *values);
    for (int64_t i = 0; i < dims / 2; i++) {
        double length = 2 * 3.14159265358979323846 * pow(base, 2.0 * (double)i / (double)dims);
        double share = (context / length - low) / (high - low);
        share = share < 0 ? 0 : share > 1 ? 1 : share;
        values[i] = (float)(1 / ((1 - share) / factor + share));
    }
    hf_add_factors(h, "rope_freqs.weight", values, dims / 2);
}
/* Longrope's two lists of factors, and what cos and sin are multiplied by. */
static void hf_longrope(const hf_folder *h, int64_t dims) {
    const char *original = "rope_parameters.original_max_position_embeddings original_max_position_embeddings";
    double context = (double)hf_whole(h, original, 0);
    double stretch = (double)hf_whole(h, "max_position_embeddings", 0) / context;
    double magnitude = stretch > 1 ? sqrt(1 + log(stretch) / log(context)) : 1;
    hf_meta_u32(h, "rope.scaling.original_context_length", (int64_t)context);
    hf_meta_f32(h, "rope.scaling.attn_factor",
                hf_real(h, "rope_parameters.attention_factor rope_scaling.attention_factor", magnitude));
    hf_long_factors(h, "rope_factors_long.weight", "rope_parameters.long_factor rope_scaling.long_factor", dims);
    hf_long_factors(h, "rope_factors_short.weight", "rope_parameters.short_factor rope_scaling.short_factor", dims);
}
/* YaRN: GGUF's readers multiply cos and sin by 1 + 0.1 ln(factor) times attn_factor. */
static void hf_yarn(const hf_folder *h, const char *const *at, double factor) {
    double usual = factor > 1 ? 1 + 0.1 * log(factor) : 1, magnitude = hf_real(h, at[HF_ATTENTION], usual);
    gguf_meta_string(&h->job->out, hf_key(h, "rope.scaling.type"), "yarn");
    hf_meta_f32(h, "rope.scaling.factor", factor);
    hf_meta_u32(h, "rope.scaling.original_context_length",
                hf_whole(h, at[HF_ORIGINAL], hf_whole(h, "max_position_embeddings", 0)));
    if (fabs(magnitude / usual - 1) > 1e-6) hf_meta_f32(h, "rope.scaling.attn_factor", magnitude / usual);
    if (hf_config(h, at[HF_FAST])) hf_meta_f32(h, "rope.scaling.yarn_beta_fast", hf_real(h, at[HF_FAST], 0));
    if (hf_config(h, at[HF_SLOW])) hf_meta_f32(h, "rope.scaling.yarn_beta_slow", hf_real(h, at[HF_SLOW], 0));
}
/* "rope_parameters.KEY" and its older places, as paths for hf_config. */
static const char *hf_rope_path(char *out, size_t size, const char *key) {
    snprintf(out, size, "rope_parameters.full_attention.%s rope_parameters.%s rope_scaling.%s", key, key, key);
    return out;
}
static void hf_write_rope(const hf_folder *h) {
    char paths[HF_ROPE_PATHS][160];
    const char *at[HF_ROPE_PATHS];
    for (int i = 0; i < HF_ROPE_PATHS; i++) at[i] = hf_rope_path(paths[i], sizeof paths[i], hf_rope_keys[i]);
    const char *kind = hf_text(h, at[HF_ROPE_TYPE], hf_text(h, at[HF_TYPE], "default"));
    double base = hf_real(h, "rope_parameters.full_attention.rope_theta rope_parameters.rope_theta rope_theta "
                          "rotary_emb_base", 10000);
    double local = hf_real(h, "rope_parameters.sliding_attention.rope_theta rope_local_base_freq", base);
    double partial = hf_real(h, "rope_parameters.partial_rotary_factor partial_rotary_factor rotary_pct rope_pct", 1);
    double factor = hf_real(h, at[HF_FACTOR], 1);
    int64_t dims = (int64_t)((double)h->head_size * partial);
    hf_meta_u32(h, "rope.dimension_count", dims);
    hf_meta_f32(h, "rope.freq_base", base);
    if (local < base || local > base) hf_meta_f32(h, "rope.freq_base_swa", local);
    for (int i = HF_MSCALE; i < HF_ROPE_PATHS; i++)
        if (hf_config(h, at[i]))
            cli_fail("%s/config.json: the rotation's %s is not supported", h->dir, hf_rope_keys[i]);
    if (strcmp(kind, "linear") == 0) {
        gguf_meta_string(&h->job->out, hf_key(h, "rope.scaling.type"), "linear");
        hf_meta_f32(h, "rope.scaling.factor", factor);
    } else if (strcmp(kind, "llama3") == 0) hf_llama3_factors(h, at, base, dims);
    else if (strcmp(kind, "longrope") == 0 || strcmp(kind, "su") == 0) hf_longrope(h, dims);
    else if (strcmp(kind, "yarn") == 0) hf_yarn(h, at, factor);
    else if (strcmp(kind, "default") != 0)
        cli_fail("%s/config.json: the rotation's type \"%s\" is not supported", h->dir, kind);
}

/* The file must be of this folder. */
static bool hf_is_file_name(const char *name) { return *name && !strpbrk(name, "/\\") && name[0] != '.'; }

/* Sentence-transformers: which folder says how the rows of an encoder's output become one; NULL: none. */
static const char *hf_pooling_folder(const hf_folder *h) {
    const json *modules = convert_json_in(h->dir, "modules.json");
    const char *folder = modules ? NULL : "1_Pooling";
    for (const json *m = json_first(modules); m; m = m->next) {
        const char *type = json_text(json_get(m, "type"));
        if (type && strstr(type, "Pooling")) folder = json_text(json_get(m, "path"));
        else if (!type || (!strstr(type, "Transformer") && !strstr(type, "Normalize")))
            cli_fail("%s/modules.json: a module of type %s is not supported", h->dir, type ? type : "none");
    }
    return folder && hf_is_file_name(folder) ? convert_path(h->dir, folder) : NULL;
}
/* In the older form a truth value for each kind, in the newer one its name. */
static void hf_write_pooling(const hf_folder *h) {
    static const struct { const char *key, *mode; uint32_t type; } modes[] = {
        { "pooling_mode_mean_tokens", "mean", 1 }, { "pooling_mode_cls_token", "cls", 2 },
        { "pooling_mode_lasttoken", "lasttoken", 3 }
    };
    const char *dir = hf_pooling_folder(h);
    const json *pooling = dir ? convert_json_in(dir, "config.json") : NULL;
    uint32_t type = 0;
    int chosen = 0;
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        if (!json_true(json_get(pooling, modes[i].key)) && !json_is(json_get(pooling, "pooling_mode"), modes[i].mode))
            continue;
        type = modes[i].type;
        chosen++;
    }
    if (pooling && chosen != 1) cli_fail("%s/config.json: only mean, CLS or last-token pooling is supported", dir);
    if (pooling) hf_meta_u32(h, "pooling_type", type);
}

/* ---- Weights ---- */

static void hf_open_weights(hf_folder *h, const char *name) {
    char *path = convert_path(h->dir, name);
    const tfm_file *f = convert_open(h->job, path);
    size_t count = (size_t)tfm_file_tensor_count(f);
    h->tensors = realloc(h->tensors, (h->tensor_count + count + 1) * sizeof *h->tensors);
    if (!h->tensors) cli_fail("%s: out of memory for %zu tensors", path, count);
    for (size_t i = 0; i < count; i++) {
        tfm_tensor_info info;
        tfm_file_tensor_at(f, (int64_t)i, &info);
        char *copy = convert_keep(info.name.size + 1);
        memcpy(copy, info.name.data, info.name.size);
        tfm_type type = info.tensor.type;
        if (type != TFM_F32 && type != TFM_F16 && type != TFM_BF16 && type != TFM_F64) info.tensor.type = TFM_TYPE_NONE;
        h->tensors[h->tensor_count].name = copy;
        h->tensors[h->tensor_count++].tensor = info.tensor;
    }
}
static int hf_by_name(const void *a, const void *b) {
    return strcmp(((const hf_tensor *)a)->name, ((const hf_tensor *)b)->name);
}
/* The shards that the index names, each once, and that they hold what it says. */
static void hf_open_shards(hf_folder *h, const char *index_path) {
    const json *map = json_get(convert_json(index_path), "weight_map");
    if (!json_count(map)) cli_fail("%s: \"weight_map\" is missing or empty", index_path);
    const char **opened = convert_keep(json_count(map) * sizeof *opened);
    size_t count = 0, i;
    for (const json *v = json_first(map); v; v = v->next) {
        const char *file = json_text(v);
        if (!file || !hf_is_file_name(file)) cli_fail("%s: %s: not the name of a file here", index_path, v->key.data);
        for (i = 0; i < count && strcmp(opened[i], file) != 0; i++) {}
        if (i < count) continue;
        char *path = convert_path(h->dir, file);
        if (!convert_exists(path)) cli_fail("%s: %s is in %s, which is not there", index_path, v->key.data, file);
            hf_open_weights(h, opened[count++] = file);
    }
    qsort(h->tensors, h->tensor_count, sizeof *h->tensors, hf_by_name);
    for (i = 1; i < h->tensor_count; i++)
        if (hf_by_name(&h->tensors[i - 1], &h->tensors[i]) == 0)
            cli_fail("%s: %s is in two of its files", index_path, h->tensors[i].name);
    for (const json *v = json_first(map); v; v = v->next) {
        hf_tensor wanted = { v->key.data, { 0 } };
        if (!bsearch(&wanted, h->tensors, h->tensor_count, sizeof wanted, hf_by_name))
            cli_fail("%s: %s is not in %s", index_path, v->key.data, json_text(v));
    }
}
static void hf_find_weights(hf_folder *h) {
    char *one = convert_path(h->dir, "model.safetensors");
    char *index = convert_path(h->dir, "model.safetensors.index.json");
    if (convert_exists(one)) hf_open_weights(h, "model.safetensors");
    else if (convert_exists(index)) hf_open_shards(h, index);
    else cli_fail("%s: neither model.safetensors nor model.safetensors.index.json is there", h->dir);
    qsort(h->tensors, h->tensor_count, sizeof *h->tensors, hf_by_name);
}

/* ---- Names ---- */

typedef struct hf_match { int64_t layer, index; const char *suffix; } hf_match;

static const char *hf_number_at(const char *name, int64_t *n) {
    size_t digits = strspn(name, "0123456789");
    if (digits == 0 || digits > 5) return NULL;
    *n = strtol(name, NULL, 10);
    return name + digits;
}
static bool hf_matches(const char *pattern, const char *name, hf_match *m) {
    m->layer = m->index = -1;
    for (; *pattern; pattern++) {
        if (*pattern == '~') return true;
        if (*pattern == '*' || *pattern == '#') {
            name = hf_number_at(name, *pattern == '*' ? &m->layer : &m->index);
            if (!name) return false;
        } else if (*name++ != *pattern) return false;
    }
    m->suffix = *name ? name : ".weight";
    return !*name || strcmp(name, ".weight") == 0 || strcmp(name, ".bias") == 0;
}
/* The name without what wraps the text model. */
static const char *hf_bare_name(const char *name) {
    static const char *const wraps[] = { "model.", "language_model.", "transformer.", "gpt_neox.", "bert." };
    for (size_t i = 0; i < sizeof wraps / sizeof *wraps; i++)
        if (strncmp(name, wraps[i], strlen(wraps[i])) == 0) {
            name += strlen(wraps[i]);
            i = (size_t)-1;
        }
    return name;
}

/* ---- Tensors ---- */

/* The row of the parts, counted through all of them, that row r of the output is. */
static int64_t hf_source_row(const hf_output *o, int64_t r) {
    int64_t size = o->size, each = o->groups ? o->heads / o->groups : 0;
    int64_t head = size ? r / size : 0, at = size ? r % size : 0;
    switch (o->change) {
        case HF_ROTATED: return head * size + at % 2 * (size / 2) + at / 2;
        case HF_GROUPED:
            if (head < o->heads) return (head / each * (each + 2) + head % each) * size + at;
            if (head < o->heads + o->groups) return ((head - o->heads) * (each + 2) + each) * size + at;
            return ((head - o->heads - o->groups) * (each + 2) + each + 1) * size + at;
        case HF_FIRST_HALF: return head * 2 * size + at;
        case HF_SECOND_HALF: return head * 2 * size + size + at;
        default: return r;
    }
}
/* Rows begin..end of the output, gathered in runs of rows that follow one another. */
static tfm_tensor hf_rows(tfm_context *c, const gguf_plan *p, int64_t begin, int64_t end) {
    const hf_output *o = p->user;
    int64_t width = p->shape.dim[p->shape.rank - 1];
    if (p->shape.rank == 1 && o->size) begin = 0, end = width, width = 1;  /* its elements move, as rows do */
    tfm_tensor out = tfm_zeros(c, tfm_shape2(end - begin, width));
    tfm_mark mark = tfm_arena_mark(c);
    for (int64_t r = begin, n; r < end && tfm_status_of(c) == TFM_OK; r += n) {
        int64_t row = hf_source_row(o, r);
        for (n = 1; r + n < end && hf_source_row(o, r + n) == row + n; n++) {}
        const tfm_tensor *first = &o->parts[0];
        tfm_tensor part = o->change == HF_TURNED && first->rank == 2 ? tfm_transpose(c, *first, 0, 1)
                        : tfm_reshape(c, *first, tfm_shape2(-1, width));
        int64_t rows = part.dim[0], inside = row % rows;
        if (o->count > 1) part = tfm_reshape(c, o->parts[row / rows], tfm_shape2(rows, width));
        if (n > rows - inside) n = rows - inside;
        tfm_tensor x = tfm_to_f32(c, tfm_slice(c, part, 0, inside, inside + n));
        if (tfm_status_of(c) == TFM_OK)
            memcpy((float *)out.data + (r - begin) * width, x.data, (size_t)(n * width) * sizeof(float));
        tfm_arena_rewind(c, mark);
    }
    for (int64_t i = 0; o->add > 0 && out.data && i < tfm_count(out); i++) ((float *)out.data)[i] += o->add;
    return out;
}

static hf_output *hf_output_named(hf_folder *h, const char *name, hf_change change) {
    for (size_t i = h->output_count; i-- > 0;)             /* the latest are the likeliest */
        if (strcmp(h->outputs[i]->name, name) == 0) return h->outputs[i];
    if ((h->output_count & (h->output_count - 1)) == 0) {  /* a power of two: full */
        h->outputs = realloc(h->outputs, (2 * h->output_count + 1) * sizeof *h->outputs);
        if (!h->outputs) cli_fail("%s: out of memory for %zu tensors", h->dir, h->output_count);
    }
    hf_output *o = convert_keep(sizeof *o);
    snprintf(o->name, sizeof o->name, "%s", name);
    o->change = change;
    h->outputs[h->output_count++] = o;
    return o;
}
static void hf_take(hf_folder *h, const hf_tensor *t, const hf_tensor_rule *rule, const hf_match *m) {
    char name[64];                      /* enough for all names of the tables */
    const char *star = strchr(rule->to, '*');
    if (star) snprintf(name, sizeof name, "%.*s%" PRId64 "%s%s", (int)(star - rule->to), rule->to, m->layer, star + 1,
                       m->suffix);
    else snprintf(name, sizeof name, "%s%s", rule->to, m->suffix);
    if (t->tensor.type == TFM_TYPE_NONE)
        cli_fail("%s: %s: only tensors of type F32, F16, BF16 and F64 are read", h->dir, t->name);
    if (m->layer >= h->layers)
        cli_fail("%s: %s: there is no layer %" PRId64 ", num_hidden_layers is %" PRId64, h->dir, t->name,
                 m->layer, h->layers);
    hf_output *o = hf_output_named(h, name, rule->change);
    int64_t index = rule->change == HF_STACKED ? m->index : 0;
    if (index >= o->count) {
        o->parts = realloc(o->parts, (size_t)(index + 1) * sizeof *o->parts);
        if (!o->parts) cli_fail("%s: %s: out of memory", h->dir, t->name);
        memset(o->parts + o->count, 0, (size_t)(index + 1 - o->count) * sizeof *o->parts);
        o->count = index + 1;
    }
    if (o->parts[index].rank) cli_fail("%s: %s: a second tensor for %s", h->dir, t->name, name);
    o->parts[index] = t->tensor;
}
/* By the family's own rules; by the common ones if none of them fits. */
static bool hf_take_by(hf_folder *h, const hf_tensor *t, const hf_tensor_rule *rules) {
    bool taken = false;
    hf_match m;
    for (const hf_tensor_rule *r = rules; r->from; r++) {
        if (!hf_matches(r->from, hf_bare_name(t->name), &m)) continue;
        taken = true;
        if (r->change != HF_DROPPED) hf_take(h, t, r, &m);
    }
    return taken;
}

/* Shape of an output, what its rows come from, and that its parts are what that needs. */
static tfm_shape hf_shape_of(const hf_folder *h, hf_output *o) {
    const tfm_tensor *first = &o->parts[0];
    tfm_shape shape = { first->rank, { 0 } };
    bool halves = o->change == HF_FIRST_HALF || o->change == HF_SECOND_HALF;
    for (int64_t i = 0; i < o->count; i++) {
        if (!o->parts[i].rank)
            cli_fail("%s: %s: number %" PRId64 " of %" PRId64 " is missing", h->dir, o->name, i, o->count);
        if (o->parts[i].rank != first->rank || tfm_count(o->parts[i]) != tfm_count(*first) ||
            o->parts[i].dim[0] != first->dim[0] || o->parts[i].type != first->type)
            cli_fail("%s: %s: number %" PRId64 " has another shape or type than number 0", h->dir, o->name, i);
    }
    memcpy(shape.dim, first->dim, sizeof shape.dim);
    if (o->change == HF_TURNED && first->rank == 2) shape = tfm_shape2(first->dim[1], first->dim[0]);
    if (o->change == HF_STACKED) {
        if (first->rank > 2) cli_fail("%s: %s: parts of rank %d, at most 2", h->dir, o->name, first->rank);
        shape = first->rank == 1 ? tfm_shape2(o->count, first->dim[0])
                                 : tfm_shape3(o->count, first->dim[0], first->dim[1]);
    }
    if (halves) {
        if (first->rank != 3 || first->dim[1] % 2)
            cli_fail("%s: %s: not [experts, 2 x rows, columns]", h->dir, o->name);
        o->size = shape.dim[1] = first->dim[1] / 2;
    }
    return shape;
}
static void hf_set_heads(const hf_folder *h, hf_output *o) {
    if (o->change == HF_ROTATED && !(h->family->is & HF_PAIRS)) o->change = HF_KEEP;
    if (o->change != HF_ROTATED && o->change != HF_GROUPED) return;
    bool grouped = o->change == HF_GROUPED;
    o->size = h->head_size;
    o->heads = h->heads;
    o->groups = h->kv_heads;
    if (o->heads % o->groups)
        cli_fail("%s/config.json: %" PRId64 " heads are no multiple of %" PRId64 " key/value heads", h->dir, o->heads,
                 o->groups);
    int64_t rows = o->parts[0].dim[0], want = grouped ? (o->heads + 2 * o->groups) * o->size : o->size;
    if (grouped ? rows != want : rows % want || o->size % 2)
        cli_fail("%s: %s: %" PRId64 " rows, %s%" PRId64 " needed for heads of %" PRId64, h->dir, o->name, rows,
                 grouped ? "" : "a multiple of ", want, o->size);
}
static void hf_plan_tensors(hf_folder *h) {
    bool tied = hf_true(h, "tie_word_embeddings"), output = false;
    for (size_t i = 0; i < h->tensor_count; i++) {
        const hf_tensor *t = &h->tensors[i];
        bool head = convert_listed(t->name, "lm_head.weight embed_out.weight language_model.lm_head.weight");
        output = output || head;
        if (head && tied) continue;     /* a copy of the embedding */
        if (!hf_take_by(h, t, h->family->tensors) && !hf_take_by(h, t, hf_common_tensors))
            cli_fail("%s: %s: the tensor has no place in architecture %s", h->dir, t->name, h->family->arch);
    }
    const json *untied = hf_config(h, "tie_word_embeddings");
    if (untied && !json_true(untied) && !output && !(h->family->is & HF_ENCODER))
        cli_fail("%s: the output matrix (lm_head.weight) is missing, and tie_word_embeddings is false", h->dir);
    for (size_t i = 0; i < h->output_count; i++) {
        hf_output *o = h->outputs[i];
        hf_set_heads(h, o);
        tfm_shape shape = hf_shape_of(h, o);
        o->add = h->family->is & HF_NORMS_PLUS_ONE && strstr(o->name, "norm") ? 1.0f : 0.0f;
        gguf_plan *p = gguf_plan_add(&h->job->plans, o->name, o->parts[0].type, shape);
        p->type = TFM_F32;              /* unless it is a weight to be stored smaller */
        p->rows = hf_rows;
        p->user = o;
        if (o->change == HF_KEEP && o->add <= 0) p->data = o->parts[0].data;
    }
}

static void convert_hf(convert_job *job) {
    static hf_folder h;
    h.job = job;
    h.dir = job->in;
    hf_find_family(&h);
    h.defaults = h.family->defaults ? hf_constant(h.family->defaults) : NULL;
    hf_check_needs(&h);
    hf_check_rotated(&h);
    size_t n = strlen(h.dir);
    while (n > 1 && h.dir[n - 1] == '/') n--;
    const char *name = h.dir + n;
    while (name > h.dir && name[-1] != '/') name--;
    char *copy = convert_keep(n + 1);
    memcpy(copy, name, (size_t)(h.dir + n - name));
    gguf_meta_string(&job->out, "general.architecture", h.family->arch);
    gguf_meta_string(&job->out, "general.name", copy);
    hf_write_keys(&h);
    hf_write_windows(&h);
    if (!(h.family->is & HF_LEARNED)) hf_write_rope(&h);
    if (h.family->is & HF_ENCODER) hf_write_pooling(&h);
    hf_find_weights(&h);
    hf_plan_tensors(&h);
    snprintf(job->plans.chooser.arch, sizeof job->plans.chooser.arch, "%s", h.family->arch);
    job->plans.chooser.layers = (uint64_t)h.layers;
    job->plans.chooser.experts = hf_config(&h, "num_local_experts num_experts") ?
        (uint64_t)hf_whole(&h, "num_local_experts num_experts", 0) : 0;
    gguf_chooser_heads(&job->plans.chooser, (uint64_t)h.heads, (uint64_t)h.kv_heads);
    job->check = convert_check_model;
    convert_vocab(job, h.dir, h.config, hf_whole(&h, "vocab_size", 0));
    if (h.family->is & HF_ENCODER)
        gguf_meta_u32(&job->out, "tokenizer.ggml.token_type_count", (uint32_t)hf_whole(&h, "type_vocab_size", 1));
}

#endif
