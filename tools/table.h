/* table.h - rows of figures, printed as text, as Markdown, or as JSON. Include it after cli.h. */
#ifndef TABLE_H
#define TABLE_H

#include "tools/cli.h"

enum { TABLE_TEXT = -1, TABLE_WIDTH = 24 };

typedef struct table_column {
    const char *key, *title;            /* title NULL: in JSON alone */
    int digits;                         /* behind the point; TABLE_TEXT: no number */
} table_column;

typedef struct table_cell {
    char text[96];                      /* of a TABLE_TEXT */
    double number;                      /* NaN: there is none */
} table_cell;

typedef struct table {
    const table_column *columns;        /* ended by a key of NULL; at most TABLE_WIDTH */
    table_cell (*rows)[TABLE_WIDTH];
    size_t count;
} table;

typedef enum table_format { TABLE_PLAIN, TABLE_MARKDOWN, TABLE_JSON } table_format;

static inline table_cell *table_add(table *t) {
    void *larger = realloc(t->rows, (t->count + 1) * sizeof *t->rows);
    if (!larger) cli_fail("out of memory");
    t->rows = larger;
    table_cell *row = t->rows[t->count++];
    for (int i = 0; i < TABLE_WIDTH; i++) {
        row[i].text[0] = 0;
        row[i].number = (double)NAN;
    }
    return row;
}
static inline void table_set(table_cell *cell, const char *text) {
    snprintf(cell->text, sizeof cell->text, "%s", text);
}
static inline void table__cell(const table_column *column, const table_cell *cell, char out[sizeof cell->text]) {
    if (column->digits == TABLE_TEXT) {
        memcpy(out, cell->text, sizeof cell->text);
        for (char *p = out; *p; p++)
            if ((unsigned char)*p < 32 || *p == 127 || *p == '|') *p = '?';
    } else snprintf(out, sizeof cell->text, isnan(cell->number) ? "-" : "%.*f", column->digits, cell->number);
}
/* A cell, spaces up to the width in front of a number and behind a text. */
static inline void table__pad(FILE *f, const char *text, const table_column *column, int width) {
    fprintf(f, "%*s", column->digits == TABLE_TEXT ? -width : width, text);
}
static inline void table__lines(FILE *f, const table *t, bool markdown) {
    char text[sizeof t->rows[0][0].text];
    int width[TABLE_WIDTH] = { 0 }, last = 0;
    for (int i = 0; t->columns[i].key; i++) {
        if (!t->columns[i].title) continue;
        last = i;
        width[i] = (int)strlen(t->columns[i].title);
        for (size_t r = 0; r < t->count; r++) {
            table__cell(&t->columns[i], &t->rows[r][i], text);
            if ((int)strlen(text) > width[i]) width[i] = (int)strlen(text);
        }
    }
    for (size_t line = 0; line < t->count + 2; line++) {   /* titles, a rule, the rows */
        const char *between = markdown ? "| " : "";
        if (line == 1 && !markdown) continue;
        for (int i = 0; t->columns[i].key; i++) {
            const table_column *c = &t->columns[i];
            if (!c->title) continue;
            if (line == 0) snprintf(text, sizeof text, "%s", c->title);
            else if (line == 1) snprintf(text, sizeof text, c->digits == TABLE_TEXT ? "---" : "--:");
            else table__cell(c, &t->rows[line - 2][i], text);
            fputs(between, f);
            table__pad(f, text, c, i == last && !markdown && c->digits == TABLE_TEXT ? 0 : width[i]);
            between = markdown ? " | " : "  ";
        }
        fputs(markdown ? " |\n" : "\n", f);
    }
}
static inline void table__json(FILE *f, const table *t) {
    fputc('[', f);
    for (size_t r = 0; r < t->count; r++) {
        fputs(r ? ",\n {" : "\n {", f);
        for (int i = 0; t->columns[i].key; i++) {
            const table_cell *cell = &t->rows[r][i];
            fprintf(f, "%s\"%s\": ", i ? ", " : "", t->columns[i].key);
            if (t->columns[i].digits == TABLE_TEXT)
                cli_json_string(f, (tfm_string){ cell->text, strlen(cell->text) }, SIZE_MAX);
            else if (isfinite(cell->number)) fprintf(f, "%.6g", cell->number);
            else fputs("null", f);
        }
        fputc('}', f);
    }
    fputs("\n]\n", f);
}
static inline void table_print(FILE *f, const table *t, table_format format) {
    if (format == TABLE_JSON) table__json(f, t);
    else table__lines(f, t, format == TABLE_MARKDOWN);
}

/* ---- Statistics ---- */

static inline int table__compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
/* Sorts v; the median then is the middle one, or the mean of the two. */
static inline double table_median(double *v, int64_t n) {
    qsort(v, (size_t)n, sizeof *v, table__compare);
    return n == 0 ? (double)NAN : n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

#endif
