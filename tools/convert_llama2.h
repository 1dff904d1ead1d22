/* convert_llama2.h - reads checkpoints of llama2.c: seven numbers, then all weights as f32. The older form
   begins with the numbers, the newer one with "ak42" and its version. */
#ifndef CONVERT_LLAMA2_H
#define CONVERT_LLAMA2_H

#include "tools/convert_vocab_files.h"

typedef struct llama2_file {
    const char *path;
    const uint8_t *data;
    uint64_t size, at;                  /* bytes; where the next weights begin */
    uint64_t width, hidden, layers, heads, kv_heads, vocab, context;
    bool tied;
} llama2_file;

static void llama2_header(llama2_file *f) {
    int32_t n[7];
    uint32_t magic = 0, version = 0;
    f->at = 0;
    if (f->size >= 8) memcpy(&magic, f->data, 4), memcpy(&version, f->data + 4, 4);
    bool newer = magic == 0x616b3432;
    if (newer && version != 1)
        cli_fail("%s: version %u of llama2.c's checkpoints; only 0 and 1, of f32 weights, are read", f->path, version);
    if (f->size < (newer ? 256u : 28u))
        cli_fail("%s: %" PRIu64 " bytes are no checkpoint of llama2.c", f->path, f->size);
    memcpy(n, f->data + (newer ? 8 : 0), sizeof n);
    f->tied = newer ? f->data[36] != 0 : n[5] > 0;
    if (!newer && n[5] < 0 && n[5] > INT32_MIN) n[5] = -n[5];          /* a sign for an output matrix of its own */
    for (int i = 0; i < 7; i++)
        if (n[i] < 1 || n[i] > 1 << 24)
            cli_fail("%s: number %d of its header is %d; no checkpoint of llama2.c", f->path, i + 1, n[i]);
    f->width = (uint64_t)n[0], f->hidden = (uint64_t)n[1], f->layers = (uint64_t)n[2], f->heads = (uint64_t)n[3];
    f->kv_heads = (uint64_t)n[4], f->vocab = (uint64_t)n[5], f->context = (uint64_t)n[6];
    if (f->width % f->heads || f->heads % f->kv_heads || f->layers > 65536)
        cli_fail("%s: width %d, %d heads, %d key/value heads and %d layers do not go together", f->path, n[0], n[3],
                 n[4], n[2]);
    f->at = newer ? 256 : 28;
}
/* The next tensor, one of `layers` with a number in its name, or a single one (layers 0). */
static void llama2_take(llama2_file *f, convert_job *job, const char *name, uint64_t layers, tfm_shape shape) {
    uint64_t bytes = 0;
    if (!gguf_tensor_bytes(TFM_F32, shape, &bytes)) cli_fail("%s: %s would be too large", f->path, name);
    for (uint64_t i = 0; i < (layers ? layers : 1); i++) {
        char full[64];
        if (layers) snprintf(full, sizeof full, "blk.%" PRIu64 ".%s.weight", i, name);
        else snprintf(full, sizeof full, "%s.weight", name);
        if (bytes > f->size - f->at)
            cli_fail("%s: %s needs bytes %" PRIu64 " to %" PRIu64 ", the file has %" PRIu64, f->path, full, f->at,
                     f->at + bytes, f->size);
        gguf_plan *p = gguf_plan_add(&job->plans, full, TFM_F32, shape);
        p->data = f->data + f->at;
        p->rows = convert_rows;
        p->user = p->data;
        f->at += bytes;
    }
}
static void llama2_weights(llama2_file *f, convert_job *job, bool newer) {
    int64_t d = (int64_t)f->width, kv = (int64_t)(f->width / f->heads * f->kv_heads), h = (int64_t)f->hidden;
    tfm_shape norm = tfm_shape1(d), words = tfm_shape2((int64_t)f->vocab, d), q = tfm_shape2(d, d);
    struct { const char *name; tfm_shape shape; bool single; } order[] = {
        { "token_embd", words, true }, { "attn_norm", norm, false }, { "attn_q", q, false },
        { "attn_k", tfm_shape2(kv, d), false }, { "attn_v", tfm_shape2(kv, d), false }, { "attn_output", q, false },
        { "ffn_norm", norm, false }, { "ffn_gate", tfm_shape2(h, d), false }, { "ffn_down", tfm_shape2(d, h), false },
        { "ffn_up", tfm_shape2(h, d), false }, { "output_norm", norm, true }
    };
    static const int new_order[] = { 1, 6, 10, 0, 2, 3, 4, 5, 7, 8, 9 };       /* the older form: as above */
    for (int i = 0; i < 11; i++) {
        int k = newer ? new_order[i] : i;
        llama2_take(f, job, order[k].name, order[k].single ? 0 : f->layers, order[k].shape);
    }
    if (!newer) f->at += f->context * (f->width / f->heads) * 4;       /* cosines and sines: we compute them */
    if (f->at > f->size) cli_fail("%s: %" PRIu64 " bytes, at least %" PRIu64 " needed", f->path, f->size, f->at);
    if (!f->tied) llama2_take(f, job, "output", 0, words);
    if (f->at != f->size)
        cli_fail("%s: %" PRIu64 " bytes, %" PRIu64 " needed by its header", f->path, f->size, f->at);
}

static void convert_llama2(convert_job *job) {
    size_t size;
    llama2_file f = { 0 };
    f.path = job->in;
    f.data = convert_map(job->in, &size);
    f.size = size;
    llama2_header(&f);
    gguf_writer *w = &job->out;
    gguf_meta_string(w, "general.architecture", "llama");
    gguf_meta_string(w, "general.name", "llama2.c");
    gguf_meta_u32(w, "llama.vocab_size", (uint32_t)f.vocab);
    gguf_meta_u32(w, "llama.context_length", (uint32_t)f.context);
    gguf_meta_u32(w, "llama.embedding_length", (uint32_t)f.width);
    gguf_meta_u32(w, "llama.block_count", (uint32_t)f.layers);
    gguf_meta_u32(w, "llama.feed_forward_length", (uint32_t)f.hidden);
    gguf_meta_u32(w, "llama.attention.head_count", (uint32_t)f.heads);
    gguf_meta_u32(w, "llama.attention.head_count_kv", (uint32_t)f.kv_heads);
    gguf_meta_u32(w, "llama.rope.dimension_count", (uint32_t)(f.width / f.heads));
    gguf_meta_f32(w, "llama.rope.freq_base", 10000);
    gguf_meta_f32(w, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    job->check = convert_check_model;
    llama2_weights(&f, job, f.at == 256);
    strcpy(job->plans.chooser.arch, "llama");
    job->plans.chooser.layers = f.layers;
    gguf_chooser_heads(&job->plans.chooser, f.heads, f.kv_heads);
    static vocab v;
    if (!job->tokenizer) return;
    vocab_read(&v, job->tokenizer);
    vocab_write(&v, w, (int64_t)f.vocab);
}

#endif
