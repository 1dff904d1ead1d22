/* firmware - a language model, an attention and an LSTM as a microcontroller runs them: weights in
   flash, all other memory in one static buffer, no heap, no files, no threads.

   cc -O2 -I. examples/firmware.c -o firmware -lm        (from the root of the repository)
   make firmware     builds and runs it for this machine and for a Cortex-M4F under QEMU, and
                     compares: stdout is the same text, bit for bit; figures go to stderr */
#define TFM_NO_STDIO
#define TFM_NO_MALLOC
#define TFM_NO_THREADS
#define TFM_NO_SIMD                     /* so that a host takes the memory that a board takes */
#define TFM_STATIC                      /* what is not called takes no flash */
#define TFM_ONLY_TYPES                  /* F32, and of the others: */
#define TFM_TYPE_Q8_0
#define TFM_HEAD_MAX 64                 /* of attention; the default takes 8 KiB of stack */
#define TFM_EXACT_FMA                   /* a host without fused multiply-add gives the board's bits too */
#define TFM_IMPLEMENTATION
#include "tfm.h"

/* The model: an array that tools/c_array.c wrote, or the file itself by way of the assembler. */
#if defined(TFM_NO_MODEL)
#elif defined(FIRMWARE_MODEL)
#include FIRMWARE_MODEL
#define MODEL_SIZE sizeof firmware_model
#else
extern const unsigned char firmware_model[], firmware_model_end[];
__asm__(".section .rodata\n .balign 64\n .globl firmware_model\n .globl firmware_model_end\n"
        "firmware_model: .incbin \"examples/models/tiny-q8_0.gguf\"\nfirmware_model_end:\n .text\n");
#define MODEL_SIZE ((size_t)(firmware_model_end - firmware_model))
#endif

enum { RESULTS = 1, FIGURES = 2 };      /* where text goes */
#ifdef FIRMWARE_BOARD
bool board_write(int where, const char *text, size_t size);            /* firmware/startup.c */
#else
#include <stdio.h>
static bool board_write(int where, const char *text, size_t size) {
    FILE *f = where == RESULTS ? stdout : stderr;
    return fwrite(text, 1, size, f) == size && fflush(f) == 0;
}
#endif

/* ---- Text, without printf ---- */

static bool lost;                       /* some text did not arrive */

static void put(int where, const char *text) { lost |= !board_write(where, text, strlen(text)); }

static void put_whole(int where, uint32_t v, uint32_t base, int least) {
    char digits[12], *p = digits + sizeof digits;
    *--p = 0;
    do *--p = "0123456789abcdef"[v % base]; while (least--, v /= base, v || least > 0);
    put(where, p);
}
/* " -0.7311=bf3b2b7f": four places to read, all bits to compare */
static void put_real(float v) {
    uint32_t bits, scaled = (uint32_t)((v < 0 ? -v : v) * 10000.0f + 0.5f);
    memcpy(&bits, &v, sizeof bits);
    put(RESULTS, v < 0 ? " -" : "  ");
    put_whole(RESULTS, scaled / 10000, 10, 1);
    put(RESULTS, ".");
    put_whole(RESULTS, scaled % 10000, 10, 4);
    put(RESULTS, "=");
    put_whole(RESULTS, bits, 16, 8);
}
static void put_matrix(const char *name, tfm_tensor t) {
    for (int64_t i = 0; i < t.dim[0]; i++) {
        put(RESULTS, name);
        for (int64_t k = 0; k < t.dim[1]; k++) put_real(((const float *)t.data)[i * t.dim[1] + k]);
        put(RESULTS, "\n");
    }
}
static int fail(const char *message) {
    put(FIGURES, "firmware: ");
    put(FIGURES, message[0] ? message : "MEMORY is too small");
    put(FIGURES, "\n");
    return 1;
}

/* ---- Memory: one buffer, handed out from its start ---- */

/* The header says what is needed: see the figures on stderr. */
#ifdef TFM_NO_MODEL
#define MEMORY 1024
#else
#define MEMORY (170 * 1024)
#endif
static _Alignas(TFM_ALIGN) unsigned char memory[MEMORY];
static size_t used;

/* size bytes for something; NULL if too few are left. */
static void *take(const char *what, size_t size) {
    size_t left = MEMORY - used, whole = (size + TFM_ALIGN - 1) / TFM_ALIGN * TFM_ALIGN;
    put(FIGURES, what);
    put_whole(FIGURES, (uint32_t)size, 10, 1);
    put(FIGURES, " bytes of ");
    put_whole(FIGURES, (uint32_t)left, 10, 1);
    put(FIGURES, "\n");
    if (size > left || whole > left) return NULL;
    used += whole;
    return memory + used - whole;
}

/* ---- A model writes 20 tokens ---- */

#ifndef TFM_NO_MODEL                    /* without it: the layers alone, in a few KiB of code */
#define TOKENS 20
typedef struct output { int32_t ids[TOKENS]; int count; } output;

static bool on_token(void *user, int32_t id) {
    output *o = (output *)user;
    if (o->count == TOKENS) return false;
    o->ids[o->count++] = id;
    return true;
}
static bool on_text(void *user, const char *text, size_t size) {
    (void)user;
    lost |= !board_write(RESULTS, text, size);
    return !lost;
}

static int run_model(void) {
    static tfm_error err;
    static output made;
    const char *prompt = "Once upon a time";
    tfm_session_opts so = { .context = 40, .batch = 8, .threads = 1, .prompt_bytes = 32 };
    tfm_generate_opts go = { .max_tokens = TOKENS, .ignore_end = true, .on_token = on_token };     /* greedy */

    size_t size = tfm_model_size(firmware_model, MODEL_SIZE, &err);
    void *mem = size ? take("model     ", size) : NULL;
    tfm_model *m = mem ? tfm_model_in(firmware_model, MODEL_SIZE, mem, size, &err) : NULL;
    if (!m) return fail(err.message);
    size = tfm_session_size(m, &so, NULL, &err);
    mem = size ? take("session   ", size) : NULL;
    tfm_session *s = mem ? tfm_session_in(m, &so, mem, size, &err) : NULL;
    if (!s) return fail(err.message);

    put(RESULTS, prompt);
    tfm_finish finish = tfm_generate(s, prompt, &go, on_text, &made);
    if (finish == TFM_FINISH_ERROR) return fail(tfm_message(tfm_session_context(s)));
    put(RESULTS, "\nids");
    for (int i = 0; i < made.count; i++) {
        put(RESULTS, " ");
        put_whole(RESULTS, (uint32_t)made.ids[i], 10, 1);
    }
    put(RESULTS, "\n");
    tfm_session_free(s);
    tfm_model_free(m);
    return 0;
}
#else
static int run_model(void) { return 0; }
#endif

/* ---- Layers on plain arrays ---- */

static const float q[3][5] = { { 1, 0, 1, 0, 2 }, { 0, 2, 0, 1, 1 }, { 1, 1, 1, 1, 0 } };
static const float k[3][5] = { { 1, 1, 0, 0, 1 }, { 0, 1, 1, 2, 0 }, { 2, 0, 1, 0, 1 } };
static const float v[3][5] = { { 1, 2, 3, 4, 5 }, { 5, 4, 3, 2, 1 }, { 0, 1, 0, 1, 0 } };

static tfm_tensor run_attention(tfm_context *c) {
    tfm_shape shape = tfm_shape2(3, 5);
    return tfm_attention(c, tfm_wrap(c, q[0], shape), tfm_wrap(c, k[0], shape), tfm_wrap(c, v[0], shape), NULL);
}

/* Four steps of two numbers; PyTorch's weights, gates i, f, g, o. */
static const float x[4][2] = { { 0.5f, -1 }, { 1, 0 }, { -0.5f, 0.5f }, { 0, 2 } };
static const float w_ih[8][2] = { { 0.2f, -0.1f }, { 0.4f, 0.3f }, { 0.1f, 0.5f }, { -0.3f, 0.2f },
                                  { 0.6f, -0.4f }, { 0.2f, 0.7f }, { -0.5f, 0.1f }, { 0.3f, 0.3f } };
static const float w_hh[8][2] = { { 0.1f, 0.2f }, { -0.2f, 0.4f }, { 0.3f, 0.1f }, { 0.5f, -0.1f },
                                  { 0.2f, 0.2f }, { 0.1f, -0.3f }, { 0.4f, 0.4f }, { -0.1f, 0.6f } };
static const float bias[8] = { 0, 0, 1, 1, 0, 0, 0, 0 };

static tfm_tensor run_lstm(tfm_context *c) {
    tfm_rnn_weights w = { tfm_wrap(c, w_ih[0], tfm_shape2(8, 2)), tfm_wrap(c, w_hh[0], tfm_shape2(8, 2)),
                          tfm_wrap(c, bias, tfm_shape1(8)), tfm_none() };
    return tfm_lstm(c, tfm_wrap(c, x[0], tfm_shape2(4, 2)), &w, NULL, NULL, NULL);
}

static int run_layers(void) {
    static tfm_error err;
    tfm_context_opts o = { .measure = true };              /* first without computing: how much do they take? */
    size_t before = used, size = tfm_context_size(&o);
    void *mem = take("measuring ", size);
    tfm_context *c = mem ? tfm_context_in(mem, size, &o, &err) : NULL;
    if (!c) return fail(err.message);
    run_attention(c);
    run_lstm(c);
    size = tfm_context_size(NULL) + tfm_arena_peak(c);
    tfm_context_free(c);
    used = before;

    mem = take("layers    ", size);
    c = mem ? tfm_context_in(mem, size, NULL, &err) : NULL;
    if (!c) return fail(err.message);
    tfm_tensor a = run_attention(c), h = run_lstm(c);
    if (tfm_status_of(c) != TFM_OK) return fail(tfm_message(c));
    put_matrix("attention", a);
    put_matrix("lstm     ", h);
    tfm_context_free(c);
    return 0;
}

int main(void) {
    int failed = run_model() || run_layers();
    put(FIGURES, "in all    ");
    put_whole(FIGURES, (uint32_t)used, 10, 1);
    put(FIGURES, " bytes of ");
    put_whole(FIGURES, MEMORY, 10, 1);
    put(FIGURES, "\n");
    return failed || lost;
}
