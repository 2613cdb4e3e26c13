/* Memory: aligned and huge-page allocation, overflow-checked sizes. */
#ifndef PRIMA_BASE_MEM_H
#define PRIMA_BASE_MEM_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* a*b and a+b in size_t; return false on overflow and leave *out alone. */
bool mem_mul(size_t *out, size_t a, size_t b);
bool mem_add(size_t *out, size_t a, size_t b);
#define MEM_ALIGN_UP(x, a) (((x) + (a)-1) / (a) * (a))

/* Zeroed, 64-byte aligned; NULL when out of memory. Free with mem_free_aligned. */
void *mem_alloc_aligned(size_t n);
void mem_free_aligned(void *p);

/* A region of its own (mmap, zeroed), huge pages asked for with MADV_HUGEPAGE where the system has it. */
typedef struct {
    void *p;
    size_t n;          /* mapped bytes: the size asked for, rounded up */
    const char *pages; /* what was obtained, for the log: "2 MiB (madvise)" or "4 KiB" */
} mem_region;
int mem_region_new(mem_region *out, size_t n); /* 0 or -1 with errno */
void mem_region_free(mem_region *r);

/* Bytes this process may still take: the least of MemAvailable and the room in its memory cgroup
 * (v1 or v2). Total of the machine. Peak resident set so far. Each 0 when unknown. */
uint64_t mem_available_bytes(void);
uint64_t mem_total_bytes(void);
uint64_t mem_rss_peak_bytes(void);

#endif
