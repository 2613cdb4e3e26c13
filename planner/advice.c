/* Most changes gain nothing: only those that could beat the best so far (reach.h) are solved. */
#include "planner/advice.h"
#include "planner/reach.h"
#include <stdio.h>
#include <stdlib.h>

typedef enum { MORE_RAM, MORE_DISK, MORE_LINK, N_CHANGES } change;

typedef struct {
    problem p;       /* with one change at a time */
    double *price;   /* [device][k][l], unchanged */
    double *changed; /* [k][l] */
    double *scratch; /* two rows */
    size_t n;        /* numbers of all k */
} advice;

static const double MORE = 1.25;
static const double NOISE = 1e-9; /* relative, of times: the first of equal changes is named */
static const double WORTH = 1.02; /* below 2 % the model's own error is larger */

static bool apply(problem_device *d, change what)
{
    double before[] = {d->ram_bytes, d->disk_bytes_per_ms, d->hop_ms};

    if (what == MORE_RAM) d->ram_bytes *= MORE;
    if (what == MORE_DISK) d->disk_bytes_per_ms *= MORE;
    if (what == MORE_LINK) d->hop_ms /= MORE;
    return before[what] > 0;
}

/* What the problem with this device changed takes, if that is less than the target. */
static bool gains(advice *v, size_t device, double target_ms, double *ms)
{
    const double *price[PROBLEM_MAX_DEVICES];
    double from_ms[PROBLEM_MAX_ROUNDS + 1];

    reach_prices(&v->p, device, target_ms, v->changed);
    for (size_t i = 0; i < v->p.n_devices; i++) price[i] = i == device ? v->changed : v->price + i * v->n;
    reach_from(&v->p, price, target_ms, v->scratch, from_ms);
    return dp_time_within(&v->p, from_ms, target_ms, ms, NULL) == PR_OK;
}

static void say(const problem_device *d, change what, const char *name, double gain, char *out, size_t cap)
{
    if (what == MORE_RAM)
        snprintf(out, cap, "%.1f GiB more RAM on %s: %.2fx", (MORE - 1) * d->ram_bytes / 0x1p30, name, gain);
    else
        snprintf(out, cap, "a %.0f %% faster %s of %s: %.2fx", 100 * (MORE - 1),
                 what == MORE_DISK ? "disk" : "link", name, gain);
}

static void try_changes(advice *v, const assignment *a, const char *const *name, char *out, size_t cap)
{
    double best = WORTH;

    for (size_t i = 0; i < v->p.n_devices; i++)
        reach_prices(&v->p, i, a->pass_ms / best, v->price + i * v->n);
    for (size_t i = 0; i < v->p.n_devices; i++)
        for (change what = 0; what < N_CHANGES; what++) {
            const problem_device before = v->p.device[i];
            double ms;

            if (apply(&v->p.device[i], what) && gains(v, i, a->pass_ms / best * (1 - NOISE), &ms)) {
                best = a->pass_ms / ms;
                say(&before, what, name[i], best, out, cap);
            }
            v->p.device[i] = before;
        }
}

void advice_for(const problem *p, const assignment *a, const char *const *name, char *out, size_t cap)
{
    advice *v = calloc(1, sizeof *v);

    snprintf(out, cap, "no 25 %% more RAM, disk or link of one device gains 2 %%");
    if (!v) return;
    v->p = *p;
    if (p->n_devices > ADVICE_ALL_ROUNDS) {
        v->p.min_rounds = a->rounds > 1 ? a->rounds - 1 : 1;
        v->p.max_rounds = a->rounds < p->max_rounds ? a->rounds + 1 : a->rounds;
    }
    v->n = reach_rounds(&v->p) * reach_row_size(&v->p);
    v->price = malloc(p->n_devices * v->n * sizeof *v->price);
    v->changed = malloc(v->n * sizeof *v->changed);
    v->scratch = malloc(2 * reach_row_size(&v->p) * sizeof *v->scratch);
    if (v->price && v->changed && v->scratch) try_changes(v, a, name, out, cap);
    free(v->price);
    free(v->changed);
    free(v->scratch);
    free(v);
}
