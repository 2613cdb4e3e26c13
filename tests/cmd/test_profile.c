/* prima profile, called as main calls it: what the file says, what is reused, what is refused. Speed is not
 * judged; fio is a script with known figures except in one test. */
#include "planner/profile.h"
#include "src/cmd.h"
#include "src/disk_reader.h"
#include "src/probe.h"
#include "tests/common/data.h"
#include "tests/common/prima.h"
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const char *const prima_version = "test-build"; /* main.c is not linked */

/* Reports 1,000,000 B/s x depth; refuses what *refuse* matches. */
#define FAKE_FIO(refuse)                                                                                     \
    "#!/bin/sh\necho run >>\"${0%/*}/runs\"\nfor a; do case $a in " refuse ") exit 1;; --output=*) "         \
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
    cr_expect_eq(p->n_gpus + p->n_net, 0u);
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
    cr_expect_str_eq(p->note, "");
    cr_assert_eq(p->n_disk, 5u);
    for (size_t i = 0; i < 5; i++) {
        cr_expect_str_eq(p->disk[i].pattern, i < 3 ? "seq" : "rand");
        cr_expect_eq(p->disk[i].iodepth, depth[i]);
        cr_expect_float_eq(p->disk[i].read_bytes_per_s, 1e6 * depth[i], 0);
        cr_expect_eq(p->disk[i].reps, 3u);
        cr_expect_float_eq(p->disk[i].spread_pct, 0, 0);
        cr_expect_float_eq(p->disk[i].clat_p99_us, 2, 0);
        cr_expect(p->disk[i].direct);
    }
    /* The file has 825,824 to 863,840 bytes: less than a block of 1 MiB. */
    cr_expect_eq(p->disk[0].bs_bytes, 524288u);
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
    cr_assert_eq(p->n_disk, 5u);
    for (size_t i = 0; i < 5; i++) cr_expect_not(p->disk[i].direct);
    cr_expect_not_null(strstr(p->note, "O_DIRECT was refused"));
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
    cr_assert_eq(p->n_disk, 2u);
    for (size_t i = 0; i < 2; i++) {
        cr_expect_str_eq(p->disk[i].engine, "pread");
        cr_expect_eq(p->disk[i].iodepth, i ? 8u : 1u);
        cr_expect_eq(p->disk[i].reps, 3u);
        cr_expect(p->disk[i].read_bytes_per_s > 1e3 && p->disk[i].clat_p50_us > 0);
    }
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
    cr_expect_eq(p->n_disk, 5u);
    for (size_t i = 0; i < p->n_disk; i++) cr_expect_gt(p->disk[i].read_bytes_per_s, 1e3);
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
    cr_expect_eq(p->n_disk, 2u);
    cr_expect_eq(p->disk[0].bs_bytes, 1048576u);
    cr_expect_not(isnan(profile_gflops(p, -1, "Q8_0", 32)));
    cr_expect(profile_disk_bytes_per_s(p) > 0);
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

/* Another build: the same file with another version in it. */
Test(profile, another_build)
{
    char *text, *at;

    cr_assert_eq(run_model(NULL), PR_OK, "%s", err.msg);
    text = read_file(in_dir("p.json"));
    cr_assert_not_null(at = strstr(text, "test-build"));
    memcpy(at, "past", 4);
    write_file(in_dir("p.json"), text);
    free(text);
    cr_assert_eq(run_model(NULL), PR_OK, "%s", err.msg);
    cr_expect_eq(fio_runs(), 30u);
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

/* --- the reader ---------------------------------------------------------------------------------------- */
/* Whole blocks only; a file smaller than one is refused, a missing one too. */
Test(profile, reader)
{
    char *text = calloc(1, 3 * 4096 + 1);
    profile_disk d;

    memset(text, 'x', 3 * 4096);
    write_file(in_dir("f"), text);
    free(text);
    cr_assert_eq(disk_read(&d, in_dir("f"), 4096, 3, 0.05, &err), PR_OK, "%s", err.msg);
    cr_expect_eq(d.iodepth, 3u);
    cr_expect_gt(d.iops, 20);
    /* Every read is a whole block. */
    cr_expect_float_eq(d.read_bytes_per_s / d.iops, 4096, 0.01);
    cr_expect_leq(d.clat_p50_us, d.clat_p99_us);
    cr_expect_eq(disk_read(&d, in_dir("f"), 16384, 1, 0.05, &err), PR_ERESOURCE);
    cr_expect_eq(disk_read(&d, in_dir("none"), 4096, 1, 0.05, &err), PR_ERESOURCE);
    cr_expect_eq(disk_read(&d, in_dir(""), 4096, 1, 0.05, &err), PR_ERESOURCE);
}

/* The cache must be smaller than the machine and larger than a page. */
Test(profile, cache_size)
{
    cr_expect_gt(probe_cache_bytes(1), (size_t)64 << 10);
    cr_expect_lt(probe_cache_bytes(1), (size_t)4 << 30);
    cr_expect_geq(probe_cache_bytes(64), probe_cache_bytes(1));
}
