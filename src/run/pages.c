/* Page ownership: a reference count per page, a list of unowned pages in order of use, and a hash table of
 * registered content. A registered page is keyed by its parent's serial number, not by the parent's page
 * number: when the parent's place is reused its serial is gone, so that children of the old content can no
 * longer be found. */
#include "src/run/pages.h"
#include "kernels/kernels.h"
#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    uint32_t owners;
    uint64_t serial;        /* of the registered content; 0 = not registered */
    uint64_t parent_serial; /* 0 = first page of a sequence */
    int32_t tokens[KV_PAGE];
    int32_t chain;        /* next page in the same hash bucket, -1 */
    int32_t older, newer; /* in the list of unowned pages; -1 at the ends */
} page_info;

struct pages {
    size_t n, n_free, n_buckets;
    page_info *info;
    int32_t *bucket;        /* first page of each, -1 */
    int32_t oldest, newest; /* ends of the list of unowned pages */
    uint64_t next_serial;
};

/* --- the list of unowned pages ------------------------------------------------------------------- */
static void list_remove(pages *p, int32_t i)
{
    page_info *x = &p->info[i];

    if (x->older >= 0) p->info[x->older].newer = x->newer;
    else p->oldest = x->newer;
    if (x->newer >= 0) p->info[x->newer].older = x->older;
    else p->newest = x->older;
    x->older = x->newer = -1;
    p->n_free--;
}

static void list_append(pages *p, int32_t i)
{
    page_info *x = &p->info[i];

    x->older = p->newest;
    x->newer = -1;
    if (p->newest >= 0) p->info[p->newest].newer = i;
    else p->oldest = i;
    p->newest = i;
    p->n_free++;
}

/* Pages whose content is worth nothing are used before those that could be found again. */
static void list_prepend(pages *p, int32_t i)
{
    page_info *x = &p->info[i];

    x->newer = p->oldest;
    x->older = -1;
    if (p->oldest >= 0) p->info[p->oldest].older = i;
    else p->newest = i;
    p->oldest = i;
    p->n_free++;
}

/* --- registered content --------------------------------------------------------------------------- */
static size_t bucket_of(const pages *p, uint64_t parent_serial, const int32_t *tokens)
{
    uint64_t h = (parent_serial + 1) * 0x9e3779b97f4a7c15u;

    for (size_t i = 0; i < KV_PAGE; i++) {
        h = (h ^ (uint32_t)tokens[i]) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    return h % p->n_buckets;
}

static int32_t lookup(const pages *p, uint64_t parent_serial, const int32_t *tokens)
{
    int32_t i = p->bucket[bucket_of(p, parent_serial, tokens)];

    while (i >= 0 && (p->info[i].parent_serial != parent_serial ||
                      memcmp(p->info[i].tokens, tokens, sizeof p->info[i].tokens)))
        i = p->info[i].chain;
    return i;
}

static void forget(pages *p, int32_t i)
{
    page_info *x = &p->info[i];
    int32_t *link;

    if (!x->serial) return;
    link = &p->bucket[bucket_of(p, x->parent_serial, x->tokens)];
    while (*link != i) link = &p->info[*link].chain;
    *link = x->chain;
    x->serial = 0;
}

/* False when the parent's content is not registered: then nothing can follow it. */
static bool serial_of_parent(const pages *p, int32_t parent, uint64_t *serial)
{
    *serial = parent < 0 ? 0 : p->info[parent].serial;
    return parent < 0 || *serial;
}

/* --- interface ---------------------------------------------------------------------------------------- */
pages *pages_new(size_t n_pages)
{
    pages *p = calloc(1, sizeof *p);

    if (!p) return NULL;
    p->n = n_pages;
    p->n_buckets = 2 * n_pages + 1;
    p->info = calloc(n_pages + 1, sizeof *p->info);
    p->bucket = malloc(p->n_buckets * sizeof *p->bucket);
    if (!p->info || !p->bucket) {
        pages_free(p);
        return NULL;
    }
    memset(p->bucket, 0xff, p->n_buckets * sizeof *p->bucket);
    p->oldest = p->newest = -1;
    p->next_serial = 1;
    for (size_t i = 0; i < n_pages; i++) list_append(p, (int32_t)i);
    return p;
}

void pages_free(pages *p)
{
    if (!p) return;
    free(p->info);
    free(p->bucket);
    free(p);
}

size_t pages_available(const pages *p)
{
    return p->n_free;
}

int32_t pages_take(pages *p)
{
    int32_t i = p->oldest;

    if (i < 0) return -1;
    list_remove(p, i);
    forget(p, i);
    p->info[i].owners = 1;
    return i;
}

void pages_release(pages *p, int32_t page)
{
    page_info *x = &p->info[page];

    assert(x->owners > 0);
    if (--x->owners) return;
    if (x->serial) list_append(p, page);
    else list_prepend(p, page);
}

int32_t pages_find(pages *p, int32_t parent, const int32_t *tokens)
{
    uint64_t serial;
    int32_t i;

    if (!serial_of_parent(p, parent, &serial) || (i = lookup(p, serial, tokens)) < 0) return -1;
    if (p->info[i].owners++ == 0) list_remove(p, i);
    return i;
}

void pages_register(pages *p, int32_t page, int32_t parent, const int32_t *tokens)
{
    page_info *x = &p->info[page];
    uint64_t serial;
    size_t b;

    assert(x->owners > 0);
    if (x->serial || !serial_of_parent(p, parent, &serial) || lookup(p, serial, tokens) >= 0) return;
    b = bucket_of(p, serial, tokens);
    x->serial = p->next_serial++;
    x->parent_serial = serial;
    memcpy(x->tokens, tokens, sizeof x->tokens);
    x->chain = p->bucket[b];
    p->bucket[b] = page;
}

void pages_forget_all(pages *p)
{
    for (size_t i = 0; i < p->n; i++) forget(p, (int32_t)i);
}
