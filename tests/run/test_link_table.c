/* Links as a plan has them, worked out from what it keeps of them, and the table beside measured ones. */
#include "planner/cost.h"
#include "src/run/link_table.h"
#include "tests/common/ring_plan.h"
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <math.h>

enum { EMBD = 2048 };
static const uint16_t ports[] = {9701, 9702, 9703};

/* A plan whose hops are those of this link, as the planner reckons. */
static plan *plan_of(double mbit_per_s, double rtt_ms, uint32_t micro_batch, uint32_t chunk)
{
    static const char sha[] = "0000000000000000000000000000000000000000000000000000000000000000";
    const model_facts f = {.n_embd = EMBD};
    plan *p = ring_plan_new(3, 1, 8, sha, ports);

    cr_assert_not_null(p);
    p->micro_batch = micro_batch;
    p->prefill_tokens = chunk;
    for (size_t i = 0; i < 3; i++) {
        p->device[i].cost.hop_ms = cost_hop_ms(&f, micro_batch, mbit_per_s, rtt_ms);
        p->device[i].cost.prefill_hop_ms = cost_hop_ms(&f, chunk, mbit_per_s, rtt_ms);
    }
    return p;
}

static bool is_near(double a, double b)
{
    return fabs(a - b) <= 1e-6 * fabs(b) + 1e-9;
}

struct link_case {
    double mbit_per_s, rtt_ms;
    uint32_t micro_batch, chunk;
};

ParameterizedTestParameters(link_table, the_plan_is_solved_for_the_link)
{
    static struct link_case c[] = {
        {1000, 0.5, 1, 256}, {300, 7, 16, 17}, {940, 0.03, 4, 128}, {10, 20, 1, 512}, {40000, 0, 1, 64}};
    return cr_make_param_array(struct link_case, c, sizeof c / sizeof *c);
}

ParameterizedTest(struct link_case *c, link_table, the_plan_is_solved_for_the_link)
{
    plan *p = plan_of(c->mbit_per_s, c->rtt_ms, c->micro_batch, c->chunk);
    link_view v = link_planned(p, 1, EMBD);

    cr_expect(is_near(v.way_us, c->rtt_ms / 2 * 1e3), "%.9f us", v.way_us);
    cr_expect(is_near(v.bytes_per_s, c->mbit_per_s * 1e6 / 8), "%.3f bytes/s", v.bytes_per_s);
    cr_expect_float_eq(v.hop_ms, p->device[1].cost.hop_ms, 0);
    plan_free(p);
}

/* One size of frame tells nothing of delay and rate apart. */
Test(link_table, a_plan_that_does_not_tell)
{
    plan *p = plan_of(1000, 0.5, 4, 4);
    link_view v = link_planned(p, 0, EMBD), is = link_measured(p, EMBD, 0.5, 125e6);
    char row[LINK_ROW_BYTES];
    bool off;

    cr_expect(isnan(v.way_us) && isnan(v.bytes_per_s) && v.hop_ms > 0);
    cr_expect_float_eq(is.hop_ms, v.hop_ms, 1e-9, "the same link");
    link_table_row(row, p, 0, &is, &v, &off);
    cr_expect(!off && strstr(row, " - "), "%s", row);
    p->device[0].cost.prefill_hop_ms = 0; /* plans of before */
    p->prefill_tokens = 9;
    v = link_planned(p, 0, EMBD);
    cr_expect(isnan(v.way_us) && isnan(v.bytes_per_s));
    plan_free(p);
}

Test(link_table, more_than_twice_off_is_marked)
{
    static const struct {
        double rtt_ms, mbit_per_s;
        bool off;
        const char *says;
    } cases[] = {
        {0.5, 1000, false, ""},      {0.9, 1000, false, ""},      {0.3, 1900, false, ""},
        {1.2, 1000, true, "slower"}, {0.5, 400, true, "slower"},  {0.02, 20000, true, "faster"},
        {0.2, 1000, true, "faster"}, {0.5, 2200, true, "faster"},
    };
    plan *p = plan_of(1000, 0.5, 16, 256);
    char row[LINK_ROW_BYTES], head[LINK_ROW_BYTES];

    link_table_head(head);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        link_view v = link_planned(p, 2, EMBD),
                  is = link_measured(p, EMBD, cases[i].rtt_ms, cases[i].mbit_per_s * 1e6 / 8);
        bool off;
        link_table_row(row, p, 2, &is, &v, &off);
        cr_expect_eq(off, cases[i].off, "case %zu: %s", i, row);
        cr_expect(strstr(row, cases[i].says), "case %zu: %s", i, row);
        cr_expect(!strncmp(row, "d2 ", 3) && strstr(row, " d0 "), "the last one's next is the head: %s", row);
        cr_expect(strlen(row) >= strlen(head));
    }
    plan_free(p);
}
