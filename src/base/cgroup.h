/* The limits that a container or a service manager puts on this process: Linux control groups v1 and v2.
 * A group is bound by all of its parents, so every answer is the least one on the way up to the root. */
#ifndef PRIMA_BASE_CGROUP_H
#define PRIMA_BASE_CGROUP_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CGROUP_NO_LIMIT UINT64_MAX

/* Bytes that may still be taken: limit - (usage - file cache not in use), never below 0.
 * root is put before "/proc/self/cgroup" and "/sys/fs/cgroup": "" for this machine, a folder in tests. */
uint64_t cgroup_memory_room(const char *root);

/* Path of a file in this process's group of a controller, or in the nearest parent that has it; false: none
 * has.
 */
bool cgroup_find_file(const char *root, const char *controller, const char *name, char *path, size_t n);

/* The CPU time allowed, in thousandths of a core (2500 = two and a half cores). */
uint64_t cgroup_cpu_millicores(const char *root);

#endif
