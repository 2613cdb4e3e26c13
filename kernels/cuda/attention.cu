/* launch_attention: which tiles go to which of the two kernels. Both give the same bits (attention.cuh). */
#include "kernels/cuda/attention.cuh"
#include <assert.h>

cudaError_t launch_attention(const gpu_attention_args *a, cudaStream_t stream)
{
    assert(a->n_tiles && a->n_kv_heads && a->n_heads % a->n_kv_heads == 0);
    assert(a->head_size % 8 == 0 && a->head_size <= 256);
    assert(a->type == KV_F16 || (a->type == KV_Q8_0 && a->head_size % 32 == 0));
    assert(a->q_stride % 4 == 0 && a->out_stride % 4 == 0);
    assert(a->n_split <= a->n_tiles && (!a->n_split || a->n_spans));
    gpu_attention_args part = *a;
    cudaError_t e = cudaSuccess;

    part.n_tiles = a->n_split;
    if (part.n_tiles) e = attention_decode(&part, stream);
    part.step.tile += 4 * a->n_split;
    part.n_tiles = a->n_tiles - a->n_split;
    if (e == cudaSuccess && part.n_tiles) e = attention_prompt(&part, stream);
    return e;
}
