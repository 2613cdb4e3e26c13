/* prima profile, called as main calls it: what the file says, what is reused, what is refused. Speed is not
 * judged; fio is a script with known figures except in one test. */
#include "kernels/cuda/device.h"
#include "planner/profile.h"
#include "src/cmd.h"
#include "src/probe.h"
#include "tests/common/data.h"
#include "tests/common/prima.h"
#include <criterion/criterion.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const char *const prima_version = "test-build"; /* main.c is not linked */

/* Reports 1,000,000 B/s x depth; refuses what *refuse* matches. */
#define FAKE_FIO(refuse)                                                                                     \
    "#!/bin/sh\n[ \"$1\" = --version ] && echo fio-3.99 && exit\necho run >>\"${0%/*}/runs\"\nfor a; do "    \
    "case $a in " refuse ") exit 1;; --output=*) "                                                           \
    "o=${a#*=};; --iodepth=*) d=${a#*=};; --rw=*) r=${a#*=};; esac; done\n"                                  \
    "echo '{\"fio version\":\"fio-3.99\",\"jobs\":[{\"groupid\":0,\"error\":0,\"job options\":{\"rw\":\"'$r" \
    "'\"},\"read\":{\"bw_bytes\":'$d'000000,\"iops\":5,\"clat_ns\":{\"percentile\":{\"50.000000\":1000,"     \
    "\"99.000000\":2000}}}}]}' >\"$o\"\n"

static void fake_fio(const char *script)
{
    write_file(in_dir("fio"), script);
    cr_assert_eq(chmod(in_dir("fio"), 0755), 0);
    setenv("PRIMA_FIO", in_dir("fio"), 1);
}

static void setup(void)
{
    test_dir_new();
    setenv("PRIMA_LOG", "error", 1);
    fake_fio(FAKE_FIO("--nothing"));
}

TestSuite(profile, .init = setup, .fini = test_dir_remove, .timeout = 240);

static pr_err err;

/* prima profile --runtime 200ms -o DIR/p.json with more options, up to six words of them. */
static int run(const char *a, const char *b, const char *c, const char *d, const char *e, const char *f)
{
    const char *more[] = {a, b, c, d, e, f};
    char *argv[16] = {(char *)"profile", (char *)"--runtime", (char *)"200ms", (char *)"-o",
                      (char *)in_dir("p.json")};
    int argc = 5;

    for (size_t i = 0; i < 6 && more[i]; i++) argv[argc++] = (char *)more[i];
    err = (pr_err){0};
    return cmd_profile(argc, argv, &err);
}

static int run_model(const char *more)
{
    return run("--device", "desk", "--model", test_data("models/llama-q-Q4_K_M.gguf"), more, NULL);
}

static profile *result(void)
{
    profile *p = NULL;
    pr_err e = {0};

    cr_assert_eq(profile_read(&p, in_dir("p.json"), &e), PR_OK, "%s", e.msg);
    return p;
}

static size_t fio_runs(void)
{
    return access(in_dir("runs"), F_OK) ? 0 : count_lines(in_dir("runs"));
}

/* --- what is in it --------------------------------------------------------------------------------- */
static void check_machine(const profile *p)
{
    cr_expect_str_eq(p->device, "desk");
    cr_expect_str_eq(p->prima_version, "test-build");
    cr_expect_gt(strlen(p->host), 0u);
    cr_expect_gt(strlen(p->cpu_model), 0u);
    cr_expect_gt(strlen(p->isa), 0u);
    cr_expect_eq(strlen(p->measured_at), 20u);
    cr_expect_geq(p->cores_physical, 1u);
    cr_expect_leq((long)p->cores_physical, sysconf(_SC_NPROCESSORS_CONF));
    cr_expect_eq((double)p->ram_total_bytes, (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE));
    cr_expect_gt(p->ram_available_bytes, 0u);
    cr_expect_eq(p->n_gpus, (size_t)gpu_count(NULL));
    cr_expect_eq(p->n_net, 0u);
}

/* Seven batches of every type, and the types are those of the model: the list beside it counts more, the
 * norms (F32) and perhaps the embedding. */
static void check_compute(const profile *p)
{
    static const uint32_t batch[] = {1, 2, 4, 8, 16, 64, 512};
    json_t *list = test_data_json("models/models.json"), *m;
    bool has_q4_k = false;
    size_t i;

    cr_assert_gt(p->n_compute, 0u);
    cr_expect_eq(p->n_compute % 7, 0u);
    for (i = 0; i < p->n_compute; i++) {
        cr_expect_eq(p->compute[i].batch, batch[i % 7]);
        cr_expect_eq(p->compute[i].gpu, -1);
        cr_expect(p->compute[i].gflops > 0 && p->compute[i].gflops < 1e7);
        cr_expect_str_eq(p->compute[i].type, p->compute[i / 7 * 7].type);
        has_q4_k = has_q4_k || !strcmp(p->compute[i].type, "Q4_K");
    }
    cr_expect(has_q4_k);
    json_array_foreach(list, i, m)
    {
        if (strcmp(json_string_value(json_object_get(m, "file")), "llama-q-Q4_K_M.gguf")) continue;
        for (size_t k = 0; k < p->n_compute; k += 7)
            cr_expect_not_null(json_object_get(json_object_get(m, "tensors"), p->compute[k].type), "%s",
                               p->compute[k].type);
    }
    json_decref(list);
}

static bool is_ours(const profile_disk *d)
{
    return !strcmp(d->engine, "prima-uring") || !strcmp(d->engine, "prima-pread");
}

/* The runtime's reader: entries from `first` on, of files so small that 128 KiB is what four blocks of fit.
 * Each engine once past the page cache where there is a way past it, and through it where that is faster. */
static void check_reader(const profile *p, size_t first)
{
    bool seen[4] = {false};
    double past = 0;

    cr_assert(p->n_disk > first && p->n_disk <= first + 4);
    for (size_t i = first; i < p->n_disk; i++)
        if (p->disk[i].direct && p->disk[i].read_bytes_per_s > past) past = p->disk[i].read_bytes_per_s;
    for (size_t i = first; i < p->n_disk; i++) {
        const profile_disk *d = &p->disk[i];
        size_t kind = (strcmp(d->engine, "prima-uring") ? 2 : 0) + d->direct;
        cr_expect(is_ours(d), "%s", d->engine);
        cr_expect_not(seen[kind], "%s twice", d->engine);
        seen[kind] = true;
        cr_expect_str_eq(d->pattern, "seq");
        cr_expect_eq(d->bs_bytes, 131072u);
        cr_expect(d->iodepth == 1 || d->iodepth == 16 || d->iodepth == 4 || d->iodepth == 2);
        cr_expect_eq(d->reps, 3u);
        cr_expect(d->read_bytes_per_s > 1e3 && d->clat_p50_us > 0 && d->clat_p50_us <= d->clat_p99_us);
        cr_expect(d->direct || d->read_bytes_per_s >= 1.149 * past);
    }
    cr_expect(seen[2] || seen[3], "reading with threads works everywhere");
    cr_expect(profile_disk_used(p) >= &p->disk[first]);
}

static void check_overlap(const profile *p)
{
    cr_assert_eq(p->n_overlap, 2u);
    for (size_t i = 0; i < 2; i++) {
        const profile_overlap *o = &p->overlap[i];
        cr_expect_eq(o->batch, i ? 16u : 1u);
        cr_expect(o->compute_share > 0 && o->compute_share <= 1);
        cr_expect(o->disk_share > 0 && o->disk_share <= 1);
        /* What both do at once for a second, one after the other: 1 = b + (1 - theta) a, or theta is 0. */
        if (o->theta > 0) cr_expect_float_eq(o->disk_share + (1 - o->theta) * o->compute_share, 1, 0.005);
        else cr_expect_leq(o->compute_share + o->disk_share, 1.002);
        cr_expect_eq(o->reps, 5u);
    }
}

Test(profile, of_a_model)
{
    static const uint32_t depth[] = {1, 8, 32, 1, 32};
    profile *p;

    cr_assert_eq(run_model("--threads=2"), PR_OK, "%s", err.msg);
    p = result();
    check_machine(p);
    check_compute(p);
    cr_expect_eq(p->threads, 2u);
    cr_assert_eq(p->n_mem, 2u);
    cr_expect(p->mem_bytes_per_s[0] > 1e6 && p->mem_bytes_per_s[1] > 1e6);
    cr_expect_str_eq(p->fio_version, "fio-3.99");
    cr_expect_eq(strncmp(p->note, "disk measured on a file of 8", 28), 0, "%s", p->note);
    cr_expect_null(strchr(p->note, ';'), "%s", p->note);
    check_reader(p, 5);
    check_overlap(p);
    for (size_t i = 0; i < 5; i++) {
        cr_expect_str_eq(p->disk[i].pattern, i < 3 ? "seq" : "rand");
        cr_expect_eq(p->disk[i].iodepth, depth[i]);
        cr_expect_float_eq(p->disk[i].read_bytes_per_s, 1e6 * depth[i], 0);
        cr_expect_eq(p->disk[i].reps, 3u);
        cr_expect_float_eq(p->disk[i].spread_pct, 0, 0);
        cr_expect_float_eq(p->disk[i].clat_p99_us, 2, 0);
        cr_expect(p->disk[i].direct);
    }
    /* The file has 825,824 to 863,840 bytes: four blocks of 128 KiB, not of 256. */
    cr_expect_eq(p->disk[0].bs_bytes, 131072u);
    cr_expect_eq(p->disk[4].bs_bytes, 4096u);
    cr_expect_eq(fio_runs(), 15u);
    profile_free(p);
}

/* tmpfs and overlays refuse O_DIRECT. */
Test(profile, buffered_when_direct_is_refused)
{
    profile *p;

    fake_fio(FAKE_FIO("--direct=1"));
    cr_assert_eq(run_model(NULL), PR_OK, "%s", err.msg);
    p = result();
    check_reader(p, 5);
    for (size_t i = 0; i < 5; i++) cr_expect_not(p->disk[i].direct);
    cr_expect_not_null(strstr(p->note, "fio read through the page cache, past it: "), "%s", p->note);
    cr_expect_str_eq(p->fio_version, "fio-3.99");
    profile_free(p);
}

static void expect_reader(const char *why)
{
    profile *p;

    cr_assert_eq(run_model(NULL), PR_OK, "%s", err.msg);
    p = result();
    cr_expect_not_null(strstr(p->note, "apt install fio"), "%s", p->note);
    cr_expect_not_null(strstr(p->note, why), "%s", p->note);
    cr_expect_str_eq(p->fio_version, "");
    check_reader(p, 0);
    profile_free(p);
}

Test(profile, fio_missing)
{
    setenv("PRIMA_FIO", "/no/such/fio", 1);
    expect_reader("/no/such/fio cannot be started");
}

Test(profile, fio_fails)
{
    fake_fio("#!/bin/sh\nprintf 'caf\\303\\251 \\377\\n'\nexit 1\n");
    expect_reader("status 1: caf?? ?");
}

/* The file's name has what fio takes for a separator in it. */
Test(profile, real_fio)
{
    char *model;
    profile *p;

    model = realpath(test_data("models/llama-q-Q4_K_M.gguf"), NULL);
    setenv("MODEL", model, 1);
    if (system("fio --name=a --readonly --thread --ioengine=libaio --rw=read --bs=4k --time_based "
               "--runtime=300ms "
               "--filename=\"$MODEL\" >/dev/null 2>&1"))
        cr_skip_test("no fio with libaio: not installed, or not allowed here");
    unsetenv("PRIMA_FIO");
    cr_assert_eq(symlink(model, in_dir("a:b\\c.gguf")), 0);
    free(model);
    cr_assert_eq(run("--device", "desk", "-m", in_dir("a:b\\c.gguf"), "--runtime", "1s"), PR_OK, "%s",
                 err.msg);
    p = result();
    cr_expect_eq(strncmp(p->fio_version, "fio-", 4), 0, "%s; %s", p->fio_version, p->note);
    check_reader(p, 5);
    for (size_t i = 0; i < 5; i++) {
        cr_expect_gt(p->disk[i].read_bytes_per_s, 1e3);
        cr_expect_not(is_ours(&p->disk[i]), "%s", p->disk[i].engine);
    }
    profile_free(p);
}

/* 256 MiB beside the output; nothing of it is left. */
Test(profile, without_a_model)
{
    profile *p;

    if (prima_is_sanitized()) cr_skip_test("no time: usual shapes are slow under a sanitizer");
    setenv("PRIMA_FIO", "/no/such/fio", 1);
    cr_assert_eq(run("--device", "desk", NULL, NULL, NULL, NULL), PR_OK, "%s", err.msg);
    p = result();
    check_machine(p);
    cr_assert_eq(p->n_compute, 28u);
    cr_assert(p->n_disk >= 1 && p->n_disk <= 4);
    for (size_t i = 0; i < p->n_disk; i++) cr_expect_geq(p->disk[i].bs_bytes, 1048576u);
    cr_expect_not(isnan(profile_gflops(p, -1, "Q8_0", 32)));
    cr_expect(profile_disk_bytes_per_s(p) > 0);
    cr_expect_not_null(strstr(p->note, "; disk measured on 256 MiB that had just been written"), "%s",
                       p->note);
    setenv("DIR", in_dir(""), 1);
    cr_expect_eq(system("test \"$(ls \"$DIR\" | tr '\\n' ' ')\" = 'fio p.json '"), 0,
                 "files are left behind");
    profile_free(p);
}

/* --- reuse -------------------------------------------------------------------------------------------- */
Test(profile, reused_until_something_changes)
{
    cr_assert_eq(run_model(NULL), PR_OK, "%s", err.msg);
    cr_expect_eq(fio_runs(), 15u);
    cr_assert_eq(run_model(NULL), PR_OK, "%s", err.msg);
    cr_expect_eq(fio_runs(), 15u, "measured again");
    cr_assert_eq(run_model("--force"), PR_OK, "%s", err.msg);
    cr_expect_eq(fio_runs(), 30u, "--force did not measure");
    cr_assert_eq(run("--device", "desk", "-m", test_data("models/llama-q-Q4_0.gguf"), NULL, NULL), PR_OK);
    cr_expect_eq(fio_runs(), 45u, "another type of model was not measured");
    cr_assert_eq(run("--device", "shelf", "-m", test_data("models/llama-q-Q4_0.gguf"), NULL, NULL), PR_OK);
    cr_expect_eq(fio_runs(), 60u, "another device was not measured");
}

/* The earlier profile with one line of it changed. */
static void edit_profile(const char *key, const char *value)
{
    char command[600];

    snprintf(command, sizeof command, "sed -i 's|^  \"%s\": .*|  \"%s\": %s,|' '%s'", key, key, value,
             in_dir("p.json"));
    cr_assert_eq(system(command), 0);
    profile_free(result());
}

/* What a profile is of: each of these makes it one of something else. */
static const struct {
    const char *key, *value, *says;
} changes[] = {
    {"device", "\"shelf\"", "another device name"},
    {"host", "\"elsewhere\"", "another machine"},
    {"cpu_model", "\"Z80\"", "another CPU"},
    {"isa", "\"ref\"", "another CPU"},
    {"threads", "77", "another number of threads"},
    {"ram_total_bytes", "99999999999999", "another amount of memory"},
    {"disk_name", "\"ext4 on /dev/fd0, 1474560 bytes\"", "another disk"},
    {"model", "\"llama Q4_K_M, 2 layers of 1 x 1\"", "another type of model"},
    {"prima_version", "\"v0\"", "another build"},
};

static pid_t start_as_user(const char *more)
{
    unsetenv("PRIMA_LOG");
    return prima_start(NULL, (const char *const[]){"profile", "--device", "desk", "--runtime", "100ms", "-o",
                                                   in_dir("p.json"), "-m",
                                                   test_data("models/llama-q-Q4_0.gguf"), more, NULL});
}

static prima_result run_as_user(const char *more)
{
    return prima_wait(start_as_user(more));
}

/* What the command says of the earlier profile; then it is ended, because measuring takes its time. */
static void expect_said(const char *says)
{
    bool reused = false, measures = false;
    prima_result r;
    pid_t pid;

    unlink(in_dir("stderr"));
    pid = start_as_user(NULL);
    for (int i = 0; i < 1000 && !reused && !measures; i++) {
        char *text;
        usleep(10000);
        if (access(in_dir("stderr"), R_OK)) continue;
        text = read_file(in_dir("stderr"));
        reused = strstr(text, "reused");
        measures = strstr(text, "measured again");
        free(text);
    }
    if (!reused) kill(pid, SIGKILL); /* otherwise it ends by itself */
    r = prima_wait(pid);
    cr_expect_not_null(strstr(r.err, says), "expected '%s': %s", says, r.err);
}

/* Whether the system named the disk: in a changed root it need not. */
static bool knows_disk(const char *profile_text)
{
    json_t *p = json_loads(profile_text, 0, NULL);
    const char *name = json_string_value(json_object_get(p, "disk_name"));
    bool known = name && *name;

    json_decref(p);
    return known;
}

Test(profile, measured_again_when)
{
    prima_result r = run_as_user(NULL);
    char *text, says[80];

    cr_assert_eq(r.status, 0, "%s", r.err);
    text = read_file(in_dir("p.json"));
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        write_file(in_dir("p.json"), text);
        expect_said("is reused");
        if (!strcmp(changes[i].key, "disk_name") && !knows_disk(text)) {
            cr_log_info("not tried: this system does not say which disk the model is on");
            continue;
        }
        edit_profile(changes[i].key, changes[i].value);
        snprintf(says, sizeof says, "is measured again: %s", changes[i].says);
        expect_said(says);
    }
    free(text);
}

/* What changes from day to day does not count; it is said that nothing was measured, and nothing is. */
Test(profile, reused_and_said)
{
    prima_result r = run_as_user(NULL);
    size_t runs = fio_runs();
    char *before, *after;

    cr_assert_eq(r.status, 0, "%s", r.err);
    edit_profile("ram_available_bytes", "1000000");
    edit_profile("kernel", "\"7.0\"");
    before = read_file(in_dir("p.json"));
    r = run_as_user(NULL);
    cr_assert_eq(r.status, 0, "%s", r.err);
    cr_expect_not_null(strstr(r.err, "is reused: same build, model type and hardware"), "%s", r.err);
    cr_expect_not_null(strstr(r.err, "--force"), "%s", r.err);
    cr_expect_eq(fio_runs(), runs);
    after = read_file(in_dir("p.json"));
    cr_expect_str_eq(after, before);
    r = run_as_user("--force");
    cr_assert_eq(r.status, 0, "%s", r.err);
    cr_expect_eq(fio_runs(), 2 * runs);
    free(before);
    free(after);
}

/* Who follows the note's advice gets fio's figures; a fio that is there and fails is not tried every time. */
Test(profile, measured_again_when_fio_came)
{
    profile *p;

    setenv("PRIMA_FIO", "/no/such/fio", 1);
    cr_assert_eq(run_model(NULL), PR_OK, "%s", err.msg);
    cr_assert_eq(run_model(NULL), PR_OK, "%s", err.msg);
    fake_fio(FAKE_FIO("--readonly"));
    cr_assert_eq(run_model(NULL), PR_OK, "%s", err.msg);
    cr_expect_eq(fio_runs(), 4u); /* past the page cache and through it, twice each */
    p = result();
    cr_expect_str_eq(p->fio_version, "fio-3.99");
    check_reader(p, 0);
    profile_free(p);
    cr_assert_eq(run_model(NULL), PR_OK, "%s", err.msg);
    cr_expect_eq(fio_runs(), 4u, "tried again");
}

Test(profile, other_files_are_not_overwritten)
{
    char *text;

    write_file(in_dir("p.json"), "my notes\n");
    cr_expect_eq(run_model(NULL), PR_EUSAGE);
    cr_expect_not_null(strstr(err.msg, "--force"), "%s", err.msg);
    text = read_file(in_dir("p.json"));
    cr_expect_str_eq(text, "my notes\n");
    free(text);
    cr_expect_eq(run_model("--force"), PR_OK, "%s", err.msg);
    profile_free(result());
}

/* --- import and refusals ------------------------------------------------------------------------------- */
Test(profile, import)
{
    profile *p;

    write_file(
        in_dir("fio.json"),
        "{\"fio version\":\"fio-3.1\",\"jobs\":[{\"groupid\":0,\"error\":0,\"job options\":{\"bs\":\"2M\"},"
        "\"read\":{\"bw_bytes\":77,\"iops\":5,\"clat_ns\":{\"percentile\":{\"50.000000\":1000,"
        "\"99.000000\":2000}}}}]}");
    cr_assert_eq(run("--device", "desk", "-m", test_data("models/llama-q-Q4_K_M.gguf"), "--import",
                     in_dir("fio.json")),
                 PR_OK, "%s", err.msg);
    p = result();
    cr_assert_eq(p->n_disk, 1u);
    cr_expect_float_eq(p->disk[0].read_bytes_per_s, 77, 0);
    cr_expect_eq(p->disk[0].bs_bytes, 2097152u);
    cr_expect_str_eq(p->fio_version, "fio-3.1");
    cr_expect_str_eq(p->note, "disk imported from fio output");
    cr_expect_eq(fio_runs(), 0u);
    profile_free(p);
}

Test(profile, bad_import)
{
    write_file(in_dir("fio.json"), "{\"jobs\":[]}");
    cr_expect_eq(run("--device", "desk", "--import", in_dir("fio.json"), NULL, NULL), PR_EUSAGE);
    cr_expect_eq(err.code, PR_EUSAGE);
    cr_expect_not_null(strstr(err.msg, "fio.json: no \"jobs\""), "%s", err.msg);
    cr_expect_neq(access(in_dir("p.json"), F_OK), 0);
    cr_expect_eq(run("--device", "desk", "--import", in_dir("none.json"), NULL, NULL), PR_ERESOURCE);
}

Test(profile, refused_options)
{
    static const struct {
        const char *a, *b, *says;
    } bad[] = {
        {NULL, NULL, "--device NAME is missing"},
        {"--device", "", "1 to 32"},
        {"--device", "Desk", "1 to 32"},
        {"--device", "a/b", "1 to 32"},
        {"--device", "a234567890123456789012345678901234", "1 to 32"},
        {"--device=desk", "--runtime=5", "duration"},
        {"--device=desk", "--runtime=1ms", "--runtime: expected 100ms to 10m"},
        {"--device=desk", "--threads=0", "--threads"},
        {"--device=desk", "more", "expected: prima profile"},
        {"--device=desk", "--gpu", "unknown option"},
    };

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cr_expect_eq(run(bad[i].a, bad[i].b, NULL, NULL, NULL, NULL), PR_EUSAGE, "case %zu", i);
        cr_expect_not_null(strstr(err.msg, bad[i].says), "case %zu: %s", i, err.msg);
    }
}

Test(profile, bad_model)
{
    write_file(in_dir("m.gguf"), "GGUF but not really");
    cr_expect_eq(run("--device", "desk", "-m", in_dir("m.gguf"), NULL, NULL), PR_EINTEGRITY);
    cr_expect_eq(run("--device", "desk", "-m", in_dir("none.gguf"), NULL, NULL), PR_ERESOURCE);
    cr_expect_neq(access(in_dir("p.json"), F_OK), 0);
}

Test(profile, folders_are_made)
{
    const char *path = in_dir("a/b/c.json");

    cr_assert_eq(run("--device", "desk", "-m", test_data("models/llama-q-Q4_K_M.gguf"), "-o", path), PR_OK,
                 "%s", err.msg);
    cr_expect_eq(access(path, R_OK), 0);
}

/* The cache must be smaller than the machine and larger than a page. */
Test(profile, cache_size)
{
    cr_expect_gt(probe_cache_bytes(1), (size_t)64 << 10);
    cr_expect_lt(probe_cache_bytes(1), (size_t)4 << 30);
    cr_expect_geq(probe_cache_bytes(64), probe_cache_bytes(1));
}

/* --- for people --------------------------------------------------------------------------------------- */
/* `prima inspect` shows what is in the file, and which way of reading plans use. */
Test(profile, inspected)
{
    prima_result r = run_as_user(NULL);
    char *page, *used;

    cr_assert_eq(r.status, 0, "%s", r.err);
    r = prima_run(in_dir("page"), (const char *const[]){"inspect", in_dir("p.json"), NULL});
    cr_assert_eq(r.status, 0, "%s", r.err);
    page = read_file(in_dir("page"));
    cr_expect_eq(strncmp(page, "device          desk (", 22), 0, "%s", page);
    cr_expect_not_null(strstr(page, "libaio"), "%s", page);
    used = strstr(page, "<- plans");
    cr_assert_not_null(used, "%s", page);
    cr_expect_null(strstr(used + 1, "<- plans"), "%s", page);
    while (used > page && used[-1] != '\n') used--;
    cr_expect_eq(strncmp(used, "  seq ", 6), 0, "%s", used);
    cr_expect_not_null(strstr(used, " prima-"), "%s", used);
    cr_expect_not_null(strstr(page, "note            disk measured on a file of"), "%s", page);
    free(page);
    write_file(in_dir("p.json"), "{\"schema\": \"prima/profile/2\"}\n");
    r = prima_run(NULL, (const char *const[]){"inspect", in_dir("p.json"), NULL});
    cr_expect_eq(r.status, 2, "%d: %s", r.status, r.err);
    cr_expect_not_null(strstr(r.err, "another version of this format"), "%s", r.err);
}
