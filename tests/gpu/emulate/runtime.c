/* Devices, memory and errors of the emulated runtime. */
#include "tests/gpu/emulate/emulate.h"
#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n)   ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

enum { MAX_GPUS = 16, MAX_KERNELS = 256, ALIGN = 256 };

typedef struct {
    char *p;
    size_t bytes;
    int gpu; /* -1: pinned memory of the host */
} allocation;

static allocation *allocations;
static size_t n_allocations, max_allocations;
static size_t taken_bytes[MAX_GPUS], peak_bytes[MAX_GPUS], pinned_bytes, pinned_peak_bytes;
static __thread int current_gpu;
static __thread cudaError_t last_error, failure;
static int n_running; /* nested emu_vram_begin */
static pthread_mutex_t lock;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* --- errors -------------------------------------------------------------------------------------------- */
static const struct {
    cudaError_t e;
    const char *name, *words;
} error_names[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInitializationError, "cudaErrorInitializationError", "initialization error"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
    {cudaErrorInvalidMemcpyDirection, "cudaErrorInvalidMemcpyDirection", "invalid copy direction for memcpy"},
    {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver", "CUDA driver version is insufficient"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorIllegalState, "cudaErrorIllegalState",
     "the operation cannot be performed in the present state"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorLaunchOutOfResources, "cudaErrorLaunchOutOfResources",
     "too many resources requested for launch"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported",
     "operation not permitted when stream is capturing"},
    {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated",
     "operation failed due to a previous error during capture"},
    {cudaErrorUnknown, "cudaErrorUnknown", "unknown error"},
};

static size_t error_at(cudaError_t e)
{
    size_t n = sizeof error_names / sizeof *error_names;

    for (size_t i = 0; i < n; i++) {
        if (error_names[i].e == e) return i;
    }
    return n - 1;
}

const char *cudaGetErrorName(cudaError_t e)
{
    return error_names[error_at(e)].name;
}

const char *cudaGetErrorString(cudaError_t e)
{
    return error_names[error_at(e)].words;
}

cudaError_t cudaGetLastError(void)
{
    cudaError_t e = last_error;

    last_error = cudaSuccess;
    return e;
}

cudaError_t cudaPeekAtLastError(void)
{
    return last_error;
}

/* --- the environment ------------------------------------------------------------------------------------ */
static unsigned long long setting(const char *name, unsigned long long otherwise)
{
    const char *text = getenv(name);

    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

bool emu_is_traced(void)
{
    return setting("PRIMA_EMULATE_TRACE", 0);
}

/* PRIMA_EMULATE_FAIL=NAME:N: whether this is the N-th call of that name (or of any) since it was set so. */
static bool is_to_fail(const char *name)
{
    static char given[64];
    static unsigned long long left;
    const char *text = getenv("PRIMA_EMULATE_FAIL"), *colon = text ? strrchr(text, ':') : NULL;

    if (!colon) {
        given[0] = 0;
        return false;
    }
    if (strcmp(given, text)) {
        snprintf(given, sizeof given, "%s", text);
        left = strtoull(colon + 1, NULL, 10);
    }
    if (strncmp(text, "any:", 4) && (strncmp(text, name, strlen(name)) || text[strlen(name)] != ':'))
        return false;
    return left && !--left;
}

static void lock_init(void)
{
    pthread_mutexattr_t a;

    pthread_mutexattr_init(&a);
    pthread_mutexattr_settype(&a, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&lock, &a);
    pthread_mutexattr_destroy(&a);
}

bool emu_enter(const char *name)
{
    bool fails;

    pthread_once(&once, lock_init);
    pthread_mutex_lock(&lock);
    if ((fails = is_to_fail(name)))
        failure = strstr(name, "lloc") ? cudaErrorMemoryAllocation : cudaErrorUnknown;
    return fails;
}

cudaError_t emu_failure(void)
{
    return failure;
}

cudaError_t emu_leave(cudaError_t e)
{
    if (e != cudaSuccess) last_error = e;
    pthread_mutex_unlock(&lock);
    return e;
}

/* --- devices ------------------------------------------------------------------------------------------- */
/* CUDA_VISIBLE_DEVICES: an empty one hides all. */
static int n_gpus(void)
{
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    unsigned long long n = setting("PRIMA_EMULATE_GPUS", 1);

    return visible && !*visible ? 0 : n > MAX_GPUS ? MAX_GPUS : (int)n;
}

/* "1000,2000": of GPU 0 and of all behind it. */
static size_t vram_bytes(int gpu)
{
    const char *text = getenv("PRIMA_EMULATE_VRAM"), *comma;

    for (; text && gpu > 0 && (comma = strchr(text, ',')); gpu--) text = comma + 1;
    return text && *text ? (size_t)strtoull(text, NULL, 10) : (size_t)8 << 30;
}

static size_t shared_of_arch(void)
{
    switch (setting("PRIMA_EMULATE_ARCH", 90)) {
    case 75: return 64 << 10;
    case 80: return 163 << 10;
    case 86:
    case 89:
    case 120: return 99 << 10;
    default: return 227 << 10;
    }
}

size_t emu_shared_limit(void)
{
    return (size_t)setting("PRIMA_EMULATE_SHARED", shared_of_arch());
}

int emu_gpu(void)
{
    return current_gpu;
}

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    return cudaDriverGetVersion(version);
}

cudaError_t cudaGetDeviceCount(int *n)
{
    if (emu_enter(__func__)) return emu_leave(emu_failure());
    *n = n_gpus();
    return emu_leave(*n ? cudaSuccess : cudaErrorNoDevice);
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *out, int gpu)
{
    int arch = (int)setting("PRIMA_EMULATE_ARCH", 90);

    if (emu_enter(__func__)) return emu_leave(emu_failure());
    if (gpu < 0 || gpu >= n_gpus()) return emu_leave(cudaErrorInvalidDevice);
    *out = (struct cudaDeviceProp){.name = "emulated GPU",
                                   .totalGlobalMem = vram_bytes(gpu),
                                   .sharedMemPerBlock = 48 << 10,
                                   .sharedMemPerBlockOptin = emu_shared_limit(),
                                   .sharedMemPerMultiprocessor = emu_shared_limit() + 1024,
                                   .warpSize = EMU_WARP,
                                   .maxThreadsPerBlock = EMU_MAX_THREADS,
                                   .major = arch / 10,
                                   .minor = arch % 10,
                                   .multiProcessorCount = (int)setting("PRIMA_EMULATE_SMS", 4),
                                   .l2CacheSize = 1 << 20};
    return emu_leave(cudaSuccess);
}

cudaError_t cudaDeviceGetAttribute(int *out, enum cudaDeviceAttr attribute, int gpu)
{
    struct cudaDeviceProp p;
    cudaError_t e = cudaGetDeviceProperties(&p, gpu);

    if (e != cudaSuccess) return e;
    switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *out = p.multiProcessorCount; break;
    case cudaDevAttrComputeCapabilityMajor: *out = p.major; break;
    case cudaDevAttrComputeCapabilityMinor: *out = p.minor; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *out = (int)p.sharedMemPerBlockOptin; break;
    default: return cudaErrorInvalidValue;
    }
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int gpu)
{
    if (emu_enter(__func__)) return emu_leave(emu_failure());
    if (gpu < 0 || gpu >= n_gpus()) return emu_leave(cudaErrorInvalidDevice);
    current_gpu = gpu;
    return emu_leave(cudaSuccess);
}

cudaError_t cudaGetDevice(int *gpu)
{
    *gpu = current_gpu;
    return cudaSuccess;
}

/* --- allocations ---------------------------------------------------------------------------------------- */
static const allocation *find(const void *p, size_t bytes)
{
    for (size_t i = 0; i < n_allocations; i++) {
        const allocation *a = &allocations[i];
        if ((const char *)p >= a->p && (const char *)p <= a->p + a->bytes &&
            bytes <= (size_t)(a->p + a->bytes - (const char *)p))
            return a;
    }
    return NULL;
}

bool emu_is_vram(const void *p, size_t bytes, int gpu)
{
    const allocation *a = find(p, bytes);

    return a && a->gpu >= 0 && (gpu < 0 || a->gpu == gpu);
}

bool emu_is_pinned(const void *p, size_t bytes)
{
    const allocation *a = find(p, bytes);

    return a && a->gpu < 0;
}

void emu_vram_begin(void)
{
    if (n_running++) return;
    for (size_t i = 0; i < n_allocations; i++) {
        if (allocations[i].gpu >= 0) ASAN_UNPOISON_MEMORY_REGION(allocations[i].p, allocations[i].bytes);
    }
}

void emu_vram_end(void)
{
    assert(n_running > 0);
    if (--n_running) return;
    for (size_t i = 0; i < n_allocations; i++) {
        if (allocations[i].gpu >= 0) ASAN_POISON_MEMORY_REGION(allocations[i].p, allocations[i].bytes);
    }
}

static cudaError_t allocate(void **out, size_t bytes, int gpu)
{
    void *p = NULL;

    *out = NULL;
    if (!n_gpus()) return cudaErrorNoDevice;
    if (emu_is_capturing()) return cudaErrorStreamCaptureUnsupported;
    if (!bytes) return cudaSuccess;
    if (gpu >= 0 && bytes > vram_bytes(gpu) - taken_bytes[gpu]) return cudaErrorMemoryAllocation;
    if (n_allocations == max_allocations) {
        size_t n = max_allocations ? 2 * max_allocations : 64;
        allocation *more = realloc(allocations, n * sizeof *more);
        if (!more) return cudaErrorMemoryAllocation;
        allocations = more;
        max_allocations = n;
    }
    if (posix_memalign(&p, ALIGN, bytes)) return cudaErrorMemoryAllocation;
    memset(p, 0xff, bytes);
    if (gpu >= 0) taken_bytes[gpu] += bytes;
    if (gpu >= 0 && taken_bytes[gpu] > peak_bytes[gpu]) peak_bytes[gpu] = taken_bytes[gpu];
    if (gpu < 0) pinned_bytes += bytes;
    if (pinned_bytes > pinned_peak_bytes) pinned_peak_bytes = pinned_bytes;
    if (gpu >= 0 && !n_running) ASAN_POISON_MEMORY_REGION(p, bytes);
    allocations[n_allocations++] = (allocation){p, bytes, gpu};
    *out = p;
    return cudaSuccess;
}

static cudaError_t give_back(void *p, bool is_vram)
{
    if (!p) return cudaSuccess;
    if (emu_is_capturing()) return cudaErrorStreamCaptureUnsupported;
    emu_finish(true);
    for (size_t i = 0; i < n_allocations; i++) {
        allocation *a = &allocations[i];
        if (a->p != p || (a->gpu >= 0) != is_vram) continue;
        *(is_vram ? &taken_bytes[a->gpu] : &pinned_bytes) -= a->bytes;
        ASAN_UNPOISON_MEMORY_REGION(p, a->bytes);
        *a = allocations[--n_allocations];
        free(p);
        return cudaSuccess;
    }
    return cudaErrorInvalidValue;
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes)
{
    if (emu_enter(__func__)) return emu_leave(emu_failure());
    if (!n_gpus()) return emu_leave(cudaErrorNoDevice);
    *total_bytes = vram_bytes(current_gpu);
    *free_bytes = *total_bytes - taken_bytes[current_gpu];
    return emu_leave(cudaSuccess);
}

size_t emulate_vram_peak(int gpu)
{
    return peak_bytes[gpu];
}

size_t emulate_pinned_peak(void)
{
    return pinned_peak_bytes;
}

/* For tests of whole programs. */
__attribute__((destructor)) static void tell_peaks(void)
{
    const char *path = getenv("PRIMA_EMULATE_PEAKS");
    FILE *f = path && *path ? fopen(path, "a") : NULL;

    for (int gpu = 0; f && gpu < MAX_GPUS; gpu++)
        if (peak_bytes[gpu]) fprintf(f, "%d %zu\n", gpu, peak_bytes[gpu]);
    if (f) fclose(f);
}

cudaError_t cudaMalloc(void **out, size_t bytes)
{
    if (emu_enter(__func__)) return emu_leave(emu_failure());
    return emu_leave(allocate(out, bytes, current_gpu));
}

cudaError_t cudaFree(void *p)
{
    if (emu_enter(__func__)) return emu_leave(emu_failure());
    return emu_leave(give_back(p, true));
}

cudaError_t cudaMallocHost(void **out, size_t bytes)
{
    if (emu_enter(__func__)) return emu_leave(emu_failure());
    return emu_leave(allocate(out, bytes, -1));
}

cudaError_t cudaHostAlloc(void **out, size_t bytes, unsigned flags)
{
    (void)flags;
    if (emu_enter(__func__)) return emu_leave(emu_failure());
    return emu_leave(allocate(out, bytes, -1));
}

cudaError_t cudaFreeHost(void *p)
{
    if (emu_enter(__func__)) return emu_leave(emu_failure());
    return emu_leave(give_back(p, false));
}

/* --- kernels' shared memory -------------------------------------------------------------------------------
 */
typedef struct {
    const void *kernel;
    size_t static_bytes, allowed; /* 0: nothing was said */
} kernel_memory;
static kernel_memory kernels[MAX_KERNELS];
static size_t n_kernels;

static kernel_memory *memory_of(const void *kernel)
{
    for (size_t i = 0; i < n_kernels; i++) {
        if (kernels[i].kernel == kernel) return &kernels[i];
    }
    if (n_kernels == MAX_KERNELS) emu_die("more than %d kernels", MAX_KERNELS);
    kernels[n_kernels] = (kernel_memory){kernel, emu_static_shared(kernel), 0};
    return &kernels[n_kernels++];
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

size_t emu_shared_allowed(const void *kernel)
{
    const kernel_memory *k = memory_of(kernel);
    size_t both = least(k->allowed ? k->static_bytes + k->allowed : 48 << 10, emu_shared_limit());

    return both > k->static_bytes ? both - k->static_bytes : 0;
}

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *out, const void *kernel)
{
    if (emu_enter(__func__)) return emu_leave(emu_failure());
    out->sharedSizeBytes = memory_of(kernel)->static_bytes;
    return emu_leave(cudaSuccess);
}

cudaError_t cudaFuncGetName(const char **out, const void *kernel)
{
    if (emu_enter(__func__)) return emu_leave(emu_failure());
    *out = emu_symbol(kernel);
    return emu_leave(*out ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t cudaFuncSetAttribute(const void *kernel, enum cudaFuncAttribute attribute, int value)
{
    kernel_memory *k;

    if (emu_enter(__func__)) return emu_leave(emu_failure());
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return emu_leave(cudaSuccess);
    k = memory_of(kernel);
    if (value < 0 || k->static_bytes + (size_t)value > emu_shared_limit())
        return emu_leave(cudaErrorInvalidValue);
    k->allowed = (size_t)value;
    return emu_leave(cudaSuccess);
}
