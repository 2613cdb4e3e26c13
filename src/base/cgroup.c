/* Control groups, read from their files.
 *
 * /proc/self/cgroup has one line a hierarchy: "0::/PATH" for v2, "N:memory,cpu:/PATH" for v1. The group's
 * files lie in /sys/fs/cgroup/PATH (v2) or /sys/fs/cgroup/CONTROLLER/PATH (v1). Inside a container PATH may
 * name a folder that only the host sees; what is missing is passed over, and the walk up to the mount point
 * finds the container's own limits there. v1 says "no limit" by a number near 2^63, v2 by the word "max". */
#include "src/base/cgroup.h"
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Numbers above this are v1's way to say "no limit" (LONG_MAX rounded down to a page). */
#define V1_UNLIMITED ((uint64_t)1 << 62)

typedef struct {
    const char *root;
    char dir[PATH_MAX]; /* the group's path below its mount point, "" or "/a/b" */
    bool v2;
} group;

/* false: longer than n. */
static bool path_of(char *path, size_t n, const group *g, const char *controller, const char *name)
{
    int length = snprintf(path, n, "%s/sys/fs/cgroup%s%s%s/%s", g->root, g->v2 ? "" : "/",
                          g->v2 ? "" : controller, g->dir, name);
    return length > 0 && (size_t)length < n;
}

static bool open_file(FILE **f, const group *g, const char *controller, const char *name)
{
    char path[2 * PATH_MAX];

    if (!path_of(path, sizeof path, g, controller, name)) return false;
    *f = fopen(path, "re");
    return *f != NULL;
}

/* Up to two numbers of a one-line file; "max" and "-1" give CGROUP_NO_LIMIT. Returns how many were read. */
static int read_numbers(const group *g, const char *controller, const char *name, uint64_t out[2])
{
    FILE *f;
    char word[32];
    int n = 0;

    if (!open_file(&f, g, controller, name)) return 0;
    while (n < 2 && fscanf(f, "%31s", word) == 1) {
        bool digits = word[0] >= '0' && word[0] <= '9';
        out[n++] = digits ? strtoull(word, NULL, 10) : CGROUP_NO_LIMIT;
    }
    fclose(f);
    return n;
}

static uint64_t read_stat(const group *g, const char *controller, const char *name, const char *key)
{
    FILE *f;
    char word[64];
    unsigned long long v;
    uint64_t found = 0;

    if (!open_file(&f, g, controller, name)) return 0;
    while (fscanf(f, "%63s %llu", word, &v) == 2)
        if (!strcmp(word, key)) found = v;
    fclose(f);
    return found;
}

/* Is `name` one of the words in the comma-separated list? */
static bool has_word(const char *list, const char *name)
{
    size_t n = strlen(name);

    for (const char *p = list; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
        if (!strncmp(p, name, n) && (p[n] == ',' || p[n] == 0)) return true;
    return false;
}

/* The group of this process for a controller: the v1 hierarchy that has it, else the v2 one. */
static bool find_group(group *g, const char *root, const char *controller)
{
    char line[PATH_MAX + 256];
    bool found = false;
    FILE *f;

    snprintf(line, sizeof line, "%s/proc/self/cgroup", root);
    *g = (group){.root = root};
    f = fopen(line, "re");
    if (!f) return false;
    while (fgets(line, sizeof line, f)) {
        char *list = strchr(line, ':'), *dir = list ? strchr(list + 1, ':') : NULL;
        if (!dir) continue;
        *dir++ = 0;
        dir[strcspn(dir, "\n")] = 0;
        bool v1 = has_word(list + 1, controller), v2 = !list[1] && !strncmp(line, "0:", 2);
        if (!v1 && !(v2 && !found)) continue;
        snprintf(g->dir, sizeof g->dir, "%s", strcmp(dir, "/") ? dir : "");
        g->v2 = !v1;
        found = true;
    }
    fclose(f);
    return found;
}

/* To the parent; false at the mount point. */
static bool go_up(group *g)
{
    char *slash = strrchr(g->dir, '/');

    if (!slash) return false;
    *slash = 0;
    return true;
}

/* Cache of files that nobody has mapped or used lately is given back when memory is asked for. */
static uint64_t room_here(const group *g)
{
    uint64_t limit[2], used[2], cache;

    if (read_numbers(g, "memory", g->v2 ? "memory.max" : "memory.limit_in_bytes", limit) < 1)
        return CGROUP_NO_LIMIT;
    if (limit[0] >= V1_UNLIMITED) return CGROUP_NO_LIMIT;
    if (read_numbers(g, "memory", g->v2 ? "memory.current" : "memory.usage_in_bytes", used) < 1) used[0] = 0;
    cache = read_stat(g, "memory", "memory.stat", g->v2 ? "inactive_file" : "total_inactive_file");
    used[0] -= cache < used[0] ? cache : used[0];
    return limit[0] > used[0] ? limit[0] - used[0] : 0;
}

uint64_t cgroup_memory_room(const char *root)
{
    uint64_t least = CGROUP_NO_LIMIT;
    group g;

    if (!find_group(&g, root, "memory")) return least;
    do {
        uint64_t here = room_here(&g);
        if (here < least) least = here;
    } while (go_up(&g));
    return least;
}

bool cgroup_find_file(const char *root, const char *controller, const char *name, char *path, size_t n)
{
    group g;

    if (!find_group(&g, root, controller)) return false;
    do
        if (path_of(path, n, &g, controller, name) && !access(path, F_OK)) return true;
    while (go_up(&g));
    return false;
}

static uint64_t cpu_here(const group *g)
{
    uint64_t quota[2] = {CGROUP_NO_LIMIT, 0};

    if (g->v2) {
        if (read_numbers(g, "cpu", "cpu.max", quota) < 2) return CGROUP_NO_LIMIT;
    } else {
        uint64_t period[2];
        if (read_numbers(g, "cpu", "cpu.cfs_quota_us", quota) < 1) return CGROUP_NO_LIMIT;
        if (read_numbers(g, "cpu", "cpu.cfs_period_us", period) < 1) return CGROUP_NO_LIMIT;
        quota[1] = period[0];
    }
    if (quota[0] > UINT64_MAX / 1000 || quota[1] == 0) return CGROUP_NO_LIMIT;
    return quota[0] * 1000 / quota[1];
}

uint64_t cgroup_cpu_millicores(const char *root)
{
    uint64_t least = CGROUP_NO_LIMIT;
    group g;

    if (!find_group(&g, root, "cpu")) return least;
    do {
        uint64_t here = cpu_here(&g);
        if (here < least) least = here;
    } while (go_up(&g));
    return least;
}
