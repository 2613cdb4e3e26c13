/* A small stand-in for the CUDA runtime: this GPU is emulated on the CPU, by the files of this folder.
 *
 * Has the part of the runtime's interface that kernels/cuda uses, with the names and numbers of NVIDIA's
 * public documentation ("CUDA Runtime API"), and is stricter than a GPU wherever that finds bugs:
 *   - what is put on a stream runs as late as possible: when somebody waits for it;
 *   - capturing runs nothing; a graph keeps the values that it was given while it was captured;
 *   - fresh memory is full of 0xff (NaN as floats, -1 as integers);
 *   - copies have their ranges and directions checked; under AddressSanitizer the host cannot touch VRAM;
 *   - a kernel that goes wrong ends the process with a message (tests/gpu/emulate/emulate.h).
 *
 * Environment, looked at in every call:
 *   PRIMA_EMULATE_GPUS=1          how many GPUs there are, at most 16
 *   PRIMA_EMULATE_ARCH=90         capability of each: 75, 80, 86, 89, 90, 100, 120 (limits of shared memory)
 *   PRIMA_EMULATE_SHARED=232448   bytes of shared memory that a block may have (the default is that of ARCH)
 *   PRIMA_EMULATE_SMS=4           multiprocessors of each
 *   PRIMA_EMULATE_VRAM=8589934592 bytes of each; several numbers (1000,2000): of GPU 0, of GPU 1, and so on;
 * the last one of all others PRIMA_EMULATE_PEAKS=FILE      a process that ends adds a line for each GPU that
 * it took memory of: its number, and the most bytes at once PRIMA_EMULATE_FAIL=NAME:N     the N-th call of
 * that name since this was set fails (cudaMalloc, ..., cudaLaunchKernel; any: of all): for want of memory, or
 * cudaErrorUnknown PRIMA_EMULATE_SEED=1          order of blocks, warps and lanes; 0: by number
 *   PRIMA_EMULATE_TRACE=1         a line on stderr for each kernel and copy that runs */
#ifndef PRIMA_TESTS_GPU_EMULATE_CUDA_RUNTIME_API_H
#define PRIMA_TESTS_GPU_EMULATE_CUDA_RUNTIME_API_H
#include <stddef.h>
#include <stdint.h>

#define PRIMA_EMULATED_GPU 1
#define CUDART_VERSION     13000

#ifdef __cplusplus
extern "C" {
#endif

typedef enum cudaError {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInitializationError = 3,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorInvalidMemcpyDirection = 21,
    cudaErrorInsufficientDriver = 35,
    cudaErrorNoDevice = 100,
    cudaErrorInvalidDevice = 101,
    cudaErrorInvalidResourceHandle = 400,
    cudaErrorNotReady = 600,
    cudaErrorLaunchOutOfResources = 701,
    cudaErrorStreamCaptureUnsupported = 900,
    cudaErrorStreamCaptureInvalidated = 901,
    cudaErrorIllegalState = 401,
    cudaErrorUnknown = 999
} cudaError_t;
const char *cudaGetErrorName(cudaError_t e);
const char *cudaGetErrorString(cudaError_t e);
cudaError_t cudaGetLastError(void);
cudaError_t cudaPeekAtLastError(void);

/* --- devices ------------------------------------------------------------------------------------- */
struct cudaDeviceProp {
    char name[256];
    size_t totalGlobalMem, sharedMemPerBlock, sharedMemPerBlockOptin, sharedMemPerMultiprocessor;
    int warpSize, maxThreadsPerBlock, major, minor, multiProcessorCount, l2CacheSize;
};
enum cudaDeviceAttr {
    cudaDevAttrMultiProcessorCount = 16,
    cudaDevAttrComputeCapabilityMajor = 75,
    cudaDevAttrComputeCapabilityMinor = 76,
    cudaDevAttrMaxSharedMemoryPerBlockOptin = 97
};
cudaError_t cudaDriverGetVersion(int *version);
cudaError_t cudaRuntimeGetVersion(int *version);
cudaError_t cudaGetDeviceCount(int *n);
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *out, int gpu);
cudaError_t cudaDeviceGetAttribute(int *out, enum cudaDeviceAttr attribute, int gpu);
cudaError_t cudaSetDevice(int gpu);
cudaError_t cudaGetDevice(int *gpu);
cudaError_t cudaDeviceSynchronize(void);

/* --- memory -------------------------------------------------------------------------------------- */
enum cudaMemcpyKind {
    cudaMemcpyHostToHost,
    cudaMemcpyHostToDevice,
    cudaMemcpyDeviceToHost,
    cudaMemcpyDeviceToDevice,
    cudaMemcpyDefault
};
enum {
    cudaHostAllocDefault = 0,
    cudaHostAllocPortable = 1,
    cudaHostAllocMapped = 2,
    cudaHostAllocWriteCombined = 4
};
typedef struct emu_stream *cudaStream_t;
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes);
size_t emulate_vram_peak(int gpu); /* the most bytes that were taken at once; of the emulated GPU only */
size_t emulate_pinned_peak(void);
cudaError_t cudaMalloc(void **out, size_t bytes);
cudaError_t cudaFree(void *p);
cudaError_t cudaMallocHost(void **out, size_t bytes);
cudaError_t cudaHostAlloc(void **out, size_t bytes, unsigned flags);
cudaError_t cudaFreeHost(void *p);
cudaError_t cudaMemcpy(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind);
cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream);
cudaError_t cudaMemcpy2DAsync(void *dst, size_t dst_pitch, const void *src, size_t src_pitch, size_t width,
                              size_t height, enum cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaMemset(void *p, int value, size_t bytes);
cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t stream);

/* --- streams and events: all streams wait for nobody but the events that they are told to wait for;
 * what is put on stream NULL runs at once, after everything else -------------------------------------- */
typedef struct emu_event *cudaEvent_t;
enum { cudaStreamDefault = 0, cudaStreamNonBlocking = 1 };
enum { cudaEventDefault = 0, cudaEventBlockingSync = 1, cudaEventDisableTiming = 2 };
cudaError_t cudaStreamCreate(cudaStream_t *out);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t s);
cudaError_t cudaStreamSynchronize(cudaStream_t s);
cudaError_t cudaStreamQuery(cudaStream_t s);
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned flags);
cudaError_t cudaEventCreate(cudaEvent_t *out);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t e);
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s);
cudaError_t cudaEventSynchronize(cudaEvent_t e);
cudaError_t cudaEventQuery(cudaEvent_t e);
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to);

/* --- graphs: one stream's work; no events while it is captured ---------------------------------------- */
typedef struct emu_graph *cudaGraph_t;
typedef struct emu_graph_exec *cudaGraphExec_t;
enum cudaStreamCaptureMode {
    cudaStreamCaptureModeGlobal,
    cudaStreamCaptureModeThreadLocal,
    cudaStreamCaptureModeRelaxed
};
cudaError_t cudaStreamBeginCapture(cudaStream_t s, enum cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *out);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t g, unsigned long long flags);
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *out, cudaGraph_t g, unsigned long long flags);
cudaError_t cudaGraphUpload(cudaGraphExec_t g, cudaStream_t s);
cudaError_t cudaGraphLaunch(cudaGraphExec_t g, cudaStream_t s);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t g);
cudaError_t cudaGraphDestroy(cudaGraph_t g);

/* --- kernels ------------------------------------------------------------------------------------------ */
enum cudaFuncAttribute {
    cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
    cudaFuncAttributePreferredSharedMemoryCarveout = 9
};
struct cudaFuncAttributes {
    size_t sharedSizeBytes;
};
cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *out, const void *kernel);
cudaError_t cudaFuncGetName(const char **out, const void *kernel);
cudaError_t cudaFuncSetAttribute(const void *kernel, enum cudaFuncAttribute attribute, int value);

#ifdef __cplusplus
}
#endif

#endif
