/* The emulated GPU finds mistakes: in kernels (wrong_kernels.h) and in how the runtime is used. What is right
 * runs in test_device.c. */
#include "tests/gpu/harness.h"
#include "tests/gpu/wrong_kernels.h"
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
