/* GPUs by way of the CUDA runtime, which is linked statically and looks for the driver when it is first
 * called: the program starts without one. */
#include "kernels/cuda/device.h"
#include "kernels/cuda/cuda_impl.h"
#include "kernels/cuda/shared.h"
#include <stdio.h>
#include <stdlib.h>

const char *gpu_support(void)
{
    static char text[256];

    snprintf(text, sizeof text, "CUDA %d.%d for %s", CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10,
             PRIMA_CUDA_ARCHS);
    return text;
}

bool gpu_is_built(void)
{
    return true;
}

int cuda_check(cudaError_t e, int gpu, const char *what, pr_err *err)
{
    const char *refusal = cuda_refusal(e);

    if (e == cudaSuccess) return PR_OK;
    if (refusal) return pr_fail(err, PR_ERESOURCE, "GPU %d: %s: %s", gpu, what, refusal);
    cudaGetLastError(); /* what can be forgotten is forgotten */
    return pr_fail(err, PR_ERESOURCE, "GPU %d: %s: %s (%s)", gpu, what, cudaGetErrorName(e),
                   cudaGetErrorString(e));
}

/* Why there is no GPU: CUDA has one error for a driver that is missing and one that is too old. */
static void say_why_none(cudaError_t e, pr_err *why)
{
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    int driver = 0;

    if (cudaDriverGetVersion(&driver) == cudaSuccess && !driver)
        pr_fail(why, PR_ERESOURCE, "no GPU found: no NVIDIA driver is installed");
    else if (e == cudaErrorInsufficientDriver)
        pr_fail(
            why, PR_ERESOURCE,
            "no GPU can be used: the NVIDIA driver supports CUDA %d.%d, this build needs %d.%d: update it",
            driver / 1000, driver % 1000 / 10, CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
    else if (e == cudaErrorNoDevice || e == cudaSuccess)
        pr_fail(why, PR_ERESOURCE, visible ? "no GPU found: CUDA_VISIBLE_DEVICES is '%s'" : "no GPU found",
                visible);
    else
        pr_fail(why, PR_ERESOURCE, "no GPU can be used: %s (%s)", cudaGetErrorName(e), cudaGetErrorString(e));
}

int gpu_count(pr_err *why)
{
    int n = 0;
    cudaError_t e;

    setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID", 0);
    e = cudaGetDeviceCount(&n);
    if (e == cudaSuccess && n > 0) return n;
    cudaGetLastError();
    say_why_none(e, why);
    return 0;
}

int gpu_describe(gpu_info *out, int gpu, pr_err *err)
{
    struct cudaDeviceProp p;
    size_t free_bytes, total_bytes;
    int rc, n = gpu_count(err);

    if (!n) return PR_ERESOURCE;
    if (gpu < 0 || gpu >= n)
        return pr_fail(err, PR_ERESOURCE, "GPU %d: this machine has GPUs 0 to %d", gpu, n - 1);
    if ((rc = cuda_check(cudaGetDeviceProperties(&p, gpu), gpu, "cudaGetDeviceProperties", err)) ||
        (rc = cuda_check(cudaSetDevice(gpu), gpu, "cudaSetDevice", err)) ||
        (rc = cuda_check(cudaMemGetInfo(&free_bytes, &total_bytes), gpu, "cudaMemGetInfo", err)))
        return rc;
    *out = (gpu_info){.vram_total_bytes = total_bytes,
                      .vram_free_bytes = free_bytes,
                      .capability = 10 * p.major + p.minor,
                      .n_sms = p.multiProcessorCount};
    snprintf(out->name, sizeof out->name, "%.*s", GPU_NAME_BYTES - 1, p.name);
    return PR_OK;
}
