/* Kernels bit for bit: every level that fuses against the others, and products against the rules of
   the header written out once more here, in the plainest way. */
#include "hash.h"
#include "models.h"
#include "vectors.h"

/* ---- The rules ---- */

/* a * b + c rounded once. The product is exact in double; the sum is rounded to odd there. */
static float fused(float a, float b, float c) {
    volatile double p = (double)a * (double)b, s = p + (double)c, t = s - p;
    volatile double u = s - t, e = (p - u) + ((double)c - t), r = s;
    uint64_t bits;
    memcpy(&bits, (const void *)&r, sizeof bits);
    if (!isfinite(s) || e == 0 || (bits & 1)) return (float)s;
    bits = (e > 0) == (s > 0) ? bits + 1 : bits - 1;
    memcpy((void *)&r, &bits, sizeof bits);
    return (float)r;
}
static float half_to_float(const uint8_t *p) {
    uint16_t h;
    memcpy(&h, p, 2);
    int exponent = h >> 10 & 31, fraction = h & 1023;
    double v = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
    if (exponent == 31) v = fraction ? (double)NAN : (double)INFINITY;
    return (float)(h >> 15 ? -v : v);
}
static float dot(const float *a, const float *b, int64_t k) {
    int lanes = k < 256 ? 1 : 16;
    float t[16] = { 0 };
    for (int64_t i = 0; i < k; i++) t[i % lanes] = fused(a[i], b[i], t[i % lanes]);
    for (int h = lanes / 2; h; h /= 2)
        for (int i = 0; i < h; i++) t[i] = t[i] + t[i + h];
    return t[0];
}

/* A block: weight i is d * scale[i] * q[i] + m * min[i]; the formats, element by element. */
typedef struct block { float d, m; int q[256], scale[256], min[256]; bool has_min; } block;

static int nibble(const uint8_t *p, int i) { return i < 16 ? p[i] & 15 : p[i - 16] >> 4; }
static int fifth(const uint8_t *p, int i) { return p[i / 8] >> (i % 8) & 1; }

static void read_small(tfm_type type, const uint8_t *p, block *o) {
    static const int curve[16] = { -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113 };
    o->d = half_to_float(p);
    o->has_min = type == TFM_Q4_1 || type == TFM_Q5_1;
    if (o->has_min) o->m = half_to_float(p + 2);
    for (int i = 0; i < 32; i++) {
        o->scale[i] = o->min[i] = 1;
        if (type == TFM_Q8_0) o->q[i] = p[2 + i] > 127 ? p[2 + i] - 256 : p[2 + i];
        if (type == TFM_Q4_0) o->q[i] = nibble(p + 2, i) - 8;
        if (type == TFM_Q4_1) o->q[i] = nibble(p + 4, i);
        if (type == TFM_Q5_0) o->q[i] = nibble(p + 6, i) + 16 * fifth(p + 2, i) - 16;
        if (type == TFM_Q5_1) o->q[i] = nibble(p + 8, i) + 16 * fifth(p + 4, i);
        if (type == TFM_IQ4_NL) o->q[i] = curve[nibble(p + 2, i)];
    }
}
/* Six-bit scale (which = 0) or minimum (1) of sub-block j of Q4_K and Q5_K. */
static int six_bits(const uint8_t *p, int j, int which) {
    if (j < 4) return p[j + 4 * which] & 63;
    return (which ? p[j + 4] >> 4 : p[j + 4] & 15) + 16 * (p[j - 4 + 4 * which] >> 6);
}
static void read_large(tfm_type type, const uint8_t *p, block *o) {
    static const int at[] = { [TFM_Q2_K] = 80, [TFM_Q3_K] = 108, [TFM_Q4_K] = 0, [TFM_Q5_K] = 0, [TFM_Q6_K] = 208 };
    o->d = half_to_float(p + at[type]);
    o->has_min = type == TFM_Q2_K || type == TFM_Q4_K || type == TFM_Q5_K;
    if (o->has_min) o->m = -half_to_float(p + at[type] + 2);
    for (int i = 0; i < 256; i++) {
        int half = i / 128, plane = i % 128 / 32, column = i % 32, sub = i / 16;
        if (type == TFM_Q2_K) {
            o->q[i] = p[16 + 32 * half + column] >> (2 * plane) & 3;
            o->scale[i] = p[sub] & 15;
            o->min[i] = p[sub] >> 4;
        } else if (type == TFM_Q3_K) {
            const uint8_t *s = p + 96;
            o->q[i] = (p[32 + 32 * half + column] >> (2 * plane) & 3) + 4 * (p[column] >> (i / 32) & 1) - 4;
            o->scale[i] = (s[sub % 8] >> (4 * (sub / 8)) & 15) + 16 * (s[8 + sub % 4] >> (2 * (sub / 4)) & 3) - 32;
        } else if (type == TFM_Q6_K) {
            int low = p[64 * half + i % 64] >> (4 * (i % 128 / 64)) & 15, s = p[192 + sub];
            o->q[i] = low + 16 * (p[128 + 32 * half + column] >> (2 * plane) & 3) - 32;
            o->scale[i] = s > 127 ? s - 256 : s;
        } else {
            int quants = type == TFM_Q4_K ? 16 : 48, pair = i / 64;
            int low = p[quants + 32 * pair + column] >> (4 * (i % 64 / 32)) & 15;
            o->q[i] = low + (type == TFM_Q5_K ? 16 * (p[16 + column] >> (i / 32) & 1) : 0);
            o->scale[i] = six_bits(p + 4, i / 32, 0);
            o->min[i] = six_bits(p + 4, i / 32, 1);
        }
    }
}
/* w, one row of k quantized elements, by x: activations in 8 bits, one chain over the blocks. */
static float quantized_dot(tfm_type type, const uint8_t *w, const float *x, int64_t k) {
    int64_t size = tfm_type_block(type);
    float acc = 0;
    bool finite = true;
    for (int64_t i = 0; i < k; i++) finite = finite && isfinite(x[i]);
    for (int64_t at = 0; at < k; at += size, w += tfm_type_bytes(type)) {
        block b;
        memset(&b, 0, sizeof b);
        if (size == 32) read_small(type, w, &b);
        else read_large(type, w, &b);
        float amax = 0;
        for (int64_t i = 0; i < size; i++) amax = fabsf(x[at + i]) > amax ? fabsf(x[at + i]) : amax;
        float dx = amax / 127.0f, inverse = 1.0f / dx;
        if (!isfinite(inverse)) dx = 0;
        if (!finite) dx = NAN;
        int64_t isum = 0, msum = 0;
        for (int64_t i = 0; i < size; i++) {
            int q = dx != 0 && finite ? (int)nearbyintf(x[at + i] * inverse) : 0;
            isum += (int64_t)b.scale[i] * b.q[i] * q;
            msum += (int64_t)b.min[i] * q;
        }
        volatile float scale = b.d * dx, minimum = b.m * dx;
        acc = fused((float)isum, scale, acc);
        if (b.has_min) acc = fused((float)msum, minimum, acc);
    }
    return acc;
}

/* ---- Random operands ---- */

static const tfm_type all_types[] = { TFM_F32, TFM_F16, TFM_BF16, TFM_Q8_0, TFM_Q4_0, TFM_Q4_1, TFM_Q5_0, TFM_Q5_1,
                                      TFM_Q2_K, TFM_Q3_K, TFM_Q4_K, TFM_Q5_K, TFM_Q6_K, TFM_IQ4_NL };
enum { TYPES = sizeof all_types / sizeof *all_types };

static int64_t below(uint64_t *seed, int64_t n) { return (int64_t)(test_random(seed) >> 33) % n; }

/* Any bytes are a valid block, but its scales (f16) are kept finite. */
static void random_weights(uint64_t *seed, tfm_type type, uint8_t *p, int64_t count, float scale) {
    static const int halves[][3] = {                        /* type, first byte, how many */
        { TFM_F16, 0, 1 }, { TFM_Q8_0, 0, 1 }, { TFM_Q4_0, 0, 1 }, { TFM_Q4_1, 0, 2 }, { TFM_Q5_0, 0, 1 },
        { TFM_Q5_1, 0, 2 }, { TFM_Q2_K, 80, 2 }, { TFM_Q3_K, 108, 1 }, { TFM_Q4_K, 0, 2 }, { TFM_Q5_K, 0, 2 },
        { TFM_Q6_K, 208, 1 }, { TFM_IQ4_NL, 0, 1 } };
    int64_t bytes = tfm_type_bytes(type);
    for (int64_t b = 0; b < count / tfm_type_block(type); b++, p += bytes) {
        for (int64_t i = 0; i < bytes; i++) p[i] = (uint8_t)(test_random(seed) >> 56);
        if (type == TFM_F32 || type == TFM_BF16) {
            float f = test_uniform(seed) * scale;
            uint32_t u;
            memcpy(&u, &f, sizeof u);
            if (type == TFM_F32) memcpy(p, &f, 4);
            else p[0] = (uint8_t)(u >> 16), p[1] = (uint8_t)(u >> 24);
        }
        for (size_t r = 0; r < sizeof halves / sizeof *halves; r++)
            for (int h = 0; halves[r][0] == (int)type && h < halves[r][2]; h++) {
                uint16_t v = (uint16_t)(test_random(seed) >> 48);
                if ((v & 0x7c00) == 0x7c00) v &= 0xbfff;
                memcpy(p + halves[r][1] + 2 * h, &v, 2);
            }
    }
}
static void random_row(uint64_t *seed, float *x, int64_t n) {
    static const float scales[] = { 1, 1, 1, 1e-3f, 1e4f, 1e30f, 1e-30f, 3e-38f, 1e-41f, 0 };
    float scale = scales[below(seed, 10)];
    for (int64_t i = 0; i < n; i++) x[i] = test_uniform(seed) * scale;
    if (below(seed, 9) == 0) x[below(seed, n)] = NAN;
    else if (below(seed, 9) == 0) x[below(seed, n)] = INFINITY;
}
/* The levels that fuse and that this CPU runs, the first of them in `first`. */
static int fusing_contexts(tfm_context **c) {
    int n = 0;
    for (int l = TFM_LEVEL_UNFUSED + 1; l < TFM_LEVEL_COUNT; l++) {
        tfm_context_opts o = { .level = (tfm_level)l, .threads = 1 + n % 2 };
        if (tfm_level_available((tfm_level)l) && CHECK((c[n] = tfm_context_new(&o, NULL)) != NULL)) n++;
    }
    CHECK(n > 0);
    return n;
}

/* ---- Tests ---- */

typedef struct product { int64_t k, n, t; uint8_t *w; float *x, *b, *want; } product;

/* w [n, k] at an odd address, x [t, k], b [n], and what their product is by the rules. */
static product random_product(uint64_t *seed, tfm_type type, bool extreme) {
    product p;
    int64_t block_size = tfm_type_block(type), bytes = tfm_type_bytes(type);
    static const int64_t lengths[] = { 1, 15, 16, 17, 255, 256, 257, 271, 272, 513 };
    p.k = block_size > 1 ? block_size * (1 + below(seed, block_size == 32 ? 20 : 3))
        : below(seed, 2) ? lengths[below(seed, 10)] : 1 + below(seed, 700);
    p.n = 1 + below(seed, below(seed, 3) ? 9 : 70);
    p.t = below(seed, 4) ? 1 + below(seed, below(seed, 3) ? 18 : 40) : 1;
    p.w = (uint8_t *)malloc((size_t)(p.n * p.k / block_size * bytes) + 3);
    p.x = (float *)malloc((size_t)(p.t * p.k) * 4);
    p.b = (float *)malloc((size_t)p.n * 4);
    p.want = (float *)malloc((size_t)(p.n * p.t) * 4);
    random_weights(seed, type, p.w + 3, p.n * p.k, extreme ? 1e20f : 1);
    for (int64_t i = 0; i < p.n; i++) p.b[i] = test_uniform(seed);
    for (int64_t i = 0; i < p.t; i++) {
        random_row(seed, p.x + i * p.k, p.k);
        for (int64_t j = 0; !extreme && j < p.k; j++) p.x[i * p.k + j] = test_uniform(seed);
    }
    return p;
}
static void product_by_rules(product *p, tfm_type type, bool bias) {
    float *wide = (float *)malloc((size_t)p->k * 4);
    int64_t row = p->k / tfm_type_block(type) * tfm_type_bytes(type);
    for (int64_t r = 0; r < p->n; r++) {
        const uint8_t *w = p->w + 3 + r * row;
        for (int64_t i = 0; type == TFM_F16 && i < p->k; i++) wide[i] = half_to_float(w + 2 * i);
        for (int64_t i = 0; type == TFM_BF16 && i < p->k; i++) {
            uint32_t u = (uint32_t)w[2 * i] << 16 | (uint32_t)w[2 * i + 1] << 24;
            memcpy(&wide[i], &u, sizeof u);
        }
        if (type == TFM_F32) memcpy(wide, w, (size_t)row);
        for (int64_t i = 0; i < p->t; i++) {
            volatile float y = tfm_type_block(type) > 1 ? quantized_dot(type, w, p->x + i * p->k, p->k)
                                                        : dot(wide, p->x + i * p->k, p->k);
            p->want[i * p->n + r] = bias ? y + p->b[r] : y;
        }
    }
    free(wide);
}
static void products(bool extreme) {
    tfm_context *c[TFM_LEVEL_COUNT];
    int levels = fusing_contexts(c), rounds = test_quick ? 2 : 12;
    uint64_t seed = extreme ? 4242 : 77;
    for (int round = 0; round < rounds * TYPES; round++) {
        tfm_type type = all_types[round % TYPES];
        product p = random_product(&seed, type, extreme);
        bool good = true, bias = round % 2 == 0;
        product_by_rules(&p, type, bias);
        for (int l = 0; l < levels; l++) {
            tfm_mark mark = tfm_arena_mark(c[l]);
            tfm_tensor w = tfm_wrap_type(c[l], p.w + 3, type, tfm_shape2(p.n, p.k));
            tfm_tensor x = tfm_wrap(c[l], p.x, tfm_shape2(p.t, p.k));
            tfm_tensor b = bias ? tfm_wrap(c[l], p.b, tfm_shape1(p.n)) : tfm_none();
            tfm_tensor y = tfm_dense(c[l], x, w, b);
            good &= CHECK_STR(tfm_message(c[l]), "") && CHECK_SAME(floats_of(y), p.want, p.t * p.n);
            if (!bias) {
                y = tfm_matmul(c[l], x, tfm_transpose(c[l], w, 0, 1));
                good &= CHECK_SAME(floats_of(y), p.want, p.t * p.n);
            }
            tfm_arena_rewind(c[l], mark);
        }
        if (!good) printf("    in round %d, type %s, k %d\n", round, tfm_type_name(type), (int)p.k);
        free(p.w);
        free(p.x);
        free(p.b);
        free(p.want);
    }
    for (int l = 0; l < levels; l++) tfm_context_free(c[l]);
}
static void products_follow_the_rules(void) { products(false); }
static void products_of_extreme_numbers(void) { products(true); }

/* Sums that lie next to the middle between two floats: rounding twice would show. */
static void sums_near_ties(void) {
    enum { N = 2000 };
    tfm_context *c[TFM_LEVEL_COUNT];
    int levels = fusing_contexts(c);
    uint64_t seed = 2;
    for (int i = 0; i < N; i++) {
        int ulps = 1 + (int)below(&seed, 1 << 23), power = (int)below(&seed, 200) - 100;
        float e = ldexpf(1, -12 - (int)below(&seed, 12)), sum = ldexpf((float)((1 << 23) + ulps), power - 23);
        float x[2] = { below(&seed, 2) ? sum : -sum, 1 + e }, w[2] = { 1, ldexpf(1 - e, power - 24) };
        if (below(&seed, 2)) w[1] = -w[1];
        if (below(&seed, 2)) w[1] = ldexpf(w[1], -(int)below(&seed, 40));
        float want = fused(x[1], w[1], x[0]);
        for (int l = 0; l < levels; l++) {
            tfm_mark mark = tfm_arena_mark(c[l]);
            tfm_tensor tx = tfm_wrap(c[l], x, tfm_shape1(2)), tw = tfm_wrap(c[l], w, tfm_shape2(1, 2));
            if (!CHECK_SAME(floats_of(tfm_dense(c[l], tx, tw, tfm_none())), &want, 1)) i = N;
            tfm_arena_rewind(c[l], mark);
        }
    }
    for (int l = 0; l < levels; l++) tfm_context_free(c[l]);
}
/* Equal scores weigh 1 each, exactly, so that the order of attention's sums can be written out:
   values in one chain within 1024 positions, these joined in ascending order. */
static void attention_follows_the_rules(void) {
    tfm_context *c[TFM_LEVEL_COUNT];
    int levels = fusing_contexts(c);
    uint64_t seed = 19;
    for (int round = 0; round < (test_quick ? 4 : 20); round++) {
        enum { D = 3 };
        int64_t tk = 1 + below(&seed, 4000), begin = below(&seed, tk);
        float *v = (float *)malloc((size_t)tk * D * 4), *k = (float *)calloc((size_t)tk * D, 4);
        float q[D] = { 1, 2, 3 }, want[D], l = (float)(tk - begin);
        for (int64_t i = 0; v && i < tk * D; i++) v[i] = test_uniform(&seed);
        for (int d = 0; v && d < D; d++) {
            float total = 0;
            for (int64_t at = begin, end; at < tk; at = end) {
                float chain = 0;
                end = (at / 1024 + 1) * 1024 < tk ? (at / 1024 + 1) * 1024 : tk;
                for (int64_t i = at; i < end; i++) chain = fused(1, v[i * D + d], chain);
                total = fused(total, 1, chain);
            }
            volatile float y = total * (1.0f / l);
            want[d] = y;
        }
        tfm_attention_opts o = { .causal = true, .offset = tk - 1, .window = tk - begin };
        for (int i = 0; i < levels && v && k; i++) {
            tfm_tensor tq = tfm_wrap(c[i], q, tfm_shape2(1, D)), kt = tfm_wrap(c[i], k, tfm_shape2(tk, D));
            tfm_tensor y = tfm_attention(c[i], tq, kt, tfm_wrap(c[i], v, tfm_shape2(tk, D)), &o);
            if (!CHECK_SAME(floats_of(y), want, D)) printf("    keys %d to %d\n", (int)begin, (int)tk);
        }
        free(k);
        free(v);
    }
    for (int l = 0; l < levels; l++) tfm_context_free(c[l]);
}

/* Sums over rows of d elements: one chain below 256, else 16 and a tree. */
static float joined(const float *t, int lanes) {
    volatile float u[16];
    for (int i = 0; i < lanes; i++) u[i] = t[i];
    for (int h = lanes / 2; h; h /= 2)
        for (int i = 0; i < h; i++) u[i] = u[i] + u[i + h];
    return u[0];
}
static float row_sum(const float *x, int64_t d) {
    volatile float t[16] = { 0 };
    float plain[16];
    int lanes = d < 256 ? 1 : 16;
    for (int64_t i = 0; i < d; i++) t[i % lanes] = t[i % lanes] + x[i];
    for (int i = 0; i < 16; i++) plain[i] = t[i];
    return joined(plain, lanes);
}
static void normalise(const float *x, float *y, int64_t d, bool center, const float *w, const float *b, float eps) {
    float t[16] = { 0 };
    int lanes = d < 256 ? 1 : 16;
    volatile float mean = center ? row_sum(x, d) / (float)d : 0, v;
    for (int64_t i = 0; i < d; i++) {
        v = x[i] - mean;
        y[i] = v;
        t[i % lanes] = fused(y[i], y[i], t[i % lanes]);
    }
    volatile float square = joined(t, lanes) / (float)d, scale = square + eps;
    scale = 1.0f / sqrtf(scale);
    for (int64_t i = 0; i < d; i++) {
        v = y[i] * scale;
        if (w) v = v * w[i];
        if (b) v = v + b[i];
        y[i] = v;
    }
}
static void rows_follow_the_rules(void) {
    tfm_context *c[TFM_LEVEL_COUNT];
    int levels = fusing_contexts(c);
    uint64_t seed = 23;
    for (int64_t d = 1; d < 700; d += d > 250 && d < 260 ? 1 : 23) {
        float x[700], y[700], w[700], b[700], scale = d % 2 ? 1 : 1e3f;
        for (int64_t i = 0; i < d; i++) {
            x[i] = test_uniform(&seed) * scale;
            w[i] = test_uniform(&seed);
            b[i] = test_uniform(&seed);
        }
        for (int l = 0; l < levels; l++) {
            tfm_mark mark = tfm_arena_mark(c[l]);
            tfm_tensor tx = tfm_wrap(c[l], x, tfm_shape1(d)), tw = tfm_wrap(c[l], w, tfm_shape1(d));
            tfm_tensor tb = tfm_wrap(c[l], b, tfm_shape1(d));
            y[0] = row_sum(x, d);
            bool good = CHECK_SAME(floats_of(tfm_sum(c[l], tx, 0)), y, 1);
            normalise(x, y, d, true, w, b, 1e-5f);
            good &= CHECK_SAME(floats_of(tfm_layernorm(c[l], tx, tw, tb, 1e-5f)), y, d);
            normalise(x, y, d, false, w, NULL, 1e-6f);
            good &= CHECK_SAME(floats_of(tfm_rmsnorm(c[l], tx, tw, 1e-6f)), y, d);
            if (!good) printf("    of %d elements\n", (int)d);
            tfm_arena_rewind(c[l], mark);
        }
    }
    for (int l = 0; l < levels; l++) tfm_context_free(c[l]);
}

/* Everything else that is not a product: the levels give each other's bits. */
typedef tfm_tensor (*op_fn)(tfm_context *c, tfm_tensor x, uint64_t *seed);

static tfm_tensor op_softmax(tfm_context *c, tfm_tensor x, uint64_t *seed) {
    return tfm_softmax(c, x, (int)below(seed, 2));
}
static tfm_tensor op_log_softmax(tfm_context *c, tfm_tensor x, uint64_t *seed) {
    return tfm_log_softmax(c, x, (int)below(seed, 2));
}
static tfm_tensor op_sum(tfm_context *c, tfm_tensor x, uint64_t *seed) { return tfm_sum(c, x, (int)below(seed, 2)); }
static tfm_tensor op_mean(tfm_context *c, tfm_tensor x, uint64_t *seed) { (void)seed; return tfm_mean(c, x, 1); }
static tfm_tensor op_max(tfm_context *c, tfm_tensor x, uint64_t *seed) { (void)seed; return tfm_max(c, x, 1); }
static tfm_tensor op_relu(tfm_context *c, tfm_tensor x, uint64_t *seed) { (void)seed; return tfm_relu(c, x); }
static tfm_tensor op_gelu(tfm_context *c, tfm_tensor x, uint64_t *seed) { (void)seed; return tfm_gelu(c, x); }
static tfm_tensor op_gelu_tanh(tfm_context *c, tfm_tensor x, uint64_t *seed) { (void)seed; return tfm_gelu_tanh(c, x); }
static tfm_tensor op_silu(tfm_context *c, tfm_tensor x, uint64_t *seed) { (void)seed; return tfm_silu(c, x); }
static tfm_tensor op_tanh(tfm_context *c, tfm_tensor x, uint64_t *seed) { (void)seed; return tfm_tanh(c, x); }
static tfm_tensor op_sigmoid(tfm_context *c, tfm_tensor x, uint64_t *seed) { (void)seed; return tfm_sigmoid(c, x); }
static tfm_tensor op_layernorm(tfm_context *c, tfm_tensor x, uint64_t *seed) {
    tfm_tensor w = random_tensor(c, seed, tfm_shape1(x.dim[1]), 1), b = random_tensor(c, seed, tfm_shape1(x.dim[1]), 1);
    return tfm_layernorm(c, x, w, b, 1e-5f);
}
static tfm_tensor op_rmsnorm(tfm_context *c, tfm_tensor x, uint64_t *seed) {
    return tfm_rmsnorm(c, x, random_tensor(c, seed, tfm_shape1(x.dim[1]), 1), 1e-5f);
}
static tfm_tensor op_rope(tfm_context *c, tfm_tensor x, uint64_t *seed) {
    tfm_rope_opts o = { .factor = 4, .original_context = 512 };
    o.half_split = below(seed, 2) != 0;
    o.scaling = (tfm_rope_scaling)below(seed, 3);
    int64_t d = x.dim[1] / 2 * 2;
    if (d == 0) return tfm_zeros(c, tfm_shape1(1));
    x = tfm_reshape(c, tfm_slice(c, x, 1, 0, d), tfm_shape3(x.dim[0], 1, d));
    return tfm_reshape(c, tfm_rope(c, x, below(seed, 100000), &o), tfm_shape2(x.dim[0], d));
}
static tfm_tensor op_attention(tfm_context *c, tfm_tensor x, uint64_t *seed) {
    tfm_attention_opts o = { .causal = below(seed, 2) != 0 };
    o.window = below(seed, 2) ? 3 : 0;
    int64_t tk = 1 + below(seed, 1500), d = 1 + below(seed, 40);
    o.offset = below(seed, tk);
    x = random_tensor(c, seed, tfm_shape2(1 + below(seed, 4), d), 5);
    tfm_tensor k = random_tensor(c, seed, tfm_shape2(tk, d), 1), v = random_tensor(c, seed, tfm_shape2(tk, d), 1);
    return tfm_attention(c, x, k, v, &o);
}
static tfm_tensor op_attention_f16(tfm_context *c, tfm_tensor x, uint64_t *seed) {
    int64_t tk = 1 + below(seed, 200);
    uint16_t *kv = (uint16_t *)tfm_zeros(c, tfm_shape1(tk * 8)).data;
    if (!kv) return tfm_none();
    random_weights(seed, TFM_F16, (uint8_t *)kv, tk * 16, 1);
    for (int64_t i = 0; i < tk * 16; i++) kv[i] &= 0xbfff;              /* below 2 */
    tfm_tensor k = tfm_wrap_type(c, kv, TFM_F16, tfm_shape2(tk, 16));
    x = random_tensor(c, seed, tfm_shape2(3, 16), 5);
    tfm_tensor wide = tfm_to_f32(c, k), y = tfm_attention(c, x, k, k, NULL);
    same_tensor(c, y, tfm_attention(c, x, wide, wide, NULL));
    return y;
}
static tfm_rnn_weights cell_weights(tfm_context *c, int64_t gates, int64_t inputs, uint64_t *seed) {
    tfm_rnn_weights w;
    w.w_ih = random_tensor(c, seed, tfm_shape2(gates, inputs), 0.5f);
    w.w_hh = random_tensor(c, seed, tfm_shape2(gates, 7), 0.5f);
    w.b_ih = random_tensor(c, seed, tfm_shape1(gates), 0.5f);
    w.b_hh = tfm_none();
    return w;
}
static tfm_tensor op_lstm(tfm_context *c, tfm_tensor x, uint64_t *seed) {
    tfm_rnn_weights w = cell_weights(c, 28, x.dim[1], seed);
    return tfm_lstm(c, x, &w, NULL, NULL, NULL);
}
static tfm_tensor op_gru(tfm_context *c, tfm_tensor x, uint64_t *seed) {
    tfm_rnn_weights w = cell_weights(c, 21, x.dim[1], seed);
    return tfm_gru(c, x, &w, NULL, NULL);
}
static tfm_tensor op_conv2d(tfm_context *c, tfm_tensor x, uint64_t *seed) {
    tfm_conv2d_opts o = { .padding = { 1, 1 } };
    x = tfm_reshape(c, x, tfm_shape3(1, x.dim[0], x.dim[1]));
    tfm_tensor w = random_tensor(c, seed, tfm_shape4(3, 1, 2, 2), 1), b = random_tensor(c, seed, tfm_shape1(3), 1);
    return tfm_conv2d(c, x, w, b, &o);
}
static const struct { const char *name; op_fn run; } ops[] = {
    { "softmax", op_softmax }, { "log_softmax", op_log_softmax }, { "sum", op_sum }, { "mean", op_mean },
    { "max", op_max }, { "relu", op_relu }, { "gelu", op_gelu }, { "gelu_tanh", op_gelu_tanh }, { "silu", op_silu },
    { "tanh", op_tanh }, { "sigmoid", op_sigmoid }, { "layernorm", op_layernorm }, { "rmsnorm", op_rmsnorm },
    { "rope", op_rope },
    { "attention", op_attention }, { "attention_f16", op_attention_f16 }, { "lstm", op_lstm }, { "gru", op_gru },
    { "conv2d", op_conv2d } };

static void levels_agree(void) {
    tfm_context *c[TFM_LEVEL_COUNT];
    int levels = fusing_contexts(c), rounds = test_quick ? 2 : 20, count = sizeof ops / sizeof *ops;
    uint64_t seed = 31;
    for (int round = 0; round < rounds * count; round++) {
        tfm_mark marks[TFM_LEVEL_COUNT];
        for (int l = 0; l < levels; l++) marks[l] = tfm_arena_mark(c[l]);
        int64_t t = 1 + below(&seed, 5), d = 1 + below(&seed, 600);
        uint64_t start = test_random(&seed), used = start;
        tfm_tensor x = tfm_zeros(c[0], tfm_shape2(t, d)), first = tfm_none();
        for (int64_t i = 0; x.data && i < t; i++) random_row(&seed, (float *)x.data + i * d, d);
        bool good = true;
        for (int l = 0; l < levels; l++, used = start) {
            tfm_tensor y = ops[round % count].run(c[l], x, &used);
            if (l == 0) first = y;
            good &= CHECK_STR(tfm_message(c[l]), "") && CHECK(y.rank > 0) && same_tensor(c[0], y, first);
        }
        if (!good) printf("    in round %d, %s of %d x %d\n", round, ops[round % count].name, (int)t, (int)d);
        for (int l = 0; l < levels; l++) {
            tfm_arena_rewind(c[l], marks[l]);
            tfm_clear(c[l]);
        }
    }
    for (int l = 0; l < levels; l++) tfm_context_free(c[l]);
}
/* The same at every short length and around 256, from addresses that no vector is aligned to. */
static void levels_agree_on_special_numbers(void) {
    static const float special[] = { 0, -0.0f, 1e-45f, -1e-45f, -1e-39f, 3e38f, -3e38f, 89, -88, -104, 0.5f, -1, 4,
                                     0.9375f, -1.3258252f, 10, 1e-30f, INFINITY, -INFINITY, NAN };
    tfm_context *c[TFM_LEVEL_COUNT];
    int levels = fusing_contexts(c), count = sizeof ops / sizeof *ops;
    uint64_t seed = 37;
    for (int64_t d = 1; d < 273; d += d == 40 ? 210 : 1) {
        float x[2 * 273 + 1];
        int kinds = d % 3 == 0 ? 20 : 17;                               /* a row with the last three is soon all NaN */
        for (int i = 0; i < count; i++) {
            tfm_tensor first = tfm_none();
            tfm_mark marks[TFM_LEVEL_COUNT];
            uint64_t start = test_random(&seed), used = start;
            bool zeros = below(&seed, 4) == 0;
            for (int l = 0; l < levels; l++) marks[l] = tfm_arena_mark(c[l]);
            for (int64_t k = 0; k < 2 * d; k++)
                x[k + 1] = zeros ? special[below(&seed, 2)] : below(&seed, 2) ? special[below(&seed, kinds)]
                                                                             : 4 * test_uniform(&seed);
            bool good = true;
            for (int l = 0; l < levels; l++, used = start) {
                tfm_tensor y = ops[i].run(c[l], tfm_wrap(c[l], x + 1, tfm_shape2(2, d)), &used);
                if (l == 0) first = y;
                good &= CHECK_STR(tfm_message(c[l]), "") && same_tensor(c[0], y, first);
            }
            if (!good) printf("    %s of 2 x %d\n", ops[i].name, (int)d);
            for (int l = 0; l < levels; l++) {
                tfm_arena_rewind(c[l], marks[l]);
                tfm_clear(c[l]);
            }
        }
    }
    for (int l = 0; l < levels; l++) tfm_context_free(c[l]);
}
/* Sums, differences, products and quotients of [3, d] and what broadcasts to it. */
static void binary_ops_follow_the_rules(void) {
    enum { MOST = 40 };
    tfm_context *c[TFM_LEVEL_COUNT];
    int levels = fusing_contexts(c);
    uint64_t seed = 29;
    for (int round = 0; round < 40 * 4 * 4; round++) {
        int64_t d = 1 + round / 16, dims[4][2] = { { 3, d }, { 1, d }, { 3, 1 }, { 1, 1 } }, *s = dims[round / 4 % 4];
        float x[3 * MOST], z[3 * MOST], want[3 * MOST];
        for (int64_t i = 0; i < 3 * d; i++) {
            x[i] = test_uniform(&seed);
            z[i] = below(&seed, 9) ? test_uniform(&seed) : -0.0f;
        }
        for (int64_t i = 0; i < 3 * d; i++) {
            volatile float u = x[i], v = z[(s[0] > 1 ? i / d * s[1] : 0) + (s[1] > 1 ? i % d : 0)];
            want[i] = round % 4 == 0 ? u + v : round % 4 == 1 ? u - v : round % 4 == 2 ? u * v : u / v;
        }
        for (int l = 0; l < levels; l++) {
            tfm_mark mark = tfm_arena_mark(c[l]);
            tfm_tensor a = tfm_wrap(c[l], x, tfm_shape2(3, d)), b = tfm_wrap(c[l], z, tfm_shape2(s[0], s[1]));
            tfm_tensor y = round % 4 == 0 ? tfm_add(c[l], a, b) : round % 4 == 1 ? tfm_sub(c[l], a, b)
                         : round % 4 == 2 ? tfm_mul(c[l], a, b) : tfm_div(c[l], a, b);
            if (!CHECK_SAME(floats_of(y), want, 3 * d)) printf("    %d by %d\n", (int)d, (int)s[1]);
            tfm_arena_rewind(c[l], mark);
        }
    }
    for (int l = 0; l < levels; l++) tfm_context_free(c[l]);
}
/* Attention of every shape: head sizes, groups, windows, masks with holes, several segments. */
typedef struct attention_case { tfm_shape q, k, v; tfm_attention_opts o; int64_t holes; uint64_t seed; } attention_case;

static attention_case random_attention(uint64_t *seed) {
    static const int64_t sizes[] = { 64, 80, 96, 128, 1, 7, 16, 33 }, groups[] = { 1, 3, 4, 8, 2, 13 };
    attention_case a;
    memset(&a, 0, sizeof a);
    bool one = below(seed, 3) == 0;
    int64_t batch = 1 + below(seed, 2), kv = 1 + below(seed, 3), group = groups[below(seed, 6)];
    int64_t tq = one ? 1 : 1 + below(seed, below(seed, 2) ? 8 : 130);
    int64_t tk = one ? 1 + below(seed, 2100) : 1 + below(seed, 300), d = sizes[below(seed, 8)], dv = d;
    if (below(seed, 3) == 0) d = 1 + below(seed, 130), dv = 1 + below(seed, 130);
    a.q = tfm_shape4(batch, kv * group, tq, d);
    a.k = tfm_shape4(batch, kv, tk, d);
    a.v = tfm_shape4(batch, kv, tk, dv);
    a.o.heads = (int)(kv * group);
    a.o.kv_heads = (int)kv;
    a.o.causal = below(seed, 2) != 0;
    a.o.offset = below(seed, 2) ? below(seed, tk) : 0;
    if (one && below(seed, 2)) a.o.offset = tk - 1;
    a.o.window = below(seed, 2) ? 1 + below(seed, 200) : 0;
    if (below(seed, 3) == 0) a.holes = 1 + below(seed, 4);
    a.seed = test_random(seed);
    a.o.cap = a.seed >> 40 & 3 ? 0 : 2.5f;
    return a;
}
static tfm_tensor run_attention(tfm_context *c, const attention_case *a) {
    uint64_t seed = a->seed;
    tfm_attention_opts o = a->o;
    tfm_tensor q = random_tensor(c, &seed, a->q, 6), k = random_tensor(c, &seed, a->k, 1);
    tfm_tensor v = random_tensor(c, &seed, a->v, 1);
    if (a->holes) {
        o.mask = random_tensor(c, &seed, tfm_shape2(a->q.dim[2], a->k.dim[2]), 3);
        float *m = (float *)o.mask.data;
        for (int64_t i = 0; m && i < tfm_count(o.mask); i++)
            if (below(&seed, 5) < a->holes) m[i] = -INFINITY;
        if (m && below(&seed, 2)) m[below(&seed, tfm_count(o.mask))] = NAN;
        if (a->holes == 4) o.mask = scattered(c, o.mask);
    } else if (v.data && k.data && below(&seed, 4) == 0) {
        ((float *)v.data)[below(&seed, tfm_count(v))] = below(&seed, 2) ? NAN : INFINITY;
        ((float *)k.data)[below(&seed, tfm_count(k))] = below(&seed, 2) ? INFINITY : 1e30f;
    }
    return tfm_attention(c, q, k, v, &o);
}
static void levels_attend(tfm_context **c, int levels, const attention_case *a) {
    tfm_mark marks[TFM_LEVEL_COUNT];
    tfm_tensor first = tfm_none();
    for (int l = 0; l < levels; l++) {
        marks[l] = tfm_arena_mark(c[l]);
        tfm_tensor y = run_attention(c[l], a);
        if (l == 0) first = y;
        if (!CHECK_STR(tfm_message(c[l]), "") || !same_tensor(c[0], y, first))
            printf("    %d x %d heads, %d queries, %d keys, sizes %d, %d; "
                   "causal %d, offset %d, window %d, holes %d\n", (int)a->k.dim[1],
                   (int)(a->q.dim[1] / a->k.dim[1]), (int)a->q.dim[2], (int)a->k.dim[2], (int)a->q.dim[3],
                   (int)a->v.dim[3], a->o.causal, (int)a->o.offset, (int)a->o.window, (int)a->holes);
    }
    for (int l = 0; l < levels; l++) tfm_arena_rewind(c[l], marks[l]);
}
static void attention_of_random_shapes(void) {
    tfm_context *c[TFM_LEVEL_COUNT];
    int levels = fusing_contexts(c);
    uint64_t seed = 404;
    for (int64_t rows = 1; rows <= 25; rows++) {        /* one head: tiles of every height */
        attention_case a;
        memset(&a, 0, sizeof a);
        a.o.heads = a.o.kv_heads = 1;
        a.q = tfm_shape4(1, 1, rows, 16);
        a.k = a.v = tfm_shape4(1, 1, 276, 16);
        a.seed = (uint64_t)rows;
        levels_attend(c, levels, &a);
    }
    for (int round = 0; round < (test_quick ? 6 : 150); round++) {
        attention_case a = random_attention(&seed);
        levels_attend(c, levels, &a);
    }
    for (int l = 0; l < levels; l++) tfm_context_free(c[l]);
}
/* Plain arrays, which have no scratch, of sizes that fit on the stack and that do not. */
static void attention_of_arrays(void) {
    static const int64_t sizes[] = { 1, 40, 64, 100, 128, 160, 176, 300 };
    tfm_context_opts portable = { .level = TFM_LEVEL_FMA };
    if (!tfm_level_available(TFM_LEVEL_FMA)) return;
    tfm_context *c = tfm_context_new(&portable, NULL);
    uint64_t seed = 12;
    for (int i = 0; i < 8; i++) {
        int64_t d = sizes[i], tq = 15, tk = 150;
        tfm_attention_opts o = { .heads = 4, .kv_heads = 2, .causal = i % 2 == 0, .offset = 40 };
        tfm_tensor q = random_tensor(c, &seed, tfm_shape2(tq, 4 * d), 3), y = tfm_zeros(c, tfm_shape2(tq, 4 * d));
        tfm_tensor k = random_tensor(c, &seed, tfm_shape2(tk, 2 * d), 1);
        tfm_tensor v = random_tensor(c, &seed, tfm_shape2(tk, 2 * d), 1);
        CHECK_EQ(tfm_attention_f32((float *)y.data, floats_of(q), floats_of(k), floats_of(v), tq, tk, d, NULL, &o),
                 TFM_OK);
        if (!same_tensor(c, y, tfm_attention(c, q, k, v, &o))) printf("    size %d\n", (int)d);
    }
    tfm_context_free(c);
}
/* Caches of both types, prompts and single ids, at the levels that fuse in hardware. */
static void attention_of_sessions(void) {
    static const recipe recipes[] = {
        { .layers = 2, .width = 48, .ff = 16, .heads = 3, .kv_heads = 1, .vocab = 40, .context = 2100 },
        { .layers = 2, .width = 128, .ff = 16, .heads = 2, .kv_heads = 2, .vocab = 40, .context = 1100 },
        { .layers = 2, .width = 80, .ff = 16, .heads = 8, .kv_heads = 1, .vocab = 40, .context = 1100, .window = 70 },
        { .layers = 2, .width = 12, .ff = 16, .heads = 2, .kv_heads = 1, .vocab = 40, .context = 1100 } };
    for (int r = 0; r < 8 && tfm_level_available(TFM_LEVEL_FMA); r++) {
        int n = test_quick ? 90 : recipes[r / 2].context;
        made m = make(&recipes[r / 2]);
        float first[40];
        for (int l = TFM_LEVEL_FMA; m.m && l < TFM_LEVEL_COUNT; l++) {
            tfm_session_opts o = { .context = n, .batch = 37, .threads = 1 + l % 2, .level = (tfm_level)l,
                                   .cache = r % 2 ? TFM_F16 : TFM_F32 };
            tfm_session *s = tfm_level_available(o.level) ? tfm_session_new(m.m, &o, NULL) : NULL;
            uint64_t seed = 3;
            for (int32_t i = 0, piece; s && i < n; i += piece) {
                int32_t ids[64];
                piece = i % 64 == 0 && n - i > 60 ? 60 : 1;
                for (int e = 0; e < piece; e++) ids[e] = (int32_t)below(&seed, 40);
                if (!CHECK_EQ(tfm_eval(s, ids, piece), TFM_OK)) break;
            }
            if (s && l == TFM_LEVEL_FMA) memcpy(first, tfm_logits(s), sizeof first);
            else if (s && !CHECK_SAME(tfm_logits(s), first, 40))
                printf("    model %d, cache %s, level %s\n", r / 2, tfm_type_name(o.cache), tfm_level_name(o.level));
            tfm_session_free(s);
        }
        unmake(&m);
    }
}
/* Float products of all shapes: w as rows, transposed, and with gaps both ways; results in rows and,
   by a convolution with 1 x 1 filters, in columns. The first level is a portable one. */
typedef struct matrices { tfm_tensor y[5]; } matrices;

static matrices float_products(tfm_context *c, tfm_type type, const uint8_t *w, int64_t k, int64_t n, tfm_tensor x) {
    matrices m;
    memset(&m, 0, sizeof m);
    tfm_tensor wide = tfm_wrap_type(c, w, type, tfm_shape3(n, k, 2)), b = tfm_wrap_type(c, w, type, tfm_shape2(k, n));
    tfm_tensor bias = tfm_to_f32(c, tfm_reshape(c, tfm_slice(c, tfm_wrap_type(c, w, type, tfm_shape2(n, k)), 1, 0, 1),
                                                tfm_shape1(n)));
    tfm_tensor rows = tfm_wrap_type(c, w, type, tfm_shape2(n, k)), turned = tfm_transpose(c, x, 0, 1);
    m.y[0] = tfm_dense(c, x, rows, bias);
    m.y[1] = tfm_matmul(c, x, b);
    m.y[2] = tfm_dense(c, x, tfm_reshape(c, tfm_slice(c, wide, 2, 0, 1), tfm_shape2(n, k)), tfm_none());
    m.y[3] = tfm_dense(c, x, tfm_slice(c, tfm_wrap_type(c, w, type, tfm_shape2(n, 2 * k)), 1, k, 2 * k), tfm_none());
    m.y[4] = tfm_conv2d(c, tfm_reshape(c, turned, tfm_shape3(k, 1, x.dim[0])),
                        tfm_reshape(c, rows, tfm_shape4(n, k, 1, 1)), bias, NULL);
    return m;
}
static void float_products_of_all_shapes(void) {
    tfm_context *c[TFM_LEVEL_COUNT];
    static const int64_t lengths[] = { 1, 7, 64, 100, 255, 256, 257, 288, 583, 1003, 2050, 3075 };
    int levels = fusing_contexts(c);
    uint64_t seed = 61;
    for (int round = 0; round < (test_quick ? 12 : 150); round++) {
        tfm_type type = all_types[round % 3];
        int64_t k = lengths[below(&seed, 12)], n = 1 + below(&seed, 140);
        int64_t t = 1 + below(&seed, below(&seed, 2) ? 40 : 4);
        uint8_t *w = (uint8_t *)malloc((size_t)(8 * n * k) + 3);
        tfm_tensor x = random_tensor(c[0], &seed, tfm_shape2(t, k), 1);
        if (below(&seed, 4) == 0) random_row(&seed, (float *)x.data, k);
        random_weights(&seed, type, w + 3, 2 * n * k, 1);
        matrices want, got;
        for (int l = 0; l < levels; l++) {
            tfm_mark mark = tfm_arena_mark(c[l]);
            got = float_products(c[l], type, w + 3, k, n, x);
            if (l == 0) want = got;
            bool good = CHECK_STR(tfm_message(c[l]), "");
            for (int i = 0; good && l && i < 5; i++)
                if (!same_tensor(c[0], got.y[i], want.y[i]))
                    printf("    in round %d, case %d: %s, k %d, %d rows, %d columns, %s\n", round, i,
                           tfm_type_name(type), (int)k, (int)n, (int)t,
                           tfm_level_name((tfm_level)(l + TFM_LEVEL_UNFUSED + 1)));
            if (l) tfm_arena_rewind(c[l], mark);
        }
        free(w);
    }
    for (int l = 0; l < levels; l++) tfm_context_free(c[l]);
}
static void networks_of_all_shapes(void) {
    tfm_context *c[TFM_LEVEL_COUNT];
    int levels = fusing_contexts(c);
    uint64_t seed = 67;
    for (int round = 0; round < (test_quick ? 4 : 30); round++) {
        static const int64_t sizes[] = { 5, 32, 33, 128, 256, 300 };
        int64_t hidden = sizes[below(&seed, 6)], batch = 1 + below(&seed, below(&seed, 2) ? 40 : 3);
        int gates = round % 2 ? 3 : 4;
        tfm_tensor x = random_tensor(c[0], &seed, tfm_shape3(1 + below(&seed, 4), batch, 9), 1), y, first = tfm_none();
        tfm_type type = all_types[round % 3];
        uint8_t *hh = (uint8_t *)malloc((size_t)(gates * hidden * hidden * 4) + 1);
        random_weights(&seed, type, hh + 1, gates * hidden * hidden, 1e-2f);
        tfm_rnn_weights w = cell_weights(c[0], gates * hidden, 9, &seed);
        for (int l = 0; l < levels; l++) {
            w.w_hh = tfm_wrap_type(c[l], hh + 1, type, tfm_shape2(gates * hidden, hidden));
            y = gates == 3 ? tfm_gru(c[l], x, &w, NULL, NULL) : tfm_lstm(c[l], x, &w, NULL, NULL, NULL);
            if (l == 0) first = y;
            if (!CHECK_STR(tfm_message(c[l]), "") || !same_tensor(c[0], y, first))
                printf("    in round %d: %d gates, hidden %d, batch %d\n", round, gates, (int)hidden, (int)batch);
        }
        free(hh);
    }
    for (int l = 0; l < levels; l++) tfm_context_free(c[l]);
}

/* The bits of all these, in every build and on every machine. */
static void known_bits(void) {
    tfm_context_opts o = { .level = tfm_level_available(TFM_LEVEL_FMA) ? TFM_LEVEL_FMA : TFM_LEVEL_EXACT };
    tfm_context *c = tfm_context_new(&o, NULL);
    if (!c) return;                     /* a build without either is outside of the promise */
    uint64_t seed = 41, hash = HASH_START;
    for (int round = 0; round < 4 * (int)(sizeof ops / sizeof *ops); round++) {
        tfm_mark mark = tfm_arena_mark(c);
        tfm_tensor x = random_tensor(c, &seed, tfm_shape2(4, 1 + below(&seed, 600)), 10);
        tfm_tensor y = tfm_contiguous(c, ops[round % (int)(sizeof ops / sizeof *ops)].run(c, x, &seed));
        CHECK_STR(tfm_message(c), "");
        if (y.data) hash = hash_floats(hash, floats_of(y), tfm_count(y));
        tfm_arena_rewind(c, mark);
    }
    test_hash("results of the ops", &hash, sizeof hash);
    if (!CHECK(hash == UINT64_C(0x5860bc82842fcc82))) printf("    %016llx\n", (unsigned long long)hash);
    tfm_context_free(c);
}
/* Rows do not touch each other: each row of a product is that row's own product. */
static void rows_are_independent(void) {
    tfm_context *c = tfm_context_new(NULL, NULL);
    uint64_t seed = 6;
    for (int i = 0; i < TYPES; i++) {
        int64_t k = 512, n = 5, t = 11;
        uint8_t *w = (uint8_t *)malloc((size_t)(n * k / tfm_type_block(all_types[i]) * tfm_type_bytes(all_types[i])));
        random_weights(&seed, all_types[i], w, n * k, 1);
        tfm_tensor x = random_tensor(c, &seed, tfm_shape2(t, k), 1);
        tfm_tensor m = tfm_wrap_type(c, w, all_types[i], tfm_shape2(n, k));
        ((float *)x.data)[3 * k + 100] = NAN;                           /* and a bad row spoils itself alone */
        tfm_tensor y = tfm_dense(c, x, m, tfm_none());
        for (int64_t r = 0; r < t; r++)
            same_tensor(c, tfm_dense(c, tfm_slice(c, x, 0, r, r + 1), m, tfm_none()), tfm_slice(c, y, 0, r, r + 1));
        for (int64_t r = 0; y.data && r < t; r++) CHECK_EQ(isnan(floats_of(y)[r * n]), r == 3);
        for (int64_t r = 0; r < n; r++)
            same_tensor(c, tfm_dense(c, x, tfm_slice(c, m, 0, r, r + 1), tfm_none()), tfm_slice(c, y, 1, r, r + 1));
        free(w);
    }
    tfm_context_free(c);
}
/* Weights decode as the formats say: the op's embedding against the rules here. */
static void decoding_follows_the_rules(void) {
    tfm_context *c = tfm_context_new(NULL, NULL);
    uint64_t seed = 16;
    for (int i = 3; i < TYPES; i++) {
        int64_t size = tfm_type_block(all_types[i]);
        for (int round = 0; round < 20; round++) {
            uint8_t w[256];
            float want[256];
            block b;
            random_weights(&seed, all_types[i], w, size, 1);
            memset(&b, 0, sizeof b);
            if (size == 32) read_small(all_types[i], w, &b);
            else read_large(all_types[i], w, &b);
            for (int e = 0; e < size; e++) {
                volatile float d = b.d * (float)b.scale[e], m = b.m * (float)b.min[e], v = d * (float)b.q[e];
                want[e] = b.has_min ? v + m : v;
            }
            tfm_tensor y = tfm_to_f32(c, tfm_wrap_type(c, w, all_types[i], tfm_shape1(size)));
            if (!CHECK_SAME(floats_of(y), want, size)) printf("    of type %s\n", tfm_type_name(all_types[i]));
        }
    }
    tfm_context_free(c);
}
/* The unfused level is close to the others, and says what it is. */
static void unfused_is_close(void) {
    tfm_context_opts o = { .level = TFM_LEVEL_UNFUSED };
    if (!tfm_level_available(TFM_LEVEL_UNFUSED)) return;
    tfm_context *c = tfm_context_new(NULL, NULL), *u = tfm_context_new(&o, NULL);
    uint64_t seed = 9;
    tfm_tensor x = random_tensor(c, &seed, tfm_shape2(7, 600), 1), w = random_tensor(c, &seed, tfm_shape2(5, 600), 1);
    tfm_tensor a = tfm_dense(c, x, w, tfm_none()), b = tfm_dense(u, x, w, tfm_none());
    CHECK_NEAR(floats_of(b), floats_of(a), 35, 1e-6);
    a = tfm_layernorm(c, x, tfm_none(), tfm_none(), 1e-5f), b = tfm_layernorm(u, x, tfm_none(), tfm_none(), 1e-5f);
    CHECK_NEAR(floats_of(b), floats_of(a), 7 * 600, 1e-6);
    a = tfm_tanh(c, x), b = tfm_tanh(u, x);
    CHECK_NEAR(floats_of(b), floats_of(a), 7 * 600, 1e-6);
    tfm_context_free(c);
    tfm_context_free(u);
}

const test_case tests_kernels[] = {
    { "products_follow_the_rules", products_follow_the_rules, QUICK },
    { "products_of_extreme_numbers", products_of_extreme_numbers, QUICK },
    { "sums_near_ties", sums_near_ties, QUICK },
    { "attention_follows_the_rules", attention_follows_the_rules, QUICK },
    { "rows_follow_the_rules", rows_follow_the_rules, QUICK },
    { "levels_agree", levels_agree, QUICK },
    { "levels_agree_on_special_numbers", levels_agree_on_special_numbers, QUICK },
    { "binary_ops_follow_the_rules", binary_ops_follow_the_rules, QUICK },
    { "attention_of_random_shapes", attention_of_random_shapes, QUICK },
    { "attention_of_arrays", attention_of_arrays, QUICK },
    { "attention_of_sessions", attention_of_sessions, QUICK },
    { "float_products_of_all_shapes", float_products_of_all_shapes, QUICK },
    { "networks_of_all_shapes", networks_of_all_shapes, QUICK },
    { "known_bits", known_bits, QUICK },
    { "rows_are_independent", rows_are_independent, QUICK },
    { "decoding_follows_the_rules", decoding_follows_the_rules, QUICK },
    { "unfused_is_close", unfused_is_close, QUICK },
    { NULL, NULL, SLOW }
};
