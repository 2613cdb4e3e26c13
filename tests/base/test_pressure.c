/* Memory pressure, from files made in a folder. The calls below stand in front of libc's: a threshold written
 * into a file is taken as a kernel would, and the test says when it is passed. */
#include "src/base/clock.h"
#include "src/base/pressure.h"
#include "tests/common/prima.h"
#include <criterion/criterion.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* --- the kernel ------------------------------------------------------------------------------------------
 */
static char threshold[64];
static bool knows_thresholds;
static atomic_int events, gone, polls; /* to tell of; the group is; calls of the watcher */

ssize_t write(int fd, const void *data, size_t n)
{
    if (n > 5 && n < sizeof threshold && !memcmp(data, "some ", 5) && !((const char *)data)[n - 1]) {
        if (!knows_thresholds) return -1;
        memcpy(threshold, data, n);
        return (ssize_t)n;
    }
    return syscall(SYS_write, fd, data, n);
}

/* Watches of POLLPRI are told here, the others by the system, at the latest after a while. */
int poll(struct pollfd *on, nfds_t n, int timeout_ms)
{
    uint64_t start = clock_ns();

    if (n > 1 && on[1].events == POLLPRI) atomic_fetch_add(&polls, 1);
    for (;;) {
        struct timespec moment = {.tv_nsec = 2000000};
        int got = (int)syscall(SYS_ppoll, on, n, &moment, NULL, 0);
        for (nfds_t i = 0; i < n; i++) {
            if (on[i].events != POLLPRI || on[i].fd < 0) continue;
            if (atomic_load(&gone)) on[i].revents = POLLPRI | POLLERR;
            else if (atomic_load(&events)) {
                on[i].revents = POLLPRI;
                atomic_fetch_sub(&events, 1);
            }
            got += on[i].revents != 0;
        }
        if (got || (timeout_ms >= 0 && clock_ms_since(start) >= timeout_ms)) return got;
    }
}

/* --- the tests -------------------------------------------------------------------------------------------
 */
static void setup(void)
{
    test_dir_new();
}

TestSuite(pressure, .init = setup, .fini = test_dir_remove, .timeout = 60);

typedef struct {
    pthread_mutex_t mutex;
    int n_high, n_over;
    double last_pct;
} notes;

static void note(void *arg, bool high, double some_pct)
{
    notes *t = arg;

    pthread_mutex_lock(&t->mutex);
    if (high) t->n_high++;
    else t->n_over++;
    t->last_pct = some_pct;
    pthread_mutex_unlock(&t->mutex);
}

static notes look(notes *t)
{
    notes now;

    pthread_mutex_lock(&t->mutex);
    now = *t;
    pthread_mutex_unlock(&t->mutex);
    return now;
}

static void pause_ms(long ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

/* Until it was said so often that pressure is high, or over; a busy machine may take its time. */
static void expect_notes(notes *t, int n_high, int n_over)
{
    notes now = look(t);

    for (int i = 0; i < 500 && (now.n_high < n_high || now.n_over < n_over); i++) {
        pause_ms(20);
        now = look(t);
    }
    cr_assert(now.n_high >= n_high && now.n_over >= n_over, "%d times high, %d over", now.n_high, now.n_over);
}

static void folders(const char *path)
{
    char command[600];

    snprintf(command, sizeof command, "mkdir -p '%s'", in_dir(path));
    cr_assert_eq(system(command), 0);
}

/* What was waited so far; renamed into place, so that no half of it is read. The reader keeps the old file
 * open, so it is written over instead: all sizes are equal. */
static void psi(const char *path, unsigned long long total_us)
{
    char text[200];
    FILE *f = fopen(in_dir(path), "r+");

    snprintf(text, sizeof text,
             "some avg10=0.00 avg60=0.00 avg300=0.00 total=%020llu\nfull avg10=0.00 avg60=0.00 avg300=0.00 "
             "total=27021221\n",
             total_us);
    if (!f) f = fopen(in_dir(path), "w");
    cr_assert_not_null(f);
    fwrite(text, strlen(text), 1, f);
    fclose(f);
}

static pressure *start(notes *t, double poll_s, double calm_s)
{
    static char root[512];
    const pressure_options o = {.high_pct = 20, .calm_s = calm_s, .poll_s = poll_s, .root = root};
    pressure *p = NULL;
    pr_err err = {0};

    snprintf(root, sizeof root, "%s", in_dir(""));
    cr_assert_eq(pressure_watch(&p, &o, note, t, &err), PR_OK, "%s", err.msg);
    return p;
}

Test(pressure, none)
{
    notes t = {.mutex = PTHREAD_MUTEX_INITIALIZER};
    pressure *p = start(&t, 0.01, 0.1);

    cr_expect_str_eq(pressure_source(p), "none");
    pressure_end(p);
    folders("proc/pressure");
    write_file(in_dir("proc/pressure/memory"), "what is this\n");
    p = start(&t, 0.01, 0.1);
    cr_expect_str_eq(pressure_source(p), "none");
    pressure_end(p);
    pressure_end(NULL);
}

/* This machine, whatever it has. */
Test(pressure, real)
{
    notes t = {.mutex = PTHREAD_MUTEX_INITIALIZER};
    const pressure_options o = {0};
    pressure *p = NULL;

    knows_thresholds = true;
    cr_assert_eq(pressure_watch(&p, &o, note, &t, NULL), PR_OK);
    cr_expect(!strcmp(pressure_source(p), "none") == !!access("/proc/pressure/memory", R_OK), "%s",
              pressure_source(p));
    pause_ms(30);
    pressure_end(p);
}

/* Waited all the time, then not at all, then again, as the machine or as the group sees it. */
static void high_and_over(const char *file)
{
    notes t = {.mutex = PTHREAD_MUTEX_INITIALIZER};
    unsigned long long total = 5000000;
    pressure *p;

    psi("proc/pressure/memory", total);
    psi(file, total);
    p = start(&t, 0.01, 1); /* calm: longer than this thread may be kept from looking */
    cr_expect_str_eq(pressure_source(p), "polling");
    pause_ms(50);
    cr_expect_eq(look(&t).n_high + look(&t).n_over, 0, "nothing has happened yet");
    for (int round = 1; round <= 2; round++) {
        int before = look(&t).n_high;
        psi(file, total += 60000000);
        expect_notes(&t, before + 1, round - 1);
        cr_expect_float_eq(look(&t).last_pct, 100, 0, "%g", look(&t).last_pct);
        expect_notes(&t, before + 1, round);
        cr_expect_eq(look(&t).n_high, before + 1, "said again although nobody waited");
        cr_expect_float_eq(look(&t).last_pct, 0, 0);
    }
    pressure_end(p);
    cr_expect_eq(look(&t).n_over, 2);
}

Test(pressure, of_the_machine)
{
    folders("proc/pressure");
    high_and_over("proc/pressure/memory");
}

Test(pressure, of_the_group)
{
    folders("proc/pressure");
    folders("proc/self");
    folders("sys/fs/cgroup/user.slice/job/inner");
    write_file(in_dir("proc/self/cgroup"), "0::/user.slice/job/inner\n");
    high_and_over("sys/fs/cgroup/user.slice/job/memory.pressure"); /* of the nearest that has one */
}

/* A little waiting is not high: 10 % of a second, which is 20 % only of what no period is as short as. */
Test(pressure, below)
{
    notes t = {.mutex = PTHREAD_MUTEX_INITIALIZER};
    unsigned long long total = 5000000;
    pressure *p;

    folders("proc/pressure");
    psi("proc/pressure/memory", total);
    p = start(&t, 0.2, 0.2);
    for (int i = 0; i < 8; i++) {
        psi("proc/pressure/memory", total += 5000);
        pause_ms(100); /* or more: less than 5 % */
    }
    cr_expect_eq(look(&t).n_high + look(&t).n_over, 0);
    pressure_end(p);
}

/* The kernel tells: nobody looks while all is well, and what it tells is looked into. */
Test(pressure, told_by_the_kernel)
{
    notes t = {.mutex = PTHREAD_MUTEX_INITIALIZER};
    unsigned long long total = 5000000;
    pressure *p;

    knows_thresholds = true;
    folders("proc/pressure");
    psi("proc/pressure/memory", total);
    p = start(&t, 0, 1.5);
    cr_expect_str_eq(pressure_source(p), "kernel");
    cr_expect_str_eq(threshold, "some 400000 2000000");
    pause_ms(100);
    cr_expect_leq(atomic_load(&polls), 1);
    psi("proc/pressure/memory", total += 60000000); /* before it was told: of another time */
    for (int round = 0; round < 2; round++) {
        atomic_store(&events, 1);
        while (atomic_load(&events)) pause_ms(1);
        pause_ms(100);
        if (round) psi("proc/pressure/memory", total += 60000000);
        if (round) expect_notes(&t, 1, 1);
        else pause_ms(2500);
        cr_expect_eq(look(&t).n_high, round);
        cr_expect_eq(look(&t).n_over, round);
    }
    atomic_store(&polls, 0);
    pause_ms(2300);
    cr_expect_leq(atomic_load(&polls), 1);
    pressure_end(p);
}

/* A group that is removed is no pressure, and no reason to look all the time. */
Test(pressure, gone)
{
    notes t = {.mutex = PTHREAD_MUTEX_INITIALIZER};
    pressure *p;

    knows_thresholds = true;
    folders("proc/pressure");
    psi("proc/pressure/memory", 5000000);
    p = start(&t, 0, 1.5);
    atomic_store(&gone, 1);
    pause_ms(100);
    cr_expect_leq(atomic_load(&polls), 5);
    cr_expect_eq(look(&t).n_high, 0);
    pressure_end(p);
}
