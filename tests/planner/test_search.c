/* The search against trying every ring: clusters of four devices with links of all kinds. The best plan is
 * that of some ring of some of them; each is planned alone, in the order of a cluster file, without any
 * search. */
#include "planner/orders.h"
#include "planner/search.h"
#include "tests/planner/slower.h"
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double uniform(uint64_t *s, double low, double high)
{
    *s = *s * 6364136223846793005u + 1442695040888963407u;
    return low + (high - low) * (double)(*s >> 11) / 9007199254740992.0;
}

typedef struct {
    cluster c;
    profile *profiles[CLUSTER_MAX_DEVICES];
} example;

/* A model of 24 layers of 100 MB. */
static model_facts *facts(void)
{
    model_facts *f = calloc(1, sizeof *f);

    strcpy(f->name, "made up");
    strcpy(f->arch, "llama");
    strcpy(f->quant, "Q8_0");
    f->n_layers = 24;
    f->n_embd = 4096;
    f->n_ff = 11008;
    f->n_heads = f->n_kv_heads = 8;
    f->head_size = 64;
    f->n_vocab = 32000;
    for (int i = 0; i < 24; i++) f->layer_bytes[i] = 100000000;
    f->input_row_bytes = 4096;
    f->output_bytes = 50000000;
    f->file_bytes = 2600000000;
    f->n_work = 1;
    f->work[0] = (facts_work){.type = "Q8_0", .layer_elements = 1e8, .output_elements = 5e7};
    return f;
}

static example *make_example(uint64_t seed, size_t n_devices, double ram_bytes)
{
    uint64_t s = seed * 7919 + 1;
    example *e = calloc(1, sizeof *e);

    for (int i = 0; i < 10; i++) uniform(&s, 0, 1);
    strcpy(e->c.name, "made up");
    e->c.n_devices = n_devices;
    e->c.connect_s = 120;
    e->c.heartbeat_s = 2;
    e->c.peer_s = 15;
    for (uint32_t i = 0; i < n_devices; i++) {
        cluster_device *d = &e->c.device[i];
        profile *p = e->profiles[i] = calloc(1, sizeof *p);
        snprintf(d->name, sizeof d->name, "d%u", i);
        strcpy(d->host, "127.0.0.1");
        d->port = (uint16_t)(9700 + i);
        d->ram_bytes = (uint64_t)uniform(&s, 0.4 * ram_bytes, 1.6 * ram_bytes);
        strcpy(p->device, d->name);
        strcpy(p->os, "Linux");
        p->threads = 4;
        p->n_compute = 1;
        p->compute[0] =
            (profile_compute){.type = "Q8_0", .gpu = -1, .batch = 1, .gflops = uniform(&s, 5, 60)};
        p->n_disk = 1;
        p->disk[0] = (profile_disk){.pattern = "seq", .read_bytes_per_s = uniform(&s, 2e8, 3e9)};
    }
    for (uint32_t to = 1; to < n_devices && n_devices <= 8; to++)
        for (uint32_t from = 0; from < to; from++)
            e->c.link[e->c.n_links++] =
                (cluster_link){from, to, uniform(&s, 50, 2500), uniform(&s, 0.1, seed % 2 ? 3 : 30)};
    return e;
}

static void free_example(example *e)
{
    for (size_t i = 0; i < CLUSTER_MAX_DEVICES; i++) profile_free(e->profiles[i]);
    free(e);
}

static const search_options any_head = {.head = "auto", .version = "test", .created_at = "now"};

static search_options options(const char *head)
{
    search_options o = any_head;

    o.head = head;
    for (size_t i = 0; i < CLUSTER_MAX_DEVICES; i++) o.fixed_layers[i] = -1;
    return o;
}

static const workload one_token = {.ctx = 512, .slots = 1, .kv_type = "f16"};
static const workload four_slots = {.ctx = 512, .slots = 4, .kv_type = "f16", .throughput = true};

/* ms a token by the formula, before rounds are chosen by playing; INFINITY: no plan fits. */
static double plan_ms(const example *e, const model_facts *f, const workload *w, const char *head)
{
    const search_options o = options(head);
    const search_input in = {&e->c, e->profiles, f, &o, NULL};
    orders *s = malloc(sizeof *s);
    pr_err err = {0};
    double ms;
    int rc;

    orders_init(s, &in);
    rc = orders_try_all(s, w, &err);
    cr_assert(rc == PR_OK || rc == PR_EINFEASIBLE, "%s", err.msg);
    ms = rc ? INFINITY : s->best.tpot_ms;
    free(s);
    return ms;
}

/* The devices of `ring` alone, in this order. */
static double ring_ms(const example *e, const model_facts *f, const workload *w, const uint32_t *ring,
                      size_t n)
{
    example *some = calloc(1, sizeof *some);
    double ms;

    some->c = e->c;
    some->c.n_devices = n;
    some->c.n_links = 0;
    for (uint32_t i = 0; i < n; i++) {
        some->c.device[i] = e->c.device[ring[i]];
        some->profiles[i] = e->profiles[ring[i]];
    }
    for (size_t l = 0; l < e->c.n_links; l++)
        for (uint32_t i = 0; i < n; i++)
            for (uint32_t j = 0; j < n; j++) {
                cluster_link v = e->c.link[l];
                if (v.from != ring[i] || v.to != ring[j]) continue;
                v.from = i;
                v.to = j;
                some->c.link[some->c.n_links++] = v;
            }
    ms = plan_ms(some, f, w, NULL);
    free(some);
    return ms;
}

static double best_ring(const example *e, const model_facts *f, const workload *w, uint32_t *ring, size_t n)
{
    double best = n ? ring_ms(e, f, w, ring, n) : INFINITY;

    for (uint32_t next = 0; next < e->c.n_devices; next++) {
        bool used = false;
        for (size_t i = 0; i < n; i++) used |= ring[i] == next;
        if (used) continue;
        ring[n] = next;
        best = fmin(best, best_ring(e, f, w, ring, n + 1));
    }
    return best;
}

Test(search, finds_the_best_ring, .timeout = 120)
{
    model_facts *f = facts();
    int n_better = 0;

    for (uint64_t seed = 0; seed < 5; seed++) {
        example *e = make_example(seed, 4, 5e8);
        uint32_t ring[4];
        const workload *w = seed % 4 == 3 ? &four_slots : &one_token;
        double best = best_ring(e, f, w, ring, 0), found = plan_ms(e, f, w, "auto");

        cr_assert_float_eq(found, best, 1e-8 * best, "seed %zu: %g, not %g", (size_t)seed, found, best);
        n_better += found < plan_ms(e, f, w, NULL) * 0.999;
        free_example(e);
    }
    cr_assert_gt(n_better, 2, "the order of the file is seldom the best: %d", n_better);
    free(f);
}

/* Tokens a second of the best plan with micro-batches of so many sequences, 0 = chosen, and what it reads. */
static double rate(const example *e, const model_facts *f, uint32_t slots, uint32_t micro_batch,
                   candidate *found)
{
    const search_options o = options(NULL);
    const search_input in = {&e->c, e->profiles, f, &o, NULL};
    const workload w = {
        .ctx = 512, .slots = slots, .micro_batch = micro_batch, .kv_type = "f16", .throughput = true};
    orders *s = malloc(sizeof *s);
    double tps = 0;

    orders_init(s, &in);
    if (orders_try_all(s, &w, NULL) == PR_OK) {
        tps = s->best.output_tps;
        *found = s->best;
    }
    free(s);
    return tps;
}

/* Rates that grow with the batch, bound by memory first: for some up to 2 times, for others up to 16. */
static void add_batches(example *e, uint64_t seed)
{
    uint64_t s = seed * 101 + 7;

    for (size_t i = 0; i < e->c.n_devices; i++) {
        profile *p = e->profiles[i];
        double one = p->compute[0].gflops, most = one * uniform(&s, 1, seed % 2 ? 2 : 16);
        for (uint32_t b = 2; b <= 64; b *= 2) {
            profile_compute *c = &p->compute[p->n_compute++];
            *c = p->compute[0];
            c->batch = b;
            c->gflops = fmin(one * b, most);
        }
    }
}

/* How many sequences share a pass, and with that how often streamed bytes are read, against trying all. */
Test(search, finds_the_best_micro_batch, .timeout = 120)
{
    model_facts *f = facts();
    int n_streaming = 0, n_all_in_one = 0, n_several = 0, n_odd = 0;

    for (uint64_t seed = 0; seed < 24; seed++) {
        example *e = make_example(seed, 3, seed % 3 ? 5e8 : 2e9);
        uint32_t slots = 5 + (uint32_t)(seed * 7 % 20);
        candidate chosen, one;
        double found, best = 0;

        add_batches(e, seed);
        found = rate(e, f, slots, 0, &chosen);
        for (uint32_t b = 1; b <= slots; b++) best = fmax(best, rate(e, f, slots, b, &one));
        cr_assert_float_eq(found, best, 1e-8 * best, "seed %zu, %u slots: %g, not %g", (size_t)seed, slots,
                           found, best);
        if (found <= 0) continue;
        bool streams = false;
        for (size_t i = 0; i < chosen.order.n; i++) streams |= chosen.a.device[i].streamed_pieces > 0;
        n_streaming += streams;
        n_all_in_one += chosen.w.micro_batch == slots;
        n_several += chosen.w.micro_batch < slots;
        n_odd += chosen.pr.in_flight == 3 || chosen.pr.in_flight > 4;
        free_example(e);
    }
    cr_assert(n_streaming > 3 && n_all_in_one > 1 && n_several > 1 && n_odd > 1, "%d, %d, %d, %d",
              n_streaming, n_all_in_one, n_several, n_odd);
    free(f);
}

/* With more devices: no worse than any head with the order of the file. */
Test(search, every_head_is_tried, .timeout = 60)
{
    model_facts *f = facts();
    example *e = make_example(5, 8, 2.5e8);
    double found = plan_ms(e, f, &one_token, "auto"), best = INFINITY;

    for (size_t i = 0; i < 8; i++) best = fmin(best, plan_ms(e, f, &one_token, e->c.device[i].name));
    cr_assert_leq(found, best * (1 + 1e-9));
    free_example(e);
    free(f);
}

/* Four laptops that hold half of a 70B and stream the rest: search, playing, layout, fallbacks, advice and
 * certificate. Measured: at most 18 ms. */
Test(search, a_streaming_home_is_planned_at_once, .timeout = 60)
{
    model_facts *f = facts();
    double worst = 0;

    f->n_layers = 80;
    for (int i = 0; i < 80; i++) f->layer_bytes[i] = 513000000 + (i % 3) * 20000000;
    f->work[0].layer_elements = 8.5e8;
    for (uint64_t seed = 20; seed < 24; seed++) {
        example *e = make_example(seed, 4, 5e9);
        search_options o = options(NULL);
        pr_err err = {0};
        plan *p;

        clock_t start = clock();
        cr_assert_eq(search_plan(&p, &e->c, e->profiles, f, &one_token, &o, &err), PR_OK, "%s", err.msg);
        worst = fmax(worst, (double)(clock() - start) / CLOCKS_PER_SEC);
        cr_assert_gt(p->predicted.read_bytes_per_token, 1e9);
        plan_free(p);
        free_example(e);
    }
    cr_log_info("at most %.1f ms", 1e3 * worst);
    cr_expect_lt(worst, 0.1 * SLOWER, "%g s", worst);
    free(f);
}

/* A home with 256 devices, most of which are of no use. */
Test(search, hundreds_of_devices, .timeout = 120)
{
    model_facts *f = facts();
    example *e = make_example(7, CLUSTER_MAX_DEVICES, 2.5e8);
    search_options o = options("auto");
    pr_err err = {0};
    plan *p;

    cr_assert_eq(search_plan(&p, &e->c, e->profiles, f, &one_token, &o, &err), PR_OK, "%s", err.msg);
    cr_assert_eq(p->n_devices + p->n_unused, CLUSTER_MAX_DEVICES);
    cr_assert_eq(p->n_fallbacks, p->n_devices);
    for (size_t i = 0; i < p->n_fallbacks; i++) cr_assert_gt(p->fallback[i].rounds, 0);
    plan_free(p);
    free_example(e);
    free(f);
}

/* A limit of time marks what it cuts. */
Test(search, a_time_limit_is_said)
{
    model_facts *f = facts();
    example *e = make_example(2, 4, 5e8);
    search_options o = options("auto");
    pr_err err = {0};
    plan *p;

    o.time_limit_s = 1e-9;
    cr_assert_eq(search_plan(&p, &e->c, e->profiles, f, &one_token, &o, &err), PR_OK, "%s", err.msg);
    cr_assert_str_eq(p->solver.status, "feasible");
    cr_assert_str_eq(p->solver.certified_by, "none");
    plan_free(p);
    free_example(e);
    free(f);
}

/* One device with a GPU ten times as fast. With room for all layers and the output projection that goes to
 * the GPU as well; where a layer would have to leave for it, a layer is worth more (2 / 50 of a layer's work
 * and memory). */
Test(search, the_output_projection_goes_where_it_is_best)
{
    model_facts *f = facts();
    example *e = make_example(1, 1, 8e9);
    const search_options o = options(NULL);
    uint64_t buffers = 600000000; /* driver and work buffers: 400 MiB and a little more */
    plan *p;
    pr_err err = {0};
    uint32_t layers;

    e->profiles[0]->compute[1] = (profile_compute){.type = "Q8_0", .gpu = 0, .batch = 1, .gflops = 600};
    e->profiles[0]->n_compute = 2;
    e->c.device[0].n_gpus = 1;
    for (int all = 1; all >= 0; all--) {
        e->c.device[0].gpu[0].vram_bytes = buffers + (all ? 26 : 12) * 104000000ull;
        if (!all) f->output_bytes = 400000000; /* as much memory as four layers, the work of half a one */
        cr_assert_eq(search_plan(&p, &e->c, e->profiles, f, &one_token, &o, &err), PR_OK, "%s", err.msg);
        plan_device_layers(&p->device[0], &layers);
        cr_assert_eq(p->device[0].output_on_gpu, all == 1);
        if (all) cr_assert_eq(layers, 24);
        else cr_assert(layers >= 10 && layers < 14, "%u", layers);
        plan_free(p);
    }
    free(f);
    free_example(e);
}
