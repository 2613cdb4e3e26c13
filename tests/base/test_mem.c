/* Sizes at the edge of size_t, alignment, regions, and figures that must be plausible. */
#include "src/base/mem.h"
#include <criterion/criterion.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

Test(mem, multiplication_and_addition_notice_overflow)
{
    size_t v = 77;

    cr_assert(mem_mul(&v, 0, SIZE_MAX) && v == 0);
    cr_assert(mem_mul(&v, SIZE_MAX, 0) && v == 0);
    cr_assert(mem_mul(&v, SIZE_MAX, 1) && v == SIZE_MAX);
    cr_assert(mem_mul(&v, SIZE_MAX / 3, 3) && v == SIZE_MAX / 3 * 3);
    cr_assert(mem_mul(&v, 6, 7) && v == 42);
    cr_assert_not(mem_mul(&v, SIZE_MAX / 3 + 1, 3));
    cr_assert_not(mem_mul(&v, (size_t)1 << 32, (size_t)1 << 32));
    cr_assert_eq(v, 42, "left alone on overflow");
    cr_assert(mem_add(&v, SIZE_MAX - 5, 5) && v == SIZE_MAX);
    cr_assert_not(mem_add(&v, SIZE_MAX - 5, 6));
    cr_assert_not(mem_add(&v, 6, SIZE_MAX - 5));
    cr_assert_eq(v, SIZE_MAX);
}

Test(mem, align_up)
{
    cr_assert_eq(MEM_ALIGN_UP(0, 32), 0);
    cr_assert_eq(MEM_ALIGN_UP(1, 32), 32);
    cr_assert_eq(MEM_ALIGN_UP(32, 32), 32);
    cr_assert_eq(MEM_ALIGN_UP(33, 12), 36);
}

static int is_zero(const unsigned char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i]) return 0;
    return 1;
}

Test(mem, aligned_blocks_are_aligned_and_zero)
{
    for (size_t n = 0; n < 300; n += 37) {
        unsigned char *p = mem_alloc_aligned(n);
        cr_assert_not_null(p);
        cr_assert_eq((uintptr_t)p % 64, 0);
        cr_assert(is_zero(p, n));
        memset(p, 0xAB, n); /* so that a reused block would show */
        mem_free_aligned(p);
    }
    mem_free_aligned(NULL);
    cr_assert_null(mem_alloc_aligned(SIZE_MAX));
    cr_assert_null(mem_alloc_aligned(SIZE_MAX - 62));
}

Test(mem, regions)
{
    static const size_t sizes[] = {0, 1, 4097, 1 << 20, 2 << 20, (2 << 20) + 1, 5 << 20};
    size_t page = (size_t)sysconf(_SC_PAGESIZE);

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        mem_region r;
        size_t align = sizes[i] >= 2 << 20 ? 2 << 20 : page;
        cr_assert_eq(mem_region_new(&r, sizes[i]), 0);
        cr_assert(r.n >= sizes[i] && r.n > 0 && r.n < sizes[i] + align + page);
        cr_assert_eq((uintptr_t)r.p % align, 0, "%zu bytes are not aligned", sizes[i]);
        cr_assert_not_null(r.pages);
        cr_assert(is_zero(r.p, r.n));
        memset(r.p, 1, r.n); /* every byte of it is ours */
        mem_region_free(&r);
        cr_assert_null(r.p);
        mem_region_free(&r);
    }
}

Test(mem, impossible_regions_fail_cleanly)
{
    static const size_t sizes[] = {SIZE_MAX, SIZE_MAX - 4096, SIZE_MAX / 2, (size_t)1 << 62};
    mem_region r;

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        cr_assert_eq(mem_region_new(&r, sizes[i]), -1, "%zu", sizes[i]);
}

Test(mem, figures_are_plausible)
{
    uint64_t total = mem_total_bytes(), available = mem_available_bytes(), before = mem_rss_peak_bytes();
    mem_region r;

    cr_assert_gt(total, 64u << 20);
    cr_assert_leq(available, total);
#ifdef __linux__
    cr_assert_gt(available, 0);
#endif
    cr_assert_eq(mem_region_new(&r, 32 << 20), 0);
    memset(r.p, 1, r.n);
    cr_assert_geq(mem_rss_peak_bytes(), before);
    cr_assert_geq(mem_rss_peak_bytes(), 32u << 20);
    mem_region_free(&r);
}
