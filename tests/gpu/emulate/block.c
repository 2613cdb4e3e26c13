/* A kernel's blocks, one after the other, and the threads of a block as fibers (emulate.h).
 *
 * Switches go from thread to thread, without a scheduler between them: a thread that waits passes on to the
 * next one of its warp that can run, else to the next warp. */
#include "tests/gpu/emulate/emulate.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a thread is doing. Values above RUNS wait. */
enum { RUNS, MEETS_WARP, MEETS_BLOCK, RETURNED };
enum { MAX_WARPS = EMU_MAX_THREADS / EMU_WARP, ORDERS = 64 };

emu_thread *emu_self;
emu_index emu_block_index, emu_block_size, emu_grid_size;

static emu_thread thread[EMU_MAX_THREADS];
static emu_warp warp[MAX_WARPS];
static unsigned char warp_order[MAX_WARPS]; /* of the block's warps; changes with every block_sync */
static unsigned n_threads, n_warps, n_at_block;
static fiber main_fiber;
static const emu_launch *launched;
static void *dynamic;

/* Static __shared__ arrays (kernel.h); weak, for a program whose kernels have none. */
extern char __start_emu_shared[] __attribute__((weak)), __stop_emu_shared[] __attribute__((weak));

static const char *const meeting_name[EMU_MEETINGS] = {"warp_sync", "warp_xor",    "warp_from", "warp_down",
                                                       "mma_s8",    "mma_s8_half", "mma_f16",   "mma_bf16"};

/* --- chance -------------------------------------------------------------------------------------------- */
static unsigned char lane_order[ORDERS][EMU_WARP];
static bool by_number;
static uint64_t chance;

static unsigned below(unsigned n)
{
    chance = chance * 6364136223846793005u + 1442695040888963407u;
    return by_number ? 0 : (unsigned)((chance >> 33) * n >> 31);
}

static void shuffle(unsigned char *order, unsigned n)
{
    for (unsigned i = 0; i < n; i++) order[i] = (unsigned char)i;
    if (by_number) return;
    for (unsigned i = n; i > 1; i--) {
        unsigned j = below(i);
        unsigned char kept = order[i - 1];
        order[i - 1] = order[j];
        order[j] = kept;
    }
}

/* Again when the seed in the environment has changed. */
static void seed(void)
{
    static char now[32] = "none";
    const char *text = getenv("PRIMA_EMULATE_SEED");

    if (!text) text = "1";
    if (!strncmp(now, text, sizeof now - 1)) return;
    snprintf(now, sizeof now, "%s", text);
    chance = strtoull(text, NULL, 10);
    by_number = !chance;
    for (int i = 0; i < ORDERS; i++) shuffle(lane_order[i], EMU_WARP);
}

/* --- errors -------------------------------------------------------------------------------------------- */
void emu_die(const char *fmt, ...)
{
    va_list args;

    fprintf(stderr, "emulated GPU: ");
    if (launched) fprintf(stderr, "%s: ", emu_name(launched->kernel));
    if (emu_self)
        fprintf(stderr, "block (%u, %u, %u) thread (%u, %u, %u): ", emu_block_index.x, emu_block_index.y,
                emu_block_index.z, emu_self->index.x, emu_self->index.y, emu_self->index.z);
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fprintf(stderr, "\n");
    abort();
}

/* Nobody can run, and not everybody has returned. */
static void die_stuck(void)
{
    unsigned returned = 0, at_block = 0;
    const emu_thread *waits = NULL;

    for (unsigned i = 0; i < n_threads; i++) {
        unsigned char state = thread[i].warp->state[thread[i].lane];
        returned += state == RETURNED;
        at_block += state == MEETS_BLOCK;
        if (state == MEETS_WARP || (state == MEETS_BLOCK && !waits)) waits = &thread[i];
    }
    emu_self = (emu_thread *)waits;
    if (waits->warp->state[waits->lane] == MEETS_WARP)
        emu_die("waits in %s with %u lanes of its warp; the others wait in block_sync or have returned",
                meeting_name[waits->warp->meeting], waits->warp->n_met);
    emu_die("waits in block_sync with %u of %u threads; %u have returned", at_block, n_threads, returned);
}

/* --- threads ------------------------------------------------------------------------------------------- */
static void go_to(emu_thread *t, bool ends)
{
    emu_thread *from = emu_self;

    emu_self = t;
    fiber_switch(&from->fiber, &t->fiber, ends);
}

/* The next lane of w that can run, from place `at` of its order on; NULL: none. */
static emu_thread *next_lane(emu_warp *w, unsigned at)
{
    for (unsigned i = 0; i < EMU_WARP; i++, at++) {
        unsigned lane = w->order[at % EMU_WARP];
        if (w->state[lane] != RUNS) continue;
        w->at = at % EMU_WARP;
        return &w->thread[lane];
    }
    return NULL;
}

/* Somebody else runs, until somebody comes back here. */
static void pass_on(bool ends)
{
    emu_warp *w = emu_self->warp;
    emu_thread *t = next_lane(w, w->at + 1);

    if (!t && w->n_met) die_stuck();
    for (unsigned i = 0; !t && i < n_warps; i++) t = next_lane(&warp[warp_order[i]], 0);
    if (t) go_to(t, ends);
    else if (n_at_block) die_stuck();
    else fiber_switch(&emu_self->fiber, &main_fiber, true);
}

/* All threads of the block start from here, or go on from a block_sync, in a new order. */
static emu_thread *new_order(void)
{
    shuffle(warp_order, n_warps);
    for (unsigned i = 0; i < n_warps; i++) warp[i].order = lane_order[below(ORDERS)];
    return next_lane(&warp[warp_order[0]], 0);
}

void emu_meet_block(void)
{
    emu_thread *t;

    emu_self->warp->state[emu_self->lane] = MEETS_BLOCK;
    if (++n_at_block < n_threads) {
        pass_on(false);
        return;
    }
    n_at_block = 0;
    for (unsigned i = 0; i < n_threads; i++) thread[i].warp->state[thread[i].lane] = RUNS;
    t = new_order();
    if (t != emu_self) go_to(t, false);
}

void emu_meet_warp(emu_meeting m)
{
    emu_warp *w = emu_self->warp;

    if (!w->n_met) w->meeting = m;
    else if (w->meeting != m)
        emu_die("calls %s while others of its warp wait in %s", meeting_name[m], meeting_name[w->meeting]);
    if (++w->n_met < EMU_WARP) {
        w->state[emu_self->lane] = MEETS_WARP;
        pass_on(false);
        return;
    }
    if (m == EMU_MMA_S8 || m == EMU_MMA_S8_HALF) emu_mma_s8(w->slot[w->turn]);
    else if (m == EMU_MMA_F16) emu_mma_f16(w->slot[w->turn]);
    else if (m == EMU_MMA_BF16) emu_mma_bf16(w->slot[w->turn]);
    memset(w->state, RUNS, sizeof w->state);
    w->n_met = 0;
    w->turn ^= 1;
}

static void run_thread(void)
{
    fiber_entered(&main_fiber);
    launched->run(launched->args);
    emu_self->warp->state[emu_self->lane] = RETURNED;
    pass_on(true);
    abort(); /* nobody comes back */
}

/* --- blocks -------------------------------------------------------------------------------------------- */
/* All static arrays of all kernels: 100s of KiB. AddressSanitizer must not look, for it keeps guards between
 * them. */
#ifdef __SANITIZE_ADDRESS__
__attribute__((no_sanitize("address", "undefined"))) static void poison_static(void)
{
    for (volatile uint64_t *p = (void *)__start_emu_shared; p < (uint64_t *)(void *)__stop_emu_shared; p++)
        *p = UINT64_MAX;
}
#else
static void poison_static(void)
{
    memset(__start_emu_shared, 0xff, (size_t)(__stop_emu_shared - __start_emu_shared));
}
#endif

static void begin_block(void)
{
    poison_static();
    if (dynamic) memset(dynamic, 0xff, launched->shared_bytes);
    for (unsigned i = 0; i < n_threads; i++) {
        emu_thread *t = &thread[i];
        t->n_copies = t->groups = 0;
        t->warp->state[t->lane] = RUNS;
        fiber_begin(&t->fiber, run_thread);
    }
}

/* Threads, warps and their numbers, for all blocks of a launch. */
static void form_block(const emu_launch *l)
{
    static unsigned n_stacks;

    n_threads = l->block.x * l->block.y * l->block.z;
    n_warps = (n_threads + EMU_WARP - 1) / EMU_WARP;
    for (unsigned i = 0; i < n_warps; i++) {
        warp[i].thread = &thread[i * EMU_WARP];
        warp[i].n_met = warp[i].turn = 0;
        memset(warp[i].state, RETURNED, sizeof warp[i].state);
    }
    for (unsigned i = 0; i < n_threads; i++) {
        emu_thread *t = &thread[i];
        if (i >= n_stacks && !fiber_init(&t->fiber))
            emu_die("no memory for the stacks of %u threads", n_threads);
        if (i >= n_stacks) n_stacks = i + 1;
        t->lane = i % EMU_WARP;
        t->warp = &warp[i / EMU_WARP];
        t->index = (emu_index){i % l->block.x, i / l->block.x % l->block.y, i / l->block.x / l->block.y};
    }
}

void emu_run(const emu_launch *l)
{
    const uint64_t n_blocks = (uint64_t)l->grid.x * l->grid.y * l->grid.z;

    seed();
    launched = l;
    emu_block_size = l->block;
    emu_grid_size = l->grid;
    form_block(l);
    dynamic = NULL;
    if (l->shared_bytes && posix_memalign(&dynamic, 128, l->shared_bytes)) emu_die("out of memory");
    /* Forwards or backwards, from anywhere. */
    uint64_t at = below(n_blocks > 1u << 30 ? 1u << 30 : (unsigned)n_blocks),
             step = below(2) ? n_blocks - 1 : 1;
    for (uint64_t i = 0; i < n_blocks; i++, at = (at + step) % n_blocks) {
        emu_block_index = (emu_index){(unsigned)(at % l->grid.x), (unsigned)(at / l->grid.x % l->grid.y),
                                      (unsigned)(at / l->grid.x / l->grid.y)};
        begin_block();
        emu_self = new_order();
        fiber_switch(&main_fiber, &emu_self->fiber, false);
        emu_self = NULL;
    }
    free(dynamic);
    launched = NULL;
}

/* --- shared memory ------------------------------------------------------------------------------------- */
static bool is_shared(const void *p, size_t bytes)
{
    const char *c = p;

    if (dynamic && c >= (char *)dynamic && c + bytes <= (char *)dynamic + launched->shared_bytes) return true;
    return c >= __start_emu_shared && c + bytes <= __stop_emu_shared;
}

void *emu_dynamic_shared(void)
{
    if (!dynamic) emu_die("dynamic_shared, but the launch asked for none");
    return dynamic;
}

const void *emu_check_global(const void *p, size_t bytes, const char *what)
{
    if ((uintptr_t)p % bytes) emu_die("%s: address %p is no multiple of %zu", what, p, bytes);
    if (is_shared(p, bytes)) emu_die("%s: address %p is in shared memory", what, p);
    return p;
}

/* Until it is waited for, its place holds neither what was there before nor what will be there. */
void emu_copy_begin(void *shared, const void *global, size_t bytes)
{
    emu_thread *t = emu_self;
    char touched[16];

    if ((uintptr_t)shared % bytes || (uintptr_t)global % bytes)
        emu_die("copy%zu_async: addresses %p (shared) and %p must be multiples of %zu", bytes, shared, global,
                bytes);
    if (!is_shared(shared, bytes))
        emu_die("copy%zu_async: address %p is not in shared memory", bytes, shared);
    if (is_shared(global, bytes)) emu_die("copy%zu_async: address %p is in shared memory", bytes, global);
    memcpy(touched, global, bytes); /* AddressSanitizer looks now, while the caller is known */
    memset(shared, 0xff, bytes);
    if (t->n_copies == t->max_copies) {
        t->max_copies = t->max_copies ? 2 * t->max_copies : 16;
        if (!(t->copies = realloc(t->copies, t->max_copies * sizeof *t->copies))) emu_die("out of memory");
    }
    t->copies[t->n_copies++] = (emu_copy){shared, global, t->groups, (unsigned)bytes};
}

void emu_copy_close(void)
{
    emu_self->groups++;
}

void emu_copy_wait(unsigned pending)
{
    emu_thread *t = emu_self;
    size_t n = 0;

    while (n < t->n_copies && t->copies[n].group + pending < t->groups) {
        memcpy(t->copies[n].to, t->copies[n].from, t->copies[n].bytes);
        n++;
    }
    if (!n) return;
    memmove(t->copies, t->copies + n, (t->n_copies - n) * sizeof *t->copies);
    t->n_copies -= n;
}
