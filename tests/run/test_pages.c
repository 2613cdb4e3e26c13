/* Page ownership: nothing is given twice, shared content is found, a reused place is never found under its
 * old content. */
#include "kernels/kernels.h"
#include "src/run/pages.h"
#include <criterion/criterion.h>
#include <stdlib.h>

static void content(int32_t t[KV_PAGE], int32_t seed)
{
    for (int i = 0; i < KV_PAGE; i++) t[i] = seed * 1000 + i;
}

Test(pages, every_page_once)
{
    pages *p = pages_new(10);
    bool seen[10] = {false};

    for (int i = 0; i < 10; i++) {
        int32_t page = pages_take(p);
        cr_assert(page >= 0 && page < 10 && !seen[page]);
        seen[page] = true;
    }
    cr_assert_eq(pages_take(p), -1);
    cr_assert_eq(pages_available(p), 0);
    for (int32_t i = 0; i < 10; i++) pages_release(p, i);
    cr_assert_eq(pages_available(p), 10);
    pages_free(p);
}

Test(pages, shared_beginning_is_found)
{
    pages *p = pages_new(4);
    int32_t t0[KV_PAGE], t1[KV_PAGE], a, b;

    content(t0, 0);
    content(t1, 1);
    a = pages_take(p);
    b = pages_take(p);
    cr_assert_eq(pages_find(p, -1, t0), -1);
    pages_register(p, a, -1, t0);
    pages_register(p, b, a, t1);
    cr_assert_eq(pages_find(p, -1, t0), a);
    cr_assert_eq(pages_find(p, a, t1), b);
    cr_assert_eq(pages_find(p, -1, t1), -1, "the same tokens after another beginning are another page");
    cr_assert_eq(pages_find(p, b, t1), -1);
    for (int i = 0; i < 2; i++) {
        pages_release(p, b);
        pages_release(p, a);
    }
    cr_assert_eq(pages_available(p), 4);
    cr_assert_eq(pages_find(p, -1, t0), a, "content outlives its owners");
    pages_free(p);
}

Test(pages, reused_place_is_not_found)
{
    pages *p = pages_new(2);
    int32_t t0[KV_PAGE], t1[KV_PAGE], a, b;

    content(t0, 0);
    content(t1, 1);
    a = pages_take(p);
    b = pages_take(p);
    pages_register(p, a, -1, t0);
    pages_register(p, b, a, t1);
    pages_release(p, b);
    pages_release(p, a);
    cr_assert_eq(pages_take(p), b, "the end of a chain goes first");
    cr_assert_eq(pages_take(p), a);
    cr_assert_eq(pages_find(p, -1, t0), -1);
    /* a holds new content now: what was registered behind the old one must stay lost. */
    pages_register(p, a, -1, t1);
    cr_assert_eq(pages_find(p, a, t1), -1);
    pages_free(p);
}

Test(pages, unregistered_pages_go_before_findable_ones)
{
    pages *p = pages_new(3);
    int32_t t0[KV_PAGE], a, b;

    content(t0, 0);
    a = pages_take(p);
    b = pages_take(p);
    pages_register(p, a, -1, t0);
    pages_release(p, a);
    pages_release(p, b);
    cr_assert_neq(pages_take(p), a);
    cr_assert_neq(pages_take(p), a);
    cr_assert_eq(pages_find(p, -1, t0), a);
    pages_free(p);
}

/* Against a plain model: owners counted by hand over many random steps. */
Test(pages, random_steps)
{
    enum { N = 16, CONTENTS = 24 };
    pages *p = pages_new(N);
    int owners[N] = {0}, owned = 0;

    srand(7);
    for (int step = 0; step < 200000; step++) {
        int32_t t[KV_PAGE], page;
        content(t, rand() % CONTENTS);
        switch (rand() % 3) {
        case 0:
            if ((page = pages_find(p, -1, t)) < 0 && (page = pages_take(p)) >= 0) {
                cr_assert_eq(owners[page], 0, "page %d was given while owned", page);
                pages_register(p, page, -1, t);
            }
            if (page >= 0) owned += owners[page]++ == 0;
            break;
        default:
            page = rand() % N;
            if (owners[page]) {
                pages_release(p, page);
                owned -= --owners[page] == 0;
            }
        }
        cr_assert_eq(pages_available(p), (size_t)(N - owned));
    }
    pages_free(p);
}
