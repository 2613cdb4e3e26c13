/* What is written out is UTF-8, whatever came in. */
#include "src/run/text.h"
#include "src/base/utf8.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

char *text_repair(const char *s, size_t n, size_t *n_out)
{
    size_t bad = 0, out = 0;
    char *copy;
    bool whole;

    for (size_t i = 0; i < n; bad += !whole) i += utf8_step(s + i, n - i, &whole);
    if (bad > (SIZE_MAX - n - 1) / 3 || !(copy = malloc(n + 3 * bad + 1))) return NULL;
    for (size_t i = 0; i < n;) {
        size_t k = utf8_step(s + i, n - i, &whole);
        memcpy(copy + out, whole ? s + i : "\xEF\xBF\xBD", whole ? k : 3);
        out += whole ? k : 3;
        i += k;
    }
    copy[out] = 0;
    *n_out = out;
    return copy;
}

json_t *text_json(const char *s, size_t n)
{
    json_t *v;
    char *repaired;
    size_t repaired_n;

    if (utf8_valid(s, n) == n) return json_stringn_nocheck(s, n);
    if (!(repaired = text_repair(s, n, &repaired_n))) return NULL;
    v = json_stringn_nocheck(repaired, repaired_n);
    free(repaired);
    return v;
}

void text_trim(char *s)
{
    s[utf8_valid(s, strlen(s))] = 0;
}
