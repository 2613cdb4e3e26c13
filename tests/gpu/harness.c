/* Guard zones and checks for tests of GPU code (harness.h). */
#include "tests/gpu/harness.h"
#include "kernels/cuda/device.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* AddressSanitizer has guards of its own, of single bytes. */
#ifdef __SANITIZE_ADDRESS__
enum { GUARD_BYTES = 0 };
#else
enum { GUARD_BYTES = 1024 };
#endif
enum { GUARD_VALUE = 0xa5, MAX_BLOCKS = 1024 };

static struct {
    char *p;
    size_t bytes;
} block[MAX_BLOCKS];
static size_t n_blocks;
static cudaStream_t stream;

static void must(cudaError_t e, const char *what)
{
    cr_assert_eq(e, cudaSuccess, "%s: %s (%s)", what, cudaGetErrorName(e), cudaGetErrorString(e));
}

void need_gpu(void)
{
    pr_err why = {0};

    if (!gpu_count(&why)) cr_skip_test("%s", why.msg);
    must(cudaSetDevice(0), "cudaSetDevice");
    must(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
}

bool is_emulated(void)
{
#ifdef PRIMA_EMULATED_GPU
    return true;
#else
    return false;
#endif
}

int gpu_capability(void)
{
    struct cudaDeviceProp p;

    must(cudaGetDeviceProperties(&p, 0), "cudaGetDeviceProperties");
    return 10 * p.major + p.minor;
}

cudaStream_t test_stream(void)
{
    return stream;
}

/* --- memory ----------------------------------------------------------------------------------------------
 */
void *vram_new(size_t bytes)
{
    void *p;

    cr_assert_lt(n_blocks, MAX_BLOCKS);
    must(cudaMalloc(&p, bytes + 2 * GUARD_BYTES), "cudaMalloc");
    block[n_blocks].p = p;
    block[n_blocks++].bytes = bytes;
    must(cudaMemset(p, GUARD_VALUE, bytes + 2 * GUARD_BYTES), "cudaMemset");
    must(cudaMemset((char *)p + GUARD_BYTES, 0xff, bytes), "cudaMemset");
    must(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    return (char *)p + GUARD_BYTES;
}

void *vram_from(const void *host, size_t bytes)
{
    void *p = vram_new(bytes);

    vram_write(p, host, bytes);
    return p;
}

void vram_write(void *vram, const void *host, size_t bytes)
{
    must(cudaMemcpyAsync(vram, host, bytes, cudaMemcpyHostToDevice, stream), "a copy to the GPU");
    must(cudaStreamSynchronize(stream), "a copy to the GPU");
}

void vram_fill(void *vram, int byte, size_t bytes)
{
    must(cudaMemsetAsync(vram, byte, bytes, stream), "cudaMemsetAsync");
    must(cudaStreamSynchronize(stream), "cudaMemsetAsync");
}

void vram_read(void *host, const void *vram, size_t bytes)
{
    must(cudaMemcpyAsync(host, vram, bytes, cudaMemcpyDeviceToHost, stream), "a copy from the GPU");
    must(cudaStreamSynchronize(stream), "a copy from the GPU");
}

static void check_guard(size_t i, const char *place, const char *p, const char *what, const char *file,
                        int line)
{
    unsigned char seen[GUARD_BYTES + 1];

    vram_read(seen, p, GUARD_BYTES);
    for (size_t k = 0; k < GUARD_BYTES; k++)
        cr_assert_eq(seen[k], GUARD_VALUE, "%s:%d: %s: wrote %s memory %zu (of %zu bytes), at byte %zu of %d",
                     file, line, what, place, i, block[i].bytes, k, GUARD_BYTES);
}

void run_checked(cudaError_t e, const char *what, const char *file, int line)
{
    cr_assert_eq(e, cudaSuccess, "%s:%d: %s: %s (%s)", file, line, what, cudaGetErrorName(e),
                 cudaGetErrorString(e));
    e = cudaStreamSynchronize(stream);
    if (e == cudaSuccess) e = cudaGetLastError();
    cr_assert_eq(e, cudaSuccess, "%s:%d: the kernel of %s: %s (%s)", file, line, what, cudaGetErrorName(e),
                 cudaGetErrorString(e));
    for (size_t i = 0; i < n_blocks && GUARD_BYTES; i++) {
        check_guard(i, "in front of", block[i].p, what, file, line);
        check_guard(i, "behind", block[i].p + GUARD_BYTES + block[i].bytes, what, file, line);
    }
}

/* --- numbers ---------------------------------------------------------------------------------------------
 */
static uint64_t state = 1;

void random_seed(uint64_t seed)
{
    state = seed;
}

/* splitmix64, its upper half */
uint32_t random_bits(void)
{
    uint64_t z = state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ z >> 31) >> 32);
}

uint32_t random_below(uint32_t n)
{
    return (uint32_t)((uint64_t)random_bits() * n >> 32);
}

float random_float(void)
{
    return (float)(int32_t)(random_bits() & 0xffffff00u) * 0x1p-31f;
}

void random_floats(float *x, size_t n, float scale)
{
    for (size_t i = 0; i < n; i++) x[i] = scale * random_float();
}

void random_bytes(void *p, size_t n)
{
    for (size_t i = 0; i < n; i++) ((unsigned char *)p)[i] = (unsigned char)random_bits();
}

static uint32_t bits(float f)
{
    uint32_t u;

    memcpy(&u, &f, sizeof u);
    return u;
}

void expect_same_bits(const float *got, const float *expected, size_t n, const char *what)
{
    for (size_t i = 0; i < n; i++) {
        if (isnan(got[i]) && isnan(expected[i])) continue;
        cr_assert_eq(bits(got[i]), bits(expected[i]),
                     "%s: value %zu of %zu is %.9g (%08x), expected %.9g (%08x)", what, i, n, (double)got[i],
                     bits(got[i]), (double)expected[i], bits(expected[i]));
    }
}

void expect_close(const float *got, const float *expected, size_t n, float relative, float absolute,
                  const char *what)
{
    for (size_t i = 0; i < n; i++) {
        if (isnan(got[i]) && isnan(expected[i])) continue;
        cr_assert(fabsf(got[i] - expected[i]) <= relative * fabsf(expected[i]) + absolute,
                  "%s: value %zu of %zu is %.9g, expected %.9g", what, i, n, (double)got[i],
                  (double)expected[i]);
    }
}
