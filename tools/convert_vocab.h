/* convert_vocab.h - tokenizers of Hugging Face folders as tokenizer.ggml.* metadata: tokenizer.json (BPE on
   bytes, SentencePiece's BPE, WordPiece, unigram), SentencePiece's tokenizer.model, llama2.c's
   tokenizer.bin. What is not recognised is refused by name: a guess would give other ids without a word. */
#ifndef CONVERT_VOCAB_H
#define CONVERT_VOCAB_H

#include "tools/convert_job.h"

enum { VOCAB_NORMAL = 1, VOCAB_UNKNOWN, VOCAB_CONTROL, VOCAB_USER, VOCAB_UNUSED, VOCAB_BYTE };      /* GGUF's types */
enum { VOCAB_BOS, VOCAB_EOS, VOCAB_UNK, VOCAB_SEP, VOCAB_PAD, VOCAB_CLS, VOCAB_MASK, VOCAB_SPECIALS };
enum { VOCAB_MOST = 1 << 24 };          /* tokens; an id beyond is a mistake */

/* Names of the special tokens in tokenizer_config.json and config.json, and in GGUF. */
static const struct { const char *text, *id, *gguf; } vocab_specials[VOCAB_SPECIALS] = {
    { "bos_token", "bos_token_id", "tokenizer.ggml.bos_token_id" },
    { "eos_token", "eos_token_id", "tokenizer.ggml.eos_token_id" },
    { "unk_token", "unk_token_id", "tokenizer.ggml.unknown_token_id" },
    { "sep_token", "sep_token_id", "tokenizer.ggml.seperator_token_id" },      /* spelled so in GGUF */
    { "pad_token", "pad_token_id", "tokenizer.ggml.padding_token_id" },
    { "cls_token", "cls_token_id", "tokenizer.ggml.cls_token_id" },
    { "mask_token", "mask_token_id", "tokenizer.ggml.mask_token_id" }
};

typedef struct vocab {
    const char *path;                   /* for messages */
    const char *model, *pre;            /* tokenizer.ggml.model, tokenizer.ggml.pre */
    tfm_string *tokens;                 /* [count]; data NULL: none has this id */
    float *scores;
    int32_t *types;
    int64_t count, capacity;
    tfm_string *merges;
    size_t merge_count;
    int64_t special[VOCAB_SPECIALS];    /* ids; -1: none */
    int adds_bos, adds_eos, space_prefix, trims;           /* 0, 1; -1: not known */
    int lower, strip;                   /* WordPiece: lower case; accents removed */
    uint8_t *charsmap;                  /* SentencePiece's normalization */
    size_t charsmap_size;
} vocab;

static void vocab_begin(vocab *v, const char *path) {
    memset(v, 0, sizeof *v);
    v->path = path;
    v->pre = "default";
    v->adds_bos = v->adds_eos = v->space_prefix = v->trims = v->lower = v->strip = -1;
    for (int i = 0; i < VOCAB_SPECIALS; i++) v->special[i] = -1;
}
static void vocab_reserve(vocab *v, int64_t count) {
    if (count > VOCAB_MOST) cli_fail("%s: an id of %" PRId64 " is too large", v->path, count - 1);
    if (count > v->capacity) {
        int64_t capacity = v->capacity ? v->capacity : 1024;
        while (capacity < count) capacity *= 2;
        v->tokens = realloc(v->tokens, (size_t)capacity * sizeof *v->tokens);
        v->scores = realloc(v->scores, (size_t)capacity * sizeof *v->scores);
        v->types = realloc(v->types, (size_t)capacity * sizeof *v->types);
        if (!v->tokens || !v->scores || !v->types) cli_fail("%s: out of memory for %" PRId64 " tokens", v->path, count);
        memset(v->tokens + v->capacity, 0, (size_t)(capacity - v->capacity) * sizeof *v->tokens);
        v->capacity = capacity;
    }
    if (count > v->count) v->count = count;
}
static void vocab_set(vocab *v, int64_t id, tfm_string text, float score, int32_t type) {
    if (id < 0) cli_fail("%s: token \"%s\" has the id %" PRId64, v->path, text.data, id);
    vocab_reserve(v, id + 1);
    v->tokens[id] = text;
    v->scores[id] = score;
    v->types[id] = type;
}
static int64_t vocab_find(const vocab *v, const char *text) {
    size_t n = strlen(text);
    for (int64_t id = 0; id < v->count; id++)
        if (v->tokens[id].data && v->tokens[id].size == n && memcmp(v->tokens[id].data, text, n) == 0) return id;
    return -1;
}
static tfm_string vocab_copy(const char *a, size_t a_size, const char *b, size_t b_size) {     /* a, then b */
    char *text = cli_alloc(a_size + b_size + 1, 1);
    memcpy(text, a, a_size);
    memcpy(text + a_size, b, b_size);
    tfm_string s = { text, a_size + b_size };
    return s;
}
/* The text with every `from` replaced. */
static tfm_string vocab_replaced(tfm_string s, const char *from, const char *to) {
    size_t n = strlen(from), m = strlen(to), size = 0;
    char *out = cli_alloc(s.size * (m > n ? m : 1) + 1, 1);
    for (size_t i = 0; i < s.size;) {
        bool found = s.size - i >= n && memcmp(s.data + i, from, n) == 0;
        memcpy(out + size, found ? to : s.data + i, found ? m : 1);
        size += found ? m : 1;
        i += found ? n : 1;
    }
    tfm_string r = { out, size };
    return r;
}
static bool vocab_is_byte(tfm_string s) {
    return s.size == 6 && memcmp(s.data, "<0x", 3) == 0 && s.data[5] == '>' &&
           strspn(s.data + 3, "0123456789ABCDEFabcdef") == 2;
}

#define VOCAB_SPACE "\xe2\x96\x81"      /* U+2581, SentencePiece's space */

/* ---- Pre-tokenizers of byte-level BPE: their description in tokenizer.json, as one line ---- */

#define VOCAB_LETTERS "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define VOCAB_REST "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define VOCAB_UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define VOCAB_LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define VOCAB_CAMEL(suffix) "[^\\r\\n\\p{L}\\p{N}]?" VOCAB_UPPER "*" VOCAB_LOWER "+" suffix "|" \
                            "[^\\r\\n\\p{L}\\p{N}]?" VOCAB_UPPER "+" VOCAB_LOWER "*" suffix "|"
#define VOCAB_SUFFIX "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
#define VOCAB_CAMEL_REST "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define VOCAB_CJK "[\xe4\xb8\x80-\xe9\xbe\xa5\xe0\xa0\x80-\xe4\xb8\x80\xea\xb0\x80-\xed\x9f\xbf]+"
#define VOCAB_CJK3 "[\xe4\xb8\x80-\xe9\xbe\xa5\xe3\x81\x80-\xe3\x82\x9f\xe3\x82\xa0-\xe3\x83\xbf]+"

/* pre: what tokenizer.ggml.pre says, `whole` if the model takes words that are tokens before any merge. */
static const struct { const char *pre, *whole, *steps; } vocab_splitters[] = {
    { "gpt-2", NULL, "ByteLevel(words)" },
    { "smollm", NULL, "Digits(each) ByteLevel(words)" },
    { "dbrx", "llama-bpe", "Split(" VOCAB_LETTERS "\\p{N}{1,3}" VOCAB_REST ") ByteLevel" },
    { "qwen2", NULL, "Split(" VOCAB_LETTERS "\\p{N}" VOCAB_REST ") ByteLevel" },
    { "qwen35", NULL, "Split((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}|"
      " ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+) ByteLevel" },
    { "gpt-4o", "gpt-4o", "Split(" VOCAB_CAMEL(VOCAB_SUFFIX) "\\p{N}{1,3}" VOCAB_CAMEL_REST ") ByteLevel" },
    { NULL, "tekken", "Split(" VOCAB_CAMEL("") "\\p{N}" VOCAB_CAMEL_REST ") ByteLevel" },
    { "falcon", NULL, "Punctuation(contiguous) ByteLevel(words) Digits Split([0-9][0-9][0-9])" },
    { "deepseek-coder", NULL, "Split([\\r\\n]) Split(\\s?\\p{L}+) Split(\\s?\\p{P}+) Split(" VOCAB_CJK ") Digits(each) ByteLevel" },
    { "deepseek-v3", NULL, "Split(\\p{N}{1,3}) Split(" VOCAB_CJK3 ") "
      "Split([!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|"
      " ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+) ByteLevel" }
};

/* Appends what one step does, spelled as in the table. */
static void vocab_step(const vocab *v, const json *step, char *out, size_t size) {
    char text[2048];
    const char *type = json_text(json_get(step, "type"));
    size_t used = strlen(out);
    if (!type) cli_fail("%s: a pre_tokenizer without a \"type\"", v->path);
    snprintf(text, sizeof text, "%s", type);
    if (strcmp(type, "ByteLevel") == 0) {
        const json *words = json_get(step, "use_regex");
        if (json_true(json_get(step, "add_prefix_space")))
            cli_fail("%s: a ByteLevel pre_tokenizer with add_prefix_space is not supported", v->path);
        snprintf(text, sizeof text, "ByteLevel%s", !words || json_true(words) ? "(words)" : "");
    } else if (strcmp(type, "Digits") == 0) {
        snprintf(text, sizeof text, "Digits%s", json_true(json_get(step, "individual_digits")) ? "(each)" : "");
    } else if (strcmp(type, "Punctuation") == 0) {
        snprintf(text, sizeof text, "Punctuation(%s)", json_is(json_get(step, "behavior"), "Contiguous") ? "contiguous" : "other");
    } else if (strcmp(type, "Split") == 0) {
        const char *regex = json_text(json_get(json_get(step, "pattern"), "Regex"));
        bool plain = json_is(json_get(step, "behavior"), "Isolated") && !json_true(json_get(step, "invert"));
        snprintf(text, sizeof text, "Split(%s%s)", plain ? "" : "another behavior: ", regex ? regex : "no Regex");
    }
    snprintf(out + used, size - used, "%s%s", used ? " " : "", text);
}
/* The name of the rule by which text is split into words. */
static const char *vocab_pre(const vocab *v, const json *pre, bool whole) {
    char steps[8192] = "";
    const json *list = json_get(pre, "pretokenizers");
    if (!list) vocab_step(v, pre, steps, sizeof steps);
    for (const json *step = json_first(list); step; step = step->next) vocab_step(v, step, steps, sizeof steps);
    for (size_t i = 0; i < sizeof vocab_splitters / sizeof *vocab_splitters; i++) {
        if (strcmp(steps, vocab_splitters[i].steps) != 0) continue;
        const char *name = whole && vocab_splitters[i].whole ? vocab_splitters[i].whole : vocab_splitters[i].pre;
        if (name) return name;
    }
    cli_fail("%s: the pre_tokenizer %.600s is not supported", v->path, steps);
}

/* ---- tokenizer.json ---- */

/* Is a step of this type in a normalizer, pre_tokenizer, decoder or post_processor, alone or in a sequence? */
static const json *vocab_part(const json *part, const char *type) {
    static const char *const lists[] = { "normalizers", "pretokenizers", "decoders", "processors" };
    if (json_is(json_get(part, "type"), type)) return part;
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        for (const json *step = json_first(json_get(part, lists[i])); step; step = step->next)
            if (json_is(json_get(step, "type"), type)) return step;
    return NULL;
}
/* Every step must be of a type that is listed. */
static void vocab_check_steps(const vocab *v, const json *part, const char *what, const char *allowed) {
    const json *list = json_get(part, "normalizers");
    for (const json *step = list ? json_first(list) : part; step && step->kind == JSON_OBJECT; step = list ? step->next : NULL) {
        const char *type = json_text(json_get(step, "type"));
        if (!type || !convert_listed(type, allowed))
            cli_fail("%s: the %s %s is not supported with this model", v->path, what, type ? type : "without a type");
    }
}
static void vocab_read_map(vocab *v, const json *map) {
    if (!json_count(map)) cli_fail("%s: the model's \"vocab\" is missing or empty", v->path);
    for (const json *t = json_first(map); t; t = t->next) {
        int64_t id;
        if (!json_int(t, &id)) cli_fail("%s: the token \"%s\" has no whole number as its id", v->path, t->key.data);
        if (id >= 0 && id < v->count && v->tokens[id].data)
            cli_fail("%s: the tokens \"%s\" and \"%s\" both have the id %" PRId64, v->path, v->tokens[id].data, t->key.data, id);
        vocab_set(v, id, t->key, 0, VOCAB_NORMAL);
    }
}
/* Merges "a b", which a newer form writes as ["a", "b"]. */
static void vocab_read_merges(vocab *v, const json *merges) {
    v->merge_count = json_count(merges);
    v->merges = cli_alloc(v->merge_count, sizeof *v->merges);
    size_t n = 0;
    for (const json *m = json_first(merges); m; m = m->next, n++) {
        const json *a = json_at(m, 0), *b = json_at(m, 1);
        if (json_text(m)) v->merges[n] = m->as.text;
        else if (json_count(m) == 2 && json_text(a) && json_text(b)) {
            tfm_string left = vocab_copy(a->as.text.data, a->as.text.size, " ", 1);
            v->merges[n] = vocab_copy(left.data, left.size, b->as.text.data, b->as.text.size);
            free((void *)left.data);
        } else cli_fail("%s: merge %zu is neither \"a b\" nor [\"a\", \"b\"]", v->path, n);
    }
}

static const vocab *vocab_sorted;       /* what qsort's comparison looks at */
static int vocab_by_text(const void *a, const void *b) {
    return json__compare(vocab_sorted->tokens[*(const int32_t *)a], vocab_sorted->tokens[*(const int32_t *)b]);
}
/* SentencePiece merges the pair whose union has the best score; a list of merges says the same by the
   place of the first merge that makes a token. */
static void vocab_score_merges(vocab *v) {
    int32_t *sorted = cli_alloc((size_t)v->count, sizeof *sorted);
    int64_t n = 0;
    for (int64_t id = 0; id < v->count; id++)
        if (v->tokens[id].data) sorted[n++] = (int32_t)id;
    vocab_sorted = v;
    qsort(sorted, (size_t)n, sizeof *sorted, vocab_by_text);
    for (int64_t id = 0; id < v->count; id++) v->scores[id] = v->types[id] == VOCAB_BYTE ? 0 : -(float)v->merge_count;
    for (size_t m = v->merge_count; m-- > 0;) {
        const char *space = memchr(v->merges[m].data, ' ', v->merges[m].size);
        if (!space) cli_fail("%s: merge %zu has no space", v->path, m);
        size_t left = (size_t)(space - v->merges[m].data);
        tfm_string whole = vocab_copy(v->merges[m].data, left, space + 1, v->merges[m].size - left - 1);
        int64_t low = 0, high = n;
        while (low < high) {
            int64_t middle = (low + high) / 2;
            if (json__compare(v->tokens[sorted[middle]], whole) < 0) low = middle + 1;
            else high = middle;
        }
        if (low == n || json__compare(v->tokens[sorted[low]], whole) != 0)
            cli_fail("%s: merge %zu gives \"%s\", which is no token", v->path, m, whole.data);
        v->scores[sorted[low]] = -(float)m;
        free((void *)whole.data);
    }
    free(sorted);
}

/* Does SentencePiece put a space before the text? By a Prepend, or by what Metaspace says. */
static int vocab_space_prefix(const json *root) {
    const json *meta = vocab_part(json_get(root, "pre_tokenizer"), "Metaspace");
    if (!meta) return vocab_part(json_get(root, "normalizer"), "Prepend") != NULL;
    const json *scheme = json_get(meta, "prepend_scheme"), *prefix = json_get(meta, "add_prefix_space");
    return scheme ? !json_is(scheme, "never") : !prefix || json_true(prefix);
}
static void vocab_read_bpe(vocab *v, const json *root, const json *model) {
    const json *pre = json_get(root, "pre_tokenizer"), *normalizer = json_get(root, "normalizer");
    bool bytes = vocab_part(pre, "ByteLevel") != NULL;
    vocab_read_map(v, json_get(model, "vocab"));
    vocab_read_merges(v, json_get(model, "merges"));
    if (bytes) {
        v->model = "gpt2";
        v->pre = vocab_pre(v, pre, json_true(json_get(model, "ignore_merges")));
        vocab_check_steps(v, normalizer, "normalizer", "NFC");         /* which GGUF's readers leave out */
        free(v->scores);
        v->scores = NULL;
        return;
    }
    if (!json_true(json_get(model, "byte_fallback")))
        cli_fail("%s: a BPE model that is neither of bytes (ByteLevel) nor of SentencePiece (byte_fallback) is not "
                 "supported", v->path);
    v->model = "llama";
    vocab_check_steps(v, normalizer, "normalizer", "Prepend Replace");
    v->space_prefix = vocab_space_prefix(root);
    for (int64_t id = 0; id < v->count; id++)
        if (v->tokens[id].data && vocab_is_byte(v->tokens[id])) v->types[id] = VOCAB_BYTE;
    vocab_score_merges(v);
    v->merge_count = 0;
}
/* A token that begins a word gets a phantom space in GGUF, one that goes on (##) loses its marks. */
static void vocab_read_wordpiece(vocab *v, const json *root, const json *model) {
    const json *normalizer = json_get(root, "normalizer"), *prefix = json_get(model, "continuing_subword_prefix");
    if (prefix && !json_is(prefix, "##")) cli_fail("%s: continuing_subword_prefix is not ##", v->path);
    if (!vocab_part(json_get(root, "pre_tokenizer"), "BertPreTokenizer"))
        cli_fail("%s: WordPiece without a BertPreTokenizer is not supported", v->path);
    vocab_check_steps(v, normalizer, "normalizer", "BertNormalizer");
    const json *lower = json_get(normalizer, "lowercase"), *strip = json_get(normalizer, "strip_accents");
    v->model = "bert";
    v->lower = !lower || json_true(lower);
    v->strip = strip && strip->kind == JSON_BOOL ? strip->truth : v->lower;
    vocab_read_map(v, json_get(model, "vocab"));
    for (int64_t id = 0; id < v->count; id++) {
        tfm_string s = v->tokens[id];
        if (!s.data || (s.size && s.data[0] == '[' && s.data[s.size - 1] == ']')) continue;
        bool goes_on = s.size > 2 && memcmp(s.data, "##", 2) == 0;
        tfm_string rest = { s.data + 2, s.size - 2 };
        v->tokens[id] = goes_on ? rest : vocab_copy(VOCAB_SPACE, 3, s.data, s.size);
    }
}
static void vocab_decode_base64(vocab *v, const json *text) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint32_t bits = 0;
    int held = 0;
    if (!json_text(text)) return;
    v->charsmap = cli_alloc(text->as.text.size, 1);
    for (const char *p = text->as.text.data; *p && *p != '='; p++) {
        const char *found = strchr(digits, *p);
        if (!found) cli_fail("%s: precompiled_charsmap is not base64", v->path);
        bits = bits << 6 | (uint32_t)(found - digits);
        if ((held += 6) < 8) continue;
        held -= 8;
        v->charsmap[v->charsmap_size++] = (uint8_t)(bits >> held);
    }
}
static void vocab_read_unigram(vocab *v, const json *root, const json *model) {
    const json *normalizer = json_get(root, "normalizer"), *unknown = json_get(model, "unk_id");
    int64_t id = 0, unk = -1;
    v->model = "t5";
    vocab_check_steps(v, normalizer, "normalizer", "Precompiled Replace Strip Prepend");
    vocab_decode_base64(v, json_get(vocab_part(normalizer, "Precompiled"), "precompiled_charsmap"));
    v->space_prefix = vocab_space_prefix(root);
    v->trims = vocab_part(normalizer, "Strip") || json_get(json_get(vocab_part(normalizer, "Replace"), "pattern"), "Regex");
    json_int(unknown, &unk);
    for (const json *t = json_first(json_get(model, "vocab")); t; t = t->next, id++) {
        double score;
        const json *text = json_at(t, 0);
        if (json_count(t) != 2 || !json_text(text) || !json_double(json_at(t, 1), &score))
            cli_fail("%s: element %" PRId64 " of the vocabulary is not [\"piece\", score]", v->path, id);
        bool byte = json_true(json_get(model, "byte_fallback")) && vocab_is_byte(text->as.text);
        vocab_set(v, id, text->as.text, (float)score, id == unk ? VOCAB_UNKNOWN : byte ? VOCAB_BYTE : VOCAB_NORMAL);
    }
    v->special[VOCAB_UNK] = unk;
}
/* Tokens that are cut out of text before anything else: special ones are control tokens. */
static void vocab_read_added(vocab *v, const json *added) {
    for (const json *t = json_first(added); t; t = t->next) {
        const json *content = json_get(t, "content");
        int64_t id;
        if (!json_int(json_get(t, "id"), &id) || !json_text(content))
            cli_fail("%s: an added token without \"id\" or \"content\"", v->path);
        bool special = json_true(json_get(t, "special")), plain = strcmp(v->model, "gpt2") == 0;
        tfm_string text = content->as.text;
        if (!special && !plain) text = vocab_replaced(text, VOCAB_SPACE, " ");
        int32_t type = special ? VOCAB_CONTROL : VOCAB_USER;
        if (special && id < v->count && v->tokens[id].data && v->types[id] == VOCAB_UNKNOWN) type = VOCAB_UNKNOWN;
        vocab_reserve(v, id + 1);
        v->tokens[id] = text;
        v->types[id] = type;
        if (v->scores) v->scores[id] = 0;
    }
}
/* What is put around one text: the first and the last special token of the template. */
static void vocab_read_template(vocab *v, const json *processor) {
    const json *single = json_get(vocab_part(processor, "TemplateProcessing"), "single");
    const json *pair = vocab_part(processor, "BertProcessing");
    bool wordpiece = strcmp(v->model, "bert") == 0;
    const char *first = json_text(json_at(json_get(pair, "cls"), 0)), *last = json_text(json_at(json_get(pair, "sep"), 0));
    if (json_count(single)) {
        first = json_text(json_get(json_get(json_at(single, 0), "SpecialToken"), "id"));
        last = json_text(json_get(json_get(json_at(single, json_count(single) - 1), "SpecialToken"), "id"));
        if (json_count(single) > 3) cli_fail("%s: the post_processor adds several tokens in a row", v->path);
    }
    v->adds_bos = first != NULL;
    v->adds_eos = last != NULL && json_count(single) != 1;
    if (first) v->special[wordpiece ? VOCAB_CLS : VOCAB_BOS] = vocab_find(v, first);
    if (v->adds_eos) v->special[wordpiece ? VOCAB_SEP : VOCAB_EOS] = vocab_find(v, last);
}
static void vocab_read_json(vocab *v, const json *root) {
    const json *model = json_get(root, "model"), *type = json_get(model, "type");
    const char *name = json_text(type);
    if (!name) name = json_get(model, "merges") ? "BPE" : "without a type";
    if (strcmp(name, "BPE") == 0) vocab_read_bpe(v, root, model);
    else if (strcmp(name, "WordPiece") == 0) vocab_read_wordpiece(v, root, model);
    else if (strcmp(name, "Unigram") == 0) vocab_read_unigram(v, root, model);
    else cli_fail("%s: a tokenizer model %s is not supported", v->path, name);
    const char *unknown = json_text(json_get(model, "unk_token"));
    if (unknown) {
        v->special[VOCAB_UNK] = vocab_find(v, unknown);
        if (v->special[VOCAB_UNK] >= 0) v->types[v->special[VOCAB_UNK]] = VOCAB_UNKNOWN;
    }
    vocab_read_added(v, json_get(root, "added_tokens"));
    vocab_read_template(v, json_get(root, "post_processor"));
}

/* ---- tokenizer.model: SentencePiece's ModelProto, of which a few fields matter ---- */

typedef struct vocab_proto { const uint8_t *at, *end; bool bad; } vocab_proto;
typedef struct vocab_field { uint64_t number, value; vocab_proto bytes; } vocab_field;

static uint64_t vocab_varint(vocab_proto *p) {
    uint64_t v = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        if (p->at == p->end) break;
        v |= (uint64_t)(*p->at & 127) << shift;
        if (*p->at++ < 128) return v;
    }
    p->bad = true;
    return 0;
}
/* The next field; false at the end, or with p->bad. Fixed-size values are in `bytes` too. */
static bool vocab_next(vocab_proto *p, vocab_field *f) {
    if (p->bad || p->at == p->end) return false;
    uint64_t key = vocab_varint(p), size = 0;
    f->number = key >> 3;
    f->value = 0;
    switch (key & 7) {
        case 0: f->value = vocab_varint(p); break;
        case 1: size = 8; break;
        case 2: size = vocab_varint(p); break;
        case 5: size = 4; break;
        default: p->bad = true;
    }
    if (p->bad || size > (uint64_t)(p->end - p->at)) { p->bad = true; return false; }
    f->bytes.at = p->at;
    f->bytes.end = p->at += size;
    f->bytes.bad = false;
    return true;
}
static void vocab_read_piece(vocab *v, vocab_proto p) {
    tfm_string text = { "", 0 };
    float score = 0;
    int32_t type = VOCAB_NORMAL;
    for (vocab_field f; vocab_next(&p, &f);) {
        size_t size = (size_t)(f.bytes.end - f.bytes.at);
        if (f.number == 1) text = vocab_copy((const char *)f.bytes.at, size, "", 0);
        if (f.number == 2 && size == 4) memcpy(&score, f.bytes.at, 4);
        if (f.number == 3) type = (int32_t)f.value;
    }
    if (p.bad || type < VOCAB_NORMAL || type > VOCAB_BYTE)
        cli_fail("%s: piece %" PRId64 " cannot be read", v->path, v->count);
    vocab_set(v, v->count, text, score, type);
}
static void vocab_read_spm(vocab *v, const uint8_t *data, size_t size) {
    vocab_proto p = { data, data + size, false };
    uint64_t kind = 1;
    v->space_prefix = v->trims = 1;
    v->special[VOCAB_UNK] = 0;
    v->special[VOCAB_BOS] = 1;
    v->special[VOCAB_EOS] = 2;
    for (vocab_field f; vocab_next(&p, &f);) {
        if (f.number == 1) vocab_read_piece(v, f.bytes);
        for (vocab_field t; f.number == 2 && vocab_next(&f.bytes, &t);) {
            if (t.number == 3) kind = t.value;
            if (t.number == 40) v->special[VOCAB_UNK] = (int32_t)t.value;
            if (t.number == 41) v->special[VOCAB_BOS] = (int32_t)t.value;
            if (t.number == 42) v->special[VOCAB_EOS] = (int32_t)t.value;
            if (t.number == 43) v->special[VOCAB_PAD] = (int32_t)t.value;
        }
        for (vocab_field t; f.number == 3 && vocab_next(&f.bytes, &t);) {
            if (t.number == 2) {
                v->charsmap_size = (size_t)(t.bytes.end - t.bytes.at);
                v->charsmap = cli_alloc(v->charsmap_size, 1);
                memcpy(v->charsmap, t.bytes.at, v->charsmap_size);
            }
            if (t.number == 3) v->space_prefix = t.value != 0;
            if (t.number == 4) v->trims = t.value != 0;
        }
        p.bad = p.bad || f.bytes.bad;
    }
    if (p.bad || v->count == 0) cli_fail("%s: neither JSON nor a SentencePiece model that can be read", v->path);
    if (kind > 2) cli_fail("%s: a SentencePiece model of kind %" PRIu64 ", neither unigram (1) nor BPE (2)", v->path, kind);
    v->model = kind == 1 ? "t5" : "llama";
    if (kind == 2 && v->charsmap_size) cli_fail("%s: SentencePiece BPE with a normalization of its own is not supported", v->path);
}

/* ---- llama2.c's tokenizer.bin: for each token its score, the length and bytes of its text ---- */

static void vocab_read_llama2(vocab *v, const uint8_t *data, size_t size) {
    size_t at = 4;
    v->model = "llama";
    v->space_prefix = v->adds_bos = 1;
    v->adds_eos = 0;
    while (at < size) {
        float score;
        int32_t length = -1;
        if (size - at >= 8) memcpy(&score, data + at, 4), memcpy(&length, data + at + 4, 4);
        if (length < 0 || (size_t)length > size - at - 8)
            cli_fail("%s: token %" PRId64 " is cut off, or this is no tokenizer of llama2.c", v->path, v->count);
        tfm_string text = { (const char *)data + at + 8, (size_t)length };
        int32_t type = v->count == 0 ? VOCAB_UNKNOWN : v->count < 3 ? VOCAB_CONTROL : vocab_is_byte(text) ? VOCAB_BYTE : VOCAB_NORMAL;
        if (type == VOCAB_CONTROL) text = v->count == 1 ? vocab_copy("<s>", 3, "", 0) : vocab_copy("</s>", 4, "", 0);
        vocab_set(v, v->count, vocab_replaced(text, " ", VOCAB_SPACE), score, type);
        at += 8 + (size_t)length;
    }
    v->special[VOCAB_UNK] = 0;
    v->special[VOCAB_BOS] = 1;
    v->special[VOCAB_EOS] = 2;
}

/* ---- What the folder says besides ---- */

/* A token as "text" or {"content": "text"}. */
static const char *vocab_token_text(const json *v) { return json_text(v) ? json_text(v) : json_text(json_get(v, "content")); }

static void vocab_read_specials(vocab *v, const char *dir, const json *settings, const json *config) {
    const json *map = convert_json_in(dir, "special_tokens_map.json");
    for (int i = 0; i < VOCAB_SPECIALS; i++) {
        const char *text = vocab_token_text(json_get(settings, vocab_specials[i].text));
        const json *id = json_get(config, vocab_specials[i].id);
        if (!text) text = vocab_token_text(json_get(map, vocab_specials[i].text));
        int64_t found = text ? vocab_find(v, text) : -1;
        if (found < 0 && v->special[i] < 0) json_int(json_count(id) ? json_at(id, 0) : id, &found);
        if (found >= 0 && found < v->count) v->special[i] = found;
    }
    const json *bos = json_get(settings, "add_bos_token"), *eos = json_get(settings, "add_eos_token");
    if (bos && bos->kind == JSON_BOOL) v->adds_bos = bos->truth;
    if (eos && eos->kind == JSON_BOOL) v->adds_eos = eos->truth;
}
/* The template of conversations: a file of its own, or in tokenizer_config.json, perhaps one of several. */
static void vocab_write_chat(gguf_writer *w, const char *dir, const json *settings) {
    char *path = convert_path(dir, "chat_template.jinja"), *text = NULL;
    const json *given = json_get(settings, "chat_template"), *first = json_first(given);
    size_t size;
    if (convert_exists(path)) text = cli_read(path, &size);
    for (const json *t = first; t; t = t->next)
        if (t == first || json_is(json_get(t, "name"), "default")) given = json_get(t, "template");
    if (text || json_text(given)) gguf_meta_string(w, "tokenizer.chat_template", text ? text : json_text(given));
    free(text);
    free(path);
}
static void vocab_write_flag(gguf_writer *w, const char *key, int flag) { if (flag >= 0) gguf_meta_bool(w, key, flag); }

/* rows: of the embedding; ids without a token are filled up to there. */
static void vocab_write(vocab *v, gguf_writer *w, int64_t rows) {
    size_t n = (size_t)(rows > v->count ? rows : v->count);
    if (v->count > rows) cli_fail("%s: %" PRId64 " tokens, the model has %" PRId64 " (vocab_size)", v->path, v->count, rows);
    float *scores = v->scores;
    vocab_reserve(v, rows);
    for (int64_t id = 0; id < rows; id++) {
        char text[32];
        if (v->tokens[id].data) continue;
        snprintf(text, sizeof text, "[PAD%" PRId64 "]", id);
        v->tokens[id] = vocab_copy(text, strlen(text), "", 0);
        v->types[id] = VOCAB_UNUSED;
        if (scores) v->scores[id] = -1000;
    }
    gguf_meta_string(w, "tokenizer.ggml.model", v->model);
    gguf_meta_string(w, "tokenizer.ggml.pre", v->pre);
    gguf_meta_strings(w, "tokenizer.ggml.tokens", v->tokens, n);
    if (scores && strcmp(v->model, "bert") != 0) gguf_meta_array(w, "tokenizer.ggml.scores", TFM_VALUE_F32, v->scores, n);
    gguf_meta_array(w, "tokenizer.ggml.token_type", TFM_VALUE_I32, v->types, n);
    if (v->merge_count) gguf_meta_strings(w, "tokenizer.ggml.merges", v->merges, v->merge_count);
    for (int i = 0; i < VOCAB_SPECIALS; i++)
        if (v->special[i] >= 0 && v->special[i] < v->count) gguf_meta_u32(w, vocab_specials[i].gguf, (uint32_t)v->special[i]);
    vocab_write_flag(w, "tokenizer.ggml.add_bos_token", v->adds_bos);
    vocab_write_flag(w, strcmp(v->model, "bert") == 0 ? "tokenizer.ggml.add_sep_token" : "tokenizer.ggml.add_eos_token", v->adds_eos);
    vocab_write_flag(w, "tokenizer.ggml.add_space_prefix", v->space_prefix);
    if (strcmp(v->model, "t5") == 0) {
        vocab_write_flag(w, "tokenizer.ggml.remove_extra_whitespaces", v->trims);
        gguf_meta_array(w, "tokenizer.ggml.precompiled_charsmap", TFM_VALUE_U8, v->charsmap, v->charsmap_size);
    }
    vocab_write_flag(w, "tokenizer.ggml.normalizer.lowercase", v->lower);
    vocab_write_flag(w, "tokenizer.ggml.normalizer.strip_accents", v->strip);
}
/* Reads a file of any of the three kinds. */
static void vocab_read(vocab *v, const char *path) {
    size_t size;
    char *data = cli_read(path, &size);
    vocab_begin(v, path);
    size_t space = strspn(data, " \t\r\n");
    int32_t longest = 0;
    if (size >= 4) memcpy(&longest, data, 4);
    if (data[space] == '{') {
        free(data);
        vocab_read_json(v, convert_json(path));
    } else if (longest > 0 && longest < 65536) vocab_read_llama2(v, (const uint8_t *)data, size);
    else vocab_read_spm(v, (const uint8_t *)data, size);
}
/* The tokenizer that --tokenizer names, or that of the folder; none is fine: the model runs by ids. */
static void convert_vocab(convert_job *job, const char *dir, const json *config, int64_t rows) {
    static const char *const files[] = { "tokenizer.json", "tokenizer.model" };
    static vocab v;
    const char *path = job->tokenizer;
    for (size_t i = 0; i < 2 && !path; i++) {
        char *candidate = convert_path(dir, files[i]);
        if (convert_exists(candidate)) path = candidate;
        else free(candidate);
    }
    if (!path) return;
    vocab_read(&v, path);
    const json *settings = convert_json_in(dir, "tokenizer_config.json");
    vocab_read_specials(&v, dir, settings, config);
    vocab_write(&v, &job->out, rows);
    vocab_write_chat(&job->out, dir, settings);
}

#endif
