/* GPUs: what every machine can say, and, where there is one, that its sums and copies are right. Speed is
 * looked at in tests/cmd/test_probe_gpu.c. One process a test, so a test takes one context. */
#include "kernels/cuda/device.h"
#include "kernels/cuda/probe.h"
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

TestSuite(gpu, .timeout = 120);

static pr_err err;

static int need_gpu(void)
{
    pr_err why = {0};
    int n = gpu_count(&why);

    if (!n) cr_skip_test("%s", why.msg);
    return n;
}

/* The build's define and the code that was chosen belong together. */
Test(gpu, support_says_what_was_built)
{
#ifdef PRIMA_CUDA
    cr_expect_eq(strncmp(gpu_support(), "CUDA ", 5), 0, "%s", gpu_support());
    cr_expect(strstr(gpu_support(), " sm_") || strstr(gpu_support(), "emulated GPU"), "%s", gpu_support());
#else
    cr_expect_str_eq(gpu_support(), "built without CUDA");
#endif
}

/* With a driver and without one: a GPU that is not there is refused in words, and nothing else happens. */
Test(gpu, one_that_is_not_there)
{
    pr_err why = {0};
    int n = gpu_count(&why);
    gpu_info info;
    gpu_probe *p = NULL;

    cr_expect_eq(n, gpu_count(NULL));
    cr_expect_eq(!n, !!why.msg[0], "%d GPUs: %s", n, why.msg);
    for (int gpu = -1; gpu <= n; gpu += n + 1) {
        err = (pr_err){0};
        cr_expect_eq(gpu_describe(&info, gpu, &err), PR_ERESOURCE);
        cr_expect_not_null(strstr(err.msg, n ? "GPU" : why.msg), "%s", err.msg);
        err = (pr_err){0};
        cr_expect_eq(gpu_probe_open(&p, gpu, 16, 16, &err), PR_ERESOURCE);
        cr_expect_gt(strlen(err.msg), 0u);
        cr_expect_null(p);
    }
    gpu_probe_close(NULL);
}

/* The runtime sees no GPU when it is told so, whatever is there. */
Test(gpu, none_visible)
{
    pr_err why = {0};

    setenv("CUDA_VISIBLE_DEVICES", "", 1);
    cr_expect_eq(gpu_count(&why), 0);
    cr_expect(strstr(why.msg, "no GPU found") || strstr(why.msg, "without CUDA"), "%s", why.msg);
}

Test(gpu, facts)
{
    int n = need_gpu();

    for (int i = 0; i < n; i++) {
        gpu_info info;
        cr_assert_eq(gpu_describe(&info, i, &err), PR_OK, "%s", err.msg);
        cr_expect_gt(strlen(info.name), 0u);
        cr_expect_gt(info.vram_free_bytes, 0u);
        cr_expect_leq(info.vram_free_bytes, info.vram_total_bytes);
        cr_expect_geq(info.capability, 50);
        cr_expect(info.n_sms > 0 && info.n_sms < 1000);
    }
}

/* --- with a GPU: sums and copies ----------------------------------------------------------------------- */
enum { HOST_BYTES = 1 << 20, DEVICE_CHUNKS = 37, SUM_CASES = 6 };

/* Word i of everything: no two chunks are the same, and a word that is left out or read twice is missed. */
static uint64_t word(uint64_t i)
{
    uint64_t x = (i + 1) * 0x9e3779b97f4a7c15u;
    return x ^ x >> 29;
}

static uint64_t cpu_sum(size_t bytes)
{
    uint64_t sum = 0;

    for (uint64_t i = 0; i < bytes / 8; i++) sum += word(i);
    return sum;
}

static void open_filled(gpu_probe **p, int gpu)
{
    uint64_t *host;

    cr_assert_eq(gpu_probe_open(p, gpu, (size_t)DEVICE_CHUNKS * HOST_BYTES, HOST_BYTES, &err), PR_OK, "%s",
                 err.msg);
    host = gpu_probe_host(*p);
    for (size_t chunk = 0; chunk < DEVICE_CHUNKS; chunk++) {
        for (size_t i = 0; i < HOST_BYTES / 8; i++) host[i] = word(chunk * (HOST_BYTES / 8) + i);
        cr_assert_eq(gpu_probe_copy(*p, GPU_FROM_HOST, chunk * HOST_BYTES, HOST_BYTES, 1, &err), PR_OK, "%s",
                     err.msg);
    }
}

/* From less than a warp's share to more than one round of the grid, none of them a round number. */
Test(gpu, sums)
{
    static const size_t bytes[SUM_CASES] = {16,      48,       16 * 257,
                                            1000000, 20000016, (size_t)DEVICE_CHUNKS * HOST_BYTES};
    int n = need_gpu();

    for (int gpu = 0; gpu < n; gpu++) {
        gpu_probe *p;
        open_filled(&p, gpu);
        for (int i = 0; i < SUM_CASES; i++) {
            uint64_t expected = cpu_sum(bytes[i]), sum = 1;
            cr_assert_eq(gpu_probe_sum(p, bytes[i], 1, &sum, &err), PR_OK, "%s", err.msg);
            cr_expect_eq(sum, expected, "GPU %d, %zu bytes", gpu, bytes[i]);
            cr_assert_eq(gpu_probe_sum(p, bytes[i], 3, &sum, &err), PR_OK, "%s", err.msg);
            cr_expect_eq(sum, 3 * expected, "GPU %d, %zu bytes three times", gpu, bytes[i]);
        }
        gpu_probe_close(p);
    }
}

/* What was copied to an offset comes back from it, and its neighbours are as they were. */
Test(gpu, copies)
{
    int n = need_gpu();

    for (int gpu = 0; gpu < n; gpu++) {
        const size_t offset = 5 * HOST_BYTES + 24, bytes = 1000;
        gpu_probe *p;
        char *host;
        open_filled(&p, gpu);
        host = gpu_probe_host(p);
        memset(host, 0xa5, HOST_BYTES);
        cr_assert_eq(gpu_probe_copy(p, GPU_FROM_HOST, offset, bytes, 2, &err), PR_OK, "%s", err.msg);
        memset(host, 0, HOST_BYTES);
        cr_assert_eq(gpu_probe_copy(p, GPU_TO_HOST, offset - 24, bytes + 48, 2, &err), PR_OK, "%s", err.msg);
        for (size_t i = 0; i < bytes + 48; i++) {
            uint64_t w = word((offset - 24 + i) / 8);
            unsigned char before = (unsigned char)(w >> 8 * ((offset - 24 + i) % 8)),
                          now = (unsigned char)host[i];
            bool inside = i >= 24 && i < bytes + 24;
            cr_assert_eq(now, inside ? 0xa5 : before, "GPU %d, byte %zu", gpu, i);
        }
        cr_expect_eq(host[bytes + 48], 0, "more was copied than asked for");
        gpu_probe_close(p);
    }
}
