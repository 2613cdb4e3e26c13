/* Limits read from control groups, on trees made in a folder as Linux, Docker and systemd make them. */
#include "src/base/cgroup.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static char root[64];

static void setup(void)
{
    strcpy(root, "/tmp/prima_cgroup_XXXXXX");
    cr_assert_not_null(mkdtemp(root));
}

static void teardown(void)
{
    char command[128];

    snprintf(command, sizeof command, "rm -rf %s", root);
    cr_assert_eq(system(command), 0);
}

TestSuite(cgroup, .init = setup, .fini = teardown);

static void file(const char *rel, const char *text)
{
    char path[512];
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", root, rel);
    for (char *p = path + strlen(root) + 1; (p = strchr(p, '/')); p++) {
        *p = 0;
        cr_assert(mkdir(path, 0777) == 0 || errno == EEXIST);
        *p = '/';
    }
    f = fopen(path, "w");
    cr_assert_not_null(f);
    fputs(text, f);
    fclose(f);
}

Test(cgroup, nothing_there_is_no_limit)
{
    cr_assert_eq(cgroup_memory_room(root), CGROUP_NO_LIMIT);
    cr_assert_eq(cgroup_cpu_millicores(root), CGROUP_NO_LIMIT);
    file("proc/self/cgroup", "0::/some/where\n");
    cr_assert_eq(cgroup_memory_room(root), CGROUP_NO_LIMIT);
    cr_assert_eq(cgroup_cpu_millicores(root), CGROUP_NO_LIMIT);
    file("proc/self/cgroup", "garbage\n\n:::\n9\n");
    cr_assert_eq(cgroup_memory_room(root), CGROUP_NO_LIMIT);
}

Test(cgroup, v2_own_group)
{
    file("proc/self/cgroup", "0::/user.slice/job\n");
    file("sys/fs/cgroup/user.slice/job/memory.max", "1000000\n");
    file("sys/fs/cgroup/user.slice/job/memory.current", "400000\n");
    cr_assert_eq(cgroup_memory_room(root), 600000);
    file("sys/fs/cgroup/user.slice/job/memory.stat",
         "anon 300000\nfile 90000\ninactive_file 50000\nactive_file 1\n");
    cr_assert_eq(cgroup_memory_room(root), 650000, "unused file cache can be taken back");
    file("sys/fs/cgroup/user.slice/job/memory.current", "1200000\n");
    cr_assert_eq(cgroup_memory_room(root), 0);
    file("sys/fs/cgroup/user.slice/job/memory.max", "max\n");
    cr_assert_eq(cgroup_memory_room(root), CGROUP_NO_LIMIT);
}

Test(cgroup, v2_a_parent_may_be_tighter)
{
    file("proc/self/cgroup", "0::/a/b/c\n");
    file("sys/fs/cgroup/a/b/c/memory.max", "900\n");
    file("sys/fs/cgroup/a/b/c/memory.current", "100\n");
    file("sys/fs/cgroup/a/b/memory.max", "max\n");
    file("sys/fs/cgroup/a/b/memory.current", "100\n");
    file("sys/fs/cgroup/a/memory.max", "700\n");
    file("sys/fs/cgroup/a/memory.current", "500\n");
    file("sys/fs/cgroup/a/b/c/cpu.max", "max 100000\n");
    file("sys/fs/cgroup/a/cpu.max", "250000 100000\n");
    cr_assert_eq(cgroup_memory_room(root), 200);
    cr_assert_eq(cgroup_cpu_millicores(root), 2500);
}

/* In a container without its own cgroup namespace the path is the host's and its folder is not visible; the
 * container's limits lie at the mount point. */
Test(cgroup, limits_at_the_mount_point)
{
    file("proc/self/cgroup", "0::/docker/0123abc\n");
    file("sys/fs/cgroup/memory.max", "5000\n");
    file("sys/fs/cgroup/memory.current", "1000\n");
    file("sys/fs/cgroup/cpu.max", "50000 100000\n");
    cr_assert_eq(cgroup_memory_room(root), 4000);
    cr_assert_eq(cgroup_cpu_millicores(root), 500);
    file("proc/self/cgroup", "0::/\n");
    cr_assert_eq(cgroup_memory_room(root), 4000);
}

Test(cgroup, v1)
{
    file("proc/self/cgroup",
         "12:memory:/docker/x\n5:cpu,cpuacct:/docker/x\n3:cpuset:/\n1:name=systemd:/docker/x\n0::/y\n");
    file("sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes", "3000\n");
    file("sys/fs/cgroup/memory/docker/x/memory.usage_in_bytes", "2500\n");
    file("sys/fs/cgroup/memory/docker/x/memory.stat", "inactive_file 7\ntotal_inactive_file 200\n");
    file("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    file("sys/fs/cgroup/memory/memory.usage_in_bytes", "99999\n");
    file("sys/fs/cgroup/cpu/docker/x/cpu.cfs_quota_us", "150000\n");
    file("sys/fs/cgroup/cpu/docker/x/cpu.cfs_period_us", "100000\n");
    file("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
    file("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    file("sys/fs/cgroup/y/memory.max", "1\n"); /* not the hierarchy that has the controller */
    cr_assert_eq(cgroup_memory_room(root), 700);
    cr_assert_eq(cgroup_cpu_millicores(root), 1500);
    file("sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes", "9223372036854771712\n");
    cr_assert_eq(cgroup_memory_room(root), CGROUP_NO_LIMIT);
}

Test(cgroup, long_paths_do_not_break_it)
{
    char line[9000] = "0::";

    memset(line + 3, '/', sizeof line - 5);
    line[sizeof line - 2] = '\n';
    file("proc/self/cgroup", line);
    cr_assert_eq(cgroup_memory_room(root), CGROUP_NO_LIMIT);
}

/* The file of the group, else of the nearest parent; nothing is found outside the controller's tree. */
Test(cgroup, find_file)
{
    char path[512], expected[512];

    cr_expect_not(cgroup_find_file(root, "memory", "memory.pressure", path, sizeof path));
    file("proc/self/cgroup", "0::/user.slice/job\n");
    cr_expect_not(cgroup_find_file(root, "memory", "memory.pressure", path, sizeof path));
    file("sys/fs/cgroup/memory.pressure", "top\n");
    snprintf(expected, sizeof expected, "%s/sys/fs/cgroup/memory.pressure", root);
    cr_expect(cgroup_find_file(root, "memory", "memory.pressure", path, sizeof path));
    cr_expect_str_eq(path, expected);
    file("sys/fs/cgroup/user.slice/job/memory.pressure", "job\n");
    snprintf(expected, sizeof expected, "%s/sys/fs/cgroup/user.slice/job/memory.pressure", root);
    cr_expect(cgroup_find_file(root, "memory", "memory.pressure", path, sizeof path));
    cr_expect_str_eq(path, expected);
    cr_expect_not(cgroup_find_file(root, "memory", "memory.pressure", path, strlen(root) + 10));
    file("proc/self/cgroup", "4:memory:/jail\n0::/\n");
    cr_expect_not(cgroup_find_file(root, "memory", "memory.pressure", path, sizeof path));
}
