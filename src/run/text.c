/* UTF-8 by the table of well-formed byte sequences. */
#include "src/run/text.h"
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Continuation bytes after `lead`, and the range of the first of them; -1 when no sequence starts so. */
static int follow(unsigned char lead, unsigned char *lo, unsigned char *hi)
{
    *lo = 0x80;
    *hi = 0xBF;
    if (lead < 0x80) return 0;
    if (lead < 0xC2 || lead > 0xF4) return -1;
    if (lead < 0xE0) return 1;
    if (lead == 0xE0) *lo = 0xA0;
    if (lead == 0xED) *hi = 0x9F;
    if (lead == 0xF0) *lo = 0x90;
    if (lead == 0xF4) *hi = 0x8F;
    return lead < 0xF0 ? 2 : 3;
}

/* Bytes of the character at s, or of the longest beginning of one (*whole = false), at least 1. */
static size_t step(const unsigned char *s, size_t n, bool *whole)
{
    unsigned char lo, hi;
    int more = follow(s[0], &lo, &hi);
    size_t i = 1;

    *whole = more >= 0;
    for (; more > 0; more--, i++) {
        if (i >= n || s[i] < lo || s[i] > hi) {
            *whole = false;
            break;
        }
        lo = 0x80;
        hi = 0xBF;
    }
    return i;
}

size_t text_valid(const char *s, size_t n)
{
    size_t i = 0;

    while (i < n) {
        bool whole;
        size_t k = step((const unsigned char *)s + i, n - i, &whole);
        if (!whole) break;
        i += k;
    }
    return i;
}

char *text_repair(const char *s, size_t n, size_t *n_out)
{
    size_t bad = 0, out = 0;
    char *copy;
    bool whole;

    for (size_t i = 0; i < n; bad += !whole) i += step((const unsigned char *)s + i, n - i, &whole);
    if (bad > (SIZE_MAX - n - 1) / 3 || !(copy = malloc(n + 3 * bad + 1))) return NULL;
    for (size_t i = 0; i < n;) {
        size_t k = step((const unsigned char *)s + i, n - i, &whole);
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

    if (text_valid(s, n) == n) return json_stringn_nocheck(s, n);
    if (!(repaired = text_repair(s, n, &repaired_n))) return NULL;
    v = json_stringn_nocheck(repaired, repaired_n);
    free(repaired);
    return v;
}

void text_trim(char *s)
{
    s[text_valid(s, strlen(s))] = 0;
}
