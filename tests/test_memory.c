/* Memory: every allocation refused in turn, buffers of exactly the size that was announced, and
   nothing allocated once an object stands. */
#include "models.h"

/* ---- Refused allocations ---- */

typedef struct heap { int64_t calls, live, refuse; bool from_then_on, refused; } heap;

static void *heap_alloc(void *user, size_t size) {
    heap *h = (heap *)user;
    h->calls++;
    if (h->calls == h->refuse || (h->from_then_on && h->calls > h->refuse)) {
        h->refused = true;
        return NULL;
    }
    void *p = malloc(size);
    if (p) {
        memset(p, 0xa5, size);          /* nothing may rely on zeroed memory */
        h->live++;
    }
    return p;
}
static void heap_free(void *user, void *p) {
    heap *h = (heap *)user;
    if (p) h->live--;
    free(p);
}
static const unsigned char *file_bytes;         /* what the scenarios read */
static size_t file_size;
static const char *const model_path = "tests/data/tiny-llama.gguf";

/* Makes, uses and frees something with this allocator. True if all of it worked; else what went
   wrong is in *err. */
typedef bool (*scenario)(const tfm_allocator *a, tfm_error *err);

static void take_error(const tfm_context *c, tfm_error *err) {
    err->status = tfm_status_of(c);
    snprintf(err->message, sizeof err->message, "%s", tfm_message(c));
}
static bool use_context(const tfm_allocator *a, tfm_error *err) {
    tfm_context_opts o = { .arena = 64, .threads = 2, .allocator = a };
    tfm_context *c = tfm_context_new(&o, err);
    if (!c) return false;
    static float data[40 * 40];
    tfm_tensor x = tfm_wrap(c, data, tfm_shape2(40, 40)), turned = tfm_transpose(c, x, 0, 1);
    tfm_rnn_weights w = { tfm_slice(c, x, 0, 0, 20), tfm_none(), tfm_none(), tfm_none() };
    w.w_hh = tfm_slice(c, w.w_ih, 1, 0, 5);
    tfm_mark mark = tfm_arena_mark(c);
    for (int i = 0; i < 2; i++) {
        tfm_tensor y = tfm_dense(c, turned, x, tfm_none()), h = tfm_none(), cell = tfm_none(), ids = tfm_none();
        y = tfm_add(c, tfm_softmax(c, y, 0), tfm_layernorm(c, turned, tfm_none(), tfm_none(), 1e-5f));
        y = tfm_attention(c, y, turned, x, NULL);
        tfm_lstm(c, y, &w, NULL, &h, &cell);
        tfm_topk(c, tfm_max(c, y, 0), 3, &ids);
        tfm_tensor filter = tfm_reshape(c, tfm_slice(c, x, 0, 0, 1), tfm_shape4(1, 1, 5, 8));
        tfm_conv2d(c, tfm_reshape(c, turned, tfm_shape3(1, 40, 40)), filter, tfm_none(), NULL);
        tfm_rope(c, tfm_reshape(c, turned, tfm_shape3(40, 2, 20)), 3, NULL);
        tfm_arena_rewind(c, mark);
    }
    take_error(c, err);
    tfm_context_free(c);
    return err->status == TFM_OK;
}
static bool use_file(const tfm_allocator *a, tfm_error *err) {
    tfm_file *f = tfm_file_from_memory(file_bytes, file_size, a, err);
    tfm_tensor_info info;
    bool good = f && CHECK(tfm_file_tensor(f, "token_embd.weight", &info));
    tfm_file_free(f);
    return good;
}
static bool use_path(const tfm_allocator *a, tfm_error *err) {
    tfm_file *f = tfm_file_open(model_path, a, err);
    tfm_file_free(f);
    return f != NULL;
}
static bool use_tokenizer(const tfm_allocator *a, tfm_error *err) {
    tfm_file *f = tfm_file_from_memory(file_bytes, file_size, NULL, err);
    tfm_tokenizer *t = f ? tfm_tokenizer_new(f, a, err) : NULL;
    if (t) CHECK_EQ(tfm_vocab_size(t), 96);
    tfm_tokenizer_free(t);
    tfm_file_free(f);
    return t != NULL;
}
static bool use_model(const tfm_allocator *a, tfm_error *err) {
    tfm_model_opts o = { .allocator = a };
    tfm_model *m = tfm_model_from_memory(file_bytes, file_size, &o, err);
    tfm_model_free(m);
    return m != NULL;
}
static bool use_model_path(const tfm_allocator *a, tfm_error *err) {
    tfm_model_opts o = { .allocator = a };
    tfm_model *m = tfm_model_open(model_path, &o, err);
    tfm_model_free(m);
    return m != NULL;
}
static bool use_session(const tfm_allocator *a, tfm_error *err) {
    tfm_model *m = tfm_model_from_memory(file_bytes, file_size, NULL, err);
    tfm_session_opts o = { .context = 100, .batch = 8, .threads = 2, .allocator = a };
    tfm_session *s = m ? tfm_session_new(m, &o, err) : NULL;
    bool good = s != NULL;
    if (s) {                            /* a prompt longer than prompt_bytes may take more memory */
        static const char prompt[] = "Some words to begin with";
        tfm_generate_opts g = { .max_tokens = 4, .sampling = { .temperature = 1, .top_p = 0.9f, .seed = 3 } };
        good = tfm_generate(s, prompt, &g, NULL, NULL) == TFM_FINISH_LENGTH;
        int32_t ids[2000];
        static char text[2000];
        memset(text, 'a', sizeof text);
        tfm_context *c = tfm_session_context(s);
        good = good && tfm_tokenize(c, tfm_model_tokenizer(m), text, sizeof text, NULL, ids, 2000) == 2000;
        take_error(c, err);
    }
    tfm_session_free(s);
    tfm_model_free(m);
    return good;
}
/* The n-th allocation fails, alone or with all that follow, for every n that there is. */
static void refuse_each(scenario run, bool needs_some) {
    for (int from_then_on = 0; from_then_on < 2; from_then_on++) {
        int64_t n = 1;
        for (;; n++) {
            heap h = { 0, 0, n, from_then_on != 0, false };
            tfm_allocator a = { &h, heap_alloc, heap_free };
            tfm_error err = { TFM_OK, "" };
            bool good = run(&a, &err);
            bool fine = CHECK_EQ(h.live, 0);
            if (!h.refused) {
                fine &= CHECK(good) && CHECK_STR(err.message, "");
                break;
            }
            fine &= CHECK(!good) && CHECK_EQ(err.status, TFM_MEMORY) && CHECK_CONTAINS(err.message, "memory");
            if (!fine) printf("    at allocation %d\n", (int)n);
            if (!fine || !CHECK(n < 1000)) break;
        }
        CHECK(n > 1 || !needs_some);
    }
}
static void with_bytes(const char *path, scenario run) {
    file_bytes = test_read(path, &file_size);
    if (file_bytes) refuse_each(run, true);
    free((void *)(uintptr_t)file_bytes);
}
static void refused_to_contexts(void) { refuse_each(use_context, true); }
static void refused_to_files(void) {
    refuse_each(use_path, true);
    with_bytes("tests/data/tiny-gpt2.gguf", use_file);
}
static void refused_to_tokenizers(void) { with_bytes(model_path, use_tokenizer); }
static void refused_to_models(void) {
    refuse_each(use_model_path, true);
    with_bytes("tests/data/tiny-gpt2.gguf", use_model);
}
static void refused_to_sessions(void) { with_bytes(model_path, use_session); }

/* ---- Exactly as many bytes as announced ---- */

/* A buffer of `size` bytes, aligned, between two guards. */
typedef struct guarded { unsigned char *block, *mem; size_t size; } guarded;
enum { GUARD = 256 };

static guarded guard(size_t size) {
    guarded g;
    g.size = size;
    g.block = (unsigned char *)malloc(size + 2 * GUARD + TFM_ALIGN);
    if (!g.block) abort();
    g.mem = g.block + GUARD + (TFM_ALIGN - ((uintptr_t)g.block + GUARD) % TFM_ALIGN) % TFM_ALIGN;
    memset(g.block, 0xc3, size + 2 * GUARD + TFM_ALIGN);
    return g;
}
static void unguard(guarded *g) {
    bool whole = true;
    for (size_t i = 0; i < GUARD; i++)
        whole = whole && g->mem[g->size + i] == 0xc3 && g->mem[-1 - (ptrdiff_t)i] == 0xc3;
    CHECK(whole);
    free(g->block);
}
static void refused(const void *object, const tfm_error *err, tfm_status status) {
    CHECK(object == NULL);
    CHECK_EQ(err->status, status);
    CHECK(err->message[0] != 0);
}
static void exact_contexts(void) {
    for (int threads = 1; threads < 4; threads += 2) {
        heap h = { 0, 0, -1, false, false };
        tfm_allocator a = { &h, heap_alloc, heap_free };
        tfm_context_opts o = { .threads = threads, .allocator = &a };
        tfm_error err;
        size_t size = tfm_context_size(&o), arena = 100 * 100 * 4;
        CHECK(size > 0);
        guarded g = guard(size + arena);
        refused(tfm_context_in(g.mem, size - 1, &o, &err), &err, TFM_MEMORY);
        refused(tfm_context_in(g.mem + 8, size + arena - 8, &o, &err), &err, TFM_ARGUMENT);
        refused(tfm_context_in(NULL, size, &o, &err), &err, TFM_ARGUMENT);
        tfm_context *c = tfm_context_in(g.mem, size + arena, &o, &err);
        if (CHECK(c != NULL)) {
            tfm_tensor t = tfm_zeros(c, tfm_shape2(100, 100));
            CHECK(t.data != NULL);
            CHECK_STR(tfm_message(c), "");
            CHECK_EQ(tfm_zeros(c, tfm_shape1(1)).rank, 0);
            CHECK_EQ(tfm_status_of(c), TFM_MEMORY);
            tfm_context_free(c);
        }
        CHECK_EQ(h.calls, 0);
        c = tfm_context_in(g.mem, size, &o, &err);      /* no arena at all is a context too */
        CHECK(c != NULL);
        tfm_context_free(c);
        unguard(&g);
    }
}
static void exact_files(const char *path) {
    size_t size;
    unsigned char *bytes = test_read(path, &size);
    tfm_error err;
    size_t need = bytes ? tfm_file_size(bytes, size, &err) : 0;
    if (CHECK(need > 0)) {
        guarded g = guard(need);
        refused(tfm_file_in(bytes, size, g.mem, need - 1, &err), &err, TFM_MEMORY);
        refused(tfm_file_in(bytes, size, g.mem + 1, need, &err), &err, TFM_ARGUMENT);
        refused(tfm_file_in(bytes, size, NULL, need, &err), &err, TFM_ARGUMENT);
        tfm_file *f = tfm_file_in(bytes, size, g.mem, need, &err);
        if (CHECK(f != NULL)) {
            tfm_tensor_info info;
            CHECK(tfm_file_tensor_at(f, tfm_file_tensor_count(f) - 1, &info));
        }
        tfm_file_free(f);
        unguard(&g);
    }
    CHECK_EQ(tfm_file_size("GGUF", 4, &err), 0);
    CHECK(err.status != TFM_OK);
    free(bytes);
}
static void exact_files_of_all(void) {
    exact_files("tests/data/ops.gguf");
    exact_files("tests/data/tiny-gpt2.gguf");
}
static void exact_tokenizers(void) {
    tfm_error err;
    tfm_file *f = tfm_file_open(model_path, NULL, &err);
    size_t need = f ? tfm_tokenizer_size(f, &err) : 0;
    if (CHECK(need > 0)) {
        guarded g = guard(need);
        refused(tfm_tokenizer_in(f, g.mem, need - 1, &err), &err, TFM_MEMORY);
        tfm_tokenizer *t = tfm_tokenizer_in(f, g.mem, need, &err);
        CHECK(t != NULL);
        CHECK_EQ(tfm_token_find(t, "a", 1), 'a' - 31);
        tfm_tokenizer_free(t);
        unguard(&g);
    }
    tfm_file_free(f);
}
/* Model and session in exact buffers, used to the full: text up to prompt_bytes, every position,
   sampling with everything on. Nothing may be asked of any allocator. */
static void exact_model(const char *path, tfm_session_opts o) {
    size_t size;
    tfm_error err;
    heap h = { 0, 0, -1, false, false };
    tfm_allocator a = { &h, heap_alloc, heap_free };
    unsigned char *bytes = test_read(path, &size);
    size_t need = bytes ? tfm_model_size(bytes, size, &err) : 0;
    if (!CHECK(need > 0)) { free(bytes); return; }
    guarded g = guard(need);
    refused(tfm_model_in(bytes, size, g.mem, need - 1, &err), &err, TFM_MEMORY);
    refused(tfm_model_in(bytes, size, g.mem + 4, need, &err), &err, TFM_ARGUMENT);
    tfm_model *m = tfm_model_in(bytes, size, g.mem, need, &err);
    CHECK_STR(err.message, "");
    o.allocator = &a;
    need = m ? tfm_session_size(m, &o, NULL, &err) : 0;
    if (CHECK(need > 0)) {
        guarded k = guard(need);
        refused(tfm_session_in(m, &o, k.mem, need - 1, &err), &err, TFM_MEMORY);
        refused(tfm_session_in(m, &o, k.mem + 16, need, &err), &err, TFM_ARGUMENT);
        refused(tfm_session_in(m, &o, NULL, need, &err), &err, TFM_ARGUMENT);
        tfm_session *s = tfm_session_in(m, &o, k.mem, need, &err);
        if (CHECK(s != NULL)) {
            char prompt[200];
            int length = o.prompt_bytes < o.context ? o.prompt_bytes : o.context;
            tfm_sampling all = { .temperature = 1, .top_p = 0.95f, .min_p = 0.01f, .repeat_penalty = 1.1f };
            tfm_generate_opts w = { .sampling = all };
            memset(prompt, 'e', sizeof prompt);
            prompt[length < 199 ? length : 199] = 0;
            if (o.all_logits) prompt[o.batch] = 0;
            CHECK_EQ(tfm_generate(s, prompt, &w, NULL, NULL), TFM_FINISH_FULL);
            CHECK_STR(tfm_message(tfm_session_context(s)), "");
            CHECK_EQ(tfm_position(s), tfm_session_capacity(s));
            CHECK_EQ(tfm_rewind(s, 0), TFM_OK);
            prompt[2] = 0;
            w.max_tokens = 3;
            CHECK_EQ(tfm_generate(s, prompt, &w, NULL, NULL), TFM_FINISH_LENGTH);
            CHECK_STR(tfm_message(tfm_session_context(s)), "");
            tfm_session_free(s);
        }
        unguard(&k);
    }
    CHECK_EQ(h.calls, 0);
    tfm_model_free(m);
    unguard(&g);
    free(bytes);
}
static void exact_models(void) {
    static const tfm_session_opts rows[] = {
        { .context = 120, .batch = 16, .threads = 1, .prompt_bytes = 100 },
        { .context = 64, .batch = 64, .threads = 3, .prompt_bytes = 60, .cache = TFM_F16 },
        { .context = 100, .batch = 1, .threads = 1, .prompt_bytes = 90 },
        { .context = 50, .batch = 20, .threads = 2, .prompt_bytes = 1000, .all_logits = true },
        { .context = 9, .batch = 9, .threads = 1, .prompt_bytes = 1 } };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        exact_model("tests/data/tiny-gpt2.gguf", rows[i]);
        exact_model("tests/data/tiny-llama.gguf", rows[i]);
    }
}
/* Sessions of quantized and unaligned models need scratch for activations: the size covers it. */
static void exact_quantized_sessions(void) {
    static const tfm_type types[] = { TFM_F16, TFM_Q8_0, TFM_Q4_K };
    for (int i = 0; i < 3; i++) {
        recipe r = { .layers = 1, .width = 256, .ff = 256, .heads = 4, .kv_heads = 2, .vocab = 96, .context = 64 };
        size_t size;
        tfm_error err;
        r.type = types[i];
        r.characters = true;
        uint8_t *bytes = make_model(&r, &size);
        uint8_t *odd = (uint8_t *)malloc(size + 1);     /* a file at an odd address */
        if (!bytes || !odd) return;
        memcpy(odd + 1, bytes, size);
        for (int at = 0; at < 2; at++) {
            tfm_model *m = tfm_model_from_memory(at ? odd + 1 : bytes, size, NULL, &err);
            tfm_session_opts o = { .context = 40, .batch = 9, .threads = 1 };
            size_t need = m ? tfm_session_size(m, &o, NULL, &err) : 0;
            CHECK_STR(err.message, "");
            if (CHECK(need > 0)) {
                guarded g = guard(need);
                tfm_session *s = tfm_session_in(m, &o, g.mem, need, &err);
                int32_t ids[40] = { 1, 2, 3 };
                CHECK_EQ(tfm_eval(s, ids, 40), TFM_OK);
                CHECK_STR(tfm_message(tfm_session_context(s)), "");
                tfm_session_free(s);
                unguard(&g);
            }
            tfm_model_free(m);
        }
        free(odd);
        free(bytes);
    }
}
/* A heap session, once made, asks for nothing while its prompts fit prompt_bytes. */
static void nothing_is_allocated_later(void) {
    heap h = { 0, 0, -1, false, false };
    tfm_allocator a = { &h, heap_alloc, heap_free };
    tfm_error err;
    tfm_model_opts mo = { .allocator = &a };
    tfm_model *m = tfm_model_open(model_path, &mo, &err);
    tfm_session_opts o = { .context = 80, .batch = 4, .threads = 2, .allocator = &a };
    tfm_session *s = m ? tfm_session_new(m, &o, &err) : NULL;
    CHECK_STR(err.message, "");
    int64_t calls = h.calls;
    CHECK(calls > 0);
    if (CHECK(s != NULL)) {
        tfm_generate_opts g = { .sampling = { .temperature = 0.8f, .seed = 1 } };
        for (int i = 0; i < 3; i++) {
            CHECK_EQ(tfm_generate(s, "It was the best of times", &g, NULL, NULL), TFM_FINISH_FULL);
            CHECK_EQ(tfm_rewind(s, 0), TFM_OK);
        }
    }
    CHECK_EQ(h.calls, calls);
    tfm_session_free(s);
    tfm_model_free(m);
    CHECK_EQ(h.live, 0);
}
/* The largest block given back serves again, whatever was taken in between; the context frees it. */
static void rewound_blocks_serve_again(void) {
    heap h = { 0, 0, -1, false, false };
    tfm_allocator a = { &h, heap_alloc, heap_free };
    tfm_context_opts o = { .arena = 64, .allocator = &a };
    tfm_error err;
    tfm_context *c = tfm_context_new(&o, &err);
    if (!CHECK(c != NULL)) return;
    tfm_mark mark = tfm_arena_mark(c);
    int64_t calls = 0;
    for (int64_t i = 0; i < 6; i++) {
        tfm_tensor small = tfm_zeros(c, tfm_shape1(100)), large = tfm_zeros(c, tfm_shape1(i < 3 ? 10000 : 9000));
        CHECK(small.data && large.data);
        CHECK_EQ(tfm_status_of(c), TFM_OK);
        tfm_arena_rewind(c, mark);
        if (i == 1) calls = h.calls;
        CHECK_EQ(h.live, 2);                    /* the context and the block */
    }
    CHECK_EQ(h.calls, calls);
    tfm_context_free(c);
    CHECK_EQ(h.live, 0);
}

const test_case tests_memory[] = {
    { "rewound_blocks_serve_again", rewound_blocks_serve_again, QUICK },
    { "refused_to_contexts", refused_to_contexts, QUICK },
    { "refused_to_files", refused_to_files, QUICK },
    { "refused_to_tokenizers", refused_to_tokenizers, QUICK },
    { "refused_to_models", refused_to_models, QUICK },
    { "refused_to_sessions", refused_to_sessions, QUICK },
    { "exact_contexts", exact_contexts, QUICK },
    { "exact_files", exact_files_of_all, QUICK },
    { "exact_tokenizers", exact_tokenizers, QUICK },
    { "exact_models", exact_models, QUICK },
    { "exact_quantized_sessions", exact_quantized_sessions, QUICK },
    { "nothing_is_allocated_later", nothing_is_allocated_later, QUICK },
    { NULL, NULL, SLOW }
};
