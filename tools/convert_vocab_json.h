/* convert_vocab_json.h - reads tokenizer.json: BPE on bytes, SentencePiece's BPE, WordPiece, unigram. */
#ifndef CONVERT_VOCAB_JSON_H
#define CONVERT_VOCAB_JSON_H

#include "tools/convert_vocab.h"

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
    { "deepseek-coder", NULL, "Split([\\r\\n]) Split(\\s?\\p{L}+) Split(\\s?\\p{P}+) Split(" VOCAB_CJK ") "
      "Digits(each) ByteLevel" },
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
        bool joined = json_is(json_get(step, "behavior"), "Contiguous");
        snprintf(text, sizeof text, "Punctuation(%s)", joined ? "contiguous" : "another behavior");
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
    const json *list = json_get(part, "normalizers"), *step = list ? json_first(list) : part;
    for (; step && step->kind == JSON_OBJECT; step = list ? step->next : NULL) {
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
            cli_fail("%s: the tokens \"%s\" and \"%s\" both have the id %" PRId64, v->path, v->tokens[id].data,
                     t->key.data, id);
        vocab_set(v, id, t->key, 0, VOCAB_NORMAL);
    }
}
/* Merges "a b", which a newer form writes as ["a", "b"]. */
static void vocab_read_merges(vocab *v, const json *merges) {
    v->merge_count = json_count(merges);
    v->merges = convert_keep(v->merge_count * sizeof *v->merges);
    size_t n = 0;
    for (const json *m = json_first(merges); m; m = m->next, n++) {
        const json *a = json_at(m, 0), *b = json_at(m, 1);
        if (json_text(m)) v->merges[n] = m->as.text;
        else if (json_count(m) == 2 && json_text(a) && json_text(b)) {
            tfm_string left = vocab_copy(a->as.text.data, a->as.text.size, " ", 1);
            v->merges[n] = vocab_copy(left.data, left.size, b->as.text.data, b->as.text.size);
        } else cli_fail("%s: merge %zu is neither \"a b\" nor [\"a\", \"b\"]", v->path, n);
    }
}

static const vocab *vocab_sorted;       /* what qsort's comparison looks at */
static int vocab_by_text(const void *a, const void *b) {
    return json__compare(vocab_sorted->tokens[*(const int32_t *)a], vocab_sorted->tokens[*(const int32_t *)b]);
}
static int64_t vocab_search(const vocab *v, const int32_t *sorted, int64_t n, tfm_string text) {
    int64_t low = 0, high = n;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (json__compare(v->tokens[sorted[middle]], text) < 0) low = middle + 1;
        else high = middle;
    }
    return low < n && json__compare(v->tokens[sorted[low]], text) == 0 ? sorted[low] : -1;
}
/* SentencePiece merges the pair whose union has the best score; a list of merges says the same by the
   place of the first merge that makes a token. */
static void vocab_score_merges(vocab *v) {
    int32_t *sorted = convert_keep((size_t)v->count * sizeof *sorted);
    int64_t n = 0;
    size_t longest = 0;
    for (size_t m = 0; m < v->merge_count; m++)
        if (v->merges[m].size > longest) longest = v->merges[m].size;
    char *text = convert_keep(longest + 1);
    for (int64_t id = 0; id < v->count; id++)
        if (v->tokens[id].data) sorted[n++] = (int32_t)id;
    vocab_sorted = v;
    qsort(sorted, (size_t)n, sizeof *sorted, vocab_by_text);
    for (int64_t id = 0; id < v->count; id++) v->scores[id] = v->types[id] == VOCAB_BYTE ? 0 : -(float)v->merge_count;
    for (size_t m = v->merge_count; m-- > 0;) {
        const char *space = memchr(v->merges[m].data, ' ', v->merges[m].size);
        if (!space) cli_fail("%s: merge %zu has no space", v->path, m);
        size_t left = (size_t)(space - v->merges[m].data);
        tfm_string whole = { text, v->merges[m].size - 1 };
        memcpy(text, v->merges[m].data, left);
        memcpy(text + left, space + 1, whole.size - left + 1);         /* with the NUL behind it */
        int64_t id = vocab_search(v, sorted, n, whole);
        if (id < 0) cli_fail("%s: merge %zu gives \"%s\", which is no token", v->path, m, text);
        v->scores[id] = -(float)m;
    }
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
        return;
    }
    if (!json_true(json_get(model, "byte_fallback")))
        cli_fail("%s: a BPE model that is neither of bytes (ByteLevel) nor of SentencePiece (byte_fallback) is not "
                 "supported", v->path);
    v->model = "llama";
    v->scored = true;
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
    v->charsmap = convert_keep(text->as.text.size);
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
    v->scored = true;
    vocab_check_steps(v, normalizer, "normalizer", "Precompiled Replace Strip Prepend");
    vocab_decode_base64(v, json_get(vocab_part(normalizer, "Precompiled"), "precompiled_charsmap"));
    v->space_prefix = vocab_space_prefix(root);
    v->trims = vocab_part(normalizer, "Strip") ||
               json_get(json_get(vocab_part(normalizer, "Replace"), "pattern"), "Regex");
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
        v->scores[id] = 0;
    }
}
/* What is put around one text: the first and the last special token of the template. */
static void vocab_read_template(vocab *v, const json *processor) {
    const json *single = json_get(vocab_part(processor, "TemplateProcessing"), "single");
    const json *pair = vocab_part(processor, "BertProcessing");
    bool wordpiece = strcmp(v->model, "bert") == 0;
    const char *first = json_text(json_at(json_get(pair, "cls"), 0));
    const char *last = json_text(json_at(json_get(pair, "sep"), 0));
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

#endif
