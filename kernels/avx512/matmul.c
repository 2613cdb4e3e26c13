/* The way of a product with quantised weights through a matrix: see rows.h. */
#include "kernels/avx512/rows.h"

enum {
    L2_SHARE = 512 * 1024,  /* bytes of activations that stay in L2 beside the weights of two groups */
    NEXT_MOST = 160 * 1024, /* bytes of two groups that come to L2 while two others are multiplied */
    TOKENS_LEAST = 16,      /* but no fewer tokens than this, which unpacking is shared by, and no more */
    TOKENS_MOST = 64
}; /* than this, whose sums (256 bytes each) stay in L1 */

static const rows_fn *const rows[Q_TYPE_COUNT] = {
    [Q_Q4_0] = rows_q4_0_avx512, [Q_Q4_1] = rows_q4_1_avx512,     [Q_Q5_0] = rows_q5_0_avx512,
    [Q_Q5_1] = rows_q5_1_avx512, [Q_Q8_0] = rows_q8_0_avx512,     [Q_Q2_K] = rows_q2_k_avx512,
    [Q_Q3_K] = rows_q3_k_avx512, [Q_Q4_K] = rows_q4_k_avx512,     [Q_Q5_K] = rows_q5_k_avx512,
    [Q_Q6_K] = rows_q6_k_avx512, [Q_IQ4_NL] = rows_iq4_nl_avx512, [Q_IQ4_XS] = rows_iq4_xs_avx512,
};

/* One token or two are bound by memory, which one stream of weights reads faster than two. */
static size_t groups_at_once(size_t n_tokens, size_t n_left)
{
    return n_tokens <= 2 || n_left < GROUPS ? 1 : GROUPS;
}

static size_t tokens_at_once(const matmul_args *a)
{
    size_t n = L2_SHARE / act_row_bytes(act_for_type(a->type), a->n_cols);
    return n < TOKENS_LEAST ? TOKENS_LEAST : n > TOKENS_MOST ? TOKENS_MOST : n;
}

/* What is to come to L2 while groups [g, g + R) are multiplied: the next R of the range, after its last those
 * where the caller goes on. */
static void set_next(rows_args *r, const matmul_args *a, size_t g, size_t group_end, size_t R, bool is_last)
{
    size_t first = g + R, end = group_end;

    if (first == group_end && is_last && a->next_group) {
        first = a->next_group;
        end = pack_groups(a->n_rows);
    }
    r->next = (const uint8_t *)a->pack + first * r->group_bytes;
    r->next_bytes = (end < first ? 0 : end - first < R ? end - first : R) * r->group_bytes;
}

/* (gcc would make memset of it, and that the instruction "rep stos", which takes as long as many products.)
 */
static void clear(float *acc, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        __m512 zero = _mm512_setzero_ps();
        __asm__("" : "+v"(zero));
        _mm512_store_ps(acc + i * PACK_ROWS, zero);
    }
}

/* acc[n_tokens][R][16] to their places. */
static void store_acc(float *out, size_t out_stride, const float *acc, size_t n_tokens, size_t R)
{
    for (size_t t = 0; t < n_tokens; t++) {
        for (size_t r = 0; r < R; r++, acc += PACK_ROWS) {
            _mm512_storeu_ps(out + t * out_stride + r * PACK_ROWS, _mm512_load_ps(acc));
        }
    }
}

void matmul_blocks_avx512(const matmul_args *a, size_t group_first, size_t group_end, void *scratch)
{
    const quant_type *type = quant_info(a->type);
    size_t n_at_once = tokens_at_once(a), n, R;
    rows_args r = {.n_blocks = a->n_cols / type->block_values, .x_stride = a->x_stride};

    r.group_bytes = r.n_blocks * PACK_ROWS * type->block_bytes;
    for (size_t first = 0; first < a->n_tokens; first += n) {
        n = a->n_tokens - first < n_at_once ? a->n_tokens - first : n_at_once;
        r.x = (const uint8_t *)a->x + first * a->x_stride;
        r.n_tokens = n;
        r.acc = scratch;
        r.sum = (int32_t *)scratch + n * GROUPS * PACK_ROWS;
        /* Blocks of 32 are bound by memory in another way: there it costs more than it brings. */
        bool by_pairs = n > 2 && type->block_values == 256 && GROUPS * r.group_bytes <= NEXT_MOST;

        for (size_t g = group_first; g < group_end; g += R) {
            R = groups_at_once(n, group_end - g);
            r.w = (const uint8_t *)a->pack + g * r.group_bytes;
            r.ahead = R == 1 ? stream_ahead() : by_pairs && g > group_first ? NEAR : AHEAD;
            if (by_pairs) set_next(&r, a, g, group_end, R, first + n == a->n_tokens);
            else r.next_bytes = 0;
            clear(r.acc, n * R);
            rows[a->type][R - 1](&r);
            store_acc(a->out + first * a->out_stride + g * PACK_ROWS, a->out_stride, r.acc, n, R);
        }
    }
}
