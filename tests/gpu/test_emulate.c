/* The emulated GPU finds mistakes: in kernels (wrong_kernels.h) and in how the runtime is used. What is right
 * runs in test_device.c. */
#include "kernels/cuda/cuda_impl.h"
#include "tests/gpu/harness.h"
#include "tests/gpu/wrong_kernels.h"
#include <criterion/parameterized.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

TestSuite(emulate, .timeout = 60);

#ifndef PRIMA_EMULATED_GPU

Test(emulate, only_there)
{
    cr_skip_test("this GPU is no emulated one");
}

#else

static void must(cudaError_t e)
{
    cr_assert_eq(e, cudaSuccess, "%s", cudaGetErrorName(e));
}

/* Whether a kernel gave the right result with this seed. */
static bool is_right(wrong_kind kind, int seed)
{
    uint32_t in[WRONG_THREADS], out[WRONG_THREADS];
    char text[16];

    snprintf(text, sizeof text, "%d", seed);
    setenv("PRIMA_EMULATE_SEED", text, 1);
    for (int i = 0; i < WRONG_THREADS; i++) in[i] = (uint32_t)(1000 + i);
    void *v = vram_new(sizeof out);
    run(launch_wrong(kind, v, vram_from(in, sizeof in), test_stream()));
    vram_read(out, v, sizeof out);
    for (int i = 0; i < WRONG_THREADS; i++) {
        if (out[i] != in[WRONG_THREADS - 1 - i]) return false;
    }
    return true;
}

Test(emulate, missing_synchronisation_shows)
{
    need_gpu();
    for (int kind = 0; kind < WRONG_HALF_A_WARP; kind++) {
        for (int seed = 0; seed < 8; seed++)
            cr_assert_not(is_right((wrong_kind)kind, seed), "mistake %d did not show with seed %d", kind,
                          seed);
    }
    for (int seed = 0; seed < 8; seed++) cr_assert(is_right(WRONG_NONE, seed), "seed %d", seed);
}

static void try_wrong(wrong_kind kind)
{
    uint32_t in[WRONG_THREADS] = {0};

    need_gpu();
    run(launch_wrong(kind, vram_new(sizeof in), vram_from(in, sizeof in), test_stream()));
}

#define ENDS(kind, name)                                                                                     \
    Test(emulate, name, .signal = SIGABRT)                                                                   \
    {                                                                                                        \
        try_wrong(kind);                                                                                     \
    }
ENDS(WRONG_HALF_A_WARP, half_a_warp_shuffles)
ENDS(WRONG_TWO_FUNCTIONS, lanes_in_different_functions)
ENDS(WRONG_THREAD_LEFT, a_thread_left_before_block_sync)
ENDS(WRONG_LOAD_PLACE, load_of_16_bytes_not_aligned)
ENDS(WRONG_COPY_PLACE, copy_of_16_bytes_not_aligned)
ENDS(WRONG_COPY_TARGET, asynchronous_copy_to_no_shared_memory)
ENDS(WRONG_NO_DYNAMIC_MEMORY, no_dynamic_memory_was_asked_for)

Test(emulate, not_whole_warps_shuffle, .signal = SIGABRT)
{
    need_gpu();
    run(launch_wrong_block(40, vram_new(160), test_stream()));
}

Test(emulate, memory_of_the_host_is_no_argument, .signal = SIGABRT)
{
    static uint32_t host[WRONG_THREADS];

    need_gpu();
    run(launch_wrong(WRONG_NONE, vram_new(sizeof host), host, test_stream()));
}

/* --- the runtime ------------------------------------------------------------------------------------------
 */
Test(emulate, what_is_asynchronous_runs_late)
{
    uint32_t *host;

    need_gpu();
    must(cudaMallocHost((void **)&host, 8));
    uint32_t *v = vram_new(4), got = 0;
    host[0] = 1;
    must(cudaMemcpyAsync(v, host, 4, cudaMemcpyHostToDevice, test_stream()));
    host[0] = 2; /* too early */
    must(cudaMemcpyAsync(&got, v, 4, cudaMemcpyDeviceToHost, test_stream()));
    cr_assert_eq(got, 0u, "there before anybody waited");
    must(cudaStreamSynchronize(test_stream()));
    cr_assert_eq(got, 2u);
    must(cudaFreeHost(host));
}

Test(emulate, copies_out_of_range_or_the_wrong_way)
{
    uint32_t host[8] = {0};
    void *p;

    need_gpu();
    must(cudaMalloc(&p, 16));
    cr_assert_eq(cudaMemcpy(p, host, 16, cudaMemcpyHostToDevice), cudaSuccess);
    cr_assert_eq(cudaMemcpy(p, host, 17, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
    cr_assert_eq(cudaMemcpy((char *)p + 4, host, 16, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
    cr_assert_eq(cudaMemcpy(host, p, 16, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
    cr_assert_eq(cudaMemset(p, 0, 17), cudaErrorInvalidValue);
    cr_assert_eq(cudaFree((char *)p + 1), cudaErrorInvalidValue);
    must(cudaFree(p));
    cr_assert_eq(cudaFree(p), cudaErrorInvalidValue);
}

Test(emulate, memory_ends_and_failures_come_when_told)
{
    void *p, *q, *r = NULL;
    size_t free_bytes, total_bytes;

    need_gpu();
    setenv("PRIMA_EMULATE_VRAM", "1000000", 1);
    must(cudaMalloc(&p, 600000));
    cr_assert_eq(cudaMalloc(&q, 400001), cudaErrorMemoryAllocation);
    must(cudaMalloc(&q, 400000));
    must(cudaMemGetInfo(&free_bytes, &total_bytes));
    cr_assert(free_bytes == 0 && total_bytes == 1000000);
    must(cudaFree(p));
    must(cudaFree(q));
    setenv("PRIMA_EMULATE_FAIL", "cudaMalloc:2", 1);
    must(cudaMalloc(&p, 16));
    must(cudaMallocHost(&q, 16));
    cr_assert_eq(cudaMalloc(&r, 16), cudaErrorMemoryAllocation);
    cr_assert_null(r);
    must(cudaMalloc(&r, 16));
    must(cudaFree(p));
    must(cudaFreeHost(q));
    setenv("PRIMA_EMULATE_FAIL", "cudaLaunchKernel:1", 1);
    cr_assert_eq(launch_wrong_block(32, r, test_stream()), cudaErrorUnknown);
    setenv("PRIMA_EMULATE_FAIL", "any:2", 1);
    must(cudaSetDevice(0));
    cr_assert_eq(cudaSetDevice(0), cudaErrorUnknown);
    must(cudaFree(r));
}

/* --- shared memory ----------------------------------------------------------------------------------------
 */
/* Static arrays count: 24 + 23 and 24 + 30 KiB, of which only the first may be had without asking. */
Test(emulate, static_and_dynamic_shared_memory_add_up)
{
    uint32_t in[WRONG_THREADS], out[WRONG_THREADS];
    static const size_t dynamic_kib[] = {23, 30, 200, 24};

    need_gpu();
    for (uint32_t i = 0; i < WRONG_THREADS; i++) in[i] = 7 * i;
    for (size_t k = 0; k < sizeof dynamic_kib / sizeof *dynamic_kib; k++) {
        uint32_t *v = vram_new(sizeof out);
        must(launch_large_block(dynamic_kib[k] << 10, v, vram_from(in, sizeof in), test_stream()));
        vram_read(out, v, sizeof out);
        for (int i = 0; i < WRONG_THREADS; i++) cr_assert_eq(out[i], in[WRONG_THREADS - 1 - i]);
    }
}

/* A card with less than a kernel takes: refused by name, with both numbers. */
struct card {
    size_t card_bytes, dynamic_bytes;
    bool fits;
};
ParameterizedTestParameters(emulate, shared_memory_that_a_card_lacks_is_refused_by_name)
{
    static struct card cards[] = {{64 << 10, (64 << 10) - WRONG_STATIC_BYTES, true},
                                  {64 << 10, (64 << 10) - WRONG_STATIC_BYTES + 16, false},
                                  {40000, 16 << 10, false},
                                  {20000, 1024, false}};
    return cr_make_param_array(struct card, cards, sizeof cards / sizeof *cards);
}
ParameterizedTest(struct card *x, emulate, shared_memory_that_a_card_lacks_is_refused_by_name)
{
    char card[32], need[32];
    pr_err err = {0};
    cudaError_t e;
    uint32_t *v;

    need_gpu();
    snprintf(card, sizeof card, "%zu", x->card_bytes);
    snprintf(need, sizeof need, " %zu bytes", WRONG_STATIC_BYTES + x->dynamic_bytes);
    setenv("PRIMA_EMULATE_SHARED", card, 1);
    v = vram_from((uint32_t[WRONG_THREADS]){0}, WRONG_THREADS * sizeof *v);
    e = launch_large_block(x->dynamic_bytes, v, v, test_stream());
    if (x->fits) {
        must(e);
        return;
    }
    cr_assert_eq(e, cudaErrorLaunchOutOfResources, "%s", cudaGetErrorName(e));
    cr_assert_eq(cuda_check(e, 3, "computing", &err), PR_ERESOURCE);
    cr_expect(strstr(err.msg, "GPU 3: computing") && strstr(err.msg, "large_block") &&
                  strstr(err.msg, need) && strstr(err.msg, card),
              "%s", err.msg);
}

Test(emulate, waiting_does_not_go_into_a_graph)
{
    cudaGraph_t g;
    void *p;

    need_gpu();
    must(cudaStreamBeginCapture(test_stream(), cudaStreamCaptureModeThreadLocal));
    cr_assert_neq(cudaStreamSynchronize(test_stream()), cudaSuccess);
    cr_assert_eq(cudaStreamEndCapture(test_stream(), &g), cudaErrorStreamCaptureInvalidated);
    must(cudaStreamBeginCapture(test_stream(), cudaStreamCaptureModeThreadLocal));
    cr_assert_neq(cudaMalloc(&p, 16), cudaSuccess);
    cr_assert_eq(cudaStreamEndCapture(test_stream(), &g), cudaErrorStreamCaptureInvalidated);
    cr_assert_eq(cudaStreamEndCapture(test_stream(), &g), cudaErrorIllegalState);
}

Test(emulate, blocks_that_no_gpu_runs)
{
    need_gpu();
    uint32_t *v = vram_new(8192);
    cr_assert_eq(launch_wrong_block(0, v, test_stream()), cudaErrorInvalidConfiguration);
    cr_assert_eq(launch_wrong_block(1025, v, test_stream()), cudaErrorInvalidConfiguration);
    must(launch_wrong_block(1024, v, test_stream()));
}

#endif
