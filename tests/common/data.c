/* See data.h. */
#include "tests/common/data.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *test_data_or_null(const char *rel)
{
    static char place[8][4096];
    static unsigned next;
    const char *base = getenv("PRIMA_TEST_DATA");
    char *path = place[next++ % 8];

    snprintf(path, sizeof place[0], "%s/%s", base ? base : "../shared/data", rel);
    return access(path, R_OK) == 0 ? path : NULL;
}

const char *test_data(const char *rel)
{
    const char *path = test_data_or_null(rel);
    if (!path) cr_skip_test("test data %s is not here (PRIMA_TEST_DATA)", rel);
    return path;
}

json_t *test_data_json(const char *rel)
{
    json_error_t e;
    json_t *v = json_load_file(test_data(rel), JSON_ALLOW_NUL, &e);
    cr_assert_not_null(v, "%s: line %d: %s", rel, e.line, e.text);
    return v;
}

unsigned char *test_unhex(const char *hex, size_t *n_out)
{
    size_t n = strlen(hex) / 2;
    unsigned char *out = malloc(n + 1);

    cr_assert_not_null(out);
    for (size_t i = 0; i < n; i++) {
        unsigned v;
        cr_assert_eq(sscanf(hex + 2 * i, "%2x", &v), 1, "bad hex");
        out[i] = (unsigned char)v;
    }
    *n_out = n;
    return out;
}
