/* prima plan and prima simulate as a user runs them, on a cluster of three made-up machines and a made-up
 * model, and on a model's real header. */
#include "tests/common/prima.h"
#include <criterion/criterion.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* 16 layers, 256 MB in Q8_0: 15.5 MB a layer and 8.7 MB of output. */
static const char shape[] = "schema: prima/shape/1\nname: Toy\nsource: made up\narch: llama\nn_layers: 16\n"
                            "n_embd: 1024\nn_ff: 3584\nn_heads: 16\nn_kv_heads: 4\nn_vocab: 8192\n"
                            "n_ctx_train: 8192\nquant: Q8_0\n";

/* Speeds in relation to the first; a disk rate of 0 means none was measured. */
static void write_profile(const char *name, double speed, double disk_bytes_per_s)
{
    char path[64], text[2048];
    int n;

    snprintf(path, sizeof path, "profiles/%s.json", name);
    n = snprintf(
        text, sizeof text,
        "{\"schema\":\"prima/profile/1\",\"device\":\"%s\",\"threads\":4,\"cores_physical\":4,"
        "\"ram_total_bytes\":8000000000,\"ram_available_bytes\":4000000000,"
        "\"mem_bytes_per_s\":[1e10,2e10,2e10,2e10],\"compute\":["
        "{\"type\":\"Q8_0\",\"batch\":1,\"gflops\":%g,\"spread_pct\":0},"
        "{\"type\":\"Q8_0\",\"batch\":512,\"gflops\":%g,\"spread_pct\":0}],\"gpus\":[],\"net\":[],\"disk\":[",
        name, 20 * speed, 200 * speed);
    if (disk_bytes_per_s > 0)
        n += snprintf(text + n, sizeof text - (size_t)n,
                      "{\"pattern\":\"seq\",\"bs_bytes\":1048576,\"iodepth\":8,\"engine\":\"io_uring\","
                      "\"direct\":true,\"read_bytes_per_s\":%.0f}",
                      disk_bytes_per_s);
    snprintf(text + n, sizeof text - (size_t)n, "]}\n");
    write_file(in_dir(path), text);
}

static void write_cluster(const char *ram_a, const char *ram_b, const char *ram_c)
{
    char text[1024];

    snprintf(text, sizeof text,
             "schema: prima/cluster/1\ncluster: toy\ndevices:\n"
             "  - {name: desk, host: 127.0.0.1, port: 9701, ram: %s}\n"
             "  - {name: laptop, host: 127.0.0.1, port: 9702, ram: %s}\n"
             "  - {name: phone, host: 127.0.0.1, port: 9703, ram: %s}\n",
             ram_a, ram_b, ram_c);
    write_file(in_dir("cluster.yaml"), text);
}

static void make_inputs(void)
{
    char command[400];

    test_dir_new();
    snprintf(command, sizeof command, "mkdir '%s'", in_dir("profiles"));
    cr_assert_eq(system(command), 0);
    write_file(in_dir("toy.yaml"), shape);
    write_cluster("1GiB", "1GiB", "1GiB");
    write_profile("desk", 1, 1e9);
    write_profile("laptop", 4, 1e9);
    write_profile("phone", 0.25, 2e8);
    setenv("SOURCE_DATE_EPOCH", "1700000000", 1);
}

TestSuite(plan, .init = make_inputs, .fini = test_dir_remove, .timeout = 120);

enum { MAX_MORE = 12 };
static prima_result plan_with(const char *output, const char *const *more)
{
    const char *argv[MAX_MORE + 16] = {"plan",    in_dir("cluster.yaml"),
                                       "--shape", in_dir("toy.yaml"),
                                       "-o",      output,
                                       "--ctx",   "512",
                                       "--slots", "2"};
    size_t n = 10;

    while (more && *more) argv[n++] = *more++;
    return prima_run(in_dir("out"), argv);
}
#define PLAN(...) plan_with(in_dir("plan.yaml"), (const char *const[]){__VA_ARGS__, NULL})

static void expect(prima_result r, int status, const char *says)
{
    cr_assert_eq(r.status, status, "exit %d: %s", r.status, r.err);
    cr_assert_not_null(strstr(r.err, says), "not said: %s; but: %s", says, r.err);
}

/* The layers of a plan file, read with scanf: every one once, and how many the device of each rank has. */
static unsigned read_layers(unsigned per_rank[8])
{
    char *text = read_file(in_dir("plan.yaml"));
    unsigned seen[64] = {0}, n = 0, rank = 0, round, first, last;

    memset(per_rank, 0, 8 * sizeof *per_rank);
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        if (sscanf(line, " - rank: %u", &rank) == 1) cr_assert_lt(rank, 8);
        if (sscanf(line, " - {round: %u, first_layer: %u, last_layer: %u", &round, &first, &last) != 3)
            continue;
        cr_assert(first <= last && last < 64);
        for (unsigned il = first; il <= last; il++, n++) {
            cr_assert_eq(seen[il]++, 0, "layer %u twice", il);
            per_rank[rank]++;
        }
    }
    for (unsigned il = 0; il < n; il++) cr_assert_eq(seen[il], 1, "layer %u", il);
    free(text);
    return n;
}

static bool plan_says(const char *what)
{
    char *text = read_file(in_dir("plan.yaml"));
    bool found = strstr(text, what) != NULL;

    free(text);
    return found;
}

Test(plan, same_inputs_same_bytes)
{
    char *first, *second;
    unsigned per_rank[8];

    expect(PLAN("--objective", "latency"), 0, "ms a token");
    cr_assert_eq(read_layers(per_rank), 16);
    cr_assert(plan_says("created_at: \"2023-11-14T22:13:20Z\""));
    first = read_file(in_dir("plan.yaml"));
    expect(PLAN("--objective", "latency"), 0, "ms a token");
    second = read_file(in_dir("plan.yaml"));
    cr_assert_str_eq(first, second);
    free(first);
    free(second);
}

/* Nothing is timed: with other processes in the way everything takes longer, and comes out the same. */
Test(plan, same_bytes_on_a_busy_machine)
{
    enum { BUSY = 4 };
    char *first, *second;
    pid_t busy[BUSY];

    write_cluster("200MiB", "120MiB", "64MiB");
    expect(PLAN("--head", "auto"), 0, "ms a token");
    first = read_file(in_dir("plan.yaml"));
    for (int i = 0; i < BUSY; i++)
        if ((busy[i] = fork()) == 0) {
            alarm(60);
            for (volatile int on = 1; on;) {}
        }
    for (int i = 0; i < 3; i++) {
        expect(PLAN("--head", "auto"), 0, "ms a token");
        second = read_file(in_dir("plan.yaml"));
        cr_assert_str_eq(first, second);
        free(second);
    }
    for (int i = 0; i < BUSY; i++) {
        kill(busy[i], SIGKILL);
        waitpid(busy[i], NULL, 0);
    }
    free(first);
}

Test(plan, a_gap_is_enough)
{
    expect(PLAN("--objective", "latency", "--gap", "0"), 0, "(optimal)");
    cr_assert(plan_says("status: \"optimal\"") && plan_says("gap_pct: 0.000"));
    expect(PLAN("--objective", "latency", "--gap", "5"), 0, "(feasible)");
    cr_assert(plan_says("status: \"feasible\"") && plan_says("gap_pct: 5.000"));
    expect(PLAN("--gap", "-1"), 2, "--gap");
    expect(PLAN("--gap", "100"), 2, "--gap");
}

/* What a time limit cuts is marked; a long one cuts nothing. */
Test(plan, a_time_limit)
{
    expect(PLAN("--objective", "latency", "--time-limit", "100s"), 0, "(optimal)");
    expect(PLAN("--objective", "latency", "--head", "auto", "--time-limit", "1ms"), 0, "ms a token");
}

/* As many devices as a cluster file may have, with a model that two of them hold. */
Test(plan, hundreds_of_devices)
{
    FILE *o = fopen(in_dir("cluster.yaml"), "w");
    char name[16];

    fprintf(o, "schema: prima/cluster/1\ncluster: hall\ndevices:\n");
    for (int i = 0; i < 256; i++) {
        snprintf(name, sizeof name, "d%d", i);
        write_profile(name, 0.5 + i % 7, i % 3 ? 1e9 : 0);
        fprintf(o, "  - {name: %s, host: 127.0.0.1, port: %d, ram: %dMiB}\n", name, 9700 + i, 150 + i % 11);
    }
    fclose(o);
    expect(PLAN("--objective", "latency"), 0, "ms a token");
    expect(PLAN("--head", "auto"), 0, "ms a token");
    expect(PLAN("--objective", "latency", "--explain"), 0, "ms a token");
}

/* Without SOURCE_DATE_EPOCH the newest input's time stands in the file. */
Test(plan, created_when_the_newest_input_was)
{
    char command[800];

    unsetenv("SOURCE_DATE_EPOCH");
    snprintf(command, sizeof command,
             "cd '%s' && TZ=UTC touch -t 202001020304.05 profiles/*.json cluster.yaml && "
             "TZ=UTC touch -t 202102030405.06 toy.yaml",
             in_dir(""));
    cr_assert_eq(system(command), 0);
    expect(PLAN("--objective", "latency"), 0, "ms a token");
    cr_assert(plan_says("created_at: \"2021-02-03T04:05:06Z\""));
}

/* All layers fit on each: for one token at a time the fastest as head needs no other. */
Test(plan, the_head_is_chosen_when_asked)
{
    unsigned per_rank[8];

    expect(PLAN("--objective", "latency", "--head", "auto"), 0, "1 devices");
    cr_assert_eq(read_layers(per_rank), 16);
    cr_assert(plan_says("  - rank: 0\n    name: \"laptop\"\n"));
    expect(PLAN("--objective", "latency", "--head", "phone"), 0, "ms a token");
    cr_assert(plan_says("  - rank: 0\n    name: \"phone\"\n"));
    expect(PLAN("--head", "nobody"), 2, "no device of that name");
}

/* What is said to be missing, added, is enough; a byte less is not. */
Test(plan, missing_bytes_are_exact)
{
    unsigned long long missing;
    char ram[32];
    prima_result r;

    write_profile("desk", 1, 0);
    write_profile("laptop", 1, 0);
    write_profile("phone", 1, 0);
    write_cluster("1GiB", "60000000", "60000000");
    r = PLAN("--objective", "latency", "--layers", "3,12,1");
    expect(r, 4, "no plan fits: laptop with 12 layers");
    cr_assert_eq(sscanf(strstr(r.err, "lacks "), "lacks %llu bytes", &missing), 1, "%s", r.err);
    snprintf(ram, sizeof ram, "%llu", 60000000 + missing - 1);
    write_cluster("1GiB", ram, "60000000");
    expect(PLAN("--objective", "latency", "--layers", "3,12,1"), 4, "lacks 1 bytes");
    snprintf(ram, sizeof ram, "%llu", 60000000 + missing);
    write_cluster("1GiB", ram, "60000000");
    expect(PLAN("--objective", "latency", "--layers", "3,12,1"), 0, "ms a token");
}

/* The same without pins: the nearest device is named, and with what it lacks there is a plan. */
Test(plan, missing_bytes_are_enough)
{
    unsigned long long missing;
    char ram[32];
    prima_result r;

    write_profile("desk", 1, 0);
    write_profile("laptop", 1, 0);
    write_profile("phone", 1, 0);
    write_cluster("60000000", "70000000", "60000000");
    r = PLAN("--objective", "latency");
    expect(r, 4, "nearest is laptop, which lacks ");
    cr_assert_eq(sscanf(strstr(r.err, "lacks "), "lacks %llu bytes", &missing), 1, "%s", r.err);
    snprintf(ram, sizeof ram, "%llu", 70000000 + missing - 1);
    write_cluster("60000000", ram, "60000000");
    expect(PLAN("--objective", "latency"), 4, "lacks 1 bytes");
    snprintf(ram, sizeof ram, "%llu", 70000000 + missing);
    write_cluster("60000000", ram, "60000000");
    expect(PLAN("--objective", "latency"), 0, "ms a token");
}

Test(plan, layers_by_hand)
{
    unsigned per_rank[8];

    expect(PLAN("--layers", "9,4,3"), 0, "3 devices");
    cr_assert_eq(read_layers(per_rank), 16);
    cr_assert(per_rank[0] == 9 && per_rank[1] == 4 && per_rank[2] == 3);
    expect(PLAN("--fix", "phone=5", "--fix", "desk=2"), 0, "3 devices");
    cr_assert_eq(read_layers(per_rank), 16);
    cr_assert(per_rank[0] == 2 && per_rank[1] == 9 && per_rank[2] == 5);
    expect(PLAN("--layers", "9,4,4"), 2, "17 layers, the model has 16");
    expect(PLAN("--layers", "9,7"), 2, "each of the 3 devices");
    expect(PLAN("--layers", "9,7,x"), 2, "each of the 3 devices");
    expect(PLAN("--layers", "9,4,3,0"), 2, "each of the 3 devices");
    expect(PLAN("--fix", "phone"), 2, "NAME=LAYERS");
    expect(PLAN("--fix", "tablet=3"), 2, "no device of that name");
    expect(PLAN("--fix", "phone=17"), 4, "no plan fits");
    expect(PLAN("--fix", "phone=1", "--layers", "9,4,3"), 2, "exclude");
}

/* Every device of the plan file keeps to its RAM. */
static void check_budgets(void)
{
    char *text = read_file(in_dir("plan.yaml"));
    unsigned long long sum = 0, v;
    unsigned n = 0;

    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        if (sscanf(line, " weights_ram: %llu", &v) == 1) sum = v;
        else if (sscanf(line, " kv_ram: %llu", &v) == 1 || sscanf(line, " buffers_ram: %llu", &v) == 1)
            sum += v;
        else if (sscanf(line, " budget_ram: %llu", &v) == 1) {
            cr_assert_leq(sum, v, "%llu of %llu", sum, v);
            n++;
        }
    }
    cr_assert_gt(n, 0);
    free(text);
}

/* In Q4_K_M layers differ in size: what fits on the average may not fit where it lies. */
Test(plan, unequal_layers_fit_too)
{
    unsigned per_rank[8], n_fit = 0, n_not = 0;
    char ram[32];

    for (unsigned mib = 16; mib <= 90; mib += 2) {
        prima_result r;
        snprintf(ram, sizeof ram, "%uMiB", mib);
        write_cluster(ram, ram, ram);
        if (mib % 4) write_profile("laptop", 4, 0);
        else write_profile("laptop", 4, 1e9);
        r = PLAN("--objective", "latency", "--quant", "Q4_K_M");
        cr_assert(r.status == 0 || r.status == 4, "%u MiB: exit %d: %s", mib, r.status, r.err);
        n_fit += r.status == 0;
        n_not += r.status == 4;
        if (r.status == 4) { /* the budget that the user gave, not what layers of unequal size left of it */
            unsigned long long budget;
            cr_assert_eq(sscanf(strstr(r.err, "budget of "), "budget of %llu", &budget), 1, "%s", r.err);
            cr_assert_eq(budget, (unsigned long long)mib << 20, "%s", r.err);
        }
        if (r.status) continue;
        cr_assert_eq(read_layers(per_rank), 16);
        check_budgets();
    }
    cr_assert_gt(n_fit, 10);
    cr_assert_gt(n_not, 0);
}

/* More than RAM holds is streamed, and says so; each device has its fallback. */
Test(plan, streams_and_falls_back)
{
    unsigned per_rank[8];
    char *out;

    write_cluster("200MiB", "120MiB", "64MiB");
    expect(PLAN("--objective", "latency", "--layers", "8,7,1", "--explain"), 0, "ms a token");
    cr_assert_eq(read_layers(per_rank), 16);
    cr_assert(plan_says("place: disk"));
    cr_assert(plan_says("- {lost: \"laptop\", rounds: "));
    out = read_file(in_dir("out"));
    cr_assert(strstr(out, "predicted") && strstr(out, "would help") && strstr(out, "SS"), "%s", out);
    cr_assert_not_null(strstr(out,
                              "disk       laptop: 1000 MB/s, as io_uring (not our reader) read past the page "
                              "cache, 8 blocks of 1024 KiB at a time\n"),
                       "%s", out);
    free(out);
}

Test(plan, bad_inputs_are_named)
{
    char command[600];

    expect(PLAN("--objective", "speed"), 2, "throughput or latency");
    expect(PLAN("--kv-type", "f8"), 2, "f16, q8_0 or f32");
    expect(PLAN("-m", "x.gguf"), 2, "either");
    expect(PLAN("--solver", "simplex"), 2, "exact or halda");
    expect(PLAN("--solver", "halda"), 2, "--objective latency");
    expect(PLAN("--micro-batch", "3"), 2, "only 2 slots");
    snprintf(command, sizeof command, "rm '%s'", in_dir("profiles/phone.json"));
    cr_assert_eq(system(command), 0);
    expect(PLAN("--objective", "latency"), 9, "prima profile --device phone");
}

/* The demo model: embedding 128, 4 heads and 2 key/value heads of 32, feed-forward 384, Q8_0 with 34 bytes
 * for 32 weights. A layer has 2 x 128 x 128 + 2 x 64 x 128 + 3 x 128 x 384 weights and 2 x 128 norms in f32;
 * its KV cache of 64 tokens in f16 is 64 x 2 x 64 x 2 bytes. */
Test(plan, a_model_file_will_do)
{
    const char *const argv[] = {"plan",        in_dir("cluster.yaml"),
                                "-m",          "datasets/demo/demo.gguf",
                                "--ctx",       "64",
                                "--slots",     "1",
                                "--solver",    "halda",
                                "--objective", "latency",
                                "-o",          "-",
                                NULL};
    unsigned per_rank[8];
    char want[64], command[900];

    expect(prima_run(in_dir("plan.yaml"), argv), 0, "solved");
    cr_assert_eq(read_layers(per_rank), 8);
    snprintf(want, sizeof want, "layer_bytes: %u.000\n",
             (2 * 128 * 128 + 2 * 64 * 128 + 3 * 128 * 384) / 32 * 34 + 1024);
    cr_assert(plan_says(want), "%s", want);
    cr_assert(plan_says("kv_layer_bytes: 16384.000\n"));
    cr_assert(plan_says("found_by: \"halda\"") && plan_says("status: \"heuristic\""));
    snprintf(command, sizeof command,
             "test \"plan_sha256: \\\"$(sed 2d '%s' | sha256sum | cut -c1-64)\\\"\" = \"$(sed -n 2p '%s')\"",
             in_dir("plan.yaml"), in_dir("plan.yaml"));
    cr_assert_eq(system(command), 0, "%s", command);
}

/* The demo model under another name, planned on the cluster with a line of defaults more. */
static prima_result plan_model(const char *path, const char *defaults)
{
    char text[1024];
    const char *const argv[] = {
        "plan", in_dir("cluster.yaml"), "-m",       path,    "--ctx", "64", "--slots", "1",
        "-o",   in_dir("plan.yaml"),    "--layers", "3,3,2", NULL};

    snprintf(text, sizeof text,
             "schema: prima/cluster/1\ncluster: toy\n%sdevices:\n"
             "  - {name: desk, host: 127.0.0.1, port: 9701, ram: 1GiB}\n"
             "  - {name: laptop, host: 127.0.0.1, port: 9702, ram: 1GiB}\n"
             "  - {name: phone, host: 127.0.0.1, port: 9703, ram: 1GiB, model: own.gguf}\n",
             defaults);
    write_file(in_dir("cluster.yaml"), text);
    return prima_run(in_dir("out"), argv);
}

static void copy_demo(const char *to)
{
    char command[1200];

    snprintf(command, sizeof command, "cp datasets/demo/demo.gguf \"%s\"", to);
    cr_assert_eq(system(command), 0, "%s", command);
}

Test(plan, models_of_all_names)
{
    char want[600];
    const char *path = in_dir("-m\xC3\xB6"
                              "del 'q' \xE6\x97\xA5.gguf");

    copy_demo(path);
    expect(plan_model(path, ""), 0, "plan.yaml");
    snprintf(want, sizeof want, "    model: \"%s\"\n", path);
    cr_expect(plan_says(want), "%s", want);
    path = in_dir("latin-1 \xF6.gguf");
    copy_demo(path);
    expect(plan_model(path, ""), 2, "not UTF-8");
    path = in_dir("two\nlines.gguf");
    copy_demo(path);
    expect(plan_model(path, ""), 2, "control character");
}

/* model_dir: a worker's file has the name of the planned one there; the head reads the planned one. */
Test(plan, models_in_the_folders_of_devices)
{
    const char *path = in_dir("some.gguf");
    char want[600];

    copy_demo(path);
    expect(plan_model(path, "defaults: {model_dir: /srv/m\xC3\xB6"
                            "dels}\n"),
           0, "plan.yaml");
    snprintf(want, sizeof want, "    model: \"%s\"\n", path);
    cr_expect(plan_says(want), "%s", want);
    cr_expect(plan_says("    model: \"/srv/m\xC3\xB6"
                        "dels/some.gguf\"\n"));
    cr_expect(plan_says("    model: \"/srv/m\xC3\xB6"
                        "dels/own.gguf\"\n"));
}

Test(plan, simulate_agrees)
{
    double simulated, predicted;
    char *out;

    write_cluster("200MiB", "120MiB", "64MiB");
    for (int latency = 0; latency < 2; latency++) {
        expect(PLAN("--objective", latency ? "latency" : "throughput"), 0, "ms a token");
        expect(prima_run(in_dir("sim"), (const char *const[]){"simulate", in_dir("plan.yaml"), "--trace",
                                                              in_dir("trace.json"), NULL}),
               0, "");
        out = read_file(in_dir("sim"));
        cr_assert_eq(sscanf(strstr(out, "simulated"), "simulated %lf", &simulated), 1, "%s", out);
        cr_assert_eq(sscanf(strstr(out, "predicted"), "predicted %lf", &predicted), 1, "%s", out);
        cr_assert(simulated > 0 && predicted > 0, "%s", out);
        if (latency)
            cr_assert_float_eq(predicted / simulated, 1, 0.3, "%s", out); /* two models of one thing */
        json_decref(json_load_file(in_dir("trace.json"), 0, NULL));
        free(out);
    }
}

Test(plan, a_changed_plan_is_refused)
{
    char command[600];

    expect(PLAN("--objective", "latency"), 0, "ms a token");
    snprintf(command, sizeof command, "sed -i 's/^ctx: 512/ctx: 513/' '%s'", in_dir("plan.yaml"));
    cr_assert_eq(system(command), 0);
    expect(prima_run(NULL, (const char *const[]){"simulate", in_dir("plan.yaml"), NULL}), 5,
           "changed after it was made");
}
