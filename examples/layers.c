/* layers - embedding, LSTM and dense layer from plain arrays: weights as PyTorch lays them out.
   cc -O2 -I. examples/layers.c -o layers -lm */
#define TFM_IMPLEMENTATION
#include "tfm.h"
#include <stdio.h>

static const float table[4][2] = { { 0.5f, -1.0f }, { 1.0f, 0.0f }, { -0.5f, 0.5f }, { 0.0f, 2.0f } };
static const float w_ih[8][2] = { { 0.2f, -0.1f }, { 0.4f, 0.3f }, { 0.1f, 0.5f }, { -0.3f, 0.2f },  /* gates i and f */
                                  { 0.6f, -0.4f }, { 0.2f, 0.7f }, { -0.5f, 0.1f }, { 0.3f, 0.3f } };  /* g and o */
static const float w_hh[8][2] = { { 0.1f, 0.2f }, { -0.2f, 0.4f }, { 0.3f, 0.1f }, { 0.5f, -0.1f },
                                  { 0.2f, 0.2f }, { 0.1f, -0.3f }, { 0.4f, 0.4f }, { -0.1f, 0.6f } };
static const float bias[8] = { 0, 0, 1, 1, 0, 0, 0, 0 };
static const float w_out[3][2] = { { 1, -1 }, { 0.5f, 0.5f }, { -1, 2 } };
static const float b_out[3] = { 0.1f, 0, -0.1f };

int main(void) {
    tfm_error err;
    tfm_context *c = tfm_context_new(NULL, &err);
    if (!c) return fprintf(stderr, "layers: %s\n", err.message), 1;

    const int32_t ids[5] = { 3, 1, 0, 2, 1 };
    tfm_rnn_weights lstm = { tfm_wrap(c, w_ih[0], tfm_shape2(8, 2)), tfm_wrap(c, w_hh[0], tfm_shape2(8, 2)),
                             tfm_wrap(c, bias, tfm_shape1(8)), tfm_none() };
    tfm_tensor h = tfm_none(), cell = tfm_none();          /* zeros going in, the final state coming out */
    tfm_tensor x = tfm_embedding(c, tfm_wrap(c, table[0], tfm_shape2(4, 2)), ids, 5);                    /* [5, 2] */
    tfm_tensor y = tfm_lstm(c, x, &lstm, NULL, &h, &cell);                                               /* [5, 2] */
    y = tfm_dense(c, y, tfm_wrap(c, w_out[0], tfm_shape2(3, 2)), tfm_wrap(c, b_out, tfm_shape1(3)));     /* [5, 3] */
    y = tfm_softmax(c, y, -1);

    if (tfm_status_of(c) != TFM_OK) return fprintf(stderr, "layers: %s\n", tfm_message(c)), 1;
    for (int i = 0; i < 15; i++) printf("%8.4f%c", (double)((const float *)y.data)[i], i % 3 == 2 ? '\n' : ' ');
    tfm_context_free(c);
    return ferror(stdout) || fclose(stdout) != 0;
}
