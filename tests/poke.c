/* poke - damages a file for the tests: poke IN OUT NAME OFFSET BYTE...
   copies IN to OUT and puts bytes at OFFSET from the end of the first NAME in it. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
    if (argc < 6) return fprintf(stderr, "usage: poke IN OUT NAME OFFSET BYTE...\n"), 2;
    FILE *in = fopen(argv[1], "rb"), *out = fopen(argv[2], "wb");
    static char data[8 << 20];
    size_t size = in ? fread(data, 1, sizeof data, in) : 0, length = strlen(argv[3]);
    long at = -1;
    for (size_t i = 0; at < 0 && i + length <= size; i++)
        if (memcmp(data + i, argv[3], length) == 0) at = (long)(i + length) + atol(argv[4]);
    for (int i = 5; i < argc; i++, at++) {
        if (at < 0 || (size_t)at >= size) return fprintf(stderr, "poke: no place for it\n"), 1;
        data[at] = (char)strtol(argv[i], NULL, 0);
    }
    bool written = out && fwrite(data, 1, size, out) == size && fclose(out) == 0;
    if (!written) return fprintf(stderr, "poke: cannot write\n"), 1;
    fclose(in);
    return 0;
}
