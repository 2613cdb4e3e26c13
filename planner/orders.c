/* Up to SEARCH_ALL_ORDERS devices every ring of some of them, in every order, is looked at: the devices of a
 * plan, in its order, are one of these. A walk over the beginnings of rings adds up the least costs of the
 * devices so far (reach.h); a beginning that cannot lead to anything faster is not continued, and only rings
 * that pass are solved. With more devices every one is tried as head of the cluster's ring, and the best ring
 * is then put in an order with shorter hops.
 *
 * Prices of a device depend on whether it is the head and on who is next: they are made once for each. */
#include "planner/orders.h"
#include "planner/reach.h"
#include "src/base/clock.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    double target_ms; /* that they were made for */
    double *ms;
} prices;

/* Memory of the walk. */
typedef struct {
    orders *s;
    const workload *w;
    size_t n;                           /* devices of the cluster */
    bool all_work;                      /* every device of a ring but the head has layers */
    problem p;                          /* a ring of two: what does not depend on the ring, and pairs */
    size_t n_sums;                      /* numbers of all k */
    prices *of;                         /* [is head][device][next] */
    double *rest;                       /* [k][l]: of all devices but the head, at their shortest hops */
    double *sum[SEARCH_ALL_ORDERS + 3]; /* [devices whose next is known][k][l]; the last two: scratch */
    double target_ms, rest_target_ms;
} walk;

static bool out_of_time(const orders *s)
{
    double limit_ms = s->in->o->time_limit_s * 1e3 / 2; /* half is the certificate's */
    return limit_ms > 0 && clock_ms_since(s->start_ns) > limit_ms;
}

/* --- rings ------------------------------------------------------------------------------------------ */
/* Could this ring, or one of fewer of its devices, be better than the best? Whatever its hops take. */
static int may_beat_best(const orders *s, const workload *w, const ring_order *order, bool *yes, pr_err *err)
{
    double from_ms[PROBLEM_MAX_ROUNDS + 1];
    problem p;
    int rc;

    *yes = true;
    if (!s->found || s->in->o->published) return PR_OK;
    if ((rc = candidate_problem(s->in, w, order, true, &p, err))) return rc;
    for (size_t i = 0; i < p.n_devices; i++) p.device[i].hop_ms = 0;
    if ((rc = reach_times(&p, candidate_target_ms(&s->best, w), from_ms, err))) return rc;
    *yes = false;
    for (uint32_t k = 0; k <= PROBLEM_MAX_ROUNDS; k++) *yes |= isfinite(from_ms[k]);
    return PR_OK;
}

static int try_ring(orders *s, const workload *w, const ring_order *order, pr_err *err)
{
    candidate k = {.order = *order, .w = *w, .a.rounds = s->found ? s->best.a.rounds : 0};
    bool yes;
    int rc = may_beat_best(s, w, order, &yes, err);

    if (rc || !yes) return rc;
    if (s->found && (s->solves_left == 0 || out_of_time(s))) {
        s->cut = true;
        return PR_OK;
    }
    if (s->solves_left > 0) s->solves_left--;
    rc = candidate_make(s->in, &k, err);
    if (rc == PR_EINFEASIBLE) {
        if (!s->first_err.code && err) s->first_err = *err;
        return PR_OK;
    }
    if (rc) return rc;
    if (s->found && !candidate_is_better(&k, &s->best)) return PR_OK;
    s->found = true;
    s->best = k;
    return PR_OK;
}

/* The ring of the cluster file, turned so that it begins with `head`. */
static ring_order turned(const cluster *c, size_t head)
{
    ring_order order = {.n = c->n_devices};

    for (size_t i = 0; i < order.n; i++) order.i[i] = (uint32_t)((head + i) % order.n);
    return order;
}

/* --- prices ----------------------------------------------------------------------------------------- */
static void walk_clear(walk *x)
{
    for (size_t i = 0; x->of && i < 2 * x->n * x->n; i++) free(x->of[i].ms);
    for (size_t i = 0; i < sizeof x->sum / sizeof *x->sum; i++) free(x->sum[i]);
    free(x->of);
    free(x->rest);
}

static int no_memory(pr_err *err)
{
    return pr_fail(err, PR_ERESOURCE, "plan: out of memory");
}

/* The ring of a head and the device after it, which may be itself. */
static int pair_problem(walk *x, size_t head, size_t other, pr_err *err)
{
    const ring_order pair = {{(uint32_t)head, (uint32_t)other}, head == other ? 1 : 2};
    return candidate_problem(x->s->in, x->w, &pair, true, &x->p, err);
}

static int walk_init(walk *x, orders *s, const workload *w, pr_err *err)
{
    int rc;

    memset(x, 0, sizeof *x);
    x->s = s;
    x->w = w;
    x->n = s->in->c->n_devices;
    if ((rc = pair_problem(x, 0, 0, err))) return rc;
    x->n_sums = reach_rounds(&x->p) * reach_row_size(&x->p);
    x->of = calloc(2 * x->n * x->n, sizeof *x->of);
    x->rest = malloc(x->n_sums * sizeof *x->rest);
    bool memory = x->of && x->rest;
    for (size_t i = 0; i < sizeof x->sum / sizeof *x->sum; i++) {
        x->sum[i] = malloc(x->n_sums * sizeof **x->sum);
        memory = memory && x->sum[i];
    }
    return memory ? PR_OK : no_memory(err);
}

static int get_prices(walk *x, bool is_head, size_t device, size_t next, const double **out, pr_err *err)
{
    prices *v = &x->of[((is_head ? x->n : 0) + device) * x->n + next];
    int rc;

    if (!v->ms && !(v->ms = malloc(x->n_sums * sizeof *v->ms))) return no_memory(err);
    if (v->target_ms != x->target_ms) {
        rc = is_head ? pair_problem(x, device, next, err) : pair_problem(x, next, device, err);
        if (rc) return rc;
        reach_prices(&x->p, is_head ? 0 : 1, x->target_ms, v->ms);
        for (size_t at = 0; x->all_work && !is_head && at < x->n_sums; at += reach_row_size(&x->p))
            v->ms[at] = INFINITY;
        v->target_ms = x->target_ms;
    }
    *out = v->ms;
    return PR_OK;
}

/* Adds a device to the sums of every k. */
static int add_device(walk *x, const double *before, bool is_head, size_t device, size_t next, double *after,
                      pr_err *err)
{
    const double *price;
    int rc = get_prices(x, is_head, device, next, &price, err);

    for (size_t at = 0; !rc && at < x->n_sums; at += reach_row_size(&x->p))
        reach_add(&x->p, before + at, price + at, x->target_ms, after + at);
    return rc;
}

static int begin(walk *x, size_t head, pr_err *err)
{
    int rc = pair_problem(x, head, head, err);

    for (size_t at = 0; !rc && at < x->n_sums; at += reach_row_size(&x->p))
        reach_begin(&x->p, x->sum[0] + at);
    return rc;
}

/* The time to beat; prices are made again when it has changed. */
static void set_target(walk *x)
{
    x->target_ms = x->s->found ? candidate_target_ms(&x->s->best, x->w) : INFINITY;
}

static bool reaches_all(const walk *x, const double *sum)
{
    for (size_t at = reach_row_size(&x->p); at <= x->n_sums; at += reach_row_size(&x->p)) {
        if (sum[at - 1] < x->target_ms) return true;
    }
    return false;
}

/* --- what may follow -------------------------------------------------------------------------------- */
/* What the devices can do at best beside a head: each with the shortest hop that it has in any ring that is
 * tried.
 */
static int make_rest(walk *x, pr_err *err)
{
    double *least = x->sum[SEARCH_ALL_ORDERS + 1], *before = x->sum[SEARCH_ALL_ORDERS + 2];
    int rc = PR_OK;

    if (x->rest_target_ms == x->target_ms) return PR_OK;
    for (size_t i = 0; i < x->n_sums; i++) x->rest[i] = i % reach_row_size(&x->p) ? INFINITY : 0;
    for (size_t m = 0; m < x->n && !rc; m++) {
        for (size_t i = 0; i < x->n_sums; i++) least[i] = INFINITY;
        for (size_t next = 0; next < x->n && !rc; next++) {
            const double *price;
            if (next == m || (!x->all_work && next != (m + 1) % x->n)) continue;
            rc = get_prices(x, false, m, next, &price, err);
            for (size_t i = 0; !rc && i < x->n_sums; i++) least[i] = fmin(least[i], price[i]);
        }
        for (size_t at = 0; at < x->n_sums; at += reach_row_size(&x->p)) least[at] = 0; /* not in the ring */
        memcpy(before, x->rest, x->n_sums * sizeof *before);
        for (size_t at = 0; at < x->n_sums; at += reach_row_size(&x->p))
            reach_add(&x->p, before + at, least + at, x->target_ms, x->rest + at);
    }
    x->rest_target_ms = x->target_ms;
    return rc;
}

/* Could a ring with these first devices be fast enough, whoever follows? k that are not leave the sums. */
static bool may_lead_on(const walk *x, double *sum)
{
    size_t n = reach_row_size(&x->p);
    bool any = false;

    for (size_t at = 0; at < x->n_sums; at += n) {
        double best = INFINITY;
        for (size_t l = 0; l < n; l++) best = fmin(best, sum[at + l] + x->rest[at + n - 1 - l]);
        if (best < x->target_ms) any = true;
        else
            for (size_t l = 0; l < n; l++) sum[at + l] = INFINITY;
    }
    return any;
}

/* --- every ring ------------------------------------------------------------------------------------- */
/* The ring as it is, then with each other device behind it. x->sum[order->n - 1] holds all but the last. */
static int try_rings_from(walk *x, ring_order *order, pr_err *err)
{
    size_t last = order->n - 1;
    double *end = x->sum[SEARCH_ALL_ORDERS + 1];
    double target_ms = x->target_ms;
    int rc = add_device(x, x->sum[last], last == 0, order->i[last], order->i[0], end, err);

    if (!rc && reaches_all(x, end)) rc = try_ring(x->s, x->w, order, err);
    for (size_t next = 0; next < x->n && !rc; next++) {
        bool used = false;
        for (size_t i = 0; i < order->n; i++) used |= order->i[i] == next;
        if (used) continue;
        set_target(x);
        if (x->target_ms < target_ms && (rc = make_rest(x, err))) break;
        rc = add_device(x, x->sum[last], last == 0, order->i[last], next, x->sum[last + 1], err);
        if (rc || !may_lead_on(x, x->sum[last + 1])) continue;
        order->i[order->n++] = (uint32_t)next;
        rc = try_rings_from(x, order, err);
        order->n--;
    }
    return rc;
}

static int try_every_ring(orders *s, const workload *w, pr_err *err)
{
    walk x;
    int rc = walk_init(&x, s, w, err);

    x.all_work = true; /* the rings without those that have none are looked at too */
    for (size_t head = 0; head < x.n && !rc; head++) {
        ring_order order = turned(s->in->c, head);
        rc = try_ring(s, w, &order, err); /* good ones first: the others are then seen to be no better */
    }
    for (size_t head = 0; head < x.n && !rc; head++) {
        ring_order order = {{(uint32_t)head}, 1};
        set_target(&x);
        if ((rc = make_rest(&x, err)) || (rc = begin(&x, head, err))) break;
        rc = try_rings_from(&x, &order, err);
    }
    walk_clear(&x);
    return rc;
}

/* --- every head ------------------------------------------------------------------------------------- */
/* Could this ring be fast enough? */
static int may_be_better(walk *x, const ring_order *order, bool *yes, pr_err *err)
{
    double *now = x->sum[0], *after = x->sum[1];
    int rc;

    *yes = false;
    if ((rc = make_rest(x, err)) || (rc = begin(x, order->i[0], err))) return rc;
    for (size_t i = 0; i < order->n; i++) {
        double *swap = now;
        rc = add_device(x, now, i == 0, order->i[i], order->i[(i + 1) % order->n], after, err);
        if (rc || (i == 0 && !may_lead_on(x, after))) return rc;
        now = after;
        after = swap;
    }
    *yes = reaches_all(x, now);
    return PR_OK;
}

static double hops_ms(const search_input *in, const ring_order *order)
{
    double sum = 0, mbit_per_s, rtt_ms;

    for (size_t i = 0; i < order->n; i++) {
        cost_link(in->c, in->profiles, order->i[i], order->i[(i + 1) % order->n], &mbit_per_s, &rtt_ms);
        sum += cost_hop_ms(in->f, 1, mbit_per_s, rtt_ms);
    }
    return sum;
}

static void turn_around(ring_order *order, size_t first, size_t last)
{
    for (; first < last; first++, last--) {
        uint32_t swap = order->i[first];
        order->i[first] = order->i[last];
        order->i[last] = swap;
    }
}

/* Turns around parts of the ring behind the head as long as that makes it shorter. */
static bool shorten(const search_input *in, ring_order *order)
{
    double least = hops_ms(in, order);
    bool any = false, again = true;

    while (again) {
        again = false;
        for (size_t i = 1; i < order->n; i++)
            for (size_t j = i + 1; j < order->n; j++) {
                turn_around(order, i, j);
                double ms = hops_ms(in, order);
                if (ms < least * (1 - 1e-9)) {
                    least = ms;
                    any = again = true;
                } else turn_around(order, i, j);
            }
    }
    return any;
}

static int try_every_head(orders *s, const workload *w, pr_err *err)
{
    ring_order order = turned(s->in->c, 0);
    walk x;
    int rc = walk_init(&x, s, w, err);

    if (!rc) rc = try_ring(s, w, &order, err);
    for (size_t head = 1; head < x.n && !rc; head++) {
        bool yes;
        order = turned(s->in->c, head);
        set_target(&x);
        rc = may_be_better(&x, &order, &yes, err);
        if (!rc && yes) rc = try_ring(s, w, &order, err);
    }
    walk_clear(&x);
    if (rc || !s->found) return rc;
    order = s->best.order;
    return shorten(s->in, &order) ? try_ring(s, w, &order, err) : PR_OK;
}

int orders_try(orders *s, const workload *w, pr_err *err)
{
    const cluster *c = s->in->c;
    const char *head = s->in->o->head;
    ring_order order = turned(c, 0);

    if (!head) return try_ring(s, w, &order, err);
    if (strcmp(head, "auto") == 0 && s->in->o->published) { /* not exact: what could be faster is not known */
        int rc = PR_OK;
        for (size_t i = 0; i < c->n_devices && !rc; i++) {
            order = turned(c, i);
            rc = try_ring(s, w, &order, err);
        }
        return rc;
    }
    if (strcmp(head, "auto") == 0)
        return c->n_devices <= SEARCH_ALL_ORDERS ? try_every_ring(s, w, err) : try_every_head(s, w, err);
    for (size_t i = 0; i < c->n_devices; i++) {
        if (strcmp(c->device[i].name, head)) continue;
        order = turned(c, i);
        return try_ring(s, w, &order, err);
    }
    return pr_fail(err, PR_EUSAGE, "--head %s: the cluster has no device of that name", head);
}

/* The largest micro-batch first: where something streams it serves more sequences with the same reads, and
 * what cannot be as good is then seen at once. Of those with as many in flight the smallest is the best. */
static int try_micro_batches(orders *s, const workload *w, pr_err *err)
{
    workload now = *w;
    int rc = PR_OK;

    for (uint32_t in_flight = 1; in_flight <= w->slots && !rc; in_flight++) {
        uint32_t micro_batch = (w->slots + in_flight - 1) / in_flight;
        if (micro_batch == now.micro_batch) continue;
        now.micro_batch = micro_batch;
        rc = orders_try(s, &now, err);
    }
    return rc;
}

static bool has_gpus(const cluster *c)
{
    for (size_t i = 0; i < c->n_devices; i++)
        if (c->device[i].n_gpus) return true;
    return false;
}

int orders_try_all(orders *s, const workload *w, pr_err *err)
{
    int outputs = has_gpus(s->in->c) && !s->in->o->published ? 2 : 1; /* in RAM, on the head's GPU */
    workload now = *w;
    int rc = PR_OK;

    if (!now.throughput) now.micro_batch = 1;
    for (int i = 0; i < outputs && !rc; i++) {
        now.output_on_gpu = i == 1;
        rc = now.micro_batch ? orders_try(s, &now, err) : try_micro_batches(s, &now, err);
    }
    if (rc || s->found) return rc;
    return pr_fail(err, s->first_err.code, "%s", s->first_err.msg);
}

void orders_init(orders *s, const search_input *in)
{
    *s = (orders){.in = in, .start_ns = clock_ns(), .solves_left = SEARCH_SOLVES};
}
