/* Sessions: saved states, the common prefix, several sequences in one batch. */
#include "models.h"

static const recipe small = { .layers = 2, .width = 64, .ff = 96, .heads = 4, .kv_heads = 2, .vocab = 90,
                              .context = 200, .window = 40, .characters = true };

static void some_ids(int32_t *ids, int64_t n, int vocab, uint64_t seed) {
    for (int64_t i = 0; i < n; i++) ids[i] = (int32_t)((test_random(&seed) >> 33) % (uint64_t)vocab);
}
static tfm_session *session(const tfm_model *m, tfm_session_opts o) {
    tfm_error err;
    if (!o.threads) o.threads = 1;
    tfm_session *s = tfm_session_new(m, &o, &err);
    CHECK_STR(err.message, "");
    return s;
}
static const char *message(tfm_session *s) { return tfm_message(tfm_session_context(s)); }

/* A state in malloc'd memory of exactly its size, so that sanitizers see a byte read past it. */
typedef struct state { uint8_t *data; size_t size; } state;

static state save(tfm_session *s) {
    state r = { NULL, tfm_session_save(s, NULL, 0) };
    r.data = (uint8_t *)malloc(r.size);
    CHECK(r.size > 0 && tfm_session_save(s, r.data, r.size) == r.size);
    CHECK_STR(message(s), "");
    return r;
}
/* What follows from here: the logits of 20 more ids. */
static void go_on(tfm_session *s, float *out) {
    int32_t ids[20];
    some_ids(ids, 20, 90, 77);
    for (int i = 0; i < 20; i++) {
        CHECK_EQ(tfm_eval(s, ids + i, 1), TFM_OK);
        if (CHECK(tfm_logits(s) != NULL)) memcpy(out + i * 90, tfm_logits(s), 90 * sizeof *out);
    }
}

typedef struct reply { char text[64]; size_t size; } reply;

static bool keep(void *user, const char *text, size_t size) {
    reply *r = (reply *)user;
    if (!CHECK(r->size + size < sizeof r->text)) return false;
    memcpy(r->text + r->size, text, size);
    r->size += size;
    r->text[r->size] = 0;
    return true;
}

/* ---- Saved states ---- */

static void a_state_goes_on_with_the_same_bits(void) {
    static const struct { const char *arch; tfm_type cache; int experts; } rows[] = {
        { "llama", TFM_F32, 0 }, { "llama", TFM_F16, 0 }, { "gpt2", TFM_F32, 0 }, { "gemma3", TFM_F16, 0 },
        { "llama", TFM_F32, 5 } };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int64_t n = 0; n <= 70; n += n < 15 ? 15 : n == 15 ? 1 : 27) {
            recipe r = small;
            r.arch = rows[i].arch;
            r.experts = rows[i].experts;
            made m = make(&r), again = make(&r);        /* loaded twice: the same model */
            int32_t ids[70];
            float want[20 * 90], got[20 * 90], last[90];
            some_ids(ids, 70, 90, 3);
            tfm_session *a = session(m.m, (tfm_session_opts){ .context = 100, .cache = rows[i].cache });
            tfm_session *b = session(again.m, (tfm_session_opts){ .context = 95, .cache = rows[i].cache, .batch = 7,
                                                                  .threads = 2, .all_logits = true });
            CHECK_EQ(tfm_eval(a, ids, n), TFM_OK);
            state s = save(a);
            if (n) memcpy(last, tfm_logits(a), sizeof last);
            go_on(a, want);
            some_ids(ids, 70, 90, 4);                   /* something else before */
            CHECK_EQ(tfm_eval(b, ids, 6), TFM_OK);
            CHECK_EQ(tfm_session_load(b, s.data, s.size), TFM_OK);
            CHECK_STR(message(b), "");
            CHECK_EQ(tfm_position(b), n);
            CHECK((tfm_logits(b) != NULL) == (n > 0));
            if (n) CHECK_SAME(tfm_logits(b), last, 90);
            state same = save(b);
            CHECK(same.size == s.size && memcmp(same.data, s.data, s.size) == 0);
            go_on(b, got);
            CHECK_SAME(got, want, 20 * 90);
            free(s.data);
            free(same.data);
            tfm_session_free(a);
            tfm_session_free(b);
            unmake(&m);
            unmake(&again);
        }
}
/* The checksum word, so that a lie passes it: the one of tfm__mix_bytes, written down again. */
static void seal(state *s) {
    size_t body = s->size - 8;
    uint64_t h = 0;
    for (size_t i = 0; i <= body; i += 8) {             /* the last word is cut short, or empty */
        uint64_t word = 0;
        for (size_t b = 0; b < 8 && i + b < body; b++) word |= (uint64_t)s->data[i + b] << 8 * b;
        h = (h ^ word) * 0x9e3779b97f4a7c15u;
        h ^= h >> 32;
    }
    h = (h ^ body) * 0x9e3779b97f4a7c15u;
    h ^= h >> 32;
    for (size_t b = 0; b < 8; b++) s->data[body + b] = (uint8_t)(h >> 8 * b);
}
static void put_word(state *s, int index, uint64_t word) {
    for (size_t b = 0; b < 8; b++) s->data[8 * (size_t)index + b] = (uint8_t)(word >> 8 * b);
}
/* A session with something in it, that must be the same after each refusal. */
typedef struct guarded { tfm_session *s; state before; } guarded;

static guarded guard(const tfm_model *m, tfm_session_opts o) {
    guarded g;
    int32_t ids[9];
    some_ids(ids, 9, 90, 8);
    g.s = session(m, o);
    CHECK_EQ(tfm_eval(g.s, ids, 9), TFM_OK);
    g.before = save(g.s);
    return g;
}
static bool refused(guarded *g, const state *s, tfm_status want, const char *part) {
    tfm_status got = tfm_session_load(g->s, s->data, s->size);
    bool good = want == TFM_STATUS_COUNT ? CHECK(got != TFM_OK) : CHECK_EQ(got, want);
    good &= CHECK_CONTAINS(message(g->s), part);
    tfm_clear(tfm_session_context(g->s));
    state after = save(g->s);
    good &= CHECK(after.size == g->before.size && memcmp(after.data, g->before.data, after.size) == 0);
    free(after.data);
    return good;
}
static void unguard(guarded *g) {
    tfm_session_free(g->s);
    free(g->before.data);
}
static const recipe tiny = { .layers = 1, .width = 8, .ff = 8, .heads = 2, .kv_heads = 1, .vocab = 90,
                             .context = 30, .characters = true };

static void damaged_states_are_refused(void) {
    made m = make(&tiny);
    guarded g = guard(m.m, (tfm_session_opts){ .context = 30 });
    tfm_session *other = session(m.m, (tfm_session_opts){ .context = 30 });
    int32_t ids[20];
    some_ids(ids, 20, 90, 9);
    CHECK_EQ(tfm_eval(other, ids, 20), TFM_OK);
    state s = save(other);
    for (size_t size = 0; size < s.size; size++) {
        state cut = { (uint8_t *)malloc(size ? size : 1), size };
        memcpy(cut.data, s.data, size);
        bool good = refused(&g, &cut, TFM_TRUNCATED, "state: ");
        free(cut.data);
        if (!good) break;
    }
    for (size_t bit = 0; bit < 8 * s.size; bit += test_quick ? 13 : 1) {
        s.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        bool good = refused(&g, &s, TFM_STATUS_COUNT, "state: ");
        s.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        if (!good) break;
    }
    state longer = { (uint8_t *)malloc(s.size + 1), s.size + 1 };
    memcpy(longer.data, s.data, s.size);
    longer.data[s.size] = 0;
    refused(&g, &longer, TFM_MALFORMED, "needed");
    free(longer.data);
    CHECK_EQ(tfm_session_load(g.s, s.data, s.size), TFM_OK);        /* it was good all the time */
    free(s.data);
    tfm_session_free(other);
    unguard(&g);
    unmake(&m);
}
/* Words that lie, with a checksum that fits. */
static void lying_states_are_refused(void) {
    static const struct { int word; uint64_t value; tfm_status status; const char *part; } lies[] = {
        { 0, 1, TFM_MALFORMED, "no saved session" },
        { 1, 2, TFM_UNSUPPORTED, "its version is 2, the session's 1" },
        { 2, 1, TFM_MISMATCH, "type of cache" },
        { 3, 7, TFM_MISMATCH, "number of layers is 7" },
        { 4, 0, TFM_MISMATCH, "key/value heads" },
        { 5, UINT64_MAX, TFM_MISMATCH, "key size is 18446744073709551615, the session's 4" },
        { 6, 1u << 31, TFM_MISMATCH, "value size" },
        { 7, 91, TFM_MISMATCH, "vocabulary is 91, the session's 90" },
        { 8, 1, TFM_MISMATCH, "rope" },
        { 9, 0, TFM_MISMATCH, "model (a hash)" },
        { 10, 1, TFM_MISMATCH, "adapters" },
        { 11, 31, TFM_FULL, "31 positions, the session has room for 30" },
        { 11, UINT64_MAX, TFM_FULL, "18446744073709551615 positions" },
        { 11, (uint64_t)1 << 62, TFM_FULL, "positions" },
        { 11, 19, TFM_MALFORMED, "needed" },
        { 11, 21, TFM_TRUNCATED, "needed" },
        { 11, 0, TFM_MALFORMED, "90 logits of 0 positions" },
        { 12, 89, TFM_MALFORMED, "89 logits" },
        { 12, UINT64_MAX, TFM_MALFORMED, "logits" },
        { 12, 0, TFM_MALFORMED, "needed" } };
    made m = make(&tiny);
    guarded g = guard(m.m, (tfm_session_opts){ .context = 30 });
    tfm_session *other = session(m.m, (tfm_session_opts){ .context = 30 });
    int32_t ids[20];
    some_ids(ids, 20, 90, 9);
    CHECK_EQ(tfm_eval(other, ids, 20), TFM_OK);
    state s = save(other), lie = save(other);
    seal(&lie);
    CHECK(memcmp(s.data, lie.data, s.size) == 0);       /* seal does what the header does */
    test_hash("state", s.data, s.size);
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        memcpy(lie.data, s.data, s.size);
        put_word(&lie, lies[i].word, lies[i].value);
        seal(&lie);
        refused(&g, &lie, lies[i].status, lies[i].part);
    }
    for (size_t at = 0; at < 20; at += 19) {            /* an id past the vocabulary, a negative one */
        memcpy(lie.data, s.data, s.size);
        lie.data[13 * 8 + 4 * at] = 90;
        if (at) memset(lie.data + 13 * 8 + 4 * at, 255, 4);
        seal(&lie);
        refused(&g, &lie, TFM_MALFORMED, at ? "id 4294967295 at 19" : "id 90 at 0 is not between 0 and 89");
    }
    CHECK_EQ(tfm_session_load(g.s, NULL, 100), TFM_ARGUMENT);
    CHECK_EQ(tfm_session_load(NULL, s.data, s.size), TFM_ARGUMENT);
    CHECK_EQ(tfm_session_load(g.s, s.data, s.size), TFM_ARGUMENT);  /* the first error sticks */
    CHECK_EQ(tfm_session_save(g.s, NULL, 0), 0);
    tfm_clear(tfm_session_context(g.s));
    CHECK_EQ(tfm_session_save(g.s, s.data, 10), 0);
    CHECK_CONTAINS(message(g.s), "state: 10 bytes given");
    free(s.data);
    free(lie.data);
    tfm_session_free(other);
    unguard(&g);
    unmake(&m);
}
/* Another model of the same shapes, another key of the same model, another type of cache, less room. */
static void states_of_others_are_refused(void) {
    recipe seeded = tiny, windowed = tiny;
    seeded.seed = 2;
    windowed.window = 9;
    made m = make(&tiny), others[2] = { make(&seeded), make(&windowed) };
    guarded g = guard(m.m, (tfm_session_opts){ .context = 30 });
    for (int i = 0; i < 2; i++) {
        guarded o = guard(others[i].m, (tfm_session_opts){ .context = 30 });
        refused(&g, &o.before, TFM_MISMATCH, "state: its model (a hash) is ");
        unguard(&o);
        unmake(&others[i]);
    }
    guarded half = guard(m.m, (tfm_session_opts){ .context = 30, .cache = TFM_F16 });
    refused(&g, &half.before, TFM_MISMATCH, "state: its type of cache is 1, the session's 0");
    refused(&half, &g.before, TFM_MISMATCH, "state: its type of cache is 0, the session's 1");
    tfm_session *narrow = session(m.m, (tfm_session_opts){ .context = 8 });
    CHECK_EQ(tfm_session_load(narrow, g.before.data, g.before.size), TFM_FULL);
    CHECK_STR(message(narrow), "state: 9 positions, the session has room for 8");
    tfm_session_free(narrow);
    unguard(&half);
    unguard(&g);
    unmake(&m);
}

/* ---- The common prefix ---- */

static bool count_pieces(void *user, int64_t done, int64_t total) {
    *(int64_t *)user = total;
    return done > 0;
}
static void a_prefix_is_kept(void) {
    static const struct { int64_t held, changed, n, evaluated; } rows[] = {     /* changed: the first id that differs */
        { 0, 0, 40, 40 }, { 40, 40, 60, 20 }, { 40, 40, 40, 1 }, { 40, 25, 40, 15 }, { 40, 25, 70, 45 },
        { 40, 0, 40, 40 }, { 40, 40, 17, 1 }, { 40, 16, 17, 1 }, { 60, 59, 60, 1 } };
    made m = make(&small);
    int32_t ids[100], other[100];
    float want[20 * 90], got[20 * 90];
    int64_t evaluated = 0;
    some_ids(ids, 100, 90, 21);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        tfm_session *a = session(m.m, (tfm_session_opts){ .context = 100 });
        tfm_session *b = session(m.m, (tfm_session_opts){ .context = 100, .batch = 16, .threads = 2,
                                                          .progress = count_pieces, .progress_user = &evaluated });
        memcpy(other, ids, sizeof ids);
        for (int64_t j = rows[i].changed; j < 100; j++) other[j] = (ids[j] + 1 + (int32_t)j % 7) % 90;
        CHECK_EQ(tfm_eval(b, other, rows[i].held), TFM_OK);
        if (rows[i].held) tfm_logits(b)[3] += 100;      /* as a caller may */
        CHECK_EQ(tfm_prefix(b, ids, rows[i].n), rows[i].changed < rows[i].n ? rows[i].changed :
                 rows[i].held < rows[i].n ? rows[i].held : rows[i].n);
        CHECK_EQ(tfm_eval_from_prefix(b, ids, rows[i].n), TFM_OK);
        CHECK_EQ(evaluated, rows[i].evaluated);
        CHECK_EQ(tfm_position(b), rows[i].n);
        CHECK_EQ(tfm_eval(a, ids, rows[i].n), TFM_OK);
        CHECK_SAME(tfm_logits(b), tfm_logits(a), 90);
        state of_a = save(a), of_b = save(b);
        CHECK(of_a.size == of_b.size && memcmp(of_a.data, of_b.data, of_a.size) == 0);
        go_on(a, want);
        go_on(b, got);
        CHECK_SAME(got, want, 20 * 90);
        free(of_a.data);
        free(of_b.data);
        tfm_session_free(a);
        tfm_session_free(b);
    }
    unmake(&m);
}
static void a_prefix_that_cannot_be_had(void) {
    made m = make(&small);
    int32_t ids[100];
    some_ids(ids, 100, 90, 21);
    guarded g = guard(m.m, (tfm_session_opts){ .context = 50 });
    CHECK_EQ(tfm_eval_from_prefix(g.s, ids, 51), TFM_FULL);
    tfm_clear(tfm_session_context(g.s));
    ids[30] = 90;
    CHECK_EQ(tfm_eval_from_prefix(g.s, ids, 50), TFM_ARGUMENT);
    tfm_clear(tfm_session_context(g.s));
    CHECK_EQ(tfm_eval_from_prefix(g.s, NULL, 5), TFM_ARGUMENT);
    tfm_clear(tfm_session_context(g.s));
    CHECK_EQ(tfm_eval_from_prefix(g.s, ids, -1), TFM_ARGUMENT);
    tfm_clear(tfm_session_context(g.s));
    CHECK_EQ(tfm_eval_from_prefix(NULL, ids, 1), TFM_ARGUMENT);
    CHECK_EQ(tfm_prefix(NULL, ids, 1) + tfm_prefix(g.s, NULL, 1) + tfm_prefix(g.s, ids, -4), 0);
    state after = save(g.s);
    CHECK(after.size == g.before.size && memcmp(after.data, g.before.data, after.size) == 0);
    CHECK_EQ(tfm_eval_from_prefix(g.s, NULL, 0), TFM_OK);
    CHECK_EQ(tfm_position(g.s), 0);
    CHECK(tfm_logits(g.s) == NULL);
    free(after.data);
    unguard(&g);
    unmake(&m);
}
/* A conversation of turns that a stop string ends, each evaluated from the common prefix of all before: the
   same replies as from the whole history in a new session. */
static void turns_with_stop_strings(void) {
    enum { TURNS = 4 };
    made m = make(&small);
    tfm_session *chat = session(m.m, (tfm_session_opts){ .context = 200 });
    int32_t history[200];
    int64_t n = 0;
    static const char *const stops[] = { "#!", "e", "x", "q", "t", "a" };
    tfm_generate_opts o = { .max_tokens = 12, .stop = stops, .stop_count = 6, .sampling = { .temperature = 1 } };
    int stopped = 0;
    for (int turn = 0; turn < TURNS; turn++) {
        reply a = { "", 0 }, b = { "", 0 };
        some_ids(history + n, 10, 90, 30 + (uint64_t)turn);
        n += 10;
        o.sampling.seed = (uint64_t)turn;
        CHECK_EQ(tfm_eval_from_prefix(chat, history, n), TFM_OK);
        tfm_finish f = tfm_continue(chat, &o, keep, &a);
        stopped += f == TFM_FINISH_STOP;
        tfm_session *again = session(m.m, (tfm_session_opts){ .context = 200 });
        CHECK_EQ(tfm_eval(again, history, n), TFM_OK);
        CHECK_EQ(tfm_continue(again, &o, keep, &b), f);
        CHECK_STR(a.text, b.text);
        for (int i = 0; i < 6; i++) CHECK(strstr(a.text, stops[i]) == NULL);
        n += tfm_tokenize(tfm_session_context(chat), tfm_model_tokenizer(m.m), a.text, a.size, NULL, history + n, 20);
        tfm_session_free(again);
    }
    CHECK(stopped > 0);
    tfm_session_free(chat);
    unmake(&m);
}
/* ---- Several sequences in one batch ---- */

enum { MANY = 5 };

static bool same_states(tfm_session *a, tfm_session *b) {
    state x = save(a), y = save(b);
    bool same = CHECK(x.size == y.size && memcmp(x.data, y.data, x.size) == 0);
    free(x.data);
    free(y.data);
    return same;
}
/* Prompts of unlike lengths, then 12 ids one by one, then some for a few of them: as each alone. */
static void together_as_alone(const recipe *r, tfm_type cache, int batch, int threads) {
    static const int64_t held[MANY] = { 0, 0, 3, 0, 20 }, lengths[MANY] = { 33, 1, 0, 70, 16 };
    made m = make(r);
    tfm_session *alone[MANY], *joined[MANY];
    int32_t ids[MANY][100];
    const int32_t *at[MANY];
    int64_t counts[MANY];
    for (int i = 0; i < MANY; i++) {
        some_ids(ids[i], 100, 90, 50 + (uint64_t)i);
        alone[i] = session(m.m, (tfm_session_opts){ .context = 100, .cache = cache });
        joined[i] = session(m.m, (tfm_session_opts){ .context = i ? 100 - i : 100, .cache = cache, .threads = threads,
                                                     .batch = batch, .sequences = MANY });
        CHECK_EQ(tfm_eval(joined[i], ids[i], held[i]), TFM_OK);     /* some have begun already, one waits */
        CHECK_EQ(tfm_eval(alone[i], ids[i], held[i] + lengths[i]), TFM_OK);
        at[i] = ids[i] + held[i];
        counts[i] = lengths[i];
    }
    CHECK_EQ(tfm_eval_many(joined, MANY, at, counts), TFM_OK);
    CHECK_STR(message(joined[0]), "");
    for (int i = 0; i < MANY; i++) {
        CHECK(same_states(alone[i], joined[i]));
        at[i] += lengths[i];
    }
    for (int step = 0; step < 13; step++) {
        for (int i = 0; i < MANY; i++) {
            counts[i] = step < 12 ? 1 : i % 2 ? 5 : 0;
            CHECK_EQ(tfm_eval(alone[i], at[i], counts[i]), TFM_OK);
        }
        CHECK_EQ(tfm_eval_many(joined, MANY, at, counts), TFM_OK);
        for (int i = 0; i < MANY; i++) {
            at[i] += counts[i];
            CHECK_SAME(tfm_logits(joined[i]), tfm_logits(alone[i]), 90);
        }
    }
    for (int i = 0; i < MANY; i++) {
        CHECK(same_states(alone[i], joined[i]));
        tfm_session_free(alone[i]);
        tfm_session_free(joined[i]);
    }
    unmake(&m);
}
static void sequences_together(void) {
    static const struct { const char *arch; tfm_type cache, type; int experts, batch, threads; } rows[] = {
        { "llama", TFM_F32, TFM_F32, 0, 0, 1 }, { "llama", TFM_F16, TFM_Q8_0, 0, 7, 2 },
        { "gpt2", TFM_F32, TFM_F32, 0, 3, 2 }, { "gemma3", TFM_F16, TFM_F32, 0, 64, 3 },
        { "llama", TFM_F32, TFM_F32, 5, 20, 1 }, { "llama", TFM_F32, TFM_F32, 0, 1, 1 } };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        recipe r = small;
        r.arch = rows[i].arch;
        r.type = rows[i].type;
        r.experts = rows[i].experts;
        together_as_alone(&r, rows[i].cache, rows[i].batch, rows[i].threads);
    }
}
/* The bytes announced suffice for as many sequences as announced; without the option there is no room for them. */
static void sequences_in_exact_memory(void) {
    static const struct { int context, batch, sequences, threads; } rows[] = {
        { 64, 16, 5, 1 }, { 2100, 5, 5, 3 }, { 64, 3, 5, 2 }, { 64, 64, 2, 2 }, { 64, 1, 5, 1 } };
    recipe r = small;
    r.context = 2200;
    made m = make(&r);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        tfm_error err;
        tfm_session_opts o = { .context = rows[i].context, .batch = rows[i].batch, .threads = rows[i].threads,
                               .prompt_bytes = 1 }, others = { .context = rows[i].context, .threads = 1 };
        size_t plain = tfm_session_size(m.m, &o, NULL, &err);
        o.sequences = rows[i].sequences;
        size_t need = tfm_session_size(m.m, &o, NULL, &err);
        CHECK(need > plain || rows[i].batch == 1);
        char *mem = (char *)malloc(need + TFM_ALIGN), *at = mem + (TFM_ALIGN - (uintptr_t)mem % TFM_ALIGN);
        CHECK(tfm_session_in(m.m, &o, at, need - 1, &err) == NULL);
        tfm_session *s[MANY] = { tfm_session_in(m.m, &o, at, need, &err) };
        int32_t *ids = (int32_t *)calloc((size_t)rows[i].context, sizeof *ids);
        const int32_t *from[MANY];
        int64_t counts[MANY];
        for (int k = 0; k < o.sequences; k++) {
            if (k) s[k] = session(m.m, others);
            from[k] = ids;
            counts[k] = k ? rows[i].context - k * 3 : rows[i].context - 1;
        }
        CHECK_EQ(tfm_eval_many(s, o.sequences, from, counts), TFM_OK);
        for (int k = 0; k < o.sequences; k++) counts[k] = 1;
        CHECK_EQ(tfm_eval_many(s, o.sequences, from, counts), TFM_OK);
        CHECK_STR(message(s[0]), "");
        for (int k = 0; k < o.sequences; k++) tfm_session_free(s[k]);
        free(ids);
        free(mem);
    }
    unmake(&m);
}
static void sequences_that_cannot_be_joined(void) {
    made m = make(&small), other = make(&small);
    tfm_session_opts o = { .context = 50, .sequences = 3 };
    tfm_session *a = session(m.m, o), *b = session(m.m, o), *half, *longer, *foreign;
    o.cache = TFM_F16;
    half = session(m.m, o);
    o.cache = TFM_F32;
    foreign = session(other.m, o);
    o.context = 51;
    longer = session(m.m, o);
    int32_t ids[60];
    some_ids(ids, 60, 90, 4);
    int32_t bad[] = { 3, 90 };
    const int32_t *two[3] = { ids, ids, ids }, *wrong[2] = { ids, bad };
    const struct { tfm_session *s[3]; int count; const int32_t *const *ids; int64_t counts[3]; tfm_status status;
                   const char *message; } rows[] = {
        { { a, b }, 4, two, { 1, 1 }, TFM_ARGUMENT, "eval: 4 sessions, the first one's option is sequences = 3" },
        { { a, b }, 2, NULL, { 1, 1 }, TFM_ARGUMENT, "eval: 2 sessions" },
        { { a, NULL }, 2, two, { 1, 1 }, TFM_ARGUMENT, "session 1 is NULL" },
        { { a, b, a }, 3, two, { 1, 1, 1 }, TFM_ARGUMENT, "sessions 0 and 2 are the same" },
        { { a, half }, 2, two, { 1, 1 }, TFM_ARGUMENT, "session 1: of another model, type of cache" },
        { { a, foreign }, 2, two, { 1, 1 }, TFM_ARGUMENT, "session 1: of another model" },
        { { a, longer }, 2, two, { 1, 1 }, TFM_ARGUMENT, "session 1: a context of 51, the first session's is 50" },
        { { a, b }, 2, wrong, { 1, 2 }, TFM_ARGUMENT, "session 1: token id 90 at 1 is not between 0 and 89" },
        { { a, b }, 2, two, { 1, -1 }, TFM_ARGUMENT, "session 1: eval: -1 ids" },
        { { a, b }, 2, two, { 1, 51 }, TFM_FULL, "session 1: context full" },
        { { a, b }, 2, two, { 51, 1 }, TFM_FULL, "context full" } };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        CHECK_EQ(tfm_eval_many(rows[i].s, rows[i].count, rows[i].ids, rows[i].counts), rows[i].status);
        CHECK_CONTAINS(message(a), rows[i].message);
        tfm_clear(tfm_session_context(a));
        CHECK_STR(message(b), "");
        CHECK(tfm_position(a) == 0 && tfm_position(b) == 0);
    }
    tfm_session *pair[2] = { a, b };
    const int64_t counts[2] = { 1, 1 };
    CHECK_EQ(tfm_eval_many(NULL, 2, two, counts), TFM_ARGUMENT);
    CHECK_EQ(tfm_eval_many(pair, 0, two, counts), TFM_ARGUMENT);
    tfm_rewind(b, 1);                                   /* an error that waits in one of them stays there */
    CHECK_EQ(tfm_eval_many(pair, 2, two, counts), TFM_ARGUMENT);
    CHECK_CONTAINS(message(b), "rewind");
    CHECK_CONTAINS(message(a), "session 1: rewind");
    tfm_clear(tfm_session_context(a));
    tfm_clear(tfm_session_context(b));
    CHECK_EQ(tfm_eval_many(pair, 2, two, counts), TFM_OK);
    CHECK_SAME(tfm_logits(a), tfm_logits(b), 90);
    tfm_session *all[] = { a, b, half, foreign, longer };
    for (int i = 0; i < 5; i++) tfm_session_free(all[i]);
    unmake(&m);
    unmake(&other);
}
static bool never(void *user, int64_t done, int64_t total) {
    (void)user;
    return done == total;
}
/* Between two pieces: what was done stays, and the rest gives the same as ever. */
static void sequences_cancelled(void) {
    made m = make(&small);
    tfm_session *b = session(m.m, (tfm_session_opts){ .context = 50 });
    tfm_session *stopped = session(m.m, (tfm_session_opts){ .context = 50, .batch = 48, .sequences = 2,
                                                            .progress = never });
    tfm_session *pair[2] = { stopped, b };
    const int64_t counts[2] = { 40, 40 };
    int32_t ids[40];
    some_ids(ids, 40, 90, 4);
    const int32_t *both[2] = { ids, ids };
    CHECK_EQ(tfm_eval_many(pair, 2, both, counts), TFM_CANCELLED);
    tfm_clear(tfm_session_context(stopped));
    CHECK(tfm_position(stopped) == 40 && tfm_position(b) == 8);
    CHECK(tfm_logits(stopped) && !tfm_logits(b));
    CHECK_EQ(tfm_eval(b, ids + 8, 32), TFM_OK);
    CHECK_SAME(tfm_logits(stopped), tfm_logits(b), 90);
    tfm_session_free(stopped);
    tfm_session_free(b);
    unmake(&m);
}

const test_case tests_session[] = {
    { "sequences_together", sequences_together, QUICK },
    { "sequences_cancelled", sequences_cancelled, QUICK },
    { "sequences_in_exact_memory", sequences_in_exact_memory, QUICK },
    { "sequences_that_cannot_be_joined", sequences_that_cannot_be_joined, QUICK },
    { "turns_with_stop_strings", turns_with_stop_strings, QUICK },
    { "damaged_states_are_refused", damaged_states_are_refused, QUICK },
    { "lying_states_are_refused", lying_states_are_refused, QUICK },
    { "states_of_others_are_refused", states_of_others_are_refused, QUICK },
    { "a_prefix_is_kept", a_prefix_is_kept, QUICK },
    { "a_prefix_that_cannot_be_had", a_prefix_that_cannot_be_had, QUICK },
    { "a_state_goes_on_with_the_same_bits", a_state_goes_on_with_the_same_bits, QUICK },
    { NULL, NULL, SLOW } };
