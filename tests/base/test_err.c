/* Messages: the code is returned, context goes in front, nothing overflows. */
#include "src/base/err.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

Test(err, fail_sets_and_returns_the_code)
{
    pr_err e;

    cr_assert_eq(pr_fail(&e, PR_EUSAGE, "line %d: %s", 12, "no such key"), PR_EUSAGE);
    cr_assert_eq(e.code, PR_EUSAGE);
    cr_assert_str_eq(e.msg, "line 12: no such key");
    cr_assert_eq(pr_fail(NULL, PR_EPEER, "x"), PR_EPEER);
}

Test(err, wrap_puts_context_in_front)
{
    pr_err e;

    pr_fail(&e, PR_EINTEGRITY, "byte 7: bad magic");
    cr_assert_eq(pr_wrap(&e, "%s", "model.gguf"), PR_EINTEGRITY);
    cr_assert_eq(pr_wrap(&e, "prima %s", "run"), PR_EINTEGRITY);
    cr_assert_str_eq(e.msg, "prima run: model.gguf: byte 7: bad magic");
    cr_assert_lt(pr_wrap(NULL, "x"), 0);
}

Test(err, errno_is_named_and_kept)
{
    pr_err e;

    errno = ENOENT;
    cr_assert_eq(pr_fail_errno(&e, PR_ERESOURCE, "%s", "f"), PR_ERESOURCE);
    cr_assert_eq(errno, ENOENT);
    cr_assert_str_eq(e.msg, "f: No such file or directory");
}

Test(err, long_messages_are_cut_visibly)
{
    pr_err e;
    char text[2000];

    for (size_t i = 0; i + 2 < sizeof text; i += 2) memcpy(text + i, "\xc3\xa9", 2); /* é */
    text[sizeof text - 2] = 0;
    for (int shift = 0; shift < 2;
         shift++) { /* the cut falls on a boundary once and inside a character once */
        pr_fail(&e, PR_EUSAGE, "%s%s", shift ? "x" : "", text);
        size_t n = strlen(e.msg);
        cr_assert(n < sizeof e.msg && n > sizeof e.msg - 8);
        cr_assert_str_eq(e.msg + n - 3, "...");
        cr_assert_eq((n - 3 - (size_t)shift) % 2, 0, "half a character was left");
    }
    pr_wrap(&e, "%s", text);
    cr_assert_lt(strlen(e.msg), sizeof e.msg);
}
