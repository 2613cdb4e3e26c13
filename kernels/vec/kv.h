/* Storing a token in a page of the KV cache: one text for all instruction sets (words.h), same bits as
 * ref/kv.c. V lies in one piece; K lies one value every KV_PAGE, so it is converted beside the page and
 * strewn. */
#ifndef PRIMA_KERNELS_VEC_KV_H
#define PRIMA_KERNELS_VEC_KV_H
#include "kernels/kernels.h"
#include "kernels/vec/words.h"
#include <math.h>
#include <string.h>

enum { KV_CHUNK = 32 }; /* values converted at a time; also the block of Q8_0 */

/* Largest absolute value, by its bits: a NaN is larger than everything. */
static float largest_of_32(const float *x)
{
    uint32_t bits[KV_CHUNK], most = 0;
    float amax;

    memcpy(bits, x, sizeof bits);
    for (size_t i = 0; i < KV_CHUNK; i++) {
        uint32_t b = bits[i] & 0x7fffffff;
        most = b > most ? b : most;
    }
    memcpy(&amax, &most, sizeof amax);
    return amax;
}

static float to_q8(int8_t *q, const float *x)
{
    float amax = largest_of_32(x);

    if (!(amax >= ACT_TINY && isfinite(amax))) {
        memset(q, 0, KV_CHUNK);
        return amax < ACT_TINY ? 0.0f : NAN;
    }
    for (size_t i = 0; i < KV_CHUNK; i += VW) v_store_i8(q + i, v_mul(v_load(x + i), v_set1(127.0f / amax)));
    return amax / 127.0f;
}

static void to_f16(uint16_t *to, const float *x)
{
    for (size_t i = 0; i < KV_CHUNK; i += VW) v_store_f16(to + i, v_load(x + i));
}

static void put_q8(uint8_t *page, size_t slot, const float *k, const float *v, size_t head_size)
{
    size_t half = KV_PAGE * head_size + head_size * sizeof(float), n_blocks = head_size / 32;
    int8_t *k_to = (int8_t *)page + slot, *v_to = (int8_t *)page + half + slot * head_size;
    float *k_scale = (float *)(page + KV_PAGE * head_size) + slot;
    float *v_scale = (float *)(page + half + KV_PAGE * head_size) + slot * n_blocks;

    for (size_t b = 0; b < n_blocks; b++) {
        int8_t q[KV_CHUNK];
        k_scale[b * KV_PAGE] = to_q8(q, k + 32 * b);
        for (size_t i = 0; i < 32; i++) k_to[(32 * b + i) * KV_PAGE] = q[i];
        v_scale[b] = to_q8(v_to + 32 * b, v + 32 * b);
    }
}

static void put_f16(uint16_t *page, size_t slot, const float *k, const float *v, size_t head_size)
{
    uint16_t *k_to = page + slot, *v_to = page + KV_PAGE * head_size + slot * head_size;

    for (size_t first = 0; first < head_size; first += KV_CHUNK) {
        size_t n = head_size - first < KV_CHUNK ? head_size - first : KV_CHUNK;
        float x[KV_CHUNK] = {0}, y[KV_CHUNK] = {0};
        uint16_t h[KV_CHUNK];

        memcpy(x, k + first, n * sizeof *x);
        to_f16(h, x);
        for (size_t i = 0; i < n; i++) k_to[(first + i) * KV_PAGE] = h[i];
        memcpy(y, v + first, n * sizeof *y);
        to_f16(h, y);
        memcpy(v_to + first, h, n * sizeof *h);
    }
}

static void put_f32(float *page, size_t slot, const float *k, const float *v, size_t head_size)
{
    for (size_t i = 0; i < head_size; i++) page[i * KV_PAGE + slot] = k[i];
    memcpy(page + KV_PAGE * head_size + slot * head_size, v, head_size * sizeof *v);
}

static void ISA(kv_put)(kv_type t, void *page, size_t slot, const float *k, const float *v, size_t head_size)
{
    switch (t) {
    case KV_F16: put_f16(page, slot, k, v, head_size); break;
    case KV_Q8_0: put_q8(page, slot, k, v, head_size); break;
    case KV_F32: put_f32(page, slot, k, v, head_size); break;
    }
}

#endif
