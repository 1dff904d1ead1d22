/* hash.h - FNV-1a over the bits of floats, lowest byte first, the same on every machine. */
#ifndef HASH_H
#define HASH_H

#include <stdint.h>
#include <string.h>

#define HASH_START UINT64_C(0xcbf29ce484222325)

static uint64_t hash_floats(uint64_t h, const float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        for (int shift = 0; shift < 32; shift += 8) h = (h ^ (bits >> shift & 255)) * UINT64_C(0x100000001b3);
    }
    return h;
}

#endif
