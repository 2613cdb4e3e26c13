/* F32, F16 and BF16 weights: acc = fma(w, x, acc) for rising k, one chain for each row and token, so the
 * order of adding is fixed and what is done in parallel are rows and tokens.
 *
 *   a group: for each k 16 weights side by side (32 or 64 bytes), lane = row, two registers of 8 rows
 *
 * One group x 6 tokens stay in 12 registers: for each k 2 loads of weights (and conversions), 6 broadcasts,
 * 12 FMA, of which two a cycle are the limit. One token or two take two groups: as many chains as hide behind
 * the reading of memory. The row is cut in parts of K_AT_ONCE so that a group's weights stay in L1 or L2 for
 * all tokens; sums wait in scratch. */
#include "kernels/avx2/rows.h"
#include <string.h>

enum { FLOAT_GROUPS = 2, FLOAT_TOKENS = 6, K_AT_ONCE = 512 };

typedef struct {
    const uint8_t *w; /* of the first group, at the first k */
    size_t group_bytes, n_k;
    const uint8_t *x; /* of the first token, at the first k */
    size_t x_stride;
    float *acc;   /* [T][R][16] */
    size_t ahead; /* bytes from the weights in use to those asked for */
} part;

typedef void (*part_fn)(const part *p);

INLINE __m256 load_f32(const uint8_t *w, int h)
{
    return _mm256_castsi256_ps(load_256(w + h * HALF));
}
INLINE __m256 load_f16(const uint8_t *w, int h)
{
    return load_f16_rows(w, h);
}
INLINE __m256 load_bf16(const uint8_t *w, int h)
{
    __m256i v = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(w + h * HALF_ROWS * 2)));
    return _mm256_castsi256_ps(_mm256_slli_epi32(v, 16));
}

/* R groups x T tokens; BYTES of one k of a group; index i = half of a group. */
#define ONE(TYPE, BYTES, R, T)                                                                               \
    static void TYPE##_##R##_##T(const part *p)                                                              \
    {                                                                                                        \
        enum { N = R * HALVES };                                                                             \
        const uint8_t *w = p->w, *x = p->x;                                                                  \
        __m256 acc[T][N];                                                                                    \
                                                                                                             \
        EACH(i, T *N) acc[i / N][i % N] = _mm256_loadu_ps(p->acc + i * HALF_ROWS);                           \
        for (size_t k = p->n_k; k--; w += BYTES, x += sizeof(float)) {                                       \
            __m256 v[N];                                                                                     \
            EACH(r, R)                                                                                       \
            {                                                                                                \
                v[2 * r] = load_##TYPE(w + (size_t)r * p->group_bytes, 0);                                   \
                v[2 * r + 1] = load_##TYPE(w + (size_t)r * p->group_bytes, 1);                               \
                _mm_prefetch((const char *)w + (size_t)r * p->group_bytes + p->ahead, _MM_HINT_T0);          \
            }                                                                                                \
            EACH(t, T)                                                                                       \
            {                                                                                                \
                __m256 xt = broadcast_f32(x + (size_t)t * p->x_stride);                                      \
                EACH(i, N) acc[t][i] = _mm256_fmadd_ps(v[i], xt, acc[t][i]);                                 \
            }                                                                                                \
        }                                                                                                    \
        EACH(i, T *N) _mm256_storeu_ps(p->acc + i * HALF_ROWS, acc[i / N][i % N]);                           \
    }
#define ALL(TYPE, BYTES)                                                                                     \
    ONE(TYPE, BYTES, 1, 1)                                                                                   \
    ONE(TYPE, BYTES, 1, 2)                                                                                   \
    ONE(TYPE, BYTES, 1, 3)                                                                                   \
    ONE(TYPE, BYTES, 1, 4)                                                                                   \
    ONE(TYPE, BYTES, 1, 5)                                                                                   \
    ONE(TYPE, BYTES, 1, 6)                                                                                   \
    ONE(TYPE, BYTES, 2, 1)                                                                                   \
    ONE(TYPE, BYTES, 2, 2)                                                                                   \
    static const part_fn TYPE##_parts[FLOAT_GROUPS][FLOAT_TOKENS] = {                                        \
        {TYPE##_1_1, TYPE##_1_2, TYPE##_1_3, TYPE##_1_4, TYPE##_1_5, TYPE##_1_6}, {TYPE##_2_1, TYPE##_2_2}};

ALL(f32, 64)
ALL(f16, 32)
ALL(bf16, 32)

/* R groups x all tokens: sums to acc, for each six tokens [T][R][16]. */
static void multiply(const matmul_args *a, const part_fn parts[FLOAT_TOKENS], size_t bytes, const uint8_t *w,
                     size_t R, float *acc)
{
    part p = {.group_bytes = a->n_cols * bytes, .x_stride = a->x_stride, .ahead = stream_ahead() / R};

    memset(acc, 0, a->n_tokens * R * PACK_ROWS * sizeof *acc);
    for (size_t k = 0; k < a->n_cols; k += p.n_k) {
        p.n_k = a->n_cols - k < K_AT_ONCE ? a->n_cols - k : K_AT_ONCE;
        p.w = w + k * bytes;
        for (size_t t = 0, T; t < a->n_tokens; t += T) {
            T = a->n_tokens - t < FLOAT_TOKENS ? a->n_tokens - t : FLOAT_TOKENS;
            p.x = (const uint8_t *)a->x + t * a->x_stride + k * sizeof(float);
            p.acc = acc + t * R * PACK_ROWS;
            parts[T - 1](&p);
        }
    }
}

void matmul_float_avx2(const matmul_args *a, size_t group_first, size_t group_end, void *scratch)
{
    const part_fn(*parts)[FLOAT_TOKENS] = a->type == Q_F32   ? f32_parts
                                          : a->type == Q_F16 ? f16_parts
                                                             : bf16_parts;
    size_t bytes = PACK_ROWS * quant_row_bytes(a->type, 1), R;
    float *acc = scratch;

    for (size_t g = group_first; g < group_end; g += R) {
        R = a->n_tokens <= 2 && group_end - g >= 2 ? 2 : 1;
        multiply(a, parts[R - 1], bytes, (const uint8_t *)a->pack + g * a->n_cols * bytes, R, acc);
        for (size_t t = 0; t < a->n_tokens; t++) {
            memcpy(a->out + t * a->out_stride + g * PACK_ROWS, acc + t * R * PACK_ROWS,
                   R * PACK_ROWS * sizeof *acc);
        }
    }
}
