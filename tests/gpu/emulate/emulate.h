/* How a kernel runs here: between the runtime (runtime.c, stream.c), the threads of a block (block.c) and
 * what kernels see of it (kernel.h).
 *
 * Blocks run one after the other, each thread of a block as a fiber of its own. A thread runs until it waits
 * for others: in a warp function for the other 31 lanes of its warp, in block_sync for the block. The order
 * of blocks, of warps after each block_sync, and of lanes is random (PRIMA_EMULATE_SEED), and everything
 * between two meetings is run whole for one thread after the other: a meeting that is missing shows, because
 * threads then see what others have not written yet. Shared memory is full of 0xff when a block begins. What
 * ends the process with a message: a meeting that others cannot come to any more (they returned, or wait
 * elsewhere), lanes of a warp that meet in different functions, asynchronous copies that are not aligned.
 *
 * One kernel runs at a time in a process (static shared arrays are static variables of the program). */
#ifndef PRIMA_TESTS_GPU_EMULATE_EMULATE_H
#define PRIMA_TESTS_GPU_EMULATE_EMULATE_H
#include "tests/gpu/emulate/switch.h"
#include <cuda_runtime_api.h>
#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { EMU_WARP = 32, EMU_MAX_THREADS = 1024 };

typedef struct emu_index {
    unsigned x, y, z;
} emu_index;

/* Where a warp meets. Of one warp function all lanes must be in the same. */
typedef enum {
    EMU_WARP_SYNC,
    EMU_WARP_XOR,
    EMU_WARP_FROM,
    EMU_WARP_DOWN,
    EMU_MMA_S8,
    EMU_MMA_S8_HALF,
    EMU_MMA_F16,
    EMU_MMA_BF16,
    EMU_MEETINGS
} emu_meeting;

/* What a lane brings to a meeting, and what it finds there: a shuffled value in 8 bytes, or a[4], b[2] and
 * d[4] of a product. */
typedef struct {
    uint32_t a[4], b[2];
    union {
        float f[4];
        int32_t i[4];
    } d;
} emu_slot;

typedef struct emu_copy {
    void *to;
    const void *from;
    unsigned group, bytes;
} emu_copy;

typedef struct emu_thread {
    emu_index index;
    unsigned lane;
    struct emu_warp *warp;
    fiber fiber;
    emu_copy *copies; /* asked for and not there yet, in order */
    size_t n_copies, max_copies;
    unsigned groups; /* of copies, closed so far */
} emu_thread;

typedef struct emu_warp {
    unsigned char state[EMU_WARP];
    const unsigned char *order; /* of lanes */
    unsigned at;                /* place in it of the lane that runs */
    unsigned n_met, turn;
    emu_meeting meeting;
    emu_thread *thread;
    emu_slot slot[2][EMU_WARP]; /* in turns: a lane may be at the next meeting before others have read */
} emu_warp;

extern emu_thread *emu_self; /* that runs */
extern emu_index emu_block_index, emu_block_size, emu_grid_size;

/* A kernel with its arguments: run(args) is one thread's call. */
typedef struct {
    void (*run)(const void *args);
    const void *kernel; /* its address: for names and attributes */
    void *args;         /* malloc'ed; the launch owns it */
    size_t args_bytes;
    emu_index grid, block;
    size_t shared_bytes;
} emu_launch;

/* Put it on a stream: takes args over, in every case. Errors as of cudaLaunchKernel.
 *   pointers  those of its arguments that are pointers, the others NULL: they must point to memory that a
 *             GPU can reach */
cudaError_t emu_launch_kernel(const emu_launch *l, const void *const pointers[], size_t n_pointers,
                              cudaStream_t s);
/* Run it now (block.c). */
void emu_run(const emu_launch *l);
/* An error of a kernel: says where, and ends the process. */
void emu_die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
/* "matmul<4>" or an address, from the program's table of symbols; a static buffer. */
const char *emu_name(const void *code);
/* The symbol itself; NULL: not found. Lives as long as the program. */
const char *emu_symbol(const void *code);
/* Bytes of the static __shared__ arrays that stand in this kernel. */
size_t emu_static_shared(const void *kernel);

/* --- between the files of the runtime ------------------------------------------------------------- */
/* Around the body of every function of the runtime: one thread at a time; enter: whether to fail for the sake
 * of a test, with emu_failure; leave: what cudaGetLastError tells, and returns e. */
bool emu_enter(const char *name);
cudaError_t emu_failure(void);
cudaError_t emu_leave(cudaError_t e);
int emu_gpu(void); /* that the calling thread has set */
/* Whether memory of this GPU (-1: of any) contains these bytes; or pinned memory does. */
bool emu_is_vram(const void *p, size_t bytes, int gpu);
bool emu_is_pinned(const void *p, size_t bytes);
/* While something runs, VRAM can be touched: under AddressSanitizer, only then. Calls nest. */
void emu_vram_begin(void);
void emu_vram_end(void);
size_t emu_shared_limit(void);
/* Dynamic: what static arrays leave of 48 KiB, or what cudaFuncSetAttribute said; never more than there is.
 */
size_t emu_shared_allowed(const void *kernel);
bool emu_is_traced(void);
/* Run what streams still have to do: of all, or only of those that stream NULL waits for. */
void emu_finish(bool all);
bool emu_is_capturing(void); /* any stream; makes the captures invalid */

/* --- what a thread calls -------------------------------------------------------------------------- */
void emu_meet_warp(emu_meeting m);
void emu_meet_block(void);
static inline emu_slot *emu_slots(void)
{
    return emu_self->warp->slot[emu_self->warp->turn];
}
void *emu_dynamic_shared(void);
void emu_copy_begin(void *shared, const void *global, size_t bytes);
void emu_copy_close(void);
void emu_copy_wait(unsigned pending);
const void *emu_check_global(const void *p, size_t bytes, const char *what);

/* --- arithmetic (mma.c) ---------------------------------------------------------------------------- */
float emu_f16_float(uint16_t h);
uint16_t emu_float_f16(float f);
void emu_mma_s8(emu_slot s[EMU_WARP]); /* halves: with a[2], a[3], b[1] zero */
void emu_mma_f16(emu_slot s[EMU_WARP]);
void emu_mma_bf16(emu_slot s[EMU_WARP]);

#ifdef __cplusplus
}
#endif

#endif
