/* tfm.h 0.1 - tensors and transformer inference in one C11 header.                    [INTRO]

   Written for three readers: an application that runs the GGUF or safetensors model everybody
   already has, a firmware that keeps weights in flash and owns no heap, and a person who wants
   to see, from top to bottom, how a transformer runs.

   Use: copy this file. In exactly one C or C++ file write

       #define TFM_IMPLEMENTATION
       #include "tfm.h"

   and include it plainly elsewhere. Compile with `cc -O2 app.c -lm` (and -pthread where the C
   library keeps threads apart). A complete program:

       #define TFM_IMPLEMENTATION
       #include "tfm.h"
       #include <stdio.h>

       static bool on_text(void *user, const char *text, size_t size) {
           (void)user;
           return fwrite(text, 1, size, stdout) == size;            // false stops the run
       }
       int main(int argc, char **argv) {
           tfm_error err;
           tfm_model *m = tfm_model_open(argc > 1 ? argv[1] : "model.gguf", NULL, &err);
           tfm_session *s = m ? tfm_session_new(m, &(tfm_session_opts){ .context = 512 }, &err) : NULL;
           if (!s) { fprintf(stderr, "%s\n", err.message); tfm_model_free(m); return 1; }
           tfm_generate_opts o = { .max_tokens = 100, .sampling = { .temperature = 0.8f, .seed = 1 } };
           tfm_finish f = tfm_generate(s, "Once upon a time", &o, on_text, NULL);
           if (f == TFM_FINISH_ERROR) fprintf(stderr, "%s\n", tfm_message(tfm_session_context(s)));
           tfm_session_free(s);
           tfm_model_free(m);
           return f == TFM_FINISH_ERROR;
       }

   Limits: inference only; rank 1 to 4; the architectures of tfm__archs; one sequence per session
   (tfm_eval_many joins several in a batch). Results are the same bits for any number of threads, any
   cutting of the prompt into batches, any level that fuses multiply-add, any optimisation level, gcc
   or clang. Outside that promise: -ffast-math (an #error), clang's -ffp-contract=fast, x87 arithmetic,
   the level "unfused".
   Nothing here aborts, exits, prints, or keeps global state. Every size from a file is checked.

   Configuration, defined before the include                                          [CONFIG]

   macro                where            effect
   -------------------  ---------------  ---------------------------------------------------------
   TFM_IMPLEMENTATION   one file         compile the implementation here
   TFM_STATIC           every file       all functions static: private copy per file
   TFMDEF               every file       linkage of the public functions (e.g. a dllexport)
   TFM_NO_STDIO         implementation   no opening by path: files from memory only
   TFM_NO_MALLOC        implementation   no malloc: objects by the _in functions or a tfm_allocator
   TFM_NO_THREADS       implementation   all work on the calling thread
   TFM_NO_SIMD          implementation   no intrinsics (the choice of fused kernels stays)
   TFM_LEVEL_MAX        implementation   the highest level that AUTO chooses, e.g. TFM_LEVEL_AVX2
   TFM_NO_TOKENIZER     every file       leave out tokenizers (and text in tfm_generate)
   TFM_NO_MODEL         every file       leave out tokenizers, models, sessions, sampling
   TFM_NO_NET           every file       leave out nets of layers (tfm_net)
   TFM_NO_MESSAGES      implementation   error codes without sentences
   TFM_ONLY_TYPES       implementation   keep F32 and the types whose TFM_TYPE_x is defined: Q8_0 ...
   TFM_HEAD_MAX         implementation   largest head size of attention (1024): 8 bytes of stack each
   TFM_MALLOC/TFM_FREE  implementation   the default allocator, called as malloc and free are
   TFM_EXACT_FMA        implementation   a CPU without fused multiply-add emulates it (slow, exact)
   TFM_USE_OPENBLAS     implementation   large f32 products by cblas_sgemm (last bits may differ)
   TFM_ALLOW_FAST_MATH  implementation   no #error under -ffast-math; nothing is promised then

   Letters in comments: B batch, T positions, D width, H heads, KV key/value heads, V vocabulary.
   Shapes are written outermost first, as PyTorch does.

   Contents: search for a tag with its brackets.                                         [TOC]
     use             [INTRO] [CONFIG]
     API             [API.STATUS] [API.MEMORY] [API.TENSOR] [API.OPS] [API.LAYERS] [API.FILES]
                     [API.NET] [API.TOKENIZER] [API.CHAT] [API.MODEL] [API.SAMPLER]
     implementation  [IMPL.PLATFORM] [IMPL.THREADS] [IMPL.CURSOR] [IMPL.TYPES]
                     [KERNELS.MATH] [KERNELS.C] [KERNELS.AVX2] [KERNELS.AVX2.INTEGER]
                     [KERNELS.AVX512] [KERNELS.AMX] [KERNELS.TABLE]
                     [IMPL.CONTEXT] [IMPL.TENSOR] [IMPL.OPS] [IMPL.LAYERS]
                     [IMPL.FILES] [IMPL.FILES.GGUF] [IMPL.FILES.SAFETENSORS]
                     [IMPL.NET] [IMPL.TOKENIZER] [IMPL.CHAT] [IMPL.MODEL] [IMPL.SAMPLER] [LICENSE]  */

#ifndef TFM_H
#define TFM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TFM_VERSION "0.1.0"
#define TFM_ALIGN 64                    /* of every buffer that the header carves, in bytes */

#ifndef TFMDEF
#ifdef TFM_STATIC
#if defined(__GNUC__) || defined(__clang__)
#define TFMDEF static __attribute__((unused))
#else
#define TFMDEF static
#endif
#else
#define TFMDEF extern
#endif
#endif

#if defined(TFM_NO_MODEL) && !defined(TFM_NO_TOKENIZER)
#define TFM_NO_TOKENIZER
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Status ---------------------------------------------------------------- [API.STATUS]
   Functions without a context take a tfm_error (may be NULL) and report in it. Functions on a
   context keep the first error in the context; later ones do nothing and return empty tensors,
   so that a computation is checked once, at its end.                                          */

#define TFM_STATUSES(X)                                                                        \
    X(OK, "ok")                                                                                \
    X(MEMORY, "out of memory")           /* an allocation failed, or a given buffer is too small */ \
    X(IO, "input/output error")          /* the operating system refused                      */ \
    X(TRUNCATED, "truncated")            /* the file ends before its content does             */ \
    X(MALFORMED, "malformed")            /* the file contradicts its format                   */ \
    X(UNSUPPORTED, "unsupported")        /* valid, but nothing here runs it                   */ \
    X(MISMATCH, "mismatch")              /* shapes, or a file and its metadata, disagree      */ \
    X(ARGUMENT, "invalid argument")      /* the caller's mistake                              */ \
    X(CANCELLED, "cancelled")            /* a callback or tfm_cancel asked to stop            */ \
    X(FULL, "context full")              /* no position left in the session's cache           */

typedef enum tfm_status {
#define TFM__X(name, text) TFM_##name,
    TFM_STATUSES(TFM__X)
#undef TFM__X
    TFM_STATUS_COUNT
} tfm_status;

#define TFM_MESSAGE_SIZE 256
typedef struct tfm_error {
    tfm_status status;
    char message[TFM_MESSAGE_SIZE];     /* one sentence, NUL-terminated, cut if longer */
} tfm_error;

/* Bytes that need not end with a NUL; never owned by who receives them. */
typedef struct tfm_string { const char *data; size_t size; } tfm_string;

TFMDEF const char *tfm_status_name(tfm_status status);     /* "ok", "out of memory" ...; static */

/* ---- Memory and contexts --------------------------------------------------- [API.MEMORY]
   A context holds an arena for results, the threads, the kernels chosen for this CPU, and the
   first error. One thread uses a context at a time; any number of contexts may run at once.
   Results live until the arena is rewound past them or the context is freed.

   Who may call what at the same time:
     tfm_file, tfm_tokenizer, tfm_model   read-only once made: any thread, no locks
     tfm_context, tfm_session             one thread at a time each; different ones freely
     tfm_cancel                           any thread and signal handlers, while a session runs
     making and freeing an object         not while anyone uses that object
   Single ops run in the caller's floating-point environment; calls on a session and worker
   threads set round-to-nearest without flush-to-zero, and restore what was there.             */

typedef struct tfm_allocator {          /* replaces TFM_MALLOC/TFM_FREE for one object */
    void *user;
    void *(*alloc)(void *user, size_t size);     /* NULL when there is none; aligned as malloc's */
    void (*free)(void *user, void *ptr);
} tfm_allocator;

typedef enum tfm_level {                /* which kernels run; results agree among all that fuse */
    TFM_LEVEL_AUTO,                     /* the best that this CPU has */
    TFM_LEVEL_UNFUSED,                  /* portable C, a*b + c rounded twice: outside "one answer" */
    TFM_LEVEL_EXACT,                    /* portable C, fused multiply-add in software */
    TFM_LEVEL_FMA,                      /* portable C, the CPU's fused multiply-add */
    TFM_LEVEL_AVX2,                     /* x86-64: AVX2, FMA, F16C */
    TFM_LEVEL_AVXVNNI,                  /* the same with AVX-VNNI's integer products */
    TFM_LEVEL_AVX512,                   /* AVX-512 F, BW, VL, DQ */
    TFM_LEVEL_AVX512VNNI,               /* the same with VNNI */
    TFM_LEVEL_AMX,                      /* the same with AMX-INT8, for which Linux is asked (see [KERNELS.AMX]) */
    TFM_LEVEL_COUNT
} tfm_level;

TFMDEF const char *tfm_level_name(tfm_level level);        /* "auto", "unfused", "exact", "fma", "avx2" ... */
TFMDEF bool        tfm_level_available(tfm_level level);   /* can this CPU and build run it? */

typedef struct tfm_context tfm_context;

typedef struct tfm_context_opts {
    size_t arena;                       /* bytes of the first arena block; 0: 1 MiB. It grows */
    int threads;                        /* 0: 1. At most 256 */
    tfm_level level;
    bool measure;                       /* count memory only: ops check shapes, compute nothing */
    const tfm_allocator *allocator;     /* NULL: TFM_MALLOC; copied */
} tfm_context_opts;

/* NULL and *err on failure. _in: all of it in mem (size bytes, TFM_ALIGN-aligned), never more;
   tfm_context_size is what the context itself takes of mem, with that many threads; the rest is its
   arena (opts->arena and allocator are not used). */
TFMDEF tfm_context *tfm_context_new(const tfm_context_opts *opts, tfm_error *err);
TFMDEF tfm_context *tfm_context_in(void *mem, size_t size, const tfm_context_opts *opts, tfm_error *err);
TFMDEF size_t       tfm_context_size(const tfm_context_opts *opts);
TFMDEF void         tfm_context_free(tfm_context *c);      /* NULL is fine; an _in object too: it ends its threads */

TFMDEF tfm_status   tfm_status_of(const tfm_context *c);
TFMDEF const char  *tfm_message(const tfm_context *c);     /* valid until the context is freed */
TFMDEF void         tfm_clear(tfm_context *c);             /* forget the error, go on */

typedef struct tfm_mark { void *block; size_t used; } tfm_mark;
TFMDEF tfm_mark tfm_arena_mark(const tfm_context *c);
TFMDEF void     tfm_arena_rewind(tfm_context *c, tfm_mark mark);   /* frees all made since the mark; keeps the
                                                                      largest block of memory for later */
TFMDEF size_t   tfm_arena_peak(const tfm_context *c);      /* most bytes in use so far; with
                                                              .measure: what a run will need with
                                                              as many threads, at that level */
TFMDEF int      tfm_cpu_count(void);   /* CPUs that this process may use, 1..256; 1 with TFM_NO_THREADS */

/* ---- Tensors --------------------------------------------------------------- [API.TENSOR] */

#define TFM_TYPES(X) /* name, GGUF number, elements per block, bytes per block */              \
    X(F32, 0, 1, 4) X(F16, 1, 1, 2) X(Q4_0, 2, 32, 18) X(Q4_1, 3, 32, 20) X(Q5_0, 6, 32, 22)   \
    X(Q5_1, 7, 32, 24) X(Q8_0, 8, 32, 34) X(Q2_K, 10, 256, 84) X(Q3_K, 11, 256, 110)           \
    X(Q4_K, 12, 256, 144) X(Q5_K, 13, 256, 176) X(Q6_K, 14, 256, 210) X(IQ4_NL, 20, 32, 18)    \
    X(I8, 24, 1, 1) X(I16, 25, 1, 2) X(I32, 26, 1, 4) X(I64, 27, 1, 8) X(F64, 28, 1, 8)        \
    X(BF16, 30, 1, 2)

typedef enum tfm_type {
#define TFM__X(name, number, block, bytes) TFM_##name = number,
    TFM_TYPES(TFM__X)
#undef TFM__X
    TFM_TYPE_NONE = -1                  /* a type that is only known by name */
} tfm_type;

TFMDEF const char *tfm_type_name(tfm_type type);           /* "F32" ...; "?" if unknown */
TFMDEF int64_t     tfm_type_block(tfm_type type);          /* elements per block; 0 if unknown */
TFMDEF int64_t     tfm_type_bytes(tfm_type type);          /* bytes per block; 0 if unknown */

typedef struct tfm_shape { int rank; int64_t dim[4]; } tfm_shape;    /* outermost first */

/* A value: copy it freely. It never owns its data. Quantized tensors have contiguous rows along
   the last dimension. Ops give F32 unless they say otherwise. */
typedef struct tfm_tensor {
    void *data;                         /* NULL: empty tensor (after an error, or no elements) */
    tfm_type type;
    int rank;                           /* 1..4; 0: no tensor, as an optional argument too */
    int64_t dim[4];                     /* the first `rank` are used */
    int64_t stride[4];                  /* bytes; of the last dimension of a quantized row: 0 */
} tfm_tensor;

TFMDEF tfm_shape  tfm_shape1(int64_t a);
TFMDEF tfm_shape  tfm_shape2(int64_t a, int64_t b);
TFMDEF tfm_shape  tfm_shape3(int64_t a, int64_t b, int64_t c);
TFMDEF tfm_shape  tfm_shape4(int64_t a, int64_t b, int64_t c, int64_t d);
TFMDEF tfm_tensor tfm_none(void);                          /* the missing optional argument */
TFMDEF int64_t    tfm_count(tfm_tensor t);                 /* number of elements */

/* Views of the caller's memory, contiguous, nothing copied; it must outlive the tensor. */
TFMDEF tfm_tensor tfm_wrap(tfm_context *c, const float *data, tfm_shape shape);
TFMDEF tfm_tensor tfm_wrap_type(tfm_context *c, const void *data, tfm_type type, tfm_shape shape);
TFMDEF tfm_tensor tfm_zeros(tfm_context *c, tfm_shape shape);              /* in the arena */

/* Views of t: nothing is copied. axis may be negative (from the end). reshape copies only when the
   strides allow no view; one dimension may be -1. slice takes begin..end-1 with 0 <= begin <= end <=
   length, and may not cut a quantized block. */
TFMDEF tfm_tensor tfm_reshape(tfm_context *c, tfm_tensor t, tfm_shape shape);
TFMDEF tfm_tensor tfm_transpose(tfm_context *c, tfm_tensor t, int axis_a, int axis_b);
TFMDEF tfm_tensor tfm_permute(tfm_context *c, tfm_tensor t, const int *axes);     /* [rank] */
TFMDEF tfm_tensor tfm_slice(tfm_context *c, tfm_tensor t, int axis, int64_t begin, int64_t end);
/* Copies in the arena; t itself where that already is what is asked for. */
TFMDEF tfm_tensor tfm_contiguous(tfm_context *c, tfm_tensor t);            /* of the same type */
TFMDEF tfm_tensor tfm_to_f32(tfm_context *c, tfm_tensor t);                /* contiguous F32, of any type */
/* Parts that are alike but along axis, one after the other; float or quantized -> new F32. */
TFMDEF tfm_tensor tfm_concat(tfm_context *c, const tfm_tensor *parts, int count, int axis);

/* ---- Ops ---------------------------------------------------------------------- [API.OPS]
   PyTorch's definitions and names. Floating and quantized types are read as f32, integer types
   are TFM_UNSUPPORTED; results are new, contiguous F32 tensors in the arena. A tensor without
   elements gives one without elements; sum over none is 0, mean and max over none NaN. NaN comes out
   where one went in, but argmax and topk count it as -inf; finite input gives one only as in PyTorch:
   0/0, a norm of a constant row with eps 0, a sum that overflows. */

/* a [..., M, K] x b [..., K, N] -> [..., M, N]; leading dimensions broadcast; rank 1 operands as
   torch.matmul. Either may be a transposed view. A quantized b is given as the transposed view
   of its rows: tfm_transpose(c, w, 0, 1) with w [N, K]. Its activations are rounded to 8 bits
   per group of 32 (K types: 256), as the formats intend; a row with NaN or infinity gives NaN.
   f16/bf16/f32 accumulate in f32 in an order that depends on K alone. */
TFMDEF tfm_tensor tfm_matmul(tfm_context *c, tfm_tensor a, tfm_tensor b);

TFMDEF tfm_tensor tfm_add(tfm_context *c, tfm_tensor a, tfm_tensor b);     /* broadcasting */
TFMDEF tfm_tensor tfm_sub(tfm_context *c, tfm_tensor a, tfm_tensor b);
TFMDEF tfm_tensor tfm_mul(tfm_context *c, tfm_tensor a, tfm_tensor b);
TFMDEF tfm_tensor tfm_div(tfm_context *c, tfm_tensor a, tfm_tensor b);
TFMDEF tfm_tensor tfm_scale(tfm_context *c, tfm_tensor t, float factor);

TFMDEF tfm_tensor tfm_sum(tfm_context *c, tfm_tensor t, int axis);         /* axis disappears; */
TFMDEF tfm_tensor tfm_mean(tfm_context *c, tfm_tensor t, int axis);        /* rank 1 gives [1] */
TFMDEF tfm_tensor tfm_max(tfm_context *c, tfm_tensor t, int axis);
TFMDEF tfm_tensor tfm_argmax(tfm_context *c, tfm_tensor t, int axis);      /* I32; lowest index of ties; over
                                                                              none: TFM_ARGUMENT */
/* The k largest along the last axis, descending, ties by lower index: values [..., k]; their
   indices, I32, in *indices if not NULL. TFM_ARGUMENT if k is larger than the axis. */
TFMDEF tfm_tensor tfm_topk(tfm_context *c, tfm_tensor t, int64_t k, tfm_tensor *indices);

/* A row wholly -inf gives zeros (softmax) or -inf (log_softmax), not NaN. */
TFMDEF tfm_tensor tfm_softmax(tfm_context *c, tfm_tensor t, int axis);
TFMDEF tfm_tensor tfm_log_softmax(tfm_context *c, tfm_tensor t, int axis);

TFMDEF tfm_tensor tfm_relu(tfm_context *c, tfm_tensor t);
TFMDEF tfm_tensor tfm_gelu(tfm_context *c, tfm_tensor t);       /* x/2 (1 + erf(x/sqrt 2)) */
TFMDEF tfm_tensor tfm_gelu_tanh(tfm_context *c, tfm_tensor t);  /* x/2 (1 + tanh(sqrt(2/pi)(x + 0.044715 x^3))) */
TFMDEF tfm_tensor tfm_silu(tfm_context *c, tfm_tensor t);       /* x sigmoid(x) */
TFMDEF tfm_tensor tfm_tanh(tfm_context *c, tfm_tensor t);
TFMDEF tfm_tensor tfm_sigmoid(tfm_context *c, tfm_tensor t);

/* Over the last axis D; w and b [D] or none. eps is added to the biased variance (mean square). */
TFMDEF tfm_tensor tfm_layernorm(tfm_context *c, tfm_tensor t, tfm_tensor w, tfm_tensor b, float eps);
TFMDEF tfm_tensor tfm_rmsnorm(tfm_context *c, tfm_tensor t, tfm_tensor w, float eps);

/* ---- Layers ---------------------------------------------------------------- [API.LAYERS] */

/* y = x W^T + b, as torch.nn.Linear: x [..., K], w [N, K] of any float or quantized type,
   b [N] or none -> [..., N]. */
TFMDEF tfm_tensor tfm_dense(tfm_context *c, tfm_tensor x, tfm_tensor w, tfm_tensor b);

/* Rows of table [V, D], any float or quantized type, decoded: ids (count of them) -> [count, D]. An id outside
   0..V-1 is TFM_ARGUMENT. */
TFMDEF tfm_tensor tfm_embedding(tfm_context *c, tfm_tensor table, const int32_t *ids, int64_t count);

typedef enum tfm_rope_scaling { TFM_ROPE_NONE, TFM_ROPE_LINEAR, TFM_ROPE_YARN } tfm_rope_scaling;

typedef struct tfm_rope_opts {
    bool half_split;                    /* rotate (i, i + n/2), as GPT-NeoX; else (2i, 2i+1), as Llama */
    int dims;                           /* n: the first n of each head are rotated; 0: all. Even */
    float base;                         /* theta; 0: 10000 */
    const float *freq_factors;          /* n/2 divisors of the frequencies (Llama 3), or NULL */
    tfm_rope_scaling scaling;
    float factor;                       /* the context is stretched by this; 0: 1 */
    int original_context;               /* YaRN: length that the model was trained on */
    float attn_factor;                  /* multiplies cos and sin; 0: 1. YaRN: times 1 + 0.1 ln(factor) too */
    float beta_fast, beta_slow;         /* YaRN ramp, in rotations; 0: 32 and 1 */
} tfm_rope_opts;

/* Rotary embedding (Su et al. 2021; YaRN: Peng et al. 2023): x [T, H, d] at positions
   first .. first + T - 1; pair i turns by position * base^(-2i/n). TFM_ARGUMENT: n odd, above d or
   65536; first, base or factor negative; YaRN without original_context. */
TFMDEF tfm_tensor tfm_rope(tfm_context *c, tfm_tensor x, int64_t first, const tfm_rope_opts *opts);

typedef struct tfm_attention_opts {
    int heads;                          /* of q, when q is [T, H*d] or [B, T, H*d]; 0: 1 */
    int kv_heads;                       /* of k and v; 0: heads. heads must be a multiple of it */
    float scale;                        /* 0: 1/sqrt(d) */
    bool causal;                        /* query i sees keys up to i + offset */
    int64_t offset;                     /* key position of query 0; used by causal and window */
    int64_t window;                     /* > 0: of the keys before it a query sees the last window-1 */
    tfm_tensor mask;                    /* added to the scaled scores: [Tq, Tk], or [H, Tq, Tk], or
                                           [B, H, Tq, Tk] (B, H may be 1); -inf hides a key */
    float cap;                          /* not 0: scores become cap tanh(score / cap) before the mask (Gemma 2) */
} tfm_attention_opts;

/* softmax(q k^T scale + mask) v, as torch.nn.functional.scaled_dot_product_attention.
   q [T, H*d], [B, T, H*d] or [B, H, T, d]; k and v alike with their own length and kv_heads; v's
   head size may differ. The result is shaped as q, with v's head size. A query that sees no key gives
   zeros. No T x T buffer: keys go by in blocks of 64 with a running maximum and sum. offset and
   window may not be negative; heads are at most TFM_HEAD_MAX long. [B, H, T, d] does not read heads
   and kv_heads. */
TFMDEF tfm_tensor tfm_attention(tfm_context *c, tfm_tensor q, tfm_tensor k, tfm_tensor v,
                                const tfm_attention_opts *opts);

/* The same on plain arrays, without a context: q [Tq, H, d], k [Tk, KV, d], v [Tk, KV, d], out
   [Tq, H, d], contiguous. opts->mask is not read; mask: [Tq, Tk] or NULL. TFM_ARGUMENT for sizes
   that do not fit or d > TFM_HEAD_MAX. */
TFMDEF tfm_status tfm_attention_f32(float *out, const float *q, const float *k, const float *v,
                                    int64_t tq, int64_t tk, int64_t d, const float *mask,
                                    const tfm_attention_opts *opts);

/* One direction of one recurrent layer; PyTorch's shapes. Gates: LSTM i, f, g, o (G = 4); GRU
   r, z, n (G = 3). */
typedef struct tfm_rnn_weights {
    tfm_tensor w_ih, w_hh;              /* [G*hidden, inputs], [G*hidden, hidden]; float or quantized */
    tfm_tensor b_ih, b_hh;              /* [G*hidden], or none */
} tfm_rnn_weights;

typedef struct tfm_rnn_opts {
    int layers;                         /* 0: 1 */
    bool bidirectional;
    bool batch_first;                   /* x and the result are [B, T, ...] instead of [T, B, ...] */
} tfm_rnn_opts;

/* torch.nn.LSTM: x [T, inputs] or [T, B, inputs] -> all outputs [T, (B,) dirs*hidden].
   weights: layers * dirs of them, forward before backward within a layer. *h and *cell
   [layers*dirs, B, hidden]: initial state going in (none: zeros), final state coming out (new
   tensors in the arena); NULL if not wanted. In one direction, one call on T steps equals T calls on
   one. x of rank 2 is B = 1; the states coming out still have three dimensions. */
TFMDEF tfm_tensor tfm_lstm(tfm_context *c, tfm_tensor x, const tfm_rnn_weights *weights,
                           const tfm_rnn_opts *opts, tfm_tensor *h, tfm_tensor *cell);
/* torch.nn.GRU: n = tanh(W_in x + b_in + r (W_hn h + b_hn)), h' = (1 - z) n + z h. */
TFMDEF tfm_tensor tfm_gru(tfm_context *c, tfm_tensor x, const tfm_rnn_weights *weights,
                          const tfm_rnn_opts *opts, tfm_tensor *h);

typedef struct tfm_conv2d_opts {
    int stride[2], padding[2], dilation[2];      /* rows, columns; 0: 1, 0, 1 */
    int groups;                                  /* 0: 1 */
} tfm_conv2d_opts;

/* torch.nn.Conv2d: x [B, Cin, h, w] or [Cin, h, w], weight [Cout, Cin/groups, kh, kw], b [Cout] or
   none -> [B, Cout, oh, ow], oh = (h + 2 padding - dilation (kh - 1) - 1) / stride + 1, ow alike. The
   taps are summed in the order (channel, row, column) by the rule of matmul. Cin 0 is TFM_MISMATCH. */
TFMDEF tfm_tensor tfm_conv2d(tfm_context *c, tfm_tensor x, tfm_tensor w, tfm_tensor b,
                             const tfm_conv2d_opts *opts);

/* ---- Weight files ----------------------------------------------------------- [API.FILES]
   GGUF (v2, v3, either byte order) and safetensors, told apart by their first bytes. The file
   object holds a directory; tensors and metadata lie where the file lies: mapped, or in the
   caller's memory, which must outlive the object. A file in the other byte order is copied and
   swapped (not with TFM_NO_MALLOC, nor by _in).
   Tensors may come in any order and leave gaps, but must lie inside the data and not overlap.  */

typedef struct tfm_file tfm_file;

TFMDEF tfm_file *tfm_file_open(const char *path, const tfm_allocator *allocator, tfm_error *err);
TFMDEF tfm_file *tfm_file_from_memory(const void *data, size_t size, const tfm_allocator *allocator,
                                      tfm_error *err);
TFMDEF size_t    tfm_file_size(const void *data, size_t size, tfm_error *err);   /* for _in; 0: error */
TFMDEF tfm_file *tfm_file_in(const void *data, size_t size, void *mem, size_t mem_size, tfm_error *err);
TFMDEF void      tfm_file_free(tfm_file *f);

TFMDEF const char *tfm_file_format(const tfm_file *f);     /* "GGUF v3", "safetensors" ... */

typedef struct tfm_tensor_info {
    tfm_string name;
    tfm_string type_name;               /* as the file's format calls it */
    tfm_tensor tensor;                  /* outermost dimension first. Type NONE: listed, not runnable.
                                           data at any address: read other than by ops with memcpy */
    int rank;                           /* as stored; 0 is one element (tensor.rank is 1 then) */
    uint64_t offset, bytes;             /* of the data, from the start of the file */
} tfm_tensor_info;

TFMDEF int64_t tfm_file_tensor_count(const tfm_file *f);
TFMDEF bool    tfm_file_tensor_at(const tfm_file *f, int64_t index, tfm_tensor_info *out);
TFMDEF bool    tfm_file_tensor(const tfm_file *f, const char *name, tfm_tensor_info *out); /* false: none */

typedef enum tfm_value_type {           /* GGUF's numbers */
    TFM_VALUE_U8, TFM_VALUE_I8, TFM_VALUE_U16, TFM_VALUE_I16, TFM_VALUE_U32, TFM_VALUE_I32, TFM_VALUE_F32,
    TFM_VALUE_BOOL, TFM_VALUE_STRING, TFM_VALUE_ARRAY, TFM_VALUE_U64, TFM_VALUE_I64, TFM_VALUE_F64,
    TFM_VALUE_TYPES
} tfm_value_type;

typedef struct tfm_value {              /* a metadata value, where it lies in the file */
    tfm_value_type type, element;       /* element: of an array */
    uint64_t count;                     /* elements of an array, bytes of a string, else 1 */
    const uint8_t *data;
    size_t size;                        /* bytes at data */
} tfm_value;

TFMDEF int64_t tfm_file_meta_count(const tfm_file *f);
TFMDEF bool    tfm_file_meta_at(const tfm_file *f, int64_t index, tfm_string *key, tfm_value *out);
TFMDEF bool    tfm_file_meta(const tfm_file *f, const char *key, tfm_value *out);          /* false: none */
/* Conversions that lose nothing; false if the value is of another kind or does not fit. */
TFMDEF bool tfm_value_u64(const tfm_value *v, uint64_t *out);
TFMDEF bool tfm_value_i64(const tfm_value *v, int64_t *out);
TFMDEF bool tfm_value_f64(const tfm_value *v, double *out);      /* integers too */
TFMDEF bool tfm_value_bool(const tfm_value *v, bool *out);
TFMDEF bool tfm_value_string(const tfm_value *v, tfm_string *out);
/* Takes the first element off an array: for (a = v; tfm_value_next(&a, &e);) ... */
TFMDEF bool tfm_value_next(tfm_value *array, tfm_value *element);

#ifndef TFM_NO_NET
/* ---- Nets of layers -------------------------------------------------------------- [API.NET]
   A net as Keras builds them, read from a GGUF file of architecture "sequential": the kind of every
   layer, its activations and the layers that it reads are metadata (sequential.layer.*), so that
   one function runs any of them. tools/keras2gguf.py and tools/convert.c write such files; docs/nets.md
   lists the keys and the tensors.
   Kinds: embedding, lstm, gru, rnn (each in one direction or both), dense, activation, flatten,
   average_pool and max_pool (over all steps), concat, add, layer_norm, scale. Anything else in the
   file is refused by name. Keras's formulas; weights in PyTorch's layout and order of gates.       */

typedef struct tfm_net tfm_net;         /* read-only once made, as a tfm_file is */

/* The net uses the file's tensors where they lie: free it before the file. */
TFMDEF tfm_net *tfm_net_new(const tfm_file *f, const tfm_allocator *allocator, tfm_error *err);
TFMDEF size_t   tfm_net_size(const tfm_file *f, tfm_error *err);           /* for _in; 0: error */
TFMDEF tfm_net *tfm_net_in(const tfm_file *f, void *mem, size_t size, tfm_error *err);
TFMDEF void     tfm_net_free(tfm_net *n);

typedef struct tfm_net_info {
    int layers;
    int64_t vocab;                      /* ids go in, below this; 0: floats do */
    tfm_shape input, output;            /* of one sample: [T] ids, [T, D] or [D]; T is 0: any length */
    int64_t state;                      /* floats that carry a run on; 0: nothing recurs; -1: a layer runs
                                           backwards, so that no run can be carried on */
} tfm_net_info;

TFMDEF const tfm_net_info *tfm_net_info_of(const tfm_net *n);

/* x: one sample, or a batch of them [B, ...]; I32 ids or numbers, as info->input says -> the last
   layer's output, in a batch if x was one. An id outside the vocabulary is TFM_ARGUMENT. state: NULL,
   or info->state floats, zeros to begin with, that carry the recurrent layers from call to call (no
   batch then): so one call on T steps equals T calls on one. */
TFMDEF tfm_tensor tfm_net_run(tfm_context *c, const tfm_net *n, tfm_tensor x, float *state);
#endif /* TFM_NO_NET */

#ifndef TFM_NO_TOKENIZER
/* ---- Tokenizers --------------------------------------------------------- [API.TOKENIZER]
   From the tokenizer.ggml.* metadata: byte-level BPE ("gpt2") with the pre-tokenizers that
   tfm__splitters names; SentencePiece BPE ("llama") and unigram ("t5"), the latter with the rules
   that it normalizes text by; WordPiece ("bert"; CLS and SEP are its BOS and EOS); our own "char",
   one token per character, and "word", one per word, what a word is being said by tokenizer.word.*
   (see tfm__write_listed). Another kind is TFM_UNSUPPORTED, by name; with another pre-tokenizer
   all but tfm_tokenize works, so that a model runs by ids. */

typedef struct tfm_tokenizer tfm_tokenizer;

TFMDEF tfm_tokenizer *tfm_tokenizer_new(const tfm_file *f, const tfm_allocator *allocator, tfm_error *err);
TFMDEF size_t         tfm_tokenizer_size(const tfm_file *f, tfm_error *err);      /* for _in; 0: error */
TFMDEF tfm_tokenizer *tfm_tokenizer_in(const tfm_file *f, void *mem, size_t size, tfm_error *err);
TFMDEF void           tfm_tokenizer_free(tfm_tokenizer *t);   /* before its file */

typedef struct tfm_span { size_t begin, end; } tfm_span;   /* bytes of a text, the one at end not among them */

typedef struct tfm_tokenize_opts {
    bool add_special;                   /* add what the file asks for: BOS before, EOS after */
    bool parse_special;                 /* control tokens written in the text become tokens */
    const tfm_span *plain;              /* but not if a byte of theirs lies in one of these, in order: text */
    int64_t plain_count;                /* of unknown origin. It is split and merged as if all were one */
} tfm_tokenize_opts;

/* Text -> ids. Returns how many there are, of which at most `capacity` are written; -1 on error
   (kept in c). Scratch comes from c's arena and is given back; tfm_tokenize_memory bounds it.
   Invalid UTF-8 and NUL are bytes like others ("bert" drops them, "gpt2" a byte without a token).
   Time is n log n at worst. */
TFMDEF int64_t tfm_tokenize(tfm_context *c, const tfm_tokenizer *t, const char *text, size_t size,
                            const tfm_tokenize_opts *opts, int32_t *ids, int64_t capacity);
TFMDEF size_t  tfm_tokenize_memory(const tfm_tokenizer *t, size_t size);

TFMDEF int64_t    tfm_vocab_size(const tfm_tokenizer *t);
TFMDEF tfm_string tfm_token_text(const tfm_tokenizer *t, int32_t id);    /* as the file spells it */
TFMDEF int32_t    tfm_token_find(const tfm_tokenizer *t, const char *text, size_t size);   /* -1: none */
TFMDEF bool       tfm_token_is_control(const tfm_tokenizer *t, int32_t id);
TFMDEF bool       tfm_token_is_end(const tfm_tokenizer *t, int32_t id);  /* ends a text or a turn */
TFMDEF int32_t    tfm_token_bos(const tfm_tokenizer *t);                 /* -1: none */
TFMDEF int32_t    tfm_token_eos(const tfm_tokenizer *t);
TFMDEF bool       tfm_adds_bos(const tfm_tokenizer *t);
TFMDEF bool       tfm_adds_eos(const tfm_tokenizer *t);
/* The bytes that a token stands for, perhaps part of a character; control tokens stand for none
   unless `special`. Returns their number, of which at most capacity are written. */
TFMDEF size_t tfm_token_bytes(const tfm_tokenizer *t, int32_t id, bool special, char *out, size_t capacity);

/* Regroups bytes into whole characters. Returns how many bytes of out are ready; out needs
   size + 4 (replace: 3 * size + 12). replace: invalid bytes become U+FFFD, else they pass. final
   flushes. */
typedef struct tfm_utf8 { unsigned char pending[4]; int count; } tfm_utf8;
TFMDEF size_t tfm_utf8_feed(tfm_utf8 *u, const char *bytes, size_t size, bool replace, bool final, char *out);

/* ---- Chat templates ----------------------------------------------------------- [API.CHAT]
   How a model wants a conversation to be written stands in its file as a Jinja program. No program
   is run here: the common templates are recognised by what they contain, and what they would write
   is written from a table. Tools, images and dates other than the one given are not supported. */

typedef struct tfm_turn { const char *role, *content; } tfm_turn;           /* system, user or assistant */

typedef struct tfm_chat {               /* made by tfm_chat_init; points into its arguments */
    const struct tfm__chat_style *style;
    tfm_string bos, eos;                /* the texts of these tokens */
    tfm_string system;                  /* of the template, for conversations without one; may be empty */
    unsigned flags;
    const char *date;                   /* "27 Nov 2026", for the templates that write it; NULL: 26 Jul 2024,
                                           as theirs is where they know none. Set it after init */
} tfm_chat;

/* jinja: the string tokenizer.chat_template, or the name of a style: chatml, qwen3, llama2, llama3,
   llama3.1, mistral-v0, mistral-v1, mistral-v3, mistral-v3-tekken, mistral-v7, mistral-v7-tekken, gemma,
   gemma3, phi3, phi4, zephyr. Another is TFM_UNSUPPORTED. */
TFMDEF tfm_status  tfm_chat_init(tfm_chat *chat, tfm_string jinja, const tfm_tokenizer *t, tfm_error *err);
TFMDEF const char *tfm_chat_name(const tfm_chat *chat);

/* The text of a conversation, with BOS where the template has it, so that no other may be added; with
   `prompt` up to where the assistant's next message begins. Returns its size, of which at most
   `capacity` bytes are written; -1: error (a role that the template does not know, or not there).
   contents [count], if not NULL, gets where the contents lie: all else is the template's. */
TFMDEF int64_t tfm_chat_apply(const tfm_chat *chat, const tfm_turn *messages, int64_t count, bool prompt,
                              char *out, size_t capacity, tfm_span *contents, tfm_error *err);
/* Its ids: control tokens of the template are parsed, such as stand in contents are plain text.
   Otherwise as tfm_tokenize; scratch from c's arena. */
TFMDEF int64_t tfm_chat_tokenize(tfm_context *c, const tfm_tokenizer *t, const tfm_chat *chat,
                                 const tfm_turn *messages, int64_t count, bool prompt, int32_t *ids,
                                 int64_t capacity);
#endif /* TFM_NO_TOKENIZER */

#ifndef TFM_NO_MODEL
/* ---- Models and sessions ---------------------------------------------------- [API.MODEL]
   A model is a file, its tokenizer, and tables over both: read-only, shared by any number of
   sessions. A session is one sequence: cache, position, threads, logits.
   An encoder (BERT) has no next token: tfm_eval takes a whole text, every position of which sees all
   others, and tfm_pooled has the vector that stands for it; tfm_rewind to 0 comes before the next.  */

typedef struct tfm_model tfm_model;
typedef struct tfm_session tfm_session;

typedef struct tfm_model_opts {
    const tfm_allocator *allocator;
    bool repack;                        /* interleave the rows of quantized weights of 4 to 8 bits in
                                           memory of the model's own, as much as they take in the file:
                                           decoding is faster by up to a half; results are the same */
} tfm_model_opts;

/* Errors name the tensor or key and both numbers. from_memory and _in use data where it lies. */
TFMDEF tfm_model *tfm_model_open(const char *path, const tfm_model_opts *opts, tfm_error *err);
TFMDEF tfm_model *tfm_model_from_memory(const void *data, size_t size, const tfm_model_opts *opts,
                                        tfm_error *err);
TFMDEF size_t     tfm_model_size(const void *data, size_t size, tfm_error *err);  /* for _in; 0: error */
TFMDEF tfm_model *tfm_model_in(const void *data, size_t size, void *mem, size_t mem_size, tfm_error *err);
TFMDEF void       tfm_model_free(tfm_model *m);            /* after its sessions */

typedef enum tfm_pooling {              /* what an encoder makes of the vectors of a text's positions: */
    TFM_POOLING_NONE, TFM_POOLING_MEAN, /* them all, or their mean, */
    TFM_POOLING_CLS, TFM_POOLING_LAST   /* or the first, or the last */
} tfm_pooling;

typedef struct tfm_hparams {            /* from the metadata; sizes in elements */
    tfm_string architecture;
    int32_t context, width, layers, heads, kv_heads, key_size, value_size, feed_forward, vocab;
    int32_t rope_dims, window;          /* window: 0 is none */
    int32_t global_every;               /* each such layer sees past the window; 0: none does */
    int32_t experts, experts_used, expert_feed_forward;     /* mixture of experts; 0: none */
    float eps;
    float attention_scale, attention_cap, logit_cap;        /* 0: 1/sqrt(key_size), none, none */
    float embedding_scale, residual_scale, logit_scale;     /* logits are divided by theirs */
    bool parallel;                      /* attention and MLP read the same */
    bool encoder;                       /* positions see later ones, too */
    tfm_pooling pooling;                /* of an encoder */
    tfm_rope_opts rope, local_rope;     /* local_rope: of the layers with a window, if others have none */
} tfm_hparams;

TFMDEF const tfm_hparams *tfm_model_hparams(const tfm_model *m);
TFMDEF const tfm_file    *tfm_model_file(const tfm_model *m);
#ifndef TFM_NO_TOKENIZER
TFMDEF const tfm_tokenizer *tfm_model_tokenizer(const tfm_model *m);   /* NULL: none that runs here */
#endif

/* Called by tfm_eval after each piece of the ids (a batch), the last too, with positions done and to
   do; false cancels. Not for generated ids. */
typedef bool (*tfm_progress_fn)(void *user, int64_t done, int64_t total);

typedef struct tfm_session_opts {
    int context;                        /* positions in the cache; 0: the smaller of the model's, 2048. Models with
                                           two sets of rope factors (Phi-3) take the long one if it exceeds their
                                           rope.original_context */
    int batch;                          /* positions evaluated at once; 0: 512. Never changes results;
                                           an encoder's is its context */
    int threads;                        /* 0: tfm_cpu_count(). At most 256 */
    tfm_type cache;                     /* TFM_F32 (0) or TFM_F16 */
    bool all_logits;                    /* keep the logits of every position of a call to tfm_eval */
    int sequences;                      /* that tfm_eval_many may join, with this session as the first; 0: 1 */
    int prompt_bytes;                   /* text that tfm_generate can tokenize in fixed memory; 0: 1024 */
    tfm_level level;
    const tfm_allocator *allocator;
    tfm_progress_fn progress;
    void *progress_user;
    const tfm_file *const *adapters;    /* LoRA in GGUF, of this model's architecture: a dense layer's y gets
                                           scale * alpha / r * B(A x) more. The files outlive the session */
    const float *adapter_scales;        /* one for each; NULL: 1 */
    int adapter_count;
} tfm_session_opts;

typedef struct tfm_session_parts { size_t total, cache, logits, scratch, other; } tfm_session_parts;

TFMDEF tfm_session *tfm_session_new(const tfm_model *m, const tfm_session_opts *opts, tfm_error *err);
/* Bytes for _in: a function of the model and where it lies, options, threads and level. parts may be
   NULL. 0: error. */
TFMDEF size_t       tfm_session_size(const tfm_model *m, const tfm_session_opts *opts,
                                     tfm_session_parts *parts, tfm_error *err);
TFMDEF tfm_session *tfm_session_in(const tfm_model *m, const tfm_session_opts *opts, void *mem,
                                   size_t size, tfm_error *err);
TFMDEF void         tfm_session_free(tfm_session *s);      /* NULL is fine; an _in object too: it ends its threads */

TFMDEF tfm_context *tfm_session_context(tfm_session *s);   /* errors, and scratch for tfm_tokenize */

/* Evaluates ids at the next n positions. With all_logits, n may not exceed the batch. Ids are
   checked first. An encoder's are a whole text: TFM_ARGUMENT if the session is not at position 0. On
   TFM_FULL nothing was evaluated; after TFM_CANCELLED the positions finished so far stay, and the
   session can go on (tfm_clear its context). */
TFMDEF tfm_status   tfm_eval(tfm_session *s, const int32_t *ids, int64_t n);
/* tfm_eval of ids[i], counts[i] of them, on each of `count` sessions, the rows of all in one batch, so that
   the weights are read once: faster than one by one, with the same bits. Logits are those of the last id of
   each. The first session's batch, threads and memory serve (its `sequences`, at least count), its context
   has the errors, it can be cancelled; the others only hold their caches and logits. All are different
   sessions of one model, with the same type of cache, adapters and scales, none longer than the first. Ids
   and room are checked first. */
TFMDEF tfm_status   tfm_eval_many(tfm_session *const *sessions, int count, const int32_t *const *ids,
                                  const int64_t *counts);
/* Logits [V] of the last evaluated position; with all_logits, of the i-th id of the last call.
   Valid until the next call on the session; NULL if there are none. They may be edited. */
TFMDEF float       *tfm_logits(tfm_session *s);
TFMDEF float       *tfm_logits_at(tfm_session *s, int64_t i);
/* What an encoder made of the text of the last tfm_eval: one vector [D], or with TFM_POOLING_NONE one for
   each position; *rows (may be NULL) says how many. Not normalized. Lifetime as the logits'; NULL and 0 if
   there is none. */
TFMDEF float       *tfm_pooled(tfm_session *s, int64_t *rows);
TFMDEF int64_t      tfm_position(const tfm_session *s);    /* positions in the cache */
TFMDEF int64_t      tfm_session_capacity(const tfm_session *s);
TFMDEF tfm_status   tfm_rewind(tfm_session *s, int64_t position);      /* forget what is later */
TFMDEF void         tfm_cancel(tfm_session *s);            /* the call in progress ends soon, or the next */
/* 0 switches an adapter off. For what is evaluated from now on: the cache stays as it is. */
TFMDEF tfm_status   tfm_adapter_scale(tfm_session *s, int index, float scale);

/* Makes the session hold exactly these ids: keeps the longest beginning that it holds already, evaluates
   the rest, the last id in any case. The same bits as evaluating all of them from position 0. On TFM_FULL
   nothing was done. */
TFMDEF tfm_status   tfm_eval_from_prefix(tfm_session *s, const int32_t *ids, int64_t n);
/* How many of these ids, from the first on, are what the session holds. */
TFMDEF int64_t      tfm_prefix(const tfm_session *s, const int32_t *ids, int64_t n);

/* The state of a session: ids, cache, logits of the last position, with what identifies the model, and a
   checksum; the same bytes on every machine. save returns how many bytes it takes and writes them if
   buffer is not NULL; 0 on error. load replaces the state by one of the same model (its architecture's
   keys, its tensors and how each begins), adapters and type of cache; options may differ if the positions
   fit. What follows then is bit for bit what would have followed. Errors, kept in the session's context,
   leave the session as it was. */
TFMDEF size_t       tfm_session_save(tfm_session *s, void *buffer, size_t size);
TFMDEF tfm_status   tfm_session_load(tfm_session *s, const void *data, size_t size);

/* ---- Sampling and generation ---------------------------------------------- [API.SAMPLER] */

/* splitmix64 (Steele, Lea, Flood 2014): state += 0x9e3779b97f4a7c15; z = state;
   z = (z ^ z>>30) * 0xbf58476d1ce4e5b9; z = (z ^ z>>27) * 0x94d049bb133111eb; z ^ z>>31.
   The sampler's u is the top 24 bits / 2^24. Start: state = seed. */
typedef struct tfm_rng { uint64_t state; } tfm_rng;
TFMDEF uint64_t tfm_random(tfm_rng *rng);

/* May change the logits before anything else looks at them. */
typedef void (*tfm_logits_fn)(void *user, float *logits, int64_t vocab);

typedef struct tfm_sampling {           /* all zero: greedy */
    float temperature;                  /* 0: greedy, the lowest id of ties */
    int top_k;                          /* 0: off */
    float top_p;                        /* 0 or 1: off; else the fewest candidates that reach it */
    float min_p;                        /* 0: off; keeps p >= min_p * the best's p */
    float repeat_penalty;               /* 0 or 1: off; logits of recent ids: l > 0 ? l / p : l * p */
    int repeat_last;                    /* how many recent ids; 0: 64 */
    uint64_t seed;                      /* each tfm_generate and tfm_continue starts from it */
    tfm_logits_fn hook;
    void *hook_user;
    const int32_t *bias_ids;            /* the logits of these ids get bias[i] more; -INFINITY bans an id */
    const float *bias;
    int bias_count;
} tfm_sampling;

/* One id from logits [n], in this order: hook, bias, penalty, temperature, top-k, top-p, min-p, draw.
   The first three change logits. NaN counts as -inf; if the best is infinite, it is the lowest id
   of the best. Scratch from c's arena. -1 on error (kept in c). */
TFMDEF int32_t tfm_sample(tfm_context *c, float *logits, int64_t n, const tfm_sampling *o,
                          const int32_t *recent, int64_t recent_count, tfm_rng *rng);

typedef enum tfm_finish {
    TFM_FINISH_ERROR,                   /* see tfm_message(tfm_session_context(s)) */
    TFM_FINISH_LENGTH,                  /* max_tokens reached */
    TFM_FINISH_END,                     /* an end-of-text or end-of-turn token, or one of stop_ids */
    TFM_FINISH_STOP,                    /* a stop string; neither it nor what follows was passed on */
    TFM_FINISH_CANCELLED,               /* a callback or tfm_cancel; the context holds no error */
    TFM_FINISH_FULL                     /* the session has no position left; nor here */
} tfm_finish;

typedef bool (*tfm_text_fn)(void *user, const char *text, size_t size);      /* false stops */
typedef bool (*tfm_token_fn)(void *user, int32_t id);                        /* false stops */

typedef struct tfm_generate_opts {
    tfm_sampling sampling;
    int64_t max_tokens;                 /* 0: until the model ends or the context is full */
    const char *const *stop;            /* stop strings, at most 63 bytes each */
    int stop_count;
    const int32_t *stop_ids;            /* besides the model's own end tokens */
    int stop_id_count;
    bool ignore_end;                    /* go on after the model's end tokens */
    bool parse_special;                 /* control tokens in the prompt's text are tokens */
    bool raw_bytes;                     /* pass invalid UTF-8 on as it is, else as U+FFFD */
    tfm_token_fn on_token;              /* each new id, before its text (user as for on_text); no end token */
    int64_t *generated;                 /* if not NULL: how many new ids; an end token and an id that
                                           on_token refused are not counted, nor in the
                                           cache; on FULL the last one counted is not there either */
} tfm_generate_opts;

/* Continues the session from its ids: samples, evaluates, passes text on in whole characters.
   The session must hold logits (tfm_eval). on_text may be NULL. */
TFMDEF tfm_finish tfm_continue(tfm_session *s, const tfm_generate_opts *opts, tfm_text_fn on_text, void *user);
#ifndef TFM_NO_TOKENIZER
/* Tokenizes prompt (with BOS if the file asks for it and the session is at position 0; an empty
   prompt there is BOS alone), evaluates it, continues. The text of the prompt is not repeated. A
   prompt longer than the room left is an error, and nothing of it is evaluated. */
TFMDEF tfm_finish tfm_generate(tfm_session *s, const char *prompt, const tfm_generate_opts *opts,
                               tfm_text_fn on_text, void *user);
#endif
#endif /* TFM_NO_MODEL */

#ifdef __cplusplus
}
#endif
#endif /* TFM_H */

/* ==== If you came for the API, stop here. Below is the implementation, each section using only
   what stands above it; [TOC] lists the sections. ============================================ */
#if defined(TFM_IMPLEMENTATION) && !defined(TFM_IMPLEMENTATION_DONE)
#define TFM_IMPLEMENTATION_DONE

/* ---- Platform ------------------------------------------------------------ [IMPL.PLATFORM] */

#if defined(__FAST_MATH__) && !defined(TFM_ALLOW_FAST_MATH)
#error "tfm.h: -ffast-math breaks the promised results; define TFM_ALLOW_FAST_MATH to accept that"
#endif

#include <float.h>
#include <limits.h>
#include <math.h>                       /* sqrtf and sqrt alone: correctly rounded everywhere */
#include <stdarg.h>
#include <string.h>

#if !defined(TFM_NO_MALLOC) && !defined(TFM_MALLOC)
#include <stdlib.h>
#define TFM_MALLOC malloc
#define TFM_FREE free
#endif

#if defined(__unix__) || defined(__APPLE__)
#define TFM__POSIX 1
#else
#define TFM__POSIX 0
#endif

#if !TFM__POSIX && !defined(TFM_NO_THREADS)
#define TFM_NO_THREADS
#endif
#ifndef TFM_NO_THREADS
#include <pthread.h>
#include <unistd.h>
#endif
#ifndef TFM_NO_STDIO
#include <stdio.h>
#endif
#if defined(__x86_64__) && !defined(TFM_NO_SIMD) && (defined(__GNUC__) || defined(__clang__))
#include <immintrin.h>
#endif
#if TFM__POSIX && !defined(TFM_NO_STDIO)
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

#if defined(__GNUC__) || defined(__clang__)
#define TFM__INLINE static inline __attribute__((always_inline, unused))
#define TFM__UNUSED __attribute__((unused))
#else
#define TFM__INLINE static inline
#define TFM__UNUSED
#endif

/* TFM__LOOPS: a body of plain loops that become vectors. gcc needs -O3 for it, and must not turn selects
   into branches before it looks at the loops.
   TFM__UNROLL: the next loop has a constant count; unroll it whole, so that arrays of registers stay in
   registers. */
#if defined(__clang__)
#define TFM__LOOPS
#define TFM__UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define TFM__LOOPS __attribute__((optimize("O3", "no-thread-jumps", "no-tree-sink", "fp-contract=off")))
#define TFM__UNROLL _Pragma("GCC unroll 64")
#else
#define TFM__LOOPS
#define TFM__UNROLL
#endif

/* The compiler may not fuse a*b + c on its own: every fused product below is written out. Only
   for this header; tests/contraction.sh sees that the user's code keeps its own setting. */
#if defined(__clang__)
#if defined(__x86_64__) || defined(__i386__)            /* elsewhere clang 14 does not know it */
#pragma float_control(push)
#endif
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC push_options
#pragma GCC optimize("fp-contract=off")
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Checked arithmetic: every size that depends on a file or an argument goes through these. */
static bool tfm__mul(size_t a, size_t b, size_t *out) {
    if (b && a > SIZE_MAX / b) return false;
    *out = a * b;
    return true;
}
static bool tfm__add(size_t a, size_t b, size_t *out) {
    if (a > SIZE_MAX - b) return false;
    *out = a + b;
    return true;
}
static bool tfm__round_up(size_t a, size_t unit, size_t *out) {     /* unit: a power of two */
    if (!tfm__add(a, unit - 1, &a)) return false;
    *out = a & ~(unit - 1);
    return true;
}
TFM__INLINE int64_t tfm__min64(int64_t a, int64_t b) { return a < b ? a : b; }
TFM__INLINE int64_t tfm__max64(int64_t a, int64_t b) { return a > b ? a : b; }
TFM__INLINE size_t tfm__min_size(size_t a, size_t b) { return a < b ? a : b; }
/* The number of the lowest bit set in x, which is not 0. */
TFM__INLINE int tfm__lowest_bit(uint64_t x) {
#if defined(__GNUC__) || defined(__clang__)
    return __builtin_ctzll(x);
#else
    int n = 0;
    while (!(x >> n & 1)) n++;
    return n;
#endif
}

/* Strings and messages, without stdio. */

static tfm_string tfm__str(const char *s) {
    tfm_string r;
    r.data = s;
    r.size = s ? strlen(s) : 0;
    return r;
}
TFM__INLINE bool tfm__str_eq(tfm_string a, const char *b) {
    size_t n = strlen(b);
    return a.size == n && (n == 0 || memcmp(a.data, b, n) == 0);
}

static const char *const tfm__status_names[] = {
#define TFM__X(name, text) text,
    TFM_STATUSES(TFM__X)
#undef TFM__X
};
TFMDEF const char *tfm_status_name(tfm_status status) {
    return (unsigned)status < TFM_STATUS_COUNT ? tfm__status_names[status] : "?";
}

#ifndef TFM_NO_MESSAGES
/* Appends bytes to a message; what a terminal would obey becomes '?'. */
static void tfm__put(tfm_error *e, size_t *at, const char *s, size_t n) {
    for (size_t i = 0; i < n && *at + 1 < TFM_MESSAGE_SIZE; i++) {
        unsigned char ch = (unsigned char)s[i];
        e->message[(*at)++] = ch < 32 || ch == 127 ? '?' : s[i];
    }
    e->message[*at] = 0;
}
static void tfm__put_number(tfm_error *e, size_t *at, uint64_t v, bool negative) {
    char digits[24];
    size_t n = sizeof digits;
    do digits[--n] = (char)('0' + v % 10); while (v /= 10);
    if (negative) digits[--n] = '-';
    tfm__put(e, at, digits + n, sizeof digits - n);
}
/* Formats: %s const char *, %q tfm_string * (at most 80 bytes shown), %i int64_t, %u uint64_t,
   %d tfm_shape * as 3x4x5. */
static void tfm__format(tfm_error *e, const char *format, va_list args) {
    size_t at = 0;
    e->message[0] = 0;
    for (const char *p = format; *p; p++) {
        if (*p != '%') { tfm__put(e, &at, p, 1); continue; }
        switch (*++p) {
            case 's': { const char *s = va_arg(args, const char *); tfm__put(e, &at, s, strlen(s)); break; }
            case 'q': {
                const tfm_string *s = va_arg(args, const tfm_string *);
                tfm__put(e, &at, s->data, s->size < 80 ? s->size : 80);
                if (s->size > 80) tfm__put(e, &at, "...", 3);
                break;
            }
            case 'i': {
                int64_t v = va_arg(args, int64_t);
                tfm__put_number(e, &at, v < 0 ? 0 - (uint64_t)v : (uint64_t)v, v < 0);
                break;
            }
            case 'u': tfm__put_number(e, &at, va_arg(args, uint64_t), false); break;
            case 'd': {
                const tfm_shape *s = va_arg(args, const tfm_shape *);
                for (int i = 0; i < s->rank && i < 4; i++) {
                    if (i) tfm__put(e, &at, "x", 1);
                    tfm__put_number(e, &at, s->dim[i] < 0 ? 0 - (uint64_t)s->dim[i] : (uint64_t)s->dim[i],
                                    s->dim[i] < 0);
                }
                if (!s->rank) tfm__put(e, &at, "nothing", 7);
                break;
            }
            default: tfm__put(e, &at, p, 1); break;
        }
    }
}
#endif

/* Keeps the first error. Always false, so that a check can return it. */
static bool tfm__fail(tfm_error *e, tfm_status status, const char *format, ...) {
    if (e->status != TFM_OK) return false;
    e->status = status;
#ifndef TFM_NO_MESSAGES
    va_list args;
    va_start(args, format);
    tfm__format(e, format, args);
    va_end(args);
#else
    (void)format;
    e->message[0] = 0;
#endif
    return false;
}
/* Puts "name: " before the message of an error, if there is one. Always false. */
TFM__UNUSED static bool tfm__inside(tfm_error *e, tfm_string name) {
#ifndef TFM_NO_MESSAGES
    tfm_error inner = *e;
    size_t at = 0;
    if (e->status == TFM_OK) return false;
    tfm__put(e, &at, name.data, name.size < 160 ? name.size : 160);
    tfm__put(e, &at, ": ", 2);
    tfm__put(e, &at, inner.message, strlen(inner.message));
#else
    (void)e; (void)name;
#endif
    return false;
}
/* Where an API function's err goes when the caller passed none; cleared. */
static tfm_error *tfm__begin(tfm_error *err, tfm_error *local) {
    tfm_error *e = err ? err : local;
    e->status = TFM_OK;
    e->message[0] = 0;
    return e;
}

/* Allocation: an owner keeps a copy of the allocator that made it. */

#ifndef TFM_NO_MALLOC
static void *tfm__default_alloc(void *user, size_t size) { (void)user; return TFM_MALLOC(size); }
static void tfm__default_free(void *user, void *ptr) { (void)user; TFM_FREE(ptr); }
#endif

static tfm_allocator tfm__allocator(const tfm_allocator *given) {
    tfm_allocator a;
    memset(&a, 0, sizeof a);
    if (given && given->alloc) return *given;
#ifndef TFM_NO_MALLOC
    a.alloc = tfm__default_alloc;
    a.free = tfm__default_free;
#endif
    return a;
}
/* size bytes aligned to TFM_ALIGN, from any allocator: the original pointer lies just before. */
static void *tfm__heap_alloc(const tfm_allocator *a, size_t size, tfm_error *e) {
    size_t total;
    if (a->alloc && tfm__add(size, TFM_ALIGN + sizeof(void *), &total)) {
        char *raw = (char *)a->alloc(a->user, total);
        if (raw) {
            uintptr_t at = ((uintptr_t)raw + sizeof(void *) + TFM_ALIGN - 1) & ~(uintptr_t)(TFM_ALIGN - 1);
            char *p = raw + (at - (uintptr_t)raw);
            memcpy(p - sizeof(void *), &raw, sizeof raw);
            return p;
        }
    }
    tfm__fail(e, TFM_MEMORY, a->alloc ? "out of memory: %u bytes were refused"
                                      : "no allocator: %u bytes needed (TFM_NO_MALLOC)", (uint64_t)size);
    return NULL;
}
static void tfm__heap_free(const tfm_allocator *a, void *p) {
    if (!p) return;
    void *raw;
    memcpy(&raw, (char *)p - sizeof(void *), sizeof raw);
    if (a->free) a->free(a->user, raw);
}

/* A carver cuts aligned pieces off one buffer, or only counts them: the same code then tells how
   many bytes an object takes, and makes it. */
typedef struct tfm__carver {
    char *base;                         /* NULL: count only */
    size_t used, size;
    bool overflow;                      /* a size was not representable, or the buffer too small */
} tfm__carver;

static void *tfm__carve(tfm__carver *k, size_t count, size_t element) {
    size_t bytes = 0, end = 0;
    if (!tfm__mul(count, element, &bytes) || !tfm__round_up(bytes, TFM_ALIGN, &bytes) ||
        !tfm__add(k->used, bytes, &end)) { k->overflow = true; return NULL; }
    void *p = k->base && end <= k->size ? k->base + k->used : NULL;
    if (k->base && end > k->size) k->overflow = true;
    k->used = end;
    return p;
}

/* The buffer behind an object: `size` bytes from the allocator, or the caller's. NULL and an error
   if it is too small or misaligned. */
static void *tfm__object(const tfm_allocator *a, void *mem, size_t mem_size, size_t size, const char *what,
                         tfm_error *e) {
    if (!mem && a) return tfm__heap_alloc(a, size, e);
    if (!mem) tfm__fail(e, TFM_ARGUMENT, "%s: the buffer is NULL", what);
    if (!mem) return NULL;
    if ((uintptr_t)mem % TFM_ALIGN) {
        tfm__fail(e, TFM_ARGUMENT, "%s: the buffer is not aligned to %i bytes", what, (int64_t)TFM_ALIGN);
        return NULL;
    }
    if (mem_size < size) {
        tfm__fail(e, TFM_MEMORY, "%s: %u bytes given, %u needed", what, (uint64_t)mem_size, (uint64_t)size);
        return NULL;
    }
    return mem;
}

/* Files: mapped where the system can, read otherwise. */

typedef struct tfm__mapping {
    const uint8_t *data;
    size_t size;
    bool mapped;                        /* else from the allocator, if owned */
    bool owned;
} tfm__mapping;

#ifndef TFM_NO_STDIO
static bool tfm__read_file(const char *path, const tfm_allocator *a, tfm__mapping *out, tfm_error *e) {
    FILE *f = fopen(path, "rb");
    if (!f) return tfm__fail(e, TFM_IO, "%s: cannot open", path);
    size_t capacity = 1 << 16, size = 0;
    char *buffer = (char *)tfm__heap_alloc(a, capacity, e);
    while (buffer) {
        size += fread(buffer + size, 1, capacity - size, f);
        if (size < capacity) break;
        size_t twice;
        char *larger = tfm__mul(capacity, 2, &twice) ? (char *)tfm__heap_alloc(a, twice, e) : NULL;
        if (larger) memcpy(larger, buffer, size);
        tfm__heap_free(a, buffer);
        buffer = larger;
        capacity *= 2;
    }
    if (buffer && ferror(f)) {
        tfm__fail(e, TFM_IO, "%s: cannot read", path);
        tfm__heap_free(a, buffer);
        buffer = NULL;
    }
    fclose(f);
    out->data = (const uint8_t *)buffer;
    out->size = size;
    out->mapped = false;
    out->owned = buffer != NULL;
    return buffer != NULL;
}
static bool tfm__map_file(const char *path, const tfm_allocator *a, tfm__mapping *out, tfm_error *e) {
    memset(out, 0, sizeof *out);
    if (!path) return tfm__fail(e, TFM_ARGUMENT, "the path is NULL");
#if TFM__POSIX
    int fd = open(path, O_RDONLY);
    if (fd < 0) return tfm__fail(e, TFM_IO, "%s: cannot open", path);
    struct stat st;
    if (fstat(fd, &st) != 0) { close(fd); return tfm__fail(e, TFM_IO, "%s: cannot read its size", path); }
    if (S_ISDIR(st.st_mode)) { close(fd); return tfm__fail(e, TFM_IO, "%s: is a directory", path); }
    bool regular = S_ISREG(st.st_mode);
    if (regular && st.st_size == 0) { close(fd); return tfm__fail(e, TFM_TRUNCATED, "%s: the file is empty", path); }
    if (regular && (uint64_t)st.st_size <= SIZE_MAX) {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p != MAP_FAILED) {
            close(fd);
            out->data = (const uint8_t *)p;
            out->size = (size_t)st.st_size;
            out->mapped = out->owned = true;
            return true;
        }
    }
    close(fd);                          /* a pipe, or a system that will not map: read it */
#endif
    return tfm__read_file(path, a, out, e);
}
#endif
static void tfm__unmap(tfm__mapping *m, const tfm_allocator *a) {
    if (!m->owned) return;
#if TFM__POSIX && !defined(TFM_NO_STDIO)
    if (m->mapped) { munmap((void *)(uintptr_t)m->data, m->size); return; }
#endif
    tfm__heap_free(a, (void *)(uintptr_t)m->data);
}

/* CPU features and the floating-point environment. */

#if (defined(__x86_64__) || defined(__i386__)) && (defined(__GNUC__) || defined(__clang__))
#define TFM__X86 1
#define TFM__TARGET(t) __attribute__((target(t)))
#else
#define TFM__X86 0
#define TFM__TARGET(t)
#endif

/* gcc says by __FP_FAST_FMAF that the whole build targets the instruction. clang 14 never does; for
   bare metal it makes __builtin_fmaf a call of libm's unless -fno-math-errno is given. */
#if defined(__FP_FAST_FMAF) || (defined(__clang__) && (defined(__FMA__) || \
    (defined(__ARM_FEATURE_FMA) && (defined(__aarch64__) || defined(__NO_MATH_ERRNO__)))))
#define TFM__HAS_FMA 1
#else
#define TFM__HAS_FMA 0
#endif

/* Kernels written with x86-64 intrinsics, each under its own target attribute. */
#if TFM__X86 && defined(__x86_64__) && !defined(TFM_NO_SIMD)
#define TFM__SIMD_X86 1
#else
#define TFM__SIMD_X86 0
#endif

/* AVX-VNNI and AMX, which compilers and assemblers before 2021 do not know. */
#if TFM__SIMD_X86 && ((defined(__clang__) && __clang_major__ >= 12) || (!defined(__clang__) && __GNUC__ >= 11))
#define TFM__SIMD_2021 1
#else
#define TFM__SIMD_2021 0
#endif
#if TFM__SIMD_2021
/* CPUID leaf 7: EAX of subleaf 1, EDX of subleaf 0. */
static unsigned tfm__cpuid7(unsigned subleaf) {
    unsigned a = 0, b, c = 0, d;
    __asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    if (a < 7) return 0;
    a = 7;
    c = subleaf;
    __asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    return subleaf ? a : d;
}
/* A system call of Linux on x86-64, for which C11 declares no function. */
#ifdef __linux__
static long tfm__syscall(long call, long a, long b, long c) {
    __asm__ volatile("syscall" : "+a"(call) : "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return call;
}
#endif
/* Linux keeps a process's tile registers only after it was asked to: arch_prctl(ARCH_REQ_XCOMP_PERM,
   18). From then on the system wants room for them (11 KiB) in every alternate signal stack. */
static bool tfm__cpu_has_amx(void) {
#ifdef __linux__
    return (tfm__cpuid7(0) >> 24 & 3) == 3 && tfm__syscall(158, 0x1023, 18, 0) == 0;     /* AMX-TILE, AMX-INT8 */
#else
    return false;
#endif
}
#endif
/* Asks for large pages: reading weights in order then waits less for address translation. */
enum { TFM__HUGE = 2 << 20 };
TFM__UNUSED static void tfm__huge_pages(char *base, size_t bytes) {
#if TFM__SIMD_2021 && defined(__linux__)
    if (bytes >= TFM__HUGE) tfm__syscall(28, (long)base, (long)(bytes & ~(size_t)(TFM__HUGE - 1)), 14);
#else
    (void)base; (void)bytes;
#endif
}
/* Can this CPU run the kernels of a level? */
static bool tfm__cpu_runs(tfm_level level) {
#if TFM__X86
    __builtin_cpu_init();
    bool fma = TFM__HAS_FMA || __builtin_cpu_supports("fma"), avx2 = fma && __builtin_cpu_supports("avx2");
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    switch (level) {
        case TFM_LEVEL_FMA: return fma;
        case TFM_LEVEL_AVX2: return avx2;           /* every CPU with AVX2 and FMA has F16C */
#if TFM__SIMD_2021
        case TFM_LEVEL_AVXVNNI: return avx2 && (tfm__cpuid7(1) >> 4 & 1);
        case TFM_LEVEL_AMX: return avx512 && __builtin_cpu_supports("avx512vnni") && tfm__cpu_has_amx();
#endif
        case TFM_LEVEL_AVX512: return avx512;
        case TFM_LEVEL_AVX512VNNI: return avx512 && __builtin_cpu_supports("avx512vnni");
        default: return true;
    }
#else
    (void)level;
    return true;
#endif
}

/* Sets round-to-nearest without flush-to-zero; gives back what was set before. */
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
typedef unsigned tfm__fpenv;
TFM__UNUSED static tfm__fpenv tfm__fp_set(void) {
    unsigned old = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr((old & ~0xe040u) | 0x1f80u);     /* RC nearest, no FTZ or DAZ, masked */
    return old;
}
TFM__UNUSED static void tfm__fp_restore(tfm__fpenv old) { __builtin_ia32_ldmxcsr(old); }
#elif defined(__aarch64__) && (defined(__GNUC__) || defined(__clang__))
typedef uint64_t tfm__fpenv;
TFM__UNUSED static tfm__fpenv tfm__fp_set(void) {
    uint64_t old;
    __asm__ volatile("mrs %0, fpcr" : "=r"(old));
    uint64_t set = old & ~((UINT64_C(1) << 24) | (UINT64_C(3) << 22));      /* FZ, RMode */
    __asm__ volatile("msr fpcr, %0" : : "r"(set));
    return old;
}
TFM__UNUSED static void tfm__fp_restore(tfm__fpenv old) { __asm__ volatile("msr fpcr, %0" : : "r"(old)); }
#elif defined(__arm__) && defined(__ARM_FP) && !defined(__SOFTFP__) && (defined(__GNUC__) || defined(__clang__))
typedef unsigned tfm__fpenv;
TFM__UNUSED static tfm__fpenv tfm__fp_set(void) {
    unsigned old = __builtin_arm_get_fpscr();
    __builtin_arm_set_fpscr(old & ~((1u << 24) | (3u << 22)));      /* FZ, RMode */
    return old;
}
TFM__UNUSED static void tfm__fp_restore(tfm__fpenv old) { __builtin_arm_set_fpscr(old); }
#else
typedef int tfm__fpenv;
TFM__UNUSED static tfm__fpenv tfm__fp_set(void) { return 0; }
TFM__UNUSED static void tfm__fp_restore(tfm__fpenv old) { (void)old; }
#endif

/* Linux says in /proc/self/status which CPUs the process may use; sched_getaffinity would need a
   feature macro. Elsewhere: the CPUs online. */
TFMDEF int tfm_cpu_count(void) {
    int count = 0;
#ifndef TFM_NO_THREADS
#if defined(__linux__) && !defined(TFM_NO_STDIO)
    char text[4096];
    int fd = open("/proc/self/status", O_RDONLY);
    if (fd >= 0) {
        size_t size = 0;
        for (ssize_t n; size < sizeof text - 1 && (n = read(fd, text + size, sizeof text - 1 - size)) > 0;)
            size += (size_t)n;
        close(fd);
        text[size] = 0;
        const char *p = strstr(text, "Cpus_allowed:");
        for (p = p ? p + 13 : ""; *p && *p != '\n'; p++) {
            int digit = *p >= '0' && *p <= '9' ? *p - '0' : *p >= 'a' && *p <= 'f' ? *p - 'a' + 10 : 0;
            for (; digit; digit &= digit - 1) count++;
        }
    }
#endif
    if (count < 1) count = (int)sysconf(_SC_NPROCESSORS_ONLN);
#endif
    return count < 1 ? 1 : count > 256 ? 256 : count;
}

/* ---- Threads --------------------------------------------------------------- [IMPL.THREADS]
   A pool runs a task on pieces [begin, end) of 0..n, one contiguous share per thread. Shares only
   ever split outputs, never a sum, so that their number does not change a result.
   Handing over spins shortly, then blocks; with more threads than CPUs it does not spin at all. The
   lock is taken only by who goes to sleep and by who sees a sleeper: both write their own word
   (`generation` or `finished`; `sleepers` or `waiting`) before they read the other's, in one order
   for all threads, so that at least one of them sees the other.                                  */

typedef void (*tfm__task)(void *arg, int64_t begin, int64_t end, int thread);

typedef struct tfm__worker tfm__worker;

typedef struct tfm__pool {
    int threads;
#ifndef TFM_NO_THREADS
    int started, spin, stop;
    tfm__worker *workers;               /* [threads - 1] */
    pthread_mutex_t lock;
    pthread_cond_t wake, done;
    int sleepers;                       /* workers that wait for `wake` */
    int waiting;                        /* the caller waits for `done` */
    char apart[64];                     /* what is written often keeps to its own cache lines */
    unsigned generation;                /* counts tasks; workers wait for it to change */
    tfm__task task;
    void *arg;
    int64_t n;
    char apart_too[64];
    unsigned finished;                  /* tasks done, each counted by every worker */
    char apart_again[64];
#endif
} tfm__pool;

#ifndef TFM_NO_THREADS
struct tfm__worker { tfm__pool *pool; int index; pthread_t thread; };

TFM__INLINE void tfm__pause(void) {
#if TFM__X86
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}
static int64_t tfm__share(int64_t n, int index, int threads) {
    return n / threads * index + n % threads * index / threads;
}
static void tfm__pool_part(tfm__pool *p, int index) {
    int64_t begin = tfm__share(p->n, index, p->threads), end = tfm__share(p->n, index + 1, p->threads);
    if (begin < end) p->task(p->arg, begin, end, index);
}
static bool tfm__pool_idle(tfm__pool *p, unsigned seen) {
    return __atomic_load_n(&p->generation, __ATOMIC_SEQ_CST) == seen;
}
/* Are there workers at the current task? */
static bool tfm__pool_busy(tfm__pool *p) {
    unsigned all = __atomic_load_n(&p->generation, __ATOMIC_RELAXED) * (unsigned)(p->threads - 1);
    return __atomic_load_n(&p->finished, __ATOMIC_SEQ_CST) != all;
}

static void *tfm__worker_main(void *arg) {
    tfm__worker *w = (tfm__worker *)arg;
    tfm__pool *p = w->pool;
    unsigned seen = 0;
    tfm__fp_set();
    for (;; seen++) {
        for (int i = 0; i < p->spin && tfm__pool_idle(p, seen); i++) tfm__pause();
        if (tfm__pool_idle(p, seen)) {
            pthread_mutex_lock(&p->lock);
            __atomic_add_fetch(&p->sleepers, 1, __ATOMIC_SEQ_CST);
            while (tfm__pool_idle(p, seen)) pthread_cond_wait(&p->wake, &p->lock);
            __atomic_sub_fetch(&p->sleepers, 1, __ATOMIC_SEQ_CST);
            pthread_mutex_unlock(&p->lock);
        }
        if (__atomic_load_n(&p->stop, __ATOMIC_ACQUIRE)) return NULL;
        tfm__pool_part(p, w->index);
        __atomic_add_fetch(&p->finished, 1, __ATOMIC_SEQ_CST);
        if (!tfm__pool_busy(p) && __atomic_load_n(&p->waiting, __ATOMIC_SEQ_CST)) {
            pthread_mutex_lock(&p->lock);
            pthread_cond_signal(&p->done);
            pthread_mutex_unlock(&p->lock);
        }
    }
}
static void tfm__pool_signal(tfm__pool *p) {
    __atomic_add_fetch(&p->generation, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&p->sleepers, __ATOMIC_SEQ_CST) == 0) return;
    pthread_mutex_lock(&p->lock);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
}
static void tfm__pool_wait(tfm__pool *p) {
    for (int i = 0; i < p->spin && tfm__pool_busy(p); i++) tfm__pause();
    if (!tfm__pool_busy(p)) return;
    pthread_mutex_lock(&p->lock);
    __atomic_store_n(&p->waiting, 1, __ATOMIC_SEQ_CST);
    while (tfm__pool_busy(p)) pthread_cond_wait(&p->done, &p->lock);
    __atomic_store_n(&p->waiting, 0, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&p->lock);
}
#endif

static void tfm__pool_run(tfm__pool *p, tfm__task task, void *arg, int64_t n) {
#ifndef TFM_NO_THREADS
    if (p->threads > 1 && n > 1) {
        p->task = task;
        p->arg = arg;
        p->n = n;
        tfm__pool_signal(p);
        tfm__pool_part(p, 0);
        tfm__pool_wait(p);
        return;
    }
#else
    (void)p;
#endif
    if (n > 0) task(arg, 0, n, 0);
}

static void tfm__pool_stop(tfm__pool *p) {
#ifndef TFM_NO_THREADS
    if (p->threads < 2) return;
    __atomic_store_n(&p->stop, 1, __ATOMIC_RELEASE);
    tfm__pool_signal(p);
    for (int i = 0; i < p->started; i++) pthread_join(p->workers[i].thread, NULL);
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->wake);
    pthread_cond_destroy(&p->done);
#else
    (void)p;
#endif
}

/* Carves room for the workers; tfm__pool_start makes them. */
static void tfm__pool_carve(tfm__carver *k, tfm__pool *p, int threads) {
    memset(p, 0, sizeof *p);
#ifdef TFM_NO_THREADS
    (void)k; (void)threads;
    p->threads = 1;
#else
    p->threads = threads;
    p->workers = (tfm__worker *)tfm__carve(k, (size_t)(threads - 1), sizeof *p->workers);
#endif
}
static bool tfm__pool_start(tfm__pool *p, tfm_error *e) {
#ifdef TFM_NO_THREADS
    (void)p; (void)e;
#else
    if (p->threads < 2) return true;
    p->spin = p->threads <= tfm_cpu_count() ? 2000 : 0;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    pthread_cond_init(&p->done, NULL);
    for (; p->started < p->threads - 1; p->started++) {
        tfm__worker *w = &p->workers[p->started];
        w->pool = p;
        w->index = p->started + 1;
        if (pthread_create(&w->thread, NULL, tfm__worker_main, w) != 0) {
            tfm__pool_stop(p);
            return tfm__fail(e, TFM_MEMORY, "thread %i of %i could not be started", (int64_t)w->index + 1,
                             (int64_t)p->threads);
        }
    }
#endif
    return true;
}

/* ---- The cursor -------------------------------------------------------------- [IMPL.CURSOR]
   The one reader of bytes that someone else wrote. It never passes the end, keeps its first error
   with the offset, and gives zeros from then on. Numbers are in the host's byte order: a file in
   the other one was swapped before.                                                           */

typedef struct tfm__cursor {
    const uint8_t *data;
    size_t size, at;
    tfm_error *err;
} tfm__cursor;

static bool tfm__little_host(void) {
    static const uint16_t one = 1;
    return *(const uint8_t *)&one == 1;
}
/* A whole number of up to 8 bytes, little-endian whatever the host's order. */
TFM__INLINE uint64_t tfm__little(const uint8_t *p, size_t bytes) {
    uint64_t v = 0;
    for (size_t i = 0; i < bytes; i++) v |= (uint64_t)p[i] << (8 * i);
    return v;
}
static bool tfm__cursor_ok(const tfm__cursor *k) { return k->err->status == TFM_OK; }
static size_t tfm__left(const tfm__cursor *k) { return k->size - k->at; }

static const uint8_t *tfm__take(tfm__cursor *k, uint64_t n, const char *what) {
    if (!tfm__cursor_ok(k)) return NULL;
    if (n > tfm__left(k)) {
        tfm__fail(k->err, TFM_TRUNCATED, "%s at byte %u needs %u bytes, %u are left", what, (uint64_t)k->at, n,
                  (uint64_t)tfm__left(k));
        return NULL;
    }
    const uint8_t *p = k->data + k->at;
    k->at += (size_t)n;
    return p;
}
static uint32_t tfm__take_u32(tfm__cursor *k, const char *what) {
    uint32_t v = 0;
    const uint8_t *p = tfm__take(k, sizeof v, what);
    if (p) memcpy(&v, p, sizeof v);
    return v;
}
static uint64_t tfm__take_u64(tfm__cursor *k, const char *what) {
    uint64_t v = 0;
    const uint8_t *p = tfm__take(k, sizeof v, what);
    if (p) memcpy(&v, p, sizeof v);
    return v;
}
static tfm_string tfm__take_string(tfm__cursor *k, const char *what) {
    tfm_string s;
    uint64_t n = tfm__take_u64(k, what);
    s.data = (const char *)tfm__take(k, n, what);
    s.size = s.data ? (size_t)n : 0;
    return s;
}
/* A count from the file is believed only if the bytes that remain could hold that many. */
static uint64_t tfm__take_count(tfm__cursor *k, size_t smallest, const char *what) {
    uint64_t n = tfm__take_u64(k, what);
    if (tfm__cursor_ok(k) && n > tfm__left(k) / smallest) {
        tfm__fail(k->err, TFM_TRUNCATED, "%s: %u of them cannot lie in the %u bytes that are left", what, n,
                  (uint64_t)tfm__left(k));
        return 0;
    }
    return n;
}

/* ---- Types ---------------------------------------------------------------------- [IMPL.TYPES]
   One row per type. A quantized type brings one function that unpacks a block into small integers
   and scales; decoding and every product are written once, over that.
   The weight of element i in sub-block j of `group` elements is  d * sc[j] * q[i] + m * mins[j].  */

typedef struct tfm__block {
    float d, m;                         /* m: 0 for types without minimums */
    int16_t sc[16], mins[16];           /* one per sub-block */
    int8_t q[256];                      /* the type's offset already subtracted */
} tfm__block;

TFM__INLINE float tfm__from_bits(uint32_t u) { float f; memcpy(&f, &u, sizeof f); return f; }
TFM__INLINE uint32_t tfm__to_bits(float f) { uint32_t u; memcpy(&u, &f, sizeof u); return u; }
TFM__INLINE int32_t tfm__load_i32(const void *p) { int32_t v; memcpy(&v, p, sizeof v); return v; }
TFM__INLINE uint16_t tfm__load_u16(const uint8_t *p) { uint16_t v; memcpy(&v, p, sizeof v); return v; }

/* Half to float, exact: the exponent is moved by a multiplication, which also normalises
   subnormals; infinity and NaN are put right after. */
TFM__INLINE float tfm__f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, rest = (uint32_t)(h & 0x7fffu) << 13;
    float f = tfm__from_bits(rest) * 0x1p112f;
    uint32_t bits = rest >= 0x0f800000u ? rest | 0x7f800000u : tfm__to_bits(f);
    return tfm__from_bits(bits | sign);
}
/* Float to half, to nearest even; overflow gives infinity, NaN a quiet NaN. */
TFM__INLINE uint16_t tfm__f32_to_f16(float f) {
    uint32_t bits = tfm__to_bits(f), sign = bits >> 16 & 0x8000u, a = bits & 0x7fffffffu;
    if (a > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
    if (a >= 0x47800000u) return (uint16_t)(sign | 0x7c00u);
    if (a < 0x38800000u)                /* subnormal half: let an addition round it */
        return (uint16_t)(sign | (tfm__to_bits(tfm__from_bits(a) + 0.5f) - 0x3f000000u));
    return (uint16_t)(sign | ((a - 0x38000000u + 0xfffu + (a >> 13 & 1)) >> 13));
}
TFM__INLINE float tfm__bf16_to_f32(uint16_t h) { return tfm__from_bits((uint32_t)h << 16); }

/* Which quantized types are compiled in. */
#if !defined(TFM_ONLY_TYPES) || defined(TFM_TYPE_Q8_0)
#define TFM__Q8_0
#endif
#if !defined(TFM_ONLY_TYPES) || defined(TFM_TYPE_Q4_0)
#define TFM__Q4_0
#endif
#if !defined(TFM_ONLY_TYPES) || defined(TFM_TYPE_Q4_1)
#define TFM__Q4_1
#endif
#if !defined(TFM_ONLY_TYPES) || defined(TFM_TYPE_Q5_0)
#define TFM__Q5_0
#endif
#if !defined(TFM_ONLY_TYPES) || defined(TFM_TYPE_Q5_1)
#define TFM__Q5_1
#endif
#if !defined(TFM_ONLY_TYPES) || defined(TFM_TYPE_Q2_K)
#define TFM__Q2_K
#endif
#if !defined(TFM_ONLY_TYPES) || defined(TFM_TYPE_Q3_K)
#define TFM__Q3_K
#endif
#if !defined(TFM_ONLY_TYPES) || defined(TFM_TYPE_Q4_K)
#define TFM__Q4_K
#endif
#if !defined(TFM_ONLY_TYPES) || defined(TFM_TYPE_Q5_K)
#define TFM__Q5_K
#endif
#if !defined(TFM_ONLY_TYPES) || defined(TFM_TYPE_Q6_K)
#define TFM__Q6_K
#endif
#if !defined(TFM_ONLY_TYPES) || defined(TFM_TYPE_IQ4_NL)
#define TFM__IQ4_NL
#endif

/* One sub-block of 32, no integer scale: the shape of all types with blocks of 32. */
TFM__INLINE void tfm__unpack_simple(tfm__block *o, float d, float m) {
    o->d = d;
    o->m = m;
    o->sc[0] = o->mins[0] = 1;
}
/* 32 nibbles in 16 bytes: the low halves are elements 0..15, the high ones 16..31. */
TFM__INLINE void tfm__unpack_nibbles(int8_t *q, const uint8_t *p, int offset) {
    for (int i = 0; i < 16; i++) {
        q[i] = (int8_t)((p[i] & 15) - offset);
        q[i + 16] = (int8_t)((p[i] >> 4) - offset);
    }
}
/* The same with a fifth bit for each from 32 bits, little-endian in 4 bytes. */
TFM__INLINE void tfm__unpack_fives(int8_t *q, const uint8_t *high, const uint8_t *p, int offset) {
    for (int i = 0; i < 16; i++) {
        q[i] = (int8_t)((p[i] & 15) + ((high[i >> 3] >> (i & 7) & 1) << 4) - offset);
        q[i + 16] = (int8_t)((p[i] >> 4) + ((high[2 + (i >> 3)] >> (i & 7) & 1) << 4) - offset);
    }
}
TFM__INLINE float tfm__half_at(const uint8_t *p) { return tfm__f16_to_f32(tfm__load_u16(p)); }

#ifdef TFM__Q8_0
static void tfm__unpack_q8_0(const uint8_t *p, tfm__block *o) {     /* d, 32 x int8 */
    tfm__unpack_simple(o, tfm__half_at(p), 0);
    memcpy(o->q, p + 2, 32);
}
#endif
#ifdef TFM__Q4_0
static void tfm__unpack_q4_0(const uint8_t *p, tfm__block *o) {     /* d, 16 bytes of nibbles */
    tfm__unpack_simple(o, tfm__half_at(p), 0);
    tfm__unpack_nibbles(o->q, p + 2, 8);
}
#endif
#ifdef TFM__Q4_1
static void tfm__unpack_q4_1(const uint8_t *p, tfm__block *o) {     /* d, m, nibbles */
    tfm__unpack_simple(o, tfm__half_at(p), tfm__half_at(p + 2));
    tfm__unpack_nibbles(o->q, p + 4, 0);
}
#endif
#ifdef TFM__Q5_0
static void tfm__unpack_q5_0(const uint8_t *p, tfm__block *o) {     /* d, fifth bits, nibbles */
    tfm__unpack_simple(o, tfm__half_at(p), 0);
    tfm__unpack_fives(o->q, p + 2, p + 6, 16);
}
#endif
#ifdef TFM__Q5_1
static void tfm__unpack_q5_1(const uint8_t *p, tfm__block *o) {     /* d, m, fifth bits, nibbles */
    tfm__unpack_simple(o, tfm__half_at(p), tfm__half_at(p + 2));
    tfm__unpack_fives(o->q, p + 4, p + 8, 0);
}
#endif
#ifdef TFM__IQ4_NL
static void tfm__unpack_iq4_nl(const uint8_t *p, tfm__block *o) {   /* d, nibbles that index a curve */
    static const int8_t curve[16] = { -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113 };
    tfm__unpack_simple(o, tfm__half_at(p), 0);
    for (int i = 0; i < 16; i++) {
        o->q[i] = curve[p[2 + i] & 15];
        o->q[i + 16] = curve[p[2 + i] >> 4];
    }
}
#endif

/* K types: 256 elements. Two-bit planes: byte i of a run of 32 holds elements i, i+32, i+64, i+96. */
TFM__UNUSED static void tfm__unpack_pairs(int8_t *q, const uint8_t *p) {
    for (int half = 0; half < 2; half++)
        for (int plane = 0; plane < 4; plane++)
            for (int i = 0; i < 32; i++)
                q[128 * half + 32 * plane + i] = (int8_t)(p[32 * half + i] >> (2 * plane) & 3);
}
#ifdef TFM__Q2_K
static void tfm__unpack_q2_k(const uint8_t *p, tfm__block *o) {     /* 16 (min:4, sc:4), 64 bytes of pairs, d, dmin */
    for (int j = 0; j < 16; j++) {
        o->sc[j] = (int16_t)(p[j] & 15);
        o->mins[j] = (int16_t)(p[j] >> 4);
    }
    tfm__unpack_pairs(o->q, p + 16);
    o->d = tfm__half_at(p + 80);
    o->m = -tfm__half_at(p + 82);
}
#endif
#ifdef TFM__Q3_K
static void tfm__unpack_q3_k(const uint8_t *p, tfm__block *o) {     /* 32 bytes of third bits, pairs, 12 of scales, d */
    const uint8_t *sc = p + 96;
    tfm__unpack_pairs(o->q, p + 32);
    for (int i = 0; i < 256; i++) o->q[i] = (int8_t)(o->q[i] - ((p[i & 31] >> (i >> 5) & 1) ? 0 : 4));
    for (int j = 0; j < 16; j++)        /* six bits: four of them in bytes 0..7, two in 8..11 */
        o->sc[j] = (int16_t)(((sc[j & 7] >> (j & 8 ? 4 : 0) & 15) | (sc[8 + (j & 3)] >> (2 * (j >> 2)) & 3) << 4) - 32);
    o->d = tfm__half_at(p + 108);
    o->m = 0;
}
#endif
/* The 12 bytes of six-bit scales and minimums of Q4_K and Q5_K: sub-blocks 0..3 in the low bits of
   bytes 0..7; 4..7 have four bits in bytes 8..11 and two at the top of bytes 0..7. */
TFM__UNUSED static void tfm__unpack_k4_scales(const uint8_t *p, tfm__block *o) {
    o->d = tfm__half_at(p);
    o->m = -tfm__half_at(p + 2);
    p += 4;
    for (int j = 0; j < 4; j++) {
        o->sc[j] = (int16_t)(p[j] & 63);
        o->mins[j] = (int16_t)(p[j + 4] & 63);
        o->sc[j + 4] = (int16_t)((p[j + 8] & 15) | (p[j] >> 6) << 4);
        o->mins[j + 4] = (int16_t)(p[j + 8] >> 4 | (p[j + 4] >> 6) << 4);
    }
}
#ifdef TFM__Q4_K
static void tfm__unpack_q4_k(const uint8_t *p, tfm__block *o) {     /* d, dmin, scales, 4 x 32 bytes of nibbles */
    tfm__unpack_k4_scales(p, o);
    for (int j = 0; j < 4; j++)
        for (int i = 0; i < 32; i++) {
            o->q[64 * j + i] = (int8_t)(p[16 + 32 * j + i] & 15);
            o->q[64 * j + 32 + i] = (int8_t)(p[16 + 32 * j + i] >> 4);
        }
}
#endif
#ifdef TFM__Q5_K
static void tfm__unpack_q5_k(const uint8_t *p, tfm__block *o) {     /* d, dmin, scales, 32 of fifth bits, nibbles */
    tfm__unpack_k4_scales(p, o);
    for (int j = 0; j < 4; j++)
        for (int i = 0; i < 32; i++) {
            int low = p[48 + 32 * j + i], high = p[16 + i] >> (2 * j);
            o->q[64 * j + i] = (int8_t)((low & 15) | (high & 1) << 4);
            o->q[64 * j + 32 + i] = (int8_t)(low >> 4 | (high & 2) << 3);
        }
}
#endif
#ifdef TFM__Q6_K
static void tfm__unpack_q6_k(const uint8_t *p, tfm__block *o) {     /* nibbles, 64 of high pairs, 16 int8 scales, d */
    for (int half = 0; half < 2; half++)
        for (int i = 0; i < 128; i++) {
            int low = p[64 * half + (i & 63)] >> (i & 64 ? 4 : 0) & 15;
            int high = p[128 + 32 * half + (i & 31)] >> (2 * (i >> 5)) & 3;
            o->q[128 * half + i] = (int8_t)((low | high << 4) - 32);
        }
    for (int j = 0; j < 16; j++) o->sc[j] = (int16_t)(int8_t)p[192 + j];
    o->d = tfm__half_at(p + 208);
    o->m = 0;
}
#endif

typedef struct tfm__type {
    tfm_type type;
    const char *name;
    int block, bytes;                   /* elements and bytes per block */
    int group;                          /* elements per sub-block of a quantized type */
    int bits, offset;                   /* a raw value: of so many bits, without sign below 8, offset to be taken off */
    int swap_at, swap_count, swap_size; /* where numbers of several bytes lie in a block */
    bool has_min;
    void (*unpack)(const uint8_t *block, tfm__block *out);     /* NULL: not quantized, or left out */
} tfm__type;

#define TFM__ROW(name, group, bits, offset, swap_at, swap_count, swap_size, has_min, unpack)                        \
    { TFM_##name, #name, TFM__BLOCK_##name, TFM__BYTES_##name, group, bits, offset, swap_at, swap_count,      \
      swap_size, has_min, unpack }
enum {
#define TFM__X(name, number, block, bytes) TFM__BLOCK_##name = block, TFM__BYTES_##name = bytes,
    TFM_TYPES(TFM__X)
#undef TFM__X
};

static const tfm__type tfm__types[] = {
    TFM__ROW(F32, 0, 0, 0, 0, 1, 4, false, NULL), TFM__ROW(F16, 0, 0, 0, 0, 1, 2, false, NULL),
    TFM__ROW(BF16, 0, 0, 0, 0, 1, 2, false, NULL), TFM__ROW(F64, 0, 0, 0, 0, 1, 8, false, NULL),
    TFM__ROW(I8, 0, 0, 0, 0, 0, 0, false, NULL), TFM__ROW(I16, 0, 0, 0, 0, 1, 2, false, NULL),
    TFM__ROW(I32, 0, 0, 0, 0, 1, 4, false, NULL), TFM__ROW(I64, 0, 0, 0, 0, 1, 8, false, NULL),
#ifdef TFM__Q8_0
    TFM__ROW(Q8_0, 32, 8, 0, 0, 1, 2, false, tfm__unpack_q8_0),
#endif
#ifdef TFM__Q4_0
    TFM__ROW(Q4_0, 32, 4, 8, 0, 1, 2, false, tfm__unpack_q4_0),
#endif
#ifdef TFM__Q4_1
    TFM__ROW(Q4_1, 32, 4, 0, 0, 2, 2, true, tfm__unpack_q4_1),
#endif
#ifdef TFM__Q5_0
    TFM__ROW(Q5_0, 32, 5, 16, 0, 1, 2, false, tfm__unpack_q5_0),
#endif
#ifdef TFM__Q5_1
    TFM__ROW(Q5_1, 32, 5, 0, 0, 2, 2, true, tfm__unpack_q5_1),
#endif
#ifdef TFM__Q2_K
    TFM__ROW(Q2_K, 16, 2, 0, 80, 2, 2, true, tfm__unpack_q2_k),
#endif
#ifdef TFM__Q3_K
    TFM__ROW(Q3_K, 16, 3, 4, 108, 1, 2, false, tfm__unpack_q3_k),
#endif
#ifdef TFM__Q4_K
    TFM__ROW(Q4_K, 32, 4, 0, 0, 2, 2, true, tfm__unpack_q4_k),
#endif
#ifdef TFM__Q5_K
    TFM__ROW(Q5_K, 32, 5, 0, 0, 2, 2, true, tfm__unpack_q5_k),
#endif
#ifdef TFM__Q6_K
    TFM__ROW(Q6_K, 16, 6, 32, 208, 1, 2, false, tfm__unpack_q6_k),
#endif
#ifdef TFM__IQ4_NL
    TFM__ROW(IQ4_NL, 32, 8, 0, 0, 1, 2, false, tfm__unpack_iq4_nl),
#endif
};
#undef TFM__ROW

/* NULL for a type that this build does not know. */
static const tfm__type *tfm__type_of(tfm_type type) {
    for (size_t i = 0; i < sizeof tfm__types / sizeof *tfm__types; i++)
        if (tfm__types[i].type == type) return &tfm__types[i];
    return NULL;
}
TFMDEF const char *tfm_type_name(tfm_type type) {
    const tfm__type *t = tfm__type_of(type);
    return t ? t->name : "?";
}
TFMDEF int64_t tfm_type_block(tfm_type type) {
    const tfm__type *t = tfm__type_of(type);
    return t ? t->block : 0;
}
TFMDEF int64_t tfm_type_bytes(tfm_type type) {
    const tfm__type *t = tfm__type_of(type);
    return t ? t->bytes : 0;
}
static bool tfm__is_quantized(tfm_type type) {
    const tfm__type *t = tfm__type_of(type);
    return t && t->unpack;
}
/* What ops read as numbers: floats and quantized weights. */
static bool tfm__is_numeric(tfm_type type) {
    return type == TFM_F32 || type == TFM_F16 || type == TFM_BF16 || tfm__is_quantized(type);
}

/* The one source of a tensor's size. A zero dimension is its own case, before any product. */
static bool tfm__tensor_bytes(tfm_type type, tfm_shape s, size_t *out) {
    const tfm__type *t = tfm__type_of(type);
    if (!t || s.rank < 1 || s.rank > 4) return false;
    int64_t row = s.dim[s.rank - 1];
    bool zero = false;
    for (int i = 0; i < s.rank; i++) {
        if (s.dim[i] < 0) return false;
        if (s.dim[i] == 0) zero = true;
    }
    if (row % t->block) return false;
    *out = 0;
    if (zero) return true;
    size_t bytes = (size_t)t->bytes;
    if ((uint64_t)(row / t->block) > SIZE_MAX || !tfm__mul(bytes, (size_t)(row / t->block), &bytes)) return false;
    for (int i = 0; i < s.rank - 1; i++)
        if ((uint64_t)s.dim[i] > SIZE_MAX || !tfm__mul(bytes, (size_t)s.dim[i], &bytes)) return false;
    if (bytes > SIZE_MAX / 2) return false;          /* differences of pointers must fit */
    *out = bytes;
    return true;
}

/* One element of a plain type. */
static float tfm__element(tfm_type type, const uint8_t *p) {
    int16_t i16;
    int32_t i32;
    int64_t i64;
    double f64;
    switch (type) {
        case TFM_F16: return tfm__f16_to_f32(tfm__load_u16(p));
        case TFM_BF16: return tfm__bf16_to_f32(tfm__load_u16(p));
        case TFM_I8: return p[0] < 128 ? (float)p[0] : (float)p[0] - 256.0f;
        case TFM_I16: memcpy(&i16, p, sizeof i16); return (float)i16;
        case TFM_I32: memcpy(&i32, p, sizeof i32); return (float)i32;
        case TFM_I64: memcpy(&i64, p, sizeof i64); return (float)i64;
        case TFM_F64: memcpy(&f64, p, sizeof f64); return (float)f64;
        default: return 0;
    }
}
/* Decodes n elements (whole blocks) that may lie at any address. */
static void tfm__decode(tfm_type type, const void *src, float *dst, int64_t n) {
    const uint8_t *p = (const uint8_t *)src;
    const tfm__type *t = tfm__type_of(type);
    if (type == TFM_F32) {
        if (n) memcpy(dst, p, (size_t)n * sizeof *dst);
    } else if (type == TFM_F16) {
        for (int64_t i = 0; i < n; i++) dst[i] = tfm__f16_to_f32(tfm__load_u16(p + 2 * i));
    } else if (t && !t->unpack) {
        for (int64_t i = 0; i < n; i++) dst[i] = tfm__element(type, p + i * t->bytes);
    } else if (t) {
        tfm__block b;
        for (int64_t at = 0; at < n; at += t->block, p += t->bytes) {
            t->unpack(p, &b);
            for (int i = 0; i < t->block; i++) {
                int j = i / t->group;
                float y = b.d * (float)b.sc[j] * (float)b.q[i];
                dst[at + i] = t->has_min ? y + b.m * (float)b.mins[j] : y;
            }
        }
    }
}

/* Rows interleaved by eight, on request, for types that decode faster so: eight rows lie where they lay
   before, block by block, each as
     d of 8 rows (f16), m of 8 rows if the type has minimums (f16)
     blocks of 256: integer scales [sub-block/4][8 rows][4] (bytes), minimums the same
     for each 32 elements, with byte 4r + t for element t of a quad of row r:
       4 x 32 bytes: low four bits of quad i in the low, of quad i + 4 in the high half
       5 bits: 32 bytes, bit i of each from quad i; 6 bits: 2 x 32 bytes, two bits of four quads each
       8 bits: instead, 8 x 32 bytes */
enum { TFM__ROWS = 8 };

TFM__UNUSED static bool tfm__interleaves(const tfm__type *t) {
    return t->unpack && (t->type == TFM_Q8_0 || (t->bits >= 4 && t->bits <= 6));
}
TFM__UNUSED static size_t tfm__interleaved_bytes(const tfm__type *t) {         /* of eight rows' blocks */
    int subs = t->block / t->group, halves = t->has_min ? 2 : 1;
    return (size_t)(TFM__ROWS * (halves * (t->block == 256 ? 2 + subs : 2)) + t->block / 32 * t->bits * 32);
}
/* Eight rows, `stride` bytes apart, of k elements. */
TFM__UNUSED static void tfm__interleave(const tfm__type *t, const uint8_t *rows, int64_t stride, int64_t k,
                                        uint8_t *out) {
    tfm__block b;
    int subs = t->block / t->group, at = t->swap_at;
    for (int64_t i = 0; i < k / t->block; i++, out += tfm__interleaved_bytes(t)) {
        uint8_t *scales = out + (t->has_min ? 4 : 2) * TFM__ROWS;
        uint8_t *bits = t->block == 256 ? scales + (t->has_min ? 2 : 1) * subs * TFM__ROWS : scales;
        memset(bits, 0, (size_t)(t->block * t->bits));
        for (int r = 0; r < TFM__ROWS; r++) {
            const uint8_t *p = rows + r * stride + i * t->bytes;
            t->unpack(p, &b);
            memcpy(out + 2 * r, p + at, 2);
            if (t->has_min) memcpy(out + 2 * (TFM__ROWS + r), p + at + 2, 2);
            for (int j = 0; t->block == 256 && j < subs; j++) {
                int to = j / 4 * 32 + 4 * r + j % 4;
                scales[to] = (uint8_t)b.sc[j];
                if (t->has_min) scales[TFM__ROWS * subs + to] = (uint8_t)b.mins[j];
            }
            for (int e = 0; e < t->block; e++) {
                int raw = b.q[e] + t->offset, quad = e / 4 % 8;
                uint8_t *byte = bits + e / 32 * t->bits * 32 + 4 * r + e % 4;
                if (t->bits == 8) { byte[quad * 32] = (uint8_t)raw; continue; }
                byte[quad % 4 * 32] |= (uint8_t)((raw & 15) << (quad / 4 * 4));
                if (t->bits == 5) byte[128] |= (uint8_t)((raw >> 4) << quad);
                if (t->bits == 6) byte[128 + quad / 4 * 32] |= (uint8_t)((raw >> 4) << (quad % 4 * 2));
            }
        }
    }
}

/* ---- Mathematics ------------------------------------------------------------- [KERNELS.MATH]
   Every function is the same sequence of operations everywhere. `fma` says how a*b + c is done:
   it is a constant in each instance of a kernel, so that one body serves all portable levels.
   Coefficients: tools/fit.py.                                                                  */

enum { TFM__FMA_NONE, TFM__FMA_SOFT, TFM__FMA_HARD };

/* a*b + c rounded once, without the instruction. The product of two floats is exact in double; the
   sum is rounded to odd there, so that the rounding to float is the only one that counts. */
static float tfm__fma_soft(float a, float b, float c) {
    double p = (double)a * (double)b, s = p + (double)c;
    double t = s - p, error = (p - (s - t)) + ((double)c - t);      /* exact: s + error = p + c */
    uint64_t u;
    memcpy(&u, &s, sizeof u);
    if (error != 0 && !(u & 1) && s - s == 0) {     /* an infinite s has a NaN error: keep s */
        u += (error > 0) == (s > 0) ? 1 : (uint64_t)0 - 1;
        memcpy(&s, &u, sizeof s);
    }
    return (float)s;
}
TFM__INLINE float tfm__fma(int fma, float a, float b, float c) {
#if defined(__GNUC__) || defined(__clang__)
    if (fma == TFM__FMA_HARD) return __builtin_fmaf(a, b, c);
#endif
    if (fma == TFM__FMA_SOFT) return tfm__fma_soft(a, b, c);
    return a * b + c;
}

TFM__INLINE float tfm__maxf(float a, float b) { return a > b ? a : b; }
#define TFM__INF tfm__from_bits(0x7f800000u)
#define TFM__NAN tfm__from_bits(0x7fc00000u)
TFM__INLINE bool tfm__finite(float x) { return (tfm__to_bits(x) & 0x7f800000u) != 0x7f800000u; }

/* x = n ln 2 + r, |r| <= ln 2 / 2: the large constant pushes the integer into the low bits. */
TFM__INLINE float tfm__exp_reduce(int fma, float x, uint32_t *n) {
    float t = tfm__fma(fma, x, 1.44269504f, 12582912.0f), k = t - 12582912.0f;
    *n = tfm__to_bits(t) - 0x4b400000u;
    return tfm__fma(fma, k, -1.4286068e-06f, tfm__fma(fma, k, -0.693145752f, x));
}
/* e^r - 1 for such an r */
TFM__INLINE float tfm__exp_tail(int fma, float r) {
    float p = tfm__fma(fma, 0.00139506022f, r, 0.00836895313f);
    p = tfm__fma(fma, p, r, 0.041666206f);
    p = tfm__fma(fma, p, r, 0.166665182f);
    p = tfm__fma(fma, p, r, 0.5f);
    return tfm__fma(fma, r * r, p, r);
}

/* No branches, and integers that may wrap: a NaN passes, whatever n becomes. */
TFM__INLINE float tfm__exp(int fma, float x) {
    uint32_t n;
    x = x > 89.0f ? 89.0f : x;
    x = x < -104.0f ? -104.0f : x;
    float y = 1.0f + tfm__exp_tail(fma, tfm__exp_reduce(fma, x, &n));
    uint32_t biased = n + 2 * 127, half = biased / 2;       /* 2^n in two factors: n reaches from -150 to 128 */
    return y * tfm__from_bits(half << 23) * tfm__from_bits((biased - half) << 23);
}
/* The same for x <= 0 or NaN: 2^n, n from -150 to 0, in the factors 2^(n + 63) and 2^-63. */
TFM__INLINE float tfm__exp_below(int fma, float x) {
    uint32_t n;
    x = x < -104.0f ? -104.0f : x;
    float y = 1.0f + tfm__exp_tail(fma, tfm__exp_reduce(fma, x, &n));
    return y * tfm__from_bits((n + 63 + 127) << 23) * 0x1p-63f;
}
TFM__INLINE float tfm__sigmoid(int fma, float x) { return 1.0f / (1.0f + tfm__exp(fma, -x)); }

/* (e^2a - 1) / (e^2a + 1) of a = |x|, with e^2a - 1 = 2^n q + (2^n - 1) exact near 0. */
TFM__INLINE float tfm__tanh(int fma, float x) {
    uint32_t n, sign = tfm__to_bits(x) & 0x80000000u;
    float a = 2.0f * tfm__from_bits(tfm__to_bits(x) ^ sign);
    a = a > 20.0f ? 20.0f : a;
    float q = tfm__exp_tail(fma, tfm__exp_reduce(fma, a, &n));
    float s = tfm__from_bits((n + 127) << 23), m = tfm__fma(fma, s, q, s - 1.0f), y = m / (m + 2.0f);
    return tfm__from_bits(tfm__to_bits(y) | sign);
}
/* A polynomial near 0; elsewhere 1 - e^-(t p(t)) of t = |x|. */
TFM__INLINE float tfm__erf(int fma, float x) {
    uint32_t sign = tfm__to_bits(x) & 0x80000000u;
    float t = tfm__from_bits(tfm__to_bits(x) ^ sign), s = x * x;
    bool near_zero = t < 0.9375f;
    float p = tfm__fma(fma, 8.29282944e-05f, s, -0.000812489423f);
    p = tfm__fma(fma, p, s, 0.00519951805f);
    p = tfm__fma(fma, p, s, -0.0268588178f);
    p = tfm__fma(fma, p, s, 0.11283686f);
    p = tfm__fma(fma, p, s, -0.376126319f);
    p = tfm__fma(fma, p, s, 0.128379166f);
    float y = tfm__fma(fma, p, x, x);
    t = t > 4.0f ? 4.0f : t;
    p = tfm__fma(fma, 4.63925471e-06f, t, -4.19465396e-05f);
    p = tfm__fma(fma, p, t, -6.80659286e-05f);
    p = tfm__fma(fma, p, t, 0.00298109907f);
    p = tfm__fma(fma, p, t, -0.0227564014f);
    p = tfm__fma(fma, p, t, 0.105340555f);
    p = tfm__fma(fma, p, t, 0.635585248f);
    p = tfm__fma(fma, p, t, 1.12856042f);
    p = 1.0f - tfm__exp(fma, -(t * p));
    return near_zero ? y : tfm__from_bits(tfm__to_bits(p) | sign);
}

/* Double functions: plain operations, never fused, series of our own (atanh for the logarithm, Taylor), errors
   of a few 1e-16. */
static double tfm__log(double x) {
    uint64_t u;
    memcpy(&u, &x, sizeof u);
    if (!(x > 0)) return x == 0 ? -(double)TFM__INF : (double)TFM__NAN;
    if (x - x != 0) return x;
    int64_t e = 0;
    if (x < 2.2250738585072014e-308) { x *= 18014398509481984.0; e = -54; memcpy(&u, &x, sizeof u); }
    e += (int64_t)(u >> 52) - 1023;
    u = (u & 0xfffffffffffffu) | (uint64_t)1023 << 52;
    double m;
    memcpy(&m, &u, sizeof m);
    if (m > 1.4142135623730951) { m /= 2; e++; }
    double s = (m - 1) / (m + 1), z = s * s, t = 0;
    for (int i = 23; i > 1; i -= 2) t = (t + 1.0 / i) * z;
    return (double)e * 0.6931471804855391 + ((double)e * 7.440617110012397e-11 + 2 * s * (1 + t));
}
/* e^x for |x| <= 708; r is in -0.35 to 1.04. */
TFM__INLINE double tfm__exp_within(double x) {
    double k = x * 1.4426950408889634074 - 0.5, y = 1, scale;
    int32_t n = (int32_t)k;
    double r = x - (double)n * 0.6931471804855391 - (double)n * 7.440617110012397e-11;
    TFM__UNROLL for (int i = 17; i > 0; i--) y = 1 + y * r / i;
    uint64_t u = (uint64_t)(n + 1023) << 52;
    memcpy(&scale, &u, sizeof scale);
    return y * scale;
}
static double tfm__exp_double(double x) {
    if (x != x) return x;
    return x > 708 ? (double)TFM__INF : x < -708 ? 0 : tfm__exp_within(x);
}

/* ---- Portable kernels ------------------------------------------------------------ [KERNELS.C]
   These bodies define every result; a kernel for an instruction set must give the same bits.
   Each takes a job and a range of its independent outputs.                                     */

#ifndef TFM_HEAD_MAX
#define TFM_HEAD_MAX 1024
#endif
enum { TFM__LANES = 16, TFM__COLUMNS = 8, TFM__UNIT = 32, TFM__PANEL = 16, TFM__CHUNK = 256, TFM__KEYS = 64,
       TFM__SEGMENT = 16 * 64, TFM__QUERY_TILE = 12, TFM__QUERIES = 96, TFM__HEAD_MAX = TFM_HEAD_MAX };

/* Sums over a row run in `lanes` chains, element k in chain k % lanes: one below 256 elements, else
   16, joined by a tree. */
TFM__INLINE int tfm__lanes(int64_t k) { return k < 256 ? 1 : TFM__LANES; }
TFM__INLINE float tfm__join(float *t, int lanes) {
    for (int h = lanes / 2; h; h /= 2)
        for (int i = 0; i < h; i++) t[i] = t[i] + t[i + h];
    return t[0];
}
/* t += a . b over n elements, the first of which belongs to lane 0. */
TFM__INLINE void tfm__dot_lanes(int fma, const float *a, const float *b, int64_t n, int lanes, float *t) {
    int64_t k = 0;
    if (lanes == 1) {
        float s = t[0];
        for (; k < n; k++) s = tfm__fma(fma, a[k], b[k], s);
        t[0] = s;
        return;
    }
    for (; k + TFM__LANES <= n; k += TFM__LANES)
        for (int i = 0; i < TFM__LANES; i++) t[i] = tfm__fma(fma, a[k + i], b[k + i], t[i]);
    for (int i = 0; k < n; k++, i++) t[i] = tfm__fma(fma, a[k], b[k], t[i]);
}

/* t += the sum of x, likewise. */
TFM__INLINE void tfm__sum_lanes(const float *x, int64_t n, int lanes, float *t) {
    int64_t k = 0;
    if (lanes == 1) {
        float s = t[0];
        for (; k < n; k++) s += x[k];
        t[0] = s;
        return;
    }
    for (; k + TFM__LANES <= n; k += TFM__LANES)
        for (int i = 0; i < TFM__LANES; i++) t[i] += x[k + i];
    for (int i = 0; k < n; k++, i++) t[i] += x[k];
}

/* Activations for quantized weights: per group of 32 or 256, d = amax/127 and q = round(x/d). One
   row is [d: groups x f32][sums of 16 q: K/16 x i16][q: K x i8], a multiple of 4 bytes. */
TFM__INLINE int tfm__act_group(const tfm__type *t) { return t->block == 256 ? 256 : 32; }
static size_t tfm__act_bytes(int64_t k, int group) { return (size_t)(k / group * 4 + k / 8 + k); }

typedef struct tfm__act { const float *d; const int16_t *sums; const int8_t *q; } tfm__act;
TFM__INLINE tfm__act tfm__act_at(const char *row, int64_t k, int group) {
    tfm__act a;
    a.d = (const float *)(const void *)row;
    a.sums = (const int16_t *)(const void *)(row + k / group * 4);
    a.q = (const int8_t *)(row + k / group * 4 + k / 8);
    return a;
}

/* Vector kernels of float products read panels of `width` rows, [lane][step][width]: the lanes in the
   order in which the tree joins them, each a step longer than needed, so that lanes do not meet in the
   same sets of a cache. Floats of one panel: */
TFM__INLINE int64_t tfm__lane_rows(int64_t k) {
    return (tfm__lanes(k) == 1 ? k : (k + TFM__LANES - 1) / TFM__LANES) + 1;
}
TFM__INLINE size_t tfm__float_panel(int64_t k, int width) {
    return (size_t)(tfm__lanes(k) * tfm__lane_rows(k) * width);
}
/* Tiles of `width` columns are such panels if the rows are long, else rows as they lie: 12 of them fit in L1. */
TFM__INLINE bool tfm__float_packs(int64_t k, int width) { return width > 1 && k > 768; }
static size_t tfm__float_tile_bytes(int64_t k, int width) {
    return sizeof(float) * (tfm__float_packs(k, width) ? tfm__float_panel(k, width) : (size_t)(k * width));
}

/* Columns of a product made ready for its kernel, `width` of them to a tile. */
typedef struct tfm__columns_job {
    const float *x;                     /* [n, k], contiguous */
    char *out;                          /* tiles of width * tfm__act_bytes, or panels for group 0 */
    int64_t n, k;
    int group, width;
    int factor;                         /* a tile keeps sums of 32 times this, as floats; 0: the sums of 16 */
    char *scratch;                      /* one piece per thread: a row */
    size_t scratch_stride;
} tfm__columns_job;

/* The scales of a row; NaN in all of them, and false, if it has a NaN or an infinity. The bits of |x|
   are ordered like |x|, infinity and NaN above all. */
TFM__INLINE bool tfm__quantize_scales(const float *x, int64_t k, int group, float *d) {
    uint32_t most_of_all = 0;
    for (int64_t g = 0; g < k / group; g++) {
        uint32_t most = 0;
        for (int part = 0; part < group; part += 32)
            for (int i = 0; i < 32; i++) {
                uint32_t bits = tfm__to_bits(x[g * group + part + i]) & 0x7fffffffu;
                most = bits > most ? bits : most;
            }
        float scale = tfm__from_bits(most) / 127.0f;
        d[g] = scale > 0x1p-128f ? scale : 0;       /* zeros, or too small: 1/d would be infinite */
        most_of_all = most > most_of_all ? most : most_of_all;
    }
    if (most_of_all < 0x7f800000u) return true;
    for (int64_t g = 0; g < k / group; g++) d[g] = TFM__NAN;
    return false;
}
TFM__INLINE float tfm__quantize_factor(float d) { return d > 0 ? 1.0f / d : 0; }
static void tfm__quantize_row(const float *x, int64_t k, int group, char *row) {
    float *d = (float *)(void *)row;
    int16_t *sums = (int16_t *)(void *)(row + k / group * 4);
    int8_t *q = (int8_t *)(row + k / group * 4 + k / 8);
    if (!tfm__quantize_scales(x, k, group, d)) { memset(sums, 0, (size_t)(k / 8 + k)); return; }
    for (int64_t s = 0; s < k / 16; s++) {
        float factor = tfm__quantize_factor(d[s * 16 / group]);
        int sum = 0;
        for (int64_t i = s * 16; i < s * 16 + 16; i++) {        /* |x/d| <= 127.0001: */
            q[i] = (int8_t)(uint8_t)tfm__to_bits(x[i] * factor + 12582912.0f);  /* the low byte is the integer */
            sum += q[i];
        }
        sums[s] = (int16_t)sum;
    }
}
static void tfm__columns_quantize(void *arg, int64_t begin, int64_t end, int thread) {
    const tfm__columns_job *j = (const tfm__columns_job *)arg;
    (void)thread;
    for (int64_t r = begin; r < end; r++)
        tfm__quantize_row(j->x + r * j->k, j->k, j->group, j->out + (size_t)r * tfm__act_bytes(j->k, j->group));
}

/* Rows of a matrix on their way into panels. Rows missing in the last panel hold anything: nobody reads
   their sums. */
typedef struct tfm__pack {
    tfm_type type;                      /* F32, F16, BF16 */
    const char *w;
    int64_t stride, step, rows, k;      /* bytes along rows and along k */
    int lanes, width;                   /* of a panel */
    float *out;
} tfm__pack;

/* y[r, c] = w row r . x column c + bias[r]: the product under dense, matmul, conv and RNNs. A job
   has several parts if several matrices meet the same columns; its units are TFM__UNIT rows of a part. */
typedef struct tfm__part {
    const tfm__type *type;
    const char *w;                      /* rows of k elements, w_stride bytes apart, at any address */
    const char *interleaved;            /* the same rows interleaved by eight, or NULL */
    int64_t w_stride, rows;
    int64_t w_step;                     /* bytes along a row; not type->bytes only for vector kernels, float types */
    const float *packed;                /* the same rows as panels (tfm__kernels.pack), or NULL */
    const float *bias;                  /* [rows], or NULL */
    float *y;
    int64_t y_row, y_column;            /* strides of y in floats, along r and along c */
} tfm__part;

typedef struct tfm__gemm_job {
    const tfm__part *parts;
    int count;
    const char *x;                      /* n rows of k floats, or the tiles that a columns_job made */
    size_t x_stride;                    /* of a row or a tile */
    int width;                          /* columns of a tile */
    int64_t k, n;
    char *scratch;                      /* one piece per thread */
    size_t scratch_stride;
} tfm__gemm_job;

/* Rows begin..end-1 of a part, to be packed. */
TFM__INLINE tfm__pack tfm__pack_of(const tfm__part *part, int64_t k, int64_t begin, int64_t end, float *out) {
    tfm__pack p = { part->type->type, part->w + begin * part->w_stride, part->w_stride, part->w_step, end - begin, k,
                    tfm__lanes(k), TFM__PANEL, out };
    return p;
}
/* The rows of units unit..end-1 that lie in one part; the unit after them. */
static int64_t tfm__gemm_rows(const tfm__gemm_job *j, int64_t unit, int64_t end, const tfm__part **part,
                              int64_t *first, int64_t *last) {
    int64_t before = 0, units = 0;
    for (const tfm__part *p = j->parts;; p++, before += units) {
        units = (p->rows + TFM__UNIT - 1) / TFM__UNIT;
        if (unit >= before + units) continue;
        *part = p;
        *first = (unit - before) * TFM__UNIT;
        *last = tfm__min64((end - before) * TFM__UNIT, p->rows);
        return tfm__min64(end, before + units);
    }
}
TFM__INLINE void tfm__gemm_store(const tfm__part *p, int64_t r, int64_t c, float v) {
    p->y[r * p->y_row + c * p->y_column] = p->bias ? v + p->bias[r] : v;
}

TFM__INLINE void tfm__gemm_float(int fma, const tfm__gemm_job *j, const tfm__part *p, int64_t begin, int64_t end) {
    int lanes = tfm__lanes(j->k);
    float wide[TFM__CHUNK], t[TFM__COLUMNS][TFM__LANES];
    for (int64_t r = begin; r < end; r++) {
        const char *w = p->w + r * p->w_stride;
        for (int64_t c0 = 0; c0 < j->n; c0 += TFM__COLUMNS) {
            int columns = (int)tfm__min64(TFM__COLUMNS, j->n - c0);
            memset(t, 0, sizeof t);
            for (int64_t k = 0; k < j->k; k += TFM__CHUNK) {
                int64_t n = tfm__min64(TFM__CHUNK, j->k - k);
                tfm__decode(p->type->type, w + k * p->type->bytes, wide, n);
                for (int c = 0; c < columns; c++) {
                    const float *x = (const float *)(const void *)(j->x + (size_t)(c0 + c) * j->x_stride);
                    tfm__dot_lanes(fma, wide, x + k, n, lanes, t[c]);
                }
            }
            for (int c = 0; c < columns; c++) tfm__gemm_store(p, r, c0 + c, tfm__join(t[c], lanes));
        }
    }
}

/* Bounds with |x| <= 127, over 256 elements: |sum| <= 256 * 127 * |q| * |sc|, at most 133 M (Q6_K:
   32 * 128); |msum| <= 63 * 127 * 256 = 2.1 M. Both fit int32. */
TFM__INLINE void tfm__block_sums(const tfm__type *t, const tfm__block *b, const int8_t *x, const int16_t *sums,
                                 int32_t *isum, int32_t *msum) {
    int32_t total = 0, mins = 0;
    int per_scale = t->group / 16;
    for (int s = 0; s < t->block / 16; s++) {
        int32_t dot = 0;
        for (int i = 0; i < 16; i++) dot += b->q[16 * s + i] * x[16 * s + i];
        total += dot * b->sc[s / per_scale];
        if (t->has_min) mins += sums[s] * b->mins[s / per_scale];
    }
    *isum = total;
    *msum = mins;
}
TFM__INLINE void tfm__gemm_quantized(int fma, const tfm__gemm_job *j, const tfm__part *p, int64_t begin,
                                     int64_t end) {
    const tfm__type *t = p->type;
    int group = tfm__act_group(t);
    float acc[TFM__COLUMNS];
    tfm__block b;
    for (int64_t r = begin; r < end; r++) {
        const uint8_t *w = (const uint8_t *)p->w + r * p->w_stride;
        for (int64_t c0 = 0; c0 < j->n; c0 += TFM__COLUMNS) {
            int columns = (int)tfm__min64(TFM__COLUMNS, j->n - c0);
            memset(acc, 0, sizeof acc);
            for (int64_t k = 0; k < j->k; k += t->block) {
                t->unpack(w + k / t->block * t->bytes, &b);
                for (int c = 0; c < columns; c++) {
                    int32_t isum, msum;
                    tfm__act a = tfm__act_at(j->x + (size_t)(c0 + c) * j->x_stride, j->k, group);
                    float dx = a.d[k / group];
                    tfm__block_sums(t, &b, a.q + k, a.sums + k / 16, &isum, &msum);
                    acc[c] = tfm__fma(fma, (float)isum, b.d * dx, acc[c]);
                    if (t->has_min) acc[c] = tfm__fma(fma, (float)msum, b.m * dx, acc[c]);
                }
            }
            for (int c = 0; c < columns; c++) tfm__gemm_store(p, r, c0 + c, acc[c]);
        }
    }
}
TFM__INLINE void tfm__gemm_run(int fma, const tfm__gemm_job *j, int64_t begin, int64_t end) {
    const tfm__part *p;
    for (int64_t first, last; begin < end;) {
        begin = tfm__gemm_rows(j, begin, end, &p, &first, &last);
        if (p->type->unpack) tfm__gemm_quantized(fma, j, p, first, last);
        else tfm__gemm_float(fma, j, p, first, last);
    }
}

/* Elementwise functions, times another operand if there is one. */
typedef enum tfm__unary { TFM__RELU, TFM__GELU, TFM__GELU_TANH, TFM__SILU, TFM__TANH, TFM__SIGMOID } tfm__unary;
typedef struct tfm__unary_job {
    tfm__unary op;
    const float *x, *times;             /* times: or NULL */
    float *y;
} tfm__unary_job;

TFM__INLINE float tfm__activate(int fma, tfm__unary op, float x) {
    switch (op) {
        case TFM__RELU: return x < 0 ? 0 : x;
        case TFM__GELU: return 0.5f * x * (1.0f + tfm__erf(fma, x * 0.707106781f));
        case TFM__GELU_TANH:
            return 0.5f * x * (1.0f + tfm__tanh(fma, 0.797884561f * x * tfm__fma(fma, 0.044715f * x, x, 1.0f)));
        case TFM__SILU: return x / (1.0f + tfm__exp(fma, -x));
        case TFM__TANH: return tfm__tanh(fma, x);
        case TFM__SIGMOID: return tfm__sigmoid(fma, x);
    }
    return x;
}
TFM__INLINE void tfm__unary_loop(int fma, tfm__unary op, const float *x, float *y, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] = tfm__activate(fma, op, x[i]);
}
/* Loops that a compiler can turn into vectors, here and below: what they make goes into an array of
   its own first, since y may be an operand. */
TFM__INLINE void tfm__unary_run(int fma, const tfm__unary_job *j, int64_t begin, int64_t end) {
    float y[TFM__CHUNK];
    for (int64_t n; begin < end; begin += n) {
        const float *x = j->x + begin, *times = j->times ? j->times + begin : NULL;
        n = tfm__min64(TFM__CHUNK, end - begin);
        switch (j->op) {                /* a loop for each, its function a constant */
            case TFM__RELU: tfm__unary_loop(fma, TFM__RELU, x, y, n); break;
            case TFM__GELU: tfm__unary_loop(fma, TFM__GELU, x, y, n); break;
            case TFM__GELU_TANH: tfm__unary_loop(fma, TFM__GELU_TANH, x, y, n); break;
            case TFM__SILU: tfm__unary_loop(fma, TFM__SILU, x, y, n); break;
            case TFM__TANH: tfm__unary_loop(fma, TFM__TANH, x, y, n); break;
            case TFM__SIGMOID: tfm__unary_loop(fma, TFM__SIGMOID, x, y, n); break;
        }
        for (int64_t i = 0; times && i < n; i++) y[i] *= times[i];
        memcpy(j->y + begin, y, (size_t)n * sizeof *y);
    }
}

/* Rows of d elements: norms, softmax, sums. The row rule of tfm__lanes holds for each sum. */
typedef enum tfm__row_op { TFM__ROW_LAYERNORM, TFM__ROW_RMSNORM, TFM__ROW_SOFTMAX, TFM__ROW_LOG_SOFTMAX,
                           TFM__ROW_SUM, TFM__ROW_MAX } tfm__row_op;
typedef struct tfm__rows_job {
    tfm__row_op op;
    const float *x;
    float *y;                           /* [n, d]; [n] for sum and max */
    int64_t d;
    const float *w, *b;                 /* [d] or NULL */
    float eps;
} tfm__rows_job;

TFM__INLINE float tfm__row_sum(const float *x, int64_t d) {
    float t[TFM__LANES] = { 0 };
    tfm__sum_lanes(x, d, tfm__lanes(d), t);
    return tfm__join(t, tfm__lanes(d));
}
/* The first of the largest, for the sign of a zero; NaN if there is one, or no element. */
TFM__INLINE float tfm__row_max(const float *x, int64_t d) {
    enum { LANES = 2 * TFM__LANES };
    float m[LANES], most = -TFM__INF;
    uint32_t nan = d == 0;
    int64_t k = 0;
    for (int i = 0; i < LANES; i++) m[i] = most;
    for (; k + LANES <= d; k += LANES)
        for (int i = 0; i < LANES; i++) m[i] = tfm__maxf(x[k + i], m[i]);
    for (; k < d; k++) m[0] = tfm__maxf(x[k], m[0]);
    for (int i = 0; i < LANES; i++) most = tfm__maxf(m[i], most);
    for (int64_t i = 0; i < d; i++) nan |= x[i] != x[i];
    if (nan) return TFM__NAN;
    for (int64_t i = 0; most == 0; i++) if (x[i] == 0) return x[i];
    return most;
}
TFM__INLINE void tfm__row_norm(int fma, const tfm__rows_job *j, const float *x, float mean, float *y) {
    float t[TFM__LANES] = { 0 }, v[TFM__CHUNK];
    int lanes = tfm__lanes(j->d);
    if (j->op == TFM__ROW_RMSNORM) tfm__dot_lanes(fma, x, x, j->d, lanes, t);
    else for (int64_t at = 0, n; at < j->d; at += n) {
        n = tfm__min64(TFM__CHUNK, j->d - at);
        for (int64_t i = 0; i < n; i++) v[i] = x[at + i] - mean;
        tfm__dot_lanes(fma, v, v, n, lanes, t);
    }
    float scale = 1.0f / sqrtf(tfm__join(t, lanes) / (float)j->d + j->eps);
    for (int64_t at = 0, n; at < j->d; at += n) {
        const float *w = j->w ? j->w + at : NULL;
        n = tfm__min64(TFM__CHUNK, j->d - at);
        if (w) for (int64_t i = 0; i < n; i++) v[i] = (x[at + i] - mean) * scale * w[i];
        else for (int64_t i = 0; i < n; i++) v[i] = (x[at + i] - mean) * scale;
        for (int64_t i = 0; j->b && i < n; i++) v[i] += j->b[at + i];
        memcpy(y + at, v, (size_t)n * sizeof *v);
    }
}
TFM__INLINE void tfm__row_softmax(int fma, const tfm__rows_job *j, const float *x, float max, float *y) {
    float t[TFM__LANES] = { 0 }, e[TFM__CHUNK];
    int lanes = tfm__lanes(j->d);
    bool log = j->op == TFM__ROW_LOG_SOFTMAX;
    if (max == -TFM__INF) {             /* nothing to choose from */
        for (int64_t i = 0; i < j->d; i++) y[i] = log ? max : 0;
        return;
    }
    for (int64_t at = 0, n; at < j->d; at += n) {
        n = tfm__min64(TFM__CHUNK, j->d - at);
        for (int64_t i = 0; i < n; i++) e[i] = tfm__exp_below(fma, x[at + i] - max);
        tfm__sum_lanes(e, n, lanes, t);
        if (!log) memcpy(y + at, e, (size_t)n * sizeof *e);
    }
    float sum = tfm__join(t, lanes), scale = 1.0f / sum;
    if (log) {
        float shift = (float)tfm__log((double)sum);
        for (int64_t i = 0; i < j->d; i++) y[i] = x[i] - max - shift;
    } else {
        for (int64_t i = 0; i < j->d; i++) y[i] *= scale;
    }
}
TFM__INLINE void tfm__rows_run(int fma, const tfm__rows_job *j, int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
        const float *x = j->d ? j->x + r * j->d : NULL;
        float *y = j->d ? j->y + r * j->d : NULL;
        bool sums = j->op == TFM__ROW_SUM || j->op == TFM__ROW_LAYERNORM;
        bool norm = j->op == TFM__ROW_RMSNORM || j->op == TFM__ROW_LAYERNORM;
        float sum = sums ? tfm__row_sum(x, j->d) : 0, max = sums || norm ? 0 : tfm__row_max(x, j->d);
        if (norm) tfm__row_norm(fma, j, x, sum / (float)j->d, y);
        else if (j->op == TFM__ROW_SUM) j->y[r] = sum;
        else if (j->op == TFM__ROW_MAX) j->y[r] = max;
        else tfm__row_softmax(fma, j, x, max, y);
    }
}

/* Rotary positions. The product that is not fused is written so that no compiler fuses it. */
typedef struct tfm__rope_job {
    const float *x;                     /* [T * heads, d]; y the same, and may be x */
    float *y;
    const float *table;                 /* [T, n/2, 2]: cosine, sine */
    int64_t heads, d;
    int n;                              /* dimensions that turn */
    bool half_split;
} tfm__rope_job;

/* Turns n pairs, those `step` apart. */
TFM__INLINE void tfm__rope_row(int fma, float *a, float *b, int step, const float *angle, int n) {
    for (int i = 0; i < n; i++) {
        float u = a[step * i], v = b[step * i], cosine = angle[2 * i], sine = angle[2 * i + 1];
        a[step * i] = tfm__fma(fma, u, cosine, -(v * sine));
        b[step * i] = tfm__fma(fma, u, sine, v * cosine);
    }
}
TFM__INLINE void tfm__rope_run(int fma, const tfm__rope_job *j, int64_t begin, int64_t end) {
    int half = j->n / 2;
    for (int64_t r = begin; r < end; r++) {
        const float *x = j->x + r * j->d, *angle = j->table + r / j->heads * j->n;
        float *y = j->y + r * j->d;
        if (x != y) memcpy(y, x, (size_t)j->d * sizeof *y);
        if (j->half_split) tfm__rope_row(fma, y, y + half, 1, angle, half);
        else tfm__rope_row(fma, y, y + 1, 2, angle, half);
    }
}

/* c [rows, columns] = a [rows, n] b [n, columns], every sum one chain, ascending: attention is made of these,
   and so are the float products of the vector kernels, which have b in panels of 16 columns. */
typedef struct tfm__product {
    float *c;
    const float *a;
    const char *b;
    int64_t c_row, a_row, a_step;       /* floats from row to row, and of a along n */
    int64_t b_row, b_step, b_column;    /* bytes from row to row, from 16 columns to the next 16, to the next one */
    int64_t n, rows, columns;           /* vectors: at most 12 rows, a multiple of 16 adjacent columns */
    bool half, add;                     /* b is f16, for vectors with at most 4 rows; sums start at c */
    const char *next;                   /* with half: as much as b, read soon, so prefetched */
                                        /* Vectors only: */
    int lanes, first, last;             /* of 16 lanes those from first to last - 1 run; c is set after the last */
    int64_t a_lane, b_lane;             /* floats and bytes from lane to lane; a_lane 0: a is a plain row */
    float *waiting;                     /* with 16 lanes: 4 times c, sums that later lanes join */
    const float *bias;                  /* [columns], added to every row, or NULL */
} tfm__product;
typedef void tfm__product_kernel(const tfm__product *t);
TFM__INLINE void tfm__product_run(int fma, const tfm__product *t) {
    for (int64_t i = 0; i < t->rows; i++)
        for (int64_t x = 0; x < t->columns; x++) {
            const char *b = t->b + x / 16 * t->b_step + x % 16 * t->b_column;
            float *c = t->c + i * t->c_row + x, sum = t->add ? *c : 0, v;
            for (int64_t k = 0; k < t->n; k++, b += t->b_row) {
                if (t->half) v = tfm__half_at((const uint8_t *)b);
                else memcpy(&v, b, sizeof v);
                sum = tfm__fma(fma, t->a[i * t->a_row + k * t->a_step], v, sum);
            }
            *c = sum;
        }
}

/* Attention, one block of TFM__KEYS keys: scores become weights exp(score - m) where a key is seen, else 0.
   The maximum m of each row goes on, and with it the sums of weights, in 16 lanes by position, and o. */
typedef struct tfm__scores_job {
    float *s;                           /* [rows, TFM__KEYS], anything where a key is not seen */
    const float *bias;                  /* the same, or NULL; hides keys where it is -inf */
    uint64_t *seen;                     /* [rows], a bit for each key; those that the bias hides are cleared */
    float *m, *sum, *o;                 /* [rows], [rows, 16], [rows, width] */
    int64_t width;                      /* a multiple of 16 */
    float scale, cap;                   /* cap: 0, or scores become cap tanh(score / cap) */
} tfm__scores_job;

/* What sums over keys with maximum m are multiplied by when it becomes max; m is -inf at first, and exp
   would take long to underflow. */
TFM__INLINE float tfm__fade(int fma, float m, float max) {
    return m == max ? 1.0f : m == -TFM__INF ? 0 : tfm__exp_below(fma, m - max);
}
/* x where a key is seen, else `hidden`. */
TFM__INLINE void tfm__scores_seen(float *x, uint64_t seen, float hidden) {
    uint32_t low = (uint32_t)seen, high = (uint32_t)(seen >> 32);
    if (seen == ~(uint64_t)0) return;
    for (int i = 0; i < 32; i++) x[i] = low >> i & 1 ? x[i] : hidden;
    for (int i = 0; i < 32; i++) x[i + 32] = high >> i & 1 ? x[i + 32] : hidden;
}
/* The largest of TFM__KEYS; NaN is passed over. */
TFM__INLINE float tfm__scores_top(const float *x) {
    float m[TFM__LANES];
    for (int i = 0; i < TFM__LANES; i++) {
        float t = tfm__maxf(x[i + 16], tfm__maxf(x[i], -TFM__INF));
        m[i] = tfm__maxf(x[i + 48], tfm__maxf(x[i + 32], t));
    }
    for (int i = 0; i < 4; i++) m[i] = tfm__maxf(tfm__maxf(m[i], m[i + 4]), tfm__maxf(m[i + 8], m[i + 12]));
    return tfm__maxf(tfm__maxf(m[0], m[1]), tfm__maxf(m[2], m[3]));
}
TFM__INLINE void tfm__scores_run(int fma, const tfm__scores_job *j, int64_t begin, int64_t end) {
    enum { KEYS = TFM__KEYS };
    for (int64_t r = begin; r < end; r++) {
        float *s = j->s + r * KEYS, *sum = j->sum + r * TFM__LANES, *o = j->o + r * j->width;
        float x[KEYS], t[TFM__LANES];
        const float *bias = j->bias ? j->bias + r * KEYS : NULL;
        for (int i = 0; i < KEYS; i++) x[i] = s[i] * j->scale;
        for (int i = 0; j->cap != 0 && i < KEYS; i++) x[i] = j->cap * tfm__tanh(fma, x[i] / j->cap);
        uint32_t hides = 0;
        for (int i = 0; bias && i < KEYS; i++) x[i] += bias[i];
        for (int i = 0; bias && i < KEYS; i++) hides |= bias[i] == -TFM__INF;
        for (int i = 0; hides && i < KEYS; i++) j->seen[r] &= ~((uint64_t)(bias[i] == -TFM__INF) << i);
        const uint64_t seen = j->seen[r];
        if (!seen) continue;
        tfm__scores_seen(x, seen, -TFM__INF);
        float max = tfm__maxf(tfm__scores_top(x), j->m[r]), fade = tfm__fade(fma, j->m[r], max);
        j->m[r] = max;
        tfm__scores_seen(x, seen, max);         /* exp would take long to underflow */
        for (int i = 0; i < KEYS; i++) x[i] = tfm__exp_below(fma, x[i] - max);
        tfm__scores_seen(x, seen, 0);
        memcpy(s, x, sizeof x);
        for (int i = 0; i < TFM__LANES; i++) t[i] = sum[i] * fade + x[i] + x[i + 16] + x[i + 32] + x[i + 48];
        memcpy(sum, t, sizeof t);
        for (int64_t i = 0; fade != 1 && i < j->width; i++) o[i] *= fade;
    }
}
/* Results of segments of keys, each with maximum m and sum l of weights, are joined in ascending order. */
typedef struct tfm__join_job {
    float *total, *out;                 /* maximum and sum so far; [dv] */
    const float *m, *l, *o;             /* of the first segment; those of the next are `stride` floats on */
    int64_t stride, dv;
    bool last;                          /* the output is complete after these */
} tfm__join_job;

TFM__INLINE void tfm__join_run(int fma, const tfm__join_job *j, int64_t begin, int64_t end) {
    float *total = j->total, *out = j->out;
    for (int64_t s = begin; s < end; s++) {
        const float *o = j->o + s * j->stride;
        float m = j->m[s * j->stride], l = j->l[s * j->stride];
        if (l == 0) continue;           /* every key of the segment was hidden; a NaN goes on */
        float max = tfm__maxf(total[0], m), old = tfm__fade(fma, total[0], max), scale = tfm__fade(fma, m, max);
        total[0] = max;
        total[1] = tfm__fma(fma, total[1], old, l * scale);
        for (int64_t d = 0; d < j->dv; d++) out[d] = tfm__fma(fma, out[d], old, o[d] * scale);
    }
    float inverse = total[1] == 0 ? 0 : 1.0f / total[1];
    for (int64_t d = 0; j->last && d < j->dv; d++) out[d] *= inverse;
}

/* One step of a recurrent cell: x and h hold the gates' input and recurrent products. */
typedef struct tfm__cell_job {
    bool gru;
    const float *x, *h;                 /* [batch, gates * hidden] */
    const float *h_old;                 /* GRU: [batch, hidden] */
    float *c;                           /* LSTM: [batch, hidden], updated */
    float *h_new;                       /* [batch, hidden] */
    float *out;                         /* the same again, rows out_stride floats apart */
    int64_t hidden, out_stride;
} tfm__cell_job;

TFM__INLINE void tfm__cell_run(int fma, const tfm__cell_job *j, int64_t begin, int64_t end) {
    int64_t n = j->hidden, gates = j->gru ? 3 : 4;
    float y[TFM__CHUNK], c[TFM__CHUNK];
    for (int64_t u = begin, count; u < end; u += count) {
        int64_t row = u / n, at = u % n;
        const float *x = j->x + row * n * gates + at, *h = j->h + row * n * gates + at;
        count = tfm__min64(tfm__min64(TFM__CHUNK, n - at), end - u);
        for (int64_t i = 0; j->gru && i < count; i++) {         /* r, z, n */
            float r = tfm__sigmoid(fma, x[i] + h[i]), z = tfm__sigmoid(fma, x[n + i] + h[n + i]);
            float g = tfm__tanh(fma, tfm__fma(fma, r, h[2 * n + i], x[2 * n + i]));
            y[i] = tfm__fma(fma, z, j->h_old[u + i] - g, g);
        }
        for (int64_t i = 0; !j->gru && i < count; i++) {        /* i, f, g, o */
            float in = tfm__sigmoid(fma, x[i] + h[i]), forget = tfm__sigmoid(fma, x[n + i] + h[n + i]);
            float g = tfm__tanh(fma, x[2 * n + i] + h[2 * n + i]), o = tfm__sigmoid(fma, x[3 * n + i] + h[3 * n + i]);
            c[i] = tfm__fma(fma, forget, j->c[u + i], in * g);
            y[i] = o * tfm__tanh(fma, c[i]);
        }
        if (!j->gru) memcpy(j->c + u, c, (size_t)count * sizeof *c);
        memcpy(j->h_new + u, y, (size_t)count * sizeof *y);
        memcpy(j->out + row * j->out_stride + at, y, (size_t)count * sizeof *y);
    }
}

/* Two operands seen through one shape of four dimensions, elements 0 or 4 bytes apart along the last;
   y is contiguous, its elements are the units. */
typedef enum tfm__binary { TFM__ADD, TFM__SUB, TFM__MUL, TFM__DIV } tfm__binary;
typedef struct tfm__binary_job { tfm__binary op; tfm_tensor a, b; float *y; } tfm__binary_job;

/* Element i of an operand. */
TFM__INLINE const float *tfm__operand(const tfm_tensor *t, int64_t i) {
    const char *p = (const char *)t->data;
    for (int d = 3; d >= 0; i /= t->dim[d--]) p += i % t->dim[d] * t->stride[d];
    return (const float *)(const void *)p;
}
TFM__INLINE void tfm__binary_run(int fma, const tfm__binary_job *j, int64_t begin, int64_t end) {
    int64_t d = j->a.dim[3], sx = j->a.stride[3] / 4, sz = j->b.stride[3] / 4;
    float y[TFM__CHUNK], u[TFM__CHUNK], v[TFM__CHUNK];
    (void)fma;
    while (begin < end) {
        const float *x = tfm__operand(&j->a, begin), *z = tfm__operand(&j->b, begin);
        int64_t row_end = tfm__min64(end, begin + d - begin % d), most = tfm__min64(TFM__CHUNK, row_end - begin);
        for (int64_t i = 0; !sx && i < most; i++) u[i] = *x;
        for (int64_t i = 0; !sz && i < most; i++) v[i] = *z;
        for (int64_t n; begin < row_end; begin += n, x += n * sx, z += n * sz) {
            const float *a = sx ? x : u, *b = sz ? z : v;
            n = tfm__min64(TFM__CHUNK, row_end - begin);
            switch (j->op) {
                case TFM__ADD: for (int64_t i = 0; i < n; i++) y[i] = a[i] + b[i]; break;
                case TFM__SUB: for (int64_t i = 0; i < n; i++) y[i] = a[i] - b[i]; break;
                case TFM__MUL: for (int64_t i = 0; i < n; i++) y[i] = a[i] * b[i]; break;
                case TFM__DIV: for (int64_t i = 0; i < n; i++) y[i] = a[i] / b[i]; break;
            }
            memcpy(j->y + begin, y, (size_t)n * sizeof *y);
        }
    }
}
static void tfm__halves(const float *x, uint16_t *y, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] = tfm__f32_to_f16(x[i]);
}
/* p = exp((logits[id] - best) / temperature) for n ids, best being the largest; NaN counts as -inf. */
TFM__INLINE void tfm__weigh_ids(const float *logits, const int32_t *ids, int64_t n, float best, float temperature,
                                float *p) {
    float x[TFM__CHUNK], low = tfm__maxf(-200 * temperature, -3.4e38f);         /* gives 0 */
    for (int64_t at = 0, count; at < n; at += count) {
        count = tfm__min64(TFM__CHUNK, n - at);
        for (int64_t i = 0; i < count; i++) x[i] = logits[ids[at + i]];
        for (int64_t i = 0; i < count; i++) x[i] = tfm__maxf(x[i] - best, low);
        for (int64_t i = 0; i < count; i++) x[i] = (float)tfm__exp_within((double)x[i] / (double)temperature);
        memcpy(p + at, x, (size_t)count * sizeof *x);
    }
}
static void tfm__weigh(const float *logits, const int32_t *ids, int64_t n, float best, float temperature, float *p) {
    tfm__weigh_ids(logits, ids, n, best, temperature, p);
}
/* The first of i..n-1 whose value is above the limit; n if there is none. */
TFM__INLINE int64_t tfm__find_above(const float *x, int64_t i, int64_t n, float limit) {
    for (uint32_t any = 0; i + 32 <= n; i += 32) {
        for (int k = 0; k < 32; k++) any |= x[i + k] > limit;
        if (any) break;
    }
    while (i < n && !(x[i] > limit)) i++;
    return i;
}
static int64_t tfm__next_above(const float *x, int64_t i, int64_t n, float limit) {
    return tfm__find_above(x, i, n, limit);
}

/* ---- Vector kernels for x86-64 ----------------------------------------------------- [KERNELS.AVX2]
   Every body gives the bits of its portable twin; for most small ops it is that twin, compiled into vector
   instructions (see the kernel table). What AVX-512 levels have no body for, they take from AVX2. */
#if TFM__SIMD_X86
#define TFM__AVX2 TFM__TARGET("avx2,fma,f16c")
#define TFM__AVX512 TFM__TARGET("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq")
#define TFM__AVX512VNNI TFM__TARGET("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")

/* ---- Small ops: the portable bodies, but for what no compiler makes of them ---- */

/* 32 values times `inverse`, rounded: the numbers and the sums of 16. */
TFM__AVX2 TFM__INLINE void tfm__quantize_32_avx2(const float *x, __m256 inverse, int16_t *sums, int8_t *q) {
    __m256i a = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), inverse));
    __m256i b = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8), inverse));
    __m256i c = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 16), inverse));
    __m256i d = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 24), inverse));
    a = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
    a = _mm256_permutevar8x32_epi32(a, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256((__m256i *)(void *)q, a);
    b = _mm256_sad_epu8(_mm256_xor_si256(a, _mm256_set1_epi8(-128)), _mm256_setzero_si256());   /* of q + 128 */
    b = _mm256_sub_epi32(_mm256_add_epi32(b, _mm256_unpackhi_epi64(b, b)), _mm256_set1_epi32(16 * 128));
    int pair = _mm_cvtsi128_si32(_mm_unpacklo_epi16(_mm256_castsi256_si128(b), _mm256_extracti128_si256(b, 1)));
    memcpy(sums, &pair, sizeof pair);
}
TFM__AVX2 TFM__LOOPS static void tfm__quantize_avx2(const float *x, int64_t k, int group, char *row) {
    float *d = (float *)(void *)row;
    char *sums = row + k / group * 4, *q = sums + k / 8;
    if (!tfm__quantize_scales(x, k, group, d)) { memset(sums, 0, (size_t)(k / 8 + k)); return; }
    for (int64_t g = 0; g < k / group; g++) {
        __m256 factor = _mm256_set1_ps(tfm__quantize_factor(d[g]));
        for (int64_t at = g * group; at < (g + 1) * group; at += 32)
            tfm__quantize_32_avx2(x + at, factor, (int16_t *)(void *)(sums + at / 8), (int8_t *)q + at);
    }
}
/* Eight elements, widened. */
TFM__AVX2 TFM__INLINE __m256 tfm__load8_avx2(tfm_type type, const char *p) {
    if (type == TFM_F32) return _mm256_loadu_ps((const float *)(const void *)p);
    __m128i h = _mm_loadu_si128((const __m128i *)(const void *)p);
    if (type == TFM_F16) return _mm256_cvtph_ps(h);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}
TFM__AVX2 static void tfm__decode_avx2(tfm_type type, const void *src, float *dst, int64_t n) {
    const char *p = (const char *)src;
    int64_t i = 0;
    for (; (type == TFM_F16 || type == TFM_BF16) && i + 8 <= n; i += 8)
        _mm256_storeu_ps(dst + i, tfm__load8_avx2(type, p + 2 * i));
    tfm__decode(type, p + 2 * i, dst + i, n - i);
}
TFM__AVX2 static void tfm__halves_avx2(const float *x, uint16_t *y, int64_t n) {
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128((__m128i *)(void *)(y + i), _mm256_cvtps_ph(_mm256_loadu_ps(x + i), 0));      /* to nearest */
    tfm__halves(x + i, y + i, n - i);
}
TFM__AVX2 TFM__LOOPS static void tfm__weigh_avx2(const float *logits, const int32_t *ids, int64_t n, float best,
                                                 float temperature, float *p) {
    tfm__weigh_ids(logits, ids, n, best, temperature, p);
}
TFM__AVX2 TFM__LOOPS static int64_t tfm__next_above_avx2(const float *x, int64_t i, int64_t n, float limit) {
    return tfm__find_above(x, i, n, limit);
}

/* ---- Float products on AVX2 and AVX-512 ----
   Products and attention have one kernel, c = a b: it holds 6 rows x 16 columns of c (AVX-512: 12 x 32
   or 6 x 64; fewer rows by more columns) in 12 (24) registers and multiplies a row of b by an element of each row
   of a, step by step, so that every sum is one chain, ascending.
   For many columns of x, these are a, and rows of w are the columns of b. Rows of w are unpacked into
   panels of 16 in the thread's scratch, columns of x once per product into tiles of 6 (12); both are panels
   as tfm__float_panel has them. The kernel runs over one lane's k/16 steps and adds what the tree of
   tfm__join joins next, so that four tiles at most wait in memory. Long panels are run through in passes,
   some of the lanes each, so that what is in use fits in the cache. Below 256 elements there is one lane:
   columns are used as they lie, and so is a small w that lies transposed.
   One column: rows as they lie, one to four at once, lanes 0-7 and 8-15 in a register each; below 256
   elements and for other layouts through panels, four of them at once to hide the latency.          */

enum { TFM__TILE = 12 * 32 };           /* floats of c that are in registers, at most */

/* Lane number i of a panel holds the elements k with k % 16 equal to this, which is its own inverse. */
static const int8_t tfm__lane_order[TFM__LANES] = { 0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15 };

/* Where lane i begins in a and b, and its steps. */
TFM__INLINE int64_t tfm__lane_at(const tfm__product *t, int i, const float **a, const char **b) {
    if (t->lanes == 1) return t->n;
    int element = tfm__lane_order[i];
    *a += t->a_lane ? i * t->a_lane : element;
    *b += i * t->b_lane;
    return (t->n + TFM__LANES - 1 - element) / TFM__LANES;
}

/* Where rows x columns of c keep the sums that wait, one for each bit set in the number of the next lane:
   floats from t->waiting to after them. */
TFM__INLINE int64_t tfm__waiting_at(const tfm__product *t, int64_t row, int rows, int64_t column, int columns) {
    return 4 * (row * t->columns + column * rows) + rows * columns * __builtin_popcount((unsigned)t->first);
}

TFM__AVX512 TFM__INLINE __m512 tfm__load16_avx512(bool half, const char *p) {
    return half ? _mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256((const __m256i *)(const void *)p))
                : _mm512_loadu_ps((const float *)(const void *)p);
}

TFM__AVX2 TFM__INLINE void tfm__hold_avx2(int rows, int vectors, bool half, const tfm__product *t, int64_t row,
                                          int64_t column) {
    __m256 acc[6][8], x[6], w[8];
    const int first = rows <= vectors ? rows : 0;       /* elements of a that are loaded before b */
    const int64_t a_row = t->a_row, a_step = t->a_step, b_row = t->b_row, b_step = t->b_step, c_row = t->c_row;
    int64_t top = half ? 0 : tfm__waiting_at(t, row, rows, column, 8 * vectors);
    const float *bias = half ? NULL : t->bias;
    float *c = t->c + row * c_row + column;
    for (int lane = t->first;; lane++) {
        const float *a = t->a + row * a_row, *more;
        const char *b = t->b + column / 16 * b_step, *next = half && !row ? t->next + column * t->n * 2 : b;
        int64_t n = tfm__lane_at(t, lane, &a, &b);
        more = a + 3 * a_row;
        TFM__UNROLL for (int i = 0; i < rows; i++)
            TFM__UNROLL for (int v = 0; v < vectors; v++)
                acc[i][v] = t->add ? _mm256_loadu_ps(c + i * c_row + 8 * v) : _mm256_setzero_ps();
        for (int64_t k = 0; k < n; k++, a += a_step, more += a_step, b += b_row, next += 16 * vectors) {
            if (half) TFM__UNROLL for (int v = 0; v < vectors; v += 4) __builtin_prefetch(next + 16 * v);
            else if (rows > 4) __builtin_prefetch(a + 1024);
            TFM__UNROLL for (int i = 0; i < first; i++) x[i] = _mm256_broadcast_ss(a + i * a_row);
            TFM__UNROLL for (int v = 0; v < vectors; v++) {
                w[v] = tfm__load8_avx2(half ? TFM_F16 : TFM_F32, b + v / 2 * b_step + v % 2 * (half ? 16 : 32));
                TFM__UNROLL for (int i = 0; i < first; i++)
                    acc[i][v] = _mm256_fmadd_ps(x[i], w[v], acc[i][v]);
            }
            TFM__UNROLL for (int i = first; i < rows; i++) {
                x[i] = _mm256_broadcast_ss(i < 3 ? a + i * a_row : more + (i - 3) * a_row);
                TFM__UNROLL for (int v = 0; v < vectors; v++) acc[i][v] = _mm256_fmadd_ps(x[i], w[v], acc[i][v]);
            }
        }
        for (int j = lane; j & 1; j >>= 1)
            TFM__UNROLL for (int i = rows * vectors - 1; i >= 0; i--)
                acc[i / vectors][i % vectors] = _mm256_add_ps(_mm256_loadu_ps(t->waiting + (top -= 8)),
                                                              acc[i / vectors][i % vectors]);
        if (half || lane + 1 == t->lanes) break;
        TFM__UNROLL for (int i = 0; i < rows * vectors; i++, top += 8)
            _mm256_storeu_ps(t->waiting + top, acc[i / vectors][i % vectors]);
        if (lane + 1 == t->last) return;
    }
    TFM__UNROLL for (int i = 0; i < rows; i++, c += c_row)
        TFM__UNROLL for (int v = 0; v < vectors; v++) {
            if (bias) acc[i][v] = _mm256_add_ps(acc[i][v], _mm256_loadu_ps(bias + column + 8 * v));
            _mm256_storeu_ps(c + 8 * v, acc[i][v]);
        }
}
/* How many of the rows left a kernel takes at once. */
static int64_t tfm__rows_at_once(int64_t left, int64_t most) {
    if (left >= most && left != most + 1) return most;         /* no single row is left over */
    return left == 6 || left >= 9 ? 6 : left == 5 ? 3 : left == 7 ? 4 : tfm__min64(left, 4);
}
TFM__AVX2 TFM__INLINE void tfm__strip_avx2(int rows, int vectors, bool half, const tfm__product *t, int64_t row) {
    int64_t x = 0;
    for (; x + 8 * vectors <= t->columns; x += 8 * vectors) tfm__hold_avx2(rows, vectors, half, t, row, x);
    if (vectors > 2) for (; x < t->columns; x += 16) tfm__hold_avx2(rows, 2, half, t, row, x);
}
TFM__AVX2 TFM__INLINE void tfm__strips_avx2(int rows, int vectors, const tfm__product *t, int64_t row) {
    if (t->half) tfm__strip_avx2(rows, vectors, true, t, row);
    else tfm__strip_avx2(rows, vectors, false, t, row);
}
TFM__AVX2 static void tfm__product_avx2(const tfm__product *t) {
    for (int64_t r = 0, rows; r < t->rows; r += rows) {
        rows = tfm__rows_at_once(t->rows - r, 6);
        if (rows == 6) tfm__strip_avx2(6, 2, false, t, r);
        else if (rows == 4) tfm__strips_avx2(4, 2, t, r);
        else if (rows == 3 && t->half) tfm__strip_avx2(3, 2, true, t, r);
        else if (rows == 3) tfm__strip_avx2(3, 4, false, t, r);
        else if (rows == 2) tfm__strips_avx2(2, 4, t, r);
        else tfm__strips_avx2(1, 8, t, r);
    }
}
/* The same on registers of 16. */
TFM__AVX512 TFM__INLINE void tfm__hold_avx512(int rows, int vectors, bool half, const tfm__product *t, int64_t row,
                                              int64_t column) {
    __m512 acc[12][4], w[4], x;
    const int64_t a_row = t->a_row, a_step = t->a_step, b_row = t->b_row, b_step = t->b_step, c_row = t->c_row;
    int64_t top = half ? 0 : tfm__waiting_at(t, row, rows, column, 16 * vectors);
    const float *bias = half ? NULL : t->bias;
    float *c = t->c + row * c_row + column;
    for (int lane = t->first;; lane++) {
        const float *a[4];
        const char *b = t->b + column / 16 * b_step, *next = half && !row ? t->next + column * t->n * 2 : b;
        a[0] = t->a + row * a_row;
        int64_t n = tfm__lane_at(t, lane, &a[0], &b);
        TFM__UNROLL for (int i = 1; 3 * i < rows; i++) a[i] = a[i - 1] + 3 * a_row;
        TFM__UNROLL for (int i = 0; i < rows; i++)
            TFM__UNROLL for (int v = 0; v < vectors; v++)
                acc[i][v] = t->add ? _mm512_loadu_ps(c + i * c_row + 16 * v) : _mm512_setzero_ps();
        for (int64_t k = 0; k < n; k++, b += b_row, next += 32 * vectors) {
            if (half) TFM__UNROLL for (int v = 0; v < vectors; v += 2) __builtin_prefetch(next + 32 * v);
            else if (rows > 4) __builtin_prefetch(a[0] + 1024);
            TFM__UNROLL for (int v = 0; v < vectors; v++) w[v] = tfm__load16_avx512(half, b + v * b_step);
            TFM__UNROLL for (int i = 0; i < rows; i++) {
                x = _mm512_set1_ps(a[i / 3][i % 3 * a_row]);
                TFM__UNROLL for (int v = 0; v < vectors; v++) acc[i][v] = _mm512_fmadd_ps(x, w[v], acc[i][v]);
            }
            TFM__UNROLL for (int i = 0; 3 * i < rows; i++) a[i] += a_step;
        }
        for (int j = lane; j & 1; j >>= 1)
            TFM__UNROLL for (int i = rows * vectors - 1; i >= 0; i--)
                acc[i / vectors][i % vectors] = _mm512_add_ps(_mm512_loadu_ps(t->waiting + (top -= 16)),
                                                              acc[i / vectors][i % vectors]);
        if (half || lane + 1 == t->lanes) break;
        TFM__UNROLL for (int i = 0; i < rows * vectors; i++, top += 16)
            _mm512_storeu_ps(t->waiting + top, acc[i / vectors][i % vectors]);
        if (lane + 1 == t->last) return;
    }
    TFM__UNROLL for (int i = 0; i < rows; i++, c += c_row)
        TFM__UNROLL for (int v = 0; v < vectors; v++) {
            if (bias) acc[i][v] = _mm512_add_ps(acc[i][v], _mm512_loadu_ps(bias + column + 16 * v));
            _mm512_storeu_ps(c + 16 * v, acc[i][v]);
        }
}
/* Columns from x; up to 31 are left. */
TFM__AVX512 TFM__INLINE void tfm__strip_avx512(int rows, int vectors, bool half, const tfm__product *t, int64_t row) {
    int64_t x = 0;
    for (; x + 16 * vectors <= t->columns; x += 16 * vectors) tfm__hold_avx512(rows, vectors, half, t, row, x);
    if (vectors > 2) for (; x + 32 <= t->columns; x += 32) tfm__hold_avx512(rows, 2, half, t, row, x);
}
TFM__AVX512 TFM__INLINE void tfm__strips_avx512(int rows, const tfm__product *t, int64_t row) {
    if (t->half) tfm__strip_avx512(rows, 4, true, t, row);
    else tfm__strip_avx512(rows, 4, false, t, row);
}
TFM__AVX512 static void tfm__product_avx512(const tfm__product *t) {
    int64_t whole = t->columns / 32 * 32;
    if (t->rows == 1) { tfm__product_avx2(t); return; }     /* eight chains instead of four */
    for (int64_t r = 0, rows; whole && r < t->rows; r += rows) {
        rows = tfm__rows_at_once(t->rows - r, whole >= 64 ? 6 : 12);
        if (rows == 12) tfm__strip_avx512(12, 2, false, t, r);
        else if (rows == 6) tfm__strip_avx512(6, 4, false, t, r);
        else if (rows == 4) tfm__strips_avx512(4, t, r);
        else if (rows == 3) tfm__strips_avx512(3, t, r);
        else tfm__strips_avx512(2, t, r);
    }
    if (whole == t->columns) return;
    tfm__product rest = *t;             /* 16 columns */
    rest.c += whole;
    if (t->bias) rest.bias += whole;
    rest.b += whole / 16 * t->b_step;
    if (t->half) rest.next += 2 * whole * t->n;
    rest.columns = 16;
    tfm__product_avx2(&rest);
}

/* Element k of a panel's rows goes to its at[k % 16] + k / 16 * *group. Returns the floats of a panel. */
static int64_t tfm__pack_places(const tfm__pack *p, int64_t *at, int64_t *group) {
    int64_t lane = ((p->k + p->lanes - 1) / p->lanes + 1) * p->width;
    for (int i = 0; i < TFM__LANES; i++) at[i] = p->lanes == 1 ? i * p->width : tfm__lane_order[i] * lane;
    *group = TFM__LANES / p->lanes * p->width;
    return p->lanes * lane;
}
/* Registers of rows become registers of columns. */
TFM__AVX2 TFM__INLINE void tfm__transpose8_avx2(__m256 *v) {
    __m256 a[8], b[8];
    TFM__UNROLL for (int i = 0; i < 4; i++) {
        a[2 * i] = _mm256_unpacklo_ps(v[2 * i], v[2 * i + 1]);
        a[2 * i + 1] = _mm256_unpackhi_ps(v[2 * i], v[2 * i + 1]);
    }
    TFM__UNROLL for (int i = 0; i < 2; i++) {
        b[4 * i] = _mm256_shuffle_ps(a[4 * i], a[4 * i + 2], 0x44);
        b[4 * i + 1] = _mm256_shuffle_ps(a[4 * i], a[4 * i + 2], 0xee);
        b[4 * i + 2] = _mm256_shuffle_ps(a[4 * i + 1], a[4 * i + 3], 0x44);
        b[4 * i + 3] = _mm256_shuffle_ps(a[4 * i + 1], a[4 * i + 3], 0xee);
    }
    TFM__UNROLL for (int i = 0; i < 4; i++) {
        v[i] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x20);
        v[i + 4] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x31);
    }
}
/* Rows that lie as such, 8 x 8 at a time, what is left one by one. A width of 6 writes 8 values; the
   next step, or the one to spare, takes the two too many. */
TFM__AVX2 TFM__INLINE void tfm__pack_rows_avx2(tfm_type type, int bytes, const tfm__pack *p) {
    int64_t whole = p->step == bytes ? p->k & ~(int64_t)7 : 0, at[TFM__LANES], group;
    int64_t panel = tfm__pack_places(p, at, &group);
    float *to = p->out;
    for (int64_t row = 0; row < p->rows; row += p->width, to += panel) {
        for (int64_t chunk = 0, next; chunk < whole; chunk = next) {    /* so that what is written stays in L1 */
            next = tfm__min64(whole, chunk + 128);
            for (int r = 0; r < p->width; r += 8) {
                const char *w[8];
                bool half = p->width - r == 4;
                for (int i = 0; i < 8; i++) w[i] = p->w + tfm__min64(row + r + i, p->rows - 1) * p->stride;
                for (int64_t k = chunk; k < next; k += 8) {
                    __m256 v[8];
                    float *out = to + k / TFM__LANES * group + r;
                    const int64_t *place = at + k % TFM__LANES;
                    TFM__UNROLL for (int i = 0; i < 8; i++) v[i] = tfm__load8_avx2(type, w[i] + k * bytes);
                    tfm__transpose8_avx2(v);
                    TFM__UNROLL for (int i = 0; i < 8; i++) {
                        if (half) _mm_storeu_ps(out + place[i], _mm256_castps256_ps128(v[i]));
                        else _mm256_storeu_ps(out + place[i], v[i]);
                    }
                }
            }
        }
        for (int64_t k = whole; k < p->k; k++)
            for (int64_t i = 0; i < p->width && row + i < p->rows; i++)
                tfm__decode(type, p->w + (row + i) * p->stride + k * p->step,
                            to + at[k % TFM__LANES] + k / TFM__LANES * group + i, 1);
    }
}
/* A matrix that lies transposed, in the order of its addresses. */
TFM__AVX2 TFM__INLINE void tfm__pack_columns_avx2(tfm_type type, int bytes, const tfm__pack *p) {
    int64_t at[TFM__LANES], group, panel = tfm__pack_places(p, at, &group), whole = p->rows & ~(int64_t)7;
    for (int64_t k = 0; k < p->k; k++) {
        const char *w = p->w + k * p->step;
        float *out = p->out + at[k % TFM__LANES] + k / TFM__LANES * group;
        for (int64_t r = 0; r < whole; out += panel)
            for (int i = 0; i < p->width && r < whole; i += 8, r += 8) {
                __builtin_prefetch(w + 8 * p->step + r * bytes);
                _mm256_storeu_ps(out + i, tfm__load8_avx2(type, w + r * bytes));
            }
        if (whole == p->rows) continue;
        char rest[32] = { 0 };
        memcpy(rest, w + whole * bytes, (size_t)((p->rows - whole) * bytes));
        out = p->out + at[k % TFM__LANES] + k / TFM__LANES * group + whole / p->width * panel + whole % p->width;
        _mm256_storeu_ps(out, tfm__load8_avx2(type, rest));
    }
}
TFM__AVX2 TFM__INLINE void tfm__pack_as_avx2(tfm_type type, int bytes, const tfm__pack *p) {
    if (p->step != bytes && p->stride == bytes) tfm__pack_columns_avx2(type, bytes, p);
    else tfm__pack_rows_avx2(type, bytes, p);
}
TFM__AVX2 static void tfm__pack_avx2(const tfm__pack *p) {
    if (p->type == TFM_F32) tfm__pack_as_avx2(TFM_F32, 4, p);
    else if (p->type == TFM_F16) tfm__pack_as_avx2(TFM_F16, 2, p);
    else tfm__pack_as_avx2(TFM_BF16, 2, p);
}
static void tfm__float_columns_avx2(const tfm__columns_job *j, int64_t begin, int64_t end) {
    tfm__pack p = { TFM_F32, (const char *)(j->x + begin * j->width * j->k), j->k * 4, 4,
                    tfm__min64(end * j->width, j->n) - begin * j->width, j->k, tfm__lanes(j->k), j->width,
                    (float *)(void *)j->out + (size_t)begin * tfm__float_panel(j->k, j->width) };
    tfm__pack_avx2(&p);
}

/* Rows of w by one plain row x, both at least 256 long: two registers of lanes a row. The run of rows
   after this one is fetched meanwhile, in the order of its addresses: one stream for the memory. */
TFM__AVX2 TFM__INLINE void tfm__dot_rows_avx2(tfm_type type, int rows, const char *w, int64_t stride, int bytes,
                                              const float *x, int64_t k, int64_t ahead, float *y) {
    __m256 t[8];
    int64_t whole = k & ~(int64_t)15;
    TFM__UNROLL for (int r = 0; r < 2 * rows; r++) t[r] = _mm256_setzero_ps();
    const char *fetch = w + ahead;
    for (int64_t i = 0; i < whole; i += 16) {
        __m256 x0 = _mm256_loadu_ps(x + i), x1 = _mm256_loadu_ps(x + i + 8);
        TFM__UNROLL for (int r = 0; r < rows; r++) {
            const char *p = w + r * stride + i * bytes;
            t[2 * r] = _mm256_fmadd_ps(tfm__load8_avx2(type, p), x0, t[2 * r]);
            t[2 * r + 1] = _mm256_fmadd_ps(tfm__load8_avx2(type, p + 8 * bytes), x1, t[2 * r + 1]);
        }
        TFM__UNROLL for (int line = 0; line < 16 * rows * bytes; line += 64) __builtin_prefetch(fetch + line);
        fetch += 16 * rows * bytes;
    }
    if (whole < k) {                    /* 1 * -0 changes no sum */
        float wide[16], rest[16];
        for (int i = 0; i < 16; i++) wide[i] = 1, rest[i] = whole + i < k ? x[whole + i] : -0.0f;
        TFM__UNROLL for (int r = 0; r < rows; r++) {
            tfm__decode(type, w + r * stride + whole * bytes, wide, k - whole);
            t[2 * r] = _mm256_fmadd_ps(_mm256_loadu_ps(wide), _mm256_loadu_ps(rest), t[2 * r]);
            t[2 * r + 1] = _mm256_fmadd_ps(_mm256_loadu_ps(wide + 8), _mm256_loadu_ps(rest + 8), t[2 * r + 1]);
        }
    }
    TFM__UNROLL for (int r = 0; r < rows; r++) {
        __m256 s = _mm256_add_ps(t[2 * r], t[2 * r + 1]);
        __m128 q = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
        q = _mm_add_ps(q, _mm_movehl_ps(q, q));
        y[r] = _mm_cvtss_f32(_mm_add_ss(q, _mm_shuffle_ps(q, q, 1)));
    }
}
TFM__AVX2 TFM__INLINE void tfm__float_gemv_avx2(tfm_type type, int bytes, const tfm__gemm_job *j, const tfm__part *p,
                                          int64_t begin, int64_t end) {
    const float *x = (const float *)(const void *)j->x;
    int64_t row = j->k * bytes;
    float y[4];
    int together = bytes == 4 && 4 * row <= 10240 ? 4 : 2 * row <= (type == TFM_BF16 ? 2400 : 8704) ? 2 : 1;
    for (int64_t r = begin, rows; r < end; r += rows) {
        const char *w = p->w + r * p->w_stride;
        rows = r + together <= end ? together : 1;
        if (rows == 4) tfm__dot_rows_avx2(type, 4, w, p->w_stride, bytes, x, j->k, 4 * p->w_stride, y);
        else if (rows == 2) tfm__dot_rows_avx2(type, 2, w, p->w_stride, bytes, x, j->k, 2 * p->w_stride, y);
        else tfm__dot_rows_avx2(type, 1, w, p->w_stride, bytes, x, j->k, 8192, y);
        for (int i = 0; i < rows; i++) tfm__gemm_store(p, r + i, 0, y[i]);
    }
}

/* How many passes are there? And how many panels lie in scratch at once? What a pass uses of them stays in L2
   while it meets TFM__TILES tiles of columns, whose sums wait behind the panels for the next pass. */
enum { TFM__TILES = 8 };
static int tfm__panel_passes(int64_t k) {
    int passes = 1;
    while (passes < TFM__LANES && k > 1024 * passes) passes *= 2;
    return passes;
}
static int64_t tfm__panels_together(int64_t k) {
    int64_t pair = 2 * (int64_t)(tfm__float_panel(k, TFM__PANEL) * sizeof(float));
    return 2 * tfm__max64(1, tfm__panel_passes(k) * (640 << 10) / pair);
}
static size_t tfm__float_scratch(int64_t k) {
    size_t waiting = tfm__panel_passes(k) > 1 ? 2 * TFM__TILES * TFM__TILE : 0;
    return (size_t)tfm__panels_together(k) * (tfm__float_panel(k, TFM__PANEL) + waiting) * sizeof(float);
}

/* A tile of columns from c by rows r.. of the part, whose panels are at t->b, for some of the lanes: into y,
   by way of a buffer if rows are missing or apart. */
static void tfm__float_tile(tfm__product_kernel *product, const tfm__gemm_job *j, const tfm__part *p, tfm__product *t,
                            int64_t r, int64_t rows, int64_t c) {
    float buffer[TFM__TILE];
    bool direct = p->y_row == 1 && rows % 16 == 0;
    t->a = (const float *)(const void *)(j->x + (size_t)(c / j->width) * j->x_stride);
    t->rows = tfm__min64(j->width, j->n - c);
    t->columns = (rows + 15) / 16 * 16;
    t->bias = direct && p->bias ? p->bias + r : NULL;
    t->c = direct ? p->y + r + c * p->y_column : buffer;
    t->c_row = direct ? p->y_column : t->columns;
    product(t);
    if (direct || t->last < t->lanes) return;
    for (int64_t i = 0; i < t->rows; i++)
        for (int64_t k = 0; k < rows; k++) tfm__gemm_store(p, r + k, c + i, buffer[i * t->c_row + k]);
}
/* Rows begin..end-1 of a part through panels, which are packed in scratch unless the part has them. */
static void tfm__gemm_panels(tfm__product_kernel *product, const tfm__gemm_job *j, const tfm__part *p, int64_t begin,
                             int64_t end, float *scratch) {
    tfm__product t;
    float waiting[4 * TFM__TILE];
    int lanes = tfm__lanes(j->k), passes = j->n > j->width && !p->packed ? tfm__panel_passes(j->k) : 1;
    int64_t panel = (int64_t)(tfm__float_panel(j->k, TFM__PANEL) * sizeof(float)), next;
    int64_t together = j->width > 1 ? 32 : 64;          /* rows by a tile of columns */
    int64_t block = TFM__TILES * j->width, most = p->packed ? 0 : tfm__panels_together(j->k);
    bool lies = !p->packed && lanes == 1 && p->type->type == TFM_F32 && p->w_stride == 4 && p->w_step != 4 &&
                (j->n <= 2 * j->width || j->k * p->w_step <= 65536);
    memset(&t, 0, sizeof t);
    t.n = j->k;
    t.lanes = lanes;
    t.a_lane = tfm__float_packs(j->k, j->width) ? tfm__lane_rows(j->k) * j->width : 0;
    t.b_lane = tfm__lane_rows(j->k) * TFM__PANEL * 4;
    t.a_row = t.a_lane ? 1 : j->k;
    t.a_step = t.a_lane ? j->width : lanes;
    for (int64_t r = begin; r < end; r = next) {
        bool direct = lies && end - r >= 16;
        next = direct ? end - (end - r) % 16 : p->packed ? end : tfm__min64(end, r + most * TFM__PANEL);
        tfm__pack pack = tfm__pack_of(p, j->k, r, next, scratch);
        if (!direct && !p->packed) tfm__pack_avx2(&pack);
        const char *w = direct ? p->w + r * 4 : p->packed ? (const char *)p->packed + r / TFM__PANEL * panel
                                                          : (const char *)scratch;
        t.b_row = direct ? p->w_step : TFM__PANEL * 4;
        t.b_step = direct ? 64 : panel;
        for (int64_t left = 0; left < j->n; left += block)
            for (t.first = 0; t.first < lanes; t.first = t.last) {
                t.last = t.first + lanes / passes;
                t.waiting = passes > 1 ? scratch + most * panel / 4 : waiting;
                for (int64_t c = left; c < tfm__min64(j->n, left + block); c += j->width)
                    for (int64_t at = r; at < next; at += together) {
                        t.b = w + (at - r) / TFM__PANEL * t.b_step;
                        tfm__float_tile(product, j, p, &t, at, tfm__min64(next - at, together), c);
                        if (passes > 1) t.waiting += 4 * TFM__TILE;
                    }
            }
    }
}
TFM__AVX2 static void tfm__gemm_float_avx2(tfm__product_kernel *product, const tfm__gemm_job *j, const tfm__part *p,
                                           int64_t begin, int64_t end, char *scratch) {
    tfm_type type = p->type->type;
    bool rows = j->n == 1 && tfm__lanes(j->k) > 1 && !p->packed && p->w_step == p->type->bytes;
    if (rows && type == TFM_F32) tfm__float_gemv_avx2(TFM_F32, 4, j, p, begin, end);
    else if (rows && type == TFM_F16) tfm__float_gemv_avx2(TFM_F16, 2, j, p, begin, end);
    else if (rows) tfm__float_gemv_avx2(TFM_BF16, 2, j, p, begin, end);
    else tfm__gemm_panels(product, j, p, begin, end, (float *)(void *)scratch);
}

/* ---- Quantized products -------------------------------------------------- [KERNELS.AVX2.INTEGER]
   One column (decoding): four rows at once, each 32 weights to a register, multiplied by the 32 of the
   column into eight integers; a tree of adds turns the four rows' registers into one with a row to a
   lane. Rows interleaved by eight lie so that a register has a row to a lane from the start. The chain
   over blocks runs there, one multiply-add for all rows. What comes next is prefetched in address
   order, so that memory sees one stream.

   Many columns: 16 rows are unpacked once into a panel, [k/4][16 rows][4 bytes], with their scales
   beside it, and meet one tile of columns after the other, [k/4][columns][4 bytes]: a product
   instruction multiplies four of k of each row by the four of a column, broadcast. Without VNNI the
   products of pairs are summed in 16 bits as long as they fit: 8 quads of 4-bit weights (15 * 127 * 2 *
   8 = 30480), 4 of 5 bits, 2 of 6 bits, 1 of 8.

   Bytes are unsigned there; a type's offset is taken off a block's sum as offset * (sum of the activations), for
   blocks of 32 in floats, which hold it exactly (255 * 127 * 32 < 2^24). Signed bytes (8 bits): with VNNI offset
   128; without, |w| * (x with the sign of w), in tiles |w| * (x ^ s), s = -1 for w < 0, which is w*x - |w| there
   and needs no multiplier: a panel has the sum of those |w| for each block.                                */

enum { TFM__AVX2_SUMS, TFM__VEX_VNNI, TFM__EVEX_VNNI, TFM__AMX };      /* how bytes are multiplied: isa */
enum { TFM__TILE_AVX2 = 4, TFM__TILE_AVX512 = 8, TFM__TILE_AMX = 16 };       /* columns of a tile */
enum { TFM__RUN = 4, TFM__AHEAD = 2048 };       /* one column: rows at once; interleaved: bytes to prefetch ahead */

/* What the kernels below know of a type when they are compiled, as tfm__types has it. scale_at: where a block
   keeps d, a half; m is the half after it. */
#define TFM__EACH_QUANTIZED(X)                                                                                \
    X(Q8_0, 32, 8, 0, 0, false) X(Q4_0, 32, 4, 8, 0, false) X(Q4_1, 32, 4, 0, 0, true)                        \
    X(Q5_0, 32, 5, 16, 0, false) X(Q5_1, 32, 5, 0, 0, true) X(IQ4_NL, 32, 8, 0, 0, false)                     \
    X(Q2_K, 16, 2, 0, 80, true) X(Q3_K, 16, 3, 4, 108, false) X(Q4_K, 32, 4, 0, 0, true)                      \
    X(Q5_K, 32, 5, 0, 0, true) X(Q6_K, 16, 6, 32, 208, false)
typedef struct tfm__form { tfm_type type; int block, bytes, group, bits, offset, scale_at; bool has_min; } tfm__form;
#define TFM__X(type, ...)                                                                                     \
    static const tfm__form tfm__form_##type = { TFM_##type, TFM__BLOCK_##type, TFM__BYTES_##type, __VA_ARGS__ };
TFM__EACH_QUANTIZED(TFM__X)
#undef TFM__X

/* acc += products of bytes, a unsigned, or of 16 bits: of bytes the sums of four in 32 bits with VNNI, else
   of two in 16 bits; of 16 bits the sums of two in 32 bits. */
TFM__AVX2 TFM__INLINE __m256i tfm__dot(int isa, int bits, __m256i acc, __m256i a, __m256i b) {
    if (isa == TFM__AVX2_SUMS && bits == 8) return _mm256_add_epi16(acc, _mm256_maddubs_epi16(a, b));
    if (isa == TFM__AVX2_SUMS) return _mm256_add_epi32(acc, _mm256_madd_epi16(a, b));
#if TFM__SIMD_2021
    if (isa == TFM__VEX_VNNI && bits == 8) __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(a), "xm"(b));
    else if (isa == TFM__VEX_VNNI) __asm__("%{vex%} vpdpwssd %2, %1, %0" : "+x"(acc) : "x"(a), "xm"(b));
    else
#endif
    if (bits == 8) __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(a), "vm"(b));
    else __asm__("vpdpwssd %2, %1, %0" : "+v"(acc) : "v"(a), "vm"(b));
    return acc;
}
TFM__AVX2 TFM__INLINE __m256 tfm__negate_avx2(__m256 x) { return _mm256_xor_ps(x, _mm256_set1_ps(-0.0f)); }
TFM__AVX2 TFM__INLINE __m256i tfm__load256(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }
TFM__AVX2 TFM__INLINE __m128i tfm__load128(const void *p) { return _mm_loadu_si128((const __m128i *)p); }
TFM__AVX2 TFM__INLINE void tfm__store256(void *p, __m256i v) { _mm256_storeu_si256((__m256i *)p, v); }
TFM__AVX2 TFM__INLINE void tfm__store128(void *p, __m128i v) { _mm_storeu_si128((__m128i *)p, v); }
TFM__AVX2 TFM__INLINE __m256i tfm__four(const void *p) { return _mm256_set1_epi32(tfm__load_i32(p)); }

/* Bytes of v shifted left (right if negative) by n bits, then masked. */
TFM__AVX2 TFM__INLINE __m256i tfm__bits(__m256i v, int n, int mask) {
    v = n > 0 ? _mm256_slli_epi16(v, n) : n < 0 ? _mm256_srli_epi16(v, -n) : v;
    return _mm256_and_si256(v, _mm256_set1_epi8((char)mask));
}
/* 16 bytes of nibbles: low halves, then high halves. */
TFM__AVX2 TFM__INLINE __m256i tfm__nibbles(const uint8_t *p) {
    __m128i v = tfm__load128(p);
    return _mm256_and_si256(_mm256_inserti128_si256(_mm256_castsi128_si256(v), _mm_srli_epi16(v, 4), 1),
                            _mm256_set1_epi8(15));
}
/* Bit i of 32 as 16 in byte i. */
TFM__AVX2 TFM__INLINE __m256i tfm__fifths(const uint8_t *p) {
    const __m256i byte = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i bit = _mm256_set1_epi64x((int64_t)0x8040201008040201);
    __m256i v = _mm256_and_si256(_mm256_shuffle_epi8(tfm__four(p), byte), bit);
    return _mm256_and_si256(_mm256_cmpeq_epi8(v, bit), _mm256_set1_epi8(16));
}
/* 32 weights of a block, from 32 j on: unsigned with the type's offset, or signed (8 bits). */
TFM__AVX2 TFM__INLINE __m256i tfm__raw(tfm_type type, const uint8_t *p, int j) {
    const __m128i curve = _mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);
    int half = j / 4, plane = j % 4;
    switch (type) {
        case TFM_Q8_0: return tfm__load256(p + 2);
        case TFM_Q4_0: return tfm__nibbles(p + 2);
        case TFM_Q4_1: return tfm__nibbles(p + 4);
        case TFM_Q5_0: return _mm256_or_si256(tfm__nibbles(p + 6), tfm__fifths(p + 2));
        case TFM_Q5_1: return _mm256_or_si256(tfm__nibbles(p + 8), tfm__fifths(p + 4));
        case TFM_IQ4_NL: return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(curve), tfm__nibbles(p + 2));
        case TFM_Q2_K: return tfm__bits(tfm__load256(p + 16 + 32 * half), -2 * plane, 3);
        case TFM_Q3_K: return _mm256_or_si256(tfm__bits(tfm__load256(p + 32 + 32 * half), -2 * plane, 3),
                                              tfm__bits(tfm__load256(p), 2 - j, 4));
        case TFM_Q4_K: return tfm__bits(tfm__load256(p + 16 + j / 2 * 32), j % 2 * -4, 15);
        case TFM_Q5_K: return _mm256_or_si256(tfm__bits(tfm__load256(p + 48 + j / 2 * 32), j % 2 * -4, 15),
                                              tfm__bits(tfm__load256(p + 16), 4 - j, 16));
        default: return _mm256_or_si256(            /* Q6_K */
                tfm__bits(tfm__load256(p + 64 * half + 32 * (plane % 2)), plane / 2 * -4, 15),
                tfm__bits(tfm__load256(p + 128 + 32 * half), 4 - 2 * plane, 0x30));
    }
}
/* The same of interleaved rows: quad i of 32 elements at p, a row to a lane. */
TFM__AVX2 TFM__INLINE __m256i tfm__raw_rows(tfm__form f, const uint8_t *p, int i) {
    if (f.bits == 8) return tfm__load256(p + 32 * i);
    __m256i v = tfm__bits(tfm__load256(p + 32 * (i % 4)), i / 4 * -4, 15);
    if (f.bits == 5) v = _mm256_or_si256(v, tfm__bits(tfm__load256(p + 128), 4 - i, 16));
    if (f.bits == 6) v = _mm256_or_si256(v, tfm__bits(tfm__load256(p + 128 + 32 * (i / 4)), 4 - i % 4 * 2, 0x30));
    return v;
}
/* What comes off weights before they are multiplied, the rest of their offset off the sum: AMX takes them with
   a sign, VNNI without. */
TFM__INLINE int tfm__offset_before(int isa, tfm__form f) {
    return isa == TFM__AMX ? f.offset : isa != TFM__AVX2_SUMS && f.bits == 8 ? -128 : 0;
}
/* The integer scales of a block of 256, one for each 16 weights, and its minimums. */
TFM__AVX2 TFM__INLINE __m256i tfm__scales(tfm_type type, const uint8_t *p, __m256i *mins) {
    *mins = _mm256_setzero_si256();
    if (type == TFM_Q6_K) return _mm256_cvtepi8_epi16(tfm__load128(p + 192));
    if (type == TFM_Q2_K) {
        __m128i v = tfm__load128(p);
        *mins = _mm256_cvtepu8_epi16(_mm_and_si128(_mm_srli_epi16(v, 4), _mm_set1_epi8(15)));
        return _mm256_cvtepu8_epi16(_mm_and_si128(v, _mm_set1_epi8(15)));
    }
    p += type == TFM_Q3_K ? 96 : 4;
    uint32_t a = (uint32_t)tfm__load_i32(p), b = (uint32_t)tfm__load_i32(p + 4), c = (uint32_t)tfm__load_i32(p + 8);
    const uint32_t six = 0x3f3f3f3f, four = 0x0f0f0f0f, two = 0x30303030;
    if (type == TFM_Q3_K) {             /* six bits each: four in a and b, two in c; offset 32 */
        __m128i v = _mm_setr_epi32((int)((a & four) | (c << 4 & two)), (int)((b & four) | (c << 2 & two)),
                                   (int)((a >> 4 & four) | (c & two)), (int)((b >> 4 & four) | (c >> 2 & two)));
        return _mm256_cvtepi8_epi16(_mm_sub_epi8(v, _mm_set1_epi8(32)));
    }
    /* as tfm__unpack_k4_scales */
    __m128i s = _mm_setr_epi32((int)(a & six), (int)((c & four) | (a >> 2 & two)), 0, 0);
    __m128i m = _mm_setr_epi32((int)(b & six), (int)((c >> 4 & four) | (b >> 2 & two)), 0, 0);
    *mins = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(m, m));
    return _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(s, s));
}
TFM__INLINE bool tfm__by_eight(tfm__form f, const tfm__part *p) {
    return (f.type == TFM_Q8_0 || (f.bits >= 4 && f.bits <= 6)) && p->interleaved;      /* as tfm__interleaves */
}
/* The parts of a block of eight interleaved rows. */
typedef struct tfm__eight { const uint8_t *d, *m, *sc, *mins, *bits; } tfm__eight;
TFM__INLINE tfm__eight tfm__eight_at(tfm__form f, const uint8_t *p) {
    const int scales = f.block == 256 ? 256 / f.group * TFM__ROWS : 0;
    tfm__eight e = { p, p + 16, p + (f.has_min ? 32 : 16), NULL, NULL };
    e.mins = f.has_min ? e.sc + scales : e.sc;
    e.bits = e.mins + scales;
    return e;
}
/* Their scale or minimum number i, a row to a lane; or numbers i and j, as pairs of 16 bits. */
TFM__AVX2 TFM__INLINE __m256i tfm__lanes_of(const uint8_t *p, int i) {
    return _mm256_srai_epi32(tfm__load256(p + i / 4 * 32 + i % 4 - 3), 24);
}
TFM__AVX2 TFM__INLINE __m256i tfm__pairs_of(const uint8_t *p, int i, int j) {
    return _mm256_blend_epi16(tfm__lanes_of(p, i), _mm256_slli_epi32(tfm__lanes_of(p, j), 16), 0xaa);
}
/* How many quads of products fit in one sum. */
TFM__INLINE int tfm__quads_of_sum(int isa, tfm__form f) {
    const int fit = f.bits == 8 ? 1 : 128 >> f.bits, quads = f.group / 4;
    return isa == TFM__AVX2_SUMS && fit < quads ? fit : quads;
}
/* Are bytes multiplied with their sign? */
TFM__INLINE bool tfm__is_signed(int isa, tfm__form f) { return f.bits == 8 && isa == TFM__AVX2_SUMS; }
/* sum += the products of a quad, weights as they are taken. */
TFM__AVX2 TFM__INLINE __m256i tfm__add_quad(int isa, tfm__form f, __m256i sum, __m256i w, __m256i x) {
    if (!tfm__is_signed(isa, f)) return tfm__dot(isa, 8, sum, w, x);
    return tfm__dot(isa, 8, sum, _mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
}
/* isum += such a sum times its scale: pairs of 16 bits, 1 for blocks of 32; VNNI: 32 bits. */
TFM__AVX2 TFM__INLINE __m256i tfm__add_sum(int isa, tfm__form f, __m256i isum, __m256i sum, __m256i scale) {
    if (isa == TFM__AVX2_SUMS) return tfm__dot(isa, 16, isum, sum, scale);
    return _mm256_add_epi32(isum, f.block == 256 ? _mm256_mullo_epi32(sum, scale) : sum);
}
/* n blocks further in a column, or a tile of one block; tiles lie as a row of all their columns does. */
TFM__INLINE tfm__act tfm__act_after(tfm__act a, int block, int64_t n) {
    tfm__act after = { a.d + n, a.sums + block / 16 * n, a.q + block * n };
    return after;
}

/* ---- one column ---- */

/* Four rows' registers to their four sums. */
TFM__AVX2 TFM__INLINE __m256i tfm__sum_rows(const __m256i t[TFM__RUN]) {
    __m256i a = _mm256_add_epi32(_mm256_unpacklo_epi32(t[0], t[1]), _mm256_unpackhi_epi32(t[0], t[1]));
    __m256i b = _mm256_add_epi32(_mm256_unpacklo_epi32(t[2], t[3]), _mm256_unpackhi_epi32(t[2], t[3]));
    a = _mm256_add_epi32(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
    return _mm256_castsi128_si256(_mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1)));
}
/* A block of four or eight rows by the column: their sums; the sums of activations, in blocks of 256 times the
   minimums, or times the scales for the offset; d and m, as halves. */
typedef struct tfm__sums { __m256i isum, msum; __m128i d, m; } tfm__sums;

/* d of four rows' blocks, then m. */
TFM__AVX2 TFM__INLINE __m128i tfm__scale_rows(tfm__form f, const uint8_t *p, int64_t stride) {
    p += f.scale_at;
    if (!f.has_min) {
        __m128i v = _mm_cvtsi32_si128(tfm__load_u16(p));
        v = _mm_insert_epi16(v, (int16_t)tfm__load_u16(p + stride), 1);
        v = _mm_insert_epi16(v, (int16_t)tfm__load_u16(p + 2 * stride), 2);
        return _mm_insert_epi16(v, (int16_t)tfm__load_u16(p + 3 * stride), 3);
    }
    __m128i v = _mm_setr_epi32(tfm__load_i32(p), tfm__load_i32(p + stride), tfm__load_i32(p + 2 * stride),
                               tfm__load_i32(p + 3 * stride));
    return _mm_shuffle_epi8(v, _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15));
}
/* One row's block of 256: the sum in eight pieces. */
TFM__AVX2 TFM__INLINE __m256i tfm__row_256(int isa, tfm__form f, const uint8_t *p, const int8_t *q, __m256i sums,
                                           __m256i *msum) {
    __m256i mins, sc = tfm__scales(f.type, p, &mins), acc = _mm256_setzero_si256();
    __m256i both[2] = { _mm256_permute2x128_si256(sc, sc, 0x00), _mm256_permute2x128_si256(sc, sc, 0x11) };
    TFM__UNROLL for (int j = 0; j < 8; j++) {       /* words 2j and 2j + 1 to the two halves */
        int word = j % 4 * 4;
        __m256i pick = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_set1_epi16((int16_t)(word * 257 + 256))),
                                               _mm_set1_epi16((int16_t)(word * 257 + 256 + 514)), 1);
        __m256i t = _mm256_maddubs_epi16(tfm__raw(f.type, p, j), tfm__load256(q + 32 * j));
        acc = tfm__dot(isa, 16, acc, t, _mm256_shuffle_epi8(both[j / 4], pick));
    }
    *msum = _mm256_madd_epi16(f.has_min ? mins : sc, sums);
    return acc;
}
TFM__AVX2 TFM__INLINE tfm__sums tfm__sum_run(int isa, tfm__form f, const uint8_t *w, int64_t stride, const char *ahead,
                                             tfm__act x) {
    const __m256i zero = _mm256_setzero_si256(), ones = _mm256_set1_epi16(1);
    const __m256i before = _mm256_set1_epi8((char)tfm__offset_before(isa, f));
    const __m128i scales = tfm__scale_rows(f, w, stride);
    tfm__sums s = { zero, zero, _mm_move_epi64(scales), _mm_unpackhi_epi64(scales, scales) };
    __m256i isum[TFM__RUN], mins[TFM__RUN];
    TFM__UNROLL for (int i = 0; i < TFM__RUN * f.bytes; i += 64) _mm_prefetch(ahead + i, _MM_HINT_T0);
    TFM__UNROLL for (int r = 0; r < TFM__RUN; r++, w += stride)
        if (f.block == 32) {
            __m256i v = _mm256_sub_epi8(tfm__raw(f.type, w, 0), before);
            isum[r] = tfm__add_sum(isa, f, zero, tfm__add_quad(isa, f, zero, v, tfm__load256(x.q)), ones);
        } else {
            isum[r] = tfm__row_256(isa, f, w, x.q, tfm__load256(x.sums), &mins[r]);
        }
    s.msum = f.block == 32 ? _mm256_madd_epi16(tfm__four(x.sums), ones) : tfm__sum_rows(mins);
    s.isum = tfm__sum_rows(isum);
    return s;
}
TFM__AVX2 TFM__INLINE tfm__sums tfm__sum_eight(int isa, tfm__form f, const uint8_t *p, tfm__act x) {
    const bool large = f.block == 256, vnni = isa != TFM__AVX2_SUMS;
    const int quads = tfm__quads_of_sum(isa, f);
    const __m256i zero = _mm256_setzero_si256(), ones = _mm256_set1_epi16(1);
    const __m256i before = _mm256_set1_epi8((char)tfm__offset_before(isa, f));
    tfm__eight w = tfm__eight_at(f, p);
    tfm__sums s = { zero, zero, tfm__load128(w.d), tfm__load128(f.has_min ? w.m : w.d) };
    for (int j = 0; j < f.block / 32; j++, w.bits += 32 * f.bits, x.q += 32) {
        const char *ahead = (const char *)w.bits + TFM__AHEAD;
        TFM__UNROLL for (int i = 0; i < 32 * f.bits; i += 64) _mm_prefetch(ahead + i, _MM_HINT_T0);
        TFM__UNROLL for (int i = 0; i < 8; i += quads) {
            const int sub = (32 * j + 4 * i) / f.group;
            __m256i sum[2] = { zero, zero }, scale = ones;      /* two chains */
            TFM__UNROLL for (int n = i; n < i + quads; n++) {
                __m256i v = _mm256_sub_epi8(tfm__raw_rows(f, w.bits, n), before);
                sum[n % 2] = tfm__add_quad(isa, f, sum[n % 2], v, tfm__four(x.q + 4 * n));
            }
            sum[0] = vnni ? _mm256_add_epi32(sum[0], sum[1]) : _mm256_add_epi16(sum[0], sum[1]);
            if (large) scale = vnni ? tfm__lanes_of(w.sc, sub) : tfm__pairs_of(w.sc, sub, sub);
            s.isum = tfm__add_sum(isa, f, s.isum, sum[0], scale);
        }
        const int sub = 32 * j / f.group, next = (32 * j + 16) / f.group;
        s.msum = tfm__dot(isa, 16, s.msum, large ? tfm__pairs_of(w.mins, sub, next) : ones, tfm__four(x.sums + 2 * j));
    }
    return s;
}
TFM__AVX2 TFM__INLINE void tfm__column(int isa, tfm__form f, bool by_eight, const tfm__gemm_job *j, const tfm__part *p,
                                       int64_t begin, int64_t end) {
    const tfm__act a = tfm__act_at(j->x, j->k, f.block);
    const int rows = by_eight ? (int)TFM__ROWS : (int)TFM__RUN, after = f.offset - tfm__offset_before(isa, f);
    const int64_t blocks = j->k / f.block, bytes = by_eight ? (int64_t)tfm__interleaved_bytes(p->type) : f.bytes;
    const int64_t step = p->rows < rows ? 1 : rows, stride = step == 1 ? 0 : p->w_stride;
    for (int64_t row = begin; row < end; row += step) {             /* of fewer rows, one is taken four times */
        const int64_t first = step == 1 ? row : tfm__min64(row, p->rows - rows);
        const char *w = by_eight ? p->interleaved + first / TFM__ROWS * blocks * bytes : p->w + first * p->w_stride;
        const char *ahead = w + TFM__RUN * stride;
        __m256 acc = _mm256_setzero_ps();
        for (int64_t b = 0; b < blocks; b++, w += bytes, ahead += TFM__RUN * bytes) {
            const tfm__act x = tfm__act_after(a, f.block, b);
            tfm__sums s = by_eight ? tfm__sum_eight(isa, f, (const uint8_t *)w, x)
                                   : tfm__sum_run(isa, f, (const uint8_t *)w, stride, ahead, x);
            __m256 dx = _mm256_broadcast_ss(x.d), mx = _mm256_mul_ps(_mm256_cvtph_ps(s.m), dx);
            if (after) s.isum = _mm256_sub_epi32(s.isum, _mm256_slli_epi32(s.msum, __builtin_ctz((unsigned)after)));
            acc = _mm256_fmadd_ps(_mm256_cvtepi32_ps(s.isum), _mm256_mul_ps(_mm256_cvtph_ps(s.d), dx), acc);
            if (f.block == 256) mx = tfm__negate_avx2(mx);
            if (f.has_min) acc = _mm256_fmadd_ps(_mm256_cvtepi32_ps(s.msum), mx, acc);
        }
        float out[TFM__ROWS];
        _mm256_storeu_ps(out, acc);
        for (int r = 0; r < rows; r++)
            if (first + r >= row && first + r < tfm__min64(end, row + step)) tfm__gemm_store(p, first + r, 0, out[r]);
    }
}
TFM__AVX2 TFM__INLINE void tfm__column_of(int isa, tfm__form f, const tfm__gemm_job *j, const tfm__part *p,
                                          int64_t begin, int64_t end) {
    if (tfm__by_eight(f, p)) tfm__column(isa, f, true, j, p, begin, end);
    else tfm__column(isa, f, false, j, p, begin, end);
}

/* ---- many columns ---- */

/* 16 rows unpacked, block by block: scales, then bytes. Blocks of 32 have d and m (or what signs need), blocks
   of 256 d, m, 16 scales, each twice, and 8 pairs of minimums, as 16 bits. Minimums of types of 256 with an
   offset are their scales times -offset: so the offset comes off the sum at the end of the block. */
TFM__INLINE int tfm__panel_scales(int block) { return (block == 32 ? 2 : 26) * TFM__PANEL * 4; }
TFM__INLINE int tfm__panel_bytes(int block) { return tfm__panel_scales(block) + block * TFM__PANEL; }

/* 4 rows of 32 bytes to 8 quads of [rows][4], `stride` bytes apart. */
TFM__AVX2 TFM__INLINE void tfm__quads(void *out, int stride, const __m256i v[4]) {
    char *q = (char *)out;
    __m256i ab = _mm256_unpacklo_epi32(v[0], v[1]), cd = _mm256_unpacklo_epi32(v[2], v[3]), t[4];
    t[0] = _mm256_unpacklo_epi64(ab, cd);
    t[1] = _mm256_unpackhi_epi64(ab, cd);
    ab = _mm256_unpackhi_epi32(v[0], v[1]);
    cd = _mm256_unpackhi_epi32(v[2], v[3]);
    t[2] = _mm256_unpacklo_epi64(ab, cd);
    t[3] = _mm256_unpackhi_epi64(ab, cd);
    TFM__UNROLL for (int i = 0; i < 4; i++) {
        tfm__store128(q + stride * i, _mm256_castsi256_si128(t[i]));
        tfm__store128(q + stride * (i + 4), _mm256_extracti128_si256(t[i], 1));
    }
}
/* The scales of eight rows' blocks, gathered as interleaved rows of groups of 16 have them. */
TFM__AVX2 TFM__INLINE void tfm__gather_scales(tfm__form f, const uint8_t *const *w, uint8_t *out) {
    TFM__UNROLL for (int r = 0; r < TFM__ROWS; r++) {
        memcpy(out + 2 * r, w[r] + f.scale_at, 2);
        if (f.has_min) memcpy(out + 16 + 2 * r, w[r] + f.scale_at + 2, 2);
    }
    for (int g = 0; f.block == 256 && g < 2; g++) {
        __m256i v[4];
        TFM__UNROLL for (int r = 0; r < 4; r++) {
            __m256i mins, sc = tfm__scales(f.type, w[4 * g + r], &mins);
            v[r] = _mm256_permute4x64_epi64(_mm256_packs_epi16(sc, mins), 0xd8);
        }
        tfm__quads(out + (f.has_min ? 32 : 16) + 16 * g, 32, v);
    }
}
/* Scales of eight rows' block to their half of a panel. */
TFM__AVX2 TFM__INLINE void tfm__panel_head(tfm__form f, const uint8_t *p, char *out) {
    const tfm__eight e = tfm__eight_at(f, p);
    _mm256_storeu_ps((float *)(void *)out, _mm256_cvtph_ps(tfm__load128(e.d)));
    if (f.has_min) {
        __m256 m = _mm256_cvtph_ps(tfm__load128(e.m));
        _mm256_storeu_ps((float *)(void *)(out + 64), f.block == 256 ? tfm__negate_avx2(m) : m);
    }
    if (f.block == 32) return;
    TFM__UNROLL for (int i = 0; i < 16; i += 2) {
        const int a = 16 * i / f.group, b = 16 * (i + 1) / f.group;
        __m256i mins = tfm__pairs_of(e.mins, a, b);
        if (f.offset) mins = _mm256_mullo_epi16(mins, _mm256_set1_epi16((int16_t)-f.offset));
        tfm__store256(out + 64 * (2 + i), tfm__pairs_of(e.sc, a, a));
        tfm__store256(out + 64 * (3 + i), tfm__pairs_of(e.sc, b, b));
        tfm__store256(out + 64 * (18 + i / 2), mins);
    }
}
/* The sums of |w| of negative bytes in eight rows' block of 32, as floats. */
TFM__AVX2 TFM__INLINE void tfm__panel_negatives(const char *q, char *out) {
    const __m256i zero = _mm256_setzero_si256(), ones = _mm256_set1_epi16(1);
    __m256i sum = zero;
    TFM__UNROLL for (int i = 0; i < 8; i++) {
        __m256i w = _mm256_abs_epi8(_mm256_min_epi8(tfm__load256(q + 64 * i), zero));
        sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(w, _mm256_set1_epi8(1)));      /* at most 8 * 256 */
    }
    _mm256_storeu_ps((float *)(void *)out, _mm256_cvtepi32_ps(_mm256_madd_epi16(sum, ones)));
}
TFM__AVX2 TFM__INLINE void tfm__panel_fill(int isa, tfm__form f, const tfm__part *p, int64_t row, int64_t k,
                                           char *out) {
    const bool by_eight = tfm__by_eight(f, p);
    const int64_t blocks = k / f.block, bytes = by_eight ? (int64_t)tfm__interleaved_bytes(p->type) : f.bytes;
    const int64_t ahead = by_eight ? (int64_t)TFM__AHEAD : TFM__PANEL * p->w_stride;         /* the next panel */
    const __m256i before = _mm256_set1_epi8((char)tfm__offset_before(isa, f));
    tfm__form gathered = f;
    gathered.group = 16;
    for (int h = 0; h < 2; h++) {       /* eight rows */
        char *scales = out + 32 * h;
        uint8_t head[32 + 2 * 16 * TFM__ROWS];
        const uint8_t *rows[TFM__ROWS], *w[TFM__ROWS];      /* interleaved: all in the first */
        for (int r = 0; r < TFM__ROWS; r++) {
            const int64_t at = tfm__min64(row + TFM__ROWS * h + r, p->rows - 1);
            rows[r] = (const uint8_t *)p->w + at * p->w_stride;
            if (by_eight) rows[r] = (const uint8_t *)p->interleaved + at / TFM__ROWS * blocks * bytes + r * f.bytes;
        }
        for (int64_t b = 0; b < blocks; b++, scales += tfm__panel_bytes(f.block)) {
            char *q = scales + tfm__panel_scales(f.block);
            TFM__UNROLL for (int r = 0; r < TFM__ROWS; r++) {
                w[r] = rows[r] + b * bytes;
                for (int i = 0; i < f.bytes; i += 64) _mm_prefetch((const char *)w[r] + ahead + i, _MM_HINT_T1);
            }
            if (!by_eight) tfm__gather_scales(f, w, head);
            if (!by_eight) tfm__panel_head(gathered, head, scales);
            else tfm__panel_head(f, w[0], scales);
            const uint8_t *bits = tfm__eight_at(f, w[0]).bits;
            TFM__UNROLL for (int j = 0; j < f.block / 32; j++, q += 32 * TFM__PANEL, bits += 32 * f.bits) {
                __m256i v[8];
                TFM__UNROLL for (int i = 0; i < 8; i++)
                    if (by_eight) tfm__store256(q + 64 * i, _mm256_sub_epi8(tfm__raw_rows(f, bits, i), before));
                if (by_eight) continue;
                TFM__UNROLL for (int i = 0; i < 8; i++) v[i] = _mm256_sub_epi8(tfm__raw(f.type, w[i], j), before);
                tfm__quads(q, 64, v);
                tfm__quads(q + 16, 64, v + 4);
            }
            if (tfm__is_signed(isa, f)) tfm__panel_negatives(q - 32 * TFM__PANEL, scales + 64);
        }
    }
}

/* One tile of columns, [k/group][columns] d, [k/32][columns] sums, [k/4][columns][4], meets one panel.
   isum += the products of the quads of one sum, times the scale. */
TFM__AVX2 TFM__INLINE void tfm__tile_sum(int isa, tfm__form f, const char *w, const int8_t *x,
                                         const __m256i scale[2], __m256i isum[2 * TFM__TILE_AVX2]) {
    const int last = tfm__quads_of_sum(isa, f) - 1;
    __m256i sum[2 * TFM__TILE_AVX2];
    TFM__UNROLL for (int n = 0; n < 2 * TFM__TILE_AVX2; n++) sum[n] = _mm256_setzero_si256();
    TFM__UNROLL for (int i = 0; i <= last; i++, w += 2 * 32, x += 4 * TFM__TILE_AVX2) {
        __m256i v[2] = { tfm__load256(w), tfm__load256(w + 32) }, s[2];
        for (int h = 0; tfm__is_signed(isa, f) && h < 2; h++) {
            s[h] = _mm256_cmpgt_epi8(_mm256_setzero_si256(), v[h]);
            v[h] = _mm256_abs_epi8(v[h]);
        }
        TFM__UNROLL for (int n = 0; n < 2 * TFM__TILE_AVX2; n++) {
            __m256i u = tfm__four(x + n / 2 * 4);
            if (tfm__is_signed(isa, f)) u = _mm256_xor_si256(u, s[n % 2]);
            sum[n] = tfm__dot(isa, 8, sum[n], v[n % 2], u);
            if (i == last) isum[n] = tfm__add_sum(isa, f, isum[n], sum[n], scale[n % 2]);
            if (isa != TFM__AVX2_SUMS) continue;
            if (i == last) __asm__("" : "+x"(isum[n]));         /* gcc would reorder these sums, and spill */
            else __asm__("" : "+x"(sum[n]));
        }
    }
}
/* acc + a column's sum over one block, times its scales, of eight rows. */
TFM__AVX2 TFM__INLINE __m256 tfm__add_block_avx2(int isa, tfm__form f, const char *scales, const float *d,
                                                 const int16_t *s, __m256i isum, __m256 acc) {
    const float *dw = (const float *)(const void *)scales;
    __m256 dx = _mm256_broadcast_ss(d), msum = _mm256_castsi256_ps(tfm__four(s));
    if (f.block == 256 && (f.has_min || f.offset)) {
        __m256i t = f.offset ? isum : _mm256_setzero_si256();
        TFM__UNROLL for (int i = 0; i < 8; i++)
            t = tfm__dot(isa, 16, t, tfm__load256(scales + 64 * (18 + i)), tfm__four(s + 2 * i * TFM__TILE_AVX2));
        if (f.offset) isum = t;
        else msum = _mm256_cvtepi32_ps(t);
    }
    __m256 sum = _mm256_cvtepi32_ps(isum);
    if (f.block == 32 && f.offset) sum = _mm256_sub_ps(sum, msum);
    if (tfm__is_signed(isa, f)) sum = _mm256_add_ps(sum, _mm256_loadu_ps(dw + TFM__PANEL));
    acc = _mm256_fmadd_ps(sum, _mm256_mul_ps(_mm256_loadu_ps(dw), dx), acc);
    return f.has_min ? _mm256_fmadd_ps(msum, _mm256_mul_ps(_mm256_loadu_ps(dw + TFM__PANEL), dx), acc) : acc;
}
/* out [columns][16] = the tile's products. */
TFM__AVX2 TFM__INLINE void tfm__tile_avx2(int isa, tfm__form f, const char *w, tfm__act a, int64_t k, float *out) {
    const int step = 4 * tfm__quads_of_sum(isa, f), part = f.block == 32 ? 32 : step;       /* unrolled */
    const __m256i ones = _mm256_set1_epi16(1);
    __m256 acc[2 * TFM__TILE_AVX2];     /* in memory: the sums of a block need the registers */
    f.offset -= tfm__offset_before(isa, f);
    TFM__UNROLL for (int i = 0; i < 2 * TFM__TILE_AVX2; i++) acc[i] = _mm256_setzero_ps();
    for (int64_t b = 0; b < k / f.block; b++, w += tfm__panel_bytes(f.block)) {
        const tfm__act x = tfm__act_after(a, f.block, b * TFM__TILE_AVX2);
        const char *q = w + tfm__panel_scales(f.block);
        __m256i isum[2 * TFM__TILE_AVX2], scale[2] = { ones, ones };
        TFM__UNROLL for (int i = 0; i < 2 * TFM__TILE_AVX2; i++) isum[i] = _mm256_setzero_si256();
        for (int j = 0; j < f.block; j += part) {
            TFM__UNROLL for (int i = 0; i < part; i += step) {
                for (int h = 0; f.block == 256 && h < 2; h++) {
                    scale[h] = tfm__load256(w + 64 * (2 + (j + i) / 16) + 32 * h);
                    if (isa != TFM__AVX2_SUMS) scale[h] = _mm256_srai_epi32(scale[h], 16);
                }
                tfm__tile_sum(isa, f, q + TFM__PANEL * (j + i), x.q + TFM__TILE_AVX2 * (j + i), scale, isum);
            }
        }
        TFM__UNROLL for (int i = 0; i < 2 * TFM__TILE_AVX2; i++)
            acc[i] = tfm__add_block_avx2(isa, f, w + i % 2 * 32, x.d + i / 2, x.sums + i / 2 * 2, isum[i], acc[i]);
    }
    TFM__UNROLL for (int i = 0; i < 2 * TFM__TILE_AVX2; i++) _mm256_storeu_ps(out + 8 * i, acc[i]);
}
/* acc [columns][16] to its place, with the bias. */
TFM__AVX2 static void tfm__tile_store(const tfm__part *p, int64_t row, int64_t last, int64_t column, int64_t columns,
                                      const float *acc) {
    const bool whole = p->y_row == 1 && row + TFM__PANEL <= last;
    for (const int64_t end = column + columns; column < end; column++, acc += TFM__PANEL) {
        for (int64_t r = row; !whole && r < last && r < row + TFM__PANEL; r++)
            tfm__gemm_store(p, r, column, acc[r - row]);
        for (int h = 0; whole && h < TFM__PANEL; h += 8) {
            __m256 v = _mm256_loadu_ps(acc + h);
            if (p->bias) v = _mm256_add_ps(v, _mm256_loadu_ps(p->bias + row + h));
            _mm256_storeu_ps(p->y + row + column * p->y_column + h, v);
        }
    }
}

/* A tile of columns, each quantized in scratch and dealt out, 4 bytes of k side by side (AMX: 32); missing
   columns are zeros. */
TFM__AVX2 static void tfm__columns_tile(const tfm__columns_job *j, int64_t tile, char *out, char *row) {
    tfm__act t = tfm__act_at(out, j->k * j->width, j->group), a = tfm__act_at(row, j->k, j->group);
    for (int c = 0; c < j->width; c++) {
        int64_t column = tile * j->width + c;
        float *d = (float *)(uintptr_t)t.d + c;
        int16_t *s = (int16_t *)(uintptr_t)t.sums + 2 * c;
        char *q = (char *)(uintptr_t)t.q;
        if (column < j->n) tfm__quantize_avx2(j->x + column * j->k, j->k, j->group, row);
        else memset(row, 0, tfm__act_bytes(j->k, j->group));
        for (int64_t i = 0; i < j->k / j->group; i++) d[i * j->width] = a.d[i];
        for (int64_t i = 0; i < j->k; i += 4)
            if (j->width != TFM__TILE_AMX) memcpy(q + i * j->width + 4 * c, a.q + i, 4);
            else if (i % 32 == 0) memcpy(q + i * j->width + 32 * c, a.q + i, 32);
        for (int64_t i = 0; i < j->k / 32; i++) {
            float sum = (float)(j->factor * (a.sums[2 * i] + a.sums[2 * i + 1]));
            memcpy(s + 2 * i * j->width, j->factor ? (const void *)&sum : a.sums + 2 * i, 4);
        }
    }
}
TFM__AVX2 static void tfm__columns_avx2(void *arg, int64_t begin, int64_t end, int thread) {
    const tfm__columns_job *j = (const tfm__columns_job *)arg;
    if (j->group == 0) { tfm__float_columns_avx2(j, begin, end); return; }
    for (int64_t i = begin; i < end; i++) {
        char *out = j->out + (size_t)(i * j->width) * tfm__act_bytes(j->k, j->group);
        if (j->width == 1) tfm__quantize_avx2(j->x + i * j->k, j->k, j->group, out);
        else tfm__columns_tile(j, i, out, j->scratch + (size_t)thread * j->scratch_stride);
    }
}

/* ---- AVX-512 ------------------------------------------------------------------- [KERNELS.AVX512]
   Quantized products with VNNI: a panel's quad of 16 rows is one register, and meets eight columns
   broadcast from memory: 8 integer sums, 8 integer sums times scales (blocks of 256), 8 float sums,
   the weights and a few to spare, of 32. Orders are those of the AVX2 part, whose panels these are.

   AMX [KERNELS.AMX]: one instruction multiplies 16 columns by a panel's 16 rows, 32 of k (16 for types
   whose scales stand for 16): a tile of 16 x 16 integers, the sum of one scale block, which goes through
   memory to the vector registers; there 16 columns' sums are multiplied by their scales as ever. Weights
   are signed, so nothing is taken off. Tile register 0 holds the sums, 1 the columns [16][32 bytes], 2
   the rows [8 quads][16][4]; of 16 of k, both are half as long.                                     */

#define TFM__DOT512(op, acc, w, p) \
    __asm__(op " %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(w), "m"(*(const int32_t *)(const void *)(p)))

/* Through masks that keep all: g++ 12 warns of its own unmasked forms. */
TFM__AVX512VNNI TFM__INLINE __m512 tfm__to_floats(__m512i v) { return _mm512_maskz_cvtepi32_ps((__mmask16)0xffff, v); }
TFM__AVX512VNNI TFM__INLINE __m512i tfm__upper_halves(__m512i v) { return _mm512_maskz_srai_epi32(0xffff, v, 16); }
TFM__AVX512VNNI TFM__INLINE __m512i tfm__to_ints(__m512 v) { return _mm512_maskz_cvtps_epi32((__mmask16)0xffff, v); }
/* The tile registers for groups of 16 or 32; 0: no more. */
TFM__INLINE void tfm__amx_set(int group) {
#if TFM__SIMD_2021
    struct { uint8_t palette, zeros[15]; uint16_t bytes[16]; uint8_t rows[16]; } shapes = {
        1, { 0 }, { 64, (uint16_t)group, 64 }, { 16, 16, (uint8_t)(group / 4) } };
    if (group) __asm__ volatile("ldtilecfg (%0)" : : "r"(&shapes) : "memory");
    else __asm__ volatile("tilerelease");
#else
    (void)group;
#endif
}
/* out [16 columns][16 rows] = products of a group */
TFM__INLINE void tfm__amx_dot(const int8_t *x, const char *w, int32_t *out) {
#if TFM__SIMD_2021
    __asm__ volatile("tilezero %%tmm0\n\ttileloadd (%0,%3,1), %%tmm1\n\ttileloadd (%1,%4,1), %%tmm2\n\t"
                     "tdpbssd %%tmm2, %%tmm1, %%tmm0\n\ttilestored %%tmm0, (%2,%4,1)"
                     : : "r"(x), "r"(w), "r"(out), "r"(32L), "r"(64L) : "memory");
#else
    (void)x, (void)w, (void)out;
#endif
}
/* acc + a column's sum over one block, times its scales. */
TFM__AVX512VNNI TFM__INLINE __m512 tfm__add_block_512(tfm__form f, const char *scales, const float *d, const int16_t *s,
                                                      int columns, __m512i isum, __m512 acc) {
    __m512 dx = _mm512_set1_ps(*d), msum = _mm512_castsi512_ps(_mm512_set1_epi32(tfm__load_i32(s)));
    if (f.block == 256 && (f.has_min || f.offset)) {
        __m512i t = f.offset ? isum : _mm512_setzero_si512();
        TFM__UNROLL for (int i = 0; i < 8; i++)
            TFM__DOT512("vpdpwssd", t, _mm512_loadu_si512(scales + 64 * (18 + i)), s + 2 * i * columns);
        if (f.offset) isum = t;
        else msum = tfm__to_floats(t);
    }
    __m512 sum = tfm__to_floats(isum);
    if (f.block == 32 && f.offset) sum = _mm512_sub_ps(sum, msum);
    acc = _mm512_fmadd_ps(sum, _mm512_mul_ps(_mm512_loadu_ps(scales), dx), acc);
    return f.has_min ? _mm512_fmadd_ps(msum, _mm512_mul_ps(_mm512_loadu_ps(scales + 64), dx), acc) : acc;
}
/* out [columns][16] = the tile's products. AMX: the integers of a block of 256 times integer scales are
   summed as floats while they are exact, that is below 2^24: over 128 of k for Q4_K (15 * 127 * 63 *
   128), 64 for Q5_K, 32 for Q6_K (32 * 127 * 128 * 32), else over all. */
TFM__AVX512VNNI TFM__INLINE void tfm__tile_512(int isa, tfm__form f, const char *w, tfm__act a, int64_t k, float *out) {
    const bool amx = isa == TFM__AMX, large = f.block == 256;
    const int columns = amx ? TFM__TILE_AMX : TFM__TILE_AVX512;
    const int exact = f.bits == 6 ? 32 : f.bits == 5 ? 64 : f.bits == 4 ? 128 : 256;
    int32_t sums[2][TFM__TILE_AMX * TFM__PANEL];        /* AMX fills one while the other is read */
    __m512 acc[TFM__TILE_AMX], part[TFM__TILE_AMX];
    __m512i isum[TFM__TILE_AMX];
    f.offset -= tfm__offset_before(isa, f);
    if (amx && k) tfm__amx_dot(a.q, w + tfm__panel_scales(f.block), sums[0]);
    TFM__UNROLL for (int c = 0; c < columns; c++) acc[c] = part[c] = _mm512_setzero_ps();
    for (int64_t b = 0, n = 0; b < k / f.block; b++, w += tfm__panel_bytes(f.block)) {
        const tfm__act x = tfm__act_after(a, f.block, b * columns);
        const char *q = w + tfm__panel_scales(f.block);
        TFM__UNROLL for (int c = 0; c < columns; c++) isum[c] = _mm512_setzero_si512();
        for (int at = 0, next = f.group; at < f.block; at = next, next += f.group, n++) {
            const int32_t *o = sums[n % 2];
            __m512i v[TFM__TILE_AMX], s = _mm512_setzero_si512();
            if (large) s = tfm__upper_halves(_mm512_loadu_si512(w + 64 * (2 + at / 16)));
            if (amx && f.block * b + next < k)
                tfm__amx_dot(x.q + next / 32 * 32 * columns + next % 32,
                             next < f.block ? q + next * TFM__PANEL : q + tfm__panel_bytes(f.block), sums[(n + 1) % 2]);
            TFM__UNROLL for (int c = 0; c < columns; c++)
                v[c] = amx ? _mm512_loadu_si512(o + TFM__PANEL * c) : _mm512_setzero_si512();
            TFM__UNROLL for (int i = 0; i < f.group; i += 4) {
                if (amx) break;
                __m512i quad = _mm512_loadu_si512(q + TFM__PANEL * (at + i));
                const int8_t *four = x.q + columns * (at + i);
                TFM__UNROLL for (int c = 0; c < columns; c++) TFM__DOT512("vpdpbusd", v[c], quad, four + 4 * c);
            }
            TFM__UNROLL for (int c = 0; c < columns; c++) {
                if (!large) isum[c] = v[c];
                else if (!amx) isum[c] = _mm512_add_epi32(isum[c], _mm512_mullo_epi32(v[c], s));
                else part[c] = _mm512_fmadd_ps(tfm__to_floats(v[c]), tfm__to_floats(s), part[c]);
            }
            if (!amx || !large || next % exact) continue;
            TFM__UNROLL for (int c = 0; c < columns; c++) {
                isum[c] = _mm512_add_epi32(isum[c], tfm__to_ints(part[c]));
                part[c] = _mm512_setzero_ps();
            }
        }
        TFM__UNROLL for (int c = 0; c < columns; c++)
            acc[c] = tfm__add_block_512(f, w, x.d + c, x.sums + 2 * c, columns, isum[c], acc[c]);
    }
    TFM__UNROLL for (int c = 0; c < columns; c++) _mm512_storeu_ps(out + TFM__PANEL * c, acc[c]);
}

/* ---- Integer products of all levels: each type's bodies, compiled for it and for each isa ---- */

#define TFM__X(type, ...)                                                                                           \
    TFM__AVX2 static void tfm__column_##type(int isa, const tfm__gemm_job *j, const tfm__part *p, int64_t begin,    \
                                             int64_t end) {                                                         \
        if (isa == TFM__AVX2_SUMS) tfm__column_of(TFM__AVX2_SUMS, tfm__form_##type, j, p, begin, end);              \
        else if (isa == TFM__VEX_VNNI) tfm__column_of(TFM__VEX_VNNI, tfm__form_##type, j, p, begin, end);           \
        else tfm__column_of(TFM__EVEX_VNNI, tfm__form_##type, j, p, begin, end);                                    \
    }                                                                                                               \
    TFM__AVX2 static void tfm__panel_##type(int isa, const tfm__part *p, int64_t row, int64_t k, char *out) {       \
        tfm__panel_fill(isa, tfm__form_##type, p, row, k, out);                                                     \
    }                                                                                                               \
    TFM__AVX2 static void tfm__tile_##type(int isa, const char *w, tfm__act x, int64_t k, float *out) {             \
        if (isa == TFM__AVX2_SUMS) tfm__tile_avx2(TFM__AVX2_SUMS, tfm__form_##type, w, x, k, out);                  \
        else tfm__tile_avx2(TFM__VEX_VNNI, tfm__form_##type, w, x, k, out);                                         \
    }                                                                                                               \
    TFM__AVX512VNNI static void tfm__tile_##type##_512(int isa, const char *w, tfm__act x, int64_t k, float *out) { \
        if (isa == TFM__AMX) tfm__tile_512(TFM__AMX, tfm__form_##type, w, x, k, out);                               \
        else tfm__tile_512(TFM__EVEX_VNNI, tfm__form_##type, w, x, k, out);                                         \
    }
TFM__EACH_QUANTIZED(TFM__X)
#undef TFM__X

static void tfm__gemm_integers(int isa, const tfm__gemm_job *j, const tfm__part *p, int64_t begin, int64_t end,
                               char *scratch) {
    void (*column)(int, const tfm__gemm_job *, const tfm__part *, int64_t, int64_t);
    void (*panel)(int, const tfm__part *, int64_t, int64_t, char *);
    void (*tile)(int, const char *, tfm__act, int64_t, float *);
    switch (p->type->type) {
#define TFM__X(type, ...)                                                                  \
        case TFM_##type:                                                                   \
            column = tfm__column_##type;                                                   \
            panel = tfm__panel_##type;                                                     \
            tile = isa < TFM__EVEX_VNNI ? tfm__tile_##type : tfm__tile_##type##_512;       \
            break;
        TFM__EACH_QUANTIZED(TFM__X)
#undef TFM__X
        default: return;
    }
    if (j->n == 1) { column(isa, j, p, begin, end); return; }
    if (isa == TFM__AMX) tfm__amx_set(p->type->group);
    for (int64_t row = begin; row < end; row += TFM__PANEL) {
        panel(isa, p, row, j->k, scratch);
        for (int64_t c = 0; c < j->n; c += j->width) {
            const char *x = j->x + (size_t)(c / j->width) * j->x_stride;
            __attribute__((aligned(64))) float out[TFM__TILE_AMX * TFM__PANEL];
            tile(isa, scratch, tfm__act_at(x, j->k * j->width, p->type->block), j->k, out);
            tfm__tile_store(p, row, end, c, tfm__min64(j->width, j->n - c), out);
        }
    }
    if (isa == TFM__AMX) tfm__amx_set(0);
}
static void tfm__gemm_x86(int isa, tfm__product_kernel *floats, const tfm__gemm_job *j, int64_t begin, int64_t end,
                          int thread) {
    const tfm__part *p;
    char *scratch = j->scratch ? j->scratch + (size_t)thread * j->scratch_stride : NULL;
    for (int64_t first, last; begin < end;) {
        begin = tfm__gemm_rows(j, begin, end, &p, &first, &last);
        if (p->type->unpack) tfm__gemm_integers(isa, j, p, first, last, scratch);
        else tfm__gemm_float_avx2(floats, j, p, first, last, scratch);
    }
}
static size_t tfm__scratch_x86(const tfm__type *type, int64_t k) {
    return type->unpack ? (size_t)(k / type->block * tfm__panel_bytes(type->block)) : tfm__float_scratch(k);
}

#endif

/* ---- The kernel table --------------------------------------------------------- [KERNELS.TABLE]
   A level is one row of functions. To add an instruction set: write its functions under the same
   job types, add its level, its row, and its line in tfm__kernel_rows.                         */

typedef struct tfm__kernels {
    tfm_level level;
    int width, float_width;             /* columns of a tile: quantized, float; 1: rows as they are */
    bool vnni;
    size_t (*scratch)(const tfm__type *type, int64_t k);   /* bytes that gemm takes per thread, or NULL */
    tfm__task gemm, columns, unary, rows, rope, scores, join, cell, binary;
    tfm__product_kernel *product;
    void (*decode)(tfm_type type, const void *src, float *dst, int64_t n);
    void (*halves)(const float *x, uint16_t *y, int64_t n);                    /* to f16 */
    int64_t (*next_above)(const float *x, int64_t i, int64_t n, float limit);
    void (*weigh)(const float *logits, const int32_t *ids, int64_t n, float best, float temperature, float *p);
    void (*pack)(const tfm__pack *p);   /* float weights into panels of TFM__PANEL rows, or NULL: gemm knows none */
} tfm__kernels;

#define TFM__INSTANCE(target, kernel, suffix, fma)                                                 \
    target static void tfm__##kernel##_##suffix(void *job, int64_t begin, int64_t end, int thread) { \
        (void)thread;                                                                              \
        tfm__##kernel##_run(fma, (const tfm__##kernel##_job *)job, begin, end);                      \
    }
#define TFM__SMALL_OPS(target, suffix, fma)                                            \
    TFM__INSTANCE(target, unary, suffix, fma)                                          \
    TFM__INSTANCE(target, rows, suffix, fma)                                           \
    TFM__INSTANCE(target, rope, suffix, fma)                                           \
    TFM__INSTANCE(target, scores, suffix, fma)                                         \
    TFM__INSTANCE(target, join, suffix, fma)                                           \
    TFM__INSTANCE(target, cell, suffix, fma)                                           \
    TFM__INSTANCE(target, binary, suffix, fma)
#define TFM__PORTABLE(suffix, level, target, fma)                                      \
    TFM__SMALL_OPS(target, suffix, fma)                                                \
    TFM__INSTANCE(target, gemm, suffix, fma)                                           \
    target static void tfm__product_##suffix(const tfm__product *t) { tfm__product_run(fma, t); } \
    static const tfm__kernels tfm__kernels_##suffix = {                                \
        level, 1, 1, false, NULL, tfm__gemm_##suffix, tfm__columns_quantize,                  \
        tfm__unary_##suffix, tfm__rows_##suffix, tfm__rope_##suffix,                   \
        tfm__scores_##suffix, tfm__join_##suffix, tfm__cell_##suffix,                  \
        tfm__binary_##suffix, tfm__product_##suffix,                                   \
        tfm__decode, tfm__halves, tfm__next_above, tfm__weigh, NULL                    \
    };

/* A build that targets the instruction (AArch64, Cortex-M4F, -march=haswell) has the fused row alone:
   the others would only take up flash. */
#if TFM__HAS_FMA
TFM__PORTABLE(fma, TFM_LEVEL_FMA, , TFM__FMA_HARD)
#else
TFM__PORTABLE(unfused, TFM_LEVEL_UNFUSED, , TFM__FMA_NONE)
TFM__PORTABLE(exact, TFM_LEVEL_EXACT, , TFM__FMA_SOFT)
#if TFM__X86
TFM__PORTABLE(fma, TFM_LEVEL_FMA, TFM__TARGET("fma"), TFM__FMA_HARD)
#endif
#endif
#undef TFM__PORTABLE

#if TFM__SIMD_X86
TFM__SMALL_OPS(TFM__AVX2 TFM__LOOPS, avx2, TFM__FMA_HARD)
TFM__SMALL_OPS(TFM__AVX512 TFM__LOOPS, avx512, TFM__FMA_HARD)
#define TFM__X86_ROW(suffix, level, width, float_width, isa, bits)                                  \
    static void tfm__gemm_##suffix(void *job, int64_t begin, int64_t end, int thread) {             \
        tfm__gemm_x86(isa, tfm__product_avx##bits, (const tfm__gemm_job *)job, begin, end, thread); \
    }                                                                                               \
    static const tfm__kernels tfm__kernels_##suffix = {                                             \
        level, width, float_width, isa != TFM__AVX2_SUMS, tfm__scratch_x86, tfm__gemm_##suffix,     \
        tfm__columns_avx2, tfm__unary_avx##bits, tfm__rows_avx##bits, tfm__rope_avx##bits,          \
        tfm__scores_avx##bits, tfm__join_avx##bits, tfm__cell_avx##bits, tfm__binary_avx##bits,     \
        tfm__product_avx##bits, tfm__decode_avx2, tfm__halves_avx2, tfm__next_above_avx2,           \
        tfm__weigh_avx2, tfm__pack_avx2                                                             \
    };
TFM__X86_ROW(avx2, TFM_LEVEL_AVX2, TFM__TILE_AVX2, 6, TFM__AVX2_SUMS, 2)
TFM__X86_ROW(avx512, TFM_LEVEL_AVX512, TFM__TILE_AVX2, 12, TFM__AVX2_SUMS, 512)
TFM__X86_ROW(avx512vnni, TFM_LEVEL_AVX512VNNI, TFM__TILE_AVX512, 12, TFM__EVEX_VNNI, 512)
#if TFM__SIMD_2021
TFM__X86_ROW(avxvnni, TFM_LEVEL_AVXVNNI, TFM__TILE_AVX2, 6, TFM__VEX_VNNI, 2)
TFM__X86_ROW(amx, TFM_LEVEL_AMX, TFM__TILE_AMX, 12, TFM__AMX, 512)
#endif
#undef TFM__X86_ROW
#endif
#undef TFM__SMALL_OPS
#undef TFM__INSTANCE

/* ---- Contexts and the arena ---------------------------------------------------- [IMPL.CONTEXT] */

/* The rows of this build, the best first. */
static const tfm__kernels *const tfm__kernel_rows[] = {
#if TFM__SIMD_X86
#if TFM__SIMD_2021
    &tfm__kernels_amx,
#endif
    &tfm__kernels_avx512vnni, &tfm__kernels_avx512,
#if TFM__SIMD_2021
    &tfm__kernels_avxvnni,
#endif
    &tfm__kernels_avx2,
#endif
#if TFM__HAS_FMA || TFM__X86
    &tfm__kernels_fma,
#endif
#if !TFM__HAS_FMA && defined(TFM_EXACT_FMA)
    &tfm__kernels_exact, &tfm__kernels_unfused,
#elif !TFM__HAS_FMA
    &tfm__kernels_unfused, &tfm__kernels_exact,
#endif
};
#ifndef TFM_LEVEL_MAX
#define TFM_LEVEL_MAX TFM_LEVEL_COUNT
#endif
/* The row for a level; NULL if this CPU or build cannot run it. */
static const tfm__kernels *tfm__kernels_for(tfm_level level) {
    for (size_t i = 0; i < sizeof tfm__kernel_rows / sizeof *tfm__kernel_rows; i++) {
        const tfm__kernels *k = tfm__kernel_rows[i];
        if ((level == TFM_LEVEL_AUTO ? k->level <= TFM_LEVEL_MAX : level == k->level) && tfm__cpu_runs(k->level))
            return k;
    }
    return NULL;
}
static const char *const tfm__level_names[] = { "auto", "unfused", "exact", "fma", "avx2", "avxvnni", "avx512",
                                                "avx512vnni", "amx" };
TFMDEF const char *tfm_level_name(tfm_level level) {
    return (unsigned)level < TFM_LEVEL_COUNT ? tfm__level_names[level] : "?";
}
TFMDEF bool tfm_level_available(tfm_level level) { return tfm__kernels_for(level) != NULL; }

typedef struct tfm__slab {              /* a piece of the arena; heap slabs begin with this */
    struct tfm__slab *below;
    char *base;
    size_t size, used;
} tfm__slab;

struct tfm_context {
    tfm_error err;
    tfm_allocator allocator;
    const tfm__kernels *kernels;
    tfm__pool pool;
    bool measure;                       /* count bytes, compute nothing */
    bool grows;                         /* may take more slabs from the allocator */
    bool owns_memory;                   /* the context itself came from the allocator */
    tfm__slab first, *top, *spare;      /* spare: the largest one given back, for the next time, or NULL */
    size_t below, peak;                 /* bytes used in slabs under top; the most ever */
};

static bool tfm__ok(const tfm_context *c) { return c && c->err.status == TFM_OK; }

static bool tfm__arena_grow(tfm_context *c, size_t bytes) {
    size_t header, size = c->top->size < SIZE_MAX / 4 ? c->top->size * 2 : 0;
    tfm__round_up(sizeof(tfm__slab), TFM_ALIGN, &header);
    if (size < bytes) size = bytes;
    if (!tfm__add(size, header, &size))
        return tfm__fail(&c->err, TFM_MEMORY, "out of memory: %u bytes are too many", (uint64_t)bytes);
    tfm__slab *s = c->spare && c->spare->size >= bytes ? c->spare : NULL;
    if (s) {
        c->spare = NULL;
    } else {
        char *p = (char *)tfm__heap_alloc(&c->allocator, size, &c->err);
        if (!p) return false;
        s = (tfm__slab *)(void *)p;
        s->base = p + header;
        s->size = size - header;
    }
    s->below = c->top;
    s->used = 0;
    c->below += c->top->used;
    c->top = s;
    return true;
}

/* Aligned, uninitialised memory until the arena is rewound; NULL after an error. */
static void *tfm__arena(tfm_context *c, size_t count, size_t element) {
    size_t bytes;
    if (!tfm__ok(c)) return NULL;
    if (!tfm__mul(count, element, &bytes) || !tfm__round_up(bytes, TFM_ALIGN, &bytes) || bytes > SIZE_MAX / 2) {
        tfm__fail(&c->err, TFM_MEMORY, "out of memory: %u items of %u bytes are too many", (uint64_t)count,
                  (uint64_t)element);
        return NULL;
    }
    if (bytes > c->top->size - c->top->used) {
        if (!c->grows) {
            tfm__fail(&c->err, TFM_MEMORY, "the arena of %u bytes is too small: %u in use, %u more needed",
                      (uint64_t)c->top->size, (uint64_t)c->top->used, (uint64_t)bytes);
            return NULL;
        }
        if (!tfm__arena_grow(c, bytes)) return NULL;
    }
    size_t at = c->top->used;
    c->top->used += bytes;
    if (c->below + c->top->used > c->peak) c->peak = c->below + c->top->used;
    if (c->measure) return (void *)(uintptr_t)(TFM_ALIGN + at);         /* never followed */
    return c->top->base + at;
}
TFMDEF tfm_mark tfm_arena_mark(const tfm_context *c) {
    tfm_mark m;
    m.block = c ? c->top : NULL;
    m.used = c ? c->top->used : 0;
    return m;
}
TFMDEF void tfm_arena_rewind(tfm_context *c, tfm_mark mark) {
    if (!c || !mark.block) return;
    while (c->top != mark.block && c->top->below) {
        tfm__slab *s = c->top;
        c->top = s->below;
        c->below -= c->top->used;
        if (!c->spare || s->size > c->spare->size) {
            tfm__slab *smaller = c->spare;
            c->spare = s;
            s = smaller;
        }
        if (s) tfm__heap_free(&c->allocator, s);
    }
    if (mark.used <= c->top->used) c->top->used = mark.used;
}
TFMDEF size_t tfm_arena_peak(const tfm_context *c) { return c ? c->peak : 0; }
TFMDEF tfm_status tfm_status_of(const tfm_context *c) { return c ? c->err.status : TFM_ARGUMENT; }
TFMDEF const char *tfm_message(const tfm_context *c) { return c ? c->err.message : "the context is NULL"; }
TFMDEF void tfm_clear(tfm_context *c) {
    if (!c) return;
    c->err.status = TFM_OK;
    c->err.message[0] = 0;
}

/* Runs a task over 0..n on the threads, or here if the whole is too small to share: handing over
   takes as long as 10 to 20 thousand operations, one being a product-sum of a quantized product. */
static void tfm__run(tfm_context *c, tfm__task task, void *job, int64_t n, double operations) {
    if (!tfm__ok(c) || c->measure || n <= 0) return;
    if (operations < 50000) task(job, 0, n, 0);
    else tfm__pool_run(&c->pool, task, job, n);
}

/* Carves a context with an arena of `arena` bytes, or counts. The threads start last. */
static tfm_context *tfm__context_carve(tfm__carver *k, const tfm_context_opts *o, size_t arena, tfm_error *e) {
    int threads = o->threads ? o->threads : 1;
    const tfm__kernels *kernels = tfm__kernels_for(o->level);
    if (threads < 1 || threads > 256) {
        tfm__fail(e, TFM_ARGUMENT, "threads: %i is not between 1 and 256", (int64_t)threads);
        return NULL;
    }
    if (!kernels) {
        tfm__fail(e, TFM_UNSUPPORTED, "kernel level %s: this CPU or build cannot run it", tfm_level_name(o->level));
        return NULL;
    }
    tfm_context *c = (tfm_context *)tfm__carve(k, 1, sizeof *c);
    tfm__pool pool;
    tfm__pool_carve(k, &pool, threads);
    char *base = (char *)tfm__carve(k, arena, 1);
    if (!c || k->overflow) return NULL;
    memset(c, 0, sizeof *c);
    c->kernels = kernels;
    c->measure = o->measure;
    c->pool = pool;
    c->top = &c->first;
    c->first.base = base;
    c->first.size = o->measure ? SIZE_MAX / 2 : arena & ~(size_t)(TFM_ALIGN - 1);
    return c;
}
static tfm_context_opts tfm__context_defaults(const tfm_context_opts *opts) {
    tfm_context_opts o;
    memset(&o, 0, sizeof o);
    if (opts) o = *opts;
    if (!o.arena) o.arena = (size_t)1 << 20;
    if (o.measure) o.arena = 0;
    return o;
}
/* What the context takes besides its arena; 0 and an error for bad options. */
static size_t tfm__context_own(const tfm_context_opts *o, tfm_error *e) {
    tfm__carver k;
    memset(&k, 0, sizeof k);
    tfm__context_carve(&k, o, 0, e);
    return e->status == TFM_OK ? k.used : 0;
}
/* In mem, all that is left being the arena. */
static tfm_context *tfm__context_place(void *mem, size_t size, const tfm_context_opts *o, tfm_error *e) {
    tfm__carver k;
    memset(&k, 0, sizeof k);
    size_t own = tfm__context_own(o, e);
    if (!own || !tfm__object(NULL, mem, size, own, "context", e)) return NULL;
    k.base = (char *)mem;
    k.size = size;
    tfm_context *c = tfm__context_carve(&k, o, (size - own) & ~(size_t)(TFM_ALIGN - 1), e);
    return c && (c->measure || tfm__pool_start(&c->pool, e)) ? c : NULL;
}
TFMDEF size_t tfm_context_size(const tfm_context_opts *opts) {
    tfm_error e;
    tfm_context_opts o = tfm__context_defaults(opts);
    return tfm__context_own(&o, tfm__begin(&e, NULL));
}
TFMDEF tfm_context *tfm_context_in(void *mem, size_t size, const tfm_context_opts *opts, tfm_error *err) {
    tfm_error local, *e = tfm__begin(err, &local);
    tfm_context_opts o = tfm__context_defaults(opts);
    return tfm__context_place(mem, size, &o, e);
}
TFMDEF tfm_context *tfm_context_new(const tfm_context_opts *opts, tfm_error *err) {
    tfm_error local, *e = tfm__begin(err, &local);
    tfm_context_opts o = tfm__context_defaults(opts);
    tfm_allocator a = tfm__allocator(o.allocator);
    size_t total = 0, own = tfm__context_own(&o, e);
    if (own && (!tfm__round_up(o.arena, TFM_ALIGN, &total) || !tfm__add(total, own, &total)))
        tfm__fail(e, TFM_MEMORY, "context: an arena of %u bytes does not fit in memory", (uint64_t)o.arena);
    void *mem = e->status == TFM_OK ? tfm__heap_alloc(&a, total, e) : NULL;
    tfm_context *c = mem ? tfm__context_place(mem, total, &o, e) : NULL;
    if (!c) { tfm__heap_free(&a, mem); return NULL; }
    c->allocator = a;
    c->grows = c->owns_memory = true;
    return c;
}
TFMDEF void tfm_context_free(tfm_context *c) {
    if (!c) return;
    tfm_mark bottom;
    bottom.block = &c->first;
    bottom.used = 0;
    tfm_arena_rewind(c, bottom);
    if (!c->measure) tfm__pool_stop(&c->pool);
    tfm_allocator a = c->allocator;
    if (c->spare) tfm__heap_free(&a, c->spare);
    if (c->owns_memory) tfm__heap_free(&a, c);
}

/* ---- Tensors -------------------------------------------------------------------- [IMPL.TENSOR] */

TFMDEF tfm_shape tfm_shape4(int64_t a, int64_t b, int64_t c, int64_t d) {
    tfm_shape s;
    s.rank = 4;
    s.dim[0] = a;
    s.dim[1] = b;
    s.dim[2] = c;
    s.dim[3] = d;
    return s;
}
TFMDEF tfm_shape tfm_shape3(int64_t a, int64_t b, int64_t c) {
    tfm_shape s = tfm_shape4(a, b, c, 1);
    s.rank = 3;
    return s;
}
TFMDEF tfm_shape tfm_shape2(int64_t a, int64_t b) {
    tfm_shape s = tfm_shape4(a, b, 1, 1);
    s.rank = 2;
    return s;
}
TFMDEF tfm_shape tfm_shape1(int64_t a) {
    tfm_shape s = tfm_shape4(a, 1, 1, 1);
    s.rank = 1;
    return s;
}
TFMDEF tfm_tensor tfm_none(void) {
    tfm_tensor t;
    memset(&t, 0, sizeof t);
    return t;
}
/* The product of the first `count` dimensions; a zero comes first, so that nothing overflows: a
   tensor with elements has its size checked. */
static int64_t tfm__product_of(const int64_t *dim, int count) {
    int64_t n = 1;
    for (int i = 0; i < count; i++) if (dim[i] == 0) return 0;
    for (int i = 0; i < count; i++) n *= dim[i];
    return n;
}
TFMDEF int64_t tfm_count(tfm_tensor t) { return t.rank > 0 ? tfm__product_of(t.dim, t.rank) : 0; }
static tfm_shape tfm__shape_of(tfm_tensor t) {
    tfm_shape s = tfm_shape4(t.dim[0], t.dim[1], t.dim[2], t.dim[3]);
    s.rank = t.rank;
    return s;
}
/* Every op begins with this for each of its operands. */
static bool tfm__given(tfm_context *c, const char *op, tfm_tensor t) {
    if (!tfm__ok(c)) return false;
    if (t.rank >= 1 && t.rank <= 4) return true;
    return tfm__fail(&c->err, TFM_ARGUMENT, "%s: no tensor given", op);
}
static bool tfm__given_numbers(tfm_context *c, const char *op, tfm_tensor t) {
    if (!tfm__given(c, op, t)) return false;
    if (tfm__is_numeric(t.type)) return true;
    return tfm__fail(&c->err, TFM_UNSUPPORTED, "%s: type %s is not a number that ops read", op, tfm_type_name(t.type));
}
static bool tfm__axis(tfm_context *c, const char *op, tfm_tensor t, int axis, int *out) {
    *out = axis < 0 ? axis + t.rank : axis;
    if (*out >= 0 && *out < t.rank) return true;
    return tfm__fail(&c->err, TFM_ARGUMENT, "%s: axis %i of a tensor of rank %i", op, (int64_t)axis, (int64_t)t.rank);
}

/* Contiguous strides. A quantized row is one piece: the stride along it is 0. */
static tfm_tensor tfm__layout(void *data, tfm_type type, tfm_shape shape) {
    tfm_tensor t = tfm_none();
    const tfm__type *y = tfm__type_of(type);
    int64_t stride = y ? y->bytes : 0;
    t.data = data;
    t.type = type;
    t.rank = shape.rank;
    for (int i = shape.rank - 1; i >= 0; i--) {
        t.dim[i] = shape.dim[i];
        t.stride[i] = stride;
        if (i == shape.rank - 1 && y && y->block > 1) {
            t.stride[i] = 0;
            stride *= shape.dim[i] / y->block;
        } else stride = (int64_t)((uint64_t)stride * (uint64_t)shape.dim[i]);      /* wraps only if it is empty */
    }
    return t;
}
static tfm_tensor tfm__new(tfm_context *c, tfm_type type, tfm_shape shape) {
    size_t bytes;
    if (!tfm__ok(c)) return tfm_none();
    if (!tfm__tensor_bytes(type, shape, &bytes)) {
        tfm__fail(&c->err, TFM_ARGUMENT, "%d: no %s tensor has such a shape", &shape, tfm_type_name(type));
        return tfm_none();
    }
    void *data = bytes ? tfm__arena(c, bytes, 1) : NULL;
    return tfm__ok(c) ? tfm__layout(data, type, shape) : tfm_none();
}
static float *tfm__floats(tfm_tensor t) { return (float *)t.data; }

TFMDEF tfm_tensor tfm_wrap_type(tfm_context *c, const void *data, tfm_type type, tfm_shape shape) {
    size_t bytes;
    if (!tfm__ok(c)) return tfm_none();
    if (!tfm__tensor_bytes(type, shape, &bytes)) {
        tfm__fail(&c->err, TFM_ARGUMENT, "wrap: no %s tensor has the shape %d", tfm_type_name(type), &shape);
        return tfm_none();
    }
    if (bytes && !data) {
        tfm__fail(&c->err, TFM_ARGUMENT, "wrap: NULL given for %d", &shape);
        return tfm_none();
    }
    return tfm__layout((void *)(uintptr_t)data, type, shape);
}
TFMDEF tfm_tensor tfm_wrap(tfm_context *c, const float *data, tfm_shape shape) {
    return tfm_wrap_type(c, data, TFM_F32, shape);
}
TFMDEF tfm_tensor tfm_zeros(tfm_context *c, tfm_shape shape) {
    tfm_tensor t = tfm__new(c, TFM_F32, shape);
    if (t.data && !c->measure) memset(t.data, 0, (size_t)tfm_count(t) * sizeof(float));
    return t;
}

static bool tfm__is_contiguous(tfm_tensor t) {
    tfm_tensor want = tfm__layout(t.data, t.type, tfm__shape_of(t));
    for (int i = 0; i < t.rank; i++)
        if (t.dim[i] != 1 && t.stride[i] != want.stride[i]) return false;
    return true;
}
/* Which axis holds whole blocks: the last for plain types. */
static int tfm__block_axis(tfm_tensor t) {
    if (tfm_type_block(t.type) > 1 && tfm_count(t) > 0)
        for (int i = 0; i < t.rank; i++)
            if (t.stride[i] == 0) return i;
    return t.rank - 1;
}

TFMDEF tfm_tensor tfm_permute(tfm_context *c, tfm_tensor t, const int *axes) {
    if (!tfm__given(c, "permute", t)) return tfm_none();
    if (!axes) {
        tfm__fail(&c->err, TFM_ARGUMENT, "permute: the axes are NULL");
        return tfm_none();
    }
    tfm_tensor r = t;
    unsigned seen = 0;
    for (int i = 0; i < t.rank; i++) {
        int a;
        if (!tfm__axis(c, "permute", t, axes[i], &a)) return tfm_none();
        if (seen >> a & 1) {
            tfm__fail(&c->err, TFM_ARGUMENT, "permute: axis %i appears twice", (int64_t)a);
            return tfm_none();
        }
        seen |= 1u << a;
        r.dim[i] = t.dim[a];
        r.stride[i] = t.stride[a];
    }
    return r;
}
TFMDEF tfm_tensor tfm_transpose(tfm_context *c, tfm_tensor t, int axis_a, int axis_b) {
    int a, b, axes[4] = { 0, 1, 2, 3 };
    if (!tfm__given(c, "transpose", t) || !tfm__axis(c, "transpose", t, axis_a, &a) ||
        !tfm__axis(c, "transpose", t, axis_b, &b)) return tfm_none();
    axes[a] = b;
    axes[b] = a;
    return tfm_permute(c, t, axes);
}
TFMDEF tfm_tensor tfm_slice(tfm_context *c, tfm_tensor t, int axis, int64_t begin, int64_t end) {
    int a;
    if (!tfm__given(c, "slice", t) || !tfm__axis(c, "slice", t, axis, &a)) return tfm_none();
    if (begin < 0 || end < begin || end > t.dim[a]) {
        tfm__fail(&c->err, TFM_ARGUMENT, "slice: %i..%i of %i", begin, end, t.dim[a]);
        return tfm_none();
    }
    const tfm__type *y = tfm__type_of(t.type);
    int64_t step = t.stride[a];
    if (y && y->block > 1 && a == tfm__block_axis(t)) {
        if (begin % y->block || end % y->block) {
            tfm__fail(&c->err, TFM_ARGUMENT, "slice: %i..%i cuts a %s block of %i", begin, end, y->name,
                      (int64_t)y->block);
            return tfm_none();
        }
        begin /= y->block;
        end /= y->block;
        step = y->bytes;
        t.dim[a] = (end - begin) * y->block;
    } else t.dim[a] = end - begin;
    if (t.data) t.data = (char *)t.data + begin * step;
    if (tfm_count(t) == 0) t.data = NULL;
    return t;
}

/* One strided walk serves every copy: `element` bytes at a time, into contiguous memory. */
static void tfm__gather(tfm_tensor t, size_t element, char *out) {
    int64_t dim[4] = { 1, 1, 1, 1 }, stride[4] = { 0, 0, 0, 0 };
    for (int i = 0; i < t.rank; i++) {
        dim[4 - t.rank + i] = t.dim[i];
        stride[4 - t.rank + i] = t.stride[i];
    }
    for (int64_t a = 0; a < dim[0]; a++)
        for (int64_t b = 0; b < dim[1]; b++)
            for (int64_t e = 0; e < dim[2]; e++) {
                const char *p = (const char *)t.data + a * stride[0] + b * stride[1] + e * stride[2];
                if (stride[3] == (int64_t)element) {
                    memcpy(out, p, element * (size_t)dim[3]);
                    out += element * (size_t)dim[3];
                } else
                    for (int64_t f = 0; f < dim[3]; f++, out += element) memcpy(out, p + f * stride[3], element);
            }
}
TFMDEF tfm_tensor tfm_contiguous(tfm_context *c, tfm_tensor t) {
    if (!tfm__given(c, "contiguous", t)) return tfm_none();
    if (tfm__is_contiguous(t) || tfm_count(t) == 0) return t;
    const tfm__type *y = tfm__type_of(t.type);
    int axis = tfm__block_axis(t);
    if (axis != t.rank - 1) {           /* blocks along another axis: as floats, turned around */
        t = tfm_to_f32(c, tfm_transpose(c, t, axis, t.rank - 1));
        return tfm_contiguous(c, tfm_transpose(c, t, axis, t.rank - 1));
    }
    tfm_tensor r = tfm__new(c, t.type, tfm__shape_of(t));
    if (!r.data || !y || c->measure) return r;
    size_t element = (size_t)y->bytes;
    if (y->block > 1) {                 /* a row is one element */
        element *= (size_t)(t.dim[axis] / y->block);
        t.dim[axis] = 1;
    }
    tfm__gather(t, element, (char *)r.data);
    return r;
}
/* Copies an F32 tensor's elements, in order, to where they are wanted. */
TFM__UNUSED static void tfm__store(tfm_context *c, tfm_tensor from, float *to) {
    from = tfm_contiguous(c, from);
    if (tfm__ok(c) && !c->measure && to && to != from.data)
        memcpy(to, from.data, (size_t)tfm_count(from) * sizeof(float));
}
TFMDEF tfm_tensor tfm_to_f32(tfm_context *c, tfm_tensor t) {
    if (!tfm__given(c, "to_f32", t)) return tfm_none();
    const tfm__type *y = tfm__type_of(t.type);
    if (!y) {
        tfm__fail(&c->err, TFM_UNSUPPORTED, "to_f32: the type is not in this build");
        return tfm_none();
    }
    t = tfm_contiguous(c, t);
    if (!tfm__ok(c) || (t.type == TFM_F32 && (uintptr_t)t.data % sizeof(float) == 0)) return t;
    tfm_tensor r = tfm__new(c, TFM_F32, tfm__shape_of(t));
    if (r.data && !c->measure) c->kernels->decode(t.type, t.data, tfm__floats(r), tfm_count(t));
    return r;
}
/* An operand as contiguous, aligned f32: the one place where ops prepare what they read. */
static tfm_tensor tfm__f32(tfm_context *c, const char *op, tfm_tensor t) {
    return tfm__given_numbers(c, op, t) ? tfm_to_f32(c, t) : tfm_none();
}

/* Strides of a new shape over the same data. Neighbouring dimensions that follow on without a gap
   form runs; each new dimension, from the last, must divide what is left of a run. */
static bool tfm__reshape_view(tfm_tensor t, tfm_shape shape, tfm_tensor *out) {
    int at = t.rank - 1;
    int64_t left = 1, stride = 0;       /* elements of the current run not used yet, and their stride */
    *out = tfm__layout(t.data, t.type, shape);
    if (tfm__is_contiguous(t)) return true;
    if (tfm_type_block(t.type) > 1) return false;
    for (int i = shape.rank - 1; i >= 0; i--) {
        while (left == 1 && shape.dim[i] != 1 && at >= 0) {
            left = t.dim[at];
            stride = t.stride[at--];
            while (at >= 0 && (t.dim[at] == 1 || t.stride[at] == stride * left)) left *= t.dim[at--];
        }
        if (left % shape.dim[i]) return false;
        out->stride[i] = stride;
        left /= shape.dim[i];
        stride *= shape.dim[i];
    }
    return true;
}
TFMDEF tfm_tensor tfm_reshape(tfm_context *c, tfm_tensor t, tfm_shape shape) {
    if (!tfm__given(c, "reshape", t)) return tfm_none();
    int64_t known = 1, count = tfm_count(t);
    int open = -1;
    bool fits = shape.rank >= 1 && shape.rank <= 4;
    for (int i = 0; fits && i < shape.rank; i++) {
        if (shape.dim[i] == -1 && open < 0) open = i;
        else if (shape.dim[i] < 0 || (shape.dim[i] && known > INT64_MAX / shape.dim[i])) fits = false;
        else known *= shape.dim[i];
    }
    if (fits && open >= 0) {
        if (known && count % known == 0) shape.dim[open] = count / known, known = count;
        else fits = false;
    }
    tfm_shape from = tfm__shape_of(t);
    size_t bytes;
    if (!fits || known != count || !tfm__tensor_bytes(t.type, shape, &bytes) ||
        (count && tfm_type_block(t.type) > 1 && shape.dim[shape.rank - 1] != t.dim[tfm__block_axis(t)])) {
        tfm__fail(&c->err, TFM_ARGUMENT, "reshape: %d does not become %d", &from, &shape);
        return tfm_none();
    }
    tfm_tensor r;
    if (count == 0 || tfm__reshape_view(t, shape, &r)) return count ? r : tfm__layout(NULL, t.type, shape);
    t = tfm_contiguous(c, t);
    return tfm__ok(c) ? tfm__layout(t.data, t.type, shape) : tfm_none();
}

TFMDEF tfm_tensor tfm_concat(tfm_context *c, const tfm_tensor *parts, int count, int axis) {
    int a = 0;
    if (!tfm__ok(c)) return tfm_none();
    if (count < 1 || !parts) {
        tfm__fail(&c->err, TFM_ARGUMENT, "concat: %i parts", (int64_t)count);
        return tfm_none();
    }
    if (!tfm__given(c, "concat", parts[0]) || !tfm__axis(c, "concat", parts[0], axis, &a)) return tfm_none();
    tfm_shape shape = tfm__shape_of(parts[0]);
    for (int p = 1; p < count; p++) {
        tfm_shape s = tfm__shape_of(parts[p]);
        bool same = s.rank == shape.rank;
        for (int i = 0; same && i < s.rank; i++)
            same = i == a ? s.dim[i] <= INT64_MAX - shape.dim[i] : s.dim[i] == shape.dim[i];
        if (!same) {
            tfm__fail(&c->err, TFM_MISMATCH, "concat: part %i is %d, the first is %d", (int64_t)p, &s, &shape);
            return tfm_none();
        }
        shape.dim[a] += s.dim[a];
    }
    tfm_tensor r = tfm__new(c, TFM_F32, shape);
    int64_t outer = r.data ? tfm__product_of(shape.dim, a) : 0, at = 0;
    int64_t inner = r.data ? tfm__product_of(shape.dim + a + 1, shape.rank - a - 1) : 0;
    for (int p = 0; p < count; p++) {
        tfm_mark mark = tfm_arena_mark(c);
        tfm_tensor t = tfm__f32(c, "concat", parts[p]);
        int64_t run = t.dim[a] * inner;
        for (int64_t o = 0; tfm__ok(c) && !c->measure && t.data && o < outer; o++)
            memcpy(tfm__floats(r) + o * shape.dim[a] * inner + at, tfm__floats(t) + o * run,
                   (size_t)run * sizeof(float));
        at += run;
        tfm_arena_rewind(c, mark);
    }
    return tfm__ok(c) ? r : tfm_none();
}

/* ---- Ops ---------------------------------------------------------------------------- [IMPL.OPS] */

#ifdef TFM_USE_OPENBLAS
#include <cblas.h>
#endif

/* y[r, c] = w[r] . x[c] + bias[r] for `rows` rows of w (any numeric type, k elements each) and n
   contiguous f32 rows x. Quantized w: x is rounded first, in scratch that is given back. */
/* The form in which a product with this type takes its columns. */
static void tfm__columns_form(tfm__columns_job *j, const tfm__kernels *kernels, const tfm__type *type, int64_t n) {
    j->group = type->unpack ? tfm__act_group(type) : 0;
    j->width = n == 1 ? 1 : j->group ? kernels->width : kernels->float_width;
    j->factor = type->bits == 8 && kernels->vnni ? 128 : type->has_min ? 1 : type->offset;
    if (j->width == 1 || j->group != 32) j->factor = 0;
}
static bool tfm__alike(const tfm__kernels *kernels, const tfm__type *a, const tfm__type *b, int64_t n) {
    tfm__columns_job u, v;
    tfm__columns_form(&u, kernels, a, n);
    tfm__columns_form(&v, kernels, b, n);
    return u.group == v.group && u.factor == v.factor;
}
static tfm__part tfm__part_of(tfm_type type, const void *w, int64_t w_stride, int64_t rows, const float *bias,
                              float *y, int64_t y_row, int64_t y_column) {
    tfm__part p;
    p.type = tfm__type_of(type);
    p.w = (const char *)w;
    p.interleaved = NULL;
    p.w_stride = w_stride;
    p.w_step = p.type ? p.type->bytes : 0;
    p.packed = NULL;
    p.rows = rows;
    p.bias = bias;
    p.y = y;
    p.y_row = y_row;
    p.y_column = y_column;
    return p;
}
/* Can products read the rows of t as they lie along this, its last axis? Vector kernels take floats at
   any distance. */
static bool tfm__row_ready(const tfm_context *c, tfm_tensor t, int axis) {
    if (tfm_type_block(t.type) > 1) return tfm__block_axis(t) == axis;
    return t.stride[axis] == tfm_type_bytes(t.type) || t.dim[axis] == 1 || c->kernels->float_width > 1;
}
#ifdef TFM_USE_OPENBLAS
static bool tfm__openblas(const tfm_context *c, const tfm__part *p, const float *x, int64_t n, int64_t k) {
    if (p->type->type != TFM_F32 || c->measure || p->bias || p->y_row != 1 ||
        (double)p->rows * (double)n * (double)k < 262144.0 || (uintptr_t)p->w % sizeof(float) ||
        (p->w_step != 4 && p->w_stride != 4) || p->w_stride % 4 || p->w_step % 4 ||
        p->w_stride / 4 >= INT_MAX || p->w_step / 4 >= INT_MAX || p->rows >= INT_MAX || n >= INT_MAX ||
        k >= INT_MAX || p->y_column >= INT_MAX)
        return false;
    bool rows = p->w_step == 4 && p->w_stride / 4 >= k;
    if (!rows && (p->w_stride != 4 || p->w_step / 4 < p->rows)) return false;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, rows ? CblasTrans : CblasNoTrans, (int)n, (int)p->rows, (int)k, 1.0f, x,
                (int)k, (const float *)(const void *)p->w, (int)((rows ? p->w_stride : p->w_step) / 4), 0.0f, p->y,
                (int)p->y_column);
    return true;
}
#endif
/* One task for parts that take their columns in the same form. */
static void tfm__products_alike(tfm_context *c, const tfm__part *parts, int count, const float *x, int64_t n,
                                int64_t k) {
    tfm__gemm_job j;
    const tfm__kernels *ks = c->kernels;
    int64_t units = 0, rows = 0;
    size_t most = 0;
    tfm_mark mark = tfm_arena_mark(c);
    memset(&j, 0, sizeof j);
    for (int i = 0; i < count; i++) {
        size_t bytes = ks->scratch ? ks->scratch(parts[i].type, k) : 0;
        units += (parts[i].rows + TFM__UNIT - 1) / TFM__UNIT;
        rows += parts[i].rows;
        if (bytes > most) most = bytes;
    }
    j.parts = parts;
    j.count = count;
    j.k = k;
    j.n = n;
    tfm__columns_job x_job;
    x_job.x = x;
    x_job.n = n;
    x_job.k = k;
    tfm__columns_form(&x_job, ks, parts->type, n);
    j.width = x_job.width;
    if (x_job.group) j.x_stride = (size_t)j.width * tfm__act_bytes(k, x_job.group);
    else j.x_stride = tfm__float_tile_bytes(k, j.width);
    j.x = (const char *)x;
    if (x_job.group || tfm__float_packs(k, j.width)) {
        int64_t tiles = (n + j.width - 1) / j.width;
        x_job.out = (char *)tfm__arena(c, (size_t)tiles, j.x_stride);
        j.x = x_job.out;
        tfm__round_up(x_job.group ? tfm__act_bytes(k, x_job.group) : 0, TFM_ALIGN, &x_job.scratch_stride);
        x_job.scratch = (char *)tfm__arena(c, (size_t)c->pool.threads, x_job.scratch_stride);
        tfm__run(c, ks->columns, &x_job, tiles, (double)n * (double)k);
    }
    tfm__round_up(most, TFM_ALIGN, &j.scratch_stride);
    if (most) j.scratch = (char *)tfm__arena(c, (size_t)c->pool.threads, j.scratch_stride);
    double work = (double)rows * (double)n * (double)k;     /* tiles do eight in the time of one */
    tfm__run(c, ks->gemm, &j, units, j.width > 1 ? work / 8 : work);
    tfm_arena_rewind(c, mark);
}
/* Several weight matrices times the same columns x [n, k]: their results are independent. */
static void tfm__products(tfm_context *c, const tfm__part *parts, int count, const float *x, int64_t n, int64_t k) {
    for (int i = 0, next; i < count && tfm__ok(c) && n > 0; i = next) {
        next = i + 1;
        if (parts[i].rows <= 0) continue;
#ifdef TFM_USE_OPENBLAS
        if (tfm__openblas(c, &parts[i], x, n, k)) continue;
#endif
        while (next < count && parts[next].rows > 0 && tfm__alike(c->kernels, parts[i].type, parts[next].type, n))
            next++;
        tfm__products_alike(c, parts + i, next - i, x, n, k);
    }
}

/* The common shape of two sets of leading dimensions, or of two whole shapes; aligned at the end. */
static bool tfm__broadcast(tfm_context *c, const char *op, tfm_shape a, tfm_shape b, tfm_shape *out) {
    tfm_shape r = tfm_shape4(1, 1, 1, 1);
    r.rank = a.rank > b.rank ? a.rank : b.rank;
    for (int i = 1; i <= r.rank; i++) {
        int64_t x = i <= a.rank ? a.dim[a.rank - i] : 1, y = i <= b.rank ? b.dim[b.rank - i] : 1;
        if (x != y && x != 1 && y != 1)
            return tfm__fail(&c->err, TFM_MISMATCH, "%s: %d and %d do not broadcast", op, &a, &b);
        r.dim[r.rank - i] = x == 1 ? y : x;
    }
    *out = r;
    return true;
}
/* t seen through a shape of 4 dimensions: broadcast dimensions get stride 0. */
static tfm_tensor tfm__expand(tfm_tensor t, tfm_shape shape) {
    tfm_tensor r = t;
    r.rank = 4;
    for (int i = 1; i <= 4; i++) {
        bool own = i <= t.rank && t.dim[t.rank - i] != 1;
        r.dim[4 - i] = i <= shape.rank ? shape.dim[shape.rank - i] : 1;
        r.stride[4 - i] = own ? t.stride[t.rank - i] : 0;
    }
    return r;
}

TFMDEF tfm_tensor tfm_matmul(tfm_context *c, tfm_tensor a, tfm_tensor b) {
    if (!tfm__given_numbers(c, "matmul", a) || !tfm__given_numbers(c, "matmul", b)) return tfm_none();
    bool a_row = a.rank == 1, b_column = b.rank == 1;
    if (a_row) { a.rank = 2; a.dim[1] = a.dim[0]; a.stride[1] = a.stride[0]; a.dim[0] = 1; }
    if (b_column) { b.rank = 2; b.dim[1] = 1; b.stride[1] = 0; }
    tfm_shape as = tfm__shape_of(a), bs = tfm__shape_of(b), lead, a_lead = as, b_lead = bs;
    int64_t m = as.dim[a.rank - 2], k = as.dim[a.rank - 1], n = bs.dim[b.rank - 1];
    if (k != bs.dim[b.rank - 2]) {
        tfm__fail(&c->err, TFM_MISMATCH, "matmul: %d by %d", &as, &bs);
        return tfm_none();
    }
    a_lead.rank -= 2;
    b_lead.rank -= 2;
    if (!tfm__broadcast(c, "matmul", a_lead, b_lead, &lead)) return tfm_none();
    tfm_shape shape = lead;
    shape.dim[shape.rank++] = m;
    shape.dim[shape.rank++] = n;
    tfm_tensor y = tfm__new(c, TFM_F32, shape);
    tfm_mark mark = tfm_arena_mark(c);
    a = tfm__f32(c, "matmul", a);
    b = tfm_transpose(c, b, -1, -2);                 /* now rows of k: the columns of the product */
    if (!tfm__ok(c)) return tfm_none();
    if (!tfm__row_ready(c, b, b.rank - 1)) b = tfm_contiguous(c, b);
    tfm_shape batch = lead;
    batch.dim[batch.rank++] = 1;
    batch.dim[batch.rank++] = 1;
    tfm_tensor ax = tfm__expand(a, batch), bx = tfm__expand(b, batch);
    if (k == 0 && y.data && !c->measure) memset(y.data, 0, (size_t)tfm_count(y) * sizeof(float));
    for (int64_t i = 0; tfm__ok(c) && y.data && k && i < ax.dim[0] * ax.dim[1]; i++) {
        int64_t u = i / ax.dim[1], v = i % ax.dim[1];
        const char *pa = (const char *)a.data + u * ax.stride[0] + v * ax.stride[1];
        const char *pb = (const char *)b.data + u * bx.stride[0] + v * bx.stride[1];
        tfm__part p = tfm__part_of(b.type, pb, b.stride[b.rank - 2], n, NULL, tfm__floats(y) + i * m * n, 1, n);
        if (tfm_type_block(b.type) == 1) p.w_step = b.stride[b.rank - 1];
        tfm__products(c, &p, 1, (const float *)(const void *)pa, m, k);
    }
    tfm_arena_rewind(c, mark);
    if (b_column) { y.rank--; }
    if (a_row) {                        /* the row dimension of 1 goes */
        if (!b_column) { y.dim[y.rank - 2] = y.dim[y.rank - 1]; y.stride[y.rank - 2] = y.stride[y.rank - 1]; }
        y.rank--;
    }
    if (tfm__ok(c) && y.rank == 0) { y.rank = 1; y.dim[0] = 1; y.stride[0] = sizeof(float); }
    return tfm__ok(c) ? y : tfm_none();
}

/* The last two dimensions become one, if they can for both operands. */
static bool tfm__merge_last(tfm_tensor *a, tfm_tensor *b) {
    int64_t n = a->dim[3];
    bool apart = a->stride[2] != n * a->stride[3] || b->stride[2] != n * b->stride[3];
    if (n > 1 && a->dim[2] > 1 && apart) return false;
    for (int i = 0; i < 2; i++) {
        tfm_tensor *t = i ? b : a;
        if (n == 1) t->stride[3] = t->stride[2];
        t->dim[3] *= t->dim[2];
        for (int d = 2; d > 0; d--) {
            t->dim[d] = t->dim[d - 1];
            t->stride[d] = t->stride[d - 1];
        }
        t->dim[0] = 1;
    }
    return true;
}
/* y = a op b for operands expanded to one shape of `count` elements. */
static void tfm__binary_into(tfm_context *c, tfm__binary op, tfm_tensor a, tfm_tensor b, float *y, int64_t count) {
    tfm__binary_job j;
    for (int i = 0; i < 3 && count > 0 && tfm__merge_last(&a, &b); i++) {}
    j.op = op;
    j.a = a;
    j.b = b;
    j.y = y;
    tfm__run(c, c->kernels->binary, &j, count, 3.0 * (double)count);
}
static tfm_tensor tfm__binary_op(tfm_context *c, const char *name, tfm__binary op, tfm_tensor a, tfm_tensor b) {
    tfm_shape shape;
    if (!tfm__given_numbers(c, name, a) || !tfm__given_numbers(c, name, b) ||
        !tfm__broadcast(c, name, tfm__shape_of(a), tfm__shape_of(b), &shape)) return tfm_none();
    tfm_tensor y = tfm__new(c, TFM_F32, shape);
    tfm_mark mark = tfm_arena_mark(c);
    a = tfm__expand(tfm__f32(c, name, a), shape);
    b = tfm__expand(tfm__f32(c, name, b), shape);
    tfm__binary_into(c, op, a, b, tfm__floats(y), tfm_count(y));
    tfm_arena_rewind(c, mark);
    return tfm__ok(c) ? y : tfm_none();
}
TFMDEF tfm_tensor tfm_add(tfm_context *c, tfm_tensor a, tfm_tensor b) {
    return tfm__binary_op(c, "add", TFM__ADD, a, b);
}
TFMDEF tfm_tensor tfm_sub(tfm_context *c, tfm_tensor a, tfm_tensor b) {
    return tfm__binary_op(c, "sub", TFM__SUB, a, b);
}
TFMDEF tfm_tensor tfm_mul(tfm_context *c, tfm_tensor a, tfm_tensor b) {
    return tfm__binary_op(c, "mul", TFM__MUL, a, b);
}
TFMDEF tfm_tensor tfm_div(tfm_context *c, tfm_tensor a, tfm_tensor b) {
    return tfm__binary_op(c, "div", TFM__DIV, a, b);
}
TFMDEF tfm_tensor tfm_scale(tfm_context *c, tfm_tensor t, float factor) {
    return tfm__binary_op(c, "scale", TFM__MUL, t, tfm_wrap(c, &factor, tfm_shape1(1)));
}

/* op(t), times a contiguous f32 tensor of the same shape or none. */
static tfm_tensor tfm__unary_times(tfm_context *c, const char *name, tfm__unary op, tfm_tensor t, tfm_tensor times) {
    t = tfm__f32(c, name, t);
    if (!tfm__ok(c)) return tfm_none();
    tfm_tensor y = tfm__new(c, TFM_F32, tfm__shape_of(t));
    tfm__unary_job j;
    j.op = op;
    j.x = tfm__floats(t);
    j.times = tfm__floats(times);
    j.y = tfm__floats(y);
    tfm__run(c, c->kernels->unary, &j, tfm_count(t), 20.0 * (double)tfm_count(t));
    return tfm__ok(c) ? y : tfm_none();
}
static tfm_tensor tfm__unary_op(tfm_context *c, const char *name, tfm__unary op, tfm_tensor t) {
    return tfm__unary_times(c, name, op, t, tfm_none());
}
TFMDEF tfm_tensor tfm_relu(tfm_context *c, tfm_tensor t) { return tfm__unary_op(c, "relu", TFM__RELU, t); }
TFMDEF tfm_tensor tfm_gelu(tfm_context *c, tfm_tensor t) { return tfm__unary_op(c, "gelu", TFM__GELU, t); }
TFMDEF tfm_tensor tfm_gelu_tanh(tfm_context *c, tfm_tensor t) {
    return tfm__unary_op(c, "gelu_tanh", TFM__GELU_TANH, t);
}
TFMDEF tfm_tensor tfm_silu(tfm_context *c, tfm_tensor t) { return tfm__unary_op(c, "silu", TFM__SILU, t); }
TFMDEF tfm_tensor tfm_tanh(tfm_context *c, tfm_tensor t) { return tfm__unary_op(c, "tanh", TFM__TANH, t); }
TFMDEF tfm_tensor tfm_sigmoid(tfm_context *c, tfm_tensor t) { return tfm__unary_op(c, "sigmoid", TFM__SIGMOID, t); }

/* Without an axis of length 1; a tensor of rank 1 keeps it. */
static tfm_tensor tfm__drop_axis(const tfm_context *c, tfm_tensor t, int axis) {
    if (!tfm__ok(c) || t.rank < 2) return t;
    for (int i = axis; i < t.rank - 1; i++) {
        t.dim[i] = t.dim[i + 1];
        t.stride[i] = t.stride[i + 1];
    }
    t.rank--;
    return t;
}
/* Row ops along any axis: the axis is brought to the end, its rows made contiguous. */
static tfm_tensor tfm__row_op_run(tfm_context *c, const char *name, tfm__row_op op, tfm_tensor t, int axis,
                                  const float *w, const float *b, float eps) {
    int a;
    if (!tfm__given_numbers(c, name, t) || !tfm__axis(c, name, t, axis, &a)) return tfm_none();
    t = tfm__f32(c, name, tfm_transpose(c, t, a, -1));
    if (!tfm__ok(c)) return tfm_none();
    tfm_shape shape = tfm__shape_of(t);
    bool reduces = op == TFM__ROW_SUM || op == TFM__ROW_MAX;
    tfm__rows_job j;
    memset(&j, 0, sizeof j);
    j.d = shape.dim[shape.rank - 1];
    if (reduces) shape.dim[shape.rank - 1] = 1;
    tfm_tensor y = tfm__new(c, TFM_F32, shape);
    int64_t rows = y.data ? tfm__product_of(shape.dim, shape.rank - 1) : 0;
    j.op = op;
    j.x = tfm__floats(t);
    j.y = tfm__floats(y);
    j.w = w;
    j.b = b;
    j.eps = eps;
    tfm__run(c, c->kernels->rows, &j, rows, 8.0 * (double)rows * (double)j.d);
    y = tfm_transpose(c, y, a, -1);
    if (reduces) y = tfm__drop_axis(c, y, a);
    return tfm_contiguous(c, y);
}
TFMDEF tfm_tensor tfm_softmax(tfm_context *c, tfm_tensor t, int axis) {
    return tfm__row_op_run(c, "softmax", TFM__ROW_SOFTMAX, t, axis, NULL, NULL, 0);
}
TFMDEF tfm_tensor tfm_log_softmax(tfm_context *c, tfm_tensor t, int axis) {
    return tfm__row_op_run(c, "log_softmax", TFM__ROW_LOG_SOFTMAX, t, axis, NULL, NULL, 0);
}
TFMDEF tfm_tensor tfm_sum(tfm_context *c, tfm_tensor t, int axis) {
    return tfm__row_op_run(c, "sum", TFM__ROW_SUM, t, axis, NULL, NULL, 0);
}
TFMDEF tfm_tensor tfm_max(tfm_context *c, tfm_tensor t, int axis) {
    return tfm__row_op_run(c, "max", TFM__ROW_MAX, t, axis, NULL, NULL, 0);
}
TFMDEF tfm_tensor tfm_mean(tfm_context *c, tfm_tensor t, int axis) {
    int a;
    if (!tfm__given_numbers(c, "mean", t) || !tfm__axis(c, "mean", t, axis, &a)) return tfm_none();
    float count = (float)t.dim[a];
    return tfm__binary_op(c, "mean", TFM__DIV, tfm_sum(c, t, a), tfm_wrap(c, &count, tfm_shape1(1)));
}
/* The values of an optional weight or bias of n elements as f32, or NULL; in scratch if need be. */
static const float *tfm__vector(tfm_context *c, const char *op, const char *what, tfm_tensor t, int64_t n) {
    if (!tfm__ok(c) || t.rank == 0) return NULL;
    tfm_shape s = tfm__shape_of(t);
    if (s.rank != 1 || s.dim[0] != n) {
        tfm__fail(&c->err, TFM_MISMATCH, "%s: %s is %d, %i needed", op, what, &s, n);
        return NULL;
    }
    return tfm__floats(tfm__f32(c, op, t));
}
TFMDEF tfm_tensor tfm_layernorm(tfm_context *c, tfm_tensor t, tfm_tensor w, tfm_tensor b, float eps) {
    if (!tfm__given_numbers(c, "layernorm", t)) return tfm_none();
    int64_t d = t.dim[t.rank - 1];
    const float *pw = tfm__vector(c, "layernorm", "weight", w, d), *pb = tfm__vector(c, "layernorm", "bias", b, d);
    return tfm__row_op_run(c, "layernorm", TFM__ROW_LAYERNORM, t, -1, pw, pb, eps);
}
TFMDEF tfm_tensor tfm_rmsnorm(tfm_context *c, tfm_tensor t, tfm_tensor w, float eps) {
    if (!tfm__given_numbers(c, "rmsnorm", t)) return tfm_none();
    const float *pw = tfm__vector(c, "rmsnorm", "weight", w, t.dim[t.rank - 1]);
    return tfm__row_op_run(c, "rmsnorm", TFM__ROW_RMSNORM, t, -1, pw, NULL, eps);
}

/* The value that x is ranked by: NaN counts as -inf. */
TFM__INLINE float tfm__rank(float x) { return x == x ? x : -TFM__INF; }
/* A before b in descending order, ties by index. */
TFM__INLINE bool tfm__ranks_before(const float *x, int32_t a, int32_t b) {
    float u = tfm__rank(x[a]), v = tfm__rank(x[b]);
    return u != v ? u > v : a < b;
}
/* 0..n-1 in order: radix sort by four times eight bits of the values as descending integers. */
static void tfm__order(const float *x, int64_t n, int32_t *ids, int32_t *spare) {
    int32_t starts[256], *from = ids, *to = spare;
    for (int shift = 0; shift < 32; shift += 8, from = to, to = from == ids ? spare : ids) {
        memset(starts, 0, sizeof starts);
        for (int move = 0; move < 2; move++) {
            for (int64_t i = 0; i < n; i++) {
                int32_t id = shift ? from[i] : (int32_t)i;
                uint32_t u = tfm__to_bits(tfm__rank(x[id]) + 0.0f);     /* -0 ties with 0 */
                u = (u ^ ((u >> 31) - 1) >> 1) >> shift & 255;         /* of positive ones all bits turn */
                if (move) to[starts[u]++] = id;
                else starts[u]++;
            }
            for (int32_t i = 0, sum = 0, count; !move && i < 256; i++, sum += count) {
                count = starts[i];
                starts[i] = sum;
            }
        }
    }
}
/* Puts an item in at the root of a heap that has the last-ranking at its root. */
static void tfm__sift(const float *x, int32_t *heap, int64_t size, int32_t item) {
    int64_t at = 0;
    for (int64_t child; (child = 2 * at + 1) < size; at = child) {
        if (child + 1 < size && tfm__ranks_before(x, heap[child], heap[child + 1])) child++;
        if (!tfm__ranks_before(x, item, heap[child])) break;
        heap[at] = heap[child];
    }
    heap[at] = item;
}
/* Writes the k first-ranking of 0..n-1 to heap[0..k-1], in order. The heap holds the k best so far;
   spare, room for n more, or NULL, makes it faster if k is n. */
static void tfm__top(const tfm__kernels *kernels, const float *x, int64_t n, int32_t *heap, int64_t k, int32_t *spare) {
    if (k < 1) return;
    if (k == n && spare) {
        tfm__order(x, n, heap, spare);
        return;
    }
    for (int64_t i = 0; i < k; i++) {
        int64_t at = i;
        for (; at && tfm__ranks_before(x, heap[(at - 1) / 2], (int32_t)i); at = (at - 1) / 2)
            heap[at] = heap[(at - 1) / 2];
        heap[at] = (int32_t)i;
    }
    for (int64_t i = k; (i = kernels->next_above(x, i, n, tfm__rank(x[heap[0]]))) < n; i++)
        tfm__sift(x, heap, k, (int32_t)i);
    for (int64_t size = k - 1; size > 0; size--) {      /* the last of those left goes to the end */
        int32_t item = heap[size];
        heap[size] = heap[0];
        tfm__sift(x, heap, size, item);
    }
}
TFMDEF tfm_tensor tfm_topk(tfm_context *c, tfm_tensor t, int64_t k, tfm_tensor *indices) {
    if (indices) *indices = tfm_none();
    t = tfm__f32(c, "topk", t);
    if (!tfm__ok(c)) return tfm_none();
    tfm_shape shape = tfm__shape_of(t);
    int64_t n = shape.dim[shape.rank - 1];
    if (k < 0 || k > n || n > INT32_MAX) {
        tfm__fail(&c->err, TFM_ARGUMENT, "topk: %i of %i", k, n);
        return tfm_none();
    }
    shape.dim[shape.rank - 1] = k;
    tfm_tensor values = tfm__new(c, TFM_F32, shape), ids = tfm__new(c, TFM_I32, shape);
    tfm_mark mark = tfm_arena_mark(c);
    int32_t *spare = k == n ? (int32_t *)tfm__arena(c, (size_t)n, sizeof *spare) : NULL;
    int64_t rows = values.data ? tfm__product_of(shape.dim, shape.rank - 1) : 0;
    for (int64_t r = 0; tfm__ok(c) && !c->measure && r < rows; r++) {
        const float *x = tfm__floats(t) + r * n;
        int32_t *best = (int32_t *)ids.data + r * k;
        tfm__top(c->kernels, x, n, best, k, spare);
        for (int64_t i = 0; i < k; i++) tfm__floats(values)[r * k + i] = x[best[i]];
    }
    tfm_arena_rewind(c, mark);
    if (indices) *indices = ids;
    return values;
}
TFMDEF tfm_tensor tfm_argmax(tfm_context *c, tfm_tensor t, int axis) {
    int a;
    tfm_tensor ids;
    if (!tfm__given_numbers(c, "argmax", t) || !tfm__axis(c, "argmax", t, axis, &a)) return tfm_none();
    tfm_topk(c, tfm_transpose(c, t, a, -1), 1, &ids);
    return tfm_contiguous(c, tfm__drop_axis(c, tfm_transpose(c, ids, a, -1), a));
}

/* ---- Layers ---------------------------------------------------------------------- [IMPL.LAYERS] */

TFMDEF tfm_tensor tfm_dense(tfm_context *c, tfm_tensor x, tfm_tensor w, tfm_tensor b) {
    if (!tfm__given_numbers(c, "dense", x) || !tfm__given_numbers(c, "dense", w)) return tfm_none();
    tfm_shape xs = tfm__shape_of(x), ws = tfm__shape_of(w), shape = xs;
    int64_t k = xs.dim[xs.rank - 1], rows = ws.dim[0];
    if (ws.rank != 2 || ws.dim[1] != k) {
        tfm__fail(&c->err, TFM_MISMATCH, "dense: x is %d, w is %d", &xs, &ws);
        return tfm_none();
    }
    shape.dim[shape.rank - 1] = rows;
    tfm_tensor y = tfm__new(c, TFM_F32, shape);
    tfm_mark mark = tfm_arena_mark(c);
    x = tfm__f32(c, "dense", x);
    if (!tfm__row_ready(c, w, 1)) w = tfm_contiguous(c, w);
    const float *bias = tfm__vector(c, "dense", "bias", b, rows);
    int64_t n = y.data ? tfm__product_of(xs.dim, xs.rank - 1) : 0;
    tfm__part p = tfm__part_of(w.type, w.data, w.stride[0], rows, bias, tfm__floats(y), 1, rows);
    if (tfm_type_block(w.type) == 1) p.w_step = w.stride[1];
    tfm__products(c, &p, 1, tfm__floats(x), n, k);
    tfm_arena_rewind(c, mark);
    return tfm__ok(c) ? y : tfm_none();
}

/* Decodes rows of a table to y [n, D]; the ids were checked. */
static void tfm__look_up(tfm_context *c, tfm_tensor table, const int32_t *ids, tfm_tensor y) {
    for (int64_t i = 0; tfm__ok(c) && !c->measure && y.data && i < y.dim[0]; i++)
        c->kernels->decode(table.type, (const char *)table.data + ids[i] * table.stride[0],
                           tfm__floats(y) + i * y.dim[1], y.dim[1]);
}
TFMDEF tfm_tensor tfm_embedding(tfm_context *c, tfm_tensor table, const int32_t *ids, int64_t count) {
    if (!tfm__given_numbers(c, "embedding", table)) return tfm_none();
    tfm_shape s = tfm__shape_of(table);
    if (s.rank != 2 || count < 0 || (count && !ids)) {
        tfm__fail(&c->err, TFM_ARGUMENT, "embedding: %i ids of a table %d", count, &s);
        return tfm_none();
    }
    for (int64_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= s.dim[0]) {
            tfm__fail(&c->err, TFM_ARGUMENT, "token id %i at %i is not between 0 and %i", (int64_t)ids[i], i,
                      s.dim[0] - 1);
            return tfm_none();
        }
    bool rows = table.stride[1] == tfm_type_bytes(table.type);
    if (tfm_type_block(table.type) > 1) rows = tfm__block_axis(table) == 1;
    if (!rows) table = tfm_contiguous(c, table);
    tfm_tensor y = tfm__new(c, TFM_F32, tfm_shape2(count, s.dim[1]));
    tfm__look_up(c, table, ids, y);
    return tfm__ok(c) ? y : tfm_none();
}

static int64_t tfm__floor(double x) {
    if (!(x > -1e15 && x < 1e15)) return 0;
    int64_t n = (int64_t)x;
    return (double)n > x ? n - 1 : n;
}
/* Plain operations, never fused, and Taylor series: errors of a few 1e-16. */
static void tfm__sincos(double x, double *sine, double *cosine) {
    *sine = *cosine = (double)TFM__NAN;
    if (!(x > -1e15 && x < 1e15)) return;
    double k = x * 0.63661977236758134308;
    int64_t n = (int64_t)(k < 0 ? k - 0.5 : k + 0.5);
    k = (double)n;                      /* pi/2 in three parts, products with k exact below 2^20 */
    double r = x - k * 1.5707963267341256 - k * 6.077100506303966e-11 - k * 2.0222662487959506e-21, z = r * r;
    double s = 1, c = 1;
    for (int i = 8; i > 0; i--) {
        s = 1 - z / (2 * i * (2 * i + 1)) * s;
        c = 1 - z / (2 * i * (2 * i - 1)) * c;
    }
    s *= r;
    double a = n & 1 ? c : s, b = n & 1 ? s : c;
    *sine = n & 2 ? -a : a;
    *cosine = (n + 1) & 2 ? -b : b;
}
/* cos and sin of every pair at `count` positions from `first`: [count, n/2, 2]. YaRN blends the
   stretched and the original angle, by how often a pair turns over the original context. */
static void tfm__rope_table(float *table, int64_t first, int64_t count, int n, const tfm_rope_opts *o) {
    double base = o->base != 0 ? (double)o->base : 10000, factor = o->factor != 0 ? (double)o->factor : 1;
    double magnitude = o->attn_factor != 0 ? (double)o->attn_factor : 1, low = 0, high = 0, log_base = tfm__log(base);
    if (o->scaling == TFM_ROPE_YARN) {
        const double two_pi = 6.283185307179586;
        double fast = o->beta_fast != 0 ? (double)o->beta_fast : 32;
        double slow = o->beta_slow != 0 ? (double)o->beta_slow : 1;
        low = (double)tfm__max64(0, tfm__floor(n * tfm__log(o->original_context / (fast * two_pi)) / (2 * log_base)));
        high = -n * tfm__log(o->original_context / (slow * two_pi)) / (2 * log_base);
        high = (double)tfm__min64(n - 1, -tfm__floor(high));
        magnitude *= 1 + 0.1 * tfm__log(factor);
    }
    for (int i = 0; i < n / 2; i++) {
        double frequency = tfm__exp_double(-2.0 * i / n * log_base), mix = 0;
        if (o->freq_factors) frequency /= (double)o->freq_factors[i];
        if (o->scaling == TFM_ROPE_YARN) {
            mix = (i - low) / (high - low > 0.001 ? high - low : 0.001);
            mix = 1 - (mix < 0 ? 0 : mix > 1 ? 1 : mix);
        }
        if (o->scaling != TFM_ROPE_NONE) frequency = frequency / factor * (1 - mix) + frequency * mix;
        for (int64_t p = 0; p < count; p++) {
            double sine, cosine;
            tfm__sincos((double)(first + p) * frequency, &sine, &cosine);
            table[(p * (n / 2) + i) * 2] = (float)(cosine * magnitude);
            table[(p * (n / 2) + i) * 2 + 1] = (float)(sine * magnitude);
        }
    }
}
/* Rotates x [T, H, d], contiguous, into y, which may be x. */
static void tfm__rotate(tfm_context *c, const float *x, float *y, const float *table, int64_t t, int64_t heads,
                        int64_t d, int n, bool half_split) {
    tfm__rope_job j;
    j.x = x;
    j.y = y;
    j.table = table;
    j.heads = heads;
    j.d = d;
    j.n = n;
    j.half_split = half_split;
    tfm__run(c, c->kernels->rope, &j, t * heads, 6.0 * (double)(t * heads) * n);
}
TFMDEF tfm_tensor tfm_rope(tfm_context *c, tfm_tensor x, int64_t first, const tfm_rope_opts *opts) {
    tfm_rope_opts o;
    memset(&o, 0, sizeof o);
    if (opts) o = *opts;
    x = tfm__f32(c, "rope", x);
    if (!tfm__ok(c)) return tfm_none();
    tfm_shape s = tfm__shape_of(x);
    int64_t n = o.dims ? o.dims : s.dim[2];
    if (s.rank != 3 || n < 2 || n % 2 || n > s.dim[2] || n > 65536 || first < 0 || first > INT64_MAX / 4 ||
        !(o.base >= 0) || !(o.factor >= 0) ||
        (o.scaling == TFM_ROPE_YARN && o.original_context < 1)) {
        tfm__fail(&c->err, TFM_ARGUMENT, "rope: %i dimensions of %d at position %i", n, &s, first);
        return tfm_none();
    }
    tfm_tensor y = tfm__new(c, TFM_F32, s);
    tfm_mark mark = tfm_arena_mark(c);
    float *table = (float *)tfm__arena(c, (size_t)s.dim[0], (size_t)n * sizeof(float));
    if (tfm__ok(c) && !c->measure && y.data) {
        tfm__rope_table(table, first, s.dim[0], (int)n, &o);
        tfm__rotate(c, tfm__floats(x), tfm__floats(y), table, s.dim[0], s.dim[1], s.dim[2], (int)n, o.half_split);
    }
    tfm_arena_rewind(c, mark);
    return tfm__ok(c) ? y : tfm_none();
}

/* Attention of queries over keys, in key blocks of 64 at absolute positions; 16 blocks are a segment with an
   online maximum m and sum l of its own, segments are joined in ascending order. The group * tq queries that
   share a key head are its rows, row r being query r / group of the head's r % group. A unit is `rows` of
   them over all keys, or, with partials, over one segment, for a second task to join: so long caches of few
   heads are shared by many threads.
   A unit goes through the blocks with all its rows. For vector kernels K and V of a block are packed once for
   all of them: K turned, panels of 16 keys, V as panels of 16 elements, in f32. Rows go in tiles of 12, each
   step for the whole tile: scores = q K, weights = exp(scores - max) in place, o += weights V. Keys that a row
   does not see have no bit in its mask `seen`; runs of keys seen by the same rows make one product. Up to 4
   rows (decode) have no use for packing: V, and K from a cache, which keeps it turned, are read where they lie
   and widened on the way into the product. Portable kernels take a row at a time and pack nothing.         */
typedef struct tfm__attention_job {
    const tfm__kernels *kernels;
    const float *q;
    float *out;
    const char *k, *v, *mask;           /* mask: f32 or NULL */
    tfm_type type;                      /* of k and v: F32 or F16 */
    bool turned;                        /* k is [head][position / 16][d][16], as caches keep it */
    int64_t q_stride[3], out_stride[3]; /* floats along batch, head, position */
    int64_t k_stride[3], v_stride[3];   /* bytes along the same; of turned keys, d elements */
    int64_t mask_stride[4];             /* bytes along batch, head, query, key */
    int64_t heads, group, tq, tk;       /* group: query heads per key head */
    int64_t d, dv;
    float scale, cap;
    bool causal;
    int64_t offset, window, rows;
    float *partials;                    /* [B, heads, tq, segments, 2 + dv]: m, l, o of each; or NULL */
    int64_t segment, segments;          /* with partials: the first segment, and how many */
    char *scratch;                      /* one piece per thread */
    size_t scratch_stride;
} tfm__attention_job;

typedef struct tfm__attention_unit {
    int64_t b, head, row, end;          /* key head; its rows row..end-1 */
    int64_t segment, from, to;          /* keys */
} tfm__attention_unit;

/* A unit at work, in its scratch. */
typedef struct tfm__attention_space {
    int64_t width;                      /* dv rounded up to 16 */
    float *q, *k, *v, *s, *bias;        /* [rows, d], K and V of a block if packed, [12, 64] twice */
    float *o, *sum, *m, *total;         /* [rows, width], [rows, 16], [rows], [rows, 2] */
    tfm__product scores, values;        /* of a block, with all its keys as columns and as rows of b */
} tfm__attention_space;

static int64_t tfm__attention_chunks(const tfm__attention_job *j) {
    return (j->group * j->tq + j->rows - 1) / j->rows;
}
static tfm__attention_unit tfm__attention_unit_at(const tfm__attention_job *j, int64_t index) {
    tfm__attention_unit u;
    int64_t pieces = j->partials ? j->segments : 1, chunks = tfm__attention_chunks(j), kv = j->heads / j->group;
    int64_t chunk = index / pieces % chunks, head = index / pieces / chunks;
    chunk = chunk % 2 ? chunks - 1 - chunk / 2 : chunk / 2;     /* late queries see more keys: spread them */
    u.b = head / kv;
    u.head = head % kv;
    u.row = chunk * j->rows;
    u.end = tfm__min64(u.row + j->rows, j->group * j->tq);
    u.segment = index % pieces;
    u.from = j->partials ? (j->segment + u.segment) * TFM__SEGMENT : 0;
    u.to = j->partials ? tfm__min64(j->tk, u.from + TFM__SEGMENT) : j->tk;
    return u;
}
/* The keys of the unit that query i sees, masks apart. */
static void tfm__attention_span(const tfm__attention_job *j, const tfm__attention_unit *u, int64_t i, int64_t *begin,
                                int64_t *end) {
    *end = j->causal ? tfm__min64(u->to, i + j->offset + 1) : u->to;
    *begin = j->window > 0 ? tfm__max64(u->from, i + j->offset - j->window + 1) : u->from;
}
static float *tfm__attention_out(const tfm__attention_job *j, int64_t b, int64_t h, int64_t i) {
    return j->out + b * j->out_stride[0] + h * j->out_stride[1] + i * j->out_stride[2];
}
static float *tfm__attention_partial(const tfm__attention_job *j, int64_t b, int64_t h, int64_t i, int64_t s) {
    return j->partials + (((b * j->heads + h) * j->tq + i) * j->segments + s) * (2 + j->dv);
}
/* The scratch of a unit, at base if that is not NULL; its bytes. V is packed if it is f16 or of odd size. */
static size_t tfm__attention_carve(const tfm__attention_job *j, int64_t rows, float *base, tfm__attention_space *a) {
    const bool packs = j->kernels->pack;
    int64_t width = (j->dv + 15) / 16 * 16, tile = tfm__min64(rows, TFM__QUERY_TILE) * TFM__KEYS, at = 0;
    int64_t sizes[9] = { rows * j->d, packs ? TFM__KEYS * (j->d + 1) : 0,
                         packs && (j->type == TFM_F16 || j->dv % 16) ? width * (TFM__KEYS + 1) : 0, tile,
                         j->mask ? tile : 0, rows * width, rows * TFM__LANES, rows, rows * 2 };
    float **parts[9] = { &a->q, &a->k, &a->v, &a->s, &a->bias, &a->o, &a->sum, &a->m, &a->total };
    for (int i = 0; i < 9; i++) {
        if (base) *parts[i] = base + at;
        at += (sizes[i] + 15) / 16 * 16;
    }
    a->width = width;
    return (size_t)at * sizeof(float);
}
static size_t tfm__attention_scratch(const tfm__attention_job *j, int64_t rows) {
    tfm__attention_space a;
    return tfm__attention_carve(j, rows, NULL, &a);
}

/* o += weights V for n rows from `row`, run by run of keys seen by the same rows. */
static void tfm__attention_values(const tfm__attention_job *j, const tfm__attention_space *a, int64_t row,
                                  const float *weights, const uint64_t *seen, int64_t n) {
    uint64_t change = 0, left = 0;      /* change, bit x: not the same rows see x and x + 1 */
    tfm__product t = a->values;
    for (int64_t i = 0; i < n; i++) {
        change |= seen[i] ^ seen[i] >> 1;
        left |= seen[i];
    }
    while (left) {
        int64_t x = tfm__lowest_bit(left), next = x + 1 + tfm__lowest_bit(change >> x);
        t.b = a->values.b + x * t.b_row;
        t.next = a->values.next + x * t.b_row;
        t.n = next - x;
        for (int64_t i = 0, to; i < n; i = to + 1) {
            for (to = i; to < n && seen[to] >> x & 1; to++) ;
            t.c = a->o + (row + i) * a->width;
            t.a = weights + i * TFM__KEYS + x;
            t.rows = to - i;
            if (to > i) j->kernels->product(&t);
        }
        left &= next < 64 ? ~(uint64_t)0 << next : 0;
    }
}
/* What the mask adds to the scores of rows row..row+n-1, keys from `block` on; 0 where it is not read. */
static void tfm__attention_bias(const tfm__attention_job *j, const tfm__attention_unit *u, int64_t row, int64_t n,
                                int64_t block, const uint64_t *seen, float *bias) {
    for (int64_t i = 0; i < n; i++) {
        int64_t r = u->row + row + i, h = u->head * j->group + r % j->group;
        const int64_t *stride = j->mask_stride;
        const char *mask = j->mask + u->b * stride[0] + h * stride[1] + r / j->group * stride[2] + block * stride[3];
        memset(bias + i * TFM__KEYS, 0, TFM__KEYS * sizeof(float));
        for (int64_t x = 0; x < TFM__KEYS; x++)
            if (seen[i] >> x & 1) memcpy(bias + i * TFM__KEYS + x, mask + x * stride[3], sizeof(float));
    }
}
/* Keys begin..end-1, of one block, for rows row..row+n-1 of the unit. */
static void tfm__attention_tile(const tfm__attention_job *j, const tfm__attention_unit *u,
                                const tfm__attention_space *a, int64_t row, int64_t n, int64_t begin, int64_t end) {
    uint64_t seen[TFM__QUERY_TILE];
    int64_t block = begin / TFM__KEYS * TFM__KEYS, round = j->kernels->pack ? 16 : 1;
    tfm__product t = a->scores;
    t.a = a->q + row * j->d;
    t.rows = n;
    for (int64_t i = 0; i < n; i++) {
        int64_t first, last;
        tfm__attention_span(j, u, (u->row + row + i) / j->group, &first, &last);
        first = tfm__max64(first, begin) - block;
        last = tfm__min64(last, end) - block;
        seen[i] = first < last ? ~(uint64_t)0 >> (64 - (last - first)) << first : 0;
        if (seen[i]) t.columns = tfm__max64(t.columns, (last + round - 1) / round * round);
    }
    if (!t.columns) return;
    j->kernels->product(&t);
    if (j->mask) tfm__attention_bias(j, u, row, n, block, seen, a->bias);
    tfm__scores_job scores = { a->s, j->mask ? a->bias : NULL, seen, a->m + row, a->sum + row * TFM__LANES,
                               a->o + row * a->width, a->width, j->scale, j->cap };
    j->kernels->scores(&scores, 0, n, 0);
    for (int64_t i = 0; i < n; i += 6)
        tfm__attention_values(j, a, row + i, a->s + i * TFM__KEYS, seen + i, tfm__min64(6, n - i));
}
/* Floats in panels of 16 columns, `steps` of n apart, for b. */
static void tfm__attention_packed(tfm__product *t, const float *panels, int64_t steps) {
    t->b = (const char *)panels;
    t->b_row = 64;
    t->b_step = 64 * steps;
    t->half = false;
}
/* Keys begin..end-1, of one block, for the whole unit. */
static void tfm__attention_keys(const tfm__attention_job *j, const tfm__attention_unit *u, tfm__attention_space *a,
                                int64_t begin, int64_t end) {
    const bool packs = j->kernels->pack, half = j->type == TFM_F16;
    int64_t block = begin / TFM__KEYS * TFM__KEYS, keys = end - block, size = half ? 2 : 4, rows = u->end - u->row;
    const char *k = j->k + u->b * j->k_stride[0] + u->head * j->k_stride[1] + block * j->k_stride[2];
    const char *v = j->v + u->b * j->v_stride[0] + u->head * j->v_stride[1] + block * j->v_stride[2];
    tfm__product scores, values;
    memset(&scores, 0, sizeof scores);
    scores.lanes = scores.last = 1;
    scores.half = half;
    scores.a_step = 1;
    scores.b_step = 16 * size;
    scores.b_column = size;
    values = scores;
    scores.c = a->s;
    scores.c_row = TFM__KEYS;
    scores.a_row = scores.n = j->d;
    scores.b = k;
    scores.b_row = j->turned ? 16 * size : size;
    scores.b_step = 16 * j->k_stride[2];
    scores.b_column = j->turned ? size : j->k_stride[2];
    scores.next = k + TFM__KEYS * j->k_stride[2];
    values.c_row = a->width;
    values.a_row = TFM__KEYS;
    values.b = v;
    values.b_row = j->v_stride[2];
    values.columns = packs ? a->width : j->dv;
    values.add = true;
    values.next = v + TFM__KEYS * j->v_stride[2];
    if (packs && !j->turned) {          /* such keys are f32 */
        tfm__pack p = { TFM_F32, k, j->k_stride[2], 4, keys, j->d, 1, TFM__PANEL, a->k };
        j->kernels->pack(&p);
        tfm__attention_packed(&scores, a->k, j->d + 1);
    } else if (packs && half && rows > 4) {
        j->kernels->decode(TFM_F16, k, a->k, (keys + 15) / 16 * 16 * j->d);
        tfm__attention_packed(&scores, a->k, j->d);
    }
    if (packs && ((half && rows > 4) || j->dv % 16)) {
        tfm__pack p = { j->type, v, size, j->v_stride[2], j->dv, keys, 1, TFM__PANEL, a->v };
        j->kernels->pack(&p);
        tfm__attention_packed(&values, a->v, keys + 1);
    }
    a->scores = scores;
    a->values = values;
    for (int64_t row = 0; row < rows; row += TFM__QUERY_TILE)
        tfm__attention_tile(j, u, a, row, tfm__min64(TFM__QUERY_TILE, rows - row), begin, end);
}
/* A segment's results of row `row`: to the partials or to the output. */
static void tfm__attention_deliver(const tfm__attention_job *j, const tfm__attention_unit *u,
                                   const tfm__attention_space *a, int64_t row, bool last) {
    int64_t i = (u->row + row) / j->group, h = u->head * j->group + (u->row + row) % j->group;
    float *m = a->m + row, *o = a->o + row * a->width, l = tfm__join(a->sum + row * TFM__LANES, TFM__LANES);
    if (j->partials) {
        float *p = tfm__attention_partial(j, u->b, h, i, u->segment);
        p[0] = *m;
        p[1] = l;
        memcpy(p + 2, o, (size_t)j->dv * sizeof(float));
        return;
    }
    tfm__join_job join = { a->total + 2 * row, tfm__attention_out(j, u->b, h, i), m, &l, o, 0, j->dv, last };
    j->kernels->join(&join, 0, 1, 0);
}
static void tfm__attention_unit_run(const tfm__attention_job *j, const tfm__attention_unit *u, float *scratch) {
    tfm__attention_space a;
    int64_t rows = u->end - u->row, begin, end, none;
    tfm__attention_carve(j, rows, scratch, &a);
    for (int64_t r = 0; r < rows; r++) {
        int64_t i = (u->row + r) / j->group, h = u->head * j->group + (u->row + r) % j->group;
        memcpy(a.q + r * j->d, j->q + u->b * j->q_stride[0] + h * j->q_stride[1] + i * j->q_stride[2],
               (size_t)j->d * sizeof(float));
        a.total[2 * r] = -TFM__INF;
        a.total[2 * r + 1] = 0;
        if (!j->partials) memset(tfm__attention_out(j, u->b, h, i), 0, (size_t)j->dv * sizeof(float));
    }
    tfm__attention_span(j, u, u->row / j->group, &begin, &none);
    tfm__attention_span(j, u, (u->end - 1) / j->group, &none, &end);
    do {
        int64_t segment_end = tfm__min64(end, (begin / TFM__SEGMENT + 1) * TFM__SEGMENT);
        memset(a.o, 0, (size_t)(rows * a.width) * sizeof(float));
        memset(a.sum, 0, (size_t)(rows * TFM__LANES) * sizeof(float));
        for (int64_t r = 0; r < rows; r++) a.m[r] = -TFM__INF;
        for (int64_t next; begin < segment_end; begin = next) {
            next = tfm__min64(segment_end, (begin / TFM__KEYS + 1) * TFM__KEYS);
            tfm__attention_keys(j, u, &a, begin, next);
        }
        for (int64_t r = 0; r < rows; r++) tfm__attention_deliver(j, u, &a, r, begin >= end);
    } while (begin < end);
}
static void tfm__attention_run(void *job, int64_t begin, int64_t end, int thread) {
    const tfm__attention_job *j = (const tfm__attention_job *)job;
    for (; begin < end; begin++) {
        tfm__attention_unit u = tfm__attention_unit_at(j, begin);
        tfm__attention_unit_run(j, &u, (float *)(void *)(j->scratch + (size_t)thread * j->scratch_stride));
    }
}
/* The second task: queries [B, heads, tq], whose partials are joined. */
static void tfm__attention_join(void *job, int64_t begin, int64_t end, int thread) {
    const tfm__attention_job *j = (const tfm__attention_job *)job;
    (void)thread;
    for (; begin < end; begin++) {
        int64_t i = begin % j->tq, h = begin / j->tq % j->heads, b = begin / j->tq / j->heads;
        float *out = tfm__attention_out(j, b, h, i), *p = tfm__attention_partial(j, b, h, i, 0);
        float total[2] = { -TFM__INF, 0 };
        tfm__join_job join = { total, out, p, p + 1, p + 2, 2 + j->dv, j->dv, true };
        memset(out, 0, (size_t)j->dv * sizeof(float));
        j->kernels->join(&join, 0, j->segments, 0);
    }
}

/* An attention operand as [B, H, T, d] with a contiguous last dimension. */
static tfm_tensor tfm__heads(tfm_context *c, const char *what, tfm_tensor t, int64_t heads) {
    if (!tfm__ok(c)) return tfm_none();
    if (t.rank == 4) return t;
    int64_t width = t.dim[t.rank - 1];
    if (t.rank < 2 || width % heads) {
        tfm_shape s = tfm__shape_of(t);
        tfm__fail(&c->err, TFM_ARGUMENT, "attention: %s is %d, which is not positions of %i heads", what, &s, heads);
        return tfm_none();
    }
    int64_t batch = t.rank == 3 ? t.dim[0] : 1, length = t.dim[t.rank - 2];
    t = tfm_reshape(c, t, tfm_shape4(batch, length, heads, width / heads));
    return tfm_transpose(c, t, 1, 2);
}
static bool tfm__attention_strides(tfm_tensor t, int64_t *stride, int64_t unit) {
    for (int i = 0; i < 3; i++) stride[i] = t.stride[i] / unit;
    return t.stride[3] == tfm_type_bytes(t.type) || t.dim[3] == 1;
}
static int64_t tfm__attention_units(const tfm__attention_job *j, int64_t batch) {
    return j->tq ? batch * (j->heads / j->group) * tfm__attention_chunks(j) * (j->partials ? j->segments : 1) : 0;
}
/* How a job is cut into units, and the memory for it. With one query and several threads the segments
   are units too; then, if there still are fewer than threads, parts of the heads that share keys. */
static void tfm__attention_split(tfm_context *c, tfm__attention_job *j, int64_t batch) {
    int64_t threads = c->pool.threads, total = j->group * j->tq, pieces = batch * (j->heads / j->group);
    int64_t tile = c->kernels->pack ? TFM__QUERY_TILE : 1;
    int64_t most = tile == 1 ? 1 : tfm__min64(TFM__QUERIES, (total + tile - 1) / tile * tile);
    j->rows = tile;
    if (total == 0 || pieces == 0) return;
    j->scratch_stride = tfm__attention_scratch(j, most);
    j->scratch = (char *)tfm__arena(c, (size_t)threads, j->scratch_stride);
    j->segment = j->window > 0 ? tfm__min64(j->tk, tfm__max64(0, j->offset - j->window + 1)) / TFM__SEGMENT : 0;
    j->segments = (j->tk + TFM__SEGMENT - 1) / TFM__SEGMENT - j->segment;
    if (j->tq == 1 && threads > 1 && j->segments > 1) {
        j->partials = (float *)tfm__arena(c, (size_t)(batch * j->heads * j->segments),
                                          (size_t)(2 + j->dv) * sizeof(float));
        pieces *= j->segments;
    }
    int64_t chunks = tfm__min64((4 * threads + pieces - 1) / pieces, most / tile);
    chunks = tfm__max64(chunks, (total + most - 1) / most);
    j->rows = ((total + chunks - 1) / chunks + tile - 1) / tile * tile;
    if (total <= tile && pieces < threads) j->rows = (total - 1) / ((threads + pieces - 1) / pieces) + 1;
}
/* q, k, v [B, H, T, d] as tfm__heads gives them, out like q with v's head size; k and v F32 or F16. */
static void tfm__attend(tfm_context *c, tfm_tensor q, tfm_tensor k, tfm_tensor v, tfm_tensor out, bool turned,
                        const tfm_attention_opts *o) {
    tfm__attention_job j;
    memset(&j, 0, sizeof j);
    tfm_shape qs = tfm__shape_of(q), ks = tfm__shape_of(k), vs = tfm__shape_of(v);
    if (!tfm__ok(c)) return;
    if (qs.dim[0] != ks.dim[0] || qs.dim[0] != vs.dim[0] || ks.dim[1] != vs.dim[1] || ks.dim[2] != vs.dim[2] ||
        qs.dim[3] != ks.dim[3] || (ks.dim[1] ? qs.dim[1] % ks.dim[1] : qs.dim[1])) {
        tfm__fail(&c->err, TFM_MISMATCH, "attention: q is %d, k %d, v %d (batch, heads, positions, size)", &qs, &ks,
                  &vs);
        return;
    }
    if (qs.dim[3] > TFM__HEAD_MAX || vs.dim[3] > TFM__HEAD_MAX) {
        tfm__fail(&c->err, TFM_UNSUPPORTED, "attention: heads of %i and %i, at most %i (TFM_HEAD_MAX)", qs.dim[3],
                  vs.dim[3], (int64_t)TFM__HEAD_MAX);
        return;
    }
    if (o->mask.rank) {
        tfm_tensor m = tfm__f32(c, "attention", o->mask);
        tfm_shape want = tfm_shape4(qs.dim[0], qs.dim[1], qs.dim[2], ks.dim[2]), ms = tfm__shape_of(m);
        bool fits = ms.rank >= 2;
        for (int i = 1; fits && i <= ms.rank; i++)
            fits = ms.dim[ms.rank - i] == want.dim[4 - i] || (i > 2 && ms.dim[ms.rank - i] == 1);
        if (!fits) { tfm__fail(&c->err, TFM_MISMATCH, "attention: the mask is %d, %d needed", &ms, &want); return; }
        m = tfm__expand(m, want);
        j.mask = (const char *)m.data;
        for (int i = 0; i < 4; i++) j.mask_stride[i] = m.stride[i];
    }
    j.kernels = c->kernels;
    j.q = tfm__floats(q);
    j.out = tfm__floats(out);
    j.k = (const char *)k.data;
    j.v = (const char *)v.data;
    j.type = k.type;
    j.turned = turned;
    tfm__attention_strides(q, j.q_stride, sizeof(float));
    tfm__attention_strides(out, j.out_stride, sizeof(float));
    tfm__attention_strides(k, j.k_stride, 1);
    tfm__attention_strides(v, j.v_stride, 1);
    j.heads = qs.dim[1];
    j.group = ks.dim[1] ? qs.dim[1] / ks.dim[1] : 1;
    j.tq = qs.dim[2];
    j.tk = ks.dim[2];
    j.d = qs.dim[3];
    j.dv = vs.dim[3];
    j.scale = o->scale != 0 ? o->scale : 1.0f / sqrtf((float)j.d);
    j.cap = o->cap;
    j.causal = o->causal;
    j.offset = tfm__min64(o->offset, INT64_MAX / 4);         /* so that positions cannot overflow */
    j.window = o->window;
    tfm__attention_split(c, &j, qs.dim[0]);
    if (!out.data || !tfm__ok(c)) return;
    tfm__run(c, tfm__attention_run, &j, tfm__attention_units(&j, qs.dim[0]),
             (double)(qs.dim[0] * j.heads * j.tq) * (double)j.tk * (double)(j.d + j.dv));
    if (!j.partials) return;
    tfm__run(c, tfm__attention_join, &j, qs.dim[0] * j.heads * j.tq, 0);
}
TFMDEF tfm_tensor tfm_attention(tfm_context *c, tfm_tensor q, tfm_tensor k, tfm_tensor v,
                                const tfm_attention_opts *opts) {
    tfm_attention_opts o;
    memset(&o, 0, sizeof o);
    if (opts) o = *opts;
    if (!tfm__given_numbers(c, "attention", q) || !tfm__given_numbers(c, "attention", k) ||
        !tfm__given_numbers(c, "attention", v)) return tfm_none();
    int64_t heads = o.heads ? o.heads : 1, kv_heads = o.kv_heads ? o.kv_heads : heads;
    bool split = q.rank == 4;
    if (heads < 1 || kv_heads < 1 || q.rank != k.rank || q.rank != v.rank || o.offset < 0 || o.window < 0) {
        tfm__fail(&c->err, TFM_ARGUMENT, "attention: ranks %i, %i, %i, %i heads, %i key heads, offset %i, window %i",
                  (int64_t)q.rank,
                  (int64_t)k.rank, (int64_t)v.rank, heads, kv_heads, o.offset, o.window);
        return tfm_none();
    }
    int64_t value_size = split ? v.dim[3] : v.dim[v.rank - 1] / kv_heads;
    if (!split && value_size > INT64_MAX / heads) {
        tfm__fail(&c->err, TFM_ARGUMENT, "attention: %i heads of %i are too many", heads, value_size);
        return tfm_none();
    }
    tfm_shape shape = tfm__shape_of(q);
    shape.dim[shape.rank - 1] = split ? value_size : heads * value_size;
    tfm_tensor y = tfm__new(c, TFM_F32, shape);
    tfm_mark mark = tfm_arena_mark(c);
    tfm_tensor part[3] = { q, k, v };
    for (int i = 0; i < 3; i++) {
        part[i] = tfm__heads(c, i == 0 ? "q" : i == 1 ? "k" : "v", part[i], i ? kv_heads : heads);
        bool plain = tfm__ok(c) && part[i].type == TFM_F32 &&
            (part[i].stride[3] == sizeof(float) || part[i].dim[3] == 1) &&
                     (uintptr_t)part[i].data % sizeof(float) == 0;
        if (!plain) part[i] = tfm__f32(c, "attention", part[i]);
    }
    tfm_tensor out = tfm__ok(c) ? tfm__heads(c, "q", y, heads) : y;
    tfm__attend(c, part[0], part[1], part[2], out, false, &o);
    tfm_arena_rewind(c, mark);
    return tfm__ok(c) ? y : tfm_none();
}
/* Bytes: enough for one row of portable kernels. */
enum { TFM__ATTENTION_ROW = 4 * (2 * TFM__HEAD_MAX + 2 * TFM__KEYS + 5 * TFM__LANES),
       TFM__ATTENTION_STACK = TFM__SIMD_X86 && TFM__ATTENTION_ROW < 65536 ? 65536 : TFM__ATTENTION_ROW };
/* Without a context: what is left of the stack's share goes to rows; portable kernels take heads too large for it. */
static void tfm__attention_on_stack(tfm__attention_job *j) {
    float scratch[TFM__ATTENTION_STACK / sizeof(float)];
    j->kernels = tfm__kernels_for(TFM_LEVEL_AUTO);
    j->rows = j->kernels->pack ? 4 * TFM__QUERY_TILE : 1;
    while (j->rows > TFM__QUERY_TILE && tfm__attention_scratch(j, j->rows) > sizeof scratch) j->rows -= TFM__QUERY_TILE;
    if (tfm__attention_scratch(j, j->rows) > sizeof scratch) {
        j->kernels = tfm__kernels_for(TFM_LEVEL_FMA);
        j->rows = 1;
    }
    j->scratch = (char *)scratch;
    tfm__attention_run(j, 0, tfm__attention_units(j, 1), 0);
}
TFMDEF tfm_status tfm_attention_f32(float *out, const float *q, const float *k, const float *v, int64_t tq, int64_t tk,
                                    int64_t d, const float *mask, const tfm_attention_opts *opts) {
    tfm__attention_job j;
    memset(&j, 0, sizeof j);
    int64_t heads = opts && opts->heads ? opts->heads : 1, kv = opts && opts->kv_heads ? opts->kv_heads : heads;
    if (tq < 0 || tk < 0 || d < 1 || d > TFM__HEAD_MAX || heads < 1 || kv < 1 || heads % kv || !out || !q ||
        (tk && (!k || !v)) || (opts && (opts->offset < 0 || opts->window < 0))) return TFM_ARGUMENT;
    j.q = q;
    j.out = out;
    j.k = (const char *)k;
    j.v = (const char *)v;
    j.mask = (const char *)mask;
    j.type = TFM_F32;
    j.q_stride[1] = j.out_stride[1] = d;
    j.q_stride[2] = j.out_stride[2] = heads * d;
    j.k_stride[1] = j.v_stride[1] = d * (int64_t)sizeof(float);
    j.k_stride[2] = j.v_stride[2] = kv * d * (int64_t)sizeof(float);
    j.mask_stride[2] = tk * (int64_t)sizeof(float);
    j.mask_stride[3] = sizeof(float);
    j.heads = heads;
    j.group = heads / kv;
    j.tq = tq;
    j.tk = tk;
    j.d = j.dv = d;
    j.scale = opts && opts->scale != 0 ? opts->scale : 1.0f / sqrtf((float)d);
    if (opts) {
        j.cap = opts->cap;
        j.causal = opts->causal;
        j.offset = tfm__min64(opts->offset, INT64_MAX / 4);
        j.window = opts->window;
    }
    tfm__attention_on_stack(&j);
    return TFM_OK;
}

/* The recurrent steps of one direction of one layer. */
typedef struct tfm__rnn_job {
    const tfm__kernels *kernels;
    tfm__part w_hh;                     /* y: [batch, gates], the recurrent products of one step */
    tfm__gemm_job gemm;
    tfm__cell_job cell;                 /* x: [steps, batch, gates], the input products of all steps */
    float *h;                           /* [batch, hidden], updated */
    int64_t steps, batch;
    bool backward;
} tfm__rnn_job;

/* All steps for the sequences begin..end-1 of the batch. */
static void tfm__rnn_steps(void *arg, int64_t begin, int64_t end, int thread) {
    const tfm__rnn_job *j = (const tfm__rnn_job *)arg;
    int64_t hidden = j->cell.hidden, gates = j->w_hh.rows, n = end - begin;
    float *h = j->h + begin * hidden;
    tfm__part part = j->w_hh;
    tfm__gemm_job gemm = j->gemm;
    tfm__cell_job cell = j->cell;
    tfm__columns_job x;
    memset(&x, 0, sizeof x);
    part.y += begin * gates;
    gemm.parts = &part;
    gemm.n = n;
    if (n == 1) gemm.width = 1;
    bool packs = tfm__float_packs(hidden, gemm.width);      /* into tiles of this thread's own, or rows as they are */
    gemm.x_stride = tfm__float_tile_bytes(hidden, gemm.width);
    gemm.x = packs ? gemm.x + (size_t)(begin / gemm.width + thread) * gemm.x_stride : (const char *)h;
    x.x = h;
    x.out = (char *)(uintptr_t)gemm.x;
    x.n = n;
    x.k = hidden;
    x.width = gemm.width;
    cell.h = part.y;
    cell.h_old = cell.h_new = h;
    if (cell.c) cell.c += begin * hidden;
    for (int64_t i = 0; i < j->steps; i++) {
        int64_t row = (j->backward ? j->steps - 1 - i : i) * j->batch + begin;
        if (packs) j->kernels->columns(&x, 0, (n + x.width - 1) / x.width, thread);
        j->kernels->gemm(&gemm, 0, (gates + TFM__UNIT - 1) / TFM__UNIT, thread);
        cell.x = j->cell.x + row * gates;
        cell.out = j->cell.out + row * cell.out_stride;
        j->kernels->cell(&cell, 0, n * hidden, thread);
    }
}
/* The same step by step, each shared by the threads: quantized weights, or few sequences with much work. */
static void tfm__rnn_single_steps(tfm_context *c, const tfm__rnn_job *j) {
    for (int64_t i = 0; tfm__ok(c) && i < j->steps; i++) {
        int64_t row = (j->backward ? j->steps - 1 - i : i) * j->batch, units = j->batch * j->cell.hidden;
        tfm__cell_job cell = j->cell;
        tfm__products(c, &j->w_hh, 1, j->h, j->batch, cell.hidden);
        if (c->measure) break;          /* every step takes the same memory */
        cell.h = j->w_hh.y;
        cell.h_old = cell.h_new = j->h;
        cell.x += row * j->w_hh.rows;
        cell.out += row * cell.out_stride;
        tfm__run(c, c->kernels->cell, &cell, units, 60.0 * (double)units);
    }
}
/* One direction of one layer: the input products of all steps at once, then step by step. x [T, B,
   inputs]; y [T, B, ...] with rows y_stride floats apart; h and cell [B, hidden], updated. Weights that
   meet many columns are made into panels once. */
static void tfm__rnn_pass(tfm_context *c, bool gru, tfm_tensor x, const tfm_rnn_weights *w, bool backward, float *h,
                          float *cell, float *y, int64_t y_stride) {
    int64_t steps = x.dim[0], batch = x.dim[1], gates = w->w_ih.dim[0], hidden = w->w_hh.dim[1];
    const tfm__kernels *ks = c->kernels;
    tfm__rnn_job j;
    memset(&j, 0, sizeof j);
    tfm_mark mark = tfm_arena_mark(c);
    const float *b_ih = tfm__vector(c, "rnn", "b_ih", w->b_ih, gates),
        *b_hh = tfm__vector(c, "rnn", "b_hh", w->b_hh, gates);
    tfm_tensor w_ih = tfm_contiguous(c, w->w_ih), w_hh = tfm_contiguous(c, w->w_hh);
    float *from_x = tfm__floats(tfm__new(c, TFM_F32, tfm_shape2(steps * batch, gates)));
    float *from_h = tfm__floats(tfm__new(c, TFM_F32, tfm_shape2(batch, gates)));
    tfm__part p_ih = tfm__part_of(w_ih.type, w_ih.data, w_ih.stride[0], gates, b_ih, from_x, 1, gates);
    tfm__products(c, &p_ih, 1, tfm__floats(x), steps * batch, x.dim[2]);
    j.kernels = ks;
    j.w_hh = tfm__part_of(w_hh.type, w_hh.data, w_hh.stride[0], gates, b_hh, from_h, 1, gates);
    j.cell.gru = gru;
    j.cell.x = from_x;
    j.cell.c = cell;
    j.cell.out = y;
    j.cell.hidden = hidden;
    j.cell.out_stride = y_stride;
    j.h = h;
    j.steps = steps;
    j.batch = batch;
    j.backward = backward;
    bool quantized = tfm__ok(c) && j.w_hh.type->unpack;
    double step = (double)gates * (double)hidden * (double)batch;
    if (tfm__ok(c) && !quantized && ks->pack && steps > 1 && (batch > 1 || tfm__lanes(hidden) == 1)) {
        int64_t panels = (gates + TFM__PANEL - 1) / TFM__PANEL;
        float *packed = (float *)tfm__arena(c, (size_t)panels, tfm__float_panel(hidden, TFM__PANEL) * sizeof(float));
        tfm__pack pack = tfm__pack_of(&j.w_hh, hidden, 0, gates, packed);
        if (packed && !c->measure) ks->pack(&pack);
        j.w_hh.packed = packed;
    }
    if (quantized || (c->pool.threads > 1 && batch < 8 * c->pool.threads && step > 1e6)) tfm__rnn_single_steps(c, &j);
    else if (tfm__ok(c)) {
        size_t scratch = ks->scratch && !j.w_hh.packed ? ks->scratch(j.w_hh.type, hidden) : 0;
        tfm__round_up(scratch, TFM_ALIGN, &j.gemm.scratch_stride);
        if (scratch) j.gemm.scratch = (char *)tfm__arena(c, (size_t)c->pool.threads, j.gemm.scratch_stride);
        j.gemm.count = 1;
        j.gemm.k = hidden;
        j.gemm.width = batch > 1 ? ks->float_width : 1;
        if (tfm__float_packs(hidden, j.gemm.width))
            j.gemm.x = (const char *)tfm__arena(c, (size_t)(batch / j.gemm.width + c->pool.threads),
                                                tfm__float_tile_bytes(hidden, j.gemm.width));
        tfm__run(c, tfm__rnn_steps, &j, batch, step * (double)steps);
    }
    tfm_arena_rewind(c, mark);
}
static bool tfm__rnn_check(tfm_context *c, const char *op, const tfm_rnn_weights *w, int64_t inputs, int64_t hidden,
                           int gates) {
    if (!tfm__given_numbers(c, op, w->w_ih) || !tfm__given_numbers(c, op, w->w_hh)) return false;
    tfm_shape a = tfm__shape_of(w->w_ih), b = tfm__shape_of(w->w_hh), ia = tfm_shape2(gates * hidden, inputs),
        ib = tfm_shape2(gates * hidden, hidden);
    if (a.rank != 2 || a.dim[0] != ia.dim[0] || a.dim[1] != inputs)
        return tfm__fail(&c->err, TFM_MISMATCH, "%s: w_ih is %d, %d needed", op, &a, &ia);
    if (b.rank != 2 || b.dim[0] != ib.dim[0] || b.dim[1] != hidden)
        return tfm__fail(&c->err, TFM_MISMATCH, "%s: w_hh is %d, %d needed", op, &b, &ib);
    return true;
}
/* A state [layers * dirs, B, hidden] of the run's own: the given one copied, or zeros. */
static tfm_tensor tfm__rnn_state(tfm_context *c, const char *op, const tfm_tensor *given, tfm_shape shape) {
    tfm_tensor r = tfm_zeros(c, shape);
    if (!tfm__ok(c) || !given || !given->rank) return r;
    tfm_shape s = tfm__shape_of(*given);
    bool flat = s.rank == 2 && shape.dim[1] == 1 && s.dim[0] == shape.dim[0] && s.dim[1] == shape.dim[2];
    bool same = s.rank == 3 && s.dim[0] == shape.dim[0] && s.dim[1] == shape.dim[1] && s.dim[2] == shape.dim[2];
    if (!flat && !same) {
        tfm__fail(&c->err, TFM_MISMATCH, "%s: the state is %d, %d needed", op, &s, &shape);
        return r;
    }
    tfm_mark mark = tfm_arena_mark(c);
    tfm_tensor t = tfm__f32(c, op, *given);
    if (tfm__ok(c) && !c->measure && r.data) memcpy(r.data, t.data, (size_t)tfm_count(r) * sizeof(float));
    tfm_arena_rewind(c, mark);
    return r;
}
static tfm_tensor tfm__rnn(tfm_context *c, bool gru, tfm_tensor x, const tfm_rnn_weights *weights,
                           const tfm_rnn_opts *opts,
                           tfm_tensor *h_io, tfm_tensor *c_io) {
    const char *op = gru ? "gru" : "lstm";
    tfm_rnn_opts o;
    memset(&o, 0, sizeof o);
    if (opts) o = *opts;
    int layers = o.layers ? o.layers : 1, dirs = o.bidirectional ? 2 : 1;
    bool flat = x.rank == 2;
    if (!tfm__given_numbers(c, op, x)) return tfm_none();
    if ((x.rank != 2 && x.rank != 3) || layers < 1 || layers > 65536 || !weights || weights->w_hh.rank != 2 ||
        weights->w_hh.dim[1] > INT64_MAX / 8) {
        tfm_shape s = tfm__shape_of(x);
        tfm__fail(&c->err, TFM_ARGUMENT, "%s: x is %d, %i layers; x of rank 2 or 3, weights with w_hh of rank 2 needed",
                  op, &s, (int64_t)layers);
        return tfm_none();
    }
    bool swap = !flat && o.batch_first;
    if (flat) x = tfm_reshape(c, x, tfm_shape3(x.dim[0], 1, x.dim[1]));
    if (swap) x = tfm_transpose(c, x, 0, 1);
    int64_t steps = x.dim[0], batch = x.dim[1], hidden = weights->w_hh.dim[1];
    for (int i = 0; i < layers * dirs; i++)
        if (!tfm__rnn_check(c, op, &weights[i], i < dirs ? x.dim[2] : dirs * hidden, hidden, gru ? 3 : 4))
            return tfm_none();
    tfm_shape state = tfm_shape3(layers * dirs, batch, hidden);
    tfm_tensor y = tfm__new(c, TFM_F32, tfm_shape3(steps, batch, dirs * hidden));
    tfm_tensor h = tfm__rnn_state(c, op, h_io, state), cell = gru ? tfm_none() : tfm__rnn_state(c, op, c_io, state);
    tfm_mark mark = tfm_arena_mark(c);
    tfm_tensor in = tfm__f32(c, op, x);
    for (int l = 0; tfm__ok(c) && y.data && l < layers; l++) {
        tfm_tensor out = l == layers - 1 ? y : tfm__new(c, TFM_F32, tfm__shape_of(y));
        for (int d = 0; tfm__ok(c) && d < dirs; d++) {
            int64_t at = (l * dirs + d) * batch * hidden;
            tfm__rnn_pass(c, gru, in, &weights[l * dirs + d], d == 1, tfm__floats(h) + at,
                          gru ? NULL : tfm__floats(cell) + at,
                          tfm__floats(out) + d * hidden, dirs * hidden);
        }
        in = out;
    }
    tfm_arena_rewind(c, mark);
    if (!tfm__ok(c)) return tfm_none();
    if (h_io) *h_io = h;
    if (c_io) *c_io = cell;
    if (swap) y = tfm_contiguous(c, tfm_transpose(c, y, 0, 1));
    return flat ? tfm_reshape(c, y, tfm_shape2(steps, dirs * hidden)) : y;
}
TFMDEF tfm_tensor tfm_lstm(tfm_context *c, tfm_tensor x, const tfm_rnn_weights *weights, const tfm_rnn_opts *opts,
                           tfm_tensor *h, tfm_tensor *cell) {
    return tfm__rnn(c, false, x, weights, opts, h, cell);
}
TFMDEF tfm_tensor tfm_gru(tfm_context *c, tfm_tensor x, const tfm_rnn_weights *weights, const tfm_rnn_opts *opts,
                          tfm_tensor *h) {
    return tfm__rnn(c, true, x, weights, opts, h, NULL);
}

/* The taps under one output pixel become one row: channel, row, column; zeros outside. */
typedef struct tfm__patch_job {
    const float *x;                     /* the group's first channel [channels, h, w] */
    float *out;
    int64_t channels, h, w, kh, kw, ow, first;
    int64_t stride[2], padding[2], dilation[2];
} tfm__patch_job;

static void tfm__patch_run(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const tfm__patch_job *j = (const tfm__patch_job *)arg;
    for (int64_t i = begin; i < end; i++) {
        int64_t top = (j->first + i) / j->ow * j->stride[0] - j->padding[0],
            left = (j->first + i) % j->ow * j->stride[1] - j->padding[1];
        float *out = j->out + i * j->channels * j->kh * j->kw;
        for (int64_t ch = 0; ch < j->channels; ch++)
            for (int64_t r = 0; r < j->kh; r++)
                for (int64_t k = 0; k < j->kw; k++) {
                    int64_t y = top + r * j->dilation[0], x = left + k * j->dilation[1];
                    bool inside = y >= 0 && y < j->h && x >= 0 && x < j->w;
                    *out++ = inside ? j->x[(ch * j->h + y) * j->w + x] : 0;
                }
    }
}
TFMDEF tfm_tensor tfm_conv2d(tfm_context *c, tfm_tensor x, tfm_tensor w, tfm_tensor b, const tfm_conv2d_opts *opts) {
    tfm_conv2d_opts o;
    tfm__patch_job j;
    int64_t size[2];
    memset(&o, 0, sizeof o);
    memset(&j, 0, sizeof j);
    if (opts) o = *opts;
    if (!tfm__given_numbers(c, "conv2d", x) || !tfm__given_numbers(c, "conv2d", w)) return tfm_none();
    bool flat = x.rank == 3;
    if (flat) x = tfm_reshape(c, x, tfm_shape4(1, x.dim[0], x.dim[1], x.dim[2]));
    if (!tfm__ok(c)) return tfm_none();
    tfm_shape xs = tfm__shape_of(x), ws = tfm__shape_of(w);
    int64_t groups = o.groups ? o.groups : 1, filters = ws.dim[0];
    bool fits = xs.rank == 4 && ws.rank == 4 && groups >= 1;
    for (int i = 1; fits && i < 4; i++) fits = ws.dim[i] <= 1 << 20 && xs.dim[i] <= INT64_MAX / 4;
    int64_t taps = fits ? ws.dim[1] * ws.dim[2] * ws.dim[3] : 0;
    fits = fits && xs.dim[1] == ws.dim[1] * groups && filters % groups == 0 && taps > 0;
    for (int i = 0; i < 2; i++) {
        j.stride[i] = o.stride[i] ? o.stride[i] : 1;
        j.dilation[i] = o.dilation[i] ? o.dilation[i] : 1;
        j.padding[i] = o.padding[i];
        fits = fits && j.stride[i] > 0 && j.dilation[i] > 0 && j.padding[i] >= 0;
        int64_t room = fits ? xs.dim[2 + i] + 2 * j.padding[i] - j.dilation[i] * (ws.dim[2 + i] - 1) - 1 : -1;
        fits = fits && room >= 0;
        size[i] = fits ? room / j.stride[i] + 1 : 0;
    }
    if (!fits) {
        tfm__fail(&c->err, TFM_MISMATCH, "conv2d: x is %d, w is %d, %i groups", &xs, &ws, groups);
        return tfm_none();
    }
    tfm_tensor y = tfm__new(c, TFM_F32, tfm_shape4(xs.dim[0], filters, size[0], size[1]));
    tfm_mark mark = tfm_arena_mark(c);
    int64_t pixels = y.data ? size[0] * size[1] : 0, chunk = tfm__min64(pixels, 512), per_group = filters / groups;
    x = tfm__f32(c, "conv2d", x);
    w = tfm__f32(c, "conv2d", w);
    const float *bias = tfm__vector(c, "conv2d", "bias", b, filters);
    j.out = tfm__floats(tfm__new(c, TFM_F32, tfm_shape2(chunk, taps)));
    j.channels = ws.dim[1];
    j.h = xs.dim[2];
    j.w = xs.dim[3];
    j.kh = ws.dim[2];
    j.kw = ws.dim[3];
    j.ow = size[1];
    for (int64_t i = 0; tfm__ok(c) && y.data && i < xs.dim[0] * groups; i++) {
        int64_t g = i % groups;
        j.x = tfm__floats(x) + i * j.channels * j.h * j.w;
        for (j.first = 0; j.first < pixels; j.first += chunk) {
            int64_t n = tfm__min64(chunk, pixels - j.first);
            tfm__run(c, tfm__patch_run, &j, n, (double)(n * taps));
            tfm__part p = tfm__part_of(TFM_F32, tfm__floats(w) + g * per_group * taps, taps * (int64_t)sizeof(float),
                                       per_group, bias ? bias + g * per_group : NULL,
                                       tfm__floats(y) + i * per_group * pixels + j.first, pixels, 1);
            tfm__products(c, &p, 1, j.out, n, taps);
        }
    }
    tfm_arena_rewind(c, mark);
    if (flat && tfm__ok(c)) y = tfm_reshape(c, y, tfm_shape3(filters, size[0], size[1]));
    return tfm__ok(c) ? y : tfm_none();
}

/* ---- Weight files ----------------------------------------------------------------- [IMPL.FILES] */

typedef struct tfm__entry {
    tfm_string name, type_name;
    tfm_type type;                      /* NONE: known by name only */
    int rank;
    bool placed;                        /* a model took it */
    tfm_shape shape;                    /* outermost first; rank 0 is [1] here */
    uint64_t offset, bytes;             /* from the start of the file */
} tfm__entry;

typedef struct tfm__meta { tfm_string key; tfm_value value; } tfm__meta;

struct tfm_file {
    tfm__mapping map;
    tfm_allocator allocator;
    bool owns_memory;
    const uint8_t *data;
    size_t size;
    const char *format;
    int64_t meta_count, entry_count;
    tfm__meta *meta;
    tfm__entry *entries;
    int32_t *meta_order, *entry_order;  /* sorted by key and by name */
};

/* Heap sort of indices: n log n on any input, no recursion. */
typedef int (*tfm__compare)(const void *items, int32_t a, int32_t b);
static void tfm__sort(const void *items, int32_t *order, int64_t n, tfm__compare compare) {
    for (int64_t i = 0; i < n; i++) order[i] = (int32_t)i;
    for (int64_t start = n / 2, end = n; end > 1;) {
        int32_t item;
        if (start > 0) item = order[--start];
        else { item = order[--end]; order[end] = order[0]; }
        int64_t at = start;
        for (int64_t child; (child = 2 * at + 1) < end; at = child) {
            if (child + 1 < end && compare(items, order[child], order[child + 1]) < 0) child++;
            if (compare(items, item, order[child]) >= 0) break;
            order[at] = order[child];
        }
        order[at] = item;
    }
}
static int tfm__string_order(tfm_string a, tfm_string b) {
    size_t n = a.size < b.size ? a.size : b.size;
    int r = n ? memcmp(a.data, b.data, n) : 0;
    return r ? r : (a.size > b.size) - (a.size < b.size);
}
static int tfm__by_name(const void *items, int32_t a, int32_t b) {
    const tfm__entry *e = (const tfm__entry *)items;
    return tfm__string_order(e[a].name, e[b].name);
}
static int tfm__by_key(const void *items, int32_t a, int32_t b) {
    const tfm__meta *m = (const tfm__meta *)items;
    return tfm__string_order(m[a].key, m[b].key);
}
static int tfm__by_offset(const void *items, int32_t a, int32_t b) {
    const tfm__entry *e = (const tfm__entry *)items;
    if (e[a].offset != e[b].offset) return e[a].offset > e[b].offset ? 1 : -1;
    return (e[a].bytes > e[b].bytes) - (e[a].bytes < e[b].bytes);       /* empty ones first */
}

/* Bytes of the UTF-8 character whose first n >= 1 bytes are at p; more than n if it is cut short
   there, 0 if no character begins so. Surrogates, overlong forms and what lies beyond U+10FFFF
   are no characters. */
static int tfm__utf8_need(const uint8_t *p, size_t n) {
    uint8_t a = p[0], low = 0x80, high = 0xbf;
    if (a < 0x80) return 1;
    if (a < 0xc2 || a > 0xf4) return 0;
    if (a == 0xe0) low = 0xa0;
    if (a == 0xed) high = 0x9f;
    if (a == 0xf0) low = 0x90;
    if (a == 0xf4) high = 0x8f;
    int length = a < 0xe0 ? 2 : a < 0xf0 ? 3 : 4;
    for (int i = 1; i < length && (size_t)i < n; i++) {
        if (p[i] < low || p[i] > high) return 0;
        low = 0x80;
        high = 0xbf;
    }
    return length;
}
/* A name is UTF-8 without NUL, neither empty nor too long. */
static bool tfm__name_ok(tfm_string s, size_t longest) {
    if (s.size == 0 || s.size > longest) return false;
    for (size_t i = 0; i < s.size;) {
        int n = tfm__utf8_need((const uint8_t *)s.data + i, s.size - i);
        if (!n || (size_t)n > s.size - i || !s.data[i]) return false;
        i += (size_t)n;
    }
    return true;
}

/* All types of the formats with their sizes, those we cannot run too, so that a file can be listed. */
typedef struct tfm__file_type { int number; const char *name; int block, bytes; } tfm__file_type;
static const tfm__file_type tfm__gguf_types[] = {
#define TFM__X(name, number, block, bytes) { number, #name, block, bytes },
    TFM_TYPES(TFM__X)
#undef TFM__X
    { 9, "Q8_1", 32, 36 }, { 15, "Q8_K", 256, 292 }, { 16, "IQ2_XXS", 256, 66 }, { 17, "IQ2_XS", 256, 74 },
    { 18, "IQ3_XXS", 256, 98 }, { 19, "IQ1_S", 256, 50 }, { 21, "IQ3_S", 256, 110 }, { 22, "IQ2_S", 256, 82 },
    { 23, "IQ4_XS", 256, 136 }, { 29, "IQ1_M", 256, 56 }, { 34, "TQ1_0", 256, 54 }, { 35, "TQ2_0", 256, 66 },
    { 39, "MXFP4", 32, 17 }, { -1, NULL, 0, 0 },
};
static const tfm__file_type tfm__safetensors_types[] = {
    { TFM_F32, "F32", 1, 4 }, { TFM_F16, "F16", 1, 2 }, { TFM_BF16, "BF16", 1, 2 }, { TFM_F64, "F64", 1, 8 },
    { TFM_I8, "I8", 1, 1 }, { TFM_I16, "I16", 1, 2 }, { TFM_I32, "I32", 1, 4 }, { TFM_I64, "I64", 1, 8 },
    { -1, "U8", 1, 1 }, { -1, "U16", 1, 2 }, { -1, "U32", 1, 4 }, { -1, "U64", 1, 8 }, { -1, "BOOL", 1, 1 },
    { -1, "F8_E4M3", 1, 1 }, { -1, "F8_E5M2", 1, 1 }, { -1, NULL, 0, 0 },
};
/* Fills type and byte count from the one table; a product that wraps is an error. */
static bool tfm__entry_type(tfm__entry *t, const tfm__file_type *y, tfm_error *e) {
    uint64_t bytes = (uint64_t)y->bytes;
    bool empty = false;
    t->type_name = tfm__str(y->name);
    t->type = tfm__type_of((tfm_type)y->number) ? (tfm_type)y->number : TFM_TYPE_NONE;
    for (int i = 0; i < t->shape.rank; i++) empty |= t->shape.dim[i] == 0;
    int64_t row = t->shape.dim[t->shape.rank - 1];
    if (row % y->block)
        return tfm__fail(e, TFM_MISMATCH, "%q: rows of %i elements are not whole %s blocks of %i", &t->name, row,
                         y->name, (int64_t)y->block);
    for (int i = 0; !empty && i < t->shape.rank; i++) {
        uint64_t n = (uint64_t)(i == t->shape.rank - 1 ? row / y->block : t->shape.dim[i]);
        if (bytes > (uint64_t)INT64_MAX / n)
            return tfm__fail(e, TFM_MALFORMED, "%q: %d elements of %s are too many", &t->name, &t->shape, y->name);
        bytes *= n;
    }
    t->bytes = empty ? 0 : bytes;
    return true;
}
/* Sorts and checks: no two tensors share a name or a byte, and no two keys are the same. `whole`:
   nothing may lie between tensors either, from `start` to the end of the file. */
static bool tfm__file_check(tfm_file *f, bool whole, uint64_t start, tfm_error *e) {
    uint64_t end = start;
    tfm__sort(f->entries, f->entry_order, f->entry_count, tfm__by_offset);
    for (int64_t i = 0; i < f->entry_count; i++) {
        const tfm__entry *t = &f->entries[f->entry_order[i]];
        if (t->bytes == 0 && !whole) continue;
        if (t->offset < end)
            return tfm__fail(e, TFM_MALFORMED, "%q: begins at byte %u, inside the tensor before, which ends at %u",
                             &t->name, t->offset, end);
        if (whole && t->offset != end)
            return tfm__fail(e, TFM_MALFORMED, "%q: begins at byte %u, %u bytes after the tensor before", &t->name,
                             t->offset, t->offset - end);
        end = t->offset + t->bytes;
    }
    if (whole && end != f->size)
        return tfm__fail(e, TFM_MALFORMED, "the tensors end at byte %u, the file at %u", end, (uint64_t)f->size);
    tfm__sort(f->entries, f->entry_order, f->entry_count, tfm__by_name);
    for (int64_t i = 1; i < f->entry_count; i++)
        if (tfm__by_name(f->entries, f->entry_order[i - 1], f->entry_order[i]) == 0)
            return tfm__fail(e, TFM_MALFORMED, "%q: two tensors have this name", &f->entries[f->entry_order[i]].name);
    tfm__sort(f->meta, f->meta_order, f->meta_count, tfm__by_key);
    for (int64_t i = 1; i < f->meta_count; i++)
        if (tfm__by_key(f->meta, f->meta_order[i - 1], f->meta_order[i]) == 0)
            return tfm__fail(e, TFM_MALFORMED, "%q: the key appears twice", &f->meta[f->meta_order[i]].key);
    return true;
}

/* Metadata values. */

static const uint8_t tfm__value_bytes[TFM_VALUE_TYPES] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };

/* Any integer value as sign and magnitude. */
static bool tfm__value_integer(const tfm_value *v, bool *negative, uint64_t *magnitude) {
    uint64_t u = 0;
    size_t n = v && v->type < TFM_VALUE_TYPES ? tfm__value_bytes[v->type] : 0;
    if (!n || v->type == TFM_VALUE_F32 || v->type == TFM_VALUE_F64 || v->type == TFM_VALUE_BOOL) return false;
    bool is_signed = v->type == TFM_VALUE_I8 || v->type == TFM_VALUE_I16 || v->type == TFM_VALUE_I32 ||
        v->type == TFM_VALUE_I64;
    if (n == 1) u = v->data[0];
    if (n == 2) u = tfm__load_u16(v->data);
    if (n == 4) { uint32_t w; memcpy(&w, v->data, 4); u = w; }
    if (n == 8) memcpy(&u, v->data, 8);
    *negative = is_signed && (u >> (8 * n - 1) & 1);
    if (*negative && n < 8) u |= ~(uint64_t)0 << (8 * n);
    *magnitude = *negative ? 0 - u : u;
    return true;
}
TFMDEF bool tfm_value_u64(const tfm_value *v, uint64_t *out) {
    bool negative;
    uint64_t u;
    if (!tfm__value_integer(v, &negative, &u) || negative) return false;
    *out = u;
    return true;
}
TFMDEF bool tfm_value_i64(const tfm_value *v, int64_t *out) {
    bool negative;
    uint64_t u;
    if (!tfm__value_integer(v, &negative, &u) || u > (uint64_t)INT64_MAX + (negative ? 1 : 0)) return false;
    *out = negative ? (int64_t)(0 - u) : (int64_t)u;
    return true;
}
TFMDEF bool tfm_value_f64(const tfm_value *v, double *out) {
    bool negative;
    uint64_t u;
    if (v && v->type == TFM_VALUE_F32) { float f; memcpy(&f, v->data, sizeof f); *out = (double)f; return true; }
    if (v && v->type == TFM_VALUE_F64) { memcpy(out, v->data, sizeof *out); return true; }
    if (!tfm__value_integer(v, &negative, &u)) return false;
    *out = negative ? -(double)u : (double)u;
    return true;
}
TFMDEF bool tfm_value_bool(const tfm_value *v, bool *out) {
    if (!v || v->type != TFM_VALUE_BOOL) return false;
    *out = v->data[0] != 0;
    return true;
}
TFMDEF bool tfm_value_string(const tfm_value *v, tfm_string *out) {
    if (!v || v->type != TFM_VALUE_STRING) return false;
    out->data = (const char *)v->data;
    out->size = v->size;
    return true;
}
TFMDEF bool tfm_value_next(tfm_value *array, tfm_value *element) {
    if (!array || array->type != TFM_VALUE_ARRAY || array->count == 0) return false;
    size_t at = 0, size = tfm__value_bytes[array->element];
    if (array->element == TFM_VALUE_STRING) {           /* lengths were checked when the file was read */
        uint64_t n;
        memcpy(&n, array->data, sizeof n);
        at = sizeof n;
        size = (size_t)n;
    }
    element->type = element->element = array->element;
    element->count = array->element == TFM_VALUE_STRING ? size : 1;
    element->data = array->data + at;
    element->size = size;
    array->data += at + size;
    array->size -= at + size;
    array->count--;
    return true;
}

/* ---- GGUF --------------------------------------------------------------------- [IMPL.FILES.GGUF]
   "GGUF", version u32, tensor count u64, key count u64; keys: name, type, value; tensors: name,
   rank u32, dimensions u64 innermost first, type u32, offset u64; padding; data.                 */

static bool tfm__take_value(tfm__cursor *k, tfm_value *v) {
    uint32_t type = tfm__take_u32(k, "value type");
    if (!tfm__cursor_ok(k)) return false;
    memset(v, 0, sizeof *v);
    v->type = v->element = (tfm_value_type)type;
    v->count = 1;
    size_t begin = k->at;
    if (type == TFM_VALUE_ARRAY) {
        uint32_t element = tfm__take_u32(k, "array type");
        if (element >= TFM_VALUE_TYPES || element == TFM_VALUE_ARRAY)
            return tfm__fail(k->err, TFM_MALFORMED, "array of type %u at byte %u", (uint64_t)element, (uint64_t)begin);
        size_t each = element == TFM_VALUE_STRING ? 8 : tfm__value_bytes[element];
        v->element = (tfm_value_type)element;
        v->count = tfm__take_count(k, each, "array");
        begin = k->at;
        if (element == TFM_VALUE_STRING)
            for (uint64_t i = 0; i < v->count && tfm__cursor_ok(k); i++) tfm__take_string(k, "string in an array");
        else tfm__take(k, v->count * each, "array");
    } else if (type == TFM_VALUE_STRING) {
        v->count = tfm__take_u64(k, "string");
        begin = k->at;
        tfm__take(k, v->count, "string");
    } else if (type < TFM_VALUE_TYPES) tfm__take(k, tfm__value_bytes[type], "value");
    else return tfm__fail(k->err, TFM_MALFORMED, "value type %u at byte %u", (uint64_t)type, (uint64_t)begin - 4);
    v->data = k->data + begin;
    v->size = k->at - begin;
    return tfm__cursor_ok(k);
}
static bool tfm__take_entry(tfm__cursor *k, tfm__entry *t) {
    uint64_t dims[4] = { 1, 1, 1, 1 };
    memset(t, 0, sizeof *t);
    t->name = tfm__take_string(k, "tensor name");
    uint32_t rank = tfm__take_u32(k, "tensor rank");
    if (!tfm__cursor_ok(k)) return false;
    if (!tfm__name_ok(t->name, 63))
        return tfm__fail(k->err, TFM_MALFORMED, "tensor name of %u bytes: %q", (uint64_t)t->name.size, &t->name);
    if (rank > 4) return tfm__fail(k->err, TFM_MALFORMED, "%q: rank %u, at most 4", &t->name, (uint64_t)rank);
    for (uint32_t i = 0; i < rank; i++) dims[i] = tfm__take_u64(k, "tensor dimension");
    uint32_t type = tfm__take_u32(k, "tensor type");
    t->offset = tfm__take_u64(k, "tensor offset");
    if (!tfm__cursor_ok(k)) return false;
    t->rank = (int)rank;
    t->shape.rank = rank ? (int)rank : 1;
    for (int i = 0; i < 4; i++) t->shape.dim[i] = 1;
    for (int i = 0; i < t->shape.rank; i++) {
        uint64_t d = dims[t->shape.rank - 1 - i];
        if (d > INT64_MAX) return tfm__fail(k->err, TFM_MALFORMED, "%q: dimension %u", &t->name, d);
        t->shape.dim[i] = (int64_t)d;
    }
    for (const tfm__file_type *y = tfm__gguf_types; y->name; y++)
        if ((uint32_t)y->number == type) return tfm__entry_type(t, y, k->err);
    return tfm__fail(k->err, TFM_UNSUPPORTED, "%q: tensor type %u is unknown", &t->name, (uint64_t)type);
}

/* Reads the counts; which order the file is in shows in the version. */
static bool tfm__gguf_header(tfm__cursor *k, uint64_t *tensors, uint64_t *keys, bool *swapped, uint32_t *version) {
    tfm__take(k, 4, "magic");
    uint32_t v = tfm__take_u32(k, "version");
    *swapped = v && (v & 0xffff) == 0;
    *version = *swapped ? v >> 24 | (v >> 8 & 0xff00) : v;
    if (!tfm__cursor_ok(k)) return false;
    if (*version < 2 || *version > 3)
        return tfm__fail(k->err, TFM_UNSUPPORTED, "GGUF version %u, versions 2 and 3 are read", (uint64_t)*version);
    if (*swapped) return true;
    uint64_t n = tfm__take_count(k, 24, "tensors");
    *keys = tfm__take_count(k, 13, "metadata keys");
    *tensors = n;
    if (tfm__cursor_ok(k) && (n > INT32_MAX || *keys > INT32_MAX))
        return tfm__fail(k->err, TFM_UNSUPPORTED, "%u tensors and %u keys are too many", n, *keys);
    return tfm__cursor_ok(k);
}
static bool tfm__gguf_alignment(tfm_file *f, tfm__cursor *k, size_t *alignment) {
    *alignment = 32;
    for (int64_t i = 0; i < f->meta_count; i++) {
        if (!tfm__str_eq(f->meta[i].key, "general.alignment")) continue;
        uint64_t a = 0;
        if (f->meta[i].value.type != TFM_VALUE_U32 || !tfm_value_u64(&f->meta[i].value, &a))
            return tfm__fail(k->err, TFM_MALFORMED, "general.alignment: not a UINT32");
        if (a == 0 || (a & (a - 1)) || a > 1 << 20)
            return tfm__fail(k->err, TFM_MALFORMED, "general.alignment is %u, not a power of two up to 1048576", a);
        *alignment = (size_t)a;
    }
    return true;
}
static bool tfm__gguf_parse(tfm_file *f, tfm_error *e) {
    tfm__cursor k;
    uint64_t tensors, keys;
    uint32_t version;
    size_t alignment, data;
    bool swapped;
    memset(&k, 0, sizeof k);
    k.data = f->data;
    k.size = f->size;
    k.err = e;
    if (!tfm__gguf_header(&k, &tensors, &keys, &swapped, &version)) return false;
    f->format = version == 2 ? "GGUF v2" : "GGUF v3";
    for (f->meta_count = 0; f->meta_count < (int64_t)keys; f->meta_count++) {
        tfm__meta *m = &f->meta[f->meta_count];
        m->key = tfm__take_string(&k, "key");
        if (tfm__cursor_ok(&k) && !tfm__name_ok(m->key, 65535))
            return tfm__fail(e, TFM_MALFORMED, "key of %u bytes: %q", (uint64_t)m->key.size, &m->key);
        if (!tfm__take_value(&k, &m->value)) return false;
    }
    if (!tfm__gguf_alignment(f, &k, &alignment)) return false;
    for (f->entry_count = 0; f->entry_count < (int64_t)tensors; f->entry_count++)
        if (!tfm__take_entry(&k, &f->entries[f->entry_count])) return false;
    if (!tfm__round_up(k.at, alignment, &data)) data = f->size;
    for (int64_t i = 0; i < f->entry_count; i++) {
        tfm__entry *t = &f->entries[i];
        uint64_t left = data <= f->size ? f->size - data : 0;
        if (t->offset > left || t->bytes > left - t->offset)
            return tfm__fail(e, TFM_TRUNCATED, "%q: %u bytes at offset %u, the file has %u bytes of data", &t->name,
                             t->bytes, t->offset, left);
        t->offset += data;
    }
    return tfm__file_check(f, false, 0, e);
}

/* Turns the numbers of a file in the other byte order around, in a copy. The walk is the parser's:
   turn the next number, then take it. A fault ends it without a word: the parser meets it next. */
static void tfm__flip(uint8_t *p, size_t n) {
    for (size_t i = 0; i < n / 2; i++) { uint8_t b = p[i]; p[i] = p[n - 1 - i]; p[n - 1 - i] = b; }
}
static uint64_t tfm__flip_take(tfm__cursor *k, uint8_t *data, size_t n) {
    if (tfm__left(k) >= n) tfm__flip(data + k->at, n);
    return n == 4 ? tfm__take_u32(k, "number") : tfm__take_u64(k, "number");
}
static void tfm__flip_value(tfm__cursor *k, uint8_t *data) {
    uint64_t type = tfm__flip_take(k, data, 4), count = 1;
    if (type == TFM_VALUE_ARRAY) {
        type = tfm__flip_take(k, data, 4);
        count = tfm__flip_take(k, data, 8);
    }
    if (type >= TFM_VALUE_TYPES || type == TFM_VALUE_ARRAY) {
        tfm__fail(k->err, TFM_MALFORMED, "value type %u", type);
        return;
    }
    size_t each = tfm__value_bytes[type];
    for (uint64_t i = 0; i < count && tfm__cursor_ok(k); i++) {
        if (type == TFM_VALUE_STRING) { tfm__take(k, tfm__flip_take(k, data, 8), "string"); continue; }
        uint8_t *p = data + k->at;
        if (tfm__take(k, each, "value")) tfm__flip(p, each);
    }
}
static void tfm__gguf_flip_directory(uint8_t *data, size_t size) {
    tfm__cursor k;
    tfm_error fault;
    memset(&k, 0, sizeof k);
    k.data = data;
    k.size = size;
    k.err = tfm__begin(&fault, NULL);
    tfm__take(&k, 4, "magic");
    tfm__flip_take(&k, data, 4);
    uint64_t tensors = tfm__flip_take(&k, data, 8), keys = tfm__flip_take(&k, data, 8);
    for (uint64_t i = 0; i < keys && tfm__cursor_ok(&k); i++) {
        tfm__take(&k, tfm__flip_take(&k, data, 8), "key");
        tfm__flip_value(&k, data);
    }
    for (uint64_t i = 0; i < tensors && tfm__cursor_ok(&k); i++) {
        tfm__take(&k, tfm__flip_take(&k, data, 8), "tensor name");
        uint64_t rank = tfm__flip_take(&k, data, 4);
        if (rank > 4) return;
        for (uint64_t d = 0; d < rank && tfm__cursor_ok(&k); d++) tfm__flip_take(&k, data, 8);
        tfm__flip_take(&k, data, 4);
        tfm__flip_take(&k, data, 8);
    }
}
static void tfm__gguf_flip_data(const tfm_file *f, uint8_t *data) {
    for (int64_t i = 0; i < f->entry_count; i++) {
        const tfm__entry *t = &f->entries[i];
        const tfm__type *y = tfm__type_of(t->type);
        if (!y) continue;
        for (uint64_t at = 0; at < t->bytes; at += (uint64_t)y->bytes)
            for (int n = 0; n < y->swap_count; n++) tfm__flip(data + t->offset + at + y->swap_at + n * y->swap_size,
                                                              (size_t)y->swap_size);
    }
}

/* ---- safetensors ---------------------------------------------------------- [IMPL.FILES.SAFETENSORS]
   Header length u64, little-endian; a JSON object: name -> { dtype, shape, data_offsets }; data.
   The reader takes just this shape of JSON, so that nothing nests without bound.                 */

static void tfm__json_space(tfm__cursor *k) {
    while (k->at < k->size && (k->data[k->at] == ' ' || k->data[k->at] == '\n' || k->data[k->at] == '\r' ||
                               k->data[k->at] == '\t')) k->at++;
}
static bool tfm__json_is(tfm__cursor *k, char want) {           /* takes it if it is next */
    tfm__json_space(k);
    if (!tfm__cursor_ok(k) || k->at >= k->size || k->data[k->at] != (uint8_t)want) return false;
    k->at++;
    return true;
}
static bool tfm__json_need(tfm__cursor *k, char want) {
    char text[2] = { want, 0 };
    if (tfm__json_is(k, want)) return true;
    return tfm__fail(k->err, TFM_MALFORMED, "header: '%s' expected at byte %u", text, (uint64_t)k->at);
}
/* Bytes of the escape at s; 0 if it is none. */
static int tfm__json_escape(const uint8_t *s, size_t left) {
    if (left < 2 || !memchr("\"\\/bfnrtu", s[1], 9)) return 0;
    if (s[1] != 'u') return 2;
    for (size_t i = 2; i < 6; i++)
        if (i >= left || !((s[i] >= '0' && s[i] <= '9') || ((s[i] | 32) >= 'a' && (s[i] | 32) <= 'f'))) return 0;
    return 6;
}
/* The bytes between the quotes. Names and types with escapes are refused: their spelling would not
   be their bytes; metadata texts keep theirs as written. */
static tfm_string tfm__json_string(tfm__cursor *k, bool escapes) {
    tfm_string s = tfm__str("");
    if (!tfm__json_need(k, '"')) return s;
    size_t begin = k->at;
    while (k->at < k->size && k->data[k->at] != '"') {
        bool escape = k->data[k->at] == '\\';
        size_t left = tfm__left(k);
        int n = escape ? tfm__json_escape(k->data + k->at, left) : tfm__utf8_need(k->data + k->at, left);
        if ((size_t)n > left) n = 0;
        if (n == 0 || k->data[k->at] < 0x20 || (escape && !escapes)) {
            tfm__fail(k->err, n && escape ? TFM_UNSUPPORTED : TFM_MALFORMED, "header: %s in the string at byte %u",
                      !escape ? "a control character or invalid UTF-8" : n ? "an escape" : "no valid escape",
                      (uint64_t)k->at);
            return s;
        }
        k->at += (size_t)n;
    }
    s.data = (const char *)k->data + begin;
    s.size = (k->at < k->size ? k->at : k->size) - begin;
    tfm__json_need(k, '"');
    return s;
}
static uint64_t tfm__json_number(tfm__cursor *k) {              /* a plain non-negative integer */
    uint64_t v = 0;
    tfm__json_space(k);
    size_t begin = k->at;
    for (; k->at < k->size && k->data[k->at] >= '0' && k->data[k->at] <= '9'; k->at++) {
        uint64_t digit = k->data[k->at] - (uint64_t)'0';
        if (v > (UINT64_MAX - digit) / 10 || (v == 0 && k->at > begin)) break;
        v = v * 10 + digit;
    }
    uint8_t next = k->at < k->size ? k->data[k->at] : 0;
    if (k->at == begin || (next != ',' && next != ']' && next != ' ' && next != '\n' && next != '\r' && next != '\t'))
        tfm__fail(k->err, TFM_MALFORMED, "header: a whole number expected at byte %u", (uint64_t)begin);
    return v;
}
/* [1, 2, 3]: returns how many, at most `most`. */
static int tfm__json_numbers(tfm__cursor *k, uint64_t *out, int most, tfm_status too_many) {
    int n = 0;
    tfm__json_need(k, '[');
    if (tfm__json_is(k, ']')) return 0;
    do {
        uint64_t v = tfm__json_number(k);
        if (n == most) tfm__fail(k->err, too_many, "header: more than %i numbers at byte %u", (int64_t)most,
                                 (uint64_t)k->at);
        if (tfm__cursor_ok(k)) out[n++] = v;
    } while (tfm__cursor_ok(k) && tfm__json_is(k, ','));
    tfm__json_need(k, ']');
    return n;
}
static bool tfm__json_tensor(tfm__cursor *k, tfm__entry *t, uint64_t data_size) {
    uint64_t dims[4] = { 0, 0, 0, 0 }, range[2] = { 0, 0 };
    unsigned seen = 0;
    int ranges = 0;
    tfm__json_need(k, '{');
    do {
        tfm_string key = tfm__json_string(k, false);
        tfm__json_need(k, ':');
        unsigned which = tfm__str_eq(key, "dtype") ? 1 : tfm__str_eq(key, "shape") ? 2
            : tfm__str_eq(key, "data_offsets") ? 4 : 0;
        if (!which || (seen & which)) tfm__fail(k->err, TFM_MALFORMED, "%q: unexpected or repeated \"%q\"", &t->name,
                                                &key);
        seen |= which;
        if (which == 1) t->type_name = tfm__json_string(k, false);
        if (which == 2) t->rank = tfm__json_numbers(k, dims, 4, TFM_UNSUPPORTED);
        if (which == 4) ranges = tfm__json_numbers(k, range, 2, TFM_MALFORMED);
    } while (tfm__cursor_ok(k) && tfm__json_is(k, ','));
    if (!tfm__json_need(k, '}')) return tfm__inside(k->err, t->name);
    if (seen != 7 || ranges != 2)
        return tfm__fail(k->err, TFM_MALFORMED, "%q: dtype, shape and two data_offsets are needed", &t->name);
    t->shape = tfm_shape1(1);
    if (t->rank) t->shape.rank = t->rank;
    for (int i = 0; i < t->rank; i++) {
        if (dims[i] > INT64_MAX) return tfm__fail(k->err, TFM_MALFORMED, "%q: dimension %u", &t->name, dims[i]);
        t->shape.dim[i] = (int64_t)dims[i];
    }
    const tfm__file_type *y = tfm__safetensors_types;
    while (y->name && !tfm__str_eq(t->type_name, y->name)) y++;
    if (!y->name) return tfm__fail(k->err, TFM_UNSUPPORTED, "%q: type %q is unknown", &t->name, &t->type_name);
    if (!tfm__entry_type(t, y, k->err)) return false;
    if (range[0] > range[1] || range[1] > data_size)
        return tfm__fail(k->err, range[0] > range[1] ? TFM_MALFORMED : TFM_TRUNCATED, "%q: bytes %u to %u of %u",
                         &t->name, range[0], range[1], data_size);
    if (range[1] - range[0] != t->bytes)
        return tfm__fail(k->err, TFM_MISMATCH, "%q: %d of %q are %u bytes, the offsets span %u", &t->name, &t->shape,
                         &t->type_name, t->bytes, range[1] - range[0]);
    t->offset = range[0];
    return true;
}
/* Reads the header, into f's tables if they are there, else only counting. */
static bool tfm__safetensors_parse(tfm_file *f, tfm_error *e) {
    tfm__cursor k;
    uint64_t n = f->size >= 8 ? tfm__little(f->data, 8) : 0;
    memset(&k, 0, sizeof k);
    if (f->size < 10 || n > f->size - 8)
        return tfm__fail(e, TFM_TRUNCATED, "safetensors: a header of %u bytes in a file of %u", n, (uint64_t)f->size);
    if (n > 100000000) return tfm__fail(e, TFM_MALFORMED, "safetensors: a header of %u bytes, at most 100000000", n);
    uint64_t start = n + 8;
    k.data = f->data;
    k.size = (size_t)start;
    k.at = 8;
    k.err = e;
    f->format = "safetensors";
    f->entry_count = f->meta_count = 0;
    if (!tfm__json_need(&k, '{')) return false;
    bool more = !tfm__json_is(&k, '}'), metadata = false;
    while (more && tfm__cursor_ok(&k)) {
        tfm__entry t;
        memset(&t, 0, sizeof t);
        t.name = tfm__json_string(&k, false);
        tfm__json_need(&k, ':');
        if (tfm__str_eq(t.name, "__metadata__")) {
            if (metadata) return tfm__fail(e, TFM_MALFORMED, "__metadata__ appears twice");
            metadata = true;
            tfm__json_need(&k, '{');
            for (bool inside = !tfm__json_is(&k, '}'); inside && tfm__cursor_ok(&k); f->meta_count++) {
                tfm__meta m;
                memset(&m, 0, sizeof m);
                m.key = tfm__json_string(&k, true);
                tfm__json_need(&k, ':');
                tfm_string v = tfm__json_string(&k, true);
                m.value.type = m.value.element = TFM_VALUE_STRING;
                m.value.data = (const uint8_t *)v.data;
                m.value.count = m.value.size = v.size;
                if (f->meta) f->meta[f->meta_count] = m;
                inside = tfm__json_is(&k, ',');
                if (!inside) tfm__json_need(&k, '}');
            }
            if (!tfm__cursor_ok(&k)) return tfm__inside(e, t.name);
        } else {
            if (tfm__cursor_ok(&k) && !tfm__name_ok(t.name, 65535))
                tfm__fail(e, TFM_MALFORMED, "tensor name of %u bytes: %q", (uint64_t)t.name.size, &t.name);
            if (!tfm__cursor_ok(&k) || !tfm__json_tensor(&k, &t, f->size - start)) return false;
            t.offset += start;
            if (f->entries) f->entries[f->entry_count] = t;
            f->entry_count++;
        }
        more = tfm__json_is(&k, ',');
        if (!more) tfm__json_need(&k, '}');
    }
    tfm__json_space(&k);
    if (tfm__cursor_ok(&k) && k.at != k.size) tfm__fail(e, TFM_MALFORMED, "header: unexpected text at byte %u",
                                                        (uint64_t)k.at);
    if (!tfm__cursor_ok(&k)) return false;
    return !f->entries || tfm__file_check(f, true, start, e);
}

/* What kind of file, and how many keys and tensors: all that the size of its object depends on. */
typedef struct tfm__file_counts { bool gguf, swapped; uint64_t tensors, keys; } tfm__file_counts;

static bool tfm__file_count(const void *data, size_t size, tfm__file_counts *out, tfm_error *e) {
    const uint8_t *p = (const uint8_t *)data;
    tfm__cursor k;
    uint32_t version;
    memset(out, 0, sizeof *out);
    memset(&k, 0, sizeof k);
    if (!data || size == 0)
        return tfm__fail(e, data ? TFM_TRUNCATED : TFM_ARGUMENT, data ? "the file is empty" : "the data is NULL");
    k.data = p;
    k.size = size;
    k.err = e;
    out->gguf = size >= 4 && memcmp(p, "GGUF", 4) == 0;
    if (out->gguf) return tfm__gguf_header(&k, &out->tensors, &out->keys, &out->swapped, &version);
    if (size < 9)
        return tfm__fail(e, TFM_TRUNCATED, "%u bytes are neither a GGUF nor a safetensors file", (uint64_t)size);
    if (p[8] != '{')
        return tfm__fail(e, TFM_MALFORMED, "neither GGUF nor safetensors: the file begins with bytes %u %u %u %u",
                         (uint64_t)p[0], (uint64_t)p[1], (uint64_t)p[2], (uint64_t)p[3]);
    if (!tfm__little_host())
        return tfm__fail(e, TFM_UNSUPPORTED, "safetensors files are read on little-endian machines only");
    tfm_file f;
    memset(&f, 0, sizeof f);
    f.data = p;
    f.size = size;
    if (!tfm__safetensors_parse(&f, e)) return false;
    out->tensors = (uint64_t)f.entry_count;
    out->keys = (uint64_t)f.meta_count;
    return true;
}
static tfm_file *tfm__file_carve(tfm__carver *k, const tfm__file_counts *n) {
    tfm_file *f = (tfm_file *)tfm__carve(k, 1, sizeof *f);
    tfm__meta *meta = (tfm__meta *)tfm__carve(k, (size_t)n->keys, sizeof *meta);
    tfm__entry *entries = (tfm__entry *)tfm__carve(k, (size_t)n->tensors, sizeof *entries);
    int32_t *meta_order = (int32_t *)tfm__carve(k, (size_t)n->keys, sizeof *meta_order);
    int32_t *entry_order = (int32_t *)tfm__carve(k, (size_t)n->tensors, sizeof *entry_order);
    if (!f || k->overflow) return NULL;
    memset(f, 0, sizeof *f);
    f->meta = meta;
    f->entries = entries;
    f->meta_order = meta_order;
    f->entry_order = entry_order;
    return f;
}
static tfm_file *tfm__file_make(tfm__carver *k, const tfm__mapping *map, const tfm__file_counts *n, tfm_error *e) {
    tfm_file *f = tfm__file_carve(k, n);
    if (!f) {
        tfm__fail(e, TFM_MEMORY, "file: the directory does not fit in %u bytes", (uint64_t)k->size);
        return NULL;
    }
    f->map = *map;
    f->data = map->data;
    f->size = map->size;
    return (n->gguf ? tfm__gguf_parse(f, e) : tfm__safetensors_parse(f, e)) ? f : NULL;
}
TFMDEF size_t tfm_file_size(const void *data, size_t size, tfm_error *err) {
    tfm_error local, *e = tfm__begin(err, &local);
    tfm__file_counts n;
    tfm__carver k;
    memset(&k, 0, sizeof k);
    if (!tfm__file_count(data, size, &n, e)) return 0;
    if (n.swapped) {
        tfm__fail(e, TFM_UNSUPPORTED, "GGUF in the other byte order: it must be copied, which needs an allocator");
        return 0;
    }
    tfm__file_carve(&k, &n);
    return k.used;
}
TFMDEF tfm_file *tfm_file_in(const void *data, size_t size, void *mem, size_t mem_size, tfm_error *err) {
    tfm_error local, *e = tfm__begin(err, &local);
    size_t need = tfm_file_size(data, size, e);
    tfm__file_counts n;
    tfm__mapping map;
    tfm__carver k;
    memset(&k, 0, sizeof k);
    memset(&map, 0, sizeof map);
    if (!need || !tfm__object(NULL, mem, mem_size, need, "file", e) || !tfm__file_count(data, size, &n, e)) return NULL;
    map.data = (const uint8_t *)data;
    map.size = size;
    k.base = (char *)mem;
    k.size = mem_size;
    return tfm__file_make(&k, &map, &n, e);
}
/* Replaces the mapping of a file in the other byte order by a turned copy. */
static bool tfm__file_turn(tfm__mapping *map, const tfm_allocator *a, tfm_error *e) {
    size_t size = map->size;
    uint8_t *copy = (uint8_t *)tfm__heap_alloc(a, size, e);
    if (!copy) return false;
    memcpy(copy, map->data, size);
    tfm__unmap(map, a);
    memset(map, 0, sizeof *map);
    map->data = copy;
    map->size = size;
    map->owned = true;
    tfm__gguf_flip_directory(copy, size);
    return true;
}
static tfm_file *tfm__file_own(tfm__mapping *map, const tfm_allocator *allocator, tfm_error *e) {
    tfm_allocator a = tfm__allocator(allocator);
    tfm__file_counts n;
    tfm__carver k;
    tfm_file *f = NULL;
    bool turned = false;
    memset(&k, 0, sizeof k);
    bool ok = tfm__file_count(map->data, map->size, &n, e);
    if (ok && n.swapped) {
        turned = true;
        ok = tfm__file_turn(map, &a, e) && tfm__file_count(map->data, map->size, &n, e);
    }
    if (ok) {
        tfm__file_carve(&k, &n);
        k.size = k.used;
        k.used = 0;
        k.base = k.overflow ? NULL : (char *)tfm__heap_alloc(&a, k.size, e);
        if (k.base) f = tfm__file_make(&k, map, &n, e);
        if (f && turned) tfm__gguf_flip_data(f, (uint8_t *)(uintptr_t)map->data);
    }
    if (!f) {
        tfm__heap_free(&a, k.base);
        tfm__unmap(map, &a);
        return NULL;
    }
    f->allocator = a;
    f->owns_memory = true;
    return f;
}
TFMDEF tfm_file *tfm_file_from_memory(const void *data, size_t size, const tfm_allocator *allocator, tfm_error *err) {
    tfm_error local, *e = tfm__begin(err, &local);
    tfm__mapping map;
    memset(&map, 0, sizeof map);
    map.data = (const uint8_t *)data;
    map.size = size;
    return tfm__file_own(&map, allocator, e);
}
TFMDEF tfm_file *tfm_file_open(const char *path, const tfm_allocator *allocator, tfm_error *err) {
    tfm_error local, *e = tfm__begin(err, &local);
#ifdef TFM_NO_STDIO
    (void)allocator;
    tfm__fail(e, TFM_UNSUPPORTED, "%s: this build opens no files (TFM_NO_STDIO)", path ? path : "NULL");
    return NULL;
#else
    tfm__mapping map;
    tfm_allocator a = tfm__allocator(allocator);
    if (!tfm__map_file(path, &a, &map, e)) return NULL;
    tfm_file *f = tfm__file_own(&map, allocator, e);
    if (!f) tfm__inside(e, tfm__str(path));
    return f;
#endif
}
TFMDEF void tfm_file_free(tfm_file *f) {
    if (!f) return;
    tfm_allocator a = f->allocator;
    tfm__unmap(&f->map, &a);
    if (f->owns_memory) tfm__heap_free(&a, f);
}

TFMDEF const char *tfm_file_format(const tfm_file *f) { return f ? f->format : "?"; }
TFMDEF int64_t tfm_file_tensor_count(const tfm_file *f) { return f ? f->entry_count : 0; }
TFMDEF bool tfm_file_tensor_at(const tfm_file *f, int64_t index, tfm_tensor_info *out) {
    if (!f || index < 0 || index >= f->entry_count) return false;
    if (!out) return true;
    const tfm__entry *t = &f->entries[index];
    memset(out, 0, sizeof *out);
    out->name = t->name;
    out->type_name = t->type_name;
    out->tensor = tfm__layout(t->bytes ? (void *)(uintptr_t)(f->data + t->offset) : NULL, t->type, t->shape);
    out->rank = t->rank;
    out->offset = t->offset;
    out->bytes = t->bytes;
    return true;
}
/* Index of the tensor of that name, -1 if there is none. */
static int64_t tfm__file_find(const tfm_file *f, const char *name) {
    int64_t low = 0, high = f ? f->entry_count : 0;
    while (low < high) {
        int64_t mid = (low + high) / 2;
        int r = tfm__string_order(f->entries[f->entry_order[mid]].name, tfm__str(name));
        if (r == 0) return f->entry_order[mid];
        if (r < 0) low = mid + 1;
        else high = mid;
    }
    return -1;
}
TFMDEF bool tfm_file_tensor(const tfm_file *f, const char *name, tfm_tensor_info *out) {
    return tfm_file_tensor_at(f, tfm__file_find(f, name), out);
}
TFMDEF int64_t tfm_file_meta_count(const tfm_file *f) { return f ? f->meta_count : 0; }
TFMDEF bool tfm_file_meta_at(const tfm_file *f, int64_t index, tfm_string *key, tfm_value *out) {
    if (!f || index < 0 || index >= f->meta_count) return false;
    if (key) *key = f->meta[index].key;
    if (out) *out = f->meta[index].value;
    return true;
}
/* A file that was only counted has no table: its keys are walked. */
static bool tfm__gguf_scan(const tfm_file *f, const char *key, tfm_value *out) {
    tfm__cursor k;
    tfm_error e;
    memset(&k, 0, sizeof k);
    k.data = f->data;
    k.size = f->size;
    k.at = 24;
    k.err = tfm__begin(&e, NULL);
    for (int64_t i = 0; i < f->meta_count; i++) {
        tfm_string name = tfm__take_string(&k, "key");
        if (!tfm__take_value(&k, out)) return false;
        if (tfm__str_eq(name, key)) return true;
    }
    return false;
}
TFMDEF bool tfm_file_meta(const tfm_file *f, const char *key, tfm_value *out) {
    if (f && !f->meta) return tfm__gguf_scan(f, key, out);
    int64_t low = 0, high = f ? f->meta_count : 0;
    while (low < high) {
        int64_t mid = (low + high) / 2;
        int r = tfm__string_order(f->meta[f->meta_order[mid]].key, tfm__str(key));
        if (r == 0) return tfm_file_meta_at(f, f->meta_order[mid], NULL, out);
        if (r < 0) low = mid + 1;
        else high = mid;
    }
    return false;
}
/* "<list>.<index>.<part>.<suffix>" without what is NULL; without a list, no index. */
TFM__UNUSED static void tfm__tensor_name(char name[80], const char *list, int64_t index, const char *part,
                                         const char *suffix) {
    char digits[24], *d = digits + sizeof digits - 1;
    *d = 0;
    for (int64_t i = index; list && (i > 0 || !*d); i /= 10) *--d = (char)('0' + i % 10);
    const char *pieces[4] = { list, list ? d : NULL, part, suffix };
    size_t n = 0;
    for (int i = 0; i < 4; i++) {
        if (!pieces[i]) continue;
        if (n) name[n++] = '.';
        memcpy(name + n, pieces[i], strlen(pieces[i]));
        n += strlen(pieces[i]);
    }
    name[n] = 0;
}
#ifndef TFM_NO_NET
/* ---- Nets of layers ------------------------------------------------------------------ [IMPL.NET]
   A list of layers, each reading layers above it. Loading takes every name and number from the
   file, and each layer's shape from those that it reads, so that a run can only fail for its input
   or for memory. Inside, values are a batch: [B, D] or [B, T, D].                                 */

enum { TFM__NET_EMBEDDING, TFM__NET_LSTM, TFM__NET_GRU, TFM__NET_RNN, TFM__NET_DENSE, TFM__NET_ACTIVATION,
       TFM__NET_FLATTEN, TFM__NET_AVERAGE_POOL, TFM__NET_MAX_POOL, TFM__NET_CONCAT, TFM__NET_ADD,
       TFM__NET_LAYER_NORM, TFM__NET_SCALE };
static const char *const tfm__net_kinds[] = { "embedding", "lstm", "gru", "rnn", "dense", "activation", "flatten",
    "average_pool", "max_pool", "concat", "add", "layer_norm", "scale", NULL };
static const int tfm__net_gates[] = { 0, 4, 3, 1 };        /* by kind; the other kinds have none */

/* From relu to sigmoid one more than the tfm__unary of that name. */
enum { TFM__ACT_LINEAR, TFM__ACT_RELU, TFM__ACT_TANH = TFM__TANH + 1, TFM__ACT_SIGMOID = TFM__SIGMOID + 1,
       TFM__ACT_SOFTMAX, TFM__ACT_HARD_SIGMOID, TFM__ACT_HARD_SIGMOID_2, TFM__ACT_RELU6, TFM__ACT_ELU, TFM__ACT_SELU,
       TFM__ACT_SOFTPLUS, TFM__ACT_SOFTSIGN, TFM__ACT_EXPONENTIAL };
static const char *const tfm__net_activations[] = { "linear", "relu", "gelu", "gelu_tanh", "silu", "tanh", "sigmoid",
    "softmax", "hard_sigmoid", "hard_sigmoid_2", "relu6", "elu", "selu", "softplus", "softsign", "exponential", NULL };

enum { TFM__MERGE_NONE, TFM__MERGE_CONCAT, TFM__MERGE_SUM, TFM__MERGE_MUL, TFM__MERGE_AVE };
static const char *const tfm__net_merges[] = { "", "concat", "sum", "mul", "ave", NULL };

/* The lists of the metadata, one entry per layer, but for the last, which INPUT_COUNTS cuts. */
enum { TFM__NET_KIND, TFM__NET_ACT, TFM__NET_RECURRENT, TFM__NET_MERGE, TFM__NET_SEQUENCES, TFM__NET_BACKWARDS,
       TFM__NET_RESET_AFTER, TFM__NET_MASK_ZERO, TFM__NET_EPSILON, TFM__NET_INPUT_COUNTS, TFM__NET_INPUTS,
       TFM__NET_LISTS };
static const struct { const char *key; tfm_value_type element; } tfm__net_lists[TFM__NET_LISTS] = {
    { "sequential.layer.kind", TFM_VALUE_STRING }, { "sequential.layer.activation", TFM_VALUE_STRING },
    { "sequential.layer.recurrent_activation", TFM_VALUE_STRING }, { "sequential.layer.merge", TFM_VALUE_STRING },
    { "sequential.layer.return_sequences", TFM_VALUE_BOOL }, { "sequential.layer.go_backwards", TFM_VALUE_BOOL },
    { "sequential.layer.reset_after", TFM_VALUE_BOOL }, { "sequential.layer.mask_zero", TFM_VALUE_BOOL },
    { "sequential.layer.epsilon", TFM_VALUE_F32 }, { "sequential.layer.input_counts", TFM_VALUE_I32 },
    { "sequential.layer.inputs", TFM_VALUE_I32 } };

/* At most so many layers, that one reads, and so wide: a run keeps a value of each layer on the stack. */
enum { TFM__NET_LAYERS = 64, TFM__NET_READS = 8, TFM__NET_WIDTH = 1 << 24 };

typedef struct tfm__net_layer {
    int kind, activation, recurrent_activation, merge;
    bool sequences, backwards, reset_after, mask_zero;
    float epsilon;
    const int32_t *inputs;              /* [input_count] layers above this one; -1: the net's input */
    int32_t input_count;
    tfm_tensor weight, bias;
    tfm_rnn_weights rnn[2];             /* forward, backward */
    tfm_shape shape;                    /* of one sample's output */
    int64_t hidden;                     /* of a recurrent layer */
} tfm__net_layer;

struct tfm_net {
    tfm_allocator allocator;
    bool owned;                         /* the memory is the allocator's */
    tfm_net_info info;
    tfm__net_layer *layers;
    int32_t *inputs;                    /* of all layers */
};

typedef struct tfm__net_loader {
    const tfm_file *file;
    tfm_error *err;
    tfm_net *net;
    tfm_value list[TFM__NET_LISTS];     /* what is left of each; without elements: not in the file */
    int64_t tensors;                    /* taken from the file */
} tfm__net_loader;

static bool tfm__net_recurs(const tfm__net_layer *y) { return y->kind >= TFM__NET_LSTM && y->kind <= TFM__NET_RNN; }

/* Loading. */

/* Finds the lists; tells how many layers there are, and inputs of layers. */
static bool tfm__net_scan(tfm__net_loader *l, size_t *layers, size_t *inputs) {
    tfm_value v;
    tfm_string name = tfm__str("");
    if (!l->file) return tfm__fail(l->err, TFM_ARGUMENT, "the file is NULL");
    if (!tfm_file_meta(l->file, "general.architecture", &v) || !tfm_value_string(&v, &name) ||
        !tfm__str_eq(name, "sequential"))
        return tfm__fail(l->err, TFM_UNSUPPORTED, "architecture \"%q\" is not \"sequential\", a net of layers", &name);
    for (int i = 0; i < TFM__NET_LISTS; i++) {
        const char *key = tfm__net_lists[i].key;
        tfm_value *list = &l->list[i];
        if (!tfm_file_meta(l->file, key, list)) { memset(list, 0, sizeof *list); continue; }
        if (list->type != TFM_VALUE_ARRAY || list->element != tfm__net_lists[i].element)
            return tfm__fail(l->err, TFM_MALFORMED, "%s: not an array of %s", key,
                             tfm__net_lists[i].element == TFM_VALUE_STRING ? "strings"
                             : tfm__net_lists[i].element == TFM_VALUE_BOOL ? "bools"
                             : tfm__net_lists[i].element == TFM_VALUE_F32 ? "f32 numbers" : "i32 numbers");
        if (i < TFM__NET_INPUTS && list->count != l->list[TFM__NET_KIND].count)
            return tfm__fail(l->err, TFM_MISMATCH, "%s has %u elements, %s has %u", key, list->count,
                             tfm__net_lists[TFM__NET_KIND].key, l->list[TFM__NET_KIND].count);
    }
    uint64_t count = l->list[TFM__NET_KIND].count, edges = l->list[TFM__NET_INPUTS].count;
    if (count < 1 || count > TFM__NET_LAYERS || edges > TFM__NET_READS * TFM__NET_LAYERS)
        return tfm__fail(l->err, TFM_UNSUPPORTED, "a net of %u layers that read %u; from 1 to %i run here", count,
                         edges, (int64_t)TFM__NET_LAYERS);
    *layers = (size_t)count;
    *inputs = (size_t)(edges ? edges : count);
    return true;
}
/* The next entry of a list of names as its number in `names`. */
static int tfm__net_name(tfm__net_loader *l, int list, int64_t layer, const char *const *names, int absent) {
    tfm_value v;
    tfm_string s;
    if (!tfm_value_next(&l->list[list], &v)) return absent;
    tfm_value_string(&v, &s);
    for (int i = 0; names[i]; i++)
        if (tfm__str_eq(s, names[i])) return i;
    tfm__fail(l->err, TFM_UNSUPPORTED, "%s: '%q' of layer %i is not supported", tfm__net_lists[list].key, &s, layer);
    return absent;
}
static bool tfm__net_flag(tfm__net_loader *l, int list, bool absent) {
    tfm_value v;
    bool flag = absent;
    if (tfm_value_next(&l->list[list], &v)) tfm_value_bool(&v, &flag);
    return flag;
}
/* Which layers this one reads: they are above it, and without a list it is the one before. */
static void tfm__net_edges(tfm__net_loader *l, tfm__net_layer *y, int64_t layer, int64_t *used, int64_t room) {
    tfm_value v;
    int64_t count = 1, from = layer - 1;
    bool listed = tfm_value_next(&l->list[TFM__NET_INPUT_COUNTS], &v) && tfm_value_i64(&v, &count);
    if (count < 1 || count > TFM__NET_READS || count > room - *used) {
        tfm__fail(l->err, TFM_MISMATCH, "layer %i reads %i layers, %i more are listed; from 1 to %i run here",
                  layer, count, room - *used, (int64_t)TFM__NET_READS);
        return;
    }
    y->inputs = l->net->inputs + *used;
    y->input_count = (int32_t)count;
    for (int64_t i = 0; i < count; i++) {
        if (listed && (!tfm_value_next(&l->list[TFM__NET_INPUTS], &v) || !tfm_value_i64(&v, &from))) from = layer;
        if (from < -1 || from >= layer) {
            tfm__fail(l->err, TFM_MISMATCH, "layer %i reads layer %i, not one above it", layer, from);
            return;
        }
        l->net->inputs[(*used)++] = (int32_t)from;
    }
}
/* "layers.N.SUFFIX" of the file, if it has the shape needed; -1 in it: any. */
static tfm_tensor tfm__net_tensor(tfm__net_loader *l, int64_t layer, const char *suffix, tfm_shape want,
                                  bool optional) {
    char name[80];
    tfm_tensor_info info;
    if (l->err->status != TFM_OK) return tfm_none();
    tfm__tensor_name(name, "layers", layer, suffix, NULL);
    if (!tfm_file_tensor(l->file, name, &info)) {
        if (!optional) tfm__fail(l->err, TFM_MISMATCH, "%s: the tensor is missing", name);
        return tfm_none();
    }
    tfm_shape have = tfm__shape_of(info.tensor);
    bool same = have.rank == want.rank;
    for (int i = 0; same && i < want.rank; i++)
        same = have.dim[i] == want.dim[i] || (want.dim[i] < 0 && have.dim[i] > 0 && have.dim[i] <= TFM__NET_WIDTH);
    for (int i = 0; i < want.rank; i++) if (want.dim[i] < 0) want.dim[i] = 0;
    if (!same) tfm__fail(l->err, TFM_MISMATCH, "%s: %d in the file, %d needed (0: any)", name, &have, &want);
    else if (!tfm__is_numeric(info.tensor.type))
        tfm__fail(l->err, TFM_UNSUPPORTED, "%s: type %q is not supported", name, &info.type_name);
    l->tensors++;
    return info.tensor;
}
static void tfm__net_rnn_weights(tfm__net_loader *l, tfm__net_layer *y, int64_t layer, int64_t in) {
    static const char *const names[2][4] = {
        { "weight_ih", "weight_hh", "bias_ih", "bias_hh" },
        { "weight_ih_reverse", "weight_hh_reverse", "bias_ih_reverse", "bias_hh_reverse" } };
    int64_t gates = tfm__net_gates[y->kind];
    for (int i = 0; i < (y->merge ? 2 : 1); i++) {
        tfm_rnn_weights *w = &y->rnn[i];
        w->w_hh = tfm__net_tensor(l, layer, names[i][1], tfm_shape2(-1, i ? y->hidden : -1), false);
        y->hidden = w->w_hh.dim[1];
        if (w->w_hh.rank && w->w_hh.dim[0] != gates * y->hidden)
            tfm__fail(l->err, TFM_MISMATCH, "layers.%i.%s: %i rows of %i, %i needed", layer, names[i][1],
                      w->w_hh.dim[0], y->hidden, gates * y->hidden);
        w->w_ih = tfm__net_tensor(l, layer, names[i][0], tfm_shape2(gates * y->hidden, in), false);
        w->b_ih = tfm__net_tensor(l, layer, names[i][2], tfm_shape1(gates * y->hidden), true);
        w->b_hh = tfm__net_tensor(l, layer, names[i][3], tfm_shape1(gates * y->hidden), true);
    }
}
/* What all inputs of a layer together are, one sample of it. Only concat and add read several. */
static bool tfm__net_input_shape(tfm__net_loader *l, const tfm__net_layer *y, int64_t layer, tfm_shape *in) {
    for (int32_t i = 0; i < y->input_count; i++) {
        int32_t from = y->inputs[i];
        tfm_shape s = from < 0 ? l->net->info.input : l->net->layers[from].shape;
        bool ids = from < 0 && l->net->info.vocab;
        if (ids != (y->kind == TFM__NET_EMBEDDING))
            return tfm__fail(l->err, TFM_MISMATCH, "layer %i (%s) reads %s", layer, tfm__net_kinds[y->kind],
                             ids ? "the net's ids" : "numbers, not the net's ids");
        if (i == 0) { *in = s; continue; }
        if (y->kind != TFM__NET_CONCAT && y->kind != TFM__NET_ADD)
            return tfm__fail(l->err, TFM_MISMATCH, "layer %i (%s) reads %i layers", layer, tfm__net_kinds[y->kind],
                             (int64_t)y->input_count);
        int last = s.rank - 1;
        if (s.rank != in->rank || (last && s.dim[0] != in->dim[0]) ||
            (y->kind == TFM__NET_ADD && s.dim[last] != in->dim[last]))
            return tfm__fail(l->err, TFM_MISMATCH, "layer %i (%s) reads %d and %d", layer, tfm__net_kinds[y->kind], in,
                             &s);
        if (y->kind == TFM__NET_CONCAT) in->dim[last] += s.dim[last];
    }
    return true;
}
/* Takes a layer's tensors and works out its shape. */
static void tfm__net_place(tfm__net_loader *l, tfm__net_layer *y, int64_t layer) {
    tfm_shape in = tfm_shape1(0);
    if (!tfm__net_input_shape(l, y, layer, &in)) return;
    const bool recurs = tfm__net_recurs(y);
    const bool pools = y->kind == TFM__NET_AVERAGE_POOL || y->kind == TFM__NET_MAX_POOL;
    int64_t width = in.dim[in.rank - 1];
    y->shape = in;
    if ((recurs || pools) && in.rank != 2)
        tfm__fail(l->err, TFM_MISMATCH, "layer %i (%s) reads %d, not steps", layer, tfm__net_kinds[y->kind], &in);
    if (y->kind == TFM__NET_EMBEDDING) {
        y->weight = tfm__net_tensor(l, layer, "weight", tfm_shape2(-1, -1), false);
        y->shape = tfm_shape2(in.dim[0], y->weight.dim[1]);
        if (!layer || y->weight.dim[0] < l->net->info.vocab) l->net->info.vocab = y->weight.dim[0];
    } else if (recurs) {
        tfm__net_rnn_weights(l, y, layer, width);
        int64_t out = y->hidden * (y->merge == TFM__MERGE_CONCAT ? 2 : 1);
        y->shape = y->sequences ? tfm_shape2(in.dim[0], out) : tfm_shape1(out);
        bool back = y->merge || y->backwards;
        if (back || l->net->info.state < 0) l->net->info.state = -1;
        else l->net->info.state += y->hidden * (y->kind == TFM__NET_LSTM ? 2 : 1);
    } else if (y->kind == TFM__NET_DENSE) {
        y->weight = tfm__net_tensor(l, layer, "weight", tfm_shape2(-1, width), false);
        y->bias = tfm__net_tensor(l, layer, "bias", tfm_shape1(y->weight.dim[0]), true);
        y->shape.dim[in.rank - 1] = y->weight.dim[0];
    } else if (y->kind == TFM__NET_LAYER_NORM || y->kind == TFM__NET_SCALE) {
        y->weight = tfm__net_tensor(l, layer, "weight", tfm_shape1(width), true);
        y->bias = tfm__net_tensor(l, layer, "bias", tfm_shape1(width), true);
    } else if (pools) y->shape = tfm_shape1(width);
    else if (y->kind == TFM__NET_FLATTEN) y->shape = tfm_shape1(in.rank == 2 ? in.dim[0] * width : width);
    width = y->shape.dim[y->shape.rank - 1];
    if (width < 1 || width > TFM__NET_WIDTH)
        tfm__fail(l->err, TFM_MISMATCH, "layer %i (%s) is %i wide%s", layer, tfm__net_kinds[y->kind], width,
                  width ? "" : ": the number of steps is open");
}
static bool tfm__net_input(tfm__net_loader *l) {
    tfm_value v, dim;
    tfm_net_info *info = &l->net->info;
    info->vocab = l->net->layers[0].kind == TFM__NET_EMBEDDING;         /* how large, its tensor says */
    bool good = tfm_file_meta(l->file, "sequential.input_shape", &v) && v.type == TFM_VALUE_ARRAY &&
                v.count >= 1 && v.count <= (info->vocab ? 1 : 2);
    info->input = tfm_shape1(0);
    info->input.rank = good ? (int)v.count : 0;
    for (int i = 0; i < info->input.rank; i++) {
        bool steps = info->vocab || info->input.rank - 1 - i;           /* may be open */
        good = good && tfm_value_next(&v, &dim) && tfm_value_i64(&dim, &info->input.dim[i]) &&
               info->input.dim[i] >= !steps && info->input.dim[i] <= TFM__NET_WIDTH;
    }
    return good || tfm__fail(l->err, TFM_MALFORMED, "sequential.input_shape: missing, or not the shape of a sample");
}
static bool tfm__net_fill(tfm__net_loader *l, int64_t layers, int64_t room) {
    int64_t used = 0;
    l->net->info.layers = (int)layers;
    for (int64_t i = 0; i < layers && l->err->status == TFM_OK; i++) {
        tfm__net_layer *y = &l->net->layers[i];
        memset(y, 0, sizeof *y);
        tfm_value v;
        double epsilon = 0;
        y->kind = tfm__net_name(l, TFM__NET_KIND, i, tfm__net_kinds, 0);
        y->activation = tfm__net_name(l, TFM__NET_ACT, i, tfm__net_activations,
                                      tfm__net_recurs(y) ? TFM__ACT_TANH : TFM__ACT_LINEAR);
        y->recurrent_activation = tfm__net_name(l, TFM__NET_RECURRENT, i, tfm__net_activations, TFM__ACT_SIGMOID);
        y->merge = tfm__net_name(l, TFM__NET_MERGE, i, tfm__net_merges, TFM__MERGE_NONE);
        y->sequences = tfm__net_flag(l, TFM__NET_SEQUENCES, false);
        y->backwards = tfm__net_flag(l, TFM__NET_BACKWARDS, false);
        y->reset_after = tfm__net_flag(l, TFM__NET_RESET_AFTER, true);
        y->mask_zero = tfm__net_flag(l, TFM__NET_MASK_ZERO, false);
        if (tfm_value_next(&l->list[TFM__NET_EPSILON], &v)) tfm_value_f64(&v, &epsilon);
        y->epsilon = (float)epsilon;
        if (i == 0 && !tfm__net_input(l)) return false;
        tfm__net_edges(l, y, i, &used, room);
        if (l->err->status == TFM_OK) tfm__net_place(l, y, i);
    }
    if (l->err->status != TFM_OK) return false;
    l->net->info.output = l->net->layers[layers - 1].shape;
    if (l->list[TFM__NET_INPUTS].count)
        return tfm__fail(l->err, TFM_MISMATCH, "%s: %u of its elements belong to no layer",
                         tfm__net_lists[TFM__NET_INPUTS].key, l->list[TFM__NET_INPUTS].count);
    if (l->tensors != tfm_file_tensor_count(l->file))
        return tfm__fail(l->err, TFM_UNSUPPORTED, "the file has %i tensors, its layers have places for %i",
                         tfm_file_tensor_count(l->file), l->tensors);
    return true;
}
static tfm_net *tfm__net_carve(tfm__carver *k, size_t layers, size_t inputs) {
    tfm_net *n = (tfm_net *)tfm__carve(k, 1, sizeof *n);
    tfm__net_layer *y = (tfm__net_layer *)tfm__carve(k, layers, sizeof *y);
    int32_t *edges = (int32_t *)tfm__carve(k, inputs, sizeof *edges);
    if (!n) return NULL;
    memset(n, 0, sizeof *n);
    n->layers = y;
    n->inputs = edges;
    return n;
}
/* The three faces: *needed gets the size, and nothing is made, if `make` is false. */
static tfm_net *tfm__net_make(const tfm_file *f, const tfm_allocator *a, void *mem, size_t size, bool make,
                              size_t *needed, tfm_error *e) {
    tfm__net_loader l;
    tfm__carver k;
    size_t layers = 0, inputs = 0;
    memset(&l, 0, sizeof l);
    memset(&k, 0, sizeof k);
    l.file = f;
    l.err = e;
    *needed = 0;
    if (!tfm__net_scan(&l, &layers, &inputs)) return NULL;
    tfm__net_carve(&k, layers, inputs);
    *needed = k.used;
    k.base = make ? (char *)tfm__object(a, mem, size, k.used, "net", e) : NULL;
    if (!k.base) return NULL;
    k.size = k.used;
    k.used = 0;
    l.net = tfm__net_carve(&k, layers, inputs);
    l.net->owned = mem == NULL;
    if (a) l.net->allocator = *a;
    if (tfm__net_fill(&l, (int64_t)layers, (int64_t)inputs)) return l.net;
    tfm_net_free(l.net);
    return NULL;
}
TFMDEF tfm_net *tfm_net_new(const tfm_file *f, const tfm_allocator *allocator, tfm_error *err) {
    tfm_error local;
    tfm_allocator a = tfm__allocator(allocator);
    size_t needed;
    return tfm__net_make(f, &a, NULL, 0, true, &needed, tfm__begin(err, &local));
}
TFMDEF size_t tfm_net_size(const tfm_file *f, tfm_error *err) {
    tfm_error local;
    size_t needed;
    tfm__net_make(f, NULL, NULL, 0, false, &needed, tfm__begin(err, &local));
    return needed;
}
TFMDEF tfm_net *tfm_net_in(const tfm_file *f, void *mem, size_t size, tfm_error *err) {
    tfm_error local;
    size_t needed;
    return tfm__net_make(f, NULL, mem, size, true, &needed, tfm__begin(err, &local));
}
TFMDEF void tfm_net_free(tfm_net *n) {
    if (!n || !n->owned) return;
    tfm_allocator a = n->allocator;
    tfm__heap_free(&a, n);
}
TFMDEF const tfm_net_info *tfm_net_info_of(const tfm_net *n) { return n ? &n->info : NULL; }

/* Running. */

/* The activations that no kernel has: single operations, or double ones rounded once. */
static float tfm__net_activation(int activation, float x) {
    bool negated = activation == TFM__ACT_SOFTPLUS && x > 0;            /* so that no exp is infinite there */
    double e = activation < TFM__ACT_ELU ? 0 : tfm__exp_double(negated ? -(double)x : (double)x);
    switch (activation) {
        case TFM__ACT_HARD_SIGMOID: x = 0.2f * x + 0.5f; return x < 0 ? 0 : x > 1 ? 1 : x;
        case TFM__ACT_HARD_SIGMOID_2: x += 3; return (x < 0 ? 0 : x > 6 ? 6 : x) / 6;
        case TFM__ACT_RELU6: return x < 0 ? 0 : x > 6 ? 6 : x;
        case TFM__ACT_ELU: return x > 0 ? x : (float)(e - 1);
        case TFM__ACT_SELU: return (float)(1.0507009873554805 * (x > 0 ? (double)x : 1.6732632423543772 * (e - 1)));
        case TFM__ACT_SOFTPLUS: return (float)(tfm__log(1 + e) + (x > 0 ? (double)x : 0));
        case TFM__ACT_SOFTSIGN: return x / (1 + (x < 0 ? -x : x));
        case TFM__ACT_EXPONENTIAL: return (float)e;
        default: return x;
    }
}
static tfm_tensor tfm__net_activate(tfm_context *c, tfm_tensor t, int activation) {
    if (activation == TFM__ACT_LINEAR) return t;
    if (activation <= TFM__ACT_SIGMOID) return tfm__unary_op(c, "activation", (tfm__unary)(activation - 1), t);
    if (activation == TFM__ACT_SOFTMAX) return tfm_softmax(c, t, -1);
    tfm_tensor x = tfm__f32(c, "activation", t), y = tfm__new(c, TFM_F32, tfm__shape_of(x));
    for (int64_t i = 0; tfm__ok(c) && !c->measure && i < tfm_count(y); i++)
        tfm__floats(y)[i] = tfm__net_activation(activation, tfm__floats(x)[i]);
    return y;
}
static tfm_tensor tfm__net_gate(tfm_context *c, const tfm__net_layer *l, tfm_tensor t, int gate, int activation) {
    t = tfm_slice(c, t, -1, gate * l->hidden, (gate + 1) * l->hidden);
    return tfm__net_activate(c, t, activation);
}
/* One step of any recurrent layer from its definition: x [B, G*hidden] are the input products, state[0]
   is h, state[1] the cell [B, hidden], both changed. */
static void tfm__net_step(tfm_context *c, const tfm__net_layer *l, const tfm_rnn_weights *w, tfm_tensor x,
                          tfm_tensor state[2]) {
    const int act = l->activation, gate = l->recurrent_activation;
    tfm_tensor h = state[0];
    if (l->kind == TFM__NET_GRU && !l->reset_after) {       /* r is applied to h, not to its products */
        int64_t both = 2 * l->hidden, all = 3 * l->hidden;
        tfm_tensor b_rz = w->b_hh.rank ? tfm_slice(c, w->b_hh, 0, 0, both) : tfm_none();
        tfm_tensor b_n = w->b_hh.rank ? tfm_slice(c, w->b_hh, 0, both, all) : tfm_none();
        tfm_tensor rz = tfm_dense(c, h, tfm_slice(c, w->w_hh, 0, 0, both), b_rz);
        rz = tfm__net_activate(c, tfm_add(c, tfm_slice(c, x, -1, 0, both), rz), gate);
        tfm_tensor r = tfm__net_gate(c, l, rz, 0, TFM__ACT_LINEAR), z = tfm__net_gate(c, l, rz, 1, TFM__ACT_LINEAR);
        tfm_tensor n = tfm_dense(c, tfm_mul(c, r, h), tfm_slice(c, w->w_hh, 0, both, all), b_n);
        n = tfm__net_activate(c, tfm_add(c, tfm_slice(c, x, -1, both, all), n), act);
        state[0] = tfm_add(c, n, tfm_mul(c, z, tfm_sub(c, h, n)));
        return;
    }
    tfm_tensor from_h = tfm_dense(c, h, w->w_hh, w->b_hh), sum = tfm_add(c, x, from_h);
    if (l->kind == TFM__NET_RNN) state[0] = tfm__net_activate(c, sum, act);
    if (l->kind == TFM__NET_GRU) {
        tfm_tensor r = tfm__net_gate(c, l, sum, 0, gate), z = tfm__net_gate(c, l, sum, 1, gate);
        tfm_tensor n = tfm_mul(c, r, tfm__net_gate(c, l, from_h, 2, TFM__ACT_LINEAR));
        n = tfm__net_activate(c, tfm_add(c, tfm__net_gate(c, l, x, 2, TFM__ACT_LINEAR), n), act);
        state[0] = tfm_add(c, n, tfm_mul(c, z, tfm_sub(c, h, n)));
    }
    if (l->kind == TFM__NET_LSTM) {
        tfm_tensor i = tfm__net_gate(c, l, sum, 0, gate), f = tfm__net_gate(c, l, sum, 1, gate);
        tfm_tensor g = tfm__net_gate(c, l, sum, 2, act), o = tfm__net_gate(c, l, sum, 3, gate);
        state[1] = tfm_add(c, tfm_mul(c, f, state[1]), tfm_mul(c, i, g));
        state[0] = tfm_mul(c, o, tfm__net_activate(c, state[1], act));
    }
}
/* x [T, B, D] -> [T, B, hidden]; state [B, hidden], as for tfm_lstm. What PyTorch has runs on its kernels. */
static tfm_tensor tfm__net_steps(tfm_context *c, const tfm__net_layer *l, const tfm_rnn_weights *w, tfm_tensor x,
                                 tfm_tensor state[2]) {
    int64_t steps = x.dim[0], batch = x.dim[1];
    bool usual = l->activation == TFM__ACT_TANH && l->recurrent_activation == TFM__ACT_SIGMOID;
    if (usual && l->kind == TFM__NET_LSTM) return tfm_lstm(c, x, w, NULL, &state[0], &state[1]);
    if (usual && l->kind == TFM__NET_GRU && l->reset_after) return tfm_gru(c, x, w, NULL, &state[0]);
    tfm_tensor y = tfm__new(c, TFM_F32, tfm_shape3(steps, batch, l->hidden)), last[2];
    for (int i = 0; i < 2; i++) last[i] = tfm__rnn_state(c, "rnn", &state[i], tfm_shape3(1, batch, l->hidden));
    tfm_mark mark = tfm_arena_mark(c);
    x = tfm_dense(c, x, w->w_ih, w->b_ih);
    for (int64_t t = 0; tfm__ok(c) && t < (c->measure ? 1 : steps); t++) {
        tfm_mark step = tfm_arena_mark(c);
        tfm_tensor now[2];
        for (int i = 0; i < 2; i++) now[i] = tfm_reshape(c, last[i], tfm_shape2(batch, l->hidden));
        tfm__net_step(c, l, w, tfm_reshape(c, tfm_slice(c, x, 0, t, t + 1), tfm_shape2(batch, -1)), now);
        tfm__store(c, now[0], tfm__floats(last[0]));
        tfm__store(c, now[1], tfm__floats(last[1]));
        tfm__store(c, now[0], tfm__floats(y) + t * batch * l->hidden);
        tfm_arena_rewind(c, step);
    }
    tfm_arena_rewind(c, mark);
    state[0] = last[0];
    state[1] = last[1];
    return tfm__ok(c) ? y : tfm_none();
}
/* The same where a step of mask [B, T] may be none: each sequence runs on its own steps. As in Keras, the
   output of a step that is none is the one before it, and zeros if there is none or in a layer of both directions. */
static tfm_tensor tfm__net_masked(tfm_context *c, const tfm__net_layer *l, const tfm_rnn_weights *w, tfm_tensor x,
                                  const uint8_t *mask, bool back, tfm_tensor state[2]) {
    int64_t steps = x.dim[0], batch = x.dim[1], hidden = l->hidden;
    const size_t row = (size_t)x.dim[2] * sizeof(float), out_row = (size_t)hidden * sizeof(float);
    tfm_tensor y = tfm_zeros(c, tfm_shape3(steps, batch, hidden)), all = tfm_contiguous(c, x);
    tfm_tensor own = tfm__new(c, TFM_F32, tfm_shape3(steps, 1, x.dim[2]));
    for (int i = 0; i < 2; i++) state[i] = tfm__rnn_state(c, "rnn", &state[i], tfm_shape3(1, batch, hidden));
    for (int64_t b = 0; tfm__ok(c) && b < batch; b++) {
        tfm_mark mark = tfm_arena_mark(c);
        tfm_tensor now[2], out = tfm_none();
        int64_t count = c->measure ? steps : 0, at = 0;
        for (int64_t t = 0; !c->measure && t < steps; t++)
            if (mask[b * steps + (back ? steps - 1 - t : t)])
                memcpy((char *)own.data + (size_t)count++ * row, (char *)all.data + (size_t)(t * batch + b) * row, row);
        for (int i = 0; i < 2; i++) now[i] = tfm_slice(c, state[i], 1, b, b + 1);
        if (count) out = tfm__net_steps(c, l, w, tfm_slice(c, own, 0, 0, count), now);
        for (int i = 0; i < 2; i++) tfm__store(c, now[i], tfm__floats(state[i]) + b * hidden);
        for (int64_t t = 0; tfm__ok(c) && !c->measure && t < steps; t++) {
            bool some = mask[b * steps + (back ? steps - 1 - t : t)] != 0;
            at += some;
            if (at && (some || !l->merge))
                memcpy(tfm__floats(y) + (t * batch + b) * hidden, tfm__floats(out) + (at - 1) * hidden, out_row);
        }
        tfm_arena_rewind(c, mark);
    }
    return y;
}
static tfm_tensor tfm__net_reversed(tfm_context *c, tfm_tensor t) {         /* along axis 0 */
    if (!tfm__ok(c)) return t;
    t.data = (char *)t.data + (t.dim[0] - 1) * t.stride[0];
    t.stride[0] = -t.stride[0];
    return tfm_contiguous(c, t);
}
/* One direction: x [B, T, D] -> [B, T, hidden], or [B, hidden] after the last step. carried: h and the
   cell, going in and coming out, or NULL. */
static tfm_tensor tfm__net_direction(tfm_context *c, const tfm__net_layer *l, int d, tfm_tensor x, const uint8_t *mask,
                                     float *carried) {
    const bool back = (d == 1) != l->backwards;
    tfm_tensor state[2] = { tfm_none(), tfm_none() };
    for (int i = 0; carried && i < (l->kind == TFM__NET_LSTM ? 2 : 1); i++)
        state[i] = tfm_wrap(c, carried + i * l->hidden, tfm_shape3(1, 1, l->hidden));
    x = tfm_transpose(c, x, 0, 1);
    if (back) x = tfm__net_reversed(c, x);
    tfm_tensor y = mask ? tfm__net_masked(c, l, &l->rnn[d], x, mask, back, state)
                        : tfm__net_steps(c, l, &l->rnn[d], x, state);
    if (carried) tfm__store(c, state[0], carried);
    if (carried && l->kind == TFM__NET_LSTM) tfm__store(c, state[1], carried + l->hidden);
    if (!l->sequences) return tfm_reshape(c, state[0], tfm_shape2(-1, l->hidden));
    if (d == 1) y = tfm__net_reversed(c, y);                /* so that both directions stand by the same step */
    return tfm_transpose(c, y, 0, 1);
}
static tfm_tensor tfm__net_recurrent(tfm_context *c, const tfm__net_layer *l, tfm_tensor x, const uint8_t *mask,
                                     float *carried) {
    tfm_tensor y[2];
    y[0] = tfm__net_direction(c, l, 0, x, mask, carried);
    if (l->merge == TFM__MERGE_NONE) return y[0];
    y[1] = tfm__net_direction(c, l, 1, x, mask, NULL);
    if (l->merge == TFM__MERGE_CONCAT) return tfm_concat(c, y, 2, -1);
    if (l->merge == TFM__MERGE_MUL) return tfm_mul(c, y[0], y[1]);
    y[0] = tfm_add(c, y[0], y[1]);
    return l->merge == TFM__MERGE_AVE ? tfm_scale(c, y[0], 0.5f) : y[0];
}
/* The mean of the steps that are some. */
static tfm_tensor tfm__net_average(tfm_context *c, tfm_tensor x, const uint8_t *mask) {
    if (!mask) return tfm_mean(c, x, 1);
    tfm_tensor m = tfm__new(c, TFM_F32, tfm_shape3(x.dim[0], x.dim[1], 1));
    for (int64_t i = 0; tfm__ok(c) && !c->measure && i < tfm_count(m); i++) tfm__floats(m)[i] = mask[i];
    return tfm_div(c, tfm_sum(c, tfm_mul(c, x, m), 1), tfm_sum(c, m, 1));
}

/* What a layer gives, [B, T, D] or [B, D], and which of its steps are some, [B, T], or NULL: all. */
typedef struct tfm__net_value { tfm_tensor x; const uint8_t *mask; } tfm__net_value;

/* A step of a layer that reads several is some if it is in all of them. */
static tfm__net_value tfm__net_gather(tfm_context *c, const tfm__net_layer *l, const tfm__net_value *values) {
    tfm__net_value r = values[l->inputs[0]];
    tfm_tensor parts[TFM__NET_READS];
    parts[0] = r.x;
    for (int32_t i = 1; i < l->input_count && tfm__ok(c); i++) {
        const tfm__net_value *v = &values[l->inputs[i]];
        parts[i] = v->x;
        if (l->kind == TFM__NET_ADD) r.x = tfm_add(c, r.x, v->x);
        int64_t count = v->mask && r.mask ? v->x.dim[0] * v->x.dim[1] : 0;
        uint8_t *both = count ? (uint8_t *)tfm__arena(c, (size_t)count, 1) : NULL;
        for (int64_t k = 0; both && !c->measure && k < count; k++) both[k] = r.mask[k] & v->mask[k];
        r.mask = both ? both : r.mask ? r.mask : v->mask;
    }
    if (l->kind == TFM__NET_CONCAT && l->input_count > 1) r.x = tfm_concat(c, parts, l->input_count, -1);
    return r;
}
static tfm__net_value tfm__net_embed(tfm_context *c, const tfm__net_layer *l, tfm_tensor ids) {
    tfm__net_value r;
    const int32_t *p = (const int32_t *)ids.data;
    int64_t count = tfm_count(ids);
    r.x = tfm_reshape(c, tfm_embedding(c, l->weight, p, count), tfm_shape3(ids.dim[0], ids.dim[1], -1));
    uint8_t *mask = l->mask_zero ? (uint8_t *)tfm__arena(c, (size_t)count, 1) : NULL;
    for (int64_t i = 0; mask && !c->measure && i < count; i++) mask[i] = p[i] != 0;
    r.mask = mask;
    return r;
}
static tfm__net_value tfm__net_layer_run(tfm_context *c, const tfm__net_layer *l, const tfm__net_value *values,
                                         float *carried) {
    tfm__net_value r = tfm__net_gather(c, l, values);
    if (!tfm__ok(c)) return r;
    const int64_t batch = r.x.dim[0];
    switch (l->kind) {
        case TFM__NET_EMBEDDING: r = tfm__net_embed(c, l, r.x); break;
        case TFM__NET_LSTM: case TFM__NET_GRU: case TFM__NET_RNN:
            r.x = tfm__net_recurrent(c, l, r.x, r.mask, carried);
            if (!l->sequences) r.mask = NULL;
            return r;                   /* its activation is inside */
        case TFM__NET_DENSE: r.x = tfm_dense(c, r.x, l->weight, l->bias); break;
        case TFM__NET_FLATTEN: r.x = tfm_reshape(c, r.x, tfm_shape2(batch, -1)); r.mask = NULL; break;
        case TFM__NET_AVERAGE_POOL: r.x = tfm__net_average(c, r.x, r.mask); r.mask = NULL; break;
        case TFM__NET_MAX_POOL: r.x = tfm_max(c, r.x, 1); r.mask = NULL; break;
        case TFM__NET_LAYER_NORM: r.x = tfm_layernorm(c, r.x, l->weight, l->bias, l->epsilon); break;
        case TFM__NET_SCALE:
            if (l->weight.rank) r.x = tfm_mul(c, r.x, l->weight);
            if (l->bias.rank) r.x = tfm_add(c, r.x, l->bias);
            break;
        default: break;                 /* activation; add and concat were done when their inputs came together */
    }
    r.x = tfm__net_activate(c, r.x, l->activation);
    return r;
}
/* x as a batch [B, ...] of the samples that the net takes. */
static tfm_tensor tfm__net_batch(tfm_context *c, const tfm_net_info *info, tfm_tensor x, bool *batched) {
    tfm_shape have = tfm__shape_of(x), want = info->input, shape = want;
    *batched = have.rank == want.rank + 1;
    bool fits = have.rank == want.rank || (*batched && have.dim[0] > 0);
    for (int i = 0; fits && i < want.rank; i++) {
        int64_t n = have.dim[i + *batched];
        fits = n == want.dim[i] || (want.dim[i] == 0 && n > 0);
        shape.dim[i + 1] = n;
    }
    if (!fits || (info->vocab ? x.type != TFM_I32 : !tfm__is_numeric(x.type))) {
        tfm__fail(&c->err, TFM_MISMATCH, "net: %s are %d, %s %d needed (0: any)", tfm_type_name(x.type), &have,
                  info->vocab ? "ids, I32," : "numbers", &want);
        return tfm_none();
    }
    shape.dim[0] = *batched ? have.dim[0] : 1;
    shape.rank = want.rank + 1;
    return tfm_reshape(c, info->vocab ? tfm_contiguous(c, x) : tfm__f32(c, "net", x), shape);
}
TFMDEF tfm_tensor tfm_net_run(tfm_context *c, const tfm_net *n, tfm_tensor x, float *state) {
    bool batched = false;
    if (!tfm__given(c, "net", x)) return tfm_none();
    if (!n) tfm__fail(&c->err, TFM_ARGUMENT, "net: NULL given");
    tfm_tensor in = n ? tfm__net_batch(c, &n->info, x, &batched) : tfm_none();
    if (tfm__ok(c) && state && (n->info.state < 0 || in.dim[0] != 1))
        tfm__fail(&c->err, TFM_ARGUMENT, "net: no state can be carried %s",
                  n->info.state < 0 ? "by layers that run backwards" : "by a batch");
    if (!tfm__ok(c)) return tfm_none();
    tfm_shape shape = n->info.output;
    for (int i = shape.rank++; i > 0; i--) shape.dim[i] = shape.dim[i - 1];
    shape.dim[0] = in.dim[0];
    if (shape.rank == 3) shape.dim[1] = in.dim[1];
    tfm_tensor y = tfm__new(c, TFM_F32, shape);
    tfm_mark mark = tfm_arena_mark(c);
    tfm__net_value values[TFM__NET_LAYERS + 1];             /* the net's input stands before the layers */
    values[0].x = in;
    values[0].mask = NULL;
    for (int i = 0; i < n->info.layers && tfm__ok(c); i++) {
        const tfm__net_layer *l = &n->layers[i];
        values[i + 1] = tfm__net_layer_run(c, l, values + 1, state);
        if (state) state += l->hidden * (l->kind == TFM__NET_LSTM ? 2 : 1);
    }
    tfm__store(c, values[n->info.layers].x, tfm__floats(y));
    tfm_arena_rewind(c, mark);
    if (!tfm__ok(c)) return tfm_none();
    return batched ? y : tfm__drop_axis(c, y, 0);
}
#endif /* TFM_NO_NET */

#ifndef TFM_NO_TOKENIZER
/* ---- Tokenizers ---------------------------------------------------------- [IMPL.TOKENIZER]
   Token texts stay in the file. Each is spelled in one of four ways, and a search for text
   compares what the spelling stands for, so that neither text nor vocabulary is ever rewritten:

     "gpt2"   every byte as a character of GPT-2's byte alphabet (a space is U+0120)
     "llama"  a space as U+2581, some bytes as <0xNN>; "t5" too
     "bert"   a space as U+2581, which begins a word
     "char", "word"   as it is

   Text becomes ids in three steps: special tokens are cut out, what lies between is split into
   words that no merge can cross, and each word is merged, best pair first, until no pair of
   neighbours is known. For "gpt2" the best pair is the earliest in the list of merges; for
   "llama" it is the one whose union is the token of the highest score. "bert" takes words apart
   from the left instead, the longest token first; "char" and "word" have a token for the whole. "t5"
   has no words: of all ways to take a text apart it finds the one with the greatest sum of scores. */

enum { TFM__SPELL_BYTES, TFM__SPELL_SPACE, TFM__SPELL_PLAIN, TFM__SPELL_WORD };

enum { TFM__VOCAB_GPT2, TFM__VOCAB_LLAMA, TFM__VOCAB_T5, TFM__VOCAB_BERT, TFM__VOCAB_CHAR, TFM__VOCAB_WORD };
static const struct { const char *name; int spell; } tfm__vocab_models[] = {
    {"gpt2", TFM__SPELL_BYTES}, {"llama", TFM__SPELL_SPACE}, {"t5", TFM__SPELL_SPACE}, {"bert", TFM__SPELL_WORD},
    {"char", TFM__SPELL_PLAIN}, {"word", TFM__SPELL_PLAIN}
};

/* GGUF's token types less those that change nothing here; with the flag of end tokens. */
enum { TFM__TOKEN_NORMAL = 1, TFM__TOKEN_UNKNOWN, TFM__TOKEN_CONTROL, TFM__TOKEN_USER, TFM__TOKEN_UNUSED,
       TFM__TOKEN_BYTE, TFM__TOKEN_KIND = 0x7f, TFM__TOKEN_END = 0x80 };

/* Longer special tokens are not looked for in text: a bound on the time that this takes. */
enum { TFM__SPECIAL_BYTES = 256 };

/* Classes of characters as bits; 0 stands for the end of the text. */
enum { TFM__OTHER = 1, TFM__LETTER = 2, TFM__NUMBER = 4, TFM__MARK = 8, TFM__PUNCT = 16, TFM__SYMBOL = 32,
       TFM__SPACE = 64,
       TFM__ONLY_SPACE = 0, TFM__OTHERS = TFM__OTHER | TFM__PUNCT | TFM__SYMBOL,
       TFM__ANY_LEAD = TFM__OTHERS | TFM__MARK | TFM__SPACE };

/* How a byte-level vocabulary's text is split into words: in up to six steps, each of which splits
   the pieces that the one before left. A step is a cut or the word rule; a cut makes every match a
   piece of its own, and what stands between two matches another. The word rule takes the first of
   these that matches, in this order, the longest way it can. S is white space, L a letter, N a number.
     code          an ASCII punctuation character, then [A-Za-z]+; only with TFM__WORD_CODE
     contraction   's 't 'm 'd 're 've 'll
     letters       `letters`+ after at most one other character: a space, or any of `lead` but CR, LF
     digits        N+ after at most one space; or `digits` of N, without the space
     punctuation   a space or none, then one or more of `others`; then [\r\n]* with TFM__WORD_TRAIL, and
                   slashes too with TFM__WORD_SLASH
     newlines      S*[\r\n]+, only with TFM__WORD_NEWLINES
     space         S+ up to the last one before the next word, which that takes; else S+
   What none of them matches is one word up to where one does. */
enum { TFM__WORD_CODE = 1, TFM__WORD_CONTRACTION = 2,
       TFM__WORD_SUFFIX = 4,            /* contractions end the letters before them instead */
       TFM__WORD_ANY_CASE = 8,          /* contractions in capitals too */
       TFM__WORD_CAMEL = 16,            /* an ASCII capital behind another letter begins a word: see tfm__text_camel */
       TFM__WORD_NEWLINES = 32, TFM__WORD_SLASH = 64, TFM__WORD_TRAIL = 128 };

typedef struct tfm__word_rule { uint8_t letters, lead, others, digits, flags; } tfm__word_rule;

enum { TFM__WORDS_GPT2 = 1, TFM__WORDS_LLAMA3, TFM__WORDS_QWEN2, TFM__WORDS_QWEN35, TFM__WORDS_GPT4O, TFM__WORDS_TEKKEN,
       TFM__WORDS_DEEPSEEK3, TFM__WORDS_SEED, TFM__CUT_NEWLINE, TFM__CUT_DIGIT, TFM__CUT_DIGITS, TFM__CUT_TO_THREE,
       TFM__CUT_THREE,
       TFM__CUT_PUNCT, TFM__CUT_FALCON, TFM__CUT_LETTERS, TFM__CUT_CODER_PUNCT, TFM__CUT_DEEPSEEK_LETTERS,
       TFM__CUT_DEEPSEEK_PUNCT, TFM__CUT_CJK, TFM__CUT_CJK3, TFM__CUT_TAIL };

static const tfm__word_rule tfm__word_rules[] = {
    /* letters, lead, others, digits, flags */
    /* GPT2 */
    {TFM__LETTER, TFM__ONLY_SPACE, TFM__OTHERS | TFM__MARK, 0, TFM__WORD_CONTRACTION},
    /* LLAMA3 */
    {TFM__LETTER, TFM__ANY_LEAD, TFM__OTHERS | TFM__MARK, 3,
     TFM__WORD_CONTRACTION | TFM__WORD_ANY_CASE | TFM__WORD_NEWLINES | TFM__WORD_TRAIL},
    /* QWEN2 */
    {TFM__LETTER, TFM__ANY_LEAD, TFM__OTHERS | TFM__MARK, 1,
     TFM__WORD_CONTRACTION | TFM__WORD_ANY_CASE | TFM__WORD_NEWLINES | TFM__WORD_TRAIL},
    /* QWEN35 */
    {TFM__LETTER | TFM__MARK, TFM__ANY_LEAD, TFM__OTHERS, 1,
     TFM__WORD_CONTRACTION | TFM__WORD_ANY_CASE | TFM__WORD_NEWLINES | TFM__WORD_TRAIL},
    /* GPT4O */
    {TFM__LETTER, TFM__ANY_LEAD, TFM__OTHERS | TFM__MARK, 3,
     TFM__WORD_SUFFIX | TFM__WORD_ANY_CASE | TFM__WORD_CAMEL | TFM__WORD_NEWLINES | TFM__WORD_TRAIL | TFM__WORD_SLASH},
    /* TEKKEN */
    {TFM__LETTER, TFM__ANY_LEAD, TFM__OTHERS | TFM__MARK, 1,
     TFM__WORD_CAMEL | TFM__WORD_NEWLINES | TFM__WORD_TRAIL | TFM__WORD_SLASH},
    /* DEEPSEEK3 */
    {TFM__LETTER | TFM__MARK, TFM__ANY_LEAD & ~(TFM__PUNCT | TFM__SYMBOL), TFM__PUNCT | TFM__SYMBOL, 3,
     TFM__WORD_CODE | TFM__WORD_NEWLINES | TFM__WORD_TRAIL},
    /* SEED */
    {TFM__LETTER, TFM__ANY_LEAD, TFM__OTHERS | TFM__MARK, 1,
     TFM__WORD_CONTRACTION | TFM__WORD_ANY_CASE | TFM__WORD_NEWLINES}
};

/* A cut: from `least` to `most` characters (0: any number) of the classes or in the ranges, which are
   pairs of the first and the last; before them at most one of white space, with `space`. */
typedef struct tfm__cut {
    uint8_t classes, least, most;
    bool space, tail;                   /* tail: only at the end of the piece */
    const uint32_t *ranges;             /* ends with 0; NULL: none. White space beyond ASCII is in no range */
} tfm__cut;

static const uint32_t tfm__range_newline[] = {10, 10, 13, 13, 0};
static const uint32_t tfm__range_digit[] = {'0', '9', 0};
static const uint32_t tfm__range_signs[] = {'$', '$', '+', '+', '<', '>', '^', '^', '|', '|', '~', '~', 0};
static const uint32_t tfm__range_falcon[] = {'$', '$', '+', '+', '<', '>', '^', '^', '`', '`', '|', '|', '~', '~', 0};
static const uint32_t tfm__range_cjk[] = {0x800, 0x9fa5, 0xac00, 0xd7ff, 0};
static const uint32_t tfm__range_cjk3[] = {0x3040, 0x30ff, 0x4e00, 0x9fa5, 0};
static const uint32_t tfm__range_deepseek_punct[] = {
    0x21, 0x2f, 0x3a, 0x7e, 0x2018, 0x201f, 0x3000, 0x3002, 0xff01, 0xff0f, 0xff1a, 0xff5e, 0};
/* The letters with capitals that DeepSeek LLM's rule names, one by one, are data of that tokenizer. */
static const uint32_t tfm__range_deepseek[] = {
    0x41, 0x5a, 0x61, 0x7a, 0xb5, 0xb5, 0xc0, 0xd6, 0xd8, 0xf6, 0xf8, 0x1ba, 0x1bc, 0x1bf, 0x1c4, 0x293, 0x295, 0x2af,
    0x370, 0x373, 0x376, 0x377, 0x37b, 0x37d, 0x37f, 0x37f, 0x386, 0x386, 0x388, 0x38a, 0x38c, 0x38c, 0x38e, 0x3a1,
    0x3a3, 0x3f5, 0x3f7, 0x481, 0x48a, 0x52f, 0x531, 0x556, 0x10a0, 0x10c5, 0x13a0, 0x13f5, 0x13f8, 0x13fd,
    0x1c90, 0x1cba, 0x1cbd, 0x1cbf, 0x1d00, 0x1d2b, 0x1d6b, 0x1d77, 0x1d79, 0x1d9a, 0x1e00, 0x1f15, 0x1f18, 0x1f1d,
    0x1f20, 0x1f45, 0x1f48, 0x1f4d, 0x1f50, 0x1f57, 0x1f59, 0x1f59, 0x1f5b, 0x1f5b, 0x1f5d, 0x1f5d, 0x1f5f, 0x1f7d,
    0x1f80, 0x1fb4, 0x1fb6, 0x1fbc, 0x1fbe, 0x1fbe, 0x1fc2, 0x1fc4, 0x1fc6, 0x1fcc, 0x1fd0, 0x1fd3, 0x1fd6, 0x1fdb,
    0x1fe0, 0x1fec, 0x1ff2, 0x1ff4, 0x1ff6, 0x1ffc, 0x2102, 0x2102, 0x2107, 0x2107, 0x210a, 0x2113, 0x2115, 0x2115,
    0x2119, 0x211d, 0x2124, 0x2124, 0x2126, 0x2126, 0x2128, 0x2128, 0x212a, 0x212d, 0x212f, 0x2134, 0x2139, 0x2139,
    0x213c, 0x213f, 0x2145, 0x2149, 0x214e, 0x214e, 0x2183, 0x2184, 0x2c00, 0x2c7b, 0x2c7e, 0x2ce4, 0x2ceb, 0x2cee,
    0x2cf2, 0x2cf3, 0xa640, 0xa66d, 0xa680, 0xa69b, 0xa722, 0xa76f, 0xa771, 0xa787, 0xa78b, 0xa78e, 0xab70, 0xabbf,
    0xfb00, 0xfb06, 0xfb13, 0xfb17, 0xff21, 0xff3a, 0xff41, 0xff5a, 0x10400, 0x1044f, 0x104b0, 0x104d3,
    0x104d8, 0x104fb, 0x10c80, 0x10cb2, 0x10cc0, 0x10cf2, 0x118a0, 0x118df, 0x1e900, 0x1e943, 0};

static const tfm__cut tfm__cuts[] = {   /* from TFM__CUT_NEWLINE on */
    /* classes    least most space  tail   ranges */
    {0,            1,    1,   false, false, tfm__range_newline},
    {TFM__NUMBER,  1,    1,   false, false, NULL},
    {TFM__NUMBER,  1,    0,   false, false, NULL},
    {TFM__NUMBER,  1,    3,   false, false, NULL},
    {0,            3,    3,   false, false, tfm__range_digit},
    {TFM__PUNCT,   1,    0,   false, false, tfm__range_signs},
    {TFM__PUNCT,   1,    0,   false, false, tfm__range_falcon},
    {TFM__LETTER,  1,    0,   true,  false, NULL},
    {TFM__PUNCT,   1,    0,   true,  false, NULL},
    {0,            1,    0,   true,  false, tfm__range_deepseek},
    {0,            1,    0,   true,  false, tfm__range_deepseek_punct},
    {0,            1,    0,   false, false, tfm__range_cjk},
    {0,            1,    0,   false, false, tfm__range_cjk3},
    {TFM__SPACE,   1,    0,   false, true,  NULL}
};

enum { TFM__SPLIT_STEPS = 6 };

typedef struct tfm__splitter {
    const char *names;                  /* tokenizer.ggml.pre, with a space between two */
    bool whole;                         /* a word that is a token is taken before any merge */
    bool bos;                           /* BOS is added when the file does not say */
    uint8_t steps[TFM__SPLIT_STEPS];    /* up to the first 0 */
} tfm__splitter;

static const tfm__splitter tfm__splitters[] = {
    {"gpt-2 phi-2 mpt olmo jais gigachat mellum exaone4 trillion granite-docling a.x-4.0", false, false,
     {TFM__WORDS_GPT2}},
    {"smollm starcoder refact command-r codeshell exaone minerva-7b mellum2", false, false,
     {TFM__CUT_DIGIT, TFM__WORDS_GPT2}},
    {"llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2", true, true, {TFM__WORDS_LLAMA3}},
    {"dbrx smaug-bpe glm4 chatglm-bpe", false, false, {TFM__WORDS_LLAMA3}},
    {"qwen2 deepseek-r1-qwen stablelm2 hunyuan megrez kormo f2llmv2 solar-open grok-2", false, false,
     {TFM__WORDS_QWEN2}},
    {"qwen35", false, false, {TFM__WORDS_QWEN35}},
    {"seed-coder", false, false, {TFM__WORDS_SEED}},
    {"minicpm5", true, false, {TFM__CUT_TO_THREE, TFM__WORDS_LLAMA3}},
    {"gpt-4o llama4 kanana2 minimax-m2", false, false, {TFM__WORDS_GPT4O}},
    {"tekken", true, true, {TFM__WORDS_TEKKEN}},
    {"deepseek-v3 hunyuan-dense joyai-llm", false, false, {TFM__CUT_TO_THREE, TFM__CUT_CJK3, TFM__WORDS_DEEPSEEK3}},
    {"deepseek-coder", false, false,
     {TFM__CUT_NEWLINE, TFM__CUT_LETTERS, TFM__CUT_CODER_PUNCT, TFM__CUT_CJK, TFM__CUT_DIGIT}},
    {"deepseek-llm", false, false, {TFM__CUT_NEWLINE, TFM__CUT_DEEPSEEK_LETTERS, TFM__CUT_DEEPSEEK_PUNCT,
                                    TFM__CUT_TAIL, TFM__CUT_CJK, TFM__CUT_DIGITS}},
    {"falcon", false, false, {TFM__CUT_FALCON, TFM__WORDS_GPT2, TFM__CUT_THREE}},
    {"default", false, false, {TFM__CUT_PUNCT, TFM__WORDS_GPT2, TFM__CUT_DIGITS, TFM__CUT_THREE}}
};

/* Tokens that end a text or a turn whatever the file says of them, as the reference has it. */
static const char *const tfm__end_names[] = {
    "<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|end|>", "<|end_of_text|>", "<end_of_turn>", "</s>",
    "<|eom_id|>", "<EOT>", "< EOT >", "_<EOT>"
};

typedef struct tfm__merge { int32_t right, rank; } tfm__merge;

/* How text is normalized before "t5" takes it apart, as SentencePiece compiles it: a trie whose keys are
   replaced by texts. A trie unit is 32 bits, little-endian: its label (bits 0 to 7, and 31 as the mark
   of a value), whether a value lies at its first child (bit 8), and how far its children are, xored
   to its place (bits 10 to 30, times 256 if bit 9 is set). */
typedef struct tfm__charsmap {
    const uint8_t *units, *texts;       /* in the file; a value is a text's place, which ends with NUL */
    uint32_t unit_count, text_bytes;
    uint32_t longest;                   /* bytes of the longest text */
} tfm__charsmap;

struct tfm_tokenizer {
    tfm_allocator allocator;
    bool owned;                         /* the memory is the allocator's */
    bool add_bos, add_eos, space_prefix;
    bool lower, strip;                  /* bert, word: text is made lower case; bert: and loses its accents */
    tfm_string drop, split, alone, letters;                 /* word: characters that are none, end one, are one,
                                                               or, unless empty, alone make one up */
    bool words;                         /* llama: no plain token has a space behind another character */
    bool merge_spaces;                  /* t5: spaces at either end go, and of several in a row all but one */
    int model, spell;                   /* tokenizer.ggml.model, and how it spells its tokens */
    const tfm__splitter *splitter;      /* gpt2 only; NULL: unknown, text cannot be split */
    tfm_string pre;                     /* its name in the file; empty: none there */
    int32_t count, bos, eos, unknown;   /* ids: -1 is none */
    size_t longest;                     /* bytes of the longest token, as spelled */
    const uint8_t *text;                /* the array of token texts in the file */
    const uint8_t *score;               /* llama, t5: count floats in the file, or NULL: all 0 */
    float unknown_score;                /* t5: of a character that no token stands for */
    tfm__charsmap charsmap;             /* t5 */
    uint32_t *offset;                   /* [count] of a token's text in `text`; 8 bytes of length before it */
    uint8_t *kind;                      /* [count] */
    uint32_t *slot;                     /* text -> id, open addressing; see tfm__slot_next */
    uint32_t slot_mask;
    /* Merges by their left token: pair[first[left]] up to pair[first[left + 1]], sorted by right. */
    int32_t *first;                     /* [count + 1] */
    tfm__merge *pair;                   /* [merges] */
    int32_t *result;                    /* [merges] by rank: the token that the merge makes, or -1 */
    int32_t merges;
    size_t longest_special;
    uint8_t starts[2][32];              /* bits: first bytes of user-defined, of all special tokens */
    int32_t byte[256];                  /* id of the token for one byte, or -1 */
};

/* Characters. */

/* The character at p and its length in bytes; an invalid byte is U+FFFD of length 1. */
static uint32_t tfm__utf8_decode(const uint8_t *p, size_t n, int *length) {
    int k = tfm__utf8_need(p, n);
    *length = 1;
    if (k == 1) return p[0];
    if (k == 0 || (size_t)k > n) return 0xfffd;
    *length = k;
    uint32_t c = p[0] & (0xffu >> (k + 1));
    for (int i = 1; i < k; i++) c = c << 6 | (p[i] & 0x3fu);
    return c;
}

TFMDEF size_t tfm_utf8_feed(tfm_utf8 *u, const char *bytes, size_t size, bool replace, bool final, char *out) {
    size_t n = 0;
    if (!u || !out || (size && !bytes)) return 0;
    if (u->count < 0 || u->count > 3) u->count = 0;
    for (size_t i = 0; i < size || (final && u->count);) {
        bool flush = i == size;
        if (!flush) u->pending[u->count++] = (unsigned char)bytes[i++];
        int length = tfm__utf8_need(u->pending, (size_t)u->count);
        if (length > u->count && !flush) continue;
        int take = length ? u->count : u->count > 1 ? u->count - 1 : 1;         /* the last byte may begin anew */
        if (length == u->count || !replace) memcpy(out + n, u->pending, (size_t)take);
        else memcpy(out + n, "\xef\xbf\xbd", 3);
        n += length == u->count || !replace ? (size_t)take : 3;
        i -= (size_t)(u->count - take);
        u->count = 0;
    }
    return n;
}

typedef struct tfm__unicode_row { uint32_t first; const char *runs; } tfm__unicode_row;
static uint32_t tfm__unicode_class(uint32_t c), tfm__unicode_lower_of(uint32_t c), tfm__unicode_bare_of(uint32_t c);

TFM__INLINE uint32_t tfm__char_class(uint32_t c) {
    if ((c | 32) - 'a' < 26) return TFM__LETTER;
    if (c - '0' < 10) return TFM__NUMBER;
    if (c == ' ' || c - 9 < 5) return TFM__SPACE;
    return tfm__unicode_class(c);
}

/* Spelling: what the next character of a token's text stands for. Gives the number of bytes read;
   *value is the byte meant, or -1 if the spelling has no such character (it is taken as it is). */
static size_t tfm__spelled(int spell, const uint8_t *p, size_t n, int *value) {
    *value = p[0];
    if (spell == TFM__SPELL_SPACE || spell == TFM__SPELL_WORD) {
        if (p[0] == ' ') *value = -1;
        if (p[0] != 0xe2 || n < 3 || p[1] != 0x96 || p[2] != 0x81) return 1;
        *value = ' ';
        return 3;
    }
    if (spell == TFM__SPELL_PLAIN || (p[0] > 0x20 && p[0] < 0x7f)) return 1;
    /* GPT-2's alphabet: printable Latin-1 stands for itself, U+0100 on for the other 68 bytes, in order. */
    int length;
    uint32_t c = tfm__utf8_decode(p, n, &length);
    *value = -1;
    if (length == 2 && c >= 0xa1 && c <= 0xff && c != 0xad) *value = (int)c;
    else if (c >= 0x100 && c < 0x100 + 33) *value = (int)(c - 0x100);           /* 0..32 */
    else if (c >= 0x121 && c < 0x143) *value = (int)(c - 0x121 + 127);          /* 127..160 */
    else if (c == 0x143) *value = 0xad;
    return (size_t)length;
}

/* Token texts and the table from text to id. */

static tfm_string tfm__token_text(const tfm_tokenizer *t, int32_t id) {
    tfm_string s;
    uint64_t size;
    s.data = (const char *)t->text + t->offset[id];
    memcpy(&size, s.data - 8, 8);       /* GGUF strings have their length before them */
    s.size = (size_t)size;
    return s;
}
static int tfm__token_kind(const tfm_tokenizer *t, int32_t id) { return t->kind[id] & TFM__TOKEN_KIND; }
/* Is the token cut out of text before anything else? Control and unknown tokens only if `all`. */
static bool tfm__token_special(const tfm_tokenizer *t, int32_t id, bool all) {
    int kind = tfm__token_kind(t, id);
    return kind == TFM__TOKEN_USER || (all && (kind == TFM__TOKEN_CONTROL || kind == TFM__TOKEN_UNKNOWN));
}
/* May plain text become this token? */
static bool tfm__token_plain(const tfm_tokenizer *t, int32_t id) {
    return tfm__token_kind(t, id) != TFM__TOKEN_CONTROL && tfm__token_kind(t, id) != TFM__TOKEN_UNKNOWN;
}

/* Hashes (FNV-1a) are of the bytes that a spelling stands for, so that text and token meet. */
static const uint32_t tfm__hash_start = 2166136261u;
TFM__INLINE uint32_t tfm__hash_byte(uint32_t h, uint8_t b) { return (h ^ b) * 16777619u; }
TFM__INLINE uint32_t tfm__hash_end(uint32_t h) {
    h ^= h >> 15;
    h *= 0x2c1b3c6du;
    return h ^ h >> 13;
}
/* Adds one character as tfm__spelled read it, and a whole spelled text. */
static uint32_t tfm__hash_spelled(uint32_t h, const uint8_t *p, size_t n, int value) {
    if (value >= 0) return tfm__hash_byte(h, (uint8_t)value);
    for (size_t i = 0; i < n; i++) h = tfm__hash_byte(h, p[i]);
    return h;
}
static uint32_t tfm__hash_text(uint32_t h, int spell, tfm_string s) {
    const uint8_t *p = (const uint8_t *)s.data;
    for (size_t i = 0, n; i < s.size; i += n) {
        int value = p[i];               /* of printable ASCII in every spelling */
        n = value > 0x20 && value < 0x7f ? 1 : tfm__spelled(spell, p + i, s.size - i, &value);
        h = tfm__hash_spelled(h, p + i, n, value);
    }
    return h;
}
/* Does the token stand for exactly these bytes? */
static bool tfm__token_means(const tfm_tokenizer *t, int32_t id, const uint8_t *p, size_t n) {
    tfm_string s = tfm__token_text(t, id);
    const uint8_t *q = (const uint8_t *)s.data;
    size_t i = 0, at = 0;
    while (i < s.size && at < n) {
        int value;
        i += tfm__spelled(t->spell, q + i, s.size - i, &value);
        if (value != p[at++]) return false;
    }
    return i == s.size && at == n;
}
/* Is the token spelled as these two parts in a row? */
static bool tfm__token_is(const tfm_tokenizer *t, int32_t id, tfm_string a, tfm_string b) {
    tfm_string s = tfm__token_text(t, id);
    return s.size == a.size + b.size && (!a.size || memcmp(s.data, a.data, a.size) == 0) &&
           (!b.size || memcmp(s.data + a.size, b.data, b.size) == 0);
}

/* A slot holds id + 1 in the bits of slot_mask and, above them, those bits of the hash: most
   mismatches are seen without looking at the token. 0 is an empty slot; there always is one.
   This gives the next id from *at on that may be meant, or -1. */
static int32_t tfm__slot_next(const tfm_tokenizer *t, uint32_t h, uint32_t *at) {
    for (;; ++*at) {
        uint32_t s = t->slot[*at & t->slot_mask];
        if (!s || !((s ^ h) & ~t->slot_mask)) { ++*at; return (int32_t)(s & t->slot_mask) - 1; }
    }
}
static int32_t tfm__find_hashed(const tfm_tokenizer *t, uint32_t h, tfm_string a, tfm_string b) {
    uint32_t at = h;
    int32_t id = tfm__slot_next(t, h, &at);
    while (id >= 0 && !tfm__token_is(t, id, a, b)) id = tfm__slot_next(t, h, &at);
    return id;
}
static int32_t tfm__find_spelled(const tfm_tokenizer *t, tfm_string a, tfm_string b) {
    uint32_t h = tfm__hash_text(tfm__hash_text(tfm__hash_start, t->spell, a), t->spell, b);
    return tfm__find_hashed(t, tfm__hash_end(h), a, b);
}
static int32_t tfm__find_hashed_bytes(const tfm_tokenizer *t, uint32_t h, const uint8_t *p, size_t n) {
    uint32_t at = h;
    int32_t id = tfm__slot_next(t, h, &at);
    while (id >= 0 && !(tfm__token_plain(t, id) && tfm__token_means(t, id, p, n))) id = tfm__slot_next(t, h, &at);
    return id;
}
static int32_t tfm__find_bytes(const tfm_tokenizer *t, const uint8_t *p, size_t n) {
    uint32_t h = tfm__hash_start;
    if (n > t->longest) return -1;
    for (size_t i = 0; i < n; i++) h = tfm__hash_byte(h, p[i]);
    return tfm__find_hashed_bytes(t, tfm__hash_end(h), p, n);
}
/* Texts can be made up so that their hashes meet, and every search walks past all of them. No run of
   full slots may be longer than this; in a full table of 10^6 random texts the longest has some 2000. */
enum { TFM__SLOT_RUN = 8192 };

/* Empty tokens are left out, and of equal ones all but the first. False: the run is too long. */
static bool tfm__slot_add(tfm_tokenizer *t, int32_t id) {
    tfm_string s = tfm__token_text(t, id), none = tfm__str(NULL);
    uint32_t h = tfm__hash_end(tfm__hash_text(tfm__hash_start, t->spell, s)), at = h;
    if (!s.size || tfm__find_hashed(t, h, s, none) >= 0) return true;
    while (t->slot[at & t->slot_mask]) at++;
    t->slot[at & t->slot_mask] = (h & ~t->slot_mask) | ((uint32_t)id + 1);
    return at - h < TFM__SLOT_RUN;
}
static bool tfm__slot_runs_ok(const tfm_tokenizer *t) {
    uint32_t run = 0;
    for (uint64_t i = 0; i <= (uint64_t)t->slot_mask + TFM__SLOT_RUN; i++) {         /* around the end */
        run = t->slot[i & t->slot_mask] ? run + 1 : 0;
        if (run >= TFM__SLOT_RUN) return false;
    }
    return true;
}

/* The byte that a token spelled <0xNN> stands for, or -1. */
static int tfm__byte_name(tfm_string s) {
    int value = 0;
    if (s.size != 6 || memcmp(s.data, "<0x", 3) != 0 || s.data[5] != '>') return -1;
    for (int i = 3; i < 5; i++) {
        char ch = s.data[i];
        int digit = ch >= '0' && ch <= '9' ? ch - '0' : ch >= 'A' && ch <= 'F' ? ch - 'A' + 10
                  : ch >= 'a' && ch <= 'f' ? ch - 'a' + 10 : -1;
        if (digit < 0) return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* Loading. First everything is read and counted, then tables are carved, then filled. */

typedef struct tfm__vocab_keys { tfm_value tokens, types, merges; } tfm__vocab_keys;    /* data NULL: absent */

static bool tfm__vocab_array(const tfm_file *f, const char *key, tfm_value_type element, uint64_t count, tfm_value *v,
                             tfm_error *e) {
    if (!tfm_file_meta(f, key, v)) { memset(v, 0, sizeof *v); return true; }
    bool bytes = element == TFM_VALUE_U8 && v->element == TFM_VALUE_I8;
    if (v->type != TFM_VALUE_ARRAY || (v->element != element && !bytes))
        return tfm__fail(e, TFM_MALFORMED, "%s: not an array of %s", key,
                         element == TFM_VALUE_STRING ? "strings" : element == TFM_VALUE_F32 ? "f32 numbers" :
                         element == TFM_VALUE_U8 ? "bytes" : "i32 numbers");
    if (v->count >= INT32_MAX || v->size >= UINT32_MAX)
        return tfm__fail(e, TFM_UNSUPPORTED, "%s: %u elements in %u bytes are too many", key, v->count,
                         (uint64_t)v->size);
    if (!count || v->count == count) return true;
    return tfm__fail(e, TFM_MISMATCH, "%s has %u elements, tokenizer.ggml.tokens has %u", key, v->count, count);
}
/* A key of another type, or an id outside of the vocabulary, counts as absent. */
static int32_t tfm__vocab_id(const tfm_file *f, const char *key, int32_t count, int32_t absent) {
    tfm_value v;
    uint64_t id;
    if (absent >= count) absent = -1;
    return tfm_file_meta(f, key, &v) && tfm_value_u64(&v, &id) && id < (uint64_t)count ? (int32_t)id : absent;
}
static bool tfm__vocab_flag(const tfm_file *f, const char *key, bool absent) {
    tfm_value v;
    bool flag;
    return tfm_file_meta(f, key, &v) && tfm_value_bool(&v, &flag) ? flag : absent;
}

/* Is the name one of a list with a space between two? */
static bool tfm__str_listed(tfm_string name, const char *list) {
    for (size_t n; *list; list += n + (list[n] == ' ')) {
        for (n = 0; list[n] && list[n] != ' '; n++) {}
        if (n == name.size && memcmp(list, name.data, n) == 0) return true;
    }
    return false;
}
static bool tfm__vocab_model(tfm_tokenizer *t, const tfm_file *f, tfm_error *e) {
    tfm_value v;
    tfm_string name;
    if (!tfm_file_meta(f, "tokenizer.ggml.model", &v))
        return tfm__fail(e, TFM_UNSUPPORTED, "the file has no tokenizer (tokenizer.ggml.model)");
    if (!tfm_value_string(&v, &name)) return tfm__fail(e, TFM_MALFORMED, "tokenizer.ggml.model: not a string");
    const int models = sizeof tfm__vocab_models / sizeof *tfm__vocab_models;
    while (t->model < models && !tfm__str_eq(name, tfm__vocab_models[t->model].name)) t->model++;
    if (t->model == models)
        return tfm__fail(e, TFM_UNSUPPORTED, "tokenizer.ggml.model '%q' is not gpt2, llama, t5, bert, char or word",
                         &name);
    t->spell = tfm__vocab_models[t->model].spell;
    if (t->model != TFM__VOCAB_GPT2) return true;
    if (!tfm_file_meta(f, "tokenizer.ggml.pre", &v)) return true;   /* tfm_tokenize will refuse, all else works */
    if (!tfm_value_string(&v, &t->pre)) return tfm__fail(e, TFM_MALFORMED, "tokenizer.ggml.pre: not a string");
    for (size_t i = 0; i < sizeof tfm__splitters / sizeof *tfm__splitters; i++)
        if (tfm__str_listed(t->pre, tfm__splitters[i].names)) t->splitter = &tfm__splitters[i];
    return true;
}

static uint8_t tfm__vocab_kind(const tfm_tokenizer *t, const tfm__vocab_keys *keys, int32_t id, tfm_string s) {
    int32_t type = TFM__TOKEN_NORMAL;
    bool byte = t->spell != TFM__SPELL_PLAIN && tfm__byte_name(s) >= 0;
    bool marked = s.size > 3 && (s.data[0] == '<' || s.data[0] == '_');         /* as all of these are */
    for (size_t i = 0; marked && i < sizeof tfm__end_names / sizeof *tfm__end_names; i++)
        if (tfm__str_eq(s, tfm__end_names[i])) return TFM__TOKEN_CONTROL | TFM__TOKEN_END;
    if (keys->types.data) memcpy(&type, keys->types.data + (size_t)id * 4, 4);
    else if (byte && t->spell == TFM__SPELL_SPACE) type = TFM__TOKEN_BYTE;
    switch (type) {
        case TFM__TOKEN_UNKNOWN: case TFM__TOKEN_CONTROL: case TFM__TOKEN_USER: return (uint8_t)type;
        case TFM__TOKEN_UNUSED: return (uint8_t)(t->model == TFM__VOCAB_T5 ? TFM__TOKEN_UNUSED : TFM__TOKEN_NORMAL);
        case TFM__TOKEN_BYTE: return (uint8_t)(byte ? TFM__TOKEN_BYTE : TFM__TOKEN_NORMAL);
        default: return TFM__TOKEN_NORMAL;
    }
}

/* The special tokens and what is added to text, with what holds when the file does not say. */
static void tfm__vocab_special(tfm_tokenizer *t, const tfm_file *f) {
    bool t5 = t->model == TFM__VOCAB_T5, llama = t->model == TFM__VOCAB_LLAMA, bert = t->model == TFM__VOCAB_BERT;
    int32_t n = t->count;
    t->bos = tfm__vocab_id(f, "tokenizer.ggml.bos_token_id", n, llama ? 1 : bert ? 101 : -1);
    t->eos = tfm__vocab_id(f, "tokenizer.ggml.eos_token_id", n, llama ? 2 : bert ? 102 : t5 ? 1 : -1);
    t->unknown = tfm__vocab_id(f, "tokenizer.ggml.unknown_token_id", n, llama ? 0 : bert ? 100 : t5 ? 2 : -1);
    if (bert) {                         /* CLS and SEP; that key is spelled so in real files */
        t->bos = tfm__vocab_id(f, "tokenizer.ggml.cls_token_id", n, t->bos);
        t->eos = tfm__vocab_id(f, "tokenizer.ggml.seperator_token_id", n, t->eos);
    }
    bool adds = llama || bert || (t->splitter && t->splitter->bos);
    t->add_bos = tfm__vocab_flag(f, "tokenizer.ggml.add_bos_token", adds) && t->bos >= 0;
    t->add_eos = tfm__vocab_flag(f, bert ? "tokenizer.ggml.add_sep_token" : "tokenizer.ggml.add_eos_token",
                                 bert || t5) && t->eos >= 0;
    t->space_prefix = (llama || t5) && tfm__vocab_flag(f, "tokenizer.ggml.add_space_prefix", llama);
    t->merge_spaces = t5 && tfm__vocab_flag(f, "tokenizer.ggml.remove_extra_whitespaces", false);
    t->lower = bert && tfm__vocab_flag(f, "tokenizer.ggml.normalizer.lowercase", true);
    t->strip = bert && tfm__vocab_flag(f, "tokenizer.ggml.normalizer.strip_accents", t->lower);
    if (t->model != TFM__VOCAB_WORD) return;
    static const char *const keys[4] = { "tokenizer.word.drop", "tokenizer.word.split", "tokenizer.word.alone",
                                         "tokenizer.word.letters" };
    tfm_string *sets[4] = { &t->drop, &t->split, &t->alone, &t->letters };
    tfm_value v;
    for (int i = 0; i < 4; i++)
        if (!tfm_file_meta(f, keys[i], &v) || !tfm_value_string(&v, sets[i])) *sets[i] = tfm__str("");
    t->lower = tfm__vocab_flag(f, "tokenizer.word.lowercase", true);
}

/* The length of the trie in bytes, the trie, the texts. */
static bool tfm__vocab_charsmap(tfm_tokenizer *t, const tfm_file *f, tfm_error *e) {
    static const char key[] = "tokenizer.ggml.precompiled_charsmap";
    tfm__charsmap *m = &t->charsmap;
    tfm_value v;
    if (t->model != TFM__VOCAB_T5) return true;
    if (!tfm__vocab_array(f, key, TFM_VALUE_U8, 0, &v, e)) return false;
    if (!v.count) return true;
    uint64_t trie = v.count < 4 ? 0 : tfm__little(v.data, 4);
    if (v.count < 4 || trie % 4 || trie + 4 >= v.count || v.data[v.count - 1])
        return tfm__fail(e, TFM_MALFORMED, "%s: %u bytes, its trie %u", key, v.count, trie);
    m->units = v.data + 4;
    m->unit_count = (uint32_t)(trie / 4);
    m->texts = m->units + trie;
    m->text_bytes = (uint32_t)(v.count - 4 - trie);
    for (uint32_t i = 0, length = 0; i < m->text_bytes; i++) {
        length = m->texts[i] ? length + 1 : 0;
        if (length > m->longest) m->longest = length;
    }
    if (m->longest <= TFM__SPECIAL_BYTES) return true;
    return tfm__fail(e, TFM_UNSUPPORTED, "%s: a text of %u bytes, at most %i are read", key, (uint64_t)m->longest,
                     (int64_t)TFM__SPECIAL_BYTES);
}

/* Reads and checks all keys; counts what the tables depend on. */
static bool tfm__vocab_scan(tfm_tokenizer *t, tfm__vocab_keys *keys, const tfm_file *f, tfm_error *e) {
    tfm_value scores, array, v;
    memset(t, 0, sizeof *t);
    if (!f) return tfm__fail(e, TFM_ARGUMENT, "the file is NULL");
    if (!tfm__vocab_model(t, f, e)) return false;
    if (!tfm__vocab_array(f, "tokenizer.ggml.tokens", TFM_VALUE_STRING, 0, &keys->tokens, e)) return false;
    uint64_t n = keys->tokens.count;
    if (!n) return tfm__fail(e, TFM_MALFORMED, "tokenizer.ggml.tokens is missing or empty");
    if (!tfm__vocab_array(f, "tokenizer.ggml.token_type", TFM_VALUE_I32, n, &keys->types, e) ||
        !tfm__vocab_array(f, "tokenizer.ggml.scores", TFM_VALUE_F32, n, &scores, e) ||
        !tfm__vocab_array(f, "tokenizer.ggml.merges", TFM_VALUE_STRING, 0, &keys->merges, e)) return false;
    t->count = (int32_t)keys->tokens.count;
    t->text = keys->tokens.data;
    t->score = scores.data;
    t->merges = t->spell == TFM__SPELL_BYTES ? (int32_t)keys->merges.count : 0;
    array = keys->tokens;
    for (int32_t id = 0; id < t->count; id++) {
        tfm_string s;
        if (!tfm_value_next(&array, &v) || !tfm_value_string(&v, &s))
            return tfm__fail(e, TFM_MALFORMED, "tokenizer.ggml.tokens: element %i cannot be read", (int64_t)id);
        if (s.size > t->longest) t->longest = s.size;
    }
    tfm__vocab_special(t, f);
    return tfm__vocab_charsmap(t, f, e);
}

static tfm_tokenizer *tfm__vocab_carve(tfm__carver *k, tfm_tokenizer *t) {
    size_t count = (size_t)t->count, slots = 16;
    while (slots - slots / 8 < count && slots <= UINT32_MAX / 2) slots *= 2;
    tfm_tokenizer *self = (tfm_tokenizer *)tfm__carve(k, 1, sizeof *t);
    t->slot_mask = (uint32_t)(slots - 1);
    t->slot = (uint32_t *)tfm__carve(k, slots, sizeof *t->slot);
    t->offset = (uint32_t *)tfm__carve(k, count, sizeof *t->offset);
    t->kind = (uint8_t *)tfm__carve(k, count, 1);
    if (t->merges) {
        t->first = (int32_t *)tfm__carve(k, count + 1, sizeof *t->first);
        t->pair = (tfm__merge *)tfm__carve(k, (size_t)t->merges, sizeof *t->pair);
        t->result = (int32_t *)tfm__carve(k, (size_t)t->merges, sizeof *t->result);
    }
    return self;
}

/* Heapsort of merges by right token, then rank: in place, no recursion, n log n on any input. */
static bool tfm__merge_before(tfm__merge a, tfm__merge b) {
    return a.right < b.right || (a.right == b.right && a.rank < b.rank);
}
static void tfm__merge_sift(tfm__merge *p, int32_t root, int32_t n) {
    tfm__merge moved = p[root];
    for (int32_t child; (child = 2 * root + 1) < n; root = child) {
        if (child + 1 < n && tfm__merge_before(p[child], p[child + 1])) child++;
        if (!tfm__merge_before(moved, p[child])) break;
        p[root] = p[child];
    }
    p[root] = moved;
}
static void tfm__merge_sort(tfm__merge *p, int32_t n) {
    for (int32_t i = n / 2 - 1; i >= 0; i--) tfm__merge_sift(p, i, n);
    for (int32_t i = n - 1; i > 0; i--) {
        tfm__merge last = p[i];
        p[i] = p[0];
        p[0] = last;
        tfm__merge_sift(p, 0, i);
    }
}

/* "left right": the parts of a merge. */
static bool tfm__merge_parts(tfm_string m, tfm_string *left, tfm_string *right) {
    const char *space = m.size > 1 ? (const char *)memchr(m.data + 1, ' ', m.size - 1) : NULL;
    if (!space) return false;
    *left = *right = m;
    left->size = (size_t)(space - m.data);
    right->data = space + 1;
    right->size = m.size - left->size - 1;
    return true;
}
/* A merge is ignored if a part is no token, or the union none that text can become: it could never
   end in a token. result[i] holds the left token of merge i until its list has a place for it. */
static bool tfm__fill_merges(tfm_tokenizer *t, const tfm__vocab_keys *keys, tfm_error *e) {
    tfm_value array = keys->merges, v;
    tfm_string m, left, right, none = tfm__str(NULL);
    memset(t->first, 0, ((size_t)t->count + 1) * sizeof *t->first);
    for (int32_t i = 0; i < t->merges; i++) {
        if (!tfm_value_next(&array, &v) || !tfm_value_string(&v, &m))
            return tfm__fail(e, TFM_MALFORMED, "tokenizer.ggml.merges: element %i cannot be read", (int64_t)i);
        t->result[i] = tfm__merge_parts(m, &left, &right) ? tfm__find_spelled(t, left, none) : -1;
        if (t->result[i] >= 0) t->first[t->result[i]]++;
    }
    int32_t sum = 0;
    for (int32_t id = 0; id <= t->count; id++) {
        int32_t n = t->first[id];
        t->first[id] = sum;
        sum += n;
    }
    array = keys->merges;
    for (int32_t i = 0; i < t->merges; i++) {
        int32_t l = t->result[i];
        if (!tfm_value_next(&array, &v) || !tfm_value_string(&v, &m) || l < 0) continue;
        if (!tfm__merge_parts(m, &left, &right)) continue;
        tfm__merge *p = &t->pair[t->first[l]++];
        p->rank = i;
        p->right = tfm__find_spelled(t, right, none);
        t->result[i] = tfm__find_spelled(t, left, right);
        if (t->result[i] < 0 || !tfm__token_plain(t, t->result[i])) p->right = -1;
    }
    memmove(t->first + 1, t->first, (size_t)t->count * sizeof *t->first);       /* ends became begins */
    t->first[0] = 0;
    for (int32_t id = 0; id < t->count; id++)
        tfm__merge_sort(t->pair + t->first[id], t->first[id + 1] - t->first[id]);
    return true;
}

/* U+2581 behind another character? */
static bool tfm__has_inner_space(tfm_string s) {
    for (size_t i = 1; i + 2 < s.size; i++)
        if (!memcmp(s.data + i, "\xe2\x96\x81", 3) && (i < 3 || memcmp(s.data + i - 3, "\xe2\x96\x81", 3))) return true;
    return false;
}
static float tfm__token_score(const tfm_tokenizer *t, int32_t id) {
    float score = 0;
    if (t->score) memcpy(&score, t->score + (size_t)id * 4, 4);
    return score;
}
/* 10 below the least score of a normal token, as SentencePiece has it. */
static void tfm__vocab_unknown_score(tfm_tokenizer *t) {
    float least = TFM__INF;
    for (int32_t id = 0; id < t->count; id++)
        if (tfm__token_kind(t, id) == TFM__TOKEN_NORMAL && tfm__token_score(t, id) < least)
            least = tfm__token_score(t, id);
    t->unknown_score = least - 10;
}
static bool tfm__vocab_fill(tfm_tokenizer *t, const tfm__vocab_keys *keys, const tfm_file *f, tfm_error *e) {
    tfm_value array = keys->tokens, v = array;
    memset(t->slot, 0, ((size_t)t->slot_mask + 1) * sizeof *t->slot);
    for (int b = 0; b < 256; b++) t->byte[b] = -1;
    t->words = true;
    bool spread = true;
    for (int32_t id = 0; id < t->count && spread; id++) {
        tfm_value_next(&array, &v);     /* the scan saw that it can be read */
        t->offset[id] = (uint32_t)(v.data - t->text);
        tfm_string s = tfm__token_text(t, id);
        t->kind[id] = tfm__vocab_kind(t, keys, id, s);
        spread = tfm__slot_add(t, id);
        if (tfm__token_plain(t, id) && tfm__has_inner_space(s)) t->words = false;
        bool named = t->model == TFM__VOCAB_LLAMA ||
                     (t->model == TFM__VOCAB_T5 && tfm__token_kind(t, id) == TFM__TOKEN_BYTE);
        int byte = named ? tfm__byte_name(s) : -1;
        if (byte >= 0 && t->byte[byte] < 0) t->byte[byte] = id;
        if (!s.size || s.size > TFM__SPECIAL_BYTES || !tfm__token_special(t, id, true)) continue;
        uint8_t first = (uint8_t)s.data[0];
        if (s.size > t->longest_special) t->longest_special = s.size;
        t->starts[1][first >> 3] |= (uint8_t)(1 << (first & 7));
        if (tfm__token_special(t, id, false)) t->starts[0][first >> 3] |= (uint8_t)(1 << (first & 7));
    }
    if (!spread || !tfm__slot_runs_ok(t))
        return tfm__fail(e, TFM_UNSUPPORTED, "tokenizer.ggml.tokens: %i texts that are made to collide",
                         (int64_t)t->count);
    for (int b = 0; b < 256 && t->model != TFM__VOCAB_T5; b++) {
        uint8_t one = (uint8_t)b;
        if (t->byte[b] < 0) t->byte[b] = tfm__find_bytes(t, &one, 1);
    }
    if (t->model == TFM__VOCAB_T5) tfm__vocab_unknown_score(t);
    static const char *const ends[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    for (int i = 0; i < 3; i++) {
        int32_t id = i ? tfm__vocab_id(f, ends[i], t->count, -1) : t->eos;
        if (id >= 0) t->kind[id] |= TFM__TOKEN_END;
    }
    return !t->merges || tfm__fill_merges(t, keys, e);
}

/* The three faces: *needed gets the size, and nothing is made, if `make` is false. */
static tfm_tokenizer *tfm__tokenizer_make(const tfm_file *f, const tfm_allocator *a, void *mem, size_t size,
                                          bool make, size_t *needed, tfm_error *e) {
    tfm_tokenizer t;
    tfm__vocab_keys keys;
    tfm__carver k;
    memset(&k, 0, sizeof k);
    *needed = 0;
    if (!tfm__vocab_scan(&t, &keys, f, e)) return NULL;
    tfm__vocab_carve(&k, &t);
    if (k.overflow) tfm__fail(e, TFM_MEMORY, "out of memory: a vocabulary of %i tokens", (int64_t)t.count);
    if (k.overflow) return NULL;
    *needed = k.used;
    k.base = make ? (char *)tfm__object(a, mem, size, k.used, "tokenizer", e) : NULL;
    if (!k.base) return NULL;
    k.size = k.used;
    k.used = 0;
    tfm_tokenizer *self = tfm__vocab_carve(&k, &t);
    *self = t;
    self->owned = mem == NULL;
    if (a) self->allocator = *a;
    if (tfm__vocab_fill(self, &keys, f, e)) return self;
    tfm_tokenizer_free(self);
    return NULL;
}
TFMDEF tfm_tokenizer *tfm_tokenizer_new(const tfm_file *f, const tfm_allocator *allocator, tfm_error *err) {
    tfm_error local;
    tfm_allocator a = tfm__allocator(allocator);
    size_t needed;
    return tfm__tokenizer_make(f, &a, NULL, 0, true, &needed, tfm__begin(err, &local));
}
TFMDEF size_t tfm_tokenizer_size(const tfm_file *f, tfm_error *err) {
    tfm_error local;
    size_t needed;
    tfm__tokenizer_make(f, NULL, NULL, 0, false, &needed, tfm__begin(err, &local));
    return needed;
}
TFMDEF tfm_tokenizer *tfm_tokenizer_in(const tfm_file *f, void *mem, size_t size, tfm_error *err) {
    tfm_error local;
    size_t needed;
    return tfm__tokenizer_make(f, NULL, mem, size, true, &needed, tfm__begin(err, &local));
}
TFMDEF void tfm_tokenizer_free(tfm_tokenizer *t) {
    if (!t || !t->owned) return;
    tfm_allocator a = t->allocator;
    tfm__heap_free(&a, t);
}

/* Splitting text into words. */

typedef struct tfm__text_view { const uint8_t *p; size_t n; } tfm__text_view;          /* a piece of text: up to n */

/* The character at `at`, which is before the end, its class and its length. */
TFM__INLINE uint32_t tfm__text_char(tfm__text_view x, size_t at, uint32_t *kind, size_t *length) {
    int k;
    uint32_t c = tfm__utf8_decode(x.p + at, x.n - at, &k);
    *kind = tfm__char_class(c);
    *length = (size_t)k;
    return c;
}
/* Its class; 0 at the end of the piece. */
static uint32_t tfm__text_peek(tfm__text_view x, size_t at, size_t *length) {
    uint32_t kind;
    *length = 0;
    if (at >= x.n) return 0;
    tfm__text_char(x, at, &kind, length);
    return kind;
}
/* The end of the longest run of characters of the classes, at most `most` of them. */
static size_t tfm__text_run(tfm__text_view x, size_t at, uint32_t classes, size_t most) {
    size_t length;
    for (; most && tfm__text_peek(x, at, &length) & classes; most--) at += length;
    return at;
}
static bool tfm__text_newline(tfm__text_view x, size_t at) { return at < x.n && (x.p[at] == '\n' || x.p[at] == '\r'); }

static size_t tfm__text_contraction(tfm__text_view x, size_t at, const tfm__word_rule *r) {
    if (at + 1 >= x.n || x.p[at] != '\'') return 0;
    uint8_t fold = r->flags & TFM__WORD_ANY_CASE ? 32 : 0;
    uint8_t a = x.p[at + 1] | fold, b = at + 2 < x.n ? x.p[at + 2] | fold : 0;
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
    return (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}
/* White space from `at` on: to the last newline; else all of it, less the last before a word. */
static size_t tfm__text_spaces(tfm__text_view x, size_t at, bool newlines) {
    size_t end = at, last = at, newline = at, length;
    uint32_t kind;
    while ((kind = tfm__text_peek(x, end, &length)) & TFM__SPACE) {
        last = end;
        end += length;
        if (newlines && tfm__text_newline(x, last)) newline = end;
    }
    if (newline > at) return newline;
    return kind && last > at ? last : end;
}
/* Letters that are no ASCII small ones, then letters that are no ASCII capitals, at least one: letters
   beyond ASCII are both, so the last of them may have to end the first run. Without such an end,
   the first run alone. */
static size_t tfm__text_camel(tfm__text_view x, size_t at) {
    size_t length, shared = 0;
    for (; tfm__text_peek(x, at, &length) & TFM__LETTER && (uint32_t)x.p[at] - 'a' >= 26; at += length)
        if (length > 1) shared = at + length;
    if (!(tfm__text_peek(x, at, &length) & TFM__LETTER)) return shared ? shared : at;
    for (; tfm__text_peek(x, at, &length) & TFM__LETTER && (uint32_t)x.p[at] - 'A' >= 26; at += length) {}
    return at;
}
static size_t tfm__text_letters(tfm__text_view x, size_t at, const tfm__word_rule *r) {
    if (!(r->flags & TFM__WORD_CAMEL)) return tfm__text_run(x, at, r->letters, SIZE_MAX);
    at = tfm__text_camel(x, at);
    return r->flags & TFM__WORD_SUFFIX ? at + tfm__text_contraction(x, at, r) : at;
}
static size_t tfm__text_others(tfm__text_view x, size_t at, const tfm__word_rule *r) {
    size_t length;
    while (tfm__text_peek(x, at, &length) & r->others) at += length;
    while ((r->flags & TFM__WORD_TRAIL && tfm__text_newline(x, at)) ||
           (r->flags & TFM__WORD_SLASH && at < x.n && x.p[at] == '/')) at++;
    return at;
}
/* The end of the word that the rule finds at `at`, which is before the end of the text; `at` if none. */
static size_t tfm__text_match(tfm__text_view x, size_t at, const tfm__word_rule *r) {
    size_t length, unused, end;
    uint32_t kind = tfm__text_peek(x, at, &length);
    if (kind & r->letters) return tfm__text_letters(x, at, r);
    bool space = x.p[at] == ' ';
    uint32_t next = tfm__text_peek(x, at + length, &unused);
    if (r->flags & TFM__WORD_CODE && x.p[at] < 0x7f && kind & (TFM__PUNCT | TFM__SYMBOL)) {
        for (end = at + 1; end < x.n && ((uint32_t)x.p[end] | 32) - 'a' < 26; end++) {}
        if (end > at + 1) return end;
    }
    if (r->flags & TFM__WORD_CONTRACTION && (end = tfm__text_contraction(x, at, r)) != 0) return at + end;
    if (next & r->letters && (space || (kind & r->lead && !tfm__text_newline(x, at))))
        return tfm__text_letters(x, at + length, r);
    if (kind & TFM__NUMBER) return tfm__text_run(x, at, TFM__NUMBER, r->digits ? r->digits : SIZE_MAX);
    if (space && next & TFM__NUMBER && !r->digits) return tfm__text_run(x, at + length, TFM__NUMBER, SIZE_MAX);
    if (kind & r->others) return tfm__text_others(x, at, r);
    if (space && next & r->others) return tfm__text_others(x, at + length, r);
    return kind & TFM__SPACE ? tfm__text_spaces(x, at, r->flags & TFM__WORD_NEWLINES) : at;
}

/* Ranges: pairs of the first and the last, in order, then 0. */
static bool tfm__in_ranges(const uint32_t *r, uint32_t c) {
    for (; *r && *r <= c; r += 2)
        if (c <= r[1]) return true;
    return false;
}
static bool tfm__cut_has(tfm__text_view x, size_t at, const tfm__cut *cut, size_t *length) {
    uint32_t kind, c;
    *length = 0;
    if (at >= x.n) return false;
    c = tfm__text_char(x, at, &kind, length);
    if (kind & cut->classes) return true;
    return cut->ranges && tfm__in_ranges(cut->ranges, c) && !(kind & TFM__SPACE && c > 127);
}
/* The first match of a cut from `at` on: its end, and where it begins; both the end if there is none. */
static size_t tfm__cut_find(tfm__text_view x, size_t at, const tfm__cut *cut, size_t *begin) {
    size_t length, end;
    for (*begin = at; *begin < x.n; *begin = cut->tail && end > *begin ? end : *begin + length) {
        int count = 0;
        end = *begin;
        if (cut->space && tfm__text_peek(x, end, &length) & TFM__SPACE) end += length;
        for (; (!cut->most || count < cut->most) && tfm__cut_has(x, end, cut, &length); count++) end += length;
        if (count >= cut->least && (!cut->tail || end == x.n)) return end;
        tfm__text_peek(x, *begin, &length);
    }
    return *begin;
}
/* The end of the first piece of x at `at` that a step of a splitter makes: a match, or what stands before one. */
static size_t tfm__text_step(tfm__text_view x, size_t at, int step) {
    size_t begin = at, end, length;
    if (step >= TFM__CUT_NEWLINE) {
        end = tfm__cut_find(x, at, &tfm__cuts[step - TFM__CUT_NEWLINE], &begin);
    } else {
        const tfm__word_rule *r = &tfm__word_rules[step - 1];
        while ((end = tfm__text_match(x, begin, r)) == begin) {
            tfm__text_peek(x, begin, &length);
            begin += length;
            if (begin == x.n) return begin;
        }
    }
    return begin > at ? begin : end;
}
/* The end of the word at `at`. ends[i] is where the piece ends that step i made last: each step only
   looks at the piece of the step before, and only once it has come to the end of its own. */
static size_t tfm__text_split(const tfm__splitter *s, const uint8_t *p, size_t n, size_t at, size_t *ends) {
    tfm__text_view x = {p, n};
    for (int i = 0; i < TFM__SPLIT_STEPS && s->steps[i]; i++) {
        if (ends[i] <= at) ends[i] = tfm__text_step(x, at, s->steps[i]);
        x.n = ends[i];
    }
    return x.n;
}

/* Merging one word. Symbols are numbered by the place of their first byte. A tournament over all
   neighbours keeps the best pair at hand: the winner of n pairs is read in one step, and a change
   costs log n. So a word of n bytes takes n log n, whatever it holds. */

typedef struct tfm__merge_symbol {
    int32_t span;                       /* bytes; stored at the symbol's first byte and at its last */
    int32_t id;                         /* gpt2: the symbol's token. llama: of the pair with the next */
    uint32_t key;                       /* of the pair with the next symbol: less is better */
    int32_t best;                       /* of the tournament, numbered as a heap: root is 1 */
} tfm__merge_symbol;

#define TFM__NO_PAIR UINT32_MAX

typedef struct tfm__writer {
    tfm_context *c;
    const tfm_tokenizer *t;
    tfm__merge_symbol *symbols;         /* [bytes of the longest word] */
    uint8_t *copy;                      /* llama: the text behind a space; bert: a word behind a space */
    int32_t *ids;
    int64_t capacity, count;
} tfm__writer;

static void tfm__write_id(tfm__writer *w, int32_t id) {
    if (w->count < w->capacity) w->ids[w->count] = id;
    w->count++;
}
/* Text that has no token: the unknown token, or an error if there is none. */
static void tfm__write_unknown(tfm__writer *w, const uint8_t *p, size_t n) {
    if (w->t->unknown >= 0) { tfm__write_id(w, w->t->unknown); return; }
    tfm_string s;
    s.data = (const char *)p;
    s.size = n;
    if (n == 1 && (*p < 32 || *p > 126))
        tfm__fail(&w->c->err, TFM_ARGUMENT, "the vocabulary has no token for the byte %u", (uint64_t)*p);
    else tfm__fail(&w->c->err, TFM_ARGUMENT, "the vocabulary has no token for '%q'", &s);
}
static void tfm__write_byte(tfm__writer *w, uint8_t b) {
    if (w->t->byte[b] >= 0) tfm__write_id(w, w->t->byte[b]);
    else tfm__write_unknown(w, &b, 1);
}

static uint32_t tfm__merge_key(const tfm_tokenizer *t, int32_t left, int32_t right) {
    if (left < 0 || right < 0 || !t->merges) return TFM__NO_PAIR;
    int32_t low = t->first[left], end = t->first[left + 1], high = end;
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        if (t->pair[middle].right < right) low = middle + 1;
        else high = middle;
    }
    return low < end && t->pair[low].right == right ? (uint32_t)t->pair[low].rank : TFM__NO_PAIR;
}
/* Scores in order: the float's bits, made to compare as unsigned numbers, the highest becoming
   the least. NaN is lowest of all; both zeros are one. */
static uint32_t tfm__score_key(const tfm_tokenizer *t, int32_t id) {
    float score = tfm__token_score(t, id);
    uint32_t bits;
    memcpy(&bits, &score, 4);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return TFM__NO_PAIR - 1;
    if (bits == 0x80000000u) bits = 0;
    return bits >> 31 ? bits : ~(bits | 0x80000000u);
}
/* Looks the pair of symbol i and the next one up. */
static void tfm__merge_lookup(const tfm__writer *w, const uint8_t *p, int32_t n, int32_t i) {
    tfm__merge_symbol *s = w->symbols;
    int32_t j = i + s[i].span;
    s[i].key = TFM__NO_PAIR;
    if (j >= n) return;
    if (w->t->spell == TFM__SPELL_BYTES) {
        s[i].key = tfm__merge_key(w->t, s[i].id, s[j].id);
    } else {
        s[i].id = tfm__find_bytes(w->t, p + i, (size_t)(s[i].span + s[j].span));
        if (s[i].id >= 0) s[i].key = tfm__score_key(w->t, s[i].id);
    }
}
/* Of the two below node k, the pair with the lesser key; of equal ones the leftmost. */
static int32_t tfm__merge_winner(const tfm__merge_symbol *s, int32_t n, int32_t k) {
    int32_t a = 2 * k >= n ? 2 * k - n : s[2 * k].best, b = 2 * k + 1 >= n ? 2 * k + 1 - n : s[2 * k + 1].best;
    if (s[a].key != s[b].key) return s[a].key < s[b].key ? a : b;
    return a < b ? a : b;
}
static void tfm__merge_replay(tfm__merge_symbol *s, int32_t n, int32_t i) {
    for (int32_t k = (i + n) / 2; k; k /= 2) {
        int32_t was = s[k].best;
        s[k].best = tfm__merge_winner(s, n, k);
        if (s[k].best == was && was != i) return;       /* i neither won nor wins here, nor above */
    }
}
static void tfm__merge_word(const tfm__writer *w, const uint8_t *p, int32_t n) {
    tfm__merge_symbol *s = w->symbols;
    bool bytes = w->t->spell == TFM__SPELL_BYTES;
    for (int32_t i = 0, k = 1; i < n; i += k) {
        if (!bytes) k = tfm__utf8_need(p + i, (size_t)(n - i));
        if (k < 1 || k > n - i) k = 1;
        for (int32_t j = i; j < i + k; j++) s[j].key = TFM__NO_PAIR;
        s[i].span = s[i + k - 1].span = k;
        s[i].id = w->t->byte[p[i]];
    }
    for (int32_t i = 0; i < n; i += s[i].span) tfm__merge_lookup(w, p, n, i);
    for (int32_t k = n - 1; k > 0; k--) s[k].best = tfm__merge_winner(s, n, k);
    while (n > 1 && s[s[1].best].key != TFM__NO_PAIR) {
        int32_t i = s[1].best, j = i + s[i].span, span = s[i].span + s[j].span;
        if (bytes) s[i].id = w->t->result[s[i].key];
        s[i].span = s[i + span - 1].span = span;
        s[j].key = TFM__NO_PAIR;
        tfm__merge_lookup(w, p, n, i);
        if (i) tfm__merge_lookup(w, p, n, i - s[i - 1].span);
        tfm__merge_replay(s, n, j);
        tfm__merge_replay(s, n, i);
        if (i) tfm__merge_replay(s, n, i - s[i - 1].span);
    }
}

/* A byte without a token is left out, as the reference does: some published vocabularies lack those
   that no text of theirs held. */
static void tfm__write_bytes_word(tfm__writer *w, const uint8_t *p, size_t n) {
    const tfm_tokenizer *t = w->t;
    int32_t id = n == 1 ? t->byte[*p] : t->splitter->whole ? tfm__find_bytes(t, p, n) : -1;
    if (id >= 0) { tfm__write_id(w, id); return; }
    tfm__merge_word(w, p, (int32_t)n);
    for (size_t i = 0; i < n; i += (size_t)w->symbols[i].span)
        if (w->symbols[i].id >= 0) tfm__write_id(w, w->symbols[i].id);
}
static void tfm__write_char_bytes(tfm__writer *w, const uint8_t *p, size_t n) {
    if (*p == ' ') { p = (const uint8_t *)"\xe2\x96\x81"; n = 3; }
    for (size_t k = 0; k < n; k++) tfm__write_byte(w, p[k]);
}
/* What is no token after all merges is one character; it goes byte by byte. */
static void tfm__write_space_word(tfm__writer *w, const uint8_t *p, size_t n) {
    tfm__merge_word(w, p, (int32_t)n);
    for (size_t i = 0; i < n; i += (size_t)w->symbols[i].span) {
        size_t span = (size_t)w->symbols[i].span;
        int32_t id = tfm__find_bytes(w->t, p + i, span);
        if (id >= 0) tfm__write_id(w, id);
        else tfm__write_char_bytes(w, p + i, span);
    }
}
/* WordPiece. Text is cleaned as BERT does: accents and case go, control characters too; white space
   ends a word, and punctuation and CJK ideographs are words of their own. A word is written with a
   space before it and taken apart from the left, the longest token first. */

static const uint32_t tfm__range_ideographs[] = {       /* less 2B820 on, as BERT's own list has a gap there */
    0x3400, 0x4dbf, 0x4e00, 0x9fff, 0xf900, 0xfaff, 0x20000, 0x2a6df, 0x2a700, 0x2b81f, 0x2b920, 0x2ceaf,
    0x2f800, 0x2fa1f, 0};
static const uint32_t tfm__range_control[] = {          /* Cc, Cf, Co: what is assigned and no sign */
    0x1, 0x1f, 0x7f, 0x9f, 0xad, 0xad, 0x600, 0x605, 0x61c, 0x61c, 0x6dd, 0x6dd, 0x70f, 0x70f, 0x890, 0x891,
    0x8e2, 0x8e2, 0x180e, 0x180e, 0x200b, 0x200f, 0x202a, 0x202e, 0x2060, 0x2064, 0x2066, 0x206f, 0xe000, 0xf8ff,
    0xfeff, 0xfeff, 0xfff9, 0xfffb, 0x110bd, 0x110bd, 0x110cd, 0x110cd, 0x13430, 0x1343f, 0x1bca0, 0x1bca3,
    0x1d173, 0x1d17a, 0xe0001, 0xe0001, 0xe0020, 0xe007f, 0xf0000, 0xffffd, 0x100000, 0x10fffd, 0};

static size_t tfm__utf8_encode(uint32_t c, uint8_t *out) {
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i; i--, c >>= 6) out[i] = (uint8_t)(0x80 | (c & 0x3f));
    out[0] = (uint8_t)(n == 1 ? c : (0xf00u >> n & 0xff) | c);
    return n;
}
/* The longest token that p begins with and its size, or -1. */
static int32_t tfm__longest_token(const tfm_tokenizer *t, const uint8_t *p, size_t n, size_t *size) {
    uint32_t h = tfm__hash_start;
    int32_t found = -1;
    if (n > t->longest) n = t->longest;
    if (n > TFM__SPECIAL_BYTES) n = TFM__SPECIAL_BYTES;
    for (size_t k = 1; k <= n; k++) {
        h = tfm__hash_byte(h, p[k - 1]);
        int32_t id = tfm__find_hashed_bytes(t, tfm__hash_end(h), p, k);
        if (id >= 0) { found = id; *size = k; }
    }
    return found;
}
/* The word in the copy: tokens for all of it, or the unknown token. */
static void tfm__write_pieces(tfm__writer *w, size_t n) {
    int64_t before = w->count;
    for (size_t at = 0, size = 0; n > 1 && at < n; at += size) {
        int32_t id = tfm__longest_token(w->t, w->copy + at, n - at, &size);
        if (id >= 0) { tfm__write_id(w, id); continue; }
        w->count = before;
        tfm__write_unknown(w, w->copy + 1, n - 1);
        return;
    }
}
static void tfm__write_words(tfm__writer *w, const uint8_t *p, size_t n) {
    const tfm_tokenizer *t = w->t;
    size_t size = 1;                    /* the copy holds a space, then the word so far */
    w->copy[0] = ' ';
    for (size_t at = 0; at < n;) {
        int k;
        uint32_t c = tfm__utf8_decode(p + at, n - at, &k);
        at += (size_t)k;
        if (t->strip) c = tfm__unicode_bare_of(c);
        uint32_t kind = tfm__char_class(c);
        bool alone = kind & TFM__PUNCT || (c < 127 && kind & TFM__SYMBOL) || tfm__in_ranges(tfm__range_ideographs, c);
        if (alone || kind & TFM__SPACE) {
            tfm__write_pieces(w, size);
            size = 1;
        }
        if (kind & TFM__SPACE || c == 0 || c == 0xfffd || (t->strip && kind & TFM__MARK) ||
            tfm__in_ranges(tfm__range_control, c)) continue;
        if (t->lower) c = tfm__unicode_lower_of(c);
        if (c == 0x2581) c = ' ';       /* cannot be told from a space, as the vocabulary spells it */
        size += tfm__utf8_encode(c, w->copy + size);
        if (!alone) continue;
        tfm__write_pieces(w, size);
        size = 1;
    }
    tfm__write_pieces(w, size);
}
/* "word": white space and the characters of `split` end a word, so do those not in `letters` if there are
   such; those of `alone` are words of their own, those of `drop` none. A word without a token is the unknown one,
   or left out if there is none. */
static bool tfm__has_character(tfm_string set, uint32_t c) {
    int k;
    for (size_t at = 0; at < set.size; at += (size_t)k)
        if (tfm__utf8_decode((const uint8_t *)set.data + at, set.size - at, &k) == c) return true;
    return false;
}
static void tfm__write_whole(tfm__writer *w, size_t *size) {
    int32_t id = *size ? tfm__find_bytes(w->t, w->copy, *size) : -1;
    if (id < 0 && *size) id = w->t->unknown;
    if (id >= 0) tfm__write_id(w, id);
    *size = 0;
}
static void tfm__write_listed(tfm__writer *w, const uint8_t *p, size_t n) {
    const tfm_tokenizer *t = w->t;
    size_t size = 0;
    int k;
    for (size_t at = 0; at < n; at += (size_t)k) {
        uint32_t c = tfm__utf8_decode(p + at, n - at, &k);
        if (t->lower) c = tfm__unicode_lower_of(c);
        if (c == 0xfffd || tfm__has_character(t->drop, c)) continue;
        bool alone = tfm__has_character(t->alone, c);
        bool ends = alone || tfm__char_class(c) == TFM__SPACE || tfm__has_character(t->split, c) ||
                    (t->letters.size && !tfm__has_character(t->letters, c));
        if (ends) tfm__write_whole(w, &size);
        if (alone || !ends) size += tfm__utf8_encode(c, w->copy + size);
        if (alone) tfm__write_whole(w, &size);
    }
    tfm__write_whole(w, &size);
}
/* U+2581 written in the text cannot be told from a space. */
static size_t tfm__copy_spaces(const uint8_t *p, size_t n, uint8_t *out) {
    size_t size = 0;
    for (size_t i = 0; i < n; i++) {
        bool block = p[i] == 0xe2 && n - i > 2 && p[i + 1] == 0x96 && p[i + 2] == 0x81;
        out[size++] = block ? ' ' : p[i];
        if (block) i += 2;
    }
    return size;
}
static void tfm__write_spaced(tfm__writer *w, const uint8_t *p, size_t n) {
    size_t size = w->t->space_prefix;
    w->copy[0] = ' ';
    size += tfm__copy_spaces(p, n, w->copy + size);
    for (size_t at = 0, end; at < size; at = end) {
        end = at + 1;
        while (end < size && !(w->t->words && w->copy[end] == ' ' && w->copy[end - 1] != ' ')) end++;
        tfm__write_space_word(w, w->copy + at, end - at);
    }
}
static void tfm__write_chars(tfm__writer *w, const uint8_t *p, size_t n) {
    for (size_t at = 0; at < n;) {
        int k;
        tfm__utf8_decode(p + at, n - at, &k);
        int32_t id = tfm__find_bytes(w->t, p + at, (size_t)k);
        if (id >= 0) tfm__write_id(w, id);
        else tfm__write_unknown(w, p + at, (size_t)k);
        at += (size_t)k;
    }
}

/* The longest special token that begins at p, or -1. */
static int32_t tfm__match_special(const tfm_tokenizer *t, const uint8_t *p, size_t n, bool all) {
    int32_t found = -1;
    uint32_t h = tfm__hash_start;
    tfm_string s, none = tfm__str(NULL);
    s.data = (const char *)p;
    if (n > t->longest_special) n = t->longest_special;
    for (size_t at = 0, k; at < n; at += k) {
        int value;
        k = tfm__spelled(t->spell, p + at, n - at, &value);
        h = tfm__hash_spelled(h, p + at, k, value);
        s.size = at + k;
        int32_t id = tfm__find_hashed(t, tfm__hash_end(h), s, none);
        if (id >= 0 && tfm__token_special(t, id, all)) found = id;
    }
    return found;
}

/* Unigram (Kudo 2018). Text is normalized as SentencePiece does, then taken apart so that the sum of the
   tokens' scores is the greatest (Viterbi). A user-defined token is not cut out of the text first: it is
   kept as it is written, and its score is -0.1, which is better than that of any other way. */

static uint32_t tfm__trie_unit(const tfm__charsmap *m, uint32_t at) {
    return at < m->unit_count ? (uint32_t)tfm__little(m->units + (size_t)at * 4, 4) : 0;
}
static uint32_t tfm__trie_children(uint32_t unit) { return unit >> 10 << (unit >> 6 & 8); }

/* What the longest key that p begins with becomes; data NULL: there is none. */
static tfm_string tfm__charsmap_find(const tfm__charsmap *m, const uint8_t *p, size_t n, size_t *taken) {
    tfm_string s = {NULL, 0};
    uint32_t at = tfm__trie_children(tfm__trie_unit(m, 0)), value = 0;
    *taken = 0;
    for (size_t i = 0; i < n && m->unit_count; i++) {
        uint32_t unit = tfm__trie_unit(m, at ^= p[i]);
        if (!unit || (unit & 0x800000ffu) != p[i]) break;
        at ^= tfm__trie_children(unit);
        if (!(unit >> 8 & 1)) continue;
        value = tfm__trie_unit(m, at) & 0x7fffffff;
        *taken = i + 1;
    }
    if (!*taken || value >= m->text_bytes) return s;
    s.data = (const char *)m->texts + value;
    while (s.data[s.size]) s.size++;    /* the last byte of the texts is NUL */
    return s;
}
/* What the characters at p become, and how many bytes of p that takes. */
static tfm_string tfm__normal_piece(const tfm_tokenizer *t, const uint8_t *p, size_t n, size_t *taken) {
    tfm_string s;
    bool may = t->starts[0][*p >> 3] >> (*p & 7) & 1;
    int32_t id = may ? tfm__match_special(t, p, n, false) : -1;
    if (id < 0) {
        s = tfm__charsmap_find(&t->charsmap, p, n, taken);
        if (s.data) return s;
    }
    int length = tfm__utf8_need(p, n);
    s.data = (const char *)p;
    s.size = *taken = id >= 0 ? tfm__token_text(t, id).size : length && (size_t)length <= n ? (size_t)length : 1;
    if (id < 0 && (!length || (size_t)length > n)) s = tfm__str("\xef\xbf\xbd");
    return s;
}
/* Text as the tokens spell it, but for spaces, which are one byte. Returns its size; out NULL: at most. */
static size_t tfm__normalize(const tfm_tokenizer *t, const uint8_t *p, size_t n, uint8_t *out) {
    size_t size = 0, taken;
    bool space = t->merge_spaces;       /* what came before is one */
    if (t->space_prefix && out) out[0] = ' ';
    size += t->space_prefix;
    for (size_t at = 0; at < n; at += taken) {
        tfm_string s = tfm__normal_piece(t, p + at, n - at, &taken);
        for (; space && s.size && *s.data == ' '; s.data++) s.size--;
        if (!s.size) continue;
        space = t->merge_spaces && s.data[s.size - 1] == ' ';
        size += out ? tfm__copy_spaces((const uint8_t *)s.data, s.size, out + size) : s.size;
    }
    while (out && t->merge_spaces && size && out[size - 1] == ' ') size--;
    return size;
}

/* The best way to take the text apart up to some place: its score, and its last token (-1: unknown). Sums
   are f32, as SentencePiece's, so that ties fall the same way. */
typedef struct tfm__path { float score; int32_t id, span; } tfm__path;

static void tfm__path_offer(tfm__path *to, float score, int32_t id, size_t span) {
    if (to->span && !(score > to->score)) return;
    to->score = score;
    to->id = id;
    to->span = (int32_t)span;
}
static void tfm__path_extend(const tfm_tokenizer *t, tfm__path *path, const uint8_t *p, size_t n, size_t length) {
    uint32_t h = tfm__hash_start;
    bool known = false;
    if (n > t->longest) n = t->longest;
    if (n > TFM__SPECIAL_BYTES) n = TFM__SPECIAL_BYTES;
    for (size_t k = 1; k <= n; k++) {
        h = tfm__hash_byte(h, p[k - 1]);
        int32_t id = tfm__find_hashed_bytes(t, tfm__hash_end(h), p, k);
        int kind = id < 0 ? TFM__TOKEN_UNUSED : tfm__token_kind(t, id);
        if (kind != TFM__TOKEN_NORMAL && kind != TFM__TOKEN_USER) continue;
        known = known || k == length;
        double score = kind == TFM__TOKEN_USER ? -0.1 : (double)tfm__token_score(t, id);
        tfm__path_offer(path + k, (float)((double)path->score + score), id, k);
    }
    if (!known) tfm__path_offer(path + length, path->score + t->unknown_score, -1, length);
}
/* Of unknown characters in a row one token is written, unless the vocabulary has tokens for bytes. */
static void tfm__write_path(tfm__writer *w, tfm__path *path, const uint8_t *p, size_t n) {
    int32_t next = 0;
    for (size_t at = n; at; at -= (size_t)next) {           /* from the last token to the first: each learns */
        int32_t span = path[at].span;                      /* how long the one after it is */
        path[at].span = next;
        next = span;
    }
    bool unknown = false;
    for (size_t at = 0, span; at < n; at = span) {
        span = at + (size_t)next;
        bool bytes = w->t->byte[p[at]] >= 0;
        if (path[span].id >= 0) tfm__write_id(w, path[span].id);
        else if (bytes) tfm__write_char_bytes(w, p + at, span - at);
        else if (!unknown) tfm__write_unknown(w, p + at, span - at);
        unknown = path[span].id < 0 && !bytes;
        next = path[span].span;
    }
}
static void tfm__write_unigram(tfm__writer *w, const uint8_t *p, size_t n) {
    const tfm_tokenizer *t = w->t;
    size_t size = tfm__normalize(t, p, n, NULL);
    tfm_mark mark = tfm_arena_mark(w->c);
    tfm__path *path = (tfm__path *)tfm__arena(w->c, size + 1, sizeof *path);
    uint8_t *text = (uint8_t *)tfm__arena(w->c, size + 1, 1);
    if (w->c->err.status == TFM_OK) {
        size = tfm__normalize(t, p, n, text);
        memset(path, 0, (size + 1) * sizeof *path);
        for (size_t at = 0, length; at < size; at += length) {
            int k = tfm__utf8_need(text + at, size - at);
            length = k && (size_t)k <= size - at ? (size_t)k : 1;
            tfm__path_extend(t, path + at, text + at, size - at, length);
        }
        tfm__write_path(w, path, text, size);
    }
    tfm_arena_rewind(w->c, mark);
}

/* A piece of text without special tokens: at the beginning, or after such a token. */
static void tfm__write_piece(tfm__writer *w, const uint8_t *p, size_t n) {
    size_t ends[TFM__SPLIT_STEPS] = {0};
    switch (w->t->model) {
        case TFM__VOCAB_LLAMA: tfm__write_spaced(w, p, n); break;
        case TFM__VOCAB_T5: tfm__write_unigram(w, p, n); break;
        case TFM__VOCAB_BERT: tfm__write_words(w, p, n); break;
        case TFM__VOCAB_CHAR: tfm__write_chars(w, p, n); break;
        case TFM__VOCAB_WORD: tfm__write_listed(w, p, n); break;
        default:
            for (size_t at = 0, end; at < n; at = end) {
                end = tfm__text_split(w->t->splitter, p, n, at, ends);
                tfm__write_bytes_word(w, p + at, end - at);
            }
    }
}

/* 16 bytes for each byte of text and one more; for "llama" a 17th; for "bert" and "word" one and a half,
   as a small letter may be a byte longer than the capital; for "t5" 13 for each byte of the normalized text,
   taken when its size is known. Each rounded up to TFM_ALIGN. */
static size_t tfm__writer_symbols(const tfm_tokenizer *t, size_t size) {
    return t->spell >= TFM__SPELL_PLAIN ? 0 : size + 1;
}
static size_t tfm__writer_copy(const tfm_tokenizer *t, size_t size) {
    if (t->model == TFM__VOCAB_BERT || t->model == TFM__VOCAB_WORD) return size + size / 2 + 1;
    return t->spell == TFM__SPELL_SPACE ? size + 1 : 0;
}
static size_t tfm__writer_longest(const tfm_tokenizer *t, size_t size) {
    size_t each = t->charsmap.longest > 3 ? t->charsmap.longest : 3;        /* at least U+FFFD */
    return t->model != TFM__VOCAB_T5 ? size : size > SIZE_MAX / 2 / each ? SIZE_MAX / 2 : size * each + 1;
}
TFMDEF size_t tfm_tokenize_memory(const tfm_tokenizer *t, size_t size) {
    tfm__carver k;
    memset(&k, 0, sizeof k);
    if (!t || size > INT32_MAX / 2) return SIZE_MAX;
    size = tfm__writer_longest(t, size);
    tfm__carve(&k, tfm__writer_symbols(t, size),
               t->model == TFM__VOCAB_T5 ? sizeof(tfm__path) : sizeof(tfm__merge_symbol));
    tfm__carve(&k, tfm__writer_copy(t, size), 1);
    return k.overflow ? SIZE_MAX : k.used;
}

static void tfm__write_text(tfm__writer *w, const uint8_t *p, size_t n, const tfm_tokenize_opts *o) {
    const tfm_tokenizer *t = w->t;
    const uint8_t *starts = t->starts[o->parse_special];
    const tfm_span *plain = o->plain, *last = plain ? plain + o->plain_count : NULL;
    size_t from = 0;
    if (o->add_special && t->add_bos) tfm__write_id(w, t->bos);
    for (size_t at = 0; at < n;) {
        bool may = starts[p[at] >> 3] >> (p[at] & 7) & 1;
        while (plain != last && (plain->end <= at || plain->end <= plain->begin)) plain++;
        bool inside = plain != last && plain->begin <= at;
        size_t end = plain == last ? n : tfm__min_size(n, inside ? plain->end : plain->begin);
        int32_t id = may ? tfm__match_special(t, p + at, end - at, o->parse_special && !inside) : -1;
        if (id < 0 || (t->model == TFM__VOCAB_T5 && tfm__token_kind(t, id) == TFM__TOKEN_USER)) { at++; continue; }
        if (at > from) tfm__write_piece(w, p + from, at - from);
        tfm__write_id(w, id);
        at += tfm__token_text(t, id).size;
        from = at;
    }
    if (n > from) tfm__write_piece(w, p + from, n - from);
    if (o->add_special && t->add_eos) tfm__write_id(w, t->eos);
}
TFMDEF int64_t tfm_tokenize(tfm_context *c, const tfm_tokenizer *t, const char *text, size_t size,
                            const tfm_tokenize_opts *opts, int32_t *ids, int64_t capacity) {
    tfm_tokenize_opts o;
    tfm__writer w;
    memset(&o, 0, sizeof o);
    memset(&w, 0, sizeof w);
    if (!c || c->err.status != TFM_OK) return -1;
    if (!t || (!text && size)) tfm__fail(&c->err, TFM_ARGUMENT, "tokenize: no %s", t ? "text" : "tokenizer");
    else if (tfm_tokenize_memory(t, size) == SIZE_MAX)
        tfm__fail(&c->err, TFM_ARGUMENT, "tokenize: %u bytes are too many", (uint64_t)size);
    else if (size && t->spell == TFM__SPELL_BYTES && !t->splitter)
        tfm__fail(&c->err, TFM_UNSUPPORTED,
                  t->pre.size ? "tokenizer.ggml.pre '%q' is unknown: text cannot be split"
                              : "tokenizer.ggml.pre is missing: text cannot be split", &t->pre);
    if (c->err.status != TFM_OK) return -1;
    if (opts) o = *opts;
    w.c = c;
    w.t = t;
    w.ids = ids;
    w.capacity = ids ? capacity : 0;
    tfm_mark mark = tfm_arena_mark(c);
    if (t->model != TFM__VOCAB_T5 || c->measure) {
        size_t longest = tfm__writer_longest(t, size);
        w.symbols = (tfm__merge_symbol *)tfm__arena(c, tfm__writer_symbols(t, longest), sizeof *w.symbols);
        w.copy = (uint8_t *)tfm__arena(c, tfm__writer_copy(t, longest), 1);
    }
    if (c->err.status == TFM_OK && !c->measure) tfm__write_text(&w, (const uint8_t *)text, size, &o);
    tfm_arena_rewind(c, mark);
    return c->err.status == TFM_OK ? w.count : -1;
}

/* Tokens, one by one. */

static bool tfm__has_token(const tfm_tokenizer *t, int32_t id) { return t && id >= 0 && id < t->count; }

TFMDEF int64_t tfm_vocab_size(const tfm_tokenizer *t) { return t ? t->count : 0; }
TFMDEF tfm_string tfm_token_text(const tfm_tokenizer *t, int32_t id) {
    return tfm__has_token(t, id) ? tfm__token_text(t, id) : tfm__str("");
}
TFMDEF int32_t tfm_token_find(const tfm_tokenizer *t, const char *text, size_t size) {
    tfm_string s;
    s.data = text;
    s.size = size;
    return t && text && size ? tfm__find_spelled(t, s, tfm__str(NULL)) : -1;
}
TFMDEF bool tfm_token_is_control(const tfm_tokenizer *t, int32_t id) {
    return tfm__has_token(t, id) && tfm__token_kind(t, id) == TFM__TOKEN_CONTROL;
}
TFMDEF bool tfm_token_is_end(const tfm_tokenizer *t, int32_t id) {
    return tfm__has_token(t, id) && t->kind[id] & TFM__TOKEN_END;
}
TFMDEF int32_t tfm_token_bos(const tfm_tokenizer *t) { return t ? t->bos : -1; }
TFMDEF int32_t tfm_token_eos(const tfm_tokenizer *t) { return t ? t->eos : -1; }
TFMDEF bool tfm_adds_bos(const tfm_tokenizer *t) { return t && t->add_bos; }
TFMDEF bool tfm_adds_eos(const tfm_tokenizer *t) { return t && t->add_eos; }

TFMDEF size_t tfm_token_bytes(const tfm_tokenizer *t, int32_t id, bool special, char *out, size_t capacity) {
    size_t n = 0;
    if (!tfm__has_token(t, id) || (!special && !tfm__token_plain(t, id))) return 0;
    tfm_string s = tfm__token_text(t, id);
    int kind = tfm__token_kind(t, id);
    int spell = kind == TFM__TOKEN_NORMAL || kind == TFM__TOKEN_UNUSED ? t->spell : TFM__SPELL_PLAIN;
    if (!out) capacity = 0;
    if (kind == TFM__TOKEN_BYTE) {
        if (capacity) out[0] = (char)tfm__byte_name(s);
        return 1;
    }
    for (size_t i = 0; i < s.size;) {
        int value;
        size_t taken = tfm__spelled(spell, (const uint8_t *)s.data + i, s.size - i, &value);
        for (size_t j = 0; j < (value < 0 ? taken : 1); j++, n++)
            if (n < capacity) out[n] = value < 0 ? s.data[i + j] : (char)value;
        i += taken;
    }
    return n;
}

/* Classes of characters, Unicode 15.1: {first character, runs}, as tools/unicode_table.py prints
   it and explains. Made by: pip install unicodedata2==15.1.0; python3 tools/unicode_table.py */
static const tfm__unicode_row tfm__unicode[] = {
    {0x00000, "+u/(#qYd dZFXfX<0#YdWd<0#WdWd(q/0#qWhWe0Wd#g>d0Xd=0W!W<-#d<5#d<t'g;p$#4j0d0p'#V+$4d1$3W0&e0W2#0#<*#"},
    {0x003a3, "<i#d<F$dP<a$#<<#$0 <!#X$f#VC#WJWKWKWJ*<1#&3X/'#fXdXeTW#Y<A#V+#FZ1J<y#W0P#dO1KdM1F2e0c$#$0J<4#V1#$"},
    {0x0074d, "<o#T0/$#F<7#R1dY0$Je<,#M0R0L0N$c%##</#L$W#:'<.#d5+Q<@#V.##V7#<L#L0V(#0P9KXFW<&#L#7$1$<,##6#0%3$J0"},
    {0x009be, "P$K$L0*J&1#2K$F1eBe0WJ$L#5&1$<,##6#1#1#1$J#N&K$L%J)3#0)FK2JW,L#8#2#<,##6#1#4$J0Q#L#L$0/%#1K$FWd)0"},
    {0x00afa, "O#L#7$1$<,##6#1#4$J0P$K$L)L&1#2K$Fd0B,J0#5%2#3%1#0#1%1%2%;&N%L#M$0(J/$#I##k'N7#2#<-##<&#$J0P#L#M)"},
    {0x00c55, "K#2$0$1K$F)WCd0LW7#2#<-##9#4$J0P#L#M)K(1#1K$F#1J.M8#2#<!#K0P#L#M0d&2JC2K$I)#d5#L#<(#%<.##8#0$6%J&"},
    {0x00dcf, "O#J#Q(F$KW.<F#J1P&d6QWFX/;#1#0#4#<.##0#9J1R0$4#0#P#F$3/6#0fc%#dWfKiI*#dJdJdJZK7#<:#&V*#WK4T#V:##k"},
    {0x00fc6, "Ji#e[gX/;#<A#V*#0F 5M3L0L1P2M<##U0JFMe<<##0'0$<A#W<R&#3$6#0#3$<!##3$<7##3$6#0#3$<%##<O##3$<Y#$L_I*#"},
    {0x01380, "<&#m(<l#$5$W<`)dW<'#q<0#X%<a#Y!7)<(#M+<)#LX+<(#K.<###2#K.<J#V6#Y0Yd0J$F(F(aL#JF(<o#)4K<8#J0'< #,<5#"},
    {0x01920, "U&U&d%XF<4#$4-<B#&<0#(G%p8#<-#N$X<K#S#V3#$JF(F(]0 $V5#/G#N<E#V'#7%F]mRlX#L<4#V##1F<B#V$#*Z<:#V*#%"},
    {0x01c3b, "[F%2F<:#X8)<A#$2^*LWV+#3J5J1L0'<{$VV#<v%$5$<<#$5$7#0#0#0#<5#$<K##6d0f2#6f3$5#f<##f$2#6e#{'c.#r'qc*#"},
    {0x02044, "dc##dbq/&#=0$BfX0FfX#<##%p7#/%#V7#/%#e0g0e9d0f4i0d0d0d3d:e3h4g0dII#1Ae&p}&Zp3#Xp %//#n/+#IR#pd#I,#"},
    {0x02500, "p )c$#I4#pG#Xp5#`p='c,#pU#Zp6#Xp{&$p6##p$$<E%i3L1'Z=X<<##0'0$<N#)0W/$#J<-#+6#6#6#6#6#6#6#6#V6#cE#"},
    {0x02e2f, "0c6#eb/8#p0##po#.p6%/0#p&#qYd1=`ebdEOW4e!1We#<l#$Ke2W<p#W3'<A##<t##e@m<6#p:#-d<&#p5##Fp4#DdI%#p6#"},
    {0x03280, "Fp=#I%#pE&<>kpV#<}}<}}<*`%pM#+<D#X<m%Y<&#F1/*#<E#MWSW<5#K< #FK *p-#8e<}#e<V#'1#0#4/.#<&#J2J3J<-#N"},
    {0x0a828, "gJ%Bg(<J#Z*K<H#V(#*XF(V(#5Y0W1JF<2#QX<-#V##-W<3#%M<E#V$#c###0F&X4J9F4#<!#V$#+2J7K$F$Z<-#f0L<H#J0L"},
    {0x0aab5, "1K4K0J0/.#2X:NX2K,5$5$5+6#6#<A#d<$#e&<.$QWK$F(<}}<PB.<-#&<G#"},
    {0x0f900, "<s&$<%$/<#6.4'0J9d<###4#0#1#1#<'$p'#/&#<p&Xp&#<V#$<L#)d/6#;gV&#`(V&#c9##c$#dWf#WdX&4#<B$&Yd dZFXf"},
    {0x0ff1f, "X<0#YdWd<0#WdWd]<o#%5$5$5$2%j#j/##e$;#<0##<)##1#<%#$<$#/8#<6$'Y&IC#%lIO#p'#>f#p##%d/E#pC#J/=$<3#%"},
    {0x102a0, "<G#/%#JI1#&<6#@+<*#=7='<<#N'<4##W<:#&7WA/@#<Y$$F(<:#&<:#&<>#*<J#-W:#<%##6#1#:#<%##6#1/Y#<<&+<,#,7"},
    {0x10780, "5#<@##8/[#5$0#<B##1%0$<-##WD<-#eC<5#*E/F#<)##1'A<,#B%W<0#'W/V#<N#&>1I&#$ID#0L#K'M3#2#<3#$L&JE)_)<3#"},
    {0x10a7d, ">W<3#!/6#7d<2#K&A]+<L#%]<,#$D<)#'D<(#)Z.C/f#<_#/M#<I#/##<I#)B<:#M*F"},
    {0x10e60, "I5##<@##KW$1/a#L<3#F0*<,#T@[/,#<(#MZ/<#<+#C/*#<-#+L<K#V%#]&I4#J1K0+M<C#TX#ZJ/##</#)F(L<:#V$##FZ0K"},
    {0x11147, "0*<9#JX0+L<F#V$#3ZMWKF0W0Y#I*#-<(##</#U J1J/T#6#0#3#<%##9W(<E#U'F(M#7$1$<,##6#1#4#K0P$K$L$0(J'4K$"},
    {0x11366, "P%N/F$<K#V(#3[FX#WJ2/4#<F#V*#1W0*F/a$<E#P$Rc-#3K/8#<F#V'#Y0-F(c##/)#<A#V##0W(F/L#<1#$V%#&HYd6/t$<B#"},
    {0x1182c, "V%#W/z#<V#I)#.7$0$7#1#<.#O#K$M0J0KY+F/ #7$<=#P$P0W0J/1#0S<>#P0M^J*0T<D#V&#Y0[/##<_#)`"},
    {0x11c00, "8#<;#Q#Q0[,I3#%X<4#$V,##V$#/_#6#1#<<#O%J#K#P0J*F(5#1#<6#N#K#N0)F"},
    {0x11ee0, "<)#MX)K0J<###<8#P%Nc##F/l#0/%#I+#p3#/##W<},/|#I*$#[-<$%"},
    {0x12f90, "<w#X/##<]./&#J5V%#"},
    {0x14400, "<;)"},
    {0x16800, "<-))<5##F&X<e##F(<4#$NW,<F#P[g3Wd,F#C#<+#'<)#"},
    {0x16e40, "<V#I-#Z/{#<a#&J0VM#)M<##/V#1W0J-K/$#<=f*<M0/@#8"},
    {0x1aff0, "3#6#1#<(&/%#0/3#2$0/$#3*<6'"},
    {0x1bc00, "<&$'<##%8)9$dKW"},
    {0x1cf00, "VD#$V-#+p/$/R#pV%,p=#$pR#NfO*QePp4#MpS#/+#pX#Ld/5$I*#.I*#.pm#+I/#/B$<k##<]##1$0$1$3#;#0#6#<W##3$7"},
    {0x1d516, "6#<2##3#4#0%6#<Y&$</#d</#d<5#d</#d<5#d</#d<5#d</#d<5#d</#d7$IH#pO(VM#gVH#kJp$#Je[/%#N#V%#"},
    {0x1df00, "<5#(5"},
    {0x1e000, "P#V'#$P#K#N'<T#/7#J/+$<C#%P6$F&0d"},
    {0x1e290, "<4#J/'#<B#MF'd"},
    {0x1e4d0, "<2#MF"},
    {0x1e7e0, "6#3#1#<%##<%%$EP/!#<Z#P0&F&X"},
    {0x1ec71, "IQ#d!d@/b#IC#dI%#/}$3#<1##1#0$0#9#3#0#0(0&0#0#0#2#1#0$0#0#0#0#0#1#0$3#6#3#3#0#9#<'#'2#4#<'#/J#e"},
    {0x1f000, "pB#&pz#.p%#$p%##p%##p;#,I##p $/N#p3#/##pB#&l)e/$#i/U$p`-&p'#%p##%p2$&pu#(o&d/%#o&pN#*m(p>#*p4#$e/d#"},
    {0x1f900, "pY&.p$#$p##%l)pD##j*p$#&l)l)pN$#pM#/;#F"},
    {0x20000, "<}}<}}<}}<}}<}}<^0/6#<QP(<>%$<3b/$#<|t/%#<b)"},
    {0x2f800, "<m("},
    {0x30000, "</Y'<wP"},
    {0xe0100, "VP%"}
};

/* Capital letters -> small ones; letters with accents -> bare ones. */
static const tfm__unicode_row tfm__unicode_lower[] = {
    {0x00041, "#`&c$[%{%h'$H'DX&)$#s+$4|+%R$)%R&)$#^(#4e(&#e,#.Z,$#Y,##R,$*W,##P,%#k&#+g(##y+$#W,##)$#/##$##X,&#g,"},
    {0x0019d, "##e,$#)#4b,$#q,##j,$#q,%#f,$#q,##j,$*o,#.h,$#s,##l,&#+*)5$))$))$R$'%X$)%)+$#'$#['##w$#m%j%$#p($X$y("},
    {0x0023a, "##sm-##nm-$#X*##zt-%#dm-$#k+##s.##)#@R&c).x/&#++#g()-V&#*%$-]$##%$W% $$T$'F#;+j$'(#c%%#v%$#.##5%0n("},
    {0x00400, "#Q%i&#W'S%S$[%G,j&7$#C#L<%a))%{'Z%Yc${'W|,$#'(#/R3i-jyB#Bw`IzS$l(UG%0)U*|,P]&,#Qg*$a)jg*,N%+B5-N9"},
    {0x01f38, "#N2+B5.:;+N5;NU$+N5+N5+*5#*w%##z%.6w%##e&.*=#*Q'/*n'#*i'##p'.*u'#*)##[(k)#cU*&#]I##c()#rX+P$Q%g$6#-"},
    {0x024b6, "#`&W$xK])tu$S$#'$#bk-##Pv)##Xu)%4zj-$#Rm-##c$#+d$$#_m-%#)+*]n-#m)rn-+.5'#-S_2R&XnA6v$KP&LR)&U'+-.9"},
    {0x0a77d, "##]xE#@bxE'#-$#RrL%.]rL&^$+$#]sL##6##-##9##&$#^%##P$##O##imM#R$VL$#S%##UqL##qu)#.pzE)#1(./!#]$xP.`&YS9"},
    {0x10400, "#Z(s$Q&o'T)e&`$z)$x$'$H'$*'_Jo)ur$vf$W'^|%bt-W'vk8kf2c'_PB"}
};
static const tfm__unicode_row tfm__unicode_bare[] = {
    {0x000c0, "#Al($+'#/##5+$*-#5#%5/##+%A3$+'#/##5+$*-#5#%5/#,+##e%##c$##b$##c$##b$##c$##^$##c$##b$##c$##b$##c$"},
    {0x0010c, "##y+##c$##`$##c$%#`$##c$##b$##c$##b$##c$##b$##c$##b$##c$##^$##c$##b$##c$##b$##c$##b$##c$##`$##c$%#`$"},
    {0x00129, "##g+##b$##c$##b$##c$##b$##c$##b$&#%##c$##`$##c$$#`$##c$##b$##c$##b$##c$'#^$##c$##b$##c$##b$##c$&#`$"},
    {0x0014d, "##v,##b$##c$##b$##c$%# $##c$##b$##c$##b$##c$##`$##c$##b$##c$##b$##c$##b$##c$##`$##c$##b$##c$%#`$##c$"},
    {0x0016a, "##]/##c$##b$##c$##b$##c$##b$##c$##b$##c$##^$##c$##^$##c$#*b$##c$##b$##c$##b$##c$D#x$##c$0#V$##c$!#]%"},
    {0x001ce, "##Y3##R$##c$##V$##c$##V$##c$##b$##c$##b$##c$##b$##c$##b$##c$$#]%##c$##b$##c$##f'##c$%#R*##c$##Z$##c$"},
    {0x001ea, "##[5##c$##b$##c$##j1##q,##g;&#h$##c$%#T$##c$##|$##c$##f'##c$##>##c$##U+##c$##b$##c$##Z$##c$##b$##c$"},
    {0x00208, "##v6##c$##b$##c$##V$##c$##b$##c$## $##c$##b$##c$## $##c$##b$##c$##f$##c$##`$##c$%#z$##c$)#p$##c$##Z$"},
    {0x00229, "##S7##N##c$##b$##c$##b$##c$##b$##c$##N##c${(*r!$#G##8R$#f&,#_!)#v'##UD##cC#1lC$#/$#/##+##C<#b$##;"},
    {0x003ac, "##-#1+##;<#:##;##.##/##+')5N)|%$#&&#<'#K##&##9-#8B#c$9)($#&&#i$'#Z$##&##9:*X%l$#Y'##c$0#n$##c$##b$"},
    {0x004d3, "##Z*%#X$##c$%*[*##m+##c$##`$##c$%#`$##c$##b$##c$##V$##c$%*i*##_+##c$##v$##c$##b$##c$##b$##c$##Z$##c$"},
    {0x004f8, "##T,##c$j))W8##e$##d$##i$b&#X)$#J3#E 0#j=*#3%#)F0^$##-#*-##5##+a%)r)2*n$$#=v$#u(%#/E*f$##-%#AX(#l/"},
    {0x00b4b, "#)*2*n$Y$#|'X$*^%##$q%#o(m%#a())1$)#t%*o(##$V&,h)#)#y*#R3,#7'#-'#-'#-/#X$,,X%#-x%+#y%4#e$,#7'#-'#-"},
    {0x00fac, "##$/#X$b%#l)v`$@qq%&#+K.u$%*'$#)i2#Zu)##c$##`$##c$##b$##c$##b$##c$##`$##c$##`$##c$##b$##c$##b$##c$"},
    {0x01e10, "##Ph*##c$##b$##c$##`$##c$##b$##c$##b$##c$##b$##c$##b$##c$##`$##c$##`$##c$##`$##c$##b$##c$##b$##c$"},
    {0x01e28, "##xh*##c$##b$##c$##`$##c$##b$##c$##^$##c$##b$##c$##b$##c$##`$##c$##b$##c$##b$##c$##b$##c$##`$##c$"},
    {0x01e40, "##qi*##c$##b$##c$##`$##c$##b$##c$##b$##c$##b$##c$##`$##c$##b$##c$##b$##c$##b$##c$##`$##c$##b$##c$"},
    {0x01e58, "##jj*##c$##b$##c$##b$##c$##b$##c$##`$##c$##b$##c$##b$##c$##b$##c$##b$##c$##`$##c$##b$##c$##b$##c$"},
    {0x01e70, "##ik*##c$##`$##c$##b$##c$##b$##c$##b$##c$##b$##c$##`$##c$##b$##c$##`$##c$##b$##c$##b$##c$##b$##c$"},
    {0x01e88, "##fl*##c$##`$##c$##b$##c$##`$##c$##`$##c$##b$##c$##b$##c$##F##;#+)$#m.'#U1##c$##b$##c$##b$##c$##b$"},
    {0x01ea7, "##cm*##b$##c$##b$##c$##b$##c$##b$##c$##b$##c$##b$##c$##b$##c$##b$##c$##Z$##c$##b$##c$##b$##c$##b$"},
    {0x01ebf, "##^n*##b$##c$##b$##c$##b$##c$##b$##c$##Z$##c$##b$##c$##V$##c$##b$##c$##b$##c$##b$##c$##b$##c$##b$"},
    {0x01ed7, "##zn*##b$##c$##b$##c$##b$##c$##b$##c$##b$##c$##b$##c$##V$##c$##b$##c$##b$##c$##b$##c$##b$##c$##b$"},
    {0x01eef, "##qo*##b$##c$##Z$##c$##b$##c$##b$##c$##b$##c$)MlG#Mb$#Ak$%Ab$%Mg$#Mb$#Mg$#Mb$#Ao$%Ab$%Mo$$8b$#Mk$"},
    {0x01f68, "#MnP*#)3#)+#)'#)'#)/#)/#)+%MR$#Mb$#Mo$#Mb$#MZ%#Mb$#;3$)##;b$$#s$%#wE#/tE$)##)f$#/'#/`U*#5uS*%)##5b$"},
    {0x01fdd, "#/e$#5TV*#)*#)+#5b$##*#)tD##X&%/tI$)##)v$#/7##lD%*Xy*f)#iW*&#]I##6d%+|b+5#'A#n%##+##&W$#X%'#-%#):.S$"},
    {0x02241, "##,%#1%#'$#)9#^k+$#dl+-#J#+jk+#*hl+%*=%*))*)%*1%*)E#Y$#*/##'S$*S%#*K)6c$^$*k`&rN#u]$yAj$s`$%4)))1"},
    {0x03073, "#)$$))$))$))9#_%,#w&0j$!%4)))1$))$))$))$))9#_%%6[&&#9rh2 q$zS+# q$%# q$%# q$%# q$%# q$%# q$%# q$%"},
    {0x0be60, "# q$[uN# q$%# q$%# q$%# q$%# q$%# q$%# q$%# q$%# q$%# q$%sY'#wVB##oc,##[S-##u9##yi*##V[+##vc$#)eV6"},
    {0x0f909, "##ZaK##v 1##zZ2##pM##rX%##nW(##m]%##ho$##v3##V1##`y$##kq,##[F##jM##`E## V'##y^&##QW%##[S6##^[$##R{("},
    {0x0f91e, "##UVE##`S(##bR)##^a3##oo'##|g(##vK##Zr,##av*##cj$##[d-##dT%##{j$##ab$##]h*##qf3##z;##U0##mg'##zg$"},
    {0x0f932, "##fWE##SZ$##i]%##fg$##u&##Xy$##a_%##ZS$##z!##vd,##t-##|Q$##Ti$##]v&##lx%##n{'##el/##yh$##Rc*##vQ$"},
    {0x0f946, "##qTE##xk$##YR(##Vj%##so2## K##sd&##|M##q0##pi&##q.##{S)##nR4##Zi.##Vt.##B##nX-##_L##hi$##nn'##mr%"},
    {0x0f95b, "##wRI##yt$##]_+##b`2##md&##cR$##ay'##q8##sn+##Uj,##Vc-##SQ'##_d'##ur*##`v$##[|(##od-##bW$##jq*##U`&"},
    {0x0f96f, "##]P!##|t*##WT,##|w+##gb%##|R+##rx*##Xf'##es,##SB## '##fq(##TW(##za$##cU%##gr$##Tx2##t1##S^$## a$"},
    {0x0f983, "##{_H##^j%##`^%##bY*##yX$##gR$##d%##{[6##eT(##aX$##nS,##o`/##aF##|'##k@##wm%##d;##|G##s^$##aR$##Z!"},
    {0x0f998, "##Ty=##[j%##gu%##wF##te3##Z)##y:##ST*##tR)##o8##ZT.##_0##TK##]S%##dX'##zY%##Q[,##{Q%##T[$##r7##U>"},
    {0x0f9ad, "##awD##V+##_u%##m*##Ph'##VY$##m&##[,##d_5##cm-##_S)##S $##ik0##ul'##f=##Rt%##k&##b`%##XU$##p{$##nU$"},
    {0x0f9c2, "##kg@##vx%##ct&##qb1##VR/##lT4##^](##_(##`_$##c2##q`$##z1##zE##vW$##nx)##Vz4##lZ'##zY0##vr4##U &##_['"},
    {0x0f9d7, "##p{=##tQ/##k6##mp$##Vx%##Xv+##t 4##k8##vT%##Vd%##P1##a2##ZS$##Ut$##W8##Uc%##Z`%##G##e[%##w $##hT4"},
    {0x0f9ec, "##pXF##sp)##yf*##mB##sa'##iY'##xc$##{<##Uy0##ji$##vS(##ys$##s&##d3##pe%##e;##^r)##b^2##x[0##^a/##[%"},
    {0x0fa01, "##j J##gR$##{i)##Rc+##Zd'##{k$##U[-##wq$##_h&##VZ&##Qt-##cc&##YV$%#k@$#di&%#YY(##vb+##[L##u>##g$##1"},
    {0x0fa1b, "##ifC##tg*##ip)##TE$#Rk$$#qZ$%#q^$##r+&#bP%##=##{$##qV$##Q[&##he$##Y{4##y0##h'##x3##Y$##v'##V=##n'"},
    {0x0fa38, "##tbL##|7##l'##fM##7##YR$##c,##o$##d'## I##h)##s*##Z9## [$##[*##q.##V=##b+##`9##dU$##o*##9##$##3##/"},
    {0x0fa51, "##XkC#*V%##y*##x%##X1##S<##M##f%##i0##h)##o8#)Z)##[8##qX$##{(##V3##f%##Z5##`%##fA##s(##wn$##l/##n%"},
    {0x0fa6b, "##pyI##e|o%##qeg%%#PV0##fK##b&##n8##V7##l%##h1## %##PA##X&##Q&##[&##T!##{&##d)##C##P/##t+##oL##1##b)"},
    {0x0fa85, "##rVJ##]0##[(##T&##{(##Q%##f)##z%##s4##y&##b%##i.##p/##[*##+##l%##SR$##x%##a4##Z5##B##w&##Y.##z1##ti$"},
    {0x0fa9e, "##QfE##c(##e(##h1##l)##`%#+R-##k*##E##U$##u&##6##k4##i8##R/##^+##{,##t)##n1##v+##iH##|)## K## 7##S&"},
    {0x0fab8, "##Xk!##Y0##h%##|$##b%##(##D##a&##k&##|3##x;##{0##U0##u,##sP$##j'##U(##y(##k$##;##V%##^C##mV$##u Y%"},
    {0x0fad0, "##wYo$##ky%##weu%##|U$##e$##zP|%##sm%##|j+##_[o%##_&f$#uvI$#U$-54#/T$#B%$<'$.'#.%#.%#6%##L##*##7##5"},
    {0x1109a, "#.$1#7x%*Z)|.)o:V+)d3$##j(*_.u6#mJj :*QiQ$#;#y$*^'#*$#*$zXH#q{W%##,##5##{zc%##Xnc%##e&##=##W&##_("},
    {0x2f809, "##est&##e&##R$##qU*##kpk%##Zed%##1##C##I##nVd%##nbk%##^[*##o$##sWd%##^Wd%##=##_C##pC##5##enZ&##kkZ&"},
    {0x2f81e, "##^dt&##h`*##Rc*##9##{$##-##]c*#+wf*##Y$##O#*9##E##Z%##3##5##U$#+7#)###Wyd%##vj]%##zZ*##M##pUe%##WUe%"},
    {0x2f83a, "##k|s&##M##r)##g'##C##c$##j%##q&##W$##|%##C#)e$##M##G##3##A##U2##S/##V/##s+##i$##_U$##hq$##s/##o$"},
    {0x2f854, "##P|r&##r(##c*##$##e(##Z^f%##T[f%##-##A##K##3##v%##Zjf%##z%##Pgf%##T%##;##f&##^)##h{+##!##VU,#)b%"},
    {0x2f86c, "##V][$##orf%##M##A##;##gRg%##{Qg%##1##iH##]G##q[,##g^,##!##m&##[%##fkg%##acg%##fcg%##iag%##(##E#*f'"},
    {0x2f883, "##nS{&##Vi,##y$##M##{$##mk,##Ynq%##Qmq%##nm,##)##)##K##Pv[&##ns[&#)Q_h%##me_%#)qt+##ao,##fyu%## y."},
    {0x2f899, "##mXq&##5##aq,##fs,## %##7##g$##R)##wy,##^$##S|,##`vh%##Sth%##q(#++##&##R%##K##k$##>##9##T%##K##+"},
    {0x2f8b2, "## hp&##9##z%##q&##i$##g(##[Zi%##S[i%##w%##t'##Y$##^'##v]i%##S[i%##U'##Z$##ze-##fn-##M##a$##n$##_l-"},
    {0x2f8c8, "##^qo&##]$##R{i%##qui%##^/##r*##`y-##j|-##^P.##j$##Rq(##)##ob(##c'##jj)##Sa2##|x+##+##/##p%##8##rbj%"},
    {0x2f8de, "##caz&##f].##X(##U,## %##p j%##] j%##y'##x-## f.##_h.##^'##W&##d+##i]j%## [j%##Qu.##Wx.##Uoj%##ulj%"},
    {0x2f8f2, "##pVz&##`y.##P%#*Y$##wPk%##pd*##ji*##W|j%##Xck%##V^k%##!##g'##s*##s$##h%##a%##s$##A##=##pYk%##]]k%"},
    {0x2f908, "##Xim&##t%##Ud/## h/##*##q^k%##wgk%##j3##j]k%##V%##s[k%##U(##X$##(##sr/##xt/## %##.##b%##{[ %##XU %"},
    {0x2f91d, "##PYQ$##Ugk%##puk%##eok%##=##Y$##k[l%##dYl%##M##yel%##y,##lel%##E##h`0##pa0#)Wa0##ah0##M##M##K##S&"},
    {0x2f933, "##qfy&##tm0##qTm%##iSm%##nWm%##cUm%##s[b%##mTb%##Vqm%##Q$##Z)##mi{%##;##xw0##Qvm%##$##q$##W$#*|vm%"},
    {0x2f947, "##]`k&##y$##gy0##c|0##u{0##i&##ka|%##l]n%##r%##v%##UV1##_u|%##Rin%##Znn%##y$##jmn%##T'##f_1##]c1##7"},
    {0x2f95b, "##yij&##{Vo%#)]0##W]o%##la1##azP&##U_o%##)##pi1##YUQ&##n o%##Up1##Uq1##,##]$##RPp%##lxo%##[r1##pv1"},
    {0x2f96f, "##pmi&##|%##Qz1##k R&##a$##^ R&##ubR&##nYp%##X^p%##{ p%##f'##9##^jp%##[&##fip%##cop%##onp%##j{c%##U]s%"},
    {0x2f982, "##||h&##k&##nb2##^e2##cq,##ppz%##!##VX0##5##dlc%##)##rc&##jP6##Up2##.##G##VU/#+RV/##7##u$##Xeq%##Yeq%"},
    {0x2f999, "##fbh&##U&##]&##U)##v)##w$##|'##h.#+](##C##`eq%##q0##m)##oeT&#+kU3##i$##lSs%##VPs%##luq%##TQU&##+"},
    {0x2f9b0, "##SxE##v/##ZcU&##`b3##;#+9##v%##d$##{(##z$##p)##j&##|%##Y$##^k3##ao3##c$## o3##gs3##)##txr%##lsr%"},
    {0x2f9c7, "##SPg&##cv3##ow3##g]8##hl[&##X+##r[W&##5##{V4##c&##|)##Q,##Sfs%##Zbs%##O##P'##T'##zus%##vUA##^lU%"},
    {0x2f9db, "##jse&##^%##atU%##ZjU%##d'##fSu%##Y$##Yrt%##V'##c$##zzt%##ezt%##n/#*S*##S'##z3##[$##Ybu%##iQu%##[Y6"},
    {0x2f9f0, "##psc&##i`u%##Wh[&##hc6## c1##ig1##n{u%##e,##wi &##3##ti6##sev%##x| &##VV]&#)Sjv%##_$##iuv%##^mv%"},
    {0x2fa03, "##amv&##Qp6##k(##Y$##n%##jr6##lg^&##qew%##c0##b+##] 7##a$##m_7##V^x%## m_&##qo_&##s.##u(##Rcx%##Sj7"},
    {0x2fa17, "##Ufa&##-##1##7##1##m$##dWy%"}
};

static int tfm__unicode_digit(char ch) { return (ch == ' ' ? '\\' : ch == '!' ? '?' : ch) - '#'; }
static uint32_t tfm__unicode_number(const char **p) {   /* base 45, low digits first; 45 more: others follow */
    for (uint32_t v = 0, place = 1;; place *= 45) {
        uint32_t d = (uint32_t)tfm__unicode_digit(*(*p)++);
        v += place * (d % 45);
        if (d < 45) return v;
    }
}
/* The last row that begins at c or before; else the first. */
static const tfm__unicode_row *tfm__unicode_find(const tfm__unicode_row *rows, size_t count, uint32_t c) {
    size_t low = 0, high = count;
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (rows[middle].first <= c) low = middle;
        else high = middle;
    }
    return rows + low;
}
/* What a table makes of c. A run: characters to skip, its shape, how far the first target is. */
static uint32_t tfm__unicode_map(const tfm__unicode_row *rows, size_t count, uint32_t c) {
    const tfm__unicode_row *row = tfm__unicode_find(rows, count, c);
    uint32_t at = row->first, to = at;
    for (const char *p = row->runs; *p;) {
        at += tfm__unicode_number(&p);
        uint32_t shape = tfm__unicode_number(&p), move = tfm__unicode_number(&p);
        uint32_t more = shape / 6, step = shape / 3 % 2 + 1, rise = shape % 3;
        to += move & 1 ? 0u - (move + 1) / 2 : move / 2;
        if (c < at) return c;
        if (c <= at + more * step) return (c - at) % step ? c : to + (c - at) / step * rise;
        at += more * step + 1;
        to += more * rise;
    }
    return c;
}
static uint32_t tfm__unicode_lower_of(uint32_t c) {
    return tfm__unicode_map(tfm__unicode_lower, sizeof tfm__unicode_lower / sizeof *tfm__unicode_lower, c);
}
static uint32_t tfm__unicode_bare_of(uint32_t c) {
    return tfm__unicode_map(tfm__unicode_bare, sizeof tfm__unicode_bare / sizeof *tfm__unicode_bare, c);
}

static uint32_t tfm__unicode_class(uint32_t c) {
    const tfm__unicode_row *row = tfm__unicode_find(tfm__unicode, sizeof tfm__unicode / sizeof *tfm__unicode, c);
    uint32_t at = row->first;
    for (const char *p = row->runs; *p; p++) {
        int v = tfm__unicode_digit(*p), length = v % 13 + 1;
        if (length == 13) {             /* two digits follow */
            length += tfm__unicode_digit(p[1]) + 91 * tfm__unicode_digit(p[2]);
            p += 2;
        }
        at += (uint32_t)length;
        if (c < at) return 1u << v / 13;
    }
    return TFM__OTHER;
}

/* ---- Chat templates ---------------------------------------------------------------- [IMPL.CHAT]
   One row per style: what recognises its template, and what stands before and after each content. */

enum {
    TFM__CHAT_BOS = 1,                  /* BOS at the beginning; with FIND, if the template names bos_token */
    TFM__CHAT_FIND = 2,
    TFM__CHAT_ALTERNATE = 4,            /* after an optional system message: user, assistant, user ... */
    TFM__CHAT_NO_SYSTEM = 8,
    TFM__CHAT_SYSTEM_FIRST = 16,        /* the system message stands in the first user message, */
    TFM__CHAT_SYSTEM_LAST = 32,         /* or in the last message, if that is a user's */
    TFM__CHAT_SYSTEM_ALWAYS = 64,       /* without one: as if it were empty */
    TFM__CHAT_SYSTEM_NEEDED = 128,      /* the template's own cannot be told */
    TFM__CHAT_TRIM = 256,               /* contents lose white space at both ends; only the assistant's: */
    TFM__CHAT_TRIM_ASSISTANT = 512,
    TFM__CHAT_THOUGHTS = 1024,          /* of the assistant's messages only what follows </think> is kept */
    TFM__CHAT_DEFAULT = 2048,           /* the template may hold a system message */
    TFM__CHAT_END = 4096,               /* EOS at the end if no prompt follows; found in the template */
    TFM__CHAT_PROMPT = 8192,            /* the prompt always follows: nothing asks for it; found in the template */
    TFM__CHAT_DATE = 16384              /* the date given is written; found in the template */
};

/* In what is written, \1 stands for BOS, \2 for EOS, \3 for the date. Rows whose name ends in -first are
   of templates that were published first and replaced later. */
typedef struct tfm__chat_style {
    const char *name, *has[2], *lacks[4];                  /* recognised by */
    unsigned flags;
    const char *system[2], *user[2], *assistant[2], *prompt;
} tfm__chat_style;

static const tfm__chat_style tfm__chat_styles[] = {
    {"phi4-first", {"<|im_end|><|im_start|>assistant<|im_sep|>", NULL}, {NULL}, 0,
     {"<|im_start|>system<|im_sep|>", "<|im_end|>"},
     {"<|im_start|>user<|im_sep|>", "<|im_end|><|im_start|>assistant<|im_sep|>"}, {"", "<|im_end|>"}, ""},
    {"phi4", {"<|im_sep|>", NULL}, {NULL}, 0,
     {"<|im_start|>system<|im_sep|>", "<|im_end|>"}, {"<|im_start|>user<|im_sep|>", "<|im_end|>"},
     {"<|im_start|>assistant<|im_sep|>", "<|im_end|>"}, "<|im_start|>assistant<|im_sep|>"},
    {"qwen3", {"<|im_start|>", "content.split('</think>')[-1].lstrip('\n')"}, {"assistant\n<think>", "'<think>\n' }}"},
     TFM__CHAT_FIND | TFM__CHAT_BOS | TFM__CHAT_THOUGHTS,
     {"<|im_start|>system\n", "<|im_end|>\n"}, {"<|im_start|>user\n", "<|im_end|>\n"},
     {"<|im_start|>assistant\n", "<|im_end|>\n"}, "<|im_start|>assistant\n"},
    {"chatml", {"<|im_start|>", "<|im_end|>\n\1<|im_end|>' + '\n\1<|im_end|>\" + \"\n"},
     {"<end_of_utterance>", "strftime_now", "<think>", "<|im_middle|>"},
     TFM__CHAT_FIND | TFM__CHAT_BOS | TFM__CHAT_DEFAULT,
     {"<|im_start|>system\n", "<|im_end|>\n"}, {"<|im_start|>user\n", "<|im_end|>\n"},
     {"<|im_start|>assistant\n", "<|im_end|>\n"}, "<|im_start|>assistant\n"},
    {"mistral-v7-tekken", {"[SYSTEM_PROMPT]", "default_system_message"}, {NULL},
     TFM__CHAT_BOS | TFM__CHAT_ALTERNATE | TFM__CHAT_SYSTEM_NEEDED,
     {"[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"}, {"[INST]", "[/INST]"}, {"", "\2"}, ""},
    {"mistral-v7", {"[SYSTEM_PROMPT] ", "[INST] "}, {NULL}, TFM__CHAT_BOS,
     {"[SYSTEM_PROMPT] ", "[/SYSTEM_PROMPT]"}, {"[INST] ", "[/INST]"}, {" ", "\2"}, ""},
    {"llama2", {"<<SYS>>", "bos_token + '[INST] ' + content.strip()"}, {NULL},
     TFM__CHAT_ALTERNATE | TFM__CHAT_SYSTEM_FIRST | TFM__CHAT_TRIM,
     {"<<SYS>>\n", "\n<</SYS>>\n\n"}, {"\1[INST] ", " [/INST]"}, {" ", " \2"}, ""},
    {"mistral-v1", {"' [INST] ' + system_message", NULL}, {NULL},
     TFM__CHAT_BOS | TFM__CHAT_ALTERNATE | TFM__CHAT_SYSTEM_FIRST,
     {"", "\n\n"}, {" [INST] ", " [/INST]"}, {" ", "\2"}, ""},
    {"mistral-v3", {"\"[INST] \" + system_message", "|trim + eos_token"}, {NULL},
     TFM__CHAT_BOS | TFM__CHAT_ALTERNATE | TFM__CHAT_SYSTEM_LAST | TFM__CHAT_TRIM_ASSISTANT,
     {"", "\n\n"}, {"[INST] ", "[/INST]"}, {" ", "\2"}, ""},
    {"mistral-v3-tekken", {"\"[INST]\" + system_message", NULL}, {NULL},
     TFM__CHAT_BOS | TFM__CHAT_ALTERNATE | TFM__CHAT_SYSTEM_LAST,
     {"", "\n\n"}, {"[INST]", "[/INST]"}, {"", "\2"}, ""},
    {"mistral-first", {"'[INST] ' + message['content'] + ' [/INST]'", "eos_token + ' '"}, {"<<SYS>>"},
     TFM__CHAT_BOS | TFM__CHAT_ALTERNATE | TFM__CHAT_NO_SYSTEM,
     {"", ""}, {"[INST] ", " [/INST]"}, {"", "\2 "}, ""},
    {"mistral-v0", {"'[INST] ' + message['content'] + ' [/INST]'", NULL}, {"<<SYS>>"},
     TFM__CHAT_BOS | TFM__CHAT_ALTERNATE | TFM__CHAT_NO_SYSTEM,
     {"", ""}, {"[INST] ", " [/INST]"}, {"", "\2"}, ""},
    {"llama3.1", {"<|start_header_id|>", "Today Date: "}, {NULL},
     TFM__CHAT_BOS | TFM__CHAT_SYSTEM_ALWAYS | TFM__CHAT_TRIM,
     {"<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: \3\n\n",
      "<|eot_id|>"}, {"<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"},
     {"<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"},
     "<|start_header_id|>assistant<|end_header_id|>\n\n"},
    {"llama3", {"'<|start_header_id|>' + message['role'] + '<|end_header_id|>", "| trim + '<|eot_id|>'"}, {"tools"},
     TFM__CHAT_FIND | TFM__CHAT_BOS | TFM__CHAT_TRIM,
     {"<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"},
     {"<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"},
     {"<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"},
     "<|start_header_id|>assistant<|end_header_id|>\n\n"},
    {"gemma3", {"<start_of_turn>", "first_user_prefix"}, {NULL},
     TFM__CHAT_FIND | TFM__CHAT_BOS | TFM__CHAT_ALTERNATE | TFM__CHAT_SYSTEM_FIRST | TFM__CHAT_TRIM,
     {"", "\n\n"}, {"<start_of_turn>user\n", "<end_of_turn>\n"}, {"<start_of_turn>model\n", "<end_of_turn>\n"},
     "<start_of_turn>model\n"},
    {"gemma", {"<start_of_turn>", "System role not supported"}, {NULL},
     TFM__CHAT_FIND | TFM__CHAT_BOS | TFM__CHAT_ALTERNATE | TFM__CHAT_NO_SYSTEM | TFM__CHAT_TRIM,
     {"", ""}, {"<start_of_turn>user\n", "<end_of_turn>\n"}, {"<start_of_turn>model\n", "<end_of_turn>\n"},
     "<start_of_turn>model\n"},
    {"phi3-first", {"<|end|>", "'<|end|>' + '\n' + '<|assistant|>' + '\n'"}, {NULL},
     TFM__CHAT_FIND | TFM__CHAT_BOS | TFM__CHAT_NO_SYSTEM,
     {"", ""}, {"<|user|>\n", "<|end|>\n<|assistant|>\n"}, {"", "<|end|>\n"}, ""},
    {"phi3", {"<|assistant|>", "<|end|>"}, {"messages[-1]", "FINAL RESPONSE", "'|>' + message['content']"},
     TFM__CHAT_FIND | TFM__CHAT_BOS,
     {"<|system|>\n", "<|end|>\n"}, {"<|user|>\n", "<|end|>\n"}, {"<|assistant|>\n", "<|end|>\n"}, "<|assistant|>\n"},
    {"zephyr", {"'<|user|>\n' + message['content'] + eos_token }}\n", NULL}, {NULL}, 0,
     {"<|system|>\n", "\2\n"}, {"<|user|>\n", "\2\n"}, {"<|assistant|>\n", "\2\n"}, "<|assistant|>\n"}
};

static size_t tfm__str_find(tfm_string s, const char *part) {              /* SIZE_MAX: nowhere */
    size_t n = strlen(part);
    for (size_t i = 0; i + n <= s.size; i++)
        if (memcmp(s.data + i, part, n) == 0) return i;
    return SIZE_MAX;
}
/* Bytes of the end of a line that s begins with, which a template may write as two characters, or 0. */
static size_t tfm__chat_newline(tfm_string s) {
    if (s.size > 1 && s.data[0] == '\\' && s.data[1] == 'n') return 2;
    return s.size && *s.data == '\n';
}
/* Does s begin with the part, which ends with \1 or NUL? */
static bool tfm__chat_begins(tfm_string s, const char *part) {
    for (size_t n; *part && *part != 1; part++, s.data += n, s.size -= n) {
        n = !s.size ? 0 : *part == '\n' ? tfm__chat_newline(s) : *part == *s.data;
        if (!n) return false;
    }
    return true;
}
/* Does it hold one of the parts, with \1 between two? */
static bool tfm__chat_has(tfm_string jinja, const char *parts) {
    for (;; parts++) {
        tfm_string rest = jinja;
        for (; rest.size; rest.data++, rest.size--)
            if (tfm__chat_begins(rest, parts)) return true;
        while (*parts && *parts != 1) parts++;
        if (!*parts) return false;
    }
}

static bool tfm__chat_matches(tfm_string jinja, const tfm__chat_style *s) {
    if (tfm__str_eq(jinja, s->name)) return true;
    for (int i = 0; i < 2; i++)
        if (s->has[i] && !tfm__chat_has(jinja, s->has[i])) return false;
    for (int i = 0; i < 4; i++)
        if (s->lacks[i] && tfm__chat_has(jinja, s->lacks[i])) return false;
    return true;
}
/* A ChatML template's own system message stands in it as it is written: <|im_start|>system\nText<|im_end|>. */
static tfm_string tfm__chat_default(tfm_string jinja) {
    static const char begin[] = "<|im_start|>system", end[] = "<|im_end|>";
    for (size_t at; (at = tfm__str_find(jinja, begin)) != SIZE_MAX;) {
        jinja.data += at + sizeof begin - 1;
        jinja.size -= at + sizeof begin - 1;
        size_t skip = tfm__chat_newline(jinja);
        tfm_string text = jinja;
        text.data += skip;
        text.size = tfm__str_find(jinja, end);
        if (!skip || text.size == SIZE_MAX || (text.size -= skip) == 0) continue;
        if (!memchr(text.data, '\'', text.size) && !memchr(text.data, '"', text.size) &&
            !memchr(text.data, '{', text.size)) return text;
    }
    return tfm__str("");
}
TFMDEF tfm_status tfm_chat_init(tfm_chat *chat, tfm_string jinja, const tfm_tokenizer *t, tfm_error *err) {
    tfm_error local, *e = tfm__begin(err, &local);
    if (!chat || !t || (!jinja.data && jinja.size)) {
        tfm__fail(e, TFM_ARGUMENT, "chat: no %s", !chat ? "place for it" : t ? "template" : "tokenizer");
        return e->status;
    }
    memset(chat, 0, sizeof *chat);
    for (size_t i = 0; i < sizeof tfm__chat_styles / sizeof *tfm__chat_styles && !chat->style; i++)
        if (tfm__chat_matches(jinja, &tfm__chat_styles[i])) chat->style = &tfm__chat_styles[i];
    if (!chat->style) {
        tfm_string shown = jinja;
        if (shown.size > 60) shown.size = 60;
        tfm__fail(e, TFM_UNSUPPORTED, "the chat template '%q%s' is none that is known", &shown,
                  shown.size < jinja.size ? " ..." : "");
        return e->status;
    }
    bool named = tfm__str_eq(jinja, chat->style->name);
    chat->flags = chat->style->flags;
    if (chat->flags & TFM__CHAT_FIND && !tfm__chat_has(jinja, "bos_token")) chat->flags &= ~(unsigned)TFM__CHAT_BOS;
    if (chat->flags & TFM__CHAT_DEFAULT) {
        chat->system = tfm__chat_default(jinja);
        if (tfm__chat_has(jinja, "'] | trim + '<|im_end|>\1'].strip() + '<|im_end|>")) chat->flags |= TFM__CHAT_TRIM;
    }
    if (tfm__chat_has(jinja, "{% else %}{{ eos_token }}")) chat->flags |= TFM__CHAT_END;
    if (!named && !tfm__chat_has(jinja, "add_generation_prompt")) chat->flags |= TFM__CHAT_PROMPT;
    if (named || tfm__chat_has(jinja, "strftime_now")) chat->flags |= TFM__CHAT_DATE;
    chat->bos = tfm_token_text(t, t->bos);
    chat->eos = tfm_token_text(t, t->eos);
    return TFM_OK;
}
TFMDEF const char *tfm_chat_name(const tfm_chat *chat) { return chat && chat->style ? chat->style->name : ""; }

typedef struct tfm__chat_writer {
    const tfm_chat *chat;
    char *out;
    size_t capacity, size;
    tfm_span *span;                     /* of the next content; NULL: nobody asks */
} tfm__chat_writer;

static void tfm__chat_put(tfm__chat_writer *w, tfm_string s) {
    if (w->size < w->capacity && s.size) memcpy(w->out + w->size, s.data, tfm__min_size(s.size, w->capacity - w->size));
    w->size += s.size;
}
static void tfm__chat_markup(tfm__chat_writer *w, const char *p) {
    for (size_t n; *p; p += n) {
        for (n = 0; (unsigned char)p[n] > 3; n++) {}
        tfm_string s = {p, n};
        tfm__chat_put(w, s);
        if (!p[n]) break;
        const char *date = w->chat->flags & TFM__CHAT_DATE && w->chat->date ? w->chat->date : "26 Jul 2024";
        tfm__chat_put(w, p[n] == 1 ? w->chat->bos : p[n] == 2 ? w->chat->eos : tfm__str(date));
        n++;
    }
}
static void tfm__chat_content(tfm__chat_writer *w, tfm_string s) {
    size_t begin = w->size;
    tfm__chat_put(w, s);
    if (!w->span) return;
    w->span->begin = begin;
    w->span++->end = w->size;
}

/* White space at the ends as Python's strip has it: U+001C to U+001F too. */
static bool tfm__chat_space(tfm_string s, size_t at, int *length) {
    uint32_t c = tfm__utf8_decode((const uint8_t *)s.data + at, s.size - at, length);
    return tfm__char_class(c) == TFM__SPACE || (c >= 0x1c && c <= 0x1f);
}
static tfm_string tfm__chat_trim(tfm_string s, bool left, bool right) {
    int length;
    while (left && s.size && tfm__chat_space(s, 0, &length)) { s.data += length; s.size -= (size_t)length; }
    while (right && s.size) {
        size_t at = s.size - 1;
        while (at && ((unsigned char)s.data[at] & 0xc0) == 0x80) at--;
        if (!tfm__chat_space(s, at, &length) || at + (size_t)length != s.size) break;
        s.size = at;
    }
    return s;
}
static tfm_string tfm__chat_answer(const tfm_chat *chat, tfm_string s) {
    for (size_t at; chat->flags & TFM__CHAT_THOUGHTS && (at = tfm__str_find(s, "</think>")) != SIZE_MAX;) {
        s.data += at + 8;
        s.size -= at + 8;
        while (s.size && *s.data == '\n') { s.data++; s.size--; }
    }
    return s;
}

/* Which of the template's roles a message has, if it may stand at its place. */
enum { TFM__CHAT_IS_SYSTEM, TFM__CHAT_IS_USER, TFM__CHAT_IS_ASSISTANT };

static int tfm__chat_role(const tfm_chat *chat, const tfm_turn *m, int64_t i, bool last, bool system,
                          tfm_error *e) {
    static const char *const roles[] = {"system", "user", "assistant"};
    unsigned apart = TFM__CHAT_ALTERNATE | TFM__CHAT_SYSTEM_FIRST | TFM__CHAT_SYSTEM_ALWAYS;
    int role = 0;
    if (!m->role || !m->content) { tfm__fail(e, TFM_ARGUMENT, "message %i: no role or content", i); return -1; }
    while (role < 3 && !tfm__str_eq(tfm__str(m->role), roles[role])) role++;
    if (role == 3)
        tfm__fail(e, TFM_ARGUMENT, "message %i: the role '%s' is not system, user or assistant", i, m->role);
    else if (role == TFM__CHAT_IS_ASSISTANT && last && chat->flags & TFM__CHAT_THOUGHTS)
        tfm__fail(e, TFM_UNSUPPORTED, "message %i: at the end the chat template %s adds thoughts to an assistant's",
                  i, chat->style->name);
    else if (role == TFM__CHAT_IS_SYSTEM && (chat->flags & TFM__CHAT_NO_SYSTEM || (i && chat->flags & apart)))
        tfm__fail(e, TFM_UNSUPPORTED, "message %i: the chat template %s has %s", i, chat->style->name,
                  chat->flags & TFM__CHAT_NO_SYSTEM ? "no system message" : "a system message at the beginning only");
    else if (role && chat->flags & TFM__CHAT_ALTERNATE && (role == TFM__CHAT_IS_USER) != ((i - system) % 2 == 0))
        tfm__fail(e, TFM_ARGUMENT, "message %i: the chat template %s wants user and assistant in turns", i,
                  chat->style->name);
    return e->status == TFM_OK ? role : -1;
}
static void tfm__chat_message(tfm__chat_writer *w, int role, tfm_string s, const char *system) {
    const tfm__chat_style *style = w->chat->style;
    unsigned flags = w->chat->flags;
    bool trim = flags & TFM__CHAT_TRIM || (flags & TFM__CHAT_TRIM_ASSISTANT && role == TFM__CHAT_IS_ASSISTANT);
    bool joined = system && style->system[0][0];           /* to llama2 both are one content */
    const char *const *around = role == TFM__CHAT_IS_SYSTEM ? style->system
                              : role == TFM__CHAT_IS_USER ? style->user : style->assistant;
    tfm__chat_markup(w, around[0]);
    if (role == TFM__CHAT_IS_ASSISTANT) s = tfm__chat_answer(w->chat, s);
    if (trim) s = tfm__chat_trim(s, !joined, true);
    if (system) {
        tfm__chat_markup(w, style->system[0]);
        tfm__chat_content(w, tfm__str(system));
        tfm_string after = tfm__str(style->system[1]);
        tfm__chat_put(w, tfm__chat_trim(after, false, joined && !s.size));
    }
    tfm__chat_content(w, s);
    tfm__chat_markup(w, around[1]);
}
/* The template's own text, in which a line's end may be written \n. */
static void tfm__chat_own_system(tfm__chat_writer *w) {
    tfm_string s = w->chat->system;
    tfm__chat_markup(w, w->chat->style->system[0]);
    for (size_t at; (at = tfm__str_find(s, "\\n")) != SIZE_MAX; s.data += at + 2, s.size -= at + 2) {
        tfm_string line = {s.data, at};
        tfm__chat_put(w, line);
        tfm__chat_put(w, tfm__str("\n"));
    }
    tfm__chat_put(w, s);
    tfm__chat_markup(w, w->chat->style->system[1]);
}
TFMDEF int64_t tfm_chat_apply(const tfm_chat *chat, const tfm_turn *messages, int64_t count, bool prompt,
                              char *out, size_t capacity, tfm_span *contents, tfm_error *err) {
    tfm_error local, *e = tfm__begin(err, &local);
    if (!chat || !chat->style || !messages || count < 1) {
        tfm__fail(e, TFM_ARGUMENT, "chat: no %s", chat && chat->style ? "message" : "template");
        return -1;
    }
    tfm__chat_writer w = {chat, out, out ? capacity : 0, 0, contents};
    unsigned flags = chat->flags;
    bool system = tfm__str_eq(tfm__str(messages[0].role), "system");
    bool inside = system && flags & (TFM__CHAT_SYSTEM_FIRST | TFM__CHAT_SYSTEM_LAST);
    if (!system && flags & TFM__CHAT_SYSTEM_NEEDED) {
        tfm__fail(e, TFM_ARGUMENT, "the chat template %s needs a system message", chat->style->name);
        return -1;
    }
    if (flags & TFM__CHAT_BOS) tfm__chat_put(&w, chat->bos);
    if (!system && chat->system.size) tfm__chat_own_system(&w);
    if (!system && flags & TFM__CHAT_SYSTEM_ALWAYS) {
        tfm__chat_markup(&w, chat->style->system[0]);
        tfm__chat_markup(&w, chat->style->system[1]);
    }
    for (int64_t i = 0; i < count; i++) {
        int role = tfm__chat_role(chat, &messages[i], i, i == count - 1, system, e);
        if (role < 0) return -1;
        if (role == TFM__CHAT_IS_SYSTEM && inside) continue;
        bool here = role == TFM__CHAT_IS_USER && i == (flags & TFM__CHAT_SYSTEM_FIRST ? 1 : count - 1);
        tfm__chat_message(&w, role, tfm__str(messages[i].content), inside && here ? messages[0].content : NULL);
    }
    if (prompt || flags & TFM__CHAT_PROMPT) tfm__chat_markup(&w, chat->style->prompt);
    else if (flags & TFM__CHAT_END) tfm__chat_put(&w, chat->eos);
    while (contents && w.span < contents + count) w.span->begin = w.span->end = w.size, w.span++;
    return (int64_t)w.size;
}
TFMDEF int64_t tfm_chat_tokenize(tfm_context *c, const tfm_tokenizer *t, const tfm_chat *chat,
                                 const tfm_turn *messages, int64_t count, bool prompt, int32_t *ids,
                                 int64_t capacity) {
    if (!c || c->err.status != TFM_OK) return -1;
    int64_t size = tfm_chat_apply(chat, messages, count, prompt, NULL, 0, NULL, &c->err), n = -1;
    if (size < 0) return -1;
    tfm_mark mark = tfm_arena_mark(c);
    char *text = (char *)tfm__arena(c, (size_t)size, 1);
    tfm_span *plain = (tfm_span *)tfm__arena(c, (size_t)count, sizeof *plain);
    if (c->err.status == TFM_OK) {
        tfm_tokenize_opts o = {false, true, plain, count};
        if (!c->measure) tfm_chat_apply(chat, messages, count, prompt, text, (size_t)size, plain, &c->err);
        n = tfm_tokenize(c, t, text, (size_t)size, &o, ids, capacity);
    }
    tfm_arena_rewind(c, mark);
    return n;
}
#endif /* TFM_NO_TOKENIZER */

#ifndef TFM_NO_MODEL
/* ---- Models ------------------------------------------------------------------------ [IMPL.MODEL]
   One row per architecture; what a row does not say, the file's metadata and tensors do: biases,
   fused Q/K/V, an output of its own, grouped heads.                                             */

enum {                                  /* what an architecture is: the bits of tfm__arch.is */
    TFM__LAYER_NORM = 1,                /* LayerNorm, else RMSNorm */
    TFM__LEARNED = 2,                   /* positions from a table, else rotary */
    TFM__HALF_SPLIT = 4,                /* pairs of the rotation lie half a head apart, else side by side */
    TFM__PLAIN = 8,                     /* an MLP without a gate */
    TFM__FUSED_GATE = 16,               /* ffn_up holds the gate's rows, then its own */
    TFM__PARALLEL = 32,                 /* MLP and attention read the same x, unless use_parallel_residual is false */
    TFM__ONE_NORM = 64,                 /* without ffn_norm the MLP reads what attention reads */
    TFM__NORM_2 = 128,                  /* with attn_norm_2 attention reads that, and the MLP attn_norm */
    TFM__POST_NORM = 256,               /* norms of what attention and MLP give, too */
    TFM__NO_PRE_NORM = 512,             /* or only these */
    TFM__SCALED_EMBEDDING = 1024,       /* by sqrt(D) */
    TFM__CAPPED = 2048,                 /* soft caps of 50 and 30 and a window of 4096, unless keys say otherwise */
    TFM__LOCAL_BASE = 4096,             /* layers with a window rotate by base 10000, unless a key says otherwise */
    TFM__RAW_EXPERTS = 8192,            /* the weights of the chosen experts need not sum to 1 */
    TFM__SUM_NORM = 16384,              /* only norms of the residual sums, as in the first transformers */
    TFM__ENCODER = 32768,               /* positions see later ones; the result is pooled, there are no logits */
    TFM__ROPE_SWITCH = 65536            /* no layer rotates if rope.scaling.finetuned is false */
};
/* A norm of queries and keys before the rotation: of each head, of the whole row, or of each head
   with a weight of its own, which may be missing. */
enum { TFM__QK_NONE, TFM__QK_HEAD, TFM__QK_ROW, TFM__QK_EACH };

typedef struct tfm__arch {
    const char *name;                   /* general.architecture, and the prefix of its keys */
    tfm__unary activation;
    int is, qk_norm;
    int global_every;                   /* unless a key says otherwise: see tfm_hparams */
    int unrotated_every;                /* each such layer does not rotate; 0: all do */
    int wide_layers;                    /* the model of so many layers scales scores by 1/sqrt(D/H) */
} tfm__arch;

static const tfm__arch tfm__archs[] = {
    { "gpt2", TFM__GELU_TANH, TFM__LAYER_NORM | TFM__LEARNED | TFM__PLAIN, TFM__QK_NONE, 0, 0, 0 },
    { "llama", TFM__SILU, 0, TFM__QK_NONE, 0, 0, 0 },
    { "qwen2", TFM__SILU, TFM__HALF_SPLIT, TFM__QK_NONE, 0, 0, 0 },
    { "qwen3", TFM__SILU, TFM__HALF_SPLIT, TFM__QK_HEAD, 0, 0, 0 },
    { "qwen3moe", TFM__SILU, TFM__HALF_SPLIT, TFM__QK_HEAD, 0, 0, 0 },
    { "gemma", TFM__GELU_TANH, TFM__HALF_SPLIT | TFM__SCALED_EMBEDDING, TFM__QK_NONE, 0, 0, 0 },
    { "gemma2", TFM__GELU_TANH, TFM__HALF_SPLIT | TFM__SCALED_EMBEDDING | TFM__POST_NORM | TFM__CAPPED, TFM__QK_NONE,
      2, 0, 46 },
    { "gemma3", TFM__GELU_TANH, TFM__HALF_SPLIT | TFM__SCALED_EMBEDDING | TFM__POST_NORM | TFM__LOCAL_BASE,
      TFM__QK_HEAD, 6, 0, 62 },
    { "phi2", TFM__GELU_TANH, TFM__LAYER_NORM | TFM__HALF_SPLIT | TFM__PLAIN | TFM__ONE_NORM, TFM__QK_NONE, 0, 0, 0 },
    { "phi3", TFM__SILU, TFM__HALF_SPLIT | TFM__FUSED_GATE, TFM__QK_NONE, 0, 0, 0 },
    { "gptneox", TFM__GELU, TFM__LAYER_NORM | TFM__HALF_SPLIT | TFM__PLAIN | TFM__PARALLEL, TFM__QK_NONE, 0, 0, 0 },
    { "falcon", TFM__GELU, TFM__LAYER_NORM | TFM__HALF_SPLIT | TFM__PLAIN | TFM__PARALLEL | TFM__NORM_2, TFM__QK_NONE,
      0, 0, 0 },
    { "stablelm", TFM__SILU, TFM__LAYER_NORM | TFM__HALF_SPLIT | TFM__ONE_NORM, TFM__QK_EACH, 0, 0, 0 },
    { "starcoder2", TFM__GELU_TANH, TFM__LAYER_NORM | TFM__HALF_SPLIT | TFM__PLAIN, TFM__QK_NONE, 0, 0, 0 },
    { "olmo2", TFM__SILU, TFM__HALF_SPLIT | TFM__POST_NORM | TFM__NO_PRE_NORM, TFM__QK_ROW, 4, 0, 0 },
    { "olmoe", TFM__SILU, TFM__HALF_SPLIT | TFM__RAW_EXPERTS, TFM__QK_ROW, 0, 0, 0 },
    { "smollm3", TFM__SILU, 0, TFM__QK_NONE, 0, 4, 0 },
    { "granite", TFM__SILU, TFM__ROPE_SWITCH, TFM__QK_NONE, 0, 0, 0 },
    { "granitemoe", TFM__SILU, TFM__ROPE_SWITCH, TFM__QK_NONE, 0, 0, 0 },
    { "bert", TFM__GELU, TFM__LAYER_NORM | TFM__LEARNED | TFM__PLAIN | TFM__SUM_NORM | TFM__ENCODER, TFM__QK_NONE,
      0, 0, 0 },
    { "nomic-bert", TFM__SILU, TFM__LAYER_NORM | TFM__HALF_SPLIT | TFM__SUM_NORM | TFM__ENCODER, TFM__QK_NONE,
      0, 0, 0 },
};

typedef struct tfm__linear {            /* a norm too: weight and bias [D] */
    tfm_tensor w, b;
    const char *interleaved;            /* the weight's rows interleaved by eight, or NULL */
} tfm__linear;

enum { TFM__LAYER_TENSORS = 5 };        /* that a layer has at least: a norm, qkv, output, up, down */
typedef struct tfm__layer {
    tfm__linear attn_norm, attn_q, attn_k, attn_v, q_norm, k_norm, attn_output, attn_post;
    tfm__linear ffn_norm, ffn_gate, ffn_up, ffn_down, ffn_post;     /* no gate: a plain MLP */
    tfm__linear router;                 /* [experts, D], or none; with it gate, up and down are [experts, ., .] */
    int32_t window;                     /* 0: none */
    int rope;                           /* which angles: 0 hp.rope, 1 hp.local_rope, -1 none */
    bool parallel;
} tfm__layer;

struct tfm_model {
    tfm_file *file;
#ifndef TFM_NO_TOKENIZER
    tfm_tokenizer *tokenizer;           /* NULL: none in the file */
#endif
    tfm_allocator allocator;
    bool owns_memory;                   /* else everything lies in the caller's */
    const tfm__arch *arch;
    tfm_hparams hp;
    tfm_tensor token_embd, position_embd, token_types;      /* [V, D], [context, D], [types, D] */
    tfm__linear embd_norm, output_norm, output;
    tfm__layer *layers;
    float *freq_factors;                /* [2, rope_dims / 2] */
    const float *long_factors;          /* its second row, for sessions above the original context; or NULL */
    bool local_rope;                    /* some layer rotates by hp.local_rope */
    char *interleaved;                  /* repacked weights, or NULL */
};

/* Metadata: "<architecture>.<key>". */
typedef struct tfm__reader { const tfm_file *file; const char *arch; tfm_error *err; } tfm__reader;

static bool tfm__key_value(const tfm__reader *r, const char *key, char *name, size_t size, tfm_value *v) {
    size_t a = strlen(r->arch), n = strlen(key);
    if (a + n + 2 > size) return false;
    memcpy(name, r->arch, a);
    name[a] = '.';
    memcpy(name + a + 1, key, n + 1);
    return tfm_file_meta(r->file, name, v);
}
static int32_t tfm__key_int(const tfm__reader *r, const char *key, int32_t low, int32_t high, int32_t missing) {
    char name[96];
    tfm_value v;
    uint64_t u;
    if (!tfm__key_value(r, key, name, sizeof name, &v)) {
        if (missing < low) tfm__fail(r->err, TFM_MISMATCH, "%s: the key is missing", name);
        return missing;
    }
    if (!tfm_value_u64(&v, &u)) tfm__fail(r->err, TFM_MISMATCH, "%s: not a whole number of at least 0", name);
    else if (u < (uint64_t)low || u > (uint64_t)high) tfm__fail(r->err, TFM_MISMATCH,
            "%s is %u, not between %i and %i", name, u, (int64_t)low, (int64_t)high);
    else return (int32_t)u;
    return low;
}
static float tfm__key_float(const tfm__reader *r, const char *key, float low, float high, float missing) {
    char name[96];
    tfm_value v;
    double d;
    if (!tfm__key_value(r, key, name, sizeof name, &v)) {
        if (missing < low) tfm__fail(r->err, TFM_MISMATCH, "%s: the key is missing", name);
        return missing;
    }
    if (tfm_value_f64(&v, &d) && d >= (double)low && d <= (double)high) return (float)d;
    tfm__fail(r->err, TFM_MISMATCH, "%s: not a number in its range", name);
    return low;
}
/* A key that is true or false; true if it is missing. */
static bool tfm__key_flag(const tfm__reader *r, const char *key) {
    char name[96];
    tfm_value v;
    bool flag = true;
    if (tfm__key_value(r, key, name, sizeof name, &v) && !tfm_value_bool(&v, &flag))
        tfm__fail(r->err, TFM_MISMATCH, "%s: neither true nor false", name);
    return flag;
}
static void tfm__rope_hparams(const tfm__reader *r, tfm_hparams *hp, const tfm__arch *arch) {
    char name[96];
    tfm_value v;
    tfm_string kind = tfm__str("");
    if (arch->is & TFM__LEARNED) return;
    hp->rope_dims = tfm__key_int(r, "rope.dimension_count", 2, hp->key_size, hp->key_size);
    if (hp->rope_dims % 2) tfm__fail(r->err, TFM_MISMATCH, "%s.rope.dimension_count is %i, which is odd", r->arch,
                                     (int64_t)hp->rope_dims);
    hp->rope.half_split = (arch->is & TFM__HALF_SPLIT) != 0;
    hp->rope.dims = hp->rope_dims;
    hp->rope.base = tfm__key_float(r, "rope.freq_base", 1e-3f, 1e30f, 10000.0f);
    hp->rope.factor = tfm__key_float(r, "rope.scale_linear", 0, 1e9f, 1.0f);            /* its old name */
    hp->rope.factor = tfm__key_float(r, "rope.scaling.factor", 0, 1e9f, hp->rope.factor);
    if (hp->rope.factor < 1e-6f) hp->rope.factor = 1;   /* 0: none */
    if (tfm__key_value(r, "rope.scaling.type", name, sizeof name, &v) && !tfm_value_string(&v, &kind))
        tfm__fail(r->err, TFM_MISMATCH, "%s: not a string", name);
    bool stretched = hp->rope.factor < 1.0f || hp->rope.factor > 1.0f;
    if (tfm__str_eq(kind, "yarn")) hp->rope.scaling = TFM_ROPE_YARN;
    else if (tfm__str_eq(kind, "linear") || (tfm__str_eq(kind, "") && stretched)) hp->rope.scaling = TFM_ROPE_LINEAR;
    else if (!tfm__str_eq(kind, "") && !tfm__str_eq(kind, "none") && !tfm__str_eq(kind, "longrope"))
        tfm__fail(r->err, TFM_UNSUPPORTED,
            "%s.rope.scaling.type \"%q\" is not supported", r->arch, &kind);
    hp->rope.original_context = tfm__key_int(r, "rope.scaling.original_context_length", 1, INT32_MAX, hp->context);
    hp->rope.attn_factor = tfm__key_float(r, "rope.scaling.attn_factor", 1e-3f, 1e3f, 1.0f);
    hp->rope.beta_fast = tfm__key_float(r, "rope.scaling.yarn_beta_fast", 1e-3f, 1e6f, 32.0f);
    hp->rope.beta_slow = tfm__key_float(r, "rope.scaling.yarn_beta_slow", 1e-3f, 1e6f, 1.0f);
    hp->local_rope = hp->rope;          /* never scaled */
    hp->local_rope.scaling = TFM_ROPE_NONE;
    hp->local_rope.factor = hp->local_rope.attn_factor = 1;
    hp->local_rope.base = tfm__key_float(r, "rope.freq_base_swa", 1e-3f, 1e30f,
                                         arch->is & TFM__LOCAL_BASE ? 10000.0f : hp->rope.base);
}
static bool tfm__is_list(const tfm__reader *r, const char *key, char name[96], tfm_value *v) {
    return tfm__key_value(r, key, name, 96, v) && v->type == TFM_VALUE_ARRAY;
}
/* Windows, scales, caps, experts. */
static void tfm__more_hparams(const tfm__reader *r, tfm_hparams *hp, const tfm__arch *arch) {
    const bool capped = (arch->is & TFM__CAPPED) != 0;
    char name[96];
    tfm_value v;
    hp->window = tfm__key_int(r, "attention.sliding_window", 0, INT32_MAX, capped ? 4096 : 0);
    hp->global_every = arch->global_every;
    if (!tfm__is_list(r, "attention.sliding_window_pattern", name, &v))
        hp->global_every = tfm__key_int(r, "attention.sliding_window_pattern", 0, 65536, arch->global_every);
    hp->attention_scale = tfm__key_float(r, "attention.scale", 0, 1e9f, 0);
    if (arch->wide_layers == hp->layers && hp->attention_scale == 0 && hp->heads > 0)
        hp->attention_scale = 1.0f / sqrtf((float)hp->width / (float)hp->heads);
    hp->attention_cap = tfm__key_float(r, "attn_logit_softcapping", 0, 1e9f, capped ? 50.0f : 0);
    hp->logit_cap = tfm__key_float(r, "final_logit_softcapping", 0, 1e9f, capped ? 30.0f : 0);
    hp->embedding_scale = tfm__key_float(r, "embedding_scale", 1e-9f, 1e9f,
                                         arch->is & TFM__SCALED_EMBEDDING ? sqrtf((float)hp->width) : 1.0f);
    hp->residual_scale = tfm__key_float(r, "residual_scale", 1e-9f, 1e9f, 1.0f);
    hp->logit_scale = tfm__key_float(r, "logit_scale", 1e-9f, 1e9f, 1.0f);
    hp->parallel = (arch->is & TFM__PARALLEL) != 0 && tfm__key_flag(r, "use_parallel_residual");
    hp->encoder = (arch->is & TFM__ENCODER) != 0;
    bool causal = !hp->encoder;
    if (tfm__key_value(r, "attention.causal", name, sizeof name, &v) &&
        (!tfm_value_bool(&v, &causal) || causal == hp->encoder))
        tfm__fail(r->err, TFM_UNSUPPORTED, "%s: only %s is supported", name, hp->encoder ? "false" : "true");
    if (hp->encoder) hp->pooling = (tfm_pooling)tfm__key_int(r, "pooling_type", 0, TFM_POOLING_LAST, TFM_POOLING_NONE);
    if (hp->encoder && hp->window) tfm__fail(r->err, TFM_UNSUPPORTED, "%s.attention.sliding_window is %i: an encoder "
                                             "with a window is not supported", r->arch, (int64_t)hp->window);
    hp->experts = tfm__key_int(r, "expert_count", 0, 65536, 0);
    if (!hp->experts) return;
    hp->experts_used = tfm__key_int(r, "expert_used_count", 1, hp->experts, 0);
    hp->expert_feed_forward = tfm__key_int(r, "expert_feed_forward_length", 1, 1 << 24,
                                           hp->feed_forward > 0 ? hp->feed_forward : 1);
}
/* Everything that metadata say; the vocabulary's size comes with its tensor. */
static const tfm__arch *tfm__read_hparams(const tfm_file *f, tfm_hparams *hp, tfm_error *e) {
    const tfm__arch *arch = NULL;
    tfm_value v;
    tfm_string name;
    memset(hp, 0, sizeof *hp);
    if (!tfm_file_meta(f, "general.architecture", &v) || !tfm_value_string(&v, &name)) {
        tfm__fail(e, TFM_UNSUPPORTED, "general.architecture: the key is missing, so this is no model that runs here");
        return NULL;
    }
    for (size_t i = 0; i < sizeof tfm__archs / sizeof *tfm__archs; i++)
        if (tfm__str_eq(name, tfm__archs[i].name)) arch = &tfm__archs[i];
    if (!arch) {
        tfm__fail(e, TFM_UNSUPPORTED, "architecture \"%q\" is not supported", &name);
        return NULL;
    }
    tfm__reader r;
    r.file = f;
    r.arch = arch->name;
    r.err = e;
    hp->architecture = name;
    hp->context = tfm__key_int(&r, "context_length", 1, INT32_MAX, 0);
    hp->width = tfm__key_int(&r, "embedding_length", 1, 1 << 24, 0);
    hp->layers = tfm__key_int(&r, "block_count", 1, 65536, 0);
    hp->heads = tfm__key_int(&r, "attention.head_count", 1, 65536, 0);
    hp->kv_heads = tfm__key_int(&r, "attention.head_count_kv", 1, 65536, hp->heads > 0 ? hp->heads : 1);
    hp->feed_forward = tfm__key_int(&r, "feed_forward_length", 1, 1 << 24, 0);
    hp->eps = tfm__key_float(&r, arch->is & TFM__LAYER_NORM ? "attention.layer_norm_epsilon"
                             : "attention.layer_norm_rms_epsilon", 0, 1, -1);
    tfm__more_hparams(&r, hp, arch);
    if (e->status != TFM_OK) return NULL;
    if (hp->heads % hp->kv_heads) tfm__fail(e, TFM_MISMATCH, "%s: %i heads are not a multiple of %i key/value heads",
                                            arch->name, (int64_t)hp->heads, (int64_t)hp->kv_heads);
    int32_t size = hp->width / hp->heads > 0 ? hp->width / hp->heads : TFM__HEAD_MAX + 1;      /* refused below */
    hp->key_size = tfm__key_int(&r, "attention.key_length", 1, TFM__HEAD_MAX, size);
    hp->value_size = tfm__key_int(&r, "attention.value_length", 1, TFM__HEAD_MAX, size);
    if (e->status == TFM_OK && (hp->key_size > TFM__HEAD_MAX || hp->value_size > TFM__HEAD_MAX))
        tfm__fail(e, TFM_MISMATCH, "%s: width %i for %i heads gives heads of %i, not between 1 and %i", arch->name,
                  (int64_t)hp->width, (int64_t)hp->heads, (int64_t)hp->width / hp->heads, (int64_t)TFM__HEAD_MAX);
    if (e->status == TFM_OK) tfm__rope_hparams(&r, hp, arch);
    return e->status == TFM_OK ? arch : NULL;
}

/* Tensors. The loader fills a model's tables; every missing tensor is counted, the first is named. */
typedef struct tfm__loader {
    tfm_model *m;
    tfm_error *err;
    int64_t missing;
    char first[80];
    tfm_shape first_shape;
} tfm__loader;

/* A tensor of the file, if it has the shape needed and a type that runs. */
static tfm_tensor tfm__weight(tfm__loader *l, int layer, const char *part, const char *suffix, tfm_shape want,
                              bool optional) {
    char name[80];
    tfm_tensor_info info;
    if (l->err->status != TFM_OK) return tfm_none();
    tfm__tensor_name(name, layer < 0 ? NULL : "blk", layer, part, suffix);
    int64_t index = tfm__file_find(l->m->file, name);
    if (!tfm_file_tensor_at(l->m->file, index, &info)) {
        if (!optional && l->missing++ == 0) {
            memcpy(l->first, name, sizeof name);
            l->first_shape = want;
        }
        return tfm_none();
    }
    tfm_shape have = tfm__shape_of(info.tensor);
    bool same = have.rank == want.rank;
    for (int i = 0; same && i < want.rank; i++) same = have.dim[i] == want.dim[i];
    if (!same) tfm__fail(l->err, TFM_MISMATCH, "%s: %d in the file, %d needed", name, &have, &want);
    else if (!tfm__is_numeric(info.tensor.type)) tfm__fail(l->err, TFM_UNSUPPORTED, "%s: type %q is not supported",
                                                           name, &info.type_name);
    l->m->file->entries[index].placed = true;
    return info.tensor;
}
static tfm__linear tfm__load_linear(tfm__loader *l, int layer, const char *part, int64_t out, int64_t in,
                                    bool optional) {
    tfm__linear r;
    r.interleaved = NULL;
    r.w = tfm__weight(l, layer, part, "weight", tfm_shape2(out, in), optional);
    r.b = r.w.rank ? tfm__weight(l, layer, part, "bias", tfm_shape1(out), true) : tfm_none();
    return r;
}
/* Rows of a fused weight, as a weight. */
static tfm__linear tfm__rows_of(tfm__linear l, int64_t begin, int64_t count) {
    tfm_tensor *parts[2] = { &l.w, &l.b };
    for (int i = 0; i < 2; i++) {
        if (!parts[i]->data) continue;
        parts[i]->data = (char *)parts[i]->data + begin * parts[i]->stride[0];
        parts[i]->dim[0] = count;
    }
    return l;
}
static tfm__linear tfm__load_norm(tfm__loader *l, int layer, const char *part, bool optional) {
    const bool biased = (l->m->arch->is & TFM__LAYER_NORM) != 0;
    tfm__linear r;
    r.interleaved = NULL;
    r.w = tfm__weight(l, layer, part, "weight", tfm_shape1(l->m->hp.width), optional);
    r.b = biased ? tfm__weight(l, layer, part, "bias", tfm_shape1(l->m->hp.width), true) : tfm_none();
    return r;
}
static tfm_tensor tfm__load_qk_norm(tfm__loader *l, int layer, const char *part, int64_t heads) {
    const int kind = l->m->arch->qk_norm;
    int64_t size = l->m->hp.key_size;
    tfm_shape shape = tfm_shape1(kind == TFM__QK_ROW ? heads * size : size);
    if (kind == TFM__QK_EACH) shape = tfm_shape2(heads, size);
    return tfm__weight(l, layer, part, "weight", shape, kind == TFM__QK_EACH);
}
static void tfm__load_attention(tfm__loader *l, int i) {
    const tfm_hparams *h = &l->m->hp;
    tfm__layer *y = &l->m->layers[i];
    int64_t q = (int64_t)h->heads * h->key_size, k = (int64_t)h->kv_heads * h->key_size,
        v = (int64_t)h->kv_heads * h->value_size;
    tfm__linear qkv = tfm__load_linear(l, i, "attn_qkv", q + k + v, h->width, true);
    const bool fused = qkv.w.rank > 0;
    y->attn_q = fused ? tfm__rows_of(qkv, 0, q) : tfm__load_linear(l, i, "attn_q", q, h->width, false);
    y->attn_k = fused ? tfm__rows_of(qkv, q, k) : tfm__load_linear(l, i, "attn_k", k, h->width, false);
    y->attn_v = fused ? tfm__rows_of(qkv, q + k, v) : tfm__load_linear(l, i, "attn_v", v, h->width, false);
    if (l->m->arch->qk_norm) {
        y->q_norm.w = tfm__load_qk_norm(l, i, "attn_q_norm", h->heads);
        y->k_norm.w = tfm__load_qk_norm(l, i, "attn_k_norm", h->kv_heads);
    }
    y->attn_output = tfm__load_linear(l, i, "attn_output", h->width, (int64_t)h->heads * h->value_size, false);
}
static tfm__linear tfm__load_experts(tfm__loader *l, int layer, const char *part, int64_t out, int64_t in) {
    tfm__linear r;
    memset(&r, 0, sizeof r);
    r.w = tfm__weight(l, layer, part, "weight", tfm_shape3(l->m->hp.experts, out, in), false);
    return r;
}
static void tfm__load_ffn(tfm__loader *l, int i) {
    const tfm_hparams *h = &l->m->hp;
    const int is = l->m->arch->is;
    tfm__layer *y = &l->m->layers[i];
    int64_t ff = h->experts ? h->expert_feed_forward : h->feed_forward;
    if (h->experts) {
        y->router = tfm__load_linear(l, i, "ffn_gate_inp", h->experts, h->width, false);
        y->ffn_gate = tfm__load_experts(l, i, "ffn_gate_exps", ff, h->width);
        y->ffn_up = tfm__load_experts(l, i, "ffn_up_exps", ff, h->width);
        y->ffn_down = tfm__load_experts(l, i, "ffn_down_exps", h->width, ff);
        return;
    }
    if (is & TFM__FUSED_GATE) {
        y->ffn_up = tfm__load_linear(l, i, "ffn_up", 2 * ff, h->width, false);
        y->ffn_gate = tfm__rows_of(y->ffn_up, 0, ff);
        y->ffn_up = tfm__rows_of(y->ffn_up, ff, ff);
    } else {
        if (!(is & TFM__PLAIN)) y->ffn_gate = tfm__load_linear(l, i, "ffn_gate", ff, h->width, false);
        y->ffn_up = tfm__load_linear(l, i, "ffn_up", ff, h->width, false);
    }
    y->ffn_down = tfm__load_linear(l, i, "ffn_down", h->width, ff, false);
}
static void tfm__load_layer(tfm__loader *l, int i) {
    const int is = l->m->arch->is;
    tfm__layer *y = &l->m->layers[i];
    tfm__linear second;
    memset(y, 0, sizeof *y);
    if (!(is & (TFM__NO_PRE_NORM | TFM__SUM_NORM))) y->attn_norm = tfm__load_norm(l, i, "attn_norm", false);
    tfm__load_attention(l, i);
    if (is & TFM__NORM_2) {
        second = tfm__load_norm(l, i, "attn_norm_2", true);
        if (second.w.rank) y->ffn_norm = y->attn_norm, y->attn_norm = second;
    } else if (!(is & (TFM__NO_PRE_NORM | TFM__SUM_NORM)))
        y->ffn_norm = tfm__load_norm(l, i, "ffn_norm", (is & TFM__ONE_NORM) != 0);
    y->parallel = l->m->hp.parallel || (is & TFM__ONE_NORM && !y->ffn_norm.w.rank);
    tfm__load_ffn(l, i);
    if (is & TFM__POST_NORM) {
        y->attn_post = tfm__load_norm(l, i, "post_attention_norm", false);
        y->ffn_post = tfm__load_norm(l, i, "post_ffw_norm", false);
    } else if (is & TFM__SUM_NORM) {
        y->attn_post = tfm__load_norm(l, i, "attn_output_norm", false);
        y->ffn_post = tfm__load_norm(l, i, "layer_output_norm", false);
    }
}
/* Which layers have a window, and which angles. A key may list the windows, one truth value per layer. */
static void tfm__load_windows(tfm__loader *l) {
    const tfm_hparams *h = &l->m->hp;
    const tfm__arch *arch = l->m->arch;
    tfm__reader r = { l->m->file, arch->name, l->err };
    tfm_value list, v;
    char name[96];
    bool rotates = !(arch->is & TFM__LEARNED) &&
                   (!(arch->is & TFM__ROPE_SWITCH) || tfm__key_flag(&r, "rope.scaling.finetuned"));
    bool listed = tfm__is_list(&r, "attention.sliding_window_pattern", name, &list);
    if (listed && list.count != (uint64_t)h->layers)
        tfm__fail(l->err, TFM_MISMATCH, "%s: %u values for %i layers", name, list.count, (int64_t)h->layers);
    for (int i = 0; i < h->layers && l->err->status == TFM_OK; i++) {
        tfm__layer *y = &l->m->layers[i];
        bool local = !h->global_every || i % h->global_every < h->global_every - 1;
        if (listed && (!tfm_value_next(&list, &v) || !tfm_value_bool(&v, &local)))
            tfm__fail(l->err, TFM_MISMATCH, "%s: value %i is neither true nor false", name, (int64_t)i);
        local = local && h->window > 0;
        y->window = local ? h->window : 0;
        y->rope = local && (listed || h->global_every);
        if (!rotates || (arch->unrotated_every && (i + 1) % arch->unrotated_every == 0)) y->rope = -1;
        if (y->rope == 1) l->m->local_rope = true;
    }
}
/* Divisors of the rotation's frequencies, in f32 at out; NULL: none in the file. */
static const float *tfm__load_factors(tfm__loader *l, const char *part, float *out) {
    int64_t n = l->m->hp.rope_dims / 2;
    tfm_tensor factors = tfm__weight(l, -1, part, "weight", tfm_shape1(n), true);
    if (!factors.rank || l->err->status != TFM_OK) return NULL;
    tfm__decode(factors.type, factors.data, out, n);
    return out;
}
/* Nothing may be missing; and a tensor that no part of the model took means that we would compute
   something else than the file's maker. */
static bool tfm__load_check(const tfm__loader *l) {
    const tfm_file *f = l->m->file;
    if (l->missing > 1)
        return tfm__fail(l->err, TFM_MISMATCH, "%s: the tensor is missing, %d needed; %i more are missing", l->first,
                         &l->first_shape, l->missing - 1);
    if (l->missing)
        return tfm__fail(l->err, TFM_MISMATCH, "%s: the tensor is missing, %d needed", l->first, &l->first_shape);
    for (int64_t i = 0; i < f->entry_count && l->err->status == TFM_OK; i++)
        if (!f->entries[i].placed)
            tfm__fail(l->err, TFM_UNSUPPORTED, "%q: the tensor has no place in architecture %s", &f->entries[i].name,
                      l->m->arch->name);
    return l->err->status == TFM_OK;
}
/* What an encoder adds to the embedding of each token, its type being 0, and the norm of the sum. */
static void tfm__load_types(tfm__loader *l) {
    tfm_tensor_info info;
    bool found = tfm_file_tensor(l->m->file, "token_types.weight", &info) && info.tensor.dim[0] > 0;
    l->m->token_types = tfm__weight(l, -1, "token_types", "weight",
                                    tfm_shape2(found ? info.tensor.dim[0] : 1, l->m->hp.width), true);
    l->m->embd_norm = tfm__load_norm(l, -1, "token_embd_norm", false);
}
static bool tfm__load_tensors(tfm_model *m, tfm_error *e) {
    tfm_hparams *h = &m->hp;
    tfm_tensor_info info;
    tfm__loader l;
    memset(&l, 0, sizeof l);
    l.m = m;
    l.err = e;
    bool found = tfm_file_tensor(m->file, "token_embd.weight", &info);
    if (found && info.tensor.rank != 2)
        return tfm__fail(e, TFM_MISMATCH, "token_embd.weight: rank %i, not 2", (int64_t)info.tensor.rank);
    int64_t vocab = found ? info.tensor.dim[0] : 1;
    if (vocab < 1 || vocab > INT32_MAX) return tfm__fail(e, TFM_MISMATCH, "token_embd.weight: %i rows", vocab);
    h->vocab = (int32_t)vocab;
    m->token_embd = tfm__weight(&l, -1, "token_embd", "weight", tfm_shape2(vocab, h->width), false);
    if (!m->token_embd.rank) return tfm__load_check(&l);
#ifndef TFM_NO_TOKENIZER
    if (m->tokenizer && tfm_vocab_size(m->tokenizer) > vocab)
        return tfm__fail(e, TFM_MISMATCH, "token_embd.weight: %i rows for a vocabulary of %i", vocab,
                         tfm_vocab_size(m->tokenizer));
#endif
    if (m->arch->is & TFM__LEARNED) m->position_embd = tfm__weight(&l, -1, "position_embd", "weight",
                                                         tfm_shape2(h->context, h->width), false);
    if (h->encoder) tfm__load_types(&l);
    else {
        m->output_norm = tfm__load_norm(&l, -1, "output_norm", false);
        m->output = tfm__load_linear(&l, -1, "output", vocab, h->width, true);
        if (!m->output.w.rank) m->output.w = m->token_embd;
    }
    for (int i = 0; i < h->layers && e->status == TFM_OK; i++) tfm__load_layer(&l, i);
    tfm__load_windows(&l);
    if (!(m->arch->is & TFM__LEARNED)) {
        h->rope.freq_factors = tfm__load_factors(&l, "rope_freqs", m->freq_factors);
        if (!h->rope.freq_factors) {
            h->rope.freq_factors = tfm__load_factors(&l, "rope_factors_short", m->freq_factors);
            m->long_factors = tfm__load_factors(&l, "rope_factors_long", m->freq_factors + h->rope_dims / 2);
        }
    }
    return tfm__load_check(&l);
}

static tfm_model *tfm__model_carve(tfm__carver *k, const tfm_hparams *hp) {
    tfm_model *m = (tfm_model *)tfm__carve(k, 1, sizeof *m);
    tfm__layer *layers = (tfm__layer *)tfm__carve(k, (size_t)hp->layers, sizeof *layers);
    float *factors = (float *)tfm__carve(k, (size_t)hp->rope_dims, sizeof *factors);
    if (!m || k->overflow) return NULL;
    memset(m, 0, sizeof *m);
    m->layers = layers;
    m->freq_factors = factors;
    return m;
}
TFM__UNUSED static bool tfm__has_tokenizer(const tfm_file *f) {
    tfm_value v;
    return tfm_file_meta(f, "tokenizer.ggml.model", &v);
}
#ifndef TFM_NO_TOKENIZER
/* A kind of tokenizer that does not run here leaves a model that runs by ids. */
static bool tfm__no_tokenizer(tfm_error *e) {
    if (e->status != TFM_UNSUPPORTED) return false;
    tfm__begin(e, NULL);
    return true;
}
#endif
/* Makes the model over a file, in mem (size bytes) or from the allocator. Takes the file if it
   succeeds. */
static tfm_model *tfm__model_make(tfm_file *f, const tfm_allocator *a, void *mem, size_t size, tfm_error *e) {
    tfm_hparams hp;
    tfm__carver k;
    const tfm__arch *arch = tfm__read_hparams(f, &hp, e);
    memset(&k, 0, sizeof k);
    if (arch && hp.layers > tfm_file_tensor_count(f) / TFM__LAYER_TENSORS) {
        tfm__fail(e, TFM_MISMATCH, "%s.block_count is %i, the file has %i tensors", arch->name, (int64_t)hp.layers,
                  tfm_file_tensor_count(f));
        arch = NULL;
    }
    if (!arch) return NULL;
    tfm__model_carve(&k, &hp);
    size_t own = k.used;
    char *base = (char *)tfm__object(a, mem, size, own, "model", e);
    if (!base) return NULL;
    memset(&k, 0, sizeof k);
    k.base = base;
    k.size = own;
    tfm_model *m = tfm__model_carve(&k, &hp);
    m->file = f;
    m->arch = arch;
    m->hp = hp;
    bool ok = true;
#ifndef TFM_NO_TOKENIZER
    if (tfm__has_tokenizer(f)) {
        m->tokenizer = a ? tfm_tokenizer_new(f, a, e) : tfm_tokenizer_in(f, base + own, size - own, e);
        ok = m->tokenizer != NULL || tfm__no_tokenizer(e);
    }
#endif
    if (ok && tfm__load_tensors(m, e)) {
        if (a) m->allocator = *a;
        m->owns_memory = a != NULL;
        return m;
    }
#ifndef TFM_NO_TOKENIZER
    if (a) tfm_tokenizer_free(m->tokenizer);
#endif
    if (a) tfm__heap_free(a, base);
    return NULL;
}
/* Interleaves the rows of a weight, or of the experts' [E, out, in], at out, if out is given; the bytes that
   takes, 0 for one that stays. */
static size_t tfm__repack_linear(tfm__linear *l, char *out) {
    const tfm__type *t = l->w.rank >= 2 ? tfm__type_of(l->w.type) : NULL;
    if (!t || !tfm__interleaves(t) || l->w.dim[l->w.rank - 2] % TFM__ROWS) return 0;
    int64_t width = l->w.dim[l->w.rank - 1], stride = l->w.stride[l->w.rank - 2];
    size_t group = (size_t)(width / t->block) * tfm__interleaved_bytes(t);
    int64_t groups = tfm_count(l->w) / width / TFM__ROWS;
    for (int64_t g = 0; out && g < groups; g++)
        tfm__interleave(t, (const uint8_t *)l->w.data + g * TFM__ROWS * stride, stride, width,
                        (uint8_t *)out + (size_t)g * group);
    if (out) l->interleaved = out;
    size_t bytes = (size_t)groups * group;
    return tfm__round_up(bytes, TFM_ALIGN, &bytes) ? bytes : 0;
}
static size_t tfm__repack_all(tfm_model *m, char *out) {
    size_t bytes = tfm__repack_linear(&m->output, out);
    for (int i = 0; i < m->hp.layers; i++) {
        tfm__layer *y = &m->layers[i];
        tfm__linear *all[] = { &y->attn_q, &y->attn_k, &y->attn_v, &y->attn_output,
                               &y->ffn_gate, &y->ffn_up, &y->ffn_down };
        for (size_t k = 0; k < sizeof all / sizeof *all; k++)
            bytes += tfm__repack_linear(all[k], out ? out + bytes : NULL);
    }
    return bytes;
}
static tfm_model *tfm__model_over(tfm_file *f, const tfm_model_opts *opts, tfm_error *e) {
    tfm_allocator a = tfm__allocator(opts ? opts->allocator : NULL);
    tfm_model *m = f ? tfm__model_make(f, &a, NULL, 0, e) : NULL;
    if (!m) tfm_file_free(f);
    size_t bytes = m && opts && opts->repack ? tfm__repack_all(m, NULL) : 0;
    if (!bytes) return m;
    m->interleaved = (char *)tfm__heap_alloc(&a, bytes + TFM__HUGE, e);
    if (!m->interleaved) { tfm_model_free(m); return NULL; }
    char *base = m->interleaved + (TFM__HUGE - (uintptr_t)m->interleaved % TFM__HUGE);
    tfm__huge_pages(base, bytes);
    tfm__repack_all(m, base);
    return m;
}
TFMDEF tfm_model *tfm_model_open(const char *path, const tfm_model_opts *opts, tfm_error *err) {
    tfm_error local, *e = tfm__begin(err, &local);
    tfm_file *f = tfm_file_open(path, opts ? opts->allocator : NULL, e);
    tfm_model *m = tfm__model_over(f, opts, e);
    if (f && !m) tfm__inside(e, tfm__str(path));
    return m;
}
TFMDEF tfm_model *tfm_model_from_memory(const void *data, size_t size, const tfm_model_opts *opts, tfm_error *err) {
    tfm_error local, *e = tfm__begin(err, &local);
    return tfm__model_over(tfm_file_from_memory(data, size, opts ? opts->allocator : NULL, e), opts, e);
}
/* The sizes of the file, the model's tables and the tokenizer; 0 and an error if it cannot be one. */
static size_t tfm__model_sizes(const void *data, size_t size, size_t *file_size, tfm_error *e) {
    tfm__file_counts n;
    tfm_file f;
    tfm_hparams hp;
    tfm__carver k;
    size_t total;
    memset(&k, 0, sizeof k);
    memset(&f, 0, sizeof f);
    *file_size = tfm_file_size(data, size, e);
    if (!*file_size || !tfm__file_count(data, size, &n, e)) return 0;
    f.data = (const uint8_t *)data;
    f.size = size;
    f.meta_count = n.gguf ? (int64_t)n.keys : 0;
    if (!tfm__read_hparams(&f, &hp, e)) return 0;
    if ((uint64_t)hp.layers > n.tensors / TFM__LAYER_TENSORS) {
        tfm__fail(e, TFM_MISMATCH, "block_count is %i, the file has %u tensors", (int64_t)hp.layers, n.tensors);
        return 0;
    }
    tfm__model_carve(&k, &hp);
    if (!tfm__add(*file_size, k.used, &total)) return 0;
#ifndef TFM_NO_TOKENIZER
    if (tfm__has_tokenizer(&f)) {
        size_t t = tfm_tokenizer_size(&f, e);
        if ((!t && !tfm__no_tokenizer(e)) || !tfm__add(total, t, &total)) return 0;
    }
#endif
    return total;
}
TFMDEF size_t tfm_model_size(const void *data, size_t size, tfm_error *err) {
    tfm_error local, *e = tfm__begin(err, &local);
    size_t file_size;
    return tfm__model_sizes(data, size, &file_size, e);
}
TFMDEF tfm_model *tfm_model_in(const void *data, size_t size, void *mem, size_t mem_size, tfm_error *err) {
    tfm_error local, *e = tfm__begin(err, &local);
    size_t file_size, total = tfm__model_sizes(data, size, &file_size, e);
    if (!total || !tfm__object(NULL, mem, mem_size, total, "model", e)) return NULL;
    tfm_file *f = tfm_file_in(data, size, mem, file_size, e);
    return f ? tfm__model_make(f, NULL, (char *)mem + file_size, total - file_size, e) : NULL;
}
TFMDEF void tfm_model_free(tfm_model *m) {
    if (!m || !m->owns_memory) return;
    tfm_allocator a = m->allocator;
#ifndef TFM_NO_TOKENIZER
    tfm_tokenizer_free(m->tokenizer);
#endif
    tfm_file_free(m->file);
    tfm__heap_free(&a, m->interleaved);
    tfm__heap_free(&a, m);
}
TFMDEF const tfm_hparams *tfm_model_hparams(const tfm_model *m) { return m ? &m->hp : NULL; }
TFMDEF const tfm_file *tfm_model_file(const tfm_model *m) { return m ? m->file : NULL; }
#ifndef TFM_NO_TOKENIZER
TFMDEF const tfm_tokenizer *tfm_model_tokenizer(const tfm_model *m) { return m ? m->tokenizer : NULL; }
#endif

/* A sequence's share of a batch: n ids at its session's position, with logits of the last few. */
typedef struct tfm__rows {
    tfm_session *s;
    const int32_t *ids;
    int64_t n, logits, left;            /* left: ids that are to be evaluated, these n among them */
} tfm__rows;

/* Sessions. The cache of values is [layer][kv head][position][size], that of keys [layer][kv head]
   [position / 16][size][16], so that a vector of keys can be read at once. */
struct tfm_session {
    const tfm_model *m;
    tfm_context *c;
    tfm_allocator allocator;
    bool owns_memory;
    tfm_session_opts o;                 /* defaults filled in */
    char *keys, *values;
    int32_t *ids;                       /* [context] what was evaluated */
    float *logits;                      /* [logit_rows, V] of the last piece; an encoder's vectors [logit_rows, D] */
    int64_t position, logit_rows;
    const tfm__rows *rows;              /* [row_count] of the batch in progress, which this session runs */
    int row_count;
    float *adapter_scales;              /* [adapter_count] */
    int64_t entry;                      /* of the model's file, whose adapter was asked for last */
    int cancel;
};

/* x itself where the model has no norm. */
static tfm_tensor tfm__norm(tfm_context *c, const tfm_model *m, tfm_tensor x, tfm__linear w) {
    if (!w.w.rank) return x;
    return m->arch->is & TFM__LAYER_NORM ? tfm_layernorm(c, x, w.w, w.b, m->hp.eps) : tfm_rmsnorm(c, x, w.w, m->hp.eps);
}
/* x += y, both contiguous F32; y may be one row for all of x's. */
static void tfm__accumulate(tfm_context *c, tfm_tensor x, tfm_tensor y) {
    if (tfm__ok(c))
        tfm__binary_into(c, TFM__ADD, tfm__expand(x, tfm__shape_of(x)), tfm__expand(y, tfm__shape_of(x)),
                         tfm__floats(x), tfm_count(x));
}
/* x *= factor, contiguous */
static void tfm__multiply(tfm_context *c, float *x, int64_t count, float factor) {
    if (factor == 1 || !tfm__ok(c) || c->measure) return;
    tfm_shape shape = tfm_shape1(count);
    tfm__binary_into(c, TFM__MUL, tfm__expand(tfm_wrap(c, x, shape), shape),
                     tfm__expand(tfm_wrap(c, &factor, tfm_shape1(1)), shape), x, count);
}
/* Positions that a cache has room for: whole sixteens. */
static int64_t tfm__cache_room(const tfm_session_opts *o) { return ((int64_t)o->context + 15) / 16 * 16; }
/* An encoder never comes back to a layer: all use one cache. */
static int tfm__cache_layers(const tfm_model *m) { return m->hp.encoder ? 1 : m->hp.layers; }

/* One layer's share of a cache: a view [1, KV, positions, size], true for values; for keys it tells the strides. */
static tfm_tensor tfm__cache(const tfm_session *s, char *cache, int layer, int64_t positions, int64_t size) {
    int64_t row = size * tfm_type_bytes(s->o.cache), head = tfm__cache_room(&s->o) * row;
    tfm_tensor t = tfm__layout(cache + layer % tfm__cache_layers(s->m) * (int64_t)s->m->hp.kv_heads * head, s->o.cache,
                               tfm_shape4(1, s->m->hp.kv_heads, positions, size));
    t.stride[1] = head;
    t.stride[2] = row;
    return t;
}
/* Rounds rows [n, kv*size], any row stride, to the cache's type at the session's position. */
static void tfm__cache_store(const tfm_session *s, char *cache, int layer, tfm_tensor rows, bool turned) {
    int64_t kv = s->m->hp.kv_heads, size = rows.dim[1] / kv, element = tfm_type_bytes(s->o.cache);
    if (!tfm__ok(s->c) || s->c->measure) return;
    tfm_tensor t = tfm__cache(s, cache, layer, s->position, size);
    for (int64_t i = 0; i < rows.dim[0] * kv; i++) {
        int64_t p = s->position + i / kv, head = i % kv, inner = turned ? p % 16 : 0;
        const float *x = (const float *)(const void *)((const char *)rows.data + i / kv * rows.stride[0]) + head * size;
        char *out = (char *)t.data + head * t.stride[1] + (p - inner) * t.stride[2] + inner * element;
        uint16_t half[TFM__HEAD_MAX];
        if (s->o.cache == TFM_F16) s->c->kernels->halves(x, half, size);
        const char *from = s->o.cache == TFM_F16 ? (const char *)half : (const char *)x;
        if (!turned) { memcpy(out, from, (size_t)(size * element)); continue; }
        for (int64_t e = 0; e < size; e++, out += 16 * element)
            if (element == 2) memcpy(out, from + 2 * e, 2);
            else memcpy(out, from + 4 * e, 4);
    }
}
/* One matrix of t [., ., .]. */
static tfm_tensor tfm__row_of(tfm_tensor t, int64_t index) {
    t.data = (char *)t.data + index * t.stride[0];
    t.rank = 2;
    for (int i = 0; i < 2; i++) {
        t.dim[i] = t.dim[i + 1];
        t.stride[i] = t.stride[i + 1];
    }
    return t;
}
/* Adapters (LoRA, Hu et al. 2021): general.type "adapter", adapter.type "lora", adapter.lora.alpha, and for some
   of the model's weights W [out, in] the tensors W.lora_a [r, in] and W.lora_b [out, r]; experts in front. */
static const char *const tfm__lora_suffixes[2] = { ".lora_a", ".lora_b" };
enum { TFM__LORA_SUFFIX = 7 };

static bool tfm__adapter_pair(const tfm_file *f, tfm_string weight, tfm_tensor_info ab[2]) {
    char name[96];
    if (weight.size + TFM__LORA_SUFFIX >= sizeof name) return false;
    memcpy(name, weight.data, weight.size);
    for (int i = 0; i < 2; i++) {
        memcpy(name + weight.size, tfm__lora_suffixes[i], TFM__LORA_SUFFIX + 1);
        if (!tfm_file_tensor(f, name, &ab[i])) return false;
    }
    return true;
}
/* A weight that a dense layer multiplies with: no table, no norm. */
static bool tfm__takes_adapter(const tfm_tensor_info *w) {
    static const char norm[] = "_norm.weight";
    size_t n = sizeof norm - 1;
    bool in_layer = w->name.size > n && memcmp(w->name.data, "blk.", 4) == 0 && w->tensor.rank > 1 &&
                    memcmp(w->name.data + w->name.size - n, norm, n) != 0;
    return in_layer || tfm__str_eq(w->name, "output.weight");
}
static bool tfm__adapter_shapes(const tfm_tensor_info *w, const tfm_tensor_info ab[2], tfm_error *e) {
    int rank = w->tensor.rank;
    for (int i = 0; i < 2; i++) {
        tfm_shape have = tfm__shape_of(ab[i].tensor), want = tfm__shape_of(w->tensor);
        want.dim[rank - 2 + i] = tfm__max64(1, ab[0].tensor.rank == rank ? ab[0].tensor.dim[rank - 2] : 1);     /* r */
        bool same = have.rank == rank;
        for (int d = 0; same && d < rank; d++) same = have.dim[d] == want.dim[d];
        if (!same) return tfm__fail(e, TFM_MISMATCH, "%q: %d in the file, %d needed", &ab[i].name, &have, &want);
        if (!tfm__is_numeric(ab[i].tensor.type))
            return tfm__fail(e, TFM_UNSUPPORTED, "%q: type %q is not supported", &ab[i].name, &ab[i].type_name);
    }
    return true;
}
static bool tfm__adapter_keys(const tfm_model *m, const tfm_file *f, tfm_error *e) {
    const char *const keys[3][2] = { { "general.type", "adapter" }, { "adapter.type", "lora" },
                                     { "general.architecture", m->arch->name } };
    tfm_value v;
    double alpha;
    for (int i = 0; i < 3; i++) {
        tfm_string text = tfm__str("");
        if (tfm_file_meta(f, keys[i][0], &v)) tfm_value_string(&v, &text);
        if (!tfm__str_eq(text, keys[i][1]))
            return tfm__fail(e, TFM_MISMATCH, "adapter: %s is \"%q\", \"%s\" needed", keys[i][0], &text, keys[i][1]);
    }
    if (tfm_file_meta(f, "adapter.lora.alpha", &v) && (!tfm_value_f64(&v, &alpha) || !(alpha > -1e30 && alpha < 1e30)))
        return tfm__fail(e, TFM_MISMATCH, "adapter.lora.alpha: not a number in its range");
    if (tfm_file_meta(f, "adapter.alora.invocation_tokens", &v))
        return tfm__fail(e, TFM_UNSUPPORTED, "adapter.alora.invocation_tokens: such adapters are not supported");
    return true;
}
/* Is this file an adapter of this model, with a place for each of its tensors? */
static bool tfm__adapter_check(const tfm_model *m, const tfm_file *f, tfm_error *e) {
    tfm_tensor_info t, w, ab[2];
    if (!tfm__adapter_keys(m, f, e)) return false;
    for (int64_t i = 0; tfm_file_tensor_at(f, i, &t); i++) {
        char name[96];
        tfm_string weight = t.name;
        bool ends = t.name.size > TFM__LORA_SUFFIX && t.name.size - TFM__LORA_SUFFIX < sizeof name;
        weight.size -= ends ? (size_t)TFM__LORA_SUFFIX : 0;
        if (ends) ends = memcmp(t.name.data + weight.size, tfm__lora_suffixes[0], TFM__LORA_SUFFIX) == 0 ||
                         memcmp(t.name.data + weight.size, tfm__lora_suffixes[1], TFM__LORA_SUFFIX) == 0;
        if (!ends) return tfm__fail(e, TFM_UNSUPPORTED, "%q: neither .lora_a nor .lora_b of a weight", &t.name);
        memcpy(name, weight.data, weight.size);
        name[weight.size] = 0;
        if (!tfm_file_tensor(m->file, name, &w))
            return tfm__fail(e, TFM_MISMATCH, "%q: the model has no tensor %s", &t.name, name);
        if (!tfm__takes_adapter(&w))
            return tfm__fail(e, TFM_UNSUPPORTED, "%q: %s is not the weight of a dense layer", &t.name, name);
        if (!tfm__adapter_pair(f, weight, ab))
            return tfm__fail(e, TFM_MISMATCH, "%q: the other half of the pair is missing", &t.name);
        if (!tfm__adapter_shapes(&w, ab, e)) return false;
    }
    return true;
}
/* A and B for a weight, or for rows or an expert of one of the file's tensors; what B(A x) is multiplied with. */
static bool tfm__adapter_find(tfm_session *s, int index, const tfm__linear *l, tfm_tensor ab[2], float *factor) {
    const tfm_file *f = s->m->file, *adapter = s->o.adapters[index];
    uint64_t at = (uint64_t)((const uint8_t *)l->w.data - f->data);
    tfm_tensor_info w, found[2];
    tfm_value v;
    double alpha = 0;
    bool inside = false;
    for (int64_t i = 0; i <= f->entry_count && !inside; i++) {      /* the same as last, or one that soon follows */
        s->entry = (s->entry + (i > 0)) % f->entry_count;
        tfm_file_tensor_at(f, s->entry, &w);
        inside = at >= w.offset && at - w.offset < w.bytes;
    }
    if (!inside || !tfm__adapter_pair(adapter, w.name, found)) return false;
    int64_t first = (int64_t)(at - w.offset) / w.tensor.stride[0];
    for (int i = 0; i < 2; i++) {
        ab[i] = found[i].tensor;
        if (w.tensor.rank == 3) ab[i] = tfm__row_of(ab[i], first);
    }
    if (w.tensor.rank == 2) ab[1] = tfm_slice(s->c, ab[1], 0, first, first + l->w.dim[0]);
    if (tfm_file_meta(adapter, "adapter.lora.alpha", &v)) tfm_value_f64(&v, &alpha);
    *factor = s->c->measure ? 1 : s->adapter_scales[index];
    if (alpha != 0) *factor *= (float)(alpha / (double)ab[0].dim[0]);
    return true;
}
/* y [n, out] += factor B(A x), for each adapter that has something for this weight. */
static void tfm__adapt(tfm_session *s, tfm_tensor x, tfm_tensor y, const tfm__linear *l) {
    tfm_context *c = s->c;
    for (int i = 0; i < s->o.adapter_count && l->w.rank && tfm__ok(c); i++) {
        tfm_tensor ab[2];
        float factor;
        if (!tfm__adapter_find(s, i, l, ab, &factor) || factor == 0) continue;
        tfm_mark mark = tfm_arena_mark(c);
        tfm_tensor inner = tfm_dense(c, x, ab[0], tfm_none());
        if (tfm__ok(c)) tfm__multiply(c, tfm__floats(inner), tfm_count(inner), factor);
        tfm__accumulate(c, y, tfm_dense(c, inner, ab[1], tfm_none()));
        tfm_arena_rewind(c, mark);
    }
}
/* x [n, D] times `count` weights that need not wait for each other, one task for all; one that the
   model lacks gives no tensor. */
static void tfm__linears(tfm_session *s, tfm_tensor x, const tfm__linear *const *l, tfm_tensor *y, int count) {
    tfm_context *c = s->c;
    tfm__part parts[3];
    int given = 0;
    memset(parts, 0, sizeof parts);
    for (int i = 0; i < count; i++)
        y[i] = l[i]->w.rank ? tfm__new(c, TFM_F32, tfm_shape2(x.dim[0], l[i]->w.dim[0])) : tfm_none();
    tfm_mark mark = tfm_arena_mark(c);
    for (int i = 0; i < count && tfm__ok(c); i++) {
        tfm_tensor w = l[i]->w;
        if (!w.rank) continue;
        const float *bias = tfm__vector(c, "linear", "bias", l[i]->b, w.dim[0]);
        parts[given] = tfm__part_of(w.type, w.data, w.stride[0], w.dim[0], bias,
                                    tfm__floats(y[i]), 1, w.dim[0]);
        parts[given++].interleaved = l[i]->interleaved;
    }
    if (given) tfm__products(c, parts, given, tfm__floats(x), x.dim[0], x.dim[1]);
    for (int i = 0; i < count; i++) tfm__adapt(s, x, y[i], l[i]);
    tfm_arena_rewind(c, mark);
}
static tfm_tensor tfm__apply(tfm_session *s, tfm_tensor x, const tfm__linear *l) {
    tfm_tensor y;
    tfm__linears(s, x, &l, &y, 1);
    return y;
}
/* Norms queries or keys [n, heads * size]: of each head, of the row, or with weights [heads, size]. */
static tfm_tensor tfm__qk_norm(tfm_context *c, const tfm_model *m, tfm_tensor x, tfm__linear w) {
    tfm_shape shape = tfm__shape_of(x);
    if (!w.w.rank || !tfm__ok(c)) return x;
    if (w.w.rank == 1) x = tfm__norm(c, m, tfm_reshape(c, x, tfm_shape2(-1, w.w.dim[0])), w);
    else {
        x = tfm_reshape(c, x, tfm_shape3(shape.dim[0], w.w.dim[0], w.w.dim[1]));
        x = tfm_mul(c, tfm_layernorm(c, x, tfm_none(), tfm_none(), m->hp.eps), w.w);
    }
    return tfm_reshape(c, x, shape);
}
/* Stores k and v in the caches and gives attention of q over them, for each sequence its rows. */
static tfm_tensor tfm__attend_rows(tfm_session *s, int layer, tfm_tensor q, tfm_tensor k, tfm_tensor v) {
    const tfm_hparams *h = &s->m->hp;
    tfm_context *c = s->c;
    tfm_attention_opts o;
    int64_t at = 0;
    memset(&o, 0, sizeof o);
    o.scale = h->attention_scale;
    o.cap = h->attention_cap;
    o.causal = !h->encoder;
    o.window = s->m->layers[layer].window;
    tfm_tensor y = tfm__new(c, TFM_F32, tfm_shape2(q.dim[0], (int64_t)h->heads * h->value_size));
    for (int i = 0; i < s->row_count && tfm__ok(c); i++) {
        const tfm__rows *r = &s->rows[i];
        if (!r->n) continue;
        tfm_mark mark = tfm_arena_mark(c);
        tfm__cache_store(r->s, r->s->keys, layer, tfm_slice(c, k, 0, at, at + r->n), true);
        tfm__cache_store(r->s, r->s->values, layer, tfm_slice(c, v, 0, at, at + r->n), false);
        tfm_tensor mine[2] = { tfm_slice(c, q, 0, at, at + r->n), tfm_slice(c, y, 0, at, at + r->n) };
        for (int j = 0; j < 2; j++)
            mine[j] = tfm__heads(c, "rows", tfm_reshape(c, mine[j], tfm_shape3(1, r->n, mine[j].dim[1])), h->heads);
        o.offset = r->s->position;
        if (tfm__ok(c)) tfm__attend(c, mine[0], tfm__cache(r->s, r->s->keys, layer, o.offset + r->n, h->key_size),
                                    tfm__cache(r->s, r->s->values, layer, o.offset + r->n, h->value_size), mine[1],
                                    true, &o);
        tfm_arena_rewind(c, mark);
        at += r->n;
    }
    return y;
}
static tfm_tensor tfm__attention_part(tfm_session *s, int layer, tfm_tensor x, const float *angles) {
    const tfm_model *m = s->m;
    const tfm_hparams *h = &m->hp;
    const tfm__layer *l = &m->layers[layer];
    tfm_context *c = s->c;
    int64_t n = x.dim[0];
    const tfm__linear *const w[] = { &l->attn_q, &l->attn_k, &l->attn_v };
    tfm_tensor qkv[3], y;
    tfm__linears(s, x, w, qkv, 3);
    tfm_tensor q = tfm__qk_norm(c, m, qkv[0], l->q_norm), k = tfm__qk_norm(c, m, qkv[1], l->k_norm);
    if (angles) {
        tfm__rotate(c, tfm__floats(q), tfm__floats(q), angles, n, h->heads, h->key_size, h->rope_dims,
                    h->rope.half_split);
        tfm__rotate(c, tfm__floats(k), tfm__floats(k), angles, n, h->kv_heads, h->key_size, h->rope_dims,
                    h->rope.half_split);
    }
    y = tfm__attend_rows(s, layer, q, k, qkv[2]);
    return tfm__apply(s, y, &l->attn_output);
}
/* down(activation(gate x) * up x); without a gate down(activation(up x)). */
static tfm_tensor tfm__mlp(tfm_session *s, tfm_tensor x, const tfm__linear *gate, const tfm__linear *up,
                           const tfm__linear *down) {
    const tfm__linear *const w[] = { gate, up };
    tfm_tensor h[2];
    tfm__linears(s, x, w, h, 2);
    bool gated = h[0].rank > 0;
    tfm_tensor y = tfm__unary_times(s->c, "activation", s->m->arch->activation, h[!gated], gated ? h[1] : tfm_none());
    return tfm__apply(s, y, down);
}
static tfm__linear tfm__expert(const tfm__linear *l, int64_t e) {
    tfm__linear r = *l;
    const tfm__type *t = tfm__type_of(l->w.type);
    if (l->interleaved)
        r.interleaved += (size_t)(e * l->w.dim[1] / TFM__ROWS * (l->w.dim[2] / t->block)) * tfm__interleaved_bytes(t);
    r.w = tfm__row_of(l->w, e);
    return r;
}
/* Each row of x [n, D] goes through the experts that the router ranks first for it. Their weighted results
   are summed in the order of the experts, so that a row does not depend on the others. */
static tfm_tensor tfm__mixture(tfm_session *s, const tfm__layer *l, tfm_tensor x) {
    const tfm_hparams *h = &s->m->hp;
    tfm_context *c = s->c;
    int64_t n = x.dim[0], used = h->experts_used, width = h->width;
    tfm_tensor ids, y = tfm_zeros(c, tfm__shape_of(x));
    tfm_mark mark = tfm_arena_mark(c);
    tfm_tensor p = tfm_topk(c, tfm_softmax(c, tfm__apply(s, x, &l->router), 1), used, &ids);
    if (!(s->m->arch->is & TFM__RAW_EXPERTS))
        p = tfm_div(c, p, tfm_reshape(c, tfm_sum(c, p, 1), tfm_shape2(n, 1)));
    int64_t *rows = (int64_t *)tfm__arena(c, (size_t)n, sizeof *rows);      /* of ids, as one list */
    tfm_mark inner = tfm_arena_mark(c);
    for (int e = 0; e < h->experts && tfm__ok(c); e++) {
        int64_t count = c->measure && e == 0 ? n : 0;                       /* the most memory that one takes */
        for (int64_t i = 0; !c->measure && i < n * used; i++)
            if (((const int32_t *)ids.data)[i] == e) rows[count++] = i;
        if (!count) continue;
        tfm_tensor part = tfm__new(c, TFM_F32, tfm_shape2(count, width));
        for (int64_t r = 0; tfm__ok(c) && !c->measure && r < count; r++)
            memcpy(tfm__floats(part) + r * width, tfm__floats(x) + rows[r] / used * width,
                   (size_t)width * sizeof(float));
        tfm__linear gate = tfm__expert(&l->ffn_gate, e), up = tfm__expert(&l->ffn_up, e),
            down = tfm__expert(&l->ffn_down, e);
        part = tfm__mlp(s, part, &gate, &up, &down);
        for (int64_t r = 0; tfm__ok(c) && !c->measure && r < count; r++) {
            const float *from = tfm__floats(part) + r * width, weight = tfm__floats(p)[rows[r]];
            float *to = tfm__floats(y) + rows[r] / used * width;
            for (int64_t d = 0; d < width; d++) to[d] += weight * from[d];
        }
        tfm_arena_rewind(c, inner);
    }
    tfm_arena_rewind(c, mark);
    return y;
}
static tfm_tensor tfm__ffn_part(tfm_session *s, int layer, tfm_tensor x) {
    const tfm__layer *l = &s->m->layers[layer];
    return l->router.w.rank ? tfm__mixture(s, l, x) : tfm__mlp(s, x, &l->ffn_gate, &l->ffn_up, &l->ffn_down);
}
/* x += scale * norm(y), where the model has them; or x = norm(x + scale * y). */
static void tfm__residual(tfm_context *c, const tfm_model *m, tfm_tensor x, tfm_tensor y, tfm__linear norm) {
    const bool of_sum = (m->arch->is & TFM__SUM_NORM) != 0;
    if (tfm__ok(c) && !of_sum) y = tfm__norm(c, m, y, norm);
    if (tfm__ok(c)) tfm__multiply(c, tfm__floats(y), tfm_count(y), m->hp.residual_scale);
    tfm__accumulate(c, x, y);
    if (of_sum) tfm__store(c, tfm__norm(c, m, x, norm), tfm__floats(x));
}
/* x [n, D] through a layer, in place. In parallel the MLP reads x as it was before attention. */
static void tfm__layer_run(tfm_session *s, int layer, tfm_tensor x, const float *angles) {
    const tfm_model *m = s->m;
    const tfm__layer *l = &m->layers[layer];
    tfm_context *c = s->c;
    tfm_mark mark = tfm_arena_mark(c);
    tfm_tensor a = tfm__norm(c, m, x, l->attn_norm), f = a;
    if (l->parallel && l->ffn_norm.w.rank) f = tfm__norm(c, m, x, l->ffn_norm);
    tfm_mark inner = tfm_arena_mark(c);
    tfm__residual(c, m, x, tfm__attention_part(s, layer, a, angles), l->attn_post);
    tfm_arena_rewind(c, l->parallel ? inner : mark);
    if (!l->parallel) f = tfm__norm(c, m, x, l->ffn_norm);
    tfm__residual(c, m, x, tfm__ffn_part(s, layer, f), l->ffn_post);
    tfm_arena_rewind(c, mark);
}
/* Logits [rows, V] from x [rows, D]. */
static void tfm__head(tfm_session *s, tfm_tensor x, float *logits) {
    const tfm_model *m = s->m;
    const tfm_hparams *h = &m->hp;
    tfm_context *c = s->c;
    int64_t rows = x.dim[0], count = rows * h->vocab;
    tfm_tensor y = tfm__norm(c, m, x, m->output_norm);
    const float *bias = tfm__vector(c, "output", "bias", m->output.b, h->vocab);
    tfm__part p = tfm__part_of(m->output.w.type, m->output.w.data, m->output.w.stride[0], h->vocab, bias, logits, 1,
                               h->vocab);
    p.interleaved = m->output.interleaved;
    tfm__products(c, &p, 1, tfm__floats(y), rows, h->width);
    tfm__adapt(s, y, tfm__layout(logits, TFM_F32, tfm_shape2(rows, h->vocab)), &m->output);
    tfm__multiply(c, logits, count, 1.0f / h->logit_scale);
    if (h->logit_cap == 0) return;
    tfm__unary_job tanh_job = { TFM__TANH, logits, NULL, logits };
    tfm__multiply(c, logits, count, 1.0f / h->logit_cap);
    tfm__run(c, c->kernels->unary, &tanh_job, count, 20.0 * (double)count);
    tfm__multiply(c, logits, count, h->logit_cap);
}
/* The same of an encoder: x [n, D] pooled. */
static void tfm__pool_rows(tfm_session *s, tfm_tensor x) {
    const tfm_pooling kind = s->m->hp.pooling;
    int64_t n = x.dim[0];
    if (kind == TFM_POOLING_MEAN) x = tfm_mean(s->c, x, 0);
    else if (kind != TFM_POOLING_NONE) x = tfm_slice(s->c, x, 0, kind == TFM_POOLING_LAST ? n - 1 : 0,
                                                     kind == TFM_POOLING_LAST ? n : 1);
    tfm__store(s->c, x, s->logits);
}
static bool tfm__rotates_long(const tfm_session *s) {
    return s->m->long_factors && s->o.context > s->m->hp.rope.original_context;
}
/* The angles of n rows, each sequence's from its position on, or NULL if the model does not use such. */
static float *tfm__angles(tfm_session *s, int64_t n, bool local) {
    const tfm_model *m = s->m;
    if (m->arch->is & TFM__LEARNED || (local && !m->local_rope)) return NULL;
    float *angles = (float *)tfm__arena(s->c, (size_t)n, (size_t)m->hp.rope_dims * sizeof(float)), *at = angles;
    for (int i = 0; tfm__ok(s->c) && !s->c->measure && i < s->row_count; i++) {
        const tfm__rows *r = &s->rows[i];
        tfm_rope_opts rope = local ? m->hp.local_rope : m->hp.rope;
        if (!local && tfm__rotates_long(r->s)) rope.freq_factors = m->long_factors;
        tfm__rope_table(at, r->s->position, r->n, m->hp.rope_dims, &rope);
        at += r->n * m->hp.rope_dims;
    }
    return angles;
}
/* x [n, D] += rows begin..end-1 of a table: n of them, or one for all. */
static void tfm__add_rows(tfm_context *c, tfm_tensor x, tfm_tensor table, int64_t begin, int64_t end) {
    if (!table.rank || !tfm__ok(c)) return;
    if (c->measure) tfm_zeros(c, tfm_shape2(end - begin, x.dim[1]));        /* begin may lie past the table's end */
    else tfm__accumulate(c, x, tfm_to_f32(c, tfm_slice(c, table, 0, begin, end)));
}
/* x [n, D]: the embeddings of the ids of all rows, and of their types and positions where the model has such. */
static tfm_tensor tfm__embed_rows(tfm_session *s, int64_t n) {
    const tfm_model *m = s->m;
    tfm_context *c = s->c;
    tfm_tensor x = tfm__new(c, TFM_F32, tfm_shape2(n, m->hp.width));
    int64_t at = 0;
    for (int i = 0; i < s->row_count; i++) {
        const tfm__rows *r = &s->rows[i];
        tfm_mark mark = tfm_arena_mark(c);
        tfm_tensor part = tfm_slice(c, x, 0, at, at + r->n);
        tfm__look_up(c, m->token_embd, r->ids, part);
        if (tfm__ok(c)) tfm__multiply(c, tfm__floats(part), tfm_count(part), m->hp.embedding_scale);
        if (r->n) tfm__add_rows(c, part, m->token_types, 0, 1);
        if (r->n) tfm__add_rows(c, part, m->position_embd, r->s->position, r->s->position + r->n);
        tfm_arena_rewind(c, mark);
        at += r->n;
    }
    return tfm__ok(c) ? tfm__norm(c, m, x, m->embd_norm) : x;
}
/* Logits of the last rows of x: one sequence's where they stay, those of several together, and then to each. */
static void tfm__logit_rows(tfm_session *s, tfm_tensor x, int64_t count) {
    tfm_context *c = s->c;
    int64_t n = x.dim[0], width = x.dim[1], vocab = s->m->hp.vocab, at = 0;
    if (s->row_count == 1) { tfm__head(s, tfm_slice(c, x, 0, n - count, n), s->logits); return; }
    tfm_tensor last = tfm__new(c, TFM_F32, tfm_shape2(count, width));
    float *logits = (float *)tfm__arena(c, (size_t)count, (size_t)vocab * sizeof *logits);
    const float *end = tfm__floats(x);
    for (int i = 0; i < s->row_count && tfm__ok(c) && !c->measure; i++) {
        end += s->rows[i].n * width;
        if (s->rows[i].logits) memcpy(tfm__floats(last) + at++ * width, end - width, (size_t)width * sizeof *end);
    }
    if (tfm__ok(c)) tfm__head(s, last, logits);
    at = 0;
    for (int i = 0; i < s->row_count && tfm__ok(c) && !c->measure; i++)
        if (s->rows[i].logits)
            memcpy(s->rows[i].s->logits, logits + at++ * vocab, (size_t)vocab * sizeof *logits);
}
/* The transformer: the rows of each sequence at its session's position. */
static void tfm__forward(tfm_session *s, const tfm__rows *rows, int count) {
    const tfm_model *m = s->m;
    tfm_context *c = s->c;
    tfm_mark start = tfm_arena_mark(c);
    int64_t n = 0, logits = 0;
    for (int i = 0; i < count; i++) {
        n += rows[i].n;
        logits += rows[i].logits;
    }
    s->rows = rows;
    s->row_count = count;
    tfm_tensor x = tfm__embed_rows(s, n);
    const float *angles[2] = { tfm__angles(s, n, false), tfm__angles(s, n, true) };
    for (int i = 0; i < m->hp.layers && tfm__ok(c); i++)
        tfm__layer_run(s, i, x, m->layers[i].rope < 0 ? NULL : angles[m->layers[i].rope]);
    if (logits > 0 && tfm__ok(c) && m->hp.encoder) tfm__pool_rows(s, x);
    else if (logits > 0 && tfm__ok(c)) tfm__logit_rows(s, x, logits);
    tfm_arena_rewind(c, start);
}

static bool tfm__session_defaults(const tfm_model *m, const tfm_session_opts *opts, tfm_session_opts *o, tfm_error *e) {
    memset(o, 0, sizeof *o);
    if (opts) *o = *opts;
    if (!m) return tfm__fail(e, TFM_ARGUMENT, "session: the model is NULL");
    if (!o->context) o->context = m->hp.context < 2048 ? m->hp.context : 2048;
    if (!o->batch) o->batch = 512;
    if (m->hp.encoder) o->all_logits = m->hp.pooling == TFM_POOLING_NONE;
    if (!o->threads) o->threads = tfm_cpu_count();
    if (!o->prompt_bytes) o->prompt_bytes = 1024;
    if (!o->sequences) o->sequences = 1;
    if (o->context < 1) return tfm__fail(e, TFM_ARGUMENT, "session: context %i, at least 1", (int64_t)o->context);
    if (o->batch < 1) return tfm__fail(e, TFM_ARGUMENT, "session: batch %i, at least 1", (int64_t)o->batch);
    if (o->threads < 1 || o->threads > 256)
        return tfm__fail(e, TFM_ARGUMENT, "session: threads %i, not between 1 and 256", (int64_t)o->threads);
    if (o->sequences < 1)
        return tfm__fail(e, TFM_ARGUMENT, "session: sequences %i, at least 1", (int64_t)o->sequences);
    if (o->sequences > 1 && m->hp.encoder)
        return tfm__fail(e, TFM_UNSUPPORTED, "session: %i sequences, an encoder takes one text at a time",
                         (int64_t)o->sequences);
    if (o->prompt_bytes < 1)
        return tfm__fail(e, TFM_ARGUMENT, "session: prompt_bytes %i, at least 1", (int64_t)o->prompt_bytes);
    if (o->cache != TFM_F32 && o->cache != TFM_F16)
        return tfm__fail(e, TFM_UNSUPPORTED, "session: a cache of %s, F32 or F16 are supported",
                         tfm_type_name(o->cache));
    if (o->batch > o->context || m->hp.encoder) o->batch = o->context;
    if (o->adapter_count < 0 || (o->adapter_count && !o->adapters))
        return tfm__fail(e, TFM_ARGUMENT, "session: %i adapters", (int64_t)o->adapter_count);
    for (int i = 0; i < o->adapter_count; i++) {
        if (!o->adapters[i]) return tfm__fail(e, TFM_ARGUMENT, "session: adapter %i is NULL", (int64_t)i);
        if (o->adapter_scales && !tfm__finite(o->adapter_scales[i]))
            return tfm__fail(e, TFM_ARGUMENT, "session: the scale of adapter %i is not finite", (int64_t)i);
        if (!tfm__adapter_check(m, o->adapters[i], e)) return false;
    }
    return true;
}
/* The most arena that any call on such a session needs, found by running it without computing. */
static size_t tfm__session_scratch(const tfm_model *m, const tfm_session_opts *o, tfm_error *e) {
    tfm_context c;
    tfm_session s;
    memset(&c, 0, sizeof c);
    memset(&s, 0, sizeof s);
    c.kernels = tfm__kernels_for(o->level);
    c.measure = true;
    c.pool.threads = o->threads;
    c.top = &c.first;
    c.first.size = SIZE_MAX / 2;
    s.m = m;
    s.c = &c;
    s.o = *o;
    s.keys = s.values = (char *)(uintptr_t)TFM_ALIGN;   /* never followed */
    s.position = o->context - 1;                        /* the last id of all sees the longest cache */
    tfm__rows rows[2] = { { &s, NULL, 1, 1, 0 }, { &s, NULL, 1, 1, 0 } };
    tfm__forward(&s, rows, 1);
    if (o->sequences > 1) {                             /* a whole batch, with one such id, and all their logits */
        tfm_mark mark = tfm_arena_mark(&c);
        tfm__arena(&c, (size_t)o->sequences, sizeof *rows);
        rows[0].n = o->batch - 1;
        rows[0].logits = tfm__min64(o->sequences, o->batch) - 1;
        tfm__forward(&s, rows, 2);
        tfm_arena_rewind(&c, mark);
    }
    s.position = o->context - o->batch;
    rows[0].n = o->batch;
    rows[0].logits = o->all_logits ? o->batch : 1;
    tfm__forward(&s, rows, 1);
    tfm__arena(&c, (size_t)m->hp.vocab, sizeof(int32_t));           /* tfm_sample */
    tfm__arena(&c, (size_t)m->hp.vocab, sizeof(float));
    tfm__arena(&c, (size_t)m->hp.vocab, sizeof(float));             /* the logits that it edits */
    tfm__arena(&c, (size_t)m->hp.vocab / 8 + 1, 1);
#ifndef TFM_NO_TOKENIZER
    if (m->tokenizer) {                                             /* tfm_generate */
        tfm_mark bottom = { &c.first, 0 };
        tfm_arena_rewind(&c, bottom);
        tfm__arena(&c, tfm_tokenize_memory(m->tokenizer, (size_t)o->prompt_bytes), 1);
    }
#endif
    bool size = c.err.status == TFM_ARGUMENT;           /* no tensor has such a shape: it is too large */
    if (c.err.status != TFM_OK) tfm__fail(e, size ? TFM_MEMORY : c.err.status, "%s", c.err.message);
    return c.peak;
}
static tfm_session *tfm__session_carve(tfm__carver *k, const tfm_model *m, const tfm_session_opts *o,
                                       tfm_session_parts *parts, tfm_error *e) {
    size_t rows = 0, row = (size_t)m->hp.kv_heads * (size_t)tfm_type_bytes(o->cache),
        logits = (size_t)(m->hp.encoder ? m->hp.width : m->hp.vocab) * sizeof(float), at;
    tfm_context_opts co;
    memset(parts, 0, sizeof *parts);
    memset(&co, 0, sizeof co);
    co.threads = o->threads;
    co.level = o->level;
    parts->scratch = tfm__kernels_for(o->level) ? tfm__session_scratch(m, o, e) : 0;
    if (e->status != TFM_OK) return NULL;
    if (!tfm__mul((size_t)tfm__cache_layers(m), (size_t)tfm__cache_room(o), &rows)) k->overflow = true;
    tfm_session *s = (tfm_session *)tfm__carve(k, 1, sizeof *s);
    int32_t *ids = (int32_t *)tfm__carve(k, (size_t)o->context, sizeof *ids);
    const tfm_file **adapters = (const tfm_file **)tfm__carve(k, (size_t)o->adapter_count, sizeof *adapters);
    float *scales = (float *)tfm__carve(k, (size_t)o->adapter_count, sizeof *scales);
    at = k->used;
    char *keys = (char *)tfm__carve(k, rows, row * (size_t)m->hp.key_size);
    char *values = (char *)tfm__carve(k, rows, row * (size_t)m->hp.value_size);
    parts->cache = k->used - at;
    at = k->used;
    float *y = (float *)tfm__carve(k, o->all_logits ? (size_t)o->batch : 1, logits);
    parts->logits = k->used - at;
    tfm_context *c = tfm__context_carve(k, &co, parts->scratch, e);
    parts->total = k->used;
    parts->other = k->used - parts->cache - parts->logits - parts->scratch;
    if (!s || !c || k->overflow) return NULL;
    memset(s, 0, sizeof *s);
    s->m = m;
    s->c = c;
    s->o = *o;
    for (int i = 0; i < o->adapter_count; i++) {        /* the caller's arrays need not outlive the call */
        adapters[i] = o->adapters[i];
        scales[i] = o->adapter_scales ? o->adapter_scales[i] : 1;
    }
    s->o.adapters = adapters;
    s->adapter_scales = scales;
    s->ids = ids;
    s->keys = keys;
    s->values = values;
    s->logits = y;
    return s;
}
TFMDEF size_t tfm_session_size(const tfm_model *m, const tfm_session_opts *opts, tfm_session_parts *parts,
                               tfm_error *err) {
    tfm_error local, *e = tfm__begin(err, &local);
    tfm_session_opts o;
    tfm_session_parts p;
    tfm__carver k;
    memset(&k, 0, sizeof k);
    if (!tfm__session_defaults(m, opts, &o, e)) return 0;
    tfm__session_carve(&k, m, &o, &p, e);
    if (k.overflow) tfm__fail(e, TFM_MEMORY, "session: a context of %i positions does not fit in memory",
                              (int64_t)o.context);
    if (parts) *parts = p;
    return e->status == TFM_OK ? k.used : 0;
}
TFMDEF tfm_session *tfm_session_in(const tfm_model *m, const tfm_session_opts *opts, void *mem, size_t size,
                                   tfm_error *err) {
    tfm_error local, *e = tfm__begin(err, &local);
    tfm_session_opts o;
    tfm_session_parts parts;
    tfm__carver k;
    memset(&k, 0, sizeof k);
    size_t need = tfm_session_size(m, opts, NULL, e);
    if (!need || !tfm__object(NULL, mem, size, need, "session", e) || !tfm__session_defaults(m, opts, &o, e))
        return NULL;
    k.base = (char *)mem;
    k.size = need;
    tfm_session *s = tfm__session_carve(&k, m, &o, &parts, e);
    return s && tfm__pool_start(&s->c->pool, e) ? s : NULL;
}
TFMDEF tfm_session *tfm_session_new(const tfm_model *m, const tfm_session_opts *opts, tfm_error *err) {
    tfm_error local, *e = tfm__begin(err, &local);
    tfm_allocator a = tfm__allocator(opts ? opts->allocator : NULL);
    size_t need = tfm_session_size(m, opts, NULL, e);
    void *mem = need ? tfm__heap_alloc(&a, need, e) : NULL;
    tfm_session *s = mem ? tfm_session_in(m, opts, mem, need, e) : NULL;
    if (!s) { tfm__heap_free(&a, mem); return NULL; }
    s->allocator = s->c->allocator = a;
    s->owns_memory = s->c->grows = true;
    return s;
}
TFMDEF void tfm_session_free(tfm_session *s) {
    if (!s) return;
    tfm_allocator a = s->allocator;
    tfm_context_free(s->c);
    if (s->owns_memory) tfm__heap_free(&a, s);
}
TFMDEF tfm_context *tfm_session_context(tfm_session *s) { return s ? s->c : NULL; }
TFMDEF tfm_status tfm_adapter_scale(tfm_session *s, int index, float scale) {
    if (!s) return TFM_ARGUMENT;
    if (index < 0 || index >= s->o.adapter_count || !tfm__finite(scale))
        tfm__fail(&s->c->err, TFM_ARGUMENT, "scale of adapter %i: it must be finite, and there are %i adapters",
                  (int64_t)index, (int64_t)s->o.adapter_count);
    if (tfm__ok(s->c)) s->adapter_scales[index] = scale;
    return s->c->err.status;
}
TFMDEF int64_t tfm_position(const tfm_session *s) { return s ? s->position : 0; }
TFMDEF int64_t tfm_session_capacity(const tfm_session *s) {
    if (!s) return 0;
    return s->m->arch->is & TFM__LEARNED ? tfm__min64(s->o.context, s->m->hp.context) : s->o.context;
}
TFMDEF float *tfm_logits_at(tfm_session *s, int64_t i) {
    return s && i >= 0 && i < s->logit_rows && !s->m->hp.encoder ? s->logits + i * s->m->hp.vocab : NULL;
}
TFMDEF float *tfm_logits(tfm_session *s) { return s ? tfm_logits_at(s, s->logit_rows - 1) : NULL; }
TFMDEF float *tfm_pooled(tfm_session *s, int64_t *rows) {
    int64_t n = s && s->m->hp.encoder ? s->logit_rows : 0;
    if (rows) *rows = n;
    return n ? s->logits : NULL;
}
TFMDEF void tfm_cancel(tfm_session *s) {
#if defined(__GNUC__) || defined(__clang__)
    if (s) __atomic_store_n(&s->cancel, 1, __ATOMIC_RELAXED);
#else
    if (s) *(volatile int *)&s->cancel = 1;
#endif
}
/* True once after a tfm_cancel; the error is set. */
static bool tfm__cancelled(tfm_session *s) {
#if defined(__GNUC__) || defined(__clang__)
    if (!__atomic_exchange_n(&s->cancel, 0, __ATOMIC_RELAXED)) return false;
#else
    if (!*(volatile int *)&s->cancel) return false;
    s->cancel = 0;
#endif
    tfm__fail(&s->c->err, TFM_CANCELLED, "cancelled at position %i", s->position);
    return true;
}
TFMDEF tfm_status tfm_rewind(tfm_session *s, int64_t position) {
    if (!s) return TFM_ARGUMENT;
    if (position < 0 || position > s->position) tfm__fail(&s->c->err, TFM_ARGUMENT,
                                                          "rewind to %i: the session is at %i", position, s->position);
    if (!tfm__ok(s->c)) return s->c->err.status;
    if (position != s->position) s->logit_rows = 0;
    s->position = position;
    return TFM_OK;
}
/* Can ids be evaluated when the session stands at this position? */
static bool tfm__eval_check(tfm_session *s, int64_t position, const int32_t *ids, int64_t n) {
    tfm_error *e = &s->c->err;
    if (!tfm__ok(s->c)) return false;
    if (n < 0 || (n && !ids)) return tfm__fail(e, TFM_ARGUMENT, "eval: %i ids", n);
    for (int64_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= s->m->hp.vocab)
            return tfm__fail(e, TFM_ARGUMENT, "token id %i at %i is not between 0 and %i", (int64_t)ids[i], i,
                             (int64_t)s->m->hp.vocab - 1);
    if (s->m->hp.encoder && position)
        return tfm__fail(e, TFM_ARGUMENT, "eval: an encoder takes a text at once, and the session is at position %i: "
                         "tfm_rewind it to 0", position);
    if (s->o.all_logits && n > s->o.batch && !s->m->hp.encoder)
        return tfm__fail(e, TFM_ARGUMENT, "eval: %i ids at once with all_logits, the batch is %i", n,
                         (int64_t)s->o.batch);
    if (n > tfm_session_capacity(s) - position)
        return tfm__fail(e, TFM_FULL, "context full: %i positions in use, %i more asked, %i in all", position, n,
                         tfm_session_capacity(s));
    return true;
}
/* Evaluates ids that were checked, of all rows as many at once as the session's batch holds. A prompt can be
   cancelled between its pieces, a generated id not: its text is out already. */
static void tfm__eval_rows(tfm_session *s, tfm__rows *rows, int count, bool prompt) {
    int64_t total = 0, done = 0;
    for (int i = 0; i < count; i++) total += rows[i].left;
    while (done < total && tfm__ok(s->c) && !(prompt && tfm__cancelled(s))) {
        int64_t room = s->o.batch;
        for (int i = 0; i < count; i++) {
            tfm__rows *r = &rows[i];
            r->n = tfm__min64(r->left, room);
            room -= r->n;
            r->logits = count == 1 && s->o.all_logits ? r->n : r->n && r->n == r->left;
            if (r->n) r->s->logit_rows = 0;
        }
        tfm__forward(s, rows, count);
        for (int i = 0; i < count && tfm__ok(s->c); i++) {
            tfm__rows *r = &rows[i];
            if (!r->n) continue;
            memmove(r->s->ids + r->s->position, r->ids, (size_t)r->n * sizeof *r->ids);
            r->s->position += r->n;
            r->s->logit_rows = r->logits;
            r->ids += r->n;
            r->left -= r->n;
            done += r->n;
        }
        if (prompt && tfm__ok(s->c) && s->o.progress && !s->o.progress(s->o.progress_user, done, total))
            tfm__fail(&s->c->err, TFM_CANCELLED, "cancelled at position %i", s->position);
    }
}
static void tfm__eval_ids(tfm_session *s, const int32_t *ids, int64_t n, bool prompt) {
    tfm__rows rows = { s, ids, 0, 0, n };
    tfm__eval_rows(s, &rows, 1, prompt);
}
TFMDEF tfm_status tfm_eval(tfm_session *s, const int32_t *ids, int64_t n) {
    if (!s) return TFM_ARGUMENT;
    if (!tfm__eval_check(s, s->position, ids, n)) return s->c->err.status;
    tfm__fpenv env = tfm__fp_set();
    tfm__eval_ids(s, ids, n, true);
    tfm__fp_restore(env);
    return s->c->err.status;
}
/* Can session b be evaluated in a batch of a's? The error goes to a. */
static bool tfm__joins(tfm_session *a, tfm_session *b, int index, const int32_t *ids, int64_t n) {
    tfm_error *e = &a->c->err;
    int count = a->o.adapter_count;
    bool same = b && b->m == a->m && b->o.cache == a->o.cache && b->o.adapter_count == count;
    for (int i = 0; same && i < count; i++)
        same = b->o.adapters[i] == a->o.adapters[i] &&
               memcmp(&b->adapter_scales[i], &a->adapter_scales[i], sizeof(float)) == 0;
    if (!same) return tfm__fail(e, TFM_ARGUMENT, b ? "session %i: of another model, type of cache or set of adapters"
                                                   : "session %i is NULL", (int64_t)index);
    if (b->o.context > a->o.context)
        return tfm__fail(e, TFM_ARGUMENT, "session %i: a context of %i, the first session's is %i", (int64_t)index,
                         (int64_t)b->o.context, (int64_t)a->o.context);
    bool clean = tfm__ok(b->c), good = tfm__eval_check(b, b->position, ids, n);
    if (!good && a != b) tfm__fail(e, b->c->err.status, "session %i: %s", (int64_t)index, b->c->err.message);
    if (!good && a != b && clean) tfm_clear(b->c);
    return good;
}
TFMDEF tfm_status tfm_eval_many(tfm_session *const *sessions, int count, const int32_t *const *ids,
                                const int64_t *counts) {
    tfm_session *s = sessions && count > 0 ? sessions[0] : NULL;
    if (!s) return TFM_ARGUMENT;
    if (!ids || !counts || count > s->o.sequences)
        tfm__fail(&s->c->err, TFM_ARGUMENT, "eval: %i sessions, the first one's option is sequences = %i",
                  (int64_t)count, (int64_t)s->o.sequences);
    for (int i = 0; i < count && tfm__ok(s->c); i++) {
        if (!tfm__joins(s, sessions[i], i, ids[i], counts[i])) break;
        for (int j = 0; j < i; j++)
            if (sessions[j] == sessions[i])
                tfm__fail(&s->c->err, TFM_ARGUMENT, "sessions %i and %i are the same", (int64_t)j, (int64_t)i);
    }
    if (!tfm__ok(s->c)) return s->c->err.status;
    if (count == 1) return tfm_eval(s, ids[0], counts[0]);
    tfm_mark mark = tfm_arena_mark(s->c);
    tfm__rows *rows = (tfm__rows *)tfm__arena(s->c, (size_t)count, sizeof *rows);
    for (int i = 0; rows && i < count; i++) {
        const tfm__rows r = { sessions[i], ids[i], 0, 0, counts[i] };
        rows[i] = r;
    }
    tfm__fpenv env = tfm__fp_set();
    if (rows) tfm__eval_rows(s, rows, count, true);
    tfm__fp_restore(env);
    tfm_arena_rewind(s->c, mark);
    return s->c->err.status;
}
TFMDEF int64_t tfm_prefix(const tfm_session *s, const int32_t *ids, int64_t n) {
    int64_t same = 0;
    while (s && ids && same < tfm__min64(n, s->position) && s->ids[same] == ids[same]) same++;
    return same;
}
TFMDEF tfm_status tfm_eval_from_prefix(tfm_session *s, const int32_t *ids, int64_t n) {
    if (!s) return TFM_ARGUMENT;
    int64_t kept = tfm__min64(tfm_prefix(s, ids, n), tfm__max64(n - 1, 0));    /* logits may have been edited */
    if (s->m->hp.encoder) kept = 0;
    if (!tfm__eval_check(s, kept, ids ? ids + kept : NULL, n - kept)) return s->c->err.status;
    tfm_rewind(s, kept);
    return tfm_eval(s, ids ? ids + kept : NULL, n - kept);
}

/* Saved states: words of 8 bytes (magic, tfm__state_names, position, number of logits), ids, logits, per layer the
   keys and then the values as [kv head][position][size], a checksum word. All of it little-endian. */
enum { TFM__STATE_SAME = 10, TFM__STATE_WORDS = TFM__STATE_SAME + 3 };
#define TFM__STATE_MAGIC UINT64_C(0x65746174736d6674)      /* "tfmstate" */

static const char *const tfm__state_names[TFM__STATE_SAME] = {     /* what a state and its session must agree in */
    "version", "type of cache", "number of layers", "number of key/value heads", "key size", "value size",
    "vocabulary", "use of long rope factors", "model (a hash)", "set of adapters (a hash)"
};
static uint64_t tfm__mix(uint64_t h, uint64_t word) {
    h = (h ^ word) * UINT64_C(0x9e3779b97f4a7c15);
    return h ^ h >> 32;
}
static uint64_t tfm__mix_bytes(uint64_t h, const void *data, size_t size) {
    const uint8_t *p = (const uint8_t *)data;
    size_t i = 0;
    for (; i + 8 <= size; i += 8) h = tfm__mix(h, tfm__little(p + i, 8));
    return tfm__mix(tfm__mix(h, tfm__little(p + i, size - i)), size);
}
static uint64_t tfm__mix_value(uint64_t h, const tfm_value *v) {
    tfm_string text;
    double number = 0;
    bool truth = false;
    uint64_t bits;
    if (tfm_value_string(v, &text)) return tfm__mix_bytes(h, text.data, text.size);
    if (!tfm_value_f64(v, &number) && tfm_value_bool(v, &truth)) number = truth;
    memcpy(&bits, &number, sizeof bits);
    return tfm__mix(h, bits);
}
/* Numbers are taken, not bytes, so that a file in the other byte order has the same hash. */
static uint64_t tfm__file_hash(const tfm_file *f, const char *prefix) {
    enum { SAMPLE = 256 };              /* a multiple of every block */
    size_t prefix_size = strlen(prefix);
    uint64_t h = 0;
    tfm_string key;
    tfm_value v, e;
    tfm_tensor_info t;
    for (int64_t i = 0; tfm_file_meta_at(f, i, &key, &v); i++) {
        if (key.size < prefix_size || memcmp(key.data, prefix, prefix_size) != 0) continue;
        h = tfm__mix_bytes(h, key.data, key.size);
        if (v.type != TFM_VALUE_ARRAY) h = tfm__mix_value(h, &v);
        else while (tfm_value_next(&v, &e)) h = tfm__mix_value(h, &e);
    }
    for (int64_t i = 0; tfm_file_tensor_at(f, i, &t); i++) {
        float sample[SAMPLE];
        int64_t n = tfm__min64(SAMPLE, tfm__is_numeric(t.tensor.type) ? t.tensor.dim[t.tensor.rank - 1] : 0);
        h = tfm__mix(tfm__mix_bytes(h, t.name.data, t.name.size), (uint64_t)t.tensor.type);
        for (int d = 0; d < t.tensor.rank; d++) h = tfm__mix(h, (uint64_t)t.tensor.dim[d]);
        if (t.tensor.data) tfm__decode(t.tensor.type, t.tensor.data, sample, n);
        for (int64_t j = 0; t.tensor.data && j < n; j++) {
            uint32_t bits;
            memcpy(&bits, &sample[j], sizeof bits);
            h = tfm__mix(h, bits);
        }
    }
    return h;
}
static uint64_t tfm__adapters_hash(const tfm_session *s) {
    uint64_t h = 0;
    for (int i = 0; i < s->o.adapter_count; i++) {
        uint32_t bits;
        memcpy(&bits, &s->adapter_scales[i], sizeof bits);
        if (s->adapter_scales[i] != 0) h = tfm__mix(tfm__mix(h, tfm__file_hash(s->o.adapters[i], "adapter.")), bits);
    }
    return h;
}
static void tfm__state_words(const tfm_session *s, uint64_t words[TFM__STATE_WORDS]) {
    const tfm_hparams *h = &s->m->hp;
    const uint64_t all[TFM__STATE_WORDS] = {
        TFM__STATE_MAGIC, 1, (uint64_t)s->o.cache, (uint64_t)h->layers, (uint64_t)h->kv_heads, (uint64_t)h->key_size,
        (uint64_t)h->value_size, (uint64_t)h->vocab, tfm__rotates_long(s), tfm__file_hash(s->m->file, s->m->arch->name),
        tfm__adapters_hash(s), (uint64_t)s->position, s->logit_rows ? (uint64_t)h->vocab : 0
    };
    memcpy(words, all, sizeof all);
}
static size_t tfm__state_size(const tfm_session *s, uint64_t position, uint64_t logits) {
    const tfm_hparams *h = &s->m->hp;   /* cannot overflow: the session holds as much, but for what is added here */
    size_t position_bytes = (size_t)h->layers * (size_t)h->kv_heads * (size_t)(h->key_size + h->value_size) *
                            (size_t)tfm_type_bytes(s->o.cache) + sizeof(int32_t);
    return (size_t)position * position_bytes + (size_t)logits * sizeof(float) + (TFM__STATE_WORDS + 1) * 8;
}
/* A session's numbers on their way to a state, or from it. */
typedef struct tfm__state { uint8_t *out; const uint8_t *in; size_t at; } tfm__state;

static void tfm__state_move(tfm__state *k, void *numbers, size_t element, int64_t count, int64_t stride) {
    const bool little = tfm__little_host();
    if (little && (size_t)stride == element) { element *= (size_t)count; count = count > 0; }
    for (int64_t i = 0; i < count; i++, k->at += element) {
        uint8_t *mine = (uint8_t *)numbers + i * stride, *to = k->in ? mine : k->out + k->at;
        const uint8_t *from = k->in ? k->in + k->at : mine;
        if (little) memcpy(to, from, element);
        else for (size_t b = 0; b < element; b++) to[b] = from[element - 1 - b];
    }
}
static void tfm__state_cache(tfm__state *k, const tfm_session *s, int layer, bool turned) {
    const tfm_hparams *h = &s->m->hp;
    int64_t size = turned ? h->key_size : h->value_size, element = tfm_type_bytes(s->o.cache);
    tfm_tensor t = tfm__cache(s, turned ? s->keys : s->values, layer, s->position, size);
    for (int64_t head = 0; head < h->kv_heads; head++)
        for (int64_t p = 0; p < s->position; p++) {
            int64_t inner = turned ? p % 16 : 0;
            char *row = (char *)t.data + head * t.stride[1] + (p - inner) * t.stride[2] + inner * element;
            tfm__state_move(k, row, (size_t)element, size, turned ? 16 * element : element);
        }
}
/* Everything between the words and the checksum. */
static void tfm__state_body(tfm__state *k, tfm_session *s, int64_t logits) {
    float *last = logits && !k->in ? tfm_logits(s) : s->logits;
    tfm__state_move(k, s->ids, sizeof *s->ids, s->position, sizeof *s->ids);
    tfm__state_move(k, last, sizeof *last, logits, sizeof *last);
    for (int i = 0; i < s->m->hp.layers; i++) {
        tfm__state_cache(k, s, i, true);
        tfm__state_cache(k, s, i, false);
    }
}
static bool tfm__has_state(tfm_session *s) {
    return !s->m->hp.encoder ||
           tfm__fail(&s->c->err, TFM_UNSUPPORTED, "state: %s is an encoder, nothing goes on from it", s->m->arch->name);
}
TFMDEF size_t tfm_session_save(tfm_session *s, void *buffer, size_t size) {
    uint64_t words[TFM__STATE_WORDS], sum;
    tfm__state k = { (uint8_t *)buffer, NULL, 0 };
    if (!s || !tfm__ok(s->c) || !tfm__has_state(s)) return 0;
    tfm__state_words(s, words);
    size_t need = tfm__state_size(s, (uint64_t)s->position, words[TFM__STATE_WORDS - 1]);
    if (!buffer) return need;
    if (size < need) {
        tfm__fail(&s->c->err, TFM_MEMORY, "state: %u bytes given, %u needed", (uint64_t)size, (uint64_t)need);
        return 0;
    }
    tfm__state_move(&k, words, 8, TFM__STATE_WORDS, 8);
    tfm__state_body(&k, s, (int64_t)words[TFM__STATE_WORDS - 1]);
    sum = tfm__mix_bytes(0, buffer, k.at);
    tfm__state_move(&k, &sum, 8, 1, 8);
    return need;
}
/* Sees that a state is one of this session's, whole and undamaged. */
static bool tfm__state_check(tfm_session *s, const uint8_t *data, size_t size, const uint64_t words[TFM__STATE_WORDS]) {
    tfm_error *e = &s->c->err;
    uint64_t mine[TFM__STATE_WORDS], position = words[TFM__STATE_SAME + 1], logits = words[TFM__STATE_SAME + 2];
    tfm__state_words(s, mine);
    if (words[0] != TFM__STATE_MAGIC) return tfm__fail(e, TFM_MALFORMED, "state: these bytes are no saved session");
    for (int i = 0; i < TFM__STATE_SAME; i++)
        if (words[i + 1] != mine[i + 1])
            return tfm__fail(e, i ? TFM_MISMATCH : TFM_UNSUPPORTED, "state: its %s is %u, the session's %u",
                             tfm__state_names[i], words[i + 1], mine[i + 1]);
    if (logits && (logits != (uint64_t)s->m->hp.vocab || !position))
        return tfm__fail(e, TFM_MALFORMED, "state: %u logits of %u positions", logits, position);
    if (position > (uint64_t)tfm_session_capacity(s))
        return tfm__fail(e, TFM_FULL, "state: %u positions, the session has room for %i", position,
                         tfm_session_capacity(s));
    size_t need = tfm__state_size(s, position, logits);
    if (size != need) return tfm__fail(e, size < need ? TFM_TRUNCATED : TFM_MALFORMED,
                                       "state: %u bytes, %u needed", (uint64_t)size, (uint64_t)need);
    if (tfm__mix_bytes(0, data, size - 8) != tfm__little(data + size - 8, 8))
        return tfm__fail(e, TFM_MALFORMED, "state: it is damaged: the checksum does not fit");
    for (size_t i = 0; i < position; i++) {
        uint64_t id = tfm__little(data + TFM__STATE_WORDS * 8 + 4 * i, 4);
        if (id >= (uint64_t)s->m->hp.vocab)
            return tfm__fail(e, TFM_MALFORMED, "state: token id %u at %u is not between 0 and %i", id, (uint64_t)i,
                             (int64_t)s->m->hp.vocab - 1);
    }
    return true;
}
TFMDEF tfm_status tfm_session_load(tfm_session *s, const void *data, size_t size) {
    uint64_t words[TFM__STATE_WORDS];
    tfm__state k = { NULL, (const uint8_t *)data, 0 };
    if (!s) return TFM_ARGUMENT;
    if (!data) tfm__fail(&s->c->err, TFM_ARGUMENT, "state: the data is NULL");
    else if (size < sizeof words + 8)
        tfm__fail(&s->c->err, TFM_TRUNCATED, "state: %u bytes are too few", (uint64_t)size);
    if (!tfm__ok(s->c) || !tfm__has_state(s)) return s->c->err.status;
    tfm__state_move(&k, words, 8, TFM__STATE_WORDS, 8);
    if (!tfm__state_check(s, k.in, size, words)) return s->c->err.status;
    s->position = (int64_t)words[TFM__STATE_SAME + 1];
    s->logit_rows = words[TFM__STATE_SAME + 2] != 0;
    tfm__state_body(&k, s, (int64_t)words[TFM__STATE_SAME + 2]);
    return TFM_OK;
}

/* ---- Sampling and generation ------------------------------------------------------ [IMPL.SAMPLER] */

TFMDEF uint64_t tfm_random(tfm_rng *rng) {
    if (!rng) return 0;
    uint64_t z = rng->state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}
static bool tfm__sampling_check(tfm_context *c, const tfm_sampling *o, int64_t vocab) {
    if (!tfm__ok(c)) return false;
    if (!(o->temperature >= 0) || !tfm__finite(o->temperature))
        return tfm__fail(&c->err, TFM_ARGUMENT, "sampling: temperature must be a number of at least 0");
    if (o->top_k < 0) return tfm__fail(&c->err, TFM_ARGUMENT, "sampling: top_k is %i, at least 0", (int64_t)o->top_k);
    if (!(o->top_p >= 0 && o->top_p <= 1))
        return tfm__fail(&c->err, TFM_ARGUMENT, "sampling: top_p must lie between 0 and 1");
    if (!(o->min_p >= 0 && o->min_p <= 1))
        return tfm__fail(&c->err, TFM_ARGUMENT, "sampling: min_p must lie between 0 and 1");
    if (!(o->repeat_penalty >= 0) || !tfm__finite(o->repeat_penalty))
        return tfm__fail(&c->err, TFM_ARGUMENT, "sampling: repeat_penalty must be a number of at least 0");
    if (o->repeat_last < 0)
        return tfm__fail(&c->err, TFM_ARGUMENT, "sampling: repeat_last is %i, at least 0", (int64_t)o->repeat_last);
    if (o->bias_count < 0 || (o->bias_count && (!o->bias_ids || !o->bias)))
        return tfm__fail(&c->err, TFM_ARGUMENT, "sampling: bias for %i ids", (int64_t)o->bias_count);
    for (int i = 0; i < o->bias_count; i++) {
        if (o->bias_ids[i] < 0 || o->bias_ids[i] >= vocab)
            return tfm__fail(&c->err, TFM_ARGUMENT, "sampling: bias of token id %i, which is not between 0 and %i",
                             (int64_t)o->bias_ids[i], vocab - 1);
        if (o->bias[i] != o->bias[i])
            return tfm__fail(&c->err, TFM_ARGUMENT, "sampling: the bias of token id %i is no number",
                             (int64_t)o->bias_ids[i]);
    }
    return true;
}
static bool tfm__penalises(const tfm_sampling *o) { return o->repeat_penalty != 0 && o->repeat_penalty != 1; }
/* Each id among the recent ones is penalised once. */
static void tfm__penalise(float *logits, int64_t n, const tfm_sampling *o, const int32_t *recent, int64_t count,
                          uint8_t *seen) {
    int64_t last = o->repeat_last ? o->repeat_last : 64;
    if (!tfm__penalises(o)) return;
    memset(seen, 0, (size_t)n / 8 + 1);
    for (int64_t i = tfm__max64(0, count - last); i < count; i++) {
        int32_t id = recent[i];
        if (id < 0 || id >= n || seen[id / 8] >> id % 8 & 1) continue;
        seen[id / 8] = (uint8_t)(seen[id / 8] | 1 << id % 8);
        logits[id] = logits[id] > 0 ? logits[id] / o->repeat_penalty : logits[id] * o->repeat_penalty;
    }
}
/* Draws from the candidates ids[0..count-1], best first, whose weights relative to the best are p. */
static int32_t tfm__draw(const int32_t *ids, float *p, int64_t count, const tfm_sampling *o, tfm_rng *rng) {
    double total = 0, sum = 0;          /* float would lose the tail of a large vocabulary */
    for (int64_t i = 0; i < count; i++) total += (double)p[i];
    if (o->top_p > 0 && o->top_p < 1) {
        int64_t kept = 0;
        double reached = 0;
        while (kept < count && (kept == 0 || reached < (double)o->top_p * total)) reached += (double)p[kept++];
        count = kept;
    }
    while (count > 1 && p[count - 1] < o->min_p * p[0]) count--;
    total = 0;
    for (int64_t i = 0; i < count; i++) total += (double)p[i];
    double u = (double)(tfm_random(rng) >> 40) / 16777216.0 * total;
    for (int64_t i = 0; i < count; i++) {
        sum += (double)p[i];
        if (sum > u) return ids[i];
    }
    return ids[count - 1];
}
/* Draws from ids, ordered. The division by the temperature keeps the order, and comes after the best
   was taken off, so that it cannot overflow. */
static int32_t tfm__weigh_and_draw(const tfm__kernels *kernels, const float *logits, const int32_t *ids, float *p,
                                   int64_t count, const tfm_sampling *o, tfm_rng *rng) {
    float best = logits[ids[0]];
    if (!tfm__finite(best)) return ids[0];              /* nothing to weigh: the first of the order */
    kernels->weigh(logits, ids, count, best, o->temperature, p);
    return tfm__draw(ids, p, count, o, rng);
}
TFMDEF int32_t tfm_sample(tfm_context *c, float *logits, int64_t n, const tfm_sampling *opts, const int32_t *recent,
                          int64_t recent_count, tfm_rng *rng) {
    tfm_sampling o;
    memset(&o, 0, sizeof o);
    if (opts) o = *opts;
    if (!tfm__sampling_check(c, &o, n)) return -1;
    if (!logits || n < 1 || n > INT32_MAX || recent_count < 0 || (recent_count && !recent) ||
        (o.temperature > 0 && !rng)) {
        tfm__fail(&c->err, TFM_ARGUMENT, "sample: %i logits, %i recent ids", n, recent_count);
        return -1;
    }
    int64_t count = o.temperature == 0 ? 1 : o.top_k ? tfm__min64(o.top_k, n) : n;
    tfm_mark mark = tfm_arena_mark(c);
    int32_t *ids = (int32_t *)tfm__arena(c, (size_t)count, sizeof *ids), result = -1;
    float *p = (float *)tfm__arena(c, (size_t)count, sizeof *p);
    uint8_t *seen = (uint8_t *)tfm__arena(c, tfm__penalises(&o) ? (size_t)n / 8 + 1 : 0, 1);    /* a bit per id */
    if (tfm__ok(c) && c->measure) result = 0;
    else if (tfm__ok(c)) {
        if (o.hook) o.hook(o.hook_user, logits, n);
        for (int i = 0; i < o.bias_count; i++) logits[o.bias_ids[i]] += o.bias[i];
        tfm__penalise(logits, n, &o, recent, recent_count, seen);
        tfm__top(c->kernels, logits, n, ids, count, count == n ? (int32_t *)(void *)p : NULL);
        result = o.temperature == 0 ? ids[0] : tfm__weigh_and_draw(c->kernels, logits, ids, p, count, &o, rng);
    }
    tfm_arena_rewind(c, mark);
    return result;
}

enum { TFM__STOP_MAX = 63, TFM__PIECE = 256 };          /* bytes of a stop string, of a step of text */

/* Text on its way out: whole characters, and nothing that might be the start of a stop string. */
#ifndef TFM_NO_TOKENIZER
typedef struct tfm__stream {
    const tfm_generate_opts *o;
    tfm_text_fn on_text;
    void *user;
    tfm_utf8 utf8;
    char held[TFM__STOP_MAX + 1 + 3 * TFM__PIECE + 12];
    size_t count;
    bool stopped, refused;              /* a stop string appeared; the callback said no */
} tfm__stream;

static void tfm__stream_out(tfm__stream *t, size_t size) {
    if (size && t->on_text && !t->refused && !t->on_text(t->user, t->held, size)) t->refused = true;
    memmove(t->held, t->held + size, t->count - size);
    t->count -= size;
}
/* Passes on what is safe: up to a stop string, or up to what may yet become one. */
static void tfm__stream_flush(tfm__stream *t, bool final) {
    for (size_t at = 0; at < t->count; at++) {
        bool begun = false;
        for (int i = 0; i < t->o->stop_count; i++) {
            const char *stop = t->o->stop[i];
            size_t n = strlen(stop), left = t->count - at;
            if (n <= left && memcmp(t->held + at, stop, n) == 0) {
                tfm__stream_out(t, at);
                t->stopped = true;
                return;
            }
            begun = begun || (!final && n > left && memcmp(t->held + at, stop, left) == 0);
        }
        if (begun) { tfm__stream_out(t, at); return; }
    }
    tfm__stream_out(t, t->count);
}
static void tfm__stream_bytes(tfm__stream *t, const char *bytes, size_t size, bool final) {
    do {
        size_t n = size < TFM__PIECE ? size : (size_t)TFM__PIECE;
        t->count += tfm_utf8_feed(&t->utf8, bytes, n, !t->o->raw_bytes, final && n == size, t->held + t->count);
        bytes += n;
        size -= n;
        tfm__stream_flush(t, final && size == 0);
    } while (size && !t->stopped && !t->refused);
}
static void tfm__stream_token(tfm__stream *t, tfm_context *c, const tfm_tokenizer *tokenizer, int32_t id) {
    char piece[TFM__PIECE], *p = piece;
    tfm_mark mark = tfm_arena_mark(c);
    size_t size = tfm_token_bytes(tokenizer, id, false, piece, sizeof piece);
    if (size > sizeof piece) {          /* rare: a token longer than any word */
        p = (char *)tfm__arena(c, size, 1);
        if (p) tfm_token_bytes(tokenizer, id, false, p, size);
    }
    if (p && size) tfm__stream_bytes(t, p, size, false);
    tfm_arena_rewind(c, mark);
}
#endif

static bool tfm__generate_check(tfm_session *s, const tfm_generate_opts *o) {
    tfm_error *e = &s->c->err;
    if (!tfm__sampling_check(s->c, &o->sampling, s->m->hp.vocab)) return false;
    if (s->m->hp.encoder)
        return tfm__fail(e, TFM_UNSUPPORTED, "generate: %s is an encoder, it has no next token", s->m->arch->name);
    if (o->max_tokens < 0) return tfm__fail(e, TFM_ARGUMENT, "generate: max_tokens is %i, at least 0", o->max_tokens);
    if (o->stop_count < 0 || o->stop_id_count < 0 || (o->stop_count && !o->stop) || (o->stop_id_count && !o->stop_ids))
        return tfm__fail(e, TFM_ARGUMENT, "generate: %i stop strings, %i stop ids", (int64_t)o->stop_count,
                         (int64_t)o->stop_id_count);
    for (int i = 0; i < o->stop_count; i++)
        if (!o->stop[i] || !o->stop[i][0] || strlen(o->stop[i]) > TFM__STOP_MAX)
            return tfm__fail(e, TFM_ARGUMENT, "generate: stop string %i is empty or longer than 63 bytes", (int64_t)i);
    return true;
}
static bool tfm__is_stop_id(const tfm_session *s, const tfm_generate_opts *o, int32_t id) {
    for (int i = 0; i < o->stop_id_count; i++) if (o->stop_ids[i] == id) return true;
#ifndef TFM_NO_TOKENIZER
    if (!o->ignore_end && s->m->tokenizer && tfm_token_is_end(s->m->tokenizer, id)) return true;
#else
    (void)s;
#endif
    return false;
}
/* An error is turned into the way the run finished; a cancelled run leaves the context clean. */
static tfm_finish tfm__finish_of(tfm_session *s) {
    tfm_status status = s->c->err.status;
    if (status != TFM_CANCELLED && status != TFM_FULL) return TFM_FINISH_ERROR;
    tfm_clear(s->c);
    return status == TFM_FULL ? TFM_FINISH_FULL : TFM_FINISH_CANCELLED;
}
/* Samples one id and passes it on; LENGTH here only means: go on. */
static tfm_finish tfm__generate_id(tfm_session *s, const tfm_generate_opts *o, tfm_rng *rng, void *user, int32_t *id) {
    if (tfm__cancelled(s)) return tfm__finish_of(s);
    tfm_mark mark = tfm_arena_mark(s->c);
    float *logits = tfm_logits(s);
    if (o->sampling.hook || o->sampling.bias_count || tfm__penalises(&o->sampling)) {   /* the session keeps its own */
        logits = (float *)tfm__arena(s->c, (size_t)s->m->hp.vocab, sizeof *logits);
        if (logits) memcpy(logits, tfm_logits(s), (size_t)s->m->hp.vocab * sizeof *logits);
    }
    *id = tfm_sample(s->c, logits, s->m->hp.vocab, &o->sampling, s->ids, s->position, rng);
    tfm_arena_rewind(s->c, mark);
    if (*id < 0) return tfm__finish_of(s);
    if (tfm__is_stop_id(s, o, *id)) return TFM_FINISH_END;
    return o->on_token && !o->on_token(user, *id) ? TFM_FINISH_CANCELLED : TFM_FINISH_LENGTH;
}
TFMDEF tfm_finish tfm_continue(tfm_session *s, const tfm_generate_opts *opts, tfm_text_fn on_text, void *user) {
    tfm_generate_opts o;
    tfm_rng rng;
    tfm_finish finish = TFM_FINISH_LENGTH;
    int64_t made = 0;
    memset(&o, 0, sizeof o);
    if (opts) o = *opts;
    if (o.generated) *o.generated = 0;
    if (!s || !tfm__generate_check(s, &o)) return TFM_FINISH_ERROR;
    if (!tfm_logits(s)) {
        if (s->position == tfm_session_capacity(s)) return TFM_FINISH_FULL;
        tfm__fail(&s->c->err, TFM_ARGUMENT, "generate: the session holds no logits: evaluate something first");
        return TFM_FINISH_ERROR;
    }
#ifndef TFM_NO_TOKENIZER
    tfm__stream t;
    memset(&t, 0, sizeof t);
    t.o = &o;
    t.on_text = on_text;
    t.user = user;
#else
    (void)on_text;
#endif
    tfm__fpenv env = tfm__fp_set();
    rng.state = o.sampling.seed;
    while (finish == TFM_FINISH_LENGTH && (!o.max_tokens || made < o.max_tokens)) {
        int32_t id;
        finish = tfm__generate_id(s, &o, &rng, user, &id);
        if (finish != TFM_FINISH_LENGTH) break;
        made++;
#ifndef TFM_NO_TOKENIZER
        if (s->m->tokenizer) tfm__stream_token(&t, s->c, s->m->tokenizer, id);
        if (t.stopped) finish = TFM_FINISH_STOP;
        if (t.refused) finish = TFM_FINISH_CANCELLED;
#endif
        bool full = s->position == tfm_session_capacity(s), more = !o.max_tokens || made < o.max_tokens;
        if (full && more && finish == TFM_FINISH_LENGTH) finish = TFM_FINISH_FULL;
        if (full) s->logit_rows = 0;                    /* they are used up: the id has no position */
        else tfm__eval_ids(s, &id, 1, false);
        if (!tfm__ok(s->c)) finish = tfm__finish_of(s);
    }
#ifndef TFM_NO_TOKENIZER
    if (!t.stopped && !t.refused) tfm__stream_bytes(&t, "", 0, true);
    if (t.stopped && finish != TFM_FINISH_ERROR) finish = TFM_FINISH_STOP;
    if (t.refused && finish != TFM_FINISH_ERROR) finish = TFM_FINISH_CANCELLED;
#endif
    if (finish != TFM_FINISH_ERROR && tfm__cancelled(s)) {          /* by the last callback */
        tfm_clear(s->c);
        if (finish == TFM_FINISH_LENGTH) finish = TFM_FINISH_CANCELLED;
    }
    tfm__fp_restore(env);
    if (o.generated) *o.generated = made;
    return finish;
}

#ifndef TFM_NO_TOKENIZER
/* Tokenizes a prompt to where its ids will stay, behind those evaluated; returns how many there
   are, of which only as many as there is room for are written; -1 after an error. */
static int64_t tfm__prompt_ids(tfm_session *s, const char *prompt, bool parse_special, int64_t room) {
    const tfm_tokenizer *t = s->m->tokenizer;
    tfm_error *e = &s->c->err;
    tfm_tokenize_opts o;
    int32_t *ids = s->ids + s->position;
    size_t size = prompt ? strlen(prompt) : 0;
    if (!t) {                           /* making it again says why there is none */
        if (tfm__has_tokenizer(s->m->file)) tfm_tokenizer_size(s->m->file, e);
        tfm__fail(e, TFM_UNSUPPORTED, "generate: the model has no tokenizer");
        return -1;
    }
    if (size == 0 && s->position == 0) {            /* BOS alone, whatever the file adds to prompts */
        *ids = tfm_token_bos(t);
        if (*ids < 0) {
            tfm__fail(e, TFM_UNSUPPORTED, "generate: the prompt is empty and the model has no BOS token");
            return -1;
        }
        return 1;
    }
    memset(&o, 0, sizeof o);
    o.add_special = s->position == 0;
    o.parse_special = parse_special;
    int64_t n = tfm_tokenize(s->c, t, prompt, size, &o, ids, room);
    return n > 0 && o.add_special && tfm_adds_eos(t) ? n - 1 : n;   /* the text goes on: no EOS yet */
}
TFMDEF tfm_finish tfm_generate(tfm_session *s, const char *prompt, const tfm_generate_opts *opts, tfm_text_fn on_text,
                               void *user) {
    tfm_generate_opts o;
    memset(&o, 0, sizeof o);
    if (opts) o = *opts;
    if (o.generated) *o.generated = 0;
    if (!s || !tfm__generate_check(s, &o)) return TFM_FINISH_ERROR;
    int64_t room = tfm_session_capacity(s) - s->position, n = tfm__prompt_ids(s, prompt, o.parse_special, room);
    if (n > room)                       /* an error here, not FULL: the caller's prompt is at fault */
        tfm__fail(&s->c->err, TFM_ARGUMENT, "the prompt has %i tokens, the context has room for %i", n, room);
    if (n > 0 && tfm__ok(s->c)) tfm_eval(s, s->ids + s->position, n);
    return tfm__ok(s->c) ? tfm_continue(s, opts, on_text, user) : tfm__finish_of(s);
}
#endif
#endif /* TFM_NO_MODEL */

#ifdef __cplusplus
}
#endif

#if defined(__clang__) && (defined(__x86_64__) || defined(__i386__))
#pragma float_control(pop)
#elif defined(__clang__)
#pragma STDC FP_CONTRACT DEFAULT
#elif defined(__GNUC__)
#pragma GCC pop_options
#endif

#endif /* TFM_IMPLEMENTATION */

/* ---- Licence ---------------------------------------------------------------------- [LICENSE]
   Choose one.

   A. MIT. Copyright (c) 2026 the tfm.h authors. Permission is hereby granted, free of charge, to any
   person obtaining a copy of this software and associated documentation files (the "Software"), to
   deal in the Software without restriction, including without limitation the rights to use, copy,
   modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
   persons to whom the Software is furnished to do so, subject to the following conditions: The above
   copyright notice and this permission notice shall be included in all copies or substantial portions
   of the Software. THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED,
   INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
   NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES
   OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN
   CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.

   B. Public domain (Unlicense). This is free and unencumbered software released into the public
   domain. Anyone is free to copy, modify, publish, use, compile, sell, or distribute this software,
   either in source code form or as a compiled binary, for any purpose, commercial or non-commercial,
   and by any means. In jurisdictions that recognize copyright laws, the author or authors dedicate any
   and all copyright interest in the software to the public domain. THE SOFTWARE IS PROVIDED "AS IS",
   WITHOUT WARRANTY OF ANY KIND.                                                                   */
