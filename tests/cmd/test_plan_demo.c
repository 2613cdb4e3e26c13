/* From this machine to a plan: it is profiled, described as one to four devices on the loopback interface
 * with RAM of all sizes, and the demo model is planned on them. The plan file is read by a reader of this
 * test's own, line by line, and checked for what must hold of every plan: each layer once, no budget
 * exceeded, the same bytes when made again, and that people can read it. */
#include "tests/common/prima.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char model[] = "datasets/demo/demo.gguf";
enum { MAX_DEVICES = 4, N_LAYERS = 8, CTX = 512, SLOTS = 40 };
/* KV cache of a layer: 40 sequences of 512 tokens, 2 key/value heads of 32, keys and values in f16. */
static const unsigned long long kv_layer_bytes = 40ull * 512 * 2 * 32 * 2 * 2;
/* From the sizes of the tensors: blk.N.*; output_norm and the embedding, which is the output too. */
static const unsigned long long layer_bytes = 209920, output_bytes = 139776;

/* --- what a plan file says --------------------------------------------------------------------------- */
typedef struct {
    char name[33];
    unsigned n_layers, n_disk_layers; /* of n_layers, in windows of place disk */
    unsigned long long weights_ram, kv_ram, buffers_ram, budget_ram, weights_disk;
    double read_bytes;
} seen_device;
typedef struct {
    unsigned n, times[N_LAYERS]; /* how often each layer is there */
    seen_device d[MAX_DEVICES];
    char text[1 << 16];
} seen_plan;

static void read_window(seen_plan *p, seen_device *d, const char *line)
{
    unsigned round, first, last;
    char place[8];

    cr_assert_eq(sscanf(line, " - {round: %u, first_layer: %u, last_layer: %u, place: %7[a-z]", &round,
                        &first, &last, place),
                 4, "%s", line);
    cr_assert(first <= last && last < N_LAYERS, "%s", line);
    cr_assert(!strcmp(place, "ram") || !strcmp(place, "disk"), "%s", line);
    for (unsigned il = first; il <= last; il++) p->times[il]++;
    d->n_layers += last - first + 1;
    if (!strcmp(place, "disk")) d->n_disk_layers += last - first + 1;
}

/* A line of the part "ring:". */
static void read_ring_line(seen_plan *p, const char *line)
{
    seen_device *d = &p->d[p->n ? p->n - 1 : 0];
    unsigned rank;

    if (sscanf(line, "  - rank: %u", &rank) == 1) {
        cr_assert_eq(rank, p->n, "ranks are not 0, 1, 2 ...: %s", line);
        cr_assert_lt(p->n++, MAX_DEVICES);
    } else if (strstr(line, "first_layer:")) {
        read_window(p, d, line);
    } else {
        sscanf(line, "    name: \"%32[^\"]", d->name);
        sscanf(line, "      weights_ram: %llu", &d->weights_ram);
        sscanf(line, "      kv_ram: %llu", &d->kv_ram);
        sscanf(line, "      buffers_ram: %llu", &d->buffers_ram);
        sscanf(line, "      budget_ram: %llu", &d->budget_ram);
        sscanf(line, "      weights_disk: %llu", &d->weights_disk);
        sscanf(line, "      read_bytes_per_pass: %lf", &d->read_bytes);
    }
}

static seen_plan *read_plan(void)
{
    static seen_plan plans[2];
    static unsigned next;
    seen_plan *p = &plans[next++ % 2];
    char *text = read_file(in_dir("plan.yaml"));
    bool in_ring = false;

    memset(p, 0, sizeof *p);
    cr_assert_lt(strlen(text), sizeof p->text);
    strcpy(p->text, text);
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        if (*line != ' ') in_ring = !strcmp(line, "ring:");
        else if (in_ring) read_ring_line(p, line);
    }
    free(text);
    return p;
}

/* --- inputs -------------------------------------------------------------------------------------------- */
/* One device a budget; they share the measurements, each under its own name. */
static void write_cluster(const unsigned long long *ram, unsigned n)
{
    char text[1024], command[1200];
    int at = snprintf(text, sizeof text, "schema: prima/cluster/1\ncluster: loopback\ndevices:\n");

    for (unsigned i = 0; i < n; i++) {
        at += snprintf(text + at, sizeof text - (size_t)at,
                       "  - {name: d%u, host: 127.0.0.1, port: %u, ram: %llu}\n", i, 9701 + i, ram[i]);
        snprintf(command, sizeof command,
                 "sed 's/\"device\": \"here\"/\"device\": \"d%u\"/' '%s' >'%s/d%u.json'", i,
                 in_dir("here.json"), in_dir("profiles"), i);
        cr_assert_eq(system(command), 0);
    }
    write_file(in_dir("cluster.yaml"), text);
}

static prima_result plan(const char *objective, const char *option, const char *value)
{
    char ctx[16], slots[16];

    snprintf(ctx, sizeof ctx, "%d", CTX);
    snprintf(slots, sizeof slots, "%d", SLOTS);
    return prima_run(in_dir("out"), (const char *const[]){"plan", in_dir("cluster.yaml"), "-m", model, "-o",
                                                          in_dir("plan.yaml"), "--ctx", ctx, "--slots", slots,
                                                          "--objective", objective, option, value, NULL});
}

/* In the shortest time, with the runtime's reader. */
static void profile_this_machine(void)
{
    prima_result r;

    test_dir_new();
    if (access(model, R_OK)) cr_skip_test("%s is not here: run from the repository root", model);
    cr_assert_eq(mkdir(in_dir("profiles"), 0755), 0);
    setenv("SOURCE_DATE_EPOCH", "1700000000", 1);
    setenv("PRIMA_FIO", "/no/such/fio", 1);
    r = prima_run(NULL, (const char *const[]){"profile", "--device", "here", "-m", model, "--runtime",
                                              "100ms", "-o", in_dir("here.json"), NULL});
    cr_assert_eq(r.status, 0, "%s", r.err);
}

TestSuite(plan_demo, .init = profile_this_machine, .fini = test_dir_remove, .timeout = 300);

/* --- what must hold of every plan ------------------------------------------------------------------------
 */
static void check_device(const seen_device *d, bool is_head, const unsigned long long *ram)
{
    unsigned i = (unsigned)(d->name[1] - '0');
    unsigned long long weights = d->n_layers * layer_bytes + (is_head ? output_bytes : 0);

    cr_assert(d->name[0] == 'd' && i < MAX_DEVICES, "%s", d->name);
    cr_expect_eq(d->budget_ram, ram[i], "%s", d->name);
    cr_expect_leq(d->weights_ram + d->kv_ram + d->buffers_ram, d->budget_ram, "%s", d->name);
    cr_expect_eq(d->kv_ram, d->n_layers * kv_layer_bytes, "%s", d->name);
    cr_expect_leq(d->weights_disk, d->n_disk_layers * layer_bytes, "%s", d->name);
    cr_expect_eq(d->weights_disk > 0, d->n_disk_layers > 0, "%s", d->name);
    /* What does not fit beside cache and buffers is read in every pass. */
    cr_expect_geq(d->read_bytes + (double)(d->budget_ram - d->kv_ram - d->buffers_ram), (double)weights - 1,
                  "%s", d->name);
    cr_expect_eq(d->read_bytes > 0, d->weights_disk > 0, "%s", d->name);
}

/* The device with the name in the plan, NULL when it is not used. */
static const seen_device *device(const seen_plan *p, const char *name)
{
    for (unsigned i = 0; i < p->n; i++)
        if (!strcmp(p->d[i].name, name)) return &p->d[i];
    return NULL;
}

/* `prima inspect` names every device of the ring. */
static void check_inspect(const seen_plan *p)
{
    prima_result r = prima_run(in_dir("out"), (const char *const[]){"inspect", in_dir("plan.yaml"), NULL});
    char *text;

    cr_assert_eq(r.status, 0, "%s", r.err);
    text = read_file(in_dir("out"));
    cr_expect_not_null(strstr(text, "Prima Demo"), "%s", text);
    for (unsigned i = 0; i < p->n; i++) {
        char start[64];
        snprintf(start, sizeof start, "\n   %u %s ", i, p->d[i].name);
        cr_expect_not_null(strstr(text, start), "no line of %s: %s", p->d[i].name, text);
    }
    free(text);
}

static const seen_plan *check_plan(const unsigned long long *ram, unsigned n, const char *objective,
                                   const char *option, const char *value)
{
    prima_result r;
    seen_plan *p, *again;

    write_cluster(ram, n);
    r = plan(objective, option, value);
    cr_assert_eq(r.status, 0, "%u devices, %s: %s", n, objective, r.err);
    p = read_plan();
    cr_assert(p->n >= 1 && p->n <= n);
    for (unsigned il = 0; il < N_LAYERS; il++)
        cr_expect_eq(p->times[il], 1, "layer %u: %u times", il, p->times[il]);
    for (unsigned i = 0; i < p->n; i++) check_device(&p->d[i], i == 0, ram);
    check_inspect(p);
    r = plan(objective, option, value);
    cr_assert_eq(r.status, 0, "%s", r.err);
    again = read_plan();
    cr_expect_str_eq(again->text, p->text, "made again, the plan is another");
    return p;
}

static unsigned long long gib(unsigned n)
{
    return (unsigned long long)n << 30;
}

/* What the model needs on one device, all of it in memory. */
static unsigned long long whole(void)
{
    const seen_plan *p = check_plan((const unsigned long long[]){gib(1)}, 1, "latency", NULL, NULL);

    cr_assert_eq(p->d[0].n_layers, N_LAYERS);
    cr_assert_eq(p->d[0].n_disk_layers, 0);
    return p->d[0].weights_ram + p->d[0].kv_ram + p->d[0].buffers_ram;
}

/* --- budgets ----------------------------------------------------------------------------------------------
 */
/* Alone: all in memory down to the byte; less of it: some of the layers are streamed. */
static void one_device(void)
{
    unsigned long long need = whole();
    const seen_plan *p = check_plan(&need, 1, "latency", NULL, NULL);

    cr_expect_eq(p->d[0].n_disk_layers, 0);
    need -= 3 * layer_bytes;
    p = check_plan(&need, 1, "latency", NULL, NULL);
    cr_expect_gt(p->d[0].weights_disk, 0);
    cr_expect_leq(p->d[0].read_bytes, 4.5 * (double)layer_bytes, "much is read where three layers would do");
    check_plan(&need, 1, "throughput", NULL, NULL);
}

/* Room for six and five layers: each must take a share, and nothing is streamed. */
static void two_devices_share(void)
{
    unsigned long long layer = kv_layer_bytes + layer_bytes, need = whole();
    const unsigned long long ram[] = {need - 2 * layer, need - 3 * layer};

    for (int latency = 0; latency < 2; latency++) {
        const seen_plan *p = check_plan(ram, 2, latency ? "latency" : "throughput", NULL, NULL);
        cr_assert_eq(p->n, 2u);
        cr_expect_eq(p->d[0].n_layers + p->d[1].n_layers, N_LAYERS);
        cr_expect_eq(p->d[0].weights_disk + p->d[1].weights_disk, 0);
    }
}

/* One of three is told to hold more layers than fit into its memory. */
static void three_devices_one_streams(void)
{
    unsigned long long ram[] = {gib(1), gib(1), gib(1)};
    const seen_plan *p = check_plan(ram, 3, "latency", "--layers", "2,5,1");
    const seen_device *d = device(p, "d1");

    cr_assert_not_null(d);
    cr_expect_eq(d->weights_disk, 0);
    ram[1] = d->weights_ram + d->kv_ram + d->buffers_ram - 2 * layer_bytes;
    p = check_plan(ram, 3, "latency", "--layers", "2,5,1");
    cr_assert_eq(p->n, 3u);
    cr_assert_not_null(d = device(p, "d1"));
    cr_expect_eq(d->n_layers, 5u);
    cr_expect_gt(d->weights_disk, 0);
    cr_expect_eq(p->d[0].weights_disk + p->d[2].weights_disk, 0);
    p = check_plan(ram, 3, "throughput", "--fix", "d1=5");
    cr_expect_eq(device(p, "d1")->n_layers, 5u);
}

/* None of four holds more than three layers; the last not even one. */
static void four_devices(void)
{
    unsigned long long layer = kv_layer_bytes + layer_bytes, need = whole();
    const unsigned long long ram[] = {need - 5 * layer, need - 5 * layer, need - 5 * layer, 16 << 20};

    for (int latency = 0; latency < 2; latency++) {
        const seen_plan *p = check_plan(ram, 4, latency ? "latency" : "throughput", NULL, NULL);
        cr_expect_geq(p->n, 3u);
        for (unsigned i = 0; i < p->n; i++) cr_expect_leq(p->d[i].n_layers, 3 + (i > 0));
    }
}

/* Too little everywhere: refused with the device and the bytes it lacks, and those bytes are enough. */
static void infeasible(void)
{
    unsigned long long missing = 0, ram[] = {16 << 20, 17 << 20};
    const char *says;
    char name[4] = "";
    prima_result r;

    write_cluster(ram, 2);
    unlink(in_dir("plan.yaml"));
    r = plan("latency", NULL, NULL);
    cr_assert_eq(r.status, 4, "%d: %s", r.status, r.err);
    says = strstr(r.err, "nearest is ");
    cr_assert_not_null(says, "%s", r.err);
    cr_assert_eq(sscanf(says, "nearest is %3[a-z0-9], which lacks %llu bytes", name, &missing), 2, "%s",
                 r.err);
    cr_assert(!strcmp(name, "d0") || !strcmp(name, "d1"), "%s", r.err);
    cr_assert_gt(missing, 0);
    cr_expect_neq(access(in_dir("plan.yaml"), F_OK), 0, "a plan was written");
    ram[name[1] - '0'] += missing;
    check_plan(ram, 2, "latency", NULL, NULL);
    ram[name[1] - '0'] -= 1;
    write_cluster(ram, 2);
    cr_expect_eq(plan("latency", NULL, NULL).status, 4);
}

/* One test, because each test is a process of its own and would measure for itself. */
Test(plan_demo, one_to_four_devices)
{
    one_device();
    two_devices_share();
    three_devices_one_streams();
    four_devices();
    infeasible();
}
