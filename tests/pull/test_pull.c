/* A pull from start to end, from files of this machine (net/fetch treats them like a server with ranges):
 * what stands under which name afterwards, in every case. HTTP is the scripts' (README.md). */
#include "src/pull/pull.h"
#include "src/pull/verify.h"
#include "tests/common/gguf_build.h"
#include "tests/common/prima.h"
#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static hub no_hub = {.endpoint = "https://huggingface.co", .origin = "https://huggingface.co"};

static void begin(void)
{
    cr_redirect_stdout();
    cr_redirect_stderr();
    cr_assert_eq(chdir(test_dir_new()), 0);
    cr_assert_eq(mkdir("from", 0777), 0);
}

static void end(void)
{
    cr_assert_eq(chdir("/"), 0);
    test_dir_remove();
}

TestSuite(pull, .timeout = 30, .init = begin, .fini = end);

#define ZEROS "0000000000000000000000000000000000000000000000000000000000000000"

static void tiny(const char *path)
{
    gguf_build *b = gb_tiny("llama");

    gb_write(b, path);
    gb_free(b);
}

static void part(const char *path, uint32_t no, uint32_t count)
{
    gguf_build *b = gb_new(3);
    const uint64_t ne[] = {64};
    char tensor[32];

    gb_str(b, "general.architecture", "llama");
    gb_u32(b, "split.no", no);
    gb_u32(b, "split.count", count);
    snprintf(tensor, sizeof tensor, "t%u", (unsigned)no);
    gb_tensor(b, tensor, 0, 1, ne, NULL, 256);
    gb_write(b, path);
    gb_free(b);
}

static volatile int stop;

/* Into the folder "got". *e is the error. */
static int pull_only(const char *text, const char *sha256, const pull_selection *only, pr_err *e)
{
    static meter m;
    const fetch_options fo = {.jobs = 2, .stop = &stop, .progress = meter_fetched, .progress_arg = &m};
    const pull_options po = {.dir = "got", .sha256 = sha256, .stop = &stop, .only = only, .meter = &m};
    fetch *f = NULL;
    source *s = NULL;
    int rc;

    *e = (pr_err){0};
    cr_assert_eq(fetch_new(&f, &fo, e), PR_OK, "%s", e->msg);
    if (!(rc = source_resolve(&s, text, &no_hub, f, "got", e)))
        rc = s->offline ? pull_offline(s, &po, e) : pull_model(s, f, &po, e);
    source_free(s);
    fetch_free(f);
    return rc;
}

static int pull_it(const char *text, const char *sha256, pr_err *e)
{
    return pull_only(text, sha256, NULL, e);
}

/* cmp, sha256sum and ls are others' word. */
static void expect_whole(const char *name)
{
    char command[1024];

    snprintf(command, sizeof command,
             "cmp 'from/%s' 'got/%s' && cd got && sha256sum --strict --quiet -c '%s.sha256'", name, name,
             name);
    cr_expect_eq(system(command), 0, "%s is not whole", name);
}

static void expect_files(int n)
{
    char command[64];

    snprintf(command, sizeof command, "test $(ls -A got | wc -l) -eq %d", n);
    cr_expect_eq(system(command), 0, "other than %d files in got", n);
}

static void hash_of(const char *path, char hex[HASH_HEX_BYTES])
{
    cr_assert_eq(verify_hash(path, hex, NULL, NULL, NULL), PR_OK);
}

static void damage(const char *path, const char *how)
{
    char command[256];

    if (!strcmp(how, "byte"))
        snprintf(command, sizeof command, "printf X | dd of='%s' bs=1 seek=5000 conv=notrunc status=none",
                 path);
    else snprintf(command, sizeof command, "truncate -s 5000 '%s'", path);
    cr_assert_eq(system(command), 0);
}

Test(pull, whole)
{
    pr_err e;

    tiny("from/a b.gguf");
    cr_assert_eq(pull_it("from/a b.gguf", NULL, &e), PR_OK, "%s", e.msg);
    expect_whole("a b.gguf");
    expect_files(2);
    cr_assert_eq(pull_it("from/a b.gguf", NULL, &e), PR_OK, "a second time: %s", e.msg);
    expect_files(2);
}

Test(pull, with_a_hash)
{
    char hex[HASH_HEX_BYTES];
    pr_err e;

    tiny("from/a.gguf");
    hash_of("from/a.gguf", hex);
    cr_assert_eq(pull_it("from/a.gguf", ZEROS, &e), PR_EINTEGRITY);
    cr_expect(strstr(e.msg, hex) && strstr(e.msg, ZEROS) && strstr(e.msg, "got/a.gguf.bad"), "%s", e.msg);
    cr_expect_neq(access("got/a.gguf", F_OK), 0);
    cr_expect_neq(access("got/a.gguf.part", F_OK), 0, "the next call would go on with wrong bytes");
    expect_files(1);
    cr_assert_eq(pull_it("from/a.gguf", hex, &e), PR_OK, "%s", e.msg);
    expect_whole("a.gguf");
    cr_assert_eq(pull_it("from/a.gguf", hex, &e), PR_OK, "%s", e.msg);
    cr_assert_eq(pull_it("from/a.gguf", ZEROS, &e), PR_EMISMATCH, "what is there is another file then");
    expect_whole("a.gguf");
}

/* The source says one thing, the user another: known before a byte comes. */
Test(pull, a_hash_that_the_source_denies)
{
    pr_err e;

    tiny("from/a.gguf");
    cr_assert_eq(system("cd from && sha256sum a.gguf > a.gguf.sha256"), 0);
    cr_assert_eq(pull_it("from/a.gguf", ZEROS, &e), PR_EMISMATCH);
    expect_files(0);
    cr_assert_eq(pull_it("from/a.gguf", NULL, &e), PR_OK, "%s", e.msg);
    damage("from/a.gguf", "byte"); /* not what its own sidecar says */
    cr_assert_eq(system("rm got/*"), 0);
    cr_assert_eq(pull_it("from/a.gguf", NULL, &e), PR_EINTEGRITY);
    cr_expect_neq(access("got/a.gguf", F_OK), 0);
}

Test(pull, no_model)
{
    pr_err e;

    write_file("from/a.gguf", "<!doctype html><title>Log in</title>");
    cr_assert_eq(pull_it("from/a.gguf", NULL, &e), PR_EINTEGRITY);
    cr_expect(strstr(e.msg, "GGUF") && strstr(e.msg, "got/a.gguf:"), "%s", e.msg);
    expect_files(1);
    tiny("from/a.gguf");
    damage("from/a.gguf", "length");
    cr_assert_eq(pull_it("from/a.gguf", NULL, &e), PR_EINTEGRITY);
    write_file("from/a.gguf", "");
    cr_assert_eq(pull_it("from/a.gguf", NULL, &e), PR_EINTEGRITY);
    tiny("from/a.gguf");
    cr_assert_eq(pull_it("from/a.gguf", NULL, &e), PR_OK, "%s", e.msg);
    expect_whole("a.gguf");
}

Test(pull, nothing_is_overwritten)
{
    pr_err e;

    tiny("from/a.gguf");
    cr_assert_eq(mkdir("got", 0777), 0);
    write_file("got/a.gguf", "mine");
    cr_expect_eq(pull_it("from/a.gguf", NULL, &e), PR_EMISMATCH);
    cr_expect(strstr(e.msg, "got/a.gguf") && strstr(e.msg, "-o"), "%s", e.msg);
    expect_files(1);
    cr_assert_eq(system("grep -q mine got/a.gguf && rm got/a.gguf && mkdir got/a.gguf"), 0);
    cr_expect_eq(pull_it("from/a.gguf", NULL, &e), PR_EMISMATCH);
}

/* There, of the right length, and changed after it was found right. */
Test(pull, a_damaged_file)
{
    pr_err e;

    tiny("from/a.gguf");
    cr_assert_eq(pull_it("from/a.gguf", NULL, &e), PR_OK);
    cr_assert_eq(system("sleep 0.05"), 0);
    damage("got/a.gguf", "byte");
    cr_expect_eq(pull_it("from/a.gguf", NULL, &e), PR_EINTEGRITY);
    cr_expect(strstr(e.msg, "damaged"), "%s", e.msg);
    cr_assert_eq(system("cp from/a.gguf got/a.gguf"), 0); /* newer than its sidecar, and right */
    cr_expect_eq(pull_it("from/a.gguf", NULL, &e), PR_OK, "%s", e.msg);
    cr_assert_eq(system("rm got/a.gguf.sha256"), 0);
    cr_expect_eq(pull_it("from/a.gguf", NULL, &e), PR_OK, "%s", e.msg);
    cr_assert_eq(system("cd from && sha256sum a.gguf > a.gguf.sha256"), 0);
    cr_expect_eq(pull_it("from/a.gguf", NULL, &e), PR_OK, "%s", e.msg);
    expect_whole("a.gguf"); /* compared now, so there is a sidecar */
}

Test(pull, all_parts)
{
    pr_err e;

    part("from/m-00001-of-00002.gguf", 0, 2);
    part("from/m-00002-of-00002.gguf", 1, 2);
    cr_expect_eq(pull_it("from/m-00002-of-00002.gguf", ZEROS, &e), PR_EUSAGE);
    cr_assert_eq(pull_it("from/m-00002-of-00002.gguf", NULL, &e), PR_OK, "%s", e.msg);
    expect_whole("m-00001-of-00002.gguf");
    expect_whole("m-00002-of-00002.gguf");
    expect_files(4);
    cr_assert_eq(unlink("got/m-00001-of-00002.gguf"), 0);
    cr_assert_eq(pull_it("from/m-00001-of-00002.gguf", NULL, &e), PR_OK, "one of them: %s", e.msg);
    expect_whole("m-00001-of-00002.gguf");
    expect_files(4);
}

/* All that is wrong is found at once, and not built upon. */
Test(pull, both_parts_are_wrong)
{
    pr_err e;

    part("from/m-00001-of-00002.gguf", 0, 2);
    part("from/m-00002-of-00002.gguf", 1, 2);
    cr_assert_eq(
        system("cd from && for f in *.gguf; do sha256sum $f > $f.sha256; printf X | dd of=$f bs=1 seek=300 "
               "conv=notrunc status=none; done"),
        0);
    cr_expect_eq(pull_it("from/m-00001-of-00002.gguf", NULL, &e), PR_EINTEGRITY);
    cr_expect(strstr(e.msg, "m-00001-of-00002.gguf"), "%s", e.msg);
    cr_expect_eq(access("got/m-00001-of-00002.gguf.bad", F_OK), 0);
    cr_expect_eq(access("got/m-00002-of-00002.gguf.bad", F_OK), 0);
    expect_files(2);
}

/* No part has its name before the model is right; and the right part need not come again. */
Test(pull, one_part_is_wrong)
{
    pr_err e;

    part("from/m-00001-of-00002.gguf", 0, 2);
    part("from/m-00002-of-00002.gguf", 0, 2);
    cr_expect_eq(pull_it("from/m-00001-of-00002.gguf", NULL, &e), PR_EINTEGRITY);
    cr_expect(strstr(e.msg, "m-00002-of-00002.gguf"), "%s", e.msg);
    cr_expect_neq(access("got/m-00001-of-00002.gguf", F_OK), 0);
    part("from/m-00002-of-00002.gguf", 1, 2);
    cr_assert_eq(
        system("rm -r got; cd from && sha256sum m-00002-of-00002.gguf > m-00002-of-00002.gguf.sha256"), 0);
    damage("from/m-00002-of-00002.gguf", "byte");
    cr_assert_eq(system("printf X | dd of=from/m-00002-of-00002.gguf bs=1 seek=300 conv=notrunc status=none; "
                        "truncate -s $(stat -c %s from/m-00001-of-00002.gguf) from/m-00002-of-00002.gguf"),
                 0);
    cr_expect_eq(pull_it("from/m-00001-of-00002.gguf", NULL, &e), PR_EINTEGRITY);
    cr_expect_eq(access("got/m-00001-of-00002.gguf.part", F_OK), 0);
    cr_expect_eq(access("got/m-00002-of-00002.gguf.bad", F_OK), 0);
    cr_expect_neq(access("got/m-00001-of-00002.gguf", F_OK), 0);
    part("from/m-00002-of-00002.gguf", 1, 2);
    cr_assert_eq(pull_it("from/m-00001-of-00002.gguf", NULL, &e), PR_OK, "%s", e.msg);
    expect_whole("m-00001-of-00002.gguf");
    expect_whole("m-00002-of-00002.gguf");
}

/* A file whose first bytes show that it is none for us is not fetched to its end. */
Test(pull, a_large_file_is_looked_at_early)
{
    struct stat st;
    pr_err e;

    write_file("from/a.gguf", "GGUF, but only in name");
    cr_assert_eq(truncate("from/a.gguf", (off_t)1 << 28), 0);
    cr_expect_eq(pull_it("from/a.gguf", NULL, &e), PR_EINTEGRITY);
    cr_expect(strstr(e.msg, "64 MiB"), "%s", e.msg);
    cr_expect_neq(stat("got/a.gguf.part", &st), 0);
    expect_files(0);
}

Test(pull, interrupted)
{
    pr_err e;

    tiny("from/a.gguf");
    stop = 2;
    cr_expect_eq(pull_it("from/a.gguf", NULL, &e), PR_EINTERRUPTED);
    cr_expect_neq(access("got/a.gguf", F_OK), 0);
    stop = 0;
    cr_expect_eq(pull_it("from/a.gguf", NULL, &e), PR_OK, "%s", e.msg);
    expect_whole("a.gguf");
}

/* The end came after the name and before the sidecar and the removal of the journal. */
Test(pull, killed_at_the_last_moment)
{
    pr_err e;

    tiny("from/a.gguf");
    cr_assert_eq(system("mkdir got && cp from/a.gguf got/ && echo '{}' > got/a.gguf.part.json && cd from && "
                        "sha256sum a.gguf > "
                        "a.gguf.sha256"),
                 0);
    cr_expect_eq(pull_it("from/a.gguf", NULL, &e), PR_OK, "%s", e.msg);
    expect_whole("a.gguf");
    expect_files(2);
}

/* What was listed and what the server has are not one thing: not begun. */
Test(pull, a_list_that_is_wrong)
{
    static meter m;
    const fetch_options fo = {.jobs = 1};
    const pull_options po = {.dir = "got", .meter = &m};
    fetch *f = NULL;
    source *s = NULL;
    pr_err e = {0};

    tiny("from/a.gguf");
    cr_assert_eq(fetch_new(&f, &fo, &e), PR_OK);
    cr_assert_eq(source_resolve(&s, "from/a.gguf", &no_hub, f, "got", &e), PR_OK);
    s->file[0].bytes++;
    cr_expect_eq(pull_model(s, f, &po, &e), PR_EINTEGRITY);
    cr_expect(strstr(e.msg, "listed"), "%s", e.msg);
    expect_files(0);
    source_free(s);
    fetch_free(f);
}

Test(pull, folders)
{
    pr_err e;

    tiny("from/a.gguf");
    write_file("got", "a file");
    cr_expect_eq(pull_it("from/a.gguf", NULL, &e), PR_EUSAGE);
}

Test(pull, offline)
{
    pr_err e;

    tiny("from/a.gguf");
    cr_assert_eq(pull_it("from/a.gguf", NULL, &e), PR_OK);
    no_hub.offline = true;
    cr_expect_eq(pull_it("x/y/a.gguf", NULL, &e), PR_OK, "%s", e.msg);
    cr_expect_eq(pull_it("x/y/b.gguf", NULL, &e), PR_ENETWORK);
    write_file("got/b.gguf.part", "x");
    cr_expect_eq(pull_it("x/y/b.gguf", NULL, &e), PR_ENETWORK);
    damage("got/a.gguf", "byte");
    cr_expect_eq(pull_it("x/y/a.gguf", NULL, &e), PR_EINTEGRITY);
    cr_expect_eq(pull_it("from/a.gguf", NULL, &e), PR_EINTEGRITY, "a path needs no network");
}

/* --- some of a model ---------------------------------------------------------------------------------------
 */
static int choose_head(void *arg, fetch *f, const fetch_facts *x, const char *const *path, size_t n,
                       pull_ranges *out, pr_err *err)
{
    unsigned char magic[4];
    int rc = fetch_bytes(f, &x[0], 0, sizeof magic, magic, err);

    if (rc) return rc;
    cr_expect_eq(n, 1);
    cr_expect_str_eq(path[0], "got/a.gguf");
    cr_expect_eq(memcmp(magic, "GGUF", 4), 0);
    out[0].range = malloc(2 * sizeof *out[0].range);
    out[0].range[0] = (fetch_range){0, 4000};
    out[0].range[1] = (fetch_range){8000, 8100};
    out[0].n = 2;
    *(int *)arg |= 1;
    return PR_OK;
}

static int check_now(void *arg, const char *const *now, const char *const *path, size_t n, pr_err *err)
{
    (void)n;
    cr_expect_str_eq(now[0], "got/a.gguf.part");
    cr_expect_str_eq(path[0], "got/a.gguf");
    *(int *)arg |= 2;
    return *(int *)arg & 4 ? pr_fail(err, PR_EINTEGRITY, "not as it should be") : PR_OK;
}

Test(pull, only_some_of_it)
{
    int called = 4;
    const pull_selection only = {&called, choose_head, check_now};
    struct stat from, got;
    pr_err e;

    tiny("from/a.gguf");
    cr_expect_eq(pull_only("from/a.gguf", NULL, &only, &e), PR_EINTEGRITY);
    cr_expect_eq(called, 7);
    cr_expect_eq(access("got/a.gguf.bad", F_OK), 0);
    cr_expect_neq(access("got/a.gguf", F_OK), 0);
    called = 0;
    cr_assert_eq(pull_only("from/a.gguf", NULL, &only, &e), PR_OK, "%s", e.msg);
    cr_expect_eq(called, 3);
    cr_assert_eq(stat("from/a.gguf", &from) || stat("got/a.gguf", &got), 0);
    cr_expect_eq(from.st_size, got.st_size);
    cr_expect_neq(access("got/a.gguf.sha256", F_OK), 0);
    cr_expect_eq(system("cmp -n 4000 from/a.gguf got/a.gguf"), 0);
}

static int somebody_writes_one(void *arg, const char *const *now, const char *const *path, size_t n,
                               pr_err *err)
{
    (void)arg;
    (void)now;
    (void)n;
    (void)err;
    write_file(path[0], "mine");
    return PR_OK;
}

Test(pull, a_file_that_comes_into_being_meanwhile)
{
    int called = 0;
    const pull_selection only = {&called, choose_head, somebody_writes_one};
    pr_err e;

    tiny("from/a.gguf");
    cr_expect_eq(pull_only("from/a.gguf", NULL, &only, &e), PR_EMISMATCH, "%s", e.msg);
    cr_expect_eq(system("grep -q mine got/a.gguf"), 0);
    cr_expect_eq(access("got/a.gguf.part", F_OK), 0, "what came is lost");
}

/* --- the display
 * -------------------------------------------------------------------------------------------- */
Test(pull, meter)
{
    const uint64_t s = 1000000000u;
    meter m = {0};
    char text[METER_LINE_BYTES];

    meter_begin(&m, 40u * s);
    meter_file(&m, "fetching", "a.gguf", 0);
    meter_count(&m, 100 * s, 5 * s); /* what an earlier call has left is no rate */
    meter_text(&m, 100 * s, text, sizeof text);
    cr_expect_str_eq(text, "fetching a.gguf: 5.00 of 40.00 GB");
    for (uint64_t i = 1; i <= 20; i++) meter_count(&m, (100 + i) * s, 5 * s + i * 50000000u);
    meter_text(&m, 120 * s, text, sizeof text);
    cr_expect_str_eq(text, "fetching a.gguf: 6.00 of 40.00 GB, 50.0 MB/s, 11 min 20 s left");
    meter_count(&m, 121 * s, 0); /* a file that begins anew */
    meter_text(&m, 121 * s, text, sizeof text);
    cr_expect_eq(strncmp(text, "fetching a.gguf: 6.00 of", 24), 0, "%s", text);
    meter_file(&m, "fetching", "b.gguf", 30 * s);
    meter_count(&m, 130 * s, 0);
    meter_count(&m, 131 * s, 10000000u);
    meter_text(&m, 131 * s, text, sizeof text);
    cr_expect_str_eq(text, "fetching b.gguf: 30.01 of 40.00 GB, 10.0 MB/s, 16 min 39 s left");
    meter_begin(&m, 2500000u);
    meter_file(&m, "checking", "c", 0);
    meter_count(&m, 200 * s, 1000000u);
    meter_text(&m, 200 * s, text, sizeof text);
    cr_expect_str_eq(text, "checking c: 1.00 of 2.50 MB");
}
