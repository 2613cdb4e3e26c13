/* Watching PSI. A file says
 *
 *     some avg10=0.00 avg60=0.00 avg300=0.00 total=69029971
 *     full ...
 *
 * The averages lag by many seconds, so that one would give back far too much before they fall; total, in
 * microseconds, says exactly what was waited since the last look. Where the kernel lets us, a threshold is
 * written into the file, and then it says by POLLPRI when that is passed, and nobody needs to look while all
 * is well. Without privileges its window must be a multiple of two seconds. */
#include "src/base/pressure.h"
#include <stdlib.h>
#ifdef __linux__
#include "src/base/cgroup.h"
#include "src/base/clock.h"
#include "src/base/thread.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { MAX_FILES = 2, WINDOW_US = 2000000 };

typedef struct {
    int read_fd, event_fd; /* event_fd -1: the kernel does not tell */
    uint64_t total_us;     /* at the last look */
} psi_file;

struct pressure {
    pressure_options o;
    pressure_fn fn;
    void *arg;
    psi_file file[MAX_FILES];
    size_t n_files;
    bool told; /* by the kernel, for all files */
    int end_fd;
    bool running;
    pthread_t thread;
    uint64_t looked_ns;
};

/* --- files ---------------------------------------------------------------------------------------------- */
static bool read_total(int fd, uint64_t *out)
{
    char text[256];
    ssize_t n = pread(fd, text, sizeof text - 1, 0);
    char *total;

    if (n <= 0) return false;
    text[n] = 0;
    if (strncmp(text, "some ", 5) || !(total = strstr(text, " total="))) return false;
    *out = strtoull(total + 7, NULL, 10);
    return true;
}

/* -1 where the kernel or its policy does not know thresholds. */
static int ask_kernel(const char *path, double high_pct)
{
    char text[64];
    int fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    int n = snprintf(text, sizeof text, "some %d %d", (int)(high_pct / 100 * WINDOW_US), WINDOW_US);

    if (fd >= 0 && write(fd, text, (size_t)n + 1) > 0) return fd;
    if (fd >= 0) close(fd);
    return -1;
}

static void add_file(pressure *p, const char *path)
{
    psi_file f = {.read_fd = open(path, O_RDONLY | O_CLOEXEC), .event_fd = -1};

    if (f.read_fd < 0) return;
    if (!read_total(f.read_fd, &f.total_us)) {
        close(f.read_fd);
        return;
    }
    if (!(p->o.poll_s > 0)) f.event_fd = ask_kernel(path, p->o.high_pct);
    p->told = p->told && f.event_fd >= 0;
    p->file[p->n_files++] = f;
}

/* --- watching ------------------------------------------------------------------------------------------- */
/* Of the time since the last look, the share that was waited, in percent: the largest of the files. */
static double waited_pct(pressure *p)
{
    uint64_t now = clock_ns();
    double us = (double)(now - p->looked_ns) / 1e3, most = 0;

    for (size_t i = 0; i < p->n_files; i++) {
        psi_file *f = &p->file[i];
        uint64_t total = f->total_us;
        if (!read_total(f->read_fd, &total) || total < f->total_us) continue;
        most = fmax(most, us > 0 ? (double)(total - f->total_us) / us : 0);
        f->total_us = total;
    }
    p->looked_ns = now;
    return fmin(100 * most, 100);
}

typedef enum { LOOK, TOLD, END } occasion;

/* A group that is gone is an error and an event for ever: its file is not waited for any more. */
static occasion what_happened(psi_file *f, short events)
{
    if (events & (POLLERR | POLLNVAL)) {
        close(f->event_fd);
        f->event_fd = -1;
        return LOOK;
    }
    return events & POLLPRI ? TOLD : LOOK;
}

/* seconds < 0: until something happens. */
static occasion wait_for_occasion(pressure *p, double seconds)
{
    struct pollfd on[1 + MAX_FILES] = {{.fd = p->end_fd, .events = POLLIN}};
    occasion what = LOOK;

    for (size_t i = 0; i < p->n_files; i++)
        on[1 + i] = (struct pollfd){.fd = p->file[i].event_fd, .events = POLLPRI};
    if (poll(on, 1 + p->n_files, seconds < 0 ? -1 : (int)ceil(seconds * 1e3)) < 0) return LOOK;
    for (size_t i = 0; i < p->n_files; i++)
        if (what_happened(&p->file[i], on[1 + i].revents) == TOLD) what = TOLD;
    return on[0].revents ? END : what;
}

static double seconds_to_look(const pressure *p, double period_s)
{
    double left = period_s - clock_ms_since(p->looked_ns) / 1e3;
    return left > 0 ? left : 0;
}

/* What the kernel tells is a reason to look, no more: the first event of a threshold may come without cause.
 */
static void *watch(void *arg)
{
    pressure *p = arg;
    const double period_s = p->o.poll_s > 0 ? p->o.poll_s : 1;
    bool looking = !p->told, high = false;
    uint64_t calm_since_ns = clock_ns();

    for (;;) {
        occasion what = wait_for_occasion(p, looking ? seconds_to_look(p, period_s) : -1);
        bool begin = what == TOLD && !looking;
        double pct;
        if (what == END) return NULL;
        if (begin) calm_since_ns = clock_ns();
        looking = looking || begin;
        if (!begin && seconds_to_look(p, period_s) > 0) continue;
        pct = waited_pct(p);
        if (begin || !looking) continue; /* the time before it says nothing */
        if (pct >= p->o.high_pct / 2) calm_since_ns = clock_ns();
        if (pct >= p->o.high_pct) {
            high = true;
            p->fn(p->arg, true, pct);
        }
        if (clock_ms_since(calm_since_ns) < p->o.calm_s * 1e3) continue;
        if (high) p->fn(p->arg, false, pct);
        high = false;
        looking = !p->told;
    }
}

/* --- beginning and end -----------------------------------------------------------------------------------
 */
static void find_files(pressure *p)
{
    const char *root = p->o.root ? p->o.root : "";
    char path[PATH_MAX];

    p->told = true;
    if ((size_t)snprintf(path, sizeof path, "%s/proc/pressure/memory", root) < sizeof path) add_file(p, path);
    if (cgroup_find_file(root, "memory", "memory.pressure", path, sizeof path)) add_file(p, path);
}

/* Signals are for the threads of others. */
static int start_thread(pressure *p)
{
    sigset_t all, before;
    int e;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    e = thread_start(&p->thread, watch, p);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    p->running = !e;
    return e;
}

int pressure_watch(pressure **out, const pressure_options *o, pressure_fn fn, void *arg, pr_err *err)
{
    pressure *p = calloc(1, sizeof *p);
    int rc = PR_OK;

    if (!p) return pr_fail(err, PR_ERESOURCE, "out of memory");
    p->o = *o;
    if (!(p->o.high_pct > 0 && p->o.high_pct <= 100)) p->o.high_pct = 10;
    if (!(p->o.calm_s > 0)) p->o.calm_s = 10;
    p->fn = fn;
    p->arg = arg;
    p->looked_ns = clock_ns();
    p->end_fd = -1;
    find_files(p);
    if (p->n_files) {
        if ((p->end_fd = eventfd(0, EFD_CLOEXEC)) < 0 || (errno = start_thread(p)))
            rc = pr_fail_errno(err, PR_ERESOURCE, "watching for memory pressure");
    }
    if (rc) pressure_end(p);
    else *out = p;
    return rc;
}

void pressure_end(pressure *p)
{
    if (!p) return;
    if (p->running) {
        eventfd_write(p->end_fd, 1);
        pthread_join(p->thread, NULL);
    }
    if (p->end_fd >= 0) close(p->end_fd);
    for (size_t i = 0; i < p->n_files; i++) {
        close(p->file[i].read_fd);
        if (p->file[i].event_fd >= 0) close(p->file[i].event_fd);
    }
    free(p);
}

const char *pressure_source(const pressure *p)
{
    return !p->n_files ? "none" : p->told ? "kernel" : "polling";
}

#else

struct pressure {
    char none;
};

int pressure_watch(pressure **out, const pressure_options *o, pressure_fn fn, void *arg, pr_err *err)
{
    (void)o;
    (void)fn;
    (void)arg;
    if (!(*out = calloc(1, sizeof **out))) return pr_fail(err, PR_ERESOURCE, "out of memory");
    return PR_OK;
}

void pressure_end(pressure *p)
{
    free(p);
}

const char *pressure_source(const pressure *p)
{
    (void)p;
    return "none";
}
#endif
