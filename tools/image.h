/* image.h - reads PPM, PGM and BMP images and resizes them, for programs that look at pictures. Include it
   after tools/cli.h.

       image a = image_read("cat.ppm");                    // ends the program with a message if it cannot
       image b = image_resize(&a, 224, 224);
       use(b.pixels);                                      // [channels][height][width], 0 to 1
       free(a.pixels); free(b.pixels);

   PPM (P6, P3) and PGM (P5, P2) of any maximum up to 65535, one image to a file; BMP of 24 and 32 bits
   (the fourth byte is not used) and of 8 bits with a palette, uncompressed. Nothing is believed that the
   file's size does not bear out. */
#ifndef IMAGE_H
#define IMAGE_H

#include "tools/cli.h"

#define IMAGE_SIDE 65535                /* widest and highest image */

typedef struct image { int64_t channels, height, width; float *pixels; } image;     /* 1 channel: grey; 3: RGB */

typedef struct image_file { const char *path; const unsigned char *data; size_t size, at; } image_file;

static inline image image_new(int64_t channels, int64_t height, int64_t width) {
    image m = { channels, height, width, cli_alloc((size_t)(channels * height * width), sizeof(float)) };
    return m;
}
/* Ends the program unless there are such images and the file holds `need` bytes of one. */
static inline void image_check(const image_file *f, int64_t width, int64_t height, int64_t need, int64_t left) {
    if (width < 1 || height < 1 || width > IMAGE_SIDE || height > IMAGE_SIDE)
        cli_fail("%s: %" PRId64 " x %" PRId64 " pixels, 1 x 1 to %d x %d are read", f->path, width, height, IMAGE_SIDE,
                 IMAGE_SIDE);
    if (left < need)
        cli_fail("%s: %" PRId64 " x %" PRId64 " pixels need %" PRId64 " bytes, there are %" PRId64, f->path, width,
                 height, need, left);
}

/* ---- PPM and PGM ---- */

static inline bool image_is_space(int c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/* The next decimal number; spaces and comments may stand before it. */
static inline int64_t image_number(image_file *f, const char *what) {
    int64_t v = 0;
    size_t begin;
    for (; f->at < f->size && (image_is_space(f->data[f->at]) || f->data[f->at] == '#'); f->at++)
        if (f->data[f->at] == '#') while (f->at + 1 < f->size && f->data[f->at] != '\n') f->at++;
    for (begin = f->at; f->at < f->size && f->data[f->at] >= '0' && f->data[f->at] <= '9' && v < 1000000; f->at++)
        v = 10 * v + f->data[f->at] - '0';
    bool ended = f->at == f->size || image_is_space(f->data[f->at]);
    if (f->at == begin || !ended) cli_fail("%s: byte %zu: %s is not a number that fits", f->path, begin, what);
    return v;
}
static inline image image_read_pnm(image_file *f) {
    bool plain = f->data[1] < '5';
    int64_t channels = f->data[1] == '3' || f->data[1] == '6' ? 3 : 1;
    f->at = 2;
    int64_t width = image_number(f, "the width"), height = image_number(f, "the height"),
            most = image_number(f, "the largest sample");
    if (most < 1 || most > 65535)
        cli_fail("%s: the largest sample is %" PRId64 ", not between 1 and 65535", f->path, most);
    f->at += f->at < f->size;                              /* one space ends the header */
    int64_t bytes = most > 255 ? 2 : 1, pixels = width * height;
    int64_t need = plain ? 2 * channels * pixels - 1 : bytes * channels * pixels;
    image_check(f, width, height, need, (int64_t)(f->size - f->at));
    image m = image_new(channels, height, width);
    for (int64_t i = 0; i < channels * pixels; i++) {
        int64_t v = plain ? image_number(f, "a sample") : f->data[f->at];
        if (!plain && bytes == 2) v = v << 8 | f->data[f->at + 1];
        if (!plain) f->at += (size_t)bytes;
        if (v > most)
            cli_fail("%s: sample %" PRId64 " is %" PRId64 ", the largest %" PRId64, f->path, i, v, most);
        m.pixels[i % channels * pixels + i / channels] = (float)v / (float)most;
    }
    while (f->at < f->size && image_is_space(f->data[f->at])) f->at++;
    if (f->at < f->size) cli_fail("%s: byte %zu: something follows the image", f->path, f->at);
    return m;
}

/* ---- BMP ---- */

static inline uint32_t image_u32(const image_file *f, size_t at) {
    const unsigned char *p = f->data + at;
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
static inline int64_t image_i32(const image_file *f, size_t at) {
    int64_t v = image_u32(f, at);
    return v < INT64_C(0x80000000) ? v : v - INT64_C(0x100000000);
}
/* Pixels are blue, green, red; compression 3 is none, too, if the masks say just that. */
static inline bool image_bmp_plain(const image_file *f, uint32_t bits, size_t start) {
    uint32_t compression = image_u32(f, 30);
    if (compression == 0) return true;
    return compression == 3 && bits == 32 && start >= 66 && image_u32(f, 54) == 0xff0000 &&
           image_u32(f, 58) == 0xff00 && image_u32(f, 62) == 0xff;
}
static inline image image_read_bmp(const image_file *f) {
    if (f->size < 54) cli_fail("%s: a BMP file of %zu bytes, its header has 54", f->path, f->size);
    size_t start = image_u32(f, 10), header = image_u32(f, 14);
    int64_t width = image_i32(f, 18), height = image_i32(f, 22);
    uint32_t bits = image_u32(f, 28) & 0xffff, colours = image_u32(f, 46);
    bool downward = height < 0;
    if (downward) height = -height;
    if (header < 40 || header > 124) cli_fail("%s: a BMP header of %zu bytes is not supported", f->path, header);
    if (start > f->size || start < 14 + header)
        cli_fail("%s: the pixels begin at byte %zu of %zu", f->path, start, f->size);
    if ((bits != 8 && bits != 24 && bits != 32) || !image_bmp_plain(f, bits, start))
        cli_fail("%s: a BMP of %u bits, compression %u is not supported", f->path, bits, image_u32(f, 30));
    if (colours == 0) colours = 256;
    if (bits == 8 && (colours > 256 || 14 + header + 4 * (size_t)colours > start))
        cli_fail("%s: a palette of %u colours does not fit before the pixels", f->path, colours);
    int64_t step = (int64_t)(bits / 8), row = (width * step + 3) / 4 * 4;
    image_check(f, width, height, 0, 0);                    /* the product below cannot overflow then */
    image_check(f, width, height, row * height, (int64_t)(f->size - start));
    image m = image_new(3, height, width);
    for (int64_t i = 0; i < height * width; i++) {
        int64_t y = i / width, from = downward ? y : height - 1 - y;
        const unsigned char *p = f->data + start + from * row + i % width * step;
        if (bits == 8 && *p >= colours) cli_fail("%s: colour %d, the palette has %u", f->path, *p, colours);
        if (bits == 8) p = f->data + 14 + header + 4 * (size_t)*p;
        for (int64_t c = 0; c < 3; c++) m.pixels[c * height * width + i] = (float)p[2 - c] / 255.0f;
    }
    return m;
}

/* An image from a file, "-" being standard input. */
static inline image image_read(const char *path) {
    image_file f = { path, NULL, 0, 0 };
    char *data = cli_read(path, &f.size);
    f.data = (const unsigned char *)data;
    bool pnm = f.size > 2 && data[0] == 'P' && strchr("2356", data[1]) && data[1], bmp = f.size > 2 && data[0] == 'B' &&
         data[1] == 'M';
    if (!pnm && !bmp) cli_fail("%s: neither PPM (P6, P3), PGM (P5, P2) nor BMP", path);
    image m = pnm ? image_read_pnm(&f) : image_read_bmp(&f);
    free(data);
    return m;
}

/* ---- Changes: each gives a new image ---- */

/* RGB from grey, or grey from RGB by ITU-R BT.601's weights. */
static inline image image_channels(const image *m, int64_t channels) {
    static const float luma[3] = { 0.299f, 0.587f, 0.114f };
    int64_t n = m->height * m->width;
    image y = image_new(channels, m->height, m->width);
    for (int64_t i = 0; i < channels * n; i++) {
        if (channels == m->channels) y.pixels[i] = m->pixels[i];
        else if (channels == 3) y.pixels[i] = m->pixels[i % n];
        else for (int64_t c = 0; c < 3; c++) y.pixels[i] += luma[c] * m->pixels[c * n + i];
    }
    return y;
}
/* One axis of a bilinear resize: `in` samples, `step` apart, to `out`. What shrinks is averaged with a
   triangle as wide as a new pixel's neighbours, as Pillow and torchvision (antialias) do. */
static inline void image_resize_line(const float *x, int64_t in, float *y, int64_t out, int64_t step) {
    double scale = (double)in / (double)out, support = scale > 1 ? scale : 1;
    for (int64_t i = 0; i < out; i++) {
        double centre = ((double)i + 0.5) * scale, sum = 0, weights = 0;
        double low = floor(centre - support + 0.5), high = floor(centre + support + 0.5);
        int64_t begin = low > 0 ? (int64_t)low : 0, end = high < (double)in ? (int64_t)high : in;
        for (int64_t k = begin; k < end; k++) {
            double w = 1 - fabs(((double)k + 0.5 - centre) / support);
            if (w <= 0) continue;
            sum += w * (double)x[k * step];
            weights += w;
        }
        y[i * step] = (float)(sum / weights);
    }
}
static inline image image_resize(const image *m, int64_t height, int64_t width) {
    int64_t planes = m->channels;
    image wide = image_new(planes, m->height, width), y = image_new(planes, height, width);
    for (int64_t r = 0; r < planes * m->height; r++)
        image_resize_line(m->pixels + r * m->width, m->width, wide.pixels + r * width, width, 1);
    for (int64_t p = 0; p < planes; p++)
        for (int64_t column = 0; column < width; column++)
            image_resize_line(wide.pixels + p * m->height * width + column, m->height,
                              y.pixels + p * height * width + column, height, width);
    free(wide.pixels);
    return y;
}

#endif
