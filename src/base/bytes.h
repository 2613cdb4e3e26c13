/* A bounds-checked cursor over bytes from outside (files, peers). The first error sticks with its
 * offset and every later read returns zeros: parse on, check `bytes_ok` once. Little endian. */
#ifndef PRIMA_BASE_BYTES_H
#define PRIMA_BASE_BYTES_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    const uint8_t *data;
    size_t n, pos;
    bool failed;
    size_t fail_pos; /* where the first read that did not fit began */
} bytes;

bytes bytes_of(const void *data, size_t n);
bool bytes_ok(const bytes *b);
size_t bytes_left(const bytes *b);
uint8_t bytes_u8(bytes *b);
uint16_t bytes_u16(bytes *b);
uint32_t bytes_u32(bytes *b);
uint64_t bytes_u64(bytes *b);
float bytes_f32(bytes *b);
double bytes_f64(bytes *b);
/* n bytes in place, valid as long as the data; NULL (and failed) when fewer are left. */
const uint8_t *bytes_take(bytes *b, uint64_t n);

#endif
