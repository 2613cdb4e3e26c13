/* F32, F16 and BF16 weights: acc = fma(w, x, acc) for rising k, one chain for each row and token, so the
 * order of adding is fixed and what is done in parallel are rows and tokens.
 *
 *   a group: for each k 16 weights side by side (32 or 64 bytes), lane = row
 *
 * Up to 4 groups x 6 tokens stay in 24 registers: for each k 4 loads of weights (and conversions), 6
 * broadcasts, 24 FMA, of which two a cycle are the limit. One token is bound by memory: two chains are enough
 * to wait for nothing else. The row is cut in parts of K_AT_ONCE so that four groups' weights stay in L2 for
 * all tokens; sums wait in scratch. */
#include "kernels/avx512/rows.h"
#include <string.h>

enum { FLOAT_GROUPS = 4, FLOAT_TOKENS = 6, K_AT_ONCE = 512 };

typedef struct {
    const uint8_t *w; /* of the first group, at the first k */
    size_t group_bytes, n_k;
    const uint8_t *x; /* of the first token, at the first k */
    size_t x_stride;
    float *acc;   /* [T][R][16] */
    size_t ahead; /* bytes from the weights in use to those asked for */
} part;

typedef void (*part_fn)(const part *p);

INLINE __m512 load_f32(const uint8_t *w)
{
    return _mm512_loadu_ps(w);
}
INLINE __m512 load_f16(const uint8_t *w)
{
    return load_f16_rows(w);
}
INLINE __m512 load_bf16(const uint8_t *w)
{
    __m512i v = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)w));
    return _mm512_castsi512_ps(_mm512_slli_epi32(v, 16));
}

/* R groups x T tokens; BYTES of one k of a group. */
#define ONE(TYPE, BYTES, R, T)                                                                               \
    static void TYPE##_##R##_##T(const part *p)                                                              \
    {                                                                                                        \
        const uint8_t *w = p->w, *x = p->x;                                                                  \
        __m512 acc[T][R];                                                                                    \
                                                                                                             \
        EACH(i, T *R) acc[i / R][i % R] = _mm512_load_ps(p->acc + i * PACK_ROWS);                            \
        for (size_t k = p->n_k; k--; w += BYTES, x += sizeof(float)) {                                       \
            __m512 v[R];                                                                                     \
            EACH(r, R)                                                                                       \
            {                                                                                                \
                v[r] = load_##TYPE(w + (size_t)r * p->group_bytes);                                          \
                _mm_prefetch((const char *)w + (size_t)r * p->group_bytes + p->ahead, _MM_HINT_T0);          \
            }                                                                                                \
            EACH(t, T)                                                                                       \
            {                                                                                                \
                __m512 xt = broadcast_f32(x + (size_t)t * p->x_stride);                                      \
                EACH(r, R) acc[t][r] = _mm512_fmadd_ps(v[r], xt, acc[t][r]);                                 \
            }                                                                                                \
        }                                                                                                    \
        EACH(i, T *R) _mm512_store_ps(p->acc + i * PACK_ROWS, acc[i / R][i % R]);                            \
    }
#define SIX(TYPE, BYTES, R)                                                                                  \
    ONE(TYPE, BYTES, R, 1)                                                                                   \
    ONE(TYPE, BYTES, R, 2)                                                                                   \
    ONE(TYPE, BYTES, R, 3)                                                                                   \
    ONE(TYPE, BYTES, R, 4)                                                                                   \
    ONE(TYPE, BYTES, R, 5)                                                                                   \
    ONE(TYPE, BYTES, R, 6)
#define NAMES(TYPE, R)                                                                                       \
    {                                                                                                        \
        TYPE##_##R##_1, TYPE##_##R##_2, TYPE##_##R##_3, TYPE##_##R##_4, TYPE##_##R##_5, TYPE##_##R##_6       \
    }
#define ALL(TYPE, BYTES)                                                                                     \
    SIX(TYPE, BYTES, 1)                                                                                      \
    SIX(TYPE, BYTES, 2)                                                                                      \
    SIX(TYPE, BYTES, 4)                                                                                      \
    static const part_fn TYPE##_parts[3][FLOAT_TOKENS] = {NAMES(TYPE, 1), NAMES(TYPE, 2), NAMES(TYPE, 4)};

ALL(f32, 64)
ALL(f16, 32)
ALL(bf16, 32)

/* R groups x all tokens: sums to acc, for each six tokens [T][R][16]. */
static void multiply(const matmul_args *a, const part_fn parts[3][FLOAT_TOKENS], size_t bytes,
                     const uint8_t *w, size_t R, float *acc)
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
            parts[R / 2][T - 1](&p);
        }
    }
}

void matmul_float_avx512(const matmul_args *a, size_t group_first, size_t group_end, void *scratch)
{
    const part_fn(*parts)[FLOAT_TOKENS] = a->type == Q_F32   ? f32_parts
                                          : a->type == Q_F16 ? f16_parts
                                                             : bf16_parts;
    size_t bytes = PACK_ROWS * quant_row_bytes(a->type, 1), most = a->n_tokens == 1 ? 2 : FLOAT_GROUPS, R;
    float *acc = scratch;

    for (size_t g = group_first; g < group_end; g += R) {
        R = group_end - g >= most ? most : group_end - g >= 2 ? 2 : 1;
        multiply(a, parts, bytes, (const uint8_t *)a->pack + g * a->n_cols * bytes, R, acc);
        for (size_t t = 0; t < a->n_tokens; t++) {
            memcpy(a->out + t * a->out_stride + g * PACK_ROWS, acc + t * R * PACK_ROWS,
                   R * PACK_ROWS * sizeof *acc);
        }
    }
}
