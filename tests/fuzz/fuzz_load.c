/* Loads any bytes as a weight file and as a model, and uses what loads; a contradiction aborts.

   Seeds, then fuzzing, from the repository's root (afterwards: crash-* files, each a test to be):

     cc -Itools -I. -DFUZZ_SEEDS tests/fuzz/fuzz_load.c -o build/fuzz_seeds -lm -pthread
     mkdir -p build/seeds && build/fuzz_seeds build/seeds
     clang -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined -Itools -I. \
         tests/fuzz/fuzz_load.c -o build/fuzz_load -lm -pthread
     build/fuzz_load -max_len=16384 -timeout=10 -rss_limit_mb=1024 build/seeds

   The first byte of an input says what to do with the rest:
     bit 0   0: all of it, at an odd address and in exact buffers; 1: the file alone, at an even one
     bit 1   the bytes of a safetensors header follow, its length is put before them           */
#define TFM_IMPLEMENTATION
#include "tests/hostile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1) return 0;
    uint8_t mode = *data++;
    size--;
    buffer b = { NULL, 0 };
    if (mode & 2) b = hostile_safetensors(size < 26 ? 0 : size - 26, (const char *)data, size, 0);
    const uint8_t *p = b.data ? b.data : data;
    size_t n = b.data ? b.size : size;
    if (mode & 1) {
        tfm_file *f = tfm_file_from_memory(p, n, NULL, NULL);
        if (f) use_file(f);
        tfm_file_free(f);
    } else hostile_use(p, n);
    free(b.data);
    if (hostile_fault) {
        fprintf(stderr, "fault: %s\n", hostile_fault);
        abort();
    }
    return 0;
}

#ifdef FUZZ_SEEDS
static void seed(const char *folder, const char *name, uint8_t mode, const uint8_t *data, size_t size) {
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    bool good = f && fwrite(&mode, 1, 1, f) == 1 && fwrite(data, 1, size, f) == size;
    if (!f || fclose(f) != 0 || !good) {
        fprintf(stderr, "%s: cannot write\n", path);
        exit(1);
    }
}
int main(int argc, char **argv) {
    static const struct { const char *name; plan p; } models[] = {
        { "llama-f16", { false, TFM_F16, 8, 14 } }, { "gpt2-f16", { true, TFM_F16, 8, 14 } },
        { "llama-f32", { false, TFM_F32, 4, 14 } },
        { "llama-q8_0", { false, TFM_Q8_0, 32, 14 } }, { "gpt2-q4_0", { true, TFM_Q4_0, 32, 14 } } };
    static const char header[] =
        "{\"__metadata__\":{\"k\":\"v\\n\"},\"ab\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
        "\"c\":{\"dtype\":\"BF16\",\"shape\":[],\"data_offsets\":[24,26]}}";
    if (argc != 2) return fprintf(stderr, "usage: fuzz_seeds FOLDER\n"), 2;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        buffer b = hostile_model(&models[i].p);
        seed(argv[1], models[i].name, 0, b.data, b.size);
        free(b.data);
    }
    buffer s = hostile_safetensors(sizeof header - 1, header, sizeof header - 1, 26);
    seed(argv[1], "safetensors", 0, s.data, s.size);
    seed(argv[1], "safetensors-header", 2, s.data + 8, s.size - 8);
    free(s.data);
    return 0;
}
#endif
