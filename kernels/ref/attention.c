/* Attention of one kv head in double: softmax(q.k * scale) over all keys up to the query's position, times V.
 *
 * Plain and obvious: the scores are computed twice (largest first, then weights), so that nothing has to be
 * kept or rescaled. Pages only say where a key lies; spans are a matter of rounding, of which there is next
 * to none here. */
#include "kernels/ref/kv.h"
#include "kernels/ref/ref.h"
#include <math.h>

static const uint8_t *page_of(const attn_args *a, size_t key)
{
    return a->kv + a->page_stride * (size_t)a->pages[key / KV_PAGE];
}

static double score(const attn_args *a, const float *q, size_t key)
{
    const uint8_t *page = page_of(a, key);
    double dot = 0;

    for (size_t i = 0; i < a->head_size; i++) {
        dot += (double)q[i] * kv_key(a->type, page, key % KV_PAGE, i, a->head_size);
    }
    return dot * a->scale;
}

static void one_head(const attn_args *a, const float *q, size_t n_keys, float *out, double *sum)
{
    double largest = -INFINITY, total = 0;

    for (size_t key = 0; key < n_keys; key++) {
        double s = score(a, q, key);
        if (s > largest) largest = s;
    }
    for (size_t i = 0; i < a->head_size; i++) sum[i] = 0;
    for (size_t key = 0; key < n_keys; key++) {
        const uint8_t *page = page_of(a, key);
        double weight = exp(score(a, q, key) - largest);

        total += weight;
        for (size_t i = 0; i < a->head_size; i++) {
            sum[i] += weight * kv_value(a->type, page, key % KV_PAGE, i, a->head_size);
        }
    }
    for (size_t i = 0; i < a->head_size; i++) out[i] = (float)(sum[i] / total);
}

void attention_ref(const attn_args *a, void *scratch)
{
    for (size_t i = 0; i < a->n_queries; i++) {
        for (size_t g = 0; g < a->n_group; g++) {
            one_head(a, a->q + i * a->q_stride + g * a->head_size, a->pos + i + 1,
                     a->out + i * a->out_stride + g * a->head_size, scratch);
        }
    }
}
