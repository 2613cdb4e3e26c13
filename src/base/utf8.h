/* Is it UTF-8? Unicode 15, table 3-7: no surrogates, no overlong forms. */
#ifndef PRIMA_BASE_UTF8_H
#define PRIMA_BASE_UTF8_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of the character at s[0, n), n > 0, or of the longest beginning of one (*whole = false); at least 1.
 */
size_t utf8_step(const char *s, size_t n, bool *whole);

/* Length of the longest valid prefix of s[0, n). */
size_t utf8_valid(const char *s, size_t n);

/* The code point of a whole character of n bytes. */
uint32_t utf8_code_point(const char *s, size_t n);

#endif
