/* Worker threads for loops of microseconds to milliseconds.
 *
 * One 64-bit word, `state`, holds a loop's generation, whether it is open, and how many workers are inside.
 * The caller opens a loop (generation + 1), works on it like everybody, and when the shared counter has run
 * out closes it and waits until nobody is inside. A worker that was asleep or without a core comes too late,
 * sees the loop closed and is not waited for: with more threads than cores a loop costs no more than its
 * items.
 *
 * Order: the fields of a job are written before the fetch_add (release) that opens it and read after the
 * fetch_add (acquire) that enters it. Leaving is a fetch_sub (release), the caller's wait an acquire, so what
 * the items wrote is visible. Sleeping: `n_asleep` goes up before a worker looks at the generation for the
 * last time, and the caller looks at it after opening; both sequentially consistent, so one of the two sees
 * the other. */
#include "src/base/pool.h"
#include "src/base/cgroup.h"
#include "src/base/clock.h"
#include "src/base/mem.h"
#include "src/base/thread.h"
#include <assert.h>
#include <pthread.h>
#include <sched.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#define INSIDE_MASK    0xFFFFu /* bits 0-15: workers inside */
#define OPEN           0x10000u
#define ONE_GENERATION 0x20000u

#define SPIN_NS        50000 /* a worker looks for the next loop this long before it sleeps */
/* A spin this long offers its core to others with every further step. Giving it up costs milliseconds when
 * other programs run, so it pays only where one of our own threads may be waiting for it: at once with more
 * threads than cores, else when an item seems to have lost its core. */
#define HOT_CROWDED_NS 5000
#define HOT_NS         200000

typedef struct {
    pool *p;
    int thread;
    pthread_t id;
} worker;

struct pool {
    alignas(64) atomic_uint_fast64_t state;
    alignas(64) atomic_size_t next;
    alignas(64) atomic_int n_asleep;
    size_t n, chunk;
    pool_fn fn; /* NULL: leave and end */
    void *arg;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    int n_threads, n_started;
    uint64_t hot_ns;
    worker workers[];
};

static uint64_t generation(uint64_t state)
{
    return state / ONE_GENERATION;
}

/* Tell the core that this is a spin: saves power, and the other hardware thread gets the units. */
static inline void cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
    __asm__ __volatile__("yield");
#endif
}

typedef struct {
    unsigned n;
    uint64_t start_ns;
} spin;

/* One step of a spin: a pause; every 16th time a look at the clock and, when it has been hot too long, a
 * chance for others to have the core. Returns how long the spin has lasted, 0 when it did not look. */
static uint64_t spin_step(const pool *p, spin *s)
{
    uint64_t spent;

    cpu_relax();
    if (++s->n % 16) return 0;
    if (!s->start_ns) s->start_ns = clock_ns();
    spent = clock_ns() - s->start_ns;
    if (spent > p->hot_ns) sched_yield();
    return spent;
}

static void work(pool *p, int thread)
{
    for (;;) {
        size_t first = atomic_fetch_add_explicit(&p->next, p->chunk, memory_order_relaxed);
        if (first >= p->n) return;
        p->fn(p->arg, first, p->n - first < p->chunk ? p->n : first + p->chunk, thread);
    }
}

static void sleep_while(pool *p, uint64_t seen)
{
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->n_asleep, 1);
    while (generation(atomic_load(&p->state)) == seen) pthread_cond_wait(&p->wake, &p->lock);
    atomic_fetch_sub(&p->n_asleep, 1);
    pthread_mutex_unlock(&p->lock);
}

static void wait_for_loop(pool *p, uint64_t seen)
{
    spin s = {0};

    while (generation(atomic_load_explicit(&p->state, memory_order_relaxed)) == seen)
        if (spin_step(p, &s) > SPIN_NS) {
            sleep_while(p, seen);
            return;
        }
}

static void *worker_main(void *arg)
{
    worker *w = arg;
    pool *p = w->p;
    uint64_t seen = 0;
    bool end = false;

    while (!end) {
        wait_for_loop(p, seen);
        uint64_t state = atomic_fetch_add_explicit(&p->state, 1, memory_order_acquire);
        seen = generation(state);
        if (state & OPEN) {
            end = p->fn == NULL;
            if (!end) work(p, w->thread);
        }
        atomic_fetch_sub_explicit(&p->state, 1, memory_order_release);
    }
    return NULL;
}

static void open_loop(pool *p, size_t n, size_t chunk, pool_fn fn, void *arg)
{
    p->n = n;
    p->chunk = chunk;
    p->fn = fn;
    p->arg = arg;
    atomic_store_explicit(&p->next, 0, memory_order_relaxed);
    atomic_fetch_add(&p->state, ONE_GENERATION | OPEN);
    if (atomic_load(&p->n_asleep) > 0) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_broadcast(&p->wake);
        pthread_mutex_unlock(&p->lock);
    }
}

static void close_loop(pool *p)
{
    spin s = {0};

    atomic_fetch_and_explicit(&p->state, ~(uint64_t)OPEN, memory_order_relaxed);
    while (atomic_load_explicit(&p->state, memory_order_acquire) & INSIDE_MASK) spin_step(p, &s);
}

void pool_run(pool *p, size_t n, size_t chunk, pool_fn fn, void *arg)
{
    assert(fn && chunk > 0 && n < SIZE_MAX / (2 * POOL_MAX_THREADS));
    if (n == 0) return;
    if (n <= chunk || p->n_threads == 1) {
        for (size_t first = 0; first < n; first += chunk)
            fn(arg, first, n - first < chunk ? n : first + chunk, 0);
        return;
    }
    open_loop(p, n, chunk, fn, arg);
    work(p, 0);
    close_loop(p);
}

int pool_new(pool **out, int n_threads, pr_err *err)
{
    pool *p;

    assert(n_threads >= 1 && n_threads <= POOL_MAX_THREADS);
    p = mem_alloc_aligned(sizeof *p + (size_t)n_threads * sizeof *p->workers);
    if (!p) return pr_fail(err, PR_ERESOURCE, "out of memory for %d threads", n_threads);
    p->n_threads = n_threads;
    p->hot_ns = n_threads > pool_default_threads() ? HOT_CROWDED_NS : HOT_NS;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    for (int i = 1; i < n_threads; i++) {
        worker *w = &p->workers[i];
        *w = (worker){.p = p, .thread = i};
        if (thread_start(&w->id, worker_main, w)) {
            pool_free(p);
            return pr_fail(err, PR_ERESOURCE, "thread %d of %d cannot be started: use fewer --threads", i + 1,
                           n_threads);
        }
        p->n_started++;
    }
    *out = p;
    return PR_OK;
}

void pool_free(pool *p)
{
    if (!p) return;
    open_loop(p, 0, 1, NULL, NULL);
    for (int i = 1; i <= p->n_started; i++) pthread_join(p->workers[i].id, NULL);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    mem_free_aligned(p);
}

int pool_threads(const pool *p)
{
    return p->n_threads;
}

static long cores_online(void)
{
#ifdef __linux__
    cpu_set_t set;

    if (!sched_getaffinity(0, sizeof set, &set)) return CPU_COUNT(&set);
#endif
    return sysconf(_SC_NPROCESSORS_ONLN);
}

int pool_default_threads(void)
{
    long cores = cores_online();
    uint64_t allowed = cgroup_cpu_millicores("");

    if (allowed < CGROUP_NO_LIMIT && (allowed + 500) / 1000 < (uint64_t)cores)
        cores = (long)((allowed + 500) / 1000);
    return cores < 1 ? 1 : cores > POOL_MAX_THREADS ? POOL_MAX_THREADS : (int)cores;
}
