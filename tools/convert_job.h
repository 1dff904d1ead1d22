/* convert_job.h - what the readers of convert.c fill: metadata and tensors of the GGUF file to be.

   A reader is one function, void convert_KIND(convert_job *job): it writes the metadata into job->out,
   adds its tensors to job->plans (their `type` as it is if they are not weights to be quantized), and
   ends the program with one sentence about anything that it cannot read. It may set job->check. What
   the plans point to stays until the program ends. */
#ifndef CONVERT_JOB_H
#define CONVERT_JOB_H

#include "tools/gguf_plan.h"
#include "tools/json.h"

#ifdef CLI_POSIX
#include <fcntl.h>
#include <sys/mman.h>
#endif

typedef struct convert_job {
    const char *in, *tokenizer;         /* paths; tokenizer: as given, or NULL */
    gguf_writer out;
    gguf_plans plans;
    bool (*check)(const char *path, tfm_error *err);       /* can the written file be used? NULL: not asked */
    tfm_file **files;                   /* kept open for the plans */
    size_t file_count;
} convert_job;

/* Opens a .safetensors file, which stays open. */
static inline const tfm_file *convert_open(convert_job *job, const char *path) {
    tfm_error err;
    tfm_file *f = tfm_file_open(path, NULL, &err);
    if (!f) cli_fail_at(path, err.message);
    if (strcmp(tfm_file_format(f), "safetensors") != 0)
        cli_fail("%s: is %s, not safetensors", path, tfm_file_format(f));
    job->files = realloc(job->files, (job->file_count + 1) * sizeof *job->files);
    if (!job->files) cli_fail("%s: out of memory", path);
    job->files[job->file_count++] = f;
    return f;
}

static inline bool convert_check_model(const char *path, tfm_error *err) {
    tfm_model *m = tfm_model_open(path, NULL, err);
    tfm_model_free(m);
    return m != NULL;
}

/* Memory, zeroed, that stays until the program ends; all of it can be seen from here. */
typedef struct convert_memory { struct convert_memory *next; } convert_memory;
static inline void *convert_keep(size_t size) {
    static convert_memory *all;
    convert_memory *m = cli_alloc(1, sizeof *m + size);
    m->next = all;
    all = m;
    return m + 1;
}
/* "DIR/NAME" */
static inline char *convert_path(const char *dir, const char *name) {
    size_t n = strlen(dir), size = n + strlen(name) + 2;
    char *path = convert_keep(size);
    snprintf(path, size, "%s%s%s", dir, n && dir[n - 1] == '/' ? "" : "/", name);
    return path;
}
static inline bool convert_exists(const char *path) {
    FILE *f = fopen(path, "rb");
    if (f) fclose(f);
    return f != NULL;
}
/* Reads JSON; where: for messages. */
static inline const json *convert_json_text(const char *where, char *text, size_t size) {
    struct { json_document d; char *text; } *k = convert_keep(sizeof *k);
    k->text = text;
    if (!json_read(&k->d, text, size)) cli_fail("%s: line %zu: %s", where, k->d.line, k->d.error);
    return k->d.root;
}
static inline const json *convert_json(const char *path) {
    size_t size;
    char *text = cli_read(path, &size);
    return convert_json_text(path, text, size);
}
/* The same of a file in a folder; NULL: there is none. */
static inline const json *convert_json_in(const char *dir, const char *name) {
    char *path = convert_path(dir, name);
    return convert_exists(path) ? convert_json(path) : NULL;
}

/* All bytes of a file, mapped where that can be done; they stay. */
static inline const uint8_t *convert_map(const char *path, size_t *size) {
#ifdef CLI_POSIX
    struct stat st;
    int f = open(path, O_RDONLY);
    if (f < 0 || fstat(f, &st) != 0) cli_fail("%s: %s", path, strerror(errno));
    *size = (size_t)st.st_size;
    void *data = *size ? mmap(NULL, *size, PROT_READ, MAP_PRIVATE, f, 0) : MAP_FAILED;
    close(f);
    if (data != MAP_FAILED) return data;
#endif
    return (const uint8_t *)cli_read(path, size);
}
/* The rows of a plan whose `user` is the contiguous data in its type `from`. */
static inline tfm_tensor convert_rows(tfm_context *c, const gguf_plan *p, int64_t begin, int64_t end) {
    tfm_tensor all = tfm_wrap_type(c, p->user, p->from, tfm_shape2(gguf__plan_rows(p), gguf__plan_width(p)));
    return tfm_to_f32(c, tfm_slice(c, all, 0, begin, end));
}

/* Is the name one of a list with a space between two? */
static inline bool convert_listed(const char *name, const char *list) {
    size_t n = strlen(name);
    for (const char *p = list; (p = strstr(p, name)) != NULL; p += n)
        if ((p == list || p[-1] == ' ') && (p[n] == 0 || p[n] == ' ')) return n > 0;
    return false;
}

#endif
