/* The loop that SPM and BPE share: a chain of symbols, and a heap of the neighbours that may be joined. The
 * best pair is joined, its new neighbours become candidates, and so on until the heap is empty: O(n log n)
 * for any text.
 *
 * Symbols are never moved and candidates never removed: a candidate is out of date when its two symbols no
 * longer have the length they had together. Symbols only grow, so that one number is enough to tell. */
#include "src/model/vocab_impl.h"
#include <stdlib.h>

/* p with room for n items: *cap doubles until it is enough. NULL, with p left as it was: out of memory. */
static void *grow(void *p, size_t *cap, size_t n, size_t item_bytes)
{
    size_t to = *cap ? *cap : 64;
    void *q;

    if (n <= *cap) return p;
    while (to < n) to *= 2;
    q = realloc(p, to * item_bytes);
    if (q) *cap = to;
    return q;
}

bool merge_push(merge_space *m, uint32_t len, int32_t id)
{
    symbol *sym = grow(m->sym, &m->cap_sym, m->n_sym + 1, sizeof *sym);
    int32_t i = (int32_t)m->n_sym;

    if (!sym) return false;
    m->sym = sym;
    sym[i] = (symbol){.len = len, .prev = i - 1, .next = -1, .id = id};
    if (i > 0) {
        sym[i].start = sym[i - 1].start + sym[i - 1].len;
        sym[i - 1].next = i;
    }
    m->n_sym++;
    return true;
}

static bool heap_push(merge_space *m, merge_candidate c)
{
    merge_candidate *heap = grow(m->heap, &m->cap_heap, m->n_heap + 1, sizeof *heap);
    size_t i = m->n_heap;

    if (!heap) return false;
    m->heap = heap;
    m->n_heap++;
    for (; i > 0 && heap[(i - 1) / 2].order > c.order; i = (i - 1) / 2) heap[i] = heap[(i - 1) / 2];
    heap[i] = c;
    return true;
}

static merge_candidate heap_pop(merge_space *m)
{
    merge_candidate top = m->heap[0], last = m->heap[--m->n_heap];
    size_t i = 0;

    for (size_t child = 1; child < m->n_heap; child = 2 * i + 1) {
        if (child + 1 < m->n_heap && m->heap[child + 1].order < m->heap[child].order) child++;
        if (m->heap[child].order >= last.order) break;
        m->heap[i] = m->heap[child];
        i = child;
    }
    m->heap[i] = last;
    return top;
}

/* Rank first, then the leftmost: both in one number. */
static bool consider(merge_space *m, const vocab *v, const char *text, merge_rule rule, int32_t left)
{
    const symbol *l, *r;
    uint32_t rank;
    int32_t id;

    if (left < 0 || m->sym[left].next < 0) return true;
    l = &m->sym[left];
    r = &m->sym[l->next];
    if (!rule(v, text, l, r, &rank, &id)) return true;
    return heap_push(m, (merge_candidate){(uint64_t)rank << 32 | (uint32_t)left, l->len + r->len, id});
}

bool merge_run(merge_space *m, const vocab *v, const char *text, merge_rule rule)
{
    m->n_heap = 0;
    for (size_t i = 0; i + 1 < m->n_sym; i++)
        if (!consider(m, v, text, rule, (int32_t)i)) return false;
    while (m->n_heap) {
        merge_candidate c = heap_pop(m);
        int32_t left = (int32_t)(uint32_t)c.order;
        symbol *l = &m->sym[left], *r;

        if (!l->len || l->next < 0) continue;
        r = &m->sym[l->next];
        if (l->len + r->len != c.len) continue;
        l->len += r->len;
        l->id = c.id;
        l->next = r->next;
        r->len = 0;
        if (l->next >= 0) m->sym[l->next].prev = left;
        if (!consider(m, v, text, rule, l->prev) || !consider(m, v, text, rule, left)) return false;
    }
    return true;
}

void merge_clear(merge_space *m)
{
    free(m->sym);
    free(m->heap);
    *m = (merge_space){0};
}
