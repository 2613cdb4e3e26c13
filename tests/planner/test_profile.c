/* Profiles: what is written is read back the same, what is wrong is refused by field, rates between measured
 * batches. */
#include "planner/profile.h"
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Field by field, so that the padding stays zero and memcmp can compare. */
static void fill_gpu(profile_gpu *g, size_t i)
{
    strcpy(g->name, "GPU");
    g->vram_total_bytes = 8589934592 + i;
    g->vram_free_bytes = 8000000000 + i;
    g->mem_bytes_per_s = 4e11 / 7;
    g->h2d_bytes_per_s = 1.2e10 / 7;
    g->d2h_bytes_per_s = 1.1e10 / 7;
    g->copy_latency_us = 29.0 / 3;
    g->tflops_f16 = 20.0 / 3;
    g->spread_pct = 1.0 / 7;
}

static void fill_compute(profile_compute *c, size_t i)
{
    strcpy(c->type, "Q4_K");
    c->gpu = (int)(i % 9) - 1;
    c->batch = 1 + (uint32_t)(i / 9);
    c->gflops = 100.0 / 3 + (double)i;
    c->spread_pct = 1.0 / 7;
}

static void fill_disk(profile_disk *d, size_t i)
{
    strcpy(d->pattern, i % 2 ? "seq" : "rand");
    strcpy(d->engine, "libaio");
    d->bs_bytes = 1 << 20;
    d->iodepth = 32 + (uint32_t)i;
    d->direct = i % 3 == 0;
    d->read_bytes_per_s = 3.17e9 / 3;
    d->iops = 3023.2 / 3;
    d->clat_p50_us = 254.1;
    d->clat_p99_us = 1e3 / 3;
    d->spread_pct = 0.5;
    d->reps = 3;
}

static void fill_overlap(profile_overlap *o, size_t i)
{
    o->batch = 1 + (uint32_t)i;
    o->theta = 1.0 / 3;
    o->compute_share = 0.9 / 7;
    o->disk_share = 1;
    o->spread_pct = 10.0 / 3;
    o->reps = 5;
}

static void fill_net(profile_net *n, size_t i)
{
    snprintf(n->peer, sizeof n->peer, "peer-%zu", i);
    n->bytes_per_s = 1.175e8 / 3;
    n->rtt_ms = 0.4 / 3;
}

/* A profile with every field set, limits of the lists included; figures that need all digits of a double. */
static profile *full(void)
{
    profile *p = calloc(1, sizeof *p);

    cr_assert_not_null(p);
    strcpy(p->device, "desk");
    strcpy(p->host, "h\xC3\xA4us \"1\"\\");
    strcpy(p->os, "Linux");
    strcpy(p->kernel, "6.1.0");
    strcpy(p->cpu_model, "A CPU @ 3 GHz");
    strcpy(p->isa, "avx512");
    strcpy(p->prima_version, "v1-2-gabc");
    strcpy(p->measured_at, "2026-01-02T03:04:05Z");
    strcpy(p->fio_version, "fio-3.33");
    strcpy(p->model, "model.gguf");
    strcpy(p->disk_name, "ext4 on /dev/sda1, 1000 bytes");
    p->mem_spread_pct = 20.0 / 3;
    memset(p->note, 'n', sizeof p->note - 1);
    p->cores_physical = 8;
    p->threads = 16;
    p->numa_nodes = 1;
    p->ram_total_bytes = 33554432123;
    p->ram_available_bytes = 12345678901;
    p->n_mem = PROFILE_MAX_THREADS;
    for (size_t i = 0; i < p->n_mem; i++) p->mem_bytes_per_s[i] = 1e10 / 3 * (double)(i + 1);
    p->n_gpus = PROFILE_MAX_GPUS;
    for (size_t i = 0; i < p->n_gpus; i++) fill_gpu(&p->gpu[i], i);
    p->n_compute = PROFILE_MAX_COMPUTE;
    for (size_t i = 0; i < p->n_compute; i++) fill_compute(&p->compute[i], i);
    p->n_disk = PROFILE_MAX_DISK;
    for (size_t i = 0; i < p->n_disk; i++) fill_disk(&p->disk[i], i);
    p->n_overlap = PROFILE_MAX_OVERLAP;
    for (size_t i = 0; i < p->n_overlap; i++) fill_overlap(&p->overlap[i], i);
    p->n_net = PROFILE_MAX_NET;
    for (size_t i = 0; i < p->n_net; i++) fill_net(&p->net[i], i);
    return p;
}

static void temporary(char path[32])
{
    int fd;

    strcpy(path, "/tmp/prima-profile-XXXXXX");
    fd = mkstemp(path);
    cr_assert(fd >= 0);
    close(fd);
}

static char *slurp(const char *path)
{
    static char text[1 << 20];
    FILE *f = fopen(path, "r");
    size_t n;

    cr_assert_not_null(f);
    n = fread(text, 1, sizeof text - 1, f);
    text[n] = 0;
    fclose(f);
    return text;
}

Test(profile, round_trip_is_exact)
{
    profile *p = full(), *again = NULL;
    char path[32], *first;
    pr_err e = {0};

    temporary(path);
    cr_assert_eq(profile_write(p, path, &e), PR_OK, "%s", e.msg);
    cr_assert_eq(profile_read(&again, path, &e), PR_OK, "%s", e.msg);
    cr_assert_eq(strlen(again->sha256), 64);
    memset(again->sha256, 0, sizeof again->sha256);
    cr_assert_eq(memcmp(p, again, sizeof *p), 0);
    first = strdup(slurp(path));
    cr_assert_eq(profile_write(again, path, &e), PR_OK, "%s", e.msg);
    cr_assert_str_eq(slurp(path), first);
    free(first);
    unlink(path);
    profile_free(p);
    profile_free(again);
    profile_free(NULL);
}

Test(profile, little_is_enough)
{
    static const char text[] =
        "{\"schema\":\"prima/profile/1\",\"device\":\"a\",\"threads\":4,\"ram_total_bytes\":100,"
        "\"ram_available_bytes\":50}";
    profile *p = NULL;
    pr_err e = {0};

    cr_assert_eq(profile_parse(&p, text, strlen(text), &e), PR_OK, "%s", e.msg);
    cr_assert_eq(p->threads, 4);
    cr_assert_eq(p->n_compute + p->n_disk + p->n_gpus + p->n_net + p->n_mem, 0);
    cr_assert(isnan(profile_gflops(p, -1, "Q4_K", 1)));
    cr_assert_eq(profile_disk_bytes_per_s(p), 0);
    cr_assert_null(profile_disk_used(p));
    cr_assert_eq(profile_theta(p, 1), -1);
    profile_free(p);
}

/* What cannot be read back is not written, and an old file stays. */
Test(profile, nonsense_is_not_written)
{
    profile *p = full();
    char path[32];
    pr_err e = {0};

    temporary(path);
    p->compute[0].gflops = NAN;
    cr_assert_neq(profile_write(p, path, &e), PR_OK);
    p->compute[0].gflops = 0;
    cr_assert_eq(profile_write(p, path, &e), PR_EUSAGE);
    cr_assert(strstr(e.msg, "compute[0].gflops"), "%s", e.msg);
    p->compute[0].gflops = 1;
    strcpy(p->os, "\xFF");
    cr_assert_neq(profile_write(p, path, &e), PR_OK);
    cr_assert_str_empty(slurp(path));
    unlink(path);
    profile_free(p);
}

#define HEAD                                                                                                 \
    "{\"schema\":\"prima/profile/"                                                                           \
    "1\",\"device\":\"a\",\"threads\":4,\"ram_total_bytes\":100,\"ram_available_bytes\":50"
#define GPU "{\"name\":\"g\",\"vram_total_bytes\":10,\"vram_free_bytes\":9}"

static const struct {
    const char *text, *message;
} refused[] = {
    {"", "column 1: "},
    {"[]", "expected a JSON object"},
    {"{}", "schema: the field is missing, expected \"prima/profile/1\""},
    {"{\"schema\":\"prima/profile/2\"}", "schema: \"prima/profile/2\" is another version of this format"},
    {"{\"schema\":\"prima/plan/1\"}", "schema: expected \"prima/profile/1\", found \"prima/plan/1\""},
    {"{\"schema\":\"prima/profile/1\",\n\"device\":\"a\" \"b\"}", "line 2 column "},
    {"{\"schema\":\"prima/profile/1\",\"schema\":\"prima/profile/1\"}", "column "},
    {"{\"schema\":\"prima/profile/1\",\"threads\":4}", "device: the field is missing"},
    {HEAD ",\"speed\":1}", "unknown field 'speed'"},
    {HEAD ",\"os\":1}", "os: expected a text"},
    {HEAD ",\"os\":\"123456789012345678901234567890123\"}", "os: a text of at most 31 bytes"},
    {HEAD ",\"os\":\"a\\u0000b\"}", "os: a text of at most 31 bytes"},
    {HEAD ",\"numa_nodes\":1.5}", "numa_nodes: expected a whole number"},
    {HEAD ",\"numa_nodes\":-1}", "numa_nodes: outside 0..1024"},
    {HEAD ",\"numa_nodes\":4294967297}", "numa_nodes: outside 0..1024"},
    {HEAD ",\"compute\":{}}", "compute: expected a list"},
    {HEAD ",\"compute\":[1]}", "compute[0]: expected an object"},
    {HEAD ",\"compute\":[{\"type\":\"Q4_K\",\"batch\":1}]}", "compute[0].gflops: the field is missing"},
    {HEAD ",\"compute\":[{\"type\":\"Q4_K\",\"batch\":0,\"gflops\":1}]}",
     "compute[0].batch: outside 1..1048576"},
    {HEAD ",\"compute\":[{\"type\":\"Q4_K\",\"batch\":1,\"gflops\":0}]}", "compute[0].gflops: outside"},
    {HEAD ",\"compute\":[{\"type\":\"\",\"batch\":1,\"gflops\":1}]}", "compute[0].type: an empty text"},
    {HEAD ",\"compute\":[{\"type\":\"Q4_K\",\"batch\":1,\"gflop\":1}]}", "compute[0]: unknown field 'gflop'"},
    {HEAD ",\"compute\":[{\"type\":\"Q4_K\",\"gpu\":0,\"batch\":1,\"gflops\":1}]}",
     "compute[0].gpu: 0, but the profile lists 0 GPUs"},
    {HEAD ",\"compute\":[{\"type\":\"Q4_K\",\"batch\":1,\"gflops\":1},{\"type\":\"q4_k\",\"batch\":1,"
          "\"gflops\":2}]}",
     "compute[1]: type, batch and gpu of compute[0] again"},
    {HEAD ",\"disk\":[{\"pattern\":\"seq\",\"bs_bytes\":1,\"iodepth\":1,\"engine\":\"e\",\"direct\":1,\"read_"
          "bytes_per_s\":1}]}",
     "disk[0].direct: expected true or false"},
    {HEAD ",\"disk\":[{\"pattern\":\"sec\",\"bs_bytes\":1,\"iodepth\":1,\"engine\":\"e\",\"direct\":true,"
          "\"read_bytes_per_s\":1}]}",
     "disk[0].pattern: expected \"seq\" or \"rand\""},
    {HEAD ",\"disk\":[{\"pattern\":\"seq\",\"bs_bytes\":1,\"iodepth\":1,\"engine\":\"e\",\"direct\":true,"
          "\"read_bytes_per_s\":0}]}",
     "disk[0].read_bytes_per_s: outside"},
    {HEAD ",\"overlap\":[{\"batch\":1,\"theta\":1.01}]}", "overlap[0].theta: outside 0..1"},
    {HEAD ",\"overlap\":[{\"theta\":1}]}", "overlap[0].batch: the field is missing"},
    {HEAD ",\"net\":[{\"peer\":\"b\",\"bytes_per_s\":1,\"rtt_ms\":-1}]}", "net[0].rtt_ms: outside 0..60000"},
    {HEAD ",\"gpus\":[" GPU "," GPU "," GPU "," GPU "," GPU "," GPU "," GPU "," GPU "," GPU "]}",
     "gpus: 9 entries, at most 8 are allowed"},
    {HEAD ",\"gpus\":[{\"name\":\"g\",\"vram_total_bytes\":10,\"vram_free_bytes\":11}]}",
     "gpus[0].vram_free_bytes: more than vram_total_bytes"},
    {HEAD ",\"mem_bytes_per_s\":1}", "mem_bytes_per_s: expected a list"},
    {HEAD ",\"mem_bytes_per_s\":[1,\"x\"]}", "mem_bytes_per_s[1]: expected a number"},
    {"{\"schema\":\"prima/profile/"
     "1\",\"device\":\"a\",\"threads\":4,\"ram_total_bytes\":100,\"ram_available_bytes\":101}",
     "ram_available_bytes: more than ram_total_bytes"},
};

Test(profile, refuses_by_field)
{
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        profile *p = NULL;
        pr_err e = {0};
        cr_expect_eq(profile_parse(&p, refused[i].text, strlen(refused[i].text), &e), PR_EUSAGE,
                     "accepted: %s", refused[i].text);
        cr_expect(!strncmp(e.msg, refused[i].message, strlen(refused[i].message)),
                  "got \"%s\", expected \"%s\"", e.msg, refused[i].message);
        cr_expect_null(p);
    }
}

Test(profile, errors_name_the_file)
{
    char path[32];
    profile *p = NULL;
    pr_err e = {0};
    FILE *f;

    temporary(path);
    f = fopen(path, "w");
    fputs(HEAD ",\"os\":1}", f);
    fclose(f);
    cr_assert_eq(profile_read(&p, path, &e), PR_EUSAGE);
    cr_assert(!strncmp(e.msg, path, strlen(path)) && strstr(e.msg, ": os: expected a text"), "%s", e.msg);
    unlink(path);
    cr_assert_eq(profile_read(&p, path, &e), PR_ERESOURCE);
}

/* --- queries -------------------------------------------------------------------------------------------- */
static void measured(profile *p, const char *type, int gpu, uint32_t batch, double gflops)
{
    profile_compute *c = &p->compute[p->n_compute++];

    strcpy(c->type, type);
    c->gpu = gpu;
    c->batch = batch;
    c->gflops = gflops;
}

static void expect_gflops(const profile *p, int gpu, const char *type, uint32_t batch, double expected)
{
    double got = profile_gflops(p, gpu, type, batch);
    cr_assert(fabs(got - expected) < 1e-9 * expected, "%s gpu %d batch %u: got %.12g, expected %.12g", type,
              gpu, batch, got, expected);
}

Test(profile, rates_between_and_beyond_the_measured)
{
    profile *p = calloc(1, sizeof *p);

    measured(p, "Q4_K", -1, 4, 300);
    measured(p, "Q4_K", -1, 1, 100);
    measured(p, "Q4_K", -1, 16, 1200);
    measured(p, "Q8_0", -1, 1, 70);
    measured(p, "F16", -1, 1, 40);
    measured(p, "Q4_K", 0, 1, 1000);
    p->n_gpus = 1;
    expect_gflops(p, -1, "Q4_K", 1, 100);
    expect_gflops(p, -1, "q4_k", 4, 300);
    expect_gflops(p, -1, "Q4_K", 2, 100 * sqrt(3)); /* halfway between 1 and 4 on a logarithmic scale */
    expect_gflops(p, -1, "Q4_K", 8, 600);
    expect_gflops(p, -1, "Q4_K", 512, 1200);
    expect_gflops(p, 0, "Q4_K", 64, 1000);
    expect_gflops(p, -1, "Q5_K", 1, 100); /* 5.5 bits: 1 from Q4_K, 3 from Q8_0 */
    expect_gflops(p, -1, "Q6_K", 1, 70);  /* 6.56 bits: 2.06 from Q4_K, 1.94 from Q8_0 */
    expect_gflops(p, -1, "F32", 1, 40);
    expect_gflops(p, -1, "Q2_K", 1, 100);
    expect_gflops(p, 0, "F32", 1, 1000);
    cr_assert(isnan(profile_gflops(p, 1, "Q4_K", 1)));
    profile_free(p);
}

static void disk(profile *p, const char *pattern, const char *engine, bool direct, double rate)
{
    profile_disk *d = &p->disk[p->n_disk++];

    strcpy(d->pattern, pattern);
    strcpy(d->engine, engine);
    d->direct = direct;
    d->read_bytes_per_s = rate;
}

Test(profile, disk_rate_as_the_runtime_reads)
{
    profile *p = calloc(1, sizeof *p);

    disk(p, "rand", "libaio", true, 9e9);
    cr_assert_eq(profile_disk_bytes_per_s(p), 0);
    disk(p, "seq", "libaio", false, 8e9);
    cr_assert_eq(profile_disk_bytes_per_s(p), 8e9);
    disk(p, "seq", "libaio", true, 2e9);
    disk(p, "seq", "libaio", true, 3e9);
    disk(p, "seq", "libaio", true, 1e9);
    cr_assert_eq(profile_disk_bytes_per_s(p), 3e9);
    disk(p, "seq", "prima-pread", true, 2.4e9);
    disk(p, "seq", "prima-pread", true, 2.5e9);
    disk(p, "seq", "prima-pread", true, 2.3e9);
    disk(p, "rand", "prima-pread", true, 9e9);
    cr_assert_eq(profile_disk_bytes_per_s(p), 2.5e9);
    cr_assert(profile_disk_used(p) == &p->disk[6]);
    cr_assert(profile_disk_is_ours(&p->disk[6]) && !profile_disk_is_ours(&p->disk[1]));
    disk(p, "seq", "prima-uring", true, 2.7e9); /* whichever of its engines is faster */
    disk(p, "seq", "prima-uring", true, 2.6e9);
    disk(p, "seq", "prima-pread", false, 2.65e9);
    cr_assert_eq(profile_disk_bytes_per_s(p), 2.7e9);
    disk(p, "seq", "primate", true, 9e9);
    cr_assert_eq(profile_disk_bytes_per_s(p), 2.7e9);
    profile_free(p);
}

/* Between 1 and 16 tokens the boundary is at 4, where both are as many times away. */
Test(profile, theta_of_the_nearest_batch)
{
    profile *p = calloc(1, sizeof *p);

    p->n_overlap = 2;
    p->overlap[0] = (profile_overlap){.batch = 16, .theta = 0.25};
    p->overlap[1] = (profile_overlap){.batch = 1, .theta = 0.75};
    cr_assert_eq(profile_theta(p, 1), 0.75);
    cr_assert_eq(profile_theta(p, 3), 0.75);
    cr_assert_eq(profile_theta(p, 5), 0.25);
    cr_assert_eq(profile_theta(p, 512), 0.25);
    profile_free(p);
}
