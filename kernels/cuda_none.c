/* The functions of kernels/cuda for a build without the CUDA toolkit: there is no GPU, and they say so. */
#include "kernels/cuda.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/probe.h"

const char *gpu_support(void)
{
    return "built without CUDA";
}

bool gpu_is_built(void)
{
    return false;
}

/* Returns PR_ERESOURCE, in words that fit in front of nothing else. */
static int none(pr_err *err)
{
    return pr_fail(err, PR_ERESOURCE, "this prima is built without CUDA");
}

int gpu_count(pr_err *why)
{
    none(why);
    return 0;
}

int gpu_describe(gpu_info *out, int gpu, pr_err *err)
{
    (void)out, (void)gpu;
    return none(err);
}

int gpu_probe_open(gpu_probe **out, int gpu, size_t device_bytes, size_t host_bytes, pr_err *err)
{
    (void)out, (void)gpu, (void)device_bytes, (void)host_bytes;
    return none(err);
}

void gpu_probe_close(gpu_probe *p)
{
    (void)p;
}

void *gpu_probe_host(gpu_probe *p)
{
    (void)p;
    return NULL;
}

int gpu_probe_copy(gpu_probe *p, gpu_direction direction, size_t offset, size_t bytes, int n, pr_err *err)
{
    (void)p, (void)direction, (void)offset, (void)bytes, (void)n;
    return none(err);
}

int gpu_probe_sum(gpu_probe *p, size_t bytes, int n, uint64_t *sum, pr_err *err)
{
    (void)p, (void)bytes, (void)n, (void)sum;
    return none(err);
}

int gpu_open(gpu_place **out, const gpu_options *o, pool *p, const char *label, pr_err *err)
{
    (void)out, (void)o, (void)p, (void)label;
    return none(err);
}

void gpu_close(gpu_place *g)
{
    (void)g;
}

int gpu_forward(gpu_place *g, size_t first, size_t n, const gpu_batch *b, float *hidden, pr_err *err)
{
    (void)g, (void)first, (void)n, (void)b, (void)hidden;
    return none(err);
}

int gpu_project(gpu_place *g, const float *hidden, const int32_t *rows, size_t n_rows, float *logits,
                size_t logits_stride, pr_err *err)
{
    (void)g, (void)hidden, (void)rows, (void)n_rows, (void)logits, (void)logits_stride;
    return none(err);
}

float *gpu_hidden(gpu_place *g)
{
    (void)g;
    return NULL;
}

double gpu_busy_ms(const gpu_place *g)
{
    (void)g;
    return 0;
}

bool gpu_is_lost(const gpu_place *g)
{
    (void)g;
    return false;
}

gpu_memory gpu_taken(const gpu_place *g)
{
    (void)g;
    return (gpu_memory){0};
}
