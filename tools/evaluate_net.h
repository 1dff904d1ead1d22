/* evaluate_net.h - how evaluate runs a net of layers (architecture "sequential"). Include it after tools/cli.h. */
#ifndef EVALUATE_NET_H
#define EVALUATE_NET_H

typedef struct evaluate_net_opts {
    const int32_t *ids;                 /* [count], or NULL: input */
    int64_t count;
    const char *input, *output;         /* files of little-endian f32; output may be NULL: print */
    tfm_context_opts context;
} evaluate_net_opts;

static inline bool is_net(const tfm_file *f) {
    tfm_value v;
    tfm_string s;
    return tfm_file_meta(f, "general.architecture", &v) && tfm_value_string(&v, &s) && s.size == 10 &&
           memcmp(s.data, "sequential", 10) == 0;
}

/* Little-endian f32 of a file as the floats of this machine. */
static inline float *read_floats(const char *path, int64_t *count) {
    size_t size;
    unsigned char *bytes = (unsigned char *)cli_read(path, &size);
    float *values = (float *)cli_alloc(size / 4, sizeof *values);
    if (size % 4) cli_fail("%s: %zu bytes are no whole number of f32", path, size);
    *count = (int64_t)(size / 4);
    for (size_t i = 0; i < size / 4; i++) {
        uint32_t bits = 0;
        for (int j = 0; j < 4; j++) bits |= (uint32_t)bytes[4 * i + (size_t)j] << 8 * j;
        memcpy(&values[i], &bits, sizeof bits);
    }
    free(bytes);
    return values;
}

/* As many samples as the numbers make; with an open number of steps they are one. */
static inline tfm_tensor net_input(tfm_context *c, const tfm_net_info *info, const void *data, int64_t count) {
    tfm_shape shape = info->input;
    int64_t sample = 1;
    bool open = shape.dim[0] == 0;
    for (int i = open; i < shape.rank; i++) sample *= shape.dim[i];
    if (count < 1 || count % sample)
        cli_fail("%" PRId64 " %s are no whole number of %s of %" PRId64, count, info->vocab ? "ids" : "values",
                 open ? "steps" : "samples", sample);
    for (int i = shape.rank++; i > 0; i--) shape.dim[i] = shape.dim[i - 1];
    shape.dim[0] = open ? 1 : count / sample;
    if (open) shape.dim[1] = count / sample;
    return tfm_wrap_type(c, data, info->vocab ? TFM_I32 : TFM_F32, shape);
}

/* Runs a net and writes or prints what it gives, one sample after the other, a row on a line. */
static inline void evaluate_net(const char *path, const tfm_file *file, const evaluate_net_opts *o) {
    tfm_error err;
    tfm_net *net = tfm_net_new(file, NULL, &err);
    if (!net) cli_fail_at(path, err.message);
    const tfm_net_info *info = tfm_net_info_of(net);
    if (info->vocab && !o->ids) cli_fail("%s: the net takes ids (--ids)", path);
    if (!info->vocab && !o->input) cli_fail("%s: the net takes numbers (--input)", path);
    tfm_context *c = tfm_context_new(&o->context, &err);
    if (!c) cli_fail("%s", err.message);
    int64_t count = o->count;
    float *values = o->ids ? NULL : read_floats(o->input, &count);
    tfm_tensor y = tfm_net_run(c, net, net_input(c, info, o->ids ? (const void *)o->ids : values, count), NULL);
    if (tfm_status_of(c) != TFM_OK) cli_fail("%s", tfm_message(c));
    const float *out = (const float *)y.data;
    FILE *f = o->output ? cli_create(o->output) : stdout;
    if (o->output) cli_write_floats(f, out, tfm_count(y));
    for (int64_t i = 0; !o->output && i < tfm_count(y); i++)
        printf("%.9g%c", (double)out[i], (i + 1) % y.dim[y.rank - 1] ? ' ' : '\n');
    if (o->output) cli_commit(f);
    free(values);
    tfm_context_free(c);
    tfm_net_free(net);
}

#endif
