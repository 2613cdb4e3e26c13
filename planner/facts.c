/* Sums over model_facts. */
#include "planner/facts.h"
#include <string.h>

uint64_t facts_layer_bytes(const model_facts *f, uint32_t first, uint32_t end)
{
    uint64_t sum = 0;

    for (uint32_t il = first; il < end && il < f->n_layers; il++) sum += f->layer_bytes[il];
    return sum;
}

double facts_mean_layer_bytes(const model_facts *f)
{
    return f->n_layers ? (double)facts_layer_bytes(f, 0, f->n_layers) / f->n_layers : 0;
}

uint64_t facts_kv_token_bytes(const model_facts *f, const char *kv_type)
{
    uint64_t values = 2 * (uint64_t)f->n_kv_heads * f->head_size; /* of keys and of values */

    if (!strcmp(kv_type, "f16")) return values * 2;
    if (!strcmp(kv_type, "f32")) return values * 4;
    /* The runtime's pages (kernels/kernels.h) hold 32 values as int8 with one f32 scale; every head begins a
     * block. */
    if (!strcmp(kv_type, "q8_0")) return 2 * (uint64_t)f->n_kv_heads * ((f->head_size + 31) / 32) * 36;
    return 0;
}
