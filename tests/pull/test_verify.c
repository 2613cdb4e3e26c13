/* Hashes, sidecars and structure, against the sha256sum command and files damaged on purpose. */
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

TestSuite(verify, .timeout = 20);

/* FIPS 180-2: SHA-256 of "abc", and of a million "a". */
#define ABC     "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define MILLION "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"

static void tiny(const char *name)
{
    gguf_build *b = gb_tiny("llama");

    gb_write(b, in_dir(name));
    gb_free(b);
}

/* One part of a model of two, with a tensor of its own. */
static void part(const char *name, uint32_t no, uint32_t count, uint32_t tensors)
{
    gguf_build *b = gb_new(3);
    const uint64_t ne[] = {64};
    char tensor[32];

    gb_str(b, "general.architecture", "llama");
    gb_u32(b, "split.no", no);
    gb_u32(b, "split.count", count);
    gb_u32(b, "split.tensors.count", tensors);
    snprintf(tensor, sizeof tensor, "t%u", (unsigned)no);
    gb_tensor(b, tensor, 0, 1, ne, NULL, 256);
    gb_write(b, in_dir(name));
    gb_free(b);
}

static int shell(const char *command)
{
    char all[4200];

    snprintf(all, sizeof all, "cd '%s' && %s", in_dir("."), command);
    return system(all);
}

Test(verify, hashes)
{
    char hex[HASH_HEX_BYTES];
    char *million = malloc(1000001);

    test_dir_new();
    write_file(in_dir("abc"), "abc");
    cr_assert_eq(verify_hash(in_dir("abc"), hex, NULL, NULL, NULL), PR_OK);
    cr_expect_str_eq(hex, ABC);
    memset(million, 'a', 1000000);
    million[1000000] = 0;
    write_file(in_dir("million"), million);
    cr_assert_eq(verify_hash(in_dir("million"), hex, NULL, NULL, NULL), PR_OK);
    cr_expect_str_eq(hex, MILLION);
    cr_expect_eq(verify_hash(in_dir("nothing"), hex, NULL, NULL, NULL), PR_ERESOURCE);
    free(million);
    test_dir_remove();
}

Test(verify, stopped)
{
    static const volatile int stop = 2;
    char hex[HASH_HEX_BYTES];

    test_dir_new();
    write_file(in_dir("abc"), "abc");
    cr_expect_eq(verify_hash(in_dir("abc"), hex, NULL, &stop, NULL), PR_EINTERRUPTED);
    test_dir_remove();
}

Test(verify, sha256sum_reads_ours)
{
    test_dir_new();
    write_file(in_dir("a b.gguf"), "abc");
    cr_assert_eq(verify_sidecar_write(in_dir("a b.gguf"), ABC, NULL), PR_OK);
    cr_expect_eq(shell("sha256sum --strict --quiet -c 'a b.gguf.sha256'"), 0);
    write_file(in_dir("a b.gguf"), "abd");
    cr_expect_neq(shell("sha256sum --quiet -c 'a b.gguf.sha256' >/dev/null 2>&1"), 0);
    test_dir_remove();
}

Test(verify, we_read_sha256sums)
{
    char hex[HASH_HEX_BYTES];
    pr_err e = {0};

    test_dir_new();
    write_file(in_dir("x.gguf"), "abc");
    write_file(in_dir("y.gguf"), "other");
    cr_assert_eq(verify_sidecar_read(in_dir("x.gguf"), hex, &e), PR_OK);
    cr_expect_str_eq(hex, "");
    cr_assert_eq(shell("sha256sum x.gguf > x.gguf.sha256"), 0);
    cr_assert_eq(verify_sidecar_read(in_dir("x.gguf"), hex, &e), PR_OK, "%s", e.msg);
    cr_expect_str_eq(hex, ABC);
    cr_assert_eq(shell("sha256sum -b y.gguf \"$PWD/x.gguf\" > x.gguf.sha256"), 0);
    cr_assert_eq(verify_sidecar_read(in_dir("x.gguf"), hex, &e), PR_OK, "%s", e.msg);
    cr_expect_str_eq(hex, ABC);
    cr_assert_eq(shell("sha256sum x.gguf | cut -c1-64 > x.gguf.sha256"), 0);
    cr_assert_eq(verify_sidecar_read(in_dir("x.gguf"), hex, &e), PR_OK, "%s", e.msg);
    cr_expect_str_eq(hex, ABC);
    test_dir_remove();
}

static const char *const bad[] = {"",
                                  "\n\n",
                                  "hello\n",
                                  ABC "  other.gguf\n",
                                  ABC "  x.gguf.bak\n",
                                  ABC " x.gguf\n",
                                  ABC "0  x.gguf\n",
                                  "ba7816bf  x.gguf\n",
                                  "SHA256 (x.gguf) = " ABC "\n",
                                  ABC "  \n"};

Test(verify, sidecars_refused)
{
    test_dir_new();
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char hex[HASH_HEX_BYTES];
        write_file(in_dir("x.gguf.sha256"), bad[i]);
        cr_expect_eq(verify_sidecar_read(in_dir("x.gguf"), hex, NULL), PR_EINTEGRITY, "accepted: %s", bad[i]);
        cr_expect_str_eq(hex, "");
    }
    test_dir_remove();
}

/* --- structure -------------------------------------------------------------------------------------------
 */
/* Parts under other names than they will have: found as what they will be. */
Test(verify, parts_before_they_have_their_names)
{
    const char *path[2], *now[2];
    char p[2][512], q[2][2048];
    pr_err e = {0};

    test_dir_new();
    for (int i = 0; i < 2; i++) {
        char name[64];
        snprintf(name, sizeof name, "m-0000%d-of-00002.gguf", i + 1);
        snprintf(p[i], sizeof p[i], "%s", in_dir(name));
        path[i] = p[i];
        snprintf(q[i], sizeof q[i], "%s.part", p[i]);
        now[i] = q[i];
        snprintf(name, sizeof name, "m-0000%d-of-00002.gguf.part", i + 1);
        part(name, (uint32_t)i, 2, 2);
    }
    cr_expect_eq(verify_gguf(now, path, 2, &e), PR_OK, "%s", e.msg);
    cr_assert_eq(rename(q[0], p[0]), 0); /* one of them has its name already */
    now[0] = p[0];
    cr_expect_eq(verify_gguf(now, path, 2, &e), PR_OK, "%s", e.msg);
    part("m-00002-of-00002.gguf.part", 0, 2, 2); /* the first part again */
    cr_expect_eq(verify_gguf(now, path, 2, &e), PR_EINTEGRITY);
    cr_expect_eq(strncmp(e.msg, "m-00002-of-00002.gguf", 21), 0, "%s", e.msg);
    cr_assert_eq(truncate(q[1], 200), 0);
    cr_expect_eq(verify_gguf(now, path, 2, &e), PR_EINTEGRITY);
    part("m-00002-of-00002.gguf.part", 1, 2, 3); /* a tensor too few in all */
    part("m-00001-of-00002.gguf", 0, 2, 3);
    cr_expect_eq(verify_gguf(now, path, 2, &e), PR_EINTEGRITY);
    test_dir_remove();
}

/* --- a whole model ----------------------------------------------------------------------------------------
 */
static void quietly(void)
{
    cr_redirect_stdout();
    cr_redirect_stderr();
}

static int check(const char *name, const char *sha256, pr_err *e)
{
    const verify_options o = {.sha256 = sha256, .print = true};

    *e = (pr_err){0};
    return verify_model(in_dir(name), &o, e);
}

Test(verify, a_model, .init = quietly)
{
    pr_err e;
    char hex[HASH_HEX_BYTES];

    test_dir_new();
    tiny("x.gguf");
    cr_expect_eq(check("x.gguf", NULL, &e), PR_OK, "no sidecar: %s", e.msg);
    cr_assert_eq(shell("sha256sum x.gguf > x.gguf.sha256"), 0);
    cr_expect_eq(check("x.gguf", NULL, &e), PR_OK, "%s", e.msg);
    cr_assert_eq(verify_sidecar_read(in_dir("x.gguf"), hex, &e), PR_OK);
    cr_expect_eq(check("x.gguf", hex, &e), PR_OK, "%s", e.msg);
    cr_expect_eq(check("x.gguf", ABC, &e), PR_EINTEGRITY);
    cr_assert_eq(shell("printf X | dd of=x.gguf bs=1 seek=5000 conv=notrunc status=none"), 0);
    cr_expect_eq(check("x.gguf", NULL, &e), PR_EINTEGRITY);
    cr_expect(strstr(e.msg, hex), "names what was expected: %s", e.msg);
    cr_assert_eq(shell("truncate -s 5000 x.gguf"), 0);
    cr_expect_eq(check("x.gguf", NULL, &e), PR_EINTEGRITY);
    cr_expect_eq(check("nothing.gguf", NULL, &e), PR_ERESOURCE);
    write_file(in_dir("half.gguf.part"), "x");
    cr_expect_eq(check("half.gguf", NULL, &e), PR_ERESOURCE);
    cr_expect(strstr(e.msg, "not finished"), "%s", e.msg);
    test_dir_remove();
}

Test(verify, all_parts, .init = quietly)
{
    pr_err e;

    test_dir_new();
    part("m-00001-of-00002.gguf", 0, 2, 2);
    cr_expect_eq(check("m-00001-of-00002.gguf", NULL, &e), PR_EINTEGRITY, "a part is missing");
    cr_expect(strstr(e.msg, "00002-of-00002"), "%s", e.msg);
    part("m-00002-of-00002.gguf", 1, 2, 2);
    cr_expect_eq(check("m-00002-of-00002.gguf", NULL, &e), PR_OK, "%s", e.msg);
    cr_assert_eq(shell("for f in *.gguf; do sha256sum $f > $f.sha256; done"), 0);
    cr_expect_eq(check("m-00001-of-00002.gguf", NULL, &e), PR_OK, "%s", e.msg);
    cr_expect_eq(check("m-00001-of-00002.gguf", ABC, &e), PR_EUSAGE);
    cr_assert_eq(shell("printf X | dd of=m-00002-of-00002.gguf bs=1 seek=500 conv=notrunc status=none"), 0);
    cr_expect_eq(check("m-00001-of-00002.gguf", NULL, &e), PR_EINTEGRITY, "named by another part");
    cr_expect(strstr(e.msg, "m-00002-of-00002.gguf"), "%s", e.msg);
    test_dir_remove();
}
