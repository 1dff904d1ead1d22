/* LSTM and GRU against PyTorch, and what must hold between ways of running them. */
#include "vectors.h"

#define REL 1e-5

typedef struct network { bool gru; tfm_rnn_opts o; tfm_rnn_weights w[8]; int count; } network;

static tfm_tensor run(tfm_context *c, const network *n, tfm_tensor x, tfm_tensor *h, tfm_tensor *cell) {
    return n->gru ? tfm_gru(c, x, n->w, &n->o, h) : tfm_lstm(c, x, n->w, &n->o, h, cell);
}
static network case_network(vectors *v, bool gru) {
    network n;
    memset(&n, 0, sizeof n);
    n.gru = gru;
    n.o.layers = vectors_int(v, 0);
    n.o.bidirectional = vectors_int(v, 1) != 0;
    n.o.batch_first = vectors_int(v, 2) != 0;
    n.count = n.o.layers * (n.o.bidirectional ? 2 : 1);
    if (!CHECK(n.count <= 8)) n.count = 0;
    for (int i = 0; i < n.count; i++) {
        n.w[i].w_ih = vectors_get_numbered(v, "wi", i);
        n.w[i].w_hh = vectors_get_numbered(v, "wh", i);
        n.w[i].b_ih = vectors_get_numbered(v, "bi", i);
        n.w[i].b_hh = vectors_get_numbered(v, "bh", i);
    }
    return n;
}
static void pytorch(bool gru) {
    vectors v;
    if (!vectors_open(&v)) return;
    int count = vectors_begin(&v, gru ? "gru" : "lstm");
    for (v.index = 0; v.index < count; v.index++) {
        tfm_mark mark = tfm_arena_mark(v.c);
        network n = case_network(&v, gru);
        tfm_tensor x = vectors_get(&v, "x"), h = vectors_get(&v, "h0"), cell = vectors_get(&v, "c0");
        tfm_tensor y = run(v.c, &n, x, &h, &cell);
        vectors_check(&v, y, "y", REL);
        vectors_check(&v, h, "h", REL);
        if (!gru) vectors_check(&v, cell, "c", REL);
        /* from scattered operands the same bits */
        tfm_tensor h2 = scattered(v.c, vectors_get(&v, "h0")), c2 = scattered(v.c, vectors_get(&v, "c0"));
        for (int i = 0; i < n.count; i++) {
            n.w[i].w_ih = scattered(v.c, n.w[i].w_ih);
            n.w[i].w_hh = scattered(v.c, n.w[i].w_hh);
            n.w[i].b_ih = scattered(v.c, n.w[i].b_ih);
            n.w[i].b_hh = scattered(v.c, n.w[i].b_hh);
        }
        tfm_tensor y2 = run(v.c, &n, scattered(v.c, x), &h2, &c2);
        if (!same_tensor(v.c, y2, y) || !same_tensor(v.c, h2, h) || (!gru && !same_tensor(v.c, c2, cell)))
            printf("    in case %s.%d scattered\n", v.op, v.index);
        tfm_arena_rewind(v.c, mark);
    }
    vectors_close(&v);
}
static void lstm_of_pytorch(void) { pytorch(false); }
static void gru_of_pytorch(void) { pytorch(true); }

/* Random weights: `layers` layers, one direction or two. */
static network random_network(tfm_context *c, uint64_t *seed, bool gru, int layers, bool both, int64_t inputs,
                              int64_t hidden) {
    network n;
    int64_t gates = (gru ? 3 : 4) * hidden;
    memset(&n, 0, sizeof n);
    n.gru = gru;
    n.o.layers = layers;
    n.o.bidirectional = both;
    n.count = layers * (both ? 2 : 1);
    for (int i = 0; i < n.count; i++) {
        int64_t in = i < (both ? 2 : 1) ? inputs : hidden * (both ? 2 : 1);
        n.w[i].w_ih = random_tensor(c, seed, tfm_shape2(gates, in), 0.4f);
        n.w[i].w_hh = random_tensor(c, seed, tfm_shape2(gates, hidden), 0.4f);
        n.w[i].b_ih = random_tensor(c, seed, tfm_shape1(gates), 0.4f);
        n.w[i].b_hh = random_tensor(c, seed, tfm_shape1(gates), 0.4f);
    }
    return n;
}
/* One call on 100 steps is 100 calls on one, bit for bit; so is any other cut. */
static void steps_may_be_cut(void) {
    tfm_context *c = tfm_context_new(NULL, NULL);
    uint64_t seed = 99;
    for (int gru = 0; gru < 2; gru++) {
        network n = random_network(c, &seed, gru != 0, 2, false, 5, 19);
        tfm_tensor x = random_tensor(c, &seed, tfm_shape3(100, 3, 5), 1);
        tfm_tensor h = tfm_none(), cell = tfm_none(), y = run(c, &n, x, &h, &cell);
        for (int64_t cut = 1; cut < 60; cut += 16) {
            tfm_tensor h2 = tfm_none(), c2 = tfm_none();
            for (int64_t t = 0; t < 100; t += cut) {
                int64_t end = t + cut < 100 ? t + cut : 100;
                tfm_tensor part = run(c, &n, tfm_slice(c, x, 0, t, end), &h2, &c2);
                if (!same_tensor(c, part, tfm_slice(c, y, 0, t, end))) break;
            }
            same_tensor(c, h2, h);
            if (!gru) same_tensor(c, c2, cell);
        }
    }
    tfm_context_free(c);
}
/* Sequences in a batch do not touch each other, nor do threads. */
static void batches_and_threads(void) {
    tfm_context_opts opts = { .threads = 3 };
    tfm_context *c = tfm_context_new(NULL, NULL), *many = tfm_context_new(&opts, NULL);
    uint64_t seed = 5;
    for (int gru = 0; gru < 2; gru++) {
        network n = random_network(c, &seed, gru != 0, 1, true, 40, 70);
        tfm_tensor x = random_tensor(c, &seed, tfm_shape3(6, 5, 40), 1);
        tfm_tensor h = tfm_none(), cell = tfm_none(), y = run(c, &n, x, &h, &cell);
        tfm_tensor h3 = tfm_none(), c3 = tfm_none(), y3 = run(many, &n, x, &h3, &c3);
        same_tensor(c, y3, y);
        same_tensor(c, h3, h);
        for (int64_t b = 0; b < 5; b++) {
            tfm_tensor one = run(c, &n, tfm_slice(c, x, 1, b, b + 1), NULL, NULL);
            same_tensor(c, one, tfm_slice(c, y, 1, b, b + 1));
        }
        network first = n;
        first.o.batch_first = true;
        tfm_tensor yb = run(c, &first, tfm_transpose(c, x, 0, 1), NULL, NULL);
        same_tensor(c, tfm_transpose(c, yb, 0, 1), y);
        CHECK_STR(tfm_message(many), "");
    }
    tfm_context_free(many);
    tfm_context_free(c);
}
/* The caller's initial state is read, not written. */
static void initial_state_is_kept(void) {
    tfm_context *c = tfm_context_new(NULL, NULL);
    uint64_t seed = 11;
    network n = random_network(c, &seed, false, 1, false, 3, 4);
    float h0[4] = { 1, 2, 3, 4 }, c0[4] = { 5, 6, 7, 8 };
    tfm_tensor h = tfm_wrap(c, h0, tfm_shape3(1, 1, 4)), cell = tfm_wrap(c, c0, tfm_shape3(1, 1, 4));
    tfm_tensor y = run(c, &n, random_tensor(c, &seed, tfm_shape2(3, 3), 1), &h, &cell);
    CHECK_SAME(h0, ((float[]){ 1, 2, 3, 4 }), 4);
    CHECK_SAME(c0, ((float[]){ 5, 6, 7, 8 }), 4);
    CHECK(h.data != (void *)h0 && cell.data != (void *)c0);
    CHECK_EQ(y.rank, 2);
    CHECK_SAME(floats_of(h), floats_of(y) + 8, 4);
    tfm_context_free(c);
}
static void no_steps(void) {
    tfm_context *c = tfm_context_new(NULL, NULL);
    uint64_t seed = 12;
    network n = random_network(c, &seed, false, 1, false, 3, 4);
    float h0[4] = { 1, 2, 3, 4 };
    tfm_tensor h = tfm_wrap(c, h0, tfm_shape3(1, 1, 4)), cell = tfm_none();
    tfm_tensor y = run(c, &n, tfm_zeros(c, tfm_shape2(0, 3)), &h, &cell);
    CHECK_STR(tfm_message(c), "");
    CHECK(y.rank == 2 && y.dim[0] == 0 && y.dim[1] == 4);
    CHECK_SAME(floats_of(h), h0, 4);
    CHECK_SAME(floats_of(cell), ((float[4]){ 0 }), 4);
    tfm_context_free(c);
}
/* Gates far in saturation stay finite. */
static void saturation(void) {
    tfm_context *c = tfm_context_new(NULL, NULL);
    uint64_t seed = 13;
    for (int gru = 0; gru < 2; gru++) {
        network n = random_network(c, &seed, gru != 0, 1, false, 3, 4);
        tfm_tensor y = run(c, &n, random_tensor(c, &seed, tfm_shape2(50, 3), 1e4f), NULL, NULL);
        for (int64_t i = 0; i < tfm_count(y); i++)
            if (!CHECK(fabs((double)floats_of(y)[i]) <= 1)) break;
    }
    tfm_context_free(c);
}
static void errors(void) {
    tfm_context *c = tfm_context_new(NULL, NULL);
    uint64_t seed = 14;
    for (int gru = 0; gru < 2; gru++) {
        network n = random_network(c, &seed, gru != 0, 1, false, 3, 4);
        tfm_tensor x = tfm_zeros(c, tfm_shape2(5, 2)), h = tfm_zeros(c, tfm_shape3(1, 2, 4));
        CHECK_EQ(run(c, &n, x, NULL, NULL).rank, 0);            /* 2 inputs, 3 needed */
        CHECK_EQ(tfm_status_of(c), TFM_MISMATCH);
        CHECK_CONTAINS(tfm_message(c), gru ? "12x3" : "16x3");
        CHECK_CONTAINS(tfm_message(c), gru ? "12x2" : "16x2");
        tfm_clear(c);
        x = tfm_zeros(c, tfm_shape2(5, 3));
        CHECK_EQ(run(c, &n, x, &h, NULL).rank, 0);              /* the state is for a batch of 2 */
        CHECK_EQ(tfm_status_of(c), TFM_MISMATCH);
        CHECK_CONTAINS(tfm_message(c), "1x2x4");
        tfm_clear(c);
        n.w[0].b_ih = tfm_zeros(c, tfm_shape1(5));
        CHECK_EQ(run(c, &n, x, NULL, NULL).rank, 0);
        CHECK_EQ(tfm_status_of(c), TFM_MISMATCH);
        tfm_clear(c);
        CHECK_EQ(run(c, &n, tfm_zeros(c, tfm_shape1(3)), NULL, NULL).rank, 0);
        CHECK_EQ(tfm_status_of(c), TFM_ARGUMENT);
        tfm_clear(c);
    }
    tfm_context_free(c);
}

const test_case tests_rnn[] = {
    { "lstm_of_pytorch", lstm_of_pytorch, QUICK },
    { "gru_of_pytorch", gru_of_pytorch, QUICK },
    { "steps_may_be_cut", steps_may_be_cut, QUICK },
    { "batches_and_threads", batches_and_threads, QUICK },
    { "initial_state_is_kept", initial_state_is_kept, QUICK },
    { "no_steps", no_steps, QUICK },
    { "saturation", saturation, QUICK },
    { "errors", errors, QUICK },
    { NULL, NULL, SLOW }
};
