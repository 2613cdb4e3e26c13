/* The buffers and the work of probe.h, on one stream of its own. */
#include "kernels/cuda/probe.h"
#include "kernels/cuda/cuda_impl.h"
#include "kernels/cuda/device.h"
#include <assert.h>
#include <stdlib.h>

struct gpu_probe {
    int gpu, n_sms;
    cudaStream_t stream;
    char *device, *host;
    size_t device_bytes, host_bytes;
    uint64_t *sum; /* on the device */
};

static int probe_init(gpu_probe *p, pr_err *err)
{
    int rc = cuda_check(cudaSetDevice(p->gpu), p->gpu, "cudaSetDevice", err);

    if (!rc) rc = cuda_check(cudaStreamCreate(&p->stream), p->gpu, "cudaStreamCreate", err);
    if (!rc) rc = cuda_check(cudaMalloc((void **)&p->sum, sizeof *p->sum), p->gpu, "cudaMalloc", err);
    if (!rc && (rc = cuda_check(cudaMalloc((void **)&p->device, p->device_bytes), p->gpu, "cudaMalloc", err)))
        pr_wrap(err, "%zu bytes of VRAM", p->device_bytes);
    if (!rc &&
        (rc = cuda_check(cudaMallocHost((void **)&p->host, p->host_bytes), p->gpu, "cudaMallocHost", err)))
        pr_wrap(err, "%zu bytes of pinned memory", p->host_bytes);
    return rc;
}

int gpu_probe_open(gpu_probe **out, int gpu, size_t device_bytes, size_t host_bytes, pr_err *err)
{
    gpu_info info;
    gpu_probe *p;
    int rc = gpu_describe(&info, gpu, err);

    assert(device_bytes && host_bytes && device_bytes % 16 == 0 && host_bytes % 16 == 0);
    if (rc) return rc;
    if (!(p = calloc(1, sizeof *p))) return pr_fail(err, PR_ERESOURCE, "out of memory");
    *p = (gpu_probe){.gpu = gpu, .n_sms = info.n_sms, .device_bytes = device_bytes, .host_bytes = host_bytes};
    if ((rc = probe_init(p, err))) {
        gpu_probe_close(p);
        return rc;
    }
    *out = p;
    return PR_OK;
}

/* Nothing can be done about an error here: the runtime frees what is left when the process ends. */
void gpu_probe_close(gpu_probe *p)
{
    if (!p) return;
    cudaSetDevice(p->gpu);
    cudaFreeHost(p->host);
    cudaFree(p->device);
    cudaFree(p->sum);
    if (p->stream) cudaStreamDestroy(p->stream);
    free(p);
}

void *gpu_probe_host(gpu_probe *p)
{
    return p->host;
}

int gpu_probe_copy(gpu_probe *p, gpu_direction direction, size_t offset, size_t bytes, int n, pr_err *err)
{
    cudaError_t e = cudaSetDevice(p->gpu);

    assert(bytes <= p->host_bytes && offset <= p->device_bytes && bytes <= p->device_bytes - offset);
    for (int i = 0; i < n && e == cudaSuccess; i++)
        e = direction == GPU_FROM_HOST
                ? cudaMemcpyAsync(p->device + offset, p->host, bytes, cudaMemcpyHostToDevice, p->stream)
                : cudaMemcpyAsync(p->host, p->device + offset, bytes, cudaMemcpyDeviceToHost, p->stream);
    if (e == cudaSuccess) e = cudaStreamSynchronize(p->stream);
    return cuda_check(e, p->gpu, direction == GPU_FROM_HOST ? "a copy to it" : "a copy from it", err);
}

int gpu_probe_sum(gpu_probe *p, size_t bytes, int n, uint64_t *sum, pr_err *err)
{
    cudaError_t e = cudaSetDevice(p->gpu);

    assert(bytes <= p->device_bytes && bytes % 16 == 0);
    if (e == cudaSuccess) e = cudaMemsetAsync(p->sum, 0, sizeof *p->sum, p->stream);
    for (int i = 0; i < n && e == cudaSuccess; i++)
        e = launch_sum(p->sum, p->device, bytes, p->n_sms, p->stream);
    if (e == cudaSuccess) e = cudaMemcpyAsync(sum, p->sum, sizeof *sum, cudaMemcpyDeviceToHost, p->stream);
    if (e == cudaSuccess) e = cudaStreamSynchronize(p->stream);
    return cuda_check(e, p->gpu, "reading its memory", err);
}
