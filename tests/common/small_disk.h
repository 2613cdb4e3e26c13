/* A file system of a few megabytes, where the system lets a test make one: for disks that fill. Linux. */
#ifndef PRIMA_TESTS_SMALL_DISK_H
#define PRIMA_TESTS_SMALL_DISK_H
#include "tests/common/prima.h"
#include <criterion/criterion.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* User or group `id` is root in a namespace of our own. */
static inline void small_disk_map(const char *path, unsigned id)
{
    FILE *f = fopen(path, "w");

    if (f) fprintf(f, "0 %u 1", id);
    if (f) fclose(f);
}

/* With these mount options ("size=16M"), at `path`: it exists in a child's namespace only, which needs no
 * rights, and is looked into from outside. Skips the test where that is not allowed. */
static inline pid_t small_disk(const char *options, char path[700])
{
    int done[2];
    char ready;
    pid_t pid;

    cr_assert_eq(mkdir(in_dir("disk"), 0755), 0);
    cr_assert_eq(pipe(done), 0);
    if (!(pid = fork())) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        const unsigned uid = getuid(), gid = getgid();
        if (unshare(CLONE_NEWUSER | CLONE_NEWNS)) _exit(1);
        write_file("/proc/self/setgroups", "deny");
        small_disk_map("/proc/self/uid_map", uid);
        small_disk_map("/proc/self/gid_map", gid);
        if (mount("disk", in_dir("disk"), "tmpfs", 0, options)) _exit(1);
        if (write(done[1], "", 1) == 1) pause();
        _exit(0);
    }
    close(done[1]);
    bool is_there = read(done[0], &ready, 1) == 1;
    close(done[0]);
    snprintf(path, 700, "/proc/%ld/root%s", (long)pid, in_dir("disk"));
    if (!is_there || access(path, W_OK)) {
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        cr_skip_test("a file system of our own is not allowed here");
    }
    return pid;
}

static inline void end_disk(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

#endif
