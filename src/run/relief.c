/* Giving weights back under memory pressure; see relief.h. The watcher's thread only notes what it is told;
 * steps are made between passes, when nobody holds a pointer into the weights. */
#include "src/run/relief.h"
#include "src/base/clock.h"
#include "src/base/log.h"
#include <stdatomic.h>
#include <stdlib.h>

struct relief {
    residency *r;
    int64_t step_bytes;
    uint64_t give_ns, take_ns;
    pressure *p;
    atomic_bool high;         /* now */
    atomic_uint tellings;     /* of high pressure */
    atomic_uint_fast64_t pct; /* of the last telling, hundredths of a percent */
    unsigned seen;            /* tellings */
    uint64_t last_ns;         /* last step, or the end of the pressure */
    bool was_high;
};

static void told(void *arg, bool high, double pct)
{
    relief *x = arg;

    atomic_store(&x->pct, (uint64_t)(pct * 100));
    atomic_store(&x->high, high);
    if (high) atomic_fetch_add(&x->tellings, 1);
}

static uint64_t ns(double s, double otherwise)
{
    return (uint64_t)((s > 0 ? s : otherwise) * 1e9);
}

int relief_new(relief **out, residency *r, const relief_options *o, pr_err *err)
{
    relief *x = calloc(1, sizeof *x);
    int rc;

    if (!x) return pr_fail(err, PR_ERESOURCE, "out of memory");
    x->r = r;
    x->step_bytes = (int64_t)((double)o->resident_bytes * (o->step_pct > 0 ? o->step_pct : 6.25) / 100);
    x->give_ns = ns(o->give_s, 1);
    x->take_ns = ns(o->take_s, 20);
    if ((rc = pressure_watch(&x->p, &o->pressure, told, x, err))) {
        free(x);
        return rc;
    }
    *out = x;
    return PR_OK;
}

void relief_free(relief *x)
{
    if (!x) return;
    pressure_end(x->p);
    free(x);
}

static int step(relief *x, int64_t bytes, pr_err *err)
{
    int64_t changed;
    int rc = residency_adjust(x->r, bytes, &changed, err);

    x->last_ns = clock_ns();
    if (rc || !changed) return rc;
    residency_counts c = residency_about(x->r);
    if (changed > 0)
        log_info(
            "memory pressure of %.1f %%: %.1f MiB of weights are given back; %.1f MiB are read in every pass",
            (double)atomic_load(&x->pct) / 100, (double)changed / 0x1p20, (double)c.pass_bytes / 0x1p20);
    else
        log_info("memory pressure is over: %.1f MiB of weights are in memory again; %.1f MiB are read in "
                 "every pass",
                 (double)-changed / 0x1p20, (double)c.pass_bytes / 0x1p20);
    return PR_OK;
}

/* One step for each telling: who waits no more tells no more. */
int relief_look(relief *x, pr_err *err)
{
    bool high = atomic_load(&x->high);
    unsigned tellings = atomic_load(&x->tellings);
    uint64_t now = clock_ns();

    if (x->was_high && !high) x->last_ns = now;
    x->was_high = high;
    if (tellings != x->seen && now - x->last_ns >= x->give_ns) {
        x->seen = tellings;
        return step(x, x->step_bytes, err);
    }
    if (!high && now - x->last_ns >= x->take_ns && residency_about(x->r).given_bytes)
        return step(x, -x->step_bytes, err);
    return PR_OK;
}
