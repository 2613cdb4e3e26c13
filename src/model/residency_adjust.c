/* Resident pieces that are given back to the system, and taken again. Between passes only: nobody holds a
 * pointer to them then. */
#include "src/model/residency_impl.h"
#include <sys/mman.h>
#include <unistd.h>

/* A piece may change when it has a place of its own. */
static bool may_give(const weight_pieces *x, size_t j)
{
    return x->home[j] && x->data[j];
}
static bool may_take(const weight_pieces *x, size_t j)
{
    return x->home[j] && !x->data[j];
}

/* Whole pages inside the piece. */
static void drop(const weight_pieces *x, size_t j)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), at = (uintptr_t)x->home[j],
              from = MEM_ALIGN_UP(at, page), to = (at + x->piece[j].bytes) / page * page;

    if (from < to) madvise((void *)from, to - from, MADV_DONTNEED);
}

static int change(residency *r, weight_pieces *x, size_t j, bool give, pr_err *err)
{
    const piece *p = &x->piece[j];

    if (give) {
        x->data[j] = NULL;
        drop(x, j);
        return PR_OK;
    }
    x->data[j] = x->home[j];
    return pack_file_read(r->pack, p->layer, p->at, p->bytes, x->home[j], err);
}

/* Those that may change: how many, and their bytes. */
static size_t count(const residency *r, bool give, uint64_t *bytes)
{
    size_t n = 0;

    *bytes = 0;
    for (uint32_t i = 0; i < r->n_windows; i++) {
        const weight_pieces *x = r->x[i];
        for (size_t j = 0; x && j < x->n; j++) {
            if (!(give ? may_give(x, j) : may_take(x, j))) continue;
            *bytes += x->piece[j].bytes;
            n++;
        }
    }
    return n;
}

/* Every n/m-th of them. */
static int change_some(residency *r, bool give, size_t m, size_t n, int64_t *changed, pr_err *err)
{
    size_t at = 0;
    int rc = PR_OK;

    for (uint32_t i = 0; i < r->n_windows; i++) {
        weight_pieces *x = r->x[i];
        for (size_t j = 0; x && j < x->n && !rc; j++) {
            if (!(give ? may_give(x, j) : may_take(x, j)) || !piece_is_streamed(at++, n, m)) continue;
            rc = change(r, x, j, give, err);
            *changed += (int64_t)x->piece[j].bytes;
        }
    }
    return rc;
}

int residency_adjust(residency *r, int64_t bytes, int64_t *changed, pr_err *err)
{
    bool give = bytes > 0;
    uint64_t want = (uint64_t)(give ? bytes : -bytes), all;
    size_t n = count(r, give, &all), m = all ? (size_t)((double)want / (double)all * (double)n + 0.999) : 0;
    int rc;

    *changed = 0;
    if (m > n) m = n;
    if (!m) return PR_OK;
    residency_stop(r);
    rc = change_some(r, give, m, n, changed, &r->ended);
    if (!give) *changed = -*changed;
    pthread_mutex_lock(&r->mutex);
    r->before.given_bytes += (uint64_t)*changed;
    pthread_mutex_unlock(&r->mutex);
    if (rc || (rc = residency_start(r, &r->ended))) pr_fail(err, r->ended.code, "%s", r->ended.msg);
    return rc;
}
