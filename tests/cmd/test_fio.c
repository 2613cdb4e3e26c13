/* fio's output read, good and damaged, and fio replaced by scripts that behave badly. What a file says is
 * written down here by hand from fio's documentation, not taken from our reader. */
#include "src/fio.h"
#include "tests/common/prima.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static void make_dir(void)
{
    test_dir_new();
}

TestSuite(fio, .init = make_dir, .fini = test_dir_remove, .timeout = 60);

/* One job as fio 3 prints it; the fields that matter can be replaced. */
#define JOB(group, error, options, bw)                                                                       \
    "{\"jobname\":\"a\",\"groupid\":" group ",\"error\":" error ",\"job options\":{" options                 \
    "},\"read\":{\"io_bytes\":57671680,\"io_kbytes\":56320,\"bw_bytes\":" bw                                 \
    ",\"bw\":43456,\"iops\":42.5,\"runtime\":1296,\"clat_ns\":{\"mean\":1.5,\"percentile\":{\"1.000000\":1," \
    "\"50.000000\":823296,\"99.000000\":784334848}}},\"write\":{\"bw_bytes\":7}}"
#define FILE_OF(jobs) "{\"fio version\":\"fio-3.33\",\"jobs\":[" jobs "]}"
#define SEQ           "\"rw\":\"read\",\"bs\":\"1M\",\"iodepth\":\"8\",\"direct\":\"1\",\"ioengine\":\"libaio\""
#define RAND          "\"rw\":\"randread\",\"bs\":\"4k\""

typedef struct {
    profile_disk d[PROFILE_MAX_DISK];
    size_t n;
    char version[FIO_VERSION_BYTES];
    pr_err err;
    int rc;
} parsed;

static parsed parse(const char *text)
{
    static parsed p;

    p = (parsed){.n = 99};
    p.rc = fio_parse(p.d, &p.n, p.version, text, strlen(text), &p.err);
    return p;
}

Test(fio, one_job)
{
    parsed p = parse("note: both iodepth >= 1 and synchronous I/O engine are selected\n" FILE_OF(
        JOB("0", "0", SEQ, "44499753")) "\nfio: some message {after}\n");

    cr_assert_eq(p.rc, PR_OK, "%s", p.err.msg);
    cr_assert_eq(p.n, 1u);
    cr_expect_str_eq(p.version, "fio-3.33");
    cr_expect_str_eq(p.d[0].pattern, "seq");
    cr_expect_str_eq(p.d[0].engine, "libaio");
    cr_expect_eq(p.d[0].bs_bytes, 1048576u);
    cr_expect_eq(p.d[0].iodepth, 8u);
    cr_expect(p.d[0].direct);
    cr_expect_float_eq(p.d[0].read_bytes_per_s, 44499753, 0);
    cr_expect_float_eq(p.d[0].iops, 42.5, 0);
    cr_expect_float_eq(p.d[0].clat_p50_us, 823.296, 1e-9);
    cr_expect_float_eq(p.d[0].clat_p99_us, 784334.848, 1e-6);
    cr_expect_eq(p.d[0].reps, 1u);
    cr_expect_float_eq(p.d[0].spread_pct, 0, 0);
}

/* fio's defaults: sequential reads of 4 KiB, one under way, through the cache; options of all jobs count. */
Test(fio, defaults_and_global_options)
{
    parsed p = parse("{\"global options\":{\"iodepth\":\"32\",\"blocksize\":\"128KiB,4k\"},\"jobs\":[" JOB(
        "0", "0", "\"readwrite\":\"randread\"", "5e6") "]}");

    cr_assert_eq(p.rc, PR_OK, "%s", p.err.msg);
    cr_expect_str_eq(p.d[0].pattern, "rand");
    cr_expect_eq(p.d[0].bs_bytes, 131072u);
    cr_expect_eq(p.d[0].iodepth, 32u);
    cr_expect_str_eq(p.version, "");
    p = parse(FILE_OF(JOB("0", "0", "", "5000000")));
    cr_assert_eq(p.rc, PR_OK, "%s", p.err.msg);
    cr_expect_str_eq(p.d[0].pattern, "seq");
    cr_expect_eq(p.d[0].bs_bytes, 4096u);
    cr_expect_eq(p.d[0].iodepth, 1u);
    cr_expect_not(p.d[0].direct);
    cr_expect_float_eq(p.d[0].read_bytes_per_s, 5e6, 0);
}

/* Without latencies the rate still counts. */
Test(fio, no_percentiles)
{
    parsed p = parse("{\"jobs\":[{\"error\":0,\"job options\":{},\"read\":{\"bw_bytes\":5,\"iops\":1}}]}");

    cr_assert_eq(p.rc, PR_OK, "%s", p.err.msg);
    cr_expect_float_eq(p.d[0].read_bytes_per_s, 5, 0);
    cr_expect_float_eq(p.d[0].clat_p50_us, 0, 0);
    cr_expect_float_eq(p.d[0].clat_p99_us, 0, 0);
}

/* Three repetitions of one kind (10, 40, 20: median 20, spread 30/20) around another kind. */
Test(fio, repetitions)
{
    parsed p = parse(FILE_OF(JOB("0", "0", SEQ, "10000000") "," JOB("1", "0", RAND, "7000000") "," JOB(
        "2", "0", SEQ, "40000000") "," JOB("3", "0", SEQ, "20000000")));

    cr_assert_eq(p.rc, PR_OK, "%s", p.err.msg);
    cr_assert_eq(p.n, 2u);
    cr_expect_float_eq(p.d[0].read_bytes_per_s, 2e7, 0);
    cr_expect_eq(p.d[0].reps, 3u);
    cr_expect_float_eq(p.d[0].spread_pct, 150, 1e-9);
    cr_expect_str_eq(p.d[1].pattern, "rand");
    cr_expect_float_eq(p.d[1].read_bytes_per_s, 7e6, 0);
    cr_expect_eq(p.d[1].reps, 1u);
}

/* numjobs=2: the same group, side by side, so rates add up. */
Test(fio, side_by_side)
{
    parsed p = parse(FILE_OF(JOB("0", "0", SEQ, "10000000") "," JOB("0", "0", SEQ, "30000000")));

    cr_assert_eq(p.rc, PR_OK, "%s", p.err.msg);
    cr_assert_eq(p.n, 1u);
    cr_expect_float_eq(p.d[0].read_bytes_per_s, 4e7, 0);
    cr_expect_float_eq(p.d[0].iops, 85, 0);
    cr_expect_eq(p.d[0].reps, 1u);
}

/* Every refusal names what is wrong. */
Test(fio, damaged)
{
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"", "no '{'"},
        {"fio: command not found\n", "no '{'"},
        {"{\"fio version\":\"fio-3.33\",\"jobs\":[{\"jobname\":", "line 1"},
        {"{}", "jobs"},
        {"{\"jobs\":{}}", "jobs"},
        {"{\"jobs\":[]}", "jobs"},
        {"{\"jobs\":[1]}", "error is missing"},
        {FILE_OF(JOB("0", "22", SEQ, "1000")), "error 22"},
        {FILE_OF(JOB("0", "\"0\"", SEQ, "1000")), "error is missing"},
        {FILE_OF(JOB("0", "0", SEQ, "0")), "bw_bytes is 0"},
        {FILE_OF(JOB("0", "0", SEQ, "-5")), "bw_bytes is -5"},
        {FILE_OF(JOB("0", "0", SEQ, "null")), "bw_bytes is missing"},
        {FILE_OF(JOB("0", "0", SEQ, "1e300")), "bw_bytes is 1e+300"},
        {FILE_OF(JOB("0", "0", SEQ, "1e999")), "line 1"},
        {FILE_OF(JOB("0", "0", SEQ, "99999999999999999999")), "line 1"},
        {FILE_OF(JOB("0", "0", "\"rw\":\"randwrite\"", "1000")), "rw=randwrite"},
        {FILE_OF(JOB("0", "0", "\"rw\":7", "1000")), "rw=?"},
        {FILE_OF(JOB("0", "0", "\"bs\":\"0\"", "1000")), "bs=0"},
        {FILE_OF(JOB("0", "0", "\"bs\":\"99999999999g\"", "1000")), "bs=9"},
        {FILE_OF(JOB("0", "0", "\"bs\":\"4x\"", "1000")), "bs=4x"},
        {FILE_OF(JOB("0", "0", "\"iodepth\":\"-1\"", "1000")), "iodepth=-1"},
        {FILE_OF(JOB("0", "0", "\"iodepth\":\"0\"", "1000")), "iodepth=0"},
        {FILE_OF(JOB("0", "0", "\"ioengine\":\"\"", "1000")), "ioengine"},
        {FILE_OF(JOB("0", "0", SEQ, "10") "," JOB("0", "0", RAND, "30")), "jobs[1]: ran at the same time"},
        {"{\"jobs\":[{\"error\":0,\"read\":{\"bw_bytes\":5}}]}", "iops is missing"},
        {"{\"jobs\":[{\"error\":0,\"read\":{\"bw_bytes\":5,\"iops\":1,\"clat_ns\":{\"percentile\":{}}}}]}",
         "50.000000 is missing"},
        {"{\"jobs\":[{\"error\":0,\"read\":{\"bw_bytes\":5,\"iops\":1,\"clat_ns\":{\"percentile\":"
         "{\"50.000000\":1,\"99.000000\":1}}}}]}",
         "job options"},
    };

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        parsed p = parse(bad[i].text);
        cr_expect_eq(p.rc, PR_EINTEGRITY, "case %zu accepted: %s", i, bad[i].text);
        cr_expect_not_null(strstr(p.err.msg, bad[i].says), "case %zu: \"%s\" lacks \"%s\"", i, p.err.msg,
                           bad[i].says);
    }
}

/* Text is not NUL-terminated for the reader: every prefix of a good file is refused, none is read past. */
Test(fio, every_prefix)
{
    static const char good[] = FILE_OF(JOB("0", "0", SEQ, "44499753"));

    for (size_t n = 0; n + 1 < sizeof good; n++) {
        char *copy = malloc(n ? n : 1);
        profile_disk d[PROFILE_MAX_DISK];
        char version[FIO_VERSION_BYTES];
        size_t found;
        memcpy(copy, good, n);
        cr_expect_eq(fio_parse(d, &found, version, copy, n, NULL), PR_EINTEGRITY, "%zu bytes", n);
        free(copy);
    }
}

/* --- running ------------------------------------------------------------------------------------------- */
/* A program in the test's folder, named by PRIMA_FIO. */
static void fake_fio(const char *script)
{
    write_file(in_dir("fio"), script);
    cr_assert_eq(chmod(in_dir("fio"), 0755), 0);
    setenv("PRIMA_FIO", in_dir("fio"), 1);
    setenv("TMPDIR", in_dir(""), 1);
}

static int run(profile_disk *d, char version[FIO_VERSION_BYTES], double timeout_s, pr_err *err)
{
    fio_job job = {.path = "/some:where/model.gguf",
                   .direct = true,
                   .bs_bytes = 1 << 20,
                   .iodepth = 8,
                   .runtime_s = 0.25,
                   .ramp_s = 0.05,
                   .timeout_s = timeout_s};
    return fio_run(d, version, &job, err);
}

/* The output option's file gets a good report; the arguments are kept for us to see. */
#define GOOD_FIO                                                                                             \
    "#!/bin/sh\nfor a; do echo \"$a\" >>\"${0%/*}/args\"; case $a in --output=*) o=${a#--output=};; esac; "  \
    "done\ncat >\"$o\" <<'END'\nwarning\n" FILE_OF(JOB("0", "0", "\"bs\":\"1M\"", "123456789")) "\nEND\n"

Test(fio, arguments_and_result)
{
    static const char *const wanted[] = {"--readonly\n",
                                         "--output-format=json\n",
                                         "--rw=read\n",
                                         "--bs=1048576\n",
                                         "--iodepth=8\n",
                                         "--direct=1\n",
                                         "--invalidate=1\n",
                                         "--time_based\n",
                                         "--runtime=250ms\n",
                                         "--ramp_time=50ms\n",
                                         "--filename=/some\\:where/model.gguf\n"};
    profile_disk d;
    char version[FIO_VERSION_BYTES], *args;
    pr_err err = {0};

    fake_fio(GOOD_FIO);
    cr_assert_eq(run(&d, version, 20, &err), PR_OK, "%s", err.msg);
    cr_expect_float_eq(d.read_bytes_per_s, 123456789, 0);
    cr_expect_eq(d.iodepth, 8u);
    cr_expect(d.direct);
    cr_expect_str_eq(version, "fio-3.33");
    args = read_file(in_dir("args"));
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        cr_expect_not_null(strstr(args, wanted[i]), "%s not in\n%s", wanted[i], args);
    free(args);
    /* Nothing but the script and what it wrote is left, nor was there while it ran. */
    cr_expect_eq(system("ls \"$TMPDIR\" | grep -q prima-fio"), 256);
    fake_fio("#!/bin/sh\nls \"$TMPDIR\" | grep -q prima-fio && exit 77\nexit 3\n");
    cr_expect_neq(run(&d, version, 20, &err), PR_OK);
    cr_expect_not_null(strstr(err.msg, "status 3"), "%s", err.msg);
}

Test(fio, bad_programs)
{
    static const struct {
        const char *script;
        int rc;
        const char *says;
    } bad[] = {
        {"#!/bin/sh\necho cannot do that >&2; echo more; exit 3\n", PR_EINTEGRITY,
         "status 3: cannot do that"},
        {"#!/bin/sh\nkill -9 $$\n", PR_EINTEGRITY, "signal 9"},
        {"#!/bin/sh\nexit 127\n", PR_ERESOURCE, "cannot be started"},
        {"#!/bin/sh\nexit 0\n", PR_EINTEGRITY, "no '{'"},
        {"#!/bin/sh\nfor a; do case $a in --output=*) head -c 9999 /dev/zero >${a#*=};; esac; done\n",
         PR_EINTEGRITY, "no '{'"},
        {"#!/bin/sh\nfor a; do case $a in --output=*) echo '{nonsense' >${a#*=};; esac; done\n",
         PR_EINTEGRITY, "line 1"},
        {"not a program", PR_EINTEGRITY, ""},
    };
    profile_disk d;
    char version[FIO_VERSION_BYTES];

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        pr_err err = {0};
        int rc;
        fake_fio(bad[i].script);
        rc = run(&d, version, 20, &err);
        if (*bad[i].says) cr_expect_eq(rc, bad[i].rc, "case %zu: %d %s", i, rc, err.msg);
        cr_expect_neq(rc, PR_OK, "case %zu", i);
        cr_expect_not_null(strstr(err.msg, bad[i].says), "case %zu: \"%s\"", i, err.msg);
    }
}

/* Buffers on huge pages are asked for, unless the user has settings of his own. */
Test(fio, huge_pages)
{
    profile_disk d;
    char version[FIO_VERSION_BYTES];
    pr_err err = {0};

    fake_fio("#!/bin/sh\necho \"$GLIBC_TUNABLES\"\nexit 5\n");
    unsetenv("GLIBC_TUNABLES");
    cr_expect_neq(run(&d, version, 20, &err), PR_OK);
    cr_expect_not_null(strstr(err.msg, "status 5: glibc.malloc.hugetlb=1"), "%s", err.msg);
    setenv("GLIBC_TUNABLES", "glibc.malloc.perturb=0", 1);
    cr_expect_neq(run(&d, version, 20, &err), PR_OK);
    cr_expect_not_null(strstr(err.msg, "status 5: glibc.malloc.perturb=0"), "%s", err.msg);
}

Test(fio, version)
{
    char version[FIO_VERSION_BYTES] = "before";

    fake_fio("#!/bin/sh\n[ \"$*\" = --version ] && echo 'fio-3.33-dirty \033[1m' && echo more\n");
    cr_expect(fio_installed(version));
    cr_expect_str_eq(version, "fio-3.33-dirty");
    fake_fio("#!/bin/sh\necho another program 1.0\n");
    cr_expect_not(fio_installed(version));
    fake_fio("#!/bin/sh\necho fio-3\nexit 1\n");
    cr_expect_not(fio_installed(version));
    setenv("PRIMA_FIO", "/no/such/fio", 1);
    cr_expect_not(fio_installed(version));
}

Test(fio, missing)
{
    profile_disk d;
    char version[FIO_VERSION_BYTES];
    pr_err err = {0};

    setenv("PRIMA_FIO", "/no/such/fio", 1);
    cr_expect_eq(run(&d, version, 20, &err), PR_ERESOURCE);
    cr_expect_not_null(strstr(err.msg, "/no/such/fio cannot be started"), "%s", err.msg);
}

Test(fio, hangs)
{
    struct timespec a, b;
    profile_disk d;
    char version[FIO_VERSION_BYTES];
    pr_err err = {0};

    fake_fio("#!/bin/sh\nexec sleep 50\n");
    clock_gettime(CLOCK_MONOTONIC, &a);
    cr_expect_eq(run(&d, version, 0.5, &err), PR_ERESOURCE);
    clock_gettime(CLOCK_MONOTONIC, &b);
    cr_expect_not_null(strstr(err.msg, "did not end within 0.5 s"), "%s", err.msg);
    cr_expect_lt(b.tv_sec - a.tv_sec, 10);
}
