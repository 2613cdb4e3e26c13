/* The certificate: GLPK's word that no plan is faster than that of dp.c. The only file that includes glpk.h.
 *
 * For a number of rounds k the mixed-integer program picks one choice (choices.h) of each device:
 *
 *     min T    sum of layers = L    T >= C_out + sum of costs (weighted)    T >= bound of each device's
 * choice
 *
 * It is exact for whatever problem.c says, streaming in whole pieces included; what it checks is the search,
 * not the formula. Its relaxation is tight, for it mixes a few choices of few devices.
 *
 * The relaxation is solved by column generation: GLPK solves it over some choices, and those that look good
 * at its prices join them. The prices prove a bound by weak duality, added up over all choices
 * (choices_bound), so that GLPK's rounding cannot make it wrong. Prices found for one k often suffice for the
 * next, and they tell the choices that no faster plan can hold: GLPK branches on the others only.
 *
 * What is tried is counted in simplex iterations and nodes, not in time: the same problem gives the same
 * bound on every machine. */
#include "planner/choices.h"
#include "planner/solve.h"
#include "src/base/clock.h"
#include <glpk.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double TOLERANCE = 1e-6; /* relative, of times */
enum { MAX_ITERATIONS = 20000, MAX_PRICINGS = 100, MAX_BRANCHED = 2000 };

typedef struct {
    const problem *p;
    double target_ms; /* is there anything faster than this? */
    choices t;        /* of the k at hand */
    bool *added;      /* [added_capacity]: this choice is a column */
    size_t added_capacity;
    choice_prices u; /* the best so far for this k; at first those of the k before */
    uint64_t start_ns;
    double time_limit_s;
    uint32_t nodes_left;
} certifier;

static bool out_of_time(const certifier *c)
{
    return clock_ms_since(c->start_ns) > c->time_limit_s * 1e3;
}

/* --- rows and columns ------------------------------------------------------------------------------- */
/* Rows: layers, the sum, then two of every device: one choice, its bound. Columns: T, layers too few and too
 * many (so that there always is a solution), then choices. */
enum { ROW_LAYERS = 1, ROW_SUM, ROW_DEVICES, COL_TIME = 1, COL_FEW, COL_MANY, COL_CHOICES };

static int row_one(size_t device)
{
    return ROW_DEVICES + 2 * (int)device;
}

static int row_bound(size_t device)
{
    return row_one(device) + 1;
}

static void add_choice_column(glp_prob *lp, const certifier *c, size_t device, size_t i)
{
    const choice *v = &c->t.list[i];
    const int row[] = {0, ROW_LAYERS, ROW_SUM, row_one(device), row_bound(device)};
    const double value[] = {0, v->layers, -v->cost, 1, -v->bound};
    int at = glp_add_cols(lp, 1);

    glp_set_col_bnds(lp, at, GLP_LO, 0, 0);
    glp_set_mat_col(lp, at, 4, row, value);
}

static glp_prob *new_program(const certifier *c)
{
    int row[PROBLEM_MAX_DEVICES + 2] = {0, ROW_SUM};
    double one[PROBLEM_MAX_DEVICES + 2] = {0, 1};
    size_t n = c->p->n_devices;
    glp_prob *lp = glp_create_prob();

    glp_set_obj_dir(lp, GLP_MIN);
    glp_add_rows(lp, row_one(n) - 1);
    glp_add_cols(lp, COL_CHOICES - 1);
    glp_set_row_bnds(lp, ROW_LAYERS, GLP_FX, c->p->n_layers, c->p->n_layers);
    glp_set_row_bnds(lp, ROW_SUM, GLP_LO, c->t.fixed_ms, 0);
    for (size_t m = 0; m < n; m++) {
        glp_set_row_bnds(lp, row_one(m), GLP_FX, 1, 1);
        glp_set_row_bnds(lp, row_bound(m), GLP_LO, 0, 0);
        row[m + 2] = row_bound(m);
        one[m + 2] = 1;
    }
    glp_set_col_bnds(lp, COL_TIME, GLP_LO, 0, 0);
    glp_set_obj_coef(lp, COL_TIME, 1);
    glp_set_mat_col(lp, COL_TIME, (int)n + 1, row, one);
    return lp;
}

/* Missing layers cost far more than they could ever save. */
static void allow_any_sum(glp_prob *lp, const certifier *c)
{
    const int row[] = {0, ROW_LAYERS};
    const double few[] = {0, 1}, many[] = {0, -1};

    glp_set_col_bnds(lp, COL_FEW, GLP_LO, 0, 0);
    glp_set_col_bnds(lp, COL_MANY, GLP_LO, 0, 0);
    glp_set_mat_col(lp, COL_FEW, 1, row, few);
    glp_set_mat_col(lp, COL_MANY, 1, row, many);
    glp_set_obj_coef(lp, COL_FEW, 100 * c->target_ms);
    glp_set_obj_coef(lp, COL_MANY, 100 * c->target_ms);
}

/* --- the relaxation --------------------------------------------------------------------------------- */
static void add_column(glp_prob *lp, certifier *c, size_t device, size_t i)
{
    if (c->added[i]) return;
    c->added[i] = true;
    add_choice_column(lp, c, device, i);
}

/* Fewest layers, most layers, and what the prices at hand like best. */
static void add_first_columns(glp_prob *lp, certifier *c)
{
    double least;

    memset(c->added, 0, c->t.n * sizeof *c->added);
    for (size_t m = 0; m < c->p->n_devices; m++) {
        add_column(lp, c, m, c->t.first[m]);
        add_column(lp, c, m, c->t.first[m + 1] - 1);
        add_column(lp, c, m, choices_least(&c->t, &c->u, m, &least));
    }
}

static void read_prices(glp_prob *lp, const certifier *c, choice_prices *u)
{
    double all = u->sum = fmax(0, glp_get_row_dual(lp, ROW_SUM));

    for (size_t m = 0; m < c->p->n_devices; m++)
        all += u->bound[m] = fmax(0, glp_get_row_dual(lp, row_bound(m)));
    if (all > 1) { /* by rounding */
        u->sum /= all;
        for (size_t m = 0; m < c->p->n_devices; m++) u->bound[m] /= all;
    }
    u->layer = glp_get_row_dual(lp, ROW_LAYERS);
}

/* The best choice of every device that is not a column yet; false: there is none that could help. */
static bool add_better_columns(glp_prob *lp, certifier *c, const choice_prices *u)
{
    bool any = false;

    for (size_t m = 0; m < c->p->n_devices; m++) {
        double least, has = glp_get_row_dual(lp, row_one(m));
        size_t i = choices_least(&c->t, u, m, &least);
        if (c->added[i] || least >= has - 1e-9 * c->target_ms) continue;
        add_column(lp, c, m, i);
        any = true;
    }
    return any;
}

/* The relaxation's bound, with the prices that prove it in c->u; `before` is what they prove already. */
static double relax(certifier *c, double before)
{
    glp_prob *lp = new_program(c);
    double best = before;
    int iterations = 0;
    glp_smcp o;

    glp_init_smcp(&o);
    o.msg_lev = GLP_MSG_OFF;
    allow_any_sum(lp, c);
    add_first_columns(lp, c);
    glp_adv_basis(lp, 0);
    for (int i = 0; i < MAX_PRICINGS && iterations < MAX_ITERATIONS && !out_of_time(c); i++) {
        choice_prices u = {0};
        o.it_lim = MAX_ITERATIONS - iterations;
        if (glp_simplex(lp, &o) || glp_get_status(lp) != GLP_OPT) break;
        iterations = glp_get_it_cnt(lp);
        read_prices(lp, c, &u);
        double ms = choices_bound(&c->t, &u);
        if (ms > best) {
            best = ms;
            c->u = u;
        }
        if (best >= c->target_ms || !add_better_columns(lp, c, &u)) break;
    }
    glp_delete_prob(lp);
    return best;
}

/* --- branching -------------------------------------------------------------------------------------- */
typedef struct {
    const certifier *c;
    double bound_ms;
    uint32_t nodes;
    uint32_t max_nodes;
} progress;

/* Called by GLPK at every node: keep the bound, stop when it is enough or has taken too long. */
static void watch(glp_tree *tree, void *info)
{
    progress *g = info;
    int node = glp_ios_best_node(tree);

    if (node) g->bound_ms = fmax(g->bound_ms, glp_ios_node_bound(tree, node));
    if (glp_ios_reason(tree) == GLP_ISELECT) g->nodes++;
    if (g->bound_ms >= g->c->target_ms || g->nodes > g->max_nodes || out_of_time(g->c))
        glp_ios_terminate(tree);
}

/* A column for each choice that a plan faster than the target may hold; their number, 0: there is no such
 * plan. */
static size_t add_open_choices(glp_prob *lp, const certifier *c, double bound_ms)
{
    size_t n = 0;

    for (size_t m = 0; m < c->p->n_devices; m++) {
        double least, room = c->target_ms - bound_ms;
        size_t of_device = 0;
        choices_least(&c->t, &c->u, m, &least);
        for (size_t i = c->t.first[m]; i < c->t.first[m + 1]; i++) {
            if (choices_worth(&c->t, &c->u, m, i) - least > room) continue;
            add_choice_column(lp, c, m, i);
            of_device++;
        }
        if (!of_device) return 0;
        n += of_device;
    }
    return n;
}

/* Searches this k from a bound on; *open: something faster than the plan may still exist. */
static double branch(certifier *c, double bound_ms, bool *open)
{
    glp_prob *lp = new_program(c);
    progress g = {c, bound_ms, 0, c->nodes_left};
    size_t n = add_open_choices(lp, c, bound_ms);
    glp_iocp o;

    *open = n > MAX_BRANCHED;
    if (!n) bound_ms = c->target_ms;
    if (!n || *open) goto done;
    glp_set_col_bnds(lp, COL_TIME, GLP_DB, 0, c->target_ms);
    glp_set_col_bnds(lp, COL_FEW, GLP_FX, 0, 0);
    glp_set_col_bnds(lp, COL_MANY, GLP_FX, 0, 0);
    for (size_t i = 0; i < n; i++) glp_set_col_kind(lp, COL_CHOICES + (int)i, GLP_BV);
    glp_init_iocp(&o);
    o.msg_lev = GLP_MSG_OFF;
    o.presolve = GLP_ON;
    o.mip_gap = TOLERANCE;
    o.cb_func = watch;
    o.cb_info = &g;
    int rc = glp_intopt(lp, &o), status = glp_mip_status(lp);
    bool none = (rc == 0 && status == GLP_NOFEAS) || rc == GLP_ENOPFS;
    bool solved = (rc == 0 && status == GLP_OPT) || rc == GLP_EMIPGAP;
    bound_ms = none ? c->target_ms : g.bound_ms;
    if (solved) bound_ms = fmax(bound_ms, glp_mip_obj_val(lp) * (1 - TOLERANCE));
    *open = !(none || solved || bound_ms >= c->target_ms);
    c->nodes_left -= g.nodes < c->nodes_left ? g.nodes : c->nodes_left;
done:
    glp_delete_prob(lp);
    return fmin(bound_ms, c->target_ms);
}

/* --- one k ------------------------------------------------------------------------------------------ */
static bool lacks_choice(const choices *t)
{
    for (size_t m = 0; m < t->p->n_devices; m++) {
        if (t->first[m] == t->first[m + 1]) return true;
    }
    return false;
}

/* No plan of k rounds takes less than *ms; false: out of memory. */
static bool certify_rounds(certifier *c, uint32_t k, double *ms, bool *open)
{
    *open = false;
    *ms = c->target_ms;
    if (!choices_make(&c->t, c->p, k, c->target_ms)) return false;
    if (c->t.least_ms >= c->target_ms || lacks_choice(&c->t)) return true;
    if (c->t.n > c->added_capacity) {
        free(c->added);
        c->added = malloc(c->t.capacity * sizeof *c->added);
        c->added_capacity = c->added ? c->t.capacity : 0;
        if (!c->added) return false;
    }
    double bound_ms = choices_bound(&c->t, &c->u);
    if (bound_ms < c->target_ms) bound_ms = relax(c, bound_ms);
    if (bound_ms >= c->target_ms) return true;
    *ms = bound_ms;
    *open = true;
    if (c->nodes_left > 0 && !out_of_time(c)) *ms = branch(c, bound_ms, open);
    return true;
}

/* k of the plan first, then ever further from it: 5, 4, 6, 3, 7, ... */
static uint32_t nth_rounds(const problem *p, uint32_t middle, uint32_t n)
{
    uint32_t below = middle - problem_first_rounds(p), above = problem_last_rounds(p) - middle;
    uint32_t both = below < above ? below : above;

    if (n <= 2 * both) return n % 2 ? middle - (n + 1) / 2 : middle + n / 2;
    return below > above ? middle - (n - both) : middle + (n - both);
}

int milp_certify(const problem *p, const assignment *found, const milp_limits *limits, double *bound_ms,
                 bool *complete, pr_err *err)
{
    uint32_t first = problem_first_rounds(p), last = problem_last_rounds(p);
    double least = limits->known_ms > 0 ? fmin(limits->known_ms, found->pass_ms) : found->pass_ms;
    double target = fmin(found->pass_ms * (1 - limits->gap), least * (1 - TOLERANCE));
    certifier c = {.p = p,
                   .target_ms = target,
                   .start_ns = clock_ns(),
                   .time_limit_s = limits->time_limit_s,
                   .nodes_left = limits->max_nodes};
    bool memory = true;

    if (!(target > 0) || !(limits->time_limit_s >= 0) || found->rounds < first || found->rounds > last)
        return pr_fail(err, PR_EINTERNAL, "milp: a plan of %g ms and %u rounds cannot be certified",
                       found->pass_ms, (unsigned)found->rounds);
    glp_term_out(GLP_OFF);
    *complete = true;
    *bound_ms = target;
    for (uint32_t i = 0; i <= last - first && memory; i++) {
        double ms = 0;
        bool open = true;
        memory = certify_rounds(&c, nth_rounds(p, found->rounds, i), &ms, &open);
        *bound_ms = fmin(*bound_ms, ms);
        if (open) *complete = false;
    }
    choices_clear(&c.t);
    free(c.added);
    glp_free_env();
    return memory ? PR_OK : pr_fail(err, PR_ERESOURCE, "milp: out of memory");
}

const char *milp_status(const assignment *found, double bound_ms, double *gap_pct)
{
    double gap = fmax(0, found->pass_ms - bound_ms) / found->pass_ms;
    bool proven = gap <= 2 * TOLERANCE;

    *gap_pct = proven ? 0 : 100 * gap;
    return proven ? "optimal" : "feasible";
}
