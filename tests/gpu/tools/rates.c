/* Rates of GPU 0 by the probe of kernels/cuda, for tests/gpu/run: a line of Markdown. */
#include "kernels/cuda/device.h"
#include "kernels/cuda/probe.h"
#include <stdio.h>
#include <time.h>

enum { PASSES = 20 };

static double now_s(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Bytes per second of PASSES passes, after one that nobody times; negative: failed. */
static double reading(gpu_probe *p, size_t bytes, pr_err *err)
{
    uint64_t sum;
    double start;

    if (gpu_probe_sum(p, bytes, 1, &sum, err)) return -1;
    start = now_s();
    if (gpu_probe_sum(p, bytes, PASSES, &sum, err)) return -1;
    return (double)bytes * PASSES / (now_s() - start);
}

static double copying(gpu_probe *p, gpu_direction direction, size_t bytes, pr_err *err)
{
    double start;

    if (gpu_probe_copy(p, direction, 0, bytes, 1, err)) return -1;
    start = now_s();
    if (gpu_probe_copy(p, direction, 0, bytes, PASSES, err)) return -1;
    return (double)bytes * PASSES / (now_s() - start);
}

int main(void)
{
    const size_t host_bytes = 64 << 20;
    size_t device_bytes = (size_t)4 << 30;
    gpu_info info;
    gpu_probe *p;
    pr_err err = {0};

    if (gpu_describe(&info, 0, &err)) goto failed;
    if (device_bytes > info.vram_free_bytes / 2) device_bytes = info.vram_free_bytes / 2 / 4096 * 4096;
    if (info.n_sms < 8) device_bytes = host_bytes; /* the emulated one */
    if (gpu_probe_open(&p, 0, device_bytes, host_bytes, &err)) goto failed;
    double read = reading(p, device_bytes, &err), in = copying(p, GPU_FROM_HOST, host_bytes, &err),
           out = copying(p, GPU_TO_HOST, host_bytes, &err);
    gpu_probe_close(p);
    if (read < 0 || in < 0 || out < 0) goto failed;
    printf("%.1f GB/s read from VRAM, %.1f GB/s to the GPU, %.1f GB/s from it (pinned memory)\n", read / 1e9,
           in / 1e9, out / 1e9);
    return 0;
failed:
    fprintf(stderr, "rates: %s\n", err.msg);
    return 1;
}
