/* c_array - writes a file as a C array, for weights that lie in flash.
   cc -O2 tools/c_array.c -o c_array

   c_array FILE [NAME] > model.h     and #include "model.h" in one source file */
#include <errno.h>
#include <stdio.h>
#include <string.h>

static char name[256];                  /* of the array */

static int fail(const char *what, const char *message) {
    fprintf(stderr, "c_array: %s: %s\n", what, message);
    return 1;
}

static int is_in(char c, const char *first_last) {
    for (; *first_last; first_last += 2) if (c >= first_last[0] && c <= first_last[1]) return 1;
    return 0;
}

/* A name from a path: folders and the last suffix go, what C does not allow becomes _. */
static void name_from(const char *path) {
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path, *dot = strrchr(base, '.');
    size_t size = dot && dot != base ? (size_t)(dot - base) : strlen(base), at = 0;
    if (is_in(*base, "09")) name[at++] = '_';
    for (size_t i = 0; i < size && at + 1 < sizeof name; i++) name[at++] = is_in(base[i], "09azAZ") ? base[i] : '_';
}

static int write_array(FILE *in, const char *path, long size) {
    printf("/* Written by tools/c_array.c: change the file it came from instead. */\n"
           "#ifdef __cplusplus\nalignas(64)\n#else\n_Alignas(64)\n#endif\n"
           "static const unsigned char %s[%ld] = {", name, size);
    for (long i = 0; i < size; i++) {
        int byte = getc(in);
        if (byte == EOF) return fail(path, ferror(in) ? strerror(errno) : "became shorter while it was read");
        printf("%s%d,", i % 24 ? "" : "\n", byte);
    }
    printf("\n};\n");
    errno = 0;
    int failed = ferror(stdout);
    return fclose(stdout) != 0 || failed ? fail("standard output", errno ? strerror(errno) : "cannot be written") : 0;
}

int main(int argc, char **argv) {
    const char *usage = "usage: c_array FILE [NAME] > HEADER\n";
    if (argc == 2 && (strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "--help") == 0)) {
        printf("%s\nWrites the bytes of FILE as a C array of 64-byte alignment, to be included in one source file.\n"
               "NAME is the file's own unless it is given.\n", usage);
        return fclose(stdout) != 0;
    }
    int first = argc > 1 && strcmp(argv[1], "--") == 0 ? 2 : 1;
    if (argc - first < 1 || argc - first > 2 || (first == 1 && argv[1][0] == '-')) return fputs(usage, stderr), 2;
    const char *path = argv[first], *given = argc - first == 2 ? argv[first + 1] : NULL;
    name_from(given ? given : path);
    if (!name[0] || (given && strcmp(name, given) != 0)) return fail(given ? given : path, "no name that C allows"), 2;

    FILE *in = fopen(path, "rb");
    if (!in) return fail(path, strerror(errno));
    long size = fseek(in, 0, SEEK_END) == 0 ? ftell(in) : -1;
    rewind(in);
    int first_byte = getc(in);
    if (first_byte == EOF || size < 1) return fail(path, ferror(in) ? strerror(errno) : "empty, or not a plain file");
    rewind(in);
    int status = write_array(in, path, size);
    fclose(in);
    return status;
}
