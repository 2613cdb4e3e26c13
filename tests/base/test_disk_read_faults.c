/* The reader of extents over a system that refuses, fails and dawdles. The calls below stand in front of
 * libc's and liburing's: a definition in the program comes before those of the shared libraries. */
#include "src/base/clock.h"
#include "src/base/disk_read.h"
#include "tests/base/pattern_file.h"
#include "tests/common/prima.h"
#include <criterion/criterion.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>
#ifdef PRIMA_URING
#include <liburing.h>
#endif

enum { FILE_BYTES = (3 << 20) + 12345, ROOM_BYTES = 8 << 20 };

/* --- the system ---------------------------------------------------------------------------------------- */
typedef enum { FAIL, HALF } fault;

static struct {
    bool refuse_direct_open, refuse_direct_read; /* as some file systems do */
    fault how;
    int error;
    atomic_int every;            /* every so many reads: how */
    atomic_int n, at_once, most; /* reads: so far, now, at most at once */
    long read_ns;
    int io_class;
} sys;

static int outcome(int res)
{
    int n = atomic_fetch_add(&sys.n, 1) + 1, every = atomic_load(&sys.every);

    if (!every || n % every || res <= 0) return res;
    return sys.how == FAIL ? -sys.error : res > 4096 ? res / 2 - n % 1000 : res; /* never twice at one spot */
}

int open(const char *path, int flags, ...)
{
    va_list more;
    mode_t mode;

    va_start(more, flags);
    mode = flags & O_CREAT ? va_arg(more, mode_t) : 0;
    va_end(more);
    if (flags & O_DIRECT && sys.refuse_direct_open) {
        errno = EINVAL;
        return -1;
    }
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

ssize_t pread(int fd, void *p, size_t n, off_t at)
{
    int now = atomic_fetch_add(&sys.at_once, 1) + 1, most = atomic_load(&sys.most);
    long got;

    while (now > most && !atomic_compare_exchange_weak(&sys.most, &most, now)) {}
    if (sys.read_ns) nanosleep(&(struct timespec){.tv_nsec = sys.read_ns}, NULL);
    if (sys.refuse_direct_read && fcntl(fd, F_GETFL) & O_DIRECT) {
        got = -1;
        errno = EINVAL;
    } else got = syscall(SYS_pread64, fd, p, n, at);
    if ((got = outcome(got < 0 ? -errno : (int)got)) < 0) {
        errno = (int)-got;
        got = -1;
    }
    sys.io_class = (int)syscall(SYS_ioprio_get, 1, 0) >> 13;
    atomic_fetch_sub(&sys.at_once, 1);
    return got;
}

#ifdef PRIMA_URING
static int refused_uring;

int io_uring_queue_init_params(unsigned n, struct io_uring *ring, struct io_uring_params *p)
{
    static int (*next)(unsigned, struct io_uring *, struct io_uring_params *);

    if (refused_uring) return -refused_uring;
    *(void **)&next = dlsym(RTLD_NEXT, "io_uring_queue_init_params");
    return next(n, ring, p);
}

unsigned io_uring_peek_batch_cqe(struct io_uring *ring, struct io_uring_cqe **done, unsigned max)
{
    static unsigned (*next)(struct io_uring *, struct io_uring_cqe **, unsigned);
    unsigned n;

    if (!next) *(void **)&next = dlsym(RTLD_NEXT, "io_uring_peek_batch_cqe");
    n = next(ring, done, max);
    for (unsigned i = 0; i < n; i++) done[i]->res = outcome(done[i]->res);
    return n;
}
#endif

/* --- the tests ----------------------------------------------------------------------------------------- */
static uint8_t *memory;

static void setup(void)
{
    test_dir_new();
    cr_assert_eq(posix_memalign((void **)&memory, DISK_READ_ALIGN, ROOM_BYTES), 0);
    memset(memory, 0xa5, ROOM_BYTES);
    pattern_write(in_dir("f"), FILE_BYTES);
}

static void teardown(void)
{
    free(memory);
    test_dir_remove();
}

TestSuite(disk_read_faults, .init = setup, .fini = teardown, .timeout = 60);

static disk_read *open_file(disk_read_options o)
{
    disk_read *d = NULL;
    pr_err err = {0};

    cr_assert_eq(disk_read_open(&d, in_dir("f"), &o, &err), PR_OK, "%s", err.msg);
    if (o.engine == DISK_READ_URING && disk_read_about(d).engine != o.engine)
        cr_skip_test("%s", disk_read_about(d).why);
    return d;
}

static void submit(disk_read *d, uint64_t tag, uint64_t at, size_t n, void *dst)
{
    pr_err err = {0};

    cr_assert_eq(disk_read_submit(d, tag, at, n, dst, &err), PR_OK, "%s", err.msg);
}

static void expect_all(disk_read *d)
{
    static const size_t n = (FILE_BYTES / 4096 + 1) * 4096;
    uint64_t tag;
    pr_err err = {0};

    submit(d, 1, 0, n, memory);
    cr_assert_eq(disk_read_wait(d, 20, &tag, &err), DISK_READ_DONE, "%s", err.msg);
    cr_expect(pattern_is(memory, 0, n, FILE_BYTES));
}

/* Once at open, and once as those do that only refuse to read. */
static void without_direct(void)
{
    for (int engine = DISK_READ_URING; engine <= DISK_READ_PREAD; engine++) {
        disk_read *d = open_file((disk_read_options){.engine = (disk_read_engine)engine});
        disk_read_facts f = disk_read_about(d);
        cr_expect_eq(f.mode, DISK_READ_BUFFERED);
        cr_expect_str_eq(f.why, "not past the page cache: Invalid argument");
        expect_all(d);
        disk_read_close(d);
    }
}

Test(disk_read_faults, direct_refused_at_open)
{
    sys.refuse_direct_open = true;
    without_direct();
}

Test(disk_read_faults, direct_refused_at_the_first_read)
{
    sys.refuse_direct_read = true;
    without_direct();
}

#ifdef PRIMA_URING
Test(disk_read_faults, uring_refused)
{
    static const struct {
        int error;
        const char *says;
    } cases[] = {{EPERM, "io_uring: not permitted here"},
                 {EACCES, "io_uring: not permitted here"},
                 {ENOSYS, "io_uring: this kernel has none"},
                 {ENOMEM, "io_uring: too little locked memory"},
                 {EMFILE, "io_uring: Too many open files"}};

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        disk_read *d = NULL;
        disk_read_facts f;
        refused_uring = cases[i].error;
        d = open_file((disk_read_options){0});
        f = disk_read_about(d);
        cr_expect_eq(f.engine, DISK_READ_PREAD);
        cr_expect_eq(strncmp(f.why, cases[i].says, strlen(cases[i].says)), 0, "%s", f.why);
        expect_all(d);
        disk_read_close(d);
    }
    sys.refuse_direct_open = true;
    disk_read *d = open_file((disk_read_options){0});
    cr_expect_str_eq(disk_read_about(d).why,
                     "io_uring: Too many open files; not past the page cache: Invalid argument");
    disk_read_close(d);
}
#endif

/* Every fifth read fails: requests of one block fail where theirs did, the others are right. */
static void some_fail(disk_read_engine engine)
{
    disk_read *d = open_file((disk_read_options){.engine = engine, .block_bytes = 65536, .depth = 8});
    int failed = 0;

    sys.how = FAIL;
    sys.error = EIO;
    atomic_store(&sys.n, 0);
    atomic_store(&sys.every, 5);
    for (uint64_t i = 0; i < 40; i++) submit(d, i, i * 65536, 65536, memory + i * 65536);
    for (int k = 0; k < 40; k++) {
        pr_err err = {0};
        uint64_t i = 0;
        char where[64];
        if (disk_read_wait(d, 20, &i, &err) == DISK_READ_DONE) {
            cr_expect(pattern_is(memory + i * 65536, i * 65536, 65536, FILE_BYTES));
            continue;
        }
        failed++;
        snprintf(where, sizeof where, "/f: reading at offset %d: Input/output error", (int)i * 65536);
        cr_expect_eq(err.code, PR_ERESOURCE);
        cr_expect_not_null(strstr(err.msg, where), "%s", err.msg);
    }
    cr_expect_eq(failed, 8);
    atomic_store(&sys.every, 0);
    cr_expect_eq(disk_read_about(d).requests, 32u);
    expect_all(d);
    disk_read_close(d);
}

/* A large request starts no more blocks after one has failed, and what stands behind it goes on. */
static void large_fails(disk_read_engine engine)
{
    disk_read *d = open_file((disk_read_options){.engine = engine, .block_bytes = 4096, .depth = 2});
    pr_err err = {0};
    uint64_t tag = 0;
    unsigned seen = 0;

    atomic_store(&sys.n, 0);
    atomic_store(&sys.every, 10);
    submit(d, 1, 0, 3 << 20, memory);
    submit(d, 2, 0, 8192, memory + (4 << 20));
    for (int i = 0; i < 2; i++) { /* either may end first */
        disk_read_end got = disk_read_wait(d, 20, &tag, &err);
        cr_expect_eq(got, tag == 1 ? DISK_READ_FAILED : DISK_READ_DONE);
        seen |= 1u << tag;
    }
    cr_expect_eq(seen, 1u << 1 | 1u << 2);
    cr_expect_leq(atomic_load(&sys.n), 13);
    cr_expect(pattern_is(memory + (4 << 20), 0, 8192, FILE_BYTES));
    atomic_store(&sys.every, 0);
    disk_read_close(d);
}

Test(disk_read_faults, errors_with_threads)
{
    some_fail(DISK_READ_PREAD);
    large_fails(DISK_READ_PREAD);
}

Test(disk_read_faults, errors_with_uring)
{
    some_fail(DISK_READ_URING);
    large_fails(DISK_READ_URING);
}

/* Interrupted, put off and short reads are carried on with; what is put off for ever is an error. */
static void odd_reads(disk_read_engine engine)
{
    static const int errors[] = {EINTR, EAGAIN, 0};

    for (int mode = 0; mode < 2; mode++)
        for (int k = 0; k < 3; k++) {
            disk_read *d = open_file((disk_read_options){.engine = engine,
                                                         .mode = mode ? DISK_READ_BUFFERED : DISK_READ_DIRECT,
                                                         .block_bytes = 65536,
                                                         .depth = 3});
            sys.error = errors[k];
            sys.how = errors[k] ? FAIL : HALF;
            atomic_store(&sys.every, 2);
            expect_all(d);
            atomic_store(&sys.every, 0);
            disk_read_close(d);
        }
}

static void never_ready(disk_read_engine engine)
{
    disk_read *d = open_file((disk_read_options){.engine = engine, .depth = 2});
    uint64_t tag;
    pr_err err = {0};

    sys.error = EAGAIN;
    sys.how = FAIL;
    atomic_store(&sys.every, 1);
    submit(d, 1, 0, 3 << 20, memory);
    cr_expect_eq(disk_read_wait(d, 20, &tag, &err), DISK_READ_FAILED);
    cr_expect_not_null(strstr(err.msg, "Resource temporarily unavailable"), "%s", err.msg);
    atomic_store(&sys.every, 0);
    disk_read_close(d);
}

Test(disk_read_faults, odd_reads_with_threads)
{
    odd_reads(DISK_READ_PREAD);
    never_ready(DISK_READ_PREAD);
}

Test(disk_read_faults, odd_reads_with_uring)
{
    odd_reads(DISK_READ_URING);
    never_ready(DISK_READ_URING);
}

/* The disk has `depth` blocks to work on as long as there are requests, also across their ends. */
Test(disk_read_faults, blocks_at_once)
{
    disk_read *d =
        open_file((disk_read_options){.engine = DISK_READ_PREAD, .block_bytes = 65536, .depth = 6});
    uint64_t start = clock_ns(), tag;

    sys.read_ns = 10000000;
    atomic_store(&sys.most, 0);
    for (uint64_t i = 0; i < 24; i++) submit(d, i, i * 65536, 65536, memory + i * 65536);
    for (uint64_t i = 0; i < 24; i++) cr_expect_eq(disk_read_wait(d, 20, &tag, NULL), DISK_READ_DONE);
    cr_expect_eq(atomic_load(&sys.most), 6);
    cr_expect_geq(clock_ms_since(start), 40);
    disk_read_close(d);
}

Test(disk_read_faults, idle_class)
{
    for (int idle = 0; idle < 2; idle++) {
        disk_read *d = open_file((disk_read_options){.engine = DISK_READ_PREAD, .idle = idle});
        expect_all(d);
        cr_expect_eq(sys.io_class == 3, idle == 1, "%d", sys.io_class);
        disk_read_close(d);
    }
}
