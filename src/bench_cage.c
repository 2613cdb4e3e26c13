/* A memory control group for a benchmark's process; see bench_cage.h. Swap is forbidden where the kernel
 * counts it. */
#include "src/bench_cage.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool put(const bench_cage *c, const char *name, const char *text)
{
    char path[320];
    int fd;
    bool done;

    snprintf(path, sizeof path, "%s/%s", c->dir, name);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return false;
    done = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    close(fd);
    return done;
}

static bool put_bytes(const bench_cage *c, const char *name, uint64_t bytes)
{
    char text[32];

    snprintf(text, sizeof text, "%llu", (unsigned long long)bytes);
    return put(c, name, text);
}

/* v2: the controller must be given to the children of the root group first. */
static bool make_v2(bench_cage *c, uint64_t bytes)
{
    const bench_cage root = {"/sys/fs/cgroup", true};

    if (access("/sys/fs/cgroup/cgroup.controllers", R_OK)) return false;
    put(&root, "cgroup.subtree_control", "+memory");
    snprintf(c->dir, sizeof c->dir, "/sys/fs/cgroup/prima-bench-%ld", (long)getpid());
    c->v2 = true;
    if (mkdir(c->dir, 0755)) return false;
    put(c, "memory.swap.max", "0");
    return put_bytes(c, "memory.max", bytes);
}

static bool make_v1(bench_cage *c, uint64_t bytes)
{
    snprintf(c->dir, sizeof c->dir, "/sys/fs/cgroup/memory/prima-bench-%ld", (long)getpid());
    c->v2 = false;
    if (mkdir(c->dir, 0755)) return false;
    put(c, "memory.swappiness", "0");
    return put_bytes(c, "memory.limit_in_bytes", bytes);
}

bool bench_cage_make(bench_cage *c, uint64_t bytes, char why[160])
{
    if (make_v2(c, bytes)) return true;
    if (c->v2) rmdir(c->dir);
    if (make_v1(c, bytes)) return true;
    snprintf(why, 160, "no memory control group can be made here (%s)", strerror(errno));
    rmdir(c->dir);
    return false;
}

bool bench_cage_enter(const bench_cage *c)
{
    char pid[32];

    snprintf(pid, sizeof pid, "%ld", (long)getpid());
    return put(c, "cgroup.procs", pid);
}

uint64_t bench_cage_peak(const bench_cage *c)
{
    char path[320], text[32] = "";
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", c->dir, c->v2 ? "memory.peak" : "memory.max_usage_in_bytes");
    if (!(f = fopen(path, "re"))) return 0;
    if (!fgets(text, sizeof text, f)) text[0] = 0;
    fclose(f);
    return strtoull(text, NULL, 10);
}

/* A group stays busy for a moment after its process has ended. */
void bench_cage_remove(const bench_cage *c)
{
    for (int i = 0; i < 100 && rmdir(c->dir) && errno == EBUSY; i++) usleep(20000);
}
