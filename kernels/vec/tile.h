/* The register tile of attention.h: c[r][lane] = start + sum over k < n, rising, of a[r][k] b[k][lane], for
 * up to TILE_ROWS rows and 32 lanes of a page.
 *
 * For each k and 32 lanes: two loads of 16 (AVX-512) with conversion, a broadcast for each row and two FMA.
 * Measured alone in L1 (Zen 5): 8 rows 93 % of the FMA rate with 128 values of k and 89 % with 32; 4 rows,
 * whose 8 sums are just as many as two units with 4 cycles of latency need, 82 and 75 %. Fewer rows are
 * slower, but there memory is the limit. */
#ifndef PRIMA_KERNELS_VEC_TILE_H
#define PRIMA_KERNELS_VEC_TILE_H
#include "kernels/kernels.h"
#include "kernels/vec/words.h"

enum { CHUNK = KV_PAGE }; /* lanes, and the dims of a chunk: 32 */

/* What a tile reads: 32 lanes of a page (of Q8_0 without the scales); and what it asks for ahead. */
typedef struct {
    kv_type type;
    const void *at;
    size_t ld; /* values from one k to the next */
    const uint8_t *ahead;
    size_t ahead_step; /* bytes for each k */
} lanes32;

typedef enum {
    TILE_SCORES,        /* c[r][lane] = sum */
    TILE_SCALED_SCORES, /* c[r][lane] += factor[lane] sum */
    TILE_VALUES         /* c[r][lane] = factor[r] c[r][lane], to which the sum is added term by term */
} tile_task;

typedef struct {
    tile_task task;
    float *c;       /* rows of CHUNK floats */
    const float *a; /* a[k / CHUNK][r][k % CHUNK]: rows of CHUNK floats, */
    size_t a_step;  /* the next CHUNK values of k a_step floats further */
    size_t n;
    const float *factor;
    const lanes32 *b;
} tile_args;

static inline __attribute__((always_inline)) vf load_values(kv_type t, const void *from, size_t at)
{
    return t == KV_F16   ? v_load_f16((const uint16_t *)from + at)
           : t == KV_F32 ? v_load((const float *)from + at)
                         : v_load_i8((const int8_t *)from + at);
}

static inline __attribute__((always_inline)) void tile(size_t n_rows, kv_type t, const tile_args *p)
{
    const lanes32 *b = p->b;

    for (size_t lane = 0; lane < CHUNK; lane += TILE_VECS * VW) {
        vf acc[8][TILE_VECS];
        float *c = p->c + lane;
        const float *a = p->a;
        const uint8_t *ahead = b->ahead;
        size_t at = lane;

#pragma GCC unroll 8
        for (size_t r = 0; r < n_rows; r++) {
#pragma GCC unroll 4
            for (size_t v = 0; v < TILE_VECS; v++) {
                acc[r][v] = p->task != TILE_VALUES
                                ? v_set1(0.0f)
                                : v_mul(v_set1(p->factor[r]), v_load(c + r * CHUNK + v * VW));
            }
        }
        for (size_t k = 0; k < p->n;
             k += CHUNK, a += p->a_step, at += CHUNK * b->ld, ahead += CHUNK * b->ahead_step) {
            size_t n = p->n - k < CHUNK ? p->n - k : CHUNK;
            for (size_t i = 0; i < n; i++) {
                vf x[TILE_VECS];
                if (lane == 0) {
                    __builtin_prefetch(ahead + i * b->ahead_step);
                    if (t == KV_F32) __builtin_prefetch(ahead + i * b->ahead_step + 64);
                }
#pragma GCC unroll 4
                for (size_t v = 0; v < TILE_VECS; v++) x[v] = load_values(t, b->at, at + i * b->ld + v * VW);
#pragma GCC unroll 8
                for (size_t r = 0; r < n_rows; r++) {
                    vf y = v_set1(a[r * CHUNK + i]);
#pragma GCC unroll 4
                    for (size_t v = 0; v < TILE_VECS; v++) acc[r][v] = v_fma(y, x[v], acc[r][v]);
                }
            }
        }
#pragma GCC unroll 8
        for (size_t r = 0; r < n_rows; r++) {
#pragma GCC unroll 4
            for (size_t v = 0; v < TILE_VECS; v++) {
                float *to = c + r * CHUNK + v * VW;
                if (p->task == TILE_SCALED_SCORES)
                    acc[r][v] = v_fma(v_load(p->factor + lane + v * VW), acc[r][v], v_load(to));
                v_store(to, acc[r][v]);
            }
        }
    }
}

static inline __attribute__((always_inline)) void tile_of(size_t n_rows, kv_type t, const tile_args *p)
{
    switch (n_rows) {
    case 1: tile(1, t, p); break;
    case 2: tile(2, t, p); break;
    case 3: tile(3, t, p); break;
    case 4: tile(4, t, p); break;
    case 5: tile(5, t, p); break;
    case 6: tile(6, t, p); break;
    case 7: tile(TILE_ROWS < 7 ? 0 : 7, t, p); break;
    case 8: tile(TILE_ROWS < 8 ? 0 : 8, t, p); break;
    }
}

static void run_tile(size_t n_rows, const tile_args *p)
{
    switch (p->b->type) {
    case KV_F16: tile_of(n_rows, KV_F16, p); break;
    case KV_Q8_0: tile_of(n_rows, KV_Q8_0, p); break;
    case KV_F32: tile_of(n_rows, KV_F32, p); break;
    }
}

#endif
