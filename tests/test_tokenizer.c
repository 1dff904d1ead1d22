/* Tokenizers: ids of the reference engine, every rule on small vocabularies built here, hostile
   files, bytes and characters. */
#include "test.h"
#include "tfm.h"
#include "tools/gguf_write.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NORMAL = 1, UNKNOWN, CONTROL, USER, UNUSED, BYTE };

/* ---- Small vocabularies ---- */

typedef struct vocab {
    const char *model, *pre;            /* pre NULL: no such key */
    tfm_string tokens[600];
    int32_t types[600];
    float scores[600];
    int count;
    tfm_string merges[64];
    int merge_count;
    int bos, eos, unknown, eot;         /* -1: no such key */
    int add_bos, add_eos, prefix, lower, strip, merge;   /* -1: no such key */
    const uint8_t *charsmap;            /* of charsmap_size bytes; NULL: no such key */
    size_t charsmap_size;
    char text[4096];                    /* what tokens made here point into */
    size_t used;
} vocab;

static void vocab_begin(vocab *v, const char *model, const char *pre) {
    memset(v, 0, sizeof *v);
    v->model = model;
    v->pre = pre;
    v->bos = v->eos = v->unknown = v->eot = v->add_bos = v->add_eos = v->prefix = v->lower = v->strip = -1;
    v->merge = -1;
}
static int vocab_bytes(vocab *v, const char *text, size_t size, int type, float score) {
    v->tokens[v->count] = (tfm_string){ text, size };
    v->types[v->count] = type;
    v->scores[v->count] = score;
    return v->count++;
}
static int vocab_add(vocab *v, const char *text, int type, float score) {
    return vocab_bytes(v, text, strlen(text), type, score);
}
static void vocab_merge(vocab *v, const char *merge) {
    v->merges[v->merge_count++] = (tfm_string){ merge, strlen(merge) };
}

/* The 256 bytes in GPT-2's alphabet; byte b gets id b. */
static void vocab_alphabet(vocab *v) {
    for (int b = 0, others = 0; b < 256; b++) {
        bool plain = (b > 0x20 && b < 0x7f) || (b > 0xa0 && b != 0xad);
        int c = plain ? b : 256 + others++;
        char *s = v->text + v->used;
        int n = c < 0x80 ? sprintf(s, "%c", c) : sprintf(s, "%c%c", 0xc0 | c >> 6, 0x80 | (c & 0x3f));
        vocab_bytes(v, s, (size_t)n, NORMAL, 0);
        v->used += (size_t)n + 1;
    }
}
static void vocab_byte_tokens(vocab *v) {
    for (int b = 0; b < 256; b++) {
        char *s = v->text + v->used;
        v->used += (size_t)sprintf(s, "<0x%02X>", (unsigned)b) + 1;
        vocab_add(v, s, BYTE, 0);
    }
}

/* A loaded vocabulary; free with loaded_free. */
typedef struct loaded { uint8_t *bytes; tfm_file *file; tfm_tokenizer *t; tfm_context *c; tfm_error err; } loaded;

static uint8_t *vocab_file(const vocab *v, size_t *size) {
    gguf_writer w;
    gguf_begin_memory(&w);
    gguf_meta_string(&w, "general.architecture", "llama");
    if (v->model) gguf_meta_string(&w, "tokenizer.ggml.model", v->model);
    if (v->pre) gguf_meta_string(&w, "tokenizer.ggml.pre", v->pre);
    gguf_meta_strings(&w, "tokenizer.ggml.tokens", v->tokens, (size_t)v->count);
    gguf_meta_array(&w, "tokenizer.ggml.token_type", TFM_VALUE_I32, v->types, (size_t)v->count);
    gguf_meta_array(&w, "tokenizer.ggml.scores", TFM_VALUE_F32, v->scores, (size_t)v->count);
    gguf_meta_strings(&w, "tokenizer.ggml.merges", v->merges, (size_t)v->merge_count);
    if (v->bos != -1) gguf_meta_u32(&w, "tokenizer.ggml.bos_token_id", (uint32_t)v->bos);
    if (v->eos != -1) gguf_meta_u32(&w, "tokenizer.ggml.eos_token_id", (uint32_t)v->eos);
    if (v->unknown != -1) gguf_meta_u32(&w, "tokenizer.ggml.unknown_token_id", (uint32_t)v->unknown);
    if (v->eot != -1) gguf_meta_u32(&w, "tokenizer.ggml.eot_token_id", (uint32_t)v->eot);
    if (v->add_bos != -1) gguf_meta_bool(&w, "tokenizer.ggml.add_bos_token", v->add_bos);
    if (v->add_eos != -1) gguf_meta_bool(&w, "tokenizer.ggml.add_eos_token", v->add_eos);
    if (v->prefix != -1) gguf_meta_bool(&w, "tokenizer.ggml.add_space_prefix", v->prefix);
    if (v->lower != -1) gguf_meta_bool(&w, "tokenizer.ggml.normalizer.lowercase", v->lower);
    if (v->strip != -1) gguf_meta_bool(&w, "tokenizer.ggml.normalizer.strip_accents", v->strip);
    if (v->merge != -1) gguf_meta_bool(&w, "tokenizer.ggml.remove_extra_whitespaces", v->merge);
    if (v->charsmap)
        gguf_meta_array(&w, "tokenizer.ggml.precompiled_charsmap", TFM_VALUE_U8, v->charsmap, v->charsmap_size);
    CHECK(gguf_finish(&w));
    *size = w.bytes.size;
    return w.bytes.data;
}
static void loaded_file(loaded *l, uint8_t *bytes, size_t size) {
    memset(l, 0, sizeof *l);
    l->bytes = bytes;
    l->c = tfm_context_new(NULL, NULL);
    l->file = tfm_file_from_memory(bytes, size, NULL, &l->err);
    if (CHECK(l->file != NULL)) l->t = tfm_tokenizer_new(l->file, NULL, &l->err);
}
static void load(loaded *l, const vocab *v) {
    size_t size;
    uint8_t *bytes = vocab_file(v, &size);
    loaded_file(l, bytes, size);
}
static void loaded_free(loaded *l) {
    tfm_tokenizer_free(l->t);
    tfm_file_free(l->file);
    tfm_context_free(l->c);
    free(l->bytes);
}
static bool load_ok(loaded *l, const vocab *v) {
    load(l, v);
    if (!l->t) printf("  %s\n", l->err.message);
    return CHECK(l->t != NULL);
}

/* The ids of text as "1 2 3", from a block of exactly its size. */
static const char *ids_of(loaded *l, const char *text, size_t size, const tfm_tokenize_opts *o) {
    static char out[4096];
    int32_t ids[500];
    char *exact = (char *)malloc(size ? size : 1);
    if (size) memcpy(exact, text, size);
    int64_t n = tfm_tokenize(l->c, l->t, exact, size, o, ids, 500);
    free(exact);
    size_t at = 0;
    out[0] = 0;
    if (n < 0) { snprintf(out, sizeof out, "%s", tfm_message(l->c)); tfm_clear(l->c); }
    for (int64_t i = 0; i < n; i++) at += (size_t)snprintf(out + at, sizeof out - at, i ? " %d" : "%d", ids[i]);
    return out;
}
static const char *ids(loaded *l, const char *text) { return ids_of(l, text, strlen(text), NULL); }
static const char *ids_special(loaded *l, const char *text, bool add, bool parse) {
    tfm_tokenize_opts o = { .add_special = add, .parse_special = parse };
    return ids_of(l, text, strlen(text), &o);
}

/* ---- The reference's ids ---- */

static bool reference_case(loaded *l, const tfm_string *text, const int32_t *want, int64_t n) {
    int32_t *got = (int32_t *)malloc((text->size + 16) * sizeof *got);
    char *exact = (char *)malloc(text->size + 1);
    memcpy(exact, text->data, text->size);
    int64_t k = tfm_tokenize(l->c, l->t, exact, text->size, NULL, got, (int64_t)text->size + 16);
    bool same = k == n && (n == 0 || memcmp(got, want, (size_t)n * sizeof *got) == 0);
    free(got);
    free(exact);
    return same;
}
static void reference_ids(const char *path) {
    loaded l;
    tfm_value texts, counts, id_array, v;
    size_t size, bad = 0, all = 0;
    uint8_t *bytes = test_read(path, &size);
    if (!bytes) return;
    loaded_file(&l, bytes, size);
    if (CHECK(l.t && tfm_file_meta(l.file, "test.texts", &texts) && tfm_file_meta(l.file, "test.counts", &counts) &&
              tfm_file_meta(l.file, "test.ids", &id_array))) {
        while (tfm_value_next(&texts, &v)) {
            tfm_string text;
            int64_t n = 0, id = 0;
            int32_t want[1000];
            tfm_value_string(&v, &text);
            tfm_value_next(&counts, &v);
            tfm_value_i64(&v, &n);
            if (!CHECK(n <= 1000)) break;
            for (int64_t i = 0; i < n; i++) {
                tfm_value_next(&id_array, &v);
                tfm_value_i64(&v, &id);
                want[i] = (int32_t)id;
            }
            all++;
            if (!reference_case(&l, &text, want, n) && bad++ < 3)
                printf("  %s: '%.*s'\n", path, (int)text.size, text.data);
        }
    }
    CHECK_EQ(bad, 0);
    CHECK(all > 100);
    loaded_free(&l);
}
static void reference_gpt2(void) { reference_ids("tests/data/tok-gpt-2.gguf"); }
static void reference_smollm(void) { reference_ids("tests/data/tok-pre-smollm.gguf"); }
static void reference_llama_bpe(void) { reference_ids("tests/data/tok-llama-bpe-16k.gguf"); }
static void reference_qwen2(void) { reference_ids("tests/data/tok-qwen2-16k.gguf"); }
static void reference_llama(void) { reference_ids("tests/data/tok-llama-spm.gguf"); }
static void reference_no_prefix(void) { reference_ids("tests/data/tok-spm-no-prefix.gguf"); }
static void reference_deepseek(void) { reference_ids("tests/data/tok-deepseek-llm.gguf"); }
static void reference_gpt4o(void) { reference_ids("tests/data/tok-pre-gpt-4o.gguf"); }
static void reference_bert(void) { reference_ids("tests/data/tok-bert-bge.gguf"); }
static void reference_unigram(void) { reference_ids("tests/data/tok-unigram-nmt.gguf"); }
static void reference_unigram_bytes(void) { reference_ids("tests/data/tok-unigram-bytes.gguf"); }
static void reference_unigram_raw(void) { reference_ids("tests/data/tok-unigram-raw.gguf"); }
static void reference_phi3(void) { reference_ids("tests/data/tok-phi-3.gguf"); }

/* ---- Rules, one by one ---- */

/* The earliest merge of the list first, the leftmost of equal ones; unknown pairs end it. */
static void merges_by_rank(void) {
    vocab v;
    loaded l;
    vocab_begin(&v, "gpt2", "gpt-2");
    vocab_alphabet(&v);
    int ab = vocab_add(&v, "ab", NORMAL, 0), bc = vocab_add(&v, "bc", NORMAL, 0), abc = vocab_add(&v, "abc", NORMAL, 0);
    int aa = vocab_add(&v, "aa", NORMAL, 0), xy = vocab_add(&v, "xy", NORMAL, 0);
    CHECK_EQ(ab, 256);
    CHECK_EQ(xy, 260);
    vocab_merge(&v, "b c");
    vocab_merge(&v, "a b");
    vocab_merge(&v, "a bc");
    vocab_merge(&v, "a a");
    vocab_merge(&v, "a a");             /* again: the first counts */
    if (load_ok(&l, &v)) {
        CHECK_STR(ids(&l, "abc"), "258");
        CHECK_STR(ids(&l, "abab"), "256 256");
        CHECK_STR(ids(&l, "aaa"), "259 97");
        CHECK_STR(ids(&l, "xy"), "120 121");             /* a token, but no merge makes it */
        CHECK_STR(ids(&l, ""), "");
        CHECK_STR(ids_of(&l, "a\0b", 3, NULL), "97 0 98");
    }
    loaded_free(&l);
    (void)bc; (void)abc; (void)aa;
}

/* A word that is a token goes before merges with llama-bpe alone. */
static void whole_words(void) {
    static const struct { const char *pre, *want; } cases[] = {
        { "gpt-2", "120 121" }, { "smollm", "120 121" }, { "qwen2", "120 121" }, { "llama-bpe", "256" },
        { "llama3", "256" }, { "llama-v3", "256" } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        vocab v;
        loaded l;
        vocab_begin(&v, "gpt2", cases[i].pre);
        vocab_alphabet(&v);
        vocab_add(&v, "xy", NORMAL, 0);
        if (load_ok(&l, &v)) CHECK_STR(ids(&l, "xy"), cases[i].want);
        loaded_free(&l);
    }
}

/* A byte without a token is left out, as the reference does. */
static void missing_bytes(void) {
    vocab v;
    loaded l;
    vocab_begin(&v, "gpt2", "falcon");
    vocab_add(&v, "a", NORMAL, 0);
    vocab_add(&v, "b", NORMAL, 0);
    if (load_ok(&l, &v)) CHECK_STR(ids(&l, "a\x1d" "bc"), "0 1");
    loaded_free(&l);
}

/* Where words end: every pair of neighbours has a merge, so that what stays apart is apart. */
static void words_of(const char *pre, const char *text, const char *want) {
    vocab v;
    loaded l;
    char bare[64], out[256];
    size_t at = 0;
    vocab_begin(&v, "gpt2", pre);
    vocab_alphabet(&v);
    for (int i = 0; text[i] && i < 40; i++) {            /* text[0..i] one by one: prefixes of every word */
        for (int j = i + 1; text[j]; j++) {
            char *s = v.text + v.used;
            size_t n = 0, split = 0;
            for (int k = i; k <= j; k++) {
                if (k == j) split = n;
                tfm_string b = v.tokens[(unsigned char)text[k]];
                memcpy(s + n, b.data, b.size);
                n += b.size;
            }
            if (v.count >= 590 || v.merge_count >= 64 || v.used + 2 * n + 4 > sizeof v.text) continue;
            vocab_bytes(&v, s, n, NORMAL, 0);
            char *m = s + n;
            memcpy(m, s, split);
            m[split] = ' ';
            memcpy(m + split + 1, s + split, n - split);
            v.merges[v.merge_count++] = (tfm_string){ m, n + 1 };
            v.used += 2 * n + 2;
        }
    }
    if (load_ok(&l, &v)) {
        int32_t got[64];
        int64_t n = tfm_tokenize(l.c, l.t, text, strlen(text), NULL, got, 64);
        out[0] = 0;
        for (int64_t i = 0; i < n; i++) {
            size_t k = tfm_token_bytes(l.t, got[i], false, bare, sizeof bare);
            at += (size_t)snprintf(out + at, sizeof out - at, i ? "|%.*s" : "%.*s", (int)k, bare);
        }
        CHECK_STR(out, want);
    }
    loaded_free(&l);
}
static void words(void) {
    words_of("gpt-2", "I'll go", "I|'ll| go");
    words_of("gpt-2", "I'LL 12", "I|'|LL| 12");
    words_of("qwen2", "I'LL 12", "I|'LL| |1|2");
    words_of("smollm", "a 12b", "a| |1|2|b");
    words_of("llama-bpe", "a 1234", "a| |123|4");
    words_of("gpt-2", "a1234", "a|1234");
    words_of("gpt-2", "a   b", "a|  | b");
    words_of("gpt-2", "a   ", "a|   ");
    words_of("smollm", "a   5", "a|   |5");
    words_of("gpt-2", "a\n\n b", "a|\n\n| b");
    words_of("llama-bpe", "a \n b", "a| \n| b");
    words_of("llama-bpe", "(a)!!\n\nx", "(a|)!!\n\n|x");
    words_of("gpt-2", "(a)!!\n\nx", "(|a|)!!|\n|\n|x");
    words_of("llama-bpe", "\tx\n\ty", "\tx|\n|\ty");
    words_of("gpt-2", " \xe2\x82\xac.", " \xe2\x82\xac.");           /* a symbol and punctuation */
    words_of("gpt-2", "x\xc3\xa9y 5", "x\xc3\xa9y| 5");
    words_of("gpt-2", "a\xc2\xa0 b", "a|\xc2\xa0| b");               /* white space of two bytes */
    words_of("gpt-2", "x\xd9\xa3", "x|\xd9\xa3");                    /* an Arabic digit */
    words_of("starcoder", "a 12b", "a| |1|2|b");
    words_of("qwen35", "e\xcc\x81" "a b", "e\xcc\x81" "a| b");        /* a mark inside of a word */
    words_of("qwen2", "e\xcc\x81" "a b", "e|\xcc\x81" "a| b");
    words_of("falcon", "a1234!b", "a|123|4|!|b");
    words_of("falcon", "x `=y", "x| |`=|y");
    words_of("default", "x `=y", "x| `|=|y");
    words_of("default", "a 1234", "a| |123|4");
    words_of("gpt-4o", "abCd'Sx", "ab|Cd'S|x");
    words_of("gpt-4o", "ABcd 1234", "ABcd| |123|4");
    words_of("gpt-4o", "A\xc3\xa9" "BC", "A\xc3\xa9|BC");            /* a letter beyond ASCII is small and capital */
    words_of("gpt-4o", "!\n/\n/a", "!\n/\n/|a");
    words_of("tekken", "ab's 12", "ab|'s| |1|2");
    words_of("deepseek-v3", "a_bc~~ 1234", "a|_bc|~~| |123|4");
    words_of("deepseek-v3", "a\xe3\x81\x82\xe4\xb8\x80" "b", "a|\xe3\x81\x82\xe4\xb8\x80|b");
    words_of("deepseek-v3", "1\x01\x02" "2", "1|\x01\x02|2");        /* matched by nothing: one word */
    words_of("deepseek-coder", "a b\n\n12 ;", "a| b|\n|\n|1|2| ;");
    words_of("deepseek-coder", "\xe4\xb8\x80 x", "\xe4\xb8\x80| x");
    words_of("deepseek-llm", "a b\n12 ;  ", "a| b|\n|12| ;|  ");
    words_of("deepseek-llm", "  a", " | a");
    words_of("seed-coder", "a!!\n\n12", "a|!!|\n\n|1|2");
    words_of("minicpm5", "a  1234", "a|  |123|4");
}

/* The highest score first; leftmost of equal ones; a character without token goes as bytes. */
static void merges_by_score(void) {
    vocab v;
    loaded l;
    vocab_begin(&v, "llama", NULL);
    vocab_add(&v, "<unk>", UNKNOWN, 0);
    vocab_add(&v, "<s>", CONTROL, 0);
    vocab_add(&v, "</s>", CONTROL, 0);
    vocab_byte_tokens(&v);              /* id of byte b: 3 + b */
    vocab_add(&v, "\xe2\x96\x81", NORMAL, -1);           /* 259 */
    vocab_add(&v, "a", NORMAL, -9);     /* 260 */
    vocab_add(&v, "b", NORMAL, -9);     /* 261 */
    vocab_add(&v, "ab", NORMAL, -3);    /* 262 */
    vocab_add(&v, "ba", NORMAL, -2);    /* 263 */
    vocab_add(&v, "aa", NORMAL, -4);    /* 264 */
    vocab_add(&v, "\xe2\x96\x81" "ab", NORMAL, -5);      /* 265 */
    vocab_add(&v, "<x>", USER, 0);      /* 266 */
    if (load_ok(&l, &v)) {
        CHECK_STR(ids(&l, "ab"), "265");
        CHECK_STR(ids(&l, "aba"), "259 260 263");        /* ba scores above ab */
        CHECK_STR(ids(&l, "aaa"), "259 264 260");
        CHECK_STR(ids(&l, ""), "");
        CHECK_STR(ids(&l, "a b"), "259 260 259 261");
        CHECK_STR(ids(&l, "a\xe2\x96\x81" "b"), "259 260 259 261");
        CHECK_STR(ids(&l, "\xc3\xa9"), "259 198 172");
        CHECK_STR(ids(&l, "\xc3"), "259 198");           /* invalid UTF-8 */
        CHECK_STR(ids_of(&l, "\0", 1, NULL), "259 3");
        CHECK_STR(ids(&l, "<s>a"), "259 63 118 65 260");
        CHECK_STR(ids_special(&l, "<s>a", false, true), "1 259 260");
        CHECK_STR(ids(&l, "a<x>a"), "259 260 266 259 260");          /* user-defined: always */
        CHECK_STR(ids_special(&l, "a", true, false), "1 259 260");
        CHECK(tfm_adds_bos(l.t) && !tfm_adds_eos(l.t));
        CHECK(tfm_token_is_end(l.t, 2) && !tfm_token_is_end(l.t, 1));
    }
    loaded_free(&l);
    v.prefix = 0;
    v.add_bos = 0;
    v.add_eos = 1;
    if (load_ok(&l, &v)) {
        CHECK_STR(ids(&l, "ab"), "262");
        CHECK_STR(ids(&l, " ab"), "265");
        CHECK_STR(ids_special(&l, "a", true, false), "260 2");
    }
    loaded_free(&l);
}

static void refused(const vocab *v, tfm_status status, const char *part);
static void unigram_begin(vocab *v) {
    vocab_begin(v, "t5", NULL);
    vocab_add(v, "<pad>", CONTROL, 0);
    vocab_add(v, "</s>", CONTROL, 0);
    vocab_add(v, "<unk>", UNKNOWN, 0);
    vocab_add(v, "\xe2\x96\x81", NORMAL, -2);           /* 3 */
    vocab_add(v, "a", NORMAL, -3);      /* 4 */
    vocab_add(v, "b", NORMAL, -3);      /* 5 */
    vocab_add(v, "ab", NORMAL, -6);     /* 6: no better than a, b, which come later and do not win a tie */
    vocab_add(v, "abb", NORMAL, -7);    /* 7 */
    vocab_add(v, "\xe2\x96\x81" "a", NORMAL, -4);       /* 8 */
    vocab_add(v, "bbb", USER, 0);       /* 9 */
    vocab_add(v, "<0x62>", NORMAL, -5); /* 10: no byte token */
    vocab_add(v, "ba", UNUSED, 0);      /* 11 */
}
/* Of all ways to take text apart the one with the greatest sum of scores. The ids are SentencePiece's. */
static void unigram(void) {
    vocab v;
    loaded l;
    unigram_begin(&v);
    if (load_ok(&l, &v)) {
        CHECK_STR(ids(&l, ""), "");
        CHECK_STR(ids(&l, "ab"), "6");
        CHECK_STR(ids(&l, "abb"), "7");
        CHECK_STR(ids(&l, "aba"), "6 4");
        CHECK_STR(ids(&l, "abbb"), "4 9");
        CHECK_STR(ids(&l, "a  a"), "4 3 8");
        CHECK_STR(ids(&l, "axyb"), "4 2 5");             /* one unknown token for two characters */
        CHECK_STR(ids(&l, "x\xe2\x96\x81" "a"), "2 8");
        CHECK_STR(ids(&l, "\xff\xc3"), "2");
        CHECK_STR(ids(&l, "<0x62></s>"), "10 2");
        CHECK_STR(ids_special(&l, "a</s>bbb", true, true), "4 1 9 1");
        CHECK(!tfm_adds_bos(l.t) && tfm_adds_eos(l.t));
    }
    loaded_free(&l);
    v.prefix = v.merge = 1;
    v.bos = 1;
    v.add_bos = 1;
    if (load_ok(&l, &v)) {
        CHECK_STR(ids(&l, "a"), "8");
        CHECK_STR(ids(&l, "   a  b  "), "8 3 5");
        CHECK_STR(ids(&l, "  "), "");
        CHECK_STR(ids_special(&l, "", true, false), "1 1");
        CHECK_STR(ids(&l, "bbb bbb"), "3 9 3 9");
    }
    loaded_free(&l);
}
/* Every character a token's byte: then nothing is unknown. */
static void unigram_bytes(void) {
    vocab v;
    loaded l;
    vocab_begin(&v, "t5", NULL);
    v.unknown = vocab_add(&v, "<unk>", UNKNOWN, 0);
    vocab_byte_tokens(&v);              /* id of byte b: 1 + b */
    vocab_add(&v, "a", NORMAL, -3);     /* 257 */
    if (load_ok(&l, &v)) {
        CHECK_STR(ids(&l, "a\xc3\xa9 a"), "257 196 170 227 151 130 257");
        CHECK_STR(ids(&l, "<0x41>"), "61 49 121 53 50 63");
    }
    loaded_free(&l);
}
/* A trie of two keys: "A" becomes "ab", "AB" nothing. */
static void put_unit(uint8_t *trie, int at, uint32_t label, uint32_t leaf, uint32_t offset) {
    uint32_t unit = label | leaf << 8 | offset << 10;
    for (int i = 0; i < 4; i++) trie[4 + at * 4 + i] = (uint8_t)(unit >> 8 * i);
}
static void charsmap(void) {
    vocab v;
    loaded l;
    uint8_t map[4 + 4 * 256 + 4] = { 0, 4 };             /* 1024 bytes of units */
    put_unit(map, 0, 0, 0, 1);          /* the root's children are at 1 ^ label */
    put_unit(map, 1 ^ 'A', 'A', 1, 8 ^ 1 ^ 'A');         /* those of A at 8 ^ label: its value at 8 */
    put_unit(map, 8 ^ 'B', 'B', 1, 16 ^ 8 ^ 'B');
    memcpy(map + 4 + 4 * 8, "\0\0\0\x80", 4);           /* the text at 0 */
    memcpy(map + 4 + 4 * 16, "\2\0\0\x80", 4);          /* at 2 */
    memcpy(map + 4 + 1024, "ab\0", 4);
    unigram_begin(&v);
    v.charsmap = map;
    v.charsmap_size = sizeof map;
    if (load_ok(&l, &v)) {
        CHECK_STR(ids(&l, "A"), "6");
        CHECK_STR(ids(&l, "aABbAb"), "6 7");
        CHECK_STR(ids(&l, "AC"), "6 2");
    }
    loaded_free(&l);
    map[4 + 1024 + 3] = 'x';            /* the last text does not end */
    refused(&v, TFM_MALFORMED, "precompiled_charsmap");
    map[4 + 1024 + 3] = 0;
    map[0] = 1;
    refused(&v, TFM_MALFORMED, "precompiled_charsmap");
    map[0] = 0;
    map[3] = 1;
    refused(&v, TFM_MALFORMED, "precompiled_charsmap");
    v.charsmap_size = 3;
    refused(&v, TFM_MALFORMED, "precompiled_charsmap");
    uint8_t large[8 + 300] = { 4 };
    memset(large + 8, 'a', 299);
    v.charsmap = large;
    v.charsmap_size = sizeof large;
    refused(&v, TFM_UNSUPPORTED, "299 bytes");
}
/* Units at random: texts may become anything, but nothing is read outside, and memory suffices. */
static void charsmap_hostile(void) {
    vocab v;
    loaded l;
    uint8_t map[4 + 64 + 16] = { 64 };
    char text[64];
    uint64_t state = 1;
    unigram_begin(&v);
    v.charsmap = map;
    v.charsmap_size = sizeof map;
    for (int round = 0; round < (test_quick ? 100 : 1000); round++) {
        for (size_t i = 4; i < sizeof map - 1; i++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            map[i] = (uint8_t)(state >> 60 ? state >> 58 & 3 : state >> 40);
            text[i % sizeof text] = (char)(state >> 33 & 15);
        }
        load(&l, &v);
        if (CHECK(l.t != NULL)) {
            size_t size = tfm_tokenize_memory(l.t, sizeof text);
            CHECK(tfm_tokenize(l.c, l.t, text, sizeof text, NULL, NULL, 0) >= 0);
            CHECK(size >= 13 * sizeof text && size < 13 * 80 * sizeof text);
        }
        loaded_free(&l);
    }
}

/* WordPiece: cleaned words, each taken apart longest token first, or unknown as a whole. */
static void word_pieces(void) {
    static const char *const tokens[] = { "\xe2\x96\x81hello", "\xe2\x96\x81un", "aff", "able", "\xe2\x96\x81!",
        ("\xe2\x96\x81" "e"), "\xe2\x96\x81\xe4\xb8\xad", "\xe2\x96\x81~", "\xe2\x96\x81\xd0\xb8",
        "\xe2\x96\x81\xe2\x96\x81x", "\xe2\x96\x81\xe2\xb1\xa5", "\xe2\x96\x81\xe1\x84\x80", "\xe2\x96\x81u" };
    vocab v;
    loaded l;
    char out[16];
    vocab_begin(&v, "bert", NULL);
    v.unknown = vocab_add(&v, "[UNK]", CONTROL, 0);
    v.bos = vocab_add(&v, "[CLS]", CONTROL, 0);
    v.eos = vocab_add(&v, "[SEP]", CONTROL, 0);
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) vocab_add(&v, tokens[i], NORMAL, 0);        /* from 3 */
    if (load_ok(&l, &v)) {
        CHECK_STR(ids(&l, ""), "");
        CHECK_STR(ids(&l, " \n"), "");
        CHECK_STR(ids(&l, "Hello"), "3");
        CHECK_STR(ids(&l, "  hello\xe3\x80\x80HELLO\n"), "3 3");
        CHECK_STR(ids(&l, "unaffable UNAFF"), "4 5 6 4 5");        /* un is longer than u */
        CHECK_STR(ids(&l, "unafx unx"), "0 0");
        CHECK_STR(ids(&l, "hello!!hello?"), "3 7 7 3 0");
        CHECK_STR(ids(&l, "h\xc3\x89llo he\xcc\x81llo"), "3 3");         /* precomposed, and with a mark */
        CHECK_STR(ids(&l, "he\xe2\x80\x8bllo he\x01llo \xff\xef\xbf\xbdhello"), "3 3 3");
        CHECK_STR(ids_of(&l, "\0hello", 6, NULL), "3");
        CHECK_STR(ids(&l, "\xe4\xb8\xad\xe4\xb8\xad~e"), "9 9 10 8");
        CHECK_STR(ids(&l, "\xd0\x99"), "11");            /* a capital short I: the bare small letter */
        CHECK_STR(ids(&l, "\xe2\x96\x81x"), "12");
        CHECK_STR(ids(&l, "\xc8\xba"), "13");            /* two bytes become three */
        CHECK_STR(ids(&l, "\xea\xb0\x81"), "14");        /* a Hangul syllable: its first letter */
        CHECK_STR(ids_special(&l, "hello", true, false), "1 3 2");
        CHECK_STR(ids_special(&l, "[SEP]hello", false, true), "2 3");
        CHECK_STR(ids(&l, "[SEP]"), "0 0 0");
        CHECK_EQ(tfm_token_bytes(l.t, 3, false, out, sizeof out), 6);
        CHECK(memcmp(out, " hello", 6) == 0);
        size_t size = test_quick ? 20000 : 1 << 20;
        char *text = (char *)malloc(size);
        for (size_t i = 0; i < size; i++) text[i] = i % 2 ? (char)0xba : (char)0xc8;   /* the copy at its longest */
        CHECK_EQ(tfm_tokenize(l.c, l.t, text, size, NULL, NULL, 0), 1);
        free(text);
    }
    loaded_free(&l);
    v.lower = 0;
    if (load_ok(&l, &v)) CHECK_STR(ids(&l, "hello Hello h\xc3\xa9llo"), "3 0 0");
    loaded_free(&l);
    v.strip = 1;
    if (load_ok(&l, &v)) CHECK_STR(ids(&l, "hello Hello h\xc3\xa9llo"), "3 0 3");
    loaded_free(&l);
}

static void characters(void) {
    vocab v;
    loaded l;
    vocab_begin(&v, "char", NULL);
    vocab_add(&v, "a", NORMAL, 0);
    vocab_add(&v, "\xc3\xa9", NORMAL, 0);
    vocab_add(&v, " ", NORMAL, 0);
    vocab_add(&v, "\n", NORMAL, 0);
    if (load_ok(&l, &v)) {
        CHECK_STR(ids(&l, "a \xc3\xa9\n"), "0 2 1 3");
        CHECK_STR(ids(&l, "a\xe2\x82\xac"), "the vocabulary has no token for '\xe2\x82\xac'");
        CHECK_STR(ids(&l, "\xff"), "the vocabulary has no token for the byte 255");
        CHECK_EQ(tfm_token_bos(l.t), -1);
    }
    loaded_free(&l);
    v.unknown = vocab_add(&v, "<unk>", UNKNOWN, 0);
    if (load_ok(&l, &v)) CHECK_STR(ids(&l, "b\xe2\x82\xac\xff" "a"), "4 4 4 0");
    loaded_free(&l);
}

static void special_tokens(void) {
    vocab v;
    loaded l;
    char out[32];
    vocab_begin(&v, "gpt2", "llama-bpe");
    vocab_alphabet(&v);
    v.bos = vocab_add(&v, "<|begin|>", CONTROL, 0);      /* 256 */
    v.eos = vocab_add(&v, "<|stop|>", CONTROL, 0);       /* 257 */
    vocab_add(&v, "<|begin|>x", CONTROL, 0);             /* 258: longer */
    vocab_add(&v, "<|eot_id|>", NORMAL, 0);              /* 259: control, whatever its type */
    vocab_add(&v, "[u]", USER, 0);                       /* 260 */
    v.eot = vocab_add(&v, "<|turn|>", CONTROL, 0);       /* 261 */
    vocab_add(&v, "\xef\xbd\x9c", CONTROL, 0);           /* 262: not of the byte alphabet */
    if (load_ok(&l, &v)) {
        CHECK_STR(ids_special(&l, "<|begin|>a", false, true), "256 97");
        CHECK_STR(ids_special(&l, "<|begin|>xa", false, true), "258 97");
        CHECK_STR(ids_special(&l, "a<|begin|", false, true), "97 60 124 98 101 103 105 110 124");
        CHECK_STR(ids_special(&l, "[u]<|stop|>", false, true), "260 257");
        CHECK_STR(ids(&l, "[u]<|"), "260 60 124");
        CHECK_STR(ids_special(&l, "a\xef\xbd\x9c", false, true), "97 262");
        CHECK_STR(ids_special(&l, "a", true, true), "256 97");       /* llama-bpe adds BOS by itself */
        CHECK_EQ(tfm_token_is_control(l.t, 259), 1);
        CHECK_EQ(tfm_token_is_control(l.t, 260), 0);
        for (int id = 255; id <= 262; id++)
            CHECK_EQ(tfm_token_is_end(l.t, id), id == 257 || id == 259 || id == 261);
        CHECK_EQ(tfm_token_bytes(l.t, 256, false, out, sizeof out), 0);
        CHECK_EQ(tfm_token_bytes(l.t, 256, true, out, sizeof out), 9);
        CHECK(memcmp(out, "<|begin|>", 9) == 0);
        CHECK_EQ(tfm_token_bytes(l.t, 260, false, out, sizeof out), 3);
        CHECK_EQ(tfm_token_find(l.t, "<|turn|>", 8), 261);
        CHECK_EQ(tfm_token_find(l.t, "\xc4\xa0", 2), 32);            /* as the file spells it */
        CHECK_EQ(tfm_token_find(l.t, " ", 1), -1);
        CHECK_EQ(tfm_token_bos(l.t), 256);
        CHECK_EQ(tfm_token_eos(l.t), 257);
    }
    loaded_free(&l);
}

static void capacity_and_arguments(void) {
    vocab v;
    loaded l;
    int32_t got[4] = { -7, -7, -7, -7 };
    char out[4] = "abc";
    vocab_begin(&v, "gpt2", "gpt-2");
    vocab_alphabet(&v);
    vocab_add(&v, "hello", NORMAL, 0);
    if (load_ok(&l, &v)) {
        CHECK_EQ(tfm_tokenize(l.c, l.t, "xyz", 3, NULL, got, 2), 3);
        CHECK(got[0] == 120 && got[1] == 121 && got[2] == -7);
        CHECK_EQ(tfm_tokenize(l.c, l.t, "xyz", 3, NULL, got, 0), 3);
        CHECK_EQ(tfm_tokenize(l.c, l.t, "xyz", 3, NULL, got, -5), 3);
        CHECK_EQ(tfm_tokenize(l.c, l.t, "xyz", 3, NULL, NULL, 9), 3);
        CHECK_EQ(tfm_tokenize(l.c, l.t, NULL, 0, NULL, got, 4), 0);
        CHECK_EQ(tfm_tokenize(l.c, l.t, NULL, 3, NULL, got, 4), -1);
        CHECK_EQ(tfm_status_of(l.c), TFM_ARGUMENT);
        CHECK_EQ(tfm_tokenize(l.c, l.t, "xyz", 3, NULL, got, 4), -1);        /* the error stays */
        tfm_clear(l.c);
        CHECK_EQ(tfm_tokenize(l.c, NULL, "xyz", 3, NULL, got, 4), -1);
        CHECK_EQ(tfm_tokenize(NULL, l.t, "xyz", 3, NULL, got, 4), -1);
        static const int32_t wrong[] = { -1, 257, INT32_MAX, INT32_MIN };
        for (int i = 0; i < 4; i++) {
            CHECK_EQ(tfm_token_bytes(l.t, wrong[i], true, out, sizeof out), 0);
            CHECK_EQ(tfm_token_text(l.t, wrong[i]).size, 0);
            CHECK(!tfm_token_is_control(l.t, wrong[i]) && !tfm_token_is_end(l.t, wrong[i]));
        }
        CHECK_EQ(tfm_token_bytes(l.t, 256, false, out, 2), 5);
        CHECK(memcmp(out, "hec", 3) == 0);
        CHECK_EQ(tfm_token_bytes(l.t, 256, false, NULL, 9), 5);
        CHECK_EQ(tfm_vocab_size(l.t), 257);
        CHECK_EQ(tfm_vocab_size(NULL), 0);
        CHECK_EQ(tfm_token_find(l.t, "", 0), -1);
    }
    tfm_tokenizer_free(NULL);
    loaded_free(&l);
}

/* One byte less than tfm_tokenizer_size is refused, as is scratch below tfm_tokenize_memory. */
static void memory_given(void) {
    static const char *const models[] = { "gpt2", "llama", "char", "bert" };
    for (int i = 0; i < 4; i++) {
        vocab v;
        loaded l;
        tfm_error err;
        vocab_begin(&v, models[i], "gpt-2");
        if (i == 0) vocab_alphabet(&v);
        else vocab_add(&v, "a", NORMAL, 0);
        vocab_merge(&v, "a a");
        v.unknown = 0;
        if (load_ok(&l, &v)) {
            size_t size = tfm_tokenizer_size(l.file, &err);
            char *mem = (char *)aligned_alloc(TFM_ALIGN, size + TFM_ALIGN);
            CHECK(size > 0 && size % TFM_ALIGN == 0);
            CHECK(tfm_tokenizer_in(l.file, mem, size - 1, &err) == NULL);
            CHECK_EQ(err.status, TFM_MEMORY);
            CHECK(tfm_tokenizer_in(l.file, mem + 1, size, &err) == NULL);
            CHECK_EQ(err.status, TFM_ARGUMENT);
            CHECK(tfm_tokenizer_in(l.file, NULL, size, &err) == NULL);
            CHECK_EQ(err.status, TFM_ARGUMENT);
            tfm_tokenizer *t = tfm_tokenizer_in(l.file, mem, size, &err);
            CHECK(t != NULL);
            char text[100];
            memset(text, 'a', sizeof text);
            tfm_context_opts none = { 0 };
            size_t own = tfm_context_size(&none), need = tfm_tokenize_memory(t, sizeof text);
            char *arena = (char *)aligned_alloc(TFM_ALIGN, own + need + TFM_ALIGN);
            tfm_context *c = tfm_context_in(arena, own + need, &none, &err);
            if (CHECK(c != NULL)) CHECK(tfm_tokenize(c, t, text, sizeof text, NULL, NULL, 0) > 0);
            if (c) CHECK(tfm_tokenize(c, t, text, sizeof text, NULL, NULL, 0) > 0);      /* scratch was given back */
            tfm_context_free(c);
            if (need) {
                c = tfm_context_in(arena, own + need - TFM_ALIGN, &none, &err);
                if (c) CHECK_EQ(tfm_tokenize(c, t, text, sizeof text, NULL, NULL, 0), -1);
                tfm_context_free(c);
            }
            tfm_tokenizer_free(t);
            free(arena);
            free(mem);
        }
        loaded_free(&l);
    }
    CHECK(tfm_tokenizer_new(NULL, NULL, NULL) == NULL);
    CHECK_EQ(tfm_tokenizer_size(NULL, NULL), 0);
    CHECK_EQ(tfm_tokenize_memory(NULL, 5), SIZE_MAX);
}

/* Random bytes come back as they were. */
static void round_trips(void) {
    static const char *const pres[] = { "gpt-2", "smollm", "llama-bpe", "qwen2", "qwen35", "gpt-4o", "tekken", "falcon",
                                        "default", "deepseek-v3", "deepseek-coder", "deepseek-llm", NULL };
    uint64_t state = 7;
    for (size_t p = 0; p < sizeof pres / sizeof *pres; p++) {
        vocab v;
        loaded l;
        vocab_begin(&v, pres[p] ? "gpt2" : "llama", pres[p]);
        if (pres[p]) vocab_alphabet(&v);
        else vocab_byte_tokens(&v);
        vocab_add(&v, "\xe2\x96\x81", NORMAL, 0);
        vocab_add(&v, "ab", NORMAL, 0);
        vocab_add(&v, "\xc3\xa9", NORMAL, 0);
        vocab_merge(&v, "a b");
        v.prefix = 0;
        if (load_ok(&l, &v))
            for (int i = 0; i < (test_quick ? 50 : 500); i++) {
                char text[64], out[256];
                int32_t got[256];
                size_t size = test_random(&state) % sizeof text, at = 0;
                for (size_t k = 0; k < size; k++) {
                    uint64_t r = test_random(&state);
                    text[k] = (char)(r & 1 ? "ab \n'1\xc3\xa9.\xe2\x82"[(r >> 8) % 11] : (char)(r >> 8));
                    if (!pres[p] && (unsigned char)text[k] == 0xe2) text[k] = 'x';   /* U+2581 is a space there */
                }
                int64_t n = tfm_tokenize(l.c, l.t, text, size, NULL, got, 256);
                for (int64_t k = 0; k < n; k++) at += tfm_token_bytes(l.t, got[k], false, out + at, sizeof out - at);
                if (!CHECK(n >= 0 && at == size && memcmp(out, text, size) == 0)) break;
            }
        loaded_free(&l);
    }
}

/* A megabyte without any place to split, merged all the way. */
static void long_words(void) {
    size_t size = test_quick ? 20000 : 1 << 20;
    char *text = (char *)malloc(size);
    for (int i = 0; i < 4; i++) {
        vocab v;
        loaded l;
        char run[65];
        memset(run, i & 1 ? ' ' : 'a', 64);
        run[64] = 0;
        vocab_begin(&v, i < 2 ? "gpt2" : "llama", "gpt-2");
        if (i < 2) vocab_alphabet(&v);
        else vocab_byte_tokens(&v);
        for (int k = 1; k <= 64; k *= 2) {               /* a, aa, aaaa ... each of two halves */
            char *s = v.text + v.used;
            size_t n = 0;
            const char *unit = i & 1 ? (i == 1 ? "\xc4\xa0" : "\xe2\x96\x81") : "a";
            for (int j = 0; j < k; j++, n += strlen(unit)) memcpy(s + n, unit, strlen(unit));
            vocab_bytes(&v, s, n, NORMAL, (float)-k);
            char *m = s + n;
            memcpy(m, s, n / 2);
            m[n / 2] = ' ';
            memcpy(m + n / 2 + 1, s + n / 2, n - n / 2);
            if (k > 1) v.merges[v.merge_count++] = (tfm_string){ m, n + 1 };
            v.used += 2 * n + 2;
        }
        v.prefix = 0;
        memset(text, i & 1 ? ' ' : 'a', size);
        if (load_ok(&l, &v)) CHECK_EQ(tfm_tokenize(l.c, l.t, text, size, NULL, NULL, 0), (size + 63) / 64);
        loaded_free(&l);
    }
    free(text);
}

/* ---- Hostile files ---- */

static void refused(const vocab *v, tfm_status status, const char *part) {
    loaded l;
    load(&l, v);
    CHECK(l.t == NULL);
    CHECK_EQ(l.err.status, status);
    CHECK_CONTAINS(l.err.message, part);
    if (l.file) CHECK_EQ(tfm_tokenizer_size(l.file, NULL), 0);
    loaded_free(&l);
}
/* A pre-tokenizer that is not known: text is refused by name, all else works. */
static void unsplittable(const vocab *v, const char *part) {
    loaded l;
    int32_t ids[4];
    char byte;
    load(&l, v);
    if (!CHECK(l.t != NULL)) return;
    tfm_context *c = tfm_context_new(NULL, NULL);
    CHECK_EQ(tfm_tokenize(c, l.t, "", 0, NULL, ids, 4), 0);
    CHECK_EQ(tfm_token_bytes(l.t, 0, false, &byte, 1), 1);
    CHECK_EQ(byte, 'a');
    CHECK_EQ(tfm_tokenize(c, l.t, "a", 1, NULL, ids, 4), -1);
    CHECK_EQ(tfm_status_of(c), TFM_UNSUPPORTED);
    CHECK_CONTAINS(tfm_message(c), part);
    tfm_context_free(c);
    loaded_free(&l);
}
static void refused_models(void) {
    vocab v;
    vocab_begin(&v, NULL, NULL);
    vocab_add(&v, "a", NORMAL, 0);
    refused(&v, TFM_UNSUPPORTED, "no tokenizer");
    v.model = "rwkv";
    refused(&v, TFM_UNSUPPORTED, "'rwkv'");
    v.model = "gpt2";
    unsplittable(&v, "tokenizer.ggml.pre is missing");
    v.pre = "unheard-of";
    unsplittable(&v, "'unheard-of'");
    v.pre = "llama-bpe llama3";         /* a list, as the table has them, is no name */
    unsplittable(&v, "'llama-bpe llama3'");
    v.pre = "llama";
    unsplittable(&v, "'llama'");
    v.pre = "gpt-2";
    v.count = 0;
    refused(&v, TFM_MALFORMED, "tokenizer.ggml.tokens");
}

/* Arrays of each element type, and too short or long by one. */
static void array_types(void) {
    static const char *const keys[] = { "tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.ggml.scores",
                                        "tokenizer.ggml.merges" };
    static const tfm_value_type right[] = { TFM_VALUE_STRING, TFM_VALUE_I32, TFM_VALUE_F32, TFM_VALUE_STRING };
    static const tfm_string strings[] = { { "a", 1 }, { "b", 1 }, { "a b", 3 }, { "", 0 } };
    static const uint8_t zeros[64] = { 0 };
    for (int key = 0; key < 4; key++)
        for (int type = 0; type < TFM_VALUE_TYPES; type++)
            for (size_t count = 2; count <= 4; count++) {
                if (type == TFM_VALUE_ARRAY) continue;
                gguf_writer w;
                loaded l;
                gguf_begin_memory(&w);
                gguf_meta_string(&w, "tokenizer.ggml.model", "gpt2");
                gguf_meta_string(&w, "tokenizer.ggml.pre", "gpt-2");
                for (int k = 0; k < 4; k++) {
                    tfm_value_type element = k == key ? (tfm_value_type)type : right[k];
                    size_t n = k == key ? count : 3;
                    if (element == TFM_VALUE_STRING) gguf_meta_strings(&w, keys[k], strings, n);
                    else gguf_meta_array(&w, keys[k], element, zeros, n);
                }
                if (!CHECK(gguf_finish(&w))) return;
                loaded_file(&l, w.bytes.data, w.bytes.size);
                bool ok = (tfm_value_type)type == right[key] && (count == 3 || key == 3);
                CHECK_EQ(l.t != NULL, ok);
                if (!ok) {
                    CHECK_EQ(l.err.status, (tfm_value_type)type == right[key] ? TFM_MISMATCH : TFM_MALFORMED);
                    CHECK_CONTAINS(l.err.message, "tokenizer.ggml.");
                }
                loaded_free(&l);
            }
}

/* Loaded, every call on every id must be defined. */
static void use_all(loaded *l) {
    char out[64];
    for (int32_t id = -2; id < (int32_t)tfm_vocab_size(l->t) + 2; id++) {
        tfm_string s = tfm_token_text(l->t, id);
        tfm_token_bytes(l->t, id, true, out, sizeof out);
        tfm_token_bytes(l->t, id, false, out, 0);
        tfm_token_find(l->t, s.data, s.size);
        tfm_token_is_end(l->t, id);
    }
    ids_special(l, "<0x41> ab <s>\xff\xe2\x96\x81 aab", true, true);
}
static void hostile_tokens(void) {
    static const char *const strange[] = {
        "", "<0x-1>", "<0x100>", "<0xZZ>", "<0x", "<0x41", "<0x4>", "<0x>", "<0x41>x", "<0x41>", "a", "a", "<s>", "<s>",
        "\xff", "\xe2", "\xe2\x96", " ", "\xc4\xa0", "\xc4", "\xc5\x83" };
    static const char *const merges[] = { "", " ", "a", "a ", " a", "a  a", "a zzz", "zzz a", "a a", "\xc4\xa0 a",
                                          "\xff \xff" };
    static const char *const models[] = { "gpt2", "llama", "char", "bert" };
    for (int m = 0; m < 4; m++)
        for (int type = -1; type < 8; type++) {
            vocab v;
            loaded l;
            vocab_begin(&v, models[m], "llama-bpe");
            for (size_t i = 0; i < sizeof strange / sizeof *strange; i++) vocab_add(&v, strange[i], type, 0);
            for (size_t i = 0; i < sizeof merges / sizeof *merges; i++) vocab_merge(&v, merges[i]);
            if (load_ok(&l, &v)) {
                use_all(&l);
                CHECK_EQ(tfm_token_find(l.t, "a", 1), 10);           /* the first of equal ones */
            }
            loaded_free(&l);
        }
}
static void hostile_ids(void) {
    static const int wrong[] = { -2, 256, 257, INT32_MAX, INT32_MIN };
    for (int i = 0; i < 5; i++) {
        vocab v;
        loaded l;
        vocab_begin(&v, "gpt2", "llama-bpe");
        vocab_alphabet(&v);
        v.bos = v.eos = v.unknown = v.eot = wrong[i];
        v.add_eos = 1;
        if (load_ok(&l, &v)) {
            CHECK_EQ(tfm_token_bos(l.t), -1);
            CHECK_EQ(tfm_token_eos(l.t), -1);
            CHECK(!tfm_adds_bos(l.t) && !tfm_adds_eos(l.t));
            CHECK_STR(ids_special(&l, "a", true, true), "97");
            use_all(&l);
        }
        loaded_free(&l);
    }
}
static void hostile_scores(void) {
    vocab v;
    loaded l;
    float odd[] = { 0.0f, -0.0f, 1e38f, -1e38f, 0, 0, 0 };
    uint32_t bits[] = { 0x7fc00000u, 0xffffffffu, 0x7f800000u, 0xff800000u };
    memcpy(odd + 3, bits, sizeof bits);
    vocab_begin(&v, "llama", NULL);
    vocab_byte_tokens(&v);
    static const char *const pairs[] = { "ab", "bc", "cd", "abc", "bcd", "abcd", "aab" };
    for (int i = 0; i < 7; i++) vocab_add(&v, pairs[i], NORMAL, odd[i]);
    v.prefix = 0;
    if (load_ok(&l, &v)) {
        CHECK_STR(ids(&l, "bcd"), "260");                /* cd first, then the pair that scores NaN */
        CHECK_STR(ids(&l, "abcd"), "261");               /* cd, ab, and what scores infinity last of all */
        CHECK_STR(ids(&l, "abc"), "259");                /* both zeros are one: ab is leftmost */
        use_all(&l);
    }
    loaded_free(&l);
}

/* Special tokens of a long text without end: bounded work at each byte. */
static void many_specials(void) {
    size_t size = test_quick ? 20000 : 300000;
    char *text = (char *)malloc(size), *huge = (char *)malloc(5000);
    vocab v;
    loaded l;
    memset(text, '<', size);
    memset(huge, '<', 5000);
    vocab_begin(&v, "gpt2", "gpt-2");
    vocab_alphabet(&v);
    vocab_bytes(&v, huge, 5000, CONTROL, 0);             /* too long to be looked for */
    huge[200] = 0;
    for (int k = 2; k < 200; k++) vocab_add(&v, huge + 200 - k, k % 2 ? CONTROL : USER, 0);
    if (load_ok(&l, &v)) {
        tfm_tokenize_opts o = { .parse_special = true };
        CHECK_EQ(tfm_tokenize(l.c, l.t, text, size, &o, NULL, 0), (size + 198) / 199);
    }
    loaded_free(&l);
    free(text);
    free(huge);
}

/* ---- Bytes to characters ---- */

static void feed(const char *text, size_t size, bool replace, const char *want, size_t want_size) {
    for (size_t step = 1; step <= 5; step++) {
        tfm_utf8 u = { { 0 }, 0 };
        char out[512];
        size_t n = 0;
        for (size_t i = 0; i < size; i += step) {
            size_t k = size - i < step ? size - i : step;
            char *piece = (char *)malloc(3 * k + 12);
            size_t got = tfm_utf8_feed(&u, text + i, k, replace, false, piece);
            CHECK(got <= (replace ? 3 * k + 12 : k + 4));
            memcpy(out + n, piece, got);
            n += got;
            free(piece);
        }
        n += tfm_utf8_feed(&u, NULL, 0, replace, true, out + n);
        CHECK_EQ(u.count, 0);
        CHECK_EQ(n, want_size);
        CHECK(n == want_size && memcmp(out, want, n) == 0);
    }
}
static void utf8_feeding(void) {
#define FFFD "\xef\xbf\xbd"
    static const struct { const char *text, *want; } cases[] = {
        { "abc", "abc" }, { "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80" },
        { "\xff", FFFD }, { "a\xc3", "a" FFFD }, { "\xe2\x82", FFFD }, { "\xe2\x82" "a", FFFD "a" },
        { "\xf0\x9f\x98" "b", FFFD "b" }, { "\xf0\x9f\x98\xc3\xa9", FFFD "\xc3\xa9" },
        { "\xc0\x80", FFFD FFFD }, { "\xed\xa0\x80", FFFD FFFD FFFD }, { "\xf4\x90\x80\x80", FFFD FFFD FFFD FFFD },
        { "\xe0\x80\xaf", FFFD FFFD FFFD }, { "\x80\x80", FFFD FFFD }, { "", "" } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        feed(cases[i].text, strlen(cases[i].text), true, cases[i].want, strlen(cases[i].want));
        feed(cases[i].text, strlen(cases[i].text), false, cases[i].text, strlen(cases[i].text));
    }
    uint64_t state = 3;
    for (int i = 0; i < (test_quick ? 20 : 500); i++) {              /* without replacing, bytes pass */
        char text[100];
        size_t size = test_random(&state) % sizeof text;
        for (size_t k = 0; k < size; k++) text[k] = (char)(0x70 + (test_random(&state) >> 20) % 0x90);
        feed(text, size, false, text, size);
    }
    tfm_utf8 u = { { 0 }, 0 };
    char out[8];
    CHECK_EQ(tfm_utf8_feed(&u, "\xe2\x82", 2, true, false, out), 0);         /* only whole characters come */
    CHECK_EQ(tfm_utf8_feed(&u, "\xac", 1, true, false, out), 3);
}

const test_case tests_tokenizer[] = {
    { "reference_gpt2", reference_gpt2, QUICK },
    { "reference_smollm", reference_smollm, SLOW },
    { "reference_llama_bpe", reference_llama_bpe, SLOW },
    { "reference_qwen2", reference_qwen2, SLOW },
    { "reference_llama", reference_llama, QUICK },
    { "reference_no_prefix", reference_no_prefix, SLOW },
    { "reference_phi3", reference_phi3, SLOW },
    { "reference_unigram", reference_unigram, SLOW },
    { "reference_unigram_bytes", reference_unigram_bytes, SLOW },
    { "reference_unigram_raw", reference_unigram_raw, QUICK },
    { "reference_deepseek", reference_deepseek, SLOW },
    { "reference_gpt4o", reference_gpt4o, SLOW },
    { "reference_bert", reference_bert, QUICK },
    { "merges_by_rank", merges_by_rank, QUICK },
    { "whole_words", whole_words, QUICK },
    { "words", words, QUICK },
    { "missing_bytes", missing_bytes, QUICK },
    { "merges_by_score", merges_by_score, QUICK },
    { "unigram", unigram, QUICK },
    { "unigram_bytes", unigram_bytes, QUICK },
    { "charsmap", charsmap, QUICK },
    { "charsmap_hostile", charsmap_hostile, QUICK },
    { "word_pieces", word_pieces, QUICK },
    { "characters", characters, QUICK },
    { "special_tokens", special_tokens, QUICK },
    { "capacity_and_arguments", capacity_and_arguments, QUICK },
    { "memory_given", memory_given, QUICK },
    { "round_trips", round_trips, QUICK },
    { "long_words", long_words, QUICK },
    { "refused_models", refused_models, QUICK },
    { "array_types", array_types, QUICK },
    { "hostile_tokens", hostile_tokens, QUICK },
    { "hostile_ids", hostile_ids, QUICK },
    { "hostile_scores", hostile_scores, QUICK },
    { "many_specials", many_specials, QUICK },
    { "utf8_feeding", utf8_feeding, QUICK },
    { NULL, NULL, SLOW } };
