/* The reader of extents: what arrives, in both engines and modes, on a disk and in memory; its order, its
 * speed limit, its ends. What goes wrong below it: test_disk_read_faults.c. */
#include "src/base/clock.h"
#include "src/base/disk_read.h"
#include "tests/base/pattern_file.h"
#include "tests/common/prima.h"
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

enum { FILE_BYTES = (3 << 20) + 12345, ROOM_BYTES = 8 << 20 };

static uint8_t *memory; /* ROOM_BYTES, aligned */
static char shm_path[64];

static void setup(void)
{
    test_dir_new();
    snprintf(shm_path, sizeof shm_path, "/dev/shm/prima-disk-read-%d", (int)getpid());
    cr_assert_eq(posix_memalign((void **)&memory, DISK_READ_ALIGN, ROOM_BYTES), 0);
    memset(memory, 0xa5, ROOM_BYTES);
}

static void teardown(void)
{
    unlink(shm_path);
    free(memory);
    test_dir_remove();
}

TestSuite(disk_read, .init = setup, .fini = teardown, .timeout = 60);

static disk_read *open_file(const char *path, disk_read_options o)
{
    disk_read *d = NULL;
    pr_err err = {0};

    cr_assert_eq(disk_read_open(&d, path, &o, &err), PR_OK, "%s", err.msg);
    return d;
}

static void submit(disk_read *d, uint64_t tag, uint64_t at, size_t n, void *dst)
{
    pr_err err = {0};

    cr_assert_eq(disk_read_submit(d, tag, at, n, dst, &err), PR_OK, "%s", err.msg);
}

static uint64_t wait_done(disk_read *d)
{
    pr_err err = {0};
    uint64_t tag = UINT64_MAX;

    cr_assert_eq(disk_read_wait(d, 20, &tag, &err), DISK_READ_DONE, "%s", err.msg);
    return tag;
}

/* --- what arrives -------------------------------------------------------------------------------------- */
typedef struct {
    disk_read_engine engine;
    disk_read_mode mode;
    bool shm;
    size_t block_bytes;
    unsigned depth;
} way;

ParameterizedTestParameters(disk_read, contents)
{
    static const struct {
        size_t block_bytes;
        unsigned depth;
    } cuts[] = {{4096, 1}, {4096, 7}, {65536, 4}, {0, 0}, {8 << 20, 128}};
    static way ways[2 * 2 * 2 * 5];
    size_t n = 0;

    for (int e = 0; e < 2; e++)
        for (int m = 0; m < 2; m++)
            for (int s = 0; s < 2; s++)
                for (size_t c = 0; c < 5; c++)
                    ways[n++] = (way){e ? DISK_READ_URING : DISK_READ_PREAD,
                                      m ? DISK_READ_DIRECT : DISK_READ_BUFFERED, s, cuts[c].block_bytes,
                                      cuts[c].depth};
    return cr_make_param_array(way, ways, n);
}

enum { N_REQUESTS = 40, MAX_PAGES = ROOM_BYTES / N_REQUESTS / DISK_READ_ALIGN };

typedef struct {
    uint64_t at;
    size_t n;
    bool ended;
} extent;

/* Random extents; the first is the file's end, the second ends there. */
static void choose(extent *x, uint64_t *seed)
{
    static const uint64_t pages = FILE_BYTES / DISK_READ_ALIGN + 1;

    for (size_t i = 0; i < N_REQUESTS; i++) {
        uint64_t n = 1 + pattern_word(*seed += 2) % MAX_PAGES, at = pattern_word(*seed + 1) % pages;
        if (i == 0) at = pages - (n = 1);
        if (i == 1) at = pages - n;
        if (n > pages - at) n = pages - at;
        x[i] = (extent){at * DISK_READ_ALIGN, n * DISK_READ_ALIGN, false};
    }
}

static void check_facts(const disk_read_facts f, const way *w, uint64_t bytes)
{
    cr_expect_eq(f.bytes, bytes);
    cr_expect_eq(f.requests, 2u * N_REQUESTS);
    cr_expect(f.busy_s > 0 && f.busy_s < 60);
    cr_expect_eq(f.depth, w->depth ? w->depth : 16);
    cr_expect_eq(f.block_bytes, w->block_bytes ? w->block_bytes : 1 << 20);
    cr_expect(f.engine == w->engine || strstr(f.why, "io_uring"), "%s", f.why);
    cr_expect(f.mode == w->mode || strstr(f.why, "page cache"), "%s", f.why);
    cr_expect_neq(f.engine, DISK_READ_AUTO);
}

ParameterizedTest(way *w, disk_read, contents)
{
    const char *path = w->shm ? shm_path : in_dir("f");
    uint64_t seed = w->depth, bytes = 0;
    extent x[N_REQUESTS];
    disk_read *d;

    pattern_write(path, FILE_BYTES);
    d = open_file(path, (disk_read_options){w->engine, w->mode, w->block_bytes, w->depth, 0, w->shm});
    for (int round = 0; round < 2; round++) {
        choose(x, &seed);
        for (size_t i = 0; i < N_REQUESTS; i++)
            submit(d, i, x[i].at, x[i].n, memory + i * MAX_PAGES * DISK_READ_ALIGN);
        for (size_t k = 0; k < N_REQUESTS; k++) {
            uint64_t i = wait_done(d);
            cr_assert(i < N_REQUESTS && !x[i].ended, "request %llu", (unsigned long long)i);
            x[i].ended = true;
            bytes += x[i].n;
            cr_assert(pattern_is(memory + i * MAX_PAGES * DISK_READ_ALIGN, x[i].at, x[i].n, FILE_BYTES),
                      "%zu bytes at %llu", x[i].n, (unsigned long long)x[i].at);
        }
    }
    check_facts(disk_read_about(d), w, bytes);
    disk_read_close(d);
}

/* Neither what was read through the cache stays in it, nor what was read past it comes there. */
Test(disk_read, leaves_no_cache)
{
    enum { PAGES = FILE_BYTES / 4096 + 1 };
    const char *path = in_dir("f");
    unsigned char there[PAGES];
    size_t n = 0;

    if (sysconf(_SC_PAGESIZE) != 4096) cr_skip_test("pages of another size");
    pattern_write(path, FILE_BYTES);
    for (int mode = 0; mode < 4; mode++) {
        disk_read_options o = {mode % 2 ? DISK_READ_URING : DISK_READ_PREAD,
                               mode / 2 ? DISK_READ_DIRECT : DISK_READ_BUFFERED,
                               65536,
                               4,
                               0,
                               false};
        disk_read *d = open_file(path, o);
        int fd = open(path, O_RDONLY);
        void *map = mmap(NULL, FILE_BYTES, PROT_READ, MAP_SHARED, fd, 0);
        submit(d, 0, 0, (size_t)PAGES * 4096, memory);
        wait_done(d);
        cr_assert_eq(mincore(map, FILE_BYTES, (void *)there), 0);
        n = 0;
        for (size_t i = 0; i < PAGES; i++) n += there[i] & 1;
        cr_expect_lt(n, PAGES / 8u, "%zu of %d pages stayed, way %d", n, PAGES, mode);
        munmap(map, FILE_BYTES);
        close(fd);
        disk_read_close(d);
    }
}

/* --- order, ends, time ---------------------------------------------------------------------------------- */
ParameterizedTestParameters(disk_read, each)
{
    static way ways[] = {{DISK_READ_PREAD, DISK_READ_DIRECT, false, 0, 0},
                         {DISK_READ_URING, DISK_READ_DIRECT, false, 0, 0},
                         {DISK_READ_PREAD, DISK_READ_BUFFERED, false, 0, 0},
                         {DISK_READ_URING, DISK_READ_BUFFERED, false, 0, 0}};
    return cr_make_param_array(way, ways, 4);
}

static void in_order(const way *w)
{
    disk_read *d = open_file(in_dir("f"), (disk_read_options){w->engine, w->mode, 4096, 1, 0, false});

    for (size_t i = 0; i < 50; i++) submit(d, 100 + i, i * 20480, 20480, memory + i * 20480);
    for (size_t i = 0; i < 50; i++) cr_expect_eq(wait_done(d), 100 + i);
    disk_read_close(d);
}

static void *submit_all(void *arg)
{
    disk_read *d = arg;

    for (size_t i = 0; i < disk_read_room(d); i++) submit(d, i, 0, 3 << 20, memory);
    return NULL;
}

/* As many requests as there may be, from a thread that ends; then closed: nothing is written to their memory
 * any more. */
static void closed_early(const way *w)
{
    disk_read *d = open_file(in_dir("f"), (disk_read_options){w->engine, w->mode, 65536, 32, 0, false});
    pthread_t thread;
    pr_err err = {0};

    cr_assert_eq(pthread_create(&thread, NULL, submit_all, d), 0);
    pthread_join(thread, NULL);
    cr_expect_eq(disk_read_submit(d, 0, 0, 4096, memory, &err), PR_EINTERNAL);
    disk_read_close(d);
    memset(memory, 0x5a, ROOM_BYTES);
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    for (size_t i = 0; i < ROOM_BYTES; i++) cr_assert_eq(memory[i], 0x5a, "byte %zu", i);
}

/* An end on a page's boundary, within a page, and all of it; what is before it arrives. */
static void truncated(const way *w)
{
    static const off_t ends[] = {1 << 20, (1 << 20) + 100, 0};

    for (size_t k = 0; k < 3; k++) {
        disk_read *d;
        uint64_t tag;
        pr_err err = {0};
        pattern_write(in_dir("f"), FILE_BYTES);
        d = open_file(in_dir("f"), (disk_read_options){w->engine, w->mode, 65536, 4, 0, false});
        cr_assert_eq(truncate(in_dir("f"), ends[k]), 0);
        if (ends[k]) {
            submit(d, 7, 0, 1 << 20, memory);
            cr_expect_eq(wait_done(d), 7u);
            cr_expect(pattern_is(memory, 0, 1 << 20, FILE_BYTES));
        }
        submit(d, 8, 1 << 19, 2 << 20, memory);
        cr_expect_eq(disk_read_wait(d, 20, &tag, &err), DISK_READ_FAILED);
        cr_expect_eq(tag, 8u);
        cr_expect_eq(err.code, PR_EINTEGRITY);
        cr_expect_not_null(strstr(err.msg, "/f: nothing at offset"), "%s", err.msg);
        cr_expect_not_null(strstr(err.msg, "had 3158073 bytes"), "%s", err.msg);
        cr_expect_eq(disk_read_about(d).requests, ends[k] ? 1u : 0u);
        disk_read_close(d);
    }
}

ParameterizedTest(way *w, disk_read, each)
{
    pattern_write(in_dir("f"), FILE_BYTES);
    in_order(w);
    closed_early(w);
    truncated(w);
}

static void *wake_later(void *d)
{
    nanosleep(&(struct timespec){.tv_nsec = 30000000}, NULL);
    disk_read_wake(d);
    return NULL;
}

static void woken(disk_read_engine engine)
{
    disk_read *d = open_file(in_dir("f"), (disk_read_options){.engine = engine});
    uint64_t tag, start = clock_ns();
    pthread_t thread;

    cr_expect_eq(disk_read_wait(d, 0, &tag, NULL), DISK_READ_TIMEOUT);
    cr_expect_eq(disk_read_wait(d, 0.05, &tag, NULL), DISK_READ_TIMEOUT);
    cr_expect_geq(clock_ms_since(start), 50);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(pthread_create(&thread, NULL, wake_later, d), 0);
        cr_expect_eq(disk_read_wait(d, -1, &tag, NULL), DISK_READ_TIMEOUT);
        pthread_join(thread, NULL);
    }
    start = clock_ns();
    disk_read_wake(d); /* before the wait: it must not be lost */
    disk_read_wake(d);
    cr_expect_eq(disk_read_wait(d, -1, &tag, NULL), DISK_READ_TIMEOUT);
    cr_expect_lt(clock_ms_since(start), 5000);
    submit(d, 5, 0, 1 << 20, memory);
    cr_expect_eq(wait_done(d), 5u);
    cr_expect_eq(disk_read_wait(d, 0.001, &tag, NULL), DISK_READ_TIMEOUT);
    disk_read_close(d);
}

Test(disk_read, wake)
{
    pattern_write(in_dir("f"), FILE_BYTES);
    woken(DISK_READ_PREAD);
    woken(DISK_READ_URING);
}

/* 30 MB/s. Never faster; on a busy machine one of several tries is not slower either. */
static double limited_rate(disk_read_engine engine)
{
    disk_read *d = open_file(
        in_dir("f"), (disk_read_options){.engine = engine, .block_bytes = 65536, .limit_bytes_s = 30000000});
    uint64_t start;
    double s;

    nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL); /* a pause gives no credit */
    start = clock_ns();
    for (int i = 0; i < 4; i++) submit(d, 0, 0, 3 << 20, memory);
    for (int i = 0; i < 4; i++) wait_done(d);
    s = clock_ms_since(start) / 1e3;
    disk_read_close(d);
    return 4.0 * (3 << 20) / s;
}

Test(disk_read, limit)
{
    pattern_write(in_dir("f"), FILE_BYTES);
    for (int engine = DISK_READ_URING; engine <= DISK_READ_PREAD; engine++) {
        double rate = 0;
        for (int tries = 0; tries < 5 && rate < 0.85 * 30e6; tries++) {
            rate = limited_rate((disk_read_engine)engine);
            cr_expect_lt(rate, 1.15 * 30e6);
        }
        cr_expect_gt(rate, 0.85 * 30e6, "%.0f bytes/s, engine %d", rate, engine);
    }
}

/* --- refusals ------------------------------------------------------------------------------------------- */
static int try_open(const char *path, disk_read_options o, pr_err *err)
{
    disk_read *d = NULL;
    int rc = disk_read_open(&d, path, &o, err);

    cr_expect(!rc == !!d);
    disk_read_close(d);
    return rc;
}

Test(disk_read, refused_files_and_options)
{
    pr_err err = {0};

    pattern_write(in_dir("f"), 5000);
    cr_expect_eq(try_open(in_dir("none"), (disk_read_options){0}, &err), PR_ERESOURCE);
    cr_expect_not_null(strstr(err.msg, "/none: cannot be opened: No such file"), "%s", err.msg);
    cr_expect_eq(try_open(in_dir(""), (disk_read_options){0}, &err), PR_ERESOURCE);
    cr_expect_eq(try_open(in_dir("f"), (disk_read_options){.block_bytes = 2048}, &err), PR_EUSAGE);
    cr_expect_eq(try_open(in_dir("f"), (disk_read_options){.block_bytes = 12288}, &err), PR_EUSAGE);
    cr_expect_eq(try_open(in_dir("f"), (disk_read_options){.block_bytes = 128 << 20}, &err), PR_EUSAGE);
    cr_expect_eq(try_open(in_dir("f"), (disk_read_options){.depth = 129}, &err), PR_EUSAGE);
    disk_read_close(NULL);
}

Test(disk_read, refused_requests)
{
    disk_read *d;
    pr_err err = {0};
    uint64_t tag;

    pattern_write(in_dir("f"), 5000);
    d = open_file(in_dir("f"), (disk_read_options){0});
    cr_expect_eq(disk_read_submit(d, 1, 0, 0, memory, &err), PR_EINTERNAL);
    cr_expect_eq(disk_read_submit(d, 1, 0, 4095, memory, &err), PR_EINTERNAL);
    cr_expect_eq(disk_read_submit(d, 1, 512, 4096, memory, &err), PR_EINTERNAL);
    cr_expect_eq(disk_read_submit(d, 1, 0, 4096, memory + 512, &err), PR_EINTERNAL);
    cr_expect_eq(disk_read_submit(d, 1, 0, 12288, memory, &err), PR_EINTEGRITY);
    cr_expect_eq(disk_read_submit(d, 1, 8192, 4096, memory, &err), PR_EINTEGRITY);
    cr_expect_not_null(strstr(err.msg, "/f: 4096 bytes needed at offset 8192, but the file has 5000"), "%s",
                       err.msg);
    cr_expect_eq(disk_read_submit(d, 1, UINT64_MAX - 4095, 8192, memory, &err), PR_EINTEGRITY);
    cr_expect_eq(disk_read_wait(d, 0, &tag, &err), DISK_READ_TIMEOUT);
    submit(d, 2, 0, 8192, memory);
    cr_expect_eq(wait_done(d), 2u);
    cr_expect(pattern_is(memory, 0, 8192, 5000));
    disk_read_close(d);
    pattern_write(in_dir("empty"), 0);
    d = open_file(in_dir("empty"), (disk_read_options){0});
    cr_expect_eq(disk_read_submit(d, 1, 0, 4096, memory, &err), PR_EINTEGRITY);
    disk_read_close(d);
}

/* --- in words ------------------------------------------------------------------------------------------- */
Test(disk_read_words, there_and_back)
{
    char words[DISK_READ_WORDS_BYTES];
    disk_read_options o = {.engine = DISK_READ_PREAD,
                           .mode = DISK_READ_BUFFERED,
                           .block_bytes = 65536,
                           .depth = 7},
                      back = {.limit_bytes_s = 5, .idle = true};

    disk_read_words(&o, words);
    cr_expect_str_eq(words, "pread buffered 65536 7");
    cr_assert(disk_read_parse(&back, words));
    cr_expect(back.engine == o.engine && back.mode == o.mode && back.block_bytes == 65536 && back.depth == 7);
    cr_expect(back.limit_bytes_s == 5 && back.idle, "left alone");
    cr_assert(disk_read_parse(&back, "auto direct 0 0"));
}

Test(disk_read_words, not_such_words)
{
    static const char *const bad[] = {"",
                                      "uring",
                                      "uring direct",
                                      "uring direct 4096",
                                      "uring direct 4096 1 x",
                                      "fio direct 4096 1",
                                      "uring sideways 4096 1",
                                      "uring direct 5000 1",
                                      "uring direct 512 1",
                                      "uring direct 4096 1000",
                                      "uring direct 99999999999 1"};

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        disk_read_options o = {.depth = 3};
        cr_expect_not(disk_read_parse(&o, bad[i]), "%s", bad[i]);
        cr_expect_eq(o.depth, 3);
    }
}
