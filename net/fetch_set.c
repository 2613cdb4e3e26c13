/* Sets of byte ranges: sorted, merged, counted. They are short (what is done of a download is some tens of
 * ranges, of a shard some hundreds), so an array and a binary search are enough; adding to the end of a
 * range, which every received chunk does, moves nothing. */
#include "net/fetch_impl.h"
#include <stdlib.h>
#include <string.h>

void set_clear(range_set *s)
{
    free(s->r);
    *s = (range_set){0};
}

/* The first range that ends at or behind `at`. */
static size_t find(const range_set *s, uint64_t at)
{
    size_t lo = 0, hi = s->n;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (s->r[mid].end < at) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

static bool make_room(range_set *s, size_t n)
{
    size_t room = s->room ? s->room * 2 : 16;
    fetch_range *r;

    if (n <= s->room) return true;
    if (room < n) room = n;
    if (!(r = realloc(s->r, room * sizeof *r))) return false;
    s->r = r;
    s->room = room;
    return true;
}

bool set_add(range_set *s, uint64_t first, uint64_t end)
{
    size_t i = find(s, first), j = i;

    if (first >= end) return true;
    for (; j < s->n && s->r[j].first <= end; j++) { /* r[i..j) touch [first, end): all become one */
        if (s->r[j].first < first) first = s->r[j].first;
        if (s->r[j].end > end) end = s->r[j].end;
    }
    if (i == j && !make_room(s, s->n + 1)) return false;
    for (size_t k = i; k < j; k++) s->total -= s->r[k].end - s->r[k].first;
    s->total += end - first;
    if (i + 1 != j) memmove(s->r + i + 1, s->r + j, (s->n - j) * sizeof *s->r);
    s->n = s->n - (j - i) + 1;
    s->r[i] = (fetch_range){first, end};
    return true;
}

bool set_remove(range_set *s, uint64_t first, uint64_t end)
{
    if (!make_room(s, s->n + 1)) return false;
    for (size_t i = find(s, first); i < s->n && s->r[i].first < end;) {
        fetch_range old = s->r[i];
        uint64_t a = old.first > first ? old.first : first, b = old.end < end ? old.end : end;
        if (a >= b) {
            i++;
            continue;
        }
        s->total -= b - a;
        if (a == old.first && b == old.end) {
            memmove(s->r + i, s->r + i + 1, (s->n - i - 1) * sizeof *s->r);
            s->n--;
        } else if (a == old.first) s->r[i++].first = b;
        else if (b == old.end) s->r[i++].end = a;
        else {
            memmove(s->r + i + 1, s->r + i, (s->n - i) * sizeof *s->r);
            s->n++;
            s->r[i].end = a;
            s->r[i + 1].first = b;
            i += 2;
        }
    }
    return true;
}

bool set_copy(range_set *to, const range_set *from)
{
    if (!make_room(to, from->n)) return false;
    if (from->n) memcpy(to->r, from->r, from->n * sizeof *to->r);
    to->n = from->n;
    to->total = from->total;
    return true;
}

bool set_next(const range_set *s, bool in, uint64_t first, uint64_t end, fetch_range *out)
{
    size_t i = find(s, first);

    if (i < s->n && s->r[i].end == first) i++;
    if (in) {
        if (i == s->n || s->r[i].first >= end || first >= end) return false;
        out->first = s->r[i].first > first ? s->r[i].first : first;
        out->end = s->r[i].end < end ? s->r[i].end : end;
        return true;
    }
    if (i < s->n && s->r[i].first <= first) first = s->r[i++].end;
    if (first >= end) return false;
    out->first = first;
    out->end = i < s->n && s->r[i].first < end ? s->r[i].first : end;
    return true;
}

bool set_covers(const range_set *s, uint64_t first, uint64_t end)
{
    fetch_range gap;

    return !set_next(s, false, first, end, &gap);
}
