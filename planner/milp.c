/* The problem as a mixed-integer linear program (halda.md 7.3), solved by GLPK: a certificate for the plan of
 * dp.c. The only file that includes glpk.h.
 *
 * One program for each number of rounds k. Sizes are counted in layers and times in ms, to keep the
 * coefficients near one. All relaxations come first: a k whose relaxation is no faster than the plan is done
 * with. The others are searched, the most promising first, and only for something faster than the plan. Every
 * device in use pays its hops here; plans of one device, which pay none, are few and tried one by one. */
#include "planner/solve.h"
#include "src/base/clock.h"
#include <glpk.h>
#include <math.h>
#include <stdlib.h>

static const double TOLERANCE = 1e-6; /* relative, of times */

/* Columns: T, then these for every device. */
enum { LAYERS, GPU_LAYERS, IN_USE, HAS_CPU, HAS_GPU, EXCESS, BUFFER, EXPOSED, STALL, N_COLUMNS };
enum { TIME = 1, MAX_TERMS = 8 * PROBLEM_MAX_DEVICES };

static int column(size_t device, int what)
{
    return 2 + (int)device * N_COLUMNS + what;
}

typedef struct {
    int n, index[1 + MAX_TERMS];
    double value[1 + MAX_TERMS];
} row;

static void term(row *r, int col, double value)
{
    if (value == 0) return;
    r->n++;
    r->index[r->n] = col;
    r->value[r->n] = value;
}

/* Adds "sum of terms <= limit" (GLP_UP), ">=" (GLP_LO) or "=" (GLP_FX), and empties the row. */
static void add_row(glp_prob *lp, row *r, int kind, double limit)
{
    int at = glp_add_rows(lp, 1);

    glp_set_row_bnds(lp, at, kind, limit, limit);
    glp_set_mat_row(lp, at, r->n, r->index, r->value);
    r->n = 0;
}

static void add_compute(row *r, const problem_device *d, size_t m, double factor)
{
    term(r, column(m, LAYERS), factor * d->cpu_ms);
    if (d->vram_bytes > 0) term(r, column(m, GPU_LAYERS), factor * (d->gpu_ms - d->cpu_ms));
}

/* T >= X/s + (1 - theta) C, and for throughput T >= C + C_out and T >= k t. */
static void add_bounds(glp_prob *lp, row *r, const problem *p, size_t m, uint32_t k, double ms_per_layer)
{
    const problem_device *d = &p->device[m];

    term(r, TIME, 1);
    term(r, column(m, EXCESS), -ms_per_layer);
    term(r, column(m, BUFFER), -ms_per_layer);
    add_compute(r, d, m, d->theta - 1);
    add_row(lp, r, GLP_LO, 0);
    if (!p->throughput) return;
    term(r, TIME, 1);
    add_compute(r, d, m, -1);
    add_row(lp, r, GLP_LO, m == 0 ? d->out_ms : 0);
    term(r, TIME, 1);
    term(r, column(m, IN_USE), -(double)k * d->hop_ms);
    add_row(lp, r, GLP_LO, 0);
}

/* E >= Y - A, S <= A, k U >= E - (k-1) S, Z >= k U/s - theta C, and A >= 0 through S >= 0. */
static void add_memory(glp_prob *lp, row *r, const problem *p, size_t m, uint32_t k, double ms_per_layer)
{
    const problem_device *d = &p->device[m];
    double kv = p->kv_layer_bytes / p->layer_bytes, buffer = d->cpu_buffer_bytes / p->layer_bytes;
    double ram = (d->ram_bytes - (m == 0 ? d->head_bytes : 0)) / p->layer_bytes;

    term(r, column(m, EXCESS), 1);
    term(r, column(m, LAYERS), -1 - kv);
    term(r, column(m, GPU_LAYERS), 1 + kv);
    term(r, column(m, HAS_CPU), -buffer);
    add_row(lp, r, GLP_LO, -ram);
    term(r, column(m, BUFFER), 1);
    term(r, column(m, LAYERS), kv);
    term(r, column(m, GPU_LAYERS), -kv);
    term(r, column(m, HAS_CPU), buffer);
    add_row(lp, r, GLP_UP, ram);
    if (d->vram_bytes > 0) {
        term(r, column(m, GPU_LAYERS), 1 + kv);
        term(r, column(m, HAS_GPU), d->gpu_buffer_bytes / p->layer_bytes);
        add_row(lp, r, GLP_UP, d->vram_bytes / p->layer_bytes);
    }
    term(r, column(m, EXPOSED), k);
    term(r, column(m, EXCESS), -1);
    term(r, column(m, BUFFER), (double)k - 1);
    add_row(lp, r, GLP_LO, 0);
    term(r, column(m, STALL), 1);
    term(r, column(m, EXPOSED), -(double)k * ms_per_layer);
    add_compute(r, d, m, d->theta);
    add_row(lp, r, GLP_LO, 0);
}

/* g <= l, l <= L y, l - g <= L p, g <= L q, p <= y, q <= y. */
static void add_links(glp_prob *lp, row *r, size_t m, double n_layers)
{
    const int upper[][2] = {{GPU_LAYERS, LAYERS}, {HAS_CPU, IN_USE}, {HAS_GPU, IN_USE}};
    const int counted[][2] = {{LAYERS, IN_USE}, {GPU_LAYERS, HAS_GPU}};

    for (size_t i = 0; i < 3; i++) {
        term(r, column(m, upper[i][0]), 1);
        term(r, column(m, upper[i][1]), -1);
        add_row(lp, r, GLP_UP, 0);
    }
    for (size_t i = 0; i < 2; i++) {
        term(r, column(m, counted[i][0]), 1);
        term(r, column(m, counted[i][1]), -n_layers);
        add_row(lp, r, GLP_UP, 0);
    }
    term(r, column(m, LAYERS), 1);
    term(r, column(m, GPU_LAYERS), -1);
    term(r, column(m, HAS_CPU), -n_layers);
    add_row(lp, r, GLP_UP, 0);
}

static void set_range(glp_prob *lp, int col, double low, double high)
{
    glp_set_col_bnds(lp, col, low < high ? GLP_DB : GLP_FX, low, high);
}

static void add_columns(glp_prob *lp, const problem *p, size_t m, uint32_t k)
{
    const problem_device *d = &p->device[m];
    double n = p->n_layers;

    for (int what = 0; what < N_COLUMNS; what++) glp_set_col_bnds(lp, column(m, what), GLP_LO, 0, 0);
    for (int what = LAYERS; what <= GPU_LAYERS; what++) glp_set_col_kind(lp, column(m, what), GLP_IV);
    for (int what = IN_USE; what <= HAS_GPU; what++) glp_set_col_kind(lp, column(m, what), GLP_BV);
    set_range(lp, column(m, LAYERS), d->fixed_layers < 0 ? 0 : d->fixed_layers,
              d->fixed_layers < 0 ? n : d->fixed_layers);
    set_range(lp, column(m, GPU_LAYERS), d->fixed_gpu_layers < 0 ? 0 : d->fixed_gpu_layers,
              d->vram_bytes <= 0 && d->fixed_gpu_layers <= 0 ? 0
              : d->fixed_gpu_layers < 0                      ? n
                                                             : d->fixed_gpu_layers);
    if (d->disk_bytes_per_ms <= 0) set_range(lp, column(m, EXCESS), 0, 0);
    if (k == 1 || d->disk_bytes_per_ms <= 0) set_range(lp, column(m, BUFFER), 0, 0);
}

static glp_prob *build(const problem *p, uint32_t k, double at_most_ms)
{
    glp_prob *lp = glp_create_prob();
    row sum = {0}, total = {0}, r = {0};

    glp_set_obj_dir(lp, GLP_MIN);
    glp_add_cols(lp, 1 + (int)p->n_devices * N_COLUMNS);
    glp_set_obj_coef(lp, TIME, 1);
    glp_set_col_bnds(lp, TIME, GLP_DB, 0, at_most_ms);
    term(&total, TIME, 1);
    for (size_t m = 0; m < p->n_devices; m++) {
        const problem_device *d = &p->device[m];
        double ms_per_layer = d->disk_bytes_per_ms > 0 ? p->layer_bytes / d->disk_bytes_per_ms : 0;
        add_columns(lp, p, m, k);
        add_memory(lp, &r, p, m, k, ms_per_layer);
        add_links(lp, &r, m, p->n_layers);
        add_bounds(lp, &r, p, m, k, ms_per_layer);
        add_compute(&total, d, m, -1);
        term(&total, column(m, STALL), -1);
        term(&total, column(m, IN_USE), -(double)k * d->hop_ms);
        term(&sum, column(m, LAYERS), 1);
    }
    add_row(lp, &sum, GLP_FX, p->n_layers);
    if (!p->throughput) add_row(lp, &total, GLP_LO, p->device[0].out_ms);
    return lp;
}

/* --- one k
 * ---------------------------------------------------------------------------------------------------- */

typedef struct {
    uint32_t k;
    double bound_ms; /* proven for this k; INFINITY: nothing faster than the plan, or nothing at all */
    bool open;       /* something faster may exist */
} search;

/* The relaxation's bound. GLPK's own words for "infeasible" are the only ones taken as a proof. */
static void relax(search *s, const problem *p, double plan_ms, double limit_s)
{
    glp_prob *lp = build(p, s->k, plan_ms * (1 + TOLERANCE));
    glp_smcp o;

    glp_init_smcp(&o);
    o.msg_lev = GLP_MSG_OFF;
    o.tm_lim = 1 + (int)(1000 * fmax(0, limit_s));
    glp_scale_prob(lp, GLP_SF_AUTO);
    glp_adv_basis(lp, 0);
    s->open = true;
    if (glp_simplex(lp, &o) == 0) {
        int status = glp_get_status(lp);
        if (status == GLP_OPT) s->bound_ms = glp_get_obj_val(lp);
        if (status == GLP_NOFEAS) s->bound_ms = INFINITY;
    }
    if (s->bound_ms >= plan_ms * (1 - TOLERANCE)) s->open = false;
    glp_delete_prob(lp);
}

typedef struct {
    double bound_ms, enough_ms;
} progress;

/* Called by GLPK during the search: keep the bound, stop when it reaches the plan. */
static void watch(glp_tree *tree, void *info)
{
    progress *g = info;
    int node = glp_ios_best_node(tree);

    if (node == 0) return;
    g->bound_ms = fmax(g->bound_ms, glp_ios_node_bound(tree, node));
    if (g->bound_ms >= g->enough_ms) glp_ios_terminate(tree);
}

static void branch(search *s, const problem *p, double plan_ms, double limit_s)
{
    glp_prob *lp = build(p, s->k, plan_ms * (1 + TOLERANCE));
    progress g = {s->bound_ms, plan_ms * (1 - TOLERANCE)};
    glp_iocp o;

    glp_init_iocp(&o);
    o.msg_lev = GLP_MSG_OFF;
    o.presolve = GLP_ON;
    o.mip_gap = TOLERANCE;
    o.tm_lim = 1 + (int)(1000 * limit_s);
    o.cb_func = watch;
    o.cb_info = &g;
    int rc = glp_intopt(lp, &o), status = glp_mip_status(lp);
    bool none = (rc == 0 && status == GLP_NOFEAS) || rc == GLP_ENOPFS;
    bool solved = (rc == 0 && status == GLP_OPT) || rc == GLP_EMIPGAP;
    s->bound_ms = none ? INFINITY : g.bound_ms;
    if (solved) s->bound_ms = fmax(s->bound_ms, glp_mip_obj_val(lp) * (1 - TOLERANCE));
    s->open = !(none || solved || s->bound_ms >= g.enough_ms);
    glp_delete_prob(lp);
}

static int most_promising(const void *a, const void *b)
{
    const search *x = a, *y = b;
    if (x->bound_ms != y->bound_ms) return x->bound_ms < y->bound_ms ? -1 : 1;
    return (x->k > y->k) - (x->k < y->k);
}

static double best_alone(const problem *p, uint32_t k)
{
    double best = INFINITY;

    for (size_t i = 0; i < p->n_devices; i++)
        for (uint32_t g = 0; g <= p->n_layers && (g == 0 || p->device[i].vram_bytes > 0); g++) {
            assignment a = {.rounds = k};
            a.device[i].layers = p->n_layers;
            a.device[i].gpu_layers = g;
            if (assignment_evaluate(p, &a, NULL, NULL)) best = fmin(best, a.pass_ms);
        }
    return best;
}

int milp_certify(const problem *p, const assignment *found, double time_limit_s, double *bound_ms,
                 bool *complete, pr_err *err)
{
    uint64_t start = clock_ns();
    uint32_t last = p->max_rounds < p->n_layers ? p->max_rounds : p->n_layers;
    search s[PROBLEM_MAX_ROUNDS];

    if (!(found->pass_ms > 0) || !(time_limit_s >= 0) || p->n_devices > PROBLEM_MAX_DEVICES)
        return pr_fail(err, PR_EINTERNAL, "milp: a plan of %g ms and a time limit of %g s make no sense",
                       found->pass_ms, time_limit_s);
    if (last > PROBLEM_MAX_ROUNDS) last = PROBLEM_MAX_ROUNDS;
    if (p->throughput) last = 1; /* more rounds only add hops and bytes: nothing waits for a disk there */
    glp_term_out(GLP_OFF);
    *complete = true;
    *bound_ms = fmin(found->pass_ms, best_alone(p, 1)); /* several rounds on one device only read more */
    for (uint32_t i = 0; i < last; i++) {
        s[i] = (search){.k = i + 1};
        relax(&s[i], p, found->pass_ms, time_limit_s - clock_ms_since(start) / 1000);
    }
    qsort(s, last, sizeof *s, most_promising);
    for (uint32_t i = 0; i < last; i++) {
        double left_s = time_limit_s - clock_ms_since(start) / 1000;
        if (s[i].open && left_s > 0) branch(&s[i], p, found->pass_ms, fmax(left_s / 3, left_s / (last - i)));
        *bound_ms = fmin(*bound_ms, s[i].bound_ms);
        if (s[i].open) *complete = false;
    }
    glp_free_env();
    return PR_OK;
}

const char *milp_status(const assignment *found, double bound_ms, double *gap_pct)
{
    double gap = fmax(0, found->pass_ms - bound_ms) / found->pass_ms;
    bool proven = gap <= 2 * TOLERANCE;

    *gap_pct = proven ? 0 : 100 * gap;
    return proven ? "optimal" : "feasible";
}
