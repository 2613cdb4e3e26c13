/* Tensor core products and f16, from their definitions: PTX ISA, "Warp-level matrix instructions" (fragments
 * of mma.m16n8k32 and mma.m16n8k16), IEEE 754 binary16. With g = lane / 4 and t = lane % 4, register r of a
 * lane holds
 *   A  row g + 8 * (r % 2), of the elements of k those of word t of half r / 2
 *   B  column g, of the elements of k those of word t of half r
 *   D  row g + 8 * (r / 2), column 2t + r % 2
 * where a word is 4 bytes: 4 elements of s8, 2 of f16 and bf16; half h of k is its words 4h .. 4h + 3.
 *
 * Sums of floats: products are exact (two f16 or bf16 need 22 bits at most), and are added to d one by one, k
 * upwards, each rounded to nearest even. Hardware adds several at once, keeps some more bits and cuts them
 * off: its sums differ in the last bits, and from one generation to the next. */
#include "tests/gpu/emulate/emulate.h"
#include <string.h>

enum { M = 16, N = 8, K_WORDS = 8 };

/* --- f16 -------------------------------------------------------------------------------------------------
 */
float emu_f16_float(uint16_t h)
{
    uint32_t bits = (uint32_t)(h & 0x7fff) << 13; /* exponent and fraction at their places; bias 15 */
    float f;

    memcpy(&f, &bits, sizeof f);
    f *= 0x1p112f; /* bias 127; subnormal numbers become normal */
    memcpy(&bits, &f, sizeof f);
    if ((h & 0x7c00) == 0x7c00) bits |= 0x7f800000; /* infinity, NaN */
    bits |= (uint32_t)(h & 0x8000) << 16;
    memcpy(&f, &bits, sizeof f);
    return f;
}

uint16_t emu_float_f16(float f)
{
    uint32_t bits, sign;

    memcpy(&bits, &f, sizeof bits);
    sign = bits >> 16 & 0x8000;
    bits &= 0x7fffffff;
    if (bits > 0x7f800000) return 0x7fff;                     /* NaN: cvt gives this one */
    if (bits >= 0x477ff000) return (uint16_t)(sign | 0x7c00); /* 65520 and more: infinity */
    if (bits < 0x38800000) {                                  /* below 2^-14: multiples of 2^-24 */
        float scaled;
        memcpy(&scaled, &bits, sizeof scaled);
        scaled += 0.5f; /* whose unit in the last place is 2^-24: the sum rounds to nearest even */
        memcpy(&bits, &scaled, sizeof bits);
        return (uint16_t)(sign | (bits - 0x3f000000));
    }
    bits += 0xfff + (bits >> 13 & 1);
    return (uint16_t)(sign | ((bits >> 13) - (112 << 10)));
}

/* --- fragments ---------------------------------------------------------------------------------------------
 */
/* Rows of A and columns of B as words. */
static void collect(const emu_slot s[EMU_WARP], uint32_t a[M][K_WORDS], uint32_t b[N][K_WORDS])
{
    for (int lane = 0; lane < EMU_WARP; lane++) {
        const int g = lane / 4, t = lane % 4;
        for (int r = 0; r < 4; r++) a[g + 8 * (r % 2)][4 * (r / 2) + t] = s[lane].a[r];
        for (int r = 0; r < 2; r++) b[g][4 * r + t] = s[lane].b[r];
    }
}

void emu_mma_s8(emu_slot s[EMU_WARP])
{
    uint32_t a[M][K_WORDS], b[N][K_WORDS];

    collect(s, a, b);
    for (int lane = 0; lane < EMU_WARP; lane++) {
        for (int r = 0; r < 4; r++) {
            const int8_t *x = (const int8_t *)a[lane / 4 + 8 * (r / 2)];
            const int8_t *y = (const int8_t *)b[2 * (lane % 4) + r % 2];
            int32_t sum = 0; /* |sum| <= 32 * 2^14 */
            for (int k = 0; k < 4 * K_WORDS; k++) sum += x[k] * y[k];
            s[lane].d.i[r] = (int32_t)((uint32_t)s[lane].d.i[r] + (uint32_t)sum);
        }
    }
}

/* The two elements of a word, as floats. */
static void halves_f16(float out[2], uint32_t word)
{
    out[0] = emu_f16_float((uint16_t)word);
    out[1] = emu_f16_float((uint16_t)(word >> 16));
}

static void halves_bf16(float out[2], uint32_t word)
{
    uint32_t low = word << 16, high = word & 0xffff0000u;

    memcpy(&out[0], &low, sizeof low);
    memcpy(&out[1], &high, sizeof high);
}

static inline void mma_float(emu_slot s[EMU_WARP], void (*halves)(float out[2], uint32_t word))
{
    uint32_t a[M][K_WORDS], b[N][K_WORDS];
    float x[2 * K_WORDS][M], y[2 * K_WORDS][N], d[M][N];

    collect(s, a, b);
    for (int w = 0; w < K_WORDS; w++) {
        float two[2];
        for (int i = 0; i < M; i++) {
            halves(two, a[i][w]);
            x[2 * w][i] = two[0];
            x[2 * w + 1][i] = two[1];
        }
        for (int j = 0; j < N; j++) {
            halves(two, b[j][w]);
            y[2 * w][j] = two[0];
            y[2 * w + 1][j] = two[1];
        }
    }
    for (int lane = 0; lane < EMU_WARP; lane++) {
        for (int r = 0; r < 4; r++) d[lane / 4 + 8 * (r / 2)][2 * (lane % 4) + r % 2] = s[lane].d.f[r];
    }
    for (int k = 0; k < 2 * K_WORDS; k++) {
        for (int i = 0; i < M; i++) {
            for (int j = 0; j < N; j++) d[i][j] += x[k][i] * y[k][j];
        }
    }
    for (int lane = 0; lane < EMU_WARP; lane++) {
        for (int r = 0; r < 4; r++) s[lane].d.f[r] = d[lane / 4 + 8 * (r / 2)][2 * (lane % 4) + r % 2];
    }
}

void emu_mma_f16(emu_slot s[EMU_WARP])
{
    mma_float(s, halves_f16);
}

void emu_mma_bf16(emu_slot s[EMU_WARP])
{
    mma_float(s, halves_bf16);
}
