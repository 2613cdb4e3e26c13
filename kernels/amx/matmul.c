/* Products of many tokens with tiles (AMX).
 *
 *   for as many tokens as stay in L2
 *     for each group of 16 rows
 *       for each block of 256 values (or four of 32): unpack it to L1 (kernels/avx512/planes.h)
 *         for each 16 tokens: tiles, then their sums to floats        block_256.h, block_32.h
 *
 * Of 256 values, 16 rows and 16 tokens: 8 tile products of 16 cycles (two planes), where `vpdpbusd` would
 * take 256; unpacking takes about 400 for a block however many tokens there are, so few tokens go the other
 * way. Sums of integers are exact in any order, floats are added as kernels/unpack8.h defines it: the bits
 * are those of every other instruction set. Measured shares and what they are lost to: kernels/NOTES.md. */
#include "kernels/amx/matmul.h"
#include "kernels/amx/block_256.h"
#include "kernels/amx/block_32.h"
#include "kernels/unpack8.h"

enum {
    TOKENS_LEAST_256 = 16,  /* fewer: vpdpbusd, from registers */
    TOKENS_LEAST_32 = 64,   /* the same where every 32 values need floats of their own */
    TOKENS_MOST = 256,      /* whose sums stay in L1 and L2 beside a block's weights */
    L2_SHARE = 1024 * 1024, /* bytes of activations that stay in L2 */
};

static const planes_256_type *const by_256[Q_TYPE_COUNT] = {
    [Q_Q2_K] = &planes_q2_k_avx512,    [Q_Q3_K] = &planes_q3_k_avx512,   [Q_Q4_K] = &planes_q4_k_avx512,
    [Q_Q5_K] = &planes_q5_k_avx512,    [Q_Q6_K] = &planes_q6_k_avx512,   [Q_IQ4_XS] = &planes_iq4_xs_avx512,
    [Q_IQ1_S] = &planes_tile8_avx512,  [Q_IQ1_M] = &planes_tile8_avx512, [Q_IQ2_XXS] = &planes_tile8_avx512,
    [Q_IQ2_XS] = &planes_tile8_avx512, [Q_IQ2_S] = &planes_tile8_avx512, [Q_IQ3_XXS] = &planes_tile8_avx512,
    [Q_IQ3_S] = &planes_tile8_avx512,
};
static const planes_32_type *const by_32[Q_TYPE_COUNT] = {
    [Q_Q4_0] = &planes_q4_0_avx512, [Q_Q4_1] = &planes_q4_1_avx512, [Q_Q5_0] = &planes_q5_0_avx512,
    [Q_Q5_1] = &planes_q5_1_avx512, [Q_Q8_0] = &planes_q8_0_avx512, [Q_IQ4_NL] = &planes_iq4_nl_avx512,
};

/* What one call needs beside the sums of its tokens, in scratch. */
typedef struct {
    union {
        block_256 b256;
        block_32 b32;
    };
    unpack8_tile unpacked; /* of a grid type */
} workspace;
_Static_assert(sizeof(workspace) <= 65536, "MATMUL_SCRATCH: the rest is 64 of 256 bytes a token");

static size_t tokens_at_once(const matmul_args *a)
{
    size_t n = L2_SHARE / a->x_stride / TILE_ROWS * TILE_ROWS;
    return n < TILE_ROWS ? TILE_ROWS : n > TOKENS_MOST ? TOKENS_MOST : n;
}

/* One group of a type with blocks of 256 values. */
static void group_256(const matmul_args *a, const uint8_t *w, tokens t, workspace *s)
{
    const planes_256_type *type = by_256[a->type];
    const unpack8_type *grid = type == &planes_tile8_avx512 ? unpack8_info(a->type) : NULL;
    size_t block_bytes = PACK_ROWS * (size_t)quant_info(a->type)->block_bytes,
           ahead = grid ? 0 : stream_ahead();

    for (size_t b = 0; b < a->n_cols / 256; b++, w += block_bytes, t.x += sizeof(act_q8_256)) {
        if (grid) grid->unpack(&s->unpacked, w);
        type->make(&s->b256.planes, grid ? (const uint8_t *)&s->unpacked : w, ahead);
        add_block_256(&t, &s->b256, type);
    }
}

/* One group of a type with blocks of 32 values. */
static void group_32(const matmul_args *a, const uint8_t *w, tokens t, workspace *s)
{
    const planes_32_type *type = by_32[a->type];
    size_t ahead = stream_ahead();

    for (size_t b = 0, n; b < a->n_cols / 32;
         b += n, w += n * type->block_bytes, t.x += n * sizeof(act_q8_32)) {
        n = a->n_cols / 32 - b < BLOCKS_32 ? a->n_cols / 32 - b : BLOCKS_32;
        for (size_t i = 0; i < n; i++) type->make(&s->b32.planes[i], w + i * type->block_bytes, ahead);
        add_blocks_32(&t, &s->b32, n, type->has_min);
    }
}

void matmul_amx(const matmul_args *a, size_t group_first, size_t group_end, void *scratch)
{
    size_t n_at_once = tokens_at_once(a), group_bytes = PACK_ROWS * quant_row_bytes(a->type, a->n_cols);
    tiles_config config = tiles_for(by_256[a->type] ? 64 : 32);
    workspace *s = scratch;

    if (a->n_tokens < (by_256[a->type] ? TOKENS_LEAST_256 : TOKENS_LEAST_32)) {
        (by_256[a->type] == &planes_tile8_avx512 ? matmul_tile8_avx512
                                                 : matmul_blocks_avx512)(a, group_first, group_end, scratch);
        return;
    }
    tiles_begin(&config);
    for (size_t first = 0; first < a->n_tokens; first += n_at_once) {
        tokens t = {.x = (const uint8_t *)a->x + first * a->x_stride,
                    .x_stride = a->x_stride,
                    .n = a->n_tokens - first < n_at_once ? a->n_tokens - first : n_at_once,
                    .acc = (float *)(s + 1)};
        for (size_t g = group_first; g < group_end; g++) {
            const uint8_t *w = (const uint8_t *)a->pack + g * group_bytes;

            memset(t.acc, 0, t.n * PACK_ROWS * sizeof *t.acc);
            (by_256[a->type] ? group_256 : group_32)(a, w, t, s);
            for (size_t i = 0; i < t.n; i++) {
                _mm512_storeu_ps(a->out + (first + i) * a->out_stride + g * PACK_ROWS,
                                 _mm512_load_ps(t.acc + i * PACK_ROWS));
            }
        }
    }
    tiles_end();
}
