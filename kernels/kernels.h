/* The table of kernels and its one selection function.
 *
 * Rule 3 (same bits however it is run): for one instruction set a token's result depends on its own input and
 * the row length only, never on n_tokens, the thread, the group range or its neighbours in the batch. Every
 * kernel adds in an order that is fixed by the row length (products), the absolute position (attention) or
 * the vector length (norms). Tests hold every entry to it, bit for bit.
 *
 * Shapes: T tokens, D embedding width, H query heads, K kv heads, S head size. */
#ifndef PRIMA_KERNELS_KERNELS_H
#define PRIMA_KERNELS_KERNELS_H
#include "kernels/pack.h"
#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* --- features ------------------------------------------------------------------------------ */
enum {
    CPU_AVX2 = 1u << 0,   /* AVX2 + FMA + F16C */
    CPU_AVX512 = 1u << 1, /* AVX512 F BW VL DQ VNNI, and CPU_AVX2 */
    CPU_NEON = 1u << 2,   /* Armv8.2 with dotprod and fp16 */
    /* Faster ways to the same bits, within the others: they are no instruction sets of their own. */
    CPU_AVXVNNI = 1u << 3, /* AVX-VNNI, and CPU_AVX2 */
    CPU_I8MM = 1u << 4,    /* Armv8.6 int8 matrix products, and CPU_NEON */
    CPU_AMX = 1u << 5,     /* AMX TILE and INT8, and CPU_AVX512 */
    CPU_WAYS = CPU_AVXVNNI | CPU_I8MM | CPU_AMX
};
/* What this CPU and OS allow. Where tiles are there, the process has asked for them when this returns. */
unsigned cpu_features(void);
/* Whether this CPU reads a stream of weights fastest when it is asked for shortly before its use, as Intel's
 * do; others want to be asked earlier (kernels/NOTES.md). Without effect on results. */
bool cpu_reads_near(void);
/* "ref" 0, "avx2", "avx512", "neon" -> mask, with what this CPU has of their faster ways; false for another
 * name. NULL means everything. */
bool cpu_isa_mask(const char *name, unsigned *mask);

/* --- activations --------------------------------------------------------------------------- */
/* How the input rows of a product are stored. Every row starts 64-byte aligned. */
typedef enum {
    ACT_F32,    /* floats as they are */
    ACT_Q8_256, /* blocks of 256: int8 with one f32 scale (amax/127), sums of each 16 and each 32: K-quants
                 * and their kin.
                 * A row whose length is no multiple of 256 has no such type. */
    ACT_Q8_32,  /* blocks of 32: int8 with one f32 scale, and the block's sum: Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 IQ4_NL
                 */
    ACT_COUNT
} act_kind;

/* Blocks as quantisers write and products read them (all instruction sets, same bits):
 * scale = amax/127, q = round-half-even(x * (127/amax)) clamped to +-127. amax < ACT_TINY counts as 0 and
 * gives all zeros (127/amax stays finite); a block with a NaN or an infinity gets scale NaN and zeros, so
 * that every product with it is NaN. (amax as the largest of the absolute values' bits, taken as integers,
 * does that.) */
#define ACT_TINY 0x1p-110f
typedef struct {
    int8_t q[256];
    int16_t sum16[16]; /* of q: |sum| <= 16 * 127 */
    int16_t sum32[8];  /* the same of pairs of them, for types whose scales cover 32 values */
    float d;
    float pad[3]; /* zeros */
} act_q8_256;     /* 320 bytes */
typedef struct {
    int8_t q[32];
    float d;
    int32_t sum;
} act_q8_32; /* 40 bytes */
static_assert(sizeof(act_q8_256) == 320 && sizeof(act_q8_32) == 40, "activation blocks");

/* Bytes of one activation row: an odd number of 64-byte lines, so that rows spread over all sets of an L1
 * cache. */
size_t act_row_bytes(act_kind kind, size_t n_cols);

/* --- products ------------------------------------------------------------------------------ */
typedef struct {
    uint32_t type;    /* of the weights */
    const void *pack; /* packed matrix, n_rows x n_cols (kernels/pack.h) */
    size_t n_rows, n_cols;
    const void *x; /* [n_tokens] activation rows of the kind matmul_act[type], x_stride bytes apart */
    size_t x_stride;
    size_t n_tokens;
    float *out;        /* out[t * out_stride + row], row < n_rows; out_stride >= n_rows rounded up to 16 */
    size_t out_stride; /* floats. Kernels may write the padding rows of the last group (zeros). */
    size_t next_group; /* of this pack, after the range: where the thread will probably go on, to be fetched
                        * ahead. 0: not known. Without effect on results. */
} matmul_args;

/* Rows of groups [first, end) for all tokens. `scratch` is MATMUL_SCRATCH(n_tokens) bytes, 64-byte aligned,
 * of this thread. */
typedef void (*matmul_fn)(const matmul_args *a, size_t group_first, size_t group_end, void *scratch);
#define MATMUL_SCRATCH(n_tokens) (65536 + (size_t)(n_tokens)*256)

/* --- attention ----------------------------------------------------------------------------- */
typedef enum { KV_F16, KV_Q8_0, KV_F32 } kv_type;
enum {
    KV_PAGE = 32,    /* tokens of a page */
    ATTN_SPAN = 512, /* keys of a span: online softmax page by page inside, spans combined in order */
    ATTN_QUERIES = 16
}; /* most queries of one call: what ATTN_SCRATCH is for */

/* One page of one kv head: K as [S][32] (one lane per token: scores need no sum across lanes), then V as
 * [32][S]. F32, F16: plain. Q8_0 (rounded as ACT_Q8_32): K int8 [S][32] then scales f32 [S/32][32] (per token
 * and 32 dims); V int8 [32][S] then scales f32 [32][S/32]. Q8_0 needs S % 32 == 0. K and V have the same S.
 */
size_t kv_page_bytes(kv_type t, size_t head_size);

/* Store k, v [S] of one token in slot 0..31 of a page. */
typedef void (*kv_put_fn)(kv_type t, void *page, size_t slot, const float *k, const float *v,
                          size_t head_size);

/* Queries of one sequence at consecutive positions against one kv head.
 * Query i has position pos + i and sees keys 0 .. pos + i. Scores q.k * scale; online softmax page by page
 * within spans of ATTN_SPAN keys aligned to absolute position, spans merged in order; so bits depend on the
 * position alone. */
typedef struct {
    kv_type type;
    size_t head_size;
    size_t n_group; /* query heads that share this kv head: H / K */
    float scale;
    const uint8_t *kv; /* page p of this head is at kv + page_stride * pages[p] */
    size_t page_stride;
    const int32_t *pages;        /* page table of the sequence */
    const float *q;              /* query i, head g of the group: q + i * q_stride + g * head_size */
    float *out;                  /* same indexing with out_stride */
    size_t q_stride, out_stride; /* floats */
    size_t n_queries;
    size_t pos; /* of query 0 */
} attn_args;
typedef void (*attn_fn)(const attn_args *a, void *scratch);
#define ATTN_SCRATCH(head_size, n_group) (65536 + (size_t)(head_size) * (n_group)*64)

/* --- the table ----------------------------------------------------------------------------- */
typedef struct {
    const char *isa;                       /* of the highest entry: ref, avx2, avx512, neon */
    matmul_fn matmul[Q_TYPE_COUNT];        /* never NULL for a known type */
    act_kind matmul_act[Q_TYPE_COUNT];     /* what it reads */
    const char *matmul_path[Q_TYPE_COUNT]; /* how it runs, for people: "avx512", "avx512 via 8-bit unpack",
                                              "ref f32" */
    void (*quantize[ACT_COUNT])(void *dst, const float *x, size_t n); /* one row; ACT_F32 copies */

    /* out may be x. sum of squares in f32 over 16 interleaved partial sums, combined in a fixed tree. */
    void (*rms_norm)(float *out, const float *x, const float *w, size_t n, float eps);
    /* Rotate n_heads heads of head_size in place; first n_rot dims. cs = [n_rot/2] pairs cos, sin of this
     * position. neox: pairs (i, i + n_rot/2); else pairs (2i, 2i + 1). */
    void (*rope)(float *x, size_t n_heads, size_t head_size, size_t n_rot, const float *cs, bool neox);
    void (*silu_mul)(float *gate, const float *up, size_t n); /* gate = silu(gate) * up */
    void (*add)(float *x, const float *y, size_t n);          /* x += y */
    kv_put_fn kv_put;
    attn_fn attention;
} kernel_table;

/* Fill the table: reference first, then overwritten by rising instruction set as far as `features` allows (0
 * = reference only: activations stay F32, products by dequantised rows in f32 with f64 sums). */
void kernels_init(kernel_table *k, unsigned features);

/* The definition of the 8-bit products in portable C, for the tests and for CPUs without a fast version: bits
 * equal to every instruction set's kernel. See kernels/ref/matmul_q8.c. `a->x` is of the kind
 * act_for_type(type). */
void matmul_q8_ref(const matmul_args *a, size_t group_first, size_t group_end, void *scratch);
act_kind act_for_type(uint32_t type);

#endif
