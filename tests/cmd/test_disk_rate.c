/* Measuring with the runtime's reader, and from a profile's figures back to its options. */
#include "src/disk_best.h"
#include "src/disk_rate.h"
#include "tests/base/pattern_file.h"
#include "tests/common/prima.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <unistd.h>

TestSuite(disk_rate, .init = (void (*)(void))test_dir_new, .fini = test_dir_remove, .timeout = 60);
TestSuite(disk_best, .timeout = 60);

static pr_err err;

static disk_rate *open_rate(size_t block_bytes, unsigned depth, disk_read_mode mode)
{
    const disk_read_options o = {DISK_READ_PREAD, mode, block_bytes, depth, 0, false};
    disk_rate *r = NULL;

    cr_assert_eq(disk_rate_open(&r, in_dir("f"), &o, &err), PR_OK, "%s", err.msg);
    return r;
}

/* Whole blocks only. */
Test(disk_rate, figures)
{
    for (int engine = DISK_READ_URING; engine <= DISK_READ_PREAD; engine++)
        for (int mode = 0; mode < 2; mode++) {
            const disk_read_options o = {(disk_read_engine)engine, (disk_read_mode)mode, 4096, 3, 0, false};
            disk_rate *r = NULL;
            disk_read_facts f;
            profile_disk d;
            pattern_write(in_dir("f"), 3 * 4096 + 17);
            cr_assert_eq(disk_rate_open(&r, in_dir("f"), &o, &err), PR_OK, "%s", err.msg);
            f = disk_rate_about(r);
            cr_assert_eq(disk_rate_run(r, 0.05, 0, &d, &err), PR_OK, "%s", err.msg);
            cr_expect_str_eq(d.engine, f.engine == DISK_READ_URING ? "prima-uring" : "prima-pread");
            cr_expect_eq(d.direct, f.mode == DISK_READ_DIRECT);
            cr_expect_str_eq(d.pattern, "seq");
            cr_expect_eq(d.bs_bytes, 4096u);
            cr_expect_eq(d.iodepth, 3u);
            cr_expect_eq(d.reps, 1u);
            cr_expect_gt(d.iops, 20);
            cr_expect_float_eq(d.read_bytes_per_s / d.iops, 4096, 0.01);
            cr_expect(d.clat_p50_us > 0 && d.clat_p50_us <= d.clat_p99_us);
            cr_expect_leq(disk_rate_blocks(r) * 4096, disk_rate_about(r).bytes);
            disk_rate_close(r);
        }
}

/* A number of blocks, and no more, round the file's end; a short time ends a run before its blocks are read.
 */
Test(disk_rate, stops)
{
    disk_rate *r;
    profile_disk d;

    pattern_write(in_dir("f"), 64 * 4096);
    r = open_rate(4096, 2, DISK_READ_DIRECT);
    cr_assert_eq(disk_rate_run(r, 10, 7, &d, &err), PR_OK, "%s", err.msg);
    cr_expect_eq(disk_rate_blocks(r), 7u);
    cr_expect_eq(disk_rate_at(r), 7u * 4096);
    disk_rate_seek(r, 60 * 4096 + 5);
    cr_assert_eq(disk_rate_run(r, 10, 100, &d, &err), PR_OK, "%s", err.msg);
    cr_expect_eq(disk_rate_blocks(r), 100u);
    cr_expect_eq(disk_rate_at(r), (60u + 100 - 128) * 4096);
    disk_rate_seek(r, 64 * 4096);
    cr_expect_eq(disk_rate_at(r), 0u);
    cr_assert_eq(disk_rate_run(r, 0.001, 1 << 30, &d, &err), PR_OK, "%s", err.msg);
    cr_expect_lt(disk_rate_blocks(r), 1u << 30);
    cr_assert_eq(disk_rate_run(r, 10, 1, &d, &err), PR_OK, "%s", err.msg);
    cr_expect_eq(disk_rate_blocks(r), 1u);
    disk_rate_close(r);
}

/* The file grows shorter under the reader; then it is longer again. */
Test(disk_rate, reports_what_fails)
{
    disk_rate *r;
    profile_disk d;

    pattern_write(in_dir("f"), 64 * 4096);
    r = open_rate(4096, 8, DISK_READ_BUFFERED);
    cr_assert_eq(truncate(in_dir("f"), 4096), 0);
    cr_expect_eq(disk_rate_run(r, 10, 64, &d, &err), PR_EINTEGRITY);
    cr_expect_not_null(strstr(err.msg, "/f: nothing at offset"), "%s", err.msg);
    cr_assert_eq(truncate(in_dir("f"), 64 * 4096), 0);
    cr_expect_eq(disk_rate_run(r, 10, 64, &d, &err), PR_OK, "%s", err.msg);
    disk_rate_close(r);
}

Test(disk_rate, refused_files)
{
    const disk_read_options o = {.block_bytes = 16384};
    disk_rate *r;

    pattern_write(in_dir("f"), 3 * 4096);
    cr_expect_eq(disk_rate_open(&r, in_dir("f"), &o, &err), PR_ERESOURCE);
    cr_expect_not_null(strstr(err.msg, "smaller than a block of 16384 bytes"), "%s", err.msg);
    cr_expect_eq(disk_rate_open(&r, in_dir("none"), &o, &err), PR_ERESOURCE);
    cr_expect_eq(disk_rate_open(&r, in_dir(""), &o, &err), PR_ERESOURCE);
    disk_rate_close(NULL);
}

/* --- options from figures ----------------------------------------------------------------------------- */
static profile_disk figures(const char *engine, uint64_t bs_bytes, uint32_t depth, bool direct, double rate)
{
    profile_disk d = {
        .pattern = "seq", .bs_bytes = bs_bytes, .iodepth = depth, .direct = direct, .read_bytes_per_s = rate};

    snprintf(d.engine, sizeof d.engine, "%s", engine);
    return d;
}

Test(disk_best, of_a_measurement)
{
    disk_read_options o = {.limit_bytes_s = 5, .idle = true};
    profile_disk d = figures("prima-uring", 4 << 20, 7, true, 1);

    cr_assert(disk_options_of(&o, &d));
    cr_expect_eq(o.engine, DISK_READ_URING);
    cr_expect_eq(o.mode, DISK_READ_DIRECT);
    cr_expect_eq(o.block_bytes, 4u << 20);
    cr_expect_eq(o.depth, 7u);
    cr_expect_eq(o.limit_bytes_s, 5u);
    cr_expect(o.idle);
    d = figures("prima-pread", 4096, 128, false, 1);
    cr_assert(disk_options_of(&o, &d));
    cr_expect_eq(o.engine, DISK_READ_PREAD);
    cr_expect_eq(o.mode, DISK_READ_BUFFERED);
    cr_expect_null(disk_engine_name(DISK_READ_AUTO));
}

/* A profile is a file of the user's. */
Test(disk_best, refused)
{
    const profile_disk bad[] = {
        figures("libaio", 1 << 20, 8, true, 1),         figures("prima", 1 << 20, 8, true, 1),
        figures("prima-pread", 2048, 8, true, 1),       figures("prima-pread", 3 << 20, 8, true, 1),
        figures("prima-pread", 128 << 20, 8, true, 1),  figures("prima-pread", 0, 8, true, 1),
        figures("prima-pread", 1ull << 63, 8, true, 1), figures("prima-pread", 1 << 20, 0, true, 1),
        figures("prima-pread", 1 << 20, 129, true, 1)};
    disk_read_options o = {.depth = 3};

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cr_expect_not(disk_options_of(&o, &bad[i]), "case %zu", i);
        cr_expect_eq(o.depth, 3u);
    }
}

Test(disk_best, of_a_profile)
{
    static profile p;
    disk_read_options o = disk_best(&p);

    cr_expect(o.engine == DISK_READ_AUTO && o.mode == DISK_READ_DIRECT && !o.block_bytes && !o.depth);
    p.disk[p.n_disk++] = figures("libaio", 1 << 20, 32, true, 9e9);
    cr_expect_eq(disk_best(&p).depth, 0u);
    p.disk[p.n_disk++] = figures("prima-uring", 1 << 20, 16, true, 2e9);
    p.disk[p.n_disk++] = figures("prima-pread", 8 << 20, 2, false, 3e9);
    p.disk[p.n_disk++] = figures("prima-pread", 1 << 20, 16, true, 1e9);
    o = disk_best(&p);
    cr_expect(o.engine == DISK_READ_PREAD && o.mode == DISK_READ_BUFFERED && o.depth == 2);
    cr_expect_eq(o.block_bytes, 8u << 20);
}
