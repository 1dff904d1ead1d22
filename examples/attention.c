/* attention - softmax(Q K^T / sqrt(5)) V of three positions, five numbers each.
   cc -O2 -I. examples/attention.c -o attention -lm */
#define TFM_IMPLEMENTATION
#include "tfm.h"
#include <stdio.h>

static const float q[3][5] = { { 1, 0, 1, 0, 2 }, { 0, 2, 0, 1, 1 }, { 1, 1, 1, 1, 0 } };
static const float k[3][5] = { { 1, 1, 0, 0, 1 }, { 0, 1, 1, 2, 0 }, { 2, 0, 1, 0, 1 } };
static const float v[3][5] = { { 1, 2, 3, 4, 5 }, { 5, 4, 3, 2, 1 }, { 0, 1, 0, 1, 0 } };

int main(void) {
    tfm_error err;
    tfm_context *c = tfm_context_new(NULL, &err);
    if (!c) return fprintf(stderr, "attention: %s\n", err.message), 1;

    tfm_shape shape = tfm_shape2(3, 5);                    /* positions x head size */
    tfm_tensor y = tfm_attention(c, tfm_wrap(c, q[0], shape), tfm_wrap(c, k[0], shape), tfm_wrap(c, v[0], shape), NULL);

    /* Errors stay in the context, so that one look at the end is enough. */
    if (tfm_status_of(c) != TFM_OK) return fprintf(stderr, "attention: %s\n", tfm_message(c)), 1;
    for (int i = 0; i < 15; i++) printf("%8.4f%c", (double)((const float *)y.data)[i], i % 5 == 4 ? '\n' : ' ');
    tfm_context_free(c);
    return ferror(stdout) || fclose(stdout) != 0;
}
