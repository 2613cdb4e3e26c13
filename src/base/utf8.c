/* UTF-8 by the table of well-formed byte sequences. */
#include "src/base/utf8.h"

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

size_t utf8_step(const char *text, size_t n, bool *whole)
{
    const unsigned char *s = (const unsigned char *)text;
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

size_t utf8_valid(const char *s, size_t n)
{
    size_t i = 0;

    while (i < n) {
        bool whole;
        size_t k = utf8_step(s + i, n - i, &whole);
        if (!whole) break;
        i += k;
    }
    return i;
}

uint32_t utf8_code_point(const char *s, size_t n)
{
    static const unsigned char lead_bits[] = {0, 0x7F, 0x1F, 0x0F, 0x07};
    uint32_t c = (unsigned char)s[0] & lead_bits[n];

    for (size_t i = 1; i < n; i++) c = c << 6 | ((unsigned char)s[i] & 0x3F);
    return c;
}
