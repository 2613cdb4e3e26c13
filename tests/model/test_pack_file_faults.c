/* Packs when things go wrong: killed in the middle, several processes at once, no room, a failing disk, no
 * permission.
 *
 * This program's own pwrite and pread stand before the C library's, so that they can fail, lie and be
 * watched. */
#include "src/base/clock.h"
#include "tests/model/pack_rig.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#ifdef __linux__
#include "tests/common/small_disk.h"
#include <sys/syscall.h>
#endif

TestSuite(pack_faults, .init = rig_setup, .fini = rig_teardown, .timeout = 60);

/* Each layer that the journal speaks of is there, whole. */
static size_t check_what_is_said(void)
{
    pack_file_facts x;
    size_t n;

    if (access(rig_path("layers"), F_OK) || !rig_size(rig_path("layers"))) return 0;
    cr_assert_eq(pack_file_about(&x, rig_path("layers"), NULL), PR_OK);
    n = x.n_here;
    for (uint32_t i = 0; i < x.n_layers; i++)
        if (x.here[i]) cr_assert(rig_has_layer(rig_path("layers.pack"), i, RIG_SEED), "layer %u", i);
    pack_file_facts_clear(&x);
    return n;
}

/* --- a disk of our own --------------------------------------------------------------------------------- */
#ifdef __linux__
static struct {
    int write_error, read_error;  /* errno; 0: works */
    int64_t after_bytes;          /* so many bytes are still written before write_error */
    bool refuse_direct;           /* O_DIRECT opens, and does not work */
    bool lies;                    /* what is written is not what was given */
    useconds_t slow_us;           /* a write takes */
    int64_t n_direct, n_buffered; /* writes */
} disk = {.after_bytes = 0};

static bool is_direct(int fd)
{
    return fcntl(fd, F_GETFL) & O_DIRECT;
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t at)
{
    static uint8_t other[4 << 20];

    if (is_direct(fd)) disk.n_direct++;
    else disk.n_buffered++;
    if (disk.slow_us) usleep(disk.slow_us);
    if (is_direct(fd) && disk.refuse_direct) {
        errno = EINVAL;
        return -1;
    }
    if (disk.write_error && (disk.after_bytes -= (int64_t)n) < 0) {
        errno = disk.write_error;
        return -1;
    }
    if (!disk.lies || n > sizeof other) return syscall(SYS_pwrite64, fd, p, n, at);
    /* Buffered, since `other` is aligned to nothing. */
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int plain = open(path, O_WRONLY);
    ssize_t put = syscall(SYS_pwrite64, plain, other, n, at);
    fsync(plain);
    close(plain);
    return put;
}

ssize_t pread(int fd, void *p, size_t n, off_t at)
{
    if (disk.read_error) {
        errno = disk.read_error;
        return -1;
    }
    return syscall(SYS_pread64, fd, p, n, at);
}

Test(pack_faults, disk_full_on_the_way)
{
    static const int errors[] = {ENOSPC, EDQUOT, EIO};
    pack_file *f;
    struct stat before, after;
    pr_err err;

    rig_open_close(0, 1);
    cr_assert_eq(stat(rig_path("layers.pack"), &before), 0);
    for (size_t i = 0; i < 3; i++) {
        disk.write_error = errors[i];
        disk.after_bytes = 1000000; /* in the middle of the second of the three */
        cr_assert_eq(rig_try(&f, NULL, 0, 4, false, &err), PR_ERESOURCE);
        cr_expect_not_null(strstr(err.msg, "writing layer 2"), "%s", err.msg);
        cr_expect_not_null(strstr(err.msg, strerror(errors[i])), "%s", err.msg);
        if (errors[i] != EIO) cr_expect_not_null(strstr(err.msg, "--pack-dir"), "%s", err.msg);
        cr_expect_eq(check_what_is_said(), 2, "what was built does not stay");
        cr_assert_eq(stat(rig_path("layers.pack"), &after), 0);
        cr_expect_leq(after.st_blocks, 2 * before.st_blocks + 64, "what was not finished keeps its room");
        disk.write_error = 0;
        rig_flip(rig_at(1) + 100, false); /* so that the second is built again */
    }
    rig_open_close(0, 4);
    rig_expect_layers(0, 4);
}

Test(pack_faults, past_the_page_cache_where_it_is_allowed)
{
    rig_open_close(0, 2);
    if (!disk.n_direct) cr_skip_test("no O_DIRECT on this file system");
    cr_expect_eq(disk.n_buffered, 0);
}

Test(pack_faults, where_direct_writes_are_refused)
{
    disk.refuse_direct = true;
    rig_open_close(0, 3);
    rig_expect_layers(0, 3);
    cr_expect_leq(disk.n_direct, 3, "tried again and again");
}

Test(pack_faults, a_disk_that_writes_something_else)
{
    pack_file *f;
    pr_err err;

    disk.lies = true;
    cr_assert_eq(rig_try(&f, NULL, 0, 2, false, &err), PR_EINTEGRITY);
    cr_expect_not_null(strstr(err.msg, "reads back other"), "%s", err.msg);
    cr_expect_eq(rig_count("layer "), 0);
    disk.lies = false;
    rig_open_close(0, 2);
    rig_expect_layers(0, 2);
}

Test(pack_faults, a_disk_that_cannot_read)
{
    pack_file *f = rig_open(0, 2), *again;
    uint8_t got[64];
    pr_err err = {0};

    disk.read_error = EIO;
    cr_expect_eq(pack_file_read(f, 1, 0, sizeof got, got, &err), PR_ERESOURCE);
    cr_expect_not_null(strstr(err.msg, strerror(EIO)), "%s", err.msg);
    pack_file_close(f);
    disk.read_error = 0;
    rig_flip(
        7,
        false); /* now they have to be read, cannot be, and are built, which fails when they are read back */
    disk.read_error = EIO;
    cr_assert_eq(rig_try(&again, NULL, 0, 2, false, &err), PR_ERESOURCE);
    cr_expect_not_null(strstr(err.msg, strerror(EIO)), "%s", err.msg);
    disk.read_error = 0;
    rig_open_close(0, 2);
    rig_expect_layers(0, 2);
}

/* Damage that only reading has shown is not forgotten when mending fails. */
Test(pack_faults, a_loss_is_remembered)
{
    pack_file *f;
    pr_err err;

    rig_open_close(0, 2);
    rig_flip(rig_at(1) + 5000, true);
    disk.write_error = ENOSPC;
    cr_assert_eq(rig_try(&f, NULL, 0, 2, true, &err), PR_ERESOURCE);
    disk.write_error = 0;
    rig_open_close(0, 2);
    rig_expect_layers(0, 2);
}

/* --- no room ------------------------------------------------------------------------------------------- */
Test(pack_faults, too_small_a_disk_is_known_before)
{
    const uint32_t first = 0, end = PM_LAYERS;
    char path[700], expected[64];
    pack_file *f;
    pack_file_options o = {.dir = path};
    pack_file_room r;
    struct statvfs s;
    pr_err err = {0};
    size_t n;

    free(pm_record(0, RIG_SEED, &n));
    pid_t pid = small_disk("size=18M", path); /* 16 stay free, two layers fit */
    cr_assert_eq(pack_file_check_room(&r, &rig_model, &first, &end, 1, &o, &err), PR_ERESOURCE);
    cr_assert_eq(statvfs(path, &s), 0);
    cr_expect_eq(r.free_bytes, (uint64_t)s.f_bavail * s.f_frsize);
    cr_assert_eq(rig_try(&f, path, 0, PM_LAYERS, false, &err), PR_ERESOURCE);
    cr_assert_eq(statvfs(path, &s), 0);
    snprintf(expected, sizeof expected, "%zu bytes are missing",
             PM_LAYERS * n + (16 << 20) - (size_t)s.f_bavail * s.f_frsize);
    cr_expect_not_null(strstr(err.msg, expected), "expected %s: %s", expected, err.msg);
    cr_expect_not_null(strstr(err.msg, "--pack-dir"), "%s", err.msg);
    cr_assert_eq(rig_try(&f, path, 0, 2, false, &err), PR_OK, "%s", err.msg);
    pack_file_close(f);
    /* What is there needs no room. */
    cr_assert_eq(rig_try(&f, path, 0, 2, false, &err), PR_OK, "%s", err.msg);
    cr_expect(rig_has_layer(pack_file_path(f), 1, RIG_SEED));
    pack_file_close(f);
    end_disk(pid);
}
#endif

Test(pack_faults, a_file_system_without_room_for_the_whole_length)
{
    const struct rlimit limit = {1 << 20, 1 << 20};
    pack_file *f;
    pr_err err;

    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    cr_assert_eq(rig_try(&f, NULL, 0, 1, false, &err), PR_ERESOURCE);
    cr_expect_not_null(strstr(err.msg, "sparse file"), "%s", err.msg);
}

/* --- no permission ------------------------------------------------------------------------------------- */
/* fn as a user who may not write there; its result. */
static int as_somebody_else(int (*fn)(void))
{
    int status;
    pid_t pid = fork();

    if (!pid) {
        if (!getuid() && (setgid(65534) || setuid(65534))) _exit(100);
        _exit(fn());
    }
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static int use_three(void)
{
    pack_file *f;
    pr_err err;
    int rc = rig_try(&f, NULL, 0, 3, false, &err);

    if (rc) fprintf(stderr, "%s\n", err.msg);
    return rc ? -rc : 0;
}

static int want_a_fourth(void)
{
    pack_file *f;
    pr_err err;
    int rc = rig_try(&f, NULL, 0, 4, false, &err);

    return rc != PR_ERESOURCE ? 1 : strstr(err.msg, "cannot be written to") ? 0 : 2;
}

static int want_a_folder(void)
{
    pack_file *f;
    pr_err err;
    int rc = rig_try(&f, in_dir("closed/packs"), 0, 1, false, &err);

    return rc != PR_ERESOURCE ? 1 : strstr(err.msg, "closed/packs") ? 0 : 2;
}

Test(pack_faults, a_folder_that_may_only_be_read)
{
    rig_open_close(0, 3);
    cr_assert_eq(chmod(in_dir("."), 0755), 0);
    cr_assert_eq(chmod(rig_path("layers"), 0444), 0);
    cr_assert_eq(chmod(rig_path("layers.pack"), 0444), 0);
    cr_assert_eq(chmod(rig_path("."), 0555), 0);
    cr_expect_eq(as_somebody_else(use_three), 0);
    cr_expect_eq(as_somebody_else(want_a_fourth), 0);
    rig_flip(8, false); /* read and compared each time, since nothing can be noted: it is found, and cannot be
                           mended */
    cr_expect_eq(as_somebody_else(use_three), -PR_ERESOURCE);
    rig_flip(8, false);
    cr_expect_eq(as_somebody_else(use_three), 0);
    cr_assert_eq(chmod(rig_path("."), 0755), 0);
}

Test(pack_faults, a_folder_that_cannot_be_made)
{
    cr_assert_eq(chmod(in_dir("."), 0755), 0);
    cr_assert_eq(mkdir(in_dir("closed"), 0555), 0);
    cr_expect_eq(as_somebody_else(want_a_folder), 0);
}

/* Writing is allowed, and setting the file's time is not: there is no seal, and layers are read each time. */
Test(pack_faults, a_file_of_another_user)
{
    if (getuid()) cr_skip_test("only root can be several users");
    rig_open_close(0, 2);
    cr_assert_eq(chmod(in_dir("."), 0755), 0);
    cr_assert_eq(chmod(rig_path("layers"), 0666), 0);
    cr_assert_eq(chmod(rig_path("layers.pack"), 0666), 0);
    cr_expect_eq(as_somebody_else(use_three), 0);
    rig_expect_layers(0, 3);
    cr_expect_eq(as_somebody_else(use_three), 0);
    rig_open_close(0, 3);
    rig_expect_layers(0, 3);
}

/* --- killed -------------------------------------------------------------------------------------------- */
static pid_t start_packing(uint32_t first, uint32_t end)
{
    pid_t pid = fork();
    pack_file *f;
    pr_err err;

    if (pid) return pid;
    pool *p; /* threads do not live on in a child */
    if (pool_new(&p, 2, NULL)) _exit(1);
    rig_pool = p;
    if (rig_try(&f, NULL, first, end, false, &err)) {
        fprintf(stderr, "%s\n", err.msg);
        _exit(1);
    }
    _exit(0);
}

Test(pack_faults, killed_at_any_moment)
{
    size_t killed = 0, grown = 0, before = 0;
    int status;

    for (useconds_t us = 1000; us < 250000; us = us * 13 / 10) { /* 21 times */
        pid_t pid = start_packing(0, PM_LAYERS);
        usleep(us);
        kill(pid, SIGKILL);
        cr_assert_eq(waitpid(pid, &status, 0), pid);
        killed += WIFSIGNALED(status);
        size_t n = check_what_is_said();
        grown += n > before;
        before = n;
        if (n == PM_LAYERS) { /* from the beginning */
            cr_assert_eq(unlink(rig_path("layers")), 0);
            cr_assert_eq(unlink(rig_path("layers.pack")), 0);
            before = 0;
        }
    }
    cr_assert_gt(killed, 8);
    cr_assert_gt(grown, 0, "no kill came in the middle");
    rig_open_close(0, PM_LAYERS);
    rig_expect_layers(0, PM_LAYERS);
}

/* --- several at once ----------------------------------------------------------------------------------- */
Test(pack_faults, several_processes_build_each_layer_once)
{
    static const uint32_t first[] = {0, 2, 0, 4}, end[] = {4, 6, 6, 5};
    pid_t pid[4];
    int status;

    for (size_t i = 0; i < 4; i++) pid[i] = start_packing(first[i], end[i]);
    for (size_t i = 0; i < 4; i++) {
        cr_assert_eq(waitpid(pid[i], &status, 0), pid[i]);
        cr_expect_eq(status, 0);
    }
    rig_expect_layers(0, PM_LAYERS);
    cr_expect_eq(rig_count("layer "), PM_LAYERS);
    cr_expect_eq(rig_count("doubt "), 0, "one looked while another one wrote");
}

/* What the killed one had begun is built by the other one; what it had finished is read again, and found
 * right. */
Test(pack_faults, one_of_two_is_killed)
{
    int status;

    for (useconds_t us = 5000; us < 80000; us *= 2) {
        pid_t victim = start_packing(0, 5), other = start_packing(2, PM_LAYERS);
        usleep(us);
        kill(victim, SIGKILL);
        cr_assert_eq(waitpid(victim, &status, 0), victim);
        cr_assert_eq(waitpid(other, &status, 0), other);
        cr_expect_eq(status, 0);
        rig_expect_layers(2, PM_LAYERS);
        check_what_is_said();
        cr_assert_eq(unlink(rig_path("layers")), 0);
        cr_assert_eq(unlink(rig_path("layers.pack")), 0);
    }
}

typedef struct {
    volatile int stop;
    useconds_t after_us;
    uint64_t stopped_ns;
} stopper;

static void *stop_later(void *arg)
{
    stopper *s = arg;

    usleep(s->after_us);
    s->stopped_ns = clock_ns();
    s->stop = 1;
    return NULL;
}

/* Stopped after a while: soon, though what is being written goes to the disk first; *err is why. */
static void open_and_stop(uint32_t end, useconds_t after_us, pr_err *err)
{
    const uint32_t first = 0;
    pack_file_options o = {.dir = in_dir("packs")};
    stopper s = {.after_us = after_us};
    pthread_t thread;
    pack_file *f;

    cr_assert_eq(pthread_create(&thread, NULL, stop_later, &s), 0);
    cr_assert_eq(pack_file_open(&f, &rig_model, &first, &end, 1, &o, rig_pool, &s.stop, err),
                 PR_EINTERRUPTED);
    pthread_join(thread, NULL);
    cr_expect_lt(clock_ms_since(s.stopped_ns), 10000.0);
}

Test(pack_faults, stopped_while_it_waits_for_another_process)
{
    pr_err err = {0};

    rig_open_close(0, 2);
    int fd = open(rig_path("layers"), O_RDWR);
    cr_assert_eq(flock(fd, LOCK_EX), 0);
    open_and_stop(2, 100000, &err);
    close(fd);
    rig_open_close(0, 2);
}

#ifdef __linux__
Test(pack_faults, stopped_while_it_packs)
{
    pr_err err = {0};

    disk.slow_us = 20000;
    open_and_stop(PM_LAYERS, 300000, &err);
    cr_expect_not_null(strstr(err.msg, "what is there stays"), "%s", err.msg);
    disk.slow_us = 0;
    size_t n = check_what_is_said();
    cr_expect_lt(n, PM_LAYERS);
    rig_open_close(0, PM_LAYERS);
    rig_expect_layers(0, PM_LAYERS);
    cr_expect_eq(rig_count("layer "), PM_LAYERS, "what was built did not stay");
}

/* A layer whose writing takes several seconds. */
Test(pack_faults, stopped_in_the_middle_of_a_layer)
{
    pr_err err = {0};

    disk.slow_us = 300000;
    open_and_stop(PM_LAYERS, 400000, &err);
    cr_expect_eq(check_what_is_said(), 0);
}
#endif
