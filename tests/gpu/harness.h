/* What the programs of tests/gpu share: memory of the GPU with guard zones around it, launches that are
 * checked, random numbers, comparison of bits. Plain C on the runtime's C interface: the same program runs on
 * a GPU and on the emulated one (tests/gpu/emulate). Everything here fails the running test by itself.
 *
 *   Test(norm, is_right)
 *   {
 *       need_gpu();
 *       float *x = vram_from(host_x, sizeof host_x), *y = vram_new(n * sizeof *y);
 *       run(launch_norm(y, x, n, test_stream()));
 *       vram_read(host_y, y, n * sizeof *y);
 *       expect_same_bits(host_y, expected, n, "norm");
 *   }
 *
 * Memory is never freed: a test is a process. */
#ifndef PRIMA_TESTS_GPU_HARNESS_H
#define PRIMA_TESTS_GPU_HARNESS_H
#include <criterion/criterion.h>
#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Skips the test where there is no GPU, with the reason. First thing in a test. */
void need_gpu(void);
/* Whether the GPU is the emulated one. */
bool is_emulated(void);
/* 10 x major + minor. */
int gpu_capability(void);
/* For all launches of the test. */
cudaStream_t test_stream(void);

/* --- memory: at multiples of 256, with guard zones on both sides ---------------------------------------- */
void *vram_new(size_t bytes); /* every byte 0xff: floats are NaN */
void *vram_from(const void *host, size_t bytes);
void vram_write(void *vram, const void *host, size_t bytes);
void vram_fill(void *vram, int byte, size_t bytes);
void vram_read(void *host, const void *vram, size_t bytes); /* waits for the stream */

/* A launch went well, so did the kernel, and nobody wrote into a guard zone. */
#define run(launch) run_checked(launch, #launch, __FILE__, __LINE__)
void run_checked(cudaError_t e, const char *what, const char *file, int line);

/* --- numbers: the same in every run -----------------------------------------------------------------------
 */
void random_seed(uint64_t seed);
uint32_t random_bits(void);
uint32_t random_below(uint32_t n); /* n > 0 */
float random_float(void);          /* even over [-1, 1) */
void random_floats(float *x, size_t n, float scale);
void random_bytes(void *p, size_t n);

/* The first place where they differ fails the test; NaN is NaN, whatever its bits. */
void expect_same_bits(const float *got, const float *expected, size_t n, const char *what);
/* |got - expected| <= relative * |expected| + absolute, everywhere; a NaN only where one is expected. */
void expect_close(const float *got, const float *expected, size_t n, float relative, float absolute,
                  const char *what);

#endif
