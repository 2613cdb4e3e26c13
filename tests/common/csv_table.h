/* A CSV file of a benchmark, whose fields with commas in them nobody looks at. */
#ifndef PRIMA_TESTS_CSV_TABLE_H
#define PRIMA_TESTS_CSV_TABLE_H
#include "tests/common/prima.h"
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_COLUMNS = 40, MAX_ROWS = 32, FIELD_BYTES = 300 };

static size_t n_columns, n_rows;
static char name[MAX_COLUMNS][FIELD_BYTES], field[MAX_ROWS][MAX_COLUMNS][FIELD_BYTES];

/* A line's fields; returns how many there are. */
static inline size_t split(char out[MAX_COLUMNS][FIELD_BYTES], char *line)
{
    size_t n = 0;

    for (char *at; (at = strsep(&line, ",")) && n < MAX_COLUMNS; n++) snprintf(out[n], FIELD_BYTES, "%s", at);
    return n;
}

/* The header and the rows of a file, instead of those read before. plain: no field has a comma in it. */
static inline void read_table(const char *path, bool plain)
{
    char *text = read_file(path), *rest = text;

    n_rows = 0;
    n_columns = split(name, strsep(&rest, "\n"));
    for (char *line; (line = strsep(&rest, "\n")) && *line; n_rows++) {
        cr_assert_lt(n_rows, MAX_ROWS);
        size_t n = split(field[n_rows], line);
        cr_expect(plain ? n == n_columns : n >= n_columns, "row %zu has %zu fields", n_rows, n);
    }
    free(text);
}

static inline const char *get(size_t row, const char *column)
{
    for (size_t i = 0; i < n_columns; i++) {
        if (!strcmp(name[i], column)) return field[row][i];
    }
    cr_assert_fail("no column %s", column);
    return "";
}

static inline double number(size_t row, const char *column)
{
    const char *text = get(row, column);
    return *text ? strtod(text, NULL) : NAN;
}

#endif
