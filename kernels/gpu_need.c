/* How much memory the layers on a GPU take: counted in every build, with or without a GPU. */
#include "kernels/gpu_map.h"

int gpu_need(gpu_memory *out, const gpu_options *o, pr_err *err)
{
    gpu_map m;
    int rc = gpu_map_init(&m, o, err);

    if (rc) return rc;
    *out = m.bytes;
    gpu_map_clear(&m);
    return PR_OK;
}
