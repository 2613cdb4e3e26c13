/* The ring without one of its devices, the unused ones behind it. */
#include "planner/fallback.h"
#include "planner/reach.h"
#include <stdio.h>

enum { MANY_DEVICES = 16, SPARE_DEVICES = 16 };

/* Those left of the ring, then the unused ones, the ones with the most memory first where there are many. */
static ring_order ring_without(const search_input *in, const candidate *best, size_t lost, const plan *p)
{
    ring_order order = {.n = 0};
    bool used[CLUSTER_MAX_DEVICES] = {false};
    size_t n_spare = p->n_unused < SPARE_DEVICES ? p->n_unused : SPARE_DEVICES;

    for (size_t i = 0; i < best->order.n; i++) {
        used[best->order.i[i]] = true;
        if (i != lost) order.i[order.n++] = best->order.i[i];
    }
    for (size_t n = 0; n < n_spare; n++) {
        size_t most = in->c->n_devices;
        for (size_t d = 0; d < in->c->n_devices; d++) {
            if (used[d]) continue;
            if (most == in->c->n_devices || in->c->device[d].ram_bytes > in->c->device[most].ram_bytes)
                most = d;
        }
        used[most] = true;
        order.i[order.n++] = (uint32_t)most;
    }
    return order;
}

/* "desk=20,laptop=12"; NULL when memory is short: then the file has none. */
static char *name_layers(const search_input *in, const candidate *k)
{
    char *text = NULL;
    size_t n;
    FILE *o = open_memstream(&text, &n);

    if (!o) return NULL;
    for (size_t i = 0; i < k->order.n; i++) {
        if (i > 0 && !k->a.device[i].layers) continue;
        fprintf(o, "%s%s=%u", i ? "," : "", in->c->device[k->order.i[i]].name, k->a.device[i].layers);
    }
    fclose(o);
    return text;
}

static bool solve_near(problem *p, uint32_t rounds, solution *s)
{
    uint32_t min = p->min_rounds, max = p->max_rounds;

    p->min_rounds = rounds > 1 ? rounds - 1 : 1;
    p->max_rounds = rounds < max ? rounds + 1 : max;
    bool solved = dp_solve(p, s, NULL) == PR_OK;
    p->min_rounds = min;
    p->max_rounds = max;
    return solved;
}

static void add_one(const search_input *in, const candidate *best, size_t lost, plan *p)
{
    plan_fallback *f = &p->fallback[p->n_fallbacks++];
    candidate k = {.w = best->w, .order = ring_without(in, best, lost, p)};
    solution found;

    snprintf(f->lost, sizeof f->lost, "%s", in->c->device[best->order.i[lost]].name);
    if (!k.order.n || candidate_problem(in, &k.w, &k.order, false, &k.pr, NULL)) return;
    bool solved = k.order.n > MANY_DEVICES && solve_near(&k.pr, best->a.rounds, &found);
    if (!solved && reach_solve(&k.pr, best->a.rounds, &found, NULL)) return;
    k.a = found.best;
    candidate_rate(&k);
    f->rounds = k.a.rounds;
    f->tpot_ms = k.tpot_ms;
    f->layers = name_layers(in, &k);
}

void fallback_add(const search_input *in, const candidate *best, plan *p)
{
    for (size_t i = 0; i < best->order.n; i++) add_one(in, best, i, p);
}
