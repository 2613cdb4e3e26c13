/* Memory: sizes that cannot overflow, aligned blocks, large regions, and how much there is.
 *
 * A region asks for transparent huge pages. The kernel only makes them of whole, aligned 2 MiB pieces, so a
 * large region is mapped with 2 MiB to spare and trimmed to that boundary. */
#include "src/base/mem.h"
#include "src/base/cgroup.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>
#ifdef __APPLE__
#include <mach/mach.h>
#endif

#define HUGE_BYTES ((size_t)2 << 20)

bool mem_mul(size_t *out, size_t a, size_t b)
{
    if (a && b > SIZE_MAX / a) return false;
    *out = a * b;
    return true;
}

bool mem_add(size_t *out, size_t a, size_t b)
{
    if (b > SIZE_MAX - a) return false;
    *out = a + b;
    return true;
}

void *mem_alloc_aligned(size_t n)
{
    void *p = NULL;
    size_t padded;

    if (!mem_add(&padded, n ? n : 1, 63)) return NULL;
    padded &= ~(size_t)63;
    if (posix_memalign(&p, 64, padded)) return NULL;
    return memset(p, 0, padded);
}

void mem_free_aligned(void *p)
{
    free(p);
}

/* Map n bytes (a multiple of align) that begin at a multiple of align; NULL with errno. */
static void *map_aligned(size_t n, size_t align, size_t page)
{
    size_t spare = align > page ? align : 0, total, before;
    char *p;

    if (!mem_add(&total, n, spare)) {
        errno = ENOMEM;
        return NULL;
    }
    p = mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return NULL;
    if (!spare) return p;
    before = (align - (uintptr_t)p % align) % align;
    if (before) munmap(p, before);
    if (spare > before) munmap(p + before + n, spare - before);
    return p + before;
}

#ifdef __linux__
/* madvise succeeds even where an administrator has switched huge pages off: the switch says the truth. */
static bool huge_pages_allowed(void)
{
    char text[64] = "";
    FILE *f = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "re");

    if (!f) return false;
    if (!fgets(text, sizeof text, f)) text[0] = 0;
    fclose(f);
    return strstr(text, "[always]") || strstr(text, "[madvise]");
}
#endif

int mem_region_new(mem_region *out, size_t n)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), align = n >= HUGE_BYTES ? HUGE_BYTES : page, size;
    mem_region r = {.pages = page == 4096 ? "4 KiB" : page == 16384 ? "16 KiB" : "64 KiB"};

    if (!mem_add(&size, n ? n : 1, align - 1)) {
        errno = ENOMEM;
        return -1;
    }
    r.n = size / align * align;
    r.p = map_aligned(r.n, align, page);
    if (!r.p) return -1;
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (align == HUGE_BYTES && huge_pages_allowed() && !madvise(r.p, r.n, MADV_HUGEPAGE))
        r.pages = "2 MiB (madvise)";
#endif
    *out = r;
    return 0;
}

void mem_region_free(mem_region *r)
{
    if (r->p) munmap(r->p, r->n);
    *r = (mem_region){0};
}

#ifdef __APPLE__
/* What is free, and what is given up without being written anywhere. */
static uint64_t reclaimable(void)
{
    vm_statistics64_data_t v;
    mach_msg_type_number_t n = HOST_VM_INFO64_COUNT;
    mach_port_t host = mach_host_self();
    bool told = host_statistics64(host, HOST_VM_INFO64, (host_info64_t)&v, &n) == KERN_SUCCESS;

    mach_port_deallocate(mach_task_self(), host);
    if (!told) return 0;
    return ((uint64_t)v.free_count + v.inactive_count + v.purgeable_count) * (uint64_t)sysconf(_SC_PAGESIZE);
}
#endif

#ifdef __linux__
/* A line "KEY:   123 kB" of /proc/meminfo in bytes; 0 when it is not there. */
static uint64_t meminfo(const char *key)
{
    char line[128];
    uint64_t found = 0;
    size_t n = strlen(key);
    FILE *f = fopen("/proc/meminfo", "re");

    if (!f) return 0;
    while (!found && fgets(line, sizeof line, f))
        if (!strncmp(line, key, n) && line[n] == ':') found = strtoull(line + n + 1, NULL, 10) * 1024;
    fclose(f);
    return found;
}
#endif

uint64_t mem_available_bytes(void)
{
    uint64_t available = 0;
#ifdef __linux__
    uint64_t room = cgroup_memory_room("");
    available = meminfo("MemAvailable");
    if (room < available) available = room;
#elif defined(__APPLE__)
    available = reclaimable();
#elif defined(_SC_AVPHYS_PAGES)
    available = (uint64_t)sysconf(_SC_AVPHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
#endif
    return available;
}

uint64_t mem_total_bytes(void)
{
    long pages = sysconf(_SC_PHYS_PAGES);

    return pages > 0 ? (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
}

uint64_t mem_rss_peak_bytes(void)
{
    struct rusage u;

    if (getrusage(RUSAGE_SELF, &u) || u.ru_maxrss < 0) return 0;
#ifdef __APPLE__
    return (uint64_t)u.ru_maxrss;
#else
    return (uint64_t)u.ru_maxrss * 1024;
#endif
}
