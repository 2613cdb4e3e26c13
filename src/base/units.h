/* Numbers with units as people write them in files and options. */
#ifndef PRIMA_BASE_UNITS_H
#define PRIMA_BASE_UNITS_H
#include <stdbool.h>
#include <stdint.h>

/* Digits, at most `decimals` behind a point, as an integer count of 10^-decimals; *end is what follows. False
 * without a digit or beyond 2^63. */
bool units_fixed(const char *s, unsigned decimals, uint64_t *value, const char **end);

/* "8GiB", "512MiB", "500MB", "1.5GiB" or plain bytes; UINT64_MAX where it is more than 2^63. False: no size;
 * hint then says what was meant ("write 8GiB (powers of 1024) or 8GB (powers of 1000)"), or is "". */
#define UNITS_HINT_BYTES 96
bool units_size(const char *s, uint64_t *bytes, char hint[UNITS_HINT_BYTES]);

/* The other way, for messages: "812 bytes", "3.1 KiB", "61.5 MiB", "4.07 GiB". Returns out. */
#define UNITS_TEXT_BYTES 32
const char *units_text(char out[UNITS_TEXT_BYTES], uint64_t bytes);

#endif
