/* The cursor over untrusted bytes. Every read goes through bytes_take, the only place that compares a
 * length with what is left; integers are put together byte by byte, so neither the alignment nor the byte
 * order of the machine matters (compilers make one load of it). */
#include "src/base/bytes.h"
#include <string.h>

bytes bytes_of(const void *data, size_t n)
{
    return (bytes){.data = data, .n = n};
}

bool bytes_ok(const bytes *b)
{
    return !b->failed;
}

size_t bytes_left(const bytes *b)
{
    return b->failed ? 0 : b->n - b->pos;
}

const uint8_t *bytes_take(bytes *b, uint64_t n)
{
    static const uint8_t empty;
    const uint8_t *p;

    if (b->failed) return NULL;
    if (n > b->n - b->pos) {
        b->failed = true;
        b->fail_pos = b->pos;
        return NULL;
    }
    if (n == 0) return b->data ? b->data + b->pos : &empty;
    p = b->data + b->pos;
    b->pos += (size_t)n;
    return p;
}

/* n little-endian bytes as an integer; 0 when they are not there. */
static uint64_t read_le(bytes *b, unsigned n)
{
    const uint8_t *p = bytes_take(b, n);
    uint64_t v = 0;

    if (!p) return 0;
    for (unsigned i = 0; i < n; i++) v |= (uint64_t)p[i] << (8 * i);
    return v;
}

uint8_t bytes_u8(bytes *b)
{
    return (uint8_t)read_le(b, 1);
}

uint16_t bytes_u16(bytes *b)
{
    return (uint16_t)read_le(b, 2);
}

uint32_t bytes_u32(bytes *b)
{
    return (uint32_t)read_le(b, 4);
}

uint64_t bytes_u64(bytes *b)
{
    return read_le(b, 8);
}

float bytes_f32(bytes *b)
{
    uint32_t bits = bytes_u32(b);
    float v;

    memcpy(&v, &bits, sizeof v);
    return v;
}

double bytes_f64(bytes *b)
{
    uint64_t bits = bytes_u64(b);
    double v;

    memcpy(&v, &bits, sizeof v);
    return v;
}
