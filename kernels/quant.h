/* The tensor types of GGUF files: sizes, names and what each block means.
 *
 * Type numbers are those of the file format. A row of n values is n / block_values blocks of block_bytes.
 * Source: GGUF specification and ggml's block layouts (MIT); the arithmetic here is our own. */
#ifndef PRIMA_KERNELS_QUANT_H
#define PRIMA_KERNELS_QUANT_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    Q_F32 = 0,
    Q_F16 = 1,
    Q_Q4_0 = 2,
    Q_Q4_1 = 3,
    Q_Q5_0 = 6,
    Q_Q5_1 = 7,
    Q_Q8_0 = 8,
    Q_Q2_K = 10,
    Q_Q3_K = 11,
    Q_Q4_K = 12,
    Q_Q5_K = 13,
    Q_Q6_K = 14,
    Q_IQ2_XXS = 16,
    Q_IQ2_XS = 17,
    Q_IQ3_XXS = 18,
    Q_IQ1_S = 19,
    Q_IQ4_NL = 20,
    Q_IQ3_S = 21,
    Q_IQ2_S = 22,
    Q_IQ4_XS = 23,
    Q_IQ1_M = 29,
    Q_BF16 = 30,
    Q_TYPE_COUNT = 31
};

typedef struct {
    const char *name;      /* "Q4_K"; NULL for a number that prima does not know */
    uint16_t block_values; /* 1, 32 or 256 */
    uint16_t block_bytes;
} quant_type;

/* NULL when the type is unknown, removed from ggml, or not one that prima computes with. */
const quant_type *quant_info(uint32_t type);

/* Bytes of a row of n values; 0 when n is not a whole number of blocks or the type is unknown. */
size_t quant_row_bytes(uint32_t type, uint64_t n);

/* One row (file layout) to f32; n is a multiple of block_values. The definition of what a type means:
 * equals the vectors in the test data bit for bit or to 1 ulp. */
void quant_dequant(uint32_t type, const void *src, float *dst, size_t n);

/* One row of f32 to a file-layout row: F32, F16, BF16 (round to nearest even), Q8_0, Q4_0, Q4_K, Q6_K (plain
 * round-to-nearest, for synthetic benchmark models and tests); returns false for other types. */
bool quant_quantize(uint32_t type, const float *src, void *dst, size_t n);

float quant_f16_to_f32(uint16_t h);
uint16_t quant_f32_to_f16(float f); /* round to nearest even, as hardware does */
static inline float quant_bf16_to_f32(uint16_t h)
{
    union {
        uint32_t u;
        float f;
    } v = {.u = (uint32_t)h << 16};
    return v.f;
}

#endif
